//! How members join, sync, heartbeat, commit, leave and expire at one coordinator.

mod group_world;

use group_world::*;
use strandline_core::group::*;
use strandline_metadata::{Command, Rejection, Response};
use strandline_record::Generation;

#[test]
fn a_group_forms_by_two_agreements_and_each_is_told_only_what_is_agreed() {
    let mut w = World::new();
    assert_eq!(w.summary(0), "Dead 0: ");
    let (m1, m2) = (w.introduce(0), w.introduce(0));
    assert_eq!((&*m1, &*m2), ("m1", "m2"));
    let (j1, j2) = (w.join(0, dynamic("m1")), w.join(0, dynamic("m2")));
    assert_eq!(w.summary(0), "PreparingRebalance 0: m1 m2");
    // The first rebalance waits for others to come, once more as m2 came within the delay.
    w.advance(499);
    assert!(w.proposals.is_empty());
    w.advance(1);
    assert!(
        matches!(&w.proposals[..], [Proposal { command: Command::PutGeneration { expected: None, next, .. }, .. }]
        if next.generation == Generation(1) && !next.assigned && next.members.len() == 2)
    );
    // Agreed, but not seen here: nobody is told, nobody may sync.
    assert_eq!(w.agree_one(), Response::Generation(Generation(1)));
    assert!(w.waits(j1) && w.waits(j2));
    let early = w.sync(0, "m1", 1, &[]);
    assert_eq!(w.refused(early), GroupError::IllegalGeneration);
    w.show(0);
    let (a1, a2) = (w.joined(j1), w.joined(j2));
    assert_eq!((a1.generation, &*a1.leader, &*a1.protocol), (Generation(1), "m1", "range"));
    assert_eq!(a1.members.iter().map(|m| &*m.member_id).collect::<Vec<_>>(), ["m1", "m2"]);
    assert!(a2.members.is_empty(), "the leader alone gets the member list");
    assert_eq!(w.summary(0), "CompletingRebalance 1: m1 m2");

    // The follower waits for the leader, both wait for the agreement.
    let s2 = w.sync(0, "m2", 1, &[]);
    assert!(w.proposals.is_empty());
    let s1 = w.sync(0, "m1", 1, &[("m1", b"one"), ("m2", b"two"), ("stranger", b"x")]);
    assert_eq!(w.heartbeat(0, "m1", 1), Ok(()));
    assert_eq!(w.commit(Some(("m1", 1))), rejected(Rejection::RebalanceInProgress));
    assert_eq!(w.agree_one(), Response::Generation(Generation(1)));
    assert!(w.waits(s1) && w.waits(s2));
    w.show(0);
    assert_eq!((w.synced(s1), w.synced(s2)), (b"one".to_vec(), b"two".to_vec()));
    assert_eq!(w.summary(0), "Stable 1: m1 m2");
    assert_eq!(w.heartbeat(0, "m2", 1), Ok(()));
    assert_eq!(w.commit(Some(("m2", 1))), Response::Done);
    // A sync that comes again gets the same.
    let again = w.sync(0, "m1", 1, &[("m2", b"all")]);
    assert_eq!(w.synced(again), b"one");
    assert!(w.proposals.is_empty());
}

#[test]
fn members_of_the_old_generation_commit_until_the_next_is_agreed_and_not_after() {
    let (mut w, _) = World::stable(2);
    let m3 = w.introduce(0);
    let j3 = w.join(0, dynamic(&m3));
    assert_eq!(w.summary(0), "PreparingRebalance 1: m1 m2 m3");
    assert_eq!(w.heartbeat(0, "m1", 1), Err(GroupError::RebalanceInProgress));
    let now = w.now();
    let check = w.coordinators[0].commit_check(&"m1".into(), None, Some(Generation(1)), now);
    assert!(check.unwrap().is_some());
    assert_eq!(w.commit(Some(("m1", 1))), Response::Done);
    let (j1, j2) = (w.join(0, dynamic("m1")), w.join(0, dynamic("m2")));
    // The next generation is proposed; the old one is still current.
    assert_eq!(w.proposals.len(), 1);
    assert_eq!(w.commit(Some(("m2", 1))), Response::Done);
    w.agree_one();
    assert_eq!(w.commit(Some(("m2", 1))), rejected(Rejection::IllegalGeneration { current: Generation(2) }));
    w.show(0);
    let answers = [w.joined(j1), w.joined(j2), w.joined(j3)];
    assert!(answers.iter().all(|a| a.generation == Generation(2) && &*a.leader == "m1"));
    let now = w.now();
    let check = |w: &mut World, member: &str, generation| {
        w.coordinators[0].commit_check(&member.into(), None, Some(Generation(generation)), now)
    };
    assert_eq!(check(&mut w, "m1", 1), Err(GroupError::IllegalGeneration));
    assert_eq!(check(&mut w, "m1", 2), Err(GroupError::RebalanceInProgress));
    assert_eq!(check(&mut w, "m9", 2), Err(GroupError::UnknownMemberId));
    w.assign(&answers);
    assert!(check(&mut w, "m1", 2).is_ok());
}

