//! Which part of a log may be compacted, whether that is worth it, and which segments become one. Pure.
//!
//! ```text
//!  log start        compacted to                                    high watermark     log end
//!      │   clean         │        dirty         │  too young │ not closed │
//!      ├─────────────────┼──────────────────────┼────────────┼────────────┤
//!      └────────── what one pass covers ────────┘
//! ```
//!
//! Ages are those of the appends here, not of the producer's timestamps, as for retention (KIP-937).

use crate::config::CompactionConfig;
use crate::segment::Segment;
use std::ops::Range;
use strandline_record::Offset;

/// A log that is worth a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The segments that the pass may cover, from the first one of the log on.
    pub segments: Vec<Segment>,
    /// Records below were covered by an earlier pass.
    pub dirty_from: Offset,
    /// `max.compaction.lag.ms` is over.
    pub overdue: bool,
    /// Bytes of dirty segments in a million of all that the pass covers.
    pub dirty_ppm: u32,
}

/// The log as it is seen by [`candidate`].
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub start: Offset,
    /// Covered by earlier passes.
    pub compacted_to: Offset,
    /// The high watermark, as far as it is known: nothing at or above is touched.
    pub bound: Offset,
}

/// What a pass over this log would cover, if it is due.
pub fn candidate<'a>(
    segments: impl Iterator<Item = &'a Segment>,
    view: View,
    config: &CompactionConfig,
    now_ms: i64,
) -> Option<Candidate> {
    let settled = |segment: &&Segment| {
        segment.closed
            && segment.end <= view.bound
            && now_ms.saturating_sub(segment.newest_append_ms) >= config.min_lag_ms
    };
    let segments: Vec<Segment> = segments.take_while(settled).copied().collect();
    let dirty_from = view.compacted_to.max(view.start);
    let first_dirty = segments.iter().position(|segment| segment.end > dirty_from)?;
    let bytes = |segments: &[Segment]| segments.iter().map(|segment| u128::from(segment.bytes)).sum::<u128>();
    let (dirty, all) = (bytes(&segments[first_dirty..]), bytes(&segments));
    let dirty_ppm = (dirty * 1_000_000 / all.max(1)) as u32;
    let overdue = now_ms.saturating_sub(segments[first_dirty].first_append_ms) > config.max_lag_ms;
    let due = overdue || dirty_ppm > config.min_dirty_ppm;
    due.then_some(Candidate { segments, dirty_from, overdue, dirty_ppm })
}

/// Rows of segments that become one each: as many as fit into `segment_bytes` before anything is removed.
pub fn groups(segments: &[Segment], segment_bytes: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (at, segment) in segments.iter().enumerate() {
        match groups.last_mut() {
            Some(group)
                if bytes + segment.bytes <= segment_bytes
                    && segment.end.get() - segments[group.start].base.get() <= i64::from(i32::MAX) =>
            {
                group.end = at + 1;
                bytes += segment.bytes;
            }
            _ => {
                groups.push(at..at + 1);
                bytes = segment.bytes;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn config() -> CompactionConfig {
        CompactionConfig { min_lag_ms: HOUR, max_lag_ms: 100 * HOUR, ..CompactionConfig::default() }
    }

    /// Ten offsets and this many bytes each, appended one an hour from hour 0 on; the last one is not closed.
    fn log(bytes: &[u64]) -> Vec<Segment> {
        let mut segments = Vec::new();
        for (n, bytes) in bytes.iter().enumerate() {
            let mut segment = Segment::new(Offset(n as i64 * 10), n as u32 + 1, n as i64 * HOUR);
            segment.bytes = *bytes;
            segment.end = segment.base.plus(10);
            segment.closed = true;
            segments.push(segment);
        }
        segments.last_mut().expect("there is one").closed = false;
        segments
    }

    fn found(
        segments: &[Segment],
        start: i64,
        compacted_to: i64,
        bound: i64,
        now_h: i64,
    ) -> Option<Candidate> {
        let view = View { start: Offset(start), compacted_to: Offset(compacted_to), bound: Offset(bound) };
        candidate(segments.iter(), view, &config(), now_h * HOUR)
    }

    /// Segments covered and where the dirty part begins.
    fn covered(candidate: Option<Candidate>) -> Option<(usize, i64)> {
        candidate.map(|candidate| (candidate.segments.len(), candidate.dirty_from.get()))
    }

    #[test]
    fn a_pass_covers_closed_segments_below_the_high_watermark_that_are_old_enough() {
        let log = log(&[100; 6]);
        assert_eq!(covered(found(&log, 0, 0, 60, 50)), Some((5, 0)));
        assert_eq!(covered(found(&log, 0, 0, 49, 50)), Some((4, 0)), "the bound lies in the fifth");
        assert_eq!(covered(found(&log, 0, 0, 60, 3)), Some((3, 0)), "the fourth is of this hour");
        assert_eq!(covered(found(&log, 0, 0, 5, 50)), None);
        assert_eq!(
            covered(found(&log, 17, 0, 60, 50)),
            Some((5, 17)),
            "nothing is dirty below the log start"
        );
    }

    #[test]
    fn it_is_due_when_enough_is_dirty_or_when_something_waited_too_long() {
        let log = log(&[300, 200, 200, 200, 100, 1]);
        let at = |compacted_to, now_h| found(&log, 0, compacted_to, 60, now_h);
        assert_eq!(
            at(20, 50).map(|c| (c.dirty_ppm, c.overdue)),
            None,
            "half of it is dirty: not more than half"
        );
        assert_eq!(at(15, 50).map(|c| (c.dirty_ppm, c.overdue)), Some((700_000, false)));
        assert_eq!(at(40, 50), None);
        assert_eq!(at(40, 104), None, "100 hours are allowed");
        assert_eq!(at(40, 105).map(|c| (c.dirty_ppm, c.overdue)), Some((100_000, true)));
        assert_eq!(at(50, 1000), None, "nothing is dirty");
    }

    #[test]
    fn neighbours_become_one_segment_while_they_fit() {
        let log = log(&[100, 100, 100, 250, 50, 300, 10]);
        assert_eq!(groups(&log, 300), [0..3, 3..5, 5..6, 6..7]);
        assert_eq!(groups(&log, 10), (0..7).map(|n| n..n + 1).collect::<Vec<_>>());
        let mut far = log.clone();
        far[1].end = Offset(i64::from(i32::MAX) + 1);
        assert_eq!(groups(&far[..2], 300), [0..1, 1..2], "an index counts offsets from the segment's base");
    }
}
