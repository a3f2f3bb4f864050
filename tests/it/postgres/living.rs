//! A database that lives while it is read: writers, DDL, locks, timeouts, missing rights, wrong passwords, a server that
//! dies. What is claimed here is what the README says is guaranteed.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{BACKUP_ROLE, Server, restore, world};
use crate::support::{Said, World, said};

/// How long anything here may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server with the README's role and a database `shop` that holds what this SQL makes.
pub(super) fn shop(settings: &[&str], sql: &str) -> Server {
    let server = Server::with(settings);
    server.sql("postgres", BACKUP_ROLE);
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", sql);
    server
}

/// A table of about 25 MB, which takes a moment to read.
pub(super) const LARGE: &str = "CREATE TABLE large AS SELECT i AS id, md5(i::text) || repeat('x', 180) AS body FROM generate_series(1, 100000) AS i;";

/// Somebody else has a lock on it.
const READS_LARGE: &str = "count(*) > 0 FROM pg_stat_activity WHERE application_name = 'lifeboat' AND state = 'active' AND query LIKE 'COPY%large%'";

/// A session that stays open.
struct Session {
    psql: Child,
    input: Option<ChildStdin>,
}

impl Session {
    fn open(server: &Server, database: &str) -> Self {
        let mut psql = server.psql(database).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let input = psql.stdin.take();
        Self { psql, input }
    }

