//! A report as blocks of words: headings, paragraphs, lists, tables. Markdown and HTML are two ways of writing the same blocks
//! down, so that neither says what the other does not. It holds the values of [`super::report`] and adds none.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::checks::CheckEntry;
use super::drawing::share;
use super::keeping::{PruneEntry, QuarantineEntry, RefutationEntry, RemovalEntry};
use super::report::{BackupEntry, DrillEntry, JobReport, Measured, Met, Report, RunEntry, UnopenedJob};
use super::words::{exposure, met, moment, restore, seconds, trend, word};
use crate::domain::objectives::{Restore, Rpo, json_seconds};
use crate::domain::quantity::{exact_duration, human_bytes, human_duration, human_seconds};
use crate::domain::record::{DrillGround, SequenceRange};

/// A part of a document that stands by itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Block {
    /// Of the first, second or third rank.
    Heading(u8, String),
    /// A paragraph.
    Paragraph(Words),
    /// A list.
    List(Vec<Words>),
    /// A table.
    Table(Table),
}

/// Words that stand together.
pub(super) type Words = Vec<Span>;

/// Some words, and how they are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Span {
    /// As they are. They may be from outside.
    Text(String),
    /// A sentence of ours, in which backquotes are around what is to be typed.
    Sentence(String),
    /// An id, a key, a schedule.
    Code(String),
    /// What a term means stands behind it.
    Term(&'static str),
    /// Whether an objective was met: it stands out where it was not.
    Verdict(String, Tone),
    /// How a drill ended: it always stands out.
    Outcome(String, Tone),
}

/// Whether a verdict is what was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// It is.
    Good,
    /// It is not.
    Bad,
    /// It is neither.
    Plain,
}

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// A cell of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    pub(super) words: Words,
    /// What part of a whole it is, 0 to 1, where that can be drawn.
    pub(super) share: Option<f64>,
}

impl Table {
    fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    fn row(&mut self, cells: Vec<Words>) {
        self.rows.push(cells.into_iter().map(|words| Cell { words, share: None }).collect());
    }

    fn figure(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.row(vec![text(name), text(value)]);
    }
}

fn text(words: impl Into<String>) -> Words {
    vec![Span::Text(words.into())]
}

fn code(id: impl ToString) -> Words {
    vec![Span::Code(id.to_string())]
}

fn code_or(id: Option<impl ToString>, otherwise: &str) -> Words {
    id.map_or_else(|| text(otherwise), code)
}

fn heading(rank: u8, title: impl Into<String>) -> Block {
    Block::Heading(rank, title.into())
}

/// The title of every report.
pub(super) const TITLE: &str = "Backup and restore report";

/// The whole report.
pub(super) fn document(report: &Report) -> Vec<Block> {
    let window = format!("Window: {} to {}", moment(report.window.start), moment(report.window.end));
    let made = format!("Made: {} by {}", moment(report.generated), report.tool);
    let mut about = vec![text(window), text(made)];
    about.extend(report.jobs.iter().map(|job| {
        let mut words = text(format!("Job {}: vault {} with id ", job.job, job.vault.name));
        words.extend(code(&job.vault.id));
        words
    }));
    let mut blocks = vec![heading(1, TITLE), Block::List(about), Block::Paragraph(terms())];
    report.jobs.iter().for_each(|job| job_section(&mut blocks, job));
    report.unopened.iter().for_each(|job| unopened(&mut blocks, job));
    blocks
}

/// Nothing is claimed of it, and that is said: a report that leaves a job out reads as if there was none.
fn unopened(to: &mut Vec<Block>, job: &UnopenedJob) {
    let told = Span::Text(format!(
        "Nothing is known of this job, and nothing is claimed of it: this host never opened vault {}, and cannot open it now ({}). ",
        job.vault, job.why
    ));
    let next = Span::Sentence(format!("Run `lifeboat doctor {}`.", job.job));
    to.extend([heading(2, job.job.to_string()), Block::Paragraph(vec![told, next])]);
}

fn terms() -> Words {
    let said = |words: &str| Span::Text(words.to_owned());
    vec![
        said("Times are UTC. A duration stands as people read it, with its seconds behind it. "),
        Span::Term("Exposure"),
        said(
            " is the age of the newest data that could have been had back at a moment; the measured RPO is the largest exposure in \
             the window. The measured RTO is the time from a drill's start to its last check passing. Ages are counted from a \
             backup's recovery point; a backup is ",
        ),
        Span::Term("proven gone"),
        said(" when the first prune that found nothing of it left has ended."),
    ]
}

