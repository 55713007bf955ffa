//! What each object adds to some groups, looked for in the raw logs.
//!
//! In: objects, the groups, the rules of a job. Out: for each object its cents of each group.
//! Invariant: the cents are those that a run counts, however many rows they are of; only lines of the
//! groups' users are parsed.

use super::local::Tuning;
use super::read::scan;
use super::reduce::Group;
use crate::domain::zone::Zone;
use crate::error::{Error, Kind, Result};
use crate::input::plan::{LogObject, Split, splits};
use crate::kernel::categorize::Categorizer;
use crate::kernel::memo::{Known, Memo};
use crate::kernel::parse::{Line, parse_line};
use crate::kernel::scan::Block;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Cents by group.
pub type Shares = BTreeMap<Group, i128>;

/// What each of the objects adds to these groups.
pub fn contributions(
    objects: &[LogObject],
    groups: &BTreeSet<Group>,
    zone: &Zone,
    categorizer: &Categorizer,
    tuning: &Tuning,
) -> Result<Vec<Shares>> {
    let splits = splits(objects, tuning.split_bytes);
    let known = Known::new(categorizer);
    let users: BTreeSet<u64> = groups.iter().map(|(_, user, _)| *user).collect();
    let read = |split: &Split| {
        let mut memo = Memo::new(&known);
        let cents = |line: &[u8]| {
            let Line::Transaction(transaction) = parse_line(line, zone) else { return None };
            let category = memo.categorize(&transaction).category;
            let group = (transaction.month, transaction.user_id, category);
            groups.contains(&group).then_some((group, transaction.amount_cents))
        };
        let found = of_split(&objects[split.object], *split, tuning.read_bytes, &users, cents)?;
        Ok((split.object, found))
    };
    let found: Vec<(usize, Shares)> =
        tuning.pool()?.install(|| splits.par_iter().map(read).collect::<Result<_>>())?;
    let mut by_object = vec![Shares::new(); objects.len()];
    for (object, shares) in found {
        shares.into_iter().for_each(|(group, cents)| *by_object[object].entry(group).or_default() += cents);
    }
    Ok(by_object)
}

/// Adds up what `cents` finds in the lines of some users.
fn of_split(
    object: &LogObject,
    split: Split,
    read_bytes: usize,
    users: &BTreeSet<u64>,
    mut cents: impl FnMut(&[u8]) -> Option<(Group, i64)>,
) -> Result<Shares> {
    let mut shares = Shares::new();
    let read = scan(object, split, read_bytes, |block, _| {
        // An overlong line is no transaction.
        let Block::Lines { bytes, .. } = block else { return true };
        for line in bytes.split(|b| *b == b'\n') {
            let user = line.split(|b| *b == b'\t').next().unwrap_or_default();
            let user = str::from_utf8(user).ok().and_then(|user| user.parse::<u64>().ok());
            if user.is_some_and(|user| users.contains(&user))
                && let Some((group, cents)) = cents(line)
            {
                *shares.entry(group).or_default() += i128::from(cents);
            }
        }
        true
    })?;
    read.map_err(|damage| Error::new(Kind::InputRefused, damage).at(&object.name))?;
    Ok(shares)
}
