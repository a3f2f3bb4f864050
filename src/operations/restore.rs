//! `restore` and `cat`: from the vault to a folder, or to a tar stream.
//!
//! One thread follows the plan of a source and hands out work; workers fetch, open and unpack. Nothing is written
//! before the contents of every source asked for could be opened.

use std::collections::{HashSet, VecDeque};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::Serialize;

use crate::domain::contents::MemberKind;
use crate::domain::ids::SourceName;
use crate::domain::manifest::{Manifest, SourceEntry};
use crate::error::{Code, Error, Result};
use crate::observe::Progress;
use crate::sources::unpack::{Large, Summary, UnpackOptions, Unpacked, Unpacker};
use crate::storage::ahead::ROOM_BYTES;
use crate::vault::VaultError;
use crate::vault::ahead::{Begun, Segments, Step, Take, Walk};
use crate::vault::reader::{Plan, PlannedPiece, Reader};

use super::host::Host;
use super::lock;

/// Tasks that may wait, for each worker.
const TASKS_PER_WORKER: usize = 4;

/// What to restore, and where.
#[derive(Debug)]
pub struct Request<'a> {
    /// The folder: each source goes to a folder of its name below it.
    pub target: &'a Path,
    /// This source only.
    pub source: Option<&'a SourceName>,
    /// Only members that one of these globs matches, or whose folder it matches; empty means everything.
    pub paths: &'a [String],
    /// Replace what is in the way, in a folder that need not be empty.
    pub overwrite: bool,
}

/// What was restored of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoredSource {
    /// The source.
    pub name: SourceName,
    /// Its kind.
    pub kind: String,
    /// Files, folders and links that were made.
    pub members: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Members that belong to this user now, because only root can give files away.
    pub owners_kept: u64,
    /// Extended attributes that only root could set.
    pub attributes_left_out: u64,
    /// Device nodes that only root could make.
    pub devices_left_out: u64,
}

/// Restores.
///
/// # Errors
/// [`Code::TargetNotEmpty`], [`Code::NotFound`], [`Code::NoIdentity`], damage, or a disk that refuses.
pub fn restore(
    host: &Host,
    reader: &Reader,
    manifest: &Manifest,
    request: &Request<'_>,
    progress: &dyn Progress,
) -> Result<Vec<RestoredSource>> {
    let sources = chosen_sources(manifest, request.source)?;
    let selection = Selection::parse(request.paths)?;
    if !request.overwrite {
        must_be_empty(request.target)?;
    }
    // Opening every plan first proves that an identity fits, before anything is written.
    let begun: Vec<_> = sources.iter().map(|source| reader.begin_plan(source)).collect();
    let plans = begun.into_iter().map(|begun| begun.open().map_err(|error| explained(error, manifest)));
    let plans = plans.collect::<Result<Vec<Plan>>>()?;
    let mut restored = Vec::new();
    for (source, plan) in sources.iter().zip(plans) {
        let selection = selection.with_link_targets(reader, source)?;
        let stage = format!("restoring {}", source.name);
        progress.begin(&stage, request.paths.is_empty().then_some(source.logical_bytes));
        let options = UnpackOptions { owners: rustix::process::geteuid().is_root(), overwrite: request.overwrite };
        let unpacker = Unpacker::create(&request.target.join(source.name.as_str()), options)?;
        let unpacked = unpack_source(host, reader, plan, &unpacker, &selection, progress);
        progress.end();
        let unpacked = unpacked.map_err(|e| e.context(format!("source {}", source.name)))?;
        let summary = finish(unpacker)?;
        restored.push(RestoredSource {
            name: source.name.clone(),
            kind: source.kind.clone(),
            members: unpacked.members,
            bytes: unpacked.bytes,
            owners_kept: summary.owners_kept,
            attributes_left_out: summary.attributes_left_out,
            devices_left_out: summary.devices_left_out,
        });
    }
    if restored.iter().all(|source| source.members == 0) && !request.paths.is_empty() {
        return Err(Error::new(
            Code::NotFound,
            format!("nothing in backup {} matches {}", manifest.id, request.paths.join(", ")),
        )
        .with_hint(format!("`lifeboat show {} --files` lists what is in it", manifest.id)));
    }
    Ok(restored)
}

