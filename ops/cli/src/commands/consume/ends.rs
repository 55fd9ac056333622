//! Where reading with `--exit-at-end` ends: at what was in the partitions when the command began.

use crate::exit::Failure;
use std::collections::BTreeMap;
use strandline_client::{Client, Consumer, ConsumerRecord, OffsetSpec, TopicPartition};

/// Partitions of which the end, as it was at the start, has not been reached yet.
pub struct Ends {
    snapshot: BTreeMap<TopicPartition, i64>,
    remaining: BTreeMap<TopicPartition, i64>,
}

impl Ends {
    pub fn none() -> Ends {
        Ends { snapshot: BTreeMap::new(), remaining: BTreeMap::new() }
    }

    pub async fn ask(client: &Client, partitions: &[TopicPartition]) -> Result<Ends, Failure> {
        let latest = partitions.iter().map(|tp| (tp.clone(), OffsetSpec::Latest)).collect::<Vec<_>>();
        let found = client.admin().list_offsets(latest).await?;
        let snapshot: BTreeMap<_, _> =
            found.into_iter().map(|(tp, listed)| (tp, listed.offset.unwrap_or(0))).collect();
        let remaining =
            snapshot.iter().filter(|(_, end)| **end > 0).map(|(tp, end)| (tp.clone(), *end)).collect();
        Ok(Ends { snapshot, remaining })
    }

    /// Whether the record was there at the start.
    pub fn wants(&self, record: &ConsumerRecord) -> bool {
        self.snapshot.is_empty()
            || self.snapshot.get(&record.topic_partition()).is_some_and(|end| record.offset < *end)
    }

    pub fn reached(&mut self, record: &ConsumerRecord) {
        let tp = record.topic_partition();
        if self.remaining.get(&tp).is_some_and(|end| record.offset + 1 >= *end) {
            self.remaining.remove(&tp);
        }
    }

    /// Asks the consumer how far it is: a partition may end with something that is no record, or be empty.
    pub fn look(&mut self, consumer: &Consumer) {
        self.remaining.retain(|tp, end| consumer.position(tp).is_none_or(|position| position < *end));
    }

    pub fn all_reached(&self) -> bool {
        self.remaining.is_empty()
    }

    pub fn reached_in(&self, share: &[TopicPartition]) -> bool {
        !share.iter().any(|tp| self.remaining.contains_key(tp))
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::tests::record;
    use super::*;

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
}
