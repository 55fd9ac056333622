//! Calls to brokers: one attempt, or retries that follow leaders and coordinators until a deadline.

use crate::admin::topics::millis;
use crate::backoff::Backoff;
use crate::connection::Wire;
use crate::error::{Error, ErrorCode, ErrorKind, Result};
use crate::inner::{Inner, METADATA_TIMEOUT};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use strandline_wire::v1;
use tokio::time::Instant;

/// How a call finds its broker.
#[derive(Clone, Copy)]
pub(crate) enum Via<'a> {
    /// Any broker that answers.
    Any,
    /// The leader of a partition.
    Leader(&'a str, i32),
    /// The coordinator of a group.
    Coordinator(&'a str),
}

/// May a call whose outcome is unknown simply be made again?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing: whatever became of it, nothing has happened.
    Read,
    /// Done twice it comes to the same.
    Safe,
    /// A second time would fail, or do it twice.
    Unsafe,
}

pub(crate) type CallFuture<T> = BoxFuture<'static, Result<tonic::Response<T>, tonic::Status>>;

/// An answer that carries an error for the whole call.
pub(crate) trait Answer {
    fn error(&self) -> Option<&v1::Error>;
}

macro_rules! answers {
    ($($name:ident),* $(,)?) => {
        $(impl Answer for v1::$name {
            fn error(&self) -> Option<&v1::Error> {
                self.error.as_ref()
            }
        })*
    };
}
answers!(
    InitProducerIdResponse,
    DeleteRecordsResponse,
    CreateTopicResponse,
    DescribeTopicConfigsResponse,
    AdminResponse,
    ClusterStatusResponse,
    FindCoordinatorResponse,
    JoinGroupResponse,
    SyncGroupResponse,
    HeartbeatResponse,
    LeaveGroupResponse,
    OffsetCommitResponse,
    OffsetFetchResponse,
    ListGroupsResponse,
    DescribeGroupResponse,
);

impl Answer for v1::ListOffsetsResponse {
    /// Asked for one partition at a time by [`Inner::call`]'s users.
    fn error(&self) -> Option<&v1::Error> {
        self.partitions.first().and_then(|p| p.error.as_ref())
    }
}

impl Inner {
    pub(crate) async fn coordinator(&self, group: &str) -> Result<Arc<str>> {
        if let Some(address) = self.coordinators.lock().get(group) {
            return Ok(address.clone());
        }
        let mut last = Error::connection("no broker is known");
        for address in self.candidates() {
            let request = v1::FindCoordinatorRequest { group: group.to_owned() };
            let found = self
                .call_once(&address, METADATA_TIMEOUT, |mut wire| {
                    Box::pin(async move { wire.find_coordinator(request).await })
                })
                .await;
            match found {
                Ok(answer) if !answer.endpoint.is_empty() => {
                    let endpoint: Arc<str> = answer.endpoint.as_str().into();
                    self.coordinators.lock().insert(group.to_owned(), endpoint.clone());
                    return Ok(endpoint);
                }
                Ok(_) => {
                    last = Error::new(
                        ErrorKind::Broker(ErrorCode::CoordinatorLoading),
                        format!("{address} knows no coordinator for group {group} yet"),
                    );
                }
                Err(error) => last = error,
            }
        }
        // Finding out changes nothing, so trying again is always right.
        Err(Error::new(
            ErrorKind::Connection,
            format!("no broker names the coordinator of group {group}: {last}"),
        ))
    }

    /// Forgets the coordinator after it refused or could not be reached; a refusal may name the next.
    pub(crate) fn coordinator_failed(&self, group: &str, error: &Error) {
        let next = error.leader().and_then(|hint| {
            hint.endpoint.as_deref().map(Arc::from).or_else(|| self.broker_address(hint.id))
        });
        let mut coordinators = self.coordinators.lock();
        match next {
            Some(endpoint) => coordinators.insert(group.to_owned(), endpoint),
            None => coordinators.remove(group),
        };
    }

