//! A large file on its way back: its data comes in segments, from several threads, in any order.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use crate::domain::contents::Member;
use crate::sources::tar::read::LargeEntry;
use crate::sources::tar::{BLOCK_BYTES, Extent};

use super::dress::{self, Shortfall};
use super::{UnpackError, UnpackOptions};

/// A file that is open and waits for its data.
#[derive(Debug)]
pub struct Large {
    file: OwnedFd,
    member: Member,
    data_bytes: u64,
    /// Where each extent begins in the data, and where it belongs; in order.
    extents: Vec<(u64, Extent)>,
    written_bytes: AtomicU64,
    options: UnpackOptions,
    shortfall: Arc<Shortfall>,
}

impl Large {
    pub(super) fn new(file: OwnedFd, entry: LargeEntry, options: UnpackOptions, shortfall: Arc<Shortfall>) -> Self {
        let mut begin = 0;
        let whole = [Extent { offset: 0, bytes: entry.data_bytes }];
        let extents = entry.sparse.as_ref().map_or(&whole[..], |map| map.extents());
        let extents = extents
            .iter()
            .map(|extent| {
                let place = begin;
                begin += extent.bytes;
                (place, *extent)
            })
            .collect();
        let LargeEntry { member, data_bytes, .. } = entry;
        Self { file, member, data_bytes, extents, written_bytes: AtomicU64::new(0), options, shortfall }
    }

    /// What the headers say of the file.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The length of the data stream: what the segments after the first hold together, without tar's padding.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Writes a stretch of the data stream: `offset` counts from the first byte behind the header segment. Tar's
    /// padding at the end is taken and dropped.
    ///
    /// # Errors
    /// When there is more data than declared, or the system refuses.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), UnpackError> {
        let too_long = || UnpackError::refuse(&self.member.path.0, "has more data than declared");
        let end = offset.checked_add(bytes.len() as u64).ok_or_else(too_long)?;
        let padded = self.data_bytes.checked_next_multiple_of(BLOCK_BYTES as u64).ok_or_else(too_long)?;
        if end > padded {
            return Err(too_long());
        }
        // What is beyond the data is less than a block.
        let padding = usize::try_from(end.saturating_sub(self.data_bytes.max(offset))).unwrap_or(bytes.len());
        let (mut data, padding) = bytes.split_at(bytes.len() - padding);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(too_long());
        }
        self.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let mut position = offset;
        let mut at = self.extents.partition_point(|(begin, extent)| begin + extent.bytes <= position);
        while !data.is_empty() {
            let (begin, extent) = self.extents.get(at).ok_or_else(too_long)?;
            let inside = position - begin;
            let length = usize::try_from(extent.bytes - inside).map_or(data.len(), |left| left.min(data.len()));
            let (now, later) = data.split_at(length);
            super::write_all_at(&self.file, now, extent.offset + inside)
                .map_err(|errno| UnpackError::system("write", &self.member.path.0, errno))?;
            data = later;
            position += length as u64;
            at += 1;
        }
        Ok(())
    }

    /// Gives the file its length, owner, attributes, mode and time.
    ///
    /// # Errors
    /// When data is missing, or the system refuses.
    pub fn finish(self) -> Result<(), UnpackError> {
        if self.written_bytes.load(Ordering::Relaxed) != self.data_bytes {
            return Err(UnpackError::refuse(&self.member.path.0, "has less data than declared"));
        }
        rustix::fs::ftruncate(&self.file, self.member.size_bytes)
            .map_err(|errno: Errno| UnpackError::system("set the length of", &self.member.path.0, errno))?;
        dress::open_entry(self.file.as_fd(), &self.member, self.options, &self.shortfall)
    }
}
