//! `strandline consume`: records of a topic to standard output.
//!
//! What has been handed out counts as processed when the consumer is asked for more (the SDK's rule); this command
//! asks for more only after the records before are written to standard output. So a group's committed offsets
//! never run ahead of the output.

use super::connect;
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::position::{self, Position};
use crate::record_format::{self, RecordFormat};
use crate::signals::Signals;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;
use strandline_client::{
    AutoOffsetReset, Client, Consumer, ConsumerRecord, ErrorKind, OffsetSpec, TopicPartition,
};
use tokio::time::Instant;

/// Records written at once at most.
const RECORDS_AT_ONCE: usize = 4096;
/// How often to look whether the end is reached although nothing comes.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A group member that gets no partition for this long will not get one.
const NO_PARTITION_FOR: Duration = Duration::from_secs(10);

/// Write the records of a topic to standard output
///
/// Goes on with new records as they come, until Ctrl-C, unless --exit-at-end or --max-messages ends it. Without a
/// group it reads every partition from --from. With a group it becomes a member, gets a share of the partitions,
/// goes on where the group has committed, and commits what it has written.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
    strandline consume orders
    strandline consume orders --from earliest --exit-at-end --format '%p %o %k %v'
    strandline consume orders --from 2026-01-31T12:00:00Z --partition 3 --max-messages 10
    strandline consume orders --group billing
    strandline consume orders --exit-at-end --json | jq -r .key")]
pub struct ConsumeArgs {
    /// Topic
    pub topic: String,
    /// Read as a member of this group, and commit what was written
    #[arg(long, value_name = "G")]
    pub group: Option<String>,
    #[arg(
        long,
        value_name = "WHERE",
        default_value = "earliest",
        help = format!(
            "Where to begin: {}. With a group, only where that has committed nothing: `earliest` or `latest`",
            position::HELP
        )
    )]
    pub from: Position,
    /// Only this partition; may be repeated. With a group: without membership, but with its offsets
    #[arg(long = "partition", value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partitions: Vec<i32>,
    /// End after so many records
    #[arg(long, value_name = "N")]
    pub max_messages: Option<u64>,
    /// End when everything that was there at the start has been read
    #[arg(long)]
    pub exit_at_end: bool,
    #[arg(
        long,
        value_name = "FORMAT",
        help = format!("What to write of each record, before a line end [default: %v]: {}", record_format::HELP)
    )]
    pub format: Option<RecordFormat>,
}

pub async fn run(args: ConsumeArgs, global: &Global, out: Output) -> Result<(), Failure> {
    let mut signals = Signals::listen().map_err(|error| Failure::new(Exit::Failure, error))?;
    let writer = Writer::new(&args, out)?;
    let client = connect(global).await?;
    let partitions = partitions(&args, client.topic(&args.topic).await?.partitions.len())?;
    let ends = if args.exit_at_end { Ends::ask(&client, &partitions).await? } else { Ends::none() };
    let mut consumer = start(&args, &client, &partitions)?;
    let followed = !args.exit_at_end && args.max_messages.is_none();

    let read = tokio::select! {
        biased;
        stop = signals.next() => match followed {
            // Nothing else ends it: this is how it is meant to end.
            true => Ok(()),
            false => Err(Failure::interrupted(format_args!("interrupted ({}) before the end", stop.exit_code()))),
        },
        read = read(&args, &mut consumer, ends, writer, out) => read,
    };
    // Commits what was written and leaves the group; a second signal does not wait for that.
    let closed = tokio::select! {
        biased;
        _ = signals.next() => return Err(Failure::interrupted("interrupted before the last commit")),
        closed = consumer.close() => closed,
    };
    read?;
    Ok(closed?)
}

fn partitions(args: &ConsumeArgs, count: usize) -> Result<Vec<TopicPartition>, Failure> {
    let number = i32::try_from(count).unwrap_or(i32::MAX);
    if let Some(wrong) = args.partitions.iter().find(|p| **p >= number) {
        return Err(super::no_partition(&args.topic, *wrong, count));
    }
    let numbers = if args.partitions.is_empty() { (0..number).collect() } else { args.partitions.clone() };
    Ok(numbers.into_iter().map(|p| TopicPartition::new(args.topic.as_str(), p)).collect())
}

