//! Members in memory, on their way into the tar: written, hashed and counted on the threads that seal. And the bound on
//! how much of them there may be.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::contents::Member;
use crate::domain::ids::ContentHash;
use crate::sources::{Body, Cut, OpenPiece, Piece, Sink, SourceError, Written, tar};

use super::facts::{RowSum, Tally};
use super::layout::Part;

/// A member holds at most this much, in whole rows; a row that is longer is a member of its own.
pub(super) const MAX_MEMBER_BYTES: usize = 2 * 1024 * 1024;
/// Where a large member is cut.
const CUT_BYTES: u32 = 1024 * 1024;
/// Pieces that are handed out and not yet written hold at most this much, or one row that is larger.
const BUDGET_KIB: usize = 64 * 1024;
/// If nothing was written for so long, one piece more is handed out: whoever takes it may have given up, and cannot say
/// so while he waits for us.
const BUDGET_PATIENCE: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 256 * 1024;

/// A member with its content.
pub(super) struct Filled {
    pub(super) part: Part,
    pub(super) bytes: Bytes,
    /// Where its rows are to be counted.
    pub(super) counted: Option<Counted>,
}

/// Rows that are to be counted.
#[derive(Clone)]
pub(super) struct Counted {
    pub(super) tally: Arc<Tally>,
    pub(super) binary: bool,
    /// The table's name, for people.
    pub(super) table: Arc<str>,
}

/// What becomes one piece.
pub(super) enum Portion {
    /// Some members that fit into one segment.
    Several(Vec<Filled>),
    /// A member that is larger.
    Large(Filled),
}

impl Portion {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Several(members) => members.iter().map(|member| member.bytes.len()).sum(),
            Self::Large(member) => member.bytes.len(),
        }
    }
}

/// Bounds the bytes that are handed out and not yet written.
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_KIB)))
    }

    /// Waits for room, and makes a piece of a portion.
    pub(super) async fn hand_out(&self, portion: Portion) -> Piece {
        let kib = (portion.bytes() / 1024 + 1).min(BUDGET_KIB) as u32;
        let room = Arc::clone(&self.0).acquire_many_owned(kib);
        let permit = tokio::time::timeout(BUDGET_PATIENCE, room).await.ok().and_then(Result::ok);
        match portion {
            Portion::Several(members) => open(Members { members, _permit: permit }, Cut::Never),
            Portion::Large(member) => open(Large { member, _permit: permit }, Cut::Every(CUT_BYTES)),
        }
    }
}

/// Nothing is remembered of a database, so nothing has to be recognised.
fn open(piece: impl OpenPiece + 'static, cut: Cut) -> Piece {
    Piece { signature: [0; 32], body: Body::Open(Box::new(piece)), cut }
}

struct Members {
    members: Vec<Filled>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl OpenPiece for Members {
    fn write(self: Box<Self>, out: &mut dyn Sink) -> Result<Written, SourceError> {
        let mut written = Written::default();
        for filled in self.members {
            let member = write_header(&filled, out)?;
            out.write_all(&filled.bytes).map_err(SourceError::Sink)?;
            out.write_all(tar::padding(member.size_bytes)).map_err(SourceError::Sink)?;
            count(&filled)?;
            written.members.push(member);
        }
        Ok(written)
    }
}

struct Large {
    member: Filled,
    _permit: Option<OwnedSemaphorePermit>,
}

impl OpenPiece for Large {
    fn write(self: Box<Self>, out: &mut dyn Sink) -> Result<Written, SourceError> {
        let member = write_header(&self.member, out)?;
        out.boundary().map_err(SourceError::Sink)?;
        for slice in self.member.bytes.chunks(READ_BYTES) {
            out.write_all(slice).map_err(SourceError::Sink)?;
        }
        out.write_all(tar::padding(member.size_bytes)).map_err(SourceError::Sink)?;
        count(&self.member)?;
        Ok(Written { members: vec![member], ..Written::default() })
    }
}

fn write_header(filled: &Filled, out: &mut dyn Sink) -> Result<Member, SourceError> {
    let mut member = filled.part.member(filled.bytes.len() as u64);
    member.blake3 = Some(ContentHash(*blake3::hash(&filled.bytes).as_bytes()));
    out.write_all(&tar::header(&member, None)).map_err(SourceError::Sink)?;
    Ok(member)
}

fn count(filled: &Filled) -> Result<(), SourceError> {
    let Some(Counted { tally, binary, table }) = &filled.counted else { return Ok(()) };
    let mut sum = RowSum::default();
    let whole = if *binary { sum.add_binary(&filled.bytes) } else { sum.add_text(&filled.bytes) };
    if !whole {
        // A proxy may have cut what the server sends row by row.
        let what = "what came from the server are no whole rows".to_owned();
        let hint = Some("name the server's own host and port, not a proxy's".to_owned());
        return Err(SourceError::Server { server: table.to_string(), what, hint, transient: false });
    }
    tally.merge(&sum);
    Ok(())
}

/// A file of the private folder.
pub(super) fn of_file(part: Part, path: PathBuf) -> Piece {
    open(FilePiece { part, path }, Cut::Every(CUT_BYTES))
}

struct FilePiece {
    part: Part,
    path: PathBuf,
}

impl OpenPiece for FilePiece {
    fn write(self: Box<Self>, out: &mut dyn Sink) -> Result<Written, SourceError> {
        let Self { part, path } = *self;
        let refused = |cause| SourceError::io("read", path.display().to_string(), cause);
        let mut file = File::open(&path).map_err(refused)?;
        let bytes = file.metadata().map_err(refused)?.len();
        let mut member = part.member(bytes);
        out.write_all(&tar::header(&member, None)).map_err(SourceError::Sink)?;
        out.boundary().map_err(SourceError::Sink)?;
        let mut content = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut left = bytes;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
            let count = file.read(&mut buffer[..wanted]).map_err(refused)?;
            if count == 0 {
                return Err(refused(io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            content.update(&buffer[..count]);
            out.write_all(&buffer[..count]).map_err(SourceError::Sink)?;
            left -= count as u64;
        }
        out.write_all(tar::padding(bytes)).map_err(SourceError::Sink)?;
        member.blake3 = Some(ContentHash(*content.finalize().as_bytes()));
        Ok(Written { members: vec![member], ..Written::default() })
    }
}

/// Tar's end blocks.
pub(super) fn end() -> Piece {
    Piece { signature: *blake3::hash(&tar::END).as_bytes(), body: Body::Open(Box::new(EndPiece)), cut: Cut::Never }
}

struct EndPiece;

impl OpenPiece for EndPiece {
    fn write(self: Box<Self>, out: &mut dyn Sink) -> Result<Written, SourceError> {
        out.write_all(&tar::END).map_err(SourceError::Sink)?;
        Ok(Written { trusted: true, ..Written::default() })
    }
}
