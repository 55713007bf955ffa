//! The schedule under thousands of histories, on a clock that nobody waits for.
//!
//! In: random lanes, hosts that answer, stall, refuse and ask to wait, a feed that reads on as there is
//! room. Out: pass or fail.
//! Invariant: whatever the hosts do, the promises at the head of the schedule hold; and where no bound
//! is met, each message ends as a plain model says.

use super::*;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Taken,
    Never,
    Later(Option<u64>),
    NotThisOne,
    Broken,
}

/// What a message's receiver does at each attempt, and how many milliseconds it takes for it; at later
/// ones it takes the message.
#[derive(Clone, Debug)]
struct Message {
    number: usize,
    lane: u32,
    host: u32,
    answers: Vec<(Answer, u64)>,
    usual_millis: u64,
}

impl Message {
    fn answer(&self, attempt: u32) -> (Answer, u64) {
        self.answers.get(attempt as usize).copied().unwrap_or((Answer::Taken, self.usual_millis))
    }
}

fn tried(answer: Answer) -> Tried {
    match answer {
        Answer::Taken => Tried::Taken,
        Answer::Never => Tried::Never("no".into()),
        Answer::Later(seconds) => Tried::NotNow(seconds.map(Duration::from_secs)),
        Answer::NotThisOne => Tried::NotThisOne,
        Answer::Broken => Tried::Broken(Error::unfit("broken")),
    }
}

/// How a message ended, and how many attempts it took.
type End = (&'static str, u32);

fn end(sent: &Sent) -> &'static str {
    match sent {
        Sent::Delivered => "delivered",
        Sent::Refused(_) => "refused",
        Sent::Deferred => "deferred",
        Sent::Failed(_) => "failed",
    }
}

#[derive(Default)]
struct History {
    ends: HashMap<usize, End>,
    /// When each attempt of a message began.
    starts: Vec<(Now, usize)>,
    /// When each message ended.
    ended_at: HashMap<usize, Now>,
    finished: Now,
}

/// Runs a history to its end, and holds the promises at each step.
fn run(limits: Limits, host_slots: usize, messages: &[Message], chance: &mut Numbers) -> History {
    let mut schedule: Schedule<u32, u32, Message> = Schedule::new(limits);
    let mut history = History::default();
    let mut under_way: BinaryHeap<Reverse<(Now, u32)>> = BinaryHeap::new();
    let (mut of_host, mut attempts) = (HashMap::<u32, usize>::new(), HashMap::<usize, u32>::new());
    let (mut now, mut fed) = (Now::ZERO, 0);
    for round in 0.. {
        assert!(round < 1_000_000, "it has no end");
        while let Some(message) = messages.get(fed)
            && schedule.offer(now, message.lane, message.host, host_slots, message.clone()).is_ok()
        {
            fed += 1;
        }
        assert!(schedule.kept <= limits.room);
        let until = loop {
            match schedule.next(now) {
                Step::WaitUntil(until) => break until,
                Step::Start(lane) => {
                    assert!(now < limits.deadline, "an attempt begins after the deadline");
                    let message = schedule.message(&lane).clone();
                    let attempt = attempts.entry(message.number).or_default();
                    let (_, millis) = message.answer(*attempt);
                    *attempt += 1;
                    history.starts.push((now, message.number));
                    under_way.push(Reverse((now + Duration::from_millis(millis), lane)));
                    *of_host.entry(message.host).or_default() += 1;
                    assert!(under_way.len() <= limits.slots && of_host[&message.host] <= host_slots);
                    assert_eq!(under_way.iter().filter(|Reverse((_, other))| *other == lane).count(), 1);
                }
            }
        };
        for Ended { message, sent, attempts: counted } in schedule.take_ended() {
            let before = history.ends.insert(message.number, (end(&sent), counted));
            assert!(before.is_none(), "a message ends twice");
            assert_eq!(attempts.get(&message.number).copied().unwrap_or(0), counted);
            history.ended_at.insert(message.number, now);
        }
        let first = under_way.peek().map(|Reverse((at, _))| *at);
        if fed == messages.len() && schedule.is_empty() {
            assert!(first.is_none());
            break;
        }
        // A feed that found no room comes back within a second.
        let again = if fed < messages.len() { now + Duration::from_secs(1) } else { Now::MAX };
        now = first.unwrap_or(Now::MAX).min(until).min(again).max(now);
        assert!(now < Now::MAX, "it waits for nothing");
        while let Some(Reverse((at, lane))) = under_way.peek().copied()
            && at <= now
        {
            under_way.pop();
            let message = schedule.message(&lane).clone();
            let (answer, _) = message.answer(attempts[&message.number] - 1);
            *of_host.get_mut(&message.host).unwrap() -= 1;
            schedule.done(now, &lane, tried(answer), chance.next());
        }
    }
    history.finished = now;
    assert_eq!(history.ends.len(), messages.len(), "each message ends");
    history
}

