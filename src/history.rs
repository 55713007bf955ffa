//! What happened to a lake: its versions, the runs that made them, and the rejects of a run.
//!
//! In: a lake. Out: a row for each version of `monthly_spending`; rejected lines as they stood.
//! Invariant: everything is read from commits and their manifests; nothing is written.

use crate::error::{Error, Kind, Result, talk};
use crate::job::cli::{HistoryArgs, RejectsArgs};
use crate::limits::LINE_BYTES_MAX;
use crate::output::lake::{Lake, MONTHLY_SPENDING};
use crate::output::manifest::Manifest;
use crate::output::rejects;
use crate::output::table::Commit;
use crate::query::write_batch;
use crate::schema::TOTAL;
use crate::store::wait;
use arrow::array::{
    ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use std::io::{BufWriter, Write};
use std::sync::Arc;

/// One version of the lake.
struct Version {
    number: u64,
    commit: Commit,
    manifest: Option<Manifest>,
}

/// Prints the versions, oldest first.
pub fn run(args: &HistoryArgs) -> Result<String> {
    let lake = Lake::open(&args.lake)?;
    let table = lake.published(MONTHLY_SPENDING)?;
    let mut versions = Vec::new();
    for number in 0..=table.version() {
        let commit = wait(table.logged(number))?;
        let commit = commit.ok_or_else(|| Error::unfit(format!("commit {number} is gone")).at(&args.lake))?;
        versions.push(Version { number, manifest: wait(lake.manifest(&table, number))?, commit });
    }
    write_batch(batch(&versions)?, args.format)
}

fn batch(versions: &[Version]) -> Result<RecordBatch> {
    let text = |value: &dyn Fn(&Version) -> Option<String>| -> ArrayRef {
        Arc::new(versions.iter().map(value).collect::<StringArray>())
    };
    let number = |value: &dyn Fn(&Version) -> Option<i64>| -> ArrayRef {
        Arc::new(versions.iter().map(value).collect::<Int64Array>())
    };
    let committed = versions.iter().map(|version| version.commit.millis.map(|millis| millis * 1000));
    let committed = committed.collect::<TimestampMicrosecondArray>().with_timezone("UTC");
    let with = |status: &'static str| {
        move |version: &Version| {
            let manifest = version.manifest.as_ref()?;
            Some(manifest.inputs.iter().filter(|input| input.status == status).count() as i64)
        }
    };
    let net = versions.iter().map(|version| version.counted().map(|(_, cents)| cents));
    let net = net.collect::<Decimal128Array>().with_data_type(TOTAL);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("version", number(&|version| Some(version.number as i64))),
        ("committed_at", Arc::new(committed)),
        ("run_id", text(&|version| version.commit.info.get("run_id").cloned())),
        ("what", text(&|version| Some(version.what().to_string()))),
        ("job", text(&|version| version.manifest.as_ref().map(|manifest| manifest.job.clone()))),
        ("inputs_counted", number(&with("counted"))),
        ("inputs_held", number(&with("held"))),
        ("rows", number(&|version| version.counted().map(|(rows, _)| rows))),
        ("net", Arc::new(net)),
        ("months", text(&Version::months)),
        ("parts_added", number(&|version| Some(version.commit.added.len() as i64))),
        ("parts_removed", number(&|version| Some(version.commit.removed.len() as i64))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)));
    batch.map_err(|e| Error::invariant(format!("the history is no table: {e}")))
}

impl Version {
    fn what(&self) -> &'static str {
        match &self.manifest {
            Some(manifest) if !manifest.recounted().is_empty() => "recount",
            Some(_) => "count",
            None if self.number == 0 => "create",
            None if self.commit.is_ours() => "clean up",
            None => "another program",
        }
    }

    /// Rows and cents of the objects that were counted; a recount adds none.
    fn counted(&self) -> Option<(i64, i128)> {
        let manifest = self.manifest.as_ref().filter(|manifest| manifest.recounted().is_empty())?;
        let mut counted = manifest.inputs.iter().filter(|input| input.status == "counted");
        counted.try_fold((0, 0), |(rows, cents), input| {
            Some((rows + input.rows_accepted as i64, cents + input.net_cents()?))
        })
    }

    fn months(&self) -> Option<String> {
        let months = self.manifest.as_ref()?.months.iter().map(|month| month.month.clone());
        Some(months.collect::<Vec<_>>().join(" "))
    }
}

/// Writes the rejected lines of a run to stdout, byte for byte: mended, they are a log like any other.
/// A line that had no end gets one where another follows.
pub fn rejects(args: &RejectsArgs) -> Result<()> {
    let lake = Lake::open(&args.lake)?;
    let table = lake.published(MONTHLY_SPENDING)?;
    let mut record = None;
    for version in (1..=table.version()).rev() {
        let manifest = wait(lake.manifest(&table, version))?;
        if let Some(manifest) = manifest.filter(|manifest| manifest.run_id == args.run) {
            record = Some(manifest.rejects);
            break;
        }
    }
    let record = record.ok_or_else(|| {
        let error = Error::new(Kind::NotFound, "no run of this id has published anything").at(&args.lake);
        error.advise("`pennymill history` lists the runs")
    })?;
    let (mut out, mut lines, mut cut, mut is_ended) = (BufWriter::new(std::io::stdout().lock()), 0, 0, true);
    let on_line = |line: &[u8]| {
        out.write_all(if is_ended { b"" } else { b"\n" })?;
        is_ended = line.ends_with(b"\n");
        lines += 1;
        cut += usize::from(line.len() >= LINE_BYTES_MAX);
        out.write_all(line)
    };
    let written = match record {
        Some(record) => rejects::each_raw_line(lake.read_file(&record)?, on_line)?,
        None => Ok(()),
    };
    match written.and_then(|()| out.flush()) {
        // A reader that has seen enough is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
        Err(error) => return Err(Error::new(Kind::CannotWrite, error.to_string()).at("stdout")),
        Ok(()) => {}
    }
    if cut > 0 {
        talk(format_args!("{cut} lines are longer than {LINE_BYTES_MAX} bytes and end there"));
    }
    talk(format_args!("{lines} lines"));
    Ok(())
}
