//! `strandline bench latency`: one record after another through the whole cluster, timed on both ways out.

use super::cpu::CpuTime;
use super::produce::{Shared, name_of, time};
use super::report::{Report, Times};
use super::source::{Payload, Schedule};
use super::{LatencyArgs, Target};
use crate::cli::Global;
use crate::commands::connect;
use crate::exit::{Exit, Failure};
use crate::output::{Output, human_ms};
use crate::signals::Signals;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use strandline_client::{AutoOffsetReset, Consumer, OffsetSpec, Producer, Record, TopicPartition};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bytes at the start of a value that hold the record's number.
const NUMBER_BYTES: usize = 8;
/// How long acknowledged records may take to arrive after the last was sent.
const ARRIVE_WITHIN: Duration = Duration::from_secs(10);
const DRAW_EVERY: Duration = Duration::from_millis(500);

pub async fn run(args: &LatencyArgs, global: &Global, out: Output) -> Result<(), Failure> {
    let size = usize::try_from(args.size).ok().filter(|size| *size >= NUMBER_BYTES);
    let size = size.ok_or_else(|| Failure::usage(format_args!("--size must be at least {NUMBER_BYTES}")))?;
    let mut signals = Signals::listen().map_err(|error| Failure::new(Exit::Failure, error))?;
    let client = connect(global).await?;
    let target = Target::prepare(&client.admin(), &args.topic).await?;
    let producer = client.producer().acks(args.acks).linger(Duration::ZERO).build()?;
    let consumer = at_the_end(&client, &target).await?;

    let shared = Arc::new(Shared::default());
    let cpu = CpuTime::now(&args.cpu)?;
    let begun = Instant::now();
    let interval = Duration::from_secs_f64(1.0 / args.rate as f64);
    let (samples, timed) = mpsc::unbounded_channel();
    let timing = tokio::spawn(time(timed, shared.clone()));
    let arrivals = Arrivals { begun, interval, shared: shared.clone(), times: Times::new() };
    let receiving = tokio::spawn(arrivals.run(consumer, out));
    let sending = send(args, &producer, target.partitions, size, begun, &samples, &shared);
    let sent = tokio::select! {
        biased;
        // What was measured up to here is worth showing.
        _ = signals.next() => Ok(()),
        sent = sending => sent,
    };
    drop(samples);
    producer.close().await?;
    let (acknowledged, first_error) = timing.await.map_err(|error| Failure::new(Exit::Failure, error))?;
    let seconds = begun.elapsed().as_secs_f64();
    shared.stop.store(true, Relaxed);
    let arrived = receiving.await.map_err(|error| Failure::new(Exit::Failure, error))??;
    sent?;
    let records = shared.acknowledged.load(Relaxed);
    let bytes = records * args.size;
    let report = Report {
        benchmark: "latency",
        target,
        acks: Some(name_of(args.acks)),
        record_bytes: args.size,
        records,
        bytes,
        seconds,
        records_per_second: records as f64 / seconds,
        bytes_per_second: bytes as f64 / seconds,
        failed: shared.failed.load(Relaxed),
        latency: BTreeMap::from([
            ("acknowledged", acknowledged.quantiles()),
            ("arrived", arrived.quantiles()),
        ]),
        cpu: cpu.used_since(&args.cpu, bytes)?,
    };
    report.show(out)?;
    first_error.map_or(Ok(()), |error| Err(error.into()))
}

/// A consumer that will get every record produced from now on.
async fn at_the_end(client: &strandline_client::Client, target: &Target) -> Result<Consumer, Failure> {
    let all: Vec<_> =
        (0..target.partitions as i32).map(|p| TopicPartition::new(target.topic.as_str(), p)).collect();
    let latest = all.iter().map(|tp| (tp.clone(), OffsetSpec::Latest)).collect::<Vec<_>>();
    let ends = client.admin().list_offsets(latest).await?;
    let consumer = client.consumer().auto_offset_reset(AutoOffsetReset::Latest).build()?;
    consumer.assign(all)?;
    for (tp, end) in ends {
        consumer.seek(&tp, OffsetSpec::Offset(end.offset.unwrap_or(0)))?;
    }
    Ok(consumer)
}

async fn send(
    args: &LatencyArgs,
    producer: &Producer,
    partitions: usize,
    size: usize,
    begun: Instant,
    samples: &mpsc::UnboundedSender<(Instant, strandline_client::DeliveryHandle)>,
    shared: &Shared,
) -> Result<(), Failure> {
    let topic: Arc<str> = args.topic.topic.as_str().into();
    let mut payload = Payload::new(size - NUMBER_BYTES);
    let mut schedule = Schedule::new(begun, Some(args.rate as f64));
    for number in 0_u64.. {
        let due = schedule.next().await;
        if due >= begun + args.duration || shared.stop.load(Relaxed) {
            break;
        }
        // Round the partitions, so that every leader and every pair of followers is in the figures.
        let partition = (number % partitions as u64) as i32;
        let record = Record::to(topic.clone()).partition(partition).value(numbered(number, &payload.next()));
        let handle = producer.send(record).await?;
        let _ = samples.send((due, handle));
    }
    Ok(())
}

fn numbered(number: u64, rest: &[u8]) -> Bytes {
    let mut value = BytesMut::with_capacity(NUMBER_BYTES + rest.len());
    value.put_u64(number);
    value.put_slice(rest);
    value.freeze()
}

/// The consumer's side: each record tells its number, and with that when it was due.
struct Arrivals {
    begun: Instant,
    interval: Duration,
    shared: Arc<Shared>,
    times: Times,
}

impl Arrivals {
    /// Ends when everything that was acknowledged has arrived, after sending has stopped.
    async fn run(mut self, mut consumer: Consumer, out: Output) -> Result<Times, Failure> {
        let bar = out.progress(None);
        let mut drawn = self.begun;
        let mut arrived = 0;
        let mut give_up = None;
        loop {
            for record in consumer.poll(1024, Duration::from_millis(50)).await? {
                let now = Instant::now();
                let number = record.value.as_deref().and_then(|value| value.first_chunk::<NUMBER_BYTES>());
                let Some(number) = number.map(|bytes| u64::from_be_bytes(*bytes)) else { continue };
                let due = self.begun + Duration::from_secs_f64(self.interval.as_secs_f64() * number as f64);
                self.times.record(now.saturating_duration_since(due));
                arrived += 1;
            }
            if drawn.elapsed() >= DRAW_EVERY {
                drawn = Instant::now();
                if let Some(q) = self.times.quantiles() {
                    bar.set_message(format!(
                        "arrived: p50 {}, p99 {}",
                        human_ms(q.p50_ms),
                        human_ms(q.p99_ms)
                    ));
                }
            }
            if self.shared.stop.load(Relaxed) {
                let give_up = *give_up.get_or_insert_with(|| Instant::now() + ARRIVE_WITHIN);
                if arrived >= self.shared.acknowledged.load(Relaxed) || Instant::now() >= give_up {
                    break;
                }
            }
        }
        bar.finish_and_clear();
        consumer.close().await?;
        Ok(self.times)
    }
}
