//! Memory that begins at a block's address, as writing past the page cache asks for.

use super::BLOCK;

/// Grows in powers of two from this.
const BYTES_MIN: usize = 64 << 10;

/// Used again and again; what it held before is what it holds.
#[derive(Debug, Default)]
pub struct BlockBuffer {
    /// A block longer than what is used of it.
    memory: Vec<u8>,
}

impl BlockBuffer {
    /// `len` bytes of any content.
    ///
    /// # Panics
    /// If `len` is no multiple of [`BLOCK`].
    pub fn bytes(&mut self, len: usize) -> &mut [u8] {
        assert!(len.is_multiple_of(BLOCK), "whole blocks are asked for");
        if self.memory.len() < len + BLOCK {
            // The old one first: its content is not needed.
            self.memory = Vec::new();
            // Zeros from the operating system take no memory before they are written to.
            self.memory = vec![0; len.next_power_of_two().max(BYTES_MIN) + BLOCK];
        }
        let start = self.memory.as_ptr().align_offset(BLOCK);
        &mut self.memory[start..start + len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_blocks_begins_at_a_block() {
        let mut buffer = BlockBuffer::default();
        for blocks in [1, 0, 3, 16, 17, 1, 64, 1000] {
            let bytes = buffer.bytes(blocks * BLOCK);
            assert_eq!(bytes.len(), blocks * BLOCK);
            assert!(bytes.as_ptr().addr().is_multiple_of(BLOCK));
            bytes.fill(1);
        }
    }
}
