//! What is known of one stored segment, and the bounds that every reader holds it to.

use super::ids::{KeyedId, ObjectId};

/// No segment of any source opens to more plain bytes than this.
pub const MAX_PLAIN_BYTES: usize = 16 * 1024 * 1024;
/// A segment of a file tree or of a SQLite database holds at most this much plain tar.
pub const MAX_FILE_SEGMENT_BYTES: usize = 4 * 1024 * 1024;
/// A list holds at most this many segments.
pub const MAX_LIST_LINES: usize = 4096;

/// A run of a source's tar stream as it lies in the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentRef {
    /// The SHA-256 of the stored bytes: the object's name.
    pub object: ObjectId,
    /// The object's size in the vault.
    pub stored_bytes: u64,
    /// The keyed hash of the plain bytes.
    pub id: KeyedId,
    /// The size of the plain bytes.
    pub plain_bytes: u64,
}
