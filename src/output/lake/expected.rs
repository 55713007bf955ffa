//! What the manifests of all runs come to for a table that follows `monthly_spending`.
//!
//! In: the manifests, in their order. Out: the parts that the table has to hold, and those that it once
//! had to. Invariant: a month counted anew replaces its transactions; its alerts were said and stay.

use super::{FOLLOWERS, Lake, TRANSACTIONS, Told};
use crate::domain::month::Month;
use crate::error::{Error, Kind, Result};
use crate::output::manifest::{FollowerRecord, Manifest, PartRecord};
use crate::output::part::sha256;
use crate::output::table::Table;
use crate::planted::Bug;
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;

/// Manifests that are read at once.
const AT_ONCE: usize = 32;

/// A run, as far as a table that follows is concerned.
pub(super) struct Step {
    /// The version of `monthly_spending` that the run published.
    pub version: u64,
    pub run_id: String,
    pub parts: Vec<PartRecord>,
    /// The months whose parts it replaces.
    replaced: Vec<Month>,
}

impl Step {
    pub fn new(version: u64, table: &str, manifest: &Manifest) -> Step {
        let replaces = table == TRANSACTIONS && !Bug::TransactionsNotReplaced.is_planted();
        Step {
            version,
            run_id: manifest.run_id.clone(),
            parts: manifest.parts_of(table).to_vec(),
            replaced: if replaces { manifest.recounted() } else { Vec::new() },
        }
    }

    /// Whether the run replaces the parts of this month. One that wrote no parts at all kept no
    /// transactions, and leaves those that are there.
    pub fn replaces(&self, month: Option<Month>) -> bool {
        !self.parts.is_empty() && month.is_some_and(|month| self.replaced.contains(&month))
    }
}

/// The parts that a table has to hold, by path, with the version that brought them.
#[derive(Default)]
pub(super) struct Expected {
    pub parts: BTreeMap<String, (u64, Option<Month>)>,
    /// Parts that a later run has replaced.
    pub replaced: BTreeMap<String, u64>,
}

impl Expected {
    pub fn after<'s>(steps: impl Iterator<Item = &'s Step>) -> Expected {
        let mut expected = Expected::default();
        for step in steps {
            let gone = |_: &String, (_, month): &mut (u64, Option<Month>)| step.replaces(*month);
            let gone = expected.parts.extract_if(.., gone).map(|(path, _)| (path, step.version));
            expected.replaced.extend(gone);
            for part in &step.parts {
                expected.parts.insert(part.path.clone(), (step.version, part.month.parse().ok()));
            }
        }
        expected
    }
}

/// The record of a set of paths, whatever their order.
pub(super) fn record<'p>(paths: impl Iterator<Item = &'p str>) -> FollowerRecord {
    let mut paths: Vec<&str> = paths.collect();
    paths.sort_unstable();
    FollowerRecord { parts: paths.len() as u64, sha256: sha256(paths.join("\n").as_bytes()) }
}

/// What the log of `monthly_spending` knows of its runs.
pub(super) struct Runs {
    /// By the table that follows, oldest first. Where commits are gone, the runs after them.
    steps: BTreeMap<&'static str, Vec<Step>>,
    /// The newest commit that is gone: somebody has cleaned up the log.
    pub gone: Option<u64>,
}

impl Runs {
    pub fn steps(&self, table: &str) -> &[Step] {
        self.steps.get(table).map_or(&[], Vec::as_slice)
    }
}

impl Lake {
    /// All runs up to the version of `monthly_spending`, for all tables that follow.
    pub(super) async fn runs(&self, spending: &Table) -> Result<Runs> {
        let run = |version: u64| async move {
            let told = self.told(spending, version).await.map_err(lost)?;
            let steps = |manifest: &Manifest| FOLLOWERS.map(|name| Step::new(version, name, manifest));
            Ok::<_, Error>(match told {
                Told::Gone => (version, None),
                Told::NoRun => (version, Some(None)),
                Told::Run(manifest) => (version, Some(Some(steps(&manifest)))),
            })
        };
        let mut told = futures::stream::iter(1..=spending.version()).map(run).buffered(AT_ONCE);
        let mut runs = Runs { steps: BTreeMap::new(), gone: None };
        while let Some((version, steps)) = told.try_next().await? {
            match steps {
                // What was replaced can only be known from all runs after a part was written.
                None => runs = Runs { steps: BTreeMap::new(), gone: Some(version) },
                Some(steps) => {
                    for (name, step) in FOLLOWERS.into_iter().zip(steps.into_iter().flatten()) {
                        runs.steps.entry(name).or_default().push(step);
                    }
                }
            }
        }
        Ok(runs)
    }
}

/// A manifest that a commit names and that is not there.
pub(super) fn lost(error: Error) -> Error {
    match error.kind {
        Kind::NotFound => error.advise(
            "`_runs` is older than `monthly_spending`, or lacks a run: restore both from copies of one time",
        ),
        _ => error,
    }
}
