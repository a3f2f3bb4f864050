//! The loop: looks at the clock and the config, writes down what it starts, starts it, and hears how it ended.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::RngExt as _;

use super::board::{Board, Notice, TaskNotice};
use super::herald::{Herald, uuid_of};
use super::service::Service;
use super::state::{Found, StateFile};
use super::work::{Outcome, Work};
use super::{DaemonError, RunId};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::operation::Task;
use crate::domain::scheduler::{Ending, Start, State, Timetable, Told};
use crate::error::{Code, Error, Result};
use crate::notify::heartbeat::RunUuid;
use crate::operations::interrupt::Interrupt;
use crate::schedules::{Wanted, drills_elsewhere, due};

#[cfg(test)]
mod tests;

/// The loop looks at the clock at least so often: a machine that slept, or whose clock was set, is noticed then.
pub const MAX_SLEEP: Duration = Duration::from_secs(60);
/// What runs has so long to end in good order when the daemon ends; then it is left to the next start.
pub const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Events that wait for the loop; whoever has one more waits with it.
const MAX_EVENTS: usize = 64;

/// What the loop hears of.
#[derive(Debug)]
pub enum Event {
    /// A run ended.
    Ended {
        /// Of this.
        task: Task,
        /// So.
        outcome: Box<Outcome>,
    },
    /// Read the config again.
    Reload,
    /// End.
    Terminate,
}

/// What a daemon is given.
pub struct Orders {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The config, as it was read at the start.
    pub settings: Settings,
    /// What of it this host does.
    pub wanted: Wanted,
    /// The host's own secret: its jitter comes from it.
    pub seed: [u8; 32],
    /// Who does it.
    pub work: Arc<dyn Work>,
    /// Where it is written up.
    pub board: Board,
    /// Who tells others.
    pub herald: Herald,
}

/// The loop and its state.
pub struct Engine {
    clock: Arc<dyn Clock>,
    wanted: Wanted,
    seed: [u8; 32],
    work: Arc<dyn Work>,
    board: Board,
    herald: Herald,
    file: StateFile,
    state: State,
    table: Timetable,
    settings: Arc<Settings>,
    /// The config file as it was when it was read last.
    stamp: Option<Stamp>,
    running: BTreeMap<Task, Running>,
    config_trouble: Option<String>,
    state_trouble: Option<String>,
    sender: SyncSender<Event>,
    inbox: Receiver<Event>,
}

/// A file, as far as a glance tells one from the other.
type Stamp = (u64, u64, i64, i64);

struct Running {
    run: RunId,
    told_as: RunUuid,
    interrupt: Interrupt,
    since: Duration,
}

impl Engine {
    /// Takes the state folder, and takes up what the last daemon left there.
    ///
    /// # Errors
    /// Where another daemon has the folder, or it cannot be read.
    pub fn new(orders: Orders) -> Result<Self> {
        let Orders { clock, settings, wanted, seed, work, board, herald } = orders;
        let now = clock.now();
        let file = StateFile::take(&settings.state_dir, now)?;
        let mut state = match file.load()? {
            Found::State(state) => state,
            Found::Nothing => State::default(),
            Found::Damaged(aside) => {
                tracing::error!(
                    "the schedules' state was damaged and is now in {}: what was missed is not known, and nothing is made up for",
                    aside.display()
                );
                State::default()
            }
        };
        let (sender, inbox) = sync_channel(MAX_EVENTS);
        let table = timetable(&settings, &wanted, seed);
        let told = state.recover(&table, now);
        let mut engine = Self {
            clock,
            wanted,
            seed,
            work,
            board,
            herald,
            file,
            state,
            table,
            stamp: stamp(&settings.file),
            settings: Arc::new(settings),
            running: BTreeMap::new(),
            config_trouble: None,
            state_trouble: None,
            sender,
            inbox,
        };
        engine.tell(&told);
        engine.follow();
        Ok(engine)
    }

    /// Where events go.
    #[must_use]
    pub fn sender(&self) -> SyncSender<Event> {
        self.sender.clone()
    }

    /// Turns until it is asked to end. Gives what it had to abandon: the next start takes it up.
    pub fn run(&mut self, service: &Service) -> Vec<Task> {
        service.ready();
        loop {
            let wait = self.turn();
            service.turns(&self.status());
            match self.inbox.recv_timeout(service.feed_every().map_or(wait, |every| every.min(wait))) {
                Ok(Event::Terminate) => break,
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
                // Never: this struct holds a sender.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        service.stopping();
        self.stop(service)
    }

    /// One look at config and clock; starts what is due. Gives how long nothing will happen by itself.
    pub fn turn(&mut self) -> Duration {
        if stamp(&self.settings.file) != self.stamp {
            self.reload("the file changed");
        }
        let now = self.clock.now();
        let turn = self.state.turn(&self.table, now);
        self.tell(&turn.told);
        if !turn.start.is_empty() || !turn.told.is_empty() {
            // Before anything starts: a process that dies now must not start it twice.
            self.save();
        }
        for start in turn.start {
            self.start(start);
        }
        self.write_up(now);
        let until = turn.wake.and_then(|wake| (wake - now).to_std().ok());
        until.map_or(MAX_SLEEP, |until| until.min(MAX_SLEEP))
    }

    /// Takes an event.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Ended { task, outcome } => self.ended(&task, &outcome),
            Event::Reload => self.reload("asked to"),
            Event::Terminate => {}
        }
    }

