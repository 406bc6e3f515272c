//! What readers see, and what they are to see: each record of each split once, and none before those before it.

use std::collections::BTreeMap;

/// A record: of which split, and which of it.
pub(super) type Row = (u32, u64);

/// The rows in the order in which they became visible.
#[derive(Debug, Clone, Default)]
pub(super) struct Output {
    next: BTreeMap<u32, u64>,
    /// The first that was not what was to come.
    wrong: Option<String>,
}

impl Output {
    /// These become visible together.
    pub(super) fn take(&mut self, rows: impl IntoIterator<Item = Row>) {
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_unstable();
        for (split, n) in rows {
            let next = self.next.entry(split).or_default();
            if n != *next {
                let wrong = format!("split {split} shows record {n}, and {next} was to come");
                self.wrong.get_or_insert(wrong);
            }
            *next = n + 1;
        }
    }

    /// # Errors
    /// A record is there twice, or one before it is missing.
    pub(super) fn check(&self) -> Result<(), String> {
        self.wrong.clone().map_or(Ok(()), Err)
    }

    /// # Errors
    /// Something else is visible than all of so many records of so many splits.
    pub(super) fn is_all(&self, splits: u32, records: u64) -> Result<(), String> {
        self.check()?;
        let all = (0..splits).map(|split| (split, records)).filter(|(_, n)| *n > 0).collect();
        if self.next == all { Ok(()) } else { Err(format!("at the end there are {:?}, and not {all:?}", self.next)) }
    }
}
