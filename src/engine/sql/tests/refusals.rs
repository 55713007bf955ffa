//! Questions that are refused, and parts that cannot be read.
//!
//! In: wrong questions, damaged tables. Out: errors.
//! Invariant: a question only reads, and an error says what to do and nothing of the data.

use super::*;

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
