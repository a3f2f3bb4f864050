//! What the catalog hands out: a backup without its object names, a run, a drill. And how each lies in its table.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::DeserializeOwned;
use serde::de::value::{Error as WordError, StrDeserializer};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::domain::contents::NoteClass;
use crate::domain::ids::{BackupId, JobName, ManifestHash, ObjectId, RecordId, SourceName, VaultId};
use crate::domain::manifest::{Completeness, Manifest, SourceEntry};
use crate::domain::record::{DrillRecord, RunRecord};

/// A committed backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRow {
    /// The vault it lies in.
    pub vault: VaultId,
    /// Its id.
    pub id: BackupId,
    /// Its job.
    pub job: JobName,
    /// Its number in the job, from 1.
    pub sequence: u64,
    /// Complete or partial.
    pub completeness: Completeness,
    /// The host that took it.
    pub host: String,
    /// The program that took it.
    pub tool: String,
    /// When the run began.
    pub started: DateTime<Utc>,
    /// When it was committed: available from here on.
    pub committed: DateTime<Utc>,
    /// The earliest recovery point of its sources.
    pub recovery_point: DateTime<Utc>,
    /// BLAKE3 over the sorted recipients, in hexadecimal.
    pub recipient_set: String,
    /// The public keys it is sealed to.
    pub recipients: Vec<String>,
    /// The SHA-256 of the job's previous manifest.
    pub previous: Option<ManifestHash>,
    /// The SHA-256 of its own manifest.
    pub manifest_hash: ManifestHash,
    /// Its sources, in the order of the config.
    pub sources: Vec<SourceRow>,
    /// When it was removed; `None` while it is in the vault.
    pub retained_until: Option<DateTime<Utc>>,
}

/// A source of a backup: the manifest's entry without lists and contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
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

/// A run of `backup`.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// The vault that has its record.
    pub vault: VaultId,
    /// The record's id.
    pub id: RecordId,
    /// The job.
    pub job: JobName,
    /// The host that ran it.
    pub host: String,
    /// The program that ran it.
    pub tool: String,
    /// When the record was written.
    pub recorded: DateTime<Utc>,
    /// The sealed details beside the record.
    pub details: Option<ObjectId>,
    /// What was recorded.
    pub run: RunRecord,
}

/// A drill.
#[derive(Debug, Clone, PartialEq)]
pub struct DrillRow {
    /// The vault that has its record.
    pub vault: VaultId,
    /// The record's id.
    pub id: RecordId,
    /// The job.
    pub job: JobName,
    /// The host that it ran on.
    pub host: String,
    /// The program that ran it.
    pub tool: String,
    /// When the record was written.
    pub recorded: DateTime<Utc>,
    /// The sealed details beside the record.
    pub details: Option<ObjectId>,
    /// What was recorded.
    pub drill: DrillRecord,
}

impl BackupRow {
    /// What the catalog keeps of a manifest.
    #[must_use]
    pub fn of(manifest: &Manifest, manifest_hash: ManifestHash) -> Self {
        Self {
            vault: manifest.vault.clone(),
            id: manifest.id.clone(),
            job: manifest.job.clone(),
            sequence: manifest.sequence,
            completeness: manifest.completeness,
            host: manifest.host.clone(),
            tool: manifest.tool.clone(),
            started: manifest.started,
            committed: manifest.committed,
            recovery_point: manifest.recovery_point,
            recipient_set: manifest.recipient_set.clone(),
            recipients: manifest.recipients.clone(),
            previous: manifest.previous,
            manifest_hash,
            sources: manifest.sources.iter().map(SourceRow::of).collect(),
            retained_until: None,
        }
    }

    /// Sums over the sources.
    #[must_use]
    pub fn total(&self, of: impl Fn(&SourceRow) -> u64) -> u64 {
        self.sources.iter().map(of).fold(0, u64::saturating_add)
    }

    pub(super) fn from_sql(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            vault: parsed(row, "vault")?,
            id: parsed(row, "id")?,
            job: parsed(row, "job")?,
            sequence: number(row, "sequence")?,
            completeness: word(row, "completeness")?,
            host: row.try_get("host")?,
            tool: row.try_get("tool")?,
            started: moment(row, "started")?,
            committed: moment(row, "committed")?,
            recovery_point: moment(row, "recovery_point")?,
            recipient_set: row.try_get("recipient_set")?,
            recipients: json(row, "recipients")?,
            previous: optional(row, "previous", str::parse)?,
            manifest_hash: parsed(row, "manifest_hash")?,
            sources: json(row, "sources")?,
            retained_until: optional(row, "retained_until", parse_moment)?,
        })
    }
}

