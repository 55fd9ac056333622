//! What commands print: text for people, or one JSON document with `--json`. Progress and remarks go to
//! standard error, so that standard output can be piped.

use crate::exit::Failure;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How this run prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// `value` as JSON, or the text for people.
    pub fn show(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self.json_line(value) } else { self.line(&text()) }
    }

    /// One JSON document on a line of its own.
    pub fn json_line(self, value: &impl Serialize) -> Result<(), Failure> {
        self.line(&serde_json::to_string(value).expect("our own types serialise"))
    }

    /// Text and a line end (unless it ends with one).
    pub fn line(self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write!(out, "{text}{end}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
    }

    /// A remark for people on standard error; nothing with `--json`.
    pub fn remark(self, text: &str) {
        if !self.json {
            // Remarks do not matter enough to fail for.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// A progress line on standard error, drawn only on a terminal. `total`: known number of steps.
    pub fn progress(self, total: Option<u64>) -> ProgressBar {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style("{bar:30} {pos}/{len} {msg}")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {elapsed} {msg}")),
        };
        if self.json || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is constant")
}

/// `1234567` as `1 234 567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a decimal unit and three digits: `1.23 MB`.
pub fn human_bytes(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 || unit == "TB" {
            return match unit {
                "B" => format!("{value:.0} B"),
                _ if value < 9.995 => format!("{value:.2} {unit}"),
                _ if value < 99.95 => format!("{value:.1} {unit}"),
                _ => format!("{value:.0} {unit}"),
            };
        }
        value /= 1000.0;
    }
    unreachable!("the last unit returns")
}

/// Milliseconds with a unit that suits them.
pub fn human_ms(ms: f64) -> String {
    match ms {
        _ if ms < 1.0 => format!("{:.0} µs", ms * 1000.0),
        _ if ms < 10.0 => format!("{ms:.2} ms"),
        _ if ms < 1000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}

/// RFC 3339 in UTC, or `-` for no time.
pub fn time_of_ms(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) if ms >= 0 => format!("{time:.3}"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            ["7", "999", "1 000", "1 234 567"],
            [7, 999, 1000, 1_234_567].map(grouped).each_ref().map(|s| s.as_str())
        );
        let bytes = [0.0, 999.0, 1000.0, 1234.0, 12_345.0, 999_600.0, 1.5e9, 2.5e15].map(human_bytes);
        assert_eq!(
            bytes.each_ref().map(|s| s.as_str()),
            ["0 B", "999 B", "1.00 kB", "1.23 kB", "12.3 kB", "1.00 MB", "1.50 GB", "2500 TB"]
        );
        let times = [0.05, 1.234, 12.3, 1500.0].map(human_ms);
        assert_eq!(times.each_ref().map(|s| s.as_str()), ["50 µs", "1.23 ms", "12 ms", "1.50 s"]);
    }

    #[test]
    fn times_are_utc_to_the_millisecond() {
        assert_eq!(time_of_ms(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time_of_ms(-1), "-");
    }
}
