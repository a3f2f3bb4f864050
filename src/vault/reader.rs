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
use crate::storage::ahead::{Ahead, Fetching};
use crate::storage::{Storage, StorageError};

use super::layout::Key;
use super::lists::{ListedSegment, MAX_LIST_BYTES, open_read_list};
use super::{VaultError, versions};

/// A line of the contents, and what was fetched behind it: the piece line of a file of many terabytes is shorter.
const MAX_LINE_BYTES: usize = 256 * 1024 * 1024;
/// The version of the contents that this program reads.
const CONTENTS_VERSION: u32 = 1;
/// No stored object is larger than the largest segment, incompressible, with its age header.
pub const MAX_OBJECT_BYTES: u64 = MAX_PLAIN_BYTES as u64 + 1024 * 1024;

/// What a part of the contents is taken to have, where nothing says how much it is: no writer makes larger ones.
pub const USUAL_CONTENTS_BYTES: u64 = 5 * 1024 * 1024;
/// Parts of the contents, and as many lists, that a plan asks for before it needs them. They lead to thousands of segments.
const PLAN_AHEAD: usize = 4;
/// Of each, before the plan is known to open: the first part is its head alone.
const OPENING_AHEAD: usize = 2;
/// Bytes of both.
const PLAN_ROOM_BYTES: u32 = 32 * 1024 * 1024;
// A plan waits for room of its own alone: those that are under way, and the one of each that is being opened, must fit.
const _: () = assert!((PLAN_AHEAD as u64 + 1) * (USUAL_CONTENTS_BYTES + MAX_LIST_BYTES) <= PLAN_ROOM_BYTES as u64);

/// Fetches and opens. May be shared between threads; its calls block the calling one.
#[derive(Debug, Clone)]
pub struct Reader {
    ahead: Ahead,
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
        Self { ahead: Ahead::new(runtime, storage), opener }
    }

    /// Those of these recipients whose identities it has.
    #[must_use]
    pub fn held_among(&self, recipients: &[String]) -> Vec<String> {
        let held = |recipient: &&String| self.opener.opens_for(std::slice::from_ref(recipient));
        recipients.iter().filter(held).cloned().collect()
    }

    /// Begins requests, with room of its own for what is read.
    #[must_use]
    pub fn ahead(&self, room_bytes: u32) -> Ahead {
        self.ahead.with_room(room_bytes)
    }

    /// The store that it reads from.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        self.ahead.storage()
    }

    /// Opens the plan of a source: its contents and lists, read as they are needed.
    ///
    /// # Errors
    /// When the first part of the contents cannot be had or opened, or is not this source's.
    pub fn plan(&self, source: &SourceEntry) -> Result<Plan, VaultError> {
        self.begin_plan(source).open()
    }

    /// Asks for what a plan begins with: whoever opens several asks for all of them first.
    #[must_use]
    pub fn begin_plan<'s>(&self, source: &'s SourceEntry) -> BegunPlan<'s> {
        let mut plan = Plan {
            reader: self.clone(),
            source: source.name.to_string(),
            contents: Asked::new(&source.contents, Key::Object, USUAL_CONTENTS_BYTES, MAX_OBJECT_BYTES),
            lists: Asked::new(&source.lists, Key::List, MAX_LIST_BYTES, MAX_LIST_BYTES),
            ahead_of_use: self.ahead(PLAN_ROOM_BYTES),
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
        plan.contents.ask(&plan.ahead_of_use, OPENING_AHEAD);
        BegunPlan { source, plan }
    }

    /// Fetches and opens one segment.
    ///
    /// # Errors
    /// When it is missing, damaged, or not sealed to us.
    pub fn segment(&self, segment: &Located, id_key: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
        let key = Key::Object(segment.object).to_string();
        let stored = self.ahead.runtime().block_on(self.storage().get(&key, MAX_OBJECT_BYTES));
        self.open(segment, stored, id_key)
    }

    /// Opens a segment that was fetched, or was to be.
    ///
    /// # Errors
    /// When it is missing, damaged, or not sealed to us.
    pub fn open(
        &self,
        segment: &Located,
        stored: Result<Bytes, StorageError>,
        id_key: &[u8; 32],
    ) -> Result<Vec<u8>, VaultError> {
        let object = &segment.object;
        self.opened(object, stored, |stored| self.opener.open_segment(object, stored, &segment.plain, id_key))
    }

    /// Opens an object that was fetched; an earlier version of it where what lies there is missing or damaged.
    fn opened<T>(
        &self,
        object: &ObjectId,
        stored: Result<Bytes, StorageError>,
        open: impl Fn(&[u8]) -> Result<T, SealError>,
    ) -> Result<T, VaultError> {
        let wrong = match stored {
            Ok(stored) => match open(&stored) {
                Err(error @ SealError::Damaged { .. }) => blame(error, object),
                opened => return opened.map_err(|error| blame(error, object)),
            },
            Err(error) if versions::may_be_overwritten(&error) => error.into(),
            Err(error) => return Err(error.into()),
        };
        let key = Key::Object(*object).to_string();
        let earlier = versions::earlier_named(&**self.storage(), &key, *object, MAX_OBJECT_BYTES);
        match self.ahead.runtime().block_on(earlier)? {
            Some(stored) => open(&stored).map_err(|error| blame(error, object)),
            None => Err(wrong),
        }
    }
}

