//! Options of a consumer.

use super::{AutoOffsetReset, Consumer, Options, RebalanceListener};
use crate::client::Client;
use crate::error::{Error, Result};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use strandline_wire::assign;

/// How the group's leader shares partitions out; named as in Kafka, so that members of both kinds can share a
/// group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Each topic's partitions in consecutive ranges.
    Range,
    /// All partitions in turn.
    RoundRobin,
    /// Balanced, moving as little as possible, and without stopping what does not move (KIP-429).
    CooperativeSticky,
}

impl Assignor {
    pub(crate) fn rules(self) -> &'static dyn assign::Assignor {
        match self {
            Assignor::Range => &assign::Range,
            Assignor::RoundRobin => &assign::RoundRobin,
            Assignor::CooperativeSticky => &assign::CooperativeSticky,
        }
    }
}

/// Options of a [`Consumer`]; made by [`Client::consumer`].
#[must_use]
pub struct ConsumerBuilder {
    client: Client,
    reset: AutoOffsetReset,
    auto_commit: bool,
    auto_commit_interval: Duration,
    options: Options,
}

impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder").field("group", &self.options.group).finish_non_exhaustive()
    }
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        ConsumerBuilder {
            client,
            reset: AutoOffsetReset::default(),
            auto_commit: true,
            auto_commit_interval: Duration::from_secs(5),
            options: Options {
                group: None,
                instance_id: None,
                auto_commit: None,
                session_timeout: Duration::from_secs(10),
                heartbeat_interval: Duration::from_secs(3),
                max_poll_interval: Duration::from_secs(300),
                fetch_max_wait: Duration::from_millis(500),
                fetch_min_bytes: 1,
                fetch_max_bytes: 4 << 20,
                partition_fetch_bytes: 1 << 20,
                prefetch_bytes: 16 << 20,
                assignors: vec![Assignor::CooperativeSticky],
                listener: None,
            },
        }
    }

    /// The group whose offsets are used, and with [`subscribe`](super::ConsumerHandle::subscribe) whose member
    /// it becomes.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.options.group = Some(group.into());
        self
    }

    /// Makes it a static member (KIP-345): restarted within the session time-out, it gets its partitions back
    /// without a rebalance. Each member needs its own.
    pub fn group_instance_id(mut self, id: impl Into<String>) -> Self {
        self.options.instance_id = Some(id.into());
        self
    }

    /// Where to begin without a committed offset, and go on from one that is not in the log. Default
    /// [`AutoOffsetReset::Latest`].
    pub fn auto_offset_reset(mut self, reset: AutoOffsetReset) -> Self {
        self.reset = reset;
        self
    }

    /// Commits processed positions by itself: at an interval, before partitions are given up, and at the end.
    /// Default true; without effect without a group.
    pub fn auto_commit(mut self, on: bool) -> Self {
        self.auto_commit = on;
        self
    }

    /// How often. Default 5 s.
    pub fn auto_commit_interval(mut self, interval: Duration) -> Self {
        self.auto_commit_interval = interval;
        self
    }

    /// After this long without a heartbeat the group gives the member up. Default 10 s.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.options.session_timeout = timeout;
        self
    }

    /// How often the background task says that the member lives; at most a third of the session time-out.
    /// Default 3 s.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.options.heartbeat_interval = interval;
        self
    }

    /// A member that asks for no record for this long leaves the group, and rebalances wait for it no longer.
    /// Default 5 min.
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.options.max_poll_interval = interval;
        self
    }

    /// How long a broker waits for `fetch_min_bytes` before it answers. Default 500 ms.
    pub fn fetch_max_wait(mut self, wait: Duration) -> Self {
        self.options.fetch_max_wait = wait;
        self
    }

    /// Default 1: an answer comes as soon as there is a record.
    pub fn fetch_min_bytes(mut self, bytes: u32) -> Self {
        self.options.fetch_min_bytes = bytes;
        self
    }

    /// Largest answer to a fetch; only a single larger batch exceeds it. Default 4 MiB.
    pub fn fetch_max_bytes(mut self, bytes: u32) -> Self {
        self.options.fetch_max_bytes = bytes;
        self
    }

    /// Largest share of one partition in an answer. Default 1 MiB.
    pub fn partition_fetch_bytes(mut self, bytes: u32) -> Self {
        self.options.partition_fetch_bytes = bytes;
        self
    }

    /// Reads ahead while less than this is waiting for the application. Default 16 MiB; answers already on
    /// their way, up to four of `fetch_max_bytes` from each broker, come on top.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.options.prefetch_bytes = bytes;
        self
    }

    /// Assignors that this member offers, best first; all members must have one in common. With an eager one
    /// among them, rebalances are eager. Default [`Assignor::CooperativeSticky`].
    pub fn assignors(mut self, assignors: impl IntoIterator<Item = Assignor>) -> Self {
        self.options.assignors = assignors.into_iter().collect();
        self
    }

    /// Is told when partitions come and go.
    pub fn rebalance_listener(mut self, listener: impl RebalanceListener) -> Self {
        self.options.listener = Some(Arc::new(listener));
        self
    }

    /// Starts the consumer's background tasks, on the present Tokio runtime. It reads nothing before
    /// [`subscribe`](super::ConsumerHandle::subscribe) or [`assign`](super::ConsumerHandle::assign).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if options are not usable or contradict each other.
    pub fn build(mut self) -> Result<Consumer> {
        let options = &mut self.options;
        let invalid = |message: &str| Err(Error::invalid(message));
        if options.group.as_deref() == Some("") {
            return invalid("the group's name is empty");
        }
        if options.instance_id.is_some() && options.group.is_none() {
            return invalid("group_instance_id needs a group");
        }
        if options.instance_id.as_deref() == Some("") {
            return invalid("group_instance_id is empty");
        }
        if options.heartbeat_interval.is_zero() || options.session_timeout < options.heartbeat_interval * 3 {
            return invalid(
                "heartbeat_interval must be more than zero and at most a third of session_timeout",
            );
        }
        if options.max_poll_interval.is_zero() || self.auto_commit_interval.is_zero() {
            return invalid("max_poll_interval and auto_commit_interval must be more than zero");
        }
        if options.fetch_max_bytes == 0 || options.partition_fetch_bytes == 0 || options.prefetch_bytes == 0 {
            return invalid(
                "fetch_max_bytes, partition_fetch_bytes and prefetch_bytes must be more than zero",
            );
        }
        if options.fetch_max_wait >= self.client.inner.options.request_timeout {
            return invalid("fetch_max_wait must be below the client's request_timeout");
        }
        if options.assignors.is_empty() {
            return invalid("assignors is empty");
        }
        options.auto_commit =
            (self.auto_commit && options.group.is_some()).then_some(self.auto_commit_interval);
        Ok(Consumer::start(self.client, self.options, self.reset))
    }
}
