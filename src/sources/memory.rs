//! What a source remembers of its last backup, on this host: for each piece its signature, its segments and its
//! lines of the contents. It is a cache: lost, the files are read again, and nothing more.
//!
//! One file: magic and version; the records, each a checksum and a zstd frame; then the index (where each record
//! lies), the head (which backup this is the memory of) and a footer with a checksum over both. Only the index is
//! held in memory: 28 bytes a piece. It is written beside its place and renamed there when the backup is
//! committed. Any damage makes it a memory of nothing, or of one piece less.
//!
//! It does not know what makes a signature, or whether the segments still exist: the writer of the vault asks.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};

use crate::domain::ids::{BackupId, KeyedId, ObjectId};
use crate::domain::segment::SegmentRef;
use crate::error::{Code, Diagnostic};

use super::Signature;

const MAGIC: &[u8; 16] = b"lifeboat memory\x01";
/// What the name of a memory begins with until it is whole.
pub const UNFINISHED: &str = ".memory-";
const CHECKSUM_BYTES: usize = 16;
const SEGMENT_BYTES: usize = 32 + 8 + 32 + 8;
const KEY_BYTES: usize = 16;
const ENTRY_BYTES: usize = KEY_BYTES + 8 + 4;
const FOOTER_BYTES: usize = 8 + 8 + 8 + 32;
/// A piece whose record would be larger (a file of some terabytes) is not remembered; an index or head that says it
/// is larger is not believed.
const MAX_RECORD_BYTES: usize = 1 << 30;
/// Level 1: the lines are text that repeats itself, and the walk waits for this.
const ZSTD_LEVEL: i32 = 1;

/// A piece as the base backup stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its segments, in order.
    pub segments: Vec<SegmentRef>,
    /// Its lines of the contents: one piece line and its member lines, as bytes.
    pub lines: Vec<u8>,
    /// How many member lines stand in `lines`.
    pub members: u64,
}

/// Which backup a memory belongs to, and what of it is reused besides the pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryHead {
    /// The backup whose pieces these are: the base of the next run.
    pub backup: BackupId,
    /// The recipients that its objects are sealed to.
    pub recipient_set: String,
    /// A hash of the key of the keyed ids, so that ids under another key are not taken for comparable.
    pub id_key_hash: [u8; 32],
    /// The segments of the source's sealed contents, in order.
    pub contents: Vec<SegmentRef>,
}

/// Why a memory could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the walk cache {}", path.display())]
pub struct MemoryError {
    /// Its file.
    path: PathBuf,
    /// What the system said.
    #[source]
    cause: io::Error,
}

impl Diagnostic for MemoryError {
    fn code(&self) -> Code {
        Code::StateFailed
    }
}

/// The memory of one source, opened for looking up.
pub struct Memory {
    file: File,
    /// Sorted by key.
    index: Vec<Entry>,
    head: MemoryHead,
    /// Kept: to make one costs more than to open a record.
    opener: Mutex<Decompressor<'static>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("head", &self.head).field("pieces", &self.index.len()).finish_non_exhaustive()
    }
}

/// Where one record lies.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The beginning of the signature; the record has all of it.
    key: [u8; KEY_BYTES],
    offset: u64,
    bytes: u32,
}

impl Memory {
    /// Opens the memory at `path`. `None` where there is none, or none that can be believed.
    #[must_use]
    pub fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        let mut magic = [0; MAGIC.len()];
        file.read_exact_at(&mut magic, 0).ok().filter(|()| magic == *MAGIC)?;

