//! The stage of `split`: deals values into a batch per branch and hands each to what follows its branch. Marks go to
//! all branches, those that got no record included.

use super::chain::{Loop, Loops, call, run};
use super::stage::{Stage, every};
use crate::operator::{Chain, Collect, Deal};
use crate::{Batch, BoxError, Epoch, Error, Record, Timestamp};
use std::any::Any;
use std::task::{Context, Poll};

/// A stage whose record type only its batches tell.
pub(crate) trait Branch {
    /// Takes the records of the `Batch` of its type.
    fn on_batch(&mut self, batch: &mut dyn Any) -> Result<(), Error>;
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error>;
    fn on_idle(&mut self) -> Result<(), Error>;
    fn on_announced(&mut self, epoch: Epoch);
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error>;
    fn on_end(&mut self) -> Result<(), Error>;
    fn on_decided(&mut self, epoch: Epoch) -> Result<(), Error>;
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    fn background(&mut self) -> Result<bool, Error>;
}

impl<T: 'static> Branch for Box<dyn Stage<T>> {
    fn on_batch(&mut self, batch: &mut dyn Any) -> Result<(), Error> {
        match batch.downcast_mut::<Batch<T>>() {
            Some(batch) if batch.is_empty() => Ok(()),
            Some(batch) => (**self).on_batch(batch),
            None => Err(super::mismatch::<T>()),
        }
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        (**self).on_watermark(mark)
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        (**self).on_idle()
    }
    fn on_announced(&mut self, epoch: Epoch) {
        (**self).on_announced(epoch);
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        (**self).on_barrier(epoch)
    }
    fn on_end(&mut self) -> Result<(), Error> {
        (**self).on_end()
    }
    fn on_decided(&mut self, epoch: Epoch) -> Result<(), Error> {
        (**self).on_decided(epoch)
    }
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        (**self).poll_ready(all, cx)
    }
    fn background(&mut self) -> Result<bool, Error> {
        (**self).background()
    }
}

/// The loops of a chain whose results are dealt into a batch per branch.
pub(crate) fn branch_loops<T: Deal, C: Chain<T>>(chain: C, timed: bool) -> Loops<C::In, T::Batches> {
    Loops::of(chain, move |mut chain: C| {
        Box::new(move |batch, batches| {
            let dealer: Dealer<'_, T> = Dealer { batches, timed, error: None };
            run(&mut chain, batch, dealer).error
        })
    })
}

/// A fused chain that ends in branches.
pub(crate) struct BranchStage<I, T: Deal> {
    run: Loop<I, T::Batches>,
    batches: T::Batches,
    branches: Vec<Box<dyn Branch>>,
    /// Whether watermarks go through here.
    marked: bool,
    /// For errors.
    place: String,
}

impl<I, T: Deal> BranchStage<I, T> {
    pub(crate) fn new(run: Loop<I, T::Batches>, branches: Vec<Box<dyn Branch>>, place: String) -> Self {
        Self { run, batches: T::batches(), branches, marked: false, place }
    }

    /// Whether all are ready.
    fn poll_each(&mut self, all: bool, cx: &mut Context<'_>) -> Result<bool, Error> {
        every(self.branches.iter_mut().map(|branch| branch.poll_ready(all, cx)))
    }

    fn each(&mut self, f: impl FnMut(&mut Box<dyn Branch>) -> Result<(), Error>) -> Result<(), Error> {
        self.branches.iter_mut().try_for_each(f)
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

impl<I, T: Deal> Stage<I> for BranchStage<I, T> {
    fn on_batch(&mut self, batch: &mut Batch<I>) -> Result<(), Error> {
        call(&mut self.run, batch, &mut self.batches, &self.place)?;
        let mut done = Ok(());
        T::each(&mut self.batches, &mut |branch, batch| {
            if done.is_ok() {
                done = self.branches[branch].on_batch(batch);
            }
        });
        done
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.marked = true;
        self.each(|branch| branch.on_watermark(mark))
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.each(|branch| branch.on_idle())
    }
    fn on_announced(&mut self, epoch: Epoch) {
        self.branches.iter_mut().for_each(|branch| branch.on_announced(epoch));
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.each(|branch| branch.on_barrier(epoch))
    }
    fn on_end(&mut self) -> Result<(), Error> {
        self.each(|branch| branch.on_end())
    }
    fn on_decided(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.each(|branch| branch.on_decided(epoch))
    }
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let ready = self.poll_each(all, cx)?;
        if !ready && !all && self.marked {
            // what one branch waits for may be a watermark that another one still gathers records before
            self.poll_each(true, cx)?;
        }
        if ready { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
    fn background(&mut self) -> Result<bool, Error> {
        let mut more = false;
        self.each(|branch| {
            more |= branch.background()?;
            Ok(())
        })?;
        Ok(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{Boxed, Either};
    use std::cell::RefCell;
    use std::fmt::Debug;
    use std::rc::Rc;

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

    impl<T: Debug> Stage<T> for Ear {
        fn on_batch(&mut self, batch: &mut Batch<T>) -> Result<(), Error> {
            let times: Vec<_> = batch.times.iter().map(|time| time.as_millis()).collect();
            self.note(format!("{:?} at {times:?}", batch.values))?;
            batch.clear();
            Ok(())
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
        fn poll_ready(&mut self, _: bool, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
            Poll::Ready(Ok(()))
        }
        fn background(&mut self) -> Result<bool, Error> {
            Ok(false)
        }
    }

    type Value = Either<u64, &'static str>;

    fn split(timed: bool) -> (BranchStage<Value, Value>, [Ear; 2]) {
        let ears = [Ear::default(), Ear::default()];
        let (left, right): (Box<dyn Stage<u64>>, Box<dyn Stage<&'static str>>) =
            (Box::new(ears[0].clone()), Box::new(ears[1].clone()));
        let run = branch_loops::<Value, _>(Boxed::new(), timed).make();
        (BranchStage::new(run, vec![Box::new(left), Box::new(right)], "here".into()), ears)
    }

    fn batch(values: Vec<Value>, times: &[i64]) -> Batch<Value> {
        let times = times.iter().map(|ms| Timestamp::from_millis(*ms)).collect();
        Batch { times, ..Batch::from(values) }
    }

    #[test]
    fn each_branch_gets_its_records_with_their_times() {
        use Either::{Left, Right};
        let (mut split, ears) = split(true);
        split.on_batch(&mut batch(vec![Left(1), Right("a"), Left(2), Left(3)], &[5, 6, 7, 8])).unwrap();
        assert_eq!(ears.each_ref().map(Ear::heard), [["[1, 2, 3] at [5, 7, 8]"], ["[\"a\"] at [6]"]]);
        let (mut split, ears) = self::split(false);
        split.on_batch(&mut batch(vec![Right("b"), Right("c")], &[])).unwrap();
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
        for ear in ears {
            assert_eq!(ear.heard(), ["watermark 3", "idle", "announced 1", "barrier 1", "decided 1", "end"]);
        }
    }

    #[test]
    fn a_batch_of_another_type_is_a_fault_of_ours() {
        let (_, [ear, _]) = split(true);
        let mut branch: Box<dyn Stage<u64>> = Box::new(ear);
        let error = Branch::on_batch(&mut branch, &mut Batch::<u8>::new()).unwrap_err();
        assert!(error.to_string().contains("a fault in millstream"), "{error}");
    }
}
