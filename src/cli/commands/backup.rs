//! `backup`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::{JobSettings, PruneWhen};
use crate::domain::contents::NoteClass;
use crate::domain::ids::{BackupId, JobName, SourceName};
use crate::domain::manifest::Manifest;
use crate::domain::operation::{Operation, Task};
use crate::domain::quantity::{human_bytes, human_seconds};
use crate::domain::record::RunOutcome;
use crate::error::{Code, Error, Kind, Result};
use crate::operations::backup::{self, RunReport};
use crate::operations::notices::{Ended, Notices, new_run};
use crate::operations::prune::AfterPause;
use crate::operations::vaults::OpenVault;
use crate::operations::verdicts;
use crate::vault::glance::Glance;

use super::super::Exit;
use super::super::args::{Global, JobsArgs};
use super::super::output::{print_error, print_json, say};
use super::super::progress::Terminal;
use super::super::session::{Configured, Session};
use super::notify;
use super::prune::{self, How};

/// With the name of `Code::SourcePartial`, for who looks it up.
const PARTIAL: &str = "partial: something could not be read [source-partial]";

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    runs: Vec<Run>,
}

#[derive(Serialize)]
struct Run {
    job: JobName,
    outcome: RunOutcome,
    backup: Option<Backup>,
    errors: Vec<String>,
    resumed_segments: u64,
    duration_seconds: f64,
}

#[derive(Serialize)]
struct Backup {
    id: BackupId,
    job: JobName,
    recovery_point: chrono::DateTime<chrono::Utc>,
    available_at: chrono::DateTime<chrono::Utc>,
    logical_bytes: u64,
    stored_bytes: u64,
    new_bytes: u64,
    segments: u64,
    new_segments: u64,
    sources: Vec<Source>,
}

#[derive(Serialize)]
struct Source {
    name: SourceName,
    kind: String,
    recovery_point: chrono::DateTime<chrono::Utc>,
    logical_bytes: u64,
    stored_bytes: u64,
    new_bytes: u64,
    segments: u64,
    new_segments: u64,
    notes: std::collections::BTreeMap<NoteClass, u64>,
}

impl Backup {
    fn of(manifest: &Manifest) -> Self {
        Self {
            id: manifest.id.clone(),
            job: manifest.job.clone(),
            recovery_point: manifest.recovery_point,
            available_at: manifest.committed,
            logical_bytes: manifest.total(|s| s.logical_bytes),
            stored_bytes: manifest.total(|s| s.stored_bytes),
            new_bytes: manifest.total(|s| s.new_bytes),
            segments: manifest.total(|s| s.segments),
            new_segments: manifest.total(|s| s.new_segments),
            sources: manifest
                .sources
                .iter()
                .map(|s| Source {
                    name: s.name.clone(),
                    kind: s.kind.clone(),
                    recovery_point: s.recovery_point,
                    logical_bytes: s.logical_bytes,
                    stored_bytes: s.stored_bytes,
                    new_bytes: s.new_bytes,
                    segments: s.segments,
                    new_segments: s.new_segments,
                    notes: s.notes.clone(),
                })
                .collect(),
        }
    }
}

pub(in super::super) fn backup(session: Session, args: &JobsArgs) -> Result<Exit> {
    let began = session.host.clock.now();
    let session = session.configured()?;
    let jobs = session.jobs(&args.jobs)?;
    let notices = Notices::beside(&session.host, &session.settings);
    let vaults = session.vaults(&jobs);
    let progress = session.progress();
    let mut exit = Exit::DONE;
    let mut runs = Vec::new();
    let mut committed: BTreeMap<&str, (Vec<&JobSettings>, Option<Glance>)> = BTreeMap::new();
    for job in jobs {
        // What a signal kept from being tried was not done.
        if let Err(error) = session.host.check_interrupted() {
            print_error(&error.context(format!("{} was not begun", job.name)));
            exit = exit.worse(Exit::of(Kind::Interrupted));
            break;
        }
        let (task, run) = (Task { job: job.name.clone(), operation: Operation::Backup }, new_run());
        notices.began(&task, &run);
        let config = session.settings.without_secrets(&job.name);
        let report = match &vaults[&job.vault] {
            Ok(vault) => {
                let held = session.settings.holding(job, session.host.clock.now());
                backup::backup(&session.host, vault, &held, config, &progress)
            }
            Err(error) => Ok(backup::without_vault(&session.host, job, error.clone())),
        };
        let mut report = report.unwrap_or_else(backup::not_started);
        let glance = report.glance.take();
        exit = exit.worse(exit_of(&report));
        let trouble = verdicts::of_backup(&job.name, &report);
        notices.ended(&task, &run, &Ended::new(report.outcome.word(), trouble.as_ref()));
        tell(&job.name, &report, &session.global);
        // A job that never gets everything has old backups like any other.
        if report.outcome != RunOutcome::Failed && job.prune == PruneWhen::AfterBackup {
            let (jobs, seen) = committed.entry(&job.vault).or_default();
            jobs.push(job);
            *seen = glance.or(seen.take());
        }
        runs.push(Run {
            job: job.name.clone(),
            outcome: report.outcome,
            backup: report.manifest.as_ref().map(Backup::of),
            errors: report.errors,
            resumed_segments: report.resumed_segments,
            duration_seconds: report.duration_seconds,
        });
    }
    // Once a vault: a sweep is the whole vault's.
    for (name, (jobs, glance)) in committed {
        if let Ok(vault) = &vaults[name] {
            let how = How { dry_run: false, began, after_pause: AfterPause::Stop, glance };
            exit = exit.worse(prune_after(&session, vault, &jobs, &how, &progress, &notices));
        }
    }
    notify::finish(&session.host, &session.settings, notices);
    if session.global.json {
        print_json(&Document { schema_version: 1, runs });
    }
    Ok(exit)
}

