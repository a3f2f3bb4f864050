//! The user's own checks of a restored copy, run in confinement: a question in SQL, a freshness, a command.
//!
//! A check never ends a drill early: whatever goes wrong with it, it failed, and says why. Nothing here knows how the
//! copy came to be, or what the checks' verdicts mean for the drill.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeDelta, Utc};

use super::confine::{ConfineError, Confinement};
use super::folder::Scratch;
use super::sql::postgres::answer_by;
use super::sql::{self, ANSWER_GRACE, Answer, Database, Request, Value};
use crate::domain::check::{Check, UserCheck};
use crate::domain::ids::SourceName;
use crate::domain::server::ServerAddress;
use crate::process::{Output, Tool, ToolError};
use crate::sources::postgres::connect::Access;

/// How long one check may take where the config says nothing.
pub const DEFAULT_CHECK_DEADLINE: Duration = Duration::from_secs(600);
/// How far a freshness may lie in the future: clocks differ, forged data differs more.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);
/// Characters of a statement or command that go into a check's name.
const NAME_CHARS: usize = 100;
/// An answer of our own subcommand is far smaller.
const ANSWER_BYTES: usize = 64 * 1024;
/// The folder in scratch for what foreign code must be able to run. No source can have such a name.
const BIN: &str = ".bin";
/// The folder in scratch that foreign code may write to: its HOME and TMPDIR, where it has a uid of its own.
const TMP: &str = ".tmp";

/// Where a source was restored to.
#[derive(Debug, Clone)]
pub enum RestoredSource {
    /// A folder with its files.
    Folder(PathBuf),
    /// A SQLite database, in a folder.
    Sqlite {
        /// The folder.
        dir: PathBuf,
        /// The database file in it.
        file: PathBuf,
    },
    /// A database on a scratch server, which lets its own uid in without a password.
    Postgres(ServerAddress),
    /// A database on a server that is there. It is asked by us: what answers runs on that server.
    Guest(Access),
}

impl RestoredSource {
    /// The folder that it lies in, unless a server has it.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Self::Folder(dir) | Self::Sqlite { dir, .. } => Some(dir),
            Self::Postgres(_) | Self::Guest(_) => None,
        }
    }

    fn database(&self) -> Option<Database> {
        match self {
            Self::Folder(_) | Self::Guest(_) => None,
            Self::Sqlite { file, .. } => Some(Database::Sqlite(file.clone())),
            Self::Postgres(address) => Some(Database::Postgres(address.to_string())),
        }
    }

    /// What a command gets to find it: `LIFEBOAT_<SOURCE>_DIR`, or `LIFEBOAT_<SOURCE>_URL` where a server has it.
    fn variable(&self, source: &SourceName) -> (String, OsString) {
        let name = source.as_str().to_ascii_uppercase().replace('-', "_");
        match self {
            Self::Folder(dir) | Self::Sqlite { dir, .. } => (format!("LIFEBOAT_{name}_DIR"), dir.into()),
            Self::Postgres(address) | Self::Guest(Access { address, .. }) => {
                (format!("LIFEBOAT_{name}_URL"), address.to_string().into())
            }
        }
    }
}

/// What checks are run in.
#[derive(Debug)]
pub struct Around<'a> {
    /// The scratch folder; the working directory of commands.
    pub scratch: &'a Scratch,
    /// Under which rights.
    pub confinement: &'a Confinement,
    /// The restored sources, handed over to the confinement's uid.
    pub sources: &'a BTreeMap<SourceName, RestoredSource>,
    /// Our own executable, for SQL.
    pub program: &'a Path,
    /// Relative commands start here: the config's folder.
    pub base_dir: &'a Path,
    /// The drill's start: freshness is held against it.
    pub started: DateTime<Utc>,
    /// How long each check may take.
    pub deadline: Duration,
}

/// Makes a scratch folder ready for foreign code: the confinement's uid may enter it and has a `.tmp` of its own there.
/// Call it once, before [`run_checks`].
///
/// # Errors
/// When the folder cannot be opened to that uid, or cannot be reached by it.
pub async fn prepare(scratch: &Scratch, confinement: &Confinement) -> Result<(), ConfineError> {
    let Some((uid, gid)) = confinement.owner() else { return Ok(()) };
    let io_error = |path: &Path, cause| ConfineError::Io { verb: "prepare", path: path.display().to_string(), cause };
    scratch.open_to_group(gid).map_err(|error| io_error(scratch.path(), std::io::Error::other(error)))?;
    let tmp = scratch.path().join(TMP);
    std::fs::create_dir(&tmp)
        .and_then(|()| std::fs::set_permissions(&tmp, PermissionsExt::from_mode(0o700)))
        .and_then(|()| std::os::unix::fs::lchown(&tmp, Some(uid), Some(gid)))
        .map_err(|cause| io_error(&tmp, cause))?;
    confinement.verify_reachable(scratch.path()).await
}

