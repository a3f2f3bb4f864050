//! Writing a record of what was done or decided: into the vault, signed, and into this host's catalog.
//!
//! What happened (runs, drills, findings) must not be lost where the vault refuses it: it goes through the outbox, is in
//! the catalog at once, and is sent by the next command that writes. What is decided (removals, condemned lists,
//! quarantines) takes effect by being in the vault: refused, it was not decided, and nobody hears of it again.

use std::path::PathBuf;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use rand::RngExt;

use crate::domain::ids::{JobName, RecordId, VaultId};
use crate::domain::record::{RECORD_VERSION, Record, RecordBody};
use crate::error::{Result, chain};
use crate::seal::Sealer;
use crate::vault::VaultError;
use crate::vault::layout::RecordName;
use crate::vault::records::{details_id, read_record, write_record};

use super::TOOL;
use super::host::{Home, Host};
use super::outbox::Waiting;
use super::vaults::OpenVault;

/// Details are short texts: the fastest level does.
const DETAILS_LEVEL: i32 = 1;

/// Writes a record under a new id.
///
/// # Errors
/// As [`write_as`].
pub fn write(
    host: &Host,
    vault: &OpenVault,
    job: &JobName,
    body: RecordBody,
    details: Option<&serde_json::Value>,
) -> Result<()> {
    write_as(host, vault, job, &RecordId::from_random(rand::rng().random()), body, details)
}

/// Writes a record. `details` (names, values, error texts) are sealed to the vault's recipients and lie beside it.
///
/// # Errors
/// When vault or catalog refuse, or this host may not sign. What happened is not lost then: see [`send_waiting`].
pub fn write_as(
    host: &Host,
    vault: &OpenVault,
    job: &JobName,
    id: &RecordId,
    body: RecordBody,
    details: Option<&serde_json::Value>,
) -> Result<()> {
    // By the store's clock: a run that failed because this host's is wrong must be believed all the same.
    let recorded = host.runtime.block_on(vault.storage.now()).unwrap_or_else(|_| host.clock.now());
    write_at(host, vault, job, id, recorded, body, details)
}

/// As [`write_as`], recorded at an earlier moment of the store's clock: what is held against what a sweep says of its own
/// time.
///
/// # Errors
/// As [`write_as`].
pub fn write_at(
    host: &Host,
    vault: &OpenVault,
    job: &JobName,
    id: &RecordId,
    recorded: DateTime<Utc>,
    body: RecordBody,
    details: Option<&serde_json::Value>,
) -> Result<()> {
    let home = host.home()?;
    vault.must_let_write(host, job, recorded)?;
    let sealed = match details {
        Some(details) => {
            let mut sealer = Sealer::new(&vault.settings.recipients, DETAILS_LEVEL)?;
            Some(sealer.seal(details.to_string().as_bytes())?.bytes)
        }
        None => None,
    };
    let record = Record {
        version: RECORD_VERSION,
        vault: vault.trust.vault.clone(),
        job: job.clone(),
        id: id.clone(),
        host: vault.host_name(host)?,
        tool: TOOL.to_owned(),
        recorded,
        body,
        details: sealed.as_deref().map(details_id),
    };
    match kind(&record.body) {
        Kind::Decision => {
            into_vault(host, vault, &record, sealed)?;
            Ok(host.runtime.block_on(home.catalog.record(&vault.record_here(record.clone())))?)
        }
        Kind::History => tell(host, home, vault, Waiting { record, details: sealed }),
    }
}

/// Whether a record tells what was, or makes something so.
enum Kind {
    History,
    Decision,
}

fn kind(body: &RecordBody) -> Kind {
    match body {
        RecordBody::Run(_)
        | RecordBody::Drill(_)
        | RecordBody::Refutation(_)
        | RecordBody::Prune(_)
        | RecordBody::Copy(_)
        | RecordBody::Check(_) => Kind::History,
        RecordBody::Removal(_) | RecordBody::Condemned(_) | RecordBody::Quarantine(_) => Kind::Decision,
    }
}

