//! A snapshot of a live database: one read transaction, from which first the pages come and then the facts.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use super::connection::{Connection, Usage};
use super::pages::{self, Geometry, Malformed};
use super::walk::{self, PageMap, Pages};
use super::{Trouble, facts, shown};
use crate::clock::Clock;
use crate::domain::contents::{Facts, Member, MemberKind, Note, NoteClass, RawText};
use crate::domain::ids::ContentHash;
use crate::sources::{Body, Cut, Finished, OpenPiece, Piece, Sink, Snapshot, SourceError, Written, tar};

/// Where the stream is cut: a multiple of every page size, counted from the database's first byte, so that what did
/// not change gives the same segments.
const CUT_BYTES: u32 = 256 * 1024;
/// How many unreachable pages a note names.
const NAMED_PAGES: usize = 10;

/// Opens the database and pins a snapshot of it.
pub(super) fn open(path: &Path, clock: &dyn Clock) -> Result<SqliteSnapshot, SourceError> {
    let mut member = member(path)?;
    let pinned = pin(path, clock).map_err(|trouble| trouble.of(path))?;
    let Pinned { connection, recovery_point, pages, page_bytes } = pinned;
    member.size_bytes = u64::from(pages) * page_bytes as u64;
    let shared = Arc::new(Mutex::new(connection));
    let file = member.path.clone();
    let database = DatabasePiece { path: path.to_owned(), connection: Arc::clone(&shared), member, pages };
    Ok(SqliteSnapshot {
        path: path.to_owned(),
        file,
        recovery_point,
        connection: shared,
        plan: vec![Step::End, Step::Database(Box::new(database))],
    })
}

struct Pinned {
    connection: Connection,
    recovery_point: DateTime<Utc>,
    pages: u32,
    page_bytes: usize,
}

fn pin(path: &Path, clock: &dyn Clock) -> Result<Pinned, Trouble> {
    let connection = Connection::open(path, Usage::Live)?;
    // BEGIN takes no lock; the first read does, and what was committed before it is in the snapshot.
    connection.run("BEGIN")?;
    let recovery_point = clock.now();
    connection.value::<i64>("SELECT count(*) FROM main.sqlite_schema")?;
    // SQLite's own bounds: fewer than 2^32 pages, at most 65,536 bytes each.
    let pages = connection.value::<i64>("PRAGMA main.page_count")? as u32;
    let page_bytes = connection.value::<i64>("PRAGMA main.page_size")? as usize;
    Ok(Pinned { connection, recovery_point, pages, page_bytes })
}

/// The tar member, as far as the file's stat tells it. Extended attributes are not kept.
fn member(path: &Path) -> Result<Member, SourceError> {
    let stat = std::fs::symlink_metadata(path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => SourceError::RootMissing { path: shown(path) },
        _ => SourceError::io("read", shown(path), cause),
    })?;
    let unusable = |what: String| SourceError::RootUnusable { path: shown(path), what };
    if stat.is_symlink() {
        let target = std::fs::read_link(path).map_err(|cause| SourceError::io("read", shown(path), cause))?;
        return Err(unusable(format!("a symbolic link to {}", shown(&target))));
    }
    if !stat.is_file() {
        return Err(unusable("not a regular file".to_owned()));
    }
    let name = path.file_name().ok_or_else(|| unusable("not the name of a file".to_owned()))?;
    Ok(Member {
        path: RawText::from(name.as_encoded_bytes()),
        kind: MemberKind::File,
        size_bytes: 0,
        mode: stat.mode() & 0o7777,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime_seconds: stat.mtime(),
        // Always less than 10^9.
        mtime_nanos: stat.mtime_nsec() as u32,
        blake3: None,
        link: None,
        device: None,
        xattrs: Vec::new(),
        flaw: None,
    })
}

/// A pinned snapshot.
pub(super) struct SqliteSnapshot {
    path: PathBuf,
    file: RawText,
    recovery_point: DateTime<Utc>,
    connection: Arc<Mutex<Connection>>,
    /// What is still to be handed out, the next one last.
    plan: Vec<Step>,
}

enum Step {
    Database(Box<DatabasePiece>),
    End,
}

impl Snapshot for SqliteSnapshot {
    fn recovery_point(&self) -> DateTime<Utc> {
        self.recovery_point
    }

