//! What a leader decides, exchange by exchange. The random walks of `replication` say that it is safe; these
//! say what it does.

mod common;

use common::{Cluster, id, tp};
use std::collections::BTreeSet;
use strandline_core::partition::{
    Acks, Deposed, Effects, EpochEnd, FetchDecision, FollowerAck, FollowerFetch, Leader, LeaderConfig,
    LeaderStart, ProduceRefusal, ReadCheck, Refusal,
};
use strandline_metadata::{Command, Rejection, Response};
use strandline_record::{BrokerId, LeaderEpoch, Offset};

const CONFIG: LeaderConfig = LeaderConfig { lag_max_ms: 10_000, resend_ms: 500 };

/// Broker 1 leads partition 0 of [1, 2, 3] with the log `start..end`, all flushed.
struct Led {
    cluster: Cluster,
    leader: Leader,
    /// Where each epoch of the leader's log ends.
    epochs: Vec<(i32, i64)>,
    now_ms: u64,
    number: u64,
}

fn led() -> Led {
    led_with(&[], 0, 0)
}

fn led_with(configs: &[(&str, &str)], log_end: i64, high_watermark: i64) -> Led {
    let mut cluster = Cluster::of(4);
    cluster.topic(&[&[1, 2, 3]], configs);
    let leader = lead(&cluster, log_end, high_watermark);
    Led { cluster, leader, epochs: vec![], now_ms: 0, number: 0 }
}

fn lead(cluster: &Cluster, log_end: i64, high_watermark: i64) -> Leader {
    Leader::new(LeaderStart {
        me: id(1),
        tp: tp(0),
        image: &cluster.image,
        config: CONFIG,
        log_start: Offset(0),
        log_end: Offset(log_end),
        flushed: Offset(log_end),
        high_watermark: Offset(high_watermark),
        high_watermark_epoch: LeaderEpoch(0),
        truncations: 0,
        now_ms: 0,
    })
}

impl Led {
    fn lookup(&self) -> impl Fn(LeaderEpoch) -> EpochEnd + use<> {
        let epochs = self.epochs.clone();
        move |asked| {
            let found = epochs.iter().rev().find(|(epoch, _)| *epoch <= asked.0);
            found.map(|&(epoch, end)| (LeaderEpoch(epoch), Offset(end)))
        }
    }

    /// Appends and flushes up to `end` in the present epoch.
    fn write(&mut self, end: i64) -> Effects {
        let epoch = self.leader.epoch().0;
        self.epochs.retain(|&(e, _)| e != epoch);
        self.epochs.push((epoch, end));
        let appended = self.leader.appended(Offset(end), self.now_ms);
        let flushed = self.leader.flushed(self.leader.flush_token(), Offset(end));
        if flushed.is_empty() { appended } else { flushed }
    }

    fn request(&mut self, broker: u64, next: i64, last_epoch: i32, flushed: i64) -> FollowerFetch {
        self.number += 1;
        FollowerFetch {
            number: self.number,
            broker: id(broker),
            broker_epoch: self.cluster.epoch(broker),
            leader_epoch: self.leader.epoch(),
            next_offset: Offset(next),
            last_epoch: (last_epoch > 0).then_some(LeaderEpoch(last_epoch)),
            flushed_end: Offset(flushed),
        }
    }

    fn send(&mut self, fetch: &FollowerFetch) -> (FetchDecision, Effects) {
        let lookup = self.lookup();
        self.leader.follower_fetch(fetch, lookup, self.now_ms)
    }

    fn fetch(&mut self, broker: u64, next: i64, last_epoch: i32, flushed: i64) -> (FetchDecision, Effects) {
        let fetch = self.request(broker, next, last_epoch, flushed);
        self.send(&fetch)
    }

    /// The follower has, and has flushed, everything up to `end`, in the leader's epoch.
    fn caught_up(&mut self, broker: u64, end: i64) -> Effects {
        let epoch = if end == 0 { 0 } else { self.leader.epoch().0 };
        let (decision, effects) = self.fetch(broker, end, epoch, end);
        assert_eq!(decision, FetchDecision::Send { from: Offset(end) });
        effects
    }

