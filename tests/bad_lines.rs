//! Lines that are not what they should be: odd bytes, every short amount, every minute of a change of
//! clocks.
//!
//! In: lines by the grammar's alphabet, by the rules of time zones, and by choice. Out: pass, or the
//! line that means another thing than it should.
//! Invariant: a line is counted as it stands or is a reject with its bytes; nothing is repaired.

use crate::support::{rounds, say};
use chrono::{DateTime, Datelike, LocalResult, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;
use pennymill::domain::category::Categories;
use pennymill::domain::transaction::RejectReason;
use pennymill::domain::zone::Zone;
use pennymill::engine::rows::SplitRows;
use pennymill::input::layers::Layers;
use pennymill::kernel::categorize::Categorizer;
use pennymill::kernel::fused::{MapRules, Mapper, Worker};
use pennymill::kernel::keyed::Key;
use pennymill::kernel::memo::Known;
use pennymill::kernel::movement::Chunk;
use pennymill::kernel::partition::{ChunkSink, Partitioner, Sample};
use pennymill::kernel::scan::Scanner;
use pennymill::limits::READ_BYTES;
use std::collections::BTreeMap;

/// What a line came to: its month, microseconds, seller and cents, or why it is a reject and where.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Counted(String, i64, String, i64),
    Refused(RejectReason, u32),
}

use RejectReason::*;
use Told::{Counted, Refused};

struct Nowhere;

impl ChunkSink for Nowhere {
    fn take(&mut self, _: usize, _: Chunk) {}
}

/// Maps a log as a run does. Out: what its lines came to, by their number from 0; blank ones are missing.
fn mapped(log: &[u8], zone: &str, months: &str) -> BTreeMap<u64, Told> {
    let zone = Zone::new(zone, months.parse().unwrap()).unwrap();
    let categorizer = Categorizer::new(&Categories::builtin(), &Layers::default(), &[]).unwrap();
    let (known, partitioner) = (Known::new(&categorizer), Partitioner::from_sample(Sample::default(), 1, 1));
    let rules = MapRules { zone: &zone, key: Key::random(), only_months: None };
    let mut worker = Worker::new(&known, &partitioner, Nowhere);
    let mut mapper = Mapper::new(&rules, &mut worker, SplitRows::default(), 0);
    let mut scanner = Scanner::new(log, 0, u64::MAX, READ_BYTES).unwrap();
    while let Some(block) = scanner.next_block().unwrap() {
        mapper.map(block);
    }
    let (outcome, rejects, rows) = mapper.finish();
    assert_eq!(outcome.lines, outcome.accepted + outcome.blank + rejects.len() as u64);
    let mut told = BTreeMap::new();
    for (month, rows) in rows.by_month {
        for row in rows {
            let seller = row.seller.to_string();
            let counted = Counted(month.to_string(), row.occurred_at_micros, seller, row.amount_cents);
            assert!(told.insert(row.line, counted).is_none());
        }
    }
    for reject in &rejects {
        let stood = &log[reject.byte_offset as usize..][..reject.raw.len()];
        assert!(stood == reject.raw, "a reject keeps its bytes");
        let refused = Refused(reject.refusal.reason, reject.refusal.column);
        assert!(told.insert(reject.line, refused).is_none());
    }
    told
}

const MONTHS: &str = "2000-01..2099-12";

/// What one line came to, alone in its log and among others.
fn told(line: &[u8]) -> Told {
    let good: &[u8] = b"7\t2025-01-02T03:04:05Z\tCAFE\t1.00\n";
    let among = [good, line, b"\n", good].concat();
    let among = mapped(&among, "UTC", MONTHS).remove(&1);
    let alone = mapped(line, "UTC", MONTHS).remove(&0);
    assert_eq!(alone, among, "{:?}", String::from_utf8_lossy(line));
    alone.unwrap_or_else(|| panic!("{:?} is blank", String::from_utf8_lossy(line)))
}

/// A good line but for its seller, which begins at column 24.
fn with_seller(seller: &[u8]) -> Vec<u8> {
    [&b"7\t2025-01-02T03:04:05Z\t"[..], seller, b"\t1.00"].concat()
}

