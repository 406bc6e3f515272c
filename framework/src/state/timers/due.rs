//! An entry of the time index: when, and of which key. What is done with entries is in `index.rs`.

use crate::{Error, ErrorKind, Timestamp};
use std::cmp::Ordering;
use std::fmt;

/// Keys of up to so many bytes are kept without an allocation.
const INLINE: usize = 22;

/// The order-preserving bytes of a key.
#[derive(Clone)]
pub(crate) enum KeyBytes {
    /// The first so many bytes.
    Inline(u8, [u8; INLINE]),
    Heap(Box<[u8]>),
}

impl KeyBytes {
    pub(crate) fn get(&self) -> &[u8] {
        match self {
            Self::Inline(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Heap(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for KeyBytes {
    fn from(key: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..key.len()) {
            Some(start) => {
                start.copy_from_slice(key);
                Self::Inline(key.len() as u8, bytes)
            }
            None => Self::Heap(key.into()),
        }
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// When something is due, and for which key. Ordered by time, then by key.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub(crate) at: Timestamp,
    pub(crate) key: KeyBytes,
}

impl Due {
    pub(crate) fn new(at: Timestamp, key: &[u8]) -> Self {
        Self { at, key: key.into() }
    }

    /// Before all others.
    pub(crate) fn first() -> Self {
        Self::new(Timestamp::MIN, &[])
    }

    /// Appends it as storage orders it: eight bytes of time, then the key.
    pub(crate) fn put(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&(self.at.as_millis() ^ i64::MIN).to_be_bytes());
        into.extend_from_slice(self.key.get());
    }

    /// Reads what [`put`](Self::put) wrote.
    ///
    /// # Errors
    /// The bytes are too few.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let short =
            || Error::new(ErrorKind::Refused, "an entry of a time index is cut short: restore an older checkpoint");
        let (at, key) = bytes.split_first_chunk().ok_or_else(short)?;
        Ok(Self::new(Timestamp::from_millis(i64::from_be_bytes(*at) ^ i64::MIN), key))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at).then_with(|| self.key.get().cmp(other.key.get()))
    }
}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{TIGHT, any_bytes, bounded, cases};
    use proptest::prelude::*;

    proptest! {
        /// Storage orders entries as memory does, and gives back what it was given.
        #[test]
        fn bytes_sort_as_entries(
            a in (any::<i64>(), prop::collection::vec(any::<u8>(), 0..40)),
            b in (any::<i64>(), prop::collection::vec(any::<u8>(), 0..40)),
        ) {
            let [(a, a_bytes), (b, b_bytes)] = [a, b].map(|(at, key)| {
                let (due, mut bytes) = (Due::new(Timestamp::from_millis(at), &key), Vec::new());
                due.put(&mut bytes);
                (due, bytes)
            });
            prop_assert_eq!(a.cmp(&b), a_bytes.cmp(&b_bytes));
            prop_assert_eq!(Due::read(&a_bytes).unwrap(), a);
        }
    }

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn any_entry_is_taken(bytes in any_bytes()) {
            if let Ok(due) = bounded(bytes.len(), TIGHT, || Due::read(&bytes))? {
                let mut again = Vec::new();
                due.put(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn the_first_is_before_all() {
        assert!(Due::first() <= Due::new(Timestamp::MIN, &[]));
        assert!(Due::read(&[0; 7]).is_err());
    }
}
