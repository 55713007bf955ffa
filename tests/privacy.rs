//! What is secret is told to nobody, and what is one user's is in no message.
//!
//! In: logs full of sellers and amounts that give themselves away, secrets in the environment and in
//! URLs, hostile names; runs that succeed and runs that fail. Out: pass, or what leaked and where.
//! Invariant: no canary stands in anything that is printed or kept, but in `transactions`, in rejects
//! and in the sums that are asked for; what goes wrong is told in one line of plain text.

use crate::support::s3_server::{KEY, SECRET, serve};
use crate::support::{Said, Scratch};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// The seller of the user of this number, in letters: digits might be taken for a reference.
pub fn canary(number: usize) -> String {
    let letter = |place: u32| char::from(b'A' + (number / 26usize.pow(place) % 26) as u8);
    format!("CANARY-Q{}", (0..4).map(letter).collect::<String>())
}

/// The rows of a Parquet file as text, without their run; and whose they are, if they say so.
pub fn texts(bytes: Vec<u8>) -> Vec<(Option<i64>, String)> {
    let mut texts = Vec::new();
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
    for batch in reader.map(Result::unwrap) {
        let (schema, options) = (batch.schema(), FormatOptions::default());
        let users = batch.column_by_name("user_id").map(|column| column.as_primitive::<Int64Type>());
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let columns: Vec<ArrayFormatter> = names
            .zip(batch.columns())
            .filter(|(name, _)| *name != "run_id")
            .map(|(_, column)| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            texts.push((users.map(|users| users.value(row)), cells.join(" | ")));
        }
    }
    texts
}

/// What nobody is to see: part of sellers, single amounts, keys, passwords and signatures.
const CANARIES: [&str; 4] = ["canary", "31337.42", "3133742", "31,337.42"];

/// A place with secrets in every corner.
const URL: &str = "s3://canary-user:canary-password@bucket/logs/?sig=canary-signature#canary-fragment";

fn assert_silent(what: &str, text: &str) {
    let lower = text.to_lowercase();
    for canary in CANARIES {
        assert!(!lower.contains(canary), "{what} tells {canary}: {text}");
    }
}

/// What a run says is free of canaries, and what went wrong is one line of plain text.
fn assert_discreet(what: &str, said: &Said) {
    let Said { code, stdout, stderr } = said;
    assert_silent(&format!("{what}: stdout"), stdout);
    assert_silent(&format!("{what}: stderr"), stderr);
    assert_plain(what, said);
    // Nothing went wrong, or the report says what did.
    let is_told = matches!(code, 0 | 3 | 65) && stderr.is_empty();
    assert!(
        is_told || (stderr.lines().count() == 1 && ![0, 3, 70].contains(code)),
        "{what}: {code} {stderr}"
    );
}

fn assert_plain(what: &str, said: &Said) {
    let lines: Vec<&str> = said.stderr.lines().collect();
    let is_ours = lines.len() <= 1 && lines.iter().all(|line| line.starts_with("pennymill: "));
    let has_control = said.stderr.trim_end_matches('\n').chars().any(char::is_control);
    assert!(is_ours && !has_control, "{what}: {:?}", said.stderr);
}

/// All files of a lake.
fn files(lake: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![lake.to_path_buf()], Vec::new());
    while let Some(folder) = folders.pop() {
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let (inner, outer): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
        folders.extend(inner);
        files.extend(outer);
    }
    files
}

