//! The leader of one epoch of a partition. One value per epoch: acknowledgements start empty in each.
//!
//! Invariants (asserted):
//! * log start ≤ high watermark ≤ log end; flushed end ≤ log end; none of them decreases;
//! * the high watermark moves only by [`high_watermark::advance`] over the maximal ISR;
//! * the leader is in its own committed ISR;
//! * once deposed, nothing moves any more: produces that wait end as *unknown outcome*.

mod clients;
mod exchange;
mod views;

pub use clients::{Acks, ProduceRefusal, ReadCheck};
pub use exchange::{FetchDecision, FollowerAck, FollowerFetch, Refusal};

use super::high_watermark::{self, Inputs};
use super::isr::Isr;
use super::progress::{Ack, Followers, Progress};
use super::{Durability, EpochLookup, FlushToken};
use std::collections::{BTreeMap, BTreeSet};
use strandline_metadata::configs::FlushMode;
use strandline_metadata::{Command, Image, Partition, Rejection, TopicSettings};
use strandline_record::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicPartition};

/// Bounds of time. None of them matters for safety.
#[derive(Clone, Copy, Debug)]
pub struct LeaderConfig {
    /// `replica.lag.time.max.ms`: who has not been caught up for so long leaves the ISR.
    pub lag_max_ms: u64,
    /// An AlterPartition with no word about it is proposed again after this.
    pub resend_ms: u64,
}

impl Default for LeaderConfig {
    fn default() -> Self {
        LeaderConfig { lag_max_ms: 10_000, resend_ms: 500 }
    }
}

/// What the topic's configuration says, read from the same image as the partition.
#[derive(Clone, Copy, Debug)]
struct TopicRules {
    /// `min.insync.replicas` as `machine::apply` counts it for this partition.
    min_insync: usize,
    durability: Durability,
}

impl TopicRules {
    fn read(image: &Image, tp: TopicPartition, partition: &Partition) -> Self {
        let topic = image.topics.get(&tp.topic).expect("a partition has a topic");
        let settings = TopicSettings::from_configs(&topic.configs, partition.target_replication());
        let durability = match settings.flush {
            FlushMode::Ack => Durability::Flushed,
            FlushMode::Interval | FlushMode::Os => Durability::Appended,
        };
        TopicRules { min_insync: settings.min_insync_replicas, durability }
    }
}

pub struct LeaderStart<'a> {
    pub me: BrokerId,
    pub tp: TopicPartition,
    pub image: &'a Image,
    pub config: LeaderConfig,
    pub log_start: Offset,
    /// The log end now: the start of the epoch.
    pub log_end: Offset,
    pub flushed: Offset,
    /// What this replica knew as a follower or leader of an earlier epoch; any lower bound is safe.
    pub high_watermark: Offset,
    /// The epoch in which it was learnt; 0 after a restart.
    pub high_watermark_epoch: LeaderEpoch,
    /// How often the log has been truncated since the process started (see [`FlushToken`]).
    pub truncations: u64,
    pub now_ms: u64,
}

#[derive(Debug)]
pub struct Leader {
    me: BrokerId,
    tp: TopicPartition,
    epoch: LeaderEpoch,
    /// Log end when the epoch began.
    epoch_start: Offset,
    config: LeaderConfig,
    rules: TopicRules,
    log_start: Offset,
    /// ≤ `high_watermark` ≤ `log_end`.
    high_watermark: Offset,
    high_watermark_epoch: LeaderEpoch,
    /// ≤ `log_end`.
    flushed: Offset,
    log_end: Offset,
    truncations: u64,
    isr: Isr,
    /// Registrations of the replicas (me included) as the image shows them; absent: not registered.
    brokers: BTreeMap<BrokerId, Standing>,
    /// Every replica but me.
    followers: Followers,
    deposed: Option<Deposed>,
}

/// A replica's broker, from the image.
#[derive(Clone, Copy, Debug)]
struct Standing {
    epoch: BrokerEpoch,
    fenced: bool,
}

