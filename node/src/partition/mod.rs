//! One replica of one partition on this node: a thin shell around the deciding `core::partition` and the
//! partition's log.
//!
//! Every event locks the state briefly, lets the core decide, and collects what follows ([`After`]); that is
//! carried out once the lock is released: answers to producers, wake-ups, proposals. Lock order: partition
//! state, then the log's own lock, then a replication session's or fetcher's queue. No lock is held over an
//! await or a read of cold data.
//!
//! Invariants: at most one role at a time; a role of an older leader epoch never answers anything once
//! [`Partition::apply`] has seen a newer one; the log is written only under the state lock; the log's retention bound is
//! never above the high watermark of the role (it is lowered with it, under the lock, and raised now and then).

mod damage;
mod follower_reads;
mod leader_side;
mod leading;
mod marks;
mod produce;
mod reading;
mod replica_side;
mod settings;
mod wait;

pub use leader_side::{Fetched, ReadRequest};
pub use produce::{Acks, Completion, ProduceCall, ProduceResult, Produced};
pub use reading::{LeadingReading, PartitionReading};
pub use replica_side::Then;
pub use wait::FetchWaiter;

use crate::context::Context;
use crate::error::ServeError;
use crate::metrics::TopicMeters;
use crate::replica::Fetchers;
use leading::Leading;
use parking_lot::Mutex;
use replica_side::Following;
use settings::log_config;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use strandline_core::partition::{
    Damage, Effects, IdleReason, Leader, LeaderConfig, LeaderStart, Role, desired_role,
};
use strandline_metadata::configs::TopicSettings;
use strandline_metadata::{Command, Image, Response, Topic};
use strandline_record::{LeaderEpoch, Offset, TopicPartition};
use strandline_storage::PartitionLog;
use wait::Waiters;

/// How long a proposal about this partition is tried before the core is told nothing came of it.
const ALTER_DEADLINE: Duration = Duration::from_secs(5);
/// A role that ended because the local log failed begins again after this.
const BEGIN_AGAIN_MS: u64 = 1_000;

pub struct Partition {
    tp: TopicPartition,
    topic: Arc<str>,
    context: Arc<Context>,
    fetchers: Arc<Fetchers>,
    log: Arc<PartitionLog>,
    state: Mutex<State>,
    /// The topic has a `dedup.key`.
    deduplicates: AtomicBool,
    meters: Arc<TopicMeters>,
    this: Weak<Partition>,
}

struct State {
    role: RoleState,
    settings: TopicSettings,
    /// What this replica knows as visible, kept across roles. Forgotten at a restart, which is safe.
    high_watermark: Offset,
    /// The leader epoch in which it learnt that.
    high_watermark_epoch: LeaderEpoch,
    damage: Option<Damage>,
    reported_at_ms: Option<u64>,
    truncations: u64,
    /// Numbers of requests grow across roles.
    last_request: u64,
    /// The newest leader epoch in which leading ended here. It is never taken up again: a second leader of
    /// one epoch would not know what the first has proposed.
    led_until: Option<LeaderEpoch>,
    /// When to look at the image again although nothing in it changed.
    begin_again_ms: Option<u64>,
    waiters: Waiters,
    stopped: bool,
}

enum RoleState {
    Idle(IdleReason),
    Leader(Box<Leading>),
    Follower(Box<Following>),
}

impl State {
    /// Whether leading in `epoch` has ended here already.
    fn has_led(&self, epoch: LeaderEpoch) -> bool {
        !matches!(self.role, RoleState::Leader(_)) && self.led_until.is_some_and(|until| epoch <= until)
    }
}

/// What follows from an event, carried out without the lock.
#[derive(Default)]
#[must_use]
struct After {
    done: Vec<(Completion, ProduceResult)>,
    wake: Vec<Weak<FetchWaiter>>,
    propose: Option<Command>,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Partition({})", self.tp)
    }
}

