//! Recommended budgets: the amount a user is likely to need for a category in the coming month.
//!
//! In: the template's budget, and the user's spending in the last complete months. Out: an amount
//! and its basis; and all amounts of a user, rounded together.
//! Invariant: integer arithmetic only; the rounded amounts add up to the rounded total, and to at
//! most the given limit.
//!
//! `docs/budgets.md` evaluates the rule on real statements.

/// Complete months considered: the last six, without those in which the user had no transaction.
pub const HISTORY_MONTHS_MAX: usize = 6;

/// With fewer months, a user has no history.
pub const HISTORY_MONTHS_MIN: usize = 3;

/// The basis of a recommended amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Set by the user.
    Manual,
    /// Income × share of the income tier.
    Template,
    /// Past spending.
    History,
    /// Template and history.
    Blended,
}

impl Basis {
    pub const ALL: [Basis; 4] = [Basis::Manual, Basis::Template, Basis::History, Basis::Blended];

    pub fn name(self) -> &'static str {
        match self {
            Basis::Manual => "manual",
            Basis::Template => "template",
            Basis::History => "history",
            Basis::Blended => "blended",
        }
    }
}

/// The mean of the median and the second-highest month, in cents, at least 0; `None` for fewer than
/// three months. A budget at the median is exceeded every second month; one at the highest month is
/// never exceeded, so it never warns. This value lies between them, and no single outlier decides
/// it.
///
/// For x sorted from x₀: (x₍ₙ₋₁₎/₂ + xₙ/₂ + 2 xₙ₋₂) / 4, indexes rounded down.
pub fn history_cents(months: &[i64]) -> Option<i64> {
    let count = months.len();
    assert!(count <= HISTORY_MONTHS_MAX, "older months do not count");
    if count < HISTORY_MONTHS_MIN {
        return None;
    }
    let mut sorted = [0; HISTORY_MONTHS_MAX];
    sorted[..count].copy_from_slice(months);
    sorted[..count].sort_unstable();
    let [low, high, second] = [(count - 1) / 2, count / 2, count - 2].map(|index| i128::from(sorted[index]));
    let sum = low + high + 2 * second;
    Some(i64::try_from(sum.max(0) / 4).expect("a mean lies between its parts"))
}

/// The amount before rounding, and its basis. `months` are the months considered, with 0 for months
/// without spending. `None` without evidence for a budget: no income and too few months, or a
/// history without this category.
pub fn wish(template_cents: Option<i64>, months: &[i64]) -> Option<(i64, Basis)> {
    let Some(history) = history_cents(months) else {
        return template_cents.map(|template| (template, Basis::Template));
    };
    if months.iter().all(|cents| *cents == 0) {
        return None;
    }
    let Some(template) = template_cents else { return Some((history, Basis::History)) };
    Some((blend_cents(template, history, months.len()), Basis::Blended))
}

/// The template has the weight of one month of history.
fn blend_cents(template: i64, history: i64, months: usize) -> i64 {
    let months = months as i128;
    let sum = months * i128::from(history) + i128::from(template);
    i64::try_from(sum / (months + 1)).expect("a mean lies between its parts")
}

/// Usual round amounts: multiples of five below a hundred, of ten from there on.
const FIVE: i64 = 5_00;
const TEN: i64 = 10_00;
const HUNDRED: i64 = 100_00;

/// No user is recommended more: products of 255 such amounts with their total still fit.
const WISH_CENTS_MAX: i64 = 1_000_000_000_000_000;

