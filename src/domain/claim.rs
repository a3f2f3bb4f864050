//! A claim: the word of a run under way that no sweep may take what it stored or may name.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::ids::{BackupId, JobName, ObjectId, RunId, VaultId};

/// The `type` of a claim document.
pub const CLAIM_TYPE: &str = "lifeboat-claim";
/// The version of the claim's shape that this program writes and reads.
pub const CLAIM_VERSION: u32 = 1;
/// How long a claim holds without being renewed.
pub const CLAIM_HOLDS: TimeDelta = TimeDelta::hours(2);
/// No claim holds longer than this after the store last saw it, whatever it says: it is not signed, and must not
/// be a way to keep data for ever.
pub const CLAIM_HOLDS_AT_MOST: TimeDelta = TimeDelta::hours(24);
/// How far the clocks of host and store may differ before a run is refused; what is compared across the two gives this
/// much.
pub const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// An unfinished run. It lies under `claims/<job>/<run>-<number>.json`, is never changed, and is renewed by the next
/// number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Always [`CLAIM_TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// [`CLAIM_VERSION`].
    pub version: u32,
    /// The vault.
    pub vault: VaultId,
    /// The job.
    pub job: JobName,
    /// The run.
    pub run: RunId,
    /// From 1; the highest one counts.
    pub number: u64,
    /// The host, as vault.json names it.
    pub host: String,
    /// What was stored from here on, by the store's time, may be named by the run.
    pub since: DateTime<Utc>,
    /// The claim holds until here, by the store's time.
    pub until: DateTime<Utc>,
    /// The backups that the run may name objects of.
    pub bases: Vec<BackupId>,
    /// Their lists: what these name is claimed, whether or not a manifest still names them.
    pub lists: Vec<ObjectId>,
    /// The objects of their contents.
    pub contents: Vec<ObjectId>,
}

impl Claim {
    /// Whether the claim holds at `now`. `modified` is when the store last saw it.
    #[must_use]
    pub fn holds(&self, now: DateTime<Utc>, modified: Option<DateTime<Utc>>) -> bool {
        now <= self.until && modified.is_none_or(|seen| now <= seen + CLAIM_HOLDS_AT_MOST)
    }
}