fn job_section(to: &mut Vec<Block>, job: &JobReport) {
    to.push(heading(2, job.job.to_string()));
    promised(to, job);
    measured_rpo(to, &job.measured);
    measured_rto(to, &job.measured);
    measured_erasure(to, job);
    deviations(to, job);
    backups(to, &job.backups);
    runs(to, &job.runs);
    drills(to, &job.drills);
    removals(to, &job.removals);
    prunes(to, &job.prunes);
    checks(to, &job.checks);
    found_wrong(to, &job.refutations);
    quarantined(to, &job.quarantines);
    copy(to, job);
    to.push(heading(3, "What is not claimed"));
    to.push(Block::List(job.not_claimed.iter().map(|sentence| vec![Span::Sentence(sentence.clone())]).collect()));
}

fn promised(to: &mut Vec<Block>, job: &JobReport) {
    let promised = &job.promised;
    let schedule = |schedule: &Option<String>| match schedule {
        Some(schedule) => vec![Span::Code(schedule.clone()), Span::Text(format!(" ({})", promised.timezone))],
        None => text("none"),
    };
    let duration = |duration: Option<Duration>| duration.map_or_else(|| "none".to_owned(), exact_duration);
    let mut table = Table::new(&["what", "value"]);
    table.row(vec![text("backups"), schedule(&promised.schedule)]);
    table.row(vec![text("drills"), schedule(&promised.drill_schedule)]);
    table.figure("RPO objective", duration(promised.rpo));
    table.figure("RTO objective", duration(promised.rto));
    table.figure("kept at least", duration(promised.keep_at_least));
    table.figure("erased after at most", duration(promised.delete_after));
    for recipient in &promised.recipients {
        table.row(vec![text("sealed to"), code(recipient)]);
    }
    to.extend([heading(3, "Promised"), Block::Table(table)]);
}

fn verdict(met: Met, before: &str) -> Words {
    let tone = match met {
        Met::Met => Tone::Good,
        Met::NotMet => Tone::Bad,
        Met::NoObjective | Met::Unmeasured => Tone::Plain,
    };
    vec![Span::Text(format!("{before}: ")), Span::Verdict(self::met(met).to_owned(), tone), Span::Text(".".to_owned())]
}

fn measured_rpo(to: &mut Vec<Block>, measured: &Measured) {
    let rpo = &measured.rpo;
    let mut table = Table::new(&["figure", "available", "proven by a drill"]);
    let mut pair = |name: &str, of: &dyn Fn(&Rpo) -> String| {
        table.row(vec![text(name), text(of(&rpo.available)), text(of(&rpo.proven))]);
    };
    pair("worst exposure", &|rpo| exposure(rpo.worst));
    pair("reached at", &|rpo| moment(rpo.worst_reached_at));
    pair("median over time", &|rpo| exposure(rpo.median));
    pair("95th percentile over time", &|rpo| exposure(rpo.p95));
    pair("share of the time above the objective", &|rpo| {
        rpo.share_above_target.map_or_else(|| "no objective".to_owned(), |share| format!("{:.2} %", share * 100.0))
    });
    table.row(vec![text("exposure at the window's end"), text(exposure(rpo.now)), text(exposure(rpo.proven_now))]);
    let over = format!("Measured over {} to {}.", moment(rpo.window.start), moment(rpo.window.end));
    let list = vec![verdict(rpo.met, "Objective"), text(over), text(format!("Source: {}.", rpo.source))];
    to.extend([heading(3, "Measured RPO"), Block::Table(table), Block::List(list)]);
}

fn measured_rto(to: &mut Vec<Block>, measured: &Measured) {
    let rto = &measured.rto;
    let mut table = Table::new(&["figure", "value"]);
    table.figure("drills in the window", rto.drills.to_string());
    table.figure("of these failed", rto.failed.to_string());
    table.figure("of these passed within the objective", rto.within_objective.to_string());
    table.figure("last", restore(rto.last));
    table.figure("worst", restore(rto.worst));
    table.figure("trend", trend(rto.trend));
    let list = vec![verdict(rto.met, "Objective"), text(format!("Source: {}.", rto.source))];
    to.extend([heading(3, "Measured RTO"), Block::Table(table), Block::List(list)]);
}

