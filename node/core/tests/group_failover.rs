//! A coordinator is lost, or two take themselves for it, at each step of a rebalance (hazards 28, 29).

mod group_world;

use group_world::*;
use strandline_core::group::*;
use strandline_metadata::{Command, Rejection, Response};
use strandline_record::Generation;

/// Two stable members at coordinator 0, and a third joins: everyone has joined again, the next generation
/// is proposed. Returns the three join replies.
fn proposed() -> (World, [ReplyId; 3]) {
    let (mut w, _) = World::stable(2);
    let m3 = w.introduce(0);
    let joins = [w.join(0, dynamic(&m3)), w.join(0, dynamic("m1")), w.join(0, dynamic("m2"))];
    assert_eq!(w.proposals.len(), 1);
    (w, joins)
}

#[test]
fn failover_of_a_stable_group_causes_no_rebalance() {
    let (mut w, _) = World::stable(2);
    w.advance(9_000);
    w.adopt();
    w.coordinators.remove(0);
    let new = 0;
    assert_eq!(w.summary(new), "Stable 1: m1 m2");
    w.advance(9_000);
    assert_eq!(w.heartbeat(new, "m1", 1), Ok(()), "sessions begin anew");
    let sync = w.sync(new, "m2", 1, &[]);
    assert_eq!(w.synced(sync), b"m2");
    assert!(w.proposals.is_empty());
    // Whoever died meanwhile is noticed all the same.
    w.advance(9_999);
    assert_eq!(w.heartbeat(new, "m1", 1), Ok(()));
    w.advance(1);
    assert_eq!(w.summary(new), "PreparingRebalance 1: m1");
}

#[test]
fn a_rebalance_lost_before_it_was_proposed_leaves_the_old_generation_in_force() {
    let (mut w, _) = World::stable(2);
    let m3 = w.introduce(0);
    w.join(0, dynamic(&m3));
    let new = w.adopt();
    assert_eq!(w.summary(new), "Stable 1: m1 m2");
    assert_eq!(w.heartbeat(new, "m1", 1), Ok(()));
    assert_eq!(w.commit(Some(("m1", 1))), Response::Done);
    let unknown = w.join(new, dynamic(&m3));
    assert_eq!(w.refused(unknown), GroupError::UnknownMemberId, "the newcomer starts over");
}

#[test]
fn a_generation_agreed_but_told_to_nobody_is_taken_up_where_it_stands() {
    let (mut w, joins) = proposed();
    w.agree_one();
    let new = w.adopt();
    assert_eq!(w.summary(new), "CompletingRebalance 2: m1 m2 m3");
    assert!(joins.iter().all(|j| w.waits(*j)));
    // Members do not know of it yet: they are told to join, and then get that very generation.
    assert_eq!(w.heartbeat(new, "m1", 1), Err(GroupError::IllegalGeneration));
    let answers = ["m1", "m2", "m3"].map(|m| w.join(new, dynamic(m))).map(|j| w.joined(j));
    assert!(answers.iter().all(|a| a.generation == Generation(2)));
    assert_eq!(answers[0].members.len(), 3);
    let leader = w.sync(new, "m1", 2, &[("m3", b"three")]);
    let third = w.sync(new, "m3", 2, &[]);
    w.settle();
    assert_eq!(w.synced(leader), b"", "left out: nothing assigned");
    assert_eq!(w.synced(third), b"three");
}

#[test]
fn a_generation_proposed_by_the_lost_coordinator_may_still_be_agreed_under_the_new_one() {
    let (mut w, _) = proposed();
    let new = w.adopt();
    // The new one, knowing nothing of it, prepares the same number for other members.
    let waiting = w.join(
        new,
        JoinRequest { protocols: vec![("range".into(), subscription("x", b""))], ..dynamic("m1") },
    );
    let newcomer = w.join(new, JoinRequest { require_known_member_id: false, ..dynamic("") });
    assert_eq!(w.summary(new), "PreparingRebalance 1: m1 m2 m4");
    w.agree_one();
    w.show(new);
    assert_eq!(w.summary(new), "CompletingRebalance 2: m1 m2 m3");
    for reply in [waiting, newcomer] {
        assert_eq!(w.refused(reply), GroupError::NotCoordinator);
    }
}

