//! A hostile network between a client and a real S3 server: an HTTP/1.1 proxy on loopback, which delays, counts, and by a
//! plan of the test's answers itself, cuts, swallows, shortens, falls silent and lies. What it passes on it passes on byte
//! for byte, the `Host` header too, so that signatures stay valid. It knows nothing of the program under test, and needs
//! nothing but the standard library. No TLS.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A request's or an answer's first lines.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// What is held of a body where a fault wants all of it.
const MAX_HELD_BYTES: usize = 64 << 20;
/// Listings that are remembered, to be told again when they are stale.
const MAX_REMEMBERED: usize = 256;
const BUFFER_BYTES: usize = 64 << 10;
/// How long [`Proxy::wait_for`] waits.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Put,
    Get,
    Head,
    /// A page of keys or versions.
    List,
    Delete,
    /// Many at once.
    DeleteMany,
    /// A part of a multipart upload, or the list of them.
    Multipart,
    /// Retention or legal hold of one object.
    Lock,
    /// Asks about the bucket, or changes it.
    Bucket,
}

/// A request, as it went by.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) method: String,
    /// The path's first component.
    pub(crate) bucket: String,
    /// The rest of the path.
    pub(crate) key: String,
    /// After the `?`, as it was sent.
    pub(crate) query: String,
    /// Lines after the first, as they were sent.
    pub(crate) headers: Vec<String>,
}

impl Request {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// What happens to a request that is chosen for it.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The server never hears of it; this is the answer, with S3's code: `503, "SlowDown"`.
    Refuse(u16, &'static str),
    /// The connection is cut after so many bytes of the request's body were passed on.
    CutRequest(u64),
    /// The server does it, and the connection is cut after so many bytes of the answer's body.
    CutAnswer(u64),
    /// The server does it; nobody is told, the connection is cut.
    Swallow,
    /// The answer's body ends after so many bytes, and its length says that this is all.
    Truncate(usize),
    /// One bit of the answer's body is another.
    Flip,
    /// Neither passed on nor answered, for ever.
    Silence,
    /// The answer that the same request got last before this fault was planned. Where there was none it is passed on.
    Stale,
    /// The server never hears of it; the answer says that all is done.
    Lie,
    /// The answer's `Date` is so many seconds off.
    ShiftDate(i64),
}

/// How many of the requests that fit are hit: none of the first, then some.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) skip: usize,
    pub(crate) hit: usize,
}

/// Every one that fits.
pub(crate) const ALWAYS: Times = Times { skip: 0, hit: usize::MAX };
/// The first that fits.
pub(crate) const ONCE: Times = Times { skip: 0, hit: 1 };

/// The first so many that fit.
pub(crate) fn times(hit: usize) -> Times {
    Times { skip: 0, hit }
}

/// Every one that fits, after so many of them.
pub(crate) fn after(skip: usize) -> Times {
    Times { skip, hit: usize::MAX }
}

struct Rule {
    fits: Box<dyn Fn(&Request) -> bool + Send>,
    times: Times,
    fault: Fault,
    /// What listings said when it was planned.
    remembered: HashMap<String, Vec<u8>>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    seen: Vec<Request>,
    hits: usize,
    latency: Duration,
    listings: HashMap<String, Vec<u8>>,
    /// Ends of connections, by a number, to cut them when the proxy goes.
    open: HashMap<u64, TcpStream>,
    opened: u64,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Remembers a connection until the number is closed; cut at once where the proxy is gone already.
    fn open(&self, stream: &TcpStream) -> io::Result<u64> {
        let copy = stream.try_clone()?;
        let mut state = self.state();
        state.opened += 1;
        let number = state.opened;
        if self.has_ended() {
            copy.shutdown(Shutdown::Both)?;
        }
        state.open.insert(number, copy);
        Ok(number)
    }

    fn close(&self, number: u64) {
        self.state().open.remove(&number);
    }
}

