//! The stages of a run, each alone, over the same generated logs.
//!
//! In: a number of rows and a seed. Out: for each stage a function that runs it any number of times
//! and returns its time and a checksum of its result.
//! Invariant: the input of a stage is made before its clock starts; the same seed gives the same
//! checksums.

use arrow::array::{
    ArrayRef, Decimal64Array, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use pennymill::bench;
use pennymill::domain::spend::Spend;
use pennymill::domain::transaction::Transaction;
use pennymill::domain::zone::Zone;
use pennymill::engine::local::Tuning;
use pennymill::error::Result;
use pennymill::generate::Generated;
use pennymill::input::published::read_groups;
use pennymill::input::reference::{Reference, zone};
use pennymill::job::sections::Bench;
use pennymill::job::spec::Spec;
use pennymill::kernel::categorize::Categorizer;
use pennymill::kernel::content::Content;
use pennymill::kernel::fused::{MapRules, Mapper, Outcome, Worker};
use pennymill::kernel::keyed::Key;
use pennymill::kernel::memo::{Known, Memo};
use pennymill::kernel::movement::{Chunk, Packing};
use pennymill::kernel::parse::{Line, parse_line};
use pennymill::kernel::partition::{ChunkSink, Partitioner, Sample};
use pennymill::kernel::quick::Lines;
use pennymill::kernel::scan::Block;
use pennymill::kernel::separators::Separators;
use pennymill::kernel::short_text::ShortText;
use pennymill::kernel::table::{self, SortBuffers, Sums};
use pennymill::limits::{PARTITION_ROWS_TARGET, READ_BYTES, ROW_GROUP_ROWS};
use pennymill::output::{crowd, monthly};
use pennymill::run::{Asked, publish};
use pennymill::schema;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The result of a stage as one number.
pub type Checksum = i128;

/// A stage with its input.
pub struct Stage<'a> {
    pub name: &'static str,
    /// Runs once. Returns the time and the checksum.
    pub run: Box<dyn FnMut() -> (Duration, Checksum) + 'a>,
}

