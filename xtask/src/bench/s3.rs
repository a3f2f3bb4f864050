//! `cargo xtask bench s3`: a vault in a bucket beside the same vault in a folder, and beside restic's repository on the same
//! server, through a proxy that makes every request wait as a network would. It asserts nothing about figures; it fails
//! where a tool failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::data::{LoneFiles, Tree};
use super::page;
use super::rows::{files_source, job};
use super::scripts::{self, Scripts, content, put_away};
use super::table::{RowId, SUBJECT, Sheet, Target, Unit};
use proxy::{Kind, Proxy};
use seaweed::{Keeps, OWNER, REGION, Server};

#[path = "../../../tests/servers/proxy.rs"]
#[expect(dead_code, reason = "the bench delays and counts; the faults are for tests")]
mod proxy;
#[path = "../../../tests/servers/seaweed.rs"]
#[expect(dead_code, reason = "the bench needs buckets and keys; rights and versions are for tests")]
mod seaweed;

/// What every request waits.
const LATENCY: Duration = Duration::from_millis(30);
/// Rounds unless told otherwise.
const ROUNDS: usize = 3;
/// Requests under way at a time: the default, which restic is given too.
const PARALLEL: usize = 32;
/// Others whose memory is looked at.
const OTHER_PARALLEL: [usize; 2] = [2, 64];
const PEAK_MIB: f64 = 300.0;
/// A tool may doubt a file that changed as it looked.
const SETTLE: Duration = Duration::from_secs(3);
const KEEP_ALL: &str = "keep_at_least = \"14d\", delete_after = \"60d\"";
/// The mark of this part on the page.
const PART: &str = "s3";

const FOLDER: &str = "lifeboat, folder";
const RESTIC: &str = "restic";
const COLUMNS: [&str; 3] = [SUBJECT, FOLDER, RESTIC];
/// The columns' numbers.
const OURS: usize = 0;
const IN_FOLDER: usize = 1;
const THEIRS: usize = 2;

/// How the bench is asked for.
pub(crate) const USAGE: &str = "\
bench s3 takes
  --quick              everything tiny: does it work?
  --rounds N           medians of N (3)
  --files N            another size of the tree (59000)
  --reused N           about so many objects on the unchanged day (125000)
  --parallel N         requests under way at a time (32)
  --only tree|day      the tree alone, or the unchanged day alone
  --lifeboat FILE      this program instead of a release build made now
  --output FILE        fill the part between marks of this page (full scale only)";

const BACKUP: &str = "\"$LIFEBOAT\" backup";
const RESTORE: &str = "\"$LIFEBOAT\" restore bench --to out --identity identity.txt";
const WRITE_JOB: &str = "printf '%s\\n' \"$JOB\" >> lifeboat.toml";

/// How large everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scale {
    files: usize,
    reused: usize,
}

const FULL: Scale = Scale { files: 59_000, reused: 125_000 };
const QUICK: Scale = Scale { files: 500, reused: 2_500 };

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    scale: Scale,
    rounds: usize,
    parallel: usize,
    only: Option<Part>,
    lifeboat: Option<PathBuf>,
    output: Option<PathBuf>,
}

/// What of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Tree,
    Day,
}

