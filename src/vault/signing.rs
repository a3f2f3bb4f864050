//! Signatures in minisign's format, so that anybody can check them with a tool of their distribution.
//!
//! A signature covers the document's bytes and, by a second signature, the *trusted comment*, which repeats what the
//! document is: its scope. It does not know which keys are to be believed.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::keys::{KeyId, PublicKey, SigningKey};

/// No signature is longer.
pub const MAX_SIGNATURE_BYTES: u64 = 4096;

/// Algorithm, key number, Ed25519 signature.
const SIGNATURE_BYTES: usize = 2 + 8 + 64;
const COMMENT_SIGNATURE_BYTES: usize = 64;

/// Why a signature does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// It is no signature of minisign's.
    #[error("its signature is not one of minisign's")]
    Malformed,
    /// Another key made it.
    #[error("it is signed with key {found}, not with {expected}")]
    OtherKey {
        /// The key that should have made it.
        expected: KeyId,
        /// The key that it names.
        found: KeyId,
    },
    /// The bytes, the comment or the signature were changed.
    #[error("its signature does not match its bytes")]
    Wrong,
}

/// Signs a document. The comment must be one line.
///
/// # Panics
/// Where the system has no random numbers to give.
#[must_use]
pub fn sign(key: &SigningKey, document: &[u8], trusted_comment: &str) -> Bytes {
    assert!(!trusted_comment.contains(['\n', '\r']) && trusted_comment.trim() == trusted_comment, "one line");
    let untrusted = format!("signature by lifeboat, key {}", key.public().id());
    let signature = minisign::sign(None, &key.secret, document, Some(trusted_comment), Some(&untrusted))
        .expect("an unencrypted key signs bytes in memory");
    signature.into_string().into()
}

/// The key that a signature says it was made with; nothing is checked.
///
/// # Errors
/// [`SignatureFault::Malformed`].
pub fn signer(signature: &[u8]) -> Result<KeyId, SignatureFault> {
    Ok(KeyId::from_minisign(parse(signature)?.keynum()))
}

/// Checks a signature and returns its trusted comment.
///
/// # Errors
/// A [`SignatureFault`].
pub fn verify(key: &PublicKey, document: &[u8], signature: &[u8]) -> Result<String, SignatureFault> {
    let signature = parse(signature)?;
    let found = KeyId::from_minisign(signature.keynum());
    if found != key.id() {
        return Err(SignatureFault::OtherKey { expected: key.id(), found });
    }
    minisign::verify(&key.0, &signature, Cursor::new(document), true, false, false)
        .map_err(|_| SignatureFault::Wrong)?;
    signature.trusted_comment().map_err(|_| SignatureFault::Malformed)
}

fn parse(signature: &[u8]) -> Result<minisign::SignatureBox, SignatureFault> {
    let text = std::str::from_utf8(signature).map_err(|_| SignatureFault::Malformed)?;
    // Exactly four lines, each of them whole: what follows would be ignored by some readers and not by others.
    if text.lines().count() != 4 || !text.ends_with('\n') || text.contains('\r') {
        return Err(SignatureFault::Malformed);
    }
    // The minisign crate indexes into what it decoded without looking at its length.
    for (line, length) in [(1, SIGNATURE_BYTES), (3, COMMENT_SIGNATURE_BYTES)] {
        let decoded = text.lines().nth(line).and_then(|line| BASE64.decode(line).ok());
        if decoded.is_none_or(|bytes| bytes.len() != length) {
            return Err(SignatureFault::Malformed);
        }
    }
    minisign::SignatureBox::from_string(text).map_err(|_| SignatureFault::Malformed)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_stock_tool_accepts_ours() {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::generate();
        let document = folder.path().join("document.json");
        std::fs::write(&document, b"{}\n").unwrap();
        let signature = sign(&key, b"{}\n", "lifeboat-backup vault=x sequence=1");
        std::fs::write(folder.path().join("document.json.minisig"), &signature).unwrap();
        let minisign = |document: &std::path::Path| {
            Command::new("minisign")
                .args(["-V", "-P", &key.public().to_string(), "-m"])
                .arg(document)
                .output()
                .expect("minisign must be installed for this test: apt-get install minisign")
        };
        let output = minisign(&document);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("lifeboat-backup vault=x sequence=1"));
        std::fs::write(&document, b"{ }\n").unwrap();
        assert!(!minisign(&document).status.success());
    }

    #[test]
    fn a_key_file_of_ours_works_in_the_stock_tool_and_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, document) = (folder.path().join("host.key"), folder.path().join("a"));
        let key = SigningKey::generate();
        key.write_new(&secret, "lifeboat host key").unwrap();
        std::fs::write(&document, b"hello").unwrap();
        let output = Command::new("minisign")
            .args(["-S", "-t", "by hand", "-s"])
            .arg(&secret)
            .arg("-m")
            .arg(&document)
            .output()
            .expect("minisign must be installed for this test: apt-get install minisign");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let signature = std::fs::read(folder.path().join("a.minisig")).unwrap();
        assert_eq!(verify(key.public(), b"hello", &signature).unwrap(), "by hand");
    }

    #[test]
    fn only_the_right_key_and_document_pass() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let signature = sign(&key, b"document", "scope");
        assert_eq!(verify(key.public(), b"document", &signature).unwrap(), "scope");
        assert_eq!(signer(&signature).unwrap(), key.public().id());
        assert_eq!(verify(key.public(), b"documend", &signature), Err(SignatureFault::Wrong));
        assert!(matches!(verify(other.public(), b"document", &signature), Err(SignatureFault::OtherKey { .. })));
        for malformed in [&b""[..], b"\xff", b"untrusted comment: a\nb\ntrusted comment: c\nd\n", &signature[1..]] {
            assert_eq!(verify(key.public(), b"document", malformed), Err(SignatureFault::Malformed));
        }
        let text = String::from_utf8(signature.to_vec()).unwrap();
        let (head, comment_signature) = text.trim_end().rsplit_once('\n').unwrap();
        let shorter = format!("{head}\n{}\n", &comment_signature[..comment_signature.len() / 2]);
        assert_eq!(verify(key.public(), b"document", shorter.as_bytes()), Err(SignatureFault::Malformed));
        let longer = [&signature[..], b"more\n"].concat();
        assert_eq!(verify(key.public(), b"document", &longer), Err(SignatureFault::Malformed));
    }

    proptest! {
        #[test]
        fn a_changed_signature_never_passes(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let key = SigningKey::generate();
            let mut signature = sign(&key, b"document", "lifeboat-backup sequence=1").to_vec();
            // The first line is the untrusted comment: it may say anything.
            let first = signature.iter().position(|b| *b == b'\n').unwrap() + 1;
            let at = first + at.index(signature.len() - first);
            signature[at] ^= 1 << bit;
            prop_assert!(verify(key.public(), b"document", &signature).is_err());
        }

        #[test]
        fn junk_is_refused_and_does_not_panic(junk in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(verify(SigningKey::generate().public(), b"document", &junk).is_err());
        }
    }
}
