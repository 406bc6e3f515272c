//! The stage of `split`: deals values into a batch per branch and hands each to what follows its branch. Marks go to
//! all branches, those that got no record included.

use super::chain::{Loop, Loops, Run, Typed, run};
use super::stage::{AnyStage, Control, Followers};
use crate::operator::{Chain, Collect, Deal};
use crate::record::AnyBatch;
use crate::{Batch, BoxError, Error, Record};
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

/// The loops of a chain whose results are dealt into a batch per branch.
pub(crate) fn branch_loops<T: Deal, C: Chain<T>>(chain: C, timed: bool) -> Loops {
    Loops::new(Arc::new(IntoBranches::<T, C> { chain, timed, of: PhantomData }))
}

#[inline(never)]
fn into_branches<T: Deal, C: Chain<T>>(
    chain: &C,
    scratch: &mut C::Scratch,
    batch: &mut Batch<C::In>,
    batches: &mut T::Batches,
    timed: bool,
) -> Result<(), BoxError> {
    let dealer: Dealer<'_, T> = Dealer { batches, timed, error: None };
    run(chain, scratch, batch, dealer).error.map_or(Ok(()), Err)
}

struct IntoBranches<T, C> {
    chain: C,
    timed: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: Deal, C: Chain<T>> Run for IntoBranches<T, C> {
    fn run(&self, scratch: &mut dyn Any, batch: &mut dyn AnyBatch, out: &mut dyn Any) -> Result<(), BoxError> {
        let Typed { scratch, batch, out } = Typed::of(scratch, batch, out)?;
        into_branches::<T, C>(&self.chain, scratch, batch, out, self.timed)
    }

    fn scratch(&self) -> Box<dyn Any + Send> {
        Box::new(self.chain.scratch())
    }
}

/// A fused chain that ends in branches.
pub(crate) struct BranchStage<T: Deal> {
    run: Loop,
    batches: T::Batches,
    branches: Followers,
    /// For errors.
    place: String,
}

impl<T: Deal> BranchStage<T> {
    pub(crate) fn new(run: Loop, branches: Followers, place: String) -> Self {
        Self { run, batches: T::batches(), branches, place }
    }
}

/// Where the chain puts its results.
struct Dealer<'a, T: Deal> {
    batches: &'a mut T::Batches,
    timed: bool,
    error: Option<BoxError>,
}

impl<T: Deal> Collect<T> for Dealer<'_, T> {
    #[inline(always)]
    fn emit(&mut self, r: Record<T>) {
        T::deal(r, self.timed, self.batches);
    }
    #[cold]
    fn fail(&mut self, error: BoxError) {
        self.error.get_or_insert(error);
    }
}

impl<T: Deal> Control for BranchStage<T> {
    fn next(&mut self) -> &mut dyn Control {
        &mut self.branches
    }
}

impl<T: Deal> AnyStage for BranchStage<T> {
    fn on_any(&mut self, batch: &mut dyn AnyBatch) -> Result<(), Error> {
        self.run.call(batch, &mut self.batches, &self.place)?;
        let (branches, mut done) = (self.branches.all(), Ok(()));
        T::each(&mut self.batches, &mut |branch, batch| {
            if done.is_ok() && batch.len() > 0 {
                done = branches[branch].on_any(batch);
            }
        });
        done
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::{Stage, end};
    use super::*;
    use crate::operator::{Boxed, Either};
    use crate::{Epoch, Timestamp};
    use std::cell::RefCell;
    use std::fmt::Debug;
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};

    /// Notes what it hears.
    #[derive(Clone, Default)]
    struct Ear(Rc<RefCell<Vec<String>>>);

    impl Ear {
        fn note(&self, text: impl Into<String>) -> Result<(), Error> {
            self.0.borrow_mut().push(text.into());
            Ok(())
        }
        fn heard(&self) -> Vec<String> {
            std::mem::take(&mut self.0.borrow_mut())
        }
    }

    /// And the records.
    struct Hears<T>(Ear, PhantomData<T>);

    impl<T> Control for Hears<T> {
        fn next(&mut self) -> &mut dyn Control {
            &mut self.0
        }
    }

