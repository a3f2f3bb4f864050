//! `backup`: every source of a job into the vault, then the manifest, which is the commit.
//!
//! The order is that of docs/VAULT-FORMAT.md: segments, contents, lists; one sync; a look at whether everything that
//! the manifest will name is there; the signature; the manifest. What fails before the last step leaves nothing but
//! garbage that no manifest names.

mod pipeline;
mod source;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rand::RngExt;

use crate::config::{JobSettings, SourceKind, SourceSettings};
use crate::domain::contents::{Note, NoteClass};
use crate::domain::ids::{BackupId, ObjectId, SourceName};
use crate::domain::manifest::{Completeness, MANIFEST_TYPE, MANIFEST_VERSION, Manifest};
use crate::domain::record::{RecordBody, RunOutcome, RunRecord};
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::seal::{Sealer, SourceKeys, recipient_set};
use crate::sources::Source;
use crate::sources::files::{FilesOptions, FilesSource, LeftOut};
use crate::sources::memory::{MemoryHead, WrittenMemory};
use crate::sources::sqlite::SqliteSource;
use crate::vault::layout::Key;
use crate::vault::manifests::{commit_manifest, sign_manifest, verify_manifest};
use crate::vault::writer::absent;

use super::host::Host;
use super::vaults::{OpenVault, manifests};
use super::{TOOL, records};

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
    /// How long it took.
    pub duration_seconds: f64,
}

/// A job as a run needs it.
struct Job<'a> {
    settings: &'a JobSettings,
    /// The job's settings without secrets, for the head of the contents.
    config: serde_json::Value,
}

/// One run.
struct Run<'a> {
    host: &'a Host,
    vault: &'a OpenVault,
    progress: &'a dyn Progress,
    recipient_set: String,
    /// The job's backups, oldest first.
    earlier: Vec<Manifest>,
    /// Those that a drill found bad.
    refuted: HashSet<BackupId>,
}

impl Run<'_> {
    fn sealer(&self) -> Result<Sealer> {
        Ok(Sealer::new(&self.vault.settings.recipients, self.vault.settings.compression_level)?)
    }

    /// The newest complete backup that has this source and was sealed to the same recipients. None once a drill found
    /// that one bad: which of its objects spoil it is not known, so none is named again, nor an older backup's.
    fn base(&self, source: &SourceName) -> Option<&Manifest> {
        let newest = self.earlier.iter().rev().find(|manifest| {
            manifest.completeness == Completeness::Complete
                && manifest.recipient_set == self.recipient_set
                && manifest.sources.iter().any(|entry| entry.name == *source)
        });
        newest.filter(|manifest| !self.refuted.contains(&manifest.id))
    }
}

/// Backs a job up. A failure is in the report, and recorded where the vault can still be written to.
///
/// # Errors
/// Only when the job is locked: then nothing was tried, and nothing is recorded.
pub fn backup(
    host: &Host,
    vault: &OpenVault,
    settings: &JobSettings,
    config: serde_json::Value,
    progress: &dyn Progress,
) -> Result<RunReport> {
    let started = host.clock.now();
    let stopwatch = host.clock.monotonic();
    let _lock = host.home()?.state.lock(&settings.name, "backup", started)?;
    let job = Job { settings, config };
    let result = run(host, vault, &job, started, progress);
    let duration_seconds = (host.clock.monotonic() - stopwatch).as_secs_f64();
    let mut report = match result {
        Ok(committed) => committed.into_report(),
        Err(error) => not_started(error),
    };
    report.duration_seconds = duration_seconds;
    if let Err(error) =
        records::write(host, vault, &settings.name, run_record(&report, started, host.clock.now()), None)
    {
        let what = format!("the run could not be recorded: {error}");
        progress.warn(&what);
        report.errors.push(what);
    }
    Ok(report)
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
        duration_seconds: 0.0,
    }
}

fn run_record(report: &RunReport, started: DateTime<Utc>, finished: DateTime<Utc>) -> RecordBody {
    let total =
        |of: fn(&crate::domain::manifest::SourceEntry) -> u64| report.manifest.as_ref().map_or(0, |m| m.total(of));
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

struct Committed {
    manifest: Manifest,
    notes: Vec<Note>,
    unread_segments: u64,
}

impl Committed {
    fn into_report(self) -> RunReport {
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
            duration_seconds: 0.0,
        }
    }
}

