//! Reads the bytes of one published part.
//!
//! In: ranges of bytes that the scan asks for. Out: those bytes, and the footer with its page
//! index, kept for the other threads that read the same part.
//! Invariant: a store's error comes out as it was. DataFusion's own reader turns one that strikes
//! while the footer is read into text, and then a store that is down looks like a torn file.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::error::Result as PlanResult;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
// Through DataFusion, which turns on the asynchronous reader of the crate.
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::{BoxFuture, FutureExt};
use object_store::ObjectStore;

/// How much of the end of a file is read at once: the footer and the page index of a part of
/// some tens of millions of rows lie within it.
const FOOTER_BYTES: usize = 512 * 1024;

/// Makes the readers of one scan.
#[derive(Debug)]
pub struct PartReaders {
    store: Arc<dyn ObjectStore>,
    footers: Arc<FileMetadataCache>,
    inner: CachedParquetFileReaderFactory,
}

impl PartReaders {
    pub fn new(store: Arc<dyn ObjectStore>, footers: Arc<FileMetadataCache>) -> PartReaders {
        let inner = CachedParquetFileReaderFactory::new(store.clone(), footers.clone());
        PartReaders { store, footers, inner }
    }
}

impl ParquetFileReaderFactory for PartReaders {
    fn create_reader(
        &self,
        partition: usize,
        part: PartitionedFile,
        footer_bytes: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> PlanResult<Box<dyn AsyncFileReader + Send>> {
        let (store, footers) = (self.store.clone(), self.footers.clone());
        let inner = self.inner.create_reader(partition, part.clone(), footer_bytes, metrics)?;
        Ok(Box::new(PartReader { store, footers, part, inner }))
    }
}

struct PartReader {
    store: Arc<dyn ObjectStore>,
    footers: Arc<FileMetadataCache>,
    part: PartitionedFile,
    inner: Box<dyn AsyncFileReader + Send>,
}

impl AsyncFileReader for PartReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let page_index = options.map(|options| options.column_index_policy());
        async move {
            DFParquetMetadata::new(&self.store, &self.part.object_meta)
                .with_file_metadata_cache(Some(self.footers.clone()))
                .with_metadata_size_hint(Some(FOOTER_BYTES))
                .with_page_index_policy(page_index)
                .fetch_metadata()
                .await
                .map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }
}