/// In the order of data flow, and finally the whole job.
pub const STAGES: [fn(&Data) -> Stage<'_>; 11] =
    [generate, separators, parse, content, categorize, map, sum_up, encode, encode_by_library, decode, job];

/// Generated logs, on disk and in memory, and the compiled job.
pub struct Data {
    pub made: Generated,
    /// The options of the generator.
    spec: Spec,
    /// The job over the logs.
    job: Spec,
    logs: Vec<Vec<u8>>,
    reference: Reference,
    categorizer: Categorizer,
    zone: Zone,
    folder: TempDir,
}

/// The movements of a partition, and their layout.
type Partition = (Vec<Chunk>, Option<(Packing, u64)>);

/// As in the mapper: rows parsed before the first of them is categorized, and the prefetch distance
/// in rows for seller entries.
const BATCH_ROWS: usize = 32;
const AHEAD_ROWS: usize = 8;

impl Data {
    /// The users and sellers of the shipped bench job, reduced in proportion to the rows.
    pub fn new(rows: u64, seed: u64) -> Result<Data> {
        let shipped = Bench::default();
        let share = |of: u64| (of * rows / shipped.rows).clamp(1, of);
        let (users, sellers) = (share(shipped.users), share(shipped.sellers.into()) as u32);
        let spec = Spec { bench: Bench { rows, users, sellers, seed, ..shipped }, ..Spec::shipped() };
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("made");
        let made = pennymill::generate::generate(&bench::options(&spec, &data))?;
        let logs = made.logs.iter().map(|log| std::fs::read(data.join(&log.name)));
        let logs = logs.collect::<std::io::Result<_>>()?;
        let job = bench::spending(&spec, &data, &folder.path().join("lake"));
        let reference = Reference::load(&job, crowd::read)?;
        let (categorizer, zone) = (Categorizer::of(&reference)?, zone(&job));
        Ok(Data { made, spec, job, logs, reference, categorizer, zone, folder })
    }

    /// Blocks of whole lines, of about the size the mapper reads.
    fn blocks(&self) -> Vec<&[u8]> {
        let mut blocks = Vec::new();
        for log in &self.logs {
            let mut rest = log.as_slice();
            while !rest.is_empty() {
                let read = &rest[..rest.len().min(READ_BYTES)];
                let newline = read.iter().rposition(|byte| *byte == b'\n');
                let (block, next) = rest.split_at(newline.expect("logs are of short lines") + 1);
                blocks.push(block);
                rest = next;
            }
        }
        blocks
    }

    /// Each row with its block.
    fn transactions(&self) -> Vec<(&[u8], Transaction<'_>)> {
        let (mut rows, mut separators) = (Vec::new(), Separators::default());
        for block in self.blocks() {
            parse_block(block, &mut separators, &self.zone, |row| rows.push((block, row)));
        }
        rows
    }

    /// About the partitions of a run, but several even for few rows.
    fn partitioner(&self) -> Partitioner {
        let (mut sample, first_month) = (Sample::default(), self.zone.months().first);
        for (_, row) in self.transactions() {
            let month = row.month.since(first_month).expect("parsing checked the month");
            sample.add(row.user_id, month, row.amount_cents);
        }
        let count = self.made.rows.div_ceil(PARTITION_ROWS_TARGET).max(4) as usize;
        Partitioner::from_sample(sample, count, self.reference.categories.count())
    }

    /// The outcome of the map, and the chunks of each partition.
    fn map(&self, blocks: &[&[u8]], partitioner: &Partitioner) -> (Outcome, Vec<Vec<Chunk>>) {
        let rules = MapRules { zone: &self.zone, key: Key::random(), only_months: None };
        let known = Known::new(&self.categorizer);
        let mut worker = Worker::new(&known, partitioner, Kept(vec![Vec::new(); partitioner.count()]));
        let mut mapper = Mapper::new(&rules, &mut worker, (), 0);
        for &bytes in blocks {
            mapper.map(Block::Lines { offset: 0, bytes });
        }
        let (outcome, _, ()) = mapper.finish();
        (outcome, worker.scatter.finish().0)
    }

    fn partitions(&self) -> Vec<Partition> {
        let partitioner = self.partitioner();
        let chunks = self.map(&self.blocks(), &partitioner).1.into_iter().enumerate();
        chunks.map(|(index, chunks)| (chunks, partitioner.packing(index))).collect()
    }

    /// The groups of each month, sorted by user.
    pub fn groups(&self) -> Vec<Vec<Spend>> {
        let mut by_month: BTreeMap<u32, Vec<Spend>> = BTreeMap::new();
        let mut buffers = SortBuffers::default();
        for (chunks, packing) in self.partitions() {
            for (month, groups) in table::sum_up(chunks, packing, &mut buffers).into_months() {
                by_month.entry(month).or_default().extend_from_slice(&groups);
            }
        }
        by_month.into_values().collect()
    }

    fn encoded(&self, groups: &[Vec<Spend>]) -> Vec<Bytes> {
        let encode = |groups: &Vec<Spend>| monthly::encode(groups, &self.reference.categories);
        groups.iter().map(|groups| encode(groups).expect("groups are a table")).collect()
    }
}

/// Keeps all chunks in memory.
struct Kept(Vec<Vec<Chunk>>);

impl ChunkSink for Kept {
    fn take(&mut self, partition: usize, chunk: Chunk) {
        self.0[partition].push(chunk);
    }
}

fn stage<'a>(name: &'static str, run: impl FnMut() -> (Duration, Checksum) + 'a) -> Stage<'a> {
    Stage { name, run: Box::new(run) }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let since = Instant::now();
    let result = work();
    (since.elapsed(), result)
}

fn checksum(bytes: &[u8]) -> Checksum {
    xxhash_rust::xxh3::xxh3_64(bytes).into()
}

/// Depends on every field and on the order.
pub fn checksum_of_groups(groups: &[Vec<Spend>]) -> Checksum {
    groups.iter().flatten().fold(0, |sum, group| {
        let Spend { user_id, category, amount_cents, transaction_count } = *group;
        let fields: [Checksum; 4] =
            [user_id.into(), category.0.into(), amount_cents.into(), transaction_count.into()];
        fields.iter().fold(sum, |sum: Checksum, field| sum.wrapping_mul(31).wrapping_add(*field))
    })
}

/// Parses the rows of a block as the mapper does.
fn parse_block<'b>(
    block: &'b [u8],
    separators: &mut Separators,
    zone: &Zone,
    mut on_row: impl FnMut(Transaction<'b>),
) {
    for (range, quick) in Lines::new(separators.index(block), zone) {
        let line = &block[range];
        match quick
            .map_or_else(|| parse_line(line.strip_suffix(b"\n").unwrap_or(line), zone), Line::Transaction)
        {
            Line::Transaction(row) => on_row(row),
            _ => panic!("a generated line was refused"),
        }
    }
}

/// Generates a data set on disk. Checksum: of the logs' checksums.
pub fn generate(data: &Data) -> Stage<'_> {
    stage("generate", move || {
        let folder = tempfile::tempdir_in(data.folder.path()).expect("room for another data set");
        let options = bench::options(&data.spec, folder.path());
        let (elapsed, made) = timed(|| pennymill::generate::generate(&options));
        let made = made.expect("what was generated can be generated again");
        let checksums: String = made.logs.iter().map(|log| log.sha256.as_str()).collect();
        (elapsed, checksum(checksums.as_bytes()))
    })
}

