//! Several hosts on one vault, and those whom it trusts over time: hosts that come and are revoked, recipients that come
//! and go, and a vault.json that somebody puts back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{PROGRAM, Said, World, said};

/// The config of the second host: a state folder, a key and a job of its own, on the first one's vault.
pub(crate) const SECOND: &str = "second/lifeboat.toml";

/// A world with a second host whose key no one knows yet.
fn two_hosts() -> World {
    let world = World::new();
    fs::create_dir_all(world.path("second/posts")).unwrap();
    fs::write(world.path("second/posts/hello"), "hello").unwrap();
    let first: toml::Table = fs::read_to_string(world.path("lifeboat.toml")).unwrap().parse().unwrap();
    let vault = &first["vault"]["main"];
    let config = format!(
        r#"
state_dir = "state"
[vault.main]
url = "../vault"
recipients = [{}]
trust = {}
[job.blog]
schedule = "15 */6 * * *"
retention = {{ keep_at_least = "14d", delete_after = "60d" }}
[job.blog.source.posts]
kind = "files"
paths = ["posts"]
[job.shop]
schedule = "15 */6 * * *"
retention = {{ keep_at_least = "14d", delete_after = "30d" }}
[job.shop.source.uploads]
kind = "files"
paths = ["posts"]
[job.shop.drill]
scratch = "{}"
"#,
        vault["recipients"][0],
        vault["trust"],
        world.scratch().display()
    );
    fs::write(world.path(SECOND), config).unwrap();
    world
}

/// Runs the program on the second host, and demands an exit code.
#[track_caller]
fn second(world: &World, code: i32, args: &[&str]) -> Said {
    world.expect(code, &[args, &["--config", SECOND]].concat())
}

#[track_caller]
fn second_json(world: &World, code: i32, args: &[&str]) -> Value {
    world.json(code, &[args, &["--config", SECOND]].concat())
}

/// The line that a second host's `init` says is to be typed, as words; `name` in the place of the proposed one.
fn command_to_add<'s>(said: &'s Said, name: &'s str) -> Vec<&'s str> {
    let line =
        said.stderr.lines().find(|line| line.contains("lifeboat host add")).unwrap_or_else(|| panic!("{said:?}"));
    let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
    words[2] = name;
    for word in &mut words {
        if *word == "FILE" {
            *word = "vault.key";
        }
    }
    words
}

/// Two hosts, the second of which may write `blog`.
pub(crate) fn two_known_hosts() -> World {
    let world = two_hosts();
    let init = second(&world, 0, &["init"]);
    world.expect(0, &[&command_to_add(&init, "web-2")[..], &["--jobs", "blog"]].concat());
    world
}

fn trust_document(world: &World) -> Value {
    serde_json::from_str(&fs::read_to_string(world.path("vault/vault.json")).unwrap()).unwrap()
}

fn serial(world: &World) -> u64 {
    trust_document(world)["serial"].as_u64().unwrap()
}