    fn ack(&mut self, broker: u64, end: i64) -> (Result<(), Refusal>, Effects) {
        let ack = FollowerAck {
            number: self.number,
            broker: id(broker),
            broker_epoch: self.cluster.epoch(broker),
            leader_epoch: self.leader.epoch(),
            flushed_end: Offset(end),
        };
        self.leader.follower_ack(&ack, self.now_ms)
    }

    fn sees_image(&mut self) -> Effects {
        self.leader.image(&self.cluster.image, self.now_ms)
    }

    /// Raft agrees on what the leader proposed; its answer arrives.
    fn agreed(&mut self, effects: Effects) -> Effects {
        let (response, _) = self.cluster.apply(effects.alter.expect("a proposal"));
        match response {
            Response::Partition(partition) => self.leader.alter_answer(Ok(&partition), self.now_ms),
            Response::Rejected(rejection) => self.leader.alter_answer(Err(&rejection), self.now_ms),
            other => panic!("{other:?}"),
        }
    }
}

fn proposed(effects: &Effects) -> Vec<u64> {
    match &effects.alter {
        Some(Command::AlterPartition { isr, .. }) => isr.keys().map(|id| id.get()).collect(),
        None => vec![],
        other => panic!("{other:?}"),
    }
}

fn advanced(effects: &Effects) -> Option<i64> {
    effects.high_watermark.map(|end| end.get())
}

fn set(ids: &[u64]) -> BTreeSet<BrokerId> {
    common::ids(ids).into_iter().collect()
}

#[test]
fn the_high_watermark_waits_for_the_flush_of_every_in_sync_replica() {
    let mut led = led();
    assert_eq!(advanced(&led.write(5)), None);
    assert_eq!(advanced(&led.caught_up(2, 5)), None, "nothing is known of 3");
    let (_, effects) = led.fetch(3, 5, 1, 3);
    assert_eq!(advanced(&effects), Some(3), "3 has 5 records and has flushed 3");
    assert_eq!(advanced(&led.ack(3, 5).1), Some(5));
    assert!(led.leader.is_acknowledged(Acks::All, Offset(5)));
    assert!(!led.leader.is_acknowledged(Acks::All, Offset(6)));
}

#[test]
fn what_every_replica_holds_is_known_once_each_has_acknowledged_in_the_epoch_in_sync_or_not() {
    let mut led = led();
    let held = |led: &Led| led.leader.held_by_all().map(Offset::get);
    let _ = led.write(5);
    let _ = led.caught_up(2, 5);
    assert_eq!(held(&led), None, "nothing is known of 3");
    let _ = led.fetch(3, 5, 1, 3);
    assert_eq!(held(&led), Some(3), "what is not flushed does not count");
    led.cluster.fence(3);
    let _ = led.sees_image();
    let _ = led.write(9);
    let _ = led.caught_up(2, 9);
    assert_eq!(held(&led), Some(3), "it has that much wherever it is");
}

#[test]
fn the_leaders_own_flush_counts_like_any_other() {
    let mut led = led();
    let token = led.leader.flush_token();
    assert!(led.leader.appended(Offset(5), 0).is_empty());
    led.epochs = vec![(1, 5)];
    let _ = led.caught_up(2, 5);
    assert_eq!(advanced(&led.caught_up(3, 5)), None);
    assert!(!led.leader.is_acknowledged(Acks::Leader, Offset(5)));
    assert_eq!(advanced(&led.leader.flushed(token, Offset(4))), Some(4));
    assert!(led.leader.is_acknowledged(Acks::Leader, Offset(4)));
    let stale = strandline_core::partition::FlushToken { truncations: 1, ..token };
    assert!(led.leader.flushed(stale, Offset(5)).is_empty());
}

