//! From the bytes of a segment back to members and the places of their data.
//!
//! Strict: it reads what [`super::write`] writes and refuses everything else, because a segment that says something
//! else was not written by us. It checks form, not intent: whether a path may be unpacked is not decided here.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::domain::contents::{Member, MemberKind, RawText};
use crate::sources::SourceError;

use super::sparse::SparseMap;
use super::{BLOCK_BYTES, acl};

/// A member whose data is at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the headers say; `blake3` and `flaw` are not in a tar, and always `None`.
    pub member: Member,
    /// Where the file's bytes lie in the segment; with a map, those of its extents one after the other.
    pub data: Range<usize>,
    /// The map of a file with holes.
    pub sparse: Option<SparseMap>,
}

/// A member whose data comes in later segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeEntry {
    /// What the headers say; a regular file.
    pub member: Member,
    /// How many bytes of data follow, without padding.
    pub data_bytes: u64,
    /// The map of a file with holes.
    pub sparse: Option<SparseMap>,
}

/// Every member of a segment of whole members, in order. The iteration ends after the first error.
///
/// # Errors
/// Each item: [`SourceError::Unsafe`] where the bytes are not a tar of ours.
pub fn entries(tar: &[u8]) -> impl Iterator<Item = Result<Entry, SourceError>> {
    let mut position = Some(0);
    std::iter::from_fn(move || {
        let start = position?;
        let outcome = whole(tar, start);
        position = match &outcome {
            Ok(Some((_, next))) => Some(*next),
            _ => None,
        };
        outcome.map(|found| found.map(|(entry, _)| entry)).transpose()
    })
}

/// The member of a large file's first segment, which holds its headers and its map and nothing else.
///
/// # Errors
/// [`SourceError::Unsafe`] where the bytes are anything else.
pub fn large(header_segment: &[u8]) -> Result<LargeEntry, SourceError> {
    let head = head(header_segment, 0)?.ok_or_else(|| broken("at byte 0", "is not there"))?;
    let (sparse, map_bytes) = map(&head, header_segment)?;
    if head.member.kind != MemberKind::File || head.end + map_bytes != header_segment.len() {
        return Err(broken(&head.member.path.display(), "is not the head of a large file"));
    }
    Ok(LargeEntry { data_bytes: head.stored_bytes - map_bytes as u64, member: head.member, sparse })
}

/// The member at `start` and the place of the next; `None` at the end.
fn whole(tar: &[u8], start: usize) -> Result<Option<(Entry, usize)>, SourceError> {
    let Some(head) = head(tar, start)? else { return Ok(None) };
    let (sparse, map_bytes) = map(&head, tar)?;
    let cut_short = || broken(&head.member.path.display(), "is cut short");
    let stored = usize::try_from(head.stored_bytes).map_err(|_| cut_short())?;
    let end = head.end.checked_add(stored).ok_or_else(cut_short)?;
    let next = end.checked_next_multiple_of(BLOCK_BYTES).ok_or_else(cut_short)?;
    if next > tar.len() {
        return Err(cut_short());
    }
    Ok(Some((Entry { data: head.end + map_bytes..end, member: head.member, sparse }, next)))
}

/// The sparse map of a member that says it has one, and how many bytes it takes from the data.
fn map(head: &Head, tar: &[u8]) -> Result<(Option<SparseMap>, usize), SourceError> {
    if !head.sparse {
        return Ok((None, 0));
    }
    let wrong = || broken(&head.member.path.display(), "has a broken map of its holes");
    let (map, length) = SparseMap::from_block(&tar[head.end..], head.member.size_bytes).ok_or_else(wrong)?;
    if (length as u64).checked_add(map.data_bytes()) != Some(head.stored_bytes) {
        return Err(wrong());
    }
    Ok((Some(map), length))
}

struct Head {
    member: Member,
    /// Bytes behind the headers: the map and the data, without padding.
    stored_bytes: u64,
    sparse: bool,
    /// Where the headers end.
    end: usize,
}

