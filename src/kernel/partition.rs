//! Movements, and the partition of the shuffle that each belongs to.
//!
//! In: a categorized transaction. Out: 16 bytes in the buffer of its user's partition.
//! Invariant: partitions are rising, disjoint ranges of user_id; what goes in comes out, packed
//! and unpacked without loss.

use crate::domain::category::CategoryId;
use crate::limits::{CHUNK_ROWS, MONTHS_MAX};

/// One transaction's share of monthly spending.
///
/// ```text
/// packed: | month 12 | category 8 | cents + 2^43, 44 bits |
/// ```
/// So the plain order of the two numbers is the order by user, month and category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Movement {
    user_id: u64,
    packed: u64,
}

const CENTS_BITS: u32 = 44;
const CENTS_BIAS: i64 = 1 << (CENTS_BITS - 1);

impl Movement {
    /// `month_index` counts from the job's first month; `cents` lies within `AMOUNT_CENTS_MAX`.
    #[inline]
    pub fn new(user_id: u64, month_index: u32, category: CategoryId, cents: i64) -> Movement {
        assert!(month_index < MONTHS_MAX && (-CENTS_BIAS..CENTS_BIAS).contains(&cents));
        let slot = u64::from(month_index) << 8 | u64::from(category.0);
        Movement { user_id, packed: slot << CENTS_BITS | (cents + CENTS_BIAS) as u64 }
    }

    pub fn user_id(self) -> u64 {
        self.user_id
    }

    pub fn month_index(self) -> u32 {
        (self.packed >> (CENTS_BITS + 8)) as u32
    }

    pub fn category(self) -> CategoryId {
        CategoryId((self.packed >> CENTS_BITS) as u8)
    }

    pub fn cents(self) -> i64 {
        (self.packed & ((1 << CENTS_BITS) - 1)) as i64 - CENTS_BIAS
    }

    /// Whether both belong to one group of monthly spending.
    pub fn same_group(self, other: Movement) -> bool {
        self.user_id == other.user_id && self.packed >> CENTS_BITS == other.packed >> CENTS_BITS
    }

    /// For partitions that wait on disk.
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

/// Splits users into ranges.
#[derive(Clone, Debug)]
pub struct Partitioner {
    /// The first user of each partition but the first, rising.
    starts: Vec<u64>,
}

impl Partitioner {
    /// At most `count` partitions of about equal weight, by a sample of user ids.
    pub fn from_sample(mut sample: Vec<u64>, count: usize) -> Partitioner {
        sample.sort_unstable();
        let quantile = |k: usize| sample.get(k * sample.len() / count).copied();
        let mut starts: Vec<u64> = (1..count).filter_map(quantile).collect();
        starts.dedup();
        Partitioner { starts }
    }

    pub fn count(&self) -> usize {
        self.starts.len() + 1
    }

    #[inline]
    pub fn partition(&self, user_id: u64) -> usize {
        self.starts.partition_point(|&start| start <= user_id)
    }

    /// The first user behind the partition; none for the last one.
    pub fn end(&self, partition: usize) -> Option<u64> {
        self.starts.get(partition).copied()
    }
}

/// Takes full chunks of a partition.
pub trait ChunkSink {
    fn take(&mut self, partition: usize, chunk: Vec<Movement>);
}

/// One worker's buffers, a chunk per partition.
pub struct Scatter<'a, S> {
    partitioner: &'a Partitioner,
    buffers: Vec<Vec<Movement>>,
    sink: S,
}

impl<'a, S: ChunkSink> Scatter<'a, S> {
    pub fn new(partitioner: &'a Partitioner, sink: S) -> Scatter<'a, S> {
        let buffers = vec![Vec::new(); partitioner.count()];
        Scatter { partitioner, buffers, sink }
    }

    #[inline]
    pub fn push(&mut self, movement: Movement) {
        let partition = self.partitioner.partition(movement.user_id);
        let buffer = &mut self.buffers[partition];
        if buffer.len() == buffer.capacity() {
            if buffer.len() >= CHUNK_ROWS {
                self.sink.take(partition, std::mem::take(buffer));
            }
            buffer.reserve_exact(CHUNK_ROWS - buffer.len());
        }
        buffer.push(movement);
    }

    /// Hands over what is left in the buffers.
    pub fn finish(mut self) {
        for (partition, buffer) in self.buffers.into_iter().enumerate() {
            if !buffer.is_empty() {
                self.sink.take(partition, buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::AMOUNT_CENTS_MAX;

    #[test]
    fn a_movement_keeps_its_parts() {
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

    #[test]
    fn partitions_are_ranges_of_about_equal_weight() {
        let partitioner = Partitioner::from_sample((0..1000).map(|n| n * n).collect(), 10);
        assert_eq!(partitioner.count(), 10);
        let mut sizes = vec![0; 10];
        for n in 0..1000u64 {
            let partition = partitioner.partition(n * n);
            assert!(partitioner.end(partition).is_none_or(|end| n * n < end));
            sizes[partition] += 1;
        }
        assert_eq!(sizes, [100; 10]);
        assert_eq!(Partitioner::from_sample(vec![], 8).count(), 1);
        assert_eq!(Partitioner::from_sample(vec![5; 100], 8).count(), 2);
    }
}
