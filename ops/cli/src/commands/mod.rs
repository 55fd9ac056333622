//! The commands, one module each.

pub mod bench;
pub mod cluster;
pub mod completions;
pub mod config;
pub mod consume;
pub mod demo;
pub mod dev;
pub mod dlq;
pub mod gateway;
pub mod group;
pub mod produce;
pub mod serve;
pub mod topic;

use crate::cli::{Cli, Command, Global};
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::output::Output;
use crate::signals::Signals;
use std::future::Future;
use strandline_client::Client;

/// Threads of the runtime for commands that move many records: one sends or receives, one (de)compresses.
const DATA_THREADS: usize = 2;

/// Runs the command to its end.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    let out = Output { json: global.json };
    if !matches!(command, Command::Serve(_) | Command::Gateway(_)) {
        logging::for_command(global.verbose);
    }
    match command {
        Command::Dev(args) => dev::run(args, &global, out),
        Command::Demo(args) => many_records(DATA_THREADS, demo::run(args, &global, out)),
        Command::Serve(args) => serve::run(&args, out),
        Command::Gateway(args) => gateway::run(&args, &global, out),
        Command::Topic(command) => one_thread(topic::run(command, &global, out)),
        Command::Produce(args) => many_records(DATA_THREADS, produce::run(args, &global, out)),
        Command::Consume(args) => many_records(DATA_THREADS, consume::run(args, &global, out)),
        Command::Group(command) => one_thread(group::run(command, &global, out)),
        Command::Dlq(command) => one_thread(dlq::run(command, &global, out)),
        Command::Cluster(command) => one_thread(cluster::run(command, &global, out)),
        Command::Bench(command) => {
            many_records(command.threads().unwrap_or(DATA_THREADS), bench::run(command, &global, out))
        }
        Command::Config(command) => config::run(command, out),
        Command::Completions(args) => completions::run(&args, out),
    }
}

/// For commands that ask a few questions: interrupted by SIGINT and SIGTERM wherever they are.
fn one_thread(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(no_runtime)?.block_on(async {
        let mut signals = Signals::listen().map_err(no_runtime)?;
        tokio::select! {
            biased;
            _ = signals.next() => Err(Failure::interrupted("interrupted; what was asked for may have happened")),
            done = command => done,
        }
    })
}

/// For commands that move many records; they see to interruption themselves, since they have something to finish.
fn many_records(threads: usize, command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = match threads {
        // Without a second thread nothing has to be woken.
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    };
    let runtime = runtime.map_err(no_runtime)?;
    let done = runtime.block_on(command);
    // A thread may be blocked reading standard input for ever.
    runtime.shutdown_background();
    done
}

fn no_runtime(error: std::io::Error) -> Failure {
    Failure::new(Exit::Failure, format_args!("cannot start: {error}"))
}

fn no_partition(topic: &str, wrong: i32, count: usize) -> Failure {
    let message = format!("{topic} has no partition {wrong}: it has {count}, counted from 0");
    Failure::new(Exit::NotFound, message).hint(format_args!("`strandline topic describe {topic}` shows them"))
}

/// The cluster that the command is about.
async fn connect(global: &Global) -> Result<Client, Failure> {
    let client = Client::builder()
        .bootstrap(global.bootstrap.as_str())
        .client_id("strandline-cli")
        .request_timeout(global.timeout)
        .operation_timeout(global.timeout);
    let connected = client.connect().await;
    connected.map_err(|error| match Failure::from(error) {
        failure if failure.exit == Exit::Usage => failure.context("--bootstrap"),
        failure => failure.context(format_args!("no node of {} answers", global.bootstrap)),
    })
}
