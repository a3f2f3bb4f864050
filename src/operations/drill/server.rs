//! A source that is restored into a scratch server: the server made, the backup loaded, what came of it compared.
//!
//! The fresh server runs nothing foreign; from the moment of loading it does. It does not know which checks the user
//! has.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::config::{ScratchServer, ServerSettings};
use crate::domain::check::Check;
use crate::domain::contents::{Facts, PostgresFacts};
use crate::domain::ids::SourceName;
use crate::domain::manifest::{Manifest, SourceEntry};
use crate::domain::record::DrillServer;
use crate::domain::server::ServerAddress;
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::scratch::confine::Confinement;
use crate::scratch::folder::Scratch;
use crate::scratch::postgres::{Durability, Server, ServerOptions};
use crate::sources::postgres::binaries::{MAJORS, Tools, ToolsError, Wanted};
use crate::sources::postgres::connect::Access;
use crate::sources::postgres::examine::available_extensions;
use crate::sources::postgres::load::{Existing, Globals, LoadOptions, Needs, Outside, Owners};
use crate::sources::postgres::verify::verify;
use crate::vault::reader::Reader;

use super::super::host::Host;
use super::super::restore::plan;
use super::super::restore_into::load;
use super::locale;
use super::stopwatch::Stopwatch;

/// Room that a server takes beside its database: the cluster itself, and the log that it writes ahead.
pub(super) const SERVER_ROOM_BYTES: u64 = 512 * 1024 * 1024;
/// What a server may plan with: a quarter of the machine's memory, within these.
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024 * 1024..=2 * 1024 * 1024 * 1024;
/// Connections beyond those that load or compare: pg_restore's own, the user's checks.
const SPARE_CONNECTIONS: u32 = 20;
/// What makes and runs a server, and what loads into one.
const SERVER_PROGRAMS: [&str; 2] = ["postgres", "initdb"];
const CLIENT_PROGRAMS: [&str; 1] = ["pg_restore"];
/// The folder in scratch for passwords and schemas on their way into a server. No source can have such a name.
const PRIVATE: &str = ".load";
/// The database that every new cluster has.
const MAINTENANCE_DATABASE: &str = "postgres";

/// What a server is made in.
pub(super) struct Place<'a> {
    pub(super) host: &'a Host,
    pub(super) scratch: &'a Scratch,
    pub(super) confinement: &'a Confinement,
    pub(super) settings: &'a ScratchServer,
}

/// A database that is rehearsed, with the server that is its own.
pub(super) struct Database {
    name: SourceName,
    facts: Box<PostgresFacts>,
    server: Server,
    /// Its programs' version.
    version: String,
    tools: Tools,
    private: PathBuf,
    settings: ServerSettings,
    queryable_seconds: Option<f64>,
    complete_seconds: Option<f64>,
}

/// Reads the contents to their end, where the facts are.
///
/// # Errors
/// When the contents cannot be had or opened, or have no facts.
pub(super) fn facts(
    host: &Host,
    reader: &Reader,
    manifest: &Manifest,
    source: &SourceEntry,
) -> Result<Box<PostgresFacts>> {
    let mut plan = plan(reader, manifest, source)?;
    while plan.next_piece()?.is_some() {
        host.check_interrupted()?;
    }
    match plan.tail().facts.clone() {
        Some(Facts::Postgres(facts)) => Ok(facts),
        _ => Err(Error::new(Code::ObjectDamaged, "the contents have no facts of the database")),
    }
}

/// What a restored database takes on the disk.
pub(super) fn room_bytes(source: &SourceEntry, facts: &PostgresFacts) -> u64 {
    // Its size at the source has the indexes; the tar's size stands in where the source said less.
    facts.size_bytes.max(source.logical_bytes).saturating_add(SERVER_ROOM_BYTES)
}

