//! How good the categorizer is, measured against what people say.
//!
//! In: sellers with the account that a person booked them to, and the categories that each account
//! accepts. Out: coverage and agreement, by account and by layer; what is worst.
//! Invariant: covered + uncovered rows are all rows; agreement is counted only on accounts that
//! say which categories they accept, over their covered rows.

use crate::domain::category::{Categories, CategorySource};
use crate::engine::format::to_line;
use crate::error::Result;
use crate::input::reference::Reference;
use crate::input::table_rows::{Refused, Source, for_each_row, optional, required};
use crate::job::cli::{ScoreArgs, ScoreForm};
use crate::kernel::categorize::Categorizer;
use crate::output::crowd;
use crate::report::printable;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// Rows and how they fare; `judged` are those of accounts that say what they accept.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Tally {
    rows: u64,
    covered_rows: u64,
    judged_rows: u64,
    judged_covered_rows: u64,
    agreeing_rows: u64,
    coverage: f64,
    /// Of the judged covered rows; none where there are none.
    agreement: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Disagreement {
    seller: String,
    account: String,
    rows: u64,
    category: String,
    layer: &'static str,
    matched: String,
}

#[derive(Debug, Serialize)]
struct Uncovered {
    seller: String,
    rows: u64,
}

#[derive(Debug, Default, Serialize)]
struct Score {
    #[serde(flatten)]
    all: Tally,
    by_account: BTreeMap<String, Tally>,
    by_layer: BTreeMap<&'static str, Tally>,
    worst_disagreements: Vec<Disagreement>,
    biggest_uncovered: Vec<Uncovered>,
}

/// A row of the labels.
struct Label {
    seller: String,
    account: String,
    rows: u64,
}

/// Scores, and says so. Errors: a table that cannot be read.
pub fn run(args: &ScoreArgs) -> Result<String> {
    let spec = args.layers.spec()?;
    let reference = Reference::load(&spec, crowd::read)?;
    let categorizer = Categorizer::of(&reference)?;
    let labels = labels(&args.labels)?;
    let accepted =
        args.map.as_deref().map_or(Ok(HashMap::new()), |map| accepted(map, &reference.categories))?;
    let score = score(&labels, &accepted, &categorizer, &reference.categories, args.top);
    Ok(match args.report {
        ScoreForm::Json => to_line(&score),
        ScoreForm::Human => {
            let mut page = String::new();
            // Writing to a string cannot fail.
            let _ = write_page(&mut page, &score);
            page
        }
    })
}

fn labels(table: &str) -> Result<Vec<Label>> {
    let mut labels = Vec::new();
    let columns = [required("seller"), optional("account"), optional("rows")];
    for_each_row(&Source::Stored(table), &columns, |row| {
        let rows = match row[2] {
            "" => 1,
            text => text.parse().map_err(|_| Refused(2, "not a number of rows".into()))?,
        };
        labels.push(Label { seller: row[0].to_string(), account: row[1].to_string(), rows });
        Ok(())
    })?;
    Ok(labels)
}

/// The categories that each account accepts.
fn accepted(map: &str, categories: &Categories) -> Result<HashMap<String, Vec<String>>> {
    let mut accepted = HashMap::new();
    let columns = [required("account"), required("acceptable_categories")];
    for_each_row(&Source::Stored(map), &columns, |row| {
        let codes: Vec<String> = row[1].split_whitespace().map(String::from).collect();
        match codes.iter().find(|code| categories.id(code).is_none()) {
            Some(_) => Err(Refused(1, "not categories with spaces between".into())),
            None => {
                accepted.insert(row[0].to_string(), codes);
                Ok(())
            }
        }
    })?;
    Ok(accepted)
}

impl Tally {
    fn add(&mut self, rows: u64, covered: bool, agrees: Option<bool>) {
        let when = |holds: bool| if holds { rows } else { 0 };
        self.rows = self.rows.saturating_add(rows);
        self.covered_rows += when(covered);
        self.judged_rows += when(agrees.is_some());
        self.judged_covered_rows += when(covered && agrees.is_some());
        self.agreeing_rows += when(covered && agrees == Some(true));
    }

