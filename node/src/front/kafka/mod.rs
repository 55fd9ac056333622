//! Kafka's protocol, so that the clients and tools that people already run work unchanged.
//!
//! ```text
//! listener ─▶ connection ─▶ frame ─▶ shape (counts are bounded) ─▶ decode ─▶ api::… ─▶ encode ─▶ answers in order
//!                  ▲                                                           │
//!                  └──────────────── throttled: answered, then not read ◀──────┘
//! ```
//!
//! The same broker, groups and controller that gRPC uses: a record produced by one is read by the other, a group
//! reached by one is the group that the other reaches. Record bytes are passed through as they are, read from the
//! request's frame and written beside the answer's other bytes.
//!
//! What is served, in which versions: [`versions`]. Where this differs from Apache Kafka: `ops/docs/kafka.md`.

mod api;
mod codes;
mod connection;
mod dispatch;
pub(crate) mod frame;
mod listener;
mod quota;
mod session;
pub mod shape;
mod shapes;
pub mod versions;

use crate::broker::Broker;
use crate::context::Context;
use crate::controller::Controller;
use crate::env::Listener;
use crate::group::Groups;
use frame::Budget;
use parking_lot::Mutex;
use quota::Quotas;
use session::Sessions;
use std::future::Future;
use std::sync::Arc;

/// What every connection shares.
pub struct KafkaFront {
    broker: Arc<Broker>,
    groups: Arc<Groups>,
    controller: Arc<Controller>,
    sessions: Mutex<Sessions>,
    quotas: Quotas,
    /// Memory for requests that are being read.
    reading: Budget,
}

impl KafkaFront {
    pub fn new(broker: Arc<Broker>, groups: Arc<Groups>, controller: Arc<Controller>) -> Arc<Self> {
        let sessions = Mutex::new(Sessions::new(session::Limits::default()));
        let reading = Budget::new(broker.context().config.queued_max_request_bytes as usize);
        Arc::new(KafkaFront { broker, groups, controller, sessions, quotas: Quotas::default(), reading })
    }

    fn context(&self) -> &Arc<Context> {
        self.broker.context()
    }

    /// Serves the listener until the node stops.
    pub fn serve(self: Arc<Self>, listener: Box<dyn Listener>) -> impl Future<Output = ()> + Send + use<> {
        listener::run(self, listener)
    }
}
