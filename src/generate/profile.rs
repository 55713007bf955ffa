//! The profile of each category: frequency, amounts and names of sellers.
//!
//! In: random bits. Out: amounts in cents.
//! Invariant: amounts are positive multiples of the category's step. They come from tables computed
//! only with exactly rounded arithmetic (+ − × ÷ √), so they are the same on every machine.

use super::random::Bits;
use Spread::{Heavy, Narrow, Tight, Wide};

/// The spread of amounts around their median. Amounts are log-logistic: median × odds^exponent,
/// where odds = share below ÷ share above. The distribution is similar to the log-normal one, but
/// has the longer tail of real spending and needs no exponential function.
#[derive(Clone, Copy)]
pub enum Spread {
    /// Exponent 1/8: rent.
    Tight,
    /// Exponent 1/4: a tank of petrol.
    Narrow,
    /// Exponent 3/8: a basket of groceries.
    Wide,
    /// Exponent 1/2: from a bulb to a wardrobe.
    Heavy,
}

impl Spread {
    fn of_odds(self, odds: f64) -> f64 {
        let fourth_root = odds.sqrt().sqrt();
        match self {
            Spread::Tight => fourth_root.sqrt(),
            Spread::Narrow => fourth_root,
            Spread::Wide => fourth_root * fourth_root.sqrt(),
            Spread::Heavy => odds.sqrt(),
        }
    }
}

pub struct Profile {
    pub code: &'static str,
    /// Share of all rows, in thousandths.
    pub rows: u64,
    /// Share of all sellers, in thousandths.
    pub sellers: u64,
    pub median_cents: u32,
    pub spread: Spread,
    /// Amounts are multiples of this: cash machines give no coins.
    pub step_cents: u32,
    /// Incoming money: amounts are negative.
    pub pays_in: bool,
    /// Second words of sellers' names. Each occurs in one category only.
    pub nouns: &'static [&'static str],
}

const fn spends(
    code: &'static str,
    (rows, sellers): (u64, u64),
    (median_cents, spread, step_cents): (u32, Spread, u32),
    nouns: &'static [&'static str],
) -> Profile {
    Profile { code, rows, sellers, median_cents, spread, step_cents, pays_in: false, nouns }
}

/// All profiles: those of listed sellers, and at [`UNLISTED`] that of the rest.
#[rustfmt::skip]
pub static PROFILES: [Profile; 22] = [
    spends("housing", (8, 12), (65_000, Tight, 500), &["Lettings", "Homes", "Property Management"]),
    spends("utilities", (36, 15), (5500, Narrow, 1), &["Energy", "Water", "Broadband", "Mobile"]),
    spends("groceries", (214, 90), (2800, Wide, 1), &["Foods", "Market", "Grocers", "Supermarket", "Farm Shop", "Butchers & Sons"]),
    spends("dining", (190, 231), (1600, Wide, 1), &["Grill", "Café", "Bakery", "Pizzeria", "Kitchen & Bar", "Noodle House", "Espresso", "Taquería"]),
    spends("gas", (70, 40), (3800, Narrow, 1), &["Fuel", "Petrol Station", "Gas & Go"]),
    spends("auto", (15, 40), (9000, Heavy, 1), &["Garage", "Tyres", "Motors", "Car Wash"]),
    spends("transport", (80, 25), (650, Wide, 5), &["Taxi", "Transit", "Railways", "Parking", "Scooters"]),
    spends("travel", (15, 45), (14_000, Heavy, 1), &["Hotel", "Airlines", "Travel", "Hostel"]),
    spends("shopping", (142, 190), (2600, Heavy, 1), &["Outfitters", "Books", "Electronics", "Department Store", "Shoes", "Gifts", "Bazaar"]),
    spends("home", (30, 55), (4200, Heavy, 1), &["Hardware", "Furniture", "Garden Centre", "Bed, Bath & Linen"]),
    spends("health", (35, 55), (3000, Heavy, 1), &["Pharmacy", "Dental", "Opticians", "Clinic"]),
    spends("personal_care", (30, 55), (2200, Wide, 1), &["Barbers", "Hair Salon", "Beauty", "Nail Studio"]),
    spends("entertainment", (70, 45), (1300, Wide, 1), &["Cinema", "Streaming", "Games", "Theatre", "Bowling"]),
    spends("education", (8, 20), (12_000, Heavy, 1), &["Academy", "Language School", "Tutors"]),
    spends("services", (15, 40), (4500, Heavy, 1), &["Cleaners", "Plumbing", "Couriers", "Solicitors"]),
    spends("fees", (8, 6), (900, Wide, 50), &["Bank Charges", "Card Services"]),
    spends("government", (5, 10), (6000, Heavy, 1), &["City Council", "Licensing Office"]),
    spends("charity", (6, 12), (2500, Wide, 500), &["Relief Fund", "Animal Rescue", "Hospice"]),
    spends("cash", (12, 6), (6000, Narrow, 1000), &["Cash Machine", "Cashpoint"]),
    spends("transfer", (7, 4), (20_000, Heavy, 100), &["Savings", "Money Transfer"]),
    Profile { pays_in: true, ..spends("income", (4, 4), (180_000, Narrow, 1), &["Payroll", "Interest"]) },
    spends("uncategorized", (0, 0), (2000, Heavy, 1), &["Trading", "Ventures", "Online", "Market Stall", "Imports"]),
];

