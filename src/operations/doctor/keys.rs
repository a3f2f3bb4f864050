//! What `doctor` looks at where keys are concerned: a host that backs up must not be able to read its own backups, nor say who
//! may write; and whoever should be able to open them was seen to.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::Settings;
use crate::domain::check::UserCheck;
use crate::seal::{Identities, Opener};
use crate::vault::identity::read_comments;
use crate::vault::keys::SigningKey;

use super::super::holders::proven;
use super::super::host::{Home, Host};
use super::super::vaults::OpenVault;
use super::Finding;

/// How many files of a folder are looked at, and how large one may be: keys are short, and lie in short folders.
const MAX_FILES: usize = 1_000;
const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;
/// Where lifeboat's own files usually are.
const USUAL_FOLDER: &str = "/etc/lifeboat";
/// What a line with a secret half begins with, and a file with a signing key.
const SECRET_LINE: &str = "AGE-SECRET-KEY-1";
const SIGNING_FILE: &str = "untrusted comment:";

/// Keys that lie where backups are made, and a config that says too much to everybody.
#[must_use]
pub fn hygiene(host: &Host, settings: &Settings, vaults: &[&OpenVault]) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(open_config(settings));
    let written: Vec<&&OpenVault> = vaults.iter().filter(|vault| backs_up(host, vault)).collect();
    let mut lying = Vec::new();
    for file in files_about(settings) {
        let Some(text) = short_text(&file) else { continue };
        if text.lines().any(|line| line.trim_start().starts_with(SECRET_LINE)) {
            let opener = Identities::parse(&text, &file.to_string_lossy()).map(Opener::new);
            let opens =
                |vault: &&&&OpenVault| opener.as_ref().is_ok_and(|opener| opener.opens_for(&vault.settings.recipients));
            lying.extend(written.iter().find(opens).map(|vault| identity_lies(&file, &vault.settings.name)));
        } else if text.starts_with(SIGNING_FILE) {
            let key = SigningKey::read(&file).ok().map(|key| key.public().to_string());
            let of_vault = |vault: &&&OpenVault| key.is_some() && key == trusted_key(host, vault);
            lying.extend(vaults.iter().find(of_vault).map(|vault| vault_key_lies(&file, &vault.settings.name)));
        }
    }
    if lying.is_empty() {
        lying.push(Finding::ok("keys", "no identity and no vault key lies beside the config".to_owned()));
    }
    findings.extend(lying);
    findings
}

/// Whether this host makes the backups of a vault. One that only drills signs its drills there, holds an identity, and should.
fn backs_up(host: &Host, vault: &OpenVault) -> bool {
    let Ok(own_name) = vault.host_name(host) else { return false };
    let known = |home: &Home| host.runtime.block_on(home.catalog.backups(&vault.id, None)).unwrap_or_default();
    let backups = host.home().map(known).unwrap_or_default();
    backups.is_empty() || backups.iter().any(|row| row.host == own_name)
}

fn identity_lies(file: &Path, vault: &str) -> Finding {
    Finding::warning(
        "keys",
        format!(
            "the identity {} lies on this host, which backs up, and opens vault {vault}: whoever breaks in reads every backup",
            file.display()
        ),
        format!("move it to the host that drills, or offline, in two places: mv {} /mnt/usb/", file.display()),
    )
}

fn vault_key_lies(file: &Path, vault: &str) -> Finding {
    Finding::warning(
        "keys",
        format!(
            "the key {} of vault {vault} lies on this host: whoever breaks in can let hosts of their own write",
            file.display()
        ),
        format!("move it offline, in two places: mv {} /mnt/usb/", file.display()),
    )
}

/// The public key that a vault's vault.json is believed for.
fn trusted_key(host: &Host, vault: &OpenVault) -> Option<String> {
    let pinned = || {
        let text = host.home().ok()?.state.pinned_trust(&vault.settings.name).ok()??;
        Some(read_comments(&text).ok()??.key.to_string())
    };
    vault.settings.trust.clone().or_else(pinned)
}

/// What stands in argv lists is as public as the file that they stand in.
fn open_config(settings: &Settings) -> Option<Finding> {
    let mode = settings.file.metadata().ok()?.mode();
    let runs = |argv: &[String]| !argv.is_empty();
    let holds = settings.jobs.values().any(|job| {
        let checks = job.drill.iter().flat_map(|drill| &drill.checks);
        let commands = checks.into_iter().any(|check| matches!(check, UserCheck::Command { .. }));
        commands || runs(&job.hooks.before) || runs(&job.hooks.after) || runs(&job.hooks.on_failure)
    });
    let file = settings.file.display();
    (holds && mode & 0o004 != 0).then(|| {
        Finding::warning(
            "config",
            format!("everybody on this host can read {file}, with the commands of its hooks and checks"),
            format!("chmod o-r {file}, and keep secrets out of arguments"),
        )
    })
}

/// The files that lie directly beside the config, in the state folder, and where lifeboat's own usually are.
fn files_about(settings: &Settings) -> Vec<PathBuf> {
    let beside = settings.file.parent().unwrap_or(Path::new("/")).to_owned();
    let mut folders = vec![beside, settings.state_dir.clone(), PathBuf::from(USUAL_FOLDER)];
    folders.sort();
    folders.dedup();
    // One that the config names for drills is looked at wherever it lies.
    let drills = settings.jobs.values().filter_map(|job| job.drill.as_ref()?.identity.as_ref()?.path());
    let mut files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_FILES))
        .map(|entry| entry.path())
        .chain(drills)
        .collect();
    files.sort();
    files.dedup();
    files
}

/// The text of a short regular file; nothing that could wait for somebody is opened.
fn short_text(file: &Path) -> Option<String> {
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_KEY_FILE_BYTES {
        return None;
    }
    let mut text = String::new();
    File::open(file).ok()?.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Recipients that nobody was seen to hold the identity of. `opener` has the identities at hand, if there are any.
#[must_use]
pub fn recipients(host: &Host, name: &str, vault: &OpenVault, opener: Option<&Opener>) -> Vec<Finding> {
    let about = format!("vault {name}: recipients");
    let proven = match proven(host, &vault.id) {
        Ok(proven) => proven,
        Err(error) => return vec![Finding::of(&about, &error)],
    };
    let at_hand = |recipient: &String| opener.is_some_and(|opener| opener.opens_for(std::slice::from_ref(recipient)));
    let mut findings: Vec<Finding> = Vec::new();
    for recipient in &vault.settings.recipients {
        findings.push(match proven.get(recipient) {
            Some(when) => Finding::ok(&about, format!("{recipient} opened a backup in a drill of {}", when.format("%Y-%m-%d"))),
            None if at_hand(recipient) => Finding::ok(&about, format!("{recipient} is one whose identity is at hand")),
            None => Finding::warning(
                &about,
                format!("nobody was ever seen to hold the identity of {recipient}: no drill that passed opened a backup with it"),
                "lifeboat drill --identity FILE, with the identity of that recipient",
            ),
        });
    }
    findings
}
