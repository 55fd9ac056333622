//! `cargo xtask mutants`: does the simulation notice the bugs that are planted on purpose?
//!
//! ```text
//!   for each patch:  apply ─▶ build ─▶ its scenarios, then free exploration ─▶ revert
//!                                            │ a run fails
//!                                            ▼
//!                     the same seed without the mutant: clean? ─▶ caught, a row of sim/MUTANTS.md
//! ```
//! Invariants: only a run that is clean without the mutant counts as a catch; what is committed is what is tested; the
//! table is written after each mutant, so that a run that was broken off is gone on with by the next.

#![allow(clippy::disallowed_methods, reason = "a development tool, no part of a node")]

pub mod checkout;
pub mod patch;
pub mod simulator;
pub mod table;

use checkout::Checkout;
use patch::Patch;
use simulator::{Failure, Simulator, Sweep, Sweeper};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use table::{Row, Table};

/// Below the root of the workspace.
pub const PATCHES: &str = "sim/mutants";
const TABLE: &str = "sim/MUTANTS.md";
/// Free runs of the build without a mutant that must be clean before anything else is tried.
const CLEAN_SEEDS: u64 = 5;
/// Of all seeds, a scenario gets at most one in so many: most catch at once or never.
const SCENARIO_SHARE: u64 = 10;

pub const HELP: &str = "\
cargo xtask mutants [NAME…] [--seeds N] [--jobs J] [--profile P] [--again] [--list]
    NAME       only mutants whose names begin like this
    --seeds    runs that a mutant gets before it counts as a survivor (500)
    --jobs     runs at once (2)
    --profile  of cargo, to build with (mutants)
    --again    those too whose catch is on record
    --list     name the mutants and end
";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    names: Vec<String>,
    seeds: u64,
    jobs: u16,
    profile: String,
    again: bool,
    list: bool,
}

impl Options {
    /// # Errors
    /// What is wrong with the arguments.
    pub fn parse(arguments: &[&str]) -> Result<Options, String> {
        let mut options = Options {
            names: Vec::new(),
            seeds: 500,
            jobs: 2,
            profile: "mutants".to_owned(),
            again: false,
            list: false,
        };
        let mut arguments = arguments.iter();
        while let Some(&argument) = arguments.next() {
            let mut value = || arguments.next().copied().ok_or_else(|| format!("{argument} needs a value"));
            let wrong = |value: &str| format!("{argument} {value}: not a number that makes sense");
            match argument {
                "--seeds" => {
                    let seeds = value()?;
                    options.seeds = seeds.parse().ok().filter(|n| *n > 0).ok_or_else(|| wrong(seeds))?;
                }
                "--jobs" => {
                    let jobs = value()?;
                    options.jobs = jobs.parse().ok().filter(|n| *n > 0).ok_or_else(|| wrong(jobs))?;
                }
                "--profile" => options.profile = value()?.to_owned(),
                "--again" => options.again = true,
                "--list" => options.list = true,
                option if option.starts_with('-') => return Err(format!("{option} is no option")),
                name => options.names.push(name.to_owned()),
            }
        }
        Ok(options)
    }

    fn wants(&self, patch: &Patch) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| patch.name.starts_with(name.as_str()))
    }
}