    /// The next event, if one comes in time.
    pub fn wait(&self, within: Duration) -> Option<Event> {
        self.inbox.recv_timeout(within).ok()
    }

    /// Asks everything that runs to end, and waits for it.
    fn stop(&mut self, service: &Service) -> Vec<Task> {
        let until = self.clock.monotonic() + STOP_WITHIN;
        for running in self.running.values() {
            running.interrupt.raise();
        }
        tracing::info!(running = self.running.len(), "ending");
        while !self.running.is_empty() {
            let left = until.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                break;
            }
            service.turns("ending");
            match self.inbox.recv_timeout(service.feed_every().map_or(left, |every| every.min(left))) {
                Ok(Event::Ended { task, outcome }) => self.ended(&task, &outcome),
                Ok(Event::Reload) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::Terminate) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.save();
        self.herald.finish();
        self.running.keys().cloned().collect()
    }

    fn start(&mut self, start: Start) {
        let run = RunId::from_random(rand::rng().random());
        let interrupt = Interrupt::default();
        let task = start.task.clone();
        let span = tracing::error_span!("run", run = %run, job = %task.job, operation = %task.operation);
        span.in_scope(|| {
            tracing::info!(slot = %start.slot.to_rfc3339(), attempt = start.attempt, "started");
        });
        let since = self.clock.monotonic();
        let told_as = uuid_of(run);
        self.herald.began(&task, &told_as);
        self.running.insert(task.clone(), Running { run, told_as, interrupt: interrupt.clone(), since });
        let (work, settings, sender) = (Arc::clone(&self.work), Arc::clone(&self.settings), self.sender.clone());
        let spawned = thread::Builder::new().name(task.to_string()).spawn(move || {
            let _entered = span.enter();
            let done = catch_unwind(AssertUnwindSafe(|| work.run(&start, &settings, interrupt)));
            let outcome = done.unwrap_or_else(|_| {
                Outcome::failed(Error::new(Code::Internal, "the run panicked; the message above says where"))
            });
            // Nobody is left to hear it only when the process ends.
            let _ = sender.send(Event::Ended { task: start.task, outcome: Box::new(outcome) });
        });
        if let Err(cause) = spawned {
            let error = Error::new(Code::Internal, format!("no thread to be had: {cause}"));
            self.ended(&task, &Outcome { ending: Ending::Transient, ..Outcome::failed(error) });
        }
    }

    fn ended(&mut self, task: &Task, outcome: &Outcome) {
        let Some(Running { run, told_as, since, .. }) = self.running.remove(task) else { return };
        let seconds = (self.clock.monotonic() - since).as_secs_f64();
        let span = tracing::error_span!("run", run = %run, job = %task.job, operation = %task.operation);
        span.in_scope(|| match &outcome.error {
            None => tracing::info!(outcome = outcome.word, seconds, "ended: {}", outcome.facts),
            Some(error) => {
                let (code, hint) = (error.code().name(), error.hint().unwrap_or_default());
                tracing::error!(outcome = outcome.word, seconds, code, hint, "ended: {error}");
            }
        });
        let told = self.state.ended(&self.table, task, self.clock.now(), outcome.ending);
        self.save();
        self.tell(&told);
        if !told.iter().any(|told| matches!(told, Told::Retry(..))) {
            self.herald.ended(task, &told_as, outcome);
        }
        // In this order: who sees that it ended finds what comes next.
        self.write_up(self.clock.now());
        self.board.ran();
    }

    /// Reads the config again. A broken one is told of, and the last good one stays in use.
    fn reload(&mut self, why: &str) {
        let file = self.settings.file.clone();
        self.stamp = stamp(&file);
        let was = self.settings.state_dir.clone();
        let read =
            Settings::load(Some(&file)).map_err(Error::from).and_then(|settings| match settings.state_dir == was {
                true => Ok(settings),
                false => Err(DaemonError::StateMoved { was }.into()),
            });
        match read {
            Ok(settings) => {
                self.config_trouble = None;
                self.write_up(self.clock.now());
                tracing::info!("read the config again: {why}");
                let answers = |settings: &Settings| (settings.daemon.listen, settings.daemon.names.clone());
                if answers(&settings) != answers(&self.settings) {
                    tracing::warn!("`listen` or `names` are others: they take effect when the daemon is restarted");
                }
                self.table = timetable(&settings, &self.wanted, self.seed);
                self.settings = Arc::new(settings);
                self.follow();
            }
            Err(error) => {
                // Whoever asks because of the line below is answered by it.
                self.config_trouble = Some(format!("[{}]", error.code().name()));
                self.write_up(self.clock.now());
                tracing::error!(
                    code = error.code().name(),
                    "the config cannot be used, and the last good one stays in use: {error}"
                );
            }
        }
    }

