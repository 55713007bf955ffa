//! Budgets: the manual one if set, else income × the share of the income tier.
//!
//! In: a template, incomes, manual budgets. Out: the budget of one user, category and month.
//! Invariant: a template's shares add up to at most 1; no budget is not a zero budget.

use super::category::{Categories, CategoryId, CategoryKind};
use super::money::parse_amount_cents;
use super::month::Month;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Shares and thresholds are exact millionths.
pub const MILLION: i64 = 1_000_000;

/// Where a budget came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetSource {
    Override,
    Template,
}

impl BudgetSource {
    pub fn name(self) -> &'static str {
        match self {
            BudgetSource::Override => "override",
            BudgetSource::Template => "template",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub amount_cents: i64,
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
    name: String,
    income_from: String,
    shares: BTreeMap<String, f64>,
}

/// Income tiers, each with the share of income per category.
#[derive(Clone, Debug, Default)]
pub struct BudgetTemplate {
    /// Rising by the first income they hold for; shares in millionths by category number.
    tiers: Vec<(i64, Vec<Option<i64>>)>,
}

impl BudgetTemplate {
    /// Reads `[[tier]] name, income_from, shares`. Errors name the tier and the category.
    pub fn parse(text: &str, categories: &Categories) -> Result<BudgetTemplate, String> {
        let file: TemplateFile = toml::from_str(text).map_err(|e| e.message().to_string())?;
        let mut tiers = Vec::new();
        for tier in file.tier {
            let from_cents = parse_amount_cents(tier.income_from.as_bytes())
                .map_err(|_| format!("tier `{}`: income_from is not an amount", tier.name))?;
            let mut shares = vec![None; categories.count()];
            for (code, share) in &tier.shares {
                let millionths = millionths(*share).ok_or_else(|| {
                    format!(
                        "tier `{}`: the share of `{code}` is not between 0 and 1 with at most 6 decimals",
                        tier.name
                    )
                })?;
                let id =
                    spend_category(categories, code).map_err(|e| format!("tier `{}`: {e}", tier.name))?;
                shares[usize::from(id.0)] = Some(millionths);
            }
            if shares.iter().flatten().sum::<i64>() > MILLION {
                return Err(format!("tier `{}`: the shares add up to more than 1", tier.name));
            }
            tiers.push((from_cents, shares));
        }
        tiers.sort_by_key(|tier| tier.0);
        if tiers.windows(2).any(|w| w[0].0 == w[1].0) {
            return Err("two tiers begin at the same income".into());
        }
        Ok(BudgetTemplate { tiers })
    }

    /// Income × share, rounded half up to the cent; none without a tier or a share.
    pub fn budget_cents(&self, income_cents: i64, category: CategoryId) -> Option<i64> {
        let above = self.tiers.partition_point(|tier| tier.0 <= income_cents);
        let share = self.tiers.get(above.checked_sub(1)?)?.1[usize::from(category.0)]?;
        let product = i128::from(income_cents) * i128::from(share);
        let rounded = (product + i128::from(MILLION / 2)).div_euclid(i128::from(MILLION));
        Some(i64::try_from(rounded).expect("a share of an income is at most the income"))
    }
}

/// The category of this code if budgets make sense for it.
pub fn spend_category(categories: &Categories, code: &str) -> Result<CategoryId, String> {
    let id = categories.id(code).ok_or_else(|| format!("there is no category `{code}`"))?;
    match categories.kind(id) {
        CategoryKind::Spend => Ok(id),
        _ => Err(format!("category `{code}` is not spending, so it has no budget")),
    }
}

/// A share or threshold written as a decimal fraction of 0 to 1, as exact millionths.
pub fn millionths(share: f64) -> Option<i64> {
    let scaled = share * MILLION as f64;
    let exact = (scaled - scaled.round()).abs() < 1e-6;
    ((0.0..=1.0).contains(&share) && exact).then_some(scaled.round() as i64)
}

/// A budget that a person has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManualBudget {
    pub user_id: u64,
    pub category: CategoryId,
    /// From this month on, until a later one of the same user and category; none means always.
    pub from_month: Option<Month>,
    pub amount_cents: i64,
}