impl Options {
    /// Reads the arguments after `bench s3`.
    pub(crate) fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options =
            Self { scale: FULL, rounds: ROUNDS, parallel: PARALLEL, only: None, lifeboat: None, output: None };
        if args.contains(&"--quick") {
            options.scale = QUICK;
            options.rounds = 1;
        }
        let mut flags = args.iter();
        while let Some(flag) = flags.next() {
            let mut value = || flags.next().copied().ok_or_else(|| format!("{flag} wants a value\n{USAGE}"));
            match *flag {
                "--quick" => {}
                "--rounds" => options.rounds = super::number(value()?)?,
                "--files" => options.scale.files = super::number(value()?)?,
                "--reused" => options.scale.reused = super::number(value()?)?,
                "--parallel" => options.parallel = super::number(value()?)?,
                "--only" => {
                    options.only = Some(match value()? {
                        "tree" => Part::Tree,
                        "day" => Part::Day,
                        other => return Err(format!("there is no part {other}\n{USAGE}")),
                    });
                }
                "--lifeboat" => options.lifeboat = Some(PathBuf::from(value()?)),
                "--output" => options.output = Some(PathBuf::from(value()?)),
                other => return Err(format!("what is {other}?\n{USAGE}")),
            }
        }
        let whole = options.scale == FULL && options.parallel == PARALLEL && options.only.is_none();
        if options.output.is_some() && (!whole || options.lifeboat.is_some()) {
            let why = "--output is for this commit at full scale: leave out --quick and whatever else changes it";
            return Err(why.to_owned());
        }
        Ok(options)
    }
}

/// Runs the bench, prints the table, and fills the page where told to.
pub(crate) fn run(root: &Path, options: &Options) -> Result<String, String> {
    crate::test::install(&[("time", "time"), ("curl", "curl"), ("setpriv", "util-linux"), ("restic", "restic")])?;
    crate::test::install_seaweedfs()?;
    let lifeboat = match &options.lifeboat {
        Some(lifeboat) => std::path::absolute(lifeboat).map_err(|error| format!("{}: {error}", lifeboat.display()))?,
        None => {
            crate::test::cargo(root, &["build", "--release", "--quiet"])?;
            root.join("target/release/lifeboat")
        }
    };
    let place = root.join("target/bench");
    fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    scripts::remove_away(&place)?;
    let facts = page::facts(root, &place, options.rounds, &versions(&lifeboat)?);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Options { rounds, scale, parallel, only, .. } = *options;
    let bench = Bench { place, lifeboat, path, rounds, scale, parallel, only };
    let sheet = bench.measure()?;
    scripts::remove_away(&bench.place)?;
    let table = sheet.markdown().replace(&root.display().to_string(), ".");
    let block = format!("{}\n\n{facts}\n", table.trim());
    println!("\n## A vault in a bucket\n\n{block}");
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
    scale: Scale,
    parallel: usize,
    only: Option<Part>,
}

/// The rows of the table.
struct Rows {
    backup: RowId,
    stored: RowId,
    each: RowId,
    restore: RowId,
    restore_to_restic: RowId,
    restore_requests: RowId,
    unchanged: RowId,
    reused: RowId,
    unchanged_requests: RowId,
    peaks: Vec<(usize, RowId)>,
}

impl Rows {
    fn of(sheet: &mut Sheet) -> Self {
        let mut row = |what: &str, unit, target| sheet.row(what, unit, target);
        // 0.8 times the speed is 1.25 times the seconds.
        let as_in_folder = Target::TimesOf(FOLDER, 1.25);
        Self {
            backup: row("first backup", Unit::Seconds, as_in_folder),
            stored: row("objects, and all that is stored beside them", Unit::Count, Target::Nothing),
            each: row("requests for each of these", Unit::Each, Target::AtMost(1.1)),
            restore: row("full restore", Unit::Seconds, as_in_folder),
            restore_to_restic: row("the same, held against restic", Unit::Seconds, Target::TimesOf(RESTIC, 0.5)),
            restore_requests: row("requests of it", Unit::Count, Target::Nothing),
            reused: row("an unchanged day: objects reused", Unit::Count, Target::Nothing),
            unchanged_requests: row("requests of it", Unit::Count, Target::AtMost(400.0)),
            unchanged: row("time of it", Unit::Seconds, Target::Nothing),
            peaks: [OTHER_PARALLEL[0], PARALLEL, OTHER_PARALLEL[1]]
                .map(|parallel| {
                    let what = format!("peak memory, {parallel} requests at a time");
                    (parallel, row(&what, Unit::PeakMib, Target::AtMost(PEAK_MIB)))
                })
                .to_vec(),
        }
    }