impl Partition {
    /// Opens (or creates) the log. The partition is idle until metadata is applied.
    pub fn open(
        context: Arc<Context>,
        fetchers: Arc<Fetchers>,
        tp: TopicPartition,
        topic: &Topic,
    ) -> Result<Arc<Self>, ServeError> {
        let settings = TopicSettings::from_configs(&topic.configs, 1);
        let log = context
            .store
            .open_log(tp, &log_config(&settings))
            .map_err(|error| ServeError::NotOpened(error.to_string()))?;
        let damage = log.damaged().map(|_| Damage { found_in: None });
        let deduplicates = AtomicBool::new(settings.dedup.is_some());
        let meters = context.meters.topic(&topic.name);
        let partition = Arc::new_cyclic(|this: &Weak<Partition>| Partition {
            tp,
            topic: topic.name.clone(),
            context,
            fetchers,
            state: Mutex::new(State {
                role: RoleState::Idle(IdleReason::NotRegistered),
                settings,
                high_watermark: log.log_start(),
                high_watermark_epoch: LeaderEpoch(0),
                damage,
                reported_at_ms: None,
                truncations: 0,
                last_request: 0,
                led_until: None,
                begin_again_ms: None,
                waiters: Waiters::default(),
                stopped: false,
            }),
            log,
            deduplicates,
            meters,
            this: this.clone(),
        });
        let weak = Arc::downgrade(&partition);
        partition.log.set_flush_listener(Arc::new(move |_| {
            if let Some(partition) = weak.upgrade() {
                partition.flushed();
            }
        }));
        Ok(partition)
    }

    pub fn tp(&self) -> TopicPartition {
        self.tp
    }

    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Follows the image: same role → the core hears of it; another → the old role ends, the new begins.
    pub fn apply(&self, image: &Image, agreed: &strandline_metadata::Partition) {
        let now_ms = self.context.now_ms();
        let mut after = After::default();
        {
            let mut state = self.state.lock();
            if state.stopped {
                return;
            }
            if let Some(topic) = image.topics.get(&self.tp.topic) {
                self.see_settings(&mut state, topic, agreed);
            }
            self.see_damage(&mut state, Some(image));
            let registered = self.context.broker_epoch();
            let desired = desired_role(self.context.id, registered, image, self.tp, state.damage);
            let desired = match desired {
                // The image has not caught up with what ended this leadership.
                Role::Leader { epoch } if state.has_led(epoch) => Role::Idle(IdleReason::NoLeader),
                desired => desired,
            };
            if state.damage.is_some() && matches!(desired, Role::Follower { .. } | Role::Leader { .. }) {
                self.end_role(&mut state, IdleReason::Damaged, &mut after);
                self.repair(&mut state, matches!(desired, Role::Follower { .. }));
            }
            // What could not be cut takes no role.
            let desired = match state.damage {
                Some(_) => Role::Idle(IdleReason::Damaged),
                None => desired,
            };
            let effects = match (&mut state.role, desired) {
                (RoleState::Leader(leading), Role::Leader { epoch }) if leading.core.epoch() == epoch => {
                    Some(leading.core.image(image, now_ms))
                }
                (RoleState::Follower(following), Role::Follower { leader, epoch })
                    if following.core.epoch() == epoch && following.leader == leader =>
                {
                    None
                }
                (RoleState::Idle(reason), Role::Idle(desired)) => {
                    *reason = desired;
                    None
                }
                _ => self.change_role(&mut state, image, agreed, desired, now_ms, &mut after),
            };
            if let Some(effects) = effects {
                self.follow_up(&mut state, effects, &mut after);
            }
            self.report_damage(&mut state, agreed, now_ms, &mut after);
        }
        self.carry_out(after);
    }

