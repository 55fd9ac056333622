//! `strandline gateway`: the HTTP front alone, before a cluster that runs elsewhere.

use super::serve::{runtime, stopped};
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::gateway_host::{client, gateway_config, ingest_config, listen};
use crate::logging;
use crate::metrics::ProcessMetrics;
use crate::node_flags::GatewayFlags;
use crate::output::Output;
use crate::signals::Signals;
use std::sync::Arc;
use strandline_gateway::GatewayConfig;
use strandline_node::config::{LogFormat, NodeConfig, key};

/// Serve HTTP (events over JSON) in front of a cluster, until SIGTERM or Ctrl-C
///
/// Every node serves the same by itself with --listen-http; this is for machines of their own. It keeps no data,
/// so any number may run, and any of them serves any topic. It ingests events where --ingest-store says where to keep
/// them: in a file of its own, or in a database with the others.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
    strandline gateway --bootstrap node-1:7070,node-2:7070 --listen-http 0.0.0.0:8080
    strandline gateway --listen-http 0.0.0.0:8080 --ingest-store sqlite:./ingest.sqlite
    curl -s localhost:8080/readyz")]
pub struct GatewayArgs {
    #[command(flatten)]
    pub flags: GatewayFlags,
    /// What is logged: error, warn, info, debug or trace, also for each module
    #[arg(long, default_value = "info", value_name = "TEXT")]
    pub log_level: String,
}

/// Where it listens unless told.
const LISTEN: &str = "127.0.0.1:8080";

pub fn run(args: &GatewayArgs, global: &Global, out: Output) -> Result<(), Failure> {
    let config = configuration(args)?;
    logging::for_node(&args.log_level, if out.json { LogFormat::Json } else { LogFormat::Text })?;
    let gateway = GatewayConfig { ingest: ingest_config(&config, None)?, ..gateway_config(&config) };
    let address = config.listen_http.expect("it has a default");
    runtime(config.worker_threads)?.block_on(async {
        let signals = Signals::listen().map_err(|error| {
            Failure::new(Exit::Failure, format_args!("cannot listen for signals: {error}"))
        })?;
        let listener = listen(&address).await?;
        let client = client(&gateway, &global.bootstrap).map_err(|failure| failure.context("--bootstrap"))?;
        tracing::info!(%address, bootstrap = %global.bootstrap, "serving HTTP");
        strandline_gateway::serve(gateway, listener, client, vec![Arc::new(ProcessMetrics)], stopped(signals))
            .await
            .map_err(|error| Failure::new(Exit::Failure, error))
    })
}

/// The defaults of a node, with the flags over them.
fn configuration(args: &GatewayArgs) -> Result<NodeConfig, Failure> {
    let mut config = NodeConfig { listen_http: LISTEN.parse().ok(), ..NodeConfig::default() };
    for (name, value) in &args.flags.values {
        let key = key(name).expect("the flags are made from the table");
        let set = key.set(&mut config, value);
        set.map_err(|why| {
            let message = format!("--{} {value}: {why}; allowed: {}", key.flag(), key.allowed());
            Failure::usage(message).hint("`strandline config list http` documents every key")
        })?;
    }
    Ok(config)
}