    fn peak(&self, parallel: usize) -> RowId {
        // Each is one of those that the rows were made of.
        self.peaks.iter().find(|(of, _)| *of == parallel).map_or(self.peaks[0].1, |(_, row)| *row)
    }
}

impl Bench {
    fn measure(&self) -> Result<Sheet, String> {
        let mut sheet = Sheet::new(COLUMNS.to_vec());
        let rows = Rows::of(&mut sheet);
        if self.only != Some(Part::Day) {
            self.tree(&mut sheet, &rows)?;
        }
        if self.only != Some(Part::Tree) {
            self.unchanged(&mut sheet, &rows)?;
        }
        sheet.note(format!(
            "The tree is that of `bench files`. Every request waits {} ms before the server, SeaweedFS on loopback, gets it; server and proxy share \
             the cores with the tools. Lifeboat and restic have {} requests under way at a time (restic's own default is 5), \
             *{FOLDER}* has neither server nor proxy.",
            LATENCY.as_millis(),
            self.parallel
        ));
        sheet.note(format!(
            "The memory of {} and {} requests at a time is of one round, and so is the unchanged day: {} files of two objects each, none of \
             which changed since the backup before.",
            OTHER_PARALLEL[0],
            OTHER_PARALLEL[1],
            self.scale.reused.div_ceil(2)
        ));
        Ok(sheet)
    }

    fn tree(&self, sheet: &mut Sheet, rows: &Rows) -> Result<(), String> {
        let tree =
            Tree::make(&self.place, self.scale.files).map_err(|error| format!("cannot make the tree: {error}"))?;
        scripts::warm(tree.folder())?;
        for round in 1..=self.rounds {
            println!("round {round} of {}", self.rounds);
            // A new server for each, so that what one round left there slows no other.
            let server = Server::start();
            let proxy = Proxy::before(server.address());
            proxy.delay(LATENCY);
            let places = Places { server: &server, proxy: &proxy };
            self.round(sheet, rows, &tree, &places, round)?;
            if round == 1 && self.only.is_none() {
                for parallel in OTHER_PARALLEL {
                    self.memory(sheet, rows, &tree, &places, parallel)?;
                }
            }
        }
        Ok(())
    }

    fn round(
        &self,
        sheet: &mut Sheet,
        rows: &Rows,
        tree: &Tree,
        places: &Places<'_>,
        round: usize,
    ) -> Result<(), String> {
        let parallel = self.parallel;
        let job = job(KEEP_ALL, &files_source(tree.folder()));
        let bucket = places.server.bucket(Keeps::Last);
        let at = places.through_proxy(&bucket);
        for column in [THEIRS, OURS, IN_FOLDER] {
            println!("  {}", COLUMNS[column]);
            let tool = self.scripts(column, tree.folder(), &job);
            tool.fresh()?;
            let restic = format!(
                "{at}; restic -q -r \"s3:$ENDPOINT/$BUCKET/restic\" -o s3.connections={parallel} -p password --cache-dir cache"
            );
            let (prepare, backup, restore) = match column {
                OURS => (prepare(&at, parallel), format!("{at}; {BACKUP}"), format!("{at}; {RESTORE}")),
                IN_FOLDER => (format!("\"$LIFEBOAT\" init . && {WRITE_JOB}"), BACKUP.to_owned(), RESTORE.to_owned()),
                _ => (
                    format!("echo secret > password; {restic} init"),
                    format!("{restic} backup \"$TREE\""),
                    format!("{restic} restore latest --target out"),
                ),
            };
            tool.run(&prepare)?;
            let before = places.keys(&bucket);
            places.proxy.forget();
            let cost = tool.time(&backup)?;
            sheet.add(rows.backup, column, cost.seconds);
            sheet.add(rows.peak(PARALLEL), column, cost.peak_mib);
            let requests = places.proxy.total();
            if column == IN_FOLDER {
                sheet.add(rows.stored, column, content(&tool.home.join("vault")).files as f64);
            } else {
                let new = places.keys(&bucket).saturating_sub(before);
                sheet.add(rows.stored, column, new as f64);
                sheet.add(rows.each, column, requests as f64 / new.max(1) as f64);
            }
            places.proxy.forget();
            let cost = tool.time(&restore)?;
            sheet.add(rows.restore, column, cost.seconds);
            sheet.add(rows.restore_to_restic, column, cost.seconds);
            sheet.add(rows.peak(PARALLEL), column, cost.peak_mib);
            if column != IN_FOLDER {
                sheet.add(rows.restore_requests, column, places.proxy.total() as f64);
            }
            if round == 1 {
                let restored = if column == THEIRS { "out" } else { "out/source" };
                tool.run(&format!("diff -rq --no-dereference \"$TREE\" {restored}\"$TREE\""))?;
            }
            put_away(&self.place, &tool.home)?;
        }
        Ok(())
    }