    fn change_role(
        &self,
        state: &mut State,
        image: &Image,
        agreed: &strandline_metadata::Partition,
        desired: Role,
        now_ms: u64,
        after: &mut After,
    ) -> Option<Effects> {
        self.end_role(state, IdleReason::NoLeader, after);
        tracing::debug!(partition = %self.tp, topic = %self.topic, role = ?desired, "role");
        match desired {
            Role::Idle(reason) => {
                state.role = RoleState::Idle(reason);
                None
            }
            Role::Leader { epoch } => {
                self.context.meters.partitions.led.inc();
                // This role may know a lower high watermark than the last one: until it is known, retention, which
                // runs beside this, must not move the log start that the role begins with.
                self.log.set_retention_bound(Offset::ZERO);
                let core = Leader::new(LeaderStart {
                    me: self.context.id,
                    tp: self.tp,
                    image,
                    config: LeaderConfig {
                        lag_max_ms: self.context.config.replica_lag_time_max.as_millis() as u64,
                        ..LeaderConfig::default()
                    },
                    log_start: self.log.log_start(),
                    log_end: self.log.log_end(),
                    flushed: self.log.flushed_end(),
                    high_watermark: state.high_watermark.min(self.log.log_end()),
                    high_watermark_epoch: state.high_watermark_epoch,
                    truncations: state.truncations,
                    now_ms,
                });
                state.high_watermark = core.high_watermark();
                state.high_watermark_epoch = epoch;
                self.log.set_retention_bound(state.high_watermark);
                state.role = RoleState::Leader(Box::new(Leading::new(core)));
                Some(Effects::default())
            }
            Role::Follower { leader, epoch } => {
                self.context.meters.partitions.followed.inc();
                self.begin_following(state, leader, epoch, agreed);
                None
            }
        }
    }

    /// Leaves the current role; what waited on it ends.
    fn end_role(&self, state: &mut State, reason: IdleReason, after: &mut After) {
        self.log.set_tombstone_bound(Offset::ZERO);
        match std::mem::replace(&mut state.role, RoleState::Idle(reason)) {
            RoleState::Idle(_) => {}
            RoleState::Leader(leading) => {
                state.led_until = state.led_until.max(Some(leading.core.epoch()));
                state.high_watermark = leading.core.high_watermark();
                state.high_watermark_epoch = leading.core.epoch();
                leading.abandon(&mut after.done);
                after.wake.extend(state.waiters.take());
            }
            RoleState::Follower(following) => {
                self.end_following(state, *following);
                after.wake.extend(state.waiters.take());
            }
        }
    }

    fn see_settings(&self, state: &mut State, topic: &Topic, agreed: &strandline_metadata::Partition) {
        let settings = TopicSettings::from_configs(&topic.configs, agreed.target_replication());
        if settings != state.settings {
            self.log.set_config(log_config(&settings));
            self.deduplicates.store(settings.dedup.is_some(), Ordering::Relaxed);
            state.settings = settings;
        }
    }

    /// Carries the core's effects into `after`. Waiting produces and readers are looked at whenever the
    /// marks may have moved.
    fn follow_up(&self, state: &mut State, effects: Effects, after: &mut After) {
        if let RoleState::Leader(leading) = &mut state.role {
            leading.take_acknowledged(&mut after.done);
            if effects.high_watermark.is_some() {
                after.wake.extend(state.waiters.take());
            }
        }
        if effects.alter.is_some() {
            after.propose = effects.alter;
        }
        if let Some(why) = effects.deposed {
            tracing::debug!(partition = %self.tp, ?why, "deposed");
            self.end_role(state, IdleReason::NoLeader, after);
        }
    }

    fn carry_out(&self, after: After) {
        for (completion, result) in after.done {
            completion.complete(result);
        }
        for waiter in after.wake {
            if let Some(waiter) = waiter.upgrade() {
                waiter.wake();
            }
        }
        if let Some(command) = after.propose {
            self.propose(command);
        }
    }

