//! A source that is restored into a server: the backup loaded, what came of it compared. What the server is stands in
//! ground.rs.
//!
//! The fresh server runs nothing foreign; from the moment of loading it does. It does not know which checks the user
//! has.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use crate::domain::check::Check;
use crate::domain::contents::{Facts, PostgresFacts};
use crate::domain::ids::SourceName;
use crate::domain::manifest::{Manifest, SourceEntry};
use crate::domain::record::DrillServer;
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::scratch::checks::RestoredSource;
use crate::scratch::folder::Scratch;
use crate::sources::postgres::binaries::Tools;
use crate::sources::postgres::examine::available_extensions;
use crate::sources::postgres::load::{Existing, Globals, LoadOptions, Needs, Outside, Owners, Tenancy};
use crate::sources::postgres::verify::verify;
use crate::vault::reader::Reader;

use super::super::host::Host;
use super::super::restore::plan;
use super::super::restore_into::load;
use super::ground::{self, Ground, Place, jobs};
use super::locale;
use super::stopwatch::Stopwatch;

/// Room that a server takes beside its database: the cluster itself, and the log that it writes ahead.
pub(super) const SERVER_ROOM_BYTES: u64 = 512 * 1024 * 1024;
/// The folder in scratch for passwords and schemas on their way into a server. No source can have such a name.
const PRIVATE: &str = ".load";

/// A database that is rehearsed, with what it stands on.
pub(super) struct Database {
    name: SourceName,
    facts: Box<PostgresFacts>,
    ground: Ground,
    tools: Tools,
    private: PathBuf,
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
    /// Makes a server of the source's major version, or a database on the one that is there, with nothing in it yet.
    ///
    /// # Errors
    /// As [`ground::make`].
    pub(super) fn start(place: &Place<'_>, source: &SourceEntry, facts: Box<PostgresFacts>) -> Result<Self> {
        let private = private_folder(place.scratch, &source.name)?;
        let (ground, tools) = ground::make(place, &source.name, &facts)?;
        Ok(Self {
            name: source.name.clone(),
            facts,
            ground,
            tools,
            private,
            queryable_seconds: None,
            complete_seconds: None,
        })
    }

    /// Names the locale or the extensions that the server lacks, before anything is loaded. Gives what to know of the
    /// others.
    ///
    /// # Errors
    /// When one is missing, or the server does not answer.
    pub(super) fn must_have_extensions(&self, host: &Host) -> Result<Vec<String>> {
        // A server that is there takes the locales that it has, and refuses others itself.
        if !matches!(self.ground, Ground::Existing(_)) {
            locale::must_be_there(host, &self.ground.maintenance(), &self.facts)?;
        }
        let available = host.runtime.block_on(available_extensions(&self.ground.maintenance()))?;
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
            let hint = format!("install their packages for PostgreSQL {major} {}", self.ground.machine());
            return Err(Error::new(Code::ScratchFailed, what).with_hint(hint));
        }
        // The dump names no versions: a restore gets the one that the machine has.
        let other = |(name, version): &&(String, String)| versions(name).is_some_and(|there| !there.contains(version));
        let remark = |(name, version): &(String, String)| {
            format!("extension {name} was {version} at the source, and that version is not {}", self.ground.machine())
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
        // A server of somebody else's gets no roles, and nothing that would need them.
        let (owners, globals, tenancy) = match &self.ground {
            Ground::Scratch { .. } => (Owners::Keep, Globals::Make, Tenancy::Owner),
            Ground::Existing(_) => (Owners::Drop, Globals::Leave, Tenancy::Guest),
        };
        let options = LoadOptions {
            access: self.ground.maintenance(),
            database: self.access().address.database,
            tools: self.tools.clone(),
            jobs: jobs(host),
            owners,
            globals,
            existing: Existing::Refuse,
            outside: Outside::Shut,
            tenancy,
            private: self.private.clone(),
            tables: None,
            needs: Needs::from(&*self.facts),
        };
        let mut queryable = None;
        let mut phase = |name: &'static str| match name {
            QUERYABLE => queryable = Some(stopwatch.seconds()),
            other => stopwatch.phase(drills_word(other)),
        };
        let loaded = load(host, reader, manifest, source, options, &mut phase, progress);
        self.queryable_seconds = queryable;
        let loaded = loaded.map_err(|error| self.on_this_ground(error))?;
        self.complete_seconds = Some(stopwatch.seconds());
        Ok(loaded.remarks)
    }

    /// What a server refuses its guest is no fault of the backup, and nothing that a restore could be told.
    fn on_this_ground(&self, error: Error) -> Error {
        match &self.ground {
            Ground::Existing(guest) if error.code() == Code::RestoreFailed && guest.tenant().powers.is_empty() => error
                .with_hint(
                    "what only a superuser may make fails a drill on a server that is there: drill on a server of its own, or in a \
                     container; or name a superuser and write allow_superuser = true",
                ),
            _ => error,
        }
    }

    /// Holds what was loaded against the facts.
    ///
    /// # Errors
    /// When the server does not answer, or a signal asked us to end.
    pub(super) fn compare(&self, host: &Host) -> Result<Vec<Check>> {
        let compared = verify(&self.access(), &self.facts, jobs(host), host.interrupt.raised(), &host.runtime)?;
        let Some(checks) = compared else { return host.check_interrupted().map(|()| Vec::new()) };
        Ok(checks.into_iter().map(|check| Check { name: format!("{}: {}", self.name, check.name), ..check }).collect())
    }

    /// The source.
    pub(super) fn name(&self) -> &SourceName {
        &self.name
    }

    /// Where the restored database is, for checks.
    pub(super) fn restored(&self) -> RestoredSource {
        match &self.ground {
            Ground::Scratch { .. } => RestoredSource::Postgres(self.access().address),
            Ground::Existing(_) => RestoredSource::Guest(self.access()),
        }
    }

    /// What to know of the server.
    pub(super) fn remarks(&self) -> Vec<String> {
        self.ground.remarks()
    }

    /// How the server's log ends, where it has something to say.
    pub(super) fn log_tail(&self) -> Option<String> {
        self.ground.log_tail()
    }

    /// What to do where the server's disk is full.
    pub(super) fn lacks_room(&self) -> Option<String> {
        self.ground.lacks_room()
    }

    /// What the server was set to, for the sealed details.
    pub(super) fn settings(&self) -> serde_json::Value {
        serde_json::json!({ "source": self.name, "settings": self.ground.settings() })
    }

    /// Ends what was made. Gives what the drill was measured on, and what to know of the end.
    pub(super) fn end(self, host: &Host, keep: bool) -> (DrillServer, Vec<String>) {
        let (version, settings, ground) = self.ground.measured();
        let measured = DrillServer {
            version,
            settings,
            ground,
            queryable_seconds: self.queryable_seconds,
            complete_seconds: self.complete_seconds,
        };
        (measured, self.ground.end(host, keep))
    }

    fn access(&self) -> crate::sources::postgres::connect::Access {
        self.ground.database(&self.facts.database)
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

fn private_folder(scratch: &Scratch, source: &SourceName) -> Result<PathBuf> {
    let folder = scratch.path().join(PRIVATE).join(source.as_str());
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|cause| Error::new(Code::ScratchFailed, format!("cannot make {}: {cause}", folder.display())))?;
    Ok(folder)
}
