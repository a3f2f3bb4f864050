//! What the daemon tells of its jobs, gathered once for all who ask: the page and the metrics are made of one look at config,
//! catalog and vaults. It is taken on the thread of who asks first, kept for a minute, and taken anew once a run has ended.
//! Nobody looks a second time beside it.
//!
//! Only the texts are kept, not the rows that they were made of: a daemon that was asked once must not stay large for it.
//! Notifications are no part of this: they go by the catalog alone, and ask no vault.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::runtime::Handle;

use super::DaemonError;
use super::board::{Board, Notice};
use super::work::identity_texts;
use super::{lock, metrics, page};
use crate::clock::Clock;
use crate::config::{JobSettings, Settings};
use crate::domain::ids::VaultId;
use crate::error::{Code, Error, Result};
use crate::evidence::facts::Gathered;
use crate::evidence::gather::{Sizes, gather};
use crate::evidence::page::{PageFacts, pages};
use crate::evidence::strip;
use crate::operations::TOOL;
use crate::operations::host::Host;
use crate::operations::interrupt::Interrupt;
use crate::operations::vaults::{self, OpenVault, Trusted};
use crate::vault::identity::read_comments;

/// How long a look is told again, while no run ends. A vault that is far away must not be read at every scrape.
pub const KEPT: Duration = Duration::from_secs(60);

/// Where looks are taken from, and the last one.
pub struct Outlook {
    runtime: Handle,
    clock: Arc<dyn Clock>,
    config: PathBuf,
    identities: Vec<PathBuf>,
    board: Board,
    kept: Mutex<Option<Look>>,
    /// Held by whoever takes the next one, with the last config that could be read.
    taking: Mutex<Settings>,
}

/// A look, as texts.
#[derive(Debug, Clone)]
pub struct Look {
    at: Duration,
    /// How many runs had ended when it began.
    runs: u64,
    /// When it was taken.
    pub made: DateTime<Utc>,
    /// Pages by their paths.
    pub pages: Arc<BTreeMap<String, String>>,
    /// The series; none by a config that is not the one on disk.
    pub metrics: Result<Arc<str>>,
}

/// What comes of asking for a look.
#[derive(Debug)]
pub enum Asked {
    /// One that is new enough.
    Fresh(Look),
    /// Another thread takes the next one; the last one, if there is any.
    ByAnother(Option<Look>),
    /// None can be taken.
    Not(Error),
}

impl Outlook {
    /// By this config, read anew for each look. Identity files may name a vault's key in their comments.
    #[must_use]
    pub fn new(
        runtime: Handle,
        clock: Arc<dyn Clock>,
        settings: Settings,
        identities: Vec<PathBuf>,
        board: Board,
    ) -> Self {
        let config = settings.file.clone();
        Self { runtime, clock, config, identities, board, kept: Mutex::default(), taking: Mutex::new(settings) }
    }

    /// The look, for whoever waits for nobody else's. Blocks for as long as the vaults take, where none is fresh and nobody
    /// else takes one.
    #[must_use]
    pub fn look(&self) -> Asked {
        if let Some(look) = self.fresh() {
            return Asked::Fresh(look);
        }
        let mut settings = match self.taking.try_lock() {
            Ok(settings) => settings,
            // Whoever panicked left the last good config.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Asked::ByAnother(lock(&self.kept).clone()),
        };
        match self.fresh().map_or_else(|| self.take(&mut settings), Ok) {
            Ok(look) => Asked::Fresh(look),
            Err(error) => Asked::Not(error),
        }
    }

    /// The series. Two who ask at once wait for one another, and the second gets the first's.
    ///
    /// # Errors
    /// When the config on disk cannot be read, or state folder or catalog not be used. A vault that cannot be reached is told
    /// in the text.
    pub fn metrics(&self) -> Result<Arc<str>> {
        if let Some(look) = self.fresh() {
            return look.metrics;
        }
        let mut settings = lock(&self.taking);
        match self.fresh() {
            Some(look) => look.metrics,
            None => self.take(&mut settings)?.metrics,
        }
    }

    /// How old a look is.
    #[must_use]
    pub fn age(&self, look: &Look) -> Duration {
        self.clock.monotonic().saturating_sub(look.at)
    }

    fn fresh(&self) -> Option<Look> {
        let look = lock(&self.kept).clone()?;
        (self.age(&look) < KEPT && look.runs == self.board.runs()).then_some(look)
    }

