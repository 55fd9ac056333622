//! `strandline bench produce`.

use super::cpu::CpuTime;
use super::report::{Report, Times};
use super::source::{Payload, Schedule};
use super::{ProduceArgs, Target};
use crate::cli::Global;
use crate::commands::connect;
use crate::exit::{Exit, Failure};
use crate::output::{Output, grouped, human_bytes};
use crate::signals::Signals;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use strandline_client::{Acks, DeliveryHandle, Error, Producer, Record};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// One record in this time is timed, for each producer: enough for the quantiles, and no load.
const SAMPLE_EVERY: Duration = Duration::from_micros(100);
/// Results handed over at once.
const RESULTS_AT_ONCE: usize = 512;

/// Shared by the producers of one run.
#[derive(Default)]
pub struct Shared {
    pub acknowledged: AtomicU64,
    pub failed: AtomicU64,
    /// Nothing more is to be sent.
    pub stop: AtomicBool,
}

pub async fn run(args: &ProduceArgs, global: &Global, out: Output) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let target = Target::prepare(&admin, &args.topic).await?;
    let mut signals = Signals::listen().map_err(|error| Failure::new(Exit::Failure, error))?;
    let size = usize::try_from(args.size).map_err(|_| Failure::usage("--size is too large"))?;

    let mut producers = Vec::new();
    for _ in 0..args.producers {
        producers.push(args.producer.build(&connect(global).await?)?);
    }
    let shared = Arc::new(Shared::default());
    let cpu = CpuTime::now(&args.cpu)?;
    let begun = Instant::now();
    let share = |total: u64, i: u64| total / args.producers + u64::from(i < total % args.producers);
    let tasks: Vec<_> = producers
        .into_iter()
        .zip(0..)
        .map(|(producer, i)| {
            let one = One {
                producer,
                topic: args.topic.topic.as_str().into(),
                payload: Payload::new(size),
                // Other keys than those of another producer, and of an earlier run.
                next_key: args.unique_keys.then(|| u128::from(rand::random::<u64>()) << 64),
                schedule: Schedule::new(begun, args.rate.map(|rate| rate as f64 / args.producers as f64)),
                until: begun + args.duration,
                records: args.records.map_or(u64::MAX, |records| share(records, i)),
                shared: shared.clone(),
            };
            tokio::spawn(one.run())
        })
        .collect();

    let progress = draw(out, &shared, args.size, begun, args.duration);
    let mut times = Times::new();
    let mut first_error = None;
    let mut finished = futures::future::join_all(tasks);
    let results = loop {
        tokio::select! {
            biased;
            _ = signals.next() => {
                if shared.stop.swap(true, Relaxed) {
                    return Err(Failure::interrupted("interrupted"));
                }
            }
            results = &mut finished => break results,
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    for result in results {
        let (of_one, error) = result.map_err(|error| Failure::new(Exit::Failure, error))?;
        times.merge(&of_one);
        first_error = first_error.or(error);
    }
    progress.finish_and_clear();
    let records = shared.acknowledged.load(Relaxed);
    let bytes = records * args.size;
    let report = Report {
        benchmark: "produce",
        target,
        acks: Some(name_of(args.producer.acks)),
        record_bytes: args.size,
        records,
        bytes,
        seconds,
        records_per_second: records as f64 / seconds,
        bytes_per_second: bytes as f64 / seconds,
        failed: shared.failed.load(Relaxed),
        latency: BTreeMap::from([("acknowledged", times.quantiles())]),
        cpu: cpu.used_since(&args.cpu, bytes)?,
    };
    report.show(out)?;
    match first_error {
        Some(error) => Err(Failure::from(error).context("not every record was acknowledged")),
        None => Ok(()),
    }
}

pub fn name_of(acks: Acks) -> &'static str {
    match acks {
        Acks::All => "all",
        Acks::Leader => "leader",
        Acks::None => "none",
    }
}

/// One producer with its sending, counting and timing.
struct One {
    producer: Producer,
    topic: Arc<str>,
    payload: Payload,
    next_key: Option<u128>,
    schedule: Schedule,
    until: Instant,
    records: u64,
    shared: Arc<Shared>,
}

