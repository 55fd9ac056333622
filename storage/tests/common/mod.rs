//! A store on a simulated disk, and a model of its logs to compare it with.
#![allow(dead_code)]

use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use strandline_record::{
    BatchBuilder, BatchIter, BrokerId, Compression, DecodeLimits, LeaderEpoch, Offset, PartitionId,
    ProducerEpoch, ProducerId, ProducerStamp, SharedBatchIter, TopicId, TopicPartition, decode_batch,
};
use strandline_storage::disk::{Disk, SimDisk};
use strandline_storage::worker::ManualHost;
use strandline_storage::{
    AppendError, FlushMode, LogConfig, OpenError, PartitionLog, RecoveryReport, Store, StoreConfig,
};
use uuid::Uuid;

pub const ROOT: &str = "/data";
pub const NOW: i64 = 1_700_000_000_000;

pub fn tp(n: i32) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(0xabc)), partition: PartitionId(n) }
}

pub fn store_config() -> StoreConfig {
    StoreConfig {
        journal_file_bytes: 48 << 10,
        journal_files_max: 3,
        tail_cache_bytes: 8 << 10,
        reserved_bytes: 64 << 10,
        open_files_max: 8,
        sync_files_max: 4,
        dedupe_buffer_bytes: 512,
        ..StoreConfig::new(BrokerId(1), Uuid::from_u128(77))
    }
}

pub fn log_config() -> LogConfig {
    LogConfig { segment_bytes: 3000, index_interval_bytes: 256, retention_ms: None, ..LogConfig::default() }
}

/// One running store.
pub struct Node {
    pub disk: SimDisk,
    pub host: ManualHost,
    pub store: Arc<Store>,
    pub report: RecoveryReport,
}

impl Node {
    pub fn try_open(disk: &SimDisk) -> Result<Node, OpenError> {
        Node::try_open_through(Arc::new(disk.clone()), disk)
    }

    /// `through` is something in front of `disk`.
    pub fn try_open_through(through: Arc<dyn Disk>, disk: &SimDisk) -> Result<Node, OpenError> {
        let host = ManualHost::new();
        let (store, report) = Store::open(through, Path::new(ROOT), store_config(), &host, NOW)?;
        Ok(Node { disk: disk.clone(), host, store, report })
    }

    pub fn open(disk: &SimDisk) -> Node {
        Node::try_open(disk).expect("the store opens")
    }

    pub fn log(&self, n: i32) -> Arc<PartitionLog> {
        self.store.open_log(tp(n), &log_config()).expect("the log opens")
    }

    pub fn run(&self) {
        self.host.run_all().expect("the workers go on");
    }

    /// Dies without a word; nothing written is lost.
    pub fn kill(self) -> SimDisk {
        let disk = self.disk.clone();
        disk.crash();
        disk
    }

    /// Dies with the machine.
    pub fn power_loss(self) -> SimDisk {
        let disk = self.disk.clone();
        disk.power_loss();
        disk
    }

    pub fn checkpoint(&self) {
        self.run();
        self.store.request_checkpoint();
        self.run();
    }
}

/// A batch of `count` records whose first value begins with `id`.
pub fn batch(id: u64, count: i32, size: usize) -> Bytes {
    batch_with(id, count, size, None, NOW)
}

pub fn batch_with(
    id: u64,
    count: i32,
    size: usize,
    producer: Option<(i64, i16, i32)>,
    timestamp: i64,
) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(producer.map(|(producer, epoch, base_sequence)| ProducerStamp {
        id: ProducerId(producer),
        epoch: ProducerEpoch(epoch),
        base_sequence,
    }));
    for n in 0..count {
        let mut value = format!("{id}/{n}:").into_bytes();
        value.resize(value.len() + size, b'.');
        builder.append(timestamp, Some(&id.to_be_bytes()), Some(&value), &[]);
    }
    builder.build()
}

