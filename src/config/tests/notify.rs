//! `[notify]`: what the document shows can be read, and means what it says.

use crate::config::notify::{FailureSign, MailTls};
use crate::config::{ChannelKind, Details, JobNotify, Occasion, Secret, Settings};
use crate::domain::operation::Operation;

const JOBS: &str = "
[vault.main]
url = \"/srv/vault\"
recipients = [\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\"]
[job.shop]
schedule = \"@daily\"
retention = { keep_at_least = \"14d\", delete_after = \"30d\" }
source.files = { kind = \"files\", paths = [\"/srv/shop\"] }
[job.mail]
schedule = \"@daily\"
retention = { keep_at_least = \"14d\", delete_after = \"30d\" }
source.files = { kind = \"files\", paths = [\"/srv/mail\"] }
";

#[test]
fn the_examples_of_the_document() {
    let document = include_str!("../../../docs/NOTIFICATIONS.md");
    let mut text = JOBS.to_owned();
    for block in document.split("```toml\n").skip(1) {
        text.push_str(block.split("```").next().unwrap());
    }
    let settings = Settings::parse(&text, "/etc/lifeboat/lifeboat.toml".as_ref()).unwrap();
    let notify = &settings.notify;
    let names: Vec<(&str, &str)> =
        notify.channels.values().map(|channel| (channel.name.as_str(), channel.kind.word())).collect();
    assert_eq!(
        names,
        [
            ("bot", "telegram"),
            ("chat", "slack"),
            ("ops", "email"),
            ("own", "command"),
            ("pager", "webhook"),
            ("phone", "ntfy")
        ]
    );
    let credential = |name: &str| Secret::Credential(name.to_owned());
    let of = |job: &str, operation| {
        let job: &JobNotify = &settings.jobs[&job.parse().unwrap()].notify;
        notify.heartbeat_of(job, operation).cloned()
    };
    assert_eq!(of("shop", Operation::Backup), Some(credential("heartbeat-url")));
    assert_eq!(of("shop", Operation::Drill), Some(credential("drill-heartbeat-url")));
    assert_eq!(of("mail", Operation::Backup), Some(credential("mail-heartbeat")));
    assert_eq!(of("mail", Operation::Drill), Some(credential("mail-drill-heartbeat")));
    assert_eq!(of("mail", Operation::Prune), None);
    assert_eq!(notify.failure_sign(), FailureSign::Fail);

    let chat = &notify.channels["chat"];
    assert_eq!(chat.on, [Occasion::Failure, Occasion::Recovery].into());
    assert_eq!((chat.jobs.len(), chat.details), (1, Details::Kept));
    assert_eq!(notify.channels["bot"].on, Occasion::CHOICES.into());
    let ChannelKind::Email(mail) = &notify.channels["ops"].kind else { panic!("{:?}", notify.channels["ops"]) };
    assert_eq!((mail.host.as_str(), mail.port, mail.tls), ("mail.example.com", 587, MailTls::StartTls));
    // Whoever starts the service hands in every secret.
    let (credentials, variables) = crate::schedules::handed_in(&settings, &[Operation::Backup]);
    assert_eq!(variables, ["PAGER_URL", "PAGER_TOKEN"]);
    for name in ["heartbeat-url", "drill-heartbeat-url", "mail-heartbeat", "smtp", "bot", "ntfy", "ntfy-topic"] {
        assert!(credentials.iter().any(|known| known == name), "{name} is not in {credentials:?}");
    }
}

#[test]
fn a_mail_server_has_the_port_of_its_kind() {
    for (server, tls, expected) in [
        ("mail.example.com", "starttls", ("mail.example.com", 587)),
        ("mail.example.com", "tls", ("mail.example.com", 465)),
        ("localhost", "none", ("localhost", 25)),
        ("[::1]:2525", "none", ("::1", 2525)),
    ] {
        let text = format!(
            "{JOBS}[notify.x]\nkind = \"email\"\nserver = \"{server}\"\ntls = \"{tls}\"\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]"
        );
        let settings = Settings::parse(&text, "/etc/lifeboat.toml".as_ref()).unwrap();
        let ChannelKind::Email(mail) = &settings.notify.channels["x"].kind else { panic!("{text}") };
        assert_eq!((mail.host.as_str(), mail.port), expected);
    }
}
