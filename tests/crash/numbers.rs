//! Accounts: 100,000 keys behind a cache of 1,000 rows per subtask, so that rows are evicted, missed and spilled
//! between all barriers; a state of two fields, of which values are taken out again, so that rows become empty.
//!
//! Each key belongs to one split, so the order of its records, hence all output, is known.

use super::campaign::{Life, Made, SPLITS, Subject, Told};
use crate::common::{Output, mix};
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::sync::Mutex;

const KEYS: u64 = 100_000;

/// What the source makes.
#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    key: u64,
    offset: u64,
    value: u64,
    /// Asks for the state and changes nothing.
    is_probe: bool,
}

/// Before `probe_from` random keys of the split, from there on each of its keys once.
fn entry(split: u64, offset: u64, probe_from: u64) -> Entry {
    let random = mix(split << 48 | offset);
    let is_probe = offset >= probe_from;
    let at = if is_probe { offset - probe_from } else { random % (KEYS / SPLITS) };
    Entry { key: at * SPLITS + split, offset, value: random >> 40, is_probe }
}

#[derive(State)]
struct Account {
    sum: ValueState<u64>,
    trail: ValueState<String>,
}

struct Accounts {
    /// Only of the sabotaged one: sums where no snapshot knows of them, so that the oracle has something to find.
    sums: Option<Mutex<HashMap<u64, u64>>>,
}

impl Process for Accounts {
    type Key = u64;
    type In = Entry;
    type Out = String;
    type State = Account;
    fn on_record(
        &self,
        entry: Entry,
        account: &mut Account,
        cx: &mut Context<'_, u64, String>,
    ) -> Result<(), BoxError> {
        if !entry.is_probe {
            match Move::of(entry.value) {
                Move::Close => _ = (account.sum.take(), account.trail.take()),
                Move::Reset => _ = account.sum.take(),
                Move::Add => {
                    *account.sum.or_default() += entry.value;
                    let trail = account.trail.or_default();
                    let from = trail.len().saturating_sub(20);
                    *trail = format!("{}.{}", &trail[from..], entry.value % 1000);
                }
            }
        }
        let mut sum = account.sum.get().copied();
        if let Some(sums) = &self.sums {
            let mut sums = sums.lock().map_err(|e| e.to_string())?;
            let mine = sums.entry(entry.key).or_default();
            *mine += entry.value;
            sum = Some(*mine);
        }
        cx.emit(shown(&entry, sum, account.trail.get()));
        Ok(())
    }
}

enum Move {
    Close,
    Reset,
    Add,
}

impl Move {
    fn of(value: u64) -> Self {
        match value % 8 {
            0 => Self::Close,
            1 => Self::Reset,
            _ => Self::Add,
        }
    }
}

fn shown(entry: &Entry, sum: Option<u64>, trail: Option<&String>) -> String {
    format!("{} {} {sum:?} {trail:?}", entry.key, entry.offset)
}

/// The pipeline.
pub(super) fn job(told: Told) -> Job {
    let (made, is_sabotaged): (_, bool) = told.input();
    let job = told.job(move |t, life| {
        life.source(t, made, 40_000, entry)
            .key_by(|entry| &entry.key)
            .process("accounts", Accounts { sums: is_sabotaged.then(Mutex::default) })
            .sink("accounts-out", life.files().text());
    });
    // memory for some of the evicted rows, so that the others go to files
    job.cache_rows(1000).memory(1 << 20)
}

/// The input and what is right.
pub(super) struct Numbers {
    made: Made,
    pub(super) is_sabotaged: bool,
}

impl Numbers {
    /// With so many records of each split.
    pub(super) fn new(count: u64) -> Self {
        Self { made: Made::new(count), is_sabotaged: false }
    }
}

impl Subject for Numbers {
    fn command(&self, life: &Life) -> Command {
        life.process("numbers", (self.made, self.is_sabotaged))
    }

    fn more_input(&mut self) {
        self.made.count += 10_000;
    }

    fn probe(&mut self) {
        self.made.probe(KEYS / SPLITS);
    }

    fn check(&self, output: &Output) -> Result<(), String> {
        let mut expect: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        let mut accounts: HashMap<u64, (Option<u64>, Option<String>)> = HashMap::new();
        for entry in self.made.all(entry) {
            let (sum, trail) = accounts.entry(entry.key).or_default();
            match Move::of(entry.value) {
                _ if entry.is_probe => {}
                Move::Close => (*sum, *trail) = (None, None),
                Move::Reset => *sum = None,
                Move::Add => {
                    *sum = Some(sum.unwrap_or(0) + entry.value);
                    let old = trail.take().unwrap_or_default();
                    let from = old.len().saturating_sub(20);
                    *trail = Some(format!("{}.{}", &old[from..], entry.value % 1000));
                }
            }
            expect.entry(entry.key).or_default().push(shown(&entry, *sum, trail.as_ref()));
        }
        equal_by_key(&expect, output, "accounts-out")
    }

    fn input(&self) -> u64 {
        self.made.records()
    }
}

/// Whether the lines of an output, which begin with a key, are those expected of each key, in the same order.
pub(super) fn equal_by_key(expect: &BTreeMap<u64, Vec<String>>, output: &Output, name: &str) -> Result<(), String> {
    let mut found: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for line in output.lines(name) {
        let key = line.split(' ').next().and_then(|key| key.parse().ok());
        found.entry(key.ok_or_else(|| format!("a line without a key: {line}"))?).or_default().push(line);
    }
    equal(expect, &found)
}

/// Whether both have the same lines of each key, in the same order.
pub(super) fn equal(expect: &BTreeMap<u64, Vec<String>>, found: &BTreeMap<u64, Vec<&str>>) -> Result<(), String> {
    if let Some(key) = found.keys().find(|key| !expect.contains_key(key)) {
        return Err(format!("key {key} should not be there"));
    }
    for (key, expect) in expect {
        let found = found.get(key).map_or(&[][..], |lines| lines);
        if let Some(at) =
            (0..expect.len().max(found.len())).find(|at| expect.get(*at).map(|l| &**l) != found.get(*at).copied())
        {
            return Err(format!("key {key}, record {at}: {:?} in place of {:?}", found.get(at), expect.get(at)));
        }
    }
    Ok(())
}

#[test]
fn lines_are_equal_key_by_key() {
    let expect = BTreeMap::from([(1, vec!["a".to_owned(), "b".to_owned()])]);
    let check = |found: &[(u64, Vec<&'static str>)]| equal(&expect, &found.iter().cloned().collect());
    assert_eq!(check(&[(1, vec!["a", "b"])]), Ok(()));
    for wrong in [vec![], vec!["a"], vec!["b", "a"], vec!["a", "b", "b"], vec!["a", "c"]] {
        assert!(check(&[(1, wrong.clone())]).is_err(), "{wrong:?}");
    }
    assert!(check(&[]).is_err());
    assert!(check(&[(1, vec!["a", "b"]), (2, vec!["a"])]).is_err());
}
