//! Other programs read what we publish: `deltalake`, `polars`, `pyarrow` and `duckdb` from PyPI.
//!
//! In: a lake of the sample logs. Out: their sums, equal to ours to the cent.
//! Invariant: skips, and says so, only where there is no Python; their packages go into a virtual
//! environment outside the project.

use crate::support::{Scratch, python};
use std::path::Path;
use std::process::Command;

const SCRIPT: &str = include_str!("readers.py");

#[test]
fn deltalake_polars_pyarrow_and_duckdb_agree_to_the_cent() {
    let packages = ["deltalake==1.6.6", "polars==2.1.0", "pyarrow", "duckdb==2.0.1"];
    let Some(python) = python("engines", &packages) else { return };
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample_data");
    let scratch = Scratch::new()
        .input(&format!("logs = {:?}\nsellers = {:?}", sample.join("logs/"), sample.join("sellers.csv")))
        .input(&format!(
            "users = {:?}\nbudget_template = {:?}",
            sample.join("users.csv"),
            sample.join("budget_template.toml")
        ));
    let report = scratch.run(&["--set", "output.transactions=true"]).json();
    assert_eq!(report["outcome"], "published");
    scratch.write("readers.py", SCRIPT);
    let output = Command::new(python).arg(scratch.path("readers.py")).arg(scratch.lake()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let alerts = &report["alerts"];
    let alerts = alerts["approaching"].as_i64().unwrap() + alerts["exceeded"].as_i64().unwrap();
    let expected = format!(
        "deltalake 2144577.19 59970\npolars 2144577.19 59970\nparquet 2144577.19 59970\n\
         duckdb 2144577.19 59970\ncategories True\ntransactions 2144577.19 59970\n\
         alerts {alerts}\nsorted True\nzstd True\nstatistics True\n"
    );
    assert_eq!(text, expected);
}
