/** What only messages of classic Buildbots tell of a build, kept until its run is resolved. Times are UTC milliseconds. */

/** @param {import('knex').Knex} knex */
export async function up(knex) {
  // MySQL takes no table back: where this was killed there is one, maybe without its indexes, and nothing in it yet.
  if ((await knex.schema.hasTable('kept_builds')) && (await knex('kept_builds').first()) === undefined) {
    await knex.schema.dropTable('kept_builds');
  }
  await knex.schema.createTable('kept_builds', (table) => {
    if (knex.client.dialect === 'mysql') {
      table.engine('InnoDB');
      table.charset('utf8mb4');
      table.collate('utf8mb4_bin');
    }
    table.bigIncrements('id');
    table.bigInteger('build_request_id').notNullable();
    table.bigInteger('number').notNullable();
    table.string('master', 255).notNullable();
    table.bigInteger('started_at').notNullable();
    table.boolean('is_final').notNullable();
    table.text('properties', 'longtext').notNullable();
    table.text('log_url').nullable();
    table.string('worker', 255).nullable();
    table.bigInteger('kept_at').notNullable();
    // 255 characters of four bytes are too long for a key: a hash of what tells builds of a request apart.
    table.string('identity', 64).notNullable().unique();
    table.index(['build_request_id'], 'kept_builds_request');
    table.index(['kept_at'], 'kept_builds_kept');
  });
}

/** @param {import('knex').Knex} knex */
export async function down(knex) {
  await knex.schema.dropTable('kept_builds');
}
