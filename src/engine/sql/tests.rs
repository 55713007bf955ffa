//! Tables in memory, and a store that remembers what was read of it.

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
        Lake { store: self.store.clone(), url, tables: vec![self.table(sorted)] }
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
        let result = query(self.lake(sorted), vec![], sql, memory, threads).await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_right_to_the_cent_however_the_files_are_dealt() {
    let fixture = Fixture::new(&["2025-01", "2025-02", "2025-03"]).await;
    let mut by_user = BTreeMap::<i64, (i128, i64)>::new();
    for (_, row) in fixture.all_rows() {
        let sums = by_user.entry(row.0).or_default();
        sums.0 += row.2;
        sums.1 += row.3;
    }
    let sql = "SELECT user_id, sum(amount), sum(transaction_count) FROM monthly_spending GROUP BY user_id ORDER BY user_id";
    for (sorted, threads) in [(true, 1), (true, 2), (true, 5), (false, 1), (false, 3)] {
        let answer = fixture.ask_in(sql, sorted, MEMORY, threads).await.unwrap();
        let expected: Vec<i128> = by_user.values().map(|sums| sums.0).collect();
        assert_eq!(integers(&answer, 0), by_user.keys().copied().collect::<Vec<_>>());
        assert_eq!(decimals(&answer, 1), expected);
        assert_eq!(answer[0].schema().field(1).data_type(), &DataType::Decimal128(28, 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_in_the_published_order_and_the_month_with_them() {
    let fixture = Fixture::new(&["2025-01", "2025-02"]).await;
    let answer = fixture
        .ask("SELECT * FROM monthly_spending WHERE user_id = 1500 ORDER BY month, category")
        .await
        .unwrap();
    let names: Vec<String> = answer[0].schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["month", "user_id", "category", "amount", "transaction_count"]);
    let months: Vec<i32> = answer[0].column(0).as_primitive::<Date32Type>().values().to_vec();
    let expected: Vec<i32> =
        fixture.all_rows().filter(|(_, row)| row.0 == 1500).map(|(month, _)| month.first_day()).collect();
    assert_eq!(months, expected);
    let answer = fixture.ask("SELECT amount, month, user_id FROM monthly_spending LIMIT 3").await.unwrap();
    assert_eq!(answer[0].schema().field(1).name(), "month");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_months_and_users_asked_for_are_opened() {
    let fixture = Fixture::new(&["2024-12", "2025-01", "2025-02"]).await;
    let cases: [(&str, &[&str]); 12] = [
        ("month = DATE '2025-01-01'", &["2025-01/0", "2025-01/1"]),
        ("month = '2025-01-01' AND category = 'gas'", &["2025-01/0", "2025-01/1"]),
        ("month > DATE '2025-01-15'", &["2025-02/0", "2025-02/1"]),
        ("month IN (DATE '2024-12-01', DATE '2025-02-01') AND user_id = 3", &["2024-12/0", "2025-02/0"]),
        ("date_part('year', month) = 2024", &["2024-12/0", "2024-12/1"]),
        ("to_char(month, '%Y-%m') = '2025-02' AND user_id >= 1000", &["2025-02/1"]),
        ("user_id BETWEEN 990 AND 999", &["2024-12/0", "2025-01/0", "2025-02/0"]),
        ("user_id IN (5, 1999) AND month = DATE '2025-01-01'", &["2025-01/0", "2025-01/1"]),
        (
            "(month = DATE '2025-01-01' AND user_id = 4) OR (month = DATE '2025-02-01' AND user_id = 1004)",
            &["2025-01/0", "2025-02/1"],
        ),
        ("month = DATE '2031-01-01'", &[]),
        ("user_id = 5000", &[]),
        ("month IS NULL", &[]),
    ];
    for (filter, expected) in cases {
        let sql = format!("SELECT sum(amount) FROM monthly_spending WHERE {filter}");
        assert_eq!(fixture.opened_by(&sql).await, expected, "{filter}");
    }
    let none: [&str; 0] = [];
    assert_eq!(fixture.opened_by("SELECT count(*) FROM monthly_spending").await, none);
    assert_eq!(
        fixture.opened_by("SELECT count(*) FROM monthly_spending WHERE month = DATE '2025-01-01'").await,
        none
    );
    assert_eq!(fixture.opened_by("SELECT min(user_id), max(month) FROM monthly_spending").await, none);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_month_is_found_without_reading_the_others() {
    let fixture = Fixture::new(&["2024-12", "2025-01", "2025-02"]).await;
    let sql =
        "SELECT sum(amount) FROM monthly_spending WHERE month = (SELECT max(month) FROM monthly_spending)";
    assert_eq!(fixture.opened_by(sql).await, ["2025-02/0", "2025-02/1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subquery_of_two_rows_is_refused_where_one_value_is_needed() {
    let fixture = Fixture::new(&["2025-01", "2025-02"]).await;
    for sql in [
        "SELECT sum(amount) FROM monthly_spending WHERE month = (SELECT month FROM monthly_spending WHERE user_id < 3)",
        "SELECT (SELECT month FROM monthly_spending WHERE user_id < 3), 1",
        "SELECT sum(amount) FROM monthly_spending WHERE month = (SELECT max(month) FROM monthly_spending) AND amount > (SELECT amount FROM monthly_spending WHERE user_id < 3)",
        "SELECT sum(amount) FROM monthly_spending WHERE month = (SELECT max(month) FROM monthly_spending GROUP BY user_id)",
    ] {
        let answer = fixture.ask(sql).await;
        let error = answer.expect_err(sql);
        assert!(error.to_string().contains("more than one row"), "{error}");
    }
    let january: i128 =
        fixture.all_rows().filter(|(month, _)| month.month_of_year() == 1).map(|(_, row)| row.2).sum();
    for value in [
        "(SELECT min(month) FROM monthly_spending)",
        "(SELECT month FROM monthly_spending ORDER BY month LIMIT 1)",
    ] {
        let sql = format!("SELECT sum(amount) FROM monthly_spending WHERE month = {value}");
        assert_eq!(decimals(&fixture.ask(&sql).await.unwrap(), 0), [january]);
    }
    let none = "SELECT count(*) FROM monthly_spending WHERE month = (SELECT max(month) FROM monthly_spending WHERE user_id < 0)";
    assert_eq!(integers(&fixture.ask(none).await.unwrap(), 0), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_costs_one_row_group() {
    let fixture = Fixture::new(&["2025-01", "2025-02"]).await;
    let sql = "SELECT * FROM monthly_spending WHERE month = DATE '2025-01-01' AND user_id = 500";
    assert_eq!(fixture.opened_by(sql).await, ["2025-01/0"]);
    let (_, path, size, rows) = &fixture.parts[0];
    let bytes = fixture.store.inner.get(path).await.unwrap().bytes().await.unwrap();
    let metadata = SerializedFileReader::new(bytes).unwrap().metadata().clone();
    let first = rows.iter().position(|row| row.0 == 500).unwrap();
    let last = rows.iter().rposition(|row| row.0 == 500).unwrap();
    let mut allowed = Vec::new();
    for group in first / 250..=last / 250 {
        for column in metadata.row_group(group).columns() {
            let (start, length) = column.byte_range();
            allowed.push(start..start + length);
        }
    }
    let read = fixture.store.ranges.lock().unwrap().clone();
    assert!(read.iter().any(|range| range.end != *size));
    // The last range of a file is its footer.
    for range in read.into_iter().filter(|range| range.end != *size) {
        assert!(allowed.iter().any(|a| a.start <= range.start && range.end <= a.end), "{range:?}");
    }
    assert!(metadata.num_row_groups() > 8);
    let answer = fixture.ask(sql).await.unwrap();
    let expected: Vec<i128> = rows.iter().filter(|row| row.0 == 500).map(|row| row.2).collect();
    assert_eq!(decimals(&answer, 3), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn sorted_files_answer_as_unsorted_ones_do() {
    let fixture = Fixture::new(&["2025-01", "2025-02"]).await;
    let questions = [
        "SELECT * FROM monthly_spending ORDER BY user_id, category, month",
        "SELECT * FROM monthly_spending ORDER BY user_id DESC, category DESC, month DESC LIMIT 17",
        "SELECT * FROM monthly_spending WHERE month = DATE '2025-02-01' ORDER BY user_id, category",
        "SELECT * FROM monthly_spending WHERE category = 'gas' ORDER BY user_id DESC, month LIMIT 9",
        "SELECT user_id, category, sum(amount) FROM monthly_spending GROUP BY user_id, category ORDER BY 1, 2",
        "SELECT a.user_id, a.category, b.amount - a.amount FROM monthly_spending a JOIN monthly_spending b \
         ON a.user_id = b.user_id AND a.category = b.category AND a.month < b.month ORDER BY 1, 2, 3",
        "SELECT user_id, amount, rank() OVER (PARTITION BY user_id ORDER BY amount, category, month) \
         FROM monthly_spending ORDER BY 1, 3",
        "SELECT DISTINCT user_id FROM monthly_spending WHERE user_id % 7 = 3 ORDER BY 1 OFFSET 10 LIMIT 20",
    ];
    for sql in questions {
        let expected = text(&fixture.ask_in(sql, false, MEMORY, 1).await.unwrap());
        for threads in [1, 2, 4, 7] {
            let answer = text(&fixture.ask_in(sql, true, MEMORY, threads).await.unwrap());
            assert!(answer == expected, "{sql} on {threads} threads");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_files_in_order_are_not_sorted_again() {
    let fixture = Fixture::new(&["2025-01"]).await;
    for (order, threads) in [("user_id, category", 2), ("user_id", 1), ("user_id", 2)] {
        let sql = format!("EXPLAIN SELECT * FROM monthly_spending ORDER BY {order}");
        let plan = text(&fixture.ask_in(&sql, true, MEMORY, threads).await.unwrap());
        assert!(!plan.contains("SortExec"), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_only_reads() {
    let fixture = Fixture::new(&["2025-01"]).await;
    let refused = [
        "INSERT INTO monthly_spending VALUES (DATE '2025-01-01', 1, 'gas', 1.00, 1)",
        "DELETE FROM monthly_spending",
        "UPDATE monthly_spending SET amount = 0",
        "DROP TABLE monthly_spending",
        "TRUNCATE TABLE monthly_spending",
        "CREATE TABLE t AS SELECT * FROM monthly_spending",
        "CREATE VIEW v AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'",
        "COPY (SELECT 1) TO 'never.csv'",
        "COPY monthly_spending TO 'never.parquet'",
        "SET datafusion.execution.target_partitions = 1",
        "RESET datafusion.execution.target_partitions",
        "PREPARE p AS SELECT 1",
        "EXPLAIN ANALYZE INSERT INTO monthly_spending SELECT * FROM monthly_spending",
        "EXPLAIN COPY (SELECT 1) TO 'never.csv'",
        "WITH t AS (SELECT * FROM monthly_spending) INSERT INTO monthly_spending SELECT * FROM t",
        "SELECT * INTO t FROM monthly_spending",
        "START TRANSACTION",
    ];
    for sql in refused {
        let error = fixture.ask(sql).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unfit, "{sql}");
        assert!(error.to_string().contains("a query only reads"), "{sql}: {error}");
    }
    for sql in ["SELECT 1; SELECT 2", "SELECT 1; DROP TABLE monthly_spending"] {
        let error = fixture.ask(sql).await.unwrap_err().to_string();
        assert!(error.contains("one question at a time"), "{error}");
    }
    let answered = [
        "SHOW TABLES",
        "DESCRIBE monthly_spending",
        "SHOW COLUMNS FROM monthly_spending",
        "EXPLAIN SELECT * FROM monthly_spending",
        "EXPLAIN ANALYZE SELECT sum(amount) FROM monthly_spending",
        "VALUES (1, 2)",
        "SELECT 1;",
        "WITH t AS (SELECT 1 AS one) SELECT one FROM t",
    ];
    for sql in answered {
        fixture.ask(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_query_names_the_nearest_right_one() {
    let fixture = Fixture::new(&["2025-01"]).await;
    let cases = [
        (
            "SELECT * FROM monthly_spendings",
            "query: no table is called `monthly_spendings`; did you mean `monthly_spending`? tables: monthly_spending",
        ),
        ("SELECT * FROM elsewhere", "query: no table is called `elsewhere`; tables: monthly_spending"),
        (
            "SELECT amuont FROM monthly_spending",
            "query: no column is called `amuont`; did you mean `amount`? columns: month, user_id, category, amount, transaction_count",
        ),
        (
            "SELECT m.x FROM monthly_spending m",
            "query: no column is called `x`; columns: month, user_id, category, amount, transaction_count",
        ),
        ("SELEC 1", "query:1:1: Expected: an SQL statement, found: SELEC"),
    ];
    for (sql, expected) in cases {
        let error = fixture.ask(sql).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.kind.exit_code(), 78);
    }
    for sql in [
        "SELECT * FROM monthly_spending WHERE month = '2025-01'",
        "SELECT nosuch(amount) FROM monthly_spending",
        "",
        "SELECT sum(category) FROM monthly_spending",
        "SELECT user_id, sum(amount) FROM monthly_spending",
    ] {
        let error = fixture.ask(sql).await.unwrap_err();
        println!("{error}");
        assert_eq!(error.kind, Kind::Unfit, "{sql}: {error}");
        assert_eq!(error.to_string().contains("DATE '2025-01-01'"), sql.contains("'2025-01'"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_chains_are_refused_before_they_take_the_stack() {
    let fixture = Fixture::new(&["2025-01"]).await;
    let count = |filter: String| format!("SELECT count(*) FROM monthly_spending WHERE {filter}");
    let chain = |length: usize| {
        let each: Vec<String> = (0..length).map(|n| format!("amount = {n}.37")).collect();
        count(each.join(" OR "))
    };
    let sum =
        |length: usize| format!("SELECT {} FROM monthly_spending", ["user_id"].repeat(length).join(" + "));
    fixture.ask(&chain(MAX_DEPTH - 2)).await.unwrap();
    fixture.ask(&sum(MAX_DEPTH - 2)).await.unwrap();
    for sql in [
        chain(MAX_DEPTH + 1),
        sum(MAX_DEPTH + 1),
        sum(5000),
        format!("EXPLAIN {}", chain(200)),
        ["SELECT 1"; 102].join(" UNION ALL "),
    ] {
        let error = fixture.ask(&sql).await.unwrap_err();
        assert!(error.to_string().contains("nested more than 100 deep"), "{error}");
    }
    fixture.ask(&["SELECT 1"; 100].join(" UNION ALL ")).await.unwrap();
    let listed: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
    fixture.ask(&count(format!("user_id IN ({})", listed.join(", ")))).await.unwrap();
    let few: Vec<String> = (0..LISTED_VALUES).map(|n| n.to_string()).collect();
    let few = count(format!("user_id IN ({})", few.join(", ")));
    assert_eq!(fixture.opened_by(&few).await, ["2025-01/0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_stays_out_of_errors() {
    let fixture = Fixture::new(&["2025-01"]).await;
    for sql in [
        "SELECT CAST(category AS BIGINT) FROM monthly_spending",
        "SELECT 1 / (user_id - 7) FROM monthly_spending",
        "SELECT to_timestamp(category) FROM monthly_spending",
        "SELECT CAST(category AS DATE) FROM monthly_spending",
        "SELECT CAST(amount AS DECIMAL(3, 2)) FROM monthly_spending",
        "SELECT CAST(user_id * 1000000000 AS INT) FROM monthly_spending",
    ] {
        let error = fixture.ask(sql).await.unwrap_err();
        println!("{error}");
        assert_eq!(error.kind, Kind::InputRefused, "{sql}");
        let error = error.to_string();
        assert!(!error.contains(|c: char| c.is_ascii_digit()), "{error}");
        assert!(CATEGORIES.iter().all(|category| !error.contains(category)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fractions_in_a_query_are_exact() {
    let fixture = Fixture::new(&["2025-01"]).await;
    let answer = fixture.ask("SELECT 0.1 + 0.2, sum(amount) * 0.19 FROM monthly_spending").await.unwrap();
    for field in answer[0].schema().fields() {
        assert!(matches!(field.data_type(), DataType::Decimal128(..)), "{field:?}");
    }
    assert_eq!(decimals(&answer, 0), [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_gone_is_not_found() {
    let fixture = Fixture::new(&["2025-01"]).await;
    fixture.store.inner.delete(&fixture.parts[1].1).await.unwrap();
    let error = fixture.ask("SELECT sum(amount) FROM monthly_spending").await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    let other = fixture.ask("SELECT sum(amount) FROM monthly_spending WHERE user_id < 1000").await;
    assert!(other.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_torn_is_refused() {
    let fixture = Fixture::new(&["2025-01"]).await;
    let size = fixture.parts[1].2 as usize;
    fixture.store.inner.put(&fixture.parts[1].1, vec![7; size].into()).await.unwrap();
    let error = fixture.ask("SELECT sum(amount) FROM monthly_spending").await.unwrap_err();
    assert_eq!(error.kind, Kind::InputRefused, "{error}");
}

/// `count` rows of a number and a text, made as they are read.
fn made(count: i64, partitions: usize) -> Arc<dyn TableProvider> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("text", DataType::Utf8, false),
    ]));
    let partition = |number: usize| -> StreamMaker {
        let schema = schema.clone();
        Box::new(move || {
            let schema = schema.clone();
            let batches = (0..count / 1000).map({
                let schema = schema.clone();
                move |batch| {
                    let numbers =
                        (batch * 1000..(batch + 1) * 1000).map(|n| n * 7919 % count * 10 + number as i64);
                    let numbers = Int64Array::from_iter_values(numbers);
                    let texts =
                        StringArray::from_iter_values(numbers.values().iter().map(|n| format!("{n:040}")));
                    Ok(RecordBatch::try_new(schema.clone(), vec![Arc::new(numbers), Arc::new(texts)])
                        .unwrap())
                }
            });
            Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches)))
        })
    };
    streaming_table(schema.clone(), (0..partitions).map(partition).collect())
}

async fn ask_made(count: i64, partitions: usize, sql: &str, memory: usize) -> Result<Vec<RecordBatch>> {
    let fixture = Fixture::new(&[]).await;
    let result =
        query(fixture.lake(true), vec![("made".into(), made(count, partitions))], sql, memory, 2).await?;
    result.rows.try_collect().await.map_err(reading_failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn made_rows_are_a_table_like_any_other() {
    let answer =
        ask_made(10_000, 3, "SELECT count(*), count(DISTINCT n), min(text) FROM made", MEMORY).await.unwrap();
    assert_eq!(integers(&answer, 0), [30_000]);
    assert_eq!(integers(&answer, 1), [30_000]);
    let answer =
        ask_made(10_000, 2, "SELECT count(*) FROM made a JOIN made b ON a.n = b.n", MEMORY).await.unwrap();
    assert_eq!(integers(&answer, 0), [20_000]);
    let answer = ask_made(10_000, 0, "SELECT count(*), sum(n) FROM made", MEMORY).await.unwrap();
    assert_eq!(integers(&answer, 0), [0]);
    let answer = ask_made(0, 0, "SELECT * FROM monthly_spending ORDER BY user_id", MEMORY).await.unwrap();
    assert_eq!(answer.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_memory_is_spilled() {
    // 30 MB of rows, and twice that to sort them, in 20 MB.
    let sorted = ask_made(300_000, 2, "SELECT n, text FROM made ORDER BY text", 20 << 20).await.unwrap();
    let numbers = integers(&sorted, 0);
    assert_eq!(numbers.len(), 600_000);
    assert!(numbers.is_sorted());
    let grouped = "SELECT count(*), sum(c) FROM (SELECT text, count(*) AS c FROM made GROUP BY text)";
    let answer = ask_made(300_000, 2, grouped, 20 << 20).await.unwrap();
    assert_eq!((integers(&answer, 0), integers(&answer, 1)), (vec![600_000], vec![600_000]));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_memory_says_so() {
    let error = ask_made(500_000, 2, "SELECT count(*) FROM made a JOIN made b ON a.text = b.text", 2 << 20)
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Unfit);
    assert!(error.to_string().starts_with("query: the query needs more memory: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_made_table_comes_through_as_it_was() {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let fails = |schema: SchemaRef| -> StreamMaker {
        Box::new(move || {
            let error = Error::new(Kind::Credentials, "access denied").at("logs/a.tsv").advise("log in");
            let failed = Err(datafusion::error::DataFusionError::External(Box::new(error)));
            Box::pin(RecordBatchStreamAdapter::new(schema.clone(), futures::stream::iter([failed])))
        })
    };
    let table = streaming_table(schema.clone(), vec![fails(schema.clone()), fails(schema)]);
    let fixture = Fixture::new(&[]).await;
    let sql = "SELECT n, count(*) FROM raw GROUP BY n ORDER BY n";
    let result = query(fixture.lake(true), vec![("raw".into(), table)], sql, MEMORY, 2).await.unwrap();
    let error = result.rows.try_collect::<Vec<_>>().await.map_err(reading_failed).unwrap_err();
    assert_eq!(
        (error.kind, error.to_string().as_str()),
        (Kind::Credentials, "logs/a.tsv: access denied; log in")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tables_of_one_name_are_refused() {
    let fixture = Fixture::new(&["2025-01"]).await;
    let extra = vec![("monthly_spending".to_string(), made(0, 1))];
    let answer = query(fixture.lake(true), extra, "SELECT 1", MEMORY, 1).await;
    let error = answer.err().unwrap().to_string();
    assert!(error.contains("monthly_spending already exists"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_that_does_not_fit_together_is_our_bug() {
    let fixture = Fixture::new(&["2025-01"]).await;
    let broken: [fn(&mut PublishedTable); 3] = [
        |table| table.files[0].month = None,
        |table| table.partition_column = Some("user_id".into()),
        |table| table.sorted_by = vec!["nowhere".into()],
    ];
    for break_it in broken {
        let mut lake = fixture.lake(true);
        break_it(&mut lake.tables[0]);
        let error = query(lake, vec![], "SELECT 1", MEMORY, 1).await.err().unwrap();
        assert_eq!(error.kind, Kind::Invariant);
    }
}
