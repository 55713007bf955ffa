//! Whether a job could run: its file, its reference tables, its stores; writes nothing.
//!
//! In: a job file. Out: what was found, a line each.
//! Invariant: what passes here fails in a run only for what changed since.

use crate::engine::sql::{Bounds, Question, within};
use crate::error::Result;
use crate::input::plan::{self, Plan};
use crate::input::reference::{self, Reference};
use crate::job::cli::JobArgs;
use crate::job::spec::{JobKind, Spec};
use crate::kernel::categorize::Categorizer;
use crate::output::crowd;
use crate::output::lake::Lake;
use crate::{bench, deliver, query, recommend, table_job};
use std::collections::BTreeSet;

/// Checks a job. Errors with the first thing that is wrong.
pub fn run(args: &JobArgs) -> Result<String> {
    let spec = Spec::load(&args.job, &args.sets)?;
    if spec.kind == JobKind::Bench {
        return bench::check(&spec);
    }
    let lake = Lake::open(&spec.output.lake)?;
    let head = lake.head()?;
    let version = match &head {
        Some(head) => format!("version {}", head.table.version()),
        None => "not there yet; the first run creates it".to_string(),
    };
    if spec.kind == JobKind::Deliver {
        return deliver::check(&spec);
    }
    if spec.kind != JobKind::Spending {
        lake.free_for_jobs(&table_job::table_name(&spec))?;
    }
    if spec.kind == JobKind::Sql {
        let (sql, shown) = table_job::question(&spec)?;
        let question = Question::parse(&sql).map_err(|e| e.at(&shown))?;
        if head.is_some() {
            let bounds = Bounds::of(&spec.limits);
            let planned = within(&bounds, async || {
                query::answer(&lake, question, query::Sources::default(), &bounds).await.map(|_| ())
            });
            planned.map_err(|e| e.at(shown))?;
        }
        return Ok(format!("{}: fit to run\n  lake       {}: {version}\n", spec.name, lake.place.shown));
    }
    if spec.kind == JobKind::Votes {
        let categories = reference::categories(&spec.input)?;
        let table = spec.input.category_overrides.as_deref().unwrap_or_default();
        let choices = reference::choices(&spec, table, &categories)?.len();
        return Ok(format!(
            "{}: fit to run\n  lake       {}: {version}\n  reference  {choices} category overrides\n",
            spec.name, lake.place.shown
        ));
    }
    if spec.kind == JobKind::Recommend {
        let (incomes, manual) = recommend::check(&spec, head.as_ref())?;
        return Ok(format!(
            "{}: fit to run\n  lake       {}: {version}\n  reference  {incomes} incomes, {manual} budgets set by users\n",
            spec.name, lake.place.shown
        ));
    }
    let listing = plan::list(spec.input.logs.as_deref().unwrap_or_default())?;
    let reference = Reference::load(&spec, crowd::read)?;
    let ledger = head.map(|head| head.ledger).unwrap_or_default();
    let plan = Plan::new(listing, &ledger, spec.limits.rejects_max_ratio.0, &BTreeSet::new());
    let counts = Categorizer::of(&reference)?.counts();
    let layers: Vec<String> =
        counts.iter().map(|(source, count)| format!("{} {count}", source.name())).collect();
    Ok(format!(
        "{}: fit to run\n  logs       {} objects, {} of them new\n  lake       {}: {version}\n  \
         layers     {}\n  reference  {} category overrides, {} categories\n",
        spec.name,
        plan.listed,
        plan.new.len(),
        lake.place.shown,
        layers.join(", "),
        reference.choices.len(),
        reference.categories.count(),
    ))
}
