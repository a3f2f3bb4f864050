//! `init`.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::clock::zone_of_this_host;
use crate::config::template::Template;
use crate::config::{Settings, VaultUrl, locate};
use crate::error::{Code, Error, Result};
use crate::operations::init::{self, Made, NewIdentity, VaultMade};
use crate::operations::vaults::storage;
use crate::seal::Identities;
use crate::vault::identity::comment_lines;

use super::super::Exit;
use super::super::args::{Global, InitArgs};
use super::super::output::{print_json, say};
use super::super::session::{IdentitySource, Session};
use super::key::write_identity;

/// The names of what `init` puts beside a new config.
const CONFIG: &str = "lifeboat.toml";
const IDENTITY: &str = "identity.txt";
const STATE: &str = "state";
const VAULT: &str = "vault";
/// The job of a new config.
const JOB: &str = "main";

pub(in super::super) fn init(session: Session, args: &InitArgs) -> Result<Exit> {
    match existing_config(&session.global, args)? {
        Some(file) => with_config(session, args, &file),
        None => from_nothing(session, args),
    }
}

/// The config that is there, if one is: the one named, the one in DIR, or, without DIR, where commands look for it.
fn existing_config(global: &Global, args: &InitArgs) -> Result<Option<PathBuf>> {
    let named = global.config.clone().or_else(|| args.dir.as_ref().map(|dir| dir.join(CONFIG)));
    match named {
        Some(file) => Ok(file.exists().then_some(file)),
        None => match locate::locate(None) {
            Ok(file) => Ok(Some(file)),
            Err(crate::config::ConfigError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        },
    }
}

/// With a config there: the host's key and the vaults, if they are missing. Neither config nor identity is touched.
fn with_config(session: Session, args: &InitArgs, file: &Path) -> Result<Exit> {
    let settings = Settings::load(Some(file))?;
    let identities = IdentitySource::of(&session.global);
    let host = session.host.with_home(&settings.state_dir)?;
    let mut made = vec![init::host_key(&host)?];
    let mut vaults = Vec::new();
    for vault in settings.vaults.values() {
        let key_file = match &args.vault_key {
            Some(file) => file.clone(),
            None => beside(file, &format!("vault-{}.key", file_name(&vault.name))),
        };
        let result = init::vault(&host, vault, &key_file)?;
        if !identities.files.is_empty() {
            let text = identities.texts()?.identity_files.join("\n");
            let storage = storage(&host, vault)?;
            init::canary(&host, &*storage, &vault.recipients, Identities::parse(&text, "the identity")?)?;
        }
        made.extend(result.made.clone());
        vaults.push((vault.name.clone(), result));
    }
    if session.global.json {
        print_json(&document(file, &made, &vaults, None));
        return Ok(Exit::DONE);
    }
    made.iter().for_each(tell);
    if identities.files.is_empty() {
        say("not tried: whether somebody can open what is sealed here; `lifeboat init --identity FILE` tries it");
    } else {
        say("tried: a little text was sealed, stored in the vault, fetched, and opened with the identity");
    }
    for (name, vault) in &vaults {
        if let Some(stranger) = &vault.stranger {
            say("");
            say(&format!("The vault {name} does not know this host yet. Where the vault's offline key is, type:"));
            say(&format!(
                "    lifeboat host add {} --key {} --vault-key FILE",
                shell_word(&stranger.name),
                stranger.key
            ));
            say(
                "with `--jobs` and their names if it is not to sign every job, and --vault and the vault's url if no config there",
            );
            say("names it. Then try here: lifeboat doctor");
        }
        if vault.made.iter().any(|made| made.what == "vault key" && made.new) {
            say("");
            say(&format!("The vault key of {name} must leave this host: keep it offline, beside the identity."));
            say("Add these lines to the identity file, so that a bare host knows whom to believe:");
            comment_lines(&vault.id, &vault.trust.parse()?).lines().for_each(|line| say(&format!("    {line}")));
            say(&format!("and this one to [vault.{name}] in the config:"));
            say(&format!("    trust = \"{}\"", vault.trust));
        }
    }
    Ok(Exit::DONE)
}

/// Without one: everything that a first backup needs.
fn from_nothing(session: Session, args: &InitArgs) -> Result<Exit> {
    let file = match (&session.global.config, &args.dir) {
        (Some(file), _) => file.clone(),
        (None, Some(dir)) => dir.join(CONFIG),
        (None, None) => PathBuf::from(CONFIG),
    };
    // Whole paths: at the end they are in a message that is read somewhere else, and late.
    let file =
        std::path::absolute(&file).map_err(|cause| Error::new(Code::Usage, format!("no current folder: {cause}")))?;
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    std::fs::create_dir_all(&folder)
        .map_err(|cause| Error::new(Code::StateFailed, format!("cannot make {}: {cause}", folder.display())))?;
    let identity_file = folder.join(IDENTITY);
    let key_file = match &args.vault_key {
        Some(file) => std::path::absolute(file).unwrap_or_else(|_| file.clone()),
        None => folder.join("vault.key"),
    };
    if identity_file.exists() {
        return Err(Error::new(
            Code::KeyMissing,
            format!("{} exists, and there is no config that goes with it", identity_file.display()),
        )
        .with_hint("an identity is never overwritten: name another folder, or move it away"));
    }
    let vault_url = match &session.global.vault {
        // A folder is one of the current folder here, and of the config's folder in the config.
        Some(text) => VaultUrl::parse(text, &std::env::current_dir().unwrap_or_default())?.to_string(),
        None => VAULT.to_owned(),
    };
    let identity = NewIdentity::generate();
    let job = JOB.parse().map_err(|_| Error::new(Code::Internal, "the first job's name is not one"))?;
    let template = Template {
        timezone: &zone_of_this_host(),
        state_dir: Path::new(STATE),
        vault_url: &vault_url,
        recipient: &identity.recipient,
        trust: None,
        job: &job,
        sources: &[],
    };
    // The vault is made first, from the same text without its key; the config is written last. An `init` that was broken
    // off before the identity was written can simply be run again; afterwards it says that one lies there.
    let settings = Settings::parse(&template.render()?, &file)?;
    let host = session.host.with_home(&settings.state_dir)?;
    let mut made = vec![init::host_key(&host)?];
    let (name, vault) =
        settings.vaults.iter().next().ok_or_else(|| Error::new(Code::Internal, "the template has no vault"))?;
    let result = init::vault(&host, vault, &key_file)?;
    made.extend(result.made.clone());
    let lines = comment_lines(&result.id, &result.trust.parse()?);
    write_identity(&identity_file, &identity.text(&lines))?;
    made.push(Made { what: "identity", path: identity_file.clone(), new: true });
    let config = Template { trust: Some(&result.trust), ..template }.render()?;
    write_config(&file, &config)?;
    made.push(Made { what: "config", path: file.clone(), new: true });

    // What was written is what must open it: the identity is read back from its file.
    let text = std::fs::read_to_string(&identity_file).map_err(|cause| {
        Error::new(Code::KeyMissing, format!("cannot read {} back: {cause}", identity_file.display()))
    })?;
    let storage = storage(&host, vault)?;
    init::canary(&host, &*storage, &vault.recipients, Identities::parse(&text, &identity_file.display().to_string())?)?;

    if session.global.json {
        print_json(&document(&file, &made, &[(name.clone(), result)], Some(&identity.recipient)));
        return Ok(Exit::DONE);
    }
    made.iter().for_each(tell);
    say("tried: a little text was sealed, stored in the vault, fetched, and opened with the identity");
    say("");
    say("Before you rely on it, move two files off this host, into two safe places each:");
    say(&format!("  {}", identity_file.display()));
    say("      opens every backup: without it nobody can, with it anybody can");
    say(&format!("  {}", key_file.display()));
    say("      says which hosts may write into the vault");
    say("");
    say("Then say in the config what is to be backed up (its comments show how), and type:");
    say("  lifeboat config check");
    say("  lifeboat backup");
    say(&format!("  lifeboat drill --identity {}", identity_file.display()));
    Ok(Exit::DONE)
}

fn document(file: &Path, made: &[Made], vaults: &[(String, VaultMade)], recipient: Option<&str>) -> serde_json::Value {
    let vaults: Vec<_> = vaults.iter().map(|(name, vault)| document_of(name, vault)).collect();
    json!({ "schema_version": 1, "config": file, "made": made, "vaults": vaults, "recipient": recipient })
}

fn document_of(name: &str, vault: &VaultMade) -> serde_json::Value {
    json!({ "name": name, "id": vault.id, "trust": vault.trust, "stranger": vault.stranger })
}

/// A name as a shell reads it.
fn shell_word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}

fn tell(made: &Made) {
    let what = if made.new { "made " } else { "found" };
    say(&format!("{what} {:<10} {}", made.what, made.path.display()));
}

fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new(".")).join(name)
}

/// A vault's name as part of a file's.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect()
}

fn write_config(file: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let failed =
        |cause: std::io::Error| Error::new(Code::StateFailed, format!("cannot write {}: {cause}", file.display()));
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(failed)
}