    fn say(&mut self, sql: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(sql.as_bytes()).unwrap();
        input.write_all(b"\n").unwrap();
        input.flush().unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

/// A session that has a table for itself, until it is told to commit.
#[track_caller]
fn hold(server: &Server, table: &str) -> Session {
    let mut holder = Session::open(server, "shop");
    holder.say(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;"));
    until(
        server,
        &format!(
            "count(*) > 0 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = '{table}'::regclass AND granted"
        ),
    );
    holder
}

/// Asks until the answer is `t`.
#[track_caller]
pub(super) fn until(server: &Server, what: &str) {
    let end = Instant::now() + PATIENCE;
    while server.sql("shop", &format!("SELECT {what}")).trim() != "t" {
        assert!(Instant::now() < end, "never came true: {what}");
        std::thread::yield_now();
    }
}

/// Begins a backup and stops it while it reads the table `large`: the server waits for it, with all that it holds.
#[track_caller]
pub(super) fn stopped_while_it_reads(server: &Server, world: &World) -> Child {
    let reads = || server.sql("shop", &format!("SELECT {READS_LARGE}")).trim() == "t";
    // The server itself looks: a new psql for each look would be too slow to see it.
    let look = format!(
        "DO $$ BEGIN FOR look IN 1..500 LOOP
             PERFORM pg_stat_clear_snapshot(); EXIT WHEN (SELECT {READS_LARGE}); PERFORM pg_sleep(0.002);
         END LOOP; END $$"
    );
    let end = Instant::now() + PATIENCE;
    loop {
        let mut backup = begin(&mut world.command(&["backup"]));
        while backup.try_wait().unwrap().is_none() {
            server.sql("shop", &look);
            signal(&backup, Signal::STOP);
            // It may have come to the end between the look and the signal.
            if reads() {
                return backup;
            }
            signal(&backup, Signal::CONT);
        }
        // It was faster than whoever looked.
        let said = ended(backup);
        assert!(said.code == Some(0) && Instant::now() < end, "never seen reading\n{}{}", said.stdout, said.stderr);
    }
}

/// Runs a command that must end by itself.
#[track_caller]
fn in_time(command: &mut Command) -> Said {
    let mut child = begin(command);
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("it hangs: {command:?}");
        }
        std::thread::yield_now();
    }
    ended(child)
}

/// Starts a command whose words are wanted later.
pub(super) fn begin(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of one.
pub(super) fn ended(child: Child) -> Said {
    let out = child.wait_with_output().unwrap();
    Said {
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// Stops a process, or lets it go on.
pub(super) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// What a failed backup must have left: no manifest, and a run on record that says so.
#[track_caller]
fn failed(world: &World, said: &Said, code: i32, says: &[&str]) {
    assert_eq!(said.code, Some(code), "{}\n{}", said.stdout, said.stderr);
    for text in says {
        assert!(said.stderr.contains(text), "{text:?} is not in {}", said.stderr);
    }
    assert!(said.stderr.contains("hint: "), "no next step: {}", said.stderr);
    let manifests = world.keys("backups");
    assert!(!manifests.iter().any(|key| key.ends_with(".json")), "a failed backup was committed: {manifests:?}");
}

/// Whether the last backup took none of the server's sessions with it.
#[track_caller]
fn nobody_is_left(server: &Server) {
    until(server, "count(*) = 0 FROM pg_stat_activity WHERE application_name IN ('lifeboat', 'pg_dump', 'pg_dumpall')");
}

#[test]
fn writers_at_work_leave_the_books_balanced() {
    let server = shop(
        &[],
        "CREATE TABLE accounts (id integer PRIMARY KEY, balance bigint NOT NULL, filler text);
         INSERT INTO accounts SELECT i, 1000, repeat(md5(i::text), 60) FROM generate_series(0, 9999) AS i;
         CREATE TABLE ledger (id bigserial PRIMARY KEY, source integer NOT NULL, target integer NOT NULL, amount bigint NOT NULL);",
    );
    let world = world(&server.url_of("backup", "shop"), "", "");
    let stop = AtomicBool::new(false);
    let moves = || server.sql("shop", "SELECT count(*) FROM ledger").trim().parse::<u64>().unwrap();
    let during = std::thread::scope(|scope| {
        for writer in 0..3_u64 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let mut session = Session::open(server, "shop");
                for number in (writer..).step_by(3) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Accounts at both ends of the table, in the same order for all writers.
                    let (low, high, amount) = (number * 7 % 5000, 5000 + number * 13 % 5000, number % 50);
                    session.say(&format!(
                        "BEGIN; UPDATE accounts SET balance = balance - {amount} WHERE id = {low};
                         UPDATE accounts SET balance = balance + {amount} WHERE id = {high};
                         INSERT INTO ledger (source, target, amount) VALUES ({low}, {high}, {amount}); COMMIT;"
                    ));
                }
            });
        }
        while moves() == 0 {
            std::thread::yield_now();
        }
        let before = moves();
        for _ in 0..3 {
            world.backup();
        }
        let after = moves();
        stop.store(true, Ordering::Relaxed);
        after - before
    });
    assert!(during > 0, "nobody wrote during the backups");
    let target = Server::start();
    let backups = world.json(0, &["list"]);
    for (number, backup) in backups["backups"].as_array().unwrap().iter().enumerate() {
        let (id, name) = (backup["id"].as_str().unwrap(), format!("shop{number}"));
        let into = target.url(&name);
        world.expect(0, &["restore", id, "--source", "db", "--into", &into, "--identity", "identity.txt"]);
        let books = "SELECT (SELECT sum(balance) FROM accounts),
            (SELECT count(*) FROM accounts AS a WHERE balance <> 1000
                - coalesce((SELECT sum(amount) FROM ledger WHERE source = a.id), 0)
                + coalesce((SELECT sum(amount) FROM ledger WHERE target = a.id), 0)),
            nextval('ledger_id_seq') > coalesce((SELECT max(id) FROM ledger), 0)";
        assert_eq!(target.sql(&name, books).trim(), "10000000|0|t", "backup {number}");
    }
}

