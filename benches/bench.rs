//! Times each stage of a run alone, and a whole run.
//!
//! In: `PENNYMILL_BENCH_ROWS`, or a million rows. Out: the time per stage, and the CPU of a whole
//! run relative to the unavoidable work: parsing and encoding.
//! Invariant: the seed and the checksum of each stage are printed before it is timed, so that two
//! runs can be seen to have done the same work.

mod stages;

use criterion::{Criterion, Throughput};
use stages::{Data, STAGES, Stage};

/// The program's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: u64 = 1_000_000;
const SEED: u64 = 7;

/// Some seconds: a tick is a hundredth of one.
const TICKS_MIN: u64 = 300;

fn main() {
    let rows = std::env::var("PENNYMILL_BENCH_ROWS");
    let rows = rows.map_or(ROWS, |rows| rows.parse().expect("PENNYMILL_BENCH_ROWS is a number"));
    let data = Data::new(rows, SEED).expect("logs can be generated");
    let groups: usize = data.groups().iter().map(Vec::len).sum();
    println!("seed {SEED}, {rows} rows, {groups} groups");
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("stages");
    group.sample_size(10).throughput(Throughput::Elements(rows));
    for make in STAGES {
        let mut stage = make(&data);
        println!("{}: checksum {}", stage.name, (stage.run)().1);
        group.bench_function(stage.name, |bencher| {
            bencher.iter_custom(|runs| (0..runs).map(|_| (stage.run)().0).sum());
        });
    }
    group.finish();
    criterion.final_summary();
    let figure = "CPU of a full run / (parse-only + encode)";
    let figures = [stages::job, stages::parse, stages::encode, stages::encode_by_library];
    match figures.map(|stage| ticks_per_run(stage(&data))) {
        [Some(job), Some(parse), Some(encode), Some(by_library)] => {
            println!("{figure}: {:.2}", job / (parse + encode));
            println!("{figure} by the Parquet library alone: {:.2}", job / (parse + by_library));
        }
        _ => println!("{figure}: not known, since the system has no /proc/self/stat"),
    }
}

/// The CPU ticks of one run, averaged over enough runs for a precise count.
fn ticks_per_run(mut stage: Stage) -> Option<f64> {
    let (start, mut runs) = (cpu_ticks()?, 0u32);
    loop {
        (stage.run)();
        runs += 1;
        let ticks = cpu_ticks()? - start;
        if ticks >= TICKS_MIN {
            return Some(ticks as f64 / f64::from(runs));
        }
    }
}

/// The CPU ticks of all threads of this process so far, including ended ones.
fn cpu_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name may contain anything, so the fields are counted from behind it, where the
    // third one is first; the 14th and the 15th are user and kernel time.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}
