//! Lists: which segments a source has, in order, at most [`MAX_LIST_LINES`] to a list.
//!
//! A list is zstd over lines that `awk` can read: `<object sha256> <stored bytes> <keyed id>`. It is named by the
//! SHA-256 of its compressed bytes, so that a list whose segments are those of yesterday is not stored again.

use std::fmt::Write;

use bytes::Bytes;

use super::VaultError;
use super::layout::{Key, object_id};
use crate::domain::ids::{KeyedId, ObjectId};
use crate::domain::segment::{MAX_LIST_LINES, SegmentRef};
use crate::storage::{Storage, StorageError};

/// Digest, space, at most 20 digits, space, digest, newline.
const MAX_LINE_BYTES: usize = 64 + 1 + 20 + 1 + 64 + 1;
/// What a list may open to.
const MAX_PLAIN_BYTES: usize = MAX_LIST_LINES * MAX_LINE_BYTES;
/// What a stored list may have: digests do not compress, so that it is no shorter than half its lines.
pub const MAX_LIST_BYTES: u64 = (MAX_PLAIN_BYTES + 4096) as u64;
const COMPRESSION_LEVEL: i32 = 3;

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

/// The stored bytes of a list, and the name that they have.
///
/// # Panics
/// With more than [`MAX_LIST_LINES`] segments, or none.
#[must_use]
pub fn encode(segments: &[ListedSegment]) -> (ObjectId, Bytes) {
    assert!((1..=MAX_LIST_LINES).contains(&segments.len()), "a list has 1 to {MAX_LIST_LINES} lines");
    let mut text = String::with_capacity(segments.len() * MAX_LINE_BYTES);
    for segment in segments {
        write_line(&mut text, segment);
    }
    let stored = zstd::bulk::compress(text.as_bytes(), COMPRESSION_LEVEL)
        .expect("compressing into memory that zstd itself measured out cannot fail");
    (object_id(&stored), stored.into())
}

/// As [`encode`], under a name that is not taken: the same lines have other bytes where zstd leaves the content size out
/// and says another window. Stock zstd reads them all.
///
/// # Panics
/// As [`encode`], and where every name is taken.
#[must_use]
pub fn encode_avoiding(segments: &[ListedSegment], is_taken: &dyn Fn(&ObjectId) -> bool) -> (ObjectId, Bytes) {
    let usual = encode(segments);
    if !is_taken(&usual.0) {
        return usual;
    }
    let mut text = String::with_capacity(segments.len() * MAX_LINE_BYTES);
    segments.iter().for_each(|segment| write_line(&mut text, segment));
    let variant = |window_log: u32| -> std::io::Result<(ObjectId, Bytes)> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), COMPRESSION_LEVEL)?;
        encoder.include_contentsize(false)?;
        encoder.window_log(window_log)?;
        std::io::Write::write_all(&mut encoder, text.as_bytes())?;
        let stored = encoder.finish()?;
        Ok((object_id(&stored), stored.into()))
    };
    let mut variants = (10..=27).map(|window_log| variant(window_log).expect("compressing into memory cannot fail"));
    variants.find(|(name, _)| !is_taken(name)).expect("nineteen encodings of one list are not all condemned at once")
}

/// Opens the stored bytes of a list; their hash is not looked at. The error is what is wrong, for a message.
///
/// # Errors
/// Where it is no list exactly as [`encode`] writes one.
pub fn decode(stored: &[u8]) -> Result<Vec<ListedSegment>, String> {
    let plain = zstd::bulk::decompress(stored, MAX_PLAIN_BYTES)
        .map_err(|error| format!("it does not open to at most {MAX_PLAIN_BYTES} bytes: {error}"))?;
    let text = String::from_utf8(plain).map_err(|_| "it is not text".to_owned())?;
    let body = text.strip_suffix('\n').ok_or("its last line is cut off, or it has none")?;
    let mut segments = Vec::new();
    let mut again = String::new();
    for (index, line) in body.split('\n').enumerate() {
        let wrong = || format!("line {} is not `<sha256> <bytes> <id>`", index + 1);
        if index == MAX_LIST_LINES {
            return Err(format!("it has more than {MAX_LIST_LINES} lines"));
        }
        let mut words = line.split(' ');
        let (Some(object), Some(bytes), Some(id), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        let segment = ListedSegment {
            object: object.parse().map_err(|_| wrong())?,
            stored_bytes: bytes.parse().map_err(|_| wrong())?,
            id: id.parse().map_err(|_| wrong())?,
        };
        // There is one way to write a line: no `+1`, no `01`.
        again.clear();
        write_line(&mut again, &segment);
        if again.trim_end() != line {
            return Err(wrong());
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn write_line(text: &mut String, segment: &ListedSegment) {
    writeln!(text, "{} {} {}", segment.object, segment.stored_bytes, segment.id)
        .expect("writing into a string cannot fail");
}

/// Reads a list, holds it to its name, and opens it.
///
/// # Errors
/// The store's ([`StorageError::NotFound`] where it is missing), [`VaultError::HashDiffers`],
/// [`VaultError::ListMalformed`].
pub async fn read_list(storage: &dyn Storage, id: ObjectId) -> Result<Vec<ListedSegment>, VaultError> {
    let key = Key::List(id).to_string();
    let stored: Result<Bytes, StorageError> = storage.get(&key, MAX_LIST_BYTES).await;
    let stored = stored?;
    let found = object_id(&stored);
    if found != id {
        return Err(VaultError::HashDiffers { key, found });
    }
    decode(&stored).map_err(|reason| VaultError::ListMalformed { key, reason })
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

    #[test]
    fn a_taken_name_is_avoided_by_other_bytes_of_the_same_lines() {
        let segment = ListedSegment { object: ObjectId([1; 32]), stored_bytes: 9, id: KeyedId([2; 32]) };
        for lines in [vec![segment], vec![segment; MAX_LIST_LINES]] {
            let mut taken = std::collections::HashSet::new();
            for _ in 0..5 {
                let (name, stored) = encode_avoiding(&lines, &|name| taken.contains(name));
                assert_eq!(decode(&stored).unwrap(), lines);
                assert_eq!(name, object_id(&stored));
                assert!(taken.insert(name), "the name is a new one");
            }
        }
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
