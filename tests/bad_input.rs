//! Whole files that are not what they should be: cut, padded, swollen, endless, oddly named.
//!
//! In: archives, logs and names as accidents and attackers make them. Out: pass, or what was lost, with
//! the seed that shows it again.
//! Invariant: a file is counted whole or held aloud, its neighbours are counted, and memory stays
//! bounded.

use crate::support::watch::{State, state};
use crate::support::{Numbers, Scratch, rounds, say, seed};
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, path::Path as Key};
use pennymill::engine::local::Tuning;
use pennymill::engine::read::content;
use pennymill::input::fetch::{Compression, failure, open};
use pennymill::input::plan::LogObject;
use pennymill::job::spec::Spec;
use pennymill::kernel::content::Content;
use pennymill::output::lake::{Lake, TRANSACTIONS};
use pennymill::report::Report;
use pennymill::run::{Asked, publish};
use pennymill::store::{Place, mount, wait};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const GOOD: &str = "1\t2025-01-10T10:00:00Z\tShop\t10.00\n";
const ODD: &str = "2\t2025-01-11T10:00:00Z\tShop\t20.00\n";

type Pack = fn(&[u8]) -> Vec<u8>;

const FORMS: [(&str, Pack); 2] = [("gz", gzip), ("zst", zstandard)];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// A log of good lines, no two logs alike.
fn log(numbers: &mut Numbers, lines: usize) -> Vec<u8> {
    let line = |_| {
        let (user, day, cents) = (numbers.below(100_000), 1 + numbers.below(28), numbers.below(1_000_000));
        let (hour, shop) = (numbers.below(24), numbers.below(1000));
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        format!("{user}\t2025-01-{day:02}T{hour:02}:00:00Z\tSHOP {shop}\t{amount}\n")
    };
    (0..lines).map(line).collect::<String>().into_bytes()
}

/// Publishes logs in a store of this process, which no disk slows down. Out: the report, and what a
/// reader of the lake sees. `root` is a place that only this test uses, such as `cuts://here`.
pub fn published(root: &str, logs: &[(&str, &[u8])]) -> (Report, State) {
    let store = Arc::new(InMemory::new());
    for (name, bytes) in logs {
        wait(store.put(&Key::from(format!("logs/{name}")), bytes.to_vec().into())).unwrap();
    }
    mount(root, store).unwrap();
    let (input, lake) = (format!("[input]\nlogs = \"{root}/logs/\"\n"), format!("{root}/lake"));
    let output = format!("[output]\nlake = {lake:?}\ntransactions = true\n");
    let job = format!("name = \"test\"\nkind = \"spending\"\n{input}{output}");
    let spec = Spec::parse(&job, "job.toml", &[]).unwrap();
    let (report, _) = publish(&spec, &Asked::default(), &Tuning::of(&spec)).unwrap();
    let transactions = Lake::open(&lake).unwrap().table(TRANSACTIONS).unwrap();
    let files = transactions.map_or(Vec::new(), |table| table.files().unwrap());
    assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), report.rows.accepted);
    (report, state(&lake))
}

/// A local file as a plan has it, whatever its size by the time it is read.
fn object(path: &Path) -> LogObject {
    let name = path.to_str().unwrap().to_string();
    LogObject {
        place: Place::open(&name).unwrap(),
        etag: None,
        version: String::new(),
        size_bytes: 0,
        compression: Compression::of(&name),
        name,
    }
}

/// All that an archive holds, or its damage.
fn unpacked(object: &LogObject) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match open(object, 0, u64::MAX).unwrap().read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(failure(error).unwrap()),
    }
}

fn cut_everywhere(path: &Path, whole: &[u8]) {
    std::fs::write(path, whole).unwrap();
    let (file, object) = (File::options().write(true).open(path).unwrap(), object(path));
    assert!(content(&object).unwrap().is_ok());
    for cut in (0..whole.len()).rev() {
        file.set_len(cut as u64).unwrap();
        let read = content(&object).unwrap();
        let is_counted = read.is_ok_and(|read| cut > 0 || read != Content::default());
        assert!(!is_counted, "seed {}: {} cut at {cut} of {}", seed(), path.display(), whole.len());
    }
    say(&format!("{} cut at each of its {} bytes, 0 counted", path.display(), whole.len()));
}

