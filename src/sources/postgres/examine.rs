//! What one would like to know of a server before a backup or a drill: its version, what the role may read, whether it is
//! a standby, which extensions it could install. Nothing is changed, and nothing is locked.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::connect::{Access, ServerTrouble};
use super::trouble::server_error;
use crate::sources::SourceError;

/// Names told one by one; the rest is counted.
pub const MAX_NAMED: usize = 5;
/// How often a pooler is given the chance to show itself by another server process.
const POOLER_LOOKS: usize = 3;

/// What a server says of itself and of the role that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// `150018`.
    pub version_number: u32,
    /// Whether it replays another server's log.
    pub standby: Option<Standby>,
    /// Whether a pooler stands between that gives each transaction another server process.
    pub pooled: bool,
    /// Whether the role may read the roles' passwords.
    pub role_passwords: bool,
    /// Ordinary and partitioned tables that the role may not read, and the sequences.
    pub unreadable: Names,
    /// The schemas that have such tables, quoted.
    pub unreadable_schemas: Vec<String>,
    /// Tables whose rows are filtered for the role.
    pub filtered: Names,
    /// Large objects that the role may not read.
    pub unreadable_large_objects: u64,
    /// Tables, and the bytes of the database.
    pub tables: u64,
    /// `pg_database_size`.
    pub size_bytes: u64,
}

impl Examined {
    /// `15` of 15.18.
    #[must_use]
    pub const fn major(&self) -> u32 {
        self.version_number / 10_000
    }
}

/// A standby's settings that decide over long reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// `max_standby_streaming_delay`.
    pub max_delay: String,
    /// `hot_standby_feedback`.
    pub feedback: bool,
}

/// The first few of many names, quoted where they must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// At most [`MAX_NAMED`].
    pub first: Vec<String>,
    /// All of them.
    pub count: u64,
}

impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.first.join(", "))?;
        match self.count - self.first.len() as u64 {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Asks a server. `wanted` says of a schema and a table or sequence whether it is to be backed up at all.
///
/// # Errors
/// When it does not let us in, or a question fails.
pub async fn examine(access: &Access, wanted: &dyn Fn(&str, &str) -> bool) -> Result<Examined, ServerTrouble> {
    let mut connection = access.connect().await?;
    let pooled = is_pooled(&mut connection).await?;
    let row = one(&mut connection, SELF).await?;
    let standby = row.try_get::<bool, _>("standby")?.then_some(Standby {
        max_delay: row.try_get("max_delay")?,
        feedback: row.try_get::<String, _>("feedback")? == "on",
    });
    let mut examined = Examined {
        version: row.try_get("version")?,
        version_number: row.try_get::<String, _>("version_number")?.parse().unwrap_or(0),
        standby,
        pooled,
        role_passwords: row.try_get("role_passwords")?,
        unreadable: Names::default(),
        unreadable_schemas: Vec::new(),
        filtered: Names::default(),
        unreadable_large_objects: u64::try_from(row.try_get::<i64, _>("large_objects")?).unwrap_or(0),
        tables: 0,
        size_bytes: u64::try_from(row.try_get::<i64, _>("size_bytes")?).unwrap_or(0),
    };
    for row in sqlx::query(RELATIONS).fetch_all(&mut connection).await? {
        // A sequence goes with the table that owns it; patterns mean tables, so that any other sequence is wanted.
        let judged: (Option<String>, Option<String>) = (row.try_get("schema")?, row.try_get("name")?);
        if let (Some(schema), Some(name)) = judged
            && !wanted(&schema, &name)
        {
            continue;
        }
        let shown: String = row.try_get("shown")?;
        examined.tables += u64::from(!row.try_get::<bool, _>("sequence")?);
        if !row.try_get::<bool, _>("readable")? {
            examined.unreadable.push(shown);
            let schema: String = row.try_get("shown_schema")?;
            if !examined.unreadable_schemas.contains(&schema) {
                examined.unreadable_schemas.push(schema);
            }
        } else if row.try_get::<bool, _>("filtered")? {
            examined.filtered.push(shown);
        }
    }
    connection.close().await?;
    Ok(examined)
}

impl Names {
    fn push(&mut self, name: String) {
        self.count += 1;
        if self.first.len() < MAX_NAMED {
            self.first.push(name);
        }
    }
}

/// Everything that is one row. A large object that is nobody's to read is one whose owner we are not, and whose ACL names
/// neither everybody nor a role of ours; superusers are members of every role.
const SELF: &str = "
    SELECT pg_catalog.current_setting('server_version') AS version,
           pg_catalog.current_setting('server_version_num') AS version_number,
           pg_catalog.pg_is_in_recovery() AS standby,
           pg_catalog.current_setting('max_standby_streaming_delay') AS max_delay,
           pg_catalog.current_setting('hot_standby_feedback') AS feedback,
           pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS role_passwords,
           pg_catalog.pg_database_size(pg_catalog.current_database()) AS size_bytes,
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata l
             WHERE pg_catalog.current_setting('lo_compat_privileges') = 'off'
               AND NOT pg_catalog.pg_has_role(l.lomowner, 'USAGE')
               AND NOT EXISTS (SELECT 1 FROM pg_catalog.aclexplode(l.lomacl) a
                                WHERE a.privilege_type = 'SELECT'
                                  AND CASE WHEN a.grantee = 0 THEN true
                                           ELSE pg_catalog.pg_has_role(a.grantee, 'USAGE') END)) AS large_objects";

