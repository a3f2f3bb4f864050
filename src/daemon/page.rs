//! The status page: what the last look made of it, for who asks. Nobody waits for a vault twice: whoever asks while another
//! thread looks gets the pages before, which say when they were made.

use std::time::Duration;

use crate::evidence::html::policy;
use crate::evidence::page::{Plan, trouble};

use super::board::{Notice, TaskNotice};
use super::http::{Answer, Status};
use super::outlook::{Asked, Outlook};

/// Pages that are older than this are told with a warning: what makes the next ones is held up.
pub(super) const LATE: Duration = Duration::from_secs(5 * 60);

/// The page at a path; `None` where there is none. Blocks as [`Outlook::look`].
pub fn answer(outlook: &Outlook, path: &str) -> Option<Answer> {
    let is_page = path == "/" || path.starts_with("/job/");
    if !is_page {
        return None;
    }
    let look = match outlook.look() {
        Asked::Fresh(look) | Asked::ByAnother(Some(look)) => look,
        Asked::ByAnother(None) => return Some(failed("the first look at the vaults is not done yet: ask again")),
        Asked::Not(error) => {
            tracing::error!(code = error.code().name(), "no page: {error}");
            let code = error.code().name();
            return Some(failed(&format!("state folder or catalog cannot be used [{code}]: run `lifeboat doctor`")));
        }
    };
    let page = look.pages.get(path)?;
    let late = outlook.age(&look);
    if late > LATE {
        let minutes = late.as_secs() / 60;
        return Some(failed(&format!(
            "the last page is {minutes} minutes old, of {}, and the next one is not made yet: ask again; where it does not come, \
             a vault or the catalog does not answer, and `lifeboat status` says which",
            look.made.format("%Y-%m-%d %H:%M UTC")
        )));
    }
    Some(html(Status::Ok, page.clone()))
}

/// What the daemon has before it.
pub(super) fn plans(notice: &Notice) -> Vec<Plan> {
    let plan = |told: &TaskNotice| Plan {
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
