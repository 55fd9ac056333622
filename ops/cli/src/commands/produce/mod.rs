//! `strandline produce`: lines of standard input become records.
//!
//! ```text
//! stdin ─▶ [lines] a thread: blocks of whole lines ─▶ send, in order ─▶ [tally] results, in order
//! ```
//!
//! Lines with one key go to one partition in the order in which they were read. Retries are the SDK's, and
//! idempotent (with `--acks all`): a line is in the topic once. The first line whose delivery fails ends the
//! reading (unless `--keep-going`), so that what is in the topic is what was read up to there, but for what was
//! in flight just then.

mod lines;
mod tally;

use super::connect;
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::{Output, grouped, human_bytes};
use crate::producer_args::ProducerArgs;
use crate::signals::{Signals, Stop};
use bytes::Bytes;
use lines::{Block, Splitter};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{DeliveryHandle, ErrorKind, Producer, Record};
use tally::{Counts, Tally};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Blocks read ahead of the producer.
const BLOCKS_AHEAD: usize = 4;
/// After an interruption, how long to wait for what is in flight.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// Produce a record for each line of standard input
///
/// The line end is not part of the record; every other byte is. A topic that does not exist is created if the cluster
/// allows that (auto.create.topics.enable). Prints a summary at the end. Exits with 0 only if every line was
/// acknowledged: with 5 if the outcome of some is unknown, else with what the first failure means.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
    seq 1000 | strandline produce numbers
    strandline produce orders --key-separator ':' --compression zstd < orders.txt
    strandline produce orders --partition 3 --acks leader < lines.txt
    strandline produce orders --json < lines.txt | jq .records_per_second")]
pub struct ProduceArgs {
    /// Topic
    pub topic: String,
    /// What stands before it in a line is the key, what follows the value; a line without it has no key
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub key_separator: Option<String>,
    /// Everything into this partition; by default the key decides, and lines without one are spread
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Go on after a line that failed for certain, or whose outcome is unknown
    #[arg(long)]
    pub keep_going: bool,
    #[command(flatten)]
    pub producer: ProducerArgs,
}

pub async fn run(args: ProduceArgs, global: &Global, out: Output) -> Result<(), Failure> {
    let mut signals = Signals::listen().map_err(|error| Failure::new(Exit::Failure, error))?;
    let client = connect(global).await?;
    let producer = args.producer.build(&client)?;
    // An unknown topic shows before anything is read.
    let topic = producer.topic(&args.topic).await?;
    if let Some(partition) = args.partition
        && partition as usize >= topic.partitions.len()
    {
        return Err(super::no_partition(&args.topic, partition, topic.partitions.len()));
    }
    let (tally, counts, tallying) = Tally::start(args.keep_going);
    let begun = Instant::now();
    let progress = tally::show_progress(&counts, out, begun);

    let (sender, mut blocks) = mpsc::channel(BLOCKS_AHEAD);
    lines::read_in_background(std::io::stdin(), sender);
    let splitter = Splitter::new(args.key_separator.as_deref().map(str::as_bytes));
    let mut sent = Vec::new();
    let sending = send_all(&producer, &args, &splitter, &mut blocks, &tally, &mut sent);
    let stopped = tokio::select! {
        biased;
        stop = signals.next() => Some(stop),
        done = sending => {
            if let Err(failure) = done {
                counts.note(failure);
            }
            None
        }
    };
    tally.sent(&mut sent).await;
    drop(tally);
    if stopped.is_none() {
        // What lingers is sent, what is in flight is awaited, for as long as the delivery timeout allows.
        tokio::select! {
            biased;
            stop = signals.next() => return Err(interrupted(stop, &counts)),
            closed = producer.close() => closed?,
        }
    } else if tokio::time::timeout(FINISH_WITHIN, producer.close()).await.is_err() {
        out.remark("gave up waiting for what is in flight");
    }
    let _ = tokio::time::timeout(FINISH_WITHIN, tallying).await;
    progress.finish();
    summary(&counts, begun.elapsed(), stopped, out)
}

