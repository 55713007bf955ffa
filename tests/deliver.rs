//! Alerts on their way to receivers that fail, stall, refuse and forget to answer.
//!
//! In: a lake with alerts, an HTTP receiver, a mail server, an object store. Out: pass or fail.
//! Invariant: whatever happens, every alert arrives, in order, and repeats come under their id.

use crate::support::delivery::{SECRET, alerted, copy_of, deliver, job, secret_of, select, signature};
use crate::support::receiver::{Behaviour, Requests, receive};
use crate::support::{Numbers, python, say};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Every alert arrived under one id, and its user's alerts in their order. Out: how many repeats.
fn check(requests: &Requests, users: u64, secret: &str) -> usize {
    let requests = requests.lock().unwrap();
    let (mut ids, mut sequences) =
        (BTreeMap::<String, BTreeSet<String>>::new(), BTreeMap::<u64, Vec<u64>>::new());
    for request in requests.iter() {
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let id = &request.headers["webhook-id"];
        assert_eq!(request.headers["webhook-signature"], signature(secret, request));
        assert_eq!(&request.headers["idempotency-key"], id);
        let alert = body["data"]["alert_id"].as_str().unwrap().to_string();
        ids.entry(alert).or_default().insert(id.clone());
        if request.did == Behaviour::Answer(200, None) {
            let user = body["data"]["user_id"].as_u64().unwrap();
            sequences.entry(user).or_default().push(body["data"]["sequence"].as_u64().unwrap());
        }
    }
    assert_eq!(ids.len() as u64, 2 * users);
    assert!(ids.values().all(|ids| ids.len() == 1));
    assert_eq!(sequences.len() as u64, users);
    for (user, mut sequence) in sequences {
        sequence.dedup();
        assert!(sequence.is_sorted() && sequence.last() == Some(&2), "user {user}: {sequence:?}");
    }
    requests.len() - ids.len()
}

#[test]
fn alerts_arrive_in_order_at_a_receiver_that_fails() {
    const USERS: u64 = 30;
    let scratch = alerted(USERS);
    let numbers = std::sync::Mutex::new(Numbers(11));
    let (address, requests) = receive(move |_| {
        let ways = [
            Behaviour::Answer(200, None),
            Behaviour::Answer(200, None),
            Behaviour::Answer(200, None),
            Behaviour::Answer(200, None),
            Behaviour::Answer(500, None),
            Behaviour::Answer(429, Some(0)),
            Behaviour::Answer(503, Some(3600)),
            Behaviour::HangUp,
            Behaviour::Stall(1500),
        ];
        *numbers.lock().unwrap().one_of(&ways)
    });
    let job = job(
        &scratch,
        &format!("*,webhook,{address}/canary-path\n"),
        "[deliver]\nattempts = 2\ntimeout_seconds = 1\nrate_per_second = 500\n",
    );
    let secret = secret_of(&scratch, &format!("{address}/canary-path"));
    let mut runs = 0;
    loop {
        let said = deliver(&scratch, &job);
        assert!(!said.stderr.contains("canary") && !said.stdout.contains("canary"), "{}", said.stderr);
        runs += 1;
        if said.code == 0 {
            break;
        }
        assert!(said.code == 75 && runs < 100, "{}: {}", said.code, said.stderr);
    }
    let repeats = check(&requests, USERS, &secret);
    say(&format!("{} alerts in {runs} runs, {repeats} repeats", 2 * USERS));
    let settled =
        "select count(*), count(distinct message_id), sum(alerts) from deliveries where status = 'delivered'";
    assert_eq!(select(&scratch, settled), ["60,60,60"]);
    let before = requests.lock().unwrap().len();
    let said = deliver(&scratch, &job);
    assert_eq!((said.code, &said.json()["outcome"]), (0, &"nothing_to_do".into()));
    assert_eq!(requests.lock().unwrap().len(), before, "what was delivered is not sent again");
}

