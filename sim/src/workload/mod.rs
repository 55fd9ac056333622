//! What the clients of a run do.

pub mod produce;