fn tell(host: &Host, home: &Home, vault: &OpenVault, waiting: Waiting) -> Result<()> {
    let outbox = home.state.outbox(&vault.id);
    let kept = outbox.put(&waiting);
    let record = waiting.record;
    match (into_vault(host, vault, &record, waiting.details), kept) {
        (Ok(()), _) => {
            host.runtime.block_on(home.catalog.record(&vault.record_here(record.clone())))?;
            outbox.remove(&record)?;
            // It takes records again. What waits longer waits on: this one is where it belongs.
            let _ = send_waiting(host, vault);
            Ok(())
        }
        (Err(refused), Ok(())) => {
            host.runtime.block_on(home.catalog.record(&vault.record_here(record.clone())))?;
            Err(refused.context("it waits in the state folder, and the next command that writes sends it"))
        }
        // Neither has it: the catalog must not know what a rebuild could not find.
        (Err(refused), Err(full)) => Err(refused.context(full)),
    }
}

/// Sends what waits for the vault, and stops where it is refused. What the vault has already, because a process was
/// killed before it took the record away, is not sent again. What nobody would believe from this host as it is now, and
/// files that are damaged, wait on: [`standing`] tells of them.
///
/// # Errors
/// When vault or catalog refuse, or the outbox cannot be read.
pub fn send_waiting(host: &Host, vault: &OpenVault) -> Result<usize> {
    let home = host.home()?;
    let outbox = home.state.outbox(&vault.id);
    let mut sent = 0;
    for waiting in outbox.waiting()? {
        let Ok(Waiting { record, details }) = waiting else { continue };
        if !would_be_believed(host, vault, &record) {
            continue;
        }
        let name = RecordName::of(&record);
        match host.runtime.block_on(read_record(&*vault.storage, &vault.trust, &name)) {
            // What lies under its name is it.
            Ok(there) => host.runtime.block_on(home.catalog.record(&vault.record_here(there.record)))?,
            Err(error) if is_absent(&error) => {
                into_vault(host, vault, &record, details)?;
                host.runtime.block_on(home.catalog.record(&vault.record_here(record.clone())))?;
            }
            Err(error) => return Err(error.into()),
        }
        outbox.remove(&record)?;
        sent += 1;
    }
    Ok(sent)
}

/// Who was struck off the vault's list meanwhile, or has another name there, would sign in vain.
fn would_be_believed(host: &Host, vault: &OpenVault, record: &Record) -> bool {
    vault.must_let_write(host, &record.job, record.recorded).is_ok()
        && vault.host_name(host).is_ok_and(|name| name == record.host)
}

/// What waits for a vault, and why it may wait for ever.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Records that wait, all of them.
    pub records: usize,
    /// When the oldest was written.
    pub oldest: Option<DateTime<Utc>>,
    /// Those that nobody would believe from this host as it is now; none where the vault cannot be asked.
    pub in_vain: usize,
    /// Files that are damaged, in sentences.
    pub damaged: Vec<String>,
    /// Where all of that lies.
    pub folder: PathBuf,
}

/// How the outbox of a vault stands; `vault` where it can be opened.
///
/// # Errors
/// When the outbox cannot be listed.
pub fn standing(host: &Host, id: &VaultId, vault: Option<&OpenVault>) -> Result<Standing> {
    let outbox = host.home()?.state.outbox(id);
    let mut standing = Standing { folder: outbox.folder().to_owned(), ..Standing::default() };
    for waiting in outbox.waiting()? {
        match waiting {
            Ok(Waiting { record, .. }) => {
                standing.records += 1;
                standing.oldest = Some(standing.oldest.map_or(record.recorded, |oldest| oldest.min(record.recorded)));
                standing.in_vain += usize::from(vault.is_some_and(|vault| !would_be_believed(host, vault, &record)));
            }
            Err(damaged) => standing.damaged.push(chain(&damaged)),
        }
    }
    Ok(standing)
}

/// Nothing is there, or what a killed process left of it.
fn is_absent(error: &VaultError) -> bool {
    match error {
        VaultError::Storage(error) => error.is_not_found(),
        VaultError::RecordUntrusted { .. } => true,
        _ => false,
    }
}

fn into_vault(host: &Host, vault: &OpenVault, record: &Record, details: Option<Bytes>) -> Result<()> {
    host.runtime.block_on(write_record(&*vault.storage, &host.key()?, record, details))?;
    Ok(())
}
