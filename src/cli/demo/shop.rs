//! The demo's made-up business: a shop with a database and a folder of uploads, built from a fixed seed.
//!
//! The same seed, scale and time of day make the same shop, byte for byte, so that two runs of the demo tell the same
//! story. It knows nothing of backups: it is what there is to lose.

mod database;
mod dice;
mod formats;
mod uploads;
mod writer;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::error::{Code, Diagnostic};

pub(super) use database::{CONSISTENT_SQL, NEWEST_SQL};
pub(super) use uploads::CATALOGUE;
pub(super) use writer::Writer;

/// Why the shop cannot be built or changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShopError {
    /// The system refused.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// `write`, `remove`, ...
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// SQLite refused.
    #[error("the shop's database {} cannot be written", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        cause: sqlx::Error,
    },
    /// The writer did nothing for too long.
    #[error("the shop took no order within {waited_seconds} s")]
    WriterStuck {
        /// How long was waited.
        waited_seconds: u64,
    },
}

impl Diagnostic for ShopError {
    fn code(&self) -> Code {
        Code::DemoFailed
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { cause, .. } if cause.kind() == io::ErrorKind::StorageFull => {
                Some("the demo needs about 250 MB; `lifeboat demo --dir DIR` puts it elsewhere".to_owned())
            }
            Self::Io { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => {
                Some("`lifeboat demo --dir DIR` puts it where you may write".to_owned())
            }
            _ => None,
        }
    }
}

/// How large a shop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// Rows of `customers`.
    pub customers: u32,
    /// Rows of `products`.
    pub products: u32,
    /// Rows of `orders`; lines and payments come on top.
    pub orders: u32,
    /// Photos of some 60 kB, each with a thumbnail.
    pub pictures: u32,
    /// PDF documents.
    pub invoices: u32,
    /// Daily CSV files.
    pub exports: u32,
    /// The size of the one large file, which does not compress.
    pub video_bytes: usize,
}

impl Scale {
    /// What the demo shows: about 55 MB.
    pub(super) const DEMO: Self = Self {
        customers: 4_000,
        products: 240,
        orders: 30_000,
        pictures: 400,
        invoices: 600,
        exports: 30,
        video_bytes: 20_000_000,
    };
}

/// The shop's places, and how far its numbering went.
#[derive(Debug, Clone)]
pub(super) struct Shop {
    /// The SQLite database.
    pub database: PathBuf,
    /// The folder of uploads.
    pub uploads: PathBuf,
    scale: Scale,
}

/// What was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Built {
    /// Rows of all tables together.
    pub rows: u64,
    /// Regular files below `uploads`.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the file system takes extended attributes, so that one file has one.
    pub xattr: bool,
}

/// What a day changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Day {
    /// New files.
    pub files_added: u64,
    /// Files with other content than before.
    pub files_edited: u64,
    /// Files that are gone.
    pub files_deleted: u64,
    /// New orders.
    pub orders_added: u64,
    /// Orders with another status.
    pub orders_updated: u64,
    /// Orders that are gone, with their lines and payments.
    pub orders_deleted: u64,
}

impl Shop {
    /// Where a shop in `dir` has what; nothing is built.
    pub(super) fn at(dir: &Path, scale: Scale) -> Self {
        Self { database: dir.join("shop.db"), uploads: dir.join("uploads"), scale }
    }

    /// Builds a shop in `dir`, which must hold no other shop.
    pub(super) fn build(dir: &Path, scale: Scale, now: DateTime<Utc>) -> Result<(Self, Built), ShopError> {
        let shop = Self::at(dir, scale);
        make_folder(dir)?;
        let rows = database::build(&shop.database, scale, now)?;
        let tree = uploads::build(&shop.uploads, scale, now)?;
        Ok((shop, Built { rows, ..tree }))
    }

    /// What happens between two backups. The database may be written to by others meanwhile.
    pub(super) fn change_a_day(&self, now: DateTime<Utc>) -> Result<Day, ShopError> {
        let rows = database::change_a_day(&self.database, self.scale, now)?;
        let files = uploads::change_a_day(&self.uploads, self.scale, now)?;
        Ok(Day {
            files_added: files.files_added,
            files_edited: files.files_edited,
            files_deleted: files.files_deleted,
            ..rows
        })
    }

    /// Starts to take orders.
    pub(super) fn open_for_business(
        &self,
        clock: std::sync::Arc<dyn crate::clock::Clock>,
    ) -> Result<Writer, ShopError> {
        Writer::start(&self.database, self.scale, clock)
    }
}