/// A proxy before one server, until it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl Proxy {
    /// One that changes nothing yet, on a port of its own.
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::default(),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
        });
        let listening = thread::spawn({
            let shared = Arc::clone(&shared);
            move || listen(&listener, &shared)
        });
        Self { address, shared, listening: Some(listening) }
    }

    /// What clients are told to talk to.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What each request waits before it is passed on.
    pub(crate) fn delay(&self, latency: Duration) {
        self.shared.state().latency = latency;
    }

    /// Plans a fault for requests that fit. Of several plans that fit, the first that still hits is taken.
    pub(crate) fn plan(&self, times: Times, fault: Fault, fits: impl Fn(&Request) -> bool + Send + 'static) {
        let mut state = self.shared.state();
        let remembered = if matches!(fault, Fault::Stale) { state.listings.clone() } else { HashMap::new() };
        state.rules.push(Rule { fits: Box::new(fits), times, fault, remembered });
    }

    /// Forgets all plans. What is silent stays so.
    pub(crate) fn relent(&self) {
        self.shared.state().rules.clear();
    }

    /// How many requests were hit by a plan so far.
    pub(crate) fn hits(&self) -> usize {
        self.shared.state().hits
    }

    /// Every request since the last [`forget`](Self::forget), those that were hit too.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.shared.state().seen.clone()
    }

    /// How many requests of a kind that is.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.shared.state().seen.iter().filter(|request| request.kind == kind).count()
    }

    /// How many requests of any kind.
    pub(crate) fn total(&self) -> usize {
        self.shared.state().seen.len()
    }

    /// Begins to count anew.
    pub(crate) fn forget(&self) {
        self.shared.state().seen.clear();
    }

    /// Waits until so many requests were hit by a plan.
    #[track_caller]
    pub(crate) fn wait_for_hits(&self, hits: usize) {
        self.wait_for("hits", |state| state.hits >= hits);
    }

    #[track_caller]
    fn wait_for(&self, what: &str, done: impl Fn(&State) -> bool) {
        let until = Instant::now() + PATIENCE;
        let mut state = self.shared.state();
        while !done(&state) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited for {what} at the proxy: {} hits, {} seen", state.hits, state.seen.len());
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for stream in self.shared.state().open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
        // Wakes whoever listens.
        let _ = TcpStream::connect(self.address);
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.has_ended() {
            return;
        }
        let Ok(client) = client else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            if let Ok(number) = shared.open(&client) {
                // A connection that breaks is what this is for.
                let _ = serve(&client, &shared);
                let _ = client.shutdown(Shutdown::Both);
                shared.close(number);
            }
        });
    }
}

/// One connection of a client, and the one to the server that belongs to it.
fn serve(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut from = BufReader::with_capacity(BUFFER_BYTES, client);
    let mut server = None;
    while let Some(head) = Head::read(&mut from)? {
        let request = request(&head)?;
        let (fault, latency) = choose(shared, &request);
        thread::sleep(latency);
        let connection = match server.take() {
            Some(connection) => connection,
            None => Connection::open(shared)?,
        };
        let goes_on = match fault {
            Some(Chosen { fault: Fault::Silence, .. }) => return silence(shared),
            Some(Chosen { fault: Fault::Refuse(status, code), .. }) => refuse(&head, &mut from, client, status, code),
            Some(Chosen { fault: Fault::Lie, .. }) => lie(&request, &head, &mut from, client),
            other => pass(&connection, &request, &head, &mut from, client, shared, other.as_ref()),
        }?;
        match goes_on {
            Then::GoOn => server = Some(connection),
            Then::Cut => return Ok(()),
        }
    }
    Ok(())
}

/// Whether the connection is still good for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Cut,
}

struct Chosen {
    fault: Fault,
    stale: Option<Vec<u8>>,
}

fn choose(shared: &Shared, request: &Request) -> (Option<Chosen>, Duration) {
    let mut state = shared.state();
    state.seen.push(request.clone());
    let mut chosen = None;
    for rule in &mut state.rules {
        if rule.times.hit == 0 || !(rule.fits)(request) {
            continue;
        }
        if rule.times.skip > 0 {
            rule.times.skip -= 1;
            continue;
        }
        let stale = rule.remembered.get(&listing(request)).cloned();
        if matches!(rule.fault, Fault::Stale) && stale.is_none() {
            continue;
        }
        rule.times.hit = rule.times.hit.saturating_sub(1);
        chosen = Some(Chosen { fault: rule.fault.clone(), stale });
        break;
    }
    if chosen.is_some() {
        state.hits += 1;
    }
    let latency = state.latency;
    drop(state);
    shared.changed.notify_all();
    (chosen, latency)
}

