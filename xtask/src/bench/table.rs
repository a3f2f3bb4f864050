//! Figures to Markdown: a row a figure, a column a tool, and for each the ratio to the fastest peer and the target.
//! It decides from numbers alone; where they come from it does not know.

use std::fmt::Write as _;

/// Peers that targets are held against: those that keep many backups of one tree. A pipeline does not.
const RIVALS: &[&str] = &["restic", "rustic", "borg"];
/// The column that is judged.
pub(super) const SUBJECT: &str = "lifeboat";

/// What a row's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Wall-clock time; the median counts.
    Seconds,
    /// Apparent sizes of what is stored; the median counts.
    StoredMib,
    /// Memory of the largest process; the largest of all rounds counts.
    PeakMib,
    /// New bytes for each byte that changed; the median counts.
    Times,
    /// Parts in a hundred; the median counts.
    Percent,
    /// A number of things; the last one counts.
    Count,
    /// So many for each thing; the median counts.
    Each,
}

/// What was promised for a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// At most this many times the lowest of the rivals.
    TimesBest(f64),
    /// At most this many times one peer.
    TimesOf(&'static str, f64),
    /// At most this, in the row's unit.
    AtMost(f64),
    /// Shown, not judged.
    Nothing,
}

/// Whether a target was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    NotMet,
    /// What it is held against, or lifeboat's own figure, is not there.
    Unknown,
    /// There was nothing to meet.
    None,
}

/// What one tool gave for one row.
#[derive(Debug, Clone, Default)]
struct Samples {
    values: Vec<f64>,
    failed: bool,
}

/// One figure of every tool.
#[derive(Debug, Clone)]
struct Row {
    what: String,
    unit: Unit,
    target: Target,
    tools: Vec<Samples>,
}

/// Names a row of a [`Sheet`].
#[derive(Debug, Clone, Copy)]
pub(super) struct RowId(usize);

/// All figures of one part of the bench.
#[derive(Debug)]
pub(super) struct Sheet {
    tools: Vec<&'static str>,
    rows: Vec<Row>,
    absent: Vec<usize>,
    notes: Vec<String>,
}

