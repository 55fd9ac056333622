//! Transcripts of the consumer protocol (KIP-848), rule by rule.

mod consumer_world;

use consumer_world::*;
use std::sync::Arc;
use strandline_core::consumer_group::*;
use strandline_core::group::ProposalFailure;
use strandline_metadata::{Partitions, Rejection, Response};

fn none() -> Partitions {
    Partitions::default()
}

#[test]
fn the_first_member_gets_everything_in_its_first_answer() {
    let mut world = World::with_topics(&[("a", 3)]);
    assert_eq!(world.told(join("m1", &["a"])), (1, Some(set("a", &[0, 1, 2]))));
    assert_eq!(world.summary(), "1/1 Stable: m1@1 a[0,1,2]");
    assert_eq!(world.proposed, 1);
}

#[test]
fn a_heartbeat_that_says_nothing_new_is_answered_at_once_and_proposes_nothing() {
    let mut world = World::stable(&[("a", 3)], &["m1", "m2"]);
    let before = world.proposed;
    for member in ["m1", "m2"] {
        let epoch = world.epoch_of(member);
        let reply = world.beat(0, plain(member, epoch));
        let answer = world.take(reply).expect("answered at once").unwrap();
        assert_eq!((answer.epoch, answer.assignment), (epoch, None), "only what changed is told");
        assert_eq!(answer.heartbeat_interval_ms, world.limits.heartbeat_interval_ms);
        let full = HeartbeatRequest { owned: Some(world.assigned(member)), epoch, ..join(member, &["a"]) };
        assert_eq!(world.told(full), (epoch, Some(world.assigned(member))), "asked in full, told in full");
    }
    assert_eq!(world.proposed, before);
}

#[test]
fn a_partition_moves_only_after_its_owner_has_confirmed() {
    let mut world = World::with_topics(&[("a", 4)]);
    world.told(join("m1", &["a"]));
    assert_eq!(world.told(join("m2", &["a"])), (2, Some(none())), "a member, with nothing to do yet");
    assert_eq!(world.told(plain("m1", 1)), (1, Some(set("a", &[0, 1]))), "told to give up, at its old epoch");
    assert_eq!(world.summary(), "2/2 Reconciling: m1@1 a[0,1] -a[2,3]; m2@2");
    assert_eq!(world.told(plain("m1", 1)), (1, None), "not confirmed yet");
    assert_eq!(world.told(owning("m1", 1, set("a", &[0, 1, 2]))), (1, None), "nor quite yet");
    assert_eq!(world.told(plain("m2", 2)), (2, None));
    assert_eq!(world.commit("m1", 1), Response::Done, "it commits what it has done");
    assert_eq!(world.told(owning("m1", 1, set("a", &[0, 1]))), (2, None));
    assert_eq!(world.summary(), "2/2 Reconciling: m1@2 a[0,1]; m2@2");
    assert_eq!(world.told(plain("m2", 2)), (2, Some(set("a", &[2, 3]))));
    assert_eq!(world.summary(), "2/2 Stable: m1@2 a[0,1]; m2@2 a[2,3]");
}

#[test]
fn what_was_given_up_cannot_be_committed_even_if_there_is_more_to_give_up() {
    let mut world = World::with_topics(&[("a", 6)]);
    world.told(join("m1", &["a"]));
    world.told(join("m2", &["a"]));
    assert_eq!(world.told(plain("m1", 1)), (1, Some(set("a", &[0, 1, 2]))));
    world.told(join("m3", &["a"]));
    assert_eq!(world.told(owning("m1", 1, set("a", &[0, 1, 2]))), (2, Some(set("a", &[0, 1]))));
    assert_eq!(world.summary(), "3/3 Reconciling: m1@2 a[0,1] -a[2]; m2@2; m3@3");
    assert!(matches!(world.commit("m1", 1), Response::Rejected(Rejection::StaleMemberEpoch { .. })));
    assert_eq!(world.commit("m1", 2), Response::Done);
    assert_eq!(world.told(owning("m1", 2, set("a", &[0, 1]))), (3, None));
    world.converge();
}