/// Sends every line of every block; ends early when the tally has seen enough. May be dropped at any point: what
/// was sent and not handed to the tally yet is in `sent`.
async fn send_all(
    producer: &Producer,
    args: &ProduceArgs,
    splitter: &Splitter,
    blocks: &mut mpsc::Receiver<Block>,
    tally: &Tally,
    sent: &mut Vec<(DeliveryHandle, usize)>,
) -> Result<(), Failure> {
    let topic: Arc<str> = args.topic.as_str().into();
    while let Some(block) = blocks.recv().await {
        let block = block.map_err(|error| {
            Failure::new(Exit::Failure, format_args!("cannot read standard input: {error}"))
        })?;
        for (key, value) in splitter.split(&block) {
            if tally.is_over() {
                return Ok(());
            }
            let bytes = key.as_ref().map_or(0, Bytes::len) + value.len();
            match producer.send(record(&topic, args.partition, key, value)).await {
                Ok(handle) => sent.push((handle, bytes)),
                // Only this record is at fault; whatever comes next may go.
                Err(error) if *error.kind() == ErrorKind::RecordTooLarge && args.keep_going => {
                    tally.refused(error)
                }
                Err(error) => {
                    tally.refused(error);
                    return Ok(());
                }
            }
        }
        tally.sent(sent).await;
    }
    Ok(())
}

fn record(topic: &Arc<str>, partition: Option<i32>, key: Option<Bytes>, value: Bytes) -> Record {
    let mut record = Record::to(topic.clone()).value(value);
    if let Some(key) = key {
        record = record.key(key);
    }
    if let Some(partition) = partition {
        record = record.partition(partition);
    }
    record
}

fn interrupted(stop: Stop, counts: &Counts) -> Failure {
    let (sent, acked) = (counts.sent(), counts.acknowledged());
    let code = stop.exit_code();
    Failure::interrupted(format_args!(
        "interrupted ({code}) while {} records were in flight; {acked} were acknowledged, the outcome of the others is unknown",
        sent.saturating_sub(acked)
    ))
}

fn summary(counts: &Counts, elapsed: Duration, stopped: Option<Stop>, out: Output) -> Result<(), Failure> {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let (records, bytes) = (counts.acknowledged(), counts.bytes());
    let (failed, unknown) = (counts.failed(), counts.unknown());
    let unsettled = counts.sent().saturating_sub(records + failed + unknown);
    let unknown = unknown + unsettled;
    let first_error = counts.first_error();
    let document = json!({
        "records": records, "bytes": bytes, "seconds": seconds,
        "records_per_second": records as f64 / seconds, "bytes_per_second": bytes as f64 / seconds,
        "failed": failed, "unknown": unknown, "first_error": first_error.as_ref().map(|failure| &failure.message),
        "interrupted": stopped.is_some(),
    });
    out.show(&document, || {
        let mut text = format!(
            "{} records, {} in {seconds:.2} s: {} records/s, {}/s",
            grouped(records),
            human_bytes(bytes as f64),
            grouped((records as f64 / seconds) as u64),
            human_bytes(bytes as f64 / seconds)
        );
        for (count, what) in [(failed, "failed (not in the topic)"), (unknown, "with unknown outcome")] {
            if count > 0 {
                text.push_str(&format!("\n{} {what}", grouped(count)));
            }
        }
        text
    })?;
    if let Some(failure) = first_error {
        // One line of unknown outcome outweighs any number that failed for certain.
        let exit = if unknown > 0 { Exit::OutcomeUnknown } else { failure.exit };
        return Err(failure.with_exit(exit).context("not everything was written"));
    }
    match stopped {
        Some(stop) => Err(Failure::interrupted(format_args!(
            "interrupted ({}): what was read is written, the rest of the input was not read",
            stop.exit_code()
        ))),
        None if unknown > 0 => Err(Failure::new(Exit::OutcomeUnknown, "some records were not settled")),
        None => Ok(()),
    }
}
