/** When a claim is to be renewed: how long claims last is the queue's setting, and only the claim itself shows it. */

/** @param {import('knex').Knex} knex */
export async function up(knex) {
  // MySQL takes no column back: where this was killed before it was noted, it is there already.
  if (!(await knex.schema.hasColumn('tasks', 'reclaim_at'))) {
    await knex.schema.alterTable('tasks', (table) => {
      table.bigInteger('reclaim_at').nullable();
    });
  }
}

/** @param {import('knex').Knex} knex */
export async function down(knex) {
  await knex.schema.alterTable('tasks', (table) => {
    table.dropColumn('reclaim_at');
  });
}