fn make_folder(path: &Path) -> Result<(), ShopError> {
    fs::create_dir_all(path).map_err(|cause| ShopError::Io { verb: "make", path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::clock::ManualClock;

    const TINY: Scale =
        Scale { customers: 40, products: 20, orders: 300, pictures: 6, invoices: 8, exports: 3, video_bytes: 100_000 };

    fn now() -> DateTime<Utc> {
        "2026-11-22T02:00:00Z".parse().unwrap()
    }

    fn build_tiny() -> (tempfile::TempDir, Shop, Built) {
        let dir = tempfile::tempdir().unwrap();
        let (shop, built) = Shop::build(dir.path(), TINY, now()).unwrap();
        (dir, shop, built)
    }

    /// Every entry below a folder: its content, or where it points, and its time.
    fn entries(root: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let meta = path.symlink_metadata().unwrap();
                let name = path.strip_prefix(root).unwrap().to_owned();
                if meta.is_dir() {
                    folders.push(path);
                } else if meta.is_symlink() {
                    found.insert(
                        name,
                        (fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(), now().into()),
                    );
                } else {
                    found.insert(name, (fs::read(&path).unwrap(), meta.modified().unwrap()));
                }
            }
        }
        found
    }

    #[test]
    fn the_same_seed_makes_the_same_shop() {
        let (_first_dir, first, built) = build_tiny();
        let (_second_dir, second, _) = build_tiny();
        assert!(entries(&first.uploads) == entries(&second.uploads));
        let dump = |shop: &Shop| database::tests::ask(&shop.database, database::tests::FINGERPRINT);
        assert_eq!(dump(&first), dump(&second));
        let files = entries(&first.uploads);
        assert_eq!(built.files + 1, files.len() as u64, "all but the symbolic link");
        assert!(built.bytes > 100_000);
        assert!(
            files.values().all(|(_, modified)| *modified <= std::time::SystemTime::from(now())),
            "nothing comes from the future"
        );
    }

    #[test]
    fn the_tree_has_what_backups_get_wrong() {
        let (_dir, shop, built) = build_tiny();
        let files = entries(&shop.uploads);
        assert!(files.keys().any(|name| name.to_str().unwrap().contains("ü") && name.to_str().unwrap().contains(' ')));
        let links = |name: &Path| shop.uploads.join(name).symlink_metadata().unwrap().nlink();
        assert_eq!(files.keys().filter(|name| links(name) == 2).count(), 2, "one file with two names");
        let latest = shop.uploads.join("exports/latest.csv");
        assert!(latest.symlink_metadata().unwrap().is_symlink());
        assert!(fs::read_to_string(latest).unwrap().starts_with("order,"));
        assert!(fs::metadata(shop.uploads.join("exports").join(CATALOGUE)).unwrap().len() > 0);
        serde_json::from_slice::<serde_json::Value>(&fs::read(shop.uploads.join("exports").join(CATALOGUE)).unwrap())
            .unwrap();
        if built.xattr {
            let mut value = [0_u8; 64];
            let with = files
                .keys()
                .filter(|name| rustix::fs::lgetxattr(shop.uploads.join(name), uploads::XATTR, &mut value).is_ok());
            assert!(with.count() >= 1);
        }
    }

    #[test]
    fn a_day_changes_a_little_and_keeps_the_books_right() {
        let (_dir, shop, built) = build_tiny();
        let before = entries(&shop.uploads);
        let orders = || database::tests::ask(&shop.database, "select count(*) from orders").parse::<u64>().unwrap();
        let orders_before = orders();
        let day = shop.change_a_day(now()).unwrap();
        let after = entries(&shop.uploads);

        let added = after.keys().filter(|name| !before.contains_key(*name)).count() as u64;
        let deleted = before.keys().filter(|name| !after.contains_key(*name)).count() as u64;
        let edited =
            after.iter().filter(|(name, (bytes, _))| before.get(*name).is_some_and(|(b, _)| b != bytes)).count();
        assert_eq!((added, edited as u64, deleted), (day.files_added, day.files_edited, day.files_deleted));
        assert!(added > 0 && edited > 0 && deleted > 0 && (edited as u64) < built.files / 2);
        assert_eq!(orders(), orders_before + day.orders_added - day.orders_deleted);
        assert!(day.orders_added > 0 && day.orders_updated > 0 && day.orders_deleted > 0, "{day:?}");
        assert_eq!(database::tests::ask(&shop.database, CONSISTENT_SQL), "1");
    }

    #[test]
    fn the_writer_writes_until_it_is_stopped_and_keeps_the_books_right() {
        let (_dir, shop, _) = build_tiny();
        let orders = || database::tests::ask(&shop.database, "select count(*) from orders").parse::<u64>().unwrap();
        let before = orders();
        let clock = Arc::new(ManualClock::at(now() + chrono::TimeDelta::hours(1)));
        let writer = shop.open_for_business(clock).unwrap();
        writer.wait_for_orders(20).unwrap();
        assert_eq!(database::tests::ask(&shop.database, CONSISTENT_SQL), "1", "in the midst of it");
        let written = writer.stop().unwrap();
        assert!(written >= 20);
        assert_eq!(orders(), before + written);
        assert_eq!(database::tests::ask(&shop.database, NEWEST_SQL), "2026-11-22 03:00:00");
    }

    #[test]
    fn a_writer_that_is_dropped_ends() {
        let (_dir, shop, _) = build_tiny();
        let orders = || database::tests::ask(&shop.database, "select count(*) from orders");
        let writer = shop.open_for_business(Arc::new(ManualClock::at(now()))).unwrap();
        writer.wait_for_orders(1).unwrap();
        drop(writer);
        // Its thread was joined: nobody writes any more, and an exclusive transaction is to be had at once.
        assert_eq!(orders(), orders());
        assert_eq!(database::tests::ask(&shop.database, "pragma locking_mode = exclusive"), "exclusive");
    }

    #[test]
    fn a_writer_without_a_database_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let shop = Shop { database: dir.path().join("none.db"), uploads: dir.path().to_owned(), scale: TINY };
        let failed = shop.open_for_business(Arc::new(ManualClock::at(now())));
        assert!(matches!(failed, Err(ShopError::Database { .. })));
    }
}
