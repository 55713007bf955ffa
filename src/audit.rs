//! Whether a lake adds up, from its first commit to its newest.
//!
//! In: a lake. Out: a finding for everything that does not hold, and the months that do.
//! Invariant: nothing is written. What is added up here comes from commits, manifests, ledgers, parts
//! and raw logs, each read anew; of the way a run computes it uses the parser alone.

mod books;
mod followers;
mod raw;

use crate::domain::money::format_cents;
use crate::domain::month::Month;
use crate::engine::format::to_line;
use crate::error::{EXIT_NEEDS_A_LOOK, Error, Kind, Result};
use crate::job::cli::{AuditArgs, ScoreForm};
use crate::output::lake::{Lake, MONTHLY_SPENDING};
use crate::report::{grouped, printable};
use books::Books;
use serde::Serialize;
use std::fmt::Write;

/// Something that does not hold.
#[derive(Debug, Serialize)]
struct Finding {
    place: String,
    what: String,
    /// Whether what is published is in doubt; else something was changed from outside.
    broken: bool,
}

#[derive(Debug, Serialize)]
struct AuditedMonth {
    month: String,
    rows: u64,
    /// As text: readers of JSON do not hold every integer exactly.
    net_cents: String,
}

#[derive(Debug, Default, Serialize)]
struct Audit {
    lake: String,
    versions: u64,
    objects: u64,
    /// Objects that were read again.
    recounted: u64,
    parts: u64,
    months: Vec<AuditedMonth>,
    findings: Vec<Finding>,
}

impl Audit {
    fn broken(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.findings.push(Finding { place: place.into(), what: what.into(), broken: true });
    }

    fn changed(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.findings.push(Finding { place: place.into(), what: what.into(), broken: false });
    }

    /// Takes damage for a finding; trouble with the store stops the audit.
    fn take<T>(&mut self, place: &str, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if [Kind::Unfit, Kind::Invariant, Kind::NotFound].contains(&error.kind) => {
                self.broken(place, error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Audits a lake. Out: what goes to stdout, and the exit code: 70 where published figures are in doubt,
/// 3 where something was changed from outside.
pub fn run(args: &AuditArgs) -> Result<(String, u8)> {
    if !(0.0..=1.0).contains(&args.share) {
        return Err(Error::unfit("--share must be from 0 to 1"));
    }
    let lake = Lake::open(&args.lake)?;
    let table = lake.published(MONTHLY_SPENDING)?;
    let mut audit = Audit { lake: lake.place.shown.clone(), versions: table.version(), ..Audit::default() };
    let books = Books::walk(&lake, &table, &mut audit)?;
    books.hold_parts(&lake, &table, &mut audit)?;
    books.hold_followers(&lake, &mut audit)?;
    raw::hold_objects(&books.ledger, &books.time_zone, args, &mut audit)?;
    let month = |(month, (rows, cents)): (&Month, &(u64, i128))| AuditedMonth {
        month: month.to_string(),
        rows: *rows,
        net_cents: cents.to_string(),
    };
    audit.months = books.months.iter().map(month).collect();
    let code = match () {
        () if audit.findings.iter().any(|finding| finding.broken) => Kind::Invariant.exit_code(),
        () if !audit.findings.is_empty() => EXIT_NEEDS_A_LOOK,
        () => 0,
    };
    let text = match args.report {
        ScoreForm::Human => audit.to_text(args),
        ScoreForm::Json => to_line(&audit),
    };
    Ok((text, code))
}

impl Audit {
    fn to_text(&self, args: &AuditArgs) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_page(&mut page, args);
        page
    }

    fn write_page(&self, page: &mut String, args: &AuditArgs) -> std::fmt::Result {
        let [versions, objects, parts, recounted] =
            [self.versions, self.objects, self.parts, self.recounted].map(grouped);
        writeln!(page, "{}: {versions} versions, {objects} counted objects, {parts} parts", self.lake)?;
        writeln!(
            page,
            "  recounted  {recounted} objects from raw, --share {} --seed {}",
            args.share, args.seed
        )?;
        for AuditedMonth { month, rows, net_cents } in &self.months {
            let net = format_cents(net_cents.parse().expect("we wrote it"));
            writeln!(page, "  {month}    {:>14} transactions {net:>18} net", grouped(*rows))?;
        }
        for Finding { place, what, broken } in &self.findings {
            let kind = if *broken { "broken " } else { "changed" };
            writeln!(page, "  {kind}    {}: {}", printable(place), printable(what))?;
        }
        match self.findings.len() {
            0 => writeln!(
                page,
                "opening + movements = closing for every month, from the first commit to the last"
            ),
            count => writeln!(page, "{count} findings"),
        }
    }
}
