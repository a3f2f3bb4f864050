//! The snapshot itself: one session that exports it, has pg_dump write the schema in it, locks the tables, and makes
//! sure that what is locked is what the snapshot knows.
//!
//! pg_dump runs before our locks are taken, and our locks never queue: a session that waits in line behind an ALTER
//! while another of ours holds what that ALTER waits for would stall everybody, and no server would notice.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use crate::clock::Clock;
use crate::domain::contents::PostgresFacts;
use crate::sources::{Dated, SourceError};

use super::PostgresOptions;
use super::binaries::Tools;
use super::connect::ServerTrouble;
use super::dump::{self, Dumped};
use super::facts;
use super::large_objects::{self, Described};
use super::layout::ListedTable;
use super::session::Session;
use super::tables::{self, Catalog, Standing, Table};
use super::trouble::{is_about_locks, passing, server_error, wrong};
use super::values;

/// How often we begin anew when a table was rewritten under our hands.
const MAX_ATTEMPTS: u32 = 3;
/// Tables in one LOCK statement.
const LOCK_BATCH: usize = 100;
/// How long to wait before a lock that somebody held is asked for again.
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// SQLSTATE `lock_not_available`.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// SQLSTATEs of a table or schema that is not there.
const GONE: [&str; 2] = ["42P01", "3F000"];

/// A snapshot that is held, and what is known of it.
pub(super) struct Led {
    pub(super) leader: Session,
    /// What `SET TRANSACTION SNAPSHOT` takes.
    pub(super) snapshot: String,
    pub(super) recovery_point: DateTime<Utc>,
    pub(super) dated: Dated,
    /// On the monotonic clock, when the snapshot was taken.
    pub(super) held_since: Duration,
    pub(super) catalog: Catalog,
    pub(super) dumped: Dumped,
    /// What pg_dump does not say of large objects, where it does not.
    pub(super) described: Option<Described>,
    pub(super) facts: PostgresFacts,
    /// sequences.sql.
    pub(super) set_sequences: Vec<u8>,
}

/// Why an attempt did not come to its end.
enum Setback {
    /// A table is not what the snapshot says.
    Changed(String),
    Failed(SourceError),
}

