//! `prune` and `quarantine`.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::config::{JobSettings, Settings};
use crate::domain::ids::{BackupId, JobName};
use crate::domain::operation::{Operation, Task};
use crate::domain::quantity::human_bytes;
use crate::domain::retention::{Decision, Fate};
use crate::error::{Code, Error, Kind, Result};
use crate::observe::Progress;
use crate::operations::host::Host;
use crate::operations::notices::{Ended, Notices, new_run};
use crate::operations::prune::{
    AfterPause, BackupFacts, HeldBy, JobPrune, PruneReport, PruneRequest, prune as prune_vault,
};
use crate::operations::quarantine::quarantine as quarantine_backup;
use crate::operations::vaults::OpenVault;
use crate::operations::verdicts;
use crate::vault::glance::Glance;

use super::super::Exit;
use super::super::args::{Global, PruneArgs, QuarantineArgs};
use super::super::output::{counted, print, print_error, print_json, say};
use super::super::session::Session;
use super::notify;

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
    unswept: Vec<BackupId>,
    left_objects: u64,
    /// Held by the store against deletion, and until when the last of it is.
    locked_objects: u64,
    locked_until: Option<DateTime<Utc>>,
    held_objects: u64,
    claims: Vec<Claim>,
    failures: Vec<String>,
}

#[derive(Serialize)]
struct Claim {
    job: JobName,
    host: String,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    odd: Option<&'static str>,
}

