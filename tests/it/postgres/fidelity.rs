//! Everything that a database can hold comes back as it was: pg_dump says the same of both, line by line. With the
//! programs of the usual version and with those of a newer one, which write and read dumps in other ways. With servers of every
//! other major version that lifeboat backs up, too.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::{Server, restore, world};
use crate::by_hand::assert_same;
use crate::support::{PROGRAM, Said, World, said};

/// How a server of one version or another is started.
type Start = fn() -> Server;

/// A server with [everything.sql](everything.sql) in its database `everything`.
pub(super) fn everything(start: Start) -> Server {
    let server = start();
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
        "SELECT 'constraint', conrelid::regclass, conname, convalidated FROM pg_constraint WHERE connamespace = 'odd'::regnamespace ORDER BY conrelid::regclass::text COLLATE \"C\", 3",
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

/// A world that backs up a database with the programs of its server's own version.
fn world_of(server: &Server, database: &str, source: &str) -> World {
    world(&server.url(database), &format!("tools = \"{}\"\n{source}", server.programs().display()), "")
}

/// Puts the newest backup into a server with its own programs.
#[track_caller]
fn put_back(world: &World, target: &Server, database: &str, more: &[&str]) {
    let tools = target.programs().to_str().unwrap();
    restore(world, &target.url(database), &[&["--tools", tools], more].concat());
}

/// Stands in front of pg_restore and refuses to make several things at a time that lock whole families of partitions:
/// two such can wait for each other, and whether they do is a matter of microseconds.
const GUARD: &str = r#"#!/bin/sh
several='' list=/dev/null
for argument in "$@"; do
    case $argument in
    --jobs=1) ;;
    --jobs=*) several=yes ;;
    --use-list=*) list=${argument#*=} ;;
    --section=post-data) part=post-data ;;
    esac
done
if [ -n "$several" ] && grep -E '(INDEX ATTACH|TRIGGER|RULE|POLICY|ROW SECURITY|PUBLICATION) ' "$list" >&2; then
    echo "these at a time: $*" >&2
    exit 1
fi
[ "${part:-}" != post-data ] || echo "guarded: $several" >&2
exec "@PROGRAMS@/pg_restore" "$@"
"#;

/// restore.sh of an unpacked backup, with the programs of a server's own version.
fn script(world: &World, target: &Server, args: &[&str]) -> Said {
    let mut sh = Command::new("sh");
    let guard = tempfile::tempdir().unwrap();
    let file = guard.path().join("pg_restore");
    fs::write(&file, GUARD.replace("@PROGRAMS@", target.programs().to_str().unwrap())).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let folders = [guard.path(), target.programs()].map(|folder| folder.display().to_string());
    let path = format!("{}:{}", folders.join(":"), std::env::var("PATH").unwrap());
    said(sh.arg("tar/restore.sh").args(args).current_dir(world.path("")).env("PATH", path))
}

/// Unpacks the newest backup into the folder `tar`.
#[track_caller]
fn unpack(world: &World) {
    let unpack = format!(
        "set -euo pipefail; mkdir tar; '{PROGRAM}' cat shop --source db --identity identity.txt | tar -x -C tar"
    );
    let out = said(Command::new("bash").args(["-c", &unpack]).current_dir(world.path("")));
    assert_eq!(out.code, Some(0), "{}", out.stderr);
}

fn database_with_everything(start: Start) -> (Server, World) {
    let server = everything(start);
    let world = world_of(&server, "everything", "");
    world.backup();
    (server, world)
}

/// The same with a newer server and its programs.
mod newer {
    use super::Server;

    #[test]
    fn everything_comes_back_into_another_server() {
        super::comes_back(Server::newer);
    }

    #[test]
    fn an_unchanged_database_is_stored_once() {
        super::is_stored_once(Server::newer);
    }

    #[test]
    fn bytes_that_are_no_text_come_back() {
        super::bytes_come_back(Server::newer);
    }

    #[test]
    fn everything_passes_a_drill() {
        super::passes_a_drill(Server::newer);
    }

