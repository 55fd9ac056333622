//! Channels to the other nodes' peer listeners, by address; each connects when it is first used.

use crate::net;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use strandline_raft::io::{BoxedIo, Connect};
use strandline_wire::peer::peer_client::PeerClient;
use strandline_wire::peer::{ProbeReply, ProbeRequest};
use tonic::transport::Channel;

/// Channels kept at most; addresses change only when nodes move.
const MAX_CHANNELS: usize = 256;

#[derive(Debug)]
pub struct Peers {
    connect: Connect2,
    channels: Mutex<BTreeMap<String, Channel>>,
}

struct Connect2(Connect);

impl std::fmt::Debug for Connect2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connect")
    }
}

impl Peers {
    pub fn new(connect: Connect) -> Self {
        Peers { connect: Connect2(connect), channels: Mutex::default() }
    }

    /// A connection to `addr` of its caller's own.
    pub async fn connect(&self, addr: &str) -> io::Result<BoxedIo> {
        net::connect(&self.connect.0, addr).await
    }

    /// A client of the peer service at `addr` (`host:port`).
    pub fn client(&self, addr: &str) -> Result<PeerClient<Channel>, tonic::Status> {
        let mut channels = self.channels.lock();
        let channel = match channels.get(addr) {
            Some(channel) => channel.clone(),
            None => {
                let channel = net::channel(&self.connect.0, addr)
                    .map_err(|error| tonic::Status::invalid_argument(format!("address {addr}: {error}")))?;
                if channels.len() >= MAX_CHANNELS {
                    channels.pop_first();
                }
                channels.insert(addr.to_owned(), channel.clone());
                channel
            }
        };
        Ok(PeerClient::new(channel)
            .max_decoding_message_size(net::MAX_MESSAGE)
            .max_encoding_message_size(net::MAX_MESSAGE))
    }

    /// Asks a node who it is, on a connection of its own: a kept one may not have noticed yet that its
    /// process is gone.
    pub async fn probe(&self, addr: &str, asker: u64, deadline: Duration) -> Result<ProbeReply, ProbeError> {
        self.ask(addr, ProbeRequest { broker_id: asker, confirm: false }, deadline).await
    }

    /// The same of a node that first makes sure that its metadata is as new as the question.
    pub async fn probe_confirmed(
        &self,
        addr: &str,
        asker: u64,
        deadline: Duration,
    ) -> Result<ProbeReply, ProbeError> {
        self.ask(addr, ProbeRequest { broker_id: asker, confirm: true }, deadline).await
    }

    async fn ask(
        &self,
        addr: &str,
        request: ProbeRequest,
        deadline: Duration,
    ) -> Result<ProbeReply, ProbeError> {
        let call = async {
            let io = (self.connect.0)(addr.to_owned()).await.map_err(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => ProbeError::NoProcess,
                _ => ProbeError::NoAnswer(error.to_string()),
            })?;
            let opened = Arc::new(Mutex::new(Some(io)));
            let once: Connect = Arc::new(move |_| {
                let io = opened.lock().take();
                Box::pin(async move { io.ok_or_else(|| io::Error::other("a probe has one connection")) })
            });
            let channel =
                net::channel(&once, addr).map_err(|error| ProbeError::NoAnswer(error.to_string()))?;
            let reply = PeerClient::new(channel).probe(request).await;
            reply
                .map(tonic::Response::into_inner)
                .map_err(|status| ProbeError::NoAnswer(status.message().to_owned()))
        };
        tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
            Err(ProbeError::NoAnswer(format!("no answer within {} ms", deadline.as_millis())))
        })
    }
}

/// Why a probe failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProbeError {
    /// Refused or reset: nobody listens there.
    #[error("nobody listens there")]
    NoProcess,
    #[error("{0}")]
    NoAnswer(String),
}
