//! What every command says, as text and as JSON: snapshots in a small world, the names that scripts hold on to, and that
//! no secret is ever among it.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use lifeboat::cli::args::Cli;
use serde_json::Value;

use crate::support::{PROGRAM, Said, World};

/// A drill whose checks pass.
const DRILL: &str = r#"checks = [
  { source = "db", sql = "select count(*) = 500 from users" },
  { command = ["sh", "-c", "test -d \"$LIFEBOAT_UPLOADS_DIR\""] },
]"#;

/// A drill one of whose checks does not.
const FAILING_DRILL: &str = r#"checks = [
  { source = "db", sql = "select count(*) = 499 from users" },
]"#;

/// A world whose clock on the wall is UTC wherever the test runs.
fn world(drill: &str) -> World {
    let world = World::with_drill(drill);
    edit(&world, |config| {
        let zone = config.lines().find(|line| line.starts_with("timezone")).unwrap().to_owned();
        config.replace(&zone, "timezone = \"UTC\"")
    });
    world
}

fn edit(world: &World, change: impl Fn(&str) -> String) {
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    fs::write(world.path("lifeboat.toml"), change(&config)).unwrap();
}

/// What a command said, whole.
fn shown(said: &Said) -> String {
    let mut text = format!("exit code {}\n", said.code.unwrap());
    for (name, stream) in [("stdout", &said.stdout), ("stderr", &said.stderr)] {
        if !stream.is_empty() {
            text.push_str(&format!("---- {name}\n{stream}"));
            assert!(stream.ends_with('\n'), "{name} ends in mid-line: {stream:?}");
        }
    }
    text
}

