//! The config that the demo writes, as a person would: one job, its sources, and what a drill must find.

use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};

use super::shop::{CATALOGUE, CONSISTENT_SQL, NEWEST_SQL, Shop};

/// What is backed up.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// The made-up shop.
    Shop(Shop),
    /// The user's own, which is only read.
    Own {
        /// A folder.
        files: Option<PathBuf>,
        /// A SQLite database.
        sqlite: Option<PathBuf>,
    },
}

impl Data {
    /// The job's name.
    pub(super) fn job(&self) -> &'static str {
        match self {
            Self::Shop(_) => "shop",
            Self::Own { .. } => "mine",
        }
    }
}

/// Under which rights a drill's checks run, and where.
#[derive(Debug, Clone)]
pub(super) struct Drill {
    /// `trust_source`: with our own rights.
    pub(super) trust_source: bool,
    /// Where it restores to; relative to the config, or absolute.
    pub(super) scratch: PathBuf,
}

/// The config's text, for a file in `dir`.
///
/// # Errors
/// When a path is not UTF-8: TOML cannot name it.
pub(super) fn text(dir: &Path, data: &Data, recipient: &str, drill: &Drill) -> Result<String> {
    let job = data.job();
    let (sources, checks) = match data {
        Data::Shop(shop) => (
            format!(
                "[job.shop.source.db]\n\
                 kind = \"sqlite\"\n\
                 path = {}\n\
                 \n\
                 [job.shop.source.uploads]\n\
                 kind  = \"files\"\n\
                 paths = [{}]\n",
                quoted(within(dir, &shop.database))?,
                quoted(within(dir, &shop.uploads))?,
            ),
            vec![
                format!("{{ source = \"db\", sql = \"\"\"{CONSISTENT_SQL}\"\"\" }}"),
                format!("{{ source = \"db\", freshness = \"{NEWEST_SQL}\", within = \"1h\" }}"),
                format!(
                    "{{ command = [\"sh\", \"-c\", 'test -s \"$LIFEBOAT_UPLOADS_DIR/$1\"', \"sh\", {}] }}",
                    // A restored file lies below its source's folder, under its whole path without the first slash.
                    quoted(within(Path::new("/"), &shop.uploads.join(CATALOGUE)))?,
                ),
            ],
        ),
        Data::Own { files, sqlite } => {
            let mut sources = Vec::new();
            let mut checks = Vec::new();
            if let Some(sqlite) = sqlite {
                sources.push(format!("[job.mine.source.db]\nkind = \"sqlite\"\npath = {}\n", quoted(sqlite)?));
                checks.push("{ source = \"db\", sql = \"select count(*) > 0 from sqlite_schema\" }".to_owned());
            }
            if let Some(files) = files {
                sources.push(format!("[job.mine.source.files]\nkind  = \"files\"\npaths = [{}]\n", quoted(files)?));
                checks.push("{ command = [\"sh\", \"-c\", 'test -d \"$LIFEBOAT_FILES_DIR\"'] }".to_owned());
            }
            (sources.join("\n"), checks)
        }
    };
    let trust = if drill.trust_source { "trust_source = true\n" } else { "" };
    let scratch = quoted(&drill.scratch)?;
    let checks: String = checks.iter().map(|check| format!("  {check},\n")).collect();
    Ok(format!(
        "state_dir = \"state\"\n\
         \n\
         [vault.main]\n\
         url        = \"vault\"\n\
         recipients = [{recipient}]\n\
         \n\
         [job.{job}]\n\
         schedule   = \"15 */6 * * *\"\n\
         retention  = {{ keep_at_least = \"14d\", delete_after = \"30d\" }}\n\
         objectives = {{ rto = \"5m\", rpo = \"12h\" }}\n\
         \n\
         {sources}\n\
         [job.{job}.drill]\n\
         identity = {{ file = \"drill.key\" }}\n\
         scratch  = {scratch}\n\
         {trust}\
         checks = [\n{checks}]\n",
        recipient = quoted(Path::new(recipient))?,
    ))
}

fn within<'a>(dir: &Path, path: &'a Path) -> &'a Path {
    path.strip_prefix(dir).unwrap_or(path)
}

fn quoted(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) => Ok(toml::Value::String(text.to_owned()).to_string()),
        None => Err(Error::new(Code::Usage, format!("{} is not UTF-8, and a config cannot name it", path.display()))),
    }
}