#[test]
fn of_two_coordinators_that_propose_one_generation_one_wins_and_the_others_members_were_told_nothing() {
    let (mut w, joins) = proposed();
    let new = w.adopt();
    let waiting = w.join(
        new,
        JoinRequest { protocols: vec![("range".into(), subscription("x", b""))], ..dynamic("m1") },
    );
    assert_eq!(w.leave(new, "m2"), Ok(()));
    assert_eq!(w.proposals.len(), 2);
    // The new one's is applied first.
    w.proposals.reverse();
    assert_eq!(w.agree_one(), Response::Generation(Generation(2)));
    let late = w.proposals.remove(0);
    let stale = Rejection::StaleGeneration(Some(Generation(2)));
    assert_eq!(w.apply(&late.command), rejected(stale.clone()));
    // The old one hears of the refusal before it sees why: nobody is told anything yet.
    w.fail(0, late.id, ProposalFailure::Rejected(stale));
    assert!(joins.iter().all(|j| w.waits(*j)));
    w.show(0);
    for join in joins {
        assert_eq!(w.refused(join), GroupError::NotCoordinator);
    }
    w.show(new);
    let answer = w.joined(waiting);
    assert_eq!((answer.generation, answer.members.len()), (Generation(2), 1));
    assert_eq!(w.summary(0), "CompletingRebalance 2: m1");
}

#[test]
fn a_generation_has_one_assignment_whoever_proposes_it_first() {
    let (mut w, joins) = proposed();
    w.settle();
    let _ = joins.map(|j| w.joined(j));
    let new = w.adopt();
    // The leader's sync goes to both coordinators, with different assignments.
    let at_old = w.sync(0, "m1", 2, &[("m1", b"all")]);
    let at_new = w.sync(new, "m1", 2, &[("m2", b"all")]);
    let other = w.sync(new, "m2", 2, &[]);
    assert_eq!(w.agree_one(), Response::Generation(Generation(2)));
    let loser = w.proposals.remove(0);
    assert_eq!(w.apply(&loser.command), rejected(Rejection::AlreadyAssigned));
    w.fail(new, loser.id, ProposalFailure::Rejected(Rejection::AlreadyAssigned));
    w.show(0);
    w.show(new);
    assert_eq!(w.synced(at_old), b"all");
    assert_eq!(w.synced(at_new), b"all", "the agreed one, though it brought another");
    assert_eq!(w.synced(other), b"");
    assert_eq!((w.summary(0), w.summary(new)), ("Stable 2: m1 m2 m3".into(), "Stable 2: m1 m2 m3".into()));
}

#[test]
fn an_assignment_that_comes_after_the_next_generation_has_no_effect() {
    let (mut w, joins) = proposed();
    w.settle();
    let _ = joins.map(|j| w.joined(j));
    let sync = w.sync(0, "m1", 2, &[("m1", b"all")]);
    let late = w.proposals.remove(0);
    assert_eq!(w.leave(0, "m2"), Ok(()));
    assert_eq!(w.refused(sync), GroupError::RebalanceInProgress);
    let again = [w.join(0, dynamic("m1")), w.join(0, dynamic("m3"))];
    w.settle();
    assert!(again.map(|j| w.joined(j)).iter().all(|a| a.generation == Generation(3)));
    assert_eq!(w.apply(&late.command), rejected(Rejection::StaleGeneration(Some(Generation(3)))));
    assert!(!w.agreed().unwrap().assigned);
}

#[test]
fn an_assignment_agreed_while_the_group_rebalances_already_changes_nothing() {
    let (mut w, joins) = proposed();
    w.settle();
    let _ = joins.map(|j| w.joined(j));
    w.sync(0, "m1", 2, &[("m1", b"all")]);
    assert_eq!(w.leave(0, "m2"), Ok(()));
    w.settle();
    assert_eq!(w.summary(0), "PreparingRebalance 2: m1 m3");
    let again = [w.join(0, dynamic("m1")), w.join(0, dynamic("m3"))];
    w.settle();
    let answers = again.map(|j| w.joined(j));
    assert_eq!(answers[0].generation, Generation(3));
    w.assign(&answers);
}