#[test]
fn a_follower_that_joins_again_unchanged_disturbs_nobody_but_the_leader_or_a_change_does() {
    let (mut w, _) = World::stable(2);
    let j2 = w.join(0, dynamic("m2"));
    let answer = w.joined(j2);
    assert_eq!((answer.generation, &*answer.leader, answer.members.len()), (Generation(1), "m1", 0));
    assert_eq!(w.summary(0), "Stable 1: m1 m2");
    let s2 = w.sync(0, "m2", 1, &[]);
    assert_eq!(w.synced(s2), b"m2");

    let j1 = w.join(0, dynamic("m1"));
    assert_eq!(w.summary(0), "PreparingRebalance 1: m1 m2");
    let j2 = w.join(0, dynamic("m2"));
    w.settle();
    let answers = [w.joined(j1), w.joined(j2)];
    w.assign(&answers);
    let changed =
        JoinRequest { protocols: vec![("range".into(), subscription("other", b""))], ..dynamic("m2") };
    w.join(0, changed);
    assert_eq!(w.summary(0), "PreparingRebalance 2: m1 m2");
}

#[test]
fn a_member_whose_join_answer_got_lost_gets_it_again() {
    let mut w = World::new();
    let ids = [w.introduce(0), w.introduce(0)];
    let joins = ids.each_ref().map(|id| w.join(0, dynamic(id)));
    w.advance(500);
    w.settle();
    let first = joins.map(|j| w.joined(j));
    let again = ids.each_ref().map(|id| w.join(0, dynamic(id))).map(|j| w.joined(j));
    assert_eq!(again, first);
    assert_eq!(again[0].members.len(), 2, "the leader gets the list again");
    w.assign(&again);
}

#[test]
fn a_second_join_of_one_member_takes_the_place_of_the_first() {
    let mut w = World::new();
    let m1 = w.introduce(0);
    let first = w.join(0, dynamic(&m1));
    let second = w.join(0, dynamic(&m1));
    assert_eq!(w.refused(first), GroupError::RebalanceInProgress);
    w.advance(1_000);
    w.settle();
    assert_eq!(w.joined(second).generation, Generation(1));
}

#[test]
fn a_member_whose_session_ends_is_removed_and_its_commits_are_refused() {
    let (mut w, _) = World::stable(2);
    w.advance(6_000);
    assert_eq!(w.heartbeat(0, "m1", 1), Ok(()));
    w.advance(4_000);
    assert_eq!(w.summary(0), "PreparingRebalance 1: m1");
    assert_eq!(w.heartbeat(0, "m2", 1), Err(GroupError::UnknownMemberId));
    assert_eq!(w.heartbeat(0, "m1", 1), Err(GroupError::RebalanceInProgress));
    let j1 = w.join(0, dynamic("m1"));
    w.settle();
    assert_eq!(w.joined(j1).members.len(), 1);
    assert_eq!(w.commit(Some(("m2", 1))), rejected(Rejection::UnknownMember));
    assert_eq!(w.commit(Some(("m2", 2))), rejected(Rejection::UnknownMember));
}

