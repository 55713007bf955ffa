//! Reference tables: who sells what, what people chose, what they earn and plan to spend.
//!
//! In: the tables that a job names. Out: [`Reference`], ready for the categorizer and the alerts.
//! Invariant: every category code exists, every number is in range; a bad row refuses its table,
//! with its place.

use super::layers::Layers;
use super::table_rows::{
    Column, Refused, Source, for_each_line, for_each_row, optional, read_bounded, refused_line, required,
};
use crate::domain::budget::{BudgetTemplate, Budgets, ManualBudget, Overlap, spend_category};
use crate::domain::category::{Categories, CategoryId, Choice};
use crate::domain::money::parse_amount_cents;
use crate::domain::month::Month;
use crate::domain::seller::CrowdEntry;
use crate::domain::timestamp::parse_timestamp;
use crate::domain::transaction::{SELLER_BYTES_MAX, USER_ID_MAX};
use crate::domain::zone::Zone;
use crate::error::{Error, Kind, Result, shown};
use crate::job::sections::Input;
use crate::job::spec::Spec;
use crate::limits::{BUDGET_BYTES_KEPT, INCOME_BYTES_KEPT, ROW_BYTES_KEPT, TEXT_BYTES_MAX};
use crate::planted::Bug;
use crate::store::Place;

pub struct Reference {
    pub categories: Categories,
    pub layers: Layers,
    pub choices: Vec<Choice>,
    pub budgets: Budgets,
}

/// Reads the entries of a table of votes.
pub type CrowdReader = fn(&str, &Categories) -> Result<Vec<CrowdEntry>>;

/// The category set of a job: its own, or the shipped one.
pub fn categories(input: &Input) -> Result<Categories> {
    match &input.categories {
        None => Ok(Categories::builtin()),
        Some(table) => {
            let text = read_text(table)?;
            Categories::parse(&text).map_err(|what| Error::new(Kind::InputRefused, what).at(shown(table)))
        }
    }
}

/// The zone of a job over its months.
pub fn zone(spec: &Spec) -> Zone {
    let months = spec.input.months.0.0;
    Zone::new(&spec.input.time_zone.0.0, months).expect("the job file was checked")
}

impl Reference {
    /// Loads every table that the job names. Where none is named there is nothing to know.
    /// The crowd's word lies in a lake, which this room knows nothing of: `crowd` reads it.
    pub fn load(spec: &Spec, crowd: CrowdReader) -> Result<Reference> {
        let input = &spec.input;
        let categories = categories(input)?;
        let mut layers = Layers::load(spec, &categories)?;
        if let Some(table) = &input.votes {
            layers.crowd = crowd(table, &categories)?;
        }
        let choices =
            input.category_overrides.as_deref().map_or(Ok(Vec::new()), |t| choices(spec, t, &categories))?;
        let budgets = budgets(spec, &categories)?;
        Ok(Reference { categories, layers, choices, budgets })
    }
}

fn read_text(table: &str) -> Result<String> {
    let bytes = read_bounded(&Place::open(table)?, TEXT_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes);
    Ok(text.map_err(|_| Error::new(Kind::InputRefused, "not UTF-8").at(shown(table)))?.to_string())
}

/// People's own choices, in the order of their table.
pub fn choices(spec: &Spec, table: &str, categories: &Categories) -> Result<Vec<Choice>> {
    let zone = zone(spec);
    let mut choices = Vec::new();
    let columns = ["user_id", "seller", "category", "set_at"].map(required);
    let columns: Vec<Column> = columns.into_iter().chain(["timestamp", "amount"].map(optional)).collect();
    let instant = |text: &str, column| {
        let at = parse_timestamp(text.as_bytes(), &zone).map(|at| at.micros());
        at.map_err(|_| Refused(column, "not a timestamp".into()))
    };
    for_each_row(&bounded(spec, table, ROW_BYTES_KEPT), &columns, |row| {
        let transaction = match (row[4], row[5]) {
            ("", "") => None,
            (_, "") => return Err(Refused(5, "missing: a single transaction needs both".into())),
            ("", _) => return Err(Refused(4, "missing: a single transaction needs both".into())),
            (at, amount) => Some((instant(at, 4)?, cents(amount, 5)?)),
        };
        choices.push(Choice {
            user_id: user_id(row[0], 0)?,
            seller: seller(row[1], 1)?,
            category: category(row[2], 2, categories)?,
            set_at_micros: instant(row[3], 3)?,
            transaction,
        });
        Ok(())
    })?;
    Ok(choices)
}

/// A table of a job, which may take the memory of the job.
fn bounded<'t>(spec: &Spec, table: &'t str, row_bytes: u64) -> Source<'t> {
    Source::Bounded { table, row_bytes, bytes_max: spec.table_bytes_max() }
}

