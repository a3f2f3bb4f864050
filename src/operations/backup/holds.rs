//! Holding what a backup names, in a store that can hold: what is new was held when it was stored, what is named again is
//! held anew where too little is left, and vault.json, without which nobody believes any of it, as long as the rest.
//!
//! Until when each object is held stands in a file of the state folder, so that nobody has to ask the store for each: an
//! object that every run names costs a request every so many days (domain/retention/hold.rs). The file is a cache: lost, the
//! next run holds everything that it names once more. Nothing but this host makes a hold longer, and no hold is made
//! shorter, so what it says stays true.
//!
//! It happens before the commit: no manifest is ever seen whose objects are not held. A run that fails between the two
//! has made some holds longer than an older backup would need, by the time between the two.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::super::state::write_private;
use super::super::vaults::OpenVault;
use super::Run;
use super::source::StoredSource;
use crate::config::JobSettings;
use crate::domain::ids::ObjectId;
use crate::domain::manifest::Manifest;
use crate::domain::retention::Hold;
use crate::error::{Code, Error, Result};
use crate::storage::holding::Holding;
use crate::storage::{Storage, StorageError};
use crate::vault::layout::Key;

const MAGIC: &[u8; 16] = b"lifeboat holds\0\x01";
const NAME_BYTES: usize = 32;
const ENTRY_BYTES: usize = NAME_BYTES + 8;
const CHECKSUM_BYTES: usize = 32;
/// Requests under way at once.
const HOLDS_AT_ONCE: usize = 16;
/// After so many somebody who wants to stop is listened to.
const HOLDS_IN_A_ROW: usize = 512;

/// How long what the job stores is held. Nobody who wants it held is to believe that it is, and it is not.
pub(super) fn asked_for(vault: &OpenVault, settings: &JobSettings) -> Result<Option<Hold>> {
    match (vault.storage.lock(), settings.hold) {
        (None, _) => Ok(None),
        (Some(_), Some(hold)) => Ok(Some(hold)),
        (Some(_), None) => {
            let what = format!("the vault holds what is stored, and nobody said how long that of {} is", settings.name);
            Err(Error::new(Code::Internal, what))
        }
    }
}

/// The store as a source's segments and lists are put into it: `data_from` is the earliest that their data can be of.
pub(super) fn storing(run: &Run<'_>, data_from: DateTime<Utc>) -> (Arc<dyn Storage>, Option<DateTime<Utc>>) {
    let storage = Arc::clone(&run.vault.storage);
    match &run.hold {
        None => (storage, None),
        Some(hold) => {
            let until = hold.stored_until(run.began.min(data_from));
            (Arc::new(Holding::new(storage, until)), Some(until))
        }
    }
}

/// The store as a manifest is put into it.
pub(super) fn committing(run: &Run<'_>, manifest: &Manifest) -> Arc<dyn Storage> {
    let storage = Arc::clone(&run.vault.storage);
    match &run.hold {
        None => storage,
        Some(hold) => {
            let until = hold.manifest_until(manifest.recovery_point, manifest.committed);
            Arc::new(Holding::new(storage, until))
        }
    }
}

/// Holds what the manifest is about to name, for as long as it must.
///
/// # Errors
/// When the store refuses, or something is not there any more: then nothing may be committed.
pub(super) fn hold_named(run: &Run<'_>, manifest: &Manifest, stored: &[StoredSource]) -> Result<()> {
    let Some(hold) = &run.hold else { return Ok(()) };
    let path = run.host.home()?.state.holds_file(&run.vault.id, run.job)?;
    let known = Holds::read(&path);
    let from = run.began.min(manifest.recovery_point);
    let (mut holds, mut wanted) = (Holds::default(), Vec::new());
    for source in stored {
        let lists = source.entry.lists.iter().map(|list| (*list, Key::List(*list)));
        for (name, key) in source.named.keys().map(|object| (*object, Key::Object(*object))).chain(lists) {
            let held = source.held_until.filter(|_| source.created.contains(&name)).or_else(|| known.until(&name));
            match (hold.renewal(from, manifest.committed, held), held) {
                (Some(until), _) => wanted.push((name, key.to_string(), until)),
                (None, Some(held)) => holds.0.push((name, held.timestamp())),
                (None, None) => {}
            }
        }
    }
    let renewed = wanted.len();
    for part in wanted.chunks(HOLDS_IN_A_ROW) {
        run.host.check_interrupted()?;
        holds.0.extend(run.host.runtime.block_on(renew(&*run.vault.storage, part)).map_err(explained)?);
    }
    hold_trust(run, hold, from, manifest.committed)?;
    tracing::info!(job = %run.job, renewed, of = holds.0.len(), "held against deletion");
    if let Err(error) = holds.write(&path) {
        run.progress.warn(&format!("{error}: the next run asks the store to hold everything once more"));
    }
    Ok(())
}

