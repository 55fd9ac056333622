//! Static members (KIP-345): a restart within the session takes over the place of its predecessor.

mod group_world;

use group_world::*;
use strandline_core::group::*;
use strandline_metadata::{Command, Rejection, Response};
use strandline_record::Generation;

/// `m1` (leader) is instance `a`, `m2` instance `b`.
fn two_static_members() -> World {
    let mut w = World::new();
    w.stabilize(vec![static_member("a", ""), static_member("b", "")]);
    assert_eq!(w.summary(0), "Stable 1: m1 m2");
    w
}

fn heartbeat(w: &mut World, member: &str, instance: &str) -> Result<(), GroupError> {
    let now = w.now();
    w.coordinators[0].heartbeat(member, Some(instance), Generation(1), now)
}

#[test]
fn a_restarted_member_keeps_its_assignment_without_a_rebalance_and_its_predecessor_is_fenced() {
    let mut w = two_static_members();
    let reply = w.join(0, static_member("b", ""));
    assert!(w.waits(reply), "told once agreed");
    assert!(
        matches!(&w.proposals[0].command, Command::ReplaceMember { from, to, .. } if &**from == "m2" && &**to == "m3")
    );
    assert_eq!(heartbeat(&mut w, "m2", "b"), Ok(()));
    w.settle();
    let answer = w.joined(reply);
    assert_eq!((answer.generation, &*answer.member_id, &*answer.leader), (Generation(1), "m3", "m1"));
    assert_eq!(w.summary(0), "Stable 1: m1 m3");
    let sync = w.sync_as(0, "m3", Some("b"), 1, Vec::new());
    assert_eq!(w.synced(sync), b"m2", "the assignment of its predecessor");
    assert_eq!(heartbeat(&mut w, "m1", "a"), Ok(()), "nobody else is disturbed");

    assert_eq!(heartbeat(&mut w, "m2", "b"), Err(GroupError::FencedInstanceId));
    let sync = w.sync_as(0, "m2", Some("b"), 1, Vec::new());
    assert_eq!(w.refused(sync), GroupError::FencedInstanceId);
    let join = w.join(0, static_member("b", "m2"));
    assert_eq!(w.refused(join), GroupError::FencedInstanceId);
    let now = w.now();
    let commit = w.coordinators[0].commit_check(&"m2".into(), Some("b"), Some(Generation(1)), now);
    assert_eq!(commit, Err(GroupError::FencedInstanceId));
    assert_eq!(w.commit(Some(("m2", 1))), rejected(Rejection::UnknownMember));
    assert_eq!(w.commit(Some(("m3", 1))), Response::Done);
}

#[test]
fn a_restarted_leader_is_told_to_take_the_assignment_as_it_is() {
    let mut w = two_static_members();
    let reply = w.join(0, JoinRequest { can_skip_assignment: true, ..static_member("a", "") });
    w.settle();
    let answer = w.joined(reply);
    assert!(answer.skip_assignment);
    assert_eq!((&*answer.leader, &*answer.member_id, answer.members.len()), ("m3", "m3", 2));
    // An older client cannot be told: for it somebody else leads.
    let reply = w.join(0, static_member("a", ""));
    w.settle();
    let answer = w.joined(reply);
    assert!(!answer.skip_assignment);
    assert_eq!((&*answer.leader, &*answer.member_id, answer.members.len()), ("m3", "m4", 0));
    assert_eq!(w.agreed().unwrap().leader.as_deref(), Some("m4"));
}

#[test]
fn a_restart_with_other_topics_rebalances_and_one_with_other_owned_partitions_does_not() {
    let with =
        |metadata| JoinRequest { protocols: vec![("range".into(), metadata)], ..static_member("b", "") };
    let mut w = two_static_members();
    let reply = w.join(0, with(subscription("topic", b"owned partitions")));
    w.settle();
    w.joined(reply);
    assert_eq!(w.summary(0), "Stable 1: m1 m3");
    w.join(0, with(subscription("another", b"")));
    assert_eq!(w.summary(0), "PreparingRebalance 1: m1 m4");
}

