//! Sums that no column holds: which of the new objects is to be held.
//!
//! In: what was read, and the groups or months whose sums are too large. Out: names of objects and the
//! months they are too large for; then what is to be read without them.
//! Invariant: the object that adds most in the direction of the sum is held, of equal ones the first by
//! name; the choice depends on the objects and the ledger, never on threads or the order of reading.
//! No user is named.

use super::read::{Pending, Prepared, Read};
use super::{Attempt, Wish};
use crate::domain::money::DECIMAL_CENTS_LIMIT;
use crate::domain::month::Month;
use crate::engine::contributions::contributions;
use crate::engine::reduce::Group;
use crate::error::{Error, Kind, Result};
use crate::input::plan::{LogObject, second_delivery, too_large};
use crate::input::published::read_users;
use crate::kernel::fused::{MapRules, Outcome};
use crate::limits::OVERFLOW_ROUNDS_MAX;
use crate::planted::Bug;
use std::collections::{BTreeMap, BTreeSet};

/// Objects by name, and a month whose sum would be too large with each.
pub(super) type TooLarge = BTreeMap<String, Month>;

/// A sum and what each object adds to it, in the order of their names.
struct Sum {
    month: Month,
    /// The sum has to lie closer to zero.
    limit: i128,
    total: i128,
    shares: Vec<(String, i128)>,
}

impl Sum {
    /// Holds objects until the sum of the others fits; `all` that add to it where less did not help.
    fn hold(mut self, held: &mut TooLarge, all: bool) {
        for (name, cents) in &self.shares {
            self.total -= if held.contains_key(name) { *cents } else { 0 };
        }
        while self.total.abs() >= self.limit {
            let sign = self.total.signum();
            let adds = |(name, cents): &&(String, i128)| !held.contains_key(name) && cents * sign > 0;
            let most = match Bug::WrongObjectHeld.is_planted() {
                true => self.shares.iter().filter(adds).min_by_key(|(_, cents)| cents * sign),
                // Of equally large ones the first: `max_by_key` takes the last it meets.
                false => self.shares.iter().rev().filter(adds).max_by_key(|(_, cents)| cents * sign),
            };
            let Some((name, cents)) = most else { return };
            self.total -= cents;
            held.insert(name.clone(), self.month);
        }
        if all {
            let names = self.shares.into_iter().filter(|(_, cents)| *cents != 0).map(|(name, _)| name);
            names.for_each(|name| _ = held.entry(name).or_insert(self.month));
        }
    }
}

/// After so many rounds all objects that add to a sum are held, and not only those that add most:
/// without the negative ones of an object, another sum may be too large.
const PATIENT_ROUNDS: u32 = OVERFLOW_ROUNDS_MAX / 2;

impl Attempt<'_> {
    /// The objects with which the total of a month leaves 64 bits, as a manifest tells it.
    pub(super) fn months_beyond(&self, wish: &Wish, read: &Read) -> Result<TooLarge> {
        let mut held = TooLarge::new();
        let opening = self.head.ledger.months();
        for month in read.sum.by_month.keys() {
            let before = match wish {
                Wish::Count(_) => opening.get(month).map_or(0, |(_, cents)| *cents),
                Wish::Recount(_) => 0,
            };
            let share = |(object, outcome): &(LogObject, Outcome)| {
                let cents = outcome.by_month.get(month).map_or(0, |share| share.net_cents());
                (object.name.clone(), cents)
            };
            let shares: Vec<(String, i128)> = read.kept.iter().map(share).collect();
            let total = before + shares.iter().map(|(_, cents)| cents).sum::<i128>();
            Sum { month: *month, limit: i128::from(i64::MAX), total, shares }.hold(&mut held, false);
        }
        Ok(held)
    }

    /// The objects with which the sums of some groups leave DECIMAL(18,2). They are read again, for
    /// these groups alone.
    pub(super) fn groups_beyond(
        &self,
        wish: &Wish,
        read: &Read,
        groups: BTreeSet<Group>,
        rules: &MapRules,
        (categorizer, _): &Prepared,
        round: u32,
    ) -> Result<TooLarge> {
        let months: BTreeSet<Month> = groups.iter().map(|(month, ..)| *month).collect();
        let touches = |(_, outcome): &&(LogObject, Outcome)| {
            outcome.by_month.keys().any(|month| months.contains(month))
        };
        let objects: Vec<LogObject> = read.kept.iter().filter(touches).map(|(o, _)| o.clone()).collect();
        let found = contributions(&objects, &groups, rules.zone, categorizer, &self.tuning)?;
        let mut held = TooLarge::new();
        for group in groups {
            let before = match wish {
                Wish::Count(_) => self.published_cents(group)?,
                Wish::Recount(_) => 0,
            };
            let cents = found.iter().map(|shares| shares.get(&group).copied().unwrap_or(0));
            let shares: Vec<(String, i128)> =
                objects.iter().map(|object| object.name.clone()).zip(cents).collect();
            let total = before + shares.iter().map(|(_, cents)| cents).sum::<i128>();
            let sum = Sum { month: group.0, limit: i128::from(DECIMAL_CENTS_LIMIT), total, shares };
            sum.hold(&mut held, round >= PATIENT_ROUNDS);
        }
        match held.is_empty() {
            true => Err(Error::invariant("a sum is too large, and no object adds to it")),
            false => Ok(held),
        }
    }

    /// What is published of a group.
    fn published_cents(&self, (month, user_id, category): Group) -> Result<i128> {
        let parts = self.head.month(month, self.lake);
        let groups = read_users(&parts, &(user_id..=user_id), &self.reference.categories)?;
        let group = groups.iter().find(|group| group.category == category);
        Ok(group.map_or(0, |group| i128::from(group.amount_cents)))
    }

    /// What is to be read once these objects are held. Errors: a recount, which has to count all of its
    /// objects; or more rounds than bring anything.
    pub(super) fn without(&self, wish: &Wish, read: Read, held: &TooLarge, round: u32) -> Result<Pending> {
        let Read { kept, held: mut all_held, .. } = read;
        let (name, month) = held.iter().next().expect("there is an object to be held");
        if wish.recount().is_some() || round >= OVERFLOW_ROUNDS_MAX {
            let error = Error::new(Kind::InputRefused, too_large(*month)).at(name);
            return Err(error.advise("take it out of the logs, or correct the amounts it holds"));
        }
        let mut objects = Vec::new();
        for (object, outcome) in kept {
            let Some(month) = held.get(&object.name) else {
                objects.push(object);
                continue;
            };
            // What says the same is too large as well, and the first is not counted after all.
            let twin = second_delivery(&object.name);
            for (.., reason) in all_held.iter_mut().filter(|(.., reason)| *reason == twin) {
                *reason = too_large(*month);
            }
            all_held.push((object, Some(outcome), too_large(*month)));
        }
        Ok(Pending { objects, held: all_held })
    }
}
