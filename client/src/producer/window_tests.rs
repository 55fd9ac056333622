//! The window against a model of a broker: random sends, refusals, lost answers, broken connections whose
//! requests arrive late or never, answers out of order, expiries and epoch bumps.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const FIRST: Identity = Identity { id: 9, epoch: 0 };

#[derive(Clone, Copy, Debug)]
struct Copy {
    batch: u64,
    ticket: Ticket,
    identity: Identity,
    sequence: i32,
    count: i32,
}

/// The log of one partition with Kafka's producer state: an epoch and the last five batches.
#[derive(Default)]
struct Broker {
    log: Vec<u64>,
    epoch: Option<i16>,
    recent: VecDeque<(i32, i32)>,
}

impl Broker {
    fn append(&mut self, copy: &Copy) -> Outcome {
        let last = sequence_plus(copy.sequence, copy.count - 1);
        match self.epoch {
            Some(epoch) if copy.identity.epoch < epoch => return Outcome::IdentityLost,
            Some(epoch) if copy.identity.epoch == epoch => {
                if self.recent.contains(&(copy.sequence, last)) {
                    return Outcome::Appended;
                }
                let newest = self.recent.back().expect("an epoch begins with a batch").1;
                if last <= newest {
                    // Older than the five: DUPLICATE_SEQUENCE.
                    return Outcome::Appended;
                }
                if copy.sequence != sequence_plus(newest, 1) {
                    return Outcome::OutOfOrder;
                }
            }
            _ if copy.sequence != 0 => return Outcome::OutOfOrder,
            _ => self.recent.clear(),
        }
        self.epoch = Some(copy.identity.epoch);
        self.recent.push_back((copy.sequence, last));
        if self.recent.len() > 5 {
            self.recent.pop_front();
        }
        self.log.push(copy.batch);
        Outcome::Appended
    }
}

#[derive(Clone, Debug)]
enum Action {
    Push,
    Send,
    /// The broker takes the next request of the live connection.
    Serve,
    /// … and refuses it for now.
    Refuse,
    /// … and refuses it for good.
    Reject,
    /// The client gets one of the answers.
    Answer(prop::sample::Index),
    Break,
    /// The broker takes a request of some connection that the client has given up.
    ServeLate(prop::sample::Index),
    /// The oldest batches are too old.
    Expire(u64),
    Recover,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        6 => Just(Action::Push),
        8 => Just(Action::Send),
        8 => Just(Action::Serve),
        2 => Just(Action::Refuse),
        1 => Just(Action::Reject),
        8 => any::<prop::sample::Index>().prop_map(Action::Answer),
        2 => Just(Action::Break),
        4 => any::<prop::sample::Index>().prop_map(Action::ServeLate),
        1 => (1..4u64).prop_map(Action::Expire),
        3 => Just(Action::Recover),
    ];
    prop::collection::vec(action, 0..200)
}

struct World {
    window: Window<u64>,
    broker: Broker,
    identity: Identity,
    next_batch: u64,
    live: VecDeque<Copy>,
    answers: Vec<(Ticket, Outcome)>,
    given_up: Vec<VecDeque<Copy>>,
    outstanding: Vec<Ticket>,
    verdicts: BTreeMap<u64, Verdict>,
}

impl World {
    fn new() -> Self {
        World {
            window: Window::new(5, true),
            broker: Broker::default(),
            identity: FIRST,
            next_batch: 0,
            live: VecDeque::new(),
            answers: Vec::new(),
            given_up: Vec::new(),
            outstanding: Vec::new(),
            verdicts: BTreeMap::new(),
        }
    }

    fn end(&mut self, ended: impl IntoIterator<Item = (u64, Verdict)>) {
        for (batch, verdict) in ended {
            assert_eq!(self.verdicts.insert(batch, verdict), None, "batch {batch} ended twice");
        }
    }

    fn send(&mut self) {
        let Some(outgoing) = self.window.take() else { return };
        let (identity, sequence) = outgoing.stamp.expect("idempotent");
        let batch = *outgoing.batch;
        let ticket = outgoing.ticket;
        let count = self.count(batch);
        self.outstanding.push(ticket);
        self.live.push_back(Copy { batch, ticket, identity, sequence, count });
    }

    fn count(&self, batch: u64) -> i32 {
        1 + (batch % 3) as i32
    }

    fn settle(&mut self, ticket: Ticket, outcome: Outcome) {
        self.outstanding.retain(|t| *t != ticket);
        let ended = self.window.settle(ticket, outcome);
        self.end(ended);
    }

