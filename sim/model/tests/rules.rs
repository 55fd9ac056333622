//! The rules hold in the quick scenarios, and each of them is missed where it is turned off.

use std::collections::BTreeSet;
use strandline_model::search::exhaust;
use strandline_model::{Rules, mutants, scenarios, to_reach};

/// Far more states than a quick scenario has, or a mutant needs.
const LIMIT: usize = 10_000_000;

#[test]
fn no_property_fails_with_all_rules_on_and_everything_is_reached() {
    let mut reached = BTreeSet::new();
    for scenario in scenarios::QUICK {
        let report = exhaust(Rules::all(), scenario, LIMIT);
        if let Some(failure) = report.failure {
            panic!("{scenario}: {} fails: {:#?}\n{:?}", failure.property, failure.actions, failure.state);
        }
        assert!(report.complete, "{scenario} is not quick: {} states", report.unique);
        reached.extend(report.reached);
    }
    let missing: Vec<_> = to_reach().into_iter().filter(|name| !reached.contains(name)).collect();
    assert!(missing.is_empty(), "no scenario reaches {missing:?}");
}

#[test]
fn every_rule_that_is_turned_off_is_missed() {
    for (rule, scenario) in mutants::MUTANTS {
        let report = exhaust(Rules::all().without(rule), scenario, LIMIT);
        assert!(report.failure.is_some(), "{rule} is not missed in {scenario} ({} states)", report.unique);
    }
}

#[test]
fn every_rule_has_a_mutant_or_a_reason_why_not() {
    let tried = mutants::MUTANTS.iter().chain(mutants::SECOND_LINES).map(|(rule, _)| *rule);
    let all = Rules::NAMES.iter().copied();
    assert_eq!(tried.collect::<BTreeSet<_>>(), all.collect::<BTreeSet<_>>());
}

#[test]
fn the_table_has_every_sentence_of_the_page_and_every_rule_with_a_mutant() {
    let (page, table) = (include_str!("../../../ops/docs/REPLICATION.md"), include_str!("../RULES.md"));
    let id = |text: &'static str| {
        let end = text.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(text.len());
        &text[..end]
    };
    let sentences: BTreeSet<&str> = page.split('⚑').skip(1).map(id).filter(|id| *id != "name").collect();
    let rows: Vec<Vec<&str>> = (table.lines().filter(|line| line.starts_with("| ")).skip(1))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.iter().map(|row| row[1]).collect::<BTreeSet<_>>(), sentences);
    let switches = rows.iter().flat_map(|row| row[3].split(' ')).map(|name| name.trim_matches('`'));
    let mutants: BTreeSet<&str> = mutants::MUTANTS.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(switches.collect::<BTreeSet<_>>(), mutants);
    for (rule, scenario) in mutants::MUTANTS {
        let row = rows.iter().find(|row| row[3].contains(&format!("`{rule}`"))).expect("checked above");
        assert!(row[4].split(' ').any(|name| name == *scenario), "{rule} is missed in {scenario}");
    }
}