    fn finish(&mut self) {
        let share = |part: u64, all: u64| (part as f64 / all as f64 * 1e4).round() / 1e4;
        self.coverage = share(self.covered_rows, self.rows.max(1));
        self.agreement =
            (self.judged_covered_rows > 0).then(|| share(self.agreeing_rows, self.judged_covered_rows));
    }
}

fn score(
    labels: &[Label],
    accepted: &HashMap<String, Vec<String>>,
    categorizer: &Categorizer,
    categories: &Categories,
    top: usize,
) -> Score {
    let mut score = Score::default();
    let mut uncovered: HashMap<&str, u64> = HashMap::new();
    let mut folded = String::new();
    for label in labels {
        let decision = categorizer.look_up(&label.seller, &mut folded).decision;
        let covered = decision.source != CategorySource::None;
        let category = categories.code(decision.category);
        let agrees = accepted.get(&label.account).map(|codes| codes.iter().any(|code| code == category));
        let (rows, layer) = (label.rows, decision.source.name());
        score.all.add(rows, covered, agrees);
        score.by_layer.entry(layer).or_default().add(rows, covered, agrees);
        if agrees.is_some() {
            score.by_account.entry(label.account.clone()).or_default().add(rows, covered, agrees);
        }
        if !covered {
            *uncovered.entry(&label.seller).or_default() += rows;
        } else if agrees == Some(false) {
            let matched = categorizer.matched(&decision).unwrap_or_default().to_string();
            let (seller, account) = (label.seller.clone(), label.account.clone());
            let category = category.to_string();
            score.worst_disagreements.push(Disagreement { seller, account, rows, category, layer, matched });
        }
    }
    score.all.finish();
    score.by_account.values_mut().chain(score.by_layer.values_mut()).for_each(Tally::finish);
    score.worst_disagreements.sort_by(|a, b| (Reverse(a.rows), &a.seller).cmp(&(Reverse(b.rows), &b.seller)));
    score.worst_disagreements.truncate(top);
    let uncovered = uncovered.into_iter();
    score.biggest_uncovered =
        uncovered.map(|(seller, rows)| Uncovered { seller: seller.into(), rows }).collect();
    score.biggest_uncovered.sort_by(|a, b| (Reverse(a.rows), &a.seller).cmp(&(Reverse(b.rows), &b.seller)));
    score.biggest_uncovered.truncate(top);
    score
}

fn write_page(page: &mut String, score: &Score) -> std::fmt::Result {
    let percent =
        |share: Option<f64>| share.map_or("–".to_string(), |share| format!("{:.2} %", share * 100.0));
    let mut line = |name: &str, tally: &Tally| {
        writeln!(
            page,
            "{name:<32} {:>9} {:>9} {:>9} {:>9} {:>10}",
            tally.rows,
            tally.covered_rows,
            percent(Some(tally.coverage)),
            tally.judged_covered_rows,
            percent(tally.agreement),
        )
    };
    line("all", &score.all)?;
    score.by_layer.iter().try_for_each(|(layer, tally)| line(&format!("  by {layer}"), tally))?;
    score.by_account.iter().try_for_each(|(account, tally)| line(&format!("  for {account}"), tally))?;
    let header = ["", "rows", "covered", "coverage", "judged", "agreement"];
    let [name, rows, covered, coverage, judged, agreement] = header;
    let header = format!("{name:<32} {rows:>9} {covered:>9} {coverage:>9} {judged:>9} {agreement:>10}\n");
    page.insert_str(0, &header);
    writeln!(page, "worst disagreements (rows, seller, account: category by layer, entry)")?;
    for worst in &score.worst_disagreements {
        let Disagreement { seller, account, rows, category, layer, matched } = worst;
        writeln!(
            page,
            "{rows:>9}  {}, {}: {category} by {layer}, {matched}",
            printable(seller),
            printable(account)
        )?;
    }
    writeln!(page, "biggest uncovered sellers (rows, seller)")?;
    score.biggest_uncovered.iter().try_for_each(|u| writeln!(page, "{:>9}  {}", u.rows, printable(&u.seller)))
}
