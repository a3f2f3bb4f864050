//! The drill's clock: phases that follow each other without gaps, on the monotonic clock.

use std::time::Duration;

use crate::domain::record::Phase;

use super::super::host::Host;

/// Times phases.
pub(super) struct Stopwatch<'a> {
    host: &'a Host,
    started: Duration,
    phases: Vec<(&'static str, Duration)>,
}

impl<'a> Stopwatch<'a> {
    pub(super) fn start(host: &'a Host) -> Self {
        Self { host, started: host.clock.monotonic(), phases: Vec::new() }
    }

    /// Ends the phase before, and begins this one. A phase may come again.
    pub(super) fn phase(&mut self, name: &'static str) {
        self.phases.push((name, self.host.clock.monotonic()));
    }

    /// Since the start.
    pub(super) fn seconds(&self) -> f64 {
        (self.host.clock.monotonic() - self.started).as_secs_f64()
    }

    /// The whole time, and each phase's; a phase that came twice is added up.
    pub(super) fn read(&self) -> (f64, Vec<Phase>) {
        let end = self.host.clock.monotonic();
        // Added up before they become fractions: a sum of those does not come back from its JSON bit for bit.
        let mut sums: Vec<(&'static str, Duration)> = Vec::new();
        for (index, (name, begun)) in self.phases.iter().enumerate() {
            let took = self.phases.get(index + 1).map_or(end, |(_, next)| *next) - *begun;
            match sums.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += took,
                None => sums.push((name, took)),
            }
        }
        let phases = sums.into_iter().map(|(name, sum)| Phase { name: name.to_owned(), seconds: sum.as_secs_f64() });
        let phases = phases.collect();
        ((end - self.started).as_secs_f64(), phases)
    }
}
