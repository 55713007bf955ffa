//! Budgets: the manual one if set, else income × the share of the income tier.
//!
//! In: a template, incomes, manual budgets. Out: the budget of one user, category and month.
//! Invariant: a template's shares add up to at most 1; no budget is not a zero budget.

use super::category::{Categories, CategoryId, CategoryKind};
use super::money::parse_amount_cents;
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
            let mut shares = vec![None; categories.len()];
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
    fn a_template_that_cannot_work_is_refused() {
        let categories = Categories::builtin();
        for shares in ["{dining=0.6, gas=0.5}", "{nothing=0.1}", "{income=0.1}", "{gas=1.1}", "{gas=-0.1}"] {
            let text = format!("[[tier]]\nname='a'\nincome_from='0'\nshares={shares}");
            assert!(BudgetTemplate::parse(&text, &categories).is_err(), "{shares}");
        }
    }
}
