//! The state machine that openraft drives: applies committed entries to the image, publishes images, answers
//! proposers, and keeps snapshots.
//!
//! ```text
//!   apply ──► machine::apply ──► image ──► feed (receivers) ──► answers
//!                                   └────► state worker: state store, snapshot files
//! ```
//! The image in memory is what is served; the state store follows behind, merging what piles up. Invariants: an
//! answer is given after the image that contains its effect is published; a snapshot is durable before openraft
//! learns of it (and may purge the log).

use crate::feed::ImageFeed;
use crate::snapshots::SnapshotStore;
use crate::state_store::{Applied, StateStore, StoredState};
use crate::types::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use strandline_metadata::{Command, Delta, Image, Response, machine, snapshot};
use strandline_storage::worker::{Waker, Worker, WorkerHost};
use tokio::sync::oneshot;

/// Entries applied before an image is published and their proposers are answered.
const APPLY_CHUNK: usize = 256;
/// Writes to the state store between two flushes of it.
const WRITES_PER_FLUSH: u32 = 1024;

pub struct StateMachine {
    image: Image,
    applied: Applied,
    feed: ImageFeed,
    snapshots: SnapshotStore,
    worker: StateWorkerHandle,
}

impl StateMachine {
    /// Loads what the state store has; openraft then adds the last snapshot and the log, as far as needed.
    pub fn open(
        mut store: Box<dyn StateStore>,
        snapshots: SnapshotStore,
        host: &dyn WorkerHost,
        feed: ImageFeed,
    ) -> io::Result<Self> {
        let stored = store.load()?;
        let jobs = Arc::new(Mutex::new(Jobs::default()));
        let files = snapshots.clone();
        let worker = StateWorker { jobs: jobs.clone(), store, usable: true, snapshots: files, unflushed: 0 };
        let worker = StateWorkerHandle { jobs, waker: host.spawn(Box::new(worker)) };
        let (image, applied) = (Image::default(), Applied::default());
        let mut machine = StateMachine { image, applied, feed, snapshots, worker };
        if let Some(stored) = stored {
            machine.image = (*stored.image).clone();
            machine.applied = stored.applied;
            machine.feed.publish(stored.image, Delta { full: true, ..Delta::default() });
        }
        Ok(machine)
    }

    fn stored_state(&self) -> StoredState {
        StoredState { applied: self.applied.clone(), image: Arc::new(self.image.clone()) }
    }

    fn publish(&mut self, delta: Delta) {
        let state = self.stored_state();
        self.feed.publish(state.image.clone(), delta.clone());
        self.worker.write(state, delta);
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied.log_id, self.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        loop {
            let mut delta = Delta::default();
            let mut answers = Vec::new();
            let mut applied = 0;
            while applied < APPLY_CHUNK {
                let Some((entry, responder)) = entries.try_next().await? else { break };
                let log_id = entry.log_id;
                let response = match entry.payload {
                    EntryPayload::Normal(proposal) => {
                        // What cannot be read here must not be guessed: other nodes may have been able to.
                        let command = Command::decode(&proposal.0).map_err(|e| {
                            let what = format!("the command of entry {log_id} cannot be decoded: {e}");
                            io::Error::new(io::ErrorKind::InvalidData, what)
                        })?;
                        machine::apply(&mut self.image, log_id.index, &command, &mut delta)
                    }
                    EntryPayload::Blank => Response::Done,
                    EntryPayload::Membership(membership) => {
                        self.applied.membership = StoredMembership::new(Some(log_id), membership);
                        Response::Done
                    }
                };
                self.image.index = log_id.index;
                self.applied.log_id = Some(log_id);
                answers.extend(responder.map(|responder| (responder, response)));
                applied += 1;
            }
            if applied > 0 {
                self.publish(delta);
            }
            answers.into_iter().for_each(|(responder, response)| responder.send(response));
            if applied < APPLY_CHUNK {
                return Ok(());
            }
        }
    }

