//! SIMD within a register: tests on the eight bytes of a word at once.
//!
//! In: a word of text, its first byte lowest. Out: masks with the result for each byte in its high
//! bit, or a boolean.
//! Invariant: the result for a byte does not depend on the other bytes.

pub const ONES: u64 = 0x0101_0101_0101_0101;
pub const HIGHS: u64 = 0x80 * ONES;
pub const ZEROS: u64 = b'0' as u64 * ONES;

/// The high bit of every zero byte.
#[inline]
pub fn zero_bytes(word: u64) -> u64 {
    !(((word & !HIGHS) + !HIGHS) | word) & HIGHS
}

/// The high bit of every byte in `first..=last`; both bounds are ASCII.
#[inline]
pub fn between(word: u64, first: u8, last: u8) -> u64 {
    // With the high bits cleared, no addition carries into the next byte.
    let low = word & !HIGHS;
    let at_least = low + ONES * u64::from(0x80 - first);
    let beyond = low + ONES * u64::from(0x7f - last);
    at_least & !beyond & !word & HIGHS
}

/// True if each byte is at most the byte at its place in `limits`, all of which are ASCII.
#[inline]
pub fn all_at_most(bytes: u64, limits: u64) -> bool {
    (bytes | (bytes & !HIGHS).wrapping_add(!HIGHS - limits)) & HIGHS == 0
}

/// Gathers the high bits of the eight bytes into the lowest eight bits.
#[inline]
pub fn bits(highs: u64) -> u64 {
    (highs >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn masks_match_bytewise_results(bytes in any::<[u8; 8]>(), first in 0..128u8, length in 0..128u8) {
            let (word, last) = (u64::from_le_bytes(bytes), first.saturating_add(length).min(127));
            let expected = |is: &dyn Fn(u8) -> bool| {
                (0..8).filter(|at| is(bytes[*at])).fold(0, |bits, at| bits | 1u64 << at)
            };
            prop_assert_eq!(bits(word & HIGHS), expected(&|byte| byte >= 0x80));
            prop_assert_eq!(bits(zero_bytes(word)), expected(&|byte| byte == 0));
            prop_assert_eq!(bits(between(word, first, last)), expected(&|byte| (first..=last).contains(&byte)));
            prop_assert_eq!(all_at_most(word, ONES * u64::from(last)), expected(&|byte| byte <= last) == 0xff);
        }
    }
}
