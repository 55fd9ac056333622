//! Balance, placement, reassignment, draining, unclean elections and voters.

#[path = "../common/mod.rs"]
mod common;

use common::{Cluster, id, ids, tp};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use strandline_core::controller::placement::{PlacementError, cluster_load, place};
use strandline_core::controller::reassignment::{DrainProgress, cancel, drain_progress};
use strandline_core::controller::{Beat, Controller, ControllerConfig, Effect, Membership};
use strandline_metadata::{Command, Delta, Election, Response};
use strandline_record::{BrokerId, TopicPartition};

struct Led {
    cluster: Cluster,
    controller: Controller,
    now_ms: u64,
    /// Proposed on seeing an image, not agreed on yet.
    proposed: Vec<Command>,
}

fn led(cluster: Cluster) -> Led {
    let controller = Controller::new(id(1), ControllerConfig::default(), &cluster.image, 0);
    Led { cluster, controller, now_ms: 0, proposed: vec![] }
}

impl Led {
    /// Time passes in which every unfenced broker beats; what the controller proposed meanwhile.
    fn pass(&mut self, ms: u64) -> Vec<Command> {
        let mut proposed = std::mem::take(&mut self.proposed);
        let membership = Membership {
            voters: self.cluster.image.brokers.keys().copied().collect(),
            ..Membership::default()
        };
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.now_ms += 100;
            for broker in self.cluster.image.brokers.values().filter(|broker| !broker.fenced) {
                let (id, epoch, metadata_index) = (broker.id, broker.epoch, self.cluster.image.index);
                let beat = Beat { id, epoch, metadata_index, wants_unfenced: true, shutting_down: false };
                assert_eq!(self.controller.beat(&beat, &self.cluster.image, self.now_ms).1, []);
            }
            proposed.extend(commands(self.controller.tick(&self.cluster.image, &membership, self.now_ms)));
        }
        proposed
    }

    /// The same, and everything proposed is agreed on as soon as it is.
    fn carry_on(&mut self, ms: u64) -> Vec<Command> {
        let until_ms = self.now_ms + ms;
        let mut all = vec![];
        while self.now_ms < until_ms {
            for command in self.pass(100) {
                self.agree(command.clone());
                all.push(command);
            }
        }
        all
    }

    fn agree(&mut self, command: Command) {
        let (response, delta) = self.cluster.apply(command.clone());
        assert!(!matches!(response, Response::Rejected(_)), "{command:?}: {response:?}");
        self.sees(&delta);
    }

    fn sees(&mut self, delta: &Delta) {
        self.proposed.extend(commands(self.controller.image(&self.cluster.image, delta, self.now_ms)));
    }

    fn drain(&mut self, broker: u64) {
        let delta = self.cluster.drain(broker);
        self.sees(&delta);
    }

    /// The leader of the partition takes everybody into the ISR.
    fn all_catch_up(&mut self, number: i32) {
        let partition = self.cluster.partition(number);
        let alive = |id: &&BrokerId| self.cluster.image.broker(**id).is_some_and(|b| !b.fenced);
        let isr = partition.replicas.iter().filter(alive).map(|&id| (id, self.cluster.epoch(id.get())));
        let command = Command::AlterPartition {
            tp: tp(number),
            requester: partition.leader.expect("a leader"),
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.collect(),
        };
        self.agree(command);
    }

    fn move_to(&mut self, number: i32, target: &[u64]) {
        self.agree(Command::SetReassignment { tp: tp(number), target: Some(ids(target)) });
    }
}

/// What is proposed, one by one.
fn commands(effects: Vec<Effect>) -> Vec<Command> {
    let commands = |effect| match effect {
        Effect::Propose(Command::Batch(commands)) => commands,
        Effect::Propose(command) => vec![command],
        Effect::ChangeVoters(_) | Effect::TransferLeadership { .. } => vec![],
        other => panic!("{other:?}"),
    };
    effects.into_iter().flat_map(commands).collect()
}

fn to(number: i32, broker: u64) -> Command {
    Command::ElectLeader { tp: tp(number), kind: Election::To(id(broker)) }
}

// ---- leadership ----

