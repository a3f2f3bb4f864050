//! `schedule list`, `schedule cron`, `schedule systemd`.

use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::config::Settings;
use crate::domain::ids::JobName;
use crate::domain::operation::Operation;
use crate::domain::quantity::exact_duration;
use crate::domain::schedule::{clock_changes, offset_seconds};
use crate::error::{Code, Error, Kind, Result};
use crate::schedules::crontab::{Clock, crontab};
use crate::schedules::units::{self, Unit};
use crate::schedules::{Call, Due, Identity, Wanted, drills_elsewhere, due, handed_in};

use super::super::Exit;
use super::super::args::ScheduleCommand;
use super::super::output::{columns, print, print_json, say};
use super::super::session::{IdentitySource, Session, jobs as jobs_named};

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    timezone: &'static str,
    jitter_seconds: f64,
    schedules: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    job: JobName,
    operation: Operation,
    schedule: String,
    next: Vec<Moment>,
}

#[derive(Serialize)]
struct Moment {
    at: DateTime<Utc>,
    local: String,
}

pub(in super::super) fn schedule(session: &Session, command: &ScheduleCommand) -> Result<Exit> {
    let settings = Settings::load(session.global.config.as_deref())?;
    let (ScheduleCommand::List { jobs, .. }
    | ScheduleCommand::Cron { jobs, .. }
    | ScheduleCommand::Systemd { jobs, .. }) = command;
    let jobs = jobs_named(&settings, jobs)?;
    let wanted = match command {
        ScheduleCommand::List { .. } => Wanted::everything(),
        ScheduleCommand::Cron { only, .. } | ScheduleCommand::Systemd { only, .. } => wanted(session, only),
    };
    let due = due(jobs.iter().copied(), &wanted);
    for job in drills_elsewhere(jobs.iter().copied(), &wanted) {
        say(&format!(
            "note: the drill of {} is left to a host that has an identity: none is named in its config here",
            job.name
        ));
    }
    let now = session.host.clock.now();
    match command {
        ScheduleCommand::List { next, .. } => {
            list(session, &settings, &due, usize::from(*next), now);
            Ok(Exit::DONE)
        }
        ScheduleCommand::Cron { clock, .. } => print_crontab(&settings, &due, clock.as_deref(), now),
        ScheduleCommand::Systemd { daemon, to, .. } => {
            let call = call(now)?;
            let units = match daemon {
                true => vec![units::daemon(&settings, &due, &call)],
                false => units::timers(&settings, &due, &call),
            };
            print_units(&settings, &due, &units, to.as_deref())
        }
    }
}

/// What this host does of the schedules of its config.
pub(super) fn wanted(session: &Session, only: &[Operation]) -> Wanted {
    let has_files = !IdentitySource::of(&session.global).files.is_empty();
    Wanted {
        operations: if only.is_empty() { Operation::ALL.to_vec() } else { only.to_vec() },
        identity: if has_files { Identity::AtHand } else { Identity::InConfig },
    }
}

fn list(session: &Session, settings: &Settings, due: &[Due<'_>], count: usize, now: DateTime<Utc>) {
    let zone = settings.timezone;
    let next = |due: &Due<'_>| -> Vec<DateTime<Utc>> {
        std::iter::successors(due.schedule.next_after(now, zone), |run| due.schedule.next_after(*run, zone))
            .take(count)
            .collect()
    };
    if session.global.json {
        let moment = |at: DateTime<Utc>| Moment {
            at,
            local: at.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Secs, false),
        };
        let row = |due: &Due<'_>| Row {
            job: due.task.job.clone(),
            operation: due.task.operation,
            schedule: due.schedule.to_string(),
            next: next(due).into_iter().map(moment).collect(),
        };
        print_json(&Document {
            schema_version: 1,
            timezone: zone.name(),
            jitter_seconds: settings.daemon.jitter.as_secs_f64(),
            schedules: due.iter().map(row).collect(),
        });
        return;
    }
    let mut rows = vec![vec!["JOB".into(), "OPERATION".into(), "SCHEDULE".into(), zone.name().into(), "UTC".into()]];
    for due in due {
        let mut head = [due.task.job.to_string(), due.task.operation.to_string(), due.schedule.to_string()];
        for run in next(due) {
            let local = run.with_timezone(&zone).format("%a %Y-%m-%d %H:%M %Z").to_string();
            let utc = run.format("%Y-%m-%d %H:%M").to_string();
            let [job, operation, schedule] = std::mem::take(&mut head);
            rows.push(vec![job, operation, schedule, local, utc]);
        }
    }
    print(&columns(&rows));
    if !settings.daemon.jitter.is_zero() && !session.global.quiet {
        say(&format!(
            "`lifeboat daemon` starts each at most {} later, always equally late for a job",
            exact_duration(settings.daemon.jitter)
        ));
    }
}