    fn take(&self, settings: &mut Settings) -> Result<Look> {
        let (runs, notice, made) = (self.board.runs(), self.board.notice(), self.clock.now());
        let trouble = self.read(settings).err();
        let gathered = self.gathered(settings, made)?;
        let metrics = match &trouble {
            None => metrics::text(&self.runtime, &self.clock, settings, &gathered, &notice, made).map(Arc::from),
            Some(error) => Err(error.clone()),
        };
        let facts = PageFacts {
            gathered,
            zone: settings.timezone,
            plans: page::plans(&notice),
            notices: said(trouble.as_ref(), &notice),
            made,
            tool: TOOL.to_owned(),
        };
        let look = Look { at: self.clock.monotonic(), runs, made, pages: Arc::new(pages(&facts)), metrics };
        *lock(&self.kept) = Some(look.clone());
        Ok(look)
    }

    /// Takes up the config on disk, where it can be used.
    fn read(&self, settings: &mut Settings) -> Result<()> {
        let read = Settings::load(Some(&self.config)).map_err(Error::from).and_then(|read| {
            match read.state_dir == settings.state_dir {
                true => Ok(read),
                false => Err(DaemonError::StateMoved { was: settings.state_dir.clone() }.into()),
            }
        });
        *settings = read.inspect_err(|error| {
            tracing::error!(code = error.code().name(), "nothing is told by the config on disk: {error}");
        })?;
        Ok(())
    }

    fn gathered(&self, settings: &Settings, now: DateTime<Utc>) -> Result<Gathered> {
        let host = Host::bare(self.runtime.clone(), Arc::clone(&self.clock), Interrupt::default())
            .with_home(&settings.state_dir)?;
        let trusted = Trusted { identity_files: identity_texts(&self.identities)? };
        let jobs: Vec<&JobSettings> = settings.jobs.values().collect();
        let open = |job: &JobSettings| opened(&host, settings, job, &trusted);
        // The size of a vault takes a listing of all of it.
        gather(&host, settings, &jobs, Sizes::LeaveOut, Some(strip::window(now)), open, now)
    }
}

/// What is wrong with the daemon itself, for the top of the page.
fn said(config: Option<&Error>, notice: &Notice) -> Vec<String> {
    let config = config.map(|error| {
        format!(
            "The config on disk cannot be used [{}]; this is by the last good one: run `lifeboat config check`.",
            error.code().name()
        )
    });
    let state = notice.state.as_ref();
    let state =
        state.map(|code| format!("What the daemon starts and ends could not be written down {code}: see its log."));
    config.into_iter().chain(state).collect()
}

/// A job's vault, by the id that this host knows it by even where it cannot be reached.
fn opened(
    host: &Host,
    settings: &Settings,
    job: &JobSettings,
    trusted: &Trusted,
) -> Result<(VaultId, Result<OpenVault>)> {
    let missing = || Error::new(Code::ConfigInvalid, format!("job {} has no vault {}", job.name, job.vault));
    let vault = vaults::open(host, settings.vault_of(job).ok_or_else(missing)?, None, trusted);
    let pinned = host.home()?.state.pinned_trust(&job.vault)?;
    let known = pinned.as_deref().map(read_comments).transpose()?.flatten().and_then(|pin| pin.vault);
    match (known, vault) {
        (Some(id), vault) => Ok((id, vault)),
        (None, Ok(vault)) => Ok((vault.id.clone(), Ok(vault))),
        (None, Err(error)) => Err(error),
    }
}

