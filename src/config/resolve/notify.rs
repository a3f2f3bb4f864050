//! `[notify.NAME]` and `[job.X.notify]`, from the image of the text to settings.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::super::file::{JobNotifyFile, Named, NotifyFile, SecretFile};
use super::super::notify::{
    ChannelKind, ChannelSettings, DEFAULT_COMMAND_TIMEOUT, Details, EmailSettings, FailureSign, HeartbeatSettings,
    JobNotify, MailTls, NotifySettings, Occasion, TELEGRAM, TEMPLATE_TEXTS, TEMPLATE_VALUES,
};
use super::super::secret::Secret;
use super::super::settings::JobSettings;
use super::{Resolver, Text};
use crate::domain::ids::JobName;
use crate::domain::quantity::exact_duration;
use crate::domain::template::Template;

/// The name of the table that is no channel.
const HEARTBEAT: &str = "heartbeat";
/// A notification that takes longer helps nobody.
const MAX_COMMAND_TIMEOUT: Duration = Duration::from_secs(5 * 60);

impl Resolver<'_, '_> {
    pub(super) fn job_notify(&mut self, image: JobNotifyFile) -> JobNotify {
        JobNotify {
            heartbeat: image.heartbeat.and_then(|secret| self.secret(secret)),
            drill_heartbeat: image.drill_heartbeat.and_then(|secret| self.secret(secret)),
        }
    }

    pub(super) fn notify(&mut self, image: Named<NotifyFile>, jobs: &BTreeMap<JobName, JobSettings>) -> NotifySettings {
        let mut settings = NotifySettings::default();
        for (name, mut table) in image {
            if name.get_ref() == HEARTBEAT {
                settings.heartbeat = self.heartbeat(&name.span(), table);
            } else if let Some(label) = self.name::<JobName>(&name) {
                // Named as jobs are: the name goes into labels and file names.
                let (on, for_jobs) = (self.occasions(table.on.take()), self.for_jobs(table.jobs.take(), jobs));
                let details = if table.details.take().unwrap_or(false) { Details::Told } else { Details::Kept };
                if let Some(kind) = self.channel(&name, table) {
                    let name = label.to_string();
                    let channel = ChannelSettings { name: name.clone(), on, jobs: for_jobs, details, kind };
                    settings.channels.insert(name, channel);
                }
            }
        }
        settings
    }

    fn heartbeat(&mut self, at: &Range<usize>, mut image: NotifyFile) -> Option<HeartbeatSettings> {
        let (url, drill_url) = (image.url.take(), image.drill_url.take());
        if url.is_none() && drill_url.is_none() {
            self.problems.at(at.clone(), "[notify.heartbeat] has neither `url` (for backups) nor `drill_url`");
        }
        let failure = match image.exit_status.take().map(Spanned::into_inner) {
            Some(true) => FailureSign::ExitStatus,
            Some(false) | None => FailureSign::Fail,
        };
        if let Some(kind) = image.kind.take() {
            self.problems.at(kind.span(), "[notify.heartbeat] has no `kind`: give a channel another name");
        }
        if image.on.take().is_some() || image.jobs.take().is_some() || image.details.take().is_some() {
            let message = "[notify.heartbeat] is told of every run, and of nothing else: it has no `on`, no `jobs` and no \
                           `details`; a job's own is `heartbeat` in [job.NAME.notify]";
            self.problems.at(at.clone(), message);
        }
        self.nothing_else(HEARTBEAT, &image);
        let url = url.and_then(|secret| self.secret(secret));
        let drill_url = drill_url.and_then(|secret| self.secret(secret));
        Some(HeartbeatSettings { url, drill_url, failure })
    }

    fn occasions(&mut self, on: Option<Spanned<Vec<Text>>>) -> BTreeSet<Occasion> {
        let Some(on) = on else { return Occasion::CHOICES.into() };
        if on.get_ref().is_empty() {
            self.problems.at(on.span(), "`on` is empty: nobody would ever be told anything");
        }
        let mut occasions = BTreeSet::new();
        for word in on.into_inner() {
            match Occasion::CHOICES.into_iter().find(|occasion| occasion.word() == word.get_ref()) {
                Some(occasion) => {
                    occasions.insert(occasion);
                }
                None => {
                    let known = Occasion::CHOICES.map(|occasion| format!("\"{}\"", occasion.word())).join(", ");
                    let plain = match word.get_ref().as_str() {
                        "success" => "; a success is what [notify.heartbeat] is for",
                        _ => "",
                    };
                    self.problems.at(word.span(), format!("`on` is a list of {known}{plain}"));
                }
            }
        }
        occasions
    }

