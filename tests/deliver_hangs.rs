//! Servers that say nothing, little at a time, or no end of it.
//!
//! In: mail servers and HTTP receivers that stop at each step of their dialogue. Out: pass or fail.
//! Invariant: a run ends within its bounds, in bounded memory, and leaves the rest for the next one.

use crate::support::Scratch;
use crate::support::delivery::{alerted, copy_of, deliver, deliver_within, job};
use crate::support::receiver::{Behaviour, receive};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// No run may take longer: it has one attempt of a second, and then some for a busy machine.
const SECONDS_MAX: u64 = 40;

/// More than this no receiver brings through a connection whose reader stops: sockets buffer some.
const SENT_MAX: u64 = 32 << 20;

/// What a server does once it comes to its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Silent,
    /// A byte each fifth of a second.
    Drips,
    /// A line without an end, as quickly as it can.
    Endless,
    /// Lines of an answer without an end.
    EndlessLines,
}

impl Way {
    /// Goes on until the other end has had enough. Out: how many bytes were sent.
    fn go(self, stream: &mut TcpStream, drip: &[u8], line: &[u8]) -> u64 {
        let mut sent = 0;
        loop {
            let (bytes, pause) = match self {
                Way::Silent => (&[][..], 200),
                Way::Drips => (&drip[sent as usize % drip.len()..][..1], 200),
                Way::Endless => (&[b'x'; 64 << 10][..], 0),
                Way::EndlessLines => (line, 0),
            };
            // A socket that was closed takes a write or two before it tells.
            if stream.write_all(bytes).is_err() || is_closed(stream, pause) {
                return sent;
            }
            sent += bytes.len() as u64;
        }
    }
}

/// Whether the other end closes the connection within this time.
fn is_closed(stream: &mut TcpStream, millis: u64) -> bool {
    if millis == 0 {
        return false;
    }
    stream.set_read_timeout(Some(Duration::from_millis(millis))).unwrap();
    match stream.read(&mut [0; 1024]) {
        Ok(count) => count == 0,
        Err(error) => ![std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind()),
    }
}

/// Serves until the process ends. Out: the port, and how many bytes were sent by those that do not end.
fn listen(serve: impl Fn(TcpStream) -> u64 + Send + Sync + 'static) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, sent) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
    let (serve, counted) = (Arc::new(serve), sent.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (serve, counted) = (serve.clone(), counted.clone());
            std::thread::spawn(move || counted.fetch_add(serve(stream), Ordering::SeqCst));
        }
    });
    (port, sent)
}

/// A mail server that takes everything until the client says this, and then goes its way.
fn mail_server(step: &'static str, way: Way) -> (u16, Arc<AtomicU64>) {
    listen(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (drip, line) = (b"250-ok\r\n".repeat(1000), b"250-more of it\r\n".repeat(1000));
        if step == "greeting" {
            return way.go(&mut stream, &drip, &b"220-more of it\r\n".repeat(1000));
        }
        stream.write_all(b"220 here\r\n").unwrap();
        let (mut is_body, mut answered) = (false, String::new());
        loop {
            let mut said = String::new();
            if !reader.read_line(&mut said).is_ok_and(|count| count > 0) {
                return 0;
            }
            if is_body && said != ".\r\n" {
                continue;
            }
            if said.starts_with(step) {
                return way.go(&mut stream, &drip, &line);
            }
            answered.clear();
            answered += match said.get(..4).unwrap_or(".") {
                "EHLO" => "250-here\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n",
                "STAR" => "220 go on\r\n",
                "AUTH" => "235 welcome\r\n",
                "DATA" => "354 go on\r\n",
                _ => "250 ok\r\n",
            };
            is_body = said.starts_with("DATA");
            if stream.write_all(answered.as_bytes()).is_err() {
                return 0;
            }
            // What comes now is a handshake, and not a line.
            if said.starts_with("STAR") {
                return way.go(&mut stream, &drip, &line);
            }
        }
    })
}

