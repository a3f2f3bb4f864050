//! `restore --into`: from the vault into a database server, with nothing staged but the schema.
//!
//! One thread follows the plan; some fetch and open segments, some put rows into tables, each by a connection of its
//! own. What must come before the rows stands at the beginning of the plan and is waited for.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use age::secrecy::SecretString;
use serde::Serialize;

use crate::domain::contents::{Facts, PostgresFacts};
use crate::domain::ids::SourceName;
use crate::domain::manifest::{Manifest, SourceEntry};
use crate::domain::server::ServerAddress;
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::sources::postgres::binaries::{Tools, Wanted};
use crate::sources::postgres::connect::Access;
use crate::sources::postgres::layout::{Part, matches};
use crate::sources::postgres::load::{
    Existing, Filling, Globals, LoadOptions, Loader, Needs, Outside, Owners, Tenancy, Worker, server_major,
};
use crate::sources::tar::BLOCK_BYTES;
use crate::sources::tar::read::{entries, large};
use crate::storage::ahead::ROOM_BYTES;
use crate::vault::ahead::{Begun, Segments, Step, Take, Walk};
use crate::vault::reader::{Located, Plan, PlannedPiece, Reader};

use super::host::Host;
use super::lock;
use super::restore::plan;

/// Pieces that may wait to be fetched, and as many opened ones to be loaded, for each loading thread.
const WAITING_PER_JOB: usize = 2;
/// The databases of a server that are there whatever was lost: the second where the first is what is restored, because
/// nobody can drop the database that he is in.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// What to restore, and into what.
#[derive(Debug)]
pub struct IntoRequest<'a> {
    /// The source; of kind `postgres`.
    pub source: &'a SourceName,
    /// The server, and the database to restore into.
    pub address: &'a ServerAddress,
    /// The role's password.
    pub password: Option<SecretString>,
    /// The folder of the server's tools, where it is not one of the usual ones.
    pub tools: Option<PathBuf>,
    /// Only tables that these patterns (`schema.table`) mean; empty means everything.
    pub tables: &'a [String],
    /// Connections that load; `None` for one a core.
    pub jobs: Option<u32>,
    /// Owners and rights.
    pub owners: Owners,
    /// Missing roles.
    pub globals: Globals,
    /// What is in the way.
    pub existing: Existing,
    /// Other servers.
    pub outside: Outside,
}

/// What was restored, and when what could be used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IntoReport {
    /// The source.
    pub name: SourceName,
    /// Its kind.
    pub kind: String,
    /// The database, without secrets.
    pub server: String,
    /// Tables that rows were loaded into.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes of rows, as COPY has them.
    pub bytes: u64,
    /// From the start until data and keys were there; `None` where single tables were restored.
    pub queryable_seconds: Option<f64>,
    /// From the start until everything was there.
    pub complete_seconds: f64,
    /// What to know beside the success.
    pub remarks: Vec<String>,
}

/// Restores a database.
///
/// # Errors
/// What the server refused, naming the table; damage in the vault; [`Code::NotFound`], [`Code::TargetNotEmpty`].
/// What was loaded until then stays.
pub fn restore_into(
    host: &Host,
    reader: &Reader,
    manifest: &Manifest,
    request: &IntoRequest<'_>,
    progress: &dyn Progress,
) -> Result<IntoReport> {
    let started = host.clock.monotonic();
    let source = postgres_source(manifest, request.source)?;
    let facts = facts(reader, manifest, source)?;
    let target = Access { address: request.address.clone(), password: request.password.clone() };
    let [usual, other] = MAINTENANCE;
    let access = target.with_database(if request.address.database == usual { other } else { usual });
    let needs = Needs::from(&facts);
    let tools = tools(host, &access, needs.server_version_number / 10_000, request.tools.as_deref())?;
    let private = tempfile::Builder::new().prefix("lifeboat-restore-").tempdir().map_err(|cause| {
        Error::new(Code::RestoreFailed, format!("cannot make a folder for the schema: {cause}"))
            .with_hint("make room in the folder for temporary files, or name another one with TMPDIR")
    })?;
    let jobs = request.jobs.unwrap_or_else(|| u32::try_from(host.workers).unwrap_or(1)).max(1);
    let options = LoadOptions {
        access,
        database: request.address.database.clone(),
        tools,
        jobs,
        owners: request.owners,
        globals: request.globals,
        existing: request.existing,
        outside: request.outside,
        tenancy: Tenancy::Owner,
        private: private.path().to_owned(),
        tables: (!request.tables.is_empty()).then(|| request.tables.to_vec()),
        needs,
    };
    let mut queryable_seconds = None;
    let mut phase = |name| {
        if name == "queryable" {
            queryable_seconds = Some((host.clock.monotonic() - started).as_secs_f64());
        }
    };
    let loaded = load(host, reader, source, plan(reader, manifest, source)?, options, &mut phase, progress)?;
    must_be_all(&facts, request, loaded.rows)?;
    let mut remarks = loaded.remarks;
    if request.globals == Globals::Make && !facts.role_passwords {
        remarks.push("the source's server hid its roles' passwords: roles that were made have none".to_owned());
    }
    Ok(IntoReport {
        name: source.name.clone(),
        kind: source.kind.clone(),
        server: request.address.to_string(),
        tables: loaded.tables,
        rows: loaded.rows,
        bytes: loaded.bytes,
        queryable_seconds,
        complete_seconds: (host.clock.monotonic() - started).as_secs_f64(),
        remarks,
    })
}

