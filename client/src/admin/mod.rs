//! Administration. One [`Admin`]; its methods lie by subject in [`topics`], [`groups`], [`cluster`] and
//! [`observe`].
//!
//! Reads are retried until the client's operation time-out. A change whose outcome is unknown (its answer was
//! lost) is not made twice: the error says [`may_have_happened`](crate::Error::may_have_happened); look before
//! trying again.

pub mod cluster;
pub mod groups;
pub mod observe;
pub mod topics;

use crate::client::Client;

/// Administers topics, groups and the cluster. Made by [`Client::admin`]; cheap to clone.
///
/// ```no_run
/// use strandline_client::{Client, NewTopic};
/// # async fn run() -> strandline_client::Result<()> {
/// let admin = Client::builder().bootstrap("127.0.0.1:7070").connect().await?.admin();
/// admin.create_topic(NewTopic::new("orders").partitions(12).replication_factor(3)).await?;
/// for topic in admin.list_topics().await? {
///     println!("{}: {} partitions", topic.name, topic.partitions.len());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Admin {
    pub(crate) client: Client,
}