fn listing(request: &Request) -> String {
    format!("{}?{}", request.bucket, request.query)
}

/// Says nothing until the proxy goes.
fn silence(shared: &Shared) -> io::Result<()> {
    let mut state = shared.state();
    while !shared.has_ended() {
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    Ok(())
}

/// A connection to the server.
struct Connection<'a> {
    stream: TcpStream,
    number: u64,
    shared: &'a Shared,
}

impl<'a> Connection<'a> {
    fn open(shared: &'a Shared) -> io::Result<Self> {
        let stream = TcpStream::connect(shared.upstream)?;
        stream.set_nodelay(true)?;
        let number = shared.open(&stream)?;
        Ok(Self { stream, number, shared })
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.shared.close(self.number);
    }
}

/// Passes a request on, and what the server says to it, with a fault or without.
fn pass(
    server: &Connection<'_>,
    request: &Request,
    head: &Head,
    from: &mut BufReader<&TcpStream>,
    client: &TcpStream,
    shared: &Shared,
    chosen: Option<&Chosen>,
) -> io::Result<Then> {
    let fault = chosen.map(|chosen| &chosen.fault);
    let mut to = &server.stream;
    let mut answers = BufReader::with_capacity(BUFFER_BYTES, &server.stream);
    to.write_all(&head.bytes)?;
    let waits = request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
    let mut early = None;
    if waits {
        let said = Head::must(&mut answers)?;
        if said.status()? == 100 {
            (&mut &*client).write_all(&said.bytes)?;
        } else {
            early = Some(said);
        }
    }
    let mut then = Then::GoOn;
    if early.is_some() {
        // The client does not send the body then, or it does: nobody can tell where the next request begins.
        then = Then::Cut;
    } else if let Some(Fault::CutRequest(bytes)) = fault {
        let some = Sink { inner: &mut to, left: Some(*bytes) };
        let _ = body(from, head.request_length()?, some);
        let _ = server.stream.shutdown(Shutdown::Both);
        return Ok(Then::Cut);
    } else {
        match body(from, head.request_length()?, Sink { inner: &mut to, left: None }) {
            Ok(()) => {}
            // The server may have answered before it had read everything.
            Err(Broken::To(_)) => then = Then::Cut,
            Err(Broken::From(error)) => return Err(error),
        }
    }
    let answer = match early {
        Some(answer) => answer,
        None => loop {
            let answer = Head::must(&mut answers)?;
            if answer.status()? != 100 {
                break answer;
            }
        },
    };
    let length = answer.answer_length(&request.method)?;
    if matches!(length, Length::UntilClosed) || says_close(&answer) || says_close(head) {
        then = Then::Cut;
    }
    let mut client = client;
    match fault {
        Some(Fault::Swallow) => {
            finish(&mut answers, length)?;
            return Ok(Then::Cut);
        }
        Some(Fault::CutAnswer(bytes)) => {
            client.write_all(&answer.bytes)?;
            let _ = body(&mut answers, length, Sink { inner: &mut client, left: Some(*bytes) });
            return Ok(Then::Cut);
        }
        Some(Fault::Truncate(bytes)) => {
            let held = held(&mut answers, length)?;
            let kept = &held[..held.len().min(*bytes)];
            client.write_all(&answer.with_length(kept.len()))?;
            client.write_all(kept)?;
        }
        Some(Fault::Flip) => {
            let mut held = held(&mut answers, length)?;
            let middle = held.len() / 2;
            held.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
            client.write_all(&answer.with_length(held.len()))?;
            client.write_all(&held)?;
        }
        Some(Fault::Stale) => {
            finish(&mut answers, length)?;
            let stale = chosen.and_then(|chosen| chosen.stale.as_deref()).unwrap_or_default();
            client.write_all(&answer.with_length(stale.len()))?;
            client.write_all(stale)?;
        }
        _ if request.kind == Kind::List => {
            let held = held(&mut answers, length)?;
            remember(shared, request, &held);
            client.write_all(&answer.shifted(fault).with_length(held.len()))?;
            client.write_all(&held)?;
        }
        _ => {
            client.write_all(&answer.shifted(fault).bytes)?;
            body(&mut answers, length, Sink { inner: &mut client, left: None })?;
        }
    }
    Ok(then)
}

