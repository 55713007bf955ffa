//! Text files that a job is made of.
//!
//! In: the path of a file. Out: its text. Invariant: no more of a file is read than a person writes,
//! whatever its size says.

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::limits::TEXT_BYTES_MAX;
use std::io::Read;
use std::path::Path;

/// Reads a file that messages call a `what`, such as a job file.
pub fn read_text(file: &Path, what: &str) -> Result<String> {
    let shown = file.display().to_string();
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(Kind::NotFound, format!("there is no such {what}")).at(&shown)
        }
        _ => Error::unfit(format!("cannot read the {what}: {error}")).at(&shown),
    };
    let opened = files::open(file).map_err(&failed)?;
    let mut bytes = Vec::new();
    opened.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(&failed)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(Error::unfit(format!("a {what} of more than {TEXT_BYTES_MAX} bytes")).at(&shown));
    }
    String::from_utf8(bytes).map_err(|_| Error::unfit(format!("the {what} is not UTF-8")).at(shown))
}
