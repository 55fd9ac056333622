//! The produce stream: requests are decoded, appended where they were decoded, and answered as their
//! batches become durable. Two bounds hold back a client that is too fast: requests in flight on the
//! stream, and bytes in flight in the whole node. Past either the stream is simply not read, so that
//! HTTP/2 flow control stops the client.

use super::convert;
use crate::broker::Broker;
use crate::error::ServeError;
use crate::metrics::Sent;
use crate::net;
use crate::partition::{Acks, ProduceCall, ProduceResult};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use parking_lot::Mutex;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use strandline_record::TopicPartition;
use strandline_wire::produce::{PATH, Requests};
use strandline_wire::v1;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;

/// Requests of one stream that may be unanswered.
const MAX_IN_FLIGHT: usize = 256;
/// Batches in one request.
const MAX_BATCHES: usize = 4096;
/// While this much waits for the journal, no further request is begun.
const MAX_JOURNAL_PENDING: usize = 48 << 20;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TIMEOUT: Duration = Duration::from_secs(120);

/// The body of a produce stream, which this module reads itself. tonic finds an empty one in its place.
#[derive(Clone)]
pub struct RequestBody(Arc<Mutex<Option<Body>>>);

/// In front of the service: keeps a produce stream's body for [`serve`].
pub fn keep_body(mut request: http::Request<Body>) -> http::Request<Body> {
    if request.uri().path() == PATH {
        let body = std::mem::replace(request.body_mut(), Body::empty());
        request.extensions_mut().insert(RequestBody(Arc::new(Mutex::new(Some(body)))));
    }
    request
}

/// What [`keep_body`] kept.
pub fn kept_body<T>(request: &mut tonic::Request<T>) -> Result<Body, Status> {
    let kept = request.extensions_mut().remove::<RequestBody>();
    kept.and_then(|body| body.0.lock().take()).ok_or_else(|| Status::internal("the request has no body"))
}

pub type Responses = mpsc::Receiver<Result<v1::ProduceResponse, Status>>;

/// Requests as they come out of a body.
struct Reader {
    body: Body,
    requests: Requests,
}

impl Reader {
    /// The next request; `None` when the client has ended the stream.
    async fn next(&mut self) -> Result<Option<v1::ProduceRequest>, Status> {
        loop {
            if let Some(request) = self.requests.take()? {
                return Ok(Some(request));
            }
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await.transpose()?;
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => self.requests.push(data),
                // Trailers, or nothing more.
                Some(Err(_)) | None if self.requests.is_between() => return Ok(None),
                Some(Err(_)) | None => {
                    return Err(Status::invalid_argument("the stream ended inside a request"));
                }
            }
        }
    }
}

/// Serves one stream until the client ends it; answers come out of the receiver.
pub fn serve(broker: Arc<Broker>, requests: Body) -> Responses {
    let requests = Reader { body: requests, requests: Requests::new(net::MAX_MESSAGE) };
    // A permit is held for each request until its answer is in the channel, so sending never waits.
    let (tx, rx) = mpsc::channel(MAX_IN_FLIGHT + 1);
    tokio::spawn(async move {
        let stopping = broker.context().stopping.clone();
        tokio::select! {
            biased;
            () = stopping.cancelled() => {
                let _ = tx.try_send(Err(Status::unavailable("this node is shutting down")));
            }
            ended = read(&broker, requests, &tx) => {
                if let Err(status) = ended {
                    let _ = tx.try_send(Err(status));
                }
            }
        }
    });
    rx
}

