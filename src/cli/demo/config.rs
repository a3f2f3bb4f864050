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

/// The keys that `init` made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    /// The identity's file.
    pub(super) identity: &'a str,
    /// Its public half.
    pub(super) recipient: &'a str,
    /// The vault's signing key.
    pub(super) trust: &'a str,
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
pub(super) fn text(dir: &Path, data: &Data, keys: &Keys<'_>, drill: &Drill) -> Result<String> {
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
                format!("{{ source = \"db\", sql = \"{CONSISTENT_SQL}\" }}"),
                format!("{{ source = \"db\", freshness = \"{NEWEST_SQL}\", within = \"1h\" }}"),
                // `find` succeeds without a find; `grep` does not.
                format!(
                    "{{ command = [\"sh\", \"-c\", \
                     'find \"$LIFEBOAT_UPLOADS_DIR\" -name {CATALOGUE} -size +0 | grep -q .'] }}"
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
    // Nobody knows how much one's own data is.
    let rto = match data {
        Data::Shop(_) => "5m",
        Data::Own { .. } => "1h",
    };
    let trust_source = if drill.trust_source { "trust_source = true\n" } else { "" };
    let scratch = quoted(&drill.scratch)?;
    let checks: String = checks.iter().map(|check| format!("  {check},\n")).collect();
    Ok(format!(
        "state_dir = \"state\"\n\
         \n\
         [vault.main]\n\
         url        = \"vault\"\n\
         recipients = [{recipient}]\n\
         trust      = {trust}\n\
         \n\
         [job.{job}]\n\
         schedule   = \"15 */6 * * *\"\n\
         retention  = {{ keep_at_least = \"14d\", delete_after = \"30d\" }}\n\
         objectives = {{ rto = \"{rto}\", rpo = \"12h\" }}\n\
         \n\
         {sources}\n\
         [job.{job}.drill]\n\
         identity = {{ file = {identity} }}\n\
         scratch  = {scratch}\n\
         {trust_source}\
         checks = [\n{checks}]\n",
        recipient = quoted(Path::new(keys.recipient))?,
        trust = quoted(Path::new(keys.trust))?,
        identity = quoted(Path::new(keys.identity))?,
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

#[cfg(test)]
mod tests {
    use super::super::shop::Scale;
    use super::*;
    use crate::config::{Settings, SourceKind};
    use crate::domain::check::UserCheck;

    const KEYS: Keys<'static> = Keys {
        identity: "identity.txt",
        recipient: "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg",
        trust: "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
    };

    fn parsed(data: &Data, drill: &Drill) -> Settings {
        let dir = Path::new("/srv/demo");
        let text = text(dir, data, &KEYS, drill).unwrap();
        Settings::parse(&text, &dir.join("lifeboat.toml")).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn the_shops_config_means_what_it_should() {
        let data = Data::Shop(Shop::at(Path::new("/srv/demo/shop"), Scale::DEMO));
        let settings = parsed(&data, &Drill { trust_source: false, scratch: "scratch".into() });
        let job = settings.jobs.values().next().unwrap();
        assert_eq!(job.name.as_str(), data.job());
        let paths: Vec<String> = job
            .sources
            .iter()
            .map(|source| match &source.kind {
                SourceKind::Sqlite(sqlite) => sqlite.path.display().to_string(),
                SourceKind::Files(files) => files.paths[0].display().to_string(),
                SourceKind::Postgres(postgres) => postgres.address.to_string(),
            })
            .collect();
        assert_eq!(paths, ["/srv/demo/shop/shop.db", "/srv/demo/shop/uploads"]);
        let drill = job.drill.as_ref().unwrap();
        assert!(!drill.trust_source);
        assert_eq!(drill.scratch, Path::new("/srv/demo/scratch"));
        let [UserCheck::Sql { sql, .. }, UserCheck::Freshness { .. }, UserCheck::Command { command }] =
            &drill.checks[..]
        else {
            panic!("{:?}", drill.checks)
        };
        assert_eq!(sql, CONSISTENT_SQL);
        assert_eq!(command.len(), 3);
    }

    #[test]
    fn ones_own_data_may_have_odd_names() {
        let odd = PathBuf::from("/srv/ä \"quoted\" \\ and 'more'");
        let data = Data::Own { files: Some(odd.clone()), sqlite: Some(odd.join("a.db")) };
        let settings = parsed(&data, &Drill { trust_source: true, scratch: "/tmp".into() });
        let job = settings.jobs.values().next().unwrap();
        assert_eq!((job.name.as_str(), job.sources.len()), (data.job(), 2));
        let SourceKind::Files(files) = &job.sources[1].kind else { panic!("{:?}", job.sources) };
        assert_eq!(files.paths, [odd]);
        let drill = job.drill.as_ref().unwrap();
        assert!(drill.trust_source && drill.scratch == Path::new("/tmp") && drill.checks.len() == 2);

        let files_only = Data::Own { files: Some("/srv/files".into()), sqlite: None };
        parsed(&files_only, &Drill { trust_source: true, scratch: "/tmp".into() });
    }
}
