//! Reading what the plan says, and coping with what has become of it since: a file may have vanished, shrunk, grown,
//! been replaced or locked away, or may change under our eyes. Whatever happens, the tar stays valid, and what is
//! not as it was is said.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{Advice, Mode, OFlags, SeekFrom, fadvise, fstat, openat, readlinkat, seek};
use rustix::io::{Errno, pread};

use crate::domain::contents::{Flaw, Member, MemberKind, Note, NoteClass, RawText};
use crate::domain::ids::ContentHash;
use crate::domain::segment::MAX_FILE_SEGMENT_BYTES;
use crate::sources::tar::sparse::MAX_EXTENTS;
use crate::sources::tar::{Extent, SparseMap, header, padding};
use crate::sources::{OpenPiece, Sink, SourceError, Written, tar};

use super::attributes::{self, Attributes};
use super::plan::{LARGE_FILE_BYTES, Planned, Role, Totals};
use super::status::Status;
use super::walk::{Found, MAX_PATH_BYTES, class_of};

/// What is read from a large file at once.
const READ_BYTES: usize = 256 * 1024;
/// A bundle's attributes, all together, as they stand in its headers. Ext4 has 4 KiB a file at most; this is room
/// for that in the fullest bundle.
const MAX_BUNDLE_ATTRIBUTE_BYTES: usize = 2 * 1024 * 1024;
/// By so much the files of a bundle may have grown since they were planned.
const MAX_BUNDLE_GROWTH_BYTES: u64 = 512 * 1024;
// A bundle is planned at no more than a large file's size, or one file below it with its names.
const _: () = assert!(
    MAX_FILE_SEGMENT_BYTES as u64
        > LARGE_FILE_BYTES + (2 * MAX_PATH_BYTES + MAX_BUNDLE_ATTRIBUTE_BYTES) as u64 + MAX_BUNDLE_GROWTH_BYTES
);
// A large file's head: its attributes (ACLs twice), its path, and a map of at most 2 x 20 digits an extent.
const _: () = assert!(attributes::MAX_ATTRIBUTE_BYTES + 2 * MAX_PATH_BYTES + 42 * MAX_EXTENTS < MAX_FILE_SEGMENT_BYTES);

/// Whole members in one segment.
pub(super) struct BundlePiece {
    pub(super) members: Vec<Planned>,
    /// Whether their times were old enough to be believed next time.
    pub(super) trusted: bool,
    pub(super) totals: Arc<Totals>,
    /// Members and bytes that are in the totals already, because the base was taken to have them.
    pub(super) counted: (u64, u64),
}

impl OpenPiece for BundlePiece {
    fn write(self: Box<Self>, out: &mut dyn Sink) -> Result<Written, SourceError> {
        let mut writing = Writing::begin(out, self.trusted, &self.totals, self.counted);
        let mut room = Room { attribute_bytes: MAX_BUNDLE_ATTRIBUTE_BYTES, growth_bytes: MAX_BUNDLE_GROWTH_BYTES };
        let mut content = Vec::new();
        for planned in &self.members {
            match (&planned.role, planned.found.kind) {
                (Role::Link(target), _) => {
                    let mut member = planned.found.status.member(&planned.found.path, MemberKind::Hardlink);
                    member.link = Some(RawText::from(&target[..]));
                    writing.member(member, None, &[])?;
                }
                (_, MemberKind::File) => small_file(&mut writing, planned, &mut room, &mut content)?,
                _ => special(&mut writing, &planned.found, &mut room)?,
            }
        }
        Ok(writing.written)
    }
}

/// One large regular file: its head in a segment apart.
pub(super) struct LargePiece {
    pub(super) planned: Planned,
    pub(super) trusted: bool,
    pub(super) totals: Arc<Totals>,
    pub(super) counted: (u64, u64),
}

impl OpenPiece for LargePiece {
    fn write(self: Box<Self>, out: &mut dyn Sink) -> Result<Written, SourceError> {
        let mut writing = Writing::begin(out, self.trusted, &self.totals, self.counted);
        large_file(&mut writing, &self.planned)?;
        Ok(writing.written)
    }
}

/// Tar's end blocks.
pub(super) struct EndPiece;

impl OpenPiece for EndPiece {
    fn write(self: Box<Self>, out: &mut dyn Sink) -> Result<Written, SourceError> {
        out.write_all(&tar::END).map_err(SourceError::Sink)?;
        Ok(Written { trusted: true, ..Written::default() })
    }
}

