//! Whether whoever should be told can be, as far as was seen: what waits, what was in the way, heartbeats that hide one another.

use std::collections::BTreeMap;

use age::secrecy::ExposeSecret as _;
use chrono::{DateTime, Utc};

use super::Finding;
use crate::config::{Secret, Settings};
use crate::domain::operation::Operation;
use crate::error::Error;
use crate::notify::courier::{Courier, counted};
use crate::notify::heartbeat::tells_jobs_apart;
use crate::operations::host::Host;

/// One finding for each channel, and for each heartbeat that several jobs share.
#[must_use]
pub fn notify(host: &Host, settings: &Settings) -> Vec<Finding> {
    let channels = counted(settings);
    if channels.is_empty() {
        let hint = "add [notify.heartbeat], whose silence alarms; docs/NOTIFICATIONS.md has examples";
        return vec![Finding::warning("notify", "nobody is told when something fails".to_owned(), hint)];
    }
    let about = |name: &str| format!("notify {name}");
    let mut findings = Vec::new();
    for name in channels {
        findings.push(match channel(host, settings, name) {
            Ok(finding) => Finding { about: about(name), ..finding },
            Err(error) => Finding::problem(about(name), error.to_string(), error.hint()),
        });
    }
    findings.extend(shared(settings));
    findings
}

fn channel(host: &Host, settings: &Settings, name: &str) -> Result<Finding, Error> {
    let courier = Courier::new(&settings.state_dir, host.runtime.clone(), std::sync::Arc::clone(&host.clock))?;
    let (known, waiting) = (courier.memory().read()?.channel(name), courier.waiting_for(name)?);
    let time = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M UTC").to_string();
    let last = known
        .delivered
        .map_or_else(|| "nothing was delivered yet".to_owned(), |at| format!("last delivered {}", time(at)));
    let hint = format!("`lifeboat notify test {name}` shows what it answers");
    Ok(match (waiting, known.trouble) {
        (Some((count, since)), trouble) => {
            let why = trouble.map(|why| format!(": {why}")).unwrap_or_default();
            Finding::warning("", format!("{count} undelivered since {}, {last}{why}", time(since)), hint)
        }
        (None, Some(why)) => Finding::warning("", format!("{last}; what came after it was given up: {why}"), hint),
        (None, None) if known.delivered.is_none() => Finding::ok("", format!("{last}; {hint}")),
        (None, None) => Finding::ok("", last),
    })
}

/// Of jobs that share an address one that is silent is not missed while another speaks.
fn shared(settings: &Settings) -> Vec<Finding> {
    let mut of_address: BTreeMap<String, (Operation, Vec<&str>)> = BTreeMap::new();
    for job in settings.jobs.values() {
        for operation in [Operation::Backup, Operation::Drill] {
            let scheduled = job.schedules().iter().any(|(due, _)| *due == operation);
            let place: Option<&Secret> = settings.notify.heartbeat_of(&job.notify, operation);
            let Some(address) = place.filter(|_| scheduled).and_then(|place| place.read().ok()) else { continue };
            let address = address.expose_secret();
            if !tells_jobs_apart(address) {
                let (_, jobs) = of_address.entry(address.to_owned()).or_insert_with(|| (operation, Vec::new()));
                jobs.push(job.name.as_str());
            }
        }
    }
    let several = of_address.into_values().filter(|(_, jobs)| jobs.len() > 1);
    let finding = |(operation, jobs): (Operation, Vec<&str>)| {
        Finding::warning(
            "notify heartbeat",
            format!("{} share one for {operation}: while one speaks the others' silence is not heard", jobs.join(", ")),
            "give each its own in [job.NAME.notify], or write {job} into an address whose service takes names",
        )
    };
    several.map(finding).collect()
}
