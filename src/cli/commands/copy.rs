//! `copy`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::config::{CopySettings, JobSettings};
use crate::domain::ids::{BackupId, JobName};
use crate::domain::operation::{Operation, Task};
use crate::domain::quantity::{human_bytes, human_seconds};
use crate::domain::record::CopyOutcome;
use crate::error::{Code, Error, Kind, Result};
use crate::operations::copy::{self, CopyReport, CopyRequest, could_not_begin, open_copy};
use crate::operations::notices::{Ended, Notices, new_run};
use crate::operations::prune::AfterPause;
use crate::operations::vaults::OpenVault;
use crate::operations::verdicts;

use super::super::Exit;
use super::super::args::{CopyArgs, Global};
use super::super::output::{counted, print_error, print_json, say};
use super::super::session::{Configured, Session};
use super::notify;
use super::prune::{self, How};

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    copies: Vec<Copy>,
}

#[derive(Serialize)]
struct Copy {
    job: JobName,
    from: String,
    to: String,
    outcome: CopyOutcome,
    copied: Vec<BackupId>,
    backups: u64,
    newest: Option<BackupId>,
    recovery_point: Option<DateTime<Utc>>,
    new_objects: u64,
    new_bytes: u64,
    vanished: Vec<BackupId>,
    left: Vec<Left>,
    errors: Vec<String>,
    duration_seconds: f64,
}

#[derive(Serialize)]
struct Left {
    backup: Option<BackupId>,
    reason: String,
    code: &'static str,
    hint: String,
}

pub(in super::super) fn copy(session: Session, args: &CopyArgs) -> Result<Exit> {
    let began = session.host.clock.now();
    let session = session.configured()?;
    let jobs = meant(&session, args)?;
    let own: Vec<&JobSettings> = jobs.iter().map(|(job, _)| *job).collect();
    let sources = session.vaults(&own);
    let progress = session.progress();
    let notices = Notices::beside(&session.host, &session.settings);
    // What was wrong with each, if something was.
    let mut troubles: BTreeMap<&JobName, Option<Error>> = BTreeMap::new();
    let (mut exit, mut copies) = (Exit::DONE, Vec::new());
    let mut pruned: Vec<(OpenVault, Vec<&JobSettings>)> = Vec::new();
    for (job, settings) in &jobs {
        // What a signal kept from being tried was not done.
        if let Err(error) = session.host.check_interrupted() {
            print_error(&error.context(format!("{} was not begun", job.name)));
            exit = exit.worse(Exit::of(Kind::Interrupted));
            break;
        }
        let source = match &sources[&job.vault] {
            Ok(source) => source,
            Err(error) => {
                print_error(error);
                exit = exit.worse(Exit::of(error.kind()));
                troubles.insert(&job.name, Some(error.clone()));
                continue;
            }
        };
        let to = &session.settings.vaults[&settings.to];
        let report = match open_copy(&session.host, source, to) {
            Ok(opened) => {
                let lead = session.settings.lead_in_copy(job, to, session.host.clock.now());
                let request = CopyRequest { job, lead, zone: session.settings.timezone };
                let report = copy::copy(&session.host, source, &opened, &request, &progress);
                if settings.prune && report.as_ref().is_ok_and(|report| report.failure.is_none()) {
                    match pruned.iter_mut().find(|(vault, _)| vault.settings.name == to.name) {
                        Some((_, jobs)) => jobs.push(job),
                        None => pruned.push((opened, vec![job])),
                    }
                }
                report
            }
            Err(error) => {
                could_not_begin(&session.host, source, job, &to.name, began, &error, &progress);
                Err(error)
            }
        };
        let trouble = match &report {
            Ok(report) => verdicts::of_copy(report),
            Err(error) => Some(error.clone()),
        };
        troubles.insert(&job.name, trouble);
        match report {
            Ok(report) => {
                exit = exit.worse(exit_of(&report));
                tell(job, settings, &report, &session.global);
                copies.push(document(job, report));
            }
            Err(error) => {
                exit = exit.worse(Exit::of(error.kind()));
                print_error(&error.context(format!("{}: nothing was copied", job.name)));
            }
        }
    }
    for (vault, jobs) in &pruned {
        let (pruned, trouble) = prune_after(&session, vault, jobs, began);
        exit = exit.worse(pruned);
        // The job's own prunes are another matter: this one is the copy's.
        for job in jobs {
            if let Some(none) = troubles.get_mut(&job.name).filter(|known| known.is_none()) {
                none.clone_from(&trouble);
            }
        }
    }
    for (job, trouble) in troubles {
        let task = Task { job: job.clone(), operation: Operation::Copy };
        let outcome = if trouble.is_some() { "failed" } else { "success" };
        notices.ended(&task, &new_run(), &Ended::new(outcome, trouble.as_ref()));
    }
    notify::finish(&session.host, &session.settings, notices);
    if session.global.json {
        print_json(&Document { schema_version: 1, copies });
    }
    Ok(exit)
}

