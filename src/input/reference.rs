//! Reference tables: who sells what, what people chose, what they earn and plan to spend.
//!
//! In: the tables that a job names. Out: [`Reference`], ready for the categorizer and the alerts.
//! Invariant: every category code exists, every number is in range; a bad row refuses its table,
//! with its place.

use super::table_rows::{Column, Refused, for_each_row};
use crate::domain::budget::{BudgetTemplate, Budgets, ManualBudget, spend_category};
use crate::domain::category::{Categories, CategoryId, Choice};
use crate::domain::money::parse_amount_cents;
use crate::domain::month::Month;
use crate::domain::timestamp::parse_timestamp;
use crate::domain::transaction::USER_ID_MAX;
use crate::domain::zone::Zone;
use crate::error::{Error, Kind, Result};
use crate::job::spec::{Input, Spec};
use crate::store::Place;

pub struct Reference {
    pub categories: Categories,
    /// (seller, category) in the order of the dictionary.
    pub sellers: Vec<(String, CategoryId)>,
    pub choices: Vec<Choice>,
    pub budgets: Budgets,
}

/// The category set of a job: its own, or the shipped one.
pub fn categories(input: &Input) -> Result<Categories> {
    match &input.categories {
        None => Ok(Categories::builtin()),
        Some(table) => {
            let text = read_text(table)?;
            Categories::parse(&text).map_err(|what| Error::new(Kind::InputRefused, what).at(table))
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
    pub fn load(spec: &Spec) -> Result<Reference> {
        let input = &spec.input;
        let categories = categories(input)?;
        let zone = zone(spec);
        let sellers = input.sellers.as_deref().map_or(Ok(Vec::new()), |t| sellers(t, &categories))?;
        let choices =
            input.category_overrides.as_deref().map_or(Ok(Vec::new()), |t| choices(t, &categories, &zone))?;
        let budgets = budgets(input, &categories)?;
        Ok(Reference { categories, sellers, choices, budgets })
    }
}

fn read_text(table: &str) -> Result<String> {
    let bytes = Place::open(table)?.read().map_err(|error| match error.kind {
        Kind::NotFound => Error::new(Kind::NotFound, "there is no such reference table").at(table),
        _ => error,
    })?;
    let text = std::str::from_utf8(&bytes);
    Ok(text.map_err(|_| Error::new(Kind::InputRefused, "not UTF-8").at(table))?.to_string())
}

const fn required(name: &'static str) -> Column {
    Column { name, required: true }
}

const fn optional(name: &'static str) -> Column {
    Column { name, required: false }
}

fn sellers(table: &str, categories: &Categories) -> Result<Vec<(String, CategoryId)>> {
    let mut sellers = Vec::new();
    let columns = [required("seller"), required("category")];
    for_each_row(table, &columns, |row| {
        if row[0].is_empty() {
            return Err(Refused(0, "empty".into()));
        }
        sellers.push((row[0].to_string(), category(row[1], 1, categories)?));
        Ok(())
    })?;
    Ok(sellers)
}

fn choices(table: &str, categories: &Categories, zone: &Zone) -> Result<Vec<Choice>> {
    let mut choices = Vec::new();
    let columns = ["user_id", "seller", "category", "set_at"].map(required);
    let columns: Vec<Column> = columns.into_iter().chain(["timestamp", "amount"].map(optional)).collect();
    let instant = |text: &str, column| {
        let at = parse_timestamp(text.as_bytes(), zone).map(|at| at.micros());
        at.map_err(|_| Refused(column, "not a timestamp".into()))
    };
    for_each_row(table, &columns, |row| {
        let transaction = match (row[4], row[5]) {
            ("", "") => None,
            (_, "") => return Err(Refused(5, "missing: a single transaction needs both".into())),
            ("", _) => return Err(Refused(4, "missing: a single transaction needs both".into())),
            (at, amount) => Some((instant(at, 4)?, cents(amount, 5)?)),
        };
        if row[1].is_empty() {
            return Err(Refused(1, "empty".into()));
        }
        choices.push(Choice {
            user_id: user_id(row[0], 0)?,
            seller: row[1].to_string(),
            category: category(row[2], 2, categories)?,
            set_at_micros: instant(row[3], 3)?,
            transaction,
        });
        Ok(())
    })?;
    Ok(choices)
}

fn budgets(input: &Input, categories: &Categories) -> Result<Budgets> {
    let refuse = |table: &str, what: String| Error::new(Kind::InputRefused, what).at(table);
    let template = match &input.budget_template {
        None => BudgetTemplate::default(),
        Some(table) => {
            BudgetTemplate::parse(&read_text(table)?, categories).map_err(|what| refuse(table, what))?
        }
    };
    let incomes = input.users.as_deref().map_or(Ok(Vec::new()), incomes)?;
    let manual =
        input.budget_overrides.as_deref().map_or(Ok(Vec::new()), |t| manual_budgets(t, categories))?;
    let tables = [&input.users, &input.budget_overrides].into_iter().flatten();
    let tables: Vec<&str> = tables.map(String::as_str).collect();
    Budgets::new(template, incomes, manual).map_err(|what| refuse(&tables.join(" or "), what.into()))
}

fn incomes(table: &str) -> Result<Vec<(u64, i64)>> {
    let mut incomes = Vec::new();
    let columns = [required("user_id"), required("monthly_income")];
    for_each_row(table, &columns, |row| {
        let user = user_id(row[0], 0)?;
        // Without an income there is no template budget, which is not a budget of zero.
        if !row[1].is_empty() {
            incomes.push((user, not_negative(row[1], 1)?));
        }
        Ok(())
    })?;
    Ok(incomes)
}

fn manual_budgets(table: &str, categories: &Categories) -> Result<Vec<ManualBudget>> {
    let mut budgets = Vec::new();
    let columns = [required("user_id"), required("category"), required("amount"), optional("from_month")];
    for_each_row(table, &columns, |row| {
        let from_month = match row[3] {
            "" => None,
            text => {
                Some(text.parse::<Month>().map_err(|_| Refused(3, "not a month, such as 2025-01".into()))?)
            }
        };
        budgets.push(ManualBudget {
            user_id: user_id(row[0], 0)?,
            category: spend_category(categories, row[1]).map_err(|what| Refused(1, what))?,
            from_month,
            amount_cents: not_negative(row[2], 2)?,
        });
        Ok(())
    })?;
    Ok(budgets)
}

fn user_id(text: &str, column: usize) -> Result<u64, Refused> {
    let id = text.parse::<u64>().ok().filter(|id| *id <= USER_ID_MAX);
    id.ok_or_else(|| Refused(column, "not a user id of 0 to 2^63 − 1".into()))
}

fn category(code: &str, column: usize, categories: &Categories) -> Result<CategoryId, Refused> {
    let id = categories.id(code);
    id.ok_or_else(|| {
        let known: Vec<&str> = categories.codes().collect();
        Refused(column, format!("not a category; the categories are: {}", known.join(", ")))
    })
}

fn cents(text: &str, column: usize) -> Result<i64, Refused> {
    let parsed = parse_amount_cents(text.as_bytes());
    parsed.map_err(|_| Refused(column, "not an amount of at most two decimals, such as 12.30".into()))
}

fn not_negative(text: &str, column: usize) -> Result<i64, Refused> {
    match cents(text, column)? {
        amount if amount < 0 => Err(Refused(column, "less than zero".into())),
        amount => Ok(amount),
    }
}
