//! `strandline serve`: one node, until it is told to stop.

use crate::exit::{Exit, Failure};
use crate::gateway_host::{client, gateway_config, ingest_config, listen, own_node};
use crate::logging;
use crate::metrics::{ProcessMetrics, StartedNode};
use crate::node_flags::NodeConfigArgs;
use crate::output::Output;
use crate::signals::Signals;
use std::future::Future;
use std::sync::Arc;
use strandline_gateway::GatewayConfig;
use strandline_metrics::Source;
use strandline_node::config::{HostPort, LogFormat, NodeConfig};
use strandline_node::env::RealEnv;

/// Run one node until SIGTERM or Ctrl-C
///
/// A node is configured by a TOML file, the environment and flags, with one set of names: the key
/// `data.dir` is the flag `--data-dir` and the variable `STRANDLINE_DATA_DIR`. Flags win over the
/// environment, the environment over the file. `strandline config list` shows every key as a table,
/// `strandline config check` what a node would run with.
///
/// SIGTERM and Ctrl-C stop the node cleanly (it hands its leadership over first); a second one ends it at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
    strandline serve --config node.toml
    strandline serve --node-id 1 --data-dir /var/lib/strandline \\
        --listen-grpc 0.0.0.0:7070 --advertise-grpc node-1:7070 \\
        --listen-peer 0.0.0.0:7170 --advertise-peer node-1:7170 \\
        --form-cluster 1=node-1:7170,2=node-2:7170,3=node-3:7170
    strandline serve --node-id 4 --data-dir /var/lib/strandline --join node-1:7170,node-2:7170")]
pub struct ServeArgs {
    #[command(flatten)]
    pub config: NodeConfigArgs,
}

pub fn run(args: &ServeArgs, out: Output) -> Result<(), Failure> {
    let config = args.config.load()?.config;
    let format = if out.json { LogFormat::Json } else { config.log_format };
    logging::for_node(&config.log_level, format)?;
    raise_descriptor_limit();
    let runtime = runtime(config.worker_threads)?;
    let done = runtime.block_on(async {
        let signals = Signals::listen().map_err(|error| {
            Failure::new(Exit::Failure, format_args!("cannot listen for signals: {error}"))
        })?;
        match config.listen_http.clone() {
            Some(address) => with_gateway(config, &address, signals).await,
            None => run_node(config, RealEnv::new(), stopped(signals)).await,
        }
    });
    // Everything that has to be durable is; whatever still runs has nothing to lose.
    runtime.shutdown_background();
    done
}

async fn run_node(
    config: NodeConfig,
    env: RealEnv,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Failure> {
    strandline_node::run(config, Arc::new(env), shutdown).await.map_err(Failure::from)
}

/// The node, and a gateway that is its client. The gateway stops first: what it has taken is answered while the
/// node still serves. It ends with the node in any case.
async fn with_gateway(config: NodeConfig, address: &HostPort, signals: Signals) -> Result<(), Failure> {
    let gateway =
        GatewayConfig { ingest: ingest_config(&config, Some(&config.data_dir))?, ..gateway_config(&config) };
    let listener = listen(address).await?;
    let client = client(&gateway, &own_node(&config))?;
    let (node_metrics, limit) = (StartedNode::default(), config.http_metrics_max_partitions);
    let env = RealEnv::new().on_start(node_metrics.start(limit));
    let sources: Vec<Arc<dyn Source>> = vec![Arc::new(ProcessMetrics), Arc::new(node_metrics)];
    let (served, last_answer) = tokio::sync::oneshot::channel();
    let serving = tokio::spawn(async move {
        let ended = strandline_gateway::serve(gateway, listener, client, sources, stopped(signals)).await;
        // The node may have ended by itself.
        let _ = served.send(());
        ended
    });
    let node = run_node(config, env, async {
        // Dropped without a word where the gateway could not serve, which ends the node as well.
        let _ = last_answer.await;
    })
    .await;
    if node.is_err() {
        serving.abort();
        return node;
    }
    match serving.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(Exit::Failure, format_args!("HTTP: {error}"))),
        Err(error) => Err(Failure::new(Exit::Failure, format_args!("the HTTP gateway ended: {error}"))),
    }
}

pub fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("strandline")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, format_args!("cannot start the runtime: {error}")))
}

/// Completes at the first signal; the second one ends the process at once.
pub async fn stopped(mut signals: Signals) {
    let first = signals.next().await;
    tracing::info!(signal = ?first, "stopping; once more ends the process at once");
    tokio::spawn(async move {
        let second = signals.next().await;
        tracing::warn!("stopped at once");
        std::process::exit(second.exit_code());
    });
}

/// A node holds some files of each partition open: takes as many descriptors as it may have.
fn raise_descriptor_limit() {
    if let Err(error) = crate::descriptors::raise_limit() {
        tracing::warn!(%error, "the limit of open files could not be raised; many partitions may exceed it");
    }
}