#[test]
fn a_commit_at_another_epoch_is_stale() {
    let mut world = World::stable(&[("a", 2)], &["m1", "m2"]);
    let epoch = world.epoch_of("m1");
    assert_eq!(world.commit("m1", epoch), Response::Done);
    assert!(matches!(world.commit("m1", epoch - 1), Response::Rejected(Rejection::StaleMemberEpoch { .. })));
    let check = |world: &World, member: &str, epoch| {
        let epoch = Some(strandline_metadata::GroupEpoch(epoch));
        world.coordinators[0].commit_check(&member.into(), epoch).map(|_| ())
    };
    assert_eq!(check(&world, "m1", epoch), Ok(()));
    assert_eq!(check(&world, "m1", epoch + 1), Err(ConsumerGroupError::StaleMemberEpoch));
    assert_eq!(check(&world, "z", epoch), Err(ConsumerGroupError::UnknownMemberId));
    let simple = world.coordinators[0].commit_check(&"".into(), None);
    assert_eq!(simple, Err(ConsumerGroupError::UnknownMemberId), "only an empty group takes those");
}

#[test]
fn a_member_whose_answer_was_lost_may_ask_at_its_previous_epoch() {
    let mut world = World::with_topics(&[("a", 4)]);
    world.told(join("m1", &["a"]));
    world.told(join("m2", &["a"]));
    world.told(plain("m1", 1));
    let lost = world.told(owning("m1", 1, set("a", &[0, 1])));
    assert_eq!(lost.0, 2);
    assert_eq!(world.told(owning("m1", 1, set("a", &[0, 1]))), (2, Some(set("a", &[0, 1]))));
    assert_eq!(
        world.refused(plain("m1", 1)),
        ConsumerGroupError::FencedMemberEpoch,
        "it must say what it has"
    );
    let too_much = owning("m1", 1, set("a", &[0, 1, 2]));
    assert_eq!(world.refused(too_much), ConsumerGroupError::FencedMemberEpoch);
}

#[test]
fn epochs_that_do_not_fit_are_fenced_and_the_member_may_join_again() {
    let mut world = World::stable(&[("a", 2)], &["m1", "m2", "m3"]);
    let epoch = world.epoch_of("m1");
    let other = world.agreed().unwrap().members["m1"].previous_epoch.0 + 1;
    assert!(other < epoch);
    assert_eq!(world.refused(owning("m1", other, none())), ConsumerGroupError::FencedMemberEpoch);
    assert_eq!(world.refused(plain("z", 1)), ConsumerGroupError::UnknownMemberId);
    assert_eq!(
        world.refused(plain("m1", epoch + 1)),
        ConsumerGroupError::NotCoordinator,
        "our image is behind"
    );
    let before = world.summary();
    let again = world.told(join("m1", &["a"]));
    assert_eq!(again, (epoch, Some(world.assigned("m1"))), "the same target, at once");
    assert_eq!(world.summary(), before);
}

#[test]
fn a_join_whose_answer_was_lost_is_the_same_member() {
    let mut world = World::with_topics(&[("a", 2)]);
    let first = world.told(join("m1", &["a"]));
    let proposed = world.proposed;
    assert_eq!(world.told(join("m1", &["a"])), first);
    assert_eq!(world.proposed, proposed);
}

#[test]
fn a_member_that_leaves_leaves_its_partitions_to_the_others() {
    let mut world = World::stable(&[("a", 4)], &["m1", "m2"]);
    assert_eq!(world.told(plain("m1", LEAVE)), (LEAVE, None));
    assert_eq!(world.refused(plain("m1", LEAVE)), ConsumerGroupError::UnknownMemberId);
    let epoch = world.epoch_of("m2");
    assert_eq!(world.told(plain("m2", epoch)), (epoch + 1, Some(set("a", &[0, 1, 2, 3]))));
    world.told(plain("m2", LEAVE));
    assert!(world.summary().ends_with("Empty: "), "{}", world.summary());
    assert!(world.coordinators[0].is_idle());
    assert_eq!(world.coordinators[0].commit_check(&"".into(), None), Ok(None));
    let epoch = world.agreed().unwrap().epoch;
    world.told(join("m3", &["a"]));
    assert!(world.agreed().unwrap().epoch > epoch, "epochs go on");
}

