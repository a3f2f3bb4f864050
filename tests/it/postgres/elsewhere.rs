//! Drills of a database that is not restored into a server of this machine's programs: on a server that is there, and in
//! a container. What they make is gone afterwards, however they end; what they did not make stays.
//!
//! Where there is no docker, docker.sh stands in for it: it runs this machine's own server as docker runs an image's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Server;
use super::drill::{DRILL, backed_up, fails, nothing_is_left, processes_in};
use crate::support::World;

/// How long something may take that must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Databases that drills have anything to do with.
const OURS: &str = "SELECT datname FROM pg_database WHERE datname LIKE 'lifeboat%' ORDER BY 1";
/// A check that goes on for as long as somebody looks.
const SLOW: &str = "checks = [{ source = \"db\", sql = \"select pg_sleep(600) is null\" }]";
/// What a server that is somebody else's has no use for: roles, and what only a superuser may set.
const ROLES: &str = "
    CREATE ROLE app; CREATE ROLE clerk; ALTER TABLE users OWNER TO app; GRANT SELECT ON messages TO clerk;
    ALTER TABLE users ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON users TO clerk USING (name = current_user);
    SELECT lo_from_bytea(4711, 'a large object'); GRANT SELECT ON LARGE OBJECT 4711 TO backup;
    CREATE EXTENSION pgcrypto; COMMENT ON DATABASE shop IS 'the shop';
    ALTER DATABASE shop SET work_mem = '8MB'; ALTER DATABASE shop SET log_min_duration_statement = '5s';
    ALTER DATABASE shop CONNECTION LIMIT 50;
";

/// A server of somebody else's, with a role for drills.
fn spare() -> Server {
    let server = Server::start();
    server.sql("postgres", "CREATE ROLE drill LOGIN CREATEDB BYPASSRLS PASSWORD 'hunter2'");
    server
}

fn on(spare: &Server, role: &str, more: &str) -> String {
    format!("server = {{ url = \"{}\"{more} }}\n", spare.url_of(role, "postgres"))
}

/// Writes something else into the config.
fn replace(world: &World, from: &str, to: &str) {
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    assert!(config.contains(from), "{from} is not in {config}");
    fs::write(world.path("lifeboat.toml"), config.replace(from, to)).unwrap();
}

#[track_caller]
fn passes(world: &World) -> Value {
    let document = world.json(0, &DRILL);
    assert_eq!(document["drills"][0]["outcome"], "passed", "{document}");
    document["drills"][0].clone()
}

