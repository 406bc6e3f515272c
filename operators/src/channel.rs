//! [`Channel`]: where pipelines meet the program they run in. The two ends are in `sources/channel.rs` and
//! `sinks/channel.rs`.

use crate::sinks::channel::{ChannelReceiver, ChannelSink};
use crate::sources::channel::{ChannelSender, ChannelSource};

/// A way from the program into a job that runs inside it, or from the job to the program.
///
/// ```
/// use millstream_operators::Channel;
///
/// let (sender, orders) = Channel::read::<u64>(10_000);
/// let (totals, receiver) = Channel::write::<u64>(10_000);
/// // in the topology: t.source("orders", orders.clone()) .. .sink("totals", totals.clone())
/// assert!(sender.try_send(7).is_ok());
/// # drop(receiver);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Channel;

impl Channel {
    /// A source, and what the program sends its records with: see [`ChannelSender`] for what is promised. At most
    /// `bound` records (at least one) are in memory, those included that no decided checkpoint holds yet: so no more
    /// than that many pass between two checkpoints.
    #[must_use]
    pub fn read<T: Clone + Send + 'static>(bound: usize) -> (ChannelSender<T>, ChannelSource<T>) {
        crate::sources::channel::channel(bound)
    }

    /// A sink, and what the program receives its records with: see [`ChannelReceiver`] for what is promised. About
    /// `bound` records (at least one) wait for the receiver and as many for the decision of their epoch: so about that
    /// many pass between two checkpoints.
    #[must_use]
    pub fn write<T: Send + 'static>(bound: usize) -> (ChannelSink<T>, ChannelReceiver<T>) {
        crate::sinks::channel::channel(bound)
    }
}
