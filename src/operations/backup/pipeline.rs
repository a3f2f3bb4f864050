//! One source's pieces, read, cut, sealed and stored on all cores, and handed on in the order of the plan.
//!
//! One thread asks the snapshot for its plan. Workers take from a board whatever is most urgent: a segment that is
//! cut already, else the next piece. A worker that reads a large file puts its segments on the board for the others,
//! and seals one itself when the board is full, so that one huge file keeps all cores busy and nobody ever waits for
//! somebody who waits for him. Memory is bounded by the board and by the pieces under way.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::domain::contents::{Line, Note, PieceSegment};
use crate::domain::segment::SegmentRef;
use crate::error::{Code, Error};
use crate::observe::Progress;
use crate::seal::{Cutter, GearTable, Sealer};
use crate::sources::memory::Remembered;
use crate::sources::{Body, Cut, OpenPiece, Piece, Signature, Sink, Snapshot, SourceError, Written};
use crate::vault::writer::{SegmentStore, Stored};

use super::super::lock;

/// Cut segments that may wait on the board, for each worker.
const SEGMENTS_PER_WORKER: usize = 2;
/// Pieces that may be planned and not yet handed on. Small ones wait here for a large one before them.
const MAX_PIECES_UNDER_WAY: u64 = 512;
/// Remembered pieces are delivered so many at a time: an unchanged day is nothing but these, and waking a thread for each
/// would cost more than all the rest.
const REMEMBERED_AT_ONCE: usize = 64;

/// A piece that is in the store, in the order of the plan.
pub(super) struct Done {
    /// How the next run knows it again; `None` if it must not.
    pub signature: Option<Signature>,
    /// Its segments and its lines of the contents.
    pub piece: Remembered,
    /// What did not go as it should.
    pub notes: Vec<Note>,
    /// Segments that were sealed for it.
    pub new_segments: u64,
    /// Whether it was named again without being read.
    pub unread: bool,
}

/// What the threads share besides the board.
pub(super) struct SealingLine<'a> {
    /// Where segments go.
    pub store: &'a SegmentStore,
    /// Makes a sealer for each thread.
    pub sealer: &'a (dyn Fn() -> Result<Sealer, Error> + Sync),
    /// The table of content-defined cuts.
    pub gear: &'a GearTable,
    /// How many threads seal.
    pub workers: usize,
    /// Told of plain bytes that are done.
    pub progress: &'a dyn Progress,
}

/// Runs the whole plan. `collect` gets every piece, in order, on the calling thread.
///
/// # Errors
/// The first failure of the source, of sealing, of the store or of `collect`; everything stops then.
pub(super) fn run(
    snapshot: &mut dyn Snapshot,
    line: &SealingLine<'_>,
    collect: &mut dyn FnMut(Done) -> Result<(), Error>,
) -> Result<(), Error> {
    let board = Board::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _guard = StopOnPanic(&board);
            plan(snapshot, line, &board);
        });
        for _ in 0..line.workers {
            scope.spawn(|| {
                let _guard = StopOnPanic(&board);
                work(line, &board);
            });
        }
        let _guard = StopOnPanic(&board);
        while let Some(done) = board.next_done() {
            if let Err(error) = collect(done) {
                board.fail(error);
            }
        }
    });
    board.into_result()
}

/// Asks for the plan, piece by piece.
fn plan(snapshot: &mut dyn Snapshot, line: &SealingLine<'_>, board: &Board) {
    let mut remembered = Vec::with_capacity(REMEMBERED_AT_ONCE);
    for index in 0_u64.. {
        if !board.wait_for_room(&mut remembered) {
            return;
        }
        let Piece { signature, body, cut } = match snapshot.next_piece() {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) => return board.fail(error.into()),
        };
        let open = match body {
            Body::Open(open) => open,
            Body::Remembered { piece, .. } if line.store.knows(&piece.segments) => {
                line.progress.advance(piece.segments.iter().map(|s| s.plain_bytes).sum());
                let signature = Some(signature);
                let done = Done { signature, piece, notes: Vec::new(), new_segments: 0, unread: true };
                remembered.push((index, done));
                if remembered.len() == REMEMBERED_AT_ONCE {
                    board.deliver(remembered.drain(..));
                }
                continue;
            }
            Body::Remembered { reread, .. } => reread,
        };
        board.offer_piece(OpenTask { index, signature, open, cut });
    }
    board.deliver(remembered.drain(..));
    board.plan_is_complete();
}

