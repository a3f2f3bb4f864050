//! The server's own programs of a major version: where they are, and how new.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Code, Diagnostic};
use crate::process::{TOOL_PATH, Tool, ToolError};

/// Folders that hold one folder of programs for each major version; `{}` stands for it.
const PLACES: [&str; 8] = [
    "/usr/lib/postgresql/{}/bin",
    "/usr/pgsql-{}/bin",
    "/usr/lib/postgresql{}/bin",
    "/usr/libexec/postgresql{}",
    "/usr/local/pgsql-{}/bin",
    "/opt/postgresql/{}/bin",
    "/opt/homebrew/opt/postgresql@{}/bin",
    "/usr/local/opt/postgresql@{}/bin",
];
/// How long a program may take to say its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(20);
/// The oldest and the newest major version that are known here.
pub const MAJORS: std::ops::RangeInclusive<u32> = 12..=18;
/// The first minor version of each major one whose tools fence the meta-commands in a dump (`\restrict`, CVE-2025-8714):
/// with an older one, whoever owns the source can run programs as whoever restores it.
const FENCED_SINCE: [(u32, u32); 6] = [(13, 22), (14, 19), (15, 14), (16, 10), (17, 6), (18, 0)];

/// Programs of one version, in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The folder.
    pub folder: PathBuf,
    /// `15` of 15.18.
    pub major: u32,
    /// `18` of 15.18; 0 for a version that is not released yet.
    pub minor: u32,
}

/// Which versions will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This major version and no other: a server that opens a data folder.
    Exactly(u32),
    /// This one, or a newer one where it is missing: clients read older servers.
    AtLeast(u32),
}

/// Why there are no tools.
#[derive(Debug, thiserror::Error)]
pub enum ToolsError {
    /// None of a usable version.
    #[error("the programs {} of PostgreSQL {major} are not on this machine; looked in {looked}", programs.join(" and "))]
    Missing {
        /// Which programs.
        programs: Vec<String>,
        /// The major version.
        major: u32,
        /// Where they were looked for.
        looked: String,
    },
    /// The version in the configured folder will not do.
    #[error("{folder} holds version {found} and PostgreSQL {wanted} is needed")]
    Version {
        /// The configured folder.
        folder: String,
        /// What is there.
        found: u32,
        /// What is wanted.
        wanted: u32,
    },
    /// Too old to be let near foreign dumps.
    #[error(
        "{folder} holds version {major}.{minor}, whose tools let whoever wrote a dump run programs (CVE-2025-8714)"
    )]
    Unfenced {
        /// The folder.
        folder: String,
        /// Its major version.
        major: u32,
        /// Its minor version.
        minor: u32,
    },
    /// A program would not say its version.
    #[error("cannot ask {program} for its version")]
    Unasked {
        /// The program.
        program: String,
        /// Why.
        #[source]
        cause: ToolError,
    },
}

impl Diagnostic for ToolsError {
    fn code(&self) -> Code {
        Code::ToolFailed
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { programs, major, .. } if programs.iter().any(|name| name == "postgres") => {
                Some(format!("apt-get install postgresql-{major}, or name their folder"))
            }
            Self::Missing { major, .. } => {
                Some(format!("apt-get install postgresql-client-{major}, or write `tools = \"/their/folder\"`"))
            }
            Self::Version { wanted, .. } => Some(format!("name the folder of PostgreSQL {wanted}'s programs")),
            Self::Unfenced { major, .. } => Some(format!(
                "update it: {}",
                FENCED_SINCE.iter().find(|(known, _)| known == major).map_or_else(
                    || "that major version gets no fixes any more".to_owned(),
                    |(major, minor)| format!("{major}.{minor} is the first version that is safe")
                )
            )),
            Self::Unasked { cause, .. } => cause.hint(),
        }
    }
}

