//! What a follower does with answers, exchange by exchange.

use std::panic::{AssertUnwindSafe, catch_unwind};
use strandline_core::partition::{
    Action, Answer, FlushToken, Follower, FollowerStart, Learned, Outcome, Truncation,
};
use strandline_record::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, TopicId, TopicPartition};

/// A follower in epoch 5 of a log 0..8 in which epoch 1 ends at 4 and epoch 3 at 8; flushed up to 6.
const START: FollowerStart = FollowerStart {
    tp: TopicPartition { topic: TopicId(uuid::Uuid::nil()), partition: PartitionId(0) },
    leader: BrokerId(2),
    epoch: LeaderEpoch(5),
    broker_epoch: BrokerEpoch(77),
    unclean_epoch: LeaderEpoch(0),
    log_start: Offset(0),
    log_end: Offset(8),
    last_epoch: Some(LeaderEpoch(3)),
    flushed: Offset(6),
    high_watermark: Offset(2),
    high_watermark_epoch: LeaderEpoch(3),
    truncations: 0,
    last_number: 40,
};

fn own_end(asked: LeaderEpoch) -> Offset {
    match asked.0 {
        ..=0 => Offset(0),
        1 | 2 => Offset(4),
        _ => Offset(8),
    }
}

fn asked(start: FollowerStart) -> (Follower, u64) {
    let mut follower = Follower::new(start);
    let request = follower.request().expect("nothing is outstanding");
    (follower, request.number)
}

fn answer(number: u64, outcome: Outcome) -> Answer {
    Answer { number, leader_epoch: LeaderEpoch(5), outcome }
}

fn diverging(epoch: i32, end: i64) -> Outcome {
    Outcome::Diverging { epoch: Some(LeaderEpoch(epoch)), end: Offset(end) }
}

fn data(base: i64, high_watermark: i64) -> Outcome {
    Outcome::Data { base: Offset(base), high_watermark: Offset(high_watermark), log_start: Offset(0) }
}

#[test]
fn it_asks_from_its_log_end_and_acknowledges_what_is_flushed() {
    let mut follower = Follower::new(START);
    let request = follower.request().expect("nothing is outstanding");
    assert_eq!((request.number, request.broker_epoch), (41, BrokerEpoch(77)));
    assert_eq!((request.next_offset, request.last_epoch), (Offset(8), Some(LeaderEpoch(3))));
    assert_eq!((request.leader_epoch, request.flushed_end), (LeaderEpoch(5), Offset(6)));
    assert_eq!(follower.request(), None, "one at a time");
    follower.disconnected();
    assert_eq!(follower.request().map(|request| request.number), Some(42));
}

#[test]
fn it_truncates_to_the_smaller_of_the_two_ends() {
    for (epoch, end, to) in [(3, 6, 6), (3, 7, 7), (2, 5, 4), (1, 3, 3), (1, 4, 4), (0, 2, 0)] {
        let (mut follower, number) = asked(FollowerStart { high_watermark: Offset(0), ..START });
        let action = follower.answer(&answer(number, diverging(epoch, end)), Offset(0), own_end);
        assert_eq!(action, Action::Truncate(Truncation { to: Offset(to) }), "epoch {epoch} ends at {end}");
        assert_eq!(follower.request(), None, "first the log");
        follower.truncated(Offset(to), Some(LeaderEpoch(if epoch < 3 { 1 } else { 3 })));
        assert_eq!((follower.log_end(), follower.flushed_end()), (Offset(to), Offset(to.min(6))));
        assert_eq!(follower.truncations(), 1);
        assert_eq!(follower.request().map(|request| request.next_offset), Some(Offset(to)));
    }
}

#[test]
fn an_answer_to_another_request_or_of_another_epoch_is_ignored() {
    let (mut follower, first) = asked(START);
    follower.disconnected();
    let number = follower.request().expect("disconnected").number;
    assert_eq!(follower.answer(&answer(first, diverging(1, 4)), Offset(0), own_end), Action::Ignore);
    let other_epoch = Answer { leader_epoch: LeaderEpoch(4), ..answer(number, diverging(1, 4)) };
    assert_eq!(follower.answer(&other_epoch, Offset(0), own_end), Action::Ignore);
    let action = follower.answer(&answer(number, data(8, 0)), Offset(0), own_end);
    assert_eq!(action, Action::Append { base: Offset(8) });
    let _ = follower.appended(Offset(9), Some(LeaderEpoch(5)));
    assert_eq!(
        follower.answer(&answer(number, diverging(1, 4)), Offset(0), own_end),
        Action::Ignore,
        "answered before"
    );
}

