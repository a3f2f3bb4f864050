//! What stands behind the rows: keys first, then everything else, then statistics.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::{AssertSqlSafe, PgConnection};
use tokio::task::JoinSet;

use super::archive::{Run, trouble};
use super::error::LoadError;
use super::order::{Pace, Step};
use super::prepare::{COMMENT, DENIED};
use super::{Filling, Loaded, Outside, connect, order, run};
use crate::sources::postgres::connect::{Access, ServerTrouble};
use crate::sources::postgres::layout::ListedTable;

/// Materialized views that show something of a foreign table, directly or through other views.
const FOREIGN_VIEWS: &str = "WITH RECURSIVE reached AS (\
    SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'f' \
    UNION SELECT r.ev_class FROM reached JOIN pg_catalog.pg_depend d \
      ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = reached.oid \
      AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid) \
    SELECT n.nspname::text, c.relname::text FROM reached JOIN pg_catalog.pg_class c ON c.oid = reached.oid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm'";
/// How entries are described that are, or are about, subscriptions.
const OF_SUBSCRIPTIONS: [&str; 3] = ["SUBSCRIPTION - ", "COMMENT - SUBSCRIPTION ", "SECURITY LABEL - SUBSCRIPTION "];
/// What has rows to learn about, the largest first. A partition is looked at with the table that it is part of.
const TO_ANALYZE: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'p') \
    AND NOT c.relispartition AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    ORDER BY pg_catalog.pg_relation_size(c.oid) DESC, 1";

impl Filling {
    /// Ends the load: `index` (keys, then `queryable`, then indexes, constraints, triggers, materialized views) and
    /// `analyze`. `phase` is called when each of the three begins; the database is complete when this returns. Ends
    /// early where `stop` does.
    ///
    /// # Errors
    /// [`LoadError`]: the first thing that failed.
    pub fn finish(
        self,
        stop: impl Future<Output = ()>,
        phase: &(dyn Fn(&'static str) + Sync),
    ) -> Result<Loaded, LoadError> {
        let runtime = self.runtime.clone();
        runtime.block_on(async {
            tokio::select! {
                loaded = self.finish_async(phase) => loaded,
                () = stop => Err(LoadError::Stopped),
            }
        })
    }

    async fn finish_async(mut self, phase: &(dyn Fn(&'static str) + Sync)) -> Result<Loaded, LoadError> {
        let target = self.options.target();
        let mut connection = connect(&target).await?;
        if self.options.whole() {
            phase("index");
            self.leave_out_foreign(&mut connection).await?;
            let (keys, others) = order::steps(std::mem::take(&mut self.post_data));
            self.index(&target, &keys).await?;
            phase("queryable");
            for step in &others {
                self.index(&target, step).await?;
            }
        }
        phase("analyze");
        let found: Result<Vec<String>, _> = if self.options.whole() {
            sqlx::query_scalar(TO_ANALYZE).fetch_all(&mut connection).await
        } else {
            Ok(self.wanted.iter().filter_map(|oid| self.tables.get(oid)).map(ListedTable::qualified).collect())
        };
        let names = found.map_err(|cause| trouble(&target, "listing the tables")(cause.into()))?;
        analyze(&target, names, self.options.jobs).await?;
        for statement in &self.at_the_end {
            match run(&mut connection, statement.clone()).await {
                // It was given away meanwhile, and everything else of it is there.
                Err(refused) if statement.starts_with(COMMENT) && refused.state().as_deref() == Some(DENIED) => {
                    self.remarks.push(format!(
                        "the database is complete, and its comment is not ours to set any more: {statement}"
                    ));
                }
                ran => ran.map_err(trouble(&target, "setting the database's properties"))?,
            }
        }
        // What went before did not wait for the disk; this does, and with it everything before. It makes nothing: by now
        // there may be event triggers.
        let end =
            "SET synchronous_commit = on; SELECT pg_catalog.pg_logical_emit_message(true, 'lifeboat', 'restored')";
        run(&mut connection, end.to_owned()).await.map_err(trouble(&target, "waiting for the server's disk"))?;
        Ok(Loaded { remarks: self.remarks })
    }

    async fn index(&self, target: &Access, Step { doing, pace, entries }: &Step) -> Result<(), LoadError> {
        if entries.is_empty() {
            return Ok(());
        }
        let jobs = match pace {
            Pace::Several => self.options.jobs.max(1),
            Pace::OneByOne => 1,
        };
        self.archive.run(target, doing, "post-data", Run::Entries { entries, jobs }).await
    }

    /// In a drill nobody is asked: a materialized view over foreign tables is not filled.
    async fn leave_out_foreign(&mut self, connection: &mut PgConnection) -> Result<(), LoadError> {
        if self.options.outside == Outside::Keep {
            return Ok(());
        }
        // pg_restore leaves subscriptions out when told, and not in every version what is said of them.
        self.post_data.retain(|entry| !OF_SUBSCRIPTIONS.iter().any(|it| entry.description().starts_with(it)));
        let found: Result<Vec<(String, String)>, _> = sqlx::query_as(FOREIGN_VIEWS).fetch_all(connection).await;
        let failed = trouble(&self.options.access, "looking for foreign tables");
        for (schema, name) in found.map_err(|cause| failed(cause.into()))? {
            let beginning = format!("MATERIALIZED VIEW DATA {schema} {name} ");
            self.post_data.retain(|entry| !entry.description().starts_with(&beginning));
            self.remarks.push(format!("materialized view {schema}.{name} shows foreign tables and was left empty"));
        }
        Ok(())
    }
}

/// Learns about tables, several at a time.
async fn analyze(target: &Access, names: Vec<String>, jobs: u32) -> Result<(), LoadError> {
    let jobs = usize::try_from(jobs).unwrap_or(1).clamp(1, names.len().max(1));
    let names = Arc::new(Mutex::new(VecDeque::from(names)));
    // Dropped with this future, and with it its connections.
    let mut tasks: JoinSet<Result<(), LoadError>> = JoinSet::new();
    for _ in 0..jobs {
        let (target, names) = (target.clone(), Arc::clone(&names));
        tasks.spawn(async move {
            let mut connection = connect(&target).await?;
            let relaxed = run(&mut connection, "SET synchronous_commit = off".to_owned()).await;
            relaxed.map_err(trouble(&target, "setting up the session"))?;
            loop {
                let next = names.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(name) = next else { return Ok(()) };
                let learnt = learn(&mut connection, &name).await;
                learnt.map_err(trouble(&target, format!("analyzing table {name}")))?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        // A panic is a bug of ours and goes on here.
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    }
    Ok(())
}

async fn learn(connection: &mut PgConnection, name: &str) -> Result<(), ServerTrouble> {
    sqlx::raw_sql(AssertSqlSafe(format!("ANALYZE {name}"))).execute(connection).await?;
    Ok(())
}
