//! A stored object back to plain bytes, believing nothing before it is checked: the object's name, age's
//! authentication, the declared size as the bound of decompression, zstd's checksum, the keyed id.

use std::io::Read;

use age::DecryptError;
use sha2::{Digest, Sha256};

use crate::domain::contents::PieceSegment;
use crate::domain::ids::ObjectId;
use crate::domain::segment::MAX_PLAIN_BYTES;

use super::{Identities, SealError, keyed_id};

/// Opens objects with the identities at hand.
#[derive(Debug)]
pub struct Opener {
    identities: Identities,
}

impl Opener {
    /// Takes the identities.
    #[must_use]
    pub fn new(identities: Identities) -> Self {
        Self { identities }
    }

    /// Whether one of the identities is among these recipients.
    #[must_use]
    pub fn opens_for(&self, recipients: &[String]) -> bool {
        self.identities.recipients().iter().any(|own| recipients.contains(own))
    }

    /// Opens a segment that the contents describe.
    ///
    /// # Errors
    /// [`SealError::NotForUs`], or [`SealError::Damaged`] naming the layer that noticed.
    pub fn open_segment(
        &self,
        object: &ObjectId,
        stored: &[u8],
        expected: &PieceSegment,
        id_key: &[u8; 32],
    ) -> Result<Vec<u8>, SealError> {
        let plain = self.open(object, stored, usize::try_from(expected.bytes).unwrap_or(usize::MAX))?;
        if plain.len() as u64 != expected.bytes {
            return Err(damaged(format!("opens to {} bytes where the contents say {}", plain.len(), expected.bytes)));
        }
        if keyed_id(id_key, &plain) != expected.id {
            return Err(damaged("opens to other content than the contents say"));
        }
        Ok(plain)
    }

    /// Opens an object that nothing describes yet: a part of the contents.
    ///
    /// # Errors
    /// As [`Opener::open_segment`].
    pub fn open_contents(&self, object: &ObjectId, stored: &[u8]) -> Result<Vec<u8>, SealError> {
        self.open(object, stored, MAX_PLAIN_BYTES)
    }

    fn open(&self, object: &ObjectId, stored: &[u8], limit_bytes: usize) -> Result<Vec<u8>, SealError> {
        if Sha256::digest(stored).as_slice() != object.0 {
            return Err(damaged("its bytes are not those that its name says"));
        }
        let decryptor = age::Decryptor::new_buffered(stored).map_err(from_age)?;
        let mut reader = decryptor.decrypt(self.identities.iter()).map_err(from_age)?;
        let mut compressed = Vec::with_capacity(stored.len());
        reader.read_to_end(&mut compressed).map_err(|_| damaged("age's authentication fails"))?;
        decompress(&compressed, limit_bytes.min(MAX_PLAIN_BYTES))
    }
}

/// Decompresses one frame that says its size, and no more than `limit_bytes`.
fn decompress(compressed: &[u8], limit_bytes: usize) -> Result<Vec<u8>, SealError> {
    let declared = zstd::zstd_safe::get_frame_content_size(compressed)
        .ok()
        .flatten()
        .ok_or_else(|| damaged("is not a zstd frame that says its size"))?;
    match usize::try_from(declared) {
        Ok(size) if size <= limit_bytes => {
            zstd::bulk::decompress(compressed, size).map_err(|cause| damaged(format!("zstd refuses it: {cause}")))
        }
        _ => Err(damaged(format!("declares {declared} bytes, more than the {limit_bytes} that it may open to"))),
    }
}

fn damaged(reason: impl Into<String>) -> SealError {
    SealError::Damaged { reason: reason.into() }
}

fn from_age(error: DecryptError) -> SealError {
    match error {
        DecryptError::NoMatchingKeys => SealError::NotForUs,
        other => damaged(format!("age refuses it: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sealer;
    use super::*;

    fn pair() -> (Opener, Vec<String>) {
        let (text, recipient) = Identities::generate();
        (Opener::new(Identities::parse(&text, "test").unwrap()), vec![recipient])
    }

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let (opener, recipients) = pair();
        let plain = b"some tar bytes".repeat(1000);
        let sealed = Sealer::new(&recipients, 3).unwrap().seal(&plain).unwrap();
        let key = [7; 32];
        let expected = PieceSegment { id: keyed_id(&key, &plain), bytes: plain.len() as u64 };
        assert_eq!(opener.open_segment(&sealed.object, &sealed.bytes, &expected, &key).unwrap(), plain);

        let short = PieceSegment { bytes: expected.bytes - 1, ..expected };
        assert!(matches!(
            opener.open_segment(&sealed.object, &sealed.bytes, &short, &key),
            Err(SealError::Damaged { reason }) if reason.contains("declares")
        ));
        assert!(opener.open_segment(&sealed.object, &sealed.bytes, &expected, &[8; 32]).is_err());

        let mut flipped = sealed.bytes.to_vec();
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        assert!(matches!(
            opener.open_segment(&sealed.object, &flipped, &expected, &key),
            Err(SealError::Damaged { reason }) if reason.contains("name")
        ));
        // Even under the name of its own bytes, a flipped object fails age's authentication.
        let renamed = ObjectId(Sha256::digest(&flipped).into());
        assert!(matches!(
            opener.open_segment(&renamed, &flipped, &expected, &key),
            Err(SealError::Damaged { reason }) if reason.contains("age")
        ));

        let (stranger, _) = pair();
        assert!(matches!(
            stranger.open_segment(&sealed.object, &sealed.bytes, &expected, &key),
            Err(SealError::NotForUs)
        ));
    }

    #[test]
    fn a_bomb_is_refused_before_it_unfolds() {
        let (opener, recipients) = pair();
        let sealed = Sealer::new(&recipients, 3).unwrap().seal(&vec![0; MAX_PLAIN_BYTES + 1]).unwrap();
        assert!(sealed.bytes.len() < 20_000);
        let error = opener.open_contents(&sealed.object, &sealed.bytes).unwrap_err();
        assert!(error.to_string().contains("more than the"), "{error}");
    }

    #[test]
    fn every_recipient_can_open() {
        let (one, mut recipients) = pair();
        let (two, more) = pair();
        recipients.extend(more);
        let sealed = Sealer::new(&recipients, 1).unwrap().seal(b"both").unwrap();
        for opener in [one, two] {
            assert_eq!(opener.open_contents(&sealed.object, &sealed.bytes).unwrap(), b"both");
        }
    }
}
