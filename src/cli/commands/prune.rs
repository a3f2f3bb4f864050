//! `prune` and `quarantine`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::config::{JobSettings, Settings};
use crate::domain::ids::{BackupId, JobName};
use crate::domain::quantity::human_bytes;
use crate::domain::retention::{Decision, Fate};
use crate::error::{Code, Error, Kind, Result};
use crate::observe::Progress;
use crate::operations::host::Host;
use crate::operations::prune::{BackupFacts, JobPrune, PruneReport, PruneRequest, prune as prune_vault};
use crate::operations::quarantine::quarantine as quarantine_backup;
use crate::operations::vaults::OpenVault;

use super::super::Exit;
use super::super::args::{Global, PruneArgs, QuarantineArgs};
use super::super::output::{counted, print, print_error, print_json, say};
use super::super::session::Session;

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    dry_run: bool,
    deleted_backups: usize,
    deleted: Vec<Backup>,
    kept: Vec<Backup>,
    condemned_objects: u64,
    waiting_objects: u64,
    deleted_objects: u64,
    deleted_bytes: u64,
    clean_through: Option<DateTime<Utc>>,
    stopped_by: Vec<Stop>,
    held_until: Option<DateTime<Utc>>,
    breached: Vec<BackupId>,
    unknown_jobs: Vec<JobName>,
}

