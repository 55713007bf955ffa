//! Budget alerts: approaching a budget, and exceeding it.
//!
//! In: what was spent, the budget, the threshold. Out: the level, and an id that stays the same
//! for the same user, month, category and level.
//! Invariant: refunds net; exactly the budget is not exceeded; nothing spent is no alert.

use super::budget::{Budget, MILLION};
use super::month::Month;
use sha2::{Digest, Sha256};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertLevel {
    Approaching,
    Exceeded,
}

impl AlertLevel {
    pub const ALL: [AlertLevel; 2] = [AlertLevel::Approaching, AlertLevel::Exceeded];

    pub fn name(self) -> &'static str {
        match self {
            AlertLevel::Approaching => "approaching",
            AlertLevel::Exceeded => "exceeded",
        }
    }

    /// The level that `spent_cents` has reached, if any. `approaching_millionths` is the share
    /// of the budget from which on it is approached.
    pub fn of(spent_cents: i64, budget_cents: i64, approaching_millionths: i64) -> Option<AlertLevel> {
        let reached = i128::from(spent_cents) * i128::from(MILLION)
            >= i128::from(budget_cents) * i128::from(approaching_millionths);
        match spent_cents {
            spent if spent <= 0 => None,
            spent if spent > budget_cents => Some(AlertLevel::Exceeded),
            _ => reached.then_some(AlertLevel::Approaching),
        }
    }
}

/// One alert record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub user_id: u64,
    pub month: Month,
    pub category: String,
    pub level: AlertLevel,
    pub spent_cents: i64,
    pub budget: Budget,
    pub threshold_millionths: i64,
}

/// An alert's identity: 16 bytes, printed as 32 hexadecimal digits.
pub type AlertId = u128;

impl Alert {
    pub fn id(&self) -> AlertId {
        alert_id(self.user_id, self.month, &self.category, self.level)
    }
}

/// The first 16 bytes of SHA-256 over `user month category level`, so a consumer that meets an
/// alert twice can drop the second one.
pub fn alert_id(user_id: u64, month: Month, category: &str, level: AlertLevel) -> AlertId {
    let text = format!("{user_id} {month} {category} {}", level.name());
    let digest = Sha256::digest(text.as_bytes());
    u128::from_be_bytes(digest[..16].try_into().expect("a digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_at_their_edges() {
        let level = |spent, budget| AlertLevel::of(spent, budget, 800_000);
        assert_eq!(level(7999, 10_000), None);
        assert_eq!(level(8000, 10_000), Some(AlertLevel::Approaching));
        assert_eq!(level(10_000, 10_000), Some(AlertLevel::Approaching));
        assert_eq!(level(10_001, 10_000), Some(AlertLevel::Exceeded));
        assert_eq!(level(1, 0), Some(AlertLevel::Exceeded));
        assert_eq!(level(0, 0), None);
        assert_eq!(level(-5, 0), None);
        assert_eq!(level(i64::MAX, i64::MAX), Some(AlertLevel::Approaching));
    }
}
