//! The store's time, from the `Date` header of its answers: no request is made to learn it as long as others are.
//!
//! Kept as an offset to the monotonic clock. That clock stands still while the machine sleeps, so an offset is not used
//! where the wall clock has moved otherwise, nor when it is old.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::Clock;

/// An offset older than this is found anew.
const HOLDS: Duration = Duration::from_secs(60);
/// Wall clock and monotonic clock may disagree so much about how long it is ago.
const DRIFT: TimeDelta = TimeDelta::seconds(2);
/// A date this much behind what was known means that the store's clock was set back.
const SET_BACK: TimeDelta = TimeDelta::seconds(60);

/// What is known of the store's clock.
pub(super) struct StoreTime {
    clock: Arc<dyn Clock>,
    seen: Mutex<Option<Seen>>,
}

#[derive(Clone, Copy)]
struct Seen {
    /// The store's time when the monotonic clock showed nothing: never later than in truth.
    start: DateTime<Utc>,
    monotonic: Duration,
    wall: DateTime<Utc>,
}

impl StoreTime {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, seen: Mutex::new(None) }
    }

    /// The store's time, where what is known can be relied on.
    pub(super) fn now(&self) -> Option<DateTime<Utc>> {
        let (monotonic, wall) = (self.clock.monotonic(), self.clock.now());
        let seen = (*self.seen.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since = monotonic.checked_sub(seen.monotonic)?;
        let drift = (wall - seen.wall) - delta(since);
        (since <= HOLDS && drift.abs() <= DRIFT).then(|| seen.start + delta(monotonic))
    }

    /// Takes note of a `Date` header.
    fn saw(&self, header: &str) {
        let Ok(date) = DateTime::parse_from_rfc2822(header) else { return };
        let (monotonic, wall) = (self.clock.monotonic(), self.clock.now());
        // The header's second began before the answer came, so this is a lower bound; the highest of several is the nearest.
        let start = date.to_utc() - delta(monotonic);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let start = match *seen {
            Some(before) if start < before.start && before.start - start < SET_BACK => before.start,
            _ => start,
        };
        *seen = Some(Seen { start, monotonic, wall });
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// Listens to every answer.
#[derive(Clone)]
pub(super) struct Listener(pub(super) Arc<StoreTime>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

impl Intercept for Listener {
    fn name(&self) -> &'static str {
        "store's time"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            self.0.saw(date);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_store_s_time_goes_on_with_the_monotonic_clock() {
        let clock = Arc::new(ManualClock::at("2020-01-01T00:00:00Z".parse().unwrap()));
        let time = StoreTime::new(Arc::<ManualClock>::clone(&clock));
        assert_eq!(time.now(), None);
        time.saw("Sun, 22 Nov 2026 17:21:38 GMT");
        let first: DateTime<Utc> = "2026-11-22T17:21:38Z".parse().unwrap();
        assert_eq!(time.now(), Some(first));
        clock.advance(Duration::from_millis(900));
        assert_eq!(time.now(), Some(first + TimeDelta::milliseconds(900)));
        // The same second once more tells nothing new, and takes nothing back.
        time.saw("Sun, 22 Nov 2026 17:21:38 GMT");
        assert_eq!(time.now(), Some(first + TimeDelta::milliseconds(900)));
        // The next one does: the first came in the middle of its second.
        time.saw("Sun, 22 Nov 2026 17:21:39 GMT");
        assert_eq!(time.now(), Some(first + TimeDelta::seconds(1)));
        time.saw("nonsense");
        clock.advance(HOLDS);
        assert_eq!(time.now(), Some(first + TimeDelta::seconds(61)));
        clock.advance(Duration::from_secs(1));
        assert_eq!(time.now(), None, "too old");
        // A clock that was set back is believed.
        time.saw("Sun, 22 Nov 2026 16:00:00 GMT");
        assert_eq!(time.now(), Some("2026-11-22T16:00:00Z".parse().unwrap()));
    }
}
