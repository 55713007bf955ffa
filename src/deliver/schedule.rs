//! Which message is sent next: lanes in order, hosts in turn, and nobody waits for a slow one.
//!
//! In: messages by lane and host, the time, what came of each attempt. Out: what to start now, how
//! long to wait, and how each message ended.
//! Invariant: of a lane one message is under way at a time, in order, and a message that is left for
//! a later run keeps back the later ones of its lane; each message ends once; a message that waits
//! holds no slot; no more than `room` messages are kept.

use crate::error::Error;
use crate::planted::Bug;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

/// Time since the run began to send.
pub type Now = Duration;

/// How a message ended.
#[derive(Debug)]
pub enum Sent {
    /// A receiver took it.
    Delivered,
    /// It will never be taken, for this reason.
    Refused(String),
    /// It is left for a later run.
    Deferred,
    /// It may be taken once somebody has mended what is wrong with us.
    Failed(Error),
}

/// What came of one attempt.
#[derive(Debug)]
pub enum Tried {
    Taken,
    Never(String),
    /// A receiver is slow or busy, or asks to wait this long.
    NotNow(Option<Duration>),
    /// This address cannot be reached now; its host is well.
    NotThisOne,
    Broken(Error),
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts begin this far apart.
    pub interval: Duration,
    /// Attempts under way at once.
    pub slots: usize,
    /// Of one message in a run.
    pub attempts_max: u32,
    /// After this no attempt begins.
    pub deadline: Now,
    /// Messages in memory.
    pub room: usize,
    /// A host that fills its part of the room may hold up the others for this long.
    pub patience: Duration,
}

/// A host that failed this many attempts in a row is left alone for the rest of the run.
pub const HOST_FAILURES_MAX: u32 = 20;

/// Nobody waits longer than this within a run.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// A host earns this much patience with each message that it settles.
const PATIENCE_EARNED: Duration = Duration::from_millis(250);

/// While hosts that are well have messages, every eighth attempt is for one that failed last.
const TURNS_OF_DOUBTFUL: u64 = 8;

/// A timer wakes us late: attempts that fell behind by no more than this are caught up with.
const CATCH_UP: Duration = Duration::from_millis(10);

/// A message that is done with, and after how many attempts.
#[derive(Debug)]
pub struct Ended<M> {
    pub message: M,
    pub sent: Sent,
    pub attempts: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step<L> {
    /// The first message of this lane is to be sent now.
    Start(L),
    /// Nothing can begin before this time, or before an attempt ends.
    WaitUntil(Now),
}

struct Lane<M> {
    /// Each with the number of its host.
    queue: VecDeque<(usize, M)>,
    /// Of the first message.
    attempts: u32,
    is_under_way: bool,
}

struct Host<L> {
    /// Lanes whose first message may begin.
    ready: VecDeque<L>,
    under_way: usize,
    slots: usize,
    /// Attempts in a row.
    failures: u32,
    /// Messages in memory.
    kept: usize,
    patience: Duration,
    /// Since when it holds up the others.
    in_the_way: Option<Now>,
    /// Whether it stands in one of the rings.
    has_turn: bool,
}

pub struct Schedule<L, H, M> {
    limits: Limits,
    hosts: Vec<Host<L>>,
    numbers: HashMap<H, usize>,
    lanes: HashMap<L, Lane<M>>,
    /// Lanes whose messages are left for a later run.
    held: HashSet<L>,
    /// Hosts that can begin, in turn.
    well: VecDeque<usize>,
    /// Those of them whose last attempt failed.
    doubtful: VecDeque<usize>,
    /// Lanes whose first message waits, by the end of its wait.
    waiting: BTreeMap<(Now, u64), L>,
    under_way: usize,
    kept: usize,
    starts: u64,
    waits: u64,
    next_start: Now,
    ended: Vec<Ended<M>>,
}

impl<L: Clone + Eq + Hash, H: Eq + Hash, M> Schedule<L, H, M> {
    pub fn new(limits: Limits) -> Schedule<L, H, M> {
        Schedule {
            limits,
            hosts: Vec::new(),
            numbers: HashMap::new(),
            lanes: HashMap::new(),
            held: HashSet::new(),
            well: VecDeque::new(),
            doubtful: VecDeque::new(),
            waiting: BTreeMap::new(),
            under_way: 0,
            kept: 0,
            starts: 0,
            waits: 0,
            next_start: Now::ZERO,
            ended: Vec::new(),
        }
    }

