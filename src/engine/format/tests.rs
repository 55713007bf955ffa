//! What a person and a program see of an answer, format by format.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn result_of(columns: Vec<(&str, ArrayRef)>) -> QueryResult {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
    let rows = RecordBatchStreamAdapter::new(schema.clone(), futures::stream::iter([Ok(batch)]));
    QueryResult { schema, rows: Box::pin(rows), is_plan: false }
}

fn amounts(cents: Vec<Option<i128>>) -> ArrayRef {
    Arc::new(Decimal128Array::from(cents).with_precision_and_scale(28, 2).unwrap())
}

fn texts(texts: Vec<Option<&str>>) -> ArrayRef {
    Arc::new(StringArray::from(texts))
}

async fn written(result: QueryResult, format: Format) -> String {
    let mut out = Vec::new();
    write(result, format, &mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

fn spending() -> QueryResult {
    result_of(vec![
        ("month", Arc::new(Date32Array::from(vec![20089, 20089, 20120]))),
        ("user_id", Arc::new(Int64Array::from(vec![i64::MAX, 7, 42]))),
        ("category", texts(vec![Some("dining"), None, Some("home")])),
        ("amount", amounts(vec![Some(1230), Some(-5), Some(99_999_999_999_999_999_999_999)])),
    ])
}

#[tokio::test]
async fn a_table_is_aligned_and_its_numbers_stand_right() {
    let lines = [
        ("month     ", "user_id", "category", "amount"),
        ("----------", "-------------------", "--------", "------------------------"),
        ("2025-01-01", "9223372036854775807", "dining", "12.30"),
        ("2025-01-01", "7", "NULL", "-0.05"),
        ("2025-02-01", "42", "home", "999999999999999999999.99"),
    ];
    let line = |(a, b, c, d)| format!("{a}  {b:>19}  {c:<8}  {d:>24}\n");
    let expected: String = lines.map(line).concat();
    assert_eq!(written(spending(), Format::Table).await, expected);
}

#[tokio::test]
async fn csv_has_a_header_and_exact_numbers() {
    let expected = "\
month,user_id,category,amount
2025-01-01,9223372036854775807,dining,12.30
2025-01-01,7,,-0.05
2025-02-01,42,home,999999999999999999999.99
";
    assert_eq!(written(spending(), Format::Csv).await, expected);
}

#[tokio::test]
async fn json_has_every_key_and_exact_numbers() {
    let expected = r#"{"month":"2025-01-01","user_id":9223372036854775807,"category":"dining","amount":12.30}
{"month":"2025-01-01","user_id":7,"category":null,"amount":-0.05}
{"month":"2025-02-01","user_id":42,"category":"home","amount":999999999999999999999.99}
"#;
    assert_eq!(written(spending(), Format::Json).await, expected);
}

const HOSTILE: [&str; 17] = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-2+3",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    "\0x",
    "\u{ff1d}1",
    "plain",
    "with, comma",
    "with \"quotes\"",
    "two\nlines",
    "\u{1b}[31mred\u{1b}[0m",
    "\u{9b}31mred\u{7f}",
    "\u{202e}abc",
    "",
];

fn hostile() -> QueryResult {
    let cells = HOSTILE.iter().map(|text| Some(*text)).collect();
    let numbers = (0..HOSTILE.len() as i64).map(|n| -n).collect::<Vec<_>>();
    result_of(vec![("=seller", texts(cells)), ("n", Arc::new(Int64Array::from(numbers)))])
}

#[tokio::test]
async fn no_cell_of_csv_is_a_formula_and_all_come_back() {
    let text = written(hostile(), Format::Csv).await;
    assert!(text.starts_with("'=seller,n\n"));
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let records: Vec<::csv::StringRecord> = reader.records().map(|record| record.unwrap()).collect();
    assert_eq!(records.len(), HOSTILE.len());
    for (number, (record, original)) in records.iter().zip(HOSTILE).enumerate() {
        assert!(!record[0].starts_with(csv::FORMULA_STARTS), "{record:?}");
        assert_eq!(record[0].strip_prefix('\'').unwrap_or(&record[0]), original);
        assert_eq!(record[1], (-(number as i64)).to_string());
    }
}

#[tokio::test]
async fn a_table_shows_what_would_hide() {
    let text = written(hostile(), Format::Table).await;
    assert!(text.contains("\\u{1b}[31mred\\u{1b}[0m"));
    assert!(text.contains("\\u{202e}abc"));
    assert!(text.contains("two\\nlines"));
    assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'));
    assert_eq!(text.lines().count(), HOSTILE.len() + 2);
}

#[tokio::test]
async fn json_of_anything_is_read_back_as_it_was() {
    let text = written(hostile(), Format::Json).await;
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let back: Vec<&str> = rows.iter().map(|row| row["=seller"].as_str().unwrap()).collect();
    assert_eq!(back, HOSTILE);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "control characters are escaped");
}

