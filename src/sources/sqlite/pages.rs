//! The pages of a SQLite database file: what each byte of a page is for, and which of them hold nothing any more.
//!
//! SQLite does not erase what it deletes: the bytes of a deleted row stay in freeblocks, in the gap before the cells,
//! in overflow pages, in pages on the freelist. A copy of pages must not carry them along, so each page is cleaned
//! here: every byte that the database would not read is set to zero, and every other byte stays in its place. The
//! format is <https://www.sqlite.org/fileformat2.html>; the numbers in brackets below are its sections.
//!
//! Pure functions over bytes. Nothing here knows where a page comes from, or what it is part of: walk.rs finds that.

/// The database file header at the start of page 1 [1.3].
const FILE_HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The byte on whose page locks are taken; that page never holds data [1.4].
const LOCK_BYTE: u64 = 0x4000_0000;
/// SQLite never gives a cell less room than it needs to become a freeblock.
const SMALLEST_CELL_BYTES: usize = 4;
/// SQLite refuses larger payloads.
const MAX_PAYLOAD_BYTES: u64 = i32::MAX as u64;
/// A pointer map has this much for each page that it covers [1.8]: a type and the parent's number.
const POINTER_MAP_ENTRY_BYTES: usize = 5;
/// Types of pointer map entries, from root page to non-root b-tree page.
const POINTER_MAP_TYPES: std::ops::RangeInclusive<u8> = 1..=5;

/// A page that is not what the database says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("page {page} {what}")]
pub(super) struct Malformed {
    /// Its number, from 1.
    pub(super) page: u32,
    /// What is wrong with it.
    pub(super) what: &'static str,
}

fn malformed<T>(page: u32, what: &'static str) -> Result<T, Malformed> {
    Err(Malformed { page, what })
}

/// Whether the file carries pointer maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AutoVacuum {
    Off,
    On,
}

/// What the file header says of the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Bytes a page: a power of two from 512 to 65,536.
    pub(super) page_bytes: usize,
    /// What is left of a page without the bytes reserved for extensions at its end.
    pub(super) usable_bytes: usize,
    /// Pages in the snapshot.
    pub(super) pages: u32,
    /// Whether pointer maps are among them.
    pub(super) auto_vacuum: AutoVacuum,
    /// The first page of the freelist's trunk, or 0.
    pub(super) first_trunk: u32,
}

impl Geometry {
    /// Reads page 1 of a snapshot of `pages` pages.
    pub(super) fn of(page_one: &[u8], pages: u32) -> Result<Self, Malformed> {
        if page_one.get(..16) != Some(MAGIC.as_slice()) || page_one.len() < FILE_HEADER_BYTES {
            return malformed(1, "has no SQLite file header");
        }
        let page_bytes = match u16_at(page_one, 16) {
            1 => 65_536,
            size => usize::from(size),
        };
        if !page_bytes.is_power_of_two() || page_bytes < 512 || page_bytes != page_one.len() {
            return malformed(1, "names a page size that is none");
        }
        let usable_bytes = page_bytes - usize::from(page_one[20]);
        if usable_bytes < 480 {
            return malformed(1, "reserves more of each page than SQLite allows");
        }
        let auto_vacuum = if u32_at(page_one, 52) == 0 { AutoVacuum::Off } else { AutoVacuum::On };
        Ok(Self { page_bytes, usable_bytes, pages, auto_vacuum, first_trunk: u32_at(page_one, 32) })
    }

    /// The page that locks are taken on, whether the file reaches that far or not.
    pub(super) fn lock_page(&self) -> u32 {
        // At most 2^30 / 512 + 1.
        (LOCK_BYTE / self.page_bytes as u64) as u32 + 1
    }

    /// Whether `page` is a pointer map [1.8].
    pub(super) fn is_pointer_map(&self, page: u32) -> bool {
        if self.auto_vacuum == AutoVacuum::Off || page < 2 {
            return false;
        }
        let stride = (self.usable_bytes / POINTER_MAP_ENTRY_BYTES) as u32 + 1;
        let nearest = (page - 2) / stride * stride + 2;
        let map = if nearest == self.lock_page() { nearest + 1 } else { nearest };
        page == map
    }

