//! The simulation's own random numbers: the same seed gives the same year, whatever the versions of any crate. Each
//! decision rolls dice of its own, so that one that comes out otherwise does not change all that follow.

/// A splitmix64.
pub(super) struct Dice(u64);

impl Dice {
    /// The dice for one kind of decision at one hour.
    pub(super) fn of(seed: u64, hour: u64, what: &str) -> Self {
        let mix = |state: u64, word: u64| Self(state ^ word).next();
        Self(what.bytes().fold(mix(mix(seed, 0x5EED), hour), |state, byte| mix(state, u64::from(byte))))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// 0 to `count` - 1.
    pub(super) fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }

    /// A place in a list of so many.
    pub(super) fn place(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap()
    }

    /// Both ends included.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True once in so many times; never for 0.
    pub(super) fn once_in(&mut self, times: u64) -> bool {
        times > 0 && self.below(times) == 0
    }

    pub(super) fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.place(all.len())]
    }
}
