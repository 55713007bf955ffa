//! Questions in SQL over a lake and over raw logs, and jobs made of them.
//!
//! In: small logs. Out: answers. Invariant: answers are to the cent, and a question only reads.

use crate::support::Scratch;

fn lake() -> Scratch {
    let scratch = Scratch::new().table("sellers.csv", "seller,category\nShop,groceries\nPump,gas\n");
    scratch.write(
        "logs/a.tsv",
        "1\t2025-01-10T10:00:00Z\tShop\t10.00\n2\t2025-01-11T10:00:00Z\tPump\t0.10\n2\t2025-02-11T10:00:00Z\tPump\t0.20\n\
         1\t2025-02-10T10:00:00Z\t=cmd|x\t7.05\nbad\n",
    );
    assert_eq!(scratch.run(&["--set", "limits.rejects_max_ratio=1"]).code, 0);
    scratch
}

fn ask(scratch: &Scratch, sql: &str, format: &str) -> String {
    let lake = scratch.lake();
    let said = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql, "--format", format]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.stdout
}

#[test]
fn published_tables_answer_to_the_cent() {
    let scratch = lake();
    let sql = "select category, sum(amount) from monthly_spending group by 1 order by 2 desc";
    let csv = ask(&scratch, sql, "csv");
    let lines: Vec<&str> = csv.lines().skip(1).collect();
    assert_eq!(lines, ["groceries,10.00", "uncategorized,7.05", "gas,0.30"]);
    assert!(ask(&scratch, sql, "table").contains("uncategorized"));
    let json = ask(
        &scratch,
        "select month, user_id, amount from monthly_spending where user_id = 2 order by 1",
        "json",
    );
    assert_eq!(json.lines().next().unwrap(), r#"{"month":"2025-01-01","user_id":2,"amount":0.10}"#);
    let rejects = ask(&scratch, "select line, byte_offset, \"column\", reason from rejects", "csv");
    assert_eq!(rejects.lines().nth(1).unwrap().split(',').next_back().unwrap(), "field_count");
}

#[test]
fn raw_logs_are_a_table_parsed_by_the_same_kernel() {
    let scratch = lake();
    let job = scratch.job();
    let raw = |sql: &str| {
        let said = scratch.pennymill(&["query", "--job", job.to_str().unwrap(), sql, "--format", "csv"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        (said.stdout, said.stderr)
    };
    let (answer, talk) =
        raw("select line, seller, category, category_source from raw_transactions order by line");
    let lines: Vec<&str> = answer.lines().skip(1).collect();
    assert_eq!(lines[0], "1,Shop,groceries,dictionary");
    assert_eq!(lines[3], "4,'=cmd|x,uncategorized,none", "a cell is no formula");
    assert!(talk.contains("1 lines of the raw logs are no transactions"), "{talk}");
    let difference = "select month, user_id, category, sum(amount), count(*) from raw_transactions group by 1, 2, 3 \
                      except select * from monthly_spending";
    assert_eq!(raw(difference).0.lines().count(), 1);
}

#[test]
fn a_question_only_reads_and_mistakes_are_one_line() {
    let scratch = lake();
    let lake = scratch.lake();
    for (sql, part) in [
        ("drop table monthly_spending", "only reads"),
        ("select * from monthly_spendin", "monthly_spending"),
        ("select amoun from monthly_spending", "amount"),
        ("selec 1", "query"),
    ] {
        let said = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql]);
        assert_eq!((said.code, said.stderr.lines().count()), (78, 1), "{}", said.stderr);
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    let said = scratch.pennymill(&["query", "--lake", scratch.path("none").to_str().unwrap(), "select 1"]);
    assert_eq!(said.code, 66, "{}", said.stderr);
}

#[test]
fn an_sql_job_publishes_its_answer_and_replaces_it() {
    let scratch = lake();
    let lake = scratch.lake();
    scratch.write(
        "totals.sql",
        // Columns may be called as those of spending and be of another type.
        "select category, sum(amount) as amount, min(cast(user_id as varchar)) as user_id \
         from monthly_spending group by category",
    );
    let text =
        format!("name = \"totals\"\nkind = \"sql\"\nquery = \"totals.sql\"\n[output]\nlake = {lake:?}\n");
    scratch.write("totals.toml", text);
    let job = scratch.path("totals.toml");
    for version in 1..=2 {
        let said = scratch.pennymill(&["run", job.to_str().unwrap(), "--report", "json"]);
        assert_eq!((said.code, said.json()["table_version"].as_i64()), (0, Some(version)), "{}", said.stderr);
        assert_eq!(ask(&scratch, "select sum(amount) s, count(*) n from totals", "csv"), "s,n\n17.35,3\n");
    }
    scratch.write(
        "totals.toml",
        std::fs::read_to_string(&job).unwrap().replace("\"totals\"", "\"monthly_spending\""),
    );
    assert_eq!(scratch.pennymill(&["run", job.to_str().unwrap()]).code, 78);
}
