//! One job's page: what `status` says of it, its thirty days, how its exposure went, what there is to restore from, and what
//! drills took.

use super::super::drawing::{self, phase_words};
use super::super::facts::{JobFacts, attempt};
use super::super::html::{Head, Html, document};
use super::super::status::{JobStatus, RPO_WINDOW, RTO_DRILLS, Status};
use super::super::strip;
use super::super::text::state_word;
use super::super::words::{age, ago, human_exposure, trend, word};
use super::{PageFacts, REFRESH_SECONDS, footer, made, notices, reasons, state, when};
use crate::catalog::{BackupRow, DrillRow, RunRow};
use crate::domain::objectives::{Basis, Exposure, Restore, Window, exposure_legs};
use crate::domain::quantity::{exact_duration, human_bytes, human_duration, human_seconds};
use crate::domain::record::{DrillOutcome, RunOutcome};

/// Recovery points that are listed, the newest first.
const MAX_POINTS: usize = 60;
/// Runs that did not go well, the newest first.
const MAX_RUNS: usize = 20;

/// The page. `status` has the vault.
pub(super) fn page(facts: &PageFacts, job: &JobStatus, status: &Status) -> String {
    let title = format!("{}: {} - Lifeboat", job.job, state_word(job.state));
    let known = facts.gathered.jobs.iter().find(|known| known.job == job.job);
    document(Head { title: &title, refresh_seconds: Some(REFRESH_SECONDS) }, |html| {
        html.el("header", &[], |html| {
            html.el("nav", &[], |html| html.leaf("a", &[("href", "/")], "All jobs"));
            html.el("h1", &[], |html| {
                html.text(&format!("{} ", job.job));
                state(html, job.state);
            });
            made(html, facts);
        });
        html.el("main", &[], |html| {
            notices(html, facts);
            if !job.reasons.is_empty() {
                reasons(html, &job.reasons);
            }
            for vault in status.vaults.iter().filter(|vault| vault.name == job.vault && !vault.reasons.is_empty()) {
                html.el("p", &[], |html| {
                    html.text(&format!("Vault {} ", vault.name));
                    state(html, vault.state);
                });
                reasons(html, &vault.reasons);
            }
            figures(html, facts, job);
            if let Some(known) = known {
                thirty_days(html, facts, known);
                exposure(html, facts, known, job);
                recovery_points(html, facts, known);
                drills(html, facts, known);
            }
        });
        let since = known.and_then(JobFacts::known_since);
        let more = match since {
            Some(_) => vec![],
            None => vec!["Nothing is known of this job: no figure here says anything about it.".to_owned()],
        };
        footer(html, facts, &more);
    })
}

fn figures(html: &mut Html, facts: &PageFacts, job: &JobStatus) {
    let (now, zone) = (facts.made, facts.zone);
    let of = |objective: Option<std::time::Duration>, name: &str| match objective {
        Some(objective) => format!("{name} {}", exact_duration(objective)),
        None => format!("no {name} is set"),
    };
    html.el("dl", &[("class", "figures")], |html| {
        figure(
            html,
            "Newest recovery point",
            &job.recovery_point.map_or("none".to_owned(), |at| ago(at, now)),
            |html| {
                if let Some(at) = job.recovery_point {
                    line(html, |html| when(html, at, zone));
                }
                line(html, |html| html.text(&of(job.rpo.objective, "RPO")));
            },
        );
        figure(html, "Restore proven", &job.last_proven.map_or("never".to_owned(), |at| ago(at, now)), |html| {
            if let Some(at) = job.last_proven {
                line(html, |html| when(html, at, zone));
            }
            let last = match job.rto.last {
                Some(Restore::Took(time)) => format!("the last drill took {}, ", human_duration(time)),
                Some(Restore::Failed) => "the last drill failed, ".to_owned(),
                None => String::new(),
            };
            line(html, |html| html.text(&format!("{last}{}", of(job.rto.objective, "RTO"))));
        });
        figure(html, "Worst exposure in 30 days", &human_exposure(job.rpo.worst), |html| {
            let (median, p95) = (human_exposure(job.rpo.median), human_exposure(job.rpo.p95));
            line(html, |html| html.text(&format!("median {median}, 95 % of the time at most {p95}")));
            if let Some(share) = job.rpo.share_above_target {
                line(html, |html| html.text(&format!("above the RPO {:.1} % of the time", share * 100.0)));
            }
        });
        figure(html, "Worst exposure, proven by drills", &human_exposure(job.rpo.proven_worst), |html| {
            line(html, |html| html.text(&format!("now {}", human_exposure(job.rpo.proven_now))));
        });
        let worst = match job.rto.worst {
            Some(Restore::Took(time)) => human_duration(time),
            Some(Restore::Failed) => "failed".to_owned(),
            None => "never measured".to_owned(),
        };
        figure(html, &format!("Worst restore of the last {RTO_DRILLS} drills"), &worst, |html| {
            line(html, |html| html.text(&format!("trend: {}", trend(job.rto.trend))));
        });
        next(html, facts, job);
        let vault = format!("vault {}", job.vault);
        match job.erasure_deadline {
            Some(deadline) => figure(html, "Oldest byte must be gone", &ago(deadline, now), |html| {
                line(html, |html| when(html, deadline, zone));
                line(html, |html| html.text(&vault));
            }),
            None => figure(html, "Oldest byte must be gone", "nothing to erase", |html| {
                line(html, |html| html.text(&vault));
            }),
        }
        if let Some(copy) = &job.copy {
            let point = copy.recovery_point.map_or_else(|| "none".to_owned(), |at| ago(at, now));
            figure(html, &format!("Newest recovery point in {}", copy.vault), &point, |html| {
                line(html, |html| state(html, copy.state));
                let last = copy.last_success.map_or_else(|| "never".to_owned(), |at| ago(at, now));
                line(html, |html| html.text(&format!("{} backups there, copied {last}", copy.backups)));
                let oldest = match &copy.erasure {
                    Some(erasure) => erasure.deadline.map_or_else(|| "nothing to erase".to_owned(), |at| ago(at, now)),
                    None => "not known here".to_owned(),
                };
                line(html, |html| html.text(&format!("oldest byte there must be gone: {oldest}")));
            });
        }
    });
}