#[test]
fn where_the_topic_does_not_wait_for_the_disk_appending_is_enough() {
    let mut led = led_with(&[("flush", "interval")], 0, 0);
    led.epochs = vec![(1, 5)];
    let _ = led.leader.appended(Offset(5), 0);
    let _ = led.fetch(2, 5, 1, 0);
    let (_, effects) = led.fetch(3, 4, 1, 0);
    assert_eq!(advanced(&effects), Some(4));
}

#[test]
fn the_high_watermark_stands_while_the_isr_is_below_the_minimum() {
    let mut led = led();
    let _ = led.write(2);
    let _ = (led.caught_up(2, 2), led.caught_up(3, 2));
    led.cluster.fence(2);
    led.cluster.fence(3);
    let _ = led.sees_image();
    assert!(led.leader.under_min_isr());
    assert_eq!(advanced(&led.write(9)), None);
    assert_eq!(
        led.leader.check_produce(Acks::All),
        Err(ProduceRefusal::NotEnoughReplicas { isr: 1, min_insync: 2 })
    );
    assert_eq!(led.leader.check_produce(Acks::Leader), Ok(()));
    led.cluster.configure("min.insync.replicas", "1");
    assert_eq!(advanced(&led.sees_image()), Some(9), "the new minimum counts when the image shows it");
    assert_eq!(led.leader.check_produce(Acks::All), Ok(()));
}

#[test]
fn a_follower_whose_log_is_another_one_is_told_where_they_part() {
    // Epoch 1 ends at 4, 3 at 7, the leader's own 5 at 9.
    let mut led = led();
    for _ in 0..4 {
        led.cluster.elect(0, 2);
        led.cluster.elect(0, 1);
    }
    led.leader = lead(&led.cluster, 7, 4);
    led.epochs = vec![(1, 4), (3, 7)];
    let _ = led.write(9);
    let diverging =
        |epoch, end| FetchDecision::Diverging { epoch: Some(LeaderEpoch(epoch)), end: Offset(end) };
    for (next, last_epoch, expected) in [
        (9, 9, FetchDecision::Send { from: Offset(9) }),
        (4, 1, FetchDecision::Send { from: Offset(4) }),
        (2, 1, FetchDecision::Send { from: Offset(2) }),
        (5, 1, diverging(1, 4)),
        (5, 2, diverging(1, 4)),
        (8, 3, diverging(3, 7)),
        (8, 4, diverging(3, 7)),
        (4, 2, diverging(1, 4)),
        (0, 0, FetchDecision::Send { from: Offset(0) }),
        (7, 0, FetchDecision::Send { from: Offset(7) }),
        (8, 0, FetchDecision::Diverging { epoch: None, end: Offset(0) }),
    ] {
        let (decision, _) = led.fetch(2, next, last_epoch, next);
        assert_eq!(decision, expected, "{next} after epoch {last_epoch}");
    }
}

#[test]
fn a_diverging_fetch_acknowledges_nothing() {
    let mut led = led_with(&[("min.insync.replicas", "1")], 0, 0);
    let _ = led.write(5);
    let _ = led.caught_up(2, 5);
    let (decision, effects) = led.fetch(3, 6, 1, 6);
    assert_eq!(decision, FetchDecision::Diverging { epoch: Some(LeaderEpoch(1)), end: Offset(5) });
    assert_eq!(advanced(&effects), None);
    let (refused, effects) = led.ack(3, 6);
    assert_eq!((refused, advanced(&effects)), (Err(Refusal::NoFetch), None));
}

#[test]
fn an_acknowledgement_from_before_the_logs_matched_is_refused_however_late() {
    let mut led = led();
    let _ = led.write(5);
    let _ = led.caught_up(2, 5);
    let _ = led.fetch(3, 6, 1, 0);
    let before = FollowerAck {
        number: led.number,
        broker: id(3),
        broker_epoch: led.cluster.epoch(3),
        leader_epoch: led.leader.epoch(),
        flushed_end: Offset(6),
    };
    let _ = led.fetch(3, 0, 0, 0);
    let (refused, effects) = led.leader.follower_ack(&before, 0);
    assert_eq!((refused, effects), (Err(Refusal::NoFetch), Effects::default()));
    assert_eq!(advanced(&led.ack(3, 2).1), Some(2));
}

