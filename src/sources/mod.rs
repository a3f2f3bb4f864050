//! What is backed up. A source turns its data into an ordered plan of pieces of one tar stream, and knows how to put
//! such a stream back and how to compare the result with what was there.
//!
//! A source knows nothing of vaults, keys, compression or where segments lie. It is read like this:
//!
//! 1. [`Source::open`] takes the snapshot; its moment is the recovery point.
//! 2. [`Snapshot::next_piece`] yields the plan, in order. A piece is either remembered from the base backup (it is
//!    named again, unread) or open: then [`OpenPiece::write`] is called once, on any thread, while the plan goes on
//!    and other pieces are being written.
//! 3. When every piece is written, [`Snapshot::finish`] gives the facts of the same snapshot.
//!
//! Pieces hold whole tar members. A piece that becomes one segment holds any number of them; a piece of several
//! segments holds exactly one large regular file: headers in the first segment, data (and tar's padding) in the
//! others.

use std::io::{self, Write};

use chrono::{DateTime, Utc};

use crate::domain::contents::{Facts, Member, Note};
use crate::error::{Code, Diagnostic};

pub mod compare;
pub mod files;
pub mod memory;
pub mod postgres;
pub mod sqlite;
pub mod tar;
pub mod unpack;

/// Something that can be backed up.
pub trait Source: Send + Sync {
    /// The kind as it stands in configs and manifests: `files`, `sqlite`, `postgres`.
    fn kind(&self) -> &'static str;

    /// Opens a snapshot. `memory` is what this source left after the base backup, if it is still at hand.
    ///
    /// # Errors
    /// When the source cannot be read at all: the run fails, nothing is committed.
    fn open<'a>(&'a self, memory: Option<&'a memory::Memory>) -> Result<Box<dyn Snapshot + 'a>, SourceError>;
}

/// One consistent view of a source (as consistent as its kind can be).
pub trait Snapshot: Send {
    /// The moment that the data is consistent at.
    fn recovery_point(&self) -> DateTime<Utc>;

    /// Whose word that moment is.
    fn dated(&self) -> Dated {
        Dated::WhenRead
    }

    /// The next piece in the order of the tar; `None` after the last, which carries tar's end blocks.
    ///
    /// # Errors
    /// When the source can no longer be read at all.
    fn next_piece(&mut self) -> Result<Option<Piece>, SourceError>;

    /// Called when every piece has been written.
    ///
    /// # Errors
    /// When the facts cannot be had: the run fails.
    fn finish(self: Box<Self>) -> Result<Finished, SourceError>;
}

/// Whose word a recovery point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dated {
    /// This host's: the data is as it was when the run read it.
    WhenRead,
    /// The source's own, which may be as old as it likes: a standby's last transaction.
    BySource,
}

/// A stretch of the plan.
pub struct Piece {
    /// What recognises the piece in the next run's memory.
    pub signature: Signature,
    /// Its content, or where that lies already.
    pub body: Body,
    /// Where the sealing side may cut inside the piece, besides the boundaries that it asks for itself.
    pub cut: Cut,
}

/// Recognises an unchanged piece without reading it: a hash over everything that would differ if its content did.
pub type Signature = [u8; 32];

/// What stands behind a piece.
pub enum Body {
    /// Unchanged since the base: named again. (The writer may find that an object is gone or refuted; then it calls
    /// `reread`.)
    Remembered {
        /// What the base stored.
        piece: memory::Remembered,
        /// Reads it after all.
        reread: Box<dyn OpenPiece>,
    },
    /// To be read.
    Open(Box<dyn OpenPiece>),
}

/// Where a piece may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nowhere: it is at most [`crate::domain::segment::MAX_FILE_SEGMENT_BYTES`] long.
    Never,
    /// By content.
    Content,
    /// Every so many bytes, counted from the last boundary.
    Every(u32),
}

/// Takes a piece's tar bytes.
pub trait Sink: Write {
    /// Ends the current segment here, if it has any bytes.
    ///
    /// # Errors
    /// When what was written so far could not be handed on.
    fn boundary(&mut self) -> io::Result<()>;
}