/// The jobs that are meant, each with its copy.
fn meant<'a>(session: &'a Configured, args: &CopyArgs) -> Result<Vec<(&'a JobSettings, &'a CopySettings)>> {
    if let Some(name) = args.to.as_ref().filter(|name| !session.settings.vaults.contains_key(*name)) {
        let known: Vec<&str> = session.settings.vaults.keys().map(String::as_str).collect();
        return Err(Error::new(Code::NotFound, format!("the config has no vault {name:?}")).with_hint(format!(
            "it has: {}; a new one is a [vault.{name}] with `url` and `recipients`",
            known.join(", ")
        )));
    }
    let fits = |copy: &&CopySettings| args.to.as_ref().is_none_or(|to| copy.to == *to);
    let mut meant = Vec::new();
    for job in session.jobs(&args.jobs)? {
        match job.copy.as_ref().filter(fits) {
            Some(copy) => meant.push((job, copy)),
            None if args.jobs.is_empty() => {}
            None => {
                let to = args.to.as_deref().unwrap_or("offsite");
                return Err(Error::new(Code::NotFound, format!("job {} is not copied to {to}", job.name))
                    .with_hint(format!("write [job.{}.copy] with to = \"{to}\" into the config", job.name)));
            }
        }
    }
    if meant.is_empty() {
        let to = args.to.as_deref().unwrap_or("offsite");
        return Err(Error::new(Code::NotFound, "no job of the config is copied there")
            .with_hint(format!("write [job.NAME.copy] with to = \"{to}\" into the config")));
    }
    Ok(meant)
}

/// Erases in the copy what has expired: `delete_after` holds there as well.
fn prune_after(
    session: &Configured,
    vault: &OpenVault,
    jobs: &[&JobSettings],
    began: DateTime<Utc>,
) -> (Exit, Option<Error>) {
    if session.host.check_interrupted().is_err() {
        return (Exit::DONE, None);
    }
    let how = How { dry_run: false, began, after_pause: AfterPause::Stop, glance: None };
    match prune::prune_jobs(&session.host, vault, &session.settings, jobs, &how, &session.progress()) {
        Ok(report) => {
            prune::tell_after("copy", &report, session.settings.timezone, &session.global);
            (prune::exit_of(&report), verdicts::of_prune(&report))
        }
        // Somebody prunes at this moment: what was to be done is being done.
        Err(error) if error.code() == Code::Locked => (Exit::DONE, None),
        Err(error) => {
            let exit = Exit::of(error.kind());
            print_error(
                &error
                    .clone()
                    .context(format!("{}: what was copied is good; the prune after it failed", vault.settings.name)),
            );
            (exit, Some(error))
        }
    }
}

fn exit_of(report: &CopyReport) -> Exit {
    let failed = report.failure.iter().map(Error::kind);
    let left = report.left.iter().map(|left| left.code.kind());
    failed.chain(left).fold(Exit::DONE, |exit, kind| exit.worse(Exit::of(kind)))
}

/// Silent in cron unless something is wrong; a line on a terminal, or where `-v` asks for it.
fn tell(job: &JobSettings, settings: &CopySettings, report: &CopyReport, global: &Global) {
    use std::io::IsTerminal;
    let talk = !global.quiet && (global.verbose > 0 || std::io::stderr().is_terminal());
    let (name, to, record) = (&job.name, &settings.to, &report.record);
    let wrong = report.failure.is_some() || !report.left.is_empty();
    if talk || wrong {
        let took = human_seconds(record.duration_seconds);
        let what = match report.copied.len() as u64 {
            0 if report.failure.is_none() && report.left.is_empty() => "nothing was missing".to_owned(),
            copied => format!(
                "{} copied, {} with {} sent",
                counted(copied, "backup"),
                counted(record.new_objects, "object"),
                human_bytes(record.new_bytes)
            ),
        };
        say(&format!("{name} to {to}: {what} in {took}; {} there", counted(record.backups, "backup")));
    }
    if talk && !report.vanished.is_empty() {
        let what = counted(report.vanished.len() as u64, "backup");
        say(&format!("  {what} were removed from the source meanwhile, and are not copied"));
    }
    for left in &report.left {
        print_error(&Error::new(left.code, &left.what).with_hint(&left.hint));
    }
    if let Some(failure) = &report.failure {
        print_error(failure);
    }
}

fn document(job: &JobSettings, report: CopyReport) -> Copy {
    let record = report.record;
    Copy {
        job: job.name.clone(),
        from: job.vault.clone(),
        to: record.to,
        outcome: record.outcome,
        copied: report.copied,
        backups: record.backups,
        newest: record.backup,
        recovery_point: record.recovery_point,
        new_objects: record.new_objects,
        new_bytes: record.new_bytes,
        vanished: report.vanished,
        left: report
            .left
            .into_iter()
            .map(|left| Left { backup: left.backup, reason: left.what, code: left.code.name(), hint: left.hint })
            .collect(),
        errors: report.failure.iter().map(ToString::to_string).collect(),
        duration_seconds: record.duration_seconds,
    }
}
