//! From a member to the header bytes in front of its data: PAX records only where the old header has no room, no
//! atime, no ctime, no names of users, nothing that depends on the moment or the neighbours.

use crate::domain::contents::{Member, MemberKind, RawText};

use super::sparse::SparseMap;
use super::{BLOCK_BYTES, acl};

/// The two empty blocks that end a tar.
pub const END: [u8; 1024] = [0; 1024];

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
/// The largest size that eleven octal digits hold: one byte short of 8 GiB.
const MAX_OCTAL_SIZE: u64 = (1 << 33) - 1;
/// The largest id that seven octal digits hold.
const MAX_OCTAL_ID: u32 = (1 << 21) - 1;

/// Everything that stands in front of a member's data: PAX records where needed, the header block and, for a file
/// with holes, the sparse map. Whole blocks. After it come the file's bytes (with a map: those of its extents, one
/// after the other) and [`padding`]; members of other kinds have no data.
///
/// A map whose size is not the member's, or one for anything but a regular file, is a broken invariant.
#[must_use]
pub fn header(member: &Member, sparse: Option<&SparseMap>) -> Vec<u8> {
    let map = sparse.map(|sparse| {
        assert!(member.kind == MemberKind::File && sparse.size_bytes() == member.size_bytes, "a map of this very file");
        sparse.to_block()
    });
    let stored_bytes = match (member.kind, sparse, &map) {
        (MemberKind::File, Some(sparse), Some(map)) => map.len() as u64 + sparse.data_bytes(),
        (MemberKind::File, _, _) => member.size_bytes,
        _ => 0,
    };
    let mut path = member.path.0.clone();
    if member.kind == MemberKind::Folder {
        path.push(b'/');
    }
    let link = member.link.as_ref().map_or(&[][..], |link| &link.0);
    let (records, name, prefix) = records(member, sparse.is_some(), &path, link, stored_bytes);

    let mut out = Vec::with_capacity(3 * BLOCK_BYTES + records.len() + map.as_ref().map_or(0, Vec::len));
    if !records.is_empty() {
        out.extend(block(&Block {
            name: b"PaxHeaders",
            mode: 0o644,
            size: records.len() as u64,
            kind: b'x',
            ..Block::default()
        }));
        out.extend(&records);
        out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    out.extend(block(&Block {
        name,
        prefix,
        mode: member.mode & 0o7777,
        uid: if member.uid <= MAX_OCTAL_ID { member.uid } else { 0 },
        gid: if member.gid <= MAX_OCTAL_ID { member.gid } else { 0 },
        size: if stored_bytes <= MAX_OCTAL_SIZE { stored_bytes } else { 0 },
        // The old header cannot hold a time before 1970 or after 2242; the record beside it does.
        mtime: u64::try_from(member.mtime_seconds).unwrap_or(0).min(MAX_OCTAL_SIZE),
        kind: match member.kind {
            MemberKind::File => b'0',
            MemberKind::Hardlink => b'1',
            MemberKind::Symlink => b'2',
            MemberKind::Char => b'3',
            MemberKind::Block => b'4',
            MemberKind::Folder => b'5',
            MemberKind::Fifo => b'6',
        },
        link: &link[..link.len().min(NAME_BYTES)],
        device: member.device.unwrap_or((0, 0)),
    }));
    out.extend(map.unwrap_or_default());
    out
}

/// The zeros between the last of `size_bytes` bytes of data and the next member.
#[must_use]
pub fn padding(size_bytes: u64) -> &'static [u8] {
    static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    // A remainder of 512 fits any integer.
    let beyond = (size_bytes % BLOCK_BYTES as u64) as usize;
    if beyond == 0 { &[] } else { &ZEROS[beyond..] }
}

/// The PAX records of a member, in a fixed order, and the name and prefix for its header block.
fn records<'a>(
    member: &Member,
    sparse: bool,
    path: &'a [u8],
    link: &[u8],
    stored_bytes: u64,
) -> (Vec<u8>, &'a [u8], &'a [u8]) {
    let mut out = Vec::new();
    let binary = |bytes: &[u8]| std::str::from_utf8(bytes).is_err();
    if binary(path) || binary(link) {
        record(&mut out, b"hdrcharset", b"BINARY");
    }
    let (name, prefix) = match split(path) {
        Some(split) if !sparse => split,
        fitting => {
            if sparse {
                record(&mut out, b"GNU.sparse.major", b"1");
                record(&mut out, b"GNU.sparse.minor", b"0");
                record(&mut out, b"GNU.sparse.name", path);
                record(&mut out, b"GNU.sparse.realsize", member.size_bytes.to_string().as_bytes());
            } else {
                record(&mut out, b"path", path);
            }
            fitting.unwrap_or((&path[..path.len().min(NAME_BYTES)], &[]))
        }
    };
    if link.len() > NAME_BYTES || !link.is_ascii() {
        record(&mut out, b"linkpath", link);
    }
    if stored_bytes > MAX_OCTAL_SIZE {
        record(&mut out, b"size", stored_bytes.to_string().as_bytes());
    }
    if member.mtime_nanos != 0 || !u64::try_from(member.mtime_seconds).is_ok_and(|whole| whole <= MAX_OCTAL_SIZE) {
        record(&mut out, b"mtime", decimal(member.mtime_seconds, member.mtime_nanos).as_bytes());
    }
    if member.uid > MAX_OCTAL_ID {
        record(&mut out, b"uid", member.uid.to_string().as_bytes());
    }
    if member.gid > MAX_OCTAL_ID {
        record(&mut out, b"gid", member.gid.to_string().as_bytes());
    }
    for (name, value) in &member.xattrs {
        attribute(&mut out, name, value);
    }
    (out, name, prefix)
}