/// As a leader sends it to a follower.
pub fn stamped(batch: &Bytes, base: i64, epoch: i32) -> Bytes {
    let mut bytes = batch.to_vec();
    strandline_record::write_base_offset(&mut bytes, Offset(base));
    strandline_record::write_leader_epoch(&mut bytes, LeaderEpoch(epoch));
    bytes.into()
}

/// What one batch of a log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub base: i64,
    pub end: i64,
    pub epoch: i32,
    pub id: u64,
}

/// All that can be seen of a log.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LogState {
    pub start: i64,
    pub end: i64,
    pub batches: Vec<Seen>,
}

pub fn see(log: &Arc<PartitionLog>) -> LogState {
    let (start, end) = (log.log_start(), log.log_end());
    let mut batches = Vec::new();
    let mut from = start;
    while from < end {
        let read =
            log.read(from, 1500, true, end).unwrap_or_else(|error| panic!("reading at {from}: {error}"));
        assert!(!read.bytes.is_empty(), "there is a batch at {from} below {end}");
        for item in SharedBatchIter::new(read.bytes.clone()) {
            let (header, bytes) = item.expect("whole batches are read");
            let decoded =
                decode_batch(bytes, DecodeLimits { max_decompressed_bytes: 1 << 24 }).expect("intact");
            let first = decoded.iter().next().expect("a record").expect("a whole record");
            let key = first.key.expect("a key");
            batches.push(Seen {
                base: header.base_offset().get(),
                end: header.next_offset().get(),
                epoch: header.leader_epoch().get(),
                id: u64::from_be_bytes(key.as_ref().try_into().expect("8 bytes")),
            });
        }
        from = read.next_offset;
    }
    assert_eq!(from, end.max(start), "batches end at the log end");
    LogState { start: start.get(), end: end.get(), batches }
}

/// Everything that must be consistent about a log, whatever happened.
pub fn check_consistent(log: &Arc<PartitionLog>) -> LogState {
    let state = see(log);
    for pair in state.batches.windows(2) {
        assert_eq!(pair[0].end, pair[1].base, "batches are contiguous");
        assert!(pair[0].epoch <= pair[1].epoch, "epochs do not decrease");
    }
    if let Some(last) = state.batches.last() {
        assert_eq!(last.end, state.end);
        assert_eq!(log.last_epoch(), Some(LeaderEpoch(last.epoch)), "the epoch cache knows the last epoch");
    }
    // The epoch cache says what the batches say.
    for epoch in 0..20 {
        let expected =
            state.batches.iter().rfind(|batch| batch.epoch <= epoch).map(|batch| (batch.epoch, batch.end));
        let answered = log.end_of_epoch(LeaderEpoch(epoch)).map(|(epoch, end)| (epoch.get(), end.get()));
        if !state.batches.is_empty() && expected.is_some() {
            assert_eq!(answered, expected, "end of epoch {epoch}");
        }
    }
    assert!(log.log_start() <= log.log_end() && log.flushed_end() <= log.log_end());
    state
}

/// The states that a log went through. After a loss of power it must be in one of those from `durable` on.
#[derive(Clone, Debug)]
pub struct History {
    pub states: Vec<Option<LogState>>,
    pub durable: usize,
    /// `flush=os`: durable by checkpoints only.
    pub os: bool,
    /// States that were reached by starting over.
    pub resets: Vec<usize>,
    /// It was, and there was no checkpoint since: the flushed end is a promise of that time.
    pub unsynced: bool,
}

impl History {
    pub fn new() -> Self {
        History { states: vec![None], durable: 0, os: false, resets: vec![], unsynced: false }
    }

    pub fn current(&self) -> &Option<LogState> {
        self.states.last().expect("there is always one")
    }

    pub fn push(&mut self, state: Option<LogState>) {
        self.states.push(state);
    }

    pub fn all_durable(&mut self) {
        self.durable = self.states.len() - 1;
    }

