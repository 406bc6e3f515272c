//! What single steps of the record path cost: `cargo bench --bench micro`. The whole path is in `workloads/`.
//!
//! Each figure is for [`KEYS`] keys; divide by it for one.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use millstream::key::{decode_key, encode_key, stable_hash};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Few enough for the first-level cache.
const KEYS: u64 = 1024;

fn main() {
    divan::main();
}

trait Sample: Serialize + DeserializeOwned {
    fn sample(i: u64) -> Self;
}
impl Sample for u64 {
    fn sample(i: u64) -> Self {
        i.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}
impl Sample for (u64, u32) {
    fn sample(i: u64) -> Self {
        (i / 7, i as u32)
    }
}
impl Sample for String {
    fn sample(i: u64) -> Self {
        format!("user-{i:011}")
    }
}
impl Sample for Vec<String> {
    fn sample(i: u64) -> Self {
        vec![format!("shop-{i:05}"), format!("item-{i:025}")]
    }
}

fn samples<K: Sample>() -> Vec<K> {
    (0..KEYS).map(K::sample).collect()
}

#[divan::bench(types = [u64, (u64, u32), String, Vec<String>])]
fn hash<K: Sample>(bencher: Bencher<'_, '_>) {
    let (keys, mut hashes) = (samples::<K>(), vec![0; KEYS as usize]);
    bencher.counter(ItemsCount::new(KEYS)).bench_local(|| {
        for (hash, key) in hashes.iter_mut().zip(&keys) {
            *hash = stable_hash(key);
        }
        black_box(&mut hashes);
    });
}

#[divan::bench(types = [u64, (u64, u32), String, Vec<String>])]
fn encode<K: Sample>(bencher: Bencher<'_, '_>) {
    let (keys, mut bytes) = (samples::<K>(), Vec::new());
    bencher.counter(ItemsCount::new(KEYS)).bench_local(|| {
        bytes.clear();
        keys.iter().for_each(|key| drop(encode_key(key, &mut bytes)));
        black_box(&mut bytes);
    });
}

#[divan::bench(types = [u64, (u64, u32), String, Vec<String>])]
fn decode<K: Sample>(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    samples::<K>().iter().for_each(|key| drop(encode_key(key, &mut bytes)));
    bencher.counter(ItemsCount::new(KEYS)).bench_local(|| {
        let mut rest = &bytes[..];
        while let Ok((key, taken)) = decode_key::<K>(rest) {
            black_box(key);
            rest = &rest[taken..];
        }
    });
}
