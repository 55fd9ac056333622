//! The controller's task: where Raft leads, it carries sessions, probes and proposals between the world and
//! the deciding `core::controller`. On other nodes it only turns session streams away.

mod admin;

pub use admin::{Created, NewTopic};

use crate::context::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strandline_core::controller::{
    Beat, BeatVerdict, Controller as Core, ControllerConfig, Effect, ProbeOutcome,
};
use strandline_raft::Leadership;
use strandline_record::{BrokerEpoch, BrokerId};
use strandline_wire::peer::{SessionBeat, SessionReply};
use tokio::sync::{mpsc, watch};
use tonic::Status;

/// Events that may wait; a beat lost beyond that comes again.
const QUEUE: usize = 4096;
const TICK: Duration = Duration::from_millis(50);
const PROBE_DEADLINE: Duration = Duration::from_millis(300);
const PROPOSE_DEADLINE: Duration = Duration::from_secs(5);
const MEMBERSHIP_DEADLINE: Duration = Duration::from_secs(10);

type Replies = mpsc::Sender<Result<SessionReply, Status>>;

/// What happens on session streams.
pub enum SessionEvent {
    Beat { broker: BrokerId, session: u64, beat: SessionBeat },
    Closed { broker: BrokerId, session: u64 },
}

enum Event {
    Opened { broker: BrokerId, session: u64, replies: Replies },
    Session(SessionEvent),
    Probed { broker: BrokerId, outcome: ProbeOutcome },
    Dismissed { broker: BrokerId },
}

#[derive(Debug)]
pub struct Controller {
    context: Arc<Context>,
    events: mpsc::Sender<Event>,
    queue: parking_lot::Mutex<Option<mpsc::Receiver<Event>>>,
    next_session: AtomicU64,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Event")
    }
}

