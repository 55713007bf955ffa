//! Splits users into partitions of the shuffle, sized by a sample of the logs.
//!
//! In: a sample; then movements. Out: each movement in the buffer of its user's partition, packed
//! if it is within the ranges expected from the sample.
//! Invariant: partitions are ascending, disjoint ranges of user_id.

use super::movement::{Chunk, Movement, PackedRows, Packing, bits};
use crate::limits::CHUNK_BYTES;

/// At most one in N sampled amounts may overflow the packed cents field.
const WIDE_CENTS_EVERY: usize = 256;

/// Users, months and amounts of sampled transactions.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub users: Vec<u64>,
    /// The first and the last month index; `None` if the sample is empty.
    pub months: Option<(u32, u32)>,
    /// Bits needed by each amount, including its sign.
    cents_bits: Vec<u32>,
}

impl Sample {
    pub fn add(&mut self, user_id: u64, month_index: u32, cents: i64) {
        let (first, last) = self.months.unwrap_or((month_index, month_index));
        self.months = Some((first.min(month_index), last.max(month_index)));
        self.users.push(user_id);
        self.cents_bits.push(bits(cents.unsigned_abs()) + 1);
    }

    pub fn append(&mut self, other: Sample) {
        let edges = [self.months, other.months].into_iter().flatten();
        self.months = edges.reduce(|one, two| (one.0.min(two.0), one.1.max(two.1)));
        self.users.extend(other.users);
        self.cents_bits.extend(other.cents_bits);
    }

    /// Bits that suffice for all but one in [`WIDE_CENTS_EVERY`] amounts.
    fn cents_bits(&mut self) -> u32 {
        self.cents_bits.sort_unstable();
        let wider = self.cents_bits.len() / WIDE_CENTS_EVERY;
        self.cents_bits.iter().nth_back(wider).copied().unwrap_or(0)
    }
}

/// Maps users to ranges of users.
#[derive(Clone, Debug)]
pub struct Partitioner {
    /// The first user of each partition except the first, ascending.
    starts: Vec<u64>,
    /// The number of starts before each of [`BUCKETS`] equal ranges of ids, beginning at the first
    /// start, and finally of all starts: narrows the binary search.
    starts_before: Vec<u16>,
    bucket_shift: u32,
    /// By partition: the first user that can be packed.
    bases: Vec<u64>,
    packing: Option<Packing>,
}

const BUCKETS: u64 = 4096;

impl Partitioner {
    /// At most `count` partitions of about equal weight.
    pub fn from_sample(mut sample: Sample, count: usize, categories: usize) -> Partitioner {
        let cents_bits = sample.cents_bits();
        let users = &mut sample.users;
        users.sort_unstable();
        let quantile = |k: usize| users.get(k * users.len() / count).copied();
        let mut starts: Vec<u64> = (1..count).filter_map(quantile).collect();
        starts.dedup();
        let (first, last) = (starts.first().copied().unwrap_or(0), starts.last().copied().unwrap_or(0));
        let bucket_shift = (last - first + 1).div_ceil(BUCKETS).next_power_of_two().trailing_zeros();
        let before = |bucket: u64| {
            let low = first.saturating_add(bucket << bucket_shift);
            starts.partition_point(|start| *start < low) as u16
        };
        let starts_before = (0..BUCKETS).map(before).chain([starts.len() as u16]).collect();
        // The widest partition, and a quarter more for users beyond both ends of the sample.
        let edges = users.first().into_iter().chain(&starts).chain(users.last());
        let edges: Vec<u64> = edges.copied().collect();
        let widest = edges.windows(2).map(|edge| edge[1] - edge[0]).max().unwrap_or(0);
        let user_bits = bits(widest.saturating_add(widest / 4));
        let room = 1u64.checked_shl(user_bits).unwrap_or(u64::MAX);
        let base = match (starts.first(), users.first()) {
            (Some(start), _) => start.saturating_sub(room - 1),
            (None, first) => first.copied().unwrap_or(0).saturating_sub(room / 4),
        };
        let bases = [base].into_iter().chain(starts.iter().copied()).collect();
        let packing = sample
            .months
            .and_then(|(first, last)| Packing::new(first..=last, user_bits, categories, cents_bits));
        Partitioner { starts, starts_before, bucket_shift, bases, packing }
    }

    pub fn count(&self) -> usize {
        self.starts.len() + 1
    }

    #[inline]
    pub fn partition(&self, user_id: u64) -> usize {
        let Some(first) = self.starts.first() else { return 0 };
        let Some(offset) = user_id.checked_sub(*first) else { return 0 };
        let bucket = (offset >> self.bucket_shift).min(BUCKETS - 1) as usize;
        let before = |bucket: usize| usize::from(self.starts_before[bucket]);
        let (low, high) = (before(bucket), before(bucket + 1));
        low + self.starts[low..high].partition_point(|&start| start <= user_id)
    }

    /// The first user after the partition; `None` for the last partition.
    pub fn end(&self, partition: usize) -> Option<u64> {
        self.starts.get(partition).copied()
    }

    /// The layout of packed movements and the base of the partition; `None` if they are not packed.
    pub fn packing(&self, partition: usize) -> Option<(Packing, u64)> {
        self.packing.map(|packing| (packing, self.bases[partition]))
    }
}

/// Receives full chunks of a partition.
pub trait ChunkSink {
    fn take(&mut self, partition: usize, chunk: Chunk);
}

/// One worker's buffers: one chunk of packed and one of wide movements per partition.
pub struct Scatter<'a, S> {
    partitioner: &'a Partitioner,
    packed: Vec<PackedRows>,
    wide: Vec<Vec<Movement>>,
    sink: S,
}

