//! From the plan into the tables: some threads follow the plan, some fetch and open segments, some put rows into tables,
//! each by a connection of its own.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::operations::host::Host;
use crate::operations::lock;
use crate::sources::postgres::layout::Part;
use crate::sources::postgres::load::{Filling, Loader, Tables, Worker};
use crate::sources::tar::BLOCK_BYTES;
use crate::sources::tar::read::{entries, large};
use crate::storage::ahead::ROOM_BYTES;
use crate::vault::ahead::{Begun, Segments, Step, Take, Walk};
use crate::vault::reader::{Located, Plan, PlannedPiece, Reader};

use super::lanes::{Census, Lanes};
use super::parts;

/// Pieces that may wait to be fetched, and as many opened ones to be loaded, for each loading thread.
const WAITING_PER_JOB: usize = 2;

/// Rows and bytes that went in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Total {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// A piece on its way.
enum Task {
    /// A segment of whole members.
    Whole(Begun),
    /// A long member: the head, and where its data lies.
    Long { part: Part, data_bytes: u64, segments: Vec<Located> },
}

/// A task whose segment is opened, if it has but one.
enum Opened {
    Whole(Vec<u8>),
    Long { part: Part, data_bytes: u64, segments: Vec<Located> },
}

/// Where tasks wait for the threads of a stage.
type Queue<T> = Mutex<Receiver<T>>;

/// Which pieces are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Those of one lane, by one connection, table by table.
    Lane(usize),
    /// Those that are no lane's, by all connections.
    Everybody,
}

impl Whose {
    fn tables(self) -> Tables {
        match self {
            Self::Lane(_) => Tables::Own,
            Self::Everybody => Tables::Shared,
        }
    }
}

/// What the threads of a load share.
struct Run<'a> {
    host: &'a Host,
    reader: &'a Reader,
    id_key: [u8; 32],
    /// Connections, and threads that load.
    jobs: usize,
    filling: &'a Filling,
    lanes: Lanes,
    failure: Mutex<Option<Error>>,
    total: Mutex<Total>,
    progress: &'a dyn Progress,
}

/// Puts the rows of a source into the database. `open_plan` begins at the source's first piece.
pub(super) fn fill(
    host: &Host,
    reader: &Reader,
    open_plan: &dyn Fn() -> Result<Plan>,
    mut loader: Loader,
    jobs: u32,
    progress: &dyn Progress,
) -> Result<(Filling, Total)> {
    let mut plan = open_plan()?;
    let id_key = plan.id_key();
    // Everything in front of the first rows; the piece that follows is the first one to be loaded. Where the head's
    // members share it with none of those, its segment is fetched here and not again.
    let first = loop {
        let Some(piece) = plan.next_piece()? else { break None };
        host.check_interrupted()?;
        if !parts(&piece).into_iter().any(Part::is_head) {
            break Some(piece);
        }
        take_head(reader, &id_key, &piece, &mut loader, progress)?;
    };
    let filling = loader.prepare(host.interrupt.raised())?;
    let jobs = usize::try_from(jobs).unwrap_or(1).max(1);
    let lanes = if filling.may_skip_log() { census(host, open_plan()?)?.deal(jobs) } else { Lanes::default() };
    let run = Run {
        host,
        reader,
        id_key,
        jobs,
        filling: &filling,
        lanes,
        failure: Mutex::new(None),
        total: Mutex::new(Total::default()),
        progress,
    };
    let plans = (0..run.lanes.count()).map(|_| open_plan()).collect::<Result<Vec<Plan>>>()?;
    std::thread::scope(|scope| {
        for (lane, plan) in plans.into_iter().enumerate() {
            run.begin(scope, Whose::Lane(lane), plan, None);
        }
    });
    if !run.has_failed() {
        std::thread::scope(|scope| run.begin(scope, Whose::Everybody, plan, first));
    }
    let total = *lock(&run.total);
    match run.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok((filling, total)),
    }
}

/// What the plan holds of which table.
fn census(host: &Host, mut plan: Plan) -> Result<Census> {
    let mut census = Census::default();
    while let Some(piece) = plan.next_piece()? {
        host.check_interrupted()?;
        census.add(&piece);
    }
    Ok(census)
}

