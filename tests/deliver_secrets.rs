//! Who can sign for whom, and what passwords are told.
//!
//! In: endpoints, secrets of the job and of contacts, servers and stores with passwords. Out: pass or
//! fail.
//! Invariant: a receiver's secret signs for no other; a secret or a password stands in nothing that is
//! printed or kept, and is not sent in clear.

use crate::support::delivery::{SECRET, alerted, copy_of, deliver, job, secret_of, select, signature};
use crate::support::receiver::{Behaviour, receive};
use crate::support::{Scratch, python};
use std::path::{Path, PathBuf};
use std::process::Command;

const OTHER: &str = "whsec_b3RoZXItY2FuYXJ5LXNlY3JldC1vZi0yNC1ieXRlcw==";

#[test]
fn a_receivers_secret_signs_for_no_other_and_two_while_one_takes_the_place_of_the_other() {
    let lake = alerted(3);
    let (one, of_one) = receive(|_| Behaviour::Answer(200, None));
    let (two, of_two) = receive(|_| Behaviour::Answer(200, None));
    let contacts =
        format!("1,webhook,{one}/hook?tenant=1\n2,webhook,{one}/hook?tenant=2\n3,webhook,{two}/hook\n");
    let scratch = copy_of(&lake);
    assert_eq!(deliver(&scratch, &job(&scratch, &contacts, "")).code, 0);
    let addresses = [format!("{one}/hook?tenant=1"), format!("{one}/hook?tenant=2"), format!("{two}/hook")];
    let secrets = addresses.each_ref().map(|address| secret_of(&scratch, address));
    for requests in [&of_one, &of_two] {
        let requests = std::mem::take(&mut *requests.lock().unwrap());
        assert!(!requests.is_empty());
        for request in requests {
            let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
            let user = body["data"]["user_id"].as_u64().unwrap() as usize;
            for (number, secret) in secrets.iter().enumerate() {
                let is_theirs = request.headers["webhook-signature"] == signature(secret, &request);
                assert_eq!(is_theirs, number + 1 == user, "the secret of {number} for user {user}");
            }
            assert_ne!(request.headers["webhook-signature"], signature(SECRET, &request), "the job's own");
        }
    }
    // While the secret of the job is replaced, the one before signs as well.
    let scratch = copy_of(&lake)
        .environment("PENNYMILL_WEBHOOK_SECRET", OTHER)
        .environment("PENNYMILL_WEBHOOK_SECRET_PREVIOUS", SECRET);
    assert_eq!(deliver(&scratch, &job(&scratch, &contacts, "")).code, 0);
    let new = secret_of(&scratch, &addresses[2]);
    assert_ne!(new, secrets[2]);
    for request in of_two.lock().unwrap().iter() {
        let both = format!("{} {}", signature(&new, request), signature(&secrets[2], request));
        assert_eq!(request.headers["webhook-signature"], both);
    }
    let wrong = copy_of(&lake).environment("PENNYMILL_WEBHOOK_SECRET_PREVIOUS", "whsec_canary");
    let said = deliver(&wrong, &job(&wrong, &contacts, ""));
    assert!(said.code == 78 && said.stderr.contains("SECRET_PREVIOUS is not a secret"), "{}", said.stderr);
    assert!(!said.stderr.contains("canary"));
}

