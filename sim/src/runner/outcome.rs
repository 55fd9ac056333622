//! What a run gave, as a process hands it to the one that started it and as `--json` shows it.

use super::spec::RunSpec;
use super::verdict::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strandline_sim::faults::FaultKind;
use strandline_sim::run::{RunReport, WorkCounters};
use strandline_sim::world::Failure;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub commit: String,
    #[serde(flatten)]
    pub spec: RunSpec,
    pub verdict: Verdict,
    /// The violated one, or nothing.
    pub invariant: Option<String>,
    /// What is wrong, in words.
    pub what: Option<String>,
    pub simulated_us: u64,
    /// Of the run alone, without the start of its process.
    pub wall_us: u64,
    pub cpu_us: Option<u64>,
    pub size: Size,
    /// Every kind by its name, zero included.
    pub faults: BTreeMap<String, u64>,
    pub work: BTreeMap<String, u64>,
    /// Hash of the whole trace in hexadecimal, and its lines.
    pub trace_hash: String,
    pub trace_lines: u64,
    /// Of a failed run: the last events that matter, oldest first.
    pub story: Vec<String>,
}

/// How large the run was: what shrinking begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub nodes: usize,
    pub clients: usize,
    pub faults: usize,
}

impl Outcome {
    /// The part that the report has; the rest is empty.
    pub fn of(spec: RunSpec, report: &RunReport) -> Outcome {
        let (invariant, what) = match &report.failure {
            None => (None, None),
            Some(Failure::Safety(violation) | Failure::Liveness(violation)) => {
                (Some(violation.invariant.to_owned()), Some(violation.what.clone()))
            }
            Some(Failure::Crash(what) | Failure::NotProvoked(what)) => (None, Some(what.clone())),
        };
        Outcome {
            verdict: Verdict::of(report.failure.as_ref()),
            invariant,
            what,
            simulated_us: report.ended_us,
            faults: report.faults.iter().map(|(kind, count)| (kind.name().to_owned(), count)).collect(),
            work: work_by_name(&report.work).into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
            trace_hash: format!("{:016x}", report.trace.0),
            trace_lines: report.trace.1,
            ..Outcome::empty(spec)
        }
    }

    /// Of a run whose process gave no report.
    pub fn without_report(spec: RunSpec, verdict: Verdict, what: String, story: Vec<String>) -> Outcome {
        Outcome { verdict, what: Some(what), story, ..Outcome::empty(spec) }
    }

    fn empty(spec: RunSpec) -> Outcome {
        Outcome {
            commit: super::COMMIT.to_owned(),
            spec,
            verdict: Verdict::Fine,
            invariant: None,
            what: None,
            simulated_us: 0,
            wall_us: 0,
            cpu_us: None,
            size: Size::default(),
            faults: FaultKind::ALL.iter().map(|kind| (kind.name().to_owned(), 0)).collect(),
            work: WORK.iter().map(|name| ((*name).to_owned(), 0)).collect(),
            trace_hash: String::new(),
            trace_lines: 0,
            story: Vec::new(),
        }
    }

    /// The one command that replays it.
    pub fn command(&self) -> String {
        self.spec.command("run")
    }

    /// What one failure has in common with another of the same cause.
    pub fn kind_of_failure(&self) -> (Verdict, Option<&str>) {
        (self.verdict, self.invariant.as_deref())
    }
}

/// Work counters in the order of reports.
pub const WORK: [&str; 7] = ["sent", "acknowledged", "failed", "unknown", "read", "commits", "rebalances"];

/// Taken apart field by field, so that a new counter cannot be forgotten here.
fn work_by_name(work: &WorkCounters) -> [(&'static str, u64); WORK.len()] {
    let WorkCounters { sent, acknowledged, failed, unknown, read, commits, rebalances } = *work;
    let counts = [sent, acknowledged, failed, unknown, read, commits, rebalances];
    std::array::from_fn(|n| (WORK[n], counts[n]))
}

#[cfg(test)]
pub mod samples {
    use super::*;
    use crate::runner::spec::Shape;
    use strandline_sim::faults::FaultCounters;
    use strandline_sim::invariants::Violation;

    pub fn spec(seed: u64) -> RunSpec {
        let shape =
            Shape { scenario: None, seconds: 60, max_nodes: None, max_clients: None, max_faults: None };
        RunSpec { seed, shape }
    }

    /// A run of a minute with two crashes, which took three seconds.
    pub fn report(failure: Option<Failure>) -> RunReport {
        let mut faults = FaultCounters::default();
        faults.count(FaultKind::Crash);
        faults.count(FaultKind::Crash);
        let work =
            WorkCounters { sent: 10, acknowledged: 7, failed: 1, unknown: 2, read: 5, ..Default::default() };
        RunReport { failure, ended_us: 60_000_000, faults, work, trace: (0xab, 12) }
    }

    pub fn outcome(seed: u64, failure: Option<Failure>) -> Outcome {
        let cpu_us = Some(2_000_000);
        Outcome { wall_us: 3_000_000, cpu_us, ..Outcome::of(spec(seed), &report(failure)) }
    }

    pub fn safety() -> Option<Failure> {
        Some(Failure::Safety(Violation {
            invariant: "I1-durability",
            what: "attempt 5 of t-3 is gone".into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_the_way_between_two_processes() {
        let outcome = samples::outcome(7, samples::safety());
        let json = serde_json::to_string(&outcome).unwrap();
        assert!(!json.contains('\n'));
        assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome);
    }

    #[test]
    fn an_outcome_tells_what_the_report_says() {
        let outcome = samples::outcome(7, samples::safety());
        assert_eq!(outcome.kind_of_failure(), (Verdict::Safety, Some("I1-durability")));
        assert_eq!((outcome.faults["crash"], outcome.faults["bit rot"]), (2, 0));
        assert_eq!((outcome.work["acknowledged"], outcome.work["rebalances"]), (7, 0));
        assert_eq!(outcome.trace_hash, "00000000000000ab");
        assert_eq!(outcome.faults.len(), FaultKind::ALL.len());
    }
}
