//! What lies beside the tables that a question names, and what lies in them.
//!
//! In: lakes with broken, foreign and oddly named neighbours, and damaged parts. Out: answers, warnings,
//! refusals. Invariant: only what a question names can disturb it; what is damaged is named.

use crate::support::{Said, Scratch};

/// A lake with a table of a job, `totals`, beside the program's own.
fn lake() -> Scratch {
    let scratch = Scratch::new().table("sellers.csv", "seller,category\nShop,groceries\nPump,gas\n");
    scratch.write(
        "logs/a.tsv",
        "1\t2025-01-10T10:00:00Z\tShop\t10.00\n2\t2025-02-11T10:00:00Z\tPump\t0.10\nbad\n",
    );
    let lets_in = ["--set", "limits.rejects_max_ratio=1", "--set", "output.transactions=true"];
    assert_eq!(scratch.run(&lets_in).code, 0);
    let totals = job(&scratch, "totals", "select category, sum(amount) a from monthly_spending group by 1");
    assert_eq!(scratch.pennymill(&["run", &totals]).code, 0);
    scratch
}

fn job(scratch: &Scratch, name: &str, sql: &str) -> String {
    scratch.write(&format!("{name}.sql"), sql);
    let lake = scratch.lake();
    let text =
        format!("name = {name:?}\nkind = \"sql\"\nquery = \"{name}.sql\"\n[output]\nlake = {lake:?}\n");
    scratch.write(&format!("{name}.toml"), text);
    scratch.path(&format!("{name}.toml")).to_str().unwrap().to_string()
}

fn ask(scratch: &Scratch, sql: &str, more: &[&str]) -> Said {
    let lake = scratch.lake();
    let arguments = ["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"];
    scratch.pennymill(&[&arguments, more].concat())
}

fn break_table(scratch: &Scratch, name: &str) {
    let log = scratch.lake().join(name).join("_delta_log");
    std::fs::create_dir_all(&log).unwrap();
    std::fs::write(log.join("00000000000000000000.json"), "{\"no\": \"commit\"").unwrap();
}

#[test]
fn a_table_that_is_broken_disturbs_only_who_asks_for_it() {
    let scratch = lake();
    break_table(&scratch, "broken");
    std::fs::create_dir(scratch.path("lake/no table")).unwrap();
    for (sql, rows) in [
        ("select count(*) c from monthly_spending", "c\n2\n"),
        ("select count(*) c from public.totals", "c\n2\n"),
        ("select count(*) c from datafusion.public.\"totals\"", "c\n2\n"),
        ("select count(*) c from TOTALS", "c\n2\n"),
        (
            "select count(*) c from (select * from totals where a in (select amount from monthly_spending))",
            "c\n2\n",
        ),
        ("with broken as (select 7 as n) select n from broken", "n\n7\n"),
        ("with totals as (select * from totals limit 1) select count(*) c from totals", "c\n1\n"),
        ("select count(*) c from rejects", "c\n1\n"),
        ("select 'rejects' as c", "c\nrejects\n"),
        ("select count(*) c from generate_series(1, 5)", "c\n5\n"),
        ("select 1 as c", "c\n1\n"),
    ] {
        let said = ask(&scratch, sql, &[]);
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, rows, ""), "{sql}");
    }
    for sql in ["describe totals", "show columns from totals", "explain select * from totals"] {
        let said = ask(&scratch, sql, &[]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{sql}");
        assert!(
            said.stdout.contains("category") && said.stdout.lines().count() > 2,
            "{sql}: {}",
            said.stdout
        );
    }
    let totals = scratch.path("totals.toml");
    for arguments in [
        vec!["run", totals.to_str().unwrap()],
        vec!["check", totals.to_str().unwrap()],
        vec!["explain", "--lake", scratch.lake().to_str().unwrap(), "--user", "1", "--month", "2025-01"],
    ] {
        let said = scratch.pennymill(&arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.stderr);
    }
    for sql in ["select * from broken", "select * from totals, broken", "describe broken"] {
        let said = ask(&scratch, sql, &[]);
        assert_eq!((said.code, said.stderr.lines().count()), (78, 1), "{sql}: {}", said.stderr);
        assert!(said.stderr.contains("broken"), "{sql}: {}", said.stderr);
    }
}

