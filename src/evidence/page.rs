//! The status page: what `status` says, in the same words, with thirty days drawn beside it, and a page for each job. Pure
//! functions of what was gathered; whoever serves them says when they are made anew.
//!
//! What is not known is said as such, and is never green.

mod job;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::drawing;
use super::facts::Gathered;
use super::html::{Head, Html, document};
use super::status::{JobStatus, State, Status};
use super::strip::strip;
use super::text::{HEADINGS, cells, copy_cells, state_word};
use super::unopened::status_of;
use super::words::age;
use crate::domain::ids::JobName;

/// A browser asks again after so long: ages would be wrong before anybody noticed.
const REFRESH_SECONDS: u32 = 60;

/// What a page is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct PageFacts {
    /// The jobs and vaults, with the scheduled moments of [`super::strip::window`].
    pub gathered: Gathered,
    /// The config's zone.
    pub zone: Tz,
    /// What runs and what comes next, as the daemon has it.
    pub plans: Vec<Plan>,
    /// What whoever reads the page must know before anything else, in sentences.
    pub notices: Vec<String>,
    /// When all this was gathered.
    pub made: DateTime<Utc>,
    /// `lifeboat 0.1.0`.
    pub tool: String,
}

/// What the daemon has before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of which job.
    pub job: JobName,
    /// `backup`, `drill`, ...
    pub operation: String,
    /// When it starts.
    pub next: Option<DateTime<Utc>>,
    /// Since when it runs.
    pub running_since: Option<DateTime<Utc>>,
}

/// Every page by its path: `/`, and `/job/NAME` for each job.
#[must_use]
pub fn pages(facts: &PageFacts) -> BTreeMap<String, String> {
    let status = planned(status_of(&facts.gathered, facts.made), &facts.plans);
    let mut pages = BTreeMap::from([("/".to_owned(), overview(facts, &status))]);
    for of_job in &status.jobs {
        pages.insert(path_of(&of_job.job), job::page(facts, of_job, &status));
    }
    pages
}

/// Where a job's page is.
fn path_of(job: &JobName) -> String {
    format!("/job/{job}")
}

/// The page where nothing can be told, and why.
#[must_use]
pub fn trouble(why: &str) -> String {
    let head = Head { title: "unknown - Lifeboat", refresh_seconds: Some(REFRESH_SECONDS) };
    document(head, |html| {
        html.el("main", &[], |html| {
            html.el("h1", &[], |html| {
                html.text("Lifeboat: ");
                state(html, State::Unknown);
            });
            html.el("p", &[("class", "notice"), ("role", "status")], |html| html.sentence(why));
        });
    })
}

/// The daemon knows better than the schedule when it starts something.
fn planned(mut status: Status, plans: &[Plan]) -> Status {
    for job in &mut status.jobs {
        let next = |operation: &str| {
            plans.iter().find(|plan| plan.job == job.job && plan.operation == operation).and_then(|plan| plan.next)
        };
        job.next_backup = next("backup").or(job.next_backup);
        job.next_drill = next("drill").or(job.next_drill);
        job.next_check = next("check").or(job.next_check);
    }
    status
}

fn overview(facts: &PageFacts, status: &Status) -> String {
    let said = in_short(status);
    let title = format!("{said} - Lifeboat");
    document(Head { title: &title, refresh_seconds: Some(REFRESH_SECONDS) }, |html| {
        html.el("header", &[], |html| {
            html.leaf("h1", &[], &format!("Lifeboat: {said}"));
            made(html, facts);
        });
        html.el("main", &[], |html| {
            notices(html, facts);
            jobs(html, facts, status);
            drawing::strip_legend(html);
            vaults(html, status);
        });
        footer(html, facts, &[]);
    })
}

