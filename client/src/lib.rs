#![warn(missing_docs)]
#![doc = include_str!("lib.md")]

mod admin;
mod backoff;
mod call;
mod client;
mod connection;
mod consumer;
mod error;
mod inner;
mod metadata;
mod producer;
mod read;
mod stream;
mod types;

pub use admin::Admin;
pub use admin::cluster::{ClusterStatus, LeaderCount, RemovalProgress};
pub use admin::groups::{CommittedOffset, GroupDescription, GroupListing, GroupMember};
pub use admin::observe::NodeView;
pub use admin::topics::{CreatedTopic, ListedOffset, NewTopic, TopicConfig};
pub use async_trait::async_trait;
pub use client::{Client, ClientBuilder, Clock};
pub use connection::{Connector, Io, tcp_connector};
pub use consumer::{
    Assignor, AutoOffsetReset, Consumer, ConsumerBuilder, ConsumerHandle, Lag, RebalanceListener,
};
pub use error::{Error, ErrorCode, ErrorKind, LeaderHint, Result};
pub use metadata::{Broker, PartitionDescription, TopicDescription};
pub use producer::{Acks, Compression, DeliveryHandle, Producer, ProducerBuilder};
pub use read::{Page, ReadOptions};
pub use types::{
    ConsumerRecord, Delivery, Header, OffsetAndMetadata, OffsetSpec, Record, TopicId, TopicPartition,
};
