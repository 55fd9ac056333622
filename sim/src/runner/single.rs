//! One run in this process.

use super::cli::Run;
use super::outcome::Outcome;
use super::story::Story;
use super::timeline::Timeline;
use super::wall::{Stopwatch, cpu_time, micros};
use parking_lot::Mutex;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use strandline_sim::faults::FaultCounters;
use strandline_sim::history::Event;
use strandline_sim::run::{RunOptions, RunReport, WorkCounters, run};
use strandline_sim::trace::{Detail, LogLines, Trace};
use strandline_sim::watch::Watcher;
use strandline_sim::world::{Failure, World};
use tracing_subscriber::EnvFilter;

/// The broker's and the SDK's log lines. openraft's tell times of the machine's clock, which no seed decides.
const LOG_LINES: &str = "warn,strandline=debug,openraft=off";

/// # Errors
/// A file that the command line names cannot be written.
pub fn carry_out(command: &Run) -> io::Result<Outcome> {
    let spec = command.spec();
    let trace = trace_of(command)?;
    let panics = watch_panics();
    let mut watchers =
        Watchers { story: Story::default(), timeline: command.timeline.is_some().then(Timeline::default) };
    let options = RunOptions {
        seed: spec.seed,
        scenario: spec.shape.scenario.clone(),
        faulty_for: spec.faulty_for(),
        trace: trace.clone(),
        limits: spec.limits(),
    };
    let (stopwatch, cpu_before) = (Stopwatch::start(), cpu_time());
    let ran = catch_unwind(AssertUnwindSafe(|| run(options, &mut watchers)));
    let (wall, cpu_after) = (stopwatch.elapsed(), cpu_time());
    trace.finish()?;

    let panics = panics.lock().clone();
    let mut report = ran.unwrap_or_else(|_| RunReport {
        failure: None,
        ended_us: trace.now_us(),
        faults: FaultCounters::default(),
        work: WorkCounters::default(),
        trace: trace.hash(),
    });
    // Also that of a task for which nobody waits: the run would go on without it, and nobody would know.
    if let (None, Some(panic)) = (&report.failure, panics.first()) {
        report.failure = Some(Failure::Crash(panic.clone()));
    }
    let mut outcome = Outcome::of(spec, &report);
    outcome.wall_us = micros(wall);
    outcome.cpu_us = cpu_before.zip(cpu_after).map(|(before, after)| micros(after.saturating_sub(before)));
    outcome.size = watchers.story.size();
    if let Some(what) = &outcome.what {
        outcome.story = watchers.story.tell(what, &trace.recent());
        outcome.story.extend(panics);
    }
    if let (Some(path), Some(timeline)) = (&command.timeline, watchers.timeline) {
        super::write_file(path, &timeline.page(&outcome))?;
    }
    Ok(outcome)
}

fn trace_of(command: &Run) -> io::Result<Trace> {
    let everything = command.trace.is_some() || command.full_hash;
    let mut trace = Trace::new(if everything { Detail::Everything } else { Detail::Notes });
    if let Some(path) = &command.trace {
        trace = trace.to_file(path)?;
    }
    if everything {
        tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_env_filter(EnvFilter::new(LOG_LINES))
            .with_writer(LogLines(trace.clone()))
            .init();
    }
    Ok(trace)
}

/// Everything that panics from here on, with the place; it goes to standard error as usual, too.
fn watch_panics() -> Arc<Mutex<Vec<String>>> {
    let panics: Arc<Mutex<Vec<String>>> = Arc::default();
    let (seen, usual) = (panics.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        let mut seen = seen.lock();
        // One panic may bring on others without end; the first ones tell the cause.
        if seen.len() < 10 {
            seen.push(panic.to_string());
        }
    }));
    panics
}

struct Watchers {
    story: Story,
    timeline: Option<Timeline>,
}

impl Watcher for Watchers {
    fn step(&mut self, world: &World) {
        self.story.step(world);
        if let Some(timeline) = &mut self.timeline {
            timeline.step(world);
        }
    }

    fn event(&mut self, event: &Event) {
        self.story.event(event);
        if let Some(timeline) = &mut self.timeline {
            timeline.event(event);
        }
    }

    fn fault(&mut self, at_us: u64, kind: &str, what: &str, until_us: Option<u64>) {
        self.story.fault(at_us, kind, what, until_us);
        if let Some(timeline) = &mut self.timeline {
            timeline.fault(at_us, kind, what, until_us);
        }
    }
}