#[test]
fn odd_bytes_in_a_seller_are_kept_or_refused_and_never_repaired() {
    for kept in [
        "\u{2028}",
        "\u{2029}",
        "\u{85}",
        "\u{b}\u{c}",
        "CA\rFE",
        "\r",
        "\u{feff}CAFE",
        "\"",
        "\"CAFE",
        "CA\"FE\"",
        "'",
        " CAFE ",
        "=1+1",
        "\\t",
        "\\",
        "\u{1b}[31m",
        "{\"a\":1}",
        "cafe\u{301}",
        "café",
        "\u{202e}",
        "\u{7f}",
    ] {
        let counted = Counted("2025-01".into(), 1_735_787_045_000_000, kept.into(), 100);
        assert_eq!(told(&with_seller(kept.as_bytes())), counted, "{kept:?}");
    }
    let (longest, wide) = ("x".repeat(255), "é".repeat(128));
    assert!(matches!(told(&with_seller(longest.as_bytes())), Counted(..)));
    let refused: [(&[u8], RejectReason, u32); 12] = [
        (b"CA\0FE", BadSeller, 26),
        (b"\0", BadSeller, 24),
        (b"", BadSeller, 24),
        (wide.as_bytes(), BadSeller, 24 + 255),
        (b"CA\xffFE", BadEncoding, 26),
        (b"\xc0\x80", BadEncoding, 24),
        (b"CAF\xed\xa0\x80", BadEncoding, 27),
        (b"CAFE\xe2\x82", BadEncoding, 28),
        (b"CAF\xe9", BadEncoding, 27),
        (b"\xf4\x90\x80\x80", BadEncoding, 24),
        (b"\xff\xfeC\0A\0F\0E\0", BadSeller, 27),
        // A quotation mark holds no tab together.
        (b"\"CA\tFE\"", FieldCount, 31),
    ];
    for (seller, reason, column) in refused {
        assert_eq!(told(&with_seller(seller)), Refused(reason, column), "{seller:?}");
    }
}

#[test]
fn odd_bytes_elsewhere_are_refused_where_they_stand() {
    let line = "7\t2025-01-02T03:04:05Z\tCAFE\t1.00";
    let with = |from: &str, to: &[u8]| {
        let (before, behind) = line.split_once(from).unwrap();
        [before.as_bytes(), to, behind.as_bytes()].concat()
    };
    let columns = [("7", BadUserId, 1), ("2025-01-02T03:04:05Z", BadTimestamp, 3), ("1.00", BadAmount, 29)];
    for (field, reason, column) in columns {
        for odd in ["\0", " ", "\u{a0}", "\r", "\"", "'", "+", "\u{2028}", "٣", "７", "\u{85}"] {
            for text in [format!("{odd}{field}"), format!("{field}{odd}")] {
                // One final CR belongs to the end of the line.
                let is_end = text == "1.00\r";
                let told = told(&with(field, text.as_bytes()));
                assert_eq!(told == Refused(reason, column), !is_end, "{text:?}: {told:?}");
            }
        }
        for odd in [&b"\xff"[..], b"\xc3\x28", b"\xed\xa0\x80", b""] {
            assert_eq!(told(&with(field, odd)), Refused(reason, column), "{odd:?}");
        }
    }
    let fields = [("\t", "\t\t", 29), ("CAFE\t", "CAFE", 32), ("7\t", "\t7\t", 29), ("1.00", "1.00\t", 33)];
    for (from, to, column) in fields {
        assert_eq!(told(&with(from, to.as_bytes())), Refused(FieldCount, column), "{to:?}");
    }
    // Old lines that end in CR are one line, and a byte order mark is one at the very beginning only.
    assert_eq!(told(format!("{line}\r{line}").as_bytes()), Refused(FieldCount, 35));
    assert_eq!(told(format!("{line}\r\r").as_bytes()), Refused(BadAmount, 29));
    let marked = mapped(format!("\u{feff}{line}\n\u{feff}{line}\r\n{line}").as_bytes(), "UTC", MONTHS);
    assert!(matches!(marked[&0], Counted(..)) && matches!(marked[&2], Counted(..)));
    assert_eq!(marked[&1], Refused(BadUserId, 1));
    let twice = mapped(format!("\u{feff}\u{feff}{line}\n").as_bytes(), "UTC", MONTHS);
    assert_eq!(twice[&0], Refused(BadUserId, 1));
    // The longest line there may be, and one more byte, ends included.
    let zeros = |bytes: usize| with("1.00", format!("{}1.00\n", "0".repeat(bytes - 33)).as_bytes());
    let longest = mapped(&zeros(65_536), "UTC", MONTHS);
    assert!(matches!(longest[&0], Counted(_, _, _, 100)), "{longest:?}");
    assert_eq!(mapped(&zeros(65_537), "UTC", MONTHS)[&0], Refused(LineTooLong, 65_537));
}

