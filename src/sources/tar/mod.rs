//! Tar as this program writes and reads it: POSIX.1-2001 (PAX) members without global headers, the same bytes for the
//! same member every time, so that an unchanged file gives an unchanged segment.
//!
//! Nothing here knows a file system: [`write`] turns a [`crate::domain::contents::Member`] into header bytes,
//! [`read`] turns the bytes of a segment back into members and the places of their data. The format is kept within
//! what GNU tar restores in full: extended attributes as `SCHILY.xattr.*`, ACLs as attributes *and* as text
//! (`tar --acls` resets those that it finds no text for), holes as GNU's sparse format 1.0.

mod acl;
pub mod sparse;
pub mod write;

pub use sparse::{Extent, SparseMap};
pub use write::{END, header, padding};

/// Tar counts in blocks of this many bytes.
pub const BLOCK_BYTES: usize = 512;
