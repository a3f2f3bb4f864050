//! A report as Markdown, for people who read documents. It renders the values of [`super::report`] and adds none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::keeping::{PruneEntry, RemovalEntry};
use super::report::{BackupEntry, DrillEntry, JobReport, Met, Report, RunEntry};
use super::words::{exposure, moment, restore, seconds, trend, word};
use crate::domain::objectives::{Restore, Rpo, json_seconds};
use crate::domain::quantity::{exact_duration, human_bytes, human_duration, human_seconds};
use crate::domain::record::{DrillGround, SequenceRange};

/// The whole document, ending in a newline. The same report gives the same text.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    line(&mut text, "# Backup and restore report");
    line(&mut text, "");
    line(&mut text, &format!("- Window: {} to {}", moment(report.window.start), moment(report.window.end)));
    line(&mut text, &format!("- Made: {} by {}", moment(report.generated), report.tool));
    for job in &report.jobs {
        line(&mut text, &format!("- Job {}: vault {} with id `{}`", job.job, cell(&job.vault.name), job.vault.id));
    }
    line(&mut text, "");
    line(
        &mut text,
        "Times are UTC. A duration stands as people read it, with its seconds behind it. *Exposure* is the age of the \
         newest data that could have been had back at a moment; the measured RPO is the largest exposure in the window. \
         The measured RTO is the time from a drill's start to its last check passing. Ages are counted from a backup's \
         recovery point; a backup is *proven gone* when the first prune that found nothing of it left has ended.",
    );
    for job in &report.jobs {
        job_section(&mut text, job);
    }
    text
}

fn job_section(text: &mut String, job: &JobReport) {
    line(text, "");
    line(text, &format!("## {}", job.job));
    promised(text, job);
    measured(text, job);
    deviations(text, job);
    backups(text, &job.backups);
    runs(text, &job.runs);
    drills(text, &job.drills);
    removals(text, &job.removals);
    prunes(text, &job.prunes);
    findings(text, job);
    copy(text, job);
    line(text, "");
    line(text, "### What is not claimed");
    line(text, "");
    for sentence in &job.not_claimed {
        line(text, &format!("- {sentence}"));
    }
}

fn promised(text: &mut String, job: &JobReport) {
    let promised = &job.promised;
    let schedule = |schedule: &Option<String>| match schedule {
        Some(schedule) => format!("`{}` ({})", cell(schedule), cell(&promised.timezone)),
        None => "none".to_owned(),
    };
    let duration = |duration: Option<Duration>| duration.map_or_else(|| "none".to_owned(), exact_duration);
    heading(text, "Promised", &["what", "value"]);
    row(text, &["backups", &schedule(&promised.schedule)]);
    row(text, &["drills", &schedule(&promised.drill_schedule)]);
    row(text, &["RPO objective", &duration(promised.rpo)]);
    row(text, &["RTO objective", &duration(promised.rto)]);
    row(text, &["kept at least", &duration(promised.keep_at_least)]);
    row(text, &["erased after at most", &duration(promised.delete_after)]);
    for recipient in &promised.recipients {
        row(text, &["sealed to", &format!("`{}`", cell(recipient))]);
    }
}

fn measured(text: &mut String, job: &JobReport) {
    let rpo = &job.measured.rpo;
    heading(text, "Measured RPO", &["figure", "available", "proven by a drill"]);
    let mut pair = |name: &str, of: &dyn Fn(&Rpo) -> String| row(text, &[name, &of(&rpo.available), &of(&rpo.proven)]);
    pair("worst exposure", &|rpo| exposure(rpo.worst));
    pair("reached at", &|rpo| moment(rpo.worst_reached_at));
    pair("median over time", &|rpo| exposure(rpo.median));
    pair("95th percentile over time", &|rpo| exposure(rpo.p95));
    pair("share of the time above the objective", &|rpo| {
        rpo.share_above_target.map_or_else(|| "no objective".to_owned(), |share| format!("{:.2} %", share * 100.0))
    });
    row(text, &["exposure at the window's end", &exposure(rpo.now), &exposure(rpo.proven_now)]);
    line(text, "");
    line(text, &format!("- Objective: {}.", met(rpo.met)));
    line(text, &format!("- Measured over {} to {}.", moment(rpo.window.start), moment(rpo.window.end)));
    line(text, &format!("- Source: {}.", rpo.source));

    let rto = &job.measured.rto;
    heading(text, "Measured RTO", &["figure", "value"]);
    row(text, &["drills in the window", &rto.drills.to_string()]);
    row(text, &["of these failed", &rto.failed.to_string()]);
    row(text, &["of these passed within the objective", &rto.within_objective.to_string()]);
    row(text, &["last", &restore(rto.last)]);
    row(text, &["worst", &restore(rto.worst)]);
    row(text, &["trend", trend(rto.trend)]);
    line(text, "");
    line(text, &format!("- Objective: {}.", met(rto.met)));
    line(text, &format!("- Source: {}.", rto.source));

    let erasure = &job.measured.erasure;
    let age = |age: Option<Duration>| age.map_or_else(|| "none".to_owned(), |age| seconds(json_seconds(age)));
    heading(text, "Measured erasure", &["figure", "value"]);
    row(text, &["backups removed in the window", &erasure.removed.to_string()]);
    row(text, &["largest age at removal", &age(erasure.largest_age_at_removal)]);
    row(text, &["backups proven gone in the window", &erasure.proven_gone.to_string()]);
    row(text, &["largest age when proven gone", &age(erasure.largest_age_proven_gone)]);
    row(text, &["removed, and not yet proven gone", &erasure.pending_backups.to_string()]);
    let oldest = erasure.oldest_retained_byte.map_or_else(|| "none".to_owned(), moment);
    row(text, &["oldest recovery point of which bytes may be there", &oldest]);
    line(text, "");
    let within =
        job.promised.delete_after.map(|limit| format!(" within {}", exact_duration(limit))).unwrap_or_default();
    line(text, &format!("- Erased{within}: {}.", met(erasure.met)));
    line(text, &format!("- Source: {}.", erasure.source));
}

