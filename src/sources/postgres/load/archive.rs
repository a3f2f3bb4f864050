//! `schema.dump` and the tool that reads it: pg_restore, run for its list, for a part of its text, or against a database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::LoadError;
use super::{Outside, Owners};
use crate::process::{Output, Tool};
use crate::sources::postgres::binaries::Tools;
use crate::sources::postgres::connect::{Access, ServerTrouble};

/// The indexes of the largest database are made in this time.
const DEADLINE: Duration = Duration::from_secs(7 * 24 * 3600);
/// What is kept of the tool's complaints: a statement that failed is repeated whole behind the reason.
const COMPLAINT_BYTES: usize = 4 * 1024 * 1024;
/// The tool's list and the text of a database's properties are no longer.
const MAX_TEXT_BYTES: u64 = 1024 * 1024 * 1024;

/// The file and what there is to say to its tool.
#[derive(Debug, Clone)]
pub(super) struct Archive {
    pub(super) file: PathBuf,
    pub(super) private: PathBuf,
    pub(super) tools: Tools,
    pub(super) owners: Owners,
    pub(super) outside: Outside,
    pub(super) tablespaces: Tablespaces,
    pub(super) language: Language,
}

/// In which language the server says what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// pg_restore shows no SQLSTATE, so that [`hint`] has nothing but the words.
    English,
    /// Its own: we may not choose.
    Unchosen,
}

/// Whether objects lie where they lay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tablespaces {
    Keep,
    /// Everything in the default one.
    Drop,
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The archive's own number of it.
    number: u32,
    /// As pg_restore wants it back.
    line: String,
    /// Where in it the description begins: `TABLE public users owner`.
    description: usize,
}

impl Entry {
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn description(&self) -> &str {
        &self.line[self.description..]
    }

    /// Whether it is about the database itself.
    fn is_of_database(&self) -> bool {
        let beginnings = [
            "DATABASE - ",
            "DATABASE PROPERTIES - ",
            "ACL - DATABASE ",
            "COMMENT - DATABASE ",
            "SECURITY LABEL - DATABASE ",
        ];
        beginnings.iter().any(|beginning| self.description().starts_with(beginning))
    }

    pub(super) fn read(line: &str) -> Option<Self> {
        // 215; 1259 16389 TABLE public users postgres
        let (number, rest) = line.split_once("; ")?;
        let number = number.parse().ok()?;
        let mut parts = rest.splitn(3, ' ');
        let (_table, _oid, description) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { number, line: line.to_owned(), description: line.len() - description.len() })
    }
}

impl Archive {
    /// The entries of one section.
    pub(super) async fn list(&self, section: &str) -> Result<Vec<Entry>, LoadError> {
        let out = self.private.join("list");
        let tool = self.tool(section).args(["--list", "--create"]).arg("--file").arg(&out).arg(&self.file);
        self.succeed("reading schema.dump", tool).await?;
        Ok(self.read(&out)?.lines().filter_map(Entry::read).collect())
    }

    /// The entries of one section that stand inside the database.
    pub(super) async fn list_inside(&self, section: &str) -> Result<Vec<Entry>, LoadError> {
        Ok(self.list(section).await?.into_iter().filter(|entry| !entry.is_of_database()).collect())
    }

    /// The SQL that makes the database and sets its properties.
    pub(super) async fn database_sql(&self) -> Result<String, LoadError> {
        let wanted: Vec<Entry> = self.list("pre-data").await?.into_iter().filter(Entry::is_of_database).collect();
        let list = self.write_list("database.list", &wanted)?;
        let out = self.private.join("database.sql");
        let tool = self.tool("pre-data").arg("--create").arg("--use-list").arg(list);
        self.succeed("reading schema.dump", tool.arg("--file").arg(&out).arg(&self.file)).await?;
        self.read(&out)
    }

    /// Runs a section, or the entries of it that are named, against a database.
    pub(super) async fn run(
        &self,
        access: &Access,
        doing: &str,
        section: &str,
        part: Run<'_>,
    ) -> Result<(), LoadError> {
        let mut tool = self.tool(section).arg("--exit-on-error");
        match part {
            Run::All => {}
            Run::Entries { entries, jobs } => {
                tool = tool.arg("--use-list").arg(self.write_list("run.list", entries)?);
                tool = tool.arg(format!("--jobs={jobs}"));
            }
            Run::Table { schema, name } => {
                tool = tool.arg(format!("--schema={schema}")).arg(format!("--table={name}"));
            }
        }
        tool = tool.arg("--dbname").arg(connection_text(&access.address.database)).arg(&self.file);
        // What was begun is not complete before the very end, which waits for the disk.
        let language = if self.language == Language::English { " -c lc_messages=C" } else { "" };
        let settings = format!("-c synchronous_commit=off -c default_transaction_read_only=off{language}");
        tool = tool.env("PGOPTIONS", settings);
        let tool = access.tell(tool, &self.private).map_err(|cause| self.private_error("write", "password", cause))?;
        let output = tool.run().await?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = Complaint::read(&output);
        let server = access.address.to_string();
        Err(LoadError::Server {
            server,
            doing: complaint.entry.map_or_else(|| doing.to_owned(), |entry| format!("{doing}, {entry}")),
            hint: Some(hint(&complaint.what)),
            what: complaint.what,
        })
    }