fn start(args: &ConsumeArgs, client: &Client, partitions: &[TopicPartition]) -> Result<Consumer, Failure> {
    let builder = client.consumer();
    let Some(group) = &args.group else {
        // An offset that retention removed is said, not skipped over.
        let consumer = builder.auto_offset_reset(AutoOffsetReset::Error).build()?;
        consumer.assign(partitions.to_vec())?;
        for tp in partitions {
            consumer.seek(tp, args.from.0)?;
        }
        return Ok(consumer);
    };
    let reset = match args.from.0 {
        OffsetSpec::Earliest => AutoOffsetReset::Earliest,
        OffsetSpec::Latest => AutoOffsetReset::Latest,
        _ => {
            return Err(Failure::usage("with --group, --from is `earliest` or `latest`").hint(format_args!(
                "to go somewhere else: strandline group reset {group} --topic {} --to …",
                args.topic
            )));
        }
    };
    let consumer =
        builder.group(group).auto_offset_reset(reset).auto_commit_interval(Duration::from_secs(1)).build()?;
    if args.partitions.is_empty() {
        consumer.subscribe([args.topic.as_str()])?;
    } else {
        consumer.assign(partitions.to_vec())?;
    }
    Ok(consumer)
}

async fn read(
    args: &ConsumeArgs,
    consumer: &mut Consumer,
    mut ends: Ends,
    mut writer: Writer,
    out: Output,
) -> Result<(), Failure> {
    let mut left = args.max_messages.unwrap_or(u64::MAX);
    let begun = Instant::now();
    while left > 0 {
        let most = RECORDS_AT_ONCE.min(usize::try_from(left).unwrap_or(usize::MAX));
        let records = match consumer.poll(most, LOOK_EVERY).await {
            Ok(records) => records,
            // The seek that says where to begin came a moment after the consumer looked.
            Err(error) if matches!(error.kind(), ErrorKind::NoOffset(_)) && args.group.is_none() => continue,
            Err(error) => return Err(error.into()),
        };
        for record in &records {
            // A group counts everything that it was given as read, so everything is written.
            if args.group.is_some() || ends.wants(record) {
                writer.add(record);
                left -= 1;
            }
        }
        writer.flush()?;
        if !args.exit_at_end {
            continue;
        }
        match records.last() {
            Some(last) => ends.reached(last),
            None => ends.look(consumer),
        }
        if args.group.is_none() || !args.partitions.is_empty() {
            if ends.all_reached() {
                return Ok(());
            }
            continue;
        }
        let share = consumer.assignment();
        if !share.is_empty() && ends.reached_in(&share) {
            return Ok(());
        }
        if share.is_empty() && begun.elapsed() >= NO_PARTITION_FOR {
            out.remark("other members of the group have all partitions");
            return Ok(());
        }
    }
    Ok(())
}

/// Partitions of which the end, as it was at the start, has not been reached yet.
struct Ends {
    snapshot: BTreeMap<TopicPartition, i64>,
    remaining: BTreeMap<TopicPartition, i64>,
}

impl Ends {
    fn none() -> Ends {
        Ends { snapshot: BTreeMap::new(), remaining: BTreeMap::new() }
    }

    async fn ask(client: &Client, partitions: &[TopicPartition]) -> Result<Ends, Failure> {
        let latest = partitions.iter().map(|tp| (tp.clone(), OffsetSpec::Latest)).collect::<Vec<_>>();
        let found = client.admin().list_offsets(latest).await?;
        let snapshot: BTreeMap<_, _> =
            found.into_iter().map(|(tp, listed)| (tp, listed.offset.unwrap_or(0))).collect();
        let remaining =
            snapshot.iter().filter(|(_, end)| **end > 0).map(|(tp, end)| (tp.clone(), *end)).collect();
        Ok(Ends { snapshot, remaining })
    }

    /// Whether the record was there at the start.
    fn wants(&self, record: &ConsumerRecord) -> bool {
        self.snapshot.is_empty()
            || self.snapshot.get(&record.topic_partition()).is_some_and(|end| record.offset < *end)
    }

    fn reached(&mut self, record: &ConsumerRecord) {
        let tp = record.topic_partition();
        if self.remaining.get(&tp).is_some_and(|end| record.offset + 1 >= *end) {
            self.remaining.remove(&tp);
        }
    }

    /// Asks the consumer how far it is: a partition may end with something that is no record, or be empty.
    fn look(&mut self, consumer: &Consumer) {
        self.remaining.retain(|tp, end| consumer.position(tp).is_none_or(|position| position < *end));
    }

    fn all_reached(&self) -> bool {
        self.remaining.is_empty()
    }

    fn reached_in(&self, share: &[TopicPartition]) -> bool {
        !share.iter().any(|tp| self.remaining.contains_key(tp))
    }
}

/// Records as bytes, gathered and written at once.
struct Writer {
    /// `None`: JSON.
    format: Option<RecordFormat>,
    buffer: Vec<u8>,
}

