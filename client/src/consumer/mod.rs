//! The consumer: alone on partitions that it is given, or in a group that shares topics out.
//!
//! ```text
//!  user ── next ──► cursor (decodes one chunk) ◄── positions ◄── fetcher ◄── brokers
//!                       │ asks for more                 ▲
//!                       └── the gate ◄── group member ──┘ assigns, revokes, commits
//! ```
//!
//! Two background tasks: [`fetcher`] reads ahead, [`group`] keeps the membership. Whatever revokes partitions
//! first closes the gate: it waits until the user asks for a record, so that everything handed out before counts
//! as processed, commits that, and only then lets the partitions go ([`membership`]).

mod builder;
mod cursor;
mod fetcher;
mod group;
mod handle;
mod heartbeat;
mod join;
mod membership;
mod places;
mod positions;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::inner::Task;
use crate::types::{ConsumerRecord, OffsetAndMetadata, TopicPartition};
use async_trait::async_trait;
pub use builder::{Assignor, ConsumerBuilder};
pub(crate) use cursor::MAX_DECOMPRESSED_BYTES;
use cursor::{Cursor, Next};
use futures::Stream;
use futures::task::AtomicWaker;
use group::GroupShared;
pub use handle::ConsumerHandle;
use parking_lot::Mutex;
use places::Progress;
pub use places::{AutoOffsetReset, Lag};
use positions::Positions;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// Is told when partitions come and go. Called from the consumer's background task while the application waits
/// for a record, never beside its processing of one; the rebalance goes on when the call returns.
///
/// ```
/// use strandline_client::{ConsumerHandle, RebalanceListener, TopicPartition, async_trait};
///
/// struct Log;
///
/// #[async_trait]
/// impl RebalanceListener for Log {
///     async fn on_revoked(&self, consumer: &ConsumerHandle, partitions: &[TopicPartition]) {
///         // Write what is half done, then commit: the next owner begins there.
///         if let Err(error) = consumer.commit().await {
///             eprintln!("commit of {partitions:?}: {error}");
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait RebalanceListener: Send + Sync + 'static {
    /// Partitions are about to go to other members. Automatic commit has happened; they may still be committed.
    async fn on_revoked(&self, consumer: &ConsumerHandle, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// New partitions (cooperative: only those that were not owned before). Their positions may be changed by
    /// seeking.
    async fn on_assigned(&self, consumer: &ConsumerHandle, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// Partitions are gone already, because the group gave this member up: nothing of theirs can be committed.
    async fn on_lost(&self, consumer: &ConsumerHandle, partitions: &[TopicPartition]) {
        self.on_revoked(consumer, partitions).await;
    }
}

#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) group: Option<String>,
    pub(crate) instance_id: Option<String>,
    pub(crate) auto_commit: Option<Duration>,
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) max_poll_interval: Duration,
    pub(crate) fetch_max_wait: Duration,
    pub(crate) fetch_min_bytes: u32,
    pub(crate) fetch_max_bytes: u32,
    pub(crate) partition_fetch_bytes: u32,
    pub(crate) prefetch_bytes: usize,
    pub(crate) assignors: Vec<Assignor>,
    pub(crate) listener: Option<Arc<dyn RebalanceListener>>,
}

pub(crate) struct State {
    pub(crate) positions: Positions,
    /// Records are held back: a rebalance waits for the user, or runs.
    gate: bool,
    /// The user waits for a record; all that it was given is processed.
    in_poll: bool,
    waiting: Option<Waker>,
    closed: bool,
}

/// What the user's side and the background tasks share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) options: Options,
    pub(crate) state: Mutex<State>,
    /// Raised by whatever the user's side must look at before it hands out another record.
    control: AtomicU64,
    /// Raised by every call for a record, so that a heartbeat can see whether there were any.
    polls: AtomicU64,
    entered_poll: Notify,
    pub(crate) fetcher: AtomicWaker,
    pub(crate) fetch_signalled: AtomicBool,
    pub(crate) group: GroupShared,
}

impl Shared {
    /// Changes the state and makes the user's side look.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, waker) = {
            let mut state = self.state.lock();
            let result = change(&mut state);
            self.control.fetch_add(1, Ordering::AcqRel);
            (result, state.waiting.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        self.signal_fetcher();
        result
    }

    pub(crate) fn signal_fetcher(&self) {
        if !self.fetch_signalled.swap(true, Ordering::AcqRel) {
            self.fetcher.wake();
        }
    }

    /// Tells the user an error that no call of its own can carry.
    pub(crate) fn tell(&self, error: Error) {
        self.change(|state| state.positions.push_error(error));
    }

