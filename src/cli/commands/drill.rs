//! `drill`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::config::{DrillSettings, JobSettings};
use crate::domain::check::Check;
use crate::domain::ids::{BackupId, JobName, RecordId};
use crate::domain::operation::{Operation, Task};
use crate::domain::quantity::{exact_duration, human_seconds};
use crate::domain::record::{DrillGround, DrillOutcome, DrillServer, Phase};
use crate::error::{Code, Error, Kind, Result};
use crate::operations::drill::{self, DrillReport, DrillRequest, Which};
use crate::operations::notices::{Ended, Notices, new_run};
use crate::operations::vaults::OpenVault;
use crate::operations::verdicts;
use crate::vault::reader::Reader;

use super::super::Exit;
use super::super::args::DrillArgs;
use super::super::output::{counted, print, print_error, print_json, say};
use super::super::session::{Configured, IdentitySource, Session};
use super::notify;

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    drills: Vec<Drill>,
}

#[derive(Serialize)]
struct Drill {
    id: RecordId,
    job: JobName,
    backup: Option<BackupId>,
    outcome: DrillOutcome,
    rto_seconds: f64,
    rto_objective_seconds: Option<f64>,
    rto_met: bool,
    rpo_seconds: Option<f64>,
    phases: Vec<Phase>,
    checks: Vec<Check>,
    errors: Vec<String>,
    refutes_backup: bool,
    restored_bytes: u64,
    environment: crate::domain::record::DrillEnvironment,
    kept: Option<PathBuf>,
}

pub(in super::super) fn drill(session: Session, args: &DrillArgs) -> Result<Exit> {
    let session = session.configured()?;
    let jobs = session.jobs(&args.jobs)?;
    let vaults = session.places(&jobs)?;
    let notices = Notices::beside(&session.host, &session.settings);
    let mut exit = Exit::DONE;
    let mut drills = Vec::new();
    for job in jobs {
        // What a signal kept from being tried was not done.
        if let Err(error) = session.host.check_interrupted() {
            print_error(&error.context(format!("{} was not begun", job.name)));
            exit = exit.worse(Exit::of(Kind::Interrupted));
            break;
        }
        let (task, run) = (Task { job: job.name.clone(), operation: Operation::Drill }, new_run());
        notices.began(&task, &run);
        let vault = match &vaults[&session.place_of(job)?.name] {
            Ok(vault) => vault,
            Err(error) => {
                notices.ended(&task, &run, &Ended::new("failed", Some(error)));
                print_error(error);
                exit = exit.worse(Exit::of(error.kind()));
                continue;
            }
        };
        match one(&session, vault, job, args) {
            Ok(report) => {
                exit = exit.worse(exit_of(&report));
                notices.ended(&task, &run, &ended(&report, verdicts::of_drill(&job.name, &report).as_ref()));
                if !session.global.json && !session.global.quiet {
                    tell(job, &report);
                }
                if let Some(error) = verdict(job, &report) {
                    print_error(&error);
                }
                drills.push(document(job, report));
            }
            Err(error) => {
                notices.ended(&task, &run, &Ended::new("failed", Some(&error)));
                print_error(&error);
                exit = exit.worse(Exit::of(error.kind()));
            }
        }
    }
    notify::finish(&session.host, &session.settings, notices);
    if session.global.json {
        print_json(&Document { schema_version: 1, drills });
    }
    Ok(exit)
}

fn ended<'a>(report: &DrillReport, trouble: Option<&'a Error>) -> Ended<'a> {
    let outcome = match report.record.outcome {
        DrillOutcome::Passed => "passed",
        DrillOutcome::Failed => "failed",
    };
    let rto = Some((report.record.rto_seconds, report.record.rto_objective_seconds));
    Ended { rto, ..Ended::new(outcome, trouble) }
}

fn one(session: &Configured, vault: &OpenVault, job: &JobSettings, args: &DrillArgs) -> Result<DrillReport> {
    let settings = job.drill.clone().unwrap_or_else(DrillSettings::without_checks);
    let mut identities = IdentitySource::of(&session.global);
    let reader = match (&settings.identity, identities.files.is_empty()) {
        (Some(secret), true) => {
            identities.files.extend(secret.path());
            session.opener_of(secret)
        }
        // Nobody said what should open the backup: that is a mistake in the command, and no verdict on anything.
        (None, true) => return Err(no_identity(job)),
        (_, false) => identities.opener(),
    }
    .map(|opener| Reader::new(session.host.runtime.clone(), Arc::clone(&vault.storage), Arc::new(opener)));
    let which = match args.backup.as_str() {
        "latest" => Which::Latest,
        "oldest" => Which::Oldest,
        "random" => Which::Random,
        id => Which::Id(id.to_owned()),
    };
    let request = DrillRequest {
        which,
        keep: args.keep,
        identity_files: &identities.files,
        config_file: &session.settings.file,
        settings: &settings,
    };
    drill::drill(&session.host, vault, job, &reader, &request, &session.progress())
}

fn no_identity(job: &JobSettings) -> Error {
    Error::new(Code::NoIdentity, format!("a drill of {} opens a backup, and no identity was given", job.name))
        .with_hint(format!("add --identity FILE, or `identity` to [job.{}.drill] on the host that drills", job.name))
}

fn exit_of(report: &DrillReport) -> Exit {
    match (report.record.outcome, report.record.rto_met) {
        (DrillOutcome::Failed, _) => Exit::of(Kind::DrillFailed),
        // A verdict that is on no record proves nothing to anybody who was not there.
        (DrillOutcome::Passed, _) if !report.recorded => Exit::of(Kind::Failed),
        (DrillOutcome::Passed, false) => Exit::of(Kind::ObjectiveMissed),
        (DrillOutcome::Passed, true) => Exit::DONE,
    }
}

