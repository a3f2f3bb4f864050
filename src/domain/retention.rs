//! How long backups are kept, and when they must be gone: a window with two sides.
//!
//! Only the later side is worked out here. What is thinned between the two sides, and the plan that says which backup
//! goes for which reason, belongs to `prune` and stands here when that comes.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::quantity::exact_duration;
use crate::error::{Code, Diagnostic};

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
    ) -> Result<Self, RetentionError> {
        if keep_at_least >= delete_after {
            return Err(RetentionError::NoWindow { keep_at_least, delete_after });
        }
        for (key, count) in [("daily", daily), ("weekly", weekly)] {
            if count == Some(0) {
                return Err(RetentionError::Zero { key });
            }
        }
        Ok(Self { keep_at_least, delete_after, daily, weekly })
    }

    /// When nothing of a backup may be left any more. A time that no calendar holds is the calendar's last.
    #[must_use]
    pub fn expires_at(&self, recovery_point: DateTime<Utc>) -> DateTime<Utc> {
        TimeDelta::from_std(self.delete_after)
            .ok()
            .and_then(|age| recovery_point.checked_add_signed(age))
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn the_window_has_two_sides() {
        let retention = Retention::new(14 * DAY, 30 * DAY, Some(14), None).unwrap();
        let point: DateTime<Utc> = "2026-11-22T02:00:00Z".parse().unwrap();
        assert_eq!(retention.expires_at(point).to_rfc3339(), "2026-12-22T02:00:00+00:00");
        assert_eq!(retention.expires_at(DateTime::<Utc>::MAX_UTC), DateTime::<Utc>::MAX_UTC);
    }

    #[test]
    fn contradictions_are_refused() {
        let same = Retention::new(14 * DAY, 14 * DAY, None, None).unwrap_err();
        assert_eq!(same.to_string(), "`keep_at_least` (14d) must be shorter than `delete_after` (14d)");
        assert!(same.hint().is_some());
        assert!(Retention::new(DAY, 2 * DAY, None, Some(0)).unwrap_err().to_string().contains("leave `weekly` out"));
    }
}
