//! Outcomes as text for people.

use super::outcome::{Outcome, WORK};
use super::sweep::Totals;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;
use strandline_sim::faults::FaultKind;

/// Failures of a sweep told with their events; more would bury the table. All of them are listed at its end.
const TOLD_IN_FULL: usize = 8;

/// What a single run says.
pub fn run(outcome: &Outcome) -> String {
    if outcome.verdict.is_failure() {
        return failure(outcome);
    }
    let mut text = format!(
        "seed {}: {}; {:.1} simulated s in {:.1} s; trace {} ({} lines); commit {}\n",
        name(outcome),
        outcome.verdict,
        seconds(outcome.simulated_us),
        seconds(outcome.wall_us),
        outcome.trace_hash,
        outcome.trace_lines,
        outcome.commit,
    );
    writeln!(text, "faults: {}", happened(&outcome.faults, fault_names())).expect("a String takes it");
    write!(text, "work: {}", happened(&outcome.work, WORK)).expect("a String takes it");
    text
}

/// One line for a failure that is told in full later.
pub fn headline(outcome: &Outcome) -> String {
    let invariant = outcome.invariant.as_ref().map_or(String::new(), |invariant| format!(" {invariant}:"));
    let what = outcome.what.as_deref().unwrap_or("");
    format!("seed {}: {}:{invariant} {what}", name(outcome), outcome.verdict)
}

/// Everything that somebody needs who was not there.
pub fn failure(outcome: &Outcome) -> String {
    let mut text = format!("FAILED {}\n", headline(outcome));
    let mut line = |label: &str, value: &str| {
        writeln!(text, "  {label:<10} {value}").expect("a String takes it");
    };
    line("commit", &outcome.commit);
    line("seed", &name(outcome));
    line("violated", outcome.invariant.as_deref().unwrap_or("none: see above"));
    if outcome.simulated_us > 0 {
        line("at", &format!("{:.6} s", seconds(outcome.simulated_us)));
        line("faults", &happened(&outcome.faults, fault_names()));
        line("work", &happened(&outcome.work, WORK));
        line("trace", &format!("{} ({} lines)", outcome.trace_hash, outcome.trace_lines));
    }
    line("replay", &outcome.command());
    if !outcome.story.is_empty() {
        text.push_str("  last events that matter:\n");
        for event in &outcome.story {
            writeln!(text, "    {event}").expect("a String takes it");
        }
    }
    text
}

/// The end of a sweep.
pub fn sweep(totals: &Totals, took: Duration) -> String {
    let mut text = String::new();
    for outcome in totals.failures.iter().take(TOLD_IN_FULL) {
        writeln!(text, "{}", failure(outcome)).expect("a String takes it");
    }
    let faults = column("faults", fault_names().into_iter().map(|name| (name, totals.faults[name])));
    let work = column("work", WORK.into_iter().map(|name| (name, totals.work[name])));
    for row in 0..faults.len().max(work.len()) {
        let blank = " ".repeat(faults[0].chars().count());
        let (left, right) = (faults.get(row).unwrap_or(&blank), work.get(row).map_or("", String::as_str));
        writeln!(text, "{}", format!("{left}    {right}").trim_end()).expect("a String takes it");
    }
    let speed = totals.speed();
    write!(
        text,
        "\n{} of commit {} in {:.1} s\n{:.1} simulated seconds; {} of them per second of a run{}\n{}",
        counted(totals.runs, "run"),
        super::COMMIT,
        took.as_secs_f64(),
        seconds(totals.simulated_us),
        one_decimal(speed.per_wall),
        speed.per_cpu.map_or(String::new(), |speed| format!(", {speed:.1} per second of a core")),
        match totals.failures.len() {
            0 => "no failure".to_owned(),
            failures => format!("{failures} failed ({})", verdicts(totals)),
        },
    )
    .expect("a String takes it");
    for outcome in &totals.failures {
        write!(text, "\n  {}\n    {}", headline(outcome), outcome.command()).expect("a String takes it");
    }
    text
}

fn verdicts(totals: &Totals) -> String {
    let counts: Vec<String> =
        totals.verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
    counts.join(", ")
}

fn one_decimal(value: Option<f64>) -> String {
    value.map_or("none".to_owned(), |value| format!("{value:.1}"))
}

/// `7`, or `7 of scenario NAME`.
fn name(outcome: &Outcome) -> String {
    match &outcome.spec.shape.scenario {
        None => outcome.spec.seed.to_string(),
        Some(scenario) => format!("{} of {scenario}", outcome.spec.seed),
    }
}

fn fault_names() -> Vec<&'static str> {
    FaultKind::ALL.iter().map(|kind| kind.name()).collect()
}

/// What is not zero, in the order of `names`.
fn happened(counts: &BTreeMap<String, u64>, names: impl IntoIterator<Item = &'static str>) -> String {
    let of = |name: &'static str| counts.get(name).copied().filter(|count| *count > 0).map(|n| (name, n));
    let parts: Vec<String> =
        names.into_iter().filter_map(of).map(|(name, n)| format!("{name} {n}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn column(title: &str, rows: impl Iterator<Item = (&'static str, u64)>) -> Vec<String> {
    let rows: Vec<(&str, String)> = rows.map(|(name, count)| (name, count.to_string())).collect();
    let names = rows.iter().map(|(name, _)| name.len()).chain([title.len()]).max().unwrap_or(0);
    let counts = rows.iter().map(|(_, count)| count.len()).max().unwrap_or(0);
    let mut lines = vec![format!("{title:<width$}", width = names + 2 + counts)];
    lines.extend(rows.iter().map(|(name, count)| format!("{name:<names$}  {count:>counts$}")));
    lines
}

pub fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::super::outcome::samples;
    use super::super::verdict::Verdict;
    use super::*;

    #[test]
    fn a_failure_names_commit_seed_invariant_events_and_the_command_that_replays_it() {
        let mut outcome = samples::outcome(7, samples::safety());
        outcome.story = vec!["   1.000000 node-2 runs no more".to_owned()];
        let text = run(&outcome);
        for expected in [
            "FAILED seed 7: safety: I1-durability: attempt 5 of t-3 is gone",
            super::super::COMMIT,
            "violated   I1-durability",
            "faults     crash 2",
            "-p strandline-sim -- run --seed 7 --seconds 60\n",
            "    1.000000 node-2 runs no more",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }

    #[test]
    fn a_run_without_a_report_still_tells_how_to_replay_it() {
        let spec = samples::spec(9);
        let outcome = Outcome::without_report(spec, Verdict::Crash, "signal: 6".into(), vec!["abort".into()]);
        let text = run(&outcome);
        assert!(text.contains("FAILED seed 9: crash: signal: 6"), "{text}");
        assert!(text.contains("run --seed 9") && text.contains("abort"), "{text}");
    }

    #[test]
    fn a_sweep_shows_every_counter_and_lists_failures_last() {
        let mut totals = Totals::default();
        totals.add(samples::outcome(1, None));
        totals.add(samples::outcome(2, samples::safety()));
        let text = sweep(&totals, Duration::from_secs(2));
        for kind in FaultKind::ALL {
            assert!(text.contains(kind.name()), "{kind} in\n{text}");
        }
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().any(|line| line.starts_with("crash ") && line.contains("4    sent")), "{text}");
        assert!(text.contains("20.0 of them per second of a run, 30.0 per second of a core"), "{text}");
        assert!(text.contains("1 failed (safety 1)"), "{text}");
        assert!(lines.last().unwrap().ends_with("run --seed 2 --seconds 60"), "{text}");
    }
}