/// The grammar of amounts told once more: by a pattern, and in numbers of 128 bits.
fn amount(text: &str, pattern: &regex::Regex) -> Result<i64, RejectReason> {
    let parts = pattern.captures(text).ok_or(BadAmount)?;
    let cents = format!("{}{:0<2}", &parts[1], parts.get(2).map_or("", |decimals| decimals.as_str()));
    let cents = cents.parse::<i128>().map_err(|_| AmountOutOfRange)?;
    match cents <= 1_000_000_000_000 {
        true => Ok(if text.starts_with('-') { -cents as i64 } else { cents as i64 }),
        false => Err(AmountOutOfRange),
    }
}

#[test]
fn every_short_amount_in_a_line_means_what_the_grammar_says() {
    let characters_max = rounds(5, 6).clamp(1, 6);
    let mut texts = vec![String::new()];
    let mut shorter = texts.clone();
    for _ in 0..characters_max {
        shorter =
            shorter.iter().flat_map(|text| "019.-+,e ".chars().map(move |c| format!("{text}{c}"))).collect();
        texts.extend_from_slice(&shorter);
    }
    // Those that the quick way and the slow way share between them by their length.
    for digits in 1..=40 {
        for (sign, digit) in [("", "0"), ("-", "0"), ("", "1"), ("-", "9"), ("--", "1"), ("+", "1")] {
            let whole = digit.repeat(digits);
            let decimals = ["", ".", ".0", ".05", ".99", ".005", ".00.", ".-1", ".1-"];
            texts.extend(decimals.iter().map(|decimals| format!("{sign}{whole}{decimals}")));
            texts.push(format!("{sign}0{whole}.00"));
        }
    }
    for cents in 999_999_999_990..=1_000_000_000_010u64 {
        texts.extend(["", "-", "000"].map(|sign| format!("{sign}{}.{:02}", cents / 100, cents % 100)));
    }
    let log: String = texts.iter().map(|text| format!("7\t2025-01-02T03:04:05Z\tCAFE\t{text}\n")).collect();
    let pattern = regex::Regex::new(r"\A-?([0-9]+)(?:\.([0-9]{1,2}))?\z").unwrap();
    let told = mapped(log.as_bytes(), "UTC", MONTHS);
    assert_eq!(told.len(), texts.len());
    for (text, (_, told)) in texts.iter().zip(&told) {
        let found = match told {
            Counted(.., cents) => Ok(*cents),
            Refused(reason, column) => Err((*reason, *column)),
        };
        assert_eq!(found, amount(text, &pattern).map_err(|reason| (reason, 29)), "{text:?}");
    }
    say(&format!("{} amounts, 0 of another meaning", texts.len()));
}

/// The instants at which a zone's clocks change, as chrono-tz has them.
fn changes(zone: Tz, years: std::ops::RangeInclusive<i32>) -> Vec<i64> {
    let offset = |at: i64| zone.timestamp_opt(at, 0).unwrap().offset().fix().local_minus_utc();
    let start = |year| chrono::NaiveDate::from_ymd_opt(year, 1, 1).unwrap().and_hms_opt(0, 0, 0).unwrap();
    let edges = start(*years.start()).and_utc().timestamp()..start(*years.end() + 1).and_utc().timestamp();
    // No two changes lie within six hours.
    let steps = edges.step_by(6 * 3600).filter(|at| offset(*at) != offset(at + 6 * 3600));
    let change = |at: i64| (at + 1..=at + 6 * 3600).find(|next| offset(*next) != offset(at)).unwrap();
    steps.map(change).collect()
}

fn expected(zone: Tz, found: Option<DateTime<Tz>>) -> Result<(String, i64), RejectReason> {
    let local = found.map(|at| (at.with_timezone(&zone).naive_local(), at.timestamp_micros()));
    let month = |at: NaiveDateTime| format!("{:04}-{:02}", at.year(), at.month());
    local.map(|(local, micros)| (month(local), micros)).ok_or(NonexistentLocalTime)
}