#[test]
fn a_follower_below_the_log_start_begins_again_there() {
    let mut led = led();
    let _ = led.write(9);
    let _ = (led.caught_up(2, 9), led.caught_up(3, 9));
    led.leader.log_start_moved(Offset(6));
    let (decision, _) = led.fetch(2, 5, 1, 5);
    assert_eq!(decision, FetchDecision::BelowLogStart { log_start: Offset(6) });
    let (decision, _) = led.fetch(2, 6, 0, 6);
    assert_eq!(decision, FetchDecision::Send { from: Offset(6) });
}

#[test]
fn requests_of_strangers_and_of_other_epochs_are_refused() {
    let mut led = led();
    let _ = led.write(1);
    let good = led.request(2, 0, 0, 0);
    let refused = |led: &mut Led, fetch| match led.send(&fetch) {
        (FetchDecision::Refused(refusal), effects) => (refusal, effects.deposed),
        other => panic!("{other:?}"),
    };
    let stranger = FollowerFetch { broker: id(4), broker_epoch: led.cluster.epoch(4), ..good };
    assert_eq!(refused(&mut led, stranger), (Refusal::NotReplica(id(4)), None));
    let stale = FollowerFetch { broker_epoch: strandline_record::BrokerEpoch(1), ..good };
    assert_eq!(refused(&mut led, stale), (Refusal::StaleBroker, None));
    let older = FollowerFetch { leader_epoch: LeaderEpoch(0), ..good };
    assert_eq!(refused(&mut led, older), (Refusal::FencedEpoch { current: LeaderEpoch(1) }, None));
    let newer = FollowerFetch { leader_epoch: LeaderEpoch(2), ..good };
    let deposed = Some(Deposed::Epoch(LeaderEpoch(2)));
    assert_eq!(refused(&mut led, newer), (Refusal::NotLeader { epoch: LeaderEpoch(1) }, deposed));
    // From then on it is nobody's leader, and moves nothing.
    assert_eq!(refused(&mut led, good), (Refusal::NotLeader { epoch: LeaderEpoch(1) }, None));
    assert_eq!(led.leader.check_produce(Acks::None), Err(ProduceRefusal::Deposed(LeaderEpoch(1))));
    assert_eq!(led.leader.tick(99_999), Effects::default());
}

#[test]
fn a_restarted_followers_old_acknowledgements_count_for_nothing() {
    let mut led = led_with(&[("min.insync.replicas", "1")], 0, 0);
    let _ = led.write(5);
    let _ = (led.caught_up(2, 5), led.caught_up(3, 5));
    assert_eq!(led.leader.high_watermark(), Offset(5));
    led.cluster.register(2, None);
    led.cluster.unfence(2);
    let _ = led.sees_image();
    assert_eq!(*led.leader.committed_isr(), set(&[1, 3]));
    led.now_ms += 1_000;
    assert_eq!(proposed(&led.leader.tick(led.now_ms)), Vec::<u64>::new(), "2 has not fetched since");
    assert_eq!(proposed(&led.caught_up(2, 5)), [1, 2, 3]);
}

#[test]
fn who_lags_too_long_leaves_the_isr_once_that_is_committed() {
    let mut led = led();
    let _ = (led.caught_up(2, 0), led.caught_up(3, 0));
    led.now_ms = 60_000;
    let _ = led.write(5);
    let _ = led.caught_up(2, 5);
    led.now_ms += CONFIG.lag_max_ms;
    assert!(led.leader.tick(led.now_ms).is_empty(), "3 was caught up until the append");
    led.now_ms += 1;
    let effects = led.leader.tick(led.now_ms);
    assert_eq!(proposed(&effects), [1, 2]);
    assert_eq!(led.leader.maximal_isr(), set(&[1, 2, 3]), "a removal counts only once committed");
    assert_eq!(led.leader.high_watermark(), Offset(0));
    assert_eq!(advanced(&led.agreed(effects)), Some(5));
    assert_eq!(*led.leader.committed_isr(), set(&[1, 2]));
}

