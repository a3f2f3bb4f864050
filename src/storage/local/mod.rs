//! A folder as a store: one file a key.
//!
//! The order of writing is what makes a commit a commit. Bytes go to temporary names first; [`sync`](Storage::sync)
//! makes them durable all together, then renames them to their keys, then makes the names durable. So nothing is
//! visible that could still be lost, and an object costs no flush of its own.
//!
//! *All together* is `syncfs`, which tells of failed writes since Linux 5.8, and only where the file system itself
//! keeps that account. On any other (NFS, FUSE, overlays: see [`Flush::for_root`]) each file is flushed as it is
//! written, which is slower and certain.
//!
//! It does not know what keys mean. File work blocks, and runs on tokio's threads for blocking work.

mod flush;
mod folders;
mod listing;
mod staging;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use rustix::fs::{Advice, AtFlags, RenameFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use self::flush::Flush;
use self::folders::{Entry, Root, split};
use self::staging::{STAGING_FOLDER, Staging};
use super::{Deleted, Listed, Put, Storage, StorageError, check_key};
use crate::clock::Clock;

/// So many written files may wait for a sync; one more and the store syncs by itself. Bounds the memory for names
/// (about 200 bytes each), and keeps the last sync of a long run short.
const MAX_STAGED: usize = 16 * 1024;
/// More folders than this are made durable by one `syncfs` instead of a flush each.
const MAX_FOLDER_FLUSHES: usize = 8;
/// So many batches of a listing may wait for the visitor.
const LISTING_BATCHES: usize = 4;

/// A folder as a store.
pub struct Local {
    shared: Arc<Shared>,
}

struct Shared {
    root: Root,
    flush: Flush,
    clock: Arc<dyn Clock>,
    /// Made by the first write: a vault on a read-only disk can be read.
    staging: OnceLock<Staging>,
    opening: Mutex<()>,
    waiting: Mutex<Waiting>,
    /// Locked for writing by the sync at work, for reading by whoever needs its outcome or must not come between.
    syncing: RwLock<()>,
}

/// What the next sync has to do.
#[derive(Default)]
struct Waiting {
    /// Key to number of the temporary file.
    staged: BTreeMap<String, u64>,
    /// The same, of the sync that is at work.
    publishing: Arc<BTreeMap<String, u64>>,
    /// Folders whose entries changed, or were found changed, and may not be durable.
    touched: BTreeSet<String>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("path", &self.shared.root.path).field("flush", &self.shared.flush).finish()
    }
}

impl Local {
    /// Opens the store in a folder that exists. Writes nothing.
    ///
    /// # Errors
    /// [`StorageError::NoStore`] where there is no folder.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StorageError> {
        let root = Root::open(path)?;
        let flush = Flush::for_root(&root);
        Ok(Self::with_flush(root, flush, clock))
    }

    /// Opens the store in a folder, which is made, its parents included and readable for its owner only, where it
    /// is missing.
    ///
    /// # Errors
    /// [`StorageError::NoStore`] where something that is not a folder is in the way; the system's error where it
    /// cannot be made.
    pub fn create(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StorageError> {
        make_root(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                StorageError::NoStore { place: path.display().to_string(), reason: "is a file, not a folder" }
            }
            _ => StorageError::Failed { place: path.display().to_string(), doing: "making the folder".into(), source },
        })?;
        Self::open(path, clock)
    }

    fn with_flush(root: Root, flush: Flush, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            root,
            flush,
            clock,
            staging: OnceLock::new(),
            opening: Mutex::new(()),
            waiting: Mutex::default(),
            syncing: RwLock::new(()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Opens it as if the file system's `syncfs` could not be trusted.
    #[cfg(test)]
    pub(super) fn open_flushing_each_file(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StorageError> {
        Ok(Self::with_flush(Root::open(path)?, Flush::EachFile, clock))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Shared) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going away.
                Err(_) => Err(StorageError::OutcomeUnknown { place: self.describe(), doing: doing.into() }),
            },
        }
    }
}

#[async_trait]
impl Storage for Local {
    fn describe(&self) -> String {
        self.shared.root.place()
    }

