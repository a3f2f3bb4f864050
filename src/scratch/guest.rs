//! A throw-away database on a server that is there: made under a name that nobody else uses, marked, and dropped again.
//!
//! What is loaded into it runs on that server, as the drill's role: nobody here can confine it. So the role must be one
//! that reaches nothing beyond its own databases, unless the caller was told otherwise. This file does not know what is
//! loaded, nor who asks.
//!
//! A leftover is known by three things at once: its name, our comment on it, and that nobody is connected to it. A living
//! drill is connected to its database from beginning to end. Only a database that nobody had time to mark goes without
//! the comment, if the role that asks made it.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::domain::server::DRILL_DATABASE_PREFIX;
use crate::error::{Code, Diagnostic};
use crate::sources::postgres::connect::{Access, ServerTrouble};
use crate::sources::postgres::layout::{literal, quoted};

/// What the name of a database begins with once it is kept: no drill drops it.
const KEPT_PREFIX: &str = "lifeboat_kept_";
/// The comment on a drill's database.
const MARK: &str = "made by a drill of lifeboat, and dropped when it ends; the next drill drops what a killed one left";
/// The advisory lock of whoever makes or removes such databases: "lifeboat" in ASCII.
const LOCK: i64 = 0x6c69_6665_626f_6174;
/// How long it is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// How long a database may take to be made, and to be dropped: a large one is many files.
const MAKE_LIMIT: Duration = Duration::from_secs(180);
const DROP_LIMIT: Duration = Duration::from_secs(600);
/// The first version that ends sessions by itself where a database is dropped, and the one that has this timeout.
const FORCE_SINCE: u32 = 130_000;
const IDLE_TIMEOUT_SINCE: u32 = 140_000;
/// What a server says of a locale that it lacks, or that is not for the encoding.
const LOCALE_STATES: [&str; 2] = ["42809", "22023"];

/// What may stand in for a locale that is not there, the nearest first.
const SUBSTITUTES: [&str; 2] = ["C.UTF-8", "C"];

/// The database that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct GuestOptions<'a> {
    /// A database of the server that can be logged in to, as the drill's role.
    pub access: &'a Access,
    /// Makes the name: nobody else's.
    pub number: [u8; 8],
    /// The encoding, as the source's server names it.
    pub encoding: &'a str,
    /// LC_COLLATE.
    pub collate: &'a str,
    /// LC_CTYPE.
    pub ctype: &'a str,
    /// What the role may be.
    pub powers: Powers,
}

/// What a role may be that foreign code runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Powers {
    /// Not one that reaches beyond its own databases.
    Ordinary,
    /// Any: the caller was told so.
    Any,
}

/// What a server says of itself and of the role that logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// `150018`.
    pub version_number: u32,
    /// What of the role reaches beyond its own databases, in words: nothing, as it should be.
    pub powers: Vec<String>,
    creates: bool,
    standby: bool,
}

/// A database of ours on a server that is not. It stays where this is dropped: end it with [`Guest::remove`].
#[derive(Debug)]
pub struct Guest {
    access: Access,
    database: String,
    tenant: Tenant,
    remarks: Vec<String>,
    /// Says that the drill lives.
    presence: PgConnection,
}

/// Why there is no such database.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The server would not.
    #[error("{server}: {doing}: {}", crate::error::chain(cause))]
    Server {
        /// Its address.
        server: String,
        /// `making database …`.
        doing: String,
        /// What it said. It stands in the message already.
        cause: ServerTrouble,
    },
    /// It took too long.
    #[error("{server}: {doing} took more than {} s", limit.as_secs())]
    TooSlow {
        /// Its address.
        server: String,
        /// `making database …`.
        doing: String,
        /// How long it was given.
        limit: Duration,
    },
    /// Nothing can be made on it.
    #[error("{server} is a standby, where nothing can be made")]
    Standby {
        /// Its address.
        server: String,
    },
    /// The role makes no databases.
    #[error("{server}: the role {role} may not make a database")]
    MayNotCreate {
        /// Its address.
        server: String,
        /// The role.
        role: String,
    },
    /// The role could do more than a restored backup should.
    #[error(
        "what a backup holds is run on {server} as the role {role}, and that role reaches beyond its own databases: {}",
        powers.join(", ")
    )]
    Powerful {
        /// Its address.
        server: String,
        /// The role.
        role: String,
        /// What it is, in words.
        powers: Vec<String>,
    },
}

