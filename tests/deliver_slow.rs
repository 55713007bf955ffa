//! A few slow receivers among many, each at an address of its own.
//!
//! In: a receiver at every address of the loopback network. Out: pass or fail.
//! Invariant: the healthy are served as if the slow were not there, and the run ends within its bounds.

use crate::support::delivery::{alerted, deliver_within, job};
use crate::support::receiver::{Behaviour, Requests, receive_at};
use crate::support::say;
use std::time::Duration;

/// The host of a user, of which the first `slow` answer with 503.
fn host(user: u64) -> String {
    format!("127.1.{}.{}", user / 250, 1 + user % 250)
}

fn user_of(host: &str) -> u64 {
    let numbers: Vec<u64> = host.split(['.', ':']).map(|number| number.parse().unwrap()).collect();
    numbers[2] * 250 + numbers[3] - 1
}

/// When the last healthy user was served, and the last of all, since the first request.
fn waits(requests: &Requests, slow: u64) -> [Duration; 2] {
    let requests = requests.lock().unwrap();
    let first = requests.iter().map(|request| request.at).min().unwrap();
    let healthy = requests.iter().filter(|request| user_of(&request.headers["host"]) > slow);
    [
        healthy.map(|request| request.at).max().unwrap(),
        requests.iter().map(|request| request.at).max().unwrap(),
    ]
    .map(|at| at - first)
}

/// Receivers of which the first `slow` answer `Retry-After` to the first request that each gets of an
/// alert, or to all of them.
fn receivers(slow: u64, seconds: u32, always: bool) -> (u16, Requests) {
    let asked = std::sync::Mutex::new(std::collections::BTreeSet::new());
    receive_at("0.0.0.0", move |_, headers| {
        let is_slow = user_of(&headers["host"]) <= slow;
        match is_slow && (always || asked.lock().unwrap().insert(headers["webhook-id"].clone())) {
            true => Behaviour::Answer(503, Some(seconds)),
            false => Behaviour::Answer(200, None),
        }
    })
}

fn contacts(users: u64, port: u16) -> String {
    (1..=users).map(|user| format!("{user},webhook,http://{}:{port}/\n", host(user))).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn three_slow_receivers_of_many_delay_nobody_else() {
    const USERS: u64 = 110;
    let scratch = alerted(USERS);
    let (port, requests) = receivers(3, 5, false);
    let job = job(&scratch, &contacts(USERS, port), "[deliver]\nrate_per_second = 500\n");
    let said = deliver_within(&scratch, &job, 60);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.json()["deliveries"]["delivered"], 2 * USERS);
    let [healthy, all] = waits(&requests, 3);
    say(&format!("107 healthy receivers within {healthy:?}, three slow ones within {all:?}"));
    assert!(healthy < Duration::from_secs(4) && all >= Duration::from_secs(10), "{healthy:?} {all:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_thousand_slow_receivers_keep_neither_slots_nor_the_run() {
    const SLOW: u64 = 1000;
    let scratch = alerted(SLOW + 100);
    let (port, requests) = receivers(SLOW, 10, true);
    let more = "[deliver]\nrate_per_second = 2000\nrun_seconds_max = 15\n";
    let job = job(&scratch, &contacts(SLOW + 100, port), more);
    let said = deliver_within(&scratch, &job, 45);
    assert_eq!(said.code, 75, "{}", said.stderr);
    let counts = serde_json::json!({"delivered": 200, "deferred": 2 * SLOW, "dead": 0, "without_contact": 0});
    assert_eq!(said.json()["deliveries"], counts);
    let [healthy, all] = waits(&requests, SLOW);
    say(&format!("100 healthy receivers within {healthy:?} beside a thousand slow ones, {all:?}"));
    assert!(healthy < Duration::from_secs(9) && all < Duration::from_secs(25), "{healthy:?} {all:?}");
    // The second attempt of each is the last that begins in time.
    assert!((SLOW..=2 * SLOW + 200).contains(&(requests.lock().unwrap().len() as u64)));
}