impl Database {
    /// Makes a server of the source's major version, with nothing in it yet.
    ///
    /// # Errors
    /// When the programs are not there or not safe, or the server does not start.
    pub(super) fn start(place: &Place<'_>, source: &SourceEntry, facts: Box<PostgresFacts>) -> Result<Self> {
        let Place { host, scratch, confinement, settings } = *place;
        let major = facts.server_version_number / 10_000;
        let configured = settings.tools.as_deref();
        let private = private_folder(scratch, &source.name)?;
        let dir = scratch.path().join(source.name.as_str());
        // A signal need not wait for a server: what was begun of it ends with the confinement.
        let (version, tools, server) = host.runtime.block_on(async {
            let start = async {
                let programs = Tools::find(Wanted::Exactly(major), configured, &SERVER_PROGRAMS).await?;
                let tools = client_tools(major, configured, confinement).await?;
                let options = ServerOptions {
                    tools: &programs,
                    dir: &dir,
                    confinement,
                    durability: match settings.settings {
                        ServerSettings::Drill => Durability::Off,
                        ServerSettings::Production => Durability::AsInProduction,
                    },
                    encoding: &facts.encoding,
                    collate: &facts.collate,
                    ctype: &facts.ctype,
                    max_connections: jobs(host).saturating_mul(2).saturating_add(SPARE_CONNECTIONS),
                    memory_bytes: memory_bytes(),
                };
                let server = Server::start(&options).await?;
                Ok::<_, Error>((format!("{}.{}", programs.major, programs.minor), tools, server))
            };
            tokio::select! {
                started = start => started,
                () = host.interrupt.raised() => Err(interrupted()),
            }
        })?;
        Ok(Self {
            name: source.name.clone(),
            facts,
            server,
            version,
            tools,
            private,
            settings: settings.settings,
            queryable_seconds: None,
            complete_seconds: None,
        })
    }

    /// Names the locale or the extensions that this machine lacks, before anything is loaded. Gives what to know of the
    /// others.
    ///
    /// # Errors
    /// When one is missing, or the new server does not answer.
    pub(super) fn must_have_extensions(&self, host: &Host) -> Result<Vec<String>> {
        locale::must_be_there(host, &self.access(MAINTENANCE_DATABASE), &self.facts)?;
        let available = host.runtime.block_on(available_extensions(&self.access(MAINTENANCE_DATABASE)))?;
        let versions = |name: &str| available.iter().find(|(known, _)| known == name).map(|(_, versions)| versions);
        let missing: Vec<String> = self
            .facts
            .extensions
            .iter()
            .filter(|(name, _)| versions(name).is_none())
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        if !missing.is_empty() {
            let major = self.facts.server_version_number / 10_000;
            let what = format!("the scratch server lacks extensions of the source: {}", missing.join(", "));
            return Err(Error::new(Code::ScratchFailed, what)
                .with_hint(format!("install their packages for PostgreSQL {major} on this host")));
        }
        // The dump names no versions: a restore gets the one that the machine has.
        let other = |(name, version): &&(String, String)| versions(name).is_some_and(|there| !there.contains(version));
        let remark = |(name, version): &(String, String)| {
            format!("extension {name} was {version} at the source, and this host does not have that version")
        };
        Ok(self.facts.extensions.iter().filter(other).map(remark).collect())
    }

