//! The status page: gathered from config, catalog and vault when somebody asks, at most once a minute, on the thread of who
//! asked first. Whoever asks meanwhile gets the last one, which says when it was made; nobody waits for a vault twice.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::{JobSettings, Settings};
use crate::error::{Error, Result};
use crate::evidence::gather::{Sizes, gather};
use crate::evidence::html::policy;
use crate::evidence::page::{PageFacts, Plan, pages, trouble};
use crate::evidence::strip;
use crate::operations::TOOL;
use crate::operations::host::Host;
use crate::operations::interrupt::Interrupt;
use crate::operations::vaults::Trusted;

use super::DaemonError;
use super::board::Notice;
use super::http::{Answer, Status};
use super::lock;
use super::metrics::opened;
use super::work::identity_texts;

/// How long pages are told again.
const KEPT: Duration = Duration::from_secs(60);
/// Pages that are older than this are told with a warning: what makes the next ones is held up.
const LATE: Duration = Duration::from_secs(5 * 60);

/// Makes the pages.
pub struct Pages {
    /// Where the verbs' asynchronous calls run.
    pub runtime: Handle,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The config, read anew each time.
    pub config: PathBuf,
    /// Identity files, whose comments may name a vault's key.
    pub identities: Vec<PathBuf>,
    /// The last pages.
    pub kept: Mutex<Option<Kept>>,
    /// Held by whoever makes the next ones, with the last config that could be read.
    pub making: Mutex<Option<Settings>>,
}

/// Pages, and when they were made.
#[derive(Debug, Clone)]
pub struct Kept {
    at: Duration,
    made: DateTime<Utc>,
    by_path: Arc<BTreeMap<String, String>>,
}

impl Pages {
    /// The page at a path; `None` where there is none. Blocks for as long as the vaults take, where no page was made for a
    /// minute and nobody else makes one.
    pub fn answer(&self, path: &str, notice: impl Fn() -> Notice) -> Option<Answer> {
        let is_page = path == "/" || path.starts_with("/job/");
        if !is_page {
            return None;
        }
        let now = self.clock.monotonic();
        let kept = lock(&self.kept).clone();
        let is_fresh = |kept: &Kept| now.saturating_sub(kept.at) < KEPT;
        let kept = match kept {
            Some(kept) if is_fresh(&kept) => kept,
            kept => match (self.made(&notice()), kept) {
                (Made::Pages(made), _) => made,
                (Made::ByAnother, Some(kept)) => kept,
                (Made::ByAnother, None) => {
                    return Some(failed("the first look at the vaults is not done yet: ask again"));
                }
                (Made::Not(why), _) => return Some(failed(&why)),
            },
        };
        let page = kept.by_path.get(path)?;
        let late = now.saturating_sub(kept.at);
        if late > LATE {
            let minutes = late.as_secs() / 60;
            return Some(failed(&format!(
                "the last page is {minutes} minutes old, of {}, and the next one is not made yet: ask again; where it does not come, \
                 a vault or the catalog does not answer, and `lifeboat status` says which",
                kept.made.format("%Y-%m-%d %H:%M UTC")
            )));
        }
        Some(html(Status::Ok, page.clone()))
    }

    fn made(&self, notice: &Notice) -> Made {
        let mut settings = match self.making.try_lock() {
            Ok(settings) => settings,
            // Whoever panicked left the last good config, or none.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Made::ByAnother,
        };
        let mut notices = Vec::new();
        let was = settings.as_ref().map(|settings| settings.state_dir.clone());
        let read = Settings::load(Some(&self.config)).map_err(Error::from);
        let read = read.and_then(|read| match was {
            Some(was) if was != read.state_dir => Err(DaemonError::StateMoved { was }.into()),
            _ => Ok(read),
        });
        match read {
            Ok(read) => *settings = Some(read),
            Err(error) => {
                tracing::error!(code = error.code().name(), "no page by the config on disk: {error}");
                notices.push(format!(
                    "The config on disk cannot be used [{}]; this is by the last good one: run `lifeboat config check`.",
                    error.code().name()
                ));
            }
        }
        let Some(settings) = &*settings else {
            return Made::Not("the config cannot be used: run `lifeboat config check`".to_owned());
        };
        if let Some(code) = &notice.state {
            notices.push(format!("What the daemon starts and ends could not be written down {code}: see its log."));
        }
        match self.gathered(settings, notice, notices) {
            Ok(facts) => {
                let (at, by_path) = (self.clock.monotonic(), Arc::new(pages(&facts)));
                let made = Kept { at, made: facts.made, by_path };
                *lock(&self.kept) = Some(made.clone());
                Made::Pages(made)
            }
            Err(error) => {
                tracing::error!(code = error.code().name(), "no page: {error}");
                Made::Not(format!(
                    "state folder or catalog cannot be used [{}]: run `lifeboat doctor`",
                    error.code().name()
                ))
            }
        }
    }

