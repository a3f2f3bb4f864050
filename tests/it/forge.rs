//! What no command of the program writes: backups with wrong facts, hostile tars, lying contents, all properly sealed
//! and signed with the world's own keys. So a test reaches the checks that stand behind the signature.

use std::fs;
use std::sync::Arc;

use chrono::Utc;
use lifeboat::clock::SystemClock;
use lifeboat::domain::contents::{Facts, Line, Member, MemberKind, PieceSegment};
use lifeboat::domain::ids::{BackupId, ObjectId};
use lifeboat::domain::manifest::{Manifest, SourceEntry};
use lifeboat::seal::{Identities, Opener, Sealer, keyed_id};
use lifeboat::sources::tar::write::{END, header, padding};
use lifeboat::storage::Storage;
use lifeboat::storage::local::Local;
use lifeboat::vault::keys::SigningKey;
use lifeboat::vault::layout::{Key, ManifestName, manifest_hash};
use lifeboat::vault::lists::{ListedSegment, encode, read_list};
use lifeboat::vault::manifests::{commit_manifest, sign_manifest};

use crate::support::World;

/// A world's vault, opened through the library, with every key.
pub(crate) struct Forge {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) host_key: SigningKey,
    opener: Opener,
    backups: std::path::PathBuf,
}

/// A piece of a forged source: its segments' plain bytes, and the members that the contents tell of.
pub(crate) type Piece = (Vec<Vec<u8>>, Vec<Member>);

impl Forge {
    pub(crate) fn of(world: &World) -> Self {
        let identity = fs::read_to_string(world.path("identity.txt")).unwrap();
        Self {
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
            storage: Arc::new(Local::open(&world.path("vault"), Arc::new(SystemClock::default())).unwrap()),
            host_key: SigningKey::read(&world.path("state/host.key")).unwrap(),
            opener: Opener::new(Identities::parse(&identity, "identity.txt").unwrap()),
            backups: world.path("vault/backups"),
        }
    }

    /// The manifests of `shop`, by sequence number.
    pub(crate) fn manifests(&self) -> Vec<Manifest> {
        let mut manifests: Vec<Manifest> = fs::read_dir(self.backups.join("shop"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
            .map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
            .collect();
        manifests.sort_by_key(|manifest| manifest.sequence);
        manifests
    }

    /// A manifest that follows the newest of `shop` and says the same.
    pub(crate) fn next(&self) -> Manifest {
        let last = self.manifests().pop().unwrap();
        let bytes = fs::read(self.backups.join("..").join(key_of(&last))).unwrap();
        let now = Utc::now();
        Manifest {
            id: BackupId::from_random(rand::random()),
            sequence: last.sequence + 1,
            previous: Some(manifest_hash(&bytes)),
            started: now,
            committed: now,
            recovery_point: now,
            ..last
        }
    }

    /// Signs with the host's key, commits, and gives the backup's id.
    pub(crate) fn commit(&self, manifest: &Manifest) -> String {
        let signed = sign_manifest(manifest, &self.host_key);
        self.runtime.block_on(commit_manifest(&*self.storage, &signed)).unwrap();
        manifest.id.to_string()
    }

    /// Stores bytes under a key.
    pub(crate) fn put(&self, key: &str, bytes: impl Into<bytes::Bytes>) {
        let bytes = bytes.into();
        self.runtime.block_on(async { self.storage.put(key, bytes).await.and(self.storage.sync().await) }).unwrap();
    }

    /// Seals plain bytes into an object.
    pub(crate) fn seal(&self, plain: &[u8]) -> (ObjectId, u64) {
        let recipients = self.manifests().pop().unwrap().recipients;
        let sealed = Sealer::new(&recipients, 3).unwrap().seal(plain).unwrap();
        let size = sealed.bytes.len() as u64;
        self.put(&Key::Object(sealed.object).to_string(), sealed.bytes);
        (sealed.object, size)
    }

    /// The segments of a source, in order.
    pub(crate) fn segments(&self, source: &SourceEntry) -> Vec<ListedSegment> {
        let lists = source.lists.iter();
        lists.flat_map(|list| self.runtime.block_on(read_list(&*self.storage, *list)).unwrap()).collect()
    }

    /// The lines of a source's contents.
    pub(crate) fn contents(&self, source: &SourceEntry) -> Vec<Line> {
        let mut text = Vec::new();
        for object in &source.contents {
            let stored = self.runtime.block_on(self.storage.get(&Key::Object(*object).to_string(), 1 << 25)).unwrap();
            text.extend(self.opener.open_contents(object, &stored).unwrap());
        }
        let lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    /// Seals lines as contents, and puts them in the place of the source's.
    pub(crate) fn replace_contents(&self, source: &mut SourceEntry, lines: &[Line]) {
        let mut text = Vec::new();
        lines.iter().for_each(|line| line.write_to(&mut text));
        source.contents = vec![self.seal(&text).0];
    }

    /// Puts forged pieces in the place of a source's, the contents agreeing with them in everything.
    pub(crate) fn replace_pieces(&self, source: &mut SourceEntry, pieces: &[Piece], facts: Option<Facts>) {
        let id_key = [7; 32];
        let mut lines = vec![Line::Head {
            version: 1,
            source: source.name.clone(),
            kind: source.kind.clone(),
            id_key: "07".repeat(32),
            config: serde_json::Value::Null,
        }];
        let (mut listed, mut tar_bytes, mut members) = (Vec::new(), 0, 0);
        for (segments, told) in pieces {
            let mut named = Vec::new();
            for plain in segments {
                let (object, stored_bytes) = self.seal(plain);
                let id = keyed_id(&id_key, plain);
                listed.push(ListedSegment { object, stored_bytes, id });
                named.push(PieceSegment { id, bytes: plain.len() as u64 });
                tar_bytes += plain.len() as u64;
            }
            lines.push(Line::Piece(named));
            lines.extend(told.iter().map(|member| Line::Member(Box::new(member.clone()))));
            members += told.len() as u64;
        }
        lines.extend(facts.map(Line::Facts));
        lines.push(Line::End { pieces: pieces.len() as u64, members, tar_bytes });
        self.replace_contents(source, &lines);
        self.replace_lists(source, &listed);
        source.logical_bytes = tar_bytes;
    }

    /// Puts one list in the place of a source's.
    pub(crate) fn replace_lists(&self, source: &mut SourceEntry, listed: &[ListedSegment]) {
        let (list, bytes) = encode(listed);
        self.put(&Key::List(list).to_string(), bytes);
        source.lists = vec![list];
        source.segments = listed.len() as u64;
    }
}

/// Where a manifest lies.
pub(crate) fn key_of(manifest: &Manifest) -> String {
    Key::Manifest(ManifestName::of(manifest)).to_string()
}

/// A member of a forged tar.
pub(crate) fn member(path: &str, kind: MemberKind, content: &[u8], link: Option<&str>) -> Member {
    Member {
        path: path.into(),
        kind,
        size_bytes: content.len() as u64,
        mode: if kind == MemberKind::Folder { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime_seconds: 1_790_000_000,
        mtime_nanos: 0,
        blake3: (kind == MemberKind::File).then(|| lifeboat::domain::ids::ContentHash(blake3::hash(content).into())),
        link: link.map(Into::into),
        device: None,
        xattrs: Vec::new(),
        flaw: None,
    }
}

/// The tar of some members, with its end.
pub(crate) fn tar(members: &[(Member, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (member, content) in members {
        tar.extend(header(member, None));
        tar.extend_from_slice(content);
        tar.extend_from_slice(padding(content.len() as u64));
    }
    tar.extend(END);
    tar
}
