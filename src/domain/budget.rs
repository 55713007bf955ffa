//! Budgets: the manual one if set, else income × the share of the income tier.
//!
//! In: a template, incomes, manual budgets. Out: the budget of one user, category and month.
//! Invariant: a template's shares add up to at most 1; at most one manual budget applies per user,
//! category and month; no budget differs from a zero budget.

use super::category::{Categories, CategoryId, CategoryKind};
use super::money::parse_amount_cents;
use super::month::Month;
use crate::error::Misread;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Shares and thresholds are exact millionths.
pub const MILLION: i64 = 1_000_000;

const TIERS_MAX: usize = 1000;

/// Where a budget came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetSource {
    /// Set by the user.
    Manual,
    /// Income × share of the income tier.
    Template,
}

impl BudgetSource {
    pub const ALL: [BudgetSource; 2] = [BudgetSource::Manual, BudgetSource::Template];

    pub fn name(self) -> &'static str {
        match self {
            BudgetSource::Manual => "manual",
            BudgetSource::Template => "template",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub amount_cents: i64,
    /// The part of the amount carried over from earlier months.
    pub rolled_over_cents: i64,
    pub source: BudgetSource,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateFile {
    tier: Vec<TierFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierFile {
    /// For people.
    #[allow(dead_code, reason = "whoever reads the file reads it")]
    name: String,
    income_from: String,
    shares: BTreeMap<String, f64>,
}

/// Income tiers, each with the share of income per category.
#[derive(Clone, Debug, Default)]
pub struct BudgetTemplate {
    /// Ascending by lower income limit in cents; shares in millionths by category number.
    tiers: Vec<(i64, Vec<Option<i64>>)>,
}

impl BudgetTemplate {
    /// Reads `[[tier]] name, income_from, shares`. Errors name the tier by its place in the file.
    pub fn parse(text: &str, categories: &Categories) -> Result<BudgetTemplate, String> {
        let file: TemplateFile = toml::from_str(text).map_err(|e| Misread::from(e).within(text))?;
        if file.tier.len() > TIERS_MAX {
            return Err(format!("{} tiers; the most is {TIERS_MAX}", file.tier.len()));
        }
        let mut tiers = Vec::new();
        for (index, tier) in file.tier.iter().enumerate() {
            let refuse = |what: &str| format!("tier {}: {what}", index + 1);
            let from_cents = parse_amount_cents(tier.income_from.as_bytes())
                .map_err(|_| refuse("income_from is not an amount"))?;
            let mut shares = vec![None; categories.count()];
            for (code, share) in &tier.shares {
                let id = spend_category(categories, code).map_err(|e| refuse(&e))?;
                let millionths = millionths(*share).ok_or_else(|| {
                    refuse(&format!("the share of `{code}` is not between 0 and 1 with at most 6 decimals"))
                })?;
                shares[usize::from(id.0)] = Some(millionths);
            }
            if shares.iter().flatten().sum::<i64>() > MILLION {
                return Err(refuse("the shares add up to more than 1"));
            }
            tiers.push((from_cents, shares));
        }
        tiers.sort_by_key(|tier| tier.0);
        if tiers.windows(2).any(|w| w[0].0 == w[1].0) {
            return Err("two tiers begin at the same income".into());
        }
        Ok(BudgetTemplate { tiers })
    }

    /// Income × share, rounded half up to the cent; `None` without a tier or a share.
    pub fn budget_cents(&self, income_cents: i64, category: CategoryId) -> Option<i64> {
        let above = self.tiers.partition_point(|tier| tier.0 <= income_cents);
        let share = self.tiers.get(above.checked_sub(1)?)?.1[usize::from(category.0)]?;
        let product = i128::from(income_cents) * i128::from(share);
        let rounded = (product + i128::from(MILLION / 2)).div_euclid(i128::from(MILLION));
        Some(i64::try_from(rounded).expect("a share of an income is at most the income"))
    }
}

/// The id of a category that can have a budget. Errors: unknown code, or not a spending category.
pub fn spend_category(categories: &Categories, code: &str) -> Result<CategoryId, String> {
    let id = categories.id(code).ok_or_else(|| categories.unknown())?;
    match categories.kind(id) {
        CategoryKind::Spend => Ok(id),
        _ => Err(format!("category `{code}` is not spending, so it has no budget")),
    }
}

/// A decimal fraction of 0 to 1 as exact millionths; `None` for other numbers.
pub fn millionths(share: f64) -> Option<i64> {
    (share <= 1.0).then(|| exact_millionths(share)).flatten()
}

/// A decimal of at least 0 as exact millionths; `None` if it has more than 6 decimals.
pub fn exact_millionths(number: f64) -> Option<i64> {
    let scaled = number * MILLION as f64;
    let exact = (scaled - scaled.round()).abs() < 1e-6;
    (number >= 0.0 && exact).then_some(scaled.round() as i64)
}

/// A budget set by a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManualBudget {
    pub user_id: u64,
    pub category: CategoryId,
    /// The first month it applies to; `None` for no lower bound. Without a last month it applies
    /// until a later budget of the same user and category starts.
    pub from_month: Option<Month>,
    /// The last month it applies to.
    pub to_month: Option<Month>,
    pub amount_cents: i64,
    /// The line in its table, for error messages.
    pub line: u64,
}

impl ManualBudget {
    fn key(&self) -> (u64, CategoryId, Option<Month>) {
        (self.user_id, self.category, self.from_month)
    }

    /// True if the next budget in sort order starts before this one ends.
    fn overlaps(&self, next: &ManualBudget) -> bool {
        let same = (self.user_id, self.category) == (next.user_id, next.category);
        same && (self.from_month == next.from_month
            || self.to_month.is_some_and(|last| next.from_month.is_none_or(|first| first <= last)))
    }
}

/// The inputs of all budgets. Only what users set is stored per user and category.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    pub template: BudgetTemplate,
    /// Monthly income in cents by user, sorted by user.
    incomes: Vec<(u64, i64)>,
    /// Sorted by user, category and first month.
    manual: Vec<ManualBudget>,
}

impl Budgets {
    /// `incomes` contains each user once. Errors: two manual budgets for the same user, category
    /// and month.
    pub fn new(
        template: BudgetTemplate,
        mut incomes: Vec<(u64, i64)>,
        mut manual: Vec<ManualBudget>,
    ) -> Result<Budgets, Overlap> {
        incomes.sort_unstable();
        manual.sort_unstable();
        if let Some(pair) = manual.windows(2).find(|pair| pair[0].overlaps(&pair[1])) {
            return Err(Overlap {
                line: pair[0].line.max(pair[1].line),
                other: pair[0].line.min(pair[1].line),
            });
        }
        Ok(Budgets { template, incomes, manual })
    }