impl From<SourceError> for Setback {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

/// Takes the snapshot, anew where a table changed before it was locked.
pub(super) async fn lead(
    options: &PostgresOptions,
    private: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<Led, SourceError> {
    let mut changed = String::new();
    let mut tools = None;
    for _ in 0..MAX_ATTEMPTS {
        match attempt(options, private, clock.as_ref(), &mut tools).await {
            Ok(led) => return Ok(led),
            Err(Setback::Failed(error)) => return Err(with_holders(options, error).await),
            Err(Setback::Changed(what)) => changed = what,
        }
    }
    Err(passing(
        &options.access.address,
        format!("{changed} between the snapshot and the lock, {MAX_ATTEMPTS} times in a row"),
        "run the backup again when no migration or maintenance is at work",
    ))
}

async fn attempt(
    options: &PostgresOptions,
    private: &Path,
    clock: &dyn Clock,
    tools: &mut Option<Tools>,
) -> Result<Led, Setback> {
    let mut leader = Session::open(&options.access).await?;
    let tried = "cannot take a snapshot";
    // A table's size and a sequence's value are asked for under a lock, if only for a moment.
    leader.run(&format!("SET lock_timeout = {}", options.lock_wait_milliseconds()), tried).await?;
    let standing = match leader.value::<bool>("SELECT pg_is_in_recovery()", tried).await? {
        true => Standing::Standby,
        false => Standing::Primary,
    };
    // Asked before the snapshot is taken, so that it is never later than what the snapshot holds.
    let now = clock.now();
    let (recovery_point, dated) = match standing {
        Standing::Primary => (now, Dated::WhenRead),
        Standing::Standby => (replayed(&mut leader, tried).await?, Dated::BySource),
    };
    leader.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", tried).await?;
    let held_since = clock.monotonic();
    let snapshot: String = leader.value("SELECT pg_export_snapshot()", tried).await?;
    let mut catalog = tables::catalog(&mut leader, options, standing).await?;
    let mut facts = facts::of_database(&mut leader, &catalog).await?;
    let tools = match tools {
        Some(tools) => &*tools,
        None => tools.insert(dump::tools(options, facts.server_version_number / 10_000).await?),
    };
    let dumped = match dump::dump(options, tools, private, &snapshot, &catalog).await {
        // The snapshot lists it, and its lock cannot be had any more.
        Err(SourceError::Server { what, .. }) if what.contains("relation \"") && what.contains("does not exist") => {
            return Err(Setback::Changed(format!("a table was dropped ({what})")));
        }
        dumped => dumped?,
    };
    facts.role_passwords = dumped.role_passwords;
    let described = match tools.major >= large_objects::DATA_SINCE {
        true => large_objects::describe(&mut leader, private).await?,
        false => None,
    };
    lock_tables(&mut leader, options, clock, &mut catalog.tables).await?;
    let mut sequences = match values::sequences(&mut leader, &catalog.sequences).await {
        Err(trouble) if is_gone(&trouble) => return Err(Setback::Changed("a sequence was dropped".to_owned())),
        read => read.map_err(|trouble| leader.wrong("cannot read the sequences", trouble))?,
    };
    let set_sequences = values::set_sequences(&sequences);
    sequences.sort_by(|one, other| (&one.schema, &one.name).cmp(&(&other.schema, &other.name)));
    facts.sequences = Some(sequences);
    Ok(Led { leader, snapshot, recovery_point, dated, held_since, catalog, dumped, described, facts, set_sequences })
}

/// Up to when a standby has what its primary has. Its last transaction is that of its primary which may have had none for
/// days, so where we may ask (pg_read_all_stats) it counts when the primary last said that there is nothing more. One that
/// was started and has seen no transaction since has all that was committed before the checkpoint that it began with.
async fn replayed(leader: &mut Session, tried: &str) -> Result<DateTime<Utc>, SourceError> {
    let last = "SELECT extract(epoch FROM greatest(pg_last_xact_replay_timestamp(), (SELECT last_msg_send_time \
         FROM pg_stat_wal_receiver WHERE status = 'streaming' AND latest_end_lsn <= pg_last_wal_replay_lsn())))::float8";
    let checkpoint = "SELECT extract(epoch FROM checkpoint_time)::float8 FROM pg_control_checkpoint()";
    let seconds = match leader.value::<Option<f64>>(last, tried).await? {
        Some(seconds) => seconds,
        None => leader.value::<f64>(checkpoint, tried).await?,
    };
    // Microseconds since 1970 fit both numbers.
    DateTime::from_timestamp_micros((seconds * 1e6).round() as i64)
        .ok_or_else(|| wrong(&leader.access.address, "the server's last transaction is at no time that there is", None))
}

/// Who has a table for himself, or is next to have it: those stand in our way.
const HOLDERS: &str = "SELECT DISTINCT n.nspname::text || '.' || c.relname::text, coalesce(l.pid, 0) FROM pg_locks l \
     JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND c.relkind IN ('r', 'p', 'm', 'v', 'f') \
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1, 2 LIMIT 5";

/// Puts to a failure that is about locks who holds them: the server names neither him nor, always, the table.
async fn with_holders(options: &PostgresOptions, error: SourceError) -> SourceError {
    let (server, mut what, mut hint, transient) = match error {
        SourceError::Server { server, what, hint, transient } if is_about_locks(&what) => {
            (server, what, hint, transient)
        }
        other => return other,
    };
    // Where they cannot be asked for, what went wrong is at hand all the same.
    for (table, process) in holders(options).await.unwrap_or_default() {
        let (holder, end) = match process {
            0 => (
                "a prepared transaction".to_owned(),
                "ROLLBACK PREPARED ends it: select * from pg_prepared_xacts".into(),
            ),
            _ => (format!("process {process}"), format!("select pg_terminate_backend({process}) ends it")),
        };
        if let Some(hint) = hint.as_mut().filter(|hint| !hint.contains(" ends it")) {
            hint.push_str(&format!("; {end}"));
        }
        what.push_str(&format!("; {holder} has {table} for itself, or waits to"));
    }
    SourceError::Server { server, what, hint, transient }
}

async fn holders(options: &PostgresOptions) -> Result<Vec<(String, i32)>, SourceError> {
    let tried = "cannot see who holds locks";
    let mut session = Session::open(&options.access).await?;
    let rows = session.rows(HOLDERS, tried).await?;
    let holders: Result<_, sqlx::Error> = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect();
    let holders = holders.map_err(|error| session.wrong(tried, error));
    session.close().await;
    holders
}

/// Half of what the server's lock table is sure to hold: the rest is the application's.
const LOCK_BUDGET: &str = "SELECT current_setting('max_locks_per_transaction')::int8 \
     * (current_setting('max_connections')::int8 + current_setting('max_prepared_transactions')::int8) / 2";

/// Locks as many tables as the server has room for, the first by oid; whoever reads another locks it himself.
async fn lock_tables(
    leader: &mut Session,
    options: &PostgresOptions,
    clock: &dyn Clock,
    tables: &mut [Table],
) -> Result<(), Setback> {
    let budget = usize::try_from(leader.value::<i64>(LOCK_BUDGET, "cannot lock the tables").await?).unwrap_or(0);
    let within = budget.min(tables.len());
    let patience = Patience { limit: options.max_lock_wait, since: clock.monotonic(), clock };
    for batch in tables[..within].chunks_mut(LOCK_BATCH) {
        let listed: Vec<&ListedTable> = batch.iter().map(|table| &table.listed).collect();
        match lock(leader, &listed, &patience).await {
            Ok(()) => {}
            Err(Refused::Gone) => return Err(Setback::Changed(format!("{} was dropped", shown(&listed)))),
            Err(Refused::Failed(trouble)) => {
                let tried = format!("cannot lock {}", shown(&listed));
                return Err(Setback::Failed(server_error(&options.access.address, tried, trouble)));
            }
        }
        for table in batch {
            table.locked = true;
        }
    }
    let oids: Vec<u32> = tables[..within].iter().map(|table| table.listed.oid).collect();
    match rewritten(leader, &oids).await?.first() {
        None => Ok(()),
        Some(name) => Err(Setback::Changed(format!("{name} was rewritten"))),
    }
}

fn shown(tables: &[&ListedTable]) -> String {
    match tables {
        [one] => one.shown(),
        [first, rest @ ..] => format!("{} or one of {} other tables", first.shown(), rest.len()),
        [] => String::new(),
    }
}

/// How long a lock may be asked for again and again.
pub(super) struct Patience<'a> {
    pub(super) limit: Duration,
    pub(super) since: Duration,
    pub(super) clock: &'a dyn Clock,
}

/// Why there is no lock.
pub(super) enum Refused {
    /// There is no such table any more.
    Gone,
    Failed(ServerTrouble),
}

/// Locks tables against being altered, without ever standing in line for it.
pub(super) async fn lock(
    session: &mut Session,
    tables: &[&ListedTable],
    patience: &Patience<'_>,
) -> Result<(), Refused> {
    let names: Vec<String> = tables.iter().map(|table| format!("ONLY {}", table.qualified())).collect();
    let statement = format!("SAVEPOINT locking; LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT", names.join(", "));
    loop {
        let trouble = match session.try_run(&statement).await {
            // The savepoint is forgotten and the locks stay.
            Ok(()) => return session.try_run("RELEASE SAVEPOINT locking").await.map_err(Refused::Failed),
            Err(trouble) => trouble,
        };
        if is_gone(&trouble) {
            return Err(Refused::Gone);
        }
        let waited = patience.clock.monotonic().saturating_sub(patience.since);
        if trouble.state().as_deref() != Some(LOCK_NOT_AVAILABLE) || waited >= patience.limit {
            return Err(Refused::Failed(trouble));
        }
        session.try_run("ROLLBACK TO SAVEPOINT locking; RELEASE SAVEPOINT locking").await.map_err(Refused::Failed)?;
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

fn is_gone(trouble: &ServerTrouble) -> bool {
    trouble.state().is_some_and(|state| GONE.contains(&state.as_str()))
}

/// A table as the snapshot knows it, beside what the server knows of it now. Its file: TRUNCATE and most of ALTER TABLE
/// give it a new one, in which the snapshot sees nothing at all. Its name: what has it now may be another table, just as
/// empty for us. Its columns' names: what has one now may be a column that came later, with nothing in it. (The functions
/// look at what is there, and not at what the snapshot sees.)
const REWRITTEN: &str = "SELECT n.nspname::text || '.' || c.relname::text FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (SELECT unnest($1)::oid) \
     AND (pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode \
     OR (SELECT own.identity FROM pg_identify_object('pg_class'::regclass, c.oid, 0) AS own) \
        IS DISTINCT FROM format('%I.%I', n.nspname, c.relname) \
     OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
        AND (SELECT own.identity FROM pg_identify_object('pg_class'::regclass, c.oid, a.attnum) AS own) \
            IS DISTINCT FROM format('%I.%I.%I', n.nspname, c.relname, a.attname)))";

/// Those of some locked tables that are not any more what the snapshot knows.
pub(super) async fn rewritten(session: &mut Session, oids: &[u32]) -> Result<Vec<String>, SourceError> {
    let tried = "cannot compare the tables with the snapshot";
    let rows = session.rows_of(REWRITTEN, oids, tried).await?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(|error| session.wrong(tried, error))
}
