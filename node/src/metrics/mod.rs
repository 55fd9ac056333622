//! What a node shows of itself at a scrape.
//!
//! ```text
//!  fronts, partitions ──► Meters (atomics in the Context) ─┐
//!  broker, image, raft, store: what they know anyway ──────┼─ NodeMetrics::gather ─► Page
//! ```
//!
//! Invariants: gathering changes nothing and holds no lock longer than a partition's short one; series by topic,
//! partition or group are at most as many as the limit says, the first by name, and what is left out is counted; no
//! client chooses a label, but for names of topics and groups. A [`NodeMetrics`] does not keep its node alive.

mod cluster;
mod groups;
mod meters;
mod requests;
mod storage;
mod table;

pub use meters::{Meters, Requests, Sent, TopicMeters, records_in};
pub use table::METRICS;

use crate::broker::Broker;
use crate::context::Context;
use std::sync::{Arc, Weak};
use strandline_metrics::{Page, Source};

/// The metrics of one node, as long as it runs.
#[derive(Debug)]
pub struct NodeMetrics {
    context: Weak<Context>,
    broker: Weak<Broker>,
    /// Series of each kind that has one for each topic, partition or group.
    limit: usize,
}

impl NodeMetrics {
    pub(crate) fn new(context: &Arc<Context>, broker: &Arc<Broker>, limit: usize) -> Self {
        NodeMetrics { context: Arc::downgrade(context), broker: Arc::downgrade(broker), limit }
    }
}

impl Source for NodeMetrics {
    fn gather(&self, page: &mut Page) {
        let (Some(context), Some(broker)) = (self.context.upgrade(), self.broker.upgrade()) else { return };
        let partitions: Vec<_> = {
            let mut all: Vec<_> = broker.partitions().iter().map(|partition| partition.reading()).collect();
            all.sort_unstable_by(|a, b| (&a.topic, a.tp.partition).cmp(&(&b.topic, b.tp.partition)));
            all
        };
        requests::gather(&context.meters, page);
        cluster::gather(&context, &broker, &partitions, self.limit, page);
        groups::gather(&context, &partitions, self.limit, page);
        storage::gather(&context, page);
    }
}
