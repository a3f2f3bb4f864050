//! Real databases, with writers at work and rows deleted, through the whole seam and back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _};

use super::verify::verify;
use super::*;
use crate::clock::ManualClock;
use crate::domain::check::Check;
use crate::domain::contents::{Facts, Member, Note, SqliteFacts};
use crate::sources::{Body, Cut, Sink, tar};

const MARKER: &str = "MARKER-9f3c-of-a-row-that-was-deleted";

/// Collects segments, cut as the sealing side does.
#[derive(Default)]
struct Segments {
    done: Vec<Vec<u8>>,
    open: Vec<u8>,
    every: Option<usize>,
}

impl Write for Segments {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.every.map_or(usize::MAX, |every| every - self.open.len());
        let taken = bytes.len().min(room);
        self.open.extend_from_slice(&bytes[..taken]);
        if taken == room {
            self.boundary()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Segments {
    fn boundary(&mut self) -> io::Result<()> {
        if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open));
        }
        Ok(())
    }
}

struct Copy {
    segments: Vec<Vec<u8>>,
    member: Member,
    notes: Vec<Note>,
    facts: SqliteFacts,
    recovery_point: DateTime<Utc>,
}

impl Copy {
    /// The database file that the tar holds.
    fn database(&self) -> Vec<u8> {
        let whole = self.segments.concat();
        let header = tar::header(&self.member, None).len();
        whole[header..header + self.member.size_bytes as usize].to_vec()
    }

    /// Puts it back and compares it with its facts.
    fn restored(&self, house: &House) -> (PathBuf, Vec<Check>) {
        let path = house.folder.path().join("restored.db");
        std::fs::write(&path, self.database()).unwrap();
        let checks = verify(&path, &self.facts).unwrap();
        let beside: Vec<_> = ["-wal", "-shm", "-journal"]
            .iter()
            .filter(|end| house.folder.path().join(format!("restored.db{end}")).exists())
            .collect();
        assert!(beside.is_empty(), "verifying left {beside:?} beside the file");
        assert_eq!(std::fs::read(&path).unwrap(), self.database(), "verifying changed the file");
        (path, checks)
    }

    fn assert_passes(&self, house: &House) {
        for check in self.restored(house).1 {
            assert!(check.passed, "{check:?}");
        }
    }
}

/// A folder with a runtime and a database.
struct House {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    path: PathBuf,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { folder, runtime, path }
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new().filename(&self.path).create_if_missing(true).disable_statement_logging()
    }

    fn connect(&self) -> Db<'_> {
        Db { house: self, inner: self.runtime.block_on(self.options().connect()).unwrap() }
    }

    fn open(&self) -> Result<Copy, SourceError> {
        self.open_at(&self.path)
    }

    fn open_at(&self, path: &Path) -> Result<Copy, SourceError> {
        let clock = Arc::new(ManualClock::at("2026-11-22T02:00:00Z".parse().unwrap()));
        let source = SqliteSource::new(path.to_owned(), clock);
        let mut snapshot = source.open(None)?;
        let recovery_point = snapshot.recovery_point();
        let (mut segments, mut members, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(piece) = snapshot.next_piece()? {
            let every = match piece.cut {
                Cut::Every(bytes) => Some(bytes as usize),
                Cut::Never => None,
                Cut::Content => panic!("pages are not cut by content"),
            };
            let Body::Open(open) = piece.body else { panic!("nothing is remembered") };
            let mut sink = Segments { every, ..Segments::default() };
            let written = open.write(&mut sink)?;
            sink.boundary().unwrap();
            segments.extend(sink.done);
            members.extend(written.members);
            notes.extend(written.notes);
        }
        let Some(Facts::Sqlite(facts)) = snapshot.finish()?.facts else { panic!("facts of another kind") };
        assert_eq!(members.len(), 1);
        let copy = Copy { segments, member: members.remove(0), notes, facts, recovery_point };
        assert_eq!(copy.segments.concat().len() % 512, 0);
        assert_eq!(copy.segments[0], tar::header(&copy.member, None), "the header is a segment of its own");
        assert_eq!(copy.member.blake3.unwrap().0, *blake3::hash(&copy.database()).as_bytes());
        Ok(copy)
    }

    /// All bytes of the database and its WAL as they lie there.
    fn raw(&self) -> Vec<u8> {
        let mut raw = std::fs::read(&self.path).unwrap();
        raw.extend(std::fs::read(format!("{}-wal", self.path.display())).unwrap_or_default());
        raw
    }
}

