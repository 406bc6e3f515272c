//! An operator that asks a service, whose answers the test gives, in front of a stage that writes down what it gets.

use super::*;
use crate::state::items::ItemsLayout;
use crate::subtask::Reports;
use crate::subtask::stage::end;
use crate::{Attempt, Record};
use std::cell::RefCell;
use std::path::Path;
use std::task::Waker;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// What came out, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    Record(u64, i64),
    Watermark(i64),
    Idle,
    Barrier(Epoch),
    End,
}
use Got::{Barrier, End, Idle};

fn record(n: u64) -> Got {
    Got::Record(n, n as i64)
}

/// Takes nothing while it is closed.
#[derive(Clone, Default)]
struct Next {
    got: Rc<RefCell<Vec<Got>>>,
    closed: Rc<Cell<bool>>,
}

impl Next {
    fn take(&self) -> Vec<Got> {
        self.got.take()
    }
    fn put(&self, got: Got) -> Result<(), Error> {
        self.got.borrow_mut().push(got);
        Ok(())
    }
}

impl Stage for Next {
    type In = u64;
    fn on_batch(&mut self, batch: &mut Batch<u64>) -> Result<(), Error> {
        assert!(!self.closed.get(), "a batch that there was no room for");
        let records = std::mem::take(batch).into_records();
        self.got.borrow_mut().extend(records.map(|r| Got::Record(r.value, r.time.as_millis())));
        Ok(())
    }
}

