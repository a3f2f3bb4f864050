//! What runs around a job's backups.

use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::quantity::exact_duration;

/// How long a hook may take where the config says nothing.
pub(super) const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Programs with their arguments, each list empty where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSettings {
    /// Run before a source is opened.
    pub before: Vec<String>,
    /// Run after each run, however it ended.
    pub after: Vec<String>,
    /// Run after one that failed or was partial.
    pub on_failure: Vec<String>,
    /// How long each may take.
    pub timeout: Duration,
}

impl Default for HookSettings {
    fn default() -> Self {
        Self { before: Vec::new(), after: Vec::new(), on_failure: Vec::new(), timeout: DEFAULT_HOOK_TIMEOUT }
    }
}

impl HookSettings {
    /// As it can be read again.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "before": self.before,
            "after": self.after,
            "on_failure": self.on_failure,
            "timeout": exact_duration(self.timeout),
        })
    }
}