#[test]
fn who_lists_tables_gets_those_that_can_be_opened_and_is_told_of_the_rest() {
    let scratch = lake();
    let tables = "select table_name from information_schema.tables where table_schema = 'public'";
    let whole = ask(&scratch, &format!("{tables} order by 1"), &[]);
    assert_eq!((whole.code, whole.stderr.as_str()), (0, ""));
    assert_eq!(whole.stdout, "table_name\nmonthly_spending\ntotals\ntransactions\n");
    break_table(&scratch, "broken");
    for sql in ["show tables", tables, "select * from information_schema.columns"] {
        let said = ask(&scratch, sql, &[]);
        assert_eq!((said.code, said.stderr.lines().count()), (3, 1), "{sql}: {}", said.stderr);
        assert!(said.stderr.starts_with("pennymill: passed over: ") && said.stderr.contains("broken"));
        assert!(
            said.stdout.contains("totals") && said.stdout.contains("monthly_spending"),
            "{}",
            said.stdout
        );
    }
    let said = ask(&scratch, "select * from total", &[]);
    assert_eq!((said.code, said.stderr.lines().count()), (78, 1), "{}", said.stderr);
    let listed =
        "no table is called `total`; did you mean `totals`? tables: monthly_spending, totals, transactions";
    assert!(said.stderr.contains(listed), "{}", said.stderr);
    // A name is that of a table of the lake, and not a way out of it.
    for name in ["../lake/totals", "_runs", "totals/", ".", "tot%61ls"] {
        let said = ask(&scratch, &format!("select * from \"{name}\""), &[]);
        assert_eq!(said.code, 78, "{name}: {}", said.stderr);
        assert!(said.stderr.contains("no table is called"), "{name}: {}", said.stderr);
    }
}

#[cfg(unix)]
#[test]
fn a_folder_whose_name_is_no_text_disturbs_nobody() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = lake();
    let odd = std::ffi::OsStr::from_bytes(b"odd-\xff\xfe");
    std::fs::create_dir(scratch.lake().join(odd)).unwrap();
    std::fs::create_dir(scratch.path("lake/new\nline")).unwrap();
    for sql in ["select count(*) c from monthly_spending", "select count(*) c from totals"] {
        let said = ask(&scratch, sql, &[]);
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "c\n2\n", ""), "{sql}");
    }
    let said = ask(&scratch, "show tables", &[]);
    assert!([0, 3].contains(&said.code) && said.stdout.contains("monthly_spending"), "{}", said.stderr);
}

#[test]
fn parts_are_held_to_their_checksums_where_that_is_asked_for() {
    let scratch = lake();
    let sql = "select count(*) c from monthly_spending";
    let whole = ask(&scratch, sql, &["--verify"]);
    let said = "2 parts are what their manifests name; of 0 parts nobody knows the checksum\n";
    assert_eq!((whole.code, whole.stdout.as_str(), whole.stderr.as_str()), (0, "c\n2\n", said));
    let both = "select (select count(*) from totals) + (select count(*) from rejects) c";
    let whole = ask(&scratch, both, &["--verify"]);
    let said = "1 parts are what their manifests name; of 1 parts nobody knows the checksum\n";
    assert_eq!((whole.code, whole.stdout.as_str(), whole.stderr.as_str()), (0, "c\n3\n", said));
    for table in ["monthly_spending", "transactions"] {
        let (path, mut bytes) = crate::support::parts(&scratch.lake(), table).pop().unwrap();
        assert!(path.starts_with("month=2025-02"), "{path}");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(scratch.lake().join(table).join(&path), bytes).unwrap();
        // What the damaged part is not asked for is answered; the count alone would come from the log.
        let january = format!("select count(*) c from {table} where month = date '2025-01-01'");
        assert_eq!(ask(&scratch, &january, &["--verify"]).code, 0);
        let said = ask(&scratch, &format!("select count(*) c from {table}"), &["--verify"]);
        assert_eq!(
            (said.code, said.stderr.lines().count(), said.stdout.as_str()),
            (78, 1, ""),
            "{}",
            said.stderr
        );
        assert!(
            said.stderr.contains(&path) && said.stderr.contains("the lake is damaged"),
            "{}",
            said.stderr
        );
        let totals = job(&scratch, "totals", &format!("select month from {table}"));
        let said = scratch.pennymill(&["run", &totals, "--set", "input.verify=true"]);
        assert_eq!(said.code, 78, "{}", said.stderr);
        assert!(said.stderr.contains(&path), "{}", said.stderr);
    }
}
