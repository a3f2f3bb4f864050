//! `/metrics`: what `status --prometheus` says, with what only the daemon knows put in. Recomputed from config, catalog and
//! vault, and kept for a minute: a vault that is far away must not be read at every scrape.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::{JobSettings, Settings};
use crate::domain::ids::VaultId;
use crate::error::{Code, Error, Result};
use crate::evidence::gather::{Sizes, gather};
use crate::evidence::metrics::{DaemonFacts, metrics};
use crate::notify::courier::{Courier, counted};
use crate::operations::host::Host;
use crate::operations::interrupt::Interrupt;
use crate::operations::vaults::{self, OpenVault, Trusted};
use crate::vault::identity::read_comments;

use super::board::Notice;
use super::work::identity_texts;

/// How long a text is told again.
const KEPT: Duration = Duration::from_secs(60);

/// Tells the series.
pub struct Exporter {
    /// Where the verbs' asynchronous calls run.
    pub runtime: Handle,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The config, read anew each time: a job that is gone has no series.
    pub config: PathBuf,
    /// Identity files, whose comments may name a vault's key.
    pub identities: Vec<PathBuf>,
    /// The last text, and when it was made.
    pub last: Mutex<Option<(Duration, String)>>,
}

impl Exporter {
    /// The series. Blocks for as long as the vaults take; two at once wait for one another, and the second gets the first's.
    ///
    /// # Errors
    /// When the config cannot be read, or state folder or catalog not be used. A vault that cannot be reached is told in the
    /// text.
    pub fn text(&self, notice: &Notice) -> Result<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic();
        if let Some((made, text)) = &*last
            && now.saturating_sub(*made) < KEPT
        {
            return Ok(text.clone());
        }
        let text = self.made(notice)?;
        *last = Some((now, text.clone()));
        Ok(text)
    }

    fn made(&self, notice: &Notice) -> Result<String> {
        let settings = Settings::load(Some(&self.config))?;
        let host = Host::bare(self.runtime.clone(), Arc::clone(&self.clock), Interrupt::default())
            .with_home(&settings.state_dir)?;
        let trusted = Trusted { identity_files: identity_texts(&self.identities)? };
        let jobs: Vec<&JobSettings> = settings.jobs.values().collect();
        let open = |job: &JobSettings| opened(&host, &settings, job, &trusted);
        let now = self.clock.now();
        // The size of a vault takes a listing of all of it.
        let gathered = gather(&host, &settings, &jobs, Sizes::LeaveOut, None, open, now)?;
        let mut facts = facts(notice);
        let channels = counted(&settings);
        if !channels.is_empty() {
            let courier = Courier::new(&settings.state_dir, self.runtime.clone(), Arc::clone(&self.clock))?;
            let memory = courier.memory().read()?;
            let failures = channels.iter().map(|name| ((*name).to_owned(), memory.channel(name).failures));
            facts.notify_failures = failures.collect();
        }
        Ok(metrics(&gathered, Some(&facts), now))
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A job's vault, by the id that this host knows it by even where it cannot be reached.
pub(super) fn opened(
    host: &Host,
    settings: &Settings,
    job: &JobSettings,
    trusted: &Trusted,
) -> Result<(VaultId, Result<OpenVault>)> {
    let missing = || Error::new(Code::ConfigInvalid, format!("job {} has no vault {}", job.name, job.vault));
    let vault = vaults::open(host, settings.vault_of(job).ok_or_else(missing)?, None, trusted);
    let pinned = host.home()?.state.pinned_trust(&job.vault)?;
    let known = pinned.as_deref().map(read_comments).transpose()?.flatten().and_then(|pin| pin.vault);
    match (known, vault) {
        (Some(id), vault) => Ok((id, vault)),
        (None, Ok(vault)) => Ok((vault.id.clone(), Ok(vault))),
        (None, Err(error)) => Err(error),
    }
}

/// What only the daemon knows.
fn facts(notice: &Notice) -> DaemonFacts {
    let mut facts = DaemonFacts::default();
    for told in &notice.tasks {
        let (job, operation) = (&told.task.job, told.task.operation.to_string());
        facts.next.extend(told.next.map(|next| ((job.clone(), operation.clone()), next)));
        for (reason, count) in [("missed", told.missed), ("overlap", told.overlapped)] {
            facts.skipped.insert((job.clone(), operation.clone(), reason.to_owned()), count);
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::super::board::TaskNotice;
    use super::*;
    use crate::domain::objectives::Objectives;
    use crate::evidence::facts::{Gathered, Unopened};

    #[test]
    fn each_task_is_told() {
        let task = TaskNotice {
            task: "shop/backup".parse().unwrap(),
            next: Some("2026-11-22T02:00:00Z".parse().unwrap()),
            running_since: None,
            missed: 3,
            overlapped: 0,
        };
        let facts = facts(&Notice { tasks: vec![task], ..Notice::default() });
        let shop = Unopened {
            job: "shop".parse().unwrap(),
            vault: "main".to_owned(),
            objectives: Objectives::default(),
            why: String::new(),
        };
        let gathered = Gathered { unopened: vec![shop], ..Gathered::default() };
        let text = metrics(&gathered, Some(&facts), "2026-11-22T01:00:00Z".parse().unwrap());
        for line in [
            "lifeboat_schedule_next_timestamp_seconds{job_name=\"shop\",operation=\"backup\"} 1795312800",
            "lifeboat_schedule_skipped_total{job_name=\"shop\",operation=\"backup\",reason=\"missed\"} 3",
            "lifeboat_schedule_skipped_total{job_name=\"shop\",operation=\"backup\",reason=\"overlap\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
