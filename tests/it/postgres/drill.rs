//! Drills of a database in a scratch server: they pass when they should, fail when they should and say why, and leave
//! neither folder nor process. What the database's owner wrote into it gets no hold of the host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use lifeboat::domain::contents::{Facts, Line, PostgresFacts};
use serde_json::Value;

use super::fidelity::everything;
use super::living::{begin, ended};
use super::{BACKUP_ROLE, Server, world};
use crate::forge::Forge;
use crate::support::{Mount, World};

pub(super) const DRILL: [&str; 3] = ["drill", "--identity", "identity.txt"];

/// A shop of two tables with what hangs on tables.
const SHOP: &str = "
    CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL);
    CREATE TABLE messages (id bigserial PRIMARY KEY, sender integer REFERENCES users, body text, created_at timestamptz NOT NULL DEFAULT now());
    CREATE INDEX messages_by_sender ON messages (sender);
    INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 500) AS i;
    INSERT INTO messages (sender, body) SELECT 1 + i % 500, repeat(md5(i::text), 4) FROM generate_series(1, 30000) AS i;
    CREATE MATERIALIZED VIEW busy AS SELECT sender, count(*) AS n FROM messages GROUP BY sender;
";

/// A server with a shop, a world that backs it up as the README's role, and one backup.
pub(super) fn backed_up(more: &str, drill: &str) -> (Server, World) {
    let server = Server::start();
    server.sql("postgres", BACKUP_ROLE);
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", &format!("{SHOP}{more}"));
    let world = world(&server.url_of("backup", "shop"), "", drill);
    world.backup();
    (server, world)
}

/// Processes whose arguments name a world's scratch folder.
pub(super) fn processes_in(world: &World) -> Vec<String> {
    let scratch = world.scratch();
    let scratch = scratch.to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(scratch))
        .collect()
}

#[track_caller]
pub(super) fn nothing_is_left(world: &World) {
    assert_eq!(processes_in(world), Vec::<String>::new());
    if world.scratch().is_dir() {
        let left: Vec<_> = fs::read_dir(world.scratch()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "scratch is not empty: {left:?}");
    }
}

/// Runs a drill that must fail, and gives it.
#[track_caller]
pub(super) fn fails(world: &World, refutes: bool, says: &str) -> Value {
    let drill = world.json(21, &DRILL)["drills"][0].clone();
    assert_eq!((&drill["outcome"], &drill["rto_met"]), (&"failed".into(), &false.into()), "{drill}");
    let all = format!("{}{}", drill["errors"], drill["checks"]);
    assert!(all.contains(says), "{says:?} is not in {drill}");
    assert_eq!(drill["refutes_backup"], refutes, "{drill}");
    assert_eq!(world.json(0, &["status"])["jobs"][0]["state"], "critical");
    nothing_is_left(world);
    drill
}

#[test]
fn it_passes_and_says_how_long_each_part_took() {
    let checks = r#"checks = [
  { source = "db", sql = "select count(*) = 500 from users" },
  { source = "db", sql = "select sum(n) = 30000 from busy" },
  { source = "db", freshness = "select max(created_at) from messages", within = "26h" },
  { command = ["sh", "-c", "test -n \"$LIFEBOAT_DB_URL\""] },
]"#;
    let (_server, world) = backed_up("", checks);
    let document = world.json(0, &DRILL);
    let drill = &document["drills"][0];
    assert_eq!((&drill["outcome"], &drill["rto_met"]), (&"passed".into(), &true.into()), "{drill}");
    let names: Vec<&str> =
        drill["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    for phase in ["provision", "locate", "load", "check"] {
        assert!(names.contains(&phase), "{phase} is not among {names:?}");
    }
    let checks = drill["checks"].to_string();
    for what in ["public.users", "public.messages", "index", "constraint"] {
        assert!(checks.contains(what), "{what} was not compared: {drill}");
    }
    assert_eq!(world.json(0, &["list"])["backups"][0]["verdict"], "proven");
    nothing_is_left(&world);
}

#[test]
fn everything_odd_passes_it() {
    let server = everything(Server::start);
    let world = world(&server.url("everything"), "", "");
    world.backup();
    let document = world.json(0, &DRILL);
    assert_eq!(document["drills"][0]["outcome"], "passed", "{document}");
    nothing_is_left(&world);
}

