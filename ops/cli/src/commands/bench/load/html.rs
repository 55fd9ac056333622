//! The report as one HTML file: no script, nothing from elsewhere, light and dark as the reader has it. Pure.

use super::plot::{Axis, Chart, Line, Scale};
use super::report::{Limit, Report};
use super::stats::{Point, Summary};
use crate::output::{grouped, human_bytes, human_ms};
use std::fmt::Write;

const STYLE: &str = include_str!("report.css");

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_page(report, &mut out);
    out
}

fn write_page(report: &Report, out: &mut String) -> std::fmt::Result {
    let p = &report.parameters;
    let title = format!("Load via {}: {}", p.via, escaped(&p.target));
    write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>{title}</title><style>{STYLE}</style><main><h1>{title}</h1><p>{}</p>",
        escaped(&report.offered())
    )?;
    headline(report, out)?;
    if let Some(limit) = &report.limit {
        out.push_str(&latency_by_rate(limit).figure());
        steps(limit, out)?;
        out.push_str("<h2>The highest rate that held</h2>");
    }
    for chart in charts(report) {
        out.push_str(&chart.figure());
    }
    latencies(report, out)?;
    errors(report, out)?;
    parameters(report, out)?;
    out.push_str("</main></html>\n");
    Ok(())
}

fn headline(report: &Report, out: &mut String) -> std::fmt::Result {
    let requests = &report.requests;
    let time = |ms: Option<f64>| ms.map_or("–".to_owned(), human_ms);
    let latency = report.latency_ms.as_ref();
    let mut tiles = vec![
        ("requests/s acknowledged", grouped(report.requests_per_second.round() as u64)),
        ("p50", time(latency.map(|s| s.p50))),
        ("p99", time(latency.map(|s| s.p99))),
        ("p99.9", time(latency.map(|s| s.p999))),
        ("slowest", time(latency.map(|s| s.max))),
        ("refused (429)", grouped(requests.refused)),
        ("failed", grouped(requests.failed)),
        ("not reached", grouped(requests.not_reached)),
    ];
    if let Some(limit) = &report.limit {
        let rate = limit.requests_per_second.map_or("none".to_owned(), |rate| grouped(rate.round() as u64));
        tiles.insert(0, ("requests/s: the limit", rate));
    }
    out.push_str("<dl class=tiles>");
    for (name, value) in tiles {
        write!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>")?;
    }
    out.push_str("</dl>");
    if report.interrupted {
        out.push_str("<p><strong>It was interrupted: these are the figures up to then.</strong></p>");
    }
    Ok(())
}

fn seconds(value: f64) -> String {
    format!("{}", (value * 100.0).round() / 100.0)
}

fn count(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{} M", value / 1e6),
        _ if value >= 1e4 => format!("{} k", value / 1e3),
        _ => format!("{value}"),
    }
}

fn over_time(title: &'static str, y: Axis, lines: Vec<Line>) -> Chart {
    Chart { title, x: Axis::new("seconds", Scale::Linear, seconds), y, lines }
}

fn charts(report: &Report) -> Vec<Chart> {
    let of = |name, class, value: fn(&Point) -> Option<f64>| {
        Line::new(name, class, report.series.iter().map(|point| (point.t, value(point))))
    };
    let rate = || Axis::new("requests/s", Scale::Linear, count);
    let time = || Axis::new("latency", Scale::Log, human_ms);
    let mut charts = vec![
        over_time(
            "Throughput",
            rate(),
            vec![of("asked", "grey", |p| p.asked), of("acknowledged", "blue", |p| Some(p.acknowledged))],
        ),
        over_time(
            "Latency from when requests were due",
            time(),
            vec![
                of("p50", "blue", |p| p.p50_ms),
                of("p95", "green", |p| p.p95_ms),
                of("p99", "orange", |p| p.p99_ms),
                of("slowest", "red", |p| p.max_ms),
            ],
        ),
        by_percentile(report),
    ];
    if report.requests.refused + report.requests.failed > 0 {
        charts.push(over_time(
            "Refused and failed",
            rate(),
            vec![of("429", "orange", |p| Some(p.refused)), of("errors", "red", |p| Some(p.failed))],
        ));
    }
    if report.requests.refused > 0 {
        charts.push(over_time(
            "Latency of refusals from when they were sent",
            time(),
            vec![of("p99", "orange", |p| p.refused_p99_ms)],
        ));
    }
    charts.push(over_time(
        "Cores busy",
        Axis::new("cores", Scale::Linear, |value| format!("{value:.1}")),
        vec![of("generator", "grey", |p| Some(p.client_cores)), of("nodes", "blue", |p| p.cluster_cores)],
    ));
    if report.cpu.cluster_memory_max_bytes.is_some() {
        charts.push(over_time(
            "Memory of the nodes",
            Axis::new("resident", Scale::Linear, human_bytes),
            vec![of("nodes", "blue", |p| p.cluster_memory_bytes.map(|bytes| bytes as f64))],
        ));
    }
    charts
}

