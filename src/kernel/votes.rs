//! The crowd's categories: counts users' own choices by seller.
//!
//! In: manual choices in any order. Out: votes by normalised seller, and whether they decide.
//! Invariant: each user has one vote per seller, the latest; counts are rebuilt from all choices
//! each time, so a changed vote counts only for its new category; the order of choices does not
//! matter.

use super::choices::seller_name;
use crate::domain::category::{CategoryId, Choice};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// Conditions under which votes decide for all users.
#[derive(Clone, Copy, Debug)]
pub struct VoteRules {
    /// The minimum of votes for the first category.
    pub votes_min: u64,
    /// The minimum lead of the first over the second category, in millionths of all votes.
    pub margin_millionths: i64,
    /// Choices set before this instant are not votes.
    pub since_micros: Option<i64>,
}

/// The votes for one category of a seller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteCount {
    pub category: CategoryId,
    pub votes: u64,
    /// The instant of the latest of them.
    pub latest_micros: i64,
}

/// The votes for one seller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SellerVotes {
    pub name: String,
    /// By descending votes; then the latest vote first, then the first in code order.
    pub counts: Vec<VoteCount>,
    /// True if the first category decides for all users.
    pub decided: bool,
}

impl SellerVotes {
    pub fn votes(&self) -> u64 {
        self.counts.iter().map(|count| count.votes).sum()
    }
}

/// A user's vote for a seller: seller, user, instant, category. Among those of one user and seller
/// the last in sort order counts.
type Vote = (u32, u64, i64, Reverse<CategoryId>);

/// Counts the votes by seller, sorted by name. Choices for a single transaction are not votes,
/// since they do not concern the seller; a vote for `uncategorized` counts but never decides.
pub fn count(choices: &[Choice], rules: &VoteRules, uncategorized: CategoryId) -> Vec<SellerVotes> {
    let mut ids: HashMap<String, u32> = HashMap::new();
    let mut by_seller: HashMap<&str, u32> = HashMap::new();
    let mut votes: Vec<Vote> = Vec::new();
    for choice in choices.iter().filter(|choice| choice.transaction.is_none()) {
        let name = *by_seller.entry(&choice.seller).or_insert_with(|| {
            let next = ids.len() as u32;
            *ids.entry(seller_name(&choice.seller)).or_insert(next)
        });
        votes.push((name, choice.user_id, choice.set_at_micros, Reverse(choice.category)));
    }
    votes.sort_unstable();
    let same = |a: &Vote, b: &Vote| (a.0, a.1) == (b.0, b.1);
    let latest = votes.chunk_by(same).filter_map(|of_user| of_user.last());
    let counted = latest.filter(|vote| rules.since_micros.is_none_or(|since| vote.2 >= since));
    let mut counts: Vec<BTreeMap<CategoryId, VoteCount>> = vec![BTreeMap::new(); ids.len()];
    for &(name, _, set_at_micros, Reverse(category)) in counted {
        let none = VoteCount { category, votes: 0, latest_micros: i64::MIN };
        let count = counts[name as usize].entry(category).or_insert(none);
        count.votes += 1;
        count.latest_micros = count.latest_micros.max(set_at_micros);
    }
    let mut names: Vec<(String, u32)> = ids.into_iter().collect();
    names.sort_unstable();
    let seller = |(name, id): (String, u32)| {
        let mut counts: Vec<VoteCount> = std::mem::take(&mut counts[id as usize]).into_values().collect();
        counts.sort_by_key(|count| (Reverse(count.votes), Reverse(count.latest_micros), count.category));
        let first = counts.first()?.category;
        let decided = first != uncategorized && decides(&counts, rules);
        Some(SellerVotes { name, counts, decided })
    };
    names.into_iter().filter_map(seller).collect()
}

/// A tie never decides, regardless of the margin.
fn decides(counts: &[VoteCount], rules: &VoteRules) -> bool {
    let all: u64 = counts.iter().map(|count| count.votes).sum();
    let second = counts.get(1).map_or(0, |count| count.votes);
    let lead = counts[0].votes - second;
    let enough = i128::from(lead) * 1_000_000 >= i128::from(rules.margin_millionths) * i128::from(all);
    counts[0].votes >= rules.votes_min && lead > 0 && enough
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: CategoryId = CategoryId(1);
    const B: CategoryId = CategoryId(2);
    const NONE: CategoryId = CategoryId(9);

    fn choice(user_id: u64, seller: &str, category: CategoryId, set_at_micros: i64) -> Choice {
        Choice { user_id, seller: seller.into(), category, set_at_micros, transaction: None }
    }

    fn rules(votes_min: u64, margin_millionths: i64) -> VoteRules {
        VoteRules { votes_min, margin_millionths, since_micros: None }
    }

    fn counts(votes: &[SellerVotes]) -> Vec<(u8, u64)> {
        votes[0].counts.iter().map(|count| (count.category.0, count.votes)).collect()
    }

    /// A sketch that is only ever added to would remain at 10 to 3.
    #[test]
    fn a_changed_vote_counts_only_for_its_new_category() {
        let mut choices: Vec<Choice> = (0..10).map(|user| choice(user, "Blue Bottle", A, 1)).collect();
        choices.extend((10..13).map(|user| choice(user, "BLUE  BOTTLE #0123", B, 1)));
        let before = count(&choices, &rules(3, 500_000), NONE);
        assert_eq!((counts(&before), before[0].decided), (vec![(1, 10), (2, 3)], true));
        choices.extend((0..8).map(|user| choice(user, "blue bottle", B, 2)));
        let after = count(&choices, &rules(3, 500_000), NONE);
        assert_eq!((counts(&after), after[0].decided), (vec![(2, 11), (1, 2)], true));
        choices.reverse();
        assert_eq!(count(&choices, &rules(3, 500_000), NONE), after, "order does not matter");
    }

    #[test]
    fn few_disputed_or_old_votes_decide_nothing() {
        let choices =
            [choice(1, "x", A, 1), choice(2, "x", A, 2), choice(3, "x", B, 3), choice(1, "x", A, 0)];
        let decided = |rules: VoteRules| count(&choices, &rules, NONE)[0].decided;
        assert!(decided(rules(2, 333_333)));
        assert!(!decided(rules(2, 333_334)), "the lead is 1/3 = 0.333333…");
        assert!(!decided(rules(3, 0)));
        let recent = VoteRules { since_micros: Some(2), ..rules(1, 0) };
        let recent = count(&choices, &recent, NONE);
        assert_eq!((counts(&recent), recent[0].decided), (vec![(2, 1), (1, 1)], false), "a tie");
        assert!(!count(&choices, &rules(1, 0), A)[0].decided, "`uncategorized` never decides");
    }

    #[test]
    fn a_choice_for_one_transaction_is_not_a_vote() {
        let single = Choice { transaction: Some((7, 250)), ..choice(1, "x", A, 1) };
        assert!(count(&[single], &rules(1, 0), NONE).is_empty());
    }
}
