//! The controller: what the broker that leads Raft decides for the cluster.
//!
//! ```text
//!   beats, closed streams, probe answers ─▶ sessions ──▶ FenceBroker / UnfenceBroker, probes
//!   shutting-down beats ─────────────────▶ shutdown ──▶ ElectLeader::To, FenceBroker, "may shut down"
//!   image, tick ─▶ index ─┬─▶ balance ───▶ ElectLeader (preferred, or away from a draining broker)
//!                         ├─▶ reassignment ▶ SetReplicas, ElectLeader::To; drain ▶ SetReassignment
//!                         └─▶ unclean ───▶ ElectLeader::Unclean, where the topic allows it
//!   membership, tick ────────▶ voters ───▶ learners, voters, Raft leadership
//! ```
//!
//! It has no state that matters. What it decides is a command that `apply` checks again, so a controller that
//! is wrong, late, or one of two costs time and nothing else. The image is the only evidence that a command
//! took effect: one that shows none is proposed again after [`ControllerConfig::retry_ms`].
//!
//! Work follows what changed: the index classifies the partitions of a delta, and each decision looks only
//! at its own class, a bounded number at a time.

mod balance;
mod index;
pub mod placement;
pub mod reassignment;
mod sessions;
mod shutdown;
mod unclean;
mod voters;

pub use sessions::{Beat, BeatReply, BeatVerdict, ProbeOutcome, StreamId};
pub use voters::Membership;

use index::Index;
use sessions::Sessions;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_metadata::{Command, Delta, Image};
use strandline_record::{BrokerId, TopicPartition};
use voters::Voters;

/// All in milliseconds unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub struct ControllerConfig {
    /// `broker.session.timeout.ms`: a broker that is silent for so long is fenced.
    pub session_timeout_ms: u64,
    /// Between the probes of a broker whose stream is closed.
    pub probe_interval_ms: u64,
    /// A new controller waits so long for a broker to open its stream before it probes.
    pub first_probe_after_ms: u64,
    /// A command whose effect the image does not show is proposed again after this.
    pub retry_ms: u64,
    /// How long a partition must have been led by another than its preferred replica, while that one could,
    /// before leadership moves back.
    pub balance_after_ms: u64,
    /// Partitions whose leadership is balanced within one `balance_interval_ms`.
    pub balance_batch: usize,
    pub balance_interval_ms: u64,
    /// Partitions whose leadership is handed over in one command at a shutdown.
    pub hand_over_batch: usize,
    /// Partitions that copy data for a reassignment at the same time.
    pub max_moves: usize,
    /// How long a partition that allows it stays without leader before an unclean election.
    pub unclean_after_ms: u64,
    /// A Raft member that no registered broker stands behind is removed after this.
    pub forget_member_after_ms: u64,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        ControllerConfig {
            session_timeout_ms: 3_000,
            probe_interval_ms: 250,
            first_probe_after_ms: 150,
            retry_ms: 1_000,
            balance_after_ms: 10_000,
            balance_batch: 100,
            balance_interval_ms: 1_000,
            hand_over_batch: 500,
            max_moves: 16,
            unclean_after_ms: 3_000,
            forget_member_after_ms: 300_000,
        }
    }
}

/// What the controller's task does next. The order within a list does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Propose to Raft. Nobody waits for the answer: the image shows what came of it.
    Propose(Command),
    /// Ask the broker's peer listener whether it lives, with a short deadline (a few hundred milliseconds),
    /// and report by [`Controller::probed`].
    Probe { id: BrokerId, endpoint: Arc<str> },
    /// Let Raft replicate to this broker without a vote.
    AddLearner { id: BrokerId, endpoint: Arc<str> },
    /// The member is at another address now.
    MoveMember { id: BrokerId, endpoint: Arc<str> },
    /// Change Raft's voters to exactly these, all of them members already; former voters stay learners.
    ChangeVoters(BTreeSet<BrokerId>),
    /// Remove a learner from Raft altogether.
    RemoveLearner(BrokerId),
    /// Hand Raft's leadership to this voter.
    TransferLeadership { to: BrokerId },
}

pub struct Controller {
    me: BrokerId,
    config: ControllerConfig,
    sessions: Sessions,
    index: Index,
    voters: Voters,
    proposals: Proposals,
    next_balance_ms: u64,
}

impl Controller {
    /// Raft leadership has just come here. Every broker gets a full session.
    pub fn new(me: BrokerId, config: ControllerConfig, image: &Image, now_ms: u64) -> Self {
        let mut controller = Controller {
            me,
            config,
            sessions: Sessions::new(config, image, now_ms),
            index: Index::default(),
            voters: Voters::new(me, config),
            proposals: Proposals::new(config.retry_ms),
            next_balance_ms: now_ms + config.balance_interval_ms,
        };
        controller.index.rebuild(image, now_ms);
        controller
    }

