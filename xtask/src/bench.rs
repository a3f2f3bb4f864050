//! `cargo xtask bench files`: lifeboat beside restic, borg and `tar | zstd | age`, on the same data in the same run.
//!
//! The data are made from a seed, so that two machines bench the same bytes. The tools take turns within each round, so
//! that a machine whose speed drifts is unfair to all alike; the table has medians, and ratios against the fastest
//! peer, which are what travels between machines. It asserts nothing.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs that a bench runs, and the Debian packages that have them.
const TOOLS: &[(&str, &str)] =
    &[("restic", "restic"), ("borg", "borgbackup"), ("age", "age"), ("zstd", "zstd"), ("time", "time"), ("tar", "tar")];

/// The tree at full scale: about 1.7 GB in this many files.
const FILES: usize = 59_000;
/// Rounds unless told otherwise.
const ROUNDS: usize = 3;

/// What was asked for.
pub(crate) struct Options {
    rounds: usize,
    files: usize,
}

impl Options {
    /// Reads the arguments after `bench`.
    pub(crate) fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options = Self { rounds: ROUNDS, files: FILES };
        let ["files", flags @ ..] = args else { return Err("there is one bench so far: files".to_owned()) };
        for pair in flags.chunks(2) {
            let number = |text: &str| text.parse().ok().filter(|n| *n > 0).ok_or(format!("{text} is no number"));
            match pair {
                ["--rounds", rounds] => options.rounds = number(rounds)?,
                ["--files", files] => options.files = number(files)?,
                _ => return Err("bench files takes --rounds N and --files N".to_owned()),
            }
        }
        Ok(options)
    }
}

/// What one command cost.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    peak_mib: f64,
}

/// What the rounds of one tool cost.
struct Row {
    name: &'static str,
    first: Vec<Cost>,
    unchanged: Vec<Cost>,
    restore: Vec<Cost>,
    stored_mib: f64,
}

/// A tool under test: shell scripts, which find the tree in `$TREE` and their own folder in `$HOME_DIR`.
struct Tool {
    name: &'static str,
    prepare: &'static str,
    backup: &'static str,
    restore: &'static str,
    /// Where what it stored lies, below its folder.
    stored: &'static str,
    /// Whether a second backup costs less than a first.
    incremental: bool,
}

const PEERS: &[Tool] = &[
    Tool {
        name: "lifeboat",
        prepare: r#""$LIFEBOAT" init . && printf '%s\n' '[job.bench]' 'schedule = "0 2 * * *"' \
            'retention = { keep_at_least = "14d", delete_after = "30d" }' '[job.bench.source.tree]' 'kind = "files"' \
            "paths = [\"$TREE\"]" >> lifeboat.toml"#,
        backup: r#""$LIFEBOAT" backup"#,
        restore: r#""$LIFEBOAT" restore bench --to out --identity identity.txt"#,
        stored: "vault",
        incremental: true,
    },
    Tool {
        name: "restic",
        prepare: "echo secret > password && restic init -q -r repo -p password",
        backup: "restic backup -q -r repo -p password --cache-dir cache \"$TREE\"",
        restore: "restic restore -q -r repo -p password --cache-dir cache latest --target out",
        stored: "repo",
        incremental: true,
    },
    Tool {
        name: "borg",
        prepare: "borg init -e repokey-blake2 repo",
        backup: "borg create -C zstd,3 repo::{now:%s%f} \"$TREE\"",
        restore: "mkdir out && cd out && borg extract ../repo::$(borg list --short --last 1 ../repo)",
        stored: "repo",
        incremental: true,
    },
    Tool {
        name: "tar, zstd -3 -T0, age",
        prepare: "age-keygen -o key 2> /dev/null && age-keygen -y key > recipient && mkdir repo",
        backup: "tar -cf - \"$TREE\" 2> /dev/null | zstd -q -3 -T0 | age -R recipient > repo/archive",
        restore: "mkdir out && age -d -i key repo/archive | zstd -qd | tar -xf - -C out",
        stored: "repo",
        incremental: false,
    },
];

/// Runs the bench; the text is the table.
pub(crate) fn run(root: &Path, options: &Options) -> Result<String, String> {
    crate::test::install(TOOLS)?;
    command("cargo", &["build", "--release", "--quiet"], root)?;
    let place = root.join("target/bench");
    let tree = place.join(format!("tree-{}", options.files));
    if !tree.join("complete").exists() {
        println!("making {} files in {}", options.files, tree.display());
        make_tree(&tree, options.files).map_err(|error| format!("cannot make the tree: {error}"))?;
    }
    // Warm, for all alike.
    command("sh", &["-c", "find \"$0\" -type f -exec cat {} + > /dev/null", &tree.display().to_string()], root)?;

    let mut rows: Vec<Row> = PEERS
        .iter()
        .map(|tool| Row { name: tool.name, first: vec![], unchanged: vec![], restore: vec![], stored_mib: 0.0 })
        .collect();
    for round in 1..=options.rounds {
        for (tool, row) in PEERS.iter().zip(&mut rows) {
            println!("round {round} of {}: {}", options.rounds, tool.name);
            let home = place.join("home");
            remove(&home)?;
            fs::create_dir_all(&home).map_err(|error| error.to_string())?;
            let scripts = Scripts { root, tree: &tree, home: &home };
            scripts.run(tool.prepare)?;
            row.first.push(scripts.time(tool.backup)?);
            row.stored_mib = folder_bytes(&home.join(tool.stored)) as f64 / 1_048_576.0;
            if tool.incremental {
                row.unchanged.push(scripts.time(tool.backup)?);
            }
            row.restore.push(scripts.time(tool.restore)?);
            remove(&home)?;
        }
    }
    Ok(table(&rows, options))
}