#[test]
fn a_delivery_that_is_killed_goes_on_where_it_was() {
    const USERS: u64 = 1200;
    let scratch = alerted(USERS);
    let (address, requests) = receive(|_| Behaviour::Answer(200, None));
    let job = job(&scratch, &format!("*,webhook,{address}\n"), "[deliver]\nrate_per_second = 3000\n");
    let secret = secret_of(&scratch, &address);
    let (mut numbers, mut kills) = (Numbers(3), 0);
    while kills < 8 {
        let before = requests.lock().unwrap().len();
        let mut process = Command::new(env!("CARGO_BIN_EXE_pennymill"))
            .args(["run", &job])
            .env("PENNYMILL_WEBHOOK_SECRET", SECRET)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Between two times of writing down lie 500 messages.
        let enough = 1 + numbers.below(700);
        while requests.lock().unwrap().len() < before + enough && process.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        kills += usize::from(process.try_wait().unwrap().is_none());
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(requests.lock().unwrap().len() > before, "all was delivered after {kills} kills");
    }
    let said = deliver(&scratch, &job);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let repeats = check(&requests, USERS, &secret);
    say(&format!("{} alerts, {repeats} repeats after 8 kills", 2 * USERS));
    assert!(repeats > 0, "no run was killed between sending and writing down");
    assert_eq!(
        select(&scratch, "select count(*), count(distinct message_id) from deliveries"),
        ["2400,2400"]
    );
}

#[test]
fn what_will_never_be_taken_is_a_dead_letter() {
    let scratch = alerted(3);
    let (address, requests) = receive(|_| Behaviour::Answer(410, None));
    let contacts = format!("1,webhook,{address}\n2,webhook,ftp://canary.example\n");
    let job = job(&scratch, &contacts, "");
    let said = deliver(&scratch, &job);
    assert_eq!(said.code, 3, "{}", said.stderr);
    let counts = serde_json::json!({"delivered": 0, "deferred": 0, "dead": 4, "without_contact": 2});
    assert_eq!(said.json()["deliveries"], counts);
    assert_eq!(requests.lock().unwrap().len(), 2);
    let table = scratch.path("contacts.csv");
    let dead = select(&scratch, "select user_id, reason, attempts from dead_letters order by 1, 2");
    let (gone, bad) = (
        format!("1,{}:2: answered 410,1", table.display()),
        format!("2,{}:3: not a URL of http or https,1", table.display()),
    );
    assert_eq!(dead, [gone.clone(), gone, bad.clone(), bad]);
    assert_eq!(deliver(&scratch, &job).code, 0, "dead letters stay dead");
    assert_eq!(requests.lock().unwrap().len(), 2);
}

#[test]
fn what_is_older_than_the_job_allows_is_a_dead_letter() {
    let scratch = alerted(1);
    let (address, requests) = receive(|_| Behaviour::Answer(200, None));
    std::thread::sleep(Duration::from_millis(1100));
    let job = job(&scratch, &format!("1,webhook,{address}\n"), "[deliver]\nage_days_max = 0\n");
    assert_eq!(deliver(&scratch, &job).code, 3);
    assert_eq!(requests.lock().unwrap().len(), 0);
    let reasons = select(&scratch, "select count(*) from dead_letters where reason like '%age_days_max%'");
    assert_eq!(reasons, ["2"]);
}

