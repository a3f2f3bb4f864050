//! Temporary names: where bytes lie between being written and being part of the store.
//!
//! Each open handle that writes has a folder `.tmp/<n>` of its own and holds a lock on `.tmp/<n>/lock`. The lock
//! dies with its process, so that the next handle can tell the leftovers of a dead run, and removes them, from the
//! files of one that is at work.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;

use super::folders::{Root, create_file, stat};

/// The folder of all temporary names, in the root. No key can begin with a dot.
pub(super) const STAGING_FOLDER: &str = ".tmp";
const LOCK: &str = "lock";
/// So many handles may write to one root at once.
const MAX_HANDLES: u32 = 4096;

/// This handle's folder of temporary names.
#[derive(Debug)]
pub(super) struct Staging {
    all: OwnedFd,
    own: OwnedFd,
    name: String,
    next: AtomicU64,
    /// Held until the handle goes away.
    _lock: File,
}

impl Staging {
    /// Removes what dead handles left behind and makes a folder of its own.
    pub(super) fn open(root: &Root) -> io::Result<Self> {
        let all = root.make_folder(STAGING_FOLDER)?;
        remove_leftovers(&all)?;
        for number in 0..MAX_HANDLES {
            let name = number.to_string();
            match rustix::fs::mkdirat(&all, &name, rustix::fs::Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some((own, lock)) = take(root, &name)? {
                return Ok(Self { all, own, name, next: AtomicU64::new(0), _lock: lock });
            }
        }
        Err(io::Error::other(format!("{MAX_HANDLES} other processes are writing here, or seem to be")))
    }

    /// The folder that the names of [`create`](Self::create) are in.
    pub(super) fn folder(&self) -> &OwnedFd {
        &self.own
    }

    /// A new empty file, and the number that it goes by.
    pub(super) fn create(&self) -> Result<(File, u64), Errno> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        create_file(&self.own, &number.to_string()).map(|file| (file, number))
    }

    /// Removes a file that is not wanted any more. What cannot be removed now is a leftover for the next handle.
    pub(super) fn discard(&self, number: u64) {
        let _ = rustix::fs::unlinkat(&self.own, number.to_string(), AtFlags::empty());
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What fails here is removed by the next handle.
        let _ = remove_folder(&self.all, &self.own, &self.name);
    }
}

/// Locks the folder just made. `None` where another handle took it for a leftover meanwhile and is removing it.
fn take(root: &Root, name: &str) -> io::Result<Option<(OwnedFd, File)>> {
    let own = match root.folder(&format!("{STAGING_FOLDER}/{name}")) {
        Ok(own) => own,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let lock = match create_file(&own, LOCK) {
        Ok(lock) => lock,
        Err(Errno::NOENT | Errno::EXIST) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(in_place(&own, &lock)?.then_some((own, lock)))
}

/// Whether the lock that is held is the one of the folder. Between opening and locking it, somebody may have locked
/// and removed it: then ours is a lock on nothing. Once it is seen in place, nobody else can get the lock that
/// removing it needs.
fn in_place(own: &OwnedFd, lock: &File) -> io::Result<bool> {
    let ours = rustix::fs::fstat(lock)?;
    match stat(own, LOCK) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn remove_leftovers(all: &OwnedFd) -> io::Result<()> {
    for entry in Dir::read_from(all)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let flags = rustix::fs::OFlags::RDONLY
            | rustix::fs::OFlags::DIRECTORY
            | rustix::fs::OFlags::NOFOLLOW
            | rustix::fs::OFlags::CLOEXEC;
        let own = match rustix::fs::openat(all, name, flags, rustix::fs::Mode::empty()) {
            Ok(own) => own,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(error.into()),
        };
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
        match rustix::fs::openat(&own, LOCK, flags, rustix::fs::Mode::empty()) {
            Ok(lock) => {
                let lock = File::from(lock);
                match lock.try_lock() {
                    Ok(()) if in_place(&own, &lock)? => remove_folder(all, &own, name)?,
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error),
                }
            }
            // Its process died between the two steps of making it, or is between them: then it makes another one.
            Err(Errno::NOENT) => {
                let _ = rustix::fs::unlinkat(all, name, AtFlags::REMOVEDIR);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes everything in the folder, its lock last, then the folder.
fn remove_folder(all: &OwnedFd, own: &impl AsFd, name: &str) -> io::Result<()> {
    for entry in Dir::read_from(own)? {
        let entry = entry?;
        let file = entry.file_name();
        if !matches!(file.to_bytes(), b"." | b".." | b"lock") {
            ignore_missing(rustix::fs::unlinkat(own, file, AtFlags::empty()))?;
        }
    }
    ignore_missing(rustix::fs::unlinkat(own, LOCK, AtFlags::empty()))?;
    match rustix::fs::unlinkat(all, name, AtFlags::REMOVEDIR) {
        // Without a lock in it anybody may remove the folder, and then another handle make one of the same name.
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn ignore_missing(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
