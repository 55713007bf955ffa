//! Budgets recommended from income, and from what active users spent in the last complete months.
//!
//! In: published months, budgets, who is active. Out: for some users, in their order, an amount and
//! its basis for each category; or how well such amounts would have done.
//! Invariant: a recommendation for a month depends on nothing that was spent in it.

use crate::domain::budget::{BudgetWalk, Budgets, MILLION};
use crate::domain::category::{Categories, CategoryId, CategoryKind};
use crate::domain::month::Month;
use crate::domain::recommend::{
    Basis, HISTORY_MONTHS_MAX, HISTORY_MONTHS_MIN, history_cents, round_together, wish,
};
use crate::domain::spend::Spend;
use crate::error::Result;
use crate::input::published::{PublishedPart, Users, read_users};

/// One row of `budget_recommendations`, its month apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recommendation {
    pub user_id: u64,
    pub category: CategoryId,
    pub amount_cents: i64,
    pub basis: Basis,
    pub template_cents: Option<i64>,
    /// None with fewer than three months of history.
    pub history_cents: Option<i64>,
    /// How many complete months count.
    pub history_months: usize,
}

/// How budgets are recommended for a month.
#[derive(Clone, Copy)]
pub struct RecommendRule<'a> {
    /// The month to come.
    pub month: Month,
    pub categories: &'a Categories,
    /// The share of income that is not to be spent.
    pub savings_millionths: i64,
}

/// What recommendations rest on.
pub struct Recommending<'a> {
    pub rule: RecommendRule<'a>,
    /// The complete months before it that count, each with its parts in the order of users.
    pub window: Vec<Vec<PublishedPart>>,
    /// In their order, each once.
    pub active: &'a [u64],
    pub budgets: &'a Budgets,
}

impl Recommending<'_> {
    /// The recommendations for some users, in the order of users and categories.
    pub fn of(&self, users: &Users) -> Result<Vec<Recommendation>> {
        let read = |parts: &Vec<PublishedPart>| read_users(parts, users, self.rule.categories);
        let groups: Vec<Vec<Spend>> = self.window.iter().map(read).collect::<Result<_>>()?;
        let mut months: Vec<UserByUser> = groups.iter().map(|groups| UserByUser::new(groups)).collect();
        let mut found = Vec::new();
        let mut walk = self.budgets.walk(*users.start());
        for user_id in active_among(self.active, users) {
            let window: Vec<&[Spend]> = months.iter_mut().map(|month| month.of(*user_id)).collect();
            walk.move_to(*user_id);
            found.extend(self.rule.recommend(*user_id, &window, &walk));
        }
        Ok(found)
    }
}

impl RecommendRule<'_> {
    /// One user, by the groups of each month of the window.
    pub fn recommend(&self, user_id: u64, window: &[&[Spend]], walk: &BudgetWalk) -> Vec<Recommendation> {
        // A month without any transaction says nothing of what a user needs.
        let counted = || window.iter().filter(|groups| !groups.is_empty());
        let history_months = counted().count();
        let of_category = |category: CategoryId| {
            let mut months = [0; HISTORY_MONTHS_MAX];
            counted().zip(&mut months).for_each(|(groups, cents)| *cents = spent_cents(groups, category));
            let months = &months[..history_months];
            let template_cents = walk.template_cents(category);
            let set = walk.manual_cents(category, self.month).map(|cents| (cents, Basis::Manual));
            let (amount_cents, basis) = set.or_else(|| wish(template_cents, months))?;
            Some(Recommendation {
                user_id,
                category,
                amount_cents,
                basis,
                template_cents,
                history_cents: history_cents(months),
                history_months,
            })
        };
        let mut recommended: Vec<Recommendation> =
            spending(self.categories).filter_map(of_category).collect();
        let (manual, mut computed): (Vec<_>, Vec<_>) =
            recommended.iter_mut().partition(|recommended| recommended.basis == Basis::Manual);
        let manual_total: i128 = manual.iter().map(|recommended| i128::from(recommended.amount_cents)).sum();
        let most = walk.income_cents().map(|income| {
            let kept = i128::from(MILLION - self.savings_millionths);
            let spendable = i128::from(income) * kept / i128::from(MILLION);
            i64::try_from((spendable - manual_total).max(0)).expect("no more than the income")
        });
        let wishes: Vec<i64> = computed.iter().map(|recommended| recommended.amount_cents).collect();
        let rounded = round_together(&wishes, most);
        computed.iter_mut().zip(rounded).for_each(|(recommended, cents)| recommended.amount_cents = cents);
        // An amount of nothing recommends nothing, but one that the user has set stands.
        recommended.retain(|recommended| recommended.amount_cents > 0 || recommended.basis == Basis::Manual);
        recommended
    }
}

/// The categories that budgets are recommended for: nobody plans for what is uncategorized.
pub fn spending(categories: &Categories) -> impl Iterator<Item = CategoryId> {
    let all = (0..categories.count()).map(|id| CategoryId(id as u8));
    all.filter(|id| categories.kind(*id) == CategoryKind::Spend && *id != categories.uncategorized())
}

fn active_among<'u>(active: &'u [u64], users: &Users) -> &'u [u64] {
    let from = active.partition_point(|user| user < users.start());
    let to = active.partition_point(|user| user <= users.end());
    &active[from..to]
}

/// What a user's groups of a month say of a category.
pub fn spent_cents(groups: &[Spend], category: CategoryId) -> i64 {
    groups.iter().find(|group| group.category == category).map_or(0, |group| group.amount_cents)
}

/// The groups of a month, one user after the other.
pub struct UserByUser<'g> {
    /// Of the users that were not passed yet.
    rest: &'g [Spend],
}

impl<'g> UserByUser<'g> {
    /// `groups` are in the order of users.
    pub fn new(groups: &'g [Spend]) -> UserByUser<'g> {
        UserByUser { rest: groups }
    }

    /// The groups of a user. Users rise from call to call.
    pub fn of(&mut self, user_id: u64) -> &'g [Spend] {
        let begin = self.rest.iter().position(|group| group.user_id >= user_id).unwrap_or(self.rest.len());
        let rest = &self.rest[begin..];
        let end = rest.iter().position(|group| group.user_id != user_id).unwrap_or(rest.len());
        let (mine, rest) = rest.split_at(end);
        self.rest = rest;
        mine
    }
}

/// A user has a history.
pub fn has_history(window: &[&[Spend]]) -> bool {
    window.iter().filter(|groups| !groups.is_empty()).count() >= HISTORY_MONTHS_MIN
}