/// DDL between the moment that the snapshot is there and the moment that a table is locked: the backup is of before or
/// of after, or there is none. Never a table that lost its rows on the way.
#[test]
fn tables_that_are_changed_meanwhile_are_whole_or_the_run_fails() {
    let server = shop(&[], LARGE);
    server.sql("shop", "CREATE TABLE t (id integer); INSERT INTO t SELECT generate_series(1, 1000)");
    let world = world(&server.url_of("backup", "shop"), "", "");
    let stop = AtomicBool::new(false);
    let outcomes: Vec<Said> = std::thread::scope(|scope| {
        let (server, stop) = (&server, &stop);
        scope.spawn(move || {
            for number in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // Each transaction leaves 1000 rows, in a table that was written anew.
                let change = match number % 4 {
                    0 => "TRUNCATE t; INSERT INTO t SELECT generate_series(1, 1000)",
                    1 => "DROP TABLE t; CREATE TABLE t (id integer); INSERT INTO t SELECT generate_series(1, 1000)",
                    2 => "ALTER TABLE t ALTER id TYPE bigint",
                    _ => "ALTER TABLE t ALTER id TYPE integer",
                };
                let change = format!("SET lock_timeout = '2s'; BEGIN; {change}; COMMIT");
                // Waiting for a backup's lock in vain is not the subject.
                let _ = said(server.psql("shop").args(["-c", &change]));
            }
        });
        let outcomes = (0..4).map(|_| in_time(&mut world.command(&["backup"]))).collect();
        stop.store(true, Ordering::Relaxed);
        outcomes
    });
    for said in &outcomes {
        assert!(matches!(said.code, Some(0 | 1)), "{}\n{}", said.stdout, said.stderr);
        assert!(said.code == Some(0) || said.stderr.contains("hint: "), "{}", said.stderr);
    }
    // One that nobody disturbs, so that there is something to look at whatever happened before.
    world.backup();
    let target = Server::start();
    let backups = world.json(0, &["list"])["backups"].as_array().unwrap().clone();
    assert_eq!(backups.len(), 1 + outcomes.iter().filter(|said| said.code == Some(0)).count());
    for (number, backup) in backups.iter().enumerate() {
        let name = format!("shop{number}");
        let (id, into) = (backup["id"].as_str().unwrap(), target.url(&name));
        world.expect(0, &["restore", id, "--source", "db", "--into", &into, "--identity", "identity.txt"]);
        assert_eq!(target.sql(&name, "SELECT count(*), sum(id) FROM t").trim(), "1000|500500", "backup {number}");
    }
}

/// The same at the very moment: a table that somebody has for himself keeps the backup between its snapshot, in which
/// the others are as they were, and the locks on them.
#[test]
fn a_table_that_is_no_more_what_the_snapshot_knows_makes_it_begin_anew() {
    let tables = ["emptied", "retyped", "gone"];
    let made: Vec<String> =
        tables.iter().map(|table| format!("CREATE TABLE {table} AS SELECT generate_series(1, 1000) AS id")).collect();
    let server = shop(&[], &format!("CREATE TABLE gate (id integer); {}", made.join(";")));
    let world = world(&server.url_of("backup", "shop"), "", "");
    for (round, change, rows) in [
        ("truncated", "TRUNCATE emptied; INSERT INTO emptied SELECT generate_series(1, 7)", ["7", "1000", "1000"]),
        ("altered", "ALTER TABLE retyped ALTER id TYPE bigint", ["7", "1000", "1000"]),
        ("dropped", "DROP TABLE gone", ["7", "1000", "-"]),
    ] {
        let mut holder = hold(&server, "gate");
        let backup = begin(&mut world.command(&["backup"]));
        until(&server, "count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass");
        server.sql("shop", change);
        holder.say("COMMIT;");
        let said = ended(backup);
        assert_eq!(said.code, Some(0), "{round}: {}\n{}", said.stdout, said.stderr);
        restore(&world, &server.url(round), &[]);
        for (table, rows) in tables.iter().zip(rows) {
            let there = server.sql(round, &format!("SELECT to_regclass('{table}') IS NOT NULL"));
            assert_eq!(there.trim() == "t", rows != "-", "{round}: {table}");
            if rows != "-" {
                assert_eq!(
                    server.sql(round, &format!("SELECT count(*) FROM {table}")).trim(),
                    rows,
                    "{round}: {table}"
                );
            }
        }
    }
}

