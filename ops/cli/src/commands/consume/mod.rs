//! `strandline consume`: records of a topic to standard output.
//!
//! What has been handed out counts as processed when the consumer is asked for more (the SDK's rule); this command
//! asks for more only after the records before are written to standard output ([`writer`]), and when writing fails it
//! closes the consumer with what was written. So a group's committed offsets never run ahead of the output.

mod ends;
mod writer;

use super::connect;
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::position::{self, Position};
use crate::record_format::{self, RecordFormat};
use crate::signals::Signals;
use ends::Ends;
use std::fs::File;
use std::time::Duration;
use strandline_client::{
    AutoOffsetReset, Client, Consumer, ErrorCode, ErrorKind, OffsetSpec, TopicPartition,
};
use tokio::time::Instant;
use writer::Writer;

/// Records written at once at most.
const RECORDS_AT_ONCE: usize = 4096;
/// How often to look whether the end is reached although nothing comes.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A group member that gets no partition for this long will not get one.
const NO_PARTITION_FOR: Duration = Duration::from_secs(10);
/// What keeps us waiting for this long is worth a line.
const SAY_AFTER: Duration = Duration::from_secs(3);

/// Write the records of a topic to standard output
///
/// Goes on with new records as they come, until Ctrl-C, unless --exit-at-end or --max-messages ends it. Without a
/// group it reads every partition from --from. With a group it becomes a member, gets a share of the partitions,
/// goes on where the group has committed, and commits what it has written. Whether the group can be reached is found out
/// first, within --timeout; a member that loses it later waits for it, and says so.
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
    /// Only this partition; may be repeated. With a group: without membership, but with its offsets, which is refused
    /// while it has members
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
    let mut writer = Writer::new(&args, out, writer::standard_output()?)?;
    let prepared = tokio::select! {
        biased;
        stop = signals.next() => Err(Failure::interrupted(format_args!("interrupted ({}) before the start", stop.exit_code()))),
        prepared = prepare(&args, global, out) => prepared,
    };
    let (mut consumer, ends) = prepared?;
    let followed = !args.exit_at_end && args.max_messages.is_none();

    let read = tokio::select! {
        biased;
        stop = signals.next() => match followed {
            // Nothing else ends it: this is how it is meant to end.
            true => Ok(()),
            false => Err(Failure::interrupted(format_args!("interrupted ({}) before the end", stop.exit_code()))),
        },
        read = read(&args, &mut consumer, ends, &mut writer, out) => read,
    };
    // Commits what was written and leaves the group; a second signal does not wait for that.
    let closing = async {
        match writer.written_of_the_last() {
            Some(written) => consumer.close_processed(&written).await,
            None => consumer.close().await,
        }
    };
    let closed = tokio::select! {
        biased;
        _ = signals.next() => return Err(Failure::interrupted("interrupted before the last commit")),
        closed = closing => closed,
    };
    read?;
    Ok(closed?)
}

/// A consumer at its start, and where it is to end.
async fn prepare(args: &ConsumeArgs, global: &Global, out: Output) -> Result<(Consumer, Ends), Failure> {
    let client = connect(global).await?;
    let partitions = partitions(args, client.topic(&args.topic).await?.partitions.len())?;
    if let Some(group) = &args.group {
        look_at_group(args, group, &client, out).await?;
    }
    let ends = if args.exit_at_end { Ends::ask(&client, &partitions).await? } else { Ends::none() };
    Ok((start(args, &client, &partitions)?, ends))
}

/// A group that cannot be reached, or whose members own what is to be read, shows before anything is read.
async fn look_at_group(args: &ConsumeArgs, group: &str, client: &Client, out: Output) -> Result<(), Failure> {
    let admin = client.admin();
    let mut asking = std::pin::pin!(admin.describe_group(group));
    let found = match tokio::time::timeout(SAY_AFTER, &mut asking).await {
        Ok(found) => found,
        Err(_) => {
            out.remark(&format!("waiting for the coordinator of group {group}"));
            asking.await
        }
    };
    match found {
        Ok(found) if !args.partitions.is_empty() && !found.members.is_empty() => {
            let members = found.members.len();
            let s = if members == 1 { "" } else { "s" };
            let message = format!(
                "group {group} has {members} member{s}, and only they read with its offsets and commit them"
            );
            Err(Failure::new(Exit::Refused, message).hint(
                "without --partition this becomes another member; without --group it reads beside the group; or stop \
                 the members first",
            ))
        }
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(ErrorCode::GroupNotFound) => Ok(()),
        Err(error) => Err(Failure::from(error)),
    }
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
    writer: &mut Writer<File>,
    out: Output,
) -> Result<(), Failure> {
    let mut left = args.max_messages.unwrap_or(u64::MAX);
    let begun = Instant::now();
    let mut outside = Outside::default();
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
        let subscribed = args.group.is_some() && args.partitions.is_empty();
        let member = !subscribed || consumer.membership().is_some();
        if let Some(group) = args.group.as_deref()
            && outside.is_worth_a_word(member, Instant::now())
        {
            out.remark(&format!(
                "not a member of group {group} now; waiting for its coordinator or its other members"
            ));
        }
        if !args.exit_at_end {
            continue;
        }
        match records.last() {
            Some(last) => ends.reached(last),
            None => ends.look(consumer),
        }
        if !subscribed {
            if ends.all_reached() {
                return Ok(());
            }
            continue;
        }
        let share = consumer.assignment();
        if !share.is_empty() && ends.reached_in(&share) {
            return Ok(());
        }
        if share.is_empty() && member && begun.elapsed() >= NO_PARTITION_FOR {
            out.remark("other members of the group have all partitions");
            return Ok(());
        }
    }
    Ok(())
}

/// For how long this consumer has not been a member of its group.
#[derive(Default)]
struct Outside {
    since: Option<Instant>,
    said: bool,
}

impl Outside {
    /// True once each time that it lasts.
    fn is_worth_a_word(&mut self, member: bool, now: Instant) -> bool {
        if member {
            *self = Outside::default();
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let long = now.duration_since(since) >= SAY_AFTER;
        long && !std::mem::replace(&mut self.said, long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_outside_the_group_is_told_once_each_time_that_it_lasts() {
        let begun = Instant::now();
        let mut outside = Outside::default();
        let mut at = |seconds, member| outside.is_worth_a_word(member, begun + Duration::from_secs(seconds));
        assert_eq!([at(0, false), at(2, false), at(3, false), at(4, false)], [false, false, true, false]);
        assert_eq!([at(5, true), at(6, false), at(8, false), at(9, false)], [false, false, false, true]);
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