    pub fn allows(&self, found: &Option<LogState>) -> bool {
        let states = &self.states[self.durable..];
        if states.contains(found) {
            return true;
        }
        // Without the journal, the tail of a state may be missing, and the log start may be an older or a newer
        // one; but records from before and after starting over are never mixed.
        let Some(found) = found.as_ref().filter(|_| self.os || self.unsynced) else { return false };
        let start_known = states.iter().flatten().any(|state| state.start == found.start);
        let lineage = |at: usize| self.resets.iter().filter(|reset| **reset <= at).count();
        let explains = |at: usize, state: &LogState| {
            let from = state.start.max(found.start);
            let kept: Vec<&Seen> = state.batches.iter().filter(|batch| batch.end > from).collect();
            let (older, newer): (Vec<&Seen>, Vec<&Seen>) =
                found.batches.iter().partition(|batch| batch.end <= from);
            let older_known = older.iter().all(|batch| {
                let mut same = (0..at).filter(|earlier| lineage(*earlier) == lineage(at));
                same.any(|earlier| self.states[earlier].as_ref().is_some_and(|s| s.batches.contains(batch)))
            });
            kept.len() >= newer.len() && newer.iter().zip(kept).all(|(a, b)| *a == b) && older_known
        };
        let mut states = self.states.iter().enumerate().skip(self.durable);
        start_known && states.any(|(at, state)| state.as_ref().is_some_and(|state| explains(at, state)))
    }

    pub fn goes_on_from(&mut self, found: Option<LogState>) {
        *self =
            History { states: vec![found], durable: 0, os: self.os, resets: vec![], unsynced: self.unsynced };
    }
}

/// A store with a history of each of its logs; every operation is done to both. `Err`: the disk crashed.
pub struct Modelled {
    pub node: Node,
    pub logs: BTreeMap<i32, History>,
    pub next_id: u64,
    /// By log: the idempotent producer's next sequence at each state is told by the batches it finds.
    pub epoch: i32,
    /// Some logs have not always had flush=ack.
    pub mixed: bool,
}

#[derive(Debug)]
pub struct DiskCrashed;

impl Modelled {
    pub fn open(disk: &SimDisk) -> Result<Modelled, DiskCrashed> {
        let node = Node::try_open(disk).map_err(|_| DiskCrashed)?;
        Ok(Modelled { node, logs: BTreeMap::new(), next_id: 1, epoch: 1, mixed: false })
    }

    fn history(&mut self, n: i32) -> &mut History {
        self.logs.entry(n).or_insert_with(History::new)
    }

    fn state(&mut self, n: i32) -> LogState {
        self.history(n).current().clone().expect("the log is open")
    }

    pub fn exists(&self, n: i32) -> bool {
        self.logs.get(&n).is_some_and(|history| history.current().is_some())
    }

    pub fn create(&mut self, n: i32) -> Result<(), DiskCrashed> {
        if !self.exists(n) {
            self.node.store.open_log(tp(n), &log_config()).map_err(|_| DiskCrashed)?;
            self.history(n).push(Some(LogState::default()));
        }
        Ok(())
    }

    fn log(&self, n: i32) -> Arc<PartitionLog> {
        self.node.store.get(tp(n)).expect("the log is open")
    }

