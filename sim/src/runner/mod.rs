//! The command-line program around [`strandline_sim::run`].
//!
//! ```text
//!   sweep, check-determinism, shrink ─▶ pool ─▶ child ═ a process each ═▶ run --json ─▶ single ─▶ strandline_sim::run
//!                 ▲                               │                                       │
//!                 └──────────── Outcome ◀─────────┴───────────── JSON ◀── Outcome ◀───────┘
//! ```
//!
//! A run never shares a process with another one. Threads, clocks of the machine and files of the machine are used
//! here and nowhere in a run.

mod child;
mod cli;
mod determinism;
mod outcome;
mod pool;
mod report;
mod shrink;
mod single;
mod spec;
mod story;
mod sweep;
mod timeline;
mod verdict;
mod wall;
mod words;

use clap::Parser;
use cli::{Cli, Command};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use verdict::Verdict;

/// What this program was built from: an abbreviated hash, `-dirty` if the tree was not as committed.
pub const COMMIT: &str = env!("STRANDLINE_SIM_COMMIT");

pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => one(&run),
        Command::Sweep(sweep) => sweep::sweep(&sweep),
        Command::Regressions(regressions) => sweep::regressions(&regressions),
        Command::List => list(),
        Command::CheckDeterminism(check) => determinism::check(&check),
        Command::Shrink(shrink) => shrink::shrink(&shrink),
    };
    match done {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            eprintln!("strandline-sim: {error}");
            ExitCode::from(verdict::USAGE)
        }
    }
}

fn one(run: &cli::Run) -> io::Result<Verdict> {
    let outcome = single::carry_out(run)?;
    match run.json {
        true => say(&serde_json::to_string(&outcome)?)?,
        false => say(&report::run(&outcome))?,
    }
    Ok(outcome.verdict)
}

fn list() -> io::Result<Verdict> {
    let scenarios = strandline_sim::scenarios::all();
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    for scenario in scenarios {
        say(&format!("{:width$}  {}", scenario.name, scenario.about))?;
    }
    for hazard in strandline_sim::scenarios::not_yet() {
        say(&format!("{:width$}  (no scenario: {})", hazard.name, hazard.why))?;
    }
    Ok(Verdict::Fine)
}

/// A line on standard output. Whoever reads it may have gone away: that is an error like that of a file, no panic.
fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

#[allow(clippy::disallowed_methods, reason = "a file of whoever runs this, not of a node")]
fn write_file(path: &Path, text: &str) -> io::Result<()> {
    std::fs::write(path, text)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