#[test]
fn leadership_returns_to_the_preferred_replica_after_a_quiet_time_and_once() {
    let mut cluster = Cluster::of(3);
    cluster.topic(&[&[1, 2, 3]], &[]);
    cluster.elect(0, 2);
    let mut led = led(cluster);
    assert_eq!(led.pass(9_900), []);
    assert_eq!(led.carry_on(1_200), [to(0, 1)]);
    assert_eq!(led.carry_on(30_000), []);
}

#[test]
fn the_quiet_time_begins_again_when_the_preferred_replica_has_been_away() {
    let mut cluster = Cluster::of(3);
    cluster.topic(&[&[1, 2, 3]], &[]);
    cluster.elect(0, 2);
    let mut led = led(cluster);
    assert_eq!(led.pass(8_000), []);
    let partition = led.cluster.partition(0).clone();
    let without = |led: &Led| ids(&[2, 3]).into_iter().map(|id| (id, led.cluster.epoch(id.get()))).collect();
    let isr = without(&led);
    led.agree(Command::AlterPartition {
        tp: tp(0),
        requester: id(2),
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        isr,
    });
    led.all_catch_up(0);
    assert_eq!(led.pass(9_000), []);
    assert_eq!(led.pass(2_000)[0], to(0, 1));
}

#[test]
fn leadership_moves_in_bounded_steps() {
    let mut cluster = Cluster::of(3);
    let assignment: &[u64] = &[1, 2, 3];
    cluster.topic(&vec![assignment; 250], &[]);
    (0..250).for_each(|number| cluster.elect(number, 2));
    let mut led = led(cluster);
    assert_eq!(led.pass(9_900).len(), 0);
    let steps: Vec<usize> = (0..4).map(|_| led.carry_on(1_000).len()).collect();
    assert_eq!(steps, [100, 100, 50, 0]);
}

#[test]
fn a_draining_broker_gives_up_leadership_soon() {
    let mut cluster = Cluster::of(3);
    cluster.topic(&[&[1, 2, 3]], &[("min.insync.replicas", "3")]);
    let mut led = led(cluster);
    led.drain(1);
    assert_eq!(led.carry_on(2_000), [to(0, 2)]);
}

#[test]
fn an_unclean_election_needs_leave_time_and_no_better_candidate() {
    let mut cluster = Cluster::of(3);
    cluster.topic(&[&[1, 2, 3]], &[]);
    [3, 2, 1].into_iter().for_each(|broker| cluster.fence(broker));
    cluster.unfence(3);
    assert_eq!(cluster.partition(0).leader, None, "3 left an ISR that sufficed");
    let mut led = led(cluster);
    assert_eq!(led.pass(10_000), [], "the topic does not allow it");
    led.cluster.configure("unclean.leader.election.enable", "true");
    let unclean = Command::ElectLeader { tp: tp(0), kind: Election::Unclean };
    assert_eq!(led.carry_on(1_000), [unclean]);
    assert_eq!(led.cluster.partition(0).leader, Some(id(3)));
    assert_eq!(led.pass(1_000), []);
}

// ---- reassignment ----

#[test]
fn a_replica_is_removed_only_when_its_replacement_is_in_sync_and_leads() {
    let mut cluster = Cluster::of(4);
    cluster.topic(&[&[1, 2, 3]], &[]);
    let mut led = led(cluster);
    led.move_to(0, &[4, 2, 3]);
    led.carry_on(500);
    assert_eq!(led.cluster.partition(0).replicas, ids(&[1, 2, 3, 4]));
    assert_eq!(led.carry_on(20_000), [], "4 is not in sync");
    led.all_catch_up(0);
    assert_eq!(
        led.carry_on(3_000),
        [to(0, 4), {
            let partition_epoch = strandline_record::PartitionEpoch(5);
            Command::SetReplicas { tp: tp(0), partition_epoch, replicas: ids(&[4, 2, 3]) }
        }]
    );
    let partition = led.cluster.partition(0);
    assert_eq!((&partition.replicas, &partition.reassignment), (&ids(&[4, 2, 3]), &None));
    assert_eq!(led.carry_on(20_000), []);
}