#[tokio::test]
async fn null_and_empty_text_differ_and_no_row_is_an_empty_line() {
    let two = result_of(vec![("a", texts(vec![None, Some("")])), ("b", texts(vec![Some(""), None]))]);
    assert_eq!(written(two, Format::Csv).await, "a,b\n,\"\"\n\"\",\n");
    let one = result_of(vec![("a", texts(vec![None, Some("x")]))]);
    assert_eq!(written(one, Format::Csv).await, "a\n\"\"\nx\n");
}

#[tokio::test]
async fn other_types_have_a_text_too() {
    let make = || {
        let time = TimestampMicrosecondArray::from(vec![1_735_689_600_000_000]).with_timezone("UTC");
        result_of(vec![
            ("t", Arc::new(time)),
            ("b", Arc::new(BooleanArray::from(vec![true]))),
            ("f", Arc::new(Float64Array::from(vec![-0.5]))),
            ("nan", Arc::new(Float64Array::from(vec![f64::NAN]))),
        ])
    };
    assert_eq!(written(make(), Format::Csv).await, "t,b,f,nan\n2025-01-01T00:00:00Z,true,-0.5,NaN\n");
    let json = "{\"t\":\"2025-01-01T00:00:00Z\",\"b\":true,\"f\":-0.5,\"nan\":null}\n";
    assert_eq!(written(make(), Format::Json).await, json);
}

#[tokio::test]
async fn parquet_comes_back_as_it_was() {
    let mut out = Vec::new();
    let done = write(spending(), Format::Parquet, &mut out).await.unwrap();
    assert_eq!(done, Written { rows: 3, reader_left: false });
    let mut reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(out)).unwrap().build().unwrap();
    let batch = reader.next().unwrap().unwrap();
    let expected = spending().rows.next().await.unwrap().unwrap();
    assert_eq!(batch.columns(), expected.columns());
}

#[tokio::test]
async fn text_as_views_is_plain_text_to_the_readers_of_parquet() {
    let views = || result_of(vec![("a", Arc::new(StringViewArray::from(vec!["x", "=y"])) as ArrayRef)]);
    let mut out = Vec::new();
    write(views(), Format::Parquet, &mut out).await.unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(out)).unwrap();
    assert_eq!(reader.schema().field(0).data_type(), &DataType::Utf8);
    assert_eq!(written(views(), Format::Csv).await, "a\nx\n'=y\n");
    assert_eq!(written(views(), Format::Json).await, "{\"a\":\"x\"}\n{\"a\":\"=y\"}\n");
}

#[tokio::test]
async fn no_rows_still_have_columns() {
    let none = || result_of(vec![("a", texts(vec![])), ("b", amounts(vec![]))]);
    assert_eq!(written(none(), Format::Table).await, "a  b\n-  -\n");
    assert_eq!(written(none(), Format::Csv).await, "a,b\n");
    assert_eq!(written(none(), Format::Json).await, "");
    let mut out = Vec::new();
    assert_eq!(write(none(), Format::Parquet, &mut out).await.unwrap().rows, 0);
    assert_eq!(
        ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(out)).unwrap().schema().fields().len(),
        2
    );
}

#[tokio::test]
async fn long_tables_come_in_blocks() {
    let text =
        written(result_of(vec![("n", Arc::new(Int64Array::from_iter_values(0..2500)))]), Format::Table).await;
    assert_eq!(text.matches("n\n").count(), 3);
    assert_eq!(text.lines().count(), 2500 + 3 * 2 + 2);
}

#[tokio::test]
async fn two_columns_of_one_name_are_refused_where_one_would_be_lost() {
    let twice = || result_of(vec![("a", texts(vec![Some("x")])), ("a", texts(vec![Some("y")]))]);
    for format in [Format::Json, Format::Parquet] {
        let error = write(twice(), format, &mut Vec::new()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "query: two columns are called `a`; give one of them another name with AS"
        );
    }
    assert_eq!(written(twice(), Format::Csv).await, "a,a\nx,y\n");
}

/// Takes some bytes, then fails.
struct Fails(usize, ErrorKind);

impl Write for Fails {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(self.1.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_leaves_is_a_good_end_and_a_full_disk_is_not() {
    for format in Format::ALL {
        for room in [0, 10] {
            let left = write(spending(), format, &mut Fails(room, ErrorKind::BrokenPipe)).await.unwrap();
            assert!(left.reader_left, "{format}");
            let full = write(spending(), format, &mut Fails(room, ErrorKind::StorageFull)).await.unwrap_err();
            assert_eq!(full.kind, Kind::CannotWrite, "{format}");
        }
    }
}
