//! The segments of a source along its plan, asked for before they are needed.

use std::collections::VecDeque;

use crate::storage::ahead::{Ahead, Fetching};

use super::VaultError;
use super::layout::Key;
use super::reader::{Located, MAX_OBJECT_BYTES, Plan, PlannedPiece, Reader};

/// Pieces that one step looks at: those that are not wanted cost no request, and may be many.
const PIECES_A_STEP: usize = 256;

/// What is wanted of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Nothing.
    Nothing,
    /// All its segments.
    All,
    /// The first segment. The others are named with it, for whoever reads them himself.
    Head,
}

/// A segment that was asked for.
#[derive(Debug)]
pub struct Begun {
    segment: Located,
    fetching: Box<Fetching>,
    reader: Reader,
}

impl Begun {
    /// Waits for the segment and opens it; blocks.
    ///
    /// # Errors
    /// As [`Reader::segment`].
    pub fn open(self, id_key: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
        let (stored, _room) = self.fetching.wait_with_room();
        self.reader.open(&self.segment, stored, id_key)
    }

    /// Its plain bytes, as the contents have them.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.segment.plain.bytes
    }
}

/// The next segment, and what it is of its piece.
#[derive(Debug)]
pub enum Step {
    /// All of a piece.
    Whole(Begun),
    /// The first of several.
    Head {
        /// The first.
        head: Begun,
        /// The others, where only the head was to be taken.
        rest: Vec<Located>,
    },
    /// One that follows a head.
    Data(Begun),
    /// None yet: the last pieces were not wanted, and whoever must look up now and then can do so.
    LeftOut,
}

/// Asks for segments.
#[derive(Debug)]
pub struct Segments {
    reader: Reader,
    ahead: Ahead,
}

impl Segments {
    /// Has so much room for what it asks for and nobody has opened yet.
    #[must_use]
    pub fn new(reader: &Reader, room_bytes: u32) -> Self {
        Self { reader: reader.clone(), ahead: reader.ahead(room_bytes) }
    }

    /// Asks for as many of the first of these as is worth it. `begun` are those that were, which the caller holds: where
    /// there are none, there is one afterwards, if any is left.
    pub fn ask(&self, left: &mut VecDeque<Located>, begun: &mut VecDeque<Begun>) {
        while begun.len() < self.ahead.depth()
            && let Some(segment) = left.front().copied()
            && let Some(next) = self.begin(segment, begun.is_empty())
        {
            left.pop_front();
            begun.push_back(next);
        }
    }

    /// Waits for room where `must` says so.
    fn begin(&self, segment: Located, must: bool) -> Option<Begun> {
        let key = Key::Object(segment.object).to_string();
        let fetching = if must {
            Some(self.ahead.begin(key, segment.stored_bytes, MAX_OBJECT_BYTES))
        } else {
            self.ahead.try_begin(key, segment.stored_bytes, MAX_OBJECT_BYTES)
        };
        Some(Begun { segment, fetching: Box::new(fetching?), reader: self.reader.clone() })
    }
}

/// Walks along a plan. What it gives out has its room until it was opened, so another thread must do that.
pub struct Walk<'a> {
    segments: Segments,
    plan: &'a mut Plan,
    wanted: &'a dyn Fn(&PlannedPiece) -> Take,
    /// Of pieces that the plan has named, not asked for yet.
    named: VecDeque<(Place, Located)>,
    /// Asked for.
    begun: VecDeque<Step>,
    ended: Option<Result<(), VaultError>>,
}

/// What a segment is of its piece.
#[derive(Debug)]
enum Place {
    Whole,
    Head(Vec<Located>),
    Data,
}

impl<'a> Walk<'a> {
    /// Begins at the plan's next piece.
    #[must_use]
    pub fn new(segments: Segments, plan: &'a mut Plan, wanted: &'a dyn Fn(&PlannedPiece) -> Take) -> Self {
        Self { segments, plan, wanted, named: VecDeque::new(), begun: VecDeque::new(), ended: None }
    }

    /// With a piece in front that the plan gave already.
    #[must_use]
    pub fn behind(mut self, piece: Option<PlannedPiece>) -> Self {
        piece.into_iter().for_each(|piece| self.name(piece));
        self
    }

    /// The next segment that is wanted; `None` after the last.
    ///
    /// # Errors
    /// The plan's, after everything that it named before.
    pub fn step(&mut self) -> Result<Option<Step>, VaultError> {
        self.ask();
        match (self.begun.pop_front(), &mut self.ended) {
            (Some(next), _) => Ok(Some(next)),
            (None, None) => Ok(Some(Step::LeftOut)),
            (None, Some(ended)) => std::mem::replace(ended, Ok(())).map(|()| None),
        }
    }

    fn ask(&mut self) {
        let mut pieces = 0;
        while self.begun.len() < self.segments.ahead.depth() {
            let Some((place, segment)) = self.named.pop_front() else {
                if self.ended.is_some() || pieces == PIECES_A_STEP {
                    return;
                }
                pieces += 1;
                match self.plan.next_piece() {
                    Ok(Some(piece)) => self.name(piece),
                    end => self.ended = Some(end.map(drop)),
                }
                continue;
            };
            let Some(begun) = self.segments.begin(segment, self.begun.is_empty()) else {
                self.named.push_front((place, segment));
                return;
            };
            self.begun.push_back(match place {
                Place::Whole => Step::Whole(begun),
                Place::Head(rest) => Step::Head { head: begun, rest },
                Place::Data => Step::Data(begun),
            });
        }
    }

    fn name(&mut self, piece: PlannedPiece) {
        let take = (self.wanted)(&piece);
        let mut segments = piece.segments.into_iter();
        match (take, segments.next()) {
            (Take::Nothing, _) | (_, None) => {}
            (_, Some(whole)) if segments.len() == 0 => self.named.push_back((Place::Whole, whole)),
            (Take::Head, Some(head)) => self.named.push_back((Place::Head(segments.collect()), head)),
            (Take::All, Some(head)) => {
                self.named.push_back((Place::Head(Vec::new()), head));
                self.named.extend(segments.map(|segment| (Place::Data, segment)));
            }
        }
    }
}

impl std::fmt::Debug for Walk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").field("begun", &self.begun.len()).field("ended", &self.ended).finish_non_exhaustive()
    }
}
