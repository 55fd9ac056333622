//! Whether the cluster serves: every node answers, knows a metadata leader, and sees every node unfenced.

use super::plan::NodePlan;
use futures::future::join_all;
use std::time::Duration;
use strandline_client::{Admin, Client, ClusterStatus};

/// Between two questions to a node; a start takes some hundred milliseconds.
const POLL_EVERY: Duration = Duration::from_millis(10);
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Returns once every node says that the whole cluster serves.
pub async fn all_serve(nodes: &[NodePlan]) {
    join_all(nodes.iter().map(|node| async move {
        let admin = admin_of(node);
        loop {
            if let Ok(status) = admin.cluster_status().await
                && what_is_missing(&status, nodes).is_none()
            {
                return;
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }))
    .await;
}

/// Why the cluster does not serve yet, for people.
pub async fn obstacle(nodes: &[NodePlan]) -> String {
    let reasons = join_all(nodes.iter().map(|node| async move {
        match admin_of(node).cluster_status().await {
            Ok(status) => {
                what_is_missing(&status, nodes).map(|what| format!("node {} says: {what}", node.id))
            }
            Err(error) => Some(format!("node {} does not answer: {error}", node.id)),
        }
    }));
    let reasons: Vec<String> = reasons.await.into_iter().flatten().collect();
    reasons.join("; ")
}

/// A client that gives up soon, so that the next try comes soon.
fn admin_of(node: &NodePlan) -> Admin {
    let client = Client::builder()
        .bootstrap(node.grpc.as_str())
        .client_id("strandline-dev")
        .connect_timeout(ANSWER_WITHIN)
        .request_timeout(ANSWER_WITHIN)
        .operation_timeout(ANSWER_WITHIN)
        .retry_backoff(POLL_EVERY, POLL_EVERY);
    client.build().expect("the options are constant and the address is ours").admin()
}

fn what_is_missing(status: &ClusterStatus, nodes: &[NodePlan]) -> Option<String> {
    if status.raft_leader.is_none() {
        return Some("no metadata leader".to_owned());
    }
    let serves = |id: u64| status.brokers.iter().any(|broker| broker.id == id && !broker.fenced);
    let missing: Vec<String> =
        nodes.iter().map(|node| node.id).filter(|id| !serves(*id)).map(|id| id.to_string()).collect();
    (!missing.is_empty()).then(|| format!("not serving yet: {}", missing.join(", ")))
}
