//! Checks the replication rules; `strandline-model help` lists what it can check. One thread, some GiB at most.

use std::process::ExitCode;
use strandline_model::search::{Failure, exhaust, walk};
use strandline_model::{Rules, mutants, scenarios};

const HELP: &str = "\
strandline-model check   SCENARIOS [MILLIONS [RULES]]   all states, or the first so many millions (30)
strandline-model walk    SCENARIOS [MILLIONS [RULES]]   random walks of so many million steps (10)
strandline-model mutants [PART     [MILLIONS]]          turns off each rule whose name has PART; each must be missed

SCENARIOS: names with commas between, or `quick`, `deep`, `wide`. RULES: to be turned off.";

/// Of the random walks. Fixed: the same command finds the same.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize| args.get(i).map_or("", String::as_str);
    let limit = |default: usize| arg(2).parse().unwrap_or(default) * 1_000_000;
    let without = arg(3).split(',').filter(|name| !name.is_empty());
    let rules = without.fold(Rules::all(), |rules, name| rules.without(name));
    let verdicts: Vec<bool> = match arg(0) {
        "check" => named(arg(1)).iter().map(|name| check(&rules, name, limit(30))).collect(),
        "walk" => named(arg(1)).iter().map(|name| walks(&rules, name, limit(10))).collect(),
        "mutants" => (mutants::MUTANTS.iter().filter(|(rule, _)| rule.contains(arg(1))))
            .map(|(rule, scenario)| missed(rule, scenario, limit(30)))
            .collect(),
        _ => {
            println!("{HELP}\n");
            for (set, names) in
                [("quick", scenarios::QUICK), ("deep", scenarios::DEEP), ("wide", scenarios::WIDE)]
            {
                println!("{set}: {}", names.join(" "));
            }
            println!("rules: {}", Rules::NAMES.join(" "));
            vec![]
        }
    };
    if verdicts.into_iter().all(|good| good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn named(scenarios: &str) -> Vec<&str> {
    match scenarios {
        "quick" => scenarios::QUICK.to_vec(),
        "deep" => scenarios::DEEP.to_vec(),
        "wide" => scenarios::WIDE.to_vec(),
        names => names.split(',').collect(),
    }
}

fn check(rules: &Rules, scenario: &str, limit: usize) -> bool {
    let report = exhaust(rules.clone(), scenario, limit);
    let extent = if report.complete { "all" } else { "the first" };
    println!(
        "{scenario}: {extent} {} states, {} generated, depth {}",
        report.unique, report.generated, report.depth
    );
    report.reached.iter().for_each(|name| println!("    reached: {name}"));
    holds(report.failure)
}

fn walks(rules: &Rules, scenario: &str, limit: usize) -> bool {
    let walked = walk(rules.clone(), scenario, limit, SEED);
    println!("{scenario}: {} walks, {} steps, longest {}", walked.walks, walked.steps, walked.longest);
    walked.reached.iter().for_each(|(name, states)| println!("    reached {states} times: {name}"));
    holds(walked.failure)
}

fn missed(rule: &str, scenario: &str, limit: usize) -> bool {
    let report = exhaust(Rules::all().without(rule), scenario, limit);
    let verdict = report.failure.as_ref().map_or("NOT MISSED", |failure| failure.property);
    println!("{rule} | {scenario} | {} states | {verdict}", report.unique);
    report.failure.is_some()
}

fn holds(failure: Option<Failure>) -> bool {
    if let Some(failure) = &failure {
        println!("  FAILS: {}", failure.property);
        failure.actions.iter().for_each(|action| println!("    {action:?}"));
        println!("    => {:?}", failure.state);
    }
    failure.is_none()
}