fn ids(document: &Value) -> Vec<&str> {
    document["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap()).collect()
}

fn new_recipient(world: &World, file: &str) -> String {
    world.expect(0, &["key", "new", file]).stdout.trim().to_owned()
}

#[test]
fn a_second_host_joins_by_the_command_that_its_init_says() {
    let world = two_hosts();
    world.backup();
    let init = second(&world, 0, &["init"]);
    assert!(init.stderr.contains("made  host key") && init.stderr.contains("found vault"), "{}", init.stderr);
    let refused = second(&world, 1, &["backup", "blog"]);
    assert!(refused.stderr.contains("lifeboat host add NAME --key RW"), "{}", refused.stderr);
    let document = second_json(&world, 0, &["init"]);
    let stranger = &document["vaults"][0]["stranger"];
    assert!(init.stderr.contains(stranger["key"].as_str().unwrap()), "{document}");
    assert_ne!(stranger["name"], trust_document(&world)["hosts"][0]["name"], "the proposed name is free");

    let add = command_to_add(&init, "web-2");
    world.expect(0, &add);
    assert_eq!(serial(&world), 2);
    let again = world.expect(0, &add);
    assert!(again.stderr.contains("nothing was changed") && serial(&world) == 2, "{}", again.stderr);
    assert_eq!(second_json(&world, 0, &["init"])["vaults"][0]["stranger"], Value::Null);

    // It backs its own job up, drills its own and the first one's, and the first one believes it.
    second(&world, 0, &["backup", "blog"]);
    second(&world, 0, &["drill", "--identity", "identity.txt"]);
    world.expect(0, &["check", "--read-data", "--identity", "identity.txt"]);
    world.expect(0, &["catalog", "rebuild"]);
    let list = world.json(0, &["list"]);
    let verdicts: Vec<_> = list["backups"].as_array().unwrap().iter().map(|b| (&b["job"], &b["verdict"])).collect();
    assert_eq!(verdicts.len(), 2, "{list}");
    assert!(verdicts.iter().all(|(_, verdict)| **verdict == "proven"), "{list}");
    let status = world.json(0, &["status"]);
    assert!(status["jobs"][0]["last_drill"].to_string().contains("passed"), "the drill of the other host: {status}");

    let hosts = world.json(0, &["host", "list"]);
    let hosts = hosts["hosts"].as_array().unwrap();
    assert_eq!((&hosts[1]["name"], &hosts[1]["jobs"][0]), (&"web-2".into(), &"*".into()));
    assert_eq!((&hosts[0]["this_host"], &hosts[1]["this_host"]), (&true.into(), &false.into()));
    assert_eq!(hosts[1]["last_manifests"]["blog"]["sequence"], 1, "{hosts:?}");
    let seen_there = second(&world, 0, &["host", "list"]).stdout;
    assert!(seen_there.contains("web-2 (this one)") && seen_there.contains("blog 1"), "{seen_there}");
}

#[test]
fn a_host_writes_its_own_jobs_and_gets_more() {
    let world = two_known_hosts();
    second(&world, 0, &["backup", "blog"]);
    let refused = second(&world, 1, &["backup", "shop"]);
    assert!(refused.stderr.contains("web-2 may not sign job shop"), "{}", refused.stderr);
    let hint = refused.stderr.lines().find(|line| line.contains("--jobs shop")).unwrap();
    let typed = hint.split('`').nth(1).unwrap().replace("FILE", "vault.key");
    world.expect(0, &typed.split_whitespace().skip(1).collect::<Vec<_>>());
    assert_eq!(trust_document(&world)["hosts"][1]["jobs"], serde_json::json!(["blog", "shop"]));
    second(&world, 0, &["backup", "shop"]);
    world.expect(0, &["check"]);
}

#[test]
fn a_revoked_host_is_believed_for_what_it_wrote_before_and_no_more() {
    let world = two_known_hosts();
    world.backup();
    for _ in 0..3 {
        second(&world, 0, &["backup", "blog"]);
    }
    let before = world.json(0, &["list", "blog"]);
    for (last, what) in [("blog=4", "number 3, not 4"), ("shop=1", "no backup of job shop"), ("blog", "not a job")] {
        let said = world.expect(2, &["host", "revoke", "web-2", "--last", last, "--vault-key", "vault.key"]);
        assert!(said.stderr.contains(what), "{}", said.stderr);
    }
    world.expect(2, &["host", "revoke", "web-3", "--vault-key", "vault.key"]);
    assert_eq!(serial(&world), 2);
    let old: Vec<Vec<u8>> =
        ["vault.json", "vault.json.minisig"].map(|f| fs::read(world.path("vault").join(f)).unwrap()).to_vec();

    let said = world.expect(0, &["host", "revoke", "web-2", "--vault-key", "vault.key"]);
    assert!(said.stderr.contains("its backups of blog up to number 3"), "{}", said.stderr);
    world.expect(0, &["check"]);
    assert_eq!(ids(&world.json(0, &["list", "blog"])), ids(&before));
    let refused = second(&world, 1, &["backup", "blog"]);
    assert!(refused.stderr.contains("was revoked") && refused.stderr.contains("lifeboat init"), "{}", refused.stderr);

    // The thief puts the old vault.json back, on a machine that never saw the new one, and writes.
    let new: Vec<Vec<u8>> =
        ["vault.json", "vault.json.minisig"].map(|f| fs::read(world.path("vault").join(f)).unwrap()).to_vec();
    put_back(&world, &old);
    for memory in fs::read_dir(world.path("second/state/vaults")).unwrap() {
        let path = memory.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "serials") {
            fs::remove_file(path).unwrap();
        }
    }
    second(&world, 0, &["backup", "blog"]);
    for args in [&["backup"][..], &["list"], &["check"], &["init"], &["host", "list"]] {
        let refused = world.expect(20, args);
        assert!(refused.stderr.contains("[vault-untrusted]"), "{}", refused.stderr);
        assert!(refused.stderr.contains("it has number 2, and this host saw number 3"), "{}", refused.stderr);
    }
    put_back(&world, &new);
    assert_eq!(ids(&world.json(0, &["list", "blog"])), ids(&before), "what was written since is not believed");
    let check = world.expect(20, &["check"]);
    assert!(check.stdout.contains("host web-2 was revoked before it"), "{}", check.stdout);
    let stopped = world.expect(20, &["backup"]);
    assert!(stopped.stderr.contains("[deletion-stopped]"), "backed up, and nothing deleted: {}", stopped.stderr);

    // The theft was earlier than thought: less is believed, never more.
    world.expect(2, &["host", "revoke", "web-2", "--vault-key", "vault.key"]);
    let said = world.expect(0, &["host", "revoke", "web-2", "--last", "blog=1", "--vault-key", "vault.key"]);
    assert!(said.stderr.matches("no longer believed: ").count() == 2, "{}", said.stderr);
    assert_eq!(ids(&world.json(0, &["list", "blog"])), ids(&before)[..1]);

    // Neither its key nor its name comes back.
    let document = trust_document(&world);
    let key = document["hosts"][1]["key"].as_str().unwrap();
    let add = |name: &str, key: &str| world.expect(2, &["host", "add", name, "--key", key, "--vault-key", "vault.key"]);
    assert!(add("web-3", key).stderr.contains("is revoked"));
    fs::remove_file(world.path("second/state/host.key")).unwrap();
    let init = second(&world, 0, &["init"]);
    let add_again = command_to_add(&init, "web-2");
    assert!(world.expect(2, &add_again).stderr.contains("such as web-2-2"));
    world.expect(0, &command_to_add(&init, "web-2-2"));
    // What is not believed of the old one holds up what would be erased; the backup is good.
    let said = second(&world, 20, &["backup", "blog"]);
    assert!(said.stderr.contains("blog: the backup is good"), "{}", said.stderr);
    assert_eq!(ids(&world.json(0, &["list", "blog"])).len(), 2);
}