async fn renew(
    storage: &dyn Storage,
    wanted: &[(ObjectId, String, DateTime<Utc>)],
) -> Result<Vec<(ObjectId, i64)>, StorageError> {
    stream::iter(wanted)
        .map(|(name, key, until)| async move { Ok((*name, storage.hold(key, *until).await?.timestamp())) })
        .buffer_unordered(HOLDS_AT_ONCE)
        .try_collect()
        .await
}

/// vault.json changes now and then, so nobody remembers until when it is held: it is asked, two questions a run.
fn hold_trust(run: &Run<'_>, hold: &Hold, from: DateTime<Utc>, committed: DateTime<Utc>) -> Result<()> {
    let storage = &*run.vault.storage;
    for key in [Key::Trust, Key::TrustSignature].map(|key| key.to_string()) {
        let held = run.host.runtime.block_on(storage.held_until(&key))?;
        if let Some(until) = hold.renewal(from, committed, held) {
            match run.host.runtime.block_on(storage.hold(&key, until)) {
                // It was there when the vault was opened; whoever replaces it now has the next run hold it.
                Err(error) if error.is_not_found() => {}
                held => drop(held?),
            }
        }
    }
    Ok(())
}

fn explained(error: StorageError) -> Error {
    match error {
        StorageError::NotFound { key, .. } => {
            Error::new(Code::ObjectMissing, format!("{key} was stored and is not there; nothing was committed"))
                .with_hint("run it again: what is missing is stored anew")
        }
        error => error.into(),
    }
}

/// Until when each name is held, in whole seconds, which is what stores keep.
#[derive(Debug, Default, PartialEq, Eq)]
struct Holds(Vec<(ObjectId, i64)>);

impl Holds {
    /// What the last run wrote; nothing where that is gone or damaged.
    fn read(path: &Path) -> Self {
        match fs::read(path) {
            Ok(bytes) => Self::decode(&bytes).unwrap_or_default(),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::info!("cannot read {}: {error}", path.display());
                }
                Self::default()
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        let entries = body.strip_prefix(MAGIC)?;
        if blake3::hash(body).as_bytes() != checksum || !entries.len().is_multiple_of(ENTRY_BYTES) {
            return None;
        }
        let entry = |entry: &[u8]| {
            let (name, until) = entry.split_at_checked(NAME_BYTES)?;
            Some((ObjectId(name.try_into().ok()?), i64::from_le_bytes(until.try_into().ok()?)))
        };
        entries.chunks_exact(ENTRY_BYTES).map(entry).collect::<Option<Vec<_>>>().map(Self)
    }

    fn encode(&mut self) -> Vec<u8> {
        self.0.sort_unstable();
        let mut bytes = Vec::with_capacity(MAGIC.len() + self.0.len() * ENTRY_BYTES + CHECKSUM_BYTES);
        bytes.extend(MAGIC);
        for (name, until) in &self.0 {
            bytes.extend(name.0);
            bytes.extend(until.to_le_bytes());
        }
        let checksum = *blake3::hash(&bytes).as_bytes();
        bytes.extend(checksum);
        bytes
    }

    fn write(mut self, path: &Path) -> Result<()> {
        Ok(write_private(path, &self.encode())?)
    }

    fn until(&self, name: &ObjectId) -> Option<DateTime<Utc>> {
        let place = self.0.binary_search_by_key(name, |(known, _)| *known).ok()?;
        DateTime::from_timestamp(self.0[place].1, 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_and_any_damage_makes_it_nothing(
            entries in prop::collection::btree_map(any::<[u8; 32]>(), 0i64..4_000_000_000, 0..40),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let mut holds = Holds(entries.iter().map(|(name, until)| (ObjectId(*name), *until)).collect());
            let mut bytes = holds.encode();
            let read = Holds::decode(&bytes).unwrap();
            for (name, until) in &entries {
                prop_assert_eq!(read.until(&ObjectId(*name)).unwrap().timestamp(), *until);
            }
            prop_assert_eq!(read.until(&ObjectId([0x5a; 32])).is_some(), entries.contains_key(&[0x5a; 32]));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Holds::decode(&bytes), None);
            prop_assert_eq!(Holds::decode(&bytes[..at]), None);
        }
    }
}
