//! What happens between the first members and the rows: roles, the database, its tables.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, PgConnection};

use super::archive::{Archive, Entry, Language, Run, Tablespaces, trouble};
use super::database::{self, Properties};
use super::error::{LoadError, said};
use super::statements::{Statement, statements};
use super::{Existing, Filling, Globals, LoadOptions, Loader, Owners, Tenancy, connect, globals, run};
use crate::sources::postgres::connect::ServerTrouble;
use crate::sources::postgres::layout::{
    GLOBALS, LARGE_OBJECT_OWNERS, LARGE_OBJECTS, ListedTable, SCHEMA, TABLES, TABLES_VERSION, TableList, literal,
    quoted,
};

/// SQLSTATEs of a right on a parameter that the server does not have, or that our role cannot give.
const NO_SUCH_PARAMETER: [&str; 3] = ["42602", "42704", "42501"];
/// Statements about large objects that are one transaction.
const LARGE_OBJECT_BATCH: usize = 500;

/// Entries that name roles, beside owners and rights, and how they are called.
const NAMING_ROLES: [(&str, &str); 2] = [("POLICY ", "policies"), ("USER MAPPING ", "user mappings")];
/// SQLSTATE of what a role may not do.
pub(super) const DENIED: &str = "42501";
/// The first version with a choice of locale providers. Tools from then on name the only one to older servers too, and
/// these do not know the word.
const PROVIDER_SINCE: u32 = 15;
/// How a statement begins that describes the database.
pub(super) const COMMENT: &str = "COMMENT ON DATABASE ";
/// What a database is described as until it is complete: whoever is woken up by it sees it in `\l+`.
pub(super) const UNFINISHED: &str = "NOT COMPLETE: lifeboat is restoring it, or was stopped while it did";