#[test]
fn a_key_that_was_stolen_a_while_ago_is_revoked_from_then_on() {
    let world = two_known_hosts();
    for _ in 0..3 {
        second(&world, 0, &["backup", "blog"]);
    }
    let before = world.json(0, &["list", "blog"]);
    let hosts = world.json(0, &["host", "list"]);
    let stolen = hosts["hosts"][1]["last_manifests"]["blog"]["committed"].as_str().unwrap();
    let revoke = ["host", "revoke", "web-2", "--vault-key", "vault.key"];
    let said = world.expect(2, &[&revoke[..], &["--at", "2999-01-01"]].concat());
    assert!(said.stderr.contains("is yet to come"), "{}", said.stderr);
    assert_eq!(serial(&world), 2);

    let said = world.json(0, &[&revoke[..], &["--at", stolen]].concat());
    assert_eq!((&said["last_manifests"]["blog"], said["disowned"].as_array().unwrap().len()), (&2.into(), 1));
    assert_eq!(ids(&world.json(0, &["list", "blog"])), ids(&before)[..2]);
    let check = world.expect(20, &["check"]);
    for folder in ["backups/blog/", "records/runs/"] {
        let is_told = |line: &str| {
            line.contains(folder) && line.ends_with("host web-2 was revoked before it [manifest-untrusted]")
        };
        assert_eq!(check.stdout.lines().filter(|line| is_told(line)).count(), 1, "{}", check.stdout);
    }

    // It was earlier still; never later.
    world.expect(2, &[&revoke[..], &["--at", stolen]].concat());
    world.expect(0, &[&revoke[..], &["--at", "2020-01-01"]].concat());
    let none = world.expect(2, &["list", "blog"]);
    assert!(none.stderr.contains("[not-found]"), "{}", none.stderr);
    world.expect(2, &[&revoke[..], &["--at", stolen]].concat());
}

