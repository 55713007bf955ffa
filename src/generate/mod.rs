//! Generator of synthetic data: transaction logs and their reference tables, in the formats of
//! `schemas/`.
//!
//! In: [`Options`]. Out: `logs/*.tsv`, `sellers.csv`, `users.csv`, `budget_template.toml`,
//! `budget_overrides.csv`, `category_overrides.csv` and, last, `README.md`.
//! Invariant: the same options give the same bytes on any machine and with any number of threads.
//!
//! How values are made, so that a seed keeps its meaning: each log is split into blocks of 65,536
//! rows, counted from the start of the file. A block draws from SplitMix64, seeded with the seed
//! and the number of the block's first row. Amounts come from tables computed with exactly rounded
//! arithmetic. Sellers follow a Zipf-Mandelbrot law, users a Pareto law (some have hundreds of
//! times the average number of rows, nearly all occur). 2 % of the rows are up to 35 days late,
//! 1.5 % are refunds, 3 % name a seller missing from the dictionary, 0.4 % repeat the previous row.

mod calendar;
mod faults;
mod files;
mod market;
mod profile;
mod random;
mod readme;
mod rows;
mod tables;
mod users;

pub use files::Written;

use crate::domain::month::MonthRange;
use crate::domain::transaction::RejectReason;
use crate::error::{Error, Result};
use calendar::Calendar;
use faults::Faults;
use market::Market;
use profile::Amounts;
use rows::{Recipe, References, Tally};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use users::Users;

const ROWS_MAX: u64 = 1_000_000_000_000;
const USERS_MAX: u64 = u32::MAX as u64;
const SELLERS_MAX: u32 = 1_000_000;
/// Files of a month are numbered with four digits.
const FILES_MAX: u32 = 9_999;
/// The default months of a job; bad rows are outside them.
const MONTHS: &str = "2000-01..2099-12";

/// What to generate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lines of all logs together, including bad ones.
    pub rows: u64,
    pub users: u64,
    /// Sellers in the dictionary; the logs name some more.
    pub sellers: u32,
    pub months: MonthRange,
    pub files: u32,
    pub seed: u64,
    /// An empty or missing folder.
    pub out: PathBuf,
    /// Compression of the logs, with one member per block of rows.
    pub compress: Option<Compression>,
    /// The share of lines that must be rejected, 0 to 1.
    pub reject_ratio: f64,
    /// The share of lines whose seller has a unique reference number, 0 to 1.
    pub reference_ratio: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    /// The name on the command line and in the README.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gz",
            Compression::Zstd => "zst",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        }
    }

    /// Compresses into one gzip member or zstd frame.
    fn pack(self, text: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(3));
                encoder.write_all(text)?;
                encoder.finish()
            }
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(Vec::new(), 3)?;
                encoder.include_checksum(true)?;
                encoder.write_all(text)?;
                encoder.finish()
            }
        }
    }
}

/// Counts, totals and files of a generated data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    pub rows: u64,
    /// Lines that must be rejected.
    pub bad_rows: u64,
    /// Those lines by reason, without reasons that do not occur.
    pub rejects: Vec<(RejectReason, u64)>,
    /// Totals of the lines that must be accepted.
    pub positive_cents: i128,
    pub negative_cents: i128,
    pub logs: Vec<Written>,
    pub tables: Vec<Written>,
}

impl Generated {
    pub fn net_cents(&self) -> i128 {
        self.positive_cents + self.negative_cents
    }

    /// The size of the logs on disk, in bytes.
    pub fn log_bytes(&self) -> u64 {
        self.logs.iter().map(|file| file.bytes).sum()
    }
}

/// Writes a whole data set. Errors: invalid options, an output folder that is not empty, I/O.
pub fn generate(options: &Options) -> Result<Generated> {
    check(options)?;
    prepare(&options.out)?;
    let recipe = recipe(options);
    let plans = files::plan_logs(options, &recipe.calendar);
    let logs = files::write_logs(&options.out, &plans, &recipe, options.compress)?;
    let tables = tables::write_tables(options, &recipe, &logs.picked)?;
    let generated = summary(&logs.tally, logs.files, tables);
    readme::write_readme(options, &generated)?;
    Ok(generated)
}

