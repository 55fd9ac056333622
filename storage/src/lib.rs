//! Bytes on disk: segmented logs, one journal per node, recovery.

pub mod disk;
pub mod worker;
