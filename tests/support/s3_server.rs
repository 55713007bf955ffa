//! An S3 server in this process: `s3s-fs` over a folder.
//!
//! In: a folder, whose folders are buckets. Out: the endpoint.
//! Invariant: the server is real, and answers signed requests only; of many that create one name, one does.
//! The bodies of objects are sent from here, in larger pieces than it would.

use chrono::{DateTime, TimeDelta};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request};
use s3s::auth::SimpleAuth;
use s3s::dto::StreamingBlob;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, HttpResponse};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Who may ask.
pub const KEY: &str = "key";
pub const SECRET: &str = "canary-secret";

/// What a process has to know in order to ask the server at `endpoint`.
pub fn environment(endpoint: &str) -> [(&'static str, &str); 5] {
    [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ]
}

/// Serves a folder, whose folders are buckets, until the process ends. Out: the endpoint.
pub fn serve(folder: &Path) -> String {
    serve_ahead(folder, TimeDelta::zero())
}

/// The same, with a clock that is ahead of this machine's by some time.
pub fn serve_ahead(folder: &Path, ahead: TimeDelta) -> String {
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
    builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
    let (service, turn, folder) = (builder.build(), Arc::new(Mutex::new(())), folder.to_path_buf());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                // Answers are small, and nobody waits for them to be larger.
                socket.set_nodelay(true).unwrap();
                let (service, turn, folder) = (service.clone(), turn.clone(), folder.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (service, turn, folder) = (service.clone(), turn.clone(), folder.clone());
                    async move {
                        let is_object = request.method() == Method::GET && request.uri().query().is_none();
                        let path = request.uri().path().to_string();
                        let answer = dated(answer(service, turn, request).await?, ahead);
                        let in_large_pieces = |answer| in_large_pieces(answer, &folder, &path);
                        Ok::<_, HttpError>(if is_object { in_large_pieces(answer) } else { answer })
                    }
                });
                tokio::spawn(async move {
                    let server =
                        hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                    drop(server.serve_connection(hyper_util::rt::TokioIo::new(socket), service).await);
                });
            }
        });
    });
    endpoint
}

/// The largest object that is created at once.
const BODY_BYTES_MAX: usize = 256 << 20;

/// `s3s-fs` looks for the name first and takes it later, so that two may create it: here they take
/// turns. The body is read before, since a client may stall, and the rest is done even if it goes.
async fn answer(
    service: S3Service,
    turn: Arc<Mutex<()>>,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpError> {
    let mut request = request.map(Body::from);
    if request.method() != Method::PUT || !request.headers().contains_key("if-none-match") {
        return service.call(request).await;
    }
    request.body_mut().store_all_limited(BODY_BYTES_MAX).await.map_err(HttpError::new)?;
    let create = async move {
        let _turn = turn.lock().await;
        service.call(request).await
    };
    tokio::spawn(create).await.map_err(|error| HttpError::new(error.into()))?
}

/// The answer, with the time of its object by the server's clock.
fn dated(mut answer: HttpResponse, ahead: TimeDelta) -> HttpResponse {
    let text = answer.headers().get("last-modified").and_then(|text| text.to_str().ok());
    let time = text.and_then(|text| DateTime::parse_from_rfc2822(text).ok());
    if let Some(time) = time.filter(|_| !ahead.is_zero()) {
        let dated = (time + ahead).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        answer.headers_mut().insert("last-modified", dated.parse().unwrap());
    }
    answer
}

const PIECE_BYTES: usize = 256 * 1024;

/// `s3s-fs` reads a file by 4 KiB, and waits for another thread each time. The body is the same where it
/// is read by more, and the server is no longer what whoever measures a client measures.
fn in_large_pieces(mut answer: HttpResponse, folder: &Path, path: &str) -> HttpResponse {
    let header = |name: &str| answer.headers().get(name)?.to_str().ok();
    let start = header("content-range")
        .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    let length = header("content-length").and_then(|length| length.parse::<u64>().ok());
    // Clients escape much in the names of parts.
    let Ok(path) = object_store::path::Path::from_url_path(path) else { return answer };
    let file = folder.join(path.as_ref());
    // What is no file is a listing, or an error.
    let (Some(length), true, Ok(mut file)) = (length, file.is_file(), File::open(file)) else {
        return answer;
    };
    if !answer.status().is_success() || file.seek(SeekFrom::Start(start.unwrap_or(0))).is_err() {
        return answer;
    }
    let pieces = futures::stream::unfold(file.take(length), |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        match read {
            Ok(0) => None,
            Ok(_) => Some((Ok(bytes::Bytes::from(piece)), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    *answer.body_mut() = Body::from(StreamingBlob::wrap(pieces));
    answer
}