/// Errors: options that no data set can be made from.
pub fn check(options: &Options) -> Result<()> {
    let within = |name: &str, value: u64, most: u64| match (1..=most).contains(&value) {
        true => Ok(()),
        false => Err(Error::unfit(format!("--{name} is {value}")).advise(format!("give 1 to {most}"))),
    };
    within("rows", options.rows, ROWS_MAX)?;
    within("users", options.users, USERS_MAX)?;
    within("sellers", options.sellers.into(), SELLERS_MAX.into())?;
    within("files", options.files.into(), FILES_MAX.into())?;
    if u64::from(options.files) > options.rows {
        let what = format!("--files {} is more than --rows {}", options.files, options.rows);
        return Err(Error::unfit(what).advise("a file has at least one row"));
    }
    let allowed: MonthRange = MONTHS.parse().map_err(Error::invariant)?;
    if !allowed.contains(options.months.first) || !allowed.contains(options.months.last) {
        let what = format!("--months {} is not within {allowed}", options.months);
        return Err(Error::unfit(what).advise("choose months that a job takes by default"));
    }
    let share = |name: &str, value: f64| match (0.0..=1.0).contains(&value) {
        true => Ok(()),
        false => Err(Error::unfit(format!("--{name} is {value}")).advise("give a share of the rows, 0 to 1")),
    };
    share("reject-ratio", options.reject_ratio)?;
    share("reference-ratio", options.reference_ratio)
}

/// Creates the folders. Refuses a folder that is not empty, so that data sets are never mixed.
fn prepare(out: &Path) -> Result<()> {
    let failed = |e: io::Error| Error::from(e).at(out.display());
    match std::fs::read_dir(out) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                let refusal = Error::unfit("the output folder is not empty").at(out.display());
                return Err(refusal.advise("name a folder that is empty or does not exist"));
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    std::fs::create_dir_all(out.join("logs")).map_err(failed)
}

fn recipe(options: &Options) -> Recipe {
    // One manual category per 25 users, if there are enough rows.
    let picks = (options.users / 25).max(1);
    Recipe {
        seed: options.seed,
        users: Users::new(options.users, options.seed),
        market: Market::new(options.sellers),
        amounts: Amounts::new(),
        calendar: Calendar::new(options.months, options.rows),
        faults: Faults::new(options.seed, options.rows, options.reject_ratio),
        pick_every: (options.rows / picks).max(1),
        references: References::new(options.seed, options.reference_ratio),
    }
}