    fn for_jobs(
        &mut self,
        names: Option<Spanned<Vec<Text>>>,
        jobs: &BTreeMap<JobName, JobSettings>,
    ) -> BTreeSet<JobName> {
        let Some(names) = names else { return BTreeSet::new() };
        if names.get_ref().is_empty() {
            self.problems.at(names.span(), "`jobs` is empty: nobody would ever be told anything; left out, it is all");
        }
        let mut found = BTreeSet::new();
        for name in names.into_inner() {
            match name.get_ref().parse::<JobName>().ok().filter(|name| jobs.contains_key(name)) {
                Some(name) => {
                    found.insert(name);
                }
                None => {
                    let known: Vec<&str> = jobs.keys().map(JobName::as_str).collect();
                    let message = format!("there is no job {:?}; there are: {}", name.get_ref(), known.join(", "));
                    self.problems.at(name.span(), message);
                }
            }
        }
        found
    }

    /// Takes what belongs to the channel's kind; anything that is left belongs to another one.
    fn channel(&mut self, name: &Text, mut image: NotifyFile) -> Option<ChannelKind> {
        let kinds = ChannelKind::WORDS.map(|word| format!("\"{word}\"")).join(", ");
        let Some(kind) = image.kind.take() else {
            let message = format!("[notify.{}] has no `kind`: one of {kinds}", name.get_ref());
            self.problems.at(name.span(), message);
            return None;
        };
        let at = name.span();
        let word = kind.get_ref().clone();
        let channel = match word.as_str() {
            "webhook" => {
                let url = self.needed(&at, &word, "url", image.url.take());
                let token = image.token.take().and_then(|secret| self.secret(secret));
                let template = image.template.take().and_then(|text| self.template(&text));
                url.map(|url| ChannelKind::Webhook { url, token, template })
            }
            "slack" => self.needed(&at, &word, "url", image.url.take()).map(|url| ChannelKind::Slack { url }),
            "telegram" => {
                let token = self.needed(&at, &word, "token", image.token.take());
                let chat = self.present(&at, &word, "chat", image.chat.take());
                let endpoint =
                    image.endpoint.take().map_or_else(|| TELEGRAM.to_owned(), |text| self.bot_endpoint(&text));
                token.zip(chat).map(|(token, chat)| ChannelKind::Telegram { token, chat, endpoint })
            }
            "ntfy" => {
                let url = self.needed(&at, &word, "url", image.url.take());
                let token = image.token.take().and_then(|secret| self.secret(secret));
                url.map(|url| ChannelKind::Ntfy { url, token })
            }
            "email" => self.email(&at, &mut image).map(|mail| ChannelKind::Email(Box::new(mail))),
            "command" => {
                let argv = image.command.take();
                if argv.is_none() {
                    self.problems.at(at.clone(), "a channel of kind = \"command\" has no `command`");
                }
                let timeout = image.timeout.take().map_or(DEFAULT_COMMAND_TIMEOUT, |text| {
                    let timeout = self.positive_duration("timeout", &text);
                    if timeout > MAX_COMMAND_TIMEOUT {
                        let most = exact_duration(MAX_COMMAND_TIMEOUT);
                        self.problems.at(text.span(), format!("`timeout` is at most {most}: others wait for it"));
                    }
                    timeout
                });
                argv.map(|argv| ChannelKind::Command { argv: self.argv("command", argv), timeout })
            }
            _ => {
                let heartbeat = match word.as_str() {
                    HEARTBEAT => "; a heartbeat is [notify.heartbeat], a job's own stands in [job.NAME.notify]",
                    _ => "",
                };
                self.problems.at(kind.span(), format!("there is no such kind; there are {kinds}{heartbeat}"));
                return None;
            }
        };
        self.nothing_else(&word, &image);
        channel
    }

    fn needed(
        &mut self,
        at: &Range<usize>,
        kind: &str,
        key: &str,
        secret: Option<Spanned<SecretFile>>,
    ) -> Option<Secret> {
        match secret {
            Some(secret) => self.secret(secret),
            None => {
                let message = format!(
                    "a channel of kind = \"{kind}\" has no `{key}`: {{ file = … }}, {{ env = … }} or {{ credential = … }}"
                );
                self.problems.at(at.clone(), message);
                None
            }
        }
    }

