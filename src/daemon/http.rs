//! A small HTTP/1.1 listener: one GET or HEAD a connection, bounded in everything that a stranger decides.
//!
//! It knows paths as text only; whoever starts it says what is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::DaemonError;
use super::names::Names;

/// Connections at a time; one more is closed at once.
const MAX_CONNECTIONS: usize = 32;
/// Bytes of a request's head.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Lines of a request's head.
const MAX_HEADERS: usize = 64;
/// How long the head of a request may take to come.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer may take to be found, and then to be taken.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// After an accept that failed (no descriptors left) the next is tried so much later.
const AFTER_REFUSAL: Duration = Duration::from_millis(500);

/// To whoever asked by a name that is not known here. The name is not repeated: it is a stranger's.
const MISDIRECTED: &str = "asked by a name that is not known here: ask by the address, or by localhost, or list the name in the \
                           config, names = [\"...\"] in [daemon], and restart the daemon\n";

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub status: Status,
    /// `text/plain; charset=utf-8`, ...
    pub content_type: &'static str,
    /// What a browser may do with it, where one will read it.
    pub policy: Option<String>,
    /// The body.
    pub body: String,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 200.
    Ok,
    /// 400: not a request.
    Bad,
    /// 404.
    NotFound,
    /// 405: neither GET nor HEAD.
    Method,
    /// 421: asked by a name that is not this daemon's.
    Misdirected,
    /// 500.
    Failed,
    /// 503: asked for health, and there is none.
    Unavailable,
}

/// Finds the answer for a path, or none. It may block, and is called on a thread for that.
pub type Answers = Arc<dyn Fn(&str) -> Option<Answer> + Send + Sync>;

/// The listener; it ends when this is dropped.
#[derive(Debug)]
pub struct Listener {
    task: JoinHandle<()>,
    /// Where it listens: the port is the system's choice where the config says 0.
    pub address: SocketAddr,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answer {
    /// Plain text.
    #[must_use]
    pub fn text(status: Status, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", policy: None, body: body.into() }
    }
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::Bad => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::Method => "405 Method Not Allowed",
            Self::Misdirected => "421 Misdirected Request",
            Self::Failed => "500 Internal Server Error",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// Listens, and answers whoever asks by one of these names.
///
/// # Errors
/// [`DaemonError::Listen`].
pub fn listen(runtime: &Handle, address: SocketAddr, names: Names, answers: Answers) -> Result<Listener, DaemonError> {
    let failed = |cause| DaemonError::Listen { address, cause };
    let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let names = Arc::new(names);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let task = runtime.spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(AFTER_REFUSAL).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (names, answers) = (Arc::clone(&names), Arc::clone(&answers));
            tokio::spawn(async move {
                serve(stream, &names, answers).await;
                drop(place);
            });
        }
    });
    Ok(Listener { task, address })
}

async fn serve(mut stream: TcpStream, names: &Names, answers: Answers) {
    let Ok(Some(request)) = timeout(READ_WITHIN, request(&mut stream, names)).await else { return };
    let (answer, body) = match request {
        Request::Get(path) => (find(path, answers).await, true),
        Request::Head(path) => (find(path, answers).await, false),
        Request::Other => (Answer::text(Status::Method, "GET or HEAD\n"), true),
        Request::Bad => (Answer::text(Status::Bad, "this is no request\n"), true),
        Request::Misdirected => (Answer::text(Status::Misdirected, MISDIRECTED), true),
    };
    let allow = if answer.status == Status::Method { "Allow: GET, HEAD\r\n" } else { "" };
    let policy = answer.policy.as_deref().map_or_else(String::new, |policy| {
        format!("Content-Security-Policy: {policy}\r\nReferrer-Policy: no-referrer\r\nX-Frame-Options: DENY\r\n")
    });
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         {policy}{allow}Connection: close\r\n\r\n",
        answer.status.line(),
        answer.content_type,
        answer.body.len()
    );
    let sent = async {
        stream.write_all(head.as_bytes()).await?;
        if body {
            stream.write_all(answer.body.as_bytes()).await?;
        }
        stream.shutdown().await
    };
    // Whoever goes away before it has its answer wants none.
    let _ = timeout(ANSWER_WITHIN, sent).await;
}

async fn find(path: String, answers: Answers) -> Answer {
    let found = tokio::task::spawn_blocking(move || answers(&path));
    match timeout(ANSWER_WITHIN, found).await {
        Ok(Ok(Some(answer))) => answer,
        Ok(Ok(None)) => Answer::text(Status::NotFound, "there is /, /job/NAME, /healthz, /readyz and /metrics\n"),
        Ok(Err(_)) => Answer::text(Status::Failed, "the answer could not be made\n"),
        Err(_) => Answer::text(Status::Unavailable, "the answer takes too long\n"),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Get(String),
    Head(String),
    Other,
    Bad,
    Misdirected,
}

/// Reads a head; `None` where nobody said anything.
async fn request(stream: &mut TcpStream, names: &Names) -> Option<Request> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).await.ok()?;
        head.extend_from_slice(chunk.get(..read)?);
        match parse(&head, names) {
            Some(request) => return Some(request),
            None if read == 0 => return None,
            None => {}
        }
    }
}

