//! The pieces of a database, in order: roles, schema and the list of tables; the rows; large objects, sequences and
//! restore.sh. The snapshot is given back as soon as everything is read, not when it is stored.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::domain::contents::{Facts, Note, PostgresFacts};
use crate::sources::{Dated, Finished, Piece, Snapshot, SourceError};

use super::copy::{Readers, Reading};
use super::dump::Dumped;
use super::facts::{self, Tally};
use super::large_objects::Described;
use super::layout::{Part, TABLES_VERSION, TableList};
use super::leader::{self, Led};
use super::pieces::{self, Budget, Filled, Portion};
use super::session::Session;
use super::trouble::of_standby;
use super::values::LargeObjects;
use super::watch::{self, Alarm, Limits};
use super::{PostgresOptions, plan, script};

/// What stands before the data is one piece up to this size.
const MAX_HEAD_BYTES: u64 = 4 * 1024 * 1024 - 64 * 1024;

/// Takes the snapshot and sets the readers to work.
pub(super) fn open(
    options: &PostgresOptions,
    runtime: &Handle,
    clock: &Arc<dyn Clock>,
) -> Result<PostgresSnapshot, SourceError> {
    let private = tempfile::Builder::new()
        .prefix("postgres-")
        .tempdir_in(&options.scratch)
        .map_err(|cause| SourceError::io("write to", options.scratch.display().to_string(), cause))?;
    // Nobody watches over the snapshot yet, and a connection that hangs says nothing.
    let begun = async { tokio::time::timeout(options.max_snapshot, begin(options, private, runtime, clock)).await };
    runtime.block_on(begun).unwrap_or_else(|_| {
        let limit = options.max_snapshot.as_secs();
        Err(super::trouble::passing(
            &options.access.address,
            format!("dumping the schema and locking the tables took {limit} s, as long as max_snapshot allows"),
            "look at the server's load (select * from pg_stat_activity), or raise max_snapshot",
        ))
    })
}

async fn begin(
    options: &PostgresOptions,
    private: TempDir,
    runtime: &Handle,
    clock: &Arc<dyn Clock>,
) -> Result<PostgresSnapshot, SourceError> {
    let Led { leader, snapshot, recovery_point, dated, held_since, catalog, dumped, described, facts, set_sequences } =
        leader::lead(options, private.path(), clock).await?;
    let Dumped { mut notes, globals, schema, unrestorable, .. } = dumped;
    let script = script::restore_script(&facts.database, &unrestorable);
    notes.extend(catalog.notes);
    let list = TableList {
        version: TABLES_VERSION,
        server_version_number: facts.server_version_number,
        database: facts.database.clone(),
        encoding: facts.encoding.clone(),
        unrestorable,
        tables: catalog.tables.iter().map(|table| table.listed.clone()).collect(),
    };
    for table in catalog.tables.iter().filter(|table| table.listed.binary) {
        notes.push(Note {
            class: crate::domain::contents::NoteClass::Skipped,
            path: table.listed.shown().as_str().into(),
            detail: "copied in binary, because a row is too long for text".to_owned(),
        });
    }
    let mut files = vec![(Part::Globals, globals), (Part::Schema, schema)];
    if let Some(Described { objects, owners }) = described {
        files.extend([(Part::LargeObjectList, objects), (Part::LargeObjectOwners, owners)]);
    }
    let head = head(files, &list)?;

    let alarm = Arc::new(Alarm::new(options.access.address.to_string()));
    alarm.watch_session(leader.pid);
    let leader = Arc::new(Mutex::new(Some(leader)));
    let mut watching = JoinSet::new();
    let limits = Limits { max_lock_wait: options.max_lock_wait, max_snapshot: options.max_snapshot, held_since };
    watching.spawn(watch::watch(options.access.clone(), limits, Arc::clone(clock), Arc::clone(&alarm)));
    let (watched, kept) = (Arc::clone(&alarm), Arc::clone(&leader));
    watching.spawn(async move {
        watched.raised().await;
        // With it go the locks and the snapshot.
        drop(kept.lock().await.take());
    });

    let tasks = plan::tasks(&catalog.tables, facts.server_version_number);
    let tallies: Vec<Arc<Tally>> = catalog.tables.iter().map(|_| Arc::default()).collect();
    let reading = Arc::new(Reading {
        access: options.access.clone(),
        snapshot,
        encoding: facts.encoding.clone(),
        connections: options.connections.max(1) as usize,
        max_lock_wait: options.max_lock_wait,
        clock: Arc::clone(clock),
        alarm: Arc::clone(&alarm),
        tables: catalog.tables,
        tallies,
    });
    let readers = Readers::start(Arc::clone(&reading), tasks);
    Ok(PostgresSnapshot {
        runtime: runtime.clone(),
        recovery_point,
        dated,
        stage: Stage::Head(head),
        readers: Some(readers),
        large_objects: LargeObjects::new(),
        set_sequences,
        script,
        leader,
        alarm,
        watching,
        reading,
        facts,
        notes,
        budget: Budget::new(),
        _private: private,
    })
}

