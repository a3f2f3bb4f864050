//! What every page of a SQLite database is: found by walking the freelist, every b-tree from its root, and the chains
//! of overflow pages. A page's own bytes cannot say it: a free page still looks like the table that it was.
//!
//! Only interior pages are fetched one by one: all leaves of a b-tree have the same depth, so that their parents know
//! them. Where some pages are still unknown after that (overflow pages, as a rule), one sweep in page order reads the
//! leaves for the heads of chains and the unknown pages for their links. Memory: five bytes a page, four bytes for
//! each leaf of the largest b-tree, twelve for each row with overflow.
//!
//! Knows nothing of connections: pages come from a [`Pages`].

use super::Trouble;
use super::pages::{self, Class, Geometry, Level, Malformed, Overflow, TreeKind, TreePage};

/// SQLite's own bound (BTCURSOR_MAX_DEPTH).
const MAX_DEPTH: usize = 20;

/// What takes a page: its number and its bytes.
pub(super) type TakePage<'a> = dyn FnMut(u32, &mut [u8]) -> Result<(), Trouble> + 'a;

/// Pages of one snapshot.
pub(super) trait Pages {
    /// Calls `each` with the number and the bytes of every page asked for, in that order.
    fn read(&mut self, numbers: &mut dyn Iterator<Item = u32>, each: &mut TakePage<'_>) -> Result<(), Trouble>;
}

/// The class of every page.
pub(super) struct PageMap {
    classes: Vec<Class>,
    /// Of an overflow page first the page after it, then, of a chain's last one, how much payload it holds.
    links: Vec<u32>,
}

impl PageMap {
    /// What `page` is.
    pub(super) fn class(&self, page: u32) -> Class {
        self.classes[page as usize]
    }

    /// How much payload an [`Class::OverflowTail`] holds.
    pub(super) fn tail_bytes(&self, page: u32) -> u32 {
        self.links[page as usize]
    }

    /// The pages that nothing refers to.
    pub(super) fn unreachable(&self) -> impl Iterator<Item = u32> + '_ {
        let numbered = self.classes.iter().zip(0_u32..).skip(1);
        numbered.filter(|(class, _)| **class == Class::Unreachable).map(|(_, page)| page)
    }

    /// Marks a page that `by` refers to; each page belongs to one thing only.
    fn claim(&mut self, page: u32, class: Class, by: u32) -> Result<(), Malformed> {
        match self.classes.get_mut(page as usize) {
            Some(slot) if page > 0 && *slot == Class::Unreachable => {
                *slot = class;
                Ok(())
            }
            Some(_) if page > 0 => Err(Malformed { page: by, what: "refers to a page that belongs to something else" }),
            _ => Err(Malformed { page: by, what: "refers to a page that does not exist" }),
        }
    }
}

/// A payload that goes on at `overflow`, whose cell stands on page `owner`.
struct Chain {
    owner: u32,
    overflow: Overflow,
}

/// Walks everything. `roots` are the root pages of sqlite_schema; page 1 is its own root.
pub(super) fn walk(geometry: &Geometry, roots: &[u32], pages: &mut dyn Pages) -> Result<PageMap, Trouble> {
    let slots = geometry.pages as usize + 1;
    let mut map = PageMap { classes: vec![Class::Unreachable; slots], links: vec![0; slots] };
    if geometry.lock_page() <= geometry.pages {
        map.claim(geometry.lock_page(), Class::Lock, 1)?;
    }
    for page in (2..=geometry.pages).filter(|&page| geometry.is_pointer_map(page)) {
        map.claim(page, Class::PointerMap, 1)?;
    }
    walk_freelist(geometry, &mut map, pages)?;
    let mut chains = Vec::new();
    for &root in std::iter::once(&1).chain(roots) {
        walk_tree(geometry, root, &mut map, &mut chains, pages)?;
    }
    if map.unreachable().next().is_some() {
        sweep(geometry, &mut map, &mut chains, pages)?;
        for chain in &chains {
            follow(geometry, chain, &mut map)?;
        }
    } else if let Some(chain) = chains.first() {
        // No page is left that the chain could stand on.
        map.claim(chain.overflow.first_page, Class::Overflow, chain.owner)?;
    }
    Ok(map)
}

fn walk_freelist(geometry: &Geometry, map: &mut PageMap, pages: &mut dyn Pages) -> Result<(), Trouble> {
    let (mut trunk, mut by) = (geometry.first_trunk, 1);
    while trunk != 0 {
        map.claim(trunk, Class::Trunk, by)?;
        by = trunk;
        pages.read(&mut std::iter::once(trunk), &mut |page, bytes| {
            let (next, listed) = pages::trunk(page, bytes, geometry)?;
            for free in listed {
                map.claim(free, Class::Free, page)?;
            }
            trunk = next;
            Ok(())
        })?;
    }
    Ok(())
}

