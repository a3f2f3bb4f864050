//! What a folder must do besides the contract that every store has.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::clock::SystemClock;
use crate::error::{Code, Diagnostic};
use crate::storage::contract;

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::default())
}

fn open(path: &Path) -> Local {
    Local::open(path, clock()).unwrap()
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Everything below a folder but the staging folder's empty self.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    contract::run(&|| Arc::new(open(folder.path()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract_where_syncfs_is_not_to_be_trusted() {
    let folder = tempfile::tempdir().unwrap();
    contract::run(&|| Arc::new(Local::open_flushing_each_file(folder.path(), clock()).unwrap())).await;
}

#[test]
fn only_new_kernels_are_believed() {
    for (release, tells) in
        [("6.1.0-18-amd64", true), ("5.8.0", true), ("5.10", true), ("5.7.19", false), ("4.19", false), ("", false)]
    {
        assert_eq!(flush::syncfs_tells(release), tells, "{release}");
    }
}

#[tokio::test]
async fn a_place_that_is_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for (path, says) in [(folder.path().join("none"), "does not exist"), (file.clone(), "is a file, not a folder")] {
        let error = Local::open(&path, clock()).unwrap_err();
        assert_eq!(error.code(), Code::VaultMissing);
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.hint().is_some());
    }
    for path in [file.clone(), file.join("below")] {
        let error = Local::create(&path, clock()).unwrap_err();
        assert_eq!(error.code(), Code::VaultMissing, "{error}");
    }
}

#[tokio::test]
async fn nobody_else_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/vault");
    let store = Local::create(&path, clock()).unwrap();
    store.put("objects/ab/x", bytes("x")).await.unwrap();
    store.replace("vault.json", bytes("x")).await.unwrap();
    store.sync().await.unwrap();
    for (below, mode) in
        [("", 0o700), ("objects", 0o700), ("objects/ab", 0o700), ("objects/ab/x", 0o600), ("vault.json", 0o600)]
    {
        let found = std::fs::metadata(path.join(below)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{below}");
    }
}

#[tokio::test]
async fn reading_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert_eq!(store.size("a").await.unwrap(), None);
    store.list("", &mut |listed| panic!("{listed:?}")).await.unwrap();
    assert_eq!(store.delete("a").await.unwrap(), Deleted::Absent);
    store.sync().await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_link_where_a_folder_may_belong_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "x").unwrap();
    let store = Local::create(&root, clock()).unwrap();
    store.put("backups/mail/one", bytes("x")).await.unwrap();
    store.sync().await.unwrap();
    let list = || async {
        let mut seen = BTreeSet::new();
        let listed = store.list("backups/", &mut |listed| seen.extend([listed.key])).await;
        listed.map(|()| seen)
    };
    let link = root.join("backups/shop");
    symlink(outside.join("file"), &link).unwrap();
    assert_eq!(list().await.unwrap(), ["backups/mail/one", "backups/shop"].map(String::from).into());
    // A folder that was moved elsewhere, and one on a disk that is not there now.
    for target in [outside, folder.path().join("nothing")] {
        std::fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
        let error = list().await.unwrap_err();
        assert!(matches!(&error, StorageError::NotAFile { key, .. } if key == "backups/shop"), "{error}");
    }
}

#[tokio::test]
async fn links_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    let store = Local::create(&root, clock()).unwrap();
    symlink(&outside, root.join("objects")).unwrap();
    symlink(outside.join("secret"), root.join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), rustix::fs::Mode::RWXU).unwrap();

    for key in ["objects/secret", "link", "pipe"] {
        let error = store.get(key, 100).await.unwrap_err();
        assert!(matches!(error, StorageError::NotAFile { .. }), "{key}: {error}");
        assert_eq!(error.code(), Code::ObjectDamaged);
        store.size(key).await.unwrap_err();
        store.put(key, bytes("x")).await.unwrap_err();
        store.forget_cached(key).await.unwrap_err();
    }
    store.put("objects/new", bytes("x")).await.unwrap_err();
    store.replace("objects/secret", bytes("x")).await.unwrap_err();
    store.delete("objects/secret").await.unwrap_err();
    store.list("objects/", &mut |listed| panic!("{listed:?}")).await.unwrap_err();
    // They are told of, so that a check can name them.
    let mut seen = BTreeSet::new();
    store.list("", &mut |listed| seen.extend([listed.key])).await.unwrap();
    assert_eq!(seen, ["link", "objects", "pipe"].map(String::from).into());
    // Replacing or deleting a link is about the link.
    store.replace("link", bytes("x")).await.unwrap();
    store.delete("pipe").await.unwrap();
    assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(files(&outside).len(), 1);
}

#[tokio::test]
async fn names_of_others_are_told_and_temporary_ones_are_not() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put("staged", bytes("x")).await.unwrap();
    std::fs::write(folder.path().join(".DS_Store"), "x").unwrap();
    std::fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff")), "x").unwrap();
    std::fs::create_dir(folder.path().join("lost+found")).unwrap();
    let mut seen = BTreeSet::new();
    store.list("", &mut |listed| seen.extend([listed.key])).await.unwrap();
    assert_eq!(seen, [".DS_Store".to_owned(), "not-utf8-\u{fffd}".to_owned()].into());
}