impl Tools {
    /// Finds a folder with all of `programs`: the configured one and no other, or the first of the usual ones.
    ///
    /// # Errors
    /// [`ToolsError`].
    pub async fn find(wanted: Wanted, configured: Option<&Path>, programs: &[&str]) -> Result<Self, ToolsError> {
        let (least, fits): (u32, &dyn Fn(u32) -> bool) = match &wanted {
            Wanted::Exactly(major) => (*major, &|found| found == *major),
            Wanted::AtLeast(major) => (*major, &|found| found >= *major),
        };
        let missing = |looked: &[PathBuf]| ToolsError::Missing {
            programs: programs.iter().map(|&name| name.to_owned()).collect(),
            major: least,
            looked: looked.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", "),
        };
        let complete = |folder: &Path| programs.iter().all(|name| folder.join(name).is_file());
        if let Some(folder) = configured {
            if !complete(folder) {
                return Err(missing(&[folder.to_owned()]));
            }
            let found = Self::ask(folder, programs).await?;
            if !fits(found.major) {
                let folder = folder.display().to_string();
                return Err(ToolsError::Version { folder, found: found.major, wanted: least });
            }
            return Ok(found);
        }
        let versioned = MAJORS
            .filter(|major| fits(*major))
            .flat_map(|major| PLACES.iter().map(move |place| PathBuf::from(place.replace("{}", &major.to_string()))));
        let mut looked = Vec::new();
        let mut unasked = None;
        for folder in versioned.chain(std::env::split_paths(TOOL_PATH)) {
            if complete(&folder) {
                match Self::ask(&folder, programs).await {
                    Ok(found) if fits(found.major) => return Ok(found),
                    Ok(_) => {}
                    // A broken installation must not hide a whole one.
                    Err(error) => unasked = unasked.or(Some(error)),
                }
            }
            looked.push(folder);
        }
        Err(unasked.unwrap_or_else(|| missing(&looked)))
    }

    async fn ask(folder: &Path, programs: &[&str]) -> Result<Self, ToolsError> {
        let program = folder.join(programs.first().copied().unwrap_or("postgres"));
        let unasked = |cause| ToolsError::Unasked { program: program.display().to_string(), cause };
        let output =
            Tool::new(&program).arg("--version").deadline(VERSION_DEADLINE).run_to_success().await.map_err(unasked)?;
        let (major, minor) = version(&String::from_utf8_lossy(&output.stdout)).unwrap_or((0, 0));
        Ok(Self { folder: folder.to_owned(), major, minor })
    }

    /// A program, to be run.
    #[must_use]
    pub fn tool(&self, program: &str) -> Tool {
        Tool::new(self.folder.join(program))
    }

    /// Refuses tools that a hostile dump could use.
    ///
    /// # Errors
    /// [`ToolsError::Unfenced`].
    pub fn must_be_fenced(&self) -> Result<(), ToolsError> {
        let fenced = match FENCED_SINCE.iter().find(|(major, _)| *major == self.major) {
            Some((_, since)) => self.minor >= *since,
            None => self.major > *MAJORS.end(),
        };
        if fenced {
            return Ok(());
        }
        Err(ToolsError::Unfenced { folder: self.folder.display().to_string(), major: self.major, minor: self.minor })
    }
}

/// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`: 15 and 18. `19devel`: 19 and 0.
pub(crate) fn version(said: &str) -> Option<(u32, u32)> {
    let number = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next().and_then(Result::ok).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some((15, 18)));
        assert_eq!(version("postgres (PostgreSQL) 19devel\n"), Some((19, 0)));
        assert_eq!(version("postgres (PostgreSQL) 18beta2"), Some((18, 0)));
        assert_eq!(version("no numbers"), None);
    }

    #[tokio::test]
    async fn debian_s_tools_are_found() {
        let programs = ["initdb", "postgres"];
        let found = Tools::find(Wanted::Exactly(15), None, &programs).await.unwrap();
        assert_eq!(found.folder, Path::new("/usr/lib/postgresql/15/bin"));
        assert_eq!(found.major, 15);
        found.must_be_fenced().unwrap();
        assert_eq!(Tools::find(Wanted::AtLeast(12), Some(&found.folder), &["pg_dump"]).await.unwrap().major, 15);

        let error = Tools::find(Wanted::Exactly(14), Some(&found.folder), &programs).await.unwrap_err();
        assert!(matches!(error, ToolsError::Version { found: 15, wanted: 14, .. }), "{error:?}");
        let error = Tools::find(Wanted::Exactly(15), None, &["initdb", "lifeboat-none"]).await.unwrap_err();
        assert!(error.to_string().contains("/usr/lib/postgresql/15/bin"), "{error}");
        assert!(error.hint().unwrap().starts_with("apt-get install postgresql-client-15"), "{error:?}");
    }

    #[tokio::test]
    async fn a_broken_installation_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("pg_dump");
        std::fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = Tools::find(Wanted::AtLeast(12), Some(folder.path()), &["pg_dump"]).await.unwrap_err();
        assert!(matches!(error, ToolsError::Unasked { .. }), "{error:?}");
    }

    #[test]
    fn old_tools_are_refused() {
        let tools = |major, minor| Tools { folder: "/x".into(), major, minor };
        assert!(tools(15, 14).must_be_fenced().is_ok());
        assert!(tools(15, 13).must_be_fenced().is_err());
        assert!(tools(12, 22).must_be_fenced().is_err());
        assert!(tools(18, 0).must_be_fenced().is_ok());
        assert!(tools(19, 0).must_be_fenced().is_ok());
        assert!(tools(0, 0).must_be_fenced().is_err());
    }
}