fn measured_erasure(to: &mut Vec<Block>, job: &JobReport) {
    let erasure = &job.measured.erasure;
    let age = |age: Option<Duration>| age.map_or_else(|| "none".to_owned(), |age| seconds(json_seconds(age)));
    let mut table = Table::new(&["figure", "value"]);
    table.figure("backups removed in the window", erasure.removed.to_string());
    table.figure("largest age at removal", age(erasure.largest_age_at_removal));
    table.figure("backups proven gone in the window", erasure.proven_gone.to_string());
    table.figure("largest age when proven gone", age(erasure.largest_age_proven_gone));
    table.figure("removed, and not yet proven gone", erasure.pending_backups.to_string());
    let oldest = erasure.oldest_retained_byte.map_or_else(|| "none".to_owned(), moment);
    table.figure("oldest recovery point of which bytes may be there", oldest);
    let within = job.promised.delete_after.map(|limit| format!(" within {}", exact_duration(limit)));
    let erased = format!("Erased{}", within.unwrap_or_default());
    let list = vec![verdict(erasure.met, &erased), text(format!("Source: {}.", erasure.source))];
    to.extend([heading(3, "Measured erasure"), Block::Table(table), Block::List(list)]);
}

fn deviations(to: &mut Vec<Block>, job: &JobReport) {
    to.push(heading(3, "Deviations"));
    if job.deviations.is_empty() {
        to.push(Block::Paragraph(text("None was found in the window.")));
        return;
    }
    let mut table = Table::new(&["when", "kind", "record or backup", "what"]);
    for deviation in &job.deviations {
        table.row(vec![
            text(moment(deviation.at)),
            text(word(&deviation.kind)),
            code_or(deviation.id.as_ref(), ""),
            text(&deviation.what),
        ]);
    }
    to.push(Block::Table(table));
}

fn backups(to: &mut Vec<Block>, backups: &[BackupEntry]) {
    to.push(heading(3, "Backups"));
    if backups.is_empty() {
        to.push(Block::Paragraph(text("None.")));
        return;
    }
    let columns =
        ["id", "no.", "recovery point", "available", "kind", "verdict", "data", "stored", "added", "manifest SHA-256"];
    let mut table = Table::new(&columns);
    for backup in backups {
        let why = backup.removal.map(|reason| format!(" ({})", word(&reason))).unwrap_or_default();
        let removed = backup.retained_until.map(|at| format!(", removed {}{why}", moment(at))).unwrap_or_default();
        table.row(vec![
            code(&backup.id),
            text(backup.sequence.to_string()),
            text(moment(backup.recovery_point)),
            text(moment(backup.available_at)),
            text(format!("{}{removed}", word(&backup.completeness))),
            text(word(&backup.verdict)),
            text(human_bytes(backup.logical_bytes)),
            text(human_bytes(backup.stored_bytes)),
            text(human_bytes(backup.new_bytes)),
            code(backup.manifest_hash),
        ]);
    }
    to.extend([Block::Table(table), sealed_to(backups)]);
}

/// Who can open these backups, with how many of them.
fn sealed_to(backups: &[BackupEntry]) -> Block {
    let mut sets: BTreeMap<&[String], usize> = BTreeMap::new();
    for backup in backups {
        *sets.entry(&backup.recipients).or_default() += 1;
    }
    let each = sets.into_iter().map(|(recipients, count)| {
        let mut words = text("Sealed to ");
        for (place, recipient) in recipients.iter().enumerate() {
            if place > 0 {
                words.extend(text(", "));
            }
            words.extend(code(recipient));
        }
        words.extend(text(format!(": {count} of {}", backups.len())));
        words
    });
    Block::List(each.collect())
}

fn with_code(word: String, code: Option<&String>) -> Words {
    text(format!("{word}{}", code.map(|code| format!(" ({code})")).unwrap_or_default()))
}

fn runs(to: &mut Vec<Block>, runs: &[RunEntry]) {
    to.push(heading(3, "Runs"));
    if runs.is_empty() {
        to.push(Block::Paragraph(text("None.")));
        return;
    }
    let mut table = Table::new(&["record", "host", "began", "took", "outcome", "backup", "errors"]);
    for run in runs {
        table.row(vec![
            code(&run.id),
            text(&run.host),
            text(moment(run.started)),
            text(human_seconds(run.duration_seconds)),
            with_code(word(&run.outcome), run.error_code.as_ref()),
            code_or(run.backup.as_ref(), ""),
            text(run.errors.to_string()),
        ]);
    }
    to.push(Block::Table(table));
}

