//! Who is to be told, and where: the table of contacts.
//!
//! In: a table of user, channel and address. Out: the contacts of a user.
//! Invariant: an address appears in no error and no log; whoever names one names its line.

use super::reference::user_id;
use super::table_rows::{Refused, Source, for_each_line, required};
use crate::error::Result;

/// How somebody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// An HTTP request for each alert.
    Webhook,
    /// One mail for each run.
    Smtp,
    /// Lines of JSON in an object store.
    File,
}

impl Channel {
    pub const ALL: [Channel; 3] = [Channel::Webhook, Channel::Smtp, Channel::File];

    pub fn name(self) -> &'static str {
        match self {
            Channel::Webhook => "webhook",
            Channel::Smtp => "smtp",
            Channel::File => "file",
        }
    }
}

/// One way to tell somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact<'c> {
    pub channel: Channel,
    pub address: &'c str,
    /// Of the table.
    pub line: u64,
}

/// Where an address stands in the text of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    user_id: u64,
    channel: Channel,
    start: usize,
    length: usize,
    line: u64,
}

/// All contacts: about 40 bytes and the address for each.
#[derive(Debug, Default)]
pub struct Contacts {
    by_user: Vec<Entry>,
    /// Those whose user is `*`.
    of_everybody: Vec<Entry>,
    addresses: String,
}

impl Contacts {
    /// Errors: a user who is neither a number nor `*`, an unknown channel, an empty address. Whether
    /// an address can be used shows when it is.
    pub fn read(table: &str) -> Result<Contacts> {
        let mut contacts = Contacts::default();
        let columns = ["user_id", "channel", "address"].map(required);
        for_each_line(&Source::Stored(table), &columns, |line, row| {
            let channel = Channel::ALL.into_iter().find(|channel| channel.name() == row[1]);
            let channel = channel
                .ok_or_else(|| Refused(1, "not a channel; the channels are: webhook, smtp, file".into()))?;
            let address = row[2].trim();
            if address.is_empty() {
                return Err(Refused(2, "empty".into()));
            }
            let (start, length) = (contacts.addresses.len(), address.len());
            contacts.addresses.push_str(address);
            let entry = |user_id| Entry { user_id, channel, start, length, line };
            match row[0] {
                "*" => contacts.of_everybody.push(entry(0)),
                user => contacts.by_user.push(entry(user_id(user, 0)?)),
            }
            Ok(())
        })?;
        contacts.by_user.sort_unstable();
        Ok(contacts)
    }

    /// The user's own contacts; and everybody's, of the channels that the user has none of. An
    /// address that stands twice counts once.
    pub fn of(&self, user_id: u64) -> Vec<Contact<'_>> {
        let first = self.by_user.partition_point(|entry| entry.user_id < user_id);
        let own = self.by_user[first..].iter().take_while(|entry| entry.user_id == user_id);
        let own: Vec<&Entry> = own.collect();
        let has_own = |channel| own.iter().any(|entry| entry.channel == channel);
        let others = self.of_everybody.iter().filter(|entry| !has_own(entry.channel));
        let mut contacts: Vec<Contact> = Vec::new();
        for contact in own.iter().copied().chain(others).map(|entry| self.contact(entry)) {
            let same = |other: &Contact| (other.channel, other.address) == (contact.channel, contact.address);
            if !contacts.iter().any(same) {
                contacts.push(contact);
            }
        }
        contacts
    }

    /// How many there are of single users, and of everybody.
    pub fn counts(&self) -> [usize; 2] {
        [self.by_user.len(), self.of_everybody.len()]
    }

    /// Whether anybody is told this way.
    pub fn uses(&self, channel: Channel) -> bool {
        self.by_user.iter().chain(&self.of_everybody).any(|entry| entry.channel == channel)
    }

    fn contact(&self, entry: &Entry) -> Contact<'_> {
        let address = &self.addresses[entry.start..entry.start + entry.length];
        Contact { channel: entry.channel, address, line: entry.line }
    }
}