/// `3 jobs: 1 critical, 1 unknown, 1 ok`: the worst first. Vaults count where they are not well.
fn in_short(status: &Status) -> String {
    let count = |what: State| status.jobs.iter().filter(|job| job.state == what).count();
    let states = [State::Critical, State::Unknown, State::Warning, State::Ok].map(|state| (count(state), state));
    let each: Vec<String> = states
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} {}", state_word(*state)))
        .collect();
    let jobs = match (status.jobs.len(), &each[..]) {
        (0, _) => "no job is configured".to_owned(),
        (1, [one]) => one.replacen("1 ", "the job is ", 1),
        (jobs, [_]) => format!("all {jobs} jobs are {}", state_word(status.jobs[0].state)),
        (jobs, _) => format!("{jobs} jobs: {}", each.join(", ")),
    };
    match status.vaults.iter().filter(|vault| vault.state != State::Ok).count() {
        0 => jobs,
        1 => format!("{jobs}; look at a vault"),
        count => format!("{jobs}; look at {count} vaults"),
    }
}

/// When this was made, and what its times are.
fn made(html: &mut Html, facts: &PageFacts) {
    html.el("p", &[("class", "soft")], |html| {
        html.text("As of ");
        when(html, facts.made, facts.zone);
        html.text(&format!(", by {}. Times are those of {}, ages those of then.", facts.tool, facts.zone.name()));
    });
}

fn notices(html: &mut Html, facts: &PageFacts) {
    for notice in &facts.notices {
        html.el("p", &[("class", "notice"), ("role", "status")], |html| html.sentence(notice));
    }
}

fn jobs(html: &mut Html, facts: &PageFacts, status: &Status) {
    if status.jobs.is_empty() {
        html.el("p", &[], |html| {
            html.sentence("Add a [job.NAME] with a source to the config; `lifeboat init` writes one with comments.");
        });
        return;
    }
    html.el("table", &[("class", "stack"), ("role", "table")], |html| {
        html.el("thead", &[("role", "rowgroup")], |html| {
            html.el("tr", &[("role", "row")], |html| {
                for heading in headings() {
                    html.leaf("th", &[("role", "columnheader"), ("scope", "col")], &heading);
                }
            });
        });
        for job in &status.jobs {
            html.el("tbody", &[("class", "job"), ("role", "rowgroup")], |html| job_rows(html, facts, job));
        }
    });
}

/// Those of `status`, as a sentence writes them, and the drawing's.
fn headings() -> Vec<String> {
    let sentence = |heading: &&str| {
        let (first, rest) = heading.split_at(1);
        format!("{first}{}", rest.to_lowercase())
    };
    HEADINGS.iter().map(sentence).chain(["Last 30 days".to_owned()]).collect()
}

fn job_rows(html: &mut Html, facts: &PageFacts, job: &JobStatus) {
    let headings = headings();
    let [name, _, point, proven, next] = cells(job, facts.made);
    html.el("tr", &[("role", "row")], |html| {
        html.el("th", &[("role", "rowheader"), ("scope", "row")], |html| {
            html.leaf("a", &[("href", &path_of(&job.job))], &name);
        });
        html.el("td", &[("role", "cell")], |html| state(html, job.state));
        let next = with_running(next, &job.job, facts);
        for (place, cell) in [(2, point), (3, proven), (4, next)] {
            html.el("td", &[("role", "cell"), ("data-label", &headings[place])], |html| against(html, &cell));
        }
        html.el("td", &[("class", "wide"), ("role", "cell"), ("data-label", &headings[5])], |html| {
            match facts.gathered.jobs.iter().find(|known| known.job == job.job) {
                Some(known) => drawing::strip(html, &strip(known, facts.zone, facts.made), "strip"),
                None => html.text("unknown"),
            }
        });
    });
    if let Some(copy) = &job.copy {
        let [name, _, point, last, next] = copy_cells(job, copy, facts.made);
        html.el("tr", &[("role", "row")], |html| {
            html.leaf("th", &[("role", "rowheader"), ("scope", "row"), ("class", "soft")], name.trim());
            html.el("td", &[("role", "cell")], |html| state(html, copy.state));
            for (place, cell) in [(2, point), (3, last), (4, next)] {
                html.el("td", &[("role", "cell"), ("data-label", &headings[place])], |html| against(html, &cell));
            }
            html.leaf("td", &[("role", "cell")], "");
        });
    }
    if !job.reasons.is_empty() {
        html.el("tr", &[("role", "row")], |html| {
            html.el("td", &[("class", "why"), ("role", "cell"), ("colspan", "6")], |html| reasons(html, &job.reasons));
        });
    }
}

