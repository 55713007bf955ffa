//! Budgets that are recommended, set, rolled over and explained.
//!
//! In: small lakes with known months. Out: pass or fail.
//! Invariant: expected amounts are worked out by hand.

use crate::support::{Said, Scratch};

/// One user's groceries of 100, 120, 110 and 130 and dining of 10, 0, 10 and 0 from January to April;
/// a second user's groceries in April alone; a third who was last seen in January.
fn household() -> Scratch {
    let mut log = String::new();
    for (month, groceries, dining) in [(1, 100, 10), (2, 120, 0), (3, 110, 10), (4, 130, 0)] {
        log += &format!("1\t2025-{month:02}-03T10:00:00Z\tMarket\t{groceries}.00\n");
        if dining > 0 {
            log += &format!("1\t2025-{month:02}-05T10:00:00Z\tCafe\t{dining}.00\n");
        }
    }
    log += "2\t2025-04-30T10:00:00Z\tMarket\t70.00\n3\t2025-01-10T10:00:00Z\tMarket\t70.00\n";
    let scratch = Scratch::new()
        .table("sellers.csv", "seller,category\nMarket,groceries\nCafe,dining\n")
        .table(
            "users.csv",
            "user_id,monthly_income,last_active_at\n1,1000.00,2025-04-29\n2,1000.00,2025-04-01\n3,1000.00,2025-03-30\n",
        )
        .table(
            "budget_template.toml",
            "[[tier]]\nname='all'\nincome_from='0'\nshares={groceries=0.2, dining=0.05, gas=0.05}\n",
        )
        .table("budget_overrides.csv", "user_id,category,amount,from_month,to_month\n1,gas,33.33,2025-05,2025-05\n");
    scratch.write("logs/a.tsv", log);
    let said = scratch.run(&[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    scratch
}

/// Runs a job of kind `recommend` over the household's lake and tables.
fn recommend(scratch: &Scratch, section: &str, more: &[&str]) -> Said {
    let table = |name: &str| scratch.path(name);
    scratch.write(
        "recommend.toml",
        format!(
            "name = \"recommend\"\nkind = \"recommend\"\n[input]\nusers = {:?}\nbudget_template = {:?}\n\
             budget_overrides = {:?}\nlogs = {:?}\n[output]\nlake = {:?}\n[recommend]\n{section}",
            table("users.csv"),
            table("budget_template.toml"),
            table("budget_overrides.csv"),
            table("logs/"),
            scratch.lake()
        ),
    );
    let job = scratch.path("recommend.toml");
    let mut arguments = vec!["run", job.to_str().unwrap()];
    arguments.extend(more);
    scratch.pennymill(&arguments)
}

fn recommended(scratch: &Scratch) -> Vec<String> {
    let lake = scratch.lake();
    let sql = "select month, user_id, category, amount, basis, template_amount, history_amount, history_months \
               from budget_recommendations order by 1, 2, 3";
    let said = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.stdout.lines().skip(1).map(String::from).collect()
}

#[test]
fn budgets_rest_on_history_income_or_both() {
    let scratch = household();
    let said = recommend(&scratch, "", &["--report", "json"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let report = said.json();
    assert_eq!(report["recommended_month"], "2025-05");
    // Groceries: median 115, second-highest 120, so 117.50; with the template's 200 once in five
    // 134.00. Dining: median 5, second-highest 10, so 7.50; with 50 once in five 16.00. Together
    // 150.00, of which 130.00 and 15.00 are whole steps; the five that is left is dining's.
    let first = [
        "2025-05-01,1,dining,20.00,blended,50.00,7.50,4",
        "2025-05-01,1,gas,33.33,manual,50.00,0.00,4",
        "2025-05-01,1,groceries,130.00,blended,200.00,117.50,4",
    ];
    let second = [
        "2025-05-01,2,dining,50.00,template,50.00,,1",
        "2025-05-01,2,gas,50.00,template,50.00,,1",
        "2025-05-01,2,groceries,200.00,template,200.00,,1",
    ];
    assert_eq!(recommended(&scratch), [first, second].concat());
    // A month is replaced, others stay; savings cut what is computed, not what was set.
    let said = recommend(&scratch, "as_of = \"2025-04-30\"\nsavings = 0.9\n", &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let cut = recommended(&scratch);
    assert_eq!(cut.len(), 6, "{cut:?}");
    let cents = |row: &String| row.split(',').nth(3).unwrap().replace('.', "").parse::<i64>().unwrap();
    assert_eq!(cut[..3].iter().map(cents).sum::<i64>(), 98_33, "at most 100.00, in fives: {cut:?}");
    assert_eq!(cut[3..].iter().map(cents).sum::<i64>(), 100_00);
    recommend(&scratch, "as_of = \"2025-03-31\"\n", &[]);
    let months: Vec<String> = recommended(&scratch).iter().map(|row| row[..7].to_string()).collect();
    assert_eq!(months.iter().filter(|month| *month == "2025-05").count(), 6, "{months:?}");
    assert!(months.iter().any(|month| month == "2025-04"));
}

#[test]
fn transactions_tell_who_is_active_where_the_users_table_does_not() {
    let scratch = household();
    scratch.write("users.csv", "user_id,monthly_income\n1,1000.00\n2,\n3,1000.00\n");
    let said = recommend(&scratch, "", &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let users: Vec<String> =
        recommended(&scratch).iter().map(|row| row.split(',').nth(1).unwrap().to_string()).collect();
    assert!(users.iter().all(|user| user == "1"), "user 2 has neither income nor history: {users:?}");
    // Thirty days, both ends included.
    let said = recommend(&scratch, "as_of = \"2025-02-08\"\n", &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let of_march = recommended(&scratch).into_iter().filter(|row| row.starts_with("2025-03"));
    let mut users: Vec<String> = of_march.map(|row| row.split(',').nth(1).unwrap().to_string()).collect();
    users.dedup();
    assert_eq!(users, ["1", "3"]);
    let said = recommend(&scratch, "as_of = \"2025-02-09\"\n", &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(!recommended(&scratch).iter().any(|row| row.starts_with("2025-03-01,3,")));
}

#[test]
fn a_backtest_writes_nothing_and_tells_all_rules() {
    let scratch = household();
    let said = recommend(&scratch, "", &["--backtest", "2025-04", "--report", "json"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let score = said.json();
    let rules = score["with_income"].as_array().unwrap();
    let names: Vec<&str> = rules.iter().map(|rule| rule["rule"].as_str().unwrap()).collect();
    assert_eq!(names, ["recommended", "template only", "last month", "mean of all months"]);
    // Groceries were 130 and dining 0. January to March wish for 132.50 (three times 110 and 200, over
    // 4) and 20, together 155: 130 and 25.
    assert_eq!(
        rules[0]["categories"],
        serde_json::json!({"pairs": 2, "within": 2, "mean_above": "0.00", "mean_below": "12.50"})
    );
    assert_eq!(
        rules[2]["categories"],
        serde_json::json!({"pairs": 2, "within": 1, "mean_above": "10.00", "mean_below": "5.00"})
    );
    let text = recommend(&scratch, "", &["--backtest", "2025-04"]).stdout;
    assert!(
        text.contains("users with an income and a history") && text.contains("mean of all months"),
        "{text}"
    );
    assert!(!scratch.path("lake/budget_recommendations").exists());
    let said = recommend(&scratch, "", &["--backtest", "2031-04"]);
    assert_eq!((said.code, said.stderr.lines().count()), (66, 1), "{}", said.stderr);
}

#[test]
fn what_cannot_be_recommended_is_said() {
    let scratch = household();
    scratch.write("users.csv", "user_id,monthly_income,last_active_at\n1,1000.00,yesterday\n");
    let said = recommend(&scratch, "", &[]);
    assert_eq!(said.code, 65, "{}", said.stderr);
    assert!(said.stderr.contains("users.csv:2: column `last_active_at`: not a timestamp"), "{}", said.stderr);
    let empty = Scratch::new();
    for name in ["users.csv", "budget_overrides.csv"] {
        empty.write(name, "user_id,monthly_income,category,amount\n");
    }
    empty.write("budget_template.toml", "tier = []");
    let said = recommend(&empty, "", &[]);
    assert_eq!((said.code, said.stderr.lines().count()), (66, 1), "{}", said.stderr);
    let job = scratch.job();
    let said = scratch.pennymill(&["run", job.to_str().unwrap(), "--backtest", "2025-04"]);
    assert!(said.code == 78 && said.stderr.contains("jobs of kind \"recommend\""), "{}", said.stderr);
}

#[test]
fn what_is_left_over_rolls_on_and_late_refunds_with_it() {
    let scratch = household().rest("[budgets]\nroll_over_from = \"2025-01\"\n");
    let budget = |scratch: &Scratch| {
        let lake = scratch.lake();
        let arguments = [
            "explain",
            "--lake",
            lake.to_str().unwrap(),
            "--user",
            "1",
            "--month",
            "2025-04",
            "--budgets",
            "--format",
            "csv",
        ];
        let said = scratch.pennymill(&arguments);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let row = said.stdout.lines().find(|line| line.starts_with("groceries")).unwrap();
        row.to_string()
    };
    scratch.write("logs/b.tsv", "1\t2025-04-04T10:00:00Z\tCafe\t1.00\n");
    scratch.run(&[]);
    // 100, 80 and 90 were left of 200.
    assert_eq!(budget(&scratch), "groceries,130.00,470.00,template,270.00,0,,0.800000,376.00");
    // Late: a refund of January, and far too much in February.
    scratch.write("logs/c.tsv", "1\t2025-01-20\tMarket\t-50.00\n1\t2025-02-20\tMarket\t1000.00\n");
    scratch.run(&[]);
    assert_eq!(budget(&scratch), "groceries,130.00,290.00,template,90.00,0,,0.800000,232.00");
    scratch.write("logs/d.tsv", "1\t2025-04-20\tMarket\t200.00\n");
    scratch.run(&[]);
    let said = "groceries,330.00,290.00,template,90.00,1,raised exceeded at 1,,";
    assert_eq!(budget(&scratch), said);
}

#[test]
fn every_budget_of_a_month_is_explained() {
    let scratch = household();
    let lake = scratch.lake();
    let arguments =
        ["explain", "--lake", lake.to_str().unwrap(), "--user", "1", "--month", "2025-05", "--budgets"];
    let said = scratch.pennymill(&arguments);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for words in ["33.33  manual", "200.00  template", "next_threshold"] {
        assert!(said.stdout.contains(words), "{}", said.stdout);
    }
}

#[test]
fn pace_is_told_when_the_day_has_come() {
    let rest = "[alerts]\npace_from_day = 10\npace_margin = 0.2\n";
    let scratch = Scratch::new()
        .table("sellers.csv", "seller,category\nMarket,groceries\n")
        .table("budget_overrides.csv", "user_id,category,amount\n1,groceries,310.00\n2,groceries,310.00\n")
        .rest(rest);
    let alerts = |scratch: &Scratch, log: &str, text: &str| {
        scratch.write(log, text);
        scratch.run(&[]).json()["alerts"].clone()
    };
    // On the 9th nobody is told. By the 12th, 310 × 12 / 31 × 1.2 is 144.00, which is not above it.
    let row =
        |user: u64, day: u32, amount: &str| format!("{user}\t2025-01-{day:02}T10:00:00Z\tMarket\t{amount}\n");
    let first = alerts(&scratch, "logs/a.tsv", &(row(1, 9, "144.00") + &row(2, 9, "144.01")));
    assert_eq!((&first["pace"], &first["approaching"]), (&0.into(), &0.into()));
    let second = alerts(&scratch, "logs/b.tsv", &row(3, 12, "1.00"));
    assert_eq!(second["pace"], 1);
    let third = alerts(&scratch, "logs/c.tsv", &row(2, 12, "10.00"));
    assert_eq!(third["pace"], 0, "once is enough");
}
