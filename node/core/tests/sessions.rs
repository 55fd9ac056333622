//! Who is taken for dead, when, and how a broker leaves in order.

mod common;

use common::{Cluster, id, tp};
use strandline_core::controller::{
    Beat, BeatVerdict, Controller, ControllerConfig, Effect, Membership, ProbeOutcome,
};
use strandline_metadata::{Command, Election};
use strandline_record::BrokerEpoch;

/// A controller on broker 1 that has heard of every broker at time 0; stream n belongs to broker n.
struct Led {
    cluster: Cluster,
    controller: Controller,
    membership: Membership,
}

fn config() -> ControllerConfig {
    ControllerConfig::default()
}

fn beat_of(cluster: &Cluster, broker: u64) -> Beat {
    Beat {
        id: id(broker),
        epoch: cluster.epoch(broker),
        metadata_index: cluster.image.index,
        wants_unfenced: true,
        shutting_down: false,
    }
}

fn new_controller(cluster: Cluster) -> Led {
    let voters = cluster.image.brokers.keys().copied().collect();
    let controller = Controller::new(id(1), config(), &cluster.image, 0);
    Led { cluster, controller, membership: Membership { voters, ..Membership::default() } }
}

fn led() -> Led {
    let mut cluster = Cluster::of(3);
    cluster.topic(&[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]], &[]);
    let mut led = new_controller(cluster);
    for broker in 1..=3 {
        led.controller.stream_opened(id(broker), broker);
        assert!(led.beat(broker, 0).is_empty());
    }
    led
}

impl Led {
    fn beat(&mut self, broker: u64, now_ms: u64) -> Vec<Effect> {
        let beat = beat_of(&self.cluster, broker);
        self.controller.beat(&beat, &self.cluster.image, now_ms).1
    }

    fn tick(&mut self, now_ms: u64) -> Vec<Effect> {
        self.controller.tick(&self.cluster.image, &self.membership, now_ms)
    }

    fn close(&mut self, broker: u64, stream: u64, now_ms: u64) -> Vec<Effect> {
        self.controller.stream_closed(id(broker), stream, &self.cluster.image, now_ms)
    }

    fn probed(&mut self, broker: u64, outcome: ProbeOutcome, now_ms: u64) -> Vec<Effect> {
        self.controller.probed(id(broker), outcome, &self.cluster.image, now_ms)
    }

    /// Everything proposed is agreed on, and the controller sees the image.
    fn agree(&mut self, effects: Vec<Effect>, now_ms: u64) -> Vec<Effect> {
        let mut more = vec![];
        for effect in effects {
            if let Effect::Propose(command) = effect {
                let (_, delta) = self.cluster.apply(command);
                more.extend(self.controller.image(&self.cluster.image, &delta, now_ms));
            }
        }
        more
    }
}

fn fence(led: &Led, broker: u64) -> Vec<Effect> {
    vec![Effect::Propose(Command::FenceBroker { id: id(broker), epoch: led.cluster.epoch(broker) })]
}

fn probe(broker: u64) -> Vec<Effect> {
    vec![Effect::Probe { id: id(broker), endpoint: format!("node{broker}:7170").into() }]
}

const ALIVE_NOT_REGISTERED: ProbeOutcome = ProbeOutcome::Alive { epoch: None };

#[test]
fn a_closed_stream_is_probed_at_once_and_two_failures_fence() {
    for failure in [ProbeOutcome::Refused, ProbeOutcome::Unreachable] {
        let mut led = led();
        assert_eq!(led.close(2, 2, 100), probe(2));
        assert_eq!(led.probed(2, failure, 110), probe(2), "again, at once");
        assert_eq!(led.probed(2, failure, 120), fence(&led, 2));
    }
}

#[test]
fn a_probe_that_finds_another_incarnation_fences_the_old_one() {
    let mut led = led();
    let _ = led.close(2, 2, 100);
    assert_eq!(led.probed(2, ALIVE_NOT_REGISTERED, 110), fence(&led, 2));
}

#[test]
fn a_live_broker_with_a_closed_stream_is_probed_again_until_it_is_back() {
    let mut led = led();
    let alive = ProbeOutcome::Alive { epoch: Some(led.cluster.epoch(2)) };
    let _ = led.close(2, 2, 100);
    assert!(led.probed(2, alive, 110).is_empty());
    assert!(led.tick(110 + config().probe_interval_ms - 1).is_empty());
    assert_eq!(led.tick(110 + config().probe_interval_ms), probe(2));
    assert_eq!(led.probed(2, ProbeOutcome::Refused, 370), probe(2));
    assert!(led.probed(2, alive, 380).is_empty(), "one failure is not two in a row");
    led.controller.stream_opened(id(2), 22);
    assert!(led.beat(2, 400).is_empty());
    assert!(led.tick(1_000).is_empty());
    assert!(led.probed(2, ProbeOutcome::Refused, 1_010).is_empty(), "an old probe's answer");
}

#[test]
fn the_end_of_a_stream_that_has_been_replaced_means_nothing() {
    let mut led = led();
    led.controller.stream_opened(id(2), 22);
    assert!(led.close(2, 2, 100).is_empty());
    assert_eq!(led.close(2, 22, 100), probe(2));
}

