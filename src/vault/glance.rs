//! What one step of a command saw of a vault, so that the next step need not ask again: which objects lay there, and what
//! lists name. Objects keep their names and lists their lines, so that only what came or went since is unknown; whoever
//! goes by a glance says why that does not matter to him.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::ids::ObjectId;

/// So long somebody may go by a glance.
pub const GLANCE_HOLDS: TimeDelta = TimeDelta::minutes(30);
/// A glance of more objects is not kept, nor what further lists name: 100 MB.
const MAX_ENTRIES: usize = 1_000_000;

/// What was seen.
#[derive(Debug)]
pub struct Glance {
    /// When the looking began, by the store's clock.
    pub(super) begun: DateTime<Utc>,
    /// Every object that lay there.
    pub(super) objects: HashMap<ObjectId, Glimpse>,
    /// What lists name.
    pub(super) lists: KnownLists,
}

/// What lists name that were read and had the bytes that their names say, as far as there is room.
#[derive(Debug, Default, Clone)]
pub(super) struct KnownLists {
    lists: HashMap<ObjectId, Vec<ObjectId>>,
    names: usize,
}

impl KnownLists {
    /// Keeps what a list names, where that fits.
    pub(super) fn add(&mut self, list: ObjectId, names: Vec<ObjectId>) {
        if self.names + names.len() <= MAX_ENTRIES {
            self.names += names.len();
            let before = self.lists.insert(list, names);
            self.names -= before.map_or(0, |before| before.len());
        }
    }

    /// What a list names, if that is known.
    pub(super) fn get(&self, list: &ObjectId) -> Option<&[ObjectId]> {
        self.lists.get(list).map(Vec::as_slice)
    }
}

/// An object that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glimpse {
    pub(super) size_bytes: u64,
    pub(super) modified: Option<DateTime<Utc>>,
}

impl Glance {
    /// All that was seen from that moment on; nothing where that is more than is kept.
    #[must_use]
    pub(super) fn new(begun: DateTime<Utc>, objects: HashMap<ObjectId, Glimpse>) -> Option<Self> {
        (objects.len() <= MAX_ENTRIES).then(|| Self { begun, objects, lists: KnownLists::default() })
    }

    /// Adds what a list names.
    pub fn add_list(&mut self, list: ObjectId, names: Vec<ObjectId>) {
        self.lists.add(list, names);
    }

    /// Whether somebody may go by it at this moment of the store's.
    #[must_use]
    pub(super) fn holds(&self, now: DateTime<Utc>) -> bool {
        self.begun <= now && now <= self.begun + GLANCE_HOLDS
    }

    /// How many objects were seen.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.objects.len()
    }
}
