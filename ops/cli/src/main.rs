//! `strandline`: the one binary. Nodes, a cluster for development, and everything an operator or a script
//! does with a cluster.
//!
//! One module a command under `commands/`; each reads its arguments, does its work through the SDK, and
//! hands what it found to [`output`]. What the exit code of a command means is decided in [`exit`].

#![allow(
    clippy::disallowed_methods,
    reason = "the command line is the outside world: it opens files and reads clocks"
)]

mod cli;
mod commands;
mod exit;
mod logging;
mod node_flags;
mod output;
mod position;
mod producer_args;
mod record_format;
mod signals;
mod table;

use clap::Parser;
use std::process::ExitCode;

/// Returns memory to the system sooner than the system's allocator, which an idle node shows most.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let json = cli.global.json;
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}
