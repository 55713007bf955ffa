//! Where pages and parts of a month end.
//!
//! In: the closing groups of each month in the order of users. Out: pages, each with its place.
//! Invariant: a page is full unless it ends a part, and a part ends with the first user that fills it;
//! so where anything ends, row groups too, depends on the groups alone, however they come.

use crate::domain::month::Month;
use crate::kernel::groups::Groups;
use crate::limits::{PAGE_GROUPS, PART_GROUPS};
use std::collections::BTreeMap;

/// Groups that make a page, and where they belong.
pub struct Page {
    pub month: Month,
    /// Which part of the month, from 0.
    pub part: usize,
    /// Groups of the part before these.
    pub start: usize,
    pub groups: Vec<Groups>,
    pub ends_part: bool,
}

impl Page {
    pub fn count(&self) -> usize {
        self.groups.iter().map(|piece| piece.len()).sum()
    }
}

/// A longer list is not kept for what is left of it.
const LIST_GROUPS_KEPT: usize = 4 * PAGE_GROUPS;

/// Cuts the groups of each month into pages.
#[derive(Default)]
pub struct Cutter {
    months: BTreeMap<Month, Open>,
}

/// The part of a month that is being filled.
#[derive(Default)]
struct Open {
    part: usize,
    /// Its groups that were handed out.
    start: usize,
    /// Its groups that were not, and how many.
    groups: Vec<Groups>,
    count: usize,
    last_user: u64,
}

impl Cutter {
    /// Adds the next groups of a month; hands out what is full.
    pub fn add(&mut self, month: Month, groups: Groups, mut emit: impl FnMut(Page)) {
        let open = self.months.entry(month).or_default();
        let mut taken = 0;
        while let Some(next) = groups.get(taken) {
            let fills_part = open.start + open.count >= PART_GROUPS;
            let ends_part = fills_part && next.user_id != open.last_user;
            if ends_part || open.count == PAGE_GROUPS {
                emit(open.take(month, ends_part));
                continue;
            }
            let (rest, room) = (&groups[taken..], PAGE_GROUPS - open.count);
            let fit = match fills_part {
                true => rest.partition_point(|group| group.user_id <= open.last_user).min(room),
                false => rest.len().min(room),
            };
            open.add(groups.slice(taken..taken + fit));
            taken += fit;
        }
        open.let_go();
    }

    /// What is left: the end of the last part of each month.
    pub fn finish(self) -> Vec<Page> {
        let rest = self.months.into_iter().filter(|(_, open)| open.count > 0);
        rest.map(|(month, mut open)| open.take(month, true)).collect()
    }
}

impl Open {
    fn add(&mut self, piece: Groups) {
        self.count += piece.len();
        self.last_user = piece.last().map_or(self.last_user, |last| last.user_id);
        self.groups.push(piece);
    }

    /// What is left of a long list is copied: it would keep all of it in memory until the month goes on.
    fn let_go(&mut self) {
        if let Some(last) = self.groups.last_mut()
            && last.held() > LIST_GROUPS_KEPT
        {
            *last = Groups::of(last.to_vec());
        }
    }

    fn take(&mut self, month: Month, ends_part: bool) -> Page {
        let (groups, count) = (std::mem::take(&mut self.groups), std::mem::take(&mut self.count));
        let (part, start) = (self.part, self.start);
        (self.part, self.start) = match ends_part {
            true => (part + 1, 0),
            false => (part, start + count),
        };
        Page { month, part, start, groups, ends_part }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::category::CategoryId;
    use crate::domain::spend::Spend;

    fn cut(groups: &[Spend], step: usize) -> Vec<Page> {
        let month: Month = "2025-01".parse().unwrap();
        let (mut cutter, mut cut) = (Cutter::default(), Vec::new());
        for groups in groups.chunks(step) {
            cutter.add(month, Groups::of(groups.to_vec()), |page| cut.push(page));
        }
        cut.extend(cutter.finish());
        cut
    }

    fn flat(page: &Page) -> Vec<Spend> {
        page.groups.iter().flat_map(|piece| piece.to_vec()).collect()
    }

    fn of_users(count: usize, user: impl Fn(usize) -> usize) -> Vec<Spend> {
        let group = |n: usize| Spend {
            user_id: user(n) as u64,
            category: CategoryId((n % 3) as u8),
            amount_cents: 1,
            transaction_count: 1,
        };
        (0..count).map(group).collect()
    }

    #[test]
    fn parts_end_with_a_user_wherever_the_stream_is_cut() {
        let groups = of_users(PART_GROUPS * 2 + 12_345, |n| n / 3);
        let whole = cut(&groups, groups.len());
        let all: Vec<Spend> = whole.iter().flat_map(flat).collect();
        assert!(all == groups);
        // A million groups are no whole number of users of three: a page is left for the last of them.
        let lengths: Vec<usize> = whole.iter().map(Page::count).collect();
        let full = [PAGE_GROUPS; PART_GROUPS / PAGE_GROUPS];
        assert_eq!(lengths, [&full[..], &[2], &full, &[2], &[12_341]].concat());
        let ends: Vec<usize> = (0..whole.len()).filter(|index| whole[*index].ends_part).collect();
        assert_eq!(ends, [64, 129, 130]);
        for pair in whole.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let place = match before.ends_part {
                true => (before.part + 1, 0),
                false => (before.part, before.start + before.count()),
            };
            assert_eq!((after.part, after.start), place);
        }
        for step in [1000, 1001, PAGE_GROUPS, PAGE_GROUPS + 1, PART_GROUPS] {
            let other = cut(&groups, step);
            assert_eq!(other.len(), whole.len());
            for (one, other) in whole.iter().zip(&other) {
                assert_eq!((one.part, one.start, one.ends_part), (other.part, other.start, other.ends_part));
                assert!(flat(one) == flat(other), "{step}");
            }
        }
    }

    #[test]
    fn a_part_that_is_filled_to_the_last_group_ends_there() {
        for more in [0, 1] {
            let groups = of_users(PART_GROUPS + more, |n| n);
            let whole = cut(&groups, 100_000);
            assert_eq!((whole.len(), whole[63].ends_part), (64 + more, true));
        }
    }

    #[test]
    fn a_user_who_fills_parts_stands_in_one() {
        let groups = of_users(PART_GROUPS + 2 * PAGE_GROUPS + 5, |n| n / (PART_GROUPS + 2 * PAGE_GROUPS));
        for step in [4096, PART_GROUPS * 2] {
            let whole = cut(&groups, step);
            let ends: Vec<usize> = (0..whole.len()).filter(|index| whole[*index].ends_part).collect();
            assert_eq!((whole.len(), ends), (67, vec![65, 66]));
        }
    }
}
