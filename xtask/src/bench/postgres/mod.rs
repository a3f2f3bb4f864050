//! `cargo xtask bench postgres`: lifeboat beside `pg_dump -Fc | zstd | age` and `pg_restore -j2`, on the same database in the
//! same run, and beside what the server itself can give. It asserts nothing about figures; it fails where a tool failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::server::Server;
use self::sql::Chat;
use super::page;
use super::scripts::{self, Scripts, content};
use super::table::{RowId, SUBJECT, Sheet, Target, Unit};

mod server;
mod sql;

const MIB: f64 = 1_048_576.0;
/// Rounds unless told otherwise.
const ROUNDS: usize = 3;
/// Memory that a backup or a restore may take; the rows of this database are small.
const PEAK_MIB: f64 = 300.0;
/// The mark of this part on the page.
const PART: &str = "postgres";

const PIPELINE: &str = "pg_dump, zstd, age";
const FLOOR: &str = "COPY into nowhere";
const COLUMNS: [&str; 3] = [SUBJECT, PIPELINE, FLOOR];
/// The columns' numbers.
const OURS: usize = 0;
const THEIRS: usize = 1;
const NOWHERE: usize = 2;

/// How the bench is asked for.
pub(crate) const USAGE: &str = "\
bench postgres takes
  --quick              a tiny database: does it work?
  --rounds N           medians of N (3)
  --lifeboat FILE      this program instead of a release build made now
  --output FILE        fill the part between marks of this page (full scale only)";

const PREPARE: &str = "\"$LIFEBOAT\" init . && printf '%s\\n' \"$JOB\" >> lifeboat.toml";
const BACKUP: &str = "\"$LIFEBOAT\" backup";
const PIPELINE_PREPARE: &str = "age-keygen -o key 2> /dev/null && age-keygen -y key > recipient && mkdir repo";
const PIPELINE_BACKUP: &str =
    "pg_dump -h \"$TREE\" -U postgres -Fc -Z0 chat | zstd -q -3 -T0 | age -R recipient > repo/archive";
const PIPELINE_RESTORE: &str = "age -d -i key repo/archive | zstd -qd > staged && \
    pg_restore -h \"$TREE\" -U postgres -j2 --create -d postgres staged && rm staged";
/// The same rows in two streams, halves of the large table first.
const FLOOR_COPY: &str = "copy() { psql -X -q -h \"$TREE\" -U postgres -d chat -c \"copy ($1) to stdout\" > /dev/null; }; \
    middle=$(psql -X -q -A -t -h \"$TREE\" -U postgres -d chat -c \"select relpages / 2 from pg_class where relname = 'messages'\"); \
    { copy \"select * from messages where ctid < '($middle,0)'\" && copy 'select * from users' && copy 'select * from phrases'; } & \
    copy \"select * from messages where ctid >= '($middle,0)'\" && copy 'select * from sessions'; wait $!";

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    chat: Chat,
    rounds: usize,
    lifeboat: Option<PathBuf>,
    output: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments after `bench postgres`.
    pub(crate) fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options = Self { chat: Chat::FULL, rounds: ROUNDS, lifeboat: None, output: None };
        if args.contains(&"--quick") {
            options.chat = Chat::QUICK;
            options.rounds = 1;
        }
        let mut flags = args.iter();
        while let Some(flag) = flags.next() {
            let mut value = || flags.next().copied().ok_or_else(|| format!("{flag} wants a value\n{USAGE}"));
            match *flag {
                "--quick" => {}
                "--rounds" => options.rounds = super::number(value()?)?,
                "--lifeboat" => options.lifeboat = Some(PathBuf::from(value()?)),
                "--output" => options.output = Some(PathBuf::from(value()?)),
                other => return Err(format!("what is {other}?\n{USAGE}")),
            }
        }
        if options.output.is_some() && (options.chat != Chat::FULL || options.lifeboat.is_some()) {
            return Err("--output is for this commit at full scale: leave out --quick and --lifeboat".to_owned());
        }
        Ok(options)
    }
}

