//! Index of the tabs and newlines of a block, built 64 bytes at a time.
//!
//! In: a block of bytes. Out: the block with its index: the ascending positions of all tabs and
//! newlines, the number of newlines, and which fields are known to be valid text: ASCII, and
//! two-byte characters.
//! Invariant: the AVX2 and the portable path give the same index; an index is usable only with its
//! own block.

use super::eight_bytes::{HIGHS, ONES, bits, zero_bytes};
use std::ops::Range;

/// The reusable memory of an index, for one block at a time.
#[derive(Debug, Default)]
pub struct Separators {
    positions: Vec<u32>,
    /// One bit per byte: bytes that need a full UTF-8 check, or are NUL.
    odd: Vec<u64>,
    separators: usize,
    newlines: u64,
}

/// Bit masks of 64 bytes, the first byte in the lowest bit.
struct Masks {
    newlines: u64,
    separators: u64,
    nul: u64,
    /// Bytes outside ASCII; among them the first and the second bytes of two-byte characters.
    high: u64,
    leads: u64,
    continuations: u64,
}

impl Masks {
    /// Bytes that need a full check: NUL, bytes of longer characters, and a missing or unexpected
    /// continuation byte. `expected` is 1 if the first byte must be a continuation, and is updated
    /// for the next 64.
    #[inline(always)]
    fn odd(&self, expected: &mut u64) -> u64 {
        let goes_on = self.leads << 1 | *expected;
        *expected = self.leads >> 63;
        self.nul | self.high & !self.leads & !self.continuations | goes_on ^ self.continuations
    }
}

const BLOCK_BYTES: usize = 64;

/// A block and its separators. Only [`Separators::index`] makes one, and its borrow prevents the
/// indexing of another block meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Indexed<'b, 's> {
    block: &'b [u8],
    separators: &'s Separators,
}

impl<'b, 's> Indexed<'b, 's> {
    pub fn block(&self) -> &'b [u8] {
        self.block
    }

    /// The positions of all tabs and newlines of the block, ascending.
    pub fn positions(&self) -> &'s [u32] {
        &self.separators.positions[..self.separators.separators]
    }

    pub fn newlines(&self) -> u64 {
        self.separators.newlines
    }

    /// The field as text, if the index shows that it is UTF-8 without NUL. Valid text may also give
    /// `None`: if the field is long, contains characters of more than two bytes, or ends with the
    /// block. Panics if the field ends beyond the block.
    #[inline]
    #[expect(unsafe_code, reason = "the index has shown that the field is text")]
    pub fn text(&self, field: Range<usize>) -> Option<&'b str> {
        // The field cuts a character only if a continuation byte is at its start or directly behind
        // its end.
        let goes_on = |at: usize| self.block.get(at).is_none_or(|byte| byte & 0xC0 == 0x80);
        if goes_on(field.start) || goes_on(field.end) || !self.separators.is_text(field.clone()) {
            return None;
        }
        // SAFETY: `separators` is the index of this block, so every character that starts in the
        // field and has no odd byte is complete, and by the check above the field neither starts
        // nor ends within a character.
        Some(unsafe { std::str::from_utf8_unchecked(&self.block[field]) })
    }
}