#[test]
fn files_are_written_once_and_plans_mask_addresses() {
    let scratch = alerted(3);
    let spool = scratch.path("spool");
    let contacts = format!(
        "*,file,{}\n3,file,{}\n2,smtp,ann@example.com\n",
        spool.display(),
        scratch.path("own").display()
    );
    let smtp = "[smtp]\nserver = \"localhost\"\nfrom = \"budgets@example.com\"\ntls = \"none\"\n";
    let with_mail = job(&scratch, &contacts, smtp);
    let plan = scratch.pennymill(&["run", &with_mail, "--dry-run"]);
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    assert!(plan.stdout.contains("smtp     a***@example.com for user 2: 1 of 2025-01"), "{}", plan.stdout);
    assert!(
        plan.stdout.contains("6 messages; 0 alerts") && !plan.stdout.contains("spool"),
        "{}",
        plan.stdout
    );
    assert!(!scratch.path("lake/deliveries").exists());
    let files_only = job(&scratch, contacts.lines().take(2).collect::<Vec<_>>().join("\n").as_str(), "");
    for _ in 0..2 {
        let said = deliver(&scratch, &files_only);
        assert_eq!(said.code, 0, "{}", said.stderr);
        // As if the run had died before it wrote down what it had written.
        std::fs::remove_dir_all(scratch.path("lake/deliveries")).unwrap();
    }
    let lines = |folder: &str| -> Vec<Value> {
        let mut files: Vec<_> =
            std::fs::read_dir(scratch.path(folder)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let said = |folder| -> Vec<(u64, u64)> {
        let lines = lines(folder);
        lines.iter().map(|l| (l["user_id"].as_u64().unwrap(), l["sequence"].as_u64().unwrap())).collect()
    };
    assert_eq!(said("spool"), [(1, 1), (2, 1), (1, 2), (2, 2)]);
    assert_eq!(said("own"), [(3, 1), (3, 2)]);
    assert_eq!(lines("own")[1]["spent"], "120.00");
}

#[test]
fn a_contact_that_cannot_be_written_to_keeps_nobody_elses_alerts() {
    let scratch = alerted(3);
    let (address, requests) = receive(|_| Behaviour::Answer(200, None));
    scratch.write("a-file", "");
    let blocked = scratch.path("a-file/below");
    let contacts = format!(
        "1,file,{}\n2,webhook,{address}\n2,webhook,{address}\n3,webhook,{address}\n",
        blocked.display()
    );
    let job = job(&scratch, &contacts, "");
    for _ in 0..2 {
        let said = deliver(&scratch, &job);
        assert!(said.code == 73 && said.stderr.contains("contacts.csv:2"), "{} {}", said.code, said.stderr);
        assert!(!said.stderr.contains("a-file"), "{}", said.stderr);
        assert_eq!(said.json()["deliveries"]["deferred"], 2);
    }
    assert_eq!(requests.lock().unwrap().len(), 4, "each alert of users 2 and 3 once");
}

#[test]
fn wrong_contacts_and_missing_secrets_are_said() {
    let scratch = alerted(1).environment("PENNYMILL_WEBHOOK_SECRET", "canary");
    for (contacts, code, what) in [
        ("1,pigeon,canary\n", 65, "contacts.csv:2: column `channel`: not a channel"),
        ("x,smtp,canary\n", 65, "contacts.csv:2: column `user_id`"),
        ("1,smtp,\n", 65, "contacts.csv:2: column `address`: empty"),
        ("1,smtp,canary@example.com\n", 78, "`smtp.server` is not set"),
        ("1,webhook,http://canary\n", 78, "PENNYMILL_WEBHOOK_SECRET is not a secret"),
    ] {
        let job = job(&scratch, contacts, "");
        let said = deliver(&scratch, &job);
        assert_eq!((said.code, said.stderr.lines().count()), (code, 1), "{}", said.stderr);
        assert!(said.stderr.contains(what) && !said.stderr.contains("canary"), "{}", said.stderr);
        let check = scratch.pennymill(&["check", &job]);
        assert_eq!((check.code, check.stderr), (code, said.stderr), "check says what a run would say");
    }
}

/// `aiosmtpd`, which keeps every mail in a folder. It takes none for `full@example.com` at first, and
/// never one for `gone@example.com`.
const MAIL_SERVER: &str = r#"
import sys, time
from aiosmtpd.controller import Controller

class Handler:
    asked = set()
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("gone"):
            return "550 5.1.1 canary-address " + address
        if address.startswith("full") and address not in self.asked:
            self.asked.add(address)
            return "452 4.2.2 canary-address " + address
        envelope.rcpt_tos.append(address)
        return "250 OK"
    async def handle_DATA(self, server, session, envelope):
        self.count = getattr(self, "count", 0) + 1
        with open(f"{sys.argv[1]}/{self.count}.eml", "wb") as file:
            file.write(envelope.rcpt_tos[0].encode() + b"\n" + envelope.content)
        return "250 OK"

import socket
free = socket.socket(); free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]; free.close()
Controller(Handler(), hostname="127.0.0.1", port=port).start()
print(port, flush=True)
time.sleep(600)
"#;

#[test]
fn a_digest_arrives_by_mail() {
    let Some(python) = python("mail", &["aiosmtpd==1.4.6"]) else { return };
    let scratch = alerted(4);
    std::fs::create_dir(scratch.path("mails")).unwrap();
    let mut server = Command::new(python)
        .args(["-c", MAIL_SERVER])
        .arg(scratch.path("mails"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut port)
        .unwrap();
    let contacts =
        "1,smtp,ann@example.com\n2,smtp,full@example.com\n3,smtp,gone@example.com\n4,smtp,no address\n";
    let smtp = format!(
        "[smtp]\nserver = \"127.0.0.1:{}\"\ntls = \"none\"\nfrom = \"Budgets <budgets@pennymill.example>\"\n",
        port.trim()
    );
    let plain = job(&scratch, contacts, &smtp);
    let said = deliver(&scratch, &plain);
    let other = alerted(1);
    let encrypted = job(&other, "1,smtp,other@example.com\n", &smtp.replace("\"none\"", "\"starttls\""));
    let encrypted = deliver(&other, &encrypted);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(said.code, 3, "{}", said.stderr);
    let counts = serde_json::json!({"delivered": 4, "deferred": 0, "dead": 4, "without_contact": 0});
    assert_eq!(said.json()["deliveries"], counts);
    assert!(!said.stderr.contains("example.com"), "{}", said.stderr);
    let mut mails: Vec<String> = std::fs::read_dir(scratch.path("mails"))
        .unwrap()
        .map(|mail| std::fs::read_to_string(mail.unwrap().path()).unwrap())
        .filter(|mail| mail.starts_with("ann@example.com"))
        .collect();
    mails.sort_by_key(|mail| mail.contains("exceeded"));
    assert_eq!(mails.len(), 2, "one for each run");
    for words in [
        "Subject: Your budgets for 2025-01: 1 exceeded",
        "From: Budgets <budgets@pennymill.example>",
        "@pennymill.example>",
        "Dining: 120.00 of 100.00 (which you set), above the budget",
        "text/html",
    ] {
        assert!(mails[1].contains(words), "{words}: {}", mails[1]);
    }
    let dead = select(&scratch, "select user_id, reason from dead_letters order by 1");
    assert!(dead[0].ends_with("answered 550") && dead[3].ends_with("not a mail address"), "{dead:?}");
    assert!(!dead.concat().contains("canary"));
    assert_eq!(encrypted.code, 78, "the server knows no encryption: {}", encrypted.stderr);
    assert_eq!(std::fs::read_dir(scratch.path("mails")).unwrap().count(), 4);
}

/// `aiosmtpd` with a certificate, which lets in `budgets` with the password `right` alone.
const ENCRYPTED_MAIL_SERVER: &str = r#"
import socket, ssl, sys, time
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

class Handler:
    async def handle_DATA(self, server, session, envelope):
        with open("taken", "a") as file:
            file.write(f"{envelope.rcpt_tos[0]} {session.authenticated}\n")
        return "250 OK"

def authenticate(server, session, envelope, mechanism, data):
    return AuthResult(success=data.login == b"budgets" and data.password == b"right", handled=False)

context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("certificate.pem", "key.pem")
way = {"implicit": {"ssl_context": context, "auth_require_tls": False}, "starttls": {"tls_context": context}}
free = socket.socket(); free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]; free.close()
Controller(Handler(), hostname="127.0.0.1", port=port, authenticator=authenticate, auth_required=True,
           **way[sys.argv[1]]).start()
print(port, flush=True)
time.sleep(600)
"#;

#[test]
fn mail_arrives_over_an_encrypted_line_and_over_no_other() {
    let Some(python) = python("mail", &["aiosmtpd==1.4.6"]) else { return };
    let lake = alerted(1);
    for way in ["implicit", "starttls"] {
        let scratch = copy_of(&lake);
        let mut openssl = Command::new("openssl");
        openssl.args(
            "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out certificate.pem -days 2".split(' '),
        );
        openssl.args("-subj /CN=localhost -addext subjectAltName=DNS:localhost".split(' '));
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]).stderr(Stdio::null());
        if !openssl.current_dir(scratch.path("")).status().is_ok_and(|status| status.success()) {
            return say("skipped: there is no openssl that makes certificates");
        }
        let mut server = Command::new(&python)
            .args(["-W", "ignore", "-c", ENCRYPTED_MAIL_SERVER, way])
            .current_dir(scratch.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut port)
            .unwrap();
        let smtp = format!(
            "[deliver]\nattempts = 1\n[smtp]\nserver = \"localhost:{}\"\ntls = \"{way}\"\n\
             from = \"b@pennymill.example\"\nuser = \"budgets\"\n",
            port.trim()
        );
        let job = job(&scratch, "1,smtp,ann@example.com\n", &smtp);
        let scratch = scratch.environment("PENNYMILL_SMTP_PASSWORD", "wrong");
        let unknown = deliver(&scratch, &job);
        let roots = scratch.path("certificate.pem").to_str().unwrap().to_string();
        let scratch = scratch.environment("SSL_CERT_FILE", &roots);
        let wrong = deliver(&scratch, &job);
        let scratch = scratch.environment("PENNYMILL_SMTP_PASSWORD", "right");
        let right = deliver(&scratch, &job);
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(unknown.code, 75, "{way}: nobody vouches for the server: {}", unknown.stderr);
        assert_eq!(wrong.code, 77, "{way}: {}", wrong.stderr);
        assert_eq!(right.code, 0, "{way}: {}", right.stderr);
        let taken = std::fs::read_to_string(scratch.path("taken")).unwrap();
        assert_eq!(taken, "ann@example.com True\n".repeat(2), "{way}");
    }
}