#[test]
fn a_silent_member_is_removed_after_its_session() {
    let mut world = World::stable(&[("a", 2)], &["m1", "m2"]);
    let session = u64::from(world.limits.session_timeout_ms);
    world.advance(session / 2);
    world.told(plain("m1", world.epoch_of("m1")));
    world.advance(session / 2 + 1);
    world.settle();
    let epoch = world.epoch_of("m1");
    assert_eq!(world.told(plain("m1", epoch)), (epoch + 1, Some(set("a", &[0, 1]))));
    assert_eq!(world.refused(plain("m2", epoch)), ConsumerGroupError::UnknownMemberId);
}

#[test]
fn a_member_that_does_not_revoke_in_time_is_removed_though_it_asks() {
    let mut world = World::with_topics(&[("a", 2)]);
    world.told(join("m1", &["a"]));
    world.told(join("m2", &["a"]));
    world.told(plain("m1", 1));
    world.advance(15_000);
    assert_eq!(world.told(plain("m1", 1)), (1, None));
    world.told(plain("m2", 2));
    world.advance(4_999);
    world.settle();
    assert_eq!(world.told(plain("m1", 1)), (1, None));
    world.advance(1);
    world.settle();
    assert_eq!(world.refused(plain("m1", 1)), ConsumerGroupError::UnknownMemberId);
    assert_eq!(world.told(plain("m2", 2)), (3, Some(set("a", &[0, 1]))));
}

#[test]
fn a_static_member_comes_back_to_its_partitions_without_a_rebalance() {
    let mut world = World::with_topics(&[("a", 4)]);
    world.told(join_static("m1", "i1", &["a"]));
    world.told(join("m2", &["a"]));
    world.converge();
    let (epoch, had) = (world.agreed().unwrap().epoch, world.assigned("m1"));
    assert_eq!(world.refused(join_static("m3", "i1", &["a"])), ConsumerGroupError::UnreleasedInstanceId);
    let leave = HeartbeatRequest { instance_id: Some("i1".into()), ..plain("m1", LEAVE_FOR_NOW) };
    assert_eq!(world.told(leave), (LEAVE_FOR_NOW, None));
    assert!(world.summary().contains("m1@2 a[0,1] away"), "{}", world.summary());
    assert_eq!(world.refused(owning("m1", 2, none())), ConsumerGroupError::FencedMemberEpoch);
    world.told(plain("m2", world.epoch_of("m2")));
    assert_eq!(world.told(join_static("m3", "i1", &["a"])), (epoch.0, Some(had)));
    assert_eq!(world.agreed().unwrap().epoch, epoch, "nobody else notices");
    assert_eq!(world.refused(plain("m1", 2)), ConsumerGroupError::UnknownMemberId);
    let old = HeartbeatRequest { instance_id: Some("i1".into()), ..plain("m1", 2) };
    assert_eq!(world.refused(old), ConsumerGroupError::FencedInstanceId);
}

#[test]
fn a_static_member_that_comes_back_with_other_topics_has_a_new_target() {
    let mut world = World::with_topics(&[("a", 2), ("b", 2)]);
    world.told(join_static("m1", "i1", &["a"]));
    world.told(HeartbeatRequest { instance_id: Some("i1".into()), ..plain("m1", LEAVE_FOR_NOW) });
    assert_eq!(world.told(join_static("m2", "i1", &["b"])), (2, Some(set("b", &[0, 1]))));
}

#[test]
fn a_static_member_that_stays_away_is_removed_after_its_session() {
    let mut world = World::with_topics(&[("a", 2)]);
    world.told(join_static("m1", "i1", &["a"]));
    world.told(join("m2", &["a"]));
    world.converge();
    world.told(HeartbeatRequest { instance_id: Some("i1".into()), ..plain("m1", LEAVE_FOR_NOW) });
    world.advance(30_000);
    world.told(plain("m2", 2));
    world.advance(15_000);
    world.settle();
    assert_eq!(world.told(plain("m2", 2)), (3, Some(set("a", &[0, 1]))));
}

