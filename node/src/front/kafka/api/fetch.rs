//! Fetch: waits until there is enough, an error, or the time is up; what is read is written beside the answer.

use super::fetch_answer::{FetchAnswer, PartitionAnswer};
use super::{NONE, Node, epoch_of, node_of};
use crate::error::ServeError;
use crate::front::kafka::codes::code;
use crate::front::kafka::dispatch::{Call, Refusal};
use crate::front::kafka::frame::Answer;
use crate::front::kafka::session::{Ask, Begun, Key, NO_SESSION, Outcome, Told, TopicKey, Wanted};
use crate::partition::{FetchWaiter, Fetched, ReadRequest};
use kafka_protocol::error::ResponseError::{
    ClusterAuthorizationFailed, UnknownTopicId, UnsupportedCompressionType,
};
use kafka_protocol::messages::{FetchRequest, TopicName};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_metadata::Image;
use strandline_record::{BatchIter, BrokerId, Compression, LeaderEpoch, Offset, PartitionId};
use strandline_record::{TopicId, TopicPartition};
use uuid::Uuid;

const MAX_WAIT: Duration = Duration::from_secs(60);
/// From this version topics have ids instead of names.
const TOPIC_IDS: i16 = 13;
/// From this version clients know zstd (KIP-110).
const KNOWS_ZSTD: i16 = 10;
const READ_COMMITTED: i8 = 1;

/// One partition of an answer, and whether it has news for an incremental one.
struct Read {
    key: Key,
    answer: PartitionAnswer,
    news: bool,
}

pub async fn fetch(call: &Call) -> Result<(Answer, Duration), Refusal> {
    let request: FetchRequest = call.decode()?;
    let wanted = wanted(call, &request);
    // The protocol of followers has no business on a listener for clients (CVE-2018-1288).
    if request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0 {
        let refused = ClusterAuthorizationFailed.code();
        let partitions: Vec<_> = wanted
            .into_iter()
            .map(|(key, _)| (key.topic, PartitionAnswer::error(key.partition, refused)))
            .collect();
        return Ok((
            encode(call, &request, (refused, NO_SESSION), &partitions, Duration::ZERO),
            Duration::ZERO,
        ));
    }
    let context = call.context();
    let ask = Ask {
        session: request.session_id,
        // Before there were sessions, every request was one by itself.
        epoch: request.session_epoch,
        by_id: call.version >= TOPIC_IDS,
        fresh_id: ((context.random_u64() & 0x7fff_ffff) as i32).max(1),
        now_ms: context.now_ms(),
    };
    let begun = call.front.sessions.lock().begin(ask, wanted, &forgotten(call, &request));
    let begun = match begun {
        Ok(begun) => begun,
        Err(code) => {
            return Ok((encode(call, &request, (code, NO_SESSION), &[], Duration::ZERO), Duration::ZERO));
        }
    };
    let read = wait(call, &request, &begun).await;
    if begun.session != NO_SESSION {
        let outcomes: Vec<Outcome> = read.iter().map(outcome).collect();
        call.front.sessions.lock().finish(begun.session, &outcomes);
    }
    let bytes = read.iter().map(|read| read.answer.records.len()).sum();
    let throttled = call.front.quotas.consumed(&context.image(), &call.client_id, bytes, context.now_ms());
    count(call, &read);
    let partitions: Vec<(TopicKey, PartitionAnswer)> = read
        .into_iter()
        .filter(|read| read.news || !begun.incremental)
        .map(|read| (read.key.topic, read.answer))
        .collect();
    Ok((encode(call, &request, (NONE, begun.session), &partitions, throttled), throttled))
}

/// What goes out, for metrics.
fn count(call: &Call, read: &[Read]) {
    let (meters, image) = (&call.context().meters.kafka, call.context().image());
    for Read { key, answer, .. } in read {
        meters.answered(answer.code);
        if !answer.records.is_empty() {
            call.front.broker.fetched(&meters.fetch, find(&image, key).ok(), &answer.records);
        }
    }
}

fn topic_key(call: &Call, name: &TopicName, id: Uuid) -> TopicKey {
    match call.version >= TOPIC_IDS {
        true => TopicKey::Id(id),
        false => TopicKey::Name(Arc::from(&***name)),
    }
}