#[test]
fn only_so_many_partitions_copy_at_a_time() {
    let mut cluster = Cluster::of(4);
    let assignment: &[u64] = &[1, 2, 3];
    cluster.topic(&vec![assignment; 40], &[]);
    let mut led = led(cluster);
    (0..40).for_each(|number| led.move_to(number, &[2, 3, 4]));
    led.carry_on(5_000);
    let grown = |led: &Led| {
        let grown = |number: &i32| led.cluster.partition(*number).replicas.len() == 4;
        (0..40).filter(grown).collect::<Vec<i32>>()
    };
    let moving = grown(&led);
    assert_eq!(moving.len(), ControllerConfig::default().max_moves);
    for _ in 0..4 {
        for number in grown(&led) {
            led.all_catch_up(number);
        }
        led.carry_on(5_000);
    }
    assert!((0..40).all(|number| led.cluster.partition(number).replicas == ids(&[2, 3, 4])));
}

#[test]
fn a_cancelled_reassignment_goes_back_to_where_it_came_from() {
    let mut cluster = Cluster::of(4);
    cluster.topic(&[&[1, 2, 3]], &[]);
    let mut led = led(cluster);
    led.move_to(0, &[2, 3, 4]);
    assert_eq!(cancel(tp(0), led.cluster.partition(0)), Command::SetReassignment { tp: tp(0), target: None });
    led.carry_on(500);
    led.agree(cancel(tp(0), led.cluster.partition(0)));
    led.carry_on(3_000);
    let partition = led.cluster.partition(0);
    assert_eq!((&partition.replicas, &partition.reassignment), (&ids(&[1, 2, 3]), &None));
}

#[test]
fn a_drained_broker_ends_up_with_nothing() {
    let mut cluster = Cluster::of(4);
    cluster.topic(&[&[1, 2, 3], &[2, 3, 1], &[3, 4, 2], &[4, 1, 2]], &[]);
    let mut led = led(cluster);
    led.drain(2);
    assert_eq!(drain_progress(&led.cluster.image, id(2)).replicas_left, 4);
    for _ in 0..3 {
        led.carry_on(3_000);
        (0..4).for_each(|number| led.all_catch_up(number));
    }
    led.carry_on(3_000);
    assert_eq!(drain_progress(&led.cluster.image, id(2)), DrainProgress::default());
    for number in 0..4 {
        let replicas = &led.cluster.partition(number).replicas;
        assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), 3, "{replicas:?}");
    }
}

#[test]
fn a_reassignment_to_a_broker_that_is_drained_meanwhile_goes_elsewhere() {
    let mut cluster = Cluster::of(5);
    cluster.topic(&[&[1, 2, 3]], &[]);
    let mut led = led(cluster);
    led.move_to(0, &[1, 2, 4]);
    led.carry_on(3_000);
    // It never catches up: its disk is lost, and it is removed.
    led.drain(4);
    led.carry_on(3_000);
    assert_eq!(led.cluster.partition(0).reassignment, None);
    assert_eq!(led.cluster.partition(0).replicas, ids(&[1, 2, 3]));
    assert_eq!(drain_progress(&led.cluster.image, id(4)), DrainProgress::default());
}

#[test]
fn without_another_broker_draining_shortens_the_list_but_not_below_the_minimum() {
    let mut cluster = Cluster::of(3);
    cluster.topic(&[&[1, 2, 3]], &[]);
    let mut moved = led(cluster.clone());
    moved.drain(1);
    moved.carry_on(5_000);
    assert_eq!(moved.cluster.partition(0).replicas, ids(&[2, 3]));

    cluster.configure("min.insync.replicas", "3");
    let mut stuck = led(cluster.clone());
    stuck.drain(1);
    stuck.carry_on(5_000);
    assert_eq!(stuck.cluster.partition(0).replicas, ids(&[1, 2, 3]));
    assert_eq!(
        drain_progress(&stuck.cluster.image, id(1)),
        DrainProgress { replicas_left: 1, leads: 0, stuck: 1, orphaned: 0 }
    );

    // A broker that is only away may take the replica when it is back.
    cluster.configure("min.insync.replicas", "2");
    cluster.register(4, None);
    let mut waits = led(cluster);
    waits.drain(1);
    waits.carry_on(5_000);
    assert_eq!(waits.cluster.partition(0).replicas, ids(&[1, 2, 3]));
}

