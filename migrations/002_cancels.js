/** Counts how often a cancel was asked for, so that asking ends some time. */

/** @param {import('knex').Knex} knex */
export async function up(knex) {
  // MySQL takes no column back: where this was killed before it was noted, it is there already.
  if (!(await knex.schema.hasColumn('tasks', 'cancels'))) {
    await knex.schema.alterTable('tasks', (table) => {
      table.integer('cancels').notNullable().defaultTo(0);
    });
  }
}

/** @param {import('knex').Knex} knex */
export async function down(knex) {
  await knex.schema.alterTable('tasks', (table) => {
    table.dropColumn('cancels');
  });
}
