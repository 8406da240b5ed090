/** The tables of the scheduler database, as Buildbot itself makes them. */
import type { Knex } from 'knex';
import type { SchemaKind } from './options.ts';

/**
 * Mozilla's 0.8.2, by the dump of its production database that came with BuildAPI: MyISAM, three-byte utf8, no foreign
 * keys, and nothing that is undone when it fails halfway.
 */
const A = [
  `CREATE TABLE patches (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, patchlevel int NOT NULL, patch_base64 text NOT NULL, subdir text)`,
  `CREATE TABLE sourcestamps (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, branch varchar(256), revision varchar(256), patchid int,
    repository text NOT NULL, project text NOT NULL, KEY branch_idx (branch), KEY revision_idx (revision))`,
  `CREATE TABLE buildsets (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, external_idstring varchar(256), reason varchar(256),
    sourcestampid int NOT NULL, submitted_at int NOT NULL, complete smallint NOT NULL DEFAULT 0, complete_at int,
    results smallint, KEY buildsets_complete (complete), KEY buildsets_submitted_at (submitted_at),
    KEY buildsets_sourcestampid (sourcestampid))`,
  `CREATE TABLE buildset_properties (
    buildsetid int NOT NULL, property_name varchar(256) NOT NULL, property_value varchar(1024) NOT NULL,
    KEY buildset_properties_buildsetid (buildsetid))`,
  `CREATE TABLE buildrequests (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, buildsetid int NOT NULL, buildername varchar(256) NOT NULL,
    priority int NOT NULL DEFAULT 0, claimed_at int DEFAULT 0, claimed_by_name varchar(256),
    claimed_by_incarnation varchar(256), complete int DEFAULT 0, results smallint, submitted_at int NOT NULL,
    complete_at int, KEY buildrequests_buildsetid (buildsetid), KEY buildrequests_buildername (buildername(255)),
    KEY buildrequests_complete (complete), KEY buildrequests_claimed_at (claimed_at),
    KEY buildrequests_claimed_by_name (claimed_by_name(255)))`,
  `CREATE TABLE builds (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, number int NOT NULL, brid int NOT NULL, start_time int NOT NULL,
    finish_time int, KEY builds_number (number), KEY builds_brid (brid), KEY builds_start_time (start_time),
    KEY builds_finish_time (finish_time))`,
  'CREATE TABLE version (version int NOT NULL)',
].map((sql) => `${sql} ENGINE=MyISAM DEFAULT CHARSET=utf8`);

/** A stock 0.8.12 at its version 24, column by column and index by index as one made them on a MariaDB 10.11. */
const B = [
  `CREATE TABLE migrate_version (
    repository_id varchar(250) NOT NULL PRIMARY KEY, repository_path text, version int)`,
  `CREATE TABLE patches (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, patchlevel int NOT NULL, patch_base64 text NOT NULL,
    patch_author text NOT NULL, patch_comment text NOT NULL, subdir text)`,
  'CREATE TABLE sourcestampsets (id int NOT NULL AUTO_INCREMENT PRIMARY KEY)',
  `CREATE TABLE sourcestamps (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, branch varchar(256), revision varchar(256), patchid int,
    repository varchar(512) NOT NULL DEFAULT '', project varchar(512) NOT NULL DEFAULT '',
    sourcestampsetid int NOT NULL, codebase varchar(256) NOT NULL DEFAULT '',
    KEY patchid (patchid), KEY sourcestamps_sourcestampsetid (sourcestampsetid),
    CONSTRAINT sourcestamps_ibfk_1 FOREIGN KEY (patchid) REFERENCES patches (id),
    CONSTRAINT sourcestamps_sourcestampsetid_fkey FOREIGN KEY (sourcestampsetid) REFERENCES sourcestampsets (id))`,
  `CREATE TABLE buildsets (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, external_idstring varchar(256), reason varchar(256),
    sourcestampsetid int NOT NULL, submitted_at int NOT NULL, complete smallint NOT NULL DEFAULT 0, complete_at int,
    results smallint, KEY buildsets_complete (complete), KEY buildsets_submitted_at (submitted_at),
    CONSTRAINT buildsets_sourcestampsetid_fkey FOREIGN KEY (sourcestampsetid) REFERENCES sourcestampsets (id))`,
  `CREATE TABLE buildset_properties (
    buildsetid int NOT NULL, property_name varchar(256) NOT NULL, property_value text NOT NULL,
    KEY buildset_properties_buildsetid (buildsetid),
    CONSTRAINT buildset_properties_ibfk_1 FOREIGN KEY (buildsetid) REFERENCES buildsets (id))`,
  `CREATE TABLE objects (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, name varchar(128) NOT NULL, class_name varchar(128) NOT NULL,
    UNIQUE KEY object_identity (name, class_name))`,
  `CREATE TABLE buildrequests (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, buildsetid int NOT NULL, buildername varchar(256) NOT NULL,
    priority int NOT NULL DEFAULT 0, complete int DEFAULT 0, results smallint, submitted_at int NOT NULL,
    complete_at int, KEY buildrequests_buildsetid (buildsetid), KEY buildrequests_buildername (buildername),
    KEY buildrequests_complete (complete),
    CONSTRAINT buildrequests_ibfk_1 FOREIGN KEY (buildsetid) REFERENCES buildsets (id))`,
  `CREATE TABLE buildrequest_claims (
    brid int, objectid int, claimed_at int NOT NULL, UNIQUE KEY ix_buildrequest_claims_brid (brid),
    KEY ix_buildrequest_claims_objectid (objectid),
    CONSTRAINT buildrequest_claims_ibfk_1 FOREIGN KEY (brid) REFERENCES buildrequests (id),
    CONSTRAINT buildrequest_claims_ibfk_2 FOREIGN KEY (objectid) REFERENCES objects (id))`,
  `CREATE TABLE builds (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, number int NOT NULL, brid int NOT NULL, start_time int NOT NULL,
    finish_time int, KEY builds_number (number), KEY builds_brid (brid),
    CONSTRAINT builds_ibfk_1 FOREIGN KEY (brid) REFERENCES buildrequests (id))`,
].map((sql) => `${sql} ENGINE=InnoDB`);

/** What `buildbot upgrade-master` does to an empty database; where the tables are there already, nothing. */
export async function createTables(db: Knex, kind: SchemaKind): Promise<void> {
  if (await db.schema.hasTable('builds')) {
    return;
  }
  for (const sql of kind === 'A' ? A : B) {
    await db.raw(sql);
  }
  if (kind === 'A') {
    await db('version').insert({ version: 6 });
  } else {
    await db('migrate_version').insert({ repository_id: 'Buildbot', repository_path: 'migrate', version: 24 });
  }
}
