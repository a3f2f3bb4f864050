//! PostgreSQL, from the outside: the finished program against real servers, which it is handed as any other is.
//!
//! A server is started by server.rs alone, which shares no code with the program: what starts the scratch server is under
//! test here too. Without PostgreSQL's programs these tests fail and say what to install.

mod choice;
mod drill;
mod elsewhere;
mod fidelity;
mod large;
mod living;
mod papers;
mod server;
mod several;
mod standby;
mod tls;

pub(crate) use server::Server;

use std::fs;

use crate::support::World;

/// What the tests' source is allowed to do: the README's role.
pub(crate) const BACKUP_ROLE: &str = "CREATE ROLE backup LOGIN BYPASSRLS; GRANT pg_read_all_data TO backup;";

/// A world with one job `shop` whose source `db` is a database. `source` goes below `[job.shop.source.db]`, `drill` below
/// `[job.shop.drill]`.
pub(crate) fn world(url: &str, source: &str, drill: &str) -> World {
    let world = World::empty();
    let init = world.run(&["init", "."]);
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let mut config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    config.push_str(&format!(
        r#"
[job.shop]
schedule   = "15 */6 * * *"
retention  = {{ keep_at_least = "14d", delete_after = "30d" }}
objectives = {{ rto = "1h", rpo = "24h" }}
[job.shop.source.db]
kind = "postgres"
url  = "{url}"
{source}
[job.shop.drill]
scratch = "{}"
{drill}
"#,
        world.scratch().display(),
    ));
    fs::write(world.path("lifeboat.toml"), config).unwrap();
    world
}

/// Puts the newest backup into a server, and demands that it works.
#[track_caller]
pub(crate) fn restore(world: &World, url: &str, more: &[&str]) {
    let args = ["restore", "shop", "--source", "db", "--into", url, "--identity", "identity.txt"];
    world.expect(0, &[&args, more].concat());
}
