//! Signing keys in minisign's format: a host's own, and the vault's, which is kept offline.
//!
//! The secret files have no password, because a backup runs with nobody there; their protection is their mode and,
//! for the vault's key, that it is elsewhere.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::VaultError;

const MAX_KEY_FILE_BYTES: u64 = 4096;

/// The number by which minisign tells keys apart. Chosen by whoever made the key: a hint, no proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

impl KeyId {
    pub(super) fn from_minisign(number: &[u8]) -> Self {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(number).for_each(|(to, from)| *to = *from);
        Self(u64::from_le_bytes(bytes))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A public key, written `RWQ…` on one line.
#[derive(Clone, PartialEq)]
pub struct PublicKey(pub(super) minisign::PublicKey);

impl Eq for PublicKey {}

impl PublicKey {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::from_minisign(self.0.keynum())
    }
}

impl FromStr for PublicKey {
    type Err = VaultError;

    fn from_str(text: &str) -> Result<Self, VaultError> {
        let wrong = || VaultError::PublicKey { text: text.chars().take(80).collect() };
        let key = Self(minisign::PublicKey::from_base64(text).map_err(|_| wrong())?);
        // `RW` stands for Ed25519, and there is one way to write a key.
        if text.starts_with("RW") && key.to_string() == text { Ok(key) } else { Err(wrong()) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_base64())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A secret key with its public half.
pub struct SigningKey {
    pub(super) secret: minisign::SecretKey,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // minisign's own Debug prints the secret.
        write!(f, "SigningKey({})", self.public.id())
    }
}

impl SigningKey {
    /// A new key from the system's random numbers.
    ///
    /// # Panics
    /// Where the system has no random numbers to give.
    #[must_use]
    pub fn generate() -> Self {
        let pair = minisign::KeyPair::generate_unencrypted_keypair()
            .expect("the system gives random numbers, and the rest is arithmetic");
        Self { secret: pair.sk, public: PublicKey(pair.pk) }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Writes the key into a new file that only its owner can read; durable when it returns.
    ///
    /// # Errors
    /// [`VaultError::KeyFile`] where there is a file already, or none can be made.
    pub fn write_new(&self, path: &Path, comment: &str) -> Result<(), VaultError> {
        let failed = |reason: String| VaultError::KeyFile { path: path.to_owned(), reason };
        let comment = comment.replace(['\n', '\r'], " ");
        let text = self.secret.to_box(Some(&comment)).map_err(|error| failed(error.to_string()))?.into_string();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::AlreadyExists => failed("it exists, and keys are never overwritten".into()),
                _ => failed(format!("it cannot be made: {error}")),
            }
        })?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(parent)?.sync_all())
            .map_err(|error| failed(format!("it cannot be written: {error}")))
    }

    /// Reads a key file without a password.
    ///
    /// # Errors
    /// [`VaultError::KeyFile`] where it is missing, readable by others, or not such a key.
    pub fn read(path: &Path) -> Result<Self, VaultError> {
        let failed = |reason: String| VaultError::KeyFile { path: path.to_owned(), reason };
        let file = File::open(path).map_err(|error| failed(format!("it cannot be opened: {error}")))?;
        let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(failed("others than its owner can use it".into()));
        }
        let mut text = String::new();
        file.take(MAX_KEY_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| failed(format!("it cannot be read: {error}")))?;
        // Errors of the parser could quote what they choked on.
        let not_a_key = || failed("it is not a minisign secret key without a password".into());
        let key = minisign::SecretKeyBox::from_string(&text).map_err(|_| not_a_key())?;
        if text.lines().nth(1).is_none_or(str::is_empty) {
            return Err(not_a_key());
        }
        let secret = key.into_unencrypted_secret_key().map_err(|_| not_a_key())?;
        let public = minisign::PublicKey::from_secret_key(&secret).map_err(|_| not_a_key())?;
        Ok(Self { secret, public: PublicKey(public) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.key");
        let key = SigningKey::generate();
        key.write_new(&path, "lifeboat host key\nof web-1").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SigningKey::read(&path).unwrap().public(), key.public());
        let again = key.write_new(&path, "x").unwrap_err().to_string();
        assert!(again.contains("never overwritten"), "{again}");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(SigningKey::read(&path).unwrap_err().to_string().contains("others than its owner"));
    }

    #[test]
    fn what_is_no_key_is_refused_without_quoting_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.key");
        assert!(SigningKey::read(&path).is_err());
        for text in ["", "secret", "untrusted comment: x\nc2VjcmV0\n", "untrusted comment: x\n"] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let message = SigningKey::read(&path).unwrap_err().to_string();
            assert!(message.contains("not a minisign secret key") && !message.contains("c2Vj"), "{message}");
        }
    }

    #[test]
    fn public_keys_are_one_line() {
        let key = SigningKey::generate().public().clone();
        let text = key.to_string();
        assert!(text.starts_with("RW"));
        assert_eq!(text.parse::<PublicKey>().unwrap(), key);
        assert_eq!(key.id().to_string().len(), 16);
        for bad in ["", "RWQ", &text[1..], &format!("{text} "), &text.replacen("RW", "AA", 1), &format!("x{text}")] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", SigningKey::generate()).len(), "SigningKey(0011223344556677)".len());
    }
}