fn walk_tree(
    geometry: &Geometry,
    root: u32,
    map: &mut PageMap,
    chains: &mut Vec<Chain>,
    pages: &mut dyn Pages,
) -> Result<(), Trouble> {
    let mut kind = None;
    // The pages of one depth: the first of them tells whether they all are leaves.
    let mut depth = vec![root];
    let mut parent = 1;
    for _ in 0..MAX_DEPTH {
        let Some(&first) = depth.first() else { return Ok(()) };
        let mut level = Level::Leaf;
        if first == 0 || first > geometry.pages {
            return Err(Malformed { page: parent, what: "refers to a page that does not exist" }.into());
        }
        pages.read(&mut std::iter::once(first), &mut |page, bytes| {
            let tree = TreePage::parse(page, bytes, geometry.usable_bytes)?;
            level = tree.level;
            if *kind.get_or_insert(tree.kind) != tree.kind {
                return Err(Malformed { page, what: "is of another kind than the rest of its b-tree" }.into());
            }
            Ok(())
        })?;
        // Set by the page just read.
        let kind = kind.unwrap_or(TreeKind::Table);
        for &page in &depth {
            map.claim(page, Class::Tree(kind, level), parent)?;
        }
        if level == Level::Leaf {
            return Ok(());
        }
        parent = first;
        let mut below = Vec::new();
        pages.read(&mut depth.into_iter(), &mut |page, bytes| {
            let tree = TreePage::parse(page, bytes, geometry.usable_bytes)?;
            if (tree.kind, tree.level) != (kind, Level::Interior) {
                return Err(Malformed { page, what: "is at another depth than the rest of its b-tree" }.into());
            }
            for child in tree.children() {
                below.push(child?);
            }
            note_chains(page, &tree, chains)?;
            // More children than pages: some stand twice. Stop before they fill the memory.
            if below.len() > geometry.pages as usize {
                return Err(Malformed { page, what: "refers to a page that belongs to something else" }.into());
            }
            Ok(())
        })?;
        depth = below;
    }
    Err(Malformed { page: root, what: "is the root of a b-tree that is too deep" }.into())
}

fn note_chains(page: u32, tree: &TreePage<'_>, chains: &mut Vec<Chain>) -> Result<(), Malformed> {
    for cell in tree.cells() {
        if let Some(overflow) = cell?.overflow {
            chains.push(Chain { owner: page, overflow });
        }
    }
    Ok(())
}

/// Reads the leaves for the heads of chains, and the unknown pages for their links.
fn sweep(
    geometry: &Geometry,
    map: &mut PageMap,
    chains: &mut Vec<Chain>,
    pages: &mut dyn Pages,
) -> Result<(), Trouble> {
    let PageMap { classes, links } = map;
    let wanted = |page: &u32| matches!(classes[*page as usize], Class::Unreachable | Class::Tree(_, Level::Leaf));
    pages.read(&mut (1..=geometry.pages).filter(wanted), &mut |page, bytes| {
        if classes[page as usize] == Class::Unreachable {
            links[page as usize] = pages::next_overflow(bytes);
            return Ok(());
        }
        let tree = TreePage::parse(page, bytes, geometry.usable_bytes)?;
        note_chains(page, &tree, chains)?;
        if chains.len() > geometry.pages as usize {
            return Err(Malformed { page, what: "refers to a page that belongs to something else" }.into());
        }
        Ok(())
    })
}