#[test]
fn a_lost_proposal_is_sent_again_and_a_repeated_one_is_agreed_once() {
    let (mut w, joins) = proposed();
    // Applied, but its answer got lost and the image is late.
    let lost = w.proposals.remove(0);
    w.apply(&lost.command);
    w.fail(0, lost.id, ProposalFailure::Unknown);
    w.advance(499);
    assert!(w.proposals.is_empty());
    w.advance(1);
    let again = w.proposals.remove(0);
    assert_eq!(again.command, lost.command);
    let response = w.apply(&again.command);
    assert_eq!(response, rejected(Rejection::StaleGeneration(Some(Generation(2)))));
    w.fail(0, again.id, ProposalFailure::Rejected(Rejection::StaleGeneration(Some(Generation(2)))));
    w.show(0);
    assert!(joins.map(|j| w.joined(j)).iter().all(|a| a.generation == Generation(2)));
    // A late report about it means nothing now.
    w.fail(0, again.id, ProposalFailure::Rejected(Rejection::NotFormed));
    assert_eq!(w.summary(0), "CompletingRebalance 2: m1 m2 m3");
}

#[test]
fn a_refusal_for_good_is_passed_on_and_leaves_the_agreed_group() {
    let (mut w, joins) = proposed();
    let proposal = w.proposals.remove(0);
    let reason = Rejection::Invalid("no".into());
    w.fail(0, proposal.id, ProposalFailure::Rejected(reason.clone()));
    for join in joins {
        assert_eq!(w.refused(join), GroupError::Refused(reason.clone()));
    }
    assert_eq!(w.summary(0), "Stable 1: m1 m2");
}

#[test]
fn a_coordinator_that_is_none_any_more_sends_everyone_away() {
    let (mut w, joins) = proposed();
    let old = w.coordinators.remove(0);
    let effects = old.unload();
    w.carry_out(0, effects);
    for join in joins {
        assert_eq!(w.refused(join), GroupError::NotCoordinator);
    }
}

#[test]
fn a_group_deleted_while_members_join_begins_anew() {
    let (mut w, _) = World::stable(1);
    w.leave(0, "m1").unwrap();
    w.settle();
    let m2 = w.introduce(0);
    let j2 = w.join(0, dynamic(&m2));
    w.advance(500);
    assert_eq!(w.apply(&Command::DeleteGroup { group: GROUP.into() }), Response::Done);
    assert!(matches!(w.agree_one(), Response::Rejected(Rejection::StaleGeneration(None))));
    w.show(0);
    w.settle();
    assert_eq!(w.joined(j2).generation, Generation(3), "and still does not count backwards");
}

#[test]
fn a_group_that_was_deleted_and_came_to_the_same_generation_again_is_adopted() {
    let (mut w, _) = World::stable(1);
    let mut other = World::new();
    other.stabilize(vec![static_member("s", ""), static_member("t", "")]);
    w.image = other.image;
    w.show(0);
    assert_eq!(w.summary(0), "Stable 1: m1 m2");
    assert_eq!(w.describe(0).members[1].instance_id.as_deref(), Some("t"));
}

#[test]
fn a_static_member_replaced_through_another_coordinator_is_known_here_too() {
    let mut w = World::new();
    w.stabilize(vec![static_member("a", ""), static_member("b", "")]);
    let new = w.adopt();
    let at_new = w.join(new, static_member("b", ""));
    w.settle();
    let to = w.joined(at_new).member_id;
    assert_eq!(w.summary(0), format!("Stable 1: m1 {to}"));
    // Both at once: the later one stays, and each is told only what was agreed.
    let at_old = w.join(0, static_member("b", ""));
    let at_new = w.join(new, static_member("b", ""));
    w.settle();
    let first = w.joined(at_old).member_id;
    w.advance(500);
    w.settle();
    let second = w.joined(at_new).member_id;
    assert_ne!(first, second);
    assert_eq!(w.summary(0), format!("Stable 1: m1 {second}"));
    assert_eq!(w.summary(new), w.summary(0));
}