/// A piece that is to be read.
struct OpenTask {
    index: u64,
    signature: Signature,
    open: Box<dyn OpenPiece>,
    cut: Cut,
}

/// A segment that is cut and waits for somebody to seal it.
struct SegmentTask {
    piece: Arc<UnderWay>,
    position: usize,
    plain: Vec<u8>,
}

/// A piece whose segments are being stored.
struct UnderWay {
    index: u64,
    signature: Signature,
    state: Mutex<UnderWayState>,
}

#[derive(Default)]
struct UnderWayState {
    segments: Vec<Option<SegmentRef>>,
    missing: usize,
    new_segments: u64,
    written: Option<Written>,
}

/// Takes tasks until there are none.
fn work(line: &SealingLine<'_>, board: &Board) {
    let mut sealer = match (line.sealer)() {
        Ok(sealer) => sealer,
        Err(error) => return board.fail(error),
    };
    while let Some(task) = board.next_task() {
        let result = match task {
            Task::Segment(segment) => seal(segment, &mut sealer, line, board),
            Task::Piece(piece) => read(piece, &mut sealer, line, board),
        };
        if let Err(error) = result {
            board.fail(error);
        }
    }
}

/// Reads a piece, cutting it and storing or offering its segments.
fn read(task: OpenTask, sealer: &mut Sealer, line: &SealingLine<'_>, board: &Board) -> Result<(), Error> {
    let piece = Arc::new(UnderWay { index: task.index, signature: task.signature, state: Mutex::default() });
    let cutter = match task.cut {
        Cut::Never => Cutter::never(),
        Cut::Every(bytes) => Cutter::every(bytes),
        Cut::Content => Cutter::content(line.gear.clone()),
    };
    let share = task.cut != Cut::Never;
    let mut sink = CuttingSink { cutter, piece: Arc::clone(&piece), count: 0, share, sealer, line, board, error: None };
    let written = task.open.write(&mut sink).and_then(|written| {
        sink.boundary().map_err(SourceError::Sink)?;
        Ok(written)
    });
    match (written, sink.error.take()) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(error.into()),
        (Ok(written), None) => {
            let mut state = lock(&piece.state);
            state.written = Some(written);
            finish_if_complete(&piece, state, board);
            board.piece_was_read();
            Ok(())
        }
    }
}

/// Seals and stores one segment.
fn seal(task: SegmentTask, sealer: &mut Sealer, line: &SealingLine<'_>, board: &Board) -> Result<(), Error> {
    let stored = line.store.store(sealer, &task.plain)?;
    line.progress.advance(task.plain.len() as u64);
    let mut state = lock(&task.piece.state);
    state.segments[task.position] = Some(stored.segment());
    state.new_segments += u64::from(matches!(stored, Stored::New(_)));
    state.missing -= 1;
    finish_if_complete(&task.piece, state, board);
    Ok(())
}

/// Hands a piece on when it is read and all its segments are stored.
fn finish_if_complete(piece: &UnderWay, mut state: MutexGuard<'_, UnderWayState>, board: &Board) {
    if state.missing > 0 {
        return;
    }
    let Some(written) = state.written.take() else { return };
    let segments: Vec<SegmentRef> = state.segments.drain(..).flatten().collect();
    let new_segments = state.new_segments;
    drop(state);
    let mut lines = Vec::new();
    let named = segments.iter().map(|s| PieceSegment { id: s.id, bytes: s.plain_bytes }).collect();
    Line::Piece(named).write_to(&mut lines);
    let members = written.members.len() as u64;
    for member in written.members {
        Line::Member(Box::new(member)).write_to(&mut lines);
    }
    let done = Done {
        signature: written.trusted.then_some(piece.signature),
        piece: Remembered { segments, lines, members },
        notes: written.notes,
        new_segments,
        unread: false,
    };
    board.deliver([(piece.index, done)]);
}

