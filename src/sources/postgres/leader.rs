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
use crate::sources::SourceError;

use super::PostgresOptions;
use super::binaries::Tools;
use super::connect::ServerTrouble;
use super::dump::{self, Dumped};
use super::facts;
use super::large_objects::{self, Described};
use super::layout::ListedTable;
use super::session::Session;
use super::tables::{self, Catalog, Standing, Table};
use super::trouble::{passing, server_error};
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
    /// On the monotonic clock, when the snapshot was taken.
    pub(super) held_since: Duration,
    pub(super) catalog: Catalog,
    pub(super) dumped: Dumped,
    /// What pg_dump does not say of large objects, where it does not.
    pub(super) described: Option<Described>,
    pub(super) facts: PostgresFacts,
    /// sequences.sql.
    pub(super) sequences: Vec<u8>,
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
            Err(Setback::Failed(error)) => return Err(error),
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
    let standing = match leader.value::<bool>("SELECT pg_is_in_recovery()", tried).await? {
        true => Standing::Standby,
        false => Standing::Primary,
    };
    // Asked before the snapshot is taken, so that it is never later than what the snapshot holds.
    let now = clock.now();
    let recovery_point = match standing {
        Standing::Primary => now,
        Standing::Standby => {
            let replayed: Option<DateTime<Utc>> =
                leader.value::<Option<f64>>(REPLAYED, tried).await?.and_then(|seconds| {
                    // Microseconds since 1970 fit both numbers.
                    DateTime::from_timestamp_micros((seconds * 1e6) as i64)
                });
            replayed.unwrap_or(now)
        }
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
    let dumped = dump::dump(options, tools, private, &snapshot, &catalog).await?;
    facts.role_passwords = dumped.role_passwords;
    let described = match tools.major >= large_objects::DATA_SINCE {
        true => large_objects::describe(&mut leader, private).await?,
        false => None,
    };
    lock_tables(&mut leader, options, clock, &mut catalog.tables).await?;
    let sequences = match values::sequences(&mut leader, &catalog.sequences).await {
        Err(trouble) if is_gone(&trouble) => return Err(Setback::Changed("a sequence was dropped".to_owned())),
        read => read.map_err(|trouble| leader.wrong("cannot read the sequences", trouble))?,
    };
    Ok(Led { leader, snapshot, recovery_point, held_since, catalog, dumped, described, facts, sequences })
}

const REPLAYED: &str = "SELECT extract(epoch FROM pg_last_xact_replay_timestamp())::float8";

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

/// A table's file as the snapshot knows it, beside the file that it has now: TRUNCATE and most of ALTER TABLE give it a
/// new one, in which the snapshot sees nothing at all.
const REWRITTEN: &str = "SELECT n.nspname::text || '.' || c.relname::text FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (SELECT unnest($1)::oid) \
     AND pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode";

/// Those of some locked tables that are not any more what the snapshot knows.
pub(super) async fn rewritten(session: &mut Session, oids: &[u32]) -> Result<Vec<String>, SourceError> {
    let tried = "cannot compare the tables with the snapshot";
    let rows = session.rows_of(REWRITTEN, oids, tried).await?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(|error| session.wrong(tried, error))
}