/// Whether the file can be read by us at this moment.
pub(super) fn can_open(found: &Found) -> bool {
    open_file(found).is_ok()
}

/// A piece on its way out.
struct Writing<'a> {
    out: &'a mut dyn Sink,
    totals: &'a Totals,
    written: Written,
}

impl<'a> Writing<'a> {
    fn begin(out: &'a mut dyn Sink, trusted: bool, totals: &'a Totals, counted: (u64, u64)) -> Self {
        totals.members.fetch_sub(counted.0, Ordering::Relaxed);
        totals.logical_bytes.fetch_sub(counted.1, Ordering::Relaxed);
        Self { out, totals, written: Written { trusted, ..Written::default() } }
    }

    /// Writes a member with its data: with a map, the extents of `content`, which is the whole file in any case.
    fn member(&mut self, member: Member, sparse: Option<&SparseMap>, content: &[u8]) -> Result<(), SourceError> {
        self.bytes(&header(&member, sparse))?;
        let mut stored_bytes = content.len() as u64;
        match sparse {
            None => self.bytes(content)?,
            Some(map) => {
                stored_bytes = map.data_bytes();
                for extent in map.extents() {
                    // The map is one of this content, which is in memory.
                    let begin = extent.offset as usize;
                    self.bytes(&content[begin..begin + extent.bytes as usize])?;
                }
            }
        }
        self.bytes(padding(stored_bytes))?;
        self.count(member);
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        self.out.write_all(bytes).map_err(SourceError::Sink)
    }

    fn count(&mut self, member: Member) {
        self.totals.members.fetch_add(1, Ordering::Relaxed);
        self.totals.logical_bytes.fetch_add(member.size_bytes, Ordering::Relaxed);
        self.written.members.push(member);
    }

    /// Whatever must be said of a piece makes it one to read again.
    fn note(&mut self, class: NoteClass, path: &[u8], detail: impl Into<String>) {
        self.written.trusted = false;
        self.written.notes.push(Note { class, path: RawText::from(path), detail: detail.into() });
    }

    fn note_flaw(&mut self, flaw: Flaw, path: &[u8], detail: &str) {
        let class = match flaw {
            Flaw::Changed => NoteClass::Changed,
            Flaw::Unreadable => NoteClass::Unreadable,
        };
        self.note(class, path, detail);
    }
}

/// What a bundle may take beyond its plan.
struct Room {
    attribute_bytes: usize,
    growth_bytes: u64,
}

fn small_file(
    writing: &mut Writing<'_>,
    planned: &Planned,
    room: &mut Room,
    content: &mut Vec<u8>,
) -> Result<(), SourceError> {
    let found = &planned.found;
    let (file, status) = match open_planned(planned) {
        Ok(opened) => opened,
        Err(errno) => return lost(writing, planned, errno),
    };
    let mut flaw = None;
    let mut size_bytes = status.size_bytes;
    let growth = size_bytes.saturating_sub(found.status.size_bytes);
    if growth > room.growth_bytes {
        size_bytes = found.status.size_bytes;
        flaw = Some((Flaw::Changed, "it grew beyond its bundle's room; the rest is left out".to_owned()));
    } else {
        room.growth_bytes -= growth;
    }
    let mut member = Status { size_bytes, ..status }.member(&found.path, MemberKind::File);
    member.xattrs = file_attributes(writing, &file, &found.path, &mut room.attribute_bytes);

    let extents = extents(&file, &Status { size_bytes, ..status });
    // What a bundle holds is small: planned below LARGE_FILE_BYTES, grown by no more than its room.
    content.clear();
    content.resize(size_bytes as usize, 0);
    let (read_bytes, failure) = fill(&file, 0, content);
    if let Some(errno) = failure {
        content[read_bytes..].fill(0);
        flaw = Some((Flaw::Unreadable, format!("cannot read it from byte {read_bytes} on: {errno}")));
    } else if read_bytes < content.len() {
        content.truncate(read_bytes);
        flaw = Some((Flaw::Changed, "it shrank while it was read".to_owned()));
    }
    flaw = flaw.or_else(|| changed(&file, &status));
    member.size_bytes = content.len() as u64;
    let map = extents.and_then(|extents| SparseMap::new(member.size_bytes, extents));
    if let Some(map) = &map {
        // A hole that was written to since it was found is a hole in the tar, and so it must be in the hash.
        zero_holes(content, map);
    }
    member.blake3 = Some(ContentHash(*blake3::hash(content).as_bytes()));
    writing.written.trusted &= status == found.status;
    if let Some((flaw, detail)) = flaw {
        member.flaw = Some(flaw);
        writing.note_flaw(flaw, &found.path, &detail);
    }
    writing.member(member, map.as_ref(), content)
}