    fn tool(&self, section: &str) -> Tool {
        let mut tool = self.tools.tool("pg_restore").arg(format!("--section={section}")).arg("--no-password");
        if self.owners == Owners::Drop {
            tool = tool.args(["--no-owner", "--no-privileges"]);
        }
        if self.outside == Outside::Shut {
            tool = tool.arg("--no-subscriptions");
        }
        if self.tablespaces == Tablespaces::Drop {
            tool = tool.arg("--no-tablespaces");
        }
        tool.deadline(DEADLINE).stderr_tail_bytes(COMPLAINT_BYTES)
    }

    async fn succeed(&self, doing: &str, tool: Tool) -> Result<(), LoadError> {
        let output = tool.run().await?;
        if output.status.success() {
            return Ok(());
        }
        Err(LoadError::unsafe_member(
            "schema.dump",
            format!("cannot be used ({doing}): {}", Complaint::read(&output).what),
        ))
    }

    fn write_list(&self, name: &str, entries: &[Entry]) -> Result<PathBuf, LoadError> {
        let path = self.private.join(name);
        let text: String = entries.iter().flat_map(|entry| [&entry.line, "\n"]).collect();
        std::fs::write(&path, text).map_err(|cause| self.private_error("write", name, cause))?;
        Ok(path)
    }

    fn read(&self, path: &Path) -> Result<String, LoadError> {
        let broken = |cause| self.private_error("read", &path.display().to_string(), cause);
        if std::fs::metadata(path).map_err(broken)?.len() > MAX_TEXT_BYTES {
            return Err(LoadError::unsafe_member("schema.dump", "lists more than any database has"));
        }
        let bytes = std::fs::read(path).map_err(broken)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn private_error(&self, verb: &'static str, name: &str, cause: std::io::Error) -> LoadError {
        LoadError::Private { verb, path: self.private.join(name).display().to_string(), cause }
    }
}

/// What of a section is run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Run<'a> {
    /// All of it, one after the other.
    All,
    /// These entries, so many at a time.
    Entries { entries: &'a [Entry], jobs: u32 },
    /// One table, without what belongs to it.
    Table { schema: &'a str, name: &'a str },
}

/// A bare name with `=` in it would be read as a connection string, so that is what it gets.
fn connection_text(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// What pg_restore said first, and about which entry.
#[derive(Debug, PartialEq, Eq)]
struct Complaint {
    entry: Option<String>,
    what: String,
}

impl Complaint {
    fn read(output: &Output) -> Self {
        Self::of(&output.stderr_tail)
            .unwrap_or_else(|| Self { entry: None, what: format!("pg_restore ended with {}", output.status) })
    }

    fn of(stderr: &str) -> Option<Self> {
        let mut entry = None;
        for line in stderr.lines() {
            if let Some((_, rest)) = line.split_once("from TOC entry ") {
                entry = rest.splitn(4, ' ').nth(3).map(str::to_owned);
            } else if let Some((_, what)) = line.split_once("error: ") {
                let what = what.trim_start_matches("could not execute query: ").trim_start_matches("ERROR:").trim();
                return Some(Self { entry, what: what.to_owned() });
            }
        }
        let last = stderr.lines().rfind(|line| !line.trim().is_empty())?;
        Some(Self { entry, what: last.trim().to_owned() })
    }
}

fn hint(what: &str) -> String {
    if what.contains("No space left") {
        "make room on the server's disk, then restore again with --overwrite".to_owned()
    } else if what.contains("permission denied") || what.contains("must be ") {
        "log in as a superuser, or add --no-owner; then restore again with --overwrite".to_owned()
    } else if what.contains("connection") {
        "see in the server's log why it ended; then restore again with --overwrite".to_owned()
    } else {
        "the database is not complete: mend the cause, then restore again with --overwrite".to_owned()
    }
}

/// A server error where only trouble is at hand.
pub(super) fn trouble(access: &Access, doing: impl Into<String>) -> impl FnOnce(ServerTrouble) -> LoadError {
    let server = access.address.to_string();
    let doing = doing.into();
    move |trouble| LoadError::server(&server, doing, trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let entry = Entry::read("3210; 2606 16397 CONSTRAINT public users users_pkey postgres").unwrap();
        assert_eq!((entry.number(), entry.description()), (3210, "CONSTRAINT public users users_pkey postgres"));
        assert_eq!(Entry::read("; Selected TOC Entries:"), None);
        assert_eq!(Entry::read(""), None);
        assert_eq!(connection_text("a=b' \\"), "dbname='a=b\\' \\\\'");
    }

    #[test]
    fn the_first_complaint_counts() {
        let said = "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 215; 1259 16389 TABLE t owner\n\
                    pg_restore: error: could not execute query: ERROR:  type \"mood\" does not exist\nLINE 2: x\n\
                    Command was: CREATE TABLE public.t (\n    a mood\n);\n";
        assert_eq!(
            Complaint::of(said),
            Some(Complaint { entry: Some("TABLE t owner".into()), what: "type \"mood\" does not exist".into() })
        );
        assert_eq!(Complaint::of("odd\n\n"), Some(Complaint { entry: None, what: "odd".into() }));
        assert_eq!(Complaint::of(""), None);
    }
}
