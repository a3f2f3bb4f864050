//! What a run has to say: to whoever asked for it, and as the record that stays.

use chrono::{DateTime, Utc};

use crate::domain::contents::{Note, NoteClass};
use crate::domain::ids::ObjectId;
use crate::domain::manifest::{Completeness, Manifest, SourceEntry};
use crate::domain::record::{RecordBody, RunOutcome, RunRecord};
use crate::error::Error;
use crate::vault::glance::Glance;

/// Paths named one by one in what a run has to say; the rest is counted.
const MAX_NAMED_ERRORS: usize = 20;

/// What a run of one job came to.
#[derive(Debug)]
pub struct RunReport {
    /// How it ended.
    pub outcome: RunOutcome,
    /// What was committed.
    pub manifest: Option<Manifest>,
    /// What went wrong, for a person, in full sentences.
    pub errors: Vec<String>,
    /// The failure that ended the run, if one did.
    pub failure: Option<Error>,
    /// Notes that are no errors, by class: vanished, changed, skipped.
    pub remarks: Vec<Note>,
    /// Segments that were named again without reading their files.
    pub unread_segments: u64,
    /// Segments that a run which broke off had stored, and that this one took over.
    pub resumed_segments: u64,
    /// Objects of earlier backups that this run found to be wrong. What it backs up of them was stored anew.
    pub refuted_objects: Vec<ObjectId>,
    /// How long it took.
    pub duration_seconds: f64,
    /// What was seen of the vault's objects, where something was: a prune that follows at once need not look again.
    pub glance: Option<Glance>,
}

/// The report of a run that came to nothing.
#[must_use]
pub fn not_started(error: Error) -> RunReport {
    RunReport {
        outcome: RunOutcome::Failed,
        manifest: None,
        errors: vec![error.to_string()],
        failure: Some(error),
        remarks: Vec::new(),
        unread_segments: 0,
        resumed_segments: 0,
        refuted_objects: Vec::new(),
        duration_seconds: 0.0,
        glance: None,
    }
}

/// The record of a run.
pub(super) fn run_record(report: &RunReport, started: DateTime<Utc>, finished: DateTime<Utc>) -> RecordBody {
    let total = |of: fn(&SourceEntry) -> u64| report.manifest.as_ref().map_or(0, |m| m.total(of));
    RecordBody::Run(RunRecord {
        outcome: report.outcome,
        started,
        finished,
        duration_seconds: report.duration_seconds,
        backup: report.manifest.as_ref().map(|m| m.id.clone()),
        logical_bytes: total(|s| s.logical_bytes),
        stored_bytes: total(|s| s.stored_bytes),
        new_bytes: total(|s| s.new_bytes),
        errors: report.errors.len() as u64,
        error_code: report.failure.as_ref().map(|e| e.code().name().to_owned()),
    })
}

/// What a run came to that committed a backup.
pub(super) struct Committed {
    pub(super) manifest: Manifest,
    pub(super) notes: Vec<Note>,
    pub(super) unread_segments: u64,
    pub(super) resumed_segments: u64,
    pub(super) refuted_objects: Vec<ObjectId>,
    pub(super) glance: Option<Glance>,
}

impl Committed {
    pub(super) fn into_report(self) -> RunReport {
        let (unreadable, remarks): (Vec<Note>, Vec<Note>) =
            self.notes.into_iter().partition(|note| note.class == NoteClass::Unreadable);
        let mut errors: Vec<String> = unreadable
            .iter()
            .take(MAX_NAMED_ERRORS)
            .map(|note| format!("cannot read {}: {}", note.path.display(), note.detail))
            .collect();
        if unreadable.len() > MAX_NAMED_ERRORS {
            errors.push(format!("and {} more that cannot be read", unreadable.len() - MAX_NAMED_ERRORS));
        }
        RunReport {
            outcome: match self.manifest.completeness {
                Completeness::Complete => RunOutcome::Success,
                Completeness::Partial => RunOutcome::Partial,
            },
            manifest: Some(self.manifest),
            errors,
            failure: None,
            remarks,
            unread_segments: self.unread_segments,
            resumed_segments: self.resumed_segments,
            refuted_objects: self.refuted_objects,
            duration_seconds: 0.0,
            glance: self.glance,
        }
    }
}
