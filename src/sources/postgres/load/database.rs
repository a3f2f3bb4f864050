//! The database that is loaded into: whether it is there and empty, making it as the source had it, its properties.
//!
//! What pg_dump says of the database itself (encoding, locale, owner, rights, comment, settings) is taken from the dump
//! as text and run by us, because pg_restore makes a database under its old name or not at all. The name is replaced;
//! nothing else is, so that another name keeps everything.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::archive::Tablespaces;
use super::error::LoadError;
use super::statements::{Statement, statements};
use super::{Owners, Tenancy, run};
use crate::sources::postgres::connect::ServerTrouble;
use crate::sources::postgres::layout::quoted;

/// What was made by users has numbers from here on.
const FIRST_OWN_OID: u32 = 16384;

/// What the dump says of the database, for a name.
#[derive(Debug, Default)]
pub(super) struct Properties {
    /// `CREATE DATABASE …`.
    pub(super) create: String,
    /// Owner, rights, settings.
    pub(super) at_once: Vec<String>,
    /// What could lock us out while we load, and what says what it is.
    pub(super) at_the_end: Vec<String>,
}

impl Properties {
    /// Reads the SQL of the dump.
    pub(super) fn read(
        sql: &str,
        old: &str,
        new: &str,
        owners: Owners,
        tenancy: Tenancy,
        tablespaces: Tablespaces,
    ) -> Result<Self, LoadError> {
        let wrong = |what: &str| LoadError::unsafe_member("schema.dump", what);
        let name = quoted(new);
        let mut properties = Self::default();
        for statement in statements(sql).ok_or_else(|| wrong("describes its database in broken SQL"))? {
            let text = statement.with_database(old, &name);
            if statement.begins(&["CREATE", "DATABASE"]) {
                properties.create = match tablespaces {
                    Tablespaces::Keep => text,
                    // Cut from the renamed text: names and texts in it are whole.
                    Tablespaces::Drop => statements(&text)
                        .and_then(|again| again.first().map(|again| again.without_option("TABLESPACE")))
                        .ok_or_else(|| wrong("describes its database in broken SQL"))?,
                };
            } else if is_session(&statement) || (owners == Owners::Drop && statement.begins(&["ALTER", "ROLE"])) {
                // The session is ours.
            } else if tenancy == Tenancy::Guest && !is_setting(&statement) {
                // It is nothing to the server's owner.
            } else if statement.begins(&["COMMENT", "ON", "DATABASE"]) {
                // Until then it says that it is not complete.
                properties.at_the_end.push(text);
            } else if statement.says("IS_TEMPLATE") || (statement.says("CONNECTION") && statement.says("LIMIT")) {
                properties.at_the_end.push(text);
            } else {
                properties.at_once.push(text);
            }
        }
        if properties.create.is_empty() {
            return Err(wrong("does not say how its database is made"));
        }
        Ok(properties)
    }

    /// For a server that knows one provider of locales and has no word for it.
    pub(super) fn without_provider(&mut self) -> Result<(), LoadError> {
        let wrong = || LoadError::unsafe_member("schema.dump", "describes its database in broken SQL");
        let create = statements(&self.create).ok_or_else(wrong)?;
        self.create = create.first().ok_or_else(wrong)?.without_option("LOCALE_PROVIDER");
        Ok(())
    }
}

/// `ALTER DATABASE … SET …`.
fn is_setting(statement: &Statement<'_>) -> bool {
    statement.begins(&["ALTER", "DATABASE"]) && statement.words().get(3).is_some_and(|word| word == "SET")
}

fn is_session(statement: &Statement<'_>) -> bool {
    statement.begins(&["SET"]) || statement.begins(&["SELECT"])
}

/// Whether a database of that name is there.
pub(super) async fn exists(maintenance: &mut PgConnection, name: &str) -> Result<bool, ServerTrouble> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)";
    Ok(sqlx::query_scalar(sql).bind(name).fetch_one(maintenance).await?)
}

/// What it is described as.
pub(super) async fn comment(maintenance: &mut PgConnection, name: &str) -> Result<Option<String>, ServerTrouble> {
    let sql = "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = $1";
    let found: Option<Option<String>> = sqlx::query_scalar(sql).bind(name).fetch_optional(maintenance).await?;
    Ok(found.flatten())
}

/// Something that users made in the database, for instance; `None` where there is nothing.
pub(super) async fn first_content(target: &mut PgConnection) -> Result<Option<String>, ServerTrouble> {
    let sql = format!(
        "SELECT what FROM (\
         SELECT 1, 'relation ' || pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c \
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= {FIRST_OWN_OID} \
           AND n.nspname !~ '^pg_(toast|temp)' \
         UNION ALL SELECT 2, 'function ' || p.proname FROM pg_catalog.pg_proc p WHERE p.oid >= {FIRST_OWN_OID} \
         UNION ALL SELECT 3, 'type ' || t.typname FROM pg_catalog.pg_type t WHERE t.oid >= {FIRST_OWN_OID} \
           AND t.typnamespace NOT IN (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^pg_(toast|temp)') \
         UNION ALL SELECT 4, 'schema ' || n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid >= {FIRST_OWN_OID} \
           AND n.nspname !~ '^pg_(toast|temp)' AND n.nspname <> 'public' \
         UNION ALL SELECT 5, 'extension ' || e.extname FROM pg_catalog.pg_extension e WHERE e.oid >= {FIRST_OWN_OID} \
         UNION ALL SELECT 6, 'large object ' || l.oid FROM pg_catalog.pg_largeobject_metadata l\
         ) AS found (place, what) ORDER BY place LIMIT 1"
    );
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_optional(target).await?)
}

