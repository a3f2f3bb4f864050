//! Plain bytes to a stored object: one zstd frame in one age file, named by the SHA-256 of the result.

use std::io::Write;

use age::x25519::Recipient;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::domain::ids::{KeyedId, ObjectId};

use super::SealError;

/// A sealed object.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Its name.
    pub object: ObjectId,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Seals to a fixed set of recipients. One for each thread: it keeps a compressor warm.
pub struct Sealer {
    recipients: Vec<Recipient>,
    compressor: zstd::bulk::Compressor<'static>,
}

impl Sealer {
    /// Parses the recipients.
    ///
    /// # Errors
    /// When there is none, or one is not an age X25519 recipient.
    pub fn new(recipients: &[String], compression_level: i32) -> Result<Self, SealError> {
        let recipients = recipients
            .iter()
            .map(|text| text.parse().map_err(|_| SealError::Recipient { text: text.clone() }))
            .collect::<Result<Vec<Recipient>, _>>()?;
        if recipients.is_empty() {
            return Err(SealError::NoRecipients);
        }
        let failed = |cause: std::io::Error| SealError::Failed { reason: cause.to_string() };
        let mut compressor = zstd::bulk::Compressor::new(compression_level).map_err(failed)?;
        compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true)).map_err(failed)?;
        Ok(Self { recipients, compressor })
    }

    /// Compresses and seals.
    ///
    /// # Errors
    /// Only when a library breaks its word.
    pub fn seal(&mut self, plain: &[u8]) -> Result<Sealed, SealError> {
        let failed = |reason: String| SealError::Failed { reason };
        let compressed = self.compressor.compress(plain).map_err(|e| failed(e.to_string()))?;
        let recipients = self.recipients.iter().map(|r| r as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(|e| failed(e.to_string()))?;
        // An age file is its header (about 100 bytes and as many for each recipient) and 16 bytes for each 64 KiB.
        let mut sealed = Vec::with_capacity(compressed.len() + compressed.len() / 2048 + 512);
        let mut writer = encryptor.wrap_output(&mut sealed).map_err(|e| failed(e.to_string()))?;
        writer.write_all(&compressed).and_then(|()| writer.finish().map(drop)).map_err(|e| failed(e.to_string()))?;
        Ok(Sealed { object: ObjectId(Sha256::digest(&sealed).into()), bytes: sealed.into() })
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("recipients", &self.recipients.len()).finish_non_exhaustive()
    }
}

/// The id by which a writer knows a segment's content again.
#[must_use]
pub fn keyed_id(id_key: &[u8; 32], plain: &[u8]) -> KeyedId {
    KeyedId(blake3::keyed_hash(id_key, plain).into())
}

/// Names a set of recipients, whatever their order: 32 hexadecimal digits.
#[must_use]
pub fn recipient_set(recipients: &[String]) -> String {
    let mut sorted: Vec<&str> = recipients.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    blake3::hash(sorted.join("\n").as_bytes()).to_hex()[..32].to_owned()
}