/// PAX records and header block; `None` where only zeros follow.
fn head(tar: &[u8], start: usize) -> Result<Option<Head>, SourceError> {
    let at = format!("at byte {start}");
    let mut position = start;
    let mut records = None;
    loop {
        let Some(block) = tar.get(position..position + BLOCK_BYTES) else {
            let ended = position == tar.len() && records.is_none();
            return if ended { Ok(None) } else { Err(broken(&at, "is cut short")) };
        };
        if block.iter().all(|byte| *byte == 0) {
            let ended = records.is_none() && tar[position..].iter().all(|byte| *byte == 0);
            return if ended { Ok(None) } else { Err(broken(&at, "stands behind the end of its tar")) };
        }
        check(block).ok_or_else(|| broken(&at, "has a header with a wrong checksum"))?;
        position += BLOCK_BYTES;
        if block[156] != b'x' {
            let head = fields(block, records.unwrap_or_default(), position);
            return head.map(Some).map_err(|what| broken(&at, what));
        }
        let length = octal(&block[124..136]).and_then(|size| usize::try_from(size).ok());
        let bytes = length.and_then(|length| tar.get(position..position.checked_add(length)?));
        let bytes = bytes.filter(|_| records.is_none()).ok_or_else(|| broken(&at, "has misplaced PAX records"))?;
        records = Some(parse(bytes).ok_or_else(|| broken(&at, "has broken PAX records"))?);
        position = (position + bytes.len()).next_multiple_of(BLOCK_BYTES);
    }
}

/// Whether a block is a ustar header whose checksum holds.
fn check(block: &[u8]) -> Option<()> {
    let sum: u64 =
        block.iter().enumerate().map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte })).sum();
    (octal(&block[148..155])? == sum && &block[257..265] == b"ustar\x0000").then_some(())
}

type Records<'a> = BTreeMap<&'a [u8], &'a [u8]>;

/// `<length> <key>=<value>\n`, again and again; no key twice.
fn parse(mut bytes: &[u8]) -> Option<Records<'_>> {
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
        let length = usize::try_from(number(&bytes[..space])?).ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        if records.insert(&record[..equals], &record[equals + 1..]).is_some() {
            return None;
        }
        bytes = &bytes[length..];
    }
    Some(records)
}

