//! Keyed checksums: a sum that detects money moved between users, months or categories, and a
//! digest of groups in order.
//!
//! In: (user, month, category, cents), in any order and grouping. Out: T = Σ h(user, month,
//! category) × cents mod 2^61 − 1. The key of h is random per run, so no input can be constructed
//! to collide. The digest of a list of groups is keyed as well.
//! Invariant: T of the parts adds up to T of the whole, and so does the digest.

use crate::domain::category::CategoryId;
use crate::domain::month::Month;
use crate::domain::spend::Spend;

const PRIME: u64 = (1 << 61) - 1;

/// The secret key of one run.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    total: [u64; 3],
    digest: [u64; 6],
}

impl Key {
    /// A key from the operating system's random numbers.
    pub fn random() -> Key {
        let number = |_| getrandom::u64().expect("the operating system has random numbers");
        let [one, two, three] = [0; 3].map(number);
        Key { total: [one | 1, two, three | 1], digest: [0; 6].map(number) }
    }

    /// The weight of one cent of this group: h.
    #[inline]
    fn weight(self, user_id: u64, month: Month, category: CategoryId) -> u64 {
        let slot = u64::from(month.number()) << 8 | u64::from(category.0);
        let first = fold(u128::from(user_id ^ self.total[1]) * u128::from(self.total[0]));
        fold(u128::from(first ^ slot) * u128::from(self.total[2]))
    }

    /// The hash of a group at its place in the list: keyed words multiplied, the halves of the
    /// products folded together, as wyhash does.
    #[inline]
    fn digest(self, place: u64, group: &Spend) -> u64 {
        let [user, cents, slot, count, first, second] = self.digest;
        let multiply = |one: u64, other: u64| fold(u128::from(one) * u128::from(other));
        let place = place << 8 | u64::from(group.category.0);
        let one = multiply(group.user_id ^ user, group.amount_cents.cast_unsigned() ^ cents);
        let two = multiply(place ^ slot, group.transaction_count ^ count);
        multiply(one ^ first, two ^ second)
    }
}

#[inline]
fn fold(product: u128) -> u64 {
    product as u64 ^ (product >> 64) as u64
}

/// A keyed checksum: T.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyedChecksum(u64);

/// A keyed checksum being summed. The sum is reduced modulo 2^61 − 1 once at the end: reducing
/// every share took a third of the time spent on checksums.
///
/// ```text
/// sum = low + high * 2^64
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyedSum {
    low: u128,
    high: i128,
}

impl KeyedSum {
    /// Adds cents of a group. Neither half can overflow in 2^64 calls.
    #[inline]
    pub fn add(&mut self, key: Key, user_id: u64, month: Month, category: CategoryId, cents: i64) {
        // A 64-bit weight times 63 bits and a sign.
        let share = i128::from(key.weight(user_id, month, category)) * i128::from(cents);
        self.low += u128::from(share as u64);
        self.high += share >> 64;
    }

    pub fn total(self) -> KeyedChecksum {
        let prime = i128::from(PRIME);
        let low = (self.low % u128::from(PRIME)).cast_signed();
        // 2^61 ≡ 1, so 2^64 ≡ 8.
        let high = self.high.rem_euclid(prime) * 8;
        KeyedChecksum(((low + high) % prime) as u64)
    }
}

impl KeyedChecksum {
    pub fn plus(self, other: KeyedChecksum) -> KeyedChecksum {
        let sum = self.0 + other.0;
        KeyedChecksum(if sum >= PRIME { sum - PRIME } else { sum })
    }
}

/// The digest of a list of groups. A different list has the same digest with a probability of about
/// 2^-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// The digest of a range of a list; `start` is the index of its first group.
    pub fn of(key: Key, start: usize, groups: &[Spend]) -> Digest {
        let places = groups.iter().zip(start as u64..);
        Digest(places.fold(0, |sum, (group, place)| sum.wrapping_add(key.digest(place, group))))
    }

    /// The digest of two ranges together.
    pub fn plus(self, other: Digest) -> Digest {
        Digest(self.0.wrapping_add(other.0))
    }
}

/// Totals of a sorted range of one month's groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupTotals {
    pub groups: u64,
    pub users: u64,
    pub transactions: u64,
    pub net_cents: i128,
    pub keyed: KeyedChecksum,
}

