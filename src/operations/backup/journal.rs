//! The journal of a source: which segments a run that has not committed put into the vault. Sealing is randomised, so that
//! their names cannot be computed again; without the journal a run that broke off would have stored them in vain.
//!
//! One file: a head, then one entry of fixed size for each segment, appended once the store has taken it. Each is
//! checked by a keyed hash, so that what was torn or rotted is passed over, and a journal under another key is none.
//! Nothing is synced: a journal that a crash took costs what any lost journal costs, storing it all again.
//!
//! It does not know whether the segments still lie in the vault, or are intact: whoever names one hashes it before.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use chrono::{DateTime, Utc};

use super::super::lock;
use crate::domain::ids::{KeyedId, ObjectId};
use crate::domain::segment::SegmentRef;

const MAGIC: &[u8; 17] = b"lifeboat journal\x01";
const CHECKSUM_BYTES: usize = 16;
/// Magic, hash of the recipient set, when it was begun.
const HEAD_BYTES: usize = MAGIC.len() + 32 + 8 + CHECKSUM_BYTES;
const SEGMENT_BYTES: usize = 32 + 8 + 32 + 8;
const ENTRY_BYTES: usize = SEGMENT_BYTES + CHECKSUM_BYTES;
/// No more entries are read: they are held in memory. What lies beyond is stored again.
const MAX_ENTRIES: usize = 1 << 22;

/// Whose journal it is: entries made for others mean nothing to this run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// The key of the source's segment ids.
    pub id_key: [u8; 32],
    /// The recipients that its objects are sealed to.
    pub recipient_set: String,
}

/// What a run that broke off left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// By the store's time: everything in it was stored from here on.
    pub begun: DateTime<Utc>,
    /// What it stored.
    pub segments: Vec<SegmentRef>,
}

/// Reads the journal at `path`. `None` where there is none, or none of this owner's; then what lies there is removed.
pub(super) fn read(path: &Path, owner: &Owner) -> Option<Left> {
    let left = try_read(path, owner);
    if left.is_none() {
        // Where it cannot be removed, it will be no journal of this owner's either.
        let _ = std::fs::remove_file(path);
    }
    left
}

fn try_read(path: &Path, owner: &Owner) -> Option<Left> {
    let mut file = io::BufReader::new(File::open(path).ok()?);
    let mut head = [0; HEAD_BYTES];
    file.read_exact(&mut head).ok()?;
    let begun = begun_of(&head)?;
    if head != head_bytes(owner, begun) {
        return None;
    }
    let mut segments = Vec::new();
    let mut entry = [0; ENTRY_BYTES];
    while segments.len() < MAX_ENTRIES && file.read_exact(&mut entry).is_ok() {
        segments.extend(segment_of(owner, &entry));
    }
    Some(Left { begun, segments })
}

/// The journal of the run under way. Made when there is something to write, and gone on with where one is left.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    owner: Owner,
    begun: DateTime<Utc>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nothing was written yet.
    Waiting,
    Open(File),
    /// It could not be written: from there on the run is not resumed.
    Failed(io::Error),
}

impl Journal {
    /// `begun`: of what was left there, else the moment from which on this run's objects were stored.
    pub(super) fn new(path: PathBuf, owner: Owner, begun: DateTime<Utc>) -> Self {
        Self { path, owner, begun, state: Mutex::new(State::Waiting) }
    }

    /// Writes down a segment that the store has taken.
    pub(super) fn landed(&self, segment: &SegmentRef) {
        let mut state = lock(&self.state);
        let written = match &mut *state {
            State::Failed(_) => return,
            State::Open(file) => file.write_all(&entry_bytes(&self.owner, segment)),
            State::Waiting => self.open().and_then(|mut file| {
                let written = file.write_all(&entry_bytes(&self.owner, segment));
                *state = State::Open(file);
                written
            }),
        };
        if let Err(cause) = written {
            *state = State::Failed(cause);
        }
    }

    /// Why the run could not be resumed, if it could not.
    pub(super) fn trouble(&self) -> Option<String> {
        match &*lock(&self.state) {
            State::Failed(cause) => Some(format!("cannot write {}: {cause}", self.path.display())),
            State::Waiting | State::Open(_) => None,
        }
    }

    fn open(&self) -> io::Result<File> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        let there = file.metadata()?.len();
        if there < HEAD_BYTES as u64 {
            file.set_len(0)?;
            file.write_all(&head_bytes(&self.owner, self.begun))?;
        } else {
            // An entry that was cut off would shift all that come after it.
            file.set_len(there - (there - HEAD_BYTES as u64) % ENTRY_BYTES as u64)?;
        }
        Ok(file)
    }
}

