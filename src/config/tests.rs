//! Configs as people get them wrong, in tables; and one that is right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::check::{Finding, Severity, check, check_host};
use super::*;
use crate::domain::check::UserCheck;
use crate::domain::retention::LastGood;
use crate::domain::schedule::Schedule;
use crate::error::{Code, Diagnostic};

mod lock;
mod notify;
mod postgres;
mod s3;

const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
/// Its identity; the pair stands in the tests of the age crate and belongs to no one.
const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

fn vault() -> String {
    format!("[vault.main]\nurl = \"/srv/backups\"\nrecipients = [\"{RECIPIENT}\"]\n")
}

/// A whole config around the lines of one job. The job's first line is the text's fifth.
fn job(lines: &str) -> String {
    format!("{}[job.shop]\n{lines}", vault())
}

const SCHEDULE: &str = "schedule = \"15 */6 * * *\"\nretention = { keep_at_least = \"14d\", delete_after = \"30d\" }\n";
const FILES: &str = "[job.shop.source.uploads]\nkind = \"files\"\npaths = [\"/srv/uploads\"]\n";
const SQLITE: &str = "[job.shop.source.db]\nkind = \"sqlite\"\npath = \"/srv/shop.db\"\n";

fn parse(text: &str) -> Result<Settings, ConfigError> {
    Settings::parse(text, Path::new("/etc/lifeboat/lifeboat.toml"))
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(text) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("{other:?} of\n{text}"),
    }
}

fn whole() -> String {
    format!(
        r#"
timezone  = "Europe/Moscow"
state_dir = "state"

[vault.main]
url        = "../vault"
recipients = ["{RECIPIENT}"]
compression = 9
grace = "6h"

[job.shop]
schedule   = "15 */6 * * *"
retention  = {{ keep_at_least = "14d", delete_after = "30d", daily = 14, weekly = 4, last_good = "erase" }}
prune      = {{ schedule = "0 4 * * *" }}
objectives = {{ rto = "1h", rpo = "24h" }}

[job.shop.source.uploads]
kind    = "files"
paths   = ["/srv/shop/uploads/", "./data"]
exclude = ["cache/**"]

[job.shop.source.db]
kind = "sqlite"
path = "shop.db"

[job.shop.drill]
schedule = "0 5 * * SUN"
identity = {{ file = "drill.key" }}
check_timeout = "1m30s"
checks = [
  {{ source = "db", sql = "select count(*) > 0 from users" }},
  {{ source = "db", freshness = "select max(created_at) from messages", within = "26h" }},
  {{ command = ["./smoke-test.sh", "./as-it-is"] }},
]
"#
    )
}

#[test]
fn a_whole_config() {
    let settings = Settings::parse(&whole(), Path::new("/srv/config/here/lifeboat.toml")).unwrap();
    assert_eq!(settings.state_dir, Path::new("/srv/config/here/state"));
    let vault = &settings.vaults["main"];
    assert_eq!((vault.url.to_string().as_str(), vault.compression_level), ("/srv/config/vault", Some(9)));
    let job = &settings.jobs[&"shop".parse().unwrap()];
    assert_eq!(job.vault, "main");
    assert_eq!(
        job.objectives,
        Objectives { rto: Some(Duration::from_secs(3600)), rpo: Some(Duration::from_secs(86_400)) }
    );
    assert_eq!((job.retention.weekly, job.retention.last_good), (Some(4), LastGood::Erase));
    assert_eq!(job.prune, PruneWhen::Scheduled(Schedule::parse("0 4 * * *").unwrap()));
    assert_eq!(settings.grace_of(vault), Duration::from_secs(6 * 3600));
    // In the order of the text, not of the alphabet.
    assert_eq!(job.sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), ["uploads", "db"]);
    let SourceKind::Files(files) = &job.sources[0].kind else { panic!() };
    assert_eq!(files.paths, [Path::new("/srv/shop/uploads"), Path::new("/srv/config/here/data")]);
    assert!(!files.one_file_system && files.exclude_caches);
    let drill = job.drill.as_ref().unwrap();
    assert_eq!(drill.identity, Some(Secret::File("/srv/config/here/drill.key".into())));
    assert_eq!(drill.scratch.to_str().unwrap(), "/var/tmp/lifeboat-scratch");
    assert_eq!(drill.check_timeout, Duration::from_secs(90));
    assert_eq!(drill.checks.len(), 3);
    assert_eq!(
        drill.checks[2],
        UserCheck::Command { command: vec!["/srv/config/here/smoke-test.sh".into(), "./as-it-is".into()] }
    );

    let sealed = settings.without_secrets(&job.name);
    assert_eq!(sealed["job"]["sources"][1]["path"], "/srv/config/here/shop.db");
    assert_eq!(sealed["job"]["drill"]["identity"]["file"], "/srv/config/here/drill.key");
    assert_eq!(sealed["job"]["drill"]["checks"][1]["within"], "26h");
    assert_eq!(sealed["vault"]["recipients"][0], RECIPIENT);
    assert_eq!(sealed["vault"]["grace"], "6h");
    assert_eq!(sealed["job"]["retention"]["last_good"], "erase");
    assert_eq!(sealed["job"]["prune"]["schedule"], "0 4 * * *");
    assert!(settings.without_secrets(&"other".parse().unwrap()).is_null());
}