#[test]
fn a_partition_that_only_the_drained_broker_may_lead_is_told_apart() {
    let mut cluster = Cluster::of(4);
    cluster.topic(&[&[1, 2, 3]], &[("min.insync.replicas", "1")]);
    [2, 3, 1].into_iter().for_each(|broker| cluster.fence(broker));
    [2, 3].into_iter().for_each(|broker| cluster.unfence(broker));
    let mut led = led(cluster);
    led.drain(1);
    let progress = drain_progress(&led.cluster.image, id(1));
    assert_eq!((progress.replicas_left, progress.orphaned), (1, 1));
    assert_eq!(drain_progress(&led.cluster.image, id(2)).orphaned, 0);
}

// ---- placement ----

fn racked(racks: &[Option<&str>]) -> Cluster {
    let mut cluster = Cluster::of(0);
    for (i, rack) in racks.iter().enumerate() {
        cluster.join(i as u64 + 1, *rack);
    }
    cluster
}

fn spread(counts: &BTreeMap<BrokerId, usize>) -> usize {
    counts.values().max().unwrap_or(&0) - counts.values().min().unwrap_or(&0)
}

proptest! {
    #[test]
    fn without_racks_leaders_and_replicas_are_even(
        brokers in 1u64..9, partitions in 1usize..60, wanted in 1usize..5, seed: u64,
    ) {
        let cluster = Cluster::of(brokers);
        let replication = wanted.min(brokers as usize);
        let lists = place(&cluster.image, None, partitions, replication, seed).unwrap();
        prop_assert_eq!(lists.len(), partitions);
        let mut leads: BTreeMap<BrokerId, usize> = cluster.image.brokers.keys().map(|&id| (id, 0)).collect();
        let mut replicas = leads.clone();
        for list in &lists {
            prop_assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), replication);
            *leads.get_mut(&list[0]).unwrap() += 1;
            list.iter().for_each(|id| *replicas.get_mut(id).unwrap() += 1);
        }
        prop_assert!(spread(&leads) <= 1, "{:?}", leads);
        prop_assert!(spread(&replicas) <= 2, "{:?}", replicas);
        prop_assert_eq!(lists, place(&cluster.image, None, partitions, replication, seed).unwrap());
    }

    #[test]
    fn replicas_of_a_partition_use_as_many_racks_as_there_are(
        racks in proptest::collection::vec(0u8..4, 3..10), partitions in 1usize..30, seed: u64,
    ) {
        let names: Vec<String> = racks.iter().map(|rack| format!("rack{rack}")).collect();
        let cluster = racked(&names.iter().map(|name| Some(name.as_str())).collect::<Vec<_>>());
        let distinct = racks.iter().collect::<BTreeSet<_>>().len();
        for list in place(&cluster.image, None, partitions, 3, seed).unwrap() {
            let used: BTreeSet<_> = list.iter().map(|id| names[id.get() as usize - 1].as_str()).collect();
            prop_assert_eq!(used.len(), distinct.min(3));
        }
    }
}

#[test]
fn brokers_that_are_fenced_or_draining_get_nothing() {
    let mut cluster = Cluster::of(5);
    cluster.fence(2);
    cluster.drain(4);
    let lists = place(&cluster.image, None, 10, 3, 1).unwrap();
    assert!(lists.iter().flatten().all(|id| [1, 3, 5].contains(&id.get())));
    let refused = place(&cluster.image, None, 1, 4, 1);
    assert_eq!(refused, Err(PlacementError::NotEnoughBrokers { wanted: 4, available: 3 }));
    assert_eq!(place(&cluster.image, None, 0, 1, 1), Err(PlacementError::Nothing));
}

#[test]
fn added_partitions_even_out_the_topic_they_are_added_to() {
    let mut cluster = Cluster::of(4);
    cluster.topic(&[&[1, 2], &[1, 2], &[2, 1]], &[]);
    let lists = place(&cluster.image, Some(common::TOPIC), 5, 2, 3).unwrap();
    let mut leads = BTreeMap::from([(id(1), 2), (id(2), 1), (id(3), 0), (id(4), 0)]);
    lists.iter().for_each(|list| *leads.get_mut(&list[0]).unwrap() += 1);
    assert!(leads.values().all(|&n| n == 2), "{leads:?}");
    assert_eq!(cluster_load(&cluster.image)[&id(1)].replicas, 3);
}

// ---- voters ----

