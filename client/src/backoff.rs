//! How long to wait before trying again: doubling from a first delay to a bound, each drawn between half and
//! the whole of it, so that clients that failed together do not return together.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// Where the delays of one kind of retry begin and end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackoffPolicy {
    pub(crate) first: Duration,
    pub(crate) max: Duration,
}

/// One sequence of retries.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    policy: BackoffPolicy,
    attempt: u32,
}

impl Backoff {
    pub(crate) fn new(policy: BackoffPolicy) -> Self {
        Backoff { policy, attempt: 0 }
    }

    pub(crate) fn next(&mut self, rng: &mut StdRng) -> Duration {
        let full = self.policy.first.saturating_mul(1 << self.attempt.min(16)).min(self.policy.max);
        self.attempt = self.attempt.saturating_add(1);
        full.mul_f64(rng.random_range(0.5..=1.0))
    }

    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// A stream of randomness for one purpose, so that a draw here disturbs none elsewhere.
pub(crate) fn fork(seed: u64, stream: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound_within_half_of_it_and_start_over_after_a_reset() {
        let policy = BackoffPolicy { first: Duration::from_millis(20), max: Duration::from_millis(250) };
        let mut rng = fork(7, 1);
        let mut backoff = Backoff::new(policy);
        for full in [20, 40, 80, 160, 250, 250, 250] {
            let delay = backoff.next(&mut rng);
            assert!(
                delay >= Duration::from_millis(full) / 2 && delay <= Duration::from_millis(full),
                "{delay:?}"
            );
        }
        for _ in 0..100 {
            assert!(backoff.next(&mut rng) <= policy.max);
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= policy.first);
    }

    #[test]
    fn the_same_seed_draws_the_same_delays() {
        let policy = BackoffPolicy { first: Duration::from_millis(20), max: Duration::from_secs(1) };
        let draw = |seed| {
            let (mut rng, mut backoff) = (fork(seed, 3), Backoff::new(policy));
            (0..8).map(|_| backoff.next(&mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
