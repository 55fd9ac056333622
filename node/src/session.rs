//! The broker's end of its session: one stream to the controller (the node where Raft leads), a beat now
//! and then. The stream's existence is the sign of life; its end, on either side, is noticed at once.

use crate::context::Context;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strandline_raft::Leadership;
use strandline_record::BrokerId;
use strandline_wire::peer::SessionBeat;
use tokio::sync::{Notify, mpsc, watch};

const OPEN_DEADLINE: Duration = Duration::from_secs(1);
/// Without a controller for so many looks, a node that stops waits no longer.
const LOOK: Duration = Duration::from_millis(100);
const ALONE_LOOKS: u32 = 10;
const RETRY: Duration = Duration::from_millis(50);
const QUEUE: usize = 16;

/// Shared with the shutdown sequence.
#[derive(Debug, Default)]
pub struct Session {
    shutting_down: AtomicBool,
    may_shut_down: AtomicBool,
    /// A controller has accepted the last stream, which is still open.
    connected: AtomicBool,
    wake: Notify,
    done: Notify,
}

impl Session {
    /// Asks the controller to move leadership away, and waits for its consent, at most `deadline`.
    pub async fn hand_over(&self, deadline: Duration) -> bool {
        self.shutting_down.store(true, Ordering::Release);
        self.wake.notify_one();
        let consent = async {
            let mut alone = 0;
            while !self.may_shut_down.load(Ordering::Acquire) {
                tokio::select! {
                    biased;
                    () = self.done.notified() => {}
                    () = tokio::time::sleep(LOOK) => {
                        alone = if self.connected.load(Ordering::Acquire) { 0 } else { alone + 1 };
                    }
                }
                if alone >= ALONE_LOOKS {
                    return false; // The other nodes are gone too, so there is nobody to hand over to.
                }
            }
            true
        };
        tokio::time::timeout(deadline, consent).await.unwrap_or(false)
    }

    /// Whether a controller knows this node to be there.
    pub fn is_open(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Keeps a session open until the node stops.
    pub async fn run(&self, context: Arc<Context>) {
        let mut leader = context.raft.leadership();
        loop {
            let target = context.raft.leader().and_then(|(id, _)| Some((id, peer_address(&context, id)?)));
            if let Some((id, addr)) = target {
                let ended = tokio::select! {
                    biased;
                    () = context.stopping.cancelled() => return,
                    ended = self.keep(&context, &addr, id) => ended,
                    () = changed_from(&mut leader, id) => Ok(()),
                };
                self.connected.store(false, Ordering::Release);
                if let Err(error) = ended {
                    tracing::debug!(controller = id, error = %error.message(), "the session ended");
                    // The stream broke: perhaps the controller's process is gone.
                    context.raft.peer_lost(id);
                }
            }
            tokio::select! {
                biased;
                () = context.stopping.cancelled() => return,
                // Raft has stopped, and the node with it.
                changed = leader.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// One stream, until it breaks.
    async fn keep(&self, context: &Arc<Context>, addr: &str, controller: u64) -> Result<(), tonic::Status> {
        let (tx, rx) = mpsc::channel(QUEUE);
        let _ = tx.try_send(self.beat(context));
        let open = async {
            context.peers.client(addr)?.session(tokio_stream::wrappers::ReceiverStream::new(rx)).await
        };
        let mut replies = tokio::time::timeout(OPEN_DEADLINE, open)
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("the controller did not open the session"))??
            .into_inner();
        tracing::debug!(controller, "session open");
        let mut interval = tokio::time::interval(context.config.broker_heartbeat_interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut images = context.raft.images();
        let mut unfenced = is_unfenced(context);
        loop {
            let beat_now = tokio::select! {
                biased;
                reply = replies.message() => match reply? {
                    Some(reply) if !reply.accepted => return Err(tonic::Status::aborted(reply.message)),
                    Some(reply) => {
                        self.connected.store(true, Ordering::Release);
                        if reply.may_shut_down {
                            self.may_shut_down.store(true, Ordering::Release);
                            self.done.notify_one();
                        }
                        false
                    }
                    None => return Err(tonic::Status::aborted("the controller closed the session")),
                },
                () = self.wake.notified() => true,
                _ = interval.tick() => true,
                // The controller waits for this to unfence the broker, so it hears of it at once.
                _ = images.changed(), if !unfenced => {
                    unfenced = is_unfenced(context);
                    !unfenced
                }
            };
            if beat_now {
                unfenced = is_unfenced(context);
                tx.send(self.beat(context)).await.map_err(|_| tonic::Status::aborted("the session ended"))?;
            }
        }
    }

    fn beat(&self, context: &Context) -> SessionBeat {
        let shutting_down = self.shutting_down.load(Ordering::Acquire);
        SessionBeat {
            broker_id: context.id.0,
            broker_epoch: context.broker_epoch().map_or(0, |epoch| epoch.0),
            metadata_index: context.image().index,
            wants_unfenced: !shutting_down,
            shutting_down,
        }
    }
}

fn is_unfenced(context: &Context) -> bool {
    context.broker_epoch().is_some_and(|epoch| context.image().unfenced(context.id, epoch))
}

/// Where the peer listener of a member is.
pub fn peer_address(context: &Context, id: u64) -> Option<String> {
    if id == context.id.0 {
        return Some(context.advertised_peer());
    }
    let image = context.image();
    match image.broker(BrokerId(id)) {
        Some(broker) => Some(broker.endpoints.peer.to_string()),
        None => {
            let mut members = context.raft.voters();
            members.remove(&id).or_else(|| context.raft.learners().remove(&id))
        }
    }
}

async fn changed_from(leader: &mut watch::Receiver<Leadership>, id: u64) {
    if leader.wait_for(|now| now.leader.is_some_and(|leader| leader != id)).await.is_err() {
        std::future::pending::<()>().await; // Raft has stopped; the node ends.
    }
}
