//! Every error code, produced through the program: with its exit code, its name in brackets and a hint.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use lifeboat::clock::ManualClock;
use lifeboat::error::Code;
use lifeboat::observe::Silent;

use crate::erasing::Timeline;
use crate::resume::{back_up, config};
use crate::support::{PROGRAM, Said, World, said};

/// Codes that no honest world produces through the program, and why.
const NOT_HERE: &[(Code, &str)] = &[
    (Code::DataUnsafe, "needs a writer that lies, with the host's own key: damage.rs forges one"),
    (Code::StorageDenied, "needs a server that refuses: s3/rights.rs has one"),
    (Code::LockUnavailable, "needs a bucket without Object Lock: s3/lock.rs of the storage's tests has one"),
    (Code::Killed, "is on record, and no error of a command: kill.rs looks at it"),
    (Code::DemoFailed, "the demo's own story must differ from reality: demo.rs sees to that"),
    (Code::Internal, "a rule of ours is broken: known ways are bugs, and fixed"),
];

/// A code, the exit code it comes with, and what provokes it. A drill that fails exits with 21 whatever made it fail.
type Case = (Code, i32, fn() -> Said);

const CASES: &[Case] = &[
    (Code::Usage, 2, || World::new().run(&["report", "--since", "yesterday"])),
    (Code::NotFound, 2, || World::new().run(&["backup", "shopp"])),
    (Code::TargetNotEmpty, 2, || {
        backed_up().run(&["restore", "shop", "--to", "uploads", "--identity", "identity.txt"])
    }),
    (Code::ConfigMissing, 78, || World::empty().run(&["status", "--config", "none.toml"])),
    (Code::ConfigInvalid, 78, || edited("schedule ", "schedul ").run(&["backup"])),
    (Code::ObjectiveUnreachable, 78, || edited("rpo = \"24h\"", "rpo = \"1h\"").run(&["config", "check"])),
    (Code::RetentionUnkeepable, 78, || {
        edited("delete_after = \"30d\"", "delete_after = \"14d12h\"").run(&["config", "check"])
    }),
    (Code::SecretUnavailable, 21, || {
        let world = World::with_drill("identity = { file = \"nowhere.txt\" }");
        world.backup();
        world.run(&["drill"])
    }),
    (Code::VaultMissing, 10, || {
        let world = World::new();
        fs::remove_dir_all(world.path("vault")).unwrap();
        world.run(&["backup"])
    }),
    (Code::VaultVersion, 10, || {
        let world = World::new();
        let text = fs::read_to_string(world.path("vault/vault.json")).unwrap();
        let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
        document["version"] = 2.into();
        fs::write(world.path("vault/vault.json"), document.to_string()).unwrap();
        let mut sign = Command::new("minisign");
        sign.args(["-S", "-W", "-s", "vault.key", "-m", "vault/vault.json"]).current_dir(world.path(""));
        let signed = said(sign.stdin(Stdio::null()));
        assert_eq!(signed.code, Some(0), "{signed:?}");
        world.run(&["backup"])
    }),
    (Code::VaultUntrusted, 20, || {
        let world = World::new();
        change(&world, "vault/vault.json", |bytes| bytes.push(b' '));
        world.run(&["backup"])
    }),
    (Code::ManifestUntrusted, 20, || {
        let world = backed_up();
        let manifest = manifests(&world).remove(0);
        change(&world, &format!("vault/{manifest}"), |bytes| bytes.push(b' '));
        world.run(&["restore", "shop", "--to", "out", "--identity", "identity.txt"])
    }),
    (Code::ManifestMissing, 20, || {
        let world = backed_up();
        let manifest = manifests(&world).remove(0);
        world.backup();
        fs::remove_file(world.path(format!("vault/{manifest}"))).unwrap();
        fs::remove_file(world.path(format!("vault/{manifest}.minisig"))).unwrap();
        world.run(&["check"])
    }),
    (Code::ObjectDamaged, 20, || {
        let world = backed_up();
        change(&world, &format!("vault/{}", largest(&world)), |bytes| bytes[100_000] ^= 1);
        world.run(&["restore", "shop", "--to", "out", "--identity", "identity.txt"])
    }),
    (Code::ObjectMissing, 20, || {
        let world = backed_up();
        fs::remove_file(world.path(format!("vault/{}", largest(&world)))).unwrap();
        world.run(&["restore", "shop", "--to", "out", "--identity", "identity.txt"])
    }),
    (Code::NotifyFailed, 1, || {
        let world = World::new();
        change(&world, "lifeboat.toml", |bytes| {
            bytes.extend(b"\n[notify.own]\nkind = \"command\"\ncommand = [\"false\"]\n");
        });
        world.run(&["notify", "test"])
    }),
    (Code::HostUnauthorised, 1, || {
        let (world, other) = (World::new(), World::new());
        fs::copy(other.path("state/host.key"), world.path("state/host.key")).unwrap();
        world.run(&["backup"])
    }),
    (Code::RecipientUnapproved, 20, || {
        let world = World::new();
        let recipient = |file: &str| world.expect(0, &["key", "new", file]).stdout.trim().to_owned();
        let (approved, stranger) = (recipient("approved.txt"), recipient("stranger.txt"));
        world.expect(0, &["recipient", "add", &approved, "--vault-key", "vault.key"]);
        change(&world, "lifeboat.toml", |bytes| {
            *bytes = String::from_utf8(bytes.clone()).unwrap().replace(&approved, &stranger).into_bytes();
        });
        world.backup();
        world.run(&["check"])
    }),
    (Code::KeyMissing, 1, || backed_up().run(&["restore", "shop", "--to", "out", "--identity", "nowhere.txt"])),
    (Code::Locked, 11, || {
        let world = backed_up();
        let lock = fs::OpenOptions::new().write(true).open(world.path("state/locks/shop.backup.lock")).unwrap();
        lock.lock().unwrap();
        world.run(&["backup"])
    }),
    (Code::ClockWrong, 1, || {
        let world = backed_up();
        let ahead = Arc::new(ManualClock::at(Utc::now() + TimeDelta::hours(1)));
        back_up(&config(&world), ahead, &Silent, |storage| storage).unwrap();
        world.run(&["backup"])
    }),
    (Code::ClaimLost, 1, claim_lost),
    (Code::DeletionStopped, 20, || {
        let world = backed_up();
        let manifest = manifests(&world).remove(0);
        change(&world, &format!("vault/{manifest}"), |bytes| bytes.push(b' '));
        world.run(&["prune"])
    }),
    (Code::ErasureBreached, 23, || {
        let timeline = Timeline::new(r#"keep_at_least = "4d", delete_after = "12d""#);
        timeline.backup(0);
        timeline.run((13, "04:00"), &["prune"])
    }),
    (Code::NoIdentity, 12, || {
        let world = backed_up();
        world.expect(0, &["key", "new", "stranger.txt"]);
        world.run(&["restore", "shop", "--to", "out", "--identity", "stranger.txt"])
    }),
    (Code::SourceUnavailable, 1, || {
        let world = World::new();
        fs::remove_dir_all(world.path("uploads")).unwrap();
        world.run(&["backup"])
    }),
    (Code::SourcePartial, 3, || {
        let world = World::new();
        fs::set_permissions(world.path("uploads/small-03"), fs::Permissions::from_mode(0o000)).unwrap();
        // Root reads everything, unless it gives up that right.
        let mut setpriv = world.command(&[]);
        let path = std::env::var_os("PATH").unwrap();
        setpriv = {
            let mut command = Command::new("setpriv");
            command.current_dir(setpriv.get_current_dir().unwrap()).env_clear().env("PATH", path);
            command
        };
        setpriv.args(["--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--", PROGRAM, "backup"]);
        said(&mut setpriv)
    }),
    (Code::StorageFull, 1, || {
        in_a_mount_namespace(
            &World::new(),
            "cp -a vault aside && mount -t tmpfs -o size=1m none vault && cp -a aside/. vault",
            &["backup"],
        )
    }),
    (Code::StorageFailed, 1, || {
        in_a_mount_namespace(&World::new(), "mount --bind vault vault && mount -o remount,bind,ro vault", &["backup"])
    }),
    (Code::CatalogFailed, 1, || {
        let world = backed_up();
        fs::write(world.path("state/catalog.sqlite"), "no database, but longer than the head of one: ".repeat(100))
            .unwrap();
        world.run(&["backup"])
    }),
    (Code::StateFailed, 1, || {
        let world = World::new();
        fs::write(world.path("state/host.secret"), "nothing of ours").unwrap();
        world.run(&["backup"])
    }),
    (Code::RestoreFailed, 1, || {
        backed_up().run(&["restore", "shop", "--to", "lifeboat.toml", "--identity", "identity.txt"])
    }),
    (Code::ScratchFailed, 21, || {
        let world = backed_up();
        let scratch = format!("scratch = \"{}\"", world.scratch().display());
        rewrite(&world, &scratch, "scratch = \"/proc/lifeboat-scratch\"");
        world.run(&["drill", "--identity", "identity.txt"])
    }),
    (Code::Unconfined, 21, || {
        let world = World::with_drill(r#"checks = [{ source = "db", sql = "select 1" }]"#);
        world.backup();
        // The checks' uid could read the identity.
        fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(world.path("identity.txt"), fs::Permissions::from_mode(0o644)).unwrap();
        world.run(&["drill", "--identity", "identity.txt"])
    }),
    (Code::ToolFailed, 21, || {
        let world = World::with_drill(r#"checks = [{ source = "db", sql = "select 1" }]"#);
        world.backup();
        // A script whose interpreter is not there cannot be found either, as far as the kernel tells.
        fs::write(world.path("gone"), "#!/nonexistent\n").unwrap();
        fs::set_permissions(world.path("gone"), fs::Permissions::from_mode(0o755)).unwrap();
        in_a_mount_namespace(
            &world,
            "mount --bind gone \"$(command -v setpriv)\"",
            &["drill", "--identity", "identity.txt"],
        )
    }),
    (Code::StorageUnreachable, 1, || {
        let world = World::new();
        let mut list = world.command(&["list", "--vault", "s3://bucket/prefix"]);
        // Nobody answers at port 1.
        list.envs([("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1"), ("AWS_ACCESS_KEY_ID", "nobody")]);
        said(list.env("AWS_SECRET_ACCESS_KEY", "nothing"))
    }),
    (Code::HookFailed, 1, || {
        edited("[job.shop.drill]", "[job.shop.hooks]\nbefore = [\"false\"]\n[job.shop.drill]").run(&["backup"])
    }),
    (Code::DrillFailed, 21, || {
        let world = World::with_drill(r#"checks = [{ source = "db", sql = "select 0" }]"#);
        world.backup();
        world.run(&["drill", "--identity", "identity.txt"])
    }),
    (Code::ObjectiveMissed, 22, || {
        let world = edited("rto = \"1h\"", "rto = \"1ms\"");
        world.backup();
        world.run(&["drill", "--identity", "identity.txt"])
    }),
    (Code::Interrupted, 130, interrupted),
];

#[test]
fn every_code_comes_with_its_name_its_exit_code_and_a_hint() {
    let mut seen: HashSet<Code> = NOT_HERE.iter().map(|(code, _)| *code).collect();
    let mut wrong = Vec::new();
    for (code, exit, provoke) in CASES {
        let said = provoke();
        let name = format!("[{}]", code.name());
        if said.code != Some(*exit) || !said.stderr.contains(&name) || !said.stderr.contains("hint: ") {
            wrong.push(format!(
                "{name}, exit code {exit}, expected; got {:?}\n{}\n{}",
                said.code, said.stdout, said.stderr
            ));
        }
        let of_the_table = i32::from(code.kind().exit_code());
        assert!(*exit == of_the_table || *exit == 21, "{name} exits with {of_the_table}");
        assert!(seen.insert(*code), "{name} is here twice");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
    let missing: Vec<&str> = Code::ALL.iter().filter(|code| !seen.contains(code)).map(|code| code.name()).collect();
    assert!(missing.is_empty(), "no case for {}", missing.join(", "));
}

fn backed_up() -> World {
    let world = World::new();
    world.backup();
    world
}

fn edited(from: &str, to: &str) -> World {
    let world = World::new();
    rewrite(&world, from, to);
    world
}

fn rewrite(world: &World, from: &str, to: &str) {
    change(world, "lifeboat.toml", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        // The template has an example of its own, as a comment.
        let (head, tail) = text.split_at(text.find("\n[job.shop]").unwrap());
        *bytes = format!("{head}{}", tail.replace(from, to)).into_bytes();
    });
}

fn change(world: &World, path: &str, with: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(world.path(path)).unwrap();
    with(&mut bytes);
    fs::write(world.path(path), bytes).unwrap();
}

fn manifests(world: &World) -> Vec<String> {
    world.keys("backups").into_iter().filter(|key| key.ends_with(".json")).collect()
}

fn largest(world: &World) -> String {
    let size = |key: &String| fs::metadata(world.path("vault").join(key)).unwrap().len();
    world.keys("objects").into_iter().max_by_key(size).unwrap()
}

/// Runs the program where a script changed what is mounted, for it alone.
fn in_a_mount_namespace(world: &World, script: &str, args: &[&str]) -> Said {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec", &format!("{script}\nexec \"$@\""), "sh", PROGRAM])
        .args(args)
        .current_dir(world.path(""))
        .stdin(Stdio::null());
    said(&mut command)
}

/// Somebody takes the claim away while the run waits for a database that is being written to.
fn claim_lost() -> Said {
    let world = World::new();
    let mut writer = Command::new("sqlite3")
        .arg(world.path("shop.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = writer.stdin.take().unwrap();
    orders.write_all(b"begin exclusive; select 'held';\n").unwrap();
    BufReader::new(writer.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let mut command = world.command(&["backup"]);
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let claim = loop {
        if let Some(claim) = world.keys("claims").pop() {
            break claim;
        }
        assert!(running.try_wait().unwrap().is_none(), "the run ended before it claimed anything");
        std::thread::yield_now();
    };
    fs::remove_file(world.path("vault").join(claim)).unwrap();
    orders.write_all(b"commit;\n").unwrap();
    drop(orders);
    assert!(writer.wait().unwrap().success());
    let out = running.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: out.status.code(), stdout: text(&out.stdout), stderr: text(&out.stderr) }
}

/// Two jobs, and a signal while the first is drilled: it ends in good order, the second is not begun.
fn interrupted() -> Said {
    let world = World::with_drill(
        r#"check_timeout = "20s"
checks = [{ command = ["sh", "-c", "cd $LIFEBOAT_UPLOADS_DIR; touch here; until test -e go; do sleep 0.02; done"] }]"#,
    );
    change(&world, "lifeboat.toml", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let job = &text[text.find("\n[job.shop]").unwrap()..];
        *bytes = format!("{text}{}", job.replace("job.shop", "job.zebra")).into_bytes();
    });
    world.expect(0, &["backup"]);
    let mut child = world
        .command(&["drill", "--identity", "identity.txt"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let here = || {
        let mut drills = fs::read_dir(world.scratch()).into_iter().flatten();
        drills.find_map(|drill| Some(drill.unwrap().path().join("uploads/here")).filter(|path| path.exists()))
    };
    let here = loop {
        if let Some(here) = here() {
            break here;
        }
        assert!(child.try_wait().unwrap().is_none(), "the drill ended before its check ran");
        std::thread::yield_now();
    };
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    stderr.read_line(&mut text).unwrap();
    fs::File::create(here.with_file_name("go")).unwrap().write_all(b"").unwrap();
    stderr.read_to_string(&mut text).unwrap();
    let out = child.wait_with_output().unwrap();
    Said { code: out.status.code(), stdout: String::from_utf8_lossy(&out.stdout).into_owned(), stderr: text }
}