    /// How many bytes of payload an overflow page holds [1.6].
    pub(super) fn overflow_bytes(&self) -> u32 {
        (self.usable_bytes - 4) as u32
    }
}

/// What a page is, as found by walking from the roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    /// Nothing refers to it.
    Unreachable,
    /// A page of a b-tree.
    Tree(TreeKind, Level),
    /// A page on the freelist that lists others.
    Trunk,
    /// A page on the freelist.
    Free,
    /// An overflow page that is payload to its end.
    Overflow,
    /// The last overflow page of a payload.
    OverflowTail,
    /// A pointer map of an auto-vacuum database.
    PointerMap,
    /// The page with the lock byte.
    Lock,
}

/// The two kinds of b-trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TreeKind {
    /// Rows by rowid.
    Table,
    /// Keys: of indexes, and of tables WITHOUT ROWID.
    Index,
}

/// Where in its b-tree a page stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Leaf,
    Interior,
}

/// A page of a b-tree whose header was found sound.
pub(super) struct TreePage<'a> {
    page: u32,
    bytes: &'a [u8],
    usable_bytes: usize,
    pub(super) kind: TreeKind,
    pub(super) level: Level,
    cells: usize,
    pointers_at: usize,
    right_child: Option<u32>,
}

/// One cell of a b-tree page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    start: usize,
    /// Where its content ends.
    content_end: usize,
    /// Where its room ends: up to three bytes later.
    end: usize,
    child: Option<u32>,
    pub(super) overflow: Option<Overflow>,
}

/// The rest of a payload, on pages of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overflow {
    /// The first of its pages.
    pub(super) first_page: u32,
    /// How much of the payload lies there.
    pub(super) payload_bytes: u32,
}

impl<'a> TreePage<'a> {
    /// Reads the header of page number `page` [1.6].
    pub(super) fn parse(page: u32, bytes: &'a [u8], usable_bytes: usize) -> Result<Self, Malformed> {
        let header_at = if page == 1 { FILE_HEADER_BYTES } else { 0 };
        if usable_bytes > bytes.len() || usable_bytes < header_at + 12 {
            return malformed(page, "is too short");
        }
        let (kind, level) = match bytes[header_at] {
            2 => (TreeKind::Index, Level::Interior),
            5 => (TreeKind::Table, Level::Interior),
            10 => (TreeKind::Index, Level::Leaf),
            13 => (TreeKind::Table, Level::Leaf),
            _ => return malformed(page, "should belong to a b-tree and does not"),
        };
        let (header_bytes, right_child) = match level {
            Level::Leaf => (8, None),
            Level::Interior => (12, Some(u32_at(bytes, header_at + 8))),
        };
        let cells = usize::from(u16_at(bytes, header_at + 3));
        let pointers_at = header_at + header_bytes;
        if pointers_at + 2 * cells > usable_bytes {
            return malformed(page, "claims more cells than it has room for");
        }
        Ok(Self { page, bytes, usable_bytes, kind, level, cells, pointers_at, right_child })
    }

    fn pointers_end(&self) -> usize {
        self.pointers_at + 2 * self.cells
    }

