//! Line charts as SVG. Pure: numbers in, text out; colours and sizes of text come from the page's style sheet.
//!
//! The drawing area is small (440 × 250 units) and scales with the page, so that its text can be read on a phone.

use std::fmt::Write;

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;
/// More points than this are not told apart; of those that share a place the highest is drawn.
const MOST_POINTS: usize = 400;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0, or from the smallest.
    Linear,
    /// Tens apart; what is not positive is not drawn.
    Log,
}

/// One direction of a chart.
pub struct Axis {
    pub label: &'static str,
    pub scale: Scale,
    /// Writes a value beside a tick.
    pub text: fn(f64) -> String,
    /// Where ticks are; chosen by the scale if there are none.
    pub ticks: Vec<f64>,
}

impl Axis {
    pub fn new(label: &'static str, scale: Scale, text: fn(f64) -> String) -> Axis {
        Axis { label, scale, text, ticks: Vec::new() }
    }
}

/// A line; it is broken where `y` is absent.
pub struct Line {
    pub name: &'static str,
    /// Class in the style sheet: its colour.
    pub class: &'static str,
    pub points: Vec<(f64, Option<f64>)>,
    /// Each point is marked.
    pub marked: bool,
}

impl Line {
    pub fn new(
        name: &'static str,
        class: &'static str,
        points: impl IntoIterator<Item = (f64, Option<f64>)>,
    ) -> Line {
        Line { name, class, points: points.into_iter().collect(), marked: false }
    }

    fn has_values(&self) -> bool {
        self.points.iter().any(|(_, y)| y.is_some_and(|y| y.is_finite() && y > 0.0))
    }
}

/// A chart with its legend.
pub struct Chart {
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

/// Values to places.
struct Map {
    scale: Scale,
    from: f64,
    to: f64,
    start: f64,
    length: f64,
}

impl Map {
    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value / self.from).log10() / (self.to / self.from).log10(),
        };
        self.start + share * self.length
    }

    fn ticks(&self, axis: &Axis) -> Vec<f64> {
        let ticks = match (axis.ticks.is_empty(), self.scale) {
            (false, _) => axis.ticks.clone(),
            (true, Scale::Linear) => {
                let step = nice((self.to - self.from) / 5.0);
                let first = (self.from / step).ceil();
                (0..12).map(|n| (first + f64::from(n)) * step).collect()
            }
            (true, Scale::Log) => {
                let (first, last) = (self.from.log10().round() as i32, self.to.log10().round() as i32);
                // A short axis has room for more than its tens.
                let digits: &[f64] = if last - first <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let of = |power: i32| digits.iter().map(move |digit| digit * 10_f64.powi(power));
                (first..=last).flat_map(of).collect()
            }
        };
        let room = (self.to - self.from).abs() * 1e-9;
        ticks.into_iter().filter(|tick| *tick >= self.from - room && *tick <= self.to + room).collect()
    }
}

/// 1, 2 or 5 times a power of ten, not less than this.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let digit = [1.0, 2.0, 5.0, 10.0].into_iter().find(|digit| digit * power >= step * 0.999);
    digit.unwrap_or(10.0) * power
}

fn bounds(values: impl Iterator<Item = f64>, axis: &Axis, from_zero: bool) -> Option<(f64, f64)> {
    let usable = values.filter(|value| value.is_finite() && (axis.scale == Scale::Linear || *value > 0.0));
    let (low, high) = usable
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return None;
    }
    Some(match axis.scale {
        Scale::Log => {
            let (low, high) = (low.log10().floor(), high.log10().ceil());
            (10_f64.powf(low), 10_f64.powf(high.max(low + 1.0)))
        }
        Scale::Linear if from_zero => {
            let step = nice((high / 5.0).max(1e-9));
            (0.0, (high / step).ceil().max(1.0) * step)
        }
        Scale::Linear => (low, if high > low { high } else { low + 1.0 }),
    })
}