impl Controller {
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        let (events, queue) = mpsc::channel(QUEUE);
        let queue = parking_lot::Mutex::new(Some(queue));
        Arc::new(Controller { context, events, queue, next_session: AtomicU64::new(1) })
    }

    /// A session stream begins; the number names it in later events.
    pub fn open_session(&self, broker: BrokerId, replies: Replies) -> u64 {
        let session = self.next_session.fetch_add(1, Ordering::Relaxed);
        self.push(Event::Opened { broker, session, replies });
        session
    }

    /// An administrator removes a member behind which no broker is registered. Heard only where Raft is led from, and
    /// only once: whoever carries the order out says it until the member is gone.
    pub fn dismiss(&self, broker: BrokerId) {
        if self.context.raft.is_leader() {
            self.push(Event::Dismissed { broker });
        }
    }

    pub fn send(&self, event: SessionEvent) {
        self.push(Event::Session(event));
    }

    fn push(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            tracing::warn!("the controller's queue is full; a session event is lost");
        }
    }

    /// Runs until the node stops.
    pub async fn run(self: Arc<Self>) {
        let Some(mut queue) = self.queue.lock().take() else { return };
        let mut leadership = self.context.raft.leadership();
        let mut first = None;
        while !self.context.stopping.is_cancelled() {
            if self.context.raft.is_leader() {
                self.lead(&mut queue, &mut leadership, first.take()).await;
            }
            tokio::select! {
                biased;
                () = self.context.stopping.cancelled() => return,
                // Raft has stopped: nothing is led here any more.
                changed = leadership.changed() => if changed.is_err() { return },
                event = queue.recv() => match event {
                    // It has just become the leader: the stream must not be lost.
                    Some(event) if self.context.raft.is_leader() => first = Some(event),
                    Some(Event::Opened { replies, .. }) => turn_away(&replies),
                    // Nothing is judged here later: a new controller gives every broker a full session.
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }

    /// While this node leads Raft.
    async fn lead(
        self: &Arc<Self>,
        queue: &mut mpsc::Receiver<Event>,
        leadership: &mut watch::Receiver<Leadership>,
        first: Option<Event>,
    ) {
        tracing::info!(node = %self.context.id, "this node is the controller");
        let mut images = self.context.raft.images();
        let mut image = self.context.image();
        let config = ControllerConfig {
            session_timeout_ms: self.context.config.broker_session_timeout.as_millis() as u64,
            // Leadership on a draining broker moves in any case.
            balance_after_ms: match self.context.config.auto_leader_rebalance_enable {
                true => self.context.config.leader_imbalance_check_interval.as_millis() as u64,
                false => u64::MAX,
            },
            ..ControllerConfig::default()
        };
        let mut core = Core::new(self.context.id, config, &image, self.context.now_ms());
        let mut streams: BTreeMap<u64, Replies> = BTreeMap::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        if let Some(event) = first {
            for effect in self.event(&mut core, &image, &mut streams, event) {
                self.carry_out(effect);
            }
        }
        loop {
            let effects = tokio::select! {
                biased;
                () = self.context.stopping.cancelled() => return,
                changed = leadership.changed() => {
                    if changed.is_err() || !self.context.raft.is_leader() {
                        // Dropping the streams tells the brokers at once.
                        tracing::info!(node = %self.context.id, "this node is no longer the controller");
                        while let Ok(event) = queue.try_recv() {
                            if let Event::Opened { replies, .. } = event {
                                turn_away(&replies);
                            }
                        }
                        return;
                    }
                    Vec::new()
                }
                event = queue.recv() => match event {
                    Some(event) => self.event(&mut core, &image, &mut streams, event),
                    None => return,
                },
                (newer, delta) = images.changed() => {
                    image = newer;
                    core.image(&image, &delta, self.context.now_ms())
                }
                _ = tick.tick() => {
                    let membership = self.membership();
                    core.tick(&image, &membership, self.context.now_ms())
                }
            };
            for effect in effects {
                self.carry_out(effect);
            }
        }
    }

    fn event(
        &self,
        core: &mut Core,
        image: &strandline_metadata::Image,
        streams: &mut BTreeMap<u64, Replies>,
        event: Event,
    ) -> Vec<Effect> {
        let now_ms = self.context.now_ms();
        match event {
            Event::Opened { broker, session, replies } => {
                streams.insert(session, replies);
                core.stream_opened(broker, session);
                Vec::new()
            }
            Event::Session(SessionEvent::Beat { broker, session, beat }) => {
                let beat = Beat {
                    id: broker,
                    epoch: BrokerEpoch(beat.broker_epoch),
                    metadata_index: beat.metadata_index,
                    wants_unfenced: beat.wants_unfenced,
                    shutting_down: beat.shutting_down,
                };
                let (reply, effects) = core.beat(&beat, image, now_ms);
                if let Some(replies) = streams.get(&session) {
                    let wire = SessionReply {
                        accepted: reply.verdict != BeatVerdict::Stale,
                        message: match reply.verdict {
                            BeatVerdict::Stale => "another registration of this broker is current".to_owned(),
                            _ => String::new(),
                        },
                        metadata_index: image.index,
                        may_shut_down: reply.may_shut_down,
                    };
                    let _ = replies.try_send(Ok(wire)); // A full queue: the next beat is answered.
                }
                effects
            }
            Event::Session(SessionEvent::Closed { broker, session }) => {
                streams.remove(&session);
                core.stream_closed(broker, session, image, now_ms)
            }
            Event::Probed { broker, outcome } => core.probed(broker, outcome, image, now_ms),
            Event::Dismissed { broker } => {
                core.dismiss(broker);
                Vec::new()
            }
        }
    }

    fn membership(&self) -> strandline_core::controller::Membership {
        let membership = self.context.raft.membership();
        let ids = |set: BTreeSet<u64>| set.into_iter().map(BrokerId).collect();
        strandline_core::controller::Membership {
            voters: ids(membership.voters),
            learners: ids(membership.learners),
            caught_up: ids(membership.caught_up),
            changing: membership.changing,
            joint: membership.joint,
            addresses: membership
                .addresses
                .into_iter()
                .map(|(id, address)| (BrokerId(id), address.into()))
                .collect(),
        }
    }

    /// Effects run on their own; the image, or Raft's membership, shows what came of them.
    fn carry_out(self: &Arc<Self>, effect: Effect) {
        let this = self.clone();
        tokio::spawn(async move {
            let context = &this.context;
            let done = match effect {
                Effect::Propose(command) => {
                    tracing::debug!(?command, "the controller proposes");
                    context
                        .propose(command, PROPOSE_DEADLINE)
                        .await
                        .map(|_| ())
                        .map_err(|error| error.to_string())
                }
                Effect::Probe { id, endpoint } => {
                    let outcome = this.probe(&endpoint).await;
                    this.push(Event::Probed { broker: id, outcome });
                    Ok(())
                }
                Effect::AddLearner { id, endpoint } | Effect::MoveMember { id, endpoint } => {
                    bounded(context.raft.add_learner(id.0, endpoint.to_string())).await
                }
                Effect::ChangeVoters(voters) => {
                    tracing::info!(?voters, "changing who votes on the metadata");
                    bounded(context.raft.change_voters(voters.into_iter().map(|id| id.0).collect())).await
                }
                Effect::RemoveLearner(id) => {
                    tracing::info!(node = %id, "taking a node out of the metadata's members");
                    bounded(context.raft.remove(id.0)).await
                }
                Effect::TransferLeadership { to } => bounded(context.raft.transfer_leader(to.0)).await,
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a decision of the controller had no effect");
            }
        });
    }

    async fn probe(&self, endpoint: &str) -> ProbeOutcome {
        use crate::peers::ProbeError;
        match self.context.peers.probe(endpoint, self.context.id.0, PROBE_DEADLINE).await {
            Ok(reply) => ProbeOutcome::Alive {
                epoch: (reply.broker_epoch != 0).then_some(BrokerEpoch(reply.broker_epoch)),
            },
            Err(ProbeError::NoProcess) => ProbeOutcome::Refused,
            Err(ProbeError::NoAnswer(_)) => ProbeOutcome::Unreachable,
        }
    }
}

async fn bounded<E: std::fmt::Display>(
    change: impl std::future::Future<Output = Result<(), E>>,
) -> Result<(), String> {
    match tokio::time::timeout(MEMBERSHIP_DEADLINE, change).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("it took too long".to_owned()),
    }
}

fn turn_away(replies: &Replies) {
    let message = "this node is not the controller".to_owned();
    let _ = replies.try_send(Ok(SessionReply { accepted: false, message, ..Default::default() }));
}
