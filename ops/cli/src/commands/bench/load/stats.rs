//! What became of requests, counted. Pure: times come with each call.
//!
//! A request is *acknowledged* (its records are durable as `acks` asks), *refused* (429, or its equivalent: nothing was
//! done) or *failed* (anything else). Each is counted once, in the second in which its answer came. The latency of an
//! acknowledged or refused request runs from when it was due; how late it was started is its *send lag*.

use super::super::report::Times;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Kinds of errors that are told apart; what comes beyond counts as one more.
const MOST_KINDS: usize = 32;
const OTHERS: &str = "other errors";
/// Seconds of a `Retry-After` that are told apart.
const MOST_WAIT: u64 = 3600;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Acknowledged,
    /// Nothing was done; when to come again, if that was said.
    Refused(Option<Duration>),
    /// A short name of the error, the same for the same error.
    Failed(String),
}

/// Counts of some span of time.
#[derive(Clone, Debug)]
pub struct Window {
    pub acknowledged: u64,
    pub refused: u64,
    pub failed: u64,
    /// Of acknowledged requests, from when they were due.
    pub latency: Times,
    /// Of refused requests, from when they were due.
    pub refused_latency: Times,
    /// Of refused requests, from when they were sent: how fast the other side says no.
    pub refused_service: Times,
    /// Between the time a request was due and the time it was started, of all requests.
    pub lag: Times,
    pub errors: BTreeMap<String, u64>,
    /// Seconds that `Retry-After` named, and how often.
    pub retry_after: BTreeMap<u64, u64>,
}

impl Window {
    pub fn new() -> Window {
        Window {
            acknowledged: 0,
            refused: 0,
            failed: 0,
            latency: Times::new(),
            refused_latency: Times::new(),
            refused_service: Times::new(),
            lag: Times::new(),
            errors: BTreeMap::new(),
            retry_after: BTreeMap::new(),
        }
    }

    /// Counts a request by when it was due, started and answered.
    pub fn record(&mut self, due: Duration, started: Duration, answered: Duration, answer: Answer) {
        self.lag.record(started.saturating_sub(due));
        let latency = answered.saturating_sub(due);
        match answer {
            Answer::Acknowledged => {
                self.acknowledged += 1;
                self.latency.record(latency);
            }
            Answer::Refused(retry_after) => {
                self.refused += 1;
                self.refused_latency.record(latency);
                self.refused_service.record(answered.saturating_sub(started));
                if let Some(wait) = retry_after {
                    *self.retry_after.entry(wait.as_secs().min(MOST_WAIT)).or_default() += 1;
                }
            }
            Answer::Failed(kind) => {
                self.failed += 1;
                self.count_error(kind, 1);
            }
        }
    }

    fn count_error(&mut self, kind: String, times: u64) {
        let known = self.errors.contains_key(&kind) || self.errors.len() < MOST_KINDS;
        *self.errors.entry(if known { kind } else { OTHERS.to_owned() }).or_default() += times;
    }

    pub fn merge(&mut self, other: &Window) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.failed += other.failed;
        self.latency.merge(&other.latency);
        self.refused_latency.merge(&other.refused_latency);
        self.refused_service.merge(&other.refused_service);
        self.lag.merge(&other.lag);
        for (kind, times) in &other.errors {
            self.count_error(kind.clone(), *times);
        }
        for (seconds, times) in &other.retry_after {
            *self.retry_after.entry(*seconds).or_default() += times;
        }
    }

    /// Empty again, with its memory.
    pub fn clear(&mut self) {
        (self.acknowledged, self.refused, self.failed) = (0, 0, 0);
        self.latency.clear();
        self.refused_latency.clear();
        self.refused_service.clear();
        self.lag.clear();
        self.errors.clear();
        self.retry_after.clear();
    }
}

/// What a distribution of times comes down to, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub samples: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Summary {
    /// `None` of no samples.
    pub fn of(times: &Times) -> Option<Summary> {
        (times.count() > 0).then(|| Summary {
            samples: times.count(),
            mean: times.mean_ms(),
            p50: times.at_ms(0.5),
            p90: times.at_ms(0.9),
            p95: times.at_ms(0.95),
            p99: times.at_ms(0.99),
            p999: times.at_ms(0.999),
            max: times.max_ms(),
        })
    }
}

/// Points for each tenfold of rarity in a distribution.
const POINTS_PER_DECADE: u32 = 8;

/// A distribution as `(share of all, milliseconds)`, denser towards the rare and slow: 0, 0.25, … 0.9, … 0.99, … up to
/// the slowest of all (1).
pub fn distribution(times: &Times) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    if times.count() == 0 {
        return points;
    }
    for step in 0.. {
        let rarity = 10_f64.powf(f64::from(step) / f64::from(POINTS_PER_DECADE));
        if rarity >= times.count() as f64 {
            break;
        }
        let share = 1.0 - 1.0 / rarity;
        points.push((share, times.at_ms(share)));
    }
    points.push((1.0, times.max_ms()));
    points
}

