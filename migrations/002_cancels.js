/** Counts how often a cancel was asked for, so that asking ends some time. */

/** @param {import('knex').Knex} knex */
export async function up(knex) {
  await knex.schema.alterTable('tasks', (table) => {
    table.integer('cancels').notNullable().defaultTo(0);
  });
}

/** @param {import('knex').Knex} knex */
export async function down(knex) {
  await knex.schema.alterTable('tasks', (table) => {
    table.dropColumn('cancels');
  });
}