    #[test]
    fn stock_tools_alone_load_it() {
        super::loads_by_script(Server::newer);
    }

    #[test]
    fn beside_the_living_one_under_another_name() {
        super::comes_back_beside(Server::newer);
    }

    #[test]
    fn to_another_set_of_roles() {
        super::comes_back_to_others(Server::newer);
    }

    #[test]
    fn one_table_alone() {
        super::comes_back_alone(Server::newer);
    }

    #[test]
    fn patterns_leave_out_what_they_say() {
        super::leaves_out(Server::newer);
    }

    #[test]
    fn what_needs_a_left_out_table_is_left_out() {
        super::leaves_out_what_needs_it(Server::newer);
    }
}

/// Every other major version. No registry has client programs of each, so those of 16 serve the older servers, and those of 18 serve
/// 17, as they may.
mod majors {
    use super::{Server, Start};

    fn is_backed_up(start: Start) {
        super::comes_back(start);
        super::is_stored_once(start);
        super::loads_by_script(start);
        super::passes_a_drill(start);
    }

    #[test]
    fn postgres_12() {
        is_backed_up(|| Server::of_major(12));
    }

    #[test]
    fn postgres_13() {
        is_backed_up(|| Server::of_major(13));
    }

    #[test]
    fn postgres_14() {
        is_backed_up(|| Server::of_major(14));
    }

    #[test]
    fn postgres_16() {
        is_backed_up(|| Server::of_major(16));
    }

    #[test]
    fn postgres_17() {
        is_backed_up(|| Server::of_major(17));
    }
}

fn passes_a_drill(start: Start) {
    let server = everything(start);
    let tools = format!("tools = \"{}\"", server.programs().display());
    let world = world(&server.url("everything"), &tools, &format!("server = {{ {tools} }}"));
    world.backup();
    let drill = &world.json(0, &["drill", "--identity", "identity.txt"])["drills"][0];
    assert_eq!(drill["outcome"], "passed", "{drill}");
}

#[test]
fn everything_comes_back_into_another_server() {
    comes_back(Server::start);
}

fn comes_back(start: Start) {
    let (source, world) = database_with_everything(start);
    let target = start();
    put_back(&world, &target, "everything", &["--globals"]);
    assert_same_database((&target, "everything"), (&source, "everything"), "restored");
    assert_same(&target.globals(), &source.globals(), "roles");

    // Once it is there, nothing writes over it by accident.
    let tools = target.programs().to_str().unwrap();
    let args = ["restore", "shop", "--source", "db", "--identity", "identity.txt", "--tools", tools, "--into"];
    let into = target.url("everything");
    let said = world.expect(2, &[&args[..], &[&into]].concat());
    assert!(said.stderr.contains("everything") && said.stderr.contains("target-not-empty"), "{}", said.stderr);
    target.sql("everything", "SET search_path = odd; DELETE FROM tree; CREATE TABLE stray (a integer)");
    put_back(&world, &target, "everything", &["--overwrite"]);
    assert_same_database((&target, "everything"), (&source, "everything"), "restored over what was there");
}

#[test]
fn an_unchanged_database_is_stored_once() {
    is_stored_once(Server::start);
}

fn is_stored_once(start: Start) {
    let (_server, world) = database_with_everything(start);
    let again = world.json(0, &["backup"]);
    let backup = &again["runs"][0]["backup"];
    let (new, stored) = (backup["new_bytes"].as_u64().unwrap(), backup["stored_bytes"].as_u64().unwrap());
    // pg_dump's custom format has the time in its head: that piece is new each time, and no row is.
    assert!(new * 20 < stored, "{new} of {stored} bytes are new: {again}");
    world.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);
}

#[test]
fn stock_tools_alone_load_it() {
    loads_by_script(Server::start);
}