impl Separators {
    /// Indexes `block`. Panics if it is longer than 2^31 bytes.
    pub fn index<'b>(&mut self, block: &'b [u8]) -> Indexed<'b, '_> {
        assert!(block.len() <= 1 << 31, "positions are 32 bits");
        self.find(block);
        Indexed { block, separators: self }
    }

    #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the processor is asked first"))]
    fn find(&mut self, bytes: &[u8]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("popcnt")
        {
            // SAFETY: the processor supports all three features, as checked above.
            return unsafe { self.index_avx2(bytes) };
        }
        self.index_portably(bytes);
    }

    /// True if a field whose ends cut no character is UTF-8 without NUL. May be false for valid
    /// text: if the field is long, or contains characters of more than two bytes.
    #[inline]
    fn is_text(&self, field: Range<usize>) -> bool {
        // A character that is cut short marks the byte after it as odd, so that byte is included.
        let (first, last) = (field.start / BLOCK_BYTES, field.end / BLOCK_BYTES);
        let from_start = self.odd[first] >> (field.start % BLOCK_BYTES);
        match last - first {
            0 => from_start << (BLOCK_BYTES - 1 - field.len()) == 0,
            1 => from_start | self.odd[last] << (BLOCK_BYTES - 1 - field.end % BLOCK_BYTES) == 0,
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
        let mut expected = 0;
        for (block, start) in blocks.iter().chain([&last]).zip((0..).step_by(BLOCK_BYTES)) {
            let masks = masks_of(block);
            self.newlines += u64::from(masks.newlines.count_ones());
            self.odd.push(masks.odd(&mut expected));
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
    let newlines = is(b'\n');
    let no_ascii = mask(low, high);
    let masks = Masks {
        newlines,
        separators: newlines | is(b'\t'),
        nul: is(0),
        high: no_ascii,
        leads: 0,
        continuations: 0,
    };
    if no_ascii == 0 {
        return masks;
    }
    // Bytes compared as signed: above `above` and below `below`.
    let between = |above: u8, below: u8| {
        let (above, below) = (_mm256_set1_epi8(above.cast_signed()), _mm256_set1_epi8(below.cast_signed()));
        let is = |half| _mm256_and_si256(_mm256_cmpgt_epi8(half, above), _mm256_cmpgt_epi8(below, half));
        mask(is(low), is(high))
    };
    Masks {
        leads: between(BEFORE_LEADS, BEHIND_LEADS),
        continuations: no_ascii & !between(LAST_CONTINUATION, 0),
        ..masks
    }
}

/// The first byte of a two-byte character is 0xC2 to 0xDF, the second 0x80 to 0xBF.
const BEFORE_LEADS: u8 = 0xC1;
const BEHIND_LEADS: u8 = 0xE0;
const LAST_CONTINUATION: u8 = 0xBF;

fn masks_portably(block: &[u8; BLOCK_BYTES]) -> Masks {
    let (words, _) = block.as_chunks::<8>();
    let mut masks = Masks { newlines: 0, separators: 0, nul: 0, high: 0, leads: 0, continuations: 0 };
    for (k, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let is = |byte: u8| bits(zero_bytes(word ^ (u64::from(byte) * ONES))) << (8 * k);
        let newlines = is(b'\n');
        masks.newlines |= newlines;
        masks.separators |= newlines | is(b'\t');
        masks.nul |= is(0);
        let all = |highs: u64| bits(highs & HIGHS) << (8 * k);
        masks.high |= all(word);
        // 10xxxxxx; and 110xxxxx except 0xC0 and 0xC1.
        masks.continuations |= all(word & !(word << 1));
        masks.leads |= all(word & word << 1 & !(word << 2) & !zero_bytes(word & (0x1E * ONES)));
    }
    masks
}

/// Writes the position of each set bit. May write garbage after them, up to a multiple of eight.
#[inline(always)]
fn write_positions(mut mask: u64, start: u32, positions: &mut [u32]) {
    const AT_ONCE: usize = 8;
    let (groups, _) = positions.as_chunks_mut::<AT_ONCE>();
    for group in groups {
        for position in group {
            *position = start + mask.trailing_zeros();
            mask &= mask.wrapping_sub(1);
        }
        // Few blocks of 64 bytes have more separators.
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
        fn both_paths_match_a_bytewise_search(
            bytes in prop::collection::vec(
                prop_oneof![
                    20 => Just("x".as_bytes().to_vec()), 2 => Just(vec![b'\t']), 2 => Just(vec![b'\n']),
                    6 => "[\u{80}-\u{7FF}]".prop_map(String::into_bytes),
                    1 => "\\PC".prop_map(String::into_bytes),
                    1 => any::<u8>().prop_map(|byte| vec![byte]),
                    1 => prop::sample::select(vec![0, 0x80, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xFF]).prop_map(|byte| vec![byte]),
                ],
                0..300,
            ),
        ) {
            let bytes: Vec<u8> = bytes.concat();
            let expected: Vec<u32> =
                (0..).zip(&bytes).filter(|(_, b)| matches!(b, b'\t' | b'\n')).map(|(at, _)| at).collect();
            let newlines = bytes.iter().filter(|b| **b == b'\n').count() as u64;
            let mut portable = Separators::default();
            portable.index_portably(&bytes);
            let mut any = Separators::default();
            // Reuses the memory: the previous block must not show.
            any.index(&[b'\n'; 100]);
            any.index(&bytes);
            for separators in [&portable, &any] {
                let indexed = Indexed { block: &bytes, separators };
                prop_assert_eq!(indexed.positions(), &expected);
                prop_assert_eq!(indexed.newlines(), newlines);
                let mut start = 0;
                for end in expected.iter().map(|at| *at as usize) {
                    let field = start..end;
                    start = end + 1;
                    let text = std::str::from_utf8(&bytes[field.clone()]).ok();
                    let text = text.filter(|text| text.chars().all(|c| c != '\0' && c.len_utf8() < 3));
                    let found = indexed.text(field.clone());
                    let long = field.len() > 64;
                    prop_assert!(found == text || (long && found.is_none()), "{field:?}");
                }
            }
        }

        /// Safe code can ask for any range of any block.
        #[test]
        fn invalid_ranges_are_never_text(
            bytes in prop::collection::vec(prop::sample::select(b"ab\t\n\0\xC3\xA9\xC1\xE2\x82\xAC\xFF".to_vec()), 0..140),
        ) {
            let mut separators = Separators::default();
            let indexed = separators.index(&bytes);
            for start in 0..bytes.len() {
                for end in start..bytes.len().min(start + 70) {
                    if let Some(text) = indexed.text(start..end) {
                        prop_assert_eq!(std::str::from_utf8(&bytes[start..end]), Ok(text));
                        prop_assert!(!text.contains('\0'));
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_of_separators_only_are_indexed() {
        let mut separators = Separators::default();
        assert_eq!(separators.index(&[b'\t'; 1000]).positions(), (0..1000).collect::<Vec<u32>>());
    }
}