fn wanted(call: &Call, request: &FetchRequest) -> Vec<(Key, Wanted)> {
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let key = topic_key(call, &topic.topic, topic.topic_id);
        wanted.extend(topic.partitions.iter().map(|partition| {
            let wanted = Wanted {
                offset: partition.fetch_offset,
                leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
                max_bytes: partition.partition_max_bytes,
            };
            (Key { topic: key.clone(), partition: partition.partition }, wanted)
        }));
    }
    wanted
}

fn forgotten(call: &Call, request: &FetchRequest) -> Vec<Key> {
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let key = topic_key(call, &topic.topic, topic.topic_id);
        forgotten.extend(topic.partitions.iter().map(|n| Key { topic: key.clone(), partition: *n }));
    }
    forgotten
}

fn outcome(read: &Read) -> Outcome {
    let told = Told { high_watermark: read.answer.high_watermark, log_start: read.answer.log_start };
    Outcome {
        key: read.key.clone(),
        told: (read.answer.code == NONE).then_some(told),
        had_records: !read.answer.records.is_empty(),
    }
}

/// Reads as often as something changes, until there is enough to answer with.
async fn wait(call: &Call, request: &FetchRequest, begun: &Begun) -> Vec<Read> {
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
    let deadline = tokio::time::Instant::now() + max_wait;
    let waiter = FetchWaiter::new();
    let stopping = &call.context().stopping;
    loop {
        let image = call.context().image();
        // Register before reading, so that what arrives in between is not missed.
        for (key, ..) in &begun.partitions {
            if let Ok(tp) = find(&image, key)
                && let Some(partition) = call.front.broker.partition(tp)
            {
                partition.wake_on_change(&waiter);
            }
        }
        let (read, enough) = read_all(call, request, begun, &image);
        if enough || stopping.is_cancelled() {
            return read;
        }
        if tokio::time::timeout_at(deadline, waiter.woken()).await.is_err() {
            return read_all(call, request, begun, &call.context().image()).0;
        }
    }
}

/// Reads what there is. The second value says whether the answer should go out now.
fn read_all(call: &Call, request: &FetchRequest, begun: &Begun, image: &Image) -> (Vec<Read>, bool) {
    let limit =
        usize::try_from(request.max_bytes).unwrap_or(0).min(call.context().config.fetch_max_bytes as usize);
    let (mut total, mut enough) = (0, begun.partitions.is_empty());
    let mut all = Vec::with_capacity(begun.partitions.len());
    for (key, wanted, told) in &begun.partitions {
        // The first batch of the first partition that has one comes whole, or a large record would hold up its
        // consumer for ever.
        let room = limit.saturating_sub(total);
        let read = read_one(call, image, &request.rack_id, key, wanted, (room, total == 0));
        let answer = read.unwrap_or_else(|failed| failed);
        enough |= answer.code != NONE || answer.diverging.is_some() || answer.preferred_replica >= 0;
        total += answer.records.len();
        let marks = Told { high_watermark: answer.high_watermark, log_start: answer.log_start };
        let news = !answer.records.is_empty()
            || answer.code != NONE
            || answer.diverging.is_some()
            || answer.preferred_replica >= 0
            || *told != Some(marks);
        all.push(Read { key: key.clone(), answer, news });
    }
    enough |= total >= usize::try_from(request.min_bytes).unwrap_or(0);
    (all, enough)
}

fn find(image: &Image, key: &Key) -> Result<TopicPartition, i16> {
    let unknown = code(&ServeError::UnknownPartition);
    let topic = match &key.topic {
        TopicKey::Name(name) => image.topic_by_name(name).ok_or(unknown)?,
        TopicKey::Id(id) => image.topics.get(&TopicId(*id)).ok_or(UnknownTopicId.code())?,
    };
    Ok(TopicPartition { topic: topic.id, partition: PartitionId(key.partition) })
}