/// Rounds the non-negative amounts of one user so that their sum is the total rounded to five (to
/// ten, if all of them are a hundred or more), but at most `most_cents`; a larger total is reduced
/// proportionally. Uses the largest remainder (Hamilton) method.
pub fn round_together(wishes_cents: &[i64], most_cents: Option<i64>) -> Vec<i64> {
    let wishes_cents: Vec<i64> = wishes_cents.iter().map(|cents| (*cents).min(WISH_CENTS_MAX)).collect();
    let total: i128 = wishes_cents.iter().map(|cents| i128::from(*cents)).sum();
    if total == 0 {
        return vec![0; wishes_cents.len()];
    }
    let (five, most) = (i128::from(FIVE), most_cents.map_or(i128::MAX, |most| i128::from(most.max(0))));
    let rounded = (total + five / 2) / five * five;
    let target = rounded.min(most / five * five);
    // Each share is `wish × target / total`: whole steps, and a remainder over `total`.
    let divide = |wish: &i64| {
        let share = i128::from(*wish) * target;
        let step = i128::from(if share < i128::from(HUNDRED) * total { FIVE } else { TEN });
        let whole = share / (total * step);
        // Remainders in steps of five are doubled, to be comparable with those in steps of ten.
        (whole * step, step, (share - whole * total * step) * i128::from(TEN) / step)
    };
    let shares: Vec<(i128, i128, i128)> = wishes_cents.iter().map(divide).collect();
    let mut amounts: Vec<i128> = shares.iter().map(|(whole, ..)| *whole).collect();
    let mut left = target - amounts.iter().sum::<i128>();
    // Rounds up to the next step, largest remainder first; among equal ones the first.
    let mut order: Vec<usize> = (0..shares.len()).filter(|index| shares[*index].2 > 0).collect();
    order.sort_by_key(|index| std::cmp::Reverse(shares[*index].2));
    for index in &order {
        let step = shares[*index].1;
        if step <= left {
            amounts[*index] += step;
            left -= step;
        }
    }
    // If five are left but only steps of ten remain, the first amount in steps of five gets them.
    let in_fives = |index: &usize| shares[*index].1 == five && wishes_cents[*index] > 0;
    if left > 0
        && let Some(index) = order.iter().copied().chain(0..shares.len()).find(in_fives)
    {
        amounts[index] += left;
    }
    amounts.into_iter().map(|cents| i64::try_from(cents).expect("a share of what fits")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_single_outlier_does_not_decide() {
        assert_eq!(history_cents(&[100_00, 900_00, 110_00]), Some(110_00));
        assert_eq!(history_cents(&[100_00, 9_000_00, 110_00, 120_00, 90_00, 130_00]), Some(122_50));
        assert_eq!(history_cents(&[0, 0, 0, 0, 0, 500_00]), Some(0));
        assert_eq!(
            history_cents(&[-500_00, -1, 20_00]),
            Some(0),
            "refunds are subtracted, and a budget is not negative"
        );
        assert_eq!(history_cents(&[1_00, 1_00]), None);
    }

    #[test]
    fn the_weight_of_history_grows_with_its_length() {
        assert_eq!(wish(Some(200_00), &[100_00; 2]), Some((200_00, Basis::Template)));
        assert_eq!(wish(Some(200_00), &[100_00; 3]), Some((125_00, Basis::Blended)));
        assert_eq!(wish(Some(240_00), &[100_00; 6]), Some((120_00, Basis::Blended)));
        assert_eq!(wish(None, &[100_00; 6]), Some((100_00, Basis::History)));
        assert_eq!(wish(Some(200_00), &[0; 6]), None, "a category that never occurs needs no budget");
        assert_eq!(wish(None, &[100_00; 2]), None);
    }

    #[test]
    fn amounts_are_rounded_and_add_up() {
        assert_eq!(round_together(&[12_34, 48_00, 333_33], None), [15_00, 50_00, 330_00]);
        assert_eq!(round_together(&[2_50, 2_50, 2_50, 2_50], None), [5_00, 5_00, 0, 0]);
        assert_eq!(round_together(&[600_00, 300_00, 100_00], Some(500_00)), [300_00, 150_00, 50_00]);
        assert_eq!(round_together(&[600_00, 300_00], Some(0)), [0, 0]);
        assert_eq!(round_together(&[0, 0], Some(100)), [0, 0]);
        let largest = round_together(&[999_999_999_999_999_999; 255], None);
        assert!(largest.iter().all(|amount| *amount == WISH_CENTS_MAX), "whatever is spent");
    }

    proptest! {
        #[test]
        fn rounding_keeps_the_total_and_the_limit(
            wishes in proptest::collection::vec(0..1_000_000i64, 1..20),
            most in proptest::option::of(0..5_000_000i64),
        ) {
            let amounts = round_together(&wishes, most);
            let (total, sum): (i64, i64) = (wishes.iter().sum(), amounts.iter().sum());
            prop_assert!(amounts.iter().all(|amount| *amount >= 0 && amount % FIVE == 0));
            prop_assert!(most.is_none_or(|most| sum <= most));
            let target = most.map_or(i64::MAX, |most| most / FIVE * FIVE).min((total + FIVE / 2) / FIVE * FIVE);
            let all_large = amounts.iter().all(|amount| *amount >= HUNDRED || *amount == 0);
            prop_assert!(sum == target || (all_large && target - sum == FIVE), "{} of {}", sum, target);
            for (wish, amount) in wishes.iter().zip(&amounts) {
                let share = i128::from(*wish) * i128::from(target) / i128::from(total.max(1));
                prop_assert!((i128::from(*amount) - share).abs() <= i128::from(TEN), "{} for {}", amount, share);
            }
        }
    }
}
