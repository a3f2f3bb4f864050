//! Lists: which segments a source has, in order, at most [`MAX_LIST_LINES`] to a list.
//!
//! A list is zstd over lines that `awk` can read: `<object sha256> <stored bytes> <keyed id>`. It is named by the
//! SHA-256 of its compressed bytes, so that a list whose segments are those of yesterday is not stored again.

use std::fmt::Write as _;
use std::io::Write as _;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};

use super::layout::{Key, object_id};
use super::{VaultError, versions};
use crate::domain::ids::{KeyedId, ObjectId};
use crate::domain::segment::{MAX_LIST_LINES, SegmentRef};
use crate::storage::{Storage, StorageError};

/// Digest, space, at most 20 digits, space, digest, newline.
const MAX_LINE_BYTES: usize = 64 + 1 + 20 + 1 + 64 + 1;
/// What a list may open to.
const MAX_PLAIN_BYTES: usize = MAX_LIST_LINES * MAX_LINE_BYTES;
/// What a stored list may have: digests do not compress, so that it is no shorter than half its lines.
pub const MAX_LIST_BYTES: u64 = (MAX_PLAIN_BYTES + 4096) as u64;
/// No line is shorter.
const MIN_LINE_BYTES: usize = 64 + 1 + 1 + 1 + 64 + 1;
const COMPRESSION_LEVEL: i32 = 3;
/// Windows that a list's frame may ask for, as powers of two: each longer than any list, none more than a reader gives
/// unasked.
const WINDOW_LOGS: [u32; 6] = [20, 21, 22, 23, 24, 25];
/// The number that a frame begins with which every reader of zstd passes over.
const SKIPPABLE_FRAME: u32 = 0x184D_2A50;

/// One line of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListedSegment {
    /// The SHA-256 of the stored bytes: the object's name.
    pub object: ObjectId,
    /// The object's size in the vault.
    pub stored_bytes: u64,
    /// The keyed hash of the plain bytes.
    pub id: KeyedId,
}

impl From<&SegmentRef> for ListedSegment {
    fn from(segment: &SegmentRef) -> Self {
        Self { object: segment.object, stored_bytes: segment.stored_bytes, id: segment.id }
    }
}

/// The stored bytes of a list, and the name that they have: always the same for the same segments.
///
/// # Panics
/// With more than [`MAX_LIST_LINES`] segments, or none.
#[must_use]
pub fn encode(segments: &[ListedSegment]) -> (ObjectId, Bytes) {
    encode_avoiding(segments, &|_| false)
}

/// The stored bytes of a list under the first name that is not taken. A list's name follows from its lines, and a name
/// that is condemned must never be named again; so there are other ways to write the same lines, without end, and any
/// zstd reads them. The first is [`encode`]'s.
///
/// # Panics
/// As [`encode`].
#[must_use]
pub fn encode_avoiding(segments: &[ListedSegment], is_taken: &dyn Fn(&ObjectId) -> bool) -> (ObjectId, Bytes) {
    assert!((1..=MAX_LIST_LINES).contains(&segments.len()), "a list has 1 to {MAX_LIST_LINES} lines");
    let mut text = String::with_capacity(segments.len() * MAX_LINE_BYTES);
    for segment in segments {
        write_line(&mut text, segment);
    }
    for variant in 0.. {
        let stored = compress(text.as_bytes(), variant);
        let id = object_id(&stored);
        if !is_taken(&id) {
            return (id, stored.into());
        }
    }
    unreachable!("not every name of 32 bytes is taken")
}

/// Variant 0 has the content's size in its header. The next have a window instead, of one size each, and from there on
/// the first of these comes behind a skippable frame that holds the variant's number.
fn compress(text: &[u8], variant: u32) -> Vec<u8> {
    if variant == 0 {
        return zstd::bulk::compress(text, COMPRESSION_LEVEL)
            .expect("compressing into memory that zstd itself measured out cannot fail");
    }
    let (mut stored, window_log) = match WINDOW_LOGS.get(variant as usize - 1) {
        Some(window_log) => (Vec::new(), *window_log),
        None => ([SKIPPABLE_FRAME, 4, variant].iter().flat_map(|word| word.to_le_bytes()).collect(), WINDOW_LOGS[0]),
    };
    // As a stream: where zstd knows the size beforehand it shrinks every window to it.
    let write = |stored: &mut Vec<u8>| {
        let mut encoder = zstd::stream::Encoder::new(stored, COMPRESSION_LEVEL)?;
        encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(window_log))?;
        encoder.write_all(text)?;
        encoder.finish().map(drop)
    };
    write(&mut stored).expect("compressing into memory cannot fail");
    stored
}

/// Opens the stored bytes of a list; their hash is not looked at. The error is what is wrong, for a message.
///
/// # Errors
/// Where it is no list exactly as [`encode_avoiding`] writes one.
pub fn decode(stored: &[u8]) -> Result<Vec<ListedSegment>, String> {
    decode_as(stored, |segment| segment)
}

