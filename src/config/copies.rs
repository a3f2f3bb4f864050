//! What the config says of second vaults: which vault is a copy, of which one, and which jobs belong into it.

use serde_json::{Value, json};

use super::settings::{JobSettings, Settings};
use crate::domain::schedule::Schedule;

/// What a vault of the config is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultRole {
    /// Jobs back up into it, or it is only read.
    Own,
    /// It is a copy of another one: it has the id and the signatures of that one, and is another place.
    Copy {
        /// The name of that one.
        of: String,
    },
}

/// The second vault of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySettings {
    /// The name of the vault; one of [`Settings::vaults`], of the role [`VaultRole::Copy`].
    pub to: String,
    /// When a copy is due.
    pub schedule: Option<Schedule>,
    /// Whether this host erases there what has expired, after each copy that succeeded; else another one does.
    pub prune: bool,
}

impl CopySettings {
    pub(super) fn to_json(&self) -> Value {
        json!({ "to": self.to, "schedule": self.schedule.as_ref().map(ToString::to_string), "prune": self.prune })
    }
}

impl Settings {
    /// The jobs whose backups belong into a vault: those that back up into it, or are copied to it.
    pub fn jobs_in<'a>(&'a self, vault: &'a str) -> impl Iterator<Item = &'a JobSettings> {
        let copied = move |job: &JobSettings| job.copy.as_ref().is_some_and(|copy| copy.to == vault);
        self.jobs.values().filter(move |job| job.vault == vault || copied(job))
    }
}
