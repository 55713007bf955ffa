//! Times the spending job over an S3 server on this machine, compared with local files.
//!
//! In: `PENNYMILL_BENCH_ROWS`, or a million rows. Out: median wall seconds of whole commands and
//! their ratios, for logs alone on S3 and for logs and lake; and the time to read the logs from the
//! server and discard them.
//! Invariant: all variants take turns, and every run must count every generated row.

#[path = "../tests/support/s3_server.rs"]
mod s3_server;

use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{ObjectStoreExt, PutPayload};
use pennymill::bench::options;
use pennymill::generate::generate;
use pennymill::job::sections::Bench;
use pennymill::job::spec::Spec;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const ROWS: u64 = 1_000_000;
const SEED: u64 = 7;
const RUNS: usize = 5;

/// About 7 MB.
const ROWS_OF_A_FILE: u64 = 125_000;

fn main() {
    let rows = std::env::var("PENNYMILL_BENCH_ROWS");
    let rows = rows.map_or(ROWS, |rows| rows.parse().expect("PENNYMILL_BENCH_ROWS is a number"));
    let folder = tempfile::tempdir().expect("room for logs");
    let users = (rows / 20).max(1);
    let files = rows.div_ceil(ROWS_OF_A_FILE) as u32;
    let spec =
        Spec { bench: Bench { rows, users, files, seed: SEED, ..Bench::default() }, ..Spec::shipped() };
    let made = folder.path().join("made");
    generate(&options(&spec, &made)).expect("logs can be generated");
    std::fs::create_dir(folder.path().join("bucket")).expect("room for a bucket");
    let endpoint = s3_server::serve(folder.path());
    let bucket = Bucket::of(&endpoint);
    bucket.fill(&made);
    println!("seed {SEED}, {rows} rows in {files} files, medians of {RUNS} after one to warm up");
    let local = made.display().to_string();
    let ways = [
        ("local files", local.as_str(), local.as_str()),
        ("logs on S3", "s3://bucket", &local),
        ("logs and lake on S3", "s3://bucket", "s3://bucket"),
    ];
    let (mut seconds, mut thrown_away) = (ways.map(|_| Vec::new()), Vec::new());
    for _ in 0..=RUNS {
        for ((_, logs, lake), seconds) in ways.iter().zip(&mut seconds) {
            seconds.push(run(&made, logs, lake, &endpoint, rows));
            drop(std::fs::remove_dir_all(folder.path().join("bucket/lake")));
            drop(std::fs::remove_dir_all(made.join("lake")));
        }
        thrown_away.push(bucket.throw_away(&made));
    }
    let local = median(&seconds[0]).0;
    let names = ways.iter().map(|(name, ..)| *name).chain(["logs on S3, thrown away"]);
    for (name, seconds) in names.zip(seconds.iter().chain([&thrown_away])) {
        let (median, min, max) = median(seconds);
        println!("{name}: {median:.2} s ({min:.2}-{max:.2}), {:.2} times local files", median / local);
    }
}

/// The median, minimum and maximum of all but the first value.
fn median(seconds: &[f64]) -> (f64, f64, f64) {
    let mut timed = seconds[1..].to_vec();
    timed.sort_by(f64::total_cmp);
    (timed[RUNS / 2], timed[0], timed[RUNS - 1])
}

/// A client of the bucket, with its runtime.
struct Bucket {
    store: AmazonS3,
    runtime: tokio::runtime::Runtime,
}

/// The logs as files, each with its key in the bucket.
fn logs(made: &Path) -> Vec<(PathBuf, Key)> {
    let logs = std::fs::read_dir(made.join("logs")).expect("there are logs");
    let paths = logs.map(|log| log.expect("a log").path());
    paths
        .map(|path| (path.clone(), format!("logs/{}", path.file_name().expect("a name").display()).into()))
        .collect()
}

impl Bucket {
    fn of(endpoint: &str) -> Bucket {
        let mut store = AmazonS3Builder::new().with_bucket_name("bucket");
        for (key, value) in s3_server::environment(endpoint) {
            store = store.with_config(key.to_lowercase().parse().expect("a key of the client"), value);
        }
        let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
        Bucket { store: store.build().expect("a bucket"), runtime }
    }

    /// Uploads the logs through the server, which then knows their etags: for files that it only
    /// finds on disk it would hash all bytes, for each listing and each request.
    fn fill(&self, made: &Path) {
        for (file, key) in logs(made) {
            let bytes = PutPayload::from(std::fs::read(file).expect("a log"));
            self.runtime.block_on(self.store.put(&key, bytes)).expect("the server takes it");
        }
    }

    /// Reads all logs from the server, as many at once as a run. Returns the wall seconds.
    fn throw_away(&self, made: &Path) -> f64 {
        let logs = logs(made);
        let made_bytes: u64 = logs.iter().map(|(file, _)| file.metadata().expect("a log").len()).sum();
        let read = async |key: &Key| {
            let mut body = self.store.get(key).await.expect("the server answers").into_stream();
            let mut bytes = 0;
            while let Some(piece) = body.next().await {
                bytes += piece.expect("the server goes on").len() as u64;
            }
            bytes
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let all = futures::stream::iter(logs.iter().map(|(_, key)| read(key))).buffer_unordered(workers);
        let since = Instant::now();
        let read: Vec<u64> = self.runtime.block_on(all.collect());
        let seconds = since.elapsed().as_secs_f64();
        assert_eq!(read.iter().sum::<u64>(), made_bytes, "every byte is read");
        seconds
    }
}

/// Runs the command once into an empty lake. Returns the wall seconds.
fn run(made: &Path, logs: &str, lake: &str, endpoint: &str, rows: u64) -> f64 {
    let job = made.join("s3.toml");
    let sellers = made.join("sellers.csv");
    let text = format!(
        "name = \"s3\"\nkind = \"spending\"\n[input]\nlogs = \"{logs}/logs/\"\nsellers = {sellers:?}\n\
         [output]\nlake = \"{lake}/lake/\"\n"
    );
    std::fs::write(&job, text).expect("room for a job");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pennymill"));
    command.args(["run", "--report", "json"]).arg(&job).envs(s3_server::environment(endpoint));
    let since = Instant::now();
    let output = command.output().expect("the program starts");
    let seconds = since.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["rows"]["accepted"], rows, "every row is counted");
    seconds
}