/// What the controller on broker `me` does about Raft's membership.
fn membership_change(cluster: &Cluster, me: u64, voters: &[u64], learners: &[u64]) -> Option<Effect> {
    let mut controller = Controller::new(id(me), ControllerConfig::default(), &cluster.image, 0);
    let set = |members: &[u64]| members.iter().copied().map(BrokerId).collect::<BTreeSet<_>>();
    let caught_up = &set(voters) | &set(learners);
    let membership =
        Membership { voters: set(voters), learners: set(learners), caught_up, ..Membership::default() };
    let mut effects = controller.tick(&cluster.image, &membership, 0);
    effects.retain(|effect| !matches!(effect, Effect::Probe { .. } | Effect::Propose(_)));
    assert!(effects.len() <= 1, "{effects:?}");
    effects.pop()
}

fn change(voters: &[u64]) -> Option<Effect> {
    Some(Effect::ChangeVoters(ids(voters).into_iter().collect()))
}

#[test]
fn voters_grow_with_the_cluster_by_odd_numbers_up_to_five() {
    for (brokers, voters, learners, expected) in [
        (1, &[1][..], &[][..], None),
        (2, &[1], &[2], change(&[1, 2])),
        (3, &[1, 2], &[3], change(&[1, 2, 3])),
        (3, &[1], &[2, 3], change(&[1, 2, 3])),
        (4, &[1, 2, 3], &[4], None),
        (5, &[1, 2, 3], &[4, 5], change(&[1, 2, 3, 4, 5])),
        (7, &[1, 2, 3, 4, 5], &[6, 7], None),
    ] {
        assert_eq!(membership_change(&Cluster::of(brokers), 1, voters, learners), expected, "{brokers}");
    }
}

#[test]
fn a_member_that_registered_at_another_address_is_looked_for_there() {
    let cluster = Cluster::of(3);
    let at = |moved: u64| {
        let address = |broker: &BrokerId| match broker.0 == moved {
            true => "elsewhere:1".into(),
            false => cluster.image.broker(*broker).unwrap().endpoints.peer.clone(),
        };
        let voters: BTreeSet<BrokerId> = ids(&[1, 2, 3]).into_iter().collect();
        let addresses = voters.iter().map(|id| (*id, address(id))).collect();
        let membership = Membership { caught_up: voters.clone(), voters, addresses, ..Membership::default() };
        let mut controller = Controller::new(id(1), ControllerConfig::default(), &cluster.image, 0);
        let mut effects = controller.tick(&cluster.image, &membership, 0);
        effects.retain(|effect| matches!(effect, Effect::MoveMember { .. }));
        effects.pop()
    };
    assert_eq!(at(0), None);
    for moved in [1, 3] {
        let endpoint = cluster.image.broker(id(moved)).unwrap().endpoints.peer.clone();
        assert_eq!(at(moved), Some(Effect::MoveMember { id: id(moved), endpoint }));
    }
}

#[test]
fn every_registered_broker_follows_the_metadata() {
    let endpoint = "node4:7170".into();
    let expected = Some(Effect::AddLearner { id: id(4), endpoint });
    assert_eq!(membership_change(&Cluster::of(4), 1, &[1, 2, 3], &[]), expected);
}

#[test]
fn a_draining_voter_is_replaced_and_a_fenced_one_is_not() {
    let mut cluster = Cluster::of(4);
    cluster.fence(3);
    assert_eq!(membership_change(&cluster, 1, &[1, 2, 3], &[4]), None);
    cluster.drain(3);
    assert_eq!(membership_change(&cluster, 1, &[1, 2, 3], &[4]), change(&[1, 2, 4]));
    let mut smaller = Cluster::of(3);
    smaller.drain(3);
    assert_eq!(membership_change(&smaller, 1, &[1, 2, 3], &[]), change(&[1, 2]));
}

#[test]
fn a_leader_that_is_to_leave_hands_over_and_lets_the_next_one_change_the_voters() {
    let mut cluster = Cluster::of(4);
    cluster.drain(1);
    let hand_over = Some(Effect::TransferLeadership { to: id(2) });
    assert_eq!(membership_change(&cluster, 1, &[1, 2, 3], &[4]), hand_over);
    assert_eq!(membership_change(&cluster, 2, &[1, 2, 3], &[4]), change(&[2, 3, 4]));
}