struct Db<'h> {
    house: &'h House,
    inner: SqliteConnection,
}

impl Db<'_> {
    fn run(&mut self, sql: &str) {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        self.house.runtime.block_on(query.execute(&mut self.inner)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn number(&mut self, sql: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        self.house.runtime.block_on(query.fetch_one(&mut self.inner)).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Deleted bytes must stay where they are, else the tests below would show nothing.
    fn without_secure_delete(&mut self) {
        self.run("PRAGMA secure_delete = OFF");
        assert_eq!(
            self.number("PRAGMA secure_delete"),
            0,
            "this SQLite erases what it deletes: the test cannot show it"
        );
    }

    fn close(self) {
        self.house.runtime.block_on(self.inner.close()).unwrap();
    }
}

fn holds(haystack: &[u8], needle: &str) -> bool {
    let first = needle.as_bytes()[0];
    haystack.iter().enumerate().any(|(at, byte)| *byte == first && haystack[at..].starts_with(needle.as_bytes()))
}

/// Numbers from 1 to `n`, for filling tables.
fn series(n: u32) -> String {
    format!("WITH RECURSIVE s(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM s WHERE i < {n}) ")
}

/// Builds, checks that the marker lies in the live file, backs up, checks that it is nowhere in the stream and that the
/// copy is sound.
fn assert_erased(name: &str, statements: &[&str], setup: &str) {
    for pragmas in ["PRAGMA journal_mode = DELETE;", "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;"] {
        let house = House::new();
        let mut db = house.connect();
        db.run(setup);
        db.run(pragmas);
        db.without_secure_delete();
        for statement in statements {
            db.run(&statement.replace("MARKER", MARKER));
        }
        db.close();
        assert!(holds(&house.raw(), MARKER), "{name}: the marker must lie in the live file, else this shows nothing");
        let copy = house.open().unwrap();
        assert!(!holds(&copy.segments.concat(), MARKER), "{name}, {pragmas}: a deleted row's bytes are in the backup");
        assert!(copy.notes.is_empty(), "{:?}", copy.notes);
        copy.assert_passes(&house);
    }
}

#[test]
fn what_was_deleted_does_not_come_along() {
    let fill = format!("{} INSERT INTO t SELECT i, printf('row %d', i) FROM s", series(500));
    let rows = "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)";
    let insert = "INSERT INTO t VALUES (1000, 'a MARKER zzzzzzzzzzzzzzzzzzzz')";
    let large = "INSERT INTO t VALUES (1000, 'a' || replace(hex(zeroblob(9000)), '00', 'MARKER '))";
    let delete = "DELETE FROM t WHERE id = 1000";
    let refill = "INSERT INTO t VALUES (2000, 'kept')";
    assert_erased("a small row", &[rows, insert, delete], "");
    assert_erased("a small row among others", &[rows, &fill, insert, "INSERT INTO t VALUES (1001, 'x')", delete], "");
    assert_erased("a large row", &[rows, &fill, large, delete], "");
    assert_erased("a large row, its pages used again in part", &[rows, large, delete, &fill], "");
    assert_erased("a row that shrank", &[rows, insert, "UPDATE t SET body = 'a' WHERE id = 1000"], "");
    assert_erased(
        "a row that gave way to a slightly smaller one",
        &[
            rows,
            "INSERT INTO t VALUES (1000, 'MARKER zzzzzzzzzz')",
            "INSERT INTO t VALUES (1001, 'x')",
            delete,
            "INSERT INTO t VALUES (1000, 'yy')",
        ],
        "",
    );
    assert_erased(
        "a large row that shrank: the tail of an overflow page",
        &[rows, large, "UPDATE t SET body = replace(hex(zeroblob(10000)), '00', 'b') WHERE id = 1000"],
        "",
    );
    assert_erased("all rows", &[rows, &fill, insert, "DELETE FROM t"], "");
    assert_erased(
        "a dropped table",
        &[rows, &fill, insert, large.replace("1000", "1001").as_str(), "DROP TABLE t"],
        "",
    );
    assert_erased(
        "a dropped table's name",
        &["CREATE TABLE u (x)", "CREATE TABLE \"MARKER\" (x)", "DROP TABLE \"MARKER\""],
        "",
    );
    assert_erased(
        "a table WITHOUT ROWID",
        &[
            "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT) WITHOUT ROWID",
            &fill,
            insert,
            large.replace("1000", "1001").as_str(),
            "DELETE FROM t WHERE id >= 1000",
        ],
        "",
    );
    assert_erased("an index", &[rows, "CREATE INDEX by_body ON t (body)", &fill, insert, delete, refill], "");
    assert_erased(
        "small pages",
        &[rows, &fill, insert, large.replace("1000", "1001").as_str(), "DELETE FROM t WHERE id > 400", refill],
        "PRAGMA page_size = 512",
    );
    assert_erased(
        "large pages",
        &[rows, &fill, insert, large.replace("1000", "1001").as_str(), "DELETE FROM t WHERE id > 400", refill],
        "PRAGMA page_size = 65536",
    );
}

/// Rows come, change, shrink and go at random; each value has a token of its own. What is in the tables is in the
/// stream, and no token of a value that was deleted or replaced is.
#[test]
fn at_random_only_living_values_come_along() {
    for seed in 1..=12_u64 {
        let house = House::new();
        let mut db = house.connect();
        db.without_secure_delete();
        let size = [512, 1024, 4096][seed as usize % 3];
        let vacuum = ["NONE", "INCREMENTAL", "FULL"][seed as usize / 3 % 3];
        db.run(&format!(
            "PRAGMA page_size = {size}; PRAGMA auto_vacuum = {vacuum};
             CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX a_v ON a (v);
             CREATE TABLE b (id TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID;
             CREATE TABLE c (v TEXT)"
        ));
        // SplitMix64: a seed gives the same story each time.
        let mut state = seed;
        let mut random = |below: u64| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) % below
        };
        let token = |n: usize| format!("<{n:06}>");
        let mut living = BTreeMap::new();
        let steps = 1500;
        let mut script = String::from("BEGIN;");
        for step in 0..steps {
            let table = ["a", "b", "c"][random(3) as usize];
            let id = random(150);
            let repeats = [1, 1, 2, 3, 20, 90, 600][random(7) as usize] + random(4);
            let value = token(step).repeat(repeats as usize);
            let key = if table == "c" { "rowid" } else { "id" };
            if random(5) < 2 {
                script += &format!("DELETE FROM {table} WHERE {key} = {id};");
                living.remove(&(table, id));
            } else {
                script += &format!("INSERT OR REPLACE INTO {table} ({key}, v) VALUES ({id}, '{value}');");
                living.insert((table, id), step);
            }
        }
        db.run(&(script + "COMMIT"));
        let copy = house.open().unwrap();
        copy.assert_passes(&house);
        let expected: BTreeSet<usize> = living.into_values().collect();
        assert_eq!(tokens(&copy.segments.concat()), expected, "seed {seed}");
        assert!(
            tokens(&house.raw()).len() > expected.len(),
            "seed {seed}: nothing was left over, so this shows nothing"
        );
    }
}

fn tokens(bytes: &[u8]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'<') {
        let digits = bytes.get(at + 1..at + 7).filter(|_| bytes.get(at + 7) == Some(&b'>'));
        found.extend(digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok()));
    }
    found
}

