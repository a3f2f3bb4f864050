//! Drawings for pages, as SVG in the text: thirty days, an exposure, the phases of a drill. Each says in words what it shows.
//! Their colours are the style's; what a colour says, a shape or a word says too.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use super::html::Html;
use super::strip::{Counts, Day, DayKind};
use crate::domain::objectives::{Exposure, Leg, Window};
use crate::domain::quantity::human_seconds;
use crate::domain::record::Phase;

/// A drawing of more legs than these is one of peaks.
const MAX_LEGS: usize = 400;
/// Widths of drawings in their own units; they are as wide as there is room.
const DAY_WIDTH: usize = 10;
const EXPOSURE_WIDTH: f64 = 1000.0;
const BAR_WIDTH: f64 = 100.0;

/// What the days of a strip come to, in a sentence.
#[must_use]
pub fn strip_words(days: &[Day]) -> String {
    let count = |kinds: &[DayKind]| days.iter().filter(|day| kinds.contains(&day.kind())).count();
    let sum = |of: &dyn Fn(&Day) -> usize| days.iter().map(of).sum::<usize>();
    let mut said = Vec::new();
    let mut say = |count: usize, one: &str, many: &str| {
        if count > 0 {
            said.push(format!("{count} {}", if count == 1 { one } else { many }));
        }
    };
    say(count(&[DayKind::Well]), "day as planned", "days as planned");
    say(count(&[DayKind::Mixed]), "day on which something went wrong", "days on which something went wrong");
    say(count(&[DayKind::Failed]), "day without a complete backup", "days without a complete backup");
    say(count(&[DayKind::Missed]), "day on which none began", "days on which none began");
    say(count(&[DayKind::Quiet]), "day on which none was due", "days on which none was due");
    say(count(&[DayKind::Unknown]), "day of which nothing is known", "days of which nothing is known");
    say(sum(&|day| day.drills.well), "drill passed", "drills passed");
    say(sum(&|day| day.drills.failed), "drill failed", "drills failed");
    say(sum(&|day| day.drills.missed), "drill missed", "drills missed");
    format!("last {} days: {}", days.len(), said.join(", "))
}

/// A day in words: `2026-11-20: 3 backups, 1 failed, 1 missed; drill passed`.
#[must_use]
pub fn day_words(day: &Day) -> String {
    if !day.is_known {
        return format!("{}: nothing is known", day.date);
    }
    let words = |counts: Counts, what: &str, well: &str| {
        let each =
            [(counts.well, well), (counts.partial, "partial"), (counts.failed, "failed"), (counts.missed, "missed")];
        let each: Vec<String> =
            each.iter().filter(|(count, _)| *count > 0).map(|(count, how)| format!("{count} {how}")).collect();
        (!each.is_empty()).then(|| format!("{what}: {}", each.join(", ")))
    };
    let both = [words(day.backups, "backups", "complete"), words(day.drills, "drills", "passed")];
    let both: Vec<String> = both.into_iter().flatten().collect();
    format!("{}: {}", day.date, if both.is_empty() { "nothing was due".to_owned() } else { both.join("; ") })
}

/// A bar a day; below it a mark where a drill ran.
pub fn strip(html: &mut Html, days: &[Day], class: &str) {
    let view = format!("0 0 {} 30", days.len() * DAY_WIDTH);
    let label = strip_words(days);
    let attributes = [
        ("class", class),
        ("viewBox", &*view),
        ("preserveAspectRatio", "none"),
        ("role", "img"),
        ("aria-label", &label),
    ];
    html.el("svg", &attributes, |html| {
        for (place, day) in days.iter().enumerate() {
            let left = place * DAY_WIDTH;
            html.el("g", &[], |html| {
                html.leaf("title", &[], &day_words(day));
                backups_of(html, day.kind(), left);
                drills_of(html, day, left);
            });
        }
    });
}

fn backups_of(html: &mut Html, kind: DayKind, left: usize) {
    match kind {
        DayKind::Well => rect(html, "well", left + 1, 1, 8, 18),
        DayKind::Mixed => {
            rect(html, "mixed", left + 1, 1, 8, 7);
            rect(html, "well", left + 1, 10, 8, 9);
        }
        DayKind::Failed => {
            cross(html, left + 2, 1, 6, 9);
            rect(html, "failed", left + 1, 12, 8, 7);
        }
        DayKind::Missed => rect(html, "missed", left + 2, 2, 6, 16),
        DayKind::Quiet => rect(html, "quiet", left + 1, 16, 8, 3),
        DayKind::Unknown => rect(html, "nothing", left + 1, 17, 8, 2),
    }
}