async fn read(
    broker: &Arc<Broker>,
    mut requests: Reader,
    tx: &mpsc::Sender<Result<v1::ProduceResponse, Status>>,
) -> Result<(), Status> {
    let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    while let Some(request) = requests.next().await? {
        let began = Instant::now();
        let slot = in_flight.clone().acquire_owned().await.map_err(|_| Status::internal("closed"))?;
        let bytes: usize = request.partitions.iter().map(|p| p.batches.len()).sum();
        let budget = broker.produce_budget(bytes).await;
        // What has been answered (acks below all, or too late) may still wait for the disk.
        while broker.context().store.journal_pending_bytes() > MAX_JOURNAL_PENDING {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (tx, context) = (tx.clone(), broker.context().clone());
        let answer = move |response: v1::ProduceResponse| {
            context.meters.grpc.produce.took.record(began.elapsed());
            // Fails only when the client is gone.
            let _ = tx.try_send(Ok(response));
            drop((slot, budget));
        };
        start(broker, request, answer);
    }
    Ok(())
}

fn start(
    broker: &Arc<Broker>,
    request: v1::ProduceRequest,
    answer: impl FnOnce(v1::ProduceResponse) + Send + 'static,
) {
    let request_id = request.request_id;
    let count = request.partitions.len();
    if count == 0 || count > MAX_BATCHES {
        let problem = ServeError::InvalidRequest(format!(
            "a produce request has 1 to {MAX_BATCHES} batches, not {count}"
        ));
        let failed = v1::ProducePartitionResult {
            error: Some(convert::error(broker.context(), &problem)),
            base_offset: -1,
            ..Default::default()
        };
        return answer(v1::ProduceResponse { request_id, partitions: vec![failed] });
    }
    let acks = match request.acks() {
        v1::Acks::All => Acks::All,
        v1::Acks::Leader => Acks::Leader,
        v1::Acks::NoAcks => Acks::None,
    };
    let timeout = match request.timeout_ms {
        0 => DEFAULT_TIMEOUT,
        ms => Duration::from_millis(u64::from(ms)).min(MAX_TIMEOUT),
    };
    let deadline_ms = broker.context().now_ms() + timeout.as_millis() as u64;
    // Copies, since a slice would keep all that was received with it until the answer.
    let names: Vec<(Bytes, i32, Sent)> = request
        .partitions
        .iter()
        .map(|p| (Bytes::copy_from_slice(&p.topic_id), p.partition, Sent::of(&p.batches)))
        .collect();
    let shared = broker.clone();
    let done = Box::new(move |results: Vec<ProduceResult>| {
        let partitions = names
            .into_iter()
            .zip(results)
            .map(|((topic_id, partition, sent), result)| {
                shared.context().meters.grpc.produce.produced(sent, &result);
                wire_result(&shared, topic_id, partition, result)
            })
            .collect();
        answer(v1::ProduceResponse { request_id, partitions });
    });
    let call = ProduceCall::new(count, done);
    for (slot, wanted) in request.partitions.into_iter().enumerate() {
        let completion = call.completion(slot);
        let found = convert::topic_partition(&wanted.topic_id, wanted.partition)
            .and_then(|tp: TopicPartition| broker.partition_or_error(tp));
        match found {
            Ok(partition) => partition.produce(
                wanted.batches,
                acks,
                convert::epoch_of(wanted.leader_epoch),
                deadline_ms,
                completion,
            ),
            Err(error) => completion.complete(Err(error)),
        }
    }
}

fn wire_result(
    broker: &Broker,
    topic_id: Bytes,
    partition: i32,
    result: ProduceResult,
) -> v1::ProducePartitionResult {
    match result {
        Ok(produced) => v1::ProducePartitionResult {
            topic_id,
            partition,
            error: None,
            base_offset: produced.base_offset.0,
            log_append_time_ms: produced.log_append_time_ms.unwrap_or(-1),
            duplicate: produced.duplicate,
            log_start_offset: produced.log_start.0,
            repeats: produced
                .repeats
                .iter()
                .map(|repeat| v1::RepeatedRecord { index: repeat.index, first_offset: repeat.first.0 })
                .collect(),
        },
        Err(error) => v1::ProducePartitionResult {
            topic_id,
            partition,
            error: Some(convert::error(broker.context(), &error)),
            base_offset: -1,
            log_append_time_ms: -1,
            ..Default::default()
        },
    }
}