#[test]
fn who_has_caught_up_joins_the_isr_and_holds_the_high_watermark_from_the_proposal_on() {
    let mut led = led();
    led.cluster.fence(3);
    let _ = led.sees_image();
    let _ = led.write(5);
    assert_eq!(advanced(&led.caught_up(2, 5)), Some(5));
    assert_eq!(proposed(&led.caught_up(3, 5)), Vec::<u64>::new(), "it is fenced");
    led.cluster.unfence(3);
    let effects = led.sees_image();
    assert_eq!(proposed(&effects), [1, 2, 3]);
    let _ = led.write(6);
    assert_eq!(advanced(&led.caught_up(2, 6)), None, "3 may be in the ISR already");
    assert_eq!(advanced(&led.caught_up(3, 6)), Some(6));
    assert!(led.agreed(effects).is_empty());
    assert_eq!(*led.leader.committed_isr(), set(&[1, 2, 3]));
}

#[test]
fn a_follower_joins_only_from_the_start_of_the_epoch_on_even_if_the_high_watermark_is_lower() {
    let mut led = led();
    // A new epoch, begun at 7 with an old high watermark; 3 leaves the ISR in it.
    led.cluster.elect(0, 2);
    led.cluster.elect(0, 1);
    led.leader = lead(&led.cluster, 7, 2);
    led.epochs = vec![(1, 7)];
    led.cluster.fence(3);
    led.cluster.unfence(3);
    let _ = led.sees_image();
    assert_eq!(proposed(&led.fetch(3, 6, 1, 6).1), Vec::<u64>::new());
    assert_eq!(proposed(&led.fetch(3, 7, 1, 7).1), [1, 2, 3]);
}

#[test]
fn a_follower_joins_only_with_everything_that_is_visible() {
    let mut led = led();
    led.cluster.fence(3);
    let _ = led.sees_image();
    led.cluster.unfence(3);
    let _ = led.sees_image();
    let _ = led.write(5);
    let _ = led.caught_up(2, 5);
    assert_eq!(proposed(&led.fetch(3, 5, 1, 4).1), Vec::<u64>::new());
    assert_eq!(proposed(&led.ack(3, 5).1), [1, 2, 3]);
}

#[test]
fn a_lost_answer_leaves_the_proposal_pending_and_it_is_sent_again() {
    let mut led = led();
    led.cluster.fence(3);
    led.cluster.unfence(3);
    let _ = led.sees_image();
    assert_eq!(proposed(&led.caught_up(3, 0)), [1, 2, 3]);
    led.now_ms = 499;
    assert!(led.leader.tick(led.now_ms).is_empty());
    led.now_ms = 500;
    assert_eq!(proposed(&led.leader.tick(led.now_ms)), [1, 2, 3]);
    assert_eq!(led.leader.maximal_isr(), set(&[1, 2, 3]));
}

#[test]
fn a_rejection_ends_nothing_and_a_withdrawal_is_proposed() {
    let mut led = led();
    led.cluster.fence(3);
    led.cluster.unfence(3);
    let _ = led.sees_image();
    let first = led.caught_up(3, 0);
    let rejection = Rejection::BrokerFenced(id(3));
    assert!(led.leader.alter_answer(Err(&rejection), 0).is_empty());
    assert_eq!(led.leader.maximal_isr(), set(&[1, 2, 3]));
    // 3 falls behind for long: the leader wants it no longer, and says so.
    let _ = led.write(5);
    let _ = led.caught_up(2, 5);
    led.now_ms = CONFIG.lag_max_ms + 1;
    let withdrawal = led.leader.tick(led.now_ms);
    assert_eq!(proposed(&withdrawal), [1, 2]);
    assert_eq!(led.leader.maximal_isr(), set(&[1, 2, 3]), "the first may still apply");
    assert_eq!(advanced(&led.agreed(withdrawal)), Some(5), "the partition epoch has moved");
    let (late, _) = led.cluster.apply(first.alter.expect("a proposal"));
    assert!(matches!(late, Response::Rejected(Rejection::StalePartition { .. })));
}

