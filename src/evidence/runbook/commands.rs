//! The commands of a runbook: typed as they stand into bash, on a machine that has nothing but what the paper says.

use crate::catalog::BackupRow;
use crate::config::settings::Databases;
use crate::config::{JobSettings, Secret, SourceKind, SourceSettings, VaultSettings, VaultUrl};
use crate::domain::databases::{is_of, source_of};
use crate::domain::server::ServerAddress;
use crate::operations::runbook::RunbookFacts;

/// Where the identity is, if the config does not say: a disk that is brought along.
const IDENTITY: &str = "/mnt/usb/identity.txt";
/// Where a restore goes.
const TARGET: &str = "/srv/restored";
/// The config that says how a bucket is reached, and the state folder that goes with it.
const RESCUE: &str = "lifeboat-rescue.toml";
const RESCUE_STATE: &str = "lifeboat-rescue-state";
/// The first role of a server and its socket, as Debian makes them.
const SERVER: &str = "postgres://postgres@/postgres?host=/run/postgresql";

/// How a bare host reaches the vault.
pub(super) struct Way {
    /// Options of every command.
    pub(super) flags: &'static str,
    /// The lines of a config that says how buckets are reached; none where no vault is in one.
    pub(super) rescue: Vec<String>,
    variables: Vec<String>,
}

impl Way {
    pub(super) fn of(facts: &RunbookFacts) -> Self {
        let in_buckets: Vec<&VaultSettings> =
            facts.vaults().filter(|vault| matches!(vault.url, VaultUrl::S3 { .. })).collect();
        let mut rescue = Vec::new();
        if !in_buckets.is_empty() {
            rescue.push(format!("state_dir = {}", in_toml(RESCUE_STATE)));
            for vault in in_buckets {
                rescue.extend(table(vault, facts.trust.as_deref()));
            }
        }
        let mut variables = vec![
            format!("IDENTITY={}", quoted(&identity_file(&facts.job))),
            format!("TARGET={TARGET}"),
            format!("VAULT={}", quoted(&facts.vault.url.to_string())),
        ];
        let mut flags = "--vault \"$VAULT\" --identity \"$IDENTITY\"";
        if let Some(trust) = &facts.trust {
            variables.push(format!("TRUST={}", quoted(trust)));
            flags = "--vault \"$VAULT\" --trust \"$TRUST\" --identity \"$IDENTITY\"";
        }
        Self { flags, rescue, variables }
    }

    /// What is said once, before everything else.
    pub(super) fn variables(&self) -> Vec<String> {
        let mut lines = self.variables.clone();
        if !self.rescue.is_empty() {
            lines.push(format!("cat > {RESCUE} <<'END'"));
            lines.extend(self.rescue.iter().cloned());
            lines.push("END".to_owned());
            lines.push(format!("export LIFEBOAT_CONFIG=\"$PWD/{RESCUE}\""));
        }
        lines
    }
}

/// A vault's table, with what reaching it needs. Keys are left to the environment: where they lie on a host that is lost is
/// of no use.
fn table(vault: &VaultSettings, trust: Option<&str>) -> Vec<String> {
    let recipients: Vec<String> = vault.recipients.iter().map(|recipient| in_toml(recipient)).collect();
    let mut lines = vec![
        format!("[vault.{}]", vault.name),
        format!("url = {}", in_toml(&vault.url.to_string())),
        format!("recipients = [{}]", recipients.join(", ")),
    ];
    let s3 = &vault.s3;
    let ca = s3.ca.as_ref().map(|path| path.to_string_lossy().into_owned());
    let texts = [
        ("trust", trust),
        ("region", s3.region.as_deref()),
        ("endpoint", s3.endpoint.as_deref()),
        ("ca", ca.as_deref()),
    ];
    lines.extend(texts.into_iter().filter_map(|(key, text)| Some(format!("{key} = {}", in_toml(text?)))));
    lines.extend(s3.path_style.map(|path_style| format!("path_style = {path_style}")));
    lines
}

/// The identity file that the job's drill names, else where one is brought along.
pub(super) fn identity_file(job: &JobSettings) -> String {
    let named = job.drill.as_ref().and_then(|drill| drill.identity.as_ref()).and_then(Secret::path);
    named.map_or_else(|| IDENTITY.to_owned(), |path| path.to_string_lossy().into_owned())
}

/// The sources of a backup that a database source of the config stands for, each with where it is restored into. Of a source
/// that means all databases of a server the newest backup tells which those are.
pub(super) fn databases(source: &SourceSettings, newest: Option<&BackupRow>) -> Vec<(String, String)> {
    let SourceKind::Postgres(postgres) = &source.kind else { return Vec::new() };
    match source.databases() {
        Databases::OfUrl => vec![(source.name.to_string(), url_of(&postgres.address.database))],
        Databases::These(names) => {
            names.iter().map(|database| (source_of(&source.name, database).to_string(), url_of(database))).collect()
        }
        Databases::All { .. } => {
            let there = newest.map(|row| &row.summary.sources[..]).unwrap_or_default();
            let of_source = there.iter().filter(|found| is_of(&source.name, &found.name));
            let named = of_source.map(|found| {
                let name = found.name.as_str();
                // A name that was cleaned is a good one to restore under, too.
                let database = name.strip_prefix(source.name.as_str()).unwrap_or(name).trim_start_matches('-');
                (name.to_owned(), url_of(database))
            });
            named.collect()
        }
    }
}