    fn recover(&mut self) {
        if self.window.awaits_recovery().is_some() {
            self.identity.epoch += 1;
            let ended = self.window.recover(self.identity);
            self.end(ended);
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Push => {
                if self.window.room() > 0 {
                    let batch = self.next_batch;
                    self.next_batch += 1;
                    self.window.push(batch, self.count(batch), Some(self.identity));
                }
            }
            Action::Send => self.send(),
            Action::Serve | Action::Refuse | Action::Reject => {
                if let Some(copy) = self.live.pop_front() {
                    let outcome = match action {
                        Action::Refuse => Outcome::NotAppended,
                        Action::Reject => Outcome::Rejected,
                        _ => self.broker.append(&copy),
                    };
                    self.answers.push((copy.ticket, outcome));
                }
            }
            Action::Answer(which) => {
                if !self.answers.is_empty() {
                    let (ticket, outcome) = self.answers.remove(which.index(self.answers.len()));
                    self.settle(ticket, outcome);
                }
            }
            Action::Break => {
                self.answers.clear();
                self.given_up.push(std::mem::take(&mut self.live));
                for ticket in std::mem::take(&mut self.outstanding) {
                    self.settle(ticket, Outcome::Unknown);
                }
            }
            Action::ServeLate(which) => {
                if !self.given_up.is_empty() {
                    let at = which.index(self.given_up.len());
                    if let Some(copy) = self.given_up[at].pop_front() {
                        self.broker.append(&copy);
                    }
                }
            }
            Action::Expire(n) => {
                let due = self.next_batch.saturating_sub(5) + n;
                let ended = self.window.expire(|batch| *batch < due);
                self.end(ended);
            }
            Action::Recover => self.recover(),
        }
        self.check_window();
    }

    /// Sequences ascend without overlap (gaps are batches acknowledged out of turn), and at most five batches are
    /// on their way.
    fn check_window(&self) {
        let w = &self.window;
        assert!(w.entries.len() <= 5);
        if !w.broken {
            let starts = w.entries.iter().skip(1).map(|e| e.sequence).chain([w.next_sequence]);
            for (entry, next) in w.entries.iter().zip(starts) {
                assert!(entry.sequence + entry.count <= next, "{w:?}");
            }
        }
    }

