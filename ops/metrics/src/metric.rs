//! What there is to know, as constants.

use std::fmt::Write;

/// How a value behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process runs. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size: buckets, a sum and a count.
    Histogram,
}

impl Kind {
    /// As the formats write it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One metric family, under the name by which queries find it, unit included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// In the order in which values are given.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

impl Metric {
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Metric { name, kind: Kind::Counter, labels, help }
    }

    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Metric { name, kind: Kind::Gauge, labels, help }
    }

    pub const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Metric { name, kind: Kind::Histogram, labels, help }
    }
}

/// A table of metrics for a page of documentation.
pub fn markdown(metrics: &[&Metric]) -> String {
    let mut table = String::from("| name | kind | labels | what it says |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, help } in metrics {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{name}` | {} | {} | {help} |", kind.name(), labels.join(", "))
            .expect("writing to a string");
    }
    table
}
