//! Many runs, summed up.

use super::child::{self, Extras};
use super::cli::{Cli, Command, Regressions, Sweep, Workers};
use super::outcome::{Outcome, WORK};
use super::spec::{RunSpec, Shape};
use super::verdict::Verdict;
use super::wall::Stopwatch;
use super::{pool, report};
use clap::Parser;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;
use strandline_sim::faults::FaultKind;

/// Sums over runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    pub runs: u64,
    pub simulated_us: u64,
    /// Of those runs that reported how long they took.
    wall_us: u64,
    cpu_us: Option<u64>,
    pub faults: BTreeMap<String, u64>,
    pub work: BTreeMap<String, u64>,
    /// How often each kind of failure occurred.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// By scenario and seed.
    pub failures: Vec<Outcome>,
}

/// Simulated seconds per second, of the wall clock of a run and of a core. Nothing while nothing was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    pub per_wall: Option<f64>,
    pub per_cpu: Option<f64>,
}

impl Default for Totals {
    fn default() -> Totals {
        Totals {
            runs: 0,
            simulated_us: 0,
            wall_us: 0,
            cpu_us: Some(0),
            faults: FaultKind::ALL.iter().map(|kind| (kind.name().to_owned(), 0)).collect(),
            work: WORK.iter().map(|name| ((*name).to_owned(), 0)).collect(),
            verdicts: BTreeMap::new(),
            failures: Vec::new(),
        }
    }
}

impl Totals {
    pub fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.simulated_us += outcome.simulated_us;
        self.wall_us += outcome.wall_us;
        // A run without a report has no simulated time either.
        if outcome.simulated_us > 0 {
            self.cpu_us = self.cpu_us.zip(outcome.cpu_us).map(|(sum, more)| sum + more);
        }
        for (sums, counts) in [(&mut self.faults, &outcome.faults), (&mut self.work, &outcome.work)] {
            for (name, count) in counts {
                *sums.entry(name.clone()).or_default() += count;
            }
        }
        if outcome.verdict.is_failure() {
            *self.verdicts.entry(outcome.verdict).or_default() += 1;
            self.failures.push(outcome);
            self.failures.sort_by(|a, b| {
                let key = |outcome: &Outcome| (outcome.spec.shape.scenario.clone(), outcome.spec.seed);
                key(a).cmp(&key(b))
            });
        }
    }

    /// On everything together: the worst of all.
    pub fn verdict(&self) -> Verdict {
        self.verdicts.keys().max().copied().unwrap_or(Verdict::Fine)
    }

    pub fn speed(&self) -> Speed {
        let per = |us: u64| (us > 0).then(|| self.simulated_us as f64 / us as f64);
        Speed { per_wall: per(self.wall_us), per_cpu: self.cpu_us.and_then(per) }
    }
}

/// The file that `--json` names.
#[derive(Serialize)]
struct Summary<'a> {
    commit: &'static str,
    from: u64,
    seeds: u64,
    runs: u64,
    verdict: Verdict,
    simulated_seconds: f64,
    wall_seconds: f64,
    simulated_seconds_per_second: Speed,
    faults: &'a BTreeMap<String, u64>,
    work: &'a BTreeMap<String, u64>,
    failures: Vec<Failed<'a>>,
}

#[derive(Serialize)]
struct Failed<'a> {
    replay: String,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

/// # Errors
/// A file or directory that the command line names cannot be written.
pub fn sweep(command: &Sweep) -> io::Result<Verdict> {
    let watch = Stopwatch::start();
    let deadline = Duration::from_secs(command.seeds.workers.deadline);
    let totals = carry_out(specs(command), command.seeds.workers, command.stop_after);
    let took = watch.elapsed();
    super::say(&report::sweep(&totals, took))?;
    if let Some(path) = &command.json {
        super::write_file(path, &summary(command, &totals, took)?)?;
    }
    if let Some(directory) = &command.artifacts {
        keep_artifacts(directory, &totals.failures, deadline)?;
    }
    Ok(totals.verdict())
}

/// # Errors
/// The file cannot be read, or a line of it is not a run.
pub fn regressions(command: &Regressions) -> io::Result<Verdict> {
    let text = std::fs::read_to_string(&command.file)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", command.file.display())))?;
    let watch = Stopwatch::start();
    let totals = carry_out(parse(&text).map_err(io::Error::other)?, command.workers, None);
    super::say(&report::sweep(&totals, watch.elapsed()))?;
    Ok(totals.verdict())
}

/// The runs that the lines of a file name.
fn parse(text: &str) -> Result<Vec<RunSpec>, String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim()).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(at, line)| {
            let words = ["strandline-sim", "run"].into_iter().chain(line.split_whitespace());
            match Cli::try_parse_from(words).map(|cli| cli.command) {
                Ok(Command::Run(run)) => Ok(run.spec()),
                Ok(_) => Err(format!("line {}: {line:?} is not a run", at + 1)),
                Err(error) => Err(format!("line {}: {error}", at + 1)),
            }
        })
        .collect()
}

