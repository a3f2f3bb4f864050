//! At most so many bytes a second, up and down together, over all requests of a store.
//!
//! Bytes are booked when they are about to be sent, or have come; whoever books waits until what was booked before has had
//! its time. So the limit holds over seconds, not within one object.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

use super::retry::Sleep;

/// What was not used up to now may be made up for this long.
const BURST: Duration = Duration::from_secs(1);

/// The limit, if there is one.
pub(super) struct Bandwidth {
    bytes_a_second: Option<u64>,
    clock: Arc<dyn Clock>,
    sleep: Arc<Sleep>,
    /// When everything that is booked has had its time, on the monotonic clock.
    free_at: Mutex<Duration>,
}

impl Bandwidth {
    pub(super) fn new(bytes_a_second: Option<u64>, clock: Arc<dyn Clock>, sleep: Arc<Sleep>) -> Self {
        Self { bytes_a_second, clock, sleep, free_at: Mutex::new(Duration::ZERO) }
    }

    /// Books bytes, and waits for their turn.
    pub(super) async fn book(&self, bytes: u64) {
        let pause = self.pause(bytes);
        if !pause.is_zero() {
            (self.sleep)(pause).await;
        }
    }

    fn pause(&self, bytes: u64) -> Duration {
        let Some(limit) = self.bytes_a_second else { return Duration::ZERO };
        let now = self.clock.monotonic();
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*free_at).max(now.saturating_sub(BURST));
        // An object has some millions of bytes, far from what a f64 counts exactly.
        *free_at = turn + Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64);
        turn.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_limit_holds_over_seconds() {
        let clock = Arc::new(ManualClock::at("2026-11-22T00:00:00Z".parse().unwrap()));
        clock.advance(Duration::from_secs(10));
        let sleep: Arc<Sleep> = Arc::new(|_| Box::pin(async {}));
        let limited = Bandwidth::new(Some(1000), Arc::<ManualClock>::clone(&clock), Arc::clone(&sleep));
        // The last second was not used.
        assert_eq!(limited.pause(3000), Duration::ZERO);
        assert_eq!(limited.pause(500), Duration::from_secs(2));
        assert_eq!(limited.pause(500), Duration::from_millis(2500));
        clock.advance(Duration::from_secs(3));
        assert_eq!(limited.pause(1), Duration::ZERO);
        // A long rest is not made up for.
        clock.advance(Duration::from_secs(3600));
        assert_eq!(limited.pause(2000), Duration::ZERO);
        assert_eq!(limited.pause(0), Duration::from_secs(1));
        assert_eq!(Bandwidth::new(None, clock, sleep).pause(u64::MAX), Duration::ZERO);
    }
}
