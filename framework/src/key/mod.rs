//! Keys: how a key is hashed ([`stable_hash`]), how it is written so that bytes sort as keys do ([`encode_key`]), and
//! which key group and subtask own it. Both walks are driven by the key's serde events: a key needs no derive of ours.
//!
//! Not here: the row tables that use the hash, and the table id and key group that precede a key in the store.
//!
//! Everything in this folder decides where state lives. It is frozen by golden-value tests: changing one of them
//! orphans every checkpoint ever written.

mod decode;
mod encode;
mod hash;

pub use decode::decode_key;
pub use encode::{KeyError, encode_key};
pub use hash::stable_hash;
pub(crate) use hash::visit_bytes;

use std::ops::Range;

/// Number of key groups of a job that does not choose its own; fixed for the life of the job's state.
///
/// It is the largest useful parallelism, as a key group is never split between subtasks.
pub const KEY_GROUPS: u32 = 128;

/// The key group of a key with this [`stable_hash`], in `0..groups`.
///
/// Taken from the top bits of the *low* half: tables take slot and tag from the high half, and bits used for both
/// would leave most slots of a subtask's tables empty.
#[inline(always)]
pub(crate) fn group_of(hash: u64, groups: u32) -> u32 {
    (((hash & 0xFFFF_FFFF) * u64::from(groups)) >> 32) as u32
}

/// The subtask that owns `group` when `groups` key groups are spread over `parallelism` subtasks (0 is read as 1).
#[inline]
pub(crate) fn subtask_of(group: u32, parallelism: u32, groups: u32) -> u32 {
    (u64::from(group) * u64::from(parallelism) / u64::from(groups.max(1))) as u32
}

/// The key groups that `subtask` owns: the inverse of [`subtask_of`]. Empty where there are more subtasks than groups.
pub(crate) fn groups_of(subtask: u32, parallelism: u32, groups: u32) -> Range<u32> {
    let parallelism = u64::from(parallelism.max(1));
    let first = |subtask: u64| (subtask * u64::from(groups)).div_ceil(parallelism) as u32;
    first(u64::from(subtask))..first(u64::from(subtask) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_one_owner() {
        for groups in [1, 7, 128, 1024] {
            for parallelism in [1, 2, 3, 7, 64, 128, 200] {
                let mut owned = Vec::new();
                for subtask in 0..parallelism {
                    let range = groups_of(subtask, parallelism, groups);
                    assert!(range.clone().all(|group| subtask_of(group, parallelism, groups) == subtask));
                    owned.extend(range);
                }
                assert_eq!(owned, (0..groups).collect::<Vec<_>>(), "{groups} groups on {parallelism}");
            }
        }
    }

    #[test]
    fn groups_come_from_the_low_half_only() {
        assert_eq!(group_of(0xFFFF_FFFF_0000_0000, KEY_GROUPS), 0);
        assert_eq!(group_of(0x0000_0000_FFFF_FFFF, KEY_GROUPS), KEY_GROUPS - 1);
        assert_eq!(group_of(0x8000_0000, KEY_GROUPS), KEY_GROUPS / 2);
    }

    /// Dense, strided and textual keys must reach all groups about evenly, or some subtasks idle.
    #[test]
    fn groups_are_balanced() {
        let keys = 128 * 256u64;
        let fullest = |hash: &dyn Fn(u64) -> u64| {
            let mut counts = vec![0u64; KEY_GROUPS as usize];
            (0..keys).for_each(|i| counts[group_of(hash(i), KEY_GROUPS) as usize] += 1);
            counts.into_iter().max().unwrap()
        };
        for shift in [0, 3, 8, 16, 20, 24, 32, 40] {
            let worst = fullest(&|i| stable_hash(&(i << shift)));
            assert!(worst < 256 * 2, "stride 2^{shift}: {worst} keys in the fullest group, 256 expected");
        }
        assert!(fullest(&|i| stable_hash(&format!("user-{i}"))) < 256 * 2);
        assert!(fullest(&|i| stable_hash(&(i / 100, (i % 100) as u32))) < 256 * 2);
    }

    /// A key that `stable_hash` accepts but that cannot be stored is told so in words the user can act on.
    #[test]
    fn errors_say_what_to_write() {
        let error = encode_key(&1.5f64, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("`to_bits()`"), "{error}");
        assert!(matches!(error, KeyError::Float));
    }
}
