//! Who is to be told, and where: the table of contacts.
//!
//! In: a table of user, channel, address and secret. Out: the contacts of a user.
//! Invariant: an address or a secret appears in no error and no log; whoever names one names its line.

use super::reference::user_id;
use super::secrets::Secret;
use super::table_rows::{Refused, Source, for_each_line, optional, required};
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
    /// What signs for this address alone, in place of what is derived: one secret, or two while one
    /// takes the place of the other. Empty if none is given.
    pub secrets: &'c str,
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
    /// Secrets stand right behind the address.
    secrets_length: usize,
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
    /// Errors: a user who is neither a number nor `*`, an unknown channel, an empty address, a secret
    /// that is none. Whether an address can be used shows when it is.
    pub fn read(table: &str) -> Result<Contacts> {
        let mut contacts = Contacts::default();
        let [user, channel, address] = ["user_id", "channel", "address"].map(required);
        let columns = [user, channel, address, optional("secret")];
        for_each_line(&Source::Stored(table), &columns, |line, row| {
            let channel = Channel::ALL.into_iter().find(|channel| channel.name() == row[1]);
            let channel = channel
                .ok_or_else(|| Refused(1, "not a channel; the channels are: webhook, smtp, file".into()))?;
            let address = row[2].trim();
            if address.is_empty() {
                return Err(Refused(2, "empty".into()));
            }
            let secrets = secrets(channel, row[3])?;
            let (start, length, secrets_length) = (contacts.addresses.len(), address.len(), secrets.len());
            contacts.addresses.push_str(address);
            contacts.addresses.push_str(secrets);
            let entry = |user_id| Entry { user_id, channel, start, length, secrets_length, line };
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

    /// Whether a webhook has no secret in the table.
    pub fn derive_secrets(&self) -> bool {
        let is_derived = |entry: &&Entry| entry.channel == Channel::Webhook && entry.secrets_length == 0;
        self.by_user.iter().chain(&self.of_everybody).any(|entry| is_derived(&entry))
    }

    fn contact(&self, entry: &Entry) -> Contact<'_> {
        let (address, rest) = self.addresses[entry.start..].split_at(entry.length);
        let secrets = &rest[..entry.secrets_length];
        Contact { channel: entry.channel, address, secrets, line: entry.line }
    }
}

/// The secrets of a cell, if it holds some that can be used.
fn secrets(channel: Channel, cell: &str) -> Result<&str, Refused> {
    let cell = cell.trim();
    let refused = |what: &str| Err(Refused(3, what.into()));
    let all: Vec<&str> = cell.split_whitespace().collect();
    match all.len() {
        0 => Ok(cell),
        _ if channel != Channel::Webhook => refused("only webhooks are signed"),
        1 | 2 if all.iter().all(|secret| Secret::parse(secret).is_some()) => Ok(cell),
        _ => refused(
            "not a secret: whsec_ and the base64 of 24 to 64 bytes, or two of them with a blank between",
        ),
    }
}
