//! Notices that the cluster has removed this node, also while it was away: nobody tells it, since Raft no longer
//! talks to it. While it has no session it asks the nodes that it knew.
//!
//! Invariant: an answer counts only if it comes from a view of this very cluster that is as new as the question, and
//! at least as new as everything this node has seen. So neither a node that is cut off, nor one that has just been
//! let in, takes itself for removed because it asked somebody who is behind.

use crate::context::Context;
use crate::session::Session;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use strandline_metadata::Image;
use strandline_wire::peer::ProbeReply;
use uuid::Uuid;

/// Between two looks; without a session for this long it asks.
const LOOK: Duration = Duration::from_secs(1);
/// Between two rounds of asking, which grow to this.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10);
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// Completes when the cluster has forgotten this node, with the cluster's id.
pub async fn noticed(context: &Arc<Context>, session: &Session) -> Uuid {
    let mut pause = LOOK;
    loop {
        tokio::time::sleep(pause).await;
        if session.is_open() {
            pause = LOOK;
            continue;
        }
        if let Some(cluster) = ask(context).await {
            // Whoever asked this very node to remove itself is told so before it ends.
            tokio::time::sleep(LOOK).await;
            return cluster;
        }
        pause = (pause * 2).min(ASK_AGAIN_MAX);
    }
}

/// Whether the cluster has forgotten this node, Raft included, as far as anybody can be asked.
pub async fn is_forgotten(context: &Arc<Context>) -> bool {
    ask(context).await.is_some()
}

/// What this node knows of itself.
struct Own {
    directory: String,
    cluster: String,
    /// It has seen the metadata up to here, at least.
    index: u64,
}

async fn ask(context: &Arc<Context>) -> Option<Uuid> {
    let cluster = context.store.cluster_id()?;
    let image = context.image();
    let registered = context.broker_epoch().map_or(0, |epoch| epoch.0);
    let own = Own {
        directory: context.store.directory_id().to_string(),
        cluster: cluster.to_string(),
        index: context.raft.metrics().last_index.unwrap_or(0).max(image.index).max(registered),
    };
    let asked = known_addresses(context, &image);
    let asked = asked.iter().map(|addr| context.peers.probe_confirmed(addr, context.id.0, PROBE_DEADLINE));
    let replies = futures::future::join_all(asked).await;
    replies.iter().flatten().any(|reply| says_removed(reply, &own)).then_some(cluster)
}

/// Wherever another node may answer. After a restart the image may be old or empty, the membership of Raft and the
/// configuration may be outdated: whoever answers proves that it is worth hearing.
pub fn known_addresses(context: &Context, image: &Image) -> BTreeSet<String> {
    let brokers = image.brokers.values().map(|broker| (broker.id.0, broker.endpoints.peer.to_string()));
    let members = context.raft.voters().into_iter().chain(context.raft.learners());
    let formed = context.config.form_cluster.iter().flat_map(|nodes| nodes.0.iter());
    let formed = formed.map(|(id, addr)| (id.0, addr.to_string()));
    let joined = context.config.join.iter().map(|addr| (0, addr.to_string()));
    let all = brokers.chain(members).chain(formed).chain(joined);
    all.filter(|(id, _)| *id != context.id.0).map(|(_, addr)| addr).collect()
}

fn says_removed(reply: &ProbeReply, own: &Own) -> bool {
    let same_cluster = reply.cluster_id == own.cluster;
    let new_enough = reply.metadata_index >= own.index;
    let forgotten = match reply.asker_directory.is_empty() {
        true => !reply.asker_is_member,
        // Its number has been given to another.
        false => reply.asker_directory != own.directory,
    };
    same_cluster && new_enough && forgotten
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_view_that_is_new_enough_says_that_a_node_was_removed() {
        let own = Own { directory: "mine".into(), cluster: "c".into(), index: 100 };
        let gone = ProbeReply { cluster_id: "c".into(), metadata_index: 100, ..Default::default() };
        assert!(says_removed(&gone, &own));
        assert!(says_removed(&ProbeReply { metadata_index: 900, ..gone.clone() }, &own));
        let replaced = ProbeReply { asker_directory: "other".into(), asker_is_member: true, ..gone.clone() };
        assert!(says_removed(&replaced, &own), "another directory has its number");
        for not in [
            ProbeReply { metadata_index: 99, ..gone.clone() },
            ProbeReply { cluster_id: "d".into(), ..gone.clone() },
            ProbeReply { cluster_id: String::new(), ..gone.clone() },
            ProbeReply { asker_directory: "mine".into(), ..gone.clone() },
            ProbeReply { asker_is_member: true, ..gone.clone() },
            ProbeReply { metadata_index: 99, ..replaced },
        ] {
            assert!(!says_removed(&not, &own), "{not:?}");
        }
    }
}
