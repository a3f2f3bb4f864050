//! Keeping the catalog level with the vault: what another host wrote, and what a killed process of this host had no time
//! to tell, is learnt of whenever the vault is surveyed; what vault.json disowned since is forgotten.
//!
//! Names are listed and only what is unknown is read, so that this costs a listing where nothing happened. A record that
//! is not believed is not read again before it looks otherwise, or vault.json or this program is another one; then
//! everything is judged anew. Condemned lists are not the catalog's business.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::{StreamExt as _, stream};
use sha2::{Digest, Sha256};

use crate::domain::ids::{BackupId, JobName, RecordId};
use crate::domain::record::Record;
use crate::error::{Result, chain};
use crate::storage::Listed;
use crate::vault::layout::{Key, RECORDS, RecordName};
use crate::vault::records::read_record;
use crate::vault::survey::{Fault, Survey};
use crate::vault::{Distrust, VaultError};

use super::TOOL;
use super::host::{Home, Host};
use super::vaults::OpenVault;

/// The folders of records that the catalog remembers.
const REMEMBERED: [&str; 8] =
    ["runs", "drills", "removals", "refutations", "quarantines", "prunes", "copies", "checks"];
/// Records that are told to the catalog in one transaction.
const BATCH: usize = 256;

/// Tells the catalog of backups and records that it has not heard of. A record that is not believed is passed over:
/// `check` and `catalog rebuild` say why. The answer is what the catalog could not be told of, in sentences: numbers that
/// no honest host writes, and files of the outbox that are damaged. They stand in nobody's way.
///
/// # Errors
/// When the store or the outbox cannot be read, or the catalog not be written.
pub fn catch_up(host: &Host, home: &Home, vault: &OpenVault, survey: &Survey) -> Result<Vec<String>> {
    let mut untold = backups(host, home, vault, survey)?;
    let known = host.runtime.block_on(home.catalog.known_records(&vault.id))?;
    untold.extend(records(host, home, vault, &known)?);
    // Asked again: what is forgotten, because the vault has it in a form that is not believed, may wait here.
    let known = host.runtime.block_on(home.catalog.known_records(&vault.id))?;
    untold.extend(outbox(host, home, vault, &known)?);
    Ok(untold)
}

/// Tells the catalog of backups only: for whoever caught up a moment ago and surveyed again.
///
/// # Errors
/// When the catalog cannot be written.
pub fn catch_up_with_backups(host: &Host, home: &Home, vault: &OpenVault, survey: &Survey) -> Result<()> {
    backups(host, home, vault, survey).map(drop)
}

/// A record's folder and id.
type Place = (String, RecordId);

fn backups(host: &Host, home: &Home, vault: &OpenVault, survey: &Survey) -> Result<Vec<String>> {
    let catalog = &home.catalog;
    let rows = host.runtime.block_on(catalog.backups(&vault.id, None))?;
    let disowned = disowned(survey);
    let forget: Vec<(JobName, BackupId)> =
        rows.iter().map(|row| (row.job.clone(), row.id.clone())).filter(|place| disowned.contains(place)).collect();
    if !forget.is_empty() {
        host.runtime.block_on(catalog.forget_backups(&vault.id, &forget))?;
    }
    let known: HashSet<&BackupId> = rows.iter().map(|row| &row.id).collect();
    let mut untold = Vec::new();
    for verified in survey.manifests.iter().filter(|verified| !known.contains(&verified.manifest.id)) {
        let manifest = &verified.manifest;
        let told = host.runtime.block_on(async {
            // In this order: whoever is killed in between has not told it of the backup, and does both again.
            catalog.saw(&vault.id, &manifest.job, manifest.sequence).await?;
            catalog.record_backup(&vault.manifest_here(manifest), verified.hash).await
        });
        match told {
            Err(error) if error.is_about_what_was_told() => {
                untold.push(format!("{}: {}", Key::Manifest(verified.name.clone()), chain(&error)));
            }
            told => told?,
        }
    }
    Ok(untold)
}

/// Manifests whose signer may not, or may no longer, sign them. One that is only damaged was good once: that is
/// remembered, and `status` says what became of it.
fn disowned(survey: &Survey) -> HashSet<(JobName, BackupId)> {
    let is_disowned = |reason: &Distrust| {
        matches!(
            reason,
            Distrust::UnknownHost { .. }
                | Distrust::JobNotAllowed { .. }
                | Distrust::OutsideTime { .. }
                | Distrust::Revoked { .. }
                | Distrust::OtherHost { .. }
        )
    };
    let problems = survey.problems.iter().filter_map(|problem| match (&problem.fault, Key::parse(&problem.key)) {
        (Fault::Untrusted(reason), Key::Manifest(name)) if is_disowned(reason) => Some(name),
        _ => None,
    });
    let quarantined = survey.quarantined.iter().filter(|found| is_disowned(&found.reason));
    problems.chain(quarantined.map(|found| found.name.clone())).map(|name| (name.job, name.id)).collect()
}

/// What this host still waits to send.
fn outbox(host: &Host, home: &Home, vault: &OpenVault, known: &HashSet<Place>) -> Result<Vec<String>> {
    let mut untold = Vec::new();
    for waiting in home.state.outbox(&vault.id).waiting()? {
        match waiting {
            Ok(waiting) if known.contains(&place(&RecordName::of(&waiting.record))) => {}
            Ok(waiting) => untold.extend(tell(host, home, vault, vec![waiting.record])?),
            Err(damaged) => untold.push(chain(&damaged)),
        }
    }
    Ok(untold)
}

