//! `strandline cluster`.

use super::connect;
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::{Output, grouped};
use crate::table::{facts, list, or_dash, table};
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;
use strandline_client::{Admin, Broker, Client, ClusterStatus};
use tokio::time::Instant;

/// Between two questions for the new leader.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// One node's share of the time in which the new leader is looked for.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The cluster and its nodes
#[derive(Debug, clap::Subcommand)]
pub enum ClusterCommand {
    /// Show nodes, metadata leader and the health of the partitions
    #[command(after_help = "\
Examples:
    strandline cluster status
    strandline cluster status --json | jq .under_replicated

Exits with 0 even when something is wrong, as long as a node answers: read the answer.")]
    Status,
    /// Move everything off a node, then remove it from the cluster
    ///
    /// Takes as long as moving its replicas takes, and shows how far it is. Interrupting only stops the
    /// watching: the removal goes on. A removed node that still runs ends by itself with exit code 7.
    #[command(after_help = "Example:\n    strandline cluster remove-node 3")]
    RemoveNode {
        /// Its id
        node: u64,
    },
    /// Hand the leadership of the metadata (and the controller) to another voter
    #[command(after_help = "\
Examples:
    strandline cluster transfer-leadership
    strandline cluster transfer-leadership --to 2")]
    TransferLeadership {
        /// Who is to lead; any other voter if not given
        #[arg(long, value_name = "NODE")]
        to: Option<u64>,
    },
}

pub async fn run(command: ClusterCommand, global: &Global, out: Output) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    match command {
        ClusterCommand::Status => {
            let status = admin.cluster_status().await?;
            out.show(&document(&status), || page(&status))
        }
        ClusterCommand::RemoveNode { node } => {
            let mut progress = admin.remove_node(node).await?;
            let bar = out.progress(None);
            let mut said = None;
            while let Some(step) = progress.next().await {
                let step = step?;
                // A step comes several times a second: worth a line only when something has changed.
                let now = (step.step.clone(), step.replicas_left, step.done);
                let news = said.as_ref() != Some(&now);
                said = Some(now);
                if out.json && news {
                    out.json_line(&json!({
                        "node": node, "step": step.step, "replicas_left": step.replicas_left, "done": step.done,
                    }))?;
                }
                let message = format!("{} ({} replicas left)", step.step, step.replicas_left);
                if bar.is_hidden() && news && !step.done {
                    out.remark(&message);
                }
                bar.set_message(message);
                if step.done {
                    bar.finish_and_clear();
                    if !out.json {
                        out.line(&removed(node))?;
                    }
                    return Ok(());
                }
            }
            bar.finish_and_clear();
            Err(Failure::new(
                Exit::OutcomeUnknown,
                format_args!("the node that was asked stopped answering before node {node} was removed"),
            )
            .hint("the removal goes on where the controller runs: run the same command again to watch it"))
        }
        ClusterCommand::TransferLeadership { to } => {
            // Time is allowed once, for both.
            let deadline = Instant::now() + global.timeout;
            admin.transfer_leadership(to).await.map_err(|error| match Failure::from(error) {
                failure if failure.exit == Exit::Refused => {
                    failure.hint("`strandline cluster status` shows the voters, one of which can lead")
                }
                failure => failure,
            })?;
            let leader = tokio::time::timeout_at(deadline, new_leader(&admin)).await.map_err(|_| {
                let message = "leadership was handed over, but nobody is seen to have taken it";
                Failure::new(Exit::OutcomeUnknown, message)
                    .hint("`strandline cluster status` shows who leads")
            })?;
            out.show(&json!({ "raft_leader": leader }), || format!("node {leader} leads"))
        }
    }
}