/// Makes zeros of everything that the map does not count as data.
fn zero_holes(content: &mut [u8], map: &SparseMap) {
    let mut data_until = 0;
    for extent in map.extents() {
        let start = (extent.offset as usize).min(content.len());
        content[data_until..start].fill(0);
        data_until = ((extent.offset + extent.bytes) as usize).clamp(start, content.len());
    }
    content[data_until..].fill(0);
}

fn large_file(writing: &mut Writing<'_>, planned: &Planned) -> Result<(), SourceError> {
    let found = &planned.found;
    let (file, status) = match open_planned(planned) {
        Ok(opened) => opened,
        Err(errno) => return lost(writing, planned, errno),
    };
    // Advice may be ignored, and so may its refusal.
    let _ = fadvise(&file, 0, None, Advice::Sequential);
    let mut member = status.member(&found.path, MemberKind::File);
    let mut attribute_bytes = attributes::MAX_ATTRIBUTE_BYTES;
    member.xattrs = file_attributes(writing, &file, &found.path, &mut attribute_bytes);
    let map = extents(&file, &status).and_then(|extents| SparseMap::new(status.size_bytes, extents));
    writing.bytes(&header(&member, map.as_ref()))?;
    writing.out.boundary().map_err(SourceError::Sink)?;

    let whole = [Extent { offset: 0, bytes: status.size_bytes }];
    let mut copying = Copying { hasher: blake3::Hasher::new(), position: 0, flaw: None, buffer: vec![0; READ_BYTES] };
    for extent in map.as_ref().map_or(&whole[..], SparseMap::extents) {
        copying.extent(&file, *extent, writing)?;
    }
    copying.hash_zeros(status.size_bytes);
    writing.bytes(padding(map.as_ref().map_or(status.size_bytes, SparseMap::data_bytes)))?;

    member.blake3 = Some(ContentHash(*copying.hasher.finalize().as_bytes()));
    writing.written.trusted &= status == found.status;
    if let Some((flaw, detail)) = copying.flaw.or_else(|| changed(&file, &status)) {
        member.flaw = Some(flaw);
        writing.note_flaw(flaw, &found.path, &detail);
    }
    writing.count(member);
    Ok(())
}

/// A large file's data on its way from the file to the sink.
struct Copying {
    hasher: blake3::Hasher,
    /// How far the hash has come; holes count.
    position: u64,
    flaw: Option<(Flaw, String)>,
    buffer: Vec<u8>,
}

impl Copying {
    fn extent(&mut self, file: &OwnedFd, extent: Extent, writing: &mut Writing<'_>) -> Result<(), SourceError> {
        self.hash_zeros(extent.offset);
        let end = extent.offset + extent.bytes;
        while self.position < end {
            let length = usize::try_from(end - self.position).map_or(READ_BYTES, |left| left.min(READ_BYTES));
            let chunk = &mut self.buffer[..length];
            // After the first failure the rest is zeros: the size was declared.
            let read_bytes = if self.flaw.is_some() {
                0
            } else {
                let (read_bytes, failure) = fill(file, self.position, chunk);
                let at = self.position + read_bytes as u64;
                if let Some(errno) = failure {
                    self.flaw = Some((Flaw::Unreadable, format!("cannot read it from byte {at} on: {errno}")));
                } else if read_bytes < length {
                    self.flaw = Some((Flaw::Changed, format!("it shrank to {at} bytes while it was read")));
                }
                read_bytes
            };
            chunk[read_bytes..].fill(0);
            self.hasher.update(chunk);
            self.position += length as u64;
            writing.out.write_all(chunk).map_err(SourceError::Sink)?;
        }
        Ok(())
    }

    /// A hole up to `end`.
    fn hash_zeros(&mut self, end: u64) {
        hash_zeros(&mut self.hasher, end.saturating_sub(self.position));
        self.position = self.position.max(end);
    }
}

