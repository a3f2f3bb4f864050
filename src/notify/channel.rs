//! What each kind of channel is sent, and how.

use std::collections::BTreeSet;

use age::secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::runtime::Handle;

use super::event::Event;
use super::heartbeat::Beat;
use super::http::{Post, post};
use super::{NotifyError, mail};
use crate::config::{ChannelKind, ChannelSettings, Secret};
use crate::process::Tool;

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";
/// ntfy's priorities: high, so that a phone speaks up, and its default.
const NTFY_TROUBLE: &str = "4";
const NTFY_GOOD: &str = "3";

/// Sends an event to a channel; blocks. Gives what was answered, with nothing of a secret in it.
///
/// # Errors
/// When it did not arrive.
pub fn send(runtime: &Handle, channel: &ChannelSettings, event: &Event) -> Result<String, NotifyError> {
    match &channel.kind {
        ChannelKind::Webhook { url, token, template } => {
            let document = event.document().to_string();
            let body = match template {
                None => document,
                Some(template) => template.fill(&event.texts(), &[("document", document)].into()),
            };
            let token = token.as_ref().map(Secret::read).transpose()?;
            post(&Post {
                url: &address(url)?,
                headers: bearer(token.as_ref()),
                content_type: JSON,
                body,
                secrets: shown(token.as_ref()),
            })
        }
        ChannelKind::Slack { url } => {
            // The three that Slack reads otherwise.
            let text = event.text().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let body = json!({ "text": text }).to_string();
            post(&Post { url: &address(url)?, headers: Vec::new(), content_type: JSON, body, secrets: Vec::new() })
        }
        ChannelKind::Telegram { token, chat, endpoint } => {
            let secret = token.read()?;
            let token_text = secret.expose_secret();
            let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_');
            if !token_text.chars().all(is_token) {
                return Err(NotifyError::NotOne { place: token.to_string(), what: "a bot's token" });
            }
            let url = SecretString::from(format!("{endpoint}/bot{token_text}/sendMessage"));
            // A number is one, or a text with digits: both are taken.
            let body = json!({ "chat_id": chat, "text": event.text() }).to_string();
            post(&Post {
                url: url.expose_secret(),
                headers: Vec::new(),
                content_type: JSON,
                body,
                secrets: vec![token_text],
            })
        }
        ChannelKind::Ntfy { url, token } => {
            let token = token.as_ref().map(Secret::read).transpose()?;
            let trouble = event.is_trouble();
            let mut headers = bearer(token.as_ref());
            headers.push(("Title", format!("lifeboat: {}", event.title())));
            headers.push(("Priority", if trouble { NTFY_TROUBLE } else { NTFY_GOOD }.to_owned()));
            headers.push(("Tags", if trouble { "warning" } else { "white_check_mark" }.to_owned()));
            let (url, body, secrets) = (address(url)?, event.text(), shown(token.as_ref()));
            post(&Post { url: &url, headers, content_type: PLAIN, body, secrets })
        }
        ChannelKind::Email(settings) => mail::send(settings, event),
        ChannelKind::Command { argv, timeout } => {
            let Some((program, args)) = argv.split_first() else {
                return Err(NotifyError::Unwritable { why: "no program is named".to_owned() });
            };
            let mut tool = Tool::new(program)
                .args(args)
                .deadline(*timeout)
                .stdin(format!("{}\n", event.document()))
                .env("LIFEBOAT_CHANNEL", &channel.name);
            for (name, value) in event.texts().into_iter().filter(|(_, value)| !value.is_empty()) {
                tool = tool.env(format!("LIFEBOAT_{}", name.to_uppercase()), value);
            }
            runtime.block_on(tool.run_to_success())?;
            Ok("exit status 0".to_owned())
        }
    }
}

/// Sends a beat; blocks.
///
/// # Errors
/// When it did not arrive.
pub fn beat(place: &Secret, beat: &Beat) -> Result<String, NotifyError> {
    let base = place.read()?;
    let url = beat.address(base.expose_secret(), place)?;
    post(&Post {
        url: &url,
        headers: Vec::new(),
        content_type: PLAIN,
        body: beat.body.clone(),
        secrets: vec![base.expose_secret()],
    })
}

/// Whether the beat goes to an address that none before it went to; one that cannot be told is.
pub fn is_new(place: &Secret, beat: &Beat, seen: &mut BTreeSet<String>) -> bool {
    let address = place.read().ok().and_then(|base| beat.address(base.expose_secret(), place).ok());
    // Without the run's name, which is another each time.
    address.is_none_or(|address| seen.insert(address.split("rid=").next().unwrap_or_default().to_owned()))
}

/// The address that a secret holds.
fn address(secret: &Secret) -> Result<String, NotifyError> {
    let text = secret.read()?;
    let text = text.expose_secret().trim();
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(text.to_owned()),
        _ => Err(NotifyError::NotOne { place: secret.to_string(), what: "an http address" }),
    }
}

fn bearer(token: Option<&SecretString>) -> Vec<(&'static str, String)> {
    token.map(|token| ("Authorization", format!("Bearer {}", token.expose_secret()))).into_iter().collect()
}

fn shown(token: Option<&SecretString>) -> Vec<&str> {
    token.map(ExposeSecret::expose_secret).into_iter().collect()
}
