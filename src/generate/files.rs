//! Files with checksums, and the logs: blocks are made in parallel and written in order.
//!
//! In: a recipe and a plan of files. Out: files on disk, each with its size and SHA-256.
//! Invariant: the bytes do not depend on the number of threads; memory holds two batches of blocks
//! for any number of rows.

use super::calendar::Calendar;
use super::rows::{Block, Picked, Recipe, Tally};
use super::{Compression, Options};
use crate::error::{Error, Result};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

/// Rows per block. Changing it changes every data set.
const BLOCK_ROWS: u64 = 65_536;

/// Blocks per thread made while the previous batch is written.
const BLOCKS_PER_THREAD: usize = 2;

/// A written file of the data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Relative to the output folder.
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
}

/// A new file that counts and hashes the bytes written.
pub struct OutputFile {
    name: String,
    file: File,
    hasher: Sha256,
    bytes: u64,
}

impl OutputFile {
    pub fn create(folder: &Path, name: &str) -> Result<OutputFile> {
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(|e| Error::from(e).at(path.display()))?;
        Ok(OutputFile { name: name.to_string(), file, hasher: Sha256::new(), bytes: 0 })
    }

    pub fn finish(self, rows: u64) -> Written {
        let sha256 = self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Written { name: self.name, rows, bytes: self.bytes, sha256 }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A log to be written: its name relative to the output folder, and its rows.
pub struct LogPlan {
    name: String,
    rows: Range<u64>,
}

/// Divides the rows evenly among the logs. A log is named after the month of its first row.
pub fn plan_logs(options: &Options, calendar: &Calendar) -> Vec<LogPlan> {
    let extension = options.compress.map_or("", Compression::extension);
    let files = u64::from(options.files);
    let start_of = |file: u64| (u128::from(file) * u128::from(options.rows) / u128::from(files)) as u64;
    let mut parts_of_month = BTreeMap::new();
    let plan = |file: u64| {
        let month = calendar.month_of_row(start_of(file));
        let part = parts_of_month.entry(month).or_insert(0u32);
        *part += 1;
        LogPlan {
            name: format!("logs/{month}-part-{part:04}.tsv{extension}"),
            rows: start_of(file)..start_of(file + 1),
        }
    };
    (0..files).map(plan).collect()
}

/// The written logs, their totals, and the rows picked for overrides.
#[derive(Default)]
pub struct Logs {
    pub files: Vec<Written>,
    pub tally: Tally,
    pub picked: Vec<Picked>,
}

/// Writes all logs. One batch of blocks is made while the previous one is written.
pub fn write_logs(
    folder: &Path,
    plans: &[LogPlan],
    recipe: &Recipe,
    compress: Option<Compression>,
) -> Result<Logs> {
    let batch_blocks = BLOCKS_PER_THREAD * rayon::current_num_threads();
    let mut pending = plans.iter().flat_map(blocks_of);
    let mut writer = LogWriter { folder, open: None, logs: Logs::default() };
    let mut made: Vec<FilledBlock> = Vec::new();
    let mut spare: Vec<FilledBlock> = Vec::new();
    loop {
        let next: Vec<BlockPlan> = pending.by_ref().take(batch_blocks).collect();
        spare.resize_with(next.len(), FilledBlock::default);
        let (outcome, packed) = rayon::join(
            || writer.append_all(&mut made),
            || {
                let blocks = spare.par_iter_mut().zip(&next);
                blocks.try_for_each(|(block, plan)| block.make(plan, recipe, compress))
            },
        );
        outcome?;
        packed.map_err(|e| Error::from(e).at(folder.display()))?;
        if next.is_empty() {
            return Ok(writer.finish());
        }
        std::mem::swap(&mut made, &mut spare);
    }
}

struct BlockPlan<'a> {
    log: &'a LogPlan,
    rows: Range<u64>,
}

fn blocks_of(log: &LogPlan) -> impl Iterator<Item = BlockPlan<'_>> {
    let starts = log.rows.clone().step_by(BLOCK_ROWS as usize);
    starts.map(|start| BlockPlan { log, rows: start..log.rows.end.min(start + BLOCK_ROWS) })
}

/// A block ready to be written.
#[derive(Default)]
struct FilledBlock {
    /// The log it belongs to.
    name: String,
    block: Block,
    compressed: Option<Vec<u8>>,
}

impl FilledBlock {
    fn make(&mut self, plan: &BlockPlan, recipe: &Recipe, compress: Option<Compression>) -> io::Result<()> {
        self.name.clone_from(&plan.log.name);
        recipe.fill(plan.rows.clone(), &mut self.block);
        self.compressed = compress.map(|how| how.pack(&self.block.text)).transpose()?;
        Ok(())
    }
}

/// Writes blocks in order, each to its log.
struct LogWriter<'a> {
    folder: &'a Path,
    open: Option<(OutputFile, u64)>,
    logs: Logs,
}

impl LogWriter<'_> {
    fn append_all(&mut self, blocks: &mut [FilledBlock]) -> Result<()> {
        blocks.iter_mut().try_for_each(|block| self.append(block))
    }

    fn append(&mut self, filled: &mut FilledBlock) -> Result<()> {
        if self.open.as_ref().is_none_or(|(file, _)| file.name != filled.name) {
            self.close();
            self.open = Some((OutputFile::create(self.folder, &filled.name)?, 0));
        }
        let Some((file, rows)) = &mut self.open else {
            return Err(Error::invariant("a log was opened and is not open"));
        };
        let bytes = filled.compressed.as_ref().unwrap_or(&filled.block.text);
        let place = self.folder.join(&filled.name);
        file.write_all(bytes).map_err(|e| Error::from(e).at(place.display()))?;
        *rows += filled.block.tally.rows;
        self.logs.tally.add(&filled.block.tally);
        self.logs.picked.append(&mut filled.block.picked);
        Ok(())
    }

    fn close(&mut self) {
        if let Some((file, rows)) = self.open.take() {
            self.logs.files.push(file.finish(rows));
        }
    }

    fn finish(mut self) -> Logs {
        self.close();
        self.logs
    }
}
