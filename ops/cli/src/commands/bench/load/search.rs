//! The search for the highest rate that holds. Pure: it names a rate, is told how that went, and names the next.
//!
//! ```text
//!  first holds:  ×2, ×2, … until one fails ─┐
//!  first fails:  ÷2, ÷2, … until one holds ─┴▶ halve what lies between them until that is less than PRECISION
//! ```

/// The search ends when the rate that held and the one that did not are this close, as a share of the former.
const PRECISION: f64 = 0.05;
/// No more steps than this, however the system behaves.
const MOST_STEPS: u32 = 24;
/// Nothing below this is tried, in requests a second.
const LEAST: f64 = 1.0;

/// Where a search stands.
#[derive(Clone, Debug)]
pub struct Search {
    next: f64,
    held: Option<f64>,
    failed: Option<f64>,
    most: f64,
    steps: u32,
}

impl Search {
    /// Begins at `first` requests a second, and tries nothing above `most`.
    pub fn new(first: f64, most: f64) -> Search {
        Search { next: first.min(most), held: None, failed: None, most, steps: 0 }
    }

    /// The rate to try now; `None`: the search is over.
    pub fn next(&self) -> Option<f64> {
        let open = match (self.held, self.failed) {
            (Some(held), Some(failed)) => failed - held > held * PRECISION,
            (Some(held), None) => held < self.most,
            (None, Some(failed)) => failed > LEAST,
            (None, None) => true,
        };
        (open && self.steps < MOST_STEPS).then_some(self.next)
    }

    /// Whether the rate that [`next`](Search::next) named held.
    pub fn tell(&mut self, holds: bool) {
        self.steps += 1;
        if holds {
            self.held = Some(self.next);
        } else {
            self.failed = Some(self.next);
        }
        self.next = match (self.held, self.failed) {
            (Some(held), Some(failed)) => round((held + failed) / 2.0),
            (Some(held), None) => (held * 2.0).min(self.most),
            (None, _) => (self.next / 2.0).max(LEAST),
        };
    }

    /// The highest rate that held.
    pub fn held(&self) -> Option<f64> {
        self.held
    }
}

/// Whole requests a second, where that is precise enough.
fn round(rate: f64) -> f64 {
    if rate >= 100.0 { rate.round() } else { rate }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All rates that are tried of a system that holds up to `limit`, and the one found.
    fn search(first: f64, limit: f64) -> (Vec<f64>, Option<f64>) {
        let mut search = Search::new(first, 1e6);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            tried.push(rate);
            search.tell(rate <= limit);
        }
        (tried, search.held())
    }

    #[test]
    fn it_doubles_then_halves_what_lies_between() {
        let (tried, found) = search(1000.0, 5100.0);
        assert_eq!(tried, [1000.0, 2000.0, 4000.0, 8000.0, 6000.0, 5000.0, 5500.0, 5250.0]);
        assert_eq!(found, Some(5000.0));
        let (tried, found) = search(1000.0, 300.0);
        assert_eq!(tried[..3], [1000.0, 500.0, 250.0]);
        assert!(found.is_some_and(|found| (250.0..=300.0).contains(&found)));
    }

    #[test]
    fn what_never_holds_has_no_limit_and_what_always_holds_ends_at_the_most() {
        let (tried, found) = search(8.0, 0.0);
        assert_eq!((tried.last(), found), (Some(&1.0), None));
        assert_eq!(search(1000.0, f64::MAX).1, Some(1e6));
    }

    proptest! {
        #[test]
        fn the_limit_is_found_to_its_precision(first in 1.0_f64..100_000.0, limit in 10.0_f64..500_000.0) {
            let (tried, found) = search(first, limit);
            let found = found.expect("some rate holds");
            prop_assert!(found <= limit && found >= limit / (1.0 + 2.0 * PRECISION), "{found} of {limit}: {tried:?}");
        }

        #[test]
        fn it_ends_however_the_system_behaves(answers in proptest::collection::vec(any::<bool>(), 64)) {
            let mut search = Search::new(1000.0, 1e6);
            let taken = answers.into_iter().take_while(|holds| {
                let open = search.next().is_some();
                if open { search.tell(*holds) }
                open
            });
            prop_assert!(taken.count() <= MOST_STEPS as usize);
        }
    }
}
