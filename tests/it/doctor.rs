//! `doctor` on hosts with something wrong: each is named with what to type, and is gone when that was typed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::hosts::{SECOND, two_known_hosts};
use crate::support::World;

/// The line that begins so, and the hint below it; nothing where there is none.
fn finding(said: &str, begins: &str) -> Option<(String, String)> {
    let mut lines = said.lines().skip_while(|line| !line.starts_with(begins));
    let line = lines.next()?.to_owned();
    Some((line, lines.next().unwrap_or_default().trim().to_owned()))
}

#[test]
fn keys_that_lie_on_the_host_are_named_until_they_are_moved() {
    let world = World::new();
    world.backup();
    let said = world.expect(0, &["doctor"]).stdout;
    for (file, what) in [("identity.txt", "reads every backup"), ("vault.key", "hosts of their own write")] {
        let path = world.path(file);
        let line = said.lines().find(|line| line.starts_with("WARNING keys") && line.contains(path.to_str().unwrap()));
        assert!(line.unwrap().contains(what), "{said}");
    }
    fs::create_dir(world.path("usb")).unwrap();
    for file in ["identity.txt", "vault.key"] {
        fs::rename(world.path(file), world.path("usb").join(file)).unwrap();
    }
    let said = world.expect(0, &["doctor"]).stdout;
    assert!(finding(&said, "WARNING keys").is_none() && finding(&said, "OK      keys").is_some(), "{said}");
    // A drill that the config gives the identity to has it here all the same.
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let config = config.replace("\nscratch =", "\nidentity = { file = \"usb/identity.txt\" }\nscratch =");
    fs::write(world.path("lifeboat.toml"), config).unwrap();
    assert!(finding(&world.expect(0, &["doctor"]).stdout, "WARNING keys").is_some());
}

#[test]
fn a_host_that_only_drills_may_hold_the_identity() {
    let world = two_known_hosts();
    world.backup();
    fs::copy(world.path("identity.txt"), world.path("second/drill.key")).unwrap();
    fs::set_permissions(world.path("second/drill.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let said = world.run(&["doctor", "--config", SECOND]).stdout;
    assert!(finding(&said, "OK      keys").is_some(), "{said}");
    world.expect(0, &["backup", "blog", "--config", SECOND]);
    let said = world.run(&["doctor", "--config", SECOND]).stdout;
    assert!(finding(&said, "WARNING keys").is_some(), "{said}");
}

#[test]
fn a_recipient_is_doubted_until_a_drill_opens_with_its_identity() {
    let world = World::new();
    let doubted = |world: &World| {
        let said = world.expect(0, &["doctor"]).stdout;
        said.lines().filter(|line| line.starts_with("WARNING vault main: recipients")).count()
    };
    world.backup();
    assert_eq!(doubted(&world), 1);
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    assert_eq!(doubted(&world), 0);
    let recipient = world.expect(0, &["key", "new", "second.txt"]).stdout;
    world.expect(0, &["recipient", "add", recipient.trim(), "--vault-key", "vault.key"]);
    assert_eq!(doubted(&world), 1);
    world.backup();
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    assert_eq!(doubted(&world), 1, "the first one's identity proves nothing of the second's");
    world.expect(0, &["drill", "--identity", "second.txt"]);
    assert_eq!(doubted(&world), 0);
    // It is in the signed records, so a host that lost its catalog knows it too.
    world.expect(0, &["catalog", "rebuild"]);
    assert_eq!(doubted(&world), 0);
}

#[test]
fn sources_hooks_and_an_open_config_are_looked_at() {
    let world = World::new();
    let path = world.path("lifeboat.toml");
    let config = fs::read_to_string(&path).unwrap();
    let hooks = "[job.shop.hooks]\nbefore = [\"./pause.sh\"]\n[job.shop.drill]";
    fs::write(&path, config.replace("[job.shop.drill]", hooks).replace("# [job.shop.hooks]", "#")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(world.path("shop.db"), "not a database at all").unwrap();
    let said = world.expect(1, &["doctor"]).stdout;
    let (line, _) = finding(&said, "PROBLEM job shop: source db").unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("it is no SQLite database"), "{line}");
    let (line, _) = finding(&said, "PROBLEM job shop: hook before").unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("pause.sh is no program"), "{line}");
    let (_, hint) = finding(&said, "WARNING config").unwrap_or_else(|| panic!("{said}"));
    assert!(hint.contains("chmod o-r"), "{hint}");

    fs::write(world.path("pause.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(world.path("pause.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(world.path("shop.db")).unwrap();
    world.sql("create table t(id integer)");
    let said = world.expect(0, &["doctor"]).stdout;
    assert!(!said.contains("PROBLEM") && finding(&said, "WARNING config").is_none(), "{said}");
}
