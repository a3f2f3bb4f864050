//! Gathers what is promised of a job (the config) and what is known of it (the catalog) into facts.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::facts::{DrillPlan, JobFacts, OwnIdentity, Promise, VaultRef};
use crate::config::{JobSettings, Settings};
use crate::domain::ids::VaultId;
use crate::domain::objectives::{Objectives, Window};
use crate::domain::schedule::Schedule;
use crate::error::Result;
use crate::operations::host::Host;

/// Scheduled moments that a report lists; a schedule of every minute over years is cut here.
const MAX_SCHEDULED: usize = 100_000;

/// The facts of a job. `window` bounds the scheduled moments that are listed; none without it.
///
/// # Errors
/// When the catalog cannot be read.
pub fn job_facts(
    host: &Host,
    settings: &Settings,
    job: &JobSettings,
    vault: &VaultId,
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
    let recipients = settings.vault_of(job).map(|vault| vault.recipients.clone()).unwrap_or_default();
    Ok(JobFacts {
        job: job.name.clone(),
        vault: VaultRef { name: job.vault.clone(), id: vault.clone() },
        promise: Promise {
            timezone: zone.name().to_owned(),
            schedule: Some(job.schedule.to_string()),
            backup_gap: gap(&job.schedule),
            objectives: Objectives { rpo: job.objectives.rpo, rto: job.objectives.rto },
            keep_at_least: Some(job.retention.keep_at_least),
            delete_after: Some(job.retention.delete_after),
            recipients,
            drill,
        },
        next_backup: job.schedule.next_after(now, zone),
        next_drill: drill_schedule.and_then(|schedule| schedule.next_after(now, zone)),
        identity,
        scheduled_backups: scheduled(&job.schedule, window, zone),
        scheduled_drills: drill_schedule.map(|schedule| scheduled(schedule, window, zone)).unwrap_or_default(),
        backups: host.runtime.block_on(catalog.backups(vault, Some(&job.name)))?,
        runs: host.runtime.block_on(catalog.runs(vault, Some(&job.name)))?,
        drills: host.runtime.block_on(catalog.drills(vault, Some(&job.name)))?,
    })
}

fn scheduled(schedule: &Schedule, window: Option<Window>, zone: Tz) -> Vec<DateTime<Utc>> {
    let Some(window) = window else { return Vec::new() };
    std::iter::successors(schedule.next_after(window.start, zone), |last| schedule.next_after(*last, zone))
        .take_while(|moment| *moment <= window.end)
        .take(MAX_SCHEDULED)
        .collect()
}