impl Chart {
    /// A `<figure>`: title, legend, drawing.
    pub fn figure(&self) -> String {
        let mut out = String::new();
        let lines: Vec<&Line> = self.lines.iter().filter(|line| line.has_values()).collect();
        // Writing to a string does not fail.
        let _ = self.write(&mut out, &lines);
        out
    }

    fn write(&self, out: &mut String, lines: &[&Line]) -> std::fmt::Result {
        write!(out, "<figure><figcaption>{}</figcaption><p class=legend>", self.title)?;
        for line in lines {
            write!(out, "<span class={}>{}</span> ", line.class, line.name)?;
        }
        let names: Vec<&str> = lines.iter().map(|line| line.name).collect();
        write!(
            out,
            "</p><svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{}: {}'>",
            self.title,
            names.join(", ")
        )?;
        let xs = lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x));
        let ys = lines.iter().flat_map(|line| line.points.iter().filter_map(|(_, y)| *y));
        match (bounds(xs, &self.x, false), bounds(ys, &self.y, true)) {
            (Some((left, right)), Some((bottom, top))) => {
                let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
                let x = Map { scale: self.x.scale, from: left, to: right, start: LEFT, length: width };
                let y =
                    Map { scale: self.y.scale, from: bottom, to: top, start: TOP + height, length: -height };
                self.axes(out, &x, &y)?;
                for line in lines {
                    draw(out, line, &x, &y)?;
                }
            }
            _ => write!(
                out,
                "<text x={} y={} text-anchor=middle>nothing to show</text>",
                WIDTH / 2.0,
                HEIGHT / 2.0
            )?,
        }
        write!(out, "</svg></figure>")
    }

    fn axes(&self, out: &mut String, x: &Map, y: &Map) -> std::fmt::Result {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in y.ticks(&self.y) {
            let at = y.place(tick);
            write!(out, "<path class=grid d='M{LEFT} {at:.1}H{right}'/>")?;
            write!(
                out,
                "<text x={} y={:.1} text-anchor=end>{}</text>",
                LEFT - 5.0,
                at + 3.5,
                (self.y.text)(tick)
            )?;
        }
        for tick in x.ticks(&self.x) {
            let at = x.place(tick);
            write!(out, "<path class=grid d='M{at:.1} {TOP}V{bottom}'/>")?;
            write!(
                out,
                "<text x={at:.1} y={} text-anchor=middle>{}</text>",
                bottom + 14.0,
                (self.x.text)(tick)
            )?;
        }
        let (middle, end) = ((LEFT + right) / 2.0, HEIGHT - 6.0);
        write!(out, "<text class=label x={middle} y={end} text-anchor=middle>{}</text>", self.x.label)?;
        let middle = (TOP + bottom) / 2.0;
        write!(
            out,
            "<text class=label transform='translate(11 {middle}) rotate(-90)' text-anchor=middle>{}</text>",
            self.y.label
        )
    }
}

