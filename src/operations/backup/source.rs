//! One source of a run: from its snapshot to its entry in the manifest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::domain::contents::{Facts, Line, Note};
use crate::domain::ids::ObjectId;
use crate::domain::manifest::SourceEntry;
use crate::domain::segment::SegmentRef;
use crate::error::Result;
use crate::seal::{Sealer, SourceKeys};
use crate::sources::memory::{Memory, MemoryWriter};
use crate::sources::{Dated, Source};
use crate::vault::writer::{ContentsWriter, ListWriter, SegmentStore};

use super::journal::{Journal, Left};
use super::pipeline::{self, SealingLine};
use super::reuse::{Allowance, Reusable, candidates, rehash};
use super::{Job, Run, holds, owner};

/// A source that is stored, and what is left to do once the manifest is committed.
pub(super) struct StoredSource {
    /// Its entry.
    pub entry: SourceEntry,
    /// Whose word its recovery point is.
    pub dated: Dated,
    /// What did not go as it should.
    pub notes: Vec<Note>,
    /// Objects that the entry leads to, with their sizes.
    pub named: HashMap<ObjectId, u64>,
    /// What to remember, ready to be put in place.
    pub memory: MemoryWriter,
    /// What stands at the memory's head.
    pub contents: Vec<SegmentRef>,
    /// Which key the ids were made with.
    pub id_key_hash: [u8; 32],
    /// Segments that were named again unread.
    pub unread_segments: u64,
    /// Segments that a run which broke off had stored.
    pub resumed_segments: u64,
    /// Objects of earlier backups that were found to be wrong.
    pub wrong: Vec<ObjectId>,
    /// Objects and lists that were stored anew, in a store that holds.
    pub created: HashSet<ObjectId>,
    /// Until when it was told to hold those.
    pub held_until: Option<DateTime<Utc>>,
}

/// What a source begins with.
pub(super) struct Prepared {
    memory_path: PathBuf,
    memory: Option<Memory>,
    /// What a run that broke off left is from here on.
    begun: DateTime<Utc>,
    /// What may be named again.
    pub reusable: Reusable,
}

/// Reads what there is of a source: its memory, its base's lists. `left` is what a run that broke off stored of it.
pub(super) fn prepare(
    run: &Run<'_>,
    job: &Job<'_>,
    settings: &crate::config::SourceSettings,
    keys: &SourceKeys,
    left: Option<Left>,
) -> Result<Prepared> {
    let base = run.base(&settings.name);
    let memory_path = run.host.home()?.state.memory(&run.vault.id, &job.settings.name, &settings.name)?;
    let memory = Memory::open(&memory_path).filter(|memory| {
        base.is_some_and(|base| memory.head().backup == base.id && memory.head().recipient_set == run.recipient_set)
            && memory.head().id_key_hash == *blake3::hash(&keys.id_key).as_bytes()
    });
    let reusable = candidates(run, settings, base, memory.as_ref(), left.as_ref());
    let begun = left.map_or(run.since, |left| left.begun);
    Ok(Prepared { memory_path, memory, begun, reusable })
}

/// Stores a source. What may be named again was seen in the vault.
pub(super) fn store(
    run: &Run<'_>,
    job: &Job<'_>,
    source: &dyn Source,
    settings: &crate::config::SourceSettings,
    keys: &SourceKeys,
    prepared: Prepared,
    allowance: &mut Allowance,
) -> Result<StoredSource> {
    let base = run.base(&settings.name);
    let Prepared { memory_path, memory, begun, mut reusable } = prepared;
    let wrong = rehash(run, &mut reusable, allowance)?;
    let journal_path = run.host.home()?.state.journal(&run.vault.id, run.job, &settings.name)?;
    let journal = Arc::new(Journal::new(journal_path, owner(run, keys), begun));
    let written = Arc::clone(&journal);
    let mut snapshot = source.open(memory.as_ref())?;
    let (recovery_point, dated) = (snapshot.recovery_point(), snapshot.dated());
    let (storage, held_until) = holds::storing(run, recovery_point);
    let store = SegmentStore::new(run.host.runtime.clone(), storage, keys.id_key, reusable.known)
        .avoiding(Arc::clone(&run.barred))
        .having_read(reusable.lists.into_keys().collect())
        .telling(Arc::new(move |segment| written.landed(segment)))
        .syncing(Arc::clone(&run.pace));
    let mut collected = Collected::begin(run, job, settings, keys, &store, MemoryWriter::create(&memory_path)?)?;
    let estimate = base.and_then(|base| base.sources.iter().find(|s| s.name == settings.name)).map(|s| s.logical_bytes);
    run.progress.begin(&format!("backing up {}", settings.name), estimate);
    let line = SealingLine {
        store: &store,
        sealer: &|| run.sealer(&settings.kind),
        gear: &keys.gear(),
        workers: run.host.workers,
        progress: run.progress,
    };
    let piped = pipeline::run(&mut *snapshot, &line, &mut |done| {
        run.host.check_interrupted()?;
        collected.add(done)
    });
    run.progress.end();
    piped?;
    let finished = snapshot.finish()?;
    collected.notes.extend(finished.notes);
    let mut stored = collected.finish(finished.facts, recovery_point, source.kind(), settings)?;
    for key in store.repaired() {
        run.progress.warn(&format!("{key} lay damaged in the vault and was put right"));
    }
    if let Some(trouble) = journal.trouble() {
        run.progress.warn(&format!("{trouble}; if this run breaks off, the next one begins anew"));
    }
    stored.resumed_segments = store.resumed_segments();
    stored.wrong = wrong;
    (stored.created, stored.held_until) = (store.take_created(), held_until);
    stored.dated = dated;
    stored.id_key_hash = *blake3::hash(&keys.id_key).as_bytes();
    Ok(stored)
}

