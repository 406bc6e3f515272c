//! Watermarks of several inputs as one: the least of those that count. Pure; the inputs are the lanes of a gate, or the
//! splits of a source.
//!
//! An input counts as long as it may still bring records soon: one that is idle does not, one that has ended stands at
//! [`Timestamp::MAX`], and one without event time was never asked. A record or a watermark makes an idle input count
//! again; what it brings behind the watermark that went on meanwhile is late. If none counts, those that are idle or
//! have ended no longer wait for each other, and the largest of their watermarks is what all of them have reached.

use crate::Timestamp;

/// What whoever comes next is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The watermark has advanced, or something comes again after a pause.
    Watermark(Timestamp),
    /// Nothing comes for now.
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Counts,
    Idle,
    Ended,
    /// Without event time.
    Apart,
}

#[derive(Debug, Clone, Copy)]
struct Input {
    mark: Timestamp,
    standing: Standing,
}

/// The inputs and what has been told of them.
#[derive(Debug)]
pub(crate) struct Marks {
    inputs: Vec<Input>,
    /// Something has changed that may change the whole.
    changed: bool,
    /// The least it may be.
    from: Timestamp,
    told: Timestamp,
    /// The last one before the end.
    reached: Timestamp,
    told_idle: bool,
}

impl Marks {
    /// Inputs that have event time or not. `from` is what is told first, in a restored job the watermark it had.
    pub(crate) fn new(timed: impl IntoIterator<Item = bool>, from: Timestamp) -> Self {
        let standing = |timed| if timed { Standing::Counts } else { Standing::Apart };
        let input = |timed| Input { mark: Timestamp::MIN, standing: standing(timed) };
        let inputs = timed.into_iter().map(input).collect();
        Self { inputs, changed: true, from, told: Timestamp::MIN, reached: Timestamp::MIN, told_idle: false }
    }

    /// One more input with event time.
    pub(crate) fn add(&mut self) {
        self.inputs.push(Input { mark: Timestamp::MIN, standing: Standing::Counts });
        self.changed = true;
    }

    /// An input's watermark; it counts from now on.
    pub(crate) fn advance(&mut self, input: usize, mark: Timestamp) {
        let Input { mark: old, standing } = &mut self.inputs[input];
        match standing {
            _ if mark == Timestamp::MAX => return self.end(input),
            Standing::Counts => self.changed |= mark > *old && *old <= self.told,
            Standing::Idle => (*standing, self.changed) = (Standing::Counts, true),
            Standing::Ended | Standing::Apart => return,
        }
        *old = mark.max(*old);
    }

    /// Something came from this input: it counts again. Whether it did not before.
    #[inline]
    pub(crate) fn wake(&mut self, input: usize) -> bool {
        let was_idle = self.inputs[input].standing == Standing::Idle;
        if was_idle {
            (self.inputs[input].standing, self.changed) = (Standing::Counts, true);
        }
        was_idle
    }

    /// Nothing comes from this input for now.
    pub(crate) fn rest(&mut self, input: usize) {
        if self.inputs[input].standing == Standing::Counts {
            (self.inputs[input].standing, self.changed) = (Standing::Idle, true);
        }
    }

    /// No record follows from this input.
    pub(crate) fn end(&mut self, input: usize) {
        if self.inputs[input].standing != Standing::Apart {
            (self.inputs[input].standing, self.changed) = (Standing::Ended, true);
        }
    }

    /// An input's watermark if it counts.
    pub(crate) fn of(&self, input: usize) -> Option<Timestamp> {
        let Input { mark, standing } = self.inputs[input];
        (standing == Standing::Counts).then_some(mark)
    }

    /// The watermark of the whole, as it was told last; after the end the one before, for a job that has ended may be
    /// started again with more input.
    pub(crate) fn reached(&self) -> Timestamp {
        self.reached
    }

    /// Whether the whole holds nobody back.
    pub(crate) fn is_over_or_idle(&self) -> bool {
        self.told_idle || self.told == Timestamp::MAX
    }

    /// All inputs have ended, if there are any: what is left to tell.
    pub(crate) fn finish(&mut self) -> Option<Mark> {
        self.inputs.iter_mut().for_each(|input| input.standing = Standing::Ended);
        let last = std::mem::replace(&mut self.told, Timestamp::MAX) < Timestamp::MAX;
        last.then_some(Mark::Watermark(Timestamp::MAX))
    }