#[test]
fn what_a_target_takes_from_a_member_that_is_away_is_free_at_once() {
    let mut world = World::with_topics(&[("a", 4)]);
    world.told(join_static("m1", "i1", &["a"]));
    world.told(HeartbeatRequest { instance_id: Some("i1".into()), ..plain("m1", LEAVE_FOR_NOW) });
    assert_eq!(world.told(join("m2", &["a"])).1.map(|a| a.len()), Some(2));
    assert_eq!(world.told(join_static("m3", "i1", &["a"])).1.map(|a| a.len()), Some(2));
}

#[test]
fn only_what_members_subscribe_to_is_theirs_and_a_change_of_it_is_a_new_target() {
    let mut world = World::with_topics(&[("a", 2), ("b", 2)]);
    world.told(join("m1", &["a"]));
    world.told(join("m2", &["b"]));
    world.converge();
    assert_eq!(world.summary(), "2/2 Stable: m1@2 a[0,1]; m2@2 b[0,1]");
    let both = HeartbeatRequest { topics: Some(["a".into(), "b".into()].into()), ..plain("m1", 2) };
    let told = world.told(both);
    assert_eq!(told, (3, None), "balanced as it is, at the next epoch");
    let neither = HeartbeatRequest { topics: Some([].into()), ..plain("m1", 3) };
    assert_eq!(world.told(neither), (3, Some(none())));
    assert_eq!(world.told(owning("m1", 3, none())), (4, None));
}

#[test]
fn a_topic_that_comes_grows_or_goes_is_a_new_target() {
    let mut world = World::with_topics(&[]);
    assert_eq!(world.told(join("m1", &["a"])), (1, Some(none())));
    let mut has = none();
    for (partitions, epoch) in [(2, 2), (3, 3), (0, 4)] {
        world.set_topic("a", partitions);
        world.tell_topics(0);
        world.settle();
        let before = world.epoch_of("m1");
        let (_, told) = world.told(owning("m1", before, has.clone()));
        let wanted = set("a", &(0..partitions).collect::<Vec<_>>());
        assert_eq!(told, Some(wanted.clone()));
        world.told(owning("m1", world.epoch_of("m1"), wanted.clone()));
        assert_eq!(world.epoch_of("m1"), epoch);
        has = wanted;
    }
    let proposed = world.proposed;
    world.set_topic("b", 1);
    world.tell_topics(0);
    assert_eq!(world.proposed, proposed, "nobody subscribes to it");
}

#[test]
fn a_regular_expression_subscribes_to_every_topic_whose_whole_name_matches() {
    let mut world = World::with_topics(&[("apple", 1), ("banana", 1), ("cherry-apple", 1)]);
    let with =
        |pattern: &str| HeartbeatRequest { topics: None, regex: Some(pattern.into()), ..join("m1", &[]) };
    assert_eq!(world.told(with("apple|b.*")).1, Some(none().into_iter_of(&["apple", "banana"])));
    let more = HeartbeatRequest { topics: Some(["cherry-apple".into()].into()), ..plain("m1", 1) };
    assert_eq!(world.told(more).1, Some(none().into_iter_of(&["apple", "banana", "cherry-apple"])));
    world.set_topic("blueberry", 1);
    world.tell_topics(0);
    world.settle();
    assert_eq!(world.epoch_of("m1"), 2);
    let epoch = world.told(plain("m1", 2)).0;
    assert_eq!(epoch, 3);
    let no_longer = HeartbeatRequest { regex: Some("".into()), ..plain("m1", 3) };
    assert_eq!(world.told(no_longer).1, Some(none().into_iter_of(&["cherry-apple"])));
    for bad in ["(", "a)|(b", "(?x)a #"] {
        let refused = world.refused(HeartbeatRequest { member_id: "m2".into(), ..with(bad) });
        assert!(matches!(refused, ConsumerGroupError::InvalidRegularExpression(_)), "{bad}: {refused:?}");
    }
    let long = world.refused(HeartbeatRequest { member_id: "m2".into(), ..with(&"a".repeat(5_000)) });
    assert!(matches!(long, ConsumerGroupError::InvalidRegularExpression(_)));
}