#[test]
fn every_shape_of_database_makes_the_round_trip() {
    let shop = format!(
        "CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, credit REAL, photo BLOB);
         CREATE TABLE \"odd \"\" name\" (rowid TEXT, oid, _rowid_, \"select\" DEFAULT 7);
         CREATE TABLE keyed (a TEXT, b INTEGER, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
         CREATE TABLE made (a INTEGER, twice INTEGER AS (a * 2) STORED, thrice AS (a * 3), checked INTEGER CHECK (checked > 0));
         CREATE VIRTUAL TABLE words USING fts5(body);
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1);
         CREATE VIEW v AS SELECT name FROM users;
         CREATE INDEX by_lower ON users (lower(name)) WHERE credit > 10;
         {series} INSERT INTO users SELECT i, 'user ' || i, i / 3.0, randomblob(i * 7 % 9000) FROM s;
         {series} INSERT INTO \"odd \"\" name\" SELECT i, i % 3, NULL, CASE i % 5 WHEN 0 THEN i WHEN 1 THEN i / 7.0 WHEN 2 THEN 'text' WHEN 3 THEN CAST(x'fffe00ff' AS TEXT) ELSE x'00ff' END FROM s;
         {series} INSERT INTO keyed SELECT hex(randomblob(i % 700)), i % 13, i FROM s;
         {series} INSERT INTO made (a, checked) SELECT i, i FROM s;
         {series} INSERT INTO words SELECT 'the quick brown fox ' || i FROM s;
         {series} INSERT INTO boxes SELECT i, i, i + 1, -i, i FROM s;
         DELETE FROM users WHERE id % 3 = 0; DELETE FROM keyed WHERE c % 4 = 0; DELETE FROM words WHERE rowid % 2;
         UPDATE users SET photo = randomblob(20) WHERE id % 5 = 0;
         PRAGMA user_version = 42; ANALYZE;",
        series = series(300)
    );
    for size in [512, 1024, 4096, 8192, 65_536] {
        for (vacuum, encoding, journal) in
            [("NONE", "UTF-8", "DELETE"), ("FULL", "UTF-16le", "WAL"), ("INCREMENTAL", "UTF-16be", "TRUNCATE")]
        {
            let house = House::new();
            let mut db = house.connect();
            db.run(&format!(
                "PRAGMA page_size = {size}; PRAGMA encoding = '{encoding}'; PRAGMA auto_vacuum = {vacuum}; PRAGMA journal_mode = {journal};"
            ));
            db.without_secure_delete();
            db.run(&shop);
            let copy = house.open().unwrap();
            let what = format!("{size} {vacuum} {encoding} {journal}");
            assert_eq!(copy.facts.user_version, 42, "{what}");
            assert_eq!(i64::from(copy.facts.page_bytes), size, "{what}");
            let names: Vec<&str> = copy.facts.tables.iter().map(|table| table.name.as_str()).collect();
            for name in
                ["users", "odd \" name", "keyed", "made", "sqlite_sequence", "sqlite_stat1", "words_data", "boxes_node"]
            {
                assert!(names.contains(&name), "{what}: {names:?}");
            }
            assert!(!names.contains(&"words") && !names.contains(&"v"), "{what}: {names:?}");
            assert_eq!(copy.facts.tables[names.iter().position(|name| *name == "users").unwrap()].rows, 200, "{what}");
            assert!(copy.notes.is_empty(), "{what}: {:?}", copy.notes);
            copy.assert_passes(&house);
            // What SQLite itself would copy has the same facts.
            db.run(&format!("VACUUM INTO '{}'", house.folder.path().join("vacuumed.db").display()));
            let vacuumed = house.open_at(&house.folder.path().join("vacuumed.db")).unwrap();
            assert_eq!(vacuumed.facts.schema, copy.facts.schema, "{what}");
            for (ours, theirs) in copy.facts.tables.iter().zip(&vacuumed.facts.tables) {
                // VACUUM may give new rowids where no column keeps them; rows stay.
                assert_eq!((&ours.name, ours.rows), (&theirs.name, theirs.rows), "{what}");
            }
        }
    }
}

