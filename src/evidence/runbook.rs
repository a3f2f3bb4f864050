//! A job's runbook as Markdown: something to print, to lay beside the identity, and to type from when the host is gone. Names,
//! places and commands are those of the config, times those of the last drill. It renders facts, and holds no secret.
//!
//! A line to write on stands where only people know: who decides, who holds which key.

mod commands;
mod shelf;

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::config::{JobSettings, Secret, SourceKind, SourceSettings, VaultSettings, VaultUrl};
use crate::domain::quantity::{exact_duration, human_bytes, human_seconds};
use crate::domain::record::DrillOutcome;
use crate::operations::runbook::RunbookFacts;

use commands::{Way, databases};

/// Where something is written by hand.
const BLANK: &str = "______________________";
/// The heading of what is typed where config and state are; everything before it needs neither.
pub const ON_THE_HOST: &str = "## On the host that backs up";

/// What goes onto the paper besides how each job is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The runbooks for everything else that may happen.
    Everything,
    /// Nothing.
    Restore,
}

/// The whole document, a part for each job, ending in a newline. The same facts give the same text.
#[must_use]
pub fn render(jobs: &[RunbookFacts], extent: Extent, generated: DateTime<Utc>, tool: &str) -> String {
    let mut text = String::new();
    for (index, facts) in jobs.iter().enumerate() {
        if index > 0 {
            text.push_str("\n---\n\n");
        }
        Page { text: &mut text, facts }.write(generated, tool);
    }
    if let (Extent::Everything, Some(first)) = (extent, jobs.first()) {
        shelf(&mut text, first, jobs);
    }
    text
}

/// What else may happen, once for all jobs: with the names of the first.
fn shelf(text: &mut String, first: &RunbookFacts, jobs: &[RunbookFacts]) {
    text.push_str("\n---\n\n# When something else happens\n\n");
    let _ = writeln!(
        text,
        "Where these say *on the host that backs up*: `export LIFEBOAT_CONFIG={}` first. Where they name a vault in a bucket: step 1 of \
         the restore first, which says how it is reached.",
        commands::quoted(&first.config.to_string_lossy())
    );
    if let [_, others @ ..] = jobs
        && !others.is_empty()
    {
        let others: Vec<String> = others.iter().map(|facts| format!("`JOB={}`", facts.job.name)).collect();
        let _ = writeln!(text, "\nThey name job {}. The others: {}.", first.job.name, others.join(", "));
    }
    for (_, page) in shelf::runbooks(first) {
        text.push('\n');
        text.push_str(&page);
    }
}

/// The same for programs.
#[must_use]
pub fn document(jobs: &[RunbookFacts], generated: DateTime<Utc>, tool: &str) -> Value {
    let job = |facts: &RunbookFacts| {
        json!({
            "job": facts.job.name,
            "config": facts.config.to_string_lossy(),
            "settings": facts.as_json,
            "vault_id": facts.vault_id,
            "trust": facts.trust,
            "host": facts.host_name,
            "recipients": facts.holders.iter().map(|holder| json!({ "recipient": holder.recipient, "proven": holder.proven })).collect::<Vec<_>>(),
            "newest_backup": facts.newest.as_ref().map(|row| &row.id),
            "recovery_point": facts.newest.as_ref().map(|row| row.recovery_point),
            "largest_logical_bytes": facts.largest_bytes,
            "last_drill": facts.last_drill.as_ref().map(|row| &row.drill),
            "vault_silent": facts.silent,
            "markdown": render(std::slice::from_ref(facts), Extent::Restore, generated, tool),
            "runbooks": shelf::runbooks(facts).into_iter().map(|(name, text)| json!({ "name": name, "markdown": text })).collect::<Vec<_>>(),
        })
    };
    json!({ "schema_version": 1, "generated": generated, "tool": tool, "jobs": jobs.iter().map(job).collect::<Vec<_>>() })
}

/// The part of one job.
struct Page<'p> {
    text: &'p mut String,
    facts: &'p RunbookFacts,
}