/// What comes next, each operation on a line.
fn next(html: &mut Html, facts: &PageFacts, job: &JobStatus) {
    let of_job = facts.plans.iter().filter(|plan| plan.job == job.job);
    let mut coming: Vec<(String, Option<_>, Option<_>)> =
        of_job.map(|plan| (plan.operation.clone(), plan.next, plan.running_since)).collect();
    for (operation, next) in [("backup", job.next_backup), ("drill", job.next_drill)] {
        if !coming.iter().any(|(known, ..)| known == operation) && next.is_some() {
            coming.push((operation.to_owned(), next, None));
        }
    }
    let first = coming.iter().filter_map(|(operation, next, _)| Some(((*next)?, operation))).min();
    let said =
        first.map_or_else(|| "no schedule".to_owned(), |(at, operation)| format!("{operation} {}", due(at, facts)));
    figure(html, "Next", &said, |html| {
        for (operation, next, running) in &coming {
            line(html, |html| {
                html.text(&format!("{operation} "));
                if let Some(since) = running {
                    html.text(&format!("runs since {}, then ", age(*since, facts.made)));
                }
                match next {
                    Some(at) => when(html, *at, facts.zone),
                    None => html.text("not planned"),
                }
            });
        }
    });
}

fn due(at: chrono::DateTime<chrono::Utc>, facts: &PageFacts) -> String {
    if at <= facts.made { "is due".to_owned() } else { ago(at, facts.made) }
}

fn figure(html: &mut Html, name: &str, value: &str, more: impl FnOnce(&mut Html)) {
    html.el("div", &[], |html| {
        html.leaf("dt", &[], name);
        html.leaf("dd", &[("class", "large")], value);
        more(html);
    });
}

fn line(html: &mut Html, inner: impl FnOnce(&mut Html)) {
    html.el("dd", &[], inner);
}