impl Control for Next {
    fn next(&mut self) -> &mut dyn Control {
        end()
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.put(Got::Watermark(mark.as_millis()))
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.put(Idle)
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.put(Barrier(epoch))
    }
    fn on_end(&mut self) -> Result<(), Error> {
        self.put(End)
    }
    fn poll_ready(&mut self, _: bool, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.closed.get() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

/// Keeps each record until its answer comes; record 0 makes `on_batch` itself wait.
struct Asks {
    answers: UnboundedReceiver<u64>,
    gate: Option<oneshot::Receiver<()>>,
    capacity: usize,
}

impl Asks {
    fn answer(n: u64, items: &mut Vec<(u64, i64)>, out: &mut Output<u64>) {
        if let Some(at) = items.iter().position(|(value, _)| *value == n) {
            let (value, ms) = items.remove(at);
            out.emit(Record { value, time: Timestamp::from_millis(ms) });
        }
    }
}

impl Operator for Asks {
    type In = u64;
    type Out = u64;
    type Item = (u64, i64);
    async fn on_batch(
        &mut self,
        batch: Batch<u64>,
        items: &mut Vec<(u64, i64)>,
        _: &mut Output<u64>,
    ) -> Result<(), BoxError> {
        for record in batch.into_records() {
            if let Some(gate) = self.gate.take_if(|_| record.value == 0) {
                gate.await?;
            }
            items.push((record.value, record.time.as_millis()));
        }
        Ok(())
    }
    async fn ready(&mut self, items: &mut Vec<(u64, i64)>, out: &mut Output<u64>) -> Result<(), BoxError> {
        match self.answers.recv().await {
            Some(n) if n == u64::MAX => return Err("no answer".into()),
            Some(n) => Self::answer(n, items, out),
            None => std::future::pending().await,
        }
        Ok(())
    }
    fn capacity(&self) -> usize {
        self.capacity
    }
    fn pending_since(&self, items: &[(u64, i64)]) -> Option<Timestamp> {
        items.iter().map(|(_, ms)| Timestamp::from_millis(*ms)).min()
    }
    async fn on_end(&mut self, items: &mut Vec<(u64, i64)>, out: &mut Output<u64>) -> Result<(), BoxError> {
        while !items.is_empty() {
            let n = self.answers.recv().await.ok_or("the service is gone")?;
            Self::answer(n, items, out);
        }
        Ok(())
    }
}

/// A stage, and everything around it.
struct Bench {
    stage: OperatorStage<Asks>,
    next: Next,
    answers: UnboundedSender<u64>,
    gate: Option<oneshot::Sender<()>>,
    reports: UnboundedReceiver<Report>,
    directory: Rc<tempfile::TempDir>,
    runtime: tokio::runtime::Runtime,
}

fn store(directory: &Path, (subtask, parallelism): (usize, usize), restore: Vec<ItemsSnapshot>) -> ItemsStore {
    let layout = ItemsLayout::of::<(u64, i64)>(1);
    let checkpoints = directory.to_owned();
    let operator = "asks".to_owned();
    ItemsStore { checkpoints, attempt: Attempt::draw(), operator, subtask, parallelism, layout, restore }
}

fn bench(capacity: usize) -> Bench {
    let directory = Rc::new(tempfile::tempdir().unwrap());
    std::fs::create_dir(directory.path().join("state")).unwrap();
    restored(directory, (0, 1), Vec::new(), capacity)
}

fn restored(
    directory: Rc<tempfile::TempDir>,
    (subtask, parallelism): (usize, usize),
    restore: Vec<ItemsSnapshot>,
    capacity: usize,
) -> Bench {
    let (reporting, reports) = unbounded_channel();
    let (answers, answered) = unbounded_channel();
    let (gate, opened) = oneshot::channel();
    let context = StageContext {
        job: "test".into(),
        name: "asks".into(),
        subtask,
        parallelism,
        attempt: Attempt::draw(),
        suspect: None,
        participant: 7,
        first_epoch: 0,
        key_groups: 128,
        hold_bytes: 0,
        ahead_bytes: 0,
        reports: Reports(reporting),
        counters: Arc::default(),
    };
    let operator = Asks { answers: answered, gate: Some(opened), capacity };
    let next = Next::default();
    let store = store(directory.path(), (subtask, parallelism), restore);
    let stage = OperatorStage::new(operator, store, true, Box::new(next.clone()), context).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    Bench { stage, next, answers, gate: Some(gate), reports, directory, runtime }
}

impl Bench {
    fn batch(&mut self, values: impl IntoIterator<Item = u64>) {
        let mut batch = Batch::from(Vec::from_iter(values));
        batch.times = batch.values.iter().map(|n| Timestamp::from_millis(*n as i64)).collect();
        self.stage.on_batch(&mut batch).unwrap();
        assert!(batch.is_empty());
    }

    fn watermark(&mut self, ms: i64) {
        self.stage.on_watermark(Timestamp::from_millis(ms)).unwrap();
    }

    /// Whether it is ready.
    fn poll(&mut self) -> bool {
        let _in = self.runtime.enter();
        match self.stage.poll_ready(true, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => done.map(|()| true).unwrap(),
            Poll::Pending => false,
        }
    }

    /// As the subtask does: when the stage is ready, and the part of the checkpoint.
    fn barrier(&mut self, epoch: Epoch) -> Option<ItemsSnapshot> {
        assert!(self.poll(), "a barrier has to wait");
        let _in = self.runtime.enter();
        self.stage.on_barrier(epoch).unwrap();
        loop {
            match self.runtime.block_on(self.reports.recv()).unwrap() {
                Report::Part { participant: 7, epoch: of, part: Part::Items { name, subtask: 0, snapshot } } => {
                    assert_eq!((of, name.as_str()), (epoch, "asks"));
                    return snapshot;
                }
                Report::Ready | Report::Progress | Report::Owing => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn answer(&mut self, n: u64) {
        self.answers.send(n).unwrap();
        self.poll();
    }

    /// The items in a part.
    fn items(&self, part: &ItemsSnapshot) -> Vec<u64> {
        let items: Vec<(u64, i64)> = store(self.directory.path(), (0, 1), vec![part.clone()]).load().unwrap();
        items.into_iter().map(|(n, _)| n).collect()
    }
}

#[test]
fn a_barrier_passes_while_answers_are_waited_for() {
    let mut bench = bench(100);
    bench.batch([1, 2, 3]);
    let part = bench.barrier(0).unwrap();
    assert_eq!(bench.items(&part), [1, 2, 3]);
    bench.answer(2);
    let part = bench.barrier(1).unwrap();
    assert_eq!(bench.items(&part), [1, 3]);
    bench.answer(1);
    bench.answer(3);
    assert_eq!(bench.barrier(2), None);
    assert_eq!(bench.next.take(), [Barrier(0), record(2), Barrier(1), record(1), record(3), Barrier(2)]);
}

#[test]
fn a_call_is_not_cut_in_two() {
    let mut bench = bench(100);
    bench.batch([1, 0, 2]);
    bench.watermark(9);
    for _ in 0..3 {
        assert!(!bench.poll(), "`on_batch` is under way");
    }
    bench.gate.take().unwrap().send(()).unwrap();
    let part = bench.barrier(0).unwrap();
    assert_eq!(bench.items(&part), [1, 0, 2]);
}

#[test]
fn a_watermark_does_not_overtake_what_is_under_way() {
    let mut bench = bench(100);
    bench.watermark(3);
    bench.batch([5, 7]);
    bench.watermark(10);
    bench.poll();
    assert_eq!(bench.next.take(), [Got::Watermark(3), Got::Watermark(4)]);
    bench.answer(7);
    bench.answer(5);
    assert_eq!(bench.next.take(), [record(7), record(5), Got::Watermark(10)]);
    bench.batch([12]);
    bench.watermark(12);
    bench.poll();
    bench.stage.on_idle().unwrap();
    bench.poll();
    bench.answer(12);
    assert_eq!(bench.next.take(), [Got::Watermark(11), record(12), Got::Watermark(12), Idle]);
    // the same one again says that something comes
    bench.batch([13]);
    bench.poll();
    assert_eq!(bench.next.take(), [Got::Watermark(12)]);
}

#[test]
fn the_end_waits_for_answers_and_barriers_for_the_end() {
    let mut bench = bench(100);
    bench.batch([1, 2]);
    bench.watermark(i64::MAX);
    bench.stage.on_end().unwrap();
    assert!(!bench.poll());
    bench.answer(2);
    assert_eq!(bench.next.take(), [Got::Watermark(0), record(2)]);
    bench.answer(1);
    assert_eq!(bench.next.take(), [record(1), Got::Watermark(i64::MAX), End]);
    assert_eq!(bench.barrier(0), None);
    assert_eq!(bench.next.take(), [Barrier(0)]);
}

#[test]
fn a_file_is_written_only_when_the_items_have_changed() {
    let mut bench = bench(100);
    assert_eq!(bench.barrier(0), None);
    bench.batch([1, 2]);
    let first = bench.barrier(1).unwrap();
    assert_eq!(bench.barrier(2), Some(first.clone()));
    bench.answer(1);
    let second = bench.barrier(3).unwrap();
    assert_ne!(first.file, second.file);
    bench.answer(2);
    assert_eq!(bench.barrier(4), None);
    let files = std::fs::read_dir(bench.directory.path().join("state")).unwrap().count();
    assert_eq!(files, 2);
}

#[test]
fn full_means_no_batch_unless_a_barrier_is_behind_it() {
    let mut bench = bench(2);
    bench.batch([1]);
    assert!(bench.poll());
    bench.batch([2]);
    assert!(!bench.poll(), "it has as many items as it wants");
    bench.stage.on_announced(0);
    assert!(bench.poll());
    bench.batch([3]);
    let part = bench.barrier(0).unwrap();
    assert_eq!(bench.items(&part), [1, 2, 3]);
    bench.stage.on_announced(0); // late
    assert!(!bench.poll());
    bench.answer(2);
    bench.answer(1);
    assert!(bench.poll());
}

#[test]
fn nothing_is_polled_while_what_follows_has_no_room() {
    let mut bench = bench(100);
    bench.batch([1, 2]);
    bench.poll();
    bench.next.closed.set(true);
    bench.answer(1);
    bench.answer(2);
    assert!(!bench.poll());
    assert_eq!(bench.next.take(), []);
    bench.next.closed.set(false);
    assert!(bench.poll());
    assert_eq!(bench.next.take(), [record(1), record(2)]);
}

#[test]
fn the_coordinator_knows_what_is_under_way_and_what_was_emitted() {
    fn reported(bench: &mut Bench) -> [usize; 2] {
        let reports: Vec<_> = std::iter::from_fn(|| bench.reports.try_recv().ok()).collect();
        let count = |is: fn(&Report) -> bool| reports.iter().filter(|r| is(r)).count();
        [count(|r| matches!(r, Report::Owing)), count(|r| matches!(r, Report::Progress))]
    }
    let mut bench = bench(100);
    bench.batch([1, 2]);
    bench.poll();
    assert_eq!(reported(&mut bench), [0, 0]);
    {
        let _in = bench.runtime.enter();
        bench.stage.on_barrier(0).unwrap();
    }
    assert!(matches!(bench.reports.try_recv(), Ok(Report::Owing)), "before its part of the checkpoint");
    let part = bench.runtime.block_on(bench.reports.recv()).unwrap();
    let Report::Part { part: Part::Items { snapshot: Some(snapshot), .. }, .. } = part else { panic!("{part:?}") };
    bench.answer(1);
    bench.answer(2);
    assert_eq!(reported(&mut bench), [0, 1]);
    bench.barrier(1);
    assert_eq!(reported(&mut bench), [0, 0], "nothing is left");
    let mut again = restored(bench.directory.clone(), (0, 1), vec![snapshot], 100);
    assert_eq!(reported(&mut again), [1, 0], "what was restored is under way");
}

#[test]
fn errors_name_the_operator() {
    let mut bench = bench(100);
    bench.batch([1]);
    bench.poll();
    bench.answers.send(u64::MAX).unwrap();
    let Poll::Ready(Err(error)) = bench.stage.poll_ready(true, &mut Context::from_waker(Waker::noop())) else {
        panic!("no error")
    };
    assert_eq!(error.to_string(), "operator `asks`, subtask 0: no answer");
}

/// Items of some subtasks, in a directory.
fn written(directory: &Path, lengths: &[u64]) -> Vec<ItemsSnapshot> {
    std::fs::create_dir(directory.join("state")).unwrap();
    let mut from = 0;
    let mut all = Vec::new();
    for (subtask, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
        let items: Vec<(u64, i64)> = (from..from + length).map(|n| (n, 0)).collect();
        from += length;
        let store = store(directory, (subtask, lengths.len()), Vec::new());
        all.push(store.write(1, &store.layout.put(&items).unwrap()).unwrap());
    }
    all
}

fn dealt(directory: &Path, snapshots: &[ItemsSnapshot], parallelism: usize) -> Vec<Vec<u64>> {
    let load = |subtask| store(directory, (subtask, parallelism), snapshots.to_vec()).load::<(u64, i64)>().unwrap();
    (0..parallelism).map(|subtask| load(subtask).into_iter().map(|(n, _)| n).collect()).collect()
}

#[test]
fn items_are_dealt_round() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = written(directory.path(), &[3, 0, 4]);
    let same = [vec![0, 1, 2], vec![], vec![3, 4, 5, 6]];
    assert_eq!(dealt(directory.path(), &snapshots, 3), same, "each has its own again");
    assert_eq!(dealt(directory.path(), &snapshots, 1), [vec![0, 1, 2, 3, 4, 5, 6]]);
    assert_eq!(dealt(directory.path(), &snapshots, 2), [vec![0, 2, 4, 6], vec![1, 3, 5]]);
    for parallelism in 1..10 {
        let mut all = dealt(directory.path(), &snapshots, parallelism).concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6], "{parallelism}");
    }
}

#[test]
fn other_items_are_refused_and_damage_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = written(directory.path(), &[2]);
    let check = |layout: ItemsLayout, found: &ItemsSnapshot| layout.check(found).unwrap_err().to_string();
    let layout = |version| ItemsLayout::of::<(u64, i64)>(version);
    layout(1).check(&snapshots[0]).unwrap();
    let text = check(ItemsLayout::of::<(u64, String)>(1), &snapshots[0]);
    assert!(text.contains("`asks` were `(u64,i64)`") && text.contains("are `(u64,str)`"), "{text}");
    let text = check(layout(2), &snapshots[0]);
    assert!(text.contains("`asks` have version 1 in the checkpoint and 2 in the program"), "{text}");
    let text = check(layout(1), &ItemsSnapshot { codec: 7, ..snapshots[0].clone() });
    assert!(text.contains("`asks` are encoded with codec 7"), "{text}");
    let path = directory.path().join(&snapshots[0].file.path);
    let content = std::fs::read(&path).unwrap();
    for wrong in [&content[1..], &content[..content.len() - 1], &content[..8], b"MSITEMS"] {
        std::fs::write(&path, wrong).unwrap();
        let found = store(directory.path(), (0, 1), snapshots.clone()).load::<(u64, i64)>().unwrap_err();
        assert!(found.to_string().contains("is damaged"), "{found}");
    }
}