/// What a head says, once it is whole.
fn parse(head: &[u8], names: &Names) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => {
            let mut hosts = parsed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
            match (hosts.next(), hosts.next()) {
                (Some(host), None) => match std::str::from_utf8(host.value) {
                    Ok(host) if names.admit(host.trim()) => {}
                    _ => return Some(Request::Misdirected),
                },
                // HTTP/1.0 knows no Host; every browser sends one.
                (None, _) if parsed.version == Some(0) => {}
                _ => return Some(Request::Bad),
            }
            let path = parsed.path.unwrap_or("/");
            let path = path.split_once('?').map_or(path, |(path, _)| path).to_owned();
            Some(match parsed.method {
                Some("GET") => Request::Get(path),
                Some("HEAD") => Request::Head(path),
                _ => Request::Other,
            })
        }
        Ok(httparse::Status::Partial) if head.len() < MAX_HEAD_BYTES => None,
        _ => Some(Request::Bad),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    const HERE: &str = "127.0.0.1:0";

    #[test]
    fn a_head_is_read_when_it_is_whole_and_no_longer_than_it_may_be() {
        let names = Names::new(&["x".to_owned()]);
        for (head, expected) in [
            ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", Some(Request::Get("/healthz".into()))),
            ("HEAD /metrics?a=b HTTP/1.0\r\n\r\n", Some(Request::Head("/metrics".into()))),
            ("POST / HTTP/1.1\r\nhost:x\r\n\r\n", Some(Request::Other)),
            ("GET /healthz HTTP/1.1\r\nHost: x\r\n", None),
            ("GET / HTTP/1.1\r\n\r\n", Some(Request::Bad)),
            ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", Some(Request::Bad)),
            ("GET / HTTP/1.1\r\nHost: y\r\n\r\n", Some(Request::Misdirected)),
            ("GET / HTTP/1.0\r\nHost: y\r\n\r\n", Some(Request::Misdirected)),
            ("POST / HTTP/1.1\r\nHost: y\r\n\r\n", Some(Request::Misdirected)),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Some(Request::Misdirected)),
            ("", None),
            ("nonsense\r\n\r\n", Some(Request::Bad)),
        ] {
            assert_eq!(parse(head.as_bytes(), &names), expected, "{head:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(MAX_HEAD_BYTES));
        assert_eq!(parse(long.as_bytes(), &names), Some(Request::Bad));
        assert_eq!(parse(&long.as_bytes()[..MAX_HEAD_BYTES], &names), Some(Request::Bad));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(parse(many.as_bytes(), &names), Some(Request::Bad));
    }

    #[test]
    fn it_answers() {
        let names = Names::new(&["backup.internal".to_owned()]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let answers: Answers =
            Arc::new(|path| (path == "/healthz").then(|| Answer::text(Status::Unavailable, "not well\n")));
        let listener = listen(runtime.handle(), HERE.parse().unwrap(), names.clone(), answers).unwrap();
        let ask = |request: &str| {
            let mut stream = std::net::TcpStream::connect(listener.address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let text = ask("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 503 ") && text.ends_with("\r\n\r\nnot well\n"), "{text}");
        assert!(!text.contains("Content-Security-Policy"), "nothing for a browser");
        let text = ask("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(text.contains("Content-Length: 9\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        // What a browser asks for a page that has its own name resolved to here.
        let text = ask("GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 421 ") && text.contains("names = [\"...\"] in [daemon]"), "{text}");
        assert!(!text.contains("not well") && !text.contains("evil"), "{text}");
        assert!(ask("GET /healthz HTTP/1.1\r\nHost: Backup.internal:80\r\n\r\n").starts_with("HTTP/1.1 503 "));
        assert!(ask("GET /healthz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert!(ask("GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 503 "));
        assert!(ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(ask("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n").contains("Allow: GET, HEAD"));
        let page = Answer { policy: Some("default-src 'none'".to_owned()), ..Answer::text(Status::Ok, "<p>") };
        let pages =
            listen(runtime.handle(), HERE.parse().unwrap(), names.clone(), Arc::new(move |_| Some(page.clone())))
                .unwrap();
        let mut stream = std::net::TcpStream::connect(pages.address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("\r\nContent-Security-Policy: default-src 'none'\r\n"), "{text}");
        assert!(text.contains("\r\nCache-Control: no-store\r\n") && text.ends_with("\r\n\r\n<p>"), "{text}");
        let again = listen(runtime.handle(), listener.address, names, Arc::new(|_| None)).unwrap_err();
        assert!(matches!(again, DaemonError::Listen { .. }));
    }
}