impl SourceRow {
    fn of(entry: &SourceEntry) -> Self {
        Self {
            name: entry.name.clone(),
            kind: entry.kind.clone(),
            recovery_point: entry.recovery_point,
            logical_bytes: entry.logical_bytes,
            stored_bytes: entry.stored_bytes,
            new_bytes: entry.new_bytes,
            segments: entry.segments,
            new_segments: entry.new_segments,
            notes: entry.notes.clone(),
        }
    }
}

impl RunRow {
    pub(super) fn from_sql(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            vault: parsed(row, "vault")?,
            id: parsed(row, "id")?,
            job: parsed(row, "job")?,
            host: row.try_get("host")?,
            tool: row.try_get("tool")?,
            recorded: moment(row, "recorded")?,
            details: optional(row, "details", str::parse)?,
            run: RunRecord {
                outcome: word(row, "outcome")?,
                started: moment(row, "started")?,
                finished: moment(row, "finished")?,
                duration_seconds: row.try_get("duration_seconds")?,
                backup: optional(row, "backup", str::parse)?,
                logical_bytes: number(row, "logical_bytes")?,
                stored_bytes: number(row, "stored_bytes")?,
                new_bytes: number(row, "new_bytes")?,
                errors: number(row, "errors")?,
                error_code: row.try_get("error_code")?,
            },
        })
    }
}

impl DrillRow {
    pub(super) fn from_sql(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            vault: parsed(row, "vault")?,
            id: parsed(row, "id")?,
            job: parsed(row, "job")?,
            host: row.try_get("host")?,
            tool: row.try_get("tool")?,
            recorded: moment(row, "recorded")?,
            details: optional(row, "details", str::parse)?,
            drill: DrillRecord {
                outcome: word(row, "outcome")?,
                backup: optional(row, "backup", str::parse)?,
                recovery_point: optional(row, "recovery_point", parse_moment)?,
                started: moment(row, "started")?,
                finished: moment(row, "finished")?,
                rto_seconds: row.try_get("rto_seconds")?,
                rto_objective_seconds: row.try_get("rto_objective_seconds")?,
                rto_met: row.try_get("rto_met")?,
                rpo_seconds: row.try_get("rpo_seconds")?,
                phases: json(row, "phases")?,
                checks_passed: number(row, "checks_passed")?,
                checks_failed: number(row, "checks_failed")?,
                refutes_backup: row.try_get("refutes_backup")?,
                error_code: row.try_get("error_code")?,
                restored_bytes: number(row, "restored_bytes")?,
                environment: json(row, "environment")?,
            },
        })
    }
}

/// A moment as it lies in a table: always as long, so that texts sort as moments do.
pub(super) fn moment_text(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// A value of an enum whose serde image is a word.
pub(super) fn word_text<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        // Not a word: the table's check refuses it.
        _ => String::new(),
    }
}

/// A shape that is only ever read whole.
pub(super) fn json_text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("rows hold strings, numbers and times, which JSON can always represent")
}

fn parse_moment(text: &str) -> Result<DateTime<Utc>, chrono::ParseError> {
    DateTime::parse_from_rfc3339(text).map(|moment| moment.with_timezone(&Utc))
}

fn undecodable(column: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: cause.into() }
}

fn parsed<T>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.try_get::<&str, _>(column)?.parse().map_err(|cause: T::Err| undecodable(column, cause))
}

fn moment(row: &SqliteRow, column: &str) -> Result<DateTime<Utc>, sqlx::Error> {
    parse_moment(row.try_get(column)?).map_err(|cause| undecodable(column, cause))
}

fn optional<T, E>(
    row: &SqliteRow,
    column: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, sqlx::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let text: Option<&str> = row.try_get(column)?;
    text.map(parse).transpose().map_err(|cause| undecodable(column, cause))
}

fn number(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|cause| undecodable(column, cause))
}

fn word<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error> {
    let deserializer: StrDeserializer<'_, WordError> = StrDeserializer::new(row.try_get(column)?);
    T::deserialize(deserializer).map_err(|cause| undecodable(column, cause))
}

fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.try_get(column)?).map_err(|cause| undecodable(column, cause))
}
