//! When a request is made again: what is transient only, with pauses that double and are random from nothing to their full
//! length, so that many clients of one broken store do not come back together.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use crate::clock::Clock;

use super::trouble::{Kind, Trouble};

/// The most tries of one request.
pub(super) const MAX_TRIES: u32 = 8;
/// No further try is begun so long after the first.
const WITHIN: Duration = Duration::from_secs(120);
/// The first pause is at most this long, and each one twice the one before,
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

type Sleep = dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// Clock, sleep and randomness of retries.
#[derive(Clone)]
pub(super) struct Retries {
    clock: Arc<dyn Clock>,
    sleep: Arc<Sleep>,
    /// From 0 to 1.
    random: Arc<dyn Fn() -> f64 + Send + Sync>,
}

/// What the tries of one request came to.
pub(super) struct Outcome<T> {
    pub(super) result: Result<T, Trouble>,
    /// Whether a try before the last may have taken effect, its answer lost.
    pub(super) lost: bool,
}

impl Retries {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            sleep: Arc::new(|pause| Box::pin(tokio::time::sleep(pause))),
            random: Arc::new(|| rand::rng().random()),
        }
    }

    /// Tries until it succeeds, fails for good, or time or tries are used up.
    pub(super) async fn run<T, Fut>(&self, mut attempt: impl FnMut() -> Fut + Send) -> Outcome<T>
    where
        Fut: Future<Output = Result<T, Trouble>> + Send,
        T: Send,
    {
        let (start, began) = (self.clock.monotonic(), self.clock.now());
        let mut longest = FIRST_PAUSE;
        let (mut tries, mut lost, mut skewed) = (0, false, false);
        loop {
            tries += 1;
            let trouble = match attempt().await {
                Ok(value) => return Outcome { result: Ok(value), lost },
                Err(trouble) => trouble,
            };
            // The SDK has set its clock by the answer; if that did not help, nothing will.
            let corrected = trouble.kind == Kind::Skewed && !std::mem::replace(&mut skewed, true);
            let pause = longest.mul_f64((self.random)().clamp(0.0, 1.0));
            // A machine that slept in between must not wake up and go on: what was asked for may not be wanted any more. The
            // monotonic clock sleeps with it.
            let spent = || {
                let awake = self.clock.monotonic().saturating_sub(start);
                awake.max((self.clock.now() - began).to_std().unwrap_or(Duration::ZERO))
            };
            if !(trouble.kind.is_transient() || corrected) || tries >= MAX_TRIES || spent() + pause > WITHIN {
                return Outcome { result: Err(trouble), lost };
            }
            (self.sleep)(pause).await;
            if spent() > WITHIN + LONGEST_PAUSE {
                return Outcome { result: Err(trouble), lost };
            }
            lost |= trouble.kind.may_be_done();
            longest = (longest * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::super::remote::RemoteFault;
    use super::*;
    use crate::clock::ManualClock;

    /// Retries whose pauses only move a clock, with the pauses made.
    fn retries(random: f64) -> (Retries, Arc<ManualClock>, Arc<Mutex<Vec<Duration>>>) {
        let clock = Arc::new(ManualClock::at("2026-11-22T00:00:00Z".parse().unwrap()));
        let pauses = Arc::new(Mutex::new(Vec::new()));
        let (moved, noted) = (Arc::clone(&clock), Arc::clone(&pauses));
        let sleep: Arc<Sleep> = Arc::new(move |pause| {
            moved.advance(pause);
            noted.lock().unwrap().push(pause);
            Box::pin(async {})
        });
        (Retries { clock: Arc::<ManualClock>::clone(&clock), sleep, random: Arc::new(move || random) }, clock, pauses)
    }

    async fn run(retries: &Retries, mut answers: Vec<Result<u8, Kind>>) -> (Result<u8, Kind>, bool, usize) {
        let mut tries = 0;
        answers.reverse();
        let outcome = retries
            .run(|| {
                tries += 1;
                let answer = if answers.len() > 1 { answers.pop().unwrap() } else { answers[0].clone() };
                async move { answer.map_err(|kind| Trouble::new(kind, "")) }
            })
            .await;
        (outcome.result.map_err(|trouble| trouble.kind), outcome.lost, tries)
    }

    #[tokio::test]
    async fn what_is_transient_is_tried_again_and_nothing_else() {
        let (retries, _, pauses) = retries(1.0);
        assert_eq!(run(&retries, vec![Ok(1)]).await, (Ok(1), false, 1));
        assert_eq!(run(&retries, vec![Err(Kind::Lost), Ok(1)]).await, (Ok(1), true, 2));
        assert_eq!(run(&retries, vec![Err(Kind::Contended), Ok(1)]).await, (Ok(1), false, 2));
        for kind in [Kind::NotFound, Kind::Precondition, Kind::Fault(RemoteFault::Denied), Kind::Full] {
            assert_eq!(run(&retries, vec![Err(kind.clone()), Ok(1)]).await, (Err(kind), false, 1));
        }
        assert_eq!(*pauses.lock().unwrap(), [FIRST_PAUSE; 2]);
    }

    #[tokio::test]
    async fn a_clock_is_corrected_once() {
        let (retries, ..) = retries(1.0);
        assert_eq!(run(&retries, vec![Err(Kind::Skewed), Ok(1)]).await, (Ok(1), false, 2));
        assert_eq!(run(&retries, vec![Err(Kind::Skewed)]).await, (Err(Kind::Skewed), false, 2));
    }

    #[tokio::test]
    async fn tries_and_time_end() {
        let (quick, _, pauses) = retries(0.5);
        assert_eq!(run(&quick, vec![Err(Kind::Broken)]).await, (Err(Kind::Broken), true, MAX_TRIES as usize));
        let halves = [100, 200, 400, 800, 1600, 3200, 6400].map(Duration::from_millis);
        assert_eq!(*pauses.lock().unwrap(), halves);
        // A try that takes a minute each time leaves room for three.
        let (slow, clock, _) = retries(0.0);
        let mut tries = 0;
        let outcome: Outcome<()> = slow
            .run(|| {
                tries += 1;
                clock.advance(Duration::from_secs(60));
                async { Err(Trouble::late()) }
            })
            .await;
        assert!(outcome.result.is_err() && outcome.lost);
        assert_eq!(tries, 3);
    }
}