/// Why this leader has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deposed {
    /// A leader epoch above ours exists.
    Epoch(LeaderEpoch),
    /// The partition is no longer in the image.
    Deleted,
}

/// What follows from an event. All three may.
#[must_use]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The high watermark advanced to here: wake waiting produces and consumers, tell followers.
    pub high_watermark: Option<Offset>,
    /// To be proposed to Raft; the answer comes back by [`Leader::alter_answer`].
    pub alter: Option<Command>,
    /// Stop at once: waiting produces end with an unknown outcome.
    pub deposed: Option<Deposed>,
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        *self == Effects::default()
    }
}

impl Leader {
    /// The image says that `me` leads the partition; asserted.
    pub fn new(start: LeaderStart<'_>) -> Self {
        let LeaderStart { me, tp, image, config, log_start, log_end, flushed, truncations, .. } = start;
        let partition = image.partition(tp).expect("a leader's partition is in the image");
        assert_eq!(partition.leader, Some(me), "{tp}: the image names another leader");
        let mut leader = Leader {
            me,
            tp,
            epoch: partition.leader_epoch,
            epoch_start: log_end,
            config,
            rules: TopicRules::read(image, tp, partition),
            log_start,
            high_watermark: start.high_watermark,
            high_watermark_epoch: start.high_watermark_epoch,
            flushed,
            log_end,
            truncations,
            isr: Isr::new(partition.isr.clone(), partition.partition_epoch),
            brokers: BTreeMap::new(),
            followers: Followers::new(),
            deposed: None,
        };
        // What is visible is durable on the whole ISR, of which this is a member. A clean election gives that; the
        // leader of an unclean one may have learnt of a high watermark above what its own disk holds, and must not
        // spread it. (What is deleted was below the high watermark.)
        leader.high_watermark = start.high_watermark.min(leader.own_end()).max(log_start);
        leader.see_replicas(partition, image, start.now_ms);
        leader.check();
        // With nobody else in the ISR the high watermark may advance at once.
        let _ = leader.advance();
        leader
    }

    fn check(&self) {
        assert!(self.log_start <= self.high_watermark, "{}: log start above the high watermark", self.tp);
        assert!(self.high_watermark <= self.log_end, "{}: high watermark above the log end", self.tp);
        assert!(self.flushed <= self.log_end, "{}: flushed end above the log end", self.tp);
        assert!(self.isr.committed().contains(&self.me), "{}: the leader is not in its ISR", self.tp);
    }

    // ---- the local log ----

    /// The log end has moved (produce). Bytes are handed to waiting followers by the caller, at once.
    pub fn appended(&mut self, log_end: Offset, now_ms: u64) -> Effects {
        assert!(log_end >= self.log_end, "{}: a leader's log never shrinks", self.tp);
        if self.deposed.is_some() || log_end == self.log_end {
            return Effects::default();
        }
        for follower in self.followers.values_mut() {
            follower.log_grows(self.rules.durability, self.log_end, log_end, now_ms);
        }
        self.log_end = log_end;
        self.moved()
    }

    /// To be given back with the flush that is being asked for.
    pub fn flush_token(&self) -> FlushToken {
        FlushToken { leader_epoch: self.epoch, truncations: self.truncations }
    }

    /// A flush asked for under `token` has made everything below `end` durable.
    pub fn flushed(&mut self, token: FlushToken, end: Offset) -> Effects {
        if self.deposed.is_some() || token != self.flush_token() || end <= self.flushed {
            return Effects::default();
        }
        assert!(end <= self.log_end, "{}: flushed beyond the log end", self.tp);
        self.flushed = end;
        self.moved()
    }

    /// Retention or DeleteRecords moved the log start; only what is below the high watermark may go.
    pub fn log_start_moved(&mut self, log_start: Offset) {
        assert!(log_start <= self.high_watermark, "{}: deleted beyond the high watermark", self.tp);
        self.log_start = self.log_start.max(log_start);
    }

    // ---- followers ----