impl Run<'_> {
    /// Starts the threads that load some of the pieces.
    fn begin<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        whose: Whose,
        mut plan: Plan,
        first: Option<PlannedPiece>,
    ) {
        // What one connection takes table by table must be opened in the same order.
        let (connections, fetchers) = match whose {
            Whose::Lane(_) => (1, 1),
            Whose::Everybody => (self.jobs, self.host.workers),
        };
        let waiting = connections * WAITING_PER_JOB;
        let (to_fetch, fetching) = sync_channel::<Task>(waiting);
        let (to_load, loading) = sync_channel::<Opened>(waiting);
        let (fetching, loading) = (Arc::new(Mutex::new(fetching)), Arc::new(Mutex::new(loading)));
        for _ in 0..fetchers {
            let (fetching, to_load) = (Arc::clone(&fetching), to_load.clone());
            scope.spawn(move || self.fetch(&fetching, &to_load));
        }
        for _ in 0..connections {
            let loading = Arc::clone(&loading);
            scope.spawn(move || self.load(whose, &loading));
        }
        // The threads alone hold them now: when the last has panicked, sending fails instead of waiting for ever.
        drop((fetching, loading, to_load));
        scope.spawn(move || {
            if let Err(error) = self.feed(whose, first, &mut plan, &to_fetch) {
                self.fail(error);
            }
        });
    }

    /// Bytes that one of so many may have asked for.
    fn room_bytes(sharing: usize) -> u32 {
        ROOM_BYTES / u32::try_from(sharing).unwrap_or(u32::MAX).max(1)
    }

    fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
    }

    fn has_failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    /// Follows the plan, as far as it is wanted.
    fn feed(&self, whose: Whose, first: Option<PlannedPiece>, plan: &mut Plan, tasks: &SyncSender<Task>) -> Result<()> {
        let closed = |_| Error::new(Code::Internal, "the restoring threads are gone");
        // A piece without members is tar's end: who restores everything reads it too, so that its damage is noticed. A
        // long member is read by whoever loads it.
        let wanted = |piece: &PlannedPiece| {
            let parts = parts(piece);
            let is_ours = match whose {
                Whose::Lane(lane) => self.lanes.takes(lane, &parts),
                Whose::Everybody => self.lanes.left(&parts),
            };
            let wanted = self.filling.is_whole() || parts.into_iter().any(|part| self.wants(part));
            if is_ours && wanted { Take::Head } else { Take::Nothing }
        };
        let lanes = if whose == Whose::Everybody { 1 } else { self.lanes.count() };
        let mut walk = Walk::new(Segments::new(self.reader, Self::room_bytes(lanes)), plan, &wanted).behind(first);
        while let Some(step) = walk.step()? {
            self.host.check_interrupted()?;
            if self.has_failed() {
                return Ok(());
            }
            let task = match step {
                Step::LeftOut => continue,
                Step::Whole(segment) | Step::Data(segment) => Task::Whole(segment),
                Step::Head { head, rest } => {
                    let head = large(&head.open(&self.id_key)?)?;
                    Task::Long { part: part_of(&head.member.path.0)?, data_bytes: head.data_bytes, segments: rest }
                }
            };
            tasks.send(task).map_err(closed)?;
        }
        Ok(())
    }

    fn wants(&self, part: Part) -> bool {
        match part {
            Part::Rows { oid, .. } => self.filling.wants(oid),
            Part::LargeObjects { .. } | Part::Sequences => self.filling.is_whole(),
            _ => false,
        }
    }

    /// Fetches and opens until nothing is left. After a failure the channel is emptied, so that nobody waits.
    fn fetch(&self, tasks: &Queue<Task>, opened: &SyncSender<Opened>) {
        while let Some(task) = next(tasks) {
            if self.has_failed() {
                continue;
            }
            let ready = match task {
                Task::Whole(segment) => segment.open(&self.id_key).map(Opened::Whole),
                Task::Long { part, data_bytes, segments } => Ok(Opened::Long { part, data_bytes, segments }),
            };
            match ready {
                // Nobody is left to load it where that fails, and they have said why.
                Ok(ready) => drop(opened.send(ready)),
                Err(error) => self.fail(error.into()),
            }
        }
    }

    /// Loads until nothing is left.
    fn load(&self, whose: Whose, opened: &Queue<Opened>) {
        let mut worker = None;
        while let Some(task) = next(opened) {
            if self.has_failed() {
                continue;
            }
            if let Err(error) = self.load_one(whose, &mut worker, task) {
                self.fail(error);
            }
        }
        // What is not ended after a failure is undone with the connection.
        if let Some(mut worker) = worker.filter(|_| !self.has_failed())
            && let Err(error) = worker.end()
        {
            self.fail(error.into());
        }
        if let Whose::Lane(_) = whose {
            self.lanes.done();
        }
    }

    fn load_one<'w>(&'w self, whose: Whose, worker: &mut Option<Worker<'w>>, task: Opened) -> Result<()> {
        let worker = match worker {
            Some(worker) => worker,
            none => none.insert(self.filling.worker(whose.tables())?),
        };
        match task {
            Opened::Whole(tar) => {
                for entry in entries(&tar) {
                    let entry = entry?;
                    let part = part_of(&entry.member.path.0)?;
                    if self.wants(part) {
                        self.put(worker, part, &tar[entry.data])?;
                    }
                }
                self.progress.advance(tar.len() as u64);
                Ok(())
            }
            Opened::Long { part, data_bytes, segments } if self.wants(part) => {
                let data = Data::new(self.reader, &self.id_key, Self::room_bytes(self.jobs), data_bytes, segments);
                let Part::Rows { oid, .. } = part else {
                    let whole = data.collect::<Result<Vec<Vec<u8>>>>()?.concat();
                    return self.put(worker, part, &whole);
                };
                let rows = worker.copy(
                    oid,
                    data.inspect(|part| {
                        self.progress.advance(part.as_ref().map_or(0, |part| part.len() as u64));
                    }),
                )?;
                self.add(rows, data_bytes);
                Ok(())
            }
            Opened::Long { .. } => Ok(()),
        }
    }

    fn put(&self, worker: &mut Worker<'_>, part: Part, bytes: &[u8]) -> Result<()> {
        match part {
            Part::Rows { oid, .. } => {
                let rows = worker.copy(oid, [Ok::<_, Error>(bytes)])?;
                self.add(rows, bytes.len() as u64);
            }
            _ => worker.run(part, bytes)?,
        }
        Ok(())
    }

    fn add(&self, rows: u64, bytes: u64) {
        let mut total = lock(&self.total);
        total.rows += rows;
        total.bytes += bytes;
    }
}

