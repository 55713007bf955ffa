//! The generator's random numbers, and draws by weight.
//!
//! In: a seed, a purpose and a number. Out: 64-bit values, and indexes drawn by weight.
//! Invariant: the values depend on these alone, on every machine and in every version. The stream
//! is SplitMix64 as published (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
//! Generators", 2014). Weights are integers, so no draw depends on a library's version or on the
//! platform's floating-point functions.

/// The purpose of a stream. The numbers are part of the format: changing one changes every data
/// set.
#[derive(Clone, Copy)]
pub enum Purpose {
    Rows = 1,
    BadRows = 2,
    Users = 3,
    Budgets = 4,
    Overrides = 5,
}

/// SplitMix64.
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The independent stream of part `number` of `purpose`, so that any part can be made without
    /// the previous ones.
    pub fn stream(seed: u64, purpose: Purpose, number: u64) -> Random {
        Random::new(mix(mix(seed ^ mix(purpose as u64)) ^ number))
    }

    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number in `0..bound`. The bias is less than `bound` ÷ 2⁶⁴.
    pub fn below(&mut self, bound: u64) -> u64 {
        scale(self.draw(), bound)
    }

    pub fn one_of<T>(&mut self, choices: &'static [T]) -> &'static T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// True once in `count` draws.
    pub fn once_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// The output function of SplitMix64: a bijection in which every input bit affects every output
/// bit.
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// `bits` × `bound` ÷ 2⁶⁴: a multiplication where `%` would need a division.
pub fn scale(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// One 64-bit draw, consumed a few bits at a time.
pub struct Bits(pub u64);

impl Bits {
    pub fn take(&mut self, count: u32) -> u64 {
        let taken = self.0 & ((1 << count) - 1);
        self.0 >>= count;
        taken
    }
}

/// Draws indexes by integer weights in constant time (Walker's alias method with Vose's
/// construction).
pub struct Weighted {
    /// For each slot: the share of its own index, in units of 2⁻³², and the index that gets the
    /// rest.
    slots: Vec<(u32, u32)>,
}

impl Weighted {
    /// At least one weight, fewer than 2³², not all zero.
    pub fn new(weights: &[u64]) -> Weighted {
        let count = weights.len() as u128;
        let total: u128 = weights.iter().map(|&w| u128::from(w)).sum();
        // Scaled so that the average slot is exactly `total`.
        let mut left: Vec<u128> = weights.iter().map(|&w| u128::from(w) * count).collect();
        let mut slots: Vec<(u32, u32)> = (0..weights.len() as u32).map(|i| (u32::MAX, i)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&index| left[index] < total);
        while let (Some(&giver), Some(taker)) = (large.last(), small.pop()) {
            slots[taker] = (((left[taker] << 32) / total) as u32, giver as u32);
            left[giver] -= total - left[taker];
            if left[giver] < total {
                large.pop();
                small.push(giver);
            }
        }
        Weighted { slots }
    }

    pub fn draw(&self, bits: u64) -> u32 {
        let slot = ((bits >> 32) * self.slots.len() as u64) >> 32;
        let (own_share, other) = self.slots[slot as usize];
        if (bits as u32) < own_share { slot as u32 } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        let mut random = Random::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.draw()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn draws_follow_the_weights() {
        let weights = [1, 0, 5, 94, 300, 600];
        let weighted = Weighted::new(&weights);
        let mut random = Random::new(1);
        let mut drawn = [0u64; 6];
        for _ in 0..1_000_000 {
            drawn[weighted.draw(random.draw()) as usize] += 1;
        }
        assert_eq!(drawn[1], 0);
        for (&weight, &count) in weights.iter().zip(&drawn) {
            assert!(count.abs_diff(weight * 1000) <= 1500, "{weight}: {count}");
        }
    }

    #[test]
    fn one_weight_is_always_drawn() {
        let weighted = Weighted::new(&[3]);
        assert_eq!(weighted.draw(u64::MAX), 0);
        assert_eq!(weighted.draw(0), 0);
    }
}
