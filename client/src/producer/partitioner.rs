//! Which partition a record goes to when it does not say. Keys: murmur2, exactly as Kafka's clients
//! ([`strandline_record::partition_for_key`]). Without a key: sticky (KIP-480, KIP-794): one partition until it
//! has been given a batch's worth of bytes, so that batches fill; then another one, where the shorter of two
//! queues drawn at random wins, so that a slow leader gets less. Pure: draws come from the caller's stream.

use rand::RngExt;
use rand::rngs::StdRng;

#[derive(Debug)]
pub(crate) struct Sticky {
    current: Option<i32>,
    bytes: usize,
    switch_after: usize,
}

impl Sticky {
    /// Switches after `switch_after` bytes.
    pub(crate) fn new(switch_after: usize) -> Self {
        Sticky { current: None, bytes: 0, switch_after }
    }

    /// The partition for a record of `bytes`. `available` are those with a leader, or all if none has one;
    /// `queued` is how many bytes wait for a partition.
    pub(crate) fn pick(
        &mut self,
        bytes: usize,
        available: &[i32],
        queued: impl Fn(i32) -> usize,
        rng: &mut StdRng,
    ) -> i32 {
        assert!(!available.is_empty(), "a topic has partitions");
        let current = match self.current {
            Some(current) if self.bytes < self.switch_after && available.binary_search(&current).is_ok() => {
                current
            }
            previous => {
                let next = Self::draw(previous, available, queued, rng);
                self.current = Some(next);
                self.bytes = 0;
                next
            }
        };
        self.bytes += bytes;
        current
    }

    fn draw(
        previous: Option<i32>,
        available: &[i32],
        queued: impl Fn(i32) -> usize,
        rng: &mut StdRng,
    ) -> i32 {
        if available.len() == 1 {
            return available[0];
        }
        let mut one = || {
            // Another one than before, each of the others equally likely.
            match previous.and_then(|p| available.binary_search(&p).ok()) {
                Some(skip) => {
                    let at = rng.random_range(0..available.len() - 1);
                    available[if at >= skip { at + 1 } else { at }]
                }
                None => available[rng.random_range(0..available.len())],
            }
        };
        let (a, b) = (one(), one());
        if queued(b) < queued(a) { b } else { a }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::fork;
    use std::collections::BTreeMap;

    #[test]
    fn keyless_records_stay_with_a_partition_for_a_batch_and_then_leave_it() {
        let mut rng = fork(1, 2);
        let mut sticky = Sticky::new(1000);
        let mut runs: Vec<(i32, usize)> = Vec::new();
        for _ in 0..1000 {
            let p = sticky.pick(100, &[0, 1, 2, 3], |_| 0, &mut rng);
            match runs.last_mut() {
                Some((last, n)) if *last == p => *n += 1,
                _ => runs.push((p, 1)),
            }
        }
        assert!(runs.iter().all(|(_, n)| *n == 10), "{runs:?}");
    }

    #[test]
    fn all_partitions_get_about_the_same() {
        let mut rng = fork(5, 2);
        let mut sticky = Sticky::new(1);
        let mut counts = BTreeMap::new();
        for _ in 0..12_000 {
            *counts.entry(sticky.pick(1, &[0, 1, 2, 3, 4, 5], |_| 0, &mut rng)).or_insert(0) += 1;
        }
        assert!(counts.len() == 6 && counts.values().all(|n| (1700..2300).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_partition_that_lost_its_leader_is_left_at_once_and_a_long_queue_gets_less() {
        let mut rng = fork(3, 2);
        let mut sticky = Sticky::new(usize::MAX);
        let first = sticky.pick(1, &[0, 1, 2], |_| 0, &mut rng);
        let rest: Vec<i32> = [0, 1, 2].into_iter().filter(|p| *p != first).collect();
        let second = sticky.pick(1, &rest, |_| 0, &mut rng);
        assert_ne!(first, second);

        let mut sticky = Sticky::new(1);
        let slow =
            (0..9000).filter(|_| sticky.pick(1, &[0, 1, 2], |p| usize::from(p == 2), &mut rng) == 2).count();
        assert!(slow < 1800, "{slow}");
    }
}
