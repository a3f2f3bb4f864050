//! What of a vault somebody should look at and no job can say: backups that no config knows, records that wait.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::facts::VaultFacts;
use super::status::{Findings, State, ago};
use crate::domain::ids::JobName;

/// What of a vault is no job's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VaultStatus {
    /// Its name in the config.
    pub name: String,
    /// The worst of what was found.
    pub state: State,
    /// What was found, worst first; each says what to type.
    pub reasons: Vec<String>,
    /// Jobs that have backups in it and are not in the config.
    pub unknown_jobs: Vec<JobName>,
    /// Records of this host that it has not got yet.
    pub waiting_records: usize,
    /// When the oldest of these was written.
    pub waiting_since: Option<DateTime<Utc>>,
}

/// The status of one vault at `now`.
#[must_use]
pub fn vault_status(facts: &VaultFacts, now: DateTime<Utc>) -> VaultStatus {
    let mut findings = Findings::default();
    let name = &facts.name;
    if let Some(why) = &facts.silent {
        findings.add(State::Unknown, format!("it cannot be read: {why}; `lifeboat doctor` looks into it"));
    }
    if !facts.unknown_jobs.is_empty() {
        let jobs: Vec<&str> = facts.unknown_jobs.iter().map(JobName::as_str).collect();
        let jobs = match &jobs[..] {
            [one] => format!("job {one}"),
            several => format!("jobs {}", several.join(", ")),
        };
        findings.add(
            State::Warning,
            format!(
                "it has backups of {jobs}, which the config does not know, and nothing erases them: put [job.NAME] back with \
                 its retention, and run `lifeboat prune NAME`; `lifeboat list --vault {name}` shows them"
            ),
        );
    }
    let waiting = &facts.waiting;
    let folder = waiting.folder.display();
    if let Some(oldest) = waiting.oldest {
        let (records, wait) = match waiting.records {
            1 => ("1 record".to_owned(), "waits"),
            count => (format!("{count} records"), "wait"),
        };
        let ago = ago(oldest, now);
        let then = match waiting.in_vain {
            0 => "the next command that writes sends them, and says what stands in the way".to_owned(),
            in_vain => format!(
                "of {in_vain} the host or the key is not believed any more: move them away from {folder} once you have read \
                 them, or see `lifeboat host list`"
            ),
        };
        findings
            .add(State::Warning, format!("{records} of this host {wait} to be written into it, since {ago}: {then}"));
    }
    for what in &waiting.damaged {
        findings.add(State::Warning, format!("a record that waits cannot be read, {what}: move it away from {folder}"));
    }
    for what in &facts.untold {
        if !waiting.damaged.contains(what) {
            findings.add(
                State::Warning,
                format!("this host cannot remember everything that it says, {what}: run `lifeboat check`"),
            );
        }
    }
    let (state, reasons) = findings.judged();
    VaultStatus {
        name: name.clone(),
        state,
        reasons,
        unknown_jobs: facts.unknown_jobs.clone(),
        waiting_records: waiting.records,
        waiting_since: waiting.oldest,
    }
}