/// Whatever a lake keeps beside its tables: manifests, ledgers, lines of alerts, the tables' logs.
fn assert_lake_is_silent(what: &str, lake: &Path) {
    let (mut silent, transactions) = (0, lake.join("transactions/month=2025-01-01"));
    for path in files(lake) {
        // Rejects are kept as they stood, and transactions are what they are.
        if path.ends_with("rejects.parquet") || path.starts_with(&transactions) {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let text: String = match path.extension().is_some_and(|extension| extension == "parquet") {
            true => texts(bytes).into_iter().map(|(_, text)| text + "\n").collect(),
            false => String::from_utf8_lossy(&bytes).into_owned(),
        };
        assert_silent(&format!("{what}: {}", path.display()), &text);
        silent += 1;
    }
    assert!(silent > 10, "{what}: the lake has {silent} files");
}

/// A shop where every user buys thrice for the same amount, so that it stands in no sum.
fn shop() -> Scratch {
    let line = |row: usize| {
        let (user, day) = (1 + row / 3, 1 + row % 3);
        format!("{user}\t2025-01-{day:02}T10:00:00Z\t{}\t31337.42\n", canary(user))
    };
    let sellers = (1..=20).map(|user| format!("{},groceries\n", canary(user))).collect::<String>();
    let budgets = (1..=20).map(|user| format!("{user},groceries,100.00\n")).collect::<String>();
    let scratch = Scratch::new()
        .table("sellers.csv", &format!("seller,category\n{sellers}"))
        .table("budget_overrides.csv", &format!("user_id,category,amount\n{budgets}"))
        .rest("transactions = true")
        .environment("AWS_ACCESS_KEY_ID", "canary-key")
        .environment("AWS_SECRET_ACCESS_KEY", "canary-secret")
        .environment("AWS_ALLOW_HTTP", "true");
    scratch.write("logs/a.tsv", (0..60).map(line).collect::<String>());
    scratch
}

#[test]
fn runs_that_succeed_or_hold_their_logs_tell_and_keep_nothing() {
    let scratch = shop();
    let run = |more: &[&str]| {
        let said = scratch.run(more);
        assert_discreet(&format!("{more:?}"), &said);
        assert_lake_is_silent(&format!("{more:?}"), &scratch.lake());
        said.code
    };
    let job = scratch.job();
    let job = job.to_str().unwrap();
    assert_eq!((run(&[]), run(&[]), run(&["--rebuild", "2025-01"])), (0, 0, 0));
    scratch.write("logs/bad.tsv", "CANARY-A\t31337.42\n1\t2025-01-01\tCANARY-B\t31337.421\n");
    scratch.write("logs/cut.tsv.gz", b"\x1f\x8b\x08\0canary 31337.42");
    assert_eq!((run(&[]), run(&["--set", "limits.rejects_max_ratio=1.0"])), (65, 3));
    for arguments in [&["run", job][..], &["run", job, "--dry-run"], &["check", job]] {
        assert_discreet(&format!("{arguments:?}"), &scratch.pennymill(arguments));
    }
    // A URL that carries secrets, of local files and of one object in a store that asks for them.
    let logs = format!("input.logs=file://{}/?sig=canary-signature", scratch.path("logs").display());
    let bucket = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(bucket.path().join("bucket/logs")).unwrap();
    std::fs::copy(scratch.path("logs/a.tsv"), bucket.path().join("bucket/logs/a.tsv")).unwrap();
    let remote = shop()
        .environment("AWS_ENDPOINT", &serve(bucket.path()))
        .environment("AWS_REGION", "us-east-1")
        .environment("AWS_ACCESS_KEY_ID", KEY)
        .environment("AWS_SECRET_ACCESS_KEY", SECRET);
    let object = format!("input.logs={}", URL.replace("logs/", "logs/a.tsv"));
    for (scratch, logs) in [(shop(), logs), (remote, object)] {
        let said = scratch.run(&["--set", &logs]);
        assert!([0, 3].contains(&said.code), "{logs}: {}", said.stderr);
        assert_discreet(&logs, &said);
        assert_lake_is_silent(&logs, &scratch.lake());
    }
}

#[test]
fn tables_jobs_and_questions_that_are_refused_are_not_repeated() {
    for (name, text) in [
        ("sellers.csv", "seller,category\nCANARY-A,canary\n"),
        ("sellers.csv", "CANARY-A,groceries\n"),
        ("sellers.csv", "seller,category\nCANARY-A,groceries,31337.42\n"),
        ("sellers.csv", "seller,category\n\"CANARY-A"),
        ("aliases.tsv", "seller\tcategory\nCANARY-A\tcanary\n"),
        ("keywords.csv", "keyword,category\ncanary a b c d,groceries\n"),
        ("rules.csv", "pattern,category\n(canary,groceries\n"),
        ("users.csv", "user_id,monthly_income\n1,31337.421\n"),
        ("users.csv", "user_id,monthly_income\ncanary,31337.42\n"),
        ("users.csv", "user_id,monthly_income\n1,31337.42\n1,31337.42\n"),
        ("users.parquet", "CANARY"),
        ("users.txt", "CANARY"),
        ("budget_overrides.csv", "user_id,category,amount\n1,groceries,-31337.42\n"),
        ("budget_overrides.csv", "user_id,category,amount,from_month\n1,gas,31337.42,canary\n"),
        ("category_overrides.csv", "user_id,seller,category,set_at\n1,CANARY-A,gas,canary\n"),
    ] {
        let scratch = Scratch::new().table(name, text);
        scratch.write("logs/a.tsv", "1\t2025-01-01\tCANARY-A\t31337.42\n");
        let said = scratch.run(&[]);
        assert_discreet(&format!("{name}: {text}"), &said);
        assert_eq!((said.code, said.stderr.lines().count()), (65, 1), "{name}: {}", said.stderr);
    }
    let scratch = shop();
    let lake = scratch.lake();
    assert_eq!(scratch.run(&[]).code, 0);
    for text in [format!("logs = [\"{URL}\"]"), format!("logs = \"{URL}"), format!("log = \"{URL}\"")] {
        scratch.write("bad.toml", format!("name = \"bad\"\nkind = \"spending\"\n[input]\n{text}\n"));
        let said = scratch.pennymill(&["run", scratch.path("bad.toml").to_str().unwrap()]);
        assert_discreet(&text, &said);
        assert_eq!(said.code, 78, "{text}");
    }
    for value in [
        "cast(seller as bigint)",
        "to_timestamp(seller)",
        "cast(seller as date)",
        "regexp_like('x', seller || '(')",
        "date_trunc(seller, occurred_at)",
        "1 / (amount - amount)",
    ] {
        let sql = format!("select {value} from transactions");
        let said = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), &sql, "--format", "csv"]);
        assert_discreet(&sql, &said);
        assert_eq!((said.code == 0, said.stderr.lines().count()), (false, 1), "{sql}");
    }
}

