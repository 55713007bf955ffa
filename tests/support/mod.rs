//! A folder, a job and the program: what every test starts from.
//!
//! In: logs and tables as text. Out: exit codes, reports, published rows.
//! Invariant: nothing outside the test's own folder is written.

pub mod apart;
pub mod delivery;
pub mod faults;
#[cfg(unix)]
pub mod night;
pub mod proxy;
pub mod receiver;
pub mod s3_server;
pub mod shop;
pub mod watch;

use pennymill::domain::category::Categories;
use pennymill::input::published::read_groups;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A test's own folder with a job in it.
pub struct Scratch {
    folder: tempfile::TempDir,
    /// More lines for the job file, section by section.
    input: String,
    rest: String,
    environment: Vec<(String, String)>,
}

/// Writes a checkpoint of a version of a table, as any writer may.
pub fn checkpoint(table: &Path, version: u64) {
    use deltalake_core::protocol::checkpoints::create_checkpoint;
    let url = url::Url::from_directory_path(table).unwrap();
    let builder = deltalake_core::DeltaTableBuilder::from_url(url).unwrap().with_version(version);
    pennymill::store::wait(async {
        create_checkpoint(&builder.load().await.unwrap(), None).await.unwrap();
    });
}

/// What a process said.
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.stdout);
        parsed.unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout, self.stderr))
    }
}

/// One published row: (month, user, category) → (cents, transactions).
pub type Published = BTreeMap<(String, u64, String), (i64, u64)>;

impl Scratch {
    pub fn new() -> Scratch {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        Scratch { folder, input: String::new(), rest: String::new(), environment: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.path(name), bytes).unwrap();
        self
    }

    /// Writes a table and names it in the job: `sellers.csv` becomes `input.sellers`.
    pub fn table(mut self, name: &str, text: &str) -> Self {
        self.write(name, text);
        let key = name.split('.').next().unwrap();
        self.input += &format!("{key} = {:?}\n", self.path(name));
        self
    }

    pub fn input(mut self, line: &str) -> Self {
        self.input += &format!("{line}\n");
        self
    }

    /// Adds sections behind `[output]`.
    pub fn rest(mut self, lines: &str) -> Self {
        self.rest += &format!("{lines}\n");
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub fn lake(&self) -> PathBuf {
        self.path("lake")
    }

    /// Writes the job file.
    pub fn job(&self) -> PathBuf {
        let logs = if self.input.contains("logs =") {
            String::new()
        } else {
            format!("logs = {:?}\n", self.path("logs/"))
        };
        let lake =
            if self.rest.contains("lake =") { String::new() } else { format!("lake = {:?}\n", self.lake()) };
        let (input, rest) = (&self.input, &self.rest);
        let text =
            format!("name = \"test\"\nkind = \"spending\"\n[input]\n{logs}{input}[output]\n{lake}{rest}");
        self.write("job.toml", text);
        self.path("job.toml")
    }

    pub fn run(&self, more: &[&str]) -> Said {
        let job = self.job();
        let mut arguments = vec!["run", job.to_str().unwrap(), "--report", "json"];
        arguments.extend(more);
        self.pennymill(&arguments)
    }

    pub fn pennymill(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pennymill"));
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        said(command.output().unwrap())
    }

    /// The published rows by the newest version, read from its files.
    pub fn published(&self) -> Published {
        published(&self.lake())
    }
}

fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// The parts of a table by its newest version, in their order.
pub fn parts(lake: &Path, table: &str) -> Vec<(String, Vec<u8>)> {
    let opened = pennymill::output::lake::Lake::open(lake.to_str().unwrap()).unwrap();
    let Some(opened) = opened.table(table).unwrap() else { return Vec::new() };
    let mut files = opened.files().unwrap();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
        .into_iter()
        .map(|f| (f.path.clone(), std::fs::read(lake.join(table).join(&f.path)).unwrap()))
        .collect()
}

pub fn published(lake: &Path) -> Published {
    let categories = Categories::builtin();
    let mut rows = Published::new();
    for (path, bytes) in parts(lake, "monthly_spending") {
        let month = path["month=".len().."month=2025-01".len()].to_string();
        for group in read_groups(bytes.into(), &categories, &path).unwrap() {
            let key = (month.clone(), group.user_id, categories.code(group.category).to_string());
            assert!(rows.insert(key, (group.amount_cents, group.transaction_count)).is_none());
        }
    }
    rows
}

/// The bytes of a table's parts, with the run taken out of their names.
pub fn part_bytes(lake: &Path, table: &str) -> Vec<(String, Vec<u8>)> {
    let without_run =
        |path: String| path[..path.len() - "-01234567-89ab-cdef-0123-456789abcdef.parquet".len()].to_string();
    parts(lake, table).into_iter().map(|(path, bytes)| (without_run(path), bytes)).collect()
}

/// How often a harness goes round: little in a test run, much where `PENNYMILL_ROUNDS` is `large`,
/// or as often as that says.
pub fn rounds(small: usize, large: usize) -> usize {
    match std::env::var("PENNYMILL_ROUNDS").as_deref() {
        Err(_) => small,
        Ok("large") => large,
        Ok(number) => number.parse().expect("PENNYMILL_ROUNDS is `large` or a number"),
    }
}

/// What a harness draws from: `PENNYMILL_SEED`, or always the same.
pub fn seed() -> u64 {
    std::env::var("PENNYMILL_SEED").map_or(2026, |seed| seed.parse().expect("PENNYMILL_SEED is a number"))
}

/// Says something that the test harness does not keep to itself.
pub fn say(text: &str) {
    use std::io::Write;
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// A Python with these packages in it, made once per machine, outside the project.
pub fn python(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let works = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        say("skipped: there is no Python 3 with venv");
        return None;
    }
    let home =
        std::env::var("XDG_CACHE_HOME").or_else(|_| std::env::var("HOME").map(|home| home + "/.cache"));
    let folder = Path::new(&home.unwrap()).join(format!("pennymill/{name}-1"));
    let python = folder.join("bin/python");
    if !folder.join("complete").exists() {
        let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(packages));
        std::fs::write(folder.join("complete"), "").unwrap();
    }
    Some(python)
}

/// Where real data lies, if it does. Tests that need it say so and pass without it.
pub fn real_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        say(&format!("skipped: there is no real data {name} beside the project"));
        return None;
    }
    Some(path)
}

/// A small generator of numbers for hostile input: SplitMix64.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}
