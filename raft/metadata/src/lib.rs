//! The metadata that Raft agrees on, and the pure state machine that changes it.
//!
//! `command` says what may be proposed, `image` what is agreed; `machine` is the only code that turns
//! one image into the next. `configs` is the table of topic configurations, `snapshot` the bytes of a
//! whole image.

pub mod command;
pub mod configs;
pub mod image;
pub mod machine;
pub mod quotas;
pub mod snapshot;

pub use command::{Command, CommitMember, Election, Rejection, Response};
pub use configs::TopicSettings;
pub use image::*;
