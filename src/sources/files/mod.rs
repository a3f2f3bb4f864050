//! File trees: everything below some folders, as a plan of small bundles and large files.
//!
//! | file | what it does |
//! |---|---|
//! | [`walk`] | the entries in order, with excludes and mounts; lists and stats |
//! | [`plan`] | bundles, hard links, signatures: what makes a piece, and whether the base has it already |
//! | [`read`] | opens what must be read, and survives what changes meanwhile |
//!
//! What is stored: regular files with their holes, folders, symbolic links, FIFOs and device nodes, with mode, owner,
//! modification time to the nanosecond and extended attributes. Hard links are kept between regular files; other kinds
//! with several names are stored once a name. Sockets are left out, and noted.

pub(crate) mod attributes;
mod folder;
pub(crate) mod names;
mod plan;
mod read;
pub(crate) mod status;
mod walk;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Clock;

pub(crate) use read::hash_of;

use super::memory::Memory;
use super::{Snapshot, Source, SourceError};

/// Which files.
#[derive(Debug, Clone, Default)]
pub struct FilesOptions {
    /// Files and folders, as absolute paths; each is stored with everything below it, once, however they overlap.
    pub paths: Vec<PathBuf>,
    /// Gitignore globs, relative to each root; a later `!pattern` takes back an earlier one. What they match is not
    /// stored, and not noted either.
    pub exclude: Vec<String>,
    /// Stay on each root's own file system; the folders that others are mounted on are kept, empty.
    pub one_file_system: bool,
    /// Keep folders that hold a `CACHEDIR.TAG`, but nothing in them.
    pub exclude_caches: bool,
    /// What is not stored, with everything below it, wherever a root leads to it; noted where it is met. It need not
    /// exist.
    pub leave_out: Vec<LeftOut>,
    /// The key of the hash that chooses where bundles end. A secret of the host: sizes of bundles are visible in the
    /// vault, and under a known hash they would be a fingerprint of known trees.
    pub name_key: [u8; 32],
}

/// Something that a walk must not touch: it is neither looked at nor opened.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// The file or folder; links above it are followed, and so is one that it is itself.
    pub path: PathBuf,
    /// Why, as the note says it.
    pub why: String,
}

/// A source of kind `files`.
pub struct FilesSource {
    options: FilesOptions,
    clock: Arc<dyn Clock>,
}

impl FilesSource {
    /// A source over these paths. Nothing is touched before it is opened.
    #[must_use]
    pub fn new(options: FilesOptions, clock: Arc<dyn Clock>) -> Self {
        Self { options, clock }
    }
}

impl Source for FilesSource {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn open<'a>(&'a self, memory: Option<&'a Memory>) -> Result<Box<dyn Snapshot + 'a>, SourceError> {
        // The moment is taken before the first look: what is written later counts as later.
        let opened = self.clock.now();
        // Attributes of links and devices are reached through here; without it they would silently stay away.
        rustix::fs::stat("/proc/self/fd").map_err(|errno| SourceError::io("look at", "/proc/self/fd", errno.into()))?;
        let walk = walk::Walk::begin(&self.options)?;
        Ok(Box::new(plan::FilesSnapshot::new(walk, self.options.name_key, memory, opened)))
    }
}
