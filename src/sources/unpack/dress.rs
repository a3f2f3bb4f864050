//! Owner, attributes, mode and times, in the order in which none undoes another: a new owner takes away set-uid bits
//! and capabilities, an ACL moves the mode's group bits, and everything moves the times.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmod, chownat, fchmod, fchown, fsetxattr,
    futimens, lsetxattr, utimensat,
};
use rustix::io::Errno;

use crate::domain::contents::{Member, MemberKind};
use crate::sources::files::attributes::{entry_path, is_privileged};

use super::{UnpackError, UnpackOptions};

const SET_ID_BITS: u32 = 0o6000;

/// What could not be given because we are not root.
#[derive(Debug, Default)]
pub(super) struct Shortfall {
    pub(super) owners: AtomicU64,
    pub(super) attributes: AtomicU64,
}

/// Dresses an open file or folder.
pub(super) fn open_entry(
    fd: BorrowedFd<'_>,
    member: &Member,
    options: UnpackOptions,
    shortfall: &Shortfall,
) -> Result<(), UnpackError> {
    let failed = |verb: &'static str| move |errno: Errno| UnpackError::system(verb, &member.path.0, errno);
    if options.owners {
        let (uid, gid) = owner(member);
        fchown(fd, Some(uid), Some(gid)).map_err(failed("give an owner to"))?;
    }
    xattrs(member, shortfall, |name, value| fsetxattr(fd, name, value, XattrFlags::empty()))?;
    fchmod(fd, mode(member, options, shortfall)).map_err(failed("set the mode of"))?;
    futimens(fd, &times(member)).map_err(failed("set the time of"))
}

/// Dresses a symbolic link, FIFO or device node that was just made in `folder`.
pub(super) fn special_entry<Fd: AsFd + AsRawFd>(
    folder: Fd,
    name: &[u8],
    member: &Member,
    options: UnpackOptions,
    shortfall: &Shortfall,
) -> Result<(), UnpackError> {
    let failed = |verb: &'static str| move |errno: Errno| UnpackError::system(verb, &member.path.0, errno);
    if options.owners {
        let (uid, gid) = owner(member);
        chownat(&folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed("give an owner to"))?;
    }
    let path = entry_path(&folder, name);
    xattrs(member, shortfall, |name, value| lsetxattr(&path[..], name, value, XattrFlags::empty()))?;
    if member.kind != MemberKind::Symlink {
        // The path ends at a node that was made a moment ago, exclusively; a link never stood here.
        chmod(&path[..], mode(member, options, shortfall)).map_err(failed("set the mode of"))?;
    } else if !options.owners {
        count_owner(member, shortfall);
    }
    utimensat(&folder, name, &times(member), AtFlags::SYMLINK_NOFOLLOW).map_err(failed("set the time of"))
}

fn xattrs(
    member: &Member,
    shortfall: &Shortfall,
    set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
) -> Result<(), UnpackError> {
    for (name, value) in &member.xattrs {
        match set(&name.0, &value.0) {
            Ok(()) => {}
            Err(_) if is_privileged(&name.0) && !rustix::process::geteuid().is_root() => {
                shortfall.attributes.fetch_add(1, Ordering::Relaxed);
            }
            Err(errno) => return Err(UnpackError::system("set an extended attribute of", &member.path.0, errno)),
        }
    }
    Ok(())
}

/// The mode; without set-id bits where the owner is not the one that they speak of.
fn mode(member: &Member, options: UnpackOptions, shortfall: &Shortfall) -> Mode {
    let foreign = !options.owners && count_owner(member, shortfall);
    Mode::from_raw_mode(if foreign { member.mode & !SET_ID_BITS } else { member.mode })
}

/// Whether we, who keep the entry, are not its owner of record.
fn count_owner(member: &Member, shortfall: &Shortfall) -> bool {
    let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let foreign = ours != (member.uid, member.gid);
    if foreign {
        shortfall.owners.fetch_add(1, Ordering::Relaxed);
    }
    foreign
}

fn owner(member: &Member) -> (Uid, Gid) {
    (Uid::from_raw(member.uid), Gid::from_raw(member.gid))
}

fn times(member: &Member) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: member.mtime_seconds, tv_nsec: member.mtime_nanos.into() },
    }
}
