//! What follows from the config for erasing: the grace period of a vault, and how long before `delete_after` a job's
//! backups go.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::settings::{JobSettings, PruneWhen, Settings, VaultSettings};
use crate::domain::quantity::{MAX_DURATION, exact_duration};
use crate::domain::retention::{Hold, Lead, default_grace};

impl Settings {
    /// How long an object that no backup names waits before it is erased: what the vault's table says, or what the
    /// windows of the jobs in this config leave room for.
    #[must_use]
    pub fn grace_of(&self, vault: &VaultSettings) -> Duration {
        let jobs = self.jobs_in(&vault.name);
        vault.grace.unwrap_or_else(|| default_grace(jobs.map(|job| job.retention.window()).min()))
    }

    /// What the lead of a job is made of. `now` says which clock changes lie ahead; the gap between two prunes is that
    /// of the schedule of its own, or of the backups that prunes follow.
    #[must_use]
    pub fn lead_of(&self, job: &JobSettings, now: DateTime<Utc>) -> Lead {
        let schedule = match &job.prune {
            PruneWhen::AfterBackup => &job.schedule,
            PruneWhen::Scheduled(schedule) => schedule,
        };
        // A schedule with no two runs left until the year 2100 keeps no promise.
        let cadence = schedule.largest_gap(self.timezone, now).map_or(MAX_DURATION, |largest| largest.gap);
        Lead::new(&job.retention, cadence, self.lead_grace(job))
    }

    /// The lead of a job's backups in a vault that is a copy of its own: they are erased after each copy.
    #[must_use]
    pub fn lead_in_copy(&self, job: &JobSettings, copy: &VaultSettings, now: DateTime<Utc>) -> Lead {
        let own = job.copy.as_ref().filter(|settings| settings.to == copy.name);
        let schedule = own.and_then(|settings| settings.schedule.as_ref()).unwrap_or(&job.schedule);
        let cadence = schedule.largest_gap(self.timezone, now).map_or(MAX_DURATION, |largest| largest.gap);
        Lead::new(&job.retention, cadence, self.grace_of(copy))
    }

    /// How long a job's data is held against deletion, in a vault that holds.
    #[must_use]
    pub fn hold_of(&self, job: &JobSettings, now: DateTime<Utc>) -> Hold {
        Hold::new(job.retention, self.lead_of(job, now))
    }

    /// The job as a run that begins now needs it.
    #[must_use]
    pub fn holding(&self, job: &JobSettings, now: DateTime<Utc>) -> JobSettings {
        JobSettings { hold: Some(self.hold_of(job, now)), ..job.clone() }
    }

    /// For `config show`: the parts of the lead, and the age at which a job's backups go in normal running.
    #[must_use]
    pub fn erasing_json(&self, job: &JobSettings, now: DateTime<Utc>) -> Value {
        let lead = self.lead_of(job, now);
        json!({
            "cadence": exact_duration(lead.cadence),
            "grace": exact_duration(lead.grace),
            "sweep": exact_duration(lead.sweep),
            "needed": exact_duration(lead.needed()),
            "window": exact_duration(job.retention.window()),
            "lead": exact_duration(lead.length(&job.retention)),
            "planned_expiry_age": exact_duration(job.retention.planned_age(&lead)),
        })
    }

    fn lead_grace(&self, job: &JobSettings) -> Duration {
        let window = Some(job.retention.window());
        self.vault_of(job).map_or_else(|| default_grace(window), |vault| self.grace_of(vault))
    }
}