    /// What a backup and a restore take with another number of requests at a time.
    fn memory(
        &self,
        sheet: &mut Sheet,
        rows: &Rows,
        tree: &Tree,
        places: &Places<'_>,
        parallel: usize,
    ) -> Result<(), String> {
        println!("  {parallel} requests at a time");
        let job = job(KEEP_ALL, &files_source(tree.folder()));
        let bucket = places.server.bucket(Keeps::Last);
        let at = places.through_proxy(&bucket);
        let tool = self.scripts(OURS, tree.folder(), &job);
        tool.fresh()?;
        tool.run(&prepare(&at, parallel))?;
        for script in [BACKUP, RESTORE] {
            sheet.add(rows.peak(parallel), OURS, tool.time(&format!("{at}; {script}"))?.peak_mib);
        }
        put_away(&self.place, &tool.home)
    }

    /// A day on which nothing changed, of very many objects.
    fn unchanged(&self, sheet: &mut Sheet, rows: &Rows) -> Result<(), String> {
        // Each is two segments: its header is one of its own.
        let lone = LoneFiles::make(&self.place, self.scale.reused.div_ceil(2))
            .map_err(|error| format!("cannot make the files: {error}"))?;
        println!("an unchanged day");
        let server = Server::start();
        let proxy = Proxy::before(server.address());
        proxy.delay(LATENCY);
        let places = Places { server: &server, proxy: &proxy };
        let job = job(KEEP_ALL, &files_source(lone.folder()));
        let bucket = server.bucket(Keeps::Last);
        let tool = self.scripts(OURS, lone.folder(), &job);
        tool.fresh()?;
        // The first is not what is measured, and need not wait for each of its requests.
        let straight = places.straight(&bucket);
        tool.run(&prepare(&straight, self.parallel))?;
        std::thread::sleep(SETTLE);
        tool.run(&format!("{straight}; {BACKUP}"))?;
        sheet.add(rows.reused, OURS, server.keys(&bucket, "vault/objects/").len() as f64);
        let cost = tool.time(&format!("{}; {BACKUP}", places.through_proxy(&bucket)))?;
        sheet.add(rows.unchanged, OURS, cost.seconds);
        sheet.add(rows.peak(PARALLEL), OURS, cost.peak_mib);
        sheet.add(rows.unchanged_requests, OURS, proxy.total() as f64);
        println!("  {}", requests_by_kind(&proxy));
        put_away(&self.place, &tool.home)?;
        scripts::remove(lone.folder())
    }

    fn scripts<'a>(&'a self, column: usize, tree: &'a Path, job: &'a str) -> Scripts<'a> {
        let home = self.place.join(format!("homes/s3-{column}"));
        Scripts { lifeboat: &self.lifeboat, path: &self.path, place: &self.place, home, tree, job, keep: 1 }
    }
}

/// Where the tools' stores are, and the way there.
struct Places<'a> {
    server: &'a Server,
    proxy: &'a Proxy,
}

impl Places<'_> {
    fn through_proxy(&self, bucket: &str) -> String {
        surroundings(&self.proxy.endpoint(), bucket)
    }

    fn straight(&self, bucket: &str) -> String {
        surroundings(&self.server.endpoint(), bucket)
    }

    fn keys(&self, bucket: &str) -> usize {
        self.server.keys(bucket, "").len()
    }
}

