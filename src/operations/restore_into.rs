//! `restore --into`: from the vault into a database server, with nothing staged but the schema.
//!
//! What must come before the rows stands at the beginning of the plan and is waited for; the rows go in by many
//! connections (`fill`), dealt out so that the server need not log them where that can be (`lanes`).

mod fill;
mod lanes;

use std::path::PathBuf;
use std::sync::Mutex;

use age::secrecy::SecretString;
use serde::Serialize;

use crate::domain::contents::{Facts, PostgresFacts};
use crate::domain::ids::SourceName;
use crate::domain::manifest::{Manifest, SourceEntry};
use crate::domain::server::ServerAddress;
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::sources::postgres::binaries::{Tools, Wanted};
use crate::sources::postgres::connect::Access;
use crate::sources::postgres::layout::{Part, matches};
use crate::sources::postgres::load::{
    Existing, Globals, LoadOptions, Loader, Needs, Outside, Owners, Tenancy, server_major,
};
use crate::vault::reader::{PlannedPiece, Reader};

use super::host::Host;
use super::lock;
use super::restore::plan;

use fill::fill;

/// The databases of a server that are there whatever was lost: the second where the first is what is restored, because
/// nobody can drop the database that he is in.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// What to restore, and into what.
#[derive(Debug)]
pub struct IntoRequest<'a> {
    /// The source; of kind `postgres`.
    pub source: &'a SourceName,
    /// The server, and the database to restore into.
    pub address: &'a ServerAddress,
    /// The role's password.
    pub password: Option<SecretString>,
    /// The folder of the server's tools, where it is not one of the usual ones.
    pub tools: Option<PathBuf>,
    /// Only tables that these patterns (`schema.table`) mean; empty means everything.
    pub tables: &'a [String],
    /// Connections that load; `None` for one a core.
    pub jobs: Option<u32>,
    /// Owners and rights.
    pub owners: Owners,
    /// Missing roles.
    pub globals: Globals,
    /// What is in the way.
    pub existing: Existing,
    /// Other servers.
    pub outside: Outside,
}

/// What was restored, and when what could be used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IntoReport {
    /// The source.
    pub name: SourceName,
    /// Its kind.
    pub kind: String,
    /// The database, without secrets.
    pub server: String,
    /// Tables that rows were loaded into.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes of rows, as COPY has them.
    pub bytes: u64,
    /// From the start until data and keys were there; `None` where single tables were restored.
    pub queryable_seconds: Option<f64>,
    /// From the start until everything was there.
    pub complete_seconds: f64,
    /// What to know beside the success.
    pub remarks: Vec<String>,
}

/// Restores a database.
///
/// # Errors
/// What the server refused, naming the table; damage in the vault; [`Code::NotFound`], [`Code::TargetNotEmpty`].
/// What was loaded until then stays.
pub fn restore_into(
    host: &Host,
    reader: &Reader,
    manifest: &Manifest,
    request: &IntoRequest<'_>,
    progress: &dyn Progress,
) -> Result<IntoReport> {
    let started = host.clock.monotonic();
    let source = postgres_source(manifest, request.source)?;
    let facts = facts(reader, manifest, source)?;
    let target = Access { address: request.address.clone(), password: request.password.clone() };
    let [usual, other] = MAINTENANCE;
    let access = target.with_database(if request.address.database == usual { other } else { usual });
    let needs = Needs::from(&facts);
    let tools = tools(host, &access, needs.server_version_number / 10_000, request.tools.as_deref())?;
    let private = tempfile::Builder::new().prefix("lifeboat-restore-").tempdir().map_err(|cause| {
        Error::new(Code::RestoreFailed, format!("cannot make a folder for the schema: {cause}"))
            .with_hint("make room in the folder for temporary files, or name another one with TMPDIR")
    })?;
    let jobs = request.jobs.unwrap_or_else(|| u32::try_from(host.workers).unwrap_or(1)).max(1);
    let options = LoadOptions {
        access,
        database: request.address.database.clone(),
        tools,
        jobs,
        owners: request.owners,
        globals: request.globals,
        existing: request.existing,
        outside: request.outside,
        tenancy: Tenancy::Owner,
        private: private.path().to_owned(),
        tables: (!request.tables.is_empty()).then(|| request.tables.to_vec()),
        needs,
    };
    let mut queryable_seconds = None;
    let mut phase = |name| {
        if name == "queryable" {
            queryable_seconds = Some((host.clock.monotonic() - started).as_secs_f64());
        }
    };
    let loaded = load(host, reader, manifest, source, options, &mut phase, progress)?;
    must_be_all(&facts, request, loaded.rows)?;
    let mut remarks = loaded.remarks;
    if request.globals == Globals::Make && !facts.role_passwords {
        remarks.push("the source's server hid its roles' passwords: roles that were made have none".to_owned());
    }
    Ok(IntoReport {
        name: source.name.clone(),
        kind: source.kind.clone(),
        server: request.address.to_string(),
        tables: loaded.tables,
        rows: loaded.rows,
        bytes: loaded.bytes,
        queryable_seconds,
        complete_seconds: (host.clock.monotonic() - started).as_secs_f64(),
        remarks,
    })
}

