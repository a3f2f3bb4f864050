//! From a path in a tar to an open folder below the target: one component at a time, through folders only.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use crate::domain::contents::RawText;

use super::UnpackError;

/// The parent's path and the name of a member.
///
/// # Errors
/// [`UnpackError::Tar`] for a path that is empty, absolute, or has an empty component, a dot, two dots or a NUL.
pub(crate) fn split(path: &[u8]) -> Result<(&[u8], &[u8]), UnpackError> {
    for component in path.split(|byte| *byte == b'/') {
        let what = match component {
            b"" => "is empty, absolute, or has an empty component",
            b"." | b".." => "has dots for a component: it may lead out of the target",
            component if component.contains(&0) => "has a NUL in its name",
            _ => continue,
        };
        return Err(UnpackError::refuse(path, what));
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Ok((&path[..slash], &path[slash + 1..])),
        None => Ok((&[], path)),
    }
}

/// Whether missing folders are made on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// They are, for nobody but ourselves until their own member says more.
    Make,
    /// They are an error.
    Refuse,
}

/// The folder that was opened last. Members come in the order of the tree, so the next one is near.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    root: BorrowedFd<'a>,
    path: Vec<u8>,
    /// `None` at the root.
    folder: Option<OwnedFd>,
    /// Folders that this cursor made.
    pub(super) made: Vec<Vec<u8>>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn at(root: BorrowedFd<'a>) -> Self {
        Self { root, path: Vec::new(), folder: None, made: Vec::new() }
    }

    /// Opens a folder that must be there.
    pub(crate) fn existing(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, UnpackError> {
        self.folder(path, Missing::Refuse)
    }

    /// Opens the folder at `path`, which [`split`] has passed; empty is the root.
    pub(super) fn folder(&mut self, path: &[u8], missing: Missing) -> Result<BorrowedFd<'_>, UnpackError> {
        let below = path
            .strip_prefix(&self.path[..])
            .filter(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with(b"/"));
        let rest = match below {
            Some(rest) => rest.strip_prefix(b"/").unwrap_or(rest),
            None => {
                self.path.clear();
                self.folder = None;
                path
            }
        };
        for name in rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let next = if self.path.is_empty() { name.to_vec() } else { [&self.path[..], b"/", name].concat() };
            let parent = self.folder.as_ref().map_or(self.root, |folder| std::os::fd::AsFd::as_fd(folder));
            let mut opened = open_folder(parent, name);
            if opened.as_ref().err() == Some(&Errno::NOENT) && missing == Missing::Make {
                match mkdirat(parent, name, Mode::RWXU) {
                    Ok(()) => self.made.push(next.clone()),
                    // Another thread was faster.
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(UnpackError::system("make", &next, errno)),
                }
                opened = open_folder(parent, name);
            }
            match opened {
                Ok(folder) => self.folder = Some(folder),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Err(UnpackError::refuse(path, "leads through something that is not a folder"));
                }
                Err(errno) => return Err(UnpackError::system("open", &next, errno)),
            }
            self.path = next;
        }
        Ok(self.folder.as_ref().map_or(self.root, |folder| std::os::fd::AsFd::as_fd(folder)))
    }
}

fn open_folder(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// For messages.
pub(super) fn shown(path: &[u8]) -> String {
    RawText::from(path).display()
}
