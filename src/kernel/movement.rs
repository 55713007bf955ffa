//! Movements: one transaction's share of monthly spending, and their packed form between map and
//! reduce.
//!
//! In: a categorized transaction. Out: at most 8 bytes, usually 5, if it is within the ranges
//! expected from a sample of the logs; otherwise 16.
//! Invariant: packing and unpacking are lossless.

use super::prefetch::prefetch;
use crate::domain::category::CategoryId;
use crate::limits::MONTHS_MAX;
use std::ops::{Range, RangeInclusive};

/// A transaction's share of monthly spending.
///
/// ```text
/// packed: | month 12 | category 8 | cents + 2^43, 44 bits |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Movement {
    user_id: u64,
    packed: u64,
}

const CENTS_BITS: u32 = 44;
const CENTS_BIAS: i64 = 1 << (CENTS_BITS - 1);

impl Movement {
    /// `month_index` counts from the job's first month. Panics if it is not below `MONTHS_MAX`, or
    /// if the cents exceed 44 bits (`AMOUNT_CENTS_MAX` fits).
    #[inline]
    pub fn new(user_id: u64, month_index: u32, category: CategoryId, cents: i64) -> Movement {
        assert!(month_index < MONTHS_MAX && (-CENTS_BIAS..CENTS_BIAS).contains(&cents));
        let slot = u64::from(month_index) << 8 | u64::from(category.0);
        Movement { user_id, packed: slot << CENTS_BITS | (cents + CENTS_BIAS) as u64 }
    }

    pub fn user_id(&self) -> u64 {
        self.user_id
    }

    pub fn month_index(&self) -> u32 {
        (self.packed >> (CENTS_BITS + 8)) as u32
    }

    pub fn category(&self) -> CategoryId {
        CategoryId((self.packed >> CENTS_BITS) as u8)
    }

    pub fn cents(&self) -> i64 {
        (self.packed & ((1 << CENTS_BITS) - 1)) as i64 - CENTS_BIAS
    }

    /// The group key in the order of publication: month, user, category.
    pub fn group(&self) -> (u32, u64, u8) {
        (self.month_index(), self.user_id, self.category().0)
    }

    /// The form of movements spilled to disk.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.user_id.to_le_bytes());
        bytes[8..].copy_from_slice(&self.packed.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; 16]) -> Movement {
        let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
        Movement { user_id: number(&bytes[..8]), packed: number(&bytes[8..]) }
    }
}

/// The bit layout of a job's packed movements, at most 64 bits. Month, user and category, the
/// highest bits, are the group key in the order of publication.
///
/// ```text
/// | month - first month | user - first user of the partition | category | cents + half their range |
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    first_month: u32,
    month_bits: u32,
    user_bits: u32,
    category_bits: u32,
    cents_bits: u32,
}

/// With fewer bits for cents too many movements would not fit.
const PACKED_CENTS_BITS_MIN: u32 = 20;

/// The number of bits needed for numbers up to `most`.
pub fn bits(most: u64) -> u32 {
    u64::BITS - most.leading_zeros()
}

#[inline]
fn low_bits(number: u64, bits: u32) -> u64 {
    number & ((1 << bits) - 1)
}

impl Packing {
    /// A layout for these months, users within `user_bits` bits, so that cents get
    /// `cents_bits_wanted` bits if possible. `None` if fewer than `PACKED_CENTS_BITS_MIN` are
    /// left for cents.
    pub fn new(
        months: RangeInclusive<u32>,
        user_bits: u32,
        categories: usize,
        cents_bits_wanted: u32,
    ) -> Option<Packing> {
        let first_month = *months.start();
        let month_bits = bits(u64::from(*months.end() - first_month));
        let category_bits = bits(categories.saturating_sub(1) as u64);
        let key_bits = month_bits + user_bits + category_bits;
        let room = u64::BITS.checked_sub(key_bits).filter(|room| *room >= PACKED_CENTS_BITS_MIN)?;
        let wanted = cents_bits_wanted.clamp(PACKED_CENTS_BITS_MIN, room.min(CENTS_BITS));
        // Cents also get the unused bits of the last byte.
        let cents_bits = ((key_bits + wanted).next_multiple_of(8) - key_bits).min(CENTS_BITS);
        Some(Packing { first_month, month_bits, user_bits, category_bits, cents_bits })
    }

    /// `base` is the first user of the partition. `None` if the movement does not fit.
    #[inline]
    pub fn pack(&self, base: u64, movement: Movement) -> Option<u64> {
        let month = u64::from(movement.month_index().wrapping_sub(self.first_month));
        let user = movement.user_id().wrapping_sub(base);
        let cents = (movement.cents() + self.cents_max()).cast_unsigned();
        let category = u64::from(movement.category().0);
        let beyond = month >> self.month_bits
            | user >> self.user_bits
            | category >> self.category_bits
            | cents >> self.cents_bits;
        let key = (month << self.user_bits | user) << self.category_bits | category;
        (beyond == 0).then_some(key << self.cents_bits | cents)
    }

    /// The month of a packed movement.
    #[inline]
    pub fn month_index(&self, packed: u64) -> u32 {
        let month = packed >> (self.cents_bits + self.category_bits) >> self.user_bits;
        self.first_month + month as u32
    }

    /// The group key of a packed movement.
    #[inline]
    pub fn key(&self, packed: u64) -> u64 {
        packed >> self.cents_bits
    }

