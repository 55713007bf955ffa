//! What was typed: clap and nothing else.
//!
//! In: arguments. Out: a [`Command`]. Invariant: help texts are the reference of the program.

use crate::domain::month::{Month, MonthRange};
use crate::domain::seller::Country;
use crate::job::values::Timeout;
use crate::limits::AUDIT_SHARE;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Parser, Debug)]
#[command(
    name = "pennymill",
    version,
    long_version = concat!(env!("CARGO_PKG_VERSION"), "\n\n", include_str!("../../NOTICE")),
    about = "Nightly spending pipelines: raw transaction logs to monthly spending, right to the cent"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a job: read what is new, publish, report
    Run(RunArgs),
    /// Validate a job, its reference tables and its stores; writes nothing
    Check(JobArgs),
    /// Ask a question in SQL over the published tables
    Query(QueryArgs),
    /// Show every transaction behind a monthly amount, or how a seller is understood
    Explain(ExplainArgs),
    /// List the versions of a lake, and what each changed
    History(HistoryArgs),
    /// Write the rejected lines of a run to stdout, byte for byte
    Rejects(RejectsArgs),
    /// Walk a lake from its first commit, and say whether all of it adds up
    Audit(AuditArgs),
    /// Delete what no version of the last 35 days names and is older than 7 days
    Gc(GcArgs),
    /// Measure the categorizer against what people say
    Score(ScoreArgs),
    /// Generate logs and reference tables
    Generate(GenerateArgs),
    /// Print the secret that signs webhooks to an address, for whoever receives them there. It is derived
    /// from the secret in PENNYMILL_WEBHOOK_SECRET
    WebhookSecret {
        /// As it stands in the table of contacts
        address: String,
    },
    /// Print the contract of a dataset; without a name, list them
    Schema { dataset: Option<String> },
}

#[derive(Args, Debug)]
pub struct JobArgs {
    /// The job file, such as jobs/nightly.toml
    pub job: PathBuf,
    /// Override a key of the job file: --set input.logs=s3://bucket/logs/
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub job: JobArgs,
    /// Print the plan and touch nothing
    #[arg(long, conflicts_with = "rebuild")]
    pub dry_run: bool,
    /// Recompute a month from the raw logs that were counted for it, and replace it
    #[arg(long, value_name = "MONTH")]
    pub rebuild: Option<Month>,
    /// Count an object as it is now that has changed since it was counted: its months are computed
    /// anew from all their raw logs. NAME as reports write it, or its end behind a `/`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["dry_run", "rebuild"])]
    pub restate: Vec<String>,
    /// Count an object although it says the same as another one
    #[arg(long, value_name = "NAME")]
    pub allow_duplicate: Vec<String>,
    /// Publish nothing; score what a job of kind "recommend" would have said for months that are over
    #[arg(long, value_name = "MONTHS", conflicts_with_all = ["dry_run", "rebuild"])]
    pub backtest: Option<MonthRange>,
    /// What goes to stdout
    #[arg(long, value_enum, default_value = "human")]
    pub report: ReportForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportForm {
    /// A page of text
    Human,
    /// One JSON object
    Json,
    /// A JSON array as charts of benchmarks read it (customSmallerIsBetter of
    /// github-action-benchmark); jobs of kind "bench" only
    SmallerIsBetter,
}

#[derive(Args, Debug)]
pub struct QueryArgs {
    /// The query, such as "select * from monthly_spending limit 10"
    pub sql: String,
    /// URL or path of the lake
    #[arg(long, required_unless_present = "job")]
    pub lake: Option<String>,
    /// A job file: its lake, and its raw logs as the table raw_transactions
    #[arg(long)]
    pub job: Option<PathBuf>,
    /// Override a key of the job file
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "job")]
    pub sets: Vec<String>,
    /// As it was at this version of monthly_spending; tables of other jobs are left out
    #[arg(long, value_name = "VERSION")]
    pub as_of: Option<u64>,
    /// How long it may take, such as 90s, 15m or 6h; without it, limits.timeout of the job, or 6h
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Timeout>,
    /// Hold every part that the question may read to the checksum in its manifest first
    #[arg(long)]
    pub verify: bool,
    #[arg(long, value_enum, default_value = "table")]
    pub format: QueryFormat,
}

#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// URL or path of the lake
    #[arg(long)]
    pub lake: String,
    #[arg(long, value_enum, default_value = "table")]
    pub format: QueryFormat,
}

