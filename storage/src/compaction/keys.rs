//! Which offset each key was seen at last, in bounded memory.
//!
//! An open-addressing table of 128-bit hashes; the keys themselves are not kept, as in Kafka. Two keys with one hash
//! would be taken for one, and the older one's value removed: the hash (SipHash-1-3) is keyed with the directory's
//! id, which was drawn at random, so that a producer cannot look for such keys.
//!
//! Invariant: at most [`LOAD_PERCENT`] of the slots are in use, so a search ends.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;
use strandline_record::Offset;
use uuid::Uuid;

/// Slots that may be in use.
const LOAD_PERCENT: usize = 80;
const EMPTY: i64 = -1;

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: [u64; 2],
    offset: i64,
}

/// See the module.
#[derive(Debug)]
pub struct KeyMap {
    slots: Vec<Slot>,
    used: usize,
    secret: Uuid,
}

impl KeyMap {
    /// Room for as many keys as `bytes` hold, but not for more than `keys`; for one at least.
    pub fn new(bytes: usize, keys: u64, secret: Uuid) -> Self {
        let wanted = usize::try_from(keys).unwrap_or(usize::MAX).saturating_mul(100) / LOAD_PERCENT;
        let slots = (bytes / size_of::<Slot>()).min(wanted.saturating_add(2)).max(2);
        KeyMap { slots: vec![Slot { hash: [0; 2], offset: EMPTY }; slots], used: 0, secret }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = SipHasher13::new_with_key(self.secret.as_bytes());
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }

    /// The slot that holds the hash, or the empty one where it belongs.
    fn find(&self, hash: [u64; 2]) -> usize {
        let mut at = (hash[0] % self.slots.len() as u64) as usize;
        loop {
            let slot = &self.slots[at];
            if slot.offset == EMPTY || slot.hash == hash {
                return at;
            }
            at = (at + 1) % self.slots.len();
        }
    }

    /// Notes that `key` was seen at `offset`, which is above every offset noted before. `false`: there is no room for
    /// another key.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let at = self.find(hash);
        if self.slots[at].offset == EMPTY {
            if self.used > 0 && (self.used + 1) * 100 > self.slots.len() * LOAD_PERCENT {
                return false;
            }
            self.used += 1;
        }
        self.slots[at] = Slot { hash, offset: offset.get() };
        true
    }

    /// Where `key` was seen last.
    pub fn last(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots[self.find(self.hash(key))];
        (slot.offset != EMPTY).then_some(Offset(slot.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(bytes: usize, keys: u64) -> KeyMap {
        KeyMap::new(bytes, keys, Uuid::from_u128(7))
    }

    #[test]
    fn the_last_offset_of_each_key_is_found() {
        let mut map = map(1 << 16, 1000);
        for n in 0..3000u32 {
            assert!(map.put(&(n % 1000).to_be_bytes(), Offset(n.into())));
        }
        for n in 0..1000u32 {
            assert_eq!(map.last(&n.to_be_bytes()), Some(Offset(i64::from(n) + 2000)));
        }
        assert_eq!(map.last(b"another"), None);
    }

    #[test]
    fn a_full_map_takes_known_keys_and_no_others() {
        let mut map = map(100 * size_of::<Slot>(), u64::MAX);
        let fits = (0..100u32).take_while(|n| map.put(&n.to_be_bytes(), Offset((*n).into()))).count();
        assert_eq!(fits, LOAD_PERCENT);
        assert!(map.put(&0u32.to_be_bytes(), Offset(500)), "a key that is there needs no room");
        assert_eq!(map.last(&0u32.to_be_bytes()), Some(Offset(500)));
        assert_eq!(map.last(&99u32.to_be_bytes()), None);
    }

    #[test]
    fn there_is_always_room_for_one_key() {
        let mut map = map(0, 0);
        assert!(map.put(b"key", Offset(1)));
        assert!(!map.put(b"other", Offset(2)));
        assert_eq!(map.last(b"key"), Some(Offset(1)));
        assert_eq!(map.last(b"other"), None);
    }
}
