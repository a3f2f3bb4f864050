//! Where a piece's bytes are cut into segments: nowhere, every so many bytes, or by content.
//!
//! Cutting by content is FastCDC with normalised chunking (Xia et al., USENIX ATC 2016). Its table is derived from
//! the host's secret: with the stock table, the lengths of the cuts of a known file would be its fingerprint.

use crate::domain::segment::MAX_FILE_SEGMENT_BYTES;

/// No cut before this.
const MIN_BYTES: usize = 256 * 1024;
/// Cuts get likelier from here on.
const NORMAL_BYTES: usize = 1024 * 1024;
/// A cut here at the latest.
const MAX_BYTES: usize = MAX_FILE_SEGMENT_BYTES;
/// Before [`NORMAL_BYTES`]: 22 bits, a cut every 4 MiB; after it 18 bits, one every 256 KiB.
const STRICT_MASK: u64 = mask(22);
const LOOSE_MASK: u64 = mask(18);

/// The top `bits` bits: the gear hash's best mixed ones, as they have seen the most bytes.
const fn mask(bits: u32) -> u64 {
    !0 << (64 - bits)
}

/// 256 random words, one for each byte value.
#[derive(Clone)]
pub struct GearTable(Box<[u64; 256]>);

impl GearTable {
    /// Expands a key.
    #[must_use]
    pub fn derived(key: &[u8; 32]) -> Self {
        let mut bytes = [0; 256 * 8];
        blake3::Hasher::new_keyed(key).update(b"gear").finalize_xof().fill(&mut bytes);
        let mut words = Box::new([0; 256]);
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        Self(words)
    }
}

impl std::fmt::Debug for GearTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GearTable(..)")
    }
}

/// How a [`Cutter`] cuts by itself.
#[derive(Debug)]
enum Rule {
    Never,
    Every(usize),
    Content { gear: GearTable, hash: u64, scanned: usize },
}

/// Collects bytes and hands them out as segments.
#[derive(Debug)]
pub struct Cutter {
    rule: Rule,
    buffer: Vec<u8>,
}

impl Cutter {
    /// Cuts only where [`Cutter::flush`] is called. The caller keeps its pieces small.
    #[must_use]
    pub fn never() -> Self {
        Self { rule: Rule::Never, buffer: Vec::new() }
    }

    /// Cuts every `bytes` bytes since the last boundary.
    #[must_use]
    pub fn every(bytes: u32) -> Self {
        Self { rule: Rule::Every((bytes as usize).max(1)), buffer: Vec::new() }
    }

    /// Cuts by content.
    #[must_use]
    pub fn content(gear: GearTable) -> Self {
        Self { rule: Rule::Content { gear, hash: 0, scanned: 0 }, buffer: Vec::new() }
    }

    /// Takes bytes; calls `emit` with each segment that is complete.
    ///
    /// # Errors
    /// Whatever `emit` returns.
    pub fn push<E>(&mut self, mut bytes: &[u8], emit: &mut dyn FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        while !bytes.is_empty() {
            let taken = match &self.rule {
                Rule::Never => bytes.len(),
                Rule::Every(size) => bytes.len().min(size - self.buffer.len()),
                Rule::Content { .. } => bytes.len().min(MAX_BYTES - self.buffer.len()),
            };
            self.buffer.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            while let Some(end) = self.next_cut() {
                let rest = self.buffer.split_off(end);
                let segment = std::mem::replace(&mut self.buffer, rest);
                emit(segment)?;
            }
        }
        Ok(())
    }

    /// Ends the current segment, if it has any bytes.
    ///
    /// # Errors
    /// Whatever `emit` returns.
    pub fn flush<E>(&mut self, emit: &mut dyn FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        if let Rule::Content { hash, scanned, .. } = &mut self.rule {
            (*hash, *scanned) = (0, 0);
        }
        if self.buffer.is_empty() { Ok(()) } else { emit(std::mem::take(&mut self.buffer)) }
    }

