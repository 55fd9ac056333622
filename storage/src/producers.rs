//! What a log knows of its idempotent producers (KIP-98, KIP-360): for each its epoch and its last five
//! batches. Derived from the batches as they are appended, on followers too; snapshotted beside the
//! segments (see [`crate::index`]) and truncated with the log.
//!
//! The checks are Kafka 4's: an older epoch is fenced; a newer epoch must begin at sequence 0; within an
//! epoch a batch continues where the last one ended (0 follows `i32::MAX`); the same first and last
//! sequence as one of the last five batches is a duplicate. A producer that is not known (its batches
//! were removed, or it expired) may begin at any sequence.

use crate::error::AppendError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use strandline_record::{BatchHeader, Offset, ProducerEpoch, ProducerId, ProducerStamp, sequence_plus};

/// Batches remembered for each producer: as many as a producer may have in flight.
const WINDOW: usize = 5;
/// Producers remembered for each log; beyond it the one idle for longest is forgotten.
const PRODUCERS_MAX: usize = 50_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    last_offset: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Producer {
    epoch: i16,
    /// At most [`WINDOW`], oldest first. Empty after a control batch in a new epoch.
    batches: VecDeque<Remembered>,
    last_seen_ms: i64,
}

/// A producer, for whoever inspects the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownProducer {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// Of its last batch with a sequence, if that is remembered.
    pub last_sequence: Option<i32>,
    /// When it last wrote, ms since the Unix epoch.
    pub last_seen_ms: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producers {
    known: BTreeMap<i64, Producer>,
}

impl Producer {
    fn append(&mut self, header: &BatchHeader, stamp: &ProducerStamp, now_ms: i64) {
        if stamp.epoch.get() != self.epoch {
            self.epoch = stamp.epoch.get();
            self.batches.clear();
        }
        self.last_seen_ms = self.last_seen_ms.max(now_ms);
        if let Some(last_sequence) = header.last_sequence() {
            if self.batches.len() == WINDOW {
                self.batches.pop_front();
            }
            self.batches.push_back(Remembered {
                first_sequence: stamp.base_sequence,
                last_sequence,
                base_offset: header.base_offset().get(),
                last_offset: header.last_offset().get(),
            });
        }
    }

    fn check(&self, id: i64, stamp: &ProducerStamp, last_sequence: i32) -> Result<(), AppendError> {
        let (epoch, first) = (stamp.epoch.get(), stamp.base_sequence);
        if epoch < self.epoch {
            return Err(AppendError::ProducerFenced {
                current: ProducerEpoch(self.epoch),
                found: ProducerEpoch(epoch),
            });
        }
        let expected = if epoch > self.epoch {
            0
        } else {
            let same = |b: &&Remembered| b.first_sequence == first && b.last_sequence == last_sequence;
            if let Some(known) = self.batches.iter().find(same) {
                return Err(AppendError::Duplicate {
                    base_offset: Offset(known.base_offset),
                    last_offset: Offset(known.last_offset),
                });
            }
            match self.batches.back() {
                Some(last) => sequence_plus(last.last_sequence, 1),
                None => 0,
            }
        };
        if first != expected {
            return Err(AppendError::OutOfOrderSequence { producer: id, expected, found: first });
        }
        Ok(())
    }
}

impl Producers {
    /// Whether these producer batches, which have their offsets already, may be appended one behind another.
    pub fn check(&self, headers: &[BatchHeader]) -> Result<(), AppendError> {
        // What the earlier batches of this append will have changed.
        let mut staged: BTreeMap<i64, Producer> = BTreeMap::new();
        for (at, header) in headers.iter().enumerate() {
            let (Some(stamp), Some(last_sequence)) = (header.producer(), header.last_sequence()) else {
                continue;
            };
            let id = stamp.id.get();
            if let Some(producer) = staged.get(&id).or_else(|| self.known.get(&id)) {
                match producer.check(id, &stamp, last_sequence) {
                    // Of a batch of this very append, which is not in the log: not to be acknowledged.
                    Err(AppendError::Duplicate { base_offset, .. })
                        if base_offset >= headers[0].base_offset() =>
                    {
                        return Err(AppendError::Invalid("the same batch twice in one append".to_owned()));
                    }
                    checked => checked?,
                }
            }
            if at + 1 < headers.len() {
                let unknown =
                    || Producer { epoch: stamp.epoch.get(), batches: VecDeque::new(), last_seen_ms: 0 };
                let producer =
                    staged.entry(id).or_insert_with(|| self.known.get(&id).cloned().unwrap_or_else(unknown));
                producer.append(header, &stamp, 0);
            }
        }
        Ok(())
    }

    /// Takes in a batch that was appended, whatever it is: the leader has checked it.
    pub fn append(&mut self, header: &BatchHeader, now_ms: i64) {
        let Some(stamp) = header.producer() else { return };
        let id = stamp.id.get();
        if !self.known.contains_key(&id) && self.known.len() >= PRODUCERS_MAX {
            let idlest = self.known.iter().min_by_key(|(id, p)| (p.last_seen_ms, **id)).map(|(id, _)| *id);
            if let Some(idlest) = idlest {
                self.known.remove(&idlest);
            }
        }
        self.known
            .entry(id)
            .or_insert_with(|| Producer {
                epoch: stamp.epoch.get(),
                batches: VecDeque::with_capacity(WINDOW),
                last_seen_ms: now_ms,
            })
            .append(header, &stamp, now_ms);
    }

