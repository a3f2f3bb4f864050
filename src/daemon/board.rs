//! What the loop writes up for those who ask: when it last turned, what is wrong, what comes next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::lock;
use crate::clock::Clock;
use crate::domain::operation::Task;

/// A loop that has not turned for so long hangs: it turns each minute at least.
pub const MAX_SILENCE: Duration = Duration::from_secs(150);

/// The board. Clones are the same one.
#[derive(Clone)]
pub struct Board {
    clock: Arc<dyn Clock>,
    turned: Arc<Mutex<Duration>>,
    notice: Arc<Mutex<Notice>>,
    runs: Arc<AtomicU64>,
}

/// What stands on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notice {
    /// What is wrong with the config on disk; the last good one is in use.
    pub config: Option<String>,
    /// Why the state could not be written.
    pub state: Option<String>,
    /// Every task.
    pub tasks: Vec<TaskNotice>,
}

/// A task, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskNotice {
    /// Which.
    pub task: Task,
    /// When it starts next.
    pub next: Option<DateTime<Utc>>,
    /// Since when it runs.
    pub running_since: Option<DateTime<Utc>>,
    /// Slots that nobody was there for.
    pub missed: u64,
    /// Slots that came while it ran.
    pub overlapped: u64,
}

impl Board {
    /// An empty board.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let turned = Arc::new(Mutex::new(clock.monotonic()));
        Self { clock, turned, notice: Arc::default(), runs: Arc::default() }
    }

    /// The loop turned.
    pub fn turned(&self, notice: Notice) {
        *lock(&self.turned) = self.clock.monotonic();
        *lock(&self.notice) = notice;
    }

    /// A run ended: what is known of its job is not what it was.
    pub fn ran(&self) {
        self.runs.fetch_add(1, Ordering::Relaxed);
    }

    /// How many runs ended.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// How long the loop has been silent, where that is too long.
    #[must_use]
    pub fn hangs_for(&self) -> Option<Duration> {
        let silence = self.clock.monotonic().saturating_sub(*lock(&self.turned));
        (silence > MAX_SILENCE).then_some(silence)
    }

    /// What stands on it.
    #[must_use]
    pub fn notice(&self) -> Notice {
        lock(&self.notice).clone()
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}