/// Makes links and sets folders right. A hard link without its file is something left out, and no restore says nothing
/// of that.
///
/// # Errors
/// The system's; and [`Code::RestoreFailed`] where a link's file was not restored.
pub fn finish(unpacker: Unpacker) -> Result<Summary> {
    let summary = unpacker.finish()?;
    match &summary.unlinked[..] {
        [] => Ok(summary),
        [(link, target), ..] => Err(Error::new(
            Code::RestoreFailed,
            format!(
                "{} hard links could not be made, {} for one: {} was not restored",
                summary.unlinked.len(),
                link.display(),
                target.display()
            ),
        )),
    }
}

/// Writes the tar stream of a source.
///
/// # Errors
/// As for a restore; and when `out` refuses.
pub fn cat(
    host: &Host,
    reader: &Reader,
    manifest: &Manifest,
    source: &SourceName,
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<()> {
    let sources = chosen_sources(manifest, Some(source))?;
    let written = |cause| Error::new(Code::RestoreFailed, format!("cannot write the tar stream: {cause}"));
    for entry in sources {
        progress.begin(&format!("reading {source}"), Some(entry.logical_bytes));
        let mut plan = plan(reader, manifest, entry)?;
        let id_key = plan.id_key();
        let mut walk = Walk::new(Segments::new(reader, ROOM_BYTES), &mut plan, &|_| Take::All);
        std::thread::scope(|scope| -> Result<()> {
            let mut opening = VecDeque::new();
            let mut end = None;
            loop {
                while end.is_none() && opening.len() < host.workers * 2 {
                    match walk.step() {
                        Ok(Some(Step::Whole(begun) | Step::Head { head: begun, .. } | Step::Data(begun))) => {
                            opening.push_back(scope.spawn(move || begun.open(&id_key)));
                        }
                        Ok(Some(Step::LeftOut)) => {}
                        Ok(None) => end = Some(Ok(())),
                        Err(error) => end = Some(Err(error)),
                    }
                }
                let Some(next) = opening.pop_front() else { break };
                let plain = next.join().map_err(|_| Error::new(Code::Internal, "an opening thread panicked"))??;
                out.write_all(&plain).map_err(written)?;
                progress.advance(plain.len() as u64);
            }
            // What the plan named before its end, or before its damage, is written by now.
            end.map_or(Ok(()), |end| Ok(end?))
        })?;
        progress.end();
    }
    out.flush().map_err(written)
}

/// Opens the plan of a source; where no identity fits, says which would.
///
/// # Errors
/// As [`Reader::plan`].
pub fn plan(reader: &Reader, manifest: &Manifest, source: &SourceEntry) -> Result<Plan> {
    reader.plan(source).map_err(|error| explained(error, manifest))
}

fn explained(error: VaultError, manifest: &Manifest) -> Error {
    match Error::from(error) {
        error if error.code() == Code::NoIdentity => {
            let recipients = manifest.recipients.join(", ");
            Error::new(Code::NoIdentity, format!("none of the identities given opens backup {}", manifest.id))
                .with_hint(format!("it is sealed to {recipients}: give the identity file of one, --identity FILE"))
        }
        error => error,
    }
}

fn chosen_sources<'a>(manifest: &'a Manifest, name: Option<&SourceName>) -> Result<Vec<&'a SourceEntry>> {
    let sources: Vec<&SourceEntry> =
        manifest.sources.iter().filter(|source| name.is_none_or(|name| *name == source.name)).collect();
    match (name, sources.is_empty()) {
        (Some(name), true) => {
            let there: Vec<&str> = manifest.sources.iter().map(|s| s.name.as_str()).collect();
            Err(Error::new(Code::NotFound, format!("backup {} has no source {name}", manifest.id))
                .with_hint(format!("it has: {}", there.join(", "))))
        }
        _ => Ok(sources),
    }
}

fn must_be_empty(target: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(target) {
        Ok(mut entries) => entries.next().is_some(),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => false,
        Err(cause) => {
            return Err(Error::new(
                Code::RestoreFailed,
                format!("cannot use {} to restore into: {cause}", target.display()),
            )
            .with_hint("name a folder that is new, or empty"));
        }
    };
    if entries {
        return Err(Error::new(Code::TargetNotEmpty, format!("{} is not empty", target.display()))
            .with_hint("name a new folder, or add --overwrite to replace what is in the way"));
    }
    Ok(())
}

