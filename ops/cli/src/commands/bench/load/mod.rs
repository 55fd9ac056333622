//! `strandline bench load`: requests of many small clients, at a rate, over HTTP, gRPC or Kafka's protocol.
//!
//! ```text
//!  args ─▶ prepare: topic, connections (http, grpc, kafka) ─▶ engine: schedule, slots, windows ─▶ report: text, JSON, HTML
//!             └──────────── --find-limit: a search names the next rate ◀──────────────────────────────┘
//! ```
//!
//! Decided without clock and network: [`pace`] (what is due), [`search`] (the next rate), [`stats`] (what came of it),
//! [`events`] (what is sent), [`report`].

mod engine;
mod events;
mod grpc;
mod html;
mod http;
mod kafka;
mod machine;
mod pace;
mod plot;
mod report;
mod search;
mod stats;

use super::{CpuArgs, TopicArgs};
use crate::cli::{Global, parse_pair, parse_size, parse_time};
use crate::exit::{Exit, Failure};
use crate::output::{Output, grouped, human_bytes, human_ms, time_of_ms};
use crate::signals::Signals;
use engine::{Plan, Slot};
use events::{Events, Shape};
use pace::{Rate, Schedule};
use report::{Limit, Parameters, Report};
use search::Search;
use stats::Point;
use std::path::PathBuf;
use std::time::Duration;
use strandline_client::Acks;

/// No rate above this is searched for: more than one machine's generator can send.
const MOST_RATE: f64 = 2_000_000.0;

/// Put load on a cluster: requests at a rate, whatever becomes of them, and how long each takes
///
/// Request n is due n/RATE seconds after the start, whatever happened before (an open loop), and its latency is counted from
/// when it was due: a cluster that stalls shows it in the latency of every request that it delayed. Requests that find all
/// connections busy are sent late, never skipped; the report says how late, and how many were not sent at all before the end.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
    strandline dev                                                     in another terminal
    strandline bench load --rate 5000 --duration 30s
    strandline bench load --rate 20k --concurrency 500 --url http://127.0.0.1:8080,http://127.0.0.1:8081,http://127.0.0.1:8082
    strandline bench load --find-limit --concurrency 500 --html report.html
    strandline bench load --path register --rate 10k --concurrency 200 --data-dir strandline-data
    strandline bench load --via kafka --brokers 127.0.0.1:9092 --rate max --json-file result.json")]
pub struct LoadArgs {
    /// What the requests are spoken in; grpc is the SDK's producer
    #[arg(long, value_enum, default_value_t = Via::Http, value_name = "HOW")]
    pub via: Via,
    /// Requests a second (500, 20k), or max: each request as soon as the one before it is answered (a closed loop)
    #[arg(long, default_value = "1000", value_name = "R")]
    pub rate: Rate,
    /// Requests under way at most; with http each has a connection of its own
    #[arg(long, default_value_t = 64, value_name = "C", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub concurrency: u32,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = parse_time, value_name = "TIME")]
    pub duration: Duration,
    /// How long to send before that, without counting
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    pub warmup: Option<Duration>,
    /// Bytes of a record's value, a JSON document
    #[arg(long, default_value = "200", value_parser = parse_size, value_name = "BYTES")]
    pub size: u64,
    /// Records in a request
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub batch: u64,
    /// Different keys; 0: records without a key. The records of a request share one
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(..100_000_000))]
    pub keys: u64,
    /// Topic, created if it does not exist; the gateway's default topic if not given, `bench` if not over http
    #[arg(long, value_name = "NAME")]
    pub topic: Option<String>,
    /// Partitions of a topic that is created
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Replicas of a topic that is created; the cluster's default if not given
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(i32).range(1..))]
    pub replication: Option<i32>,
    /// Configuration key of a topic that is created, such as flush=interval; may be repeated
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub configs: Vec<(String, String)>,
    /// Gateways, for --via http; connections are shared out among them
    #[arg(long, value_name = "URL,…", value_delimiter = ',', default_value = "http://127.0.0.1:8080",
          value_parser = http::parse_url)]
    pub url: Vec<String>,
    /// What is asked of the gateways, for --via http
    #[arg(long, value_enum, default_value_t = http::Path::Produce, value_name = "WHAT")]
    pub path: http::Path,
    /// Kafka listeners, for --via kafka; one that answers is enough (--bootstrap is for grpc)
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', default_value = "127.0.0.1:9092")]
    pub brokers: Vec<String>,
    /// When a record counts as written, over grpc and kafka: all, leader or none; over http it is always all
    #[arg(long, default_value = "all", value_parser = crate::producer_args::acks(), value_name = "WHEN")]
    pub acks: Acks,
    /// Look for the highest rate that holds: no 429, no error, 99 % reached, p99 within --limit-p99; begins at --rate
    #[arg(long)]
    pub find_limit: bool,
    /// What p99 may be for a rate to hold
    #[arg(long, default_value = "1s", value_parser = parse_time, value_name = "TIME", requires = "find_limit")]
    pub limit_p99: Duration,
    /// Write the result to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json_file: Option<PathBuf>,
    /// Write the result to this file, as a page with plots that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Threads of the generator
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub threads: u64,
    #[command(flatten)]
    pub cpu: CpuArgs,
}