/// Patterns of what differs from run to run and host to host, and what stands there instead.
const VARIES: &[(&str, &str)] = &[
    // First: a long fraction looks like an id.
    (r#"("(?:proven_)?share_above_target"): [0-9.e-]+"#, "$1: [SHARE]"),
    (r"age1[a-z0-9]{58}", "[RECIPIENT]"),
    (r"RW[A-Za-z0-9+/]{54}", "[PUBLIC KEY]"),
    (r"(objects|lists)/[0-9a-f]{2}/", "$1/[..]/"),
    (r"\b[0-9a-f]{64}\b", "[SHA-256]"),
    (r"\b[0-9a-f]{32}\b", "[CHECKSUM]"),
    (r"\b[0-9a-f]{16}\b", "[ID]"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?( UTC)?", "[TIME]"),
    (r"\d{4}-\d\d-\d\d", "[DATE]"),
    (r"(the clock of UTC, where it is \[TIME\]);.*", "$1"),
    (r"backup in .*", "backup in [DURATION]"),
    (r"\b(\d+m )?\d+(\.\d+)?( ms| s|s)\b", "[DURATION]"),
    (r"\b\d+(\.\d+)? (B|KiB|MiB|GiB|TiB)", "[SIZE]"),
    (r#"("[a-z_]*_bytes"): \d+"#, "$1: [BYTES]"),
    // How much of so short a time was proven hangs on the machine.
    (r#"("(?:proven_)?(?:median|p95)_seconds"): (?:[0-9.e-]+|"unbounded")"#, "$1: [SECONDS]"),
    (r#"("(?:proven_)?share_above_target"): [0-9.e-]+(?:\[ID\])?"#, "$1: [SHARE]"),
    (r"(\| (?:median|95th percentile) over time \| [^|]*) \| [^|]* \|", "$1 | [EXPOSURE] |"),
    (r#"("(?:rto|rpo|duration|now|proven_now|worst|median|p95|last)?_?seconds"): [0-9.e-]+"#, "$1: [SECONDS]"),
    (r#""(cores|objects|segments|new_segments|opened_segments|mode|uid|gid)": \d+"#, "\"$1\": [NUMBER]"),
    (r"\d+ objects", "[NUMBER] objects"),
    (r"\d+ segments", "[NUMBER] segments"),
    (r"\d+ \(\d+ new\)", "[NUMBER] ([NUMBER] new)"),
    (r"\d+ pages", "[NUMBER] pages"),
    (r"\d+\.\d\d %", "[SHARE]"),
    (r"host \S+, \d+ cores?", "host [HOST], [NUMBER] cores"),
    (r"own-uid(-no-network)?", "[CONFINEMENT]"),
    (r"under a uid of their own(, without a network)?", "[CONFINEMENT]"),
    (r#""cold_cache": (true|false)"#, "\"cold_cache\": [BOOLEAN]"),
    (r"(cold|warm) cache, ", "[CACHE], "),
    (r"- At least one drill ran on a warm cache[^\n]*\n", ""),
    (r"lifeboat \d+\.\d+\.\d+", "lifeboat [VERSION]"),
    (r"(lifeboat \[VERSION\] on )\S+", "$1[HOST]"),
    (r#""host": "[^"]*""#, r#""host": "[HOST]""#),
    (r"(\| `\[ID\]` \| )[^|` ]+( \| \[TIME\])", "$1[HOST]$2"),
];

/// Compares with the snapshot of that name. Columns are as wide as what varies: `tables` folds them.
#[track_caller]
fn compare(world: &World, name: &str, text: &str, tables: bool) {
    let literally = |text: String| {
        text.chars().flat_map(|c| (!c.is_alphanumeric()).then_some('\\').into_iter().chain([c])).collect::<String>()
    };
    let root = world.path("").display().to_string().trim_end_matches('/').to_owned();
    let mut filters = vec![
        (literally(world.scratch().display().to_string()), "[SCRATCH]"),
        (literally(root.clone()), "[WORLD]"),
        (literally(root.trim_start_matches('/').to_owned()), "[WORLD]"),
    ];
    filters.extend(VARIES.iter().map(|(pattern, instead)| ((*pattern).to_owned(), *instead)));
    if tables {
        filters.push((r"([^ \n])  +".to_owned(), "$1  "));
    }
    let filters: Vec<(&str, &str)> = filters.iter().map(|(pattern, instead)| (pattern.as_str(), *instead)).collect();
    insta::with_settings!({ filters => filters, omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

#[track_caller]
fn says(world: &World, name: &str, args: &[&str]) {
    compare(world, name, &shown(&world.run(args)), false);
}

#[track_caller]
fn says_table(world: &World, name: &str, args: &[&str]) {
    compare(world, name, &shown(&world.run(args)), true);
}

#[test]
fn init_says_what_it_made_and_what_to_do() {
    let world = World::empty();
    says(&world, "init_fresh", &["init", "."]);
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    assert!(config.ends_with('\n') && !config.ends_with("\n\n"), "{config:?}");
    let zone = config.lines().find(|line| line.starts_with("timezone")).unwrap();
    let (_, comment) = zone.split_once('#').unwrap();
    compare(&world, "init_config", &config.replace(zone, &format!("timezone = [ZONE] #{comment}")), false);
    says(&world, "init_again", &["init", "."]);
    says(&world, "init_again_with_the_identity", &["init", ".", "--identity", "identity.txt"]);
    says(&world, "init_again_json", &["init", ".", "--json"]);

    // A config that came from elsewhere, and nothing beside it.
    let other = World::empty();
    let config: String =
        config.lines().filter(|line| !line.starts_with("trust")).map(|line| format!("{line}\n")).collect();
    fs::write(other.path("lifeboat.toml"), config).unwrap();
    says(&other, "init_with_a_config", &["init"]);
}

#[test]
fn config_is_checked_and_shown() {
    let world = world(DRILL);
    says(&world, "config_check", &["config", "check"]);
    says(&world, "config_check_json", &["config", "check", "--json"]);
    says(&world, "config_show", &["config", "show"]);
    says(&world, "config_schema", &["config", "schema"]);
    edit(&world, |config| {
        config.replace("rpo = \"24h\"", "rpo = \"5h\"").replace("paths = [\"uploads\"]", "paths = [\"upload\"]")
    });
    says(&world, "config_check_with_findings", &["config", "check"]);
    edit(&world, |config| config.replace("schedule ", "schedul "));
    says(&world, "config_check_with_a_misspelt_key", &["config", "check"]);
    says(&World::empty(), "config_missing", &["status"]);
}

#[test]
fn a_config_without_a_job_says_what_to_do() {
    let world = World::empty();
    world.expect(0, &["init", "."]);
    says(&world, "no_job_config_check", &["config", "check"]);
    says(&world, "no_job_backup", &["backup"]);
    says(&world, "no_job_list", &["list"]);
}

#[test]
fn before_the_first_backup() {
    let world = world(DRILL);
    says_table(&world, "before_status", &["status"]);
    says(&world, "before_doctor", &["doctor"]);
    says(&world, "before_drill", &["drill", "--identity", "identity.txt"]);
    says(&world, "before_restore", &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
}

#[test]
fn a_backup_is_told_and_shown() {
    let world = world(DRILL);
    let quiet = world.expect(0, &["backup"]);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""), "cron mails whatever is said");
    says(&world, "backup_verbose", &["backup", "-v"]);
    says(&world, "backup_json", &["backup", "--json"]);
    says_table(&world, "list", &["list"]);
    says(&world, "list_json", &["list", "--json"]);
    says_table(&world, "show", &["show", "shop"]);
    says_table(&world, "show_files", &["show", "shop", "--files", "--identity", "identity.txt"]);
    says(&world, "show_json", &["show", "shop", "--json"]);
    says(&world, "restore", &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
    says(&world, "restore_again", &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
    says(
        &world,
        "restore_json",
        &["restore", "shop", "--to", "one", "--path", "**/small-07", "--identity", "identity.txt", "--json"],
    );
    says(
        &world,
        "restore_of_a_path_that_is_not_there",
        &["restore", "shop", "--to", "none", "--path", "nothing/**", "--identity", "identity.txt"],
    );
    says(&world, "check", &["check"]);
    says(&world, "check_json", &["check", "--json"]);
    says(&world, "check_read_data", &["check", "--read-data", "--identity", "identity.txt"]);
    says(&world, "check_of_a_job_that_is_not_there", &["check", "shopp"]);
    says(&world, "doctor", &["doctor"]);
    says(&world, "doctor_with_the_identity", &["doctor", "--identity", "identity.txt"]);
}

#[test]
fn what_is_not_well_with_a_backup_is_told() {
    let world = world(DRILL);
    world.backup();
    fs::rename(world.path("uploads"), world.path("away")).unwrap();
    says(&world, "backup_failed", &["backup"]);
    says_table(&world, "status_after_a_failed_backup", &["status"]);
}

#[test]
fn a_source_as_tar() {
    let world = world("");
    world.backup();
    let out = world.command(&["cat", "shop", "--source", "uploads", "--identity", "identity.txt"]).output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut tar = Command::new("tar")
        .args(["-tv", "--numeric-owner", "--utc"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = tar.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || stdin.write_all(&out.stdout));
    let listed = tar.wait_with_output().unwrap();
    feeding.join().unwrap().unwrap();
    assert!(listed.status.success());
    compare(&world, "cat_listed_by_tar", &String::from_utf8(listed.stdout).unwrap(), true);
}

#[test]
fn a_drill_and_what_is_known_after_it() {
    let world = world(DRILL);
    world.backup();
    says(&world, "drill", &["drill", "--identity", "identity.txt"]);
    says(&world, "drill_json", &["drill", "--identity", "identity.txt", "--json"]);
    says_table(&world, "status", &["status"]);
    says(&world, "status_json", &["status", "--json"]);
    says(&world, "status_nagios", &["status", "--nagios"]);
    says(&world, "report", &["report"]);
    says(&world, "report_with_a_bad_window", &["report", "--since", "yesterday"]);
    let report = world.json(0, &["report"]);
    world.expect(0, &["report", "--output", "report.json", "--format", "json"]);
    let written: Value = serde_json::from_slice(&fs::read(world.path("report.json")).unwrap()).unwrap();
    assert_eq!(keys(&written), keys(&report));
    says(&world, "catalog_rebuild", &["catalog", "rebuild"]);
    says(&world, "catalog_rebuild_json", &["catalog", "rebuild", "--json"]);
}

/// A vault that this host never saw: the other jobs are reported, and of its own it is said that nothing is known.
#[test]
fn a_report_goes_on_where_a_vault_was_never_opened() {
    let world = World::new();
    let id = world.backup();
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let recipient = config[config.find("age1").unwrap()..].split('"').next().unwrap().to_owned();
    let config = config.replace("[job.shop]\n", "[job.shop]\nvault = \"main\"\n");
    let more = format!(
        "[vault.other]\nurl = \"nowhere\"\nrecipients = [\"{recipient}\"]\n[job.wiki]\nvault = \"other\"\nschedule = \
         \"@daily\"\nretention = {{ keep_at_least = \"14d\", delete_after = \"30d\" }}\n[job.wiki.source.files]\nkind = \
         \"files\"\npaths = [\"uploads\"]\n"
    );
    fs::write(world.path("lifeboat.toml"), format!("{config}\n{more}")).unwrap();
    let said = world.expect(0, &["report"]);
    assert!(
        said.stderr.contains("warning: nothing can be reported of wiki: vault other cannot be opened ("),
        "{}",
        said.stderr
    );
    for known in [&id, "## shop", "## wiki", "never opened vault other", "lifeboat doctor wiki"] {
        assert!(said.stdout.contains(known), "{known}: {}", said.stdout);
    }
    let report = world.json(0, &["report"]);
    assert_eq!(
        (&report["jobs"][0]["job"], &report["unopened"][0]["job"]),
        (&"shop".into(), &"wiki".into()),
        "{report}"
    );
    let only = world.json(0, &["report", "wiki"]);
    assert_eq!((only["jobs"].as_array().unwrap().len(), &only["unopened"][0]["vault"]), (0, &"other".into()), "{only}");
}

#[test]
fn a_drill_that_fails_says_why() {
    let world = world(FAILING_DRILL);
    world.backup();
    says(&world, "drill_failed", &["drill", "--identity", "identity.txt"]);
    says_table(&world, "status_after_a_failed_drill", &["status"]);
    says(&world, "status_nagios_after_a_failed_drill", &["status", "--nagios"]);
    says_table(&world, "list_after_a_failed_drill", &["list"]);
}

#[test]
fn damage_is_told() {
    let world = world("");
    world.backup();
    let largest = world.keys("objects").into_iter().max_by_key(|key| size(&world, key)).unwrap();
    let path = world.path("vault").join(&largest);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    says(&world, "check_of_damage", &["check"]);
    says(&world, "check_of_damage_json", &["check", "--json"]);
    says(&world, "restore_of_damage", &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
}

fn size(world: &World, key: &str) -> u64 {
    fs::metadata(world.path("vault").join(key)).unwrap().len()
}

#[test]
fn keys_are_made_and_shown() {
    let world = World::empty();
    world.expect(0, &["init", "."]);
    says(&world, "key_new", &["key", "new", "second.txt"]);
    says(&world, "key_new_over_another", &["key", "new", "second.txt"]);
    says(&world, "key_new_json", &["key", "new", "third.txt", "--json"]);
    says(&world, "key_show", &["key", "show", "identity.txt"]);
    says(&world, "key_show_json", &["key", "show", "identity.txt", "--json"]);
    says(&world, "key_show_of_something_else", &["key", "show", "lifeboat.toml"]);
}

#[test]
fn hosts_and_recipients_are_told() {
    let world = world("");
    world.backup();
    let own = world.json(0, &["host", "list"])["hosts"][0]["name"].as_str().unwrap().to_owned();
    let tell = |name: &str, args: &[&str]| {
        let said = shown(&world.run(args));
        let text = said.replace(&format!("\n{own} "), "\nHERE ");
        compare(&world, name, &text.replace(&format!("\"{own}\""), "\"HERE\""), true);
    };
    let other = World::new().json(0, &["host", "list"])["hosts"][0]["key"].as_str().unwrap().to_owned();
    let add = ["host", "add", "web-2", "--key", &other, "--jobs", "blog,mail", "--vault-key", "vault.key"];
    tell("host_add", &add);
    tell("host_add_again_json", &[&add[..], &["--json"]].concat());
    tell("host_add_of_no_key", &["host", "add", "web-3", "--key", "RWQ", "--vault-key", "vault.key"]);
    tell("host_list", &["host", "list"]);
    tell("host_list_json", &["host", "list", "--json"]);
    tell("host_revoke", &["host", "revoke", "web-2", "--vault-key", "vault.key"]);
    tell("host_revoke_again", &["host", "revoke", "web-2", "--vault-key", "vault.key"]);
    tell("host_list_after_a_revocation", &["host", "list"]);

    let recipients = |file: &str| world.expect(0, &["key", "show", file]).stdout.trim().to_owned();
    world.expect(0, &["key", "new", "new.txt"]);
    let (old, new) = (recipients("identity.txt"), recipients("new.txt"));
    tell("recipient_list", &["recipient", "list"]);
    tell("recipient_remove_the_last", &["recipient", "remove", &old, "--vault-key", "vault.key"]);
    tell("recipient_add_without_the_key", &["recipient", "add", &new]);
    tell("recipient_add", &["recipient", "add", &new, "--vault-key", "vault.key"]);
    tell("recipient_add_again_json", &["recipient", "add", &new, "--json"]);
    tell("recipient_remove", &["recipient", "remove", &old, "--vault-key", "vault.key"]);
    tell("recipient_remove_again_json", &["recipient", "remove", &old, "--json"]);
    tell("recipient_list_after_a_change", &["recipient", "list"]);
}

#[test]
fn every_command_explains_itself() {
    fn walk(world: &World, path: &[&str], command: &clap::Command, text: &mut String) {
        let mut args = path.to_vec();
        args.push("--help");
        let said = world.expect(0, &args);
        assert!(said.stderr.is_empty());
        text.push_str(&format!("$ lifeboat {}\n{}\n", args.join(" "), said.stdout));
        for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
            walk(world, &[path, &[below.get_name()]].concat(), below, text);
        }
    }
    let world = World::empty();
    let mut text = String::new();
    walk(&world, &[], &Cli::command(), &mut text);
    compare(&world, "help", &text, false);
    says(&world, "nothing_typed", &[]);
    says(&world, "a_command_that_is_not_there", &["backpu"]);
    says(&world, "an_option_that_is_not_there", &["backup", "--fast"]);
}

#[test]
fn completions_and_manual_pages() {
    let world = World::empty();
    let script = world.expect(0, &["completions", "bash"]).stdout;
    assert!(script.contains("lifeboat"), "{script}");
    fs::write(world.path("completions"), script).unwrap();
    let parsed = Command::new("bash").arg("-n").arg(world.path("completions")).output().unwrap();
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));

    says(&world, "man", &["man", "pages"]);
    fn pages(name: &str, command: &clap::Command) -> Vec<String> {
        let visible = command.get_subcommands().filter(|below| !below.is_hide_set());
        let below = visible.flat_map(|below| pages(&format!("{name}-{}", below.get_name()), below));
        std::iter::once(format!("{name}.1")).chain(below).collect()
    }
    for page in pages("lifeboat", &Cli::command()) {
        let text =
            fs::read_to_string(world.path("pages").join(&page)).unwrap_or_else(|cause| panic!("{page}: {cause}"));
        assert!(text.contains(".TH"), "{page}: {text}");
    }
}

/// The names of design's table, per command; `[]` stands for every element, of which there must be one.
const CONTRACT: &[(&[&str], &[&str])] = &[
    (
        &["backup"],
        &[
            "runs[].job",
            "runs[].outcome",
            "runs[].backup.id",
            "runs[].backup.job",
            "runs[].backup.recovery_point",
            "runs[].backup.available_at",
            "runs[].backup.logical_bytes",
            "runs[].backup.stored_bytes",
            "runs[].backup.new_bytes",
            "runs[].backup.segments",
            "runs[].backup.new_segments",
            "runs[].backup.sources[].name",
            "runs[].backup.sources[].kind",
            "runs[].backup.sources[].recovery_point",
            "runs[].errors",
            "runs[].resumed_segments",
            "runs[].duration_seconds",
        ],
    ),
    (
        &["list"],
        &[
            "backups[].id",
            "backups[].job",
            "backups[].recovery_point",
            "backups[].available_at",
            "backups[].logical_bytes",
            "backups[].stored_bytes",
            "backups[].verdict",
            "backups[].expires_at",
        ],
    ),
    (
        &["drill", "--identity", "identity.txt"],
        &[
            "drills[].id",
            "drills[].job",
            "drills[].backup",
            "drills[].outcome",
            "drills[].rto_seconds",
            "drills[].rto_objective_seconds",
            "drills[].rto_met",
            "drills[].rpo_seconds",
            "drills[].phases[].name",
            "drills[].phases[].seconds",
            "drills[].checks[].name",
            "drills[].checks[].passed",
            "drills[].checks[].expected",
            "drills[].checks[].actual",
            "drills[].errors",
        ],
    ),
    (&["check"], &["outcome", "backups", "objects", "damaged", "on_record", "not_on_record"]),
    (
        &["status"],
        &[
            "jobs[].job",
            "jobs[].state",
            "jobs[].reasons",
            "jobs[].recovery_point",
            "jobs[].rpo.objective_seconds",
            "jobs[].rpo.now_seconds",
            "jobs[].rpo.worst_seconds",
            "jobs[].rpo.proven_worst_seconds",
            "jobs[].rto.objective_seconds",
            "jobs[].rto.last_seconds",
            "jobs[].rto.worst_seconds",
            "jobs[].last_backup",
            "jobs[].last_drill",
            "jobs[].last_check",
            "jobs[].next_backup",
            "jobs[].next_drill",
            "jobs[].erasure_deadline",
        ],
    ),
    (&["show", "shop"], &["manifest.id", "manifest.sources[].name"]),
    (&["restore", "shop", "--to", "out", "--identity", "identity.txt"], &["backup", "target", "sources[].name"]),
    (&["report"], &[]),
    (
        &["runbook"],
        &["jobs[].job", "jobs[].recipients[].recipient", "jobs[].last_drill.phases[].name", "jobs[].markdown"],
    ),
    (&["doctor"], &["outcome", "findings[].grade", "findings[].about", "findings[].message", "findings[].hint"]),
    (&["config", "check"], &["outcome", "findings[].severity", "findings[].code", "findings[].message"]),
    (&["config", "show"], &["jobs.shop"]),
    (&["config", "schema"], &["keys[].path"]),
    (&["key", "new", "another.txt"], &["recipient", "file"]),
    (&["key", "show", "identity.txt"], &["recipients[]", "trust"]),
    (&["catalog", "rebuild"], &["vaults[].vault", "vaults[].backups", "vaults[].records", "vaults[].problems"]),
    (&["init", "."], &["config", "made[].what", "made[].path", "made[].new", "vaults[].id", "vaults[].stranger"]),
    (
        &["host", "list"],
        &[
            "vault",
            "serial",
            "hosts[].name",
            "hosts[].key",
            "hosts[].jobs",
            "hosts[].from",
            "hosts[].until",
            "hosts[].revoked",
            "hosts[].this_host",
            "hosts[].last_manifests",
        ],
    ),
    (
        &["recipient", "list"],
        &[
            "vault",
            "serial",
            "recipients[].recipient",
            "recipients[].in_config",
            "recipients[].approved",
            "recipients[].until",
        ],
    ),
];

/// Whether a value has a path; every element of an array must.
fn has(value: &Value, path: &str) -> bool {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let (name, every) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
    let Some(found) = value.get(name) else { return false };
    let below = |value: &Value| rest.is_none_or(|rest| has(value, rest));
    match found.as_array() {
        Some(elements) if every => !elements.is_empty() && elements.iter().all(below),
        _ => !every && below(found),
    }
}

#[test]
fn every_document_has_the_names_that_scripts_hold_on_to() {
    let world = world(DRILL);
    for (args, paths) in CONTRACT {
        let document = world.json(0, args);
        assert_eq!(document["schema_version"], 1, "{args:?}: {document}");
        for path in *paths {
            assert!(has(&document, path), "{args:?} has no {path}: {document:#}");
        }
    }
    // The test itself can tell.
    let document: Value = serde_json::json!({ "runs": [ { "job": "a" }, { } ], "none": [] });
    assert!(has(&document, "runs") && !has(&document, "runs[].job") && !has(&document, "none[].x"));
}

/// The names at the top of a document.
fn keys(document: &Value) -> Vec<&String> {
    document.as_object().unwrap().keys().collect()
}

#[test]
fn no_secret_is_ever_said_or_stored() {
    let world = world(DRILL);
    let identity = fs::read_to_string(world.path("identity.txt")).unwrap();
    let last_line = |path: &str| fs::read_to_string(world.path(path)).unwrap().lines().last().unwrap().to_owned();
    let mut said = String::new();
    for args in [
        &["backup", "-vv"][..],
        &["backup", "--json"],
        &["drill", "-vv", "--identity", "identity.txt"],
        &["drill", "--json", "--identity", "identity.txt"],
        &["list", "-vv"],
        &["show", "shop", "--files", "--identity", "identity.txt", "--json"],
        &["restore", "shop", "--to", "out", "-vv", "--identity", "identity.txt"],
        &["check", "--read-data", "-vv", "--identity", "identity.txt"],
        &["status", "--json"],
        &["report"],
        &["report", "--json"],
        &["runbook"],
        &["runbook", "--json"],
        &["doctor", "--identity", "identity.txt"],
        &["config", "show"],
        &["config", "check", "-vv"],
        &["key", "show", "identity.txt"],
        &["key", "new", "another.txt"],
        &["catalog", "rebuild", "--json"],
        &["init", ".", "--identity", "identity.txt"],
        // Keys where they do not belong: a message may quote what it cannot read.
        &["key", "show", "vault.key"],
        &["list", "--identity", "vault.key"],
        &["list", "--config", "identity.txt"],
        &["list", "--config", "vault.key"],
        &["status", "--config", "state/host.secret"],
        &["restore", "shop", "--to", "out2", "--identity", "state/host.key"],
    ] {
        let out = world.run(args);
        said.push_str(&out.stdout);
        said.push_str(&out.stderr);
    }
    assert!(said.contains("[config-invalid]") && said.contains("PASSED"), "the commands did not run:\n{said}");
    let secrets = [
        ("identity", identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap().to_owned()),
        ("second identity", last_line("another.txt")),
        ("vault key", last_line("vault.key")),
        ("host key", last_line("state/host.key")),
        ("host secret", last_line("state/host.secret")),
    ];
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for key in world.keys("") {
        let bytes = fs::read(world.path("vault").join(&key)).unwrap();
        files.push((key, bytes));
    }
    files.push(("catalog".to_owned(), fs::read(world.path("state/catalog.sqlite")).unwrap()));
    for (name, secret) in &secrets {
        // Half of it is too much as well; the beginning of a key file says only what kind it is.
        let tail = &secret[secret.len() / 2..];
        assert!(tail.len() >= 30, "{name}");
        assert!(!said.contains(tail), "the {name} was printed");
        for (file, bytes) in &files {
            let there = bytes.windows(tail.len()).any(|window| window == tail.as_bytes());
            assert!(!there, "the {name} is in {file}");
        }
    }
}

/// `script` gives the program a terminal.
#[test]
fn colours_are_for_a_terminal_and_for_nobody_who_wants_none() {
    let world = World::in_memory();
    world.backup();
    let at_a_terminal = |variables: &[(&str, &str)]| {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{PROGRAM} status"), "/dev/null"]);
        command.current_dir(world.path("")).env_remove("NO_COLOR").env("TERM", "xterm").stdin(Stdio::null());
        command.envs(variables.iter().copied());
        let said = crate::support::said(&mut command);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        said.stdout
    };
    let coloured = at_a_terminal(&[]);
    assert!(coloured.contains("\x1b[33mWARNING\x1b[0m"), "{coloured:?}");
    // An empty one asks for nothing (no-color.org).
    assert_eq!(at_a_terminal(&[("NO_COLOR", "")]).matches('\x1b').count(), coloured.matches('\x1b').count());
    assert!(!at_a_terminal(&[("NO_COLOR", "1")]).contains('\x1b'));
    assert!(!at_a_terminal(&[("TERM", "dumb")]).contains('\x1b'));
    assert!(!world.expect(0, &["status"]).stdout.contains('\x1b'));
}