impl Diagnostic for GuestError {
    fn code(&self) -> Code {
        match self {
            Self::Powerful { .. } => Code::Unconfined,
            _ => Code::ScratchFailed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Server { server, cause, .. } => match cause.state().as_deref() {
                Some("28P01" | "28000") => "see that `password` of the drill's server and pg_hba.conf let that role in".to_owned(),
                Some("55P03") => "another drill is making or dropping its database: wait for it".to_owned(),
                Some("53100") => "make room on the disk of that server".to_owned(),
                Some("42P04") => "run the drill again: it gets another name".to_owned(),
                Some("42501") => "as a superuser there: CREATE ROLE drill LOGIN CREATEDB BYPASSRLS".to_owned(),
                _ => format!("psql '{server}': see that the server runs and lets the role in"),
            },
            Self::TooSlow { .. } => "look at its load: select * from pg_stat_activity".to_owned(),
            Self::Standby { .. } => "name a server that takes writes".to_owned(),
            Self::MayNotCreate { role, .. } => format!("as a superuser there: ALTER ROLE {} CREATEDB", quoted(role)),
            Self::Powerful { .. } => "as a superuser there: CREATE ROLE drill LOGIN CREATEDB BYPASSRLS, and name that role in `url`; or, \
                                      where the server is nobody's: allow_superuser = true under [job.<name>.drill.server]"
                .to_owned(),
        })
    }
}

/// Asks what the server and the role are.
///
/// # Errors
/// When it does not let us in.
pub async fn look(access: &Access) -> Result<Tenant, GuestError> {
    let looking = async {
        let mut connection = access.connect().await?;
        let tenant = ask(&mut connection).await?;
        connection.close().await?;
        Ok(tenant)
    };
    within(MAKE_LIMIT, access, "looking at the server", looking).await
}

/// Drops what killed drills left on a server; gives the names. What belongs to others, or is in use, stays.
///
/// # Errors
/// When it does not let us in, or a leftover cannot be dropped.
pub async fn remove_leftovers(access: &Access) -> Result<Vec<String>, GuestError> {
    within(DROP_LIMIT, access, "dropping what a killed drill left", async {
        let mut connection = locked(access).await?;
        let dropped = drop_leftovers(&mut connection).await;
        // The lock goes with the connection.
        let _ = connection.close().await;
        dropped
    })
    .await
}

impl Tenant {
    /// Whether a drill can make its database here, and may.
    ///
    /// # Errors
    /// [`GuestError::Standby`], [`GuestError::MayNotCreate`], [`GuestError::Powerful`].
    pub fn must_do(&self, access: &Access, powers: Powers) -> Result<(), GuestError> {
        let (server, role) = (access.address.to_string(), access.address.role.clone());
        if self.standby {
            return Err(GuestError::Standby { server });
        }
        if !self.creates {
            return Err(GuestError::MayNotCreate { server, role });
        }
        if powers == Powers::Ordinary && !self.powers.is_empty() {
            return Err(GuestError::Powerful { server, role, powers: self.powers.clone() });
        }
        Ok(())
    }
}

impl Guest {
    /// Makes the database, empty, with the source's encoding and locale.
    ///
    /// # Errors
    /// [`GuestError`]. Nothing is left, unless the server stopped answering.
    pub async fn make(options: &GuestOptions<'_>) -> Result<Self, GuestError> {
        let access = options.access;
        let tenant = look(access).await?;
        tenant.must_do(access, options.powers)?;
        let database = format!("{DRILL_DATABASE_PREFIX}{}", hex::encode(options.number));
        let doing = format!("making database {database}");
        let made = within(MAKE_LIMIT, access, &doing, async {
            let mut connection = locked(access).await?;
            let remarks = create(&mut connection, &database, options).await?;
            let marked =
                mark(&mut connection, &database, &access.with_database(&database), tenant.version_number).await;
            if marked.is_err() {
                // It is empty, and ours: this statement has just made it.
                let _ = execute(&mut connection, format!("DROP DATABASE {}", quoted(&database))).await;
            }
            let _ = connection.close().await;
            marked.map(|presence| (presence, remarks))
        });
        let (presence, remarks) = made.await?;
        Ok(Self { access: access.clone(), database, tenant, remarks, presence })
    }