/// Each in a process of its own, summed up; failures are told as they come.
fn carry_out(specs: Vec<RunSpec>, workers: Workers, stop_after: Option<u64>) -> Totals {
    let deadline = Duration::from_secs(workers.deadline);
    let mut totals = Totals::default();
    let all = specs.len();
    let progress = io::stderr().is_terminal();
    pool::each(
        workers.jobs(),
        specs.into_iter(),
        |spec| child::carry_out(&spec, &Extras::default(), deadline),
        |outcome| {
            if outcome.verdict.is_failure() {
                eprintln!("{}{}", clear(progress), report::headline(&outcome));
            }
            totals.add(outcome);
            if progress {
                eprint!("{}{}", clear(true), progress_line(&totals, all));
            }
            match stop_after {
                Some(most) if totals.failures.len() as u64 >= most => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        },
    );
    eprint!("{}", clear(progress));
    totals
}

fn specs(command: &Sweep) -> Vec<RunSpec> {
    let scenarios: Vec<Option<String>> = match command.all_scenarios {
        true => strandline_sim::scenarios::all().iter().map(|one| Some(one.name.to_owned())).collect(),
        false => vec![command.shape.scenario.clone()],
    };
    let spec = |seed| {
        scenarios.iter().map(move |scenario| RunSpec {
            seed,
            shape: Shape { scenario: scenario.clone(), ..command.shape.clone() },
        })
    };
    command.seeds.iter().flat_map(spec).collect()
}

fn clear(terminal: bool) -> &'static str {
    if terminal { "\r\x1b[K" } else { "" }
}

fn progress_line(totals: &Totals, all: usize) -> String {
    let speed = totals.speed().per_wall.unwrap_or(0.0);
    let (runs, failed) = (totals.runs, totals.failures.len());
    format!("{runs} of {all} runs, {failed} failed, {speed:.1} simulated seconds per second of a run")
}

fn summary(command: &Sweep, totals: &Totals, took: Duration) -> io::Result<String> {
    let failed = |outcome| Failed { replay: Outcome::command(outcome), outcome };
    let summary = Summary {
        commit: super::COMMIT,
        from: command.seeds.from,
        seeds: command.seeds.seeds,
        runs: totals.runs,
        verdict: totals.verdict(),
        simulated_seconds: totals.simulated_us as f64 / 1e6,
        wall_seconds: took.as_secs_f64(),
        simulated_seconds_per_second: totals.speed(),
        faults: &totals.faults,
        work: &totals.work,
        failures: totals.failures.iter().map(failed).collect(),
    };
    Ok(serde_json::to_string_pretty(&summary)? + "\n")
}

/// Each failed run once more, with everything that shows what happened.
fn keep_artifacts(directory: &Path, failures: &[Outcome], deadline: Duration) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for outcome in failures {
        let scenario = outcome.spec.shape.scenario.as_ref().map_or(String::new(), |name| format!("{name}-"));
        let stem = format!("{scenario}{}", outcome.spec.seed);
        let extras = Extras {
            full_hash: false,
            trace: Some(directory.join(format!("{stem}.trace"))),
            timeline: Some(directory.join(format!("{stem}.html"))),
        };
        super::write_file(&directory.join(format!("{stem}.txt")), &report::failure(outcome))?;
        child::carry_out(&outcome.spec, &extras, deadline);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::outcome::samples;
    use super::*;

    #[test]
    fn counters_and_times_are_summed() {
        let mut totals = Totals::default();
        totals.add(samples::outcome(1, None));
        totals.add(samples::outcome(2, None));
        assert_eq!((totals.runs, totals.simulated_us), (2, 120_000_000));
        assert_eq!((totals.faults["crash"], totals.faults["bit rot"]), (4, 0));
        assert_eq!((totals.work["acknowledged"], totals.work["unknown"]), (14, 4));
        assert_eq!(totals.speed(), Speed { per_wall: Some(20.0), per_cpu: Some(30.0) });
        assert_eq!(totals.verdict(), Verdict::Fine);
    }

    #[test]
    fn the_lines_of_a_file_are_runs() {
        let specs = parse("# all of them\n\n--seed 7 --seconds 20 # why\n --seed 8 --max-nodes 3\n").unwrap();
        assert_eq!(specs.iter().map(|spec| spec.seed).collect::<Vec<_>>(), [7, 8]);
        assert_eq!((specs[0].shape.seconds, specs[1].shape.max_nodes), (20, Some(3)));
        assert!(parse("--seed 7\n--sed 8\n").unwrap_err().starts_with("line 2: "));
    }

    #[test]
    fn a_sweep_over_nothing_has_no_speed() {
        assert_eq!(Totals::default().speed(), Speed { per_wall: None, per_cpu: None });
    }

    #[test]
    fn one_run_without_a_measurement_takes_the_speed_per_core_away() {
        let mut totals = Totals::default();
        totals.add(samples::outcome(1, None));
        totals.add(Outcome { cpu_us: None, ..samples::outcome(2, None) });
        assert_eq!(totals.speed().per_cpu, None);
    }

    #[test]
    fn failures_are_in_the_order_of_seeds_and_the_worst_is_the_verdict() {
        let mut totals = Totals::default();
        let died = |seed| {
            Outcome::without_report(samples::spec(seed), Verdict::Deadline, "killed".into(), Vec::new())
        };
        totals.add(died(9));
        assert_eq!(totals.verdict(), Verdict::Deadline);
        totals.add(samples::outcome(3, samples::safety()));
        totals.add(died(1));
        let seeds: Vec<u64> = totals.failures.iter().map(|outcome| outcome.spec.seed).collect();
        assert_eq!(seeds, [1, 3, 9]);
        assert_eq!(totals.verdict(), Verdict::Safety);
        assert_eq!(totals.verdicts[&Verdict::Deadline], 2);
        // The dead have no part in the speed.
        assert_eq!(totals.speed(), Speed { per_wall: Some(20.0), per_cpu: Some(30.0) });
    }
}
