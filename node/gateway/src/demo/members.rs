//! The reading side: the members of the three groups, each a consumer of its own that shares its group's figures.

use super::ledger::Ledger;
use super::payment::Payment;
use super::recent::Rate;
use super::script::{self, Step, Steps};
use super::work::{Analytics, Notifications, Orders};
use super::{Group, Running, TOPIC, Work};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{
    AutoOffsetReset, Consumer, ConsumerRecord, Error, ErrorKind, OffsetSpec, TopicPartition,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Records of a poll.
const BATCH: usize = 1_000;
/// So close to the end of each partition a round of `demo.analytics` is over: new records come all the time.
const CLOSE: i64 = 100;
/// Longest wait for a record: how soon a member sees that it is to do something else.
const LOOK: Duration = Duration::from_millis(500);
/// Between two rounds of `demo.analytics`.
const ROUND: Duration = Duration::from_secs(2);
/// How often the roster is looked at.
const ROSTER: Duration = Duration::from_millis(500);
const COMMIT: Duration = Duration::from_secs(1);
const LEAVE: Duration = Duration::from_secs(4);
const AFTER_ERROR: Duration = Duration::from_millis(500);
const FETCH_BYTES: u32 = 512 << 10;
const PREFETCH_BYTES: usize = 1 << 20;

/// A group, and what its members have found.
#[derive(Debug)]
pub(super) struct GroupState {
    name: &'static str,
    found: Mutex<Found>,
}

#[derive(Debug)]
struct Found {
    ledger: Ledger,
    made: Made,
    members: usize,
    generation: Option<i32>,
    rebalances: u64,
    unreadable: u64,
    errors: u64,
    last_error: Option<String>,
    rate: Rate,
    lag: Option<u64>,
}

#[derive(Debug)]
enum Made {
    Orders(Orders),
    Notifications(Notifications),
    Analytics(Box<Analytics>),
}

impl GroupState {
    /// The three groups.
    pub(super) fn all() -> Vec<Arc<GroupState>> {
        let group = |name, made| {
            let found = Found {
                ledger: Ledger::default(),
                made,
                members: 0,
                generation: None,
                rebalances: 0,
                unreadable: 0,
                errors: 0,
                last_error: None,
                rate: Rate::default(),
                lag: None,
            };
            Arc::new(GroupState { name, found: Mutex::new(found) })
        };
        vec![
            group("demo.orders", Made::Orders(Orders::default())),
            group("demo.notifications", Made::Notifications(Notifications::default())),
            group("demo.analytics", Made::Analytics(Box::default())),
        ]
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Another second is over.
    pub(super) fn turn(&self, now: Duration) {
        let mut found = self.found.lock();
        let read = found.ledger.read();
        found.rate.note(now, read);
    }

    /// The ends of the topic's partitions, and what the group has committed.
    pub(super) fn ends(&self, ends: &BTreeMap<i32, i64>, committed: &BTreeMap<i32, i64>) {
        let mut found = self.found.lock();
        found.lag = Some(found.ledger.lag(ends, committed));
    }

    pub(super) fn figures(&self, running: &Running) -> Group {
        let found = self.found.lock();
        let rate = running.rate_per_minute();
        let behind = found.lag.is_some_and(|lag| lag > u64::from(rate / 60).max(1_000));
        Group {
            group: self.name.to_owned(),
            phase: match &found.made {
                Made::Orders(_) if behind => "shares the partitions anew, or catches up".to_owned(),
                Made::Orders(_) => "keeps up; members come and go".to_owned(),
                Made::Notifications(_) if script::notifications_limit(running.elapsed(), rate).is_some() => {
                    format!("slow: manages {} % of what is paid", script::SLOW_PERCENT)
                }
                Made::Notifications(_) if behind => "catches up".to_owned(),
                Made::Notifications(_) => "keeps up".to_owned(),
                Made::Analytics(analytics) if analytics.is_replaying() => {
                    "reads again what it has read".to_owned()
                }
                Made::Analytics(_) => format!("reads everything new, every {} s", ROUND.as_secs()),
            },
            members: found.members,
            lag: found.lag,
            per_second: found.rate.per(Duration::from_secs(1)),
            read: found.ledger.read(),
            repeated: found.ledger.repeated(),
            unreadable: found.unreadable,
            rebalances: found.rebalances,
            errors: found.errors,
            last_error: found.last_error.clone(),
            work: found.made.figures(),
        }
    }

    fn take(&self, records: &[ConsumerRecord]) {
        let mut found = self.found.lock();
        let found = &mut *found;
        for record in records {
            let new = found.ledger.take(record.partition, record.offset);
            let Some(payment) = record.value.as_deref().and_then(Payment::read) else {
                found.unreadable += u64::from(new);
                continue;
            };
            match &mut found.made {
                Made::Orders(orders) if new => {
                    found.unreadable += u64::from(!orders.take(&payment));
                }
                Made::Notifications(notifications) if new => notifications.take(&payment),
                Made::Analytics(analytics) if new => {
                    analytics.take(record.partition, record.offset, &payment);
                }
                Made::Analytics(analytics) => {
                    analytics.take_again(record.partition, record.offset, &payment);
                }
                Made::Orders(_) | Made::Notifications(_) => {}
            }
        }
    }

    fn is_in(&self, generation: i32) {
        let mut found = self.found.lock();
        let before = found.generation.unwrap_or(generation);
        found.rebalances += u64::try_from(generation - before).unwrap_or(0);
        found.generation = Some(before.max(generation));
    }

    fn failed(&self, error: &Error) {
        let mut found = self.found.lock();
        found.errors += 1;
        found.last_error = Some(error.message().to_owned());
    }

    fn analytics<T>(&self, act: impl FnOnce(&mut Analytics) -> T) -> Option<T> {
        match &mut self.found.lock().made {
            Made::Analytics(analytics) => Some(act(analytics)),
            Made::Orders(_) | Made::Notifications(_) => None,
        }
    }
}

impl Made {
    fn figures(&self) -> Work {
        match self {
            Made::Orders(orders) => orders.figures(),
            Made::Notifications(notifications) => notifications.figures(),
            Made::Analytics(analytics) => analytics.figures(),
        }
    }
}

/// Keeps as many members as the script says until it is told to stop, then lets them leave.
pub(super) async fn run(group: Arc<GroupState>, running: Arc<Running>) {
    let mut members: Vec<CancellationToken> = Vec::new();
    let mut tasks = JoinSet::new();
    while !running.stop.is_cancelled() {
        let wanted = match group.found.lock().made {
            Made::Orders(_) => script::orders_members(running.elapsed()),
            Made::Notifications(_) | Made::Analytics(_) => 1,
        };
        while members.len() < wanted {
            let stop = running.stop.child_token();
            members.push(stop.clone());
            tasks.spawn(member(group.clone(), running.clone(), stop));
        }
        while members.len() > wanted {
            if let Some(last) = members.pop() {
                last.cancel();
            }
        }
        while tasks.try_join_next().is_some() {}
        tokio::select! {
            biased;
            () = running.stop.cancelled() => {}
            () = tokio::time::sleep(ROSTER) => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// A member that is counted until it is dropped.
struct Present<'a>(&'a GroupState);

impl<'a> Present<'a> {
    fn new(group: &'a GroupState) -> Self {
        group.found.lock().members += 1;
        Present(group)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.found.lock().members -= 1;
    }
}

/// One member: reads until it is told to stop, with another consumer after an error that this one does not survive.
async fn member(group: Arc<GroupState>, running: Arc<Running>, stop: CancellationToken) {
    let mut steps = Steps::default();
    while !stop.is_cancelled() {
        let mut consumer = match join(&group, &running) {
            Ok(consumer) => consumer,
            Err(error) => {
                group.failed(&error);
                pause(AFTER_ERROR, &stop).await;
                continue;
            }
        };
        let ended = {
            let reading = read(&group, &running, &mut consumer, &mut steps, &stop);
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                ended = reading => ended,
            }
        };
        if tokio::time::timeout(LEAVE, consumer.close()).await.is_err() {
            tracing::debug!(group = group.name, "a member of the demonstration did not leave in time");
        }
        if let Err(error) = ended {
            group.failed(&error);
            pause(AFTER_ERROR, &stop).await;
        }
    }
}

fn join(group: &GroupState, running: &Running) -> Result<Consumer, Error> {
    let consumer = running
        .client
        .consumer()
        .group(group.name)
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .auto_commit_interval(COMMIT)
        .fetch_max_bytes(FETCH_BYTES)
        .prefetch_bytes(PREFETCH_BYTES)
        .build()?;
    consumer.subscribe([TOPIC])?;
    Ok(consumer)
}

async fn pause(time: Duration, stop: &CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep(time) => {}
    }
}

/// Reads at the group's pace. May be dropped at any point: what was handed out last is then read again by someone.
async fn read(
    group: &GroupState,
    running: &Running,
    consumer: &mut Consumer,
    steps: &mut Steps,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let analytics = matches!(group.found.lock().made, Made::Analytics(_));
    let notifications = matches!(group.found.lock().made, Made::Notifications(_));
    let mut present = None;
    let mut replaying: BTreeMap<i32, i64> = BTreeMap::new();
    loop {
        if analytics && let Some(step) = steps.due(running.elapsed()) {
            replaying = take_step(group, consumer, step);
        }
        let limit = notifications
            .then(|| script::notifications_limit(running.elapsed(), running.rate_per_minute()))
            .flatten();
        let most = match limit {
            // Some times a second.
            Some(limit) => ((limit / 5.0) as usize).clamp(1, BATCH),
            None => BATCH,
        };
        let records = match consumer.poll(most, LOOK).await {
            Ok(records) => records,
            Err(error) => {
                overcome(consumer, error, group)?;
                continue;
            }
        };
        match consumer.membership() {
            Some((_, generation)) => {
                present.get_or_insert_with(|| Present::new(group));
                group.is_in(generation);
            }
            None => present = None,
        }
        replaying.retain(|partition, from| still_there(group, consumer, *partition, *from));
        group.take(&records);
        if let Some(limit) = limit {
            pause(Duration::from_secs_f64(records.len() as f64 / limit), stop).await;
        } else if analytics && is_close(consumer) && group.analytics(|a| a.is_replaying()) == Some(false) {
            pause(ROUND, stop).await;
        } else {
            // Records at hand are handed out without waiting: others have work as well.
            tokio::task::yield_now().await;
        }
    }
}

/// Whether it is near the end of everything that it reads.
fn is_close(consumer: &Consumer) -> bool {
    let close = |partition: &TopicPartition| {
        consumer.lag(partition).is_none_or(|lag| lag.high_watermark - lag.position <= CLOSE)
    };
    consumer.assignment().iter().all(close)
}

/// Records that were read may be gone from the log after an unclean election: goes on from where the log is now.
fn overcome(consumer: &Consumer, error: Error, group: &GroupState) -> Result<(), Error> {
    if let ErrorKind::Truncated { partition, end_offset, .. } = error.kind() {
        let moved = consumer.seek(partition, OffsetSpec::Offset(*end_offset));
        group.failed(&error);
        return moved.or(Ok(()));
    }
    Err(error)
}

/// Where each partition is read from again, if it is.
fn take_step(group: &GroupState, consumer: &Consumer, step: Step) -> BTreeMap<i32, i64> {
    match step {
        Step::Mark => {
            group.analytics(Analytics::mark);
            BTreeMap::new()
        }
        Step::Replay => {
            let mut from = group.analytics(Analytics::replay).unwrap_or_default();
            from.retain(|partition, from| {
                let there = still_there(group, consumer, *partition, *from);
                let to = OffsetSpec::Offset(*from);
                let moved = there && consumer.seek(&TopicPartition::new(TOPIC, *partition), to).is_ok();
                if there && !moved {
                    // Not its partition just now.
                    group.analytics(|analytics| analytics.cannot_replay(*partition));
                }
                moved
            });
            from
        }
    }
}

/// Whether the log still begins at or before where a replay does; if not, there is nothing to compare with.
fn still_there(group: &GroupState, consumer: &Consumer, partition: i32, from: i64) -> bool {
    let lag = consumer.lag(&TopicPartition::new(TOPIC, partition));
    let there = lag.is_none_or(|lag| lag.log_start_offset <= from);
    if !there {
        group.analytics(|analytics| analytics.cannot_replay(partition));
    }
    there
}
