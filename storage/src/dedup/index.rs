//! Which idempotency key was seen at which offset, for as long as the window is. Pure.
//!
//! ```text
//!   table: hash ──▶ number of an entry
//!   entries, in the order of their offsets, in blocks:  [hash, offset] [hash, offset] …
//!   marks: the entries up to this number were made by then
//! ```
//!
//! An entry takes 24 bytes, its place in the table 10 to 21, so a million keys take at most 45 MB. Keys themselves are not
//! kept: two with one 128-bit hash would be one. The hash is keyed with a secret of the directory, so that nobody can
//! look for such keys.
//!
//! Invariants: offsets grow from entry to entry; the table names the newest entry of each hash, an older one of it is
//! passed over; times of marks do not decrease; the budget was charged for as many entries as there are and are spare, and
//! none is spare between two batches.

use hashbrown::HashTable;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use strandline_record::Offset;

/// Of a key.
pub type Hash = [u64; 2];

/// Entries in a block.
const BLOCK: usize = 1024;
/// The window is kept to within this part of it.
const MARKS: i64 = 256;

/// Entries that all indexes of a store may have together, and what they did.
#[derive(Debug)]
pub struct Budget {
    most: usize,
    used: AtomicUsize,
    /// Entries that were forgotten within their window.
    early: AtomicUsize,
}