/// The subscriptions of the database that the connection is in, and whether each is at work.
const SUBSCRIPTIONS: &str = "SELECT pg_catalog.quote_ident(subname), subenabled FROM pg_catalog.pg_subscription \
     WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
/// Whether applications are at work in it, so that it will not be dropped. Of whom one may know nothing counts as one.
const IS_USED: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE coalesce(backend_type, 'client backend') = 'client backend' \
     AND datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid())";

/// Drops what keeps a database from being dropped, unless something else does too; gives the names. Their publishers
/// are not asked: they may be gone.
pub(super) async fn drop_subscriptions(mut connection: PgConnection) -> Result<Vec<String>, ServerTrouble> {
    let found: Vec<(String, bool)> = sqlx::query_as(SUBSCRIPTIONS).fetch_all(&mut connection).await?;
    let is_used = !found.is_empty() && sqlx::query_scalar(IS_USED).fetch_one(&mut connection).await?;
    let mut dropped = Vec::new();
    if !is_used {
        for (name, is_enabled) in found {
            if is_enabled {
                run(&mut connection, format!("ALTER SUBSCRIPTION {name} DISABLE")).await?;
            }
            run(&mut connection, format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")).await?;
            run(&mut connection, format!("DROP SUBSCRIPTION {name}")).await?;
            dropped.push(name);
        }
    }
    // Nobody may be in it when it is dropped.
    connection.close().await?;
    Ok(dropped)
}

/// Encoding of the database that the connection is in.
pub(super) async fn encoding(target: &mut PgConnection) -> Result<String, ServerTrouble> {
    let sql = "SELECT pg_catalog.pg_encoding_to_char(encoding)::text FROM pg_catalog.pg_database \
               WHERE datname = pg_catalog.current_database()";
    Ok(sqlx::query_scalar(sql).fetch_one(target).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQL: &str = "SET statement_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\n\
        CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8' TABLESPACE = fast LOCALE = 'C.UTF-8';\n\
        ALTER DATABASE shop OWNER TO owner;\n\\connect shop\nSET client_encoding = 'UTF8';\n\
        COMMENT ON DATABASE shop IS 'the shop''s; DATABASE shop';\nALTER DATABASE shop CONNECTION LIMIT = 5;\n\
        ALTER DATABASE shop SET \"TimeZone\" TO 'Europe/Moscow';\nALTER ROLE app IN DATABASE shop SET work_mem TO '8MB';\n\
        REVOKE CONNECT,TEMPORARY ON DATABASE shop FROM PUBLIC;\n";

    #[test]
    fn a_new_name_keeps_everything() {
        let read =
            |to: &str, owners, tenancy, tablespaces| Properties::read(SQL, "shop", to, owners, tenancy, tablespaces);
        let guest = read("lifeboat_drill_1", Owners::Drop, Tenancy::Guest, Tablespaces::Drop).unwrap();
        assert_eq!(guest.at_once, ["ALTER DATABASE \"lifeboat_drill_1\" SET \"TimeZone\" TO 'Europe/Moscow'"]);
        assert!(guest.at_the_end.is_empty());
        let read = read("Shop 2", Owners::Keep, Tenancy::Owner, Tablespaces::Keep).unwrap();
        assert_eq!(
            read.create,
            "CREATE DATABASE \"Shop 2\" WITH TEMPLATE = template0 ENCODING = 'UTF8' TABLESPACE = fast LOCALE = 'C.UTF-8'"
        );
        assert_eq!(
            read.at_once,
            [
                "ALTER DATABASE \"Shop 2\" OWNER TO owner",
                "ALTER DATABASE \"Shop 2\" SET \"TimeZone\" TO 'Europe/Moscow'",
                "ALTER ROLE app IN DATABASE \"Shop 2\" SET work_mem TO '8MB'",
                "REVOKE CONNECT,TEMPORARY ON DATABASE \"Shop 2\" FROM PUBLIC",
            ]
        );
        assert_eq!(
            read.at_the_end,
            [
                "COMMENT ON DATABASE \"Shop 2\" IS 'the shop''s; DATABASE shop'",
                "ALTER DATABASE \"Shop 2\" CONNECTION LIMIT = 5"
            ]
        );
        let bare = Properties::read(SQL, "shop", "shop", Owners::Drop, Tenancy::Owner, Tablespaces::Drop).unwrap();
        assert!(!bare.create.contains("TABLESPACE"));
        assert!(!bare.at_once.iter().any(|text| text.starts_with("ALTER ROLE")));
        let newer = SQL.replace("LOCALE =", "LOCALE_PROVIDER = libc LOCALE =");
        let mut older =
            Properties::read(&newer, "shop", "shop", Owners::Keep, Tenancy::Owner, Tablespaces::Drop).unwrap();
        assert!(older.create.contains("LOCALE_PROVIDER"));
        older.without_provider().unwrap();
        assert!(older.create.ends_with("ENCODING = 'UTF8'   LOCALE = 'C.UTF-8'"), "{}", older.create);
        let nothing = Properties::read("SET a = 1;", "shop", "shop", Owners::Keep, Tenancy::Owner, Tablespaces::Keep);
        assert!(nothing.is_err());
    }
}