impl GroupTotals {
    /// Totals of groups sorted by user. The range must start at the first group of its user.
    pub fn of(key: Key, month: Month, groups: &[Spend]) -> GroupTotals {
        let begins = groups.windows(2).filter(|pair| pair[0].user_id != pair[1].user_id).count();
        let users = (begins + usize::from(!groups.is_empty())) as u64;
        let mut totals = GroupTotals { groups: groups.len() as u64, users, ..GroupTotals::default() };
        let mut keyed = KeyedSum::default();
        for group in groups {
            totals.transactions += group.transaction_count;
            totals.net_cents += i128::from(group.amount_cents);
            keyed.add(key, group.user_id, month, group.category, group.amount_cents);
        }
        totals.keyed = keyed.total();
        totals
    }

    /// The totals of two ranges without common users.
    pub fn plus(self, other: GroupTotals) -> GroupTotals {
        GroupTotals {
            groups: self.groups + other.groups,
            users: self.users + other.users,
            transactions: self.transactions + other.transactions,
            net_cents: self.net_cents + other.net_cents,
            keyed: self.keyed.plus(other.keyed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_equals_the_sum_of_reduced_shares() {
        let (key, month, prime) = (Key::random(), "2025-01".parse().unwrap(), i128::from(PRIME));
        let (mut sum, mut expected) = (KeyedSum::default(), 0);
        for user_id in 0..2000 {
            let cents = [i64::MAX, i64::MIN, -1, 0, 1, 4_250, i64::MAX, -7 << 43][user_id as usize % 8];
            sum.add(key, user_id, month, CategoryId(3), cents);
            let weight = i128::from(key.weight(user_id, month, CategoryId(3)));
            expected = (expected + weight % prime * (i128::from(cents) % prime)).rem_euclid(prime);
            assert_eq!(i128::from(sum.total().0), expected, "up to user {user_id}");
        }
    }

    #[test]
    fn a_digest_depends_on_every_field_and_place() {
        let key = Key::random();
        let group = |n: u64| Spend {
            user_id: n / 2,
            category: CategoryId((n % 2) as u8),
            amount_cents: 7 * n as i64 - 20,
            transaction_count: 1 + n % 3,
        };
        let groups: Vec<Spend> = (0..50).map(group).collect();
        let digest = Digest::of(key, 3, &groups);
        for cut in 0..=groups.len() {
            let (head, tail) = groups.split_at(cut);
            assert_eq!(Digest::of(key, 3, head).plus(Digest::of(key, 3 + cut, tail)), digest);
        }
        assert_ne!(Digest::of(key, 4, &groups), digest, "moved");
        assert_ne!(Digest::of(key, 3, &groups[..49]), digest, "shorter");
        for at in 0..49 {
            let differs = |change: &dyn Fn(&mut [Spend])| {
                let mut other = groups.clone();
                change(&mut other);
                Digest::of(key, 3, &other) != digest
            };
            assert!(differs(&|groups| groups[at].user_id += 1));
            assert!(differs(&|groups| groups[at].category.0 ^= 1));
            assert!(differs(&|groups| groups[at].amount_cents = -groups[at].amount_cents));
            assert!(differs(&|groups| groups[at].transaction_count += 1));
            assert!(differs(&|groups| groups.swap(at, at + 1)));
            assert!(differs(&|groups| {
                let cents = groups[at].amount_cents;
                groups[at].amount_cents = groups[at + 1].amount_cents;
                groups[at + 1].amount_cents = cents;
            }));
        }
    }

    #[test]
    fn a_checksum_ignores_order_and_grouping_but_not_owners() {
        let key = Key::random();
        let month: Month = "2025-01".parse().unwrap();
        let total = |rows: &[(u64, u8, i64)]| {
            let mut total = KeyedSum::default();
            for &(user, category, cents) in rows {
                total.add(key, user, month, CategoryId(category), cents);
            }
            total.total()
        };
        let whole = total(&[(1, 0, 700), (2, 0, -300), (1, 3, 5)]);
        assert_eq!(whole, total(&[(1, 3, 5), (2, 0, -400), (1, 0, 200), (2, 0, 100), (1, 0, 500)]));
        assert_eq!(whole, total(&[(1, 3, 5)]).plus(total(&[(1, 0, 700), (2, 0, -300)])));
        assert_ne!(whole, total(&[(2, 0, 700), (1, 0, -300), (1, 3, 5)]), "users swapped");
        assert_ne!(whole, total(&[(1, 1, 700), (2, 0, -300), (1, 3, 5)]), "category moved");
    }
}