#[test]
fn an_archive_cut_at_any_byte_is_damaged() {
    let bytes_min = rounds(8, 64).clamp(1, 64) * 1024;
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for (extension, pack) in FORMS {
            let path = folder.path().join(format!("cut.tsv.{extension}"));
            scope.spawn(move || {
                let (mut numbers, mut lines, mut whole) = (Numbers(seed()), Vec::new(), Vec::new());
                while whole.len() < bytes_min {
                    lines.extend(log(&mut numbers, 200));
                    whole = pack(&lines);
                }
                cut_everywhere(&path, &whole);
            });
        }
    });
}

#[test]
fn of_a_cut_archive_nothing_is_counted_and_its_neighbours_are() {
    let (seed, rounds) = (seed(), rounds(10, 500));
    let mut numbers = Numbers(seed);
    // Long enough that much of it is mapped before its end is found to be missing.
    let (first, cut, last) = (log(&mut numbers, 300), log(&mut numbers, 20_000), log(&mut numbers, 300));
    let packed = gzip(&last);
    let (alone, expected) = published("cuts://here", &[("a.tsv", &first), ("c.tsv.gz", &packed)]);
    for round in 0..rounds {
        let (extension, pack) = FORMS[round % 2];
        let whole = pack(&cut);
        let at = 1 + numbers.below(whole.len() - 1);
        let name = format!("b.tsv.{extension}");
        let logs: [(&str, &[u8]); 3] = [("a.tsv", &first), (&name, &whole[..at]), ("c.tsv.gz", &packed)];
        let (report, seen) = published("cuts://here", &logs);
        let place = format!("seed {seed}, round {round}: {name} cut at {at} of {}", whole.len());
        assert_eq!((report.inputs.new, report.inputs.held), (2, 1), "{place}");
        assert!(report.held[0].source_object.ends_with(&name), "{place}");
        assert!(seen == expected && report.rows.accepted == alone.rows.accepted, "{place}");
    }
    say(&format!("{rounds} runs beside a cut archive, 0 rows of it counted"));
}

