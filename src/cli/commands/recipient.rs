//! `recipient add`, `recipient remove` and `recipient list`.

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::config::{Settings, VaultSettings};
use crate::error::{Code, Error, Result};
use crate::operations::trustees::{self, RecipientChange, RecipientState};
use crate::operations::vaults::{self, OpenVault};

use super::super::Exit;
use super::super::args::RecipientCommand;
use super::super::output::{columns, counted, print, print_json, say};
use super::super::session::{Configured, IdentitySource, Session};
use super::host::put_away;

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    vault: String,
    serial: u64,
    recipients: Vec<RecipientState>,
}

pub(in super::super) fn recipient(session: Session, command: &RecipientCommand) -> Result<Exit> {
    let session = session.configured()?;
    let meant = meant(&session.settings, session.global.vault.as_deref())?;
    let trusted = IdentitySource::of(&session.global).texts()?;
    let vault = vaults::open(&session.host, meant, session.global.trust.as_deref(), &trusted)?;
    match command {
        RecipientCommand::Add { recipient, vault_key } => add(&session, &vault, recipient, vault_key.as_deref()),
        RecipientCommand::Remove { recipient, vault_key } => remove(&session, &vault, recipient, vault_key.as_deref()),
        RecipientCommand::List => Ok(list(&session, &vault)),
    }
}

/// The vault of the config that was named, or the only one.
fn meant<'s>(settings: &'s Settings, name: Option<&str>) -> Result<&'s VaultSettings> {
    let known = || settings.vaults.keys().cloned().collect::<Vec<_>>().join(", ");
    match name {
        Some(name) => settings.vaults.get(name).ok_or_else(|| {
            Error::new(Code::NotFound, format!("the config has no vault {name:?}"))
                .with_hint(format!("it has: {}; recipients belong to a vault of the config", known()))
        }),
        None if settings.vaults.len() > 1 => Err(Error::new(Code::Usage, "the config has several vaults")
            .with_hint(format!("say --vault NAME with one of: {}", known()))),
        None => settings.vaults.values().next().ok_or_else(|| {
            Error::new(Code::NotFound, format!("{} has no vault", settings.file.display()))
                .with_hint("add a [vault.main] with `url` and `recipients`")
        }),
    }
}

fn add(session: &Configured, vault: &OpenVault, recipient: &str, vault_key: Option<&Path>) -> Result<Exit> {
    let recipient = recipient.trim();
    let change = trustees::add_recipient(&session.host, vault, &session.settings, vault_key, recipient)?;
    if session.global.json {
        print_json(&changed(vault, &change));
        return Ok(Exit::DONE);
    }
    if !told(session, vault, &change, "added") {
        say("it is a recipient already; nothing was changed");
        return Ok(Exit::DONE);
    }
    if change.config_changed {
        say("The next backup of each job seals everything anew; the ones there are stay closed to the new recipient.");
    }
    tell_others(vault, &change, "add", recipient, vault_key);
    Ok(Exit::DONE)
}

fn remove(session: &Configured, vault: &OpenVault, recipient: &str, vault_key: Option<&Path>) -> Result<Exit> {
    let recipient = recipient.trim();
    let change = trustees::remove_recipient(&session.host, vault, &session.settings, vault_key, recipient)?;
    let open = trustees::sealed_to(&session.host, vault, &session.settings, recipient)?;
    if session.global.json {
        let mut document = changed(vault, &change);
        document["still_open"] = json!({
            "backups": open.backups,
            "last_deadline": open.last_deadline.as_ref().map(|(.., deadline)| deadline),
            "unknown_jobs": open.unknown_jobs,
        });
        print_json(&document);
        return Ok(Exit::DONE);
    }
    if !told(session, vault, &change, "removed") {
        say("it is no recipient any more; nothing was changed");
    } else if change.config_changed {
        say("The next backup of each job seals everything anew, without it.");
    }
    if open.backups > 0 {
        let there = counted(open.backups as u64, "backup");
        say(&format!("Until they expire, whoever has its identity and reaches the vault can read: {there}."));
    }
    if let Some((backup, job, deadline)) = &open.last_deadline {
        let day = deadline.with_timezone(&session.settings.timezone).format("%Y-%m-%d %H:%M %Z");
        say(&format!("The last of them, {backup} of {job}, must be gone by {day}."));
    }
    if !open.unknown_jobs.is_empty() {
        let jobs: Vec<&str> = open.unknown_jobs.iter().map(crate::domain::ids::JobName::as_str).collect();
        say(&format!("When those of other hosts' jobs expire, their configs say: {}.", jobs.join(", ")));
    }
    tell_others(vault, &change, "remove", recipient, vault_key);
    Ok(Exit::DONE)
}

fn changed(vault: &OpenVault, change: &RecipientChange) -> serde_json::Value {
    let trust = change.trust.as_ref();
    json!({
        "schema_version": 1,
        "recipients": change.recipients,
        "config_changed": change.config_changed,
        "changed": change.config_changed || trust.is_some(),
        "serial": trust.unwrap_or(&vault.trust).serial,
    })
}

/// Says what was changed; false where nothing was.
fn told(session: &Configured, vault: &OpenVault, change: &RecipientChange, done: &str) -> bool {
    if change.config_changed {
        let (name, file) = (&vault.settings.name, session.settings.file.display());
        say(&format!("{done} in [vault.{name}] of {file}; sealed to from now on: {}", change.recipients.join(", ")));
    }
    if let Some(trust) = &change.trust {
        say(&format!("{done} in vault.json (number {})", trust.serial));
    }
    change.config_changed || change.trust.is_some()
}

/// Other hosts have configs of their own.
fn tell_others(vault: &OpenVault, change: &RecipientChange, verb: &str, recipient: &str, vault_key: Option<&Path>) {
    let writers = vault.trust.hosts.iter().filter(|host| host.revoked.is_none()).count();
    if writers > 1 && change.trust.is_some() {
        say(&format!("On the vault's other hosts, without the vault key: lifeboat recipient {verb} {recipient}"));
    }
    if let Some(vault_key) = vault_key {
        put_away(vault_key);
    }
}

fn list(session: &Configured, vault: &OpenVault) -> Exit {
    let recipients = trustees::recipients(&vault.trust, &vault.settings);
    if session.global.json {
        let (vault, serial) = (vault.id.to_string(), vault.trust.serial);
        print_json(&Document { schema_version: 1, vault, serial, recipients });
        return Exit::DONE;
    }
    let mut rows = vec![["RECIPIENT", "CONFIG", "VAULT.JSON"].map(str::to_owned).to_vec()];
    for known in recipients {
        let approved = match (known.approved, known.until) {
            (None, _) => "names nobody".to_owned(),
            (Some(true), _) => "approved".to_owned(),
            (Some(false), Some(until)) => {
                format!("until {}", until.with_timezone(&session.settings.timezone).format("%Y-%m-%d %H:%M %Z"))
            }
            (Some(false), None) => "NOT APPROVED".to_owned(),
        };
        rows.push(vec![known.recipient, if known.in_config { "sealed to" } else { "-" }.to_owned(), approved]);
    }
    print(&columns(&rows));
    Exit::DONE
}
