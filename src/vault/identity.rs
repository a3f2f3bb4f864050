//! What an identity file says of its vault in comments, which age ignores: so that a bare host with nothing but the
//! vault and the identity knows whom to believe.
//!
//! ```text
//! # lifeboat vault: 0011223344556677
//! # lifeboat trust: RWQ…
//! AGE-SECRET-KEY-1…
//! ```
//!
//! The secret keys in it are not looked at.

use super::VaultError;
use super::keys::PublicKey;
use crate::domain::ids::VaultId;

const VAULT: &str = "# lifeboat vault:";
const TRUST: &str = "# lifeboat trust:";

/// Which vault a reader means, and whose signature makes it that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The public half of the vault's offline key.
    pub key: PublicKey,
    /// The vault's id, where it is known.
    pub vault: Option<VaultId>,
}

/// The comment lines for an identity file, each with its newline.
#[must_use]
pub fn comment_lines(vault: &VaultId, key: &PublicKey) -> String {
    format!("{VAULT} {vault}\n{TRUST} {key}\n")
}

/// Finds the comment lines in an identity file; `None` where it has no line `# lifeboat trust:`.
///
/// # Errors
/// Where a line is malformed, or two lines contradict each other: guessing whom to believe is not on.
pub fn read_comments(identity: &str) -> Result<Option<Pin>, VaultError> {
    let vault = match only_value(identity, VAULT, "vault")? {
        Some(text) => Some(text.parse().map_err(|_| VaultError::IdentityVault { text: text.to_owned() })?),
        None => None,
    };
    let Some(text) = only_value(identity, TRUST, "trust")? else { return Ok(None) };
    Ok(Some(Pin { key: text.parse()?, vault }))
}

fn only_value<'t>(identity: &'t str, prefix: &str, name: &'static str) -> Result<Option<&'t str>, VaultError> {
    let mut values = identity.lines().filter_map(|line| line.trim().strip_prefix(prefix)).map(str::trim);
    let first = values.next();
    if values.any(|other| Some(other) != first) {
        return Err(VaultError::IdentityAmbiguous { name });
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::keys::SigningKey;

    #[test]
    fn comments_round_trip_among_others() {
        let key = SigningKey::generate().public().clone();
        let vault = VaultId::from_random([7; 8]);
        let lines = comment_lines(&vault, &key);
        let identity = format!("# created: 2026-11-22\n{lines}# public key: age1xyz\nAGE-SECRET-KEY-1XYZ\n");
        let pin = Pin { key: key.clone(), vault: Some(vault) };
        assert_eq!(read_comments(&identity).unwrap(), Some(pin.clone()));
        assert_eq!(read_comments(&identity.replace('\n', "\r\n")).unwrap(), Some(pin.clone()));
        assert_eq!(read_comments(&identity.repeat(2)).unwrap(), Some(pin), "the same line twice is no contradiction");
        assert_eq!(read_comments("AGE-SECRET-KEY-1XYZ\n").unwrap(), None);
        assert_eq!(read_comments(&format!("{TRUST} {key}")).unwrap(), Some(Pin { key, vault: None }));
    }

    #[test]
    fn contradictions_and_nonsense_are_errors() {
        let lines = || comment_lines(&VaultId::from_random([7; 8]), SigningKey::generate().public());
        let error = read_comments(&format!("{}{}", lines(), lines())).unwrap_err();
        assert!(matches!(error, VaultError::IdentityAmbiguous { name: "trust" }), "{error}");
        assert!(matches!(read_comments("# lifeboat trust: me"), Err(VaultError::PublicKey { .. })));
        assert!(matches!(read_comments("# lifeboat vault: x"), Err(VaultError::IdentityVault { .. })));
    }
}
