//! Reading one source of one backup: its lists, its contents, its segments. Everything is held against the name or
//! the statement that leads to it, in the order of [`crate::seal::Opener`].

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::domain::contents::{Facts, Line, Member, Note, PieceSegment};
use crate::domain::ids::ObjectId;
use crate::domain::manifest::SourceEntry;
use crate::domain::segment::MAX_PLAIN_BYTES;
use crate::seal::{Opener, SealError};
use crate::storage::Storage;

use super::layout::Key;
use super::lists::{ListedSegment, read_list};
use super::{VaultError, versions};

/// A line of the contents, and what was fetched behind it: the piece line of a file of many terabytes is shorter.
const MAX_LINE_BYTES: usize = 256 * 1024 * 1024;
/// The version of the contents that this program reads.
const CONTENTS_VERSION: u32 = 1;
/// No stored object is larger than the largest segment, incompressible, with its age header.
pub const MAX_OBJECT_BYTES: u64 = MAX_PLAIN_BYTES as u64 + 1024 * 1024;

/// Fetches and opens. May be shared between threads; its calls block the calling one.
#[derive(Debug, Clone)]
pub struct Reader {
    runtime: Handle,
    storage: Arc<dyn Storage>,
    opener: Arc<Opener>,
}

/// A segment that the lists and the contents agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// The object.
    pub object: ObjectId,
    /// Its size.
    pub stored_bytes: u64,
    /// What the contents say of it.
    pub plain: PieceSegment,
}

/// A piece of the plan that the backup was written by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPiece {
    /// Its segments, in order.
    pub segments: Vec<Located>,
    /// Its members, in order.
    pub members: Vec<Member>,
}

/// What stands at the end of the contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    /// What did not go as it should.
    pub notes: Vec<Note>,
    /// What must be true of the restored source.
    pub facts: Option<Facts>,
}

impl Reader {
    /// Reads from `storage` with `opener`'s identities.
    #[must_use]
    pub fn new(runtime: Handle, storage: Arc<dyn Storage>, opener: Arc<Opener>) -> Self {
        Self { runtime, storage, opener }
    }

    /// Opens the plan of a source: its contents and lists, read as they are needed.
    ///
    /// # Errors
    /// When the first part of the contents cannot be had or opened, or is not this source's.
    pub fn plan(&self, source: &SourceEntry) -> Result<Plan, VaultError> {
        let mut plan = Plan {
            reader: self.clone(),
            source: source.name.to_string(),
            contents: source.contents.iter().copied().collect(),
            lists: source.lists.iter().copied().collect(),
            lines: VecDeque::new(),
            text: Vec::new(),
            read_to: 0,
            ahead: None,
            ended: false,
            id_key: [0; 32],
            config: serde_json::Value::Null,
            tail: Tail::default(),
            counted: Counted::default(),
        };
        match plan.next_line()? {
            Some(Line::Head { version, .. }) if version > CONTENTS_VERSION => {
                return Err(VaultError::NewerContents {
                    source_name: plan.source,
                    found: version,
                    supported: CONTENTS_VERSION,
                });
            }
            Some(Line::Head { source: name, id_key, config, .. }) if name == source.name => {
                hex::decode_to_slice(&id_key, &mut plan.id_key).map_err(|_| plan.broken("its id key is not one"))?;
                plan.config = config;
            }
            _ => return Err(plan.broken("they do not begin with the head of this source")),
        }
        plan.ahead = plan.next_line()?;
        Ok(plan)
    }

    /// Fetches and opens one segment.
    ///
    /// # Errors
    /// When it is missing, damaged, or not sealed to us.
    pub fn segment(&self, segment: &Located, id_key: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
        self.opened(&segment.object, |stored| self.opener.open_segment(&segment.object, stored, &segment.plain, id_key))
    }

    /// Fetches an object and opens it; an earlier version of it where what lies there is missing or damaged.
    fn opened<T>(&self, object: &ObjectId, open: impl Fn(&Bytes) -> Result<T, SealError>) -> Result<T, VaultError> {
        let key = Key::Object(*object).to_string();
        let wrong = match self.runtime.block_on(self.storage.get(&key, MAX_OBJECT_BYTES)) {
            Ok(stored) => match open(&stored) {
                Err(error @ SealError::Damaged { .. }) => blame(error, object),
                opened => return opened.map_err(|error| blame(error, object)),
            },
            Err(error) if versions::may_be_overwritten(&error) => error.into(),
            Err(error) => return Err(error.into()),
        };
        let earlier = versions::earlier_named(&*self.storage, &key, *object, MAX_OBJECT_BYTES);
        match self.runtime.block_on(earlier)? {
            Some(stored) => open(&stored).map_err(|error| blame(error, object)),
            None => Err(wrong),
        }
    }
}

/// Says which object it was.
fn blame(error: SealError, object: &ObjectId) -> VaultError {
    match error {
        SealError::Damaged { reason } => VaultError::ObjectDamaged { key: Key::Object(*object).to_string(), reason },
        other => VaultError::Seal(other),
    }
}

