//! Runs, drills and checks that began and never said how they ended: they were killed, or the machine went down. Each leaves a
//! mark in the state folder when it begins and takes it away once its end is on record; whoever finds another's mark,
//! with the job's lock in his hand, knows that nobody is behind it any more, puts it on record, and has it told: the process
//! that would have told of it is gone.
//!
//! What it does not know is when it ended. The record says that it ended when it began, and why: `killed`.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::domain::ids::JobName;
use crate::domain::manifest::{Completeness, Manifest};
use crate::domain::operation::{Operation, Task};
use crate::domain::record::{
    CheckRecord, DrillEnvironment, DrillOutcome, DrillRecord, RecordBody, RunOutcome, RunRecord,
};
use crate::error::{Code, Result};
use crate::notify::courier::Courier;
use crate::observe::Progress;

use super::host::Host;
use super::records;
use super::state::{StateDir, StateError, make_private, write_private};
use super::vaults::{OpenVault, manifests};

/// What may be found to have been killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Backup,
    Check,
    Drill,
}

impl Doing {
    fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Check => "check",
            Self::Drill => "drill",
        }
    }

    fn operation(self) -> Operation {
        match self {
            Self::Backup => Operation::Backup,
            Self::Drill => Operation::Drill,
            Self::Check => Operation::Check,
        }
    }
}

/// Something of ours that has begun.
#[derive(Debug)]
#[must_use]
pub(super) struct Begun {
    path: PathBuf,
}

impl Begun {
    /// Its end is on record, or it left nothing to record.
    fn ended(self) -> std::result::Result<(), StateError> {
        match fs::remove_file(&self.path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { verb: "remove", path: self.path, cause })
            }
            _ => Ok(()),
        }
    }
}

impl StateDir {
    fn mark(&self, job: &JobName, doing: Doing) -> PathBuf {
        self.root().join("locks").join(format!("{job}.{}.begun", doing.word()))
    }

    /// When the last one began, if it never ended. A mark that holds no time is as old as its file.
    fn unended(&self, job: &JobName, doing: Doing) -> std::result::Result<Option<DateTime<Utc>>, StateError> {
        let path = self.mark(job, doing);
        let io = |cause| StateError::Io { verb: "read", path: path.clone(), cause };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(io(cause)),
        };
        match DateTime::parse_from_rfc3339(text.trim()) {
            Ok(at) => Ok(Some(at.to_utc())),
            Err(_) => Ok(Some(fs::metadata(&path).and_then(|file| file.modified()).map_err(io)?.into())),
        }
    }

    fn begins(&self, job: &JobName, doing: Doing, at: DateTime<Utc>) -> std::result::Result<Begun, StateError> {
        let path = self.mark(job, doing);
        if let Some(folder) = path.parent() {
            make_private(folder)?;
        }
        write_private(&path, format!("{}\n", at.to_rfc3339_opts(SecondsFormat::AutoSi, true)).as_bytes())?;
        Ok(Begun { path })
    }
}

/// Puts on record what the one before left open, then leaves a mark of its own. With the job's lock held. Neither is a
/// reason not to go on: what cannot be written is said.
pub(super) fn begin(
    host: &Host,
    vault: &OpenVault,
    job: &JobName,
    doing: Doing,
    at: DateTime<Utc>,
    progress: &dyn Progress,
) -> Option<Begun> {
    match record_killed(host, vault, job, doing) {
        Ok(None) => {}
        Ok(Some(began)) => progress.warn(&format!(
            "the {} of {job} that began at {} never ended: it was killed, or the machine went down; that is on record",
            doing.word(),
            began.format("%Y-%m-%d %H:%M:%S UTC"),
        )),
        Err(error) => {
            progress.warn(&format!("a {} of {job} was killed and could not be recorded: {error}", doing.word()));
        }
    }
    let begun = host.home().and_then(|home| Ok(home.state.begins(job, doing, at)?));
    begun.map_err(|error| progress.warn(&format!("were it killed, nobody would know: {error}"))).ok()
}

/// The end is on record.
pub(super) fn end(begun: Option<Begun>, progress: &dyn Progress) {
    if let Some(Err(error)) = begun.map(Begun::ended) {
        progress.warn(&format!("the next one will take this for killed: {error}"));
    }
}

