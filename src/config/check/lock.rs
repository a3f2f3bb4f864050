//! Whether a vault that holds what is stored against deletion leaves room for the job's two promises.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Finding, Severity, rounded_up};
use crate::config::settings::{JobSettings, Settings};
use crate::domain::quantity::{MAX_DURATION, exact_duration};
use crate::domain::retention::{Hold, Retention};
use crate::error::Code;

/// How many larger figures are tried, each a fiftieth larger than the last.
const MAX_STEPS: usize = 400;

/// `longest_run` is how long a backup took at most: what is held is held from its beginning, the promise counts from its end.
pub(super) fn check_lock(
    settings: &Settings,
    job: &JobSettings,
    now: DateTime<Utc>,
    longest_run: Option<Duration>,
) -> Vec<Finding> {
    let Some(vault) = settings.vault_of(job).filter(|vault| vault.s3.lock.is_some()) else { return Vec::new() };
    let hold = settings.hold_of(job, now);
    // What cannot be erased in time is told of elsewhere; what is held ends before that.
    if !settings.lead_of(job, now).fits(&job.retention) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let key = format!("job.{}.retention", job.name);
    let gap = job.schedule.largest_gap(settings.timezone, now).map_or(MAX_DURATION, |largest| largest.gap);
    let apart = gap.saturating_add(longest_run.unwrap_or_default());
    if hold.renewed_every() <= apart {
        let message = format!(
            "vault {} holds what is stored, and there is too little room for it: it can be held until it is {} old, for then \
             it must be erased, and every backup needs {} of that; what is left, {}, is no more than lies between two backups, \
             and each would ask the store to hold every object anew",
            vault.name,
            exact_duration(hold.age()),
            exact_duration(job.retention.keep_at_least),
            exact_duration(hold.renewed_every()),
        );
        let finding = Finding::new(Severity::Error, Code::ConfigInvalid, key.as_str(), message);
        findings.push(match wide_enough(settings, job, now, apart) {
            Some(figure) => finding.hint(format!("write delete_after = \"{}\"", exact_duration(figure))),
            None => finding,
        });
    }
    if job.retention.daily.is_some() || job.retention.weekly.is_some() {
        let message = format!(
            "vault {} holds every backup until it is {} old, so `daily` and `weekly` take none out before that",
            vault.name,
            exact_duration(hold.manifest_age()),
        );
        findings.push(
            Finding::new(Severity::Note, Code::ConfigInvalid, key, message)
                .hint("they do no harm; `lifeboat prune --dry-run` shows what is held, and until when"),
        );
    }
    findings
}

/// A round `delete_after` with which an object is not held anew by every run. A larger window may bring a longer grace.
fn wide_enough(settings: &Settings, job: &JobSettings, now: DateTime<Utc>, apart: Duration) -> Option<Duration> {
    let mut wider = job.clone();
    for _ in 0..MAX_STEPS {
        let figure =
            rounded_up(wider.retention.delete_after.saturating_add(wider.retention.delete_after / 50), Duration::MAX);
        if figure > MAX_DURATION {
            return None;
        }
        wider.retention = Retention { delete_after: figure, ..wider.retention };
        let hold = Hold::new(wider.retention, settings.lead_of(&wider, now));
        if hold.renewed_every() > apart {
            return Some(figure);
        }
    }
    None
}
