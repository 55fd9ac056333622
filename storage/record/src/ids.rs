//! The numbers that name things, each with its own type so that they cannot be mixed up.
//!
//! Bounds: an [`Offset`] used as an *end* (log end offset, high watermark, flushed end) is exclusive:
//! it is the position of the next record. Epochs only ever increase. `-1` is Kafka's "none" on the wire;
//! inside Strandline absence is an `Option`.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
        impl $name {
            /// The number itself.
            pub const fn get(self) -> $inner {
                self.0
            }
        }
        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    };
}

id!(/// Position of a record in its partition, counted from 0. As an end it is exclusive.
    Offset(i64));
id!(/// Partition leader epoch (KIP-101): +1 at every election.
    LeaderEpoch(i32));
id!(/// Partition epoch (KIP-497): +1 at every agreed change of the partition.
    PartitionEpoch(i32));
id!(/// A node of the cluster.
    BrokerId(u64));
id!(/// One registration of a broker: the Raft index at which it registered (KIP-903).
    BrokerEpoch(u64));
id!(/// Number of a partition within its topic, counted from 0.
    PartitionId(i32));
id!(/// Generation of a consumer group: +1 at every completed rebalance.
    Generation(i32));
id!(/// Idempotent producer's id (KIP-98).
    ProducerId(i64));
id!(/// Incarnation of an idempotent producer (KIP-98, KIP-360).
    ProducerEpoch(i16));

impl Offset {
    pub const ZERO: Offset = Offset(0);

    /// The offset `records` further on.
    pub const fn plus(self, records: i64) -> Offset {
        Offset(self.0 + records)
    }
}

/// A topic's identity, drawn at creation: a topic deleted and created again has another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(pub uuid::Uuid);

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One partition of one topic, by identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    pub topic: TopicId,
    pub partition: PartitionId,
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
