//! Users: their ids, activity and expected share of the rows.
//!
//! In: the number of users. Out: ids, and draws of users by activity.
//! Invariant: ids are distinct, ascend with the slot and need no table, so memory does not grow
//! with the number of users.

use super::random::{Purpose, Random, mix, scale};

/// Ids start here and span up to ten times as much, so that most have eight digits.
const FIRST_ID: u64 = 10_000_000;
const ID_SPAN: u64 = 90_000_000;

/// A user has a rank (0 is the most active) and a slot (0 has the lowest id).
pub struct Users {
    seed: u64,
    count: u64,
    /// slot = (rank + 1) × multiplier mod count; `inverse` reverses it.
    multiplier: u64,
    inverse: u64,
    /// Each slot has its own range of ids of this width, in order.
    id_stride: u64,
}

impl Users {
    /// 1 to 2³² − 1 users.
    pub fn new(count: u64, seed: u64) -> Users {
        // The golden ratio scatters neighbouring ranks most evenly.
        let start = count * 618 / 1000 + 1;
        let (multiplier, inverse) = (start..)
            .find_map(|candidate| Some((candidate, inverse(candidate, count)?)))
            .expect("some integer from any start on is coprime to count");
        let id_stride = (ID_SPAN / count).max(1);
        Users { seed, count, multiplier, inverse, id_stride }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The slot of a user drawn by activity. The density over ranks x of 0 to 1 is 1 ÷ (2√x): the
    /// least active user has half the average, the first in a million a thousand times the average.
    pub fn draw_slot(&self, bits: u64) -> u64 {
        self.slot(scale(scale(bits, bits), self.count))
    }

    fn slot(&self, rank: u64) -> u64 {
        (rank + 1) * self.multiplier % self.count
    }

    fn rank(&self, slot: u64) -> u64 {
        (slot * self.inverse % self.count + self.count - 1) % self.count
    }

    /// This user's expected share of all rows.
    pub fn share(&self, slot: u64) -> f64 {
        let rank = self.rank(slot);
        let below = |rank: u64| (rank as f64 / self.count as f64).sqrt();
        below(rank + 1) - below(rank)
    }

    pub fn id(&self, slot: u64) -> u64 {
        let offset = scale(mix(self.seed ^ mix(slot)), self.id_stride);
        FIRST_ID + slot * self.id_stride + offset
    }

    /// The random stream of one user and purpose.
    pub fn stream(&self, purpose: Purpose, slot: u64) -> Random {
        Random::stream(self.seed, purpose, slot)
    }
}

/// The inverse of `value` modulo `modulus` by Euclid's algorithm; `None` if they share a factor.
fn inverse(value: u64, modulus: u64) -> Option<u64> {
    let modulus = i128::from(modulus);
    let (mut rest, mut next_rest) = (modulus, i128::from(value) % modulus);
    let (mut factor, mut next_factor) = (0i128, 1i128);
    while next_rest != 0 {
        let quotient = rest / next_rest;
        (rest, next_rest) = (next_rest, rest - quotient * next_rest);
        (factor, next_factor) = (next_factor, factor - quotient * next_factor);
    }
    (rest == 1).then(|| factor.rem_euclid(modulus) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_and_ranks_and_slots_are_inverse() {
        for count in [1, 2, 3, 10, 500, 1000, 65_536] {
            let users = Users::new(count, 7);
            let ids: Vec<u64> = (0..count).map(|slot| users.id(slot)).collect();
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{count}");
            for rank in 0..count {
                assert_eq!(users.rank(users.slot(rank)), rank);
            }
            let total: f64 = (0..count).map(|slot| users.share(slot)).sum();
            assert!((total - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn few_users_are_very_active_and_nearly_all_occur() {
        let users = Users::new(1000, 7);
        let mut random = Random::new(7);
        let mut rows = vec![0u64; 1000];
        for _ in 0..20_000 {
            rows[users.draw_slot(random.draw()) as usize] += 1;
        }
        let most = (0..1000).max_by_key(|&slot| rows[slot]).unwrap();
        assert!(rows[most] > 500, "{}", rows[most]);
        assert!((users.share(most as u64) * 20_000.0 - rows[most] as f64).abs() < 150.0);
        assert!(rows.iter().filter(|&&count| count == 0).count() < 5);
    }
}