#[test]
fn silence_for_the_session_timeout_fences_once_until_it_is_worth_a_retry() {
    let mut led = led();
    let timeout = config().session_timeout_ms;
    for broker in [1, 3] {
        let _ = led.beat(broker, timeout - 1);
    }
    assert!(led.tick(timeout - 1).is_empty());
    assert_eq!(led.tick(timeout), fence(&led, 2));
    assert!(led.tick(timeout + 10).is_empty(), "proposed already");
    assert_eq!(led.tick(timeout + config().retry_ms), fence(&led, 2), "nothing came of it");
    let again = fence(&led, 2);
    let _ = led.agree(again, timeout + 1_500);
    assert!(led.tick(timeout + 1_900).is_empty());
}

#[test]
fn a_new_controller_gives_a_full_session_but_believes_a_refused_connection() {
    let timeout = config().session_timeout_ms;
    let mut led = new_controller(led().cluster);
    let probes = led.tick(config().first_probe_after_ms);
    assert_eq!(probes, [probe(1), probe(2), probe(3)].concat());
    for at in [200, 500, 800] {
        assert!(led.probed(2, ProbeOutcome::Unreachable, at).is_empty(), "says nothing yet");
    }
    let _ = (led.beat(1, 900), led.beat(3, 900));
    assert_eq!(led.probed(2, ProbeOutcome::Refused, 900), probe(2));
    assert_eq!(led.probed(2, ProbeOutcome::Refused, 901), fence(&led, 2));

    let mut led = new_controller(led.cluster);
    let quiet = led.tick(timeout - 1);
    assert!(quiet.iter().all(|effect| matches!(effect, Effect::Probe { .. })), "{quiet:?}");
    assert_eq!(led.tick(timeout), [fence(&led, 1), fence(&led, 2), fence(&led, 3)].concat());
}

#[test]
fn a_broker_is_unfenced_once_its_image_holds_its_registration() {
    let mut led = led();
    let epoch = led.cluster.register(2, None);
    let beat = Beat { metadata_index: epoch.get() - 1, ..beat_of(&led.cluster, 2) };
    let (reply, effects) = led.controller.beat(&beat, &led.cluster.image, 10);
    assert_eq!((reply.verdict, effects), (BeatVerdict::Accepted, vec![]));
    let beat = Beat { metadata_index: epoch.get(), ..beat };
    let (_, effects) = led.controller.beat(&beat, &led.cluster.image, 20);
    assert_eq!(effects, [Effect::Propose(Command::UnfenceBroker { id: id(2), epoch })]);
    let (_, effects) = led.controller.beat(&beat, &led.cluster.image, 30);
    assert_eq!(effects, [], "proposed already");
}

#[test]
fn beats_of_other_registrations_are_told_apart() {
    let mut led = led();
    let old = beat_of(&led.cluster, 2);
    led.cluster.register(2, None);
    let verdict = |led: &mut Led, beat: Beat| led.controller.beat(&beat, &led.cluster.image, 10).0.verdict;
    assert_eq!(verdict(&mut led, old), BeatVerdict::Stale);
    let newer = BrokerEpoch(led.cluster.image.index + 1);
    let coming = Beat { epoch: newer, ..old };
    assert_eq!(verdict(&mut led, coming), BeatVerdict::NotYet);
    let stranger = Beat { id: id(9), epoch: BrokerEpoch(3), ..old };
    assert_eq!(verdict(&mut led, stranger), BeatVerdict::Stale);
}

#[test]
fn a_broker_that_shuts_down_hands_over_leadership_and_is_fenced_before_it_may_go() {
    let mut led = led();
    let beat = Beat { shutting_down: true, wants_unfenced: false, ..beat_of(&led.cluster, 1) };
    let (reply, effects) = led.controller.beat(&beat, &led.cluster.image, 10);
    assert!(!reply.may_shut_down);
    let hand_over = Command::ElectLeader { tp: tp(0), kind: Election::To(id(2)) };
    assert_eq!(effects, [Effect::Propose(hand_over)]);
    let effects = led.agree(effects, 20);
    assert_eq!(led.cluster.partition(0).leader, Some(id(2)));
    assert_eq!(effects, fence(&led, 1));
    let _ = led.agree(effects, 30);
    let (reply, effects) = led.controller.beat(&beat, &led.cluster.image, 40);
    assert!(reply.may_shut_down);
    assert_eq!(effects, []);
}

#[test]
fn what_nobody_else_can_lead_does_not_hold_up_a_shutdown() {
    let mut led = led();
    for broker in [2, 3] {
        led.cluster.fence(broker);
    }
    let beat = Beat { shutting_down: true, ..beat_of(&led.cluster, 1) };
    let (_, effects) = led.controller.beat(&beat, &led.cluster.image, 10);
    assert_eq!(effects, fence(&led, 1));
}

#[test]
fn two_brokers_that_shut_down_do_not_hand_over_to_each_other() {
    let mut led = led();
    let leaving = |led: &Led, broker| Beat { shutting_down: true, ..beat_of(&led.cluster, broker) };
    let second = leaving(&led, 2);
    let _ = led.controller.beat(&second, &led.cluster.image, 10);
    let first = leaving(&led, 1);
    let (_, effects) = led.controller.beat(&first, &led.cluster.image, 20);
    let hand_over = Command::ElectLeader { tp: tp(0), kind: Election::To(id(3)) };
    assert_eq!(effects, [Effect::Propose(hand_over)]);
}