/// A store that repeats whatever it is asked, keys and all. Out: its address.
fn parrot(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let lines = reader.by_ref().lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            // A body that is left unread would reset the connection before the answer is read.
            drop(std::io::copy(&mut reader.take(length.unwrap_or(0)), &mut std::io::sink()));
            let said = head.join("\n");
            let body = format!("<Error><Code>ExpiredToken</Code><Message>{said}</Message></Error>");
            let header = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
            drop(write!(stream, "HTTP/1.1 {status}\r\n{header}\r\n{body}"));
        }
    });
    address
}

#[test]
fn stores_that_refuse_and_lakes_that_are_damaged_make_nobody_talk() {
    for status in ["403 Forbidden", "401 Unauthorized", "400 Bad Request", "404 Not Found", "200 OK"] {
        let endpoint = parrot(status);
        let set = [("AWS_ENDPOINT", endpoint.as_str()), ("AWS_SESSION_TOKEN", "canary-token")];
        let scratch = set.iter().fold(shop(), |scratch, (name, value)| scratch.environment(name, value));
        for key in ["input.logs", "output.lake", "input.sellers", "input.users"] {
            let said = scratch.run(&["--set", &format!("{key}={URL}")]);
            assert_discreet(&format!("{key} on a store that says {status}"), &said);
        }
    }
    let unreachable = shop().environment("AWS_ENDPOINT", "http://127.0.0.1:1");
    let said = unreachable.run(&["--set", &format!("input.logs={URL}")]);
    assert_discreet("a store that is not there", &said);
    assert_eq!(said.code, 75, "{}", said.stderr);
    let refused = shop();
    for url in [
        "ftp://canary-user:canary-password@host/?sig=canary-signature",
        "s3://canary:canary@/a?canary",
        "s3://canary:canary@b b/",
        "file://canary:canary@host/a?canary",
        "az://canary:canary@",
    ] {
        for key in ["input.logs", "output.lake", "input.sellers"] {
            assert_discreet(&format!("{key}={url}"), &refused.run(&["--set", &format!("{key}={url}")]));
        }
    }
    for name in ["manifest.json", "ledger.parquet", "00000000000000000001.json", "part-00000"] {
        let scratch = shop();
        assert_eq!(scratch.run(&[]).code, 0);
        let spending = |path: &PathBuf| !path.to_str().unwrap().contains("transactions/");
        let found = files(&scratch.lake()).into_iter().filter(spending);
        for path in found.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name)) {
            std::fs::write(path, "{\"CANARY-A\": \"31337.42\", \"").unwrap();
        }
        scratch.write("logs/b.tsv", "1\t2025-01-05\tCANARY-A\t31337.42\n");
        let said = scratch.run(&[]);
        assert_discreet(&format!("a damaged {name}"), &said);
        assert_ne!(said.code, 0, "a damaged {name}");
    }
}

/// A line of a log that is none, in a name or a text.
const HOSTILE: &str = "a\n{\"level\":\"fatal\"}\r\u{1b}[31m\u{9b}1m\u{7f}";