/// A plan whose beginning was asked for.
#[derive(Debug)]
pub struct BegunPlan<'s> {
    source: &'s SourceEntry,
    plan: Plan,
}

impl BegunPlan<'_> {
    /// Waits for it, and opens it.
    ///
    /// # Errors
    /// As [`Reader::plan`].
    pub fn open(self) -> Result<Plan, VaultError> {
        let Self { source, mut plan } = self;
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
}

/// Says which object it was.
fn blame(error: SealError, object: &ObjectId) -> VaultError {
    match error {
        SealError::Damaged { reason } => VaultError::ObjectDamaged { key: Key::Object(*object).to_string(), reason },
        other => VaultError::Seal(other),
    }
}

/// Objects or lists that will be read in their order, of which the first few are asked for.
#[derive(Debug)]
struct Asked {
    left: VecDeque<ObjectId>,
    under_way: VecDeque<(ObjectId, Fetching)>,
    at_once: usize,
    key: fn(ObjectId) -> Key,
    expected_bytes: u64,
    limit_bytes: u64,
}

impl Asked {
    fn new(names: &[ObjectId], key: fn(ObjectId) -> Key, expected_bytes: u64, limit_bytes: u64) -> Self {
        let left = names.iter().copied().collect();
        Self { left, under_way: VecDeque::new(), at_once: 0, key, expected_bytes, limit_bytes }
    }

    fn is_empty(&self) -> bool {
        self.left.is_empty() && self.under_way.is_empty()
    }

    /// Asks for more, as far as there is room.
    fn ask(&mut self, ahead: &Ahead, at_once: usize) {
        while self.under_way.len() < at_once
            && let Some(name) = self.left.front().copied()
            && let Some(begun) = ahead.try_begin((self.key)(name).to_string(), self.expected_bytes, self.limit_bytes)
        {
            self.left.pop_front();
            self.under_way.push_back((name, begun));
        }
    }

    /// The next one, which is waited for; after it the others are asked for.
    fn next(&mut self, ahead: &Ahead) -> Option<(ObjectId, Fetching)> {
        let next = self.under_way.pop_front().or_else(|| {
            let name = self.left.pop_front()?;
            Some((name, ahead.begin((self.key)(name).to_string(), self.expected_bytes, self.limit_bytes)))
        });
        self.ask(ahead, self.at_once);
        next
    }
}

/// Walks through the pieces of a source, in order, with bounded memory.
#[derive(Debug)]
pub struct Plan {
    reader: Reader,
    source: String,
    contents: Asked,
    lists: Asked,
    ahead_of_use: Ahead,
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
        (self.contents.at_once, self.lists.at_once) = (PLAN_AHEAD, PLAN_AHEAD);
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
            let next = self.lists.next(&self.ahead_of_use);
            let (list, begun) = next.ok_or_else(|| self.broken("they name more segments than the lists"))?;
            let (stored, _room) = begun.wait_with_room();
            let read = open_read_list(&**self.reader.storage(), list, stored);
            self.lines = self.reader.ahead.runtime().block_on(read)?.into();
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
            let Some((object, begun)) = self.contents.next(&self.ahead_of_use) else {
                return if self.read_to == self.text.len() { Ok(None) } else { Err(self.broken("they are cut short")) };
            };
            let (stored, _room) = begun.wait_with_room();
            let opened =
                self.reader.opened(&object, stored, |stored| self.reader.opener.open_contents(&object, stored))?;
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
