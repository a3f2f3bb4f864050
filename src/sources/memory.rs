//! What a source remembers of its last backup, on this host: for each piece its signature, its segments and its
//! lines of the contents. It is a cache: lost, the files are read again, and nothing more.

use crate::domain::segment::SegmentRef;

/// A piece as the base backup stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its segments, in order.
    pub segments: Vec<SegmentRef>,
    /// Its lines of the contents: one piece line and its member lines, as bytes.
    pub lines: Vec<u8>,
    /// How many member lines stand in `lines`.
    pub members: u64,
}

/// The memory of one source, opened for looking up.
#[derive(Debug)]
pub struct Memory {
    placeholder: (),
}
