//! Looks for a smaller run that fails in the same way. The seed stays; less of what it draws happens.
//!
//! Each dimension in turn is tried at a few sizes below the present one, all at once, and the smallest that still fails
//! with the same verdict and invariant is kept; until no dimension shrinks any more. Whether a run fails is not
//! monotone in any dimension, so that what is found is small but not always the smallest.

use super::child::{self, Extras};
use super::cli::Shrink;
use super::outcome::{Outcome, Size};
use super::spec::{RunSpec, Shape};
use super::verdict::Verdict;
use super::{pool, report};
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

/// In the order in which they are tried: what makes a run quicker first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dimension {
    Seconds,
    Faults,
    Clients,
    Nodes,
}

const DIMENSIONS: [Dimension; 4] =
    [Dimension::Seconds, Dimension::Faults, Dimension::Clients, Dimension::Nodes];

impl Dimension {
    /// How large a run was in this; `None`: there is nothing to shrink.
    fn of(self, outcome: &Outcome) -> Option<u64> {
        let Size { nodes, clients, faults } = outcome.size;
        match self {
            // A scenario has its own times.
            Dimension::Seconds => outcome.spec.shape.scenario.is_none().then_some(outcome.spec.shape.seconds),
            Dimension::Faults => Some(most(faults, outcome.spec.shape.max_faults)),
            Dimension::Clients => Some(most(clients, outcome.spec.shape.max_clients)),
            Dimension::Nodes => Some(most(nodes, outcome.spec.shape.max_nodes)),
        }
    }

    fn smallest(self) -> u64 {
        match self {
            Dimension::Seconds | Dimension::Nodes => 1,
            Dimension::Faults | Dimension::Clients => 0,
        }
    }

    fn limited(self, shape: &Shape, to: u64) -> Shape {
        let mut shape = shape.clone();
        let limit = usize::try_from(to).ok();
        match self {
            Dimension::Seconds => shape.seconds = to,
            Dimension::Faults => shape.max_faults = limit,
            Dimension::Clients => shape.max_clients = limit,
            Dimension::Nodes => shape.max_nodes = limit,
        }
        shape
    }
}

/// A limit counts what the seed draws; a run counts what came of it, and not all that is drawn happens.
fn most(counted: usize, limit: Option<usize>) -> u64 {
    limit.unwrap_or(counted) as u64
}

