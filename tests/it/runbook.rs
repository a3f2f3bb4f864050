//! `lifeboat runbook`: what it prints of a real config is typed on a machine that has neither config nor state, and brings the
//! data back.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lifeboat::evidence::runbook::ON_THE_HOST;

use crate::by_hand::{assert_same, listing};
use crate::documents::{Document, IDENTITY};
use crate::support::World;

/// Types everything that the paper has for a bare host there, and the rest where the config is.
fn type_it(paper: &str, world: &World, bare: &World, more: &[(&str, PathBuf)]) {
    let (elsewhere, here) = paper.split_once(ON_THE_HOST).unwrap();
    let places = [&[(IDENTITY, world.path("identity.txt")), ("/srv/restored", bare.path("back"))], more].concat();
    Document::of("the paper", elsewhere).rest(bare, &places);
    Document::of("the paper, at home", here).rest(world, &places[..1]);
}

#[test]
fn the_paper_restores_on_a_bare_host() {
    let world = World::new();
    world.backup();
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    world.expect(0, &["runbook", "shop", "--short", "--output", "paper.md"]);
    let paper = fs::read_to_string(world.path("paper.md")).unwrap();
    let config: toml::Table = fs::read_to_string(world.path("lifeboat.toml")).unwrap().parse().unwrap();
    let main = &config["vault"]["main"];
    for said in [main["trust"].as_str().unwrap(), main["recipients"][0].as_str().unwrap(), "| load |", "15 */6 * * *"] {
        assert!(paper.contains(said), "{said}: {paper}");
    }
    assert!(!paper.contains("**never**") && !paper.contains("did not answer"), "{paper}");

    let bare = World::empty();
    type_it(&paper, &world, &bare, &[]);
    for restored in ["back/uploads", "back-uploads/uploads"] {
        let below_root = world.path("uploads").strip_prefix("/").unwrap().to_owned();
        assert_same(&listing(&bare.path(restored).join(below_root)), &listing(&world.path("uploads")), restored);
    }
    assert!(bare.path("back/db/shop.db").is_file() && bare.path("back-db/db/shop.db").is_file());
    assert!(!bare.path("lifeboat.toml").exists() && !bare.path("state").exists(), "a bare host stays one");
    assert!(world.path("report-shop.md").is_file() && world.path("runbook-shop.md").is_file());
}

#[test]
fn a_vault_that_is_away_is_told_and_the_paper_is_printed_all_the_same() {
    let world = World::new();
    let nothing_known = world.expect(0, &["runbook"]);
    assert!(nothing_known.stdout.contains("there is nothing to restore yet"), "{}", nothing_known.stdout);
    assert!(nothing_known.stdout.contains("No drill ever ran"), "{}", nothing_known.stdout);
    let id = world.backup();
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    fs::rename(world.path("vault"), world.path("away")).unwrap();
    let said = world.expect(0, &["runbook"]);
    assert!(said.stderr.contains("did not answer"), "{}", said.stderr);
    for known in ["did not answer", &id, "| load |", "--trust \"$TRUST\""] {
        assert!(said.stdout.contains(known), "{known}: {}", said.stdout);
    }
    let json = world.json(0, &["runbook"]);
    assert!(json["jobs"][0]["vault_silent"].is_string() && json["jobs"][0]["newest_backup"] == id.as_str(), "{json}");
    assert!(world.expect(2, &["runbook", "shopp"]).stderr.contains("no job \"shopp\""));
}

#[test]
fn names_that_mean_something_to_a_shell_are_typed_as_they_are() {
    let world = World::new();
    let odd = "up loads; 'touch' $(echo x) [a]*{b}";
    fs::rename(world.path("uploads"), world.path(odd)).unwrap();
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let config = config.replace("paths = [\"uploads\"]", &format!("paths = [\"{odd}\"]"));
    fs::write(world.path("lifeboat.toml"), config).unwrap();
    world.backup();
    let paper = world.expect(0, &["runbook", "--short"]).stdout;
    let bare = World::empty();
    type_it(&paper, &world, &bare, &[]);
    let back = bare.path("back-uploads/uploads").join(world.path(odd).strip_prefix("/").unwrap());
    assert_same(&listing(&back), &listing(&world.path(odd)), "uploads");
}

/// The runbook of that name, as the program prints it.
fn of_the_shelf(world: &World, name: &str) -> String {
    let all = world.expect(0, &["runbook"]).stdout;
    let (_, from) = all.split_once(&format!("\n## {name}.md: ")).unwrap_or_else(|| panic!("no {name}: {all}"));
    from.split_once("\n## ").map_or(from, |(page, _)| page).to_owned()
}

#[test]
fn the_other_runbooks_are_printed_with_the_config_s_names() {
    let world = World::new();
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    fs::write(world.path("lifeboat.toml"), config.replace("[job.shop", "[job.kiosk")).unwrap();
    world.backup();
    world.expect(0, &["drill", "--identity", "identity.txt"]);
    for name in ["rpo-breached", "quarterly-drill", "restore-by-hand"] {
        let page = of_the_shelf(&world, name);
        let places: &[_] = match page.contains(IDENTITY) {
            true => &[(IDENTITY, world.path("identity.txt"))],
            false => &[],
        };
        Document::of(name, &page).rest(&world, places);
    }
    assert!(world.path("runbook-kiosk.md").is_file());
    // The vault's place, the job and this host are there by their names.
    let lost = of_the_shelf(&world, "host-lost");
    let host = world.json(0, &["host", "list"])["hosts"][0]["name"].as_str().unwrap().to_owned();
    for said in [format!("VAULT={}", world.path("vault").display()), "JOB=kiosk".to_owned(), format!("HOST={host}")] {
        assert!(lost.contains(&said), "{said}: {lost}");
    }
    assert!(!world.expect(0, &["runbook"]).stdout.contains("restore-from-the-copy.md: "), "there is no copy");
}

/// A store that takes the question and says nothing: it is waited for a little, and the paper says so.
#[test]
fn a_store_that_says_nothing_is_not_waited_for() {
    let world = World::new();
    let id = world.backup();
    // Connections are taken by the system, and nobody reads.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(world.path("key"), "AKIAEXAMPLE").unwrap();
    fs::set_permissions(world.path("key"), Permissions::from_mode(0o600)).unwrap();
    let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let url = config.lines().find(|line| line.starts_with("url")).unwrap();
    let bucket = format!(
        "url = \"s3://bucket/prefix\"\nendpoint = \"http://{}\"\naccess_key = {{ file = \"key\" }}\n\
         secret_key = {{ file = \"key\" }}",
        silent.local_addr().unwrap()
    );
    fs::write(world.path("lifeboat.toml"), config.replace(url, &bucket)).unwrap();
    let said = world.expect(0, &["runbook"]);
    assert!(
        said.stderr.contains("did not answer") && said.stderr.contains("nothing came within 10 s"),
        "{}",
        said.stderr
    );
    for known in ["nothing came within 10 s", &id, "s3://bucket/prefix", "15 */6 * * *"] {
        assert!(said.stdout.contains(known), "{known}: {}", said.stdout);
    }
}
