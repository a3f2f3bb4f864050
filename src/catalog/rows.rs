//! What the catalog hands out: a backup without its object names, a run, a drill, and what keeping and erasing leave
//! behind. And how each lies in its table.

use std::ops::Deref;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::value::{Error as WordError, StrDeserializer};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::domain::ids::{JobName, ManifestHash, ObjectId, RecordId, VaultId};
use crate::domain::manifest::{BackupSummary, Manifest, SourceSummary};
use crate::domain::record::{
    CheckRecord, CopyRecord, DrillRecord, PruneRecord, QuarantineRecord, RefutationRecord, RemovalReason,
    RemovalRecord, RunRecord,
};

/// A committed backup: what is remembered of it, and whether it is still in the vault. Derefs to the summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRow {
    /// What it is, or was.
    pub summary: BackupSummary,
    /// When it was removed; `None` while it is in the vault.
    pub retained_until: Option<DateTime<Utc>>,
    /// Why it was removed; `None` while it is in the vault, and where nobody recorded a reason.
    pub removal: Option<RemovalReason>,
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

/// A record that the catalog keeps as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordRow<Body> {
    /// The vault that has it.
    pub vault: VaultId,
    /// The record's id.
    pub id: RecordId,
    /// The job.
    pub job: JobName,
    /// The host that wrote it.
    pub host: String,
    /// The program that wrote it.
    pub tool: String,
    /// When it was written.
    pub recorded: DateTime<Utc>,
    /// The sealed details beside it.
    pub details: Option<ObjectId>,
    /// What was recorded.
    pub body: Body,
}

/// A backup that was taken out of the vault.
pub type RemovalRow = RecordRow<RemovalRecord>;
/// Something that was found wrong.
pub type RefutationRow = RecordRow<RefutationRecord>;
/// Something that a person decided to go on without.
pub type QuarantineRow = RecordRow<QuarantineRecord>;
/// A run of `prune`.
pub type PruneRow = RecordRow<PruneRecord>;
/// A run of `copy`.
pub type CopyRow = RecordRow<CopyRecord>;
/// A run of `check`.
pub type CheckRow = RecordRow<CheckRecord>;

impl Deref for BackupRow {
    type Target = BackupSummary;

    fn deref(&self) -> &BackupSummary {
        &self.summary
    }
}

impl BackupRow {
    /// What the catalog keeps of a manifest.
    #[must_use]
    pub fn of(manifest: &Manifest, manifest_hash: ManifestHash) -> Self {
        Self { summary: manifest.summary(manifest_hash), retained_until: None, removal: None }
    }

    /// What a removal says of the backup that it took out. `None` where it does not say what that was, or says it of
    /// another job's or of another backup than its own.
    #[must_use]
    pub fn removed(row: &RemovalRow) -> Option<Self> {
        let summary = row.body.summary.as_ref()?;
        let fits = summary.vault == row.vault && summary.job == row.job && summary.id == row.body.backup;
        fits.then(|| Self {
            summary: summary.clone(),
            retained_until: Some(row.recorded),
            removal: Some(row.body.reason),
        })
    }

    /// Sums over the sources; a sum that no number holds is the largest one.
    #[must_use]
    pub fn total(&self, of: impl Fn(&SourceSummary) -> u64) -> u64 {
        self.sources.iter().map(of).fold(0, u64::saturating_add)
    }

    pub(super) fn from_sql(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let summary = BackupSummary {
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
        };
        Ok(Self { summary, retained_until: None, removal: None })
    }
}

impl<Body: DeserializeOwned> RecordRow<Body> {
    pub(super) fn from_sql(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            vault: parsed(row, "vault")?,
            id: parsed(row, "id")?,
            job: parsed(row, "job")?,
            host: row.try_get("host")?,
            tool: row.try_get("tool")?,
            recorded: moment(row, "recorded")?,
            details: optional(row, "details", str::parse)?,
            body: json(row, "body")?,
        })
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
