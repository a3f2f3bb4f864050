//! What the documents say about PostgreSQL can be typed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use lifeboat::evidence::runbook::ON_THE_HOST;

use super::elsewhere::stand_in_for_docker;
use super::{Server, world};
use crate::documents::{Document, IDENTITY, VAULT};
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
    // What the tar has restores by itself, on a server of which nothing is known.
    let new = Server::start();
    Document::part("runbooks/restore-postgres.md", "new-server").rest(&world, &[("$SERVER", new.socket().to_owned())]);
    assert_eq!(new.sql("shop", "select count(*) from public.users").trim(), "500");
    assert_eq!(new.sql("shop", "select tableowner from pg_tables where tablename = 'users'").trim(), "app");
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
        Document::of("the paper", &elsewhere).rest(&bare, &places);
        for database in databases.iter().chain(&["lifeboat_one_table"]) {
            let count = target.sql(database, "select count(*) from public.users");
            assert_eq!(count.trim(), "500", "{source_keys} {database}");
        }
    }
}

/// The role of the README is enough for a backup of everything that this database has; what a database lacks besides is told.
#[test]
fn the_readmes_role_is_enough() {
    let server = Server::start();
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "CREATE SCHEMA closed; CREATE TABLE closed.t AS SELECT generate_series(1, 10) AS id; REVOKE ALL ON SCHEMA closed FROM PUBLIC;
         ALTER TABLE closed.t ENABLE ROW LEVEL SECURITY; CREATE SEQUENCE closed.s; CREATE TABLE public.users AS SELECT generate_series(1, 500) AS id;",
    );
    let world = with_a_job();
    let probe = world.path("probe.toml");
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let url = server.url_of("backup", "shop");
    fs::write(&probe, format!("{config}[job.shop.source.db]\nkind = \"postgres\"\nurl = \"{url}\"\n")).unwrap();
    let doctor = |code| world.expect(code, &["doctor", "--config", "probe.toml"]).stdout;
    let without = doctor(1);
    assert!(without.contains(r#"CREATE ROLE "backup" LOGIN"#) && !without.contains("at line"), "{without}");

    let target = Server::start();
    let places = [
        ("'…'", "'hunter2'".into()),
        ("@db.internal/shop?sslmode=verify-full", at(&server, "shop")),
        ("/etc/lifeboat/db.password", secret(&world, "db.password")),
        (SOCKET, target.socket().to_owned()),
    ];
    let mut readme = Document::part("README.md", "postgres");
    readme.as_superuser(&server.url("postgres"));
    readme.next(1, &world, &places);
    server.admit("local all backup scram-sha-256\nlocal all all trust\n");
    readme.next(1, &world, &places);
    server.sql("shop", "REVOKE CONNECT ON DATABASE shop FROM PUBLIC");
    let without = world.expect(1, &["doctor"]).stdout;
    assert!(without.contains(r#"GRANT CONNECT ON DATABASE "shop" TO "backup""#), "{without}");
    server.sql("shop", "GRANT CONNECT ON DATABASE shop TO backup");
    let said = readme.rest(&world, &places);
    assert!(said.contains("PASSED"), "{said}");
    for database in ["shop", "shop_tuesday", "one_table"] {
        assert_eq!(target.sql(database, "SELECT count(*) FROM public.users").trim(), "500", "{database}");
    }
    assert_eq!(target.sql("shop", "SELECT count(*) FROM closed.t").trim(), "10");
    assert!(world.path("restore.sh").is_file());
}

/// Before PostgreSQL 14 a role has what it is granted.
#[test]
fn the_grants_of_older_servers_are_enough() {
    let server = Server::of_major(13);
    server.sql("postgres", "CREATE ROLE backup LOGIN BYPASSRLS");
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE TABLE before (id serial); INSERT INTO before DEFAULT VALUES",
    );
    let spare = Server::of_major(13);
    let drill = format!("server = {{ url = \"{}\", allow_superuser = true }}", spare.url("postgres"));
    let world = world(&server.url_of("backup", "shop"), "", &drill);
    world.expect(1, &["backup"]);
    let said = world.expect(1, &["doctor"]).stdout;
    assert!(said.contains(r#"GRANT SELECT ON ALL TABLES IN SCHEMA public TO "backup""#), "{said}");
    let mut document = Document::part("docs/POSTGRES.md", "before-14");
    document.as_superuser(&server.url("shop"));
    document.rest(&world, &[]);
    server.sql("shop", "CREATE TABLE later (id serial); INSERT INTO later DEFAULT VALUES");
    world.backup();
    let drill = &world.json(0, &["drill", "--identity", "identity.txt"])["drills"][0];
    assert_eq!(drill["outcome"], "passed", "{drill}");
    let target = Server::start();
    super::restore(&world, &target.url("shop"), &["--no-owner"]);
    assert_eq!(target.sql("shop", "SELECT count(*) FROM later, before").trim(), "1");
}

#[test]
fn several_databases_are_backed_up_by_one_source() {
    let server = Server::start();
    server.sql("postgres", super::BACKUP_ROLE);
    for database in ["shop", "blog"] {
        server.sql("postgres", &format!("CREATE DATABASE {database}"));
        server.sql(database, "CREATE TABLE posts AS SELECT generate_series(1, 500) AS id");
    }
    let world = with_a_job();
    let said = Document::part("docs/POSTGRES.md", "several").rest(&world, &[(SOCKET, server.socket().to_owned())]);
    assert!(said.contains("db-shop") && !said.contains("db-postgres"), "{said}");
    assert_eq!(server.sql("blog_tuesday", "SELECT count(*) FROM posts").trim(), "500");
}

/// A world whose job backs up a database of a new server, and has no drill yet.
fn without_a_drill() -> (Server, World) {
    let server = Server::start();
    server.sql("postgres", super::BACKUP_ROLE);
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", "CREATE TABLE users AS SELECT generate_series(1, 500) AS id");
    let world = with_a_job();
    let path = world.path("lifeboat.toml");
    let config = fs::read_to_string(&path).unwrap();
    let url = server.url_of("backup", "shop");
    fs::write(&path, format!("{config}[job.shop.source.db]\nkind = \"postgres\"\nurl = \"{url}\"\n")).unwrap();
    world.backup();
    (server, world)
}

#[test]
fn a_drill_on_a_server_that_is_there_is_set_up_as_written() {
    let (_source, world) = without_a_drill();
    let spare = Server::start();
    let places = [
        ("'…'", "'hunter2'".into()),
        ("@spare.internal/postgres?sslmode=verify-full", at(&spare, "postgres")),
        ("/etc/lifeboat/spare.password", secret(&world, "spare.password")),
    ];
    let mut document = Document::part("docs/POSTGRES.md", "server");
    document.as_superuser(&spare.url("postgres"));
    document.next(1, &world, &places);
    spare.admit("local all drill scram-sha-256\nlocal all all trust\n");
    let said = document.rest(&world, &places);
    assert!(said.contains("PASSED") && said.contains("a server that was there"), "{said}");
}

#[test]
fn a_drill_in_a_container_is_set_up_as_written() {
    let (_source, world) = without_a_drill();
    stand_in_for_docker(&world.path("bin/docker"));
    let document = Document::part("docs/POSTGRES.md", "container");
    // A real docker may be there, which is found first.
    let image = "image = \"postgres:15\", program = \"./bin/docker\"";
    let said = document.rest(&world, &[("image = \"postgres:17\"", image.into())]);
    assert!(said.contains("PASSED") && said.contains("in a container"), "{said}");
}

/// A job that has neither sources nor a drill yet.
fn with_a_job() -> World {
    let world = World::empty();
    world.expect(0, &["init", "."]);
    let path = world.path("lifeboat.toml");
    let job = r#"
[job.shop]
schedule   = "15 */6 * * *"
retention  = { keep_at_least = "14d", delete_after = "30d" }
objectives = { rto = "1h", rpo = "24h" }
"#;
    fs::write(&path, format!("{}{job}", fs::read_to_string(&path).unwrap())).unwrap();
    world
}

/// A database's place in a url, behind the role.
fn at(server: &Server, database: &str) -> PathBuf {
    format!("@/{database}?host={}", server.socket().display()).into()
}

fn secret(world: &World, name: &str) -> PathBuf {
    let path = world.path(name);
    fs::write(&path, "hunter2\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}