    /// Base offsets of the batches that are remembered.
    pub fn remembered(&self) -> impl Iterator<Item = Offset> {
        self.known.values().flat_map(|producer| &producer.batches).map(|batch| Offset(batch.base_offset))
    }

    /// Forgets producers that wrote nothing since `before_ms`.
    pub fn expire(&mut self, before_ms: i64) {
        self.known.retain(|_, producer| producer.last_seen_ms >= before_ms);
    }

    /// At most `max` of them, by id.
    pub fn list(&self, max: usize) -> Vec<KnownProducer> {
        let known = self.known.iter().take(max);
        known
            .map(|(id, producer)| KnownProducer {
                id: ProducerId(*id),
                epoch: ProducerEpoch(producer.epoch),
                last_sequence: producer.batches.back().map(|batch| batch.last_sequence),
                last_seen_ms: producer.last_seen_ms,
            })
            .collect()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::batch_of;

    fn header(id: i64, epoch: i16, sequence: i32, count: i32, base_offset: i64) -> BatchHeader {
        let mut bytes = batch_of(id, epoch, sequence, count, b"x");
        strandline_record::write_base_offset(&mut bytes, Offset(base_offset));
        BatchHeader::parse(&bytes).unwrap()
    }

    fn offer(producers: &mut Producers, header: BatchHeader) -> Result<(), AppendError> {
        producers.check(&[header])?;
        producers.append(&header, 0);
        Ok(())
    }

    #[test]
    fn a_producer_continues_where_it_ended_and_a_gap_is_refused() {
        let mut producers = Producers::default();
        offer(&mut producers, header(1, 0, 0, 3, 0)).unwrap();
        offer(&mut producers, header(1, 0, 3, 2, 3)).unwrap();
        let gap = offer(&mut producers, header(1, 0, 6, 1, 5));
        assert!(matches!(gap, Err(AppendError::OutOfOrderSequence { expected: 5, found: 6, .. })), "{gap:?}");
    }

    #[test]
    fn the_last_five_batches_are_recognised_and_older_ones_are_out_of_order() {
        let mut producers = Producers::default();
        for n in 0..6 {
            offer(&mut producers, header(1, 0, n, 1, 100 + i64::from(n))).unwrap();
        }
        let again = offer(&mut producers, header(1, 0, 1, 1, 106));
        assert!(matches!(again, Err(AppendError::Duplicate { base_offset: Offset(101), .. })), "{again:?}");
        let older = offer(&mut producers, header(1, 0, 0, 1, 106));
        assert!(matches!(older, Err(AppendError::OutOfOrderSequence { .. })), "{older:?}");
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut producers = Producers::default();
        offer(&mut producers, header(1, 0, i32::MAX - 1, 2, 0)).unwrap();
        offer(&mut producers, header(1, 0, 0, 1, 2)).unwrap();
        let mut producers = Producers::default();
        offer(&mut producers, header(1, 0, i32::MAX, 3, 0)).unwrap();
        offer(&mut producers, header(1, 0, 2, 1, 3)).unwrap();
    }

    #[test]
    fn a_new_epoch_begins_at_sequence_zero_and_fences_the_old_one() {
        let mut producers = Producers::default();
        offer(&mut producers, header(1, 0, 7, 1, 0)).unwrap();
        let gap = offer(&mut producers, header(1, 1, 8, 1, 1));
        assert!(matches!(gap, Err(AppendError::OutOfOrderSequence { expected: 0, .. })), "{gap:?}");
        offer(&mut producers, header(1, 1, 0, 1, 1)).unwrap();
        let old = offer(&mut producers, header(1, 0, 8, 1, 2));
        assert!(matches!(old, Err(AppendError::ProducerFenced { .. })), "{old:?}");
    }

    #[test]
    fn batches_of_one_append_are_checked_one_behind_another() {
        let producers = Producers::default();
        producers.check(&[header(1, 0, 4, 2, 0), header(2, 0, 0, 1, 2), header(1, 0, 6, 1, 3)]).unwrap();
        let gap = producers.check(&[header(1, 0, 4, 2, 0), header(1, 0, 7, 1, 2)]);
        assert!(matches!(gap, Err(AppendError::OutOfOrderSequence { .. })), "{gap:?}");
        let twice = producers.check(&[header(1, 0, 4, 2, 0), header(1, 0, 4, 2, 2)]);
        assert!(matches!(twice, Err(AppendError::Invalid(_))), "{twice:?}");
    }

    #[test]
    fn an_idle_producer_is_forgotten_and_may_begin_anywhere() {
        let mut producers = Producers::default();
        producers.append(&header(1, 0, 0, 1, 0), 1_000);
        producers.append(&header(2, 0, 0, 1, 1), 2_000);
        producers.expire(1_500);
        assert_eq!(producers.len(), 1);
        offer(&mut producers, header(1, 0, 9, 1, 2)).unwrap();
    }
}