trait OfTopics {
    fn into_iter_of(self, names: &[&str]) -> Partitions;
}

impl OfTopics for Partitions {
    /// With partition 0 of each topic.
    fn into_iter_of(mut self, names: &[&str]) -> Partitions {
        for name in names {
            self.extend(set(name, &[0]).iter());
        }
        self
    }
}

#[test]
fn the_assignor_that_most_members_ask_for_is_used() {
    let mut world = World::with_topics(&[("a", 2), ("b", 2)]);
    let with = |member: &str, name: &str| HeartbeatRequest {
        assignor: Some(name.into()),
        ..join(member, &["a", "b"])
    };
    assert!(matches!(
        world.refused(with("m1", "sticky")),
        ConsumerGroupError::UnsupportedAssignor(offered) if offered == "uniform, range"
    ));
    world.told(with("m1", "range"));
    world.told(join("m2", &["a", "b"]));
    world.converge();
    assert_eq!(world.summary(), "2/2 Stable: m1@2 a[0] b[0]; m2@2 a[1] b[1]");
    world.told(with("m3", "uniform"));
    assert_eq!(
        world.coordinators[0].describe().assignor.name(),
        "uniform",
        "of equally many, the first listed"
    );
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut world = World::with_topics(&[("a", 1)]);
    let valid = join("m1", &["a"]);
    let bad = [
        HeartbeatRequest { member_id: "".into(), ..valid.clone() },
        HeartbeatRequest { instance_id: Some("".into()), ..valid.clone() },
        HeartbeatRequest { rack: Some("".into()), ..valid.clone() },
        HeartbeatRequest { rebalance_timeout_ms: None, ..valid.clone() },
        HeartbeatRequest { topics: None, ..valid.clone() },
        HeartbeatRequest { owned: None, ..valid.clone() },
        HeartbeatRequest { owned: Some(set("a", &[0])), ..valid.clone() },
        HeartbeatRequest { epoch: -3, ..valid.clone() },
        HeartbeatRequest { epoch: LEAVE_FOR_NOW, ..valid.clone() },
        HeartbeatRequest { topics: Some([Arc::from("x".repeat(300_000))].into()), ..valid },
    ];
    for request in bad {
        let refused = world.refused(request.clone());
        assert!(matches!(refused, ConsumerGroupError::InvalidRequest(_)), "{request:?}: {refused:?}");
    }
    assert_eq!((world.proposed, world.agreed()), (0, None));
}

#[test]
fn a_full_group_takes_no_one_else() {
    let mut world = World::with_topics(&[("a", 1)]);
    world.limits.max_members = 2;
    world.coordinators.clear();
    world.adopt();
    world.told(join("m1", &["a"]));
    world.told(join("m2", &["a"]));
    assert_eq!(world.refused(join("m3", &["a"])), ConsumerGroupError::GroupMaxSizeReached);
    assert_eq!(world.told(join("m2", &["a"])).0, 2, "a member may join again");
}

#[test]
fn what_comes_while_a_proposal_is_under_way_shares_the_next_one() {
    let mut world = World::with_topics(&[("a", 6)]);
    let replies: Vec<_> = (0..6).map(|n| world.beat(0, join(&format!("m{n}"), &["a"]))).collect();
    assert_eq!(world.proposed, 1);
    assert!(replies.iter().all(|reply| world.waits(*reply)), "nothing is told that is not agreed");
    world.settle();
    assert_eq!(world.proposed, 2);
    for reply in replies {
        world.take(reply).unwrap().unwrap();
    }
    assert_eq!(world.agreed().unwrap().epoch.0, 2);
}

#[test]
fn a_lost_proposal_is_sent_again_and_applied_once() {
    let mut world = World::with_topics(&[("a", 1)]);
    let reply = world.beat(0, join("m1", &["a"]));
    let first = world.proposals.remove(0);
    world.fail(0, first.id, ProposalFailure::Unknown);
    world.advance(600);
    assert_eq!(world.proposals.len(), 1);
    world.proposals.push(first);
    world.settle();
    assert_eq!(world.take(reply).unwrap().unwrap().epoch, 1);
    assert_eq!(world.summary(), "1/1 Stable: m1@1 a[0]");
}

