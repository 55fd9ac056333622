//! The metadata that Raft agrees on, and the pure state machine that changes it.
//!
//! `command` says what may be proposed, `image` what is agreed; `machine` is the only code that turns
//! one image into the next. `configs` is the table of topic configurations, `consumer_group` what is
//! agreed of a group of the new consumer protocol, `snapshot` the bytes of a whole image.

pub mod command;
pub mod configs;
pub mod consumer_group;
pub mod image;
pub mod machine;
pub mod quotas;
pub mod snapshot;

pub use command::{Command, CommitMember, Election, Rejection, Response};
pub use configs::TopicSettings;
pub use consumer_group::{ConsumerGroup, ConsumerGroupChange, ConsumerMember, GroupEpoch, Partitions};
pub use image::*;