fn loads_by_script(start: Start) {
    let (source, world) = database_with_everything(start);
    unpack(&world);
    for part in ["globals.sql", "schema.dump", "tables.json", "sequences.sql", "data", "large-objects"] {
        assert!(world.path("tar").join(part).exists(), "{part} is not in the tar");
    }
    let load = |target: &Server| script(&world, target, &["--globals", &target.url("postgres")]);
    let target = start();
    let out = load(&target);
    assert_eq!(out.code, Some(0), "{}\n{}", out.stdout, out.stderr);
    assert!(out.stderr.contains("guarded: yes"), "{}", out.stderr);
    assert_same_database((&target, "everything"), (&source, "everything"), "loaded by restore.sh");
    // A role that is there keeps its rights, whatever it had.
    target.sql("postgres", "ALTER ROLE reader CREATEDB");
    let again = load(&target);
    assert!(again.code != Some(0) && again.stderr.contains("were: boss \"o'wner"), "{}", again.stderr);
    let rights = "SELECT rolcreatedb FROM pg_roles WHERE rolname = 'reader'";
    assert_eq!(target.sql("postgres", rights).trim(), "t");
    let again = script(&world, &target, &[&target.url("postgres")]);
    assert_ne!(again.code, Some(0), "it writes over a database: {}", again.stderr);

    // What cannot be loaded is an error of the script, and not a line that scrolls by.
    let second = start();
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
    comes_back_beside(Server::start);
}

fn comes_back_beside(start: Start) {
    let (server, world) = database_with_everything(start);
    let before = server.dump("everything", &["--create"]);
    put_back(&world, &server, "rehearsal", &[]);
    assert_same_database((&server, "rehearsal"), (&server, "everything"), "restored beside it");
    assert_same(&server.dump("everything", &["--create"]), &before, "the living one");
}

#[test]
fn to_another_set_of_roles() {
    comes_back_to_others(Server::start);
}

