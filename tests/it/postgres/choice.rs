//! Which tables a backup has: those that the config's patterns mean, and of an extension's tables the rows that are the
//! user's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{BACKUP_ROLE, Server, restore, world};

/// Rows of a table, or `-` where there is no such table.
fn rows(server: &Server, database: &str, table: &str) -> String {
    match server.sql(database, &format!("SELECT to_regclass('{table}') IS NULL")).trim() {
        "t" => "-".to_owned(),
        _ => server.sql(database, &format!("SELECT count(*) FROM {table}")).trim().to_owned(),
    }
}

#[test]
fn included_tables_come_with_their_partitions_and_nothing_else() {
    let server = Server::start();
    server.sql("postgres", BACKUP_ROLE);
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "CREATE TABLE users AS SELECT i AS id, 'x' AS name FROM generate_series(1, 5) AS i;
         CREATE TABLE secrets AS SELECT 1 AS id;
         CREATE SCHEMA app; CREATE TABLE app.one AS SELECT 1 AS id; CREATE TABLE app.two AS SELECT 2 AS id;
         CREATE TABLE app.logs AS SELECT generate_series(1, 9) AS id;
         CREATE TABLE app.counted (id serial); INSERT INTO app.counted SELECT FROM generate_series(1, 3);
         CREATE TABLE parts (k integer, v text) PARTITION BY RANGE (k);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (k);
         CREATE TABLE parts_2_1 PARTITION OF parts_2 FOR VALUES FROM (10) TO (20);
         INSERT INTO parts SELECT i, 'p' FROM generate_series(0, 19) AS i;",
    );
    // Not even a right to what is left out is needed.
    server.sql("postgres", "REVOKE pg_read_all_data FROM backup");
    server.sql(
        "shop",
        "GRANT USAGE ON SCHEMA app TO backup; GRANT SELECT ON users, parts, parts_1, parts_2, parts_2_1 TO backup;
         GRANT SELECT ON app.one, app.logs, app.counted, app.counted_id_seq TO backup;",
    );
    let source = r#"include_tables = ["public.users", "public.parts", "app.*"]
exclude_tables = ["app.two"]
exclude_data = ["app.logs"]"#;
    let world = world(&server.url_of("backup", "shop"), source, "");
    world.backup();
    let show = world.json(0, &["show", "shop", "--identity", "identity.txt"]).to_string();
    for left_out in ["public.secrets", "app.two", "app.logs"] {
        assert!(show.contains(left_out), "{left_out} is not told to be left out: {show}");
    }
    restore(&world, &server.url("copy"), &[]);
    let found: Vec<String> =
        ["users", "secrets", "app.one", "app.two", "app.logs", "app.counted", "parts", "parts_2_1"]
            .iter()
            .map(|table| format!("{table} {}", rows(&server, "copy", table)))
            .collect();
    let wanted =
        ["users 5", "secrets -", "app.one 1", "app.two -", "app.logs 0", "app.counted 3", "parts 20", "parts_2_1 10"];
    assert_eq!(found, wanted);
    assert_eq!(server.sql("copy", "SELECT nextval('app.counted_id_seq')").trim(), "4");
    world.expect(0, &["drill", "--identity", "identity.txt"]);
}

/// An extension makes its tables itself, with what it puts into them; what users put there is in the backup, where the
/// extension says so. From 18 on a server can be told where extensions lie, and none has to be installed for this.
#[test]
fn an_extensions_tables_keep_the_users_rows() {
    let folder = tempfile::tempdir().unwrap();
    let extensions = folder.path().join("extension");
    fs::create_dir(&extensions).unwrap();
    for (name, content) in [
        ("tuned.control", "default_version = '1.0'\ncomment = 'has settings'\nschema = public\n"),
        (
            "tuned--1.0.sql",
            "CREATE TABLE settings (name text PRIMARY KEY, value text, own boolean NOT NULL DEFAULT true);
             INSERT INTO settings VALUES ('depth', '1', false), ('width', '2', false);
             SELECT pg_catalog.pg_extension_config_dump('settings', 'WHERE own');
             CREATE TABLE whole (id integer); SELECT pg_catalog.pg_extension_config_dump('whole', '');
             CREATE SEQUENCE numbers; SELECT pg_catalog.pg_extension_config_dump('numbers', '');
             CREATE TABLE inner_workings AS SELECT 1 AS id;",
        ),
    ] {
        fs::write(extensions.join(name), content).unwrap();
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("extension_control_path={}:$system", folder.path().display());
    let server = Server::newer_with(&[&path]);
    server.sql("postgres", BACKUP_ROLE);
    // What would end a long transaction in this version and in none before it.
    server.sql("postgres", "ALTER ROLE backup SET transaction_timeout = '200ms'");
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "CREATE EXTENSION tuned; INSERT INTO settings VALUES ('height', '3'), ('weight', '4');
         INSERT INTO whole SELECT generate_series(1, 7); INSERT INTO inner_workings VALUES (2);
         SELECT setval('numbers', 41); CREATE TABLE own AS SELECT generate_series(1, 200000) AS id;",
    );
    let tools = server.programs().to_str().unwrap().to_owned();
    let world = world(&server.url_of("backup", "shop"), &format!("tools = \"{tools}\""), "");
    world.backup();
    restore(&world, &server.url("copy"), &["--tools", &tools]);
    let settings = server.sql("copy", "SELECT string_agg(name || value, ' ' ORDER BY name) FROM settings");
    assert_eq!(settings.trim(), "depth1 height3 weight4 width2");
    assert_eq!(rows(&server, "copy", "whole"), "7");
    assert_eq!(rows(&server, "copy", "inner_workings"), "1");
    assert_eq!(server.sql("copy", "SELECT nextval('numbers')").trim(), "42");
    assert_eq!(rows(&server, "copy", "own"), "200000");
}