fn drills_of(html: &mut Html, day: &Day, left: usize) {
    match day.drills.kind() {
        DayKind::Failed | DayKind::Mixed => cross(html, left + 2, 22, 6, 7),
        DayKind::Missed => rect(html, "missed", left + 3, 23, 4, 5),
        DayKind::Well => {
            let middle = left + 5;
            let path = format!("M{middle} 21L{} 25.5L{middle} 30L{} 25.5Z", left + 8, left + 2);
            html.leaf("path", &[("class", "passed"), ("d", &path)], "");
        }
        DayKind::Quiet | DayKind::Unknown => {}
    }
}

fn rect(html: &mut Html, class: &str, x: usize, y: usize, width: usize, height: usize) {
    let of = |number: usize| number.to_string();
    html.leaf(
        "rect",
        &[("class", class), ("x", &of(x)), ("y", &of(y)), ("width", &of(width)), ("height", &of(height))],
        "",
    );
}

fn cross(html: &mut Html, x: usize, y: usize, width: usize, height: usize) {
    let (right, bottom) = (x + width, y + height);
    html.leaf("path", &[("class", "cross"), ("d", &format!("M{x} {y}L{right} {bottom}M{right} {y}L{x} {bottom}"))], "");
}

/// What the marks of a strip mean.
pub fn strip_legend(html: &mut Html) {
    html.el("p", &[("class", "legend")], |html| {
        for (kind, words) in [
            (DayKind::Well, "as planned"),
            (DayKind::Mixed, "not all as planned"),
            (DayKind::Failed, "none complete"),
            (DayKind::Missed, "none began"),
            (DayKind::Quiet, "none was due"),
            (DayKind::Unknown, "not known"),
        ] {
            item(html, words, |html| backups_of(html, kind, 0));
        }
        let date = chrono::NaiveDate::default();
        for (drills, words) in [
            (Counts { well: 1, ..Counts::default() }, "drill passed"),
            (Counts { failed: 1, ..Counts::default() }, "drill failed"),
        ] {
            item(html, words, |html| {
                drills_of(html, &Day { date, is_known: true, backups: Counts::default(), drills }, 0);
            });
        }
    });
}

fn item(html: &mut Html, words: &str, draw: impl FnOnce(&mut Html)) {
    html.el("span", &[("class", "item")], |html| {
        html.el(
            "svg",
            &[("class", "key"), ("viewBox", "0 0 10 30"), ("preserveAspectRatio", "none"), ("aria-hidden", "true")],
            draw,
        );
        html.text(words);
    });
    html.text(" ");
}

/// The exposure over a window, leg by leg, against a limit. Gives the exposure at the drawing's top.
pub fn exposure(html: &mut Html, legs: &[Leg], window: Window, limit: Option<f64>, label: &str) -> f64 {
    let legs = coarse(legs);
    let seconds = |exposure: Exposure| exposure.duration().map(|duration| duration.as_secs_f64());
    let highest = legs.iter().filter_map(|leg| seconds(leg.ends)).fold(limit.unwrap_or(0.0), f64::max);
    // Room above the highest, and something to divide by.
    let top = (highest * 1.1).max(1.0);
    let span = (window.end - window.start).as_seconds_f64().max(1.0);
    let x = |moment: DateTime<Utc>| ((moment - window.start).as_seconds_f64() / span).clamp(0.0, 1.0) * EXPOSURE_WIDTH;
    let y = |seconds: f64| 100.0 - 100.0 * (seconds / top).min(1.0);
    let attributes = [
        ("class", "exposure"),
        ("viewBox", "0 0 1000 100"),
        ("preserveAspectRatio", "none"),
        ("role", "img"),
        ("aria-label", label),
    ];
    html.el("svg", &attributes, |html| {
        let (mut area, mut edge) = (String::new(), String::new());
        let begins = legs.first().map_or(EXPOSURE_WIDTH, |leg| x(leg.from));
        wide_rect(html, "before", 0.0, begins);
        for leg in &legs {
            let (left, right) = (x(leg.from), x(leg.to));
            match (seconds(leg.starts), seconds(leg.ends)) {
                (Some(low), Some(high)) => {
                    let (low, high) = (y(low), y(high));
                    // Writing to a String does not fail.
                    let _ = write!(area, "M{left:.1} 100L{left:.1} {low:.1}L{right:.1} {high:.1}L{right:.1} 100Z");
                    let _ = write!(
                        edge,
                        "{}{left:.1} {low:.1}L{right:.1} {high:.1}",
                        if edge.is_empty() { "M" } else { "L" }
                    );
                }
                _ => wide_rect(html, "unbounded", left, right),
            }
        }
        html.leaf("path", &[("class", "area"), ("d", &area)], "");
        html.leaf("path", &[("class", "edge"), ("d", &edge)], "");
        if let Some(limit) = limit {
            let y = format!("{:.1}", y(limit));
            html.leaf("line", &[("class", "limit"), ("x1", "0"), ("x2", "1000"), ("y1", &y), ("y2", &y)], "");
        }
    });
    top
}

