//! Gathers what is promised of a job (the config) and what is known of it (the catalog) into facts.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::facts::{DrillPlan, Hidden, JobFacts, OwnIdentity, Promise, VaultRef, Witness};
use crate::catalog::{BackupRow, RecordRow};
use crate::config::{JobSettings, Settings};
use crate::domain::ids::{BackupId, VaultId};
use crate::domain::objectives::{Objectives, Window};
use crate::domain::record::{QuarantineRecord, SequenceRange};
use crate::domain::retention::Retention;
use crate::domain::schedule::Schedule;
use crate::error::Result;
use crate::operations::host::Host;
use crate::operations::vaults::{OpenVault, explains};
use crate::vault::survey::{Fault, Survey};

/// Scheduled moments that a report lists; a schedule of every minute over years is cut here.
const MAX_SCHEDULED: usize = 100_000;

/// The facts of a job. `vault` is asked what it still has; `id` is its id as this host knows it, for when it cannot be
/// asked. `window` bounds the scheduled moments that are listed; none without it.
///
/// # Errors
/// When the catalog cannot be read.
pub fn job_facts(
    host: &Host,
    settings: &Settings,
    job: &JobSettings,
    id: &VaultId,
    vault: &Result<OpenVault>,
    window: Option<Window>,
    now: DateTime<Utc>,
) -> Result<JobFacts> {
    let catalog = &host.home()?.catalog;
    let zone = settings.timezone;
    let gap = |schedule: &Schedule| schedule.largest_gap(zone, now).map(|gap| gap.gap);
    let drill_schedule = job.drill.as_ref().and_then(|drill| drill.schedule.as_ref());
    let drill = match (&job.drill, drill_schedule) {
        (None, _) => DrillPlan::None,
        (Some(_), None) => DrillPlan::OnDemand,
        (Some(_), Some(schedule)) => DrillPlan::Scheduled { schedule: schedule.to_string(), gap: gap(schedule) },
    };
    let identity = match job.drill.as_ref().and_then(|drill| drill.identity.as_ref()) {
        Some(_) => OwnIdentity::Present,
        None => OwnIdentity::Absent,
    };
    // Asked first: it tells the catalog of backups that it has not heard of.
    let survey = match vault {
        Ok(vault) => vault.survey(host, Some(&job.name)),
        Err(error) => Err(error.clone()),
    };
    let mut backups = host.runtime.block_on(catalog.backups(id, Some(&job.name)))?;
    let removals = host.runtime.block_on(catalog.removals(id, Some(&job.name)))?;
    let quarantines = host.runtime.block_on(catalog.quarantines(id, Some(&job.name)))?;
    let (witness, gaps, hidden) = match (&survey, vault) {
        (Ok(survey), Ok(vault)) => {
            let explained = removals.iter().flat_map(|row| row.body.gone.iter().copied());
            let explained: Vec<SequenceRange> =
                explained.chain(quarantines.iter().flat_map(|row| row.body.gone.iter().copied())).collect();
            let hidden = vault.hidden_newest(host, survey, std::slice::from_ref(&job.name))?;
            let hidden = hidden.first().map(|(_, there, seen)| Hidden { there: *there, seen: *seen });
            (hold_against(&mut backups, survey, &quarantines, now), gaps(survey, job, &explained), hidden)
        }
        (Err(error), _) | (_, Err(error)) => (Witness::Silent(error.to_string()), Vec::new(), None),
    };
    let backup_gap = gap(&job.schedule);
    let recipients = settings.vault_of(job).map(|vault| vault.recipients.clone()).unwrap_or_default();
    Ok(JobFacts {
        job: job.name.clone(),
        vault: VaultRef { name: job.vault.clone(), id: id.clone() },
        promise: Promise {
            timezone: zone.name().to_owned(),
            schedule: Some(job.schedule.to_string()),
            backup_gap,
            objectives: Objectives { rpo: job.objectives.rpo, rto: job.objectives.rto },
            keep_at_least: Some(job.retention.keep_at_least),
            delete_after: Some(job.retention.delete_after),
            erasing_lead: backup_gap.map(|gap| erasing_lead(&job.retention, gap)),
            // A prune follows each backup.
            prune_gap: backup_gap,
            recipients,
            drill,
        },
        next_backup: job.schedule.next_after(now, zone),
        next_drill: drill_schedule.and_then(|schedule| schedule.next_after(now, zone)),
        identity,
        witness,
        gaps,
        hidden,
        scheduled_backups: scheduled(&job.schedule, window, zone),
        scheduled_drills: drill_schedule.map(|schedule| scheduled(schedule, window, zone)).unwrap_or_default(),
        backups,
        runs: host.runtime.block_on(catalog.runs(id, Some(&job.name)))?,
        drills: host.runtime.block_on(catalog.drills(id, Some(&job.name)))?,
        removals,
        refutations: host.runtime.block_on(catalog.refutations(id, Some(&job.name)))?,
        quarantines,
        prunes: host.runtime.block_on(catalog.prunes(id, Some(&job.name)))?,
    })
}

/// How long before `delete_after` a backup goes: twice what two prunes, the grace of an eighth of the window and a sweep
/// need, at most the whole window.
fn erasing_lead(retention: &Retention, prune_gap: Duration) -> Duration {
    let window = retention.delete_after.saturating_sub(retention.keep_at_least);
    let (grace, sweep) =
        ((window / 8).min(Duration::from_secs(24 * 3600)), (window / 16).min(Duration::from_secs(3600)));
    let needed = prune_gap.saturating_mul(2).saturating_add(grace).saturating_add(sweep);
    needed.saturating_mul(2).min(window)
}

/// Missing numbers that nothing explains.
fn gaps(survey: &Survey, job: &JobSettings, explained: &[SequenceRange]) -> Vec<SequenceRange> {
    let of_job = survey.problems.iter().filter(|problem| problem.job == job.name);
    let missing = of_job.filter_map(|problem| match problem.fault {
        Fault::Missing { first, last } => Some(SequenceRange { first, last }),
        _ => None,
    });
    missing.filter(|gap| !explains(explained, gap.first, gap.last)).collect()
}

/// What the catalog knows and the vault has not counts as gone from now on; what was quarantined, since then, and that is
/// no news any more.
fn hold_against(
    backups: &mut [BackupRow],
    survey: &Survey,
    quarantines: &[RecordRow<QuarantineRecord>],
    now: DateTime<Utc>,
) -> Witness {
    let there: HashSet<&BackupId> = survey.manifests.iter().map(|verified| &verified.manifest.id).collect();
    let mut lacking = Vec::new();
    for row in backups.iter_mut().filter(|row| row.retained_until.is_none() && !there.contains(&row.id)) {
        let names = |quarantine: &QuarantineRecord| {
            quarantine.backup.as_ref() == Some(&row.id)
                || quarantine.gone.iter().any(|range| range.contains(row.sequence))
        };
        match quarantines.iter().find(|quarantine| names(&quarantine.body)) {
            Some(quarantine) => row.retained_until = Some(quarantine.recorded),
            None => {
                row.retained_until = Some(now);
                lacking.push(row.id.clone());
            }
        }
    }
    if lacking.is_empty() { Witness::Agrees } else { Witness::Lacks(lacking) }
}

fn scheduled(schedule: &Schedule, window: Option<Window>, zone: Tz) -> Vec<DateTime<Utc>> {
    let Some(window) = window else { return Vec::new() };
    std::iter::successors(schedule.next_after(window.start, zone), |last| schedule.next_after(*last, zone))
        .take_while(|moment| *moment <= window.end)
        .take(MAX_SCHEDULED)
        .collect()
}