    fn present(&mut self, at: &Range<usize>, kind: &str, key: &str, text: Option<Text>) -> Option<String> {
        match text {
            Some(text) => {
                self.not_blank(key, &text);
                Some(text.into_inner())
            }
            None => {
                self.problems.at(at.clone(), format!("a channel of kind = \"{kind}\" has no `{key}`"));
                None
            }
        }
    }

    fn template(&mut self, text: &Text) -> Option<Template> {
        Template::parse(text.get_ref(), &TEMPLATE_TEXTS, &TEMPLATE_VALUES)
            .map_err(|error| self.problems.at(text.span(), error.to_string()))
            .ok()
    }

    fn bot_endpoint(&mut self, text: &Text) -> String {
        let address = text.get_ref().trim_end_matches('/');
        let is_http = url::Url::parse(address).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !is_http {
            self.problems.at(text.span(), "`endpoint` is an address such as \"https://api.telegram.org\"");
        }
        address.to_owned()
    }

    fn email(&mut self, at: &Range<usize>, image: &mut NotifyFile) -> Option<EmailSettings> {
        let tls = image.tls.take().map_or_else(MailTls::default, |text| {
            MailTls::ALL.into_iter().find(|tls| tls.word() == text.get_ref()).unwrap_or_else(|| {
                let words = MailTls::ALL.map(|tls| format!("\"{}\"", tls.word())).join(", ");
                self.problems.at(text.span(), format!("`tls` is one of {words}"));
                MailTls::default()
            })
        });
        let server_at = image.server.as_ref().map_or_else(|| at.clone(), Spanned::span);
        let server = self.present(at, "email", "server", image.server.take());
        let (host, port) = server.map(|server| self.server_name(&server, &server_at, tls)).unzip();
        let login = match (image.user.take(), image.password.take()) {
            (Some(user), Some(password)) => {
                let nearby = host.as_deref().is_some_and(is_loopback);
                if tls == MailTls::None && !nearby {
                    let message = "with tls = \"none\" the password would go over the network in clear";
                    self.problems.at_secret(password.span(), message);
                }
                self.secret(password).map(|password| (user.into_inner(), password))
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                self.problems.at(at.clone(), "`user` and `password` go together");
                None
            }
        };
        let from = self.present(at, "email", "from", image.from.take());
        if let Some(from) = &from {
            self.address_of(from, at);
        }
        let to = match image.to.take() {
            Some(to) if !to.get_ref().is_empty() => {
                to.get_ref().iter().for_each(|text| self.address_of(text.get_ref(), &text.span()));
                Some(to.into_inner().into_iter().map(Spanned::into_inner).collect())
            }
            _ => {
                self.problems.at(at.clone(), "a channel of kind = \"email\" has no `to`: [\"ops@example.com\"]");
                None
            }
        };
        Some(EmailSettings { host: host?, port: port?, tls, login, from: from?, to: to? })
    }

    /// `mail.example.com`, `mail.example.com:587`, `[::1]:25`.
    fn server_name(&mut self, text: &str, at: &Range<usize>, tls: MailTls) -> (String, u16) {
        let parsed = url::Url::parse(&format!("smtp://{text}"))
            .ok()
            .filter(|url| url.path().is_empty() && url.username().is_empty() && url.password().is_none());
        let host = parsed.as_ref().and_then(|url| url.host_str()).filter(|host| !host.is_empty());
        match host {
            Some(host) => {
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                (host, parsed.as_ref().and_then(url::Url::port).unwrap_or(tls.port()))
            }
            None => {
                self.problems.at(at.clone(), "`server` is a name, or a name and a port: \"mail.example.com:587\"");
                (String::new(), tls.port())
            }
        }
    }

    fn address_of(&mut self, text: &str, at: &Range<usize>) {
        if text.parse::<lettre::message::Mailbox>().is_err() {
            let message = "this is no mail address: \"ops@example.com\", or \"Backups <backups@example.com>\"";
            self.problems.at(at.clone(), message);
        }
    }

    /// What was not taken belongs to another kind.
    fn nothing_else(&mut self, kind: &str, image: &NotifyFile) {
        for (key, at, only) in image.there() {
            let whose = if kind == HEARTBEAT { "[notify.heartbeat]".to_owned() } else { format!("kind = \"{kind}\"") };
            self.problems.at(at, format!("{whose} has no `{key}`: it belongs to {only}"));
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
