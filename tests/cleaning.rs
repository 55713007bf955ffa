//! Cleaning up in lakes that are not only ours: links, logs of other writers, files of others, clocks that
//! are wrong, neighbours that nobody can read.
//!
//! In: a lake of some nights, and what others did to it. Out: what is left of it, exit codes.
//! Invariant: nothing goes but what a run of ours has written, nothing names, and is old by every clock;
//! nothing outside the lake is touched; whatever else lies there hinders nobody.

use crate::support::faults::Faults;
use crate::support::s3_server::{environment, serve_ahead};
use crate::support::{Said, Scratch};
use chrono::TimeDelta;
use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use pennymill::engine::local::Tuning;
use pennymill::error::Kind;
use pennymill::gc;
use pennymill::job::cli::GcArgs;
use pennymill::job::spec::Spec;
use pennymill::output::lake::Lake;
use pennymill::run::{Asked, publish};
use pennymill::store::{Place, mount, wait};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A run that died long ago, and another one.
pub const DEAD: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const OTHER: &str = "01890a5d-ac96-774b-bcce-b302099a8058";

/// Two nights in one month, and the table of a job of kind `sql`.
pub fn lake() -> Scratch {
    let scratch = Scratch::new().table("sellers.csv", "seller,category\nShop,groceries\n");
    for night in 1..3 {
        let log = format!("{night}\t2025-01-0{night}T10:00:00Z\tShop\t{night}.50\n");
        scratch.write(&format!("logs/{night}.tsv"), log);
        assert_eq!(scratch.run(&["--set", "output.transactions=true"]).code, 0);
    }
    let job = format!(
        "name = \"totals\"\nkind = \"sql\"\nquery = \"totals.sql\"\n[output]\nlake = {:?}\n",
        scratch.lake()
    );
    scratch.write("totals.sql", "select user_id, sum(amount) as spent from monthly_spending group by 1");
    scratch.write("totals.toml", job);
    let said = scratch.pennymill(&["run", scratch.path("totals.toml").to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    scratch
}

/// Writes a file, with the folders above it, that was changed last ten days ago.
pub fn old(path: &Path) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "left").unwrap();
    age(path);
    path.to_path_buf()
}

pub fn age(path: &Path) {
    let ten_days_ago = SystemTime::now() - Duration::from_secs(10 * 24 * 3600);
    fs::File::options().write(true).open(path).unwrap().set_modified(ten_days_ago).unwrap();
}

pub fn gc(scratch: &Scratch, lake: &Path, more: &[&str]) -> Said {
    scratch.pennymill(&[&["gc", "--lake", lake.to_str().unwrap()], more].concat())
}

/// What a run that died has left in this lake: it has to go, whatever else lies there.
pub fn litter(lake: &Path) -> Vec<PathBuf> {
    let names = [
        format!("_runs/{OTHER}/manifest.json"),
        format!("_runs/{OTHER}/alerts-00000.ndjson"),
        format!("monthly_spending/month=2025-01-01/part-00000-{OTHER}.parquet"),
        format!("totals/part-{OTHER}.parquet"),
        "transactions/.tmpAbCdEf#0".to_string(),
    ];
    names.iter().map(|name| old(&lake.join(name))).collect()
}

pub fn gone(paths: &[PathBuf]) -> bool {
    paths.iter().all(|path| !path.exists())
}

