//! `monthly_spending`: closing groups cut into parts, written, and read back.
//!
//! In: closing groups of each month in the order of users. Out: the parts of the touched months,
//! and their totals, as read back from the store.
//! Invariant: where a part ends depends on the groups alone, so the same groups give the same
//! bytes; what is read back equals what was meant.

use crate::domain::category::Categories;
use crate::domain::month::Month;
use crate::domain::spend::Spend;
use crate::error::{Error, Result};
use crate::input::published::{EVERYBODY, read_batches};
use crate::kernel::keyed::{GroupTotals, Key};
use crate::limits::{PART_GROUPS, ROW_GROUP_ROWS};
use crate::output::part::{self, WrittenPart};
use crate::schema;
use crate::store::Place;
use arrow::array::{
    ArrayRef, Decimal64Array, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

/// A part that stands in the store and was read back.
pub struct MonthPart {
    pub month: Month,
    /// Of its month, from 0.
    pub sequence: usize,
    pub written: WrittenPart,
    /// Its first and its last user.
    pub users: (u64, u64),
    pub totals: GroupTotals,
}

/// What writers of parts share.
pub struct PartWriter<'a> {
    /// The table's place in the lake.
    pub table: Place,
    pub run_id: &'a str,
    pub categories: &'a Categories,
    pub key: Key,
}

impl PartWriter<'_> {
    /// Writes a part and reads it back. Errors when what is read back is not what was meant.
    fn write(&self, month: Month, sequence: usize, groups: &[Spend]) -> Result<MonthPart> {
        let bytes = encode(groups, self.categories)?;
        let path = format!("month={month}-01/part-{sequence:05}-{}.parquet", self.run_id);
        let written = part::write(&self.table, &path, bytes, groups.len() as u64)?;
        let place = self.table.child(&path);
        let otherwise =
            || Error::invariant("a part reads back otherwise than it was written").at(&place.shown);
        // Batch by batch: the whole part is held once, not twice.
        let mut rest = groups;
        read_batches(
            part::read_back(&place, &written)?,
            &EVERYBODY,
            self.categories,
            &place.shown,
            |back| {
                rest = rest.strip_prefix(back).ok_or_else(otherwise)?;
                Ok(())
            },
        )?;
        if !rest.is_empty() {
            return Err(otherwise());
        }
        // What was read back is what was meant, so its totals are those of the groups at hand.
        let totals = GroupTotals::of(self.key, month, groups);
        let (Some(first), Some(last)) = (groups.first(), groups.last()) else {
            return Err(Error::invariant("a part is empty").at(&place.shown));
        };
        let users = (first.user_id, last.user_id);
        Ok(MonthPart { month, sequence, written, users, totals })
    }
}

/// Sorted groups as one Parquet object.
pub fn encode(groups: &[Spend], categories: &Categories) -> Result<Bytes> {
    let codes: ArrayRef = Arc::new(categories.codes().map(Some).collect::<StringArray>());
    let schema = schema::spending_in_memory();
    // The columns say all themselves; how the program holds them is no reader's concern.
    let options = ArrowWriterOptions::new()
        .with_properties(schema::spending_properties().build())
        .with_skip_arrow_metadata(true);
    // A row group at a time stays in the cache.
    let batches = groups.chunks(ROW_GROUP_ROWS).map(|groups| batch(groups, &codes, &schema));
    part::encode_as(options, &schema, batches)
}

fn batch(groups: &[Spend], codes: &ArrayRef, schema: &SchemaRef) -> Result<RecordBatch> {
    let keys = Int32Array::from_iter_values(groups.iter().map(|g| i32::from(g.category.0)));
    let category = DictionaryArray::try_new(keys, codes.clone());
    let category = category.map_err(|e| Error::invariant(format!("a group has no category: {e}")))?;
    let amounts = Decimal64Array::from_iter_values(groups.iter().map(|g| g.amount_cents));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(groups.iter().map(|g| g.user_id as i64))),
        Arc::new(category),
        Arc::new(amounts.with_data_type(schema.field(2).data_type().clone())),
        Arc::new(Int64Array::from_iter_values(groups.iter().map(|g| g.transaction_count as i64))),
    ];
    let batch = RecordBatch::try_new(schema.clone(), columns);
    batch.map_err(|e| Error::invariant(format!("groups are no table: {e}")))
}

/// Cuts the groups of each month into parts.
#[derive(Default)]
pub struct PartCutter {
    waiting: BTreeMap<Month, (usize, Vec<Spend>)>,
}

/// Groups that make a part: month, sequence, groups.
pub type FullPart = (Month, usize, Vec<Spend>);

