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
        const { assert!(O::ITEM_VERSION > 0, "`ITEM_VERSION` is a whole number from 1") };
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
    /// share work out use [`rebalance`](Self::rebalance), to read a stream twice clone it. All that reads one call of
    /// this has one parallelism; where it differs the clones come first.
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

#[cfg(test)]
mod tests {
    use super::super::stream::Topology;
    use super::super::{Format, Plan, validate};
    use super::*;
    use crate::operator::Output;
    use crate::{Batch, BoxError};

    struct Silent;
    impl Operator for Silent {
        type In = u64;
        type Out = u64;
        type Item = u64;
        async fn on_batch(&mut self, _: Batch<u64>, _: &mut Vec<u64>, _: &mut Output<u64>) -> Result<(), BoxError> {
            Ok(())
        }
    }

    /// What follows a broadcast is a task of its own with lanes from each subtask to each, and an operator joins it.
    #[test]
    fn a_plan_with_broadcast_and_operator() {
        let topology = Topology::new("job", crate::values::Values::default());
        let numbers: Stream<u64> = topology.merge("union", Vec::new(), Link::Forward);
        numbers.parallelism(2).broadcast_all().operator("silent", || Silent).discard();
        let graph = topology.into_graph();
        validate(&graph).unwrap();
        let plan = Plan::new(graph, 3);
        let mermaid = plan.describe("job", Format::Mermaid);
        for expect in ["n0 -- broadcast --> n1", "n1[\"broadcast x3\"]", "n1 --> n2", "[\"silent<br/>operator x3\"]"] {
            assert!(mermaid.contains(expect), "{expect}: {mermaid}");
        }
        assert!(plan.describe("job", Format::Text).contains("<- 0 (broadcast)"));
        assert!(plan.describe("job", Format::Json).contains("\"link\": \"broadcast\""));
        let targets: Vec<_> = (0..2).map(|writer| plan.targets(&plan.exchanges[0], writer)).collect();
        assert_eq!(targets, [[0, 1, 2], [0, 1, 2]]);
    }

    /// An operator with a parallelism of its own gets all records in each subtask, too, also behind steps.
    #[test]
    fn a_broadcast_is_for_the_subtasks_of_who_reads_it() {
        let topology = Topology::new("job", crate::values::Values::default());
        let numbers: Stream<u64> = topology.merge("union", Vec::new(), Link::Forward);
        numbers.broadcast_all().map(|n| n).operator("silent", || Silent).parallelism(5).discard();
        let graph = topology.into_graph();
        validate(&graph).unwrap();
        let plan = Plan::new(graph, 3);
        assert_eq!(
            (plan.tasks.len(), plan.tasks[1].parallelism),
            (2, 5),
            "the operator joins the task of the broadcast"
        );

        let topology = Topology::new("job", crate::values::Values::default());
        let all = topology.merge::<u64>("union", Vec::new(), Link::Forward).broadcast_all();
        all.clone().operator("one", || Silent).parallelism(2).discard();
        all.clone().operator("two", || Silent).parallelism(2).discard();
        all.operator("three", || Silent).parallelism(3).discard();
        let error = validate(&topology.into_graph()).unwrap_err().to_string();
        assert!(error.starts_with("the operator at ") && error.lines().count() == 1, "{error}");
        assert!(error.contains("has a parallelism of 3, but what `broadcast_all` at "), "{error}");
        assert!(error.contains("goes to 2 others: give them one parallelism"), "{error}");
    }
}