#[test]
fn a_rebalance_goes_on_without_dynamic_members_that_do_not_join_in_time_but_keeps_static_ones() {
    let mut w = World::new();
    let m1 = w.introduce(0);
    let m2 = w.introduce(0);
    w.stabilize(vec![dynamic(&m1), dynamic(&m2), static_member("s", "")]);
    assert_eq!(w.summary(0), "Stable 1: m1 m2 m3");
    let j1 = w.join(0, dynamic("m1"));
    // The others are alive, but do not join.
    for _ in 0..6 {
        w.advance(5_000);
        let _ = w.heartbeat(0, "m2", 1);
        let _ = w.heartbeat(0, "m3", 1);
    }
    w.settle();
    let answer = w.joined(j1);
    assert_eq!(answer.members.iter().map(|m| &*m.member_id).collect::<Vec<_>>(), ["m1", "m3"]);
    assert_eq!(w.heartbeat(0, "m2", 1), Err(GroupError::UnknownMemberId));
    assert_eq!(w.heartbeat(0, "m3", 1), Err(GroupError::IllegalGeneration), "it has to join again");
    // Away for longer than its session, it is removed as well.
    w.advance(5_000);
    assert_eq!(w.heartbeat(0, "m1", 2), Ok(()));
    w.advance(5_000);
    assert_eq!(w.summary(0), "PreparingRebalance 2: m1");
}

#[test]
fn members_that_never_ask_for_their_assignment_are_removed() {
    let mut w = World::new();
    let ids = [w.introduce(0), w.introduce(0)];
    let joins = ids.each_ref().map(|id| w.join(0, dynamic(id)));
    w.advance(500);
    w.settle();
    let _ = joins.map(|j| w.joined(j));
    let s2 = w.sync(0, "m2", 1, &[]);
    for _ in 0..6 {
        w.advance(5_000);
        let _ = w.heartbeat(0, "m1", 1);
    }
    // The leader did not sync.
    assert_eq!(w.refused(s2), GroupError::RebalanceInProgress);
    assert_eq!(w.summary(0), "PreparingRebalance 1: m2");
    let j2 = w.join(0, dynamic("m2"));
    w.settle();
    assert_eq!(&*w.joined(j2).leader, "m2");
}

#[test]
fn a_join_or_a_departure_while_the_generation_is_being_agreed_starts_the_next_one() {
    let mut w = World::new();
    let ids = [w.introduce(0), w.introduce(0)];
    let joins = ids.each_ref().map(|id| w.join(0, dynamic(id)));
    w.advance(500);
    assert_eq!(w.proposals.len(), 1);
    let m3 = w.introduce(0);
    let j3 = w.join(0, dynamic(&m3));
    assert_eq!(w.leave(0, "m2"), Ok(()));
    assert_eq!(w.refused(joins[1]), GroupError::UnknownMemberId);
    w.agree_one();
    w.show(0);
    assert_eq!(w.joined(joins[0]).generation, Generation(1));
    assert!(w.waits(j3));
    assert_eq!(w.summary(0), "PreparingRebalance 1: m1 m3");
    let j1 = w.join(0, dynamic("m1"));
    w.settle();
    let answers = [w.joined(j1), w.joined(j3)];
    assert_eq!(answers[0].generation, Generation(2));
    w.assign(&answers);
}

#[test]
fn the_last_member_to_leave_makes_an_empty_generation_in_which_anyone_may_commit() {
    let (mut w, _) = World::stable(1);
    assert_eq!(w.commit(None), rejected(Rejection::GroupNotEmpty));
    let now = w.now();
    assert_eq!(w.coordinators[0].check_empty(), Err(GroupPhase::Stable));
    assert_eq!(w.leave(0, "m1"), Ok(()));
    w.settle();
    assert_eq!(w.summary(0), "Empty 2: ");
    assert!(w.coordinators[0].is_idle());
    assert_eq!(w.coordinators[0].next_deadline(), None);
    assert_eq!(w.coordinators[0].check_empty(), Ok(()));
    assert_eq!(w.coordinators[0].commit_check(&"".into(), None, None, now), Ok(None));
    assert_eq!(w.commit(None), Response::Done);
    assert_eq!(w.commit(Some(("m1", 1))), rejected(Rejection::UnknownMember));
    // The next members go on counting.
    let m2 = w.introduce(0);
    let answers = w.stabilize(vec![dynamic(&m2)]);
    assert_eq!(answers[0].generation, Generation(3));
}

#[test]
fn a_member_that_comes_while_the_empty_generation_is_being_agreed_joins_the_one_after() {
    let (mut w, _) = World::stable(1);
    w.leave(0, "m1").unwrap();
    let m2 = w.introduce(0);
    let j2 = w.join(0, dynamic(&m2));
    w.settle();
    assert!(w.waits(j2));
    w.advance(500);
    w.settle();
    assert_eq!(w.joined(j2).generation, Generation(3));
}