fn print_crontab(settings: &Settings, due: &[Due<'_>], clock: Option<&str>, now: DateTime<Utc>) -> Result<Exit> {
    let clock = match clock {
        None => Clock::CronTz,
        Some(name) => Clock::Host(name.parse().map_err(|_| {
            Error::new(Code::Usage, format!("--clock: there is no zone {name:?}"))
                .with_hint("`timedatectl` shows the host's zone, such as \"Europe/Berlin\"")
        })?),
    };
    let crontab = crontab(settings, due, clock, &call(now)?);
    print(&crontab.text);
    if clock == Clock::CronTz
        && let Some(host) = other_clock(settings.timezone, now)
    {
        say(&format!(
            "warning: this host's clock is {host}'s and the schedules are {}'s: the lines are right only for a cron that knows \
             CRON_TZ; `--clock {host}` writes them for one that does not",
            settings.timezone
        ));
    }
    for what in &crontab.left_out {
        say(&format!("warning: {what}"));
    }
    if crontab.left_out.is_empty() {
        return Ok(Exit::DONE);
    }
    say(" hint: `lifeboat daemon` and `lifeboat schedule systemd` can, and so can a cron that knows CRON_TZ");
    Ok(Exit::of(Kind::Failed))
}

/// The host's zone, where its clock is at times not the one that schedules are read on.
fn other_clock(zone: Tz, now: DateTime<Utc>) -> Option<Tz> {
    let host: Tz = iana_time_zone::get_timezone().ok()?.parse().ok()?;
    let year = now + chrono::TimeDelta::days(366);
    let changes = [zone, host].into_iter().flat_map(|zone| clock_changes(zone, now, year));
    let differs = |moment| offset_seconds(moment, zone) != offset_seconds(moment, host);
    (differs(now) || changes.into_iter().any(differs)).then_some(host)
}

fn print_units(settings: &Settings, due: &[Due<'_>], units: &[Unit], to: Option<&Path>) -> Result<Exit> {
    for unit in units {
        match to {
            None => print(&format!("# {}\n{}", unit.name, unit.text)),
            Some(folder) => {
                let path = folder.join(&unit.name);
                std::fs::write(&path, &unit.text).map_err(|cause| {
                    Error::new(Code::RestoreFailed, format!("cannot write {}: {cause}", path.display()))
                })?;
            }
        }
    }
    let operations: Vec<Operation> = due.iter().map(|due| due.task.operation).collect();
    let (credentials, variables) = handed_in(settings, &operations);
    for name in credentials {
        say(&format!("note: put the credential {name} into /etc/credstore/{name}, mode 600"));
    }
    for name in variables {
        say(&format!("warning: the config reads the variable {name}, which no unit here sets; a credential is safer"));
    }
    if to.is_some() {
        let starts = units.iter().filter(|unit| !unit.name.contains("@.")).map(|unit| unit.name.as_str());
        say(&format!(
            "next: systemctl daemon-reload && systemctl enable --now {}",
            starts.collect::<Vec<_>>().join(" ")
        ));
    }
    Ok(Exit::DONE)
}

fn call(now: DateTime<Utc>) -> Result<Call> {
    let program = std::env::current_exe()
        .map_err(|cause| Error::new(Code::Internal, format!("where this program lies is not known: {cause}")))?;
    Ok(Call { program: program.display().to_string(), now })
}