fn remember(shared: &Shared, request: &Request, body: &[u8]) {
    let mut state = shared.state();
    let key = listing(request);
    if state.listings.len() < MAX_REMEMBERED || state.listings.contains_key(&key) {
        state.listings.insert(key, body.to_vec());
    }
}

/// Answers in the server's place that it will not.
fn refuse(
    head: &Head,
    from: &mut BufReader<&TcpStream>,
    mut client: &TcpStream,
    status: u16,
    code: &str,
) -> io::Result<Then> {
    take_body(head, from, client)?;
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{code}, says the proxy of the test</Message><RequestId>1</RequestId></Error>"
    );
    // A HEAD's answer has no body, whatever its status.
    let xml = if head.first_word() == "HEAD" { "" } else { &xml };
    write!(client, "HTTP/1.1 {status} Refused\r\nContent-Type: application/xml\r\n")?;
    write!(client, "Content-Length: {}\r\n\r\n{xml}", xml.len())?;
    Ok(Then::GoOn)
}

/// Answers in the server's place that it is done.
fn lie(request: &Request, head: &Head, from: &mut BufReader<&TcpStream>, mut client: &TcpStream) -> io::Result<Then> {
    let sent = take_body(head, from, client)?;
    if request.kind == Kind::Delete {
        client.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        return Ok(Then::GoOn);
    }
    let xml = if request.kind == Kind::DeleteMany {
        let text = String::from_utf8_lossy(&sent);
        let quiet = text.contains("<Quiet>true</Quiet>");
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        let deleted: String = keys.map(|(key, _)| format!("<Deleted><Key>{key}</Key></Deleted>")).collect();
        format!("<DeleteResult>{}</DeleteResult>", if quiet { "" } else { &deleted })
    } else {
        String::new()
    };
    write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{xml}", xml.len())?;
    Ok(Then::GoOn)
}

