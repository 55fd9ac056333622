//! The demonstration of a gateway: started, changed and stopped by requests, and never twice.

use super::{DEFAULT_RATE, Demo, Holder, Plan, RATES, Report, StartError, State, lease};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{Client, Error};
use utoipa::ToSchema;

/// Minutes after which it stops by itself, unless told and at most: a button that was forgotten fills no disk.
const DEFAULT_MINUTES: u32 = 15;
const MOST_MINUTES: u32 = 120;
/// To ask the cluster who runs one.
const LOOK: Duration = Duration::from_secs(2);

/// What is asked for; what is left out stays as it is, or is the default.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = DemoAsk)]
pub(crate) struct Ask {
    /// Whether it is to run; true unless said otherwise.
    #[serde(default = "yes")]
    pub(crate) running: bool,
    /// Payments a minute; 100 000 at first.
    #[schema(minimum = 10_000, maximum = 1_000_000)]
    rate_per_minute: Option<u32>,
    /// From now, until it stops by itself; 15 at first.
    #[schema(minimum = 1, maximum = 120)]
    minutes: Option<u32>,
}

fn yes() -> bool {
    true
}

/// The demonstration of the cluster, as this gateway sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DemoStatus)]
pub(crate) struct Status {
    state: State,
    /// This gateway is in development mode: it may be started here.
    allowed: bool,
    min_rate_per_minute: u32,
    max_rate_per_minute: u32,
    /// Who runs it, if it is not this gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    elsewhere: Option<Holder>,
    /// The one of this gateway, or the last one that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    here: Option<Report>,
}

impl Status {
    /// Who runs it, if it is not this gateway.
    pub(crate) fn elsewhere(&self) -> Option<&Holder> {
        self.elsewhere.as_ref()
    }
}

/// Why it is not done.
#[derive(Debug)]
pub(crate) enum Refused {
    Invalid(String),
    Start(StartError),
    /// The gateway stops.
    Closed,
}

/// Where a gateway keeps its demonstration.
#[derive(Debug)]
pub(crate) struct Control {
    by: String,
    allowed: bool,
    slot: Arc<Mutex<Slot>>,
    /// Held while one starts, so that a stop which comes meanwhile stops it.
    start: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Slot {
    demo: Option<Demo>,
    starting: bool,
    closed: bool,
}

impl Control {
    /// `by`: what others call this gateway.
    pub(crate) fn new(by: &str, allowed: bool) -> Control {
        Control { by: by.to_owned(), allowed, slot: Arc::default(), start: Arc::default() }
    }

    pub(crate) fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// How it is. Asks the cluster only if none runs here.
    pub(crate) async fn status(&self, client: &Client) -> Result<Status, Error> {
        let (here, starting) = {
            let slot = self.slot.lock();
            (slot.demo.as_ref().map(Demo::report), slot.starting)
        };
        let mut state = match &here {
            _ if starting => State::Starting,
            Some(report) => report.state,
            None => State::Stopped,
        };
        let mut elsewhere = None;
        if state == State::Stopped {
            // Without an answer nothing is said of others; what was here is known.
            elsewhere = match tokio::time::timeout(LOOK, lease::holder(client)).await {
                Ok(answer) => answer?,
                Err(_) => None,
            };
            if elsewhere.is_some() {
                state = State::Elsewhere;
            }
        }
        Ok(Status {
            state,
            allowed: self.allowed,
            min_rate_per_minute: *RATES.start(),
            max_rate_per_minute: *RATES.end(),
            elsewhere,
            here,
        })
    }

    /// Starts it, or changes the one that runs here.
    pub(crate) async fn run(&self, client: &Client, ask: &Ask) -> Result<(), Refused> {
        if let Some(rate) = ask.rate_per_minute.filter(|rate| !RATES.contains(rate)) {
            return Err(Refused::Start(StartError::Rate(rate)));
        }
        if let Some(minutes) = ask.minutes.filter(|minutes| !(1..=MOST_MINUTES).contains(minutes)) {
            return Err(Refused::Invalid(format!("minutes: {minutes} is not from 1 to {MOST_MINUTES}")));
        }
        let minutes = |minutes: u32| Duration::from_secs(60 * u64::from(minutes));
        loop {
            let ending = {
                let mut slot = self.slot.lock();
                match slot.demo.clone().filter(|demo| !demo.has_ended()) {
                    _ if slot.closed => return Err(Refused::Closed),
                    // Whoever asked first decides; the next request can change it.
                    _ if slot.starting => return Ok(()),
                    Some(demo) if demo.report().state == State::Running => {
                        if let Some(rate) = ask.rate_per_minute {
                            demo.set_rate(rate);
                        }
                        if let Some(more) = ask.minutes {
                            demo.set_limit(minutes(more));
                        }
                        return Ok(());
                    }
                    Some(demo) => demo,
                    None => {
                        slot.starting = true;
                        break;
                    }
                }
            };
            ending.ended().await;
        }
        let plan = Plan {
            rate_per_minute: ask.rate_per_minute.unwrap_or(DEFAULT_RATE),
            limit: Some(minutes(ask.minutes.unwrap_or(DEFAULT_MINUTES))),
            groups: true,
            by: self.by.clone(),
        };
        // Goes on if the request does not.
        let starting = tokio::spawn(start(self.start.clone(), self.slot.clone(), client.clone(), plan));
        starting.await.unwrap_or(Err(Refused::Closed))
    }

    /// Stops the one that runs here, and waits until it has; false if there is none.
    pub(crate) async fn stop(&self) -> bool {
        let _none_starts = self.start.lock().await;
        let demo = self.slot.lock().demo.clone().filter(|demo| !demo.has_ended());
        let Some(demo) = demo else { return false };
        demo.stop();
        demo.ended().await;
        true
    }

    /// The gateway stops: none is started any more.
    pub(crate) async fn close(&self) {
        self.slot.lock().closed = true;
        self.stop().await;
    }
}

async fn start(
    one: Arc<tokio::sync::Mutex<()>>,
    slot: Arc<Mutex<Slot>>,
    client: Client,
    plan: Plan,
) -> Result<(), Refused> {
    let _one = one.lock().await;
    let started = Demo::start(client, plan).await;
    let mut slot = slot.lock();
    slot.starting = false;
    let demo = started.map_err(Refused::Start)?;
    if slot.closed {
        demo.stop();
        return Err(Refused::Closed);
    }
    slot.demo = Some(demo);
    Ok(())
}
