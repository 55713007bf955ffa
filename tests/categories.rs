//! The categorizer as its users meet it: descriptors, layers, votes, explanations, scores.
//!
//! In: descriptors written for the purpose, small jobs, and real labels where they lie beside the
//! project. Out: pass or fail. Invariant: what is said of a seller is what a run publishes for it.

use crate::support::{Numbers, Scratch, parts, real_data};
use pennymill::domain::category::CategorySource;
use pennymill::domain::transaction::Transaction;
use pennymill::input::reference::Reference;
use pennymill::job::spec::Spec;
use pennymill::kernel::categorize::{Categorizer, Decision};
use pennymill::kernel::choices::seller_name;
use pennymill::kernel::memo::{Known, Memo};
use pennymill::output::crowd;
use std::collections::BTreeMap;
use std::path::Path;

fn shipped(country: &str) -> (Reference, Categorizer) {
    let mut spec = Spec::shipped();
    spec.input.country.0 = vec![country.parse().unwrap()];
    let reference = Reference::load(&spec, crowd::read).unwrap();
    let categorizer = Categorizer::of(&reference).unwrap();
    (reference, categorizer)
}

/// Reads like a book: what banks print, and what becomes of it.
#[test]
fn descriptors_as_banks_print_them() {
    let table = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/descriptors.tsv"));
    let table = table.unwrap();
    let by_country = BTreeMap::from(["gb", "us"].map(|country| (country, shipped(country))));
    let mut wrong = Vec::new();
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    for row in &rows {
        let [_, country, raw, normalised, category, layer] = row[..] else { panic!("{row:?}") };
        let (reference, categorizer) = &by_country[country];
        let decision = categorizer.look_up(raw, &mut String::new()).decision;
        let found = (seller_name(raw), reference.categories.code(decision.category), decision.source.name());
        if found != (normalised.to_string(), category, layer) {
            wrong.push(format!("{country} {raw}: {found:?} and not {normalised}, {category}, {layer}"));
        }
    }
    assert!(wrong.is_empty() && rows.len() >= 200, "{}", wrong.join("\n"));
}

/// The same descriptors with other digits in their places: a reference that a branch prints beside its
/// number, a name that is a number, a code.
#[test]
fn what_is_remembered_of_a_seller_is_what_would_be_found() {
    let table = include_str!("descriptors.tsv");
    let (mut numbers, mut rows) = (Numbers(2026), 0);
    for country in ["gb", "us"] {
        let (_, categorizer) = shipped(country);
        let known = Known::new(&categorizer);
        let mut memo = Memo::new(&known);
        for raw in table.lines().skip(1).filter_map(|row| row.split('\t').nth(2)) {
            for variant in 0..20 {
                let mut digit = |c: char| match c.is_ascii_digit() && variant > 0 {
                    true => char::from(b'0' + numbers.below(10) as u8),
                    false => c,
                };
                let seller: String = raw.chars().map(&mut digit).collect();
                assert_eq!(memo.categorize(&of_seller(&seller)), fresh(&categorizer, &seller), "{seller}");
                rows += 1;
            }
        }
    }
    assert!(rows >= 8_000, "{rows}");
}

#[test]
fn what_is_remembered_of_real_sellers_is_what_would_be_found() {
    let Some(folder) = real_data("birmingham/drops") else { return };
    let (_, categorizer) = shipped("gb");
    let known = Known::new(&categorizer);
    let (mut memo, mut found) = (Memo::new(&known), BTreeMap::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let drop = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for seller in drop.lines().filter_map(|row| row.split('\t').nth(2)) {
            let expected = *found.entry(seller.to_string()).or_insert_with(|| fresh(&categorizer, seller));
            assert!(memo.categorize(&of_seller(seller)) == expected, "a seller is remembered as another");
        }
    }
    assert!(memo.counts.by_text > 100_000, "{:?}", memo.counts);
}