fn deviations(text: &mut String, job: &JobReport) {
    line(text, "");
    line(text, "### Deviations");
    line(text, "");
    if job.deviations.is_empty() {
        line(text, "None was found in the window.");
        return;
    }
    table_head(text, &["when", "kind", "record or backup", "what"]);
    for deviation in &job.deviations {
        let id = deviation.id.as_ref().map(|id| format!("`{id}`")).unwrap_or_default();
        row(text, &[&moment(deviation.at), &word(&deviation.kind), &id, &cell(&deviation.what)]);
    }
}

fn backups(text: &mut String, backups: &[BackupEntry]) {
    line(text, "");
    line(text, "### Backups");
    line(text, "");
    if backups.is_empty() {
        line(text, "None.");
        return;
    }
    table_head(
        text,
        &["id", "no.", "recovery point", "available", "kind", "verdict", "data", "stored", "added", "manifest SHA-256"],
    );
    for backup in backups {
        let why = backup.removal.map(|reason| format!(" ({})", word(&reason))).unwrap_or_default();
        let removed = backup.retained_until.map(|at| format!(", removed {}{why}", moment(at))).unwrap_or_default();
        row(
            text,
            &[
                &format!("`{}`", backup.id),
                &backup.sequence.to_string(),
                &moment(backup.recovery_point),
                &moment(backup.available_at),
                &format!("{}{removed}", word(&backup.completeness)),
                &word(&backup.verdict),
                &human_bytes(backup.logical_bytes),
                &human_bytes(backup.stored_bytes),
                &human_bytes(backup.new_bytes),
                &format!("`{}`", backup.manifest_hash),
            ],
        );
    }
    sealed_to(text, backups);
}

/// Who can open the backups above, with how many of them.
fn sealed_to(text: &mut String, backups: &[BackupEntry]) {
    let mut sets: BTreeMap<&[String], usize> = BTreeMap::new();
    for backup in backups {
        *sets.entry(&backup.recipients).or_default() += 1;
    }
    line(text, "");
    for (recipients, count) in sets {
        let recipients: Vec<String> = recipients.iter().map(|recipient| format!("`{}`", cell(recipient))).collect();
        line(text, &format!("- Sealed to {}: {count} of {}", recipients.join(", "), backups.len()));
    }
}

fn runs(text: &mut String, runs: &[RunEntry]) {
    line(text, "");
    line(text, "### Runs");
    line(text, "");
    if runs.is_empty() {
        line(text, "None.");
        return;
    }
    table_head(text, &["record", "host", "began", "took", "outcome", "backup", "errors"]);
    for run in runs {
        let code = run.error_code.as_deref().map(|code| format!(" ({})", cell(code))).unwrap_or_default();
        row(
            text,
            &[
                &format!("`{}`", run.id),
                &cell(&run.host),
                &moment(run.started),
                &human_seconds(run.duration_seconds),
                &format!("{}{code}", word(&run.outcome)),
                &run.backup.as_ref().map(|id| format!("`{id}`")).unwrap_or_default(),
                &run.errors.to_string(),
            ],
        );
    }
}

