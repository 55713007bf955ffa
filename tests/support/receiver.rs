//! An HTTP receiver in this process that behaves as it is told.
//!
//! In: for each request what to do. Out: its address, and every request that came.
//! Invariant: a request is kept before it is answered, whatever the answer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the receiver does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers with a status, and perhaps with `Retry-After` in seconds.
    Answer(u16, Option<u32>),
    /// Sends the client to a port of this machine.
    Redirect(u16),
    /// Takes it and closes the connection: the answer is lost.
    HangUp,
    /// Takes it and says nothing for so many milliseconds.
    Stall(u64),
}

#[derive(Clone, Debug)]
pub struct Request {
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub did: Behaviour,
    pub at: Instant,
}

pub type Requests = Arc<Mutex<Vec<Request>>>;

/// Serves until the process ends. Out: `http://127.0.0.1:port`, and what came.
pub fn receive(behave: impl Fn(usize) -> Behaviour + Send + Sync + 'static) -> (String, Requests) {
    let (port, requests) = receive_at("127.0.0.1", move |number, _| behave(number));
    (format!("http://127.0.0.1:{port}"), requests)
}

/// The same at another address; what is done may depend on the headers. Out: the port, and what came.
pub fn receive_at(
    ip: &str,
    behave: impl Fn(usize, &BTreeMap<String, String>) -> Behaviour + Send + Sync + 'static,
) -> (u16, Requests) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (requests, behave) = (Requests::default(), Arc::new(behave));
    let kept = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (kept, behave) = (kept.clone(), behave.clone());
            // A sender that was killed leaves half a request.
            std::thread::spawn(move || drop(serve(stream, &kept, &*behave)));
        }
    });
    (port, requests)
}

type Behave = dyn Fn(usize, &BTreeMap<String, String>) -> Behaviour;

fn serve(stream: TcpStream, kept: &Requests, behave: &Behave) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_string());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let did = {
        let mut kept = kept.lock().unwrap();
        let did = behave(kept.len(), &headers);
        kept.push(Request { headers, body: String::from_utf8(body).unwrap(), did, at: Instant::now() });
        did
    };
    let mut stream = stream;
    match did {
        Behaviour::HangUp => Ok(()),
        Behaviour::Stall(millis) => {
            std::thread::sleep(Duration::from_millis(millis));
            Ok(())
        }
        Behaviour::Redirect(port) => {
            let to = format!("http://127.0.0.1:{port}/");
            write!(
                stream,
                "HTTP/1.1 302 X\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
        }
        Behaviour::Answer(status, retry_after) => {
            let retry_after =
                retry_after.map_or(String::new(), |seconds| format!("Retry-After: {seconds}\r\n"));
            write!(
                stream,
                "HTTP/1.1 {status} X\r\n{retry_after}Content-Length: 0\r\nConnection: close\r\n\r\n"
            )
        }
    }
}
