//! One seed, many independent streams: a draw in one place changes nothing in another.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A point in the tree of seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    pub fn new(value: u64) -> Seed {
        Seed(value)
    }

    /// The seed of the stream of this name below this one.
    pub fn fork(self, stream: &str) -> Seed {
        let hash = stream.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Seed(mix(self.0 ^ mix(hash)))
    }

    /// The seed of the `n`-th of many alike.
    pub fn nth(self, n: u64) -> Seed {
        Seed(mix(self.0.wrapping_add(mix(n.wrapping_add(1)))))
    }

    pub fn value(self) -> u64 {
        self.0
    }

    pub fn rng(self) -> StdRng {
        StdRng::seed_from_u64(self.0)
    }
}

/// The finalizer of SplitMix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_different_names_or_numbers_differ() {
        let seed = Seed::new(7);
        assert_ne!(seed.fork("a"), seed.fork("b"));
        assert_ne!(seed.nth(0), seed.nth(1));
        assert_ne!(seed.fork("a").nth(0), seed.nth(0).fork("a"));
        assert_eq!(seed.fork("a"), Seed::new(7).fork("a"));
    }
}
