//! Putting a PostgreSQL source back into a server: roles, the database, what stands before the data, the rows from
//! many workers at once, and what stands behind them. Knows members of the tar, not where they come from.
//!
//! | step | by |
//! |---|---|
//! | [`Loader::begin`] | looks at the server and refuses what could not end well, before anything is changed |
//! | [`Loader::take`] | globals.sql, schema.dump, tables.json, what makes large objects; in any order |
//! | [`Loader::prepare`] | makes the database, and everything in it that must be there before rows |
//! | [`Worker`] | rows, large objects, sequences: many of them, each with its connection |
//! | [`Filling::finish`] | keys, indexes, constraints, triggers, materialized views, statistics |
//!
//! Every statement of the backup that is not run by pg_restore is run by us, one by one, over our own connection: no
//! psql reads a byte of it, so there are no meta-commands to be afraid of.

mod archive;
mod database;
mod error;
mod finish;
mod globals;
mod order;
mod prepare;
mod statements;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use sqlx::{AssertSqlSafe, PgConnection};
use tokio::runtime::Handle;

use super::binaries::Tools;
use super::connect::{Access, ServerTrouble};
use super::layout::{ListedTable, Part, SCHEMA, matches};
use super::pins::{Purpose, pin};
use crate::domain::contents::PostgresFacts;

use archive::{Archive, Entry, trouble};

pub(super) use error::said;

pub use error::LoadError;
pub use worker::{Tables, Worker};

/// globals.sql, tables.json and the statements for large objects are not larger.
const MAX_TEXT_BYTES: usize = 512 * 1024 * 1024;
/// The first major version whose pg_restore sets what older servers do not know (`transaction_timeout`).
const TIMEOUT_SINCE: u32 = 17;

/// Whose things become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Theirs as at the source, with all rights.
    Keep,
    /// The role's that restores; no rights are granted.
    Drop,
}

/// What becomes of roles that the server does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Globals {
    /// They must be there.
    Leave,
    /// They are made, with their settings, memberships and passwords. Those that are there stay as they are.
    Make,
}

/// What becomes of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is in the way.
    Refuse,
    /// The database is dropped and made anew; of single tables, the rows are.
    Replace,
}

/// Whether the database may speak to other servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// As at the source; subscriptions wait until they are enabled.
    Keep,
    /// A drill: no subscriptions, and materialized views over foreign tables stay empty.
    Shut,
}

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenancy {
    /// Ours, or its owner told us to restore there.
    Owner,
    /// Somebody else's, for a drill, and the database is made. What names roles (policies, user mappings), lies outside the
    /// database (tablespaces), or says something of it to the server (its comment, whether it is a template, how many may
    /// connect) is left out, and so are settings of the database that the role may not make.
    Guest,
}

/// What the server must have.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// The source's server: `150018`.
    pub server_version_number: u32,
    /// Roles that own something or were granted something.
    pub roles: Vec<String>,
    /// Extensions.
    pub extensions: Vec<String>,
}

impl From<&PostgresFacts> for Needs {
    fn from(facts: &PostgresFacts) -> Self {
        Self {
            server_version_number: facts.server_version_number,
            roles: facts.roles.clone(),
            extensions: facts.extensions.iter().map(|(name, _)| name.clone()).collect(),
        }
    }
}

/// What to load into, and how.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// A database of the server that can always be logged in to: its `postgres`.
    pub access: Access,
    /// The database to load into: to be made, or there and empty.
    pub database: String,
    /// With a pg_restore.
    pub tools: Tools,
    /// Workers, and indexes that are made at a time; at least 1.
    pub jobs: u32,
    /// Owners and rights.
    pub owners: Owners,
    /// Roles.
    pub globals: Globals,
    /// What is in the way.
    pub existing: Existing,
    /// Other servers.
    pub outside: Outside,
    /// Whose server it is.
    pub tenancy: Tenancy,
    /// An empty folder that nobody else can enter, with room for schema.dump.
    pub private: PathBuf,
    /// Only the rows of tables that one of these patterns (`schema.table`) means: into tables that are there, or that
    /// are made with their columns and checks alone.
    pub tables: Option<Vec<String>>,
    /// What the source knew of itself.
    pub needs: Needs,
}

impl LoadOptions {
    fn whole(&self) -> bool {
        self.tables.is_none()
    }

    fn wants(&self, table: &ListedTable) -> bool {
        let patterns = self.tables.as_ref();
        patterns.is_none_or(|patterns| patterns.iter().any(|it| matches(it, &table.schema, &table.name)))
    }

    fn target(&self) -> Access {
        self.access.with_database(&self.database)
    }
}

/// A server that was found fit, and what must come before the rows.
#[derive(Debug)]
pub struct Loader {
    options: LoadOptions,
    runtime: Handle,
    maintenance: PgConnection,
    server_major: u32,
    roles: BTreeSet<String>,
    globals: Vec<u8>,
    tables: Vec<u8>,
    large_objects: Vec<u8>,
    large_object_owners: Vec<u8>,
    schema: Option<File>,
    remarks: Vec<String>,
}

/// A database that takes rows.
#[derive(Debug)]
pub struct Filling {
    options: LoadOptions,
    runtime: Handle,
    archive: Archive,
    post_data: Vec<Entry>,
    at_the_end: Vec<String>,
    encoding: String,
    tables: BTreeMap<u32, ListedTable>,
    wanted: BTreeSet<u32>,
    may_skip_log: bool,
    remarks: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What to know beside the success.
    pub remarks: Vec<String>,
}

/// The major version of a server, for whoever looks for its tools.
///
/// # Errors
/// When it does not let us in.
pub fn server_major(access: &Access, runtime: &Handle) -> Result<u32, LoadError> {
    runtime.block_on(async {
        let mut connection = connect(access).await?;
        version(&mut connection).await.map_err(trouble(access, "asking for its version"))
    })
}

