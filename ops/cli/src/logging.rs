//! Log lines on standard error, as text or JSON.

use crate::exit::Failure;
use std::io::IsTerminal;
use strandline_node::config::LogFormat;
use tracing_subscriber::EnvFilter;

/// Logs of a node.
pub fn for_node(level: &str, format: LogFormat) -> Result<(), Failure> {
    init(filter("log.level", level)?, format);
    Ok(())
}

/// Logs of the SDK, for the commands that use it: warnings, or more with `-v`.
pub fn for_command(verbosity: u8) {
    let level = match verbosity {
        0 => "error",
        1 => "warn",
        2 => "strandline=info,strandline_client=debug,info",
        _ => "debug",
    };
    init(filter("-v", level).expect("the levels are constant"), LogFormat::Text);
}

/// Libraries under us say at `info` what is of use only to their own developers; who asks for a module by name,
/// or for debug, gets it.
fn filter(name: &str, level: &str) -> Result<EnvFilter, Failure> {
    let quiet = match level.trim() {
        plain @ ("info" | "warn") => {
            format!("{plain},openraft=error,h2=warn,hyper=warn,tower=warn,sled=warn")
        }
        other => other.to_owned(),
    };
    EnvFilter::try_new(quiet).map_err(|error| {
        Failure::usage(format_args!("{name}: `{level}`: {error}")).hint(
            "allowed: error, warn, info, debug or trace, also for each module: info,strandline_raft=debug",
        )
    })
}

fn init(filter: EnvFilter, format: LogFormat) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
