//! One source of a run: from its snapshot to its entry in the manifest.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::domain::contents::{Facts, Line, Note};
use crate::domain::ids::{KeyedId, ObjectId};
use crate::domain::manifest::{Manifest, SourceEntry};
use crate::domain::segment::SegmentRef;
use crate::error::Result;
use crate::seal::{Sealer, SourceKeys};
use crate::sources::Source;
use crate::sources::memory::{Memory, MemoryWriter};
use crate::vault::lists::read_list;
use crate::vault::writer::{ContentsWriter, ListWriter, SegmentStore, absent};

use super::pipeline::{self, SealingLine};
use super::{Job, Run};

/// A source that is stored, and what is left to do once the manifest is committed.
pub(super) struct StoredSource {
    /// Its entry.
    pub entry: SourceEntry,
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
}

/// Stores a source.
pub(super) fn store(
    run: &Run<'_>,
    job: &Job<'_>,
    source: &dyn Source,
    settings: &crate::config::SourceSettings,
    keys: &SourceKeys,
) -> Result<StoredSource> {
    let base = run.base(&settings.name);
    let memory_path = run.host.home()?.state.memory(&run.vault.id, &job.settings.name, &settings.name)?;
    let memory = Memory::open(&memory_path).filter(|memory| {
        base.is_some_and(|base| memory.head().backup == base.id && memory.head().recipient_set == run.recipient_set)
            && memory.head().id_key_hash == *blake3::hash(&keys.id_key).as_bytes()
    });
    let known = match base {
        Some(base) => may_be_named(run, base, settings, memory.as_ref())?,
        None => Vec::new(),
    };
    let store = SegmentStore::new(run.host.runtime.clone(), run.vault.storage.clone(), keys.id_key, known);

    let mut snapshot = source.open(memory.as_ref())?;
    let recovery_point = snapshot.recovery_point();
    let mut collected = Collected::begin(run, job, settings, keys, &store, MemoryWriter::create(&memory_path)?)?;
    let estimate = base.and_then(|base| base.sources.iter().find(|s| s.name == settings.name)).map(|s| s.logical_bytes);
    run.progress.begin(&format!("backing up {}", settings.name), estimate);
    let line = SealingLine {
        store: &store,
        sealer: &|| run.sealer(),
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
    stored.id_key_hash = *blake3::hash(&keys.id_key).as_bytes();
    Ok(stored)
}

/// What the base stored of this source and the vault still has: these objects may be named again.
fn may_be_named(
    run: &Run<'_>,
    base: &Manifest,
    settings: &crate::config::SourceSettings,
    memory: Option<&Memory>,
) -> Result<Vec<(KeyedId, ObjectId, u64)>> {
    let Some(entry) = base.sources.iter().find(|source| source.name == settings.name) else { return Ok(Vec::new()) };
    let mut known = Vec::new();
    for list in &entry.lists {
        match run.host.runtime.block_on(read_list(&*run.vault.storage, *list)) {
            Ok(lines) => known.extend(lines.iter().map(|line| (line.id, line.object, line.stored_bytes))),
            // What a lost list named is sealed again; `check` is who reports the loss.
            Err(error) => run.progress.warn(&format!("a list of the last backup cannot be reused: {error}")),
        }
    }
    // Parts of the contents are in no list: only this host's memory has their ids.
    known.extend(memory.iter().flat_map(|m| &m.head().contents).map(|s| (s.id, s.object, s.stored_bytes)));
    let doubtful = named_by_refuted(run, settings);
    known.retain(|(_, object, _)| !doubtful.contains(object));
    let wanted = known.iter().map(|(_, object, size)| (*object, *size)).collect();
    let absent = run.host.runtime.block_on(absent(&*run.vault.storage, wanted))?;
    known.retain(|(_, object, _)| !absent.contains_key(object));
    Ok(known)
}

/// What refuted backups name of this source: one of these objects is damaged or was wrong from the start, and only
/// who can open them knows which. None is named again, so that the next backup is whole, at the price of a full one.
fn named_by_refuted(run: &Run<'_>, settings: &crate::config::SourceSettings) -> HashSet<ObjectId> {
    let mut named = HashSet::new();
    for entry in run
        .earlier
        .iter()
        .filter(|manifest| run.refuted.contains(&manifest.id))
        .flat_map(|manifest| &manifest.sources)
        .filter(|entry| entry.name == settings.name)
    {
        named.extend(&entry.contents);
        for list in &entry.lists {
            // A list that cannot be read names nothing that could be reused through it.
            if let Ok(lines) = run.host.runtime.block_on(read_list(&*run.vault.storage, *list)) {
                named.extend(lines.iter().map(|line| line.object));
            }
        }
    }
    named
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
        let sealer: Sealer = run.sealer()?;
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
            notes: self.notes,
            named: self.named,
            memory: self.memory,
            contents,
            id_key_hash: [0; 32],
            unread_segments: self.unread_segments,
        })
    }
}