impl Loader {
    /// Makes roles (where told), the database, and everything in it that rows need. From here on something is changed.
    /// Ends early where `stop` does.
    ///
    /// # Errors
    /// [`LoadError`]. What was made stays; a further restore needs [`Existing::Replace`].
    pub fn prepare(self, stop: impl Future<Output = ()>) -> Result<Filling, LoadError> {
        let runtime = self.runtime.clone();
        runtime.block_on(async {
            tokio::select! {
                prepared = self.prepare_async() => prepared,
                () = stop => Err(LoadError::Stopped),
            }
        })
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
            language: self.language().await?,
        };
        if self.options.globals == Globals::Make {
            self.make_roles(&globals).await?;
        }
        let at_the_end = self.make_database(&archive, &list).await?;
        let post_data = if self.options.whole() {
            let target = self.options.target();
            let doing = "making what stands before the data";
            if self.options.tenancy == Tenancy::Owner && list.unrestorable.is_empty() {
                archive.run(&target, doing, "pre-data", Run::All).await?;
            } else {
                let entries = self.entries(&archive, "pre-data", &list).await?;
                // One at a time: what stands before the data builds on what stands before it.
                archive.run(&target, doing, "pre-data", Run::Entries { entries: &entries, jobs: 1 }).await?;
            }
            self.make_large_objects().await?;
            self.entries(&archive, "post-data", &list).await?
        } else {
            let tables = list.tables.iter().filter(|table| wanted.contains(&table.oid));
            make_tables(&self.options, &archive, tables, &mut self.remarks).await?;
            Vec::<Entry>::new()
        };
        // Tables that were there and of which there are keys and references are emptied by nobody but their owner.
        let may_skip_log = self.options.whole() && self.logs_little().await?;
        Ok(Filling {
            archive,
            post_data,
            at_the_end,
            wanted,
            may_skip_log,
            encoding: list.encoding,
            tables: list.tables.into_iter().map(|table| (table.oid, table)).collect::<BTreeMap<_, _>>(),
            remarks: self.remarks,
            runtime: self.runtime,
            options: self.options,
        })
    }

    /// What of a section is restored: where we are a guest nothing that names roles, and nothing that needs what was
    /// left out.
    async fn entries(&mut self, archive: &Archive, section: &str, list: &TableList) -> Result<Vec<Entry>, LoadError> {
        let entries = match self.options.tenancy {
            Tenancy::Owner => archive.list(section).await?,
            Tenancy::Guest => self.without_roles(archive.list_inside(section).await?),
        };
        let without: BTreeSet<u32> = list.unrestorable.iter().copied().collect();
        Ok(entries.into_iter().filter(|entry| !without.contains(&entry.number())).collect())
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

    /// Only a superuser decides in which language the server speaks to him.
    async fn language(&mut self) -> Result<Language, LoadError> {
        let sql = "SELECT pg_catalog.current_setting('is_superuser') = 'on'";
        let asked: Result<bool, _> = sqlx::query_scalar(sql).fetch_one(&mut self.maintenance).await;
        let failed = trouble(&self.options.access, "looking at the server");
        Ok(if asked.map_err(|cause| failed(cause.into()))? { Language::English } else { Language::Unchosen })
    }

    /// Whether the server's log is for its own crashes alone.
    async fn logs_little(&mut self) -> Result<bool, LoadError> {
        let sql = "SELECT pg_catalog.current_setting('wal_level') = 'minimal'";
        let asked: Result<bool, _> = sqlx::query_scalar(sql).fetch_one(&mut self.maintenance).await;
        let failed = trouble(&self.options.access, "looking at the server");
        asked.map_err(|cause| failed(cause.into()))
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
            let ran = run_or_grant(&mut connection, statement).await;
            if let Err(refused) = &ran
                && globals::is_of_parameter(statement)
                && refused.state().is_some_and(|state| NO_SUCH_PARAMETER.contains(&state.as_str()))
            {
                self.remarks.push(format!("passed over: {} ({})", statement.text(), said(refused)));
                continue;
            }
            ran.map_err(trouble(&self.options.access, format!("making roles, {}", words.join(" "))))?;
        }
        let made: Vec<String> = globals::roles(globals).difference(&self.roles).cloned().collect();
        if !made.is_empty() {
            self.remarks.push(format!("roles were made: {}", made.join(", ")));
        }
        let now = roles(&mut self.maintenance).await.map_err(trouble(&self.options.access, "looking at the server"))?;
        if self.options.owners == Owners::Keep {
            must_have_roles(&server, &self.options.needs.roles, &now)?;
        }
        self.roles = now;
        Ok(())
    }

    /// Makes large objects, and gives them to their owners: pg_restore does so only for older versions of pg_dump.
    async fn make_large_objects(&mut self) -> Result<(), LoadError> {
        let whose = match self.options.owners {
            Owners::Keep => std::mem::take(&mut self.large_object_owners),
            Owners::Drop => Vec::new(),
        };
        let texts = [(LARGE_OBJECTS, std::mem::take(&mut self.large_objects)), (LARGE_OBJECT_OWNERS, whose)];
        if texts.iter().all(|(_, text)| text.is_empty()) {
            return Ok(());
        }
        let target = self.options.target();
        let mut connection = connect(&target).await?;
        for (member, text) in texts {
            let text = String::from_utf8(text).map_err(|_| LoadError::unsafe_member(member, "is not UTF-8 text"))?;
            let mut lines = text.split_inclusive('\n').peekable();
            while lines.peek().is_some() {
                // What is run at once is one transaction, which holds a lock on each object.
                let some: String = lines.by_ref().take(LARGE_OBJECT_BATCH).collect();
                run(&mut connection, some).await.map_err(trouble(&target, format!("running {member}")))?;
            }
        }
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
        let mut properties = Properties::read(
            &sql,
            &list.database,
            &options.database,
            options.owners,
            options.tenancy,
            archive.tablespaces,
        )?;
        if self.server_major < PROVIDER_SINCE {
            properties.without_provider()?;
        }
        if there && options.existing == Existing::Replace {
            let target = options.target();
            let removed = database::drop_subscriptions(connect(&target).await?).await;
            for name in removed.map_err(trouble(&target, "dropping its subscriptions"))? {
                let publisher = "if its publisher kept a replication slot for it, drop that there";
                self.remarks.push(format!("subscription {name} went with the old database: {publisher}"));
            }
            let drop = format!("DROP DATABASE {}", quoted(&options.database));
            let dropped = run(&mut self.maintenance, drop).await;
            dropped.map_err(trouble(access, format!("dropping database {}", options.database)))?;
            there = false;
        }
        let name = quoted(&options.database);
        let unfinished = literal(UNFINISHED);
        let mut comment = None;
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
            let made = run(&mut self.maintenance, properties.create).await;
            made.map_err(|cause| LoadError::database_not_made(&access.address.to_string(), doing.clone(), cause))?;
        }
        let mut at_the_end = properties.at_the_end;
        if options.tenancy == Tenancy::Owner {
            if there {
                let asked = database::comment(&mut self.maintenance, &options.database).await;
                comment = asked.map_err(trouble(access, doing.clone()))?;
            }
            // A database that somebody else owns is not ours to describe.
            let marked = run(&mut self.maintenance, format!("{COMMENT}{name} IS {unfinished}")).await;
            match marked {
                Err(refused) if there && refused.state().as_deref() == Some(DENIED) => {}
                marked => {
                    marked.map_err(trouble(access, doing.clone()))?;
                    if !at_the_end.iter().any(|statement| statement.starts_with(COMMENT)) {
                        let before = comment.as_deref().map_or("NULL".to_owned(), literal);
                        at_the_end.push(format!("{COMMENT}{name} IS {before}"));
                    }
                }
            }
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
        Ok(at_the_end)
    }
}

/// Runs a statement; where it says who granted a membership and that is refused, without saying so. At the source it may
/// have been the server's first role, who may grant everything: here that is another.
async fn run_or_grant(connection: &mut PgConnection, statement: &Statement<'_>) -> Result<(), ServerTrouble> {
    match run(connection, statement.text()).await {
        Err(_) if globals::names_grantor(statement) => run(connection, statement.without_option("GRANTED")).await,
        ran => ran,
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
