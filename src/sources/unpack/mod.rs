//! Putting a tar stream back, from several threads, segments in any order, without trusting it.
//!
//! Whoever wrote the archive must not get a byte outside the target. So every path is walked one component at a time
//! below the target's descriptor, through folders only; files are made exclusively; nothing is written twice; and
//! what could redirect a later write (links above all) is made at the end, when no write is left: hard links, then
//! FIFOs and devices, then symbolic links, then the folders' own modes and times. Until then folders are open to
//! nobody but ourselves.
//!
//! It does not know whether the content is right: [`super::compare`] does.

mod dress;
mod large;
mod place;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, fchmod, ftruncate, linkat, mknodat, openat, symlinkat, unlinkat,
};
use rustix::io::{Errno, pwrite};

use crate::domain::contents::{Member, MemberKind, RawText};
use crate::error::{Code, Diagnostic};

use super::SourceError;
use super::files::names::Names;
use super::tar::read::{Entry, entries, large};

pub use large::Large;

use dress::Shortfall;
pub(crate) use place::{Cursor, split};
use place::{Missing, shown};

/// Why a tar could not be put back.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is not a tar of ours, or wants what must not be.
    #[error(transparent)]
    Tar(#[from] SourceError),
    /// The target is in use.
    #[error("{path} is not empty")]
    NotEmpty {
        /// The target.
        path: String,
    },
    /// The system refused.
    #[error("cannot {verb} {path}")]
    System {
        /// `create`, `write`, ...
        verb: &'static str,
        /// What it was done to: the target, or a member's path, escaped.
        path: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

impl UnpackError {
    fn refuse(path: &[u8], what: &str) -> Self {
        Self::Tar(SourceError::Unsafe { path: shown(path), what: what.to_owned() })
    }

    pub(crate) fn system(verb: &'static str, path: &[u8], errno: Errno) -> Self {
        Self::System { verb, path: shown(path), cause: errno.into() }
    }
}

impl Diagnostic for UnpackError {
    fn code(&self) -> Code {
        match self {
            Self::Tar(error) => error.code(),
            Self::System { cause, .. } if cause.kind() == io::ErrorKind::StorageFull => Code::StorageFull,
            Self::NotEmpty { .. } | Self::System { .. } => Code::RestoreFailed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Tar(error) => error.hint(),
            Self::NotEmpty { .. } => Some("name an empty or new folder, or add --overwrite".to_owned()),
            Self::System { verb: "replace", path, cause } if cause.kind() == io::ErrorKind::IsADirectory => {
                Some(format!("a folder is never replaced: move {path} away, below the folder that is restored into"))
            }
            Self::System { .. } => None,
        }
    }
}

/// How to put things back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackOptions {
    /// Give files their owners; only root can. Otherwise they stay ours, are counted, and lose set-id bits that spoke
    /// of another owner.
    pub owners: bool,
    /// Replace what stands in the way (never a folder), instead of refusing a target that is not empty.
    pub overwrite: bool,
}

/// What was put back by one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Members that were selected.
    pub members: u64,
    /// The sizes of their files, together.
    pub bytes: u64,
}

/// What there is to say at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Members whose owner is ours instead of theirs.
    pub owners_kept: u64,
    /// Extended attributes that only root may set.
    pub attributes_left_out: u64,
    /// Device nodes that only root may make.
    pub devices_left_out: u64,
    /// Hard links that were selected without the file that they name; nothing stands there. Path and target.
    pub unlinked: Vec<(RawText, RawText)>,
}

/// A target that is being filled.
#[derive(Debug)]
pub struct Unpacker {
    root: OwnedFd,
    options: UnpackOptions,
    state: Mutex<State>,
    shortfall: Arc<Shortfall>,
}

/// A path's hash: the paths of a million members, remembered in little room.
type PathKey = [u8; 16];

#[derive(Debug, Default)]
struct State {
    /// Everything that was selected so far, and whether it is a regular file.
    seen: HashMap<PathKey, bool>,
    /// Folders that were made because something is in them.
    made: Vec<Vec<u8>>,
    folders: Vec<Member>,
    /// Links, FIFOs, devices.
    late: Vec<Member>,
}

impl Unpacker {
    /// Makes the folder `root`, or takes it where it is.
    ///
    /// # Errors
    /// When it cannot be made, or is not empty and `overwrite` is not set.
    pub fn create(root: &Path, options: UnpackOptions) -> Result<Self, UnpackError> {
        let path = root.as_os_str().as_encoded_bytes();
        let failed = |verb: &'static str, cause: io::Error| UnpackError::System { verb, path: shown(path), cause };
        if !root.exists() {
            use std::os::unix::fs::DirBuilderExt;
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
            made.map_err(|cause| failed("create", cause))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, root, flags, Mode::empty()).map_err(|errno| failed("open", errno.into()))?;
        let names = Names::list(&folder).map_err(|errno| failed("list", errno.into()))?;
        if names.get(0).is_some() && !options.overwrite {
            return Err(UnpackError::NotEmpty { path: shown(path) });
        }
        Ok(Self { root: folder, options, state: Mutex::default(), shortfall: Arc::default() })
    }

