//! The stages that `benches/` times, over few rows.
//!
//! In: generated logs. Out: pass or fail. Invariant: a stage does the same each time, and what the
//! stages find out apart from each other agrees.

#[path = "../benches/stages.rs"]
mod stages;

use pennymill::domain::category::Categories;
use pennymill::input::published::read_groups;
use pennymill::output::monthly::encode;
use stages::{Checksum, Data, STAGES, Stage, checksum_of_groups};

const ROWS: u64 = 2000;

fn data(seed: u64) -> Data {
    Data::new(ROWS, seed).unwrap()
}

#[test]
fn a_stage_does_the_same_each_time() {
    let (data, again) = (data(7), data(7));
    for make in STAGES {
        let mut stage = make(&data);
        let (first, second) = ((stage.run)().1, (stage.run)().1);
        assert_eq!(first, second, "{}", stage.name);
        assert_eq!(first, (make(&again).run)().1, "{} from the same seed", stage.name);
    }
}

#[test]
fn stages_agree_with_each_other_and_with_the_generator() {
    let data = data(11);
    let checksum = |make: fn(&Data) -> Stage<'_>| (make(&data).run)().1;
    let net_cents = data.made.net_cents();
    assert_eq!(checksum(stages::separators), Checksum::from(4 * ROWS), "three tabs and a newline a row");
    assert_eq!(checksum(stages::parse), net_cents);
    assert_eq!(checksum(stages::map), Checksum::from(ROWS));
    assert_eq!(checksum(stages::sum_up), net_cents);
    assert_eq!(checksum(stages::job), net_cents);
    let groups = data.groups();
    assert_eq!(
        groups.iter().flatten().map(|group| Checksum::from(group.amount_cents)).sum::<Checksum>(),
        net_cents
    );
    assert_eq!(groups.iter().flatten().map(|group| group.transaction_count).sum::<u64>(), ROWS);
    assert_eq!(checksum(stages::decode), checksum_of_groups(&groups));
    let categories = Categories::builtin();
    for month in &groups {
        let bytes = encode(month, &categories).unwrap();
        assert!(read_groups(bytes, &categories, "a part").unwrap() == *month);
    }
}
