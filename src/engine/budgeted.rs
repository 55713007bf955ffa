//! Users with their budgets: what they spent, what they may, and what was left over before.
//!
//! In: months of published spending, budgets. Out: for some users, in their order, what was spent
//! of each category and what its budget is.
//! Invariant: a budget depends on the published months and the budget tables alone, so refunds and
//! late data change what rolls over as if they had come in time.

use crate::domain::budget::{Budget, BudgetWalk, Budgets, left_over_cents};
use crate::domain::category::{Categories, CategoryId};
use crate::domain::money::DECIMAL_CENTS_LIMIT;
use crate::domain::month::{Month, MonthRange};
use crate::domain::spend::Spend;
use crate::error::{Error, Kind, Result};
use crate::input::published::{PublishedPart, Users, read_users, shares};

/// A month, and those before it whose budgets roll over into it.
pub struct BudgetedMonth<'a> {
    pub month: Month,
    /// In the order of users.
    pub parts: Vec<PublishedPart>,
    /// Each month from the first that rolls over to the one before `month`; none if nothing does.
    pub earlier: Vec<(Month, Vec<PublishedPart>)>,
    pub budgets: &'a Budgets,
    pub categories: &'a Categories,
}

impl<'a> BudgetedMonth<'a> {
    /// `roll_over_from` is the first month whose rest is carried on; `parts` are those of a month.
    pub fn new(
        month: Month,
        roll_over_from: Option<Month>,
        budgets: &'a Budgets,
        categories: &'a Categories,
        parts: impl Fn(Month) -> Vec<PublishedPart>,
    ) -> BudgetedMonth<'a> {
        let rolls_over = roll_over_from.filter(|first| *first < month);
        let until = rolls_over.into_iter().flat_map(|first| MonthRange { first, last: month }.iter());
        let earlier = until.filter(|earlier| *earlier < month).map(|earlier| (earlier, parts(earlier)));
        BudgetedMonth { month, earlier: earlier.collect(), parts: parts(month), budgets, categories }
    }

    /// The users in shares that each take about as much memory as a part.
    pub fn shares(&self) -> Vec<Users> {
        let earlier = self.earlier.iter().flat_map(|(_, parts)| parts);
        shares(self.parts.iter().chain(earlier).map(|part| *part.users.start()))
    }

    /// Reads the spending of some users.
    pub fn read(&self, users: &Users) -> Result<BudgetedUsers<'a>> {
        let read = |parts: &[PublishedPart]| read_users(parts, users, self.categories);
        let earlier = self
            .earlier
            .iter()
            .map(|(month, parts)| Ok(Earlier { month: *month, groups: read(parts)?, taken: 0 }));
        Ok(BudgetedUsers {
            month: self.month,
            spending: read(&self.parts)?,
            earlier: earlier.collect::<Result<_>>()?,
            walk: self.budgets.walk(*users.start()),
        })
    }
}

/// One earlier month, as far as it was not passed yet.
struct Earlier {
    month: Month,
    groups: Vec<Spend>,
    taken: usize,
}

impl Earlier {
    /// What was spent under a key; keys rise.
    fn spent_cents(&mut self, key: (u64, CategoryId)) -> i64 {
        while self.groups.get(self.taken).is_some_and(|group| group.key() < key) {
            self.taken += 1;
        }
        let here = self.groups.get(self.taken).filter(|group| group.key() == key);
        here.map_or(0, |group| group.amount_cents)
    }
}

/// Some users of a month.
pub struct BudgetedUsers<'a> {
    month: Month,
    /// Their groups of the month, in the order of users and categories.
    pub spending: Vec<Spend>,
    earlier: Vec<Earlier>,
    walk: BudgetWalk<'a>,
}

impl BudgetedUsers<'_> {
    /// The budget of a user and category for the month. Keys rise from call to call.
    pub fn budget(&mut self, key: (u64, CategoryId)) -> Result<Option<Budget>> {
        let (user_id, category) = key;
        self.walk.move_to(user_id);
        let Some(budget) = self.walk.budget(category, self.month) else { return Ok(None) };
        if self.earlier.is_empty() {
            return Ok(Some(budget));
        }
        let walk = &self.walk;
        let months = self.earlier.iter_mut().map(|earlier| {
            let budget = walk.budget(category, earlier.month).map(|budget| budget.amount_cents);
            (budget, earlier.spent_cents(key))
        });
        let month = self.month;
        let fits = |cents: i128| match i64::try_from(cents) {
            Ok(cents) if cents.abs() < DECIMAL_CENTS_LIMIT => Ok(cents),
            _ => {
                let what = format!("what rolls over into {month} is more than DECIMAL(18,2) holds");
                let error = Error::new(Kind::InputRefused, what).at("budgets.roll_over_from");
                Err(error.advise("let budgets roll over from a later month"))
            }
        };
        let left_over = left_over_cents(months);
        let amount_cents = fits(i128::from(budget.amount_cents) + left_over)?;
        Ok(Some(Budget { amount_cents, rolled_over_cents: fits(left_over)?, ..budget }))
    }
}
