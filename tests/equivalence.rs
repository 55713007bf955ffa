//! plain = the engine, on hostile logs, whatever the threads, splits, compression and order.
//!
//! In: seeded random logs. Out: pass, or the seed that fails.
//! Invariant: groups, rejects and blanks are the oracle's; published bytes do not depend on how
//! the work was cut.

use crate::support::{Numbers, Scratch, part_bytes, published};
use pennymill::domain::transaction::RejectReason;
use pennymill::engine::local::Tuning;
use pennymill::job::spec::Spec;
use pennymill::kernel::plain::Plain;
use pennymill::run::{Asked, publish};
use std::collections::BTreeMap;
use std::io::Write;

const SELLERS: &[&str] = &[
    "Café Zoë",
    "SQ *CAFE  ZOE 0123 OAKLAND CA",
    "Argos",
    "ARGOS LTD 83920174 LEEDS",
    "argos petrol",
    "tesco 12",
    "tesco 13",
    "\"quoted\"",
    "7-Eleven",
    "POS DEBIT 7ELEVEN",
    "***",
    "83920174",
];
const USERS: &[&str] =
    &["0", "1", "2", "77", "9223372036854775807", "9223372036854775808", "-1", "01", "+5", "x", "", "٣"];
const TIMES: &[&str] = &[
    "2025-01-31T23:59:59Z",
    "2025-02-01T00:00:00Z",
    "2025-01-31T23:59:59.999-05:00",
    "2025-03-30T01:30:00",
    "2025-10-26 01:30:00",
    "2025-01-15",
    "1737000000",
    "1999-12-31T23:59:59Z",
    "2025-02-29",
    "2025-13-01",
    "",
    "2025-01-15T24:00:00Z",
    "2025-01-15T23:59:60Z",
    "yesterday",
    "2025-01-15t10:00:00z",
    "-5",
];
const AMOUNTS: &[&str] = &[
    "1",
    "12.3",
    "12.34",
    "-5.00",
    "-0.00",
    "0",
    "10000000000.00",
    "10000000000.01",
    "1e5",
    "+5",
    "1,234",
    "",
    "12.345",
    "NaN",
    ".5",
    "5.",
    "--1",
    "99999999999999999999999",
    "-10000000000",
];
const JUNK: &[&[u8]] =
    &[b"", b"\t", b"\t\t\t", b" ", b"\xff\xfe", b"a\tb", b"1\t2\t3\t4\t5", b"\0", b"\xe2\x80\xa8", b"\""];

/// A log of valid, nearly valid and hopeless lines.
fn log(numbers: &mut Numbers) -> Vec<u8> {
    let mut log = Vec::new();
    if numbers.below(4) == 0 {
        log.extend_from_slice(b"\xEF\xBB\xBF");
    }
    for _ in 0..numbers.below(60) {
        match numbers.below(12) {
            0 => log.extend_from_slice(JUNK[numbers.below(JUNK.len())]),
            1 if numbers.below(30) == 0 => log.resize(log.len() + 65_500 + numbers.below(80), b'x'),
            _ => {
                // Mostly good values, so that whole lines are good often enough.
                let mut pick = |choices: &[&'static str], good: usize| {
                    let bound = if numbers.below(6) == 0 { choices.len() } else { good };
                    choices[numbers.below(bound)]
                };
                let fields = [pick(USERS, 5), pick(TIMES, 7), pick(SELLERS, 12), pick(AMOUNTS, 7)];
                log.extend_from_slice(fields.join("\t").as_bytes());
                if numbers.below(20) == 0 {
                    let at = log.len() - numbers.below(4).min(log.len());
                    log.insert(at, *numbers.one_of(b"\t\xff\0\r x"));
                }
            }
        }
        log.extend_from_slice([b"\n" as &[u8], b"\n", b"\r\n"][numbers.below(3)]);
    }
    if numbers.below(2) == 0 {
        log.extend_from_slice(b"1\t2025-01-15\ttesco 12\t1.00");
    }
    log
}

/// The same bytes plain, or as an archive of several members.
fn packed(log: &[u8], numbers: &mut Numbers) -> (&'static str, Vec<u8>) {
    let cut = numbers.below(log.len() + 1);
    match numbers.below(3) {
        0 => ("tsv", log.to_vec()),
        1 => {
            let member = |bytes: &[u8]| {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            };
            ("tsv.gz", [member(&log[..cut]), member(&log[cut..])].concat())
        }
        _ => {
            let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
            ("tsv.zst", [frame(&log[..cut]), frame(&log[cut..])].concat())
        }
    }
}

