//! What a backtest of recommendations came to, in words.
//!
//! In: tallies. Out: a page for a person, or one JSON object for a machine.
//! Invariant: means are of integers, rounded half up to the cent; a rule without pairs has none.

use super::grouped;
use crate::domain::money::format_cents;
use crate::domain::month::MonthRange;
use crate::engine::backtest::{Rule, RuleScore, Score, Tally};
use crate::engine::format::to_line;
use serde_json::{Value, json};
use std::fmt::Write;

/// A key for machines, a title for people, and the rules with how they did.
type RuleTable = (&'static str, &'static str, Vec<(Rule, RuleScore)>);

/// The rules of one table: without a template, its rule has nothing to say.
fn tables(score: &Score) -> [RuleTable; 2] {
    let rules = |scores: &[RuleScore; 4], template: bool| {
        let all = Rule::ALL.into_iter().zip(*scores);
        all.filter(|(rule, _)| template || *rule != Rule::Template).collect()
    };
    [
        ("with_income", "users with an income and a history", rules(&score.with_income, true)),
        ("without_income", "users with a history alone", rules(&score.without_income, false)),
    ]
}

/// Both tables, for a person.
pub fn backtest_text(job: &str, months: MonthRange, score: &Score) -> String {
    let mut page = format!("{job}: backtest over {months}; nothing was written\n");
    // Writing to a string cannot fail.
    let _ = write_tables(&mut page, score);
    page
}

fn write_tables(page: &mut String, score: &Score) -> std::fmt::Result {
    for (_, title, rules) in tables(score) {
        if rules.iter().all(|(_, score)| score.categories.pairs == 0) {
            continue;
        }
        writeln!(page, "{title}")?;
        writeln!(
            page,
            "  {:<20}{:>46}{:>48}",
            "", "categories of a user and month", "all together, by user and month"
        )?;
        let heads = ["pairs", "within", "mean above", "mean below"];
        write!(page, "  {:<20}", "rule")?;
        heads.iter().chain(&heads).try_for_each(|head| write!(page, "{head:>12}"))?;
        writeln!(page)?;
        for (rule, RuleScore { categories, totals }) in rules {
            write!(page, "  {:<20}", rule.name())?;
            for tally in [categories, totals] {
                let within = format!("{:.1} %", 100.0 * tally.within as f64 / tally.pairs.max(1) as f64);
                write!(page, "{:>12}{within:>12}", grouped(tally.pairs))?;
                write!(page, "{:>12}{:>12}", mean(tally, tally.above_cents), mean(tally, tally.below_cents))?;
            }
            writeln!(page)?;
        }
    }
    let unknown = grouped(score.without_history);
    writeln!(page, "left out: {unknown} user-months with fewer than three months of history")
}

fn mean(tally: Tally, cents: i128) -> String {
    let pairs = i128::from(tally.pairs.max(1));
    format_cents((cents + pairs / 2) / pairs)
}

/// The same as one JSON object.
pub fn backtest_json(job: &str, months: MonthRange, score: &Score) -> String {
    let tally = |tally: Tally| {
        json!({
            "pairs": tally.pairs,
            "within": tally.within,
            "mean_above": mean(tally, tally.above_cents),
            "mean_below": mean(tally, tally.below_cents),
        })
    };
    let rule = |(rule, score): &(Rule, RuleScore)| json!({"rule": rule.name(), "categories": tally(score.categories), "totals": tally(score.totals)});
    let mut object = json!({
        "job": job,
        "outcome": "backtested",
        "months": months.to_string(),
        "user_months_without_history": score.without_history,
    });
    for (key, _, rules) in tables(score) {
        object[key] = Value::Array(rules.iter().map(rule).collect());
    }
    to_line(&object)
}
