//! Now and sleep, injected: nothing else in the library asks the operating system for the time of day.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// A source of time. Durations of work are measured on the monotonic clock, moments on the wall clock.
pub trait Clock: Send + Sync {
    /// The wall clock, in UTC.
    fn now(&self) -> DateTime<Utc>;
    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is moved: for tests and simulations.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(DateTime<Utc>, Duration)>,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: DateTime<Utc>) -> Self {
        Self { state: Mutex::new((now, Duration::ZERO)) }
    }

    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.0 += TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
        state.1 += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1
    }
}

/// The zone of this machine's wall clock, from where Linux keeps it; UTC where nothing says.
#[must_use]
pub fn zone_of_this_host() -> String {
    let named = std::fs::read_to_string("/etc/timezone").map(|text| text.trim().to_owned()).ok();
    let linked = std::fs::read_link("/etc/localtime").ok().and_then(|target| {
        target.to_str().and_then(|path| path.split_once("zoneinfo/")).map(|(_, zone)| zone.to_owned())
    });
    let known = |zone: &String| zone.parse::<chrono_tz::Tz>().is_ok();
    linked.filter(known).or(named.filter(known)).unwrap_or_else(|| "UTC".to_owned())
}