fn follow(geometry: &Geometry, chain: &Chain, map: &mut PageMap) -> Result<(), Malformed> {
    let full = geometry.overflow_bytes();
    let (mut page, mut left, mut by) = (chain.overflow.first_page, chain.overflow.payload_bytes, chain.owner);
    while left > full {
        map.claim(page, Class::Overflow, by)?;
        left -= full;
        by = page;
        page = map.links[page as usize];
    }
    map.claim(page, Class::OverflowTail, by)?;
    map.links[page as usize] = left;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pages::AutoVacuum;
    use super::*;

    struct Image {
        bytes: Vec<u8>,
        reads: usize,
    }

    impl Pages for Image {
        fn read(&mut self, numbers: &mut dyn Iterator<Item = u32>, each: &mut TakePage<'_>) -> Result<(), Trouble> {
            for page in numbers {
                self.reads += 1;
                each(page, &mut self.bytes[(page as usize - 1) * 512..][..512])?;
            }
            Ok(())
        }
    }

    fn geometry(pages: u32, first_trunk: u32) -> Geometry {
        Geometry { page_bytes: 512, usable_bytes: 512, pages, auto_vacuum: AutoVacuum::Off, first_trunk }
    }

    /// Page 1: an empty schema. Page 2: a leaf with a cell of 1,000 bytes, whose overflow is on 4 (to its end) and 3.
    /// Page 5: a trunk that lists 6. Page 7: nobody's.
    fn image() -> Image {
        let mut bytes = vec![0; 7 * 512];
        bytes[100] = 13;
        let leaf = &mut bytes[512..1024];
        // 1,000 bytes of payload: 39 + (1000 - 39) % 508 = 492 > 477, so 39 are in the cell and 961 are not.
        leaf[..10].copy_from_slice(&[13, 0, 0, 0, 1, 1, 0xD1, 0, 1, 0xD1]);
        leaf[0x1D1..0x1D4].copy_from_slice(&[0x87, 0x68, 1]);
        leaf[0x1D1 + 3 + 39..].copy_from_slice(&[0, 0, 0, 4, 0][..4 + (512 - 0x1D1 - 46)]);
        bytes[3 * 512 + 3] = 3;
        bytes[4 * 512 + 7] = 1;
        bytes[4 * 512 + 11] = 6;
        Image { bytes, reads: 0 }
    }

    #[test]
    fn everything_is_found() {
        let map = walk(&geometry(7, 5), &[2], &mut image()).unwrap();
        let leaf = Class::Tree(TreeKind::Table, Level::Leaf);
        let expected =
            [leaf, leaf, Class::OverflowTail, Class::Overflow, Class::Trunk, Class::Free, Class::Unreachable];
        let found: Vec<Class> = (1..=7).map(|page| map.class(page)).collect();
        assert_eq!(found, expected);
        assert_eq!(map.tail_bytes(3), 961 - 508);
        assert_eq!(map.unreachable().collect::<Vec<_>>(), [7]);
    }

    /// What is said, the root, the first trunk page, and bytes to change.
    type Case = (&'static str, u32, u32, &'static [(usize, u8)]);

    #[test]
    fn circles_and_strangers_are_refused() {
        let cases: &[Case] = &[
            ("page 1 refers to a page that belongs", 2, 5, &[]),
            ("page 1 refers to a page that does not exist", 9, 5, &[]),
            ("page 1 refers to a page that does not exist", 2, 99, &[]),
            ("page 5 refers to a page that belongs", 2, 5, &[(4 * 512 + 3, 5)]),
            ("page 5 refers to a page that does not exist", 2, 5, &[(4 * 512 + 11, 60)]),
            ("page 4 refers to a page that belongs", 2, 5, &[(3 * 512 + 3, 4)]),
            ("page 4 refers to a page that does not exist", 2, 5, &[(3 * 512 + 3, 0)]),
        ];
        for (nth, &(expected, root, trunk, changes)) in cases.iter().enumerate() {
            let mut image = image();
            for &(at, byte) in changes {
                image.bytes[at] = byte;
            }
            let roots = if nth == 0 { vec![2, 2] } else { vec![root] };
            let error = walk(&geometry(7, trunk), &roots, &mut image).err().unwrap();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }

    #[test]
    fn without_unknown_pages_no_leaf_is_swept() {
        let mut image = image();
        image.bytes.truncate(1024);
        image.bytes[512 + 4] = 0;
        walk(&geometry(2, 0), &[2], &mut image).unwrap();
        assert_eq!(image.reads, 2, "one look at each root");
    }

    proptest! {
        /// Whatever a file holds, the walk ends, without a panic.
        #[test]
        fn the_walk_ends(
            changes in proptest::collection::vec((0_usize..7 * 512, any::<u8>()), 0..40),
            roots in proptest::collection::vec(0_u32..9, 0..4),
            trunk in 0_u32..9,
        ) {
            let mut image = image();
            for (at, byte) in changes {
                image.bytes[at] = byte;
            }
            let _ = walk(&geometry(7, trunk), &roots, &mut image);
        }

        #[test]
        fn small_numbers_make_many_cross_references(
            bytes in proptest::collection::vec(prop_oneof![0_u8..14, Just(1_u8), Just(13), Just(5)], 7 * 512),
            trunk in 0_u32..9,
        ) {
            let mut image = Image { bytes, reads: 0 };
            let _ = walk(&geometry(7, trunk), &[2, 3], &mut image);
        }
    }
}