fn table(rows: &[Row], options: &Options) -> String {
    let mut text = format!(
        "{} files, warm cache, {} rounds, medians; in brackets the ratio to the fastest peer.\n\n\
         | tool | first backup | unchanged | restore | stored | peak memory |\n|---|---|---|---|---|---|\n",
        options.files, options.rounds
    );
    let fastest = |of: fn(&Row) -> &Vec<Cost>| {
        rows.iter().skip(1).filter_map(|row| median(of(row))).map(|cost| cost.seconds).fold(f64::INFINITY, f64::min)
    };
    let columns: [fn(&Row) -> &Vec<Cost>; 3] = [|row| &row.first, |row| &row.unchanged, |row| &row.restore];
    let bests = columns.map(fastest);
    for row in rows {
        let _ = write!(text, "| {} |", row.name);
        for (of, best) in columns.iter().zip(bests) {
            let _ = match median(of(row)) {
                Some(cost) => write!(text, " {:.2} s ({:.2}×) |", cost.seconds, cost.seconds / best),
                None => write!(text, " – |"),
            };
        }
        let all = row.first.iter().chain(&row.unchanged).chain(&row.restore);
        let peak = all.map(|cost| cost.peak_mib).fold(0.0, f64::max);
        let _ = writeln!(text, " {:.0} MiB | {peak:.0} MiB |", row.stored_mib);
    }
    text.push_str("\nPeak memory is of the largest single process. A pipeline has no second backup that costs less.\n");
    text
}

fn median(costs: &[Cost]) -> Option<Cost> {
    let mut sorted = costs.to_vec();
    sorted.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    sorted.get(sorted.len() / 2).copied()
}

/// Runs a tool's scripts in its folder.
struct Scripts<'a> {
    root: &'a Path,
    tree: &'a Path,
    home: &'a Path,
}

impl Scripts<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.home)
            .env("LIFEBOAT", self.root.join("target/release/lifeboat"))
            .env("TREE", self.tree)
            .env("BORG_PASSPHRASE", "secret")
            .env("BORG_BASE_DIR", self.home)
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn run(&self, script: &str) -> Result<(), String> {
        let out = self.command("bash").args(["-c", &format!("set -euo pipefail; {script}")]).output();
        let out = out.map_err(|error| format!("bash: {error}"))?;
        if out.status.success() {
            return Ok(());
        }
        Err(format!("{script}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr)))
    }

    /// `time` writes seconds and KiB into a file; its own format, so that nothing a tool prints can be mistaken for it.
    fn time(&self, script: &str) -> Result<Cost, String> {
        let report = self.home.join("time");
        let script = format!("set -euo pipefail; {script}");
        let mut command = self.command("time");
        command.args(["-f", "%e %M", "-o"]).arg(&report).args(["bash", "-c", &script]);
        let out = command.output().map_err(|error| format!("time: {error}"))?;
        if !out.status.success() {
            return Err(format!("{script}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr)));
        }
        let text = fs::read_to_string(&report).map_err(|error| error.to_string())?;
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [seconds, kib] => Ok(Cost { seconds, peak_mib: kib / 1024.0 }),
            _ => Err(format!("`time` said {text:?}")),
        }
    }
}

fn command(program: &str, args: &[&str], dir: &Path) -> Result<(), String> {
    let status = Command::new(program).args(args).current_dir(dir).status();
    match status.map_err(|error| format!("{program}: {error}"))? {
        status if status.success() => Ok(()),
        status => Err(format!("{program} {}: {status}", args.join(" "))),
    }
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {error}", folder.display())),
        _ => Ok(()),
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    let mut total = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => total += metadata.len(),
                Err(_) => {}
            }
        }
    }
    total
}

/// A tree like a small company's: mostly small files, text that compresses and pictures that do not, some large ones.
fn make_tree(tree: &Path, files: usize) -> std::io::Result<()> {
    let mut random = Random(0x11fe_b0a7);
    let words: Vec<String> = (0..4096).map(|_| random.word()).collect();
    let mut path = PathBuf::new();
    for number in 0..files {
        if number % 40 == 0 {
            path = tree.join(format!("{:02}/{:03}", number / 40 % 37, number / 40));
            fs::create_dir_all(&path)?;
        }
        // Sizes spread over powers of two, so that the sum comes to about 29 KB a file.
        let size = match random.below(1000) {
            0..=1 => 2_000_000 + random.below(6_000_000),
            2..=99 => 40_000 + random.below(200_000),
            _ => {
                let bits = 6 + random.below(9);
                200 + random.below(1 << bits)
            }
        };
        let mut file = std::io::BufWriter::new(fs::File::create(path.join(format!("file-{number}")))?);
        let text = random.below(10) < 6;
        let mut left = size;
        while left > 0 {
            let chunk = if text {
                // Some words are common, as in a language.
                let rare = 64 + random.below(4032);
                let word = &words[random.below(rare)];
                format!("{word} ").into_bytes()
            } else {
                random.next().to_le_bytes().to_vec()
            };
            let take = chunk.len().min(left);
            file.write_all(&chunk[..take])?;
            left -= take;
        }
        file.flush()?;
    }
    fs::write(tree.join("complete"), "")
}

/// xorshift64*: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn word(&mut self) -> String {
        (0..3 + self.below(8)).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }
}
