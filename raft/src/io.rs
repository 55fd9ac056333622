//! Connections are made by whoever runs the node (real sockets, or simulated ones), and handed in as a
//! [`Connect`].

use futures::future::BoxFuture;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a peer.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub type BoxedIo = Box<dyn Io>;

/// Opens a connection to `host:port`. Deadlines are the caller's.
pub type Connect = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<BoxedIo>> + Send + Sync>;
