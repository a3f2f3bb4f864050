//! A machine of the simulation: a clock that may be wrong, a state folder that outlives its processes, and the process
//! of the moment, which may be killed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::{Clock, ManualClock};
use crate::operations::host::Host;
use crate::operations::interrupt::Interrupt;
use crate::vault::keys::{PublicKey, SigningKey};

/// What a machine takes for the time.
pub(super) struct Skewed {
    truth: Arc<ManualClock>,
    off: Mutex<TimeDelta>,
}

impl Skewed {
    pub(super) fn off(&self) -> TimeDelta {
        *self.off.lock().unwrap()
    }

    pub(super) fn set_off(&self, by: TimeDelta) {
        *self.off.lock().unwrap() = by;
    }
}

impl Clock for Skewed {
    fn now(&self) -> DateTime<Utc> {
        self.truth.now() + self.off()
    }

    fn monotonic(&self) -> Duration {
        self.truth.monotonic()
    }
}

pub(super) struct Machine {
    pub(super) clock: Arc<Skewed>,
    state: PathBuf,
    runtime: tokio::runtime::Runtime,
    process: Option<Arc<Host>>,
}

impl Machine {
    pub(super) fn new(name: &str, folder: &Path, truth: &Arc<ManualClock>) -> (Self, PublicKey) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let clock = Arc::new(Skewed { truth: Arc::clone(truth), off: Mutex::new(TimeDelta::zero()) });
        let mut machine = Self { clock, state: folder.join(name), runtime, process: None };
        let key = SigningKey::generate();
        key.write_new(&machine.host().home().unwrap().state.host_key(), "test").unwrap();
        (machine, key.public().clone())
    }

    /// The process that runs now; a new one where the last was killed.
    pub(super) fn host(&mut self) -> Arc<Host> {
        if self.process.is_none() {
            self.process = Some(Arc::new(self.start(&self.state)));
        }
        Arc::clone(self.process.as_ref().unwrap())
    }

    /// A process with another memory.
    pub(super) fn start(&self, state: &Path) -> Host {
        let clock: Arc<dyn Clock> = Arc::<Skewed>::clone(&self.clock);
        let mut host = Host::bare(self.runtime.handle().clone(), clock, Interrupt::default());
        host.workers = 1;
        host.with_home(state).unwrap()
    }

    pub(super) fn killed(&mut self) {
        self.process = None;
    }
}
