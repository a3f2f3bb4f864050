//! What is drawn before a year begins: schedules, retentions, and how bad the weather gets.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use super::dice::Dice;
use crate::config::Settings;

/// The jobs, and the machine that each is backed up on.
pub(super) const JOBS: [(&str, usize); 3] = [("shop", 0), ("mail", 1), ("blog", 1)];

/// How dense a simulation is: a storm packs everything into weeks, a year must not take minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Some backups a day, some days of retention.
    Dense,
    /// Some backups a week, some weeks of retention.
    Sparse,
}

const DENSE: [&str; 5] = ["15 */12 * * *", "0 3 * * *", "30 4,16 * * *", "45 */8 * * *", "0 1,9,22 * * *"];
const SPARSE: [&str; 3] = ["30 4 */2 * *", "0 2 * * MON,THU", "15 1 * * TUE,THU,SAT"];
const SPARSE_PRUNES: [&str; 3] = ["0 5 * * SUN", "0 6 * * WED", "30 5 */5 * *"];
const ZONES: [&str; 3] = ["UTC", "Europe/Berlin", "Pacific/Auckland"];

/// How much goes wrong: each once in so many times, 0 for never.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// Verbs of which a call to the store fails.
    pub(super) failures: u64,
    /// Verbs that are killed.
    pub(super) kills: u64,
    /// Verbs in the middle of which something else happens: the other host prunes, the clock jumps, time goes by.
    pub(super) meanwhile: u64,
    /// Hours at which a clock jumps.
    pub(super) jumps: u64,
    /// Hours at which something in the store breaks.
    pub(super) damage: u64,
    /// Hours at which somebody prunes all jobs by hand, on either host.
    pub(super) takeovers: u64,
}

pub(super) struct Rules {
    pub(super) seed: u64,
    pub(super) jobs: usize,
    pub(super) weather: Weather,
    /// Hours in which nothing runs at all.
    pub(super) paused: Range<u64>,
    /// A job, and hours in which its source cannot be read.
    pub(super) source_gone: (usize, Range<u64>),
}

impl Rules {
    pub(super) fn draw(seed: u64, days: u64, jobs: usize, weather: Weather) -> Self {
        let mut dice = Dice::of(seed, 0, "rules");
        let month = (days / 12).clamp(5, 30);
        let mut month_of = |from: u64| {
            let first = dice.between(days * from / 10, days * (from + 2) / 10);
            first * 24..(first + month) * 24
        };
        let (paused, gone) = (month_of(2), month_of(6));
        Self { seed, jobs, weather, paused, source_gone: (dice.place(jobs), gone) }
    }

    /// A config with which the promise can be kept.
    pub(super) fn settings(&self, recipient: &str, sources: &Path, pace: Pace) -> Settings {
        for attempt in 0..1000 {
            let mut dice = Dice::of(self.seed, attempt, "config");
            let mut text = format!(
                "timezone = \"{}\"\nstate_dir = \"state\"\n[vault.main]\nurl = \"/nowhere\"\nrecipients = \
                 [\"{recipient}\"]\ncompression = 1\n",
                dice.one_of(&ZONES)
            );
            for (job, _) in &JOBS[..self.jobs] {
                let (schedule, hours) = match pace {
                    Pace::Dense => (dice.one_of(&DENSE), 1),
                    Pace::Sparse => (dice.one_of(&SPARSE), 6),
                };
                let keep = dice.between(20, 72) * hours;
                let delete = keep + dice.between(60, 200) * hours;
                let prune = match pace {
                    Pace::Dense if dice.once_in(3) => "prune = { schedule = \"10 */9 * * *\" }".to_owned(),
                    Pace::Sparse if !dice.once_in(4) => {
                        format!("prune = {{ schedule = \"{}\" }}", dice.one_of(&SPARSE_PRUNES))
                    }
                    _ => String::new(),
                };
                let daily = if dice.once_in(2) { format!(", daily = {}", dice.between(1, 4)) } else { String::new() };
                let weekly = if dice.once_in(3) { ", weekly = 1" } else { "" };
                let last_good = dice.one_of(&["keep", "erase"]);
                write!(
                    text,
                    "[job.{job}]\nschedule = \"{schedule}\"\nretention = {{ keep_at_least = \"{keep}h\", delete_after = \
                     \"{delete}h\"{daily}{weekly}, last_good = \"{last_good}\" }}\nobjectives = {{ rpo = \"30d\" }}\n{prune}\n\
                     [job.{job}.source.files]\nkind = \"files\"\npaths = [\"{}\"]\n",
                    sources.join(job).display()
                )
                .unwrap();
            }
            let settings = Settings::parse(&text, Path::new("/etc/lifeboat/lifeboat.toml")).unwrap();
            let now = super::start();
            if settings.jobs.values().all(|job| settings.lead_of(job, now).fits(&job.retention)) {
                return settings;
            }
        }
        panic!("no config fits");
    }
}
