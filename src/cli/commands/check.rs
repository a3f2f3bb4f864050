//! `check`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::config::Settings;
use crate::domain::ids::JobName;
use crate::domain::operation::{Operation, Task};
use crate::domain::quantity::human_bytes;
use crate::error::{Code, Error, Kind, Result};
use crate::operations::check::{self, CheckReport, Damage, Depth, NotOnRecord};
use crate::operations::host::Host;
use crate::operations::interrupt::Interrupt;
use crate::operations::notices::{Ended, Notices, new_run};
use crate::operations::refute;
use crate::operations::verdicts;

use super::super::Exit;
use super::super::args::CheckArgs;
use super::super::output::{counted, print, print_json, say};
use super::super::session::Session;
use super::notify;

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    outcome: &'static str,
    backups: u64,
    records: u64,
    objects: u64,
    checked_bytes: u64,
    opened_segments: u64,
    damaged: Vec<Damage>,
    strays: u64,
    damaged_strays: Vec<String>,
    recorded: bool,
    on_record: Vec<JobName>,
    not_on_record: Vec<NotOnRecord>,
}

pub(in super::super) fn check(session: Session, args: &CheckArgs) -> Result<Exit> {
    let progress = session.progress();
    let (json, quiet) = (session.global.json, session.global.quiet);
    let (config, vault) = (session.global.config.clone(), session.global.vault.clone());
    let (runtime, clock) = (session.host.runtime.clone(), Arc::clone(&session.host.clock));
    let reading = match session.reading() {
        Ok(reading) => reading,
        Err(error) => {
            // Where nothing is configured nobody is told, and without a config that can be read nobody can be.
            if let Ok(settings) = Settings::load(config.as_deref())
                && !settings.notify.is_empty()
                && let Ok(host) = Host::bare(runtime, clock, Interrupt::default()).with_home(&settings.state_dir)
            {
                notice(&host, &settings, vault.as_deref(), &args.jobs, Err(&error));
            }
            return Err(error);
        }
    };
    let jobs = args
        .jobs
        .iter()
        .map(|name| name.parse::<JobName>().map_err(|e| Error::new(Code::NotFound, e.to_string())))
        .collect::<Result<Vec<_>>>()?;
    let reader = args.read_data.map(|percent| reading.reader().map(|reader| (reader, percent))).transpose()?;
    let depth = Depth { read_data: reader.as_ref().map(|(reader, percent)| (reader, *percent)) };
    let configured = reading.settings.iter().flat_map(|settings| settings.jobs_in(&reading.vault.settings.name));
    let known = configured.map(|job| (job.name.clone(), job.retention.delete_after)).collect();
    let report = check::check(&reading.host, &reading.vault, &jobs, &known, &depth, &progress);
    if let Some(settings) = &reading.settings {
        notice(&reading.host, settings, Some(&reading.vault.settings.name), &args.jobs, report.as_ref());
    }
    let report = report?;
    let sound = report.is_sound();
    if json {
        print_json(&Document {
            schema_version: 1,
            outcome: if sound { "passed" } else { "failed" },
            backups: report.backups,
            records: report.records,
            objects: report.objects,
            checked_bytes: report.bytes,
            opened_segments: report.opened,
            damaged: report.damaged,
            strays: report.strays,
            damaged_strays: report.damaged_strays,
            recorded: report.recorded,
            on_record: report.on_record,
            not_on_record: report.not_on_record,
        });
    } else {
        for damage in &report.damaged {
            print(&format!("DAMAGED {}: {} [{}]", damage.object, damage.reason, damage.code));
            if !damage.backups.is_empty() {
                let ids: Vec<&str> = damage.backups.iter().map(crate::domain::ids::BackupId::as_str).collect();
                print(&format!(
                    "        spoils {} {}",
                    if ids.len() == 1 { "backup" } else { "backups" },
                    ids.join(", ")
                ));
            }
        }
        for key in &report.damaged_strays {
            say(&format!("note: {key} is damaged, and no backup names it"));
        }
        if !quiet || !sound {
            let opened = match report.opened {
                0 => String::new(),
                n => format!(", {} opened and read", counted(n, "segment")),
            };
            let looked_at = format!(
                "{}, {} with {} compared with their names{opened}",
                counted(report.backups, "backup"),
                counted(report.objects, "object"),
                human_bytes(report.bytes),
            );
            let strays = match report.strays {
                0 => String::new(),
                n => format!("; {} that no backup names (harmless)", counted(n, "object")),
            };
            say(&if sound {
                format!("sound: {looked_at}{strays}")
            } else {
                let codes: BTreeSet<&str> = report.damaged.iter().map(|damage| damage.code).collect();
                let codes = codes.into_iter().map(|code| format!("[{code}]")).collect::<Vec<_>>().join(" ");
                format!("error: DAMAGED: {} named above; looked at {looked_at}{strays} {codes}", report.damaged.len())
            });
        }
        let unapproved = Code::RecipientUnapproved.name();
        if report.damaged.iter().any(|damage| damage.code == unapproved) {
            say(
                " hint: who was not approved can read that backup. Compare `recipients` in the config of the host that made it with \
                 `lifeboat recipient list`; who should read it is approved with `lifeboat recipient add`",
            );
        }
        if report.damaged.iter().any(refute::can_say) {
            say(match (reading.vault.is_copy(), report.recorded) {
                (true, true) => {
                    " hint: restore from a backup that is not named above, or from the job's own vault; it is on record, and the next \
                     backup that is copied brings what is wrong anew: `lifeboat backup`, then `lifeboat copy`"
                }
                (false, true) => {
                    " hint: restore from a backup that is not named above; it is on record, and the next `lifeboat backup` \
                     stores what is wrong anew from its source"
                }
                (_, false) => {
                    " hint: restore from a backup that is not named above; run `lifeboat check` on the host that backs up, \
                     so that the next backup stores what is wrong anew"
                }
            });
        }
        if report.damaged.iter().any(|damage| damage.code != unapproved && !refute::can_say(damage)) {
            say(
                " hint: bring what cannot be believed, or is missing, back from a copy of the vault; `lifeboat prune --dry-run` \
                 says whether it holds up deletions, and how to go on without it",
            );
        }
        if !quiet {
            report.not_on_record.iter().for_each(|left| say(&format!("note: {}", left.sentence())));
        }
    }
    Ok(if sound { Exit::DONE } else { Exit::of(Kind::Damage) })
}

/// Tells how a check ended of these jobs: of all, where none are named, whose vault this is. A bare host has nobody to tell.
fn notice(
    host: &Host,
    settings: &Settings,
    vault: Option<&str>,
    jobs: &[String],
    report: Result<&CheckReport, &Error>,
) {
    let notices = Notices::beside(host, settings);
    for job in settings.jobs.values() {
        let is_meant = jobs.is_empty() || jobs.iter().any(|name| name == job.name.as_str());
        if !is_meant || vault.is_some_and(|vault| vault != job.vault) {
            continue;
        }
        let trouble = match report {
            Ok(report) => verdicts::of_check(&job.name, report),
            Err(error) => Some(error.clone()),
        };
        let outcome = if trouble.is_some() { "failed" } else { "passed" };
        let task = Task { job: job.name.clone(), operation: Operation::Check };
        notices.ended(&task, &new_run(), &Ended::new(outcome, trouble.as_ref()));
    }
    notify::finish(host, settings, notices);
}
