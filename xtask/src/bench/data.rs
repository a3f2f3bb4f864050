//! The data that are backed up: made from numbers alone, so that two machines bench the same bytes.
//!
//! What a file holds is a function of its number and of how often it was changed. So a tree that a run has changed can
//! be put back without making it anew, and every tool finds the same changes in the same run.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// Nine of ten files are below this size.
pub(super) const TINY_BYTES: usize = 40_000;
/// Below this size a file shares a segment with others in lifeboat's format.
pub(super) const BUNDLED_BYTES: usize = 1 << 20;
/// One file in so many changes in a day.
const CHANGES_ONE_IN: usize = 100;
/// Files in a folder of the tree.
const FOLDER_FILES: usize = 40;
/// Above the size from which lifeboat lets a file share a segment with those of its own folder only.
const LONE_FILE_BYTES: u64 = 70_000;
/// The file beside a tree's folder that lists which of its files were changed.
const CHANGES: &str = "changed";

/// What a day's changes came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// How many files.
    pub(super) files: usize,
    /// Their sizes' sum: they are written anew from first byte to last.
    pub(super) bytes: u64,
}

/// A tree like a small company's: mostly small files, text that compresses and pictures that do not, some large ones.
pub(super) struct Tree {
    folder: PathBuf,
    files: usize,
    words: Vec<String>,
}

impl Tree {
    /// Makes the tree below `place` where it is not there yet, and puts back what an earlier run changed.
    pub(super) fn make(place: &Path, files: usize) -> io::Result<Self> {
        let mut random = Random::of(0, 0);
        let words = (0..4096).map(|_| random.word()).collect();
        let tree = Self { folder: place.join(format!("company-{files}")), files, words };
        if complete(&tree.folder) {
            for number in tree.changed_before()? {
                tree.write(number, 0)?;
            }
        } else {
            println!("making {files} files in {}", tree.folder.display());
            for number in 0..files {
                tree.write(number, 0)?;
            }
            set_complete(&tree.folder)?;
        }
        match fs::remove_file(tree.changes()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(tree),
        }
    }

    /// Where it lies.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes 1 % of the files `below` a size anew, chosen at random by the number of the `day` (1 or more; each number
    /// once in a run).
    pub(super) fn change(&self, day: u64, below: usize) -> io::Result<Changed> {
        let mut random = Random::of(u64::MAX, day);
        let chosen: Vec<usize> = (0..self.files)
            .filter(|number| size_of(*number) < below)
            .filter(|_| random.below(CHANGES_ONE_IN) == 0)
            .collect();
        // Remembered first, so that a run that is broken off leaves nothing that the next cannot put back.
        let mut list = File::options().create(true).append(true).open(self.changes())?;
        for number in &chosen {
            writeln!(list, "{number}")?;
        }
        list.sync_all()?;
        let mut changed = Changed::default();
        for number in chosen {
            self.write(number, day)?;
            changed.files += 1;
            changed.bytes += size_of(number) as u64;
        }
        Ok(changed)
    }

    fn changes(&self) -> PathBuf {
        self.folder.with_extension(CHANGES)
    }

    fn changed_before(&self) -> io::Result<Vec<usize>> {
        match fs::read_to_string(self.changes()) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn write(&self, number: usize, version: u64) -> io::Result<()> {
        let folder = number / FOLDER_FILES;
        let folder = self.folder.join(format!("{:02}/{folder:03}", folder % 37));
        if number.is_multiple_of(FOLDER_FILES) {
            fs::create_dir_all(&folder)?;
        }
        let mut file = BufWriter::new(File::create(folder.join(format!("file-{number}")))?);
        let mut random = Random::of(number as u64, version + 1);
        let text = random.below(10) < 6;
        let mut left = size_of(number);
        while left > 0 {
            let noise;
            let chunk = if text {
                // Some words are common, as in a language.
                let rare = 64 + random.below(self.words.len() - 64);
                self.words[random.below(rare)].as_bytes()
            } else {
                noise = random.next().to_le_bytes();
                &noise
            };
            let take = chunk.len().min(left);
            file.write_all(&chunk[..take])?;
            left -= take;
        }
        file.flush()
    }
}

/// Sizes spread over powers of two, so that the sum comes to about 29 KB a file.
fn size_of(number: usize) -> usize {
    let mut random = Random::of(number as u64, 0);
    match random.below(1000) {
        0..=1 => 2_000_000 + random.below(8_600_000),
        2..=99 => TINY_BYTES + random.below(200_000),
        _ => {
            let bits = 6 + random.below(9);
            200 + random.below(1 << bits)
        }
    }
}

/// A tree of nothing but small files, a thousand a folder; made where it is not there yet.
pub(super) fn small_files(place: &Path, files: usize) -> io::Result<PathBuf> {
    let tree = place.join(format!("small-{files}"));
    if complete(&tree) {
        return Ok(tree);
    }
    println!("making {files} small files in {}", tree.display());
    for number in 0..files {
        let folder = tree.join(format!("{:04}", number / 1000));
        if number.is_multiple_of(1000) {
            fs::create_dir_all(&folder)?;
        }
        let mut random = Random::of(number as u64, 1);
        let mut content = String::with_capacity(1100);
        let size = 100 + random.below(900);
        while content.len() < size {
            content.push_str(&random.word());
        }
        fs::write(folder.join(format!("{:03}", number % 1000)), content)?;
    }
    set_complete(&tree)?;
    Ok(tree)
}

/// Files that lifeboat stores as a segment each, and their folder as another one, and that are nearly all hole, so that a vault
/// of a hundred thousand segments does not take a hundred gigabytes.
pub(super) struct LoneFiles {
    folder: PathBuf,
    files: usize,
}

impl LoneFiles {
    /// Makes them anew.
    pub(super) fn make(place: &Path, files: usize) -> io::Result<Self> {
        let lone = Self { folder: place.join(format!("lone-{files}")), files };
        println!("making {files} folders with a file in {}", lone.folder.display());
        for number in 0..files {
            fs::create_dir_all(lone.path(number).with_file_name(""))?;
            lone.write(number, 0)?;
        }
        Ok(lone)
    }

