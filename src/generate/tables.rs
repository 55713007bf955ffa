//! The reference tables of the logs.
//!
//! In: the recipe, and rows picked from the logs. Out: CSV and TOML files in the formats of
//! `schemas/`.
//! Invariant: every category override refers to a row of the logs; incomes and budgets are in
//! proportion to spending.

use super::Options;
use super::files::{OutputFile, Written};
use super::profile::{PARTS, PROFILES, Profile};
use super::random::{Purpose, Random};
use super::rows::{Picked, Recipe};
use crate::domain::money::format_cents;
use crate::domain::month::Month;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::io::Write;

const BUDGET_TEMPLATE: &str = include_str!("budget_template.toml");

const TIME_ZONES: [&str; 8] = [
    "UTC",
    "Europe/London",
    "Europe/Berlin",
    "America/New_York",
    "America/Los_Angeles",
    "America/Sao_Paulo",
    "Asia/Kolkata",
    "Australia/Sydney",
];

/// Categories for which users set manual budgets.
const BUDGETED: [&str; 7] =
    ["groceries", "dining", "gas", "transport", "shopping", "entertainment", "health"];

/// Writes all tables. Returns the files in the order of their names.
pub fn write_tables(options: &Options, recipe: &Recipe, picked: &[Picked]) -> Result<Vec<Written>> {
    Ok(vec![
        write_budget_overrides(options, recipe)?,
        write_budget_template(options)?,
        write_category_overrides(options, recipe, picked)?,
        write_sellers(options, recipe)?,
        write_users(options, recipe)?,
    ])
}

/// A CSV file with its header, and the number of rows after it.
struct Table {
    csv: csv::Writer<OutputFile>,
    place: String,
    rows: u64,
}

impl Table {
    fn create(options: &Options, name: &str, columns: &[&str]) -> Result<Table> {
        let place = options.out.join(name).display().to_string();
        let csv = csv::Writer::from_writer(OutputFile::create(&options.out, name)?);
        let mut table = Table { csv, place, rows: 0 };
        table.write(columns)?;
        Ok(table)
    }

    fn add<T: AsRef<[u8]>>(&mut self, fields: &[T]) -> Result<()> {
        self.rows += 1;
        self.write(fields)
    }

    fn write<T: AsRef<[u8]>>(&mut self, fields: &[T]) -> Result<()> {
        self.csv.write_record(fields).map_err(|e| Error::from(std::io::Error::from(e)).at(&self.place))
    }

    fn finish(self) -> Result<Written> {
        let inner = self.csv.into_inner();
        let file = inner.map_err(|e| Error::from(e.into_error()).at(&self.place))?;
        Ok(file.finish(self.rows))
    }
}

fn write_sellers(options: &Options, recipe: &Recipe) -> Result<Written> {
    let mut table = Table::create(options, "sellers.csv", &["seller", "category", "country"])?;
    recipe.market.dictionary().try_for_each(|seller| table.add(&seller))?;
    table.finish()
}

/// One user in a hundred is missing, one in ten has no last activity, two in five have a time zone.
fn write_users(options: &Options, recipe: &Recipe) -> Result<Written> {
    let columns = ["user_id", "monthly_income", "last_active_at", "time_zone"];
    let mut table = Table::create(options, "users.csv", &columns)?;
    let per_purchase = mean_purchase_cents(recipe);
    for slot in 0..recipe.users.count() {
        let mut random = recipe.users.stream(Purpose::Users, slot);
        if random.once_in(100) {
            continue;
        }
        let purchases = purchases_per_month(options, recipe, slot);
        // The fewer the purchases, the more the months vary: a margin that grows with their square
        // root keeps budgets from being exceeded by chance alone.
        let needed = (purchases + 5.0 * purchases.sqrt()) * per_purchase;
        let income = rounded(needed * between(&mut random, 1.0, 1.5), 1000);
        let last_active_at = match random.once_in(10) {
            true => String::new(),
            false => {
                let days = recipe.calendar.days();
                let day = days - 1 - random.below(days.min(30));
                recipe.calendar.timestamp(day, random.below(86_400))
            }
        };
        let time_zone = match random.below(5) {
            0 | 1 => *random.one_of(&TIME_ZONES),
            _ => "",
        };
        let id = recipe.users.id(slot).to_string();
        table.add(&[&id, &format_cents(income), &last_active_at, time_zone])?;
    }
    table.finish()
}

