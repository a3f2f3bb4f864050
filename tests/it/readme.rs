//! The README and the documents are typed: each part of them that is marked, in a world that has what the part takes for
//! granted. What they say about PostgreSQL is typed in postgres/papers.rs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::by_hand::{assert_same, listing};
use crate::documents::Document;
use crate::notify::receivers::Web;
use crate::support::World;

/// What stands for a recipient in a config.
const RECIPIENT: &str = "age1…";
/// What stands for the public half of a signing key.
const KEY: &str = "RWQ…";

/// A file that only its owner can read, as secrets must be.
fn secret(world: &World, name: &str, value: &str) -> PathBuf {
    let path = world.path(name);
    fs::write(&path, value).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// What a world's config says of its vault: its `trust`, or the first of its `recipients`.
fn of_the_vault(world: &World, key: &str) -> PathBuf {
    let config: toml::Table = fs::read_to_string(world.path("lifeboat.toml")).unwrap().parse().unwrap();
    let value = &config["vault"]["main"][key];
    value.as_str().unwrap_or_else(|| value[0].as_str().unwrap()).into()
}

#[test]
fn the_readme_can_be_typed() {
    let world = World::empty();
    let said = Document::marked("README.md").rest(&world, &[]);
    assert!(said.contains("PASSED"), "the README's drill passes\n{said}");
}

#[test]
fn every_day_is_as_the_readme_says() {
    let world = World::new();
    world.backup();
    let path = world.path("lifeboat.toml");
    let config = fs::read_to_string(&path).unwrap();
    // A port that is free; the README's is the one that the program takes where nothing is said.
    fs::write(&path, format!("{config}\n[daemon]\nlisten = \"127.0.0.1:0\"\n")).unwrap();
    let (units, crontab) = (world.path("units"), world.path("crontab"));
    fs::create_dir(&units).unwrap();

    let mut readme = Document::part("README.md", "every-day");
    let mut daemon = readme.start(&world);
    let ready = daemon.wait_for("listening=");
    let (_, address) = ready.split_once("listening=").unwrap();
    let said = readme.next(1, &world, &[("127.0.0.1:9820", address.trim().into())]);
    assert!(said.ends_with("ok\n"), "{said}");
    daemon.end();

    let places = [("/etc/systemd/system", units.clone()), ("/etc/cron.d/lifeboat", crontab.clone())];
    let said = readme.next(1, &world, &places);
    assert!(said.contains("shop") && said.contains("backup"), "{said}");
    let made: Vec<_> = fs::read_dir(units).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(made.iter().any(|name| name.to_str().unwrap().ends_with(".timer")), "{made:?}");
    assert!(fs::read_to_string(crontab).unwrap().contains(" backup"));
    readme.rest(&world, &[]);
    assert!(fs::read_to_string(world.path("paper.md")).unwrap().contains("lifeboat restore shop"));
    // And the daemon's own page.
    Document::open("docs/DAEMON.md").rest(&world, &[]);
}

#[test]
fn whoever_is_to_be_told_is_told() {
    let (ping, phone) = (Web::start(), Web::start());
    let world = World::new();
    world.backup();
    let places = [
        ("/etc/lifeboat/heartbeat", secret(&world, "heartbeat", &ping.url("/ping"))),
        ("/etc/lifeboat/ntfy", secret(&world, "ntfy", &phone.url("/topic"))),
    ];
    let said = Document::part("README.md", "told").rest(&world, &places);
    assert!(said.contains("phone (ntfy): arrived") && said.contains("lifeboat_job_info"), "{said}");
    assert!(phone.next_post().1.contains("test") && ping.next_post().0.starts_with("/ping"));
    let said = Document::open("docs/NOTIFICATIONS.md").rest(&world, &[]);
    assert!(said.contains("phone (ntfy): arrived"), "{said}");
    let textfile = world.path("lifeboat.prom");
    let places = [("/var/lib/prometheus/node-exporter/lifeboat.prom", textfile.clone())];
    Document::open("docs/METRICS.md").rest(&world, &places);
    assert!(fs::read_to_string(textfile).unwrap().contains("lifeboat_job_info"));
}

#[test]
fn hooks_are_called_as_written() {
    let world = World::new();
    for (name, script) in
        [("shop", "#!/bin/sh\necho \"$1\" >> said\n"), ("tell-someone.sh", "#!/bin/sh\necho told >> said\n")]
    {
        fs::write(world.path(name), script).unwrap();
        fs::set_permissions(world.path(name), Permissions::from_mode(0o755)).unwrap();
    }
    Document::part("README.md", "hooks").rest(&world, &[("/usr/local/bin/shop", world.path("shop"))]);
    world.backup();
    fs::rename(world.path("uploads"), world.path("away")).unwrap();
    world.expect(1, &["backup"]);
    assert_eq!(fs::read_to_string(world.path("said")).unwrap(), "pause\nresume\npause\nresume\ntold\n");
}

#[test]
fn a_second_place_is_filled_and_rehearsed() {
    let world = World::new();
    world.backup();
    let offsite = world.path("offsite");
    fs::create_dir(&offsite).unwrap();
    let places = [("/mnt/offsite/backups", offsite.clone()), (RECIPIENT, of_the_vault(&world, "recipients"))];
    let said = Document::part("README.md", "copy").rest(&world, &places);
    assert!(said.contains("PASSED"), "{said}");
    assert!(offsite.join("vault.json").is_file());
}

#[test]
fn what_is_old_goes_and_what_cannot_be_believed_is_let_go_of() {
    let world = World::new();
    let made: Vec<String> = (0..3).map(|_| world.backup()).collect();
    let mut readme = Document::part("README.md", "erasing");
    readme.next(1, &world, &[]);

    // Somebody forges one.
    let keys = world.keys("backups");
    let manifest = keys.iter().find(|key| key.ends_with(&format!("{}.json", made[1]))).unwrap();
    let manifest = world.path("vault").join(manifest);
    let bytes = fs::read(&manifest).unwrap();
    fs::write(&manifest, [&bytes[..], b" "].concat()).unwrap();
    world.expect(20, &["prune"]);
    readme.rest(&world, &[("3fa4c81e", PathBuf::from(&made[1][..8]))]);
    world.expect(0, &["prune"]);
}

#[test]
fn hosts_and_recipients_come_and_go() {
    let (first, new) = (World::new(), World::empty());
    first.backup();
    fs::create_dir(new.path("posts")).unwrap();
    fs::write(new.path("posts/hello"), "hello").unwrap();
    // Where nothing is said the state is in a folder of the whole machine's.
    fs::write(new.path("lifeboat.toml"), "state_dir = \"state\"\n").unwrap();
    let places = [
        ("/mnt/backups/shop", first.path("vault")),
        (RECIPIENT, of_the_vault(&first, "recipients")),
        (KEY, of_the_vault(&first, "trust")),
        ("/srv/blog", new.path("posts")),
    ];
    let said = Document::part("README.md", "new-host").rest(&new, &places);
    let (_, key) = said.split_once("lifeboat host add ").unwrap().1.split_once("--key ").unwrap();
    let key = key.split_whitespace().next().unwrap();
    new.expect(1, &["backup"]);

    let mut readme = Document::part("README.md", "hosts");
    let boris = first.expect(0, &["key", "new", "boris.txt"]).stdout;
    let places = [(KEY, key.into()), (RECIPIENT, boris.trim().into())];
    let said = readme.next(1, &first, &places);
    assert!(said.contains("web-2"), "{said}");
    new.backup();
    readme.rest(&first, &places);
    new.expect(1, &["backup"]);
    first.backup();
}

/// The few lines that say what a vault is in the end bring a source back.
#[test]
fn the_format_in_one_breath_restores() {
    let world = World::new();
    world.backup();
    let manifest = world.keys("backups").into_iter().find(|key| key.ends_with(".json")).unwrap();
    let name = manifest.rsplit('/').next().unwrap().to_owned();
    let places = [("/srv/backups", world.path("vault")), ("20261122T081500Z-7379042c3b0528d2.json", name.into())];
    Document::open("docs/VAULT-FORMAT.md").rest(&world, &places);
    let uploads = world.path("uploads");
    let back = world.path(uploads.strip_prefix("/").unwrap());
    assert_same(&listing(&back), &listing(&uploads), "uploads");
}
