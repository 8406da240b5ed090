/** A build request that is missing has a grace of its own, beside that of a missing task. Times are UTC milliseconds. */

/** @param {import('knex').Knex} knex */
export async function up(knex) {
  // MySQL takes no column back: where what comes after it failed, it is there already.
  if (!(await knex.schema.hasColumn('tasks', 'request_absent_since'))) {
    await knex.schema.alterTable('tasks', (table) => {
      table.bigInteger('request_absent_since').nullable();
    });
  }
  // It stood for either; what is still missing is found out again.
  await knex('tasks').whereNotNull('absent_since').update({ absent_since: null });
}

/** @param {import('knex').Knex} knex */
export async function down(knex) {
  await knex.schema.alterTable('tasks', (table) => {
    table.dropColumn('request_absent_since');
  });
}
