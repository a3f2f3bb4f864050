//! A source that is restored into a folder: unpacked, and held against what was sealed: every member against its line of
//! the contents, a SQLite database against its facts.

use std::path::{Path, PathBuf};

use crate::domain::check::Check;
use crate::domain::contents::{Facts, Member, RawText};
use crate::domain::manifest::SourceEntry;
use crate::error::{Error, Result};
use crate::observe::Progress;
use crate::sources::compare::{CompareOptions, compare};
use crate::sources::sqlite::verify;
use crate::sources::unpack::{UnpackOptions, Unpacker};
use crate::vault::reader::{Plan, Reader};

use super::super::host::Host;
use super::super::restore::{Selection, finish, unpack_source};

/// Differences told one by one; the rest is counted.
const MAX_NAMED_DIFFERENCES: usize = 20;

/// What comparing a source came to.
pub(super) struct Compared {
    /// One check for its members, and several for a database.
    pub checks: Vec<Check>,
    /// Differences, in sentences.
    pub errors: Vec<String>,
    /// The database file, if it is one.
    pub sqlite: Option<PathBuf>,
}

/// Restores a source into a new folder.
pub(super) fn load(
    host: &Host,
    reader: &Reader,
    source: &SourceEntry,
    plan: Plan,
    target: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    progress.begin(&format!("restoring {}", source.name), Some(source.logical_bytes));
    let unpacker = Unpacker::create(target, UnpackOptions { owners: owners(), overwrite: false })?;
    let unpacked = unpack_source(host, reader, plan, &unpacker, &Selection::everything(), progress);
    progress.end();
    unpacked?;
    finish(unpacker)?;
    Ok(())
}

/// Only root can give files away.
fn owners() -> bool {
    rustix::process::geteuid().is_root()
}

/// Compares a restored source.
pub(super) fn source(reader: &Reader, source: &SourceEntry, dir: &Path, progress: &dyn Progress) -> Result<Compared> {
    progress.begin(&format!("comparing {}", source.name), Some(source.logical_bytes));
    let mut members = Members { plan: reader.plan(source)?, piece: Vec::new().into_iter(), failure: None, progress };
    // Fused: whoever compares may ask again after the last member.
    let comparison = compare(dir, &mut members.by_ref().fuse(), CompareOptions { owners: owners() });
    progress.end();
    if let Some(failure) = members.failure {
        return Err(failure);
    }
    let comparison = comparison?;
    let differing = comparison.total_differences;
    let mut errors: Vec<String> = comparison
        .differences
        .iter()
        .take(MAX_NAMED_DIFFERENCES)
        .map(|d| {
            let path = d.path.display();
            format!("{}: {path}: {} is {} and was {}", source.name, d.what, d.actual, d.expected)
        })
        .collect();
    if differing > errors.len() as u64 {
        errors.push(format!("{}: and {} more differences", source.name, differing - errors.len() as u64));
    }
    let mut checks = vec![Check {
        name: format!("{}: members as sealed", source.name),
        passed: differing == 0,
        expected: format!("{} members, none different", comparison.compared),
        actual: match differing {
            0 => format!("{} members, none different", comparison.compared),
            n => format!("{n} differences; the first: {}", errors.first().map_or("", String::as_str)),
        },
    }];
    let mut sqlite = None;
    if source.kind == "sqlite" && !matches!(members.plan.tail().facts, Some(Facts::Sqlite(_))) {
        errors.push(format!("{}: the contents have no facts of the database", source.name));
        checks.push(Check::equal(format!("{}: facts in the contents", source.name), "there", "missing"));
    }
    if let Some(Facts::Sqlite(facts)) = &members.plan.tail().facts {
        let file = dir.join(file_name(&facts.file));
        for check in verify::verify(&file, facts)? {
            if !check.passed {
                errors.push(format!(
                    "{}: {}: expected {}, got {}",
                    source.name, check.name, check.expected, check.actual
                ));
            }
            checks.push(Check { name: format!("{}: {}", source.name, check.name), ..check });
        }
        sqlite = Some(file);
    }
    Ok(Compared { checks, errors, sqlite })
}

fn file_name(raw: &RawText) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    // The unpacker refused anything but a plain name below the source's folder.
    Path::new(std::ffi::OsStr::from_bytes(&raw.0)).file_name().map(PathBuf::from).unwrap_or_default()
}

/// The members of a plan, one by one; stops at the first failure and keeps it.
struct Members<'a> {
    plan: Plan,
    piece: std::vec::IntoIter<Member>,
    failure: Option<Error>,
    progress: &'a dyn Progress,
}

impl Iterator for Members<'_> {
    type Item = Member;

    fn next(&mut self) -> Option<Member> {
        loop {
            if let Some(member) = self.piece.next() {
                return Some(member);
            }
            match self.plan.next_piece() {
                Ok(Some(piece)) => {
                    self.progress.advance(piece.segments.iter().map(|s| s.plain.bytes).sum());
                    self.piece = piece.members.into_iter();
                }
                Ok(None) => return None,
                Err(error) => {
                    self.failure = Some(error.into());
                    return None;
                }
            }
        }
    }
}
