//! Sends requests when they are due, through a fixed number of slots, and counts what becomes of them.
//!
//! ```text
//!  schedule ──number──▶ slot: wait until it is due ─▶ send, until answered or timed out ─▶ window of this second
//!     ▲                   │ free again                                                        │ each second
//!     └───────────────────┘                                                 totals, points ◀──┘
//! ```
//!
//! A free slot takes the next number. While all are busy requests become late, none is skipped: what is due and not
//! started at the end of the schedule is reported as not reached. Requests of the warm-up are sent and not counted; those
//! that were not sent by its end never are.

use super::super::CpuArgs;
use super::super::cpu::CpuTime;
use super::pace::Schedule;
use super::stats::{Answer, Point, Window};
use crate::exit::{Exit, Failure};
use crate::signals::Signals;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

const SECOND: Duration = Duration::from_secs(1);

/// One place for a request under way: with HTTP a connection.
pub trait Slot: Send + 'static {
    /// Sends request `n` and waits for its answer. May be dropped at any point; the next call must find things in order.
    fn send(&mut self, n: u64) -> impl Future<Output = Answer> + Send;
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// From the start of the warm-up.
    pub schedule: Schedule,
    pub warmup: Duration,
    /// A request that is not answered this long after it was started has failed.
    pub timeout: Duration,
}

/// What came of a run.
#[derive(Debug)]
pub struct Measured {
    pub total: Window,
    pub points: Vec<Point>,
    /// Requests that were due while it was measured; `None` in a closed loop.
    pub due: Option<u64>,
    /// Of those, how many were started.
    pub started: u64,
    /// Requests that were acknowledged during the warm-up.
    pub warmup_acknowledged: u64,
    /// From the end of the warm-up to the end of the schedule, or to the last answer if that is later.
    pub elapsed: Duration,
    pub client_cpu: Duration,
    pub cluster_cpu: Option<Duration>,
    /// It was interrupted, and its schedule not carried out.
    pub interrupted: bool,
}

struct Shared {
    plan: Plan,
    begun: Instant,
    next: AtomicU64,
    started: AtomicU64,
    in_flight: AtomicU64,
    windows: Mutex<Windows>,
}

struct Windows {
    /// The present second: requests of the warm-up, and those that are measured.
    warmup: Window,
    now: Window,
    warmup_acknowledged: u64,
    last_answer: Duration,
}

/// Runs a plan through these slots and gives them back. `each_second` is told of each second, and whether it was one of
/// the warm-up.
///
/// # Errors
/// Where the watched nodes cannot be read.
pub async fn run<S: Slot>(
    plan: Plan,
    slots: Vec<S>,
    watched: &CpuArgs,
    signals: &mut Signals,
    mut each_second: impl FnMut(&Point, bool),
) -> Result<(Measured, Vec<S>), Failure> {
    let shared = Arc::new(Shared {
        plan,
        begun: Instant::now(),
        next: AtomicU64::new(0),
        started: AtomicU64::new(0),
        in_flight: AtomicU64::new(0),
        windows: Mutex::new(Windows {
            warmup: Window::new(),
            now: Window::new(),
            warmup_acknowledged: 0,
            last_answer: Duration::ZERO,
        }),
    });
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for slot in slots {
        tasks.spawn(one(slot, shared.clone(), stopped.clone()));
    }
    drop(stopped);
    let mut ticks = Ticks { shared: &shared, cpu: CpuTime::now(watched)?, from: Duration::ZERO };
    let mut before = ticks.cpu.clone();
    let mut all = Window::new();
    let mut points = Vec::new();
    let mut idle = Vec::with_capacity(tasks.len());
    let mut interrupted = false;
    let mut measuring = plan.warmup.is_zero();
    let mut next = if measuring { SECOND } else { plan.warmup.min(SECOND) };
    loop {
        tokio::select! {
            biased;
            _ = signals.next(), if !interrupted => {
                interrupted = true;
                stop.send_replace(true);
            }
            () = sleep_until(shared.begun + next) => {
                let point = ticks.tick(&mut all, watched, measuring)?;
                each_second(&point, !measuring);
                let now = shared.begun.elapsed();
                if measuring {
                    points.push(point);
                } else if next >= plan.warmup {
                    measuring = true;
                    before = ticks.cpu.clone();
                    ticks.from = plan.warmup;
                }
                // A late tick makes a longer second, not two short ones.
                next = (next + SECOND).max(now + SECOND / 2);
                if !measuring {
                    next = next.min(plan.warmup);
                }
            }
            done = tasks.join_next() => match done {
                Some(Ok(slot)) => idle.push(slot),
                Some(Err(error)) => return Err(Failure::new(Exit::Failure, error)),
                None => break,
            },
        }
    }
    // What was answered since the last tick; a piece too short to be a rate of its own is in the totals only.
    let point = ticks.tick(&mut all, watched, measuring)?;
    if measuring && point.t - points.last().map_or(0.0, |last: &Point| last.t) >= 0.5 {
        each_second(&point, false);
        points.push(point);
    }
    let (client, cluster) = before.until(&ticks.cpu);
    let stopped_at = shared.begun.elapsed();
    let windows = shared.windows.lock().unwrap_or_else(PoisonError::into_inner);
    let end = if interrupted { stopped_at.min(plan.schedule.end) } else { plan.schedule.end };
    let measured = Measured {
        due: plan.schedule.count(plan.warmup, end),
        started: shared.started.load(Relaxed),
        warmup_acknowledged: windows.warmup_acknowledged,
        elapsed: end.max(windows.last_answer).saturating_sub(plan.warmup),
        total: all,
        points,
        client_cpu: Duration::from_secs_f64(client.max(0.0)),
        cluster_cpu: cluster.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
        interrupted,
    };
    drop(windows);
    Ok((measured, idle))
}

