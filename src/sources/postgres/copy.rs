//! The readers: each a session in the same snapshot that takes the next task, copies its rows and packs them into
//! members. What they read comes out in the order of the tasks.
//!
//! Memory has a bound: each task has a channel of [`CHANNEL_PORTIONS`], and a reader waits with a task that is more
//! than [`TASKS_AHEAD`] in front of the one whose portions are being taken. The task at the front never waits for
//! another, so there is always somebody who goes on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::sources::SourceError;

use super::connect::Access;
use super::facts::Tally;
use super::layout::{ListedTable, Part};
use super::leader::{self, Patience, Refused};
use super::pieces::{Counted, Filled, MAX_MEMBER_BYTES, Portion};
use super::plan::{RangeEnd, Task};
use super::session::Session;
use super::tables::Table;
use super::trouble::{passing, server_error};
use super::watch::Alarm;

/// Finished portions that a task may be ahead of whoever takes them.
const CHANNEL_PORTIONS: usize = 2;
/// Tasks that each reader may be ahead of the one whose portions are being taken.
const TASKS_AHEAD: usize = 4;
/// Small tables share a piece until it holds this much.
const SHARED_BYTES: usize = 1024 * 1024;

/// What all readers need.
pub(super) struct Reading {
    pub(super) access: Access,
    pub(super) snapshot: String,
    pub(super) encoding: String,
    pub(super) connections: usize,
    pub(super) max_lock_wait: Duration,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) alarm: Arc<Alarm>,
    pub(super) tables: Vec<Table>,
    /// One for each table.
    pub(super) tallies: Vec<Arc<Tally>>,
}

/// What goes through a task's channel.
enum Parcel {
    Portion(Portion),
    /// The task is done. A channel that closes without it belongs to a reader that fell over.
    End,
}

/// The readers, and what comes from them. Dropped, they end and their connections close.
pub(super) struct Readers {
    started: mpsc::UnboundedReceiver<mpsc::Receiver<Parcel>>,
    current: Option<mpsc::Receiver<Parcel>>,
    /// How many tasks have been taken up.
    front: watch::Sender<usize>,
    /// How many tasks there are.
    total: usize,
    alarm: Arc<Alarm>,
    _running: JoinSet<()>,
}

/// Tasks that nobody has taken yet. Taking one and announcing where its portions come out is one step, so that the
/// announcements have the order of the tasks.
struct Queue {
    tasks: VecDeque<Task>,
    taken: usize,
    started: mpsc::UnboundedSender<mpsc::Receiver<Parcel>>,
}

impl Readers {
    /// Starts them on the runtime that this is called in.
    pub(super) fn start(reading: Arc<Reading>, tasks: Vec<Task>) -> Self {
        let (announce, started) = mpsc::unbounded_channel();
        let (front, _) = watch::channel(0);
        let total = tasks.len();
        let readers = reading.connections.min(total);
        let queue = Arc::new(Mutex::new(Queue { tasks: tasks.into(), taken: 0, started: announce }));
        let mut running = JoinSet::new();
        for _ in 0..readers {
            let (reading, queue, front) = (Arc::clone(&reading), Arc::clone(&queue), front.subscribe());
            running.spawn(async move {
                let alarm = Arc::clone(&reading.alarm);
                tokio::select! {
                    ended = read(&reading, &queue, front) => if let Err(error) = ended { alarm.raise(error) },
                    () = alarm.raised() => {}
                }
            });
        }
        Self { started, current: None, front, total, alarm: reading.alarm.clone(), _running: running }
    }

    /// The next portion in order; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Portion>, SourceError> {
        loop {
            let Some(current) = &mut self.current else {
                let next = tokio::select! {
                    biased;
                    () = self.alarm.raised() => return Err(self.alarm.error()),
                    next = self.started.recv() => next,
                };
                match next {
                    Some(receiver) => {
                        self.current = Some(receiver);
                        self.front.send_modify(|front| *front += 1);
                        continue;
                    }
                    // Nobody is left to announce anything.
                    None if *self.front.borrow() == self.total => return Ok(None),
                    None => return Err(self.alarm.error()),
                }
            };
            let next = tokio::select! {
                biased;
                () = self.alarm.raised() => return Err(self.alarm.error()),
                next = current.recv() => next,
            };
            match next {
                Some(Parcel::Portion(portion)) => return Ok(Some(portion)),
                Some(Parcel::End) => self.current = None,
                None => return Err(self.alarm.error()),
            }
        }
    }
}

