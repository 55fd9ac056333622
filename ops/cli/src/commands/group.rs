//! `strandline group`.

use super::connect;
use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{Output, grouped, time_of_ms};
use crate::position::{self, Position};
use crate::table::{facts, or_dash, table};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strandline_client::{
    Admin, CommittedOffset, Error, ErrorCode, GroupDescription, OffsetSpec, TopicPartition,
};

/// Consumer groups: progress, members, reset
#[derive(Debug, clap::Subcommand)]
pub enum GroupCommand {
    /// List all groups
    #[command(after_help = "Example:\n    strandline group list")]
    List,
    /// Show members, committed offsets and lag of a group
    #[command(after_help = "\
Examples:
    strandline group describe billing
    strandline group describe billing --json | jq .total_lag")]
    Describe {
        /// Group
        group: String,
    },
    /// Set the committed offsets of a group without members
    #[command(after_help = "\
Examples:
    strandline group reset billing --topic orders --to earliest
    strandline group reset billing --topic orders --partition 3 --to 1042
    strandline group reset billing --topic orders --to 2026-01-31T12:00:00Z

    strandline group reset billing --topic orders --to latest --create

An offset outside a partition becomes its nearer end, and that is said. Exits with 6 while the group has members: stop
them first. Exits with 3 when there is no such group, unless --create
says that it need not exist yet.")]
    Reset {
        /// Group
        group: String,
        /// Topic
        #[arg(long)]
        topic: String,
        /// Only this partition; may be repeated. All of them if not given
        #[arg(long = "partition", value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
        partitions: Vec<i32>,
        #[arg(long, value_name = "WHERE", help = format!("Where to: {}", position::HELP))]
        to: Position,
        /// Also for a group that does not exist yet
        #[arg(long)]
        create: bool,
    },
    /// Delete a group without members, with its committed offsets
    #[command(after_help = "Example:\n    strandline group delete billing")]
    Delete {
        /// Group
        group: String,
    },
}

pub async fn run(command: GroupCommand, global: &Global, out: Output) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    match command {
        GroupCommand::List => {
            let groups = admin.list_groups().await?;
            let documents: Vec<Value> = groups
                .iter()
                .map(|g| json!({ "group": g.group, "state": g.state, "protocol_type": g.protocol_type }))
                .collect();
            out.show(&documents, || {
                let rows = groups.iter().map(|g| [g.group.clone(), g.state.clone(), g.protocol_type.clone()]);
                table(["group", "state", "type"], rows)
            })
        }
        GroupCommand::Describe { group } => {
            let description = admin.describe_group(&group).await?;
            let progress = progress(&admin, &description).await?;
            out.show(&document(&description, &progress), || page(&description, &progress))
        }
        GroupCommand::Reset { group, topic, partitions, to, create } => {
            if !create {
                must_exist(&admin, &group).await?;
            }
            reset(&admin, &group, &topic, partitions, to.0, out).await
        }
        GroupCommand::Delete { group } => {
            admin.delete_group(&group).await?;
            out.show(&json!({ "group": group, "deleted": true }), || format!("deleted group {group}"))
        }
    }
}

/// A name that was mistyped must not become a group.
async fn must_exist(admin: &Admin, group: &str) -> Result<(), Failure> {
    let missing = |error: &Error| error.code() == Some(ErrorCode::GroupNotFound);
    match admin.describe_group(group).await {
        Ok(_) => Ok(()),
        Err(error) if missing(&error) => {
            let hint = "`strandline group list` shows the groups that exist; --create makes this one";
            Err(Failure::from(error).hint(hint))
        }
        Err(error) => Err(error.into()),
    }
}

async fn reset(
    admin: &Admin,
    group: &str,
    topic: &str,
    partitions: Vec<i32>,
    to: OffsetSpec,
    out: Output,
) -> Result<(), Failure> {
    let offsets = if partitions.is_empty() {
        admin.reset_group_offsets(group, topic, to).await
    } else {
        let known = admin.describe_topic(topic).await?.partitions.len();
        if let Some(wrong) = partitions.iter().find(|p| **p as usize >= known) {
            return Err(super::no_partition(topic, *wrong, known));
        }
        let partitions = partitions.iter().map(|p| TopicPartition::new(topic, *p)).collect();
        admin.reset_group_partitions(group, partitions, to).await
    };
    let offsets = offsets?;
    let documents: Vec<Value> = offsets
        .iter()
        .map(|(tp, offset)| {
            json!({ "partition": tp.partition, "offset": offset, "moved_into_range": moved(to, *offset) })
        })
        .collect();
    for (tp, offset) in offsets.iter().filter(|(_, offset)| moved(to, **offset)) {
        out.remark(&format!("{tp} has no such offset: {offset}, its nearer end, is committed"));
    }
    out.show(&json!({ "group": group, "topic": topic, "partitions": documents }), || {
        table(
            ["topic", "partition", "offset"],
            offsets
                .iter()
                .map(|(tp, offset)| [tp.topic.to_string(), tp.partition.to_string(), offset.to_string()]),
        )
    })
}

/// The offset asked for lies outside the partition.
fn moved(to: OffsetSpec, offset: i64) -> bool {
    matches!(to, OffsetSpec::Offset(wanted) if wanted != offset)
}

/// One partition that the group owns or has committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    committed: Option<i64>,
    commit_time_ms: Option<i64>,
    end: Option<i64>,
    owner: Option<String>,
}

impl Progress {
    /// Records between the committed offset and the end.
    fn lag(&self) -> Option<i64> {
        Some((self.end? - self.committed?).max(0))
    }
}