impl Page<'_> {
    fn write(&mut self, generated: DateTime<Utc>, tool: &str) {
        let job = &self.facts.job.name;
        let host = self.facts.host_name.as_ref().map_or_else(String::new, |name| format!(" on {name}"));
        self.line(&format!("# Runbook: job {job}"));
        self.line("");
        self.line(&format!(
            "Printed {} by {tool}{host}. It holds no secret. Keep it on paper, beside the identity; print it again when the \
             config changes, and after each drill: `lifeboat runbook {job}`.",
            moment(generated)
        ));
        if let Some(why) = &self.facts.silent {
            self.line("");
            self.line(&format!(
                "**The vault did not answer when this was printed** ({}). What follows is what this host remembers of it.",
                one_line(why)
            ));
        }
        self.line("");
        self.line(&format!("**Who decides:** {BLANK}   **Whom to tell:** {BLANK}"));
        self.places();
        self.keys();
        self.contents();
        self.times();
        self.bare_host();
        for source in &self.facts.job.sources {
            self.part(source);
        }
        self.back_to_normal();
        self.on_the_host();
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        self.line("");
        self.line(heading);
        self.line("");
    }

    fn row(&mut self, what: &str, value: &str) {
        self.line(&format!("| {what} | {value} |"));
    }

    /// Commands that are typed as they stand.
    fn shell(&mut self, lines: &[String]) {
        self.line("");
        self.line("```sh");
        for line in lines {
            self.line(line);
        }
        self.line("```");
    }

    /// What is typed elsewhere, or when there is something to fill in.
    fn example(&mut self, lines: &[String]) {
        self.line("");
        self.line("```text");
        for line in lines {
            self.line(line);
        }
        self.line("```");
    }

    fn places(&mut self) {
        let facts = self.facts;
        self.heading("## Where things are");
        self.row("what", "where");
        self.row("---", "---");
        self.row("config", &code(&facts.config.to_string_lossy()));
        self.row("state folder (host key, catalog)", &code(&facts.state_dir.to_string_lossy()));
        self.vault("vault", &facts.vault);
        if let Some(id) = &facts.vault_id {
            self.row("vault's id", &code(id.as_str()));
        }
        self.row("whom to trust (public key)", &facts.trust.as_deref().map_or_else(|| BLANK.to_owned(), code));
        if let Some(copy) = &facts.copy {
            self.vault("copy", copy);
        }
        let job = &facts.job;
        for source in &job.sources {
            self.row(&format!("source `{}`", source.name), &source_place(source));
        }
        for (what, when) in schedules(job) {
            self.row(
                what,
                &when.map_or_else(|| "none".to_owned(), |when| format!("{} ({})", code(&when), facts.timezone)),
            );
        }
        let promised =
            |promised: Option<std::time::Duration>| promised.map_or_else(|| "none".to_owned(), exact_duration);
        self.row("RTO, RPO promised", &format!("{}, {}", promised(job.objectives.rto), promised(job.objectives.rpo)));
        let (keep, delete) = (exact_duration(job.retention.keep_at_least), exact_duration(job.retention.delete_after));
        self.row("kept at least, gone after", &format!("{keep}, {delete}"));
    }

    fn vault(&mut self, what: &str, vault: &VaultSettings) {
        self.row(&format!("{what} `{}`", vault.name), &code(&vault.url.to_string()));
        let VaultUrl::S3 { .. } = vault.url else { return };
        let s3 = &vault.s3;
        let from_elsewhere = || format!("not in the config (the environment, a profile, or AWS's default): {BLANK}");
        self.row(&format!("{what}'s region"), &s3.region.as_deref().map_or_else(from_elsewhere, code));
        self.row(&format!("{what}'s endpoint"), &s3.endpoint.as_deref().map_or_else(from_elsewhere, code));
        let keys = match (&s3.keys, &s3.profile) {
            (Some(keys), _) => format!("{} and {}", keys.access_key, keys.secret_key),
            (None, Some(profile)) => format!("profile {}", code(profile)),
            (None, None) => "the environment, a profile, or the machine's role".to_owned(),
        };
        self.row(
            &format!("{what}'s keys on this host"),
            &format!("{}; a restore needs some that may list and read, they are kept at: {BLANK}", one_line(&keys)),
        );
        if let Some(ca) = &s3.ca {
            let copied = "a copy of this file is needed elsewhere, and is kept at";
            self.row(&format!("{what}'s authority"), &format!("{}; {copied}: {BLANK}", code(&ca.to_string_lossy())));
        }
    }

    fn keys(&mut self) {
        let facts = self.facts;
        self.heading("## Who can open it");
        self.line("| sealed to | opened in a drill that passed | who holds the identity, and where |");
        self.line("|---|---|---|");
        for holder in &facts.holders {
            let proven = holder.proven.map_or_else(|| "**never**".to_owned(), moment);
            self.line(&format!("| {} | {proven} | {BLANK} |", code(&holder.recipient)));
        }
        self.line("");
        if let Some(secret) = facts.job.drill.as_ref().and_then(|drill| drill.identity.as_ref()) {
            self.line(&format!("For drills the config names {}.", one_line(&secret.to_string())));
            self.line("");
        }
        self.line(&format!(
            "The vault key says which hosts may write; no restore needs it. Who holds it, and where: {BLANK}"
        ));
    }

    fn contents(&mut self) {
        let facts = self.facts;
        self.heading("## What is in it");
        let Some(newest) = &facts.newest else {
            self.line("No complete backup is known: there is nothing to restore yet.");
            return;
        };
        self.line(&format!(
            "The newest complete backup when this was printed: `{}`, number {}, with the data of {}.",
            newest.id,
            newest.sequence,
            moment(newest.recovery_point)
        ));
        if let Some(bytes) = facts.largest_bytes {
            self.line(&format!("A restore needs room for {} (the largest one).", human_bytes(bytes)));
        }
        self.line("");
        self.line("| source | kind | data |");
        self.line("|---|---|---|");
        for source in &newest.summary.sources {
            let (name, kind) = (code(source.name.as_str()), one_line(&source.kind));
            self.line(&format!("| {name} | {kind} | {} |", human_bytes(source.logical_bytes)));
        }
    }

    fn times(&mut self) {
        let facts = self.facts;
        self.heading("## How long it takes");
        let Some(row) = facts.last_passed.as_ref().or(facts.last_drill.as_ref()) else {
            self.line("No drill ever ran: nobody knows how long a restore takes, or whether there is one.");
            return;
        };
        let drill = &row.drill;
        let (verdict, what) = match drill.outcome {
            DrillOutcome::Passed => ("passed", "a restore with all checks took"),
            DrillOutcome::Failed => ("**failed**, as all did: this is no proof", "until it failed it took"),
        };
        self.line(&format!(
            "The drill of {} {verdict}: {what} {} for {}, on {} ({} cores). People's time (noticing, deciding, switching over) \
             comes on top.",
            moment(drill.finished),
            human_seconds(drill.rto_seconds),
            human_bytes(drill.restored_bytes),
            one_line(&row.host),
            drill.environment.cores
        ));
        let later = facts.last_drill.as_ref().filter(|last| last.id != row.id);
        if let Some(last) = later {
            self.line("");
            self.line(&format!("**The last drill, of {}, failed.**", moment(last.drill.finished)));
        }
        self.line("");
        self.line("| phase | took |");
        self.line("|---|---|");
        for phase in &drill.phases {
            self.line(&format!("| {} | {} |", one_line(&phase.name), human_seconds(phase.seconds)));
        }
    }

    fn bare_host(&mut self) {
        let facts = self.facts;
        let way = Way::of(facts);
        let took = facts.last_passed.as_ref().map_or_else(
            || "not known, no drill ever passed".to_owned(),
            |row| format!("{} by the last drill, checks included", human_seconds(row.drill.rto_seconds)),
        );
        self.heading("## Restore everything on a bare host");
        self.line("**When:** the host is lost, or must not be trusted. **Where am I?** On any machine with `lifeboat`, the identity file and a");
        self.line(&format!("way to the vault; no config is needed. Nothing here changes the vault. **Time:** {took}."));
        self.line("");
        self.line("1. Say where things are. `TARGET` must be new or empty. One bash session for all that follows.");
        if !way.rescue.is_empty() {
            self.line(
                "   The keys to the bucket first, where the machine has none of its own: `export AWS_ACCESS_KEY_ID=…`,",
            );
            self.line("   `export AWS_SECRET_ACCESS_KEY=…`. The config that is written here says how the bucket is reached, and no more.");
        }
        if let VaultUrl::Folder(_) = facts.vault.url {
            self.line("   `VAULT` is where it was on the host that is lost: name the place where its disk, or the copy, is now.");
        }
        self.shell(&way.variables());
        self.step("2. See what there is. Expect the newest backup last; `list` says how old its data is.");
        self.shell(&[format!("lifeboat list {}", way.flags)]);
        self.step("3. Restore the newest complete one. Expect `restored`, and a folder for each source.");
        let job = &facts.job.name;
        self.shell(&[
            format!("lifeboat restore {job} --to \"$TARGET\" {}", way.flags),
            "ls -la \"$TARGET\"".to_owned(),
        ]);
        self.step("   An older one: in the place of the job's name, its moment in UTC, or its id.");
        self.example(&[format!("lifeboat restore {job}@2026-11-22T02:00 --to DIR …")]);
        self.line("");
        self.line("4. Verify: look at it as a user would, and at the newest of what should be there. Then stop the service, move the data in,");
        self.line("   start it. Go back: keep what was there before until you are sure; the vault is as it was.");
        if let Some(copy) = &facts.copy {
            self.step("   *The vault is gone, or cannot be opened?* The copy has the same backups, for the same keys. Say, and go on with step 2:");
            self.example(&[format!("VAULT={}", commands::quoted(&copy.url.to_string()))]);
        }
    }

    /// A numbered step, or what belongs to one.
    fn step(&mut self, words: &str) {
        self.line("");
        self.line(words);
    }

    /// One source alone, and a part of it.
    fn part(&mut self, source: &SourceSettings) {
        let (job, name, way) = (&self.facts.job.name, &source.name, Way::of(self.facts));
        let flags = &way.flags;
        match &source.kind {
            SourceKind::Files(files) => {
                self.heading(&format!("## One file of `{name}`"));
                let first = files.paths.first().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
                let glob = commands::as_glob(first.trim_start_matches('/'));
                self.line("In the session of step 1. The first two write down what there is, and show the beginning. In the third put the path that you");
                self.line("look for, without its leading slash, in the place of the glob.");
                self.shell(&[
                    format!("lifeboat show {job} --files {flags} > contents-{job}.txt"),
                    format!("grep -m 5 -F {} contents-{job}.txt", commands::quoted(first.trim_start_matches('/'))),
                    format!(
                        "lifeboat restore {job} --source {name} --path {} --to \"$TARGET-{name}\" {flags}",
                        commands::quoted(&glob)
                    ),
                ]);
            }
            SourceKind::Sqlite(sqlite) => {
                let file = sqlite.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                self.heading(&format!("## One table of `{name}` (SQLite)"));
                self.line("In the session of step 1. Expect `ok`, then the names of the tables; `.dump TABLE` writes one as SQL.");
                let file = format!("\"$TARGET-{name}/{name}/\"{}", commands::quoted(&file));
                self.shell(&[
                    format!("lifeboat restore {job} --source {name} --to \"$TARGET-{name}\" {flags}"),
                    format!("sqlite3 {file} 'pragma integrity_check' .tables"),
                ]);
            }
            SourceKind::Postgres(postgres) => {
                self.heading(&format!("## The database of `{name}` (PostgreSQL)"));
                self.line(&format!(
                    "It was {}. In the session of step 1, on a server of the same major version or a newer one, with its extensions installed; \
                     the url names its socket's folder. `--globals` makes the roles that are missing. A server that wants a password: \
                     `--password-file FILE`.",
                    code(&postgres.address.to_string())
                ));
                let databases = databases(source, self.facts.newest.as_ref());
                let restores = databases.iter().map(|(name, url)| {
                    format!("lifeboat restore {job} --source {name} --into {} --globals {flags}", commands::quoted(url))
                });
                self.shell(&restores.collect::<Vec<_>>());
                let Some((name, _)) = databases.first() else { return };
                self.line("");
                self.line("One table: its rows, into a database beside. Put `schema.table` in the place of the glob.");
                let beside = commands::url_of("lifeboat_one_table");
                self.shell(&[
                    format!(
                        "psql {} --command 'create database lifeboat_one_table'",
                        commands::quoted(&commands::url_of("postgres"))
                    ),
                    format!(
                        "lifeboat restore {job} --source {name} --into {} --path '*.*' --no-owner {flags}",
                        commands::quoted(&beside)
                    ),
                    format!(
                        "psql {} --command 'select schemaname, relname, n_live_tup from pg_stat_user_tables'",
                        commands::quoted(&beside)
                    ),
                ]);
            }
        }
    }

    fn back_to_normal(&mut self) {
        let facts = self.facts;
        let lost = facts.host_name.as_deref().unwrap_or("NAME");
        self.heading("## Back up again from the new host");
        self.line("Put the config back (a backup has it, without secrets: `lifeboat show BACKUP --json` with the identity) and type `lifeboat init`");
        self.line("there: it makes a key and prints what to type where the vault key is. Then revoke the lost host.");
        self.example(&[
            format!("lifeboat init --config {}", commands::quoted(&facts.config.to_string_lossy())),
            format!("lifeboat host add {lost}-2 --key RWQ… --jobs {} --vault-key FILE", facts.job.name),
            format!("lifeboat host revoke {lost} --vault-key FILE"),
        ]);
    }

    fn on_the_host(&mut self) {
        let (job, config) = (&self.facts.job.name, self.facts.config.to_string_lossy());
        let identity = commands::identity_file(&self.facts.job);
        self.heading(ON_THE_HOST);
        self.line("**Where am I?** On the host with the config, as the user that backs up. **Is something wrong?** The first two say what, and");
        self.line("what to type.");
        self.shell(&[
            format!("export LIFEBOAT_CONFIG={}", commands::quoted(&config)),
            format!("lifeboat status {job}"),
            format!("lifeboat doctor {job} || true"),
            format!("lifeboat backup {job} --verbose"),
        ]);
        self.line("");
        self.line("Once a quarter, with the identity brought along, and taken away again. Expect `PASSED`, and every recipient above opened once.");
        self.shell(&[
            format!("lifeboat drill {job} --identity {}", commands::quoted(&identity)),
            format!("lifeboat check {job}"),
            format!("lifeboat report {job} --since 90d --output report-{job}.md"),
            format!("lifeboat runbook {job} --output runbook-{job}.md"),
        ]);
        self.line("");
        self.line(&format!("**Last rehearsed from this paper:** {BLANK} **by** {BLANK}"));
    }
}

