//! Manifests that are said to have been removed before their time.
//!
//! A removal is a record, and whoever has a key of a host can write one; it makes the backup count as gone, and the next
//! prune would finish what it says. So no manifest goes on a record's word that is younger than `keep_at_least`.

use chrono::{DateTime, TimeDelta, Utc};

use super::PruneRequest;
use crate::domain::claim::CLOCK_TOLERANCE;
use crate::domain::quantity::exact_duration;
use crate::error::Result;
use crate::operations::host::Host;
use crate::operations::vaults::OpenVault;
use crate::vault::VaultError;
use crate::vault::layout::{Key, ManifestName};
use crate::vault::manifests::read_manifest;
use crate::vault::sweep::Stock;

/// A manifest that a removal names, and that is younger than `keep_at_least`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Early {
    pub(super) name: ManifestName,
    /// Whether it stops nothing, and only stays until it is old enough: a person has looked at it, or its job is another
    /// host's, who may keep it for a shorter time.
    pub(super) is_left_alone: bool,
    keep_at_least: String,
}

impl Early {
    /// What it says, and what to type next.
    pub(super) fn stop(&self) -> (String, String) {
        let key = Key::Manifest(self.name.clone());
        (
            format!(
                "{key}: a record says that it was removed, and it is younger than {}: no prune by this config did that",
                self.keep_at_least
            ),
            format!(
                "look for who wrote that record (records/removals/): if nobody should have, end its host's key with \
                 `lifeboat host revoke` and take the record out of the vault, and the backup counts again. If it was meant, \
                 `lifeboat quarantine {}`: then it goes when it is old enough",
                self.name.id
            ),
        )
    }
}

/// Finds them. A manifest is as young as its commit and the store say, whichever is later; one of which neither can be
/// known is young. Of a job that is not in the config the longest promise counts.
///
/// # Errors
/// When the vault cannot be read.
pub(super) fn early(host: &Host, vault: &OpenVault, request: &PruneRequest<'_>, stock: &Stock) -> Result<Vec<Early>> {
    let survey = stock.survey();
    let longest = request.promises.values().map(|promise| promise.keep_at_least).max().unwrap_or_default();
    let mut all = Vec::new();
    for name in &survey.removed {
        let committed = match host.runtime.block_on(read_manifest(&*vault.storage, &vault.trust, name)) {
            Ok(verified) => Some(verified.manifest.committed),
            Err(VaultError::ManifestUntrusted { .. }) => None,
            // It went since.
            Err(VaultError::ManifestMissing { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        // A manifest is committed by the host's clock, and a moment before the store has it. A copy has it since it was
        // copied, which says nothing of its age.
        let seen = stock.modified(name).filter(|_| !vault.is_copy());
        let seen = seen.and_then(|seen| seen.checked_sub_signed(CLOCK_TOLERANCE));
        let keep = request.promises.get(&name.job).map_or(longest, |promise| promise.keep_at_least);
        let old_at = |from: DateTime<Utc>| from.checked_add_signed(TimeDelta::from_std(keep).ok()?);
        let is_old = committed.into_iter().chain(seen).max().and_then(old_at).is_some_and(|old| old <= stock.taken());
        if !is_old {
            let is_left_alone = !request.promises.contains_key(&name.job)
                || survey.set_aside.contains(&(name.job.clone(), name.id.clone()));
            all.push(Early { name: name.clone(), is_left_alone, keep_at_least: exact_duration(keep) });
        }
    }
    Ok(all)
}