fn thirty_days(html: &mut Html, facts: &PageFacts, known: &JobFacts) {
    let days = strip::strip(known, facts.zone, facts.made);
    html.leaf("h2", &[], "Last 30 days");
    html.el("figure", &[], |html| {
        drawing::strip(html, &days, "strip large");
        html.el("div", &[("class", "axis"), ("aria-hidden", "true")], |html| {
            for day in [days.first(), days.get(days.len() / 2), days.last()].into_iter().flatten() {
                html.leaf("span", &[], &day.date.format("%-d %b").to_string());
            }
        });
        html.leaf("figcaption", &[], &drawing::strip_words(&days));
    });
    drawing::strip_legend(html);
    let window = strip::window(facts.made);
    let mut runs: Vec<&RunRow> = known.runs.iter().filter(|row| window.covers(row.run.finished)).collect();
    runs.retain(|row| row.run.outcome != RunOutcome::Success);
    runs.sort_by_key(|row| std::cmp::Reverse(row.run.finished));
    if runs.is_empty() {
        return;
    }
    html.el(
        "div",
        &[("class", "scroll"), ("tabindex", "0"), ("role", "region"), ("aria-label", "Runs that did not go well")],
        |html| {
            html.el("table", &[], |html| {
                html.leaf("caption", &[], &listed("Runs that did not go well", runs.len(), MAX_RUNS));
                head(html, &[("Began", ""), ("Outcome", ""), ("Code", ""), ("Took", "number"), ("Host", "")]);
                html.el("tbody", &[], |html| {
                    for row in runs.iter().take(MAX_RUNS) {
                        html.el("tr", &[], |html| {
                            html.el("td", &[], |html| when(html, row.run.started, facts.zone));
                            html.leaf("td", &[], &word(&row.run.outcome));
                            html.leaf("td", &[], row.run.error_code.as_deref().unwrap_or("-"));
                            html.leaf("td", &[("class", "number")], &human_seconds(row.run.duration_seconds));
                            html.leaf("td", &[], &row.host);
                        });
                    }
                });
            });
        },
    );
}

fn exposure(html: &mut Html, facts: &PageFacts, known: &JobFacts, job: &JobStatus) {
    let whole = Window::before(facts.made, RPO_WINDOW);
    let window = known.known_since().map_or(whole, |since| whole.not_before(since));
    let legs = exposure_legs(&known.points(), Basis::Available, window);
    html.leaf("h2", &[], "Exposure");
    html.el("figure", &[], |html| {
        let objective = job.rpo.objective.map(|objective| objective.as_secs_f64());
        let against = job.rpo.objective.map(|objective| format!(", the RPO is {}", exact_duration(objective))).unwrap_or_default();
        let label = format!("exposure over 30 days: at worst {}, now {}{against}", human_exposure(job.rpo.worst), human_exposure(job.rpo.now));
        let mut drawn = Html::default();
        let top = drawing::exposure(&mut drawn, &legs, whole, objective, &label);
        html.leaf("div", &[("class", "axis"), ("aria-hidden", "true")], &human_seconds(top));
        html.append(drawn);
        html.el("div", &[("class", "axis"), ("aria-hidden", "true")], |html| {
            let middle = whole.start + (whole.end - whole.start) / 2;
            for moment in [whole.start, middle, whole.end] {
                html.leaf("span", &[], &moment.with_timezone(&facts.zone).format("%-d %b").to_string());
            }
        });
        html.el("figcaption", &[], |html| {
            let line = if objective.is_some() { "; the dashed line is the RPO" } else { "" };
            let open = if legs.iter().any(|leg| leg.ends == Exposure::Unbounded) {
                "; red: there was nothing to restore from"
            } else {
                ""
            };
            let before = if window.start > whole.start { "; grey: the job was not known yet" } else { "" };
            html.text(&format!(
                "How old the newest data was that could have been had back, from 0 below to {} above{line}{open}{before}. What is \
                 refuted today counts as never there.",
                human_seconds(top)
            ));
        });
    });
}

fn recovery_points(html: &mut Html, facts: &PageFacts, known: &JobFacts) {
    let mut there: Vec<&BackupRow> = known.backups.iter().filter(|row| row.retained_until.is_none()).collect();
    there.sort_by_key(|row| std::cmp::Reverse((row.recovery_point, row.sequence)));
    html.leaf("h2", &[], "Recovery points");
    if there.is_empty() {
        html.el("p", &[], |html| html.sentence(&format!("There is none: run `lifeboat backup {}`.", known.job)));
        return;
    }
    html.el("table", &[("class", "stack"), ("role", "table")], |html| {
        html.leaf("caption", &[], &listed("In the vault, the newest first", there.len(), MAX_POINTS));
        head(
            html,
            &[
                ("Recovery point", ""),
                ("Backup", ""),
                ("Kind", ""),
                ("Verdict", ""),
                ("Data", "number"),
                ("Added", "number"),
                ("Gone by", ""),
            ],
        );
        html.el("tbody", &[("role", "rowgroup")], |html| {
            for row in there.iter().take(MAX_POINTS) {
                html.el("tr", &[("role", "row")], |html| {
                    html.el("th", &[("role", "rowheader"), ("scope", "row")], |html| {
                        when(html, row.recovery_point, facts.zone);
                    });
                    html.el("td", &[("role", "cell"), ("data-label", "Backup")], |html| {
                        html.leaf("code", &[], row.id.as_str());
                    });
                    html.leaf("td", &[("role", "cell"), ("data-label", "Kind")], &word(&row.completeness));
                    html.leaf("td", &[("role", "cell"), ("data-label", "Verdict")], &word(&known.verdict(&row.id)));
                    let number = |html: &mut Html, label: &str, bytes: u64| {
                        html.leaf(
                            "td",
                            &[("class", "number"), ("role", "cell"), ("data-label", label)],
                            &human_bytes(bytes),
                        );
                    };
                    number(html, "Data", row.total(|source| source.logical_bytes));
                    number(html, "Added", row.total(|source| source.new_bytes));
                    html.el("td", &[("role", "cell"), ("data-label", "Gone by")], |html| match known.deadline(row) {
                        Some(deadline) => when(html, deadline, facts.zone),
                        None => html.text("-"),
                    });
                });
            }
        });
    });
}

