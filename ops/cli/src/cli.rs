//! The command line as a whole: global options and the list of commands.

use crate::commands::{
    bench, cluster, completions, config, consume, demo, dev, dlq, gateway, group, produce, serve, topic,
};
use crate::exit;
use clap::{ArgAction, Args, Parser, Subcommand};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
    strandline dev                                          a three-node cluster on this machine
    strandline topic create orders --partitions 12 --replication 3
    strandline produce orders --key-separator ':' < lines.txt
    strandline consume orders --from earliest --exit-at-end --format '%p %o %k %v'
    strandline cluster status --json | jq .brokers
";

#[derive(Debug, Parser)]
#[command(
    name = "strandline",
    version,
    about = "A replicated event-streaming broker: run it, and work with it",
    after_help = format!("{EXAMPLES}\n{}", exit::HELP),
    propagate_version = true,
    max_term_width = 110,
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Nodes to ask first (gRPC), with commas between them; one that answers is enough
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,…",
        env = "STRANDLINE_BOOTSTRAP",
        default_value = "127.0.0.1:7070",
        help_heading = "Global options"
    )]
    pub bootstrap: String,
    /// Print JSON: one document, or one a line where a command goes on printing; errors too (on stderr)
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// How long one operation may take with all its retries: 500ms, 15s, 2m
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        default_value = "15s",
        value_parser = parse_time,
        help_heading = "Global options"
    )]
    pub timeout: Duration,
    /// Say more on stderr about what happens; again for even more
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Dev(dev::DevArgs),
    Demo(demo::DemoArgs),
    Serve(Box<serve::ServeArgs>),
    Gateway(gateway::GatewayArgs),
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    Produce(produce::ProduceArgs),
    Consume(consume::ConsumeArgs),
    #[command(subcommand)]
    Group(group::GroupCommand),
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Completions(completions::CompletionsArgs),
}

/// `500ms`, `15s`, `2m`, `1h`, or seconds without a unit; more than zero.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is no unit of time; there are ms, s, m and h")),
    };
    let number: f64 =
        number.parse().map_err(|_| format!("`{text}` is not a time such as 500ms, 15s or 2m"))?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("the time must be more than zero".to_owned()),
    }
}

/// A size in bytes, with `k`, `KiB`, `MB` and the like behind it if liked.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "kb" => 1e3,
        "m" | "mib" => 1_048_576.0,
        "mb" => 1e6,
        "g" | "gib" => 1_073_741_824.0,
        "gb" => 1e9,
        _ => return Err(format!("`{unit}` is no unit of size; there are KiB, MiB, GiB, kB, MB and GB")),
    };
    let number: f64 =
        number.parse().map_err(|_| format!("`{text}` is not a size such as 1024, 16KiB or 1GB"))?;
    let bytes = number * factor;
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(format!("`{text}` is too large")) }
}

/// `KEY=VALUE`.
pub fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound_and_no_flag_of_a_node_hides_a_global_one() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_explained_with_examples() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} says not what it does");
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(path.trim()), "{path} has no example of itself");
            }
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {} is not explained", argument.get_id());
            }
            command.get_subcommands().for_each(|inner| walk(inner, &path));
        }
        walk(&Cli::command(), "");
    }

    #[test]
    fn the_commands_of_the_specification_are_accepted() {
        for line in [
            "strandline dev --nodes 3 --data-dir ./d --kafka-port 9092 --grpc-port 7070 --peer-port 7170 --http-port 8080 --no-restart",
            "strandline dev --nodes 1 -- --log-level debug",
            "strandline demo --rate 1000000 --minutes 5",
            "strandline demo --seconds 20 --no-groups --json",
            "strandline serve --config node.toml",
            "strandline serve --node-id 1 --data-dir d --listen-grpc 0.0.0.0:7070 --advertise-grpc h:7070 \
             --listen-peer 0.0.0.0:7170 --advertise-peer h:7170 --form-cluster 1=a:1,2=b:2,3=c:3",
            "strandline serve --node-id 4 --data-dir d --join a:7170 --log-retention-ms -1",
            "strandline topic create t --partitions 12 --replication 3 --config flush=ack --config retention.ms=1000",
            "strandline topic list --json",
            "strandline topic describe t",
            "strandline topic alter t --config retention.ms=1 --unset flush",
            "strandline topic add-partitions t --partitions 24",
            "strandline topic delete t",
            "strandline produce t --key-separator : --acks all --partition 3 --compression zstd",
            "strandline consume t --group g --from earliest --max-messages 5 --exit-at-end --format %v",
            "strandline consume t --from 17 --partition 0",
            "strandline consume t --from 2026-01-31T12:00:00Z",
            "strandline group list",
            "strandline group describe g --json",
            "strandline group reset g --topic t --to earliest",
            "strandline group delete g",
            "strandline cluster status --bootstrap a:1,b:2",
            "strandline cluster remove-node 3",
            "strandline cluster transfer-leadership",
            "strandline cluster transfer-leadership --to 2",
            "strandline bench produce --topic t --partitions 12 --size 1024 --acks all --rate 1000 --duration 10s",
            "strandline bench consume --topic t --duration 10s",
            "strandline bench latency --topic t --rate 100 --duration 10s --json",
            "strandline bench load --via http --rate 20k --concurrency 500 --duration 10s --size 200 --html r.html",
            "strandline bench load --via kafka --rate max --brokers a:1,b:2 --acks leader --batch 10 --keys 100 --json",
            "strandline bench load --via grpc --find-limit --limit-p99 50ms --warmup 2s",
            "strandline completions bash",
            "strandline config list",
        ] {
            if let Err(error) = read(line) {
                panic!("{line}\n{error}");
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "strandline",
            "strandline topic create",
            "strandline produce t --acks some",
            "strandline consume t --from soon",
            "strandline consume t --format %q",
            "strandline group reset g --topic t",
            "strandline demo --rate 9999",
            "strandline demo --minutes 1 --seconds 1",
            "strandline serve --datadir x",
            "strandline dev --nodes 0",
            "strandline topic create t --config flush",
        ] {
            assert_eq!(read(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn times_and_sizes_take_units() {
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        assert!(["", "0", "x", "5y", "-1s"].iter().all(|text| parse_time(text).is_err()));
        assert_eq!(
            (parse_size("1024"), parse_size("16KiB"), parse_size("1.5GB")),
            (Ok(1024), Ok(16_384), Ok(1_500_000_000))
        );
        assert!(["", "x", "5y"].iter().all(|text| parse_size(text).is_err()));
        assert_eq!(parse_pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_pair("=b").is_err());
    }
}