    fn kind(&self) -> &'static str {
        "folder"
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking("writing", move |shared| shared.put(key, &bytes)).await
    }

    async fn replace(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking("writing", move |shared| shared.replace(&key, &bytes)).await
    }

    async fn get(&self, key: &str, limit_bytes: u64) -> Result<Bytes, StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking("reading", move |shared| shared.get(&key, limit_bytes)).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking("looking", move |shared| match shared.root.look(&key)? {
            Entry::Nothing => Ok(None),
            Entry::File { size_bytes } => Ok(Some(size_bytes)),
            Entry::Other(found) => Err(StorageError::NotAFile { place: shared.root.place(), key, found }),
        })
        .await
    }

    async fn list(&self, prefix: &str, visit: &mut (dyn FnMut(Listed) + Send)) -> Result<(), StorageError> {
        if !prefix.is_empty() {
            check_key(prefix.strip_suffix('/').unwrap_or(prefix))?;
        }
        let (sender, mut receiver) = mpsc::channel(LISTING_BATCHES);
        let prefix = prefix.to_owned();
        let listing = self.blocking("listing", move |shared| listing::list(&shared.root, &prefix, sender));
        let visiting = async {
            while let Some(batch) = receiver.recv().await {
                for listed in batch {
                    visit(listed);
                }
            }
        };
        tokio::join!(listing, visiting).0
    }

    async fn delete(&self, key: &str) -> Result<Deleted, StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking("deleting", move |shared| shared.delete(&key)).await
    }

    async fn delete_many(&self, keys: &[String]) -> Result<Vec<Deleted>, StorageError> {
        keys.iter().try_for_each(|key| check_key(key))?;
        let keys = keys.to_vec();
        // A thread is asked for once, and not for each of them.
        self.blocking("deleting", move |shared| keys.iter().map(|key| shared.delete(key)).collect()).await
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.blocking("syncing", Shared::sync).await
    }

    async fn now(&self) -> Result<DateTime<Utc>, StorageError> {
        Ok(self.shared.clock.now())
    }

    async fn available_bytes(&self) -> Result<Option<u64>, StorageError> {
        self.blocking("measuring", |shared| {
            let room = rustix::fs::fstatvfs(&shared.root.fd)
                .map_err(|error| shared.root.error("", "asking for the room left".into(), error.into()))?;
            Ok(Some(room.f_bavail.saturating_mul(room.f_frsize)))
        })
        .await
    }

    async fn forget_cached(&self, key: &str) -> Result<bool, StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking("dropping from the cache", move |shared| {
            let (file, _) = shared.root.open_file(&key)?;
            // Some file systems have no page cache to drop from; they say so here.
            Ok(rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).is_ok())
        })
        .await
    }
}

impl Shared {
    fn put(&self, key: String, bytes: &[u8]) -> Result<Put, StorageError> {
        if self.taken(&key)? {
            return Ok(Put::Existed);
        }
        let staging = self.staging()?;
        let number = self.write(staging, &key, bytes)?;
        let full = {
            let mut waiting = self.waiting();
            // Somebody may have been faster, also with a sync in between: then the sync finds the same key there.
            if waiting.staged.contains_key(&key) {
                drop(waiting);
                staging.discard(number);
                return Ok(Put::Existed);
            }
            waiting.staged.insert(key, number);
            waiting.staged.len() >= MAX_STAGED
        };
        if full {
            self.sync()?;
        }
        Ok(Put::Created)
    }

    /// Whether the key is taken, by this handle or by anybody.
    fn taken(&self, key: &str) -> Result<bool, StorageError> {
        let publishing = {
            let waiting = self.waiting();
            if waiting.staged.contains_key(key) {
                return Ok(true);
            }
            waiting.publishing.contains_key(key)
        };
        if publishing {
            // Whether that sync succeeds decides whether the key is taken.
            drop(self.no_sync());
        }
        match self.root.look(key)? {
            Entry::Nothing => Ok(false),
            Entry::File { .. } => {
                // Visible, but whoever made it so may not have made the name durable yet. Our sync will.
                self.waiting().touched.insert(split(key).0.to_owned());
                Ok(true)
            }
            Entry::Other(found) => Err(StorageError::NotAFile { place: self.root.place(), key: key.to_owned(), found }),
        }
    }