/// What was loaded.
#[derive(Debug)]
pub(super) struct LoadedSource {
    /// Tables that rows were loaded into.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes of rows, as COPY has them.
    pub bytes: u64,
    /// What to know beside the success.
    pub remarks: Vec<String>,
}

/// Loads a source into a server, to the last index. `phase` is called when `index` and `analyze` begin, and when the
/// database can be asked: `queryable`.
///
/// # Errors
/// As [`restore_into`].
pub(super) fn load(
    host: &Host,
    reader: &Reader,
    manifest: &Manifest,
    source: &SourceEntry,
    options: LoadOptions,
    phase: &mut (dyn FnMut(&'static str) + Send),
    progress: &dyn Progress,
) -> Result<LoadedSource> {
    let context = |error: Error| error.context(format!("source {}", source.name));
    let (jobs, whole) = (options.jobs, options.tables.is_none());
    let loader = Loader::begin(options, &host.runtime)?;
    progress.begin(&format!("restoring {}", source.name), whole.then_some(source.logical_bytes));
    let filled = fill(host, reader, &|| plan(reader, manifest, source), loader, jobs, progress);
    progress.end();
    let (filling, total) = filled.map_err(context)?;

    let tables = filling.tables();
    let phase = Mutex::new(phase);
    progress.begin(&format!("making keys and indexes of {}", source.name), None);
    let finished = filling.finish(host.interrupt.raised(), &|name| (lock(&phase))(name));
    progress.end();
    let remarks = finished.map_err(Error::from).map_err(context)?.remarks;
    Ok(LoadedSource { tables, rows: total.rows, bytes: total.bytes, remarks })
}

fn postgres_source<'a>(manifest: &'a Manifest, name: &SourceName) -> Result<&'a SourceEntry> {
    let Some(source) = manifest.sources.iter().find(|source| source.name == *name) else {
        let there: Vec<&str> = manifest.sources.iter().map(|source| source.name.as_str()).collect();
        return Err(Error::new(Code::NotFound, format!("backup {} has no source {name}", manifest.id))
            .with_hint(format!("it has: {}", there.join(", "))));
    };
    if source.kind != "postgres" {
        return Err(Error::new(Code::Usage, format!("source {name} is of kind {}, not postgres", source.kind))
            .with_hint("restore it into a folder: --to DIR"));
    }
    Ok(source)
}

/// The facts, which stand at the end of the contents: they say what the server must have.
fn facts(reader: &Reader, manifest: &Manifest, source: &SourceEntry) -> Result<PostgresFacts> {
    let mut plan = plan(reader, manifest, source)?;
    while plan.next_piece()?.is_some() {}
    match &plan.tail().facts {
        Some(Facts::Postgres(facts)) => Ok((**facts).clone()),
        _ => Err(Error::new(
            Code::DataUnsafe,
            format!("the contents of source {} have no facts of a database", source.name),
        )),
    }
}

/// As many rows as were counted when the backup was made; their checksums are for a drill to compare.
fn must_be_all(facts: &PostgresFacts, request: &IntoRequest<'_>, loaded_rows: u64) -> Result<()> {
    let is_wanted = |schema: &str, name: &str| {
        request.tables.is_empty() || request.tables.iter().any(|pattern| matches(pattern, schema, name))
    };
    let wanted = facts.tables.iter().filter(|table| is_wanted(&table.schema, &table.name));
    let counted: u64 = wanted.map(|table| table.rows).sum();
    if counted == loaded_rows {
        return Ok(());
    }
    let what =
        format!("source {}: {loaded_rows} rows were loaded, and the backup was made of {counted}", request.source);
    Err(Error::new(Code::DataUnsafe, what).with_hint("restore another backup: `lifeboat list` shows them"))
}

/// The tools of the server's own version; of a newer one, where these are missing.
fn tools(host: &Host, access: &Access, source_major: u32, folder: Option<&std::path::Path>) -> Result<Tools> {
    let server = server_major(access, &host.runtime)?;
    let find = |wanted| host.runtime.block_on(Tools::find(wanted, folder, &["pg_restore"]));
    match find(Wanted::Exactly(server)) {
        Ok(tools) => Ok(tools),
        Err(_) => Ok(find(Wanted::AtLeast(source_major))?),
    }
}

/// The members of a piece that are ours.
fn parts(piece: &PlannedPiece) -> Vec<Part> {
    piece.members.iter().filter_map(|member| Part::of(&member.path.0)).collect()
}