fn drills(to: &mut Vec<Block>, drills: &[DrillEntry]) {
    to.push(heading(3, "Drills"));
    if drills.is_empty() {
        to.push(Block::Paragraph(text("None.")));
    }
    for drill in drills {
        let tone = if drill.rto == Restore::Failed { Tone::Bad } else { Tone::Good };
        let mut words =
            vec![Span::Text("Drill ".to_owned()), Span::Code(drill.id.to_string()), Span::Text(": ".to_owned())];
        words.push(Span::Outcome(word(&drill.outcome), tone));
        words.extend(drill.error_code.as_ref().map(|code| Span::Text(format!(" ({code})"))));
        to.extend([Block::Paragraph(words), Block::Table(one_drill(drill))]);
    }
}

fn one_drill(drill: &DrillEntry) -> Table {
    let mut table = Table::new(&["what", "value"]);
    table.row(vec![text("backup"), code_or(drill.backup.as_ref(), "none")]);
    table.figure("began", moment(drill.started));
    let objective = match (drill.rto, drill.rto_objective_seconds) {
        (Restore::Took(_), Some(objective)) if drill.rto_met => {
            format!(", within the objective of {}", human_seconds(objective))
        }
        (_, Some(objective)) => format!(", objective {}", human_seconds(objective)),
        (_, None) => String::new(),
    };
    table.figure("RTO", format!("{}{objective}", restore(Some(drill.rto))));
    if drill.rto == Restore::Failed {
        table.figure("ran for", seconds(drill.duration_seconds));
    }
    table.figure("exposure when it began", exposure(drill.rpo));
    for phase in &drill.phases {
        table.figure(format!("phase {}", phase.name), seconds(phase.seconds));
        if let Some(cell) = table.rows.last_mut().and_then(|row| row.last_mut()) {
            cell.share = Some(share(phase.seconds, drill.duration_seconds));
        }
    }
    table.figure("checks", format!("{} passed, {} did not", drill.checks_passed, drill.checks_failed));
    if drill.refutes_backup {
        table.figure("says of the backup", "it cannot be opened or differs from its facts");
    }
    table.figure("restored", human_bytes(drill.restored_bytes));
    let on = &drill.environment;
    let cache = if on.cold_cache { "cold" } else { "warm" };
    table.figure(
        "measured on",
        format!(
            "host {}, {} cores, {} vault, {cache} cache, checks confined: {}",
            drill.host, on.cores, on.storage, on.confinement
        ),
    );
    for server in &on.servers {
        let at = |at: Option<f64>| at.map_or_else(|| "never".to_owned(), seconds);
        let what = match server.ground {
            DrillGround::Scratch => "scratch server",
            DrillGround::Container => "scratch server, in a container",
            DrillGround::Existing => "existing server",
        };
        table.figure(
            what,
            format!(
                "PostgreSQL {}, {} settings; queryable after {}, complete after {}",
                server.version,
                server.settings,
                at(server.queryable_seconds),
                at(server.complete_seconds)
            ),
        );
    }
    table
}

fn removals(to: &mut Vec<Block>, removals: &[RemovalEntry]) {
    if removals.is_empty() {
        return;
    }
    let at = |at: Option<DateTime<Utc>>| text(at.map(moment).unwrap_or_default());
    let age = |age: Option<Duration>| text(age.map(human_duration).unwrap_or_default());
    let columns =
        ["record", "host", "backup", "why", "recovery point", "removed", "age then", "proven gone", "age then"];
    let mut table = Table::new(&columns);
    for removal in removals {
        table.row(vec![
            code(&removal.id),
            text(&removal.host),
            code(&removal.backup),
            text(word(&removal.reason)),
            at(removal.recovery_point),
            text(moment(removal.removed_at)),
            age(removal.age_at_removal),
            at(removal.proven_gone_at),
            age(removal.age_proven_gone),
        ]);
    }
    to.extend([heading(3, "Removals"), Block::Table(table)]);
}

fn prunes(to: &mut Vec<Block>, prunes: &[PruneEntry]) {
    if prunes.is_empty() {
        return;
    }
    let columns =
        ["record", "host", "began", "took", "outcome", "backups removed", "condemned", "deleted", "clean through"];
    let mut table = Table::new(&columns);
    for prune in prunes {
        table.row(vec![
            code(&prune.id),
            text(&prune.host),
            text(moment(prune.started)),
            text(human_seconds(prune.duration_seconds)),
            with_code(word(&prune.outcome), prune.error_code.as_ref()),
            text(prune.removed_backups.to_string()),
            text(prune.condemned_objects.to_string()),
            text(format!("{} ({})", prune.deleted_objects, human_bytes(prune.deleted_bytes))),
            text(prune.clean_through.map(moment).unwrap_or_default()),
        ]);
    }
    to.extend([heading(3, "Prunes"), Block::Table(table)]);
}

