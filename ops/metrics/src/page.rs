//! What one scrape answers: families with their series, gathered when it is asked for, and written as text.
//!
//! prometheus-client writes OpenMetrics. There a counter's family goes without `_total`, which readers of the older format
//! (0.0.4, what a scraper gets that asks for nothing else) would take for a family without a type: for them the heads are
//! written anew, the series are the same.

use crate::meter::Reading;
use crate::metric::{Kind, Metric};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

/// Who has something to show.
pub trait Source: fmt::Debug + Send + Sync {
    /// Reads what there is at the moment. Takes short locks at most: it runs between requests.
    fn gather(&self, page: &mut Page);
}

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format, 0.0.4.
    Text,
    OpenMetrics,
}

impl Format {
    /// What the `Accept` header of a request asks for: OpenMetrics by name, otherwise the text format.
    pub fn accepted(accept: Option<&str>) -> Self {
        let named = |kind: &str| kind.trim_start().starts_with("application/openmetrics-text");
        if accept.is_some_and(|accept| accept.split(',').any(named)) {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A value of one series.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(u64),
    Signed(i64),
    Number(f64),
    Histogram(Reading),
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),*) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Value::$variant(value.into())
            }
        })*
    };
}
value_from!(u64 => Integer, u32 => Integer, bool => Integer, i64 => Signed, i32 => Signed, f64 => Number, Reading => Histogram);

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Value::Integer(value as u64)
    }
}

/// Values of labels. Clones are cheap: series of several families share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels(Arc<[Box<str>]>);

impl Labels {
    pub fn new(values: &[&dyn fmt::Display]) -> Self {
        Labels(values.iter().map(|value| value.to_string().into_boxed_str()).collect())
    }
}

/// Labels with their names, as the encoder wants them.
struct Named<'a>(&'static [&'static str], &'a Labels);

impl EncodeLabelSet for Named<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        for (name, value) in self.0.iter().zip(&*self.1.0) {
            let mut label = encoder.encode_label();
            let mut key = label.encode_label_key()?;
            key.write_str(name)?;
            let mut text = key.encode_label_value()?;
            text.write_str(value)?;
            text.finish()?;
        }
        Ok(())
    }
}

/// The series of one metric.
#[derive(Debug)]
pub struct Family {
    metric: &'static Metric,
    series: Vec<(Labels, Value)>,
}

impl Family {
    /// Adds one series. Panics unless there is a value for each label, which is a mistake of ours.
    pub fn add(&mut self, labels: Labels, value: impl Into<Value>) {
        assert_eq!(labels.0.len(), self.metric.labels.len(), "labels of {}", self.metric.name);
        self.series.push((labels, value.into()));
    }
}

/// Families by name.
#[derive(Debug, Default)]
pub struct Page(BTreeMap<&'static str, Family>);

impl Page {
    /// What these have to show now.
    pub fn of<'a>(sources: impl IntoIterator<Item = &'a dyn Source>) -> Self {
        let mut page = Page::default();
        sources.into_iter().for_each(|source| source.gather(&mut page));
        page
    }

    /// The family of a metric, to add many series to.
    pub fn family(&mut self, metric: &'static Metric) -> &mut Family {
        self.0.entry(metric.name).or_insert_with(|| Family { metric, series: Vec::new() })
    }

    /// Adds one series.
    pub fn add(&mut self, metric: &'static Metric, labels: &[&dyn fmt::Display], value: impl Into<Value>) {
        self.family(metric).add(Labels::new(labels), value);
    }

    /// Names of the families that have series, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter(|(_, family)| !family.series.is_empty()).map(|(name, _)| *name)
    }

    pub fn render(self, format: Format) -> String {
        let counters: Vec<&'static str> = self
            .0
            .values()
            .filter(|family| family.metric.kind == Kind::Counter)
            .map(|family| stem(family.metric))
            .collect();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("writing to a string");
        match format {
            Format::OpenMetrics => text,
            Format::Text => in_text_format(&text, &counters),
        }
    }
}

/// The name of a family in OpenMetrics.
fn stem(metric: &Metric) -> &'static str {
    metric.name.strip_suffix("_total").unwrap_or(metric.name)
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for Family { metric, series } in self.0.values().filter(|family| !family.series.is_empty()) {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(stem(metric), metric.help, None, kind)?;
            for (labels, value) in series {
                if metric.labels.is_empty() {
                    write_value(&mut family, metric.kind, value)?;
                } else {
                    let named = Named(metric.labels, labels);
                    write_value(&mut family.encode_family(&named)?, metric.kind, value)?;
                }
            }
        }
        Ok(())
    }
}

