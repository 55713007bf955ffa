//! A lake as it was.
//!
//! In: a version of `monthly_spending`. Out: its tables, its head and its rejects as of then.
//! Invariant: what came later is not seen; a version that is not there is an error.

use super::{APPLICATION, Head, Lake, MONTHLY_SPENDING};
use crate::error::{Error, Kind, Result};
use crate::output::manifest::FileRecord;
use crate::output::table::Table;
use crate::store::wait;

impl Lake {
    /// A version of a table. Errors when there is no such version.
    pub async fn table_at(&self, table: &Table, version: u64) -> Result<Table> {
        let found = Table::open_at(&self.store, table.name(), version).await;
        let found = found.map_err(|e| e.below(&self.place.shown))?;
        found.ok_or_else(|| {
            let what = format!("{} has no version {version}", table.name());
            Error::new(Kind::NotFound, what).at(&self.place.shown).advise("`pennymill history` lists them")
        })
    }

    /// A table as it was when `monthly_spending` had this version: the newest version, of those that
    /// follow it, that was made for it or for one before it.
    pub async fn table_as_of(&self, name: &str, version: u64) -> Result<Option<Table>> {
        let Some(newest) = self.table_now(name).await? else { return Ok(None) };
        if name == MONTHLY_SPENDING {
            return self.table_at(&newest, version).await.map(Some);
        }
        // Versions of the application rise with those of the table.
        let (mut fits, mut beyond) = (0, newest.version() + 1);
        while fits + 1 < beyond {
            let middle = fits + (beyond - fits) / 2;
            let table = self.table_at(&newest, middle).await?;
            match table.application_version(APPLICATION).await? {
                Some(done) if done as u64 > version => beyond = middle,
                _ => fits = middle,
            }
        }
        self.table_at(&newest, fits).await.map(Some)
    }

    /// The head as it is, or as it was at a version. Errors when nothing was published.
    pub fn published_head(&self, version: Option<u64>) -> Result<Head> {
        let newest = self.published(MONTHLY_SPENDING)?;
        match version {
            Some(version) => self.head_of(wait(self.table_at(&newest, version))?),
            None => self.head_of(newest),
        }
    }

    /// All rejects that committed runs have published up to a version, newest first.
    pub async fn rejects(&self, as_of: Option<u64>) -> Result<Vec<FileRecord>> {
        let Some(table) = self.table_now(MONTHLY_SPENDING).await? else { return Ok(Vec::new()) };
        let mut rejects = Vec::new();
        for version in (1..=as_of.unwrap_or(table.version())).rev() {
            rejects.extend(self.manifest(&table, version).await?.and_then(|manifest| manifest.rejects));
        }
        Ok(rejects)
    }
}