/// Where the config gives prunes no schedule of their own, they follow the backups. What this says, it says about the
/// vault, not about the backups, which stand.
fn prune_after(
    session: &Configured,
    vault: &OpenVault,
    jobs: &[&JobSettings],
    how: &How,
    progress: &Terminal,
    notices: &Notices,
) -> Exit {
    if session.host.check_interrupted().is_err() {
        return Exit::DONE;
    }
    let report = prune::prune_jobs(&session.host, vault, &session.settings, jobs, how, progress);
    prune::notice(notices, jobs, &report);
    match report {
        Ok(report) => {
            prune::tell_after("backup", &report, session.settings.timezone, &session.global);
            prune::exit_of(&report)
        }
        // Somebody prunes at this moment: what was to be done is being done.
        Err(error) if error.code() == Code::Locked => Exit::DONE,
        Err(error) => {
            let exit = Exit::of(error.kind());
            let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
            print_error(
                &error.context(format!("{}: what was backed up is good; the prune after it failed", names.join(", "))),
            );
            exit
        }
    }
}

fn exit_of(report: &RunReport) -> Exit {
    match (report.outcome, &report.failure) {
        // The backup stands, and a hook after it failed.
        (RunOutcome::Success, failure) => failure.as_ref().map_or(Exit::DONE, |error| Exit::of(error.kind())),
        (RunOutcome::Partial, _) => Exit::of(Kind::Partial),
        (RunOutcome::Failed, failure) => Exit::of(failure.as_ref().map_or(Kind::Failed, Error::kind)),
    }
}

/// Silent in cron unless something is wrong; a line or two on a terminal, or where `-v` asks for it.
fn tell(job: &JobName, report: &RunReport, global: &Global) {
    use std::io::IsTerminal;
    let wrong = report.outcome != RunOutcome::Success || !report.errors.is_empty();
    let talk = global.verbose > 0 || std::io::stderr().is_terminal();
    if !wrong && (global.quiet || !talk) {
        return;
    }
    let took = human_seconds(report.duration_seconds);
    match (&report.manifest, report.outcome) {
        (Some(manifest), outcome) => {
            let verdict = if outcome == RunOutcome::Partial { PARTIAL } else { "complete" };
            say(&format!(
                "{job}: backup {} in {took}, {verdict}; {} of data, {} new in the vault",
                manifest.id,
                human_bytes(manifest.total(|s| s.logical_bytes)),
                human_bytes(manifest.total(|s| s.new_bytes)),
            ));
        }
        (None, _) => say(&format!("{job}: FAILED after {took}; nothing was committed, earlier backups are untouched")),
    }
    if report.resumed_segments > 0 {
        say(&format!("  {} segments were taken over from a run that broke off", report.resumed_segments));
    }
    if let Some(failure) = &report.failure {
        print_error(failure);
    }
    let message = report.failure.as_ref().map(ToString::to_string);
    for error in report.errors.iter().filter(|error| message.as_ref() != Some(error)) {
        say(&format!("  {error}"));
    }
    if report.outcome == RunOutcome::Partial {
        say(&format!(
            " hint: `lifeboat show {job}` counts what is missing; see that lifeboat may read it, and run it again"
        ));
    }
    for class in [NoteClass::Changed, NoteClass::Vanished, NoteClass::Skipped] {
        let notes: Vec<_> = report.remarks.iter().filter(|note| note.class == class).collect();
        if let Some(first) = notes.first() {
            let what = match class {
                NoteClass::Changed => "changed while they were read",
                NoteClass::Vanished => "vanished before they were read",
                NoteClass::Skipped | NoteClass::Unreadable => "left out",
            };
            say(&format!("  {} {what}: {} ({})", notes.len(), first.path.display(), first.detail));
        }
    }
}