#[test]
fn failover_keeps_members_epochs_and_assignments() {
    let mut world = World::stable(&[("a", 4)], &["m1", "m2"]);
    let (proposed, before) = (world.proposed, world.summary());
    let next = world.adopt();
    world.coordinators.swap(0, next);
    world.advance(1);
    for member in ["m1", "m2"] {
        let epoch = world.epoch_of(member);
        let told = world.told(plain(member, epoch));
        assert_eq!(told, (epoch, Some(world.assigned(member))), "its first answer is complete");
        assert_eq!(world.told(plain(member, epoch)), (epoch, None));
    }
    assert_eq!((world.proposed, world.summary()), (proposed, before));
    world.advance(u64::from(world.limits.session_timeout_ms) + 1);
    world.settle();
    assert!(world.summary().contains("Empty"), "sessions run at the new coordinator");
}

#[test]
fn of_two_coordinators_one_decides_and_the_other_sends_its_members_away() {
    let mut world = World::stable(&[("a", 4)], &["m1"]);
    let other = world.adopt();
    world.advance(1);
    let here = world.beat(0, join("m2", &["a"]));
    let there = world.beat(other, join("m3", &["a"]));
    assert_eq!(world.proposals.len(), 2);
    world.settle();
    assert_eq!(world.take(here).unwrap().unwrap().epoch, 2);
    assert_eq!(world.take(there).unwrap(), Err(ConsumerGroupError::NotCoordinator));
    assert_eq!(world.agreed().unwrap().members.len(), 2);
}

#[test]
fn an_old_report_does_not_give_up_what_came_after_it() {
    // m2 waits for m1's partitions. It asks the first coordinator, whose proposal takes long; gives that up
    // and asks again there; and meanwhile hears from the second coordinator that the partitions are its own.
    let mut world = World::with_topics(&[("a", 2)]);
    world.told(join("m1", &["a"]));
    world.told(join("m2", &["a"]));
    world.told(plain("m1", 1));
    world.told(owning("m1", 1, set("a", &[0])));
    let other = world.adopt();
    world.advance(1);
    world.settle();
    let given_up = world.beat(0, owning("m2", 2, none()));
    let repeated = world.beat(0, owning("m2", 2, none()));
    let joining = world.beat(0, join("m3", &["a"]));
    world.agree_one();
    world.show(other);
    let heard = world.beat(other, owning("m2", 2, none()));
    assert_eq!(world.take(heard).unwrap().unwrap().assignment, Some(set("a", &[1])));
    // m3's target takes a partition from someone; m2's old report must not count as its consent.
    world.show(0);
    world.settle();
    world.take(given_up).unwrap().unwrap();
    assert_eq!(world.take(repeated).unwrap(), Err(ConsumerGroupError::NotCoordinator));
    world.take(joining).unwrap().unwrap();
    let group = world.agreed().unwrap();
    assert!(
        group
            .owners()
            .unwrap()
            .get(&strandline_metadata::command::tp(topic("a"), 1))
            .is_some_and(|o| ***o == *"m2")
    );
}

#[test]
fn a_refusal_that_asking_again_does_not_mend_is_told() {
    let mut world = World::with_topics(&[("a", 1)]);
    let reply = world.beat(0, join("m1", &["a"]));
    let id = world.proposals.remove(0).id;
    world.fail(0, id, ProposalFailure::Rejected(Rejection::OtherGroupProtocol));
    assert_eq!(world.take(reply).unwrap(), Err(ConsumerGroupError::OtherProtocol));
    let reply = world.beat(0, join("m1", &["a"]));
    let id = world.proposals.remove(0).id;
    world.fail(0, id, ProposalFailure::Rejected(Rejection::NotFormed));
    assert_eq!(world.take(reply).unwrap(), Err(ConsumerGroupError::Refused(Rejection::NotFormed)));
    let reply = world.beat(0, join("m1", &["a"]));
    let state = world.coordinators.remove(0);
    for effect in state.unload() {
        assert_eq!(effect, Effect::Reply { id: reply, answer: Err(ConsumerGroupError::NotCoordinator) });
    }
}