/// What keeps the server from cleaning up for too long is said, and then ended. Large objects are read last and by one
/// session, so that a lock on them holds a whole backup up.
#[test]
fn a_snapshot_is_not_held_for_ever() {
    let server = shop(&[], "CREATE TABLE t AS SELECT 1 AS id; SELECT lo_from_bytea(4711, 'large');");
    let ended_by_it = world(&server.url("shop"), "max_snapshot = \"2s\"", "");
    let warned_by_it = world(&server.url("shop"), "max_snapshot = \"10s\"", "");
    let mut holder = hold(&server, "pg_largeobject");
    let (short, long) = (begin(&mut ended_by_it.command(&["backup"])), begin(&mut warned_by_it.command(&["backup"])));
    let said = ended(short);
    failed(&ended_by_it, &said, 1, &["max_snapshot", "shop"]);
    // Half of the ten, and a second or so in which nobody looks.
    let old = "count(*) > 0 FROM pg_stat_activity WHERE application_name = 'lifeboat' AND now() - xact_start > '7s'";
    until(&server, old);
    holder.say("COMMIT;");
    let said = ended(long);
    assert_eq!(said.code, Some(0), "{}\n{}", said.stdout, said.stderr);
    let shown = warned_by_it.json(0, &["show", "shop", "--identity", "identity.txt"]).to_string();
    assert!(shown.contains("half of max_snapshot"), "{shown}");
    nobody_is_left(&server);
}

#[test]
fn a_table_that_somebody_keeps_locked_fails_it_and_nothing_hangs() {
    let server = shop(&[], "CREATE TABLE held (id integer); CREATE TABLE free (id integer);");
    let world = world(&server.url_of("backup", "shop"), "max_lock_wait = \"2s\"", "");
    let mut holder = hold(&server, "held");
    let said = in_time(&mut world.command(&["backup"]));
    failed(&world, &said, 1, &["held", "select pg_terminate_backend("]);
    // As long as it may be waited for, and not once for each of several attempts.
    assert!(!said.stderr.contains("trying again"), "{}", said.stderr);
    nobody_is_left(&server);
    holder.say("COMMIT;");
    until(&server, "count(*) = 0 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'held'::regclass");
    world.backup();
}

/// Who needs a table for himself gets it within `max_lock_wait`, and the backup says why it failed.
#[test]
fn a_waiting_alter_is_let_through() {
    let server = shop(&[], LARGE);
    server.sql(
        "shop",
        "INSERT INTO large SELECT id + 100000, body FROM large; INSERT INTO large SELECT id + 200000, body FROM large",
    );
    let world = world(&server.url_of("backup", "shop"), "max_lock_wait = \"1s\"\nconnections = 1", "");
    // A vault that takes nothing for a while holds the readers up, and with them the locks.
    let mut backup = stopped_while_it_reads(&server, &world);
    let mut altering = Session::open(&server, "shop");
    altering.say("ALTER TABLE large ADD COLUMN more integer;");
    until(&server, "count(*) > 0 FROM pg_locks WHERE relation = 'large'::regclass AND NOT granted");
    signal(&backup, Signal::CONT);
    until(&server, "count(*) = 1 FROM pg_attribute WHERE attrelid = 'large'::regclass AND attname = 'more'");
    let status = backup.wait().unwrap();
    // Either it had read everything before the second was over, or it gave way; both are right, a hang is not.
    assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    nobody_is_left(&server);
}

