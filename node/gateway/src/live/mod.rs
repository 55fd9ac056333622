//! What the dashboard shows, as one stream for all who look.
//!
//! ```text
//!  nodes ──probe, 5 a second──┐                              ┌─► viewer (its place in the ring)
//!  leaders ──ends, 1 a second─┼─► collector ─► Picture ─► Ring ─► viewer
//!  coordinators ──committed───┘   (one task)    (pure)   (bounded) └─► viewer
//!  meters of this gateway ────┘
//! ```
//!
//! One collector serves all viewers of a gateway. It starts with the first and ends [`LINGER`] after the last, and
//! takes its memory along: a gateway that nobody looks at asks nothing and keeps nothing.
//!
//! Invariants: a viewer holds a place, not a queue: one that falls behind the ring's start gets a snapshot. Messages of
//! one run are numbered without gaps, and what a viewer has, with the messages after it, is what the picture was.

mod collector;
mod committed;
mod documents;
mod events;
mod latency;
mod meters;
mod picture;
mod ring;

pub(crate) use documents::{GroupSummary, PartitionRow, TopicSummary};
pub(crate) use latency::Latency;
pub(crate) use meters::Meters;
pub(crate) use picture::{PartitionFilter, Picture};

use crate::app::App;
use bytes::Bytes;
use parking_lot::Mutex;
use ring::{Place, Ring};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Streams open at once on one gateway.
pub(crate) const MAX_VIEWERS: usize = 64;
/// How long the collector goes on after the last viewer: one that comes back finds its place again.
const LINGER: Duration = Duration::from_secs(30);
/// How long a question about the picture waits for a first look at the cluster.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// The live view of one gateway.
#[derive(Debug)]
pub(crate) struct Live {
    shared: Mutex<Shared>,
    /// Moved at every message, and when the collector has looked at the cluster for the first time.
    moved: watch::Sender<u64>,
    viewers: Arc<Semaphore>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Shared {
    run: Option<Run>,
    /// When somebody looked last.
    seen: Option<Instant>,
}

/// What a running collector has gathered.
#[derive(Debug)]
struct Run {
    ring: Ring,
    picture: Picture,
    /// The cluster was asked, whatever came of it.
    looked: bool,
}

/// The collector of one run, which ends with it however that comes about.
#[derive(Debug)]
struct Running {
    app: Arc<App>,
    run: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut shared = self.app.live.shared.lock();
        if shared.run.as_ref().is_some_and(|run| run.ring.run() == self.run) {
            shared.run = None;
        }
    }
}

/// Someone who looks. Keeps the collector running.
#[derive(Debug)]
pub(crate) struct Viewer {
    app: Arc<App>,
    place: Place,
    _slot: OwnedSemaphorePermit,
}

impl Live {
    pub(crate) fn new() -> Live {
        Live {
            shared: Mutex::default(),
            moved: watch::Sender::default(),
            viewers: Arc::new(Semaphore::new(MAX_VIEWERS)),
            stop: CancellationToken::new(),
        }
    }

    /// Streams that are open.
    pub(crate) fn viewers(&self) -> usize {
        MAX_VIEWERS - self.viewers.available_permits()
    }

    /// Ends the streams and the collector.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Somebody looks: the collector runs from now on.
    fn look(&self, app: &Arc<App>) {
        let mut shared = self.shared.lock();
        shared.seen = Some(Instant::now());
        if shared.run.is_none() && !self.stop.is_cancelled() {
            let ring = Ring::new(app.client.fork_seed());
            let running = Running { app: app.clone(), run: ring.run() };
            shared.run = Some(Run { ring, picture: Picture::default(), looked: false });
            tokio::spawn(collector::collect(running));
        }
    }

    /// Whether the collector should end because nobody looks. Then it must: the next viewer starts another.
    fn abandoned(&self) -> bool {
        let mut shared = self.shared.lock();
        let idle = self.viewers.available_permits() == MAX_VIEWERS
            && shared.seen.is_none_or(|seen| seen.elapsed() >= LINGER);
        if idle || self.stop.is_cancelled() {
            shared.run = None;
            return true;
        }
        false
    }

    /// Changes the picture, if the collector still runs; the messages that `change` returns go to everyone.
    fn update(&self, change: impl FnOnce(&mut Picture) -> Vec<(&'static str, Vec<u8>)>) {
        let mut shared = self.shared.lock();
        let Some(run) = &mut shared.run else { return };
        let messages = change(&mut run.picture);
        if messages.is_empty() {
            return;
        }
        for (kind, json) in messages {
            run.ring.push(kind, &json);
        }
        drop(shared);
        self.moved.send_modify(|moved| *moved += 1);
    }

    fn has_looked(&self) {
        if let Some(run) = &mut self.shared.lock().run {
            run.looked = true;
        }
        self.moved.send_modify(|moved| *moved += 1);
    }

    /// Answers a question from the picture, once the cluster was looked at. `None` if that takes too long.
    pub(crate) async fn ask<T>(&self, app: &Arc<App>, question: impl Fn(&Picture) -> T) -> Option<T> {
        self.look(app);
        let mut moved = self.moved.subscribe();
        let answered = async {
            loop {
                if let Some(run) = self.shared.lock().run.as_ref().filter(|run| run.looked) {
                    return question(&run.picture);
                }
                if moved.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(FIRST_LOOK, answered).await.ok()
    }

    /// A new viewer, who has everything up to `last_id` if that is of this run; `None` if there are too many.
    pub(crate) fn view(&self, app: &Arc<App>, last_id: Option<&str>) -> Option<Viewer> {
        let slot = self.viewers.clone().try_acquire_owned().ok()?;
        self.look(app);
        let place = last_id.map_or(Place::Nowhere, Place::parse);
        Some(Viewer { app: app.clone(), place, _slot: slot })
    }
}

impl Viewer {
    /// The next messages, as they go over the wire: all that there are, or a snapshot. `None` when the gateway stops.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let app = self.app.clone();
        let mut moved = app.live.moved.subscribe();
        loop {
            if app.live.stop.is_cancelled() {
                return None;
            }
            if let Some(messages) = self.take() {
                return Some(messages);
            }
            app.live.look(&app);
            tokio::select! {
                biased;
                () = app.live.stop.cancelled() => return None,
                // The sender lives as long as the gateway.
                _ = moved.changed() => {}
            }
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let shared = self.app.live.shared.lock();
        let run = shared.run.as_ref().filter(|run| run.looked)?;
        if let Some(messages) = run.ring.after(&self.place) {
            if messages.is_empty() {
                return None;
            }
            self.place = run.ring.end();
            return Some(messages);
        }
        self.place = run.ring.end();
        Some(ring::message(&self.place, "snapshot", &run.picture.snapshot()))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.app.live.shared.lock().seen = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests;