fn put_back(world: &World, files: &[Vec<u8>]) {
    for (name, bytes) in ["vault.json", "vault.json.minisig"].iter().zip(files) {
        fs::write(world.path("vault").join(name), bytes).unwrap();
    }
}

#[test]
fn another_key_than_the_vaults_changes_nothing() {
    let world = two_hosts();
    let init = second(&world, 0, &["init"]);
    let other = World::new();
    fs::copy(other.path("vault.key"), world.path("other.key")).unwrap();
    let before = fs::read(world.path("vault/vault.json")).unwrap();
    let config = fs::read(world.path("lifeboat.toml")).unwrap();
    let recipient = new_recipient(&world, "boris.txt");
    let mut add = command_to_add(&init, "web-2");
    let at = add.iter().position(|word| *word == "vault.key").unwrap();
    for key in ["other.key", "nowhere.key"] {
        add[at] = key;
        let first = trust_document(&world)["hosts"][0]["name"].as_str().unwrap().to_owned();
        for args in [
            &add[..],
            &["host", "revoke", &first, "--vault-key", key],
            &["recipient", "add", &recipient, "--vault-key", key],
        ] {
            let said = world.expect(1, args);
            assert!(said.stderr.contains("[key-missing]") && said.stderr.contains(key), "{}", said.stderr);
        }
    }
    world.expect(1, &["recipient", "add", &recipient]);
    assert_eq!(fs::read(world.path("vault/vault.json")).unwrap(), before);
    assert_eq!(fs::read(world.path("lifeboat.toml")).unwrap(), config);
    // A key that is none is not shown: it might be the secret half.
    for args in [
        &["host", "add", "x", "--key", "SECRETSECRET", "--vault-key", "vault.key"][..],
        &["recipient", "add", "AGE-SECRET-KEY-1SECRETSECRET", "--vault-key", "vault.key"],
    ] {
        let said = world.expect(2, args);
        assert!(!said.stderr.contains("SECRETSECRET"), "{}", said.stderr);
    }
}

#[test]
fn a_bare_machine_with_the_keys_can_add_and_revoke() {
    let world = two_hosts();
    let init = second(&world, 0, &["init"]);
    let bare = World::empty();
    for file in ["vault.key", "identity.txt"] {
        fs::copy(world.path(file), bare.path(file)).unwrap();
    }
    let vault = world.path("vault");
    let there = ["--vault", vault.to_str().unwrap(), "--identity", "identity.txt"];
    bare.expect(0, &[&command_to_add(&init, "web-2")[..], &there].concat());
    second(&world, 0, &["backup", "blog"]);
    let list = bare.expect(0, &[&["host", "list"][..], &there].concat());
    assert!(list.stdout.contains("blog 1"), "{}", list.stdout);
    bare.expect(0, &[&["host", "revoke", "web-2", "--vault-key", "vault.key"][..], &there].concat());
    second(&world, 1, &["backup", "blog"]);
}

/// How many segments the newest backup stored anew, and how many it has.
fn sealed_anew(world: &World) -> (u64, u64) {
    let document = world.json(0, &["backup"]);
    let backup = &document["runs"][0]["backup"];
    (backup["new_segments"].as_u64().unwrap(), backup["segments"].as_u64().unwrap())
}