fn mail_job(scratch: &Scratch, port: u16, tls: &str, login: bool) -> String {
    let login = if login { "user = \"budgets\"\n" } else { "" };
    let host = if tls == "none" { "127.0.0.1" } else { "localhost" };
    let deliver = "[deliver]\nattempts = 1\ntimeout_seconds = 1\n";
    let smtp = format!(
        "[smtp]\nserver = \"{host}:{port}\"\nfrom = \"b@pennymill.example\"\ntls = \"{tls}\"\n{login}"
    );
    job(scratch, "1,smtp,ann@example.com\n", &format!("{deliver}{smtp}"))
}

#[test]
fn a_mail_server_that_stops_anywhere_hangs_nobody() {
    let lake = alerted(1);
    let mut cases =
        vec![("STARTTLS", Way::Silent, "starttls", false), ("none", Way::Silent, "starttls", false)];
    cases.push(("none", Way::Drips, "starttls", false));
    cases.push(("none", Way::EndlessLines, "starttls", false));
    cases.push(("greeting", Way::Silent, "implicit", false));
    cases.push(("greeting", Way::Endless, "implicit", false));
    cases.push(("AUTH", Way::Silent, "none", true));
    for step in ["greeting", "EHLO", "MAIL", "RCPT", "DATA", ".\r\n", "QUIT"] {
        cases.push((step, Way::Silent, "none", false));
    }
    for step in ["greeting", "EHLO", ".\r\n"] {
        cases.extend([Way::Drips, Way::Endless, Way::EndlessLines].map(|way| (step, way, "none", false)));
    }
    let run = |(step, way, tls, login): (&'static str, Way, &str, bool)| {
        let scratch = copy_of(&lake).environment("PENNYMILL_SMTP_PASSWORD", "canary");
        let (port, sent) = mail_server(step, way);
        let said = deliver_within(&scratch, &mail_job(&scratch, port, tls, login), SECONDS_MAX);
        let case = format!("{way:?} at {step:?} with {tls}");
        // To part without a word is no reason to send a mail again.
        let taken = if step == "QUIT" { 2 } else { 0 };
        let code = if taken > 0 { 0 } else { 75 };
        assert_eq!(said.code, code, "{case}: {}", said.stderr);
        let counts =
            serde_json::json!({"delivered": taken, "deferred": 2 - taken, "dead": 0, "without_contact": 0});
        assert_eq!(said.json()["deliveries"], counts, "{case}");
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < SENT_MAX, "{case}: {sent} bytes were read");
        assert!(!said.stderr.contains("canary") && !said.stdout.contains("canary"));
    };
    std::thread::scope(|scope| {
        for some in cases.chunks(cases.len().div_ceil(4)) {
            scope.spawn(move || some.iter().copied().for_each(run));
        }
    });
    // What was left is sent, and once: nobody holds the lock.
    let (port, _) = mail_server("nothing", Way::Silent);
    let said = deliver_within(&lake, &mail_job(&lake, port, "none", false), SECONDS_MAX);
    assert_eq!((said.code, &said.json()["deliveries"]["delivered"]), (0, &2.into()), "{}", said.stderr);
}

#[test]
fn a_mail_server_cannot_fill_the_memory() {
    let lake = alerted(1);
    for (step, way) in [("greeting", Way::Endless), (".\r\n", Way::EndlessLines), ("EHLO", Way::Endless)] {
        let scratch = copy_of(&lake);
        let (port, sent) = mail_server(step, way);
        let job = mail_job(&scratch, port, "none", false);
        let text =
            std::fs::read_to_string(&job).unwrap().replace("timeout_seconds = 1", "timeout_seconds = 4");
        std::fs::write(&job, text).unwrap();
        let said = deliver_within(&scratch, &job, SECONDS_MAX);
        assert_eq!(said.code, 75, "{}", said.stderr);
        // The server may still be at its last write.
        std::thread::sleep(Duration::from_millis(300));
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < SENT_MAX, "{way:?} at {step:?}: {sent} bytes were read");
        let peak = said.json()["peak_memory_bytes"].as_u64().unwrap();
        assert!(peak < 300 << 20, "{way:?} at {step:?}: {peak} bytes of memory");
    }
}

/// An HTTP receiver that begins its answer like this, and then goes its way.
fn http_receiver(begins: &'static str, drip: &'static str, way: Way) -> (u16, Arc<AtomicU64>) {
    listen(move |mut stream| {
        let mut head = [0; 4096];
        if !begins.is_empty() && stream.read(&mut head).is_err() {
            return 0;
        }
        let _ = stream.write_all(begins.as_bytes());
        way.go(&mut stream, drip.as_bytes(), &drip.as_bytes().repeat(1000))
    })
}

