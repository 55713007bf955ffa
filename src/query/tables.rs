//! The published tables that a question is about.
//!
//! In: a lake and a question. Out: the tables that it names, each at one version, and what their parts
//! have to be.
//! Invariant: only what a question names is opened, so that what lies beside it can neither stop nor
//! slow it; who asks for a list of the tables gets those that can be opened.

use crate::engine::sql::{PublishedFile, PublishedTable, Question};
use crate::error::{Error, Result};
use crate::input::published::PartFile;
use crate::output::lake::{BUDGET_ALERTS, Lake, MONTHLY_SPENDING, REJECTS, TRANSACTIONS};
use crate::output::table::Table;
use crate::planted::Bug;
use crate::schema;
use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use std::collections::{BTreeMap, BTreeSet};

/// The tables that a run of kind `spending` publishes.
const OURS: [&str; 3] = [MONTHLY_SPENDING, BUDGET_ALERTS, TRANSACTIONS];

/// What was found of the tables of a lake.
#[derive(Default)]
pub struct Opened {
    pub tables: Vec<PublishedTable>,
    /// The names of all tables, where somebody has to be told.
    pub known: Vec<String>,
    /// Tables that were looked for and cannot be opened.
    pub unopened: usize,
}

impl Opened {
    /// Opens what a question names, as it is or as it was at a version. `elsewhere` are tables that do
    /// not lie in the lake.
    pub async fn of(
        lake: &Lake,
        question: &Question,
        as_of: Option<u64>,
        elsewhere: &[String],
    ) -> Result<Opened> {
        if let Some(version) = as_of {
            // A version that does not exist is an error, whatever the question reads.
            lake.table_as_of(MONTHLY_SPENDING, version).await?;
        }
        let mut opened = Opened::default();
        let mut is_missing = false;
        for name in question.tables.iter().filter(|name| !elsewhere.contains(name)) {
            match open(lake, name, as_of).await? {
                Some(table) => opened.tables.push(table),
                None => is_missing = true,
            }
        }
        if question.lists_tables || is_missing {
            opened.look_at_others(lake, question.lists_tables, as_of).await;
        }
        if Bug::NeighboursOpened.is_planted() && opened.unopened == 0 {
            for name in lake.table_names().await? {
                open(lake, &name, as_of).await?;
            }
        }
        Ok(opened)
    }

    /// Opens the other tables too: what cannot be opened is told, and passed over.
    async fn look_at_others(&mut self, lake: &Lake, are_listed: bool, as_of: Option<u64>) {
        let mut names: BTreeSet<String> = OURS.map(str::to_string).into();
        match lake.table_names().await {
            Ok(_) if as_of.is_some() => {}
            Ok(others) => names.extend(others),
            Err(error) => self.pass_over(are_listed, &error),
        }
        self.known.extend(self.tables.iter().map(|table| table.name.clone()));
        names.retain(|name| !self.known.contains(name));
        for name in names {
            match open(lake, &name, as_of).await {
                Ok(None) => {}
                Ok(Some(table)) => {
                    self.known.push(name);
                    self.tables.extend(are_listed.then_some(table));
                }
                Err(error) => self.pass_over(are_listed, &error),
            }
        }
        self.known.sort();
    }

    fn pass_over(&mut self, is_told: bool, error: &Error) {
        self.unopened += 1;
        if is_told {
            super::passed_over(error);
        }
    }
}