/// Runs the checks, one after the other; one result each, in their order.
pub async fn run_checks(checks: &[UserCheck], around: &Around<'_>) -> Vec<Check> {
    let mut results = Vec::with_capacity(checks.len());
    for check in checks {
        results.push(run_check(check, around).await);
    }
    results
}

async fn run_check(check: &UserCheck, around: &Around<'_>) -> Check {
    match check {
        UserCheck::Sql { source, sql } => {
            let (passed, actual) = match ask(source, sql, around).await {
                Ok(value) => (value.is_true(), value.to_string()),
                Err(why) => (false, why),
            };
            let name = format!("sql on {source}: {}", shortened(sql));
            Check { name, passed, expected: "true or a number other than 0".to_owned(), actual }
        }
        UserCheck::Freshness { source, sql, within } => {
            let (passed, actual) = match ask(source, sql, around).await {
                Ok(value) => fresh(&value, *within, around.started),
                Err(why) => (false, why),
            };
            let name = format!("freshness of {source}: {}", shortened(sql));
            let oldest = TimeDelta::from_std(*within).ok().and_then(|within| around.started.checked_sub_signed(within));
            let expected = match oldest {
                Some(oldest) => format!("{} or later", rfc3339(oldest)),
                None => "any moment".to_owned(),
            };
            Check { name, passed, expected, actual }
        }
        UserCheck::Command { command } => {
            let (passed, actual) = match run_command(command, around).await {
                Ok(output) => (output.status.success(), ended(&output)),
                Err(why) => (false, why),
            };
            let name = format!("command {}", shortened(&command.join(" ")));
            Check { name, passed, expected: "exit status 0".to_owned(), actual }
        }
    }
}

/// Numbers below are no moments in Unix seconds that a backup could be held against (this is 1973): somebody asked for
/// the largest id, or for days.
const FIRST_SECOND: i64 = 100_000_000;
/// What is said of a value that is no moment.
const NO_MOMENT: &str = "neither Unix seconds nor a time like 2026-11-22T02:00:00Z";

/// Whether a moment is recent enough, and how to say it. Recent enough is: not before `started - within`, and not more
/// than [`MAX_CLOCK_SKEW`] after `started`.
fn fresh(value: &Value, within: Duration, started: DateTime<Utc>) -> (bool, String) {
    let Some(moment) = moment(value) else {
        return match value {
            Value::Null => (false, "NULL: there is no row to be fresh".to_owned()),
            other => (false, format!("{other}, which is {NO_MOMENT}")),
        };
    };
    let age = started.signed_duration_since(moment);
    match age.to_std() {
        Ok(age) => (age <= within, format!("{}, {} s before the drill's start", rfc3339(moment), age.as_secs())),
        // It lies after the start.
        Err(_) => {
            let ahead = age.abs();
            let tolerable = ahead.to_std().is_ok_and(|ahead| ahead <= MAX_CLOCK_SKEW);
            (tolerable, format!("{}, {} s after the drill's start", rfc3339(moment), ahead.num_seconds()))
        }
    }
}

/// The moment that a value means: Unix seconds, RFC 3339 (a space may stand for the `T`), or the same without a zone,
/// which is UTC.
fn moment(value: &Value) -> Option<DateTime<Utc>> {
    match value {
        Value::Integer(seconds) if *seconds < FIRST_SECOND => None,
        Value::Integer(seconds) => DateTime::from_timestamp(*seconds, 0),
        Value::Real(seconds) => {
            let whole = seconds.floor();
            let nanos = ((seconds - whole) * 1e9) as u32;
            // A cast of a float saturates; what is saturated is no representable moment.
            DateTime::from_timestamp(whole as i64, nanos.min(999_999_999))
        }
        Value::Text(text) => {
            let text = text.trim();
            let zoned = DateTime::parse_from_rfc3339(text)
                .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"))
                .map(|moment| moment.with_timezone(&Utc));
            zoned.ok().or_else(|| {
                ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
                    .iter()
                    .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
                    .map(|naive| naive.and_utc())
            })
        }
        Value::Null | Value::Boolean(_) | Value::Blob(_) => None,
    }
}

fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Asks a restored database, in confinement; `Err` is what stands in the failed check.
async fn ask(source: &SourceName, sql: &str, around: &Around<'_>) -> Result<Value, String> {
    let restored = around.sources.get(source).ok_or_else(|| format!("the backup has no source {source}"))?;
    let timeout_seconds = around.deadline.as_secs().max(1);
    if let RestoredSource::Guest(access) = restored {
        return match answer_by(access, sql, timeout_seconds).await {
            Answer::Value(value) => Ok(value),
            Answer::Refused(why) => Err(why),
        };
    }
    let database = restored.database().ok_or_else(|| format!("source {source} is no database that answers SQL"))?;
    let request = Request { database, sql: sql.to_owned(), timeout_seconds };
    let json = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
    let program = runnable(around.program, around).await?;
    let tool = Tool::new(program)
        .arg(sql::SUBCOMMAND)
        .stdin(json)
        .stdout_limit_bytes(ANSWER_BYTES)
        .current_dir(around.scratch.path())
        .deadline(Duration::from_secs(timeout_seconds) + ANSWER_GRACE);
    let output = around.confinement.run(tool).await.map_err(said)?;
    if !output.status.success() {
        return Err(ended(&output));
    }
    match serde_json::from_slice(&output.stdout) {
        Ok(Answer::Value(value)) => Ok(value),
        Ok(Answer::Refused(why)) => Err(why),
        Err(error) => Err(format!("the confined reader gave no answer: {error}")),
    }
}

async fn run_command(argv: &[String], around: &Around<'_>) -> Result<Output, String> {
    let (program, args) = argv.split_first().ok_or("the command is empty")?;
    let program: OsString = if program.contains('/') {
        // `join` leaves an absolute path as it is.
        runnable(&around.base_dir.join(program), around).await?.into()
    } else {
        program.into()
    };
    let mut tool = Tool::new(program)
        .args(args)
        .env("LIFEBOAT_SCRATCH", around.scratch.path())
        .current_dir(around.scratch.path())
        .stdout_limit_bytes(0)
        .deadline(around.deadline);
    if around.confinement.owner().is_some() {
        let tmp = around.scratch.path().join(TMP);
        tool = tool.env("HOME", &tmp).env("TMPDIR", &tmp);
    }
    for (name, restored) in around.sources {
        let (variable, place) = restored.variable(name);
        tool = tool.env(variable, place);
    }
    around.confinement.run(tool).await.map_err(said)
}

/// The program where the confinement can run it: in place, or a copy in scratch, which only we can write to. A copy
/// is alone in its folder: a script that looks for neighbours of its own must lie where the uid can reach it.
async fn runnable(program: &Path, around: &Around<'_>) -> Result<PathBuf, String> {
    if around.confinement.owner().is_none() {
        return Ok(program.to_owned());
    }
    let can_run =
        async |path: &Path| around.confinement.can_run(path).await.map_err(|error| crate::error::chain(&error));
    if can_run(program).await? {
        return Ok(program.to_owned());
    }
    let name = program.file_name().ok_or_else(|| format!("{} is no program", program.display()))?;
    let place = blake3::hash(program.as_os_str().as_encoded_bytes()).to_hex();
    let bin = around.scratch.path().join(BIN);
    let own = bin.join(&place[..16]);
    let copy = own.join(name);
    if !copy.exists() {
        let copied = make_readable(&bin)
            .and_then(|()| make_readable(&own))
            .and_then(|()| std::fs::copy(program, &copy))
            .and_then(|_| std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)));
        copied.map_err(|cause| format!("cannot make {} runnable in scratch: {cause}", program.display()))?;
    }
    if can_run(&copy).await? {
        return Ok(copy);
    }
    Err(format!("{} cannot be run: is the scratch folder on a file system mounted noexec?", copy.display()))
}

fn make_readable(folder: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => Err(cause),
        _ => std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)),
    }
}

fn ended(output: &Output) -> String {
    match output.last_stderr_line() {
        Some(line) => format!("{}: {line}", output.status),
        None => output.status.to_string(),
    }
}

fn said(error: ToolError) -> String {
    crate::error::chain(&error)
}