#[test]
fn a_role_without_rights_is_told_which_ones() {
    let server = shop(&[], "CREATE TABLE secret (id integer); CREATE TABLE open (id integer);");
    server.sql("postgres", "CREATE ROLE poor LOGIN");
    server.sql("shop", "GRANT SELECT ON open TO poor");
    let world = world(&server.url_of("poor", "shop"), "", "");
    let said = in_time(&mut world.command(&["backup"]));
    failed(&world, &said, 1, &["secret"]);
    assert!(said.stderr.contains("pg_read_all_data"), "{}", said.stderr);
    assert!(said.stderr.contains("GRANT SELECT ON \"public\".\"secret\" TO \"poor\""), "{}", said.stderr);
    let said = world.run(&["doctor"]);
    assert_ne!(said.code, Some(0));
    assert!(format!("{}{}", said.stdout, said.stderr).contains("pg_read_all_data"), "{}{}", said.stdout, said.stderr);
    // Large objects are in no such grant.
    server.sql("postgres", "GRANT pg_read_all_data TO poor");
    server.sql("shop", "SELECT lo_from_bytea(4711, 'private')");
    let said = in_time(&mut world.command(&["backup"]));
    failed(&world, &said, 1, &["large object 4711", "GRANT SELECT ON LARGE OBJECT"]);
    server.sql("shop", "GRANT SELECT ON LARGE OBJECT 4711 TO poor");
    world.backup();
}

#[test]
fn rows_that_a_policy_hides_are_never_left_out_in_silence() {
    let server = shop(
        &[],
        "CREATE TABLE rows (id integer, owner text); INSERT INTO rows VALUES (1, 'backup'), (2, 'other');
         ALTER TABLE rows ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON rows USING (owner = current_user);",
    );
    server.sql("postgres", "ALTER ROLE backup NOBYPASSRLS");
    let world = world(&server.url_of("backup", "shop"), "", "");
    let said = in_time(&mut world.command(&["backup"]));
    failed(&world, &said, 1, &["rows"]);
    let doctor = world.run(&["doctor"]);
    assert!(format!("{}{}", doctor.stdout, doctor.stderr).contains("BYPASSRLS"), "{}{}", doctor.stdout, doctor.stderr);
    server.sql("postgres", "ALTER ROLE backup BYPASSRLS");
    world.backup();
    let target = Server::start();
    restore(&world, &target.url("shop"), &["--globals"]);
    assert_eq!(target.sql("shop", "SELECT count(*) FROM rows").trim(), "2");
}

/// SQL_ASCII means that the server looks at no byte. Rows may hold any; a name is said in UTF-8, or not at all.
#[test]
fn bytes_that_are_no_text_are_drilled_and_a_name_of_them_is_said() {
    let server = Server::start();
    server.sql("postgres", "CREATE DATABASE shop TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'");
    let bytes = |sql: &[u8]| {
        let mut psql = server.psql("shop");
        let said = said(psql.arg("-c").arg(OsStr::from_bytes(sql)).env("PGCLIENTENCODING", "SQL_ASCII"));
        assert_eq!(said.code, Some(0), "{}", said.stderr);
    };
    bytes(b"CREATE TABLE t (a text PRIMARY KEY, b text DEFAULT 'd\xe9faut')");
    bytes(b"INSERT INTO t VALUES ('caf\xe9 \xff\xfe', '\xc3'), ('plain', 'caf\xc3\xa9')");
    bytes(b"CREATE VIEW seen AS SELECT a || '\xfc' AS a FROM t");
    let world = world(&server.url("shop"), "", "");
    world.backup();
    let drill = world.json(0, &["drill", "--identity", "identity.txt"]);
    assert_eq!(drill["drills"][0]["outcome"], "passed", "{drill}");
    bytes(b"CREATE TABLE \"\xff\" (a text)");
    let said = in_time(&mut world.command(&["backup"]));
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("cannot list the tables") && said.stderr.contains("rename it"), "{}", said.stderr);
}

const PASSWORD: &str = "hunter2:with\\colon and space";

/// A server that asks the role for a password, and a world that has one in a file.
fn behind_a_password(given: &str) -> (Server, World) {
    let server = shop(&[], "CREATE TABLE t AS SELECT generate_series(1, 10) AS id;");
    server.sql("postgres", &format!("ALTER ROLE backup PASSWORD '{PASSWORD}'"));
    server.admit("local all backup scram-sha-256\nlocal all all trust\n");
    let world = world(&server.url_of("backup", "shop"), "password = { file = \"password\" }", "");
    fs::write(world.path("password"), format!("{given}\n")).unwrap();
    fs::set_permissions(world.path("password"), fs::Permissions::from_mode(0o600)).unwrap();
    (server, world)
}