fn run(
    host: &Host,
    vault: &OpenVault,
    job: &Job<'_>,
    started: DateTime<Utc>,
    progress: &dyn Progress,
) -> Result<Committed> {
    vault.must_let_write(host, &job.settings.name, started)?;
    let survey = vault.survey(host, Some(&job.settings.name))?;
    for problem in &survey.problems {
        progress.warn(&format!("{}: {}; `lifeboat check {}` says more", problem.key, problem.fault, job.settings.name));
    }
    let last = vault.last_of(host, &survey, &job.settings.name)?;
    let run = Run {
        host,
        vault,
        progress,
        recipient_set: recipient_set(&vault.settings.recipients),
        earlier: manifests(survey),
        refuted: host.refuted(&vault.id, Some(&job.settings.name))?,
    };
    let secret = host.home()?.state.host_secret()?;
    let mut stored = Vec::new();
    for settings in &job.settings.sources {
        let keys = secret.for_source(&vault.id, &job.settings.name, &settings.name);
        let source = source_for(&run, job.settings, settings, &keys)?;
        let context = |e: Error| e.context(format!("source {}", settings.name));
        stored.push(source::store(&run, job, &*source, settings, &keys).map_err(context)?);
    }
    host.runtime.block_on(vault.storage.sync())?;

    // What is named must be there, the reused as well as the new: one listing.
    let named: HashMap<ObjectId, u64> = stored.iter().flat_map(|s| &s.named).map(|(o, size)| (*o, *size)).collect();
    let missing = host.runtime.block_on(absent(&*vault.storage, named))?;
    if let Some(object) = missing.keys().next() {
        return Err(Error::new(
            Code::ObjectMissing,
            format!(
                "{} objects that this backup names are not in the vault, {object} for one; nothing was committed",
                missing.len()
            ),
        )
        .with_hint("run it again: what is missing is stored anew"));
    }

    for list in stored.iter().flat_map(|s| &s.entry.lists) {
        let key = Key::List(*list).to_string();
        if host.runtime.block_on(vault.storage.size(&key))?.is_none() {
            return Err(Error::new(
                Code::ObjectMissing,
                format!("{key} was stored and is not there; nothing was committed"),
            )
            .with_hint("run it again: what is missing is stored anew"));
        }
    }

    let partial = stored.iter().flat_map(|s| &s.notes).any(|note| note.class == NoteClass::Unreadable);
    let recovery_point = stored.iter().map(|s| s.entry.recovery_point).min().unwrap_or(started);
    let mut recipients = vault.settings.recipients.clone();
    recipients.sort_unstable();
    recipients.dedup();
    let manifest = Manifest {
        kind: MANIFEST_TYPE.to_owned(),
        version: MANIFEST_VERSION,
        vault: vault.id.clone(),
        job: job.settings.name.clone(),
        id: BackupId::from_random(rand::rng().random()),
        sequence: last.map_or(1, |(sequence, _)| sequence + 1),
        completeness: if partial { Completeness::Partial } else { Completeness::Complete },
        host: vault.host_name(host)?,
        tool: TOOL.to_owned(),
        started,
        committed: host.clock.now(),
        recovery_point,
        recipient_set: run.recipient_set.clone(),
        recipients,
        previous: last.map(|(_, hash)| hash),
        sources: stored.iter().map(|s| s.entry.clone()).collect(),
    };
    let signed = sign_manifest(&manifest, &host.key()?);
    // Nobody is told of a backup that its readers would not believe: a clock that was set back meanwhile is enough.
    verify_manifest(&vault.trust, &signed.name, &signed.document, &signed.signature).map_err(|reason| {
        Error::new(
            Code::HostUnauthorised,
            format!("the backup is stored, and its manifest would not be believed: {reason}"),
        )
        .with_hint("look at this host's clock (`date -u`), and at what vault.json lets it sign; nothing was committed")
    })?;
    host.runtime.block_on(commit_manifest(&*vault.storage, &signed))?;

    // From here on the backup exists. What follows is this host's memory of it, and may be lost.
    let mut notes = Vec::new();
    let mut unread_segments = 0;
    for source in stored {
        unread_segments += source.unread_segments;
        notes.extend(source.notes);
        let head = MemoryHead {
            backup: manifest.id.clone(),
            recipient_set: run.recipient_set.clone(),
            id_key_hash: source.id_key_hash,
            contents: source.contents,
        };
        // A partial backup is never a base, so nothing is remembered of it.
        if !partial && let Err(error) = source.memory.finish(&head).and_then(WrittenMemory::commit) {
            progress.warn(&format!("the next run will read every file again: {error}"));
        }
    }
    if let Err(error) = vault.remember_one(host, &manifest, signed.hash) {
        progress.warn(&format!(
            "the catalog does not know of this backup yet: {error}; `lifeboat catalog rebuild` mends it"
        ));
    }
    Ok(Committed { manifest, notes, unread_segments })
}

fn source_for(
    run: &Run<'_>,
    job: &JobSettings,
    settings: &SourceSettings,
    keys: &SourceKeys,
) -> Result<Box<dyn Source>> {
    let host = run.host;
    Ok(match &settings.kind {
        SourceKind::Files(files) => Box::new(FilesSource::new(
            FilesOptions {
                paths: files.paths.clone(),
                exclude: files.exclude.clone(),
                one_file_system: files.one_file_system,
                exclude_caches: files.exclude_caches,
                leave_out: leave_out(run, job)?,
                name_key: keys.name_key,
            },
            Arc::clone(&host.clock),
        )),
        SourceKind::Sqlite(sqlite) => {
            Box::new(SqliteSource::new(sqlite.path.clone(), host.runtime.clone(), Arc::clone(&host.clock)))
        }
    })
}

/// What no walk of this job may store, or even open. A raw copy of a live database is torn and carries deleted rows
/// along, and closing the file would drop whatever locks SQLite holds on it in this process. The vault would
/// back itself up, and grow with every run; the state folder holds this host's keys and the catalog.
fn leave_out(run: &Run<'_>, job: &JobSettings) -> Result<Vec<LeftOut>> {
    let state = run.host.home()?.state.root().to_owned();
    let mut left_out = vec![LeftOut { path: state, why: "it is lifeboat's own state folder".to_owned() }];
    left_out.extend(
        run.vault.folder().map(|path| LeftOut { path, why: "it is the vault that this backup goes to".to_owned() }),
    );
    for source in &job.sources {
        let SourceKind::Sqlite(sqlite) = &source.kind else { continue };
        // SQLite follows a link before it names the files beside the database.
        let database = sqlite.path.canonicalize().unwrap_or_else(|_| sqlite.path.clone());
        for ending in ["", "-wal", "-shm", "-journal"] {
            let mut path = database.clone().into_os_string();
            path.push(ending);
            left_out.push(LeftOut { path: path.into(), why: format!("backed up by source {}", source.name) });
        }
    }
    Ok(left_out)
}