/// The clock's side: closes the window of a second.
struct Ticks<'a> {
    shared: &'a Shared,
    cpu: CpuTime,
    /// When the present window began.
    from: Duration,
}

impl Ticks<'_> {
    fn tick(&mut self, all: &mut Window, watched: &CpuArgs, measuring: bool) -> Result<Point, Failure> {
        let Shared { plan, begun, .. } = self.shared;
        let now = begun.elapsed();
        let seconds = now.saturating_sub(self.from).as_secs_f64().max(1e-6);
        let due = plan.schedule.count(self.from, now);
        let in_flight = self.shared.in_flight.load(Relaxed);
        let t = now.as_secs_f64() - plan.warmup.as_secs_f64();
        let mut point = {
            let mut windows = self.shared.windows.lock().unwrap_or_else(PoisonError::into_inner);
            let window = if measuring { &mut windows.now } else { &mut windows.warmup };
            let point = Point::of(window, t, seconds, due, in_flight);
            if measuring {
                all.merge(window);
            }
            window.clear();
            point
        };
        let cpu = CpuTime::now(watched)?;
        let (client, cluster) = self.cpu.until(&cpu);
        point.client_cores = client / seconds;
        point.cluster_cores = cluster.map(|cluster| cluster / seconds);
        point.cluster_memory_bytes = cpu.memory();
        (self.cpu, self.from) = (cpu, now);
        Ok(point)
    }
}

/// A slot's loop.
async fn one<S: Slot>(mut slot: S, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) -> S {
    let Plan { schedule, warmup, timeout } = shared.plan;
    while !*stopped.borrow() {
        let n = shared.next.fetch_add(1, Relaxed);
        let now = shared.begun.elapsed();
        let Some(due) = schedule.due(n, now) else { break };
        if due < warmup && now >= warmup {
            // A cluster that was too slow for the warm-up is measured without what that left over.
            shared.next.fetch_max(schedule.first_at(warmup), Relaxed);
            continue;
        }
        // What a free slot waited for is sent, also if the slot is woken late.
        if now >= schedule.end {
            break;
        }
        if due > now {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => break,
                () = sleep_until(shared.begun + due) => {}
            }
        }
        let started = shared.begun.elapsed();
        let measured = due >= warmup;
        shared.in_flight.fetch_add(1, Relaxed);
        shared.started.fetch_add(u64::from(measured), Relaxed);
        let answer = timeout_at(shared.begun + started + timeout, slot.send(n)).await;
        let answer = answer.unwrap_or_else(|_| Answer::Failed("no answer in time".to_owned()));
        shared.in_flight.fetch_sub(1, Relaxed);
        let answered = shared.begun.elapsed();
        let mut windows = shared.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if measured {
            windows.now.record(due, started, answered, answer);
            windows.last_answer = answered;
        } else {
            windows.warmup_acknowledged += u64::from(answer == Answer::Acknowledged);
            windows.warmup.record(due, started, answered, answer);
        }
    }
    slot
}

#[cfg(test)]
mod tests;