/// Which members are wanted.
#[derive(Debug, Clone)]
pub struct Selection {
    globs: Option<Gitignore>,
    link_targets: HashSet<Vec<u8>>,
}

impl Selection {
    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { globs: None, link_targets: HashSet::new() }
    }

    /// What the globs match; everything where there are none.
    ///
    /// # Errors
    /// When a glob is malformed.
    pub fn parse(globs: &[String]) -> Result<Self> {
        if globs.is_empty() {
            return Ok(Self::everything());
        }
        let wrong =
            |glob: &str, cause: ignore::Error| Error::new(Code::Usage, format!("{glob:?} is not a glob: {cause}"));
        let mut builder = GitignoreBuilder::new("");
        for glob in globs {
            builder.add_line(None, glob).map_err(|cause| wrong(glob, cause))?;
        }
        let globs = builder.build().map_err(|cause| wrong(&globs.join(" "), cause))?;
        Ok(Self { globs: Some(globs), link_targets: HashSet::new() })
    }

    fn is_everything(&self) -> bool {
        self.globs.is_none()
    }

    /// Whether a member is wanted.
    #[must_use]
    pub fn wants(&self, path: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let Some(globs) = &self.globs else { return true };
        let as_path = Path::new(std::ffi::OsStr::from_bytes(path));
        // A path with a root never stands in contents of ours; the matcher would not take one.
        (as_path.is_relative() && globs.matched_path_or_any_parents(as_path, false).is_ignore())
            || self.link_targets.contains(path)
    }

    /// A hard link that is wanted brings the file that it is another name of.
    fn with_link_targets(&self, reader: &Reader, source: &SourceEntry) -> Result<Self> {
        let mut wider = self.clone();
        if self.globs.is_none() {
            return Ok(wider);
        }
        let mut plan = reader.plan(source)?;
        while let Some(piece) = plan.next_piece()? {
            for member in piece.members {
                if let (MemberKind::Hardlink, Some(target)) = (member.kind, member.link)
                    && self.wants(&member.path.0)
                {
                    wider.link_targets.insert(target.0);
                }
            }
        }
        Ok(wider)
    }
}

enum Task {
    /// A segment of whole members.
    Whole(Begun),
    /// A part of a large file's data.
    Data { large: Arc<Large>, segment: Begun, offset: u64 },
}

