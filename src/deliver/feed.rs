//! What is to be delivered: the alerts of committed runs that are not settled, message by message.
//!
//! In: a lake, contacts. Out: messages, oldest version first; who has no contact.
//! Invariant: of what the lake holds one part is in memory at a time, held to its checksum.

use super::message::{Batch, Message};
use crate::domain::alert::AlertRecord;
use crate::domain::category::Categories;
use crate::error::{Error, Result};
use crate::input::alerts::read_records;
use crate::input::contacts::{Channel, Contact, Contacts};
use crate::input::published::EVERYBODY;
use crate::output::deliveries;
use crate::output::lake::{BUDGET_ALERTS, Lake};
use crate::output::manifest::PartRecord;
use crate::output::part::sha256;
use crate::output::table::Table;
use crate::store::wait;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::RangeInclusive;

/// The part that is read, and what is left of it.
struct OfPart<'a> {
    batch: Batch<'a>,
    /// By user.
    records: VecDeque<AlertRecord>,
    of_many: BTreeMap<&'a str, (Contact<'a>, Vec<AlertRecord>)>,
}

pub struct Feed<'a> {
    lake: &'a Lake,
    contacts: &'a Contacts,
    categories: &'a Categories,
    spending: &'a Table,
    /// Those that were not begun.
    versions: RangeInclusive<u64>,
    /// The version that is read.
    version: u64,
    run_id: std::sync::Arc<str>,
    parts: VecDeque<PartRecord>,
    settled: HashSet<u128>,
    of_part: Option<OfPart<'a>>,
    messages: VecDeque<Message<'a>>,
    /// Alerts that concern a user without a contact.
    pub without_contact: u64,
}

impl<'a> Feed<'a> {
    pub fn new(
        lake: &'a Lake,
        contacts: &'a Contacts,
        categories: &'a Categories,
        spending: &'a Table,
    ) -> Result<Feed<'a>> {
        let settled = deliveries::settled_version(lake)?;
        Ok(Feed {
            lake,
            contacts,
            categories,
            spending,
            versions: settled + 1..=spending.version(),
            version: settled,
            run_id: "".into(),
            parts: VecDeque::new(),
            settled: HashSet::new(),
            of_part: None,
            messages: VecDeque::new(),
            without_contact: 0,
        })
    }

    /// The next message, and nothing behind the last one.
    pub fn next(&mut self) -> Result<Option<Message<'a>>> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(Some(message));
            }
            match self.of_part.take() {
                Some(part) => self.of_part = self.read_on(part),
                None if !self.next_part()? => return Ok(None),
                None => {}
            }
        }
    }

    /// The version of the last message.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Makes the messages of the next user, or those for many once there is no user left. Out: the
    /// part, if there is more of it.
    fn read_on(&mut self, mut part: OfPart<'a>) -> Option<OfPart<'a>> {
        let Some(first) = part.records.front() else {
            for (contact, records) in part.of_many.into_values() {
                self.add(Message::new(None, contact, part.batch.clone(), records));
            }
            return None;
        };
        let user_id = first.user_id;
        let others = part.records.iter().position(|record| record.user_id != user_id);
        let records: Vec<AlertRecord> = part.records.drain(..others.unwrap_or(part.records.len())).collect();
        let contacts = self.contacts.of(user_id);
        if contacts.is_empty() {
            self.without_contact += records.len() as u64;
        }
        for contact in contacts {
            let message = |records: &[AlertRecord]| {
                Message::new(Some(user_id), contact, part.batch.clone(), records.to_vec())
            };
            match contact.channel {
                Channel::Webhook => records.chunks(1).map(message).for_each(|message| self.add(message)),
                Channel::Smtp => self.add(message(&records)),
                Channel::File => {
                    let of_many = part.of_many.entry(contact.address).or_insert((contact, Vec::new()));
                    of_many.1.extend(&records);
                }
            }
        }
        Some(part)
    }

    fn add(&mut self, message: Message<'a>) {
        if !self.settled.contains(&message.id) {
            self.messages.push_back(message);
        }
    }

    /// Reads the next part, of this version or a later one. Out: whether there is one.
    fn next_part(&mut self) -> Result<bool> {
        let part = loop {
            if let Some(part) = self.parts.pop_front() {
                break part;
            }
            let Some(version) = self.versions.next() else { return Ok(false) };
            let Some(manifest) = wait(self.lake.manifest(self.spending, version))? else { continue };
            self.parts = manifest.alert_parts().iter().cloned().collect();
            if !self.parts.is_empty() {
                self.settled = deliveries::settled(self.lake, version)?;
                self.version = version;
                self.run_id = manifest.run_id.as_str().into();
            }
        };
        let month = part.month.parse().map_err(|_| Error::invariant("a part without a month"))?;
        let (version, run_id, categories) = (self.version, self.run_id.clone(), self.categories);
        let batch = Batch { version, run_id, month, categories };
        self.of_part = Some(OfPart { batch, records: self.records(&part)?, of_many: BTreeMap::new() });
        Ok(true)
    }

    /// The records of a part, held to its checksum.
    fn records(&self, part: &PartRecord) -> Result<VecDeque<AlertRecord>> {
        let place = self.lake.place.child(BUDGET_ALERTS).child(&part.path);
        let bytes = place.read()?;
        if sha256(&bytes) != part.sha256 {
            return Err(Error::unfit("it is not what was written: the lake is damaged").at(&place.shown));
        }
        let mut records = VecDeque::new();
        read_records(bytes, &EVERYBODY, self.categories, |record| records.push_back(record))
            .map_err(|e| e.at(&place.shown))?;
        Ok(records)
    }
}
