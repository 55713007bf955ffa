//! An S3 server in this process: `s3s-fs` over a folder.
//!
//! In: a folder, whose folders are buckets. Out: the endpoint.
//! Invariant: the server is real, and answers signed requests only; of many that create one name, one does.

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, HttpResponse};
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
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
    builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
    let (service, turn) = (builder.build(), Arc::new(Mutex::new(())));
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
                let (service, turn) = (service.clone(), turn.clone());
                let service = service_fn(move |request| answer(service.clone(), turn.clone(), request));
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
