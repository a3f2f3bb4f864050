//! A walk through the folders of a store, without following links.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use chrono::DateTime;
use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::super::{Listed, StorageError};
use super::folders::{Entry, Root, entry, split};
use super::staging::STAGING_FOLDER;

/// Entries that travel together to the visitor.
const LISTING_BATCH: usize = 512;
/// Folders in folders that a listing follows; a vault has three.
const MAX_DEPTH: usize = 16;

/// Sends batches of everything visible whose key begins with `prefix`. Blocks while nobody takes them.
pub(super) fn list(root: &Root, prefix: &str, sender: mpsc::Sender<Vec<Listed>>) -> Result<(), StorageError> {
    let mut listing = Listing { root, prefix, batch: Vec::new(), sender };
    listing.folder(split(prefix).0, 0)?;
    listing.send();
    Ok(())
}

struct Listing<'a> {
    root: &'a Root,
    prefix: &'a str,
    batch: Vec<Listed>,
    sender: mpsc::Sender<Vec<Listed>>,
}

impl Listing<'_> {
    fn folder(&mut self, path: &str, depth: usize) -> Result<(), StorageError> {
        let failed = |error: Errno| self.root.error(path, format!("listing {path}/"), error.into());
        let fd = match self.root.folder(path) {
            Ok(fd) => fd,
            // Nothing there, or it went away meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for found in Dir::read_from(&fd).map_err(failed)? {
            let found = found.map_err(failed)?;
            let name = found.file_name().to_string_lossy();
            // `lost+found` belongs to the disk that the vault is the root of.
            if matches!(&*name, "." | "..") || path.is_empty() && matches!(&*name, STAGING_FOLDER | "lost+found") {
                continue;
            }
            let key = if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") };
            if !(key.starts_with(self.prefix) || self.prefix.starts_with(&format!("{key}/"))) {
                continue;
            }
            let status = match rustix::fs::statat(&fd, found.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) => status,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error)),
            };
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                if depth == MAX_DEPTH {
                    let found = "a folder, deeper than any of a vault";
                    return Err(StorageError::NotAFile { place: self.root.place(), key, found });
                }
                self.folder(&key, depth + 1)?;
            } else if !path.is_empty() && leads_away(&fd, &status, found.file_name()) {
                // Taken for a file it would hide a whole folder, and what lies behind it would pass for gone.
                let found = "a symbolic link where a folder may belong";
                return Err(StorageError::NotAFile { place: self.root.place(), key, found });
            } else if key.starts_with(self.prefix) {
                let nanos = u32::try_from(status.st_mtime_nsec).unwrap_or(0);
                let size_bytes = match entry(&status) {
                    Entry::File { size_bytes } => size_bytes,
                    _ => 0,
                };
                let modified = DateTime::from_timestamp(status.st_mtime, nanos);
                self.batch.push(Listed { key, size_bytes, modified });
                if self.batch.len() == LISTING_BATCH {
                    self.send();
                }
            }
        }
        Ok(())
    }

    fn send(&mut self) {
        // Nobody waits for it any more where the listing was cancelled.
        let _ = self.sender.blocking_send(std::mem::take(&mut self.batch));
    }
}

/// Whether it is a link to anything but a plain file: to a folder, or to one on a disk that is not there now.
fn leads_away(folder: &OwnedFd, status: &Stat, name: &CStr) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::Symlink
        && !rustix::fs::statat(folder, name, AtFlags::empty())
            .is_ok_and(|target| FileType::from_raw_mode(target.st_mode) == FileType::RegularFile)
}
