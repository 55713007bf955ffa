//! Where webhooks go, and where they do not, however an address is written.
//!
//! In: addresses of this machine and of networks that are nobody else's business. Out: pass or fail.
//! Invariant: where the job allows no network, nothing is connected to that is not public, and all who
//! are refused are told the same.

use crate::support::Scratch;
use crate::support::delivery::{alerted, copy_of, deliver, job, select};
use crate::support::receiver::{Behaviour, receive};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts who connects.
fn listener() -> (u16, Arc<AtomicUsize>) {
    let (listener, count) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(AtomicUsize::new(0)));
    let (port, counted) = (listener.local_addr().unwrap().port(), count.clone());
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

/// What the dead letters of users say behind the place of their contact.
fn reasons(scratch: &Scratch) -> Vec<String> {
    let reasons = select(scratch, "select reason from dead_letters order by user_id");
    reasons
        .iter()
        .map(|reason| reason.trim_matches('"').splitn(3, ':').nth(2).unwrap().trim().to_string())
        .collect()
}

const NOT_ALLOWED: &str =
    "the address is not allowed: https to a public address, or a network of `deliver.networks_allowed`";

const NOWHERE: &str = "[deliver]\nnetworks_allowed = []\nattempts = 1\ntimeout_seconds = 2\n";

#[test]
fn nothing_inside_is_connected_to() {
    let (port, connections) = listener();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "0.0.0.0",
        "[::]",
        "user:canary@127.0.0.1",
        "169.254.169.254",
        "0xa9fea9fe",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "[fd00::1]",
        "[fe80::1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "[ff02::1]",
    ];
    let mut addresses: Vec<String> = hosts.iter().map(|host| format!("https://{host}:{port}/hook")).collect();
    // Nothing goes anywhere in clear, and no name is looked up for it.
    addresses.extend(
        ["http://127.0.0.1", "http://8.8.8.8", "http://host.invalid"].map(|host| format!("{host}:{port}/")),
    );
    let lake = alerted(addresses.len() as u64);
    let scratch = copy_of(&lake).environment("HTTPS_PROXY", &format!("http://127.0.0.1:{port}"));
    let contacts = |(number, address)| format!("{},webhook,{address}\n", number + 1);
    let contacts: String = addresses.iter().enumerate().map(contacts).collect();
    let said = deliver(&scratch, &job(&scratch, &contacts, NOWHERE));
    assert_eq!((said.code, said.stderr.as_str()), (3, ""));
    let reasons = reasons(&scratch);
    assert_eq!(reasons.len(), 2 * addresses.len());
    for (number, reason) in reasons.iter().enumerate() {
        assert_eq!(reason, NOT_ALLOWED, "{}", addresses[number / 2]);
    }
    // Not every machine knows this name.
    let scratch = copy_of(&lake);
    let job = job(&scratch, &format!("1,webhook,https://localhost.:{port}/\n"), NOWHERE);
    assert!([3, 75].contains(&deliver(&scratch, &job).code));
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[test]
fn networks_that_the_job_names_are_connected_to_and_no_others() {
    let lake = alerted(5);
    let (address, requests) = receive(|_| Behaviour::Answer(200, None));
    let port = address.rsplit(':').next().unwrap().to_string();
    let (inside, connections) = listener();
    let contacts = format!(
        "1,webhook,{address}\n2,webhook,http://localhost:{port}\n3,webhook,http://127.0.0.2:{inside}\n\
         4,webhook,https://127.0.0.2:{inside}\n5,webhook,http://10.0.0.1:{inside}\n"
    );
    let proxy = format!("http://127.0.0.1:{inside}");
    let scratch = copy_of(&lake).environment("http_proxy", &proxy).environment("ALL_PROXY", &proxy);
    let job_file =
        job(&scratch, &contacts, "[deliver]\nnetworks_allowed = [\"127.0.0.1/32\", \"::1/128\"]\n");
    let said = deliver(&scratch, &job_file);
    assert_eq!(said.code, 3, "{}", said.stderr);
    let counts = serde_json::json!({"delivered": 4, "deferred": 0, "dead": 6, "without_contact": 0});
    assert_eq!(said.json()["deliveries"], counts);
    assert!(reasons(&scratch).iter().all(|reason| reason == NOT_ALLOWED));
    assert_eq!((requests.lock().unwrap().len(), connections.load(Ordering::SeqCst)), (4, 0));
    for nonsense in
        ["[\"10.0.0.1/8\"]", "[\"10.0.0.0\"]", "[\"::/129\"]", "[\"localhost/8\"]", "\"all\"", "7"]
    {
        let job_file = job(&scratch, &contacts, &format!("[deliver]\nnetworks_allowed = {nonsense}\n"));
        for said in [deliver(&scratch, &job_file), scratch.pennymill(&["check", &job_file])] {
            assert_eq!((said.code, said.stderr.lines().count()), (78, 1), "{nonsense}: {}", said.stderr);
        }
    }
}

#[test]
fn redirects_and_long_addresses_lead_nowhere() {
    let scratch = alerted(2);
    let (inside, connections) = listener();
    let (address, _) = receive(move |_| Behaviour::Redirect(inside));
    let long = format!("{address}/{}", "x".repeat(2048));
    let job = job(&scratch, &format!("1,webhook,{address}\n2,webhook,{long}\n"), "");
    assert_eq!(deliver(&scratch, &job).code, 3);
    assert_eq!(reasons(&scratch)[1..3], ["answered 302", "an address of more than 2048 bytes"]);
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}
