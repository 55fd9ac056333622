//! Delays between tries: doubling up to a bound, each drawn between half and the whole of it, so that gateways that
//! failed together do not return together.

use super::Patience;
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;

pub(in crate::ingest) struct Backoff {
    full: Duration,
    longest: Duration,
}

impl Backoff {
    pub(in crate::ingest) fn new(patience: Patience) -> Self {
        Backoff { full: patience.first, longest: patience.longest }
    }

    pub(in crate::ingest) fn next(&mut self, rng: &mut StdRng) -> Duration {
        let full = self.full;
        self.full = (full * 2).min(self.longest);
        full.mul_f64(rng.random_range(0.5..=1.0))
    }
}