impl One {
    /// Times of the sampled records, and the first error.
    async fn run(mut self) -> (Times, Option<Error>) {
        let (results, inbox) = mpsc::channel(1024);
        let (samples, timed) = mpsc::unbounded_channel();
        let counting = tokio::spawn(count(inbox, self.shared.clone()));
        let timing = tokio::spawn(time(timed, self.shared.clone()));
        let refused = self.send(&results, &samples).await.err();
        drop((results, samples));
        let closed = self.producer.close().await.err();
        let (times, late) = timing.await.expect("the timing task does not panic");
        let failed = counting.await.expect("the counting task does not panic");
        (times, refused.or(failed).or(late).or(closed))
    }

    async fn send(
        &mut self,
        results: &mpsc::Sender<Vec<DeliveryHandle>>,
        samples: &mpsc::UnboundedSender<(Instant, DeliveryHandle)>,
    ) -> Result<(), Error> {
        let mut handles = Vec::with_capacity(RESULTS_AT_ONCE);
        let mut next_sample = Instant::now();
        let mut left = self.records;
        while left > 0 && !self.shared.stop.load(Relaxed) {
            let due = self.schedule.next().await;
            if due >= self.until {
                break;
            }
            let mut record = Record::to(self.topic.clone()).value(self.payload.next());
            if let Some(key) = &mut self.next_key {
                record = record.key(key.to_be_bytes().to_vec());
                *key += 1;
            }
            let handle = self.producer.send(record).await?;
            left -= 1;
            if due >= next_sample {
                next_sample = due + SAMPLE_EVERY;
                // The timing task is there until this side is dropped; it counts the record too.
                let _ = samples.send((due, handle));
            } else {
                handles.push(handle);
            }
            if handles.len() == RESULTS_AT_ONCE {
                let full = std::mem::replace(&mut handles, Vec::with_capacity(RESULTS_AT_ONCE));
                let _ = results.send(full).await;
            }
        }
        let _ = results.send(handles).await;
        Ok(())
    }
}

impl Shared {
    fn settled(&self, result: Result<strandline_client::Delivery, Error>, first_error: &mut Option<Error>) {
        match result {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Relaxed);
            }
            Err(error) => {
                self.failed.fetch_add(1, Relaxed);
                // A cluster that fails records is not being measured any more.
                self.stop.store(true, Relaxed);
                first_error.get_or_insert(error);
            }
        }
    }
}

/// Counts results in the order of sending.
async fn count(mut inbox: mpsc::Receiver<Vec<DeliveryHandle>>, shared: Arc<Shared>) -> Option<Error> {
    let mut first_error = None;
    while let Some(handles) = inbox.recv().await {
        for handle in handles {
            shared.settled(handle.await, &mut first_error);
        }
    }
    first_error
}

/// Times each sampled record when it is settled, whatever the order.
pub async fn time(
    mut samples: mpsc::UnboundedReceiver<(Instant, DeliveryHandle)>,
    shared: Arc<Shared>,
) -> (Times, Option<Error>) {
    let (mut times, mut first_error) = (Times::new(), None);
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            biased;
            Some((due, result)) = waiting.next() => {
                let due: Instant = due;
                times.record(due.elapsed());
                shared.settled(result, &mut first_error);
            }
            sample = samples.recv(), if open => match sample {
                Some((due, handle)) => waiting.push(async move { (due, handle.await) }),
                None => open = false,
            },
        }
    }
    (times, first_error)
}

/// Live figures on the terminal.
fn draw(
    out: Output,
    shared: &Arc<Shared>,
    size: u64,
    begun: Instant,
    duration: Duration,
) -> indicatif::ProgressBar {
    let bar = out.progress(None);
    let (drawn, shared) = (bar.clone(), shared.clone());
    tokio::spawn(async move {
        let mut before = 0;
        let mut at = begun;
        while !drawn.is_finished() {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let records = shared.acknowledged.load(Relaxed);
            let rate = (records - before) as f64 / at.elapsed().as_secs_f64();
            (before, at) = (records, Instant::now());
            drawn.set_message(format!(
                "of {:.0} s: {} records/s, {}/s",
                duration.as_secs_f64(),
                grouped(rate as u64),
                human_bytes(rate * size as f64)
            ));
        }
    });
    bar
}
