//! Nights drawn at random, over a store in memory whose days pass as fast as they are told to.
//!
//! In: a seed: logs that are new, late, copied, changed or touched; runs that are disturbed, killed, or
//! overtaken by another writer at one of their operations; cleaning up; days.
//! Out: exit codes, what a reader sees, what an audit finds.
//! Invariant: a lake says what was counted before a run or what is counted after it; the next start puts
//! everything right; the same seed plays the same nights.

use crate::support::apart::{Share, shares};
use crate::support::faults::{FAULTS, Fate};
use crate::support::shop::{Log, Shop, Wish, counted, is_no_good};
use crate::support::watch::State;
use crate::support::{Numbers, rounds, seed};
use pennymill::run::Asked;
use pennymill::store::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// More operations than this has no run here.
const OPERATIONS_MAX: usize = 220;

const SUCCESS: [u8; 3] = [0, 3, 65];

/// What has happened, for the one line of figures.
#[derive(Default)]
struct Figures {
    nights: usize,
    disturbed: usize,
    overtaken: usize,
    restated: usize,
    cleanings: usize,
}

struct Simulation {
    seed: u64,
    numbers: Numbers,
    shop: Shop,
    /// By name: what every log says now.
    logs: BTreeMap<String, Log>,
    /// What is counted of it.
    counted: BTreeMap<String, Log>,
    /// Logs that say what another one says.
    copies: BTreeSet<String>,
    /// Logs that have changed since they were counted.
    changed: BTreeSet<String>,
    /// Logs that were copied, which stay as they are: a copy of what is counted no more would be new.
    copied: BTreeSet<String>,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        Simulation {
            seed,
            numbers: Numbers(seed),
            shop: Shop::open(),
            logs: BTreeMap::new(),
            counted: BTreeMap::new(),
            copies: BTreeSet::new(),
            changed: BTreeSet::new(),
            copied: BTreeSet::new(),
        }
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.numbers.below(count) == 0
    }

    /// A log that is counted, and neither copied nor changed.
    fn settled_log(&mut self) -> Option<String> {
        let is_settled = |name: &&String| !self.copied.contains(*name) && !self.changed.contains(*name);
        let settled: Vec<String> = self.counted.keys().filter(is_settled).cloned().collect();
        (!settled.is_empty()).then(|| self.numbers.one_of(&settled).clone())
    }

    /// What comes in before a night's run.
    fn deliver(&mut self) {
        // Without any log there would be nothing to run over.
        let count = self.numbers.below(3).max(usize::from(self.logs.is_empty()));
        for _ in 0..count {
            // Most transactions are of the newest month, some come late.
            let months: &[usize] = if self.one_in(3) { &[0, 1, 2] } else { &[2] };
            let rejects = self.numbers.below(3);
            let log = Log { rejects, ..Log::random(&mut self.numbers, months) };
            let name = format!("log-{:03}-{}.tsv", self.logs.len(), self.numbers.below(100));
            self.shop.deliver(&name, &log);
            self.logs.insert(name, log);
        }
        let Some(name) = self.settled_log() else { return };
        let log = self.logs[&name].clone();
        match self.numbers.below(8) {
            0 => {
                let copy = format!("copy-of-{name}");
                self.shop.deliver(&copy, &log);
                self.logs.insert(copy.clone(), log);
                self.copies.insert(copy);
                self.copied.insert(name);
            }
            1 => {
                let log = Log::random(&mut self.numbers, &[1, 2]);
                self.shop.deliver(&name, &log);
                self.logs.insert(name.clone(), log);
                self.changed.insert(name);
            }
            2 => self.shop.deliver(&name, &log),
            _ => {}
        }
    }

    /// What is counted when all that is new is.
    fn with_news(&self) -> BTreeMap<String, Log> {
        let mut counted = self.counted.clone();
        let is_new = |name: &&String| !self.copies.contains(*name) && !counted.contains_key(*name);
        let new: Vec<String> = self.logs.keys().filter(is_new).cloned().collect();
        counted.extend(new.into_iter().map(|name| (name.clone(), self.logs[&name].clone())));
        counted
    }

    /// A run that something befalls, and the next start.
    fn play(&mut self, wish: &Wish, next: BTreeMap<String, Log>, figures: &mut Figures) {
        let (before, after) = (counted(self.counted.values()), counted(next.values()));
        let moment = self.numbers.below(OPERATIONS_MAX);
        let is_overtaken = self.one_in(4);
        if is_overtaken {
            self.overtake(moment, wish);
            figures.overtaken += 1;
        } else if !self.one_in(3) {
            let (fate, is_for_good) = (*self.numbers.one_of(&FAULTS), self.one_in(2));
            self.shop.store.obey(move |number, _, _| {
                let is_hit = number == moment || is_for_good && number > moment;
                if is_hit { fate } else { Fate::Served }
            });
            figures.disturbed += 1;
        }
        let (code, said) = self.shop.run(wish);
        self.shop.store.recover();
        self.judge(code, &said, &before, &after, is_overtaken);
        if self.one_in(2) {
            wait(self.shop.store.land());
        }
        let again = self.shop.code(wish);
        wait(self.shop.store.land());
        self.expect(SUCCESS.contains(&again), &format!("the next start ends with {again}, after {code}"));
        self.expect(self.shop.state() == after, &format!("lost, or counted twice, after {code}"));
        self.counted = next;
    }

    /// At this operation, another writer runs from its begin to its end, perhaps days later.
    fn overtake(&mut self, moment: usize, wish: &Wish) {
        let (has_run, days) = (AtomicBool::new(false), if self.one_in(3) { 8 } else { 0 });
        let (rival, cleaner) = (self.shop.starter(wish), self.shop.starter(&Wish::CleanUp));
        let (store, seed, is_cleaner) = (self.shop.store.clone(), self.seed, self.one_in(2));
        self.shop.store.obey(move |number, _, _| {
            if number >= moment && !has_run.swap(true, Ordering::SeqCst) {
                store.pass(days);
                let (rival, cleaner) = (rival.clone(), cleaner.clone());
                let run = move || (rival(), if is_cleaner { cleaner() } else { 0 });
                let (rival, cleaner) =
                    tokio::task::block_in_place(|| std::thread::spawn(run).join().unwrap());
                assert!(SUCCESS.contains(&rival), "seed {seed}: a rival ends with {rival}");
                assert!([0, 66].contains(&cleaner), "seed {seed}: cleaning up ends with {cleaner}");
            }
            Fate::Served
        });
    }

    /// What a reader sees fits to how the run has ended.
    fn judge(&self, code: u8, said: &str, before: &State, after: &State, is_overtaken: bool) {
        let seen = self.shop.state();
        self.expect(seen == *before || seen == *after, &format!("half of a run is seen, exit {code}"));
        match code {
            0 | 3 | 65 => self.expect(seen == *after, &format!("exit {code}, and it is not published")),
            76 => {}
            _ => {
                let may_end_so = [70, 75, 77].contains(&code) || is_no_good(code, said);
                self.expect(may_end_so, &format!("exit {code}: {said}"));
                self.expect(seen == *before || is_overtaken, &format!("exit {code}, and it is published"));
            }
        }
    }

    fn expect(&self, holds: bool, what: &str) {
        assert!(holds, "PENNYMILL_SEED={} PENNYMILL_ROUNDS=1 plays it again: {what}", self.seed);
    }

    fn night(&mut self, figures: &mut Figures) {
        self.deliver();
        let next = self.with_news();
        self.play(&Wish::Run(Asked::default()), next, figures);
        if let Some(name) = self.changed.pop_first() {
            let mut next = self.counted.clone();
            next.insert(name.clone(), self.logs[&name].clone());
            self.play(&Wish::Run(Asked { restate: vec![name], ..Asked::default() }), next, figures);
            figures.restated += 1;
        }
        let days = if self.one_in(3) { self.numbers.below(40) as i64 } else { 1 };
        self.shop.store.pass(days);
        if self.one_in(3) && !self.counted.is_empty() {
            let next = self.counted.clone();
            self.play(&Wish::CleanUp, next, figures);
            figures.cleanings += 1;
        }
        figures.nights += 1;
    }

    /// Nothing is listed or told twice, and the books are right.
    fn end(&self) {
        let whole = self.shop.whole();
        let purchases: usize = self.counted.values().map(|log| log.purchases.len()).sum();
        self.expect(whole.transactions.len() == purchases, "other transactions are listed");
        let alerts: BTreeSet<&String> = whole.alerts.iter().collect();
        self.expect(alerts.len() == whole.alerts.len(), "an alert is told twice");
        if !self.counted.is_empty() {
            let found = self.shop.audit();
            self.expect(found.is_none(), &format!("an audit finds {found:?}"));
        }
    }
}

#[test]
fn nights_at_random() {
    let Some(share) = shares("simulated::nights_at_random", 2) else { return };
    let seeds = rounds(40, 20_000) as u64;
    let mine: Vec<u64> = (seed()..seed() + seeds).skip(share.index).step_by(share.count).collect();
    // What has held so far is told, for whoever has to break off.
    mine.chunks(500).for_each(|seeds| play(share, seeds));
}

fn play(share: Share, seeds: &[u64]) {
    let mut figures = Figures::default();
    for &seed in seeds {
        let mut simulation = Simulation::new(seed);
        (0..2 + simulation.numbers.below(3)).for_each(|_| simulation.night(&mut figures));
        simulation.end();
    }
    let Figures { nights, disturbed, overtaken, restated, cleanings } = figures;
    share.say(&format!(
        "{} seeds from {}: {nights} nights, {disturbed} runs disturbed, {overtaken} overtaken, {restated} \
         restated, {cleanings} cleaned up: 0 lost, 0 counted twice, 0 halves, 0 told twice",
        seeds.len(),
        seeds[0]
    ));
}