    /// Puts back a segment of whole members, as far as `select` wants their paths.
    ///
    /// # Errors
    /// [`UnpackError::Tar`] where the segment is not to be trusted; [`UnpackError::System`] where the system refuses.
    /// What was written so far stays.
    pub fn unpack(&self, tar: &[u8], select: &(dyn Fn(&[u8]) -> bool + Sync)) -> Result<Unpacked, UnpackError> {
        let mut unpacked = Unpacked::default();
        let mut cursor = Cursor::at(self.root.as_fd());
        for entry in entries(tar) {
            let entry = entry?;
            if !select(&entry.member.path.0) {
                continue;
            }
            unpacked.members += 1;
            unpacked.bytes += entry.member.size_bytes;
            self.meet(&entry.member)?;
            match entry.member.kind {
                MemberKind::File => self.file(&mut cursor, &entry, tar)?,
                MemberKind::Folder => {
                    cursor.folder(&entry.member.path.0, Missing::Make)?;
                    self.lock().folders.push(entry.member);
                }
                _ => self.lock().late.push(entry.member),
            }
        }
        self.lock().made.append(&mut cursor.made);
        Ok(unpacked)
    }

    /// Begins a large file from its first segment. `None` if it is not selected.
    ///
    /// # Errors
    /// As [`Unpacker::unpack`].
    pub fn begin_large(
        &self,
        header_segment: &[u8],
        select: &(dyn Fn(&[u8]) -> bool + Sync),
    ) -> Result<Option<Large>, UnpackError> {
        let entry = large(header_segment)?;
        if !select(&entry.member.path.0) {
            return Ok(None);
        }
        self.meet(&entry.member)?;
        let mut cursor = Cursor::at(self.root.as_fd());
        let file = self.create_file(&mut cursor, &entry.member)?;
        self.lock().made.append(&mut cursor.made);
        Ok(Some(Large::new(file, entry, self.options, Arc::clone(&self.shortfall))))
    }

    /// Makes what had to wait: links, devices, folders' modes and times. To be called when every segment is in and
    /// every large file finished.
    ///
    /// # Errors
    /// As [`Unpacker::unpack`].
    pub fn finish(self) -> Result<Summary, UnpackError> {
        let Self { root, options, state, shortfall } = self;
        let State { seen, made, mut folders, late } = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut summary = Summary::default();
        let mut cursor = Cursor::at(root.as_fd());
        // Links to files first, links to names last: nothing is made through a name that points elsewhere.
        let order = |member: &Member| match member.kind {
            MemberKind::Hardlink => 0,
            MemberKind::Symlink => 2,
            _ => 1,
        };
        for stage in 0..3 {
            for member in late.iter().filter(|member| order(member) == stage) {
                match member.kind {
                    MemberKind::Hardlink => hard_link(&mut cursor, &root, member, options, &seen, &mut summary)?,
                    _ => special(&mut cursor, member, options, &shortfall, &mut summary)?,
                }
            }
        }

        // Folders with a member of their own get its mode; the others, above the roots of the backup, the usual one.
        let own: HashSet<&[u8]> = folders.iter().map(|member| &member.path.0[..]).collect();
        let plain: Vec<Vec<u8>> = made.into_iter().chain(cursor.made).filter(|path| !own.contains(&path[..])).collect();
        drop(own);
        // The deepest first: a folder may end up closed to ourselves.
        folders.sort_by_key(|member| Reverse(member.path.0.iter().filter(|byte| **byte == b'/').count()));
        let mut cursor = Cursor::at(root.as_fd());
        for member in &folders {
            let folder = cursor.folder(&member.path.0, Missing::Refuse)?;
            dress::open_entry(folder, member, options, &shortfall)?;
        }
        for path in plain {
            let folder = cursor.folder(&path, Missing::Refuse)?;
            let mode = Mode::from_raw_mode(0o755);
            fchmod(folder, mode).map_err(|errno| UnpackError::system("set the mode of", &path, errno))?;
        }
        summary.owners_kept = shortfall.owners.load(Ordering::Relaxed);
        summary.attributes_left_out = shortfall.attributes.load(Ordering::Relaxed);
        Ok(summary)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the form of a member's path and that it is the first of that name.
    fn meet(&self, member: &Member) -> Result<(), UnpackError> {
        split(&member.path.0)?;
        let before = self.lock().seen.insert(key(&member.path.0), member.kind == MemberKind::File);
        if before.is_some() {
            return Err(UnpackError::refuse(&member.path.0, "stands in the archive twice"));
        }
        Ok(())
    }

    fn file(&self, cursor: &mut Cursor<'_>, entry: &Entry, tar: &[u8]) -> Result<(), UnpackError> {
        let member = &entry.member;
        let file = self.create_file(cursor, member)?;
        let data = &tar[entry.data.clone()];
        let failed = |errno| UnpackError::system("write", &member.path.0, errno);
        match &entry.sparse {
            None => write_all_at(&file, data, 0).map_err(failed)?,
            Some(map) => {
                let mut data = data;
                for extent in map.extents() {
                    // The reader has held the map against the data, which is in memory.
                    let (now, later) = data.split_at(extent.bytes as usize);
                    write_all_at(&file, now, extent.offset).map_err(failed)?;
                    data = later;
                }
                ftruncate(&file, map.size_bytes()).map_err(failed)?;
            }
        }
        dress::open_entry(file.as_fd(), member, self.options, &self.shortfall)
    }

    /// Makes an empty file that nobody else can read yet.
    fn create_file(&self, cursor: &mut Cursor<'_>, member: &Member) -> Result<OwnedFd, UnpackError> {
        let (parent, name) = split(&member.path.0)?;
        let folder = cursor.folder(parent, Missing::Make)?;
        make(folder, name, member, self.options, || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(folder, name, flags, Mode::RUSR | Mode::WUSR)
        })
    }
}

