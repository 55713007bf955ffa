//! What a run would do, in words.
//!
//! In: a plan. Out: a page for a person, or one JSON object for a machine.
//! Invariant: names from a listing stay on their line.

use super::{grouped, printable, size};
use crate::engine::format::to_line;
use crate::input::plan::{LogObject, Plan};
use std::fmt::Write;

/// What `--dry-run` prints.
pub fn plan_text(job: &str, plan: &Plan, months: &[(String, usize)]) -> String {
    let mut page = String::new();
    let _ = write_plan(&mut page, job, plan, months);
    page
}

fn write_plan(page: &mut String, job: &str, plan: &Plan, months: &[(String, usize)]) -> std::fmt::Result {
    writeln!(page, "{job}: plan; nothing was written")?;
    writeln!(
        page,
        "  objects    {} listed, {} new ({}), {} held",
        grouped(plan.listed as u64),
        grouped(plan.new.len() as u64),
        size(plan.new_bytes()),
        plan.held.len()
    )?;
    for object in &plan.new {
        writeln!(page, "  new        {} ({})", printable(&object.name), size(object.size_bytes))?;
    }
    for object in &plan.touched {
        writeln!(page, "  compare    {} (touched since it was counted)", printable(&object.name))?;
    }
    for held in &plan.held {
        writeln!(page, "  held       {}: {}", printable(&held.name), printable(&held.reason))?;
    }
    for name in &plan.set_aside {
        writeln!(page, "  set aside  {} (its name begins with _ or .)", printable(name))?;
    }
    for (month, parts) in months {
        writeln!(page, "  month      {month}: {parts} published parts to be replaced")?;
    }
    Ok(())
}

/// The plan for machines.
pub fn plan_json(job: &str, plan: &Plan, months: &[(String, usize)]) -> String {
    let names =
        |objects: &[LogObject]| -> Vec<String> { objects.iter().map(|object| object.name.clone()).collect() };
    let held: Vec<_> =
        plan.held.iter().map(|h| serde_json::json!({"source_object": h.name, "reason": h.reason})).collect();
    let months: Vec<_> =
        months.iter().map(|(month, parts)| serde_json::json!({"month": month, "parts": parts})).collect();
    let json = serde_json::json!({
        "job": job,
        "outcome": "planned",
        "inputs": {"objects": plan.listed, "new": plan.new.len(), "held": plan.held.len(), "bytes": plan.new_bytes()},
        "new": names(&plan.new),
        "compare": names(&plan.touched),
        "held": held,
        "set_aside": plan.set_aside,
        "months": months,
    });
    to_line(&json)
}