#[test]
fn no_name_and_no_text_can_write_a_line_of_its_own() {
    let quoted = HOSTILE.replace('"', "\"\"");
    let scratch = Scratch::new().table("sellers.csv", &format!("seller,category\n\"{quoted}\",gas\n"));
    let line = |seller: &str| format!("1\t2025-01-01\t{seller}\t1.00\n");
    scratch.write("logs/a.tsv", line("\u{1b}[31m{\"level\":\"fatal\"}\r\u{9b}1m\u{7f}") + HOSTILE + "\n");
    let hostile = scratch.path(HOSTILE);
    let place = |key: &str, ending: &str| format!("{key}={}{ending}", hostile.display());
    let (logs, lake) = (place("input.logs", "/"), place("output.lake", ""));
    let (sellers, key) = (place("input.sellers", ".csv"), format!("{HOSTILE}=1"));
    let (zone, months) = (format!("input.time_zone={HOSTILE}"), format!("input.months={HOSTILE}"));
    for set in [&logs, &lake, &sellers, &key, &zone, &months] {
        let said = scratch.run(&["--set", set]);
        assert_plain(set, &said);
        assert_eq!((said.stderr.lines().count(), said.stdout.as_str()), (1, ""), "{set:?}: {}", said.code);
    }
    let (job, lake) = (scratch.job(), scratch.lake());
    let (job, lake, hostile) = (job.to_str().unwrap(), lake.to_str().unwrap(), hostile.to_str().unwrap());
    for arguments in [
        &["run", hostile][..],
        &["check", hostile],
        &["query", "--lake", lake, HOSTILE],
        &["query", "--lake", hostile, "select 1"],
        &["explain", "--seller", "a", "--votes", hostile],
    ] {
        let said = scratch.pennymill(arguments);
        assert_plain(&format!("{arguments:?}"), &said);
        assert_eq!((said.code == 0, said.stderr.lines().count()), (false, 1), "{arguments:?}");
    }
    std::fs::write(scratch.path("logs").join(HOSTILE), line("Shop")).unwrap();
    for ratio in ["limits.rejects_max_ratio=0.0", "limits.rejects_max_ratio=1.0"] {
        let said = scratch.pennymill(&["run", job, "--set", ratio]);
        assert_plain(ratio, &said);
        assert!(!said.stdout.chars().any(|c| c.is_control() && c != '\n'), "{:?}", said.stdout);
        assert!(!said.stdout.lines().any(|line| line.starts_with('{')), "{:?}", said.stdout);
    }
}

/// Secrets as files hold them, whatever their form.
const SECRET_FILES: [&str; 14] = [
    "canary",
    "root:canary:0:0:canary:/root:/bin/sh\n",
    "canary = 1\n",
    "CANARY_KEY=canary\n",
    "[canary]\nsecret = \"canary\"\n",
    "[input]\ncanary = \"canary\"\n",
    "[canary]\nthreads = 1\n",
    "\"canary\" = 1\n",
    "name = \"n\"\nkind = \"canary\"\n",
    "name = \"canary canary\"\nkind = \"sql\"\n",
    "name = \"n\"\nkind = \"sql\"\n[input]\ntime_zone = \"canary\"\nmonths = \"canary\"\n",
    "seller,canary\ncanary,canary\n",
    "[[category]]\ncode = \"canary!\"\nname = \"canary\"\nkind = \"spend\"\n",
    "[[tier]]\nname = \"canary\"\nincome_from = \"canary\"\nshares = {canary = 0.1}\n",
];

#[test]
fn files_that_are_no_tables_and_no_jobs_stay_secret() {
    let scratch = shop();
    let tables = [
        ("sellers", "csv"),
        ("aliases", "tsv"),
        ("keywords", "csv"),
        ("rules", "csv"),
        ("votes", "csv"),
        ("users", "csv"),
        ("users", "parquet"),
        ("category_overrides", "tsv"),
        ("budget_overrides", "csv"),
        ("categories", "toml"),
        ("budget_template", "toml"),
    ];
    for secret in SECRET_FILES {
        scratch.write("secret", secret);
        let path = scratch.path("secret");
        for arguments in [["run", path.to_str().unwrap()], ["check", path.to_str().unwrap()]] {
            let said = scratch.pennymill(&arguments);
            assert_discreet(&format!("{arguments:?} on {secret:?}"), &said);
            assert_ne!(said.code, 0, "{secret:?}");
        }
        for (key, form) in tables {
            scratch.write(&format!("secret.{form}"), secret);
            let path = scratch.path(&format!("secret.{form}"));
            let said = scratch.run(&["--set", &format!("input.{key}={}", path.display())]);
            assert_silent(&format!("input.{key} of {secret:?}: stderr"), &said.stderr);
            assert_plain(&format!("input.{key} of {secret:?}"), &said);
        }
    }
    for set in ["canary", "canary=1", "input.canary=1", "limits.memory=canary", "input.time_zone=canary"] {
        let said = scratch.run(&["--set", set]);
        assert_discreet(set, &said);
        assert_eq!(said.code, 78, "{set}");
    }
    let mistyped = scratch.run(&["--set", "input.seller=a"]);
    assert!(
        mistyped.stderr.contains("unknown key `input.seller`; did you mean `input.sellers`?"),
        "{}",
        mistyped.stderr
    );
}

