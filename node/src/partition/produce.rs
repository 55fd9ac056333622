//! Answers to produce requests: one [`ProduceCall`] gathers the results of all batches of one request and
//! hands them over together, so that a request costs one wake-up however many partitions it names.

use crate::error::ServeError;
use parking_lot::Mutex;
use std::sync::Arc;
use strandline_record::Offset;
use strandline_storage::Repeat;

/// How much must be durable before a batch is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// On the disk of every replica of the maximal in-sync set.
    All,
    /// On the leader's disk.
    Leader,
    /// Nothing; answered as soon as it has been appended.
    None,
}

/// An acknowledged batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    pub base_offset: Offset,
    /// Set where the topic stamps records when they are appended.
    pub log_append_time_ms: Option<i64>,
    pub log_start: Offset,
    /// It had been appended before; `base_offset` is the first copy's.
    pub duplicate: bool,
    /// Records that were not appended, since the log has one with their idempotency key (`dedup.key`).
    pub repeats: Vec<Repeat>,
}

pub type ProduceResult = Result<Produced, ServeError>;

type OnDone = Box<dyn FnOnce(Vec<ProduceResult>) + Send>;

/// Collects one result for each batch of a request, in any order, and calls back when it has them all.
pub struct ProduceCall {
    state: Mutex<State>,
}

struct State {
    results: Vec<Option<ProduceResult>>,
    missing: usize,
    done: Option<OnDone>,
}

impl ProduceCall {
    /// `done` is called exactly once, from whichever thread completes the last of `batches` (> 0).
    pub fn new(batches: usize, done: OnDone) -> Arc<Self> {
        assert!(batches > 0, "a request without batches is answered by its front");
        let state = State { results: vec![None; batches], missing: batches, done: Some(done) };
        Arc::new(ProduceCall { state: Mutex::new(state) })
    }

    /// The handle with which batch `slot` reports its result.
    pub fn completion(self: &Arc<Self>, slot: usize) -> Completion {
        Completion { call: Some(self.clone()), slot }
    }

    fn complete(&self, slot: usize, result: ProduceResult) {
        let mut state = self.state.lock();
        let previous = state.results[slot].replace(result);
        assert!(previous.is_none(), "a batch is answered once");
        state.missing -= 1;
        if state.missing == 0 {
            let results = std::mem::take(&mut state.results).into_iter().flatten().collect();
            let done = state.done.take();
            drop(state);
            if let Some(done) = done {
                done(results);
            }
        }
    }
}

/// Reports the result of one batch. Dropped without a result (the node stops), the outcome is unknown.
pub struct Completion {
    call: Option<Arc<ProduceCall>>,
    slot: usize,
}

impl Completion {
    pub fn complete(mut self, result: ProduceResult) {
        if let Some(call) = self.call.take() {
            call.complete(self.slot, result);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.complete(self.slot, Err(ServeError::Deposed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_call_answers_once_all_batches_have_a_result_in_the_order_of_the_request() {
        let (tx, rx) = mpsc::channel();
        let call = ProduceCall::new(2, Box::new(move |results| tx.send(results).unwrap()));
        let produced = |at| Produced {
            base_offset: Offset(at),
            log_append_time_ms: None,
            log_start: Offset(0),
            duplicate: false,
            repeats: Vec::new(),
        };
        let (first, second) = (call.completion(0), call.completion(1));
        second.complete(Ok(produced(7)));
        assert!(rx.try_recv().is_err());
        first.complete(Ok(produced(3)));
        assert_eq!(rx.try_recv().unwrap(), vec![Ok(produced(3)), Ok(produced(7))]);
    }

    #[test]
    fn a_dropped_batch_is_an_unknown_outcome() {
        let (tx, rx) = mpsc::channel();
        let call = ProduceCall::new(1, Box::new(move |results| tx.send(results).unwrap()));
        drop(call.completion(0));
        assert_eq!(rx.try_recv().unwrap(), vec![Err(ServeError::Deposed)]);
    }
}