#[test]
fn the_stream_is_a_tar_of_the_database_file() {
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let house = House::new();
    shop(&house).close();
    std::fs::set_permissions(&house.path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let stat = std::fs::metadata(&house.path).unwrap();
    let copy = house.open().unwrap();
    let stream = copy.segments.concat();
    assert!(stream.ends_with(&tar::END));
    let mut archive = ::tar::Archive::new(stream.as_slice());
    let mut entries = archive.entries().unwrap();
    let mut entry = entries.next().unwrap().unwrap();
    assert_eq!(entry.path_bytes().as_ref(), b"shop.db");
    assert_eq!(entry.header().mode().unwrap(), 0o640);
    assert_eq!((copy.member.mtime_seconds, i64::from(copy.member.mtime_nanos)), (stat.mtime(), stat.mtime_nsec()));
    assert_eq!((copy.member.uid, copy.member.gid), (stat.uid(), stat.gid()));
    let mut content = Vec::new();
    entry.read_to_end(&mut content).unwrap();
    assert!(content == copy.database());
    assert!(entries.next().is_none());
}

#[test]
fn small_and_empty_databases() {
    let house = House::new();
    std::fs::write(&house.path, b"").unwrap();
    let empty = house.open().unwrap();
    assert_eq!((empty.member.size_bytes, empty.facts.pages, empty.facts.tables.len()), (0, 0, 0));
    assert_eq!(empty.segments.len(), 2, "the header, and the end");
    empty.assert_passes(&house);

    let mut db = house.connect();
    db.run("PRAGMA user_version = 1");
    let one = house.open().unwrap();
    assert_eq!((one.facts.pages, one.member.size_bytes), (1, 4096));
    assert_eq!(one.recovery_point.to_rfc3339(), "2026-11-22T02:00:00+00:00");
    one.assert_passes(&house);
}

#[test]
fn a_writer_at_work_is_neither_seen_nor_stopped_in_wal_mode() {
    with_a_writer_at_work("WAL");
}

#[test]
fn a_writer_at_work_only_waits_in_rollback_mode() {
    with_a_writer_at_work("DELETE");
}

/// A bank whose transfers keep the sum of its accounts, in every copy.
fn with_a_writer_at_work(journal: &str) {
    let house = House::new();
    let mut db = house.connect();
    db.run(&format!(
        "PRAGMA journal_mode = {journal}; PRAGMA wal_autocheckpoint = 50;
         CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
         CREATE TABLE transfers (source INTEGER, target INTEGER, amount INTEGER, remark TEXT);
         {} INSERT INTO accounts SELECT i, 1000 FROM s",
        series(100)
    ));
    db.close();
    let (stop, transfers) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writer = house.connect();
            writer.run("PRAGMA busy_timeout = 60000; PRAGMA wal_autocheckpoint = 50");
            let mut n = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                n += 1;
                let (from, to) = (n * 7 % 100 + 1, n * 13 % 100 + 1);
                writer.run(&format!(
                    "BEGIN IMMEDIATE; UPDATE accounts SET balance = balance - 5 WHERE id = {from};
                     UPDATE accounts SET balance = balance + 5 WHERE id = {to};
                     INSERT INTO transfers VALUES ({from}, {to}, 5, hex(randomblob({}))); COMMIT;",
                    n % 3000
                ));
                transfers.store(n, Ordering::SeqCst);
            }
        });
        for _ in 0..8 {
            let before = transfers.load(Ordering::SeqCst);
            let copy = house.open().unwrap();
            let (restored, checks) = copy.restored(&house);
            assert!(checks.iter().all(|check| check.passed), "{checks:?}");
            let options = SqliteConnectOptions::new().filename(&restored).immutable(true).read_only(true);
            let mut inner = Db { house: &house, inner: house.runtime.block_on(options.connect()).unwrap() };
            assert_eq!(inner.number("SELECT sum(balance) FROM accounts"), 100_000);
            let copied = inner.number("SELECT count(*) FROM transfers");
            assert!(copied >= before as i64, "what was committed before the backup must be in it");
            inner.close();
            // The writer must have got on since, or this shows nothing.
            while transfers.load(Ordering::SeqCst) <= before + 5 && !writer.is_finished() {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_snapshot_stays_what_it_was_when_it_was_opened() {
    let house = House::new();
    let mut db = house.connect();
    db.run("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)");
    let clock = Arc::new(ManualClock::at(Utc::now()));
    let source = SqliteSource::new(house.path.clone(), clock);
    let mut snapshot = source.open(None).unwrap();
    db.run("INSERT INTO t VALUES (2); CREATE TABLE later (y)");
    while let Some(piece) = snapshot.next_piece().unwrap() {
        let Body::Open(open) = piece.body else { panic!("nothing is remembered") };
        open.write(&mut Segments::default()).unwrap();
        db.run("INSERT INTO t VALUES (3)");
    }
    let Some(Facts::Sqlite(facts)) = snapshot.finish().unwrap().facts else { panic!("facts of another kind") };
    assert_eq!(facts.tables.iter().map(|table| (table.name.as_str(), table.rows)).collect::<Vec<_>>(), [("t", 1)]);
}

#[test]
fn a_wal_without_its_shm_is_read_and_left_alone() {
    let house = House::new();
    let mut db = house.connect();
    db.run("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x); INSERT INTO t VALUES ('only in the wal')");
    // As a crash leaves it: database and WAL, no shared memory.
    let other = house.folder.path().join("crashed.db");
    let wal = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    std::fs::copy(wal(&house.path), wal(&other)).unwrap();
    db.run("BEGIN");
    std::fs::copy(&house.path, &other).unwrap();
    let before = (std::fs::read(&other).unwrap(), std::fs::read(wal(&other)).unwrap());
    let copy = house.open_at(&other).unwrap();
    assert!(holds(&copy.database(), "only in the wal"));
    copy.assert_passes(&house);
    let after = (std::fs::read(&other).unwrap(), std::fs::read(wal(&other)).unwrap());
    assert!(before == after, "the backup changed the database or its WAL");
}

#[test]
fn what_cannot_be_backed_up_is_refused_with_a_hint() {
    use crate::error::Error;
    let house = House::new();
    let refusal = |path: &Path| -> Error { Error::from(house.open_at(path).err().expect("must be refused")) };
    let at = |name: &str| house.folder.path().join(name);

    assert!(refusal(&at("nowhere.db")).to_string().contains("does not exist"));
    assert!(!at("nowhere.db").exists(), "nothing is created");
    assert!(refusal(house.folder.path()).to_string().contains("not a regular file"));
    house.connect().run("CREATE TABLE t (x)");
    std::os::unix::fs::symlink(&house.path, at("link.db")).unwrap();
    assert!(refusal(&at("link.db")).to_string().contains("a symbolic link to"));
    std::fs::write(at("text.db"), "not a database at all, only text".repeat(99)).unwrap();
    let error = refusal(&at("text.db"));
    assert!(error.to_string().contains("not a SQLite database"), "{error}");
    assert!(error.hint().is_some());

    // A folder in the place of the -wal: the same refusal as a folder that cannot be written to.
    let mut db = house.connect();
    db.run("PRAGMA journal_mode = WAL");
    db.close();
    std::fs::create_dir(at("shop.db-wal")).unwrap();
    let error = refusal(&house.path);
    assert!(error.to_string().contains("-wal and -shm"), "{error}");
    assert!(error.hint().unwrap().contains("write to its folder"), "{error}");
}

#[test]
fn a_hot_journal_is_not_rolled_back() {
    let house = House::new();
    let mut db = house.connect();
    db.run("PRAGMA cache_size = 5; CREATE TABLE t (x)");
    db.run(&format!("{} INSERT INTO t SELECT randomblob(900) FROM s", series(500)));
    db.run("BEGIN; UPDATE t SET x = randomblob(901)");
    let crashed = house.folder.path().join("crashed.db");
    std::fs::copy(format!("{}-journal", house.path.display()), format!("{}-journal", crashed.display())).unwrap();
    std::fs::copy(&house.path, &crashed).unwrap();
    let before = std::fs::read(&crashed).unwrap();
    let error = crate::error::Error::from(house.open_at(&crashed).err().unwrap());
    assert!(error.to_string().contains("left a journal"), "{error}");
    assert!(error.hint().unwrap().contains("sqlite3 "), "{error}");
    assert!(before == std::fs::read(&crashed).unwrap());
}

#[test]
fn damage_is_named_by_page() {
    let house = House::new();
    let mut db = house.connect();
    db.run("CREATE TABLE t (x)");
    db.run(&format!("{} INSERT INTO t SELECT randomblob(900) FROM s", series(500)));
    db.close();
    let mut bytes = std::fs::read(&house.path).unwrap();
    bytes[4096 * 20] = 99;
    std::fs::write(&house.path, &bytes).unwrap();
    let error = crate::error::Error::from(house.open().err().unwrap());
    assert!(error.to_string().contains("page 21 "), "{error}");
    assert!(error.hint().unwrap().contains("integrity_check"), "{error}");
}

#[test]
fn pages_that_belong_to_nothing_are_zeroed_and_noted() {
    let house = House::new();
    let mut db = house.connect();
    db.without_secure_delete();
    db.run(&format!(
        "CREATE TABLE t (x); INSERT INTO t VALUES ('a {MARKER}'); INSERT INTO t VALUES (zeroblob(20000)); DROP TABLE t"
    ));
    db.close();
    let mut bytes = std::fs::read(&house.path).unwrap();
    // Forget the freelist.
    bytes[32..40].fill(0);
    std::fs::write(&house.path, &bytes).unwrap();
    assert!(holds(&bytes, MARKER));
    let copy = house.open().unwrap();
    assert!(!holds(&copy.database(), MARKER));
    assert_eq!(copy.notes.len(), 1);
    assert!(copy.notes[0].detail.contains("pages belong to no table"), "{:?}", copy.notes);
}

fn shop(house: &House) -> Db<'_> {
    let mut db = house.connect();
    db.run(
        "CREATE TABLE goods (id INTEGER PRIMARY KEY, name TEXT, price INTEGER); CREATE INDEX by_name ON goods (name);
            CREATE TABLE notes (body TEXT)",
    );
    db.run(&format!("{} INSERT INTO goods SELECT i, 'thing ' || i, i FROM s", series(30_000)));
    db.run(&format!("{} INSERT INTO notes SELECT hex(randomblob(400)) FROM s", series(2000)));
    db
}

#[test]
fn a_sabotaged_copy_is_found_out() {
    let house = House::new();
    shop(&house).close();
    let copy = house.open().unwrap();
    copy.assert_passes(&house);
    let sabotage: &[(&str, &[&str])] = &[
        ("UPDATE goods SET price = price + 1 WHERE id = 777", &["table goods"]),
        ("UPDATE goods SET price = price || 'x' WHERE id = 777", &["table goods"]),
        ("DELETE FROM notes WHERE rowid = 5", &["table notes"]),
        ("UPDATE notes SET rowid = 9999 WHERE rowid = 5", &["table notes"]),
        ("UPDATE notes SET body = CAST(body AS BLOB) WHERE rowid = 5", &["table notes"]),
        ("INSERT INTO notes SELECT body FROM notes WHERE rowid = 1", &["table notes"]),
        ("DROP INDEX by_name", &["schema"]),
        ("DROP TABLE notes", &["schema", "table notes"]),
        ("CREATE TABLE more (x)", &["schema", "table more"]),
        ("PRAGMA user_version = 5", &["user_version"]),
    ];
    for (sql, failing) in sabotage {
        let path = house.folder.path().join("sabotaged.db");
        std::fs::write(&path, copy.database()).unwrap();
        let options = SqliteConnectOptions::new().filename(&path);
        let mut db = Db { house: &house, inner: house.runtime.block_on(options.connect()).unwrap() };
        db.run(sql);
        db.close();
        let checks = verify(&path, &copy.facts).unwrap();
        let failed: Vec<&str> = checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect();
        // A change may need another page.
        let telling: Vec<&str> = failed.into_iter().filter(|name| *name != "pages").collect();
        assert_eq!(telling, *failing, "{sql}: {checks:?}");
    }

    // Bytes, behind SQLite's back: an index entry, a page's header, half the file, all of it.
    let path = house.folder.path().join("sabotaged.db");
    let intact = copy.database();
    let entry = intact.windows(11).rposition(|window| window == b"thing 29999").unwrap();
    let mut flipped = intact.clone();
    flipped[entry] ^= 1;
    let mut broken = intact.clone();
    broken[4096] = 1;
    for bytes in [&flipped, &broken, &intact[..intact.len() / 2 / 4096 * 4096].to_vec(), &vec![7; 9000], &Vec::new()] {
        std::fs::write(&path, bytes).unwrap();
        let checks = verify(&path, &copy.facts).unwrap();
        assert!(checks.iter().any(|check| !check.passed), "{} bytes: {checks:?}", bytes.len());
    }
    assert!(verify(&house.folder.path().join("none.db"), &copy.facts).is_err());
}

#[test]
fn untouched_pages_give_the_same_segments() {
    let house = House::new();
    let mut db = shop(&house);
    let first = house.open().unwrap();
    db.run("UPDATE goods SET price = 0 WHERE id = 15000");
    let second = house.open().unwrap();
    assert_eq!(first.segments.len(), second.segments.len());
    assert!(first.segments.len() > 8, "{} segments", first.segments.len());
    let differing = first.segments[1..].iter().zip(&second.segments[1..]).filter(|(a, b)| a != b).count();
    // Page 1 with its change counter, and the page with the row.
    assert!((1..=2).contains(&differing), "{differing} segments differ");
    assert!(first.segments[1..first.segments.len() - 2].iter().all(|segment| segment.len() == 256 * 1024));
}

#[test]
fn an_application_s_own_collations_and_functions_are_no_obstacle() {
    let house = House::new();
    let options = house.options().collation("klingon", |left, right| right.cmp(left));
    let mut db = Db { house: &house, inner: house.runtime.block_on(options.connect()).unwrap() };
    db.run(&format!(
        "CREATE TABLE f (x); CREATE INDEX f_x ON f (lower(x));
         CREATE TABLE k (name TEXT COLLATE klingon PRIMARY KEY, n) WITHOUT ROWID;
         CREATE TABLE o (x UNIQUE);
         {s} INSERT INTO k SELECT 'name ' || i, i FROM s; {s} INSERT INTO o SELECT i FROM s; {s} INSERT INTO f SELECT i FROM s;
         PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'lower', 'frobnicate')",
        s = series(500)
    ));
    db.close();
    let copy = house.open().unwrap();
    assert_eq!(copy.facts.tables.iter().map(|table| table.rows).collect::<Vec<_>>(), [500, 500, 500]);
    let (restored, checks) = copy.restored(&house);
    assert!(checks.iter().all(|check| check.passed), "{checks:?}");
    let said = &checks[0].actual;
    assert!(said.starts_with("ok (") && said.contains("frobnicate") && said.contains("klingon"), "{said}");

    // The rest is still checked: an entry of o's index.
    let mut bytes = copy.database();
    let root =
        house.connect().number("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_o_1'") as usize;
    let cell = u16::from_be_bytes([bytes[(root - 1) * 4096 + 8], bytes[(root - 1) * 4096 + 9]]) as usize;
    bytes[(root - 1) * 4096 + cell + 4] ^= 1;
    std::fs::write(&restored, bytes).unwrap();
    let checks = verify(&restored, &copy.facts).unwrap();
    assert!(!checks[0].passed, "{checks:?}");
}

