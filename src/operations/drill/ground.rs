//! Where a database of a drill comes to stand: a server that the drill makes, of this machine's programs or in a container,
//! or a database on a server that is there.
//!
//! What is made runs nothing foreign before something is loaded into it. This file loads nothing.

use std::path::Path;
use std::sync::Arc;

use crate::config::{
    ContainerSettings, DrillRole, DrillSettings, ExistingServer, ScratchServer, ServerGround, ServerSettings,
};
use crate::domain::contents::PostgresFacts;
use crate::domain::ids::{JobName, RecordId, SourceName};
use crate::domain::record::DrillGround;
use crate::error::{Code, Error, Result};
use crate::scratch::confine::{Confinement, Trust};
use crate::scratch::folder::Scratch;
use crate::scratch::guest::{self, Guest, GuestError, GuestOptions, Powers};
use crate::scratch::postgres::container::{self, Container};
use crate::scratch::postgres::{Durability, Server, ServerOptions};
use crate::sources::postgres::binaries::{MAJORS, Tools, ToolsError, Wanted};
use crate::sources::postgres::connect::Access;

use super::super::access::access_of;
use super::super::host::Host;

/// What a server may plan with: a quarter of the machine's memory, within these.
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024 * 1024..=2 * 1024 * 1024 * 1024;
/// Connections beyond those that load or compare: pg_restore's own, the user's checks.
const SPARE_CONNECTIONS: u32 = 20;
/// What makes and runs a server, and what loads into one.
const SERVER_PROGRAMS: [&str; 2] = ["postgres", "initdb"];
const CLIENT_PROGRAMS: [&str; 1] = ["pg_restore"];
/// The database that every new cluster has.
const MAINTENANCE_DATABASE: &str = "postgres";

/// What a database is made in.
pub(super) struct Place<'a> {
    pub(super) host: &'a Host,
    pub(super) scratch: &'a Scratch,
    /// Under which rights a server of ours runs; it may be missing where none is made.
    pub(super) confinement: Option<&'a Confinement>,
    pub(super) trust: Trust,
    pub(super) settings: &'a ScratchServer,
    pub(super) job: &'a JobName,
    pub(super) id: &'a RecordId,
}

/// What a database stands on.
pub(super) enum Ground {
    /// A server of the drill's own.
    Scratch {
        server: Box<Server>,
        /// Its programs' version.
        version: String,
        settings: ServerSettings,
        container: Option<Arc<Container>>,
    },
    /// A server that is there.
    Existing(Box<Guest>),
}

/// Makes it; gives the tools that load into it as well.
///
/// # Errors
/// When programs, image or server are not there, not safe, or do not work.
pub(super) fn make(place: &Place<'_>, source: &SourceName, facts: &PostgresFacts) -> Result<(Ground, Tools)> {
    let host = place.host;
    let major = facts.server_version_number / 10_000;
    match &place.settings.ground {
        // A signal need not wait for a server: what was begun of it ends with the confinement.
        ServerGround::Programs => interruptible(host, own_server(place, source, facts, major)),
        ServerGround::Container(settings) => {
            interruptible(host, server_in_container(place, settings, source, facts, major))
        }
        // What was begun of a database on another server does not end by itself: it is waited for.
        ServerGround::Existing(settings) => host.runtime.block_on(guest_database(place, settings, source, facts)),
    }
}

/// Removes what killed drills left that a folder's removal does not: to be called before their folders are removed. Gives
/// what to know of it.
pub(super) fn remove_leftovers(host: &Host, settings: &DrillSettings) -> Vec<String> {
    let removed: Result<Vec<String>> = match &settings.server.ground {
        ServerGround::Programs => Ok(Vec::new()),
        ServerGround::Container(container) => host.runtime.block_on(async {
            let program = container::find_program(container.program.as_deref())?;
            let base = std::path::absolute(&settings.scratch).unwrap_or_else(|_| settings.scratch.clone());
            Ok(container::remove_leftovers(&program, &base).await?)
        }),
        ServerGround::Existing(existing) => host.runtime.block_on(async {
            Ok(guest::remove_leftovers(&access_of(&existing.address, existing.password.as_ref())?).await?)
        }),
    };
    let what = match &settings.server.ground {
        ServerGround::Existing(existing) => format!("database {{}} on {}", existing.address),
        ServerGround::Programs | ServerGround::Container(_) => "container {}".to_owned(),
    };
    match removed {
        Ok(names) => names
            .iter()
            .map(|name| format!("removed {}, left by a drill that was killed", what.replace("{}", name)))
            .collect(),
        // Where the server is not there at all, the drill itself says so.
        Err(error) => vec![format!("leftovers of earlier drills could not be looked for: {error}")],
    }
}

async fn own_server(
    place: &Place<'_>,
    source: &SourceName,
    facts: &PostgresFacts,
    major: u32,
) -> Result<(Ground, Tools)> {
    let configured = place.settings.tools.as_deref();
    let programs = Tools::find(Wanted::Exactly(major), configured, &SERVER_PROGRAMS).await?;
    let tools = client_tools(major, configured, place.trust).await?;
    start(place, source, facts, &programs, None).await.map(|ground| (ground, tools))
}