fn of_seller(seller: &str) -> Transaction<'_> {
    let month = "2025-01".parse().unwrap();
    Transaction { user_id: 7, occurred_at_micros: 1, month, seller, amount_cents: 100 }
}

fn fresh(categorizer: &Categorizer, seller: &str) -> Decision {
    let found = categorizer.look_up(seller, &mut String::new());
    categorizer.decide(&of_seller(seller), found.choices, &found.rules, found.decision)
}

#[test]
fn the_shipped_tables_are_as_large_as_they_claim() {
    let all = Spec::shipped();
    let reference = Reference::load(&all, crowd::read).unwrap();
    let counts = Categorizer::of(&reference).unwrap().counts();
    let count = |source| counts.iter().find(|(of, _)| *of == source).unwrap().1;
    assert!(count(CategorySource::Dictionary) >= 40_000, "{counts:?}");
    assert!(count(CategorySource::Alias) >= 500 && count(CategorySource::Keyword) >= 300, "{counts:?}");
    let (_, in_gb) = shipped("gb");
    let category = |categorizer: &Categorizer, seller: &str| {
        let decision = categorizer.look_up(seller, &mut String::new()).decision;
        reference.categories.code(decision.category).to_string()
    };
    let (_, in_nl) = shipped("nl");
    assert_eq!(category(&in_gb, "ARGOS 0912 LEEDS"), "shopping");
    assert_eq!(category(&in_nl, "ARGOS 0912 UTRECHT"), "gas");
    let everywhere = Categorizer::of(&reference).unwrap();
    assert_eq!(category(&everywhere, "ARGOS 0912"), "uncategorized", "countries disagree");
}

/// The job's own tables, in every layer.
fn layered() -> Scratch {
    Scratch::new()
        .table("sellers.csv", "seller,category,country\nBlue Bottle,dining,us\nBlue Bottle,home,gb\nAcme,shopping,\n")
        .table("aliases.csv", "seller,category\nacme fuel,gas\n")
        .table("keywords.csv", "keyword,category,country,department\ntandoori,dining,,\npharmacy,health,,also\n")
        .table("rules.csv", "pattern,category,amount_min,amount_max,sign\n^acme$,travel,100.00,,\nrent,housing,,,spent\n")
        .table("votes.csv", "seller,category,decided\nlocal gem,entertainment,true\nacme,charity,true\nlocal gem,fees,false\n")
        .table("category_overrides.csv", "user_id,seller,category,set_at\n2,ACME #77,education,2025-01-01\n")
        .input("country = [\"us\", \"gb\"]")
        .rest("transactions = true")
}

const LAYERED_LOG: &str = "\
1\t2025-01-01\tSQ *BLUE BOTTLE 0123 OAKLAND CA\t5.00\n\
1\t2025-01-02\tACME 0001\t99.99\n\
1\t2025-01-03\tACME 0002\t100.00\n\
2\t2025-01-03\tACME 0002\t100.00\n\
1\t2025-01-04\tACME FUEL 55\t40.00\n\
1\t2025-01-05\tACME PHARMACY\t7.00\n\
1\t2025-01-06\tLOCAL GEM\t8.00\n\
1\t2025-01-07\tRAJ TANDOORI\t9.00\n\
1\t2025-01-08\tRENT 839201\t700.00\n\
1\t2025-01-09\tRENT 839202\t-700.00\n";