fn comes_back_to_others(start: Start) {
    let source = start();
    source.sql("postgres", "CREATE ROLE app LOGIN");
    source.sql("postgres", "CREATE DATABASE app OWNER app");
    source.sql("app", "SET ROLE app; CREATE SCHEMA mine; CREATE TABLE mine.t AS SELECT generate_series(1, 10) AS a; GRANT SELECT ON mine.t TO PUBLIC");
    source.sql("app", "SET ROLE app; SELECT lo_from_bytea(4711, 'large'); GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC");
    source.sql("app", "COMMENT ON LARGE OBJECT 4711 IS 'large'");
    let world = world_of(&source, "app", "");
    world.backup();
    let target = start();
    target.sql("postgres", "CREATE ROLE other LOGIN CREATEDB");
    let into = target.url_of("other", "app");

    // Missing roles are named before anything is made.
    let tools = ["--tools", target.programs().to_str().unwrap()];
    let args = ["restore", "shop", "--source", "db", "--identity", "identity.txt", "--into", &into];
    let said = world.run(&[&args[..], &tools].concat());
    assert_ne!(said.code, Some(0));
    assert!(said.stderr.contains("app") && said.stderr.contains("--globals"), "{}", said.stderr);
    assert_eq!(target.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'app'").trim(), "0");

    restore(&world, &into, &[&tools[..], &["--no-owner"]].concat());
    let owners = "SELECT tableowner, (SELECT count(*) FROM mine.t) FROM pg_tables WHERE schemaname = 'mine'";
    let object = "SELECT pg_get_userbyid(lomowner), lomacl IS NULL, encode(lo_get(oid), 'escape'), obj_description(oid, 'pg_largeobject') FROM pg_largeobject_metadata";
    assert_eq!(
        (target.sql("app", owners).trim(), target.sql("app", object).trim()),
        ("other|10", "other|t|large|large")
    );

    unpack(&world);
    let second = start();
    second.sql("postgres", "CREATE ROLE other LOGIN CREATEDB");
    let out = script(&world, &second, &["--no-owner", &second.url_of("other", "postgres")]);
    assert_eq!(out.code, Some(0), "{}\n{}", out.stdout, out.stderr);
    assert_eq!(
        (second.sql("app", owners).trim(), second.sql("app", object).trim()),
        ("other|10", "other|t|large|large")
    );
}

#[test]
fn a_newer_major_version_takes_it() {
    let source = Server::start();
    source.sql("postgres", "CREATE ROLE app");
    source.sql("postgres", "CREATE DATABASE shop OWNER app");
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
    let newer = world_of(&target, "shop", "");
    newer.backup();
    let into = source.url("backwards");
    let said = newer.run(&["restore", "shop", "--source", "db", "--into", &into, "--identity", "identity.txt"]);
    assert_ne!(said.code, Some(0));
    assert!(said.stderr.contains("older"), "{}", said.stderr);
    assert_eq!(source.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'backwards'").trim(), "0");
}

#[test]
fn one_table_alone() {
    comes_back_alone(Server::start);
}

fn comes_back_alone(start: Start) {
    let (source, world) = database_with_everything(start);
    let target = start();
    target.sql("postgres", "CREATE DATABASE single");
    put_back(&world, &target, "single", &["--path", "odd.large", "--no-owner"]);
    let tables =
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    assert_eq!(target.sql("single", tables).trim(), "odd|large");
    let rows = "SET search_path = ''; SELECT count(*), sum(id), md5(string_agg(body, '' ORDER BY id)) FROM odd.large";
    assert_eq!(target.sql("single", rows), source.sql("everything", rows));

    let said = world.run(&[
        "restore",
        "shop",
        "--source",
        "db",
        "--identity",
        "identity.txt",
        "--into",
        &target.url("single"),
        "--tools",
        target.programs().to_str().unwrap(),
        "--path",
        "odd.no_such_table",
    ]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(said.stderr.contains("odd.no_such_table"), "{}", said.stderr);
}

#[test]
fn patterns_leave_out_what_they_say() {
    leaves_out(Server::start);
}

fn leaves_out(start: Start) {
    let server = everything(start);
    let source = r#"exclude_tables = ["odd.typed", "odd.ruled", "odd.generated"]
exclude_data = ["odd.wide", "odd.events_*"]"#;
    let world = world_of(&server, "everything", source);
    world.backup();
    let target = start();
    put_back(&world, &target, "everything", &["--globals"]);
    let count = |sql: &str| target.sql("everything", &format!("SET search_path = ''; SELECT {sql}")).trim().to_owned();
    for gone in ["odd.typed", "odd.ruled", "odd.generated", "odd.generated_old_style_seq"] {
        assert_eq!(count(&format!("to_regclass('{gone}') IS NULL")), "t", "{gone}");
    }
    assert_eq!(count("(SELECT count(*) FROM odd.wide) + (SELECT count(*) FROM odd.events)"), "0");
    assert_eq!(count("count(*) FROM odd.tree"), "50");
    // It refers to rows that were left out; its other foreign key does not.
    assert_eq!(
        count(
            "string_agg(confrelid::regclass::text, ' ') FROM pg_constraint WHERE conrelid = 'odd.noted'::regclass AND contype = 'f'"
        ),
        "odd.egg"
    );
    assert_eq!(count("count(*) FROM odd.noted"), "19");
    // The rule of this view said what to do with one of the tables.
    assert_eq!(count("count(*) FROM odd.view_large"), "94");
    assert_eq!(count("count(*) FROM pg_rewrite WHERE rulename = 'noted'"), "0");
}

/// A shop, and what hangs on its users and its items in every way.
const HANGING: &str = "
    CREATE TABLE users (id integer PRIMARY KEY, name text);
    CREATE TABLE items (id integer PRIMARY KEY);
    CREATE TABLE orders (id serial PRIMARY KEY, buyer integer CONSTRAINT bought_by REFERENCES users, item integer CONSTRAINT of_item REFERENCES items, note text);
    INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 10) AS i;
    INSERT INTO items SELECT generate_series(1, 10);
    INSERT INTO orders (buyer, item, note) SELECT i, i, 'note ' || i FROM generate_series(1, 10) AS i;
    ALTER TABLE orders ADD CONSTRAINT never_looked_at FOREIGN KEY (id) REFERENCES items NOT VALID;
    COMMENT ON CONSTRAINT bought_by ON orders IS 'a foreign key';
    CREATE VIEW names AS SELECT name FROM users;
    COMMENT ON VIEW names IS 'a view';
    GRANT SELECT ON names TO PUBLIC;
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM names;
    CREATE UNIQUE INDEX counted_once ON counted (count);
    CREATE VIEW notes AS SELECT note FROM orders;
    CREATE FUNCTION newest() RETURNS SETOF users LANGUAGE sql AS 'SELECT * FROM users ORDER BY id DESC LIMIT 1';
    COMMENT ON FUNCTION newest() IS 'a function';
    REVOKE ALL ON FUNCTION newest() FROM PUBLIC;
    CREATE RULE forget AS ON DELETE TO orders DO ALSO DELETE FROM users WHERE id = OLD.buyer;
    COMMENT ON RULE forget ON orders IS 'a rule';
    ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON orders USING (buyer IN (SELECT id FROM users));
    COMMENT ON POLICY own ON orders IS 'a policy';
    CREATE POLICY written ON orders USING (note <> '');
";

#[test]
fn what_needs_a_left_out_table_is_left_out() {
    let world = leaves_out_what_needs_it(Server::start);
    let drill = &world.json(0, &["drill", "--identity", "identity.txt"])["drills"][0];
    assert_eq!(drill["outcome"], "passed", "{drill}");
}

fn leaves_out_what_needs_it(start: Start) -> World {
    let server = start();
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", HANGING);
    let world = world_of(&server, "shop", "exclude_tables = [\"public.users\"]\nexclude_data = [\"public.items\"]");
    world.backup();
    let told = world.expect(0, &["show", "shop", "--identity", "identity.txt"]).stdout;
    let left_out = [
        "public.users",
        "public.names",
        "public.counted",
        "bought_by",
        "of_item",
        "public.newest()",
        "rule forget",
        "policy own",
    ];
    for what in left_out {
        assert!(told.lines().any(|line| line.contains("skipped: ") && line.contains(what)), "{what}: {told}");
    }
    assert_eq!(told.matches("skipped: ").count(), left_out.len() + 1, "{told}");

    let looks = [
        (
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
            "items\nitems_pkey\nnotes\norders\norders_id_seq\norders_pkey",
        ),
        ("SELECT conname FROM pg_constraint WHERE contype = 'f'", "never_looked_at"),
        ("SELECT count(*) FROM items", "0"),
        ("SELECT count(*) FROM notes", "10"),
        ("SELECT polname, relrowsecurity FROM pg_policy JOIN pg_class AS c ON c.oid = polrelid", "written|t"),
        ("SELECT nextval('orders_id_seq')", "11"),
    ];
    let target = start();
    put_back(&world, &target, "shop", &[]);
    unpack(&world);
    let second = start();
    let out = script(&world, &second, &[&second.url("postgres")]);
    assert_eq!(out.code, Some(0), "{}\n{}", out.stdout, out.stderr);
    for (look, found) in looks {
        assert_eq!((target.sql("shop", look).trim(), second.sql("shop", look).trim()), (found, found), "{look}");
    }

    // A table that cannot be made is not left out quietly.
    server.sql("shop", "CREATE TABLE customers (discount integer) INHERITS (users)");
    let said = world.run(&["backup"]);
    assert_ne!(said.code, Some(0), "{}", said.stdout);
    assert!(said.stderr.contains("public.customers") && said.stderr.contains("exclude_data"), "{}", said.stderr);
    world
}

#[test]
fn bytes_that_are_no_text_come_back() {
    bytes_come_back(Server::start);
}

fn bytes_come_back(start: Start) {
    let source = start();
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
        let world = world_of(&source, name, "");
        world.backup();
        let target = start();
        put_back(&world, &target, name, &[]);
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