#[test]
fn a_member_id_handed_out_holds_the_rebalance_until_it_joins_leaves_or_lapses() {
    let (mut w, _) = World::stable(1);
    let m2 = w.introduce(0);
    let j1 = w.join(0, dynamic("m1"));
    w.advance(9_999);
    assert!(w.proposals.is_empty(), "m2 may still come");
    w.advance(1);
    assert_eq!(w.proposals.len(), 1);
    w.settle();
    assert_eq!(w.joined(j1).members.len(), 1);
    let late = w.join(0, dynamic(&m2));
    assert_eq!(w.refused(late), GroupError::UnknownMemberId);
    // Leaving gives the id up at once.
    let m3 = w.introduce(0);
    w.join(0, JoinRequest { protocols: vec![("range".into(), subscription("b", b""))], ..dynamic("m1") });
    assert!(w.proposals.is_empty());
    assert_eq!(w.leave(0, &m3), Ok(()));
    assert_eq!(w.proposals.len(), 1);
}

#[test]
fn the_protocol_is_chosen_by_votes_among_those_that_all_know() {
    let mut w = World::new();
    let with = |id: &str, names: &[&str]| JoinRequest {
        protocols: names.iter().map(|n| ((*n).into(), subscription("t", n.as_bytes()))).collect(),
        ..dynamic(id)
    };
    let ids: Vec<_> = (0..3).map(|_| w.introduce(0)).collect();
    let answers = w.stabilize(vec![
        with(&ids[0], &["only-mine", "sticky", "range"]),
        with(&ids[1], &["range", "sticky"]),
        with(&ids[2], &["range", "sticky"]),
    ]);
    assert_eq!(&*answers[0].protocol, "range");
    assert_eq!(*answers[0].members[1].metadata, *subscription("t", b"range"));
    let stranger = JoinRequest { require_known_member_id: false, ..with("", &["only-mine"]) };
    let reply = w.join(0, stranger.clone());
    assert_eq!(w.refused(reply), GroupError::InconsistentGroupProtocol);
    let connector = JoinRequest { protocol_type: "connect".into(), ..with("", &["range"]) };
    let reply = w.join(0, connector);
    assert_eq!(w.refused(reply), GroupError::InconsistentGroupProtocol);
    // An empty group takes any.
    for id in &ids {
        w.leave(0, id).unwrap();
    }
    w.settle();
    w.join(0, stranger);
    assert_eq!(w.describe(0).phase, GroupPhase::PreparingRebalance);
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let mut w = World::new();
    w.limits = GroupLimits {
        max_members: 2,
        max_member_bytes: 100,
        max_group_bytes: 150,
        max_assignment_bytes: 10,
        ..w.limits
    };
    let at = w.adopt();
    let join = |w: &mut World, request: JoinRequest| {
        let reply = w.join(at, request);
        w.take(reply)
    };
    let refused = |error| Some(Answer::Error(error));
    let short = JoinRequest { session_timeout_ms: 5_999, ..dynamic("") };
    let limits = GroupError::InvalidSessionTimeout { min_ms: 6_000, max_ms: 1_800_000 };
    assert_eq!(join(&mut w, short), refused(limits.clone()));
    assert_eq!(join(&mut w, JoinRequest { session_timeout_ms: 1_800_001, ..dynamic("") }), refused(limits));
    let none = JoinRequest { protocols: Vec::new(), ..dynamic("") };
    assert_eq!(join(&mut w, none), refused(GroupError::InconsistentGroupProtocol));
    let many = JoinRequest { protocols: vec![("p".into(), [].into()); 17], ..dynamic("") };
    assert_eq!(join(&mut w, many), refused(GroupError::InvalidRequest("too many protocols")));
    let sized = |bytes: usize| JoinRequest {
        protocols: vec![("range".into(), vec![0; bytes].into())],
        require_known_member_id: false,
        ..dynamic("")
    };
    let too_large = GroupError::InvalidRequest("the member's metadata is too large");
    assert_eq!(join(&mut w, sized(100)), refused(too_large));
    assert_eq!(join(&mut w, sized(75)), None);
    assert_eq!(join(&mut w, sized(75)), refused(GroupError::GroupMaxSizeReached));
    assert_eq!(join(&mut w, sized(0)), None);
    assert_eq!(join(&mut w, sized(0)), refused(GroupError::GroupMaxSizeReached), "two members");
    assert_eq!(join(&mut w, dynamic("")), refused(GroupError::GroupMaxSizeReached), "ids count as well");
    assert_eq!(join(&mut w, dynamic("unheard-of")), refused(GroupError::UnknownMemberId));

    w.advance(500);
    w.settle();
    let leader = w.describe(at).leader.unwrap();
    let sync = w.sync(at, &leader, 1, &[(&leader, b"much too long")]);
    assert_eq!(w.refused(sync), GroupError::InvalidRequest("the assignments are too large"));
}