/// Joins the header block and its records. The error says what is wrong.
fn fields(block: &[u8], mut records: Records<'_>, end: usize) -> Result<Head, &'static str> {
    let kind = match block[156] {
        b'0' => MemberKind::File,
        b'1' => MemberKind::Hardlink,
        b'2' => MemberKind::Symlink,
        b'3' => MemberKind::Char,
        b'4' => MemberKind::Block,
        b'5' => MemberKind::Folder,
        b'6' => MemberKind::Fifo,
        _ => return Err("is of an unknown kind"),
    };
    let field = |range: Range<usize>| octal(&block[range]).ok_or("has a header with a broken number");
    let small = |number: u64| u32::try_from(number).map_err(|_| "has a number that is too large");
    let mut numeric = |key: &[u8], range: Range<usize>| match records.remove(key) {
        Some(digits) => number(digits).ok_or("has a PAX record with a broken number"),
        None => field(range),
    };
    let stored_bytes = numeric(b"size", 124..136)?;
    let uid = small(numeric(b"uid", 108..116)?)?;
    let gid = small(numeric(b"gid", 116..124)?)?;
    let mode = small(field(100..108)?)?;
    if mode > 0o7777 {
        return Err("has a mode that is too large");
    }
    let (mtime_seconds, mtime_nanos) = match records.remove(&b"mtime"[..]) {
        Some(text) => decimal(text).ok_or("has a broken time")?,
        None => (field(136..148)?.cast_signed(), 0),
    };

    let (sparse, size_bytes, sparse_name) = sparse_records(&mut records, kind, stored_bytes)?;
    let name = match (sparse_name, records.remove(&b"path"[..])) {
        (Some(name), None) | (None, Some(name)) => name.to_vec(),
        (None, None) => match (text(&block[345..500]), text(&block[..100])) {
            ([], name) => name.to_vec(),
            (prefix, name) => [prefix, b"/", name].concat(),
        },
        (Some(_), Some(_)) => return Err("has two paths"),
    };
    let path = match kind {
        MemberKind::Folder => name.strip_suffix(b"/").ok_or("is a folder without a slash behind its name")?.to_vec(),
        _ => name,
    };
    let link = records.remove(&b"linkpath"[..]).unwrap_or(text(&block[157..257]));
    let link = match kind {
        MemberKind::Symlink | MemberKind::Hardlink if link.is_empty() => return Err("is a link to nothing"),
        MemberKind::Symlink | MemberKind::Hardlink => Some(RawText::from(link)),
        _ => None,
    };
    let device = match kind {
        MemberKind::Char | MemberKind::Block => Some((small(field(329..337)?)?, small(field(337..345)?)?)),
        _ => None,
    };
    if kind != MemberKind::File && stored_bytes != 0 {
        return Err("has data and is not a file");
    }
    let xattrs = attributes(records)?;
    let member = Member {
        path: RawText(path),
        kind,
        size_bytes,
        mode,
        uid,
        gid,
        mtime_seconds,
        mtime_nanos,
        blake3: None,
        link,
        device,
        xattrs,
        flaw: None,
    };
    Ok(Head { member, stored_bytes, sparse, end })
}

/// Whether holes are mapped, the real size, and the real name if the records have it.
fn sparse_records<'a>(
    records: &mut Records<'a>,
    kind: MemberKind,
    stored_bytes: u64,
) -> Result<(bool, u64, Option<&'a [u8]>), &'static str> {
    let mut take = |key: &[u8]| records.remove(key);
    let all =
        (take(b"GNU.sparse.major"), take(b"GNU.sparse.minor"), take(b"GNU.sparse.name"), take(b"GNU.sparse.realsize"));
    match all {
        (None, None, None, None) => Ok((false, stored_bytes, None)),
        (Some(b"1"), Some(b"0"), Some(name), Some(size)) if kind == MemberKind::File => {
            Ok((true, number(size).ok_or("has a PAX record with a broken number")?, Some(name)))
        }
        _ => Err("has holes in an unknown form"),
    }
}

/// What is left of the records must be extended attributes.
fn attributes(records: Records<'_>) -> Result<Vec<(RawText, RawText)>, &'static str> {
    let mut xattrs = Vec::new();
    for (key, value) in records {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            let name = unescape(name).filter(|name| !name.is_empty()).ok_or("has a broken attribute name")?;
            xattrs.push((RawText(name), RawText::from(value)));
        } else if !matches!(key, acl::ACCESS_KEY | acl::DEFAULT_KEY | b"hdrcharset") {
            return Err("has an unknown PAX record");
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.iter();
    while let Some(&byte) = rest.next() {
        out.push(match byte {
            b'%' => match (rest.next()?, rest.next()?) {
                (b'3', b'D') => b'=',
                (b'2', b'5') => b'%',
                _ => return None,
            },
            0 => return None,
            other => other,
        });
    }
    Some(out)
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// Octal digits and one NUL.
fn octal(field: &[u8]) -> Option<u64> {
    let (last, digits) = field.split_last()?;
    if *last != 0 {
        return None;
    }
    digits.iter().try_fold(0, |sum, byte| matches!(byte, b'0'..=b'7').then(|| sum * 8 + u64::from(byte - b'0')))
}

/// Decimal digits.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `-4.75` as whole seconds, rounded down, and nanoseconds after them.
fn decimal(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let point = text.iter().position(|byte| *byte == b'.');
    let whole = number(&text[..point.unwrap_or(text.len())])?;
    let fraction = match point {
        Some(point) if text.len() - point - 1 <= 9 => {
            let digits = &text[point + 1..];
            u32::try_from(number(digits)? * 10_u64.pow(9 - digits.len() as u32)).ok()?
        }
        Some(_) => return None,
        None => 0,
    };
    match (negative, fraction) {
        (false, _) => Some((i64::try_from(whole).ok()?, fraction)),
        (true, 0) => Some((0_i64.checked_sub_unsigned(whole)?, 0)),
        (true, _) => Some(((-1_i64).checked_sub_unsigned(whole)?, 1_000_000_000 - fraction)),
    }
}

fn broken(path: &str, what: &str) -> SourceError {
    SourceError::Unsafe { path: path.to_owned(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::sources::tar::{END, Extent, header, padding};

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[a-zä]{1,12}(/[a-z]{1,90}){0,4}".prop_map(String::into_bytes),
            vec(1_u8..=255, 1..300).prop_map(|mut bytes| {
                // The path of a member never ends in a slash.
                bytes.push(b'x');
                bytes
            }),
        ]
    }

    fn member() -> impl Strategy<Value = (Member, Vec<u8>)> {
        let xattr = (vec(1_u8..=255, 1..20), vec(any::<u8>(), 0..40));
        let times = (any::<i64>(), 0..1_000_000_000_u32);
        (
            name(),
            0..7_u8,
            (0..=0o7777_u32, any::<u32>(), any::<u32>()),
            times,
            name(),
            vec(xattr, 0..3),
            vec(any::<u8>(), 0..2000),
        )
            .prop_map(
                |(path, kind, (mode, uid, gid), (mtime_seconds, mtime_nanos), link, mut xattrs, data)| {
                    let kind = [
                        MemberKind::File,
                        MemberKind::Hardlink,
                        MemberKind::Symlink,
                        MemberKind::Char,
                        MemberKind::Block,
                        MemberKind::Folder,
                        MemberKind::Fifo,
                    ][usize::from(kind)];
                    xattrs.sort();
                    xattrs.dedup_by(|a, b| a.0 == b.0);
                    let data = if kind == MemberKind::File { data } else { Vec::new() };
                    let links = matches!(kind, MemberKind::Symlink | MemberKind::Hardlink);
                    let device = matches!(kind, MemberKind::Char | MemberKind::Block);
                    let member = Member {
                        path: RawText(path),
                        kind,
                        size_bytes: data.len() as u64,
                        mode,
                        uid,
                        gid,
                        mtime_seconds,
                        mtime_nanos,
                        blake3: None,
                        link: links.then_some(RawText(link)),
                        device: device.then_some((uid & 0xfff, gid & 0xfffff)),
                        xattrs: xattrs.into_iter().map(|(name, value)| (RawText(name), RawText(value))).collect(),
                        flaw: None,
                    };
                    (member, data)
                },
            )
    }

    fn tar(members: &[(Member, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (member, data) in members {
            out.extend(header(member, None));
            out.extend(data);
            out.extend(padding(member.size_bytes));
        }
        out.extend(END);
        out
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(members in vec(member(), 0..5)) {
            let tar = tar(&members);
            prop_assert_eq!(tar.len() % BLOCK_BYTES, 0);
            let read: Vec<_> = entries(&tar).map(|entry| {
                let entry = entry.unwrap();
                let data = tar[entry.data].to_vec();
                (entry.member, data)
            }).collect();
            prop_assert_eq!(read, members);
        }

        #[test]
        fn damage_never_panics(
            members in vec(member(), 1..3),
            hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
            repair in any::<bool>(),
        ) {
            let mut tar = tar(&members);
            for (place, byte) in hits {
                let place = place.index(tar.len());
                tar[place] = byte;
            }
            if repair {
                // Get behind the first line of defence: every block gets a checksum that holds.
                for block in tar.chunks_exact_mut(BLOCK_BYTES).filter(|block| &block[257..262] == b"ustar") {
                    block[148..156].fill(b' ');
                    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
                }
            }
            for bytes in [&tar[..], &tar[..cut.index(tar.len())]] {
                for entry in entries(bytes).flatten() {
                    prop_assert!(entry.data.end <= bytes.len());
                }
                let _ = large(bytes);
            }
        }
    }

    #[test]
    fn a_large_file_has_its_head_apart() {
        let mut member = Member {
            path: RawText::from("big"),
            kind: MemberKind::File,
            size_bytes: 9 << 30,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime_seconds: 1,
            mtime_nanos: 0,
            blake3: None,
            link: None,
            device: None,
            xattrs: Vec::new(),
            flaw: None,
        };
        let plain = large(&header(&member, None)).unwrap();
        assert_eq!((plain.data_bytes, plain.sparse, &plain.member), (9 << 30, None, &member));
        let map = SparseMap::new(9 << 30, vec![Extent { offset: 4096, bytes: 5 }]).unwrap();
        let holed = large(&header(&member, Some(&map))).unwrap();
        assert_eq!((holed.data_bytes, holed.sparse.as_ref(), &holed.member), (5, Some(&map), &member));
        assert!(large(&[header(&member, None), vec![0; 512]].concat()).is_err());
        member.kind = MemberKind::Folder;
        member.size_bytes = 0;
        assert!(large(&header(&member, None)).is_err());
        assert!(large(&[]).is_err());
    }
}