    /// Holds records back, and returns once the user waits for one.
    pub(crate) async fn close_gate(&self) {
        self.change(|state| state.gate = true);
        loop {
            let entered = self.entered_poll.notified();
            tokio::pin!(entered);
            entered.as_mut().enable();
            if self.state.lock().in_poll {
                return;
            }
            entered.await;
        }
    }

    pub(crate) fn open_gate(&self) {
        self.change(|state| state.gate = false);
    }
}

/// Reads records. A [`Stream`]; also [`recv`](Self::recv) and [`poll`](Self::poll).
///
/// Asking for a record says that those before it are processed: automatic commit commits only them, and
/// partitions are given up only while the application waits for a record.
///
/// ```no_run
/// use futures::StreamExt;
/// use strandline_client::{AutoOffsetReset, Client};
/// # async fn run() -> strandline_client::Result<()> {
/// let client = Client::builder().bootstrap("127.0.0.1:7070").connect().await?;
/// let mut consumer =
///     client.consumer().group("billing").auto_offset_reset(AutoOffsetReset::Earliest).build()?;
/// consumer.subscribe(["orders"])?;
/// while let Some(record) = consumer.next().await {
///     let record = record?;
///     println!("{}-{} {}: {:?}", record.topic, record.partition, record.offset, record.value);
/// }
/// # Ok(()) }
/// ```
pub struct Consumer {
    handle: ConsumerHandle,
    cursor: Option<Cursor>,
    /// Partitions of which records were handed out since the user last asked.
    handed: Vec<Arc<Progress>>,
    /// `control` when this side last looked.
    seen: u64,
    /// The last answer was "wait": `in_poll` is set.
    pending: bool,
    tasks: Vec<Task>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}

impl std::ops::Deref for Consumer {
    type Target = ConsumerHandle;

    fn deref(&self) -> &ConsumerHandle {
        &self.handle
    }
}

impl Consumer {
    fn start(client: Client, options: Options, reset: AutoOffsetReset) -> Consumer {
        let shared = Arc::new(Shared {
            client,
            options,
            state: Mutex::new(State {
                positions: Positions::new(reset),
                gate: false,
                in_poll: false,
                waiting: None,
                closed: false,
            }),
            control: AtomicU64::new(1),
            polls: AtomicU64::new(0),
            entered_poll: Notify::new(),
            fetcher: AtomicWaker::new(),
            fetch_signalled: AtomicBool::new(true),
            group: GroupShared::default(),
        });
        let mut tasks = vec![Task::spawn(fetcher::Fetcher::new(shared.clone()).run())];
        if shared.options.group.is_some() {
            tasks.push(Task::spawn(heartbeat::commit_periodically(shared.clone())));
            tasks.push(Task::spawn(group::run(shared.clone())));
            tasks.push(Task::spawn(heartbeat::heartbeat(shared.clone())));
        }
        Consumer {
            handle: ConsumerHandle { shared },
            cursor: None,
            handed: Vec::new(),
            seen: 0,
            pending: false,
            tasks,
        }
    }

    /// For use from other tasks.
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// The next record; waits for one. `None` once the consumer is closed. Cancelling it loses nothing.
    pub async fn recv(&mut self) -> Option<Result<ConsumerRecord>> {
        let call = Call(self);
        std::future::poll_fn(|cx| call.0.poll_one(cx)).await
    }

    /// Up to `max` records: waits up to `timeout` for the first, and takes what is at hand then. Asking again
    /// says that all of them are processed.
    ///
    /// # Errors
    /// As they come from the stream. Records before the error are returned first.
    pub async fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<ConsumerRecord>> {
        let mut records = Vec::new();
        let first = {
            let call = Call(self);
            tokio::time::timeout(timeout, std::future::poll_fn(|cx| call.0.poll_one(cx))).await
        };
        match first {
            Err(_) | Ok(None) => return Ok(records),
            Ok(Some(record)) => records.push(record?),
        }
        while records.len() < max {
            match self.next_at_hand() {
                Some(record) => records.push(record),
                None => break,
            }
        }
        Ok(records)
    }