/// Cuts what a source writes, and passes the segments on.
struct CuttingSink<'a, 'l> {
    cutter: Cutter,
    piece: Arc<UnderWay>,
    count: usize,
    share: bool,
    sealer: &'a mut Sealer,
    line: &'a SealingLine<'l>,
    board: &'a Board,
    error: Option<Error>,
}

impl CuttingSink<'_, '_> {
    fn pass_on(&mut self, cut: impl FnOnce(&mut Cutter, &mut Emit<'_>) -> Result<(), Error>) -> io::Result<()> {
        let Self { cutter, piece, count, share, sealer, line, board, error } = self;
        let result = cut(cutter, &mut |plain| {
            let mut state = lock(&piece.state);
            state.segments.push(None);
            state.missing += 1;
            drop(state);
            let task = SegmentTask { piece: Arc::clone(piece), position: *count, plain };
            *count += 1;
            match if *share { board.offer_segment(task, line.workers) } else { Err(task) } {
                Ok(()) => Ok(()),
                Err(task) => seal(task, sealer, line, board),
            }
        });
        if board.has_failed() {
            return Err(io::Error::other("the run was stopped"));
        }
        result.map_err(|cause| {
            *error = Some(cause);
            io::Error::other("storing failed")
        })
    }
}

type Emit<'e> = dyn FnMut(Vec<u8>) -> Result<(), Error> + 'e;

impl Write for CuttingSink<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass_on(|cutter, emit| cutter.push(bytes, emit))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for CuttingSink<'_, '_> {
    fn boundary(&mut self) -> io::Result<()> {
        self.pass_on(|cutter, emit| cutter.flush(emit))
    }
}

enum Task {
    Segment(SegmentTask),
    Piece(OpenTask),
}

/// Where the threads of one run meet.
#[derive(Default)]
struct Board {
    state: Mutex<BoardState>,
    /// Rings for the planner when there is room again.
    room: Bell,
    /// Rings for workers when there is a task, or will be none.
    tasks: Bell,
    /// Rings for the collector when the next piece in order is done.
    done: Bell,
    /// Says in passing, without the lock, that `failure` is set.
    failed: AtomicBool,
}

/// Wakes threads that sleep until the board's state is as they need it, and costs nothing when none sleeps.
#[derive(Default)]
struct Bell {
    condvar: Condvar,
    /// Changed with the state locked, and so never out of date for who has changed the state.
    asleep: AtomicUsize,
}

impl Bell {
    fn wait<'a>(
        &self,
        state: &'a Mutex<BoardState>,
        until: impl Fn(&BoardState) -> bool,
    ) -> MutexGuard<'a, BoardState> {
        let mut guard = lock(state);
        while !until(&guard) {
            self.asleep.fetch_add(1, Ordering::Relaxed);
            guard = self.condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
            self.asleep.fetch_sub(1, Ordering::Relaxed);
        }
        guard
    }

    fn ring_for_one(&self) {
        if self.asleep.load(Ordering::Relaxed) > 0 {
            self.condvar.notify_one();
        }
    }

    fn ring_for_all(&self) {
        if self.asleep.load(Ordering::Relaxed) > 0 {
            self.condvar.notify_all();
        }
    }
}

#[derive(Default)]
struct BoardState {
    pieces: VecDeque<OpenTask>,
    segments: VecDeque<SegmentTask>,
    /// Finished pieces that wait for one before them.
    done: BTreeMap<u64, Done>,
    /// Pieces planned so far, and handed on so far.
    planned: u64,
    handed_on: u64,
    /// Pieces that a worker is reading and may still cut.
    reading: usize,
    plan_complete: bool,
    failure: Option<Error>,
}

impl BoardState {
    /// Pieces planned and not yet handed on.
    fn under_way(&self) -> u64 {
        self.planned - self.handed_on
    }
}

