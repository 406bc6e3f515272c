//! Records that brokers have found too large, although nobody could know: how small a batch gets when it is compressed
//! is seen by the client that sends it. A rejection ends the attempt. The next one knows such a record again, by what
//! stands in it, and treats it like all that cannot be written. Known for the life of the process.

use crate::sources::kafka::hash;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many are remembered of a topic. Those beyond fail every attempt.
const MOST: usize = 100_000;

/// By brokers and topic.
type Known = BTreeMap<(String, String), BTreeSet<u64>>;

fn all() -> MutexGuard<'static, Known> {
    static ALL: Mutex<Known> = Mutex::new(BTreeMap::new());
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The brokers have rejected this one.
#[cold]
pub(super) fn remember((brokers, topic): (&str, &str), key: Option<&[u8]>, value: Option<&[u8]>) {
    let mut all = all();
    let known = all.entry((brokers.into(), topic.into())).or_default();
    if known.len() < MOST {
        known.insert(hash(key, value));
    }
}

/// Whether they have, ever.
#[cold]
pub(super) fn is_known((brokers, topic): (&str, &str), key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
    let all = all();
    all.get(&(brokers.to_owned(), topic.to_owned())).is_some_and(|known| known.contains(&hash(key, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_what_stands_in_it() {
        let (place, value) = (("b:1", "rejected"), Some(&b"value"[..]));
        assert!(!is_known(place, None, value));
        remember(place, None, value);
        assert!(is_known(place, None, value));
        assert!(!is_known(place, value, value) && !is_known(place, value, None) && !is_known(place, None, None));
        assert!(!is_known(("b:2", "rejected"), None, value) && !is_known(("b:1", "other"), None, value));
    }
}