/// Everything that decides about budgets, by the tables that a job names.
pub fn budgets(spec: &Spec, categories: &Categories) -> Result<Budgets> {
    let input = &spec.input;
    let refuse = |table: &str, what: String| Error::new(Kind::InputRefused, what).at(shown(table));
    let template = match &input.budget_template {
        None => BudgetTemplate::default(),
        Some(table) => {
            BudgetTemplate::parse(&read_text(table)?, categories).map_err(|what| refuse(table, what))?
        }
    };
    let incomes = input.users.as_deref().map_or(Ok(Vec::new()), |table| incomes(spec, table))?;
    let manual = input.budget_overrides.as_deref();
    let manual = manual.map_or(Ok(Vec::new()), |table| manual_budgets(spec, table, categories))?;
    Budgets::new(template, incomes, manual).map_err(|Overlap { line, other }| {
        let table = input.budget_overrides.as_deref().unwrap_or_default();
        let what =
            format!("the budget holds in a month of that of line {other}, for the same user and category");
        refused_line(table, line, what)
    })
}

/// Each user's monthly income. One who stands twice is refused.
fn incomes(spec: &Spec, table: &str) -> Result<Vec<(u64, i64)>> {
    let mut users = Vec::new();
    let columns = [required("user_id"), required("monthly_income")];
    for_each_line(&bounded(spec, table, INCOME_BYTES_KEPT), &columns, |line, row| {
        let user = user_id(row[0], 0)?;
        // Without an income there is no template budget, which is not a budget of zero.
        let income = if row[1].is_empty() { None } else { Some(not_negative(row[1], 1)?) };
        users.push((user, line, income));
        Ok(())
    })?;
    users.sort_unstable();
    if let Some(pair) = users.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(refused_line(
            table,
            pair[1].1,
            format!("the user of line {} stands here again", pair[0].1),
        ));
    }
    Ok(users.into_iter().filter_map(|(user, _, income)| Some((user, income?))).collect())
}

/// The users who were last active at this instant or later, in their order; none where the table
/// does not say when users were active.
pub fn active_users(spec: &Spec, table: &str, since_micros: i64) -> Result<Option<Vec<u64>>> {
    let (zone, mut active, mut says_so) = (zone(spec), Vec::new(), false);
    let columns = [required("user_id"), optional("last_active_at")];
    for_each_row(&bounded(spec, table, INCOME_BYTES_KEPT), &columns, |row| {
        // A user without an instant was never seen.
        if !row[1].is_empty() {
            says_so = true;
            let user = user_id(row[0], 0)?;
            let at = parse_timestamp(row[1].as_bytes(), &zone);
            let at = at.map_err(|_| Refused(1, "not a timestamp".into()))?;
            if at.micros() >= since_micros {
                active.push(user);
            }
        }
        Ok(())
    })?;
    active.sort_unstable();
    Ok(says_so.then_some(active))
}

fn manual_budgets(spec: &Spec, table: &str, categories: &Categories) -> Result<Vec<ManualBudget>> {
    let mut budgets = Vec::new();
    let columns = ["user_id", "category", "amount"].map(required);
    let columns: Vec<Column> = columns.into_iter().chain(["from_month", "to_month"].map(optional)).collect();
    let month = |text: &str, column| match text {
        "" => Ok(None),
        text => text
            .parse::<Month>()
            .map(Some)
            .map_err(|_| Refused(column, "not a month, such as 2025-01".into())),
    };
    for_each_line(&bounded(spec, table, BUDGET_BYTES_KEPT), &columns, |line, row| {
        let (from_month, to_month) = (month(row[3], 3)?, month(row[4], 4)?);
        if from_month.is_some_and(|from| to_month.is_some_and(|to| to < from)) {
            return Err(Refused(4, "before from_month".into()));
        }
        budgets.push(ManualBudget {
            user_id: user_id(row[0], 0)?,
            category: spend_category(categories, row[1]).map_err(|what| Refused(1, what))?,
            from_month,
            to_month,
            amount_cents: not_negative(row[2], 2)?,
            line,
        });
        Ok(())
    })?;
    Ok(budgets)
}

pub(super) fn user_id(text: &str, column: usize) -> Result<u64, Refused> {
    let id = text.parse::<u64>().ok().filter(|id| *id <= USER_ID_MAX);
    id.ok_or_else(|| Refused(column, "not a user id of 0 to 2^63 − 1".into()))
}

/// A seller as a log may print it: no other can ever be met.
pub(super) fn seller(text: &str, column: usize) -> Result<String, Refused> {
    match text.len() {
        1..=SELLER_BYTES_MAX => Ok(text.to_string()),
        0 => Err(Refused(column, "empty".into())),
        _ => Err(Refused(column, format!("longer than {SELLER_BYTES_MAX} bytes"))),
    }
}

/// The category of a code.
pub(super) fn category(code: &str, column: usize, categories: &Categories) -> Result<CategoryId, Refused> {
    let id = categories.id(code);
    id.ok_or_else(|| {
        if Bug::CellInMessage.is_planted() {
            return Refused(column, format!("{code} is not a category"));
        }
        Refused(column, categories.unknown())
    })
}

/// Cents of an amount, which may be negative.
pub(super) fn cents(text: &str, column: usize) -> Result<i64, Refused> {
    let parsed = parse_amount_cents(text.as_bytes());
    parsed.map_err(|_| Refused(column, "not an amount of at most two decimals, such as 12.30".into()))
}

fn not_negative(text: &str, column: usize) -> Result<i64, Refused> {
    match cents(text, column)? {
        amount if amount < 0 => Err(Refused(column, "less than zero".into())),
        amount => Ok(amount),
    }
}