/// Reads what the server is not to see.
fn take_body(head: &Head, from: &mut BufReader<&TcpStream>, mut client: &TcpStream) -> io::Result<Vec<u8>> {
    if header(&head.headers, "expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    held(from, head.request_length()?)
}

/// The first lines of a request or an answer.
struct Head {
    bytes: Vec<u8>,
    first: String,
    headers: Vec<String>,
}

impl Head {
    /// `None` where the connection ends before it begins.
    fn read(from: &mut BufReader<&TcpStream>) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            let limit = (MAX_HEAD_BYTES - before) as u64;
            if from.take(limit).read_until(b'\n', &mut bytes)? == 0 {
                return if bytes.is_empty() { Ok(None) } else { Err(bad("a head has no end")) };
            }
            if matches!(&bytes[before..], b"\r\n" | b"\n") {
                break;
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines().take_while(|line| !line.is_empty()).map(str::to_owned);
        let first = lines.next().unwrap_or_default();
        let headers = lines.collect();
        Ok(Some(Self { bytes, first, headers }))
    }

    fn must(from: &mut BufReader<&TcpStream>) -> io::Result<Self> {
        Self::read(from)?.ok_or_else(|| bad("no answer"))
    }

    fn first_word(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    fn status(&self) -> io::Result<u16> {
        self.first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| bad("no status"))
    }

    fn request_length(&self) -> io::Result<Length> {
        match self.length()? {
            Length::UntilClosed => Ok(Length::Bytes(0)),
            length => Ok(length),
        }
    }

    fn answer_length(&self, method: &str) -> io::Result<Length> {
        let status = self.status()?;
        if method == "HEAD" || status == 204 || status == 304 { Ok(Length::Bytes(0)) } else { self.length() }
    }

    fn length(&self) -> io::Result<Length> {
        if header(&self.headers, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok(Length::Chunked);
        }
        match header(&self.headers, "content-length") {
            Some(length) => length.parse().map(Length::Bytes).map_err(|_| bad("an odd length")),
            None => Ok(Length::UntilClosed),
        }
    }

    /// The same for a body of this length.
    fn with_length(&self, length: usize) -> Vec<u8> {
        let mut lines = vec![self.first.clone()];
        let is_length = |line: &str| {
            let name = line.split(':').next().unwrap_or_default();
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        };
        lines.extend(self.headers.iter().filter(|line| !is_length(line)).cloned());
        lines.push(format!("Content-Length: {length}\r\n\r\n"));
        lines.join("\r\n").into_bytes()
    }

    /// The same with another date, where the fault is that one.
    fn shifted(&self, fault: Option<&Fault>) -> Self {
        let shift = |line: &String| match (fault, line.split_once(": ")) {
            (Some(Fault::ShiftDate(seconds)), Some((name, date))) if name.eq_ignore_ascii_case("date") => {
                format!("{name}: {}", shifted_date(date, *seconds).unwrap_or_else(|| date.to_owned()))
            }
            _ => line.clone(),
        };
        let headers: Vec<String> = self.headers.iter().map(shift).collect();
        let bytes = if headers == self.headers {
            self.bytes.clone()
        } else {
            format!("{}\r\n{}\r\n\r\n", self.first, headers.join("\r\n")).into_bytes()
        };
        Self { bytes, first: self.first.clone(), headers }
    }
}

fn request(head: &Head) -> io::Result<Request> {
    let mut words = head.first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(bad("no request")) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let asks = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
    let kind = match (method, key.is_empty()) {
        _ if asks("uploads") || asks("uploadId") => Kind::Multipart,
        (_, false) if asks("retention") || asks("legal-hold") => Kind::Lock,
        ("POST", true) if asks("delete") => Kind::DeleteMany,
        ("GET", true) if asks("list-type") || asks("versions") || asks("prefix") => Kind::List,
        (_, true) => Kind::Bucket,
        ("GET", false) => Kind::Get,
        ("HEAD", false) => Kind::Head,
        ("DELETE", false) => Kind::Delete,
        (_, false) => Kind::Put,
    };
    Ok(Request {
        kind,
        method: method.to_owned(),
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        query: query.to_owned(),
        headers: head.headers.clone(),
    })
}

/// How far a body goes.
#[derive(Debug, Clone, Copy)]
enum Length {
    Bytes(u64),
    Chunked,
    UntilClosed,
}

/// Which end broke.
enum Broken {
    From(io::Error),
    To(io::Error),
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::From(error) | Broken::To(error) => error,
        }
    }
}

/// Where a body goes to, all of it or its beginning.
struct Sink<'a, W: io::Write> {
    inner: &'a mut W,
    left: Option<u64>,
}

impl<W: io::Write> Sink<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let Some(left) = &mut self.left else { return self.inner.write_all(bytes).map_err(Broken::To) };
        let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        self.inner.write_all(&bytes[..taken]).map_err(Broken::To)?;
        *left -= taken as u64;
        if taken < bytes.len() { Err(Broken::To(bad("cut"))) } else { Ok(()) }
    }
}

/// Passes a body on as it is framed.
fn body<W: io::Write>(from: &mut BufReader<&TcpStream>, length: Length, mut to: Sink<'_, W>) -> Result<(), Broken> {
    match length {
        Length::Bytes(bytes) => some(from, bytes, &mut |part| to.write(part)),
        Length::UntilClosed => {
            let mut buffer = vec![0; BUFFER_BYTES];
            loop {
                match from.read(&mut buffer).map_err(Broken::From)? {
                    0 => return Ok(()),
                    read => to.write(&buffer[..read])?,
                }
            }
        }
        Length::Chunked => loop {
            let line = line(from)?;
            to.write(&line)?;
            let size = chunk_size(&line)?;
            some(from, size, &mut |part| to.write(part))?;
            if size == 0 {
                // Trailers, up to an empty line.
                loop {
                    let line = self::line(from)?;
                    to.write(&line)?;
                    if matches!(&line[..], b"\r\n" | b"\n") {
                        return Ok(());
                    }
                }
            }
            to.write(&self::line(from)?)?;
        },
    }
}