/// A figure, and the objective behind it in brackets, which is not torn.
fn against(html: &mut Html, cell: &str) {
    match cell.rsplit_once(" (") {
        Some((figure, objective)) if objective.ends_with(')') => {
            html.text(&format!("{figure} "));
            html.leaf("span", &[("class", "against")], &format!("({objective}"));
        }
        _ => html.text(cell),
    }
}

/// What runs just now stands before what comes next.
fn with_running(next: String, job: &JobName, facts: &PageFacts) -> String {
    let running: Vec<String> = facts
        .plans
        .iter()
        .filter(|plan| plan.job == *job)
        .filter_map(|plan| Some(format!("{} runs since {}", plan.operation, age(plan.running_since?, facts.made))))
        .collect();
    if running.is_empty() { next } else { format!("{}; {next}", running.join(", ")) }
}

/// Vaults of which there is something to say that no job says.
fn vaults(html: &mut Html, status: &Status) {
    let troubled: Vec<_> = status.vaults.iter().filter(|vault| vault.state != State::Ok).collect();
    if troubled.is_empty() {
        return;
    }
    html.leaf("h2", &[], "Vaults");
    for vault in troubled {
        html.el("section", &[], |html| {
            html.el("h3", &[], |html| {
                html.text(&format!("{} ", vault.name));
                state(html, vault.state);
            });
            reasons(html, &vault.reasons);
        });
    }
}

fn reasons(html: &mut Html, reasons: &[String]) {
    html.el("ul", &[("class", "reasons")], |html| {
        for reason in reasons {
            html.el("li", &[], |html| html.sentence(reason));
        }
    });
}

/// A state: a sign, a word and a colour.
fn state(html: &mut Html, state: State) {
    let word = state_word(state);
    html.el("span", &[("class", &format!("state {word}"))], |html| {
        let sign = match state {
            State::Ok => "\u{25cf}",
            State::Warning => "\u{25b2}",
            State::Unknown => "?",
            State::Critical => "\u{2716}",
        };
        html.leaf("span", &[("aria-hidden", "true")], sign);
        html.text(&format!(" {word}"));
    });
}