    /// The user and the category of a packed movement.
    #[inline]
    pub fn user_and_category(&self, base: u64, packed: u64) -> (u64, CategoryId) {
        let key = self.key(packed);
        let user = low_bits(key >> self.category_bits, self.user_bits);
        (base + user, CategoryId(low_bits(key, self.category_bits) as u8))
    }

    /// Cents of a packed movement are within `-cents_max()..cents_max()`.
    pub fn cents_max(&self) -> i64 {
        1 << (self.cents_bits - 1)
    }

    /// The cents of a packed movement.
    #[inline]
    pub fn cents(&self, packed: u64) -> i64 {
        low_bits(packed, self.cents_bits).cast_signed() - self.cents_max()
    }

    #[inline]
    pub fn unpack(&self, base: u64, packed: u64) -> Movement {
        let (user_id, category) = self.user_and_category(base, packed);
        Movement::new(user_id, self.month_index(packed), category, self.cents(packed))
    }

    /// The bits of the group key: all above the cents.
    pub fn key_bits(&self) -> Range<u32> {
        self.cents_bits..self.cents_bits + self.category_bits + self.user_bits + self.month_bits
    }

    /// The size of a packed movement in whole bytes.
    pub fn row_bytes(&self) -> usize {
        self.key_bits().end.div_ceil(8) as usize
    }
}

/// Packed movements, stored without gaps in as few bytes as their layout needs: they are most of a
/// run's memory, and memory bandwidth costs time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedRows {
    bytes: Vec<u8>,
    row_bytes: usize,
}

const WORD_BYTES: usize = size_of::<u64>();

impl PackedRows {
    /// From the result of [`PackedRows::bytes`].
    pub fn of_bytes(bytes: Vec<u8>, row_bytes: usize) -> PackedRows {
        assert!(bytes.is_empty() || bytes.len().is_multiple_of(row_bytes));
        PackedRows { bytes, row_bytes }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    pub fn rows(&self) -> usize {
        self.bytes.len() / self.row_bytes.max(1)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = u64> {
        let unused_bits = 8 * (WORD_BYTES - self.row_bytes) as u32;
        (0..self.rows()).map(move |row| {
            let start = row * self.row_bytes;
            match self.bytes[start..].first_chunk::<WORD_BYTES>() {
                Some(word) => u64::from_le_bytes(*word) << unused_bits >> unused_bits,
                None => {
                    let mut word = [0; WORD_BYTES];
                    word[..self.row_bytes].copy_from_slice(&self.bytes[start..][..self.row_bytes]);
                    u64::from_le_bytes(word)
                }
            }
        })
    }

    /// An empty list with room for `bytes` bytes.
    pub fn with_capacity(bytes: usize, row_bytes: usize) -> PackedRows {
        PackedRows { bytes: Vec::with_capacity(bytes), row_bytes }
    }

    /// True if the next row would need a reallocation.
    pub fn is_full(&self) -> bool {
        self.bytes.len() + WORD_BYTES > self.bytes.capacity()
    }

    #[inline]
    pub fn push(&mut self, row: u64) {
        let (start, row_bytes) = (self.bytes.len(), self.row_bytes);
        // On each new cache line, prefetches the next one.
        if start % 64 < row_bytes {
            prefetch(self.bytes.spare_capacity_mut().get(64));
        }
        // Writing a whole word is fastest; the next row overwrites the excess.
        self.bytes.extend_from_slice(&row.to_le_bytes());
        self.bytes.truncate(start + row_bytes);
    }
}

/// Movements of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    Packed(PackedRows),
    Wide(Vec<Movement>),
}

impl Chunk {
    pub fn rows(&self) -> usize {
        match self {
            Chunk::Packed(rows) => rows.rows(),
            Chunk::Wide(rows) => rows.len(),
        }
    }

    /// Allocated memory in bytes.
    pub fn held_bytes(&self) -> u64 {
        let bytes = match self {
            Chunk::Packed(rows) => rows.bytes.capacity(),
            Chunk::Wide(rows) => rows.capacity() * size_of::<Movement>(),
        };
        bytes as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::AMOUNT_CENTS_MAX;

    #[test]
    fn packed_rows_of_any_width_are_read_back() {
        for row_bytes in 1..=WORD_BYTES {
            let all = u64::MAX >> (64 - 8 * row_bytes);
            let mut rows = PackedRows::with_capacity(1000, row_bytes);
            let mut expected = Vec::new();
            while !rows.is_full() {
                let row = [all, 0, 1, all - 1, expected.len() as u64 & all][expected.len() % 5];
                rows.push(row);
                expected.push(row);
            }
            assert_eq!(rows.rows(), (1000 - WORD_BYTES) / row_bytes + 1, "full");
            assert!(rows.iter().eq(expected.iter().copied()));
            assert_eq!(PackedRows::of_bytes(rows.bytes().to_vec(), row_bytes), rows);
        }
        assert!(PackedRows::default().is_full() && PackedRows::default().iter().next().is_none());
    }

    #[test]
    fn a_movement_keeps_its_fields() {
        for cents in [0, 1, -1, AMOUNT_CENTS_MAX, -AMOUNT_CENTS_MAX] {
            for (user, month, category) in [(0, 0, 0), (u64::MAX >> 1, MONTHS_MAX - 1, 255)] {
                let movement = Movement::new(user, month, CategoryId(category), cents);
                let movement = Movement::from_bytes(&movement.to_bytes());
                assert_eq!(
                    (movement.user_id(), movement.month_index(), movement.category().0, movement.cents()),
                    (user, month, category, cents)
                );
            }
        }
    }
}
