//! Every operation that a run asks of its store fails in turn.
//!
//! In: a dozen nights over a store in memory; six ways to fail, once and from then on. Out: exit codes,
//! the lake that a reader sees, the lake after the next start.
//! Invariant: a reader sees the lake as it was or as it will be; an exit code of success means that it is
//! published, one of failure that it never will be, and one of doubt either; the next start ends as if
//! nothing had happened.

use crate::support::apart::{Share, shares};
use crate::support::faults::{FAULTS, Fate, Faults, Operation};
use crate::support::shop::{Log, Shop, Whole, Wish, counted, is_no_good};
use crate::support::{Numbers, rounds, seed};
use object_store::PutMode;
use object_store::path::Path;
use pennymill::run::Asked;
use pennymill::store::wait;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// A night before its run, and what its run has to come to.
struct Night {
    name: &'static str,
    store: Faults,
    wish: Wish,
    before: Whole,
    after: Whole,
    /// Of a run that nobody disturbs, and of each one after it.
    code: u8,
    /// What an undisturbed run asks of its store.
    operations: usize,
}

/// The logs of a night so far, and a generator for more.
struct Story {
    shop: Shop,
    numbers: Numbers,
    logs: Vec<(String, Log)>,
}

const COMMITS: &str = "monthly_spending/_delta_log/";
const FEBRUARY: [usize; 1] = [1];
const MARCH: [usize; 1] = [2];

impl Story {
    fn begin(seed: u64) -> Story {
        Story { shop: Shop::open(), numbers: Numbers(seed), logs: Vec::new() }
    }

    /// A log comes in.
    fn log(mut self, months: &[usize], rejects: usize) -> Story {
        let log = Log { rejects, ..Log::random(&mut self.numbers, months) };
        let name = format!("log-{}.tsv", self.logs.len());
        self.shop.deliver(&name, &log);
        self.logs.push((name, log));
        self
    }

    fn logged(self) -> Story {
        self.log(&FEBRUARY, 0).log(&MARCH, 0)
    }

    /// A run that nobody disturbs.
    fn run(self) -> Story {
        assert_eq!(self.shop.code(&run()), 0, "an undisturbed run");
        self
    }

    /// The same log again under another name.
    fn copied(self) -> Story {
        self.shop.deliver("copy.tsv", &self.logs[0].1);
        self
    }

    /// The first log says something else now.
    fn changed(mut self) -> Story {
        let (name, log) = &mut self.logs[0];
        log.purchases.remove(0);
        log.purchases.push((3, 1, 0, 4_50));
        self.shop.deliver(name, log);
        self
    }

    /// The first log was written again as it is.
    fn touched(self) -> Story {
        let (name, log) = &self.logs[0];
        self.shop.deliver(name, log);
        self
    }

    /// A run was killed just behind its commit: no other table has followed.
    fn killed_behind_its_commit(self) -> Story {
        let has_committed = AtomicBool::new(false);
        self.shop.store.obey(move |_, operation, path| {
            let is_commit =
                operation == Operation::Write && path.contains(COMMITS) && !path.ends_with("00.json");
            match has_committed.fetch_or(is_commit, Ordering::SeqCst) {
                true => Fate::Refused,
                false => Fate::Served,
            }
        });
        assert_eq!(self.shop.code(&run()), 0, "it has published");
        self.shop.store.recover();
        self
    }

    /// What runs that died have left is old by now.
    fn littered(self) -> Story {
        self.shop.store.obey(|_, operation, path| match operation {
            Operation::Write if path.contains("manifest") => Fate::Refused,
            _ => Fate::Served,
        });
        assert_eq!(self.shop.code(&run()), 75, "it was to fail at its manifest");
        self.shop.store.recover();
        self.shop.store.pass(8);
        self
    }

    fn end(self, name: &'static str, wish: Wish, code: u8) -> Night {
        let before = self.shop.whole();
        let store = self.shop.store.fork();
        let undisturbed = Shop::over(store.fork());
        assert_eq!(undisturbed.code(&wish), code, "{name}, undisturbed");
        let operations = undisturbed.store.recover();
        let after = undisturbed.whole();
        let expected = match &wish {
            Wish::CleanUp => before.spending.clone(),
            Wish::Run(asked) => {
                let mut expected: Vec<&Log> = self.logs.iter().map(|(_, log)| log).collect();
                if !asked.allow_duplicate.is_empty() {
                    expected.push(&self.logs[0].1);
                }
                counted(expected)
            }
        };
        assert!(after.spending == expected, "{name}: an undisturbed run counts something else");
        Night { name, store, wish, before, after, code, operations }
    }
}

