//! Receivers of notifications on this machine: they keep every byte that they get, and answer as they are told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What comes comes long before, or never.
const WITHIN: Duration = Duration::from_secs(60);

/// Something that listens, and a thread that answers one connection after the other.
pub(crate) struct Listening {
    /// Where.
    pub(crate) address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    fn start(address: &str, mut answer: impl FnMut(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(WITHIN)).unwrap();
                answer(stream);
            }
        });
        Self { address, ends, thread: Some(thread) }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the thread; where it is gone nobody has to.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A web server that takes everything.
pub(crate) struct Web {
    listening: Listening,
    requests: Receiver<String>,
    answer: Arc<Mutex<String>>,
}

impl Web {
    /// Answers `200 ok`.
    pub(crate) fn start() -> Self {
        Self::at("127.0.0.1:0")
    }

    /// The same at an address.
    pub(crate) fn at(address: &str) -> Self {
        let (sender, requests) = channel();
        let answer = Arc::new(Mutex::new(String::new()));
        let said = Arc::clone(&answer);
        let listening = Listening::start(address, move |stream| web(stream, &sender, &said));
        let web = Self { listening, requests, answer };
        web.answers("200 OK", "", "ok");
        web
    }

    /// Answers so from now on; `head` is further lines, each with its end.
    pub(crate) fn answers(&self, status: &str, head: &str, body: &str) {
        let length = body.len();
        *self.answer.lock().unwrap() =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{head}\r\n{body}");
    }

    /// The address of a path here.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listening.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listening.address
    }

    /// The next request, every byte of it, with `HERE` for its own address.
    #[track_caller]
    pub(crate) fn next(&self) -> String {
        let request = self.requests.recv_timeout(WITHIN).expect("no request came");
        request.replace(&self.listening.address.to_string(), "HERE")
    }

    /// The next request's path and what was posted.
    #[track_caller]
    pub(crate) fn next_post(&self) -> (String, String) {
        let request = self.next();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let path = head.strip_prefix("POST ").and_then(|rest| rest.split(' ').next()).expect(head);
        (path.to_owned(), body.to_owned())
    }

    /// What came and was not looked at.
    pub(crate) fn rest(&self) -> Vec<String> {
        self.requests.try_iter().collect()
    }
}

fn web(mut stream: TcpStream, sender: &Sender<String>, answer: &Mutex<String>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
        request.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    request.push_str(&String::from_utf8(body).unwrap());
    let _ = sender.send(request);
    // Whoever does not want the answer has gone.
    let _ = stream.write_all(answer.lock().unwrap().as_bytes());
}

/// A mail server that takes everything.
pub(crate) struct Mail {
    listening: Listening,
    talks: Receiver<Vec<String>>,
}

impl Mail {
    /// In clear, without a login; says this to each message.
    pub(crate) fn start(taken: &'static str) -> Self {
        let (sender, talks) = channel();
        let listening = Listening::start("127.0.0.1:0", move |stream| {
            let _ = sender.send(talk(stream, &[], taken).0);
        });
        Self { listening, talks }
    }

    /// With STARTTLS, and a login behind it.
    pub(crate) fn with_tls(config: Arc<rustls::ServerConfig>) -> Self {
        let (sender, talks) = channel();
        let listening = Listening::start("127.0.0.1:0", move |stream| {
            let (mut said, stream) = talk(stream, &["STARTTLS"], "");
            if let Some(stream) = stream {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let secured = rustls::StreamOwned::new(connection, stream);
                said.extend(talk_on(secured, &["AUTH PLAIN"], "250 2.0.0 taken as 4712", false).0);
            }
            let _ = sender.send(said);
        });
        Self { listening, talks }
    }

    /// `127.0.0.1:4711`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listening.address
    }

    /// What the next client said, line by line, without the ends.
    #[track_caller]
    pub(crate) fn next(&self) -> Vec<String> {
        self.talks.recv_timeout(WITHIN).expect("nobody came")
    }
}

fn talk(stream: TcpStream, can: &[&str], taken: &str) -> (Vec<String>, Option<TcpStream>) {
    talk_on(stream, can, taken, true)
}

/// Speaks as a server does; gives the stream back where the client asked for TLS.
fn talk_on<S: Read + Write>(mut stream: S, can: &[&str], taken: &str, greets: bool) -> (Vec<String>, Option<S>) {
    let mut said = Vec::new();
    let mut in_data = false;
    if greets && stream.write_all(b"220 here ESMTP\r\n").is_err() {
        return (said, None);
    }
    while let Some(line) = line(&mut stream) {
        let answer = match line.split(' ').next().unwrap_or_default() {
            _ if in_data => {
                in_data = line != ".";
                if in_data { String::new() } else { taken.to_owned() }
            }
            "EHLO" => {
                let lines: Vec<String> = can.iter().map(|can| format!("250-{can}")).collect();
                [lines, vec!["250 8BITMIME".to_owned()]].concat().join("\r\n")
            }
            "STARTTLS" => "220 go".to_owned(),
            "AUTH" => "235 welcome".to_owned(),
            "DATA" => {
                in_data = true;
                "354 go".to_owned()
            }
            "QUIT" => "221 bye".to_owned(),
            _ => "250 ok".to_owned(),
        };
        let (starts_tls, quits) = (line == "STARTTLS", !in_data && line == "QUIT");
        said.push(line);
        if !answer.is_empty() && stream.write_all(format!("{answer}\r\n").as_bytes()).is_err() {
            break;
        }
        let _ = stream.flush();
        if starts_tls {
            return (said, Some(stream));
        }
        if quits {
            break;
        }
    }
    (said, None)
}

/// Byte for byte: what comes after a line may be another protocol.
fn line(stream: &mut impl Read) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) if byte[0] == b'\n' => break,
            Ok(1) => line.push(byte[0]),
            _ => return None,
        }
    }
    String::from_utf8(line).ok().map(|line| line.trim_end_matches('\r').to_owned())
}
