//! Whole numbers as their differences, in as many bits as each 32 of them need.
//!
//! In: numbers. Out: the body of a Parquet page, DELTA_BINARY_PACKED as the format's Encodings.md lays
//! it down (after Lemire and Boytsov, Decoding billions of integers per second through vectorization).
//! The Parquet library packs value by value, which took a tenth of the reduce.
//! Invariant: every reader of Parquet reads the same numbers.

use super::chunk::push_varint;

/// Differences of one block, which has one least difference.
const BLOCK: usize = 128;
/// Differences of one width.
const MINIBLOCK: usize = 32;
const MINIBLOCKS: usize = BLOCK / MINIBLOCK;

/// The body of a page with these numbers, of which there is one at least, in place of what was there.
pub fn encode(numbers: &[i64], body: &mut Vec<u8>) {
    body.clear();
    let header = [BLOCK, MINIBLOCKS, numbers.len()];
    header.iter().for_each(|number| push_varint(body, *number as u64));
    push_varint(body, zigzag(numbers[0]));
    let (before, behind) = (&numbers[..numbers.len() - 1], &numbers[1..]);
    for (before, behind) in before.chunks(BLOCK).zip(behind.chunks(BLOCK)) {
        // Differences wrap around, as do the sums of whoever reads them.
        let mut differences = [0; BLOCK];
        for ((difference, one), next) in differences.iter_mut().zip(before).zip(behind) {
            *difference = next.wrapping_sub(*one);
        }
        push_block(body, &differences[..before.len()]);
    }
}

fn push_block(body: &mut Vec<u8>, differences: &[i64]) {
    let least = differences.iter().copied().min().unwrap_or(0);
    push_varint(body, zigzag(least));
    // What is missing of the last block costs nothing: it counts as the least.
    let mut above = [0; BLOCK];
    for (above, difference) in above.iter_mut().zip(differences) {
        *above = difference.wrapping_sub(least).cast_unsigned();
    }
    let (miniblocks, _) = above.as_chunks::<MINIBLOCK>();
    let all_bits = |numbers: &[u64; MINIBLOCK]| numbers.iter().fold(0, |all, number| all | number);
    let widths: [u32; MINIBLOCKS] =
        std::array::from_fn(|k| u64::BITS - all_bits(&miniblocks[k]).leading_zeros());
    body.extend(widths.map(|width| width as u8));
    let used = differences.len().div_ceil(MINIBLOCK);
    for (numbers, width) in miniblocks.iter().zip(widths).take(used) {
        push_packed(body, numbers, width);
    }
}

/// Packs numbers of so many bits, the first one lowest.
fn push_packed(body: &mut Vec<u8>, numbers: &[u64; MINIBLOCK], width: u32) {
    let (mut word, mut filled) = (0, 0);
    for number in numbers {
        word |= number << filled;
        filled += width;
        if filled >= u64::BITS {
            body.extend_from_slice(&word.to_le_bytes());
            filled -= u64::BITS;
            // What did not fit any more of this number.
            word = number.checked_shr(width - filled).unwrap_or(0);
        }
    }
    // 32 numbers fill whole halves of a word.
    body.extend_from_slice(&word.to_le_bytes()[..filled as usize / 8]);
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::super::encoder::{TRANSACTION_COUNT, encode as encode_groups};
    use crate::domain::category::{Categories, CategoryId};
    use crate::domain::spend::Spend;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use proptest::prelude::*;

    /// What a reader of Parquet reads of numbers that stand in a column of groups, and its bytes.
    fn written_and_read(numbers: &[i64]) -> (Vec<i64>, i64) {
        let group = |(user_id, number): (u64, &i64)| Spend {
            user_id,
            category: CategoryId(0),
            amount_cents: 0,
            transaction_count: number.cast_unsigned(),
        };
        let groups: Vec<Spend> = (0..).zip(numbers).map(group).collect();
        let part = encode_groups(&groups, &Categories::builtin()).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(part).unwrap();
        let size = reader.metadata().row_group(0).column(TRANSACTION_COUNT).compressed_size();
        let batches = reader.build().unwrap().map(Result::unwrap);
        let read = batches.flat_map(|b| b["transaction_count"].as_primitive::<Int64Type>().values().to_vec());
        (read.collect(), size)
    }

    proptest! {
        #[test]
        fn readers_read_the_same_numbers(
            numbers in prop::collection::vec(
                prop_oneof![8 => 1i64..4, 4 => -500_000i64..500_000, 1 => any::<i64>(), 1 => Just(i64::MIN)],
                1..700,
            ),
            shift in 0u32..64,
        ) {
            let numbers: Vec<i64> = numbers.into_iter().map(|number| number >> shift).collect();
            prop_assert_eq!(written_and_read(&numbers).0, numbers);
        }
    }

    #[test]
    fn wherever_a_block_or_a_page_ends() {
        for count in [1, 2, 32, 33, 34, 128, 129, 130, 257, 16_384, 16_385, 40_130] {
            let numbers: Vec<i64> = (0..count).map(|n| n * 7919 % 1000).collect();
            let (read, size) = written_and_read(&numbers);
            assert_eq!(read, numbers);
            // Eleven bits for a difference, and less than one for what stands around it.
            assert!(size <= 200 + 12 * count / 8 + 64, "{size} bytes for {count}");
        }
    }
}
