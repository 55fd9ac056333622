//! `strandline topic`.

use super::connect;
use crate::cli::{Global, parse_pair};
use crate::exit::Failure;
use crate::output::{Output, grouped};
use crate::table::{facts, list, or_dash, table};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use strandline_client::{
    Admin, ErrorCode, ListedOffset, NewTopic, OffsetSpec, TopicConfig, TopicDescription, TopicPartition,
};

/// Topics: create, look at, change, delete
#[derive(Debug, clap::Subcommand)]
pub enum TopicCommand {
    /// Create a topic
    #[command(after_help = "\
Examples:
    strandline topic create orders --partitions 12 --replication 3
    strandline topic create audit --partitions 3 --config retention.ms=-1 --config min.insync.replicas=2
    strandline topic create metrics --partitions 6 --config flush=interval

Exits with 6 if the topic exists already (--if-not-exists makes that a success).")]
    Create {
        /// Letters, digits, '.', '_' and '-'
        name: String,
        /// How many partitions; the node's num.partitions if not given
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// How many copies of each partition; the node's default.replication.factor if not given
        #[arg(long, value_name = "R", value_parser = clap::value_parser!(i32).range(1..))]
        replication: Option<i32>,
        /// A configuration key of the topic, such as retention.ms=86400000; may be repeated
        #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_pair)]
        configs: Vec<(String, String)>,
        /// Succeed without doing anything when a topic of this name exists
        #[arg(long)]
        if_not_exists: bool,
        /// Only say whether it would be created
        #[arg(long)]
        validate_only: bool,
    },
    /// List all topics
    #[command(after_help = "\
Examples:
    strandline topic list
    strandline topic list --json | jq -r '.[].name'")]
    List,
    /// Show partitions, leaders, in-sync replicas, offsets and configuration of a topic
    #[command(after_help = "\
Examples:
    strandline topic describe orders
    strandline topic describe orders --json | jq '.partitions[] | select(.isr != .replicas)'")]
    Describe {
        /// Topic
        name: String,
        /// Leave the offsets out (they are asked of each leader)
        #[arg(long)]
        no_offsets: bool,
    },
    /// Set and unset configuration keys of a topic, all or none
    #[command(group = clap::ArgGroup::new("change").args(["configs", "unset"]).required(true).multiple(true), after_help = "\
Examples:
    strandline topic alter orders --config retention.ms=86400000
    strandline topic alter orders --unset retention.ms --config flush=ack")]
    Alter {
        /// Topic
        name: String,
        /// Key and new value; may be repeated
        #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_pair)]
        configs: Vec<(String, String)>,
        /// Key that goes back to its default; may be repeated
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
    },
    /// Raise the number of partitions (new records with the same key may go to another partition than before)
    #[command(after_help = "Example:\n    strandline topic add-partitions orders --partitions 24")]
    AddPartitions {
        /// Topic
        name: String,
        /// The new total
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: i32,
    },
    /// Delete a topic with all its records
    #[command(after_help = "Example:\n    strandline topic delete orders")]
    Delete {
        /// Topic
        name: String,
        /// Succeed without doing anything when there is no such topic
        #[arg(long)]
        if_exists: bool,
    },
}

/// Which of two values was meant cannot be known.
fn each_key_once(configs: &[(String, String)], unset: &[String]) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    match configs.iter().map(|(key, _)| key).chain(unset).find(|key| !seen.insert(*key)) {
        Some(twice) => Err(Failure::usage(format_args!("{twice} is given twice"))),
        None => Ok(()),
    }
}

pub async fn run(command: TopicCommand, global: &Global, out: Output) -> Result<(), Failure> {
    match &command {
        TopicCommand::Create { configs, .. } => each_key_once(configs, &[])?,
        TopicCommand::Alter { configs, unset, .. } => each_key_once(configs, unset)?,
        _ => {}
    }
    let admin = connect(global).await?.admin();
    match command {
        TopicCommand::Create { name, partitions, replication, configs, if_not_exists, validate_only } => {
            let mut topic = NewTopic::new(&name);
            if let Some(partitions) = partitions {
                topic = topic.partitions(partitions);
            }
            if let Some(replication) = replication {
                topic = topic.replication_factor(replication);
            }
            for (key, value) in configs {
                topic = topic.config(key, value);
            }
            if validate_only {
                topic = topic.validate_only();
            }
            create(&admin, &name, topic, if_not_exists, validate_only, out).await
        }
        TopicCommand::List => {
            let topics = admin.list_topics().await?;
            out.show(&topics.iter().map(summary).collect::<Vec<_>>(), || listing(&topics))
        }
        TopicCommand::Describe { name, no_offsets } => {
            let topic = admin.describe_topic(&name).await?;
            let configs = admin.topic_configs(&name).await?;
            let offsets = if no_offsets { Offsets::default() } else { Offsets::ask(&admin, &topic).await };
            out.show(&document(&topic, &configs, &offsets), || page(&topic, &configs, &offsets))
        }
        TopicCommand::Alter { name, configs, unset } => {
            admin.alter_topic(&name, configs.clone(), unset.clone()).await?;
            let set: BTreeMap<_, _> = configs.into_iter().collect();
            out.show(&json!({ "name": name, "set": set, "unset": unset }), || format!("altered {name}"))
        }
        TopicCommand::AddPartitions { name, partitions } => {
            if let Err(error) = admin.add_partitions(&name, partitions).await {
                let refused = error.code() == Some(ErrorCode::InvalidPartitions);
                let now = if refused { admin.describe_topic(&name).await.ok() } else { None };
                let now = now.map_or(i32::MAX, |topic| topic.partitions.len() as i32);
                return Err(match Failure::from(error) {
                    // It can only be the number that is too large; how large it may be the node alone knows.
                    failure if partitions > now => failure.replaced(format_args!(
                        "{name} has {now} partitions; {} more at once are too many",
                        partitions - now
                    )),
                    failure => failure,
                });
            }
            out.show(&json!({ "name": name, "partitions": partitions }), || {
                format!("{name} has {partitions} partitions")
            })
        }
        TopicCommand::Delete { name, if_exists } => {
            let deleted = match admin.delete_topic(&name).await {
                Ok(()) => true,
                Err(error) if if_exists && error.code() == Some(ErrorCode::UnknownTopicOrPartition) => false,
                Err(error) => return Err(error.into()),
            };
            out.show(&json!({ "name": name, "deleted": deleted }), || match deleted {
                true => format!("deleted {name}"),
                false => format!("there is no topic {name}"),
            })
        }
    }
}

