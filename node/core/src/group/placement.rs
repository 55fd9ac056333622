//! Which broker coordinates a group: rendezvous hashing, so that a broker that comes or goes moves only
//! its own share of the groups.
//!
//! The function is part of the cluster's protocol: every node and every version must compute the same.
//! FNV-1a (64 bit) over the group's UTF-8 bytes, then for each broker SplitMix64's finaliser over
//! `fnv + golden ratio * (broker id + 1)`; the largest weight wins, of equal ones the smaller id.

use strandline_record::BrokerId;

/// The coordinator of `group` among `unfenced` brokers; none if there are none. The order of the brokers
/// does not matter.
pub fn coordinator_for(group: &str, unfenced: impl IntoIterator<Item = BrokerId>) -> Option<BrokerId> {
    let mut hash = Fnv1a::default();
    hash.add(group.as_bytes());
    let hash = hash.get();
    unfenced.into_iter().max_by_key(|broker| (weight(hash, *broker), std::cmp::Reverse(*broker)))
}

fn weight(group_hash: u64, broker: BrokerId) -> u64 {
    let mut z = group_hash.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(broker.get().wrapping_add(1)));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a, 64 bit, over what is added.
pub(crate) struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Fnv1a(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv1a {
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub fn get(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(ids: &[u64]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    #[test]
    fn the_function_never_changes() {
        // FNV-1a test vectors, and placements fixed when this was written.
        let mut hash = Fnv1a::default();
        assert_eq!(hash.get(), 0xcbf29ce484222325);
        hash.add(b"foo");
        hash.add(b"bar");
        assert_eq!(hash.get(), 0x85944171f73967e8);
        let placed: Vec<u64> = ["a", "b", "orders", "payments", "grüße", ""]
            .iter()
            .map(|g| coordinator_for(g, brokers(&[1, 2, 3])).unwrap().get())
            .collect();
        assert_eq!(placed, [1, 2, 1, 2, 3, 2]);
    }

    #[test]
    fn groups_spread_evenly_and_only_the_lost_brokers_groups_move() {
        let all = brokers(&[1, 2, 3, 4, 5]);
        let mut counts = [0u32; 6];
        for i in 0..10_000 {
            let group = format!("group-{i}");
            let before = coordinator_for(&group, all.iter().copied()).unwrap();
            counts[before.get() as usize] += 1;
            assert_eq!(before, coordinator_for(&group, all.iter().rev().copied()).unwrap());
            let after = coordinator_for(&group, all.iter().copied().filter(|b| b.get() != 3)).unwrap();
            assert!(after == before || before == BrokerId(3), "{group} moved from {before} to {after}");
        }
        assert!(counts[1..].iter().all(|c| (1_800..2_200).contains(c)), "{counts:?}");
        assert_eq!(coordinator_for("g", []), None);
    }
}