    /// Where they lie.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the `day`'s share of them anew: each day others, all days together less than all files.
    pub(super) fn change(&self, day: usize, share: usize) -> io::Result<()> {
        (0..share).map(|index| (day * share + index) % self.files).try_for_each(|number| self.write(number, day))
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{:03}/{number}/file", number / 1000))
    }

    fn write(&self, number: usize, version: usize) -> io::Result<()> {
        let mut file = File::options().create(true).truncate(false).write(true).open(self.path(number))?;
        file.set_len(LONE_FILE_BYTES)?;
        file.rewind()?;
        writeln!(file, "file {number}, version {version}")
    }
}

/// SQL that makes a shop's table of about this many bytes.
pub(super) fn shop_sql(bytes: u64) -> String {
    let rows = shop_rows(bytes);
    format!(
        "pragma journal_mode = off; pragma synchronous = off;\n\
         create table orders (id integer primary key, customer integer not null, created_at text not null, \
         note text not null);\n\
         with recursive numbers(id) as (select 1 union all select id + 1 from numbers where id < {rows})\n\
         insert into orders select id, id * 48271 % 99991, datetime(1700000000 + id * 30, 'unixepoch'), {} from numbers;",
        note(0)
    )
}

/// SQL that updates 1 % of the rows in one place, another one each `round` (1 or more).
pub(super) fn update_sql(bytes: u64, round: usize) -> String {
    let rows = shop_rows(bytes);
    let share = rows / 100;
    let first = 1 + rows / 10 * (round as u64 % 9);
    format!("update orders set note = {} where id >= {first} and id < {};", note(round), first + share)
}

/// What a row takes: thirteen of them fill a page of 4,096 bytes.
const ROW_BYTES: u64 = 315;

fn shop_rows(bytes: u64) -> u64 {
    (bytes / ROW_BYTES).max(1000)
}

/// Text of the same length whatever the version: half words, half what does not compress well.
fn note(version: usize) -> String {
    let hex: Vec<String> =
        (1..=24).map(|k| format!("(id + {version} * 10000019) * {} % 2147483647", 16_807 + k * 7919)).collect();
    format!(
        "printf('delivered to the shelf of the customer, paid on the day; signed by the clerk: {}', {})",
        "%08x".repeat(hex.len()),
        hex.join(", ")
    )
}

fn complete(folder: &Path) -> bool {
    folder.with_extension("complete").exists()
}

fn set_complete(folder: &Path) -> io::Result<()> {
    fs::write(folder.with_extension("complete"), "")
}

/// xorshift64*: the same numbers everywhere.
struct Random(u64);

impl Random {
    /// The numbers of one thing in one version; splitmix64 keeps neighbours apart.
    fn of(thing: u64, version: u64) -> Self {
        let mut mixed =
            0x11fe_b0a7 ^ thing.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.wrapping_mul(0xd1b5_4a32_d192_ed03);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Zero is the one state that xorshift never leaves.
        Self((mixed ^ (mixed >> 31)).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn word(&mut self) -> String {
        let mut word: String = (0..3 + self.below(8)).map(|_| char::from(b'a' + self.below(26) as u8)).collect();
        word.push(' ');
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_to_what_the_table_says() {
        let sizes: Vec<usize> = (0..59_000).map(size_of).collect();
        let sum: usize = sizes.iter().sum();
        assert!((1_650_000_000..1_750_000_000).contains(&sum), "{sum}");
        let small = sizes.iter().filter(|size| **size < TINY_BYTES).count();
        assert!((52_000..54_500).contains(&small), "{small}");
    }

    #[test]
    fn the_same_number_and_version_are_the_same_bytes_and_others_are_not() {
        let draw = |thing, version| Random::of(thing, version).next();
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn updates_of_different_rounds_stay_within_the_table_and_apart() {
        for (round, first) in [(1, "id >= 318"), (2, "id >= 635")] {
            let sql = update_sql(1_000_000, round);
            assert!(sql.contains(first), "{sql}");
        }
    }
}