#[test]
fn a_contact_may_bring_its_own_secrets() {
    let lake = alerted(2);
    let (address, requests) = receive(|_| Behaviour::Answer(200, None));
    let header = "user_id,channel,address,secret\n";
    let contacts = format!("{header}1,webhook,{address}/1,{OTHER}\n2,webhook,{address}/2,{OTHER} {SECRET}\n");
    // The job needs no secret of its own.
    let scratch = copy_of(&lake).environment("PENNYMILL_WEBHOOK_SECRET", "");
    assert_eq!(deliver(&scratch, &job(&scratch, &contacts, "")).code, 0);
    assert_eq!(requests.lock().unwrap().len(), 4);
    for request in requests.lock().unwrap().iter() {
        let (other, secret) = (signature(OTHER, request), signature(SECRET, request));
        let is_first = request.body.contains("\"user_id\":1");
        assert_eq!(
            request.headers["webhook-signature"],
            if is_first { other } else { format!("{other} {secret}") }
        );
    }
    for (row, what) in [
        (format!("1,webhook,{address},canary\n"), "column `secret`: not a secret"),
        (format!("1,webhook,{address},{OTHER} whsec_Y2FuYXJ5\n"), "column `secret`: not a secret"),
        (format!("1,webhook,{address},{OTHER} {OTHER} {OTHER}\n"), "column `secret`: not a secret"),
        (format!("1,smtp,a@example.com,{OTHER}\n"), "column `secret`: only webhooks are signed"),
    ] {
        let said = deliver(&scratch, &job(&scratch, &format!("{header}{row}"), ""));
        assert!(said.code == 65 && said.stderr.contains(what), "{} {}", said.code, said.stderr);
        assert!(!said.stderr.contains("whsec_b3") && !said.stderr.contains("canary"), "{}", said.stderr);
    }
    let unsigned = format!("{header}1,webhook,{address},{OTHER}\n2,webhook,{address}/2,\n");
    assert_eq!(
        deliver(&scratch, &job(&scratch, &unsigned, "")).code,
        78,
        "one of them needs the job's secret"
    );
    let said = scratch.pennymill(&["webhook-secret", &address]);
    assert!(
        said.code == 78 && said.stderr.contains("PENNYMILL_WEBHOOK_SECRET is not set"),
        "{}",
        said.stderr
    );
    assert_eq!(scratch.pennymill(&["webhook-secret", "canary"]).code, 78);
}