/// Walks through the pieces of a source, in order, with bounded memory.
#[derive(Debug)]
pub struct Plan {
    reader: Reader,
    source: String,
    contents: VecDeque<ObjectId>,
    lists: VecDeque<ObjectId>,
    lines: VecDeque<ListedSegment>,
    /// Opened contents, read up to `read_to`.
    text: Vec<u8>,
    read_to: usize,
    ahead: Option<Line>,
    ended: bool,
    id_key: [u8; 32],
    config: serde_json::Value,
    tail: Tail,
    counted: Counted,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    pieces: u64,
    members: u64,
    tar_bytes: u64,
}

impl Plan {
    /// The key of this source's segment ids.
    #[must_use]
    pub fn id_key(&self) -> [u8; 32] {
        self.id_key
    }

    /// The job's settings when the backup was made, without secrets.
    #[must_use]
    pub fn config(&self) -> &serde_json::Value {
        &self.config
    }

    /// What stood after the pieces; complete once [`Plan::next_piece`] gave `None`.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The next piece; `None` after the last, when the totals at the end agree.
    ///
    /// # Errors
    /// When contents and lists disagree, or cannot be had.
    pub fn next_piece(&mut self) -> Result<Option<PlannedPiece>, VaultError> {
        if self.ended {
            return Ok(None);
        }
        let named = match self.ahead.take() {
            Some(Line::Piece(named)) => named,
            other => {
                self.read_tail(other)?;
                self.ended = true;
                return Ok(None);
            }
        };
        let mut segments = Vec::with_capacity(named.len());
        for plain in named {
            let line = self.next_list_line()?;
            if plain.bytes > MAX_PLAIN_BYTES as u64 {
                let reason =
                    format!("a segment declares {} bytes, more than the {MAX_PLAIN_BYTES} of any", plain.bytes);
                return Err(self.broken(&reason));
            }
            if line.id != plain.id {
                return Err(self.broken("their segments are not those of the lists"));
            }
            // Offsets in large files are parts of this sum, so that none of them is beyond counting either.
            let sum = self.counted.tar_bytes.checked_add(plain.bytes);
            self.counted.tar_bytes = sum.ok_or_else(|| self.broken("their sizes are beyond counting"))?;
            segments.push(Located { object: line.object, stored_bytes: line.stored_bytes, plain });
        }
        let mut members = Vec::new();
        self.ahead = loop {
            match self.next_line()? {
                Some(Line::Member(member)) => members.push(*member),
                other => break other,
            }
        };
        self.counted.pieces += 1;
        self.counted.members += members.len() as u64;
        Ok(Some(PlannedPiece { segments, members }))
    }

    fn read_tail(&mut self, first: Option<Line>) -> Result<(), VaultError> {
        let mut line = first;
        loop {
            match line {
                Some(Line::Note(note)) => self.tail.notes.push(note),
                Some(Line::Facts(facts)) => self.tail.facts = Some(facts),
                Some(Line::End { pieces, members, tar_bytes }) => {
                    if (Counted { pieces, members, tar_bytes }) != self.counted {
                        return Err(self.broken("their totals do not agree"));
                    }
                    if self.next_line()?.is_some() || !self.lines.is_empty() || !self.lists.is_empty() {
                        return Err(self.broken("something stands after their end"));
                    }
                    return Ok(());
                }
                Some(_) => return Err(self.broken("a line stands where it must not")),
                None => return Err(self.broken("they are cut short")),
            }
            line = self.next_line()?;
        }
    }

    fn next_list_line(&mut self) -> Result<ListedSegment, VaultError> {
        while self.lines.is_empty() {
            let list = self.lists.pop_front().ok_or_else(|| self.broken("they name more segments than the lists"))?;
            self.lines = self.reader.runtime.block_on(read_list(&*self.reader.storage, list))?.into();
        }
        self.lines.pop_front().ok_or_else(|| self.broken("they name more segments than the lists"))
    }

    fn next_line(&mut self) -> Result<Option<Line>, VaultError> {
        loop {
            if let Some(length) = self.text[self.read_to..].iter().position(|&b| b == b'\n') {
                let line = &self.text[self.read_to..self.read_to + length];
                let parsed = serde_json::from_slice(line).map_err(|cause| VaultError::ContentsDamaged {
                    source_name: self.source.clone(),
                    reason: format!("a line cannot be read: {cause}"),
                })?;
                self.read_to += length + 1;
                return Ok(Some(parsed));
            }
            let Some(object) = self.contents.pop_front() else {
                return if self.read_to == self.text.len() { Ok(None) } else { Err(self.broken("they are cut short")) };
            };
            let opened = self.reader.opened(&object, |stored| self.reader.opener.open_contents(&object, stored))?;
            self.text.drain(..self.read_to);
            self.read_to = 0;
            self.text.extend_from_slice(&opened);
            if self.text.len() > MAX_LINE_BYTES {
                return Err(self.broken("a line is longer than any may be"));
            }
        }
    }

    fn broken(&self, reason: &str) -> VaultError {
        VaultError::ContentsDamaged { source_name: self.source.clone(), reason: reason.to_owned() }
    }
}
