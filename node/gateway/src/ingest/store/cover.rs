//! Which buckets and which rows make up a range of time.
//!
//! ```text
//!  from ··rows··|minutes|··hours··|····days····|······months······|··days··|hours|minutes|·rows·· to
//! ```
//!
//! At most nine segments, each one range of an index: what is read grows with the number of buckets, not of events;
//! rows are read for less than a minute at either end.

use super::bucket::Level;
use std::ops::Range;

/// Longest bucket of limited length.
const MONTH_MS: i64 = 32 * 86_400_000;

/// The times that an event can have (the years 1 to 9999) with room to spare, in milliseconds; whole months, so that
/// an open end needs no smaller buckets.
const ALL_TIME: Range<i64> = -22_500 * MONTH_MS..91_700 * MONTH_MS;

/// Part of a range: the buckets of one level that begin in `time`, or the rows that lie in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// `None`: rows.
    pub(super) level: Option<Level>,
    pub(super) time: Range<i64>,
}

/// Segments that together are exactly `from` (inclusive) to `to` (exclusive), none overlapping another.
pub(super) fn cover(from: Option<i64>, to: Option<i64>) -> Vec<Segment> {
    if from.is_none() && to.is_none() {
        return vec![Segment { level: Some(Level::Forever), time: 0..1 }];
    }
    let from = from.map_or(ALL_TIME.start, |from| from.clamp(ALL_TIME.start, ALL_TIME.end));
    let to = to.map_or(ALL_TIME.end, |to| to.clamp(ALL_TIME.start, ALL_TIME.end));
    let mut segments = Vec::new();
    split(from..to, &[Level::Month, Level::Day, Level::Hour, Level::Minute], &mut segments);
    segments
}

fn split(time: Range<i64>, levels: &[Level], segments: &mut Vec<Segment>) {
    if time.is_empty() {
        return;
    }
    let Some((level, shorter)) = levels.split_first() else {
        segments.push(Segment { level: None, time });
        return;
    };
    let first = level.start_of(time.start + level.length_ms().unwrap_or(1) - 1);
    let last = level.start_of(time.end);
    if first >= last {
        return split(time, shorter, segments);
    }
    split(time.start..first, shorter, segments);
    segments.push(Segment { level: Some(*level), time: first..last });
    split(last..time.end, shorter, segments);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_question_about_all_of_time_is_one_bucket() {
        assert_eq!(cover(None, None), [Segment { level: Some(Level::Forever), time: 0..1 }]);
    }

    #[test]
    fn a_day_is_one_bucket_and_a_moment_is_rows() {
        let day = 86_400_000;
        assert_eq!(
            cover(Some(3 * day), Some(4 * day)),
            [Segment { level: Some(Level::Day), time: 3 * day..4 * day }]
        );
        assert_eq!(cover(Some(5), Some(6)), [Segment { level: None, time: 5..6 }]);
        assert_eq!(cover(Some(6), Some(5)), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn segments_are_the_range_whole_and_once(
            from in proptest::option::of(-100_000_000_000i64..4_000_000_000_000),
            length in prop_oneof![0i64..200_000, 0i64..100_000_000, 0i64..100_000_000_000],
            open in any::<bool>(),
        ) {
            let to = (!open || from.is_none()).then_some(from.unwrap_or(0) + length);
            let segments = cover(from, to);
            let mut at = from.unwrap_or(ALL_TIME.start);
            let mut rows = 0;
            for segment in &segments {
                prop_assert_eq!(segment.time.start, at);
                prop_assert!(segment.time.end > at);
                at = segment.time.end;
                match segment.level {
                    Some(level) => {
                        prop_assert_eq!(level.start_of(segment.time.start), segment.time.start);
                        prop_assert_eq!(level.start_of(segment.time.end), segment.time.end);
                    }
                    None => rows += segment.time.end - segment.time.start,
                }
            }
            if !segments.is_empty() {
                prop_assert_eq!(at, to.unwrap_or(ALL_TIME.end));
            }
            prop_assert!(segments.len() <= 9);
            prop_assert!(rows < 2 * 60_000);
        }
    }
}