/// What was loaded.
#[derive(Debug)]
pub(super) struct LoadedSource {
    /// Tables that rows were loaded into.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes of rows, as COPY has them.
    pub bytes: u64,
    /// What to know beside the success.
    pub remarks: Vec<String>,
}

/// Loads a source into a server, to the last index. `phase` is called when `index` and `analyze` begin, and when the
/// database can be asked: `queryable`.
///
/// # Errors
/// As [`restore_into`].
pub(super) fn load(
    host: &Host,
    reader: &Reader,
    source: &SourceEntry,
    plan: Plan,
    options: LoadOptions,
    phase: &mut (dyn FnMut(&'static str) + Send),
    progress: &dyn Progress,
) -> Result<LoadedSource> {
    let context = |error: Error| error.context(format!("source {}", source.name));
    let (jobs, whole) = (options.jobs, options.tables.is_none());
    let loader = Loader::begin(options, &host.runtime)?;
    progress.begin(&format!("restoring {}", source.name), whole.then_some(source.logical_bytes));
    let filled = fill(host, reader, plan, loader, jobs, progress);
    progress.end();
    let (filling, total) = filled.map_err(context)?;

    let tables = filling.tables();
    let phase = Mutex::new(phase);
    progress.begin(&format!("making keys and indexes of {}", source.name), None);
    let finished = filling.finish(host.interrupt.raised(), &|name| (lock(&phase))(name));
    progress.end();
    let remarks = finished.map_err(Error::from).map_err(context)?.remarks;
    Ok(LoadedSource { tables, rows: total.rows, bytes: total.bytes, remarks })
}

fn postgres_source<'a>(manifest: &'a Manifest, name: &SourceName) -> Result<&'a SourceEntry> {
    let Some(source) = manifest.sources.iter().find(|source| source.name == *name) else {
        let there: Vec<&str> = manifest.sources.iter().map(|source| source.name.as_str()).collect();
        return Err(Error::new(Code::NotFound, format!("backup {} has no source {name}", manifest.id))
            .with_hint(format!("it has: {}", there.join(", "))));
    };
    if source.kind != "postgres" {
        return Err(Error::new(Code::Usage, format!("source {name} is of kind {}, not postgres", source.kind))
            .with_hint("restore it into a folder: --to DIR"));
    }
    Ok(source)
}

/// The facts, which stand at the end of the contents: they say what the server must have.
fn facts(reader: &Reader, manifest: &Manifest, source: &SourceEntry) -> Result<PostgresFacts> {
    let mut plan = plan(reader, manifest, source)?;
    while plan.next_piece()?.is_some() {}
    match &plan.tail().facts {
        Some(Facts::Postgres(facts)) => Ok((**facts).clone()),
        _ => Err(Error::new(
            Code::DataUnsafe,
            format!("the contents of source {} have no facts of a database", source.name),
        )),
    }
}

/// As many rows as were counted when the backup was made; their checksums are for a drill to compare.
fn must_be_all(facts: &PostgresFacts, request: &IntoRequest<'_>, loaded_rows: u64) -> Result<()> {
    let is_wanted = |schema: &str, name: &str| {
        request.tables.is_empty() || request.tables.iter().any(|pattern| matches(pattern, schema, name))
    };
    let wanted = facts.tables.iter().filter(|table| is_wanted(&table.schema, &table.name));
    let counted: u64 = wanted.map(|table| table.rows).sum();
    if counted == loaded_rows {
        return Ok(());
    }
    let what =
        format!("source {}: {loaded_rows} rows were loaded, and the backup was made of {counted}", request.source);
    Err(Error::new(Code::DataUnsafe, what).with_hint("restore another backup: `lifeboat list` shows them"))
}