/// Indexes tabs and newlines. Checksum: their number.
pub fn separators(data: &Data) -> Stage<'_> {
    let (blocks, mut separators) = (data.blocks(), Separators::default());
    stage("separators", move || {
        timed(|| {
            let mut found = 0;
            for block in &blocks {
                found += separators.index(block).positions().len();
            }
            found as Checksum
        })
    })
}

/// Indexes and parses. Checksum: the net cents.
pub fn parse(data: &Data) -> Stage<'_> {
    let (blocks, mut separators) = (data.blocks(), Separators::default());
    stage("parse", move || {
        timed(|| {
            let mut cents = 0;
            for block in &blocks {
                parse_block(block, &mut separators, &data.zone, |row| {
                    cents += Checksum::from(row.amount_cents);
                });
            }
            cents
        })
    })
}

/// Computes the logs' fingerprint. Checksum: of the fingerprint.
pub fn content(data: &Data) -> Stage<'_> {
    let lines = data.logs.iter().flat_map(|log| log.split_inclusive(|byte| *byte == b'\n'));
    let lines: Vec<&[u8]> = lines.collect();
    stage("content", move || {
        let (elapsed, content) = timed(|| {
            let mut content = Content::default();
            lines.iter().for_each(|line| _ = content.add(line));
            content
        });
        (elapsed, checksum(content.to_string().as_bytes()))
    })
}

/// Categorizes with the initially empty cache of one worker. Checksum: the sum of the category
/// numbers.
pub fn categorize(data: &Data) -> Stage<'_> {
    let rows = data.transactions();
    stage("categorize", move || {
        timed(|| {
            let known = Known::new(&data.categorizer);
            let (mut memo, mut sum, mut sought) = (Memo::new(&known), 0, Vec::new());
            for batch in rows.chunks(BATCH_ROWS) {
                sought.clear();
                sought.extend(
                    batch.iter().map(|(block, row)| memo.seller_key(ShortText::within(block, row.seller))),
                );
                for (index, (_, row)) in batch.iter().enumerate() {
                    sought.get(index + AHEAD_ROWS).into_iter().for_each(|later| memo.prefetch_entry(later));
                    sum += Checksum::from(memo.categorize_by_key(row, &sought[index]).category.0);
                }
            }
            sum
        })
    })
}

/// Maps with one worker, from blocks to movements by partition. Checksum: the accepted rows.
pub fn map(data: &Data) -> Stage<'_> {
    let (blocks, partitioner) = (data.blocks(), data.partitioner());
    stage("map", move || {
        let (elapsed, (outcome, _)) = timed(|| data.map(&blocks, &partitioner));
        (elapsed, outcome.accepted.into())
    })
}