/// When the one began that was recorded.
fn record_killed(host: &Host, vault: &OpenVault, job: &JobName, doing: Doing) -> Result<Option<DateTime<Utc>>> {
    let home = host.home()?;
    let Some(began) = home.state.unended(job, doing)? else { return Ok(None) };
    // It may have been killed when its end was on record and its mark still there: the survey tells the catalog what the
    // vault knows, and what the vault was not told waits in the outbox. Where the vault cannot be read, what is known here
    // must do.
    let survey = vault.survey(host, Some(job)).ok();
    let is_it = |started: DateTime<Utc>| started.timestamp_millis() == began.timestamp_millis();
    let started = |body: &RecordBody| match body {
        RecordBody::Run(run) => doing == Doing::Backup && is_it(run.started),
        RecordBody::Drill(drill) => doing == Doing::Drill && is_it(drill.started),
        RecordBody::Check(check) => doing == Doing::Check && is_it(check.started),
        _ => false,
    };
    let mut waiting = home.state.outbox(&vault.id).waiting()?.flatten();
    let known = waiting.any(|waiting| waiting.record.job == *job && started(&waiting.record.body))
        || match doing {
            Doing::Backup => {
                let runs = host.runtime.block_on(home.catalog.runs(&vault.id, Some(job)))?;
                runs.iter().any(|row| is_it(row.run.started))
            }
            Doing::Check => {
                let checks = host.runtime.block_on(home.catalog.checks(&vault.id, Some(job)))?;
                checks.iter().any(|row| is_it(row.body.started))
            }
            Doing::Drill => {
                let drills = host.runtime.block_on(home.catalog.drills(&vault.id, Some(job)))?;
                drills.iter().any(|row| is_it(row.drill.started))
            }
        };
    if known {
        return Ok(None);
    }
    let body = match doing {
        Doing::Backup => {
            // The commit is one write, and what comes behind it can be cut off.
            let committed = survey.map(manifests).unwrap_or_default();
            run_record(began, committed.iter().find(|manifest| is_it(manifest.started)))
        }
        Doing::Check => RecordBody::Check(CheckRecord::failed(began, Code::Killed.name())),
        Doing::Drill => drill_record(host, vault, began),
    };
    if !stands(&body) {
        // First: were this process killed behind the record, nobody would hear of it. Told twice is better than never.
        if let Err(error) = have_it_told(host, &Task { job: job.clone(), operation: doing.operation() }, began) {
            tracing::error!(
                code = error.code().name(),
                "nobody is told that a {} of {job} was killed: {error}",
                doing.word()
            );
        }
    }
    records::write(host, vault, job, body, None)?;
    Ok(Some(began))
}

/// Notes it for whoever tells next, in this process or in another one.
fn have_it_told(host: &Host, task: &Task, began: DateTime<Utc>) -> Result<()> {
    let courier = Courier::new(host.home()?.state.root(), host.runtime.clone(), Arc::clone(&host.clock))?;
    let now = host.clock.now();
    Ok(courier.memory().change(|memory| memory.found_killed(task, began, now))?)
}

/// Whether all of it was done before it was killed: then there is nothing to tell of.
fn stands(body: &RecordBody) -> bool {
    matches!(body, RecordBody::Run(run) if run.outcome == RunOutcome::Success)
}

fn run_record(began: DateTime<Utc>, committed: Option<&Manifest>) -> RecordBody {
    let finished = committed.map_or(began, |manifest| manifest.committed.max(began));
    RecordBody::Run(RunRecord {
        outcome: match committed.map(|manifest| manifest.completeness) {
            None => RunOutcome::Failed,
            Some(Completeness::Complete) => RunOutcome::Success,
            Some(Completeness::Partial) => RunOutcome::Partial,
        },
        started: began,
        finished,
        duration_seconds: (finished - began).as_seconds_f64(),
        backup: committed.map(|manifest| manifest.id.clone()),
        logical_bytes: committed.map_or(0, |manifest| manifest.total(|source| source.logical_bytes)),
        stored_bytes: committed.map_or(0, |manifest| manifest.total(|source| source.stored_bytes)),
        new_bytes: committed.map_or(0, |manifest| manifest.total(|source| source.new_bytes)),
        errors: 1,
        error_code: Some(Code::Killed.name().to_owned()),
    })
}

fn drill_record(host: &Host, vault: &OpenVault, began: DateTime<Utc>) -> RecordBody {
    RecordBody::Drill(DrillRecord {
        outcome: DrillOutcome::Failed,
        backup: None,
        recovery_point: None,
        started: began,
        finished: began,
        rto_seconds: 0.0,
        rto_objective_seconds: None,
        rto_met: false,
        rpo_seconds: None,
        phases: Vec::new(),
        checks_passed: 0,
        checks_failed: 0,
        refutes_backup: false,
        error_code: Some(Code::Killed.name().to_owned()),
        restored_bytes: 0,
        environment: DrillEnvironment {
            cores: u32::try_from(host.workers).unwrap_or(u32::MAX),
            storage: vault.storage.kind().to_owned(),
            confinement: "none-run".to_owned(),
            cold_cache: false,
            servers: Vec::new(),
            opened_for: Vec::new(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stays_until_the_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (shop, mail): (JobName, JobName) = ("shop".parse().unwrap(), "mail".parse().unwrap());
        let unended = |job| state.unended(job, Doing::Backup).unwrap();
        assert_eq!(unended(&shop), None);
        let at = DateTime::from_timestamp(1_790_000_000, 123_456_789).unwrap();
        let begun = state.begins(&shop, Doing::Backup, at).unwrap();
        assert_eq!((unended(&shop), unended(&mail)), (Some(at), None));
        assert_eq!(state.unended(&shop, Doing::Drill).unwrap(), None);
        begun.ended().unwrap();
        assert_eq!(unended(&shop), None);
        // Cut short by the same power cut.
        let _left = state.begins(&shop, Doing::Backup, at).unwrap();
        fs::write(state.mark(&shop, Doing::Backup), "").unwrap();
        assert!(unended(&shop).is_some());
    }
}