/// The tools of the server's own version; of a newer one, where these are missing.
fn tools(host: &Host, access: &Access, source_major: u32, folder: Option<&std::path::Path>) -> Result<Tools> {
    let server = server_major(access, &host.runtime)?;
    let find = |wanted| host.runtime.block_on(Tools::find(wanted, folder, &["pg_restore"]));
    match find(Wanted::Exactly(server)) {
        Ok(tools) => Ok(tools),
        Err(_) => Ok(find(Wanted::AtLeast(source_major))?),
    }
}

/// Rows and bytes that went in.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    rows: u64,
    bytes: u64,
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

/// What the threads of a load share.
struct Run<'a> {
    reader: &'a Reader,
    id_key: [u8; 32],
    /// Bytes of a long member that each loading thread may have asked for.
    long_room_bytes: u32,
    filling: &'a Filling,
    failure: Mutex<Option<Error>>,
    total: Mutex<Total>,
    progress: &'a dyn Progress,
}

fn fill(
    host: &Host,
    reader: &Reader,
    mut plan: Plan,
    mut loader: Loader,
    jobs: u32,
    progress: &dyn Progress,
) -> Result<(Filling, Total)> {
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
    let run = Run {
        reader,
        id_key,
        long_room_bytes: ROOM_BYTES / jobs.max(1),
        filling: &filling,
        failure: Mutex::new(None),
        total: Mutex::new(Total::default()),
        progress,
    };
    let waiting = usize::try_from(jobs).unwrap_or(1) * WAITING_PER_JOB;
    let (to_fetch, fetching) = sync_channel::<Task>(waiting);
    let (to_load, loading) = sync_channel::<Opened>(waiting);
    let (fetching, loading) = (Arc::new(Mutex::new(fetching)), Arc::new(Mutex::new(loading)));
    std::thread::scope(|scope| {
        for _ in 0..host.workers {
            let (fetching, to_load, run) = (Arc::clone(&fetching), to_load.clone(), &run);
            scope.spawn(move || run.fetch(&fetching, &to_load));
        }
        for _ in 0..jobs {
            let (loading, run) = (Arc::clone(&loading), &run);
            scope.spawn(move || run.load(&loading));
        }
        // The threads alone hold them now: when the last has panicked, sending fails instead of waiting for ever.
        drop((fetching, loading, to_load));
        if let Err(error) = run.feed(host, first, &mut plan, &to_fetch) {
            run.fail(error);
        }
        drop(to_fetch);
    });
    let total = *lock(&run.total);
    match run.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok((filling, total)),
    }
}

impl Run<'_> {
    fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
    }

    fn has_failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    /// Follows the plan, as far as it is wanted.
    fn feed(&self, host: &Host, first: Option<PlannedPiece>, plan: &mut Plan, tasks: &SyncSender<Task>) -> Result<()> {
        let closed = |_| Error::new(Code::Internal, "the restoring threads are gone");
        // A piece without members is tar's end: who restores everything reads it too, so that its damage is noticed. A
        // long member is read by whoever loads it.
        let wanted = |piece: &PlannedPiece| {
            let wanted = parts(piece).into_iter().any(|part| self.wants(part));
            if wanted || self.filling.is_whole() { Take::Head } else { Take::Nothing }
        };
        let mut walk = Walk::new(Segments::new(self.reader, ROOM_BYTES), plan, &wanted).behind(first);
        while let Some(step) = walk.step()? {
            host.check_interrupted()?;
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
    fn load(&self, opened: &Queue<Opened>) {
        let mut worker = None;
        while let Some(task) = next(opened) {
            if self.has_failed() {
                continue;
            }
            if let Err(error) = self.load_one(&mut worker, task) {
                self.fail(error);
            }
        }
    }

    fn load_one<'w>(&'w self, worker: &mut Option<Worker<'w>>, task: Opened) -> Result<()> {
        let worker = match worker {
            Some(worker) => worker,
            none => none.insert(self.filling.worker()?),
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
                let data = Data::new(self.reader, &self.id_key, self.long_room_bytes, data_bytes, segments);
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

/// The members of a piece that are ours.
fn parts(piece: &PlannedPiece) -> Vec<Part> {
    piece.members.iter().filter_map(|member| Part::of(&member.path.0)).collect()
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
