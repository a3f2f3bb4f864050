//! What lasts, and should be told without anybody asking: runs that do not come, and what is not erased. It goes by the same
//! evidence as status, as far as this host's catalog has it: the vault is not asked, so that one may look each few minutes.

use std::cmp::Reverse;
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
    let in_copy = facts.in_copy();
    let stages = std::iter::once(facts).chain(&in_copy).filter_map(|facts| worst_stage(facts, now));
    if let Some((stage, deadline)) = stages.max_by_key(|(stage, deadline)| (*stage, Reverse(*deadline))) {
        found.push(Lasting {
            trouble: Trouble { job: facts.job.clone(), kind: TroubleKind::Erasure, level: stage.percent() },
            since: None,
            deadline: Some(deadline),
        });
    }
    found
}

/// When a run last ended, well or badly, whichever host did it.
fn last_end(facts: &JobFacts, operation: Operation) -> Option<DateTime<Utc>> {
    match operation {
        Operation::Backup => {
            let runs = facts.runs.iter().map(|row| row.run.finished);
            runs.chain(facts.backups.iter().map(|row| row.committed)).max()
        }
        Operation::Drill => facts.drills.iter().map(|row| row.drill.finished).max(),
        Operation::Prune => facts.prunes.iter().map(|row| row.body.finished).max(),
        Operation::Copy => facts.copy.as_ref()?.copies.iter().map(|row| row.body.finished).max(),
        Operation::Check => facts.checks.iter().map(|row| row.body.finished).max(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::CheckOutcome;
    use crate::evidence::samples::*;

    fn awaited(operation: Operation, gap_hours: u64, noted: Option<DateTime<Utc>>) -> Awaited {
        Awaited { operation, gap: hours(gap_hours), noted }
    }

    /// What lasts, in so many hours from now: operations that are overdue, and per cent of an erasure.
    fn found(facts: &JobFacts, awaited: &[Awaited], in_hours: u64) -> (Vec<Operation>, Vec<u8>) {
        let at = now() + chrono::TimeDelta::from_std(hours(in_hours)).unwrap();
        let (mut overdue, mut erasure) = (Vec::new(), Vec::new());
        for lasting in lasting(facts, awaited, at) {
            match lasting.trouble.kind {
                TroubleKind::Overdue(operation) => overdue.push(operation),
                TroubleKind::Erasure => erasure.push(lasting.trouble.level),
            }
        }
        (overdue, erasure)
    }

    #[test]
    fn overdue_is_what_ran_and_does_not_any_more() {
        use Operation::{Backup, Check, Copy, Drill};
        let facts = healthy();
        // The last backup ended about three hours ago, the last drill two days.
        let all = [awaited(Backup, 6, None), awaited(Drill, 36, None), awaited(Copy, 1, None), awaited(Check, 1, None)];
        assert_eq!(found(&facts, &all, 0).0, []);
        assert_eq!(found(&facts, &all, 10).0, [Backup]);
        assert_eq!(found(&facts, &all, 25).0, [Backup, Drill]);
        // Before a check left a record, what was noted here was all there was.
        assert_eq!(found(&facts, &[awaited(Check, 6, Some(now()))], 12).0, []);
        assert_eq!(found(&facts, &[awaited(Check, 6, Some(now()))], 13).0, [Check]);
        let mut checked = facts.clone();
        checked.checks.push(check(70, now(), CheckOutcome::Sound));
        assert_eq!(found(&checked, &[awaited(Check, 6, None)], 12).0, []);
        assert_eq!(found(&checked, &[awaited(Check, 6, None)], 13).0, [Check], "whichever host did it");
        assert_eq!(found(&facts, &[awaited(Backup, 6, Some(now()))], 12).0, [], "it ended here, and left no record");
        let nothing = JobFacts { backups: vec![], runs: vec![], drills: vec![], ..facts };
        assert_eq!(found(&nothing, &all, 1000), (vec![], vec![]));
    }

    /// The same moments as those of `status` (evidence/erasure.rs).
    #[test]
    fn what_is_not_erased_is_told_by_stages() {
        let facts = erasing();
        for (in_hours, percent) in [(2, None), (4, Some(50)), (10, Some(75)), (13, Some(90)), (16, Some(100))] {
            assert_eq!(found(&facts, &[], in_hours).1, Vec::from_iter(percent), "in {in_hours} hours");
        }
        let mut last = erasing();
        last.backups = vec![backup(1, before_now(hours(40)))];
        last.removals.clear();
        for (in_hours, percent) in [(7, None), (9, Some(50)), (21, Some(75)), (29, Some(90)), (33, Some(100))] {
            assert_eq!(
                found(&last, &[], in_hours).1,
                Vec::from_iter(percent),
                "the last good one, in {in_hours} hours"
            );
        }
    }
}