impl std::fmt::Debug for Outlook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlook").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::Status;
    use super::super::page::{LATE, answer};
    use super::*;
    use crate::clock::ManualClock;

    struct Ground {
        runtime: tokio::runtime::Runtime,
        folder: tempfile::TempDir,
        clock: Arc<ManualClock>,
        board: Board,
    }

    impl Ground {
        fn new() -> Self {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let clock = Arc::new(ManualClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
            let board = Board::new(Arc::clone(&clock) as Arc<dyn Clock>);
            let ground = Self { runtime, folder: tempfile::tempdir().unwrap(), clock, board };
            ground.write("shop");
            ground
        }

        fn config(&self) -> PathBuf {
            self.folder.path().join("lifeboat.toml")
        }

        fn write(&self, job: &str) {
            let (state, vault) = (self.folder.path().join("state"), self.folder.path().join("vault"));
            let text = format!(
                "state_dir = {state:?}\n[vault.main]\nurl = {vault:?}\nrecipients = \
                 [\"age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa\"]\n[job.{job}]\nschedule = \"0 */6 * * *\"\n\
                 retention = {{ keep_at_least = \"14d\", delete_after = \"30d\" }}\n[job.{job}.source.uploads]\nkind = \
                 \"files\"\npaths = [\"/srv\"]\n"
            );
            std::fs::write(self.config(), text).unwrap();
        }

        fn outlook(&self) -> Outlook {
            let settings = Settings::load(Some(&self.config())).unwrap();
            let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
            Outlook::new(self.runtime.handle().clone(), clock, settings, vec![], self.board.clone())
        }
    }

    fn ask(outlook: &Outlook, path: &str) -> Option<(Status, String)> {
        answer(outlook, path).map(|answer| (answer.status, answer.body))
    }

    /// Seconds since the tests' noon.
    fn exported(outlook: &Outlook) -> i64 {
        let text = outlook.metrics().unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix("lifeboat_export_timestamp_seconds "));
        value.unwrap().parse::<i64>().unwrap() - 1_795_348_800
    }

    #[test]
    fn it_is_taken_once_a_minute_and_follows_the_config() {
        let ground = Ground::new();
        let outlook = ground.outlook();
        let (status, page) = ask(&outlook, "/").unwrap();
        assert_eq!(status, Status::Ok);
        // There is no vault: nothing is known, and that is what it says.
        assert!(page.contains("the job is unknown") && page.contains("href=\"/job/shop\""), "{page}");
        assert!(
            ask(&outlook, "/job/shop").is_some()
                && ask(&outlook, "/job/blog").is_none()
                && ask(&outlook, "/x").is_none()
        );
        ground.write("blog");
        assert_eq!(ask(&outlook, "/").unwrap().1, page, "it is told again");
        ground.clock.advance(KEPT);
        assert!(ask(&outlook, "/job/blog").is_some() && ask(&outlook, "/job/shop").is_none());
    }

    #[test]
    fn page_and_metrics_are_one_look_and_a_run_that_ends_is_seen_at_once() {
        let ground = Ground::new();
        let outlook = ground.outlook();
        let (_, page) = ask(&outlook, "/").unwrap();
        ground.clock.advance(KEPT / 2);
        assert_eq!(exported(&outlook), 0, "the page's");
        ground.board.ran();
        assert_eq!(exported(&outlook), 30);
        assert_ne!(ask(&outlook, "/").unwrap().1, page);
        ground.clock.advance(KEPT / 2);
        assert_eq!(exported(&outlook), 30, "it is half a minute old");
        ground.clock.advance(KEPT / 2);
        assert_eq!(exported(&outlook), 90);
    }

    #[test]
    fn a_broken_config_leaves_the_last_good_one_and_says_so() {
        let ground = Ground::new();
        let outlook = ground.outlook();
        ask(&outlook, "/").unwrap();
        std::fs::write(ground.config(), "nonsense").unwrap();
        ground.clock.advance(KEPT);
        let (status, page) = ask(&outlook, "/").unwrap();
        assert!(status == Status::Ok && page.contains("cannot be used [config-invalid]; this is by the last good one"));
        assert!(page.contains("href=\"/job/shop\""));
        assert_eq!(outlook.metrics().unwrap_err().code(), Code::ConfigInvalid);
        ground.write("shop");
        ground.clock.advance(KEPT);
        assert!(outlook.metrics().unwrap().contains("job_name=\"shop\""));
    }

    #[test]
    fn no_page_waits_for_another() {
        let ground = Ground::new();
        let outlook = ground.outlook();
        let held = outlook.taking.lock().unwrap();
        assert_eq!(ask(&outlook, "/").unwrap().0, Status::Unavailable);
        drop(held);
        let (_, first) = ask(&outlook, "/").unwrap();
        let _held = outlook.taking.lock().unwrap();
        ground.clock.advance(KEPT);
        assert_eq!(ask(&outlook, "/").unwrap(), (Status::Ok, first));
        ground.clock.advance(LATE);
        let (status, late) = ask(&outlook, "/").unwrap();
        assert!(status == Status::Unavailable && late.contains("6 minutes old, of 2026-11-22 12:00 UTC"), "{late}");
    }
}