#[test]
fn every_layer_decides_in_its_turn_and_explains_itself() {
    let scratch = layered();
    scratch.write("logs/a.tsv", LAYERED_LOG);
    let said = scratch.run(&[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let expected = "\
category,amount,seller,category_source,matched,line\n\
dining,5.00,SQ *BLUE BOTTLE 0123 OAKLAND CA,dictionary,Blue Bottle,1\n\
shopping,99.99,ACME 0001,dictionary,Acme,2\n\
travel,100.00,ACME 0002,rule,^acme$,3\n\
gas,40.00,ACME FUEL 55,alias,acme fuel,5\n\
health,7.00,ACME PHARMACY,keyword,pharmacy,6\n\
entertainment,8.00,LOCAL GEM,crowd,local gem,7\n\
dining,9.00,RAJ TANDOORI,keyword,tandoori,8\n\
housing,700.00,RENT 839201,rule,rent,9\n\
uncategorized,-700.00,RENT 839202,none,,10\n";
    let columns = |csv: &str| -> String {
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let kept = [0, 1, 3, 4, 5, 7];
        let line = |record: &csv::StringRecord| kept.map(|i| record[i].to_string()).join(",") + "\n";
        let header = line(reader.headers().unwrap());
        header + &reader.records().map(|record| line(&record.unwrap())).collect::<String>()
    };
    let lake = scratch.lake();
    let lake = lake.to_str().unwrap();
    let explain = |more: &[&str]| {
        let mut arguments = vec!["explain", "--user", "1", "--month", "2025-01", "--format", "csv"];
        arguments.extend(more);
        scratch.pennymill(&arguments)
    };
    // From the published transactions, then from the raw logs by the job that the lake remembers.
    let published = explain(&["--lake", lake]);
    assert_eq!(
        (published.code, columns(&published.stdout)),
        (0, expected.to_string()),
        "{}",
        published.stderr
    );
    std::fs::remove_dir_all(scratch.lake().join("transactions")).unwrap();
    let raw = explain(&["--lake", lake]);
    assert_eq!((raw.code, &raw.stdout), (0, &published.stdout), "{}", raw.stderr);
    assert!(raw.stderr.contains("dining: 14.00 in 2 transactions, as published"), "{}", raw.stderr);
    let one = explain(&["--lake", lake, "--category", "dining"]);
    assert_eq!((one.code, one.stdout.lines().count()), (0, 3));
    let override_of = scratch.pennymill(&["explain", "--lake", lake, "--user", "2", "--month", "2025-01"]);
    assert!(override_of.code == 0 && override_of.stdout.contains("override"), "{}", override_of.stdout);
    assert!(override_of.stdout.contains("education: 100.00 in 1 transactions, as published"));
    // Another dictionary: the difference is said, and the exit code tells.
    scratch.write("sellers.csv", "seller,category\nBlue Bottle,fees\n");
    let changed = explain(&["--lake", lake]);
    assert_eq!(changed.code, 3);
    assert!(changed.stderr.contains("--rebuild 2025-01"), "{}", changed.stderr);
    let nobody = scratch.pennymill(&["explain", "--lake", lake, "--user", "9", "--month", "2025-01"]);
    assert_eq!((nobody.code, nobody.stderr.lines().count()), (66, 1));
}

#[test]
fn an_earlier_table_holds_and_rules_may_ask_for_amounts() {
    let scratch = Scratch::new()
        .table("rules.csv", "pattern,category,amount_min\n^acme$,travel,100\n^odd$,fees,\n")
        .input("country = \"gb\"\naliases = \"builtin\"\nkeywords = \"builtin\"");
    scratch.write("mine.csv", "seller,category\nArgos,education\n");
    let mine = scratch.path("mine.csv");
    let scratch = scratch.input(&format!("sellers = [{mine:?}, \"builtin\"]"));
    let job = scratch.job();
    let explain = |seller: &str| {
        let said = scratch.pennymill(&["explain", "--seller", seller, "--job", job.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let decisions = said.stdout.lines().filter(|line| line.starts_with("decision"));
        decisions
            .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(explain("ARGOS 0912 LEEDS"), ["education by dictionary, unless the user chose otherwise"]);
    assert_eq!(explain("SAINSBURYS 0678 PETROL"), ["gas by keyword, unless the user chose otherwise"]);
    assert_eq!(explain("BOOKING.COM HOTEL AMSTERDAM"), ["travel by alias, unless the user chose otherwise"]);
    let acme = explain("ACME 0012");
    assert_eq!(acme[0], "travel for the amounts that the rule `^acme$` asks for, else");
    assert_eq!(acme[1], "uncategorized: no layer knows it");
    assert_eq!(explain("ODD"), ["fees by rule, unless the user chose otherwise"]);
    scratch.write("labels.tsv", "seller\trows\nODD\t3\n");
    let labels = scratch.path("labels.tsv");
    let arguments =
        ["score", "--labels", labels.to_str().unwrap(), "--job", job.to_str().unwrap(), "--report", "json"];
    assert_eq!(scratch.pennymill(&arguments).json()["by_layer"]["rule"]["covered_rows"], 3);
}

#[test]
fn a_seller_is_explained_step_by_step() {
    let scratch = Scratch::new();
    let said =
        scratch.pennymill(&["explain", "--seller", "SQ *BLUE BOTTLE 0123 OAKLAND CA", "--country", "us"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines[0], "printed      SQ *BLUE BOTTLE 0123 OAKLAND CA");
    assert!(lines.iter().any(|line| line.starts_with("  store number") && line.ends_with(" blue bottle")));
    assert!(lines.iter().any(|line| line.starts_with("candidate    dining by dictionary")));
    assert!(lines.last().unwrap().starts_with("decision     dining"));
    let unknown = scratch.pennymill(&["explain", "--seller", "ZZQY 12"]);
    assert!(unknown.stdout.ends_with("decision     uncategorized: no layer knows it\n"));
}

#[test]
fn wrong_tables_name_file_line_and_column() {
    for (table, text, expected) in [
        (
            "category_overrides.csv",
            "user_id,seller,category,set_at\n1,a,dining,2025-01-01\n1,a,nonsense,2025-01-01\n",
            ":3: column `category`: not a category",
        ),
        ("rules.csv", "pattern,category\n(,dining\n", ":2: column `pattern`: not a regular expression"),
        (
            "rules.csv",
            "pattern,category,amount_min,amount_max\na,dining,5,4\n",
            ":2: column `amount_max`: no amount fits",
        ),
        ("aliases.csv", "seller,category,country\na,dining,gbr\n", ":2: column `country`: not countries"),
        ("keywords.csv", "keyword,category,department\na,dining,maybe\n", ":2: column `department`"),
        ("votes.csv", "seller,category\na,nonsense\n", ":2: column `category`: not a category"),
        ("votes.csv", "seller,category,decided\na,dining,perhaps\n", ":2: column `decided`: not `true`"),
        ("aliases.csv", "seller,category\n***,dining\n", ":2: column `seller`: names nobody"),
        ("keywords.csv", "keyword,category\na b c d e,dining\n", ":2: column `keyword`: more than 4 words"),
        ("rules.csv", "secret shop,12.30\n", "column `pattern` is missing; its first line must be a header"),
    ] {
        let scratch = Scratch::new().table(table, text);
        scratch.write("logs/a.tsv", "1\t2025-01-01\ta\t1.00\n");
        let said = scratch.run(&[]);
        assert_eq!((said.code, said.stderr.lines().count()), (65, 1), "{table}: {}", said.stderr);
        assert!(said.stderr.contains(expected) && said.stderr.contains(table), "{}", said.stderr);
    }
}

/// Runs the job of votes in the lake of a scratch folder.
fn count_votes(scratch: &Scratch, overrides: &str, more: &[&str]) -> String {
    let job = format!(
        "name = \"votes\"\nkind = \"votes\"\n[input]\ncategory_overrides = {:?}\n[output]\nlake = {:?}\n",
        scratch.path("overrides.csv"),
        scratch.lake()
    );
    scratch.write("overrides.csv", overrides).write("votes.toml", job);
    let file = scratch.path("votes.toml");
    let mut arguments = vec!["run", file.to_str().unwrap()];
    arguments.extend(more);
    let said = scratch.pennymill(&arguments);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let lake = scratch.lake();
    let sql = "select seller, category, votes, seller_votes, decided from crowd_votes order by 1, 3 desc";
    let rows = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), "--format", "csv", sql]);
    rows.stdout.lines().skip(1).map(|line| format!("{line}\n")).collect()
}

#[test]
fn votes_move_with_the_people_and_feed_the_crowd() {
    let scratch = Scratch::new();
    let header = "user_id,seller,category,set_at\n";
    let vote = |users: std::ops::Range<u32>, seller: &str, category: &str, day: u32| -> String {
        users.map(|user| format!("{user},{seller},{category},2025-01-{day:02}\n")).collect()
    };
    let first = header.to_string()
        + &vote(0..10, "Local Gem #12", "dining", 1)
        + &vote(10..12, "local gem", "fees", 1);
    assert_eq!(
        count_votes(&scratch, &first, &[]),
        "local gem,dining,10,12,true\nlocal gem,fees,2,12,false\n"
    );
    let moved = first.clone() + &vote(0..8, "LOCAL GEM", "fees", 2);
    assert_eq!(
        count_votes(&scratch, &moved, &[]),
        "local gem,fees,10,12,true\nlocal gem,dining,2,12,false\n"
    );
    let before = count_votes(&scratch, &moved, &["--set", "votes.as_of=2025-01-01"]);
    assert_eq!(before, "local gem,dining,10,12,true\nlocal gem,fees,2,12,false\n");
    let recent =
        count_votes(&scratch, &moved, &["--set", "votes.as_of=2025-01-02", "--set", "votes.age_days_max=1"]);
    assert_eq!(recent, "local gem,fees,8,8,true\n");

    let spending = Scratch::new().input(&format!("votes = {:?}", scratch.lake().join("crowd_votes")));
    spending.write("logs/a.tsv", "1\t2025-01-01\tSQ *LOCAL GEM 0099 AUSTIN TX\t5.00\n");
    let report = spending.run(&[]).json();
    assert_eq!(report["categorized"]["crowd"], 1, "{report}");
    assert!(spending.published().contains_key(&("2025-01".into(), 1, "fees".into())));
    let file = scratch.path("votes.toml");
    let taken = ["check", file.to_str().unwrap(), "--set", "output.table=transactions"];
    assert_eq!(scratch.pennymill(&taken).code, 78);
    let missing = Scratch::new().input(&format!("votes = {:?}", scratch.lake().join("nothing")));
    missing.write("logs/a.tsv", "1\t2025-01-01\tx\t5.00\n");
    assert_eq!(missing.run(&[]).code, 66);
}

#[test]
fn what_is_no_spending_is_published_and_never_alerted() {
    let categories = "\
[[category]]\ncode = \"uncategorized\"\nname = \"Uncategorized\"\nkind = \"spend\"\n\
[[category]]\ncode = \"shopping\"\nname = \"Shopping\"\nkind = \"spend\"\n\
[[category]]\ncode = \"transfer\"\nname = \"Transfers\"\nkind = \"transfer\"\n\
[[category]]\ncode = \"income\"\nname = \"Income\"\nkind = \"income\"\n\
[[category]]\ncode = \"noise\"\nname = \"Noise\"\nkind = \"ignore\"\n";
    let scratch = Scratch::new()
        .table("categories.toml", categories)
        .table("sellers.csv", "seller,category\nShop,shopping\nMove,transfer\nPay,income\nTest,noise\n")
        .table("budget_overrides.csv", "user_id,category,amount\n1,shopping,1.00\n");
    scratch.write(
        "logs/a.tsv",
        "1\t2025-01-01\tShop\t5.00\n1\t2025-01-01\tMove\t500.00\n1\t2025-01-01\tPay\t-500.00\n1\t2025-01-01\tTest\t50.00\n",
    );
    let report = scratch.run(&[]).json();
    assert_eq!(report["alerts"]["exceeded"], 1);
    let published: Vec<(String, i64)> = {
        let mut rows = Vec::new();
        for (path, bytes) in parts(&scratch.lake(), "monthly_spending") {
            let set = pennymill::domain::category::Categories::parse(categories).unwrap();
            for group in pennymill::input::published::read_groups(bytes.into(), &set, &path).unwrap() {
                rows.push((set.code(group.category).to_string(), group.amount_cents));
            }
        }
        rows
    };
    let expected = [("income", -50_000), ("noise", 5_000), ("shopping", 500), ("transfer", 50_000)];
    assert_eq!(published, expected.map(|(code, cents)| (code.to_string(), cents)));
    for kind in ["transfer", "income", "noise"] {
        scratch.write("budget_overrides.csv", format!("user_id,category,amount\n1,{kind},1.00\n"));
        scratch.write("logs/b.tsv", format!("1\t2025-01-02\t{kind}\t5.00\n"));
        assert_eq!(scratch.run(&[]).code, 65, "a budget for {kind}");
    }
}

#[test]
fn a_score_counts_rows_and_judges_only_what_it_may() {
    let scratch = Scratch::new();
    scratch.write(
        "labels.tsv",
        "seller\taccount\trows\nTESCO STORES 2335\tFood\t70\nzzqy\tFood\t20\nTESCO STORES 2335\tFuel\t7\nTESCO PFS 11\tOdd\t3\n",
    );
    scratch.write("map.tsv", "account\tacceptable_categories\nFood\tgroceries dining\nFuel\tgas\n");
    let path = |name: &str| scratch.path(name).to_str().unwrap().to_string();
    let (labels, map) = (path("labels.tsv"), path("map.tsv"));
    let arguments = ["score", "--labels", &labels, "--map", &map, "--country", "gb"];
    let said = scratch.pennymill(&[&arguments[..], &["--report", "json"]].concat());
    let score = said.json();
    for (key, expected) in
        [("rows", 100), ("covered_rows", 80), ("judged_covered_rows", 77), ("agreeing_rows", 70)]
    {
        assert_eq!(score[key], expected, "{key}: {score}");
    }
    assert_eq!((score["coverage"].as_f64(), score["agreement"].as_f64()), (Some(0.8), Some(0.9091)));
    assert_eq!(score["by_account"]["Food"]["agreement"], 1.0);
    assert_eq!(score["by_layer"]["none"]["rows"], 20);
    assert_eq!(score["worst_disagreements"][0]["account"], "Fuel");
    assert_eq!(score["biggest_uncovered"][0]["seller"], "zzqy");
    let page = scratch.pennymill(&arguments).stdout;
    assert!(page.contains("80.00 %") && page.contains("90.91 %"), "{page}");
}

/// What the shipped layers reach on labels that none of us made, held so that no change loses it.
#[test]
fn real_labels_are_covered_and_agreed_with() {
    let Some(folder) = real_data("birmingham") else { return };
    let path = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let (labels, map) = (path("labels.tsv"), path("account_categories.tsv"));
    let scratch = Scratch::new();
    let arguments = ["score", "--labels", &labels, "--map", &map, "--country", "gb", "--report", "json"];
    let score = scratch.pennymill(&arguments).json();
    assert_eq!(score["rows"], 127_106);
    let coverage = score["coverage"].as_f64().unwrap();
    assert!(coverage >= 0.80, "coverage {coverage}");
    // Hotels booked to conference fees are hotels all the same: that account judges the occasion.
    let accounts = score["by_account"].as_object().unwrap();
    let judged = accounts.iter().filter(|(account, _)| !account.starts_with("Conference"));
    let sum = |key: &str| judged.clone().map(|(_, tally)| tally[key].as_u64().unwrap()).sum::<u64>() as f64;
    let agreement = sum("agreeing_rows") / sum("judged_covered_rows");
    assert!(agreement >= 0.94, "agreement {agreement}");
}
