//! The config that `init` writes: every key that one should decide on, with a word on each.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::settings::{SourceKind, SourceSettings};
use crate::domain::ids::JobName;
use crate::error::{Code, Diagnostic};

/// What the template is filled with.
#[derive(Debug, Clone, Copy)]
pub struct Template<'t> {
    /// Such as `Europe/Berlin`.
    pub timezone: &'t str,
    /// The host's own folder.
    pub state_dir: &'t Path,
    /// The vault's place as the config takes it.
    pub vault_url: &'t str,
    /// The public key of the identity that `init` made.
    pub recipient: &'t str,
    /// The vault's public signing key.
    pub trust: Option<&'t str>,
    /// The one job.
    pub job: &'t JobName,
    /// Its sources; none: an example stands there as a comment.
    pub sources: &'t [SourceSettings],
}

/// Why there is no config to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// TOML is text.
    #[error("the path {path:?} is not UTF-8, and a config cannot name it")]
    NotText {
        /// The path.
        path: PathBuf,
    },
}

impl Diagnostic for TemplateError {
    fn code(&self) -> Code {
        Code::ConfigInvalid
    }

    fn hint(&self) -> Option<String> {
        Some("name the folder above it instead: what is inside may have any name".to_owned())
    }
}

impl Template<'_> {
    /// The config's text.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn render(&self) -> Result<String, TemplateError> {
        let trust = match self.trust {
            Some(trust) => format!("trust      = {}", quoted(trust)),
            None => "# trust    = \"RWQ…\"".to_owned(),
        };
        let job = self.job;
        let mut text = format!(
            r#"# Lifeboat. `lifeboat config check` reads this file, `lifeboat config schema` lists every key.
# Relative paths are relative to this file's folder. Secrets never stand here, only where they lie.

timezone  = {timezone}    # schedules are read on this wall clock
state_dir = {state_dir}   # this host's signing key, caches, the catalog

[vault.main]
url        = {url}
# Who can open the backups. The identity (secret key) belongs somewhere else than on this host.
recipients = [{recipient}]
# The vault's signing key (public half), so that this host believes no other vault.
{trust}
"#,
            timezone = quoted(self.timezone),
            state_dir = self.path(self.state_dir)?,
            url = quoted(self.vault_url),
            recipient = quoted(self.recipient),
        );
        let mut body = format!(
            r#"
[job.{job}]
schedule   = "15 */6 * * *"    # minute hour day month weekday, as in crontab(5)
retention  = {{ keep_at_least = "14d", delete_after = "30d" }}
objectives = {{ rto = "1h", rpo = "24h" }}    # how long a restore may take; how much recent data may be lost
# In `retention`, daily = 14 and weekly = 4 thin what is between the two ages. When the last good backup must be erased and no
# newer good one exists it stays, with an alarm; last_good = "erase" lets it go.
"#
        );
        if self.sources.is_empty() {
            let _ = write!(
                body,
                r#"
[job.{job}.source.files]
kind    = "files"
paths   = ["/srv/shop/uploads"]
exclude = ["cache/**"]    # gitignore globs

[job.{job}.source.db]
kind = "sqlite"
path = "/srv/shop/shop.db"
"#
            );
        }
        for source in self.sources {
            // Writing to a String does not fail.
            let _ = write!(body, "\n[job.{job}.source.{}]\n{}", source.name, self.source(source)?);
        }
        let _ = write!(
            body,
            r#"
# Expired backups are erased after each successful backup, or on a schedule of their own:
# [job.{job}.prune]
# schedule = "0 4 * * *"

# A second place, best a far one: write [vault.offsite] with `url` and `recipients` as above, and `lifeboat copy` keeps it.
# [job.{job}.copy]
# to       = "offsite"
# schedule = "45 */6 * * *"

[job.{job}.drill]
schedule = "0 5 * * SUN"
# On a drill host; elsewhere give --identity or $LIFEBOAT_IDENTITY.
# identity = {{ file = "/etc/lifeboat/drill.key" }}
# What must be true of the restored data. Checks run as a user who can read neither this file nor the vault.
# checks = [
#   {{ source = "db", sql = "select count(*) > 0 from orders" }},
#   {{ source = "db", freshness = "select max(created_at) from orders", within = "26h" }},
#   {{ command = ["./smoke-test.sh"] }},
# ]

# Who alarms when backups fall silent, in the healthchecks.io manner; mail, Slack, Telegram, ntfy and webhooks likewise.
# [notify.heartbeat]
# url = {{ file = "/etc/lifeboat/heartbeat-url" }}
"#
        );
        if self.sources.is_empty() {
            for line in body.lines() {
                text.push_str(if line.is_empty() { "\n" } else { "# " });
                if !line.is_empty() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        } else {
            text.push_str(&body);
        }
        Ok(text)
    }

    fn source(&self, source: &SourceSettings) -> Result<String, TemplateError> {
        Ok(match &source.kind {
            SourceKind::Files(files) => {
                let paths = files.paths.iter().map(|path| self.path(path)).collect::<Result<Vec<_>, _>>()?.join(", ");
                let exclude = files.exclude.iter().map(|pattern| quoted(pattern)).collect::<Vec<_>>().join(", ");
                let mut text = format!(
                    "kind    = \"files\"\npaths   = [{paths}]\nexclude = [{exclude}]    # gitignore globs, such as \"cache/**\"\n"
                );
                if files.one_file_system {
                    text.push_str("one_file_system = true\n");
                }
                if !files.exclude_caches {
                    text.push_str("exclude_caches  = false\n");
                }
                text
            }
            SourceKind::Sqlite(sqlite) => format!("kind = \"sqlite\"\npath = {}\n", self.path(&sqlite.path)?),
            SourceKind::Postgres(postgres) => {
                format!("kind = \"postgres\"\nurl  = {}\n", quoted(&postgres.address.to_string()))
            }
        })
    }

    fn path(&self, path: &Path) -> Result<String, TemplateError> {
        path.to_str().map(quoted).ok_or_else(|| TemplateError::NotText { path: path.to_owned() })
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStrExt as _;

    use super::super::check::{Severity, check};
    use super::super::place::VaultUrl;
    use super::super::settings::{FilesSettings, Settings, SqliteSettings};
    use super::*;

    const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

    fn sources() -> Vec<SourceSettings> {
        let files = FilesSettings {
            paths: vec!["/srv/shop/up \"loads\"\\".into(), "/srv/shop/ü\n".into()],
            exclude: vec!["cache/**".into()],
            one_file_system: true,
            exclude_caches: false,
        };
        vec![
            SourceSettings { name: "uploads".parse().unwrap(), kind: SourceKind::Files(files) },
            SourceSettings {
                name: "db".parse().unwrap(),
                kind: SourceKind::Sqlite(SqliteSettings { path: "/srv/shop.db".into() }),
            },
        ]
    }

    #[test]
    fn the_template_is_a_config_without_warnings() {
        let (job, sources, now) = ("shop".parse().unwrap(), sources(), "2026-11-22T02:00:00Z".parse().unwrap());
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let trust = pair.pk.to_base64();
        let template = Template {
            timezone: "Europe/Berlin",
            state_dir: Path::new("/var/lib/lifeboat"),
            vault_url: "/srv/backups",
            recipient: RECIPIENT,
            trust: Some(&trust),
            job: &job,
            sources: &sources,
        };
        let settings = Settings::parse(&template.render().unwrap(), Path::new("/etc/lifeboat/lifeboat.toml")).unwrap();
        assert_eq!(settings.timezone, chrono_tz::Tz::Europe__Berlin);
        assert_eq!(settings.state_dir, Path::new("/var/lib/lifeboat"));
        assert_eq!(settings.vaults["main"].url, VaultUrl::Folder("/srv/backups".into()));
        assert_eq!(settings.vaults["main"].trust.as_ref(), Some(&trust));
        assert_eq!(settings.jobs[&job].sources, sources);
        let bad = |finding: &super::super::check::Finding| finding.severity != Severity::Note;
        let findings: Vec<_> = check(&settings, now, &BTreeMap::new()).into_iter().filter(bad).collect();
        assert!(findings.is_empty(), "{findings:?}");

        // Without sources the job is a comment, and is one that would be right if it were none.
        let template = Template { sources: &[], trust: None, ..template };
        let text = template.render().unwrap();
        let settings = Settings::parse(&text, Path::new("/etc/lifeboat/lifeboat.toml")).unwrap();
        assert!(settings.jobs.is_empty());
        let (head, example) = text.split_once("# [job.shop]").unwrap();
        let example: String =
            example.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line))).collect();
        let whole = format!("{head}[job.shop]{example}");
        let settings = Settings::parse(&whole, Path::new("/etc/lifeboat/lifeboat.toml")).unwrap();
        assert_eq!(settings.jobs[&job].sources.len(), 2);
        // And so are the lines that are comments inside the job.
        let whole: String = whole
            .lines()
            .map(|line| {
                let bare = line.strip_prefix("# ").unwrap_or(line);
                let examples = [
                    "identity = ",
                    "checks = ",
                    "  {",
                    "]",
                    "[job.shop.prune]",
                    "schedule = \"0 4",
                    "[notify",
                    "url = {",
                ];
                let example = examples.iter().any(|start| bare.starts_with(start));
                format!("{}\n", if example { bare } else { line })
            })
            .collect();
        let settings = Settings::parse(&whole, Path::new("/etc/lifeboat/lifeboat.toml")).unwrap();
        assert_eq!(settings.jobs[&job].drill.as_ref().unwrap().checks.len(), 3);
        assert!(settings.jobs[&job].prune.schedule().is_some());
        assert!(settings.notify.heartbeat.is_some());
    }

    #[test]
    fn a_path_that_is_no_text_is_refused() {
        let job = "shop".parse().unwrap();
        let template = Template {
            timezone: "UTC",
            state_dir: Path::new(std::ffi::OsStr::from_bytes(b"/srv/\xff")),
            vault_url: "/srv/backups",
            recipient: RECIPIENT,
            trust: None,
            job: &job,
            sources: &[],
        };
        assert!(matches!(template.render(), Err(TemplateError::NotText { .. })));
    }
}
