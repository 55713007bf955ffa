//! A proxy in this process, before an S3 server, that goes wrong as it is told.
//!
//! In: the server's endpoint and folder, a plan for every round. Out: an endpoint to ask instead, and
//! what was asked for.
//! Invariant: requests are signed, so what is passed on is passed on as it came.

use object_store::path::Path as Key;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Whether, when and how often the server hears of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaches {
    Never,
    Once,
    Twice,
    /// After so many milliseconds.
    Late(u64),
    /// Not before so many later requests were answered, or the round is over.
    Behind(usize),
    /// Once, and a create overwrites: what stands under its name is gone when it comes.
    Overwriting,
}

/// What the client hears of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Whole,
    /// Half its body, and then the connection ends.
    Half,
    /// The connection is reset: a client that hears this cannot know what came of its request.
    Reset,
    /// The connection ends as if it had been idle: clients take this for a request never read.
    Closed,
    /// Nothing, for as long as the client cares to wait.
    Silence,
    /// This status instead, with this code in the body.
    Status(u16, &'static str),
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub reaches: Reaches,
    pub answer: Answer,
}

/// What goes wrong in a round.
#[derive(Clone, Copy)]
pub struct Plan {
    pub fault: Fault,
    /// The number of the first request that it may befall: from 1, over all connections.
    pub from: usize,
    /// Which requests it may befall.
    pub befalls: fn(&Request) -> bool,
    /// How many of them it befalls.
    pub times: usize,
}

impl Plan {
    /// Nothing goes wrong.
    pub const NOTHING: Plan = Plan {
        fault: Fault { reaches: Reaches::Once, answer: Answer::Whole },
        from: 1,
        befalls: |_| false,
        times: 0,
    };
}

/// What a client asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// A put of something that must not be there yet.
    pub creates: bool,
}

/// From one plan to the next.
struct Round {
    plan: Plan,
    /// All requests, and the numbers of those that the fault befell.
    seen: Mutex<(Vec<Request>, Vec<usize>)>,
    /// How many requests were answered; the greatest number ends all waiting.
    answered: watch::Sender<usize>,
    waiting: AtomicUsize,
}

impl Round {
    fn new(plan: Plan) -> Arc<Round> {
        let answered = watch::Sender::new(0);
        Arc::new(Round { plan, seen: Mutex::default(), answered, waiting: AtomicUsize::new(0) })
    }

    /// Takes a request down. Out: what is to go wrong with it.
    fn note(&self, request: &Request) -> Fault {
        let mut seen = self.seen.lock().unwrap();
        seen.0.push(request.clone());
        let number = seen.0.len();
        let due = number >= self.plan.from && seen.1.len() < self.plan.times;
        if !due || !(self.plan.befalls)(request) {
            return Plan::NOTHING.fault;
        }
        seen.1.push(number);
        self.plan.fault
    }
}

/// The proxy at work.
pub struct Proxy {
    pub endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    /// The server's address, and the folder with its buckets.
    server: String,
    folder: PathBuf,
    round: Mutex<Arc<Round>>,
}

impl Proxy {
    /// Serves until the process ends. Nothing goes wrong before it is told.
    pub fn before(endpoint: &str, folder: &Path) -> Proxy {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint_here = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            server: endpoint.trim_start_matches("http://").to_string(),
            folder: folder.to_path_buf(),
            round: Mutex::new(Round::new(Plan::NOTHING)),
        });
        let proxy = Proxy { endpoint: endpoint_here, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    // A client that has gone is none of our business.
                    tokio::spawn(Arc::clone(&shared).serve(client));
                }
            });
        });
        proxy
    }

    /// Ends the round at hand and begins another.
    pub fn begin(&self, plan: Plan) {
        self.let_go();
        *self.shared.round.lock().unwrap() = Round::new(plan);
    }

    /// Sends on whatever is held, and waits until it has arrived.
    pub fn let_go(&self) {
        let round = self.shared.round();
        round.answered.send_replace(usize::MAX);
        while round.waiting.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The requests of this round, in the order in which they came.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.round().seen.lock().unwrap().0.clone()
    }

    /// Those that the fault befell, under their numbers.
    pub fn befallen(&self) -> Vec<(usize, Request)> {
        let round = self.shared.round();
        let seen = round.seen.lock().unwrap();
        seen.1.iter().map(|number| (*number, seen.0[number - 1].clone())).collect()
    }
}

impl Shared {
    fn round(&self) -> Arc<Round> {
        Arc::clone(&self.round.lock().unwrap())
    }

