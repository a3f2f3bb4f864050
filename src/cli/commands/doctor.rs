//! `doctor`: what would go wrong, before it does. Each line is OK, a warning or a problem with what to type.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::check::{Severity, check, check_host};
use crate::config::{JobSettings, PruneWhen};
use crate::error::{Kind, Result};
use crate::operations::doctor::{self, Finding, Grade, Prunes};
use crate::operations::vaults::OpenVault;

use super::super::Exit;
use super::super::args::JobsArgs;
use super::super::output::{print, print_json};
use super::super::session::{Configured, IdentitySource, Session};

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    outcome: &'static str,
    findings: Vec<Finding>,
}

pub(in super::super) fn doctor(session: Session, args: &JobsArgs) -> Result<Exit> {
    let session = session.configured()?;
    let jobs = session.jobs(&args.jobs)?;
    let mut findings = config(&session);
    findings.extend(doctor::machine(&session.host, &session.settings));
    findings.extend(doctor::host(&session.host));
    findings.extend(doctor::notify(&session.host, &session.settings));
    let vaults = session.vaults(&jobs);
    for (name, vault) in &vaults {
        findings.extend(doctor::vault(&session.host, name, vault));
        if let Ok(vault) = vault {
            let prunes_here = jobs.iter().any(|job| job.vault == *name && job.prune == PruneWhen::AfterBackup);
            let prunes = if prunes_here { Prunes::Here } else { Prunes::Elsewhere };
            findings.extend(doctor::rights(&session.host, name, vault, prunes));
            let opener = IdentitySource::of(&session.global).opener().ok();
            findings.extend(doctor::recipients(&session.host, name, vault, opener.as_ref()));
        }
    }
    let mut copies = BTreeMap::new();
    for job in jobs {
        if let Ok(vault) = &vaults[&job.vault] {
            findings.extend(doctor::job(&session.host, vault, job, &session.settings.file, session.settings.timezone));
        }
        if let Some(copy) = &job.copy {
            let settings = &session.settings.vaults[&copy.to];
            let vault = copies.entry(&copy.to).or_insert_with(|| {
                let open = || session.open(settings);
                let prunes = if copy.prune { Prunes::AfterCopies } else { Prunes::Elsewhere };
                let (vault, found) = doctor::place_of_copies(&session.host, settings, &job.name, prunes, open);
                findings.extend(found);
                if let (Ok(source), Some(copy)) = (&vaults[&job.vault], &vault) {
                    findings.extend(doctor::same_disk(source, copy));
                }
                vault
            });
            findings.extend(doctor::copy(&session.host, vault.as_ref(), job, copy, session.settings.timezone));
        }
        findings.extend(identity(&session, job));
    }
    // Last: by now the catalog knows who backs up into these vaults.
    let open: Vec<&OpenVault> = vaults.values().flatten().collect();
    findings.extend(doctor::hygiene(&session.host, &session.settings, &open));
    let problems = findings.iter().filter(|f| f.grade == Grade::Problem).count();
    if session.global.json {
        let outcome = if problems == 0 { "passed" } else { "failed" };
        print_json(&Document { schema_version: 1, outcome, findings });
    } else {
        for finding in &findings {
            let mark = match finding.grade {
                Grade::Ok => "OK     ",
                Grade::Warning => "WARNING",
                Grade::Problem => "PROBLEM",
            };
            print(&format!("{mark} {}: {}", finding.about, finding.message));
            if let Some(hint) = &finding.hint {
                print(&format!("        hint: {hint}"));
            }
        }
    }
    Ok(if problems == 0 { Exit::DONE } else { Exit::of(Kind::Failed) })
}

/// The config's own findings; notes are left to `config check`.
fn config(session: &Configured) -> Vec<Finding> {
    let now = session.host.clock.now();
    let mut found = check(&session.settings, now, &std::collections::BTreeMap::new());
    found.extend(check_host(&session.settings));
    let mut findings: Vec<Finding> = found
        .into_iter()
        .filter(|finding| finding.severity != Severity::Note)
        .map(|finding| Finding {
            grade: if finding.severity == Severity::Error { Grade::Problem } else { Grade::Warning },
            about: finding.key,
            message: finding.message,
            hint: finding.hint,
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok("config", format!("{} has no mistakes", session.settings.file.display())));
    }
    findings
}

/// Whether the job's drill could open its backups.
fn identity(session: &Configured, job: &JobSettings) -> Vec<Finding> {
    let about = format!("job {}: identity", job.name);
    let given = IdentitySource::of(&session.global);
    let secret = job.drill.as_ref().and_then(|drill| drill.identity.as_ref());
    let opener = match (secret, given.files.is_empty()) {
        (None, true) => {
            return vec![Finding::ok(
                about,
                "the config names none, as it should be where backups are made".to_owned(),
            )];
        }
        (Some(secret), true) => session.opener_of(secret),
        (_, false) => given.opener(),
    };
    let recipients = session.settings.vault_of(job).map(|vault| vault.recipients.clone()).unwrap_or_default();
    match opener {
        Err(error) => vec![Finding::problem(about, error.to_string(), error.hint())],
        Ok(opener) if opener.opens_for(&recipients) => {
            vec![Finding::ok(about, format!("opens what is sealed to {} recipients", recipients.len()))]
        }
        Ok(_) => vec![Finding::problem(
            about,
            format!("is none of the vault's recipients: {}", recipients.join(", ")),
            Some("give the identity whose public key stands in the config".to_owned()),
        )],
    }
}