/// The distribution with the rare and slow spread out: each step to the right is ten times rarer.
fn by_percentile(report: &Report) -> Chart {
    // The slowest of all is as rare as there are samples.
    let line = |name, class, points: &[(f64, f64)], samples: u64| {
        let rarity = move |share: f64| 1.0 / (1.0 - share).max(1.0 / (samples.max(1) as f64));
        Line::new(
            name,
            class,
            points.iter().map(|(share, ms)| (rarity(*share), Some(*ms))).collect::<Vec<_>>(),
        )
    };
    let samples = |summary: &Option<Summary>| summary.as_ref().map_or(0, |summary| summary.samples);
    let mut x = Axis::new("percentile", Scale::Log, |rarity| {
        let percent = 100.0 - 100.0 / rarity;
        let digits = (rarity.log10().round() as usize).saturating_sub(2);
        format!("{percent:.digits$} %")
    });
    x.ticks = (0..=9).map(|power| 10_f64.powi(power)).collect();
    Chart {
        title: "Latency by percentile",
        x,
        y: Axis::new("latency", Scale::Log, human_ms),
        lines: vec![
            line("acknowledged", "blue", &report.distribution.latency, samples(&report.latency_ms)),
            line("refused", "orange", &report.distribution.refused, samples(&report.refused_latency_ms)),
        ],
    }
}

fn latency_by_rate(limit: &Limit) -> Chart {
    let mut steps: Vec<_> = limit.steps.iter().collect();
    steps.sort_by(|a, b| a.asked.total_cmp(&b.asked));
    let line = |name, class, value: fn(&super::report::Step) -> Option<f64>| Line {
        marked: true,
        ..Line::new(name, class, steps.iter().map(|step| (step.asked, value(step))))
    };
    Chart {
        title: "Latency by rate",
        x: Axis::new("requests/s asked for", Scale::Linear, count),
        y: Axis::new("latency", Scale::Log, human_ms),
        lines: vec![
            line("p50", "blue", |step| step.p50_ms),
            line("p99", "orange", |step| step.p99_ms),
            line("p99.9", "red", |step| step.p999_ms),
        ],
    }
}

fn steps(limit: &Limit, out: &mut String) -> std::fmt::Result {
    let time = |ms: Option<f64>| ms.map_or("–".to_owned(), human_ms);
    out.push_str("<table><tr><th>asked/s<th>reached/s<th>p50<th>p99<th>p99.9<th>");
    for step in &limit.steps {
        write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td class=text>{}",
            grouped(step.asked.round() as u64),
            grouped(step.acknowledged.round() as u64),
            time(step.p50_ms),
            time(step.p99_ms),
            time(step.p999_ms),
            step.why.as_deref().map_or("holds".to_owned(), escaped)
        )?;
    }
    out.push_str("</table>");
    Ok(())
}

fn latencies(report: &Report, out: &mut String) -> std::fmt::Result {
    out.push_str("<table><tr><th class=text>time<th>p50<th>p90<th>p95<th>p99<th>p99.9<th>max<th>requests");
    for (name, summary) in [
        ("latency, from due", &report.latency_ms),
        ("refusals, from due", &report.refused_latency_ms),
        ("refusals, from sent", &report.refused_service_ms),
        ("send lag", &report.send_lag_ms),
    ] {
        let Some(s) = summary else { continue };
        write!(out, "<tr><td class=text>{name}")?;
        for ms in [s.p50, s.p90, s.p95, s.p99, s.p999, s.max] {
            write!(out, "<td>{}", human_ms(ms))?;
        }
        write!(out, "<td>{}", grouped(s.samples))?;
    }
    out.push_str("</table>");
    Ok(())
}