/// One table, if it is there. Tables of jobs have no version of `monthly_spending`.
async fn open(lake: &Lake, name: &str, as_of: Option<u64>) -> Result<Option<PublishedTable>> {
    let of_run = |schema: SchemaRef, sorted_by: &[&str]| {
        let sorted_by = sorted_by.iter().map(|column| column.to_string()).collect();
        let partition_column = Some("month".to_string());
        PublishedTable { name: name.to_string(), schema, partition_column, files: Vec::new(), sorted_by }
    };
    let form = match name {
        REJECTS => return rejects(lake, as_of).await,
        MONTHLY_SPENDING => of_run(schema::monthly_spending(), &["user_id", "category"]),
        BUDGET_ALERTS => of_run(schema::budget_alerts(), &[]),
        TRANSACTIONS => of_run(schema::transactions(), &[]),
        _ if as_of.is_some() || !can_be_table(name) => return Ok(None),
        _ => {
            let Some(table) = lake.table_now(name).await? else { return Ok(None) };
            let partition_column = table.partition_column();
            let form = PublishedTable { partition_column, ..unpartitioned(name, table.schema()) };
            return with_files(form, &table).map(Some);
        }
    };
    let table = match as_of {
        None => lake.table_now(name).await?,
        Some(version) => lake.table_as_of(name, version).await?,
    };
    table.map(|table| with_files(form, &table)).transpose()
}

fn with_files(form: PublishedTable, table: &Table) -> Result<PublishedTable> {
    let files = table.files()?.into_iter().map(|part| file(&form.name, part)).collect();
    Ok(PublishedTable { files, ..form })
}

/// Whether a name is that of one folder below the lake, written as stores write it.
fn can_be_table(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['_', '.'])
        && !name.contains('/')
        && Path::from(name).as_ref() == name
}

/// Finding all rejects takes every manifest there is.
async fn rejects(lake: &Lake, as_of: Option<u64>) -> Result<Option<PublishedTable>> {
    let spending = match as_of {
        None => lake.table_now(MONTHLY_SPENDING).await?,
        Some(version) => lake.table_as_of(MONTHLY_SPENDING, version).await?,
    };
    if spending.is_none() {
        return Ok(None);
    }
    let files = lake.rejects(as_of).await?.into_iter().map(|record| PublishedFile {
        path: Path::from(record.path.as_str()),
        size_bytes: record.size_bytes,
        rows: Some(record.rows),
        month: None,
        user_id_range: None,
    });
    Ok(Some(PublishedTable { files: files.collect(), ..unpartitioned(REJECTS, schema::rejects()) }))
}

fn unpartitioned(name: &str, schema: SchemaRef) -> PublishedTable {
    let (files, sorted_by) = (Vec::new(), Vec::new());
    PublishedTable { name: name.to_string(), schema, partition_column: None, files, sorted_by }
}

fn file(table: &str, part: PartFile) -> PublishedFile {
    let statistics: serde_json::Value =
        part.stats.and_then(|stats| serde_json::from_str(&stats).ok()).unwrap_or_default();
    let bound = |which: &str| statistics[which]["user_id"].as_i64();
    PublishedFile {
        path: Path::from(format!("{table}/{}", part.path)),
        size_bytes: part.size_bytes,
        rows: Some(part.rows),
        month: part.month,
        user_id_range: bound("minValues").zip(bound("maxValues")),
    }
}

/// The checksums of all parts that runs have written, by their path in the lake. Parts of the tables
/// of jobs have none.
pub async fn checksums(lake: &Lake, as_of: Option<u64>) -> Result<BTreeMap<String, String>> {
    let mut checksums = BTreeMap::new();
    let Some(spending) = lake.table_now(MONTHLY_SPENDING).await? else { return Ok(checksums) };
    for version in 1..=as_of.unwrap_or(spending.version()).min(spending.version()) {
        let Some(manifest) = lake.manifest(&spending, version).await? else { continue };
        let by_table = [&manifest.monthly_spending, &manifest.budget_alerts, &manifest.transactions];
        for (table, parts) in OURS.iter().zip(by_table) {
            let parts = parts.iter().map(|part| (format!("{table}/{}", part.path), part.sha256.clone()));
            checksums.extend(parts.map(|(path, sha256)| (Path::from(path).to_string(), sha256)));
        }
        checksums.extend(manifest.rejects.map(|record| (record.path, record.sha256)));
    }
    Ok(checksums)
}