/// Unpacks all wanted pieces of a source.
///
/// # Errors
/// The first of any worker; the others stop then.
pub fn unpack_source(
    host: &Host,
    reader: &Reader,
    mut plan: Plan,
    unpacker: &Unpacker,
    selection: &Selection,
    progress: &dyn Progress,
) -> Result<Unpacked> {
    let id_key = plan.id_key();
    let total = Mutex::new(Unpacked::default());
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let (sender, receiver) = sync_channel(host.workers * TASKS_PER_WORKER);
    let receiver = Arc::new(Mutex::new(receiver));
    std::thread::scope(|scope| {
        for _ in 0..host.workers {
            let receiver = Arc::clone(&receiver);
            let (failure, total, id_key) = (&failure, &total, &id_key);
            scope.spawn(move || {
                while let Some(task) = next(&receiver) {
                    if lock(failure).is_some() {
                        // The channel is emptied, so that the feeder is not left waiting.
                        continue;
                    }
                    match carry_out(task, id_key, unpacker, selection, progress) {
                        Ok(unpacked) => add(total, unpacked),
                        Err(error) => {
                            lock(failure).get_or_insert(error);
                        }
                    }
                }
            });
        }
        // The workers alone hold it now: when the last has panicked, sending fails instead of waiting for ever.
        drop(receiver);
        let fed = feed(host, reader, &mut plan, unpacker, selection, &sender, &failure);
        match fed {
            Ok(unpacked) => add(&total, unpacked),
            Err(error) => {
                lock(&failure).get_or_insert(error);
            }
        }
        drop(sender);
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn add(total: &Mutex<Unpacked>, more: Unpacked) {
    let mut total = lock(total);
    total.members += more.members;
    total.bytes += more.bytes;
}

fn feed(
    host: &Host,
    reader: &Reader,
    plan: &mut Plan,
    unpacker: &Unpacker,
    selection: &Selection,
    tasks: &SyncSender<Task>,
    failure: &Mutex<Option<Error>>,
) -> Result<Unpacked> {
    let id_key = plan.id_key();
    let mut unpacked = Unpacked::default();
    let closed = |_| Error::new(Code::Internal, "the restoring threads are gone");
    let wanted = |piece: &PlannedPiece| {
        // A piece without members is tar's end: who restores everything reads it too, so that its damage is noticed.
        let wanted = piece.members.iter().any(|member| selection.wants(&member.path.0));
        if wanted || selection.is_everything() { Take::All } else { Take::Nothing }
    };
    let mut walk = Walk::new(Segments::new(reader, ROOM_BYTES), plan, &wanted);
    let mut filled = None;
    while let Some(step) = walk.step()? {
        host.check_interrupted()?;
        if lock(failure).is_some() {
            return Ok(unpacked);
        }
        match step {
            Step::LeftOut => {}
            Step::Whole(segment) => {
                finish_last(filled.take())?;
                tasks.send(Task::Whole(segment)).map_err(closed)?;
            }
            Step::Head { head, .. } => {
                finish_last(filled.take())?;
                let Some(large) = unpacker.begin_large(&head.open(&id_key)?, &|path| selection.wants(path))? else {
                    continue;
                };
                unpacked.members += 1;
                unpacked.bytes += large.member().size_bytes;
                filled = Some((Arc::new(large), 0));
            }
            Step::Data(segment) => {
                // A file that is left out, though its piece is not.
                let Some((large, offset)) = &mut filled else { continue };
                let length = segment.plain_bytes();
                tasks.send(Task::Data { large: Arc::clone(large), segment, offset: *offset }).map_err(closed)?;
                *offset += length;
            }
        }
    }
    finish_last(filled)?;
    Ok(unpacked)
}

fn finish_last(filled: Option<(Arc<Large>, u64)>) -> Result<()> {
    filled.map_or(Ok(()), |(large, _)| finish_if_last(large))
}

fn carry_out(
    task: Task,
    id_key: &[u8; 32],
    unpacker: &Unpacker,
    selection: &Selection,
    progress: &dyn Progress,
) -> Result<Unpacked> {
    match task {
        Task::Whole(segment) => {
            let plain = segment.open(id_key)?;
            let unpacked = unpacker.unpack(&plain, &|path| selection.wants(path))?;
            progress.advance(plain.len() as u64);
            Ok(unpacked)
        }
        Task::Data { large, segment, offset } => {
            let plain = segment.open(id_key)?;
            large.write_at(offset, &plain)?;
            progress.advance(plain.len() as u64);
            finish_if_last(large)?;
            Ok(Unpacked::default())
        }
    }
}

/// Whoever holds a large file last sets its times and modes.
fn finish_if_last(large: Arc<Large>) -> Result<()> {
    match Arc::into_inner(large) {
        Some(large) => Ok(large.finish()?),
        None => Ok(()),
    }
}

fn next(receiver: &Mutex<Receiver<Task>>) -> Option<Task> {
    lock(receiver).recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_select_files_and_whole_folders() {
        let wants = |globs: &[&str], path: &str| {
            let globs: Vec<String> = globs.iter().map(|&g| g.to_owned()).collect();
            Selection::parse(&globs).unwrap().wants(path.as_bytes())
        };
        assert!(wants(&[], "srv/a"));
        assert!(wants(&["*.pdf"], "srv/shop/docs/a.pdf"));
        assert!(!wants(&["*.pdf"], "srv/shop/docs/a.txt"));
        assert!(wants(&["srv/shop/docs"], "srv/shop/docs/deep/a.txt"));
        assert!(wants(&["/srv/shop/docs"], "srv/shop/docs/a.txt"));
        assert!(!wants(&["srv/shop/docs"], "srv/shop/other/a.txt"));
        assert!(wants(&["a.txt", "b.txt"], "x/b.txt"));
    }
}