impl Writer {
    fn new(args: &ConsumeArgs, out: Output) -> Result<Writer, Failure> {
        let format = match (&args.format, out.json) {
            (Some(_), true) => return Err(Failure::usage("--format and --json exclude each other")),
            (None, true) => None,
            (Some(format), false) => Some(format.clone()),
            (None, false) => Some("%v".parse().expect("the default is right")),
        };
        Ok(Writer { format, buffer: Vec::with_capacity(256 << 10) })
    }

    fn add(&mut self, record: &ConsumerRecord) {
        match &self.format {
            Some(format) => format.write(record, &mut self.buffer),
            None => {
                serde_json::to_writer(&mut self.buffer, &JsonRecord::from(record))
                    .expect("our own type serialises");
            }
        }
        self.buffer.push(b'\n');
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(&self.buffer).and_then(|()| stdout.flush());
        self.buffer.clear();
        written.map_err(|error| Failure::output(&error))
    }
}

/// A record with `--json`. Keys, values and header values that are not UTF-8 come as hexadecimal digits under
/// another name.
#[derive(Serialize)]
struct JsonRecord<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<JsonHeader<'a>>,
}

#[derive(Serialize)]
struct JsonHeader<'a> {
    key: Cow<'a, str>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl<'a> From<&'a ConsumerRecord> for JsonRecord<'a> {
    fn from(record: &'a ConsumerRecord) -> Self {
        let (key, key_hex) = text_or_hex(record.key.as_deref());
        let (value, value_hex) = text_or_hex(record.value.as_deref());
        let header = |header: &'a strandline_client::Header| {
            let (value, value_hex) = text_or_hex(header.value.as_deref());
            JsonHeader { key: String::from_utf8_lossy(&header.key), value, value_hex }
        };
        JsonRecord {
            topic: &record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key,
            key_hex,
            value,
            value_hex,
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

fn text_or_hex(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => (None, None),
        Some((Ok(text), _)) => (Some(text), None),
        Some((Err(_), bytes)) => (None, Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use strandline_client::Header;

    fn record(partition: i32, offset: i64) -> ConsumerRecord {
        ConsumerRecord {
            topic: "t".into(),
            partition,
            offset,
            timestamp_ms: 7,
            leader_epoch: 0,
            key: Some(Bytes::from_static(b"k\xff")),
            value: Some(Bytes::from_static("v\n\"é".as_bytes())),
            headers: vec![Header { key: "h".into(), value: None }],
        }
    }

    #[test]
    fn a_record_is_one_line_of_json_and_loses_no_byte() {
        let mut writer = Writer { format: None, buffer: Vec::new() };
        writer.add(&record(3, 42));
        assert_eq!(writer.buffer.iter().filter(|b| **b == b'\n').count(), 1);
        let json: serde_json::Value = serde_json::from_slice(&writer.buffer).unwrap();
        let expected = serde_json::json!({
            "topic": "t", "partition": 3, "offset": 42, "timestamp_ms": 7, "key": null, "key_hex": "6bff",
            "value": "v\n\"é", "headers": [{ "key": "h", "value": null }],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn the_end_is_what_was_there_at_the_start() {
        let tp = |p| TopicPartition::new("t", p);
        let all = BTreeMap::from([(tp(0), 10), (tp(1), 0), (tp(2), 5)]);
        let remaining = BTreeMap::from([(tp(0), 10), (tp(2), 5)]);
        let mut ends = Ends { snapshot: all, remaining };
        assert!(ends.wants(&record(0, 9)) && !ends.wants(&record(0, 10)) && !ends.wants(&record(1, 0)));
        ends.reached(&record(0, 8));
        assert!(!ends.reached_in(&[tp(0)]));
        ends.reached(&record(0, 9));
        assert!(ends.reached_in(&[tp(0), tp(1)]) && !ends.all_reached());
        ends.reached(&record(2, 6));
        assert!(ends.all_reached());
        assert!(Ends::none().wants(&record(0, 1)), "without an end everything is wanted");
    }

    #[test]
    fn partitions_that_do_not_exist_are_refused() {
        let args = |partitions| ConsumeArgs {
            topic: "t".into(),
            group: None,
            from: Position(OffsetSpec::Earliest),
            partitions,
            max_messages: None,
            exit_at_end: false,
            format: None,
        };
        assert_eq!(partitions(&args(vec![]), 3).unwrap().len(), 3);
        assert_eq!(partitions(&args(vec![2]), 3).unwrap(), [TopicPartition::new("t", 2)]);
        assert_eq!(partitions(&args(vec![0, 3]), 3).unwrap_err().exit, Exit::NotFound);
    }
}