async fn server_in_container(
    place: &Place<'_>,
    settings: &ContainerSettings,
    source: &SourceName,
    facts: &PostgresFacts,
    major: u32,
) -> Result<(Ground, Tools)> {
    let tools = client_tools(major, place.settings.tools.as_deref(), place.trust).await?;
    let program = container::find_program(settings.program.as_deref())?;
    let name = format!("lifeboat-drill-{}-{}-{source}", place.job, place.id);
    let owner = place.confinement.and_then(Confinement::owner);
    let found = Container::find(&program, &settings.image, major, place.scratch.path(), &name, owner).await;
    let (container, programs) = found?;
    start(place, source, facts, &programs, Some(Arc::new(container))).await.map(|ground| (ground, tools))
}

async fn start(
    place: &Place<'_>,
    source: &SourceName,
    facts: &PostgresFacts,
    programs: &Tools,
    container: Option<Arc<Container>>,
) -> Result<Ground> {
    let confinement = place
        .confinement
        .ok_or_else(|| Error::new(Code::Internal, format!("the server of source {source} would run unconfined")))?;
    let settings = place.settings.settings;
    let options = ServerOptions {
        tools: programs,
        container: container.as_ref(),
        dir: &place.scratch.path().join(source.as_str()),
        confinement,
        durability: match settings {
            ServerSettings::Drill => Durability::Off,
            ServerSettings::Production => Durability::AsInProduction,
        },
        encoding: &facts.encoding,
        collate: &facts.collate,
        ctype: &facts.ctype,
        max_connections: jobs(place.host).saturating_mul(2).saturating_add(SPARE_CONNECTIONS),
        memory_bytes: memory_bytes(),
    };
    let server = Box::new(Server::start(&options).await?);
    let version = format!("{}.{}", programs.major, programs.minor);
    Ok(Ground::Scratch { server, version, settings, container })
}

async fn guest_database(
    place: &Place<'_>,
    settings: &ExistingServer,
    source: &SourceName,
    facts: &PostgresFacts,
) -> Result<(Ground, Tools)> {
    let access = access_of(&settings.address, settings.password.as_ref())?;
    // Before anything is made there: the server's own tools fit it, whatever the source's version was.
    let tenant = guest::look(&access).await?;
    let tools = client_tools(tenant.version_number / 10_000, place.settings.tools.as_deref(), place.trust).await?;
    let mut number = [0; 8];
    number.copy_from_slice(&blake3::hash(format!("{} {source}", place.id).as_bytes()).as_bytes()[..8]);
    let options = GuestOptions {
        access: &access,
        number,
        encoding: &facts.encoding,
        collate: &facts.collate,
        ctype: &facts.ctype,
        powers: powers(settings),
    };
    Ok((Ground::Existing(Box::new(Guest::make(&options).await?)), tools))
}

/// What the role of a server that is there may be.
pub(in crate::operations) fn powers(settings: &ExistingServer) -> Powers {
    match settings.role {
        DrillRole::Ordinary => Powers::Ordinary,
        DrillRole::Any => Powers::Any,
    }
}

impl Ground {
    /// A database of the server that can always be logged in to.
    pub(super) fn maintenance(&self) -> Access {
        match self {
            Self::Scratch { server, .. } => Access { address: server.address(MAINTENANCE_DATABASE), password: None },
            Self::Existing(guest) => guest.maintenance().clone(),
        }
    }

    /// The database that was, or is to be, restored. `of_source` is its name at the source.
    pub(super) fn database(&self, of_source: &str) -> Access {
        match self {
            Self::Scratch { server, .. } => Access { address: server.address(of_source), password: None },
            Self::Existing(guest) => guest.access(),
        }
    }

    /// What to know of it.
    pub(super) fn remarks(&self) -> Vec<String> {
        match self {
            Self::Scratch { server, container, .. } => {
                let described = container
                    .as_ref()
                    .map(|container| format!("the server ran in a container: {}", container.describe()));
                server.remarks().iter().cloned().chain(described).collect()
            }
            Self::Existing(guest) => {
                let address = guest.access().address;
                let mut remarks = vec![format!(
                    "restored into {address}, a server that was there: what the backup holds ran there as role {}, which nobody \
                     here could confine; owners, rights, roles and tablespaces of the source were not restored",
                    address.role
                )];
                if !guest.tenant().powers.is_empty() {
                    let powers = guest.tenant().powers.join(", ");
                    remarks.push(format!(
                        "that role reaches beyond its own databases ({powers}), as `allow_superuser` lets it"
                    ));
                }
                remarks.extend(guest.remarks().iter().cloned());
                remarks
            }
        }
    }

