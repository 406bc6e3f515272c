//! Rows, items and what a manifest says of them, damaged. Each other format of state has such tests beside it.

use super::items::{ItemsLayout, ItemsStore};
use super::snapshot::{OperatorStates, ShapeRef, StateSpec};
use super::{EventTimer, Layout, ListState, MapState, ProcessingTimer, ProcessingTimers, RowLayout, State, ValueState};
use crate::Attempt;
use crate::codec::{CodecError, put_field};
use crate::fuzz::{Bound, TIGHT, any_bytes, bounded, cases, damaged};
use proptest::prelude::*;

#[derive(Debug, State)]
struct Customer {
    total: ValueState<u64>,
    names: ValueState<Vec<String>>,
    by_shop: MapState<String, u64>,
    waiting: ListState<String>,
    late: EventTimer,
    asleep: ProcessingTimer,
    others: ProcessingTimers,
}

/// One string and two `Vec`s of which a damaged length says that they are long; see `codec.rs`.
const ROW: Bound = Bound { per_byte: 64, more: 4 << 20 };

fn states() -> OperatorStates {
    Layout::of::<u64, Customer>().reconcile("customers", &mut 0, None).unwrap()
}

fn row(layout: &RowLayout, customer: &Customer) -> Vec<u8> {
    let mut bytes = Vec::new();
    layout.save(customer, &mut bytes).unwrap();
    bytes
}

fn any_customer() -> impl Strategy<Value = Customer> {
    let names = proptest::option::of(prop::collection::vec(any::<String>(), 0..4));
    (any::<Option<u64>>(), names, 0u64..4, any::<Option<i64>>()).prop_map(|(total, names, waiting, late)| {
        let mut customer = Customer::open();
        total.into_iter().for_each(|total| customer.total.set(total));
        names.into_iter().for_each(|names| customer.names.set(names));
        (0..waiting).for_each(|n| customer.waiting.push(n.to_string()));
        late.into_iter().for_each(|late| customer.late.set(crate::Timestamp::from_millis(late)));
        customer
    })
}

fn any_row() -> impl Strategy<Value = Vec<u8>> {
    any_customer().prop_map(|customer| row(&RowLayout::new(&states()), &customer))
}

proptest! {
    #![proptest_config(cases(1000))]

    /// What can be read can be used, and be written and read again.
    #[test]
    fn any_row_is_taken(bytes in prop_oneof![any_bytes(), damaged(any_row())]) {
        let layout = RowLayout::new(&states());
        let Ok(mut customer) = bounded(bytes.len(), ROW, || layout.load::<Customer>(&bytes))? else { return Ok(()) };
        let again = row(&layout, &customer);
        let read: Customer = layout.load(&again).unwrap();
        prop_assert_eq!(row(&layout, &read), again);
        prop_assert_eq!((read.waiting.len(), read.late.at()), (customer.waiting.len(), customer.late.at()));
        customer.waiting.push("more".into());
        prop_assert_eq!(customer.waiting.len(), read.waiting.len() + 1);
        prop_assert!(customer.waiting.get(0).is_none() || read.waiting.is_empty());
    }

    #[test]
    fn rows_are_read_back(customer in any_customer()) {
        let layout = RowLayout::new(&states());
        let bytes = row(&layout, &customer);
        let read: Customer = layout.load(&bytes).unwrap();
        prop_assert_eq!((read.total.get(), read.names.get()), (customer.total.get(), customer.names.get()));
        prop_assert_eq!((read.waiting.len(), read.late.at()), (customer.waiting.len(), customer.late.at()));
    }

    /// Numbers that no state can have are refused, and do not overflow.
    #[test]
    fn any_numbers_of_states_are_taken(
        ids in prop::collection::vec(prop_oneof![any::<u32>(), Just(u32::MAX), 0..4u32], 7),
        next in 0..70_000u32, is_known in any::<bool>(),
    ) {
        let mut old = states();
        for (state, id) in old.states.iter_mut().zip(ids) {
            state.id = id;
            state.table = None;
            state.name = if is_known { state.name.clone() } else { format!("other-{id}") };
        }
        let mut next = next;
        let _ = bounded(0, TIGHT, || Layout::of::<u64, Customer>().reconcile("customers", &mut next, Some(&old)))?;
    }

    #[test]
    fn any_file_of_items_is_taken(
        bytes in prop_oneof![any_bytes(), damaged(any_items())], count in prop_oneof![0..4u64, any::<u64>()],
        parallelism in 1usize..4, subtask in 0usize..4,
    ) {
        let (_directory, mut store) = items_store();
        let items = store.layout.put(&[7u64]).unwrap();
        store.restore = vec![store.write(1, &items).unwrap()];
        std::fs::write(store.checkpoints.join(&store.restore[0].file.path), &bytes).unwrap();
        store.restore[0].items = count;
        (store.parallelism, store.subtask) = (parallelism, subtask % parallelism);
        let _ = bounded(bytes.len(), ROW, || store.load::<(u64, Vec<String>)>())?;
    }
}

fn any_items() -> impl Strategy<Value = Vec<u8>> {
    let items = prop::collection::vec((any::<u64>(), prop::collection::vec(any::<String>(), 0..3)), 0..4);
    items.prop_map(|items| {
        let mut bytes = b"MSITEMS\n".to_vec();
        items.iter().for_each(|item| put_field(0, 1, item, &mut bytes).unwrap());
        bytes
    })
}

fn items_store() -> (tempfile::TempDir, ItemsStore) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("state")).unwrap();
    let store = ItemsStore {
        checkpoints: directory.path().to_owned(),
        attempt: Attempt::draw(),
        operator: "asks".into(),
        subtask: 0,
        parallelism: 1,
        layout: ItemsLayout::of::<(u64, Vec<String>)>(1),
        restore: Vec::new(),
    };
    (directory, store)
}

/// Its length would be negative; the length of the other one would be too much with one more.
#[test]
fn lists_that_do_not_end_like_lists_are_refused() {
    let states = states();
    let waiting = states.states.iter().find(|state| state.name == "waiting").unwrap();
    for numbers in [(5u64, 2u64), (0, u64::MAX), (3, 3)] {
        let mut row = Vec::new();
        put_field(waiting.id, waiting.version, &numbers, &mut row).unwrap();
        let read = RowLayout::new(&states).load::<Customer>(&row);
        assert!(matches!(read.err(), Some(CodecError::Decode(_))), "{numbers:?}");
    }
}

#[test]
fn timers_that_nobody_can_set_are_refused() {
    let states = states();
    let late = states.states.iter().find(|state| state.name == "late").unwrap();
    for at in [i64::MIN, (1 << 60) + 1, i64::MAX] {
        let mut row = Vec::new();
        put_field(late.id, late.version, &at, &mut row).unwrap();
        assert!(RowLayout::new(&states).load::<Customer>(&row).is_err(), "{at}");
    }
}

#[test]
fn the_last_number_of_a_state_has_no_successor() {
    let shape = ShapeRef { text: "u64".into(), fingerprint: "0".repeat(16) };
    let last = StateSpec { name: "gone".into(), id: u32::MAX, table: None, codec: 1, version: 1, shape };
    let old = OperatorStates { states: vec![last], ..states() };
    let error = Layout::of::<u64, Customer>().reconcile("customers", &mut 0, Some(&old)).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Refused);
}
