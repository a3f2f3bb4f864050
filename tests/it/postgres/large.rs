//! Memory stays within bounds whatever a table holds: the bound is that of one row.

use std::fs;
use std::process::Command;

use super::{Server, restore, world};
use crate::support::{PROGRAM, World, said};

/// Of the largest value here. As text it has twice as many bytes, and a few more.
const VALUE_BYTES: u64 = 300_000_000;
/// Memory that does not depend on rows, in MiB.
const GROUND_MIB: f64 = 300.0;
/// How many times a row may lie in memory.
const TIMES_A_ROW: f64 = 2.2;

/// Runs the program in a world, demands that it works, and gives the largest memory that it had, in MiB.
#[track_caller]
fn peak_mib(world: &World, args: &[&str]) -> f64 {
    let mut command = Command::new("time");
    command.args(["-f", "%M", "-o"]).arg(world.path("peak")).arg(PROGRAM).args(args).current_dir(world.path(""));
    let said = said(&mut command);
    assert_eq!(said.code, Some(0), "{}\n{}", said.stdout, said.stderr);
    fs::read_to_string(world.path("peak")).unwrap().trim().parse::<f64>().unwrap() / 1024.0
}

#[test]
fn a_row_of_300_megabytes_comes_back_within_bounds() {
    let source = Server::start();
    source.sql("postgres", "CREATE DATABASE shop");
    source.sql(
        "shop",
        "CREATE TABLE files (id integer PRIMARY KEY, body bytea);
         ALTER TABLE files ALTER COLUMN body SET STORAGE EXTERNAL;
         INSERT INTO files VALUES (1, 'small');",
    );
    // The same few bytes over and over would be a few bytes in the vault; these are another megabyte each time.
    source.sql(
        "shop",
        &format!(
            "INSERT INTO files SELECT 2, decode(string_agg(repeat(md5(i::text), 1000), ''), 'hex') FROM generate_series(1, {}) AS i",
            VALUE_BYTES / 16_000
        ),
    );
    let length = "SELECT length(body), md5(body) FROM files WHERE id = 2";
    let was = source.sql("shop", length);
    assert!(was.starts_with(&VALUE_BYTES.to_string()), "{was}");
    let world = world(&source.url("shop"), "", "");
    // Text has two digits a byte.
    let row_mib = 2.0 * VALUE_BYTES as f64 / 1_048_576.0;
    let bound = GROUND_MIB + TIMES_A_ROW * row_mib;
    let backup = peak_mib(&world, &["backup"]);
    assert!(backup <= bound, "the backup took {backup:.0} MiB, more than {bound:.0}");
    let target = Server::start();
    let into = target.url("shop");
    let args = ["restore", "shop", "--source", "db", "--into", &into, "--identity", "identity.txt"];
    let restoring = peak_mib(&world, &args);
    assert!(restoring <= bound, "the restore took {restoring:.0} MiB, more than {bound:.0}");
    assert_eq!(target.sql("shop", length), was);
}

/// 600 MB have no text form: a field of COPY is at most 1 GB. Such a table goes by binary COPY.
#[test]
fn a_row_that_text_cannot_carry_goes_by_binary_copy() {
    let source = Server::start();
    source.sql("postgres", "CREATE DATABASE shop");
    source.sql(
        "shop",
        "CREATE TABLE files (id integer, body bytea); ALTER TABLE files ALTER COLUMN body SET STORAGE EXTERNAL;
         INSERT INTO files VALUES (1, convert_to(repeat('0123456789', 60000000), 'UTF8')), (2, NULL);",
    );
    let world = world(&source.url("shop"), "", "");
    world.backup();
    let target = Server::start();
    restore(&world, &target.url("shop"), &[]);
    let rows = "SELECT id, length(body), md5(body) FROM files ORDER BY id";
    assert_eq!(target.sql("shop", rows), source.sql("shop", rows));
}

/// The server of every drill logs nothing but what it must. There, a large table goes in by one connection, in the
/// transaction that emptied it, until another connection has nothing to do.
#[test]
fn large_tables_are_not_logged_where_the_server_need_not() {
    let source = Server::start();
    source.sql("postgres", "CREATE DATABASE shop");
    source.sql(
        "shop",
        "CREATE TABLE notes (id serial PRIMARY KEY, body text NOT NULL);
         CREATE TABLE \"Letters\" (id integer PRIMARY KEY, body text NOT NULL, bytes integer GENERATED ALWAYS AS (length(body)) STORED);
         CREATE TABLE stamps (id integer PRIMARY KEY REFERENCES \"Letters\", body text);
         INSERT INTO notes (body) SELECT repeat(md5(i::text), 12) FROM generate_series(1, 120000) AS i;
         INSERT INTO \"Letters\" SELECT i, repeat(md5((-i)::text), 12) FROM generate_series(1, 35000) AS i;
         INSERT INTO stamps SELECT i, 'small' FROM generate_series(1, 100) AS i;",
    );
    let rows = "SELECT sum(hashtextextended(notes::text, 0)), count(*) FROM notes UNION ALL
                SELECT sum(hashtextextended(l::text, 0)), count(*) FROM \"Letters\" AS l UNION ALL
                SELECT sum(hashtextextended(stamps::text, 0)), count(*) FROM stamps ORDER BY 2";
    let was = source.sql("shop", rows);
    let world = world(&source.url("shop"), "", "");
    world.backup();
    let logged_mib = |settings: &[&str], jobs: &str| -> f64 {
        let target = Server::with(settings);
        let position =
            || target.sql("postgres", "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint / 1048576.0");
        let before: f64 = position().trim().parse().unwrap();
        restore(&world, &target.url("shop"), &["--jobs", jobs]);
        let after: f64 = position().trim().parse().unwrap();
        assert_eq!(target.sql("shop", rows), was);
        after - before
    };
    let little = ["wal_level=minimal", "max_wal_senders=0"];
    let all = logged_mib(&["wal_level=replica"], "2");
    assert!(all > 58.0, "{all}");
    // One connection has nobody to wait for; what is left is the new database itself. Of two, one stops when the other has
    // no table of its own left, and the end of the larger one is logged.
    let (by_one, by_two) = (logged_mib(&little, "1"), logged_mib(&little, "2"));
    assert!(by_one < all / 4.0, "{by_one} of {all}");
    assert!(by_two < all - 20.0, "{by_two} of {all}");
}
