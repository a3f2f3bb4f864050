//! The folder that a drill restores into: its own, locked for life, gone afterwards.
//!
//! The folder's own descriptor holds a lock, which dies with the process. So a folder whose lock is free was left by a
//! drill that was killed, and the next drill removes it; a live one is never touched. What lies inside is the caller's
//! matter, and may have been shaped by hostile code: removal follows no link and crosses no mount.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::tree::{self, Step, TreeError};
use crate::domain::ids::{JobName, RecordId};
use crate::error::{Code, Diagnostic};

/// What the name of every scratch folder begins with.
pub const SCRATCH_PREFIX: &str = "lifeboat-drill-";
/// What the name of a scratch folder begins with once it is kept: no drill removes it.
pub const KEPT_PREFIX: &str = "lifeboat-kept-";
/// The file in a scratch folder that says what it is. Nothing without it is ever removed, unless it is empty.
pub const MARKER: &str = ".lifeboat-drill";
/// A file system may leave out names while a folder is emptied: then it is listed again, at most this often.
const REMOVAL_PASSES: usize = 4;
/// How often a folder is made again because a neighbour took it for a leftover before it was locked.
const CREATION_TRIES: usize = 8;

const OWN_FOLDER: &str = "name a folder that is this user's alone: `scratch = \"...\"` under [job.<name>.drill]";

/// A scratch folder. Dropped, it is removed with everything in it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Holds the lock; `None` once the folder was removed or kept.
    lock: Option<OwnedFd>,
    job: JobName,
    id: RecordId,
}

/// Why a scratch folder cannot be had, or cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// Too little room.
    #[error(
        "{base} has {} free, the drill needs {}", mebibytes(*free_bytes), mebibytes(*needed_bytes)
    )]
    NoRoom {
        /// Where scratch folders are made.
        base: String,
        /// What the restored backup takes.
        needed_bytes: u64,
        /// What there is for us.
        free_bytes: u64,
    },
    /// The system refused.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was being done.
        verb: &'static str,
        /// To what.
        path: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Others could move the scratch folder away while it is restored into, and put a link in its place.
    #[error("{base} can be changed by other users")]
    Exposed {
        /// Where scratch folders are made.
        base: String,
    },
    /// A file system is mounted inside the scratch folder, and what lies on it may not be ours.
    #[error("{path} has a file system mounted in it, at {inside}")]
    Mounted {
        /// The scratch folder.
        path: String,
        /// Where in it.
        inside: String,
    },
}

impl Diagnostic for ScratchError {
    fn code(&self) -> Code {
        Code::ScratchFailed
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoRoom { base, .. } => Some(format!("df -h {base}; make room there, or name another scratch folder")),
            Self::Mounted { path, .. } => Some(format!("findmnt | grep {path}; umount it, then rm -r {path}")),
            Self::Exposed { .. } => Some(OWN_FOLDER.to_owned()),
            Self::Io { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => Some(OWN_FOLDER.to_owned()),
            Self::Io { path, .. } => {
                Some(format!("see that lifeboat may write to {path}, or name another folder as `scratch` of the drill"))
            }
        }
    }
}

