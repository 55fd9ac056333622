//! Random walks of a small cluster: four brokers, one partition, the real `Leader`, `Follower`, `desired_role`
//! and `machine::apply`, under loss, duplication and reordering of every message and proposal, images that lag,
//! power losses, flushes that complete in any order, damage, retention and reassignment. After every step the
//! invariants of HAZARDS.md are checked against an oracle that records what every high watermark has passed.
//!
//! A walk is a list of numbers, one a step, drawn from its seed. A failing walk is cut down to a short one and
//! printed with its trace. `STRANDLINE_WALKS=100000 cargo test -p strandline-core --test replication` walks more.

mod checks;
mod log;
mod profile;
mod steps;
mod world;

use profile::{PROFILES, Profile};
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Stats, World, mix};

const WALKS: u64 = 1_000;

fn walks() -> u64 {
    std::env::var("STRANDLINE_WALKS").ok().and_then(|n| n.parse().ok()).unwrap_or(WALKS)
}

fn numbers(seed: u64, steps: usize) -> Vec<u64> {
    (0..steps as u64).map(|step| mix(seed.wrapping_mul(0x1_0000).wrapping_add(step))).collect()
}

/// The whole walk, then the healing; what went wrong, with the trace so far.
fn walk(profile: &'static Profile, numbers: &[u64]) -> Result<Stats, (String, Vec<String>)> {
    let mut world = World::new(profile);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for &number in numbers {
            world.step(number);
            world.check()?;
        }
        world.heal()
    }));
    match outcome {
        Ok(Ok(())) => Ok(world.stats),
        Ok(Err(broken)) => Err((broken, world.trace)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            Err((format!("panicked: {}", text.unwrap_or_default()), world.trace))
        }
    }
}

/// Leaves out as many steps as it can while the walk still fails in the same way.
fn shorten(profile: &'static Profile, mut numbers: Vec<u64>, broken: &str) -> Vec<u64> {
    let kind = |text: &str| text.split(':').next().map(str::to_owned);
    let mut chunk = numbers.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < numbers.len() {
            let mut fewer = numbers.clone();
            fewer.drain(at..(at + chunk).min(numbers.len()));
            match walk(profile, &fewer) {
                Err((other, _)) if kind(&other) == kind(broken) => numbers = fewer,
                _ => at += chunk,
            }
        }
        chunk /= 2;
    }
    numbers
}

fn explore(name: &str) -> Stats {
    let profile = PROFILES.iter().find(|profile| profile.name == name).expect("a profile of that name");
    let mut total = Stats::default();
    for seed in 0..walks() {
        let numbers = numbers(seed, profile.steps);
        match walk(profile, &numbers) {
            Ok(stats) => total.add(&stats),
            Err((broken, _)) => {
                let short = shorten(profile, numbers, &broken);
                let (broken, trace) = walk(profile, &short).expect_err("the shortened walk fails too");
                panic!("profile {name}, seed {seed}: {broken}\n{} steps:\n{}", short.len(), trace.join("\n"));
            }
        }
    }
    if std::env::var_os("STRANDLINE_WALKS").is_some() {
        println!("{name}: {total:?}");
    }
    total
}

/// A walk that never gets anywhere proves nothing.
fn reached(name: &str, what: &[(&str, u64)]) {
    for (event, times) in what {
        assert!(*times >= 5, "profile {name} reached '{event}' only {times} times");
    }
}

#[test]
fn nothing_acknowledged_is_lost_while_messages_come_twice_late_and_in_any_order() {
    let s = explore("messages");
    reached(
        "messages",
        &[
            ("diverging truncation", s.truncations),
            ("stale answers ignored", s.ignored),
            ("acknowledgement between fetches", s.acks),
            ("committed in a later epoch", s.committed_later),
        ],
    );
}

#[test]
fn nothing_acknowledged_is_lost_through_elections_and_lost_messages() {
    let s = explore("elections");
    reached(
        "elections",
        &[
            ("committed in a later epoch", s.committed_later),
            ("diverging truncation", s.truncations),
            ("two leaders at once", s.two_leaders),
            ("ISR shrinks", s.isr_shrinks),
            ("ISR grows", s.isr_grows),
            ("refused for want of replicas", s.not_enough_replicas),
            ("stale answers ignored", s.ignored),
        ],
    );
}

#[test]
fn nothing_acknowledged_is_lost_through_power_losses() {
    let s = explore("power loss");
    reached(
        "power loss",
        &[
            ("crash with unflushed records", s.lost_tails),
            ("election from the ELR", s.elr_elections),
            ("restarted broker leads", s.restarted_leaders),
            ("flush completed after a truncation", s.late_flushes),
            ("committed in a later epoch", s.committed_later),
        ],
    );
}

#[test]
fn nothing_acknowledged_is_lost_while_the_isr_changes_and_answers_are_late() {
    let s = explore("isr changes");
    reached(
        "isr changes",
        &[
            ("ISR grows", s.isr_grows),
            ("ISR shrinks", s.isr_shrinks),
            ("proposal rejected", s.rejected_alters),
            ("several proposals pending", s.proposals_again),
            ("acknowledgement between fetches", s.acks),
        ],
    );
}

#[test]
fn nothing_acknowledged_is_lost_through_damage_that_is_found() {
    let s = explore("damage");
    reached(
        "damage",
        &[("damage", s.damages), ("damaged replica back in the ISR", s.repaired), ("commits", s.commits)],
    );
}

#[test]
fn nothing_acknowledged_is_lost_while_replicas_move_and_records_are_deleted() {
    let s = explore("reassignment");
    reached(
        "reassignment",
        &[
            ("replica added", s.replicas_added),
            ("replica removed", s.replicas_removed),
            ("records deleted", s.deletions),
            ("follower began at the log start", s.resets),
        ],
    );
}

#[test]
fn where_appending_counts_nothing_is_lost_by_fewer_power_losses_than_replicas_in_sync() {
    let s = explore("flush later");
    reached("flush later", &[("crash with unflushed records", s.lost_tails), ("commits", s.commits)]);
}

#[test]
fn unclean_elections_never_cut_a_log_without_excuse() {
    let s = explore("unclean");
    reached("unclean", &[("unclean election", s.unclean), ("diverging truncation", s.truncations)]);
}

#[test]
fn everything_at_once() {
    let s = explore("everything");
    reached("everything", &[("commits", s.commits), ("leaders", s.leaders)]);
}
