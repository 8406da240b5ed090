/**
 * The mapping of a task's run to a build request: the bridge's only state. Times are UTC milliseconds.
 * Portable over SQLite, MySQL/MariaDB and PostgreSQL.
 */

/** @param {import('knex').Knex} knex */
export async function up(knex) {
  await knex.schema.createTable('tasks', (table) => {
    binary(table, knex);
    table.bigIncrements('id');
    table.bigInteger('version').notNullable();
    // A slugid: ids can differ in case only.
    table.string('task_id', 22).notNullable();
    // The task_id while the mapping is open, so that a task has one open mapping at most.
    table.string('open_task_id', 22).nullable().unique();
    table.integer('run_id').notNullable();
    table.string('task_group_id', 22).notNullable();
    table.string('builder', 255).notNullable();
    table.string('state', 16).notNullable();
    table.string('external_id', 64).notNullable();
    table.integer('submissions').notNullable();
    table.bigInteger('build_request_id').nullable();
    table.string('collapse_key', 64).nullable();
    // The collapse_key while this mapping has its one place for an unclaimed request.
    table.string('slot', 64).nullable().unique();
    table.integer('priority').notNullable();
    table.integer('retries_reported').notNullable();
    table.integer('reruns').notNullable();
    table.bigInteger('taken_until').nullable();
    table.bigInteger('deadline').notNullable();
    table.bigInteger('next_check_at').notNullable();
    table.bigInteger('absent_since').nullable();
    table.string('lease_owner', 150).nullable();
    table.bigInteger('lease_until').notNullable();
    table.integer('attempts').notNullable();
    table.text('last_error').nullable();
    table.bigInteger('created').notNullable();
    table.bigInteger('updated').notNullable();
    table.bigInteger('resolved').nullable();
    table.string('resolution', 64).nullable();
    // Of a sweep: what is due. Closed mappings have a time that never comes.
    table.index(['next_check_at', 'lease_until'], 'tasks_due');
    table.index(['collapse_key', 'state'], 'tasks_collapse');
    table.index(['build_request_id'], 'tasks_request');
    table.index(['task_id', 'id'], 'tasks_task');
    table.index(['resolved'], 'tasks_resolved');
  });
  await knex.schema.createTable('events', (table) => {
    binary(table, knex);
    table.bigIncrements('id');
    table.string('task_id', 22).notNullable();
    table.integer('run_id').nullable();
    table.bigInteger('at').notNullable();
    table.string('instance', 100).notNullable();
    table.string('what', 40).notNullable();
    table.text('detail').notNullable();
    table.index(['task_id', 'id'], 'events_task');
  });
  await knex.schema.createTable('instances', (table) => {
    binary(table, knex);
    table.string('instance', 100).primary();
    table.string('version', 40).notNullable();
    table.string('services', 200).notNullable();
    table.bigInteger('started').notNullable();
    table.bigInteger('heartbeat').notNullable();
  });
}

/** @param {import('knex').Knex} knex */
export async function down(knex) {
  await knex.schema.dropTable('instances');
  await knex.schema.dropTable('events');
  await knex.schema.dropTable('tasks');
}

/** Byte for byte comparison, as everywhere else, and the whole of Unicode. */
function binary(table, knex) {
  if (knex.client.dialect === 'mysql') {
    table.engine('InnoDB');
    table.charset('utf8mb4');
    table.collate('utf8mb4_bin');
  }
}