    pub fn append(&mut self, n: i32, count: i32, size: usize) -> Result<(), DiskCrashed> {
        self.create(n)?;
        let id = self.next_id;
        self.next_id += 1;
        let mut state = self.state(n);
        // One producer for each log, whose sequence is the offset.
        let producer = Some((i64::from(n) + 100, 0, state.end as i32));
        let batch = batch_with(id, count, size, producer, NOW + state.end);
        match self.log(n).append_as_leader(&batch, LeaderEpoch(self.epoch), NOW) {
            Ok(appended) => assert_eq!(appended.base_offset.get(), state.end),
            // After a cut the producer would have to begin a new epoch: it writes without one.
            Err(AppendError::OutOfOrderSequence { .. }) => {
                let batch = batch_with(id, count, size, None, NOW + state.end);
                let appended = self.log(n).append_as_leader(&batch, LeaderEpoch(self.epoch), NOW);
                appended.map_err(|_| DiskCrashed)?;
            }
            Err(AppendError::Failed(_) | AppendError::StorageFull) => return Err(DiskCrashed),
            Err(error) => panic!("append: {error}"),
        }
        let (base, end) = (state.end, state.end + i64::from(count));
        state.batches.push(Seen { base, end, epoch: self.epoch, id });
        state.end = end;
        self.history(n).push(Some(state));
        Ok(())
    }

    /// Cuts to the batch boundary at or below `to`.
    pub fn truncate(&mut self, n: i32, to: i64) -> Result<(), DiskCrashed> {
        self.create(n)?;
        let mut state = self.state(n);
        let to = to.clamp(state.start, state.end);
        let end = self.log(n).truncate_to(Offset(to)).map_err(|_| DiskCrashed)?;
        if to < state.end {
            state.batches.retain(|batch| batch.end <= to);
            state.end = state.batches.last().map_or(state.start, |last| last.end.max(state.start));
            state.batches.retain(|batch| batch.end > state.start);
            self.history(n).push(Some(state.clone()));
        }
        assert_eq!(end.get(), state.end, "truncated to {to}");
        self.epoch += 1;
        Ok(())
    }

    pub fn reset(&mut self, n: i32, start: i64) -> Result<(), DiskCrashed> {
        self.create(n)?;
        self.log(n).reset_to(Offset(start)).map_err(|_| DiskCrashed)?;
        let history = self.history(n);
        history.resets.push(history.states.len());
        history.push(Some(LogState { start, end: start, batches: vec![] }));
        Ok(())
    }

    pub fn advance(&mut self, n: i32, to: i64) -> Result<(), DiskCrashed> {
        self.create(n)?;
        let mut state = self.state(n);
        let to = to.clamp(state.start, state.end);
        self.log(n).advance_log_start(Offset(to)).map_err(|_| DiskCrashed)?;
        state.start = to;
        state.batches.retain(|batch| batch.end > to);
        self.history(n).push(Some(state));
        Ok(())
    }

    /// Retention by size down to the active segment.
    pub fn retain(&mut self, n: i32) -> Result<(), DiskCrashed> {
        self.create(n)?;
        let log = self.log(n);
        log.set_retention_bound(log.log_end());
        let config = log.config();
        log.set_config(LogConfig { retention_bytes: Some(1), ..config.clone() });
        self.node.store.maintain(NOW);
        log.set_config(config);
        let start = log.log_start().get();
        let mut state = self.state(n);
        if start != state.start {
            assert!(state.batches.iter().any(|batch| batch.end == start), "retention removes whole batches");
            state.start = start;
            state.batches.retain(|batch| batch.end > start);
            self.history(n).push(Some(state));
        }
        Ok(())
    }

    pub fn delete(&mut self, n: i32) {
        if self.exists(n) {
            assert!(self.node.store.delete_log(tp(n)));
            self.history(n).push(None);
        }
    }

    /// The journal catches up: everything so far is durable.
    pub fn flush(&mut self) -> Result<(), DiskCrashed> {
        self.node.host.run_named("journal").map_err(|_| DiskCrashed)?;
        let store = &self.node.store;
        for (n, history) in &mut self.logs {
            // After a change to flush=ack it waits for a checkpoint.
            let flushed = store.get(tp(*n)).is_none_or(|log| log.flushed_end() == log.log_end());
            if !history.os && !history.unsynced && flushed {
                history.all_durable();
            }
            assert!(flushed || self.mixed, "all was flushed");
        }
        Ok(())
    }