/// Text, line, column, a part of the message.
fn bad() -> Vec<(String, usize, usize, &'static str)> {
    let with = |source: &str, more: &str| job(&format!("{SCHEDULE}{source}{more}"));
    let drill = |line: &str| with(&format!("{FILES}{SQLITE}"), &format!("[job.shop.drill]\n{line}\n"));
    let sqlite =
        |line: &str| job(&format!("{SCHEDULE}[job.shop.source.db]\nkind = \"sqlite\"\npath = \"/a\"\n{line}\n"));
    let files = |line: &str| job(&format!("{SCHEDULE}[job.shop.source.up]\nkind = \"files\"\n{line}\n"));
    let in_vault = |line: &str| format!("[vault.main]\nurl = \"/v\"\nrecipients = [\"{RECIPIENT}\"]\n{line}\n");
    let retention = |table: &str| job(&format!("schedule = \"@daily\"\nretention = {table}\n{FILES}"));
    vec![
        // Keys.
        (
            with(FILES, "").replace("schedule", "corn"),
            5,
            1,
            "unknown key `corn` in [job.shop]; did you mean `schedule`?",
        ),
        (with(FILES, "").replace("schedule", "shedule"), 5, 1, "did you mean `schedule`?"),
        (job(&format!("{SCHEDULE}colour = 1\n{FILES}")), 7, 1, "known here: vault, schedule, retention"),
        ("time-zone = \"UTC\"".into(), 1, 1, "unknown key `time-zone` here; did you mean `timezone`?"),
        ("[jobs.shop]".into(), 1, 2, "did you mean `job`?"),
        (retention("{ keep_at_least = \"1d\", delete_atfer = \"2d\" }"), 6, 37, "did you mean `delete_after`?"),
        (
            drill("checks = [{ sorce = \"db\" }]"),
            14,
            13,
            "unknown key `sorce` in [job.shop.drill.checks]; did you mean `source`?",
        ),
        (
            files("paths = [\"/a\"]\npath = \"/a\""),
            10,
            1,
            "`path` belongs to kind = \"sqlite\"; known here: kind, paths",
        ),
        (sqlite("exclude = []"), 10, 1, "`exclude` belongs to kind = \"files\""),
        // Missing.
        (job(FILES), 4, 6, "[job.shop] has no `schedule`"),
        (
            job(&format!("schedule = \"@daily\"\n{FILES}")),
            4,
            6,
            "has no `retention`: a table with keep_at_least and delete_after",
        ),
        (job(SCHEDULE), 4, 6, "[job.shop] has no `source`: at least one table, by name"),
        (retention("{ keep_at_least = \"1d\" }"), 6, 1, "[job.shop.retention] has no `delete_after`: a duration"),
        (job(&format!("{SCHEDULE}[job.shop.source.db]\npath = \"/a\"\n")), 7, 18, "has no `kind`"),
        (job(&format!("{SCHEDULE}[job.shop.source.db]\nkind = \"sqlite\"\n")), 7, 18, "has no `path`"),
        ("[vault.main]\nurl = \"/v\"".into(), 1, 8, "has no `recipients`"),
        ("[job.shop.source]".into(), 1, 11, "[job.shop.source] has no entry"),
        // Types.
        ("timezone = 1".into(), 1, 12, "`timezone` is a text in quotes, not an integer"),
        ("timezone = Europe/Berlin".into(), 1, 12, "this is not TOML"),
        ("timezone = \"UTC\"\ntimezone = \"UTC\"".into(), 2, 1, "this is not TOML: duplicate key"),
        ("[[job]]\nname = \"shop\"".into(), 1, 3, "`job` holds tables by name: write [job.NAME], not [[job]]"),
        ("[job]\nschedule = \"@daily\"".into(), 2, 1, "write [job.NAME] and put `schedule` below it"),
        (retention("\"14d\""), 6, 13, "`retention` is a table, not a string"),
        (retention("{ keep_at_least = 14, delete_after = \"30d\" }"), 6, 31, "\"14s\", \"14h\" or \"14d\""),
        (files("paths = \"/a\""), 9, 9, "`paths` is a list of paths"),
        (files("paths = [1]"), 9, 10, "`paths` is a list of paths"),
        (drill("checks = { sql = \"\" }"), 14, 10, "`checks` is a list of tables"),
        (drill("trust_source = \"yes\""), 14, 16, "`trust_source` is true or false, not a string"),
        // Values.
        ("timezone = \"Europe/Moskow\"".into(), 1, 12, "did you mean \"Europe/Moscow\"?"),
        ("timezone = \"MESZ\"".into(), 1, 12, "there is no time zone \"MESZ\"; a zone is written like"),
        (with(FILES, "").replace("15 */6 * * *", "0 2 * *"), 5, 12, "has 4 fields"),
        (with(FILES, "").replace("15 */6 * * *", "0 0 31 2 *"), 5, 12, "never fires"),
        (
            with(FILES, "").replace("15 */6 * * *", "0 25 * * *"),
            5,
            12,
            "the hour field \"25\" is not a value from 0 to 23",
        ),
        (retention("{ keep_at_least = \"30d\", delete_after = \"14d\" }"), 6, 13, "must be shorter than"),
        (retention("{ keep_at_least = \"1month\", delete_after = \"90d\" }"), 6, 31, "a month has no fixed length"),
        (retention("{ keep_at_least = \"1d\", delete_after = \"2d\", daily = -1 }"), 6, 66, "1 or more"),
        (retention("{ keep_at_least = \"1d\", delete_after = \"2d\", daily = 0 }"), 6, 13, "leave `daily` out"),
        (
            retention("{ keep_at_least = \"1d\", delete_after = \"2d\", last_good = \"forget\" }"),
            6,
            70,
            "`last_good` is \"keep\" or \"erase\"",
        ),
        (retention("{ keep_at_least = \"1d\", delete_after = \"2d\", last_good = true }"), 6, 70, "a text in quotes"),
        (
            with(FILES, "[job.shop.prune]\nshedule = \"@daily\""),
            11,
            1,
            "unknown key `shedule` in [job.shop.prune]; did you mean `schedule`?",
        ),
        (
            with(FILES, "[job.shop.prune]\nkeep = 3"),
            11,
            1,
            "unknown key `keep` in [job.shop.prune]; known here: schedule",
        ),
        (with(FILES, "[job.shop.prune]\nschedule = \"0 25 * * *\""), 11, 12, "not a value from 0 to 23"),
        (with(FILES, "[job.shop.prnue]"), 10, 11, "unknown key `prnue` in [job.shop]; did you mean `prune`?"),
        (with(FILES, "[job.shop.gc]"), 10, 11, "did you mean `prune`?"),
        (with(&format!("prune = \"@daily\"\n{FILES}"), ""), 7, 9, "`prune` is a table, not a string"),
        (job(&format!("{SCHEDULE}objectives = {{ rpo = \"0s\" }}\n{FILES}")), 7, 22, "cannot be kept"),
        (with(FILES, "").replace("[job.shop", "[job.Shop"), 4, 6, "\"Shop\" is not a usable name"),
        (
            with(&FILES.replace("uploads]", "a-b]"), "[job.shop.source.a_b]\nkind = \"sqlite\"\npath = \"/a\""),
            10,
            18,
            "share a variable",
        ),
        (files("paths = []"), 9, 9, "nothing would be backed up"),
        (files("paths = [\"/srv\", \"/srv/shop\"]"), 9, 18, "/srv and /srv/shop overlap"),
        (files("paths = [\"/srv/../etc\"]"), 9, 10, "`..` behind a name"),
        (files("paths = [\"~/data\"]"), 9, 10, "`~` means something to a shell only"),
        (files("paths = [\"\"]"), 9, 10, "an empty path"),
        (files("paths = [\"/a\"]\nexclude = [\"[z-a]\"]"), 10, 12, "not a gitignore glob"),
        (files("paths = [\"/a\"]\nexclude = [\"#a\"]"), 10, 12, "a comment to gitignore"),
        // Vaults.
        (in_vault("").replace(RECIPIENT, "age1t7rxyev2"), 3, 15, "not a whole age public key"),
        (in_vault("").replace(RECIPIENT, "ssh-ed25519 AAAA"), 3, 15, "ssh keys are not taken"),
        (in_vault("").replace(&format!("\"{RECIPIENT}\""), ""), 3, 14, "nobody could open this vault"),
        (in_vault("").replace(RECIPIENT, &format!("{RECIPIENT}\", \"{RECIPIENT}")), 3, 81, "stands here twice"),
        (in_vault("trust = \"RWQ\""), 4, 9, "not a minisign public key"),
        (in_vault("compression = 99999999999999999999"), 4, 15, "this cannot be read"),
        (in_vault("grace = \"0s\""), 4, 9, "`grace` of nothing cannot be kept"),
        (in_vault("grace = 6"), 4, 9, "`grace` needs a unit"),
        (in_vault("compression = 22"), 4, 15, "from 1 (fast) to 19 (small)"),
        (in_vault("").replace("/v", "sftp://host/v"), 2, 7, "sftp:// is no place for a vault"),
        (format!("[job.shop]\n{SCHEDULE}{FILES}"), 1, 6, "there is no vault for this job"),
        (
            job(&format!("vault = \"mian\"\n{SCHEDULE}{FILES}")),
            5,
            9,
            "there is no [vault.mian] in this config; there is \"main\"",
        ),
        (
            with(FILES, &vault().replace("main", "other")),
            4,
            6,
            "which vault? write `vault = ` and one of \"main\", \"other\"",
        ),
        // Drills.
        (drill("identity = {}"), 14, 12, "exactly one of"),
        (drill("identity = { file = \"a\", env = \"B\" }"), 14, 12, "exactly one of"),
        (drill("identity = { flie = \"a\" }"), 14, 14, "no such place"),
        (drill("identity = { credential = \"../a\" }"), 14, 12, "holds no `/`"),
        (drill("check_timeout = \"2d\""), 14, 17, "at most 24h"),
        (drill("checks = [{}]"), 14, 11, "a check is { source, sql }"),
        (drill("checks = [{ source = \"db\", sql = \"a\", command = [\"b\"] }]"), 14, 11, "a check is"),
        (drill("checks = [{ sql = \"a\" }]"), 14, 11, "has no `source`"),
        (drill("checks = [{ source = \"db\", freshness = \"a\" }]"), 14, 11, "has no `within`"),
        (drill("checks = [{ source = \"db\", sql = \" \" }]"), 14, 34, "`sql` is empty"),
        (
            drill("checks = [{ source = \"nodb\", sql = \"a\" }]"),
            14,
            22,
            "no source \"nodb\"; this job's databases: db",
        ),
        (drill("checks = [{ source = \"uploads\", sql = \"a\" }]"), 14, 22, "of kind files cannot be asked with SQL"),
        (drill("checks = [{ command = [] }]"), 14, 23, "names no program"),
        // Not in this version.
        (
            files("url = \"mysql://u:p@db/x\"").replace("\"files\"", "\"mysql\""),
            8,
            8,
            "kind = \"mysql\" is not in this version yet",
        ),
        (
            files("").replace("\"files\"", "\"command\""),
            8,
            8,
            "not in this version yet; there are `files`, `sqlite` and `postgres`",
        ),
        (
            files("").replace("\"files\"", "\"fiels\""),
            8,
            8,
            "there is no such kind; there are `files`, `sqlite` and `postgres`; did you mean `files`?",
        ),
        (in_vault("").replace("/v", "s3://Acme/prod"), 2, 7, "lowercase letters, digits, `-` and `.`"),
        (in_vault("region = \"eu-1\""), 4, 10, "`region` belongs to a vault in a bucket"),
        (with(FILES, "[job.shop.check]"), 10, 11, "has no `schedule`"),
        ("[daemon]\nlisten = \"x\"".into(), 2, 10, "`listen` is an address and a port"),
        ("[daemon]\nnames = [\"a.b\", \"http://c\"]".into(), 2, 17, "without `http://`, port and path"),
        ("[daemon]\nnames = [\"*.internal\"]".into(), 2, 10, "without `http://`, port and path"),
        ("[daemon]\njitter = \"1d\"".into(), 2, 10, "`jitter` is at most 6h"),
        ("[daemon]\njobs_at_once = 0".into(), 2, 16, "from 1 to 16"),
    ]
}

