//! Work done by several threads at once, each of which mostly waits for a process.

use parking_lot::Mutex;
use std::ops::ControlFlow;
use std::sync::mpsc;

/// Does `work` on every item, `jobs` at once, and hands each result to `take` on this thread as it comes. After `take`
/// breaks no new item is begun; what has been begun is finished and handed over all the same.
pub fn each<I: Send, R: Send>(
    jobs: usize,
    items: impl Iterator<Item = I> + Send,
    work: impl Fn(I) -> R + Sync,
    mut take: impl FnMut(R) -> ControlFlow<()>,
) {
    let items = Mutex::new(Some(items));
    let next = || items.lock().as_mut().and_then(Iterator::next);
    let (results, done) = mpsc::sync_channel(jobs);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let results = results.clone();
            let (next, work) = (&next, &work);
            scope.spawn(move || {
                while let Some(item) = next() {
                    if results.send(work(item)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        for result in &done {
            if take(result).is_break() {
                *items.lock() = None;
            }
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