    /// A numbered request. The epoch lookup is the leader's own epoch cache.
    pub fn follower_fetch(
        &mut self,
        fetch: &FollowerFetch,
        epochs: impl EpochLookup,
        now_ms: u64,
    ) -> (FetchDecision, Effects) {
        if let Err(refusal) = self.admit(fetch.broker, fetch.broker_epoch, fetch.leader_epoch) {
            return (FetchDecision::Refused(refusal), self.depose_if_over(fetch.leader_epoch));
        }
        if let Some(divergence) = self.divergence(fetch, epochs) {
            return (divergence, Effects::default());
        }
        let next = fetch.next_offset;
        let ack = Ack {
            broker_epoch: fetch.broker_epoch,
            matched: fetch.number,
            flushed: fetch.flushed_end.min(next),
            next,
        };
        let effects = self.record(fetch.broker, ack, now_ms);
        (FetchDecision::Send { from: next }, effects)
    }

    /// An acknowledgement between two numbered requests.
    ///
    /// It is as good as a fetch that asks from the follower's log end: an earlier fetch (by number) matched in
    /// this epoch and registration, so its log was a prefix of this one, and since then it can only have
    /// appended what this leader sent (an answer of another epoch, or to another state of its log, it ignores;
    /// damage stops it until a report raises the epoch; a restart gives it another broker epoch). So what it has
    /// flushed since is a prefix of this log too.
    ///
    /// Without such a fetch it says nothing and is refused. The number matters: an acknowledgement sent while a
    /// request was outstanding that turned out to diverge is about what has been truncated since, and may
    /// arrive, from an older stream, after a later request has matched.
    pub fn follower_ack(&mut self, ack: &FollowerAck, now_ms: u64) -> (Result<(), Refusal>, Effects) {
        if let Err(refusal) = self.admit(ack.broker, ack.broker_epoch, ack.leader_epoch) {
            return (Err(refusal), self.depose_if_over(ack.leader_epoch));
        }
        let recorded = self.followers.get(&ack.broker).and_then(Progress::ack);
        let matched =
            |fetched: &Ack| fetched.broker_epoch == ack.broker_epoch && fetched.matched <= ack.number;
        let Some(fetched) = recorded.filter(matched) else {
            return (Err(Refusal::NoFetch), Effects::default());
        };
        // What it has flushed it has appended.
        let flushed = ack.flushed_end.min(self.log_end);
        let new = Ack { flushed, next: fetched.next.max(flushed), ..fetched };
        (Ok(()), self.record(ack.broker, new, now_ms))
    }

    /// Checks that come before a look at the logs.
    fn admit(&self, broker: BrokerId, epoch: BrokerEpoch, leader_epoch: LeaderEpoch) -> Result<(), Refusal> {
        if self.deposed.is_some() || leader_epoch > self.epoch {
            return Err(Refusal::NotLeader { epoch: self.epoch });
        }
        if leader_epoch < self.epoch {
            return Err(Refusal::FencedEpoch { current: self.epoch });
        }
        if !self.followers.contains_key(&broker) {
            return Err(Refusal::NotReplica(broker));
        }
        match self.current_epoch(broker) {
            Some(current) if current == epoch => Ok(()),
            _ => Err(Refusal::StaleBroker),
        }
    }

    /// Where the follower's log differs from this one, if it does (KIP-101, KIP-279).
    fn divergence(&self, fetch: &FollowerFetch, epochs: impl EpochLookup) -> Option<FetchDecision> {
        let next = fetch.next_offset;
        if next < self.log_start {
            return Some(FetchDecision::BelowLogStart { log_start: self.log_start });
        }
        let none = FetchDecision::Diverging { epoch: None, end: self.log_start };
        let Some(last_epoch) = fetch.last_epoch else {
            // An empty log has nothing that could differ, unless it begins where this one did not reach when the
            // epoch began (what was deleted anywhere was visible, and so is here).
            return (next > self.epoch_start && next != self.log_start).then_some(none);
        };
        match epochs(last_epoch) {
            None => Some(none),
            Some((epoch, end)) if epoch != last_epoch || end < next => {
                Some(FetchDecision::Diverging { epoch: Some(epoch), end })
            }
            Some(_) => None,
        }
    }

