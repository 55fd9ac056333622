//! Breadth-first search through all states within the bounds, and random walks where there are too many.

use crate::model::Replication;
use crate::rules::Rules;
use crate::scenarios;
use crate::state::{Action, State};
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::collections::{BTreeMap, BTreeSet};

pub struct Report {
    pub unique: usize,
    pub generated: usize,
    pub depth: usize,
    /// The search ended because there was nothing left, not because it had seen enough.
    pub complete: bool,
    pub failure: Option<Failure>,
    pub reached: BTreeSet<&'static str>,
}

/// A property that does not hold, and how the state was reached.
pub struct Failure {
    pub property: &'static str,
    pub actions: Vec<Action>,
    pub state: State,
}

/// All states, or the first `limit` that are generated.
pub fn exhaust(rules: Rules, scenario: &str, limit: usize) -> Report {
    let model = Replication { rules, bounds: scenarios::bounds(scenario) };
    let checker = model
        .checker()
        .threads(1)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(limit)
        .spawn_bfs()
        .join();
    let mut report = Report {
        unique: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        complete: checker.state_count() < limit,
        failure: None,
        reached: BTreeSet::new(),
    };
    let properties = checker.model().properties();
    for (name, path) in checker.discoveries() {
        let property = properties.iter().find(|p| p.name == name).expect("a property of the model");
        match property.expectation {
            Expectation::Always => {
                let (state, actions) = (path.last_state().clone(), path.into_actions());
                report.failure = Some(Failure { property: name, actions, state });
            }
            _ => drop(report.reached.insert(name)),
        }
    }
    report
}

pub struct Walks {
    pub walks: usize,
    pub steps: usize,
    pub longest: usize,
    pub failure: Option<Failure>,
    /// In how many states each was.
    pub reached: BTreeMap<&'static str, usize>,
}

/// Random walks of at most 400 steps, until `limit` steps have been taken. (Our own: stateright's simulation miscounts
/// actions that change nothing when it rebuilds a path.)
pub fn walk(rules: Rules, scenario: &str, limit: usize, seed: u64) -> Walks {
    const LONGEST: usize = 400;
    let model = Replication { rules, bounds: scenarios::bounds(scenario) };
    let properties = model.properties();
    let mut out = Walks { walks: 0, steps: 0, longest: 0, failure: None, reached: BTreeMap::new() };
    let mut random = seed | 1;
    let mut enabled = vec![];
    while out.steps < limit {
        out.walks += 1;
        let mut state = model.init_states().remove(0);
        let mut actions = vec![];
        while actions.len() < LONGEST {
            enabled.clear();
            model.actions(&state, &mut enabled);
            let next = std::iter::from_fn(|| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let chosen = (!enabled.is_empty()).then(|| (random % enabled.len() as u64) as usize)?;
                Some(enabled.swap_remove(chosen))
            })
            .find_map(|action| Some((model.next_state(&state, action.clone())?, action)));
            let Some((next, action)) = next else { break };
            state = next;
            actions.push(action);
            out.steps += 1;
            for property in &properties {
                let holds = (property.condition)(&model, &state);
                match property.expectation {
                    Expectation::Always if !holds => {
                        out.failure = Some(Failure { property: property.name, actions, state });
                        return out;
                    }
                    Expectation::Sometimes if holds => *out.reached.entry(property.name).or_insert(0) += 1,
                    _ => {}
                }
            }
        }
        out.longest = out.longest.max(actions.len());
    }
    out
}