#[test]
fn every_minute_round_each_change_of_clocks_means_what_the_zone_says() {
    let years = match rounds(6, 68) {
        68.. => 1970..=2037,
        few => 2008..=2008 + few as i32 - 1,
    };
    let mut minutes = 0;
    // Half-hour changes, midnights that are skipped, a day that is skipped, changes round a fast.
    for zone in
        ["Europe/London", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"]
    {
        let zone: Tz = zone.parse().unwrap();
        let (mut log, mut means) = (String::new(), Vec::new());
        for change in changes(zone, years.clone()) {
            let before = zone.timestamp_opt(change - 1, 0).unwrap().offset().fix().local_minus_utc();
            for minute in -180..=1600 {
                let local = DateTime::from_timestamp(change + i64::from(before) + 60 * minute, 0).unwrap();
                let at = zone.timestamp_opt(change + 60 * minute, 0).unwrap();
                let found = match zone.from_local_datetime(&local.naive_utc()) {
                    LocalResult::None => None,
                    LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(at),
                };
                let (seconds, utc) = (local.format("%Y-%m-%dT%H:%M:%S"), at.to_utc());
                log += &format!(
                    "7\t{seconds}\tCAFE\t1.00\n7\t{}\tCAFE\t1.00\n",
                    utc.format("%Y-%m-%dT%H:%M:%SZ")
                );
                means.extend([expected(zone, found), expected(zone, Some(at))]);
            }
        }
        let told = mapped(log.as_bytes(), zone.name(), "1969-01..2038-12");
        for ((means, line), (_, told)) in means.iter().zip(log.lines()).zip(&told) {
            let found = match told {
                Counted(month, micros, ..) => Ok((month.clone(), *micros)),
                Refused(reason, _) => Err(*reason),
            };
            assert_eq!(&found, means, "{}: {line}", zone.name());
        }
        assert_eq!(means.len(), told.len());
        minutes += means.len() / 2;
    }
    say(&format!("{minutes} minutes round changes of clocks, 0 of another meaning"));
}

#[test]
fn the_first_and_the_last_year_have_months_and_no_day_has_a_24th_hour_or_a_61st_second() {
    let meant = |time: &str, zone: &str, months: &str| {
        let told = mapped(format!("7\t{time}\tCAFE\t1.00\n").as_bytes(), zone, months);
        match told[&0].clone() {
            Counted(month, ..) => month,
            Refused(reason, _) => reason.name().to_string(),
        }
    };
    for (time, zone, months, means) in [
        ("9999-12-31T23:59:59Z", "UTC", "9990-01..9999-12", "9999-12"),
        ("9999-12-31T23:59:59Z", "Asia/Tokyo", "9990-01..9999-12", "out_of_window"),
        ("9999-12-31T23:59:59-12:00", "UTC", "9990-01..9999-12", "out_of_window"),
        ("0000-01-01T00:00:00Z", "UTC", "0000-01..0001-12", "0000-01"),
        ("0000-01-01T00:00:00+14:00", "UTC", "0000-01..0001-12", "out_of_window"),
        ("0000-02-29", "UTC", "0000-01..0001-12", "0000-02"),
        ("-001-01-01T00:00:00Z", "UTC", "0000-01..0001-12", "bad_timestamp"),
        ("10000-01-01T00:00:00Z", "UTC", "9990-01..9999-12", "bad_timestamp"),
        ("999999999999", "UTC", MONTHS, "out_of_window"),
        ("-999999999999", "UTC", MONTHS, "out_of_window"),
        ("2016-12-31T23:59:60Z", "UTC", MONTHS, "bad_timestamp"),
        ("2017-01-01T00:59:60+01:00", "UTC", MONTHS, "bad_timestamp"),
        ("2025-01-31T24:00:00Z", "UTC", MONTHS, "bad_timestamp"),
        ("2025-01-31T24:00:00", "Europe/Berlin", MONTHS, "bad_timestamp"),
        ("2025-01-31T23:60:00Z", "UTC", MONTHS, "bad_timestamp"),
        ("2025-01-31T23:59:59.999999999Z", "UTC", MONTHS, "2025-01"),
        ("2025-01-31T23:59:59.9999999999Z", "UTC", MONTHS, "bad_timestamp"),
        ("1900-02-29", "UTC", "1900-01..1900-12", "bad_timestamp"),
        ("2000-02-29", "UTC", MONTHS, "2000-02"),
    ] {
        assert_eq!(meant(time, zone, months), means, "{time} in {zone}");
    }
}
