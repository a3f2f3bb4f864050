//! What the system says of one directory entry, in one shape on every machine.

use rustix::fs::{FileType, Stat};

use crate::domain::contents::{Member, MemberKind, RawText};

/// The part of `stat` that a backup looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    /// `None` for what no tar holds: sockets and what is yet to be invented.
    pub(crate) kind: Option<MemberKind>,
    pub(crate) size_bytes: u64,
    /// The length of a symbolic link's target, as far as the file system tells.
    pub(crate) target_bytes: u64,
    /// What is allocated; less than the size where a file has holes.
    pub(crate) allocated_bytes: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) ctime: (i64, u32),
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) links: u64,
    /// The numbers of a device node.
    pub(crate) numbers: (u32, u32),
}

impl Status {
    pub(crate) fn of(stat: &Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Some(MemberKind::File),
            FileType::Directory => Some(MemberKind::Folder),
            FileType::Symlink => Some(MemberKind::Symlink),
            FileType::Fifo => Some(MemberKind::Fifo),
            FileType::CharacterDevice => Some(MemberKind::Char),
            FileType::BlockDevice => Some(MemberKind::Block),
            _ => None,
        };
        Self {
            kind,
            size_bytes: if kind == Some(MemberKind::File) { stat.st_size.try_into().unwrap_or(0) } else { 0 },
            target_bytes: if kind == Some(MemberKind::Symlink) { stat.st_size.try_into().unwrap_or(0) } else { 0 },
            allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
            device: stat.st_dev,
            inode: stat.st_ino,
            links: wide(stat.st_nlink),
            numbers: match kind {
                Some(MemberKind::Char | MemberKind::Block) => {
                    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
                }
                _ => (0, 0),
            },
        }
    }

    /// Whether both are the same inode.
    pub(crate) fn same_place(&self, other: &Self) -> bool {
        (self.device, self.inode, self.kind) == (other.device, other.inode, other.kind)
    }

    /// A member as far as the status tells it: without link target, hash and attributes.
    pub(crate) fn member(&self, path: &[u8], kind: MemberKind) -> Member {
        Member {
            path: RawText::from(path),
            kind,
            size_bytes: if kind == MemberKind::File { self.size_bytes } else { 0 },
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime_seconds: self.mtime.0,
            mtime_nanos: self.mtime.1,
            blake3: None,
            link: None,
            device: matches!(kind, MemberKind::Char | MemberKind::Block).then_some(self.numbers),
            xattrs: Vec::new(),
            flaw: None,
        }
    }
}

/// A number whose width differs from machine to machine.
fn wide(number: impl Into<u64>) -> u64 {
    number.into()
}
