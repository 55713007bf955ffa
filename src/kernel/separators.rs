//! Where the tabs and newlines of a block stand, found 64 bytes at a time.
//!
//! In: bytes. Out: the positions of all tabs and newlines, rising, the number of newlines, and
//! where bytes stand that are no plain ASCII.
//! Invariant: the wide path and the portable one find the same.

use std::ops::Range;

/// The separators of one block at a time; the memory is used again for the next.
#[derive(Debug, Default)]
pub struct Separators {
    positions: Vec<u32>,
    /// Of each 64 bytes, those that are no plain ASCII.
    odd: Vec<u64>,
    separators: usize,
    newlines: u64,
}

/// Of 64 bytes, the first one in the lowest bit.
struct Masks {
    newlines: u64,
    separators: u64,
    /// NUL, or no ASCII.
    odd: u64,
}

const BLOCK_BYTES: usize = 64;

impl Separators {
    /// Looks through `bytes`, of which there are at most 2^31.
    pub fn index(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= 1 << 31, "positions are 32 bits");
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("popcnt")
        {
            // SAFETY: the processor has all three features, as was just asked.
            return unsafe { self.index_avx2(bytes) };
        }
        self.index_portably(bytes);
    }

    /// Of every tab and newline, rising.
    pub fn positions(&self) -> &[u32] {
        &self.positions[..self.separators]
    }

    pub fn newlines(&self) -> u64 {
        self.newlines
    }

    /// Whether every byte in `range`, which is not empty, is ASCII and none is NUL. It may be
    /// doubted without reason where the range is long.
    #[inline]
    pub fn is_plain(&self, range: Range<usize>) -> bool {
        let (first, last) = (range.start / BLOCK_BYTES, (range.end - 1) / BLOCK_BYTES);
        let from_start = self.odd[first] >> (range.start % BLOCK_BYTES);
        match last - first {
            0 => from_start << (BLOCK_BYTES - range.len()) == 0,
            1 => from_start | self.odd[last] << (BLOCK_BYTES - 1 - (range.end - 1) % BLOCK_BYTES) == 0,
            _ => self.odd[first..=last].iter().all(|odd| *odd == 0),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,popcnt")]
    fn index_avx2(&mut self, bytes: &[u8]) {
        self.index_blocks(bytes, |block| masks_avx2(block));
    }

    fn index_portably(&mut self, bytes: &[u8]) {
        self.index_blocks(bytes, masks_portably);
    }

    #[inline(always)]
    fn index_blocks(&mut self, bytes: &[u8], masks_of: impl Fn(&[u8; BLOCK_BYTES]) -> Masks) {
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        let mut last = [b' '; BLOCK_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        (self.separators, self.newlines) = (0, 0);
        self.odd.clear();
        for (block, start) in blocks.iter().chain([&last]).zip((0..).step_by(BLOCK_BYTES)) {
            let masks = masks_of(block);
            self.newlines += u64::from(masks.newlines.count_ones());
            self.odd.push(masks.odd);
            if self.positions.len() < self.separators + BLOCK_BYTES {
                self.positions.resize(2 * self.positions.len() + BLOCK_BYTES, 0);
            }
            write_positions(masks.separators, start, &mut self.positions[self.separators..]);
            self.separators += masks.separators.count_ones() as usize;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,popcnt")]
fn masks_avx2(block: &[u8; BLOCK_BYTES]) -> Masks {
    use std::arch::x86_64::*;
    let half = |at: usize| {
        let word = |k: usize| {
            let bytes = block[at + 8 * k..at + 8 * k + 8].try_into().expect("eight bytes");
            i64::from_le_bytes(bytes)
        };
        _mm256_set_epi64x(word(3), word(2), word(1), word(0))
    };
    let (low, high) = (half(0), half(32));
    let mask = |low: __m256i, high: __m256i| {
        let bits = |half| u64::from(_mm256_movemask_epi8(half).cast_unsigned());
        bits(low) | bits(high) << 32
    };
    let is = |byte: u8| {
        let byte = _mm256_set1_epi8(byte.cast_signed());
        mask(_mm256_cmpeq_epi8(low, byte), _mm256_cmpeq_epi8(high, byte))
    };
    // As signed bytes, NUL and all that is no ASCII lie below 1.
    let one = _mm256_set1_epi8(1);
    let odd = mask(_mm256_cmpgt_epi8(one, low), _mm256_cmpgt_epi8(one, high));
    let newlines = is(b'\n');
    Masks { newlines, separators: newlines | is(b'\t'), odd }
}

fn masks_portably(block: &[u8; BLOCK_BYTES]) -> Masks {
    let (words, _) = block.as_chunks::<8>();
    let mut masks = Masks { newlines: 0, separators: 0, odd: 0 };
    for (k, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let is = |byte: u8| bits(zero_bytes(word ^ (u64::from(byte) * ONES))) << (8 * k);
        let newlines = is(b'\n');
        masks.newlines |= newlines;
        masks.separators |= newlines | is(b'\t');
        masks.odd |= is(0) | bits(word & HIGHS) << (8 * k);
    }
    masks
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x80 * ONES;

/// The high bit of every byte that is zero.
fn zero_bytes(word: u64) -> u64 {
    !(((word & !HIGHS) + !HIGHS) | word) & HIGHS
}

/// The high bits of eight bytes, side by side.
fn bits(highs: u64) -> u64 {
    (highs >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Writes the position of each bit; behind them, of the places for eight, anything.
#[inline(always)]
fn write_positions(mut mask: u64, start: u32, positions: &mut [u32]) {
    const AT_ONCE: usize = 8;
    let (groups, _) = positions.as_chunks_mut::<AT_ONCE>();
    for group in groups {
        for position in group {
            *position = start + mask.trailing_zeros();
            mask &= mask.wrapping_sub(1);
        }
        // Few blocks of 64 bytes hold more.
        if mask == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_paths_find_what_is_found_slowly(
            bytes in prop::collection::vec(
                prop_oneof![6 => Just(b'x'), 2 => Just(b'\t'), 2 => Just(b'\n'), 1 => Just(b'\r'), 1 => any::<u8>()],
                0..400,
            ),
            plain in any::<bool>(),
        ) {
            let bytes: Vec<u8> = bytes.into_iter().map(|b| if plain { b.clamp(1, 127) } else { b }).collect();
            let slowly: Vec<u32> =
                (0..).zip(&bytes).filter(|(_, b)| matches!(b, b'\t' | b'\n')).map(|(at, _)| at).collect();
            let newlines = bytes.iter().filter(|b| **b == b'\n').count() as u64;
            let mut portable = Separators::default();
            portable.index_portably(&bytes);
            let mut any = Separators::default();
            // Used again: what was there before does not show.
            any.index(&[b'\n'; 100]);
            any.index(&bytes);
            for separators in [portable, any] {
                prop_assert_eq!(separators.positions(), &slowly);
                prop_assert_eq!(separators.newlines(), newlines);
                for (start, length) in (0..bytes.len()).zip([1, 2, 7, 63, 64, 65, 127, 200].into_iter().cycle()) {
                    let range = start..(start + length).min(bytes.len());
                    let is_plain = bytes[range.clone()].iter().all(|b| (1..128).contains(b));
                    let said = separators.is_plain(range.clone());
                    let long = range.len() > 64;
                    prop_assert!(said == is_plain || (long && is_plain), "{range:?}");
                }
            }
        }
    }

    #[test]
    fn every_byte_may_be_a_separator() {
        let mut separators = Separators::default();
        separators.index(&[b'\t'; 1000]);
        assert_eq!(separators.positions(), (0..1000).collect::<Vec<u32>>());
    }
}
