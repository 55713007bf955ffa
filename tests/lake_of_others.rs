//! A lake whose tables others write too: by the Delta protocol, by the `deltalake` package of PyPI, by
//! damage.
//!
//! In: a lake of several nights, commits of other programs. Out: exit codes, sums, what a reader sees.
//! Invariant: what needs features that the program does not apply is refused, with nothing changed;
//! everything else counts to the cent. What needs Python skips aloud without it.

use crate::support::{Said, Scratch, checkpoint, python};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const WRITERS: &str = include_str!("writers.py");
const SPENDING: &str = "monthly_spending";

/// A lake of three nights: users 1 to 3 in January, the last night also in February.
fn nights() -> Scratch {
    let scratch = Scratch::new().table("sellers.csv", "seller,category\nShop,groceries\n");
    (1..4).for_each(|number| assert_eq!(night(&scratch, number).code, 0));
    scratch
}

fn night(scratch: &Scratch, number: u32) -> Said {
    let mut log = String::new();
    for user in 1..4 {
        log += &format!("{user}\t2025-01-{number:02}T10:00:00Z\tShop\t{number}.50\n");
    }
    log += &format!("9\t2025-02-{number:02}T10:00:00Z\tShop\t{number}.00\n");
    scratch.write(&format!("logs/{number}.tsv"), log);
    run(scratch)
}

fn run(scratch: &Scratch) -> Said {
    scratch.run(&["--set", "output.transactions=true"])
}

/// What nights 1 to `count` come to.
fn total(count: u32) -> String {
    let cents: u32 = (1..=count).map(|night| 3 * (night * 100 + 50) + night * 100).sum();
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn ask(scratch: &Scratch, arguments: &[&str]) -> Said {
    let lake = scratch.lake();
    scratch.pennymill(&[arguments, &["--lake", lake.to_str().unwrap()]].concat())
}

fn sum(scratch: &Scratch, table: &str) -> Said {
    ask(scratch, &["query", &format!("select sum(amount) s from {table}"), "--format", "csv"])
}

/// All objects of the lake but those that every run touches.
fn objects(scratch: &Scratch) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut folders, mut found) = (vec![scratch.lake()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.file_name().is_some_and(|name| name == "_lock" || name == "_probe") => {}
                false => drop(found.insert(path.clone(), std::fs::read(&path).unwrap())),
            }
        }
    }
    found
}

fn log(scratch: &Scratch, table: &str) -> PathBuf {
    scratch.lake().join(table).join("_delta_log")
}

fn commit_path(scratch: &Scratch, table: &str, version: u64) -> PathBuf {
    log(scratch, table).join(format!("{version:020}.json"))
}

fn newest(scratch: &Scratch, table: &str) -> u64 {
    (0..).take_while(|version| commit_path(scratch, table, *version).exists()).last().unwrap()
}