/// All that decides about budgets. Nothing is stored per user and category but what people set.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    pub template: BudgetTemplate,
    /// Monthly income in cents by user, sorted by user.
    incomes: Vec<(u64, i64)>,
    /// Sorted.
    manual: Vec<ManualBudget>,
}

impl Budgets {
    /// Errors when a user has two incomes, or two manual budgets for the same thing.
    pub fn new(
        template: BudgetTemplate,
        mut incomes: Vec<(u64, i64)>,
        mut manual: Vec<ManualBudget>,
    ) -> Result<Budgets, &'static str> {
        incomes.sort_unstable();
        if incomes.windows(2).any(|w| w[0].0 == w[1].0) {
            return Err("a user stands twice in the users table");
        }
        manual.sort_unstable();
        let same = |a: &ManualBudget, b: &ManualBudget| {
            (a.user_id, a.category, a.from_month) == (b.user_id, b.category, b.from_month)
        };
        if manual.windows(2).any(|w| same(&w[0], &w[1])) {
            return Err("a budget of one user, category and from_month stands twice");
        }
        Ok(Budgets { template, incomes, manual })
    }

    /// The manual budget that holds in `month`, else the template's; none is not zero.
    pub fn budget(&self, user_id: u64, category: CategoryId, month: Month) -> Option<Budget> {
        let until = self
            .manual
            .partition_point(|b| (b.user_id, b.category, b.from_month) <= (user_id, category, Some(month)));
        let latest = until.checked_sub(1).map(|i| self.manual[i]);
        if let Some(manual) = latest.filter(|b| (b.user_id, b.category) == (user_id, category)) {
            return Some(Budget { amount_cents: manual.amount_cents, source: BudgetSource::Override });
        }
        let user = self.incomes.binary_search_by_key(&user_id, |income| income.0).ok()?;
        let amount_cents = self.template.budget_cents(self.incomes[user].1, category)?;
        Some(Budget { amount_cents, source: BudgetSource::Template })
    }

    /// Nobody has a budget.
    pub fn is_empty(&self) -> bool {
        self.manual.is_empty() && self.incomes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tier_that_begins_at_or_below_the_income_decides() {
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

    #[test]
    fn the_latest_manual_budget_wins_over_the_template() {
        let categories = Categories::builtin();
        let gas = categories.id("gas").unwrap();
        let month = |text: &str| text.parse::<Month>().unwrap();
        let manual = |user_id, from: Option<&str>, amount_cents| ManualBudget {
            user_id,
            category: gas,
            from_month: from.map(month),
            amount_cents,
        };
        let template = "[[tier]]\nname='a'\nincome_from='0'\nshares={gas=0.1}";
        let template = BudgetTemplate::parse(template, &categories).unwrap();
        let set = vec![manual(1, Some("2025-03"), 0), manual(1, None, 500), manual(2, Some("2025-02"), 9)];
        let budgets = Budgets::new(template, vec![(2, 1000), (1, 1000)], set).unwrap();
        let budget =
            |user, at| budgets.budget(user, gas, month(at)).map(|b| (b.amount_cents, b.source.name()));
        assert_eq!(budget(1, "2025-02"), Some((500, "override")));
        assert_eq!(budget(1, "2025-03"), Some((0, "override")), "zero is a budget");
        assert_eq!(budget(2, "2025-01"), Some((100, "template")));
        assert_eq!(budget(2, "2025-02"), Some((9, "override")));
        assert_eq!(budget(3, "2025-02"), None);
        assert!(Budgets::new(BudgetTemplate::default(), vec![(1, 1), (1, 2)], vec![]).is_err());
    }

    #[test]
    fn a_template_that_cannot_work_is_refused() {
        let categories = Categories::builtin();
        for shares in ["{dining=0.6, gas=0.5}", "{nothing=0.1}", "{income=0.1}", "{gas=1.1}", "{gas=-0.1}"] {
            let text = format!("[[tier]]\nname='a'\nincome_from='0'\nshares={shares}");
            assert!(BudgetTemplate::parse(&text, &categories).is_err(), "{shares}");
        }
    }
}