#[test]
fn a_receiver_that_stops_anywhere_hangs_nobody() {
    const STATUS: &str = "HTTP/1.1 200 OK\r\n";
    const BODY: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let ways = [
        ("http", " ", "x", Way::Silent, false),
        ("http", " ", STATUS, Way::Drips, false),
        ("http", " ", "x", Way::Endless, false),
        ("http", STATUS, "x", Way::Silent, false),
        ("http", STATUS, "a: b\r\n", Way::Drips, false),
        ("http", STATUS, "a: b\r\n", Way::EndlessLines, false),
        ("http", STATUS, "x", Way::Endless, false),
        ("http", " ", "HTTP/1.1 100 Continue\r\n\r\n", Way::EndlessLines, false),
        ("http", " ", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", Way::EndlessLines, false),
        // What is said behind the status is not read.
        ("http", BODY, "x", Way::Silent, true),
        ("http", BODY, "1\r\nx\r\n", Way::EndlessLines, true),
        ("https", "", "x", Way::Silent, false),
        ("https", "", "\x16\x03\x03", Way::Drips, false),
        ("https", "", "x", Way::Endless, false),
    ];
    let scratch = alerted(ways.len() as u64 + 1);
    let (mut contacts, mut receivers) = (String::new(), Vec::new());
    for (number, (scheme, begins, drip, way, _)) in ways.into_iter().enumerate() {
        let (port, sent) = http_receiver(begins, drip, way);
        receivers.push(sent);
        contacts += &format!("{},webhook,{scheme}://127.0.0.1:{port}/\n", number + 1);
    }
    let (healthy, requests) = receive(|_| Behaviour::Answer(200, None));
    contacts += &format!("{},webhook,{healthy}\n", ways.len() + 1);
    let job = job(&scratch, &contacts, "[deliver]\nattempts = 1\ntimeout_seconds = 2\n");
    let said = deliver_within(&scratch, &job, SECONDS_MAX);
    assert_eq!(said.code, 75, "{}", said.stderr);
    let taken = 2 * (1 + ways.iter().filter(|(.., is_taken)| *is_taken).count());
    let deferred = 2 * (ways.len() + 1) - taken;
    let counts =
        serde_json::json!({"delivered": taken, "deferred": deferred, "dead": 0, "without_contact": 0});
    assert_eq!(said.json()["deliveries"], counts);
    assert_eq!(requests.lock().unwrap().len(), 2);
    let peak = said.json()["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak < 300 << 20, "{peak} bytes of memory");
    for (way, sent) in ways.iter().zip(receivers) {
        let (sent, is_heads) = (sent.load(Ordering::SeqCst), way.1 == " " && way.3 == Way::EndlessLines);
        // Heads of answers that announce another one are read and forgotten until the time is over.
        assert!(sent < SENT_MAX || is_heads, "{way:?}: {sent} bytes were read");
    }
}

#[test]
fn after_its_deadline_a_run_leaves_the_rest_for_the_next_one() {
    let scratch = alerted(3);
    let (address, requests) = receive(|_| Behaviour::Answer(503, Some(2)));
    let more = "[deliver]\nattempts = 100\nrun_seconds_max = 5\n";
    let file =
        job(&scratch, &format!("1,webhook,{address}\n2,file,{}\n", scratch.path("spool").display()), more);
    let said = deliver_within(&scratch, &file, 25);
    assert_eq!(said.code, 75, "{}", said.stderr);
    let counts = serde_json::json!({"delivered": 2, "deferred": 2, "dead": 0, "without_contact": 2});
    assert_eq!(said.json()["deliveries"], counts);
    assert!((1..=3).contains(&requests.lock().unwrap().len()));
    for (key, value) in [("run_seconds_max", "0"), ("timeout_seconds", "601"), ("attempts", "0")] {
        let file = job(&scratch, "1,webhook,https://x.example\n", &format!("[deliver]\n{key} = {value}\n"));
        let said = deliver(&scratch, &file);
        assert!(
            said.code == 78 && said.stderr.contains(&format!("`deliver.{key}` must be")),
            "{}",
            said.stderr
        );
    }
}
