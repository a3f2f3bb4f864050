//! From a source's settings to a source that can be opened: what it may not read, and what it must be given.

use std::sync::Arc;

use crate::config::{JobSettings, PostgresSettings, SourceKind, SourceSettings};
use crate::error::Result;
use crate::seal::SourceKeys;
use crate::sources::Source;
use crate::sources::files::{FilesOptions, FilesSource, LeftOut};
use crate::sources::postgres::{PostgresOptions, PostgresSource};
use crate::sources::sqlite::SqliteSource;

use super::super::access::access;
use super::super::state::WorkFolder;
use super::Run;

/// A source, with what must live as long as it does.
pub(super) struct Opened {
    pub(super) source: Box<dyn Source>,
    /// Where its tools write; gone when this is.
    _work: Option<WorkFolder>,
}

/// The source that the settings mean. Secrets are read now.
///
/// # Errors
/// When a secret or the state folder cannot be had.
pub(super) fn source(run: &Run<'_>, job: &JobSettings, settings: &SourceSettings, keys: &SourceKeys) -> Result<Opened> {
    let host = run.host;
    let source: Box<dyn Source> = match &settings.kind {
        SourceKind::Files(files) => Box::new(FilesSource::new(
            FilesOptions {
                paths: files.paths.clone(),
                exclude: files.exclude.clone(),
                one_file_system: files.one_file_system,
                exclude_caches: files.exclude_caches,
                leave_out: leave_out(run, job)?,
                name_key: keys.name_key,
            },
            Arc::clone(&host.clock),
        )),
        SourceKind::Sqlite(sqlite) => Box::new(SqliteSource::new(sqlite.path.clone(), Arc::clone(&host.clock))),
        SourceKind::Postgres(postgres) => {
            let work = host.home()?.state.work(&job.name, &settings.name)?;
            let options = postgres_options(postgres, &work)?;
            let source = PostgresSource::new(options, host.runtime.clone(), Arc::clone(&host.clock));
            return Ok(Opened { source: Box::new(source), _work: Some(work) });
        }
    };
    Ok(Opened { source, _work: None })
}

fn postgres_options(settings: &PostgresSettings, work: &WorkFolder) -> Result<PostgresOptions> {
    Ok(PostgresOptions {
        access: access(settings)?,
        include_tables: settings.include_tables.clone(),
        exclude_tables: settings.exclude_tables.clone(),
        exclude_data: settings.exclude_data.clone(),
        tools: settings.tools.clone(),
        connections: settings.connections,
        max_lock_wait: settings.max_lock_wait,
        max_snapshot: settings.max_snapshot,
        scratch: work.path().to_owned(),
    })
}

/// What no walk of this job may store, or even open. A raw copy of a live database is torn and carries deleted rows
/// along, and closing the file would drop whatever locks SQLite holds on it in this process. The vault would
/// back itself up, and grow with every run; the state folder holds this host's keys and the catalog.
fn leave_out(run: &Run<'_>, job: &JobSettings) -> Result<Vec<LeftOut>> {
    let state = run.host.home()?.state.root().to_owned();
    let mut left_out = vec![LeftOut { path: state, why: "it is lifeboat's own state folder".to_owned() }];
    left_out.extend(
        run.vault.folder().map(|path| LeftOut { path, why: "it is the vault that this backup goes to".to_owned() }),
    );
    for source in &job.sources {
        let SourceKind::Sqlite(sqlite) = &source.kind else { continue };
        // SQLite follows a link before it names the files beside the database.
        let database = sqlite.path.canonicalize().unwrap_or_else(|_| sqlite.path.clone());
        for ending in ["", "-wal", "-shm", "-journal"] {
            let mut path = database.clone().into_os_string();
            path.push(ending);
            left_out.push(LeftOut { path: path.into(), why: format!("backed up by source {}", source.name) });
        }
    }
    Ok(left_out)
}