#[test]
fn a_password_is_used_and_never_shown() {
    let (server, world) = behind_a_password(PASSWORD);
    world.backup();
    let shown = world.expect(0, &["config", "show"]);
    assert!(!shown.stdout.contains("hunter2"), "{}", shown.stdout);
    let target = Server::start();
    restore(&world, &target.url("shop"), &["--globals"]);
    assert_eq!(target.sql("shop", "SELECT count(*) FROM t").trim(), "10");

    // Neither in a log of the system's calls: arguments and environment of every program that is started.
    let mut strace = Command::new("strace");
    strace.args(["-f", "-v", "-s", "65535", "-e", "trace=execve", "-o"]).arg(world.path("calls"));
    let traced = said(strace.arg(crate::support::PROGRAM).arg("backup").current_dir(world.path("")));
    assert_eq!(traced.code, Some(0), "{}", traced.stderr);
    let calls = fs::read_to_string(world.path("calls")).unwrap();
    assert!(calls.contains("pg_dump"), "nothing was traced: {calls}");
    assert!(!calls.contains("hunter2"), "the password is in argv or in the environment");
    drop(server);
}

#[test]
fn a_wrong_password_is_said_and_not_shown() {
    let (server, world) = behind_a_password("wrong-hunter3");
    for args in [&["backup"][..], &["doctor"], &["-v", "backup"]] {
        let said = in_time(&mut world.command(args));
        assert_ne!(said.code, Some(0), "{}", said.stdout);
        let all = format!("{}{}", said.stdout, said.stderr);
        assert!(!all.contains("hunter"), "{all}");
        assert!(all.contains("password") && all.contains("backup"), "{all}");
    }
    let said = in_time(&mut world.command(&["backup"]));
    failed(&world, &said, 1, &["password"]);
    nobody_is_left(&server);
}

#[test]
fn a_server_that_dies_in_mid_dump_fails_it() {
    let mut server = shop(&[], LARGE);
    let world = world(&server.url_of("backup", "shop"), "connections = 1", "");
    let backup = stopped_while_it_reads(&server, &world);
    server.kill();
    signal(&backup, Signal::CONT);
    let said = ended(backup);
    failed(&world, &said, 1, &["db"]);
    let status: Value = world.json(0, &["status"]);
    assert_ne!(status["jobs"][0]["state"], "ok", "{status}");

    // One that comes back within a few seconds is asked again.
    server.restart();
    let backup = stopped_while_it_reads(&server, &world);
    server.kill();
    server.restart();
    signal(&backup, Signal::CONT);
    let said = ended(backup);
    assert_eq!(said.code, Some(0), "{}\n{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("trying again"), "{}", said.stderr);
    let target = Server::start();
    restore(&world, &target.url("shop"), &["--globals"]);
    assert_eq!(target.sql("shop", "SELECT count(*), sum(id) FROM large").trim(), "100000|5000050000");
    world.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);
}