/// Runs the bench, prints the table, and fills the page where told to.
pub(crate) fn run(root: &Path, options: &Options) -> Result<String, String> {
    crate::test::install(&[("time", "time"), ("zstd", "zstd"), ("age", "age")])?;
    server::install()?;
    let lifeboat = match &options.lifeboat {
        Some(lifeboat) => std::path::absolute(lifeboat).map_err(|error| format!("{}: {error}", lifeboat.display()))?,
        None => {
            crate::test::cargo(root, &["build", "--release", "--quiet"])?;
            root.join("target/release/lifeboat")
        }
    };
    let place = root.join("target/bench/postgres");
    scripts::remove(&place)?;
    fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    let path = server::path()?;
    let facts = page::facts(root, &place, options.rounds, &versions(&lifeboat, &path)?);
    let bench = Bench { place, lifeboat, path, rounds: options.rounds, chat: options.chat };
    let sheet = bench.measure()?;
    scripts::remove(&bench.place)?;
    let table = sheet.markdown().replace(&root.display().to_string(), ".");
    let block = format!("{}\n\n{facts}\n", table.trim());
    println!("\n## A PostgreSQL database\n\n{block}");
    if let Some(output) = &options.output {
        let output = root.join(output);
        let failed = |why: String| format!("{}: {why}", output.display());
        let text = fs::read_to_string(&output).map_err(|error| failed(error.to_string()))?;
        let text = page::fill(&text, PART, &block).map_err(failed)?;
        fs::write(&output, text).map_err(|error| failed(error.to_string()))?;
    }
    Ok("ok: 1 part".to_owned())
}

/// One run.
struct Bench {
    place: PathBuf,
    lifeboat: PathBuf,
    path: std::ffi::OsString,
    rounds: usize,
    chat: Chat,
}

/// The rows of the table.
struct Rows {
    dump: RowId,
    dump_to_floor: RowId,
    stored: RowId,
    restore: RowId,
    appended: RowId,
    updated: RowId,
    day: RowId,
    day_seconds: RowId,
    peak: RowId,
}

impl Rows {
    fn of(sheet: &mut Sheet) -> Self {
        let mut row = |what: &str, unit, target| sheet.row(what, unit, target);
        Self {
            dump: row("dump", Unit::Seconds, Target::TimesOf(PIPELINE, 0.7)),
            dump_to_floor: row("the same, held against the floor", Unit::Seconds, Target::TimesOf(FLOOR, 1.6)),
            stored: row("stored by it", Unit::StoredMib, Target::TimesOf(PIPELINE, 1.05)),
            restore: row("restore to a complete database", Unit::Seconds, Target::TimesOf(PIPELINE, 0.65)),
            day_seconds: row("next day's two dumps", Unit::Seconds, Target::Nothing),
            appended: row("new after 2 % messages were appended, of the first", Unit::Percent, Target::Nothing),
            updated: row("new after 1 % of the sessions were updated, of the first", Unit::Percent, Target::Nothing),
            day: row("new by both, of the first", Unit::Percent, Target::AtMost(8.0)),
            peak: row("peak memory of all of these", Unit::PeakMib, Target::AtMost(PEAK_MIB)),
        }
    }
}

impl Bench {
    /// A new database for each round: the day's changes are made to one that was just filled.
    fn measure(&self) -> Result<Sheet, String> {
        let mut sheet = Sheet::new(COLUMNS.to_vec());
        let rows = Rows::of(&mut sheet);
        let mut database_bytes = 0.0;
        for round in 1..=self.rounds {
            println!("round {round} of {}: a database of {} messages", self.rounds, self.chat.messages);
            let source = Server::start(&self.place.join("source"))?;
            source.sql("postgres", "create database chat")?;
            source.sql("chat", &self.chat.create())?;
            source.sql("chat", "vacuum")?;
            let size = source.sql("chat", "select pg_database_size('chat')")?;
            database_bytes = size.trim().parse().map_err(|_| format!("{size:?} is no size"))?;
            self.round(&mut sheet, &rows, &source, round)?;
        }
        sheet.note(format!(
            "The database has {:.0} MiB. Both servers have the settings of a drill's: nothing waits for the disk, and they share the \
             cores with the tools. *{FLOOR}* is the same rows by psql in two streams into /dev/null.",
            database_bytes / MIB
        ));
        sheet.note(
            "Lifeboat's restore ends with ANALYZE, and compares nothing; pg_restore's does not analyze. Memory is that of the tools, \
             not of the servers."
                .to_owned(),
        );
        Ok(sheet)
    }

