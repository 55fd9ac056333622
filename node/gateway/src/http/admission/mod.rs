//! Who may come in: a token bucket for each client, and bounds on the requests and bytes in flight. Past any of them
//! the answer is 429 with `Retry-After`, before the body is read: nothing has happened.
//!
//! ```text
//!  request ─▶ bucket of the client ─▶ slot (writes and reads have their own) ─▶ bytes ─▶ body is read ─▶ handler
//!             empty: 429              none left: 429                            none left: 429
//! ```
//!
//! What a request holds ([`Permit`]) is given back when its answer is there.

mod bucket;

use super::problem::Problem;
use crate::config::GatewayConfig;
use crate::server::Peer;
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use bucket::Buckets;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Clients that have a bucket of their own; beyond them, those that have none share one.
const MAX_CLIENTS: usize = 10_000;
/// When a slot or bytes may be free again.
const SOON: Duration = Duration::from_secs(1);

/// The bounds, and what is in use.
#[derive(Debug)]
pub struct Admission {
    buckets: Option<Buckets>,
    client_header: Option<HeaderName>,
    started: Instant,
    writes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_body_bytes: usize,
    max: InUse,
    refusals: [AtomicU64; REASONS.len()],
}

/// Which bound a request met.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Rate,
    Requests,
    Bytes,
}

/// The problems that say so, in that order.
const REASONS: [&str; 3] = ["rate-limited", "too-many-in-flight", "too-many-bytes-in-flight"];

/// Places and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InUse {
    pub(crate) writes: usize,
    pub(crate) reads: usize,
    pub(crate) bytes: usize,
}

/// Which bound of requests in flight counts: one that may wait long for records must not keep writes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Changes something.
    Write,
    /// Changes nothing, and may wait.
    Read,
}

/// A place among the requests in flight, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _slot: OwnedSemaphorePermit,
    _bytes: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// Nothing is in use.
    pub fn new(config: &GatewayConfig) -> Admission {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let (writes, reads) = (semaphore(config.max_inflight_requests), semaphore(config.max_inflight_reads));
        let bytes = semaphore(config.max_inflight_bytes.min(u32::MAX as usize));
        Admission {
            max: InUse {
                writes: writes.available_permits(),
                reads: reads.available_permits(),
                bytes: bytes.available_permits(),
            },
            buckets: (config.client_rate > 0)
                .then(|| Buckets::new(config.client_rate, config.client_burst, MAX_CLIENTS)),
            client_header: config.client_header.as_deref().and_then(|name| name.parse().ok()),
            started: Instant::now(),
            writes,
            reads,
            bytes,
            max_body_bytes: config.max_body_bytes,
            refusals: Default::default(),
        }
    }

    /// Requests refused with 429 so far.
    pub fn refused(&self) -> u64 {
        self.refusals().into_iter().map(|(_, count)| count).sum()
    }

    /// Those, by the problem that said so.
    pub(crate) fn refusals(&self) -> [(&'static str, u64); REASONS.len()] {
        std::array::from_fn(|at| (REASONS[at], self.refusals[at].load(Ordering::Relaxed)))
    }

    /// What is in use at the moment.
    pub(crate) fn in_use(&self) -> InUse {
        InUse {
            writes: self.max.writes - self.writes.available_permits(),
            reads: self.max.reads - self.reads.available_permits(),
            bytes: self.max.bytes - self.bytes.available_permits(),
        }
    }

    /// Lets a request in that will hold `bytes` of memory, or says when to come again.
    ///
    /// # Errors
    /// 429: nothing has happened.
    pub fn admit(&self, parts: &Parts, class: Class, bytes: usize) -> Result<Permit, Problem> {
        if let Some(buckets) = &self.buckets {
            let client = client_of(parts, self.client_header.as_ref());
            if let Err(wait) = buckets.take(client, self.started.elapsed()) {
                let detail = "this client sends more requests a second than it may";
                return Err(self.too_many(Refusal::Rate, detail, wait));
            }
        }
        let slots = match class {
            Class::Write => &self.writes,
            Class::Read => &self.reads,
        };
        let slot = slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| {
            self.too_many(Refusal::Requests, "the gateway answers as many requests as it may", SOON)
        })?;
        let bytes = match u32::try_from(bytes) {
            Ok(0) => None,
            Ok(bytes) => Some(self.bytes.clone().try_acquire_many_owned(bytes).map_err(|_| {
                let detail = "the gateway holds as many bytes of requests as it may";
                self.too_many(Refusal::Bytes, detail, SOON)
            })?),
            Err(_) => return Err(too_large(self.max_body_bytes)),
        };
        Ok(Permit { _slot: slot, _bytes: bytes })
    }

    fn too_many(&self, refusal: Refusal, detail: &str, wait: Duration) -> Problem {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
        Problem::new(StatusCode::TOO_MANY_REQUESTS, REASONS[refusal as usize], detail)
            .hint("nothing was done; send it again after Retry-After")
            .retry_after(wait)
    }

    /// What the body of a request will take: its declared length, or the most that it may be.
    ///
    /// # Errors
    /// 413 where it is declared to be larger than it may be.
    pub(crate) fn body_bytes(&self, declared: Option<u64>) -> Result<usize, Problem> {
        match declared {
            None => Ok(self.max_body_bytes),
            Some(length) => match usize::try_from(length) {
                Ok(length) if length <= self.max_body_bytes => Ok(length),
                _ => Err(too_large(self.max_body_bytes)),
            },
        }
    }
}

pub(crate) fn too_large(limit: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", format!("a body may have {limit} bytes"))
        .hint("split the batch; the limit is http.max.body.bytes")
}

/// A client as the buckets know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ClientKey {
    Address(IpAddr),
    /// The value of the configured header, shortened: a proxy in front says who it is.
    Named(Box<[u8]>),
}

/// The most of a header that tells clients apart.
const MAX_NAME: usize = 128;

fn client_of(parts: &Parts, header: Option<&HeaderName>) -> ClientKey {
    if let Some(value) = header.and_then(|header| parts.headers.get(header)) {
        let value = value.as_bytes();
        return ClientKey::Named(value[..value.len().min(MAX_NAME)].into());
    }
    let address = parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
    ClientKey::Address(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

#[cfg(test)]
mod tests;