/// The profile of the sellers missing from the dictionary.
pub const UNLISTED: usize = PROFILES.len() - 1;

/// The sum of all [`Profile::rows`], and of all [`Profile::sellers`].
pub const PARTS: u64 = 1000;

const QUANTILES: usize = 1 << QUANTILE_BITS;
const QUANTILE_BITS: u32 = 10;
const FRACTION_BITS: u32 = 16;

/// The amounts of every profile, as tables of quantiles.
pub struct Amounts {
    tables: Vec<[u32; QUANTILES + 1]>,
}

impl Amounts {
    pub fn new() -> Amounts {
        Amounts { tables: PROFILES.iter().map(quantiles).collect() }
    }

    /// A random amount in cents, interpolated between two quantiles.
    pub fn draw(&self, profile: usize, bits: &mut Bits) -> i64 {
        let table = &self.tables[profile];
        let quantile = bits.take(QUANTILE_BITS) as usize;
        let (low, high) = (u64::from(table[quantile]), u64::from(table[quantile + 1]));
        let cents = low + (((high - low) * bits.take(FRACTION_BITS)) >> FRACTION_BITS);
        let step = u64::from(PROFILES[profile].step_cents);
        (cents - cents % step).max(step) as i64
    }

    /// The mean amount of a purchase, in cents.
    pub fn mean_cents(&self, profile: usize) -> f64 {
        let total: u64 = self.tables[profile].iter().map(|&cents| u64::from(cents)).sum();
        total as f64 / (QUANTILES + 1) as f64
    }
}

/// The odds at table entry k of n are (2k + 1) ÷ (2n − 2k + 1): from about 1 in 2n to 2n in 1.
fn quantiles(profile: &Profile) -> [u32; QUANTILES + 1] {
    std::array::from_fn(|entry| {
        let odds = (2 * entry + 1) as f64 / (2 * (QUANTILES - entry) + 1) as f64;
        (f64::from(profile.median_cents) * profile.spread.of_odds(odds)).round() as u32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::category::{Categories, CategoryKind};

    #[test]
    fn profiles_cover_the_default_categories_and_add_up() {
        let categories = Categories::builtin();
        let mut codes: Vec<&str> = PROFILES.iter().map(|p| p.code).collect();
        codes.sort_unstable();
        assert_eq!(codes, categories.codes().collect::<Vec<_>>());
        assert_eq!(PROFILES.iter().map(|p| p.rows).sum::<u64>(), PARTS);
        assert_eq!(PROFILES.iter().map(|p| p.sellers).sum::<u64>(), PARTS);
        for profile in &PROFILES {
            let kind = categories.kind(categories.id(profile.code).unwrap());
            assert_eq!(profile.pays_in, kind == CategoryKind::Income, "{}", profile.code);
        }
    }

    #[test]
    fn amounts_have_their_median_and_step() {
        let amounts = Amounts::new();
        for (number, profile) in PROFILES.iter().enumerate() {
            let middle = u64::from(amounts.tables[number][QUANTILES / 2]);
            assert_eq!(middle, u64::from(profile.median_cents));
            for bits in [0, 1 << 9, u64::MAX] {
                let cents = amounts.draw(number, &mut Bits(bits));
                assert!(cents > 0 && cents % i64::from(profile.step_cents) == 0);
            }
        }
    }
}
