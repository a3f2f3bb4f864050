//! Real servers, through the whole seam: odd objects there and back by restore.sh, writers and migrations at work
//! meanwhile, roles that may not read, and bytes that do not change.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::test_server::{TestServer as Server, programs, wait_until};
use super::*;
use crate::clock::SystemClock;
use crate::domain::contents::{Facts, LocaleProvider, Note, PostgresFacts, PostgresTableFacts};
use crate::error::Diagnostic as _;
use crate::sources::{Body, Cut, Sink};

impl Server {
    /// Everything, as pg_dump writes it, without what is random.
    fn dump(&self, database: &str) -> Vec<String> {
        let mut pg_dump = Command::new(programs().join("pg_dump"));
        let output = pg_dump.args(["--create", "-d", &self.url("postgres", database)]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
            .map(str::to_owned)
            .collect()
    }

    fn options(&self, role: &str, database: &str) -> PostgresOptions {
        let scratch = self.folder().join("scratch");
        std::fs::create_dir_all(&scratch).unwrap();
        PostgresOptions {
            access: self.access(role, database),
            include_tables: Vec::new(),
            exclude_tables: Vec::new(),
            exclude_data: Vec::new(),
            tools: Some(programs()),
            connections: 2,
            max_lock_wait: Duration::from_secs(30),
            max_snapshot: Duration::from_secs(600),
            scratch,
        }
    }

    /// Sessions of ours.
    fn sessions(&self) -> String {
        self.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lifeboat'")
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[derive(Default)]
struct Segments {
    done: Vec<Vec<u8>>,
    open: Vec<u8>,
}

impl Write for Segments {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Segments {
    fn boundary(&mut self) -> io::Result<()> {
        self.done.push(std::mem::take(&mut self.open));
        Ok(())
    }
}

struct Copy {
    segments: Vec<Vec<u8>>,
    members: Vec<String>,
    notes: Vec<Note>,
    facts: PostgresFacts,
}

impl Copy {
    fn table(&self, name: &str) -> &PostgresTableFacts {
        self.facts.tables.iter().find(|table| table.name == name).unwrap()
    }

    fn unpack(&self, folder: &Path) -> PathBuf {
        let target = folder.join("unpacked");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(folder.join("tar"), self.segments.concat()).unwrap();
        let unpacked = Command::new("tar").arg("-xf").arg(folder.join("tar")).arg("-C").arg(&target).status().unwrap();
        assert!(unpacked.success());
        target
    }

    /// All rows of a table, as text.
    fn rows(&self, name: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let target = self.unpack(folder.path());
        let list: layout::TableList =
            serde_json::from_slice(&std::fs::read(target.join("tables.json")).unwrap()).unwrap();
        let oid = list.tables.iter().find(|table| table.name == name).unwrap().oid;
        let mut files: Vec<PathBuf> = std::fs::read_dir(target.join(format!("data/{oid:010}")))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "copy"));
        files.sort();
        files.iter().flat_map(|path| std::fs::read(path).unwrap()).collect()
    }
}

fn try_back_up(options: PostgresOptions) -> Result<Copy, SourceError> {
    let runtime = runtime();
    let source = PostgresSource::new(options, runtime.handle().clone(), Arc::new(SystemClock::default()));
    let mut snapshot = source.open(None)?;
    let mut sink = Segments::default();
    let (mut members, mut notes) = (Vec::new(), Vec::new());
    while let Some(piece) = snapshot.next_piece()? {
        let Body::Open(open) = piece.body else { panic!("nothing is remembered") };
        let written = open.write(&mut sink)?;
        if piece.cut == Cut::Never {
            assert!(sink.open.len() <= crate::domain::segment::MAX_FILE_SEGMENT_BYTES);
        }
        assert_eq!(sink.open.len() % 512, 0);
        sink.boundary().unwrap();
        members.extend(written.members.iter().map(|member| member.path.display()));
        notes.extend(written.notes);
    }
    let finished = snapshot.finish()?;
    notes.extend(finished.notes);
    let Some(Facts::Postgres(facts)) = finished.facts else { panic!("no facts") };
    Ok(Copy { segments: sink.done, members, notes, facts: *facts })
}

fn back_up(options: PostgresOptions) -> Copy {
    try_back_up(options).unwrap_or_else(|error| panic!("{error}\n{:?}", error.hint()))
}

/// What is read when a migration holds the lock of a `table` as the backup begins, and commits while pg_dump waits.
fn back_up_beside(server: &Server, migration: &str, table: &str) -> Copy {
    let mut psql = server.psql("postgres");
    let mut session = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(format!("BEGIN; {migration};\n").as_bytes()).unwrap();
    let locked = format!(
        "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND locktype = 'relation' \
         AND relation = '{table}'::regclass"
    );
    wait_until("the migration holds its lock", || server.sql("postgres", &locked) == "1");
    let options = server.options("postgres", "postgres");
    let backup = std::thread::spawn(move || back_up(options));
    wait_until("pg_dump waits", || server.sql("postgres", "SELECT count(*) FROM pg_locks WHERE NOT granted") != "0");
    stdin.write_all(b"COMMIT;\n\\q\n").unwrap();
    drop(stdin);
    session.wait().unwrap();
    backup.join().unwrap()
}

fn refusal(options: PostgresOptions) -> (String, String) {
    let error = try_back_up(options).err().unwrap();
    (error.to_string(), error.hint().unwrap_or_default())
}

const ODD_DATABASE: &str = "o'dd \"Shop\"";

const ODD: &str = r#"
CREATE ROLE clerk; CREATE ROLE "Chief of Staff";
ALTER DATABASE :"DBNAME" SET work_mem = '5MB';
COMMENT ON DATABASE :"DBNAME" IS 'odd';
CREATE EXTENSION pg_trgm;
CREATE SCHEMA "we""ird . one"; GRANT USAGE ON SCHEMA "we""ird . one" TO clerk;
CREATE TABLE "we""ird . one"."a.b
c" ("x
y" int, "SELECT" text DEFAULT 'a\b');
INSERT INTO "we""ird . one"."a.b
c" SELECT n, E'tab\there\nline \\ back' || n FROM generate_series(1, 50) n;
CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE all_generated (a int GENERATED ALWAYS AS (1) STORED); INSERT INTO all_generated DEFAULT VALUES;
CREATE TABLE shapes (id bigint GENERATED ALWAYS AS IDENTITY, gone int, w int, area int GENERATED ALWAYS AS (w * w) STORED);
INSERT INTO shapes (gone, w) SELECT 1, n FROM generate_series(1, 20) n; ALTER TABLE shapes DROP COLUMN gone;
CREATE TABLE parent (id int, note text); CREATE TABLE child (extra text) INHERITS (parent);
INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (2, 'c', 'x');
CREATE TABLE log (at date, region text, body text) PARTITION BY LIST (region);
CREATE TABLE log_eu (body text, region text, at date) PARTITION BY RANGE (at);
ALTER TABLE log ATTACH PARTITION log_eu FOR VALUES IN ('eu');
CREATE TABLE log_eu_25 PARTITION OF log_eu FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE log_rest PARTITION OF log DEFAULT;
INSERT INTO log VALUES ('2025-03-01', 'eu', 'one'), ('2025-03-02', 'us', NULL);
CREATE UNLOGGED TABLE scratch (v float8, m money, i interval, b bytea, t timestamptz);
INSERT INTO scratch VALUES ('NaN', 12.5, '1 year -2 days', '\x00ff', '2025-01-01 00:00+05'), (0.1 + 0.2, -1, NULL, '', NULL);
CREATE SEQUENCE odd_steps INCREMENT -3 MAXVALUE 100 START 7; SELECT nextval('odd_steps'), nextval('odd_steps');
CREATE SEQUENCE "Never.Called"; SELECT setval('"Never.Called"', 42, false);
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n FROM shapes;
CREATE MATERIALIZED VIEW above AS SELECT n + 1 AS m FROM totals;
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA;
CREATE INDEX ON shapes (w); ALTER TABLE shapes ADD PRIMARY KEY (id);
CREATE TABLE refs (shape bigint); INSERT INTO refs VALUES (999);
ALTER TABLE refs ADD CONSTRAINT "to shapes" FOREIGN KEY (shape) REFERENCES shapes (id) NOT VALID;
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
CREATE TRIGGER loud BEFORE INSERT ON shapes FOR EACH ROW EXECUTE FUNCTION shout();
ALTER TABLE shapes ENABLE ROW LEVEL SECURITY; CREATE POLICY wide ON shapes USING (w > 3);
GRANT SELECT (w) ON shapes TO "Chief of Staff"; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO clerk;
CREATE VIEW seen AS SELECT * FROM shapes; COMMENT ON COLUMN shapes.w IS 'width';
SELECT lo_from_bytea(4711, decode(repeat('00ff5c27', 150000), 'hex')); SELECT lo_create(4712);
COMMENT ON LARGE OBJECT 4711 IS 'large'; GRANT SELECT ON LARGE OBJECT 4711 TO clerk;
CREATE PUBLICATION news FOR TABLE shapes (id, w);
CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
CREATE FOREIGN TABLE away (a int) SERVER far;
"#;

#[test]
fn odd_objects_come_back_by_the_script_alone() {
    let server = Server::start_now();
    server.sql("postgres", &format!("CREATE DATABASE {} TEMPLATE template0", layout::quoted(ODD_DATABASE)));
    server.sql(ODD_DATABASE, ODD);
    let copy = back_up(server.options("postgres", ODD_DATABASE));
    assert_eq!(copy.table("nothing").rows, 2);
    assert_eq!(copy.table("parent").rows, 1);
    assert_eq!(copy.table("shapes").columns, ["id", "w"]);
    assert_eq!(copy.facts.large_objects, (2, 600_000));
    let full = [0x00, 0xff, 0x5c, 0x27].repeat(150_000);
    let objects = [(4711_u32, full), (4712, Vec::new())];
    let hashes = objects.map(|(object, bytes)| blake3::hash(&[&object.to_le_bytes()[..], &bytes].concat()));
    let sum = hashes
        .iter()
        .fold(0_u128, |sum, hash| sum.wrapping_add(u128::from_le_bytes(hash.as_bytes()[..16].try_into().unwrap())));
    assert_eq!(copy.facts.large_object_checksum, Some(format!("{sum:032x}")));
    assert!(copy.facts.roles.contains(&"Chief of Staff".to_owned()) && copy.facts.role_passwords);
    assert!(copy.facts.constraints.contains(&"public.refs.\"to shapes\" (not valid)".to_owned()));
    assert!(copy.notes.iter().any(|note| note.path.display() == "public.away"));
    assert_eq!(copy.members.last().unwrap(), "restore.sh");

    let other = Server::start_now();
    let folder = tempfile::tempdir().unwrap();
    let target = copy.unpack(folder.path());
    let mut script = Command::new("sh");
    script.arg(target.join("restore.sh")).args(["--globals", &other.url("postgres", "postgres")]);
    let output = script.env("PATH", format!("{}:/usr/bin:/bin", programs().display())).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(other.dump(ODD_DATABASE), server.dump(ODD_DATABASE));
    assert_eq!(other.sql(ODD_DATABASE, "SELECT m FROM above"), "21");

    let again = back_up(other.options("postgres", ODD_DATABASE));
    assert_eq!(again.facts.tables, copy.facts.tables);
    assert_eq!((again.facts.indexes, again.facts.constraints), (copy.facts.indexes, copy.facts.constraints));

    let mut second = Command::new("sh");
    second.arg(target.join("restore.sh")).arg(other.url("postgres", "postgres"));
    let refused = second.env("PATH", format!("{}:/usr/bin:/bin", programs().display())).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("drop or rename it"));
}

#[test]
fn writers_and_migrations_cannot_tear_it() {
    let server = Server::start_now();
    server.sql("postgres", "CREATE TABLE accounts (id int PRIMARY KEY, cents int, pad text)");
    server.sql("postgres", "INSERT INTO accounts SELECT n, 100, repeat('x', 200) FROM generate_series(0, 19999) n");
    let transfer =
        "UPDATE accounts SET cents = cents + CASE WHEN id = :a THEN 1 ELSE -1 END WHERE id IN (:a, :b) \\; SELECT 1;";
    let mut script = String::from("SET synchronous_commit = off;\n");
    for n in 0..20_000_u32 {
        let (a, b) = (n * 7919 % 20_000, n * 104_729 % 19_999 + 1);
        if a != b {
            script.push_str(&transfer.replace(":a", &a.to_string()).replace(":b", &b.to_string()));
            script.push('\n');
        }
    }
    let mut psql = server.psql("postgres");
    let mut writer = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = writer.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || {
        let _ = stdin.write_all(script.as_bytes());
    });
    for _ in 0..3 {
        let copy = back_up(server.options("postgres", "postgres"));
        let text = String::from_utf8(copy.rows("accounts")).unwrap();
        let cents: Vec<i64> = text.lines().map(|row| row.split('\t').nth(1).unwrap().parse().unwrap()).collect();
        assert_eq!((cents.len(), cents.iter().sum::<i64>()), (20_000, 2_000_000));
        assert_eq!(copy.table("accounts").rows, 20_000);
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    feeding.join().unwrap();

    // A migration that holds its lock while pg_dump waits, and rewrites the table under the snapshot.
    let copy = back_up_beside(&server, "ALTER TABLE accounts ALTER cents TYPE bigint", "accounts");
    assert_eq!(copy.table("accounts").rows, 20_000);

    // Somebody who waits for us is let through.
    let mut options = server.options("postgres", "postgres");
    options.max_lock_wait = Duration::from_secs(1);
    let runtime = runtime();
    let source = PostgresSource::new(options, runtime.handle().clone(), Arc::new(SystemClock::default()));
    let mut snapshot = source.open(None).unwrap();
    let _first = snapshot.next_piece().unwrap();
    server.sql("postgres", "ALTER TABLE accounts ADD late int");
    let error = std::iter::repeat_with(|| snapshot.next_piece()).find_map(Result::err).unwrap();
    // The watch sees who waits, or a reader that cannot lock the table beside him gives up: whichever is first.
    assert!(error.to_string().contains("public.accounts") && error.to_string().contains("lock"), "{error}");
    drop(snapshot);

    // Nobody wants the rest.
    let source = PostgresSource::new(
        server.options("postgres", "postgres"),
        runtime.handle().clone(),
        Arc::new(SystemClock::default()),
    );
    let mut snapshot = source.open(None).unwrap();
    for _ in 0..3 {
        assert!(snapshot.next_piece().unwrap().is_some());
    }
    assert_ne!(server.sessions(), "0");
    drop(snapshot);
    wait_until("our sessions are gone", || server.sessions() == "0");
    assert_eq!(std::fs::read_dir(&source.options.scratch).unwrap().count(), 0);
}

#[test]
fn a_table_that_took_another_s_name_is_not_taken_for_it() {
    let server = Server::start_now();
    server.sql("postgres", "CREATE TABLE ledger AS SELECT n, 'old' || n AS note FROM generate_series(1, 1000) n");
    server.sql("postgres", "CREATE TABLE columns AS SELECT n, n AS a FROM generate_series(1, 1000) n");
    // Neither gives a table a new file, and what has the old name then is empty under an older snapshot.
    let swap = "ALTER TABLE ledger RENAME TO ledger_2025; CREATE TABLE ledger (n int, note text); \
        INSERT INTO ledger VALUES (1, 'new'); ALTER TABLE columns RENAME a TO b; ALTER TABLE columns ADD a int";
    let copy = back_up_beside(&server, swap, "columns");
    assert_eq!((copy.table("ledger").rows, copy.table("ledger_2025").rows), (1, 1000));
    assert_eq!(copy.table("columns").columns, ["n", "b", "a"]);
    assert!(copy.rows("columns").starts_with(b"1\t1\t\\N\n"));
}

#[test]
fn a_database_is_as_its_own_facts_say() {
    let server = Server::start_now();
    server.sql("postgres", &format!("CREATE DATABASE {} TEMPLATE template0", layout::quoted(ODD_DATABASE)));
    server.sql(ODD_DATABASE, ODD);
    // A foreign key of a partition, and an extension with a table of which some rows are the user's.
    server.sql(
        ODD_DATABASE,
        "CREATE TABLE parted (shape bigint REFERENCES shapes (id)) PARTITION BY RANGE (shape); \
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (9); INSERT INTO parted VALUES (3), (4); \
         CREATE TABLE settings (id int PRIMARY KEY, own bool CHECK (own IS NOT NULL)); \
         INSERT INTO settings VALUES (1, false), (2, true), (3, true); \
         ALTER EXTENSION pg_trgm ADD TABLE settings; \
         UPDATE pg_extension SET extconfig = ARRAY['settings'::regclass::oid], extcondition = ARRAY['WHERE own'] \
         WHERE extname = 'pg_trgm'",
    );
    let options = server.options("postgres", ODD_DATABASE);
    let access = options.access.clone();
    let copy = back_up(options);
    assert_eq!(copy.table("settings").rows, 2);
    assert_eq!(copy.facts.locale_provider, LocaleProvider::Libc);
    let runtime = runtime();
    let compared = |stop: &mut (dyn Future<Output = ()> + Unpin)| {
        verify::verify(&access, &copy.facts, 2, stop, runtime.handle()).unwrap()
    };
    let failed: Vec<_> =
        compared(&mut std::future::pending()).unwrap().into_iter().filter(|check| !check.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    server.sql(ODD_DATABASE, "UPDATE settings SET own = true WHERE id = 1");
    let checks = compared(&mut std::future::pending()).unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect();
    assert_eq!(failed, ["table public.settings"]);

    // A table that somebody keeps for himself makes it wait, and a signal ends the wait.
    let mut psql = server.psql(ODD_DATABASE);
    let mut holder = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    holder.stdin.as_mut().unwrap().write_all(b"BEGIN; LOCK TABLE shapes;\n").unwrap();
    let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
         AND relation = 'shapes'::regclass";
    wait_until("it is locked", || server.sql(ODD_DATABASE, locked) == "1");
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    let mut stop = Box::pin(async {
        while server.sql(ODD_DATABASE, waits) == "0" {
            tokio::task::yield_now().await;
        }
    });
    assert!(compared(&mut stop).is_none());
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn what_may_not_be_read_is_named() {
    let server = Server::start_now();
    server.sql("postgres", "CREATE ROLE backup LOGIN; CREATE TABLE open (a int); CREATE TABLE shut (a int); GRANT SELECT ON open TO backup");
    let (error, hint) = refusal(server.options("backup", "postgres"));
    assert!(error.contains("may not read public.shut") && !error.contains("open"), "{error}");
    assert!(hint.contains("GRANT SELECT ON \"public\".\"shut\" TO \"backup\""), "{hint}");
    server.sql("postgres", "GRANT SELECT ON shut TO backup; ALTER TABLE shut ENABLE ROW LEVEL SECURITY");
    let (error, hint) = refusal(server.options("backup", "postgres"));
    assert!(error.contains("row-level security would hide rows of public.shut"), "{error}");
    assert!(hint.contains("ALTER ROLE \"backup\" BYPASSRLS"), "{hint}");
    server.sql("postgres", "ALTER ROLE backup BYPASSRLS");
    let copy = back_up(server.options("backup", "postgres"));
    assert!(!copy.facts.role_passwords);
    let (error, _) = refusal(server.options("backup", "nowhere"));
    assert!(error.contains("\"nowhere\" does not exist"), "{error}");
    let mut options = server.options("backup", "postgres");
    options.exclude_tables = vec!["*.shut".to_owned()];
    options.exclude_data = vec!["public.open".to_owned()];
    let copy = back_up(options);
    assert!(copy.facts.tables.is_empty());
    assert_eq!(copy.notes.iter().filter(|note| note.detail.contains("as the config says")).count(), 2);
}

#[test]
fn bytes_pass_through_and_what_did_not_change_stays_the_same() {
    let server = Server::start_now();
    server.sql("postgres", "CREATE DATABASE raw TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'");
    server.sql("raw", "CREATE TABLE t (a text); INSERT INTO t VALUES (E'\\xff\\xfe caf\\xe9')");
    let copy = back_up(server.options("postgres", "raw"));
    assert_eq!(copy.facts.encoding, "SQL_ASCII");
    assert_eq!(copy.rows("t"), b"\xff\xfe caf\xe9\n");
    server.sql("postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    server.sql("latin", "CREATE TABLE \"t\u{e4}\" (\"\u{f6}\" text); INSERT INTO \"t\u{e4}\" VALUES ('\u{fc}')");
    assert_eq!(back_up(server.options("postgres", "latin")).rows("t\u{e4}"), b"\xfc\n");

    server
        .sql("postgres", "CREATE TABLE files (id int, body bytea); ALTER TABLE files ALTER body SET STORAGE EXTERNAL");
    server.sql(
        "postgres",
        "INSERT INTO files VALUES (1, 'small'), (2, decode(repeat('5c0aff', 7000000), 'hex')), (3, 'last')",
    );
    server.sql("postgres", "CREATE TABLE events (id int, body text)");
    server.sql(
        "postgres",
        "INSERT INTO events SELECT n, md5(n::text) || repeat('y', 300) FROM generate_series(1, 20000) n",
    );
    let first = back_up(server.options("postgres", "postgres"));
    assert_eq!(first.table("files").rows, 3);
    assert!(first.rows("files").len() > 42_000_000);
    server.sql("postgres", "INSERT INTO events SELECT n, 'new' FROM generate_series(20001, 20100) n");
    let second = back_up(server.options("postgres", "postgres"));
    let known: BTreeSet<&Vec<u8>> = first.segments.iter().collect();
    let new: usize = second.segments.iter().filter(|segment| !known.contains(segment)).map(Vec::len).sum();
    let all: usize = second.segments.iter().map(Vec::len).sum();
    // The head, the open range of `events`, and nothing of `files`.
    assert!(all > 45_000_000 && new < 2_000_000, "{new} of {all}");
}