    /// The cells, in key order.
    pub(super) fn cells(&self) -> impl Iterator<Item = Result<Cell, Malformed>> + '_ {
        (0..self.cells).map(|nth| self.cell(usize::from(u16_at(self.bytes, self.pointers_at + 2 * nth))))
    }

    /// The pages below an interior page, in key order.
    pub(super) fn children(&self) -> impl Iterator<Item = Result<u32, Malformed>> + '_ {
        let left = self.cells().filter_map(|cell| cell.map(|cell| cell.child).transpose());
        left.chain(self.right_child.map(Ok))
    }

    fn cell(&self, start: usize) -> Result<Cell, Malformed> {
        if start < self.pointers_end() || start + SMALLEST_CELL_BYTES > self.usable_bytes {
            return malformed(self.page, "has a cell outside its content area");
        }
        let mut at = start;
        let mut child = None;
        if self.level == Level::Interior {
            child = Some(u32_at(self.bytes, at));
            at += 4;
        }
        let mut overflow = None;
        if self.kind == TreeKind::Table && self.level == Level::Interior {
            self.varint(&mut at)?;
        } else {
            let payload_bytes = self.varint(&mut at)?;
            if payload_bytes > MAX_PAYLOAD_BYTES {
                return malformed(self.page, "has a cell larger than SQLite allows");
            }
            if self.kind == TreeKind::Table {
                self.varint(&mut at)?;
            }
            let local_bytes = self.local_bytes(payload_bytes);
            at += local_bytes;
            if (local_bytes as u64) < payload_bytes {
                if at + 4 > self.usable_bytes {
                    return malformed(self.page, "has a cell that runs past its end");
                }
                overflow = Some(Overflow {
                    first_page: u32_at(self.bytes, at),
                    // Not more than MAX_PAYLOAD_BYTES.
                    payload_bytes: (payload_bytes - local_bytes as u64) as u32,
                });
                at += 4;
            }
        }
        let end = at.max(start + SMALLEST_CELL_BYTES);
        if end > self.usable_bytes {
            return malformed(self.page, "has a cell that runs past its end");
        }
        Ok(Cell { start, content_end: at, end, child, overflow })
    }

    /// How much of a payload is kept in the cell itself [1.6, "Cell Payload Overflow Pages"].
    fn local_bytes(&self, payload_bytes: u64) -> usize {
        let usable = self.usable_bytes as u64;
        let most = match self.kind {
            TreeKind::Table => usable - 35,
            TreeKind::Index => (usable - 12) * 64 / 255 - 23,
        };
        let least = (usable - 12) * 32 / 255 - 23;
        let local = if payload_bytes <= most {
            payload_bytes
        } else {
            let surplus = least + (payload_bytes - least) % (usable - 4);
            if surplus <= most { surplus } else { least }
        };
        // Less than a page.
        local as usize
    }

    fn varint(&self, at: &mut usize) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for nth in 0..9 {
            let Some(&byte) = self.bytes[..self.usable_bytes].get(*at) else {
                return malformed(self.page, "has a cell that runs past its end");
            };
            *at += 1;
            if nth == 8 {
                return Ok(value << 8 | u64::from(byte));
            }
            value = value << 7 | u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(value)
    }

    /// Calls `found` with each stretch of the page that is in use after the cell pointers: `(start, content end, end)`
    /// of cells and of the headers of freeblocks.
    fn stretches(&self, found: &mut Vec<Stretch>) -> Result<(), Malformed> {
        for cell in self.cells() {
            let cell = cell?;
            found.push(Stretch { start: cell.start, content_end: cell.content_end, end: cell.end });
        }
        let header_at = self.pointers_at - if self.level == Level::Leaf { 8 } else { 12 };
        let mut block = usize::from(u16_at(self.bytes, header_at + 1));
        let mut lowest = self.pointers_end();
        while block != 0 {
            // Freeblocks stand in ascending order, so that the chain has an end.
            if block < lowest || block + 4 > self.usable_bytes {
                return malformed(self.page, "has a freeblock outside its content area");
            }
            let size = usize::from(u16_at(self.bytes, block + 2));
            if size < 4 || block + size > self.usable_bytes {
                return malformed(self.page, "has a freeblock that runs past its end");
            }
            found.push(Stretch { start: block, content_end: block + 4, end: block + size });
            lowest = block + size;
            block = usize::from(u16_at(self.bytes, block));
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Stretch {
    start: usize,
    content_end: usize,
    end: usize,
}

/// The number of the next trunk page, and those of the pages that this one lists [1.5].
pub(super) fn trunk(page: u32, bytes: &[u8], geometry: &Geometry) -> Result<(u32, Vec<u32>), Malformed> {
    let listed = u32_at(bytes, 4) as usize;
    if listed > geometry.usable_bytes / 4 - 2 {
        return malformed(page, "lists more free pages than it has room for");
    }
    Ok((u32_at(bytes, 0), (0..listed).map(|nth| u32_at(bytes, 8 + 4 * nth)).collect()))
}

/// The number of the overflow page after this one, or 0.
pub(super) fn next_overflow(bytes: &[u8]) -> u32 {
    u32_at(bytes, 0)
}

/// Sets every byte of a page to zero that the database would not read. `tail_bytes` is how much of the payload lies
/// on an [`Class::OverflowTail`]. Bytes reserved for extensions at the end stay.
pub(super) fn clean(
    page: u32,
    bytes: &mut [u8],
    class: Class,
    tail_bytes: u32,
    geometry: &Geometry,
) -> Result<(), Malformed> {
    if bytes.len() != geometry.page_bytes {
        return malformed(page, "is not as long as a page");
    }
    let usable_bytes = geometry.usable_bytes;
    match class {
        Class::Tree(kind, level) => clean_tree(page, bytes, kind, level, usable_bytes),
        Class::Trunk => {
            let (_, listed) = trunk(page, bytes, geometry)?;
            bytes[8 + 4 * listed.len()..usable_bytes].fill(0);
            Ok(())
        }
        // A page that is payload to its end has nothing to clean.
        Class::Overflow => Ok(()),
        Class::OverflowTail => {
            let end = 4 + tail_bytes as usize;
            if end > usable_bytes {
                return malformed(page, "is the end of a payload that is longer than it");
            }
            bytes[end..usable_bytes].fill(0);
            Ok(())
        }
        Class::PointerMap => {
            clean_pointer_map(page, bytes, geometry);
            Ok(())
        }
        Class::Free | Class::Unreachable | Class::Lock => {
            bytes.fill(0);
            Ok(())
        }
    }
}

fn clean_tree(page: u32, bytes: &mut [u8], kind: TreeKind, level: Level, usable_bytes: usize) -> Result<(), Malformed> {
    let mut stretches = Vec::new();
    let tree = TreePage::parse(page, bytes, usable_bytes)?;
    if (tree.kind, tree.level) != (kind, level) {
        return malformed(page, "is at another depth or of another kind than the rest of its b-tree");
    }
    tree.stretches(&mut stretches)?;
    let mut used_to = tree.pointers_end();
    stretches.sort_unstable_by_key(|stretch| stretch.start);
    for Stretch { start, content_end, end } in stretches {
        if start < used_to {
            return malformed(page, "has cells or freeblocks that overlap");
        }
        bytes[used_to..start].fill(0);
        bytes[content_end..end].fill(0);
        used_to = end;
    }
    bytes[used_to..usable_bytes].fill(0);
    Ok(())
}

/// Keeps the entries of pages that exist; where an entry covers no page, old bytes may stand.
fn clean_pointer_map(page: u32, bytes: &mut [u8], geometry: &Geometry) {
    let entries = geometry.usable_bytes / POINTER_MAP_ENTRY_BYTES;
    for nth in 0..entries {
        let covered = u64::from(page) + 1 + nth as u64;
        let entry = &mut bytes[nth * POINTER_MAP_ENTRY_BYTES..][..POINTER_MAP_ENTRY_BYTES];
        let used = covered <= u64::from(geometry.pages)
            && covered != u64::from(geometry.lock_page())
            && POINTER_MAP_TYPES.contains(&entry[0]);
        if !used {
            entry.fill(0);
        }
    }
    bytes[entries * POINTER_MAP_ENTRY_BYTES..geometry.usable_bytes].fill(0);
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn geometry(page_bytes: usize, auto_vacuum: AutoVacuum) -> Geometry {
        Geometry { page_bytes, usable_bytes: page_bytes, pages: 1000, auto_vacuum, first_trunk: 0 }
    }

    /// A table leaf of 512 bytes with two cells, a freeblock between them, a fragment, and rubbish in the gap.
    fn leaf() -> Vec<u8> {
        let mut page = vec![0xEE; 512];
        page[..8].copy_from_slice(&[13, 0x01, 0xE8, 0, 2, 0x01, 0xE0, 2]);
        page[8..12].copy_from_slice(&[0x01, 0xF8, 0x01, 0xE0]);
        // 480: payload of 4 bytes, rowid 7; 6 bytes to 486. 486..488 is a fragment.
        page[480..486].copy_from_slice(&[4, 7, 1, 2, 3, 4]);
        // 488: a freeblock of 16 bytes, the last one.
        page[488..492].copy_from_slice(&[0, 0, 0, 16]);
        // 504: payload of 1 byte, rowid 9: 3 bytes, in room for 4. 508..512 is nothing.
        page[504..507].copy_from_slice(&[1, 9, 0]);
        page
    }

    const LEAF: Class = Class::Tree(TreeKind::Table, Level::Leaf);

    #[test]
    fn only_what_is_read_stays_on_a_leaf() {
        let before = leaf();
        let mut page = before.clone();
        clean(2, &mut page, LEAF, 0, &geometry(512, AutoVacuum::Off)).unwrap();
        let kept = [0..12, 480..486, 488..492, 504..507];
        for at in 0..512 {
            let expected = if kept.iter().any(|range| range.contains(&at)) { before[at] } else { 0 };
            assert_eq!(page[at], expected, "byte {at}");
        }
        let once = page.clone();
        clean(2, &mut page, LEAF, 0, &geometry(512, AutoVacuum::Off)).unwrap();
        assert_eq!(page, once, "cleaning twice is cleaning once");
    }

    #[test]
    fn reserved_bytes_stay() {
        let mut page = leaf();
        page[504..507].fill(0xEE);
        page[4] = 1;
        page[8..10].copy_from_slice(&[0x01, 0xE0]);
        let reserved = Geometry { usable_bytes: 504, ..geometry(512, AutoVacuum::Off) };
        clean(2, &mut page, LEAF, 0, &reserved).unwrap();
        assert_eq!(page[504..], [0xEE; 8]);
        assert_eq!(page[492..504], [0; 12]);
    }

    #[test]
    fn malformed_leaves_are_refused_by_name() {
        let cases: &[(&str, &[(usize, u8)])] = &[
            ("should belong to a b-tree", &[(0, 7)]),
            ("at another depth", &[(0, 10)]),
            ("claims more cells", &[(3, 0xff)]),
            ("cell outside", &[(8, 0), (9, 0)]),
            ("cell outside", &[(8, 0x02)]),
            ("overlap", &[(8, 0x01), (9, 0xE1)]),
            ("runs past", &[(504, 90)]),
            ("freeblock outside", &[(1, 0), (2, 1)]),
            ("freeblock outside", &[(489, 200)]),
            ("freeblock that runs past", &[(490, 1)]),
            ("overlap", &[(491, 20)]),
        ];
        for (expected, changes) in cases {
            let mut page = leaf();
            for &(at, byte) in *changes {
                page[at] = byte;
            }
            let error = clean(77, &mut page, LEAF, 0, &geometry(512, AutoVacuum::Off)).unwrap_err();
            assert!(error.to_string().starts_with("page 77 "), "{error}");
            assert!(error.what.contains(expected), "{changes:?}: {error}");
        }
    }

    #[test]
    fn other_pages_keep_what_they_need() {
        let geometry = geometry(512, AutoVacuum::On);
        let full = vec![0xEE; 512];
        for class in [Class::Free, Class::Unreachable, Class::Lock] {
            let mut page = full.clone();
            clean(9, &mut page, class, 0, &geometry).unwrap();
            assert_eq!(page, vec![0; 512], "{class:?}");
        }
        let mut page = full.clone();
        clean(9, &mut page, Class::OverflowTail, 10, &geometry).unwrap();
        assert_eq!((&page[..14], &page[14..]), (&full[..14], &[0; 498][..]));
        assert!(clean(9, &mut page, Class::OverflowTail, 509, &geometry).is_err());
        let mut page = full.clone();
        clean(9, &mut page, Class::Overflow, 0, &geometry).unwrap();
        assert_eq!(page, full);
        let mut page = full.clone();
        page[4..8].copy_from_slice(&[0, 0, 0, 3]);
        clean(9, &mut page, Class::Trunk, 0, &geometry).unwrap();
        assert_eq!((&page[8..20], &page[20..]), (&full[8..20], &[0; 492][..]));
        page[4..8].copy_from_slice(&[0, 0, 0, 127]);
        assert!(clean(9, &mut page, Class::Trunk, 0, &geometry).is_err());
    }

    #[test]
    fn a_pointer_map_keeps_the_entries_of_pages_that_exist() {
        let geometry = Geometry { pages: 5, ..geometry(512, AutoVacuum::On) };
        let mut page = vec![3; 512];
        page[5] = 0xEE;
        clean(2, &mut page, Class::PointerMap, 0, &geometry).unwrap();
        assert_eq!(page[..5], [3; 5], "page 3");
        assert_eq!(page[5..10], [0; 5], "page 4: a type that is none");
        assert_eq!(page[10..15], [3; 5], "page 5");
        assert_eq!(page[15..], [0; 497], "pages that are not there");
    }

    #[test]
    fn pointer_maps_stand_where_sqlite_puts_them() {
        let small = geometry(512, AutoVacuum::On);
        let maps: Vec<u32> = (1..320).filter(|&page| small.is_pointer_map(page)).collect();
        assert_eq!(maps, [2, 105, 208, 311]);
        assert!(!geometry(512, AutoVacuum::Off).is_pointer_map(2));
        assert_eq!(small.lock_page(), 2_097_153);
        assert_eq!(geometry(65_536, AutoVacuum::On).lock_page(), 16_385);
        // A map that would fall on the lock page stands one later: pages of 1,024 bytes have one each 205.
        let shifted = geometry(1024, AutoVacuum::On);
        let lock = shifted.lock_page();
        assert_eq!(lock, 1_048_577);
        let regular = (lock - 2).is_multiple_of(205);
        assert_eq!(shifted.is_pointer_map(lock + 1), regular);
        assert!(!shifted.is_pointer_map(lock));
    }

    #[test]
    fn payloads_spill_where_the_format_says() {
        let page = leaf();
        let tree = TreePage::parse(2, &page, 512).unwrap();
        // For tables of 512 bytes a page: at most 477 bytes in the cell, at least 39, in steps of 508.
        for (payload, local) in [(0, 0), (477, 477), (478, 478), (1000, 39 + 961 % 508)] {
            assert_eq!(tree.local_bytes(payload), if local <= 477 { local } else { 39 }, "{payload}");
        }
    }

    fn any_class() -> impl Strategy<Value = Class> {
        prop_oneof![
            Just(Class::Unreachable),
            Just(Class::Trunk),
            Just(Class::Free),
            Just(Class::Overflow),
            Just(Class::OverflowTail),
            Just(Class::PointerMap),
            Just(Class::Lock),
            Just(LEAF),
            Just(Class::Tree(TreeKind::Table, Level::Interior)),
            Just(Class::Tree(TreeKind::Index, Level::Leaf)),
            Just(Class::Tree(TreeKind::Index, Level::Interior)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever the bytes are: no panic, nothing is invented (each byte stays or becomes zero), and cleaning
        /// twice is cleaning once.
        #[test]
        fn no_bytes_make_it_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 512),
            class in any_class(),
            page in 1_u32..2000,
            tail_bytes in 0_u32..600,
            cells in 0_u8..60,
            reserved in prop_oneof![Just(0_usize), 1_usize..32],
        ) {
            let geometry = Geometry { usable_bytes: 512 - reserved, ..geometry(512, AutoVacuum::On) };
            let header_at = if page == 1 { 100 } else { 0 };
            if let Class::Tree(kind, level) = class {
                bytes[header_at] = match (kind, level) {
                    (TreeKind::Index, Level::Interior) => 2,
                    (TreeKind::Table, Level::Interior) => 5,
                    (TreeKind::Index, Level::Leaf) => 10,
                    (TreeKind::Table, Level::Leaf) => 13,
                };
                bytes[header_at + 3] = 0;
                bytes[header_at + 4] = cells;
                if cells % 2 == 0 {
                    bytes[header_at + 1] = 0;
                    bytes[header_at + 2] = 0;
                }
                // Cell pointers that stay on the page more often than chance has it.
                for nth in 0..usize::from(cells) {
                    bytes[header_at + 12 + 2 * nth] %= 2;
                }
            }
            let before = bytes.clone();
            if clean(page, &mut bytes, class, tail_bytes, &geometry).is_ok() {
                for (new, old) in bytes.iter().zip(&before) {
                    prop_assert!(*new == *old || *new == 0);
                }
                let once = bytes.clone();
                prop_assert!(clean(page, &mut bytes, class, tail_bytes, &geometry).is_ok());
                prop_assert_eq!(bytes, once);
            }
        }
    }
}