#[test]
fn the_users_checks_fail_it_and_say_nothing_of_the_backup() {
    let (_server, world) = backed_up("", "checks = []");
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    for (check, says) in [
        ("sql = \"select count(*) > 500 from users\"", "false"),
        ("sql = \"select count(*) > 0 from gone\"", "gone"),
        ("freshness = \"select '2026-01-01'::timestamptz\", within = \"26h\"", "2026-01-01"),
        ("freshness = \"select max(created_at) from messages where false\", within = \"26h\"", "NULL"),
    ] {
        let checks = format!("checks = [{{ source = \"db\", {check} }}]");
        fs::write(world.path("lifeboat.toml"), config.replace("checks = []", &checks)).unwrap();
        fails(&world, false, says);
    }
}

/// What is done to facts.
type Change<'a> = &'a dyn Fn(&mut PostgresFacts);

#[test]
fn a_database_that_differs_from_its_facts_fails_it() {
    let (_server, world) =
        backed_up("SELECT lo_from_bytea(4711, 'large'); GRANT SELECT ON LARGE OBJECT 4711 TO backup;", "");
    let forge = Forge::of(&world);
    let sound = forge.manifests().remove(0);
    // Commits a backup like the sound one, but for a fact of it.
    let commit_with = |change: Change<'_>| {
        let mut manifest = forge.next();
        manifest.sources.clone_from(&sound.sources);
        let db = manifest.sources.iter_mut().find(|source| source.name.as_str() == "db").unwrap();
        let mut lines = forge.contents(db);
        let facts = lines.iter_mut().find_map(|line| match line {
            Line::Facts(Facts::Postgres(facts)) => Some(facts),
            _ => None,
        });
        change(facts.unwrap());
        forge.replace_contents(db, &lines);
        forge.commit(&manifest);
    };
    let changes: [(Change<'_>, &str); 9] = [
        (&|facts| facts.tables[0].rows += 1, "public.messages"),
        (&|facts| facts.tables[1].checksum = "0".repeat(32), "public.users"),
        (
            &|facts| {
                let mut more = facts.tables[0].clone();
                more.name = "zz_dropped".to_owned();
                facts.tables.push(more);
            },
            "zz_dropped",
        ),
        (&|facts| facts.indexes.push("public.zz_index".to_owned()), "zz_index"),
        (&|facts| facts.constraints.push("public.users.zz_constraint".to_owned()), "zz_constraint"),
        (&|facts| facts.sequences.as_mut().unwrap()[0].last_value -= 1, "messages_id_seq is 30000 and was 29999"),
        (&|facts| facts.sequences.as_mut().unwrap()[0].name.push('x'), "messages_id_seqx is missing"),
        (&|facts| facts.large_object_checksum = Some("0".repeat(32)), "1 of 5 bytes together"),
        (&|facts| facts.large_objects.0 += 1, "2 of 5 bytes together"),
    ];
    for (fact, says) in changes {
        commit_with(fact);
        fails(&world, true, says);
    }
    // One that was made before these were counted passes without them, but for what it says.
    let older: Change<'_> = &|facts| (facts.sequences, facts.large_object_checksum) = (None, None);
    commit_with(older);
    let document = world.json(0, &DRILL);
    assert_eq!(document["drills"][0]["outcome"], "passed", "{document}");
    commit_with(&|facts| {
        older(facts);
        facts.large_objects.1 += 1;
    });
    fails(&world, true, "1 of 6 bytes together");
    // The backup before them is as good as ever.
    let document = world.json(0, &["drill", "--backup", "oldest", "--identity", "identity.txt"]);
    assert_eq!(document["drills"][0]["outcome"], "passed", "{document}");
}

#[test]
fn a_missing_extension_is_named_before_anything_is_loaded() {
    let (_server, world) = backed_up("", "");
    let forge = Forge::of(&world);
    let mut manifest = forge.next();
    let db = manifest.sources.iter_mut().find(|source| source.name.as_str() == "db").unwrap();
    let mut lines = forge.contents(db);
    for line in &mut lines {
        if let Line::Facts(Facts::Postgres(facts)) = line {
            facts.extensions.push(("no_such_extension".to_owned(), "1.0".to_owned()));
        }
    }
    forge.replace_contents(db, &lines);
    forge.commit(&manifest);
    let drill = fails(&world, false, "no_such_extension");
    let phases: Vec<&str> =
        drill["phases"].as_array().unwrap().iter().filter_map(|phase| phase["name"].as_str()).collect();
    assert!(!phases.contains(&"index"), "it went on: {drill}");
}

