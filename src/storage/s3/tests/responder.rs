//! A store that says what a test wants it to say, in this process, over plain HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query, as they were sent.
    pub(super) target: String,
    /// Names in lowercase.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// What is said to it.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// A status, headers, a body.
    Say(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The same with an S3 error as its body.
    Error(u16, &'static str, &'static str),
    /// A body that is cut: so many bytes are promised, these come, then the connection is closed.
    Cut(usize, Vec<u8>),
    /// The connection is closed.
    Hang,
}

impl Reply {
    pub(super) fn ok(body: &[u8]) -> Self {
        Self::Say(200, Vec::new(), body.to_vec())
    }

    fn bytes(&self, request: &Request) -> Option<(Vec<u8>, bool)> {
        let (status, headers, promised, body) = match self {
            Self::Say(status, headers, body) => (*status, headers.clone(), body.len(), body.clone()),
            Self::Error(status, code, message) => {
                let xml =
                    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
                (*status, vec![("content-type", "application/xml".to_owned())], xml.len(), xml.into_bytes())
            }
            Self::Cut(promised, body) => (200, Vec::new(), *promised, body.clone()),
            Self::Hang => return None,
        };
        let mut text = format!("HTTP/1.1 {status} x\r\n");
        if !headers.iter().any(|(name, _)| *name == "date") {
            text.push_str("date: Sun, 22 Nov 2026 17:21:38 GMT\r\n");
        }
        // A HEAD's length is of what a GET would give.
        if !headers.iter().any(|(name, _)| *name == "content-length") {
            text.push_str(&format!("content-length: {promised}\r\n"));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if request.method != "HEAD" {
            bytes.extend(body);
        }
        Some((bytes, matches!(self, Self::Cut(..))))
    }
}

type Answers = dyn Fn(&Request) -> Reply + Send + Sync;

/// Listens until it is dropped.
pub(super) struct Responder {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Responder {
    pub(super) async fn start(answers: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, answers): (Arc<Mutex<Vec<Request>>>, Arc<Answers>) = (Arc::default(), Arc::new(answers));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&noted), Arc::clone(&answers)));
            }
        });
        Self { address, seen, task }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far: method and target.
    pub(super) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, seen: Arc<Mutex<Vec<Request>>>, answers: Arc<Answers>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        seen.lock().unwrap().push(request.clone());
        let Some((bytes, cut)) = answers(&request).bytes(&request) else { return };
        if stream.get_mut().write_all(&bytes).await.is_err() || cut {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut first = String::new();
    stream.read_line(&mut first).await.ok()?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { method, target, headers, body })
}