/// One second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// Its end, in seconds since measuring began.
    pub t: f64,
    /// Requests a second that were due; absent in a closed loop.
    pub asked: Option<f64>,
    /// Requests a second that were acknowledged, refused and failed.
    pub acknowledged: f64,
    pub refused: f64,
    pub failed: f64,
    /// Requests under way at its end.
    pub in_flight: u64,
    /// Latency of what was acknowledged in this second, in milliseconds; absent where nothing was.
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub max_ms: Option<f64>,
    /// Latency of refusals, from when they were sent.
    pub refused_p99_ms: Option<f64>,
    pub lag_p99_ms: Option<f64>,
    /// Cores that this process kept busy, and the watched nodes.
    pub client_cores: f64,
    pub cluster_cores: Option<f64>,
    /// Resident memory of the watched nodes.
    pub cluster_memory_bytes: Option<u64>,
}

impl Point {
    /// Of a window of `seconds` that ended at `t`, in which `due` requests were due.
    pub fn of(window: &Window, t: f64, seconds: f64, due: Option<u64>, in_flight: u64) -> Point {
        let rate = |count: u64| count as f64 / seconds;
        let at = |times: &Times, quantile: f64| (times.count() > 0).then(|| times.at_ms(quantile));
        Point {
            t,
            asked: due.map(rate),
            acknowledged: rate(window.acknowledged),
            refused: rate(window.refused),
            failed: rate(window.failed),
            in_flight,
            p50_ms: at(&window.latency, 0.5),
            p95_ms: at(&window.latency, 0.95),
            p99_ms: at(&window.latency, 0.99),
            max_ms: (window.latency.count() > 0).then(|| window.latency.max_ms()),
            refused_p99_ms: at(&window.refused_service, 0.99),
            lag_p99_ms: at(&window.lag, 0.99),
            ..Point::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn latency_runs_from_when_a_request_was_due_and_each_is_counted_once() {
        let mut window = Window::new();
        window.record(ms(100), ms(400), ms(450), Answer::Acknowledged);
        window.record(ms(100), ms(100), ms(102), Answer::Refused(Some(ms(1000))));
        window.record(ms(100), ms(150), ms(160), Answer::Failed("HTTP 503".into()));
        assert_eq!((window.acknowledged, window.refused, window.failed), (1, 1, 1));
        let close = |found: f64, wanted: f64| assert!((found - wanted).abs() <= wanted / 500.0, "{found}");
        close(window.latency.max_ms(), 350.0);
        close(window.lag.max_ms(), 300.0);
        close(window.refused_latency.max_ms(), 2.0);
        assert_eq!((window.lag.count(), window.latency.count()), (3, 1));
        assert_eq!(window.retry_after, BTreeMap::from([(1, 1)]));
        assert_eq!(window.errors, BTreeMap::from([("HTTP 503".to_owned(), 1)]));
    }

    #[test]
    fn windows_add_up_and_are_empty_after_clearing() {
        let (mut all, mut second) = (Window::new(), Window::new());
        for n in 0..100 {
            second.record(ms(0), ms(0), ms(n), Answer::Acknowledged);
            second.record(ms(0), ms(n), ms(n), Answer::Refused(Some(ms(2000))));
        }
        all.merge(&second);
        all.merge(&second);
        assert_eq!(
            (all.acknowledged, all.refused, all.latency.count(), all.lag.count()),
            (200, 200, 200, 400)
        );
        assert_eq!(all.retry_after, BTreeMap::from([(2, 200)]));
        second.clear();
        assert_eq!((second.acknowledged, second.latency.count(), second.lag.count()), (0, 0, 0));
        all.merge(&second);
        assert_eq!(all.acknowledged, 200);
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let mut window = Window::new();
        for n in 0..1000 {
            window.record(ms(0), ms(0), ms(1), Answer::Failed(format!("error {n}")));
        }
        assert_eq!(window.errors.len(), MOST_KINDS + 1);
        assert_eq!(window.errors.values().sum::<u64>(), 1000);
    }

    #[test]
    fn a_distribution_rises_to_the_slowest_and_a_point_has_rates() {
        let mut window = Window::new();
        (1..=10_000).for_each(|n| window.record(ms(0), ms(0), ms(n), Answer::Acknowledged));
        let points = distribution(&window.latency);
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        assert_eq!(points.last().unwrap().0, 1.0);
        let summary = Summary::of(&window.latency).unwrap();
        assert!((summary.p99 - 9900.0).abs() < 20.0 && (summary.mean - 5000.5).abs() < 20.0, "{summary:?}");
        assert_eq!(Summary::of(&window.refused_latency), None);
        assert!(distribution(&window.refused_latency).is_empty());
        let point = Point::of(&window, 3.0, 0.5, Some(6000), 7);
        assert_eq!((point.asked, point.acknowledged, point.in_flight), (Some(12_000.0), 20_000.0, 7));
        assert_eq!((point.refused_p99_ms, point.p50_ms.is_some()), (None, true));
    }
}