/// A row of the backup keeps the server busy for a minute; the server does not live so long.
#[test]
fn a_server_that_dies_during_a_restore_fails_it() {
    let source = shop(
        &[],
        "CREATE FUNCTION patient(id integer) RETURNS boolean LANGUAGE plpgsql AS $x$ BEGIN
             IF id = 7 AND current_setting('tests.slow', true) = 'on' THEN PERFORM pg_sleep(60); END IF; RETURN true;
         END $x$;
         CREATE TABLE other AS SELECT generate_series(1, 10) AS id;
         CREATE TABLE held_up (id integer CHECK (public.patient(id))); INSERT INTO held_up SELECT generate_series(1, 10);",
    );
    let world = world(&source.url("shop"), "", "");
    world.backup();
    let mut target = Server::start();
    target.sql("postgres", "ALTER ROLE postgres SET tests.slow = 'on'");
    let into = target.url("shop");
    let args = ["restore", "shop", "--source", "db", "--into", &into, "--globals", "--identity", "identity.txt"];
    let restoring = begin(&mut world.command(&args));
    let sleeps = "count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let end = Instant::now() + PATIENCE;
    while target.sql("postgres", &format!("SELECT {sleeps}")).trim() != "t" {
        assert!(Instant::now() < end, "it never came to the row");
    }
    target.kill();
    let said = ended(restoring);
    assert_eq!(said.code, Some(1), "{}\n{}", said.stdout, said.stderr);
    for text in ["public.held_up", "/shop", "hint: ", "--overwrite"] {
        assert!(said.stderr.contains(text), "{text} is not in {}", said.stderr);
    }
    // What it left is not taken for a database that was restored.
    target.restart();
    target.sql("postgres", "ALTER ROLE postgres RESET tests.slow");
    let said = world.expect(2, &args);
    assert!(said.stderr.contains("target-not-empty"), "{}", said.stderr);
    restore(&world, &into, &["--globals", "--overwrite"]);
    assert_eq!(target.sql("shop", "SELECT count(*), sum(id) FROM held_up").trim(), "10|55");
}

#[test]
fn a_server_that_is_not_there_is_said() {
    let mut server = shop(&[], "CREATE TABLE t (id integer);");
    let world = world(&server.url_of("backup", "shop"), "", "");
    server.kill();
    let said = in_time(&mut world.command(&["backup"]));
    failed(&world, &said, 1, &["shop"]);
}

/// Timeouts that an administrator set for everybody do not end a backup.
#[test]
fn the_servers_timeouts_do_not_end_it() {
    let server = shop(&[], LARGE);
    server.sql("postgres", "ALTER ROLE backup SET statement_timeout = '50ms'; ALTER ROLE backup SET idle_in_transaction_session_timeout = '50ms'");
    server.sql(
        "postgres",
        "ALTER ROLE backup SET lock_timeout = '50ms'; ALTER ROLE backup SET default_transaction_read_only = on",
    );
    let world = world(&server.url_of("backup", "shop"), "", "");
    world.backup();
    // The same for everybody, and into such a server.
    for setting in ["statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"] {
        server.sql("postgres", &format!("ALTER ROLE backup RESET {setting}"));
        server.sql("postgres", &format!("ALTER SYSTEM SET {setting} = '50ms'"));
    }
    server.sql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on");
    server.sql("postgres", "SELECT pg_reload_conf()");
    world.backup();
    restore(&world, &server.url("copy"), &[]);
    assert_eq!(server.sql("copy", "SET statement_timeout = 0; SELECT count(*) FROM large").trim(), "100000");
}

/// Settings of role and database that change how values are written change nothing in the backup.
#[test]
fn settings_of_the_session_leave_no_trace() {
    let server = shop(
        &[],
        "CREATE TABLE t (d date, i interval, b bytea, f float8, at timestamptz, m money);
         INSERT INTO t VALUES ('2026-02-01', '1 day -02:03', '\\x00ff', 0.1::float8 + 0.2, '2026-01-01 00:00:00.123456+00', 12.5);",
    );
    let world = world(&server.url_of("backup", "shop"), "", "");
    world.backup();
    for (name, value) in [
        ("datestyle", "'SQL, DMY'"),
        ("intervalstyle", "iso_8601"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "-15"),
        ("timezone", "'America/St_Johns'"),
        ("search_path", "'nowhere'"),
        ("client_encoding", "latin1"),
    ] {
        server.sql("postgres", &format!("ALTER ROLE backup SET {name} = {value}"));
    }
    let again = world.json(0, &["backup"]);
    let facts = |document: &Value| document["runs"][0]["outcome"].clone();
    assert_eq!(facts(&again), "success", "{again}");
    let target = Server::start();
    restore(&world, &target.url("shop"), &["--globals"]);
    let rows = "SET timezone = 'UTC'; SELECT * FROM t";
    assert_eq!(target.sql("shop", rows), server.sql("shop", rows));
}