#[derive(Serialize)]
struct Backup {
    id: BackupId,
    job: JobName,
    recovery_point: Option<DateTime<Utc>>,
    reasons: Vec<String>,
    planned_expiry: Option<DateTime<Utc>>,
    deadline: Option<DateTime<Utc>>,
    /// Until when the vault holds it, although it is to go.
    locked_until: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
struct Stop {
    reason: String,
    hint: String,
}

pub(in super::super) fn prune(session: Session, args: &PruneArgs) -> Result<Exit> {
    let began = session.host.clock.now();
    let session = session.configured()?;
    let jobs = session.jobs(&args.jobs)?;
    let how = How {
        dry_run: args.dry_run,
        began,
        after_pause: if args.after_pause { AfterPause::GoOn } else { AfterPause::Stop },
        glance: None,
    };
    let vaults = session.places(&jobs)?;
    let notices = Notices::beside(&session.host, &session.settings);
    let progress = session.progress();
    let mut exit = Exit::DONE;
    let mut reports = Vec::new();
    for (name, vault) in &vaults {
        let of_vault: Vec<&JobSettings> =
            jobs.iter().filter(|job| session.place_of(job).is_ok_and(|place| place.name == *name)).copied().collect();
        let report = match vault {
            Ok(vault) => prune_jobs(&session.host, vault, &session.settings, &of_vault, &how, &progress),
            Err(error) => Err(error.clone()),
        };
        if !args.dry_run {
            notice(&notices, &of_vault, &report);
        }
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
    notify::finish(&session.host, &session.settings, notices);
    Ok(exit)
}

/// Tells how a prune of these jobs ended.
pub(super) fn notice(notices: &Notices, jobs: &[&JobSettings], report: &Result<PruneReport>) {
    let trouble = match report {
        Ok(report) => verdicts::of_prune(report),
        Err(error) => Some(error.clone()),
    };
    let outcome = if trouble.is_some() { "failed" } else { "success" };
    for job in jobs {
        let task = Task { job: job.name.clone(), operation: Operation::Prune };
        notices.ended(&task, &new_run(), &Ended::new(outcome, trouble.as_ref()));
    }
}

/// How a command prunes.
pub(super) struct How {
    pub(super) dry_run: bool,
    /// When the command began.
    pub(super) began: DateTime<Utc>,
    pub(super) after_pause: AfterPause,
    /// What the command saw of the vault shortly before.
    pub(super) glance: Option<Glance>,
}

/// Prunes some of a vault's jobs by the rules of the config.
pub(super) fn prune_jobs(
    host: &Host,
    vault: &OpenVault,
    settings: &Settings,
    jobs: &[&JobSettings],
    how: &How,
    progress: &dyn Progress,
) -> Result<PruneReport> {
    let request = PruneRequest {
        dry_run: how.dry_run,
        after_pause: how.after_pause,
        glance: how.glance.as_ref(),
        ..PruneRequest::by_config(settings, vault, jobs, host.clock.now(), how.began)
    };
    prune_vault(host, vault, &request, progress)
}

pub(super) fn exit_of(report: &PruneReport) -> Exit {
    let mut exit = Exit::DONE;
    if !report.unswept.is_empty() || report.jobs.iter().any(|job| !job.breached.is_empty()) {
        exit = exit.worse(Exit::of(Kind::ErasureBreached));
    }
    if let Some(failure) = report.failures.first() {
        exit = exit.worse(Exit::of(failure.kind()));
    }
    if !report.stops.is_empty() {
        exit = exit.worse(Exit::of(Code::DeletionStopped.kind()));
    }
    exit
}

/// Whether there is something that somebody must hear of, although nothing failed.
fn is_warning(report: &PruneReport) -> bool {
    !report.unknown_jobs.is_empty()
        || report.held_until.is_some()
        || report.left_objects > 0
        || report.claims.iter().any(|claim| claim.odd.is_some())
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
        unswept: Vec::new(),
        left_objects: 0,
        locked_objects: 0,
        locked_until: None,
        held_objects: 0,
        claims: Vec::new(),
        failures: Vec::new(),
    };
    for report in reports {
        document.deleted_backups += report.deleted_backups();
        // What something stopped is still there, whatever the plan was.
        let gone = report.removed;
        let goes = |job: &JobName, id: &BackupId| report.dry_run || gone.contains(&(job.clone(), id.clone()));
        let released = |job: &JobName, id: &BackupId| Backup {
            id: id.clone(),
            job: job.clone(),
            recovery_point: None,
            reasons: vec!["its quarantine is over".to_owned()],
            locked_until: None,
            planned_expiry: None,
            deadline: None,
        };
        let elsewhere = report.released.iter().filter(|(job, id)| goes(job, id));
        document.deleted.extend(elsewhere.map(|(job, id)| released(job, id)));
        document.unswept.extend(report.unswept.into_iter().map(|(_, id)| id));
        document.left_objects += report.left_objects;
        document.held_objects += report.held_objects;
        document.locked_objects += report.locked_objects;
        document.locked_until = document.locked_until.max(report.locked_until);
        document.claims.extend(report.claims.into_iter().map(|HeldBy { job, host, since, until, odd }| Claim {
            job,
            host,
            since,
            until,
            odd,
        }));
        document.failures.extend(report.failures.iter().map(ToString::to_string));
        document.condemned_objects += report.condemned_objects;
        document.waiting_objects += report.waiting_objects;
        document.deleted_objects += report.deleted_objects;
        document.deleted_bytes += report.deleted_bytes;
        document.held_until = document.held_until.max(report.held_until);
        document.stopped_by.extend(report.stops.into_iter().map(|(reason, hint)| Stop { reason, hint }));
        document.unknown_jobs.extend(report.unknown_jobs);
        for job in report.jobs {
            let over = job.released.iter().filter(|id| goes(&job.job, id));
            document.deleted.extend(over.map(|id| released(&job.job, id)));
            for (facts, decision) in job.decisions {
                let locked = job.locked.get(&facts.id).copied();
                let to = match &decision.fate {
                    Fate::Delete(_) if locked.is_none() && goes(&job.job, &facts.id) => &mut document.deleted,
                    Fate::Keep(_) | Fate::Delete(_) => &mut document.kept,
                };
                to.push(Backup {
                    id: facts.id,
                    job: job.job.clone(),
                    recovery_point: Some(facts.recovery_point),
                    reasons: reasons(&decision),
                    locked_until: locked,
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

/// After a backup or a copy: silent in cron unless something is wrong, a line or two where `-v` asks for it.
pub(super) fn tell_after(what: &str, report: &PruneReport, zone: Tz, global: &Global) {
    if exit_of(report) != Exit::DONE || global.verbose > 0 {
        if !report.stops.is_empty() {
            let jobs: Vec<&str> = report.jobs.iter().map(|job| job.job.as_str()).collect();
            say(&format!("{}: the {what} is good, and the prune after it was stopped", jobs.join(", ")));
        }
        // stdout is the other's.
        tell(report, zone, false, global.verbose == 0, &say);
    } else if is_warning(report) {
        tell_wrong(report, zone);
    }
}

/// What was done, or would be, `line` by line; what is wrong goes to stderr. `all` names the backups that stay as well.
fn tell(report: &PruneReport, zone: Tz, all: bool, quiet: bool, line: &dyn Fn(&str)) {
    let stopped = !report.stops.is_empty();
    for job in report.jobs.iter().filter(|_| !(stopped && quiet)) {
        tell_job(job, zone, report, all, line);
    }
    for (job, id) in report.released.iter().filter(|(job, id)| report.goes(job, id)) {
        let verb = if report.dry_run { "would go" } else { "removed" };
        line(&format!("{job}:\n  {id}  {verb}: its quarantine is over"));
    }
    tell_wrong(report, zone);
    if !quiet && !report.dry_run && report.stops.is_empty() && report.failures.is_empty() {
        let waiting = match report.waiting_objects {
            0 => String::new(),
            n => format!("; {} that nothing names wait for the grace period", counted(n, "object")),
        };
        say(&format!(
            "erased {} with {}{waiting}",
            counted(report.deleted_objects, "object"),
            human_bytes(report.deleted_bytes)
        ));
        if report.locked_objects > 0 {
            let until = report.locked_until.map(|until| format!(", the last until {}", local_time(until, zone)));
            say(&format!(
                "{} of these are held by the vault against deletion{}; a later prune erases them",
                counted(report.locked_objects, "object"),
                until.unwrap_or_default()
            ));
        }
        if report.held_objects > 0 {
            let who: Vec<String> = report.claims.iter().map(|by| format!("{} of {}", by.job, by.host)).collect();
            say(&format!(
                "{} that no backup names may be needed by a run that is under way: {}",
                counted(report.held_objects, "object"),
                who.join(", ")
            ));
        }
    }
}

/// What stopped it, what failed, and what is overdue or odd.
fn tell_wrong(report: &PruneReport, zone: Tz) {
    if !report.stops.is_empty() {
        let stand = match report.stops.len() {
            1 => "1 thing stands".to_owned(),
            n => format!("{n} things stand"),
        };
        let what = match (report.removed.len() as u64, report.dry_run) {
            (_, true) => format!("nothing would be deleted: {stand} in the way"),
            (0, false) => format!("nothing was deleted: {stand} in the way"),
            (n, false) => {
                format!("{} taken out, and then nothing was erased: {stand} in the way", counted(n, "backup"))
            }
        };
        print_error(&Error::new(Code::DeletionStopped, what).with_hint(
            "what is deleted is gone for good: for each of these do what stands below it, then prune again",
        ));
        for (reason, hint) in &report.stops {
            say(&format!("  {reason}\n    {hint}"));
        }
    }
    report.failures.iter().for_each(print_error);
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
    if let Some((job, _)) = report.unswept.first() {
        let ids: Vec<&str> = report.unswept.iter().map(|(_, id)| id.as_str()).collect();
        print_error(
            &Error::new(
                Code::ErasureBreached,
                format!(
                    "removed, older than `delete_after`, and not erased to the last byte: backup {}",
                    ids.join(", ")
                ),
            )
            .with_hint(format!(
                "run `lifeboat prune {job} -v` once the grace period is over; it says what is in the way"
            )),
        );
    }
    for claim in report.claims.iter().filter(|claim| claim.odd.is_some()) {
        say(&format!(
            "warning: a claim for {} by {:?} holds what was stored since {}: {}; if no such run is under way, remove it from \
             claims/{}/ in the vault",
            claim.job,
            claim.host,
            claim.since.with_timezone(&zone).format("%Y-%m-%d %H:%M %Z"),
            claim.odd.unwrap_or_default(),
            claim.job
        ));
    }
    if report.left_objects > 0 {
        say(&format!(
            "warning: {} were left for the next prune: what was found here may be deleted by for an hour only",
            counted(report.left_objects, "object")
        ));
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
}

fn tell_job(job: &JobPrune, zone: Tz, report: &PruneReport, all: bool, line: &dyn Fn(&str)) {
    let is_gone = |id: &BackupId| report.removed.contains(&(job.job.clone(), id.clone()));
    let verb = |id: &BackupId| if is_gone(id) { "removed" } else { "would go" };
    let local = |facts: &BackupFacts| facts.recovery_point.with_timezone(&zone).format("%Y-%m-%d %H:%M").to_string();
    let planned = job.deleted().count();
    let done = job.deleted().filter(|(facts, _)| is_gone(&facts.id)).count();
    let gone = match (report.dry_run, done) {
        (false, done) if done == planned => format!("{done} removed"),
        (false, done) if done > 0 => format!("{done} removed, {} would go", planned - done),
        _ => format!("{planned} would go"),
    };
    line(&format!("{}: {}, {gone}", job.job, counted(job.decisions.len() as u64, "backup")));
    for (facts, decision) in &job.decisions {
        let locked = job.locked.get(&facts.id);
        let (fate, shown) = match decision.fate {
            Fate::Keep(_) => ("stays", all),
            Fate::Delete(_) if locked.is_some() => ("stays", all || report.dry_run),
            Fate::Delete(_) => (verb(&facts.id), true),
        };
        let held = locked.map(|until| format!("; held by the vault until {}", local_time(*until, zone)));
        if shown {
            let reasons = reasons(decision).join("; ");
            line(&format!("  {} of {}  {fate}: {reasons}{}", facts.id, local(facts), held.unwrap_or_default()));
        }
    }
    for id in &job.released {
        line(&format!("  {id}  {}: its quarantine is over", verb(id)));
    }
}

fn local_time(moment: DateTime<Utc>, zone: Tz) -> String {
    moment.with_timezone(&zone).format("%Y-%m-%d %H:%M %Z").to_string()
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
