//! A world whose vault lies in a bucket of a real server, behind a proxy that does what a test tells it to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::proxy::Proxy;
use super::seaweed::{Identity, Keeps, OWNER, REGION, Server};
use crate::by_hand::{assert_same, listing};
use crate::support::{PROGRAM, Said, World, said};

/// What all keys of the vault begin with.
pub(crate) const PREFIX: &str = "backups/shop";
/// A config that leads straight to the server, with the owner's keys, whatever becomes of the other one.
pub(crate) const STRAIGHT: &str = "straight.toml";

/// A world with the job `shop` and its vault in a bucket of its own.
pub(crate) struct Bucket {
    pub(crate) world: World,
    pub(crate) server: &'static Server,
    /// The bucket's name.
    pub(crate) name: String,
    /// Between the program and the server.
    pub(crate) proxy: Proxy,
}

impl Bucket {
    /// With the vault made by `init`, by the owner.
    pub(crate) fn new() -> Self {
        Self::of(Keeps::Last)
    }

    /// The same in a bucket that keeps something.
    pub(crate) fn of(keeps: Keeps) -> Self {
        let server = Server::shared();
        let bucket = Self {
            world: World::in_memory_empty(),
            server,
            name: server.bucket(keeps),
            proxy: Proxy::before(server.address()),
        };
        let world = &bucket.world;
        world.fill_sources();
        let init = bucket.bare(&["init", ".", "--vault", &bucket.url()]);
        assert_eq!(init.code, Some(0), "{}", init.stderr);
        // What the environment says is for a bare host; the config says it itself.
        let config = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
        let url = config.lines().find(|line| line.starts_with("url")).unwrap();
        let more = format!(
            "{url}\nregion = \"{REGION}\"\nendpoint = \"{}\"\naccess_key = {{ file = \"access-key\" }}\n\
             secret_key = {{ file = \"secret-key\" }}",
            bucket.proxy.endpoint()
        );
        fs::write(world.path("lifeboat.toml"), config.replacen(url, &more, 1)).unwrap();
        world.add_job("");
        bucket.sign_as(&OWNER);
        fs::copy(world.path("access-key"), world.path("owner-access-key")).unwrap();
        fs::copy(world.path("secret-key"), world.path("owner-secret-key")).unwrap();
        bucket.write_straight();
        bucket
    }

    /// Where the vault lies.
    pub(crate) fn url(&self) -> String {
        format!("s3://{}/{PREFIX}", self.name)
    }

    /// From now on the config's keys are these.
    pub(crate) fn sign_as(&self, who: &Identity) {
        for (file, text) in [("access-key", who.access_key), ("secret-key", who.secret_key)] {
            let path = self.world.path(file);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// Changes the config, and the other one that leads straight to the server.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let path = self.world.path("lifeboat.toml");
        let config = fs::read_to_string(&path).unwrap();
        // The template has examples, as comments, before the job.
        let at = config.rfind(from).unwrap_or_else(|| panic!("{from} is not in {config}"));
        fs::write(path, format!("{}{to}{}", &config[..at], &config[at + from.len()..])).unwrap();
        self.write_straight();
    }

    /// Old backups are let go at once, the newest of a day is not; what they named is erased a second later.
    pub(crate) fn keep_little(&self) {
        self.edit(
            "keep_at_least = \"14d\", delete_after = \"30d\"",
            "keep_at_least = \"1s\", delete_after = \"30d\", daily = 1",
        );
        self.edit("\nrecipients", "\ngrace = \"1s\"\nrecipients");
    }

    fn write_straight(&self) {
        let config = fs::read_to_string(self.world.path("lifeboat.toml")).unwrap();
        let straight = config
            .replace(&self.proxy.endpoint(), &self.server.endpoint())
            .replace("\"access-key\"", "\"owner-access-key\"")
            .replace("\"secret-key\"", "\"owner-secret-key\"");
        fs::write(self.world.path(STRAIGHT), straight).unwrap();
    }

    /// The program on a host that has nothing but the environment, as AWS's own tools know it.
    pub(crate) fn bare_command(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(args)
            .current_dir(folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", folder)
            .env("TZ", "UTC")
            .env("AWS_ENDPOINT_URL_S3", self.proxy.endpoint())
            .env("AWS_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", OWNER.access_key)
            .env("AWS_SECRET_ACCESS_KEY", OWNER.secret_key)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn bare(&self, args: &[&str]) -> Said {
        said(&mut self.bare_command(&self.world.path(""), args))
    }

    /// Every key of the vault that begins with this, as the server has them now.
    pub(crate) fn keys(&self, below: &str) -> Vec<String> {
        let own = format!("{PREFIX}/");
        let keys = self.server.keys(&self.name, &format!("{own}{below}"));
        keys.into_iter().map(|key| key.strip_prefix(&own).unwrap().to_owned()).collect()
    }

    /// The newest backup restores, from the server itself, to what the sources are now; every byte of every backup is
    /// there, and no manifest names what is not.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        self.world.expect(0, &["check", "--read-data", "--identity", "identity.txt", "--config", STRAIGHT]);
        self.assert_restores(&["--config", STRAIGHT]);
    }

    #[track_caller]
    pub(crate) fn assert_restores(&self, more: &[&str]) {
        let world = &self.world;
        let restore = ["restore", "shop", "--to", "out", "--identity", "identity.txt", "-q"];
        world.expect(0, &[&restore[..], more].concat());
        assert_restored(world, &world.path("out"));
        fs::remove_dir_all(world.path("out")).unwrap();
    }

    /// What must hold after a run that failed: the earlier backups are sound, no more of them are listed than are whole.
    #[track_caller]
    pub(crate) fn assert_nothing_lost(&self, backups: usize) {
        let check = ["check", "--read-data", "--identity", "identity.txt", "--config", STRAIGHT];
        self.world.expect(0, &check);
        assert_eq!(self.listed(&["--config", STRAIGHT]).len(), backups);
    }

    /// The ids of `list`.
    #[track_caller]
    pub(crate) fn listed(&self, more: &[&str]) -> Vec<String> {
        let list = self.world.json(0, &[&["list"], more].concat());
        let id = |backup: &Value| backup["id"].as_str().unwrap().to_owned();
        list["backups"].as_array().unwrap().iter().map(id).collect()
    }
}

/// What was restored into a folder is what the sources are.
#[track_caller]
pub(crate) fn assert_restored(world: &World, out: &Path) {
    let below_root = world.path("uploads").strip_prefix("/").unwrap().to_owned();
    assert_same(&listing(&out.join("uploads").join(below_root)), &listing(&world.path("uploads")), "uploads");
    let dump = |path: &Path| {
        String::from_utf8(Command::new("sqlite3").arg(path).arg(".dump").output().unwrap().stdout).unwrap()
    };
    assert_eq!(dump(&out.join("db/shop.db")), dump(&world.path("shop.db")));
}
