//! Backups that were removed, are older than `delete_after`, and of which bytes may still lie there.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::domain::ids::{BackupId, JobName};
use crate::domain::retention::Retention;
use crate::error::Result;
use crate::operations::host::Host;
use crate::operations::vaults::OpenVault;

/// What of it there is at `now`, if this sweep was clean through that moment. A backup of a job without a promise here
/// is measured by the longest one. One that was removed without anybody having believed it has no age.
///
/// # Errors
/// When the catalog cannot be read.
pub(super) fn unswept(
    host: &Host,
    vault: &OpenVault,
    promises: &BTreeMap<JobName, Retention>,
    clean_through: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Vec<(JobName, BackupId)>> {
    let catalog = &host.home()?.catalog;
    let removals = host.runtime.block_on(catalog.removals(&vault.id, None))?;
    let prunes = host.runtime.block_on(catalog.prunes(&vault.id, None))?;
    // No sweep knows of what comes after it.
    let told = prunes.iter().filter_map(|row| row.body.clean_through.filter(|through| *through <= row.recorded));
    let clean = told.chain(clean_through).max();
    let longest = promises.values().max_by_key(|promise| promise.delete_after);
    let is_late = |job: &JobName, from: DateTime<Utc>| {
        promises.get(job).or(longest).is_some_and(|promise| promise.expires_at(from) < now)
    };
    let mut late: Vec<(JobName, BackupId)> = removals
        .iter()
        .filter(|row| clean.is_none_or(|clean| clean < row.recorded))
        .filter_map(|row| {
            let summary = row.body.summary.as_ref()?;
            is_late(&row.job, summary.recovery_point.min(summary.committed))
                .then(|| (row.job.clone(), row.body.backup.clone()))
        })
        .collect();
    late.sort();
    late.dedup();
    Ok(late)
}
