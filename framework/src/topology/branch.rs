//! Several streams of one: `split` by the variants of an enum, and what becomes of the errors in a stream of results.

use super::graph::{Kind, Link, Port};
use super::node::{BranchesOf, Of};
use super::stream::{NewNode, Stream, Topology};
use crate::operator::{As, Boxed, Chain, Deal, Either, Is, OrFail, OrSkip, Skipped, Then};
use crate::record::AnyBatch;
use crate::subtask::branch_loops;
use crate::{BoxError, Record};
use std::panic::Location;
use std::sync::Arc;

/// What `split` takes apart: a `Result`, an [`Either`], and enums of one-field variants with `#[derive(Branches)]`.
///
/// ```ignore
/// #[derive(Branches)]
/// enum Event {
///     Click(Click),
///     Purchase(Purchase),
/// }
/// let (clicks, purchases) = events.split();
/// ```
#[diagnostic::on_unimplemented(
    message = "a stream of `{Self}` cannot be split",
    label = "`{Self}` is not an enum with `#[derive(Branches)]`",
    note = "`split` works on `Result`, on `Either` and on enums of one-field variants with `#[derive(Branches)]`"
)]
pub trait Branches: Deal {
    /// A tuple of a stream per branch.
    type Streams;
    #[doc(hidden)]
    fn streams(ports: &mut Ports) -> Self::Streams;
}

/// The outputs of a split, asked for one after the other.
#[doc(hidden)]
#[derive(Debug)]
pub struct Ports {
    topology: Topology,
    node: usize,
}

impl Ports {
    /// The next one.
    pub fn stream<T: Send + 'static>(&mut self) -> Stream<T> {
        let (topology, node) = (self.topology.clone(), self.node);
        let edge = Arc::new(Of::new());
        let port = topology.add_port(node, edge.clone());
        Stream { topology, port: Port { node, port }, edge, chain: Boxed::new() }
    }
}

macro_rules! of_two { ($($two:ident: $first:ident, $second:ident;)*) => { $(
    impl<A: Send + 'static, B: Send + 'static> Deal for $two<A, B> {
        const BRANCHES: &'static [&'static str] = &[stringify!($first), stringify!($second)];
        type Batches = (crate::Batch<A>, crate::Batch<B>);
        fn batches() -> Self::Batches {
            Default::default()
        }
        #[inline(always)]
        fn deal(Record { value, time }: Record<Self>, timed: bool, into: &mut Self::Batches) {
            let times = match value {
                $two::$first(value) => {
                    into.0.values.push(value);
                    &mut into.0.times
                }
                $two::$second(value) => {
                    into.1.values.push(value);
                    &mut into.1.times
                }
            };
            if timed {
                times.push(time);
            }
        }
        fn each(batches: &mut Self::Batches, show: &mut dyn FnMut(usize, &mut dyn AnyBatch)) {
            show(0, &mut batches.0);
            show(1, &mut batches.1);
        }
    }
    #[diagnostic::do_not_recommend]
    impl<A: Send + 'static, B: Send + 'static> Branches for $two<A, B> {
        type Streams = (Stream<A>, Stream<B>);
        fn streams(ports: &mut Ports) -> Self::Streams {
            (ports.stream(), ports.stream())
        }
    }
)* } }
of_two! {
    Result: Ok, Err;
    Either: Left, Right;
}

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// One stream per variant, as a tuple in the order of the variants. Each is a stream like any other: it may be
    /// keyed, cloned, sunk; one that is not wanted ends with [`discard`](Stream::discard). Records of one branch stay
    /// in order and keep their times. The steps before are fused into it: a split costs a move per record.
    ///
    /// ```
    /// # use millstream_framework::Stream;
    /// # fn topology(lines: Stream<String>) -> (Stream<u64>, Stream<String>) {
    /// let (numbers, bad) = lines.map(|line| line.parse::<u64>().map_err(|e| format!("{line}: {e}"))).split();
    /// # (numbers, bad)
    /// # }
    /// ```
    #[track_caller]
    pub fn split<B: Branches>(self) -> B::Streams
    where
        T: Is<B>,
    {
        let Stream { topology, port, chain, .. } = self.fused(As::<B>::new());
        let timed = topology.is_timed(port);
        let kind = Kind::Branches(Arc::new(BranchesOf::<B>::new(branch_loops::<B, _>(chain, timed))));
        let new = NewNode { name: None, what: "split", kind, inputs: vec![port], link: Link::Direct };
        let node = topology.add_node(new, timed, B::BRANCHES);
        B::streams(&mut Ports { topology, node })
    }
}

/// What becomes of errors in a stream: until one of these is called, or `split`, they are values like any other.
impl<T: Send + 'static, E: Into<BoxError> + Send + 'static, C: Chain<Result<T, E>>> Stream<Result<T, E>, C> {
    /// The first error ends the attempt, as one of [`try_map`](Stream::try_map) does: the job recovers from its last
    /// checkpoint, and after some attempts it fails.
    pub fn or_fail(self) -> Stream<T, Then<C, OrFail, Result<T, E>>> {
        self.fused(OrFail)
    }

    /// Leaves errors out, counted and warned of as [`Skipped`] says. As `operator` the metric has the name of
    /// the operator or source before it, and where it was written.
    #[track_caller]
    pub fn or_skip(self) -> Stream<T, Then<C, OrSkip, Result<T, E>>> {
        let behind = self.topology.name_before(self.port);
        let skipped = Skipped::of(self.topology.job(), format!("{behind}, or_skip at {}", Location::caller()));
        self.fused(OrSkip::new(skipped))
    }
}
