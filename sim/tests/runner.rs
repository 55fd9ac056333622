//! The program as people and CI use it: exit codes, reports and files.

use serde_json::Value;
use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strandline-sim")).args(args).output().expect("it was built")
}

/// Standard output of a command that must end with `code`.
fn said(args: &[&str], code: i32) -> String {
    let output = sim(args);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    out.into_owned()
}

/// A run so short and small that a debug build does it in seconds.
const SMALL: [&str; 6] = ["--seconds", "1", "--max-faults", "0", "--max-clients", "1"];
/// A cluster that cannot form: clients are not to blame, nor is any fault.
const NO_CLIENTS: [&str; 6] = ["--seconds", "1", "--max-faults", "0", "--max-clients", "0"];

/// A file of this test's own, in a directory that cargo gives to tests.
fn file(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"))
}

fn with<'a>(first: &[&'a str], then: &[&'a str]) -> Vec<&'a str> {
    [first, then].concat()
}

#[test]
fn a_run_in_one_process_is_the_same_as_in_another_and_says_so_in_json() {
    let args = with(&["run", "--seed", "3", "--json"], &SMALL);
    let runs: Vec<Value> =
        (0..2).map(|_| serde_json::from_str(&said(&args, 0)).expect("one object of JSON")).collect();
    for key in ["trace_hash", "trace_lines", "simulated_us", "work", "faults", "size"] {
        assert_eq!(runs[0][key], runs[1][key], "{key}");
    }
    assert_eq!(runs[0]["verdict"], "fine");
    assert!(runs[0]["work"]["acknowledged"].as_u64().unwrap() > 0);
    assert_eq!(runs[0]["faults"]["crash"], 0);
}

#[test]
fn a_run_writes_its_trace_and_its_timeline() {
    let (trace, timeline) = (file("run.trace"), file("run.html"));
    let text = said(&with(&["run", "--seed", "4", "--trace", &trace, "--timeline", &timeline], &SMALL), 0);
    let lines = std::fs::read_to_string(&trace).unwrap().lines().count();
    assert!(text.contains(&format!("({lines} lines)")), "{text}");
    let page = std::fs::read_to_string(&timeline).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("\"producer-0\""));
}

#[test]
fn a_sweep_sums_up_and_writes_json() {
    let json = file("sweep.json");
    let text = said(&with(&["sweep", "--seeds", "2", "--from", "5", "--json", &json], &SMALL), 0);
    assert!(text.contains("bit rot") && text.contains("no failure"), "{text}");
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!((summary["runs"].as_u64(), summary["from"].as_u64()), (Some(2), Some(5)));
    assert_eq!(summary["verdict"], "fine");
    assert!(summary["simulated_seconds_per_second"]["per_wall"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_run_without_clients_fails_its_liveness_and_tells_how_to_replay_it() {
    let text = said(&with(&["run", "--seed", "1"], &NO_CLIENTS), 3);
    for expected in ["FAILED seed 1: liveness: I19-liveness", "commit", "replay", "run --seed 1 --seconds 1"]
    {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let swept = said(&with(&["sweep", "--seeds", "2", "--stop-after", "1", "--jobs", "1"], &NO_CLIENTS), 3);
    assert!(swept.contains("1 run of commit") && swept.contains("1 failed (liveness 1)"), "{swept}");
}

#[test]
fn a_run_over_its_deadline_is_killed_and_counts_as_a_crash() {
    let text = said(&["sweep", "--seeds", "1", "--seconds", "86400", "--deadline", "1"], 5);
    assert!(text.contains("FAILED seed 0: deadline: still running after 1s"), "{text}");
}

#[test]
fn two_runs_of_a_seed_do_not_differ_in_a_byte() {
    let text = said(&with(&["check-determinism", "--seeds", "2"], &SMALL), 0);
    assert!(text.contains("2 seeds") && text.contains("no two runs differ"), "{text}");
}

#[test]
fn scenarios_are_listed_with_what_they_are_about() {
    let listed = said(&["list"], 0);
    let scenarios = strandline_sim::scenarios::all();
    let without = strandline_sim::scenarios::not_yet();
    assert_eq!(listed.lines().count(), scenarios.len() + without.len());
    assert!(without.iter().all(|hazard| listed.contains(hazard.name) && listed.contains(hazard.why)));
    assert!(
        scenarios.iter().all(|scenario| listed.contains(scenario.name) && listed.contains(scenario.about))
    );
}

#[test]
fn what_cannot_be_done_is_refused_with_a_code_of_its_own() {
    said(&[], 2);
    said(&["run"], 2);
    said(&["run", "--seed", "1", "--scenario", "no-such-thing"], 2);
    let output = sim(&["run", "--seed", "1", "--trace", "/no/such/directory/run.trace"]);
    assert_eq!(output.status.code(), Some(2));
    let help = said(&["--help"], 0);
    assert!(help.contains("Exit codes:") && help.contains("check-determinism"), "{help}");
}