#[test]
fn the_high_watermark_is_the_leaders_up_to_the_own_end() {
    let (mut follower, number) = asked(START);
    let action = follower.answer(&answer(number, data(8, 100)), Offset(0), own_end);
    assert_eq!(action, Action::Append { base: Offset(8) });
    assert_eq!(follower.high_watermark(), Offset(2), "not before the records are there");
    let learned = follower.appended(Offset(12), Some(LeaderEpoch(5)));
    assert_eq!(learned, Learned { high_watermark: Some(Offset(12)), log_start: None });
    assert_eq!(follower.high_watermark_epoch(), LeaderEpoch(5));
}

#[test]
fn marks_alone_leave_the_request_outstanding() {
    let (mut follower, number) = asked(START);
    let marks = Outcome::Marks { high_watermark: Offset(7), log_start: Offset(3) };
    let learned = Learned { high_watermark: Some(Offset(7)), log_start: Some(Offset(3)) };
    assert_eq!(follower.answer(&answer(number, marks), Offset(0), own_end), Action::Learned(learned));
    assert_eq!(follower.outstanding(), Some(number));
    assert_eq!(
        follower.answer(&answer(number, marks), Offset(0), own_end),
        Action::Learned(Learned::default())
    );
    assert_eq!(
        follower.answer(&answer(number, data(8, 7)), Offset(0), own_end),
        Action::Append { base: Offset(8) }
    );
}

#[test]
fn the_log_start_never_passes_the_own_high_watermark() {
    let (mut follower, number) = asked(START);
    let marks = Outcome::Marks { high_watermark: Offset(20), log_start: Offset(15) };
    let learned = Learned { high_watermark: Some(Offset(8)), log_start: Some(Offset(8)) };
    assert_eq!(follower.answer(&answer(number, marks), Offset(0), own_end), Action::Learned(learned));
}

#[test]
fn a_flush_is_acknowledged_only_under_its_own_epoch_and_truncation() {
    let (mut follower, number) = asked(START);
    let token = follower.flush_token();
    assert_eq!(follower.flushed(token, Offset(7)), Some(Offset(7)), "the request is out: by itself");
    assert_eq!(follower.flushed(token, Offset(7)), None, "nothing new");
    let old_epoch = FlushToken { leader_epoch: LeaderEpoch(4), ..token };
    assert_eq!(follower.flushed(old_epoch, Offset(8)), None);
    assert_eq!(
        follower.answer(&answer(number, diverging(1, 4)), Offset(0), own_end),
        Action::Truncate(Truncation { to: Offset(4) })
    );
    follower.truncated(Offset(4), Some(LeaderEpoch(1)));
    let number = follower.request().expect("truncated").number;
    assert_eq!(
        follower.answer(&answer(number, data(4, 0)), Offset(0), own_end),
        Action::Append { base: Offset(4) }
    );
    let _ = follower.appended(Offset(9), Some(LeaderEpoch(5)));
    assert_eq!(follower.flushed(token, Offset(8)), None);
    assert_eq!(follower.flushed_end(), Offset(4), "5 to 8 were other records");
    assert_eq!(follower.flushed(follower.flush_token(), Offset(9)), None, "the next request says so");
    assert_eq!(follower.request().map(|request| request.flushed_end), Some(Offset(9)));
}

#[test]
fn below_the_log_start_it_begins_again_there() {
    let (mut follower, number) = asked(START);
    let below = Outcome::BelowLogStart { log_start: Offset(30) };
    assert_eq!(
        follower.answer(&answer(number, below), Offset(0), own_end),
        Action::Reset { start: Offset(30) }
    );
    follower.truncated(Offset(30), None);
    let marks = (follower.log_start(), follower.high_watermark(), follower.flushed_end());
    assert_eq!(marks, (Offset(30), Offset(30), Offset(6)), "that it begins at 30 is not on disk yet");
    let request = follower.request().expect("reset");
    assert_eq!((request.next_offset, request.last_epoch), (Offset(30), None));
    assert_eq!(request.flushed_end, Offset(6));
    assert_eq!(follower.flushed(follower.flush_token(), Offset(30)), Some(Offset(30)));
}

#[test]
fn with_no_epoch_in_common_it_begins_again_at_the_leaders_log_start() {
    let (mut follower, number) = asked(START);
    let none = Outcome::Diverging { epoch: None, end: Offset(5) };
    assert_eq!(
        follower.answer(&answer(number, none), Offset(0), own_end),
        Action::Reset { start: Offset(5) }
    );
}