fn document(job: &JobSettings, report: DrillReport) -> Drill {
    let record = report.record;
    Drill {
        id: report.id,
        job: job.name.clone(),
        backup: record.backup,
        outcome: record.outcome,
        rto_seconds: record.rto_seconds,
        rto_objective_seconds: record.rto_objective_seconds,
        rto_met: record.rto_met,
        rpo_seconds: record.rpo_seconds,
        phases: record.phases,
        checks: report.checks,
        errors: report.errors,
        refutes_backup: record.refutes_backup,
        restored_bytes: record.restored_bytes,
        environment: record.environment,
        kept: report.kept,
    }
}

/// An objective as the config says it.
fn promised(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| human_seconds(seconds), exact_duration)
}

/// What a drill that is not good is called, and what to do about it.
fn verdict(job: &JobSettings, report: &DrillReport) -> Option<Error> {
    let name = &job.name;
    if let Some(failure) = &report.failure {
        return Some(failure.clone().context(format!("the drill of {name} failed")));
    }
    let failed = report.record.checks_failed;
    match (report.record.outcome, report.record.rto_met) {
        (DrillOutcome::Failed, _) => Some(
            Error::new(
                Code::DrillFailed,
                format!("the drill of {name} failed: {failed} of {} did not pass", counted(report.checks.len() as u64, "check")),
            )
            .with_hint(match report.record.refutes_backup {
                true => format!(
                    "`lifeboat drill {name} --backup oldest` tells whether older backups are good, and --keep leaves what was restored"
                ),
                false => format!(
                    "what was restored is what was backed up: correct the check, or see by `lifeboat drill {name} --backup oldest` \
                     whether it ever passed; --keep leaves what was restored"
                ),
            }),
        ),
        (DrillOutcome::Passed, false) => Some(
            Error::new(Code::ObjectiveMissed, format!("the drill of {name} passed, but took longer than promised"))
                .with_hint("the line of phases shows where the time went; a faster disk, or a larger `rto`, keeps the promise"),
        ),
        (DrillOutcome::Passed, true) => None,
    }
}

fn server_line(server: &DrillServer) -> String {
    let settings = match (server.ground, server.settings.as_str()) {
        (DrillGround::Existing, _) => "settings of its own",
        (_, "production") => "production settings",
        _ => "drill settings, durability off",
    };
    let called = match server.ground {
        DrillGround::Scratch => "scratch server",
        DrillGround::Container => "scratch server in a container",
        DrillGround::Existing => "existing server",
    };
    let times = match (server.queryable_seconds, server.complete_seconds) {
        (Some(queryable), Some(complete)) => {
            format!("queryable after {}, complete after {}", human_seconds(queryable), human_seconds(complete))
        }
        _ => "never complete".to_owned(),
    };
    format!("{called}: PostgreSQL {} ({settings}), {times}", server.version)
}

fn tell(job: &JobSettings, report: &DrillReport) {
    let record = &report.record;
    let backup = record.backup.as_ref().map_or("no backup".to_owned(), |id| format!("backup {id}"));
    print(&match record.outcome {
        DrillOutcome::Passed => format!("{}: drill {} PASSED with {backup}", job.name, report.id),
        DrillOutcome::Failed => format!("{}: drill {} FAILED with {backup}", job.name, report.id),
    });
    for check in &report.checks {
        let mark = if check.passed { "ok  " } else { "FAIL" };
        print(&match check.passed {
            true => format!("  {mark} {}: {}", check.name, check.actual),
            false => format!("  {mark} {}: expected {}, got {}", check.name, check.expected, check.actual),
        });
    }
    let phases: Vec<String> =
        record.phases.iter().map(|phase| format!("{} {}", phase.name, human_seconds(phase.seconds))).collect();
    print(&format!("  phases: {}", phases.join(", ")));
    for server in &record.environment.servers {
        print(&format!("  {}", server_line(server)));
    }
    let objective = match (record.rto_objective_seconds, record.rto_met) {
        (None, _) => "no objective is set".to_owned(),
        (Some(objective), true) => format!("objective {}, met", promised(objective)),
        (Some(objective), false) => format!("objective {}, NOT MET", promised(objective)),
    };
    print(&match record.outcome {
        DrillOutcome::Passed => format!("  RTO measured: {} ({objective})", human_seconds(record.rto_seconds)),
        DrillOutcome::Failed => "  RTO measured: none, the drill failed".to_owned(),
    });
    if let Some(rpo) = record.rpo_seconds {
        let objective = match job.objectives.rpo {
            Some(objective) if rpo <= objective.as_secs_f64() => {
                format!(" (objective {})", exact_duration(objective))
            }
            Some(objective) => format!(" (objective {}, EXCEEDED)", exact_duration(objective)),
            None => String::new(),
        };
        print(&format!("  RPO at that moment: {}{objective}", human_seconds(rpo)));
    }
    let failure = report.failure.as_ref().map(ToString::to_string).unwrap_or_default();
    // The failure and the checks that did not pass are told already.
    let told = |error: &str| {
        (!failure.is_empty() && error.starts_with(&failure))
            || report.checks.iter().any(|check| !check.passed && error.starts_with(&check.name))
    };
    for error in report.errors.iter().filter(|error| !told(error)) {
        print(&format!("  error: {error}"));
    }
    for remark in &report.remarks {
        say(&format!("  note: {remark}"));
    }
    if let Some(path) = &report.kept {
        say(&format!("  the restored copy is left in {}: remove it when you are done", path.display()));
    }
}