fn run() -> Wish {
    Wish::Run(Asked::default())
}

/// Nights of all kinds.
fn nights(seed: u64) -> Vec<Night> {
    let story = |number: u64| Story::begin(seed * 100 + number);
    let first_log = || vec!["log-0.tsv".to_string()];
    let restate = Wish::Run(Asked { restate: first_log(), ..Asked::default() });
    let allow = Wish::Run(Asked { allow_duplicate: vec!["copy.tsv".to_string()], ..Asked::default() });
    let rebuild = Wish::Run(Asked { rebuild: Some("2025-03".parse().unwrap()), ..Asked::default() });
    vec![
        story(0).logged().end("the first night", run(), 0),
        story(1).logged().run().log(&MARCH, 0).end("the same month", run(), 0),
        story(2).log(&FEBRUARY, 0).run().log(&MARCH, 0).end("a new month", run(), 0),
        story(3).logged().run().log(&[0, 1, 2], 0).end("late transactions", run(), 0),
        story(4).logged().run().log(&MARCH, 3).end("rejects", run(), 0),
        story(5).logged().run().log(&MARCH, 0).copied().end("a second delivery", run(), 3),
        story(6).logged().run().copied().end("a second delivery that is allowed", allow, 0),
        story(7).logged().run().changed().end("a log to be restated", restate, 0),
        story(8).logged().run().touched().log(&MARCH, 0).end("a log that was touched", run(), 0),
        story(9).logged().run().log(&MARCH, 0).run().end("a month to be rebuilt", rebuild, 0),
        story(10).logged().run().log(&MARCH, 0).killed_behind_its_commit().log(&MARCH, 0).end(
            "a run that was killed",
            run(),
            0,
        ),
        story(11).logged().run().log(&MARCH, 0).littered().run().end("cleaning up", Wish::CleanUp, 0),
    ]
}

/// One fault, and who is to see what.
struct Case<'a> {
    night: &'a Night,
    operation: usize,
    fate: Fate,
    is_for_good: bool,
    /// Draws when what is late lands.
    draw: usize,
}

impl Case<'_> {
    fn name(&self, seed: u64) -> String {
        let Case { night, operation, fate, is_for_good, .. } = self;
        let often = if *is_for_good { "from then on" } else { "once" };
        format!("seed {seed}, {}: operation {operation} is {fate:?}, {often}", night.name)
    }

    fn play(&self, at: &str) {
        let shop = Shop::over(self.night.store.fork());
        let (operation, fate, is_for_good) = (self.operation, self.fate, self.is_for_good);
        let befallen = Arc::new(OnceLock::new());
        let first = Arc::clone(&befallen);
        shop.store.obey(move |number, what, path| {
            match number == operation || is_for_good && number > operation {
                true => {
                    first.get_or_init(|| format!("{what:?} of {path}"));
                    fate
                }
                false => Fate::Served,
            }
        });
        let (code, said) = shop.run(&self.night.wish);
        shop.store.recover();
        let at = format!("{at} ({})", befallen.get().map_or("not asked", |befallen| befallen));
        self.judge(&shop, code, &said, &at);
        self.mend(&shop, code, &at);
    }

    /// What is seen fits to how the run has ended.
    fn judge(&self, shop: &Shop, code: u8, said: &str, at: &str) {
        let seen = shop.state();
        let (before, after) = (seen == self.night.before.spending, seen == self.night.after.spending);
        assert!(before || after, "{at}: exit {code}: a reader sees half of a run");
        if code == self.night.code {
            assert!(after, "{at}: exit {code}, and nothing was published");
            return;
        }
        let fits = match self.fate {
            Fate::Denied => [75, 76, 77].contains(&code),
            // What reads back as something else is as good as a bug of our own.
            Fate::Short => [70, 75, 76].contains(&code) || is_no_good(code, said),
            _ => [75, 76].contains(&code),
        };
        assert!(fits, "{at}: exit {code}: {said}");
        assert!(before || code == 76, "{at}: exit {code}, and something was published: {said}");
    }

    /// The next start ends as if nothing had happened, whenever what is late lands.
    fn mend(&self, shop: &Shop, code: u8, at: &str) {
        let night = self.night;
        if self.draw.is_multiple_of(2) {
            wait(shop.store.land());
            assert!(
                code == 76 || code == night.code || shop.state() == night.before.spending,
                "{at}: it landed"
            );
        } else {
            let moment = self.draw / 2 % night.operations;
            shop.store.obey(move |number, _, _| if number == moment { Fate::Landing } else { Fate::Served });
        }
        let again = shop.code(&night.wish);
        shop.store.recover();
        wait(shop.store.land());
        assert_eq!(again, night.code, "{at}: the next start");
        let whole = shop.whole();
        assert!(whole.spending == night.after.spending, "{at}: something is lost, or counted twice");
        let (told, alerts) = (whole.alerts.len(), night.after.alerts.len());
        assert!(
            whole.alerts == night.after.alerts,
            "{at}: something else is told: {told} for {alerts} alerts"
        );
        assert!(whole.transactions == night.after.transactions, "{at}: other transactions are listed");
    }
}

