//! Whether a job's promise to erase can be kept: prunes, grace and sweep must fit between its two ages.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{DENSER, Finding, Severity, rounded_up};
use crate::config::settings::{JobSettings, PruneWhen, Settings};
use crate::domain::quantity::{MAX_DURATION, exact_duration, human_duration};
use crate::domain::retention::{Lead, Retention, default_grace};
use crate::domain::schedule::Schedule;
use crate::error::Code;

/// Each step towards the window that would hold leaves at most a fifth of what was missing: this many end below a
/// nanosecond.
const MAX_STEPS: usize = 64;

/// `longest_run` is how long a backup took at most: `keep_at_least` counts from its end, `delete_after` from its beginning.
pub(super) fn check_lead(
    settings: &Settings,
    job: &JobSettings,
    now: DateTime<Utc>,
    longest_run: Option<Duration>,
) -> Option<Finding> {
    let retention = &job.retention;
    let lead = settings.lead_of(job, now);
    let key = format!("job.{}.retention", job.name);
    if lead.fits(retention) {
        let run = longest_run.filter(|run| lead.needed().saturating_add(*run) > retention.window())?;
        let message = format!(
            "erasing takes {lead}, a backup took up to {}, and between `keep_at_least` and `delete_after` lie only {}: a \
             deadline may be missed",
            human_duration(run),
            exact_duration(retention.window()),
        );
        let finding = Finding::new(Severity::Warning, Code::RetentionUnkeepable, key, message);
        return Some(match longer_window(settings, job, &lead, run) {
            Some(figure) => finding.hint(format!("write {figure}")),
            None => finding,
        });
    }
    let message = format!(
        "nothing is to be left after {}, and that cannot be kept: erasing takes {lead}, and between `keep_at_least` and \
         `delete_after` lie only {}",
        exact_duration(retention.delete_after),
        exact_duration(retention.window()),
    );
    let finding = Finding::new(Severity::Error, Code::RetentionUnkeepable, key, message);
    let ways: Vec<String> = [
        longer_window(settings, job, &lead, longest_run.unwrap_or_default()),
        denser_prunes(settings, job, &lead, now),
        shorter_grace(settings, job, &lead),
    ]
    .into_iter()
    .flatten()
    .collect();
    Some(if ways.is_empty() { finding } else { finding.hint(format!("write {}", ways.join(", or "))) })
}

/// The smallest round `delete_after` that this schedule can keep. A larger window may bring a longer grace.
fn longer_window(settings: &Settings, job: &JobSettings, lead: &Lead, run: Duration) -> Option<String> {
    let keep_at_least = job.retention.keep_at_least;
    let grace = settings.vault_of(job).and_then(|vault| vault.grace);
    let mut wider = Retention { delete_after: keep_at_least.saturating_add(lead.needed()), ..job.retention };
    for _ in 0..MAX_STEPS {
        let grace = grace.unwrap_or_else(|| default_grace(Some(wider.window())));
        let needed = Lead::new(&wider, lead.cadence, grace).needed().saturating_add(run);
        if needed <= wider.window() {
            break;
        }
        wider.delete_after = keep_at_least.saturating_add(needed);
    }
    let figure = rounded_up(wider.delete_after, wider.delete_after);
    (figure <= MAX_DURATION).then(|| format!("delete_after = \"{}\"", exact_duration(figure)))
}

/// The sparsest schedule of prunes that these two ages can do with.
fn denser_prunes(settings: &Settings, job: &JobSettings, lead: &Lead, now: DateTime<Utc>) -> Option<String> {
    let (text, needed) = DENSER.iter().find_map(|text| {
        let cadence = Schedule::parse(text).ok()?.largest_gap(settings.timezone, now)?.gap;
        let denser = Lead { cadence, ..*lead };
        denser.fits(&job.retention).then(|| (text, denser.needed()))
    })?;
    let table = match job.prune {
        PruneWhen::AfterBackup => format!("a table [job.{}.prune] with schedule", job.name),
        PruneWhen::Scheduled(_) => format!("job.{}.prune.schedule", job.name),
    };
    Some(format!("{table} = \"{text}\", which needs {}", exact_duration(needed)))
}

/// The longest grace that there is room for, where the config says a longer one.
fn shorter_grace(settings: &Settings, job: &JobSettings, lead: &Lead) -> Option<String> {
    let vault = settings.vault_of(job)?;
    vault.grace?;
    let room = job.retention.window().checked_sub(lead.cadence.saturating_mul(2))?.checked_sub(lead.sweep)?;
    // To the second: what is shown can be written.
    let room = Duration::from_secs(room.as_secs());
    (room > Duration::ZERO).then(|| format!("vault.{}.grace = \"{}\" or less", vault.name, exact_duration(room)))
}
