//! What the documents say about PostgreSQL can be typed.

use super::{Server, world};
use crate::documents::{IDENTITY, VAULT, blocks, read, run};

/// Where Debian's servers have their sockets; a test's server has it elsewhere.
const SOCKET: &str = "/run/postgresql";

#[test]
fn a_database_is_restored_by_its_runbook() {
    let source = Server::start();
    source.sql("postgres", "CREATE ROLE app");
    source.sql("postgres", "CREATE DATABASE shop OWNER app");
    source.sql(
        "shop",
        "SET ROLE app; CREATE SCHEMA mine; CREATE TABLE mine.other (id integer);
         RESET ROLE; CREATE TABLE public.users AS SELECT generate_series(1, 500) AS id; ALTER TABLE public.users OWNER TO app;",
    );
    let world = world(&source.url("shop"), "", "");
    world.backup();
    let target = Server::start();
    let places =
        [(VAULT, world.path("vault")), (IDENTITY, world.path("identity.txt")), (SOCKET, target.socket().to_owned())];
    let said = run(&world, &blocks(&read("runbooks/restore-postgres.md"), false), &places);
    assert!(said.contains("500"), "{said}");
    for database in ["shop", "rehearsal", "one_table"] {
        assert_eq!(target.sql(database, "select count(*) from public.users").trim(), "500", "{database}");
    }
    assert!(world.path("unpacked/restore.sh").is_file());
}

/// The role of the README is enough for a backup of everything that this database has.
#[test]
fn the_readmes_role_is_enough() {
    let readme = read("README.md");
    let (_, script) = readme.split_once("```sql\n").unwrap();
    let (script, _) = script.split_once("```").unwrap();
    let server = Server::start();
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "CREATE SCHEMA closed; CREATE TABLE closed.t AS SELECT generate_series(1, 10) AS id; REVOKE ALL ON SCHEMA closed FROM PUBLIC;
         ALTER TABLE closed.t ENABLE ROW LEVEL SECURITY; CREATE SEQUENCE closed.s;",
    );
    let world = world(&server.url_of("backup", "shop"), "", "");
    let doctor = world.expect(1, &["doctor"]).stdout;
    assert!(doctor.contains(r#"CREATE ROLE "backup" LOGIN"#) && !doctor.contains("at line"), "{doctor}");
    server.sql("shop", script);
    server.sql("shop", "REVOKE CONNECT ON DATABASE shop FROM PUBLIC");
    let doctor = world.expect(1, &["doctor"]).stdout;
    assert!(doctor.contains(r#"GRANT CONNECT ON DATABASE "shop" TO "backup""#), "{doctor}");
    server.sql("shop", "GRANT CONNECT ON DATABASE shop TO backup");
    world.expect(0, &["doctor"]);
    world.backup();
    let target = Server::start();
    super::restore(&world, &target.url("shop"), &["--globals"]);
    assert_eq!(target.sql("shop", "SELECT count(*) FROM closed.t").trim(), "10");
}