fn draw(out: &mut String, line: &Line, x: &Map, y: &Map) -> std::fmt::Result {
    let points = thinned(&line.points);
    let drawn = |value: &f64| value.is_finite() && (y.scale == Scale::Linear || *value > 0.0);
    write!(out, "<path class='line {}' d='", line.class)?;
    let mut pen = 'M';
    for (at, value) in &points {
        match value.filter(drawn) {
            Some(value) => {
                write!(out, "{pen}{:.1} {:.1}", x.place(*at), y.place(value))?;
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    write!(out, "'/>")?;
    for (at, value) in points.iter().filter(|_| line.marked) {
        if let Some(value) = value.filter(drawn) {
            let (x, y) = (x.place(*at), y.place(value));
            write!(out, "<circle class={} cx={x:.1} cy={y:.1} r=3 />", line.class)?;
        }
    }
    Ok(())
}

/// No more points than can be told apart, without losing a peak.
fn thinned(points: &[(f64, Option<f64>)]) -> Vec<(f64, Option<f64>)> {
    let together = points.len().div_ceil(MOST_POINTS).max(1);
    let highest = |some: &[(f64, Option<f64>)]| {
        some.iter().copied().max_by(|a, b| a.1.unwrap_or(f64::MIN).total_cmp(&b.1.unwrap_or(f64::MIN)))
    };
    points.chunks(together).filter_map(highest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chart(scale: Scale, points: Vec<(f64, Option<f64>)>) -> Chart {
        Chart {
            title: "Latency",
            x: Axis::new("seconds", Scale::Linear, |value| format!("{value:.0}")),
            y: Axis::new("ms", scale, |value| format!("{value}")),
            lines: vec![Line::new("p50", "a", points)],
        }
    }

    /// Coordinates of the line, segment by segment.
    fn path(figure: &str) -> Vec<Vec<(f64, f64)>> {
        let path = figure.split("class='line a' d='").nth(1).expect("a line").split('\'').next().unwrap();
        let pair = |text: &str| {
            let (x, y) = text.split_once(' ').expect("two numbers");
            (x.parse().expect("a number"), y.parse().expect("a number"))
        };
        path.split('M').skip(1).map(|segment| segment.split('L').map(pair).collect()).collect()
    }

    #[test]
    fn values_lie_where_the_axes_say() {
        let points = vec![(0.0, Some(50.0)), (5.0, Some(100.0)), (10.0, Some(25.0))];
        let figure = chart(Scale::Linear, points).figure();
        let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
        let middle = (top + bottom) / 2.0;
        assert_eq!(
            path(&figure),
            [[(left, middle), ((left + right) / 2.0, top), (right, (middle + bottom) / 2.0)]]
        );
        assert!(figure.contains(">100</text>") && figure.contains(">0</text>"), "{figure}");
        let points = vec![(0.0, Some(1.0)), (1.0, Some(10.0)), (2.0, Some(100.0))];
        let figure = chart(Scale::Log, points).figure();
        let heights: Vec<f64> = path(&figure)[0].iter().map(|(_, y)| *y).collect();
        assert_eq!(heights, [bottom, middle, top]);
    }

    #[test]
    fn a_line_is_broken_where_there_is_no_value_and_a_chart_without_values_says_so() {
        let points = vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(3.0)), (3.0, Some(0.0))];
        assert_eq!(path(&chart(Scale::Linear, points.clone()).figure()).len(), 2);
        assert_eq!(path(&chart(Scale::Log, points).figure())[1].len(), 1, "zero has no place on a log scale");
        assert!(chart(Scale::Log, vec![(0.0, None)]).figure().contains("nothing to show"));
    }

    #[test]
    fn a_long_run_is_thinned_and_keeps_its_peak() {
        let points = (0..86_400).map(|n| (f64::from(n), Some(if n == 777 { 9.0 } else { 1.0 }))).collect();
        let figure = chart(Scale::Linear, points).figure();
        let line = &path(&figure)[0];
        assert!(line.len() <= MOST_POINTS);
        assert!(line.iter().any(|(_, y)| *y < 40.0), "the peak is gone");
    }

    proptest! {
        #[test]
        fn whatever_is_drawn_lies_inside(
            values in proptest::collection::vec(proptest::option::of(0.0_f64..1e7), 1..50), log in any::<bool>(),
        ) {
            let points = values.iter().enumerate().map(|(n, value)| (n as f64, *value)).collect();
            let figure = chart(if log { Scale::Log } else { Scale::Linear }, points).figure();
            prop_assert!(!figure.contains("NaN") && !figure.contains("inf"), "{figure}");
            if values.iter().flatten().any(|value| *value > 0.0) {
                for (x, y) in path(&figure).concat() {
                    prop_assert!((LEFT - 0.1..=WIDTH - RIGHT + 0.1).contains(&x), "{x}");
                    prop_assert!((TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(&y), "{y}");
                }
            }
        }
    }
}