const CHOICES: &[(u64, &str, &str, &str, &str)] = &[
    (1, "cafe zoe", "health", "", ""),
    (1, "TESCO 12", "travel", "2025-01-15", "1.00"),
    (77, "***", "education", "", ""),
];

fn scratch() -> Scratch {
    let mut choices = "user_id,seller,category,set_at,timestamp,amount\n".to_string();
    for (user, seller, category, at, amount) in CHOICES {
        choices += &format!("{user},{seller},{category},2025-01-01T00:00:00Z,{at},{amount}\n");
    }
    Scratch::new()
        .table(
            "sellers.csv",
            "seller,category\nCafé Zoë,dining\nArgos,shopping\nArgos petrol,gas\nTesco 12,groceries\ntesco,dining\nTESCO,health\n7 ELEVEN,gas\n",
        )
        .table("category_overrides.csv", &choices)
        .input("time_zone = \"Europe/London\"\nmonths = \"2000-01..2099-12\"")
        .rest("transactions = true\n[limits]\nrejects_max_ratio = 1.0")
}

/// (line, byte offset, reason) of a log.
type LogRejects = Vec<(u64, u64, RejectReason)>;

fn oracle(logs: &[Vec<u8>]) -> (Plain, Vec<LogRejects>) {
    let at = |text: &str| {
        let day = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").unwrap();
        day.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp_micros()
    };
    let choice = |&(user, seller, category, time, amount): &(u64, &str, &str, &str, &str)| {
        let transaction = (!time.is_empty()).then(|| (at(time), amount.replace('.', "").parse().unwrap()));
        (user, seller.to_string(), category.to_string(), transaction)
    };
    let sellers = [
        ("Café Zoë", "dining"),
        ("Argos", "shopping"),
        ("Argos petrol", "gas"),
        ("Tesco 12", "groceries"),
        ("tesco", "dining"),
        ("TESCO", "health"),
        ("7 ELEVEN", "gas"),
    ];
    let mut plain = Plain {
        zone: chrono_tz::Europe::London,
        months: "2000-01..2099-12".parse().unwrap(),
        line_bytes_max: 65_536,
        sellers: sellers.iter().map(|(s, c)| (s.to_string(), c.to_string())).collect(),
        choices: CHOICES.iter().map(choice).collect(),
        groups: BTreeMap::new(),
        rejects: Vec::new(),
        blank: 0,
    };
    let mut rejects = Vec::new();
    for log in logs {
        plain.read(log);
        rejects.push(std::mem::take(&mut plain.rejects));
    }
    (plain, rejects)
}

/// The rejects of the one run in this lake: (line, offset, reason, raw) by object.
fn rejects(scratch: &Scratch) -> Vec<(String, u64, u64, String, Vec<u8>)> {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    let runs = std::fs::read_dir(scratch.lake().join("_runs")).unwrap();
    let files: Vec<_> =
        runs.map(|run| run.unwrap().path().join("rejects.parquet")).filter(|f| f.exists()).collect();
    let mut rows = Vec::new();
    for file in files {
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(
            std::fs::File::open(file).unwrap(),
        );
        for batch in reader.unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let text = |name: &str, row| {
                batch.column_by_name(name).unwrap().as_string::<i32>().value(row).to_string()
            };
            let number = |name: &str, row| {
                batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(row) as u64
            };
            for row in 0..batch.num_rows() {
                let raw = batch.column_by_name("raw").unwrap().as_binary::<i32>().value(row).to_vec();
                let object = text("source_object", row);
                let name = object.rsplit('/').next().unwrap().to_string();
                rows.push((name, number("line", row), number("byte_offset", row), text("reason", row), raw));
            }
        }
    }
    rows
}

