//! Monthly spending: the amount one user spent in one category in one month.
//!
//! In: categorized transactions. Out: the group and its key.
//! Invariant: keys sort in the order of publication within a month (user, then category); sums are
//! checked.

use super::category::CategoryId;
use super::money::DECIMAL_CENTS_LIMIT;

/// One row of `monthly_spending`, without its month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spend {
    pub user_id: u64,
    pub category: CategoryId,
    pub amount_cents: i64,
    pub transaction_count: u64,
}

impl Spend {
    pub fn key(&self) -> (u64, CategoryId) {
        (self.user_id, self.category)
    }

    /// Adds another share of the same group. `None` if the sum exceeds DECIMAL(18,2) or the count
    /// 2^63. Panics if the keys differ.
    pub fn plus(self, other: Spend) -> Option<Spend> {
        assert_eq!(self.key(), other.key(), "only shares of one group add up");
        let amount_cents = self.amount_cents.checked_add(other.amount_cents)?;
        let transaction_count = self.transaction_count.checked_add(other.transaction_count)?;
        let fits = amount_cents.abs() < DECIMAL_CENTS_LIMIT && i64::try_from(transaction_count).is_ok();
        fits.then_some(Spend { amount_cents, transaction_count, ..self })
    }
}
