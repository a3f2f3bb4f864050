//! Handles on folders: each entry is reached through its parent's descriptor, one component at a time, so that no
//! path is too long and no link is followed. Descriptors are few: the oldest is closed when there are too many, and
//! opened again through its parents when it is needed.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::{Errno, Result};

use super::status::Status;

/// At most this many folders are held open, besides those that a thread is just using.
const MAX_OPEN_FOLDERS: usize = 256;

/// The folders that are open, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<VecDeque<Weak<Folder>>>);

/// A folder of the walk, open or not.
#[derive(Debug)]
pub(super) struct Folder {
    /// `None` only for a base, and while it is dropped.
    parent: Option<Arc<Folder>>,
    name: Name,
    /// Device and inode at the first opening; a folder that is another one later has vanished.
    place: (u64, u64),
    slot: Mutex<Option<Arc<OwnedFd>>>,
    pool: Arc<Pool>,
}

#[derive(Debug)]
enum Name {
    /// The folder that a root stands in: opened by its path, following links as the person who wrote it meant.
    Base(PathBuf),
    Entry(Vec<u8>),
}

impl Folder {
    /// The folder that a root stands in.
    pub(super) fn base(path: PathBuf, pool: &Arc<Pool>) -> Result<Arc<Self>> {
        let fd = openat(CWD, &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Self::new(None, Name::Base(path), fd, pool)
    }

    /// Opens the folder `name` in `parent`.
    pub(super) fn open_entry(parent: &Arc<Self>, name: &[u8]) -> Result<Arc<Self>> {
        let fd = open_folder(&*parent.open()?, name)?;
        Self::new(Some(Arc::clone(parent)), Name::Entry(name.to_vec()), fd, &parent.pool)
    }

    fn new(parent: Option<Arc<Self>>, name: Name, fd: OwnedFd, pool: &Arc<Pool>) -> Result<Arc<Self>> {
        let status = Status::of(&fstat(&fd)?);
        let place = (status.device, status.inode);
        let folder = Arc::new(Self { parent, name, place, slot: Mutex::new(None), pool: Arc::clone(pool) });
        folder.keep(&Arc::new(fd));
        Ok(folder)
    }

    /// A descriptor of the folder.
    ///
    /// # Errors
    /// What the system said; `ENOENT` where another folder has taken its place.
    pub(super) fn open(self: &Arc<Self>) -> Result<Arc<OwnedFd>> {
        let mut closed = Vec::new();
        let mut at = self;
        let mut fd = loop {
            if let Some(fd) = at.slot.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                break fd;
            }
            match (&at.parent, &at.name) {
                (Some(parent), Name::Entry(name)) => {
                    closed.push((at, name));
                    at = parent;
                }
                (_, Name::Base(path)) => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    break at.reopened(openat(CWD, path, flags, Mode::empty())?)?;
                }
                (None, Name::Entry(_)) => return Err(Errno::NOENT),
            }
        };
        while let Some((folder, name)) = closed.pop() {
            fd = folder.reopened(open_folder(&fd, name)?)?;
        }
        Ok(fd)
    }

    fn reopened(self: &Arc<Self>, fd: OwnedFd) -> Result<Arc<OwnedFd>> {
        let status = Status::of(&fstat(&fd)?);
        if (status.device, status.inode) != self.place {
            return Err(Errno::NOENT);
        }
        let fd = Arc::new(fd);
        self.keep(&fd);
        Ok(fd)
    }

    fn keep(self: &Arc<Self>, fd: &Arc<OwnedFd>) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(fd));
        let mut open = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::downgrade(self));
        let surplus = if open.len() > MAX_OPEN_FOLDERS { open.pop_front() } else { None };
        drop(open);
        if let Some(oldest) = surplus.and_then(|folder| folder.upgrade()) {
            *oldest.slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// Lets go of a chain of parents one by one: a tree of thousands of levels must not become as many stack frames.
impl Drop for Folder {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut folder) = next.and_then(Arc::into_inner) {
            next = folder.parent.take();
        }
    }
}

/// Opens a folder for listing, and for nothing else than a folder.
fn open_folder(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Without leaving a trace in the folder's atime, where we may.
    match openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(parent, name, flags, Mode::empty()),
        outcome => outcome,
    }
}
