//! Event time on streams: where times are set, and who asks for them. How watermarks follow from times is said in
//! `operator/watermarks.rs`.

use super::graph::{Kind, Link, TimeNeed};
use super::keyed::KeyedStream;
use super::node::EventTimeOf;
use super::stream::{NewNode, Stream};
use crate::operator::{Chain, Watermarks};
use crate::subtask::set_times;
use crate::{Key, Timestamp};
use std::panic::Location;
use std::sync::Arc;

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// Gives each record its event time, in place of the one it may have from its source, and the stream its
    /// watermarks. Belongs behind the source, before the first `key_by`, `union`, `rebalance`, operator or other
    /// parallelism: the watermark is one per split, and behind those nobody knows which split a record is of.
    ///
    /// A checkpoint keeps for each split the largest time seen and the watermark; a restarted job goes on from them.
    /// They belong to the source and to the place of this call among all `event_time` of that source, in the order in
    /// which the topology function makes them: do not change that order between two runs.
    ///
    /// ```
    /// # use millstream_framework::{Stream, Timestamp, Watermarks};
    /// # use std::time::Duration;
    /// # struct Order { at: Timestamp }
    /// # fn topology(orders: Stream<Order>) -> Stream<Order> {
    /// orders.event_time(|order| order.at, Watermarks::bounded(Duration::from_secs(5)))
    /// # }
    /// ```
    #[track_caller]
    pub fn event_time<M, F>(self, at: F, watermarks: Watermarks) -> Stream<T>
    where
        M: Into<Timestamp>,
        F: Fn(&T) -> M + Send + Sync + 'static,
    {
        let (topology, port) = self.boxed().into_parts();
        let kind = Kind::EventTime(Arc::new(EventTimeOf { set: set_times(at), watermarks }));
        let new = NewNode { name: None, what: "event_time", kind, inputs: vec![port], link: Link::Direct };
        topology.add(new, true)
    }
}

impl<K: Key, T: Send + 'static> KeyedStream<K, T> {
    /// For operators that work in event time: if the stream has none, that is a mistake that is shown with this place
    /// and with the name of the `operator` when the topology is built.
    #[track_caller]
    pub fn require_event_time(self, operator: &str) -> Self {
        let (topology, input) = self.origin();
        topology.needs_time(TimeNeed { operator: operator.to_owned(), site: Location::caller(), input });
        self
    }
}
