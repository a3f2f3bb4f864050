//! A standby is a source like any other: what it has is as old as what it replayed last, and it may cancel who reads
//! for long.

use rustix::process::Signal;

use super::living::{LARGE, ended, shop, signal, stopped_while_it_reads, until};
use super::{Server, restore, world};
use crate::support::World;

/// Waits until the standby has all that the primary has.
#[track_caller]
fn caught_up(primary: &Server, standby: &Server) {
    let end = primary.sql("shop", "SELECT pg_current_wal_flush_lsn()");
    until(standby, &format!("pg_last_wal_replay_lsn() >= '{}'", end.trim()));
}

/// In microseconds since 1970.
fn micros(server: &Server, what: &str) -> i64 {
    server.sql("shop", &format!("SELECT (extract(epoch FROM {what}) * 1000000)::bigint")).trim().parse().unwrap()
}

/// Backs up, and gives the recovery point.
#[track_caller]
fn recovery_point(world: &World) -> i64 {
    let document = world.json(0, &["backup"]);
    let text =
        document["runs"][0]["backup"]["sources"][0]["recovery_point"].as_str().unwrap_or_else(|| panic!("{document}"));
    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

#[test]
fn a_standby_is_as_old_as_what_it_replayed_and_may_cancel_a_long_read() {
    // By itself the primary commits nothing.
    let primary = shop(&["autovacuum=off"], LARGE);
    primary.sql("shop", "CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS id; CREATE TABLE t (id serial)");
    let standby = Server::standby_of(&primary, &["max_standby_streaming_delay=0", "hot_standby_feedback=off"]);
    caught_up(&primary, &standby);
    let world = world(&standby.url_of("backup", "shop"), "connections = 1", "");

    // It was started and has seen no transaction since: it is not younger than what it was made from.
    let now = micros(&standby, "clock_timestamp()");
    assert!(recovery_point(&world) < now);

    primary.sql("shop", "INSERT INTO t SELECT FROM generate_series(1, 10)");
    caught_up(&primary, &standby);
    let replayed = micros(&standby, "pg_last_xact_replay_timestamp()");
    let point = recovery_point(&world);
    assert_eq!(point, replayed);
    let target = Server::start();
    restore(&world, &target.url("shop"), &["--globals"]);
    let looks = "SELECT (SELECT count(*) FROM large), (SELECT count(*) FROM t), (SELECT count(*) FROM fleeting)";
    // What is unlogged, a standby does not have.
    assert_eq!(target.sql("shop", looks).trim(), "100000|10|0");

    let doctor = world.run(&["doctor"]);
    let said = format!("{}{}", doctor.stdout, doctor.stderr);
    assert!(said.contains("standby") && said.contains("hot_standby_feedback"), "{said}");

    // The primary takes away what is being read.
    let backup = stopped_while_it_reads(&standby, &world);
    primary.sql("shop", "DELETE FROM large WHERE id % 2 = 0");
    primary.sql("shop", "VACUUM large");
    let end = primary.sql("shop", "SELECT pg_current_wal_flush_lsn()");
    until(&standby, &format!("pg_last_wal_receive_lsn() >= '{}'", end.trim()));
    signal(&backup, Signal::CONT);
    let said = ended(backup);
    // It was cancelled, says of what that may be, and was read in another snapshot.
    assert_eq!(said.code, Some(0), "{}\n{}", said.stdout, said.stderr);
    for text in ["public.large", "hot_standby_feedback", "trying again"] {
        assert!(said.stderr.contains(text), "{text} is not in {}", said.stderr);
    }
    restore(&world, &target.url("halved"), &[]);
    assert_eq!(target.sql("halved", "SELECT count(*) FROM large").trim(), "50000");
}
