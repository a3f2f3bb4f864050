//! Reproducible chance: BLAKE3's endless output over a seed and a topic. It is no secret and guards nothing.

/// What all of the shop is made from.
const SEED: &str = "lifeboat demo shop 1";

/// A stream of bytes that depends on the topic only.
pub(super) struct Dice(blake3::OutputReader);

impl Dice {
    /// The stream of a topic; one topic's throws do not move another's.
    pub(super) fn of(topic: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(SEED).update(topic.as_bytes()).finalize_xof())
    }

    /// A number below `bound`, which must not be 0. The bias of the remainder does not matter here.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        let mut bytes = [0_u8; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) % bound
    }

    /// One of these.
    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let bound = u32::try_from(from.len()).unwrap_or(u32::MAX);
        &from[self.below(bound) as usize]
    }

    /// Bytes that do not compress.
    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0_u8; count];
        self.0.fill(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_throws_the_same_again_and_another_differently() {
        assert_eq!(Dice::of("a").bytes(32), Dice::of("a").bytes(32));
        assert_ne!(Dice::of("a").bytes(32), Dice::of("b").bytes(32));
        let mut dice = Dice::of("range");
        let seen: std::collections::BTreeSet<u32> = (0..1000).map(|_| dice.below(6)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    }
}