    fn round(&self, sheet: &mut Sheet, rows: &Rows, source: &Server, round: usize) -> Result<(), String> {
        let url = |server: &Server| format!("postgres://postgres@/chat?host={}", server.socket().display());
        let job = super::rows::job(
            "keep_at_least = \"14d\", delete_after = \"60d\"",
            &format!("kind = \"postgres\"\nurl = \"{}\"", url(source)),
        );
        let ours = self.scripts(OURS, source, &job);
        let theirs = self.scripts(THEIRS, source, "");
        let nowhere = self.scripts(NOWHERE, source, "");
        [&ours, &theirs, &nowhere].iter().try_for_each(|scripts| scripts.fresh())?;
        ours.run(PREPARE)?;
        theirs.run(PIPELINE_PREPARE)?;
        // Everything into the cache once, for all alike.
        nowhere.run(FLOOR_COPY)?;

        println!("  dumps");
        sheet.add(rows.dump_to_floor, NOWHERE, nowhere.time(FLOOR_COPY)?.seconds);
        let cost = theirs.time(PIPELINE_BACKUP)?;
        sheet.add(rows.dump, THEIRS, cost.seconds);
        sheet.add(rows.peak, THEIRS, cost.peak_mib);
        sheet.add(rows.stored, THEIRS, content(&theirs.home.join("repo")).bytes as f64 / MIB);
        let vault = ours.home.join("vault");
        let empty = content(&vault).bytes;
        let cost = ours.time(BACKUP)?;
        sheet.add(rows.dump, OURS, cost.seconds);
        sheet.add(rows.dump_to_floor, OURS, cost.seconds);
        sheet.add(rows.peak, OURS, cost.peak_mib);
        let first = (content(&vault).bytes - empty).max(1);
        sheet.add(rows.stored, OURS, first as f64 / MIB);

        println!("  restores");
        let wanted = if round == 1 { Some(source.sql("chat", sql::FINGERPRINT)?) } else { None };
        for column in [THEIRS, OURS] {
            let target = Server::start(&self.place.join("target"))?;
            let cost = if column == OURS {
                let into = url(&target);
                let args = format!("restore bench --source source --into '{into}' --identity identity.txt --jobs 2");
                self.scripts(OURS, &target, &job).time(&format!("\"$LIFEBOAT\" {args}"))?
            } else {
                self.scripts(THEIRS, &target, "").time(PIPELINE_RESTORE)?
            };
            sheet.add(rows.restore, column, cost.seconds);
            sheet.add(rows.peak, column, cost.peak_mib);
            if let Some(wanted) = &wanted {
                let is = target.sql("chat", sql::FINGERPRINT)?;
                if is != *wanted {
                    return Err(format!("{} restored {is} where {wanted} was", COLUMNS[column]));
                }
            }
        }

        println!("  the next day");
        let mut new_bytes = 0;
        let mut seconds = 0.0;
        for (row, change) in [(rows.appended, self.chat.append()), (rows.updated, self.chat.update())] {
            source.sql("chat", &change)?;
            source.sql("chat", "vacuum")?;
            let before = content(&vault).bytes;
            let cost = ours.time(BACKUP)?;
            let new = content(&vault).bytes.saturating_sub(before);
            sheet.add(row, OURS, 100.0 * new as f64 / first as f64);
            sheet.add(rows.peak, OURS, cost.peak_mib);
            new_bytes += new;
            seconds += cost.seconds;
        }
        sheet.add(rows.day, OURS, 100.0 * new_bytes as f64 / first as f64);
        sheet.add(rows.day_seconds, OURS, seconds);
        Ok(())
    }

    /// A tool's surroundings; `$TREE` is the folder of a server's socket.
    fn scripts<'a>(&'a self, column: usize, server: &'a Server, job: &'a str) -> Scripts<'a> {
        let home = self.place.join(format!("homes/{column}"));
        Scripts {
            lifeboat: &self.lifeboat,
            path: &self.path,
            place: &self.place,
            home,
            tree: server.socket(),
            job,
            keep: 1,
        }
    }
}

fn versions(lifeboat: &Path, path: &std::ffi::OsStr) -> Result<Vec<String>, String> {
    let script = r#""$LIFEBOAT" --version; postgres --version; zstd --version | grep -o 'v[0-9.]*' | sed 's/^v/zstd /'; age --version | sed 's/^v*/age /'"#;
    let out = Command::new("bash").args(["-c", script]).env("PATH", path).env("LIFEBOAT", lifeboat).output();
    let out = out.map_err(|error| format!("bash: {error}"))?;
    Ok(String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_strictly() {
        let options = Options::parse(&["--rounds", "2", "--quick"]).unwrap();
        assert_eq!((options.rounds, options.chat), (2, Chat::QUICK));
        assert_eq!(Options::parse(&[]).unwrap().chat, Chat::FULL);
        for args in
            [&["--quik"][..], &["--rounds"], &["--rounds", "0"], &["--quick", "--output", "docs/PERFORMANCE.md"]]
        {
            assert!(Options::parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn targets_are_those_of_columns_that_exist() {
        let mut sheet = Sheet::new(COLUMNS.to_vec());
        let rows = Rows::of(&mut sheet);
        for (column, seconds) in [(OURS, 6.0), (THEIRS, 10.0)] {
            sheet.add(rows.dump, column, seconds);
        }
        sheet.add(rows.dump_to_floor, OURS, 6.0);
        sheet.add(rows.dump_to_floor, NOWHERE, 3.0);
        let text = sheet.markdown();
        assert!(text.contains("| dump | 6.00 s | 10.00 s | – | ≤ 0.7× pg_dump, zstd, age | met |"), "{text}");
        assert!(text.contains("| 6.00 s | – | 3.00 s | ≤ 1.6× COPY into nowhere | **not met** |"), "{text}");
    }
}
