//! The planted bugs of `sim/mutants/` do not rot: each applies to the tree as it is, and every sentence of the replication
//! rules that the model has shown to be needed has one.

use std::collections::BTreeSet;
use strandline_xtask::mutants::checkout;
use strandline_xtask::mutants::patch::{self, Patch};
use strandline_xtask::{mutants, root};

/// Its sentences that end in "⚑name" are those that the model has shown to be needed.
const RULES: &str = "ops/docs/REPLICATION.md";
/// What the whole is to have at least, beside those of flagged sentences.
const AT_LEAST: usize = 25;

fn patches() -> Vec<Patch> {
    patch::read_all(&root().join(mutants::PATCHES)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_mutant_applies_to_the_tree() {
    let rotten: Vec<String> = patches()
        .iter()
        .filter_map(|patch| checkout::apply(root(), &patch.path, &["--check"]).err())
        .map(|error| error.to_string())
        .collect();
    assert!(
        rotten.is_empty(),
        "the code has moved under {} mutants: write their diffs anew (sim/mutants/README.md says how)\n{}",
        rotten.len(),
        rotten.join("\n")
    );
}

#[test]
fn every_flagged_sentence_has_a_mutant_and_every_such_mutant_its_sentence() {
    let page = std::fs::read_to_string(root().join(RULES)).unwrap_or_else(|error| panic!("{RULES}: {error}"));
    let ids = page
        .split('⚑')
        .skip(1)
        .filter_map(|text| text.split(|c: char| !c.is_ascii_lowercase() && c != '-').next());
    // The page itself says what "⚑name" means.
    let sentences: BTreeSet<&str> = ids.filter(|id| *id != "name").collect();
    assert!(!sentences.is_empty(), "{RULES} flags no sentence");
    let patches = patches();
    let mutants: BTreeSet<&str> = patches.iter().filter_map(Patch::flag).collect();
    assert_eq!(mutants, sentences);
}

#[test]
fn no_two_mutants_are_the_same() {
    let patches = patches();
    let hashes: BTreeSet<&str> = patches.iter().map(|patch| patch.hash.as_str()).collect();
    assert_eq!(hashes.len(), patches.len());
    let numbered = patches.iter().filter(|patch| patch.flag().is_none()).count();
    assert!(numbered >= AT_LEAST, "{numbered} mutants of hazards");
}
