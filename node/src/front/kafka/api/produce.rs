//! Produce: batches are appended where they were decoded and answered as they become durable.
//!
//! Two bounds hold back a client that is too fast, both for the whole node: bytes that wait for their
//! acknowledgement, and bytes that wait for the journal. Past either the connection is not read.

use super::{NONE, Node, node_of, text, topic_of, wire_id};
use crate::error::ServeError;
use crate::front::kafka::codes::code;
use crate::front::kafka::connection::{Pending, Settled};
use crate::front::kafka::dispatch::{Call, Refusal};
use crate::metrics::Sent;
use crate::partition::{Acks, ProduceCall, ProduceResult};
use bytes::Bytes;
use kafka_protocol::error::ResponseError::{
    InvalidRequiredAcks, InvalidTxnState, TransactionalIdAuthorizationFailed, UnknownTopicId,
    UnsupportedCompressionType, UnsupportedForMessageFormat,
};
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use std::collections::BTreeMap;
use std::time::Duration;
use strandline_record::{BatchHeader, Compression, MAGIC, PartitionId, TopicPartition};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

/// While this much waits for the journal, no further request is begun.
const MAX_JOURNAL_PENDING: usize = 48 << 20;
const MAX_TIMEOUT: Duration = Duration::from_secs(120);
/// Where the magic byte lies, in batches of every format.
const MAGIC_AT: usize = 16;
/// From this version a leader that moved is named in the answer (KIP-951).
const NAMES_LEADER: i16 = 10;
/// From this version clients know zstd (KIP-110).
const KNOWS_ZSTD: i16 = 7;

/// One partition's place in the answer.
struct Place {
    topic: TopicName,
    id: Uuid,
    partition: i32,
    sent: Sent,
}

/// What became of one partition before or after it was appended.
type Settling = Result<ProduceResult, i16>;

pub async fn start(call: Call) -> Result<(Pending, Duration), Refusal> {
    let began = Instant::now();
    let request: ProduceRequest = call.decode()?;
    let bytes: usize = request
        .topic_data
        .iter()
        .flat_map(|topic| &topic.partition_data)
        .map(|partition| partition.records.as_ref().map_or(0, Bytes::len))
        .sum();
    let throttled = {
        let context = call.context();
        call.front.quotas.produced(&context.image(), &call.client_id, bytes, context.now_ms())
    };
    let broker = call.front.broker.clone();
    let budget = broker.produce_budget(bytes).await;
    // What has been answered (acks below all, or too late) may still wait for the disk.
    while broker.context().store.journal_pending_bytes() > MAX_JOURNAL_PENDING {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (settled, settling) = oneshot::channel();
    let answers = request.acks != 0;
    call.context().meters.kafka.produce.throttle(throttled);
    let finish = move |call: &Call, places: Vec<Place>, results: Vec<Settling>| {
        count(call, &places, &results);
        call.context().meters.kafka.produce.took.record(began.elapsed());
        let failed = results.iter().any(|result| !matches!(result, Ok(Ok(_))));
        let answer = match (answers, failed) {
            (true, _) => call.encode(&response(call, places, results, throttled)).map(Settled::Answer).ok(),
            (false, true) => Some(Settled::Close),
            (false, false) => Some(Settled::Nothing),
        };
        // Without one the connection ends; the client may be gone.
        let _ = answer.map(|answer| settled.send(answer));
        drop(budget);
    };
    begin(call, request, finish);
    Ok((Pending::Later(settling), throttled))
}

/// Appends all batches; `finish` is called when the last one has its result.
fn begin(
    call: Call,
    request: ProduceRequest,
    finish: impl FnOnce(&Call, Vec<Place>, Vec<Settling>) + Send + 'static,
) {
    let acks = match request.acks {
        -1 => Ok(Acks::All),
        1 => Ok(Acks::Leader),
        0 => Ok(Acks::None),
        _ => Err(InvalidRequiredAcks.code()),
    };
    let refused = match (&request.transactional_id, &acks) {
        (Some(_), _) => Some(TransactionalIdAuthorizationFailed.code()),
        (None, Err(code)) => Some(*code),
        (None, Ok(_)) => None,
    };
    let image = call.context().image();
    let (mut places, mut begun, mut results) = (Vec::new(), Vec::new(), Vec::<Option<Settling>>::new());
    for topic in request.topic_data {
        let known = topic_of(&image, &topic.name, topic.topic_id);
        for data in topic.partition_data {
            let records = data.records.unwrap_or_default();
            let checked = match (refused, known) {
                (Some(code), _) => Err(Err(code)),
                (None, None) if !topic.topic_id.is_nil() => Err(Err(UnknownTopicId.code())),
                (None, None) => Err(Ok(Err(ServeError::UnknownPartition))),
                (None, Some(known)) => match check(&records, call.version) {
                    Err(code) => Err(Err(code)),
                    Ok(()) => Ok(TopicPartition { topic: known.id, partition: PartitionId(data.index) }),
                },
            };
            places.push(Place {
                topic: topic.name.clone(),
                id: topic.topic_id,
                partition: data.index,
                sent: Sent::of(&records),
            });
            match checked {
                Err(settling) => results.push(Some(settling)),
                Ok(tp) => {
                    begun.push((tp, records));
                    results.push(None);
                }
            }
        }
    }
    if begun.is_empty() {
        return finish(&call, places, results.into_iter().flatten().collect());
    }
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).min(MAX_TIMEOUT);
    let deadline_ms = call.context().now_ms() + timeout.as_millis() as u64;
    let acks = acks.unwrap_or(Acks::All);
    let broker = call.front.broker.clone();
    let done = Box::new(move |appended: Vec<ProduceResult>| {
        let mut appended = appended.into_iter();
        let all = results.into_iter().map(|early| match early {
            Some(settling) => settling,
            None => Ok(appended.next().expect("a result for each batch that was begun")),
        });
        finish(&call, places, all.collect());
    });
    let results = ProduceCall::new(begun.len(), done);
    for (slot, (tp, records)) in begun.into_iter().enumerate() {
        let completion = results.completion(slot);
        match broker.partition_or_error(tp) {
            Ok(partition) => partition.produce(records, acks, None, deadline_ms, completion),
            Err(error) => completion.complete(Err(error)),
        }
    }
}

