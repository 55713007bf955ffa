//! A part as the store gives it, held to what was meant.
//!
//! In: a part, and what its row groups were meant to hold. Out: what it adds up to.
//! Invariant: what is added up was decoded from what the store gave, and its digests are those of the
//! groups that were encoded.

use crate::domain::month::Month;
use crate::domain::spend::Spend;
use crate::error::{Error, Result};
use crate::input::published::OpenPart;
use crate::kernel::keyed::{Digest, GroupTotals, Key};
use rayon::prelude::*;

/// What a row group was meant to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meant {
    /// Groups of the part before these.
    pub start: usize,
    pub groups: usize,
    pub digest: Digest,
}

impl Meant {
    /// With so many more groups behind it.
    pub fn followed_by(self, groups: usize, digest: Digest) -> Meant {
        Meant { groups: self.groups + groups, digest: self.digest.plus(digest), ..self }
    }
}

/// Groups that follow each other in a part.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub first: Spend,
    pub last: Spend,
    pub totals: GroupTotals,
    digest: Digest,
}

impl Stretch {
    /// Of sorted groups, before which so many of the part stand. None of none.
    fn of(key: Key, month: Month, start: usize, groups: &[Spend]) -> Option<Stretch> {
        let (first, last) = (*groups.first()?, *groups.last()?);
        let (totals, digest) = (GroupTotals::of(key, month, groups), Digest::of(key, start, groups));
        Some(Stretch { first, last, totals, digest })
    }

    /// Both together. None if keys do not rise from one to the other.
    fn followed_by(self, next: Stretch) -> Option<Stretch> {
        let mut totals = self.totals.plus(next.totals);
        if self.last.user_id == next.first.user_id {
            // Told by both.
            totals.users -= 1;
        }
        let whole = Stretch { last: next.last, totals, digest: self.digest.plus(next.digest), ..self };
        (self.last.key() < next.first.key()).then_some(whole)
    }
}

/// Adds up a part, its row groups on all threads of the pool. Errors when something else stands in them
/// than was meant.
pub fn verify(part: &OpenPart, meant: &[Meant], key: Key, month: Month) -> Result<Stretch> {
    let otherwise = || Error::invariant("a part reads back otherwise than it was written").at(part.shown());
    if part.row_groups() != meant.len() {
        return Err(otherwise());
    }
    let mut starts = meant.iter().scan(0, |before, meant| {
        let is_next = meant.start == *before;
        *before += meant.groups;
        Some(is_next)
    });
    if !starts.all(|is_next| is_next) {
        return Err(otherwise());
    }
    let row_group = |(index, meant): (usize, &Meant)| {
        let mut whole: Option<Stretch> = None;
        let mut start = meant.start;
        part.read(vec![index], |groups| {
            let next = Stretch::of(key, month, start, groups);
            start += groups.len();
            whole = match (whole, next) {
                (Some(whole), Some(next)) => Some(whole.followed_by(next).ok_or_else(otherwise)?),
                (whole, next) => whole.or(next),
            };
            Ok(())
        })?;
        let is_meant =
            |stretch: &Stretch| (start - meant.start, stretch.digest) == (meant.groups, meant.digest);
        whole.filter(is_meant).ok_or_else(otherwise)
    };
    let row_groups = meant.par_iter().enumerate().map(row_group).collect::<Result<Vec<Stretch>>>()?;
    let mut row_groups = row_groups.into_iter();
    let first = row_groups.next().ok_or_else(otherwise)?;
    row_groups.try_fold(first, Stretch::followed_by).ok_or_else(otherwise)
}

#[cfg(test)]
mod tests {
    use super::super::encode;
    use super::*;
    use crate::domain::category::{Categories, CategoryId};
    use crate::limits::ROW_GROUP_ROWS;

    fn groups(count: u64) -> Vec<Spend> {
        let group = |n: u64| Spend {
            user_id: n / 3,
            category: CategoryId((n % 3) as u8),
            amount_cents: 1,
            transaction_count: 1,
        };
        (0..count).map(group).collect()
    }

    #[test]
    fn row_groups_are_held_to_their_places_and_digests() {
        let (key, month, categories) = (Key::random(), "2025-01".parse().unwrap(), Categories::builtin());
        let groups = groups(2 * ROW_GROUP_ROWS as u64 + 7);
        let part = OpenPart::open(encode(&groups, &categories).unwrap(), &categories, "part").unwrap();
        let meant = |starts: [usize; 3]| -> Vec<Meant> {
            let of = |(start, groups): (usize, &[Spend])| Meant {
                start,
                groups: groups.len(),
                digest: Digest::of(key, start, groups),
            };
            starts.into_iter().zip(groups.chunks(ROW_GROUP_ROWS)).map(of).collect()
        };
        let right = meant([0, ROW_GROUP_ROWS, 2 * ROW_GROUP_ROWS]);
        let whole = verify(&part, &right, key, month).unwrap();
        assert_eq!(whole.totals, GroupTotals::of(key, month, &groups));
        assert_eq!((whole.first, whole.last), (groups[0], *groups.last().unwrap()));
        let fails = |meant: &[Meant]| verify(&part, meant, key, month).is_err();
        assert!(fails(&meant([0, ROW_GROUP_ROWS, 2 * ROW_GROUP_ROWS + 1])), "a gap");
        assert!(fails(&meant([0, 0, ROW_GROUP_ROWS])), "one place twice");
        assert!(fails(&right[..2]), "a row group more");
        let mut other = right.clone();
        other[1].digest = other[1].digest.plus(other[2].digest);
        assert!(fails(&other), "another digest");
    }

    #[test]
    fn stretches_are_told_as_the_whole() {
        let (key, month) = (Key::random(), "2025-01".parse().unwrap());
        let groups = groups(30);
        let of = |start, groups| Stretch::of(key, month, start, groups);
        for cut in 1..groups.len() {
            let (head, tail) = groups.split_at(cut);
            let (head, tail) = (of(7, head).unwrap(), of(7 + cut, tail).unwrap());
            let whole = head.followed_by(tail).unwrap();
            assert_eq!(whole.totals, GroupTotals::of(key, month, &groups));
            assert_eq!(whole.digest, Digest::of(key, 7, &groups));
            assert_eq!((whole.first, whole.last), (groups[0], groups[29]));
            assert!(tail.followed_by(head).is_none() && head.followed_by(head).is_none(), "keys must rise");
        }
    }
}