    fn gathered(&self, settings: &Settings, notice: &Notice, notices: Vec<String>) -> Result<PageFacts> {
        let host = Host::bare(self.runtime.clone(), Arc::clone(&self.clock), Interrupt::default())
            .with_home(&settings.state_dir)?;
        let trusted = Trusted { identity_files: identity_texts(&self.identities)? };
        let jobs: Vec<&JobSettings> = settings.jobs.values().collect();
        let open = |job: &JobSettings| opened(&host, settings, job, &trusted);
        let made = self.clock.now();
        let gathered = gather(&host, settings, &jobs, Sizes::LeaveOut, Some(strip::window(made)), open, made)?;
        Ok(PageFacts { gathered, zone: settings.timezone, plans: plans(notice), notices, made, tool: TOOL.to_owned() })
    }
}

/// What came of an attempt to make pages.
enum Made {
    /// They are made.
    Pages(Kept),
    /// Another thread is at it.
    ByAnother,
    /// They cannot be made: why.
    Not(String),
}

fn plans(notice: &Notice) -> Vec<Plan> {
    let plan = |told: &super::board::TaskNotice| Plan {
        job: told.task.job.clone(),
        operation: told.task.operation.to_string(),
        next: told.next,
        running_since: told.running_since,
    };
    notice.tasks.iter().map(plan).collect()
}

fn failed(why: &str) -> Answer {
    html(Status::Unavailable, trouble(why))
}

fn html(status: Status, body: String) -> Answer {
    let policy = Some(format!("{}; frame-ancestors 'none'", policy()));
    Answer { status, content_type: "text/html; charset=utf-8", policy, body }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    struct Ground {
        runtime: tokio::runtime::Runtime,
        folder: tempfile::TempDir,
        clock: Arc<ManualClock>,
    }

    impl Ground {
        fn new() -> Self {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let ground = Self {
                runtime,
                folder: tempfile::tempdir().unwrap(),
                clock: Arc::new(ManualClock::at("2026-11-22T12:00:00Z".parse().unwrap())),
            };
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

        fn pages(&self) -> Pages {
            Pages {
                runtime: self.runtime.handle().clone(),
                clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
                config: self.config(),
                identities: vec![],
                kept: Mutex::default(),
                making: Mutex::default(),
            }
        }
    }

    fn ask(pages: &Pages, path: &str) -> Option<(Status, String)> {
        pages.answer(path, Notice::default).map(|answer| (answer.status, answer.body))
    }

    #[test]
    fn it_is_made_once_a_minute_and_follows_the_config() {
        let ground = Ground::new();
        let pages = ground.pages();
        let (status, page) = ask(&pages, "/").unwrap();
        assert_eq!(status, Status::Ok);
        // There is no vault: nothing is known, and that is what it says.
        assert!(page.contains("the job is unknown") && page.contains("href=\"/job/shop\""), "{page}");
        assert!(
            ask(&pages, "/job/shop").is_some() && ask(&pages, "/job/blog").is_none() && ask(&pages, "/x").is_none()
        );
        ground.write("blog");
        assert_eq!(ask(&pages, "/").unwrap().1, page, "it is told again");
        ground.clock.advance(KEPT);
        assert!(ask(&pages, "/job/blog").is_some() && ask(&pages, "/job/shop").is_none());
    }

    #[test]
    fn a_broken_config_leaves_the_last_good_one_and_says_so() {
        let ground = Ground::new();
        let pages = ground.pages();
        ask(&pages, "/").unwrap();
        std::fs::write(ground.config(), "nonsense").unwrap();
        ground.clock.advance(KEPT);
        let (status, page) = ask(&pages, "/").unwrap();
        assert!(status == Status::Ok && page.contains("cannot be used [config-invalid]; this is by the last good one"));
        assert!(page.contains("href=\"/job/shop\""));
        let (status, page) = ask(&ground.pages(), "/").unwrap();
        assert!(status == Status::Unavailable && page.contains("<code>lifeboat config check</code>"), "{page}");
    }

    #[test]
    fn nobody_waits_for_another() {
        let ground = Ground::new();
        let pages = ground.pages();
        let held = pages.making.lock().unwrap();
        assert_eq!(ask(&pages, "/").unwrap().0, Status::Unavailable);
        drop(held);
        let (_, first) = ask(&pages, "/").unwrap();
        let _held = pages.making.lock().unwrap();
        ground.clock.advance(KEPT);
        assert_eq!(ask(&pages, "/").unwrap(), (Status::Ok, first));
        ground.clock.advance(LATE);
        let (status, late) = ask(&pages, "/").unwrap();
        assert!(status == Status::Unavailable && late.contains("6 minutes old, of 2026-11-22 12:00 UTC"), "{late}");
    }
}