/// Passes so many bytes on.
fn some(
    from: &mut BufReader<&TcpStream>,
    bytes: u64,
    to: &mut dyn FnMut(&[u8]) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let mut left = bytes;
    while left > 0 {
        let buffer = from.fill_buf().map_err(Broken::From)?;
        if buffer.is_empty() {
            return Err(Broken::From(bad("a body is too short")));
        }
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        to(&buffer[..taken])?;
        from.consume(taken);
        left -= taken as u64;
    }
    Ok(())
}

fn line(from: &mut BufReader<&TcpStream>) -> Result<Vec<u8>, Broken> {
    let mut line = Vec::new();
    match from.take(MAX_HEAD_BYTES as u64).read_until(b'\n', &mut line) {
        Ok(0) => Err(Broken::From(bad("a body is too short"))),
        Ok(_) => Ok(line),
        Err(error) => Err(Broken::From(error)),
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, Broken> {
    let text = String::from_utf8_lossy(line);
    let digits = text.trim().split(';').next().unwrap_or_default();
    u64::from_str_radix(digits, 16).map_err(|_| Broken::From(bad("an odd chunk")))
}

/// A whole body, without its framing.
fn held(from: &mut BufReader<&TcpStream>, length: Length) -> io::Result<Vec<u8>> {
    let mut held = Vec::new();
    let mut keep = |part: &[u8]| {
        if held.len() + part.len() > MAX_HELD_BYTES {
            return Err(Broken::To(bad("a body is too long to hold")));
        }
        held.extend_from_slice(part);
        Ok(())
    };
    match length {
        Length::Bytes(bytes) => some(from, bytes, &mut keep)?,
        Length::UntilClosed => {
            from.take(MAX_HELD_BYTES as u64).read_to_end(&mut held)?;
        }
        Length::Chunked => loop {
            let size = chunk_size(&line(from)?)?;
            some(from, size, &mut keep)?;
            let end = line(from)?;
            if size == 0 {
                let mut end = end;
                while !matches!(&end[..], b"\r\n" | b"\n") {
                    end = line(from)?;
                }
                break;
            }
        },
    }
    Ok(held)
}

/// Reads an answer to its end, so that the server has surely done what it was asked for.
fn finish(from: &mut BufReader<&TcpStream>, length: Length) -> io::Result<()> {
    held(from, length).map(drop)
}

fn says_close(head: &Head) -> bool {
    header(&head.headers, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
}

fn header<'a>(headers: &'a [String], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// `Sun, 22 Nov 2026 17:24:39 GMT`, some seconds later or earlier.
fn shifted_date(date: &str, seconds: i64) -> Option<String> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let words: Vec<&str> = date.split([' ', ',', ':']).filter(|word| !word.is_empty()).collect();
    let [_, day, month, year, hours, minutes, rest, _] = words[..] else { return None };
    let month = 1 + i64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()?;
    let number = |text: &str| text.parse::<i64>().ok();
    let clock = number(hours)? * 3600 + number(minutes)? * 60 + number(rest)?;
    let then = days_from_civil(number(year)?, month, number(day)?) * 86_400 + clock + seconds;
    let (days, clock) = (then.div_euclid(86_400), then.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let name = DAYS[usize::try_from(days.rem_euclid(7)).ok()?];
    let month = MONTHS[usize::try_from(month - 1).ok()?];
    let (hours, minutes, seconds) = (clock / 3600, clock / 60 % 60, clock % 60);
    Some(format!("{name}, {day:02} {month} {year} {hours:02}:{minutes:02}:{seconds:02} GMT"))
}

/// Days since 1970 of a date of the Gregorian calendar; years begin in March, so that the odd day is the last one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// The other way round.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