async fn create(
    admin: &Admin,
    name: &str,
    topic: NewTopic,
    if_not_exists: bool,
    validate_only: bool,
    out: Output,
) -> Result<(), Failure> {
    match admin.create_topic(topic).await {
        Ok(made) => {
            // What is only looked at gets no id.
            let id = (!validate_only).then(|| made.id.to_string());
            let document = json!({
                "name": name, "id": id, "partitions": made.partitions,
                "replication_factor": made.replication_factor, "created": !validate_only,
            });
            let verb = if validate_only { "would create" } else { "created" };
            out.show(&document, || {
                format!(
                    "{verb} {name}: {} partitions × {} replicas",
                    made.partitions, made.replication_factor
                )
            })
        }
        Err(error) if if_not_exists && error.code() == Some(ErrorCode::TopicExists) => {
            out.show(&json!({ "name": name, "created": false }), || format!("{name} exists already"))
        }
        Err(error) => Err(error.into()),
    }
}

/// First and next offset of each partition, as far as their leaders answered.
#[derive(Default)]
struct Offsets {
    start: BTreeMap<TopicPartition, ListedOffset>,
    end: BTreeMap<TopicPartition, ListedOffset>,
}

impl Offsets {
    /// Partitions without a leader have no answer, which must not keep the rest from being shown.
    async fn ask(admin: &Admin, topic: &TopicDescription) -> Offsets {
        let led = topic.partitions.iter().filter(|p| p.leader.is_some());
        let led: Vec<TopicPartition> =
            led.map(|p| TopicPartition::new(topic.name.clone(), p.partition)).collect();
        let ask = |spec| admin.list_offsets(led.iter().map(move |tp| (tp.clone(), spec)).collect::<Vec<_>>());
        let (start, end) = futures::join!(ask(OffsetSpec::Earliest), ask(OffsetSpec::Latest));
        Offsets { start: start.unwrap_or_default(), end: end.unwrap_or_default() }
    }

    fn of(&self, topic: &TopicDescription, partition: i32) -> (Option<i64>, Option<i64>) {
        let tp = TopicPartition::new(topic.name.clone(), partition);
        let offset = |found: &BTreeMap<_, ListedOffset>| found.get(&tp).and_then(|listed| listed.offset);
        (offset(&self.start), offset(&self.end))
    }
}

fn replication(topic: &TopicDescription) -> usize {
    topic.partitions.first().map_or(0, |p| p.replicas.len())
}

fn under_replicated(topic: &TopicDescription) -> usize {
    topic.partitions.iter().filter(|p| p.isr.len() < p.replicas.len()).count()
}

fn leaderless(topic: &TopicDescription) -> usize {
    topic.partitions.iter().filter(|p| p.leader.is_none()).count()
}

fn summary(topic: &TopicDescription) -> Value {
    json!({
        "name": &*topic.name, "id": topic.id.to_string(), "partitions": topic.partitions.len(),
        "replication_factor": replication(topic), "under_replicated": under_replicated(topic),
        "leaderless": leaderless(topic), "configs": topic.configs,
    })
}

fn listing(topics: &[TopicDescription]) -> String {
    let rows = topics.iter().map(|topic| {
        [
            topic.name.to_string(),
            topic.partitions.len().to_string(),
            replication(topic).to_string(),
            under_replicated(topic).to_string(),
            leaderless(topic).to_string(),
            list(topic.configs.iter().map(|(key, value)| format!("{key}={value}"))),
        ]
    });
    table(["topic", "partitions", "replicas", "under-replicated", "leaderless", "configs"], rows)
}