        let footer_at = length.checked_sub(FOOTER_BYTES as u64)?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, footer_at).ok()?;
        let mut numbers = Fields(&footer);
        let (index_at, index_bytes, head_bytes) = (numbers.u64()?, numbers.u64()?, numbers.u64()?);
        if index_at.checked_add(index_bytes)?.checked_add(head_bytes)? != footer_at {
            return None;
        }
        let index_length = usize::try_from(index_bytes).ok()?;
        let mut tail = vec![0; usize::try_from(footer_at - index_at).ok().filter(|bytes| *bytes <= MAX_RECORD_BYTES)?];
        file.read_exact_at(&mut tail, index_at).ok()?;
        if tail_checksum(&tail, &footer[..FOOTER_BYTES - 32]) != numbers.array()? {
            return None;
        }

        let (index, head) = tail.split_at(index_length);
        let entry = |bytes: &[u8]| {
            let mut fields = Fields(bytes);
            Some(Entry { key: fields.array()?, offset: fields.u64()?, bytes: fields.u32()? })
        };
        let mut index = index.chunks_exact(ENTRY_BYTES).map(entry).collect::<Option<Vec<_>>>()?;
        index.sort_unstable_by_key(|entry| entry.key);
        let opener = Mutex::new(Decompressor::new().ok()?);
        Some(Self { file, index, head: MemoryHead::from_bytes(head)?, opener })
    }

    /// Which backup this is the memory of.
    #[must_use]
    pub fn head(&self) -> &MemoryHead {
        &self.head
    }

    /// The piece with this signature, if the base had it and its record is whole.
    #[must_use]
    pub fn lookup(&self, signature: &Signature) -> Option<Remembered> {
        let place = self.index.binary_search_by(|entry| entry.key[..].cmp(&signature[..KEY_BYTES])).ok()?;
        let entry = self.index[place];
        let mut record = vec![0; usize::try_from(entry.bytes).ok().filter(|bytes| *bytes <= MAX_RECORD_BYTES)?];
        self.file.read_exact_at(&mut record, entry.offset).ok()?;
        let (checksum, frame) = record.split_at_checked(CHECKSUM_BYTES)?;
        if blake3::hash(frame).as_bytes()[..CHECKSUM_BYTES] != *checksum {
            return None;
        }
        let mut fields = Fields(frame);
        let plain_bytes = usize::try_from(fields.u32()?).ok().filter(|bytes| *bytes <= MAX_RECORD_BYTES)?;
        let mut opener = self.opener.lock().unwrap_or_else(PoisonError::into_inner);
        let plain = opener.decompress(fields.0, plain_bytes).ok()?;
        drop(opener);
        let mut fields = Fields(&plain);
        if fields.array::<32>()? != *signature {
            return None;
        }
        let members = fields.u64()?;
        let segments = fields.segments()?;
        Some(Remembered { segments, lines: fields.0.to_vec(), members })
    }
}

/// A memory that is being written, beside its place.
pub struct MemoryWriter {
    path: PathBuf,
    out: BufWriter<tempfile::NamedTempFile>,
    offset: u64,
    index: Vec<u8>,
    /// Kept: to make one costs more than to compress a record.
    packer: Compressor<'static>,
}

impl fmt::Debug for MemoryWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryWriter").field("path", &self.path).field("bytes", &self.offset).finish_non_exhaustive()
    }
}

impl MemoryWriter {
    /// Begins a memory that will stand at `path`, in a folder that exists.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(path: &Path) -> Result<Self, MemoryError> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let begin = || {
            // Readable by its owner only, as tempfile makes it: it holds names of files.
            let mut out = BufWriter::new(tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?);
            out.write_all(MAGIC)?;
            Ok((out, Compressor::new(ZSTD_LEVEL)?))
        };
        let (out, packer) = begin().map_err(|cause| MemoryError { path: path.to_owned(), cause })?;
        Ok(Self { path: path.to_owned(), out, offset: MAGIC.len() as u64, index: Vec::new(), packer })
    }

    /// Remembers a piece.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn push(&mut self, signature: &Signature, piece: &Remembered) -> Result<(), MemoryError> {
        let mut plain = signature.to_vec();
        plain.extend(piece.members.to_le_bytes());
        put_segments(&mut plain, &piece.segments);
        plain.extend(&piece.lines);
        if plain.len() > MAX_RECORD_BYTES / 2 {
            return Ok(());
        }
        let mut write = || {
            let mut frame = (plain.len() as u32).to_le_bytes().to_vec();
            frame.extend(self.packer.compress(&plain)?);
            self.out.write_all(&blake3::hash(&frame).as_bytes()[..CHECKSUM_BYTES])?;
            self.out.write_all(&frame)?;
            Ok(CHECKSUM_BYTES + frame.len())
        };
        let bytes = write().map_err(|cause| self.failed(cause))?;
        self.index.extend(&signature[..KEY_BYTES]);
        self.index.extend(self.offset.to_le_bytes());
        self.index.extend((bytes as u32).to_le_bytes());
        self.offset += bytes as u64;
        Ok(())
    }

    /// Writes index and head. What comes back takes the old memory's place when it is told to.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn finish(mut self, head: &MemoryHead) -> Result<WrittenMemory, MemoryError> {
        let head = head.to_bytes();
        let mut footer = self.offset.to_le_bytes().to_vec();
        footer.extend((self.index.len() as u64).to_le_bytes());
        footer.extend((head.len() as u64).to_le_bytes());
        let tail = [std::mem::take(&mut self.index), head].concat();
        footer.extend(tail_checksum(&tail, &footer));
        let write = |out: &mut BufWriter<tempfile::NamedTempFile>| {
            out.write_all(&tail)?;
            out.write_all(&footer)?;
            out.flush()
        };
        write(&mut self.out).map_err(|cause| self.failed(cause))?;
        let Self { path, out, .. } = self;
        match out.into_inner() {
            Ok(file) => Ok(WrittenMemory { path, file }),
            Err(error) => Err(MemoryError { path, cause: error.into_error() }),
        }
    }

    fn failed(&self, cause: io::Error) -> MemoryError {
        MemoryError { path: self.path.clone(), cause }
    }
}

