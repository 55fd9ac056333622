//! `strandline bench consume`.

use super::cpu::CpuTime;
use super::report::{Report, Times};
use super::{ConsumeArgs, Target};
use crate::cli::Global;
use crate::commands::connect;
use crate::exit::{Exit, Failure};
use crate::output::{Output, grouped, human_bytes};
use crate::signals::Signals;
use std::collections::BTreeMap;
use std::time::Duration;
use strandline_client::{AutoOffsetReset, Consumer, OffsetSpec, TopicPartition};
use tokio::time::Instant;

/// Records taken at once at most.
const RECORDS_AT_ONCE: usize = 4096;
/// How often to look whether the end is reached although nothing comes.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often the live figures change.
const DRAW_EVERY: Duration = Duration::from_millis(500);

pub async fn run(args: &ConsumeArgs, global: &Global, out: Output) -> Result<(), Failure> {
    let mut signals = Signals::listen().map_err(|error| Failure::new(Exit::Failure, error))?;
    let client = connect(global).await?;
    let admin = client.admin();
    let target = Target::find(&admin, &args.topic).await?;
    let all: Vec<_> =
        (0..target.partitions as i32).map(|p| TopicPartition::new(args.topic.as_str(), p)).collect();
    let latest = all.iter().map(|tp| (tp.clone(), OffsetSpec::Latest)).collect::<Vec<_>>();
    let ends = admin.list_offsets(latest).await?;
    let ends: BTreeMap<TopicPartition, i64> = ends
        .into_iter()
        .map(|(tp, listed)| (tp, listed.offset.unwrap_or(0)))
        .filter(|(_, end)| *end > 0)
        .collect();
    if ends.is_empty() {
        return Err(Failure::new(Exit::NotFound, format_args!("{} holds no records", args.topic))
            .hint("strandline bench produce fills it"));
    }
    let mut consumer = client.consumer().auto_offset_reset(AutoOffsetReset::Earliest).build()?;
    consumer.assign(all)?;

    let mut reading = Reading { ends, records: 0, bytes: 0, waits: Times::new() };
    let cpu = CpuTime::now(&args.cpu)?;
    let begun = Instant::now();
    tokio::select! {
        biased;
        // What was measured up to here is worth showing.
        _ = signals.next() => {}
        read = reading.run(&mut consumer, begun, args.duration, out) => read?,
    }
    let seconds = begun.elapsed().as_secs_f64();
    consumer.close().await?;
    let Reading { records, bytes, waits, .. } = reading;
    let report = Report {
        benchmark: "consume",
        target,
        acks: None,
        record_bytes: bytes.checked_div(records).unwrap_or(0),
        records,
        bytes,
        seconds,
        records_per_second: records as f64 / seconds,
        bytes_per_second: bytes as f64 / seconds,
        failed: 0,
        latency: BTreeMap::from([("waited", waits.quantiles())]),
        cpu: cpu.used_since(&args.cpu, bytes)?,
    };
    report.show(out)
}

struct Reading {
    /// Partitions of which the end has not been reached.
    ends: BTreeMap<TopicPartition, i64>,
    records: u64,
    bytes: u64,
    /// How long the consumer let us wait for the next records.
    waits: Times,
}

impl Reading {
    async fn run(
        &mut self,
        consumer: &mut Consumer,
        begun: Instant,
        duration: Duration,
        out: Output,
    ) -> Result<(), Failure> {
        let bar = out.progress(None);
        let (mut drawn, mut before) = (begun, 0);
        while !self.ends.is_empty() && begun.elapsed() < duration {
            let asked = Instant::now();
            let records = consumer.poll(RECORDS_AT_ONCE, LOOK_EVERY).await?;
            self.waits.record(asked.elapsed());
            for record in &records {
                let length =
                    |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                self.bytes += length(&record.key) + length(&record.value);
            }
            self.records += records.len() as u64;
            match records.last() {
                Some(last) => {
                    let tp = last.topic_partition();
                    if self.ends.get(&tp).is_some_and(|end| last.offset + 1 >= *end) {
                        self.ends.remove(&tp);
                    }
                }
                None => {
                    self.ends.retain(|tp, end| consumer.position(tp).is_none_or(|position| position < *end))
                }
            }
            if drawn.elapsed() >= DRAW_EVERY {
                let rate = (self.bytes - before) as f64 / drawn.elapsed().as_secs_f64();
                bar.set_message(format!("{} records, {}/s", grouped(self.records), human_bytes(rate)));
                (drawn, before) = (Instant::now(), self.bytes);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }
}
