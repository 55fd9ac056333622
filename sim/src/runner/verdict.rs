//! What became of a run or of many, and the exit code that says it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::process::ExitCode;
use strandline_sim::world::Failure;

/// Worst last, so that the verdict on many runs is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Fine,
    /// A scenario did not bring about what it is there to show: it shows nothing.
    NotProvoked,
    /// What should have come did not.
    Liveness,
    /// The run's process was killed because it took too long of the wall clock.
    Deadline,
    /// A host or the run's own process died without a fault that explains it.
    Crash,
    /// One seed gave two different runs: no other verdict can be replayed.
    Determinism,
    /// A promise was broken.
    Safety,
}

/// What the command line was wrong about, or a file that cannot be written.
pub const USAGE: u8 = 2;

impl Verdict {
    pub const ALL: [Verdict; 7] = [
        Verdict::Fine,
        Verdict::NotProvoked,
        Verdict::Liveness,
        Verdict::Deadline,
        Verdict::Crash,
        Verdict::Determinism,
        Verdict::Safety,
    ];

    pub fn of(failure: Option<&Failure>) -> Verdict {
        match failure {
            None => Verdict::Fine,
            Some(Failure::Safety(_)) => Verdict::Safety,
            Some(Failure::Liveness(_)) => Verdict::Liveness,
            Some(Failure::Crash(_)) => Verdict::Crash,
            Some(Failure::NotProvoked(_)) => Verdict::NotProvoked,
        }
    }

    pub fn code(self) -> u8 {
        match self {
            Verdict::Fine => 0,
            Verdict::Safety => 1,
            Verdict::Liveness => 3,
            Verdict::Determinism => 4,
            Verdict::Crash | Verdict::Deadline => 5,
            Verdict::NotProvoked => 6,
        }
    }

    pub fn is_failure(self) -> bool {
        self != Verdict::Fine
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> ExitCode {
        ExitCode::from(verdict.code())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Fine => "fine",
            Verdict::NotProvoked => "not provoked",
            Verdict::Liveness => "liveness",
            Verdict::Deadline => "deadline",
            Verdict::Crash => "crash",
            Verdict::Determinism => "determinism",
            Verdict::Safety => "safety",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_sim::invariants::Violation;

    fn violation() -> Violation {
        Violation { invariant: "I1-durability", what: "gone".into() }
    }

    #[test]
    fn exit_codes_are_those_of_the_help() {
        let codes: Vec<u8> = Verdict::ALL.iter().map(|verdict| verdict.code()).collect();
        assert_eq!(codes, [0, 6, 3, 5, 5, 4, 1]);
        assert!(!codes.contains(&USAGE));
    }

    #[test]
    fn each_failure_has_its_verdict() {
        assert_eq!(Verdict::of(None), Verdict::Fine);
        assert_eq!(Verdict::of(Some(&Failure::Safety(violation()))), Verdict::Safety);
        assert_eq!(Verdict::of(Some(&Failure::Liveness(violation()))), Verdict::Liveness);
        assert_eq!(Verdict::of(Some(&Failure::Crash("panicked".into()))), Verdict::Crash);
        assert_eq!(Verdict::of(Some(&Failure::NotProvoked("no election".into()))), Verdict::NotProvoked);
    }

    #[test]
    fn the_worst_of_many_is_safety_then_determinism_then_crash_then_liveness() {
        let worst = |verdicts: &[Verdict]| verdicts.iter().copied().max();
        assert_eq!(worst(&[Verdict::Fine, Verdict::Liveness]), Some(Verdict::Liveness));
        assert_eq!(worst(&[Verdict::Liveness, Verdict::Crash]), Some(Verdict::Crash));
        assert_eq!(worst(&[Verdict::Determinism, Verdict::Crash]), Some(Verdict::Determinism));
        assert_eq!(worst(&[Verdict::Safety, Verdict::Determinism]), Some(Verdict::Safety));
    }
}