/// A moment on the config's clock, and in UTC where that is another.
fn when(html: &mut Html, moment: DateTime<Utc>, zone: Tz) {
    let local = moment.with_timezone(&zone);
    let machine = moment.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    html.el("time", &[("datetime", &machine)], |html| {
        html.text(&local.format("%Y-%m-%d %H:%M").to_string());
        if zone == Tz::UTC {
            html.text(" UTC");
            return;
        }
        let utc = if local.date_naive() == moment.date_naive() { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" };
        html.text(" ");
        html.leaf("span", &[("class", "utc")], &format!("({})", moment.format(utc)));
    });
}

/// What no reader must take for more than it is.
fn footer(html: &mut Html, facts: &PageFacts, more: &[String]) {
    let mut sentences = vec![
        "A day is held against the schedule as it is now: what the config said before is not known here.".to_owned(),
        "Backups that no drill restored are known to be stored, not to be restorable; `lifeboat check` looks at stored bytes, this \
         page does not."
            .to_owned(),
    ];
    if facts.gathered.jobs.iter().any(|job| job.copy.is_some()) {
        sentences
            .push("Second vaults are told as the last copy left them: this page does not look into them.".to_owned());
    }
    sentences.extend_from_slice(more);
    html.el("footer", &[], |html| {
        html.text("Not said here:");
        html.el("ul", &[], |html| {
            for sentence in &sentences {
                html.el("li", &[], |html| html.sentence(sentence));
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::facts::{JobFacts, Unopened, VaultFacts, Witness};
    use crate::evidence::samples::*;

    fn facts(jobs: Vec<JobFacts>) -> PageFacts {
        let main = VaultFacts { name: "main".to_owned(), ..VaultFacts::default() };
        PageFacts {
            gathered: Gathered { jobs, vaults: vec![main], ..Gathered::default() },
            zone: Tz::Europe__Moscow,
            plans: vec![],
            notices: vec![],
            made: now(),
            tool: "lifeboat 0.1.0".to_owned(),
        }
    }

    /// Without the head, which is the same everywhere.
    fn body(page: &str) -> &str {
        &page[page.find("<body>").unwrap()..]
    }

    fn scheduled(mut facts: JobFacts) -> JobFacts {
        facts.scheduled_backups = (0..120).rev().map(|number| before_now(hours(3 + 6 * number))).collect();
        facts
    }

    fn three() -> PageFacts {
        let mut troubled = scheduled(troubled());
        troubled.job = "files".parse().unwrap();
        let mut facts = facts(vec![troubled, scheduled(healthy())]);
        facts.gathered.unopened.push(Unopened {
            job: "blog".parse().unwrap(),
            vault: "far".to_owned(),
            objectives: healthy().promise.objectives,
            why: "cannot reach <far> & \"wide\"".to_owned(),
        });
        let plan = |operation: &str, next: u64, running: Option<u64>| Plan {
            job: "shop".parse().unwrap(),
            operation: operation.to_owned(),
            next: Some(now() + hours(next)),
            running_since: running.map(|count| before_now(minutes(count))),
        };
        facts.plans = vec![plan("backup", 4, Some(7)), plan("prune", 5, None)];
        facts
    }

    #[test]
    fn the_overview_reads_like_this() {
        insta::assert_snapshot!(body(&pages(&three())["/"]));
    }

    #[test]
    fn a_job_reads_like_this() {
        let pages = pages(&three());
        assert_eq!(pages.keys().collect::<Vec<_>>(), ["/", "/job/blog", "/job/files", "/job/shop"]);
        insta::assert_snapshot!("a_troubled_job", body(&pages["/job/files"]));
        insta::assert_snapshot!("an_unknown_job", body(&pages["/job/blog"]));
    }

    #[test]
    fn what_status_says_stands_on_it() {
        let facts = three();
        let overview = &pages(&facts)["/"];
        let status = status_of(&facts.gathered, now());
        let mut html = Html::default();
        for job in &status.jobs {
            job.reasons.iter().for_each(|reason| {
                html = Html::default();
                html.sentence(reason);
                assert!(overview.contains(html.as_str()), "{reason}");
            });
            cells(job, now())[2..4].iter().for_each(|cell| {
                html = Html::default();
                against(&mut html, cell);
                assert!(overview.contains(html.as_str()), "{cell}");
            });
        }
        assert!(overview.contains("backup runs since 7m 00s; backup in 4h 00m, drill in 14h 00m"), "{overview}");
    }

    #[test]
    fn what_cannot_be_read_is_not_green() {
        let mut silent = scheduled(healthy());
        silent.witness = Witness::Silent("gone".to_owned());
        let mut facts = facts(vec![silent]);
        facts.gathered.vaults[0].silent = Some("<b>gone</b>".to_owned());
        let pages = pages(&facts);
        assert!(pages["/"].contains("<title>the job is unknown; look at a vault - Lifeboat</title>"));
        assert!(pages["/"].contains("it cannot be read: &lt;b&gt;gone&lt;/b&gt;;"));
        for page in pages.values() {
            assert!(page.contains("class=\"state unknown\"") && !page.contains("class=\"state ok\""), "{page}");
        }
        assert!(trouble("no `config`").contains("class=\"state unknown\""));
    }

    #[test]
    fn no_job_is_said() {
        let pages = pages(&facts(vec![]));
        assert!(pages["/"].contains("<h1>Lifeboat: no job is configured</h1>"));
    }

    #[test]
    fn a_moment_stands_on_both_clocks() {
        let said = |zone: Tz, moment: &str| {
            let mut html = Html::default();
            when(&mut html, moment.parse().unwrap(), zone);
            html.as_str().to_owned()
        };
        let both = said(Tz::Europe__Moscow, "2026-11-22T12:00:00Z");
        assert!(both.contains(">2026-11-22 15:00 <span class=\"utc\">(12:00 UTC)</span>"), "{both}");
        let other_day = said(Tz::Europe__Moscow, "2026-11-22T22:30:00Z");
        assert!(
            other_day.contains(">2026-11-23 01:30 <span class=\"utc\">(2026-11-22 22:30 UTC)</span>"),
            "{other_day}"
        );
        assert!(said(Tz::UTC, "2026-11-22T12:00:00Z").contains(">2026-11-22 12:00 UTC</time>"));
    }
}
