//! What the groups do when, so that there is something to see. Pure: functions of the time since the start.
//!
//! ```text
//!  s                0        20        40        60        80       100       120
//!  orders           3 members│4        │3        │2        │3        │4        │3
//!  notifications    full│slow──────│full     │slow──────│full     │slow──────
//!  analytics        ──mark──────replay────────mark──────replay────────mark──
//! ```

use std::time::Duration;

/// How many members `demo.orders` has, one [`ROSTER_STEP`] after the other.
const ROSTER: [usize; 4] = [3, 4, 3, 2];
const ROSTER_STEP: Duration = Duration::from_secs(20);

/// `demo.notifications` is slow from here to there in each cycle.
const SLOW_CYCLE: Duration = Duration::from_secs(40);
const SLOW_FROM: Duration = Duration::from_secs(10);
const SLOW_TO: Duration = Duration::from_secs(28);
/// What it manages then, of a hundred payments that are made.
pub(super) const SLOW_PERCENT: u32 = 40;

/// `demo.analytics` remembers where it is, and some time later goes back there.
const REPLAY_CYCLE: Duration = Duration::from_secs(40);
const MARK_AT: Duration = Duration::from_secs(12);
const REPLAY_AT: Duration = Duration::from_secs(30);

/// The members that `demo.orders` should have.
pub(super) fn orders_members(elapsed: Duration) -> usize {
    let step = elapsed.as_secs() / ROSTER_STEP.as_secs();
    ROSTER[step as usize % ROSTER.len()]
}

/// The payments a second that `demo.notifications` manages, while it is slow.
pub(super) fn notifications_limit(elapsed: Duration, per_minute: u32) -> Option<f64> {
    let at = within(elapsed, SLOW_CYCLE);
    (SLOW_FROM..SLOW_TO).contains(&at).then(|| f64::from(per_minute) / 60.0 * f64::from(SLOW_PERCENT) / 100.0)
}

/// What `demo.analytics` does besides reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Remembers where it is and what it has counted up to there.
    Mark,
    /// Goes back to where it was at the mark.
    Replay,
}

/// The steps of `demo.analytics`, each once. A step whose time has passed while it was busy comes late, not twice.
#[derive(Debug, Default)]
pub(super) struct Steps {
    taken: u64,
}

impl Steps {
    /// The next step, if it is time.
    pub(super) fn due(&mut self, elapsed: Duration) -> Option<Step> {
        let cycle = elapsed.as_secs() / REPLAY_CYCLE.as_secs();
        let at = within(elapsed, REPLAY_CYCLE);
        let passed = cycle * 2 + u64::from(at >= MARK_AT) + u64::from(at >= REPLAY_AT);
        if passed <= self.taken {
            return None;
        }
        // Of several only the last counts.
        self.taken = passed;
        Some(if passed % 2 == 1 { Step::Mark } else { Step::Replay })
    }
}

fn within(elapsed: Duration, cycle: Duration) -> Duration {
    Duration::from_millis((elapsed.as_millis() % cycle.as_millis()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn orders_members_leave_and_join_one_at_a_time() {
        let members: Vec<usize> = (0..200).map(|second| orders_members(s(second))).collect();
        assert!(members.windows(2).all(|two| two[0].abs_diff(two[1]) <= 1));
        assert_eq!((members.iter().min(), members.iter().max()), (Some(&2), Some(&4)));
        assert_eq!([0, 20, 40, 60, 80].map(|second| members[second]), [3, 4, 3, 2, 3]);
    }

    #[test]
    fn notifications_fall_behind_at_every_rate_and_have_time_to_catch_up() {
        assert_eq!(notifications_limit(s(5), 60_000), None);
        assert_eq!(notifications_limit(s(10), 60_000), Some(400.0));
        assert_eq!(notifications_limit(s(55), 600_000), Some(4_000.0));
        let slow = (0..80).filter(|second| notifications_limit(s(*second), 10_000).is_some()).count();
        assert_eq!(slow, 36);
    }

    #[test]
    fn analytics_marks_and_replays_in_turn_each_once() {
        let mut steps = Steps::default();
        let taken: Vec<(u64, Step)> = (0..100).filter_map(|at| Some((at, steps.due(s(at))?))).collect();
        let expected =
            [(12, Step::Mark), (30, Step::Replay), (52, Step::Mark), (70, Step::Replay), (92, Step::Mark)];
        assert_eq!(taken, expected);
        // It was busy over a mark and a replay.
        assert_eq!(steps.due(s(150)), Some(Step::Replay));
        assert_eq!(steps.due(s(151)), None);
        assert_eq!(Steps::default().due(s(11)), None);
    }
}
