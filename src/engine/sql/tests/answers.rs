//! What questions over published tables answer, and what they read for it.
//!
//! In: months of two parts each. Out: rows, and the files and row groups that were opened.
//! Invariant: answers are right to the cent, and nothing is opened that cannot matter.

use super::*;

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