/// One extended attribute; an ACL a second time as text.
fn attribute(out: &mut Vec<u8>, name: &RawText, value: &RawText) {
    let mut key = b"SCHILY.xattr.".to_vec();
    for &byte in &name.0 {
        // As GNU tar does it: `=` ends a record's key.
        match byte {
            b'=' => key.extend(b"%3D"),
            b'%' => key.extend(b"%25"),
            other => key.push(other),
        }
    }
    record(out, &key, &value.0);
    let text_key = match name.0.as_slice() {
        acl::ACCESS => acl::ACCESS_KEY,
        acl::DEFAULT => acl::DEFAULT_KEY,
        _ => return,
    };
    if let Some(text) = acl::text(&value.0) {
        record(out, text_key, text.as_bytes());
    }
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend(length.to_string().as_bytes());
    out.push(b' ');
    out.extend(key);
    out.push(b'=');
    out.extend(value);
    out.push(b'\n');
}

/// A path as name and prefix of the old header, if it fits there and is ASCII (what else the header would mean is
/// the reader's guess).
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= NAME_BYTES {
        return Some((path, &[]));
    }
    // The slash that is not stored: as far right as the prefix allows, but not the one that ends a folder's name.
    let last = path[..path.len() - 1].iter().take(PREFIX_BYTES + 1).rposition(|byte| *byte == b'/')?;
    let (prefix, name) = (&path[..last], &path[last + 1..]);
    (!prefix.is_empty() && name.len() <= NAME_BYTES).then_some((name, prefix))
}

/// Seconds since 1970 as a decimal: -4.75 for five seconds before, and a quarter after that.
fn decimal(seconds: i64, nanos: u32) -> String {
    if nanos == 0 {
        return seconds.to_string();
    }
    let (sign, whole, fraction) = if seconds < 0 {
        ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos)
    } else {
        ("", seconds.unsigned_abs(), nanos)
    };
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').to_owned()
}

#[derive(Default)]
struct Block<'a> {
    name: &'a [u8],
    prefix: &'a [u8],
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: u64,
    kind: u8,
    link: &'a [u8],
    device: (u32, u32),
}

/// A ustar header block with its checksum.
fn block(fields: &Block<'_>) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[..fields.name.len()].copy_from_slice(fields.name);
    octal(&mut block[100..108], u64::from(fields.mode));
    octal(&mut block[108..116], u64::from(fields.uid));
    octal(&mut block[116..124], u64::from(fields.gid));
    octal(&mut block[124..136], fields.size);
    octal(&mut block[136..148], fields.mtime);
    block[156] = fields.kind;
    block[157..157 + fields.link.len()].copy_from_slice(fields.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], u64::from(fields.device.0));
    octal(&mut block[337..345], u64::from(fields.device.1));
    block[345..345 + fields.prefix.len()].copy_from_slice(fields.prefix);
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

/// A number in octal digits that fill the field but for its last byte, a NUL.
fn octal(field: &mut [u8], mut number: u64) {
    let digits = field.len() - 1;
    for place in field[..digits].iter_mut().rev() {
        *place = b'0' + (number & 7) as u8;
        number >>= 3;
    }
    field[digits] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_backwards() {
        for (seconds, nanos, text) in [
            (0, 0, "0"),
            (-1, 0, "-1"),
            (-5, 250_000_000, "-4.75"),
            (-1, 999_999_999, "-0.000000001"),
            (7, 1, "7.000000001"),
            (7, 500_000_000, "7.5"),
        ] {
            assert_eq!(decimal(seconds, nanos), text);
        }
    }

    #[test]
    fn a_record_counts_its_own_length() {
        let mut out = Vec::new();
        record(&mut out, b"a", b"12345");
        assert_eq!(out, b"11 a=12345\n");
        for length in 0..1100 {
            let mut out = Vec::new();
            record(&mut out, b"path", &vec![b'x'; length]);
            let digits = out.iter().position(|byte| *byte == b' ').unwrap();
            assert_eq!(std::str::from_utf8(&out[..digits]).unwrap().parse::<usize>().unwrap(), out.len());
        }
    }

    #[test]
    fn long_ascii_paths_use_the_prefix() {
        let long = [vec![b'd'; 120], b"/".to_vec(), vec![b'f'; 90]].concat();
        assert_eq!(split(&long), Some((&long[121..], &long[..120])));
        assert_eq!(split(&[b'x'; 101]), None);
        assert_eq!(split("ä".as_bytes()), None);
        let folder = [vec![b'd'; 120], b"/".to_vec()].concat();
        assert_eq!(split(&folder), None);
    }
}
