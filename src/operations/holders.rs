//! Who was proven to hold the identity of a recipient: backups that nobody can open are none, and a public key in a config
//! says nothing of where its other half lies.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::domain::ids::VaultId;
use crate::domain::record::DrillOutcome;
use crate::error::Result;

use super::host::Host;

/// When a drill that passed last opened a backup of the vault with the identity of each recipient, as this host's catalog
/// knows.
///
/// # Errors
/// When the catalog cannot be read.
pub fn proven(host: &Host, vault: &VaultId) -> Result<BTreeMap<String, DateTime<Utc>>> {
    let mut newest: BTreeMap<String, DateTime<Utc>> = BTreeMap::new();
    for row in host.runtime.block_on(host.home()?.catalog.drills(vault, None))? {
        if row.drill.outcome != DrillOutcome::Passed {
            continue;
        }
        for recipient in row.drill.environment.opened_for {
            let when = newest.entry(recipient).or_insert(row.drill.finished);
            *when = row.drill.finished.max(*when);
        }
    }
    Ok(newest)
}
