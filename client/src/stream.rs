//! A long-lived request stream to one broker: opened on demand, with what is outstanding on it. The producer and
//! the consumer each drive theirs from one task.
//!
//! ```text
//!  Closed ──open──► Opening ──answered──► Open ──ended, broken, or an answer overdue──► Closed (with a delay)
//!                      └──────────failed, nothing was sent───────────────────────────────►
//! ```
//!
//! Invariant: a request is given to an open stream only; when the stream goes, each request outstanding on it is
//! reported once, as lost. An overdue answer ends the stream: later requests must not overtake an earlier one
//! whose fate is unknown.

use crate::backoff::{Backoff, BackoffPolicy};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::inner::Inner;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

/// What travels on a stream.
pub(crate) trait Kind: 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    /// What its user wants to have back with the answer.
    type Ticket;

    fn open(
        connection: Connection,
        requests: ReceiverStream<Self::Request>,
    ) -> BoxFuture<'static, Result<Response<Streaming<Self::Response>>, Status>>;
    fn request_id(request: &Self::Request) -> u64;
    fn response_id(response: &Self::Response) -> u64;
    /// Whether the answer is one to the request that this ticket stands for.
    fn fits(ticket: &Self::Ticket, response: &Self::Response) -> bool;
}

pub(crate) enum Event<K: Kind> {
    Answered {
        ticket: K::Ticket,
        response: K::Response,
    },
    /// No answer will come; the outcome is unknown.
    Lost {
        tickets: Vec<K::Ticket>,
        error: Error,
    },
    /// The stream could not be opened.
    Unreachable {
        error: Error,
    },
}

struct Flight<K: Kind> {
    deadline: Instant,
    ticket: K::Ticket,
}

type Opening<K> = BoxFuture<'static, Result<Streaming<<K as Kind>::Response>>>;

enum State<K: Kind> {
    Closed { until: Option<Instant> },
    Opening { opening: Opening<K>, requests: mpsc::Sender<K::Request> },
    Open { requests: mpsc::Sender<K::Request>, responses: Box<Streaming<K::Response>> },
}

pub(crate) struct BrokerStream<K: Kind> {
    address: Arc<str>,
    state: State<K>,
    backoff: Backoff,
    rng: StdRng,
    /// Bound of `outstanding`, and of the channel into the stream.
    requests_max: usize,
    /// By request id; ids grow with time, so the first is the oldest.
    outstanding: BTreeMap<u64, Flight<K>>,
}

