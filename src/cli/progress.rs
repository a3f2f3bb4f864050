//! Progress on a terminal: a bar with rate and time left where the total is known. Silent where stderr is no terminal.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::observe::Progress;

use super::output::say;

/// Redraws a second.
const TICK: Duration = Duration::from_millis(200);

/// Talks to the person at the terminal.
pub(super) struct Terminal {
    bar: Mutex<Option<ProgressBar>>,
    draws: bool,
}

impl Terminal {
    /// Draws bars if stderr is a terminal and nobody asked for silence.
    #[must_use]
    pub(super) fn new(quiet: bool) -> Self {
        Self { bar: Mutex::new(None), draws: !quiet && std::io::stderr().is_terminal() }
    }

    fn bar(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates below are constants of this file; a test draws with each.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

const KNOWN: &str = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
const UNKNOWN: &str = "{msg} {spinner} {bytes} {bytes_per_sec} {elapsed}";

impl Progress for Terminal {
    fn begin(&self, stage: &str, total_bytes: Option<u64>) {
        if !self.draws {
            return;
        }
        let bar = match total_bytes {
            Some(total) if total > 0 => ProgressBar::new(total).with_style(style(KNOWN)),
            _ => ProgressBar::no_length().with_style(style(UNKNOWN)),
        };
        bar.set_message(stage.to_owned());
        bar.enable_steady_tick(TICK);
        if let Some(previous) = self.bar().replace(bar) {
            previous.finish_and_clear();
        }
    }

    fn advance(&self, bytes: u64) {
        if !self.draws {
            return;
        }
        if let Some(bar) = &*self.bar() {
            bar.inc(bytes);
            // An estimate from the last backup may be too small.
            if bar.length().is_some_and(|length| bar.position() > length) {
                bar.set_length(bar.position());
            }
        }
    }

    fn end(&self) {
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
        }
    }

    fn warn(&self, message: &str) {
        let text = format!("warning: {message}");
        match &*self.bar() {
            Some(bar) => bar.suspend(|| say(&text)),
            None => say(&text),
        }
    }
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("draws", &self.draws).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_templates() {
        for template in [KNOWN, UNKNOWN] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