#[test]
fn each_mistake_has_its_place_and_says_what_is_right() {
    let mut wrong = Vec::new();
    for (text, line, column, fragment) in bad() {
        let found = problems(&text);
        let hit =
            |problem: &Problem| (problem.line, problem.column) == (line, column) && problem.message.contains(fragment);
        if !found.iter().any(hit) {
            wrong.push(format!("{line}:{column} {fragment:?} is not in {found:#?} of\n{text}"));
        }
        let error = parse(&text).unwrap_err();
        assert_eq!(error.code(), Code::ConfigInvalid);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_misspelt_key_is_not_missing_too() {
    let text = job(&format!("{SCHEDULE}{FILES}")).replace("schedule", "corn");
    assert_eq!(problems(&text).len(), 1);
}

#[test]
fn all_mistakes_are_told_at_once_with_their_lines() {
    let text = job(&format!("corn = \"@daily\"\n{SCHEDULE}{FILES}excldue = []\n"));
    let shown = parse(&text).unwrap_err().to_string();
    assert_eq!(
        shown,
        "/etc/lifeboat/lifeboat.toml:5:1: unknown key `corn` in [job.shop]; did you mean `schedule`?\n    \
         5 | corn = \"@daily\"\n\
         /etc/lifeboat/lifeboat.toml:11:1: unknown key `excldue` in [job.shop.source.uploads]; did you mean `exclude`?\n    \
         11 | excldue = []"
    );
    let many: String = (0..30).map(|n| format!("nonsense{n} = 1\n")).collect();
    assert!(parse(&many).unwrap_err().to_string().ends_with("and 10 more"));
}

#[test]
fn no_secret_is_ever_shown() {
    let drill = |line: &str| job(&format!("{SCHEDULE}{FILES}[job.shop.drill]\n{line}\n"));
    let secret = minisign::KeyPair::generate_unencrypted_keypair().unwrap().sk.to_box(None).unwrap().into_string();
    let secret = secret.lines().nth(1).unwrap();
    let cases = [
        (vault().replace(RECIPIENT, IDENTITY), IDENTITY, "treat it as leaked"),
        (vault().replace(RECIPIENT, &IDENTITY.to_lowercase()), &IDENTITY.to_lowercase()[20..], "treat it as leaked"),
        (format!("# {IDENTITY}\n{}", vault()), IDENTITY, "treat it as leaked"),
        (drill(&format!("identity = \"{IDENTITY}\"")), IDENTITY, "treat it as leaked"),
        (
            drill("identity = \"hunter2\""),
            "hunter2",
            "`identity` must not stand in the config; say where it lies: { file",
        ),
        (drill("identity = { fiel = \"hunter2\" }"), "hunter2", "no such place"),
        (drill("identity = { env = \"hunter2=\" }"), "hunter2", "holds no `/`"),
        (drill("pasword = \"hunter2\""), "hunter2", "unknown key `pasword`"),
        (drill("idntity = \"hunter2\""), "hunter2", "did you mean `identity`?"),
        (format!("{}secret_key = \"hunter2\"\n", vault()), "hunter2", "`secret_key` must not stand in the config"),
        (format!("{}secret_key = hunter2\n", vault()), "hunter2", "not TOML"),
        (format!("{}trust = \"{secret}\"\n", vault()), &secret[10..], "what stood here is not shown"),
        (vault().replace("/srv/backups", "ftp://me:hunter2@host/x"), "hunter2", "ftp:// is no place"),
    ];
    for (text, secret, fragment) in cases {
        let error = parse(&text).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", error.hint());
        assert!(shown.contains(fragment), "{fragment:?} in {shown}");
        assert!(!shown.contains(secret), "{shown}");
    }
}

fn now() -> DateTime<Utc> {
    "2026-11-22T02:00:00Z".parse().unwrap()
}

fn worst(text: &str) -> Vec<Finding> {
    let settings = parse(text).unwrap();
    check(&settings, now(), &BTreeMap::new()).into_iter().filter(|finding| finding.severity != Severity::Note).collect()
}

fn daily(zone: &str, rpo: &str) -> String {
    let schedule = SCHEDULE.replace("15 */6", "0 2");
    format!("timezone = \"{zone}\"\n{}", job(&format!("{schedule}objectives = {{ rpo = \"{rpo}\" }}\n{FILES}")))
}

#[test]
fn an_rpo_that_the_schedule_cannot_keep() {
    for (zone, rpo, reached) in [
        ("UTC", "24h", Some("up to 24h between two backups (")),
        ("UTC", "24h1s", None),
        ("Europe/Berlin", "25h", Some("up to 25h between two backups (2027-10-31 02:00 to 2027-11-01 02:00")),
        ("Europe/Berlin", "25h1s", None),
    ] {
        let findings = worst(&daily(zone, rpo));
        assert_eq!(findings.is_empty(), reached.is_none(), "{zone} {rpo}: {findings:?}");
        if let Some(reached) = reached {
            assert_eq!((findings[0].severity, findings[0].code), (Severity::Error, Code::ObjectiveUnreachable));
            assert_eq!(findings[0].key, "job.shop.objectives.rpo");
            assert!(findings[0].message.contains(reached), "{:?}", findings[0].message);
        }
    }
    let finding = &worst(&daily("Europe/Berlin", "24h"))[0];
    assert!(
        finding.message.contains("across the autumn clock change), so an RPO of 24h cannot be kept"),
        "{finding:?}"
    );
    let hint = finding.hint.as_deref().unwrap();
    assert_eq!(hint, "write rpo = \"26h\", or schedule = \"0 */12 * * *\", which leaves at most 13h");
    // What is proposed holds.
    assert!(worst(&daily("Europe/Berlin", "26h")).is_empty());
    assert!(worst(&daily("Europe/Berlin", "24h").replace("0 2 * * *", "0 */12 * * *")).is_empty());
}

#[test]
fn measured_runs_make_it_a_warning() {
    let settings = parse(&daily("UTC", "25h")).unwrap();
    let shop: crate::domain::ids::JobName = "shop".parse().unwrap();
    let with = |minutes: u64| {
        let runs = BTreeMap::from([(shop.clone(), Duration::from_secs(minutes * 60))]);
        check(&settings, now(), &runs).into_iter().find(|finding| finding.severity != Severity::Note)
    };
    assert_eq!(with(59), None);
    let late = with(60).unwrap();
    assert_eq!((late.severity, late.code), (Severity::Warning, Code::ObjectiveUnreachable));
    assert!(late.message.contains("a backup took up to 1h 00m"), "{}", late.message);
}

#[test]
fn what_does_not_fit_together() {
    let source = |path: &str| job(&format!("{SCHEDULE}{}", FILES.replace("/srv/uploads", path)));
    let state = |state: &str, path: &str| format!("state_dir = \"{state}\"\n{}", source(path));
    let identity =
        |path: &str| source("/srv/uploads") + &format!("[job.shop.drill]\nidentity = {{ file = \"{path}\" }}\n");
    let rare = SCHEDULE.replace("15 */6 * * *", "@monthly");
    for (text, severity, fragment) in [
        (vault(), Severity::Warning, "there is no job"),
        (job(&format!("{SCHEDULE}objectives = {{ rto = \"1h\" }}\n{FILES}")), Severity::Warning, "never measured"),
        (job(&format!("{rare}{FILES}")), Severity::Error, "times without any backup"),
        (source("/srv"), Severity::Error, "the vault /srv/backups is backed up as a part of this source"),
        (state("/srv/state", "/srv/state/a/.."), Severity::Error, ""),
        (state("/srv/uploads/state", "/srv/uploads"), Severity::Warning, "the state folder"),
        (state("/srv/backups/state", "/srv/uploads"), Severity::Error, "lies in the vault"),
        (identity("/srv/backups/key"), Severity::Error, "the identity /srv/backups/key lies in the vault"),
        (identity("/srv/uploads/key"), Severity::Error, "the identity /srv/uploads/key is backed up"),
    ] {
        if fragment.is_empty() {
            assert!(parse(&text).is_err());
            continue;
        }
        let findings = worst(&text);
        let hit = findings.iter().any(|finding| finding.severity == severity && finding.message.contains(fragment));
        assert!(hit, "{fragment:?} in {findings:?} of\n{text}");
    }
    // Excluded is excluded.
    assert!(
        worst(&source("/srv").replace("kind = \"files\"", "kind = \"files\"\nexclude = [\"/backups\"]")).is_empty()
    );
    // Who starts the runs is not for the config to know.
    let notes = check(&parse(&source("/srv/uploads")).unwrap(), now(), &BTreeMap::new());
    assert!(notes.iter().any(|note| note.message.contains("starts nothing by itself")));
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// A job of a schedule, its two ages, and further lines of the job and its vault.
fn erasing(schedule: &str, keep_at_least: &str, delete_after: &str, more: &str, in_vault: &str) -> String {
    let retention = format!("retention = {{ keep_at_least = \"{keep_at_least}\", delete_after = \"{delete_after}\" }}");
    format!("{}{in_vault}\n[job.shop]\nschedule = \"{schedule}\"\n{retention}\n{more}\n{FILES}", vault())
}

#[test]
fn the_lead_follows_from_the_config() {
    let lead = |text: &str| {
        let settings = parse(text).unwrap();
        let job = settings.jobs.values().next().unwrap().clone();
        (settings.lead_of(&job, now()), settings.erasing_json(&job, now()))
    };
    // Prunes follow the backups; the clocks of a zone count.
    let (plain, shown) = lead(&erasing("0 2 * * *", "14d", "30d", "", ""));
    assert_eq!((plain.cadence, plain.grace, plain.sweep), (hours(24), hours(24), hours(1)));
    assert_eq!(plain.needed(), hours(73));
    assert_eq!((&shown["needed"], &shown["lead"]), (&"3d1h".into(), &"6d2h".into()));
    assert_eq!((&shown["window"], &shown["planned_expiry_age"]), (&"16d".into(), &"23d22h".into()));
    let berlin = format!("timezone = \"Europe/Berlin\"\n{}", erasing("0 2 * * *", "14d", "30d", "", ""));
    assert_eq!(lead(&berlin).0.cadence, hours(25));
    // Or they have a schedule of their own.
    let own = erasing("0 2 * * *", "14d", "30d", "prune = { schedule = \"0 */6 * * *\" }", "grace = \"2h\"");
    let (own, _) = lead(&own);
    assert_eq!((own.cadence, own.grace), (hours(6), hours(2)));
    assert_eq!(lead(&erasing("0 2 * * *", "14d", "30d", "prune = {}", "")).0, plain);
    // A tiny window has a tiny grace and a tiny allowance.
    let (tiny, shown) = lead(&erasing("* * * * *", "8m", "24m", "", ""));
    assert_eq!((tiny.grace, tiny.sweep), (Duration::from_secs(120), Duration::from_secs(60)));
    assert_eq!((&shown["needed"], &shown["planned_expiry_age"]), (&"5m".into(), &"14m".into()));
}

#[test]
fn the_grace_is_that_of_the_vaults_smallest_window() {
    let second = "[job.wiki]\nvault = \"main\"\nschedule = \"@hourly\"\n\
                  retention = { keep_at_least = \"8h\", delete_after = \"24h\" }\n\
                  [job.wiki.source.all]\nkind = \"files\"\npaths = [\"/srv/wiki\"]\n";
    let other = vault().replace("main", "other");
    let text = erasing("0 2 * * *", "14d", "30d", "vault = \"main\"", "") + second + &other;
    let settings = parse(&text).unwrap();
    assert_eq!(settings.grace_of(&settings.vaults["main"]), hours(2));
    // A vault without jobs here: another host's.
    assert_eq!(settings.grace_of(&settings.vaults["other"]), hours(24));
    for job in settings.jobs.values() {
        assert_eq!(settings.lead_of(job, now()).grace, hours(2));
    }
}

#[test]
fn a_retention_that_the_schedule_cannot_keep() {
    let unkeepable = |text: &str| worst(text).into_iter().find(|finding| finding.code == Code::RetentionUnkeepable);
    // 2 × 24h + 9h + 1h are 58h, and 72h are there; 2 × 24h + 6h + 1h, and 48h are.
    assert_eq!(unkeepable(&erasing("0 2 * * *", "1d", "4d", "", "")), None);
    let finding = unkeepable(&erasing("0 2 * * *", "1d", "3d", "", "")).unwrap();
    assert_eq!((finding.severity, finding.key.as_str()), (Severity::Error, "job.shop.retention"));
    assert_eq!(
        finding.message,
        "nothing is to be left after 3d, and that cannot be kept: erasing takes 24h + 24h between prunes + 6h of grace + \
         1h for the sweep = 2d7h, and between `keep_at_least` and `delete_after` lie only 2d"
    );
    assert_eq!(
        finding.hint.unwrap(),
        "write delete_after = \"4d\", or a table [job.shop.prune] with schedule = \"0 */12 * * *\", which needs 31h"
    );
    let own = "prune = { schedule = \"0 0 * * 0\" }";
    let finding = unkeepable(&erasing("0 2 * * *", "1d", "10d", own, "grace = \"3d\"")).unwrap();
    assert_eq!(
        finding.hint.unwrap(),
        "write delete_after = \"19d\", or job.shop.prune.schedule = \"0 2 * * *\", which needs 5d1h"
    );
    let finding = unkeepable(&erasing("0 2 * * *", "1d", "4d", "", "grace = \"2d\"")).unwrap();
    assert_eq!(
        finding.hint.unwrap(),
        "write delete_after = \"6d\", or a table [job.shop.prune] with schedule = \"0 */8 * * *\", which needs 2d17h, or \
         vault.main.grace = \"23h\" or less"
    );
}

#[test]
fn long_runs_make_a_tight_retention_a_warning() {
    // 58 h of 60 h are needed.
    let settings = parse(&erasing("0 2 * * *", "1d", "84h", "", "grace = \"9h\"")).unwrap();
    let shop: crate::domain::ids::JobName = "shop".parse().unwrap();
    let with = |minutes: u64| {
        let runs = BTreeMap::from([(shop.clone(), Duration::from_secs(minutes * 60))]);
        check(&settings, now(), &runs).into_iter().find(|finding| finding.code == Code::RetentionUnkeepable)
    };
    assert_eq!(with(120), None);
    let tight = with(121).unwrap();
    assert_eq!((tight.severity, tight.key.as_str()), (Severity::Warning, "job.shop.retention"));
    assert!(tight.message.contains("= 2d10h, a backup took up to 2h 01m"), "{}", tight.message);
    assert_eq!(tight.hint.as_deref(), Some("write delete_after = \"4d\""));
}

#[test]
fn what_is_proposed_for_a_retention_holds() {
    for (schedule, keep, delete, in_vault) in [
        ("0 2 * * *", "1d", "3d", ""),
        ("0 2 * * *", "1h", "2h", ""),
        ("@weekly", "14d", "29d", ""),
        ("@monthly", "14d", "30d", ""),
        ("@yearly", "14d", "30d", ""),
        ("* * * * *", "1m", "2m", ""),
        ("* * * * *", "1m", "70s", ""),
        ("*/5 * * * *", "1m", "3h", "grace = \"4h\""),
        ("0 2 * * *", "14d", "30d", "grace = \"400h\""),
        ("0 2 29 2 *", "14d", "30d", ""),
    ] {
        let text = |delete: &str, more: &str| erasing(schedule, keep, delete, more, in_vault);
        let finding = worst(&text(delete, "")).into_iter().find(|finding| finding.code == Code::RetentionUnkeepable);
        let hint = finding.unwrap_or_else(|| panic!("{schedule} {keep} {delete} fits")).hint.unwrap();
        let after = |start: &str| hint.split_once(start).map(|(_, rest)| rest.split_once('"').unwrap().0.to_owned());
        let fits = |text: &str| worst(text).iter().all(|finding| finding.code != Code::RetentionUnkeepable);
        let figure = after("delete_after = \"").unwrap();
        assert!(fits(&text(&figure, "")), "{hint}");
        if let Some(prunes) = after("schedule = \"") {
            assert!(fits(&text(delete, &format!("prune = {{ schedule = \"{prunes}\" }}"))), "{hint}");
        }
        if let Some(grace) = after("grace = \"") {
            let shorter = erasing(schedule, keep, delete, "", &format!("grace = \"{grace}\""));
            assert!(fits(&shorter), "{hint}");
        }
    }
}

#[test]
fn held_against_this_host() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lifeboat.toml");
    let text = job(&format!("{SCHEDULE}{FILES}{SQLITE}"))
        .replace("/srv/backups", "vault")
        .replace("/srv/uploads", "uploads")
        .replace("/srv/shop.db", "shop.db");
    let find = || -> Vec<(Severity, String)> {
        let settings = Settings::parse(&text, &file).unwrap();
        check_host(&settings).into_iter().map(|finding| (finding.severity, finding.key)).collect()
    };
    let missing = [
        (Severity::Warning, "job.shop.source.uploads.paths".to_owned()),
        (Severity::Warning, "job.shop.source.db.path".to_owned()),
    ];
    assert_eq!(find()[..2], missing);
    assert_eq!(find()[2], (Severity::Note, "vault.main.url".to_owned()));
    std::fs::create_dir(folder.path().join("uploads")).unwrap();
    std::fs::write(folder.path().join("shop.db"), "").unwrap();
    std::fs::write(folder.path().join("vault"), "").unwrap();
    assert_eq!(find(), [(Severity::Error, "vault.main.url".to_owned())]);
    std::fs::remove_file(folder.path().join("vault")).unwrap();
    std::fs::create_dir(folder.path().join("vault")).unwrap();
    std::fs::write(&file, &text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(find(), [(Severity::Warning, String::new())]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(find(), []);
    assert_eq!(Settings::load(Some(&file)).unwrap().file, file);
    let gone = Settings::load(Some(&PathBuf::from("/nowhere/lifeboat.toml"))).unwrap_err();
    assert_eq!(gone.code(), Code::ConfigMissing);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 600, ..Default::default() })]

    /// A slip of the finger anywhere is an error with a place, or another config; never a panic.
    #[test]
    fn a_config_with_slips(
        slips in proptest::collection::vec((0_usize..2_000, 0_usize..12, "[a-z0-9\"'=.#\\[\\]{},\\n\\\\ é-]{0,3}"), 1..4),
    ) {
        let mut text = whole();
        for (at, cut, put) in slips {
            let chars: Vec<char> = text.chars().collect();
            let at = at % chars.len();
            let tail = (at + cut).min(chars.len());
            text = chars[..at].iter().copied().chain(put.chars()).chain(chars[tail..].iter().copied()).collect();
        }
        match parse(&text) {
            Ok(settings) => {
                let _ = check(&settings, now(), &BTreeMap::new());
                for job in settings.jobs.values() {
                    assert!(settings.vault_of(job).is_some() && !job.sources.is_empty());
                    assert!(settings.without_secrets(&job.name).is_object());
                    assert!(settings.lead_of(job, now()).length(&job.retention) <= job.retention.window());
                }
            }
            Err(ConfigError::Invalid { problems, .. }) => {
                for problem in problems {
                    let line = text.split('\n').nth(problem.line - 1).unwrap();
                    assert!(problem.column <= line.chars().count() + 1, "{problem:?} of\n{text}");
                }
            }
            Err(other) => panic!("{other}"),
        }
    }
}

const OFFSITE: &str = "[vault.offsite]\nurl = \"/mnt/offsite\"\nrecipients = [\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\"]\n";

fn with_copy(more: &str) -> String {
    format!(
        "[vault.main]\nurl = \"/srv/backups\"\nrecipients = [\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\"]\n\
         [job.shop]\nschedule = \"15 */6 * * *\"\nretention = {{ keep_at_least = \"14d\", delete_after = \"30d\" }}\n{FILES}{OFFSITE}{more}"
    )
}

#[test]
fn a_copy_is_a_second_vault_that_no_job_writes_to() {
    let good = with_copy("[job.shop.copy]\nto = \"offsite\"\nschedule = \"30 */6 * * *\"\n");
    let settings = Settings::parse(&good, Path::new("/etc/lifeboat.toml")).unwrap();
    let job = settings.jobs.values().next().unwrap();
    assert_eq!(job.copy.as_ref().map(|copy| copy.to.as_str()), Some("offsite"));
    // The other one is the only one that a job can mean.
    let own = job.vault.clone();
    assert_eq!(settings.vaults["offsite"].role, crate::config::VaultRole::Copy { of: own.clone() });
    assert_eq!(settings.vaults[&own].role, crate::config::VaultRole::Own);
    assert_eq!(settings.jobs_in("offsite").count(), 1);
    for (more, says) in [
        ("[job.shop.copy]\nto = \"elsewhere\"\n", "there is no [vault.elsewhere]"),
        ("[job.shop.copy]\nschedule = \"30 */6 * * *\"\n", "to"),
        ("[job.shop.copy]\nto = \"offsite\"\nschedule = \"often\"\n", "often"),
    ] {
        let error = Settings::parse(&with_copy(more), Path::new("/etc/lifeboat.toml")).unwrap_err();
        assert!(error.to_string().contains(says), "{more}: {error}");
    }
}