fn drills(text: &mut String, drills: &[DrillEntry]) {
    line(text, "");
    line(text, "### Drills");
    if drills.is_empty() {
        line(text, "");
        line(text, "None.");
        return;
    }
    for drill in drills {
        let code = drill.error_code.as_deref().map(|code| format!(" ({})", cell(code))).unwrap_or_default();
        line(text, "");
        line(text, &format!("Drill `{}`: **{}**{code}", drill.id, word(&drill.outcome)));
        line(text, "");
        table_head(text, &["what", "value"]);
        let backup = drill.backup.as_ref().map_or_else(|| "none".to_owned(), |id| format!("`{id}`"));
        row(text, &["backup", &backup]);
        row(text, &["began", &moment(drill.started)]);
        let objective = match (drill.rto, drill.rto_objective_seconds) {
            (Restore::Took(_), Some(objective)) if drill.rto_met => {
                format!(", within the objective of {}", human_seconds(objective))
            }
            (_, Some(objective)) => format!(", objective {}", human_seconds(objective)),
            (_, None) => String::new(),
        };
        row(text, &["RTO", &format!("{}{objective}", restore(Some(drill.rto)))]);
        if drill.rto == Restore::Failed {
            row(text, &["ran for", &seconds(drill.duration_seconds)]);
        }
        row(text, &["exposure when it began", &exposure(drill.rpo)]);
        for phase in &drill.phases {
            row(text, &[&format!("phase {}", cell(&phase.name)), &seconds(phase.seconds)]);
        }
        row(text, &["checks", &format!("{} passed, {} did not", drill.checks_passed, drill.checks_failed)]);
        if drill.refutes_backup {
            row(text, &["says of the backup", "it cannot be opened or differs from its facts"]);
        }
        row(text, &["restored", &human_bytes(drill.restored_bytes)]);
        let on = &drill.environment;
        let cache = if on.cold_cache { "cold" } else { "warm" };
        row(
            text,
            &[
                "measured on",
                &format!(
                    "host {}, {} cores, {} vault, {cache} cache, checks confined: {}",
                    cell(&drill.host),
                    on.cores,
                    cell(&on.storage),
                    cell(&on.confinement)
                ),
            ],
        );
        for server in &on.servers {
            let at = |at: Option<f64>| at.map_or_else(|| "never".to_owned(), seconds);
            row(
                text,
                &[
                    match server.ground {
                        DrillGround::Scratch => "scratch server",
                        DrillGround::Container => "scratch server, in a container",
                        DrillGround::Existing => "existing server",
                    },
                    &format!(
                        "PostgreSQL {}, {} settings; queryable after {}, complete after {}",
                        cell(&server.version),
                        cell(&server.settings),
                        at(server.queryable_seconds),
                        at(server.complete_seconds)
                    ),
                ],
            );
        }
    }
}

fn removals(text: &mut String, removals: &[RemovalEntry]) {
    if removals.is_empty() {
        return;
    }
    let at = |at: Option<DateTime<Utc>>| at.map(moment).unwrap_or_default();
    let age = |age: Option<Duration>| age.map(human_duration).unwrap_or_default();
    let columns =
        ["record", "host", "backup", "why", "recovery point", "removed", "age then", "proven gone", "age then"];
    heading(text, "Removals", &columns);
    for removal in removals {
        row(
            text,
            &[
                &format!("`{}`", removal.id),
                &cell(&removal.host),
                &format!("`{}`", removal.backup),
                &word(&removal.reason),
                &at(removal.recovery_point),
                &moment(removal.removed_at),
                &age(removal.age_at_removal),
                &at(removal.proven_gone_at),
                &age(removal.age_proven_gone),
            ],
        );
    }
}

/// The second vault, as it stands at the end of the window.
fn copy(text: &mut String, job: &JobReport) {
    let Some(copy) = &job.copy else { return };
    heading(
        text,
        "Second vault",
        &["vault", "newest recovery point", "backups", "last copied", "last copy", "not copied"],
    );
    let last = copy.last_copy.as_ref();
    let outcome = last.map_or_else(String::new, |last| {
        let code = last.error_code.as_deref().map(|code| format!(" ({})", cell(code))).unwrap_or_default();
        format!("{} {}{code}", moment(last.finished), word(&last.outcome))
    });
    row(
        text,
        &[
            &cell(&copy.vault),
            &copy.recovery_point.map_or_else(|| "none".to_owned(), moment),
            &copy.backups.to_string(),
            &copy.last_success.map_or_else(|| "never".to_owned(), moment),
            &outcome,
            &last.map(|last| last.left_backups.to_string()).unwrap_or_default(),
        ],
    );
}