    /// Declines while the disk is nearly full: a snapshot that fails would end Raft, one that is late does not.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        if !force && !self.snapshots.has_room().unwrap_or(true) {
            tracing::warn!("no snapshot: the disk is nearly full");
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { state: self.stored_state(), worker: self.worker.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, bytes: Bytes) -> io::Result<()> {
        let image = snapshot::decode(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let (reply, done) = oneshot::channel();
        self.worker.push(Task::Install { meta: meta.clone(), bytes, reply });
        answered(done).await??;
        self.image = image;
        self.applied = Applied { log_id: meta.last_log_id, membership: meta.last_membership.clone() };
        self.publish(Delta { full: true, ..Delta::default() });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let (reply, done) = oneshot::channel();
        self.worker.push(Task::Load { state: self.stored_state(), reply });
        let found = answered(done).await??;
        Ok(found.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// One consistent state, to be written as a snapshot while later entries are applied.
pub struct SnapshotBuilder {
    state: StoredState,
    worker: StateWorkerHandle,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (reply, done) = oneshot::channel();
        self.worker.push(Task::Build { state: self.state.clone(), reply });
        let (meta, snapshot) = answered(done).await??;
        Ok(Snapshot { meta, snapshot })
    }
}

async fn answered<T>(done: oneshot::Receiver<T>) -> io::Result<T> {
    done.await.map_err(|_| io::Error::other("the state worker has stopped"))
}

type Built = (SnapshotMeta, Bytes);

enum Task {
    Build {
        state: StoredState,
        reply: oneshot::Sender<io::Result<Built>>,
    },
    Install {
        meta: SnapshotMeta,
        bytes: Bytes,
        reply: oneshot::Sender<io::Result<()>>,
    },
    /// `state` is the present one, should the file not read back.
    Load {
        state: StoredState,
        reply: oneshot::Sender<io::Result<Option<Built>>>,
    },
}

#[derive(Default)]
struct Jobs {
    /// The newest state that is not in the store yet, and all that changed since the one that is.
    write: Option<(StoredState, Delta)>,
    tasks: VecDeque<Task>,
}

#[derive(Clone)]
struct StateWorkerHandle {
    jobs: Arc<Mutex<Jobs>>,
    waker: Waker,
}

impl StateWorkerHandle {
    fn write(&self, state: StoredState, delta: Delta) {
        {
            let mut jobs = self.jobs.lock();
            let merged = match jobs.write.take() {
                Some((_, mut earlier)) => {
                    earlier.merge(delta);
                    earlier
                }
                None => delta,
            };
            jobs.write = Some((state, merged));
        }
        self.waker.wake();
    }

    fn push(&self, task: Task) {
        self.jobs.lock().tasks.push_back(task);
        self.waker.wake();
    }
}

/// Does the blocking part: the state store and the snapshot files.
struct StateWorker {
    jobs: Arc<Mutex<Jobs>>,
    store: Box<dyn StateStore>,
    /// False once a write failed: the store stays wiped until the next start.
    usable: bool,
    snapshots: SnapshotStore,
    unflushed: u32,
}

impl Worker for StateWorker {
    fn name(&self) -> &'static str {
        "raft-state"
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            let (write, task) = {
                let mut jobs = self.jobs.lock();
                (jobs.write.take(), jobs.tasks.pop_front())
            };
            if write.is_none() && task.is_none() {
                return Ok(());
            }
            if let Some((state, delta)) = write {
                self.write(&state, &delta);
            }
            match task {
                None => {}
                Some(Task::Build { state, reply }) => drop(reply.send(self.build(&state))),
                Some(Task::Install { meta, bytes, reply }) => {
                    drop(reply.send(self.snapshots.save(&meta, &bytes)));
                }
                Some(Task::Load { state, reply }) => drop(reply.send(self.load(&state))),
            }
        }
    }

    fn stop(&mut self) {
        self.flush();
    }
}

impl StateWorker {
    /// The last snapshot; one that does not read back is made again if the present state covers it.
    fn load(&mut self, state: &StoredState) -> io::Result<Option<Built>> {
        let damaged = match self.snapshots.load() {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => error,
            result => return result,
        };
        let covered = self.snapshots.newest()? <= state.applied.log_id.map(|id| id.index);
        if !covered {
            return Err(damaged);
        }
        tracing::warn!(%damaged, "made again from the present state");
        self.build(state).map(Some)
    }

    fn build(&mut self, state: &StoredState) -> io::Result<Built> {
        let StoredState { applied, image } = state;
        let meta = SnapshotMeta { last_log_id: applied.log_id, last_membership: applied.membership.clone() };
        let bytes = Bytes::from(snapshot::encode(image));
        self.snapshots.save(&meta, &bytes)?;
        self.flush();
        Ok((meta, bytes))
    }

    fn write(&mut self, state: &StoredState, delta: &Delta) {
        if !self.usable {
            return;
        }
        if let Err(error) = self.store.write(state, delta) {
            self.give_up("written", &error);
            return;
        }
        self.unflushed += 1;
        if self.unflushed >= WRITES_PER_FLUSH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.usable || self.unflushed == 0 {
            return;
        }
        self.unflushed = 0;
        if let Err(error) = self.store.flush() {
            self.give_up("flushed", &error);
        }
    }

    /// The store only makes starts quicker: without it the next one uses snapshot and log.
    fn give_up(&mut self, what: &str, error: &io::Error) {
        tracing::warn!(%error, "the applied state could not be {what}; going on without it until the next start");
        self.usable = false;
        if let Err(error) = self.store.wipe() {
            tracing::warn!(%error, "the applied state could not be removed either");
        }
    }
}