    /// Takes a message, behind those of its lane. Gives it back when there is no room for it now.
    /// `slots` is how many of its host may be under way.
    pub fn offer(&mut self, now: Now, lane: L, host: H, slots: usize, message: M) -> Result<(), M> {
        let number = self.number_of(host, slots);
        if self.held.contains(&lane) || now >= self.limits.deadline || self.is_left_alone(number) {
            self.hold(&lane);
            self.end(message, Sent::Deferred, 0);
            return Ok(());
        }
        let free = self.limits.room - self.kept;
        if free == 0 {
            return Err(message);
        }
        // With half of what is free, no number of slow hosts fills the room.
        let is_in_the_way = self.hosts[number].kept > free / 2;
        if self.wears_out(number, now, is_in_the_way) {
            self.hold(&lane);
            self.end(message, Sent::Deferred, 0);
            return Ok(());
        }
        if is_in_the_way {
            return Err(message);
        }
        self.kept += 1;
        self.hosts[number].kept += 1;
        let new = || Lane { queue: VecDeque::new(), attempts: 0, is_under_way: false };
        let open = self.lanes.entry(lane.clone()).or_insert_with(new);
        open.queue.push_back((number, message));
        if open.queue.len() == 1 {
            self.make_ready(&lane);
        }
        Ok(())
    }

    fn number_of(&mut self, host: H, slots: usize) -> usize {
        let patience = self.limits.patience;
        *self.numbers.entry(host).or_insert_with(|| {
            self.hosts.push(Host {
                ready: VecDeque::new(),
                under_way: 0,
                slots,
                failures: 0,
                kept: 0,
                patience,
                in_the_way: None,
                has_turn: false,
            });
            self.hosts.len() - 1
        })
    }

    fn is_left_alone(&self, host: usize) -> bool {
        self.hosts[host].failures >= HOST_FAILURES_MAX
    }

    /// Takes the time that a host was in the way from its patience. Out: whether it is in the way and
    /// has none left.
    fn wears_out(&mut self, host: usize, now: Now, is_in_the_way: bool) -> bool {
        let host = &mut self.hosts[host];
        if let Some(since) = host.in_the_way.take() {
            host.patience = host.patience.saturating_sub(now - since);
        }
        host.in_the_way = is_in_the_way.then_some(now);
        is_in_the_way && host.patience.is_zero()
    }

    /// What to do now. A lane that is to start is under way from then on.
    pub fn next(&mut self, now: Now) -> Step<L> {
        if now >= self.limits.deadline {
            self.stop();
            return Step::WaitUntil(Now::MAX);
        }
        self.wake(now);
        let until = self.waiting.first_key_value().map_or(Now::MAX, |((due, _), _)| *due);
        if self.under_way >= self.limits.slots {
            return Step::WaitUntil(until.min(self.limits.deadline));
        }
        if now < self.next_start && !(self.well.is_empty() && self.doubtful.is_empty()) {
            return Step::WaitUntil(self.next_start.min(self.limits.deadline));
        }
        let Some(host) = self.whose_turn() else {
            return Step::WaitUntil(until.min(self.limits.deadline));
        };
        let lane = self.hosts[host].ready.pop_front().expect("a host in a ring has lanes that are ready");
        self.lanes.get_mut(&lane).expect("a lane that is ready has a message").is_under_way = true;
        self.hosts[host].under_way += 1;
        self.under_way += 1;
        self.starts += 1;
        self.next_start = self.next_start.max(now.saturating_sub(CATCH_UP)) + self.limits.interval;
        self.give_turn(host);
        Step::Start(lane)
    }

    /// The message of a lane that is under way.
    pub fn message(&self, lane: &L) -> &M {
        &self.lanes[lane].queue[0].1
    }

    /// Takes what came of an attempt. `chance` is any number, drawn anew.
    pub fn done(&mut self, now: Now, lane: &L, tried: Tried, chance: u64) {
        let open = self.lanes.get_mut(lane).expect("a lane that is under way has a message");
        open.attempts += 1;
        open.is_under_way = false;
        let (host, attempts) = (open.queue[0].0, open.attempts);
        let will_wait = matches!(tried, Tried::NotNow(_) | Tried::NotThisOne);
        if !(will_wait && Bug::WaitsInSlot.is_planted()) {
            self.under_way -= 1;
        }
        self.hosts[host].under_way -= 1;
        match &tried {
            Tried::Taken | Tried::Never(_) => self.hosts[host].failures = 0,
            Tried::NotNow(_) | Tried::Broken(_) => self.hosts[host].failures += 1,
            Tried::NotThisOne => {}
        }
        match tried {
            Tried::Taken => self.settle(lane, Sent::Delivered),
            Tried::Never(reason) => self.settle(lane, Sent::Refused(reason)),
            Tried::Broken(error) => self.give_up(lane, Sent::Failed(error)),
            Tried::NotNow(asked) => self.retry(now, lane, asked.unwrap_or_else(|| backoff(attempts, chance))),
            Tried::NotThisOne => self.retry(now, lane, backoff(attempts, chance)),
        }
        if self.is_left_alone(host) {
            let ready = std::mem::take(&mut self.hosts[host].ready);
            ready.iter().for_each(|lane| self.give_up(lane, Sent::Deferred));
        }
        self.give_turn(host);
    }

    /// What ended since the last call.
    pub fn take_ended(&mut self) -> Vec<Ended<M>> {
        std::mem::take(&mut self.ended)
    }

    /// Whether no message is left in here.
    pub fn is_empty(&self) -> bool {
        self.kept == 0
    }

