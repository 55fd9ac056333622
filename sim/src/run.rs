//! One run: a cluster and its clients drawn from the seed, a phase with faults, a phase in which everything must come
//! right again, and the oracle's judgement.
//!
//! ```text
//!   form ─▶ topics ─▶ clients ─▶ faults … ─▶ heal ─▶ converge (I19) ─▶ clients end ─▶ all is read back ─▶ finish
//! ```

use crate::draw::draw_cast;
use crate::faults::FaultCounters;
use crate::faults::plan::{self, Scope};
use crate::history::{Event, Outcome, What};
use crate::invariants::i19_liveness::identical;
use crate::scenarios::{self, Scenario};
use crate::seeds::Seed;
use crate::stage::Stage;
use crate::trace::Trace;
use crate::watch::Watcher;
use crate::world::Failure;
use std::collections::VecDeque;
use std::time::Duration;

/// What a run is to be. Everything else follows from it.
#[derive(Clone, Debug)]
pub struct RunOptions {
    pub seed: u64,
    /// A named scenario; free exploration without one.
    pub scenario: Option<String>,
    /// Simulated time of the fault phase of an exploration; healing comes on top. Scenarios have their own.
    pub faulty_for: Duration,
    pub trace: Trace,
    /// For shrinking: at most so many nodes, clients and faults of what the seed would draw.
    pub limits: Limits,
}

/// Upper bounds on what a seed draws. What lies within is drawn as without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub nodes: usize,
    pub clients: usize,
    /// The first so many faults happen.
    pub faults: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { nodes: usize::MAX, clients: usize::MAX, faults: usize::MAX }
    }
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct RunReport {
    pub failure: Option<Failure>,
    /// When, in simulated microseconds, it ended.
    pub ended_us: u64,
    pub faults: FaultCounters,
    pub work: WorkCounters,
    /// Hash of the trace and its number of lines.
    pub trace: (u64, u64),
}

/// What the clients achieved: a run in which nothing was acknowledged shows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkCounters {
    pub sent: u64,
    pub acknowledged: u64,
    pub failed: u64,
    pub unknown: u64,
    pub read: u64,
    pub commits: u64,
    pub rebalances: u64,
}

impl WorkCounters {
    pub fn count(&mut self, event: &Event) {
        match &event.what {
            What::Send { .. } => self.sent += 1,
            What::Sent { outcome: Outcome::Acknowledged(_), .. } => self.acknowledged += 1,
            What::Sent { outcome: Outcome::Failed(_), .. } => self.failed += 1,
            What::Sent { outcome: Outcome::Unknown(_), .. } => self.unknown += 1,
            What::Read { .. } => self.read += 1,
            What::Committed { outcome: Outcome::Acknowledged(()), .. } => self.commits += 1,
            What::Assigned { .. } => self.rebalances += 1,
            _ => {}
        }
    }

    pub fn add(&mut self, other: &WorkCounters) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.read += other.read;
        self.commits += other.commits;
        self.rebalances += other.rebalances;
    }
}

/// Carries a run out, from its seed to its report.
pub fn run(options: RunOptions, watcher: &mut dyn Watcher) -> RunReport {
    let seed = Seed::new(options.seed);
    let scenario = match options.scenario.as_deref().map(|name| (name, scenarios::named(name))) {
        None => None,
        Some((_, Some(scenario))) => Some(scenario),
        Some((name, None)) => panic!("there is no scenario {name:?}"),
    };
    let mut cast = draw_cast(seed.fork("cast"), options.limits);
    if let Some(scenario) = scenario {
        (scenario.cast)(&mut cast);
    }
    let mut stage = Stage::new(seed, options.trace.clone(), cast, watcher);
    let failure = whole(&mut stage, &options, scenario).err();
    if let Some(failure) = &failure {
        options.trace.note("run", format_args!("{failure}"));
    }
    RunReport {
        failure,
        ended_us: stage.world.now_us(),
        faults: stage.injector.counters().clone(),
        work: stage.work,
        trace: options.trace.hash(),
    }
}

/// Followers hear of the last high watermark, and images of the last index, within this when nobody writes any more.
const LEVELLING: Duration = Duration::from_secs(30);

fn whole(
    stage: &mut Stage<'_>,
    options: &RunOptions,
    scenario: Option<&'static Scenario>,
) -> Result<(), Failure> {
    stage.form()?;
    stage.make_topics()?;
    stage.start_clients();
    match scenario {
        Some(scenario) => scenario.perform(stage)?,
        None => explore(stage, options)?,
    }
    stage.heal();
    stage.converge()?;
    // Some more work, undisturbed: all of it must succeed.
    stage.work_undisturbed()?;
    stage.bell.ring();
    stage.let_clients_end()?;
    stage.refused_none()?;
    stage.read_back()?;
    stage.until(LEVELLING, "the replicas are not identical", |stage| identical(stage.world.views()))?;
    stage.world.finish()
}

/// Faults that destroy data and wait for their time.
const MOST_WAITING: usize = 8;
/// So often is looked whether it has come.
const LOOK_US: u64 = 20_000;

/// Whatever the seed has drawn.
fn explore(stage: &mut Stage<'_>, options: &RunOptions) -> Result<(), Failure> {
    let scope = Scope { faulty_us: options.faulty_for.as_micros() as u64, nodes: stage.cast.nodes };
    let mut faults = plan::draw(Seed::new(options.seed).fork("faults"), scope);
    faults.truncate(options.limits.faults);
    let begun = stage.world.now_us();
    let mut faults = faults.into_iter().peekable();
    // What destroys data waits until every partition has all its copies.
    let mut waiting = VecDeque::new();
    let mut look_at = begun;
    while stage.world.now_us() < begun + scope.faulty_us {
        let now = stage.world.now_us();
        while let Some(planned) = faults.next_if(|planned| begun + planned.at_us <= now) {
            if stage.inject(&planned).is_none() && planned.kind.destroys() && waiting.len() < MOST_WAITING {
                waiting.push_back(planned);
            }
        }
        if now >= look_at {
            look_at = now + LOOK_US;
            if let Some(first) = waiting.pop_front()
                && stage.inject(&first).is_none()
            {
                // Not in front of the others: one may have to wait for long.
                waiting.push_back(first);
            }
        }
        stage.step()?;
    }
    Ok(())
}