    /// The database of the server that was logged in to.
    #[must_use]
    pub fn maintenance(&self) -> &Access {
        &self.access
    }

    /// The database that was made.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.with_database(&self.database)
    }

    /// Its name.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// What the server says of itself and of the role.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// What is not as at the source, in sentences.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Drops the database, whoever is connected to it.
    ///
    /// # Errors
    /// When the server would not: then the next drill drops it.
    pub async fn remove(self) -> Result<(), GuestError> {
        let doing = format!("dropping database {}", self.database);
        within(DROP_LIMIT, &self.access, &doing, async {
            let mut connection = locked(&self.access).await?;
            // From here on it is a leftover, and the lock keeps others from taking it for one.
            let _ = self.presence.close().await;
            let mut statement = format!("DROP DATABASE {}", quoted(&self.database));
            if self.tenant.version_number >= FORCE_SINCE {
                statement.push_str(" WITH (FORCE)");
            } else {
                end_sessions(&mut connection, &self.database).await?;
            }
            execute(&mut connection, statement).await?;
            let _ = connection.close().await;
            Ok(())
        })
        .await
    }

    /// Lets the database stand, under a name that no drill drops; gives the name.
    ///
    /// # Errors
    /// When the server would not: then the next drill drops it.
    pub async fn keep(self) -> Result<String, GuestError> {
        let doing = format!("renaming database {}", self.database);
        within(DROP_LIMIT, &self.access, &doing, async {
            let mut connection = locked(&self.access).await?;
            let _ = self.presence.close().await;
            end_sessions(&mut connection, &self.database).await?;
            let number = self.database.trim_start_matches(DRILL_DATABASE_PREFIX);
            let kept = format!("{KEPT_PREFIX}{number}");
            execute(&mut connection, format!("ALTER DATABASE {} RENAME TO {}", quoted(&self.database), quoted(&kept)))
                .await?;
            let comment = "kept by a drill of lifeboat: drop it when you are done";
            execute(&mut connection, format!("COMMENT ON DATABASE {} IS '{comment}'", quoted(&kept))).await?;
            let _ = connection.close().await;
            Ok(kept)
        })
        .await
    }
}

async fn within<T>(
    limit: Duration,
    access: &Access,
    doing: &str,
    work: impl Future<Output = Result<T, ServerTrouble>>,
) -> Result<T, GuestError> {
    let server = || access.address.to_string();
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(|cause| GuestError::Server { server: server(), doing: doing.to_owned(), cause }),
        Err(_) => Err(GuestError::TooSlow { server: server(), doing: doing.to_owned(), limit }),
    }
}

/// A session that makes or drops: alone on this server, among those that log in to the same database.
async fn locked(access: &Access) -> Result<PgConnection, ServerTrouble> {
    let mut connection = access.connect().await?;
    let wait = LOCK_WAIT.as_millis();
    execute(&mut connection, format!("SET lock_timeout = {wait}; SET statement_timeout = 0")).await?;
    execute(&mut connection, "SET default_transaction_read_only = off".to_owned()).await?;
    execute(&mut connection, format!("SELECT pg_catalog.pg_advisory_lock({LOCK})")).await?;
    Ok(connection)
}

async fn ask(connection: &mut PgConnection) -> Result<Tenant, ServerTrouble> {
    let sql = "SELECT pg_catalog.current_setting('server_version') AS version, \
               pg_catalog.current_setting('server_version_num')::int AS number, \
               pg_catalog.pg_is_in_recovery() AS standby, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolreplication, \
               ARRAY(SELECT p.rolname::text FROM pg_catalog.pg_roles p WHERE p.rolname IN ('pg_execute_server_program', \
                     'pg_read_server_files', 'pg_write_server_files', 'pg_read_all_data', 'pg_write_all_data') \
                     AND pg_catalog.pg_has_role(p.oid, 'MEMBER') ORDER BY 1) AS member_of \
               FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
    let row = sqlx::query(sql).persistent(false).fetch_one(connection).await?;
    let is = |name: &str| row.try_get::<bool, _>(name);
    let mut powers = Vec::new();
    if is("rolsuper")? {
        powers.push("it is a superuser".to_owned());
    } else {
        if is("rolcreaterole")? {
            powers.push("it makes roles".to_owned());
        }
        if is("rolreplication")? {
            powers.push("it may replicate the server".to_owned());
        }
        let member_of: Vec<String> = row.try_get("member_of")?;
        powers.extend(member_of.into_iter().map(|role| format!("it is a member of {role}")));
    }
    Ok(Tenant {
        version: row.try_get("version")?,
        version_number: row.try_get::<i32, _>("number")?.unsigned_abs(),
        creates: is("rolsuper")? || is("rolcreatedb")?,
        standby: is("standby")?,
        powers,
    })
}

