//! A sample of a log's lines, for estimating how many lines two logs have in common.
//!
//! In: hashes of lines. Out: the hashes whose lowest `level` bits are zero: all at level 0,
//! otherwise one in 2^level.
//! Invariant: a line is in the sample of every log that contains it, if the log's level admits it,
//! so samples are comparable; their size is bounded.

use crate::limits::{LINE_SAMPLE, LINE_SAMPLES};

/// Lower bound of the length of a line of a transaction log, in bytes.
const LINE_BYTES: u64 = 32;

/// The hashes of a log's accepted lines that its level admits, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineSample {
    pub level: u32,
    pub hashes: Vec<u64>,
}

impl LineSample {
    pub fn new(level: u32) -> LineSample {
        LineSample { level, hashes: Vec::new() }
    }

    #[inline]
    pub fn add(&mut self, hash: u64) {
        if lets_in(self.level, hash) {
            self.hashes.push(hash);
        }
    }

    /// Adds the sample of another split of the same log.
    pub fn append(&mut self, other: LineSample) {
        self.level = self.level.max(other.level);
        self.hashes.extend(other.hashes);
    }
}

/// True if a line with this hash is in samples of this level.
#[inline]
pub fn lets_in(level: u32, hash: u64) -> bool {
    hash & ((1 << level) - 1) == 0
}

/// The level for a log of `bytes` (decompressed) in a run that reads `all_bytes`.
pub fn level(bytes: u64, all_bytes: u64) -> u32 {
    let needed =
        |bytes: u64, most: u64| (bytes / LINE_BYTES).div_ceil(most).max(1).next_power_of_two().ilog2();
    needed(bytes, LINE_SAMPLE).max(needed(all_bytes, LINE_SAMPLES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_logs_are_sampled_whole_and_large_ones_within_bounds() {
        assert_eq!(level(0, 0), 0);
        assert_eq!(level(LINE_SAMPLE * LINE_BYTES, LINE_SAMPLE * LINE_BYTES), 0);
        for bytes in [1 << 20, 1 << 30, 1 << 40, u64::MAX] {
            assert!((bytes / LINE_BYTES) >> level(bytes, bytes) <= LINE_SAMPLE);
            assert!((bytes / LINE_BYTES) >> level(1, bytes) <= LINE_SAMPLES);
        }
        assert!(lets_in(0, 7) && !lets_in(1, 7) && lets_in(3, 8) && !lets_in(4, 8));
    }
}