/// As [`decode`], of what each line says only a part.
fn decode_as<T>(stored: &[u8], part: impl Fn(ListedSegment) -> T) -> Result<Vec<T>, String> {
    let plain = zstd::bulk::decompress(stored, MAX_PLAIN_BYTES)
        .map_err(|error| format!("it does not open to at most {MAX_PLAIN_BYTES} bytes: {error}"))?;
    let body = plain.strip_suffix(b"\n").ok_or("its last line is cut off, or it has none")?;
    let mut parts = Vec::with_capacity(body.len() / MIN_LINE_BYTES + 1);
    for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if index == MAX_LIST_LINES {
            return Err(format!("it has more than {MAX_LIST_LINES} lines"));
        }
        let segment = read_line(line).ok_or_else(|| format!("line {} is not `<sha256> <bytes> <id>`", index + 1))?;
        parts.push(part(segment));
    }
    Ok(parts)
}

/// There is one way to write a line: no capitals, no `+1`, no `01`.
fn read_line(line: &[u8]) -> Option<ListedSegment> {
    let (object, rest) = line.split_at_checked(64)?;
    let (bytes, id) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
    let bytes = bytes.strip_prefix(b" ")?.strip_suffix(b" ")?;
    if !bytes.iter().all(u8::is_ascii_digit) || (bytes.len() > 1 && bytes[0] == b'0') {
        return None;
    }
    let stored_bytes = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    Some(ListedSegment { object: ObjectId(digest(object)?), stored_bytes, id: KeyedId(digest(id)?) })
}