/// What pg_dump and we must read: it locks ordinary and partitioned tables, and for that it needs SELECT.
const RELATIONS: &str = "
    SELECT CASE WHEN c.relkind = 'S' THEN owner.schema ELSE n.nspname::text END AS schema,
           CASE WHEN c.relkind = 'S' THEN owner.name ELSE c.relname::text END AS name,
           pg_catalog.quote_ident(n.nspname) AS shown_schema,
           pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS shown,
           c.relkind = 'S' AS sequence,
           COALESCE(pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                    AND CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                             ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END, true) AS readable,
           c.relrowsecurity AND pg_catalog.row_security_active(c.oid) AS filtered
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN LATERAL (SELECT tn.nspname::text AS schema, t.relname::text AS name
                           FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
                           JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
                          WHERE c.relkind = 'S' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                            AND d.objid = c.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                            AND d.deptype IN ('a', 'i') LIMIT 1) AS owner ON true
     WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
       AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
     ORDER BY n.nspname, c.relname";

async fn one(connection: &mut PgConnection, sql: &'static str) -> Result<sqlx::postgres::PgRow, ServerTrouble> {
    Ok(sqlx::query(sql).fetch_one(connection).await?)
}

/// With a pooler in transaction mode neither a snapshot nor a setting holds. It shows by another process behind the same
/// connection, or by a setting that is gone.
async fn is_pooled(connection: &mut PgConnection) -> Result<bool, ServerTrouble> {
    sqlx::raw_sql("SET lifeboat.probe = 'here'").execute(&mut *connection).await?;
    let mut first = None;
    for _ in 0..POOLER_LOOKS {
        let sql = "SELECT pg_catalog.pg_backend_pid() AS process, \
                   pg_catalog.current_setting('lifeboat.probe', true) IS NOT DISTINCT FROM 'here' AS kept";
        let row = one(connection, sql).await?;
        let process: i32 = row.try_get("process")?;
        if !row.try_get::<bool, _>("kept")? || *first.get_or_insert(process) != process {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the server's refusal is that of a pooler that does not know a parameter of ours.
#[must_use]
pub fn is_poolers_refusal(trouble: &ServerTrouble) -> bool {
    let said = trouble.to_string();
    said.contains("unsupported startup parameter") || said.contains("pgbouncer")
}

/// The databases that a server lets anybody into, templates aside; and whether this role is let in.
///
/// # Errors
/// When it cannot be asked.
pub async fn databases(access: &Access) -> Result<Vec<(String, bool)>, SourceError> {
    let ask = async {
        let mut connection = access.connect().await?;
        let sql = "SELECT datname::text, pg_catalog.has_database_privilege(oid, 'CONNECT') FROM pg_catalog.pg_database \
                   WHERE datallowconn AND NOT datistemplate ORDER BY 1";
        let found = sqlx::query_as(sql).fetch_all(&mut connection).await?;
        connection.close().await?;
        Ok(found)
    };
    ask.await.map_err(|trouble: ServerTrouble| SourceError::Server {
        server: access.address.to_string(),
        what: format!("asking for its databases: {trouble}"),
        hint: Some("see that the server runs and lets this role into the url's database".to_owned()),
        transient: trouble.state().is_none(),
    })
}

/// The extensions that a server could install, each with its versions.
///
/// # Errors
/// When it cannot be asked.
pub async fn available_extensions(access: &Access) -> Result<Vec<(String, Vec<String>)>, SourceError> {
    let ask = async {
        let mut connection = access.connect().await?;
        let sql = "SELECT name::text AS name, pg_catalog.array_agg(version::text) AS versions \
                   FROM pg_catalog.pg_available_extension_versions GROUP BY 1 ORDER BY 1";
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
        connection.close().await?;
        rows.iter()
            .map(|row| Ok((row.try_get("name")?, row.try_get("versions")?)))
            .collect::<Result<_, ServerTrouble>>()
    };
    ask.await.map_err(|trouble: ServerTrouble| {
        server_error(&access.address, "cannot ask which extensions there are", trouble)
    })
}

/// The locales that a server's databases get if nothing else is said, and what else there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locales {
    /// LC_COLLATE.
    pub collate: String,
    /// LC_CTYPE.
    pub ctype: String,
    /// Whether the server was built with ICU.
    pub has_icu: bool,
}

/// Asks a server for its template's locales.
///
/// # Errors
/// When it cannot be asked.
pub async fn locales(access: &Access) -> Result<Locales, SourceError> {
    let ask = async {
        let mut connection = access.connect().await?;
        let sql = "SELECT datcollate::text, datctype::text, \
                   EXISTS (SELECT FROM pg_catalog.pg_collation WHERE collprovider = 'i') \
                   FROM pg_catalog.pg_database WHERE datname = 'template0'";
        let (collate, ctype, has_icu) = sqlx::query_as(sql).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<_, ServerTrouble>(Locales { collate, ctype, has_icu })
    };
    ask.await.map_err(|trouble| server_error(&access.address, "cannot ask for its locales", trouble))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    pub(crate) use crate::sources::postgres::test_server::TestServer;
    use crate::sources::postgres::test_server::major;

    fn everything(_: &str, _: &str) -> bool {
        true
    }

    #[tokio::test]
    async fn what_a_role_may_not_read_is_found() {
        let server = TestServer::start_now();
        server.sql(
            "postgres",
            "CREATE ROLE backup LOGIN; CREATE SCHEMA \"My Shop\";
                 CREATE TABLE public.users (id bigserial); CREATE TABLE \"My Shop\".\"Order\" (id int);
                 CREATE TABLE public.parted (id int) PARTITION BY RANGE (id);
                 CREATE TABLE public.secret (id int); ALTER TABLE public.secret ENABLE ROW LEVEL SECURITY;
                 CREATE VIEW public.seen AS SELECT 1;
                 SELECT lo_from_bytea(0, 'mine'); SELECT lo_from_bytea(4711, 'all');
                 GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC;",
        );
        let access = server.access("backup", "postgres");
        let found = examine(&access, &everything).await.unwrap();
        assert_eq!(found.major(), major());
        assert_eq!((found.tables, found.unreadable.count), (4, 5));
        assert_eq!(found.unreadable.first[0], "\"My Shop\".\"Order\"");
        assert_eq!(found.unreadable_schemas, ["\"My Shop\"", "public"]);
        assert_eq!(found.unreadable_large_objects, 1);
        assert!(!found.role_passwords && !found.pooled && found.standby.is_none());
        // What the config leaves out need not be readable.
        let found = examine(&access, &|schema, _| schema == "My Shop").await.unwrap();
        assert_eq!((found.tables, found.unreadable.count), (1, 1));

        server.sql("postgres", "GRANT pg_read_all_data TO backup");
        let found = examine(&access, &everything).await.unwrap();
        assert_eq!((found.unreadable.count, found.unreadable_large_objects), (0, 1));
        assert_eq!(found.filtered.to_string(), "public.secret");

        server.sql("postgres", "ALTER ROLE backup BYPASSRLS; GRANT SELECT ON pg_authid TO backup");
        let found = examine(&access, &everything).await.unwrap();
        assert!(found.filtered.count == 0 && found.role_passwords);

        let found = examine(&server.access("postgres", "postgres"), &everything).await.unwrap();
        assert_eq!((found.unreadable.count, found.filtered.count, found.unreadable_large_objects), (0, 0, 0));
    }

    #[tokio::test]
    async fn extensions_that_could_be_installed_have_versions() {
        let server = TestServer::start_now();
        let available = available_extensions(&server.access("postgres", "postgres")).await.unwrap();
        let (_, versions) = available.iter().find(|(name, _)| name == "plpgsql").unwrap();
        assert_eq!(versions, &["1.0"]);
        assert!(available_extensions(&server.access("nobody", "postgres")).await.is_err());
    }

    #[test]
    fn many_names_are_cut_and_counted() {
        let mut names = Names::default();
        (0..7).for_each(|number| names.push(format!("t{number}")));
        assert_eq!(names.to_string(), "t0, t1, t2, t3, t4 and 2 more");
    }
}