#[test]
fn a_client_that_vanishes_while_it_waits_is_removed_when_its_session_ends() {
    let (mut w, _) = World::stable(1);
    let m2 = w.introduce(0);
    let j2 = w.join(0, dynamic(&m2));
    w.advance(9_000);
    assert_eq!(w.heartbeat(0, "m1", 1), Err(GroupError::RebalanceInProgress));
    let now = w.now();
    let effects = w.coordinators[0].abandon(j2, now);
    w.carry_out(0, effects);
    w.advance(9_000);
    assert_eq!(w.heartbeat(0, "m1", 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(w.summary(0), "PreparingRebalance 1: m1 m2");
    w.advance(1_000);
    assert_eq!(w.summary(0), "PreparingRebalance 1: m1");
    // One that never heard its id cannot come back as itself, and goes at once.
    let old_client = w.join(0, JoinRequest { require_known_member_id: false, ..dynamic("") });
    assert_eq!(w.describe(0).members.len(), 2);
    let effects = w.coordinators[0].abandon(old_client, now);
    w.carry_out(0, effects);
    assert_eq!(w.summary(0), "PreparingRebalance 1: m1");
}

#[test]
fn the_first_rebalance_waits_for_newcomers_but_not_for_ever() {
    let mut w = World::new();
    w.limits.initial_rebalance_delay_ms = 3_000;
    let at = w.adopt();
    let quick = |id: &str| JoinRequest { rebalance_timeout_ms: 10_000, ..dynamic(id) };
    for _ in 0..5 {
        let id = w.introduce(at);
        w.join(at, quick(&id));
        w.advance(1_999);
        assert!(w.proposals.is_empty());
    }
    w.advance(5);
    assert_eq!(w.proposals.len(), 1, "ten seconds are over");
}

#[test]
fn leaving_is_for_members_only() {
    let (mut w, _) = World::stable(2);
    assert_eq!(w.leave(0, "stranger"), Err(GroupError::UnknownMemberId));
    assert_eq!(w.leave(0, ""), Err(GroupError::UnknownMemberId));
    assert_eq!(w.summary(0), "Stable 1: m1 m2");
    assert_eq!(w.leave(0, "m1"), Ok(()));
    assert_eq!(w.summary(0), "PreparingRebalance 1: m2");
    let j2 = w.join(0, dynamic("m2"));
    w.settle();
    assert_eq!(&*w.joined(j2).leader, "m2", "the leader is gone, another leads");
}

#[test]
fn a_member_that_changes_its_mind_while_the_generation_is_being_agreed_waits_for_the_one_after() {
    let mut w = World::new();
    let m1 = w.introduce(0);
    let first = w.join(0, dynamic(&m1));
    w.advance(500);
    assert_eq!(w.proposals.len(), 1);
    let other = JoinRequest { protocols: vec![("range".into(), subscription("other", b""))], ..dynamic(&m1) };
    let second = w.join(0, other);
    assert_eq!(w.refused(first), GroupError::RebalanceInProgress);
    w.agree_one();
    w.show(0);
    assert!(w.waits(second), "the first generation does not have its topics");
    w.settle();
    let answer = w.joined(second);
    assert_eq!(answer.generation, Generation(2));
    assert_eq!(*answer.members[0].metadata, *subscription("other", b""));
    // The same again changes nothing: it is in there.
    w.assign(&[answer]);
}

#[test]
fn a_leader_that_syncs_twice_has_its_first_assignment_agreed_and_hears_of_it_on_the_second() {
    let mut w = World::new();
    let m1 = w.introduce(0);
    let join = w.join(0, dynamic(&m1));
    w.advance(500);
    w.settle();
    w.joined(join);
    let first = w.sync(0, &m1, 1, &[("m1", b"first")]);
    let second = w.sync(0, &m1, 1, &[("m1", b"second")]);
    assert_eq!(w.refused(first), GroupError::RebalanceInProgress);
    assert_eq!(w.proposals.len(), 1, "proposed once");
    w.settle();
    assert_eq!(w.synced(second), b"first");
}
