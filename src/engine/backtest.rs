//! How well recommendations would have done in months that are over.
//!
//! In: published months. Out: for each rule, how often spending stayed within what it says, and by
//! how much it was above and below.
//! Invariant: all rules are held to the same users, categories and months, and none sees the month
//! it is held to.

use super::recommending::{RecommendRule, UserByUser, has_history, spending, spent_cents};
use crate::domain::budget::{BudgetWalk, Budgets};
use crate::domain::category::Categories;
use crate::domain::month::Month;
use crate::domain::recommend::{Basis, HISTORY_MONTHS_MAX};
use crate::domain::spend::Spend;
use crate::error::Result;
use crate::input::published::{PublishedPart, Users, read_users};

/// The rules that are compared, ours first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Recommended,
    Template,
    LastMonth,
    Mean,
}

impl Rule {
    pub const ALL: [Rule; 4] = [Rule::Recommended, Rule::Template, Rule::LastMonth, Rule::Mean];

    pub fn name(self) -> &'static str {
        match self {
            Rule::Recommended => "recommended",
            Rule::Template => "template only",
            Rule::LastMonth => "last month",
            Rule::Mean => "mean of all months",
        }
    }
}

/// Sums over pairs of amounts and what was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub pairs: u64,
    /// Where spending was no more than the amount.
    pub within: u64,
    /// By how much spending was above the amount, in all pairs together.
    pub above_cents: i128,
    /// By how much it was below.
    pub below_cents: i128,
}

impl Tally {
    fn add(&mut self, amount_cents: i128, spent_cents: i128) {
        self.pairs += 1;
        self.within += u64::from(spent_cents <= amount_cents);
        self.above_cents += (spent_cents - amount_cents).max(0);
        self.below_cents += (amount_cents - spent_cents).max(0);
    }

    fn plus(self, other: Tally) -> Tally {
        Tally {
            pairs: self.pairs + other.pairs,
            within: self.within + other.within,
            above_cents: self.above_cents + other.above_cents,
            below_cents: self.below_cents + other.below_cents,
        }
    }
}

/// How one rule did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleScore {
    /// Of single categories of a user and month.
    pub categories: Tally,
    /// Of all categories of a user and month together.
    pub totals: Tally,
}

/// How all rules did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// By [`Rule::ALL`]: users with an income and a history.
    pub with_income: [RuleScore; 4],
    /// The same without [`Rule::Template`], which stays empty: users with a history alone.
    pub without_income: [RuleScore; 4],
    /// Active users with fewer than three months of history, by month.
    pub without_history: u64,
}

impl Score {
    pub fn plus(&self, other: &Score) -> Score {
        let add = |one: &[RuleScore; 4], other: &[RuleScore; 4]| {
            std::array::from_fn(|rule| RuleScore {
                categories: one[rule].categories.plus(other[rule].categories),
                totals: one[rule].totals.plus(other[rule].totals),
            })
        };
        Score {
            with_income: add(&self.with_income, &other.with_income),
            without_income: add(&self.without_income, &other.without_income),
            without_history: self.without_history + other.without_history,
        }
    }
}

/// What a backtest looks at.
pub struct Backtest<'a> {
    /// The months that are scored: published ones that are over.
    pub months: Vec<Month>,
    /// All published months up to the last one that is scored, oldest first.
    pub published: Vec<(Month, Vec<PublishedPart>)>,
    pub budgets: &'a Budgets,
    pub categories: &'a Categories,
    pub savings_millionths: i64,
}

