//! The README shows only commands that CI runs: its two set-up commands, and a tour that is the same as
//! `ops/docs/tour.sh`.

#![allow(clippy::disallowed_methods, reason = "reads the documents of the workspace")]

use std::path::Path;

fn document(path: &str) -> String {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("ops/xtask lies in the workspace");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What a reader would type: the lines of a document that begin with `$ `, and name our program.
fn commands(readme: &str) -> Vec<&str> {
    let typed = readme.lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
    typed.filter(|command| command.split([' ', '(', '|']).any(|word| word == "strandline")).collect()
}

fn missing<'a>(readme: &'a str, tour: &str) -> Vec<&'a str> {
    commands(readme)
        .into_iter()
        .filter(|command| !tour.lines().any(|line| line.contains(command.trim())))
        .collect()
}

#[test]
fn the_readme_has_the_two_set_up_commands() {
    let readme = document("README.md");
    for command in ["cargo run --release -- dev", "cargo test --workspace"] {
        assert!(
            readme.lines().any(|line| line.trim_start_matches("$ ").trim() == command),
            "README lacks `{command}`"
        );
    }
}

#[test]
fn every_command_of_the_readme_is_in_the_tour_that_ci_runs() {
    let readme = document("README.md");
    assert!(commands(&readme).len() >= 5, "the README has no tour: commands begin with `$ `");
    let missing = missing(&readme, &document("ops/docs/tour.sh"));
    assert!(missing.is_empty(), "in README.md but not in ops/docs/tour.sh:\n{}", missing.join("\n"));
}

#[test]
fn a_command_that_the_tour_lacks_would_be_found() {
    let readme = "text strandline\n  $ strandline topic list\n$ strandline fly\n$ seq 3 | strandline produce t\n$ cargo test\n";
    let tour = "lines=$(strandline topic list | wc -l)\nseq 3 | strandline produce t\n";
    assert_eq!(missing(readme, tour), ["strandline fly"]);
}