/// All actions of a log, oldest first.
fn actions(scratch: &Scratch, table: &str) -> Vec<Value> {
    let text = |version| std::fs::read_to_string(commit_path(scratch, table, version)).unwrap();
    let lines: String = (0..=newest(scratch, table)).map(|version| text(version) + "\n").collect();
    lines.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn newest_action(scratch: &Scratch, table: &str, kind: &str) -> Value {
    actions(scratch, table).iter().rev().find_map(|action| action.get(kind).cloned()).unwrap()
}

/// A commit as another program writes it.
fn commit(scratch: &Scratch, table: &str, actions: &[Value]) {
    let info = json!({"commitInfo": {"timestamp": 1_735_689_600_000_i64, "operation": "ALTER"}});
    let lines: String = std::iter::once(&info).chain(actions).map(|action| format!("{action}\n")).collect();
    std::fs::write(commit_path(scratch, table, newest(scratch, table) + 1), lines).unwrap();
}

fn protocol(reader: i32, writer: i32, features: &[&str]) -> Value {
    let mut protocol = json!({"minReaderVersion": reader, "minWriterVersion": writer});
    if reader >= 3 {
        protocol["readerFeatures"] = json!(features);
    }
    if writer >= 7 {
        protocol["writerFeatures"] = json!(features);
    }
    json!({ "protocol": protocol })
}

fn property(scratch: &Scratch, table: &str, name: &str, value: &str) -> Value {
    let mut metadata = newest_action(scratch, table, "metaData");
    metadata["configuration"][name] = json!(value);
    json!({ "metaData": metadata })
}

fn note(scratch: &Scratch, table: &str, name: &str, value: Value) -> Value {
    let mut metadata = newest_action(scratch, table, "metaData");
    let mut schema: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
    schema["fields"].as_array_mut().unwrap().last_mut().unwrap()["metadata"][name] = value;
    metadata["schemaString"] = json!(schema.to_string());
    json!({ "metaData": metadata })
}

/// The newest part of a table, taken out and put in again otherwise.
fn again(scratch: &Scratch, table: &str, change: impl Fn(&mut Value)) -> [Value; 2] {
    let mut add = newest_action(scratch, table, "add");
    let remove = json!({"path": add["path"], "deletionTimestamp": 1_735_689_600_000_i64, "dataChange": true});
    change(&mut add);
    [json!({ "remove": remove }), json!({ "add": add })]
}

/// The inline vector of the protocol's own example.
fn vector(add: &mut Value) {
    add["deletionVector"] = json!({
        "storageType": "i",
        "pathOrInlineDv": "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L",
        "sizeInBytes": 40,
        "cardinality": 6,
    });
}

type Change = fn(&Scratch, &str) -> Vec<Value>;

/// What binds readers, and what the message has to name.
const UNREADABLE: &[(&str, Change)] = &[
    ("deletionVectors", |scratch, table| {
        let mut actions = vec![protocol(3, 7, &["deletionVectors"])];
        actions.extend(again(scratch, table, vector));
        actions
    }),
    ("deletionVectors", |scratch, table| again(scratch, table, vector).to_vec()),
    ("deletionVectors", |_, _| vec![protocol(3, 7, &["deletionVectors"])]),
    ("columnMapping", |scratch, table| {
        vec![protocol(2, 5, &[]), property(scratch, table, "delta.columnMapping.mode", "name")]
    }),
    ("typeWidening", |_, _| vec![protocol(3, 7, &["typeWidening"])]),
    ("ofTomorrow", |_, _| vec![protocol(3, 7, &["ofTomorrow"])]),
    ("outside the table", |scratch, table| {
        again(scratch, table, |add| add["path"] = json!("file:///elsewhere/part.parquet")).to_vec()
    }),
    ("outside the table", |scratch, table| {
        again(scratch, table, |add| add["path"] = json!("../elsewhere/part.parquet")).to_vec()
    }),
];

/// What binds writers alone.
const UNWRITABLE: &[(&str, Change)] = &[
    ("ofTomorrow", |_, _| vec![protocol(1, 7, &["ofTomorrow"])]),
    ("rowTracking", |_, _| vec![protocol(1, 7, &["rowTracking", "domainMetadata"])]),
    ("inCommitTimestamp", |_, _| vec![protocol(1, 7, &["inCommitTimestamp"])]),
    ("checkConstraints", |scratch, table| {
        vec![protocol(1, 3, &[]), property(scratch, table, "delta.constraints.positive", "amount > 0")]
    }),
    ("changeDataFeed", |scratch, table| {
        vec![protocol(1, 4, &[]), property(scratch, table, "delta.enableChangeDataFeed", "true")]
    }),
    ("appendOnly", |scratch, table| vec![property(scratch, table, "delta.appendOnly", "true")]),
    ("invariants", |scratch, table| {
        vec![note(
            scratch,
            table,
            "delta.invariants",
            json!("{\"expression\":{\"expression\":\"amount > 0\"}}"),
        )]
    }),
    ("generatedColumns", |scratch, table| {
        vec![protocol(1, 4, &[]), note(scratch, table, "delta.generationExpression", json!("user_id"))]
    }),
    ("identityColumns", |scratch, table| {
        vec![protocol(1, 6, &[]), note(scratch, table, "delta.identity.start", json!(1))]
    }),
];

/// Undoes a commit of another program.
fn undo(scratch: &Scratch, table: &str) {
    std::fs::remove_file(commit_path(scratch, table, newest(scratch, table))).unwrap();
}

#[test]
fn what_needs_features_that_we_do_not_apply_is_refused_before_anything_is_read() {
    let scratch = nights();
    for (name, change) in UNREADABLE {
        commit(&scratch, SPENDING, &change(&scratch, SPENDING));
        let before = objects(&scratch);
        scratch.write("logs/4.tsv", "1\t2025-01-04T10:00:00Z\tShop\t4.00\n");
        let job = scratch.job();
        let said = [
            run(&scratch),
            scratch.run(&["--rebuild", "2025-01"]),
            scratch.run(&["--dry-run"]),
            sum(&scratch, SPENDING),
            ask(
                &scratch,
                &[
                    "query",
                    "select 1 from monthly_spending",
                    "--as-of",
                    &newest(&scratch, SPENDING).to_string(),
                ],
            ),
            ask(&scratch, &["audit"]),
            ask(&scratch, &["history"]),
            ask(&scratch, &["gc"]),
            ask(&scratch, &["explain", "--user", "1", "--month", "2025-01"]),
        ];
        drop(job);
        for said in said {
            assert_eq!(said.code, 78, "{name}: {}{}", said.stdout, said.stderr);
            assert!(said.stderr.contains(name) && said.stderr.contains(SPENDING), "{name}: {}", said.stderr);
            assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
        }
        assert!(objects(&scratch) == before, "{name}: something was changed");
        undo(&scratch, SPENDING);
    }
    std::fs::remove_file(scratch.path("logs/4.tsv")).unwrap();
    assert_eq!(night(&scratch, 4).code, 0, "without it the lake goes on");
    assert!(sum(&scratch, SPENDING).stdout.contains(&total(4)));
}

#[test]
fn what_binds_writers_alone_may_be_read_and_is_not_written() {
    let scratch = nights();
    for (name, change) in UNWRITABLE {
        for table in [SPENDING, "transactions"] {
            commit(&scratch, table, &change(&scratch, table));
            let before = objects(&scratch);
            scratch.write("logs/4.tsv", "1\t2025-01-04T10:00:00Z\tShop\t4.00\n");
            let said = run(&scratch);
            assert_eq!(said.code, 78, "{name}: {}{}", said.stdout, said.stderr);
            assert!(said.stderr.contains(name) && said.stderr.contains(table), "{name}: {}", said.stderr);
            assert!(objects(&scratch) == before, "{name}: something was changed");
            let said = sum(&scratch, table);
            assert!(said.stdout.contains(&total(3)), "{name}: {}{}", said.stdout, said.stderr);
            undo(&scratch, table);
        }
    }
}

#[test]
fn what_nobody_uses_harms_nobody() {
    let scratch = nights();
    commit(&scratch, SPENDING, &[protocol(2, 6, &[])]);
    commit(&scratch, SPENDING, &[note(&scratch, SPENDING, "comment", json!("of another program"))]);
    commit(&scratch, SPENDING, &[property(&scratch, SPENDING, "owner", "finance")]);
    let listed = ["timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "columnMapping"];
    commit(&scratch, "transactions", &[protocol(3, 7, &listed)]);
    let said = night(&scratch, 4);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(sum(&scratch, SPENDING).stdout.contains(&total(4)));
    assert!(sum(&scratch, "transactions").stdout.contains(&total(4)));
}

#[test]
fn a_commit_that_would_not_replace_a_part_is_not_made() {
    let scratch = nights();
    // The same part, whose name is spelled as no program of ours spells it.
    let spelled = |add: &mut Value| {
        add["path"] = json!(add["path"].as_str().unwrap().replace("part-", "part%2D"));
    };
    commit(&scratch, SPENDING, &again(&scratch, SPENDING, spelled));
    let said = sum(&scratch, SPENDING);
    assert!(said.stdout.contains(&total(3)), "it is the part that it was: {}{}", said.stdout, said.stderr);
    let before = newest(&scratch, SPENDING);
    let said = night(&scratch, 4);
    assert_eq!(said.code, 78, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("nothing was published"), "{}", said.stderr);
    assert_eq!(newest(&scratch, SPENDING), before);
    assert!(sum(&scratch, SPENDING).stdout.contains(&total(3)));
}

#[test]
fn a_log_that_is_whole_is_read_whatever_its_hint_and_its_checkpoint_are() {
    let scratch = nights();
    let hint = log(&scratch, SPENDING).join("_last_checkpoint");
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "no JSON",
        "{\"version\":",
        "{\"version\":2,\"size\":3}",
        "{\"version\":1000,\"size\":3}",
        "{\"version\":18446744073709551615,\"size\":3}",
        "{\"version\":-1,\"size\":3}",
        "{\"version\":1,\"size\":3,\"parts\":4294967296}",
        &deep,
    ] {
        std::fs::write(&hint, text).unwrap();
        let said = sum(&scratch, SPENDING);
        assert!(said.stdout.contains(&total(3)), "{text:.40}: {}{}", said.stdout, said.stderr);
    }
    for body in ["", "no Parquet"] {
        std::fs::write(log(&scratch, SPENDING).join(format!("{:020}.checkpoint.parquet", 2)), body).unwrap();
        std::fs::write(&hint, "{\"version\":2,\"size\":3}").unwrap();
        let said = sum(&scratch, SPENDING);
        assert!(said.stdout.contains(&total(3)), "{body}: {}{}", said.stdout, said.stderr);
    }
    let said = night(&scratch, 4);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(sum(&scratch, SPENDING).stdout.contains(&total(4)));
}

#[test]
fn a_log_with_a_gap_or_a_cut_commit_is_refused_by_name() {
    let scratch = nights();
    let path = |version| commit_path(&scratch, SPENDING, version);
    let refused = |what: &str| {
        for said in [run(&scratch), sum(&scratch, SPENDING), ask(&scratch, &["audit"])] {
            assert_eq!(said.code, 78, "{what}: {}{}", said.stdout, said.stderr);
            let names = said.stderr.contains(SPENDING) && said.stderr.contains(what);
            assert!(names && said.stderr.contains("restore"), "{what}: {}", said.stderr);
            let is_plain = ["LogPath", "Error", "Some(", "{"].iter().all(|word| !said.stderr.contains(word));
            assert!(is_plain && said.stderr.lines().count() == 1, "{}", said.stderr);
        }
    };
    for version in [0, 1, 2] {
        let whole = std::fs::read(path(version)).unwrap();
        std::fs::remove_file(path(version)).unwrap();
        refused(&format!("commit {version} is missing"));
        std::fs::write(path(version), whole).unwrap();
    }
    // A later commit that sets everything anew makes no beginning.
    let (first, second) = (std::fs::read(path(0)).unwrap(), std::fs::read(path(1)).unwrap());
    let lines: Vec<Value> = ["protocol", "metaData"]
        .map(|kind| json!({ kind: newest_action(&scratch, SPENDING, kind) }))
        .to_vec();
    commit(&scratch, SPENDING, &lines);
    std::fs::remove_file(path(0)).unwrap();
    std::fs::remove_file(path(1)).unwrap();
    refused("commit 0 is missing");
    std::fs::write(path(0), first).unwrap();
    std::fs::write(path(1), second).unwrap();
    undo(&scratch, SPENDING);
    let whole = std::fs::read(path(3)).unwrap();
    for (body, what) in [
        (&b""[..], "empty"),
        (b"\n\n", "empty"),
        (&whole[..whole.len() - 3], "cut"),
        (b"no JSON", "cut"),
        (b"[1]", "cut"),
    ] {
        std::fs::write(path(3), body).unwrap();
        refused(what);
    }
    std::fs::write(path(3), whole).unwrap();
    assert_eq!(night(&scratch, 4).code, 0);
}

#[test]
fn brackets_nest_to_a_bound_wherever_they_stand() {
    let scratch = nights();
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let add = newest_action(&scratch, SPENDING, "add");
    let metadata = newest_action(&scratch, SPENDING, "metaData");
    let raw = |value: &Value, key: &str| {
        let mut value = value.clone();
        value[key] = json!("HERE");
        value.to_string().replace("\"HERE\"", &deep)
    };
    let text = |value: &Value, key: &str, inner: &str| {
        let mut value = value.clone();
        value[key] = json!(inner);
        value.to_string()
    };
    let stats = format!("{{\"numRecords\":1,\"minValues\":{deep}}}");
    let lines = [
        format!("{{\"add\":{}}}", text(&add, "stats", &stats)),
        format!("{{\"add\":{}}}", raw(&add, "stats")),
        format!("{{\"add\":{deep}}}"),
        format!("{{\"commitInfo\":{{\"operationParameters\":{deep}}}}}"),
        format!("{{\"metaData\":{}}}", text(&metadata, "schemaString", &deep)),
        format!("{{\"metaData\":{}}}", raw(&metadata, "configuration")),
        format!("{{\"ofTomorrow\":{deep}}}"),
    ];
    let path = commit_path(&scratch, SPENDING, newest(&scratch, SPENDING) + 1);
    for line in lines {
        std::fs::write(&path, line + "\n").unwrap();
        for said in [run(&scratch), sum(&scratch, SPENDING)] {
            assert_eq!(said.code, 78, "{}{}", said.stdout, said.stderr);
            assert!(
                said.stderr.contains(SPENDING) && said.stderr.contains("nests brackets"),
                "{}",
                said.stderr
            );
        }
    }
    std::fs::remove_file(&path).unwrap();
    let run_id = actions(&scratch, SPENDING)
        .iter()
        .rev()
        .find_map(|action| Some(action["commitInfo"]["run_id"].as_str()?.to_string()));
    let manifest = scratch.lake().join("_runs").join(run_id.unwrap()).join("manifest.json");
    std::fs::write(manifest, format!("{{\"inputs\":{deep}}}")).unwrap();
    assert_eq!(run(&scratch).code, 78);
}

#[test]
fn a_version_of_ours_that_cannot_be_is_refused_and_not_waited_for() {
    let scratch = nights();
    scratch.write("logs/4.tsv", "1\t2025-01-04T10:00:00Z\tShop\t4.00\n");
    for table in [SPENDING, "transactions"] {
        for version in [i64::MAX, i64::MAX - 1, 1_000_000, -1, i64::MIN] {
            commit(&scratch, table, &[json!({"txn": {"appId": "pennymill", "version": version}})]);
            let before = objects(&scratch);
            let said = run(&scratch);
            assert_eq!(said.code, 78, "{version}: {}{}", said.stdout, said.stderr);
            assert!(said.stderr.contains(table) && said.stderr.contains("restore"), "{}", said.stderr);
            assert!(objects(&scratch) == before, "{version}: something was changed");
            undo(&scratch, table);
        }
    }
    assert_eq!(run(&scratch).code, 0);
}

/// Does what another program does to tables of the lake, one after the other.
fn foreign(python: &Path, scratch: &Scratch, actions: &[(&str, &str)]) {
    scratch.write("writers.py", WRITERS);
    let mut command = Command::new(python);
    command.arg(scratch.path("writers.py"));
    for (action, table) in actions {
        command.arg(action).arg(scratch.lake().join(table));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_lake_goes_on_beside_other_writers() {
    let Some(python) = python("writers", &["deltalake==1.6.6", "pyarrow"]) else { return };
    let scratch = nights();
    let legal = [("checkpoint", SPENDING), ("checkpoint", "transactions"), ("optimize", "transactions")];
    foreign(&python, &scratch, &legal);
    let said = night(&scratch, 4);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for table in [SPENDING, "transactions"] {
        assert!(sum(&scratch, table).stdout.contains(&total(4)), "{table}");
    }
    let said = ask(&scratch, &["audit", "--share", "1"]);
    assert_eq!(said.code, 3, "{}", said.stdout);
    assert!(said.stdout.contains("another program has removed it"), "{}", said.stdout);
    // What another program deletes stays deleted, and is reported.
    foreign(&python, &scratch, &[("delete", "transactions"), ("vacuum", "transactions")]);
    let said = night(&scratch, 5);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("another program has removed"), "{}", said.stderr);
    assert!(sum(&scratch, SPENDING).stdout.contains(&total(5)));
    assert_eq!(ask(&scratch, &["audit", "--share", "1"]).code, 3);
    // A month that is counted anew has its transactions back.
    for month in ["2025-01", "2025-02"] {
        let said = scratch.run(&["--rebuild", month, "--set", "output.transactions=true"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    assert!(sum(&scratch, "transactions").stdout.contains(&total(5)));
    assert_eq!(night(&scratch, 6).code, 0);
}

fn count(scratch: &Scratch, table: &str) -> u64 {
    let said = ask(scratch, &["query", &format!("select count(*) from {table}"), "--format", "csv"]);
    said.stdout.lines().last().unwrap().parse().unwrap()
}

#[test]
fn what_another_program_deletes_stays_deleted_whatever_it_notes_in_its_commit() {
    let scratch = nights();
    let add = newest_action(&scratch, "transactions", "add");
    let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    let (before, rows) = (count(&scratch, "transactions"), stats["numRecords"].as_u64().unwrap());
    let remove = json!({"path": add["path"], "deletionTimestamp": 1_735_689_600_000_i64, "dataChange": true});
    // Schedulers note an id of their own run.
    let info = json!({"commitInfo": {"timestamp": 1_735_689_600_000_i64, "run_id": "scheduled-1"}});
    commit(&scratch, "transactions", &[info, json!({ "remove": remove })]);
    assert_eq!(count(&scratch, "transactions"), before - rows);
    let said = night(&scratch, 4);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("another program has removed 1 part"), "{}", said.stderr);
    assert_eq!(count(&scratch, "transactions"), before - rows + 4);
}

#[test]
fn nothing_is_filled_again_that_a_log_may_have_forgotten() {
    let scratch = nights();
    // Another program rewrites a part, writes a checkpoint, and cleans the log up.
    let old = newest_action(&scratch, "transactions", "add")["path"].as_str().unwrap().to_string();
    let new = old.replace("part-", "rewritten-");
    let table = scratch.lake().join("transactions");
    std::fs::rename(table.join(&old), table.join(&new)).unwrap();
    std::fs::copy(table.join(&new), table.join(&old)).unwrap();
    let actions = again(&scratch, "transactions", |add| add["path"] = json!(new));
    commit(&scratch, "transactions", &actions);
    let version = newest(&scratch, "transactions");
    checkpoint(&table, version);
    (0..version).for_each(|version| {
        std::fs::remove_file(commit_path(&scratch, "transactions", version)).unwrap();
    });
    let said = night(&scratch, 4);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(sum(&scratch, "transactions").stdout.contains(&total(4)), "a part is counted twice or lost");
    assert_eq!(ask(&scratch, &["audit", "--share", "1"]).code, 3);
}

#[test]
fn what_is_lost_of_a_month_is_missed_until_that_month_is_counted_anew() {
    let scratch = nights();
    std::fs::remove_dir_all(scratch.lake().join("transactions")).unwrap();
    let rebuild = |month: &str| scratch.run(&["--rebuild", month, "--set", "output.transactions=true"]);
    let said = rebuild("2025-01");
    assert!(said.code == 0 && said.stderr.contains("2025-02"), "{}: {}", said.code, said.stderr);
    let said = night(&scratch, 4);
    assert!(said.code == 78 && said.stderr.contains("--rebuild 2025-02"), "{}: {}", said.code, said.stderr);
    assert_eq!(rebuild("2025-02").code, 0);
    let said = run(&scratch);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for table in [SPENDING, "transactions"] {
        assert!(sum(&scratch, table).stdout.contains(&total(4)), "{table}");
    }
}

#[test]
fn what_other_writers_demand_is_refused_as_they_write_it() {
    let Some(python) = python("writers", &["deltalake==1.6.6", "pyarrow"]) else { return };
    for (action, name) in [
        ("constraint", "checkConstraints"),
        ("change data feed", "changeDataFeed"),
        ("append only", "appendOnly"),
    ] {
        let scratch = nights();
        foreign(&python, &scratch, &[(action, SPENDING)]);
        let before = objects(&scratch);
        let said = night(&scratch, 4);
        assert_eq!(said.code, 78, "{action}: {}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(name), "{action}: {}", said.stderr);
        assert!(
            objects(&scratch) == before && sum(&scratch, SPENDING).stdout.contains(&total(3)),
            "{action}"
        );
    }
    // Rows that another program appends to the sums are no sums of ours.
    let scratch = nights();
    foreign(&python, &scratch, &[("append", SPENDING)]);
    assert_ne!(night(&scratch, 4).code, 0);
    assert_ne!(ask(&scratch, &["audit"]).code, 0);
}