/// A memory that is complete but not yet in its place. Dropped, it is gone.
#[derive(Debug)]
pub struct WrittenMemory {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl WrittenMemory {
    /// Takes the place of the memory before; to be called once the backup is committed.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn commit(self) -> Result<(), MemoryError> {
        // Not synced: after a crash the checksums tell, and the files are read again.
        match self.file.persist(&self.path) {
            Ok(_) => Ok(()),
            Err(error) => Err(MemoryError { path: self.path, cause: error.error }),
        }
    }
}

impl MemoryHead {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.id_key_hash.to_vec();
        for text in [self.backup.as_str(), &self.recipient_set] {
            bytes.extend((text.len() as u32).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        put_segments(&mut bytes, &self.contents);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let id_key_hash = fields.array()?;
        let backup = fields.text()?.parse().ok()?;
        let recipient_set = fields.text()?.to_owned();
        let contents = fields.segments()?;
        fields.0.is_empty().then_some(Self { backup, recipient_set, id_key_hash, contents })
    }
}

/// Over index, head and the three numbers that say where they lie.
fn tail_checksum(tail: &[u8], numbers: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(tail).update(numbers).finalize().as_bytes()
}

fn put_segments(out: &mut Vec<u8>, segments: &[SegmentRef]) {
    out.extend((segments.len() as u32).to_le_bytes());
    for segment in segments {
        out.extend(segment.object.0);
        out.extend(segment.stored_bytes.to_le_bytes());
        out.extend(segment.id.0);
        out.extend(segment.plain_bytes.to_le_bytes());
    }
}

/// Takes fields from the front of some bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let bytes = usize::try_from(self.u32()?).ok()?;
        std::str::from_utf8(self.take(bytes)?).ok()
    }

    fn segments(&mut self) -> Option<Vec<SegmentRef>> {
        let count = usize::try_from(self.u32()?).ok()?;
        let mut images = Fields(self.take(count.checked_mul(SEGMENT_BYTES)?)?);
        (0..count)
            .map(|_| {
                let object = ObjectId(images.array()?);
                let stored_bytes = images.u64()?;
                let id = KeyedId(images.array()?);
                Some(SegmentRef { object, stored_bytes, id, plain_bytes: images.u64()? })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn segment(seed: u8) -> SegmentRef {
        SegmentRef { object: ObjectId([seed; 32]), stored_bytes: 7, id: KeyedId([!seed; 32]), plain_bytes: 1 << 20 }
    }

    fn piece(seed: u8) -> Remembered {
        Remembered {
            segments: vec![segment(seed); usize::from(seed)],
            lines: vec![seed; 5000],
            members: u64::from(seed),
        }
    }

    fn signature(seed: u8) -> Signature {
        *blake3::hash(&[seed]).as_bytes()
    }

    fn head() -> MemoryHead {
        MemoryHead {
            backup: BackupId::from_random([7; 8]),
            recipient_set: "r1".to_owned(),
            id_key_hash: [9; 32],
            contents: vec![segment(3), segment(4)],
        }
    }

    fn write(path: &Path) {
        let mut writer = MemoryWriter::create(path).unwrap();
        for seed in 0..12 {
            writer.push(&signature(seed), &piece(seed)).unwrap();
        }
        writer.finish(&head()).unwrap().commit().unwrap();
    }

    #[test]
    fn what_was_pushed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walk");
        assert!(Memory::open(&path).is_none());
        write(&path);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let memory = Memory::open(&path).unwrap();
        assert_eq!(memory.head(), &head());
        for seed in 0..12 {
            assert_eq!(memory.lookup(&signature(seed)), Some(piece(seed)));
        }
        assert_eq!(memory.lookup(&signature(51)), None);
        let mut near = signature(1);
        near[31] ^= 1;
        assert_eq!(memory.lookup(&near), None);
    }

    #[test]
    fn what_is_not_committed_leaves_the_old_one_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walk");
        write(&path);
        let mut writer = MemoryWriter::create(&path).unwrap();
        writer.push(&signature(99), &piece(9)).unwrap();
        drop(writer.finish(&head()).unwrap());
        assert_eq!(Memory::open(&path).unwrap().lookup(&signature(99)), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_never_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walk");
        write(&path);
        let whole = std::fs::read(&path).unwrap();
        let damaged = folder.path().join("damaged");
        for place in (0..whole.len()).step_by(5) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x20;
            std::fs::write(&damaged, &bytes).unwrap();
            let Some(memory) = Memory::open(&damaged) else { continue };
            assert_eq!(memory.head(), &head());
            for seed in 0..12 {
                assert!(memory.lookup(&signature(seed)).is_none_or(|found| found == piece(seed)));
            }
        }
        for length in (0..whole.len()).step_by(97) {
            std::fs::write(&damaged, &whole[..length]).unwrap();
            assert!(Memory::open(&damaged).is_none(), "cut at {length}");
        }
    }
}
