//! The outside world as it is handed in. Connections are made by whoever runs the node (real sockets, or
//! simulated ones), as a [`Connect`].

use futures::future::BoxFuture;
use std::io;
use std::path::Path;
use std::sync::Arc;
use strandline_storage::disk::Disk;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a peer.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub type BoxedIo = Box<dyn Io>;

/// Opens a connection to `host:port`. Deadlines are the caller's.
pub type Connect = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<BoxedIo>> + Send + Sync>;

/// Creates `dir`, whose grandparent is durable, so that it survives a power loss.
pub fn create_dir_durably(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    for ancestor in dir.ancestors().skip(1).take(2) {
        let relative = ancestor.as_os_str().is_empty();
        disk.sync_dir(if relative { Path::new(".") } else { ancestor })?;
        if relative {
            break;
        }
    }
    Ok(())
}