    async fn serve(self: Arc<Self>, client: TcpStream) -> Result<()> {
        client.set_nodelay(true)?;
        let mut client = BufReader::new(client);
        while let Some((request, bytes)) = read_request(&mut client).await? {
            let round = self.round();
            let fault = round.note(&request);
            if let Reaches::Behind(_) = fault.reaches {
                round.waiting.fetch_add(1, Ordering::SeqCst);
            }
            let reached = Arc::clone(&self).reach(Arc::clone(&round), request.clone(), bytes, fault.reaches);
            let heard = match (fault.reaches, fault.answer) {
                // What is answered does not depend on what will come of it.
                (Reaches::Behind(_), Answer::Reset) => {
                    tokio::spawn(reached);
                    Vec::new()
                }
                _ => reached.await?,
            };
            let goes_on = answer(&mut client, &request, fault.answer, &heard).await?;
            round.answered.send_modify(|answered| *answered = answered.saturating_add(1));
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Brings a request to the server, if it is to get there. Out: the server's last word.
    async fn reach(
        self: Arc<Self>,
        round: Arc<Round>,
        request: Request,
        bytes: Vec<u8>,
        reaches: Reaches,
    ) -> Result<Vec<u8>> {
        match reaches {
            Reaches::Never => return Ok(Vec::new()),
            Reaches::Once => {}
            Reaches::Twice => drop(self.forward(&bytes).await?),
            Reaches::Late(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Reaches::Behind(requests) => {
                let mut answered = round.answered.subscribe();
                let enough = answered.borrow().saturating_add(requests);
                answered.wait_for(|answered| *answered >= enough).await.map_err(std::io::Error::other)?;
                let heard = self.forward(&bytes).await;
                round.waiting.fetch_sub(1, Ordering::SeqCst);
                return heard;
            }
            Reaches::Overwriting if request.creates => {
                let key = Key::from_url_path(&request.path).map_err(std::io::Error::other)?;
                drop(std::fs::remove_file(self.folder.join(key.as_ref())));
            }
            Reaches::Overwriting => {}
        }
        self.forward(&bytes).await
    }

    /// Passes a request on as it came, but that the server is to hang up: so its answer ends by itself.
    /// Out: the answer without a word of that, since the client's connection goes on.
    async fn forward(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        const HANG_UP: &str = "connection: close\r\n";
        let mut server = TcpStream::connect(&self.server).await?;
        server.set_nodelay(true)?;
        let (head, body) = bytes.split_at(head_bytes(bytes));
        server.write_all(&[head, HANG_UP.as_bytes(), body].concat()).await?;
        let mut heard = Vec::new();
        let ended = server.read_to_end(&mut heard).await;
        if heard.is_empty() {
            ended?;
        }
        let (head, body) = heard.split_at(head_bytes(&heard));
        let head = String::from_utf8_lossy(head).replace(HANG_UP, "");
        Ok([head.as_bytes(), body].concat())
    }
}

/// The bytes of a head, up to the empty line that ends it.
fn head_bytes(message: &[u8]) -> usize {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n");
    end.map_or(message.len(), |end| end + 2)
}

/// The next request of a connection, and its bytes; none when there are no more.
async fn read_request(client: &mut BufReader<TcpStream>) -> Result<Option<(Request, Vec<u8>)>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        if client.read_until(b'\n', &mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length: usize = header("content-length: ").map_or(0, |length| length.parse().unwrap());
    let creates = header("if-none-match: ").is_some();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut words = text.split(' ').map(String::from);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let body = bytes.len();
    bytes.resize(body + length, 0);
    client.read_exact(&mut bytes[body..]).await?;
    Ok(Some((Request { method, path, creates }, bytes)))
}

/// Answers a client. Out: whether its connection goes on.
async fn answer(
    client: &mut BufReader<TcpStream>,
    request: &Request,
    answer: Answer,
    heard: &[u8],
) -> Result<bool> {
    match answer {
        Answer::Whole => {
            client.write_all(heard).await?;
            return Ok(true);
        }
        Answer::Half => {
            let body = head_bytes(heard) + 2;
            // Of an answer without a body, half its head.
            let end = if body < heard.len() { (body + heard.len()) / 2 } else { heard.len() / 2 };
            client.write_all(&heard[..end]).await?;
            client.shutdown().await?;
        }
        Answer::Reset => client.get_ref().set_zero_linger()?,
        Answer::Closed => client.shutdown().await?,
        // It ends when the client has had enough.
        Answer::Silence => drop(client.read_u8().await),
        Answer::Status(status, code) => {
            let body = match request.method.as_str() {
                "HEAD" => String::new(),
                _ => format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>"),
            };
            let head = format!("HTTP/1.1 {status} {code}\r\nContent-Length: {}\r\n\r\n", body.len());
            client.write_all((head + &body).as_bytes()).await?;
            return Ok(true);
        }
    }
    Ok(false)
}