/// What runs by itself, and when.
fn schedules(job: &JobSettings) -> [(&'static str, Option<String>); 5] {
    let text = |schedule: Option<&crate::domain::schedule::Schedule>| schedule.map(ToString::to_string);
    [
        ("backups", Some(job.schedule.to_string())),
        ("drills", text(job.drill.as_ref().and_then(|drill| drill.schedule.as_ref()))),
        ("checks", text(job.check.as_ref())),
        ("prunes of their own", text(job.prune.schedule())),
        ("copies", text(job.copy.as_ref().and_then(|copy| copy.schedule.as_ref()))),
    ]
}

fn source_place(source: &SourceSettings) -> String {
    match &source.kind {
        SourceKind::Files(files) => {
            let paths: Vec<String> = files.paths.iter().map(|path| code(&path.to_string_lossy())).collect();
            paths.join(", ")
        }
        SourceKind::Sqlite(sqlite) => code(&sqlite.path.to_string_lossy()),
        SourceKind::Postgres(postgres) => {
            let password = postgres.password.as_ref().map(Secret::to_string);
            let password = password.map_or_else(String::new, |place| format!(", password in {}", one_line(&place)));
            format!("{}{password}", code(&postgres.address.to_string()))
        }
    }
}

fn moment(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// A word of the config in a cell, as it stands.
fn code(text: &str) -> String {
    let mut cell = String::new();
    // Writing to a String does not fail.
    let _ = write!(cell, "`{}`", one_line(text).replace('`', "'"));
    cell
}

/// Text from outside stays on its line, and in its cell.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('|', "\\|")
}
