//! The demonstration: a stream of payments at a chosen rate, and three groups that read it at different speeds, so that
//! lag, rebalancing and replay can be watched, and a cluster be seen to go on when a node is killed.
//!
//! ```text
//!  Pacer ─► Payments ─► producer ─► demo.payments ─┬─► demo.orders         2 to 4 members that come and go
//!  (when)   (what)        │                        ├─► demo.notifications  slow now and then: falls behind, catches up
//!                         ▼                        └─► demo.analytics      now and then; goes back and reads again
//!                  Times, Rate, counts                      │
//!                         └─────────► Report ◄──────────────┘ Ledger, Work
//! ```
//!
//! It is a client of the cluster like any other: the SDK and nothing else. What happens when ([`script`], [`pace`]), what
//! is written ([`payment`]) and what the groups make of it ([`work`], [`ledger`]) is pure; [`produce`], [`members`],
//! [`observe`] and [`lease`] carry it out.
//!
//! Invariants: a cluster has one at a time ([`lease`]); what came due is acknowledged, failed, unknown, behind or
//! shed, and each is counted; every task ends within [`FINISH`] of a stop; a group counts each payment once.

mod control;
mod lease;
mod ledger;
mod members;
mod observe;
mod pace;
mod payment;
mod produce;
mod recent;
mod report;
mod script;
mod topics;
mod work;

pub(crate) use control::{Ask, Control, Refused, Status};
pub use lease::Holder;
pub use report::{Ended, Group, Merchant, Paid, Report, State, Work, Written};

use lease::{Lease, NotMine};
use members::GroupState;
use parking_lot::Mutex;
use produce::Writing;
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{Client, Error};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Where the payments are.
pub const TOPIC: &str = "demo.payments";
/// Payments a minute, at least, at most, and unless told.
pub const RATES: std::ops::RangeInclusive<u32> = 10_000..=1_000_000;
/// Payments a minute, unless told.
pub const DEFAULT_RATE: u32 = 100_000;

/// For its parts to end.
const FINISH: Duration = Duration::from_secs(10);

/// What is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Payments a minute.
    pub rate_per_minute: u32,
    /// When it stops by itself, from its start; `None`: when it is told to.
    pub limit: Option<Duration>,
    /// Whether the groups read.
    pub groups: bool,
    /// Where it runs, for those who want to stop it.
    pub by: String,
}

/// What can be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    rate_per_minute: u32,
    ends: Option<Instant>,
}

/// Why there is no demonstration.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// There is one already.
    #[error("a demonstration of this cluster runs already: {}", .0.by)]
    Elsewhere(Holder),
    /// The rate is not one of [`RATES`].
    #[error("{0} payments a minute are not between {low} and {high}", low = RATES.start(), high = RATES.end())]
    Rate(u32),
    /// The cluster did not do what is needed.
    #[error("{0}")]
    Cluster(#[from] Error),
}

/// A demonstration that runs, or did.
#[derive(Clone, Debug)]
pub struct Demo(Arc<Running>);

/// What its parts share.
#[derive(Debug)]
struct Running {
    client: Client,
    by: String,
    started: Instant,
    started_at: i64,
    wish: watch::Sender<Wish>,
    stop: CancellationToken,
    stage: Mutex<Stage>,
    done: CancellationToken,
    writing: Mutex<Writing>,
    groups: Vec<Arc<GroupState>>,
}

#[derive(Debug)]
struct Stage {
    state: State,
    ended: Option<Ended>,
}

impl Demo {
    /// Starts one, on the present Tokio runtime: makes its topics where they are missing, and sees to it that it is the
    /// only one.
    ///
    /// # Errors
    /// [`StartError`]: then nothing runs.
    pub async fn start(client: Client, plan: Plan) -> Result<Demo, StartError> {
        if !RATES.contains(&plan.rate_per_minute) {
            return Err(StartError::Rate(plan.rate_per_minute));
        }
        topics::create(&client).await?;
        let lease = match Lease::take(&client).await {
            Ok(lease) => lease,
            Err(NotMine::Held(holder)) => return Err(StartError::Elsewhere(holder)),
            Err(NotMine::Cluster(error)) => return Err(error.into()),
        };
        let started = Instant::now();
        let wish = Wish {
            rate_per_minute: plan.rate_per_minute,
            ends: plan.limit.and_then(|limit| started.checked_add(limit)),
        };
        let demo = Demo(Arc::new(Running {
            started_at: client.now_ms(),
            client,
            by: plan.by,
            started,
            wish: watch::Sender::new(wish),
            stop: CancellationToken::new(),
            stage: Mutex::new(Stage { state: State::Running, ended: None }),
            done: CancellationToken::new(),
            writing: Mutex::default(),
            groups: if plan.groups { GroupState::all() } else { Vec::new() },
        }));
        tokio::spawn(demo.0.clone().run(lease));
        Ok(demo)
    }

