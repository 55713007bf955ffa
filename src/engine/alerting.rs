//! The alerts that are due when a month has changed.
//!
//! In: the month as it stands after the run, its budgets, what was said of it so far. Out: the
//! records that are due, in the order of users and categories.
//! Invariant: a record follows from the published month, the budgets and the records before it
//! alone; of one user, month and category a run makes one at most.

use super::ahead::Ahead;
use super::budgeted::BudgetedMonth;
use crate::domain::alert::{AlertRecord, AlertRule, Standing};
use crate::domain::category::{CategoryId, CategoryKind};
use crate::domain::spend::Spend;
use crate::error::Result;
use crate::input::alerts::AlertHistory;
use crate::input::published::Users;

/// A month that has changed.
pub struct Alerting<'a> {
    pub month: BudgetedMonth<'a>,
    pub rule: AlertRule,
    pub history: AlertHistory,
}

impl Alerting<'_> {
    /// Looks at all users, some on each thread of the pool. `on_records` gets what is due, in order.
    pub fn run(
        &self,
        pool: &rayon::ThreadPool,
        mut on_records: impl FnMut(Vec<AlertRecord>) -> Result<()>,
    ) -> Result<()> {
        let due = |users: Users| self.due(&users);
        pool.in_place_scope(|scope| {
            let most = pool.current_num_threads() + 1;
            let mut ranges = Ahead::new(scope, self.month.shares().into_iter(), &due, most);
            while let Some(records) = ranges.take_next() {
                on_records(records?)?;
            }
            Ok(())
        })
    }

    /// What is due for some users.
    fn due(&self, users: &Users) -> Result<Vec<AlertRecord>> {
        let categories = self.month.categories;
        let mut users_of_month = self.month.read(users)?;
        let spending = std::mem::take(&mut users_of_month.spending);
        let standings = self.history.standings(users, categories)?;
        let mut due = Vec::new();
        let nothing_said = Standing::default();
        for (key, spent_cents, standing) in both(&spending, &standings) {
            let is_spending = categories.kind(key.1) == CategoryKind::Spend;
            if standing.is_none() && (!is_spending || !self.rule.is_open || spent_cents <= 0) {
                continue;
            }
            let budget = match self.rule.is_open && is_spending {
                true => users_of_month.budget(key)?,
                false => None,
            };
            let standing = standing.unwrap_or(&nothing_said);
            due.extend(self.rule.next(key, standing, spent_cents, budget));
        }
        Ok(due)
    }
}

/// What was spent and what was said, by key, in the order of keys: both lists in step.
fn both<'s>(
    spending: &'s [Spend],
    standings: &'s [((u64, CategoryId), Standing)],
) -> impl Iterator<Item = ((u64, CategoryId), i64, Option<&'s Standing>)> {
    let (mut groups, mut said) = (spending.iter().peekable(), standings.iter().peekable());
    std::iter::from_fn(move || {
        let first_group = groups.peek().map(|group| group.key());
        let first_said = said.peek().map(|(key, _)| *key);
        let key = [first_group, first_said].into_iter().flatten().min()?;
        let spent_cents = groups.next_if(|group| group.key() == key).map_or(0, |group| group.amount_cents);
        let standing = said.next_if(|(said, _)| *said == key).map(|(_, standing)| standing);
        Some((key, spent_cents, standing))
    })
}