    /// One call to one broker, within a deadline. Without an answer its outcome is unknown.
    pub(crate) async fn call_once<T: Answer>(
        &self,
        address: &str,
        timeout: Duration,
        call: impl FnOnce(Wire) -> CallFuture<T>,
    ) -> Result<T> {
        let wire = self.wire(address)?;
        match tokio::time::timeout(timeout, call(wire)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                match Error::from_wire(answer.error()) {
                    None => Ok(answer),
                    Some(error) => Err(error),
                }
            }
            Ok(Err(status)) => Err(Error::from_status(&status, address)),
            Err(_) => Err(Error::new(
                ErrorKind::Broker(ErrorCode::RequestTimedOut),
                format!(
                    "{address} did not answer within {:?}",
                    Duration::from_millis(millis(timeout).into())
                ),
            )),
        }
    }

    /// A call with retries until the operation time-out, following leaders and coordinators. `call` gets the
    /// leader epoch known for a partition, else -1.
    pub(crate) async fn call<T: Answer>(
        &self,
        what: String,
        via: Via<'_>,
        repeat: Repeat,
        call: impl Fn(Wire, i32) -> CallFuture<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.options.operation_timeout;
        self.call_until(deadline, via, repeat, call).await.map_err(|error| error.context(what))
    }

    pub(crate) async fn call_until<T: Answer>(
        &self,
        deadline: Instant,
        via: Via<'_>,
        repeat: Repeat,
        call: impl Fn(Wire, i32) -> CallFuture<T>,
    ) -> Result<T> {
        let mut backoff = Backoff::new(self.options.retry);
        let mut candidates: Vec<Arc<str>> = Vec::new();
        // An attempt whose outcome is unknown taints every later failure.
        let mut tainted = false;
        loop {
            let attempt = match self.locate(via, &mut candidates).await {
                Ok((address, epoch)) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let timeout = self.options.request_timeout.min(left.max(Duration::from_millis(1)));
                    self.call_once(&address, timeout, |wire| call(wire, epoch)).await
                }
                Err(error) => Err(error),
            };
            let error = match attempt {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let open = error.may_have_happened();
            tainted |= open;
            let give_up = |error: Error| match repeat {
                Repeat::Read => error.without_effect(),
                // An earlier attempt may have done it; this one's refusal is still worth knowing.
                Repeat::Safe if tainted => error.possibly(),
                Repeat::Unsafe if tainted => error.unknown_outcome(),
                _ => error,
            };
            // A rebalance ends when its members ask for records: no use in waiting for it here.
            let rebalancing = error.code() == Some(ErrorCode::RebalanceInProgress);
            // A change is decided on the newest metadata: whichever broker says so, there is no such topic.
            let absent = error.code() == Some(ErrorCode::UnknownTopicOrPartition)
                && matches!(via, Via::Any)
                && repeat != Repeat::Read;
            if !error.is_retriable() || rebalancing || absent || open && repeat == Repeat::Unsafe {
                return Err(give_up(error));
            }
            match via {
                Via::Any => {
                    if let Some(endpoint) = error.leader().and_then(|l| l.endpoint.as_deref()) {
                        candidates.push(endpoint.into());
                    }
                }
                Via::Leader(topic, partition) => {
                    if self.hint(topic, partition, &error) {
                        // Known at once; no need to wait. Each hint raises the epoch, so this ends.
                        continue;
                    }
                }
                Via::Coordinator(group) => self.coordinator_failed(group, &error),
            }
            self.pause(&mut backoff, deadline, error).await.map_err(give_up)?;
            if let Via::Leader(topic, _) = via {
                // Whether this succeeds shows at the next try.
                let _ = self.refresh(&[topic.to_owned()]).await;
            }
        }
    }

    async fn locate(&self, via: Via<'_>, candidates: &mut Vec<Arc<str>>) -> Result<(Arc<str>, i32)> {
        match via {
            Via::Any => {
                if candidates.is_empty() {
                    *candidates = self.candidates();
                    candidates.reverse();
                }
                let address = candidates.pop().expect("the bootstrap list is never empty");
                Ok((address, -1))
            }
            Via::Leader(name, partition) => {
                let topic = self.topic(name, false).await?;
                if usize::try_from(partition).ok().is_none_or(|p| p >= topic.partitions.len()) {
                    return Err(Error::invalid(format!(
                        "topic {name} has partitions 0 to {}, there is no {partition}",
                        topic.partitions.len() - 1
                    )));
                }
                let routed = self.route(name, partition);
                let address = routed.as_ref().and_then(|r| self.broker_address(r.broker));
                match (address, routed) {
                    (Some(address), Some(route)) => Ok((address, route.leader_epoch)),
                    _ => Err(Error::new(
                        ErrorKind::Broker(ErrorCode::LeaderNotAvailable),
                        format!("partition {name}-{partition} has no leader now"),
                    )),
                }
            }
            Via::Coordinator(group) => Ok((self.coordinator(group).await?, -1)),
        }
    }
}
