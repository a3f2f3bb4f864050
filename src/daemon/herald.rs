//! Tells, beside the loop: lays down what the loop says at once, so that it outlives the process, and carries it on a thread
//! of its own, which also looks every few minutes at what lasts.
//!
//! A run that failed and will be tried again in a few minutes is not told: the last try is.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rand::RngExt as _;
use tokio::runtime::Handle;

use super::work::Outcome;
use super::{RunId, lock};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::operation::Task;
use crate::error::{Code, Error, Result};
use crate::evidence::lasting::look;
use crate::notify::courier::Which;
use crate::notify::heartbeat::RunUuid;
use crate::operations::host::Host;
use crate::operations::interrupt::Interrupt;
use crate::operations::notices::{Ended, Notices};

/// What waits is tried again, as far as it is due.
const ROUND_EVERY: Duration = Duration::from_secs(60);
/// What lasts is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5 * 60);
/// A daemon that ends waits so long for what is under way; the rest waits for the next start.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The herald. A mute one tells nobody.
pub struct Herald {
    voice: Option<Voice>,
}

struct Voice {
    runtime: Handle,
    clock: Arc<dyn Clock>,
    orders: SharedOrders,
    wake: SyncSender<()>,
    over: Receiver<()>,
}

/// What the loop goes by.
#[derive(Clone)]
struct Orders {
    settings: Arc<Settings>,
    /// What has a schedule here.
    tasks: Arc<BTreeSet<Task>>,
}

/// None until the loop has taken the state folder: a second daemon, which does not get it, tells nothing.
type SharedOrders = Arc<Mutex<Option<Orders>>>;

/// The run's name in the log is the beginning of its name in heartbeats.
pub(super) fn uuid_of(run: RunId) -> RunUuid {
    let rest: u128 = rand::rng().random();
    RunUuid::from_random(u128::from(run.number()) << 96 | rest >> 32)
}

impl Herald {
    /// One that says nothing.
    #[must_use]
    pub fn mute() -> Self {
        Self { voice: None }
    }

    /// Starts its thread.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn start(runtime: Handle, clock: Arc<dyn Clock>) -> Result<Self> {
        let orders = SharedOrders::default();
        let (wake, woken) = sync_channel(1);
        let (ended, over) = sync_channel::<()>(0);
        let crier = Crier { runtime: runtime.clone(), clock: Arc::clone(&clock), orders: Arc::clone(&orders) };
        let spawned = thread::Builder::new().name("herald".to_owned()).spawn(move || {
            crier.run(&woken);
            drop(ended);
        });
        spawned.map_err(|cause| Error::new(Code::Internal, format!("no thread to be had: {cause}")))?;
        Ok(Self { voice: Some(Voice { runtime, clock, orders, wake, over }) })
    }

    /// The config, and what of it has a schedule here, from now on.
    pub(super) fn follow<'a>(&self, settings: &Arc<Settings>, tasks: impl Iterator<Item = &'a Task>) {
        let Some(voice) = &self.voice else { return };
        let orders = Orders { settings: Arc::clone(settings), tasks: Arc::new(tasks.cloned().collect()) };
        *lock(&voice.orders) = Some(orders);
        let _ = voice.wake.try_send(());
    }

    pub(super) fn began(&self, task: &Task, run: &RunUuid) {
        let Some(voice) = &self.voice else { return };
        if let Some(notices) = voice.notices() {
            notices.began(task, run);
            let _ = voice.wake.try_send(());
        }
    }

    pub(super) fn ended(&self, task: &Task, run: &RunUuid, outcome: &Outcome) {
        let Some(voice) = &self.voice else { return };
        let Some(notices) = voice.notices() else { return };
        let ended = Ended { outcome: outcome.word, error: outcome.error.as_ref(), rto: outcome.rto };
        notices.ended(task, run, &ended);
        if let Some((operation, error)) = &outcome.followed {
            let followed = Task { job: task.job.clone(), operation: *operation };
            let word = if error.is_some() { "failed" } else { "success" };
            notices.ended(&followed, run, &Ended::new(word, error.as_ref()));
        }
        let _ = voice.wake.try_send(());
    }

    /// Ends it.
    pub(super) fn finish(&mut self) {
        let Some(Voice { wake, over, .. }) = self.voice.take() else { return };
        drop(wake);
        if over.recv_timeout(ENDS_WITHIN) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("notifications are under way still; what does not arrive waits for the next start");
        }
    }
}

impl Voice {
    fn notices(&self) -> Option<Notices> {
        let orders = lock(&self.orders).clone()?;
        Some(Notices::laying(&self.runtime, &self.clock, &orders.settings))
    }
}

/// The thread.
struct Crier {
    runtime: Handle,
    clock: Arc<dyn Clock>,
    orders: SharedOrders,
}

impl Crier {
    fn run(&self, woken: &Receiver<()>) {
        let mut looked: Option<Duration> = None;
        while woken.recv_timeout(ROUND_EVERY) != Err(RecvTimeoutError::Disconnected) {
            if let Some(Orders { settings, tasks }) = lock(&self.orders).clone() {
                self.round(&settings, &tasks, &mut looked);
            }
        }
    }

    fn round(&self, settings: &Arc<Settings>, tasks: &BTreeSet<Task>, looked: &mut Option<Duration>) {
        let notices = Notices::laying(&self.runtime, &self.clock, settings);
        let Some(courier) = notices.courier() else { return };
        let now = self.clock.monotonic();
        if looked.is_none_or(|looked| now.saturating_sub(looked) >= LOOK_EVERY) {
            *looked = Some(now);
            if let Err(error) = self.look(settings, tasks, &notices) {
                tracing::error!(code = error.code().name(), "nobody looks for what is overdue: {error}");
            }
        }
        courier.carry_or_say(settings, Which::Due);
    }

    fn look(&self, settings: &Settings, tasks: &BTreeSet<Task>, notices: &Notices) -> Result<()> {
        let Some(courier) = notices.courier() else { return Ok(()) };
        let host = Host::bare(self.runtime.clone(), Arc::clone(&self.clock), Interrupt::default())
            .with_home(&settings.state_dir)?;
        let memory = courier.memory().read()?;
        let found = look(&host, settings, &memory, |task| tasks.contains(task), self.clock.now())?;
        notices.lasting(found);
        Ok(())
    }
}

impl std::fmt::Debug for Herald {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Herald").field("mute", &self.voice.is_none()).finish()
    }
}