fn write_value(encoder: &mut MetricEncoder, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Integer(value)) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
        (Kind::Counter, Value::Number(value)) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
        (Kind::Gauge, Value::Integer(value)) => encoder.encode_gauge(value),
        (Kind::Gauge, Value::Signed(value)) => encoder.encode_gauge(value),
        (Kind::Gauge, Value::Number(value)) => encoder.encode_gauge(value),
        (Kind::Histogram, Value::Histogram(Reading { buckets, sum, count })) => {
            encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
        }
        (kind, value) => unreachable!("a {} cannot be {value:?}", kind.name()),
    }
}

/// OpenMetrics as the older format has it; `counters` are the families of counters, sorted.
fn in_text_format(open_metrics: &str, counters: &[&str]) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    for line in open_metrics.lines() {
        match line.strip_prefix("# ") {
            None => text.push_str(line),
            Some("EOF") => continue,
            Some(head) => {
                let mut words = head.splitn(3, ' ');
                let (what, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                let total = if counters.binary_search(&name).is_ok() { "_total" } else { "" };
                let rest = words.next().unwrap_or_default();
                write!(text, "# {what} {name}{total} {rest}").expect("writing to a string");
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::{Bounds, Histogram};

    const RECORDS: Metric =
        Metric::counter("strandline_records_total", &["topic", "partition"], "Records appended");
    const LAG: Metric = Metric::gauge("strandline_lag_records", &[], "Records behind");
    const TOOK: Metric = Metric::histogram("strandline_took_seconds", &["request"], "Time that it took");
    const NOTHING: Metric = Metric::gauge("strandline_nothing", &[], "No series");

    fn page() -> Page {
        let mut page = Page::default();
        page.add(&RECORDS, &[&"a\"b\\c\nd", &0], 3_u64);
        page.add(&RECORDS, &[&"plain", &1], u64::MAX);
        page.add(&LAG, &[], -1_i64);
        let took = Histogram::new(Bounds { upper: &[1, 2], scale: 2.0 });
        (0..4).for_each(|value| took.add(value));
        page.add(&TOOK, &[&"produce"], took.reading());
        page.family(&NOTHING);
        page
    }

    #[test]
    fn the_text_format_names_counters_as_queries_do_and_escapes_labels() {
        assert_eq!(
            page().render(Format::Text),
            "# HELP strandline_lag_records Records behind\n\
             # TYPE strandline_lag_records gauge\n\
             strandline_lag_records -1\n\
             # HELP strandline_records_total Records appended\n\
             # TYPE strandline_records_total counter\n\
             strandline_records_total{topic=\"a\\\"b\\\\c\\nd\",partition=\"0\"} 3\n\
             strandline_records_total{topic=\"plain\",partition=\"1\"} 18446744073709551615\n\
             # HELP strandline_took_seconds Time that it took\n\
             # TYPE strandline_took_seconds histogram\n\
             strandline_took_seconds_sum{request=\"produce\"} 3.0\n\
             strandline_took_seconds_count{request=\"produce\"} 4\n\
             strandline_took_seconds_bucket{le=\"0.5\",request=\"produce\"} 2\n\
             strandline_took_seconds_bucket{le=\"1.0\",request=\"produce\"} 3\n\
             strandline_took_seconds_bucket{le=\"+Inf\",request=\"produce\"} 4\n"
        );
    }

    #[test]
    fn open_metrics_ends_with_its_mark_and_has_families_without_total() {
        let text = page().render(Format::OpenMetrics);
        assert!(text.contains("# TYPE strandline_records counter\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn open_metrics_is_written_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some("text/plain;version=0.0.4")), Format::Text);
        assert_eq!(Format::accepted(Some("*/*")), Format::Text);
        assert_eq!(Format::accepted(None), Format::Text);
    }

    #[test]
    fn a_page_names_the_families_that_have_series() {
        let page = page();
        let names: Vec<_> = page.names().collect();
        assert_eq!(names, [LAG.name, RECORDS.name, TOOK.name]);
    }

    #[test]
    #[should_panic(expected = "labels of strandline_records_total")]
    fn a_series_has_a_value_for_each_label() {
        Page::default().add(&RECORDS, &[&"only one"], 1_u64);
    }
}
