//! [`KeyedStream`]: records with equal keys meet in one subtask. Operators on it are in the crate of operators, all
//! made of [`KeyedStream::process`].

use super::graph::{Kind, Link, Port};
use super::node::ProcessOf;
use super::stream::{Called, Stream, Topology};
use crate::operator::Process;
use crate::state::State;
use crate::subtask::KeyOf;
use crate::{Key, Name};
use std::fmt;
use std::sync::Arc;

/// A stream whose records with equal keys meet in one place, in the order in which they arrive.
#[must_use = "a stream does nothing until it reaches a sink"]
pub struct KeyedStream<K, T: Send + 'static> {
    stream: Stream<T>,
    key_of: KeyOf<K, T>,
}

impl<K, T: Send + 'static> fmt::Debug for KeyedStream<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyedStream<{}, {}>", std::any::type_name::<K>(), std::any::type_name::<T>())
    }
}

/// Fan-out: the records are cloned for each further reader.
impl<K: Key, T: Clone + Send + 'static> Clone for KeyedStream<K, T> {
    fn clone(&self) -> Self {
        Self { stream: self.stream.clone(), key_of: self.key_of.clone() }
    }
}

impl<K: Key, T: Send + 'static> KeyedStream<K, T> {
    pub(crate) fn new(stream: Stream<T>, key_of: KeyOf<K, T>) -> Self {
        Self { stream, key_of }
    }

    pub(crate) fn origin(&self) -> (&Topology, Port) {
        self.stream.origin()
    }

    /// Runs a process function on each record, with the state of its key. `name` is the identity of that state.
    #[track_caller]
    pub fn process<P: Process<Key = K, In = T>>(self, name: impl Name, process: P) -> Stream<P::Out> {
        let name = name.into_name();
        let keyed = if P::State::HAS_EVENT_TIMERS { self.require_event_time(&name) } else { self };
        let Self { stream, key_of } = keyed;
        let (topology, port) = stream.into_parts();
        let timed = topology.is_timed(port);
        let kind = Kind::Process(Arc::new(ProcessOf { process: Arc::new(process), key_of, timed }));
        topology.add_behind(port, kind, Called { name: Some(name), what: "process", link: Link::Hash })
    }
}
