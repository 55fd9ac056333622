//! Looking on at a run without any part in it: what a report or a picture of the run is made from.
//!
//! A watcher can neither change the run nor end it, and the run is the same with any of them: nothing here goes into
//! the trace, draws from the seed or takes simulated time.

use crate::history::Event;
use crate::world::World;

/// Sees everything in the order in which it happens. Everything has a default that takes no notice.
pub trait Watcher {
    /// A step has ended and the oracle has judged it. Called for the failing step as well.
    fn step(&mut self, _world: &World) {}

    /// A client did something or was told something. Called before [`Watcher::step`] of the same step.
    fn event(&mut self, _event: &Event) {}

    /// A fault was truly done to somebody. `kind` is its name as the report counts it; `what` tells whom it hit, with
    /// hosts by their names in the network; `until_us` is when it ends by itself, if it has an end.
    fn fault(&mut self, _at_us: u64, _kind: &str, _what: &str, _until_us: Option<u64>) {}
}

/// Takes no notice of anything.
impl Watcher for () {}
