//! Looks after what a backup costs others: who waits for a lock of ours, and how long the snapshot keeps the server
//! from cleaning up. Where a bound is passed it raises an alarm: everything stops, and every lock is given back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Row as _;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::domain::contents::{Note, NoteClass, RawText};
use crate::sources::SourceError;

use super::connect::Access;
use super::session::Session;
use super::trouble::{passing, wrong};

/// How often to look.
const EVERY: Duration = Duration::from_secs(1);
/// How long a look may take: a connection that hangs says nothing, and the clock goes on.
const LOOK_LIMIT: Duration = Duration::from_secs(20);
/// How often in a row looking may fail before that is what the run fails of.
const MAX_FAILURES: u32 = 3;
/// Of a waiting statement, how much is shown.
const SHOWN_CHARACTERS: usize = 60;

/// Stops everything, once, for one reason.
pub(super) struct Alarm {
    state: Mutex<State>,
    raised: watch::Sender<bool>,
    server: String,
}

#[derive(Default)]
struct State {
    error: Option<SourceError>,
    /// The server's processes that work for us.
    sessions: Vec<i32>,
    notes: Vec<Note>,
}

impl Alarm {
    pub(super) fn new(server: String) -> Self {
        Self { state: Mutex::default(), raised: watch::channel(false).0, server }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first reason is kept.
    pub(super) fn raise(&self, error: SourceError) {
        self.state().error.get_or_insert(error);
        self.raised.send_replace(true);
    }

    pub(super) fn is_raised(&self) -> bool {
        *self.raised.borrow()
    }

    /// Returns when it is raised.
    pub(super) async fn raised(&self) {
        let mut raised = self.raised.subscribe();
        // The sender lives as long as this.
        let _ = raised.wait_for(|raised| *raised).await;
    }

    /// Why it was raised; said in full to the first who asks.
    pub(super) fn error(&self) -> SourceError {
        self.state().error.take().unwrap_or_else(|| SourceError::Server {
            server: self.server.clone(),
            what: "reading was stopped".to_owned(),
            hint: None,
            transient: false,
        })
    }

    /// Another of the server's processes works for us.
    pub(super) fn watch_session(&self, pid: i32) {
        self.state().sessions.push(pid);
    }

    pub(super) fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut self.state().notes)
    }
}

/// What the watch may not let pass.
pub(super) struct Limits {
    pub(super) max_lock_wait: Duration,
    pub(super) max_snapshot: Duration,
    /// On the monotonic clock.
    pub(super) held_since: Duration,
}

/// Who waits for a lock on a table that one of our sessions has locked too.
const WAITING: &str = "SELECT DISTINCT w.pid, coalesce(n.nspname::text || '.' || c.relname::text, w.relation::text), \
     coalesce(a.query, '') FROM pg_locks w \
     JOIN pg_locks h ON h.locktype = 'relation' AND h.database = w.database AND h.relation = w.relation \
        AND h.granted AND h.pid = ANY ($1) \
     LEFT JOIN pg_class c ON c.oid = w.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_stat_activity a ON a.pid = w.pid \
     WHERE NOT w.granted AND w.locktype = 'relation' AND w.pid <> ALL ($1)";

/// Looks every second until it is dropped or has raised the alarm.
pub(super) async fn watch(access: Access, limits: Limits, clock: Arc<dyn Clock>, alarm: Arc<Alarm>) {
    let mut session = None;
    let mut failures = 0;
    let mut waiting = BTreeMap::new();
    let mut is_half_noted = false;
    loop {
        tokio::time::sleep(EVERY).await;
        let held = clock.monotonic().saturating_sub(limits.held_since);
        if held >= limits.max_snapshot {
            let error = wrong(
                &access.address,
                format!("the snapshot was held for {} s, as long as max_snapshot allows", held.as_secs()),
                Some("raise max_snapshot, or make the backup faster: more connections, a faster storage".to_owned()),
            );
            return alarm.raise(error);
        }
        if held >= limits.max_snapshot / 2 && !is_half_noted {
            is_half_noted = true;
            alarm.state().notes.push(Note {
                class: NoteClass::Changed,
                path: RawText::from(access.address.database.as_str()),
                detail: format!(
                    "the snapshot was held for more than half of max_snapshot ({} s); the server cannot clean up \
                     meanwhile",
                    limits.max_snapshot.as_secs()
                ),
            });
        }
        let looked = match tokio::time::timeout(LOOK_LIMIT, look(&access, &mut session, &alarm)).await {
            Ok(looked) => looked,
            Err(_) => Err(passing(
                &access.address,
                format!("it did not answer within {} s", LOOK_LIMIT.as_secs()),
                "see that the server runs and can be reached, then run the backup again",
            )),
        };
        match looked {
            Ok(found) => {
                failures = 0;
                let now = clock.monotonic();
                waiting.retain(|waiter, _| found.iter().any(|(pid, table, _)| (*pid, table.clone()) == *waiter));
                for (pid, table, statement) in found {
                    let since = *waiting.entry((pid, table.clone())).or_insert(now);
                    if now.saturating_sub(since) >= limits.max_lock_wait {
                        return alarm.raise(too_long(&access, &limits, pid, &table, &statement));
                    }
                }
            }
            Err(error) => {
                session = None;
                failures += 1;
                if failures >= MAX_FAILURES {
                    return alarm.raise(error);
                }
            }
        }
    }
}

type Waiter = (i32, String, String);

async fn look(access: &Access, session: &mut Option<Session>, alarm: &Alarm) -> Result<Vec<Waiter>, SourceError> {
    let tried = "cannot see who waits for us";
    let session = match session {
        Some(session) => session,
        None => session.insert(Session::open(access).await?),
    };
    let ours = alarm.state().sessions.clone();
    let rows = sqlx::query(WAITING).persistent(false).bind(ours).fetch_all(&mut session.connection).await;
    let rows = rows.map_err(|error| session.wrong(tried, error))?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|error| session.wrong(tried, error))
}

fn too_long(access: &Access, limits: &Limits, pid: i32, table: &str, statement: &str) -> SourceError {
    let shown: String = statement.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect();
    passing(
        &access.address,
        format!(
            "process {pid} waited for {} s for a lock on {table} that the backup holds ({shown}); the backup gave way",
            limits.max_lock_wait.as_secs()
        ),
        "run it again away from migrations, or raise max_lock_wait",
    )
}