    /// Loads the backup: roles, schema, data, indexes, statistics; each is a phase of the drill. Gives what to know of it.
    ///
    /// # Errors
    /// The first that anything of it makes.
    pub(super) fn load(
        &mut self,
        host: &Host,
        reader: &Reader,
        manifest: &Manifest,
        source: &SourceEntry,
        stopwatch: &mut Stopwatch<'_>,
        progress: &dyn Progress,
    ) -> Result<Vec<String>> {
        let options = LoadOptions {
            access: self.access(MAINTENANCE_DATABASE),
            database: self.facts.database.clone(),
            tools: self.tools.clone(),
            jobs: jobs(host),
            owners: Owners::Keep,
            globals: Globals::Make,
            existing: Existing::Refuse,
            outside: Outside::Shut,
            private: self.private.clone(),
            tables: None,
            needs: Needs::from(&*self.facts),
        };
        let plan = plan(reader, manifest, source)?;
        let mut queryable = None;
        let mut phase = |name: &'static str| match name {
            QUERYABLE => queryable = Some(stopwatch.seconds()),
            other => stopwatch.phase(drills_word(other)),
        };
        let loaded = load(host, reader, source, plan, options, &mut phase, progress);
        self.queryable_seconds = queryable;
        let loaded = loaded?;
        self.complete_seconds = Some(stopwatch.seconds());
        Ok(loaded.remarks)
    }

    /// Holds what was loaded against the facts.
    ///
    /// # Errors
    /// When the server does not answer, or a signal asked us to end.
    pub(super) fn compare(&self, host: &Host) -> Result<Vec<Check>> {
        let access = self.access(&self.facts.database);
        let compared = verify(&access, &self.facts, jobs(host), host.interrupt.raised(), &host.runtime)?;
        let Some(checks) = compared else { return host.check_interrupted().map(|()| Vec::new()) };
        Ok(checks.into_iter().map(|check| Check { name: format!("{}: {}", self.name, check.name), ..check }).collect())
    }

    /// The source.
    pub(super) fn name(&self) -> &SourceName {
        &self.name
    }

    /// Where the restored database is.
    pub(super) fn address(&self) -> ServerAddress {
        self.server.address(&self.facts.database)
    }

    /// What to know of the server.
    pub(super) fn remarks(&self) -> Vec<String> {
        self.server.remarks().to_vec()
    }

    /// How the server's log ends, where it has something to say.
    pub(super) fn log_tail(&self) -> Option<String> {
        let tail = self.server.log_tail();
        (!tail.trim().is_empty()).then_some(tail)
    }

    /// What the server was set to, for the sealed details.
    pub(super) fn settings(&self) -> serde_json::Value {
        serde_json::json!({ "source": self.name, "settings": self.server.settings() })
    }

    /// Ends the server. Gives what the drill was measured on, and what went wrong with the end.
    pub(super) fn stop(self, host: &Host) -> (DrillServer, Option<Error>) {
        let stopped = host.runtime.block_on(self.server.stop());
        let measured = DrillServer {
            version: self.version,
            settings: self.settings.word().to_owned(),
            queryable_seconds: self.queryable_seconds,
            complete_seconds: self.complete_seconds,
        };
        (measured, stopped.err().map(Error::from))
    }

    fn access(&self, database: &str) -> Access {
        Access { address: self.server.address(database), password: None }
    }
}

/// What a load says when data and keys are there; it goes on with the phase that it is in.
const QUERYABLE: &str = "queryable";

/// A phase of a load by its name in docs/MEASURES.md.
fn drills_word(phase: &'static str) -> &'static str {
    match phase {
        "analyze" => "analyse",
        other => other,
    }
}

/// Whoever wrote the dump must not be able to run programs through what reads it: of the tools that can, the ones of the
/// source's major version, or a newer one's.
async fn client_tools(major: u32, configured: Option<&Path>, confinement: &Confinement) -> Result<Tools, ToolsError> {
    if let Some(folder) = configured
        && CLIENT_PROGRAMS.iter().all(|name| folder.join(name).is_file())
    {
        let tools = Tools::find(Wanted::AtLeast(major), configured, &CLIENT_PROGRAMS).await?;
        return match confinement {
            Confinement::TrustedSource => Ok(tools),
            Confinement::OwnUid(_) => tools.must_be_fenced().map(|()| tools),
        };
    }
    let mut refusal = None;
    for least in major..=*MAJORS.end() {
        match Tools::find(Wanted::AtLeast(least), None, &CLIENT_PROGRAMS).await {
            Err(error) => return Err(refusal.unwrap_or(error)),
            Ok(tools) => match (tools.must_be_fenced(), confinement) {
                (Ok(()), _) | (Err(_), Confinement::TrustedSource) => return Ok(tools),
                (Err(error), Confinement::OwnUid(_)) => refusal = refusal.or(Some(error)),
            },
        }
    }
    Err(refusal.unwrap_or(ToolsError::Missing {
        programs: CLIENT_PROGRAMS.map(str::to_owned).into(),
        major,
        looked: "the usual places".to_owned(),
    }))
}

fn private_folder(scratch: &Scratch, source: &SourceName) -> Result<PathBuf> {
    let folder = scratch.path().join(PRIVATE).join(source.as_str());
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|cause| Error::new(Code::ScratchFailed, format!("cannot make {}: {cause}", folder.display())))?;
    Ok(folder)
}

fn jobs(host: &Host) -> u32 {
    u32::try_from(host.workers).unwrap_or(u32::MAX).clamp(1, 32)
}

fn memory_bytes() -> u64 {
    let system = rustix::system::sysinfo();
    #[expect(clippy::useless_conversion, reason = "it has 32 bits on a machine of 32")]
    let total = u64::from(system.totalram).saturating_mul(u64::from(system.mem_unit));
    (total / 4).clamp(*MEMORY_BYTES.start(), *MEMORY_BYTES.end())
}

fn interrupted() -> Error {
    Error::new(Code::Interrupted, "interrupted while the scratch server was being made")
}