fn part_of(path: &[u8]) -> Result<Part> {
    Part::of(path).ok_or_else(|| {
        let path = path.escape_ascii();
        Error::new(Code::DataUnsafe, format!("member \"{path}\" is not one of a database"))
    })
}

/// Hands what stands in front of the rows to the loader.
fn take_head(
    reader: &Reader,
    id_key: &[u8; 32],
    piece: &PlannedPiece,
    loader: &mut Loader,
    progress: &dyn Progress,
) -> Result<()> {
    let [head, data @ ..] = &piece.segments[..] else { return Ok(()) };
    let tar = reader.segment(head, id_key)?;
    progress.advance(tar.len() as u64);
    if data.is_empty() {
        for entry in entries(&tar) {
            let entry = entry?;
            loader.take(part_of(&entry.member.path.0)?, &tar[entry.data])?;
        }
        return Ok(());
    }
    let head = large(&tar)?;
    let part = part_of(&head.member.path.0)?;
    for bytes in Data::new(reader, id_key, ROOM_BYTES, head.data_bytes, data.to_vec()) {
        let bytes = bytes?;
        progress.advance(bytes.len() as u64);
        loader.take(part, &bytes)?;
    }
    Ok(())
}

/// The data of a long member, segment by segment, without tar's padding.
struct Data<'a> {
    source: Segments,
    id_key: &'a [u8; 32],
    left: u64,
    segments: VecDeque<Located>,
    begun: VecDeque<Begun>,
}

impl<'a> Data<'a> {
    fn new(reader: &Reader, id_key: &'a [u8; 32], room_bytes: u32, left: u64, segments: Vec<Located>) -> Self {
        let source = Segments::new(reader, room_bytes);
        Self { source, id_key, left, segments: segments.into(), begun: VecDeque::new() }
    }
}

impl Iterator for Data<'_> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let wrong =
            |what| Some(Err(Error::new(Code::DataUnsafe, format!("a long member has {what} data than declared"))));
        self.source.ask(&mut self.segments, &mut self.begun);
        let Some(segment) = self.begun.pop_front() else {
            return if self.left == 0 {
                None
            } else {
                self.left = 0;
                wrong("less")
            };
        };
        let mut bytes = match segment.open(self.id_key) {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(error.into())),
        };
        let length = bytes.len() as u64;
        if length > self.left
            && (length - self.left >= BLOCK_BYTES as u64 || !self.begun.is_empty() || !self.segments.is_empty())
        {
            return wrong("more");
        }
        bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= bytes.len() as u64;
        Some(Ok(bytes))
    }
}

fn next<T>(queue: &Queue<T>) -> Option<T> {
    lock(queue).recv().ok()
}
