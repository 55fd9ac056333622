//! `strandline bench`: how fast this cluster is, measured from a client.
//!
//! Every result says what was measured: topic, partitions, replicas, acks, flush mode. CPU time is the client's own,
//! and with `--data-dir` (of `strandline dev`) or `--pids` also the nodes'.

mod consume;
mod cpu;
mod latency;
mod load;
mod produce;
mod report;
mod source;

use crate::cli::{Global, parse_pair, parse_size, parse_time};
use crate::exit::Failure;
use crate::output::Output;
use crate::producer_args::ProducerArgs;
use std::path::PathBuf;
use std::time::Duration;
use strandline_client::{Admin, ErrorCode, NewTopic};

/// Measure a cluster: produce, consume, latency, and load over HTTP, gRPC and Kafka's protocol
#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    Produce(ProduceArgs),
    Consume(ConsumeArgs),
    Latency(LatencyArgs),
    Load(Box<load::LoadArgs>),
}

impl BenchCommand {
    /// Threads of its runtime, where it does not take the usual number.
    pub fn threads(&self) -> Option<usize> {
        match self {
            BenchCommand::Load(args) => Some(args.threads as usize),
            _ => None,
        }
    }
}

/// The topic that is used.
#[derive(Clone, Debug, clap::Args)]
pub struct TopicArgs {
    /// Topic; created if it does not exist
    #[arg(long, default_value = "bench", value_name = "NAME")]
    pub topic: String,
    /// Partitions of a topic that is created
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Replicas of a topic that is created; the cluster's default if not given
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(i32).range(1..))]
    pub replication: Option<i32>,
    /// Configuration key of a topic that is created, such as flush=interval; may be repeated
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub configs: Vec<(String, String)>,
}

/// Whose CPU time is counted besides this process's.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CpuArgs {
    /// Count the CPU time of these processes as the cluster's
    #[arg(long, value_name = "PID,…", value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// Count the CPU time of the nodes of the `strandline dev` that uses this directory
    #[arg(long, value_name = "DIR", conflicts_with = "pids")]
    pub data_dir: Option<PathBuf>,
}

/// Measure producing: throughput, time to acknowledgement, CPU time
///
/// Records are random bytes without a key. The time to acknowledgement is measured on a sample of the records, from
/// the moment a record was due (with --rate) or handed to the producer.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
    strandline bench produce
    strandline bench produce --size 1024 --partitions 12 --replication 3 --duration 30s --data-dir strandline-data
    strandline bench produce --rate 10000 --acks leader --producers 4 --json")]
pub struct ProduceArgs {
    #[command(flatten)]
    pub topic: TopicArgs,
    /// Bytes in a record's value
    #[arg(long, default_value = "1024", value_parser = parse_size, value_name = "BYTES")]
    pub size: u64,
    /// Give each record a key of its own, of 16 bytes
    #[arg(long)]
    pub unique_keys: bool,
    /// Records a second, over all producers; as many as possible if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// How long to send
    #[arg(long, default_value = "10s", value_parser = parse_time, value_name = "TIME")]
    pub duration: Duration,
    /// Stop after this many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub records: Option<u64>,
    /// Independent producers, each with its own connections
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    pub producers: u64,
    #[command(flatten)]
    pub producer: ProducerArgs,
    #[command(flatten)]
    pub cpu: CpuArgs,
}

/// Measure consuming: throughput, time between records, CPU time
///
/// Reads all partitions from the start, without a group, up to where they ended when it began.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
    strandline bench produce --duration 30s && strandline bench consume
    strandline bench consume --topic orders --duration 60s --json")]
pub struct ConsumeArgs {
    /// Topic
    #[arg(long, default_value = "bench", value_name = "NAME")]
    pub topic: String,
    /// How long to read at most
    #[arg(long, default_value = "60s", value_parser = parse_time, value_name = "TIME")]
    pub duration: Duration,
    #[command(flatten)]
    pub cpu: CpuArgs,
}

/// Measure latency: from sending to acknowledgement, and to arrival at a consumer
///
/// One record at a time is due every 1/RATE s; a late one counts from when it was due.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
    strandline bench latency
    strandline bench latency --rate 1000 --size 100 --duration 30s --json")]
pub struct LatencyArgs {
    #[command(flatten)]
    pub topic: TopicArgs,
    /// Bytes in a record's value
    #[arg(long, default_value = "100", value_parser = parse_size, value_name = "BYTES")]
    pub size: u64,
    /// Records a second
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// How long to send
    #[arg(long, default_value = "10s", value_parser = parse_time, value_name = "TIME")]
    pub duration: Duration,
    /// When a record counts as written: all, leader or none
    #[arg(long, default_value = "all", value_parser = crate::producer_args::acks(), value_name = "WHEN")]
    pub acks: strandline_client::Acks,
    #[command(flatten)]
    pub cpu: CpuArgs,
}

pub async fn run(command: BenchCommand, global: &Global, out: Output) -> Result<(), Failure> {
    match command {
        BenchCommand::Produce(args) => produce::run(&args, global, out).await,
        BenchCommand::Consume(args) => consume::run(&args, global, out).await,
        BenchCommand::Latency(args) => latency::run(&args, global, out).await,
        BenchCommand::Load(args) => load::run(&args, global, out).await,
    }
}

/// What is measured against.
#[derive(Clone, Debug, serde::Serialize)]
struct Target {
    topic: String,
    partitions: usize,
    replicas: usize,
    /// The topic's flush mode: what an acknowledgement means.
    flush: String,
}

impl Target {
    async fn find(admin: &Admin, topic: &str) -> Result<Target, Failure> {
        let described = admin.describe_topic(topic).await?;
        let configs = admin.topic_configs(topic).await?;
        let flush = configs.into_iter().find(|config| config.name == "flush").map(|config| config.value);
        Ok(Target {
            topic: topic.to_owned(),
            partitions: described.partitions.len(),
            replicas: described.partitions.first().map_or(0, |p| p.replicas.len()),
            flush: flush.unwrap_or_default(),
        })
    }

    /// Creates the topic first, if it does not exist.
    async fn prepare(admin: &Admin, args: &TopicArgs) -> Result<Target, Failure> {
        let mut topic = NewTopic::new(&args.topic).partitions(args.partitions);
        if let Some(replication) = args.replication {
            topic = topic.replication_factor(replication);
        }
        for (key, value) in &args.configs {
            topic = topic.config(key, value);
        }
        match admin.create_topic(topic).await {
            Ok(_) => {}
            Err(error) if error.code() == Some(ErrorCode::TopicExists) => {}
            Err(error) => return Err(error.into()),
        }
        Target::find(admin, &args.topic).await
    }
}
