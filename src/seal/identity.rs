//! Identities: the secret keys that open what was sealed.

use age::secrecy::ExposeSecret;
use age::x25519::Identity;

use super::SealError;

/// One or more age X25519 identities.
pub struct Identities(Vec<Identity>);

impl Identities {
    /// Makes a new identity: its secret line, for an identity file, and its public key.
    #[must_use]
    pub fn generate() -> (String, String) {
        let identity = Identity::generate();
        (identity.to_string().expose_secret().to_owned(), identity.to_public().to_string())
    }

    /// Parses an identity file: secret lines, comments, empty lines. `place` names it in errors.
    ///
    /// # Errors
    /// When a line is something else, or there is no identity. The line's text is never shown.
    pub fn parse(text: &str, place: &str) -> Result<Self, SealError> {
        let mut identities = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            identities
                .push(line.parse().map_err(|_| SealError::Identity { place: place.to_owned(), line: index + 1 })?);
        }
        if identities.is_empty() {
            return Err(SealError::NoIdentities { place: place.to_owned() });
        }
        Ok(Self(identities))
    }

    /// The public keys of the identities.
    #[must_use]
    pub fn recipients(&self) -> Vec<String> {
        self.0.iter().map(|identity| identity.to_public().to_string()).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|identity| identity as &dyn age::Identity)
    }
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_comments_is_read_and_errors_keep_the_secret() {
        let (secret, recipient) = Identities::generate();
        let text = format!("# public key: {recipient}\n\n{secret}\n");
        assert_eq!(Identities::parse(&text, "file").unwrap().recipients(), [recipient]);

        let broken = format!("# x\n{}", &secret[..secret.len() - 3]);
        let error = Identities::parse(&broken, "drill.key").unwrap_err().to_string();
        assert_eq!(error, "line 2 of drill.key is not an age identity");
        assert!(matches!(Identities::parse("# nothing\n", "f"), Err(SealError::NoIdentities { .. })));
    }
}