    fn record(&mut self, broker: BrokerId, ack: Ack, now_ms: u64) -> Effects {
        let progress = self.followers.get_mut(&broker).expect("admitted followers are replicas");
        progress.record(ack, self.rules.durability, self.log_end, now_ms);
        let mut effects = self.moved();
        if !self.isr.committed().contains(&broker) {
            self.propose(now_ms, &mut effects);
        }
        effects
    }

    // ---- agreement ----

    /// The broker's image has moved. Called for every image in which the partition, its topic or one of its
    /// replicas' brokers changed; more often does no harm.
    pub fn image(&mut self, image: &Image, now_ms: u64) -> Effects {
        if self.deposed.is_some() {
            return Effects::default();
        }
        let Some(partition) = image.partition(self.tp) else {
            return self.depose(Deposed::Deleted);
        };
        if partition.leader_epoch > self.epoch {
            return self.depose(Deposed::Epoch(partition.leader_epoch));
        }
        assert_eq!(partition.leader_epoch, self.epoch, "{}: images never go back", self.tp);
        self.rules = TopicRules::read(image, self.tp, partition);
        self.isr.adopt(&partition.isr, partition.partition_epoch);
        self.see_replicas(partition, image, now_ms);
        self.check();
        let mut effects = self.moved();
        self.propose(now_ms, &mut effects);
        effects
    }

    /// Raft's answer to one of our AlterPartitions, in whatever order. A rejection ends nothing: another copy
    /// may still apply.
    pub fn alter_answer(&mut self, answer: Result<&Partition, &Rejection>, now_ms: u64) -> Effects {
        if self.deposed.is_some() {
            return Effects::default();
        }
        match answer {
            Ok(partition) if partition.leader_epoch > self.epoch => {
                return self.depose(Deposed::Epoch(partition.leader_epoch));
            }
            Ok(partition) if partition.leader_epoch == self.epoch => {
                if !self.isr.adopt(&partition.isr, partition.partition_epoch) {
                    return Effects::default();
                }
                self.check();
            }
            // An answer to this broker's earlier time as leader.
            Ok(_) => return Effects::default(),
            Err(Rejection::StalePartition { leader_epoch, .. }) if *leader_epoch > self.epoch => {
                return self.depose(Deposed::Epoch(*leader_epoch));
            }
            Err(_) => return Effects::default(),
        }
        let mut effects = self.moved();
        self.propose(now_ms, &mut effects);
        effects
    }

    /// A few times in `lag_max_ms` and `resend_ms`: shrinks the ISR by who lags and sends again what has had
    /// no answer.
    pub fn tick(&mut self, now_ms: u64) -> Effects {
        let mut effects = Effects::default();
        if self.deposed.is_none() {
            self.propose(now_ms, &mut effects);
        }
        effects
    }

    /// A leader epoch named by a peer. One above ours ends this leadership.
    pub fn saw_epoch(&mut self, leader_epoch: LeaderEpoch) -> Effects {
        self.depose_if_over(leader_epoch)
    }

    fn depose_if_over(&mut self, seen: LeaderEpoch) -> Effects {
        if self.deposed.is_none() && seen > self.epoch {
            return self.depose(Deposed::Epoch(seen));
        }
        Effects::default()
    }

    fn depose(&mut self, why: Deposed) -> Effects {
        self.deposed = Some(why);
        Effects { deposed: Some(why), ..Effects::default() }
    }

    fn see_replicas(&mut self, partition: &Partition, image: &Image, now_ms: u64) {
        self.brokers = (partition.replicas.iter())
            .filter_map(|&id| {
                let broker = image.broker(id)?;
                Some((id, Standing { epoch: broker.epoch, fenced: broker.fenced }))
            })
            .collect();
        self.followers.retain(|id, _| partition.replicas.contains(id));
        for &id in partition.replicas.iter().filter(|&&id| id != self.me) {
            let in_isr = self.isr.committed().contains(&id);
            self.followers.entry(id).or_insert_with(|| Progress::new(in_isr, self.log_end, now_ms));
        }
    }