/// The promises that a whole history shows.
fn hold(limits: &Limits, messages: &[Message], history: &History) {
    // Attempts begin at the rate, and none earlier than a timer that is late excuses.
    for (count, pair) in history.starts.windows(2).enumerate() {
        assert!(pair[0].0 <= pair[1].0, "{count}");
    }
    let most = |span: Duration| 2 + ((span + CATCH_UP).as_nanos() / limits.interval.as_nanos()) as usize;
    for width in [2, 10, 100] {
        for window in history.starts.windows(width) {
            assert!(width <= most(window[width - 1].0 - window[0].0), "{width} attempts begin too early");
        }
    }
    let mut lanes: HashMap<u32, Vec<&Message>> = HashMap::new();
    messages.iter().for_each(|message| lanes.entry(message.lane).or_default().push(message));
    let first = |number: usize| history.starts.iter().position(|(_, other)| *other == number);
    let last = |number: usize| history.starts.iter().rposition(|(_, other)| *other == number);
    for messages in lanes.values() {
        let ends: Vec<&str> = messages.iter().map(|message| history.ends[&message.number].0).collect();
        let kept_back = ends.iter().position(|end| ["deferred", "failed"].contains(end));
        let behind = kept_back.map_or(&[][..], |at| &messages[at + 1..]);
        assert!(behind.iter().all(|message| history.ends[&message.number] == ("deferred", 0)), "{ends:?}");
        for pair in messages.windows(2) {
            if let (Some(before), Some(after)) = (last(pair[0].number), first(pair[1].number)) {
                assert!(before < after, "messages of a lane overtake each other");
            }
        }
    }
}

/// How messages end where no bound but that on attempts is met.
fn model(messages: &[Message], attempts_max: u32) -> HashMap<usize, End> {
    let (mut ends, mut held) = (HashMap::new(), BTreeSet::new());
    for message in messages {
        if held.contains(&message.lane) {
            ends.insert(message.number, ("deferred", 0));
            continue;
        }
        let mut attempt = 0;
        let end = loop {
            let (answer, _) = message.answer(attempt);
            attempt += 1;
            match answer {
                Answer::Taken => break "delivered",
                Answer::Never => break "refused",
                Answer::Broken => break "failed",
                Answer::Later(Some(seconds)) if seconds > WAIT_MAX.as_secs() => break "deferred",
                Answer::Later(_) | Answer::NotThisOne if attempt >= attempts_max => break "deferred",
                Answer::Later(_) | Answer::NotThisOne => {}
            }
        };
        if ["deferred", "failed"].contains(&end) {
            held.insert(message.lane);
        }
        ends.insert(message.number, (end, attempt));
    }
    ends
}

fn messages(numbers: &mut Numbers, count: u64, failing: u64) -> Vec<Message> {
    let (lanes, hosts) = (1 + numbers.below(count), 1 + numbers.below(12));
    let message = |number| {
        let answers = (0..numbers.below(5)).map(|_| {
            let answer = match numbers.below(100) {
                n if n >= failing => Answer::Taken,
                n => match n % 8 {
                    0 => Answer::Never,
                    1 => Answer::Broken,
                    2 => Answer::NotThisOne,
                    3 => Answer::Later(Some(numbers.below(80))),
                    _ => Answer::Later(None),
                },
            };
            (answer, [1, 20, 400, 10_000][numbers.below(4) as usize])
        });
        let answers = answers.collect();
        let (lane, host) = (numbers.below(lanes) as u32, numbers.below(hosts) as u32);
        Message { number, lane, host, answers, usual_millis: 1 + numbers.below(300) }
    };
    (0..count as usize).map(message).collect()
}

fn limits() -> Limits {
    Limits {
        interval: Duration::from_millis(20),
        slots: 64,
        attempts_max: 5,
        deadline: Duration::from_secs(1 << 30),
        room: 10_000,
        patience: Duration::from_secs(10),
    }
}

#[test]
fn where_no_bound_is_met_messages_end_as_the_model_says() {
    let mut numbers = Numbers(1);
    let mut ends = HashMap::<&str, usize>::new();
    for _ in 0..3000 {
        let (count, failing) = (1 + numbers.below(60), numbers.below(60));
        let messages = messages(&mut numbers, count, failing);
        let history = run(limits(), 8, &messages, &mut numbers);
        hold(&limits(), &messages, &history);
        // A host that was left alone is a bound that was met.
        let model = model(&messages, limits().attempts_max);
        let is_taken = |end: &str| ["delivered", "refused"].contains(&end);
        let failures = model.values().map(|(end, attempts)| *attempts as usize - usize::from(is_taken(end)));
        if failures.sum::<usize>() < HOST_FAILURES_MAX as usize {
            assert_eq!(history.ends, model);
            history.ends.values().for_each(|(end, _)| *ends.entry(end).or_default() += 1);
        }
    }
    assert!(["delivered", "refused", "deferred", "failed"].iter().all(|end| ends[end] > 100), "{ends:?}");
}