    /// The end of the first complete segment in the buffer.
    fn next_cut(&mut self) -> Option<usize> {
        let filled = self.buffer.len();
        match &mut self.rule {
            Rule::Never => None,
            Rule::Every(size) => (filled >= *size).then_some(*size),
            Rule::Content { gear, hash, scanned } => {
                let mut position = (*scanned).max(MIN_BYTES);
                let mut rolling = *hash;
                let mut found = None;
                for (limit, mask) in [(NORMAL_BYTES, STRICT_MASK), (MAX_BYTES, LOOSE_MASK)] {
                    let limit = limit.min(filled);
                    while position < limit {
                        rolling = (rolling << 1).wrapping_add(gear.0[usize::from(self.buffer[position])]);
                        position += 1;
                        if rolling & mask == 0 {
                            found = Some(position);
                            break;
                        }
                    }
                    if found.is_some() {
                        break;
                    }
                }
                if found.is_none() && filled >= MAX_BYTES {
                    found = Some(MAX_BYTES);
                }
                (*hash, *scanned) = if found.is_some() { (0, 0) } else { (rolling, position) };
                found
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn noise(bytes: usize, seed: u8) -> Vec<u8> {
        let mut out = vec![0; bytes];
        blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut out);
        out
    }

    fn cut(mut cutter: Cutter, data: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut segments = Vec::new();
        let mut emit = |segment: Vec<u8>| -> Result<(), Infallible> {
            segments.push(segment);
            Ok(())
        };
        for chunk in data.chunks(step) {
            let Ok(()) = cutter.push(chunk, &mut emit);
        }
        let Ok(()) = cutter.flush(&mut emit);
        segments
    }

    fn gear(seed: u8) -> GearTable {
        GearTable::derived(&[seed; 32])
    }

    #[test]
    fn content_cuts_do_not_depend_on_how_bytes_arrive() {
        let data = noise(9_000_000, 1);
        let one = cut(Cutter::content(gear(1)), &data, data.len());
        assert_eq!(one.concat(), data);
        for step in [1 << 16, 99_991] {
            assert_eq!(cut(Cutter::content(gear(1)), &data, step), one);
        }
        let (last, others) = one.split_last().unwrap();
        assert!(others.iter().all(|s| (MIN_BYTES..=MAX_BYTES).contains(&s.len())));
        assert!(last.len() <= MAX_BYTES);
    }

    #[test]
    fn an_insertion_disturbs_few_segments() {
        let data = noise(20_000_000, 2);
        let mut changed = data.clone();
        changed.splice(7_000_000..7_000_000, *b"inserted");
        let before = cut(Cutter::content(gear(1)), &data, 1 << 20);
        let after = cut(Cutter::content(gear(1)), &changed, 1 << 20);
        let new = after.iter().filter(|s| !before.contains(s)).count();
        assert!(new <= 3, "{new} of {}", after.len());
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let data = noise(20_000_000, 3);
        let lengths = |seed| cut(Cutter::content(gear(seed)), &data, 1 << 20).iter().map(Vec::len).collect::<Vec<_>>();
        assert_ne!(lengths(1), lengths(2));
    }

    #[test]
    fn constant_bytes_are_cut_at_the_maximum() {
        let lengths: Vec<_> =
            cut(Cutter::content(gear(1)), &vec![0; 10_000_000], 65_536).iter().map(Vec::len).collect();
        assert!(lengths.iter().all(|&l| l <= MAX_BYTES), "{lengths:?}");
    }

    #[test]
    fn fixed_cuts_start_again_at_a_boundary() {
        let mut cutter = Cutter::every(10);
        let mut lengths = Vec::new();
        let mut emit = |segment: Vec<u8>| -> Result<(), Infallible> {
            lengths.push(segment.len());
            Ok(())
        };
        let Ok(()) = cutter.push(&[0; 4], &mut emit);
        let Ok(()) = cutter.flush(&mut emit);
        let Ok(()) = cutter.push(&[0; 25], &mut emit);
        let Ok(()) = cutter.flush(&mut emit);
        let Ok(()) = cutter.flush(&mut emit);
        assert_eq!(lengths, [4, 10, 10, 5]);
        assert_eq!(cut(Cutter::never(), &[1; 100], 7), [vec![1; 100]]);
    }
}
