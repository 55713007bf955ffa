//! `monthly_spending`: closing groups encoded as pages, written as parts, and read back.
//!
//! In: closing groups of each month in the order of users. Out: the parts of the touched months,
//! and their totals, as read back from the store.
//! Invariant: the same groups give the same bytes; what is read back equals what was meant.

mod category_column;
mod chunk;
mod cutter;
mod delta;
mod encoder;
mod queue;
mod verify;

pub use cutter::{Cutter, Page};
pub use encoder::encode;
pub use queue::{PageQueue, QueueState};

use crate::domain::category::Categories;
use crate::domain::month::Month;
use crate::error::Result;
use crate::input::published::OpenPart;
use crate::kernel::keyed::{Digest, GroupTotals, Key};
use crate::limits::{PAGE_GROUPS, ROW_GROUP_ROWS};
use crate::output::part::WrittenPart;
use crate::store::{Place, start};
use bytes::Bytes;
use encoder::{Columns, SpendEncoder};
use std::sync::mpsc::{Receiver, sync_channel};
use verify::{Meant, Stretch, verify};

/// A part as it is meant to stand in the store.
pub struct NewPart {
    month: Month,
    sequence: usize,
    /// Below its table.
    path: String,
    place: Place,
    bytes: Bytes,
    /// What stands in each of its row groups.
    meant: Vec<Meant>,
}

/// A part on its way to the store.
struct Storing {
    /// Its place, for messages.
    shown: String,
    /// What comes of it: its bytes are then what the store gave back.
    answer: Receiver<Result<NewPart>>,
}

impl NewPart {
    /// Sends it to the store, which gives it back.
    fn store(mut self) -> Storing {
        let (shown, (send, answer)) = (self.place.shown.clone(), sync_channel(1));
        start(async move {
            let stored = self.place.create_and_read_now(std::mem::take(&mut self.bytes)).await;
            // Nobody waits for it when the run has failed meanwhile.
            let _ = send.send(stored.map(|bytes| NewPart { bytes, ..self }));
        });
        Storing { shown, answer }
    }
}

/// A part that stands in the store and was read back.
pub struct MonthPart {
    pub month: Month,
    /// Of its month, from 0.
    pub sequence: usize,
    pub written: WrittenPart,
    /// Its first and its last user.
    pub users: (u64, u64),
    pub totals: GroupTotals,
}

/// What writers of parts share.
pub struct PartWriter<'a> {
    table: Place,
    run_id: &'a str,
    categories: &'a Categories,
    key: Key,
    encoder: SpendEncoder,
}

/// A page as it will stand in its part; the groups themselves are needed no more.
#[derive(Default)]
pub struct EncodedPage {
    meant: Meant,
    columns: Columns,
}

impl<'a> PartWriter<'a> {
    /// Writes to `table` with the names of a run. `key` is that of the run's keyed totals.
    pub fn new(
        table: Place,
        run_id: &'a str,
        categories: &'a Categories,
        key: Key,
    ) -> Result<PartWriter<'a>> {
        let encoder = SpendEncoder::new(categories)?;
        Ok(PartWriter { table, run_id, categories, key, encoder })
    }

    fn encode(&self, page: &Page) -> Result<EncodedPage> {
        let mut meant = Meant { start: page.start, ..Meant::default() };
        for piece in &page.groups {
            let digest = Digest::of(self.key, page.start + meant.groups, piece);
            meant = meant.followed_by(piece.len(), digest);
        }
        Ok(EncodedPage { meant, columns: self.encoder.encode(&page.groups)? })
    }

    /// Makes a part of all its pages, which are in their order.
    fn join(&self, month: Month, sequence: usize, pages: Vec<EncodedPage>) -> Result<NewPart> {
        let (mut meant, mut columns): (Vec<Meant>, Vec<Vec<Columns>>) = Default::default();
        for page in pages {
            match (meant.last_mut(), columns.last_mut()) {
                (Some(last), Some(pages)) if pages.len() < ROW_GROUP_ROWS / PAGE_GROUPS => {
                    *last = last.followed_by(page.meant.groups, page.meant.digest);
                    pages.push(page.columns);
                }
                _ => {
                    meant.push(page.meant);
                    columns.push(vec![page.columns]);
                }
            }
        }
        let bytes = self.encoder.join(columns)?;
        let path = format!("month={month}-01/part-{sequence:05}-{}.parquet", self.run_id);
        let place = self.table.child(&path);
        Ok(NewPart { month, sequence, path, place, bytes, meant })
    }

    /// Looks at what the store gives for a part, with all threads of the pool. Errors when it is not what
    /// was meant.
    fn verify(&self, part: NewPart) -> Result<MonthPart> {
        let NewPart { month, sequence, path, place, bytes, meant } = part;
        let rows: usize = meant.iter().map(|meant| meant.groups).sum();
        let written = WrittenPart::new(path, &bytes, rows as u64)?;
        let part = OpenPart::open(bytes, self.categories, &place.shown)?;
        let Stretch { first, last, totals, .. } = verify(&part, &meant, self.key, month)?;
        Ok(MonthPart { month, sequence, written, users: (first.user_id, last.user_id), totals })
    }
}
