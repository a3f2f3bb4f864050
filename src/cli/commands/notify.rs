//! `notify`, and how other commands tell what they did.

use serde::Serialize;

use crate::config::Settings;
use crate::error::{Code, Error, Kind, Result};
use crate::evidence::lasting::look;
use crate::operations::host::Host;
use crate::operations::notices::{self, Notices, Tested};

use super::super::Exit;
use super::super::args::NotifyCommand;
use super::super::output::{print, print_error, print_json};
use super::super::session::{Configured, Session};

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    outcome: &'static str,
    channels: Vec<Channel>,
}

#[derive(Serialize)]
struct Channel {
    channel: String,
    kind: &'static str,
    outcome: &'static str,
    answer: Option<String>,
    error: Option<String>,
    error_code: Option<&'static str>,
}

pub(in super::super) fn notify(session: Session, command: &NotifyCommand) -> Result<Exit> {
    let session = session.configured()?;
    match command {
        NotifyCommand::Test { name } => test(&session, name.as_deref()),
        NotifyCommand::Send => {
            let notices = Notices::beside(&session.host, &session.settings);
            if notices.courier().is_none() {
                return Err(nobody());
            }
            finish(&session.host, &session.settings, notices);
            Ok(Exit::DONE)
        }
    }
}

fn test(session: &Configured, name: Option<&str>) -> Result<Exit> {
    let tested = notices::test(&session.host, &session.settings, name)?;
    if tested.is_empty() {
        return Err(nobody());
    }
    let mut exit = Exit::DONE;
    for Tested { channel, kind, result } in &tested {
        match result {
            Ok(answer) if !session.global.json => {
                print(&format!("{channel} ({kind}): arrived, the answer is {answer}"));
            }
            Ok(_) => {}
            Err(error) => {
                print_error(&error.clone().context(format!("{channel} ({kind})")));
                exit = exit.worse(Exit::of(Kind::Failed));
            }
        }
    }
    if session.global.json {
        let outcome = |failed: bool| if failed { "failed" } else { "arrived" };
        let all = outcome(exit != Exit::DONE);
        let channels = tested.into_iter().map(|Tested { channel, kind, result }| Channel {
            channel,
            kind,
            outcome: outcome(result.is_err()),
            error: result.as_ref().err().map(ToString::to_string),
            error_code: result.as_ref().err().map(|error| error.code().name()),
            answer: result.ok(),
        });
        print_json(&Document { schema_version: 1, outcome: all, channels: channels.collect() });
    }
    Ok(exit)
}

fn nobody() -> Error {
    Error::new(Code::NotFound, "the config names nobody to tell")
        .with_hint("[notify.heartbeat] and [notify.NAME] do; docs/NOTIFICATIONS.md has examples")
}

/// The end of a command that tells: looks at what lasts, and waits for what is under way.
pub(super) fn finish(host: &Host, settings: &Settings, notices: Notices) {
    // A bare host knows of nothing that lasts.
    if let (Some(courier), Some(_)) = (notices.courier(), host.home_if_any()) {
        let memory = courier.memory().read().map_err(Error::from);
        match memory.and_then(|memory| look(host, settings, &memory, |_| false, host.clock.now())) {
            Ok(found) => notices.lasting(found),
            Err(error) => {
                tracing::error!(code = error.code().name(), "nobody looks for what is overdue: {error}");
            }
        }
    }
    notices.finish();
}