#[test]
fn new_voters_are_taken_from_other_racks_first() {
    let cluster = racked(&[Some("a"), Some("b"), Some("a"), Some("b"), Some("c"), Some("c")]);
    assert_eq!(membership_change(&cluster, 1, &[1], &[2, 3, 4, 5, 6]), change(&[1, 2, 3, 4, 5]));
    let cluster = racked(&[Some("a"), Some("a"), Some("a"), Some("b")]);
    assert_eq!(membership_change(&cluster, 1, &[1], &[2, 3, 4]), change(&[1, 2, 4]));
}

#[test]
fn a_member_without_a_broker_is_forgotten_only_after_long() {
    let cluster = Cluster::of(3);
    let mut controller = Controller::new(id(1), ControllerConfig::default(), &cluster.image, 0);
    let membership = three_voters_and_a_learner_9();
    let mut at = |now_ms| {
        let effects = controller.tick(&cluster.image, &membership, now_ms);
        effects.into_iter().find(|effect| matches!(effect, Effect::RemoveLearner(_)))
    };
    assert_eq!(at(0), None);
    assert_eq!(at(299_999), None, "it may be about to register");
    assert_eq!(at(300_000), Some(Effect::RemoveLearner(id(9))));
    assert_eq!(at(300_100), None, "proposed already");
}

#[test]
fn a_member_without_a_broker_that_an_administrator_removes_is_forgotten_at_once() {
    let cluster = Cluster::of(3);
    let mut controller = Controller::new(id(1), ControllerConfig::default(), &cluster.image, 0);
    let mut membership = three_voters_and_a_learner_9();
    controller.dismiss(id(9));
    controller.dismiss(id(2));
    let mut at = |membership: &Membership, now_ms| {
        let effects = controller.tick(&cluster.image, membership, now_ms);
        effects.into_iter().find(|effect| matches!(effect, Effect::RemoveLearner(_)))
    };
    assert_eq!(at(&membership, 0), Some(Effect::RemoveLearner(id(9))));
    // It is gone; whoever comes under this number later is waited for again.
    membership.learners.clear();
    assert_eq!(at(&membership, 10_000), None);
    membership.learners.insert(id(9));
    assert_eq!(at(&membership, 20_000), None);
}

fn three_voters_and_a_learner_9() -> Membership {
    let set = |members: &[u64]| members.iter().copied().map(BrokerId).collect::<BTreeSet<_>>();
    Membership {
        voters: set(&[1, 2, 3]),
        learners: set(&[9]),
        caught_up: set(&[1, 2, 3]),
        changing: false,
        ..Membership::default()
    }
}

#[test]
fn nothing_is_changed_while_a_change_is_under_way() {
    let cluster = Cluster::of(3);
    let mut controller = Controller::new(id(1), ControllerConfig::default(), &cluster.image, 0);
    let all: BTreeSet<BrokerId> = ids(&[1, 2, 3]).into_iter().collect();
    let membership = Membership {
        voters: BTreeSet::from([id(1)]),
        learners: all.clone(),
        caught_up: all,
        changing: true,
        ..Membership::default()
    };
    assert_eq!(controller.tick(&cluster.image, &membership, 0), []);
}

#[test]
fn a_change_that_its_leader_left_half_done_is_finished_by_the_next() {
    let cluster = Cluster::of(3);
    let mut controller = Controller::new(id(1), ControllerConfig::default(), &cluster.image, 0);
    let all: BTreeSet<BrokerId> = ids(&[1, 2, 3]).into_iter().collect();
    let mut membership =
        Membership { voters: all.clone(), caught_up: all.clone(), joint: true, ..Membership::default() };
    let mut at = |membership: &Membership, now_ms| {
        let effects = controller.tick(&cluster.image, membership, now_ms);
        effects.into_iter().find(|effect| matches!(effect, Effect::ChangeVoters(_)))
    };
    assert_eq!(at(&membership, 0), Some(Effect::ChangeVoters(all)));
    membership.joint = false;
    assert_eq!(at(&membership, 60_000), None);
}

#[test]
fn deleted_partitions_are_forgotten() {
    let mut cluster = Cluster::of(3);
    cluster.topic(&[&[1, 2, 3]], &[]);
    cluster.elect(0, 2);
    let mut led = led(cluster);
    led.agree(Command::DeleteTopic { id: common::TOPIC });
    assert_eq!(led.pass(20_000), []);
    let gone: TopicPartition = tp(0);
    assert!(led.cluster.image.partition(gone).is_none());
}
