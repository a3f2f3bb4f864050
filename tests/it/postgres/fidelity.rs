//! Everything that a database can hold comes back as it was: pg_dump says the same of both, line by line.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Server, restore, world};
use crate::by_hand::assert_same;
use crate::support::{PROGRAM, World, said};

/// A server with [everything.sql](everything.sql) in its database `everything`.
fn everything() -> Server {
    let server = Server::start();
    let locale = "TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'";
    server.sql("postgres", &format!("CREATE DATABASE everything {locale}"));
    server.file("everything", &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/postgres/everything.sql"));
    server
}

/// What pg_dump does not tell: rows of materialized views, whether they and the indexes are valid, large objects' bytes.
#[track_caller]
fn beside_the_dump(server: &Server, database: &str) -> String {
    let queries = [
        "SELECT 'matview', relname, relispopulated FROM pg_class WHERE relkind = 'm' ORDER BY 2",
        "SELECT 'zz_daily', string_agg(v::text, ' ' ORDER BY v::text) FROM odd.zz_daily AS v",
        "SELECT 'aa_monthly', string_agg(v::text, ' ' ORDER BY v::text) FROM odd.aa_monthly AS v",
        "SELECT 'matview_of_view', string_agg(v::text, ' ' ORDER BY v::text) FROM odd.matview_of_view AS v",
        "SELECT 'large object', oid, md5(lo_get(oid)), length(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY oid",
        "SELECT 'index', n.nspname, c.relname, i.indisvalid, i.indisready FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
             JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'odd' ORDER BY 2, 3",
        "SELECT 'constraint', conrelid::regclass, conname, convalidated FROM pg_constraint WHERE connamespace = 'odd'::regnamespace ORDER BY 2, 3",
        "SELECT 'own rows alone', (SELECT count(*) FROM ONLY odd.parent), (SELECT count(*) FROM ONLY odd.child), (SELECT count(*) FROM odd.parent)",
        "SELECT 'partition', tableoid::regclass::text, count(*) FROM odd.events GROUP BY 2 ORDER BY 2",
        "SELECT 'subscription', subname, subenabled, subslotname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        "SELECT 'analyzed', reltuples >= 0 FROM pg_class WHERE oid = 'odd.large'::regclass",
    ];
    // The database's own settings are odd on purpose; a comparison wants one way to write things.
    let pins = "SET search_path = ''; SET datestyle = 'ISO'; SET timezone = 'UTC'; SET extra_float_digits = 1; SET intervalstyle = 'postgres';";
    queries.iter().map(|query| server.sql(database, &format!("{pins} {query}"))).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn assert_same_database(is: (&Server, &str), was: (&Server, &str), what: &str) {
    // The database's name is in the dump with --create, and must not be where it differs.
    let create: &[&str] = if is.1 == was.1 { &["--create"] } else { &[] };
    assert_same(&is.0.dump(is.1, create), &was.0.dump(was.1, create), what);
    let is_analyzed = |text: String| text.replace("analyzed|f", "analyzed|t");
    assert_same(&is_analyzed(beside_the_dump(is.0, is.1)), &is_analyzed(beside_the_dump(was.0, was.1)), what);
    assert!(beside_the_dump(is.0, is.1).contains("analyzed|t"), "{what}: it was not analyzed");
}

fn database_with_everything() -> (Server, World) {
    let server = everything();
    let world = world(&server.url("everything"), "", "");
    world.backup();
    (server, world)
}

#[test]
fn everything_comes_back_into_another_server() {
    let (source, world) = database_with_everything();
    let target = Server::start();
    restore(&world, &target.url("everything"), &["--globals"]);
    assert_same_database((&target, "everything"), (&source, "everything"), "restored");
    assert_same(&target.globals(), &source.globals(), "roles");

    // Once it is there, nothing writes over it by accident.
    let args = ["restore", "shop", "--source", "db", "--identity", "identity.txt", "--into"];
    let into = target.url("everything");
    let said = world.expect(2, &[&args[..], &[&into]].concat());
    assert!(said.stderr.contains("everything") && said.stderr.contains("target-not-empty"), "{}", said.stderr);
    target.sql("everything", "SET search_path = odd; DELETE FROM tree; CREATE TABLE stray (a integer)");
    restore(&world, &into, &["--overwrite"]);
    assert_same_database((&target, "everything"), (&source, "everything"), "restored over what was there");
}

#[test]
fn an_unchanged_database_is_stored_once() {
    let (_server, world) = database_with_everything();
    let again = world.json(0, &["backup"]);
    let backup = &again["runs"][0]["backup"];
    let (new, stored) = (backup["new_bytes"].as_u64().unwrap(), backup["stored_bytes"].as_u64().unwrap());
    // pg_dump's custom format has the time in its head: that piece is new each time, and no row is.
    assert!(new * 20 < stored, "{new} of {stored} bytes are new: {again}");
    world.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);
}

#[test]
fn stock_tools_alone_load_it() {
    let (source, world) = database_with_everything();
    let unpack = format!(
        "set -euo pipefail; mkdir tar; '{PROGRAM}' cat shop --source db --identity identity.txt | tar -x -C tar"
    );
    let out = said(Command::new("bash").args(["-c", &unpack]).current_dir(world.path("")));
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    for part in ["globals.sql", "schema.dump", "tables.json", "sequences.sql", "data", "large-objects"] {
        assert!(world.path("tar").join(part).exists(), "{part} is not in the tar");
    }
    let load = |target: &Server| {
        let mut sh = Command::new("sh");
        said(sh.args(["tar/restore.sh", "--globals", &target.url("postgres")]).current_dir(world.path("")))
    };
    let target = Server::start();
    let out = load(&target);
    assert_eq!(out.code, Some(0), "{}\n{}", out.stdout, out.stderr);
    assert_same_database((&target, "everything"), (&source, "everything"), "loaded by restore.sh");
    let again = load(&target);
    assert_ne!(again.code, Some(0), "it writes over a database: {}", again.stderr);

    // What cannot be loaded is an error of the script, and not a line that scrolls by.
    let second = Server::start();
    let mut rows = files(&world.path("tar/data"));
    rows.retain(|path| path.extension().is_some_and(|end| end == "copy"));
    let largest = rows.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let bytes = fs::read(largest).unwrap();
    fs::write(largest, [b"one\ttwo\tthree\tfour\tfive\tsix\n", &bytes[..]].concat()).unwrap();
    let out = load(&second);
    assert_ne!(out.code, Some(0), "{}\n{}", out.stdout, out.stderr);
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn beside_the_living_one_under_another_name() {
    let (server, world) = database_with_everything();
    let before = server.dump("everything", &["--create"]);
    restore(&world, &server.url("rehearsal"), &[]);
    assert_same_database((&server, "rehearsal"), (&server, "everything"), "restored beside it");
    assert_same(&server.dump("everything", &["--create"]), &before, "the living one");
}

#[test]
fn to_another_set_of_roles() {
    let source = Server::start();
    source.sql("postgres", "CREATE ROLE app LOGIN; CREATE DATABASE app OWNER app");
    source.sql("app", "SET ROLE app; CREATE SCHEMA mine; CREATE TABLE mine.t AS SELECT generate_series(1, 10) AS a; GRANT SELECT ON mine.t TO PUBLIC");
    let world = world(&source.url("app"), "", "");
    world.backup();
    let target = Server::start();
    target.sql("postgres", "CREATE ROLE other LOGIN CREATEDB");
    let into = target.url_of("other", "app");

    // Missing roles are named before anything is made.
    let args = ["restore", "shop", "--source", "db", "--identity", "identity.txt", "--into", &into];
    let said = world.run(&args);
    assert_ne!(said.code, Some(0));
    assert!(said.stderr.contains("app") && said.stderr.contains("--globals"), "{}", said.stderr);
    assert_eq!(target.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'app'").trim(), "0");

    restore(&world, &into, &["--no-owner"]);
    let owners =
        target.sql("app", "SELECT tableowner, (SELECT count(*) FROM mine.t) FROM pg_tables WHERE schemaname = 'mine'");
    assert_eq!(owners.trim(), "other|10");
}

#[test]
fn a_newer_major_version_takes_it() {
    let source = Server::start();
    source.sql("postgres", "CREATE ROLE app; CREATE DATABASE shop OWNER app");
    source.sql(
        "shop",
        "SET ROLE app; CREATE SCHEMA mine; CREATE TYPE mine.kind AS ENUM ('a', 'b');
         CREATE TABLE mine.users (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind mine.kind, twice integer GENERATED ALWAYS AS (5 * 2) STORED);
         INSERT INTO mine.users (kind) SELECT 'b' FROM generate_series(1, 500);
         CREATE TABLE mine.messages (id bigserial PRIMARY KEY, sender integer REFERENCES mine.users, body jsonb) PARTITION BY RANGE (id);
         CREATE TABLE mine.messages_1 PARTITION OF mine.messages FOR VALUES FROM (1) TO (100000);
         INSERT INTO mine.messages (sender, body) SELECT 1 + i % 500, jsonb_build_object('i', i) FROM generate_series(1, 20000) AS i;
         CREATE INDEX ON mine.messages (sender);
         CREATE MATERIALIZED VIEW mine.busy AS SELECT sender, count(*) AS n FROM mine.messages GROUP BY sender;",
    );
    let world = world(&source.url("shop"), "", "");
    world.backup();
    let target = Server::newer();
    restore(&world, &target.url("shop"), &["--globals"]);
    let looks = [
        "SELECT count(*), sum(id), sum(twice), min(kind) FROM mine.users",
        "SELECT count(*), md5(string_agg(m::text, ' ' ORDER BY id)) FROM mine.messages AS m",
        "SELECT count(*), sum(n) FROM mine.busy",
        "SELECT count(*) FROM pg_index AS i JOIN pg_class AS c ON c.oid = indexrelid WHERE relnamespace = 'mine'::regnamespace AND indisvalid",
        "SELECT nextval('mine.messages_id_seq')",
        "SELECT tableowner FROM pg_tables WHERE schemaname = 'mine' ORDER BY tablename LIMIT 1",
    ];
    for look in looks {
        assert_eq!(target.sql("shop", look), source.sql("shop", look), "{look}");
    }
    // The other way is refused, and nothing is made.
    let newer = crate::postgres::world(&target.url("shop"), "tools = \"NEWER\"", "");
    let config = fs::read_to_string(newer.path("lifeboat.toml")).unwrap();
    fs::write(newer.path("lifeboat.toml"), config.replace("NEWER", target.programs().to_str().unwrap())).unwrap();
    newer.backup();
    let into = source.url("backwards");
    let said = newer.run(&["restore", "shop", "--source", "db", "--into", &into, "--identity", "identity.txt"]);
    assert_ne!(said.code, Some(0));
    assert!(said.stderr.contains("older"), "{}", said.stderr);
    assert_eq!(source.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'backwards'").trim(), "0");
}

#[test]
fn one_table_alone() {
    let (source, world) = database_with_everything();
    let target = Server::start();
    target.sql("postgres", "CREATE DATABASE some");
    restore(&world, &target.url("some"), &["--path", "odd.large", "--no-owner"]);
    let tables =
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    assert_eq!(target.sql("some", tables).trim(), "odd|large");
    let rows = "SET search_path = ''; SELECT count(*), sum(id), md5(string_agg(body, '' ORDER BY id)) FROM odd.large";
    assert_eq!(target.sql("some", rows), source.sql("everything", rows));

    let said = world.run(&[
        "restore",
        "shop",
        "--source",
        "db",
        "--identity",
        "identity.txt",
        "--into",
        &target.url("some"),
        "--path",
        "odd.no_such_table",
    ]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(said.stderr.contains("odd.no_such_table"), "{}", said.stderr);
}

#[test]
fn patterns_leave_out_what_they_say() {
    let server = everything();
    let source = r#"exclude_tables = ["odd.typed", "odd.ruled"]
exclude_data = ["odd.wide", "odd.events_*"]"#;
    let world = world(&server.url("everything"), source, "");
    world.backup();
    let target = Server::start();
    restore(&world, &target.url("everything"), &["--globals"]);
    let count = |sql: &str| target.sql("everything", &format!("SET search_path = ''; SELECT {sql}")).trim().to_owned();
    assert_eq!(count("to_regclass('odd.typed') IS NULL AND to_regclass('odd.ruled') IS NULL"), "t");
    assert_eq!(count("(SELECT count(*) FROM odd.wide) + (SELECT count(*) FROM odd.events)"), "0");
    assert_eq!(count("count(*) FROM odd.tree"), "50");
}

#[test]
fn bytes_that_are_no_text_come_back() {
    let source = Server::start();
    for (name, encoding) in [("ascii", "SQL_ASCII"), ("latin", "LATIN1")] {
        source.sql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"),
        );
    }
    // Bytes that are no UTF-8, in a value and in a name.
    let bytes = |target: &Server, name: &str, sql: &[u8]| {
        let mut psql = target.psql(name);
        let file = target.socket().join("bytes.sql");
        fs::write(&file, sql).unwrap();
        let encoding = if name == "ascii" { "SQL_ASCII" } else { "LATIN1" };
        let out = psql.arg("-f").arg(file).env("PGCLIENTENCODING", encoding).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    for name in ["ascii", "latin"] {
        bytes(&source, name, b"CREATE TABLE t (a text); INSERT INTO t VALUES ('caf\xe9 \xff\xfe'), ('plain');");
        let world = world(&source.url(name), "", "");
        world.backup();
        let target = Server::start();
        restore(&world, &target.url(name), &[]);
        let rows = bytes(&target, name, b"SELECT a FROM t ORDER BY a;");
        assert!(rows.windows(7).any(|window| window == b"caf\xe9 \xff\xfe"), "{name}: {rows:?}");
        let encoding = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()";
        assert_eq!(target.sql(name, encoding), source.sql(name, encoding));
    }
}

#[test]
fn many_tables_stay_within_the_servers_locks() {
    let source = Server::with(&["max_locks_per_transaction=64"]);
    source.sql("postgres", "CREATE DATABASE many");
    // More than the server's table of locks has room for: 64 for each of 60 connections.
    for batch in 0..15 {
        let sql = format!(
            "DO $$ BEGIN FOR i IN {}..{} LOOP EXECUTE format('CREATE TABLE t%s (a integer)', i); EXECUTE format('INSERT INTO t%s VALUES (%s)', i, i); END LOOP; END $$",
            batch * 400,
            batch * 400 + 399
        );
        source.sql("many", &sql);
    }
    let world = world(&source.url("many"), "", "");
    world.backup();
    let target = Server::with(&["max_locks_per_transaction=64"]);
    restore(&world, &target.url("many"), &[]);
    assert_eq!(target.sql("many", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").trim(), "6000");
    assert_eq!(target.sql("many", "SELECT a FROM t5999").trim(), "5999");
}