fn document(topic: &TopicDescription, configs: &[TopicConfig], offsets: &Offsets) -> Value {
    let partitions: Vec<Value> = topic
        .partitions
        .iter()
        .map(|p| {
            let (start, end) = offsets.of(topic, p.partition);
            json!({
                "partition": p.partition, "leader": p.leader, "leader_epoch": p.leader_epoch,
                "partition_epoch": p.partition_epoch, "replicas": p.replicas, "isr": p.isr, "elr": p.elr,
                "reassignment": p.reassignment, "log_start_offset": start, "high_watermark": end,
            })
        })
        .collect();
    let configs: Vec<Value> = configs
        .iter()
        .map(|c| {
            json!({
                "name": c.name, "value": c.value, "default": c.is_default, "type": c.value_type,
                "documentation": c.documentation,
            })
        })
        .collect();
    json!({ "name": &*topic.name, "id": topic.id.to_string(), "partitions": partitions, "configs": configs })
}

fn page(topic: &TopicDescription, configs: &[TopicConfig], offsets: &Offsets) -> String {
    let counts: Vec<Option<i64>> = topic
        .partitions
        .iter()
        .map(|p| match offsets.of(topic, p.partition) {
            (Some(start), Some(end)) => Some(end - start),
            _ => None,
        })
        .collect();
    let records = counts.iter().copied().sum::<Option<i64>>();
    let summary = facts([
        ("topic", topic.name.to_string()),
        ("id", topic.id.to_string()),
        ("partitions", topic.partitions.len().to_string()),
        ("replicas", replication(topic).to_string()),
        ("under-replicated", under_replicated(topic).to_string()),
        ("offsets held", records.map_or_else(|| "-".to_owned(), |n| grouped(n.max(0) as u64))),
    ]);
    let rows = topic.partitions.iter().map(|p| {
        let (start, end) = offsets.of(topic, p.partition);
        [
            p.partition.to_string(),
            or_dash(p.leader),
            p.leader_epoch.to_string(),
            list(&p.replicas),
            list(&p.isr),
            list(&p.elr),
            or_dash(start),
            or_dash(end),
        ]
    });
    let partitions = table(
        ["partition", "leader", "epoch", "replicas", "isr", "elr", "log start", "high watermark"],
        rows,
    );
    let rows = configs.iter().map(|c| {
        let from = if c.is_default { "default" } else { "topic" };
        [c.name.clone(), c.value.clone(), from.to_owned()]
    });
    format!("{summary}\n{partitions}\n\n{}", table(["config", "value", "from"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use strandline_client::PartitionDescription;

    #[test]
    fn a_key_that_is_given_twice_is_a_slip() {
        let pairs =
            |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), "1".to_owned())).collect::<Vec<_>>();
        assert!(each_key_once(&pairs(&["a", "b"]), &["c".to_owned()]).is_ok());
        for (configs, unset) in [(pairs(&["a", "b", "a"]), vec![]), (pairs(&["a"]), vec!["a".to_owned()])] {
            let failure = each_key_once(&configs, &unset).unwrap_err();
            assert_eq!((failure.exit, failure.message.as_str()), (Exit::Usage, "a is given twice"));
        }
    }

    #[test]
    fn a_topic_is_described_with_what_is_missing_shown_as_missing() {
        let partition = |partition, leader: Option<u64>, isr: &[u64]| PartitionDescription {
            partition,
            leader,
            leader_epoch: 4,
            partition_epoch: 9,
            replicas: vec![1, 2, 3],
            isr: isr.to_vec(),
            elr: vec![],
            reassignment: vec![],
        };
        let topic = TopicDescription {
            name: "orders".into(),
            id: strandline_client::TopicId::default(),
            partitions: vec![partition(0, Some(1), &[1, 2, 3]), partition(1, None, &[])],
            configs: BTreeMap::from([("flush".into(), "os".into())]),
        };
        let listed = |offset| ListedOffset { offset: Some(offset), timestamp_ms: None, leader_epoch: None };
        let offsets = Offsets {
            start: BTreeMap::from([(TopicPartition::new("orders", 0), listed(10))]),
            end: BTreeMap::from([(TopicPartition::new("orders", 0), listed(25))]),
        };
        let text = page(&topic, &[], &offsets);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(rows.contains(&vec!["0", "1", "4", "1,2,3", "1,2,3", "-", "10", "25"]), "{text}");
        assert!(rows.contains(&vec!["1", "-", "4", "1,2,3", "-", "-", "-", "-"]), "{text}");
        assert!(rows.contains(&vec!["under-replicated", "1"]), "{text}");
        assert!(rows.contains(&vec!["offsets", "held", "-"]), "one partition is not known: {text}");
        let document = document(&topic, &[], &offsets);
        assert_eq!(document["partitions"][0]["high_watermark"], 25);
        assert_eq!(document["partitions"][1]["leader"], Value::Null);
        assert_eq!(summary(&topic)["leaderless"], 1);
        assert!(listing(&[topic]).contains("flush=os"));
    }
}
