//! When requests are due. Pure: times are counted from the start of the run.
//!
//! In an open loop the n-th request is due at `n / rate`, whatever became of those before it. A system that stalls
//! therefore sees its requests pile up, and each of them counts the time from when it was due: the stall is in the
//! latencies of all requests that it delayed, not only of the few that were under way (coordinated omission).

use std::str::FromStr;
use std::time::Duration;

/// What `--rate` says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Requests a second, in an open loop.
    PerSecond(f64),
    /// A request follows as soon as the one before it is answered: a closed loop.
    Max,
}

/// More than a thread can send, and far from where the schedule's arithmetic loses a microsecond.
const MOST: f64 = 10_000_000.0;

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        if text == "max" {
            return Ok(Rate::Max);
        }
        let (number, factor) = match text.strip_suffix('k') {
            Some(thousands) => (thousands, 1000.0),
            None => (text, 1.0),
        };
        match number.parse::<f64>().map(|number| number * factor) {
            Ok(rate) if rate > 0.0 && rate <= MOST => Ok(Rate::PerSecond(rate)),
            _ => Err(format!("`{text}` is no rate: give requests a second such as 500 or 20k, or max")),
        }
    }
}

/// The requests of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    pub rate: Rate,
    /// From the start; no request is due, or started, at or after it.
    pub end: Duration,
}

impl Schedule {
    /// When request `n`, counted from 0, is due. `None`: there is no such request. In a closed loop each is due `now`.
    pub fn due(&self, n: u64, now: Duration) -> Option<Duration> {
        let due = match self.rate {
            Rate::PerSecond(rate) => Duration::from_secs_f64(n as f64 / rate),
            Rate::Max => now,
        };
        (due < self.end).then_some(due)
    }

    /// The first request that is due at or after a time, or at the end; 0 in a closed loop.
    pub fn first_at(&self, time: Duration) -> u64 {
        let Rate::PerSecond(rate) = self.rate else { return 0 };
        let time = time.min(self.end);
        let guess = (time.as_secs_f64() * rate) as u64;
        let due = |n: &u64| Duration::from_secs_f64(*n as f64 / rate) >= time;
        (guess.saturating_sub(1)..).find(due).unwrap_or(guess)
    }

    /// How many requests are due from `from` up to and without `to`; `None` in a closed loop.
    pub fn count(&self, from: Duration, to: Duration) -> Option<u64> {
        let open = self.rate != Rate::Max;
        open.then(|| self.first_at(to).saturating_sub(self.first_at(from)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(rate: f64, seconds: u64) -> Schedule {
        Schedule { rate: Rate::PerSecond(rate), end: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_nth_request_is_due_whatever_the_time_is() {
        let schedule = open(1000.0, 2);
        for now in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(50)] {
            assert_eq!(schedule.due(0, now), Some(Duration::ZERO));
            assert_eq!(schedule.due(1500, now), Some(Duration::from_millis(1500)));
            assert_eq!(schedule.due(2000, now), None);
        }
    }

    #[test]
    fn a_closed_loop_is_due_now_until_the_end() {
        let schedule = Schedule { rate: Rate::Max, end: Duration::from_secs(1) };
        assert_eq!(schedule.due(7, Duration::from_millis(999)), Some(Duration::from_millis(999)));
        assert_eq!(schedule.due(7, Duration::from_secs(1)), None);
        assert_eq!(schedule.count(Duration::ZERO, schedule.end), None);
    }

    #[test]
    fn rates_are_numbers_thousands_or_max() {
        assert_eq!("20k".parse(), Ok(Rate::PerSecond(20_000.0)));
        assert_eq!("0.5".parse(), Ok(Rate::PerSecond(0.5)));
        assert_eq!("max".parse(), Ok(Rate::Max));
        for wrong in ["", "0", "-1", "NaN", "inf", "fast", "20000000"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_count_is_that_of_the_requests_that_are_due(
            rate in 0.1_f64..5000.0, seconds in 1_u64..4, from in 0_u64..4000, more in 0_u64..4000,
        ) {
            let schedule = open(rate, seconds);
            let (from, to) = (Duration::from_millis(from), Duration::from_millis(from + more));
            let due = (0..).map_while(|n| schedule.due(n, Duration::ZERO));
            let counted = due.filter(|due| *due >= from && *due < to).count() as u64;
            prop_assert_eq!(schedule.count(from, to), Some(counted));
        }
    }
}