/// Gathers the pieces of a source in the order of the plan.
struct Collected<'a> {
    store: &'a SegmentStore,
    lists: ListWriter,
    contents: ContentsWriter,
    memory: MemoryWriter,
    named: HashMap<ObjectId, u64>,
    notes: Vec<Note>,
    pieces: u64,
    members: u64,
    unread_segments: u64,
    new_segments: u64,
}

impl<'a> Collected<'a> {
    fn begin(
        run: &Run<'a>,
        job: &Job<'_>,
        settings: &crate::config::SourceSettings,
        keys: &SourceKeys,
        store: &'a SegmentStore,
        memory: MemoryWriter,
    ) -> Result<Self> {
        let sealer: Sealer = run.sealer(&settings.kind)?;
        let mut contents = ContentsWriter::new(sealer);
        let mut head = Vec::new();
        Line::Head {
            version: 1,
            source: settings.name.clone(),
            kind: settings.kind.name().to_owned(),
            id_key: hex::encode(keys.id_key),
            config: job.config.clone(),
        }
        .write_to(&mut head);
        contents.push(store, &head)?;
        contents.cut(store)?;
        Ok(Self {
            store,
            lists: ListWriter::default(),
            contents,
            memory,
            named: HashMap::new(),
            notes: Vec::new(),
            pieces: 0,
            members: 0,
            unread_segments: 0,
            new_segments: 0,
        })
    }

    fn add(&mut self, done: pipeline::Done) -> Result<()> {
        let pipeline::Done { signature, piece, notes, new_segments, unread } = done;
        for segment in &piece.segments {
            self.named.insert(segment.object, segment.stored_bytes);
            self.lists.push(self.store, *segment)?;
        }
        self.contents.push(self.store, &piece.lines)?;
        self.pieces += 1;
        self.members += piece.members;
        self.new_segments += new_segments;
        if unread {
            self.unread_segments += piece.segments.len() as u64;
        }
        if let Some(signature) = signature {
            self.memory.push(&signature, &piece)?;
        }
        self.notes.extend(notes);
        Ok(())
    }

    fn finish(
        mut self,
        facts: Option<Facts>,
        recovery_point: DateTime<Utc>,
        kind: &str,
        settings: &crate::config::SourceSettings,
    ) -> Result<StoredSource> {
        let (lists, totals) = self.lists.finish(self.store)?;
        self.contents.cut(self.store)?;
        let mut tail = Vec::new();
        for note in &self.notes {
            Line::Note(note.clone()).write_to(&mut tail);
        }
        if let Some(facts) = facts {
            Line::Facts(facts).write_to(&mut tail);
        }
        Line::End { pieces: self.pieces, members: self.members, tar_bytes: totals.plain_bytes }.write_to(&mut tail);
        self.contents.push(self.store, &tail)?;
        let contents = self.contents.finish(self.store)?;
        self.store.settle()?;
        let mut stored_bytes = totals.stored_bytes;
        for segment in &contents {
            if self.named.insert(segment.object, segment.stored_bytes).is_none() {
                stored_bytes += segment.stored_bytes;
            }
        }
        let mut notes_by_class = BTreeMap::new();
        for note in &self.notes {
            *notes_by_class.entry(note.class).or_insert(0) += 1;
        }
        tracing::debug!(source = %settings.name, segments = totals.segments, unread = self.unread_segments, "stored");
        let (_, new_bytes) = self.store.added();
        let entry = SourceEntry {
            name: settings.name.clone(),
            kind: kind.to_owned(),
            recovery_point,
            lists,
            contents: contents.iter().map(|segment| segment.object).collect(),
            logical_bytes: totals.plain_bytes,
            stored_bytes,
            new_bytes,
            segments: totals.segments,
            new_segments: self.new_segments,
            notes: notes_by_class,
        };
        Ok(StoredSource {
            entry,
            dated: Dated::WhenRead,
            notes: self.notes,
            named: self.named,
            memory: self.memory,
            contents,
            id_key_hash: [0; 32],
            unread_segments: self.unread_segments,
            resumed_segments: 0,
            wrong: Vec::new(),
            created: HashSet::new(),
            held_until: None,
        })
    }
}