    /// True if no user has a budget.
    pub fn is_empty(&self) -> bool {
        self.manual.is_empty() && self.incomes.is_empty()
    }

    /// The number of users with an income, and of manual budgets.
    pub fn counts(&self) -> (usize, usize) {
        (self.incomes.len(), self.manual.len())
    }

    /// The budgets of users in ascending order, from this one on.
    pub fn walk(&self, first_user: u64) -> BudgetWalk<'_> {
        BudgetWalk {
            template: &self.template,
            incomes: &self.incomes[self.incomes.partition_point(|income| income.0 < first_user)..],
            manual: &self.manual[self.manual.partition_point(|manual| manual.user_id < first_user)..],
            user_id: first_user,
        }
    }
}

/// The lines of two manual budgets for the same user, category and month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    pub line: u64,
    pub other: u64,
}

/// Visits the budgets of users in ascending order, in one pass over the tables.
pub struct BudgetWalk<'b> {
    template: &'b BudgetTemplate,
    /// Those of the current user and of later ones.
    incomes: &'b [(u64, i64)],
    manual: &'b [ManualBudget],
    user_id: u64,
}

impl<'b> BudgetWalk<'b> {
    /// Moves to a user. Panics if the user is less than the current one.
    pub fn move_to(&mut self, user_id: u64) {
        assert!(self.user_id <= user_id, "users rise");
        self.user_id = user_id;
        let behind = self.incomes.iter().position(|income| income.0 >= user_id);
        self.incomes = &self.incomes[behind.unwrap_or(self.incomes.len())..];
        let behind = self.manual.iter().position(|manual| manual.user_id >= user_id);
        self.manual = &self.manual[behind.unwrap_or(self.manual.len())..];
    }

    /// The monthly income of the current user.
    pub fn income_cents(&self) -> Option<i64> {
        self.incomes.first().filter(|income| income.0 == self.user_id).map(|income| income.1)
    }

    /// The template's budget of the current user.
    pub fn template_cents(&self, category: CategoryId) -> Option<i64> {
        self.template.budget_cents(self.income_cents()?, category)
    }

    /// The manual budget of the current user for a month.
    pub fn manual_cents(&self, category: CategoryId, month: Month) -> Option<i64> {
        let mine = self.manual.iter().take_while(|manual| manual.user_id == self.user_id);
        let begun = mine.filter(|manual| manual.key() <= (self.user_id, category, Some(month)));
        let latest = begun.last().filter(|manual| manual.category == category)?;
        latest.to_month.is_none_or(|last| month <= last).then_some(latest.amount_cents)
    }

    /// The manual budget for `month`, else the template's; `None` is not a zero budget.
    pub fn budget(&self, category: CategoryId, month: Month) -> Option<Budget> {
        let budget = |source| move |amount_cents| Budget { amount_cents, rolled_over_cents: 0, source };
        let manual = self.manual_cents(category, month).map(budget(BudgetSource::Manual));
        manual.or_else(|| self.template_cents(category).map(budget(BudgetSource::Template)))
    }
}