    /// Proposals run on their own; the core bounds how many there are by its resend pause.
    fn propose(&self, command: Command) {
        let Some(partition) = self.this.upgrade() else { return };
        tokio::spawn(async move {
            let answer = partition.context.propose(command, ALTER_DEADLINE).await;
            let now_ms = partition.context.now_ms();
            let mut after = After::default();
            {
                let mut state = partition.state.lock();
                let effects = match (&mut state.role, &answer) {
                    (RoleState::Leader(leading), Ok(Response::Partition(agreed))) => {
                        leading.core.alter_answer(Ok(agreed), now_ms)
                    }
                    (RoleState::Leader(leading), Err(ServeError::Rejected(rejection))) => {
                        leading.core.alter_answer(Err(rejection), now_ms)
                    }
                    _ => Effects::default(),
                };
                partition.follow_up(&mut state, effects, &mut after);
            }
            partition.carry_out(after);
        });
    }

    // ---- time and end ----

    /// Ends following after a failure of the local log; the role is begun again after a pause.
    fn give_up_following(&self, state: &mut State) {
        let mut after = After::default();
        self.end_role(state, IdleReason::NoLeader, &mut after);
        assert!(after.done.is_empty(), "a follower answers no producer");
        state.begin_again_ms = Some(self.context.now_ms() + BEGIN_AGAIN_MS);
    }

    fn begin_again_if_due(&self, now_ms: u64) {
        let due = {
            let mut state = self.state.lock();
            let due = state.begin_again_ms.is_some_and(|at| at <= now_ms);
            if due {
                state.begin_again_ms = None;
            }
            due
        };
        let image = self.context.image();
        if due && let Some(agreed) = image.partition(self.tp) {
            self.apply(&image, agreed);
        }
    }

    /// Called every 100 ms or so.
    pub fn tick(&self, now_ms: u64) {
        // Where appending flushes at once nobody calls; and appends find damage of their own.
        self.flushed();
        if self.log.damaged().is_some() {
            self.look_for_damage();
        }
        self.begin_again_if_due(now_ms);
        let mut after = After::default();
        {
            let mut state = self.state.lock();
            let compacted = state.settings.compaction.is_some();
            let effects = match &mut state.role {
                RoleState::Leader(leading) => {
                    leading.take_expired(now_ms, &mut after.done);
                    let high_watermark = leading.core.high_watermark();
                    self.log.set_retention_bound(high_watermark);
                    if compacted {
                        self.log.set_tombstone_bound(leading.core.held_by_all().unwrap_or(Offset::ZERO));
                    }
                    for feed in leading.feeds.values() {
                        if feed.outstanding.is_some() && feed.sent_high_watermark < high_watermark {
                            feed.session.mark_ready(self.tp);
                        }
                    }
                    leading.core.tick(now_ms)
                }
                RoleState::Follower(following) => {
                    self.log.set_retention_bound(following.core.high_watermark());
                    Effects::default()
                }
                RoleState::Idle(_) => Effects::default(),
            };
            self.follow_up(&mut state, effects, &mut after);
            if state.damage.is_some()
                && let Some(agreed) = self.context.image().partition(self.tp)
            {
                self.report_damage(&mut state, agreed, now_ms, &mut after);
            }
        }
        self.carry_out(after);
    }

    /// Whether idempotency keys of the log are still to be read.
    pub fn has_keys_to_read(&self) -> bool {
        self.deduplicates.load(Ordering::Relaxed)
            && self.log.damaged().is_none()
            && self.log.dedup_is_behind()
    }

    /// Reads on. Whether there may be more.
    pub fn read_keys(&self, max_bytes: usize) -> bool {
        match self.log.catch_up_dedup(max_bytes, self.context.env.wall_clock_ms()) {
            Ok(done) => !done,
            Err(error) => {
                tracing::warn!(partition = %self.tp, %error, "idempotency keys cannot be read");
                self.look_for_damage();
                false
            }
        }
    }

    /// Ends every role; waiting requests end as unknown.
    pub fn stop(&self) {
        let mut after = After::default();
        {
            let mut state = self.state.lock();
            state.stopped = true;
            self.end_role(&mut state, IdleReason::UnknownPartition, &mut after);
            after.wake.extend(state.waiters.take());
        }
        self.carry_out(after);
    }
}
