//! Transcripts: the steps of rebalances, written as they happen.

use super::*;
use proptest::prelude::*;

fn set(names: &[&str]) -> Partitions {
    names
        .iter()
        .map(|name| {
            let (topic, partition) = name.rsplit_once('-').unwrap();
            TopicPartition::new(topic, partition.parse().unwrap())
        })
        .collect()
}

fn told(steps: &[Step]) -> Vec<String> {
    let list = |ps: &Partitions| ps.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    steps
        .iter()
        .map(|step| match step {
            Step::Gate => "gate".into(),
            Step::Commit(ps) => format!("commit {}", list(ps)),
            Step::Revoked(ps) => format!("revoked {}", list(ps)),
            Step::Lost(ps) => format!("lost {}", list(ps)),
            Step::Assigned(ps) => format!("assigned {}", list(ps)).trim_end().to_owned(),
            Step::Open => "open".into(),
            Step::Rejoin => "rejoin".into(),
        })
        .collect()
}

fn yes(_: &str) -> bool {
    true
}

#[test]
fn an_eager_member_commits_then_gives_everything_up_then_joins() {
    let mut member = Membership::new(RebalanceProtocol::Eager);
    assert!(member.prepare(Cause::Rebalance, yes).is_empty(), "it owns nothing yet");
    assert_eq!(told(&member.complete(set(&["t-0", "t-1"]))), ["gate", "assigned t-0 t-1", "open"]);
    assert_eq!(
        told(&member.prepare(Cause::Rebalance, yes)),
        ["gate", "commit t-0 t-1", "revoked t-0 t-1", "open"]
    );
    assert!(member.owned().is_empty());
    assert_eq!(told(&member.complete(set(&["t-1", "t-2"]))), ["gate", "assigned t-1 t-2", "open"]);
}

#[test]
fn a_cooperative_member_goes_on_reading_and_gives_up_only_what_it_must() {
    let mut member = Membership::new(RebalanceProtocol::Cooperative);
    member.complete(set(&["t-0", "t-1", "t-2"]));
    assert_eq!(told(&member.prepare(Cause::Rebalance, yes)), ["commit t-0 t-1 t-2"]);
    assert_eq!(member.owned().len(), 3, "it joins as the owner of them");
    assert_eq!(
        told(&member.complete(set(&["t-0", "t-1"]))),
        ["gate", "commit t-2", "revoked t-2", "assigned", "open", "rejoin"]
    );
    assert_eq!(told(&member.prepare(Cause::Rebalance, yes)), ["commit t-0 t-1"]);
    assert_eq!(
        told(&member.complete(set(&["t-0", "t-1"]))),
        ["gate", "assigned", "open"],
        "nothing moves: no more rounds"
    );
}

#[test]
fn a_cooperative_member_gets_in_the_second_round_what_another_gave_up_in_the_first() {
    let mut member = Membership::new(RebalanceProtocol::Cooperative);
    assert_eq!(told(&member.complete(set(&[]))), ["gate", "assigned", "open"]);
    assert!(member.prepare(Cause::Rebalance, yes).is_empty());
    assert_eq!(told(&member.complete(set(&["t-2"]))), ["gate", "assigned t-2", "open"]);
}

#[test]
fn topics_unsubscribed_from_are_committed_and_given_up_before_joining() {
    let mut member = Membership::new(RebalanceProtocol::Cooperative);
    member.complete(set(&["a-0", "b-0"]));
    assert_eq!(
        told(&member.prepare(Cause::Rebalance, |topic| topic == "a")),
        ["commit a-0", "gate", "commit b-0", "revoked b-0", "open"]
    );
    assert_eq!(member.owned(), &set(&["a-0"]));
}

#[test]
fn a_member_that_was_given_up_commits_nothing() {
    for protocol in [RebalanceProtocol::Eager, RebalanceProtocol::Cooperative] {
        let mut member = Membership::new(protocol);
        member.complete(set(&["t-0", "t-1"]));
        assert_eq!(told(&member.prepare(Cause::Lost, yes)), ["gate", "lost t-0 t-1", "open"]);
        assert!(member.owned().is_empty() && member.lose().is_empty() && member.close().is_empty());
    }
}

#[test]
fn closing_commits_and_then_gives_up() {
    let mut member = Membership::new(RebalanceProtocol::Cooperative);
    member.complete(set(&["t-0"]));
    assert_eq!(told(&member.close()), ["commit t-0", "revoked t-0"]);
}

proptest! {
    /// Whatever comes: a partition is assigned before it is given up, given up once, committed just before it is
    /// revoked and behind a gate, and the listener's picture is the member's.
    #[test]
    fn the_steps_keep_their_order(
        eager in any::<bool>(),
        events in prop::collection::vec((0..4u8, prop::collection::btree_set(0..6i32, 0..6)), 0..30),
    ) {
        let protocol = if eager { RebalanceProtocol::Eager } else { RebalanceProtocol::Cooperative };
        let mut member = Membership::new(protocol);
        let mut listener = Partitions::new();
        for (event, numbers) in events {
            let partitions: Partitions = numbers.into_iter().map(|p| TopicPartition::new(if p < 3 { "a" } else { "b" }, p)).collect();
            let mut steps = match event {
                0 => member.prepare(Cause::Lost, yes),
                1 => member.prepare(Cause::Rebalance, |topic| topic == "a"),
                _ => member.prepare(Cause::Rebalance, yes),
            };
            if eager || event == 0 {
                prop_assert!(member.owned().is_empty());
            }
            steps.extend(member.complete(partitions.clone()));
            let (mut gated, mut committed) = (false, Partitions::new());
            for step in steps {
                match step {
                    Step::Gate => { prop_assert!(!gated); gated = true; committed.clear(); }
                    Step::Open => { prop_assert!(gated); gated = false; }
                    Step::Commit(ps) => { prop_assert!(ps.is_subset(&listener)); committed.extend(ps); }
                    Step::Revoked(ps) => {
                        prop_assert!(gated && ps.is_subset(&committed) && ps.is_subset(&listener));
                        listener = &listener - &ps;
                    }
                    Step::Lost(ps) => {
                        prop_assert!(gated && ps.is_subset(&listener));
                        listener = &listener - &ps;
                    }
                    Step::Assigned(ps) => {
                        prop_assert!(gated && ps.is_disjoint(&listener));
                        listener.extend(ps);
                    }
                    Step::Rejoin => prop_assert!(!eager && !gated),
                }
            }
            prop_assert!(!gated);
            prop_assert_eq!(&listener, member.owned());
            prop_assert_eq!(&listener, &partitions);
        }
    }
}
