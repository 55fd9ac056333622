//! What the broker decides, with no way to do anything: events in, effects out. No clock (times come in as
//! `now_ms`, monotonic milliseconds), no random source, no file, no socket, no `await`.
//!
//! * `partition` — one replica as leader or as follower, and which of the two it should be;
//! * `group` — consumer groups of the classic protocol, at their coordinator;
//! * `consumer_group` — those of the new one (KIP-848);
//! * `controller` — sessions, fencing, placement, reassignment, voters (runs where Raft leads).
//!
//! `strandline-node` wraps each in a task that waits for something, names it as an event and carries out
//! the effects.

pub mod consumer_group;
pub mod controller;
pub mod group;
pub mod partition;