/// Sizes below `now`, smallest first: dense near the smallest, and one less than now.
fn candidates(smallest: u64, now: u64) -> Vec<u64> {
    let mut sizes: Vec<u64> = (0..6).map(|n| smallest + (now.saturating_sub(smallest) >> n)).collect();
    sizes.extend([smallest, smallest + 1, now.saturating_sub(1), now - now / 4]);
    sizes.retain(|size| (smallest..now).contains(size));
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The smallest failing run found from `start`, a failing run. `runs` carries out all candidates and answers their outcomes.
fn smallest(start: Outcome, mut runs: impl FnMut(Vec<RunSpec>) -> Vec<Outcome>) -> Outcome {
    let mut best = start;
    loop {
        let before = best.spec.clone();
        for dimension in DIMENSIONS {
            let Some(now) = dimension.of(&best) else { continue };
            let specs = candidates(dimension.smallest(), now).into_iter().map(|size| RunSpec {
                seed: best.spec.seed,
                shape: dimension.limited(&best.spec.shape, size),
            });
            let outcomes = runs(specs.collect());
            let alike = |outcome: &&Outcome| outcome.kind_of_failure() == best.kind_of_failure();
            let found = outcomes.iter().filter(alike).min_by_key(|outcome| dimension.of(outcome));
            if let Some(found) = found {
                best = found.clone();
            }
        }
        if best.spec == before {
            return best;
        }
    }
}

/// # Errors
/// Standard output is gone.
pub fn shrink(command: &Shrink) -> io::Result<Verdict> {
    let deadline = Duration::from_secs(command.workers.deadline);
    let spec = RunSpec { seed: command.seed, shape: command.shape.clone() };
    let one = |spec: RunSpec| child::carry_out(&spec, &Extras::default(), deadline);
    let start = one(spec);
    if !start.verdict.is_failure() {
        super::say(&format!("seed {} does not fail: there is nothing to shrink", command.seed))?;
        return Ok(Verdict::Fine);
    }
    super::say(&format!("shrinking {}", report::headline(&start)))?;
    let mut tried = 0;
    let found = smallest(start, |specs| {
        tried += specs.len();
        let mut outcomes = Vec::new();
        pool::each(command.workers.jobs(), specs.into_iter(), one, |outcome| {
            outcomes.push(outcome);
            ControlFlow::Continue(())
        });
        if let Some(smallest) = outcomes.iter().find(|outcome| outcome.verdict.is_failure()) {
            eprintln!("{tried} tried; fails: {}", smallest.spec.args().join(" "));
        }
        outcomes
    });
    super::say(&format!(
        "\n{}\n{tried} runs tried; the smallest found:\n  {}",
        report::failure(&found),
        found.command()
    ))?;
    Ok(found.verdict)
}

#[cfg(test)]
mod tests {
    use super::super::outcome::samples;
    use super::*;

    /// What a seed draws here: 7 nodes, 9 clients, 40 faults.
    fn run(spec: &RunSpec, fails: impl Fn(u64, Size) -> bool) -> Outcome {
        let shape = &spec.shape;
        let size = Size {
            nodes: shape.max_nodes.unwrap_or(7).min(7),
            clients: shape.max_clients.unwrap_or(9).min(9),
            faults: shape.max_faults.unwrap_or(40).min(40),
        };
        let failure = if fails(shape.seconds, size) { samples::safety() } else { None };
        Outcome { spec: spec.clone(), size, ..samples::outcome(spec.seed, failure) }
    }

    fn shrunk(fails: impl Fn(u64, Size) -> bool) -> (u64, Size) {
        let start = run(&samples::spec(1), &fails);
        let found = smallest(start, |specs| specs.iter().map(|spec| run(spec, &fails)).collect());
        assert_eq!(found.verdict, Verdict::Safety);
        (found.spec.shape.seconds, found.size)
    }

    #[test]
    fn every_dimension_shrinks_to_what_the_failure_needs() {
        let (seconds, size) = shrunk(|seconds, size| {
            seconds >= 13 && size.nodes >= 3 && size.clients >= 2 && size.faults >= 17
        });
        assert_eq!((seconds, size), (13, Size { nodes: 3, clients: 2, faults: 17 }));
    }

    #[test]
    fn a_failure_that_needs_nothing_shrinks_to_the_least_that_there_is() {
        assert_eq!(shrunk(|_, _| true), (1, Size { nodes: 1, clients: 0, faults: 0 }));
    }

    #[test]
    fn what_fails_only_as_it_is_stays_as_it_is() {
        let whole =
            |seconds, size: Size| seconds == 60 && (size.nodes, size.clients, size.faults) == (7, 9, 40);
        assert_eq!(shrunk(whole), (60, Size { nodes: 7, clients: 9, faults: 40 }));
    }

    #[test]
    fn another_failure_is_not_taken_for_this_one() {
        let fails = |spec: &RunSpec| match spec.shape.seconds {
            60 => run(spec, |_, _| true),
            _ => Outcome { invariant: Some("I2-other".into()), ..run(spec, |_, _| true) },
        };
        let found = smallest(fails(&samples::spec(1)), |specs| specs.iter().map(fails).collect());
        assert_eq!((found.spec.shape.seconds, found.invariant.as_deref()), (60, Some("I1-durability")));
    }

    #[test]
    fn candidates_lie_below_and_come_down_to_the_smallest() {
        assert_eq!(candidates(0, 0), [0u64; 0]);
        assert_eq!(candidates(0, 1), [0]);
        assert_eq!(candidates(1, 60), [1, 2, 4, 8, 15, 30, 45, 59]);
    }
}
