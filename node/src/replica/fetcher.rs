//! The follower's end: one task and one stream for each broker that leads partitions followed here.

use super::frame::{Frame, FrameReader, FrameWriter, Limits, PREFACE};
use super::{KEEP_ALIVE, SILENCE};
use crate::context::Context;
use crate::net;
use crate::partition::{Partition, Then};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use strandline_record::{BrokerId, PartitionId, TopicId, TopicPartition};
use strandline_wire::peer::{ReplicaData, ReplicaFetch, ReplicaFetchPartition};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

const OPEN_DEADLINE: Duration = Duration::from_secs(3);
const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// A refused request (an image that lags) is repeated after this.
const ASK_LATER: Duration = Duration::from_millis(20);
const ASK_MUCH_LATER: Duration = Duration::from_secs(1);
const RECONNECT: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// While this much waits for the journal, nothing more is asked for.
const MAX_PENDING_BYTES: usize = 32 << 20;
/// Between two looks at it.
const JOURNAL_PAUSE: Duration = Duration::from_millis(1);
/// A head names partitions, 100 000 at most in one request; a body is a message's worth of batches, or one larger one.
const LIMITS: Limits = Limits { head: 16 << 20, body: net::MAX_MESSAGE };

/// All fetchers of this node, by leader.
#[derive(Debug)]
pub struct Fetchers {
    context: Arc<Context>,
    fetchers: Mutex<BTreeMap<BrokerId, Arc<Fetcher>>>,
}

impl Fetchers {
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Fetchers { context, fetchers: Mutex::default() })
    }

    /// Adds a partition to the fetcher for `leader`, which is started when there is none.
    pub fn attach(&self, leader: BrokerId, partition: Arc<Partition>) -> Arc<Fetcher> {
        let mut fetchers = self.fetchers.lock();
        let fetcher = fetchers.entry(leader).or_insert_with(|| {
            let fetcher = Arc::new(Fetcher { leader, state: Mutex::default(), notify: Notify::new() });
            let (running, env) =
                (tokio::spawn(fetcher.clone().run(self.context.clone())), self.context.env.clone());
            tokio::spawn(async move {
                if running.await.is_err_and(|error| error.is_panic()) {
                    env.die("replication", &std::io::Error::other("the task panicked"));
                }
            });
            fetcher
        });
        fetcher.attach(partition);
        fetcher.clone()
    }

    pub fn stop(&self) {
        self.fetchers.lock().clear();
    }
}

/// Partitions that follow one leader, and which of them have something to say to it.
#[derive(Debug)]
pub struct Fetcher {
    leader: BrokerId,
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct State {
    partitions: BTreeMap<TopicPartition, Arc<Partition>>,
    dirty: BTreeSet<TopicPartition>,
    /// Refused requests, repeated together at the next pause.
    later: BTreeSet<TopicPartition>,
    /// The same, at the next long pause.
    much_later: BTreeSet<TopicPartition>,
    /// Left this leader; it is told, so that it forgets the outstanding request.
    stopped: BTreeSet<TopicPartition>,
}

impl Fetcher {
    fn attach(&self, partition: Arc<Partition>) {
        let mut state = self.state.lock();
        let tp = partition.tp();
        state.partitions.insert(tp, partition);
        state.stopped.remove(&tp);
        state.dirty.insert(tp);
        self.notify.notify_one();
    }

    pub fn detach(&self, tp: TopicPartition) {
        let mut state = self.state.lock();
        state.partitions.remove(&tp);
        state.dirty.remove(&tp);
        state.later.remove(&tp);
        state.much_later.remove(&tp);
        state.stopped.insert(tp);
        self.notify.notify_one();
    }

    /// The partition has a request or an acknowledgement to send. Cheap; called from the journal's thread.
    pub fn mark_dirty(&self, tp: TopicPartition) {
        if self.state.lock().dirty.insert(tp) {
            self.notify.notify_one();
        }
    }

