//! `config check`, `config show`, `config schema`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::config::check::{Finding, Severity, check, check_host};
use crate::config::schema;
use crate::config::{JobNotify, Settings};
use crate::domain::ids::JobName;
use crate::domain::record::RunOutcome;
use crate::error::Result;

use super::super::Exit;
use super::super::args::ConfigCommand;
use super::super::output::{columns, counted, print, print_json, say};
use super::super::session::Session;

pub(in super::super) fn config(session: &Session, command: &ConfigCommand) -> Result<Exit> {
    match command {
        ConfigCommand::Check => check_config(session),
        ConfigCommand::Show => {
            let settings = Settings::load(session.global.config.as_deref())?;
            let now = session.host.clock.now();
            let jobs: BTreeMap<&JobName, serde_json::Value> = settings
                .jobs
                .iter()
                .map(|(name, job)| {
                    let mut shown = settings.without_secrets(name);
                    shown["erasing"] = settings.erasing_json(job, now);
                    if job.notify != JobNotify::default() {
                        shown["notify"] = job.notify.to_json();
                    }
                    (name, shown)
                })
                .collect();
            let mut document = json!({ "schema_version": 1, "file": settings.file, "jobs": jobs });
            if !settings.notify.is_empty() {
                document["notify"] = settings.notify.to_json();
            }
            print_json(&document);
            Ok(Exit::DONE)
        }
        ConfigCommand::Schema => {
            if session.global.json {
                print_json(&schema::schema_json());
            } else {
                let head = ["KEY", "TAKES", "NEEDED", "MEANING"].map(str::to_owned).to_vec();
                let rows: Vec<Vec<String>> = std::iter::once(head).chain(schema::KEYS.iter().map(schema_row)).collect();
                print(&columns(&rows));
            }
            Ok(Exit::DONE)
        }
    }
}

fn check_config(session: &Session) -> Result<Exit> {
    let settings = Settings::load(session.global.config.as_deref())?;
    let mut findings = check(&settings, session.host.clock.now(), &longest_runs(session, &settings)?);
    findings.extend(check_host(&settings));
    findings.sort_by_key(|finding| finding.severity);
    let worst = findings.iter().filter(|f| f.severity == Severity::Error).map(|f| f.code).next();
    if session.global.json {
        let listed: Vec<_> = findings
            .iter()
            .map(|f| {
                json!({
                    "severity": severity(f),
                    "code": f.code.name(),
                    "key": f.key,
                    "message": f.message,
                    "hint": f.hint,
                })
            })
            .collect();
        let outcome = if worst.is_some() { "failed" } else { "passed" };
        print_json(&json!({ "schema_version": 1, "outcome": outcome, "file": settings.file, "findings": listed }));
    } else {
        findings.iter().for_each(tell);
        if worst.is_none() {
            let jobs = counted(settings.jobs.len() as u64, "job");
            say(&format!("{}: {jobs}, no mistakes", settings.file.display()));
        }
    }
    Ok(worst.map_or(Exit::DONE, |code| Exit::of(code.kind())))
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn schema_row(key: &schema::Key) -> Vec<String> {
    let need = match key.need {
        schema::Need::Required => "required".to_owned(),
        schema::Need::Optional => "optional".to_owned(),
        schema::Need::Default(value) => format!("default {value}"),
    };
    let only = key.only.map(|kind| format!(" (kind {kind} only)")).unwrap_or_default();
    vec![key.path.to_owned(), key.takes.described().to_owned(), need, format!("{}{only}", key.meaning)]
}

/// Prints a finding.
pub(super) fn tell(finding: &Finding) {
    let code = match finding.severity {
        Severity::Error => format!(" [{}]", finding.code.name()),
        Severity::Warning | Severity::Note => String::new(),
    };
    let key = if finding.key.is_empty() { String::new() } else { format!("{}: ", finding.key) };
    say(&format!("{}: {key}{}{code}", severity(finding), finding.message));
    if let Some(hint) = &finding.hint {
        say(&format!(" hint: {hint}"));
    }
}

/// The longest successful backup of each job, where this host has a catalog already.
fn longest_runs(session: &Session, settings: &Settings) -> Result<BTreeMap<JobName, Duration>> {
    let catalog = settings.state_dir.join("catalog.sqlite");
    if !catalog.exists() {
        return Ok(BTreeMap::new());
    }
    let runtime = &session.host.runtime;
    let catalog = runtime.block_on(crate::catalog::Catalog::open(&catalog))?;
    let mut longest = BTreeMap::new();
    for vault in runtime.block_on(catalog.vaults())? {
        for row in runtime.block_on(catalog.runs(&vault, None))? {
            if row.run.outcome == RunOutcome::Success {
                let took = Duration::try_from_secs_f64(row.run.duration_seconds).unwrap_or_default();
                let longest: &mut Duration = longest.entry(row.job).or_default();
                *longest = took.max(*longest);
            }
        }
    }
    Ok(longest)
}
