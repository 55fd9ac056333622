//! One HTTP/2 channel per broker address, made through the injected connector.

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use strandline_wire::v1::strandline_client::StrandlineClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Uri};

/// A connection as a [`Connector`] makes it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Opens a byte stream to `host:port`. [`tcp_connector`] is the default; a simulation injects its own.
pub type Connector = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// Real TCP with `TCP_NODELAY`.
pub fn tcp_connector() -> Connector {
    Arc::new(|address| {
        Box::pin(async move {
            // The client's real seam to the network; everything else takes a Connector.
            #[allow(clippy::disallowed_methods)]
            let stream = tokio::net::TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

pub(crate) type Wire = StrandlineClient<Channel>;

/// A broker's services, and the channel beneath them.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) channel: Channel,
}

/// Bytes that a broker may send on one stream before we have read any: a fetch answer should fit.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Fewer, larger DATA frames cost less than the default 16 KiB ones.
const FRAME_BYTES: u32 = 1 << 20;
/// A broker that does not answer a ping for this long is gone, though its socket may not show it.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer accepted. A single batch may exceed a fetch's `max_bytes`.
pub(crate) const MAX_MESSAGE_BYTES: usize = 128 << 20;

/// The channels, by address. A channel reconnects by itself when it is used after a loss.
pub(crate) struct Pool {
    connector: Connector,
    connect_timeout: Duration,
    user_agent: String,
    channels: Mutex<BTreeMap<Arc<str>, Connection>>,
}

impl Pool {
    pub(crate) fn new(connector: Connector, connect_timeout: Duration, client_id: &str) -> Self {
        let printable: String = client_id.chars().filter(|c| c.is_ascii_graphic()).collect();
        Pool {
            connector,
            connect_timeout,
            user_agent: format!("strandline/{} {printable}", env!("CARGO_PKG_VERSION")),
            channels: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, address: &str) -> Result<Connection, crate::Error> {
        let mut channels = self.channels.lock();
        if let Some(connection) = channels.get(address) {
            return Ok(connection.clone());
        }
        let invalid = |e: &dyn std::fmt::Display| {
            crate::Error::invalid(format!("{address:?} is not an address of the form host:port: {e}"))
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| invalid(&e))?
            .user_agent(self.user_agent.clone())
            .map_err(|e| invalid(&e))?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .tcp_nodelay(true);
        let (connector, timeout, target) = (self.connector.clone(), self.connect_timeout, address.to_owned());
        let service = tower::service_fn(move |_: Uri| {
            let connect = connector(target.clone());
            async move {
                match tokio::time::timeout(timeout, connect).await {
                    Ok(stream) => stream.map(TokioIo::new),
                    Err(_) => Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the connection was not accepted in time",
                    )),
                }
            }
        });
        let channel = endpoint.connect_with_connector_lazy(service);
        let wire = StrandlineClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let connection = Connection { wire, channel };
        channels.insert(address.into(), connection.clone());
        Ok(connection)
    }

    /// Forgets channels to addresses that nobody has any more.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.channels.lock().retain(|address, _| keep(address));
    }
}