    /// Changes a log's flush mode.
    pub fn set_mode(&mut self, n: i32, os: bool) -> Result<(), DiskCrashed> {
        self.mixed = true;
        self.create(n)?;
        let history = self.history(n);
        history.unsynced |= history.os || os;
        history.os = os;
        let flush = if os { FlushMode::Os } else { FlushMode::Ack };
        self.log(n).set_config(LogConfig { flush, ..log_config() });
        Ok(())
    }

    pub fn checkpoint(&mut self) -> Result<(), DiskCrashed> {
        self.node.store.request_checkpoint();
        self.node.host.run_named("checkpoint").map_err(|_| DiskCrashed)?;
        for history in self.logs.values_mut() {
            history.all_durable();
            history.unsynced = history.os;
        }
        Ok(())
    }

    pub fn close(self) -> Result<(SimDisk, BTreeMap<i32, History>), DiskCrashed> {
        self.node.store.close_clean(None).map_err(|_| DiskCrashed)?;
        let mut logs = self.logs;
        for history in logs.values_mut() {
            history.all_durable();
            history.unsynced = history.os;
        }
        Ok((self.node.disk.clone(), logs))
    }

    /// Compares what is there with what must be there.
    pub fn check_exact(&self) {
        for (n, history) in &self.logs {
            let found = self.node.store.get(tp(*n)).map(|log| check_consistent(&log));
            assert_eq!(&found, history.current(), "log {n}");
        }
    }

    /// After a restart: each log is in one of the states it may be in. Returns the histories going on from there.
    pub fn check_recovered(node: &Node, logs: &BTreeMap<i32, History>) -> BTreeMap<i32, History> {
        assert_eq!(node.report.damaged, vec![], "no damage is seen where there is none");
        assert_eq!(node.report.damaged_groups, 0);
        // Files of a log whose creation was not durable yet are left to the node to judge.
        let names =
            logs.keys().filter(|n| node.store.get(tp(**n)).is_none()).map(|n| format!("{:032x}-{n}", 0xabc));
        let names: Vec<String> = names.collect();
        assert!(node.report.unknown.iter().all(|name| names.contains(name)), "{:?}", node.report.unknown);
        let mut going_on = BTreeMap::new();
        for (n, history) in logs {
            let found = node.store.get(tp(*n)).map(|log| check_consistent(&log));
            assert!(
                history.allows(&found),
                "log {n} came back as {found:#?}\nallowed were {:#?}",
                &history.states[history.durable..]
            );
            if let Some(state) = found.as_ref().filter(|_| !history.os) {
                check_producer(&node.store.get(tp(*n)).expect("it was just found"), *n, state);
            }
            let mut history = history.clone();
            history.goes_on_from(found);
            going_on.insert(*n, history);
        }
        for found in node.store.logs() {
            assert!(logs.contains_key(&found.partition.get()), "{found} was never created");
        }
        going_on
    }
}

/// The last batch is a duplicate if it is sent again, whatever happened before: the producer state is the
/// log's.
pub fn check_producer(log: &Arc<PartitionLog>, n: i32, state: &LogState) {
    let Some(last) = state.batches.last() else { return };
    let read =
        log.read(Offset(last.base.max(state.start)), usize::MAX >> 1, true, log.log_end()).expect("readable");
    let (header, _) = BatchIter::new(&read.bytes).next().expect("a batch").expect("whole");
    let Some(stamp) = header.producer() else { return };
    let count = (last.end - last.base) as i32;
    let again = batch_with(last.id, count, 1, Some((i64::from(n) + 100, 0, stamp.base_sequence)), NOW);
    match log.append_as_leader(&again, LeaderEpoch(1_000), NOW) {
        Err(AppendError::Duplicate { base_offset, last_offset }) => {
            assert_eq!((base_offset.get(), last_offset.get() + 1), (last.base, last.end));
        }
        other => panic!("the last batch of log {n}, sent again, is {other:?}; log {state:#?}"),
    }
}