impl Scratch {
    /// Makes a folder `lifeboat-drill-<job>-<id>` under `base` (which is made too, if its parent is there), for us
    /// alone, after checking that `needed_bytes` fit.
    ///
    /// # Errors
    /// When there is too little room, others could reach in, or the system refuses.
    pub fn create(base: &Path, job: &JobName, id: &RecordId, needed_bytes: u64) -> Result<Self, ScratchError> {
        match DirBuilder::new().mode(0o711).create(base) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(io_error("make", base, cause)),
            _ => {}
        }
        must_be_safe(base)?;
        let free_bytes = free_bytes(base)?;
        if free_bytes < needed_bytes {
            return Err(ScratchError::NoRoom { base: base.display().to_string(), needed_bytes, free_bytes });
        }
        let path = base.join(format!("{SCRATCH_PREFIX}{job}-{id}"));
        let mut tries = 0;
        let lock = loop {
            tries += 1;
            DirBuilder::new().mode(0o700).create(&path).map_err(|cause| io_error("make", &path, cause))?;
            // Between making and locking, another drill may take the empty folder for a leftover. Then make it again.
            let raced = match tree::open_top(&path) {
                Ok(lock) => match take_lock(&lock) {
                    Ok(true) if links(&lock) > 0 => break lock,
                    Ok(_) => io::Error::from(Errno::AGAIN),
                    Err(cause) => return Err(io_error("lock", &path, cause)),
                },
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => cause,
                Err(cause) => return Err(io_error("open", &path, cause)),
            };
            if tries == CREATION_TRIES {
                return Err(io_error("keep hold of", &path, raced));
            }
        };
        let scratch = Self { path, lock: Some(lock), job: job.clone(), id: id.clone() };
        let marker = scratch.path.join(MARKER);
        let text =
            format!("Made by lifeboat for a drill of job {job}, {id}; the next drill removes what this one left.\n");
        std::fs::write(&marker, text).map_err(|cause| io_error("write", &marker, cause))?;
        std::fs::set_permissions(&marker, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .map_err(|cause| io_error("protect", &marker, cause))?;
        Ok(scratch)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets members of a group list and traverse the folder itself. It stays ours: they cannot write to it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open_to_group(&self, gid: u32) -> Result<(), ScratchError> {
        let Some(lock) = &self.lock else { return Ok(()) };
        rustix::fs::fchown(lock, None, Some(Gid::from_raw(gid)))
            .and_then(|()| rustix::fs::fchmod(lock, Mode::from_raw_mode(0o750)))
            .map_err(|errno| io_error("open to the checks", &self.path, errno.into()))
    }

    /// Removes it with everything in it.
    ///
    /// # Errors
    /// When something cannot be removed. The rest is left for the next drill, which finds it unlocked.
    pub fn remove(mut self) -> Result<(), ScratchError> {
        self.take_down()
    }

    /// Lets it stand, for us alone, under a name that no drill removes.
    ///
    /// # Errors
    /// When it cannot be renamed or closed to the checks' uid; then it is removed.
    pub fn keep(mut self) -> Result<PathBuf, ScratchError> {
        let kept = self.path.with_file_name(format!("{KEPT_PREFIX}{}-{}", self.job, self.id));
        if let Some(lock) = &self.lock {
            rustix::fs::fchmod(lock, Mode::from_raw_mode(0o700))
                .map_err(|errno| io_error("close", &self.path, errno.into()))?;
        }
        std::fs::rename(&self.path, &kept).map_err(|cause| io_error("rename", &self.path, cause))?;
        self.lock = None;
        Ok(kept)
    }

    fn take_down(&mut self) -> Result<(), ScratchError> {
        match self.lock.take() {
            Some(lock) => remove_tree(&self.path, &lock),
            None => Ok(()),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            // A drop cannot return it; whoever wants to know calls `remove`.
            tracing::error!("{}", crate::error::chain(&error));
        }
    }
}

/// Removes what killed drills left under `base`; gives the paths that were removed. Folders of live drills, folders of
/// others, and kept ones stay.
///
/// # Errors
/// When `base` cannot be read, or a leftover cannot be removed. No `base`, no leftovers.
pub fn remove_leftovers(base: &Path) -> Result<Vec<PathBuf>, ScratchError> {
    let entries = match std::fs::read_dir(base) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|cause| io_error("list", base, cause))?,
    };
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|cause| io_error("list", base, cause))?;
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().starts_with(SCRATCH_PREFIX.as_bytes()) {
            continue;
        }
        let lock = match tree::open_top(&path) {
            Ok(lock) => lock,
            // A link, a file, gone meanwhile, or somebody else's: not a scratch folder of ours.
            Err(_) => continue,
        };
        if is_ours(&path, &lock)?
            && take_lock(&lock).map_err(|cause| io_error("lock", &path, cause))?
            && links(&lock) > 0
        {
            remove_tree(&path, &lock)?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// Whether a drill lives that restores into this scratch folder.
#[must_use]
pub fn is_live(path: &Path) -> bool {
    // What cannot be opened is gone, or was never one of ours.
    tree::open_top(path).is_ok_and(|folder| !take_lock(&folder).unwrap_or(true))
}

/// Bytes that we may still write under a folder.
///
/// # Errors
/// When the system refuses.
pub fn free_bytes(folder: &Path) -> Result<u64, ScratchError> {
    let stat = rustix::fs::statvfs(folder).map_err(|errno| io_error("measure", folder, errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Made by this user, and marked (or empty, if its maker was killed before it could mark it).
fn is_ours(path: &Path, folder: &OwnedFd) -> Result<bool, ScratchError> {
    let stat = rustix::fs::fstat(folder).map_err(|errno| io_error("look at", path, errno.into()))?;
    if Uid::from_raw(stat.st_uid) != rustix::process::geteuid() {
        return Ok(false);
    }
    match rustix::fs::statat(folder, MARKER, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(marker) => Ok(Uid::from_raw(marker.st_uid) == rustix::process::geteuid()),
        Err(Errno::NOENT) => {
            let mut entries = std::fs::read_dir(path).map_err(|cause| io_error("list", path, cause))?;
            Ok(entries.next().is_none())
        }
        Err(errno) => Err(io_error("look at", path, errno.into())),
    }
}

fn take_lock(folder: &OwnedFd) -> io::Result<bool> {
    match rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// How many names a folder has: none once it was removed.
fn links(folder: &OwnedFd) -> u64 {
    rustix::fs::fstat(folder).map_or(0, |stat| stat.st_nlink)
}

/// Empties and removes a locked folder. The marker goes last but one, so that a removal that is cut short leaves a
/// leftover that is still known as one.
fn remove_tree(path: &Path, lock: &OwnedFd) -> Result<(), ScratchError> {
    let mut pass = 1;
    loop {
        let top = open_again(lock).map_err(|cause| io_error("open", path, cause))?;
        let emptied = tree::walk(top, &mut |folder, name, step| match step {
            Step::Entry(_) if name.to_bytes() == MARKER.as_bytes() && same(folder, lock) => Ok(()),
            Step::Entry(_) => rustix::fs::unlinkat(folder, name, AtFlags::empty()).map_err(|errno| ("remove", errno)),
            // Without root's rights a folder must be writable to be emptied.
            Step::Enter if !rustix::process::geteuid().is_root() => {
                rustix::fs::chmodat(folder, name, Mode::RWXU, AtFlags::empty()).map_err(|errno| ("open up", errno))
            }
            Step::Enter => Ok(()),
            Step::Leave => rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR).map_err(|errno| ("remove", errno)),
        });
        match emptied {
            Ok(()) => break,
            Err(error) if pass < REMOVAL_PASSES && is_not_empty(&error) => pass += 1,
            Err(error) => return Err(removal_error(path, error)),
        }
    }
    match rustix::fs::unlinkat(lock, MARKER, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(io_error("unmark", path, errno.into())),
    }
    std::fs::remove_dir(path).map_err(|cause| io_error("remove", path, cause))
}

/// A descriptor of its own for the walk, which moves it; the lock stays where it is.
fn open_again(folder: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, c".", flags, Mode::empty())?)
}

fn same(one: BorrowedFd<'_>, other: &OwnedFd) -> bool {
    match (rustix::fs::fstat(one), rustix::fs::fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

fn is_not_empty(error: &TreeError) -> bool {
    error.cause.kind() == io::ErrorKind::DirectoryNotEmpty
}

fn removal_error(path: &Path, error: TreeError) -> ScratchError {
    if error.cause.kind() == io::ErrorKind::CrossesDevices || error.cause.kind() == io::ErrorKind::ResourceBusy {
        return ScratchError::Mounted { path: path.display().to_string(), inside: error.path };
    }
    ScratchError::Io { verb: error.verb, path: format!("{} ({})", path.display(), error.path), cause: error.cause }
}

/// The folder, and a link that leads to it, belong to us or to root; whoever else may write there cannot rename what
/// is not his. A folder of everybody's, such as /var/tmp/lifeboat-scratch, may have been made by anybody.
fn must_be_safe(base: &Path) -> Result<(), ScratchError> {
    let look = |cause| io_error("look at", base, cause);
    let (link, folder) = (std::fs::symlink_metadata(base).map_err(look)?, std::fs::metadata(base).map_err(look)?);
    let us = rustix::process::geteuid().as_raw();
    let ours = |metadata: &std::fs::Metadata| metadata.uid() == us || metadata.uid() == 0;
    let others_write = folder.mode() & 0o022 != 0 && folder.mode() & 0o1000 == 0;
    if ours(&link) && ours(&folder) && !others_write {
        return Ok(());
    }
    Err(ScratchError::Exposed { base: base.display().to_string() })
}

fn io_error(verb: &'static str, path: &Path, cause: io::Error) -> ScratchError {
    ScratchError::Io { verb, path: path.display().to_string(), cause }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    use super::*;

    fn job() -> JobName {
        "shop".parse().unwrap()
    }

    fn id(number: u8) -> RecordId {
        RecordId::from_random([number; 8])
    }

    fn create(base: &Path, number: u8) -> Scratch {
        Scratch::create(base, &job(), &id(number), 1).unwrap()
    }

    #[test]
    fn is_private_and_gone_when_dropped() {
        let base = tempfile::tempdir().unwrap();
        let scratch = create(base.path(), 1);
        let path = scratch.path().to_owned();
        assert!(path.file_name().unwrap().to_str().unwrap().starts_with("lifeboat-drill-shop-0101"));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        std::fs::create_dir(path.join("db")).unwrap();
        std::fs::write(path.join("db").join(MARKER), "a file that only looks like the marker").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_base_that_others_could_change_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let mode = |mode| std::fs::set_permissions(base.path(), PermissionsExt::from_mode(mode)).unwrap();
        let refused = |base: &Path| match Scratch::create(base, &job(), &id(1), 1) {
            Ok(scratch) => {
                drop(scratch);
                false
            }
            Err(error) => matches!(error, ScratchError::Exposed { .. }),
        };
        for (bits, expected) in [(0o711, false), (0o777, true), (0o720, true), (0o1777, false)] {
            mode(bits);
            assert_eq!(refused(base.path()), expected, "{bits:o}");
        }
        mode(0o711);
        let link = base.path().join("link");
        symlink(base.path(), &link).unwrap();
        assert!(!refused(&link));
        lchown(&link, Some(65_534), None).unwrap();
        assert!(refused(&link), "somebody else's link");
        chown(base.path(), Some(65_534), None).unwrap();
        assert!(refused(base.path()), "somebody else's folder");
    }

    #[test]
    fn too_little_room_says_how_much() {
        let base = tempfile::tempdir().unwrap();
        let error = Scratch::create(base.path(), &job(), &id(1), 1 << 60).unwrap_err();
        assert!(matches!(error, ScratchError::NoRoom { .. }), "{error:?}");
        assert!(error.to_string().contains("the drill needs 1099511627776.0 MiB"), "{error}");
        assert_eq!(error.code(), Code::ScratchFailed);
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_next_drill_removes_what_a_killed_one_left_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let live = create(base.path(), 1);
        let kept = create(base.path(), 2).keep().unwrap();
        let mut killed = create(base.path(), 3);
        // What SIGKILL does: the lock goes, the folder stays.
        killed.lock = None;
        std::fs::create_dir_all(killed.path().join("a/b")).unwrap();
        let unmarked = base.path().join("lifeboat-drill-shop-somebodys");
        std::fs::create_dir(&unmarked).unwrap();
        std::fs::write(unmarked.join("data"), "not ours to remove").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), base.path().join("lifeboat-drill-shop-link")).unwrap();

        assert_eq!(remove_leftovers(base.path()).unwrap(), [killed.path().to_owned()]);
        assert!(live.path().exists() && kept.exists() && unmarked.exists() && elsewhere.path().exists());
        assert!(remove_leftovers(&base.path().join("none")).unwrap().is_empty());
        assert_eq!(std::fs::metadata(kept).unwrap().mode() & 0o7777, 0o700);
        live.remove().unwrap();
    }

    #[test]
    fn removal_copes_with_read_only_folders_and_follows_no_link() {
        let base = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("precious"), "x").unwrap();
        let scratch = create(base.path(), 1);
        let locked = scratch.path().join("locked");
        std::fs::create_dir(&locked).unwrap();
        std::fs::write(locked.join("file"), "x").unwrap();
        symlink(outside.path(), locked.join("link")).unwrap();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
        scratch.remove().unwrap();
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn removal_reaches_far_below_the_longest_path() {
        let base = tempfile::tempdir().unwrap();
        let scratch = create(base.path(), 1);
        let name = "n".repeat(200);
        let mut here = tree::open_top(scratch.path()).unwrap();
        for _ in 0..100 {
            rustix::fs::mkdirat(&here, name.as_str(), Mode::RWXU).unwrap();
            here =
                rustix::fs::openat(&here, name.as_str(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        let path = scratch.path().to_owned();
        scratch.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn removal_stops_at_a_mount() {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a file system: run it as root");
        let base = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("precious"), "x").unwrap();
        let scratch = create(base.path(), 1);
        let inside = scratch.path().join("mounted");
        std::fs::create_dir(&inside).unwrap();
        // A bind mount has the same device number as what it covers: only the kernel can tell.
        let mount = |args: &[&std::ffi::OsStr]| std::process::Command::new("mount").args(args).status().unwrap();
        assert!(mount(&["--bind".as_ref(), outside.path().as_os_str(), inside.as_os_str()]).success());
        let path = scratch.path().to_owned();
        let error = scratch.remove().unwrap_err();
        assert!(std::process::Command::new("umount").arg(&inside).status().unwrap().success());
        assert!(matches!(&error, ScratchError::Mounted { inside, .. } if inside == "./mounted"), "{error:?}");
        assert!(outside.path().join("precious").exists());
        assert_eq!(remove_leftovers(base.path()).unwrap(), [path], "and it is still known as a leftover");
    }
}
