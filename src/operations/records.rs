//! Writing a record of what was done: into the vault, signed, and into this host's catalog.

use rand::RngExt;

use crate::domain::ids::{JobName, RecordId};
use crate::domain::record::{RECORD_VERSION, Record, RecordBody};
use crate::error::Result;
use crate::seal::Sealer;
use crate::vault::records::{details_id, write_record};

use super::TOOL;
use super::host::Host;
use super::vaults::OpenVault;

/// Details are short texts: the fastest level does.
const DETAILS_LEVEL: i32 = 1;

/// Writes a record under a new id.
///
/// # Errors
/// When vault or catalog refuse, or this host may not sign.
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
/// When vault or catalog refuse, or this host may not sign.
pub fn write_as(
    host: &Host,
    vault: &OpenVault,
    job: &JobName,
    id: &RecordId,
    body: RecordBody,
    details: Option<&serde_json::Value>,
) -> Result<()> {
    let home = host.home()?;
    let now = host.clock.now();
    vault.must_let_write(host, job, now)?;
    let sealed = match details {
        Some(details) => {
            let mut sealer = Sealer::new(&vault.settings.recipients, DETAILS_LEVEL)?;
            Some(sealer.seal(details.to_string().as_bytes())?.bytes)
        }
        None => None,
    };
    let record = Record {
        version: RECORD_VERSION,
        vault: vault.id.clone(),
        job: job.clone(),
        id: id.clone(),
        host: vault.host_name(host)?,
        tool: TOOL.to_owned(),
        recorded: now,
        body,
        details: sealed.as_deref().map(details_id),
    };
    // The catalog first: it is what this host answers from, and a vault that is full must not hide a failed run.
    host.runtime.block_on(home.catalog.record(&record))?;
    host.runtime.block_on(write_record(&*vault.storage, &host.key()?, &record, sealed))?;
    Ok(())
}