fn head(files: Vec<(Part, PathBuf)>, list: &TableList) -> Result<VecDeque<HeadPiece>, SourceError> {
    // A list of names has no way not to be JSON.
    let list = serde_json::to_vec_pretty(list).expect("a list of tables is always representable as JSON");
    let refused = |path: &Path, cause| SourceError::io("read", path.display().to_string(), cause);
    let mut total = list.len() as u64;
    for (_, path) in &files {
        total += std::fs::metadata(path).map_err(|cause| refused(path, cause))?.len();
    }
    let list = Filled { part: Part::Tables, bytes: Bytes::from(list), counted: None };
    if total <= MAX_HEAD_BYTES {
        let mut members = Vec::new();
        for (part, path) in files {
            let bytes = Bytes::from(std::fs::read(&path).map_err(|cause| refused(&path, cause))?);
            members.push(Filled { part, bytes, counted: None });
        }
        members.push(list);
        return Ok([HeadPiece::Portion(Portion::Several(members))].into());
    }
    let mut pieces: VecDeque<HeadPiece> = files.into_iter().map(|(part, path)| HeadPiece::File(part, path)).collect();
    pieces.push_back(HeadPiece::Portion(Portion::Large(list)));
    Ok(pieces)
}

enum HeadPiece {
    Portion(Portion),
    File(Part, PathBuf),
}

/// What comes next.
enum Stage {
    Head(VecDeque<HeadPiece>),
    Rows,
    LargeObjects,
    Sequences,
    Script,
    End,
    Done,
}

/// A snapshot that is being read.
pub(super) struct PostgresSnapshot {
    runtime: Handle,
    recovery_point: DateTime<Utc>,
    dated: Dated,
    stage: Stage,
    /// Gone when all rows are read.
    readers: Option<Readers>,
    large_objects: LargeObjects,
    /// sequences.sql.
    set_sequences: Vec<u8>,
    /// restore.sh.
    script: String,
    /// Gone when everything is read, or when the alarm was raised.
    leader: Arc<Mutex<Option<Session>>>,
    alarm: Arc<Alarm>,
    /// Ends with us.
    watching: JoinSet<()>,
    reading: Arc<Reading>,
    facts: PostgresFacts,
    notes: Vec<Note>,
    budget: Budget,
    /// Holds the files that the tools wrote until they are stored.
    _private: TempDir,
}

impl Snapshot for PostgresSnapshot {
    fn recovery_point(&self) -> DateTime<Utc> {
        self.recovery_point
    }

    fn dated(&self) -> Dated {
        self.dated
    }

    fn next_piece(&mut self) -> Result<Option<Piece>, SourceError> {
        let runtime = self.runtime.clone();
        let next = runtime.block_on(self.next());
        match self.dated {
            Dated::WhenRead => next,
            Dated::BySource => next.map_err(of_standby),
        }
    }

    fn finish(self: Box<Self>) -> Result<Finished, SourceError> {
        let Self { reading, mut facts, mut notes, alarm, large_objects, .. } = *self;
        facts.tables = facts::of_tables(reading.tables.iter().map(|table| &table.listed).zip(&reading.tallies));
        let (totals, checksum) = large_objects.into_sum().finish();
        facts.large_objects = totals;
        facts.large_object_checksum = Some(checksum);
        notes.extend(alarm.take_notes());
        Ok(Finished { facts: Some(Facts::Postgres(Box::new(facts))), notes })
    }
}

impl PostgresSnapshot {
    async fn next(&mut self) -> Result<Option<Piece>, SourceError> {
        loop {
            // Once the leader is gone there is nothing left that an alarm could be about.
            if !matches!(self.stage, Stage::Script | Stage::End | Stage::Done) && self.alarm.is_raised() {
                return Err(self.alarm.error());
            }
            let portion = match &mut self.stage {
                Stage::Head(pieces) => match pieces.pop_front() {
                    Some(HeadPiece::File(part, path)) => return Ok(Some(pieces::of_file(part, path))),
                    Some(HeadPiece::Portion(portion)) => Some(portion),
                    None => {
                        self.stage = Stage::Rows;
                        None
                    }
                },
                Stage::Rows => {
                    let next = match &mut self.readers {
                        Some(readers) => readers.next().await?,
                        None => None,
                    };
                    if next.is_none() {
                        self.readers = None;
                        self.stage = Stage::LargeObjects;
                    }
                    next
                }
                Stage::LargeObjects => {
                    let mut leader = self.leader.lock().await;
                    // Taken away by the alarm.
                    let Some(session) = leader.as_mut() else { return Err(self.alarm.error()) };
                    let next = tokio::select! {
                        biased;
                        () = self.alarm.raised() => return Err(self.alarm.error()),
                        next = self.large_objects.next(session) => next?,
                    };
                    match next {
                        Some(member) => Some(Portion::Several(vec![member])),
                        None => {
                            self.watching.abort_all();
                            let ended = leader.take();
                            drop(leader);
                            if let Some(session) = ended {
                                session.close().await;
                            }
                            self.stage = Stage::Sequences;
                            None
                        }
                    }
                }
                Stage::Sequences => {
                    self.stage = Stage::Script;
                    let bytes = Bytes::from(std::mem::take(&mut self.set_sequences));
                    let member = Filled { part: Part::Sequences, bytes, counted: None };
                    let is_large = member.bytes.len() > pieces::MAX_MEMBER_BYTES;
                    Some(if is_large { Portion::Large(member) } else { Portion::Several(vec![member]) })
                }
                Stage::Script => {
                    self.stage = Stage::End;
                    let bytes = Bytes::from(std::mem::take(&mut self.script));
                    Some(Portion::Several(vec![Filled { part: Part::RestoreScript, bytes, counted: None }]))
                }
                Stage::End => {
                    self.stage = Stage::Done;
                    return Ok(Some(pieces::end()));
                }
                Stage::Done => return Ok(None),
            };
            if let Some(portion) = portion {
                return Ok(Some(self.budget.hand_out(portion).await));
            }
        }
    }
}