    fn current_epoch(&self, broker: BrokerId) -> Option<BrokerEpoch> {
        self.brokers.get(&broker).map(|standing| standing.epoch)
    }

    // ---- decisions ----

    /// After anything that the high watermark depends on.
    fn moved(&mut self) -> Effects {
        Effects { high_watermark: self.advance(), ..Effects::default() }
    }

    fn advance(&mut self) -> Option<Offset> {
        let others = (self.isr.maximal().filter(|&id| id != self.me)).map(|id| self.acknowledged(id));
        let advanced = high_watermark::advance(Inputs {
            current: self.high_watermark,
            own: self.own_end(),
            others,
            committed_isr: self.isr.committed().len(),
            min_insync: self.rules.min_insync,
        });
        assert!(advanced >= self.high_watermark && advanced <= self.log_end);
        let moved = advanced > self.high_watermark;
        if moved {
            self.high_watermark = advanced;
            self.high_watermark_epoch = self.epoch;
        }
        moved.then_some(advanced)
    }

    /// F.
    fn own_end(&self) -> Offset {
        match self.rules.durability {
            Durability::Flushed => self.flushed,
            Durability::Appended => self.log_end,
        }
    }

    /// A, if it was acknowledged in this epoch under the broker epoch that is current.
    fn acknowledged(&self, follower: BrokerId) -> Option<Offset> {
        self.followers.get(&follower)?.end_under(self.current_epoch(follower), self.rules.durability)
    }

    /// Follower `id` may be in the ISR: it holds everything visible and everything from before this epoch, its
    /// broker is registered as it was when it said so, and alive. (Not lagging is for calm, not for safety: a
    /// follower that would be taken out again at once is not let in.)
    fn may_join(&self, id: BrokerId, now_ms: u64) -> bool {
        let alive = self.brokers.get(&id).is_some_and(|standing| !standing.fenced);
        let complete =
            self.acknowledged(id).is_some_and(|end| end >= self.high_watermark && end >= self.epoch_start);
        alive && complete && !self.lags(id, now_ms)
    }

    fn lags(&self, id: BrokerId, now_ms: u64) -> bool {
        let lag_ms = |p: &Progress| p.lag_ms(self.rules.durability, self.log_end, now_ms);
        let lag_ms = self.followers.get(&id).and_then(lag_ms);
        lag_ms.is_none_or(|lag_ms| lag_ms > self.config.lag_max_ms)
    }

    /// The ISR that this leader would have now: itself, members that keep up, followers that have caught up.
    fn wanted_isr(&self, now_ms: u64) -> BTreeSet<BrokerId> {
        let committed = self.isr.committed();
        let belongs = |id: &BrokerId| match committed.contains(id) {
            true => !self.lags(*id, now_ms),
            false => self.may_join(*id, now_ms),
        };
        let mut wanted: BTreeSet<BrokerId> = self.followers.keys().copied().filter(belongs).collect();
        wanted.insert(self.me);
        wanted
    }

    fn propose(&mut self, now_ms: u64, effects: &mut Effects) {
        let wanted = self.wanted_isr(now_ms);
        if !self.isr.should_propose(&wanted, self.config.resend_ms, now_ms) {
            return;
        }
        let with_epoch = |&id: &BrokerId| Some((id, self.current_epoch(id)?));
        let isr: BTreeMap<BrokerId, BrokerEpoch> = wanted.iter().filter_map(with_epoch).collect();
        if isr.len() < wanted.len() {
            return; // a member's broker was unregistered: the partition is about to change
        }
        effects.alter = Some(Command::AlterPartition {
            tp: self.tp,
            requester: self.me,
            leader_epoch: self.epoch,
            partition_epoch: self.isr.epoch(),
            isr,
        });
        self.isr.proposed(&wanted, now_ms);
    }
}
