//! The metadata that Raft agrees on, and the pure state machine that changes it.
//!
//! `command` says what may be proposed, `image` what is agreed; `machine` is the only code that turns
//! one image into the next.

pub mod command;
pub mod image;

pub use command::{Command, CommitMember, Election, Rejection, Response};
pub use image::*;