impl<K: Kind> BrokerStream<K> {
    pub(crate) fn new(address: Arc<str>, requests_max: usize, retry: BackoffPolicy, rng: StdRng) -> Self {
        BrokerStream {
            address,
            state: State::Closed { until: None },
            backoff: Backoff::new(retry),
            rng,
            requests_max,
            outstanding: BTreeMap::new(),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.outstanding.is_empty() || matches!(self.state, State::Opening { .. })
    }

    pub(crate) fn accepts(&self) -> bool {
        matches!(self.state, State::Open { .. }) && self.outstanding.len() < self.requests_max
    }

    /// Begins to open the stream if it is closed and its delay is over. A broker that moved is followed once
    /// nothing is outstanding at its old address.
    pub(crate) fn open(&mut self, inner: &Arc<Inner>, address: &Arc<str>, now: Instant) {
        if self.address != *address && self.outstanding.is_empty() {
            self.address = address.clone();
            self.state = State::Closed { until: None };
        }
        let State::Closed { until } = self.state else { return };
        if until.is_some_and(|until| until > now) {
            return;
        }
        let (requests, receiver) = mpsc::channel(self.requests_max);
        let (inner, address) = (inner.clone(), self.address.clone());
        let opening = Box::pin(async move {
            let timeout = inner.options.request_timeout;
            let call = K::open(inner.connection(&address)?, ReceiverStream::new(receiver));
            match tokio::time::timeout(timeout, call).await {
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(Error::from_status(&status, &address)),
                Err(_) => {
                    Err(Error::connection(format!("{address} did not open a stream within {timeout:?}")))
                }
            }
        });
        self.state = State::Opening { opening, requests };
    }

    /// # Panics
    /// If the stream does not [`accept`](Self::accepts).
    pub(crate) fn send(&mut self, request: K::Request, ticket: K::Ticket, deadline: Instant) {
        assert!(self.accepts(), "requests are given to open streams");
        let State::Open { requests, .. } = &self.state else { unreachable!("checked above") };
        let id = K::request_id(&request);
        // The channel holds as many as may be outstanding, so this fails only if the stream is gone: then
        // `poll` reports the loss.
        let _ = requests.try_send(request);
        self.outstanding.insert(id, Flight { deadline, ticket });
    }

    /// When it next needs to be polled although nothing came.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Closed { until } => *until,
            _ => self.outstanding.values().next().map(|flight| flight.deadline),
        }
    }

    /// Adds what happened to `events`, up to `max`; true if anything did.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        events: &mut Vec<Event<K>>,
        max: usize,
    ) -> bool {
        let before = events.len();
        let mut changed = false;
        if let State::Closed { until: Some(until) } = self.state
            && until <= now
        {
            // `open` may be called again.
            self.state = State::Closed { until: None };
            changed = true;
        }
        if let State::Opening { opening, .. } = &mut self.state
            && let Poll::Ready(result) = opening.as_mut().poll(cx)
        {
            changed = true;
            match (result, std::mem::replace(&mut self.state, State::Closed { until: None })) {
                (Ok(responses), State::Opening { requests, .. }) => {
                    self.state = State::Open { requests, responses: Box::new(responses) };
                }
                (Err(error), _) => {
                    tracing::debug!(address = %self.address, %error, "stream not opened");
                    self.close(now);
                    events.push(Event::Unreachable { error });
                }
                (Ok(_), _) => unreachable!("it was opening"),
            }
        }
        while events.len() < before + max {
            let State::Open { responses, .. } = &mut self.state else { break };
            match Pin::new(&mut **responses).poll_next(cx) {
                Poll::Ready(Some(Ok(response))) => self.answered(response, now, events),
                Poll::Ready(Some(Err(status))) => {
                    self.lost(Error::from_status(&status, &self.address), now, events)
                }
                Poll::Ready(None) => {
                    let error = Error::indeterminate(format!("{} ended the stream", self.address));
                    self.lost(error, now, events);
                }
                Poll::Pending => {
                    if self.outstanding.values().next().is_some_and(|flight| flight.deadline <= now) {
                        let error = Error::indeterminate(format!("{} did not answer in time", self.address));
                        self.lost(error, now, events);
                    }
                    break;
                }
            }
        }
        if events.len() == before + max {
            // More may be there: come back without waiting.
            cx.waker().wake_by_ref();
        }
        changed || events.len() > before
    }

    fn answered(&mut self, response: K::Response, now: Instant, events: &mut Vec<Event<K>>) {
        self.backoff.reset();
        let id = K::response_id(&response);
        match self.outstanding.remove(&id) {
            Some(flight) if K::fits(&flight.ticket, &response) => {
                events.push(Event::Answered { ticket: flight.ticket, response });
            }
            Some(flight) => {
                self.outstanding.insert(id, flight);
                let error = Error::protocol(format!(
                    "{} answered for other partitions than were asked",
                    self.address
                ));
                self.lost(error, now, events);
            }
            None => {
                let error = Error::protocol(format!("{} answered a request that was not made", self.address));
                self.lost(error, now, events);
            }
        }
    }

    fn lost(&mut self, error: Error, now: Instant, events: &mut Vec<Event<K>>) {
        tracing::debug!(address = %self.address, %error, outstanding = self.outstanding.len(), "stream lost");
        self.close(now);
        let tickets =
            std::mem::take(&mut self.outstanding).into_values().map(|flight| flight.ticket).collect();
        events.push(Event::Lost { tickets, error });
    }

    fn close(&mut self, now: Instant) {
        self.state = State::Closed { until: Some(now + self.backoff.next(&mut self.rng)) };
    }
}
