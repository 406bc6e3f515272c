//! The generator of the workloads: the same values in every engine that is compared, from integers only. What runs on
//! them is in `limits.rs` and `jobs.rs`.

use serde::{Deserialize, Serialize};

/// The records of W1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rec {
    pub(crate) id: u64,
    pub(crate) v: u64,
}

/// splitmix64: the `i`th random number.
#[inline(always)]
pub(crate) fn mix(i: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A random number brought to `0..k`.
#[inline(always)]
pub(crate) fn scale(random: u64, k: u64) -> u64 {
    (random >> 32).wrapping_mul(k) >> 32
}

/// What W1 reads.
#[inline(always)]
pub(crate) fn rec(i: u64) -> Rec {
    Rec { id: i, v: mix(i) }
}

/// The map of W1; its filter keeps even values.
#[inline(always)]
pub(crate) fn w1_map(r: Rec) -> Rec {
    Rec { id: r.id, v: mix(r.v) ^ r.id }
}

/// A key of W2: uniform over `0..keys`.
#[inline(always)]
pub(crate) fn dense(i: u64, keys: u64) -> u64 {
    scale(mix(i), keys)
}

/// The same keys, scattered over all 64-bit numbers.
#[inline(always)]
pub(crate) fn scattered(i: u64, keys: u64) -> u64 {
    mix(dense(i, keys))
}

/// The same keys as strings of 16 bytes.
pub(crate) fn text(i: u64, keys: u64) -> String {
    let mut rest = dense(i, keys);
    let mut bytes = *b"user-00000000000";
    for byte in bytes.iter_mut().skip(5).rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Compares with values computed by the reference, so that figures stay comparable with those of other engines.
///
/// # Panics
/// When a value differs.
pub(crate) fn check() {
    assert_eq!([mix(0), mix(1), mix(u64::MAX)], GOLDEN_MIX, "mix");
    assert_eq!([0, 1, 999_999].map(|i| dense(i, 1_000_000)), GOLDEN_DENSE, "keys");
    assert_eq!(w1_map(rec(7)), Rec { id: 7, v: GOLDEN_W1 }, "the map of W1");
    assert_eq!(text(1, 1_000_000), format!("user-{:011}", GOLDEN_DENSE[1]), "strings");
}

const GOLDEN_MIX: [u64; 3] = [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0];
const GOLDEN_DENSE: [u64; 3] = [883_310, 431_527, 116_433];
const GOLDEN_W1: u64 = 0x1721_C8A9_F288_D5C2;
