//! Alerts as lines of JSON in an object store: for many users at once.
//!
//! In: a message. Out: whether they are there.
//! Invariant: a name follows from the message alone, so what is written again is the same; the
//! address of a contact is in no error, not even in one of the store's client.

use super::message::Message;
use super::schedule::Tried;
use crate::error::{Error, Kind};
use crate::store::Place;
use bytes::Bytes;

/// What is to be written.
pub struct Lines {
    address: String,
    name: String,
    lines: Bytes,
    /// Of the contact: table and line.
    place: String,
}

/// `table` is that of the contacts.
pub fn lines(message: &Message, table: &str) -> Lines {
    Lines {
        address: message.contact.address.to_string(),
        name: format!("alerts-{}-{}.ndjson", message.batch.run_id, message.id_text()),
        lines: message.lines(),
        place: format!("{table}:{}", message.contact.line),
    }
}

/// The store that an address lies in: one that fails keeps back no other.
pub fn host(address: &str) -> String {
    let url = url::Url::parse(address).ok();
    url.map(|url| format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())).unwrap_or_default()
}

pub async fn write(file: Lines) -> Tried {
    let Lines { address, name, lines, place } = file;
    // The store's functions wait themselves.
    let written = tokio::task::spawn_blocking(move || {
        Place::open(&address).and_then(|place| place.child(&name).create(lines))
    });
    let error = match written.await {
        Ok(Ok(())) => return Tried::Taken,
        Ok(Err(error)) => error,
        // The client of a store gives up like this on an endpoint that is no URL.
        Err(_) => {
            let error = Error::unfit("the store of this contact cannot be used as it is set up").at(place);
            return Tried::Broken(error.advise("look at the variables of the store"));
        }
    };
    match error.kind {
        Kind::Temporary => Tried::NotNow(None),
        Kind::Unfit => Tried::Never("not a place of an object store".into()),
        // The address is somebody's, so the contact's place stands for it.
        kind => {
            let error = Error::new(kind, "alerts cannot be written to the place of this contact");
            Tried::Broken(error.at(place))
        }
    }
}
