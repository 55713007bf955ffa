//! `crowd_votes`: what users chose for each seller, counted; and the crowd's word read from it.
//!
//! In: counts. Out: the table's rows. Back: the entries of a published table, or of a file.
//! Invariant: only decided rows speak for the crowd, at most one for a seller.

use super::lake::Lake;
use crate::domain::category::Categories;
use crate::domain::seller::CrowdEntry;
use crate::error::{Error, Kind, Result, shown};
use crate::input::layers;
use crate::kernel::votes::SellerVotes;
use crate::schema;
use arrow::array::{BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use std::sync::Arc;

pub const CROWD_VOTES: &str = "crowd_votes";

/// The rows of the table: a seller's categories by falling votes.
pub fn batch(votes: &[SellerVotes], categories: &Categories) -> Result<RecordBatch> {
    let rows =
        || votes.iter().flat_map(|seller| seller.counts.iter().enumerate().map(move |row| (seller, row)));
    let sellers = rows().map(|(seller, _)| Some(seller.name.as_str()));
    let codes = rows().map(|(_, (_, count))| Some(categories.code(count.category)));
    let counts = rows().map(|(_, (_, count))| count.votes as i64);
    let of_seller = rows().map(|(seller, _)| seller.votes() as i64);
    let decided = rows().map(|(seller, (rank, _))| Some(rank == 0 && seller.decided));
    let latest = rows().map(|(_, (_, count))| count.latest_micros);
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(sellers.collect::<StringArray>()),
        Arc::new(codes.collect::<StringArray>()),
        Arc::new(Int64Array::from_iter_values(counts)),
        Arc::new(Int64Array::from_iter_values(of_seller)),
        Arc::new(decided.collect::<BooleanArray>()),
        Arc::new(TimestampMicrosecondArray::from_iter_values(latest).with_timezone("UTC")),
    ];
    let batch = RecordBatch::try_new(schema::crowd_votes(), columns);
    batch.map_err(|e| Error::invariant(format!("votes are no table: {e}")))
}

/// The crowd's word by a table: a Delta table of a lake, or a .csv, .tsv or .parquet file.
pub fn read(table: &str, categories: &Categories) -> Result<Vec<CrowdEntry>> {
    if [".csv", ".tsv", ".parquet"].iter().any(|extension| table.ends_with(extension)) {
        return layers::crowd(table, categories);
    }
    let folder = table.trim_end_matches('/');
    let (lake, name) = match folder.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((lake, _)) if lake.ends_with(":/") => {
            let error = Error::unfit("a table of votes lies within a lake").at(shown(table));
            return Err(error.advise("name it such as s3://bucket/lake/crowd_votes"));
        }
        Some(parts) => parts,
        None => (".", folder),
    };
    let Some(opened) = Lake::open(lake)?.table(name)? else {
        let error = Error::new(Kind::NotFound, "there is no table of votes").at(shown(table));
        return Err(
            error.advise("run the job of kind \"votes\" that publishes it, or take it out of `input.votes`")
        );
    };
    let mut crowd = Vec::new();
    for file in opened.files()? {
        crowd.extend(layers::crowd(&format!("{folder}/{}", file.path), categories)?);
    }
    Ok(crowd)
}