    async fn run(self: Arc<Self>, context: Arc<Context>) {
        let mut pause = RECONNECT;
        loop {
            while self.state.lock().partitions.is_empty() {
                tokio::select! {
                    biased;
                    () = context.stopping.cancelled() => return,
                    () = self.notify.notified() => {}
                }
            }
            let opened = tokio::time::Instant::now();
            let ended = tokio::select! {
                biased;
                () = context.stopping.cancelled() => return,
                ended = self.stream(&context) => ended,
            };
            if let Err(error) = ended {
                tracing::debug!(leader = %self.leader, %error, "replication stream ended");
            }
            for partition in self.all() {
                partition.disconnected(self.leader);
                self.mark_dirty(partition.tp());
            }
            pause = if opened.elapsed() > RECONNECT_MAX { RECONNECT } else { (pause * 2).min(RECONNECT_MAX) };
            tokio::select! {
                biased;
                () = context.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn all(&self) -> Vec<Arc<Partition>> {
        self.state.lock().partitions.values().cloned().collect()
    }

    /// One stream, until it breaks or this broker has been registered anew.
    async fn stream(&self, context: &Arc<Context>) -> io::Result<()> {
        let Some(epoch) = context.broker_epoch() else { return Ok(()) };
        let addr = context
            .image()
            .broker(self.leader)
            .map(|broker| broker.endpoints.peer.to_string())
            .ok_or_else(|| io::Error::other(format!("broker {} is not registered", self.leader)))?;
        let blank = ReplicaFetch {
            broker_id: context.id.0,
            broker_epoch: epoch.0,
            cluster_id: context.cluster_id.get().map(|id| id.to_string()).unwrap_or_default(),
            partitions: Vec::new(),
        };
        let mut io = context.peers.connect(&addr).await?;
        let open = async {
            io.write_all(&PREFACE).await?;
            let (read, write) = tokio::io::split(io);
            let (mut reader, mut writer) = (FrameReader::new(read, LIMITS), FrameWriter::new(write));
            writer.send(&ReplicaFetch { partitions: self.gather(), ..blank.clone() }, Vec::new()).await?;
            let opened = receive(&mut reader).await?;
            Ok::<_, io::Error>((reader, writer, opened))
        };
        let (mut reader, mut writer, opened) =
            within(OPEN_DEADLINE, "the leader's broker did not open the stream", open).await?;
        self.take_in(opened)?;
        let mut much_later = tokio::time::interval(ASK_MUCH_LATER);
        much_later.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut later = tokio::time::interval(ASK_LATER);
        later.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut sent, mut heard) = (Instant::now(), Instant::now());
        loop {
            if context.broker_epoch() != Some(epoch) {
                return Ok(()); // The leader must hear it under the new epoch.
            }
            let waiting = !self.state.lock().later.is_empty();
            tokio::select! {
                biased;
                data = receive(&mut reader) => {
                    heard = Instant::now();
                    self.take_in(data?)?;
                }
                () = self.notify.notified() => {}
                // Also notices, on a silent stream, that this broker has been registered anew.
                _ = much_later.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(timed_out("nothing was heard from the leader's broker"));
                    }
                    let mut state = self.state.lock();
                    let again = std::mem::take(&mut state.much_later);
                    state.dirty.extend(again);
                }
                _ = later.tick(), if waiting => {
                    let mut state = self.state.lock();
                    let again = std::mem::take(&mut state.later);
                    state.dirty.extend(again);
                }
            }
            // Nothing is asked for and nothing is read while the disk is behind.
            let behind = || context.store.journal_pending_bytes() > MAX_PENDING_BYTES;
            while behind() && sent.elapsed() < KEEP_ALIVE {
                tokio::time::sleep(JOURNAL_PAUSE).await;
                heard = Instant::now();
            }
            let partitions = if behind() { Vec::new() } else { self.gather() };
            if !partitions.is_empty() || sent.elapsed() >= KEEP_ALIVE {
                let fetch = ReplicaFetch { partitions, ..blank.clone() };
                within(SEND_DEADLINE, "the leader's broker does not read", writer.send(&fetch, Vec::new()))
                    .await?;
                sent = Instant::now();
            }
        }
    }

    /// Gives each partition its answer.
    fn take_in(&self, message: Message) -> io::Result<()> {
        let Message { head, mut body } = message;
        if !head.refusal.is_empty() {
            return Err(io::Error::other(head.refusal));
        }
        for answer in &head.partitions {
            let size = answer.batch_bytes as usize;
            if size > body.len() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a message names more than it carries",
                ));
            }
            let batches = body.split_to(size);
            let Ok(topic) = Uuid::from_slice(&answer.topic_id) else { continue };
            let tp = TopicPartition { topic: TopicId(topic), partition: PartitionId(answer.partition) };
            let partition = self.state.lock().partitions.get(&tp).cloned();
            let Some(partition) = partition else { continue };
            match partition.replica_data(self.leader, answer, &batches) {
                Then::Ask => {
                    self.state.lock().dirty.insert(tp);
                }
                Then::AskLater => {
                    self.state.lock().later.insert(tp);
                }
                Then::AskMuchLater => {
                    self.state.lock().much_later.insert(tp);
                }
                Then::Nothing => {}
            }
        }
        Ok(())
    }

    /// Requests and acknowledgements of all dirty partitions.
    fn gather(&self) -> Vec<ReplicaFetchPartition> {
        let (dirty, stopped): (Vec<Arc<Partition>>, BTreeSet<TopicPartition>) = {
            let mut state = self.state.lock();
            let dirty = std::mem::take(&mut state.dirty);
            let found = dirty.iter().filter_map(|tp| state.partitions.get(tp).cloned()).collect();
            (found, std::mem::take(&mut state.stopped))
        };
        let stops = stopped.into_iter().map(|tp| ReplicaFetchPartition {
            topic_id: bytes::Bytes::copy_from_slice(tp.topic.0.as_bytes()),
            partition: tp.partition.0,
            stop: true,
            ..Default::default()
        });
        stops.chain(dirty.iter().filter_map(|partition| partition.next_request(self.leader))).collect()
    }
}

/// What the leader's broker sends: the answers, and their batches back to back.
struct Message {
    head: ReplicaData,
    body: Bytes,
}

async fn receive<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>) -> io::Result<Message> {
    let Some(Frame { head, body }) = reader.next().await? else {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the leader's broker ended the stream"));
    };
    Ok(Message { head: ReplicaData::decode(head)?, body })
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

async fn within<T>(
    deadline: Duration,
    what: &'static str,
    step: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::time::timeout(deadline, step).await.unwrap_or_else(|_| Err(timed_out(what)))
}