#[test]
fn hostile_logs_mean_what_the_oracle_says_however_they_are_cut() {
    for seed in 0..30 {
        let mut numbers = Numbers(seed);
        let logs: Vec<Vec<u8>> = (0..1 + numbers.below(4)).map(|_| log(&mut numbers)).collect();
        let (plain, expected_rejects) = oracle(&logs);
        let mut first: Option<Vec<(String, Vec<u8>)>> = None;
        for (threads, split_bytes, read_bytes, memory_bytes) in
            [(1, 1 << 25, 1 << 20, 1 << 30), (2, 7, 5, 1 << 30), (7, 100, 64, 0), (2, 1, 1, 1 << 30)]
        {
            let scratch = scratch();
            let mut names = Vec::new();
            for (index, log) in logs.iter().enumerate() {
                let (extension, bytes) = packed(log, &mut numbers);
                names.push(format!("{index}.{extension}"));
                scratch.write(&format!("logs/{index}.{extension}"), bytes);
            }
            let spec = Spec::load(&scratch.job(), &[]).unwrap();
            // A split for every few bytes of a long line would only be slow.
            let bytes: usize = logs.iter().map(Vec::len).sum();
            let split_bytes = if bytes > 10_000 { split_bytes.max(997) } else { split_bytes };
            let tuning = Tuning { threads, split_bytes, read_bytes, memory_bytes };
            let (report, _) =
                publish(&spec, &Asked::default(), &tuning).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            // Two empty or equal logs are a second delivery; the oracle does not know of them.
            if report.inputs.held > 0 {
                continue;
            }
            let groups: BTreeMap<_, _> = plain
                .groups
                .iter()
                .map(|((month, user, category), (cents, count))| {
                    ((month.to_string(), *user, category.clone()), (*cents as i64, *count))
                })
                .collect();
            assert_eq!(published(&scratch.lake()), groups, "seed {seed}");
            assert_eq!(report.rows.blank, plain.blank, "seed {seed}");
            let found = rejects(&scratch);
            let expected: Vec<_> = names
                .iter()
                .zip(&expected_rejects)
                .zip(&logs)
                .flat_map(|((name, rejects), log)| {
                    rejects.iter().map(move |(line, offset, reason)| {
                        let rest = &log[*offset as usize..];
                        let end =
                            rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1).min(65_536);
                        (name.clone(), *line, *offset, reason.name().to_string(), rest[..end].to_vec())
                    })
                })
                .collect();
            assert_eq!(found, expected, "seed {seed}");
            let bytes = part_bytes(&scratch.lake(), "monthly_spending");
            assert_eq!(*first.get_or_insert_with(|| bytes.clone()), bytes, "seed {seed}: other bytes");
        }
    }
}

#[test]
fn names_and_order_of_inputs_do_not_change_what_is_published() {
    let mut numbers = Numbers(4711);
    let logs: Vec<Vec<u8>> = (0..5).map(|_| log(&mut numbers)).collect();
    let run = |names: [usize; 5]| {
        let scratch = scratch();
        for (log, name) in logs.iter().zip(names) {
            scratch.write(&format!("logs/{name}.tsv"), log);
        }
        let said = scratch.run(&[]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        part_bytes(&scratch.lake(), "monthly_spending")
    };
    let expected = run([0, 1, 2, 3, 4]);
    assert!(!expected.is_empty());
    assert_eq!(run([4, 3, 2, 1, 0]), expected);
    assert_eq!(run([2, 0, 4, 1, 3]), expected);
}

#[test]
fn transactions_are_the_rows_behind_the_sums_in_the_order_of_their_lines() {
    let mut numbers = Numbers(99);
    let logs: Vec<Vec<u8>> = (0..3).map(|_| log(&mut numbers)).collect();
    let mut seen = Vec::new();
    for (threads, split_bytes) in [(1, 1 << 25), (3, 9)] {
        let scratch = scratch();
        logs.iter().enumerate().for_each(|(index, log)| {
            scratch.write(&format!("logs/{index}.tsv"), log);
        });
        let spec = Spec::load(&scratch.job(), &[]).unwrap();
        let tuning = Tuning { threads, split_bytes, read_bytes: 50, memory_bytes: 1 << 30 };
        publish(&spec, &Asked::default(), &tuning).unwrap();
        let sql = "select month, user_id, category, sum(amount) amount, count(*) transaction_count from transactions group by 1, 2, 3 \
                   except select * from monthly_spending";
        let lake = scratch.lake();
        let said = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"]);
        assert_eq!((said.code, said.stdout.lines().count()), (0, 1), "{}{}", said.stdout, said.stderr);
        let sql =
            "select count(*) from transactions union all select sum(transaction_count) from monthly_spending";
        let said = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"]);
        let counts: Vec<&str> = said.stdout.lines().skip(1).collect();
        assert_eq!(counts[0], counts[1]);
        let lines = "select line, seller, amount, category_source from transactions order by split_part(source_object, '/logs/', 2), line";
        let said = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), lines, "--format", "csv"]);
        seen.push(said.stdout);
    }
    assert_eq!(seen[0], seen[1]);
}
