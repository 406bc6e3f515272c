//! What streams without keys can do beyond steps: operators with items, and records for all subtasks. The contract of
//! operators is in `operator/unkeyed.rs`.

use super::graph::{Kind, Link};
use super::node::OperatorOf;
use super::stream::{NewNode, Stream};
use crate::operator::{Chain, Operator};
use crate::{Data, Name};
use std::sync::Arc;

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// An operator without keys, which is handed whole batches, may start async work, and keeps a list of items.
    /// `make` is called once per subtask, on the thread the operator stays on; clients and settings are captured by it.
    /// `name` is the identity of the items. [`Operator`] says what is called when.
    #[track_caller]
    pub fn operator<O, F>(self, name: impl Name, make: F) -> Stream<O::Out>
    where
        O: Operator<In = T>,
        F: Fn() -> O + Send + Sync + 'static,
    {
        let (topology, port) = self.boxed().into_parts();
        let timed = topology.is_timed(port);
        let kind = Kind::Operator(Arc::new(OperatorOf { make, timed }));
        let (name, what) = (Some(name.into_name()), "operator");
        topology.add(NewNode { name, what, kind, inputs: vec![port], link: Link::Direct }, timed)
    }

    /// Gives every record to **every** subtask of what follows, cloned for all but one; records of one subtask stay in
    /// their order. For rules and settings that each subtask of an [`operator`](Self::operator) is to know.
    ///
    /// What follows sees each record as often as it has subtasks, and at another parallelism another number of times: a
    /// sink writes it so often, and a keyed operator, to whose one subtask all the copies go, counts each of them. To
    /// share work out use [`rebalance`](Self::rebalance), to read a stream twice clone it.
    #[doc(alias = "broadcast")]
    #[track_caller]
    pub fn broadcast_all(self) -> Stream<T>
    where
        T: Data + Clone,
    {
        let (topology, port) = self.boxed().cloned().into_parts();
        topology.merge("broadcast", vec![port], Link::Broadcast)
    }
}