fn hard_link(
    cursor: &mut Cursor<'_>,
    root: &OwnedFd,
    member: &Member,
    options: UnpackOptions,
    seen: &HashMap<PathKey, bool>,
    summary: &mut Summary,
) -> Result<(), UnpackError> {
    let target = member.link.as_ref().map_or(&[][..], |link| &link.0);
    let (target_parent, target_name) = split(target)?;
    match seen.get(&key(target)) {
        Some(true) => {}
        Some(false) => return Err(UnpackError::refuse(&member.path.0, "is a hard link to something that is no file")),
        None => {
            summary.unlinked.push((member.path.clone(), RawText::from(target)));
            return Ok(());
        }
    }
    let mut at_target = Cursor::at(root.as_fd());
    let target_folder = at_target.folder(target_parent, Missing::Refuse)?;
    let (parent, name) = split(&member.path.0)?;
    let folder = cursor.folder(parent, Missing::Make)?;
    make(folder, name, member, options, || linkat(target_folder, target_name, folder, name, AtFlags::empty()))
}

/// A symbolic link, FIFO or device node.
fn special(
    cursor: &mut Cursor<'_>,
    member: &Member,
    options: UnpackOptions,
    shortfall: &Shortfall,
    summary: &mut Summary,
) -> Result<(), UnpackError> {
    let (parent, name) = split(&member.path.0)?;
    let folder = cursor.folder(parent, Missing::Make)?;
    let node = |kind: FileType| {
        let (major, minor) = member.device.unwrap_or((0, 0));
        mknodat(folder, name, kind, Mode::RUSR | Mode::WUSR, rustix::fs::makedev(major, minor))
    };
    let made = make(folder, name, member, options, || match member.kind {
        MemberKind::Symlink => symlinkat(member.link.as_ref().map_or(&[][..], |link| &link.0), folder, name),
        MemberKind::Fifo => node(FileType::Fifo),
        MemberKind::Char => node(FileType::CharacterDevice),
        _ => node(FileType::BlockDevice),
    });
    let device = matches!(member.kind, MemberKind::Char | MemberKind::Block);
    match made {
        Err(UnpackError::System { cause, .. })
            if device && cause.kind() == io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() =>
        {
            summary.devices_left_out += 1;
            Ok(())
        }
        Err(error) => Err(error),
        Ok(()) => dress::special_entry(folder, name, member, options, shortfall),
    }
}

/// Makes an entry exclusively. With `overwrite`, what is there is taken away first, and never written through.
fn make<T>(
    folder: std::os::fd::BorrowedFd<'_>,
    name: &[u8],
    member: &Member,
    options: UnpackOptions,
    create: impl Fn() -> rustix::io::Result<T>,
) -> Result<T, UnpackError> {
    let mut made = create();
    if options.overwrite && made.as_ref().err() == Some(&Errno::EXIST) {
        unlinkat(folder, name, AtFlags::empty())
            .map_err(|errno| UnpackError::system("replace", &member.path.0, errno))?;
        made = create();
    }
    made.map_err(|errno| match errno {
        // The target was empty: the archive itself has put something there.
        Errno::EXIST if !options.overwrite => {
            UnpackError::refuse(&member.path.0, "stands where the archive has a folder")
        }
        errno => UnpackError::system("create", &member.path.0, errno),
    })
}

fn write_all_at(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(length) => {
                bytes = &bytes[length..];
                offset += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn key(path: &[u8]) -> PathKey {
    let [key @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *blake3::hash(path).as_bytes();
    key
}
