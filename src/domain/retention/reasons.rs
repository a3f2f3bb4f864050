//! Why a backup stays or goes, worded for people.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, IsoWeek, NaiveDate, Utc};
use chrono_tz::Tz;

use crate::domain::quantity::exact_duration;
use crate::domain::record::RemovalReason;

/// A promise shorter than this is told to the minute, a longer one to the day.
const TO_THE_MINUTE_BELOW: Duration = Duration::from_secs(2 * 86_400);

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepReason {
    /// It is younger than `keep_at_least`.
    Young {
        /// The promise.
        keep_at_least: Duration,
        /// When it no longer is.
        until: WallTime,
    },
    /// It stands for its day.
    NewestOfDay(NaiveDate),
    /// It stands for its week.
    NewestOfWeek(IsoWeek),
    /// It is the newest good one older than `keep_at_least`: without it one could not go back that far until the next
    /// one is that old.
    ReachesBack {
        /// The promise.
        keep_at_least: Duration,
    },
    /// It should have gone, but is the last good one.
    LastGood,
    /// Nothing is thinned, and its time has not come.
    Unexpired {
        /// When it will have: the planned expiry.
        until: WallTime,
    },
}

/// Why a backup goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteReason {
    /// Its planned expiry has come.
    Expired {
        /// When nothing of it may be left.
        deadline: WallTime,
    },
    /// Its day and week are kept by others, or are too far back.
    Thinned,
}

impl DeleteReason {
    /// As the record of its removal says it.
    #[must_use]
    pub fn removal(&self) -> RemovalReason {
        match self {
            Self::Expired { .. } => RemovalReason::Expired,
            Self::Thinned => RemovalReason::Thinned,
        }
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Young { keep_at_least, until } => {
                write!(f, "younger than {} (until {until})", exact_duration(*keep_at_least))
            }
            Self::NewestOfDay(day) => write!(f, "newest of {day}"),
            Self::NewestOfWeek(week) => write!(f, "newest of week {}-W{:02}", week.year(), week.week()),
            Self::ReachesBack { keep_at_least } => {
                write!(f, "the newest one older than {}", exact_duration(*keep_at_least))
            }
            Self::LastGood => f.write_str("the last good one"),
            Self::Unexpired { until } => write!(f, "kept until {until}"),
        }
    }
}

impl fmt::Display for DeleteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { deadline } => write!(f, "expired: must be gone by {deadline}"),
            Self::Thinned => f.write_str("thinned"),
        }
    }
}

/// A moment on the config's wall clock. Displays to the day, or to the minute where the promise behind it is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime {
    /// The moment.
    pub at: DateTime<Tz>,
    exact: Exact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exact {
    ToTheDay,
    ToTheMinute,
}

impl WallTime {
    pub(super) fn new(at: DateTime<Utc>, zone: Tz, promise: Duration) -> Self {
        let exact = if promise < TO_THE_MINUTE_BELOW { Exact::ToTheMinute } else { Exact::ToTheDay };
        Self { at: at.with_timezone(&zone), exact }
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match self.exact {
            Exact::ToTheDay => "%Y-%m-%d",
            Exact::ToTheMinute => "%Y-%m-%d %H:%M",
        };
        write!(f, "{}", self.at.format(format))
    }
}
