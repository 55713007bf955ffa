//! Tables in memory, and a store that remembers what was read of it.

mod answers;
mod made;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Field, Int64Type, Schema};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::question::MAX_DEPTH;
use super::*;
use crate::error::{Error, Kind};

const MEMORY: usize = 256 << 20;

/// Passes everything on and keeps a list of what was read.
#[derive(Debug, Default)]
struct Watched {
    inner: InMemory,
    opened: Mutex<BTreeSet<String>>,
    ranges: Mutex<Vec<Range<u64>>>,
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watched")
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.opened.lock().unwrap().insert(location.to_string());
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.opened.lock().unwrap().insert(location.to_string());
        self.ranges.lock().unwrap().extend(ranges.iter().cloned());
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

type Row = (i64, &'static str, i128, i64);

const CATEGORIES: [&str; 4] = ["dining", "gas", "groceries", "travel"];

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("month", DataType::Date32, false),
        Field::new("user_id", DataType::Int64, false),
        Field::new("category", DataType::Utf8, false),
        Field::new("amount", DataType::Decimal128(18, 2), false),
        Field::new("transaction_count", DataType::Int64, false),
    ]))
}

/// Rows of `users`, each with two to four categories, amounts from a small generator.
fn rows(users: Range<i64>, salt: u64) -> Vec<Row> {
    let mut state = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut rows = Vec::new();
    for user in users {
        for category in CATEGORIES.iter().take(2 + (random() % 3) as usize) {
            rows.push((user, *category, (random() % 2_000_000) as i128 - 500_000, (random() % 9) as i64));
        }
    }
    rows
}

fn parquet(rows: &[Row], rows_per_group: usize) -> Vec<u8> {
    let stored = Arc::new(schema().project(&[1, 2, 3, 4]).unwrap());
    let amounts = Decimal128Array::from_iter_values(rows.iter().map(|r| r.2));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
        Arc::new(amounts.with_precision_and_scale(18, 2).unwrap()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.3))),
    ];
    let batch = RecordBatch::try_new(stored.clone(), columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(rows_per_group)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, stored, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// Months of two parts each, users 0..1000 and 1000..2000.
struct Fixture {
    store: Arc<Watched>,
    parts: Vec<(Month, Path, u64, Vec<Row>)>,
}

impl Fixture {
    async fn new(months: &[&str]) -> Fixture {
        let store = Arc::new(Watched::default());
        let mut parts = Vec::new();
        for (number, month) in months.iter().enumerate() {
            let month: Month = month.parse().unwrap();
            for (part, users) in [0..1000, 1000..2000].into_iter().enumerate() {
                let rows = rows(users, 7 * number as u64 + part as u64 + 1);
                let path = Path::from(format!("lake/month={month}-01/part-{part}.parquet"));
                let bytes = parquet(&rows, 250);
                let size = bytes.len() as u64;
                store.put(&path, bytes.into()).await.unwrap();
                parts.push((month, path, size, rows));
            }
        }
        Fixture { store, parts }
    }

    fn table(&self, sorted: bool) -> PublishedTable {
        let file = |(month, path, size, rows): &(Month, Path, u64, Vec<Row>)| PublishedFile {
            path: path.clone(),
            size_bytes: *size,
            rows: Some(rows.len() as u64),
            month: Some(*month),
            user_id_range: Some((rows[0].0, rows.last().unwrap().0)),
        };
        let sorted_by = if sorted { vec!["user_id".into(), "category".into()] } else { vec![] };
        PublishedTable {
            name: "monthly_spending".into(),
            schema: schema(),
            partition_column: Some("month".into()),
            files: self.parts.iter().map(file).collect(),
            sorted_by,
        }
    }

    fn lake(&self, sorted: bool) -> Lake {
        let url = "lake://published/some/where".parse().unwrap();
        let known = vec!["monthly_spending".to_string()];
        let store = self.store.clone();
        Lake { store, url, tables: vec![self.table(sorted)], known, verifier: None }
    }

    async fn ask(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        self.ask_in(sql, true, MEMORY, 2).await
    }

    async fn ask_in(
        &self,
        sql: &str,
        sorted: bool,
        memory: usize,
        threads: usize,
    ) -> Result<Vec<RecordBatch>> {
        let result = query_text(self.lake(sorted), vec![], sql, memory, threads).await?;
        result.rows.try_collect().await.map_err(reading_failed)
    }

    /// What a query opens, in order of name, without the common beginning and end.
    async fn opened_by(&self, sql: &str) -> Vec<String> {
        self.store.opened.lock().unwrap().clear();
        self.store.ranges.lock().unwrap().clear();
        self.ask(sql).await.unwrap();
        let opened = self.store.opened.lock().unwrap();
        let short =
            |path: &String| path.replace("lake/month=", "").replace("-01/part-", "/").replace(".parquet", "");
        opened.iter().map(short).collect()
    }

    fn all_rows(&self) -> impl Iterator<Item = (Month, &Row)> {
        self.parts.iter().flat_map(|(month, _, _, rows)| rows.iter().map(|row| (*month, row)))
    }
}

/// [`query`] with a text, whose operators share `memory`.
async fn query_text(
    lake: Lake,
    extra: Vec<(String, Arc<dyn TableProvider>)>,
    sql: &str,
    memory: usize,
    threads: usize,
) -> Result<QueryResult> {
    let bounds = Bounds {
        memory_bytes: memory.div_ceil(if extra.is_empty() { 5 } else { 3 }) * 8,
        spill_bytes: 1 << 30,
        time: std::time::Duration::from_secs(600),
        threads,
    };
    query(lake, extra, Question::parse(sql)?, &bounds).await
}

fn text(batches: &[RecordBatch]) -> String {
    arrow::util::pretty::pretty_format_batches(batches).unwrap().to_string()
}

/// One value of each row of a result of one column.
fn decimals(batches: &[RecordBatch], column: usize) -> Vec<i128> {
    let values = batches
        .iter()
        .flat_map(|batch| batch.column(column).as_primitive::<Decimal128Type>().values().to_vec());
    values.collect()
}

fn integers(batches: &[RecordBatch], column: usize) -> Vec<i64> {
    let values =
        batches.iter().flat_map(|batch| batch.column(column).as_primitive::<Int64Type>().values().to_vec());
    values.collect()
}