    /// Everything handed out before is processed; then the next record.
    fn poll_one(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ConsumerRecord>>> {
        for progress in self.handed.drain(..) {
            progress.consume();
        }
        self.handle.shared.polls.fetch_add(1, Ordering::Relaxed);
        loop {
            if let Some(record) = self.next_at_hand() {
                return Poll::Ready(Some(Ok(record)));
            }
            if let Poll::Ready(result) = self.look(cx) {
                match result {
                    Looked::Error(error) => return Poll::Ready(Some(Err(error))),
                    Looked::Closed => return Poll::Ready(None),
                    Looked::Records => {}
                    Looked::Wait => return Poll::Pending,
                }
            }
        }
    }

    /// A record of the chunk in hand, if nothing forbids it. Takes no lock.
    fn next_at_hand(&mut self) -> Option<ConsumerRecord> {
        let shared = &self.handle.shared;
        if self.pending || shared.control.load(Ordering::Acquire) != self.seen {
            return None;
        }
        let cursor = self.cursor.as_mut()?;
        match cursor.next() {
            Next::Record(record) => {
                cursor.progress().hand_out(record.offset + 1, record.leader_epoch);
                if !self.handed.last().is_some_and(|last| Arc::ptr_eq(last, cursor.progress())) {
                    self.handed.push(cursor.progress().clone());
                }
                Some(record)
            }
            Next::End { offset, epoch } => {
                // Past what the chunk ends with: removed records, control batches.
                cursor.progress().hand_out(offset, epoch);
                self.handed.push(cursor.progress().clone());
                self.cursor_done();
                None
            }
            Next::Damaged(error) => {
                let cursor = self.cursor_done();
                let delay = shared_delay(&self.handle.shared);
                self.handle.shared.change(|state| {
                    state.positions.push_error(error);
                    state.positions.refetch(&cursor.partition, cursor.incarnation, delay);
                });
                None
            }
        }
    }

    fn cursor_done(&mut self) -> Cursor {
        let cursor = self.cursor.take().expect("the caller has it");
        self.handle.shared.state.lock().positions.release(cursor.bytes);
        self.handle.shared.signal_fetcher();
        cursor
    }

    /// Looks at the shared state: what there is to hand out, and whether it may be.
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<Looked> {
        let shared = self.handle.shared.clone();
        let mut state = shared.state.lock();
        self.seen = shared.control.load(Ordering::Acquire);
        self.pending = false;
        state.in_poll = false;
        if let Some(cursor) = &self.cursor
            && !state.positions.may_hand_out(&cursor.partition, cursor.incarnation)
        {
            state.positions.release(cursor.bytes);
            self.cursor = None;
        }
        if !state.gate {
            if state.closed {
                return Poll::Ready(Looked::Closed);
            }
            if let Some(error) = state.positions.take_error() {
                return Poll::Ready(Looked::Error(error));
            }
            if self.cursor.is_some() {
                return Poll::Ready(Looked::Records);
            }
            if let Some((partition, incarnation, progress, chunk)) = state.positions.take_chunk() {
                self.cursor = Some(Cursor::new(partition, incarnation, progress, chunk));
                return Poll::Ready(Looked::Records);
            }
        }
        self.pending = true;
        state.in_poll = true;
        state.waiting = Some(cx.waker().clone());
        drop(state);
        shared.entered_poll.notify_waiters();
        Poll::Ready(Looked::Wait)
    }

    /// The application does not wait any more.
    fn leave_poll(&mut self) {
        if self.pending {
            self.pending = false;
            // Look before the next record: the gate may have been closed meanwhile.
            self.seen = 0;
            let mut state = self.handle.shared.state.lock();
            state.in_poll = false;
            state.waiting = None;
        }
    }

    /// Commits what was handed out (if commits are automatic), gives partitions up, leaves the group (unless it
    /// is a static member), and ends the background tasks. A consumer that is only dropped leaves when its
    /// session times out, and commits nothing.
    pub async fn close(mut self) -> Result<()> {
        self.leave_poll();
        for progress in self.handed.drain(..) {
            progress.consume();
        }
        self.end().await
    }

    /// [`close`](Self::close) for an application that could not process all that it was last given: of those
    /// records, only what comes before these offsets (the next to read in each partition) counts as processed and
    /// is committed; in a partition that is not named, none.
    pub async fn close_processed(
        mut self,
        processed: &BTreeMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<()> {
        self.leave_poll();
        self.handed.clear();
        {
            let state = self.handle.shared.state.lock();
            processed.iter().for_each(|(tp, next)| state.positions.consume_to(tp, next));
        }
        self.end().await
    }

    async fn end(mut self) -> Result<()> {
        self.cursor = None;
        let shared = self.handle.shared.clone();
        let result = group::close(&shared).await;
        shared.change(|state| state.closed = true);
        self.tasks.clear();
        result
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.handle.shared.change(|state| state.closed = true);
    }
}

enum Looked {
    Records,
    Error(Error),
    Closed,
    Wait,
}

/// A call for a record by a future, which may be dropped.
struct Call<'a>(&'a mut Consumer);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.leave_poll();
    }
}

fn shared_delay(shared: &Shared) -> tokio::time::Instant {
    tokio::time::Instant::now() + shared.client.inner.options.retry.max
}

impl Stream for Consumer {
    type Item = Result<ConsumerRecord>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_one(cx)
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
