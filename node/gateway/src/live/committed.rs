//! Who reads the cluster, how far each is, and how far behind. Pure.

use super::documents::GroupSummary;
use std::collections::BTreeMap;
use strandline_client::TopicPartition;

/// Next offsets by partition.
pub(super) type Offsets = BTreeMap<TopicPartition, i64>;

/// A reader that says where it is.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) state: String,
    pub(super) offsets: Offsets,
    /// Records that it got done with since the last tick.
    done: u64,
    /// The same a second, of the last tick.
    pub(super) rate: f64,
    /// As of the last tick.
    pub(super) lag: i64,
}

impl Reader {
    /// It is here now. What it had not committed before is where it begins, and no work that it did.
    pub(super) fn is_at(&mut self, offsets: Offsets) {
        for (partition, offset) in &offsets {
            if let Some(before) = self.offsets.get(partition) {
                self.done += u64::try_from(offset - before).unwrap_or(0);
            }
        }
        self.offsets = offsets;
    }

    /// Closes the tick. Returns what it got done with in it.
    pub(super) fn tick(&mut self, ends: &Offsets, seconds: f64) -> u64 {
        let done = std::mem::take(&mut self.done);
        self.rate = done as f64 / seconds;
        self.lag = self.offsets.iter().filter_map(|(partition, next)| lag(ends, partition, *next)).sum();
        done
    }

    pub(super) fn summary(&self, group: &str) -> GroupSummary {
        GroupSummary {
            group: group.to_owned(),
            state: self.state.clone(),
            lag: self.lag,
            partitions: self.offsets.len(),
            rate: super::picture::rounded(self.rate),
        }
    }
}

/// How many records lie between `next` and the end; `None` where the end is not known.
fn lag(ends: &Offsets, partition: &TopicPartition, next: i64) -> Option<i64> {
    ends.get(partition).map(|end| (end - next).max(0))
}

/// The longest way of any reader to the end of each partition that somebody reads, and whose it is.
pub(super) fn depths<'a>(
    ends: &Offsets,
    readers: &'a BTreeMap<String, Reader>,
) -> BTreeMap<TopicPartition, (i64, &'a str)> {
    let mut depths: BTreeMap<TopicPartition, (i64, &str)> = BTreeMap::new();
    for (name, reader) in readers {
        for (partition, next) in &reader.offsets {
            let Some(lag) = lag(ends, partition, *next) else { continue };
            match depths.get_mut(partition) {
                Some(deepest) if deepest.0 >= lag => {}
                Some(deepest) => *deepest = (lag, name),
                None => {
                    depths.insert(partition.clone(), (lag, name));
                }
            }
        }
    }
    depths
}
