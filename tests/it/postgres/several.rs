//! Several databases by one source of the config: each is a source of the backup, and what comes and goes is told.

use serde_json::Value;

use super::{BACKUP_ROLE, Server, world};
use crate::support::World;

const DRILL: [&str; 3] = ["drill", "--identity", "identity.txt"];

fn server() -> Server {
    let server = Server::start();
    server.sql("postgres", BACKUP_ROLE);
    for (database, rows) in [("shop", 10), ("blog", 20), ("\"My Shop\"", 30)] {
        server.sql("postgres", &format!("CREATE DATABASE {database}"));
        server.sql(database.trim_matches('"'), &format!("CREATE TABLE t AS SELECT generate_series(1, {rows}) AS id"));
    }
    server
}

/// Backs up; the names of its sources, and what was said.
fn backup(world: &World) -> (Vec<String>, String) {
    let said = world.expect(0, &["backup", "--json"]);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    let sources = document["runs"][0]["backup"]["sources"].as_array().unwrap();
    (sources.iter().map(|source| source["name"].as_str().unwrap().to_owned()).collect(), said.stderr)
}

#[test]
fn all_of_a_server_are_sources_each() {
    let server = server();
    let world = world(
        &server.url_of("backup", "postgres"),
        "databases = \"all\"\nexclude_databases = [\"postgres\"]",
        "checks = [{ source = \"db-shop\", sql = \"select count(*) = 10 from t\" }]",
    );
    world.expect(0, &["doctor"]);
    let (names, _) = backup(&world);
    assert_eq!((&*names[1], &*names[2], names.len()), ("db-blog", "db-shop", 3), "{names:?}");
    assert!(names[0].starts_with("db-my_shop-"), "{names:?}");
    let document = world.json(0, &DRILL);
    assert_eq!(document["drills"][0]["outcome"], "passed", "{document}");
    assert_eq!(document["drills"][0]["environment"]["servers"].as_array().unwrap().len(), 3);
    for (source, rows) in [(&*names[0], "30"), ("db-blog", "20")] {
        let target = server.url("back");
        world.expect(0, &["restore", "shop", "--source", source, "--into", &target, "--identity", "identity.txt"]);
        assert_eq!(server.sql("back", "SELECT count(*) FROM t").trim(), rows);
        server.sql("postgres", "DROP DATABASE back");
    }

    // What comes is taken, what goes is told.
    server.sql("postgres", "DROP DATABASE blog");
    server.sql("postgres", "CREATE DATABASE wiki");
    let (names, said) = backup(&world);
    assert_eq!((&*names[1], &*names[2], names.len()), ("db-shop", "db-wiki", 3), "{names:?}");
    assert!(said.contains("source db-blog is in backup"), "{said}");
    let said = world.expect(0, &DRILL);
    assert!(said.stderr.contains("source db-blog is in backup"), "{}", said.stderr);

    // A check of what is not there fails.
    server.sql("postgres", "DROP DATABASE shop");
    backup(&world);
    let document = world.json(21, &DRILL);
    assert!(document["drills"][0]["errors"].to_string().contains("the backup has no source db-shop"), "{document}");
}

#[test]
fn one_that_shuts_us_out_is_named_with_what_to_type() {
    let server = server();
    server.sql("postgres", "REVOKE CONNECT ON DATABASE blog FROM PUBLIC");
    let world = world(&server.url_of("backup", "postgres"), "databases = \"all\"", "");
    for command in ["backup", "doctor"] {
        let said = world.expect(1, &[command]);
        let all = format!("{}{}", said.stdout, said.stderr);
        assert!(all.contains("role backup may not connect to blog"), "{all}");
        assert!(all.contains("GRANT CONNECT ON DATABASE \"blog\" TO \"backup\""), "{all}");
        assert!(all.contains("exclude_databases = [\"blog\"]"), "{all}");
    }
    server.sql("postgres", "GRANT CONNECT ON DATABASE blog TO backup");
    assert_eq!(backup(&world).0.len(), 4);
}

#[test]
fn a_list_must_be_there() {
    let server = server();
    let world = world(&server.url_of("backup", "postgres"), "databases = [\"shop\", \"blog\"]", "");
    let (names, _) = backup(&world);
    assert_eq!(names, ["db-shop", "db-blog"]);
    world.expect(0, &DRILL);
    server.sql("postgres", "DROP DATABASE blog");
    let said = world.expect(1, &["backup"]);
    assert!(said.stderr.contains("source db-blog") && said.stderr.contains("blog"), "{}", said.stderr);
    // A database that the config has and the backup has not fails the drill.
    let config = std::fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let config = config.replace("[\"shop\", \"blog\"]", "[\"shop\", \"blog\", \"wiki\"]");
    std::fs::write(world.path("lifeboat.toml"), config).unwrap();
    let document = world.json(21, &DRILL);
    assert!(
        document["drills"][0]["errors"].to_string().contains("source db-wiki is in the config and not in backup"),
        "{document}"
    );
}