    /// How the server's log ends, where it is ours and has something to say.
    pub(super) fn log_tail(&self) -> Option<String> {
        match self {
            Self::Scratch { server, .. } => Some(server.log_tail()).filter(|tail| !tail.trim().is_empty()),
            Self::Existing(_) => None,
        }
    }

    /// What to do where the disk of a server of ours is full.
    pub(super) fn lacks_room(&self) -> Option<String> {
        match self {
            Self::Scratch { server, .. } => server.lacks_room(),
            Self::Existing(_) => None,
        }
    }

    /// Where an extension would have to be installed.
    pub(super) fn machine(&self) -> &'static str {
        match self {
            Self::Scratch { container: None, .. } => "on this host",
            Self::Scratch { container: Some(_), .. } => "in the image",
            Self::Existing(_) => "on that server's machine",
        }
    }

    /// What was set, for the sealed details.
    pub(super) fn settings(&self) -> serde_json::Value {
        match self {
            Self::Scratch { server, container, .. } => match container {
                Some(container) => serde_json::json!({ "set": server.settings(), "container": container.describe() }),
                None => serde_json::json!(server.settings()),
            },
            Self::Existing(guest) => serde_json::json!({ "server": guest.maintenance().address.to_string() }),
        }
    }

    /// Version, settings and kind, for the record.
    pub(super) fn measured(&self) -> (String, String, DrillGround) {
        match self {
            Self::Scratch { version, settings, container, .. } => {
                let ground = if container.is_some() { DrillGround::Container } else { DrillGround::Scratch };
                (version.clone(), settings.word().to_owned(), ground)
            }
            Self::Existing(guest) => {
                let number = guest.tenant().version_number;
                let version = format!("{}.{}", number / 10_000, number % 10_000);
                (version, "its-own".to_owned(), DrillGround::Existing)
            }
        }
    }

    /// Ends the server, or drops the database; kept, a database on a server that is there stays under another name. Gives
    /// what to know of it.
    pub(super) fn end(self, host: &Host, keep: bool) -> Vec<String> {
        match self {
            Self::Scratch { server, .. } => host
                .runtime
                .block_on(server.stop())
                .err()
                .map(|error| Error::from(error).to_string())
                .into_iter()
                .collect(),
            Self::Existing(guest) if keep => {
                let server = guest.maintenance().address.clone();
                match host.runtime.block_on(guest.keep()) {
                    Ok(name) => vec![format!(
                        "the restored database is left as {}: drop it when you are done",
                        server.with_database(&name)
                    )],
                    Err(error) => vec![Error::from(error).to_string()],
                }
            }
            Self::Existing(guest) => {
                let left = |error: GuestError| format!("{}; the next drill drops it", Error::from(error));
                host.runtime.block_on(guest.remove()).err().map(left).into_iter().collect()
            }
        }
    }
}

fn interruptible<T>(host: &Host, work: impl Future<Output = Result<T>>) -> Result<T> {
    host.runtime.block_on(async {
        tokio::select! {
            done = work => done,
            () = host.interrupt.raised() => {
                Err(Error::new(Code::Interrupted, "interrupted while the scratch server was being made"))
            }
        }
    })
}

/// Whoever wrote the dump must not be able to run programs through what reads it: of the tools that can, the ones of the
/// server's major version, or a newer one's.
pub(in crate::operations) async fn client_tools(
    major: u32,
    configured: Option<&Path>,
    trust: Trust,
) -> Result<Tools, ToolsError> {
    if let Some(folder) = configured
        && CLIENT_PROGRAMS.iter().all(|name| folder.join(name).is_file())
    {
        let tools = Tools::find(Wanted::AtLeast(major), configured, &CLIENT_PROGRAMS).await?;
        return match trust {
            Trust::Source => Ok(tools),
            Trust::Hostile => tools.must_be_fenced().map(|()| tools),
        };
    }
    let mut refusal = None;
    for least in major..=*MAJORS.end() {
        match Tools::find(Wanted::AtLeast(least), None, &CLIENT_PROGRAMS).await {
            Err(error) => return Err(refusal.unwrap_or(error)),
            Ok(tools) => match (tools.must_be_fenced(), trust) {
                (Ok(()), _) | (Err(_), Trust::Source) => return Ok(tools),
                (Err(error), Trust::Hostile) => refusal = refusal.or(Some(error)),
            },
        }
    }
    Err(refusal.unwrap_or(ToolsError::Missing {
        programs: CLIENT_PROGRAMS.map(str::to_owned).into(),
        major,
        looked: "the usual places".to_owned(),
    }))
}

/// Connections that load or compare.
pub(super) fn jobs(host: &Host) -> u32 {
    u32::try_from(host.workers).unwrap_or(u32::MAX).clamp(1, 32)
}

fn memory_bytes() -> u64 {
    let system = rustix::system::sysinfo();
    let total = system.totalram.saturating_mul(u64::from(system.mem_unit));
    (total / 4).clamp(*MEMORY_BYTES.start(), *MEMORY_BYTES.end())
}