#[tokio::test]
async fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
    let folder = tempfile::tempdir().unwrap();
    let staging = folder.path().join(STAGING_FOLDER);
    let alive = open(folder.path());
    alive.put("alive", bytes("alive")).await.unwrap();
    // A process that was killed: its files are there, its lock is not.
    for dead in ["7", "8"] {
        std::fs::create_dir(staging.join(dead)).unwrap();
        std::fs::write(staging.join(dead).join("0"), "dead").unwrap();
        std::fs::write(staging.join(dead).join("lock"), "").unwrap();
    }
    std::fs::create_dir(staging.join("9")).unwrap();

    let next = open(folder.path());
    next.put("next", bytes("next")).await.unwrap();
    assert!(!staging.join("7").exists() && !staging.join("8").exists() && !staging.join("9").exists());
    alive.sync().await.unwrap();
    next.sync().await.unwrap();
    assert_eq!(&next.get("alive", 10).await.unwrap()[..], b"alive");
    drop((alive, next));
    assert_eq!(files(&staging), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_handles_open_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path: Arc<Path> = folder.path().into();
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let path = Arc::clone(&path);
            tokio::spawn(async move {
                for round in 0..10 {
                    let store = open(&path);
                    store.put(&format!("many/{n}-{round}"), Bytes::from(vec![1; 100])).await.unwrap();
                    store.sync().await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut count = 0;
    open(&path).list("many/", &mut |listed| count += usize::from(listed.size_bytes == 100)).await.unwrap();
    assert_eq!(count, 320);
}

#[tokio::test]
async fn a_failed_sync_drops_what_waited_and_the_handle_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put("a/x", bytes("x")).await.unwrap();
    std::fs::write(folder.path().join("a"), "in the way").unwrap();
    store.sync().await.unwrap_err();
    std::fs::remove_file(folder.path().join("a")).unwrap();
    store.sync().await.unwrap();
    assert_eq!(store.size("a/x").await.unwrap(), None, "it does not come back by itself");
    assert_eq!(store.put("a/x", bytes("x")).await.unwrap(), Put::Created);
    store.sync().await.unwrap();
    assert_eq!(store.size("a/x").await.unwrap(), Some(1));
}

#[tokio::test]
async fn a_full_disk_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Tmpfs::mount(folder.path(), 1024 * 1024);
    let store = open(folder.path());
    store.put("old", Bytes::from(vec![1; 100_000])).await.unwrap();
    store.sync().await.unwrap();
    let error = store.put("new", Bytes::from(vec![1; 2_000_000])).await.unwrap_err();
    assert_eq!(error.code(), Code::StorageFull, "{error}");
    assert!(error.to_string().contains("earlier backups are intact"), "{error}");
    assert!(error.hint().unwrap().contains("make room"));
    // Nothing of it is left, and what fits still goes in.
    store.put("small", Bytes::from(vec![1; 500_000])).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(store.size("new").await.unwrap(), None);
    assert_eq!(store.get("old", 1 << 20).await.unwrap().len(), 100_000);
    drop(store);
    drop(disk);
}

/// Run by the test below in a process of its own.
#[tokio::test]
async fn child_that_is_killed() {
    // Nothing to test by itself: the test below runs it as a process of its own, which it kills.
    let Some(path) = std::env::var_os(CHILD_FOLDER) else { return };
    let store = open(Path::new(&path));
    store.put("synced/a", bytes("a")).await.unwrap();
    store.sync().await.unwrap();
    store.put("lost/a", bytes("a")).await.unwrap();
    store.put("lost/b", bytes("b")).await.unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    store.sync().await.unwrap();
}

const CHILD_FOLDER: &str = "LIFEBOAT_TEST_CHILD_FOLDER";

#[tokio::test]
async fn a_killed_process_leaves_what_it_synced_and_nothing_else() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "storage::local::tests::child_that_is_killed"])
        .env(CHILD_FOLDER, folder.path())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(9));
    let staging = folder.path().join(STAGING_FOLDER);
    assert_eq!(files(&staging).len(), 3, "two objects and a lock that nobody holds");
    let store = open(folder.path());
    let mut seen = Vec::new();
    store.list("", &mut |listed| seen.push(listed.key)).await.unwrap();
    assert_eq!(seen, ["synced/a"]);
    assert_eq!(store.put("lost/a", bytes("again")).await.unwrap(), Put::Created);
    assert_eq!(files(&staging).len(), 2, "its own object and lock");
    store.sync().await.unwrap();
    assert_eq!(&store.get("lost/a", 10).await.unwrap()[..], b"again");
}

/// A small file system in memory; needs root.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: &Path, size_bytes: u64) -> Self {
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size_bytes}"), "lifeboat-test"])
            .arg(path)
            .status()
            .unwrap();
        assert!(status.success(), "mounting a tmpfs needs root");
        Self(path.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}