/// It was told by its own retention only: the cut went below the high watermark, which is asserted.
#[test]
fn what_its_own_retention_has_deleted_is_not_cut_again() {
    let (mut follower, number) = asked(FollowerStart { high_watermark: Offset(5), ..START });
    // Epoch 3 began at 4; all below 5 has been deleted since it asked, and epoch 1 with it.
    let own_end = |asked: LeaderEpoch| if asked.0 < 3 { Offset(5) } else { Offset(8) };
    let action = follower.answer(&answer(number, diverging(2, 6)), Offset(5), own_end);
    assert_eq!(action, Action::Truncate(Truncation { to: Offset(5) }));
    assert_eq!(follower.log_start(), Offset(5));
}

/// It kept asking, for ever: a cut at its own log start takes nothing away.
#[test]
fn after_an_unclean_election_a_log_of_which_nothing_would_be_left_begins_again_at_zero() {
    let deleted = FollowerStart { log_start: Offset(6), high_watermark: Offset(7), ..START };
    let unclean = FollowerStart { unclean_epoch: LeaderEpoch(5), ..deleted };
    for (end, log_end) in [(5, 8), (6, 8), (5, 6)] {
        let start = FollowerStart {
            log_end: Offset(log_end),
            high_watermark: Offset(6),
            flushed: Offset(6),
            ..unclean
        };
        let (mut follower, number) = asked(start);
        let action = follower.answer(&answer(number, diverging(1, end)), Offset(0), own_end);
        assert_eq!(action, Action::Reset { start: Offset(0) }, "{end} {log_end}");
        follower.truncated(Offset(0), None);
        assert_eq!((follower.log_start(), follower.flushed_end()), (Offset(0), Offset(0)));
    }
    let (mut follower, number) = asked(unclean);
    let action = follower.answer(&answer(number, diverging(3, 7)), Offset(0), own_end);
    assert_eq!(action, Action::Truncate(Truncation { to: Offset(7) }), "something is left");
    let (mut follower, number) = asked(FollowerStart { high_watermark: Offset(6), ..deleted });
    let action = follower.answer(&answer(number, diverging(3, 6)), Offset(0), own_end);
    assert_eq!(action, Action::Truncate(Truncation { to: Offset(6) }), "there is one history only");

    let empty = FollowerStart {
        log_start: Offset(8),
        log_end: Offset(8),
        last_epoch: None,
        flushed: Offset(8),
        high_watermark: Offset(8),
        ..unclean
    };
    assert!(empty.begins_again() && !empty.begun_again().begins_again());
    assert!(!FollowerStart { unclean_epoch: LeaderEpoch(3), ..empty }.begins_again(), "learnt after it");
    assert!(
        !FollowerStart { last_epoch: Some(LeaderEpoch(3)), ..empty }.begins_again(),
        "it can be compared"
    );
}

#[test]
fn it_never_truncates_below_its_high_watermark() {
    let start = FollowerStart { high_watermark: Offset(6), ..START };
    for outcome in [diverging(3, 5), Outcome::Diverging { epoch: None, end: Offset(5) }] {
        let (mut follower, number) = asked(start);
        let told = || {
            let _ = follower.answer(&answer(number, outcome), Offset(0), own_end);
        };
        assert!(catch_unwind(AssertUnwindSafe(told)).is_err(), "{outcome:?}");
    }
    let (mut follower, number) = asked(start);
    let action = follower.answer(&answer(number, diverging(3, 6)), Offset(0), own_end);
    assert_eq!(action, Action::Truncate(Truncation { to: Offset(6) }));
    let six = Offset(6);
    let empty = FollowerStart { log_start: six, log_end: six, last_epoch: None, ..start };
    let (mut follower, number) = asked(empty);
    let none = Outcome::Diverging { epoch: None, end: Offset(5) };
    let action = follower.answer(&answer(number, none), six, own_end);
    assert_eq!(action, Action::Reset { start: Offset(5) }, "an empty log has nothing to lose");
}

#[test]
fn unless_an_unclean_election_came_after_it_was_learnt() {
    let start = FollowerStart { high_watermark: Offset(6), unclean_epoch: LeaderEpoch(4), ..START };
    let (mut follower, number) = asked(start);
    let action = follower.answer(&answer(number, diverging(3, 5)), Offset(0), own_end);
    assert_eq!(action, Action::Truncate(Truncation { to: Offset(5) }));
    follower.truncated(Offset(5), Some(LeaderEpoch(3)));
    assert_eq!(follower.high_watermark(), Offset(5));
}

#[test]
fn answers_that_make_no_sense_are_asked_again() {
    for outcome in [
        data(7, 0),
        data(9, 0),
        diverging(3, 8),
        diverging(9, 20),
        Outcome::BelowLogStart { log_start: Offset(8) },
        Outcome::Refused,
    ] {
        let (mut follower, number) = asked(START);
        assert_eq!(
            follower.answer(&answer(number, outcome), Offset(0), own_end),
            Action::Retry,
            "{outcome:?}"
        );
        assert!(follower.request().is_some());
    }
}
