//! Kafka's variable-length integers: zigzag, then 7 bits a byte, lowest first, the top bit set on all but the
//! last. A number of 32 bits has the same bytes as the same number of 64.

use bytes::{BufMut, BytesMut};

pub(crate) fn put(out: &mut BytesMut, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// Bytes that [`put`] writes.
pub(crate) fn size(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Takes a number off the front of `bytes`; `None` when it does not end in them or has more than 64 bits.
pub(crate) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// [`take_i64`] for a number that must fit 32 bits.
pub(crate) fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    take_i64(bytes).and_then(|value| i32::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_bytes_that_kafka_gives_them() {
        for (value, bytes) in [
            (0i64, &[0u8][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut out = BytesMut::new();
            put(&mut out, value);
            assert_eq!((&out[..], size(value)), (bytes, bytes.len()), "{value}");
            let mut rest = bytes;
            assert_eq!((take_i64(&mut rest), rest.len()), (Some(value), 0));
        }
    }

    #[test]
    fn a_number_that_is_cut_or_too_long_is_refused() {
        assert_eq!(take_i64(&mut &[0x80u8][..]), None);
        assert_eq!(take_i64(&mut &[][..]), None);
        assert_eq!(take_i64(&mut &[0xff; 11][..]), None);
        assert_eq!(take_i64(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]), None);
        assert_eq!(take_i32(&mut &[0x80, 0x80, 0x80, 0x80, 0x10][..]), None);
    }
}
