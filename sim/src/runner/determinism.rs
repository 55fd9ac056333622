//! Whether a seed is a run: each is run twice in separate processes, and every byte of the two traces must agree (I20).

use super::child::{self, Extras};
use super::cli::CheckDeterminism;
use super::outcome::Outcome;
use super::spec::RunSpec;
use super::verdict::Verdict;
use super::{pool, report};
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lines that both traces have, shown before the first one in which they differ.
const CONTEXT: usize = 5;
/// Of a line, so much is compared at once and shown.
const LINE_BYTES: u64 = 4_096;

/// What two runs of one seed were.
#[derive(Debug)]
enum Pair {
    Same(Outcome),
    Differ {
        runs: Box<[Outcome; 2]>,
        where_: String,
    },
    /// One of them ended without a report: nothing can be said of the seed.
    NoReport(Outcome),
}

/// # Errors
/// The directory for the traces cannot be written.
pub fn check(command: &CheckDeterminism) -> io::Result<Verdict> {
    let deadline = Duration::from_secs(command.seeds.workers.deadline);
    if let Some(directory) = &command.keep {
        std::fs::create_dir_all(directory)?;
    }
    let (mut seeds, mut lines, mut worst) = (0u64, 0u64, Verdict::Fine);
    let mut broken = Ok(());
    let specs = command.seeds.iter().map(|seed| RunSpec { seed, shape: command.shape.clone() });
    pool::each(
        command.seeds.workers.jobs(),
        specs,
        |spec| compare(&spec, command.keep.as_deref(), deadline),
        |pair| {
            seeds += 1;
            let (text, verdict) = match pair {
                Pair::Same(outcome) => {
                    lines += outcome.trace_lines;
                    // Not what is asked here, but nothing to be silent about.
                    let failed = outcome.verdict.is_failure();
                    (
                        failed.then(|| format!("{} (the same twice)", report::headline(&outcome))),
                        Verdict::Fine,
                    )
                }
                Pair::NoReport(outcome) => (Some(report::failure(&outcome)), outcome.verdict),
                Pair::Differ { runs, where_ } => (Some(differ(&runs, &where_)), Verdict::Determinism),
            };
            worst = worst.max(verdict);
            broken = text.map_or(Ok(()), |text| super::say(&text));
            if broken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        },
    );
    broken?;
    super::say(&format!(
        "{} of commit {}, run twice each, {lines} lines of trace: {}",
        report::counted(seeds, "seed"),
        super::COMMIT,
        if worst == Verdict::Fine { "no two runs differ" } else { "FAILED" },
    ))?;
    Ok(worst)
}

fn differ(runs: &[Outcome; 2], where_: &str) -> String {
    let [one, other] = runs;
    let command = one.spec.command("run");
    let line = |run: &Outcome| {
        format!(
            "trace {} of {} lines, ended at {} us: {}",
            run.trace_hash, run.trace_lines, run.simulated_us, run.verdict
        )
    };
    format!(
        "FAILED seed {}: determinism: two runs differ\n  commit     {}\n  one        {}\n  the other  {}\n  replay     \
         {command} --trace FILE\n{where_}",
        one.spec.seed,
        one.commit,
        line(one),
        line(other),
    )
}

fn compare(spec: &RunSpec, keep: Option<&Path>, deadline: Duration) -> Pair {
    let extras = Extras { full_hash: true, ..Extras::default() };
    let runs = [child::carry_out(spec, &extras, deadline), child::carry_out(spec, &extras, deadline)];
    if let Some(run) = runs.iter().find(|run| run.trace_hash.is_empty()) {
        return Pair::NoReport(run.clone());
    }
    if said(&runs[0]) == said(&runs[1]) {
        let [run, _] = runs;
        return Pair::Same(run);
    }
    let where_ = locate(spec, keep, deadline)
        .unwrap_or_else(|error| format!("  their traces could not be compared: {error}"));
    Pair::Differ { runs: Box::new(runs), where_ }
}

/// Everything of an outcome that follows from the seed.
fn said(outcome: &Outcome) -> Outcome {
    Outcome { wall_us: 0, cpu_us: None, ..outcome.clone() }
}