    /// Writes a temporary file; it is removed again where that fails.
    fn write(&self, staging: &Staging, key: &str, bytes: &[u8]) -> Result<u64, StorageError> {
        let failed = |error: io::Error| self.root.error(key, format!("writing {key}"), error);
        let (mut file, number) = staging.create().map_err(|error| failed(error.into()))?;
        let written = file.write_all(bytes).and_then(|()| match self.flush {
            Flush::Together => Ok(()),
            Flush::EachFile => file.sync_all(),
        });
        match written {
            Ok(()) => Ok(number),
            Err(error) => {
                staging.discard(number);
                Err(failed(error))
            }
        }
    }

    fn replace(&self, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let failed = |error: io::Error| self.root.error(key, format!("replacing {key}"), error);
        let staging = self.staging()?;
        let number = self.write(staging, key, bytes)?;
        let replaced = || -> io::Result<()> {
            if self.flush == Flush::Together {
                // One document that must be durable before it gets its name.
                let file = rustix::fs::openat(
                    staging.folder(),
                    number.to_string(),
                    rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                    rustix::fs::Mode::empty(),
                )?;
                rustix::fs::fsync(&file)?;
            }
            let (folder, name) = split(key);
            let fd = self.root.make_folder(folder)?;
            rustix::fs::renameat(staging.folder(), number.to_string(), &fd, name)?;
            self.flush_folders(&BTreeSet::from([folder.to_owned()]))
        };
        replaced().map_err(|error| {
            staging.discard(number);
            failed(error)
        })
    }