/// A piece that is to be read.
pub trait OpenPiece: Send {
    /// Writes the piece's tar bytes, whole 512-byte blocks, and says what was written.
    ///
    /// # Errors
    /// [`SourceError::Sink`] when `out` refused, which ends the run; any other when the source as a whole failed.
    /// A file that vanished or cannot be read is a note, not an error.
    fn write(self: Box<Self>, out: &mut dyn Sink) -> Result<Written, SourceError>;
}

/// What became of an open piece.
#[derive(Debug, Default)]
pub struct Written {
    /// Its members, in the order of the tar.
    pub members: Vec<Member>,
    /// What did not go as it should.
    pub notes: Vec<Note>,
    /// Whether the next run may take the same signature for the same content. False where something changed, failed
    /// or vanished while it was read.
    pub trusted: bool,
}

/// What a snapshot has to say at its end.
#[derive(Debug)]
pub struct Finished {
    /// What must be true of the restored data.
    pub facts: Option<Facts>,
    /// Notes that belong to no piece: folders that could not be listed, what was left out.
    pub notes: Vec<Note>,
}

/// Why a source cannot be read, or a tar not be put back.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A configured root is not there.
    #[error("{path} does not exist")]
    RootMissing {
        /// The path in the config.
        path: String,
    },
    /// A configured root is something else than what can be backed up.
    #[error("{path} is {what}")]
    RootUnusable {
        /// The path in the config.
        path: String,
        /// `a symbolic link to /srv/data`, ...
        what: String,
    },
    /// A configured root is, or lies in, what must not be stored as files.
    #[error("{path} cannot be backed up as files: {why}")]
    RootLeftOut {
        /// The path in the config.
        path: String,
        /// `backed up by source db`, ...
        why: String,
    },
    /// The system refused.
    #[error("cannot {verb} {path}")]
    Io {
        /// `open`, `read`, `list`, ...
        verb: &'static str,
        /// What it was done to, escaped for display.
        path: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The sealing side did not take the bytes; it knows why.
    #[error("the run was stopped")]
    Sink(#[source] io::Error),
    /// The database could not be read.
    #[error("{path}: {what}")]
    Database {
        /// The database file.
        path: String,
        /// What SQLite said.
        what: String,
        /// What to do about it, if there is something to say.
        hint: Option<String>,
    },
    /// A server could not be read, or not be written to.
    #[error("{server}: {what}")]
    Server {
        /// Its address, without a secret.
        server: String,
        /// What was tried, and what it said.
        what: String,
        /// What to do about it, if there is something to say.
        hint: Option<String>,
        /// Whether the same could go well a little later.
        transient: bool,
    },
    /// A pattern in the config is not a gitignore glob.
    #[error("{pattern:?} is not a usable pattern: {what}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        what: String,
    },
    /// A tar stream holds what must not be unpacked, or is not a tar stream.
    #[error("member {path:?} {what}")]
    Unsafe {
        /// The member's path, escaped.
        path: String,
        /// `leads out of the target`, ...
        what: String,
    },
}

impl SourceError {
    /// Wraps what the system said.
    pub fn io(verb: &'static str, path: impl Into<String>, cause: io::Error) -> Self {
        Self::Io { verb, path: path.into(), cause }
    }
}

impl Diagnostic for SourceError {
    fn code(&self) -> Code {
        match self {
            Self::Unsafe { .. } => Code::DataUnsafe,
            Self::Pattern { .. } => Code::ConfigInvalid,
            Self::Sink(_) => Code::StorageFailed,
            Self::Io { .. }
            | Self::RootMissing { .. }
            | Self::RootUnusable { .. }
            | Self::RootLeftOut { .. }
            | Self::Database { .. }
            | Self::Server { .. } => Code::SourceUnavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::RootMissing { path } => Some(format!("create or mount {path}, or take it out of the config")),
            Self::Database { hint, .. } | Self::Server { hint, .. } => hint.clone(),
            Self::RootLeftOut { path, .. } => Some(format!("take {path} out of this source's paths")),
            Self::RootUnusable { .. } => Some("name the real folder or file in the config".to_owned()),
            _ => None,
        }
    }

    fn is_transient(&self) -> bool {
        matches!(self, Self::Server { transient: true, .. })
    }
}