impl<'a, S: ChunkSink> Scatter<'a, S> {
    pub fn new(partitioner: &'a Partitioner, sink: S) -> Scatter<'a, S> {
        let count = partitioner.count();
        let packed = vec![PackedRows::default(); count];
        Scatter { partitioner, packed, wide: vec![Vec::new(); count], sink }
    }

    #[inline]
    pub fn push(&mut self, movement: Movement) {
        let partition = self.partitioner.partition(movement.user_id());
        let packing = self.partitioner.packing(partition);
        let packed = packing.and_then(|(packing, base)| Some((packing, packing.pack(base, movement)?)));
        match packed {
            Some((packing, row)) => {
                if self.packed[partition].is_full() {
                    self.hand_over_packed(partition, packing.row_bytes());
                }
                self.packed[partition].push(row);
            }
            None => self.push_wide(partition, movement),
        }
    }

    /// Passes on the full chunk, if any, and starts the next.
    #[cold]
    fn hand_over_packed(&mut self, partition: usize, row_bytes: usize) {
        let next = PackedRows::with_capacity(CHUNK_BYTES, row_bytes);
        let full = std::mem::replace(&mut self.packed[partition], next);
        if full.rows() > 0 {
            self.sink.take(partition, Chunk::Packed(full));
        }
    }

    fn push_wide(&mut self, partition: usize, movement: Movement) {
        let buffer = &mut self.wide[partition];
        if buffer.len() == buffer.capacity() {
            let next = Vec::with_capacity(CHUNK_BYTES / size_of::<Movement>());
            let full = std::mem::replace(buffer, next);
            if !full.is_empty() {
                self.sink.take(partition, Chunk::Wide(full));
            }
        }
        self.wide[partition].push(movement);
    }

    /// Passes on the remaining movements and returns the sink.
    pub fn finish(mut self) -> S {
        let packed = self.packed.into_iter().map(Chunk::Packed).enumerate();
        let wide = self.wide.into_iter().map(Chunk::Wide).enumerate();
        for (partition, chunk) in packed.chain(wide).filter(|(_, chunk)| chunk.rows() > 0) {
            self.sink.take(partition, chunk);
        }
        self.sink
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::category::CategoryId;
    use crate::domain::money::AMOUNT_CENTS_MAX;
    use crate::limits::MONTHS_MAX;

    fn of_users(users: impl Iterator<Item = u64>) -> Sample {
        Sample { users: users.collect(), months: Some((0, 0)), ..Sample::default() }
    }

    #[test]
    fn packing_is_lossless_and_refuses_what_does_not_fit() {
        let mut sample = Sample::default();
        (0..1000).for_each(|n| sample.add(5_000_000 + 7 * n, 300 + n as u32 % 3, n as i64));
        let partitioner = Partitioner::from_sample(sample, 10, 21);
        let mut packed = 0;
        for user in [0, 4_999_000, 5_000_000, 5_000_700, 5_003_333, 5_006_999, 5_007_500, u64::MAX >> 1] {
            for month in [0, 299, 300, 302, 304, MONTHS_MAX - 1] {
                for cents in [0, -1, 250_000, AMOUNT_CENTS_MAX, -AMOUNT_CENTS_MAX] {
                    for category in [0, 20, 255] {
                        let movement = Movement::new(user, month, CategoryId(category), cents);
                        let partition = partitioner.partition(user);
                        let (packing, base) = partitioner.packing(partition).expect("there is room");
                        let Some(word) = packing.pack(base, movement) else { continue };
                        assert_eq!(packing.unpack(base, word), movement);
                        packed += 1;
                    }
                }
            }
        }
        assert_eq!(packed, 4 * 2 * 3 * 2, "users of the sample, months 300 and 302, categories 0 and 20");
        let mut sparse = Sample::default();
        (0..1000).for_each(|n| sample_far(&mut sparse, n));
        assert!(
            Partitioner::from_sample(sparse, 10, 21).packing(3).is_none(),
            "ids of 63 bits leave no room"
        );
    }

    #[test]
    fn the_cents_field_fits_nearly_all_of_the_sample() {
        let row_bytes = |cents: &dyn Fn(u64) -> i64| {
            let mut sample = Sample::default();
            (0..1000).for_each(|n| sample.add(n, 0, cents(n)));
            Partitioner::from_sample(sample, 1, 21).packing(0).expect("there is room").0.row_bytes()
        };
        // Users take 11 bits, categories 5, cents at least 20.
        assert_eq!(row_bytes(&|_| 0), 5);
        assert_eq!(row_bytes(&|n| if n < 3 { AMOUNT_CENTS_MAX } else { -8_000_000 }), 5);
        assert_eq!(row_bytes(&|n| if n < 5 { AMOUNT_CENTS_MAX } else { -8_000_000 }), 8);
        assert_eq!(row_bytes(&|_| -9_000_000), 6);
    }

    fn sample_far(sample: &mut Sample, n: u64) {
        sample.add(n << 53, 1, 1);
    }

    #[test]
    fn partitions_are_ranges_of_about_equal_weight() {
        let partitioner = Partitioner::from_sample(of_users((0..1000).map(|n| n * n)), 10, 21);
        assert_eq!(partitioner.count(), 10);
        let mut sizes = vec![0; 10];
        for n in 0..1000u64 {
            let partition = partitioner.partition(n * n);
            assert!(partitioner.end(partition).is_none_or(|end| n * n < end));
            sizes[partition] += 1;
        }
        assert_eq!(sizes, [100; 10]);
        assert_eq!(Partitioner::from_sample(Sample::default(), 8, 21).count(), 1);
        assert_eq!(Partitioner::from_sample(of_users([5; 100].into_iter()), 8, 21).count(), 2);
    }
}