    fn follow(&mut self) {
        let told = self.state.follow(&self.table, self.clock.now());
        self.herald.follow(&self.settings, self.table.schedules.keys());
        self.tell(&told);
        for job in drills_elsewhere(self.settings.jobs.values(), &self.wanted) {
            tracing::info!(job = %job.name, operation = "drill", "left to a host that has an identity: none is named in the config here");
        }
        self.save();
    }

    fn save(&mut self) {
        let trouble = self.file.save(&self.state).map_err(Error::from).err();
        if let Some(error) = &trouble {
            // What is due is done all the same: a backup too many is better than none.
            tracing::error!(
                code = error.code().name(),
                "what ran is not written down, and a restart may repeat it: {error}"
            );
        }
        self.state_trouble = trouble.map(|error| format!("[{}]", error.code().name()));
    }

    fn write_up(&self, now: DateTime<Utc>) {
        let since: BTreeMap<&Task, DateTime<Utc>> = self.state.running().collect();
        let notice = |(task, known): (&Task, &crate::domain::scheduler::TaskState)| TaskNotice {
            task: task.clone(),
            next: self.state.next_start(&self.table, task).map(|next| next.max(now)),
            running_since: since.get(task).copied(),
            missed: known.missed,
            overlapped: known.overlapped,
        };
        self.board.turned(Notice {
            config: self.config_trouble.clone(),
            state: self.state_trouble.clone(),
            tasks: self.state.tasks().map(notice).collect(),
        });
    }

    /// A line for `systemctl status`.
    fn status(&self) -> String {
        let tasks: Vec<&Task> = self.running.keys().collect();
        let next =
            self.table.schedules.keys().filter_map(|task| Some((self.state.next_start(&self.table, task)?, task)));
        match (tasks.as_slice(), next.min()) {
            ([], None) => "nothing has a schedule".to_owned(),
            ([], Some((at, task))) => {
                format!("next {task} at {}", at.with_timezone(&self.table.zone).format("%Y-%m-%d %H:%M %Z"))
            }
            (running, _) => {
                let names: Vec<String> = running.iter().map(ToString::to_string).collect();
                format!("running {}", names.join(", "))
            }
        }
    }

    fn tell(&self, told: &[Told]) {
        for told in told {
            tell(told);
        }
    }
}

fn tell(told: &Told) {
    let (Told::FirstSeen(task)
    | Told::Rescheduled(task)
    | Told::Gone(task)
    | Told::Missed(task, _)
    | Told::Overlapped(task, ..)
    | Told::ClockBack(task)
    | Told::Retry(task, _)
    | Told::GaveUp(task, _)
    | Told::Lost(task)) = told;
    let (job, operation) = (task.job.as_str(), task.operation.name());
    match told {
        Told::FirstSeen(_) => tracing::info!(job, operation, "new: its schedule counts from now on"),
        Told::Rescheduled(_) => tracing::info!(job, operation, "another schedule: it counts from now on"),
        Told::Gone(_) => tracing::info!(job, operation, "has no schedule here any more"),
        Told::Missed(_, count) => tracing::warn!(job, operation, count, "missed; one run makes up for all"),
        Told::Overlapped(_, count, since) => {
            tracing::warn!(job, operation, count, since = %since.to_rfc3339(), "skipped: the last run still goes on");
        }
        Told::ClockBack(_) => {
            tracing::warn!(job, operation, "the clock was set back far: its schedule counts from now on");
        }
        Told::Retry(_, at) => tracing::info!(job, operation, at = %at.to_rfc3339(), "will be tried again"),
        Told::GaveUp(_, attempts) => tracing::warn!(job, operation, attempts, "not tried again before its next time"),
        Told::Lost(_) => tracing::warn!(job, operation, "ran when the daemon ended last; nobody saw how it came out"),
    }
}

fn timetable(settings: &Settings, wanted: &Wanted, seed: [u8; 32]) -> Timetable {
    let due = due(settings.jobs.values(), wanted);
    Timetable {
        zone: settings.timezone,
        schedules: due.into_iter().map(|due| (due.task, due.schedule.clone())).collect(),
        jitter: settings.daemon.jitter,
        seed,
        at_once: settings.daemon.jobs_at_once,
    }
}

fn stamp(file: &PathBuf) -> Option<Stamp> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("state", &self.state).finish_non_exhaustive()
    }
}