fn errors(report: &Report, out: &mut String) -> std::fmt::Result {
    if report.errors.is_empty() && report.retry_after_seconds.is_empty() {
        return Ok(());
    }
    out.push_str("<table><tr><th class=text>error<th>times");
    for (kind, times) in &report.errors {
        write!(out, "<tr><td class=text>{}<td>{}", escaped(kind), grouped(*times))?;
    }
    for (seconds, times) in &report.retry_after_seconds {
        write!(out, "<tr><td class=text>429, Retry-After: {seconds}<td>{}", grouped(*times))?;
    }
    out.push_str("</table>");
    Ok(())
}

fn parameters(report: &Report, out: &mut String) -> std::fmt::Result {
    let (p, cpu, machine) = (&report.parameters, &report.cpu, &report.machine);
    let each = |us: Option<f64>| us.map_or("not watched".to_owned(), |us| format!("{us:.1} µs"));
    let rows = [
        ("started", report.started_at.clone()),
        ("addresses", p.addresses.join(", ")),
        ("arrivals", report.offered()),
        ("measured", format!("{:.1} s, after a warm-up of {:.1} s", report.seconds, p.warmup_seconds)),
        ("acks", p.acks.to_owned()),
        ("keys", if p.keys == 0 { "none".to_owned() } else { format!("{} different", grouped(p.keys)) }),
        (
            "records",
            format!(
                "{}/s, {}/s, {} in all",
                grouped(report.records_per_second.round() as u64),
                human_bytes(report.bytes_per_second),
                grouped(report.records_acknowledged)
            ),
        ),
        ("CPU a request, generator", each(Some(cpu.client_us_per_request))),
        ("CPU a request, nodes", each(cpu.cluster_us_per_request)),
        (
            "machine",
            format!(
                "{} cores, {}, {}, Linux {}",
                machine.cores,
                machine.cpu,
                human_bytes(machine.memory_bytes as f64),
                machine.kernel
            ),
        ),
        ("strandline", report.version.to_owned()),
    ];
    out.push_str("<table>");
    for (name, value) in rows {
        write!(out, "<tr><th class=text>{name}<td class=text>{}", escaped(&value))?;
    }
    out.push_str("</table>");
    Ok(())
}

/// As text of a page.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::super::report::{Step, tests::example};
    use super::*;

    #[test]
    fn the_page_stands_alone_and_shows_every_chart_and_what_was_asked() {
        let page = page(&example());
        for outside in ["src=", "href=", "url(", "@import", "<script", "NaN"] {
            assert!(!page.contains(outside), "{outside}");
        }
        for part in [
            "<figcaption>Throughput<",
            "<figcaption>Latency from when requests were due<",
            "<figcaption>Latency by percentile<",
            "<figcaption>Refused and failed<",
            "<figcaption>Latency of refusals",
            "<figcaption>Memory of the nodes<",
            "HTTP 503 cluster-not-ready<td>1",
            "Retry-After: 1<td>95",
            "127.0.0.1:8080",
            "prefers-color-scheme",
            "99.9 %",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn what_came_from_elsewhere_is_text() {
        let mut report = example();
        report.errors.insert("HTTP 500 <script>x</script>".to_owned(), 3);
        report.parameters.target = "POST /v1/topics/<b>/records".to_owned();
        let page = page(&report);
        assert!(!page.contains("<script") && !page.contains("<b>"));
        assert!(page.contains("HTTP 500 &lt;script&gt;"));
    }

    #[test]
    fn a_search_shows_its_curve_and_each_step() {
        let mut report = example();
        let step = |asked, why: Option<&str>| Step {
            asked,
            why: why.map(str::to_owned),
            holds: why.is_none(),
            ..report.step(asked, 1000.0)
        };
        let steps = vec![step(1000.0, None), step(2000.0, Some("94 refused")), step(1500.0, None)];
        report.limit = Some(Limit { requests_per_second: Some(1500.0), limit_p99_ms: 1000.0, steps });
        let page = page(&report);
        assert!(page.contains("<figcaption>Latency by rate<"));
        assert_eq!(page.matches("<circle").count(), 9, "three lines of three steps");
        assert!(page.contains("<td>2 000<td>85") && page.contains("94 refused") && page.contains(">holds"));
    }
}
