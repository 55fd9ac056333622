//! Count, sum, least and greatest amount of some processed events, and the lengths of time that they are kept for.

use super::super::normalise::{Amount, Event};

/// What some events add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// How many.
    pub count: u64,
    /// Exact.
    pub sum: Amount,
    /// Least amount; `None` of no events.
    pub min: Option<Amount>,
    /// Greatest amount; `None` of no events.
    pub max: Option<Amount>,
}

impl Default for Bucket {
    fn default() -> Self {
        Bucket { count: 0, sum: Amount::zero(), min: None, max: None }
    }
}

impl Bucket {
    /// Of one event.
    pub(super) fn one(amount: &Amount) -> Self {
        Bucket { count: 1, sum: amount.clone(), min: Some(amount.clone()), max: Some(amount.clone()) }
    }

    /// Both together. The order in which buckets are merged does not matter.
    pub(super) fn merge(&mut self, other: &Bucket) {
        self.count += other.count;
        self.sum.add(&other.sum);
        if let Some(least) = &other.min
            && self.min.as_ref().is_none_or(|min| least < min)
        {
            self.min = Some(least.clone());
        }
        if let Some(greatest) = &other.max
            && self.max.as_ref().is_none_or(|max| greatest > max)
        {
            self.max = Some(greatest.clone());
        }
    }
}

/// A length of time for which buckets are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Minute,
    Hour,
    Day,
    /// 32 days: a year is eleven or twelve of them.
    Month,
    /// All of time: one bucket.
    Forever,
}

impl Level {
    /// From the shortest.
    pub(super) const ALL: [Level; 5] = [Level::Minute, Level::Hour, Level::Day, Level::Month, Level::Forever];

    /// Milliseconds; `None` for all of time.
    pub(super) fn length_ms(self) -> Option<i64> {
        match self {
            Level::Minute => Some(60_000),
            Level::Hour => Some(3_600_000),
            Level::Day => Some(86_400_000),
            Level::Month => Some(32 * 86_400_000),
            Level::Forever => None,
        }
    }

    /// First millisecond of the bucket in which `time_ms` lies.
    pub(super) fn start_of(self, time_ms: i64) -> i64 {
        self.length_ms().map_or(0, |length| time_ms.div_euclid(length) * length)
    }

    /// As it is stored.
    pub(super) fn number(self) -> i16 {
        self as i16
    }
}

/// Which bucket: level, first millisecond, client, metric. Ordered, so that transactions lock alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BucketKey {
    pub(super) level: Level,
    pub(super) start_ms: i64,
    pub(super) client: String,
    pub(super) metric: String,
}

impl BucketKey {
    /// The bucket of this level in which an event counts.
    pub(super) fn of(event: &Event, level: Level) -> Self {
        BucketKey {
            level,
            start_ms: level.start_of(event.time_ms),
            client: event.client.clone(),
            metric: event.metric.clone(),
        }
    }
}
