//! Results of sends. All records of a batch share one [`BatchDelivery`], settled once; a handle is that and an
//! index, so a record costs no channel and no allocation of its own.

use crate::error::{Error, Result};
use crate::types::Delivery;
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

impl fmt::Debug for BatchDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchDelivery({}-{})", self.topic, self.partition)
    }
}

/// Where a batch landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Landed {
    pub(crate) base_offset: Option<i64>,
    /// `None`: the records keep the timestamps that the producer gave them.
    pub(crate) log_append_time_ms: Option<i64>,
    pub(crate) duplicate: bool,
    /// Records of which the log had one with the same idempotency key, and where; by their place in the batch.
    pub(crate) repeats: Box<[(u32, i64)]>,
}

enum State {
    /// Wakers of the handles that are being awaited, by record.
    Pending(Vec<Option<Waker>>),
    Settled(Result<Landed>),
}

pub(crate) struct BatchDelivery {
    topic: Arc<str>,
    partition: i32,
    state: Mutex<State>,
}

impl BatchDelivery {
    pub(crate) fn new(topic: Arc<str>, partition: i32) -> Arc<Self> {
        Arc::new(BatchDelivery { topic, partition, state: Mutex::new(State::Pending(Vec::new())) })
    }

    /// Tells all records of the batch, once.
    pub(crate) fn settle(&self, result: Result<Landed>) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Settled(result));
        match before {
            State::Pending(wakers) => wakers.into_iter().flatten().for_each(Waker::wake),
            State::Settled(_) => unreachable!("a batch is settled once"),
        }
    }
}

/// The result of one send, to be awaited for where the record landed. Dropping it does not take the record
/// back.
#[must_use = "await it to learn whether the record was written, or drop it on purpose with drop()"]
pub struct DeliveryHandle {
    batch: Arc<BatchDelivery>,
    index: u32,
    timestamp_ms: i64,
}

impl DeliveryHandle {
    pub(crate) fn new(batch: Arc<BatchDelivery>, index: u32, timestamp_ms: i64) -> Self {
        DeliveryHandle { batch, index, timestamp_ms }
    }

    /// Topic that the record goes to.
    pub fn topic(&self) -> &str {
        &self.batch.topic
    }

    /// Partition that the record goes to.
    pub fn partition(&self) -> i32 {
        self.batch.partition
    }

    /// The result, if it is there already.
    pub fn try_result(&self) -> Option<Result<Delivery>> {
        match &*self.batch.state.lock() {
            State::Pending(_) => None,
            State::Settled(result) => Some(self.delivery(result)),
        }
    }

    fn delivery(&self, result: &Result<Landed>) -> Result<Delivery> {
        let landed = result.as_ref().map_err(Error::clone)?;
        let repeated = landed.repeats.binary_search_by_key(&self.index, |(index, _)| *index).ok();
        let own = landed.base_offset.map(|base| base + i64::from(self.index));
        Ok(Delivery {
            topic: self.batch.topic.clone(),
            partition: self.batch.partition,
            offset: repeated.map_or(own, |at| Some(landed.repeats[at].1)),
            timestamp_ms: landed.log_append_time_ms.unwrap_or(self.timestamp_ms),
            duplicate: landed.duplicate,
            repeated: repeated.is_some(),
        })
    }
}

impl fmt::Debug for DeliveryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryHandle")
            .field("topic", &self.batch.topic)
            .field("partition", &self.batch.partition)
            .finish_non_exhaustive()
    }
}

impl Future for DeliveryHandle {
    type Output = Result<Delivery>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.batch.state.lock();
        match &mut *state {
            State::Settled(result) => Poll::Ready(self.delivery(result)),
            State::Pending(wakers) => {
                let index = self.index as usize;
                if wakers.len() <= index {
                    wakers.resize_with(index + 1, || None);
                }
                match &mut wakers[index] {
                    Some(waker) => waker.clone_from(cx.waker()),
                    empty => *empty = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn every_record_of_a_batch_learns_its_own_offset() {
        let batch = BatchDelivery::new("t".into(), 3);
        let waiting: Vec<_> =
            (0..5).map(|i| tokio::spawn(DeliveryHandle::new(batch.clone(), i, 100 + i64::from(i)))).collect();
        tokio::task::yield_now().await;
        let repeats = Box::from([(2, 7)]);
        let landed = Landed { base_offset: Some(40), log_append_time_ms: None, duplicate: false, repeats };
        let late = DeliveryHandle::new(batch.clone(), 4, 104);
        assert!(late.try_result().is_none());
        batch.settle(Ok(landed));
        for (i, handle) in waiting.into_iter().enumerate() {
            let delivery = handle.await.unwrap().unwrap();
            let (offset, repeated) = if i == 2 { (7, true) } else { (40 + i as i64, false) };
            assert_eq!((delivery.offset, delivery.repeated), (Some(offset), repeated));
            assert_eq!(delivery.timestamp_ms, 100 + i as i64);
        }
        assert_eq!(late.now_or_never().unwrap().unwrap().offset, Some(44));
    }

    #[tokio::test]
    async fn a_handle_that_was_dropped_or_moved_to_another_task_disturbs_no_other() {
        let batch = BatchDelivery::new("t".into(), 0);
        let mut moved = DeliveryHandle::new(batch.clone(), 0, 0);
        assert!((&mut moved).now_or_never().is_none());
        drop(DeliveryHandle::new(batch.clone(), 1, 0));
        let moved = tokio::spawn(moved);
        tokio::task::yield_now().await;
        batch.settle(Err(Error::indeterminate("lost")));
        assert!(moved.await.unwrap().unwrap_err().may_have_happened());
    }
}