/// What may not stand behind an archive.
const TAILS: [&[u8]; 7] =
    [b"garbage", b"\n", b"\0", &[0; 512], b"\x1f", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"];

#[test]
fn members_make_one_log_and_nothing_else_may_follow_them() {
    let seed = seed();
    let (mut numbers, folder) = (Numbers(seed), tempfile::tempdir().unwrap());
    let log = log(&mut numbers, 2000);
    for (extension, pack) in FORMS {
        let path = folder.path().join(format!("members.tsv.{extension}"));
        let object = object(&path);
        let read = |parts: &[&[u8]]| {
            std::fs::write(&path, parts.concat()).unwrap();
            unpacked(&object)
        };
        for members in 1..=50 {
            let mut edges: Vec<usize> = (1..members).map(|_| numbers.below(log.len() + 1)).collect();
            edges.extend([0, log.len()]);
            edges.sort_unstable();
            let packed: Vec<Vec<u8>> = edges.windows(2).map(|edge| pack(&log[edge[0]..edge[1]])).collect();
            let packed: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
            assert!(read(&packed).as_ref() == Ok(&log), "seed {seed}: {members} members of {extension}");
            // A cut just between two members is not to be seen: it leaves a whole archive.
            let first = read(&packed[..1]).unwrap();
            assert!(first == log[..edges[1]], "seed {seed}: the first of {members} members of {extension}");
        }
        let between: Vec<u8> = match extension {
            "gz" => {
                let described = flate2::GzBuilder::new().filename("a\tb.tsv").extra(vec![7u8; 300]);
                described.write(Vec::new(), flate2::Compression::fast()).finish().unwrap()
            }
            // A frame that is to be skipped.
            _ => b"\x50\x2a\x4d\x18\x03\0\0\0xyz".to_vec(),
        };
        let (one, other) = (pack(&log[..1000]), pack(&log[1000..]));
        assert!(read(&[&one, &between, &other]).as_ref() == Ok(&log), "{extension}");
        for tail in TAILS {
            assert!(read(&[&one, tail]).is_err(), "{extension} with {} bytes behind it", tail.len());
        }
    }
}

#[test]
fn empty_logs_are_fine_and_what_is_no_archive_is_held() {
    let mut numbers = Numbers(seed());
    let (good, other) = (log(&mut numbers, 50), log(&mut numbers, 50));
    let (packed_gz, packed_zst, no_gz, no_zst) = (gzip(&other), zstandard(&other), gzip(b""), zstandard(b""));
    let logs: [(&str, &[u8]); 4] =
        [("a.tsv", &good), ("b.tsv", b""), ("c.tsv.gz", &no_gz), ("d.tsv.zst", &no_zst)];
    let (report, expected) = published("forms://here", &logs);
    assert_eq!((report.inputs.new, report.inputs.held), (4, 0), "{:?}", report.held);
    let logs: [(&str, &[u8]); 6] = [
        ("a.tsv", &good),
        ("packed.tsv", &packed_gz),
        ("text.tsv.gz", &other),
        ("text.tsv.zst", &other),
        ("crossed.tsv.gz", &packed_zst),
        ("crossed.tsv.zst", &packed_gz),
    ];
    let (report, seen) = published("forms://here", &logs);
    assert_eq!((report.inputs.new, report.inputs.held), (1, 5), "{:?}", report.held);
    assert!(seen == expected && report.rows.accepted == 50);
}

/// What a run may hold in memory for files that are nothing but large.
const PEAK_BYTES_MAX: u64 = 384 << 20;

#[test]
fn archives_that_swell_are_held_in_bounded_memory() {
    let scratch = Scratch::new();
    let (zeros, lines) = (vec![0; 16 << 20], ODD.repeat((16 << 20) / ODD.len()));
    scratch.write("logs/good.tsv", GOOD);
    let mut bombs = 0u32;
    for (extension, pack) in FORMS {
        // Each 16 MiB again and again, to 10 GiB.
        let (zeros, lines) = (pack(&zeros).repeat(640), pack(lines.as_bytes()).repeat(640));
        let behind = [pack(&log(&mut Numbers(seed()), 50_000)), zeros.clone()].concat();
        let mut all = vec![("zeros", zeros), ("behind", behind)];
        // As fast as gzip is asked to pack here, lines that repeat stay below the bound.
        if extension == "zst" {
            all.push(("lines", lines));
        }
        for (name, bytes) in all {
            scratch.write(&format!("logs/{name}.tsv.{extension}"), bytes);
            bombs += 1;
        }
    }
    let said = scratch.run(&[]);
    let report = said.json();
    assert_eq!((said.code, &report["inputs"]["held"]), (3, &bombs.into()), "{report}");
    for held in report["held"].as_array().unwrap() {
        assert!(held["reason"].as_str().unwrap().contains("swells"), "{held}");
    }
    assert_eq!(scratch.published().keys().map(|key| key.1).collect::<Vec<_>>(), [1]);
    let peak_bytes = report["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak_bytes < PEAK_BYTES_MAX, "{peak_bytes} bytes");
    say(&format!("{bombs} archives of 10 GiB, 0 counted, {} MiB of memory", peak_bytes >> 20));
}

#[test]
fn a_line_without_an_end_costs_no_memory_and_is_one_reject() {
    let line_bytes = rounds(512 << 20, 1 << 30).clamp(512 << 20, 1 << 30) as u64;
    let scratch = Scratch::new().rest("[limits]\nrejects_max_ratio = 1.0");
    scratch.write("logs/ended.tsv", GOOD).write("logs/endless.tsv", "");
    let options = File::options().write(true).clone();
    // Zeros that take no room on the disk.
    options.open(scratch.path("logs/endless.tsv")).unwrap().set_len(line_bytes).unwrap();
    let mut ended = options.open(scratch.path("logs/ended.tsv")).unwrap();
    ended.seek(SeekFrom::Start(GOOD.len() as u64 + line_bytes)).unwrap();
    ended.write_all(format!("\n{ODD}").as_bytes()).unwrap();
    let said = scratch.run(&[]);
    let report = said.json();
    assert_eq!((said.code, &report["rows"]["accepted"]), (0, &2.into()), "{report}");
    let peak_bytes = report["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak_bytes < PEAK_BYTES_MAX, "{peak_bytes} bytes");
    let sql = "select line, byte_offset, \"column\", reason from rejects order by 1";
    let lake = scratch.lake();
    let rejects = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"]);
    let expected = format!("1,0,65537,line_too_long\n2,{},65537,line_too_long\n", GOOD.len());
    assert_eq!(rejects.stdout.split_once('\n').unwrap().1, expected, "{}", rejects.stderr);
    say(&format!("two lines of {} MiB, {} MiB of memory", line_bytes >> 20, peak_bytes >> 20));
}

/// More rejects than a run may hold in memory, a few long lines and many short ones, plain and packed.
#[test]
fn rejects_without_number_cost_no_memory_and_come_back_as_they_stood() {
    let (scratch, mut numbers) = (Scratch::new(), Numbers(seed()));
    let mut expected = Vec::<u8>::new();
    for object in 0..rounds(6, 60) {
        let mut bad = Vec::new();
        while bad.len() < 2 << 20 {
            let length = if numbers.below(50) == 0 { 30_000 } else { numbers.below(40) };
            bad.extend((0..length).map(|_| b'a' + numbers.below(26) as u8));
            bad.extend(b"y\r\n");
        }
        expected.extend(&bad);
        bad.extend(GOOD.replace("1\t2025", &format!("{object}\t2025")).as_bytes());
        let (name, log) = match object % 2 {
            0 => (format!("logs/{object:02}.tsv"), bad),
            _ => (format!("logs/{object:02}.tsv.zst"), zstandard(&bad)),
        };
        scratch.write(&name, log);
    }
    let objects = rounds(6, 60) as u64;
    let least = ["--set", "limits.memory=64MiB", "--set", "limits.rejects_max_ratio=1.0"];
    let said = scratch.run(&least);
    assert_eq!((said.code, said.json()["rows"]["accepted"].as_u64()), (0, Some(objects)), "{}", said.stderr);
    let peak = said.json()["peak_memory_bytes"].as_u64().unwrap() >> 20;
    assert!(peak < 400, "seed {}: {peak} MiB", seed());
    let (json, lake) = (said.json(), scratch.lake());
    assert!(json["spilled_bytes"].as_u64().unwrap() > 4 << 20, "{}", json["spilled_bytes"]);
    let rejects = ["rejects", "--run", json["run_id"].as_str().unwrap(), "--lake", lake.to_str().unwrap()];
    let returned = scratch.pennymill(&rejects).stdout;
    assert!(returned.as_bytes() == expected, "seed {}: something else comes back", seed());
    say(&format!("rejects: {} MiB of {objects} objects, {peak} MiB of memory", expected.len() >> 20));

    std::fs::remove_dir_all(scratch.lake()).unwrap();
    let scratch = scratch.environment("TMPDIR", "/nowhere");
    let said = scratch.run(&least);
    assert_eq!((said.code, said.stdout.as_str()), (73, ""), "{}", said.stderr);
    assert!(said.stderr.contains("/nowhere") && said.stderr.contains("TMPDIR"), "{}", said.stderr);
}

#[test]
fn a_sum_that_no_decimal_holds_publishes_nothing() {
    let row = |user: u64, minute: u32, amount: &str| {
        format!("{user}\t2025-01-10T10:{minute:02}:00Z\tShop\t{amount}\n")
    };
    let (most, least) = ("10000000000.00", "-10000000000.00");
    let scratch = Scratch::new();
    scratch.write("logs/a.tsv", row(1, 0, most).repeat(999_999) + &row(2, 0, least).repeat(999_999));
    assert_eq!(scratch.run(&[]).code, 0);
    let before = scratch.published();
    let sums: Vec<(i64, u64)> = before.values().copied().collect();
    assert_eq!(sums, [(999_999_000_000_000_000, 999_999), (-999_999_000_000_000_000, 999_999)]);
    for line in [row(1, 1, most), row(2, 1, least)] {
        scratch.write("logs/b.tsv", &line);
        for _ in 0..2 {
            let said = scratch.run(&[]);
            assert_eq!((said.code, said.stderr.as_str()), (65, ""), "the only new object is held");
            assert_eq!(
                said.json()["held"][0]["source_object"].as_str().map(|name| name.ends_with("b.tsv")),
                Some(true)
            );
            assert!(scratch.published() == before, "what was published stays");
            assert_eq!(std::fs::read_to_string(scratch.path("logs/b.tsv")).unwrap(), line);
        }
    }
    scratch.write("logs/b.tsv", row(1, 1, least));
    assert_eq!(scratch.run(&[]).code, 0, "what fits is counted");
}

/// The users that are counted, and which objects are held, and why.
type Became = (Vec<u64>, Vec<(String, String)>);

/// Runs over a good log and whatever else `put` puts beside it. Errors: how the run failed.
fn beside_a_good_log(put: impl Fn(&Path)) -> Result<Became, String> {
    let scratch = Scratch::new();
    scratch.write("logs/good.tsv", GOOD);
    put(&scratch.path("logs"));
    let said = scratch.run(&[]);
    if ![0, 3].contains(&said.code) {
        return Err(format!("exit {}: {}", said.code, said.stderr));
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_string();
    let report = said.json();
    let held = report["held"].as_array().unwrap().iter();
    let held: Vec<_> = held.map(|held| (text(&held["source_object"]), text(&held["reason"]))).collect();
    assert_eq!(said.code == 3, !held.is_empty(), "what is held is told by the exit code");
    Ok((scratch.published().keys().map(|key| key.1).collect(), held))
}

#[test]
fn whatever_its_name_a_file_is_counted_or_held() {
    let texts = "with space.tsv/ünïcöde–日本.tsv/%2e%2e.tsv/x..%2f..%2fpasswd/new\nline.tsv/tab\t.tsv/\u{1b}[31mred/\
                 quote\"'`.tsv/{\"level\":\"fatal\"}/a?b=c&d.tsv/#.tsv/a#b.tsv/late#1/*[a].tsv/back\\slash.tsv/\
                 c:drive.tsv/~/-rf/GOOD.TSV/\u{202e}vst.tsv/\u{9b}31m.tsv/\u{2028}.tsv/month=2025-01-01.tsv";
    let mut names: Vec<Vec<u8>> = texts.split('/').map(|text| text.as_bytes().to_vec()).collect();
    names.extend([b"latin \xe9.tsv".to_vec(), vec![b'n'; 255], "é".repeat(127).into_bytes()]);
    let mut lost = Vec::new();
    for name in &names {
        let put = |logs: &Path| std::fs::write(logs.join(OsStr::from_bytes(name)), ODD).unwrap();
        let became = beside_a_good_log(put);
        let is_told = became.as_ref().is_ok_and(|(users, held)| match held.len() {
            0 => users[..] == [1, 2],
            count => users[..] == [1] && count == 1,
        });
        if !is_told {
            lost.push(format!("{:?}: {became:?}", String::from_utf8_lossy(name)));
        }
    }
    let keys = ["n".repeat(300), "new\nline".into(), "%2e%2e/a b".into(), "ü/".repeat(100) + "ü"];
    for key in &keys {
        let logs = [("good.tsv", GOOD.as_bytes()), (key.as_str(), ODD.as_bytes())];
        let (report, _) = published("names://here", &logs);
        assert_eq!((report.inputs.new, report.inputs.held), (2, 0), "{key:?}");
    }
    assert!(lost.is_empty(), "{} names of {} are lost:\n{}", lost.len(), names.len(), lost.join("\n"));
    say(&format!("{} odd names, each counted or held", names.len() + keys.len()));
}

#[test]
fn a_link_among_the_logs_is_held_and_not_followed() {
    let outside = Scratch::new();
    outside.write("secret.tsv", ODD).write("logs/secret.tsv", ODD);
    let links: [(&str, PathBuf); 5] = [
        ("file.tsv", outside.path("secret.tsv")),
        ("folder", outside.path("logs")),
        ("nowhere.tsv", outside.path("nowhere.tsv")),
        ("itself", ".".into()),
        ("other.tsv", "good.tsv".into()),
    ];
    let mut followed = Vec::new();
    for (name, target) in &links {
        let became = beside_a_good_log(|logs| symlink(target, logs.join(name)).unwrap());
        let is_held = became.as_ref().is_ok_and(|(users, held)| {
            let says_so = |(object, why): &(String, String)| object.contains(name) && why.contains("link");
            users[..] == [1] && !held.is_empty() && held.iter().all(says_so)
        });
        if !is_held {
            followed.push(format!("{name} to {}: {became:?}", target.display()));
        }
    }
    assert!(followed.is_empty(), "{}", followed.join("\n"));
    // The folder of the logs itself may be reached by a link.
    let scratch = Scratch::new();
    symlink(outside.path("logs"), scratch.path("linked")).unwrap();
    let said = scratch.run(&["--set", &format!("input.logs={}/", scratch.path("linked").display())]);
    assert_eq!((said.code, &said.json()["inputs"]["new"]), (0, &1.into()), "{}", said.stderr);
}