/// On one line, and no longer than a line.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= NAME_CHARS {
        return line;
    }
    line.chars().take(NAME_CHARS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::confine::{Trust, hand_over};
    use crate::scratch::sql::tests::{ENTRY_TEST, ENTRY_VARIABLE, database};

    const START: &str = "2026-11-22T05:00:00Z";

    fn start() -> DateTime<Utc> {
        START.parse().unwrap()
    }

    /// A drill's surroundings on the real system. The program that answers SQL is this test binary, behind a script.
    struct Stage {
        base: tempfile::TempDir,
        scratch: Scratch,
        confinement: Confinement,
        sources: BTreeMap<SourceName, RestoredSource>,
        program: PathBuf,
    }

    impl Stage {
        async fn new() -> Self {
            assert!(rustix::process::geteuid().is_root(), "this test gives a process another uid: run it as root");
            let base = tempfile::tempdir().unwrap();
            std::fs::set_permissions(base.path(), PermissionsExt::from_mode(0o711)).unwrap();
            let id = crate::domain::ids::RecordId::from_random([7; 8]);
            let scratch = Scratch::create(base.path(), &"shop".parse().unwrap(), &id, 1).unwrap();
            let confinement = Confinement::decide(Trust::Hostile).await.unwrap();
            let dir = scratch.path().join("my-db");
            std::fs::create_dir(&dir).unwrap();
            let file = dir.join("shop.sqlite");
            database(&file).await;
            let (uid, gid) = confinement.owner().unwrap();
            hand_over(&dir, uid, gid).unwrap();
            prepare(&scratch, &confinement).await.unwrap();
            let reader = base.path().join("reader");
            std::fs::copy(std::env::current_exe().unwrap(), &reader).unwrap();
            // Only root may reach the program itself, so that it must be copied.
            let hidden = base.path().join("hidden");
            std::fs::create_dir(&hidden).unwrap();
            std::fs::set_permissions(&hidden, PermissionsExt::from_mode(0o700)).unwrap();
            let program = hidden.join("lifeboat");
            let script = format!(
                "#!/bin/sh\n[ \"$1\" = confined-sql ] || exit 2\n{ENTRY_VARIABLE}=1 {} --exact {ENTRY_TEST} --nocapture | tail -n 1\n",
                reader.display()
            );
            std::fs::write(&program, script).unwrap();
            let sources = BTreeMap::from([("my-db".parse().unwrap(), RestoredSource::Sqlite { dir, file })]);
            Self { base, scratch, confinement, sources, program }
        }

        async fn run(&self, checks: &[UserCheck]) -> Vec<Check> {
            self.run_within(checks, Duration::from_secs(30)).await
        }

        async fn run_within(&self, checks: &[UserCheck], deadline: Duration) -> Vec<Check> {
            let around = Around {
                scratch: &self.scratch,
                confinement: &self.confinement,
                sources: &self.sources,
                program: &self.program,
                base_dir: self.base.path(),
                started: start(),
                deadline,
            };
            run_checks(checks, &around).await
        }
    }

    fn sql(sql: &str) -> UserCheck {
        UserCheck::Sql { source: "my-db".parse().unwrap(), sql: sql.to_owned() }
    }

    fn freshness(sql: &str, within_hours: u64) -> UserCheck {
        let within = Duration::from_secs(within_hours * 3600);
        UserCheck::Freshness { source: "my-db".parse().unwrap(), sql: sql.to_owned(), within }
    }

    fn command(script: &str) -> UserCheck {
        UserCheck::Command { command: vec!["sh".into(), "-c".into(), script.into()] }
    }

    #[tokio::test]
    async fn sql_is_asked_by_a_confined_reader() {
        let stage = Stage::new().await;
        let results = stage
            .run(&[
                sql("select count(*) > 0 from orders"),
                sql("select count(*) from orders where id > 100"),
                sql("select id from orders"),
                sql("select * from nowhere"),
                freshness("select max(created) from orders", 26),
                freshness("select max(created) from orders", 2),
                UserCheck::Sql { source: "other".parse().unwrap(), sql: "select 1".into() },
            ])
            .await;
        let verdicts: Vec<_> = results.iter().map(|check| (check.passed, check.actual.as_str())).collect();
        assert_eq!(
            verdicts,
            [
                (true, "1"),
                (false, "0"),
                (false, "the statement gave more than one row; one row of one column is wanted"),
                (false, "no such table: nowhere"),
                (true, "2026-11-22T02:00:00Z, 10800 s before the drill's start"),
                (false, "2026-11-22T02:00:00Z, 10800 s before the drill's start"),
                (false, "the backup has no source other"),
            ]
        );
        assert_eq!(results[0].name, "sql on my-db: select count(*) > 0 from orders");
        assert_eq!(results[5].expected, "2026-11-22T03:00:00Z or later");
    }

    #[tokio::test]
    async fn commands_run_in_scratch_with_the_named_variables_and_nothing_else() {
        let stage = Stage::new().await;
        std::fs::write(
            stage.base.path().join("smoke.sh"),
            "#!/bin/sh\ntest \"$1\" = x && test -f \"$LIFEBOAT_MY_DB_DIR/shop.sqlite\"\n",
        )
        .unwrap();
        let results = stage
            .run(&[
                command("test \"$PWD\" = \"$LIFEBOAT_SCRATCH\" && test -r my-db/shop.sqlite && touch \"$TMPDIR/x\""),
                command("echo one >&2; echo two >&2; exit 7"),
                command("test -z \"$CARGO_MANIFEST_DIR\""),
                command("touch \"$LIFEBOAT_SCRATCH/planted\""),
                UserCheck::Command { command: vec!["./smoke.sh".into(), "x".into()] },
                UserCheck::Command { command: vec!["lifeboat-no-such-program".into()] },
                UserCheck::Command { command: vec!["./none.sh".into()] },
                UserCheck::Command { command: vec![] },
            ])
            .await;
        let passed: Vec<_> = results.iter().map(|check| check.passed).collect();
        assert_eq!(passed, [true, false, true, false, true, false, false, false], "{results:#?}");
        assert_eq!(results[1].actual, "exit status: 7: two");
        assert!(results[5].actual.starts_with("exit status: 127"), "{}", results[5].actual);
        assert_eq!(results[7].actual, "the command is empty");
    }

    #[tokio::test]
    async fn a_hung_check_fails() {
        let stage = Stage::new().await;
        let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
        let results = stage.run_within(&[command("sleep 1000"), sql(endless)], Duration::from_secs(1)).await;
        assert!(!results[0].passed && results[0].actual.contains("was killed after 1 s"), "{results:?}");
        assert!(!results[1].passed && results[1].actual == "the statement still ran after 1 s", "{results:?}");
    }

    #[test]
    fn freshness_in_every_notation() {
        let day = Duration::from_secs(24 * 3600);
        let text = |text: &str| Value::Text(text.to_owned());
        let table = [
            (Value::Integer(1_795_316_400), true),
            (Value::Real(1_795_316_400.5), true),
            (text("2026-11-22T02:00:00Z"), true),
            (text("2026-11-22T05:00:00+03:00"), true),
            (text("2026-11-22 02:00:00"), true),
            (text("2026-11-22 02:00:00.125"), true),
            (text("2026-11-22T02:00:00"), true),
            (text("2026-11-22 05:00:00+03:00"), true),
            // Exactly as old as it may be, and a moment older.
            (text("2026-11-21 05:00:00"), true),
            (text("2026-11-21 04:59:59.999"), false),
            // As far ahead as clocks differ, and further.
            (text("2026-11-22 05:05:00"), true),
            (text("2026-11-22 05:05:01"), false),
            // Milliseconds, where seconds are meant: far in the future.
            (Value::Integer(1_795_316_400_000), false),
            (Value::Integer(i64::MAX), false),
            (Value::Real(f64::MAX), false),
            (Value::Integer(0), false),
            // The largest id.
            (Value::Integer(4_000_000), false),
            (Value::Null, false),
            (Value::Blob(3), false),
            (text("yesterday"), false),
            (text("2026-11-22"), false),
        ];
        for (value, passes) in table {
            let (passed, actual) = fresh(&value, day, start());
            assert_eq!(passed, passes, "{value:?}: {actual}");
        }
        assert!(fresh(&Value::Integer(4_000_000), day, start()).1.contains("4000000, which is neither"));
        assert_eq!(moment(&Value::Real(-0.5)).unwrap(), DateTime::from_timestamp_millis(-500).unwrap());
    }

    #[test]
    fn names_are_short_and_on_one_line() {
        assert_eq!(shortened("select\n  1"), "select 1");
        assert_eq!(shortened(&"ä".repeat(300)).chars().count(), NAME_CHARS);
        let name = "my-db".parse().unwrap();
        let (variable, _) = RestoredSource::Folder("/x".into()).variable(&name);
        assert_eq!(variable, "LIFEBOAT_MY_DB_DIR");
        let address = ServerAddress::parse("postgres://postgres@/a%20b?host=/x/my-db").unwrap();
        let (variable, url) = RestoredSource::Postgres(address).variable(&name);
        assert_eq!(
            (variable.as_str(), url.to_str().unwrap()),
            ("LIFEBOAT_MY_DB_URL", "postgres://postgres@/a%20b?host=/x/my-db")
        );
    }
}
