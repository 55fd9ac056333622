//! What `/metrics` shows of this process, and of the node in it; and the page that says what everything means.

mod process;

pub use process::ProcessMetrics;

use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::table::table;
use serde_json::json;
use std::sync::{Arc, OnceLock};
use strandline_metrics::{Metric, Page, Source, markdown};
use strandline_node::inspect::Inspect;
use strandline_node::metrics::NodeMetrics;

/// The node of this process, from its start on.
#[derive(Clone, Debug, Default)]
pub struct StartedNode(Arc<OnceLock<NodeMetrics>>);

impl StartedNode {
    /// To be called when the node starts; it is shown with at most `limit` series of each kind.
    pub fn start(&self, limit: usize) -> impl Fn(Inspect) + Send + Sync + 'static {
        let slot = self.0.clone();
        move |node| {
            // A process runs one node, once.
            let _ = slot.set(node.metrics(limit));
        }
    }
}

impl Source for StartedNode {
    fn gather(&self, page: &mut Page) {
        if let Some(node) = self.0.get() {
            node.gather(page);
        }
    }
}

/// Everything there is, by what shows it.
const SECTIONS: &[(&str, &str, &[&Metric])] = &[
    ("Nodes", "Of a node with `listen.http`.", strandline_node::metrics::METRICS),
    (
        "Gateways",
        "Of a node with `listen.http`, and of `strandline gateway`.",
        strandline_gateway::metrics::METRICS,
    ),
    ("Processes", "Of both, from what the kernel says.", process::METRICS),
];

/// `ops/docs/metrics.md`. A test compares the file with this; `cargo xtask fix` rewrites it.
pub fn page() -> String {
    let mut page = String::from(include_str!("page.md"));
    for (name, whose, metrics) in SECTIONS {
        page += &format!("\n## {name}\n\n{whose}\n\n{}", markdown(metrics));
    }
    page
}

/// Lists metrics whose name contains `name`.
pub fn list(name: &str, out: Output) -> Result<(), Failure> {
    let all = SECTIONS.iter().flat_map(|(_, _, metrics)| *metrics);
    let found: Vec<&&Metric> = all.filter(|metric| metric.name.contains(name)).collect();
    if found.is_empty() {
        return Err(Failure::new(Exit::NotFound, format_args!("no metric contains `{name}`")));
    }
    let document = |metric: &&&Metric| json!({ "name": metric.name, "kind": metric.kind.name(), "labels": metric.labels, "help": metric.help });
    let documents: Vec<_> = found.iter().map(document).collect();
    out.show(&documents, || {
        let row = |metric: &&Metric| {
            [
                metric.name.to_owned(),
                metric.kind.name().to_owned(),
                metric.labels.join(", "),
                metric.help.to_owned(),
            ]
        };
        table(["metric", "kind", "labels", "meaning"], found.iter().map(|metric| row(metric)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use strandline_metrics::Kind;

    fn all() -> impl Iterator<Item = &'static &'static Metric> {
        SECTIONS.iter().flat_map(|(_, _, metrics)| *metrics)
    }

    #[test]
    fn the_page_of_metrics_is_up_to_date() {
        assert_eq!(include_str!("../../../docs/metrics.md"), page(), "run `cargo xtask fix`");
    }

    #[test]
    fn names_are_conventional_and_given_once() {
        let mut seen = BTreeSet::new();
        for Metric { name, kind, labels, help } in all().copied() {
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("strandline_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(plain(name) && labels.iter().all(|label| plain(label)), "{name}");
            assert!(
                !["_ms", "_millis", "_micros", "_kb", "_mb"].iter().any(|unit| name.contains(unit)),
                "{name}"
            );
            assert!(!help.is_empty() && !help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
        }
    }

    #[test]
    fn the_process_shows_what_its_table_says() {
        let page = Page::of([&ProcessMetrics as &dyn Source]);
        let shown: BTreeSet<_> = page.names().collect();
        assert_eq!(shown, process::METRICS.iter().map(|metric| metric.name).collect());
    }
}
