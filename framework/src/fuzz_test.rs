//! What the tests of decoders share: bytes that are damaged in the ways that matter to decoders, and a count of what
//! decoding allocates. `operators` takes this file in by its path. "Fuzzing" in `CONTRIBUTING.md` has more.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// So many cases, and a hundred times as many with `MILLSTREAM_SOAK=1`.
pub(crate) fn cases(few: u32) -> Config {
    let is_soak = std::env::var_os("MILLSTREAM_SOAK").is_some_and(|value| value == "1");
    Config::with_cases(if is_soak { few * 100 } else { few })
}

/// How many bytes a decoder may hold at a time, its result included: some for each byte of the input, and some anyway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) per_byte: u64,
    pub(crate) more: u64,
}

/// For decoders that trust no length: `Vec`s of small types double, and errors have texts.
pub(crate) const TIGHT: Bound = Bound { per_byte: 64, more: 64 << 10 };

/// What `decode` gives for an input of so many bytes.
///
/// # Errors
/// A failed case if it panics, or holds more than it may.
pub(crate) fn bounded<T>(input: usize, bound: Bound, decode: impl FnOnce() -> T) -> Result<T, TestCaseError> {
    let mut result = None;
    let counted = allocation_counter::measure(|| result = Some(catch_unwind(AssertUnwindSafe(decode))));
    let Some(Ok(value)) = result else { return Err(TestCaseError::fail("it panics")) };
    let most = bound.per_byte * input as u64 + bound.more;
    let held = counted.bytes_max;
    prop_assert!(held <= most, "{held} bytes are held for an input of {input}, at most {most} are allowed");
    Ok(value)
}

/// Any bytes, often of those that begin long numbers or are flags.
pub(crate) fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let telling = select(&[0, 1, 2, 3, 8, 0x7F, 0x80, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF][..]);
    prop_oneof![vec(any::<u8>(), 0..200), vec(telling, 0..200)]
}

/// Any text, often with what has a meaning in JSON, TOML, CSV or a name.
pub(crate) fn any_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => any::<char>().prop_map(String::from),
        4 => select(&["\"", "\\", "{", "}", "[", "]", ":", ",", "=", ".", "-", "\n", " ", "'", "#", "_", "/"][..])
            .prop_map(String::from),
        2 => select(&HUGE_DIGITS[..]).prop_map(String::from),
        1 => "[a-z]{1,5}",
    ];
    vec(part, 0..60).prop_map(|parts| parts.concat())
}

/// Some of `valid`, damaged in up to three places.
pub(crate) fn damaged(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (valid, vec(damage(), 1..4)).prop_map(|(bytes, all)| all.iter().fold(bytes, done))
}

/// The same of a text, which it stays.
pub(crate) fn damaged_text(valid: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    damaged(valid.prop_map(String::into_bytes)).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Lengths that nothing has: as bincode, LEB128 and plain integers of either end write them. Some are below the limits
/// that decoders set themselves.
const HUGE: [&[u8]; 12] = [
    &[0xFB, 0xFF, 0xFF],
    &[0xFC, 0, 0, 0, 1],
    &[0xFC, 0, 0, 0, 0x0F],
    &[0xFC, 0xFF, 0xFF, 0xFF, 0xFF],
    &[0xFD, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
    &[0xFF, 0xFF, 0xFF, 0x7F],
    &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
    &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
    &[0, 0, 0, 0x0F],
    &[0x0F, 0, 0, 0],
    &[0xFF; 8],
    &[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
];

/// The same as text.
const HUGE_DIGITS: [&str; 8] = [
    "4294967295",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "1e400",
    "999999999999999999999999999",
    "0.0000000000000000001",
];

/// One damage.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Behead(Index),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Overwrite(Index, &'static [u8]),
    /// In place of one byte, as where that was a length.
    Replace(Index, &'static [u8]),
    /// In place of the next number that is written in digits.
    Digits(Index, &'static str),
    /// What stands there comes again, many times.
    Repeat(Index, usize, usize),
    /// Far deeper than anybody nests.
    Nest(Index, &'static str),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => at().prop_map(Damage::Cut),
        1 => at().prop_map(Damage::Behead),
        1 => (at(), 1usize..9).prop_map(|(at, length)| Damage::Remove(at, length)),
        1 => (at(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (at(), select(&HUGE[..])).prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        3 => (at(), select(&HUGE[..])).prop_map(|(at, bytes)| Damage::Replace(at, bytes)),
        2 => (at(), select(&HUGE_DIGITS[..])).prop_map(|(at, digits)| Damage::Digits(at, digits)),
        1 => (at(), 1usize..20, 2usize..50).prop_map(|(at, length, times)| Damage::Repeat(at, length, times)),
        1 => (at(), select(&["[", "{\"a\":", "a.", "\u{1}"][..])).prop_map(|(at, what)| Damage::Nest(at, what)),
    ]
}

fn done(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
    let length = bytes.len();
    let from = |at: &Index| at.index(length + 1);
    let range = |at: &Index, n: usize| from(at)..(from(at) + n).min(length);
    match damage {
        Damage::Flip(at, bit) => bytes.iter_mut().skip(from(at)).take(1).for_each(|byte| *byte ^= 1 << bit),
        Damage::Cut(at) => bytes.truncate(from(at)),
        Damage::Behead(at) => _ = bytes.drain(..from(at)),
        Damage::Remove(at, n) => _ = bytes.drain(range(at, *n)),
        Damage::Insert(at, what) => _ = bytes.splice(range(at, 0), what.iter().copied()),
        Damage::Overwrite(at, what) => _ = bytes.splice(range(at, what.len()), what.iter().copied()),
        Damage::Replace(at, what) => _ = bytes.splice(range(at, 1), what.iter().copied()),
        Damage::Digits(at, what) => {
            let start = (from(at)..length).find(|i| bytes[*i].is_ascii_digit()).unwrap_or(length);
            let end = (start..length).find(|i| !bytes[*i].is_ascii_digit()).unwrap_or(length);
            bytes.splice(start..end, what.bytes());
        }
        Damage::Repeat(at, n, times) => {
            let again = bytes[range(at, *n)].repeat(*times);
            bytes.splice(range(at, 0), again);
        }
        Damage::Nest(at, what) => _ = bytes.splice(range(at, 0), what.repeat(1000).into_bytes()),
    }
    bytes
}

/// The net has to hold what it is made for.
#[test]
fn what_takes_too_much_or_panics_is_caught() {
    let bound = Bound { per_byte: 2, more: 100 };
    assert_eq!(bounded(10, bound, || vec![1u8; 120]).unwrap().len(), 120);
    assert!(bounded(10, bound, || vec![1u8; 121]).is_err());
    assert!(bounded(10, bound, || drop(vec![1u8; 121])).is_err(), "though it is given back");
    assert!(bounded(10, bound, || panic!("on purpose")).is_err());
}