fn head_bytes(owner: &Owner, begun: DateTime<Utc>) -> [u8; HEAD_BYTES] {
    let mut head = MAGIC.to_vec();
    head.extend(blake3::hash(owner.recipient_set.as_bytes()).as_bytes());
    head.extend(begun.timestamp_micros().to_le_bytes());
    checked(owner, head)
}

fn begun_of(head: &[u8; HEAD_BYTES]) -> Option<DateTime<Utc>> {
    let (_, rest) = head.split_at(MAGIC.len() + 32);
    DateTime::from_timestamp_micros(i64::from_le_bytes(rest.get(..8)?.try_into().ok()?))
}

fn entry_bytes(owner: &Owner, segment: &SegmentRef) -> [u8; ENTRY_BYTES] {
    let mut entry = segment.object.0.to_vec();
    entry.extend(segment.stored_bytes.to_le_bytes());
    entry.extend(segment.id.0);
    entry.extend(segment.plain_bytes.to_le_bytes());
    checked(owner, entry)
}

fn segment_of(owner: &Owner, entry: &[u8; ENTRY_BYTES]) -> Option<SegmentRef> {
    let segment = SegmentRef {
        object: ObjectId(entry.get(..32)?.try_into().ok()?),
        stored_bytes: u64::from_le_bytes(entry.get(32..40)?.try_into().ok()?),
        id: KeyedId(entry.get(40..72)?.try_into().ok()?),
        plain_bytes: u64::from_le_bytes(entry.get(72..80)?.try_into().ok()?),
    };
    (entry_bytes(owner, &segment) == *entry).then_some(segment)
}

/// The bytes with their checksum behind them: `BYTES` is the sum of both.
fn checked<const BYTES: usize>(owner: &Owner, mut bytes: Vec<u8>) -> [u8; BYTES] {
    let checksum = blake3::keyed_hash(&owner.id_key, &bytes);
    bytes.extend(&checksum.as_bytes()[..CHECKSUM_BYTES]);
    let mut out = [0; BYTES];
    out.copy_from_slice(&bytes);
    out
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn owner() -> Owner {
        Owner { id_key: [7; 32], recipient_set: "set".to_owned() }
    }

    fn begun() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 5_000).unwrap()
    }

    fn segment(number: u8) -> SegmentRef {
        let (object, id) = (ObjectId([number; 32]), KeyedId([!number; 32]));
        SegmentRef { object, stored_bytes: number.into(), id, plain_bytes: 1 << number.min(60) }
    }

    /// A run that stores these and dies.
    fn write(path: &Path, begun: DateTime<Utc>, numbers: &[u8]) {
        let journal = Journal::new(path.to_owned(), owner(), begun);
        numbers.iter().for_each(|number| journal.landed(&segment(*number)));
        assert_eq!(journal.trouble(), None);
    }

    fn numbers(left: Option<Left>) -> Vec<u8> {
        left.unwrap().segments.iter().map(|segment| segment.object.0[0]).collect()
    }

    #[test]
    fn what_runs_wrote_is_read_again_and_keeps_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uploads.journal");
        assert_eq!(read(&path, &owner()), None);
        write(&path, begun(), &[]);
        assert!(!path.exists(), "nothing was stored, and nothing is left to resume");
        write(&path, begun(), &[1, 2]);
        assert_eq!(read(&path, &owner()), Some(Left { begun: begun(), segments: vec![segment(1), segment(2)] }));
        write(&path, begun(), &[3]);
        assert_eq!(numbers(read(&path, &owner())), [1, 2, 3]);
    }

    #[test]
    fn what_was_cut_off_or_changed_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uploads.journal");
        write(&path, begun(), &[1, 2, 3]);
        let whole = fs::read(&path).unwrap();
        for cut in 1..ENTRY_BYTES {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            write(&path, begun(), &[4]);
            assert_eq!(numbers(read(&path, &owner())), [1, 2, 4], "{cut} bytes were cut off");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            let left = read(&path, &owner());
            if at < HEAD_BYTES {
                assert_eq!((left, path.exists()), (None, false), "byte {at} of the head");
            } else {
                assert_eq!(numbers(left).len(), 2, "byte {at}");
            }
        }
    }

    #[test]
    fn the_journal_of_other_keys_or_recipients_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uploads.journal");
        let others = [Owner { id_key: [8; 32], ..owner() }, Owner { recipient_set: "another".to_owned(), ..owner() }];
        for other in others {
            write(&path, begun(), &[1]);
            assert_eq!(read(&path, &other), None);
            assert!(!path.exists(), "a new one is begun");
        }
    }

    #[test]
    fn a_journal_that_cannot_be_written_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path().join("nowhere/uploads.journal"), owner(), begun());
        journal.landed(&segment(1));
        journal.landed(&segment(2));
        assert!(journal.trouble().unwrap().contains("uploads.journal"), "{:?}", journal.trouble());
    }
}