/// Makes the database; gives what is not as wished. Where there is one of this name, the server refuses.
async fn create(
    connection: &mut PgConnection,
    name: &str,
    options: &GuestOptions<'_>,
) -> Result<Vec<String>, ServerTrouble> {
    let encoding = literal(options.encoding);
    let statement = |collate: &str, ctype: &str| {
        format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING {encoding} LC_COLLATE {} LC_CTYPE {}",
            quoted(name),
            literal(collate),
            literal(ctype)
        )
    };
    let refusal = match execute(connection, statement(options.collate, options.ctype)).await {
        Ok(()) => return Ok(Vec::new()),
        Err(refusal) if refusal.state().is_some_and(|state| LOCALE_STATES.contains(&&*state)) => refusal,
        Err(refusal) => return Err(refusal),
    };
    for locale in SUBSTITUTES {
        if execute(connection, statement(locale, locale)).await.is_ok() {
            let wished = match options.collate == options.ctype {
                true => options.collate.to_owned(),
                false => format!("{} (LC_CTYPE {})", options.collate, options.ctype),
            };
            return Ok(vec![format!(
                "the server lacks the locale {wished}: the database has {locale} instead, so text may sort and compare differently"
            )]);
        }
    }
    // It names what was asked for.
    Err(refusal)
}

/// Marks the database as ours, and goes into it.
async fn mark(
    connection: &mut PgConnection,
    name: &str,
    database: &Access,
    version_number: u32,
) -> Result<PgConnection, ServerTrouble> {
    execute(connection, format!("COMMENT ON DATABASE {} IS {}", quoted(name), literal(MARK))).await?;
    // Nobody else has business in it, who may log in to the server or not.
    execute(connection, format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", quoted(name))).await?;
    let mut presence = database.connect().await?;
    if version_number >= IDLE_TIMEOUT_SINCE {
        execute(&mut presence, "SET idle_session_timeout = 0".to_owned()).await?;
    }
    Ok(presence)
}

async fn drop_leftovers(connection: &mut PgConnection) -> Result<Vec<String>, ServerTrouble> {
    let sql = format!(
        "SELECT d.datname::text FROM pg_catalog.pg_database d \
         WHERE d.datname ~ '^{DRILL_DATABASE_PREFIX}[0-9a-f]{{16}}$' AND pg_catalog.pg_has_role(d.datdba, 'MEMBER') \
         AND (pg_catalog.shobj_description(d.oid, 'pg_database') = {} \
              OR (pg_catalog.shobj_description(d.oid, 'pg_database') IS NULL \
                  AND pg_catalog.pg_get_userbyid(d.datdba) = current_user)) \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid AND a.usesysid IS NOT NULL) ORDER BY 1",
        literal(MARK)
    );
    let names: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(sql)).persistent(false).fetch_all(&mut *connection).await?;
    let mut dropped = Vec::new();
    for name in names {
        // Without force: where somebody came in meanwhile, the server refuses, and it was no leftover.
        match execute(connection, format!("DROP DATABASE {}", quoted(&name))).await {
            Ok(()) => dropped.push(name),
            Err(trouble) if matches!(trouble.state().as_deref(), Some("55006" | "3D000")) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(dropped)
}

/// Ends whatever runs in a database.
async fn end_sessions(connection: &mut PgConnection, database: &str) -> Result<(), ServerTrouble> {
    let sql = "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity \
               WHERE datname = $1 AND pid <> pg_catalog.pg_backend_pid() AND usename = current_user";
    sqlx::query(sql).bind(database).persistent(false).execute(connection).await?;
    Ok(())
}

async fn execute(connection: &mut PgConnection, sql: String) -> Result<(), ServerTrouble> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}