    /// Changes the rate from now on, within [`RATES`].
    pub fn set_rate(&self, per_minute: u32) {
        let per_minute = per_minute.clamp(*RATES.start(), *RATES.end());
        self.0.wish.send_modify(|wish| wish.rate_per_minute = per_minute);
    }

    /// Changes when it stops by itself: so long from now.
    pub fn set_limit(&self, limit: Duration) {
        self.0.wish.send_modify(|wish| wish.ends = Instant::now().checked_add(limit));
    }

    /// Tells it to stop. [`ended`](Self::ended) says when it has.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Waits until everything that belongs to it has ended.
    pub async fn ended(&self) {
        self.0.done.cancelled().await;
    }

    /// Nothing of it runs any more.
    pub fn has_ended(&self) -> bool {
        self.0.done.is_cancelled()
    }

    /// How it goes; after its end, how it went.
    pub fn report(&self) -> Report {
        let running = &self.0;
        let wish = *running.wish.borrow();
        let (state, ended) = {
            let stage = running.stage.lock();
            (stage.state, stage.ended)
        };
        Report {
            state,
            by: running.by.clone(),
            ended,
            started_at: running.started_at,
            ends_at: running.ends_at(&wish),
            rate_per_minute: wish.rate_per_minute,
            written: running.writing.lock().figures(),
            groups: running.groups.iter().map(|group| group.figures(running)).collect(),
        }
    }
}

impl Running {
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn rate_per_minute(&self) -> u32 {
        self.wish.borrow().rate_per_minute
    }

    fn ends_at(&self, wish: &Wish) -> Option<i64> {
        let lasts = wish.ends?.saturating_duration_since(self.started);
        Some(self.started_at.saturating_add(i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX)))
    }

    /// What others are told of it.
    fn holder(&self) -> Holder {
        let wish = *self.wish.borrow();
        Holder {
            by: self.by.clone(),
            rate_per_minute: wish.rate_per_minute,
            started_at: self.started_at,
            ends_at: self.ends_at(&wish),
        }
    }

    async fn run(self: Arc<Self>, mut lease: Lease) {
        let mut parts = JoinSet::new();
        parts.spawn(produce::run(self.clone()));
        parts.spawn(observe::run(self.clone()));
        for group in &self.groups {
            parts.spawn(members::run(group.clone(), self.clone()));
        }
        tracing::info!(by = %self.by, "the demonstration runs");
        let why = tokio::select! {
            biased;
            () = self.stop.cancelled() => Ended::Stopped,
            () = self.time_is_up() => Ended::TimeIsUp,
            () = lease.hold(&self) => Ended::LostItsPlace,
            // They go on until they are told to stop.
            _ = parts.join_next() => Ended::Broken,
        };
        self.stage.lock().state = State::Stopping;
        self.stop.cancel();
        let all_end = async { while parts.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH, all_end).await.is_err() {
            tracing::warn!("the demonstration did not end in time; what it was doing is given up");
            parts.shutdown().await;
        }
        lease.give_back().await;
        tracing::info!(?why, "the demonstration has ended");
        *self.stage.lock() = Stage { state: State::Stopped, ended: Some(why) };
        self.done.cancel();
    }

    async fn time_is_up(&self) {
        let mut wishes = self.wish.subscribe();
        loop {
            let ends = wishes.borrow_and_update().ends;
            let up = async {
                match ends {
                    Some(ends) => tokio::time::sleep_until(ends).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = wishes.changed() => {}
                () = up => return,
            }
        }
    }
}
