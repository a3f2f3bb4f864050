//! What happens by itself: the operations of a job that have a schedule, and how the daemon goes about them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::settings::JobSettings;
use crate::domain::operation::Operation;
use crate::domain::schedule::Schedule;

/// Where the daemon answers, if the config does not say: to this machine alone.
pub(super) const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9820);
/// How much the daemon runs at a time, if the config does not say: a drill of hours, and the backups meanwhile.
pub(super) const DEFAULT_JOBS_AT_ONCE: usize = 2;

/// How the daemon goes about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Where it answers, if it does.
    pub listen: Option<SocketAddr>,
    /// By which names it may be asked there, besides addresses and `localhost`.
    pub names: Vec<String>,
    /// At most this much is added to a start.
    pub jitter: Duration,
    /// How much may run at a time, at least 1.
    pub jobs_at_once: usize,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self {
            listen: Some(DEFAULT_LISTEN),
            names: Vec::new(),
            jitter: Duration::ZERO,
            jobs_at_once: DEFAULT_JOBS_AT_ONCE,
        }
    }
}

impl JobSettings {
    /// What is due by itself, and when: one place for whoever starts, prints or judges by schedules.
    #[must_use]
    pub fn schedules(&self) -> Vec<(Operation, &Schedule)> {
        let drill = self.drill.as_ref().and_then(|drill| drill.schedule.as_ref());
        let of_all = [
            (Operation::Backup, Some(&self.schedule)),
            (Operation::Copy, self.copy.as_ref().and_then(|copy| copy.schedule.as_ref())),
            (Operation::Prune, self.prune.schedule()),
            (Operation::Check, self.check.as_ref()),
            (Operation::Drill, drill),
        ];
        of_all.into_iter().filter_map(|(operation, schedule)| Some((operation, schedule?))).collect()
    }
}