    /// What there is to tell; to be asked after each change until there is nothing.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Mark> {
        if self.changed { self.tell() } else { None }
    }

    fn tell(&mut self) -> Option<Mark> {
        let of = |standing| self.inputs.iter().filter(move |i| i.standing == standing).map(|i| i.mark);
        let (counting, resting, ended) =
            (of(Standing::Counts).min(), of(Standing::Idle).max(), of(Standing::Ended).max());
        let idle = counting.is_none() && resting.is_some();
        let over = ended.map(|_| Timestamp::MAX);
        let all = counting.or(resting.max(ended).filter(|_| idle)).or(over).unwrap_or(self.from);
        let reached = all.max(self.from).max(self.told);
        if reached > self.told || (self.told_idle && !idle) {
            (self.told, self.told_idle) = (reached, false);
            if reached < Timestamp::MAX {
                self.reached = reached;
            }
            return Some(Mark::Watermark(reached));
        }
        self.changed = false;
        (idle && !std::mem::replace(&mut self.told_idle, idle)).then_some(Mark::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Advance(i64),
        Wake,
        Rest,
        End,
    }

    fn events() -> impl Strategy<Value = Vec<(usize, Event)>> {
        let event = prop_oneof![
            6 => (0i64..50).prop_map(Event::Advance),
            2 => Just(Event::Wake),
            3 => Just(Event::Rest),
            1 => Just(Event::End),
        ];
        prop::collection::vec((0usize..4, event), 0..60)
    }

    /// The whole as defined: by what each input did last.
    fn oracle(timed: &[bool], events: &[(usize, Event)]) -> (i64, bool) {
        let (mut best, mut idle) = (i64::MIN, false);
        for n in 0..=events.len() {
            let (mut counting, mut resting, mut ended) = (vec![], vec![], vec![]);
            for input in (0..timed.len()).filter(|i| timed[*i]) {
                let own = || events[..n].iter().filter(|(i, _)| *i == input).map(|(_, e)| *e);
                let before_end = || own().take_while(|e| !matches!(e, Event::End));
                let mark = before_end().filter_map(|e| if let Event::Advance(ms) = e { Some(ms) } else { None }).max();
                if own().count() > before_end().count() {
                    ended.push(mark.unwrap_or(i64::MIN));
                } else if matches!(before_end().last(), Some(Event::Rest)) {
                    resting.push(mark.unwrap_or(i64::MIN));
                } else {
                    counting.push(mark.unwrap_or(i64::MIN));
                }
            }
            idle = counting.is_empty() && !resting.is_empty();
            let others = resting.iter().chain(&ended).max().copied();
            let all_over = (resting.is_empty() && !ended.is_empty()).then_some(i64::MAX);
            let now = counting.into_iter().min().or(all_over).or(others);
            best = best.max(now.unwrap_or(i64::MIN));
        }
        (best, idle)
    }

    proptest! {
        /// Whatever happens: what was told is the least of those that count, it never goes back, and whether the whole
        /// is idle is known as well.
        #[test]
        fn the_whole_is_as_defined(timed in prop::collection::vec(any::<bool>(), 4), events in events()) {
            let mut marks = Marks::new(timed.iter().copied(), Timestamp::MIN);
            let (mut told, mut idle) = (Timestamp::MIN, false);
            for n in 0..=events.len() {
                if let Some((input, event)) = n.checked_sub(1).map(|last| events[last]) {
                    match event {
                        Event::Advance(ms) => marks.advance(input, Timestamp::from_millis(ms)),
                        Event::Wake => _ = marks.wake(input),
                        Event::Rest => marks.rest(input),
                        Event::End => marks.end(input),
                    }
                }
                while let Some(mark) = marks.next() {
                    match mark {
                        Mark::Watermark(mark) => {
                            prop_assert!(mark > told || (mark == told && idle));
                            (told, idle) = (mark, false);
                        }
                        Mark::Idle => {
                            prop_assert!(!idle);
                            idle = true;
                        }
                    }
                }
                prop_assert_eq!((told.as_millis(), idle), oracle(&timed, &events[..n]));
            }
        }

        /// A restored watermark is never undercut.
        #[test]
        fn begins_where_it_was(events in events()) {
            let from = Timestamp::from_millis(25);
            let mut marks = Marks::new([true; 4], from);
            prop_assert_eq!(marks.next(), Some(Mark::Watermark(from)));
            for (input, event) in events {
                if let Event::Advance(ms) = event {
                    marks.advance(input, Timestamp::from_millis(ms));
                }
                while let Some(mark) = marks.next() {
                    prop_assert!(matches!(mark, Mark::Watermark(mark) if mark > from));
                }
            }
        }
    }
}
