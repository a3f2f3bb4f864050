//! README.txt: how to restore by hand, for whoever finds a vault with no lifeboat at hand.

use bytes::Bytes;

use super::layout::Key;
use crate::storage::{Storage, StorageError};

/// What a vault's README.txt says. Between `# --- begin restore.sh ---` and `# --- end restore.sh ---` stands a bash
/// script that restores one backup with age, zstd, tar, sha256sum, minisign and jq; it takes VAULT, BACKUP,
/// IDENTITY and TARGET from its first lines or from the environment.
pub const README: &str = include_str!("README.txt");

/// Writes README.txt, or brings it up to date. Durable when it returns; may be called again.
///
/// # Errors
/// The store's.
pub async fn write_readme(storage: &dyn Storage) -> Result<(), StorageError> {
    storage.replace(&Key::Readme.to_string(), Bytes::from_static(README.as_bytes())).await
}

#[cfg(test)]
mod tests;