impl PartCutter {
    /// Adds the next groups of a month; hands out what is full, and goes on with the buffer that it
    /// gets for it. A part ends with a user.
    pub fn add(&mut self, month: Month, groups: &[Spend], mut emit: impl FnMut(FullPart) -> Vec<Spend>) {
        let (sequence, waiting) = self.waiting.entry(month).or_default();
        // A month that is not small will fill a part: growing by doubles would touch its memory twice.
        if (PART_GROUPS / 16..PART_GROUPS).contains(&waiting.len()) {
            waiting.reserve_exact(PART_GROUPS + PART_GROUPS / 8 - waiting.len());
        }
        waiting.extend_from_slice(groups);
        while waiting.len() > PART_GROUPS {
            let last_user = waiting[PART_GROUPS - 1].user_id;
            let rest = &waiting[PART_GROUPS..];
            let end = PART_GROUPS + rest.partition_point(|group| group.user_id <= last_user);
            // The user may go on in what has not come yet.
            if end == waiting.len() {
                break;
            }
            let rest = waiting.split_off(end);
            *waiting = emit((month, *sequence, std::mem::take(waiting)));
            waiting.extend(rest);
            *sequence += 1;
        }
    }

    /// What is left: the last part of each month.
    pub fn finish(self) -> Vec<FullPart> {
        let rest = self.waiting.into_iter().filter(|(_, (_, groups))| !groups.is_empty());
        rest.map(|(month, (sequence, groups))| (month, sequence, groups)).collect()
    }
}

/// Writes parts on a pool while the reduce goes on, a bounded number at a time.
pub struct PartQueue<'scope, 'a> {
    scope: &'scope rayon::Scope<'a>,
    writer: &'a PartWriter<'a>,
    state: &'a QueueState,
    in_flight_max: usize,
}

/// What the writers of one queue have done.
#[derive(Default)]
pub struct QueueState {
    results: Mutex<Vec<Result<MonthPart>>>,
    buffers: Mutex<Vec<Vec<Spend>>>,
    in_flight: Mutex<usize>,
    one_done: Condvar,
}

impl<'scope, 'a> PartQueue<'scope, 'a> {
    pub fn new(
        scope: &'scope rayon::Scope<'a>,
        writer: &'a PartWriter<'a>,
        state: &'a QueueState,
        threads: usize,
    ) -> Self {
        PartQueue { scope, writer, state, in_flight_max: threads + 1 }
    }

    /// Waits for a free place, then hands the part to the pool. Out: the buffer of one that is done,
    /// empty: memory that was used is cheaper than memory that is new.
    pub fn push(&self, (month, sequence, mut groups): FullPart) -> Vec<Spend> {
        let mut in_flight = self.state.in_flight.lock().expect("no thread panics in here");
        while *in_flight >= self.in_flight_max {
            in_flight = self.state.one_done.wait(in_flight).expect("no thread panics in here");
        }
        *in_flight += 1;
        let (writer, state) = (self.writer, self.state);
        self.scope.spawn(move |_| {
            let _place = InFlight(state);
            let result = writer.write(month, sequence, &groups);
            groups.clear();
            state.buffers.lock().expect("no thread panics in here").push(groups);
            state.results.lock().expect("no thread panics in here").push(result);
        });
        state.buffers.lock().expect("no thread panics in here").pop().unwrap_or_default()
    }
}

/// A taken place, given back however its writer ends.
struct InFlight<'a>(&'a QueueState);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        *self.0.in_flight.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) -= 1;
        self.0.one_done.notify_one();
    }
}

impl QueueState {
    /// All parts by month and sequence. Errors: the first part that failed.
    pub fn finish(self) -> Result<Vec<MonthPart>> {
        let results = self.results.into_inner().expect("no thread panics while it holds this");
        let mut parts = results.into_iter().collect::<Result<Vec<_>>>()?;
        parts.sort_by_key(|part| (part.month, part.sequence));
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::category::CategoryId;

    #[test]
    fn parts_end_with_a_user_wherever_the_stream_is_cut() {
        let group = |n: usize| Spend {
            user_id: (n / 3) as u64,
            category: CategoryId((n % 3) as u8),
            amount_cents: 1,
            transaction_count: 1,
        };
        let groups: Vec<Spend> = (0..PART_GROUPS * 2 + 12_345).map(group).collect();
        let month: Month = "2025-01".parse().unwrap();
        let cut = |step: usize| {
            let mut cutter = PartCutter::default();
            let mut parts = Vec::new();
            for chunk in groups.chunks(step * 3) {
                cutter.add(month, chunk, |part| {
                    parts.push(part);
                    Vec::new()
                });
            }
            parts.extend(cutter.finish());
            parts
        };
        let whole = cut(PART_GROUPS);
        assert_eq!(whole.len(), 3);
        assert!(
            whole
                .iter()
                .all(|(_, _, part)| part.last().unwrap().category.0 == 2 || part.last() == groups.last())
        );
        assert!(cut(1000) == whole && cut(349_526) == whole);
    }
}