impl Budget {
    pub fn new(most: usize) -> Arc<Budget> {
        Arc::new(Budget { most, used: AtomicUsize::new(0), early: AtomicUsize::new(0) })
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn forgotten_early(&self) -> usize {
        self.early.load(Ordering::Relaxed)
    }

    /// As many of these as there are left.
    fn take(&self, entries: usize) -> usize {
        let more = |used: usize| Some(used + entries.min(self.most.saturating_sub(used)));
        let before = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entries.min(self.most.saturating_sub(before.unwrap_or_else(|used| used)))
    }

    fn give_back(&self, entries: usize) {
        if entries > 0 {
            self.used.fetch_sub(entries, Ordering::Relaxed);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: Hash,
    offset: i64,
}

/// The low bits of an entry's number, and enough of its hash that the table can grow without looking at the entries.
#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u32,
    bits: u32,
}

/// What the table goes by: of [`Slot::bits`], spread over all that it looks at.
fn spread(bits: u32) -> u64 {
    u64::from(bits).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn bits_of(hash: Hash) -> u32 {
    hash[0] as u32
}

/// Everything up to an entry was seen by then.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Of the first entry that this mark is about, ms since the Unix epoch.
    since_ms: i64,
    /// Of the last.
    until_ms: i64,
    /// Number behind the last.
    end: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Index {
    window_ms: i64,
    budget: Arc<Budget>,
    table: HashTable<Slot>,
    blocks: VecDeque<Vec<Entry>>,
    /// Entries of the first block that are gone.
    gone: usize,
    /// Number of the first entry; they are counted on for ever, the table holds their low 32 bits.
    first: u64,
    len: usize,
    /// Entries that the budget was charged for, and that are not there.
    spare: usize,
    marks: VecDeque<Mark>,
}

impl Index {
    pub fn new(window_ms: i64, budget: Arc<Budget>) -> Index {
        Index {
            window_ms,
            budget,
            table: HashTable::new(),
            blocks: VecDeque::new(),
            gone: 0,
            first: 0,
            len: 0,
            spare: 0,
            marks: VecDeque::new(),
        }
    }

    /// Before a batch of at most `entries` calls of [`put`](Self::put): the budget, which others share, is asked once for all
    /// of them. An atomic operation for each would wait for the table's cache misses one by one.
    pub fn begin(&mut self, entries: usize) {
        self.spare += self.budget.take(entries.saturating_sub(self.spare));
    }

    /// After a batch.
    pub fn end(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.spare));
    }

    /// Room for one more, of which the caller makes an entry.
    fn charge(&mut self) -> bool {
        if self.spare == 0 {
            return self.budget.take(1) == 1;
        }
        self.spare -= 1;
        true
    }

    /// Bytes that it holds on to.
    pub fn memory_bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|block| block.capacity() * size_of::<Entry>()).sum();
        // A control byte and a number a slot, of which seven in eight may be used.
        let slots = (self.table.capacity() * 8).div_ceil(7);
        blocks + slots * (size_of::<Slot>() + 1) + self.marks.capacity() * size_of::<Mark>()
    }

    fn entry(&self, number: u32) -> Entry {
        let at = number.wrapping_sub(self.first as u32) as usize + self.gone;
        self.blocks[at / BLOCK][at % BLOCK]
    }

    /// Brings the places of these keys in the table into the cache, all at once: one by one, each would be waited for.
    pub fn warm(&self, hashes: impl Iterator<Item = Hash>) {
        let found = hashes.filter(|hash| {
            let bits = bits_of(*hash);
            self.table.find(spread(bits), |slot| slot.bits == bits).is_some()
        });
        std::hint::black_box(found.count());
    }

    /// Where `hash` was seen.
    pub fn find(&self, hash: Hash) -> Option<Offset> {
        let bits = bits_of(hash);
        let is_it = |slot: &Slot| slot.bits == bits && self.entry(slot.number).hash == hash;
        let slot = self.table.find(spread(bits), is_it)?;
        Some(Offset(self.entry(slot.number).offset))
    }

    /// Notes that `hash` was seen at `offset`, which is above all others, at a time that is no earlier than theirs; where
    /// it was seen before does not count any more. Without room for one more the oldest is forgotten, or there is nothing
    /// to forget and this one is not noted.
    pub fn put(&mut self, hash: Hash, offset: Offset, now_ms: i64) {
        if !self.charge() {
            self.budget.early.fetch_add(1, Ordering::Relaxed);
            if self.len == 0 {
                return;
            }
            // Its room is this one's.
            self.pop_front();
            self.spare -= 1;
        }
        if self.blocks.back().is_none_or(|block| block.len() == BLOCK) {
            // The first block of a small index grows as it is needed.
            let room = if self.blocks.is_empty() { 0 } else { BLOCK };
            self.blocks.push_back(Vec::with_capacity(room));
        }
        self.blocks.back_mut().expect("it was just there").push(Entry { hash, offset: offset.get() });
        let number = self.first + self.len as u64;
        self.len += 1;
        let (first, gone, blocks) = (self.first as u32, self.gone, &self.blocks);
        let hash_of = |number: u32| {
            let at = number.wrapping_sub(first) as usize + gone;
            blocks[at / BLOCK][at % BLOCK].hash
        };
        let bits = bits_of(hash);
        let new = Slot { number: number as u32, bits };
        match self.table.find_mut(spread(bits), |slot| slot.bits == bits && hash_of(slot.number) == hash) {
            Some(before) => *before = new,
            None => drop(self.table.insert_unique(spread(bits), new, |slot| spread(slot.bits))),
        }
        self.mark(number + 1, now_ms);
    }

    fn mark(&mut self, end: u64, now_ms: i64) {
        let precision = (self.window_ms / MARKS).max(1);
        match self.marks.back_mut() {
            Some(last) if now_ms.saturating_sub(last.since_ms) < precision => {
                (last.end, last.until_ms) = (end, last.until_ms.max(now_ms));
            }
            last => {
                let since_ms = last.map_or(now_ms, |last| last.until_ms.max(now_ms));
                self.marks.push_back(Mark { since_ms, until_ms: since_ms, end });
            }
        }
    }

    fn pop_front(&mut self) {
        self.take_out(self.first as u32);
        (self.first, self.gone, self.len) = (self.first + 1, self.gone + 1, self.len - 1);
        if self.gone == self.blocks[0].len() {
            self.blocks.pop_front();
            self.gone = 0;
        }
        while self.marks.front().is_some_and(|mark| mark.end <= self.first) {
            self.marks.pop_front();
        }
    }

    fn pop_back(&mut self) {
        let last = self.first + self.len as u64 - 1;
        self.take_out(last as u32);
        self.blocks.back_mut().expect("it holds the last entry").pop();
        self.len -= 1;
        if self.blocks.back().is_some_and(Vec::is_empty) || self.len == 0 {
            self.blocks.pop_back();
        }
        if self.len == 0 {
            self.gone = 0;
        }
        let end = self.first + self.len as u64;
        while self.marks.back().is_some_and(|mark| mark.end > end) {
            let before = self.marks.len().checked_sub(2).map_or(self.first, |at| self.marks[at].end);
            if before >= end {
                // It only spoke of what is gone.
                self.marks.pop_back();
            } else {
                self.marks.back_mut().expect("it was just there").end = end;
            }
        }
    }

    fn take_out(&mut self, number: u32) {
        let bits = bits_of(self.entry(number).hash);
        if let Ok(found) = self.table.find_entry(spread(bits), |slot| slot.number == number) {
            found.remove();
        }
        self.spare += 1;
    }

    /// Forgets what was seen longer than the window ago, give or take a 256th of it.
    pub fn expire(&mut self, now_ms: i64) {
        while let Some(mark) = self.marks.front().copied()
            && now_ms.saturating_sub(mark.until_ms) >= self.window_ms
        {
            while self.len > 0 && self.first < mark.end {
                self.pop_front();
            }
            if self.len == 0 {
                self.marks.clear();
            }
        }
        self.end();
        self.shrink();
    }

    /// The log ends at `end` now.
    pub fn truncate(&mut self, end: Offset) {
        while self.len > 0 && self.entry((self.first + self.len as u64 - 1) as u32).offset >= end.get() {
            self.pop_back();
        }
        self.end();
    }

    /// The log begins at `start` now.
    pub fn forget_below(&mut self, start: Offset) {
        while self.len > 0 && self.entry(self.first as u32).offset < start.get() {
            self.pop_front();
        }
        self.end();
        self.shrink();
    }

    /// Gives memory back after a rush.
    fn shrink(&mut self) {
        if self.table.capacity() > 4 * self.len.max(BLOCK) {
            self.table.shrink_to(2 * self.len, |slot| spread(slot.bits));
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.budget.give_back(self.len + self.spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(key: u64) -> Hash {
        // The table looks at the first half only.
        [key / 4, key]
    }

    fn seen(index: &Index) -> Vec<(u64, i64)> {
        let numbers = index.first..index.first + index.len as u64;
        numbers.map(|number| index.entry(number as u32)).map(|entry| (entry.hash[1], entry.offset)).collect()
    }

    #[test]
    fn a_key_is_found_until_its_window_is_over() {
        let mut index = Index::new(2560, Budget::new(100));
        index.put(hash(1), Offset(7), 1000);
        index.put(hash(2), Offset(9), 2000);
        assert_eq!((index.find(hash(1)), index.find(hash(3))), (Some(Offset(7)), None));
        index.expire(1000 + 2559);
        assert_eq!(index.find(hash(1)), Some(Offset(7)));
        index.expire(1000 + 2560);
        assert_eq!((index.find(hash(1)), index.find(hash(2))), (None, Some(Offset(9))));
        index.expire(i64::MAX);
        assert_eq!((index.len, index.budget.used()), (0, 0));
    }

    #[test]
    fn without_room_the_oldest_goes_first_and_that_is_counted() {
        let budget = Budget::new(2);
        let mut index = Index::new(1000, budget.clone());
        let mut other = Index::new(1000, budget.clone());
        for (key, offset) in [(1, 10), (2, 11), (3, 12)] {
            index.put(hash(key), Offset(offset), 0);
        }
        assert_eq!(seen(&index), [(2, 11), (3, 12)]);
        other.put(hash(9), Offset(0), 0);
        assert_eq!((other.len, budget.used(), budget.forgotten_early()), (0, 2, 2));
        drop(index);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_million_keys_take_less_than_a_hundred_bytes_each() {
        let mut index = Index::new(i64::MAX, Budget::new(usize::MAX));
        for key in 0..1_000_000u64 {
            let key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            index.put([key, key], Offset(index.len as i64), 0);
            if index.len.is_multiple_of(50_000) {
                assert!(index.memory_bytes() < 100 * index.len, "{} of {}", index.memory_bytes(), index.len);
            }
        }
        // Just after the table has doubled is the worst.
        assert!(index.memory_bytes() < 50 * index.len, "{}", index.memory_bytes());
        index.expire(i64::MAX);
        assert!(index.memory_bytes() < 100_000, "{}", index.memory_bytes());
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// What a leader does.
        PutNew(u64),
        /// What a follower does.
        Put(u64),
        /// A batch of these, and more that it might have had.
        Batch(Vec<u64>, usize),
        Wait(i64),
        Truncate(u8),
        Start(u8),
    }

    #[derive(Clone, Copy, Debug)]
    struct Listed {
        key: u64,
        offset: i64,
        at_ms: i64,
        newest: bool,
    }

    proptest! {
        /// Against a list that is searched from end to end.
        #[test]
        fn it_is_what_a_plain_list_would_be(steps in prop::collection::vec(prop_oneof![
            6 => (0..40u64).prop_map(Step::PutNew),
            2 => (0..40u64).prop_map(Step::Put),
            2 => (prop::collection::vec(0..40u64, 1..8), 0..4usize).prop_map(|(keys, more)| Step::Batch(keys, more)),
            2 => (0..300i64).prop_map(Step::Wait),
            1 => (0..20u8).prop_map(Step::Truncate),
            1 => (0..20u8).prop_map(Step::Start),
        ], 0..300), most in 1..60usize) {
            // One mark a millisecond, so that the window is exact.
            let (window, budget) = (256, Budget::new(most));
            let mut index = Index::new(window, budget.clone());
            let mut list: VecDeque<Listed> = VecDeque::new();
            let (mut now, mut end) = (0, 0i64);
            for step in steps {
                match step {
                    Step::PutNew(_) | Step::Put(_) | Step::Batch(..) => {
                        index.expire(now);
                        list.retain(|listed| now - listed.at_ms < window);
                        let (keys, only_new) = match step {
                            Step::PutNew(key) => (vec![key], true),
                            Step::Put(key) => (vec![key], false),
                            Step::Batch(keys, more) => {
                                index.begin(keys.len() + more);
                                (keys, true)
                            }
                            _ => unreachable!("only these put"),
                        };
                        for key in keys {
                            let known = list.iter().find(|listed| listed.key == key && listed.newest);
                            prop_assert_eq!(index.find(hash(key)), known.map(|listed| Offset(listed.offset)));
                            if known.is_none() || !only_new {
                                index.put(hash(key), Offset(end), now);
                                if list.len() == most {
                                    list.pop_front();
                                }
                                list.iter_mut().filter(|listed| listed.key == key).for_each(|listed| listed.newest = false);
                                list.push_back(Listed { key, offset: end, at_ms: now, newest: true });
                            }
                            end += 1;
                        }
                        index.end();
                    }
                    Step::Wait(ms) => now += ms,
                    Step::Truncate(back) => {
                        end = (end - i64::from(back)).max(0);
                        index.truncate(Offset(end));
                        list.retain(|listed| listed.offset < end);
                    }
                    Step::Start(back) => {
                        let start = end - i64::from(back);
                        index.forget_below(Offset(start));
                        list.retain(|listed| listed.offset >= start);
                    }
                }
                prop_assert_eq!(seen(&index), list.iter().map(|listed| (listed.key, listed.offset)).collect::<Vec<_>>());
                let newest = list.iter().filter(|listed| listed.newest).count();
                prop_assert_eq!((index.len, budget.used(), index.table.len()), (list.len(), list.len(), newest));
            }
        }
    }
}
