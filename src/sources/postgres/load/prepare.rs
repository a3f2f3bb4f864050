//! What happens between the first members and the rows: roles, the database, its tables.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, PgConnection};

use super::archive::{Archive, Entry, Run, Tablespaces, trouble};
use super::database::{self, Properties};
use super::error::LoadError;
use super::statements::{Statement, statements};
use super::{Existing, Filling, Globals, LoadOptions, Loader, Owners, Tenancy, connect, globals, run};
use crate::sources::postgres::connect::ServerTrouble;
use crate::sources::postgres::layout::{GLOBALS, ListedTable, SCHEMA, TABLES, TABLES_VERSION, TableList, quoted};

/// Entries that name roles, beside owners and rights, and how they are called.
const NAMING_ROLES: [(&str, &str); 2] = [("POLICY ", "policies"), ("USER MAPPING ", "user mappings")];
/// SQLSTATE of what a role may not do.
const DENIED: &str = "42501";

impl Loader {
    /// Makes roles (where told), the database, and everything in it that rows need. From here on something is changed.
    ///
    /// # Errors
    /// [`LoadError`]. What was made stays; a further restore needs [`Existing::Replace`].
    pub fn prepare(self) -> Result<Filling, LoadError> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.prepare_async())
    }

    async fn prepare_async(mut self) -> Result<Filling, LoadError> {
        let list = table_list(&self.tables)?;
        if self.schema.take().is_none() {
            return Err(LoadError::Lacks { what: SCHEMA.to_owned() });
        }
        let wanted: BTreeSet<u32> =
            list.tables.iter().filter(|table| self.options.wants(table)).map(|table| table.oid).collect();
        if let (Some(patterns), true) = (&self.options.tables, wanted.is_empty()) {
            return Err(LoadError::Lacks { what: format!("table {}", patterns.join(", ")) });
        }
        let text = String::from_utf8_lossy(&self.globals).into_owned();
        let globals = statements(&text).ok_or_else(|| LoadError::unsafe_member(GLOBALS, "is not SQL that ends"))?;
        let archive = Archive {
            file: self.options.private.join(SCHEMA),
            private: self.options.private.clone(),
            tools: self.options.tools.clone(),
            owners: self.options.owners,
            outside: self.options.outside,
            tablespaces: self.tablespaces(&globals).await?,
        };
        if self.options.globals == Globals::Make {
            self.make_roles(&globals).await?;
        }
        let at_the_end = self.make_database(&archive, &list).await?;
        let post_data = if self.options.whole() {
            let target = self.options.target();
            let doing = "making what stands before the data";
            match self.options.tenancy {
                Tenancy::Owner => {
                    archive.run(&target, doing, "pre-data", Run::All).await?;
                    archive.list("post-data").await?
                }
                Tenancy::Guest => {
                    let entries = self.without_roles(archive.list_inside("pre-data").await?);
                    // One at a time: what stands before the data builds on what stands before it.
                    archive.run(&target, doing, "pre-data", Run::Entries { entries: &entries, jobs: 1 }).await?;
                    self.without_roles(archive.list_inside("post-data").await?)
                }
            }
        } else {
            let tables = list.tables.iter().filter(|table| wanted.contains(&table.oid));
            make_tables(&self.options, &archive, tables, &mut self.remarks).await?;
            Vec::<Entry>::new()
        };
        Ok(Filling {
            archive,
            post_data,
            at_the_end,
            wanted,
            encoding: list.encoding,
            tables: list.tables.into_iter().map(|table| (table.oid, table)).collect::<BTreeMap<_, _>>(),
            remarks: self.remarks,
            runtime: self.runtime,
            options: self.options,
        })
    }

    /// Leaves out what names roles that a server of somebody else's need not have.
    fn without_roles(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let (named, kept): (Vec<Entry>, Vec<Entry>) = entries
            .into_iter()
            .partition(|entry| NAMING_ROLES.iter().any(|(kind, _)| entry.description().starts_with(kind)));
        for (kind, called) in NAMING_ROLES {
            let count = named.iter().filter(|entry| entry.description().starts_with(kind)).count();
            if count > 0 {
                self.remarks.push(format!("{called} name roles of the source and were left out: {count}"));
            }
        }
        kept
    }

    /// Keeps tablespaces only where the server has all of them, and they are ours to fill.
    async fn tablespaces(&mut self, globals: &[Statement<'_>]) -> Result<Tablespaces, LoadError> {
        if self.options.tenancy == Tenancy::Guest {
            return Ok(Tablespaces::Drop);
        }
        let sql = "SELECT spcname::text FROM pg_catalog.pg_tablespace";
        let found: Result<Vec<String>, _> = sqlx::query_scalar(sql).fetch_all(&mut self.maintenance).await;
        let failed = trouble(&self.options.access, "looking at the server");
        let found = found.map_err(|cause| failed(cause.into()))?;
        let missing: Vec<String> =
            globals::tablespaces(globals).into_iter().filter(|name| !found.contains(name)).collect();
        if missing.is_empty() {
            return Ok(Tablespaces::Keep);
        }
        self.remarks
            .push(format!("the server has no tablespace {}: everything lies in the default one", missing.join(", ")));
        Ok(Tablespaces::Drop)
    }

    async fn make_roles(&mut self, globals: &[Statement<'_>]) -> Result<(), LoadError> {
        let server = self.options.access.address.to_string();
        // A session of its own: the file sets some things in it.
        let mut connection = connect(&self.options.access).await?;
        let (settings, others): (Vec<_>, Vec<_>) = globals.iter().partition(|it| globals::is_setting(it));
        let missing = others.into_iter().filter(|statement| globals::is_for_missing(statement, &self.roles));
        for statement in settings.into_iter().chain(missing) {
            // Only the beginning is told: a password may stand further behind.
            let words: Vec<String> = statement.words().into_iter().take(3).collect();
            let ran = run(&mut connection, statement.text()).await;
            ran.map_err(trouble(&self.options.access, format!("making roles, {}", words.join(" "))))?;
        }
        let made = globals::roles(globals).difference(&self.roles).count();
        if made > 0 {
            self.remarks.push(format!("{made} roles were made"));
        }
        let now = roles(&mut self.maintenance).await.map_err(trouble(&self.options.access, "looking at the server"))?;
        if self.options.owners == Owners::Keep {
            must_have_roles(&server, &self.options.needs.roles, &now)?;
        }
        self.roles = now;
        Ok(())
    }

    /// Gives what is to be set at the very end.
    async fn make_database(&mut self, archive: &Archive, list: &TableList) -> Result<Vec<String>, LoadError> {
        let options = &self.options;
        let access = &options.access;
        let doing = format!("making database {}", options.database);
        let mut there = database::exists(&mut self.maintenance, &options.database)
            .await
            .map_err(trouble(access, "looking at the server"))?;
        if there && !options.whole() {
            return Ok(Vec::new());
        }
        let sql = archive.database_sql().await?;
        let properties = Properties::read(
            &sql,
            &list.database,
            &options.database,
            options.owners,
            options.tenancy,
            archive.tablespaces,
        )?;
        if there && options.existing == Existing::Replace {
            let drop = format!("DROP DATABASE {}", quoted(&options.database));
            let dropped = run(&mut self.maintenance, drop).await;
            dropped.map_err(trouble(access, format!("dropping database {}", options.database)))?;
            there = false;
        }
        if there {
            let target = options.target();
            let found = database::encoding(&mut connect(&target).await?).await;
            let found = found.map_err(trouble(&target, "looking at the database"))?;
            if found != list.encoding {
                let wanted = list.encoding.clone();
                return Err(LoadError::Encoding { server: target.address.to_string(), found, wanted });
            }
            if options.tenancy == Tenancy::Owner {
                self.remarks.push(format!("database {} was there: its locale is its own", options.database));
            }
        } else {
            run(&mut self.maintenance, properties.create).await.map_err(trouble(access, doing.clone()))?;
        }
        for statement in properties.at_once {
            let words: Vec<&str> = statement.split(' ').skip(3).take(2).collect();
            match run(&mut self.maintenance, statement.clone()).await {
                Err(refused) if options.tenancy == Tenancy::Guest && refused.state().as_deref() == Some(DENIED) => {
                    self.remarks
                        .push(format!("a setting of the database is not this role's to make: {}", words.join(" ")));
                }
                ran => ran.map_err(trouble(access, doing.clone()))?,
            }
        }
        Ok(properties.at_the_end)
    }
}

/// The server's roles.
pub(super) async fn roles(connection: &mut PgConnection) -> Result<BTreeSet<String>, ServerTrouble> {
    let roles: Vec<String> =
        sqlx::query_scalar("SELECT rolname::text FROM pg_catalog.pg_roles").fetch_all(connection).await?;
    Ok(roles.into_iter().collect())
}

/// Names those that are needed and missing.
pub(super) fn must_have_roles(server: &str, needed: &[String], there: &BTreeSet<String>) -> Result<(), LoadError> {
    let missing: Vec<String> = needed.iter().filter(|role| !there.contains(*role)).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(LoadError::MissingRoles { server: server.to_owned(), missing })
}

fn table_list(bytes: &[u8]) -> Result<TableList, LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Lacks { what: TABLES.to_owned() });
    }
    let list: TableList = serde_json::from_slice(bytes)
        .map_err(|cause| LoadError::unsafe_member(TABLES, format!("is not the list of tables: {cause}")))?;
    if list.version > TABLES_VERSION {
        let what = format!("has version {}, and this lifeboat knows {TABLES_VERSION}: use a newer one", list.version);
        return Err(LoadError::unsafe_member(TABLES, what));
    }
    Ok(list)
}