impl Backtest<'_> {
    /// Scores some users.
    pub fn of(&self, users: &Users) -> Result<Score> {
        let mut score = Score::default();
        let groups = self
            .published
            .iter()
            .map(|(month, parts)| Ok((*month, read_users(parts, users, self.categories)?)));
        let groups: Vec<(Month, Vec<Spend>)> = groups.collect::<Result<_>>()?;
        for &month in &self.months {
            self.score_month(month, users, &groups, &mut score);
        }
        Ok(score)
    }

    fn score_month(&self, month: Month, users: &Users, groups: &[(Month, Vec<Spend>)], score: &mut Score) {
        let users_of = |wanted: &dyn Fn(Month) -> bool| -> Vec<(Month, UserByUser)> {
            let months = groups.iter().filter(|(month, _)| wanted(*month));
            months.map(|(month, groups)| (*month, UserByUser::new(groups))).collect()
        };
        let (mut before, mut actual) =
            (users_of(&|earlier| earlier < month), users_of(&|same| same == month));
        // Active is who bought something in the month before.
        let last = groups.iter().filter(|(earlier, _)| earlier.plus(1) == Some(month));
        let mut active: Vec<u64> = last.flat_map(|(_, groups)| groups.iter().map(|g| g.user_id)).collect();
        active.dedup();
        let mut walk = self.budgets.walk(*users.start());
        for user_id in active {
            walk.move_to(user_id);
            let before = before.iter_mut().map(|(earlier, groups)| (*earlier, groups.of(user_id)));
            let before: Vec<(Month, &[Spend])> = before.filter(|(_, groups)| !groups.is_empty()).collect();
            let is_recent =
                |earlier: Month| month.since(earlier).is_some_and(|ago| ago as usize <= HISTORY_MONTHS_MAX);
            let recent = before.iter().filter(|(earlier, _)| is_recent(*earlier));
            let past = Past {
                window: recent.map(|(_, groups)| *groups).collect(),
                all: before.iter().map(|(_, groups)| *groups).collect(),
            };
            let actual = actual.first_mut().map_or(&[][..], |(_, groups)| groups.of(user_id));
            match has_history(&past.window) {
                true => self.score_user((user_id, month), &past, actual, &walk, score),
                false => score.without_history += 1,
            }
        }
    }

    fn score_user(
        &self,
        (user_id, month): (u64, Month),
        past: &Past,
        actual: &[Spend],
        walk: &BudgetWalk,
        score: &mut Score,
    ) {
        let Backtest { categories, savings_millionths, .. } = *self;
        let rule = RecommendRule { month, categories, savings_millionths };
        let recommended = rule.recommend(user_id, &past.window, walk);
        let scores = match walk.income_cents() {
            Some(_) => &mut score.with_income,
            None => &mut score.without_income,
        };
        let mut totals = [(0i128, 0i128); 4];
        for category in spending(self.categories) {
            let ours = recommended.iter().find(|recommended| recommended.category == category);
            let is_manual = ours.is_some_and(|recommended| recommended.basis == Basis::Manual);
            let spent = i128::from(spent_cents(actual, category).max(0));
            let was_seen = past.window.iter().any(|groups| spent_cents(groups, category) != 0);
            if is_manual || (spent == 0 && !was_seen) {
                continue;
            }
            let sum: i128 = past.all.iter().map(|groups| i128::from(spent_cents(groups, category))).sum();
            let last = past.window.last().map_or(0, |groups| spent_cents(groups, category));
            let amounts = [
                ours.map_or(0, |recommended| i128::from(recommended.amount_cents)),
                walk.template_cents(category).map_or(0, i128::from),
                i128::from(last.max(0)),
                sum.max(0) / past.all.len() as i128,
            ];
            for ((rule, total), amount) in scores.iter_mut().zip(&mut totals).zip(amounts) {
                rule.categories.add(amount, spent);
                *total = (total.0 + amount, total.1 + spent);
            }
        }
        for (rule, (amount, spent)) in scores.iter_mut().zip(totals) {
            if amount > 0 || spent > 0 {
                rule.totals.add(amount, spent);
            }
        }
    }
}

/// A user's months with transactions, oldest first: those that a recommendation looks at, and all.
struct Past<'g> {
    window: Vec<&'g [Spend]>,
    all: Vec<&'g [Spend]>,
}
