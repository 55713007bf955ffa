//! The README of a generated data set.
//!
//! In: the options and the written files. Out: `README.md`, written last: a folder that contains it
//! is complete.
//! Invariant: the same options give the same text: no dates, no names of machines or folders.

use super::files::OutputFile;
use super::{Generated, Options};
use crate::domain::money::format_cents;
use crate::error::{Error, Result};
use std::io::Write;

const NAME: &str = "README.md";

pub fn write_readme(options: &Options, generated: &Generated) -> Result<()> {
    let text = [origin(options), files(generated), totals(generated)].join("\n");
    let mut file = OutputFile::create(&options.out, NAME)?;
    let place = options.out.join(NAME);
    file.write_all(text.as_bytes()).map_err(|e| Error::from(e).at(place.display()))
}

/// The command line that generates this data set.
fn command(options: &Options) -> String {
    let mut command = format!(
        "pennymill generate --rows {} --users {} --sellers {} --months {} --files {} --seed {}",
        options.rows, options.users, options.sellers, options.months, options.files, options.seed
    );
    if let Some(compression) = options.compress {
        command += &format!(" --compress {}", compression.name());
    }
    if options.reject_ratio > 0.0 {
        command += &format!(" --reject-ratio {}", options.reject_ratio);
    }
    if options.reference_ratio > 0.0 {
        command += &format!(" --reference-ratio {}", options.reference_ratio);
    }
    command + " --out DIR"
}

fn origin(options: &Options) -> String {
    let mut text = format!(
        "# Generated transactions\n\n\
         Made by\n\n    {}\n\n\
         in an empty DIR. The same command makes the same bytes, on any machine and with any number \
         of threads. Users, sellers and purchases are invented. `pennymill schema DATASET` says what \
         the columns mean.\n",
        command(options)
    );
    if options.compress.is_some() {
        text += "\nThe logs have one compressed member for every 65,536 rows. Another version of the \
                 compressor may pack the same rows into other bytes.\n";
    }
    text
}

fn files(generated: &Generated) -> String {
    let mut text = String::from("| file | rows | bytes | SHA-256 |\n|---|--:|--:|---|\n");
    for file in generated.logs.iter().chain(&generated.tables) {
        text += &format!("| {} | {} | {} | `{}` |\n", file.name, file.rows, file.bytes, file.sha256);
    }
    text
}

fn totals(generated: &Generated) -> String {
    let mut text = format!(
        "What reading all logs must give:\n\n| | |\n|---|--:|\n\
         | lines | {} |\n| accepted | {} |\n| rejected | {} |\n\
         | sum of positive amounts | {} |\n| sum of negative amounts | {} |\n| net | {} |\n",
        generated.rows,
        generated.rows - generated.bad_rows,
        generated.bad_rows,
        format_cents(generated.positive_cents),
        format_cents(generated.negative_cents),
        format_cents(generated.net_cents()),
    );
    if generated.bad_rows > 0 {
        text += "\n| rejected for | lines |\n|---|--:|\n";
    }
    for (reason, count) in &generated.rejects {
        text += &format!("| {} | {count} |\n", reason.name());
    }
    text
}
