//! The cluster and its nodes.

use super::Admin;
use crate::call::{Repeat, Via};
use crate::error::{Error, Result};
use crate::metadata::Broker;
use futures::stream::BoxStream;
use strandline_wire::v1;

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Its id.
    pub cluster_id: String,
    /// Node that answered.
    pub node_id: u64,
    /// Version of the node that answered.
    pub version: String,
    /// Raft leader, where the controller runs.
    pub raft_leader: Option<u64>,
    /// Raft term.
    pub raft_term: u64,
    /// Last index in the Raft log of the node that answered.
    pub raft_last_index: u64,
    /// Last index that it has applied.
    pub raft_applied_index: u64,
    /// Nodes that vote.
    pub voters: Vec<u64>,
    /// Nodes that follow without a vote.
    pub learners: Vec<u64>,
    /// Registered brokers.
    pub brokers: Vec<Broker>,
    /// Number of topics.
    pub topics: u32,
    /// Number of partitions.
    pub partitions: u32,
    /// Partitions with fewer in-sync replicas than assigned ones.
    pub under_replicated: u32,
    /// Partitions without a leader.
    pub leaderless: u32,
    /// How leaders and replicas are spread.
    pub leaders: Vec<LeaderCount>,
    /// A majority confirmed, through the metadata leader, that this was so when it was asked for. Otherwise it is what
    /// the node knew last: it is cut off, or there is no majority.
    pub confirmed: bool,
}

/// One broker's share of the partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderCount {
    /// Broker id.
    pub broker_id: u64,
    /// Partitions that it leads.
    pub leads: u32,
    /// Partitions that it holds a replica of.
    pub replicas: u32,
}

/// How far the removal of a node has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovalProgress {
    /// What is being done.
    pub step: String,
    /// Replicas still to move.
    pub replicas_left: u32,
    /// The node is removed; the stream ends.
    pub done: bool,
}

impl Admin {
    /// The state of the cluster, from any node that answers.
    pub async fn cluster_status(&self) -> Result<ClusterStatus> {
        let answer = self
            .client
            .inner
            .call("cluster status".to_owned(), Via::Any, Repeat::Read, |mut wire, _| {
                Box::pin(async move { wire.cluster_status(v1::ClusterStatusRequest {}).await })
            })
            .await?;
        Ok(ClusterStatus {
            brokers: answer.brokers.iter().map(Broker::from).collect(),
            leaders: answer
                .leaders
                .iter()
                .map(|l| LeaderCount { broker_id: l.broker_id, leads: l.leads, replicas: l.replicas })
                .collect(),
            cluster_id: answer.cluster_id,
            node_id: answer.node_id,
            version: answer.version,
            raft_leader: answer.raft_leader,
            raft_term: answer.raft_term,
            raft_last_index: answer.raft_last_index,
            raft_applied_index: answer.raft_applied_index,
            voters: answer.voters,
            learners: answer.learners,
            topics: answer.topics,
            partitions: answer.partitions,
            under_replicated: answer.under_replicated,
            leaderless: answer.leaderless,
            confirmed: !answer.unconfirmed,
        })
    }

    /// Drains a node and removes it from the cluster. The stream reports progress and ends after `done`; it has
    /// no deadline, since moving data takes as long as it takes. Dropping it does not stop the removal.
    ///
    /// # Errors
    /// `NODE_NOT_FOUND`, `REJECTED` where too few nodes would remain.
    pub async fn remove_node(&self, id: u64) -> Result<BoxStream<'static, Result<RemovalProgress>>> {
        use futures::StreamExt;
        let inner = self.client.inner.clone();
        let mut last = None;
        for address in inner.candidates() {
            let mut wire = inner.wire(&address)?;
            let call = wire.remove_node(v1::RemoveNodeRequest { id });
            match tokio::time::timeout(inner.options.request_timeout, call).await {
                Ok(Ok(stream)) => {
                    let address = address.to_string();
                    let progress = stream.into_inner().map(move |item| match item {
                        Ok(p) => match Error::from_wire(p.error.as_ref()) {
                            None => Ok(RemovalProgress {
                                step: p.step,
                                replicas_left: p.replicas_left,
                                done: p.done,
                            }),
                            Some(error) => Err(error.context(format_args!("remove node {id}"))),
                        },
                        Err(status) => Err(Error::from_status(&status, &address)),
                    });
                    return Ok(progress.boxed());
                }
                Ok(Err(status)) => {
                    let error = Error::from_status(&status, &address);
                    if error.may_have_happened() {
                        return Err(error.context(format_args!("remove node {id}")));
                    }
                    last = Some(error);
                }
                Err(_) => {
                    return Err(Error::indeterminate(format!("remove node {id}: {address} did not answer")));
                }
            }
        }
        Err(last
            .unwrap_or_else(|| Error::connection("no broker is known"))
            .context(format_args!("remove node {id}")))
    }

    /// Moves Raft leadership, and with it the controller, to `to`, or to any other voter.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<()> {
        self.client
            .inner
            .call("transfer leadership".to_owned(), Via::Any, Repeat::Unsafe, |mut wire, _| {
                let request = v1::TransferLeadershipRequest { to: to.unwrap_or(0) };
                Box::pin(async move { wire.transfer_leadership(request).await })
            })
            .await
            .map(drop)
    }
}