#[derive(Serialize)]
struct Backup {
    id: BackupId,
    job: JobName,
    recovery_point: Option<DateTime<Utc>>,
    reasons: Vec<String>,
    planned_expiry: Option<DateTime<Utc>>,
    deadline: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
struct Stop {
    reason: String,
    hint: String,
}

pub(in super::super) fn prune(session: Session, args: &PruneArgs) -> Result<Exit> {
    let session = session.configured()?;
    let jobs = session.jobs(&args.jobs)?;
    let vaults = session.vaults(&jobs);
    let progress = session.progress();
    let mut exit = Exit::DONE;
    let mut reports = Vec::new();
    for (name, vault) in &vaults {
        let of_vault: Vec<&JobSettings> = jobs.iter().filter(|job| job.vault == *name).copied().collect();
        let report = match vault {
            Ok(vault) => prune_jobs(&session.host, vault, &session.settings, &of_vault, args.dry_run, &progress),
            Err(error) => Err(error.clone()),
        };
        match report {
            Ok(report) => {
                exit = exit.worse(exit_of(&report));
                reports.push(report);
            }
            Err(error) => {
                print_error(&error);
                exit = exit.worse(Exit::of(error.kind()));
            }
        }
    }
    if session.global.json {
        print_json(&document(reports, args.dry_run));
    } else {
        let all = args.dry_run || session.global.verbose > 0;
        for report in &reports {
            tell(report, session.settings.timezone, all, session.global.quiet, &print);
        }
    }
    Ok(exit)
}

/// Prunes some of a vault's jobs by the rules of the config.
pub(super) fn prune_jobs(
    host: &Host,
    vault: &OpenVault,
    settings: &Settings,
    jobs: &[&JobSettings],
    dry_run: bool,
    progress: &dyn Progress,
) -> Result<PruneReport> {
    let now = host.clock.now();
    let of_vault = settings.jobs.values().filter(|job| job.vault == vault.settings.name);
    let request = PruneRequest {
        jobs: jobs.iter().map(|job| (*job, settings.lead_of(job, now))).collect(),
        zone: settings.timezone,
        grace: settings.grace_of(&vault.settings),
        delete_after: of_vault.map(|job| (job.name.clone(), job.retention.delete_after)).collect::<BTreeMap<_, _>>(),
        dry_run,
    };
    prune_vault(host, vault, &request, progress)
}

pub(super) fn exit_of(report: &PruneReport) -> Exit {
    if !report.stops.is_empty() {
        Exit::of(Code::DeletionStopped.kind())
    } else if report.jobs.iter().any(|job| !job.breached.is_empty()) {
        Exit::of(Kind::ErasureBreached)
    } else {
        Exit::DONE
    }
}

fn document(reports: Vec<PruneReport>, dry_run: bool) -> Document {
    let mut document = Document {
        schema_version: 1,
        dry_run,
        deleted_backups: 0,
        deleted: Vec::new(),
        kept: Vec::new(),
        condemned_objects: 0,
        waiting_objects: 0,
        deleted_objects: 0,
        deleted_bytes: 0,
        clean_through: reports.iter().map(|report| report.clean_through).min().flatten(),
        stopped_by: Vec::new(),
        held_until: None,
        breached: Vec::new(),
        unknown_jobs: Vec::new(),
    };
    for report in reports {
        document.deleted_backups += report.deleted_backups();
        // What something stopped is still there, whatever the plan was.
        let goes = report.removed || report.dry_run;
        document.condemned_objects += report.condemned_objects;
        document.waiting_objects += report.waiting_objects;
        document.deleted_objects += report.deleted_objects;
        document.deleted_bytes += report.deleted_bytes;
        document.held_until = document.held_until.max(report.held_until);
        document.stopped_by.extend(report.stops.into_iter().map(|(reason, hint)| Stop { reason, hint }));
        document.unknown_jobs.extend(report.unknown_jobs);
        for job in report.jobs {
            document.deleted.extend(job.released.iter().filter(|_| goes).map(|id| Backup {
                id: id.clone(),
                job: job.job.clone(),
                recovery_point: None,
                reasons: vec!["its quarantine is over".to_owned()],
                planned_expiry: None,
                deadline: None,
            }));
            for (facts, decision) in job.decisions {
                let to = match &decision.fate {
                    Fate::Delete(_) if goes => &mut document.deleted,
                    Fate::Keep(_) | Fate::Delete(_) => &mut document.kept,
                };
                to.push(Backup {
                    id: facts.id,
                    job: job.job.clone(),
                    recovery_point: Some(facts.recovery_point),
                    reasons: reasons(&decision),
                    planned_expiry: Some(decision.planned_expiry),
                    deadline: Some(decision.deadline),
                });
            }
            document.breached.extend(job.breached);
        }
    }
    document
}

fn reasons(decision: &Decision) -> Vec<String> {
    match &decision.fate {
        Fate::Keep(reasons) => reasons.iter().map(ToString::to_string).collect(),
        Fate::Delete(reason) => vec![reason.to_string()],
    }
}

/// After a backup: silent in cron unless something is wrong, a line or two where `-v` asks for it.
pub(super) fn tell_after_backup(report: &PruneReport, zone: Tz, global: &Global) {
    if exit_of(report) != Exit::DONE || global.verbose > 0 {
        // stdout is the backup's.
        tell(report, zone, false, global.verbose == 0, &say);
    }
}

/// What was done, or would be, `line` by line; what is wrong goes to stderr. `all` names the backups that stay as well.
fn tell(report: &PruneReport, zone: Tz, all: bool, quiet: bool, line: &dyn Fn(&str)) {
    let stopped = !report.stops.is_empty();
    if stopped {
        print_error(
            &Error::new(
                Code::DeletionStopped,
                format!(
                    "nothing {} deleted: {} in the vault cannot be believed, or cannot be read",
                    if report.dry_run { "would be" } else { "was" },
                    counted(report.stops.len() as u64, "thing")
                ),
            )
            .with_hint("what it names might be needed: for each of these do what stands below it, then prune again"),
        );
        for (reason, hint) in &report.stops {
            say(&format!("  {reason}\n    {hint}"));
        }
    }
    for job in &report.jobs {
        tell_job(job, zone, report, all, line);
    }
    for job in report.jobs.iter().filter(|job| !job.breached.is_empty()) {
        let ids: Vec<&str> = job.breached.iter().map(BackupId::as_str).collect();
        print_error(
            &Error::new(
                Code::ErasureBreached,
                format!("{}: older than `delete_after` and still there: backup {}", job.job, ids.join(", ")),
            )
            .with_hint(format!(
                "it is the last good one, and `last_good = \"keep\"` holds it: run `lifeboat backup {}`, then prune \
                 again; or let it go with `last_good = \"erase\"`",
                job.job
            )),
        );
    }
    for job in &report.unknown_jobs {
        say(&format!(
            "warning: the vault has backups of job {job}, which is not in this config: nothing here erases them"
        ));
    }
    if let Some(until) = report.held_until {
        say(&format!(
            "warning: a claim in the vault cannot be understood; nothing is swept until {}",
            until.with_timezone(&zone).format("%Y-%m-%d %H:%M %Z")
        ));
    }
    if !quiet && !report.dry_run && !stopped {
        let waiting = match report.waiting_objects {
            0 => String::new(),
            n => format!("; {} that nothing names wait for the grace period", counted(n, "object")),
        };
        say(&format!(
            "erased {} with {}{waiting}",
            counted(report.deleted_objects, "object"),
            human_bytes(report.deleted_bytes)
        ));
    }
}

fn tell_job(job: &JobPrune, zone: Tz, report: &PruneReport, all: bool, line: &dyn Fn(&str)) {
    let verb = if report.removed { "removed" } else { "would go" };
    let local = |facts: &BackupFacts| facts.recovery_point.with_timezone(&zone).format("%Y-%m-%d %H:%M").to_string();
    let deleted = job.deleted().count();
    line(&format!("{}: {}, {deleted} {verb}", job.job, counted(job.decisions.len() as u64, "backup")));
    for (facts, decision) in &job.decisions {
        let (fate, shown) = match decision.fate {
            Fate::Keep(_) => ("stays", all),
            Fate::Delete(_) => (verb, true),
        };
        if shown {
            line(&format!("  {} of {}  {fate}: {}", facts.id, local(facts), reasons(decision).join("; ")));
        }
    }
    for id in &job.released {
        line(&format!("  {id}  {verb}: its quarantine is over"));
    }
}

pub(in super::super) fn quarantine(session: Session, args: &QuarantineArgs) -> Result<Exit> {
    let (json, quiet) = (session.global.json, session.global.quiet);
    let reading = session.reading()?;
    let found = quarantine_backup(&reading.host, &reading.vault, &args.what)?;
    if json {
        print_json(&serde_json::json!({
            "schema_version": 1, "job": found.job, "backup": found.backup, "reason": found.reason,
        }));
    } else if !quiet {
        let what = found.backup.map_or_else(|| "the missing numbers".to_owned(), |id| format!("backup {id}"));
        say(&format!(
            "{what} of job {} quarantined: {}; it holds up nothing any more, and what can still be read of it is kept until \
             `delete_after`",
            found.job, found.reason
        ));
    }
    Ok(Exit::DONE)
}
