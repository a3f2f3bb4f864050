//! One mail by SMTP. STARTTLS is demanded where it is meant: a server that does not have it gets nothing.

use std::time::SystemTime;

use age::secrecy::ExposeSecret;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{SmtpTransport, Transport as _};

use super::event::Event;
use super::scrub::scrubbed;
use super::{NotifyError, SEND_WITHIN};
use crate::config::notify::{EmailSettings, MailTls};

/// Sends it; gives what the server said last.
pub(super) fn send(settings: &EmailSettings, event: &Event) -> Result<String, NotifyError> {
    let message = message(settings, event)?;
    let password = settings.login.as_ref().map(|(_, password)| password.read()).transpose()?;
    let hidden: Vec<&str> = password.iter().map(ExposeSecret::expose_secret).collect();
    let failed = |error: lettre::transport::smtp::Error| {
        let why = scrubbed(&error.to_string(), &hidden);
        match error.status() {
            Some(status) => NotifyError::Refused { status: u16::from(status), said_too: why },
            None => NotifyError::Unreachable { why },
        }
    };
    let tls = || TlsParameters::new_rustls(settings.host.clone()).map_err(failed);
    let mut transport = SmtpTransport::builder_dangerous(&settings.host)
        .port(settings.port)
        .hello_name(ClientId::Domain(ascii(&event.host)))
        .timeout(Some(SEND_WITHIN))
        .tls(match settings.tls {
            MailTls::StartTls => Tls::Required(tls()?),
            MailTls::Tls => Tls::Wrapper(tls()?),
            MailTls::None => Tls::None,
        });
    if let (Some((user, _)), Some(password)) = (&settings.login, &password) {
        transport = transport.credentials(Credentials::new(user.clone(), password.expose_secret().to_owned()));
    }
    let response = transport.build().send(&message).map_err(failed)?;
    let said: Vec<&str> = response.message().collect();
    Ok(scrubbed(&format!("{} {}", response.code(), said.join(" ")), &hidden))
}

/// Sent again, it is the same message to whoever gets it: its id and its date are the event's.
fn message(settings: &EmailSettings, event: &Event) -> Result<Message, NotifyError> {
    let unwritable = |why: String| NotifyError::Unwritable { why };
    let mailbox = |text: &String| text.parse::<Mailbox>().map_err(|cause| unwritable(cause.to_string()));
    let mut message = Message::builder()
        .from(mailbox(&settings.from)?)
        .subject(format!("lifeboat: {}", event.title()))
        .date(SystemTime::from(event.at))
        .message_id(Some(format!("<{}@{}>", event.id, ascii(&event.host))))
        // Nobody's holiday answers to it.
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
        .header(ContentType::TEXT_PLAIN);
    for to in &settings.to {
        message = message.to(mailbox(to)?);
    }
    message.body(event.text()).map_err(|cause| unwritable(cause.to_string()))
}

/// A host's name as it may stand in a mail's head.
fn ascii(host: &str) -> String {
    let name: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}