fn drills(html: &mut Html, facts: &PageFacts, known: &JobFacts) {
    let mut rows: Vec<&DrillRow> = known.drills.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.drill.finished, row.id.clone())));
    html.leaf("h2", &[], "Drills");
    if rows.is_empty() {
        html.el("p", &[], |html| {
            html.sentence(&format!("A restore was never rehearsed: run `lifeboat drill {}`.", known.job));
        });
        return;
    }
    let shown = rows.iter().take(RTO_DRILLS);
    let longest = shown.clone().map(|row| drawn_seconds(row)).fold(0.0, f64::max);
    html.el("table", &[("class", "stack"), ("role", "table")], |html| {
        html.leaf(
            "caption",
            &[],
            &listed("The newest first; bars of the same length took the same time", rows.len(), RTO_DRILLS),
        );
        head(html, &[("Began", ""), ("Outcome", ""), ("Took", "number"), ("Backup", ""), ("Where the time went", "")]);
        html.el("tbody", &[("role", "rowgroup")], |html| {
            for row in shown {
                html.el("tr", &[("role", "row")], |html| drill(html, facts, row, longest));
            }
        });
    });
}

fn drill(html: &mut Html, facts: &PageFacts, row: &DrillRow, longest: f64) {
    let drill = &row.drill;
    html.el("th", &[("role", "rowheader"), ("scope", "row")], |html| when(html, drill.started, facts.zone));
    html.el("td", &[("role", "cell"), ("data-label", "Outcome")], |html| {
        let class = if drill.outcome == DrillOutcome::Passed { "ok" } else { "critical" };
        html.leaf("span", &[("class", class)], &word(&drill.outcome));
        html.text(&format!(
            ", {} of {} checks",
            drill.checks_passed,
            drill.checks_passed.saturating_add(drill.checks_failed)
        ));
        if let Some(code) = &drill.error_code {
            html.text(&format!(" ({code})"));
        }
    });
    let took = match attempt(row).restore {
        Restore::Took(time) => human_duration(time),
        Restore::Failed => format!("failed after {}", human_seconds(drill.rto_seconds)),
    };
    let met = match (drill.outcome, drill.rto_met) {
        (DrillOutcome::Passed, false) => ", over the RTO",
        _ => "",
    };
    html.leaf("td", &[("class", "number"), ("role", "cell"), ("data-label", "Took")], &format!("{took}{met}"));
    html.el("td", &[("role", "cell"), ("data-label", "Backup")], |html| match &drill.backup {
        Some(backup) => html.leaf("code", &[], backup.as_str()),
        None => html.text("none"),
    });
    html.el("td", &[("class", "wide"), ("role", "cell"), ("data-label", "Where the time went")], |html| {
        drawing::phases(html, &drill.phases, longest);
        let words: Vec<String> = drill.phases.iter().map(phase_words).collect();
        html.leaf("span", &[("class", "utc")], &words.join(" \u{b7} "));
    });
}

/// The seconds that a drill's bar stands for.
fn drawn_seconds(row: &DrillRow) -> f64 {
    row.drill.phases.iter().map(|phase| phase.seconds).filter(|seconds| seconds.is_finite()).sum()
}

fn head(html: &mut Html, columns: &[(&str, &str)]) {
    html.el("thead", &[("role", "rowgroup")], |html| {
        html.el("tr", &[("role", "row")], |html| {
            for (name, class) in columns {
                let attributes = [("role", "columnheader"), ("scope", "col"), ("class", *class)];
                let all = if class.is_empty() { 2 } else { 3 };
                html.leaf("th", &attributes[..all], name);
            }
        });
    });
}

/// `Drills (the first 10 of 24)`.
fn listed(what: &str, count: usize, most: usize) -> String {
    if count > most { format!("{what} (the first {most} of {count})") } else { what.to_owned() }
}
