//! The tables that follow `monthly_spending`.
//!
//! In: the manifests of its commits. Out: the parts that they name, committed to their tables.
//! Invariant: the parts of a manifest are committed once, in the order of the manifests, by whichever
//! run comes next.

use super::{APPLICATION, BUDGET_ALERTS, Lake, MONTHLY_SPENDING, TRANSACTIONS};
use crate::error::{Result, talk};
use crate::input::published::PartFile;
use crate::output::commit::Outcome;
use crate::output::manifest::{Manifest, PartRecord};
use crate::output::table::Table;
use crate::planted::Bug;
use crate::schema;
use crate::store::wait;
use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;

impl Lake {
    /// Brings the other tables up to the head. Every run does so first and last, so a run that
    /// dies in between is caught up by the next one.
    pub fn catch_up(&self) -> Result<()> {
        let Some(spending) = self.table(MONTHLY_SPENDING)? else { return Ok(()) };
        self.catch_up_table(&spending, BUDGET_ALERTS, &schema::budget_alerts(), Manifest::alert_parts)?;
        self.catch_up_table(&spending, TRANSACTIONS, &schema::transactions(), |m| &m.transactions)?;
        checkpoint(&spending);
        Ok(())
    }

    /// Commits the parts that the manifests behind the table's own `txn` version name. Every run
    /// starts from a head that is caught up, so what came before the newest run's is done.
    fn catch_up_table(
        &self,
        spending: &Table,
        name: &str,
        schema: &SchemaRef,
        parts: fn(&Manifest) -> &[PartRecord],
    ) -> Result<()> {
        let Some(newest) = self.newest_manifest(spending)? else { return Ok(()) };
        let mut table = self.table(name)?;
        let mut version = newest.opening_version;
        while version < spending.version() {
            let done = table.as_ref().map_or(Ok(None), |t| wait(t.application_version(APPLICATION)))?;
            version = (version + 1).max(done.unwrap_or(0) as u64 + 1);
            let manifest = wait(self.manifest(spending, version))?;
            let Some(manifest) = manifest.filter(|manifest| !parts(manifest).is_empty()) else { continue };
            let add: Vec<PartFile> = parts(&manifest).iter().map(PartRecord::file).collect();
            let head = self.open_or_create(name, schema, &["month"])?;
            let mut remove = Vec::new();
            // A month counted anew replaces its transactions; its alerts were said and stay said.
            let replaces = name == TRANSACTIONS && !Bug::TransactionsNotReplaced.is_planted();
            if replaces && !manifest.recounted().is_empty() {
                let recounted = manifest.recounted();
                remove = head.files()?;
                remove.retain(|part| part.month.is_some_and(|month| recounted.contains(&month)));
            }
            let info = self.info(&manifest.run_id, version, BTreeMap::new());
            if let Outcome::Lost { .. } = wait(head.commit(&add, &remove, &info))? {
                // Another run catches up as we do, with the same parts: look again.
                version -= 1;
            }
            table = self.table(name)?;
        }
        table.iter().for_each(checkpoint);
        Ok(())
    }
}

/// A checkpoint only spares readers some requests: a run does not fail for the lack of one.
pub(super) fn checkpoint(table: &Table) {
    if let Err(error) = wait(table.checkpoint_when_due()) {
        talk(format_args!("pennymill: no checkpoint was written: {error}"));
    }
}