    /// A session stream has been opened by this broker; its earlier one, if any, no longer matters.
    pub fn stream_opened(&mut self, id: BrokerId, stream: StreamId) {
        self.sessions.stream_opened(id, stream);
    }

    pub fn beat(&mut self, beat: &Beat, image: &Image, now_ms: u64) -> (BeatReply, Vec<Effect>) {
        let (verdict, mut effects) = self.sessions.beat(beat, image, &mut self.proposals, now_ms);
        let mut reply = BeatReply { verdict, may_shut_down: false };
        if verdict == BeatVerdict::Accepted && beat.shutting_down {
            reply.may_shut_down = image.broker(beat.id).is_some_and(|broker| broker.fenced);
            if !reply.may_shut_down {
                self.hand_over(beat.id, image, now_ms, &mut effects);
            }
        }
        (reply, effects)
    }

    /// The stream has ended, for whatever reason. Only the broker's latest stream matters.
    pub fn stream_closed(
        &mut self,
        id: BrokerId,
        stream: StreamId,
        image: &Image,
        now_ms: u64,
    ) -> Vec<Effect> {
        self.sessions.stream_closed(id, stream, image, now_ms)
    }

    pub fn probed(&mut self, id: BrokerId, outcome: ProbeOutcome, image: &Image, now_ms: u64) -> Vec<Effect> {
        self.sessions.probed(id, outcome, image, &mut self.proposals, now_ms)
    }

    /// An administrator removes a member behind which no broker is registered.
    pub fn dismiss(&mut self, id: BrokerId) {
        self.voters.dismiss(id);
    }

    /// The image has moved by `delta`.
    pub fn image(&mut self, image: &Image, delta: &Delta, now_ms: u64) -> Vec<Effect> {
        self.sessions.image(image, now_ms);
        self.index.update(image, delta, now_ms);
        let mut effects = Vec::new();
        self.move_replicas(image, now_ms, &mut effects);
        for id in self.sessions.shutting_down() {
            if image.broker(id).is_some_and(|broker| !broker.fenced) {
                self.hand_over(id, image, now_ms, &mut effects);
            }
        }
        effects
    }

    /// Often: a few times in `probe_interval_ms`. `membership`: Raft's, as this leader has it.
    pub fn tick(&mut self, image: &Image, membership: &Membership, now_ms: u64) -> Vec<Effect> {
        let mut effects = self.sessions.tick(image, &mut self.proposals, now_ms);
        self.move_replicas(image, now_ms, &mut effects);
        self.elect_unclean(image, now_ms, &mut effects);
        if now_ms >= self.next_balance_ms {
            self.next_balance_ms = now_ms + self.config.balance_interval_ms;
            self.balance(image, now_ms, &mut effects);
        }
        let shutting_down = self.sessions.shutting_down();
        self.voters.tick(image, membership, &shutting_down, now_ms, &mut effects);
        self.proposals.forget_old(now_ms);
        effects
    }

    pub fn me(&self) -> BrokerId {
        self.me
    }

    /// A broker to which leadership may be given: alive, staying, and with nothing against it.
    fn may_lead(&self, id: BrokerId, image: &Image) -> bool {
        let willing = image.broker(id).is_some_and(|broker| !broker.fenced && !broker.draining);
        willing && !self.sessions.is_shutting_down(id)
    }
}

/// What a proposal is about, so that it is not repeated at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Fence(BrokerId),
    Unfence(BrokerId),
    /// Leadership of a partition.
    Leader(TopicPartition),
    /// Its replicas, under one partition epoch.
    Replicas(TopicPartition, strandline_record::PartitionEpoch),
    Reassignment(TopicPartition),
}

/// When what was last proposed.
#[derive(Debug)]
struct Proposals {
    retry_ms: u64,
    at: BTreeMap<Subject, u64>,
}

impl Proposals {
    fn new(retry_ms: u64) -> Self {
        Proposals { retry_ms, at: BTreeMap::new() }
    }

    /// True, and noted, unless it was proposed less than `retry_ms` ago.
    fn is_due(&mut self, subject: Subject, now_ms: u64) -> bool {
        let last = self.at.get(&subject);
        if last.is_some_and(|&at| now_ms < at + self.retry_ms) {
            return false;
        }
        self.at.insert(subject, now_ms);
        true
    }

    fn forget_old(&mut self, now_ms: u64) {
        let retry_ms = self.retry_ms;
        self.at.retain(|_, at| now_ms < *at + retry_ms);
    }
}

/// One command for several, `Batch` if there is more than one; nothing for none.
fn propose_all(mut commands: Vec<Command>, effects: &mut Vec<Effect>) {
    match commands.len() {
        0 => {}
        1 => effects.push(Effect::Propose(commands.remove(0))),
        _ => effects.push(Effect::Propose(Command::Batch(commands))),
    }
}
