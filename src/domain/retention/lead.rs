//! How long before `delete_after` a manifest must go, so that nothing is left when the time has come.
//!
//! A backup may have come of age just after a prune; the next one takes its manifest out and condemns its objects; the
//! one after that, at least the grace period later, erases them, and takes its time to do so. That is
//! `2 × cadence + grace + sweep`. The lead is twice as long where there is room, so that in normal running everything
//! is gone half-way through it and alarms come before the promise is broken, not after.

use std::fmt;
use std::time::Duration;

use super::Retention;
use crate::domain::quantity::exact_duration;

/// What a sweep is allowed to take, if the window has room for it.
pub const SWEEP_ALLOWANCE: Duration = Duration::from_secs(3600);
/// The allowance is at most this part of the window.
pub const SWEEP_SHARE: u32 = 16;
/// The grace period is at most this long, if the config does not say.
pub const GRACE_AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// And at most this part of the smallest window of the vault's jobs.
pub const GRACE_SHARE: u32 = 8;

/// What the lead is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lead {
    /// The largest gap between two prunes.
    pub cadence: Duration,
    /// How long an object stays condemned before it is erased.
    pub grace: Duration,
    /// What a sweep is allowed to take.
    pub sweep: Duration,
}

impl Lead {
    /// With the allowance for the sweep that the window has room for.
    #[must_use]
    pub fn new(retention: &Retention, cadence: Duration, grace: Duration) -> Self {
        Self { cadence, grace, sweep: SWEEP_ALLOWANCE.min(retention.window() / SWEEP_SHARE) }
    }

    /// From the moment when a backup may go to the moment when nothing of it is left, if everything runs as scheduled
    /// and as late as it may.
    #[must_use]
    pub fn needed(&self) -> Duration {
        self.cadence.saturating_mul(2).saturating_add(self.grace).saturating_add(self.sweep)
    }

    /// Whether the promise can be kept. What runs runs all the same where it cannot.
    #[must_use]
    pub fn fits(&self, retention: &Retention) -> bool {
        self.needed() <= retention.window()
    }

    /// How long before `delete_after` a manifest goes: twice what is needed, at most the whole window.
    #[must_use]
    pub fn length(&self, retention: &Retention) -> Duration {
        self.needed().saturating_mul(2).min(retention.window())
    }
}

/// The sum.
impl fmt::Display for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cadence, grace, sweep) =
            (exact_duration(self.cadence), exact_duration(self.grace), exact_duration(self.sweep));
        let needed = exact_duration(self.needed());
        write!(f, "{cadence} + {cadence} between prunes + {grace} of grace + {sweep} for the sweep = {needed}")
    }
}

/// The grace period of a vault whose config does not say: by the smallest window of its jobs, if there is one.
#[must_use]
pub fn default_grace(smallest_window: Option<Duration>) -> Duration {
    smallest_window.map_or(GRACE_AT_MOST, |window| GRACE_AT_MOST.min(window / GRACE_SHARE))
}
