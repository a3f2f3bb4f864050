//! Keeping the catalog level with the vault: what another host wrote, and what a killed process of this host had no time
//! to tell, is learnt of whenever the vault is surveyed.
//!
//! Names are listed and only what is unknown is read, so that this costs a listing where nothing happened. Condemned
//! lists are not the catalog's business.

use std::collections::HashSet;

use crate::domain::ids::{BackupId, RecordId};
use crate::domain::record::Record;
use crate::error::Result;
use crate::vault::VaultError;
use crate::vault::layout::{Key, RECORDS, RecordName};
use crate::vault::records::read_record;
use crate::vault::survey::Survey;

use super::host::{Home, Host};
use super::vaults::OpenVault;

/// The folders of records that the catalog remembers.
const REMEMBERED: [&str; 6] = ["runs", "drills", "removals", "refutations", "quarantines", "prunes"];
/// Records that are told to the catalog in one transaction.
const BATCH: usize = 256;

/// Tells the catalog of backups and records that it has not heard of. A record that is not believed is passed over:
/// `check` and `catalog rebuild` say why.
///
/// # Errors
/// When the store or the outbox cannot be read, or the catalog not be written.
pub fn catch_up(host: &Host, home: &Home, vault: &OpenVault, survey: &Survey) -> Result<()> {
    let rows = host.runtime.block_on(home.catalog.backups(&vault.id, None))?;
    let known: HashSet<&BackupId> = rows.iter().map(|row| &row.id).collect();
    for verified in survey.manifests.iter().filter(|verified| !known.contains(&verified.manifest.id)) {
        vault.remember_one(host, &verified.manifest, verified.hash)?;
    }
    let known = host.runtime.block_on(home.catalog.known_records(&vault.id))?;
    let waiting = home.state.outbox(&vault.id).waiting()?.into_iter().map(|waiting| waiting.record);
    let waiting: Vec<Record> = waiting.filter(|record| !known.contains(&place(&RecordName::of(record)))).collect();
    host.runtime.block_on(home.catalog.record_all(&waiting))?;
    let names = host.runtime.block_on(unknown_names(vault, &known))?;
    for names in names.chunks(BATCH) {
        let records = host.runtime.block_on(read_all(vault, names))?;
        host.runtime.block_on(home.catalog.record_all(&records))?;
    }
    Ok(())
}

async fn unknown_names(vault: &OpenVault, known: &HashSet<(String, RecordId)>) -> Result<Vec<RecordName>, VaultError> {
    let mut names = Vec::new();
    vault
        .storage
        .list(RECORDS, &mut |listed| {
            if let Key::Record(name) = Key::parse(&listed.key)
                && REMEMBERED.contains(&name.folder())
                && !known.contains(&place(&name))
            {
                names.push(name);
            }
        })
        .await?;
    // Whatever the store's order, so that two hosts tell their catalogs alike.
    names.sort();
    Ok(names)
}

async fn read_all(vault: &OpenVault, names: &[RecordName]) -> Result<Vec<Record>, VaultError> {
    let mut records = Vec::new();
    for name in names {
        match read_record(&*vault.storage, &vault.trust, name).await {
            Ok(verified) => records.push(verified.record),
            Err(VaultError::RecordUntrusted { .. }) => {}
            // Removed since the listing.
            Err(VaultError::Storage(error)) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(records)
}

fn place(name: &RecordName) -> (String, RecordId) {
    (name.folder().to_owned(), name.id().clone())
}

#[cfg(test)]
mod tests;
