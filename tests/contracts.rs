//! What `schemas/` says, held to what the program writes and prints.
//!
//! In: a run on small logs. Out: pass or fail. Invariant: no key is written that no contract names.

use crate::support::Scratch;
use std::collections::BTreeSet;

/// The keys of a JSON value, `a.b` for the key b of the object a and `a[]` for entries of a list.
fn keys(value: &serde_json::Value, prefix: &str, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, inner) in object {
                let dot = if prefix.is_empty() { "" } else { "." };
                keys(inner, &format!("{prefix}{dot}{key}"), found);
            }
        }
        serde_json::Value::Array(list) => {
            list.iter().for_each(|inner| keys(inner, &format!("{prefix}[]"), found))
        }
        _ => drop(found.insert(prefix.to_string())),
    }
}

#[test]
fn a_manifest_has_the_keys_of_its_contract() {
    let contract: toml::Table = pennymill::schema::contract("run_manifest").unwrap().parse().unwrap();
    let columns = contract["column"].as_array().unwrap();
    let named: BTreeSet<String> = columns.iter().map(|c| c["name"].as_str().unwrap().to_string()).collect();
    let scratch = Scratch::new()
        .table("sellers.csv", "seller,category\nShop,groceries\n")
        .table("users.csv", "user_id,monthly_income\n1,10.00\n")
        .table(
            "budget_template.toml",
            "[[tier]]\nname = \"all\"\nincome_from = \"0\"\nshares = { groceries = 0.1 }\n",
        );
    scratch.write("logs/a.tsv", "1\t2025-01-10T10:00:00Z\tShop\t10.00\nbad\n").write("logs/b.tsv", "bad\n");
    let said = scratch.run(&["--set", "output.transactions=true", "--set", "limits.rejects_max_ratio=0.5"]);
    let again = scratch.run(&["--rebuild", "2025-01", "--set", "limits.rejects_max_ratio=0.5"]);
    let mut found = BTreeSet::new();
    for said in [said, again] {
        let run = scratch.lake().join("_runs").join(said.json()["run_id"].as_str().unwrap());
        let text = std::fs::read_to_string(run.join("manifest.json")).unwrap();
        keys(&serde_json::from_str(&text).unwrap(), "", &mut found);
    }
    // Files that a run did not have to write.
    found.retain(|key| !["line_samples", "rejects"].contains(&key.as_str()));
    let unnamed: Vec<_> = found.iter().filter(|key| !named.contains(*key)).collect();
    let unwritten: Vec<_> = named.iter().filter(|key| !found.contains(*key)).collect();
    assert!(unnamed.is_empty() && unwritten.is_empty(), "not named: {unnamed:?}; not written: {unwritten:?}");
}

#[test]
fn contracts_are_printed() {
    let scratch = Scratch::new();
    let names = scratch.pennymill(&["schema"]).stdout;
    assert!(names.lines().any(|name| name == "monthly_spending") && names.lines().count() == 21);
    for name in names.lines() {
        let said = scratch.pennymill(&["schema", name]);
        assert!(said.code == 0 && said.stdout.contains(&format!("name = \"{name}\"")));
    }
    let said = scratch.pennymill(&["schema", "nothing"]);
    assert_eq!((said.code, said.stderr.contains("monthly_spending")), (78, true));
}

#[test]
fn every_key_of_a_job_stands_in_the_shipped_job() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let files =
        ["nightly.toml", "recommend.toml", "deliver.toml", "votes.toml", "top_categories.toml", "bench.toml"];
    let text = files.map(read).concat();
    for key in pennymill::job::spec::KEYS {
        let last = key.rsplit('.').next().unwrap();
        // With its comment behind it, or on the line above.
        let key_line = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{last} = "));
        let lines: Vec<&str> = text.lines().collect();
        let said = lines.windows(2).any(|w| key_line(w[1]) && (w[1].contains('#') || w[0].starts_with('#')));
        assert!(said, "{key} is not documented");
    }
}

#[test]
fn the_generator_makes_the_sample_data_again() {
    let scratch = Scratch::new();
    let out = scratch.path("made");
    let arguments = "generate --rows 60000 --users 500 --sellers 400 --months 2025-01..2025-03 --files 3 --seed 7 --reject-ratio 0.0005 --out";
    let mut arguments: Vec<&str> = arguments.split(' ').collect();
    arguments.push(out.to_str().unwrap());
    let said = scratch.pennymill(&arguments);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let sample = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sample_data");
    for name in
        ["README.md", "sellers.csv", "users.csv", "budget_template.toml", "logs/2025-03-part-0001.tsv"]
    {
        assert_eq!(
            std::fs::read(out.join(name)).unwrap(),
            std::fs::read(sample.join(name)).unwrap(),
            "{name}"
        );
    }
}