#[test]
fn every_operation_fails_in_every_way() {
    let Some(share) = shares("every_operation::every_operation_fails_in_every_way", 2) else { return };
    let cases = rounds(240, 8_640);
    // Five seeds, if it is for long.
    (seed()..).take(if cases < 8_640 { 1 } else { 5 }).for_each(|seed| play_some(seed, cases, share));
}

/// Plays so many of a seed's cases.
fn play_some(seed: u64, cases_max: usize, share: Share) {
    let (nights, mut numbers) = (nights(seed), Numbers(seed));
    let mut cases = Vec::new();
    for night in &nights {
        for operation in 0..night.operations {
            for fate in FAULTS {
                for is_for_good in [false, true] {
                    let draw = numbers.below(1 << 20);
                    cases.push(Case { night, operation, fate, is_for_good, draw });
                }
            }
        }
    }
    let all = cases.len();
    (1..all).rev().for_each(|last| cases.swap(last, numbers.below(last + 1)));
    let mine = cases.into_iter().take(cases_max).skip(share.index).step_by(share.count);
    let mut played = 0;
    for case in mine {
        case.play(&case.name(seed));
        played += 1;
    }
    let operations: usize = nights.iter().map(|night| night.operations).sum();
    let nights = nights.len();
    share.say(&format!(
        "seed {seed}: {played} of {all} faults ({nights} nights, {operations} operations, 6 ways, once and for \
         good): 0 lost, 0 counted twice, 0 halves, 0 told twice"
    ));
}

/// A log is written anew before each of the operations that read it: it is counted as it was or as it is,
/// and never as a mixture.
#[test]
fn a_log_that_is_written_anew_while_it_is_read() {
    let Some(share) = shares("every_operation::a_log_that_is_written_anew_while_it_is_read", 1) else {
        return;
    };
    let story = Story::begin(seed()).logged().run().log(&MARCH, 0);
    let (name, old) = story.logs.last().unwrap().clone();
    let new = Log { purchases: old.purchases.iter().rev().skip(1).copied().collect(), rejects: 0 };
    let before: Vec<&Log> = story.logs[..2].iter().map(|(_, log)| log).collect();
    let says = |log| counted(before.iter().copied().chain([log]));
    let (mut moment, mut stopped, mut counted_once) = (0, 0, 0);
    loop {
        let shop = Shop::over(story.shop.store.fork());
        let (store, path, text) = (shop.store.for_reading(), Path::from(format!("logs/{name}")), new.text());
        let (touches, has_changed) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
        let changed = Arc::clone(&has_changed);
        shop.store.obey(move |_, _, at| {
            if at.contains("logs") && touches.fetch_add(1, Ordering::SeqCst) == moment {
                changed.store(true, Ordering::SeqCst);
                let written = store.write(&path, text.clone().into(), PutMode::Overwrite);
                futures::executor::block_on(written).unwrap();
            }
            Fate::Served
        });
        let code = shop.code(&run());
        shop.store.recover();
        if !has_changed.load(Ordering::SeqCst) {
            break;
        }
        let at = format!("seed {}, before operation {moment} on the logs, exit {code}", seed());
        let is_whole = |state| state == says(&old) || state == says(&new);
        match code {
            0 => counted_once += 1,
            75 => stopped += 1,
            _ => panic!("{at}"),
        }
        assert!(
            if code == 0 { is_whole(shop.state()) } else { shop.state() == counted(before.clone()) },
            "{at}"
        );
        let again = shop.code(&run());
        assert!([0, 3].contains(&again) && is_whole(shop.state()), "{at}, and then {again}");
        // What was counted as it was is held, since it says something else now.
        assert_eq!(again == 3, shop.state() == says(&old), "{at}, and then {again}");
        moment += 1;
    }
    assert!(stopped > 0 && counted_once > 0, "{stopped} stopped, {counted_once} counted");
    share.say(&format!(
        "written anew at {moment} moments: {stopped} runs stopped, {counted_once} counted it whole"
    ));
}