fn digest(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let lower = !text.iter().any(u8::is_ascii_uppercase);
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

fn write_line(text: &mut String, segment: &ListedSegment) {
    writeln!(text, "{} {} {}", segment.object, segment.stored_bytes, segment.id)
        .expect("writing into a string cannot fail");
}

/// The objects that the stored bytes of a list name, in order; the bytes are held to the list's name.
///
/// # Errors
/// [`VaultError::HashDiffers`], [`VaultError::ListMalformed`].
pub fn objects_of(list: ObjectId, stored: &[u8]) -> Result<Vec<ObjectId>, VaultError> {
    let found = object_id(stored);
    if found != list {
        return Err(VaultError::HashDiffers { key: Key::List(list).to_string(), found });
    }
    decode_as(stored, |segment| segment.object)
        .map_err(|reason| VaultError::ListMalformed { key: Key::List(list).to_string(), reason })
}

/// Reads a list, holds it to its name, and opens it; an earlier version where what lies there has another name.
///
/// # Errors
/// The store's ([`crate::storage::StorageError::NotFound`] where it is missing), [`VaultError::HashDiffers`],
/// [`VaultError::ListMalformed`].
pub async fn read_list(storage: &dyn Storage, id: ObjectId) -> Result<Vec<ListedSegment>, VaultError> {
    let stored = storage.get(&Key::List(id).to_string(), MAX_LIST_BYTES).await;
    open_read_list(storage, id, stored).await
}

/// The same for a list that was read, or was to be.
///
/// # Errors
/// As [`read_list`].
pub async fn open_read_list(
    storage: &dyn Storage,
    id: ObjectId,
    read: Result<Bytes, StorageError>,
) -> Result<Vec<ListedSegment>, VaultError> {
    let key = Key::List(id).to_string();
    let stored = match read {
        Ok(stored) if object_id(&stored) == id => stored,
        Ok(wrong) => match versions::earlier_named(storage, &key, id, MAX_LIST_BYTES).await? {
            Some(stored) => stored,
            None => return Err(VaultError::HashDiffers { key, found: object_id(&wrong) }),
        },
        Err(error) if versions::may_be_overwritten(&error) => {
            versions::earlier_named(storage, &key, id, MAX_LIST_BYTES).await?.ok_or(error)?
        }
        Err(error) => return Err(error.into()),
    };
    decode(&stored).map_err(|reason| VaultError::ListMalformed { key, reason })
}

/// Reads lists, several at once; the answers come in the order of the names.
pub fn read_lists<'a>(
    storage: &'a dyn Storage,
    ids: impl IntoIterator<Item = ObjectId> + 'a,
) -> impl Stream<Item = (ObjectId, Result<Vec<ListedSegment>, VaultError>)> + 'a {
    stream::iter(ids)
        .map(move |id| async move { (id, read_list(storage, id).await) })
        .buffered(storage.parallel().max(1))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::SystemClock;
    use crate::error::{Code, Diagnostic};
    use crate::storage::memory::Memory;

    fn segments() -> impl Strategy<Value = Vec<ListedSegment>> {
        let segment = (any::<[u8; 32]>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(object, stored_bytes, id)| {
            ListedSegment { object: ObjectId(object), stored_bytes, id: KeyedId(id) }
        });
        prop::collection::vec(segment, 1..50)
    }

    proptest! {
        #[test]
        fn lists_round_trip(segments in segments()) {
            let (id, stored) = encode(&segments);
            prop_assert_eq!(object_id(&stored), id);
            prop_assert_eq!(decode(&stored).unwrap(), segments);
        }

        #[test]
        fn junk_is_refused(junk in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&junk).is_err());
        }
    }

    #[test]
    fn the_longest_list_fits() {
        let segment = ListedSegment { object: ObjectId([1; 32]), stored_bytes: u64::MAX, id: KeyedId([2; 32]) };
        let (_, stored) = encode(&vec![segment; MAX_LIST_LINES]);
        assert_eq!(decode(&stored).unwrap().len(), MAX_LIST_LINES);
        // Nor does one of random digests exceed the bound of what is read.
        let random: Vec<_> = (0..MAX_LIST_LINES as u64)
            .map(|n| ListedSegment {
                object: object_id(&n.to_le_bytes()),
                stored_bytes: u64::MAX - n,
                id: KeyedId(object_id(&n.to_be_bytes()).0),
            })
            .collect();
        assert!((encode(&random).1.len() as u64) < MAX_LIST_BYTES);
        let taken = std::cell::RefCell::new(Vec::new());
        for _ in 0..WINDOW_LOGS.len() + 3 {
            let (id, stored) = encode_avoiding(&random, &|id| taken.borrow().contains(id));
            assert!((stored.len() as u64) < MAX_LIST_BYTES);
            assert_eq!(decode(&stored).unwrap(), random);
            taken.borrow_mut().push(id);
        }
    }

    #[test]
    fn a_list_has_as_many_names_as_it_needs_and_the_stock_tool_reads_them_all() {
        let folder = tempfile::tempdir().unwrap();
        let segment = ListedSegment { object: ObjectId([1; 32]), stored_bytes: 70_000, id: KeyedId([2; 32]) };
        for segments in [vec![segment], vec![segment; 1000]] {
            let taken = std::cell::RefCell::new(Vec::new());
            for variant in 0..WINDOW_LOGS.len() + 5 {
                let (id, stored) = encode_avoiding(&segments, &|id| taken.borrow().contains(id));
                assert!(!taken.borrow().contains(&id), "variant {variant}");
                assert_eq!((object_id(&stored), variant == 0), (id, stored == encode(&segments).1));
                assert_eq!(decode(&stored).unwrap(), segments);
                assert_eq!(objects_of(id, &stored).unwrap(), vec![segment.object; segments.len()]);
                let path = folder.path().join("list");
                std::fs::write(&path, &stored).unwrap();
                let output = std::process::Command::new("zstd")
                    .args(["-d", "-q", "-c"])
                    .stdin(std::fs::File::open(&path).unwrap())
                    .output()
                    .expect("zstd must be installed for this test: apt-get install zstd");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                let lines = String::from_utf8(output.stdout).unwrap();
                assert_eq!(lines, format!("{} 70000 {}\n", segment.object, segment.id).repeat(segments.len()));
                taken.borrow_mut().push(id);
            }
        }
    }

    #[test]
    fn only_what_encode_writes_is_a_list() {
        let line = format!("{} 7 {}", "ab".repeat(32), "cd".repeat(32));
        let packed = |text: &str| zstd::bulk::compress(text.as_bytes(), 1).unwrap();
        assert_eq!(decode(&packed(&format!("{line}\n"))).unwrap().len(), 1);
        for bad in [
            String::new(),
            "\n".into(),
            line.clone(),
            format!("{line}\n\n"),
            format!("{line} \n"),
            format!(" {line}\n"),
            format!("{line}\r\n"),
            format!("{}\n", line.replace(" 7 ", " 07 ")),
            format!("{}\n", line.replace(" 7 ", " +7 ")),
            format!("{}\n", line.replace(" 7 ", " -7 ")),
            format!("{}\n", line.replace(" 7 ", "  7 ")),
            format!("{}\n", line.replace(" 7 ", " 99999999999999999999 ")),
            format!("{}\n", line.to_uppercase()),
            format!("{line}\n").repeat(MAX_LIST_LINES + 1),
            "0".repeat(MAX_PLAIN_BYTES + 1),
        ] {
            assert!(decode(&packed(&bad)).is_err(), "{:?}", &bad[..bad.len().min(200)]);
        }
        let bomb = zstd::bulk::compress(&vec![b'a'; 100_000_000], 1).unwrap();
        assert!(decode(&bomb).unwrap_err().contains("does not open to at most"));
    }

    #[tokio::test]
    async fn a_stored_list_is_held_to_its_name() {
        let store = Memory::new(Arc::new(SystemClock::default()));
        let segment = ListedSegment { object: ObjectId([1; 32]), stored_bytes: 9, id: KeyedId([2; 32]) };
        let (id, stored) = encode(&[segment]);
        assert_eq!(read_list(&store, id).await.unwrap_err().code(), Code::ObjectMissing);
        store.replace(&Key::List(id).to_string(), stored.clone()).await.unwrap();
        assert_eq!(read_list(&store, id).await.unwrap(), [segment]);
        for damaged in [stored.slice(..stored.len() - 1), encode(&[segment; 2]).1, Bytes::new()] {
            store.replace(&Key::List(id).to_string(), damaged).await.unwrap();
            let error = read_list(&store, id).await.unwrap_err();
            assert!(matches!(error, VaultError::HashDiffers { .. }), "{error}");
            assert_eq!(error.code(), Code::ObjectDamaged);
        }
    }
}