fn prunes(text: &mut String, prunes: &[PruneEntry]) {
    if prunes.is_empty() {
        return;
    }
    let columns =
        ["record", "host", "began", "took", "outcome", "backups removed", "condemned", "deleted", "clean through"];
    heading(text, "Prunes", &columns);
    for prune in prunes {
        let code = prune.error_code.as_deref().map(|code| format!(" ({})", cell(code))).unwrap_or_default();
        row(
            text,
            &[
                &format!("`{}`", prune.id),
                &cell(&prune.host),
                &moment(prune.started),
                &human_seconds(prune.duration_seconds),
                &format!("{}{code}", word(&prune.outcome)),
                &prune.removed_backups.to_string(),
                &prune.condemned_objects.to_string(),
                &format!("{} ({})", prune.deleted_objects, human_bytes(prune.deleted_bytes)),
                &prune.clean_through.map(moment).unwrap_or_default(),
            ],
        );
    }
}

/// What was found wrong, and what was decided about it.
fn findings(text: &mut String, job: &JobReport) {
    if !job.refutations.is_empty() {
        heading(text, "Found wrong", &["record", "host", "when", "found by", "backups", "objects", "code"]);
    }
    for found in &job.refutations {
        let backups: Vec<String> = found.backups.iter().map(|backup| format!("`{backup}`")).collect();
        row(
            text,
            &[
                &format!("`{}`", found.id),
                &cell(&found.host),
                &moment(found.found_at),
                &word(&found.found_by),
                &backups.join(" "),
                &found.objects.to_string(),
                &cell(&found.error_code),
            ],
        );
    }
    if !job.quarantines.is_empty() {
        heading(text, "Quarantined", &["record", "host", "when", "backup", "missing numbers accepted"]);
    }
    for quarantine in &job.quarantines {
        let range = |range: &SequenceRange| match range.first == range.last {
            true => range.first.to_string(),
            false => format!("{} to {}", range.first, range.last),
        };
        let gone: Vec<String> = quarantine.gone.iter().map(range).collect();
        row(
            text,
            &[
                &format!("`{}`", quarantine.id),
                &cell(&quarantine.host),
                &moment(quarantine.decided_at),
                &quarantine.backup.as_ref().map(|backup| format!("`{backup}`")).unwrap_or_default(),
                &gone.join(", "),
            ],
        );
    }
}

fn line(text: &mut String, content: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{content}");
}

fn heading(text: &mut String, title: &str, columns: &[&str]) {
    line(text, "");
    line(text, &format!("### {title}"));
    line(text, "");
    table_head(text, columns);
}

fn table_head(text: &mut String, columns: &[&str]) {
    row(text, columns);
    row(text, &vec!["---"; columns.len()]);
}

fn row(text: &mut String, cells: &[&str]) {
    line(text, &format!("| {} |", cells.join(" | ")));
}

/// A text from outside, so that it stays in its cell and is nothing but text.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '<' | '>' | '[' | ']' | '`' | '\\' => {
                safe.push('\\');
                safe.push(c);
            }
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

fn met(met: Met) -> &'static str {
    match met {
        Met::NotMet => "**not met**",
        met => super::words::met(met),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::objectives::Window;
    use crate::evidence::report::report;
    use crate::evidence::samples::*;

    fn rendered(facts: &[crate::evidence::facts::JobFacts]) -> String {
        render(&report(facts, Window::before(now(), hours(48)), now(), "lifeboat 0.1.0"))
    }

    #[test]
    fn keeping_and_erasing_read_like_this() {
        let text = rendered(&[erasing_with_findings()]);
        let from = text.find("### Measured erasure").unwrap();
        let drills = text.find("### Drills").unwrap();
        let backups = text.find("### Backups").unwrap();
        insta::assert_snapshot!(format!("{}[...]\n{}", &text[from..backups], &text[drills..]));
    }

    #[test]
    fn a_troubled_job_reads_like_this() {
        insta::assert_snapshot!(rendered(&[troubled()]));
    }

    #[test]
    fn an_unknown_job_is_unbounded_and_unmeasured_not_blank() {
        let mut facts = healthy();
        facts.backups.clear();
        facts.runs.clear();
        facts.drills.clear();
        facts.promise = Default::default();
        insta::assert_snapshot!(rendered(&[facts]));
    }

    #[test]
    fn text_from_outside_stays_in_its_cell() {
        assert_eq!(cell("a|b\n<i>`c`\\"), "a\\|b \\<i\\>\\`c\\`\\\\");
        let mut facts = healthy();
        facts.drills[0].host = "evil | host\n# heading".to_owned();
        let text = rendered(&[facts]);
        assert!(!text.contains("\n# heading"));
        assert!(text.contains("evil \\| host # heading"));
    }
}