#[test]
fn many_members_restart_at_once_without_a_rebalance() {
    let mut w = World::new();
    let instances: Vec<_> = (0..50).map(|n| format!("i{n:02}")).collect();
    w.stabilize(instances.iter().map(|i| static_member(i, "")).collect());
    let replies: Vec<_> = instances.iter().map(|i| w.join(0, static_member(i, ""))).collect();
    assert_eq!(w.proposals.len(), 50);
    w.settle();
    for reply in replies {
        assert_eq!(w.joined(reply).generation, Generation(1));
    }
    assert_eq!(w.describe(0).phase, GroupPhase::Stable);
}

#[test]
fn a_second_restart_while_the_first_is_being_agreed_wins_whichever_is_applied_first() {
    for first_copy_lost in [false, true] {
        let mut w = two_static_members();
        let first = w.join(0, static_member("b", ""));
        let second = w.join(0, static_member("b", ""));
        assert_eq!(w.refused(first), GroupError::FencedInstanceId);
        if first_copy_lost {
            w.proposals.remove(0);
        }
        w.settle();
        assert_eq!(&*w.joined(second).member_id, "m4");
        assert_eq!(w.summary(0), "Stable 1: m1 m4");
    }
}

#[test]
fn a_rebalance_that_starts_while_a_member_is_being_replaced_takes_the_new_one_along() {
    let mut w = two_static_members();
    let replaced = w.join(0, static_member("b", ""));
    let joining = w.join(0, JoinRequest { require_known_member_id: false, ..dynamic("") });
    assert_eq!(w.summary(0), "PreparingRebalance 1: m1 m3 m4");
    assert_eq!(heartbeat(&mut w, "m2", "b"), Err(GroupError::FencedInstanceId));
    let leader = w.join(0, static_member("a", "m1"));
    w.settle();
    let answers = [w.joined(leader), w.joined(replaced), w.joined(joining)];
    assert!(answers.iter().all(|a| a.generation == Generation(2)));
    w.assign(&answers);
}

#[test]
fn a_restart_during_a_rebalance_joins_it() {
    let mut w = two_static_members();
    let waiting = w.join(
        0,
        JoinRequest { protocols: vec![("range".into(), subscription("x", b""))], ..static_member("b", "m2") },
    );
    assert_eq!(w.describe(0).phase, GroupPhase::PreparingRebalance);
    let again = w.join(0, static_member("b", ""));
    assert_eq!(w.refused(waiting), GroupError::FencedInstanceId);
    let leader = w.join(0, static_member("a", "m1"));
    w.settle();
    assert_eq!(w.joined(leader).members.len(), 2);
    assert_eq!(&*w.joined(again).member_id, "m3");
    // While the assignment is awaited nobody has one to take over: the group rebalances.
    w.join(0, static_member("b", ""));
    assert_eq!(w.summary(0), "PreparingRebalance 2: m1 m4");
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance() {
    let mut w = two_static_members();
    let now = w.now();
    let (result, effects) = w.coordinators[0].leave(&"".into(), Some("nobody"), now);
    assert_eq!((result, effects), (Err(GroupError::UnknownMemberId), Vec::new()));
    let (result, effects) = w.coordinators[0].leave(&"".into(), Some("b"), now);
    assert_eq!(result, Ok(()));
    w.carry_out(0, effects);
    assert_eq!(w.summary(0), "PreparingRebalance 1: m1");
}

#[test]
fn a_repeated_replacement_is_not_taken_for_a_failure() {
    let mut w = two_static_members();
    let reply = w.join(0, static_member("b", ""));
    w.agree_one();
    // The answer got lost, the image is late: the command is sent again, and refused.
    w.advance(500);
    let again = w.proposals.remove(0);
    let Response::Rejected(rejection) = w.apply(&again.command) else { panic!("the new id is a member") };
    w.fail(0, again.id, ProposalFailure::Rejected(rejection));
    assert!(w.waits(reply));
    w.show(0);
    assert_eq!(&*w.joined(reply).member_id, "m3");
}
