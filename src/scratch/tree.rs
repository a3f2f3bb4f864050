//! Walks a tree that a stranger may have shaped: every step is taken relative to an open folder, no link is ever
//! followed, no mount is ever crossed, and a path may be as deep as it likes, because none is ever put together.
//!
//! What is done on the way is the visitor's matter.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Names of a path that are kept for a message.
const SHOWN_NAMES: usize = 16;

/// Where the walk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Before a sub-folder is opened.
    Enter,
    /// At something that is not a folder.
    Entry(FileType),
    /// After everything inside a sub-folder was visited.
    Leave,
}

/// Does something at a step: gets the folder that the name stands in; an error says what it could not do.
pub(super) type Visit<'a> = dyn FnMut(BorrowedFd<'_>, &CStr, Step) -> Result<(), (&'static str, Errno)> + 'a;

/// What stopped a walk.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}")]
pub(super) struct TreeError {
    /// What was being done.
    pub(super) verb: &'static str,
    /// Where, from the top of the walk; the middle of a deep path is left out.
    pub(super) path: String,
    /// What the system said.
    #[source]
    pub(super) cause: io::Error,
}

/// A sub-folder on the way down.
struct Frame {
    name: CString,
    identity: (u64, u64),
    folders: Vec<CString>,
}

/// Visits everything below `top`, depth first.
///
/// One descriptor is open at a time; the way up is `..`, and it is checked that it leads to where the walk came from.
///
/// # Errors
/// Stops at the first thing that the system or the visitor refuses. A mount inside is refused with `EXDEV`.
pub(super) fn walk(top: OwnedFd, visit: &mut Visit<'_>) -> Result<(), TreeError> {
    let mut here = top;
    let mut frames = vec![Frame {
        name: CString::default(),
        identity: identity(&here).map_err(|errno| error(&[], None, "look at", errno))?,
        folders: Vec::new(),
    }];
    list(&here, &mut frames, visit)?;
    while let Some(next) = frames.last_mut().map(|frame| frame.folders.pop()) {
        if let Some(name) = next {
            visit(here.as_fd(), &name, Step::Enter)
                .map_err(|(verb, errno)| error(&frames, Some(&name), verb, errno))?;
            let below = open_below(&here, &name).map_err(|errno| error(&frames, Some(&name), "open", errno))?;
            let identity = identity(&below).map_err(|errno| error(&frames, Some(&name), "look at", errno))?;
            here = below;
            frames.push(Frame { name, identity, folders: Vec::new() });
            list(&here, &mut frames, visit)?;
            continue;
        }
        let Some(done) = frames.pop() else { break };
        let Some(parent) = frames.last() else { break };
        let above = open_above(&here).map_err(|errno| error(&frames, Some(&done.name), "leave", errno))?;
        match identity(&above) {
            Ok(found) if found == parent.identity => here = above,
            Ok(_) => return Err(error(&frames, Some(&done.name), "find the way back from", Errno::STALE)),
            Err(errno) => return Err(error(&frames, Some(&done.name), "leave", errno)),
        }
        visit(here.as_fd(), &done.name, Step::Leave)
            .map_err(|(verb, errno)| error(&frames, Some(&done.name), verb, errno))?;
    }
    Ok(())
}

/// Opens a folder by path for a walk. The path's last name must not be a link.
pub(super) fn open_top(path: &std::path::Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, folder_flags(), Mode::empty())?)
}

/// Visits what is not a folder, and remembers what is.
fn list(here: &OwnedFd, frames: &mut [Frame], visit: &mut Visit<'_>) -> Result<(), TreeError> {
    let mut folders = Vec::new();
    let entries = Dir::read_from(here).map_err(|errno| error(frames, None, "list", errno))?;
    for entry in entries {
        let entry = entry.map_err(|errno| error(frames, None, "list", errno))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW)
                .map(|stat| FileType::from_raw_mode(stat.st_mode))
                .map_err(|errno| error(frames, Some(name), "look at", errno))?,
            known => known,
        };
        if kind == FileType::Directory {
            folders.push(name.to_owned());
        } else {
            visit(here.as_fd(), name, Step::Entry(kind))
                .map_err(|(verb, errno)| error(frames, Some(name), verb, errno))?;
        }
    }
    if let Some(frame) = frames.last_mut() {
        frame.folders = folders;
    }
    Ok(())
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn open_below(here: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(here, name, folder_flags(), Mode::empty(), resolve)
}

fn open_above(here: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(here, c"..", folder_flags(), Mode::empty(), ResolveFlags::NO_XDEV)
}

fn identity(folder: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(folder)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn error(frames: &[Frame], last: Option<&CStr>, verb: &'static str, errno: Errno) -> TreeError {
    let names: Vec<&CStr> = frames.iter().skip(1).map(|frame| frame.name.as_c_str()).chain(last).collect();
    let surplus = names.len().saturating_sub(SHOWN_NAMES);
    let mut path = String::from(if surplus > 0 { "…" } else { "." });
    for name in &names[surplus..] {
        path.push('/');
        path.push_str(&name.to_bytes().escape_ascii().to_string());
    }
    TreeError { verb, path, cause: errno.into() }
}
