//! How far something is on its way to a deadline, and the stages at which one is told.

use std::fmt;

use chrono::{DateTime, Utc};

/// The time from which on something could be gone, to the time at which it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The beginning.
    pub from: DateTime<Utc>,
    /// The deadline. Not after the beginning where a commit came too late for its recovery point: then nothing lies
    /// between, and what has begun is past.
    pub until: DateTime<Utc>,
}

/// How far along the way, as an alarm tells it. A later stage is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Half of the way is behind.
    Half,
    /// Three quarters are.
    ThreeQuarters,
    /// Nine tenths are.
    NineTenths,
    /// The deadline is.
    Past,
}

impl Stage {
    /// From the last to the first.
    const ALL: [Self; 4] = [Self::Past, Self::NineTenths, Self::ThreeQuarters, Self::Half];

    /// How much of the way is behind at least.
    #[must_use]
    pub fn percent(self) -> u8 {
        match self {
            Self::Half => 50,
            Self::ThreeQuarters => 75,
            Self::NineTenths => 90,
            Self::Past => 100,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Past => f.write_str("past the deadline"),
            _ => write!(f, "{} % of the way to the deadline", self.percent()),
        }
    }
}

impl Way {
    /// How much of the way is behind: 0 before the beginning, 1 from the deadline on.
    #[must_use]
    pub fn share(&self, now: DateTime<Utc>) -> f64 {
        let (behind, whole) = self.milliseconds(now);
        if behind < 0 {
            0.0
        } else if behind >= whole {
            1.0
        } else {
            #[expect(clippy::cast_precision_loss, reason = "a share for people; 2^53 milliseconds are 285,000 years")]
            let share = behind as f64 / whole as f64;
            share
        }
    }

    /// The last stage that has been reached; none before half of the way.
    #[must_use]
    pub fn stage(&self, now: DateTime<Utc>) -> Option<Stage> {
        let (behind, whole) = self.milliseconds(now);
        if behind < 0 {
            return None;
        }
        let reached = |stage: &Stage| i128::from(behind) * 100 >= i128::from(whole) * i128::from(stage.percent());
        Stage::ALL.into_iter().find(reached)
    }

    /// Behind, and all.
    fn milliseconds(&self, now: DateTime<Utc>) -> (i64, i64) {
        ((now - self.from).num_milliseconds(), (self.until - self.from).num_milliseconds())
    }
}