/// A hole, as whoever reads the file sees it.
fn hash_zeros(hasher: &mut blake3::Hasher, mut bytes: u64) {
    static ZEROS: [u8; 128 * 1024] = [0; 128 * 1024];
    while bytes > 0 {
        let length = usize::try_from(bytes).map_or(ZEROS.len(), |bytes| bytes.min(ZEROS.len()));
        hasher.update(&ZEROS[..length]);
        bytes -= length as u64;
    }
}

/// The hash of a file's content up to the size in `status`; holes are not read.
///
/// # Errors
/// What the system said while reading.
pub(crate) fn hash_of(file: &OwnedFd, status: &Status, buffer: &mut [u8]) -> rustix::io::Result<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    let mut position = 0;
    let whole = vec![Extent { offset: 0, bytes: status.size_bytes }];
    for extent in extents(file, status).unwrap_or(whole) {
        hash_zeros(&mut hasher, extent.offset - position);
        position = extent.offset;
        let end = extent.offset + extent.bytes;
        while position < end {
            let length = usize::try_from(end - position).map_or(buffer.len(), |left| left.min(buffer.len()));
            match fill(file, position, &mut buffer[..length]) {
                (0, None) => return Ok(ContentHash(*hasher.finalize().as_bytes())),
                (read_bytes, None) => {
                    hasher.update(&buffer[..read_bytes]);
                    position += read_bytes as u64;
                }
                (_, Some(errno)) => return Err(errno),
            }
        }
    }
    hash_zeros(&mut hasher, status.size_bytes - position);
    Ok(ContentHash(*hasher.finalize().as_bytes()))
}

/// Folders, symbolic links, FIFOs and device nodes.
fn special(writing: &mut Writing<'_>, found: &Found, room: &mut Room) -> Result<(), SourceError> {
    let mut member = found.status.member(&found.path, found.kind);
    let folder = found.folder.open();
    if found.kind == MemberKind::Symlink {
        let target = folder.clone().and_then(|folder| readlinkat(&*folder, &found.name[..], Vec::new()));
        match target {
            Ok(target) => member.link = Some(RawText(target.into_bytes())),
            // No link any more: what it is now, the next run sees.
            Err(Errno::INVAL) => return give_up(writing, found, Errno::NOENT),
            Err(errno) => return give_up(writing, found, errno),
        }
    }
    match folder.and_then(|folder| attributes::of_entry(&folder, &found.name)) {
        Ok(xattrs) => member.xattrs = fitting(writing, xattrs, &found.path, &mut room.attribute_bytes),
        // A folder that vanished is stored as it was: other members stand in it.
        Err(errno) if found.kind == MemberKind::Folder || class_of(errno) == NoteClass::Unreadable => {
            writing.note(class_of(errno), &found.path, format!("cannot read its attributes: {errno}"));
        }
        Err(errno) => return give_up(writing, found, errno),
    }
    writing.member(member, None, &[])
}

/// A file that could not be opened. If links to it follow, something must stand here: zeros, and the backup is
/// partial.
fn lost(writing: &mut Writing<'_>, planned: &Planned, errno: Errno) -> Result<(), SourceError> {
    let found = &planned.found;
    if planned.role != Role::Target {
        return give_up(writing, found, errno);
    }
    check_system(found, errno)?;
    let detail = format!("cannot open it, and other names are links to it: {errno}");
    writing.note(NoteClass::Unreadable, &found.path, detail);
    let mut member = found.status.member(&found.path, MemberKind::File);
    let mut hasher = blake3::Hasher::new();
    hash_zeros(&mut hasher, member.size_bytes);
    member.blake3 = Some(ContentHash(*hasher.finalize().as_bytes()));
    member.flaw = Some(Flaw::Unreadable);
    // One hole: neither time nor space is lost on what is not there.
    let map = SparseMap::new(member.size_bytes, Vec::new()).filter(|_| member.size_bytes > 0);
    writing.member(member, map.as_ref(), &[])
}

/// Notes that an entry is not in the backup.
fn give_up(writing: &mut Writing<'_>, found: &Found, errno: Errno) -> Result<(), SourceError> {
    check_system(found, errno)?;
    writing.note(class_of(errno), &found.path, format!("cannot open it: {errno}"));
    Ok(())
}

/// An error that is not about this file is one about all that follow.
fn check_system(found: &Found, errno: Errno) -> Result<(), SourceError> {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
            Err(SourceError::io("open", RawText::from(&found.path[..]).display(), errno.into()))
        }
        _ => Ok(()),
    }
}