    /// The host whose turn it is, taken out of its ring.
    fn whose_turn(&mut self) -> Option<usize> {
        let is_theirs = self.starts % TURNS_OF_DOUBTFUL == TURNS_OF_DOUBTFUL - 1;
        loop {
            let from_doubtful = self.well.is_empty() || (is_theirs && !self.doubtful.is_empty());
            let ring = if from_doubtful { &mut self.doubtful } else { &mut self.well };
            let host = ring.pop_front()?;
            self.hosts[host].has_turn = false;
            let is_doubtful = self.hosts[host].failures > 0;
            // It may have failed or lost its lanes since it came into the ring.
            if self.can_begin(host) && (from_doubtful || !is_doubtful) {
                return Some(host);
            }
            self.give_turn(host);
        }
    }

    fn can_begin(&self, host: usize) -> bool {
        let host = &self.hosts[host];
        !host.ready.is_empty() && host.under_way < host.slots
    }

    fn give_turn(&mut self, host: usize) {
        if self.can_begin(host) && !self.hosts[host].has_turn {
            self.hosts[host].has_turn = true;
            let ring = if self.hosts[host].failures > 0 { &mut self.doubtful } else { &mut self.well };
            ring.push_back(host);
        }
    }

    /// Lanes whose wait is over are ready again.
    fn wake(&mut self, now: Now) {
        while let Some(first) = self.waiting.first_entry()
            && first.key().0 <= now
        {
            let lane = first.remove();
            if Bug::WaitsInSlot.is_planted() {
                self.under_way -= 1;
            }
            self.make_ready(&lane);
        }
    }

    fn make_ready(&mut self, lane: &L) {
        let host = self.lanes[lane].queue[0].0;
        if self.is_left_alone(host) {
            return self.give_up(lane, Sent::Deferred);
        }
        self.hosts[host].ready.push_back(lane.clone());
        self.give_turn(host);
    }

    /// Waits before the next attempt, if there is to be one in this run.
    fn retry(&mut self, now: Now, lane: &L, wait: Duration) {
        let has_attempts = self.lanes[lane].attempts < self.limits.attempts_max;
        let has_time = wait <= WAIT_MAX && now + wait < self.limits.deadline;
        // Those that wait leave half of the room to the others.
        let has_room = self.waiting.len() < self.limits.room / 2;
        if has_attempts && has_time && has_room {
            self.waits += 1;
            self.waiting.insert((now + wait, self.waits), lane.clone());
        } else {
            self.give_up(lane, Sent::Deferred);
        }
    }

    /// The first message of a lane is done with, and the next one may begin.
    fn settle(&mut self, lane: &L, sent: Sent) {
        let host = self.lanes[lane].queue[0].0;
        let earned = self.hosts[host].patience + PATIENCE_EARNED;
        self.hosts[host].patience = earned.min(self.limits.patience);
        self.end_first(lane, sent);
        match self.lanes[lane].queue.is_empty() {
            true => drop(self.lanes.remove(lane)),
            false => self.make_ready(lane),
        }
    }

    /// The first message of a lane ends like this, and all behind it are left for a later run.
    fn give_up(&mut self, lane: &L, sent: Sent) {
        self.end_first(lane, sent);
        if Bug::LaterOvertakes.is_planted() {
            return match self.lanes[lane].queue.is_empty() {
                true => drop(self.lanes.remove(lane)),
                false => self.make_ready(lane),
            };
        }
        self.hold(lane);
        while !self.lanes[lane].queue.is_empty() {
            self.end_first(lane, Sent::Deferred);
        }
        self.lanes.remove(lane);
    }

    /// What comes for this lane is left for a later run.
    fn hold(&mut self, lane: &L) {
        if !self.held.contains(lane) {
            self.held.insert(lane.clone());
        }
    }

    /// Leaves everything that is not under way for a later run.
    fn stop(&mut self) {
        self.well.clear();
        self.doubtful.clear();
        self.waiting.clear();
        for host in &mut self.hosts {
            host.ready.clear();
            host.has_turn = false;
        }
        let idle: Vec<L> =
            self.lanes.iter().filter(|(_, lane)| !lane.is_under_way).map(|(key, _)| key.clone()).collect();
        idle.iter().for_each(|lane| self.give_up(lane, Sent::Deferred));
    }

    fn end_first(&mut self, lane: &L, sent: Sent) {
        let open = self.lanes.get_mut(lane).expect("a lane that has a message");
        let (host, message) = open.queue.pop_front().expect("a lane that is not done has a message");
        let attempts = std::mem::take(&mut open.attempts);
        self.hosts[host].kept -= 1;
        self.kept -= 1;
        self.end(message, sent, attempts);
    }

    fn end(&mut self, message: M, sent: Sent, attempts: u32) {
        self.ended.push(Ended { message, sent, attempts });
    }
}

/// 1, 2, 4 … seconds, of which the second half is chance, so that receivers who fell over are not
/// woken by everybody at once.
fn backoff(attempt: u32, chance: u64) -> Duration {
    let whole = 1000u64 << (attempt - 1).min(6);
    Duration::from_millis(whole / 2 + chance % (whole / 2 + 1))
}

#[cfg(test)]
mod tests;
