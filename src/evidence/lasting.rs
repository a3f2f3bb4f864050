//! What lasts, and should be told without anybody asking: runs that do not come, and what is not erased. It goes by the same
//! evidence as status, as far as this host's catalog has it: the vault is not asked, so that one may look each few minutes.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::erasure::worst_stage;
use super::facts::JobFacts;
use super::gather::{VaultView, job_facts};
use super::status::elapsed;
use crate::config::{JobSettings, Settings};
use crate::domain::operation::{Operation, Task};
use crate::error::{Code, Error, Result};
use crate::notify::memory::{Memory, Trouble, TroubleKind};
use crate::operations::host::Host;
use crate::operations::notices::Lasting;
use crate::vault::identity::read_comments;

/// After so many times the longest time between two runs without one, nothing starts them any more.
const RUNS_MISSED: u32 = 2;

/// An operation that this host runs by a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaited {
    /// Which.
    pub operation: Operation,
    /// The longest time between two of its runs.
    pub gap: Duration,
    /// When one last ended here, as far as was noted for notifications.
    pub noted: Option<DateTime<Utc>>,
}

/// What lasts of a job.
#[must_use]
pub fn lasting(facts: &JobFacts, awaited: &[Awaited], now: DateTime<Utc>) -> Vec<Lasting> {
    let mut found = Vec::new();
    for awaited in awaited {
        // What never ran is not late: it has just been written into the config, or it is another host's.
        let Some(last) = last_end(facts, awaited.operation).max(awaited.noted) else { continue };
        if elapsed(last, now) > awaited.gap.saturating_mul(RUNS_MISSED) {
            let kind = TroubleKind::Overdue(awaited.operation);
            found.push(Lasting {
                trouble: Trouble { job: facts.job.clone(), kind, level: 0 },
                since: Some(last),
                deadline: None,
            });
        }
    }
    if let Some((stage, deadline)) = worst_stage(facts, now) {
        found.push(Lasting {
            trouble: Trouble { job: facts.job.clone(), kind: TroubleKind::Erasure, level: stage.percent() },
            since: None,
            deadline: Some(deadline),
        });
    }
    found
}

/// When a run last ended, well or badly, whichever host did it. Checks leave no record.
fn last_end(facts: &JobFacts, operation: Operation) -> Option<DateTime<Utc>> {
    match operation {
        Operation::Backup => {
            let runs = facts.runs.iter().map(|row| row.run.finished);
            runs.chain(facts.backups.iter().map(|row| row.committed)).max()
        }
        Operation::Drill => facts.drills.iter().map(|row| row.drill.finished).max(),
        Operation::Prune => facts.prunes.iter().map(|row| row.body.finished).max(),
        Operation::Copy => facts.copy.as_ref()?.copies.iter().map(|row| row.body.finished).max(),
        Operation::Check => None,
    }
}

/// Looks at every job of the config. An operation is awaited here where it ran here before, or where `runs_here` says so.
///
/// # Errors
/// When the catalog cannot be read.
pub fn look(
    host: &Host,
    settings: &Settings,
    memory: &Memory,
    runs_here: impl Fn(&Task) -> bool,
    now: DateTime<Utc>,
) -> Result<Vec<Lasting>> {
    let mut found = Vec::new();
    for job in settings.jobs.values() {
        let pinned = host.home()?.state.pinned_trust(&job.vault)?;
        let known = pinned.as_deref().map(read_comments).transpose()?.flatten().and_then(|pin| pin.vault);
        // Of a vault that was never opened from here nothing is known.
        let Some(id) = known else { continue };
        let not_asked = Err(Error::new(Code::StorageUnreachable, "the vault is not asked"));
        let view = VaultView::look(host, &job.vault, id, not_asked);
        let facts = job_facts(host, settings, job, &view, None, now)?;
        found.extend(lasting(&facts, &awaited(settings, job, memory, &runs_here, now), now));
    }
    Ok(found)
}

fn awaited(
    settings: &Settings,
    job: &JobSettings,
    memory: &Memory,
    runs_here: impl Fn(&Task) -> bool,
    now: DateTime<Utc>,
) -> Vec<Awaited> {
    let mut awaited = Vec::new();
    for (operation, schedule) in job.schedules() {
        let task = Task { job: job.name.clone(), operation };
        let noted = memory.last_end(&task);
        if noted.is_none() && !runs_here(&task) {
            continue;
        }
        let gap = schedule.largest_gap(settings.timezone, now).map(|largest| largest.gap);
        awaited.extend(gap.map(|gap| Awaited { operation, gap, noted }));
    }
    awaited
}
