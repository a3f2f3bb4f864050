//! A flag that a signal raises and that verbs look at between their steps, so that they end in good order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Code, Error, Result};

/// How long after a signal somebody who waits hears of it, at most.
const POLL: Duration = Duration::from_millis(50);

/// Raised once, by a signal.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks the running verb to end.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Waits until it is raised.
    pub async fn raised(&self) {
        while self.check().is_ok() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Fails once it was raised.
    ///
    /// # Errors
    /// [`Code::Interrupted`].
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::new(Code::Interrupted, "interrupted")
                .with_hint("nothing of this run was committed; run it again"));
        }
        Ok(())
    }
}