impl Sheet {
    /// An empty sheet with a column for each tool.
    pub(super) fn new(tools: Vec<&'static str>) -> Self {
        Self { tools, rows: Vec::new(), absent: Vec::new(), notes: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, what: &str, unit: Unit, target: Target) -> RowId {
        self.rows.push(Row { what: what.to_owned(), unit, target, tools: vec![Samples::default(); self.tools.len()] });
        RowId(self.rows.len() - 1)
    }

    /// Adds what a tool gave in one round.
    pub(super) fn add(&mut self, row: RowId, tool: usize, value: f64) {
        self.rows[row.0].tools[tool].values.push(value);
    }

    /// Marks a row that a tool could not be brought to give. Why it could not belongs into a note.
    pub(super) fn fail(&mut self, row: RowId, tool: usize) {
        self.rows[row.0].tools[tool].failed = true;
    }

    /// Keeps the column of a tool that could not be had, so that nobody takes it for one that nobody thought of.
    pub(super) fn absent(&mut self, tool: usize, why: &str) {
        self.absent.push(tool);
        self.note(format!("{}: {why}.", self.tools[tool]));
    }

    /// Adds a sentence below the table, once.
    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Whether anything was asked for and not given.
    pub(super) fn any_failed(&self) -> bool {
        self.rows.iter().flat_map(|row| &row.tools).any(|samples| samples.failed)
    }

    /// The table, and the notes below it. A column in which nothing stands is left out.
    pub(super) fn markdown(&self) -> String {
        let shown: Vec<usize> = (0..self.tools.len()).filter(|tool| self.has_column(*tool)).collect();
        let compared = self.rows.iter().any(|row| self.ratio(row).is_some());
        let judged = self.rows.iter().any(|row| row.target != Target::Nothing);
        let mut heads: Vec<&str> = vec![""];
        let mut rules = vec!["---"];
        heads.extend(shown.iter().map(|tool| self.tools[*tool]));
        rules.extend(shown.iter().map(|_| "---:"));
        if compared {
            heads.push("to the best peer");
            rules.push("---:");
        }
        if judged {
            heads.extend(["target", ""]);
            rules.extend(["---", "---"]);
        }
        let mut text = format!("| {} |\n|{}|\n", heads.join(" | ").trim_start(), rules.join("|"));
        for row in &self.rows {
            let mut cells = vec![row.what.clone()];
            cells.extend(shown.iter().map(|tool| self.cell(row, *tool)));
            if compared {
                cells.push(self.ratio(row).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}×")));
            }
            if judged {
                cells.extend([row.target_text(), self.verdict(row).text().to_owned()]);
            }
            let _ = writeln!(text, "| {} |", cells.join(" | ").trim_end());
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    fn has_column(&self, tool: usize) -> bool {
        let said = |samples: &Samples| samples.failed || !samples.values.is_empty();
        self.absent.contains(&tool) || self.rows.iter().any(|row| said(&row.tools[tool]))
    }

    fn cell(&self, row: &Row, tool: usize) -> String {
        if self.absent.contains(&tool) { "absent".to_owned() } else { row.cell(&row.tools[tool]) }
    }

    fn value(&self, row: &Row, tool: &str) -> Option<f64> {
        let column = self.tools.iter().position(|name| *name == tool)?;
        row.value(row.tools.get(column)?)
    }

    fn best_rival(&self, row: &Row) -> Option<f64> {
        RIVALS.iter().filter_map(|rival| self.value(row, rival)).min_by(f64::total_cmp)
    }

    fn ratio(&self, row: &Row) -> Option<f64> {
        let comparable = !matches!(row.unit, Unit::Count | Unit::Each);
        let best = self.best_rival(row).filter(|best| comparable && *best > 0.0)?;
        Some(self.value(row, SUBJECT)? / best)
    }

    fn verdict(&self, row: &Row) -> Verdict {
        let limit = match row.target {
            Target::Nothing => return Verdict::None,
            Target::AtMost(limit) => Some(limit),
            Target::TimesBest(times) => self.best_rival(row).map(|best| best * times),
            Target::TimesOf(peer, times) => self.value(row, peer).map(|value| value * times),
        };
        match (self.value(row, SUBJECT), limit) {
            (Some(value), Some(limit)) if value <= limit => Verdict::Met,
            (Some(_), Some(_)) => Verdict::NotMet,
            _ => Verdict::Unknown,
        }
    }
}

impl Row {
    fn value(&self, samples: &Samples) -> Option<f64> {
        if samples.failed {
            return None;
        }
        match self.unit {
            Unit::PeakMib => samples.values.iter().copied().max_by(f64::total_cmp),
            Unit::Count => samples.values.last().copied(),
            Unit::Seconds | Unit::StoredMib | Unit::Times | Unit::Percent | Unit::Each => median(&samples.values),
        }
    }

    fn cell(&self, samples: &Samples) -> String {
        if samples.failed {
            return "failed".to_owned();
        }
        self.value(samples).map_or_else(|| "–".to_owned(), |value| self.unit.text(value))
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::TimesBest(times) => format!("≤ {times}×"),
            Target::TimesOf(peer, times) => format!("≤ {times}× {peer}"),
            Target::AtMost(limit) => format!("≤ {}", self.unit.limit_text(limit)),
            Target::Nothing => "–".to_owned(),
        }
    }
}

impl Unit {
    fn text(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{value:.2} s"),
            Self::StoredMib if value < 10.0 => format!("{value:.2} MiB"),
            Self::StoredMib | Self::PeakMib => format!("{value:.0} MiB"),
            Self::Times => format!("{value:.1}×"),
            Self::Percent => format!("{value:.1} %"),
            Self::Count => format!("{value:.0}"),
            Self::Each => format!("{value:.2}"),
        }
    }

    fn limit_text(self, limit: f64) -> String {
        match self {
            Self::Seconds => format!("{limit} s"),
            Self::StoredMib | Self::PeakMib => format!("{limit} MiB"),
            Self::Times => format!("{limit}×"),
            Self::Percent => format!("{limit} %"),
            Self::Count | Self::Each => format!("{limit}"),
        }
    }
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "**not met**",
            Self::Unknown => "not judged",
            Self::None => "",
        }
    }
}

