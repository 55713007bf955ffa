//! Tables whose rows are made as they are read, and questions that outgrow memory.
//!
//! In: numbers without end. Out: rows, or what went wrong.
//! Invariant: memory is bounded, and an error comes through as it was.

use super::*;

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
        query_text(fixture.lake(true), vec![("made".into(), made(count, partitions))], sql, memory, 2)
            .await?;
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
    let result = query_text(fixture.lake(true), vec![("raw".into(), table)], sql, MEMORY, 2).await.unwrap();
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
    let answer = query_text(fixture.lake(true), extra, "SELECT 1", MEMORY, 1).await;
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
        let error = query_text(lake, vec![], "SELECT 1", MEMORY, 1).await.err().unwrap();
        assert_eq!(error.kind, Kind::Invariant);
    }
}