#[test]
fn links_are_reported_and_what_lies_behind_them_stays() {
    let (scratch, outside) = (lake(), tempfile::tempdir().unwrap());
    let lake = scratch.lake();
    let part = format!("part-00000-{DEAD}.parquet");
    let names = ["manifest.json", &part, ".tmpAbCdEf#0", "month=2025-01-01/x", "_delta_log/x"];
    let kept: Vec<PathBuf> = names.map(|name| old(&outside.path().join(name))).to_vec();
    old(&outside.path().join(format!("month=2025-01-01/{part}")));
    let month = lake.join("monthly_spending/month=2025-01-01");
    let links = [
        (month.join("link"), outside.path().to_path_buf()),
        (month.join(format!("part-00001-{DEAD}.parquet")), kept[1].clone()),
        (lake.join("monthly_spending/month=2025-02-01"), outside.path().to_path_buf()),
        (lake.join("monthly_spending/loop"), lake.join("monthly_spending")),
        (lake.join("transactions/nowhere"), outside.path().join("nothing")),
        (lake.join(format!("_runs/{DEAD}")), outside.path().to_path_buf()),
        (lake.join("linked_table"), outside.path().to_path_buf()),
    ];
    for (link, target) in &links {
        symlink(target, link).unwrap();
    }
    let litter = litter(&lake);
    // The lake itself may lie behind a link.
    let behind = scratch.path("behind");
    symlink(&lake, &behind).unwrap();
    for options in [&["--dry-run"][..], &[]] {
        let said = gc(&scratch, &behind, options);
        assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
        for (link, _) in &links {
            assert!(said.stderr.contains(link.to_str().unwrap()), "{link:?} in {}", said.stderr);
            assert!(link.is_symlink(), "{link:?}");
        }
    }
    assert!(gone(&litter), "{litter:?}");
    assert!(kept.iter().all(|file| file.exists()), "something is gone that does not lie in the lake");
    assert!(outside.path().join(format!("month=2025-01-01/{part}")).exists());
}

#[test]
fn a_folder_that_becomes_a_link_before_something_is_deleted_is_not_followed() {
    let (lake, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kept = old(&outside.path().join("part"));
    old(&lake.path().join("table/month/part"));
    let place = Place::open(lake.path().to_str().unwrap()).unwrap();
    let listed = place.contents().unwrap().objects.remove(0);
    fs::remove_dir_all(lake.path().join("table/month")).unwrap();
    symlink(outside.path(), lake.path().join("table/month")).unwrap();
    let refused = place.at(&listed).delete().unwrap_err();
    assert!(refused.kind == Kind::Unfit && refused.to_string().contains("link"), "{refused}");
    assert!(kept.exists());
}

/// Adds a commit of another writer.
pub fn commit(table: &Path, lines: &[String]) {
    let log = table.join("_delta_log");
    let versions = fs::read_dir(&log).unwrap().filter(|entry| {
        entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "json")
    });
    fs::write(log.join(format!("{:020}.json", versions.count())), lines.join("\n")).unwrap();
}

pub fn add(path: &str) -> String {
    format!(
        "{{\"add\":{{\"path\":{path:?},\"partitionValues\":{{}},\"size\":4,\"modificationTime\":1,\
         \"dataChange\":true,\"stats\":\"{{\\\"numRecords\\\":1}}\"}}}}"
    )
}

pub fn table_of_others(table: &Path, partitions: &str, lines: &[String]) {
    fs::create_dir_all(table.join("_delta_log")).unwrap();
    let schema = "{\\\"type\\\":\\\"struct\\\",\\\"fields\\\":[{\\\"name\\\":\\\"a\\\",\\\"type\\\":\
                  \\\"string\\\",\\\"nullable\\\":true,\\\"metadata\\\":{}}]}";
    let first = [
        "{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":2}}".to_string(),
        format!(
            "{{\"metaData\":{{\"id\":\"0\",\"format\":{{\"provider\":\"parquet\",\"options\":{{}}}},\
             \"schemaString\":\"{schema}\",\"partitionColumns\":[{partitions}],\"configuration\":{{}}}}}}"
        ),
    ];
    commit(table, &[&first[..], lines].concat());
}