    fn get(&self, key: &str, limit_bytes: u64) -> Result<Bytes, StorageError> {
        let (file, size_bytes) = self.root.open_file(key)?;
        let too_large = |size_bytes| StorageError::TooLarge {
            place: self.root.place(),
            key: key.to_owned(),
            size_bytes,
            limit_bytes,
        };
        if size_bytes > limit_bytes {
            return Err(too_large(size_bytes));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size_bytes).unwrap_or(0));
        // It may grow while it is read.
        file.take(limit_bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| self.root.error(key, format!("reading {key}"), error))?;
        if bytes.len() as u64 > limit_bytes {
            return Err(too_large(bytes.len() as u64));
        }
        Ok(bytes.into())
    }

    fn delete(&self, key: &str) -> Result<Deleted, StorageError> {
        // A sync at work could bring it back.
        let _syncing = self.no_sync();
        let staged = self.waiting().staged.remove(key);
        if let (Some(number), Some(staging)) = (staged, self.staging.get()) {
            staging.discard(number);
        }
        let nothing = if staged.is_some() { Deleted::Removed } else { Deleted::Absent };
        let Some((folder, name)) = self.root.parent(key)? else { return Ok(nothing) };
        self.waiting().touched.insert(split(key).0.to_owned());
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) => Ok(Deleted::Removed),
            Err(Errno::NOENT) => Ok(nothing),
            Err(Errno::ISDIR) => {
                Err(StorageError::NotAFile { place: self.root.place(), key: key.to_owned(), found: "a folder" })
            }
            Err(error) => Err(self.root.error(key, format!("deleting {key}"), error.into())),
        }
    }

    /// Waits for the sync at work, and holds off the next one.
    fn no_sync(&self) -> RwLockReadGuard<'_, ()> {
        self.syncing.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync(&self) -> Result<(), StorageError> {
        let _syncing = self.syncing.write().unwrap_or_else(PoisonError::into_inner);
        let (batch, mut touched) = {
            let mut waiting = self.waiting();
            waiting.publishing = Arc::new(std::mem::take(&mut waiting.staged));
            (Arc::clone(&waiting.publishing), std::mem::take(&mut waiting.touched))
        };
        let result = self.publish(&batch, &mut touched);
        if result.is_err() {
            if let Some(staging) = self.staging.get() {
                // Those that have their names already are not found, and stay.
                batch.values().for_each(|number| staging.discard(*number));
            }
            self.waiting().touched.append(&mut touched);
        }
        self.waiting().publishing = Arc::default();
        result
    }

    fn publish(&self, batch: &BTreeMap<String, u64>, touched: &mut BTreeSet<String>) -> Result<(), StorageError> {
        let failed = |error: io::Error| self.root.error("", "making what was written durable".into(), error);
        if let (false, Some(staging)) = (batch.is_empty(), self.staging.get()) {
            if self.flush == Flush::Together {
                rustix::fs::syncfs(&self.root.fd).map_err(|error| failed(error.into()))?;
            }
            // Keys come sorted, so that each folder is opened once.
            let mut open: Option<(&str, OwnedFd)> = None;
            for (key, number) in batch {
                let (folder, name) = split(key);
                let fd = match open.take() {
                    Some((path, fd)) if path == folder => fd,
                    _ => self
                        .root
                        .make_folder(folder)
                        .map_err(|error| self.root.error(key, format!("making the folder of {key}"), error.into()))?,
                };
                touched.insert(folder.to_owned());
                self.name(staging, *number, key, &fd, name)?;
                open = Some((folder, fd));
            }
        }
        self.flush_folders(touched).map_err(failed)
    }

    /// Gives a written file its name, unless the name is taken.
    fn name(
        &self,
        staging: &Staging,
        number: u64,
        key: &str,
        folder: &OwnedFd,
        name: &str,
    ) -> Result<(), StorageError> {
        let from = number.to_string();
        let failed = |error: Errno| self.root.error(key, format!("renaming to {key}"), error.into());
        let renamed = match rustix::fs::renameat_with(staging.folder(), &from, folder, name, RenameFlags::NOREPLACE) {
            // Not every file system can do that; a second hard link refuses a taken name as well.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(staging.folder(), &from, folder, name, AtFlags::empty())
                    .map(|()| staging.discard(number))
            }
            renamed => renamed,
        };
        match renamed {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let ours = rustix::fs::openat(
                    staging.folder(),
                    &from,
                    rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                    rustix::fs::Mode::empty(),
                )
                .map_err(failed)?;
                let theirs = self.root.open_file(key)?.0;
                let same = same_bytes(File::from(ours), theirs).map_err(|error| {
                    self.root.error(key, format!("comparing {key} with what another process wrote"), error)
                })?;
                if !same {
                    return Err(StorageError::Conflict { place: self.root.place(), key: key.to_owned() });
                }
                staging.discard(number);
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes the entries of folders durable, and those of all folders above them: somebody else may have made them
    /// just now.
    fn flush_folders(&self, touched: &BTreeSet<String>) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for path in touched {
            let mut path = path.as_str();
            while folders.insert(path) && !path.is_empty() {
                path = split(path).0;
            }
        }
        if folders.len() > MAX_FOLDER_FLUSHES && self.flush == Flush::Together {
            return Ok(rustix::fs::syncfs(&self.root.fd)?);
        }
        // Innermost first, so that a name is durable before the way to it.
        for path in folders.iter().rev() {
            match self.root.folder(path) {
                Ok(fd) => rustix::fs::fsync(&fd)?,
                // Nothing was made there, or somebody removed it: nothing is left to be made durable.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn staging(&self) -> Result<&Staging, StorageError> {
        if let Some(staging) = self.staging.get() {
            return Ok(staging);
        }
        let _opening = lock(&self.opening);
        if let Some(staging) = self.staging.get() {
            return Ok(staging);
        }
        let staging = Staging::open(&self.root)
            .map_err(|error| self.root.error(STAGING_FOLDER, format!("preparing {STAGING_FOLDER}"), error))?;
        Ok(self.staging.get_or_init(|| staging))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

/// A lock whose holder panicked guards names only; what they stand for is checked again when they are used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn same_bytes(one: File, other: File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (io::BufReader::new(one), io::BufReader::new(other));
    let (mut left, mut right) = ([0; 8192], [0; 8192]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        match other.read_exact(&mut right[..count]) {
            Ok(()) if left[..count] == right[..count] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

fn make_root(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_root(parent)?;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        // Somebody else made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests;
