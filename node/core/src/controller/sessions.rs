//! Broker sessions: which brokers live, as far as the controller can tell.
//!
//! ```text
//!             beat                       stream closed
//!   ┌──────────────────────▶ open ──────────────────────▶ suspect ── two probes in a row failed ──▶ fence
//!   │                          │                             │  ▲
//!   │                          │ silent for                  │  └── alive: probed again after an interval
//!   └── stream opened ◀────────┼────── session_timeout_ms ───┘
//!                              ▼
//!                            fence
//! ```
//!
//! A probe that finds *another* incarnation (restarted, not registered yet) proves the old one dead: fence.
//! A new controller gives every broker a full session of silence. It probes those who do not come, though:
//! a refused connection says that there is no process, and the broker that dies together with the old
//! controller need not cost a session. A probe without an answer says less, and does not count in that time.

use super::{ControllerConfig, Effect, Proposals, Subject};
use std::collections::{BTreeMap, BTreeSet};
use strandline_metadata::{Broker, Command, Image};
use strandline_record::{BrokerEpoch, BrokerId};

/// Names one session stream; the shell counts them up.
pub type StreamId = u64;

/// Probes in a row that must fail.
const FAILED_PROBES: u32 = 2;
/// A probe of which nothing is heard in that time, not even that it failed, is sent again.
const PROBE_LOST_MS: u64 = 1_000;

