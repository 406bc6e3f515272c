//! Random numbers that a seed repeats: splitmix64.

use millstream::clock;
use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

/// Scatters the bits of `x`.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// `MILLSTREAM_SEED`, or one that was not used before.
pub(crate) fn seed() -> u64 {
    match std::env::var("MILLSTREAM_SEED") {
        Ok(seed) => seed.parse().expect("MILLSTREAM_SEED is a number"),
        Err(_) => {
            let now = clock::wall().duration_since(UNIX_EPOCH).unwrap();
            mix(now.as_nanos() as u64 ^ u64::from(std::process::id()) << 40) >> 16
        }
    }
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(mix(self.0))
    }

    /// One of `range`, which is not empty.
    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// A duration up to `most`, to the microsecond.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.within(0..most.as_micros() as u64 + 1))
    }
}
