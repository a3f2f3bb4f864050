//! Where the data of a file with holes lies, and GNU's way (format 1.0) of saying so in a tar.
//!
//! The map is text in front of the data, padded to whole blocks: the number of entries, then offset and length of
//! each, one number a line. A file that ends in a hole has a last entry of length 0 at its size.

use super::BLOCK_BYTES;

/// A map has at most this many extents; what lies behind the last of them is stored as data, holes and all. Keeps
/// the header of a file in shreds within one segment.
pub const MAX_EXTENTS: usize = 65_536;

/// A run of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file.
    pub offset: u64,
    /// How long; never 0.
    pub bytes: u64,
}

/// The data of a file with holes: extents in order, apart from each other, within the size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseMap {
    size_bytes: u64,
    extents: Vec<Extent>,
}

impl SparseMap {
    /// A map, if the extents are in order, not empty, not overlapping, within the size, and not too many.
    #[must_use]
    pub fn new(size_bytes: u64, extents: Vec<Extent>) -> Option<Self> {
        let mut end = 0;
        for extent in &extents {
            if extent.bytes == 0 || extent.offset < end {
                return None;
            }
            end = extent.offset.checked_add(extent.bytes)?;
        }
        (end <= size_bytes && extents.len() <= MAX_EXTENTS).then_some(Self { size_bytes, extents })
    }

    /// The size of the file, holes included.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The runs of data.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The bytes of data, all runs together, without the map.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.bytes).sum()
    }

    /// The map as it stands in front of the data: whole blocks.
    #[must_use]
    pub fn to_block(&self) -> Vec<u8> {
        use std::fmt::Write;
        let ends_in_hole = self.extents.last().is_none_or(|last| last.offset + last.bytes < self.size_bytes);
        let mut text = format!("{}\n", self.extents.len() + usize::from(ends_in_hole));
        let end = ends_in_hole.then_some(Extent { offset: self.size_bytes, bytes: 0 });
        for extent in self.extents.iter().copied().chain(end) {
            // Writing into a String has no way to fail.
            let _ = write!(text, "{}\n{}\n", extent.offset, extent.bytes);
        }
        let mut block = text.into_bytes();
        block.resize(block.len().next_multiple_of(BLOCK_BYTES), 0);
        block
    }

    /// Reads a map from the front of `data`; gives it with the length of its blocks. `None` where there is none.
    #[must_use]
    pub fn from_block(data: &[u8], size_bytes: u64) -> Option<(Self, usize)> {
        let mut position = 0;
        let mut number = || {
            let rest = data.get(position..)?;
            let length = rest.iter().take(21).position(|byte| *byte == b'\n')?;
            let digits = &rest[..length];
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            position += length + 1;
            std::str::from_utf8(digits).ok()?.parse::<u64>().ok()
        };
        let count = usize::try_from(number()?).ok().filter(|count| *count <= MAX_EXTENTS + 1)?;
        let mut extents = Vec::new();
        for _ in 0..count {
            let extent = Extent { offset: number()?, bytes: number()? };
            if extent.bytes > 0 {
                extents.push(extent);
            } else if extent.offset != size_bytes {
                return None;
            }
        }
        let length = position.next_multiple_of(BLOCK_BYTES);
        if data.len() < length {
            return None;
        }
        Some((Self::new(size_bytes, extents)?, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_survives_its_block() {
        let extents =
            |list: &[(u64, u64)]| list.iter().map(|&(offset, bytes)| Extent { offset, bytes }).collect::<Vec<_>>();
        for (size, list) in [(0, &[][..]), (9 << 30, &[]), (10, &[(0, 10)]), (1 << 40, &[(4096, 8192), (1 << 39, 1)])] {
            let map = SparseMap::new(size, extents(list)).unwrap();
            let mut block = map.to_block();
            assert_eq!(block.len() % BLOCK_BYTES, 0);
            let length = block.len();
            block.extend(b"data");
            assert_eq!(SparseMap::from_block(&block, size), Some((map, length)));
        }
        for (size, list) in [(5, &[(0, 6)][..]), (9, &[(4, 2), (5, 1)]), (9, &[(4, 0)]), (9, &[(4, u64::MAX)])] {
            assert_eq!(SparseMap::new(size, extents(list)), None, "{list:?}");
        }
        assert_eq!(SparseMap::from_block(b"1\n0\n", 9), None);
        assert_eq!(SparseMap::from_block(b"99999999999999999999\n", 9), None);
    }
}
