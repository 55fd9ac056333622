//! Which partition a key belongs to: exactly as Kafka's Java client decides, so that clients of either kind
//! put one key into one partition.

use crate::PartitionId;

/// 32-bit MurmurHash2 with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

/// The partition, of `partitions`, that records with this key go to.
///
/// # Panics
/// If `partitions` is not positive.
pub fn partition_for_key(key: &[u8], partitions: i32) -> PartitionId {
    assert!(partitions > 0, "a topic has partitions");
    PartitionId((murmur2(key) & i32::MAX) % partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's UtilsTest.testMurmur2.
    #[test]
    fn keys_have_the_hashes_of_kafkas_java_client() {
        for (key, hash) in [
            ("21", -973932308),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            ("abc", 479470107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_loses_its_sign_bit_and_not_its_sign() {
        // -973932308 & 0x7fffffff = 1173551340, whereas its absolute value would give another partition.
        assert_eq!(partition_for_key(b"21", 1000), PartitionId(340));
        assert_eq!(partition_for_key(b"abc", 1), PartitionId(0));
    }
}
