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
static ALLOCATOR: Spy = Spy;
struct Spy;
thread_local!{ static IN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) }; }
pub static LIVE: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
fn note(what: &str, size: usize) {
    LIVE.fetch_add(size as i64, std::sync::atomic::Ordering::Relaxed);
    if size >= 100_000 && !IN.replace(true) {
        let bt = std::backtrace::Backtrace::force_capture().to_string();
        let short: Vec<&str> = bt.lines().filter(|l| !l.trim_start().starts_with("at ") && (l.contains("strandline") || l.contains("sled") || l.contains("openraft")|| l.contains("tokio") || l.contains("h2::") || l.contains("tonic") || l.contains("tracing"))).skip(1).take(7).map(|l| l.trim()).collect();
        eprintln!("ALLOC {what} {size} live {} {}", LIVE.load(std::sync::atomic::Ordering::Relaxed), short.join(" < "));
        IN.set(false);
    }
}
unsafe impl std::alloc::GlobalAlloc for Spy {
    unsafe fn alloc(&self, l: std::alloc::Layout) -> *mut u8 { note("alloc", l.size()); unsafe { mimalloc::MiMalloc.alloc(l) } }
    unsafe fn alloc_zeroed(&self, l: std::alloc::Layout) -> *mut u8 { note("zeroed", l.size()); unsafe { mimalloc::MiMalloc.alloc_zeroed(l) } }
    unsafe fn dealloc(&self, p: *mut u8, l: std::alloc::Layout) { LIVE.fetch_sub(l.size() as i64, std::sync::atomic::Ordering::Relaxed); if l.size() >= 100_000 && !IN.replace(true) { eprintln!("FREE {}", l.size()); IN.set(false);} unsafe { mimalloc::MiMalloc.dealloc(p, l) } }
    unsafe fn realloc(&self, p: *mut u8, l: std::alloc::Layout, n: usize) -> *mut u8 { LIVE.fetch_sub(l.size() as i64, std::sync::atomic::Ordering::Relaxed); note("realloc", n); unsafe { mimalloc::MiMalloc.realloc(p, l, n) } }
}

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let json = cli.global.json;
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}