/// The sum over rows as facts.rs tells it, made by hand.
fn checksum(rows: &[Vec<u8>]) -> String {
    let half = |row: &Vec<u8>| u128::from_le_bytes(blake3::hash(row).as_bytes()[..16].try_into().unwrap());
    format!("{:032x}", rows.iter().map(half).fold(0, u128::wrapping_add))
}

#[test]
fn a_checksum_is_of_values_and_classes() {
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        let text = "aä".as_bytes();
        let house = House::new();
        let mut db = house.connect();
        db.run(&format!("PRAGMA encoding = '{encoding}'; CREATE TABLE t (a, b, c, d, e);"));
        db.run("INSERT INTO t (rowid, a, b, c, d, e) VALUES (7, 'aä', x'0102', -3, 0.5, NULL)");
        let row = [
            &[1][..],
            &7_i64.to_le_bytes(),
            &[3],
            &(text.len() as u64).to_le_bytes(),
            text,
            &[4],
            &2_u64.to_le_bytes(),
            &[1, 2],
            &[1],
            &(-3_i64).to_le_bytes(),
            &[2],
            &0.5_f64.to_le_bytes(),
            &[0],
        ];
        let copy = house.open().unwrap();
        assert_eq!(copy.facts.tables[0].checksum, checksum(&[row.concat()]), "{encoding}");
        copy.assert_passes(&house);
    }
}

#[test]
fn what_is_no_text_keeps_what_makes_it_different() {
    let checksum = |bytes: &str| {
        let house = House::new();
        let mut db = house.connect();
        db.run("CREATE TABLE t (a TEXT)");
        db.run(&format!("INSERT INTO t VALUES (CAST(x'{bytes}' AS TEXT))"));
        house.open().unwrap().facts.tables[0].checksum.clone()
    };
    assert_ne!(checksum("ff"), checksum("fe"));
}

#[test]
fn a_name_may_be_any_bytes() {
    use std::os::unix::ffi::OsStrExt as _;
    let house = House::new();
    let mut db = house.connect();
    db.run("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)");
    db.close();
    for name in [&b"sh\xffop.db"[..], b"50% off?mode=memory#.db", b"file:a b.db"] {
        let path = house.folder.path().join(std::ffi::OsStr::from_bytes(name));
        std::fs::copy(&house.path, &path).unwrap();
        let copy = house.open_at(&path).unwrap();
        assert_eq!(copy.facts.tables[0].rows, 2, "{}", path.display());
        for check in verify(&path, &copy.facts).unwrap() {
            assert!(check.passed, "{}: {check:?}", path.display());
        }
    }
}
