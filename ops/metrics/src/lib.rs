//! Counting, and telling Prometheus what was counted.
//!
//! ```text
//!  hot paths ──relaxed atomics──► Counter, Histogram ─┐
//!  what is known anyway (offsets, sizes, epochs) ─────┼─ Source::gather, at a scrape ─► Page ─► text
//! ```
//!
//! No global state: a process holds as many nodes as it likes (the simulation does), each with meters of its own, and a
//! scrape is given the [`Source`]s that it shows. No clock either: times are handed in.
//!
//! Invariants: a [`Metric`] is a constant, declared in a table of its crate, so that the page of documentation and what is
//! served cannot differ; whatever becomes a label is bounded by whoever gathers it; adding to a meter is one or two
//! relaxed atomic additions and never decides anything.

mod meter;
mod metric;
mod page;

pub use meter::{Bounds, Counter, Histogram, LATENCY, Reading, SIZE};
pub use metric::{Kind, Metric, markdown};
pub use page::{Family, Format, Labels, Page, Source, Value};
