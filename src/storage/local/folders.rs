//! From a key to a folder's descriptor and a name in it, without ever following a link below the root.
//!
//! The root itself may be reached through links: where the vault lies is its owner's choice. What lies in it may
//! have been put there by anybody who can write to it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::super::StorageError;

/// Only the owner sees what is in a vault.
const FOLDER_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const OPEN_FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The root folder, held open: `syncfs` tells of failed writes only to descriptors that were open before them.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

/// What lies under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Nothing,
    File { size_bytes: u64 },
    Other(&'static str),
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        let place = || path.display().to_string();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path: path.to_owned() }),
            Err(Errno::NOENT) => Err(StorageError::NoStore { place: place(), reason: "does not exist" }),
            Err(Errno::NOTDIR) => {
                let reason = if path.exists() { "is a file, not a folder" } else { "leads through a file" };
                Err(StorageError::NoStore { place: place(), reason })
            }
            Err(error) => {
                Err(StorageError::Failed { place: place(), doing: "opening the folder".into(), source: error.into() })
            }
        }
    }

    /// The open folder of `key` and the last component's name; `None` where a folder on the way is missing.
    pub(super) fn parent<'k>(&self, key: &'k str) -> Result<Option<(OwnedFd, &'k str)>, StorageError> {
        let (folder, name) = split(key);
        match self.folder(folder) {
            Ok(fd) => Ok(Some((fd, name))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.error(key, format!("opening the folder of {key}"), error.into())),
        }
    }

    /// Opens the folder `path`, relative to the root; the root itself where it is empty.
    pub(super) fn folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        let mut fd = rustix::fs::openat(&self.fd, ".", OPEN_FOLDER, Mode::empty())?;
        for component in path.split('/').filter(|component| !component.is_empty()) {
            fd = rustix::fs::openat(&fd, component, OPEN_FOLDER, Mode::empty())?;
        }
        Ok(fd)
    }

    /// Opens the folder `path`, making what is missing of it.
    pub(super) fn make_folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        let mut fd = rustix::fs::openat(&self.fd, ".", OPEN_FOLDER, Mode::empty())?;
        for component in path.split('/').filter(|component| !component.is_empty()) {
            fd = match rustix::fs::openat(&fd, component, OPEN_FOLDER, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&fd, component, FOLDER_MODE) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error),
                    }
                    rustix::fs::openat(&fd, component, OPEN_FOLDER, Mode::empty())?
                }
                opened => opened?,
            };
        }
        Ok(fd)
    }

    /// Looks at what lies under `key`.
    pub(super) fn look(&self, key: &str) -> Result<Entry, StorageError> {
        let Some((folder, name)) = self.parent(key)? else { return Ok(Entry::Nothing) };
        match stat(&folder, name) {
            Ok(stat) => Ok(entry(&stat)),
            Err(Errno::NOENT) => Ok(Entry::Nothing),
            Err(error) => Err(self.error(key, format!("looking at {key}"), error.into())),
        }
    }

    /// Opens the plain file under `key` for reading, with its size.
    pub(super) fn open_file(&self, key: &str) -> Result<(File, u64), StorageError> {
        let not_found = || StorageError::NotFound { place: self.place(), key: key.to_owned() };
        let Some((folder, name)) = self.parent(key)? else { return Err(not_found()) };
        // Not blocking: a pipe that somebody put in an object's place must not hang its reader.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&folder, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(not_found()),
            Err(error) => return Err(self.error(key, format!("opening {key}"), error.into())),
        };
        let stat =
            rustix::fs::fstat(&fd).map_err(|error| self.error(key, format!("looking at {key}"), error.into()))?;
        match entry(&stat) {
            Entry::File { size_bytes } => Ok((File::from(fd), size_bytes)),
            Entry::Other(found) => Err(StorageError::NotAFile { place: self.place(), key: key.to_owned(), found }),
            Entry::Nothing => Err(not_found()),
        }
    }

    pub(super) fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// The error for what the system said about `key`.
    pub(super) fn error(&self, key: &str, doing: String, source: io::Error) -> StorageError {
        let place = self.place();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => StorageError::Full { place, doing, source },
            Some(Errno::LOOP) => StorageError::NotAFile { place, key: key.to_owned(), found: "a symbolic link" },
            Some(Errno::NOTDIR) => {
                StorageError::NotAFile { place, key: key.to_owned(), found: "behind something that is no folder" }
            }
            _ => StorageError::Failed { place, doing, source },
        }
    }
}

/// The folder's path and the name in it.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

/// Makes a file that must not be there yet, for writing.
pub(super) fn create_file(folder: &impl AsFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, FILE_MODE).map(File::from)
}

pub(super) fn stat(folder: &impl AsFd, name: &str) -> Result<Stat, Errno> {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn entry(stat: &Stat) -> Entry {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Entry::File { size_bytes: u64::try_from(stat.st_size).unwrap_or(0) },
        FileType::Directory => Entry::Other("a folder"),
        FileType::Symlink => Entry::Other("a symbolic link"),
        FileType::Fifo => Entry::Other("a pipe"),
        FileType::Socket => Entry::Other("a socket"),
        _ => Entry::Other("a device"),
    }
}
