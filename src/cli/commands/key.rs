//! `key new` and `key show`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use serde_json::json;

use crate::error::{Code, Error, Result};
use crate::operations::init::NewIdentity;
use crate::seal::Identities;
use crate::vault::identity::read_comments;

use super::super::Exit;
use super::super::args::KeyCommand;
use super::super::output::{print, print_json, say};
use super::super::session::{IdentitySource, Session};

pub(in super::super) fn key(session: &Session, command: &KeyCommand) -> Result<Exit> {
    match command {
        KeyCommand::New { file } => {
            let identity = NewIdentity::generate();
            let Some(file) = file else {
                // Like every command's data, it goes to stdout: whoever redirects it sets the umask.
                print(&identity.text(""));
                say(&format!("public key: {}", identity.recipient));
                return Ok(Exit::DONE);
            };
            write_identity(file, &identity.text(""))?;
            if session.global.json {
                print_json(&json!({ "schema_version": 1, "recipient": identity.recipient, "file": file }));
            } else {
                print(&identity.recipient);
                say(&format!("{} is the secret half: keep it off the host that makes the backups", file.display()));
            }
        }
        KeyCommand::Show { file } => {
            let given = IdentitySource::of(&session.global).files;
            let Some(file) = file.as_ref().or(given.first()) else {
                return Err(Error::new(Code::Usage, "no identity file was named")
                    .with_hint("lifeboat key show FILE, or --identity FILE"));
            };
            let text = std::fs::read_to_string(file).map_err(|cause| {
                Error::new(Code::KeyMissing, format!("cannot read the identity {}: {cause}", file.display()))
                    .with_hint("name the identity file: `lifeboat init` or `lifeboat key new` wrote it")
            })?;
            let recipients = Identities::parse(&text, &file.display().to_string())?.recipients();
            let pin = read_comments(&text)?;
            let trust = pin.as_ref().map(|pin| pin.key.to_string());
            if session.global.json {
                print_json(&json!({ "schema_version": 1, "recipients": recipients, "trust": trust }));
            } else {
                recipients.iter().for_each(|recipient| print(recipient));
                if let Some(trust) = trust {
                    say(&format!("it trusts the vault whose signing key is {trust}"));
                }
            }
        }
    }
    Ok(Exit::DONE)
}

/// Writes an identity file that nobody else can read; never over another.
pub(super) fn write_identity(file: &std::path::Path, text: &str) -> Result<()> {
    let failed = |cause: std::io::Error| {
        let what = match cause.kind() {
            std::io::ErrorKind::AlreadyExists => format!("{} exists", file.display()),
            _ => format!("cannot write the identity {}: {cause}", file.display()),
        };
        Error::new(Code::KeyMissing, what)
            .with_hint("name a file that does not exist yet: an identity is never overwritten")
    };
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(failed)
}
