//! The fetch stream: each request waits on its own until it has enough bytes, an error, or its time is
//! up, so that a quiet partition holds up nobody.

use super::convert::{self};
use crate::broker::Broker;
use crate::error::ServeError;
use crate::partition::{FetchWaiter, Fetched, ReadRequest};
use std::sync::Arc;
use std::time::Duration;
use strandline_record::{LeaderEpoch, Offset};
use strandline_wire::v1;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tonic::{Status, Streaming};

/// Requests of one stream that may wait at the same time.
const MAX_IN_FLIGHT: usize = 64;
const MAX_PARTITIONS: usize = 10_000;
const MAX_WAIT: Duration = Duration::from_secs(60);
const DEFAULT_MAX_BYTES: usize = 4 << 20;

pub type Responses = mpsc::Receiver<Result<v1::FetchResponse, Status>>;

/// Serves one stream until the client ends it; answers come out of the receiver.
pub fn serve(broker: Arc<Broker>, mut requests: Streaming<v1::FetchRequest>) -> Responses {
    // Small: an answer is built only when the client has taken those before it.
    let (tx, rx) = mpsc::channel(2);
    tokio::spawn(async move {
        let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let stopping = broker.context().stopping.clone();
        loop {
            let request = tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                () = tx.closed() => break,
                request = requests.message() => request,
            };
            let Ok(Some(request)) = request else { break };
            let Ok(slot) = in_flight.clone().acquire_owned().await else { break };
            let (broker, tx) = (broker.clone(), tx.clone());
            let began = Instant::now();
            tokio::spawn(async move {
                let closed = tx.clone();
                tokio::select! {
                    biased;
                    () = closed.closed() => {}
                    () = async {
                        let response = answer(&broker, &request).await;
                        broker.context().meters.grpc.fetch.took.record(began.elapsed());
                        match tx.try_reserve() {
                            Ok(place) => place.send(Ok(counted(&broker, response))),
                            Err(TrySendError::Closed(())) => {}
                            // What was read is dropped, so that nothing is held for a client that does not take its
                            // answers, and read again when it does.
                            Err(TrySendError::Full(())) => {
                                drop(response);
                                if let Ok(place) = tx.reserve().await {
                                    place.send(Ok(counted(&broker, read_all(&broker, &request).0)));
                                }
                            }
                        }
                    } => {}
                }
                drop(slot);
            });
        }
    });
    rx
}

/// An answer that goes out.
fn counted(broker: &Broker, response: v1::FetchResponse) -> v1::FetchResponse {
    for result in response.partitions.iter().filter(|result| !result.batches.is_empty()) {
        let tp = convert::topic_partition(&result.topic_id, result.partition).ok();
        broker.fetched(&broker.context().meters.grpc.fetch, tp, &result.batches);
    }
    response
}

/// Waits until there is enough to answer with, or the request's time is up.
async fn answer(broker: &Arc<Broker>, request: &v1::FetchRequest) -> v1::FetchResponse {
    if request.partitions.len() > MAX_PARTITIONS {
        let problem =
            ServeError::InvalidRequest(format!("a fetch names at most {MAX_PARTITIONS} partitions"));
        let failed = v1::FetchPartitionResult {
            error: Some(convert::error(broker.context(), &problem)),
            ..Default::default()
        };
        return v1::FetchResponse { request_id: request.request_id, partitions: vec![failed] };
    }
    let deadline = Instant::now() + Duration::from_millis(u64::from(request.max_wait_ms)).min(MAX_WAIT);
    let waiter = FetchWaiter::new();
    let stopping = &broker.context().stopping;
    loop {
        // Register before reading, so that what arrives in between is not missed.
        for wanted in &request.partitions {
            if let Ok(tp) = convert::topic_partition(&wanted.topic_id, wanted.partition)
                && let Some(partition) = broker.partition(tp)
            {
                partition.wake_on_change(&waiter);
            }
        }
        let (response, enough) = read_all(broker, request);
        if enough || stopping.is_cancelled() {
            return response;
        }
        if tokio::time::timeout_at(deadline, waiter.woken()).await.is_err() {
            return read_all(broker, request).0;
        }
    }
}

/// Reads what there is. The second value says whether the answer should go out now.
fn read_all(broker: &Arc<Broker>, request: &v1::FetchRequest) -> (v1::FetchResponse, bool) {
    let limit = match request.max_bytes {
        0 => DEFAULT_MAX_BYTES,
        bytes => (bytes as usize).min(broker.context().config.fetch_max_bytes as usize),
    };
    let (mut total, mut enough) = (0, request.partitions.is_empty());
    let mut partitions = Vec::with_capacity(request.partitions.len());
    for wanted in &request.partitions {
        let room = limit.saturating_sub(total);
        let result = read_one(broker, wanted, room, total == 0);
        enough |= result.error.is_some() || result.diverging.is_some();
        total += result.batches.len();
        partitions.push(result);
    }
    enough |= total >= request.min_bytes.max(1) as usize;
    (v1::FetchResponse { request_id: request.request_id, partitions }, enough)
}

fn read_one(
    broker: &Arc<Broker>,
    wanted: &v1::FetchPartition,
    room: usize,
    first: bool,
) -> v1::FetchPartitionResult {
    let answer = v1::FetchPartitionResult {
        topic_id: wanted.topic_id.clone(),
        partition: wanted.partition,
        high_watermark: -1,
        log_start_offset: -1,
        ..Default::default()
    };
    let read = convert::topic_partition(&wanted.topic_id, wanted.partition)
        .and_then(|tp| broker.partition_or_error(tp))
        .and_then(|partition| {
            partition.read(&ReadRequest {
                from: Offset(wanted.offset),
                leader_epoch: convert::epoch_of(wanted.leader_epoch),
                last_fetched_epoch: convert::epoch_of(wanted.last_fetched_epoch),
                max_bytes: (wanted.max_bytes as usize).min(room),
                // The first batch of the first partition that has one comes whole, or a large record
                // would hold up its consumer for ever.
                min_one_batch: first,
            })
        });
    match read {
        Ok(fetched) => filled(answer, fetched),
        Err(error) => {
            let mut answer = answer;
            if let ServeError::OffsetOutOfRange { log_start, end } = &error {
                answer.log_start_offset = log_start.0;
                answer.high_watermark = end.0;
            }
            answer.error = Some(convert::error(broker.context(), &error));
            answer
        }
    }
}

fn filled(mut answer: v1::FetchPartitionResult, fetched: Fetched) -> v1::FetchPartitionResult {
    answer.high_watermark = fetched.high_watermark.0;
    answer.log_start_offset = fetched.log_start.0;
    answer.leader_epoch = fetched.leader_epoch.0;
    answer.batches = fetched.batches;
    answer.diverging = fetched
        .diverging
        .map(|(epoch, end)| v1::EpochEnd { epoch: epoch.unwrap_or(LeaderEpoch(-1)).0, end_offset: end.0 });
    answer
}