fn count(call: &Call, places: &[Place], results: &[Settling]) {
    let meters = &call.context().meters.kafka;
    for (place, settling) in places.iter().zip(results) {
        match settling {
            Ok(result) => {
                meters.produce.produced(place.sent, result);
                meters.answered(result.as_ref().err().map_or(NONE, code));
            }
            Err(code) => meters.answered(*code),
        }
    }
}

/// What has a code of its own here. Everything else is checked where the batch is appended.
fn check(records: &Bytes, version: i16) -> Result<(), i16> {
    match records.get(MAGIC_AT) {
        Some(magic) if *magic as i8 != MAGIC => return Err(UnsupportedForMessageFormat.code()),
        _ => {}
    }
    let Ok(header) = BatchHeader::parse(records) else { return Ok(()) };
    if header.is_transactional() {
        return Err(InvalidTxnState.code());
    }
    if header.compression() == Compression::Zstd && version < KNOWS_ZSTD {
        return Err(UnsupportedCompressionType.code());
    }
    Ok(())
}

fn response(call: &Call, places: Vec<Place>, results: Vec<Settling>, throttled: Duration) -> ProduceResponse {
    let mut topics: Vec<TopicProduceResponse> = Vec::new();
    let mut endpoints = BTreeMap::new();
    for (place, result) in places.into_iter().zip(results) {
        let partition = of_partition(call, place.partition, result, &mut endpoints);
        match topics.last_mut().filter(|last| last.name == place.topic && last.topic_id == place.id) {
            Some(last) => last.partition_responses.push(partition),
            None => topics.push(
                TopicProduceResponse::default()
                    .with_name(place.topic)
                    .with_topic_id(place.id)
                    .with_partition_responses(vec![partition]),
            ),
        }
    }
    ProduceResponse::default()
        .with_responses(topics)
        .with_throttle_time_ms(throttled.as_millis() as i32)
        .with_node_endpoints(endpoints.into_values().collect())
}

fn of_partition(
    call: &Call,
    number: i32,
    result: Settling,
    endpoints: &mut BTreeMap<i32, NodeEndpoint>,
) -> PartitionProduceResponse {
    let blank = PartitionProduceResponse::default().with_index(number).with_base_offset(-1);
    let error = match result {
        Ok(Ok(produced)) => {
            return blank
                .with_error_code(NONE)
                .with_base_offset(produced.base_offset.0)
                .with_log_append_time_ms(produced.log_append_time_ms.unwrap_or(-1))
                .with_log_start_offset(produced.log_start.0);
        }
        Ok(Err(error)) => error,
        Err(code) => return blank.with_error_code(code),
    };
    let answer = blank.with_error_code(code(&error)).with_error_message(Some(text(&error.to_string())));
    match error {
        ServeError::NotLeader { leader: Some(leader), epoch } if call.version >= NAMES_LEADER => {
            let image = call.context().image();
            if let Some(Node { id, host, port, rack }) = image.broker(leader).and_then(|b| node_of(b)) {
                let endpoint = NodeEndpoint::default();
                endpoints
                    .insert(id.0, endpoint.with_node_id(id).with_host(host).with_port(port).with_rack(rack));
            }
            let leader = LeaderIdAndEpoch::default().with_leader_id(wire_id(leader));
            answer.with_current_leader(leader.with_leader_epoch(epoch.0))
        }
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_record::BatchBuilder;

    #[test]
    fn old_message_formats_and_what_the_client_cannot_know_are_refused_by_name() {
        let mut old = vec![0; 100];
        for magic in [0, 1] {
            old[MAGIC_AT] = magic;
            let refused = check(&Bytes::from(old.clone()), 9);
            assert_eq!(refused, Err(UnsupportedForMessageFormat.code()));
        }
        let mut built = BatchBuilder::new(Compression::Zstd);
        built.append(1, None, Some(b"value"), &[]);
        let batch = built.build();
        assert_eq!(check(&batch, KNOWS_ZSTD - 1), Err(UnsupportedCompressionType.code()));
        assert_eq!(check(&batch, KNOWS_ZSTD), Ok(()));
        assert_eq!(
            check(&batch.slice(..20), KNOWS_ZSTD),
            Ok(()),
            "what is cut off is refused where it is appended"
        );
    }
}