/// Succeeds if every mutant was caught, now or before.
pub fn run(options: &Options) -> ExitCode {
    match hunt(crate::root(), options) {
        Ok(survivors) if survivors.is_empty() => ExitCode::SUCCESS,
        Ok(survivors) => {
            eprintln!("\n{} survived: {}", survivors.len(), survivors.join(", "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

/// Names of those that survived.
fn hunt(root: &Path, options: &Options) -> io::Result<Vec<String>> {
    let patches = patch::read_all(&root.join(PATCHES))?;
    if options.list {
        for patch in &patches {
            println!("{:<55} {:>2} {}", patch.name, patch.hazard.0, patch.rule);
        }
        return Ok(Vec::new());
    }
    let mut table = match std::fs::read_to_string(root.join(TABLE)) {
        Ok(text) => Table::parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Table::default(),
        Err(error) => return Err(error),
    };
    table.retain(&patches);
    let wanted: Vec<&Patch> = patches.iter().filter(|patch| options.wants(patch)).collect();
    let due: Vec<&Patch> =
        wanted.iter().copied().filter(|patch| options.again || !table.has_caught(patch)).collect();
    eprintln!("{} mutants, {} of them to be tried", wanted.len(), due.len());
    if wanted.is_empty() {
        return Err(io::Error::other("no mutant has such a name"));
    }
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let checkout = Checkout::make(root, &options.profile)?;
    let hunter = Hunter::new(&checkout, options)?;
    let mut survivors = Vec::new();
    for (number, patch) in due.iter().enumerate() {
        eprint!("[{}/{}] {}: ", number + 1, due.len(), patch.name);
        let row = hunter.try_one(&checkout, patch);
        // Whatever happened, the next one finds the checkout clean.
        checkout.revert()?;
        let row = row?;
        match &row.caught_by {
            Some(by) => eprintln!("{by} ({}; {} runs, {} s)", row.run, row.runs, row.seconds),
            None => {
                eprintln!("SURVIVED {} runs", row.runs);
                survivors.push(patch.name.clone());
            }
        }
        table.insert(&patch.name, row);
        std::fs::write(root.join(TABLE), table.render())?;
    }
    Ok(survivors)
}

/// Who looks for mutants, and how the simulator is without one.
struct Hunter {
    seeds: u64,
    clean: Simulator,
    mutated: PathBuf,
    jobs: u16,
}

/// What a budget of runs went for.
struct Spent {
    runs: u64,
    left: u64,
}

impl Hunter {
    fn new(checkout: &Checkout, options: &Options) -> io::Result<Hunter> {
        eprintln!("building without a mutant");
        let clean = Simulator {
            program: checkout.build("unpatched")?,
            jobs: options.jobs,
            report: checkout.scratch_file("unpatched.json"),
        };
        let found = clean.sweep(Sweep { scenario: None, from: 0, seeds: CLEAN_SEEDS })?;
        if let Some(failure) = found.failures.first() {
            let what = format!("without a mutant seed {} fails already: {}", failure.seed, failure.by);
            return Err(io::Error::other(what));
        }
        let mutated = checkout.scratch_file("mutated.json");
        Ok(Hunter { seeds: options.seeds, clean, mutated, jobs: options.jobs })
    }

    fn try_one(&self, checkout: &Checkout, patch: &Patch) -> io::Result<Row> {
        let started = Instant::now();
        checkout.apply(&patch.path)?;
        let mutant =
            Simulator { program: checkout.build("mutated")?, jobs: self.jobs, report: self.mutated.clone() };
        let share = self.seeds.div_ceil(SCENARIO_SHARE);
        let mut spent = Spent { runs: 0, left: self.seeds };
        let mut caught = None;
        for scenario in patch.scenarios.iter().map(|scenario| Some(scenario.as_str())).chain([None]) {
            let most = if scenario.is_some() { share } else { spent.left };
            match (look(&mutant, &self.clean, scenario, most, &mut spent), scenario) {
                (Ok(None), _) => {}
                (Ok(Some(failure)), _) => {
                    caught = Some((scenario.unwrap_or("free"), failure));
                    break;
                }
                // A hazard that has none.
                (Err(error), Some(scenario)) if error.kind() == io::ErrorKind::InvalidInput => {
                    eprint!("(no scenario {scenario}) ");
                }
                (Err(error), _) => return Err(error),
            }
        }
        let (caught_by, run) = match caught {
            Some((place, failure)) => (Some(failure.by), format!("{place}, seed {}", failure.seed)),
            None => (None, "-".to_owned()),
        };
        Ok(Row {
            hazard: format!("{} {}", patch.hazard.0, patch.hazard.1),
            caught_by,
            run,
            runs: spent.runs,
            seconds: started.elapsed().as_secs(),
            hash: patch.hash.clone(),
        })
    }
}

/// Seeds from 0 on, at most `most` of them, until one fails that is clean without the mutant.
fn look(
    mutant: &impl Sweeper,
    clean: &impl Sweeper,
    scenario: Option<&str>,
    most: u64,
    spent: &mut Spent,
) -> io::Result<Option<Failure>> {
    let end = most.min(spent.left);
    let mut from = 0;
    while from < end {
        let found = mutant.sweep(Sweep { scenario, from, seeds: end - from })?;
        spent.runs += found.runs;
        spent.left = spent.left.saturating_sub(found.runs);
        let Some(last) = found.failures.last() else { return Ok(None) };
        from = last.seed + 1;
        for failure in found.failures.into_iter().filter(|failure| failure.is_bug) {
            let same = Sweep { scenario, from: failure.seed, seeds: 1 };
            match clean.sweep(same)?.failures.first() {
                None => return Ok(Some(failure)),
                Some(anyway) => eprint!("(seed {} fails without it too: {}) ", failure.seed, anyway.by),
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::simulator::Found;
    use super::*;

    /// Fails at these seeds, with a bug or without.
    struct Fails(&'static [(u64, bool)]);

    impl Sweeper for Fails {
        fn sweep(&self, sweep: Sweep<'_>) -> io::Result<Found> {
            let seeds = sweep.from..sweep.from + sweep.seeds;
            let first = self.0.iter().find(|(seed, _)| seeds.contains(seed));
            let failure =
                |&(seed, is_bug): &(u64, bool)| Failure { seed, is_bug, by: "I1-durability".to_owned() };
            let runs = first.map_or(sweep.seeds, |(seed, _)| seed - sweep.from + 1);
            Ok(Found { runs, failures: first.map(failure).into_iter().collect() })
        }
    }

    fn looked(mutant: Fails, clean: Fails, most: u64, left: u64) -> (Option<u64>, u64) {
        let mut spent = Spent { runs: 0, left };
        let caught = look(&mutant, &clean, None, most, &mut spent).unwrap();
        assert_eq!(spent.runs + spent.left, left);
        (caught.map(|failure| failure.seed), spent.runs)
    }

    #[test]
    fn the_first_failure_that_is_clean_without_the_mutant_is_the_catch() {
        assert_eq!(looked(Fails(&[(3, true)]), Fails(&[]), 50, 500), (Some(3), 4));
        assert_eq!(looked(Fails(&[(3, true), (8, true)]), Fails(&[(3, true)]), 50, 500), (Some(8), 9));
        assert_eq!(looked(Fails(&[(3, false), (8, true)]), Fails(&[]), 50, 500), (Some(8), 9));
    }

    #[test]
    fn no_more_runs_are_spent_than_there_are() {
        assert_eq!(looked(Fails(&[]), Fails(&[]), 50, 500), (None, 50));
        assert_eq!(looked(Fails(&[(60, true)]), Fails(&[]), 50, 500), (None, 50));
        assert_eq!(looked(Fails(&[(30, true)]), Fails(&[]), 50, 20), (None, 20));
        assert_eq!(looked(Fails(&[(0, true)]), Fails(&[(0, true)]), 50, 500), (None, 50));
    }

    #[test]
    fn arguments_are_names_and_options_in_any_order() {
        let options =
            Options::parse(&["37", "--seeds", "20", "flag-acks", "--again", "--jobs", "4"]).unwrap();
        assert_eq!((options.seeds, options.jobs, options.again), (20, 4, true));
        assert_eq!(options.names, ["37", "flag-acks"]);
        assert_eq!(Options::parse(&[]).unwrap().seeds, 500);
        for wrong in [&["--seeds"][..], &["--seeds", "0"], &["--jobs", "many"], &["--sweep"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
