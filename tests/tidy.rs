//! The house style, held by a test.
//!
//! In: the files of `src/`, `tests/` and `benches/`. Out: the places that break it.
//! Invariant: data moves one way through the rooms; every file says its duty; functions fit a
//! screen.

use std::path::{Path, PathBuf};

/// The rooms in flow order: a file may use its own room and what stands before it.
const ROOMS: &[&str] = &[
    "planted",
    "error",
    "files",
    "domain",
    "limits",
    "guard",
    "job",
    "schema",
    "store",
    "input",
    "kernel",
    "engine",
    "generate",
    "output",
    "progress",
    "report",
    "query",
    "attempt",
    "table_job",
    "recommend",
    "deliver",
    "bench",
    "check",
    "run",
    "explain",
    "history",
    "audit",
    "gc",
    "score",
];

const FUNCTION_LINES_MAX: usize = 70;

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root).unwrap().to_path_buf(), text));
            }
        }
    }
    files
}

/// The product's part of a file: what stands before its tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

#[test]
fn every_file_opens_with_its_duty() {
    for (path, text) in [sources("src"), sources("tests"), sources("benches")].concat() {
        assert!(text.starts_with("//! "), "{} does not open with its duty", path.display());
    }
}

#[test]
fn rooms_use_only_what_stands_above_them() {
    let rank = |room: &str| ROOMS.iter().position(|r| *r == room);
    for (path, text) in sources("src") {
        let room = path.iter().nth(1).unwrap().to_str().unwrap().trim_end_matches(".rs").to_string();
        let Some(own) = rank(&room) else {
            assert!(["lib", "main"].contains(&room.as_str()), "{room} is no room");
            continue;
        };
        for used in product(&text).split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if let Some(other) = rank(&used) {
                assert!(other <= own, "{} uses {used}, which stands below it", path.display());
            }
        }
    }
}

#[test]
fn functions_fit_a_screen() {
    for (path, text) in sources("src") {
        let mut start: Option<(usize, usize, String)> = None;
        for (number, line) in product(&text).lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let opens = line.trim_start().split(' ').take(3).any(|word| word == "fn")
                && !line.trim_end().ends_with(';');
            if start.is_none() && opens && !line.trim_start().starts_with("//") {
                start = Some((number, indent, line.trim().to_string()));
            }
            if let Some((first, at, name)) = &start
                && line.starts_with(&format!("{}}}", " ".repeat(*at)))
            {
                let lines = number - first + 1;
                assert!(
                    lines <= FUNCTION_LINES_MAX,
                    "{}:{}: {lines} lines: {name}",
                    path.display(),
                    first + 1
                );
                start = None;
            }
        }
    }
}

#[test]
fn words_that_do_not_belong() {
    let banned = [
        ("dbg!(", "left over"),
        ("todo!(", "left over"),
        ("debug_assert", "money is checked in release builds"),
    ];
    for (path, text) in sources("src") {
        for (word, why) in banned {
            assert!(!product(&text).contains(word), "{} has {word}: {why}", path.display());
        }
    }
}