/// What requests are spoken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    Http,
    Grpc,
    Kafka,
}

pub async fn run(args: &LoadArgs, global: &Global, out: Output) -> Result<(), Failure> {
    if args.find_limit && args.rate == Rate::Max {
        return Err(Failure::usage("--find-limit begins at a rate: --rate max is none")
            .hint("give --rate a number, or leave it out"));
    }
    // Each connection is a descriptor. Where they are not enough, opening one says so.
    let _ = crate::descriptors::raise_limit();
    let shape = match (args.via, args.path) {
        (Via::Http, http::Path::Produce) => Shape::Produce,
        (Via::Http, _) => Shape::Ingest,
        (Via::Grpc | Via::Kafka, _) => Shape::Value,
    };
    let size = usize::try_from(args.size).map_err(|_| Failure::usage("--size is too large"))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let started_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let events = Events::new(shape, size, args.keys, started_ms).map_err(Failure::usage)?;
    match args.via {
        Via::Http => {
            let slots = http::prepare(args, events, global.timeout).await?;
            measure(args, global, out, slots).await
        }
        Via::Grpc => {
            let slots = grpc::prepare(args, events, global).await?;
            measure(args, global, out, slots).await
        }
        Via::Kafka => {
            let slots = kafka::prepare(args, events, global.timeout).await?;
            measure(args, global, out, slots).await
        }
    }
}

/// The topic of requests that do not go over HTTP.
fn topic_args(args: &LoadArgs) -> TopicArgs {
    TopicArgs {
        topic: args.topic.clone().unwrap_or_else(|| "bench".to_owned()),
        partitions: args.partitions,
        replication: args.replication,
        configs: args.configs.clone(),
    }
}

fn parameters(args: &LoadArgs, global: &Global) -> Parameters {
    let (via, target, addresses) = match args.via {
        Via::Http => ("http", format!("POST {}", args.path.of(args.topic.as_deref())), args.url.clone()),
        Via::Grpc => {
            ("grpc", topic_args(args).topic, global.bootstrap.split(',').map(str::to_owned).collect())
        }
        Via::Kafka => ("kafka", topic_args(args).topic, args.brokers.clone()),
    };
    Parameters {
        via,
        target,
        addresses,
        concurrency: args.concurrency as usize,
        duration_seconds: args.duration.as_secs_f64(),
        warmup_seconds: args.warmup.unwrap_or_default().as_secs_f64(),
        record_bytes: args.size,
        records_per_request: args.batch,
        keys: args.keys,
        acks: super::produce::name_of(if args.via == Via::Http { Acks::All } else { args.acks }),
        threads: args.threads as usize,
    }
}