/// One reader, until there is no task left or nobody takes what it reads.
async fn read(reading: &Reading, queue: &Mutex<Queue>, mut front: watch::Receiver<usize>) -> Result<(), SourceError> {
    let mut session = Session::open_in(&reading.access, &reading.snapshot).await?;
    reading.alarm.watch_session(session.pid);
    let mut held = None;
    loop {
        let (number, task, portions) = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(task) = queue.tasks.pop_front() else { break };
            let (portions, receiver) = mpsc::channel(CHANNEL_PORTIONS);
            queue.taken += 1;
            if queue.started.send(receiver).is_err() {
                break;
            }
            (queue.taken, task, portions)
        };
        let window = reading.connections * TASKS_AHEAD;
        if front.wait_for(|front| number <= front + window).await.is_err() {
            break;
        }
        let mut packer = Packer { portions, front: front.clone(), number, members: Vec::new(), bytes: 0 };
        let copied = copy_task(reading, &mut session, &mut held, &task, &mut packer).await;
        match copied {
            Ok(()) => {}
            Err(Stop::Unwanted) => break,
            Err(Stop::Failed(error)) => {
                // Before the channel closes, so that whoever waits at it finds the reason.
                reading.alarm.raise(error);
                return Ok(());
            }
        }
    }
    session.close().await;
    Ok(())
}