fn wide_rect(html: &mut Html, class: &str, left: f64, right: f64) {
    if right > left {
        let (x, width) = (format!("{left:.1}"), format!("{:.1}", right - left));
        html.leaf("rect", &[("class", class), ("x", &x), ("y", "0"), ("width", &width), ("height", "100")], "");
    }
}

/// The same with at most [`MAX_LEGS`] legs: of those that become one, its peak stays.
fn coarse(legs: &[Leg]) -> Vec<Leg> {
    let together = legs.len().div_ceil(MAX_LEGS).max(1);
    let one = |legs: &[Leg]| {
        let (first, last) = (legs.first()?, legs.last()?);
        let peak = legs.iter().map(|leg| leg.ends).max()?;
        let starts = if legs.len() == 1 { first.starts } else { peak };
        Some(Leg { from: first.from, to: last.to, starts, ends: peak })
    };
    legs.chunks(together).filter_map(one).collect()
}

/// The phases of a drill, one after the other, where `longest_seconds` would fill the whole width.
pub fn phases(html: &mut Html, phases: &[Phase], longest_seconds: f64) {
    let label: Vec<String> = phases.iter().map(phase_words).collect();
    let label = format!("phases: {}", label.join(", "));
    bar(html, &label, |html| {
        let mut left = 0.0;
        for (place, phase) in phases.iter().enumerate() {
            let width = share(phase.seconds, longest_seconds) * BAR_WIDTH;
            let class = if place % 2 == 0 { "phase" } else { "phase other" };
            let (x, wide) = (format!("{left:.2}"), format!("{width:.2}"));
            html.el("rect", &[("class", class), ("x", &x), ("y", "0"), ("width", &wide), ("height", "10")], |html| {
                html.leaf("title", &[], &phase_words(phase));
            });
            left += width;
        }
    });
}

/// A share of a whole, 0 to 1.
pub fn share_bar(html: &mut Html, label: &str, share: f64) {
    let width = format!("{:.2}", self::share(share, 1.0) * BAR_WIDTH);
    bar(html, label, |html| {
        html.leaf("rect", &[("class", "phase"), ("x", "0"), ("y", "0"), ("width", &width), ("height", "10")], "");
    });
}

fn bar(html: &mut Html, label: &str, draw: impl FnOnce(&mut Html)) {
    let attributes = [
        ("class", "bar"),
        ("viewBox", "0 0 100 10"),
        ("preserveAspectRatio", "none"),
        ("role", "img"),
        ("aria-label", label),
    ];
    html.el("svg", &attributes, |html| {
        html.leaf("rect", &[("class", "track"), ("x", "0"), ("y", "0"), ("width", "100"), ("height", "10")], "");
        draw(html);
    });
}

/// `fetch 8.2s`.
#[must_use]
pub fn phase_words(phase: &Phase) -> String {
    format!("{} {}", phase.name, human_seconds(phase.seconds))
}

/// What part of the whole a number is; records are read from a vault, and may hold any number.
#[must_use]
pub fn share(part: f64, whole: f64) -> f64 {
    let share = part / whole;
    if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::objectives::{Basis, exposure_legs};
    use crate::evidence::samples::*;

    #[test]
    fn peaks_stay_where_there_is_no_room_for_every_leg() {
        let points = healthy().points();
        let window = Window::before(now(), hours(60));
        let legs = exposure_legs(&points, Basis::Available, window);
        assert_eq!(coarse(&legs), legs);
        let many: Vec<Leg> = std::iter::repeat_n(legs, 100).flatten().collect();
        let fewer = coarse(&many);
        assert!(fewer.len() <= MAX_LEGS && many.len() > MAX_LEGS);
        let peak = |legs: &[Leg]| legs.iter().map(|leg| leg.ends).max();
        assert_eq!(peak(&fewer), peak(&many));
    }

    #[test]
    fn no_number_leaves_the_drawing() {
        for seconds in [f64::NAN, f64::INFINITY, -4.0, 1e300] {
            let mut html = Html::default();
            phases(&mut html, &[Phase { name: "fetch".to_owned(), seconds }], 10.0);
            share_bar(&mut html, "", seconds);
            assert!(!html.as_str().contains("NaN") && !html.as_str().contains("inf\""), "{}", html.as_str());
        }
    }

    #[test]
    fn a_window_without_a_backup_is_drawn_as_such() {
        let mut html = Html::default();
        let window = Window::before(now(), hours(10));
        let top = exposure(&mut html, &exposure_legs(&[], Basis::Available, window), window, Some(100.0), "x");
        assert!((109.0..111.0).contains(&top));
        assert!(html.as_str().contains("class=\"unbounded\" x=\"0.0\" y=\"0\" width=\"1000.0\""), "{}", html.as_str());
    }
}