#[test]
fn a_quiet_follower_at_the_log_end_is_never_shrunk() {
    let mut led = led();
    let _ = led.write(5);
    let _ = (led.caught_up(2, 5), led.caught_up(3, 5));
    assert!(led.leader.tick(10_000_000).is_empty());
}

#[test]
fn a_new_leader_cannot_say_where_the_log_ends_until_its_followers_have_what_it_began_with() {
    let mut led = led();
    led.cluster.elect(0, 2);
    led.cluster.elect(0, 1);
    led.leader = lead(&led.cluster, 7, 3);
    led.epochs = vec![(1, 7)];
    assert!(!led.leader.offsets_available());
    assert_eq!(led.leader.read_check(Offset(2)), ReadCheck::Ready { end: Offset(3) });
    for offset in [3, 7, 8] {
        assert_eq!(led.leader.read_check(Offset(offset)), ReadCheck::NotAvailable);
    }
    let _ = led.fetch(2, 7, 1, 7);
    let _ = led.fetch(3, 7, 1, 7);
    assert!(led.leader.offsets_available());
    let out = ReadCheck::OutOfRange { log_start: Offset(0), log_end: Offset(7) };
    assert_eq!(led.leader.read_check(Offset(7)), ReadCheck::AtEnd);
    assert_eq!(led.leader.read_check(Offset(8)), out);
    assert_eq!(led.leader.read_check(Offset(-1)), out);
}

#[test]
fn what_a_new_leader_has_not_flushed_is_not_visible_whatever_it_has_heard() {
    let mut cluster = Cluster::of(3);
    cluster.topic(&[&[1, 2, 3]], &[]);
    let leader = Leader::new(LeaderStart {
        me: id(1),
        tp: tp(0),
        image: &cluster.image,
        config: CONFIG,
        log_start: Offset(2),
        log_end: Offset(9),
        flushed: Offset(5),
        high_watermark: Offset(7),
        high_watermark_epoch: LeaderEpoch(0),
        truncations: 0,
        now_ms: 0,
    });
    assert_eq!(leader.high_watermark(), Offset(5));
}

#[test]
fn an_image_with_a_higher_epoch_or_without_the_partition_ends_leadership() {
    let mut first = led();
    first.cluster.elect(0, 2);
    assert_eq!(first.sees_image().deposed, Some(Deposed::Epoch(LeaderEpoch(2))));
    assert_eq!(first.sees_image(), Effects::default(), "once");

    let mut second = led();
    second.cluster.apply(Command::DeleteTopic { id: common::TOPIC });
    assert_eq!(second.sees_image().deposed, Some(Deposed::Deleted));

    let mut third = led();
    third.cluster.elect(0, 2);
    let now = third.cluster.partition(0).clone();
    assert_eq!(third.leader.alter_answer(Ok(&now), 0).deposed, Some(Deposed::Epoch(LeaderEpoch(2))));
}

#[test]
fn describing_shows_each_replica() {
    let mut led = led();
    led.cluster.fence(3);
    led.cluster.unfence(3);
    let _ = led.sees_image();
    let _ = led.write(5);
    led.now_ms = 100;
    let _ = led.fetch(2, 5, 1, 2);
    let states = led.leader.replica_states(200);
    let brief: Vec<_> =
        (states.iter()).map(|s| (s.broker.get(), s.in_isr, s.log_end, s.lag, s.lag_ms)).collect();
    assert_eq!(
        brief,
        [
            (1, true, Some(Offset(5)), Some(0), Some(0)),
            (2, true, Some(Offset(5)), Some(3), Some(200)),
            (3, false, None, None, Some(200)),
        ]
    );
    assert!(led.leader.under_replicated());
}
