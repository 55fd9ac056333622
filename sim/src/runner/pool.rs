//! Work done by several threads at once, each of which mostly waits for a process.

use parking_lot::Mutex;
use std::ops::ControlFlow;

/// Does `work` on every item, `jobs` at once, and hands each result to `take`, one at a time, as it comes. After `take`
/// breaks no new item is begun; what has been begun is finished and handed over all the same.
pub fn each<I: Send, R: Send>(
    jobs: usize,
    items: impl Iterator<Item = I> + Send,
    work: impl Fn(I) -> R + Sync,
    take: impl FnMut(R) -> ControlFlow<()> + Send,
) {
    let (items, take) = (Mutex::new(Some(items)), Mutex::new(take));
    let next = || items.lock().as_mut().and_then(Iterator::next);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(item) = next() {
                    let result = work(item);
                    // Taken by the thread that did it, so that it begins nothing before it is known whether to go on.
                    let mut take = take.lock();
                    if take(result).is_break() {
                        *items.lock() = None;
                    }
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once() {
        let mut results = Vec::new();
        each(
            3,
            0..100,
            |n| n * 2,
            |result| {
                results.push(result);
                ControlFlow::Continue(())
            },
        );
        results.sort_unstable();
        assert_eq!(results, (0..100).map(|n| n * 2).collect::<Vec<_>>());
    }

    #[test]
    fn one_at_a_time_stops_right_at_the_break() {
        let mut taken = Vec::new();
        each(
            1,
            0..,
            |n: u64| n,
            |n| {
                taken.push(n);
                if n == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        assert_eq!(taken, [0, 1, 2, 3]);
    }

    #[test]
    fn after_a_break_what_has_begun_is_finished_and_nothing_is_begun() {
        let begun = Mutex::new(Vec::new());
        let mut taken = Vec::new();
        each(
            2,
            0..,
            |n: u64| {
                begun.lock().push(n);
                n
            },
            |result| {
                taken.push(result);
                if taken.len() >= 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        let mut begun = begun.into_inner();
        begun.sort_unstable();
        taken.sort_unstable();
        assert_eq!(begun, taken);
    }
}
