//! Who is told what, and where: the heartbeat whose silence alarms, and the channels that are told of trouble.
//!
//! Addresses that let whoever knows them speak in our name (a heartbeat's, Slack's, ntfy's) are secrets like any other: the
//! settings say where they lie.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::secret::Secret;
use super::settings::secret_json;
use crate::domain::ids::JobName;
use crate::domain::operation::Operation;
use crate::domain::quantity::exact_duration;
use crate::domain::template::Template;

/// How long a channel's command may take, if the config does not say.
pub(super) const DEFAULT_COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// Where Telegram answers.
pub(super) const TELEGRAM: &str = "https://api.telegram.org";
/// What stands for texts in a template of one's own.
pub const TEMPLATE_TEXTS: [&str; 9] =
    ["summary", "title", "event", "host", "job", "operation", "outcome", "error_code", "at"];
/// What stands for whole JSON values there.
pub const TEMPLATE_VALUES: [&str; 1] = ["document"];

/// Why somebody is told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Occasion {
    /// A backup, copy, prune or check failed, or was partial.
    Failure,
    /// The first that went well after one that did not.
    Recovery,
    /// A run that the schedule promises did not come.
    Overdue,
    /// A drill failed, passed again, or took longer than its objective.
    Drill,
    /// Something that must be erased is on its way to its deadline.
    Erasure,
    /// Somebody wants to know whether this arrives.
    Test,
}

impl Occasion {
    /// Those that a channel can be told of or not.
    pub const CHOICES: [Self; 5] = [Self::Failure, Self::Recovery, Self::Overdue, Self::Drill, Self::Erasure];

    /// As it stands in configs and documents.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Recovery => "recovery",
            Self::Overdue => "overdue",
            Self::Drill => "drill",
            Self::Erasure => "erasure",
            Self::Test => "test",
        }
    }
}

/// Everything below `[notify]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotifySettings {
    /// `[notify.heartbeat]`.
    pub heartbeat: Option<HeartbeatSettings>,
    /// The channels, by name.
    pub channels: BTreeMap<String, ChannelSettings>,
}

/// The heartbeat of all jobs that have none of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatSettings {
    /// For backups.
    pub url: Option<Secret>,
    /// For drills.
    pub drill_url: Option<Secret>,
    /// How a failure is said.
    pub failure: FailureSign,
}

/// `[job.X.notify]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobNotify {
    /// The job's own, for backups.
    pub heartbeat: Option<Secret>,
    /// And for drills.
    pub drill_heartbeat: Option<Secret>,
}

/// How a heartbeat says that a run failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureSign {
    /// `URL/fail`.
    #[default]
    Fail,
    /// `URL/21`: the exit status that the command has.
    ExitStatus,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSettings {
    /// Its name in the config.
    pub name: String,
    /// What it is told of.
    pub on: BTreeSet<Occasion>,
    /// These jobs alone; empty is all.
    pub jobs: BTreeSet<JobName>,
    /// Whether texts of errors leave the host.
    pub details: Details,
    /// What it is.
    pub kind: ChannelKind,
}

/// Whether texts of errors, which may hold paths and names of data, leave the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Details {
    /// Job, operation, outcome, code, times and the host's name do, and nothing else.
    #[default]
    Kept,
    /// They do.
    Told,
}

/// What a channel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelKind {
    /// JSON to an address.
    Webhook {
        /// The address.
        url: Secret,
        /// Sent as `Authorization: Bearer …`.
        token: Option<Secret>,
        /// Another body than the document.
        template: Option<Template>,
    },
    /// An incoming webhook of Slack.
    Slack {
        /// Its address.
        url: Secret,
    },
    /// A Telegram bot.
    Telegram {
        /// The bot's token.
        token: Secret,
        /// The chat's number or `@name`.
        chat: String,
        /// Where the bot's API is.
        endpoint: String,
    },
    /// A topic of ntfy.
    Ntfy {
        /// The topic's address.
        url: Secret,
        /// An access token.
        token: Option<Secret>,
    },
    /// E-mail.
    Email(Box<EmailSettings>),
    /// A program of one's own.
    Command {
        /// It and its arguments; not empty.
        argv: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
}

/// How mail is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailSettings {
    /// The mail server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is spoken to.
    pub tls: MailTls,
    /// Name and password, where it wants them.
    pub login: Option<(String, Secret)>,
    /// Who writes.
    pub from: String,
    /// To whom; at least one.
    pub to: Vec<String>,
}

/// How a mail server is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MailTls {
    /// In clear, then TLS before anything is said; fails where the server has none.
    #[default]
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// In clear.
    None,
}

