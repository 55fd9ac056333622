//! The command line of `strandline-sim`.

use super::spec::{RunSpec, Shape};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes:
  0  nothing was found
  1  safety: a promise was broken
  2  the command line is wrong, or a file cannot be written
  3  liveness: the healed cluster did not converge or serve
  4  determinism: one seed gave two different runs
  5  crash: a host or a run died, or a run was killed at its deadline
  6  a scenario did not provoke what it is about
Of several, a sweep returns the worst: 1, then 4, 5, 3, 6.";

/// Whole Strandline clusters in one thread, with faults, an independent oracle and replay by seed.
#[derive(Debug, Parser)]
#[command(name = "strandline-sim", version = super::COMMIT, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one seed, and report what was found.
    #[command(after_help = "\
Examples:
  strandline-sim run --seed 7
  strandline-sim run --seed 7 --seconds 20 --timeline run.html
  strandline-sim run --seed 7 --scenario NAME --trace run.trace")]
    Run(Run),

    /// Run many seeds, each in a process of its own, and sum up.
    #[command(after_help = "\
Examples:
  strandline-sim sweep --seeds 300
  strandline-sim sweep --seeds 1000 --from 5000 --jobs 8 --stop-after 1 --json sweep.json
  strandline-sim sweep --seeds 20 --all-scenarios --artifacts failures/")]
    Sweep(Sweep),

    /// Run again what once failed: each line of a file is what follows `run` on a command line.
    #[command(after_help = "\
Examples:
  strandline-sim regressions sim/seeds.txt
  strandline-sim regressions sim/seeds.txt --jobs 1")]
    Regressions(Regressions),

    /// Name all scenarios.
    List,

    /// Run each seed twice in separate processes and compare every byte of their traces.
    #[command(after_help = "\
Examples:
  strandline-sim check-determinism --seeds 200 --seconds 10
  strandline-sim check-determinism --seeds 1 --from 7 --keep traces/")]
    CheckDeterminism(CheckDeterminism),

    /// Look for a smaller run that fails like this one: less time, fewer faults, clients and nodes.
    #[command(after_help = "\
Examples:
  strandline-sim shrink --seed 7
  strandline-sim shrink --seed 7 --seconds 30 --jobs 4")]
    Shrink(Shrink),
}

#[derive(Debug, Args)]
pub struct Run {
    /// Everything that is random in the run follows from this number.
    #[arg(long, short = 'n', value_name = "N")]
    pub seed: u64,

    #[command(flatten)]
    pub shape: Shape,

    /// Write everything that happens to this file: faults, clients, every network write, every log line.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Draw the run: one HTML file that needs nothing else.
    #[arg(long, value_name = "FILE.html")]
    pub timeline: Option<PathBuf>,

    /// Let the hash of the trace cover every network write and log line, as with --trace.
    #[arg(long)]
    pub full_hash: bool,

    /// Report as one line of JSON.
    #[arg(long)]
    pub json: bool,
}

impl Run {
    pub fn spec(&self) -> RunSpec {
        RunSpec { seed: self.seed, shape: self.shape.clone() }
    }
}

/// Which seeds, and how they share the machine.
#[derive(Clone, Debug, Args)]
pub struct Seeds {
    /// How many seeds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,

    /// The first of them.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub from: u64,

    #[command(flatten)]
    pub workers: Workers,
}

impl Seeds {
    pub fn iter(&self) -> impl Iterator<Item = u64> + Send + use<> {
        let from = self.from;
        (0..self.seeds).map_while(move |n| from.checked_add(n))
    }
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Workers {
    /// Processes at once; as many as there are cores if not given.
    #[arg(long, short = 'j', value_name = "J", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,

    /// Wall-clock seconds after which a run is killed and counts as failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub deadline: u64,
}

impl Workers {
    pub fn jobs(self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.map_or_else(cores, usize::from)
    }
}

#[derive(Debug, Args)]
pub struct Sweep {
    #[command(flatten)]
    pub seeds: Seeds,

    #[command(flatten)]
    pub shape: Shape,

    /// Run every scenario with every seed.
    #[arg(long, conflicts_with = "scenario")]
    pub all_scenarios: bool,

    /// Begin no new run once so many have failed.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..))]
    pub stop_after: Option<u64>,

    /// Also write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Run each failed seed once more and put its trace and timeline into this directory.
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Regressions {
    /// Lines such as `--seed 7 --seconds 20`; what follows a `#` is for people.
    pub file: PathBuf,

    #[command(flatten)]
    pub workers: Workers,
}

#[derive(Debug, Args)]
pub struct CheckDeterminism {
    #[command(flatten)]
    pub seeds: Seeds,

    #[command(flatten)]
    pub shape: Shape,

    /// Where the traces of seeds that differ are kept; they are removed after the comparison if not given.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Shrink {
    /// A seed whose run fails.
    #[arg(long, short = 'n', value_name = "N")]
    pub seed: u64,

    #[command(flatten)]
    pub shape: Shape,

    #[command(flatten)]
    pub workers: Workers,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seeds_count_up_from_the_first_and_end_with_the_numbers() {
        let parse = |words: &[&str]| match Cli::try_parse_from(words).unwrap().command {
            Command::Sweep(sweep) => sweep.seeds.iter().collect::<Vec<_>>(),
            _ => panic!("it is a sweep"),
        };
        assert_eq!(parse(&["sim", "sweep", "--seeds", "3", "--from", "7"]), [7, 8, 9]);
        let last = u64::MAX.to_string();
        assert_eq!(parse(&["sim", "sweep", "--seeds", "3", "--from", &last]), [u64::MAX]);
    }

    #[test]
    fn what_is_wrong_on_the_command_line_is_refused() {
        for words in [
            &["sim", "run"][..],
            &["sim", "run", "--seed", "x"],
            &["sim", "run", "--seed", "1", "--scenario", "no such thing"],
            &["sim", "run", "--seed", "1", "--max-nodes", "0"],
            &["sim", "run", "--seed", "1", "--seconds", "0"],
            &["sim", "sweep", "--seeds", "0"],
            &["sim", "sweep", "--seeds", "1", "--jobs", "0"],
        ] {
            let error = Cli::try_parse_from(words).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(crate::runner::verdict::USAGE), "{words:?}");
        }
    }
}
