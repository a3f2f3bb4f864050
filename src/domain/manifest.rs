//! The signed head of a backup. It is in clear and tells object names, stored sizes and times, and nothing of what
//! is inside.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::contents::NoteClass;
use super::ids::{BackupId, JobName, ManifestHash, ObjectId, SourceName, Stamp, VaultId};

/// The `type` of a manifest document.
pub const MANIFEST_TYPE: &str = "lifeboat-backup";
/// The version of the manifest's shape that this program writes and reads.
pub const MANIFEST_VERSION: u32 = 1;

/// Whether everything that should be in a backup is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Completeness {
    /// Nothing was unreadable.
    Complete,
    /// Something was: it can be restored, and does not count as a recovery point.
    Partial,
}

/// The manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`MANIFEST_TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// The vault it was written to.
    pub vault: VaultId,
    /// The job.
    pub job: JobName,
    /// The backup.
    pub id: BackupId,
    /// One more than the previous committed backup of the job, from 1.
    pub sequence: u64,
    /// Complete or partial.
    pub completeness: Completeness,
    /// The host that wrote it, as vault.json names it.
    pub host: String,
    /// `lifeboat 0.1.0`.
    pub tool: String,
    /// When the run began.
    pub started: DateTime<Utc>,
    /// When everything it names was stored and confirmed: the backup is available from here on.
    pub committed: DateTime<Utc>,
    /// The earliest recovery point of its sources.
    pub recovery_point: DateTime<Utc>,
    /// BLAKE3 over the sorted recipients, in hexadecimal.
    pub recipient_set: String,
    /// The public keys that the segments are sealed to, sorted.
    pub recipients: Vec<String>,
    /// The SHA-256 of the job's previous manifest.
    pub previous: Option<ManifestHash>,
    /// Its sources, in the order of the config.
    pub sources: Vec<SourceEntry>,
}

/// One source in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// Its name in the config.
    pub name: SourceName,
    /// Its kind in the config.
    pub kind: String,
    /// When its snapshot was opened.
    pub recovery_point: DateTime<Utc>,
    /// The lists of its segments, in order.
    pub lists: Vec<ObjectId>,
    /// The objects of its contents, in order.
    pub contents: Vec<ObjectId>,
    /// Plain tar bytes of all segments.
    pub logical_bytes: u64,
    /// Stored bytes of all segments and contents that it names, an object named twice counted once.
    pub stored_bytes: u64,
    /// Sealed bytes that this run added.
    pub new_bytes: u64,
    /// Segments that it names.
    pub segments: u64,
    /// Segments that this run added.
    pub new_segments: u64,
    /// How many notes of each class the run left; their texts are in the contents.
    pub notes: BTreeMap<NoteClass, u64>,
}

/// What remains to be said of a backup when its manifest is gone: everything but where its bytes lay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupSummary {
    /// The vault it was written to.
    pub vault: VaultId,
    /// The job.
    pub job: JobName,
    /// The backup.
    pub id: BackupId,
    /// Its number in the job, from 1.
    pub sequence: u64,
    /// Complete or partial.
    pub completeness: Completeness,
    /// The host that wrote it.
    pub host: String,
    /// The program that wrote it.
    pub tool: String,
    /// When the run began.
    pub started: DateTime<Utc>,
    /// When it was committed: available from here on.
    pub committed: DateTime<Utc>,
    /// The earliest recovery point of its sources.
    pub recovery_point: DateTime<Utc>,
    /// BLAKE3 over the sorted recipients, in hexadecimal.
    pub recipient_set: String,
    /// The public keys that it is sealed to.
    pub recipients: Vec<String>,
    /// The SHA-256 of the job's previous manifest.
    pub previous: Option<ManifestHash>,
    /// The SHA-256 of its own manifest.
    pub manifest_hash: ManifestHash,
    /// Its sources, in the order of the config.
    pub sources: Vec<SourceSummary>,
}

/// A source of a backup without its lists and contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSummary {
    /// Its name in the config.
    pub name: SourceName,
    /// Its kind in the config.
    pub kind: String,
    /// When its snapshot was opened.
    pub recovery_point: DateTime<Utc>,
    /// Plain tar bytes.
    pub logical_bytes: u64,
    /// Stored bytes that it names.
    pub stored_bytes: u64,
    /// Sealed bytes that the run added.
    pub new_bytes: u64,
    /// Segments that it names.
    pub segments: u64,
    /// Segments that the run added.
    pub new_segments: u64,
    /// How many notes of each class the run left.
    pub notes: BTreeMap<NoteClass, u64>,
}

impl Manifest {
    /// What is remembered of this backup, `hash` being that of its signed document.
    #[must_use]
    pub fn summary(&self, hash: ManifestHash) -> BackupSummary {
        BackupSummary {
            vault: self.vault.clone(),
            job: self.job.clone(),
            id: self.id.clone(),
            sequence: self.sequence,
            completeness: self.completeness,
            host: self.host.clone(),
            tool: self.tool.clone(),
            started: self.started,
            committed: self.committed,
            recovery_point: self.recovery_point,
            recipient_set: self.recipient_set.clone(),
            recipients: self.recipients.clone(),
            previous: self.previous,
            manifest_hash: hash,
            sources: self.sources.iter().map(SourceEntry::summary).collect(),
        }
    }

    /// Sums over the sources.
    #[must_use]
    pub fn total(&self, of: impl Fn(&SourceEntry) -> u64) -> u64 {
        self.sources.iter().map(of).sum()
    }

    /// The time in the manifest's key.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp::of(self.recovery_point)
    }
}

impl SourceEntry {
    fn summary(&self) -> SourceSummary {
        SourceSummary {
            name: self.name.clone(),
            kind: self.kind.clone(),
            recovery_point: self.recovery_point,
            logical_bytes: self.logical_bytes,
            stored_bytes: self.stored_bytes,
            new_bytes: self.new_bytes,
            segments: self.segments,
            new_segments: self.new_segments,
            notes: self.notes.clone(),
        }
    }
}

impl BackupSummary {
    /// Sums over the sources.
    #[must_use]
    pub fn total(&self, of: impl Fn(&SourceSummary) -> u64) -> u64 {
        self.sources.iter().map(of).sum()
    }
}