/// Why a task ended early.
enum Stop {
    /// Nobody takes what is read.
    Unwanted,
    Failed(SourceError),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

async fn copy_task(
    reading: &Reading,
    session: &mut Session,
    held: &mut Option<usize>,
    task: &Task,
    packer: &mut Packer,
) -> Result<(), Stop> {
    match task {
        Task::Range { table, first, end } => {
            hold(reading, session, held, *table).await?;
            copy_range(reading, session, *table, *first, *end, packer).await?;
        }
        Task::Group(tables) => {
            for &table in tables {
                hold(reading, session, held, table).await?;
                copy_range(reading, session, table, 0, RangeEnd::Whole, packer).await?;
                if packer.bytes >= SHARED_BYTES {
                    packer.flush().await?;
                }
            }
        }
    }
    packer.flush().await?;
    packer.send(Parcel::End).await
}

/// Locks the table and gives up the one before. The leader's lock would do for most, but COPY asks for its own, and
/// would stand in line for it.
async fn hold(
    reading: &Reading,
    session: &mut Session,
    held: &mut Option<usize>,
    table: usize,
) -> Result<(), SourceError> {
    if *held == Some(table) {
        return Ok(());
    }
    let Table { listed, locked, .. } = &reading.tables[table];
    let address = &reading.access.address;
    let tried = || format!("cannot lock {}", listed.shown());
    let turn = if held.is_some() {
        "ROLLBACK TO SAVEPOINT holding; RELEASE SAVEPOINT holding; SAVEPOINT holding"
    } else {
        "SAVEPOINT holding"
    };
    session.run(turn, &tried()).await?;
    let clock = reading.clock.as_ref();
    let patience = Patience { limit: reading.max_lock_wait, since: clock.monotonic(), clock };
    let again = "run the backup again, away from migrations";
    match leader::lock(session, &[listed], &patience).await {
        Ok(()) => {}
        Err(Refused::Gone) => {
            return Err(passing(address, format!("{} was dropped while it was to be read", listed.shown()), again));
        }
        Err(Refused::Failed(trouble)) => return Err(server_error(address, tried(), trouble)),
    }
    if !locked && !leader::rewritten(session, &[listed.oid]).await?.is_empty() {
        return Err(passing(address, format!("{} was rewritten before it could be read", listed.shown()), again));
    }
    *held = Some(table);
    Ok(())
}

/// Copies some pages of a table. The statement that takes the rows back stands in front of the first.
async fn copy_range(
    reading: &Reading,
    session: &mut Session,
    table: usize,
    first: u32,
    end: RangeEnd,
    packer: &mut Packer,
) -> Result<(), Stop> {
    let Table { listed, condition, .. } = &reading.tables[table];
    if first == 0 {
        let statement = Bytes::from(listed.copy_in(&reading.encoding));
        packer.push(Filled { part: Part::CopyStatement { oid: listed.oid }, bytes: statement, counted: None });
    }
    let counted =
        Counted { tally: Arc::clone(&reading.tallies[table]), binary: listed.binary, table: listed.shown().into() };
    let mut members = Members { oid: listed.oid, first_page: first, part: 0, counted, rows: Vec::new() };
    let wrong = |trouble| Stop::Failed(server_error(&reading.access.address, cannot_read(listed), trouble));
    if listed.binary {
        // The texts in binary rows have the session's encoding.
        let sql = format!("SET LOCAL client_encoding = {}", super::layout::literal(&reading.encoding));
        session.run(&sql, &cannot_read(listed)).await?;
    }
    let statement = listed.copy_out(end.pages(first), condition.as_deref(), &reading.encoding);
    let mut rows = session.connection.copy_out_raw(&statement).await.map_err(wrong)?;
    while let Some(row) = rows.try_next().await.map_err(wrong)? {
        members.add(row, packer).await?;
    }
    drop(rows);
    members.close(packer).await?;
    if listed.binary {
        session.run("SET LOCAL client_encoding = 'UTF8'", &cannot_read(listed)).await?;
    }
    Ok(())
}

fn cannot_read(table: &ListedTable) -> String {
    format!("cannot read {}", table.shown())
}

/// The members of one range.
struct Members {
    oid: u32,
    first_page: u32,
    part: u32,
    counted: Counted,
    /// Rows of the member that is being filled.
    rows: Vec<u8>,
}

impl Members {
    /// Adds one message of the server's, which is one row.
    async fn add(&mut self, row: Bytes, packer: &mut Packer) -> Result<(), Stop> {
        if self.rows.len() + row.len() > MAX_MEMBER_BYTES {
            self.close(packer).await?;
        }
        if row.len() > MAX_MEMBER_BYTES {
            let member = self.filled(row);
            return packer.send_large(member).await;
        }
        if self.rows.capacity() == 0 {
            // Grows by doubling to a member's size; what is short stays short.
            self.rows.reserve(row.len().max(8192));
        }
        self.rows.extend_from_slice(&row);
        Ok(())
    }

    async fn close(&mut self, packer: &mut Packer) -> Result<(), Stop> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = Bytes::from(std::mem::take(&mut self.rows));
        packer.push(self.filled(rows));
        if packer.bytes >= SHARED_BYTES { packer.flush().await } else { Ok(()) }
    }

    fn filled(&mut self, bytes: Bytes) -> Filled {
        let part = Part::Rows { oid: self.oid, first_page: self.first_page, part: self.part };
        self.part += 1;
        Filled { part, bytes, counted: Some(self.counted.clone()) }
    }
}

/// Puts members together to portions, and hands these on.
struct Packer {
    portions: mpsc::Sender<Parcel>,
    front: watch::Receiver<usize>,
    number: usize,
    members: Vec<Filled>,
    bytes: usize,
}

impl Packer {
    fn push(&mut self, member: Filled) {
        self.bytes += member.bytes.len();
        self.members.push(member);
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        if self.members.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let members = std::mem::take(&mut self.members);
        self.send(Parcel::Portion(Portion::Several(members))).await
    }

    /// A long row waits until its task is at the front, so that no other reader's lies in a channel meanwhile.
    async fn send_large(&mut self, member: Filled) -> Result<(), Stop> {
        self.flush().await?;
        let number = self.number;
        self.front.wait_for(|front| *front >= number).await.map_err(|_| Stop::Unwanted)?;
        self.send(Parcel::Portion(Portion::Large(member))).await
    }

    async fn send(&mut self, parcel: Parcel) -> Result<(), Stop> {
        self.portions.send(parcel).await.map_err(|_| Stop::Unwanted)
    }
}