#[derive(Args, Debug)]
pub struct RejectsArgs {
    /// URL or path of the lake
    #[arg(long)]
    pub lake: String,
    /// The run, as its report names it
    #[arg(long)]
    pub run: String,
    /// Lines as they stood; `pennymill query "select * from rejects"` has other forms
    #[arg(long, value_enum, default_value = "tsv")]
    pub format: RejectsFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RejectsFormat {
    Tsv,
}

#[derive(Args, Debug)]
pub struct AuditArgs {
    /// URL or path of the lake
    #[arg(long)]
    pub lake: String,
    /// How many of the counted objects to read again, from 0 to 1
    #[arg(long, default_value_t = AUDIT_SHARE)]
    pub share: f64,
    /// Which of them: the same for the same seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[arg(long, value_enum, default_value = "human")]
    pub report: ScoreForm,
}

#[derive(Args, Debug)]
pub struct GcArgs {
    /// URL or path of the lake
    #[arg(long)]
    pub lake: String,
    /// Say what would be deleted and delete nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The layers of the categorizer: those of a job, or all that ship with the program.
#[derive(Args, Debug)]
pub struct LayerArgs {
    /// A job file: its layers and its countries
    #[arg(long)]
    pub job: Option<PathBuf>,
    /// Override a key of the job file
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "job")]
    pub sets: Vec<String>,
    /// Where the sellers are, the weightiest first: --country gb, or --country us,gb
    #[arg(long, value_delimiter = ',')]
    pub country: Vec<Country>,
    /// The crowd's word: a table of votes, such as lake/crowd_votes
    #[arg(long)]
    pub votes: Option<String>,
}

#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// URL or path of the lake
    #[arg(long, conflicts_with = "seller")]
    pub lake: Option<String>,
    #[arg(long, requires = "month", conflicts_with = "seller")]
    pub user: Option<u64>,
    #[arg(long, requires = "user", conflicts_with = "seller")]
    pub month: Option<Month>,
    /// Only this category
    #[arg(long, requires = "user")]
    pub category: Option<String>,
    /// Every budget of the month: spent, where it came from, the alerts so far, the next threshold
    #[arg(long, requires = "user", conflicts_with = "category")]
    pub budgets: bool,
    /// As it was at this version of monthly_spending
    #[arg(long, value_name = "VERSION", requires = "user", conflicts_with = "budgets")]
    pub as_of: Option<u64>,
    /// A seller as a bank prints it, such as "SQ *BLUE BOTTLE 0123 OAKLAND CA"
    #[arg(long, required_unless_present = "user")]
    pub seller: Option<String>,
    #[command(flatten)]
    pub layers: LayerArgs,
    #[arg(long, value_enum, default_value = "table")]
    pub format: QueryFormat,
}

#[derive(Args, Debug)]
pub struct ScoreArgs {
    /// A table of seller, account and rows: what people booked
    #[arg(long)]
    pub labels: String,
    /// A table of account and acceptable_categories; without it only coverage is measured
    #[arg(long)]
    pub map: Option<String>,
    #[command(flatten)]
    pub layers: LayerArgs,
    /// How many of the worst to list
    #[arg(long, default_value_t = 20)]
    pub top: usize,
    #[arg(long, value_enum, default_value = "human")]
    pub report: ScoreForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScoreForm {
    Human,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueryFormat {
    Table,
    Csv,
    Json,
    Parquet,
}

#[derive(Args, Debug)]
pub struct GenerateArgs {
    #[arg(long)]
    pub rows: u64,
    #[arg(long)]
    pub users: u64,
    #[arg(long, default_value_t = 50_000)]
    pub sellers: u32,
    /// First and last month, such as 2025-01..2025-03
    #[arg(long)]
    pub months: MonthRange,
    #[arg(long, default_value_t = 1)]
    pub files: u32,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A folder that does not exist yet, or is empty
    #[arg(long)]
    pub out: PathBuf,
    #[arg(long, value_enum)]
    pub compress: Option<CompressForm>,
    /// Share of rows that are bad, of every kind
    #[arg(long, default_value_t = 0.0)]
    pub reject_ratio: f64,
    /// Share of rows whose seller carries a reference number that no other row has
    #[arg(long, default_value_t = 0.0)]
    pub reference_ratio: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressForm {
    Gz,
    Zst,
}