/// Waits until a node says of itself that it leads. After a transfer the one that led before no longer does; what
/// others say of it may be of before.
async fn new_leader(admin: &Admin) -> u64 {
    loop {
        if let Ok(status) = admin.cluster_status().await
            && let Some(leader) = status.raft_leader
            && let Some(broker) = status.brokers.iter().find(|broker| broker.id == leader)
            && says_that_it_leads(broker).await
        {
            return leader;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn says_that_it_leads(broker: &Broker) -> bool {
    let client = Client::builder()
        .bootstrap(broker.grpc.as_str())
        .client_id("strandline-cli")
        .connect_timeout(ANSWER_WITHIN)
        .request_timeout(ANSWER_WITHIN)
        .operation_timeout(ANSWER_WITHIN);
    let Ok(client) = client.build() else { return false };
    let status = client.admin().cluster_status().await;
    status.is_ok_and(|status| status.node_id == broker.id && status.raft_leader == Some(broker.id))
}

fn removed(node: u64) -> String {
    format!(
        "node {node} is removed: its process ends by itself within seconds (exit code {}), its data directory is no \
         longer needed; to use the machine again, start a node on an empty directory with --join",
        Exit::Removed as u8
    )
}

fn document(status: &ClusterStatus) -> Value {
    let count = |id: u64| status.leaders.iter().find(|count| count.broker_id == id);
    let brokers: Vec<Value> = status
        .brokers
        .iter()
        .map(|broker| {
            json!({
                "id": broker.id, "grpc": broker.grpc, "peer": broker.peer, "rack": broker.rack,
                "fenced": broker.fenced, "draining": broker.draining, "epoch": broker.epoch,
                "leads": count(broker.id).map_or(0, |c| c.leads),
                "replicas": count(broker.id).map_or(0, |c| c.replicas),
            })
        })
        .collect();
    json!({
        "cluster_id": status.cluster_id, "answered_by": status.node_id, "version": status.version,
        "raft": {
            "leader": status.raft_leader, "term": status.raft_term, "last_index": status.raft_last_index,
            "applied_index": status.raft_applied_index, "voters": status.voters, "learners": status.learners,
        },
        "confirmed": status.confirmed, "topics": status.topics, "partitions": status.partitions,
        "under_replicated": status.under_replicated, "leaderless": status.leaderless,
        "brokers": brokers,
    })
}

fn page(status: &ClusterStatus) -> String {
    let summary = facts([
        ("cluster", status.cluster_id.clone()),
        ("answered by", format!("node {} (version {})", status.node_id, status.version)),
        ("metadata leader", or_dash(status.raft_leader)),
        ("voters", list(&status.voters)),
        ("learners", list(&status.learners)),
        (
            "raft",
            format!(
                "term {}, applied {} of {}",
                status.raft_term, status.raft_applied_index, status.raft_last_index
            ),
        ),
        ("topics", grouped(status.topics.into())),
        ("partitions", grouped(status.partitions.into())),
        ("under-replicated", grouped(status.under_replicated.into())),
        ("without leader", grouped(status.leaderless.into())),
    ]);
    let rows = status.brokers.iter().map(|broker| {
        let count = status.leaders.iter().find(|count| count.broker_id == broker.id);
        let state = match (broker.fenced, broker.draining) {
            (true, _) => "down",
            (false, true) => "draining",
            (false, false) => "up",
        };
        [
            broker.id.to_string(),
            state.to_owned(),
            count.map_or(0, |c| c.leads).to_string(),
            count.map_or(0, |c| c.replicas).to_string(),
            broker.grpc.clone(),
            broker.peer.clone(),
            if broker.rack.is_empty() { "-".to_owned() } else { broker.rack.clone() },
        ]
    });
    let warning = match status.confirmed {
        true => String::new(),
        false => format!(
            "\nNOT CONFIRMED: node {} hears of no metadata leader with a majority of the voters. This is what it knew last;\n\
             nothing can be changed, and no leader replaced, before a majority of them run and reach each other.\n",
            status.node_id
        ),
    };
    format!(
        "{summary}{warning}\n{}",
        table(["node", "state", "leads", "replicas", "grpc", "peer", "rack"], rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_client::LeaderCount;

    #[test]
    fn the_status_shows_each_node_with_its_share() {
        let broker = |id: u64, fenced| Broker {
            id,
            grpc: format!("h:{id}"),
            peer: format!("p:{id}"),
            kafka: String::new(),
            http: String::new(),
            rack: String::new(),
            fenced,
            draining: false,
            epoch: 7,
        };
        let status = ClusterStatus {
            cluster_id: "c-1".into(),
            node_id: 2,
            version: "0.1.0".into(),
            raft_leader: Some(1),
            raft_term: 3,
            raft_last_index: 20,
            raft_applied_index: 19,
            voters: vec![1, 2],
            learners: vec![],
            brokers: vec![broker(1, false), broker(2, true)],
            topics: 1,
            partitions: 12,
            under_replicated: 12,
            leaderless: 0,
            confirmed: true,
            leaders: vec![LeaderCount { broker_id: 1, leads: 12, replicas: 12 }],
        };
        let text = page(&status);
        assert!(text.contains("metadata leader   1\n") && text.contains("learners          -\n"), "{text}");
        let rows: Vec<Vec<&str>> =
            text.lines().rev().take(2).map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["2", "down", "0", "0", "h:2", "p:2", "-"]);
        assert_eq!(rows[1], ["1", "up", "12", "12", "h:1", "p:1", "-"]);
        let document = document(&status);
        assert_eq!(document["brokers"][0]["leads"], 12);
        assert_eq!(document["raft"]["leader"], 1);
    }
}
