//! pg_dumpall and pg_dump: roles and tablespaces, and everything that stands before and after the data. Never
//! re-implemented; both write files into a private folder, small ones, because there is no data in them.

use std::path::{Path, PathBuf};

use crate::domain::contents::{Note, NoteClass, RawText};
use crate::domain::server::ServerAddress;
use crate::process::Tool;
use crate::sources::SourceError;

use super::PostgresOptions;
use super::binaries::{Tools, Wanted};
use super::dependents::unrestorable;
use super::layout::{GLOBALS, SCHEMA};
use super::session::Session;
use super::tables::Catalog;
use super::trouble::{tool_error, tool_failed};

/// What is kept of pg_dump's complaints: a statement that failed stands behind the reason, with all tables in it.
const COMPLAINT_BYTES: usize = 1024 * 1024;

/// What the tools left in the private folder.
#[derive(Debug)]
pub(super) struct Dumped {
    pub(super) globals: PathBuf,
    pub(super) schema: PathBuf,
    /// Numbers of its entries that are not to be restored.
    pub(super) unrestorable: Vec<u32>,
    /// Whether the roles' passwords are in the globals.
    pub(super) role_passwords: bool,
    /// What the tools warned of.
    pub(super) notes: Vec<Note>,
}

/// Finds tools that can read a server of this major version.
pub(super) async fn tools(options: &PostgresOptions, major: u32) -> Result<Tools, SourceError> {
    let found = Tools::find(Wanted::AtLeast(major), options.tools.as_deref(), &["pg_dump", "pg_dumpall"]).await;
    found.map_err(|error| tool_error(&options.access.address, "cannot dump it", &error))
}

/// Runs both. pg_dump sees what `snapshot` sees, and waits for no lock longer than we may.
pub(super) async fn dump(
    options: &PostgresOptions,
    tools: &Tools,
    private: &Path,
    snapshot: &str,
    catalog: &Catalog,
) -> Result<Dumped, SourceError> {
    let mut notes = Vec::new();
    let globals = private.join(GLOBALS);
    let role_passwords = dump_globals(options, tools, private, &globals, &mut notes).await?;
    let schema = private.join(SCHEMA);
    let pg_dump = told(options, tools.tool("pg_dump"), private)?
        .args([
            "--format=custom",
            "--compress=0",
            "--create",
            "--section=pre-data",
            "--section=post-data",
            "--no-password",
        ])
        .arg(format!("--snapshot={snapshot}"))
        .arg(format!("--lock-wait-timeout={}", options.lock_wait_milliseconds()))
        .args(catalog.excluded.iter().map(|name| format!("--exclude-table={name}")))
        .arg(concat("--file=", &schema))
        .stderr_tail_bytes(COMPLAINT_BYTES)
        .deadline(options.max_snapshot);
    let output = pg_dump.run_to_success().await;
    let output = output.map_err(|error| tool_failed(&options.access.address, "cannot dump the schema", &error))?;
    note_warnings(SCHEMA, &output.stderr_tail, &mut notes);
    let unrestorable = without_dependents(options, tools, private, &schema, catalog, &mut notes).await?;
    Ok(Dumped { globals, schema, unrestorable, role_passwords, notes })
}

/// Finds the entries of the schema that need what is left out, and notes what they make.
async fn without_dependents(
    options: &PostgresOptions,
    tools: &Tools,
    private: &Path,
    schema: &Path,
    catalog: &Catalog,
    notes: &mut Vec<Note>,
) -> Result<Vec<u32>, SourceError> {
    if catalog.unrestorable.is_empty() {
        return Ok(Vec::new());
    }
    let file = private.join("entries");
    let pg_restore = tools.tool("pg_restore").args(["--list", "--verbose"]).arg(concat("--file=", &file)).arg(schema);
    let output = pg_restore.deadline(options.max_snapshot).run_to_success().await;
    output.map_err(|error| tool_failed(&options.access.address, "cannot list what is in the schema", &error))?;
    let list = std::fs::read(&file).map_err(|cause| SourceError::io("read", file.display().to_string(), cause))?;
    let found = unrestorable(&String::from_utf8_lossy(&list), &catalog.unrestorable);
    let shown = found.iter().filter_map(|found| catalog.unrestorable.get(&found.object?));
    notes.extend(shown.map(|shown| Note {
        class: NoteClass::Skipped,
        path: RawText::from(shown.as_str()),
        detail: "not restored, because it needs what is left out".to_owned(),
    }));
    Ok(found.iter().map(|found| found.entry).collect())
}

/// Whether the passwords came along: a managed server shows them to nobody.
async fn dump_globals(
    options: &PostgresOptions,
    tools: &Tools,
    private: &Path,
    file: &Path,
    notes: &mut Vec<Note>,
) -> Result<bool, SourceError> {
    let address = &options.access.address;
    let with = |passwords: &[&str]| -> Result<Tool, SourceError> {
        Ok(told(options, tools.tool("pg_dumpall"), private)?
            .args(["--globals-only", "--no-password"])
            .args(passwords)
            .arg(format!("--database={}", conninfo(address)))
            .arg(concat("--file=", file))
            .deadline(options.max_snapshot))
    };
    // Asked, because what pg_dumpall says when it is refused may be in any language.
    let tried = "cannot dump the roles";
    let mut session = Session::open(&options.access).await?;
    let sees_passwords: bool = session.value("SELECT has_table_privilege('pg_authid', 'SELECT')", tried).await?;
    session.close().await;
    if sees_passwords {
        let output = with(&[])?.run_to_success().await.map_err(|error| tool_failed(address, tried, &error))?;
        note_warnings(GLOBALS, &output.stderr_tail, notes);
        return Ok(true);
    }
    let output = with(&["--no-role-passwords"])?.run_to_success().await;
    let output = output.map_err(|error| tool_failed(address, tried, &error))?;
    note_warnings(GLOBALS, &output.stderr_tail, notes);
    notes.push(Note {
        class: NoteClass::Skipped,
        path: RawText::from(GLOBALS),
        detail: "without the roles' passwords: only a superuser sees them".to_owned(),
    });
    Ok(false)
}

/// pg_dumpall takes the database that it connects to from a connection string alone.
fn conninfo(address: &ServerAddress) -> String {
    format!("dbname='{}'", address.database.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn told(options: &PostgresOptions, tool: Tool, private: &Path) -> Result<Tool, SourceError> {
    options.access.tell(tool, private).map_err(|cause| SourceError::io("write", private.display().to_string(), cause))
}

fn concat(option: &str, path: &Path) -> std::ffi::OsString {
    let mut whole = std::ffi::OsString::from(option);
    whole.push(path);
    whole
}

fn note_warnings(member: &str, stderr: &str, notes: &mut Vec<Note>) {
    notes.extend(stderr.lines().filter_map(|line| line.split_once("warning: ")).map(|(_, detail)| Note {
        class: NoteClass::Skipped,
        path: RawText::from(member),
        detail: detail.to_owned(),
    }));
}
