//! On Tokio's paused clock: time passes only while all wait, so that every figure is exact.

use super::super::pace::Rate;
use super::*;

/// Answers after `takes`, a request that begins during the stall only when that is over.
#[derive(Clone)]
struct Fake {
    begun: Instant,
    takes: Duration,
    stall: std::ops::Range<u64>,
    sent: Arc<Mutex<Vec<u64>>>,
    answer: Answer,
}

impl Fake {
    fn new(takes: u64) -> Fake {
        let (begun, takes) = (Instant::now(), Duration::from_millis(takes));
        Fake { begun, takes, stall: 0..0, sent: Arc::default(), answer: Answer::Acknowledged }
    }
}

impl Slot for Fake {
    async fn send(&mut self, n: u64) -> Answer {
        self.sent.lock().unwrap().push(n);
        let now = self.begun.elapsed().as_millis() as u64;
        if self.stall.contains(&now) {
            sleep_until(self.begun + Duration::from_millis(self.stall.end)).await;
        }
        tokio::time::sleep(self.takes).await;
        self.answer.clone()
    }
}

fn plan(rate: Rate, warmup: u64, end: u64) -> Plan {
    Plan {
        schedule: Schedule { rate, end: Duration::from_secs(end) },
        warmup: Duration::from_secs(warmup),
        timeout: Duration::from_secs(15),
    }
}

async fn go(plan: Plan, slots: usize, fake: Fake) -> (Measured, Vec<Point>) {
    let mut seconds = Vec::new();
    let mut signals = Signals::listen().unwrap();
    let watched = CpuArgs::default();
    let (measured, idle) =
        run(plan, vec![fake; slots], &watched, &mut signals, |point, _| seconds.push(point.clone()))
            .await
            .unwrap();
    assert_eq!(idle.len(), slots, "slots are given back");
    (measured, seconds)
}

fn close(found: f64, wanted: f64) {
    assert!((found - wanted).abs() <= 2.0 + wanted / 100.0, "{found}, not {wanted}");
}

#[tokio::test(start_paused = true)]
async fn every_request_is_sent_once_at_its_time() {
    let fake = Fake::new(5);
    let (measured, seconds) = go(plan(Rate::PerSecond(100.0), 0, 3), 4, fake.clone()).await;
    let mut sent = fake.sent.lock().unwrap().clone();
    sent.sort_unstable();
    assert_eq!(sent, (0..300).collect::<Vec<_>>());
    assert_eq!((measured.total.acknowledged, measured.due, measured.started), (300, Some(300), 300));
    close(measured.total.latency.max_ms(), 6.0);
    close(measured.total.lag.max_ms(), 1.0);
    assert_eq!(measured.points.len(), 3);
    seconds.iter().for_each(|point| close(point.acknowledged, 100.0));
    close(measured.elapsed.as_millis() as f64, 3000.0);
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_in_the_latency_of_every_request_that_it_delayed() {
    // 1 s without an answer, one slot: the 100 requests that were due meanwhile waited from 1 s down to nothing.
    let fake = Fake { stall: 1000..2000, ..Fake::new(1) };
    let (measured, _) = go(plan(Rate::PerSecond(100.0), 0, 5), 1, fake).await;
    assert_eq!((measured.total.acknowledged, measured.due), (500, Some(500)));
    close(measured.total.latency.max_ms(), 1001.0);
    // A closed loop would have one slow request among five hundred; here a fifth of all are slow.
    assert!(measured.total.latency.at_ms(0.9) > 450.0, "{}", measured.total.latency.at_ms(0.9));
    close(measured.total.lag.max_ms(), 990.0);
}

#[tokio::test(start_paused = true)]
async fn what_too_few_slots_do_not_reach_is_said() {
    // Two slots of 10 ms are 200 requests a second; 1000 were due.
    let (measured, _) = go(plan(Rate::PerSecond(500.0), 0, 2), 2, Fake::new(10)).await;
    assert_eq!(measured.due, Some(1000));
    close(measured.started as f64, 400.0);
    assert_eq!(measured.total.acknowledged, measured.started);
    assert!(measured.total.lag.max_ms() > 1000.0, "{}", measured.total.lag.max_ms());
}

#[tokio::test(start_paused = true)]
async fn the_warm_up_is_sent_and_not_counted() {
    let fake = Fake::new(1);
    let (measured, seconds) = go(plan(Rate::PerSecond(100.0), 2, 5), 2, fake.clone()).await;
    assert_eq!(fake.sent.lock().unwrap().len(), 500);
    assert_eq!((measured.total.acknowledged, measured.due, measured.started), (300, Some(300), 300));
    assert_eq!(measured.warmup_acknowledged, 200);
    assert_eq!((seconds.len(), measured.points.len()), (5, 3));
    close(measured.elapsed.as_millis() as f64, 3000.0);
}

#[tokio::test(start_paused = true)]
async fn what_too_slow_a_warm_up_left_over_is_not_measured() {
    // Two slots of 10 ms are 200 requests a second; 500 are due.
    let fake = Fake::new(10);
    let (measured, _) = go(plan(Rate::PerSecond(500.0), 2, 3), 2, fake.clone()).await;
    assert_eq!(measured.due, Some(500));
    close(measured.started as f64, 200.0);
    assert!(measured.total.latency.max_ms() < 700.0, "{}", measured.total.latency.max_ms());
    let sent = fake.sent.lock().unwrap().clone();
    let different: std::collections::BTreeSet<_> = sent.iter().collect();
    assert_eq!(different.len(), sent.len(), "each once");
    assert!(sent.iter().any(|n| (380..=420).contains(n)) && !sent.iter().any(|n| (500..1000).contains(n)));
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_keeps_every_slot_busy() {
    let (measured, _) = go(plan(Rate::Max, 0, 2), 3, Fake::new(10)).await;
    close(measured.total.acknowledged as f64, 600.0);
    assert_eq!((measured.due, measured.total.lag.max_ms() < 0.1), (None, true));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_never_answered_is_counted_as_that() {
    let refused = Fake { answer: Answer::Refused(Some(Duration::from_secs(1))), ..Fake::new(1) };
    let (measured, _) = go(plan(Rate::PerSecond(10.0), 0, 2), 2, refused).await;
    assert_eq!((measured.total.refused, measured.total.retry_after[&1]), (20, 20));
    let (measured, _) = go(plan(Rate::PerSecond(1.0), 0, 3), 8, Fake::new(60_000)).await;
    assert_eq!((measured.total.failed, measured.total.errors["no answer in time"]), (3, 3));
    close(measured.elapsed.as_millis() as f64, 17_000.0);
}