impl Loader {
    /// Looks at the server: its version, extensions, roles, and whether the database is free. Changes nothing.
    ///
    /// # Errors
    /// [`LoadError`]: whatever would stop the restore later, as far as it can be known.
    pub fn begin(options: LoadOptions, runtime: &Handle) -> Result<Self, LoadError> {
        runtime.block_on(async {
            let access = &options.access;
            let server = access.address.to_string();
            let mut maintenance = connect(access).await?;
            let asking = "looking at the server";
            let found = version(&mut maintenance).await.map_err(trouble(access, asking))?;
            let source_major = options.needs.server_version_number / 10_000;
            if found < source_major {
                return Err(LoadError::OlderServer { server, found, source_major });
            }
            if options.tools.major >= TIMEOUT_SINCE && found < TIMEOUT_SINCE {
                let folder = options.tools.folder.display().to_string();
                return Err(LoadError::NewerTools { folder, found: options.tools.major, server, server_major: found });
            }
            let missing = missing_extensions(&mut maintenance, &options.needs.extensions).await;
            let missing = missing.map_err(trouble(access, asking))?;
            if !missing.is_empty() && options.whole() {
                return Err(LoadError::MissingExtensions { server, missing });
            }
            let roles = prepare::roles(&mut maintenance).await.map_err(trouble(access, asking))?;
            if options.globals == Globals::Leave && options.owners == Owners::Keep && options.whole() {
                prepare::must_have_roles(&server, &options.needs.roles, &roles)?;
            }
            let there = database::exists(&mut maintenance, &options.database).await.map_err(trouble(access, asking))?;
            if there && options.existing == Existing::Refuse && options.whole() {
                let target = options.target();
                let mut connection = connect(&target).await?;
                let content = database::first_content(&mut connection).await;
                if let Some(found) = content.map_err(trouble(&target, asking))? {
                    return Err(LoadError::NotEmpty { server: target.address.to_string(), found });
                }
            }
            Ok(Self {
                runtime: runtime.clone(),
                maintenance,
                server_major: found,
                roles,
                globals: Vec::new(),
                tables: Vec::new(),
                large_objects: Vec::new(),
                large_object_owners: Vec::new(),
                schema: None,
                remarks: Vec::new(),
                options,
            })
        })
    }

    /// Takes a member, or the next stretch of a long one, that comes before the rows.
    ///
    /// # Errors
    /// When the private folder is full, or the member is longer than any of ours.
    pub fn take(&mut self, part: Part, bytes: &[u8]) -> Result<(), LoadError> {
        let text = match part {
            Part::Globals => &mut self.globals,
            Part::Tables => &mut self.tables,
            Part::LargeObjectList => &mut self.large_objects,
            Part::LargeObjectOwners => &mut self.large_object_owners,
            Part::Schema => {
                let path = self.options.private.join(SCHEMA);
                let broken = |cause| LoadError::Private { verb: "write", path: path.display().to_string(), cause };
                let file = match &mut self.schema {
                    Some(file) => file,
                    none => none.insert(File::create_new(&path).map_err(broken)?),
                };
                return file.write_all(bytes).map_err(broken);
            }
            Part::CopyStatement { .. } | Part::RestoreScript => return Ok(()),
            Part::Rows { .. } | Part::LargeObjects { .. } | Part::Sequences => {
                return Err(LoadError::unsafe_member(part.path(), "stands together with what must come before it"));
            }
        };
        if text.len() + bytes.len() > MAX_TEXT_BYTES {
            return Err(LoadError::unsafe_member(part.path(), "is longer than any of ours"));
        }
        text.extend_from_slice(bytes);
        Ok(())
    }
}

impl Filling {
    /// Whether the rows of a table are wanted.
    #[must_use]
    pub fn wants(&self, oid: u32) -> bool {
        self.wanted.contains(&oid)
    }

    /// Whether all is loaded, and not single tables: then large objects and sequences are as well.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.options.whole()
    }

    /// Whether the server logs nothing of a [`Worker`]'s own tables.
    #[must_use]
    pub fn may_skip_log(&self) -> bool {
        self.may_skip_log
    }

    /// How many tables are filled.
    #[must_use]
    pub fn tables(&self) -> u64 {
        self.wanted.len() as u64
    }

    fn table(&self, oid: u32) -> Result<&ListedTable, LoadError> {
        self.tables.get(&oid).ok_or_else(|| {
            LoadError::unsafe_member(format!("data/{oid:010}"), "has rows of a table that tables.json does not list")
        })
    }
}

/// Connects, and sets what has to be set.
async fn connect(access: &Access) -> Result<PgConnection, LoadError> {
    let mut connection = access.connect().await.map_err(trouble(access, "connecting"))?;
    pin(&mut connection, Purpose::Write).await.map_err(trouble(access, "setting up the session"))?;
    Ok(connection)
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), ServerTrouble> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

async fn version(connection: &mut PgConnection) -> Result<u32, ServerTrouble> {
    let number: i32 = sqlx::query_scalar("SELECT pg_catalog.current_setting('server_version_num')::int")
        .fetch_one(connection)
        .await?;
    Ok(number.unsigned_abs() / 10_000)
}

async fn missing_extensions(connection: &mut PgConnection, needed: &[String]) -> Result<Vec<String>, ServerTrouble> {
    let sql = "SELECT name::text FROM pg_catalog.unnest($1::text[]) AS name \
               WHERE name NOT IN (SELECT available.name FROM pg_catalog.pg_available_extensions AS available) ORDER BY 1";
    Ok(sqlx::query_scalar(sql).bind(needed).fetch_all(connection).await?)
}

#[cfg(test)]
mod tests;