    impl<T: Debug + Send + 'static> Stage for Hears<T> {
        type In = T;
        fn on_batch(&mut self, batch: &mut Batch<T>) -> Result<(), Error> {
            let times: Vec<_> = batch.times.iter().map(|time| time.as_millis()).collect();
            self.0.note(format!("{:?} at {times:?}", batch.values))?;
            batch.clear();
            Ok(())
        }
    }

    impl Control for Ear {
        fn next(&mut self) -> &mut dyn Control {
            end()
        }
        fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
            self.note(format!("watermark {}", mark.as_millis()))
        }
        fn on_idle(&mut self) -> Result<(), Error> {
            self.note("idle")
        }
        fn on_announced(&mut self, epoch: Epoch) {
            let _ = self.note(format!("announced {epoch}"));
        }
        fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
            self.note(format!("barrier {epoch}"))
        }
        fn on_end(&mut self) -> Result<(), Error> {
            self.note("end")
        }
        fn on_decided(&mut self, epoch: Epoch) -> Result<(), Error> {
            self.note(format!("decided {epoch}"))
        }
        fn poll_ready(&mut self, all: bool, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
            self.note(if all { "all" } else { "ready" })?;
            Poll::Pending
        }
        fn background(&mut self) -> Result<bool, Error> {
            self.note("background")?;
            Ok(true)
        }
    }

    type Value = Either<u64, &'static str>;

    fn split(timed: bool) -> (BranchStage<Value>, [Ear; 2]) {
        let ears = [Ear::default(), Ear::default()];
        let left: Hears<u64> = Hears(ears[0].clone(), PhantomData);
        let right: Hears<&'static str> = Hears(ears[1].clone(), PhantomData);
        let run = branch_loops::<Value, _>(Boxed::new(), timed).make();
        (BranchStage::new(run, Followers::new(vec![Box::new(left), Box::new(right)]), "here".into()), ears)
    }

    fn batch(values: Vec<Value>, times: &[i64]) -> Batch<Value> {
        let times = times.iter().map(|ms| Timestamp::from_millis(*ms)).collect();
        Batch { times, ..Batch::from(values) }
    }

    #[test]
    fn each_branch_gets_its_records_with_their_times() {
        use Either::{Left, Right};
        let (mut split, ears) = split(true);
        split.on_any(&mut batch(vec![Left(1), Right("a"), Left(2), Left(3)], &[5, 6, 7, 8])).unwrap();
        assert_eq!(ears.each_ref().map(Ear::heard), [["[1, 2, 3] at [5, 7, 8]"], ["[\"a\"] at [6]"]]);
        let (mut split, ears) = self::split(false);
        split.on_any(&mut batch(vec![Right("b"), Right("c")], &[])).unwrap();
        assert_eq!(ears.each_ref().map(Ear::heard), [vec![], vec!["[\"b\", \"c\"] at []".to_owned()]]);
    }

    #[test]
    fn every_branch_hears_every_mark() {
        let (mut split, ears) = split(true);
        split.on_watermark(Timestamp::from_millis(3)).unwrap();
        split.on_idle().unwrap();
        split.on_announced(1);
        split.on_barrier(1).unwrap();
        split.on_decided(1).unwrap();
        split.on_end().unwrap();
        assert!(split.background().unwrap());
        let heard = ["watermark 3", "idle", "announced 1", "barrier 1", "decided 1", "end", "background"];
        for ear in ears {
            assert_eq!(ear.heard(), heard);
        }
    }

    #[test]
    fn branches_that_wait_are_asked_for_what_they_gather_once_there_are_watermarks() {
        let (mut split, ears) = split(true);
        let mut poll = |all| split.poll_ready(all, &mut Context::from_waker(Waker::noop()));
        assert!(poll(false).is_pending() && poll(true).is_pending());
        assert_eq!(ears.each_ref().map(Ear::heard), [["ready", "all"], ["ready", "all"]]);
        split.on_watermark(Timestamp::from_millis(3)).unwrap();
        assert!(split.poll_ready(false, &mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(ears.each_ref().map(Ear::heard), [["watermark 3", "ready", "all"], ["watermark 3", "ready", "all"]]);
    }

    #[test]
    fn a_batch_of_another_type_is_a_fault_of_ours() {
        let (mut split, [ear, _]) = split(true);
        let errors = [
            Hears::<u64>(ear, PhantomData).on_any(&mut Batch::<u8>::new()).unwrap_err(),
            split.on_any(&mut Batch::<u8>::new()).unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().contains("a fault in millstream"), "{error}");
        }
    }
}
