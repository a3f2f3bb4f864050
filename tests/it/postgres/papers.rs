//! What the documents say about PostgreSQL can be typed.

use lifeboat::evidence::runbook::ON_THE_HOST;

use super::{Server, world};
use crate::documents::{Document, IDENTITY, VAULT, read};
use crate::support::World;

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
    let said = Document::open("runbooks/restore-postgres.md").rest(&world, &places);
    assert!(said.contains("500"), "{said}");
    for database in ["shop", "rehearsal", "one_table"] {
        assert_eq!(target.sql(database, "select count(*) from public.users").trim(), "500", "{database}");
    }
    assert!(world.path("unpacked/restore.sh").is_file());
}

#[test]
fn the_paper_of_a_job_restores_its_databases() {
    let source = Server::start();
    source.sql("postgres", "CREATE ROLE app");
    for database in ["shop", "blog"] {
        source.sql("postgres", &format!("CREATE DATABASE {database} OWNER app"));
        source.sql(
            database,
            "CREATE TABLE public.users AS SELECT generate_series(1, 500) AS id; ALTER TABLE users OWNER TO app",
        );
    }
    for (source_keys, databases) in [
        ("", &["shop"][..]),
        ("databases = [\"shop\", \"blog\"]", &["shop", "blog"]),
        ("databases = \"all\"", &["shop", "blog"]),
    ] {
        let world = world(&source.url("shop"), source_keys, "");
        world.backup();
        let paper = world.expect(0, &["runbook", "--short"]).stdout;
        let (elsewhere, _) = paper.split_once(ON_THE_HOST).unwrap();
        let (bare, target) = (World::empty(), Server::start());
        let elsewhere = match source_keys.contains("all") {
            // Every server has that one.
            true => elsewhere.replace("lifeboat restore shop --source db-postgres", "true --source db-postgres"),
            false => elsewhere.to_owned(),
        };
        let places = [
            (IDENTITY, world.path("identity.txt")),
            ("/srv/restored", bare.path("back")),
            (SOCKET, target.socket().to_owned()),
        ];
        Document::of("the paper", &elsewhere, false).rest(&bare, &places);
        for database in databases.iter().chain(&["lifeboat_one_table"]) {
            let count = target.sql(database, "select count(*) from public.users");
            assert_eq!(count.trim(), "500", "{source_keys} {database}");
        }
    }
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
