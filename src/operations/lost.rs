//! Backups that this host knows and the vault has no more, though nobody removed or quarantined them: a tail that was cut
//! off, or the whole of a job. A vault cannot show that by itself, for no later manifest has a gap before it.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::ids::{BackupId, JobName};
use crate::domain::record::SequenceRange;
use crate::error::Result;
use crate::vault::layout::Key;
use crate::vault::survey::{Fault, Survey};

use super::host::Host;
use super::vaults::OpenVault;

/// Numbers of a job that are gone without a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The job.
    pub job: JobName,
    /// The numbers.
    pub numbers: SequenceRange,
}

impl Lost {
    /// What it is, in a sentence.
    #[must_use]
    pub fn reason(&self) -> String {
        let SequenceRange { first, last } = self.numbers;
        let job = &self.job;
        if first == last {
            format!("this host knows backup number {first} of {job}, and it is not in the vault any more")
        } else {
            format!("this host knows backups number {first} to {last} of {job}, and they are not in the vault any more")
        }
    }

    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        let (job, SequenceRange { first, last }) = (&self.job, self.numbers);
        let numbers = if first == last { first.to_string() } else { format!("{first}-{last}") };
        format!(
            "bring back what is gone from a copy of the vault: as long as it is gone, what it names passes for garbage. If \
             it is lost, `lifeboat quarantine {job}#{numbers}` acknowledges that"
        )
    }
}

/// What is gone of the vault's jobs, `known` and all that the catalog knows. Numbers that are missing before a manifest
/// that stands are not among it: the survey tells of them.
///
/// # Errors
/// When the catalog cannot be read.
pub fn lost(host: &Host, vault: &OpenVault, survey: &Survey, known: &[JobName]) -> Result<Vec<Lost>> {
    let Some(home) = host.home_if_any() else { return Ok(Vec::new()) };
    let rows = host.runtime.block_on(home.catalog.backups(&vault.id, None))?;
    let removals = host.runtime.block_on(home.catalog.removals(&vault.id, None))?;
    let quarantines = host.runtime.block_on(home.catalog.quarantines(&vault.id, None))?;

    let mut jobs: BTreeSet<JobName> = known.iter().cloned().collect();
    jobs.extend(rows.iter().map(|row| row.job.clone()));
    let jobs: Vec<JobName> = jobs.into_iter().collect();

    // By their id, in whatever shape: what cannot be believed lies there all the same.
    let mut there: BTreeSet<(JobName, BackupId)> = survey.set_aside.clone();
    let unbelieved = survey.problems.iter().filter_map(|problem| match (&problem.fault, Key::parse(&problem.key)) {
        (Fault::Untrusted(_), Key::Manifest(name)) => Some(name),
        _ => None,
    });
    let quarantined = survey.quarantined.iter().map(|found| found.name.clone());
    let names = survey.manifests.iter().map(|verified| verified.name.clone()).chain(survey.removed.iter().cloned());
    there.extend(names.chain(quarantined).chain(unbelieved).map(|name| (name.job, name.id)));

    let mut gone: BTreeMap<JobName, Vec<SequenceRange>> = BTreeMap::new();
    let mut wanted = gone.clone();
    let one = |number| SequenceRange { first: number, last: number };
    for row in &rows {
        let is_there = there.contains(&(row.job.clone(), row.id.clone()));
        let to = if row.retained_until.is_some() || is_there { &mut gone } else { &mut wanted };
        to.entry(row.job.clone()).or_default().push(one(row.sequence));
    }
    for (job, there, seen) in vault.hidden_newest(host, survey, &jobs)? {
        wanted.entry(job).or_default().push(SequenceRange { first: there.saturating_add(1), last: seen });
    }
    for (job, ranges) in &survey.gone {
        gone.entry(job.clone()).or_default().extend(ranges);
    }
    for row in &removals {
        gone.entry(row.job.clone()).or_default().extend(&row.body.gone);
    }
    for row in &quarantines {
        gone.entry(row.job.clone()).or_default().extend(&row.body.gone);
    }
    for problem in &survey.problems {
        if let Fault::Missing { first, last } = problem.fault {
            gone.entry(problem.job.clone()).or_default().push(SequenceRange { first, last });
        }
    }
    let mut lost = Vec::new();
    for (job, ranges) in wanted {
        let explained = SequenceRange::union(gone.remove(&job).unwrap_or_default());
        let left = SequenceRange::union(ranges).into_iter().flat_map(|range| range.without(&explained));
        lost.extend(left.map(|numbers| Lost { job: job.clone(), numbers }));
    }
    Ok(lost)
}