    /// Faults stop: everything must end, and be where its verdict says.
    fn heal(mut self) {
        for _ in 0..200 {
            self.recover();
            while self.window.has_waiting() {
                self.send();
            }
            while let Some(copy) = self.live.pop_front() {
                let outcome = self.broker.append(&copy);
                self.answers.push((copy.ticket, outcome));
            }
            for (ticket, outcome) in std::mem::take(&mut self.answers) {
                self.settle(ticket, outcome);
            }
        }
        assert!(self.window.is_empty(), "something never ended: {:?}", self.window);
        for mut late in std::mem::take(&mut self.given_up) {
            while let Some(copy) = late.pop_front() {
                self.broker.append(&copy);
            }
        }
        let log = &self.broker.log;
        assert!(log.windows(2).all(|pair| pair[0] < pair[1]), "out of order, or twice: {log:?}");
        assert_eq!(self.verdicts.len() as u64, self.next_batch, "every batch has a verdict");
        for (batch, verdict) in &self.verdicts {
            let there = log.contains(batch);
            match verdict {
                Verdict::Appended => assert!(there, "batch {batch} was acknowledged and is not in {log:?}"),
                Verdict::Failed => assert!(!there, "batch {batch} was reported as failed and is in {log:?}"),
                Verdict::Indeterminate => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_on_the_way_the_log_holds_each_batch_once_in_order_and_verdicts_are_true(actions in actions()) {
        let mut world = World::new();
        for action in &actions {
            world.act(action);
        }
        world.heal();
    }
}

fn push(window: &mut Window<&'static str>, names: &[&'static str]) {
    for name in names {
        window.push(name, 1, Some(FIRST));
    }
}

fn take_all(window: &mut Window<&'static str>) -> Vec<(Ticket, i32)> {
    std::iter::from_fn(|| window.take().map(|out| (out.ticket, out.stamp.unwrap().1))).collect()
}

#[test]
fn a_refused_batch_waits_for_those_behind_it_and_all_go_again_with_their_sequences() {
    let mut window = Window::new(5, true);
    push(&mut window, &["a", "b", "c"]);
    let sent = take_all(&mut window);
    assert_eq!(sent.iter().map(|s| s.1).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(window.settle(sent[0].0, Outcome::NotAppended), None);
    assert!(!window.has_waiting(), "b and c are outstanding");
    window.settle(sent[1].0, Outcome::OutOfOrder);
    assert!(!window.has_waiting());
    window.settle(sent[2].0, Outcome::OutOfOrder);
    assert!(window.awaits_recovery().is_none(), "an echo is no gap");
    let again = take_all(&mut window);
    assert_eq!(again.iter().map(|s| s.1).collect::<Vec<_>>(), [0, 1, 2]);
    for (name, (ticket, _)) in ["a", "b", "c"].into_iter().zip(again) {
        assert_eq!(window.settle(ticket, Outcome::Appended), Some((name, Verdict::Appended)));
    }
}

#[test]
fn a_batch_refused_for_good_fails_and_those_behind_it_go_on_under_a_new_epoch() {
    let mut window = Window::new(5, true);
    push(&mut window, &["a", "b", "c"]);
    let sent = take_all(&mut window);
    assert_eq!(window.settle(sent[0].0, Outcome::Rejected), Some(("a", Verdict::Failed)));
    assert!(window.awaits_recovery().is_none(), "b and c are outstanding");
    assert_eq!(window.room(), 0);
    window.settle(sent[1].0, Outcome::OutOfOrder);
    window.settle(sent[2].0, Outcome::OutOfOrder);
    assert_eq!(window.awaits_recovery(), Some(FIRST));
    let next = Identity { epoch: 1, ..FIRST };
    assert_eq!(window.recover(next), []);
    let again: Vec<_> = std::iter::from_fn(|| window.take().map(|o| (*o.batch, o.stamp.unwrap()))).collect();
    assert_eq!(again, [("b", (next, 0)), ("c", (next, 1))]);
}

#[test]
fn the_sequence_of_a_last_batch_that_nobody_saw_is_used_again_without_a_new_epoch() {
    let mut window = Window::new(5, true);
    push(&mut window, &["a", "too large"]);
    let sent = take_all(&mut window);
    assert_eq!(window.settle(sent[1].0, Outcome::Rejected), Some(("too large", Verdict::Failed)));
    assert!(window.awaits_recovery().is_none());
    push(&mut window, &["c"]);
    assert_eq!(take_all(&mut window)[0].1, 1);
}

#[test]
fn after_an_unknown_outcome_a_batch_never_gets_another_sequence() {
    let mut window = Window::new(5, true);
    push(&mut window, &["a", "b"]);
    let sent = take_all(&mut window);
    window.settle(sent[0].0, Outcome::Unknown);
    window.settle(sent[1].0, Outcome::NotAppended);
    let again = take_all(&mut window);
    window.settle(again[0].0, Outcome::OutOfOrder);
    window.settle(again[1].0, Outcome::OutOfOrder);
    assert_eq!(window.recover(Identity { epoch: 1, ..FIRST }), [("a", Verdict::Indeterminate)]);
    assert_eq!(take_all(&mut window).len(), 1, "b goes on");
}

#[test]
fn a_batch_that_expires_unanswered_is_indeterminate_and_one_never_sent_has_failed() {
    let mut window = Window::new(5, true);
    push(&mut window, &["sent"]);
    let sent = take_all(&mut window);
    push(&mut window, &["waiting"]);
    let ended = window.expire(|_| true);
    assert_eq!(ended, [("sent", Verdict::Indeterminate), ("waiting", Verdict::Failed)]);
    assert_eq!(window.settle(sent[0].0, Outcome::Appended), None, "its user has been told");
    assert!(window.is_empty() && window.awaits_recovery().is_none());
    push(&mut window, &["next"]);
    assert_eq!(take_all(&mut window)[0].1, 1);
}

#[test]
fn a_window_keeps_its_epoch_until_it_is_empty() {
    let mut window = Window::new(5, true);
    push(&mut window, &["a"]);
    let bumped = Identity { epoch: 1, ..FIRST };
    assert_eq!(window.push("b", 1, Some(bumped)), Some((FIRST, 1)));
    for (ticket, _) in take_all(&mut window) {
        window.settle(ticket, Outcome::Appended);
    }
    assert_eq!(window.push("c", 1, Some(bumped)), Some((bumped, 0)));
}

#[test]
fn without_idempotence_an_unknown_outcome_is_final_and_a_refusal_is_retried() {
    let mut window: Window<&str> = Window::new(2, false);
    window.push("a", 1, None);
    window.push("b", 1, None);
    let a = window.take().unwrap().ticket;
    let out = window.take().unwrap();
    assert_eq!(out.stamp, None);
    let b = out.ticket;
    assert_eq!(window.settle(a, Outcome::Unknown), Some(("a", Verdict::Indeterminate)));
    assert_eq!(window.settle(b, Outcome::NotAppended), None);
    let b = window.take().unwrap().ticket;
    assert_eq!(window.settle(b, Outcome::Appended), Some(("b", Verdict::Appended)));
    assert!(window.awaits_recovery().is_none());
}

#[test]
fn an_answer_to_an_earlier_attempt_counts_for_nothing() {
    let mut window = Window::new(5, true);
    push(&mut window, &["a"]);
    let first = take_all(&mut window)[0].0;
    window.settle(first, Outcome::Unknown);
    let second = take_all(&mut window)[0].0;
    assert_eq!(window.settle(first, Outcome::Rejected), None);
    assert_eq!(window.settle(second, Outcome::Appended), Some(("a", Verdict::Appended)));
}

#[test]
fn a_topic_created_again_restarts_sequences_only_if_there_were_any() {
    let mut window: Window<&str> = Window::new(5, true);
    window.restart();
    assert!(window.awaits_recovery().is_none());
    push(&mut window, &["a"]);
    let sent = take_all(&mut window);
    window.settle(sent[0].0, Outcome::Appended);
    window.restart();
    assert_eq!(window.awaits_recovery(), Some(FIRST));
    window.recover(Identity { id: 10, epoch: 0 });
    window.push("b", 1, Some(Identity { id: 10, epoch: 0 }));
    assert_eq!(take_all(&mut window)[0].1, 0);
}

#[test]
fn sequences_wrap_to_zero() {
    let mut window = Window::new(5, true);
    push(&mut window, &["a"]);
    window.next_sequence = i32::MAX;
    window.push("b", 3, Some(FIRST));
    assert_eq!(window.next_sequence, 2);
}