/// The middle one; of an even number the mean of the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len().is_multiple_of(2) { Some(f64::midpoint(sorted[sorted.len() / 2 - 1], upper)) } else { Some(upper) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(unit: Unit, target: Target, values: &[&[f64]]) -> Sheet {
        let mut sheet = Sheet::new(vec![SUBJECT, "restic", "rustic", "tar, zstd, age"]);
        let row = sheet.row("first backup", unit, target);
        for (tool, values) in values.iter().enumerate() {
            values.iter().for_each(|value| sheet.add(row, tool, *value));
        }
        sheet
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn a_target_is_held_against_the_fastest_rival_and_a_pipeline_is_none() {
        let values: &[&[f64]] = &[&[8.0, 9.0, 7.0], &[22.0], &[20.0], &[1.0]];
        let sheet = sheet(Unit::Seconds, Target::TimesBest(0.4), values);
        assert_eq!(sheet.verdict(&sheet.rows[0]), Verdict::Met, "8 of 20, and the bound itself is within");
        assert_eq!(sheet.ratio(&sheet.rows[0]), Some(0.4));
        assert!(
            sheet.markdown().contains("| first backup | 8.00 s | 22.00 s | 20.00 s | 1.00 s | 0.40× | ≤ 0.4× | met |")
        );
    }

    #[test]
    fn one_peer_or_a_plain_bound() {
        let values: &[&[f64]] = &[&[150.0], &[100.0], &[90.0], &[]];
        let met = |target| {
            let sheet = sheet(Unit::StoredMib, target, values);
            sheet.verdict(&sheet.rows[0])
        };
        assert_eq!(met(Target::TimesOf("restic", 1.5)), Verdict::Met);
        assert_eq!(met(Target::TimesOf("restic", 1.4)), Verdict::NotMet);
        assert_eq!(met(Target::AtMost(149.0)), Verdict::NotMet);
        assert_eq!(met(Target::TimesOf("borg", 1.5)), Verdict::Unknown, "a peer that is not there decides nothing");
        assert_eq!(met(Target::Nothing), Verdict::None);
    }

    #[test]
    fn memory_is_the_worst_round_and_not_the_median() {
        let sheet = sheet(Unit::PeakMib, Target::AtMost(256.0), &[&[40.0, 300.0, 50.0]]);
        assert_eq!(sheet.verdict(&sheet.rows[0]), Verdict::NotMet);
        let expected =
            "| | lifeboat | target |  |\n|---|---:|---|---|\n| first backup | 300 MiB | ≤ 256 MiB | **not met** |\n";
        assert_eq!(sheet.markdown(), expected, "no column for those that took no part");
    }

    #[test]
    fn a_tool_that_could_not_be_had_is_said_in_the_table() {
        let mut sheet = sheet(Unit::Seconds, Target::Nothing, &[&[1.0], &[2.0]]);
        sheet.absent(2, "not installed: no network");
        let expected = "| | lifeboat | restic | rustic | to the best peer |\n|---|---:|---:|---:|---:|\n\
                        | first backup | 1.00 s | 2.00 s | absent | 0.50× |\n\nrustic: not installed: no network.\n";
        assert_eq!(sheet.markdown(), expected);
    }

    #[test]
    fn what_failed_is_said_and_never_judged_by_the_rounds_before() {
        let mut sheet = sheet(Unit::Seconds, Target::AtMost(5.0), &[&[1.0], &[2.0]]);
        sheet.fail(RowId(0), 0);
        sheet.note("lifeboat: prune: exit status 20".to_owned());
        sheet.note("lifeboat: prune: exit status 20".to_owned());
        let text = sheet.markdown();
        assert!(text.contains("| failed | 2.00 s |") && text.contains("not judged"), "{text}");
        assert_eq!(text.matches("exit status 20").count(), 1);
        assert!(sheet.any_failed());
    }
}
