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
mod descriptors;
mod exit;
mod gateway_host;
mod logging;
mod metrics;
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
    use_small_pages();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") => {
            return exit::Failure::from(error).report(true);
        }
        Err(error) => error.exit(),
    };
    let json = cli.global.json;
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// Keeps the kernel from backing the allocator's arenas with 2 MiB pages: an idle node touches a little of many
/// of them, which made 87 MB resident where 30 MB were used.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    // SAFETY: a plain system call without pointers. If the kernel does not know it, more memory is used.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}