/// The reference library verifies a request: secret, headers, body.
const VERIFY: &str = "
import sys
from standardwebhooks.webhooks import Webhook
secret, id, timestamp, signature, body = sys.argv[1:]
headers = {'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature}
Webhook(secret).verify(body, headers)
";

#[test]
fn the_reference_library_takes_our_signatures() {
    let Some(python) = python("standardwebhooks", &["standardwebhooks==1.0.0"]) else { return };
    let scratch = alerted(1).environment("PENNYMILL_WEBHOOK_SECRET_PREVIOUS", OTHER);
    let (address, requests) = receive(|_| Behaviour::Answer(200, None));
    assert_eq!(deliver(&scratch, &job(&scratch, &format!("1,webhook,{address}\n"), "")).code, 0);
    let secret = secret_of(&scratch, &address);
    for request in requests.lock().unwrap().iter() {
        for (secret, is_taken) in [(secret.as_str(), true), (SECRET, false)] {
            let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
            let mut command = Command::new(&python);
            command
                .args(["-c", VERIFY, secret])
                .args(names.map(|name| &request.headers[name]))
                .arg(&request.body);
            assert_eq!(command.output().unwrap().status.success(), is_taken);
        }
    }
}

#[test]
fn mail_in_clear_goes_to_this_machine_or_into_a_network_that_the_job_names() {
    let scratch = alerted(1).environment("PENNYMILL_SMTP_PASSWORD", "canary");
    let run = |server: &str, tls: &str, more: &str, networks: &str| {
        let deliver_keys =
            format!("[deliver]\nnetworks_allowed = {networks}\nattempts = 1\ntimeout_seconds = 1\n");
        let smtp =
            format!("[smtp]\nserver = \"{server}\"\ntls = \"{tls}\"\nfrom = \"b@pennymill.example\"\n{more}");
        let job = job(&scratch, "1,smtp,ann@example.com\n", &format!("{deliver_keys}{smtp}"));
        let check = scratch.pennymill(&["check", &job]);
        if check.code != 0 {
            let said = deliver(&scratch, &job);
            assert_eq!(
                (said.code, &said.stderr),
                (check.code, &check.stderr),
                "check says what a run would say"
            );
        }
        assert!(!check.stderr.contains("canary"));
        (check.code, check.stderr)
    };
    let user = "user = \"budgets\"\n";
    for server in ["192.0.2.1:25", "mail.example.com", "localhost.example.com", "0.0.0.0", "10.0.0.1"] {
        for networks in ["[]", "[\"0.0.0.0/0\", \"::/0\"]"] {
            let (code, error) = run(server, "none", user, networks);
            assert!(code == 78 && error.contains("the password in clear"), "{server}: {code} {error}");
        }
        let (code, error) = run(server, "none", "", "[]");
        assert!(code == 78 && error.contains("mail in clear"), "{server}: {code} {error}");
        assert_eq!(run(server, "starttls", user, "[]").0, 0, "{server}");
        assert_eq!(run(server, "implicit", user, "[]").0, 0, "{server}");
    }
    assert_eq!(run("192.0.2.1:25", "none", "", "\"192.0.2.0/24\"").0, 0);
    assert_eq!(run("192.0.3.1:25", "none", "", "\"192.0.2.0/24\"").0, 78);
    for server in ["127.0.0.1:25", "localhost", "LOCALHOST.", "127.8.9.10"] {
        assert_eq!(run(server, "none", user, "[]").0, 0, "{server}");
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder.to_path_buf()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files
}

fn assert_silent(what: &str, scratch: &Scratch, said: &[&str]) {
    for text in said {
        assert!(!text.contains("canary"), "{what}: {text}");
    }
    for file in files(&scratch.lake()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("canary"), "{what}: {}", file.display());
    }
}

#[test]
fn passwords_in_addresses_are_told_to_nobody() {
    let lake = alerted(1);
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let (refusing, _) = receive(|_| Behaviour::Answer(410, None));
    let refusing = refusing.replace("http://", "");
    for (contact, endpoint) in [
        (format!("webhook,http://canary:canary@127.0.0.1:{closed}/canary?canary#canary"), None),
        (format!("webhook,https://canary:canary@127.0.0.1:{closed}/canary"), None),
        (format!("webhook,http://canary:canary@{refusing}/canary"), None),
        ("webhook,https://canary:canary@10.0.0.1/canary".into(), None),
        ("webhook,ftp://canary:canary@host/canary".into(), None),
        ("webhook,https://canary:canary@host.invalid/canary".into(), None),
        ("webhook,https://canary:canary".into(), None),
        ("smtp,canary:canary".into(), None),
        (
            "file,s3://canary:canary@bucket/canary?canary".into(),
            Some(format!("http://canary:canary@{refusing}")),
        ),
        ("file,s3://bucket/canary".into(), Some(format!("canary://canary:canary@{refusing}"))),
        ("file,s3://bucket/canary".into(), Some("http://canary:canary@[canary".into())),
        ("file,nowhere://canary:canary@bucket/canary".into(), None),
        ("file,s3://canary:canary@".into(), None),
    ] {
        let mut scratch = copy_of(&lake)
            .environment("AWS_ACCESS_KEY_ID", "canary")
            .environment("AWS_SECRET_ACCESS_KEY", "canary")
            .environment("AWS_REGION", "canary")
            .environment("AWS_ALLOW_HTTP", "true");
        if let Some(endpoint) = &endpoint {
            scratch = scratch.environment("AWS_ENDPOINT", endpoint);
        }
        let more = "[deliver]\nattempts = 1\ntimeout_seconds = 2\nrun_seconds_max = 4\n[smtp]\n\
                    server = \"localhost\"\nfrom = \"b@pennymill.example\"\ntls = \"none\"\n";
        let job_file = job(&scratch, &format!("1,{contact}\n"), more);
        // The table of contacts is itself at a place that lets its reader in.
        let text = std::fs::read_to_string(&job_file).unwrap();
        let table = scratch.path("contacts.csv");
        let text = text.replace(&format!("{table:?}"), &format!("\"file://{}?sig=canary\"", table.display()));
        std::fs::write(&job_file, text).unwrap();
        let plan = scratch.pennymill(&["run", &job_file, "--dry-run"]);
        let said = deliver(&scratch, &job_file);
        assert!([3, 73, 75, 77, 78].contains(&said.code), "{contact}: {} {}", said.code, said.stderr);
        let dead = match said.code {
            3 => select(&scratch, "select reason from dead_letters").concat(),
            _ => String::new(),
        };
        assert_silent(&contact, &scratch, &[&plan.stdout, &plan.stderr, &said.stdout, &said.stderr, &dead]);
    }
}
