//! Carries what waits in the queue to where it belongs, one after the other, oldest first; and a round of it on a thread of
//! its own, which nobody has to wait for longer than they want.
//!
//! One process at a time carries. A place that cannot be reached is left alone for the rest of the round. An item leaves
//! the queue after it arrived: a process that dies in between sends it twice, with the same id.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::runtime::Handle;

use super::memory::MemoryFile;
use super::queue::{HEARTBEAT, Item, Queue, Waiting, What};
use super::{NotifyError, channel, folder};
use crate::clock::Clock;
use crate::config::Settings;
use crate::error::{Diagnostic as _, chain};

/// The courier, and the folder that it works in. Clones are the same one.
#[derive(Clone)]
pub struct Courier {
    folder: PathBuf,
    runtime: Handle,
    clock: Arc<dyn Clock>,
}

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Everything, also what was tried a moment ago.
    All,
    /// What was never tried, or is to be tried again by now.
    Due,
}

/// What came of a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// What arrived.
    pub arrived: usize,
    /// What did not.
    pub failed: usize,
}

impl Courier {
    /// Works below a state folder.
    ///
    /// # Errors
    /// When its own folder there cannot be made.
    pub fn new(state_dir: &Path, runtime: Handle, clock: Arc<dyn Clock>) -> Result<Self, NotifyError> {
        let folder = state_dir.join("notify");
        folder::make(&folder)?;
        Ok(Self { folder, runtime, clock })
    }

    /// What waits.
    #[must_use]
    pub fn queue(&self) -> Queue {
        Queue::within(&self.folder)
    }

    /// What was told.
    #[must_use]
    pub fn memory(&self) -> MemoryFile {
        MemoryFile::within(&self.folder)
    }

