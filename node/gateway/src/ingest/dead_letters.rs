//! Reading the dead-letter topic, and trying its events again.
//!
//! Every gateway that keeps a view of its own writes a letter when it sees an event fail; their records have one key and
//! are one letter here. (Where the broker refuses a second record of one key, there is only one record; nothing changes.)
//! A letter whose event is redriven is marked by a record without a value. If the event fails again, that is another
//! letter, with another key.

use super::record::{DEAD_LETTERS, DeadLetter};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use strandline_client::{
    AutoOffsetReset, Client, ConsumerRecord, Error, ErrorCode, OffsetSpec, TopicPartition,
};
use tokio::time::Instant;

/// Most letters that are kept in memory.
pub const MAX_LETTERS: usize = 10_000;

/// Records taken at a time.
const RECORDS: usize = 1_000;

/// A letter, whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLetter {
    /// The letter.
    pub letter: DeadLetter,
    /// When its first record was appended, milliseconds since the Unix epoch.
    pub failed_ms: i64,
    /// How many records say so: as many as views saw it fail.
    pub records: u64,
    /// Its event has been redriven.
    pub redriven: bool,
}

/// Letters by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letters {
    /// At most [`MAX_LETTERS`].
    pub found: BTreeMap<String, FoundLetter>,
    /// There are more.
    pub more: bool,
    /// Marks without a letter so far; at most as many as letters.
    done: BTreeSet<String>,
}

impl Letters {
    fn take(&mut self, record: &ConsumerRecord) {
        let Some(key) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) else { return };
        match DeadLetter::read(record) {
            None if record.value.is_none() => {
                // A mark may come before a record of another view: it holds for all.
                match self.found.get_mut(key) {
                    Some(found) => found.redriven = true,
                    None if self.done.len() >= MAX_LETTERS => self.more = true,
                    None => {
                        self.done.insert(key.to_owned());
                    }
                }
            }
            None => {
                tracing::warn!(partition = %record.topic_partition(), record.offset, "this is no dead letter")
            }
            Some(_) if self.found.len() >= MAX_LETTERS && !self.found.contains_key(key) => self.more = true,
            Some(letter) => {
                let redriven = self.done.contains(key);
                let found = self.found.entry(key.to_owned()).or_insert(FoundLetter {
                    letter,
                    failed_ms: record.timestamp_ms,
                    records: 0,
                    redriven,
                });
                found.records += 1;
            }
        }
    }
}

/// Reads the topic to the end that it has now, within `patience`.
///
/// # Errors
/// If it cannot be read in that time. A topic that does not exist has no letters.
pub async fn read_letters(client: &Client, patience: Duration) -> Result<Letters, Error> {
    let deadline = Instant::now() + patience;
    let mut letters = Letters::default();
    let admin = client.admin();
    let topic = match admin.describe_topic(DEAD_LETTERS).await {
        Ok(topic) => topic,
        Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => return Ok(letters),
        Err(error) => return Err(error),
    };
    let partitions: Vec<TopicPartition> = topic
        .partitions
        .iter()
        .map(|partition| TopicPartition::new(DEAD_LETTERS, partition.partition))
        .collect();
    let ends =
        admin.list_offsets(partitions.iter().map(|tp| (tp.clone(), OffsetSpec::Latest)).collect::<Vec<_>>());
    let mut ends: BTreeMap<TopicPartition, i64> =
        ends.await?.into_iter().map(|(tp, listed)| (tp, listed.offset.unwrap_or(0))).collect();
    ends.retain(|_, end| *end > 0);
    let mut consumer = client.consumer().auto_offset_reset(AutoOffsetReset::Earliest).build()?;
    consumer.assign(ends.keys().cloned())?;
    while !ends.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let records = consumer.poll(RECORDS, left.min(Duration::from_millis(100))).await?;
        records.iter().for_each(|record| letters.take(record));
        // What was removed or is no record counts as read.
        ends.retain(|partition, end| consumer.position(partition).is_none_or(|at| at < *end));
        if left.is_zero() && !ends.is_empty() {
            letters.more = true;
            break;
        }
    }
    consumer.close().await?;
    Ok(letters)
}

/// Sends the event of a letter again, and marks the letter. Returns once both are durable.
///
/// # Errors
/// If that did not work; doing it again does no harm, an event counts once.
pub async fn redrive(client: &Client, letters: &[&DeadLetter]) -> Result<(), Error> {
    let producer = client.producer().build()?;
    for letter in letters {
        producer.send_and_wait(letter.again()).await?;
        producer.send_and_wait(letter.done()).await?;
    }
    producer.close().await
}

#[cfg(test)]
mod tests {
    use super::super::normalise::EventId;
    use super::super::record::{ATTEMPTS, ERROR, ORIGIN};
    use super::*;
    use bytes::Bytes;
    use strandline_client::Header;

    fn record(offset: i64, key: &str, value: Option<&'static str>) -> ConsumerRecord {
        let header = |key: &'static str, value: &'static str| Header::new(key, Some(Bytes::from(value)));
        ConsumerRecord {
            topic: DEAD_LETTERS.into(),
            partition: 0,
            offset,
            timestamp_ms: 100 + offset,
            leader_epoch: 0,
            key: Some(Bytes::from(key.to_owned())),
            value: value.map(Bytes::from),
            headers: vec![header(ERROR, "full"), header(ATTEMPTS, "5"), header(ORIGIN, "ingest.events-1@7")],
        }
    }

    #[test]
    fn letters_of_several_views_are_one_and_a_mark_holds_for_all() {
        let (one, two) = (EventId::of(b"1").to_string(), EventId::of(b"2").to_string());
        let again = format!("{two}#1");
        let mut letters = Letters::default();
        for record in [
            record(0, &one, Some("v1")),
            record(1, &one, Some("v1")),
            record(2, &two, None),
            record(3, &two, Some("v2")),
            record(4, &again, Some("v2")),
            record(5, "no letter", Some("v")),
        ] {
            letters.take(&record);
        }
        let shown = |key: &str| {
            let found = &letters.found[key];
            (found.records, found.redriven, found.failed_ms, found.letter.redrives)
        };
        assert_eq!(letters.found.len(), 3);
        assert_eq!(shown(&one), (2, false, 100, 0));
        assert_eq!(shown(&two), (1, true, 103, 0));
        assert_eq!(shown(&again), (1, false, 104, 1));
        let letter = &letters.found[&again].letter;
        assert_eq!((letter.key(), letter.attempts, letter.origin.as_str()), (again, 5, "ingest.events-1@7"));
    }
}
