//! Secrets: the config says where one lies, and it is read when it is used, not before.
//!
//! A value never stands in the config, in a Debug print, in an error or in a process's arguments.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;

use crate::error::{Code, Diagnostic};

/// No secret is longer; an identity file with comments is far shorter.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Where systemd puts the credentials of a service.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Where a secret lies. Holds no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a file that not everyone may read.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
    /// In a systemd credential (`LoadCredential=`).
    Credential(String),
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system refused.
    #[error("cannot read the secret in {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A pipe or a folder.
    #[error("{} is not a regular file, so no secret is read from it", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// What everyone may read is no secret; what others may write is not ours.
    #[error("{} has mode {mode:04o}: {what}", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// `everyone on this host can read it`, ...
        what: &'static str,
    },
    /// The variable is not set, or empty.
    #[error("the environment variable {name} is not set")]
    VariableMissing {
        /// The variable.
        name: String,
    },
    /// There are no credentials outside a systemd service.
    #[error("the credential {name:?} is not at hand: $CREDENTIALS_DIRECTORY is not set")]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// Nothing is in it.
    #[error("{place} is empty")]
    Empty {
        /// Where it was looked for.
        place: String,
    },
    /// Nothing of ours is that long.
    #[error("{place} is longer than {MAX_SECRET_BYTES} bytes")]
    TooLong {
        /// Where it was looked for.
        place: String,
    },
    /// A secret is one text.
    #[error("{place} is not UTF-8 text")]
    NotText {
        /// Where it was looked for.
        place: String,
    },
}

impl Diagnostic for SecretError {
    fn code(&self) -> Code {
        Code::SecretUnavailable
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Exposed { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::Unreadable { path, cause } if cause.kind() == io::ErrorKind::NotFound => {
                Some(format!("put the secret into {}, mode 600, or name the right place", path.display()))
            }
            Self::NoCredentials { name } => Some(format!(
                "add LoadCredential={name}:/path/to/it to the systemd service, and start it through systemd"
            )),
            Self::VariableMissing { name } => Some(format!("set {name}, or use {{ file = … }} in the config")),
            _ => None,
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::Credential(name) => write!(f, "the systemd credential {name}"),
        }
    }
}

impl Secret {
    /// The file that it lies in, where it is one that a path names.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Env(_) | Self::Credential(_) => None,
        }
    }

    /// Reads the secret, without the line end behind it.
    ///
    /// # Errors
    /// [`SecretError`]; it never holds the value.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        self.read_with(|name| std::env::var_os(name))
    }

    fn read_with(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<SecretString, SecretError> {
        let mut text = match self {
            Self::File(path) => self.read_file(path)?,
            Self::Env(name) => match variable(name).filter(|value| !value.is_empty()) {
                None => return Err(SecretError::VariableMissing { name: name.clone() }),
                Some(value) => value.into_string().map_err(|_| SecretError::NotText { place: self.to_string() })?,
            },
            Self::Credential(name) => {
                let folder = variable(CREDENTIALS_VARIABLE).filter(|value| !value.is_empty());
                let folder = folder.ok_or_else(|| SecretError::NoCredentials { name: name.clone() })?;
                self.read_file(&Path::new(&folder).join(name))?
            }
        };
        let value = text.strip_suffix('\n').unwrap_or(&text);
        let length = value.strip_suffix('\r').unwrap_or(value).len();
        // Cut in place: a copy would stay behind in memory.
        text.truncate(length);
        if text.trim().is_empty() {
            return Err(SecretError::Empty { place: self.to_string() });
        }
        Ok(SecretString::from(text))
    }

    fn read_file(&self, path: &Path) -> Result<String, SecretError> {
        let unreadable = |cause| SecretError::Unreadable { path: path.to_owned(), cause };
        // Without O_NONBLOCK the open of a pipe would wait for a writer that may never come.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(SecretError::NotAFile { path: path.to_owned() });
        }
        let mode = metadata.mode() & 0o7777;
        let exposed = |what| Err(SecretError::Exposed { path: path.to_owned(), mode, what });
        if mode & 0o004 != 0 {
            return exposed("everyone on this host can read it");
        }
        if mode & 0o022 != 0 {
            return exposed("others than its owner can replace what is in it");
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(MAX_SECRET_BYTES)).unwrap_or(0) + 1);
        file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_SECRET_BYTES {
            return Err(SecretError::TooLong { place: self.to_string() });
        }
        String::from_utf8(bytes).map_err(|_| SecretError::NotText { place: self.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use age::secrecy::ExposeSecret as _;

    use super::*;

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn reads_from_each_place() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("pg"), b"hunter2\r\n", 0o640);
        let file = Secret::File(folder.path().join("pg"));
        assert_eq!(file.read().unwrap().expose_secret(), "hunter2");

        let directory = folder.path().as_os_str().to_owned();
        let read = Secret::Credential("pg".into()).read_with(|_| Some(directory.clone())).unwrap();
        assert_eq!(read.expose_secret(), "hunter2");
        assert!(!format!("{read:?}{file:?}{file}").contains("hunter2"));

        let read = Secret::Env("PG".into()).read_with(|name| (name == "PG").then(|| "a b".into())).unwrap();
        assert_eq!(read.expose_secret(), "a b");
        assert!(matches!(Secret::Env("PG".into()).read_with(|_| None), Err(SecretError::VariableMissing { .. })));
        let outside = Secret::Credential("pg".into()).read_with(|_| None).unwrap_err();
        assert!(outside.hint().unwrap().contains("LoadCredential=pg:"));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let secret = Secret::File(path.clone());
        assert_eq!(secret.read().unwrap_err().code(), Code::SecretUnavailable);
        for (bytes, mode, fragment) in [
            (&b"hunter2"[..], 0o644, "has mode 0644: everyone on this host can read it"),
            (b"hunter2", 0o660, "others than its owner can replace"),
            (b" \n", 0o600, "is empty"),
            (b"hunter2\xff", 0o600, "is not UTF-8 text"),
            (&[b'x'; 65 * 1024], 0o600, "longer than 65536 bytes"),
        ] {
            write(&path, bytes, mode);
            let error = secret.read().unwrap_err();
            assert!(error.to_string().contains(fragment), "{error}");
            assert!(!format!("{error:?}{:?}", error.hint()).contains("hunter2"));
        }
        assert!(matches!(Secret::File(folder.path().to_owned()).read(), Err(SecretError::NotAFile { .. })));
    }
}