#[test]
fn whatever_a_log_names_stays_however_it_is_written() {
    let scratch = lake();
    let lake = scratch.lake();
    let totals = lake.join("totals");
    let part = |number: u32| format!("part-{number:05}-{DEAD}.parquet");
    let kept: Vec<PathBuf> = (0..6).map(|number| old(&totals.join(part(number)))).collect();
    let escaped = part(0).replace('-', "%2D");
    let twice = part(1).replace('-', "%252d");
    commit(&totals, &[add(&escaped), add(&twice), add(&format!("./{}", part(2)))]);
    let removed = |path: &str| format!("{{\"remove\":{{\"path\":{path:?},\"dataChange\":true}}}}");
    commit(&totals, &[removed(&escaped), removed(&part(3).replace("part", "%70art"))]);
    // Another table of the lake may hold files of this one: a shallow clone does.
    let absolute = format!("file://{}", totals.join(part(4)).display());
    let beside = format!("../totals/{}", part(5).replace('-', "%2D"));
    table_of_others(&lake.join("clone"), "", &[add(&absolute), add(&beside)]);
    let litter = litter(&lake);
    let said = gc(&scratch, &lake, &[]);
    // A clone demands what this program does not do: it is left alone, and what its log names stays.
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    assert!(kept.iter().all(|file| file.exists()), "a file that a log names is gone: {}", said.stdout);
    assert!(gone(&litter) && said.stderr.contains("clone: left alone: "), "{}", said.stderr);
}