#[test]
fn recipients_come_and_go_and_everything_is_sealed_anew() {
    let world = two_known_hosts();
    let text = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let anne = table["vault"]["main"]["recipients"][0].as_str().unwrap().to_owned();
    let line = text.lines().find(|line| line.starts_with("recipients")).unwrap();
    let commented = format!("recipients = [\n  # who can read it all\n  \"{anne}\", # anne\n] # two safes");
    let text = text.replace(line, &commented);
    fs::write(world.path("lifeboat.toml"), &text).unwrap();
    world.backup();
    second(&world, 0, &["backup", "blog"]);

    let boris = new_recipient(&world, "boris.txt");
    world.expect(2, &["recipient", "add", "age1nobody", "--vault-key", "vault.key"]);
    world.expect(2, &["recipient", "remove", &boris, "--vault-key", "vault.key"]);
    let last = world.expect(2, &["recipient", "remove", &anne, "--vault-key", "vault.key"]);
    assert!(last.stderr.contains("is the last recipient"), "{}", last.stderr);
    assert_eq!(fs::read_to_string(world.path("lifeboat.toml")).unwrap(), text);

    let added = world.expect(0, &["recipient", "add", &boris, "--vault-key", "vault.key"]);
    assert!(
        added.stderr.contains(&format!("without the vault key: lifeboat recipient add {boris}")),
        "{}",
        added.stderr
    );
    let changed = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    assert_eq!(changed, text.replace("# anne\n", &format!("# anne\n  \"{boris}\",\n")));
    let (new, all) = sealed_anew(&world);
    assert_eq!(new, all, "everything is sealed to the new one");
    world.expect(0, &["restore", "shop", "--to", "out", "--identity", "boris.txt"]);
    world.expect(0, &["check"]);

    // The vault key is not needed where vault.json approves it already.
    second(&world, 0, &["recipient", "add", &boris]);
    second(&world, 0, &["backup", "blog"]);
    assert_eq!(serial(&world), 3);

    let removed = world.expect(0, &["recipient", "remove", &anne, "--vault-key", "vault.key"]);
    assert!(removed.stderr.contains("reaches the vault can read: 4 backups."), "{}", removed.stderr);
    assert!(removed.stderr.contains(" of shop, must be gone by 20"), "{}", removed.stderr);
    assert!(removed.stderr.contains("their configs say: blog"), "{}", removed.stderr);
    let changed = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    assert!(changed.contains(&format!("recipients = [\n  \"{boris}\",\n] # two safes")), "{changed}");
    let (new, all) = sealed_anew(&world);
    assert_eq!(new, all, "and nothing to the old one");
    world.expect(12, &["restore", "shop", "--to", "out2", "--identity", "identity.txt"]);
    world.expect(0, &["check"]);

    // The second host has not heard of it: its next backup is sealed to somebody whom nobody approves any more.
    second(&world, 0, &["backup", "blog"]);
    let check = world.expect(20, &["check"]);
    assert!(check.stdout.contains("recipient-unapproved") && check.stdout.contains(&anne), "{}", check.stdout);
    assert_eq!(check.stdout.matches("DAMAGED").count(), 1, "what was approved in its time is: {}", check.stdout);
    assert!(second(&world, 0, &["doctor", "blog"]).stdout.contains("whom vault.json does not approve"));
    second(&world, 0, &["recipient", "remove", &anne]);
    let list = second_json(&world, 0, &["recipient", "list"]);
    let states: Vec<_> =
        list["recipients"].as_array().unwrap().iter().map(|r| (&r["in_config"], &r["approved"])).collect();
    assert_eq!(states, [(&true.into(), &true.into()), (&false.into(), &false.into())], "{list}");
    assert!(second(&world, 0, &["doctor", "blog"]).stdout.contains("this host may write it"));
}

#[test]
fn where_the_config_cannot_be_written_nothing_is_changed() {
    let world = World::new();
    let boris = new_recipient(&world, "boris.txt");
    let before = fs::read(world.path("vault/vault.json")).unwrap();
    let script = "mount --bind lifeboat.toml lifeboat.toml && mount -o remount,bind,ro lifeboat.toml; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh", PROGRAM]);
    command.args(["recipient", "add", &boris, "--vault-key", "vault.key"]);
    let refused = said(command.current_dir(world.path("")).stdin(Stdio::null()));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("it is as it was") && refused.stderr.contains("recipients = [\"age1"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains(&boris), "{refused:?}");
    assert_eq!(fs::read(world.path("vault/vault.json")).unwrap(), before);
    let leftovers = fs::read_dir(world.path(""))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(".tmp"));
    assert_eq!(leftovers.count(), 0);

    // Who changes the line by hand types the command again.
    let text = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let line = refused.stderr.lines().find_map(|line| line.split_once("again: ")).unwrap().1;
    let old = text.lines().find(|line| line.starts_with("recipients")).unwrap();
    fs::write(world.path("lifeboat.toml"), text.replace(old, line)).unwrap();
    world.expect(0, &["recipient", "add", &boris, "--vault-key", "vault.key"]);
    assert_eq!(trust_document(&world)["recipients"].as_array().unwrap().len(), 2);
    let mode = fs::metadata(world.path("lifeboat.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