/// A follower in the client's rack, if this node leads and stands in another one (KIP-392).
fn near_replica(call: &Call, image: &Image, tp: TopicPartition, rack: &str) -> Option<i32> {
    let own = call.context().id;
    let agreed = image.partition(tp)?;
    let stands_there = |id: &BrokerId| {
        image.broker(*id).is_some_and(|broker| {
            !broker.fenced && broker.rack.as_deref() == Some(rack) && node_of(broker).is_some()
        })
    };
    if rack.is_empty() || agreed.leader != Some(own) || stands_there(&own) {
        return None;
    }
    let near: Vec<&BrokerId> = agreed.isr.iter().filter(|id| stands_there(id)).collect();
    // Several share the partitions.
    let share = usize::try_from(tp.partition.0).unwrap_or(0) % near.len().max(1);
    near.get(share).and_then(|id| i32::try_from(id.0).ok())
}

fn read_one(
    call: &Call,
    image: &Image,
    rack: &str,
    key: &Key,
    wanted: &Wanted,
    (room, first): (usize, bool),
) -> Result<PartitionAnswer, PartitionAnswer> {
    let failed = |code| PartitionAnswer::error(key.partition, code);
    let tp = find(image, key).map_err(failed)?;
    let whole = ReadRequest {
        from: Offset(wanted.offset),
        leader_epoch: epoch_of(wanted.leader_epoch),
        last_fetched_epoch: epoch_of(wanted.last_fetched_epoch),
        max_bytes: usize::try_from(wanted.max_bytes).unwrap_or(0).min(room),
        min_one_batch: first,
    };
    let near = near_replica(call, image, tp, rack);
    // Where another replica is to be asked, only whether there is something to ask for.
    let asked = match near {
        Some(_) => ReadRequest { max_bytes: 0, min_one_batch: false, ..whole },
        None => whole,
    };
    let read = call.front.broker.partition_or_error(tp).and_then(|partition| match partition.read(&asked) {
        Err(ServeError::NotLeader { .. }) if !rack.is_empty() => partition.read_following(&whole),
        read => read,
    });
    match read {
        Ok(fetched) if call.version < KNOWS_ZSTD && has_zstd(&fetched) => {
            let log_start = fetched.log_start.0;
            Err(PartitionAnswer { log_start, ..failed(UnsupportedCompressionType.code()) })
        }
        Ok(fetched) => Ok(PartitionAnswer {
            number: key.partition,
            code: NONE,
            high_watermark: fetched.high_watermark.0,
            log_start: fetched.log_start.0,
            diverging: fetched.diverging.map(|(epoch, end)| (epoch.map_or(-1, LeaderEpoch::get), end.0)),
            leader: None,
            preferred_replica: near.unwrap_or(-1),
            records: fetched.batches,
        }),
        Err(error) => {
            let log_start = match &error {
                ServeError::OffsetOutOfRange { log_start, .. } => log_start.0,
                _ => -1,
            };
            let leader = match &error {
                ServeError::NotLeader { leader: Some(leader), epoch } => {
                    i32::try_from(leader.0).ok().map(|id| (id, epoch.0))
                }
                _ => None,
            };
            Err(PartitionAnswer { log_start, leader, ..failed(code(&error)) })
        }
    }
}

fn has_zstd(fetched: &Fetched) -> bool {
    BatchIter::new(&fetched.batches).flatten().any(|(header, _)| header.compression() == Compression::Zstd)
}

fn encode(
    call: &Call,
    request: &FetchRequest,
    (code, session): (i16, i32),
    partitions: &[(TopicKey, PartitionAnswer)],
    throttled: Duration,
) -> Answer {
    let image = call.context().image();
    let leaders = partitions.iter().filter_map(|(_, partition)| partition.leader);
    let endpoints: BTreeMap<i32, Node> = leaders
        .filter_map(|(id, _)| {
            let broker = image.broker(BrokerId(u64::try_from(id).ok()?))?;
            Some((id, node_of(broker)?))
        })
        .collect();
    let endpoints: Vec<Node> = endpoints.into_values().collect();
    FetchAnswer {
        version: call.version,
        correlation: call.correlation(),
        throttle_ms: throttled.as_millis() as i32,
        code,
        session,
        read_committed: request.isolation_level == READ_COMMITTED,
        partitions,
        endpoints: &endpoints,
    }
    .encode()
}
