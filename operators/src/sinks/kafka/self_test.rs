//! Tries brokers out.

use crate::kafka::Cluster;
use millstream_framework::Error;

/// What was found by [`Kafka::check`](crate::Kafka::check).
#[derive(Debug, Clone)]
pub struct SelfTest {}

pub(crate) async fn run(_cluster: &Cluster) -> Result<SelfTest, Error> {
    Ok(SelfTest {})
}