    fn next_piece(&mut self) -> Result<Option<Piece>, SourceError> {
        Ok(self.plan.pop().map(|step| match step {
            // Nothing is remembered of a database, so nothing has to be recognised.
            Step::Database(piece) => Piece { signature: [0; 32], body: Body::Open(piece), cut: Cut::Every(CUT_BYTES) },
            Step::End => Piece {
                signature: *blake3::hash(&tar::END).as_bytes(),
                body: Body::Open(Box::new(EndPiece)),
                cut: Cut::Never,
            },
        }))
    }

    fn finish(self: Box<Self>) -> Result<Finished, SourceError> {
        let Self { path, file, connection, plan, .. } = *self;
        drop(plan);
        let in_snapshot = || -> Result<Facts, Trouble> {
            let facts = {
                let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                connection.stand_in_for_collations()?;
                let facts = facts::read(&connection, file)?;
                connection.run("ROLLBACK")?;
                facts
            };
            if let Some(last) = Arc::into_inner(connection) {
                last.into_inner().unwrap_or_else(PoisonError::into_inner).close()?;
            }
            Ok(Facts::Sqlite(facts))
        };
        let facts = in_snapshot().map_err(|trouble| trouble.of(&path))?;
        Ok(Finished { facts: Some(facts), notes: Vec::new() })
    }
}

/// The database file.
struct DatabasePiece {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
    member: Member,
    pages: u32,
}

impl OpenPiece for DatabasePiece {
    fn write(self: Box<Self>, out: &mut dyn Sink) -> Result<Written, SourceError> {
        let Self { path, connection, member, pages } = *self;
        let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        write_database(&mut connection, member, pages, out).map_err(|trouble| trouble.of(&path))
    }
}

fn write_database(
    connection: &mut Connection,
    mut member: Member,
    pages: u32,
    out: &mut dyn Sink,
) -> Result<Written, Trouble> {
    out.write_all(&tar::header(&member, None)).map_err(Trouble::Sink)?;
    out.boundary().map_err(Trouble::Sink)?;
    let mut notes = Vec::new();
    let mut content = blake3::Hasher::new();
    // A file of no bytes is an empty database.
    if pages > 0 {
        let (geometry, map) = survey(connection, pages)?;
        notes.extend(note_unreachable(&map, &member.path));
        connection.read(&mut (1..=pages), &mut |page, bytes| {
            pages::clean(page, bytes, map.class(page), map.tail_bytes(page), &geometry)?;
            content.update(bytes);
            out.write_all(bytes).map_err(Trouble::Sink)
        })?;
    }
    out.write_all(tar::padding(member.size_bytes)).map_err(Trouble::Sink)?;
    member.blake3 = Some(ContentHash(*content.finalize().as_bytes()));
    Ok(Written { members: vec![member], notes, trusted: false })
}

fn survey(connection: &mut Connection, pages: u32) -> Result<(Geometry, PageMap), Trouble> {
    let mut geometry = None;
    connection.read(&mut std::iter::once(1), &mut |_, bytes| {
        geometry = Some(Geometry::of(bytes, pages)?);
        Ok(())
    })?;
    let geometry = geometry.ok_or(Trouble::PageMissing { page: 1 })?;
    let mut roots = Vec::new();
    connection.rows("SELECT rootpage FROM main.sqlite_schema WHERE rootpage > 0", None, |row| {
        roots.push(row.get::<_, i64>(0)?);
        Ok(())
    })?;
    let roots: Result<Vec<u32>, _> = roots.into_iter().map(u32::try_from).collect();
    let roots = roots.map_err(|_| Malformed { page: 1, what: "refers to a page that does not exist" })?;
    let map = walk::walk(&geometry, &roots, connection)?;
    Ok((geometry, map))
}

fn note_unreachable(map: &PageMap, path: &RawText) -> Option<Note> {
    let count = map.unreachable().count();
    let named: Vec<String> = map.unreachable().take(NAMED_PAGES).map(|page| page.to_string()).collect();
    let more = if count > NAMED_PAGES { ", ..." } else { "" };
    (count > 0).then(|| Note {
        class: NoteClass::Skipped,
        path: path.clone(),
        detail: format!(
            "{count} pages belong to no table and are not on the freelist; stored as zeros, `VACUUM` drops them: {}{more}",
            named.join(", ")
        ),
    })
}

/// Tar's end blocks.
struct EndPiece;

impl OpenPiece for EndPiece {
    fn write(self: Box<Self>, out: &mut dyn Sink) -> Result<Written, SourceError> {
        out.write_all(&tar::END).map_err(SourceError::Sink)?;
        Ok(Written { trusted: true, ..Written::default() })
    }
}