#[test]
fn files_that_no_run_can_have_written_are_counted_and_left() {
    let scratch = lake();
    let lake = scratch.lake();
    let month = "monthly_spending/month=2025-01-01";
    let kept = [
        format!("{month}/part-00000-9bd8ebb8-3a53-4b43-8a4b-4e0e4f0d6a3e-c000.snappy.parquet"),
        format!("{month}/notes.txt"),
        format!("{month}/part-00000-{DEAD}.parquet.bak"),
        format!("monthly_spending/part-00000-{DEAD}.parquet"),
        format!("monthly_spending/_change_data/cdc-00000-{DEAD}.parquet"),
        "monthly_spending/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin".to_string(),
        format!("totals/month=2025-01-01/part-00000-{DEAD}.parquet"),
        format!("_runs/{DEAD}/notes.txt"),
        format!("_runs/backup-{DEAD}/manifest.json"),
        format!("clone/part-{DEAD}.parquet"),
        format!("no_table/part-{DEAD}.parquet"),
        "notes.txt".to_string(),
    ];
    let kept: Vec<PathBuf> = kept.iter().map(|name| old(&lake.join(name))).collect();
    table_of_others(&lake.join("clone"), "", &[]);
    let litter = litter(&lake);
    let said = gc(&scratch, &lake, &[]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(kept.iter().all(|file| file.exists()), "a file of others is gone: {}", said.stdout);
    assert!(gone(&litter));
    let left = said.stdout.split_once("left, since").unwrap().1;
    let line = |name: &str| left.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    assert!(line("monthly_spending").ends_with("6 objects, 24 B"), "{}", said.stdout);
    assert!(line("totals").contains("1 objects") && line("_runs").contains("2 objects"), "{}", said.stdout);
}

#[test]
fn neighbours_that_cannot_be_read_are_reported_and_left_alone() {
    let scratch = lake();
    let lake = scratch.lake();
    let first = "_delta_log/00000000000000000000.json";
    for name in ["corrupt", "a b", "%zz", "%20", "..x", "a#1", "a?b", "~", "ü"] {
        old(&lake.join(name).join(first));
        old(&lake.join(name).join(format!("part-{DEAD}.parquet")));
    }
    for odd in [b"not\xfftext".to_vec(), b"two\nlines".to_vec()] {
        let folder = lake.join(std::ffi::OsString::from_vec(odd));
        fs::create_dir(&folder).unwrap();
        old(&folder.join(first));
    }
    table_of_others(&lake.join("by_name"), "\"a\"", &[]);
    table_of_others(&lake.join("from_the_future"), "", &[]);
    commit(
        &lake.join("from_the_future"),
        &["{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":[\"x\"],\
           \"writerFeatures\":[\"x\"]}}"
            .to_string()],
    );
    fs::create_dir_all(lake.join("folders").join(first)).unwrap();
    fs::create_dir_all(lake.join("empty/deeper")).unwrap();
    fs::create_dir_all(lake.join("pipes/_delta_log")).unwrap();
    for pipe in ["pipe", "pipes/_delta_log/00000000000000000000.json", "pipes/_delta_log/_last_checkpoint"] {
        assert!(Command::new("mkfifo").arg(lake.join(pipe)).status().unwrap().success());
    }
    let _socket = UnixListener::bind(lake.join("socket")).unwrap();
    old(&lake.join("a_file_where_a_table_could_be"));
    let (before, litter) = (all(&lake), litter(&lake));
    let said = gc(&scratch, &lake, &[]);
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    let table = |path: &String| ["monthly_spending", "_runs"].iter().any(|ours| path.starts_with(ours));
    let lost: Vec<&String> = before.iter().filter(|path| !lake.join(path).exists() && !table(path)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(gone(&litter), "{}{}", said.stdout, said.stderr);
    for odd in ["corrupt", "by_name", "from_the_future", "pipe", "socket"] {
        assert!(said.stderr.contains(&format!("/{odd}")), "{odd} in {}", said.stderr);
    }
    assert!(said.stderr.lines().all(|line| line.starts_with("pennymill: ")), "{}", said.stderr);
}

/// Paths of all below that are text.
fn all(folder: &Path) -> BTreeSet<String> {
    let (mut folders, mut found) = (vec![folder.to_path_buf()], BTreeSet::new());
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            found.extend(path.strip_prefix(folder).unwrap().to_str().map(String::from));
            folders.extend(path.is_dir().then_some(path));
        }
    }
    found
}

#[test]
fn the_clock_of_a_writer_makes_no_version_old() {
    let scratch = lake();
    let lake = scratch.lake();
    for version in 0..3 {
        let path = lake.join(format!("monthly_spending/_delta_log/{version:020}.json"));
        let text = fs::read_to_string(&path).unwrap();
        let start = text.find("\"timestamp\":").unwrap() + "\"timestamp\":".len();
        // The same moment of another decade.
        fs::write(&path, format!("{}14{}", &text[..start], &text[start + 2..])).unwrap();
    }
    for path in all(&lake).iter().filter(|path| path.starts_with("monthly_spending/month")) {
        if lake.join(path).is_file() {
            age(&lake.join(path));
        }
    }
    let said = gc(&scratch, &lake, &[]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let sql = "select sum(amount) from monthly_spending";
    let lake = lake.to_str().unwrap();
    let then = scratch.pennymill(&["query", "--lake", lake, sql, "--as-of", "1", "--format", "csv"]);
    assert!(then.stdout.ends_with("\n1.50\n"), "{}{}", then.stdout, then.stderr);
}

/// Nights in a store whose clock the test sets, under a root that only this test uses.
fn nights(root: &str, store: &Faults) {
    mount(root, Arc::new(store.clone())).unwrap();
    let job = format!(
        "name = \"test\"\nkind = \"spending\"\n[input]\nlogs = \"{root}/logs/\"\n[output]\nlake = \
         \"{root}/lake\"\n"
    );
    let spec = Spec::parse(&job, "job.toml", &[]).unwrap();
    for night in 1..4 {
        let log = format!("1\t2025-01-0{night}T10:00:00Z\tShop\t1.00\n");
        wait(store.put(&Key::from(format!("logs/{night}.tsv")), log.into_bytes().into())).unwrap();
        publish(&spec, &Asked::default(), &Tuning::new(1, 1 << 28)).unwrap();
        store.pass(10);
    }
}

/// The objects of all parts there ever were.
fn parts(root: &str) -> usize {
    let place = Place::open(&format!("{root}/lake/monthly_spending")).unwrap();
    place.list().unwrap().iter().filter(|meta| meta.location.as_ref().ends_with(".parquet")).count()
}

fn clean_up(root: &str) -> Result<u8, pennymill::error::Error> {
    gc::run(&GcArgs { lake: format!("{root}/lake"), dry_run: false }).map(|(_, code)| code)
}

#[test]
fn a_clock_that_is_wrong_deletes_nothing() {
    // Twenty days after the first of three nights, all that was ever published is to be kept.
    let (root, store) = ("clocks://apart", Faults::new());
    nights(root, &store);
    let parts_before = parts(root);
    assert_eq!(parts_before, 3);
    for days in [3650, 2, -2, -3650] {
        store.set_clock(TimeDelta::days(days));
        let refused = clean_up(root).unwrap_err();
        assert_eq!(refused.kind, Kind::Unfit, "{refused}");
        assert!(refused.to_string().contains("clock"), "{refused}");
    }
    store.set_clock(TimeDelta::hours(2));
    assert_eq!(clean_up(root).unwrap(), 0);
    assert_eq!(parts(root), parts_before, "a part of the last weeks is gone");
    // Both clocks may be wrong, which looks as if nobody had written anything for ten years.
    store.set_clock(TimeDelta::zero());
    store.pass(3650);
    for _ in 0..2 {
        assert_eq!(clean_up(root).unwrap(), 0);
        assert_eq!(parts(root), parts_before, "a part of the last weeks before the last write is gone");
    }
    // A lake that is written again grows old again, once a day has confirmed it: one night at which all
    // clocks are ten years ahead looks the same.
    nights_later(root, &store);
    let refused = clean_up(root).unwrap_err();
    assert!(refused.kind == Kind::Unfit && refused.to_string().contains("a day later"), "{refused}");
    assert_eq!(parts(root), parts_before + 1, "one night's clock has made all others old");
    store.pass(2);
    assert_eq!(clean_up(root).unwrap(), 0);
    assert_eq!(parts(root), 2, "two parts were replaced weeks ago, and one is what it was then");
    assert!(Lake::open(&format!("{root}/lake")).unwrap().head().unwrap().is_some());
}

/// One more night.
fn nights_later(root: &str, store: &Faults) {
    let job = format!(
        "name = \"test\"\nkind = \"spending\"\n[input]\nlogs = \"{root}/logs/\"\n[output]\nlake = \
         \"{root}/lake\"\n"
    );
    let spec = Spec::parse(&job, "job.toml", &[]).unwrap();
    let log = "1\t2025-01-09T10:00:00Z\tShop\t1.00\n".as_bytes();
    wait(store.put(&Key::from("logs/9.tsv"), log.to_vec().into())).unwrap();
    publish(&spec, &Asked::default(), &Tuning::new(1, 1 << 28)).unwrap();
}

#[test]
fn clocks_that_are_apart_are_reported_with_both_times() {
    for (hours, code) in [(0, 0), (2, 0), (-2, 0), (30, 78), (-30, 78)] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("bucket/logs")).unwrap();
        let endpoint = serve_ahead(folder.path(), TimeDelta::hours(hours));
        let set = |scratch: Scratch, (name, value): &(&str, &str)| scratch.environment(name, value);
        let scratch = environment(&endpoint).iter().fold(Scratch::new(), set);
        fs::write(folder.path().join("bucket/logs/1.tsv"), "1\t2025-01-01T10:00:00Z\tShop\t1.00\n").unwrap();
        let places = ["input.logs=s3://bucket/logs/", "output.lake=s3://bucket/lake/"];
        let said = scratch.run(&places.iter().flat_map(|set| ["--set", *set]).collect::<Vec<_>>());
        assert_eq!(said.code, 0, "{}", said.stderr);
        let said = scratch.pennymill(&["gc", "--lake", "s3://bucket/lake/"]);
        assert_eq!(said.code, code, "{hours} hours: {}{}", said.stdout, said.stderr);
        let reported =
            said.stderr.contains("the store's clock shows") && said.stderr.contains("this machine's");
        assert_eq!(reported, hours != 0, "{hours} hours: {}", said.stderr);
        assert_eq!(said.stderr.lines().count(), usize::from(hours != 0), "{}", said.stderr);
    }
}
