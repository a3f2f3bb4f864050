//! Each kind of channel against a receiver on this machine, byte for byte; the queue with receivers that come and go.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::runtime::Runtime;

use super::NotifyError;
use super::channel::{beat, send};
use super::courier::{Carried, Courier, Which};
use super::event::Event;
use super::event::tests::failed;
use super::heartbeat::{Beat, RunUuid, Sign};
use super::queue::Item;
use crate::clock::{Clock as _, ManualClock};
use crate::config::notify::{EmailSettings, MailTls, TEMPLATE_TEXTS, TEMPLATE_VALUES};
use crate::config::{ChannelKind, ChannelSettings, Details, Occasion, Secret, Settings};
use crate::domain::operation::Operation;
use crate::domain::template::Template;
use crate::error::{Diagnostic as _, chain};

#[expect(dead_code, reason = "shared with the integration tests, which speak TLS")]
#[path = "../../tests/servers/receivers.rs"]
mod receivers;

use receivers::{Mail, Web};

/// A folder with secrets in it.
struct Ground {
    folder: tempfile::TempDir,
    runtime: Runtime,
}

impl Ground {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), runtime: Runtime::new().unwrap() }
    }

    fn secret(&self, name: &str, value: &str) -> Secret {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("{value}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        Secret::File(path)
    }

    fn send(&self, kind: ChannelKind) -> Result<String, NotifyError> {
        self.send_event(kind, &failed())
    }

    fn send_event(&self, kind: ChannelKind, event: &Event) -> Result<String, NotifyError> {
        let on = Occasion::CHOICES.into();
        let channel =
            ChannelSettings { name: "ops".to_owned(), on, jobs: BTreeSet::new(), details: Details::Kept, kind };
        send(self.runtime.handle(), &channel, event)
    }
}

