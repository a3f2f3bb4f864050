//! Samples by series, and their text in Prometheus's format (version 0.0.4). It knows no job.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::series::Series;

/// The samples. A second one of a series with the same labels takes the place of the first: Prometheus would refuse both.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    samples: BTreeMap<Series, BTreeMap<Vec<String>, f64>>,
}

impl Exposition {
    /// Adds a sample; `labels` are the values of the series' labels, in their order.
    pub(super) fn add(&mut self, series: Series, labels: &[&str], value: f64) {
        debug_assert_eq!(labels.len(), series.definition().labels.len(), "own invariant: {series:?} has these labels");
        let labels = labels.iter().copied().map(escaped).collect();
        self.samples.entry(series).or_default().insert(labels, value);
    }

    /// Adds a sample if its value is known.
    pub(super) fn add_known(&mut self, series: Series, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.add(series, labels, value);
        }
    }

    /// The text: series in their own order, samples by their labels' values. A series without a sample is not named.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (series, samples) in &self.samples {
            let definition = series.definition();
            let name = definition.name;
            // Writing into a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {}", definition.help);
            let _ = writeln!(text, "# TYPE {name} {}", definition.kind.word());
            for (values, value) in samples {
                let labels: Vec<String> =
                    definition.labels.iter().zip(values).map(|(label, value)| format!("{label}=\"{value}\"")).collect();
                let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
                let _ = writeln!(text, "{name}{labels} {}", figure(*value));
            }
        }
        text
    }
}

/// A label's value between its quotes. What would speak to a terminal is not let through.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c if c.is_control() => text.push(char::REPLACEMENT_CHARACTER),
            c => text.push(c),
        }
    }
    text
}

fn figure(value: f64) -> String {
    if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_samples_sorted() {
        let mut exposition = Exposition::default();
        exposition.add(Series::VaultStoredBytes, &["b\\\"\n\u{1b}[2J"], 12.0);
        exposition.add(Series::VaultStoredBytes, &["a"], f64::INFINITY);
        exposition.add_known(Series::BuildInfo, &["1"], None);
        exposition.add(Series::ExportTimestamp, &[], 1_795_262_400.125);
        let text = exposition.text();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "lifeboat_export_timestamp_seconds 1795262400.125",
                "lifeboat_vault_stored_bytes{vault=\"a\"} +Inf",
                "lifeboat_vault_stored_bytes{vault=\"b\\\\\\\"\\n\u{fffd}[2J\"} 12",
            ]
        );
        assert_eq!(text.lines().filter(|line| line.starts_with("# HELP")).count(), 2);
    }

    #[test]
    fn a_large_count_is_written_out() {
        assert_eq!(figure(5e15), "5000000000000000");
        assert_eq!(figure(0.0), "0");
    }
}