/// How often each kind of thing was asked for, and how many different ones that were.
fn requests_by_kind(proxy: &Proxy) -> String {
    let mut asked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in proxy.seen() {
        let of = match request.kind {
            Kind::List => request.query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or(""),
            _ => &request.key,
        };
        let folder = of.replace("%2F", "/").split('/').take(2).collect::<Vec<_>>().join("/");
        asked
            .entry(format!("{:?} {folder}", request.kind))
            .or_default()
            .push(format!("{}?{}", request.key, request.query));
    }
    let told = asked.into_iter().map(|(what, keys)| {
        let different = keys.iter().collect::<BTreeSet<_>>().len();
        format!("{} × {what} ({different} different)", keys.len())
    });
    told.collect::<Vec<_>>().join(", ")
}

/// The shell's words that tell a tool where a bucket is.
fn surroundings(endpoint: &str, bucket: &str) -> String {
    format!(
        "export ENDPOINT={endpoint} BUCKET={bucket} AWS_ENDPOINT_URL_S3={endpoint} AWS_REGION={REGION} AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}",
        OWNER.access_key, OWNER.secret_key
    )
}

fn prepare(at: &str, parallel: usize) -> String {
    format!(
        "{at}; \"$LIFEBOAT\" init . --vault \"s3://$BUCKET/vault\" && \
         sed -i 's/^url .*/&\\nparallel_requests = {parallel}/' lifeboat.toml && \
         grep -q '^parallel_requests' lifeboat.toml && {WRITE_JOB}"
    )
}

fn versions(lifeboat: &Path) -> Result<Vec<String>, String> {
    let script = r#""$LIFEBOAT" --version; restic version | cut -d' ' -f1-2"#;
    let out = Command::new("bash").args(["-c", script]).env("LIFEBOAT", lifeboat).output();
    let out = out.map_err(|error| format!("bash: {error}"))?;
    let mut versions: Vec<String> = String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect();
    versions.push(format!("SeaweedFS {}", crate::test::SEAWEEDFS_VERSION));
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_strictly() {
        let options = Options::parse(&["--rounds", "2", "--files", "70", "--quick"]).unwrap();
        assert_eq!((options.rounds, options.scale), (2, Scale { files: 70, ..QUICK }));
        assert_eq!(Options::parse(&[]).unwrap().scale, FULL);
        for args in [
            &["--quik"][..],
            &["--reused"],
            &["--rounds", "0"],
            &["--quick", "--output", "docs/PERFORMANCE.md"],
            &["--files", "70", "--output", "docs/PERFORMANCE.md"],
            &["--only", "tree", "--output", "docs/PERFORMANCE.md"],
            &["--only", "night"],
        ] {
            assert!(Options::parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn targets_are_those_of_columns_that_exist() {
        let mut sheet = Sheet::new(COLUMNS.to_vec());
        let rows = Rows::of(&mut sheet);
        for (column, seconds) in [(OURS, 12.0), (IN_FOLDER, 10.0), (THEIRS, 20.0)] {
            sheet.add(rows.restore, column, seconds);
            sheet.add(rows.restore_to_restic, column, seconds);
        }
        sheet.add(rows.each, OURS, 1.101);
        sheet.add(rows.peak(64), OURS, 300.0);
        let text = sheet.markdown();
        assert!(text.contains("| full restore | 12.00 s | 10.00 s | 20.00 s |"), "{text}");
        assert!(text.contains("≤ 1.25× lifeboat, folder | met |"), "{text}");
        assert!(text.contains("≤ 0.5× restic | **not met** |"), "{text}");
        assert!(text.contains("| 1.10 |") && text.contains("≤ 1.1 | **not met** |"), "{text}");
        assert!(text.contains("| peak memory, 64 requests at a time | 300 MiB |"), "{text}");
    }
}
