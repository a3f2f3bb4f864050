//! How long backups are kept, and when they must be gone: a window with two sides.
//!
//! The age that `keep_at_least` means counts from the commit: from then on there is something to go back to. The age that
//! `delete_after` means counts from the recovery point, for data is as old as that. A manifest must go a good while
//! before `delete_after`, because its objects are erased in two steps after it: that while is the [`Lead`], and the
//! moment at which it begins is the planned expiry. [`Retention::plan`] says of every backup whether it stays, and why.
//!
//! Nothing here knows who runs the plan, what a manifest names, or what the time is.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::quantity::exact_duration;
use crate::error::{Code, Diagnostic};

mod hold;
mod lead;
mod plan;
mod reasons;
#[cfg(test)]
mod tests;
mod way;

pub use hold::Hold;
pub use lead::{GRACE_AT_MOST, GRACE_SHARE, Lead, SWEEP_ALLOWANCE, SWEEP_SHARE, default_grace};
pub use plan::{Candidate, Conflict, Decision, Fate, Plan};
pub use reasons::{DeleteReason, KeepReason, WallTime};
pub use way::{Stage, Way};

/// The promise about a job's backups. [`Retention::new`] checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// No backup goes before it is this old.
    pub keep_at_least: Duration,
    /// Nothing of a backup is left when it is this old.
    pub delete_after: Duration,
    /// Between the two: at most one backup for each of so many days.
    pub daily: Option<u32>,
    /// Between the two: at most one backup for each of so many weeks.
    pub weekly: Option<u32>,
    /// What happens to the last good backup when its time has come.
    pub last_good: LastGood,
}

/// Which promise gives way when the last good backup must be erased and there is no newer good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastGood {
    /// It stays, and `delete_after` is broken: an alarm stands.
    #[default]
    Keep,
    /// It goes, and there is nothing to restore from.
    Erase,
}

impl LastGood {
    /// The words that a config takes.
    pub const WORDS: [&str; 2] = ["keep", "erase"];

    /// As it stands in a config.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Erase => "erase",
        }
    }

    /// From the word in a config; nothing if it is none of [`LastGood::WORDS`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Keep, Self::Erase].into_iter().find(|choice| choice.word() == word)
    }
}

/// Why a retention is no promise that one could keep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    /// There must be room between the two sides, or no moment is right for erasing.
    #[error("`keep_at_least` ({}) must be shorter than `delete_after` ({})", exact_duration(*keep_at_least), exact_duration(*delete_after))]
    NoWindow {
        /// What was given.
        keep_at_least: Duration,
        /// What was given.
        delete_after: Duration,
    },
    /// Keeping none of something is said by leaving it out.
    #[error("`{key} = 0` would keep none; leave `{key}` out to thin nothing")]
    Zero {
        /// `daily`, `weekly`.
        key: &'static str,
    },
}

impl Diagnostic for RetentionError {
    fn code(&self) -> Code {
        Code::ConfigInvalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoWindow { .. } => {
                Some("leave at least a day between the two, such as \"14d\" and \"30d\"".to_owned())
            }
            Self::Zero { .. } => None,
        }
    }
}

impl Retention {
    /// Checks the two sides against each other.
    ///
    /// # Errors
    /// [`RetentionError`].
    pub fn new(
        keep_at_least: Duration,
        delete_after: Duration,
        daily: Option<u32>,
        weekly: Option<u32>,
        last_good: LastGood,
    ) -> Result<Self, RetentionError> {
        if keep_at_least >= delete_after {
            return Err(RetentionError::NoWindow { keep_at_least, delete_after });
        }
        for (key, count) in [("daily", daily), ("weekly", weekly)] {
            if count == Some(0) {
                return Err(RetentionError::Zero { key });
            }
        }
        Ok(Self { keep_at_least, delete_after, daily, weekly, last_good })
    }

    /// The time between the two sides: all the time that there is for erasing.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.delete_after - self.keep_at_least
    }

    /// When nothing of a backup may be left any more: its deadline. A time that no calendar holds is the calendar's
    /// last.
    #[must_use]
    pub fn expires_at(&self, recovery_point: DateTime<Utc>) -> DateTime<Utc> {
        later(recovery_point, self.delete_after)
    }

    /// From when on a backup may go at all.
    #[must_use]
    pub fn kept_until(&self, available_at: DateTime<Utc>) -> DateTime<Utc> {
        later(available_at, self.keep_at_least)
    }

    /// How old a backup is when it goes in normal running, counted from its recovery point.
    #[must_use]
    pub fn planned_age(&self, lead: &Lead) -> Duration {
        self.delete_after - lead.length(self)
    }

    /// The way of a backup from its planned expiry, when its manifest goes, to its deadline, when its last byte must be
    /// gone. A recovery point later than the commit cannot be, and is taken as the commit.
    #[must_use]
    pub fn erasing(&self, recovery_point: DateTime<Utc>, available_at: DateTime<Utc>, lead: &Lead) -> Way {
        let recovery_point = recovery_point.min(available_at);
        let from = later(recovery_point, self.planned_age(lead)).max(self.kept_until(available_at));
        Way { from, until: self.expires_at(recovery_point) }
    }
}

/// A time that no calendar holds is the calendar's last.
fn later(moment: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by).ok().and_then(|by| moment.checked_add_signed(by)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
