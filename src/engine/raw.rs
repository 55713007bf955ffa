//! The raw logs as a table: parsed and categorized by the same kernel as a run.
//!
//! In: log objects and the rules of a job. Out: `raw_transactions`, a stream per reader.
//! Invariant: rows are those a run would count, in the order of their lines; rejected lines are
//! no rows, and their number is told.

use super::read::scan;
use super::rows::{SplitRows, columns};
use super::sql::{StreamMaker, streaming_table};
use crate::domain::category::Categories;
use crate::domain::zone::Zone;
use crate::error::{Error, Kind, Result};
use crate::input::plan::{LogObject, Split};
use crate::kernel::categorize::Categorizer;
use crate::kernel::fused::{MapRules, Mapper, Worker};
use crate::kernel::keyed::Key;
use crate::kernel::memo::Known;
use crate::kernel::movement::Chunk;
use crate::kernel::partition::{ChunkSink, Partitioner, Sample};
use crate::limits::READ_BYTES;
use crate::schema;
use arrow::array::{ArrayRef, Date32Array, RecordBatch};
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub const RAW_TRANSACTIONS: &str = "raw_transactions";

/// What reading raw logs takes.
pub struct RawLogs {
    pub objects: Vec<LogObject>,
    pub zone: Zone,
    pub categories: Categories,
    pub categorizer: Categorizer,
    /// Lines that were no transactions, counted while the table is read.
    pub rejected: AtomicU64,
}

/// Batches in flight between a reader and the query.
const BATCHES_AHEAD: usize = 2;

/// The table of all transactions in the logs, read by so many readers at a time.
pub fn table(logs: Arc<RawLogs>, readers: usize) -> Arc<dyn TableProvider> {
    let readers = readers.clamp(1, logs.objects.len().max(1));
    let stream = |first: usize| -> StreamMaker {
        let logs = logs.clone();
        Box::new(move || {
            let logs = logs.clone();
            let mut builder = RecordBatchReceiverStreamBuilder::new(schema::transactions(), BATCHES_AHEAD);
            let batches = builder.tx();
            builder.spawn_blocking(move || {
                // A query that has seen enough closes the channel, which is no error.
                let mut send = |batch| batches.blocking_send(Ok(batch)).is_ok();
                let mut indexes = (first..logs.objects.len()).step_by(readers);
                let read = indexes.try_for_each(|index| logs.read(index, &mut send));
                read.map_err(|error| DataFusionError::External(Box::new(error)))
            });
            builder.build()
        })
    };
    streaming_table(schema::transactions(), (0..readers).map(stream).collect())
}

/// Only the recorder is listened to.
struct Nowhere;

impl ChunkSink for Nowhere {
    fn take(&mut self, _: usize, _: Chunk) {}
}

impl RawLogs {
    /// Reads one object, a batch per block and month.
    fn read(&self, index: usize, send: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        let object = &self.objects[index];
        let rules = MapRules { zone: &self.zone, key: Key::random(), only_months: None };
        let partitioner = Partitioner::from_sample(Sample::default(), 1, 1);
        let known = Known::new(&self.categorizer);
        let mut worker = Worker::new(&known, &partitioner, Nowhere);
        let whole = Split { object: index, start: 0, end: u64::MAX };
        let (mut line, mut wanted, mut failure) = (0, true, None);
        let read = scan(object, whole, READ_BYTES, |block, _| {
            let mut mapper = Mapper::new(&rules, &mut worker, SplitRows::default(), 0);
            mapper.map(block);
            let (outcome, _, rows) = mapper.finish();
            self.rejected.fetch_add(outcome.rejected_rows(), Ordering::Relaxed);
            match self.batches(rows, line, &object.name) {
                Ok(batches) => wanted = batches.into_iter().all(&mut *send),
                Err(error) => (wanted, failure) = (false, Some(error)),
            }
            line += outcome.lines;
            wanted
        })?;
        match (read, failure) {
            (_, Some(error)) => Err(error),
            (Err(damage), _) => Err(Error::new(Kind::InputRefused, damage).at(&object.name)),
            (Ok(()), None) => Ok(()),
        }
    }

    fn batches(&self, rows: SplitRows, lines_before: u64, name: &str) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for (month, mut rows) in rows.by_month {
            rows.iter_mut().for_each(|row| row.line += lines_before);
            let days: ArrayRef = Arc::new(Date32Array::from_value(month.first_day(), rows.len()));
            let columns =
                [days].into_iter().chain(columns(&rows, &self.categories, &self.categorizer, name)).collect();
            let batch = RecordBatch::try_new(schema::transactions(), columns);
            batches.push(batch.map_err(|e| Error::invariant(format!("transactions are no table: {e}")))?);
        }
        Ok(batches)
    }
}