/// Sends, and reports.
async fn measure<S: Slot>(
    args: &LoadArgs,
    global: &Global,
    out: Output,
    slots: Vec<S>,
) -> Result<(), Failure> {
    let parameters = parameters(args, global);
    let signals = Signals::listen().map_err(|error| Failure::new(Exit::Failure, error))?;
    let mut generator =
        Generator { args, timeout: global.timeout, out, parameters, signals, slots: Some(slots) };
    let report =
        if args.find_limit { generator.find_limit().await? } else { generator.step(args.rate).await? };
    let json = || serde_json::to_string(&report).expect("our own types serialise");
    let write = |path: &PathBuf, text: String| {
        std::fs::write(path, text).map_err(|error| {
            Failure::new(Exit::Failure, format_args!("cannot write {}: {error}", path.display()))
        })
    };
    args.json_file.as_ref().map_or(Ok(()), |path| write(path, json() + "\n"))?;
    args.html.as_ref().map_or(Ok(()), |path| write(path, html::page(&report)))?;
    out.show(&report, || report.text())?;
    if report.interrupted {
        return Err(Failure::interrupted("interrupted"));
    }
    if report.requests.acknowledged == 0 {
        let most = report.errors.iter().max_by_key(|(_, count)| **count);
        let why = match most {
            Some((kind, count)) => format!("{count} × {kind}"),
            None if report.requests.refused > 0 => "all were refused".to_owned(),
            None => "none was sent".to_owned(),
        };
        return Err(Failure::new(Exit::Failure, format_args!("no request was acknowledged: {why}")));
    }
    Ok(())
}

/// Runs, one after another through the same slots.
struct Generator<'a, S> {
    args: &'a LoadArgs,
    timeout: Duration,
    out: Output,
    parameters: Parameters,
    signals: Signals,
    slots: Option<Vec<S>>,
}

impl<S: Slot> Generator<'_, S> {
    async fn step(&mut self, rate: Rate) -> Result<Report, Failure> {
        let warmup = self.args.warmup.unwrap_or_default();
        let schedule = Schedule { rate, end: warmup + self.args.duration };
        let plan = Plan { schedule, warmup, timeout: self.timeout };
        let started_at = time_of_ms(jiff::Timestamp::now().as_millisecond());
        let out = self.out;
        out.remark(HEADINGS);
        let slots = self.slots.take().unwrap_or_default();
        let told = |point: &Point, warmup: bool| out.remark(&line(point, warmup));
        let (measured, slots) = engine::run(plan, slots, &self.args.cpu, &mut self.signals, told).await?;
        self.slots = Some(slots);
        let asked = match rate {
            Rate::PerSecond(rate) => Some(rate),
            Rate::Max => None,
        };
        Ok(Report::of(self.parameters.clone(), asked, started_at, measured))
    }

    /// The report of the highest rate that held, or of the last one tried.
    async fn find_limit(&mut self) -> Result<Report, Failure> {
        let Rate::PerSecond(first) = self.args.rate else { unreachable!("it was refused before") };
        let limit_p99_ms = self.args.limit_p99.as_secs_f64() * 1000.0;
        let mut search = Search::new(first, MOST_RATE);
        let mut steps = Vec::new();
        let mut best: Option<Report> = None;
        while let Some(rate) = search.next() {
            self.out.remark(&format!("--- {} requests/s", grouped(rate.round() as u64)));
            let report = self.step(Rate::PerSecond(rate)).await?;
            if report.interrupted {
                best.get_or_insert(report).interrupted = true;
                break;
            }
            let step = report.step(rate, limit_p99_ms);
            let verdict = step.why.as_ref().map_or("holds".to_owned(), |why| format!("does not hold: {why}"));
            self.out.remark(&format!("--- {} requests/s: {verdict}", grouped(rate.round() as u64)));
            search.tell(step.holds);
            if step.holds || best.is_none() || search.held().is_none() {
                best = Some(report);
            }
            steps.push(step);
        }
        let mut report = best.expect("at least one rate is tried");
        report.limit = Some(Limit { requests_per_second: search.held(), limit_p99_ms, steps });
        Ok(report)
    }
}

const HEADINGS: &str =
    "     s     asked/s       ok/s      429/s   errors/s  under way        p50        p99        lag";

/// A second on a line. A figure that does not exist is a dash.
fn line(point: &Point, warmup: bool) -> String {
    let rate = |rate: f64| grouped(rate.round() as u64);
    let time = |ms: Option<f64>| ms.map_or("-".to_owned(), human_ms);
    let mut line = format!(
        "{:6.0} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        point.t,
        point.asked.map_or("max".to_owned(), rate),
        rate(point.acknowledged),
        rate(point.refused),
        rate(point.failed),
        grouped(point.in_flight),
        time(point.p50_ms),
        time(point.p99_ms),
        time(point.lag_p99_ms),
    );
    if let Some(bytes) = point.cluster_memory_bytes {
        line.push_str(&format!("  nodes {}", human_bytes(bytes as f64)));
    }
    if warmup {
        line.push_str("  (warm-up)");
    }
    line
}