/// What a broker says on its session stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    pub id: BrokerId,
    pub epoch: BrokerEpoch,
    /// Raft index of its image.
    pub metadata_index: u64,
    pub wants_unfenced: bool,
    pub shutting_down: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeatReply {
    pub verdict: BeatVerdict,
    /// Leadership is handed over as far as it can be, and the broker is fenced.
    pub may_shut_down: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeatVerdict {
    Accepted,
    /// This controller has not applied the registration yet: beat again.
    NotYet,
    /// Another registration is current: register again.
    Stale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// A process answered, with its registration if it has one.
    Alive { epoch: Option<BrokerEpoch> },
    /// There is no process: the connection was refused or reset.
    Refused,
    /// No answer in time.
    Unreachable,
}

#[derive(Debug)]
struct Session {
    /// The registration that it is about.
    epoch: BrokerEpoch,
    last_heard_ms: u64,
    /// While the stream is closed: when to probe next, and how it went so far.
    probing: Option<Probing>,
    /// Nothing heard by this controller yet.
    unheard: bool,
    shutting_down: bool,
}

#[derive(Clone, Copy, Debug)]
struct Probing {
    failed: u32,
    /// When the next one is due.
    next_ms: u64,
}

impl Probing {
    fn send(&mut self, broker: &Broker, now_ms: u64) -> Effect {
        // Sooner if this one is answered, which moves it.
        self.next_ms = now_ms + PROBE_LOST_MS;
        Effect::Probe { id: broker.id, endpoint: broker.endpoints.peer.clone() }
    }
}

#[derive(Debug)]
pub(super) struct Sessions {
    config: ControllerConfig,
    sessions: BTreeMap<BrokerId, Session>,
    /// The latest open stream of each broker.
    streams: BTreeMap<BrokerId, StreamId>,
}

impl Sessions {
    pub fn new(config: ControllerConfig, image: &Image, now_ms: u64) -> Self {
        let mut sessions = Sessions { config, sessions: BTreeMap::new(), streams: BTreeMap::new() };
        sessions.image(image, now_ms);
        sessions
    }

    /// Sessions of brokers that the controller has not heard of begin when it sees them unfenced; those of
    /// other registrations and of unregistered brokers end.
    pub fn image(&mut self, image: &Image, now_ms: u64) {
        self.sessions.retain(|&id, session| image.broker(id).is_some_and(|b| b.epoch <= session.epoch));
        for (&id, broker) in image.brokers.iter().filter(|(_, broker)| !broker.fenced) {
            let (config, comes) = (self.config, self.streams.contains_key(&id));
            self.sessions.entry(id).or_insert_with(|| {
                let next_ms = now_ms + config.first_probe_after_ms;
                Session {
                    epoch: broker.epoch,
                    last_heard_ms: now_ms,
                    probing: (!comes).then_some(Probing { failed: 0, next_ms }),
                    unheard: true,
                    shutting_down: false,
                }
            });
        }
    }

    /// Its first valid beat is what counts as life; an open connection alone says little.
    pub fn stream_opened(&mut self, id: BrokerId, stream: StreamId) {
        self.streams.insert(id, stream);
    }

    pub fn beat(
        &mut self,
        beat: &Beat,
        image: &Image,
        proposals: &mut Proposals,
        now_ms: u64,
    ) -> (BeatVerdict, Vec<Effect>) {
        let broker = match image.broker(beat.id) {
            Some(broker) if broker.epoch > beat.epoch => return (BeatVerdict::Stale, vec![]),
            Some(broker) if broker.epoch == beat.epoch => broker,
            _ if image.index < beat.epoch.get() => return (BeatVerdict::NotYet, vec![]),
            _ => return (BeatVerdict::Stale, vec![]), // unregistered
        };
        self.sessions.insert(
            beat.id,
            Session {
                epoch: beat.epoch,
                last_heard_ms: now_ms,
                probing: None,
                unheard: false,
                shutting_down: beat.shutting_down,
            },
        );
        let holds_its_registration = beat.metadata_index >= beat.epoch.get();
        let mut effects = vec![];
        if broker.fenced
            && beat.wants_unfenced
            && !beat.shutting_down
            && holds_its_registration
            && proposals.is_due(Subject::Unfence(beat.id), now_ms)
        {
            let command = Command::UnfenceBroker { id: beat.id, epoch: beat.epoch };
            effects.push(Effect::Propose(command));
        }
        (BeatVerdict::Accepted, effects)
    }

    pub fn stream_closed(
        &mut self,
        id: BrokerId,
        stream: StreamId,
        image: &Image,
        now_ms: u64,
    ) -> Vec<Effect> {
        if self.streams.get(&id) != Some(&stream) {
            return vec![]; // it has opened another one since
        }
        self.streams.remove(&id);
        let (Some(session), Some(broker)) = (self.sessions.get_mut(&id), image.broker(id)) else {
            return vec![];
        };
        if broker.fenced {
            return vec![];
        }
        let probing = session.probing.insert(Probing { failed: 0, next_ms: now_ms });
        vec![probing.send(broker, now_ms)]
    }

    pub fn probed(
        &mut self,
        id: BrokerId,
        outcome: ProbeOutcome,
        image: &Image,
        proposals: &mut Proposals,
        now_ms: u64,
    ) -> Vec<Effect> {
        let (Some(session), Some(broker)) = (self.sessions.get_mut(&id), image.broker(id)) else {
            return vec![];
        };
        let Some(probing) = &mut session.probing else {
            return vec![]; // it has come back meanwhile
        };
        let dead = match outcome {
            ProbeOutcome::Alive { epoch } if epoch == Some(session.epoch) => {
                probing.failed = 0;
                false
            }
            ProbeOutcome::Alive { .. } => true,
            // Within a new controller's first session only a refusal says anything.
            ProbeOutcome::Unreachable if session.unheard => false,
            ProbeOutcome::Refused | ProbeOutcome::Unreachable => {
                probing.failed += 1;
                probing.failed >= FAILED_PROBES
            }
        };
        probing.next_ms = now_ms + self.config.probe_interval_ms;
        if dead {
            return fence(broker, proposals, now_ms);
        }
        if probing.failed > 0 {
            // The second one at once: a killed process should not cost an interval.
            return vec![probing.send(broker, now_ms)];
        }
        vec![]
    }

    pub fn tick(&mut self, image: &Image, proposals: &mut Proposals, now_ms: u64) -> Vec<Effect> {
        self.image(image, now_ms);
        let mut effects = vec![];
        for (&id, session) in &mut self.sessions {
            let Some(broker) = image.broker(id).filter(|b| !b.fenced && b.epoch == session.epoch) else {
                continue;
            };
            if now_ms.saturating_sub(session.last_heard_ms) >= self.config.session_timeout_ms {
                effects.extend(fence(broker, proposals, now_ms));
                continue;
            }
            if let Some(probing) = &mut session.probing
                && now_ms >= probing.next_ms
            {
                effects.push(probing.send(broker, now_ms));
            }
        }
        effects
    }

    pub fn is_shutting_down(&self, id: BrokerId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.shutting_down)
    }

    pub fn shutting_down(&self) -> BTreeSet<BrokerId> {
        self.sessions.iter().filter(|(_, session)| session.shutting_down).map(|(&id, _)| id).collect()
    }
}

fn fence(broker: &Broker, proposals: &mut Proposals, now_ms: u64) -> Vec<Effect> {
    match !broker.fenced && proposals.is_due(Subject::Fence(broker.id), now_ms) {
        true => vec![Effect::Propose(Command::FenceBroker { id: broker.id, epoch: broker.epoch })],
        false => vec![],
    }
}
