//! Where a vault lies: a folder of this machine, or a prefix of a bucket.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{resolve, s3};
use crate::error::{Code, Diagnostic};

/// Where a vault lies. Displays as it can be written in a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultUrl {
    /// An absolute path.
    Folder(PathBuf),
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all keys begin with, without a slash at either end; empty where the bucket is the vault's alone.
        prefix: String,
    },
}

/// Why a text is not the place of a vault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultUrlError {
    /// Not a bucket, or not a prefix.
    #[error("a vault in a bucket is written \"s3://bucket/prefix\": {what}")]
    Bucket {
        /// What is wrong with it; never shows what may be a secret.
        what: &'static str,
    },
    /// Something else that looks like a URL.
    #[error(
        "{scheme}:// is no place for a vault; a folder is written as its path, such as \"/srv/backups\", and a bucket as \
         \"s3://bucket/prefix\""
    )]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// Not a usable path.
    #[error("{what}")]
    Path {
        /// Why.
        what: String,
    },
}

impl Diagnostic for VaultUrlError {
    fn code(&self) -> Code {
        Code::ConfigInvalid
    }
}

impl VaultUrl {
    /// Reads a vault's place; a relative folder is one of `base_dir`.
    ///
    /// # Errors
    /// [`VaultUrlError`].
    pub fn parse(text: &str, base_dir: &Path) -> Result<Self, VaultUrlError> {
        match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("s3") => s3::bucket_and_prefix(rest)
                .map(|(bucket, prefix)| Self::S3 { bucket, prefix })
                .map_err(|what| VaultUrlError::Bucket { what }),
            // Only what looks like a scheme is shown: anything may stand before `://`.
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') => {
                Err(VaultUrlError::Scheme { scheme: scheme.to_owned() })
            }
            _ => resolve::path(text, base_dir).map(Self::Folder).map_err(|what| VaultUrlError::Path { what }),
        }
    }
}

impl fmt::Display for VaultUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}