/// One user in twenty-five has one to three manual budgets; some change in the last month or apply
/// to a single month.
fn write_budget_overrides(options: &Options, recipe: &Recipe) -> Result<Written> {
    let columns = ["user_id", "category", "amount", "from_month", "to_month"];
    let mut table = Table::create(options, "budget_overrides.csv", &columns)?;
    for slot in 0..recipe.users.count() {
        let mut random = recipe.users.stream(Purpose::Budgets, slot);
        if !random.once_in(25) {
            continue;
        }
        let id = recipe.users.id(slot).to_string();
        let first = random.below(BUDGETED.len() as u64) as usize;
        for step in 0..=random.below(3) as usize {
            let category = BUDGETED[(first + step) % BUDGETED.len()];
            let expected = purchases_per_month(options, recipe, slot) * per_month(recipe, category);
            let budget = rounded(expected * between(&mut random, 1.2, 3.0), 500);
            match random.below(10) {
                0..=5 => table.add(&[id.as_str(), category, &format_cents(budget), "", ""])?,
                kind @ 6..=8 => {
                    let month = any_month(options, &mut random).to_string();
                    let last = if kind == 8 { month.as_str() } else { "" };
                    table.add(&[id.as_str(), category, &format_cents(budget), &month, last])?;
                }
                _ => {
                    let last = options.months.last.to_string();
                    table.add(&[id.as_str(), category, &format_cents(budget), "", ""])?;
                    table.add(&[id.as_str(), category, &format_cents(budget * 3 / 2), &last, ""])?;
                }
            }
        }
    }
    table.finish()
}

/// Three in four picked rows set a category for their user and seller, the others only for that
/// transaction. Each pair of user and seller occurs once.
fn write_category_overrides(options: &Options, recipe: &Recipe, picked: &[Picked]) -> Result<Written> {
    let columns = ["user_id", "seller", "category", "set_at", "timestamp", "amount"];
    let mut table = Table::create(options, "category_overrides.csv", &columns)?;
    let mut met = BTreeSet::new();
    for (number, pick) in picked.iter().enumerate() {
        if !met.insert((pick.user_id, pick.seller.as_str())) {
            continue;
        }
        let mut random = Random::stream(options.seed, Purpose::Overrides, number as u64);
        let category = other_category(pick.profile, &mut random);
        let day = (pick.day + random.below(6)).min(recipe.calendar.days() - 1);
        let set_at = recipe.calendar.timestamp(day, 86_399 - random.below(3600));
        let (timestamp, cents) = match number % 4 == 3 {
            true => (pick.timestamp.as_str(), format_cents(pick.cents.into())),
            false => ("", String::new()),
        };
        let id = pick.user_id.to_string();
        table.add(&[id.as_str(), &pick.seller, category, &set_at, timestamp, &cents])?;
    }
    table.finish()
}

fn write_budget_template(options: &Options) -> Result<Written> {
    let name = "budget_template.toml";
    let mut file = OutputFile::create(&options.out, name)?;
    let place = options.out.join(name);
    let written = file.write_all(BUDGET_TEMPLATE.as_bytes());
    written.map_err(|e| Error::from(e).at(place.display()))?;
    Ok(file.finish(BUDGET_TEMPLATE.matches("[[tier]]").count() as u64))
}

/// A common category that differs from the dictionary's.
fn other_category(profile: usize, random: &mut Random) -> &'static str {
    let category = *random.one_of(&BUDGETED);
    if category == PROFILES[profile].code { "personal_care" } else { category }
}

fn any_month(options: &Options, random: &mut Random) -> Month {
    let months = options.months;
    let later = random.below(u64::from(months.count())) as u32;
    months.first.plus(later).unwrap_or(months.last)
}

/// The average number of this user's rows per month.
fn purchases_per_month(options: &Options, recipe: &Recipe, slot: u64) -> f64 {
    options.rows as f64 / f64::from(options.months.count()) * recipe.users.share(slot)
}

/// The average amount that a row adds to spending, in cents.
fn mean_purchase_cents(recipe: &Recipe) -> f64 {
    let spending = PROFILES.iter().enumerate().filter(|(_, profile)| !profile.pays_in);
    spending.map(|(number, profile)| part_of_rows(profile) * recipe.amounts.mean_cents(number)).sum()
}

/// The average amount that a row adds to the spending of one category, in cents.
fn per_month(recipe: &Recipe, category: &str) -> f64 {
    let all = PROFILES.iter().enumerate().filter(|(_, profile)| profile.code == category);
    all.map(|(number, profile)| part_of_rows(profile) * recipe.amounts.mean_cents(number)).sum()
}

fn part_of_rows(profile: &Profile) -> f64 {
    profile.rows as f64 / PARTS as f64
}

fn between(random: &mut Random, low: f64, high: f64) -> f64 {
    low + (high - low) * (random.below(1 << 32) as f64 / (1u64 << 32) as f64)
}

/// The nearest multiple of `step`, in cents; at least one step.
fn rounded(cents: f64, step: i128) -> i128 {
    ((cents / step as f64).round() as i128).max(1) * step
}