impl MailTls {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::StartTls, Self::Tls, Self::None];

    /// As it stands in a config.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::StartTls => "starttls",
            Self::Tls => "tls",
            Self::None => "none",
        }
    }

    /// The port where the config names none.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

impl ChannelKind {
    /// The kinds, as the config has them.
    pub const WORDS: [&str; 6] = ["webhook", "slack", "telegram", "ntfy", "email", "command"];

    /// As it stands in a config.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Telegram { .. } => "telegram",
            Self::Ntfy { .. } => "ntfy",
            Self::Email(_) => "email",
            Self::Command { .. } => "command",
        }
    }

    /// The secrets that it takes.
    #[must_use]
    pub fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::Webhook { url, token, .. } | Self::Ntfy { url, token } => {
                std::iter::once(url).chain(token.as_ref()).collect()
            }
            Self::Slack { url } => vec![url],
            Self::Telegram { token, .. } => vec![token],
            Self::Email(mail) => mail.login.iter().map(|(_, password)| password).collect(),
            Self::Command { .. } => Vec::new(),
        }
    }
}

impl ChannelSettings {
    fn to_json(&self) -> Value {
        let words: Vec<&str> = self.on.iter().map(|occasion| occasion.word()).collect();
        let mut json = json!({
            "kind": self.kind.word(),
            "on": words,
            "jobs": self.jobs,
            "details": self.details == Details::Told,
        });
        let more = match &self.kind {
            ChannelKind::Webhook { url, token, template } => json!({
                "url": secret_json(url),
                "token": token.as_ref().map(secret_json),
                "template": template.as_ref().map(Template::as_str),
            }),
            ChannelKind::Slack { url } => json!({ "url": secret_json(url) }),
            ChannelKind::Telegram { token, chat, endpoint } => {
                json!({ "token": secret_json(token), "chat": chat, "endpoint": endpoint })
            }
            ChannelKind::Ntfy { url, token } => {
                json!({ "url": secret_json(url), "token": token.as_ref().map(secret_json) })
            }
            ChannelKind::Email(mail) => json!({
                "server": format!("{}:{}", mail.host, mail.port),
                "tls": mail.tls.word(),
                "user": mail.login.as_ref().map(|(user, _)| user),
                "password": mail.login.as_ref().map(|(_, password)| secret_json(password)),
                "from": mail.from,
                "to": mail.to,
            }),
            ChannelKind::Command { argv, timeout } => json!({ "command": argv, "timeout": exact_duration(*timeout) }),
        };
        if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
            json.extend(more);
        }
        json
    }
}

impl JobNotify {
    /// As it can be read again; of secrets where they lie.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "heartbeat": self.heartbeat.as_ref().map(secret_json),
            "drill_heartbeat": self.drill_heartbeat.as_ref().map(secret_json),
        })
    }
}

impl NotifySettings {
    /// As it can be read again; of secrets where they lie.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let channels = self.channels.values().map(|channel| (channel.name.clone(), channel.to_json()));
        let mut json: serde_json::Map<String, Value> = channels.collect();
        if let Some(heartbeat) = &self.heartbeat {
            let heartbeat = json!({
                "url": heartbeat.url.as_ref().map(secret_json),
                "drill_url": heartbeat.drill_url.as_ref().map(secret_json),
                "exit_status": heartbeat.failure == FailureSign::ExitStatus,
            });
            json.insert("heartbeat".to_owned(), heartbeat);
        }
        json.into()
    }

    /// Whether nobody is told anything below `[notify]`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heartbeat.is_none() && self.channels.is_empty()
    }

    /// The address of a job's heartbeat: its own, or that of all.
    #[must_use]
    pub fn heartbeat_of<'a>(&'a self, job: &'a JobNotify, operation: Operation) -> Option<&'a Secret> {
        let all = self.heartbeat.as_ref();
        match operation {
            Operation::Backup => job.heartbeat.as_ref().or_else(|| all?.url.as_ref()),
            Operation::Drill => job.drill_heartbeat.as_ref().or_else(|| all?.drill_url.as_ref()),
            Operation::Copy | Operation::Prune | Operation::Check => None,
        }
    }

    /// How a heartbeat says that a run failed.
    #[must_use]
    pub fn failure_sign(&self) -> FailureSign {
        self.heartbeat.as_ref().map(|heartbeat| heartbeat.failure).unwrap_or_default()
    }

    /// Every secret below `[notify]`.
    #[must_use]
    pub fn secrets(&self) -> Vec<&Secret> {
        let of_heartbeat = self.heartbeat.iter().flat_map(|heartbeat| heartbeat.url.iter().chain(&heartbeat.drill_url));
        of_heartbeat.chain(self.channels.values().flat_map(|channel| channel.kind.secrets())).collect()
    }
}