/// Runs twice more with traces on files, and tells where these differ.
fn locate(spec: &RunSpec, keep: Option<&Path>, deadline: Duration) -> io::Result<String> {
    let directory = keep.map_or_else(std::env::temp_dir, Path::to_owned);
    let path = |which: &str| {
        directory.join(format!("strandline-sim-{}-{}-{which}.trace", std::process::id(), spec.seed))
    };
    let paths: [PathBuf; 2] = [path("one"), path("other")];
    for path in &paths {
        child::carry_out(spec, &Extras { trace: Some(path.clone()), ..Extras::default() }, deadline);
    }
    let found = first_difference(open(&paths[0])?, open(&paths[1])?);
    if keep.is_none() {
        for path in &paths {
            std::fs::remove_file(path)?;
        }
    }
    let found = match found? {
        Some(difference) => difference.to_string(),
        None => "  two more runs, with their traces on files, do not differ: not every pair does".to_owned(),
    };
    let kept = keep
        .map_or(String::new(), |_| format!("\n  kept: {} and {}", paths[0].display(), paths[1].display()));
    Ok(found + &kept)
}

#[allow(clippy::disallowed_methods, reason = "the runner's own file, not a node's")]
fn open(path: &Path) -> io::Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path)?))
}

#[derive(Debug, PartialEq, Eq)]
struct Difference {
    /// Counted from 1.
    line: u64,
    before: Vec<String>,
    /// Empty where a trace has ended.
    one: String,
    other: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  two more runs differ first in line {} of their traces:", self.line)?;
        for line in &self.before {
            writeln!(f, "      {line}")?;
        }
        let end = |line: &str| if line.is_empty() { "(the end)".to_owned() } else { line.to_owned() };
        writeln!(f, "    - {}", end(&self.one))?;
        write!(f, "    + {}", end(&self.other))
    }
}

fn first_difference(mut one: impl BufRead, mut other: impl BufRead) -> io::Result<Option<Difference>> {
    let mut before = VecDeque::new();
    let mut number = 0;
    loop {
        let (a, b) = (next_line(&mut one)?, next_line(&mut other)?);
        number += 1;
        let text = |line: &[u8]| String::from_utf8_lossy(line).trim_end().to_owned();
        if a != b {
            let (one, other) = (text(&a), text(&b));
            return Ok(Some(Difference { line: number, before: before.into(), one, other }));
        }
        if a.is_empty() {
            return Ok(None);
        }
        if before.len() == CONTEXT {
            before.pop_front();
        }
        before.push_back(text(&a));
    }
}

/// With its end of line; empty at the end.
fn next_line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(one: &str, other: &str) -> Option<Difference> {
        first_difference(one.as_bytes(), other.as_bytes()).unwrap()
    }

    #[test]
    fn equal_traces_do_not_differ() {
        assert_eq!(difference("", ""), None);
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
    }

    #[test]
    fn the_first_differing_line_is_shown_with_those_before_it() {
        let one: String = (1..=9).map(|n| format!("{n}\n")).collect();
        let found = difference(&one, &one.replace('8', "x")).unwrap();
        assert_eq!((found.line, found.one.as_str(), found.other.as_str()), (8, "8", "x"));
        assert_eq!(found.before, ["3", "4", "5", "6", "7"]);
        assert!(found.to_string().ends_with("    - 8\n    + x"));
    }

    #[test]
    fn a_trace_that_ends_early_differs_where_it_ends() {
        let found = difference("a\nb\n", "a\n").unwrap();
        assert_eq!((found.line, found.one.as_str(), found.other.as_str()), (2, "b", ""));
        assert!(found.to_string().contains("+ (the end)"));
    }

    #[test]
    fn what_follows_from_the_seed_is_all_but_the_times() {
        let one = super::super::outcome::samples::outcome(1, None);
        let slower = Outcome { wall_us: 9, cpu_us: Some(4), ..one.clone() };
        assert_eq!(said(&one), said(&slower));
        let other = Outcome { trace_lines: 13, ..one.clone() };
        assert_ne!(said(&one), said(&other));
    }
}