/// Makes sure that single tables are there and without rows.
async fn make_tables<'a>(
    options: &LoadOptions,
    archive: &Archive,
    tables: impl Iterator<Item = &'a ListedTable>,
    remarks: &mut Vec<String>,
) -> Result<(), LoadError> {
    let target = options.target();
    let mut connection = connect(&target).await?;
    for table in tables {
        let shown = table.shown();
        let failed = || trouble(&target, format!("looking at table {shown}"));
        let sql = "SELECT pg_catalog.to_regclass($1) IS NOT NULL";
        let there: Result<bool, _> = sqlx::query_scalar(sql).bind(table.qualified()).fetch_one(&mut connection).await;
        if !there.map_err(|cause| failed()(cause.into()))? {
            let schema = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&table.schema));
            run(&mut connection, schema).await.map_err(trouble(&target, format!("making table {shown}")))?;
            let part = Run::Table { schema: &table.schema, name: &table.name };
            archive.run(&target, &format!("making table {shown}"), "pre-data", part).await?;
            remarks.push(format!(
                "table {shown} was made with its columns and checks: no keys, indexes, defaults of sequences"
            ));
            continue;
        }
        match options.existing {
            Existing::Replace => {
                let sql = format!("TRUNCATE ONLY {}", table.qualified());
                run(&mut connection, sql).await.map_err(trouble(&target, format!("emptying table {shown}")))?;
            }
            Existing::Refuse => {
                let sql = format!("SELECT EXISTS (SELECT FROM ONLY {})", table.qualified());
                let full: Result<bool, _> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await;
                if full.map_err(|cause| failed()(cause.into()))? {
                    return Err(LoadError::TableNotEmpty { server: target.address.to_string(), table: shown });
                }
            }
        }
    }
    Ok(())
}