/// Aggregates all partitions. Checksum: the net cents of the groups.
pub fn sum_up(data: &Data) -> Stage<'_> {
    let partitions = data.partitions();
    stage("sum_up", move || {
        let (partitions, mut buffers) = (partitions.clone(), SortBuffers::default());
        let sum = |(chunks, packing)| table::sum_up(chunks, packing, &mut buffers);
        let (elapsed, sums) = timed(|| partitions.into_iter().map(sum).collect::<Vec<Sums>>());
        let months = sums.into_iter().flat_map(Sums::into_months);
        let cents = |groups: &[Spend]| {
            groups.iter().map(|group| Checksum::from(group.amount_cents)).sum::<Checksum>()
        };
        (elapsed, months.map(|(_, groups)| cents(&groups)).sum())
    })
}

/// Encodes groups as Parquet, one part per month. Checksum: of the bytes.
pub fn encode(data: &Data) -> Stage<'_> {
    let groups = data.groups();
    stage("encode", move || {
        let (elapsed, parts) = timed(|| data.encoded(&groups));
        (elapsed, parts.iter().map(|part| checksum(part)).sum())
    })
}

/// As [`encode`], in the same encodings, by the Parquet library alone. Checksum: of the bytes.
pub fn encode_by_library(data: &Data) -> Stage<'_> {
    let groups = data.groups();
    let codes = Arc::new(StringArray::from_iter_values(data.reference.categories.codes()));
    // Our encoder compresses only the users.
    let plain = ["category", "amount", "transaction_count"].into_iter();
    let properties = plain.fold(schema::spending_properties(), |properties, column| {
        properties.set_column_compression(column.into(), Compression::UNCOMPRESSED)
    });
    let numbers = ["user_id", "amount", "transaction_count"].into_iter();
    let properties = numbers.fold(properties, |properties, column| {
        let properties = properties.set_column_dictionary_enabled(column.into(), false);
        properties.set_column_encoding(column.into(), Encoding::DELTA_BINARY_PACKED)
    });
    let properties = properties.build();
    let batch = move |groups: &[Spend]| {
        let numbers = |number: fn(&Spend) -> i64| groups.iter().map(number);
        let ids = Int32Array::from_iter_values(groups.iter().map(|group| group.category.0.into()));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(numbers(|group| group.user_id as i64))),
            Arc::new(DictionaryArray::new(ids, codes.clone())),
            Arc::new(
                Decimal64Array::from_iter_values(numbers(|group| group.amount_cents))
                    .with_data_type(DataType::Decimal64(18, 2)),
            ),
            Arc::new(Int64Array::from_iter_values(numbers(|group| group.transaction_count as i64))),
        ];
        RecordBatch::try_new(schema::spending_in_memory(), columns).expect("columns of one length")
    };
    let encode = move |groups: &Vec<Spend>| -> parquet::errors::Result<Vec<u8>> {
        let mut writer =
            ArrowWriter::try_new(Vec::new(), schema::spending_in_memory(), Some(properties.clone()))?;
        for row_group in groups.chunks(ROW_GROUP_ROWS) {
            writer.write(&batch(row_group))?;
            writer.flush()?;
        }
        writer.into_inner()
    };
    stage("encode_by_library", move || {
        let (elapsed, parts) = timed(|| groups.iter().map(&encode).collect::<Result<Vec<_>, _>>());
        (elapsed, parts.expect("groups are a table").iter().map(|part| checksum(part)).sum())
    })
}

/// Decodes Parquet into groups. Checksum: of the groups.
pub fn decode(data: &Data) -> Stage<'_> {
    let parts = data.encoded(&data.groups());
    stage("decode", move || {
        let read = |part: &Bytes| read_groups(part.clone(), &data.reference.categories, "a part");
        let (elapsed, groups) = timed(|| parts.iter().map(read).collect::<Result<Vec<_>>>());
        (elapsed, checksum_of_groups(&groups.expect("a part that was just written")))
    })
}

/// Runs the whole job, from logs on disk to a lake on disk. Checksum: the net cents.
pub fn job(data: &Data) -> Stage<'_> {
    stage("job", move || {
        let (elapsed, published) = timed(|| publish(&data.job, &Asked::default(), &Tuning::of(&data.job)));
        let (report, _) = published.expect("the job runs");
        std::fs::remove_dir_all(&data.job.output.lake).expect("there is a lake, and it is ours");
        (elapsed, report.amount_cents.net.into())
    })
}