/// The head that every POST begins with.
fn head(path: &str, content_type: &str, more: &str, body: &str) -> String {
    let (version, length) = (env!("CARGO_PKG_VERSION"), body.len());
    format!(
        "POST {path} HTTP/1.1\r\nhost: HERE\r\nuser-agent: lifeboat/{version}\r\naccept: */*\r\n{more}content-type: \
         {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Headers may stand in any order, under names in any case.
#[track_caller]
fn assert_same(found: &str, expected: &str) {
    let sorted = |text: &str| {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let (first, headers) = head.split_once("\r\n").unwrap();
        let mut headers: Vec<String> = headers
            .split("\r\n")
            .map(|line| line.split_once(": ").map_or(line.to_owned(), |(k, v)| format!("{}: {v}", k.to_lowercase())))
            .collect();
        headers.sort();
        (first.to_owned(), headers, body.to_owned())
    };
    assert_eq!(sorted(found), sorted(expected));
}

const TEXT: &str = "backup of shop on web1 failed [source-unavailable]\n\nhost: web1\njob: shop\noperation: backup\n\
                    outcome: failed\nerror code: source-unavailable\nat: 2026-11-22 02:00:05 UTC\nlook: lifeboat status shop";

#[test]
fn a_webhook_gets_the_document_or_what_its_template_says() {
    let (ground, web) = (Ground::new(), Web::start());
    let url = ground.secret("url", &web.url("/hook?key=1"));
    let answer = ground.send(ChannelKind::Webhook { url: url.clone(), token: None, template: None });
    assert_eq!(answer.unwrap(), "200 ok");
    let document = failed().document().to_string();
    assert_same(&web.next(), &head("/hook?key=1", "application/json", "", &document));

    let text = r#"{"alert": "{summary}", "by": {"job": "{job}"}, "all": {document}}"#;
    let template = Some(Template::parse(text, &TEMPLATE_TEXTS, &TEMPLATE_VALUES).unwrap());
    let token = Some(ground.secret("token", "s3cret-token"));
    ground.send(ChannelKind::Webhook { url, token, template }).unwrap();
    let body = format!(
        r#"{{"alert": "backup of shop on web1 failed [source-unavailable]", "by": {{"job": "shop"}}, "all": {document}}}"#
    );
    assert_same(&web.next(), &head("/hook?key=1", "application/json", "authorization: Bearer s3cret-token\r\n", &body));
}

#[test]
fn slack_telegram_and_ntfy_get_what_they_read() {
    let (ground, web) = (Ground::new(), Web::start());
    let told = Event { details: Some("cannot open </srv> & co".to_owned()), ..failed() };
    let url = ground.secret("slack", &web.url("/services/T0/B0/X"));
    ground.send_event(ChannelKind::Slack { url }, &told).unwrap();
    let text = format!("{TEXT}\ndetails: cannot open &lt;/srv&gt; &amp; co").replace('\n', "\\n");
    assert_same(&web.next(), &head("/services/T0/B0/X", "application/json", "", &format!("{{\"text\":\"{text}\"}}")));

    let token = ground.secret("bot", "123456:AAbb-cc_dd");
    ground.send(ChannelKind::Telegram { token, chat: "-100200".to_owned(), endpoint: web.url("") }).unwrap();
    let body = format!("{{\"chat_id\":\"-100200\",\"text\":\"{}\"}}", TEXT.replace('\n', "\\n"));
    assert_same(&web.next(), &head("/bot123456:AAbb-cc_dd/sendMessage", "application/json", "", &body));

    let url = ground.secret("topic", &web.url("/secret-topic"));
    let token = Some(ground.secret("token", "tk_1234567"));
    ground.send(ChannelKind::Ntfy { url, token }).unwrap();
    let more = "authorization: Bearer tk_1234567\r\ntitle: lifeboat: backup of shop failed\r\npriority: 4\r\ntags: warning\r\n";
    assert_same(&web.next(), &head("/secret-topic", "text/plain; charset=utf-8", more, TEXT));
}

#[test]
fn a_mail_is_the_same_each_time_that_it_is_sent() {
    let (ground, mail) = (Ground::new(), Mail::start("250 2.0.0 taken as 4711"));
    let settings = EmailSettings {
        host: "127.0.0.1".to_owned(),
        port: mail.address().port(),
        tls: MailTls::None,
        login: None,
        from: "Backups <backups@example.com>".to_owned(),
        to: vec!["ops@example.com".to_owned(), "Night <night@example.com>".to_owned()],
    };
    let email = || ChannelKind::Email(Box::new(settings.clone()));
    assert_eq!(ground.send(email()).unwrap(), "250 2.0.0 taken as 4711");
    let talk = mail.next();
    let expected = format!(
        "EHLO web1\nMAIL FROM:<backups@example.com>\nRCPT TO:<ops@example.com>\nRCPT TO:<night@example.com>\n\
         DATA\nFrom: Backups <backups@example.com>\nSubject: lifeboat: backup of shop failed\n\
         Date: Sun, 22 Nov 2026 02:00:05 +0000\nMessage-ID: <00000000-0000-4000-8000-000000000001@web1>\n\
         Auto-Submitted: auto-generated\nContent-Type: text/plain; charset=utf-8\nTo: ops@example.com, Night \
         <night@example.com>\nContent-Transfer-Encoding: 7bit\n\n{TEXT}\n.\nQUIT"
    );
    assert_eq!(talk.join("\n"), expected);
    ground.send(email()).unwrap();
    assert_eq!(mail.next(), talk);

    let refusing = Mail::start("554 5.7.1 no");
    let settings = EmailSettings { port: refusing.address().port(), ..settings.clone() };
    let error = ground.send(ChannelKind::Email(Box::new(settings))).unwrap_err();
    assert!(matches!(&error, NotifyError::Refused { status: 554, .. }), "{error:?}");
}

#[test]
fn a_server_without_starttls_gets_nothing() {
    let (ground, mail) = (Ground::new(), Mail::start("250 2.0.0 taken as 4711"));
    let settings = EmailSettings {
        host: "127.0.0.1".to_owned(),
        port: mail.address().port(),
        tls: MailTls::StartTls,
        login: Some(("backups".to_owned(), ground.secret("password", "hunter22"))),
        from: "backups@example.com".to_owned(),
        to: vec!["ops@example.com".to_owned()],
    };
    let error = ground.send(ChannelKind::Email(Box::new(settings))).unwrap_err();
    assert!(!chain(&error).contains("hunter22"), "{}", chain(&error));
    assert!(mail.next().iter().all(|line| line.starts_with("EHLO") || line == "QUIT"));
}

#[test]
fn a_command_gets_facts_and_the_document() {
    let ground = Ground::new();
    let said = ground.folder.path().join("said");
    let script = format!("env | grep ^LIFEBOAT_ | sort > {0}; cat >> {0}", said.display());
    let run = |script: String, timeout| {
        let argv = vec!["sh".to_owned(), "-c".to_owned(), script];
        ground.send(ChannelKind::Command { argv, timeout: Duration::from_secs(timeout) })
    };
    assert_eq!(run(script, 60).unwrap(), "exit status 0");
    let expected = format!(
        "LIFEBOAT_AT=2026-11-22T02:00:05Z\nLIFEBOAT_CHANNEL=ops\nLIFEBOAT_ERROR_CODE=source-unavailable\n\
         LIFEBOAT_EVENT=failure\nLIFEBOAT_HOST=web1\nLIFEBOAT_JOB=shop\nLIFEBOAT_OPERATION=backup\nLIFEBOAT_OUTCOME=failed\n\
         LIFEBOAT_SUMMARY=backup of shop on web1 failed [source-unavailable]\nLIFEBOAT_TITLE=backup of shop failed\n{}\n",
        failed().document()
    );
    assert_eq!(fs::read_to_string(said).unwrap(), expected);
    let error = run("echo no line >&2; exit 3".to_owned(), 60).unwrap_err();
    assert!(chain(&error).contains("no line"), "{}", chain(&error));
    assert!(matches!(run("sleep 4711".to_owned(), 1), Err(NotifyError::Tool(_))));
}

#[test]
fn nothing_of_a_secret_is_in_what_is_said() {
    let (ground, web) = (Ground::new(), Web::start());
    let secrets = ["T0SECRET", "B0SECRET", "XXSECRETXX", "123456:BOTSECRET", "hunter22"];
    let slack = |url: &str| ChannelKind::Slack { url: ground.secret("slack", url) };
    let bot = |endpoint: String| ChannelKind::Telegram {
        token: ground.secret("bot", "123456:BOTSECRET"),
        chat: "1".to_owned(),
        endpoint,
    };
    let path = "/services/T0SECRET/B0SECRET/XXSECRETXX";
    // Whoever refuses a request likes to repeat it.
    web.answers("404 Not Found", "", &format!("no {path}, no {}", web.url(path)));
    let mut said = vec![ground.send(slack(&web.url(path))).unwrap_err()];
    web.answers("401 Unauthorized", "", "no /bot123456:BOTSECRET/sendMessage for 123456:BOTSECRET");
    said.extend([
        ground.send(bot(web.url(""))).unwrap_err(),
        ground.send(slack(&format!("not an address {path}"))).unwrap_err(),
        ground.send(slack("http://hunter22:hunter22@ not one /XXSECRETXX")).unwrap_err(),
        // Nobody there, and no such host.
        ground.send(slack(&format!("http://127.0.0.1:1{path}"))).unwrap_err(),
        ground.send(slack(&format!("http://hunter22.invalid{path}"))).unwrap_err(),
    ]);
    let token = ground.secret("bot", "123456:BOTSECRET /x");
    let odd = ChannelKind::Telegram { token, chat: "1".to_owned(), endpoint: web.url("") };
    said.push(ground.send(odd).unwrap_err());
    web.answers("302 Found", &format!("Location: {}\r\n", web.url("/elsewhere/XXSECRETXX")), "");
    said.push(ground.send(slack(&web.url(path))).unwrap_err());
    for error in said {
        let all = format!("{} {error:?} {:?}", chain(&error), error.hint());
        assert!(!secrets.iter().any(|secret| all.contains(secret)), "{all}");
    }
    assert_eq!(web.rest().len(), 3, "a redirect was followed");
}

fn beat_of(sign: Sign) -> Beat {
    let run = RunUuid::from_random(1);
    Beat { job: "shop".parse().unwrap(), operation: Operation::Backup, run, sign, body: "backup of shop\n".to_owned() }
}

#[test]
fn a_heartbeat_in_the_healthchecks_manner() {
    let (ground, web) = (Ground::new(), Web::start());
    let place = ground.secret("ping", &web.url("/ping/abc"));
    for (sign, path) in [
        (Sign::Start, "/ping/abc/start"),
        (Sign::Success, "/ping/abc"),
        (Sign::Fail, "/ping/abc/fail"),
        (Sign::Exit(3), "/ping/abc/3"),
        (Sign::Log, "/ping/abc/log"),
    ] {
        beat(&place, &beat_of(sign)).unwrap();
        let path = format!("{path}?rid=00000000-0000-4000-8000-000000000001");
        assert_same(&web.next(), &head(&path, "text/plain; charset=utf-8", "", "backup of shop\n"));
    }
}

/// A config with a webhook `chat`, another `mail` in its place, and a heartbeat.
fn settings(ground: &Ground, chat: &str, mail: &str, ping: &str) -> Settings {
    for (name, url) in [("chat", chat), ("mail", mail), ("ping", ping)] {
        ground.secret(name, url);
    }
    let text = r#"
state_dir = "state"
[vault.main]
url = "vault"
recipients = ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]
[job.shop]
schedule = "15 2 * * *"
retention = { keep_at_least = "14d", delete_after = "30d" }
[job.shop.source.files]
kind = "files"
paths = ["/srv"]
[notify.heartbeat]
url = { file = "ping" }
[notify.chat]
kind = "slack"
url = { file = "chat" }
[notify.mail]
kind = "webhook"
url = { file = "mail" }
"#;
    Settings::parse(text, &ground.folder.path().join("lifeboat.toml")).unwrap()
}

struct Post {
    ground: Ground,
    clock: Arc<ManualClock>,
    courier: Courier,
}

impl Post {
    fn new() -> Self {
        let ground = Ground::new();
        let clock = Arc::new(ManualClock::at("2026-11-22T02:00:05Z".parse().unwrap()));
        let folder: &Path = ground.folder.path();
        let courier = Courier::new(&folder.join("state"), ground.runtime.handle().clone(), clock.clone()).unwrap();
        Self { ground, clock, courier }
    }

    fn lay(&self, channels: &[&str]) {
        for (tie, channel) in channels.iter().enumerate() {
            let item = Item::event(channel, failed(), self.clock.now());
            self.courier.lay(&item, u32::try_from(tie).unwrap()).unwrap();
        }
    }

    fn waits(&self) -> Vec<(String, u32)> {
        self.courier.queue().items().unwrap().into_iter().map(|item| (item.channel, item.attempts)).collect()
    }
}

/// A receiver that is away delays nobody else's, keeps its own in order, and gets them when it is back.
#[test]
fn what_does_not_arrive_waits_and_is_counted() {
    let post = Post::new();
    let (chat, mail) = (Web::start(), Web::start());
    let address = mail.address();
    let settings = settings(&post.ground, &chat.url("/c"), &mail.url("/m"), "http://127.0.0.1:1/");
    drop(mail);
    post.lay(&["mail", "chat", "mail"]);
    let carried = post.courier.carry(&settings, Which::All).unwrap();
    assert_eq!(carried, Carried { arrived: 1, failed: 1 }, "the second mail was not even tried");
    assert_eq!(chat.next_post().0, "/c");
    assert_eq!(post.waits(), [("mail".to_owned(), 1), ("mail".to_owned(), 0)]);
    let memory = post.courier.memory().read().unwrap();
    assert_eq!((memory.channel("mail").failures, memory.channel("chat").failures), (1, 0));
    assert_eq!(memory.channel("chat").delivered, Some(post.clock.now()));
    assert!(memory.channel("mail").trouble.unwrap().contains("refused"));

    // Not before a minute is over, unless somebody asks for everything.
    let mail = Web::at(&address.to_string());
    post.courier.carry(&settings, Which::Due).unwrap();
    assert_eq!((mail.next_post().0.as_str(), post.waits()), ("/m", vec![("mail".to_owned(), 1)]));
    assert_eq!(post.courier.carry(&settings, Which::Due).unwrap(), Carried::default());
    post.clock.advance(Duration::from_secs(60));
    assert_eq!(post.courier.carry(&settings, Which::Due).unwrap().arrived, 1);
    assert_eq!((mail.next_post().0.as_str(), post.waits()), ("/m", vec![]));
    assert_eq!(post.courier.memory().read().unwrap().channel("mail").trouble, None);
}

#[test]
fn what_is_refused_holds_up_nothing_and_what_is_stale_is_given_up() {
    let post = Post::new();
    let (chat, ping) = (Web::start(), Web::start());
    let settings = settings(&post.ground, &chat.url("/c"), "http://127.0.0.1:1/", &ping.url("/p"));
    chat.answers("500 Oh", "", "no");
    post.lay(&["chat", "chat", "gone"]);
    for sign in [Sign::Start, Sign::Success] {
        post.courier.lay(&Item::beat(beat_of(sign), post.clock.now()), 9 + u32::from(sign == Sign::Success)).unwrap();
    }
    let carried = post.courier.carry(&settings, Which::All).unwrap();
    assert_eq!(carried, Carried { arrived: 2, failed: 2 });
    assert!(ping.next_post().0.starts_with("/p/start?rid=") && ping.next_post().0.starts_with("/p?rid="));
    assert_eq!(post.waits().len(), 2, "a channel that is not in the config gets nothing any more");
    post.clock.advance(Duration::from_secs(4 * 24 * 3600));
    assert_eq!(post.courier.carry(&settings, Which::All).unwrap(), Carried::default());
    assert_eq!(post.waits(), []);
    assert_eq!(post.courier.memory().read().unwrap().channel("chat").failures, 4);
}

/// Rounds beside the work: what is laid down while one goes on is carried before they end.
#[test]
fn rounds_end_when_everything_is_carried() {
    let post = Post::new();
    let chat = Web::start();
    let settings = Arc::new(settings(&post.ground, &chat.url("/c"), &chat.url("/m"), &chat.url("/p")));
    let rounds = post.courier.rounds(settings, Which::All).unwrap();
    for _ in 0..20 {
        post.clock.advance(Duration::from_millis(1));
        post.lay(&["chat", "mail"]);
        rounds.wake();
    }
    assert!(rounds.finish(Duration::from_secs(60)));
    assert_eq!((chat.rest().len(), post.waits()), (40, vec![]));
}

/// A moment, for tests that count.
fn at(minutes: i64) -> DateTime<Utc> {
    "2026-11-22T02:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::minutes(minutes)
}

#[test]
fn the_queue_outlives_the_process_and_holds_no_secret() {
    let post = Post::new();
    let settings =
        settings(&post.ground, "http://127.0.0.1:1/SECRET", "http://127.0.0.1:1/SECRET", "http://127.0.0.1:1/SECRET");
    post.lay(&["chat", "mail"]);
    post.courier.lay(&Item::beat(beat_of(Sign::Fail), at(0)), 7).unwrap();
    assert_eq!(post.courier.carry(&settings, Which::All).unwrap().failed, 3);
    let folder = post.ground.folder.path().join("state/notify");
    let mut files = vec![folder.join("memory.json")];
    files.extend(fs::read_dir(folder.join("queue")).unwrap().map(|entry| entry.unwrap().path()));
    assert_eq!(files.len(), 4);
    for file in files {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&file).unwrap().contains("SECRET"));
    }
    let other = Courier::new(
        &post.ground.folder.path().join("state"),
        post.ground.runtime.handle().clone(),
        post.clock.clone(),
    );
    assert_eq!(other.unwrap().queue().items().unwrap().len(), 3);
}