impl Board {
    /// For the planner, who first delivers what it holds back if it has to wait. False when the run has failed.
    fn wait_for_room(&self, held_back: &mut Vec<(u64, Done)>) -> bool {
        let room = |state: &BoardState| state.failure.is_some() || state.under_way() < MAX_PIECES_UNDER_WAY;
        let mut state = lock(&self.state);
        if !room(&state) {
            drop(state);
            self.deliver(held_back.drain(..));
            state = self.room.wait(&self.state, room);
        }
        state.planned += 1;
        state.failure.is_none()
    }

    fn offer_piece(&self, piece: OpenTask) {
        lock(&self.state).pieces.push_back(piece);
        self.tasks.ring_for_one();
    }

    /// Gives the task back when enough wait already.
    fn offer_segment(&self, task: SegmentTask, workers: usize) -> Result<(), SegmentTask> {
        let mut state = lock(&self.state);
        if state.segments.len() >= workers * SEGMENTS_PER_WORKER {
            return Err(task);
        }
        state.segments.push_back(task);
        drop(state);
        self.tasks.ring_for_one();
        Ok(())
    }

    fn plan_is_complete(&self) {
        let mut state = lock(&self.state);
        // The planner counted one piece more than there is: the `None` at the end.
        state.planned -= 1;
        state.plan_complete = true;
        drop(state);
        self.tasks.ring_for_all();
        self.done.ring_for_all();
    }

    /// For a worker: the next task, or `None` when there will be no more.
    fn next_task(&self) -> Option<Task> {
        let ready = |state: &BoardState| {
            state.failure.is_some()
                || !state.segments.is_empty()
                || !state.pieces.is_empty()
                || (state.plan_complete && state.reading == 0)
        };
        let mut state = self.tasks.wait(&self.state, ready);
        if state.failure.is_some() {
            return None;
        }
        if let Some(segment) = state.segments.pop_front() {
            return Some(Task::Segment(segment));
        }
        let piece = state.pieces.pop_front()?;
        state.reading += 1;
        Some(Task::Piece(piece))
    }

    fn piece_was_read(&self) {
        let mut state = lock(&self.state);
        state.reading -= 1;
        let last = state.plan_complete && state.reading == 0;
        drop(state);
        if last {
            self.tasks.ring_for_all();
        }
    }

    fn deliver(&self, pieces: impl IntoIterator<Item = (u64, Done)>) {
        let mut state = lock(&self.state);
        state.done.extend(pieces);
        let next_is_there = state.done.contains_key(&state.handed_on);
        drop(state);
        if next_is_there {
            self.done.ring_for_one();
        }
    }

    /// For the collector: the next piece in order, or `None` when all are handed on or the run has failed.
    fn next_done(&self) -> Option<Done> {
        let ready = |state: &BoardState| {
            state.failure.is_some()
                || state.done.contains_key(&state.handed_on)
                || (state.plan_complete && state.handed_on == state.planned)
        };
        let mut state = self.done.wait(&self.state, ready);
        if state.failure.is_some() {
            return None;
        }
        let next = state.handed_on;
        let done = state.done.remove(&next)?;
        state.handed_on += 1;
        // Not at the first free place: the planner would wake for each piece.
        let room = state.under_way() <= MAX_PIECES_UNDER_WAY / 2;
        drop(state);
        if room {
            self.room.ring_for_one();
        }
        Some(done)
    }

    fn fail(&self, error: Error) {
        let dropped = {
            let mut state = lock(&self.state);
            state.failure.get_or_insert(error);
            std::mem::take(&mut state.pieces)
        };
        self.failed.store(true, Ordering::Relaxed);
        // Whoever plans may wait for the memory that they hold.
        drop(dropped);
        for bell in [&self.room, &self.tasks, &self.done] {
            bell.ring_for_all();
        }
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn into_result(self) -> Result<(), Error> {
        match self.state.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Wakes the other threads when one panics, so that the scope can end and the panic be seen.
struct StopOnPanic<'a>(&'a Board);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::new(Code::Internal, "a thread of the backup panicked"));
        }
    }
}
