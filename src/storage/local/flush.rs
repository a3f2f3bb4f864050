//! Whether one `syncfs` makes everything durable and tells of every failed write, or each file must be flushed.

use super::folders::Root;

/// How written bytes are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// One `syncfs` before the files get their names.
    Together,
    /// Each file as it is written, because `syncfs` would not tell of a failed write.
    EachFile,
}

impl Flush {
    /// Decides by the kernel's version and the kind of file system.
    ///
    /// `syncfs` reports failed write-back since Linux 5.8, from the account that a file system of disks keeps. An
    /// overlay passes the call on but not the account; NFS, SMB, FUSE, 9p and Ceph keep none, or another server
    /// does. tmpfs is in the list because nothing there outlives the machine anyway.
    pub(super) fn for_root(root: &Root) -> Self {
        const ACCOUNTABLE: [u32; 8] = [
            0x0000_ef53, // ext2, ext3, ext4
            0x5846_5342, // xfs
            0x9123_683e, // btrfs
            0xf2f5_2010, // f2fs
            0x2fc1_2fc1, // zfs
            0xca45_1a4e, // bcachefs
            0x0102_1994, // tmpfs
            0x8584_58f6, // ramfs
        ];
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        // File system types are 32 bits; some platforms hand them over sign-extended.
        let kind = rustix::fs::fstatfs(&root.fd).map(|stat| (stat.f_type & 0xffff_ffff) as u32);
        match kind {
            Ok(kind) if ACCOUNTABLE.contains(&kind) && syncfs_tells(&release) => Self::Together,
            _ => Self::EachFile,
        }
    }
}

/// Whether a kernel of this release reports failed write-back through `syncfs`.
pub(super) fn syncfs_tells(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 8)
}