async fn progress(
    admin: &Admin,
    group: &GroupDescription,
) -> Result<BTreeMap<TopicPartition, Progress>, Failure> {
    let mut progress: BTreeMap<TopicPartition, Progress> = BTreeMap::new();
    let committed: BTreeMap<TopicPartition, CommittedOffset> = admin.group_offsets(&group.group).await?;
    for (tp, offset) in committed {
        let entry = progress.entry(tp).or_default();
        entry.committed = Some(offset.position.offset);
        entry.commit_time_ms = Some(offset.commit_time_ms).filter(|ms| *ms >= 0);
    }
    for member in &group.members {
        for tp in &member.partitions {
            progress.entry(tp.clone()).or_default().owner = Some(member.member_id.clone());
        }
    }
    let ends =
        admin.list_offsets(progress.keys().map(|tp| (tp.clone(), OffsetSpec::Latest)).collect::<Vec<_>>());
    // A partition without a leader cannot say where it ends; the rest is worth showing all the same.
    for (tp, end) in ends.await.unwrap_or_default() {
        if let Some(entry) = progress.get_mut(&tp) {
            entry.end = end.offset;
        }
    }
    Ok(progress)
}

fn total_lag(progress: &BTreeMap<TopicPartition, Progress>) -> i64 {
    progress.values().filter_map(Progress::lag).sum()
}

fn document(group: &GroupDescription, progress: &BTreeMap<TopicPartition, Progress>) -> Value {
    let members: Vec<Value> = group
        .members
        .iter()
        .map(|m| {
            let partitions: Vec<Value> = m
                .partitions
                .iter()
                .map(|tp| json!({ "topic": &*tp.topic, "partition": tp.partition }))
                .collect();
            json!({
                "member": m.member_id, "instance": m.instance_id, "client_id": m.client_id,
                "client_host": m.client_host, "partitions": partitions,
            })
        })
        .collect();
    let partitions: Vec<Value> = progress
        .iter()
        .map(|(tp, p)| {
            json!({
                "topic": &*tp.topic, "partition": tp.partition, "committed": p.committed,
                "high_watermark": p.end, "lag": p.lag(), "commit_time_ms": p.commit_time_ms, "member": p.owner,
            })
        })
        .collect();
    json!({
        "group": group.group, "state": group.state, "generation": group.generation,
        "protocol_type": group.protocol_type, "protocol": group.protocol, "coordinator": group.coordinator,
        "total_lag": total_lag(progress), "members": members, "partitions": partitions,
    })
}

fn page(group: &GroupDescription, progress: &BTreeMap<TopicPartition, Progress>) -> String {
    let summary = facts([
        ("group", group.group.clone()),
        ("state", group.state.clone()),
        ("generation", group.generation.to_string()),
        ("assignor", if group.protocol.is_empty() { "-".to_owned() } else { group.protocol.clone() }),
        ("coordinator", format!("node {}", group.coordinator)),
        ("lag", grouped(total_lag(progress).max(0) as u64)),
    ]);
    let members = group.members.iter().map(|m| {
        [
            m.member_id.clone(),
            or_dash(m.instance_id.as_ref()),
            m.client_id.clone(),
            m.client_host.clone(),
            m.partitions.len().to_string(),
        ]
    });
    let partitions = progress.iter().map(|(tp, p)| {
        [
            tp.topic.to_string(),
            tp.partition.to_string(),
            or_dash(p.committed),
            or_dash(p.end),
            or_dash(p.lag()),
            p.commit_time_ms.map_or_else(|| "-".to_owned(), time_of_ms),
            or_dash(p.owner.as_ref()),
        ]
    });
    format!(
        "{summary}\n{}\n\n{}",
        table(["member", "instance", "client", "host", "partitions"], members),
        table(
            ["topic", "partition", "committed", "high watermark", "lag", "committed at", "member"],
            partitions
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_client::GroupMember;

    #[test]
    fn progress_shows_lag_and_what_is_not_known() {
        let group = GroupDescription {
            group: "billing".into(),
            state: "Stable".into(),
            generation: 7,
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            coordinator: 2,
            members: vec![GroupMember {
                member_id: "m-1".into(),
                instance_id: None,
                client_id: "c".into(),
                client_host: "h".into(),
                partitions: vec![TopicPartition::new("orders", 1)],
            }],
        };
        let progress = BTreeMap::from([
            (
                TopicPartition::new("orders", 0),
                Progress { committed: Some(10), commit_time_ms: Some(0), end: Some(25), owner: None },
            ),
            (
                TopicPartition::new("orders", 1),
                Progress { end: Some(5), owner: Some("m-1".into()), ..Progress::default() },
            ),
        ]);
        let text = page(&group, &progress);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(
            rows.contains(&vec!["orders", "0", "10", "25", "15", "1970-01-01T00:00:00.000Z", "-"]),
            "{text}"
        );
        assert!(rows.contains(&vec!["orders", "1", "-", "5", "-", "-", "m-1"]), "{text}");
        assert!(rows.contains(&vec!["m-1", "-", "c", "h", "1"]), "{text}");
        let document = document(&group, &progress);
        assert_eq!(
            (document["total_lag"].as_i64(), document["partitions"][1]["lag"].as_i64()),
            (Some(15), None)
        );
    }

    #[test]
    fn a_commit_past_the_end_is_no_negative_lag() {
        let progress = Progress { committed: Some(10), end: Some(3), ..Progress::default() };
        assert_eq!(progress.lag(), Some(0));
    }
}