/// The address of a database on a new server of this machine.
pub(super) fn url_of(database: &str) -> String {
    ServerAddress::parse(SERVER).map_or_else(|_| SERVER.to_owned(), |server| server.with_database(database).to_string())
}

/// A word for bash.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A glob that means this path, and below a folder everything.
pub(super) fn as_glob(path: &str) -> String {
    let means_something = |c: char| "*?[]{}!#\\".contains(c);
    path.chars().flat_map(|c| means_something(c).then_some('\\').into_iter().chain([c])).collect()
}

/// A string for a config.
fn in_toml(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{S3Settings, Settings};

    #[test]
    fn words_are_quoted_for_bash() {
        for (text, word) in [
            ("/srv/restored", "/srv/restored"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("$(x)", "'$(x)'"),
            ("postgres://postgres@/shop?host=/run", "'postgres://postgres@/shop?host=/run'"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }

    fn facts(text: &str) -> RunbookFacts {
        let settings = Settings::parse(text, Path::new("/etc/lifeboat/lifeboat.toml")).unwrap();
        let job = settings.jobs.values().next().unwrap();
        RunbookFacts {
            config: settings.file.clone(),
            state_dir: settings.state_dir.clone(),
            timezone: settings.timezone,
            job: job.clone(),
            as_json: settings.without_secrets(&job.name),
            vault: settings.vault_of(job).unwrap().clone(),
            copy: job.copy.as_ref().map(|copy| settings.vaults[&copy.to].clone()),
            vault_id: None,
            trust: settings.vault_of(job).unwrap().trust.clone(),
            host_name: None,
            holders: Vec::new(),
            newest: None,
            largest_bytes: None,
            last_drill: None,
            last_passed: None,
            silent: None,
        }
    }

    const CONFIG: &str = r#"
[vault.main]
url        = "s3://acme-backups/prod"
recipients = ["age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"]
trust      = "RWThPQiHnUgrHfN2F3ulIwufscRHvr7avcgVFlNNbEWn64b7S3fcps2Q"
region     = "eu-central-1"
endpoint   = "https://s3.internal:8333"
path_style = false
ca         = "/etc/lifeboat/ca.pem"
access_key = { file = "/etc/lifeboat/s3.id" }
secret_key = { file = "/etc/lifeboat/s3.key" }
[vault.offsite]
url        = "/mnt/offsite"
recipients = ["age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"]
[job.shop]
vault      = "main"
schedule   = "15 */6 * * *"
retention  = { keep_at_least = "14d", delete_after = "30d" }
copy       = { to = "offsite" }
[job.shop.source.uploads]
kind  = "files"
paths = ["/srv/up loads"]
[job.shop.drill]
identity = { file = "/etc/lifeboat/drill.key" }
"#;

    #[test]
    fn the_config_for_a_bare_host_says_how_the_bucket_is_reached_and_nothing_of_its_keys() {
        let facts = facts(CONFIG);
        let way = Way::of(&facts);
        let text = way.rescue.join("\n");
        assert!(!text.contains("s3.key") && !text.contains("offsite"), "{text}");
        let read = Settings::parse(&text, Path::new("/tmp/bare/lifeboat-rescue.toml")).unwrap();
        let (is, was) = (&read.vaults["main"], &facts.vault);
        assert_eq!((&is.url, &is.recipients, &is.trust), (&was.url, &was.recipients, &was.trust));
        assert_eq!(is.s3, S3Settings { keys: None, ..was.s3.clone() });
        assert_eq!(read.state_dir, Path::new("/tmp/bare/lifeboat-rescue-state"));
        let variables = way.variables();
        assert!(variables.contains(&"IDENTITY=/etc/lifeboat/drill.key".to_owned()), "{variables:?}");
        assert!(variables.contains(&"VAULT=s3://acme-backups/prod".to_owned()), "{variables:?}");
    }

    #[test]
    fn a_page_names_what_is_there_and_leaves_lines_for_what_only_people_know() {
        let mut facts = facts(CONFIG);
        facts.silent = Some("no answer\nfrom | there".to_owned());
        let now = "2026-11-22T20:00:00Z".parse().unwrap();
        let page =
            super::super::render(std::slice::from_ref(&facts), super::super::Extent::Restore, now, "lifeboat 0.1.0");
        for said in [
            "**The vault did not answer when this was printed** (no answer from \\| there)",
            "| vault's region | `eu-central-1` |",
            "| vault's endpoint | `https://s3.internal:8333` |",
            "the file /etc/lifeboat/s3.id and the file /etc/lifeboat/s3.key",
            "| copy `offsite` | `/mnt/offsite` |",
            "VAULT=/mnt/offsite",
            "--path 'srv/up loads'",
            "No drill ever ran",
        ] {
            assert!(page.contains(said), "{said}: {page}");
        }
        let document = super::super::document(&[facts], now, "lifeboat 0.1.0");
        assert_eq!(document["jobs"][0]["settings"]["vault"]["s3"]["secret_key"]["file"], "/etc/lifeboat/s3.key");
    }

    #[test]
    fn a_path_is_a_glob_that_means_itself() {
        assert_eq!(as_glob("srv/a b"), "srv/a b");
        assert_eq!(as_glob("a*[b]{c}?!#\\"), "a\\*\\[b\\]\\{c\\}\\?\\!\\#\\\\");
    }

    #[test]
    fn a_new_server_is_reached_by_its_socket() {
        let url = url_of("my shop");
        let address = ServerAddress::parse(&url).unwrap();
        assert_eq!((address.database.as_str(), address.role.as_str()), ("my shop", "postgres"));
    }
}