/// The amount carried over to the next month. `months` are the earlier months, oldest first, each
/// with its budget, if any, and the net amount spent. Overspending is not carried over, and a month
/// without a budget carries nothing.
pub fn left_over_cents(months: impl Iterator<Item = (Option<i64>, i64)>) -> i128 {
    months.fold(0, |left, (budget, spent)| match budget {
        Some(budget) => (i128::from(budget) + left - i128::from(spent)).max(0),
        None => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_tier_at_or_below_the_income_decides() {
        let categories = Categories::builtin();
        let text = "[[tier]]\nname='a'\nincome_from='1000.00'\nshares={dining=0.1}\n\
                    [[tier]]\nname='b'\nincome_from='2000.00'\nshares={dining=0.333333}\n";
        let template = BudgetTemplate::parse(text, &categories).unwrap();
        let dining = categories.id("dining").unwrap();
        let budget = |income| template.budget_cents(income, dining);
        assert_eq!(budget(99_999), None);
        assert_eq!(budget(100_000), Some(10_000));
        assert_eq!(budget(199_999), Some(20_000));
        assert_eq!(budget(200_000), Some(66_667));
        assert_eq!(template.budget_cents(200_000, categories.id("gas").unwrap()), None);
    }

    fn manual(user_id: u64, months: (&str, &str), amount_cents: i64, line: u64) -> ManualBudget {
        let month = |text: &str| text.parse::<Month>().ok();
        let category = Categories::builtin().id("gas").unwrap();
        ManualBudget {
            user_id,
            category,
            from_month: month(months.0),
            to_month: month(months.1),
            amount_cents,
            line,
        }
    }

    #[test]
    fn the_latest_manual_budget_wins_over_the_template() {
        let categories = Categories::builtin();
        let gas = categories.id("gas").unwrap();
        let template = "[[tier]]\nname='a'\nincome_from='0'\nshares={gas=0.1}";
        let template = BudgetTemplate::parse(template, &categories).unwrap();
        let set = vec![
            manual(1, ("2025-03", ""), 0, 2),
            manual(1, ("", ""), 500, 3),
            manual(2, ("2025-02", "2025-03"), 9, 4),
            manual(2, ("2025-06", "2025-06"), 8, 5),
        ];
        let budgets = Budgets::new(template, vec![(2, 1000), (1, 1000), (4, 3000)], set).unwrap();
        let budget = |user, at: &str| {
            let mut walk = budgets.walk(0);
            walk.move_to(user);
            walk.budget(gas, at.parse().unwrap()).map(|b| (b.amount_cents, b.source.name()))
        };
        assert_eq!(budget(1, "2025-02"), Some((500, "manual")));
        assert_eq!(budget(1, "2025-03"), Some((0, "manual")), "zero is a budget");
        assert_eq!(budget(2, "2025-01"), Some((100, "template")));
        assert_eq!(budget(2, "2025-02"), Some((9, "manual")));
        assert_eq!(budget(2, "2025-04"), Some((100, "template")), "an ended budget no longer applies");
        assert_eq!(budget(2, "2025-06"), Some((8, "manual")));
        assert_eq!(budget(3, "2025-02"), None);
        assert_eq!(budget(4, "2025-02"), Some((300, "template")));
    }

    #[test]
    fn overlapping_manual_budgets_are_reported_by_line() {
        let refused = |set: Vec<ManualBudget>| Budgets::new(BudgetTemplate::default(), vec![], set).err();
        let overlap = Some(Overlap { line: 7, other: 3 });
        assert_eq!(refused(vec![manual(1, ("", ""), 1, 3), manual(1, ("", ""), 2, 7)]), overlap);
        assert_eq!(
            refused(vec![manual(1, ("2025-01", "2025-03"), 1, 7), manual(1, ("2025-03", ""), 2, 3)]),
            overlap
        );
        assert_eq!(
            refused(vec![manual(1, ("", "2025-03"), 1, 3), manual(1, ("2025-01", "2025-01"), 2, 7)]),
            overlap
        );
        assert_eq!(
            refused(vec![manual(1, ("2025-01", "2025-02"), 1, 3), manual(1, ("2025-03", ""), 2, 7)]),
            None
        );
        assert_eq!(refused(vec![manual(1, ("", ""), 1, 3), manual(2, ("", ""), 2, 7)]), None);
    }

    #[test]
    fn unspent_amounts_are_carried_over() {
        let left = |months: &[(Option<i64>, i64)]| left_over_cents(months.iter().copied());
        assert_eq!(left(&[(Some(100), 60), (Some(100), 90)]), 50);
        assert_eq!(left(&[(Some(100), 160), (Some(100), 90)]), 10, "overspending is not carried over");
        assert_eq!(left(&[(Some(100), -20)]), 120, "refunds are subtracted");
        assert_eq!(left(&[(Some(100), 60), (None, 0), (Some(100), 100)]), 0);
        assert_eq!(left(&[]), 0);
    }

    #[test]
    fn invalid_templates_are_refused() {
        let categories = Categories::builtin();
        for shares in ["{dining=0.6, gas=0.5}", "{nothing=0.1}", "{income=0.1}", "{gas=1.1}", "{gas=-0.1}"] {
            let text = format!("[[tier]]\nname='a'\nincome_from='0'\nshares={shares}");
            assert!(BudgetTemplate::parse(&text, &categories).is_err(), "{shares}");
        }
    }
}