#[test]
fn a_truncated_or_missing_segment_fails_it() {
    let (_server, world) = backed_up("", "");
    let objects = world.keys("objects");
    let largest = objects.iter().max_by_key(|key| fs::metadata(world.path("vault").join(key)).unwrap().len()).unwrap();
    let path = world.path("vault").join(largest);
    let sound = fs::read(&path).unwrap();
    let name = largest.rsplit('/').next().unwrap();
    fs::write(&path, &sound[..sound.len() / 2]).unwrap();
    fails(&world, true, name);
    fs::remove_file(&path).unwrap();
    fails(&world, true, name);
    fs::write(&path, &sound).unwrap();
    world.expect(0, &DRILL);
    nothing_is_left(&world);
}

/// There was room when the drill looked, and there is none any more when the rows come.
#[test]
fn a_disk_that_runs_full_fails_it_and_says_so() {
    let rows = "CREATE TABLE large AS SELECT i AS id, md5(i::text) || repeat('x', 180) AS body FROM generate_series(1, 150000) AS i;";
    let (_server, world) = backed_up(rows, "");
    fs::create_dir(world.scratch()).unwrap();
    let mount = Mount::tmpfs(&world.scratch(), "2g");
    fs::set_permissions(world.scratch(), fs::Permissions::from_mode(0o711)).unwrap();
    let drill = begin(world.command(&DRILL).arg("--json"));
    // A cluster has 39 MB when it is made.
    while !fs::read_dir(world.scratch()).unwrap().any(|it| it.unwrap().path().join("db/data/PG_VERSION").exists()) {
        std::thread::yield_now();
    }
    mount.resize("56m");
    let said = ended(drill);
    assert_eq!(said.code, Some(21), "{}\n{}", said.stdout, said.stderr);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    let drill = &document["drills"][0];
    let all = format!("{drill}{}", said.stderr);
    assert!(all.contains("No space left on device") && all.contains("public.large"), "{all}");
    assert!(all.contains("make room"), "no next step: {all}");
    // It says nothing of the backup.
    assert_eq!(drill["refutes_backup"], false, "{drill}");
    nothing_is_left(&world);
    drop(mount);
    world.expect(0, &DRILL);
}

/// What whoever controls one schema can have run when the backup is restored: a function behind an index, which is
/// computed anew by whoever restores.
fn exploit(commands: &str) -> String {
    format!(
        "CREATE FUNCTION attack_now() RETURNS void LANGUAGE plpgsql VOLATILE AS $x$
         BEGIN EXECUTE 'COPY (SELECT 1) TO PROGRAM ' || quote_literal($command${commands}$command$); END $x$;
         CREATE FUNCTION attack(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $x$
         BEGIN PERFORM public.attack_now(); RETURN $1; EXCEPTION WHEN OTHERS THEN RETURN $1; END $x$;
         CREATE TABLE victims (id integer);
         CREATE INDEX victims_attacked ON victims (attack(id));
         INSERT INTO victims VALUES (1);"
    )
}

/// It writes down what it got hold of beside the scratch server's data, where a check looks: so it is sure that it ran.
#[test]
fn a_program_that_a_restore_starts_reaches_nothing_of_ours() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    // At the source it runs too, as the source's own server: there it does nothing.
    let commands = format!(
        "case $PWD in *-scratch*) ;; *) exit 0;; esac; echo began > attack-began; \
         for file in /tmp/lifeboat-it-*/identity.txt /tmp/lifeboat-it-*/lifeboat.toml /tmp/lifeboat-it-*/vault.key /tmp/lifeboat-it-*/state/host.key; do \
             cat $file >> stolen; done; \
         cat /proc/*/environ | grep -a -o -i -e AGE-SECRET-KEY -e LIFEBOAT_IDENTITY >> stolen; ls /tmp/lifeboat-it-*/vault >> stolen; \
         bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && echo a network' >> stolen; \
         touch ../../stray && echo a place beside it >> stolen; test $(id -u) = 0 && echo root >> stolen; true"
    );
    let checks = r#"checks = [
  { source = "db", sql = "select pg_read_file('attack-began', 0, 100, true) = E'began\n'" },
  { source = "db", sql = "select coalesce(pg_read_file('stolen', 0, 10000, true), '') = ''" },
]"#;
    let (_server, world) = backed_up(&exploit(&commands), checks);
    let mut drill = world.command(&["drill", "--json"]);
    let said = crate::support::said(drill.env("LIFEBOAT_IDENTITY", world.path("identity.txt")));
    assert_eq!(said.code, Some(0), "{}\n{}", said.stdout, said.stderr);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    let drill = &document["drills"][0];
    assert_eq!(drill["environment"]["confinement"], "own-uid-no-network", "{drill}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it had a network");
    nothing_is_left(&world);
    world.expect(0, &["check"]);
}
