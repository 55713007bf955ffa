//! Times every stage of a run alone, and a whole run.
//!
//! In: `PENNYMILL_BENCH_ROWS`, or a million rows. Out: time per stage, and at last how much CPU a
//! run takes for each second of what it cannot do without: parsing and encoding.
//! Invariant: the seed, and the checksum of each stage before it is timed, are told, so that two
//! runs can be known to have done the same.

mod stages;

use criterion::{Criterion, Throughput};
use stages::{Data, STAGES, Stage};

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: u64 = 1_000_000;
const SEED: u64 = 7;

/// Some seconds: ticks are hundredths of one.
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

/// The CPU that one run takes, over so many runs that the ticks are many.
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

/// What all threads of this process have taken so far, those that ended too.
fn cpu_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the program's name, which may hold anything, come the fields from the third on; the
    // 14th and the 15th are the time as a user and in the kernel.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}