/// Starts a drill that does not end by itself.
fn begin(world: &World) -> Child {
    world.command(&DRILL).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[track_caller]
fn wait_for(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn on_a_server_that_is_there_nothing_is_left_of_it() {
    let spare = spare();
    spare.admit("local all drill scram-sha-256\nlocal all all trust\n");
    let checks = r#"checks = [
  { source = "db", sql = "select count(*) = 500 from users" },
  { source = "db", sql = "select current_setting('work_mem') = '8MB'" },
  { source = "db", freshness = "select max(created_at) from messages", within = "26h" },
]"#;
    let server = on(&spare, "drill", ", password = { file = \"drill.password\" }");
    let (source, world) = backed_up(ROLES, &format!("{server}{checks}"));
    let secret = world.path("drill.password");
    fs::write(&secret, "hunter2\n").unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let before = spare.globals();

    let drill = passes(&world);
    let environment = &drill["environment"];
    assert_eq!(environment["confinement"], "existing-server", "{drill}");
    assert_eq!(environment["servers"][0]["ground"], "existing", "{drill}");
    let checks = drill["checks"].to_string();
    for what in ["public.users", "public.messages", "large objects", "index", "constraint", "work_mem", "freshness"] {
        assert!(checks.contains(what), "{what} was not looked at: {drill}");
    }
    assert_eq!(spare.sql("postgres", OURS), "", "the database is dropped");
    assert_eq!(spare.globals(), before, "no role was made");
    nothing_is_left(&world);

    let said = world.expect(0, &DRILL);
    let all = format!("{}{}", said.stdout, said.stderr);
    for what in [
        "a server that was there",
        "as role drill",
        "policies name roles of the source and were left out: 1",
        "not this role's to make",
        "existing server: PostgreSQL",
        "settings of its own",
    ] {
        assert!(all.contains(what), "{what:?} is not in {all}");
    }
    assert!(!all.contains("hunter2") && !drill.to_string().contains("hunter2"));
    let report = world.expect(0, &["report"]).stdout;
    assert!(report.contains("a server that was there"), "{report}");
    let doctor = world.expect(0, &["doctor"]).stdout;
    assert!(doctor.contains("drills restore into postgres://drill@"), "{doctor}");
    // The source was never touched.
    assert_eq!(source.sql("postgres", OURS), "");
}

#[test]
fn a_drill_that_fails_drops_its_database_too() {
    let spare = spare();
    let server = on(&spare, "drill", "");
    let check = "checks = [{ source = \"db\", sql = \"select count(*) > 500 from users\" }]";
    let (_source, world) = backed_up("", &format!("{server}{check}"));
    fails(&world, false, "false");
    assert_eq!(spare.sql("postgres", OURS), "");
    // What only a superuser may make fails it, and says nothing of the backup.
    let (_source, world) = backed_up("CREATE EXTENSION file_fdw;", &server);
    fails(&world, false, "permission denied to create extension");
    assert_eq!(spare.sql("postgres", OURS), "");
}

#[test]
fn a_role_that_reaches_further_is_refused_unless_it_is_allowed() {
    let spare = spare();
    spare.sql(
        "postgres",
        "CREATE ROLE modest LOGIN; CREATE ROLE maker LOGIN CREATEDB CREATEROLE; CREATE ROLE runner LOGIN CREATEDB; \
         GRANT pg_execute_server_program TO runner",
    );
    let mut used = on(&spare, "postgres", "");
    let (_source, world) = backed_up("CREATE EXTENSION file_fdw;", &used);
    for (role, code, says) in [
        ("postgres", "unconfined", "it is a superuser"),
        ("maker", "unconfined", "it makes roles"),
        ("runner", "unconfined", "pg_execute_server_program"),
        ("modest", "scratch-failed", "may not make a database"),
    ] {
        let server = on(&spare, role, "");
        replace(&world, &used, &server);
        used = server;
        fails(&world, false, says);
        let doctor = world.expect(1, &["doctor"]).stdout;
        assert!(doctor.contains(says), "{doctor}");
        assert!(world.run(&DRILL).stderr.contains(code), "{code}");
    }
    replace(&world, &used, &on(&spare, "postgres", ", allow_superuser = true"));
    passes(&world);
    let said = world.expect(0, &DRILL);
    assert!(said.stderr.contains("reaches beyond its own databases (it is a superuser)"), "{}", said.stderr);
    assert_eq!(spare.sql("postgres", OURS), "");
}

#[test]
fn a_signal_ends_it_in_good_order_and_a_kill_leaves_what_the_next_one_drops() {
    let spare = spare();
    let (_source, world) = backed_up("", &format!("{}{SLOW}", on(&spare, "drill", "")));
    let sleeping = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND datname LIKE 'lifeboat%'";
    let sleeps = || !spare.sql("postgres", sleeping).is_empty();

    let mut drill = begin(&world);
    wait_for("the check", sleeps);
    signal(&drill, Signal::TERM);
    assert_eq!(drill.wait().unwrap().code(), Some(130));
    assert_eq!(spare.sql("postgres", OURS), "", "it was told to end, and dropped its database");

    let mut drill = begin(&world);
    wait_for("the check", sleeps);
    drill.kill().unwrap();
    drill.wait().unwrap();
    let left = spare.sql("postgres", OURS);
    assert!(left.starts_with("lifeboat_drill_"), "{left}");
    // What others made, whatever it is called, and what is of another role, is none of ours.
    spare.sql("postgres", "CREATE DATABASE lifeboat_drill_mine OWNER drill");
    spare.sql("postgres", "CREATE DATABASE lifeboat_drill_00000000000000cc OWNER drill");
    spare.sql("postgres", "COMMENT ON DATABASE lifeboat_drill_00000000000000cc IS 'the only copy'");
    spare.sql("postgres", "CREATE DATABASE lifeboat_drill_00000000000000dd");
    // It was made, and there was no time to mark it.
    spare.sql("postgres", "CREATE DATABASE lifeboat_drill_00000000000000ee OWNER drill");
    let others = "lifeboat_drill_00000000000000cc\nlifeboat_drill_00000000000000dd\nlifeboat_drill_mine";

    // Its session goes on, as that of a living drill would: it is left alone.
    replace(&world, SLOW, "");
    let said = world.expect(0, &DRILL);
    assert!(said.stderr.contains("removed database lifeboat_drill_00000000000000ee"), "{}", said.stderr);
    let now = spare.sql("postgres", OURS);
    assert!(now.contains(left.trim()) && !now.contains("00000000000000ee"), "{now}");
    spare.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'lifeboat%'");
    wait_for("the session's end", || !sleeps());
    let said = world.expect(0, &DRILL);
    assert!(said.stderr.contains(left.trim()), "{}", said.stderr);
    assert_eq!(spare.sql("postgres", OURS).trim(), others);
}

#[test]
fn what_is_kept_has_a_name_that_no_drill_drops() {
    let spare = spare();
    let (_source, world) = backed_up("", &on(&spare, "drill", ""));
    let said = world.expect(0, &["drill", "--keep", "--identity", "identity.txt"]);
    let kept = spare.sql("postgres", OURS);
    assert!(kept.starts_with("lifeboat_kept_") && said.stderr.contains(kept.trim()), "{kept}: {}", said.stderr);
    assert_eq!(spare.sql(kept.trim(), "SELECT count(*) FROM users").trim(), "500");
    passes(&world);
    assert_eq!(spare.sql("postgres", OURS), kept);
}

/// A world whose drills run in what stands in for docker.
fn in_docker(image: &str, more: &str) -> (Server, World) {
    let container = format!("container = {{ image = \"{image}\", program = \"./docker\" }}\n");
    let (source, world) = backed_up("", &format!("{container}{more}"));
    stand_in_for_docker(&world.path("docker"));
    (source, world)
}

/// Puts the stand-in there.
pub(super) fn stand_in_for_docker(program: &Path) {
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/postgres/docker.sh"), program).unwrap();
    fs::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
}

fn containers(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.path("containers")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn in_a_container_it_passes_and_the_container_is_gone() {
    let checks = r#"checks = [
  { source = "db", sql = "select count(*) = 500 from users" },
  { command = ["sh", "-c", "test -n \"$LIFEBOAT_DB_URL\""] },
]"#;
    let (_source, world) = in_docker("postgres:15", checks);
    let drill = passes(&world);
    assert_eq!(drill["environment"]["servers"][0]["ground"], "container", "{drill}");
    assert_eq!(containers(&world), Vec::<String>::new());
    nothing_is_left(&world);
    let said = fs::read_to_string(world.path("said")).unwrap();
    let server = said.lines().find(|line| line.contains(" postgres -D ")).unwrap();
    for option in [
        "run --rm --name lifeboat-drill-shop-",
        "--label lifeboat.drill=/var/tmp/",
        "--pull never --network none --user 655",
        "--cap-drop ALL --security-opt no-new-privileges",
        "--read-only sha256:feed",
    ] {
        assert!(server.contains(option), "{option} is not in {server}");
    }
    let said = world.expect(0, &DRILL);
    assert!(said.stderr.contains("ran in a container: image postgres:15 (sha256:feed)"), "{}", said.stderr);
    assert!(said.stdout.contains("scratch server in a container: PostgreSQL 15."), "{}", said.stdout);
    let doctor = world.expect(0, &["doctor"]).stdout;
    assert!(doctor.contains("containers of postgres:15"), "{doctor}");
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let (_source, world) = in_docker("postgres:16", "");
    fails(&world, false, "no image postgres:16");
    assert!(world.run(&DRILL).stderr.contains("pull postgres:16"));
    assert!(world.expect(1, &["doctor"]).stdout.contains("no image postgres:16"));
}

#[test]
fn a_killed_drills_container_is_removed_by_the_next() {
    let (_source, world) = in_docker("postgres:15", SLOW);
    // What asks stands in the scratch folder, wherever the program lies.
    let checking = || {
        fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path())).any(|process| {
            fs::read_link(process.join("cwd")).is_ok_and(|folder| folder.starts_with(world.scratch()))
                && fs::read(process.join("cmdline"))
                    .is_ok_and(|line| String::from_utf8_lossy(&line).contains("confined-sql"))
        })
    };
    let mut drill = begin(&world);
    wait_for("the check", checking);
    signal(&drill, Signal::INT);
    assert_eq!(drill.wait().unwrap().code(), Some(130));
    assert_eq!(containers(&world), Vec::<String>::new());
    nothing_is_left(&world);

    let mut drill = begin(&world);
    wait_for("the check", checking);
    drill.kill().unwrap();
    drill.wait().unwrap();
    let left = containers(&world);
    assert_eq!(left.len(), 1, "a container does not end with whoever started it: {left:?}");
    replace(&world, SLOW, "");
    let said = world.expect(0, &DRILL);
    assert!(said.stderr.contains(&format!("removed container {}", left[0])), "{}", said.stderr);
    assert_eq!(containers(&world), Vec::<String>::new());
    wait_for("the end of its processes", || processes_in(&world).is_empty());
    nothing_is_left(&world);
}