fn checks(to: &mut Vec<Block>, checks: &[CheckEntry]) {
    to.push(heading(3, "Checks"));
    if checks.is_empty() {
        to.push(Block::Paragraph(text("None.")));
        return;
    }
    let columns =
        ["record", "host", "began", "took", "outcome", "backups", "objects compared", "segments opened", "damaged"];
    let mut table = Table::new(&columns);
    for check in checks {
        let opened = match check.read_data_percent {
            None => "none".to_owned(),
            Some(percent) => format!("{} ({percent} %)", check.opened_segments),
        };
        table.row(vec![
            code(&check.id),
            text(&check.host),
            text(moment(check.started)),
            text(human_seconds(check.duration_seconds)),
            with_code(word(&check.outcome), check.error_code.as_ref()),
            text(check.backups.to_string()),
            text(format!("{} ({})", check.objects, human_bytes(check.bytes))),
            text(opened),
            text(check.damaged.to_string()),
        ]);
    }
    to.push(Block::Table(table));
}

/// What was found wrong.
fn found_wrong(to: &mut Vec<Block>, found: &[RefutationEntry]) {
    if found.is_empty() {
        return;
    }
    let mut table = Table::new(&["record", "host", "when", "found by", "backups", "objects", "code"]);
    for found in found {
        let mut backups = Words::new();
        for (place, backup) in found.backups.iter().enumerate() {
            if place > 0 {
                backups.extend(text(" "));
            }
            backups.extend(code(backup));
        }
        table.row(vec![
            code(&found.id),
            text(&found.host),
            text(moment(found.found_at)),
            text(word(&found.found_by)),
            backups,
            text(found.objects.to_string()),
            text(&found.error_code),
        ]);
    }
    to.extend([heading(3, "Found wrong"), Block::Table(table)]);
}

/// What a person decided to go on without.
fn quarantined(to: &mut Vec<Block>, quarantines: &[QuarantineEntry]) {
    if quarantines.is_empty() {
        return;
    }
    let range = |range: &SequenceRange| match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{} to {}", range.first, range.last),
    };
    let mut table = Table::new(&["record", "host", "when", "backup", "missing numbers accepted"]);
    for quarantine in quarantines {
        let gone: Vec<String> = quarantine.gone.iter().map(range).collect();
        table.row(vec![
            code(&quarantine.id),
            text(&quarantine.host),
            text(moment(quarantine.decided_at)),
            code_or(quarantine.backup.as_ref(), ""),
            text(gone.join(", ")),
        ]);
    }
    to.extend([heading(3, "Quarantined"), Block::Table(table)]);
}

/// The second vault, as it stands at the end of the window.
fn copy(to: &mut Vec<Block>, job: &JobReport) {
    let Some(copy) = &job.copy else { return };
    let columns = [
        "vault",
        "newest recovery point",
        "backups",
        "oldest byte must be gone",
        "last copied",
        "last copy",
        "not copied",
        "last check",
    ];
    let mut table = Table::new(&columns);
    let last = copy.last_copy.as_ref();
    let outcome = last.map_or_else(Words::new, |last| {
        with_code(format!("{} {}", moment(last.finished), word(&last.outcome)), last.error_code.as_ref())
    });
    table.row(vec![
        text(&copy.vault),
        text(copy.recovery_point.map_or_else(|| "none".to_owned(), moment)),
        text(copy.backups.to_string()),
        text(match &copy.erasure {
            Some(erasure) => erasure.deadline.map_or_else(|| "nothing to erase".to_owned(), moment),
            None => "not known here".to_owned(),
        }),
        text(copy.last_success.map_or_else(|| "never".to_owned(), moment)),
        outcome,
        text(last.map(|last| last.left_backups.to_string()).unwrap_or_default()),
        copy.last_check.as_ref().map_or_else(Words::new, |last| {
            with_code(format!("{} {}", moment(last.finished), word(&last.outcome)), last.error_code.as_ref())
        }),
    ]);
    to.extend([heading(3, "Second vault"), Block::Table(table)]);
}