/// Names of records in the vault, with how the files look that make a record.
type Names = BTreeMap<RecordName, String>;

fn records(host: &Host, home: &Home, vault: &OpenVault, known: &HashSet<Place>) -> Result<Vec<String>> {
    let (runtime, catalog) = (&host.runtime, &home.catalog);
    let names = runtime.block_on(names(vault))?;
    let mark = mark(vault);
    let judged = runtime.block_on(catalog.judged_by(&vault.id))?.as_ref() == Some(&mark);
    let unbelieved = if judged { runtime.block_on(catalog.unbelieved(&vault.id))? } else { HashMap::new() };
    let unread: Vec<(&RecordName, &String)> = names
        .iter()
        .filter(|(name, _)| !judged || !known.contains(&place(name)))
        .filter(|(name, looks)| unbelieved.get(&Key::Record((*name).clone()).to_string()) != Some(*looks))
        .collect();
    let mut untold = Vec::new();
    let (mut believed, mut distrusted) = (HashSet::new(), Vec::new());
    let storage = &*vault.storage;
    for names in unread.chunks(BATCH) {
        let mut records = Vec::new();
        let read = stream::iter(names)
            .map(|(name, looks)| async move { (name, looks, read_record(storage, &vault.trust, name).await) })
            .buffered(storage.parallel().max(1));
        for (name, looks, answer) in runtime.block_on(read.collect::<Vec<_>>()) {
            match answer {
                Ok(verified) => {
                    believed.insert(place(name));
                    records.push(verified.record);
                }
                Err(VaultError::RecordUntrusted { key, reason }) => {
                    distrusted.push((place(name), key, looks.to_string(), reason));
                }
                // Removed since the listing.
                Err(VaultError::Storage(error)) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        records.retain(|record| !known.contains(&place(&RecordName::of(record))));
        untold.extend(tell(host, home, vault, records)?);
    }
    for ((folder, id), ..) in distrusted.iter().filter(|(place, ..)| known.contains(place) && !believed.contains(place))
    {
        runtime.block_on(catalog.forget_record(&vault.id, folder, id))?;
    }
    if !judged {
        runtime.block_on(catalog.judged(&vault.id, &mark))?;
    }
    // What is wrong with a time may be right later, and what has no time may change unseen.
    let lasting: Vec<(String, String)> = distrusted
        .into_iter()
        .filter(|(_, _, looks, reason)| !matches!(reason, Distrust::FromTheFuture { .. }) && looks != UNKNOWN_LOOKS)
        .map(|(_, key, looks, _)| (key, looks))
        .collect();
    if !lasting.is_empty() {
        runtime.block_on(catalog.did_not_believe(&vault.id, &lasting))?;
    }
    Ok(untold)
}

/// Tells the catalog of records in one transaction, or of each alone where one does not fit.
fn tell(host: &Host, home: &Home, vault: &OpenVault, records: Vec<Record>) -> Result<Vec<String>> {
    let records: Vec<Record> = records.into_iter().map(|record| vault.record_here(record)).collect();
    match host.runtime.block_on(home.catalog.record_all(&records)) {
        Err(error) if error.is_about_what_was_told() => {}
        told => return Ok(told.map(|()| Vec::new())?),
    }
    let mut untold = Vec::new();
    for record in records {
        match host.runtime.block_on(home.catalog.record(&record)) {
            Err(error) if error.is_about_what_was_told() => {
                untold.push(format!("{}: {}", Key::Record(RecordName::of(&record)), chain(&error)));
            }
            told => told?,
        }
    }
    Ok(untold)
}

/// Of a file of which the store does not know when it was written.
const UNKNOWN_LOOKS: &str = "";

async fn names(vault: &OpenVault) -> Result<Names, VaultError> {
    let (mut names, mut signatures) = (Names::new(), Names::new());
    let looks = |listed: &Listed| match listed.modified {
        Some(modified) => format!("{} bytes of {modified:?}", listed.size_bytes),
        None => UNKNOWN_LOOKS.to_owned(),
    };
    vault
        .storage
        .list(RECORDS, &mut |listed| match Key::parse(&listed.key) {
            Key::Record(name) if REMEMBERED.contains(&name.folder()) => drop(names.insert(name, looks(&listed))),
            Key::RecordSignature(name) if REMEMBERED.contains(&name.folder()) => {
                signatures.insert(name, looks(&listed));
            }
            _ => {}
        })
        .await?;
    for (name, looks) in &mut names {
        match signatures.get(name).map(String::as_str) {
            Some(UNKNOWN_LOOKS) => UNKNOWN_LOOKS.clone_into(looks),
            Some(signature) if looks != UNKNOWN_LOOKS => *looks = format!("{looks}, signature {signature}"),
            _ => {}
        }
    }
    Ok(names)
}

/// Stands for whom a vault believes, and for the program that judges.
fn mark(vault: &OpenVault) -> String {
    let trust = serde_json::to_vec(&vault.trust).expect("vault.json is always representable as JSON");
    let digest = Sha256::new().chain_update(TOOL).chain_update([0]).chain_update(trust).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn place(name: &RecordName) -> Place {
    (name.folder().to_owned(), name.id().clone())
}

#[cfg(test)]
pub(crate) mod tests;
