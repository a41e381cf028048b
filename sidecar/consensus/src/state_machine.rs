//! The replicated state in memory, and its snapshots on the disk.
//!
//! The state is small (weights, members, keys within [`sidecar_store::KV_BYTES_MAX`]), so it is kept in memory and rebuilt at
//! a start: openraft installs the last snapshot and applies the log up to the committed index. That makes one place durable,
//! the log, instead of two that would have to agree. When the store grows beyond memory, this file is where it moves
//! into fjall.
//!
//! A snapshot is one file that is replaced by renaming, so that a crash leaves the old one or the new one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sidecar_store::{Reply, State};

use crate::disk::{decode, encode};
use crate::type_config::{LogId, Snapshot, SnapshotBytes, SnapshotMeta, StoredMembership, TypeConfig};

const MAGIC: &[u8; 4] = b"MYCR";
/// Version of the file. The state inside has its own.
const FORMAT: u8 = 1;

/// See the module.
pub(crate) struct StateMachine {
    replica: Arc<Replica>,
    file: Arc<SnapshotFile>,
}

/// What the rest of the crate reads of the state machine.
#[derive(Default)]
pub(crate) struct Replica {
    applied: RwLock<Applied>,
    /// The last hash and the index it belongs to: status is asked far more often than the state changes.
    hash: Mutex<Option<(u64, String)>>,
}

/// The state and how far it is.
#[derive(Default)]
pub(crate) struct Applied {
    /// Last entry applied.
    pub(crate) last: Option<LogId>,
    /// Last membership applied.
    membership: StoredMembership,
    /// The state after it.
    pub(crate) state: State,
}

impl Replica {
    /// The state as it is now. Do not hold it across an `await`.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Applied> {
        self.applied.read()
    }

    /// Index of the last entry applied, 0 before the first.
    pub(crate) fn applied_index(&self) -> u64 {
        self.read().last.map_or(0, |last| last.index())
    }

    /// Index of the last entry applied and the hash of the state after it.
    pub(crate) fn hash(&self) -> (u64, String) {
        let applied = self.read();
        let index = applied.last.map_or(0, |last| last.index());
        let mut known = self.hash.lock();
        match &*known {
            Some((at, hash)) if *at == index => (index, hash.clone()),
            _ => {
                let hash = applied.state.hash();
                *known = Some((index, hash.clone()));
                (index, hash)
            }
        }
    }
}

impl StateMachine {
    /// Opens the folder where snapshots are kept. A damaged snapshot is an error: without it the log has a hole.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let file = SnapshotFile { path: data_dir.join("snapshot"), last: Mutex::new(None) };
        let last = file.read()?.and_then(|(meta, _)| meta.last_log_id);
        *file.last.lock() = last;
        Ok(Self { replica: Arc::default(), file: Arc::new(file) })
    }

    /// The state, shared with whoever reports or ranks.
    pub(crate) fn replica(&self) -> Arc<Replica> {
        self.replica.clone()
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotBytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.replica.read();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let reply = {
                let mut applied = self.replica.applied.write();
                applied.last = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Blank => Reply::Nothing,
                    EntryPayload::Normal(command) => applied.state.apply(entry.log_id.index(), &command),
                    EntryPayload::Membership(membership) => {
                        applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                        Reply::Nothing
                    }
                }
            };
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let applied = self.replica.read();
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership.clone() };
        SnapshotBuilder { meta, state: applied.state.encode(), file: self.file.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotBytes) -> io::Result<()> {
        let state = State::decode(&snapshot).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.file.clone().write(meta.clone(), snapshot).await?;
        let mut applied = self.replica.applied.write();
        *applied = Applied { last: meta.last_log_id, membership: meta.last_membership.clone(), state };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || file.read()).await.map_err(io::Error::other)??;
        Ok(read.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// A state that is on its way to the disk.
pub(crate) struct SnapshotBuilder {
    meta: SnapshotMeta,
    state: Vec<u8>,
    file: Arc<SnapshotFile>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotBytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        self.file.clone().write(self.meta.clone(), self.state.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: std::mem::take(&mut self.state) })
    }
}

/// The file: `MYCR`, the format, SHA-256 of the rest, the rest.
struct SnapshotFile {
    path: PathBuf,
    /// Last log id of the snapshot in the file; locked while the file is replaced.
    last: Mutex<Option<LogId>>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    meta: SnapshotMeta,
    state: Vec<u8>,
}

impl SnapshotFile {
    /// Replaces the snapshot, durably. One that is already there or older than the one there is left out: a snapshot that
    /// was being built while a newer one came from the leader must not undo it.
    async fn write(self: Arc<Self>, meta: SnapshotMeta, state: Vec<u8>) -> io::Result<()> {
        tokio::task::spawn_blocking(move || self.write_blocking(meta, state)).await.map_err(io::Error::other)?
    }

    fn write_blocking(&self, meta: SnapshotMeta, state: Vec<u8>) -> io::Result<()> {
        let mut last = self.last.lock();
        if last.is_some() && meta.last_log_id <= *last {
            return Ok(());
        }
        let written = meta.last_log_id;
        let content = encode(&Content { meta, state });
        let next = self.path.with_extension("next");
        let mut file = std::fs::File::create(&next)?;
        file.write_all(MAGIC)?;
        file.write_all(&[FORMAT])?;
        file.write_all(&Sha256::digest(&content))?;
        file.write_all(&content)?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        let folder = self.path.parent().ok_or_else(|| io::Error::other("the snapshot has no folder"))?;
        std::fs::File::open(folder)?.sync_all()?;
        *last = written;
        Ok(())
    }

    fn read(&self) -> io::Result<Option<(SnapshotMeta, SnapshotBytes)>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = || {
            let text = format!("snapshot {} is damaged: wipe the data directory to join anew", self.path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let rest = bytes.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(&[FORMAT])).ok_or_else(damaged)?;
        let (checksum, content) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
        if Sha256::digest(content)[..] != checksum[..] {
            return Err(damaged());
        }
        let content: Content = decode(content)?;
        Ok(Some((content.meta, content.state)))
    }
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId;

    use super::*;

    fn meta(index: u64) -> SnapshotMeta {
        let leader = openraft::impls::leader_id_adv::LeaderId::new(1, 1).to_committed();
        SnapshotMeta { last_log_id: Some(LogId::new(leader, index)), ..SnapshotMeta::default() }
    }

    #[tokio::test]
    async fn an_older_snapshot_never_replaces_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = StateMachine::open(dir.path()).unwrap();
        let mut late = machine.get_snapshot_builder().await;
        late.meta = meta(3);
        machine.install_snapshot(&meta(5), State::default().encode()).await.unwrap();
        late.build_snapshot().await.unwrap();
        assert_eq!(machine.get_current_snapshot().await.unwrap().unwrap().meta, meta(5));
        let mut reopened = StateMachine::open(dir.path()).unwrap();
        assert_eq!(reopened.get_current_snapshot().await.unwrap().unwrap().meta, meta(5));
    }

    #[tokio::test]
    async fn a_damaged_snapshot_is_an_error_and_not_an_empty_state() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = StateMachine::open(dir.path()).unwrap();
        machine.install_snapshot(&meta(5), State::default().encode()).await.unwrap();
        let path = dir.path().join("snapshot");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = StateMachine::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("damaged") && error.contains("wipe"), "{error}");
    }
}