    /// Lays an item down.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn lay(&self, item: &Item, tie: u32) -> Result<(), NotifyError> {
        for gone in self.queue().lay(item, tie)? {
            self.gave_up(&gone, "too many wait")?;
        }
        Ok(())
    }

    /// Carries what waits; blocks for as long as that takes.
    ///
    /// # Errors
    /// When the state folder cannot be used. What does not arrive is no error.
    pub fn carry(&self, settings: &Settings, which: Which) -> Result<Carried, NotifyError> {
        let _held = folder::lock(&self.folder.join("sending.lock"))?;
        let queue = self.queue();
        let (mut carried, mut seen, mut shut) = (Carried::default(), BTreeSet::new(), BTreeSet::new());
        loop {
            // What is laid down meanwhile is carried as well: whoever laid it down may be waiting for this very round.
            let new: Vec<Waiting> =
                queue.waiting()?.into_iter().filter(|waiting| seen.insert(waiting.name.clone())).collect();
            if new.is_empty() {
                return Ok(carried);
            }
            for waiting in new {
                self.carry_one(settings, which, waiting, &mut shut, &mut carried)?;
            }
        }
    }

    fn carry_one(
        &self,
        settings: &Settings,
        which: Which,
        Waiting { name, mut item }: Waiting,
        shut: &mut BTreeSet<String>,
        carried: &mut Carried,
    ) -> Result<(), NotifyError> {
        let (queue, now) = (self.queue(), self.clock.now());
        if item.is_stale(now) {
            queue.remove(&name)?;
            return self.gave_up(&item, "it is too old by now");
        }
        if shut.contains(&item.channel) || (which == Which::Due && item.attempts > 0 && now < item.due) {
            return Ok(());
        }
        match self.send(settings, &item) {
            // Nobody wants it any more.
            None => queue.remove(&name),
            Some(Ok(_)) => {
                carried.arrived += 1;
                queue.remove(&name)?;
                self.memory().change(|memory| memory.arrived(&item.channel, now))
            }
            Some(Err(error)) => {
                carried.failed += 1;
                let why = chain(&error);
                let (channel, code) = (&item.channel, error.code().name());
                // Once where somebody reads it: whoever would tell them has just failed to.
                if item.attempts == 0 {
                    tracing::error!(code, "a notification to {channel} did not arrive, and will be sent again: {why}");
                } else {
                    tracing::warn!(
                        code,
                        attempts = item.attempts + 1,
                        "a notification to {channel} did not arrive: {why}"
                    );
                }
                if error.is_of_the_place() {
                    shut.insert(item.channel.clone());
                }
                item.did_not_arrive(now);
                queue.write(&name, &item)?;
                self.memory().change(|memory| memory.failed(&item.channel, why))
            }
        }
    }

    fn send(&self, settings: &Settings, item: &Item) -> Option<Result<String, NotifyError>> {
        match &item.what {
            What::Event(event) => {
                let to = settings.notify.channels.get(&item.channel)?;
                Some(channel::send(&self.runtime, to, event))
            }
            What::Beat(beat) => {
                let job = settings.jobs.get(&beat.job)?;
                let place = settings.notify.heartbeat_of(&job.notify, beat.operation)?;
                Some(channel::beat(place, beat))
            }
        }
    }

    fn gave_up(&self, item: &Item, why: &str) -> Result<(), NotifyError> {
        let is_start = matches!(&item.what, What::Beat(beat) if beat.sign == super::heartbeat::Sign::Start);
        if !is_start {
            let laid = item.laid.to_rfc3339();
            tracing::error!(laid, "a notification to {} is given up: {why}", item.channel);
        }
        self.memory().change(|memory| memory.failed(&item.channel, why.to_owned()))
    }

    /// What waits of a channel: how many, and since when.
    ///
    /// # Errors
    /// When the queue cannot be read.
    pub fn waiting_for(&self, channel: &str) -> Result<Option<(usize, DateTime<Utc>)>, NotifyError> {
        let items = self.queue().items()?;
        let of_channel: Vec<&Item> = items.iter().filter(|item| item.channel == channel).collect();
        Ok(of_channel.first().map(|oldest| (of_channel.len(), oldest.laid)))
    }

    /// Begins rounds on a thread: one at once, one whenever it is woken, one at its end.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn rounds(&self, settings: Arc<Settings>, first: Which) -> Result<Rounds, NotifyError> {
        let (wake, woken) = sync_channel::<()>(1);
        let (ended, over) = sync_channel::<()>(0);
        let courier = self.clone();
        let spawned = thread::Builder::new().name("notify".to_owned()).spawn(move || {
            courier.carry_or_say(&settings, first);
            while woken.recv().is_ok() {
                courier.carry_or_say(&settings, Which::Due);
            }
            drop(ended);
        });
        spawned.map_err(folder::io("start a thread for", &self.folder))?;
        Ok(Rounds { wake, over })
    }

    /// A round whose error is logged: nobody else hears of it.
    pub fn carry_or_say(&self, settings: &Settings, which: Which) {
        if let Err(error) = self.carry(settings, which) {
            tracing::error!(code = error.code().name(), "notifications wait: {}", chain(&error));
        }
    }
}

impl std::fmt::Debug for Courier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Courier").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Rounds that go on beside the work.
#[derive(Debug)]
pub struct Rounds {
    wake: SyncSender<()>,
    over: Receiver<()>,
}

impl Rounds {
    /// Something new waits.
    pub fn wake(&self) {
        // One that is full will look anyway.
        let _ = self.wake.try_send(());
    }

    /// Ends them, and waits so long for the last one. Whether it came to its end: what did not waits for the next process.
    #[must_use]
    pub fn finish(self, within: Duration) -> bool {
        drop(self.wake);
        matches!(self.over.recv_timeout(within), Err(RecvTimeoutError::Disconnected))
    }
}

/// The names of everything that is counted: channels, and the heartbeat where there is one.
#[must_use]
pub fn counted(settings: &Settings) -> Vec<&str> {
    let has_heartbeat = settings.notify.heartbeat.is_some()
        || settings.jobs.values().any(|job| job.notify.heartbeat.is_some() || job.notify.drill_heartbeat.is_some());
    let channels = settings.notify.channels.keys().map(String::as_str);
    has_heartbeat.then_some(HEARTBEAT).into_iter().chain(channels).collect()
}
