//! The keys of deduplication, derived from one secret of the host. They protect no data: they keep names and sizes
//! of stored segments from telling what is inside. Losing the secret costs one full backup.

use crate::domain::ids::{JobName, SourceName, VaultId};

use super::GearTable;

/// Bytes of the host's secret.
const SECRET_BYTES: usize = 32;

/// The host's secret.
#[derive(Clone)]
pub struct HostSecret([u8; SECRET_BYTES]);

impl HostSecret {
    /// Takes the secret from its hexadecimal form, as it lies in the state folder.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; SECRET_BYTES];
        hex::decode_to_slice(text.trim(), &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// A new one from random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// For the state folder, and nowhere else.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The keys of one source: sources share none, so that nobody can see in the lists what they have in common.
    #[must_use]
    pub fn for_source(&self, vault: &VaultId, job: &JobName, source: &SourceName) -> SourceKeys {
        let derive = |purpose: &str| -> [u8; 32] {
            let mut hasher = blake3::Hasher::new_derive_key(&format!("lifeboat 2026-11 {purpose} v1"));
            hasher.update(&self.0);
            // Lengths are told apart by the separator: no name holds a slash.
            hasher.update(format!("{vault}/{job}/{source}").as_bytes());
            hasher.finalize().into()
        };
        SourceKeys { id_key: derive("segment id"), name_key: derive("bundle boundary"), cut_key: derive("cut table") }
    }
}

impl std::fmt::Debug for HostSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostSecret(..)")
    }
}

/// The keys of one source of one job in one vault.
#[derive(Clone)]
pub struct SourceKeys {
    /// Keys the ids of segments; travels in the sealed contents.
    pub id_key: [u8; 32],
    /// Decides between which names a bundle of small files ends.
    pub name_key: [u8; 32],
    cut_key: [u8; 32],
}

impl SourceKeys {
    /// The table that content-defined cutting runs on.
    #[must_use]
    pub fn gear(&self) -> GearTable {
        GearTable::derived(&self.cut_key)
    }
}

impl std::fmt::Debug for SourceKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SourceKeys(..)")
    }
}