fn open_planned(planned: &Planned) -> rustix::io::Result<(OwnedFd, Status)> {
    let (file, status) = open_file(&planned.found)?;
    // A new file under the old name is welcome, unless other names count on the old one.
    if planned.role == Role::Target && !status.same_place(&planned.found.status) {
        return Err(Errno::STALE);
    }
    Ok((file, status))
}

/// Opens a file for reading, without following a link, waiting for a FIFO's other end or touching its atime.
fn open_file(found: &Found) -> rustix::io::Result<(OwnedFd, Status)> {
    let folder = found.folder.open()?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(&*folder, &found.name[..], flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may ask for that.
        Err(Errno::PERM) => openat(&*folder, &found.name[..], flags, Mode::empty()),
        outcome => outcome,
    };
    // A socket, or a device without a driver, stands where the file was.
    let file = file.map_err(|errno| if errno == Errno::NXIO { Errno::NOENT } else { errno })?;
    let status = Status::of(&fstat(&file)?);
    if status.kind == Some(MemberKind::File) { Ok((file, status)) } else { Err(Errno::NOENT) }
}

fn file_attributes(writing: &mut Writing<'_>, file: &OwnedFd, path: &[u8], room_bytes: &mut usize) -> Attributes {
    match attributes::of_open(file.as_fd()) {
        Ok(xattrs) => fitting(writing, xattrs, path, room_bytes),
        Err(errno) => {
            writing.note(NoteClass::Unreadable, path, format!("cannot read its attributes: {errno}"));
            Vec::new()
        }
    }
}

/// The attributes, if there is room for them in the segment's headers.
fn fitting(writing: &mut Writing<'_>, xattrs: Attributes, path: &[u8], room_bytes: &mut usize) -> Attributes {
    // A name may be escaped and stands beside its value and a length; an ACL stands there twice, as text up to three
    // times as long.
    let needed: usize = xattrs
        .iter()
        .map(|(name, value)| {
            let copies = if name.0.starts_with(b"system.posix_acl_") { 4 } else { 1 };
            3 * name.0.len() + copies * value.0.len() + 64
        })
        .sum();
    if needed > *room_bytes {
        writing.note(NoteClass::Unreadable, path, "its attributes are more than a segment holds");
        return Vec::new();
    }
    *room_bytes -= needed;
    xattrs
}

/// The data of a file with holes; `None` for one without, or where the file system cannot tell.
fn extents(file: &OwnedFd, status: &Status) -> Option<Vec<Extent>> {
    if status.allocated_bytes >= status.size_bytes {
        return None;
    }
    let mut extents: Vec<Extent> = Vec::new();
    let mut position = 0;
    while position < status.size_bytes {
        let begin = match seek(file, SeekFrom::Data(position)) {
            Ok(begin) if begin < status.size_bytes => begin,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let last = extents.len() + 1 == MAX_EXTENTS;
        let end = if last { status.size_bytes } else { seek(file, SeekFrom::Hole(begin)).ok()? };
        let end = end.min(status.size_bytes);
        if end <= begin {
            // It is being written to; reading it whole is safe.
            return None;
        }
        extents.push(Extent { offset: begin, bytes: end - begin });
        position = end;
    }
    let dense = [Extent { offset: 0, bytes: status.size_bytes }];
    (extents != dense).then_some(extents)
}

/// Reads until `buffer` is full or the file ends. How much it was, and what stopped it besides the end.
fn fill(file: &OwnedFd, offset: u64, buffer: &mut [u8]) -> (usize, Option<Errno>) {
    let mut read_bytes = 0;
    while read_bytes < buffer.len() {
        match pread(file, &mut buffer[read_bytes..], offset + read_bytes as u64) {
            Ok(0) => break,
            Ok(length) => read_bytes += length,
            Err(Errno::INTR) => {}
            Err(errno) => return (read_bytes, Some(errno)),
        }
    }
    (read_bytes, None)
}

/// Whether the file is another than when it was opened. Attributes and links count: they move the change time.
fn changed(file: &OwnedFd, before: &Status) -> Option<(Flaw, String)> {
    match fstat(file).map(|stat| Status::of(&stat)) {
        Ok(after) if (after.size_bytes, after.mtime) == (before.size_bytes, before.mtime) => None,
        Ok(_) => Some((Flaw::Changed, "it was written to while it was read".to_owned())),
        Err(errno) => Some((Flaw::Unreadable, format!("cannot look at it again: {}", io::Error::from(errno)))),
    }
}