fn summary(tally: &Tally, logs: Vec<Written>, tables: Vec<Written>) -> Generated {
    let counted = RejectReason::ALL.into_iter().zip(tally.rejects);
    Generated {
        rows: tally.rows,
        bad_rows: tally.rejects.iter().sum(),
        rejects: counted.filter(|&(_, count)| count > 0).collect(),
        positive_cents: tally.positive_cents,
        negative_cents: tally.negative_cents,
        logs,
        tables,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::budget::BudgetTemplate;
    use crate::domain::category::Categories;
    use crate::domain::money::{format_cents, parse_amount_cents};
    use crate::domain::month::Month;
    use sha2::{Digest, Sha256};
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::Read;

    fn options(out: &Path) -> Options {
        Options {
            rows: 150_000,
            users: 2000,
            sellers: 400,
            months: "2025-01..2025-03".parse().unwrap(),
            files: 4,
            seed: 7,
            out: out.to_path_buf(),
            compress: None,
            reject_ratio: 0.002,
            reference_ratio: 0.0,
        }
    }

    fn made(change: impl FnOnce(&mut Options)) -> (tempfile::TempDir, Generated) {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(folder.path());
        change(&mut options);
        let generated = generate(&options).unwrap();
        (folder, generated)
    }

    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let both = [folder.to_path_buf(), folder.join("logs")];
        let entries = both.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        paths
            .map(|path| (path.strip_prefix(folder).unwrap().to_path_buf(), std::fs::read(&path).unwrap()))
            .collect()
    }

    /// An independent line reader that shares no code with the generator or the kernel.
    fn read_line(line: &[u8]) -> Result<(Month, i64), RejectReason> {
        if line.len() > 65_536 {
            return Err(RejectReason::LineTooLong);
        }
        let text = std::str::from_utf8(line).map_err(|_| RejectReason::BadEncoding)?;
        let fields: Vec<&str> = text.split('\t').collect();
        let [user, time, seller, amount] = fields[..] else {
            return Err(RejectReason::FieldCount);
        };
        user.parse::<u64>().ok().filter(|&id| id <= i64::MAX as u64).ok_or(RejectReason::BadUserId)?;
        let time = chrono::DateTime::parse_from_rfc3339(time).map_err(|_| RejectReason::BadTimestamp)?;
        let month: Month = time.format("%Y-%m").to_string().parse().unwrap();
        if !MONTHS.parse::<MonthRange>().unwrap().contains(month) {
            return Err(RejectReason::OutOfWindow);
        }
        if seller.is_empty() || seller.len() > 255 {
            return Err(RejectReason::BadSeller);
        }
        let (units, cents) = amount.split_once('.').ok_or(RejectReason::BadAmount)?;
        if cents.len() != 2 {
            return Err(RejectReason::BadAmount);
        }
        let total: i64 = format!("{units}{cents}").parse().map_err(|_| RejectReason::BadAmount)?;
        if total.abs() > 1_000_000_000_000 { Err(RejectReason::AmountOutOfRange) } else { Ok((month, total)) }
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_number_of_threads() {
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (folder, _) = pool.install(|| made(|_| {}));
            files(folder.path())
        };
        let one = with_threads(1);
        assert_eq!(one.len(), 4 + 5 + 1);
        assert!(one == with_threads(2) && one == with_threads(7));
    }

    #[test]
    fn an_independent_reader_confirms_the_reported_totals() {
        let (folder, generated) = made(|_| {});
        let (mut rows, mut bad, mut net, mut negative) = (0, BTreeMap::new(), 0, 0);
        let (mut late, mut refunds) = (0, 0);
        for (name, bytes) in files(folder.path()).iter().filter(|(name, _)| name.starts_with("logs")) {
            let stem = name.file_name().unwrap().to_str().unwrap();
            let named: Month = stem[..7].parse().unwrap();
            for line in bytes.strip_suffix(b"\n").unwrap().split(|&byte| byte == b'\n') {
                rows += 1;
                match read_line(line) {
                    Ok((month, cents)) => {
                        assert!(options(folder.path()).months.contains(month));
                        late += u32::from(month < named);
                        refunds += u32::from(cents < 0);
                        net += i128::from(cents);
                        negative += i128::from(cents.min(0));
                    }
                    Err(reason) => *bad.entry(reason).or_insert(0u64) += 1,
                }
            }
        }
        assert_eq!((rows, 150_000), (generated.rows, generated.rows));
        assert_eq!(generated.bad_rows, 300);
        assert_eq!(bad.into_iter().collect::<Vec<_>>(), generated.rejects);
        assert_eq!(
            generated.rejects.len(),
            RejectReason::ALL.len() - 1,
            "all reasons but nonexistent local times"
        );
        assert_eq!((net, negative), (generated.net_cents(), generated.negative_cents));
        assert!((100..3000).contains(&late), "{late}");
        assert!((2400..3300).contains(&refunds), "{refunds}");
    }

    #[test]
    fn compressed_logs_contain_the_same_rows() {
        let (plain, _) = made(|_| {});
        let logs = |folder: &Path| files(folder).into_iter().filter(|(name, _)| name.starts_with("logs"));
        for compression in [Compression::Gzip, Compression::Zstd] {
            let (packed, _) = made(|options| options.compress = Some(compression));
            for ((name, packed), (_, plain)) in logs(packed.path()).zip(logs(plain.path())) {
                assert!(name.to_str().unwrap().ends_with(compression.extension()));
                let mut text = Vec::new();
                match compression {
                    Compression::Gzip => {
                        flate2::read::MultiGzDecoder::new(&packed[..]).read_to_end(&mut text).unwrap();
                    }
                    Compression::Zstd => text = zstd::decode_all(&packed[..]).unwrap(),
                }
                assert!(text == plain, "{}", name.display());
            }
        }
    }

    #[test]
    fn the_readme_has_the_command_and_the_checksums_of_the_files() {
        let (folder, generated) = made(|options| options.compress = Some(Compression::Zstd));
        let files = files(folder.path());
        let readme = String::from_utf8(files[Path::new("README.md")].clone()).unwrap();
        assert!(readme.contains(
            "pennymill generate --rows 150000 --users 2000 --sellers 400 --months 2025-01..2025-03 \
             --files 4 --seed 7 --compress zst --reject-ratio 0.002 --out DIR"
        ));
        for (name, bytes) in files.iter().filter(|(name, _)| *name != Path::new("README.md")) {
            let digest = Sha256::digest(bytes);
            let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(readme.contains(&format!("| {} | `{sha256}` |", bytes.len())), "{}", name.display());
        }
        assert!(readme.contains(&format!("| net | {} |", format_cents(generated.net_cents()))));
    }

    /// The columns in a schema: name, type, nullable.
    fn columns(dataset: &str) -> Vec<(String, String, bool)> {
        let contract: toml::Value = toml::from_str(crate::schema::contract(dataset).unwrap()).unwrap();
        let text = |column: &toml::Value, key: &str| column[key].as_str().unwrap().to_string();
        let columns = contract["column"].as_array().unwrap().iter();
        columns.map(|c| (text(c, "name"), text(c, "type"), c["nullable"].as_bool().unwrap())).collect()
    }

    fn is_of_type(cell: &str, kind: &str) -> bool {
        match kind {
            "BIGINT" => cell.parse::<i64>().is_ok(),
            "VARCHAR" => true,
            "DECIMAL(18,2)" => parse_amount_cents(cell.as_bytes()).is_ok(),
            "TIMESTAMP(us, UTC)" => chrono::DateTime::parse_from_rfc3339(cell).is_ok(),
            other => panic!("no text form of {other}"),
        }
    }

    #[test]
    fn references_are_unique_and_ignored_by_normalisation() {
        let sellers = |ratio: f64| -> Vec<String> {
            let (folder, _) = made(|options| (options.reference_ratio, options.reject_ratio) = (ratio, 0.0));
            let logs = files(folder.path()).into_iter().filter(|(path, _)| path.starts_with("logs"));
            let text: Vec<u8> = logs.flat_map(|(_, bytes)| bytes).collect();
            let lines = str::from_utf8(&text).unwrap().lines();
            lines.map(|line| line.split('\t').nth(2).unwrap().to_string()).collect()
        };
        let (plain, third, all) = (sellers(0.0), sellers(0.333), sellers(1.0));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        let referring = plain.iter().zip(&third).filter(|(plain, third)| plain != third).count();
        assert!(referring.abs_diff(plain.len() / 3) < 1000, "{referring}");
        let name = crate::kernel::descriptor::normalize;
        assert!(plain.iter().zip(&all).step_by(97).all(|(plain, all)| name(plain) == name(all)));
    }

    #[test]
    fn files_match_their_schemas() {
        let (folder, _) = made(|options| options.reject_ratio = 0.0);
        for (file, dataset) in [
            ("sellers.csv", "seller_dictionary"),
            ("category_overrides.csv", "category_overrides"),
            ("users.csv", "users"),
            ("budget_overrides.csv", "budget_overrides"),
            ("logs/2025-01-part-0001.tsv", "transaction_log"),
        ] {
            let is_log = file.starts_with("logs");
            let mut reader = csv::ReaderBuilder::new()
                .delimiter(if is_log { b'\t' } else { b',' })
                .has_headers(!is_log)
                .quoting(!is_log)
                .from_path(folder.path().join(file))
                .unwrap();
            let columns = columns(dataset);
            if !is_log {
                let names: Vec<&str> = columns.iter().map(|column| column.0.as_str()).collect();
                assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), names, "{file}");
            }
            let mut rows = 0;
            for record in reader.records().map(Result::unwrap) {
                rows += 1;
                for (cell, (name, kind, nullable)) in record.iter().zip(&columns) {
                    let fits = if cell.is_empty() { *nullable } else { is_of_type(cell, kind) };
                    assert!(fits, "{file}: {name} is `{cell}`");
                }
            }
            assert!(rows > 10, "{file} has {rows} rows");
        }
    }

    #[test]
    fn toml_files_have_the_keys_of_their_schemas() {
        let (folder, _) = made(|_| {});
        let template = std::fs::read_to_string(folder.path().join("budget_template.toml")).unwrap();
        BudgetTemplate::parse(&template, &Categories::builtin()).unwrap();
        let categories = include_str!("../domain/categories.toml").to_string();
        for (text, list, dataset) in
            [(template, "tier", "budget_template"), (categories, "category", "categories")]
        {
            let names: BTreeSet<String> = columns(dataset).into_iter().map(|column| column.0).collect();
            let file: toml::Value = toml::from_str(&text).unwrap();
            for entry in file[list].as_array().unwrap() {
                let keys: BTreeSet<String> = entry.as_table().unwrap().keys().cloned().collect();
                assert_eq!(keys, names, "{dataset}");
            }
        }
    }

    #[test]
    fn overrides_refer_to_rows_of_the_logs() {
        let (folder, _) = made(|_| {});
        let logs = files(folder.path());
        let mut lines = BTreeSet::new();
        for (_, bytes) in logs.iter().filter(|(name, _)| name.starts_with("logs")) {
            lines.extend(String::from_utf8_lossy(bytes).lines().map(str::to_string));
        }
        let mut pairs = BTreeSet::new();
        for line in &lines {
            let fields: Vec<&str> = line.split('\t').collect();
            pairs.insert((fields[0], *fields.get(2).unwrap_or(&"")));
        }
        let mut reader = csv::Reader::from_path(folder.path().join("category_overrides.csv")).unwrap();
        let mut single = 0;
        for row in reader.records().map(Result::unwrap) {
            assert!(pairs.contains(&(&row[0], &row[1])), "{row:?}");
            assert_eq!(row[4].is_empty(), row[5].is_empty());
            if !row[4].is_empty() {
                single += 1;
                assert!(lines.contains(&format!("{}\t{}\t{}\t{}", &row[0], &row[4], &row[1], &row[5])));
            }
        }
        assert!(single > 0);
    }

    #[test]
    fn invalid_options_are_refused() {
        let refused = |change: fn(&mut Options), expected: &str| {
            let folder = tempfile::tempdir().unwrap();
            let mut options = options(&folder.path().join("new"));
            change(&mut options);
            let error = generate(&options).unwrap_err();
            assert_eq!(error.kind, crate::error::Kind::Unfit);
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!options.out.exists());
        };
        refused(|options| options.files = 0, "--files is 0; give 1 to");
        refused(|options| options.rows = 0, "--rows is 0");
        refused(|options| options.sellers = 0, "--sellers is 0");
        refused(|options| options.users = 1 << 32, "--users is 4294967296");
        refused(|options| options.rows = 3, "--files 4 is more than --rows 3");
        refused(|options| options.reject_ratio = 1.01, "--reject-ratio is 1.01");
        refused(|options| options.reject_ratio = f64::NAN, "--reject-ratio is NaN");
        refused(|options| options.reference_ratio = -0.5, "--reference-ratio is -0.5");
        refused(|options| options.months = "1999-12..2000-01".parse().unwrap(), "--months 1999-12");
        let (folder, _) = made(|options| options.rows = 100);
        let error = generate(&options(folder.path())).unwrap_err().to_string();
        assert!(error.contains("not empty; name a folder"), "{error}");
    }

    #[test]
    fn the_smallest_data_set_and_one_of_bad_rows_only_are_generated() {
        let (_folder, least) = made(|options| {
            (options.rows, options.users, options.sellers, options.files) = (1, 1, 1, 1);
            options.reject_ratio = 0.0;
        });
        assert_eq!((least.rows, least.bad_rows, least.logs.len()), (1, 0, 1));
        let (_folder, bad) = made(|options| (options.rows, options.reject_ratio) = (500, 1.0));
        assert_eq!((bad.rows, bad.bad_rows, bad.net_cents()), (500, 500, 0));
    }
}