/// Characters that hide, turn or join the text around them.
const HIDDEN: [char; 12] = [
    '\u{202e}',
    '\u{202a}',
    '\u{2066}',
    '\u{2069}',
    '\u{200e}',
    '\u{61c}',
    '\u{200b}',
    '\u{200d}',
    '\u{feff}',
    '\u{2028}',
    '\u{2029}',
    '\u{e0041}',
];

#[test]
fn what_hides_in_a_name_is_shown() {
    let scratch = Scratch::new();
    let line = "1\t2025-01-10T10:00:00Z\tShop\t10.00\nno line\n";
    for (number, hidden) in HIDDEN.iter().enumerate() {
        scratch.write(&format!("logs/a{hidden}{number}.tsv"), line.repeat(number + 1));
    }
    let (job, lake) = (scratch.job(), scratch.lake());
    let (job, lake) = (job.to_str().unwrap(), lake.to_str().unwrap());
    let odd_lake = format!("output.lake={}/", scratch.path("a\u{202e}b\u{200b}").display());
    let shown = |said: &Said, what: &str| {
        let seen = format!("{}{}", said.stdout, said.stderr);
        assert!(!seen.chars().any(|c| HIDDEN.contains(&c)), "{what}: {seen:?}");
        seen
    };
    for form in ["human", "json"] {
        for more in [&["--dry-run"][..], &[], &["--set", "limits.rejects_max_ratio=1.0"]] {
            let said = scratch.pennymill(&[&["run", job, "--report", form][..], more].concat());
            let seen = shown(&said, &format!("{form} {more:?}"));
            let escape = if form == "json" { "a\\u202e0.tsv" } else { "a\\u{202e}0.tsv" };
            assert!(
                form == "human" && more.len() > 1 || seen.contains(escape) || said.code == 0,
                "{form} {more:?}: {seen}"
            );
        }
    }
    for arguments in [
        &["check", job][..],
        &["history", "--lake", lake],
        &["audit", "--lake", lake],
        &["explain", "--lake", lake, "--user", "1", "--month", "2025-01", "--category", "uncategorized"],
        &["run", "a\u{202e}lmot.toml"],
        &["run", job, "--set", &odd_lake],
        &["run", job, "--set", "input.sellers=a\u{202e}b.csv"],
        &["check", job, "--set", &odd_lake],
    ] {
        shown(&scratch.pennymill(arguments), &format!("{arguments:?}"));
    }
    let said = scratch.pennymill(&["run", "a\u{202e}lmot.toml"]);
    assert!(said.stderr.contains("a\\u{202e}lmot.toml: there is no such job file"), "{}", said.stderr);
}

#[test]
fn passwords_in_the_urls_of_endpoints_and_proxies_are_told_to_nobody() {
    for (name, value) in [
        ("AWS_ENDPOINT", "http://canary-user:canary-password@127.0.0.1:1"),
        ("AWS_ENDPOINT_URL", "http://canary-user:canary-password@127.0.0.1:1/?canary=canary"),
        ("AWS_ENDPOINT", "canary-user:canary-password@127.0.0.1:1"),
        ("AWS_ENDPOINT", "http://canary-user:canary/password@127.0.0.1:1"),
        ("AWS_PROXY_URL", "http://canary-user:canary-password@127.0.0.1:1"),
        ("HTTP_PROXY", "http://canary-user:canary-password@127.0.0.1:1"),
        ("AWS_METADATA_ENDPOINT", "http://canary-user:canary-password@127.0.0.1:1"),
    ] {
        let scratch = shop().environment("AWS_ENDPOINT", "http://127.0.0.1:1").environment(name, value);
        for key in ["input.logs", "output.lake", "input.users"] {
            let said = scratch.run(&["--set", &format!("{key}={URL}")]);
            assert_discreet(&format!("{name}={value} for {key}"), &said);
            assert_ne!(said.code, 0, "{name}={value} for {key}");
        }
    }
}
