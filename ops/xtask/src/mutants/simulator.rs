//! A built simulator, called by its command line: sweeps that stop at the first failure, and what they found.

use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// How a run may end that shows a bug. Others ("not provoked") say something of the scenario only.
const BUGS: [&str; 5] = ["safety", "liveness", "determinism", "crash", "deadline"];
/// The simulator's word for a wrong command line.
const USAGE: i32 = 2;

/// Whatever can carry out a sweep.
pub trait Sweeper {
    /// Runs until the first failure (others may end meanwhile) or to the end.
    ///
    /// # Errors
    /// It cannot be started, leaves no report, or (invalid input) does not understand what is wanted, such as a scenario
    /// that it does not have.
    fn sweep(&self, sweep: Sweep<'_>) -> io::Result<Found>;
}

#[derive(Clone, Debug)]
pub struct Simulator {
    pub program: PathBuf,
    pub jobs: u16,
    /// Where its sweeps write what they found.
    pub report: PathBuf,
}

/// What is run: seeds from `from` on, `seeds` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep<'a> {
    /// Free exploration without one.
    pub scenario: Option<&'a str>,
    pub from: u64,
    pub seeds: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Carried out, failed ones included.
    pub runs: u64,
    /// By seed.
    pub failures: Vec<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub seed: u64,
    /// It shows a bug.
    pub is_bug: bool,
    /// The violated invariant, else how the run ended.
    pub by: String,
}

impl Sweeper for Simulator {
    fn sweep(&self, sweep: Sweep<'_>) -> io::Result<Found> {
        match std::fs::remove_file(&self.report) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut command = Command::new(&self.program);
        command
            .args(["sweep", "--stop-after", "1", "--seeds", &sweep.seeds.to_string()])
            .args(["--from", &sweep.from.to_string(), "--jobs", &self.jobs.to_string()])
            .args(sweep.scenario.iter().flat_map(|scenario| ["--scenario", scenario]))
            .arg("--json")
            .arg(&self.report)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = command.status()?;
        if status.code() == Some(USAGE) {
            let what = format!("not understood, or its report not written: {command:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let text = std::fs::read_to_string(&self.report)
            .map_err(|error| io::Error::other(format!("{command:?} left no report ({status}): {error}")))?;
        parse(&text).map_err(|what| io::Error::other(format!("the report of {command:?}: {what}")))
    }
}

fn parse(text: &str) -> Result<Found, String> {
    let report: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let runs = report["runs"].as_u64().ok_or("it does not say how many runs there were")?;
    let listed = report["failures"].as_array().ok_or("it does not list failures")?;
    let failure = |failure: &Value| {
        let verdict = failure["verdict"].as_str().ok_or("a failure without a verdict")?;
        let by = failure["invariant"].as_str().unwrap_or(verdict).to_owned();
        let seed = failure["seed"].as_u64().ok_or("a failure without a seed")?;
        Ok(Failure { seed, is_bug: BUGS.contains(&verdict), by })
    };
    let mut failures = listed.iter().map(failure).collect::<Result<Vec<_>, String>>()?;
    failures.sort_by_key(|failure| failure.seed);
    Ok(Found { runs, failures })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_runs_and_failures() {
        let text = r#"{"runs": 9, "failures": [
            {"seed": 8, "scenario": null, "verdict": "crash", "invariant": null, "what": "node-1 died"},
            {"seed": 6, "scenario": "torn-write", "verdict": "safety", "invariant": "I1-durability", "what": "lost"},
            {"seed": 7, "scenario": "torn-write", "verdict": "not-provoked", "invariant": null, "what": "calm"}]}"#;
        let failure = |seed, is_bug, by: &str| Failure { seed, is_bug, by: by.to_owned() };
        let failures = vec![
            failure(6, true, "I1-durability"),
            failure(7, false, "not-provoked"),
            failure(8, true, "crash"),
        ];
        assert_eq!(parse(text), Ok(Found { runs: 9, failures }));
        assert!(parse("{}").is_err() && parse("").is_err());
        assert!(parse(r#"{"runs": 1, "failures": [{"seed": 1}]}"#).is_err());
    }
}