#[test]
fn whatever_bound_is_met_the_promises_hold() {
    let mut numbers = Numbers(2);
    for _ in 0..3000 {
        let limits = Limits {
            interval: Duration::from_micros(100 + numbers.below(50_000)),
            slots: 1 + numbers.below(12) as usize,
            attempts_max: 1 + numbers.below(6) as u32,
            deadline: Duration::from_millis(1 + numbers.below(60_000)),
            room: 1 + numbers.below(40) as usize,
            patience: Duration::from_millis(numbers.below(10_000)),
        };
        let (count, failing) = (1 + numbers.below(120), numbers.below(101));
        let messages = messages(&mut numbers, count, failing);
        let slots = 1 + numbers.below(5) as usize;
        let history = run(limits, slots, &messages, &mut numbers);
        hold(&limits, &messages, &history);
        // The last attempts end, and nothing begins any more.
        assert!(history.finished <= limits.deadline + Duration::from_secs(11), "{:?}", history.finished);
    }
}

/// Messages to hosts of their own: the slow ones first, as they come from the lake.
fn receivers(slow: usize, healthy: usize, slow_answers: &[(Answer, u64)]) -> Vec<Message> {
    let message = |number: usize| {
        let answers = if number < slow { slow_answers.to_vec() } else { Vec::new() };
        Message { number, lane: number as u32, host: number as u32, answers, usual_millis: 30 }
    };
    (0..slow + healthy).map(message).collect()
}

#[test]
fn the_healthy_wait_for_nobody_but_the_rate() {
    let all_slots = Limits { slots: 500, room: 2000, ..limits() };
    let last = |history: &History, healthy: std::ops::Range<usize>| {
        healthy.map(|number| history.ended_at[&number]).max().unwrap()
    };
    for answers in [vec![(Answer::Later(Some(20)), 30); 9], vec![(Answer::Later(None), 10_000); 9]] {
        let alone = last(&run(all_slots, 8, &receivers(0, 107, &[]), &mut Numbers(3)), 0..107);
        let few = run(all_slots, 8, &receivers(3, 107, &answers), &mut Numbers(3));
        let wait = last(&few, 3..110) - alone;
        assert!(wait <= all_slots.interval * 3, "three slow ones cost {wait:?}");
        // A thousand take their turn at their first attempt, and none before those who wait for theirs.
        let many = run(all_slots, 8, &receivers(1000, 1000, &answers), &mut Numbers(3));
        assert!((1000..2000).all(|number| many.ends[&number] == ("delivered", 1)));
        let wait = last(&many, 1000..2000);
        assert!(wait <= all_slots.interval * 2000 * 8 / 7 + Duration::from_secs(1), "{wait:?}");
        let bounded = Limits { deadline: Duration::from_secs(25), ..all_slots };
        let many = run(bounded, 8, &receivers(1000, 107, &answers), &mut Numbers(3));
        assert!((1000..1107).all(|number| many.ends[&number].0 == "delivered"));
        assert!(many.finished <= Duration::from_secs(36), "{:?}", many.finished);
    }
}

#[test]
fn a_host_that_fills_its_part_of_the_room_holds_up_the_others_for_its_patience_alone() {
    let limits = Limits { slots: 500, room: 300, ..limits() };
    // 2,000 messages of one host that takes ten seconds for each, and one of another behind them.
    let mut messages = receivers(2000, 1, &[(Answer::Taken, 10_000)]);
    messages[..2000].iter_mut().for_each(|message| message.host = 0);
    let history = run(limits, 8, &messages, &mut Numbers(4));
    assert!(
        history.ended_at[&2000] <= limits.patience + Duration::from_secs(3),
        "{:?}",
        history.ended_at[&2000]
    );
    let ends = |end: &str| history.ends.values().filter(|(other, _)| *other == end).count();
    assert!(ends("delivered") > 90 && ends("deferred") > 1000, "{}", ends("delivered"));
    // A host that is quick gets all of them, however little room there is.
    let mut messages = receivers(2000, 0, &[(Answer::Taken, 100)]);
    messages.iter_mut().for_each(|message| message.host = 0);
    let history = run(Limits { interval: Duration::from_millis(1), ..limits }, 8, &messages, &mut Numbers(4));
    assert!(history.ends.values().all(|end| *end == ("delivered", 1)));
}

#[test]
fn waits_double_and_half_of_them_is_chance() {
    for (attempt, least, most) in [(1, 500, 1000), (2, 1000, 2000), (5, 8000, 16_000), (90, 32_000, 64_000)] {
        assert_eq!(backoff(attempt, 0).as_millis(), least);
        let waits = (0..5000).map(|chance| backoff(attempt, chance * 7919).as_millis());
        assert!(waits.clone().all(|wait| (least..=most).contains(&wait)), "{attempt}");
        assert!(waits.max().unwrap() > least + (most - least) / 2);
    }
}
