//! openraft's log and vote on the member's disk.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};

use crate::disk::{Disk, Row, encode, meta};
use crate::type_config::{Entry, LogId, TypeConfig, Vote};

/// Entries of one append message are at most this large together, in bytes. Entries carry up to 1 MiB each, and openraft
/// counts entries, not bytes.
const APPEND_BYTES_MAX: u64 = 1024 * 1024;

/// See the module. Clones share the disk.
#[derive(Clone)]
pub(crate) struct LogStore {
    disk: Arc<Disk>,
}

impl LogStore {
    pub(crate) fn new(disk: Arc<Disk>) -> Self {
        Self { disk }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.disk.entries(start, end).map(|entry| entry.map(|(_, entry)| entry)).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.disk.meta(meta::VOTE)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut total = 0;
        for entry in self.disk.entries(start, end) {
            let (bytes, entry) = entry?;
            total += bytes;
            // The first one always goes: an empty answer would end the replication.
            if total > APPEND_BYTES_MAX && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let last_purged_log_id: Option<LogId> = self.disk.meta(meta::PURGED)?;
        let last: Option<Entry> = self.disk.last_entry()?;
        let last_log_id = last.map(|entry| entry.log_id()).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.disk.write_durably(vec![Row::PutMeta(meta::VOTE, encode(vote))]).await
    }

    /// Not flushed by itself: a crash of the machine may lose the newest value, and the member then learns it again from
    /// the leader. A crash of the process loses nothing.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.disk.write_lazily(vec![Row::PutMeta(meta::COMMITTED, encode(&committed))]).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.disk.meta(meta::COMMITTED)?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let rows = entries.into_iter().map(|entry| Row::PutEntry(entry.index(), encode(&entry))).collect();
        self.disk.write(rows, |result| callback.io_completed(result)).await
    }

    /// Not flushed by itself: the rows stand in the journal before those of the entries that replace them, and nothing is
    /// acknowledged before those are flushed.
    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let start = last_log_id.map_or(0, |last| last.index() + 1);
        let rows = self.disk.indexes(start, u64::MAX)?.into_iter().map(Row::RemoveEntry).collect();
        self.disk.write_lazily(rows).await
    }

    /// Not flushed by itself: openraft purges what a durable snapshot covers, so entries that a crash brings back are
    /// merely superfluous.
    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let purged: Option<LogId> = self.disk.meta(meta::PURGED)?;
        // Not from 0: what was purged before is still there as tombstones, and a scan would read them all.
        let start = purged.map_or(0, |purged| purged.index() + 1);
        let mut rows: Vec<Row> = self.disk.indexes(start, log_id.index())?.into_iter().map(Row::RemoveEntry).collect();
        rows.push(Row::PutMeta(meta::PURGED, encode(&log_id)));
        self.disk.write_lazily(rows).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openraft::storage::RaftLogStorageExt;
    use openraft::testing::log::{StoreBuilder, Suite};
    use openraft::vote::RaftLeaderId;
    use openraft::{EntryPayload, StorageError};
    use sidecar_store::Command;
    use sidecar_util::Hotkey;
    use tempfile::TempDir;

    use super::*;
    use crate::state_machine::StateMachine;
    use crate::type_config::Membership;

    struct Builder;

    fn open(dir: &TempDir) -> LogStore {
        LogStore::new(Arc::new(Disk::open(dir.path(), "suite", Hotkey::from([1; 32])).unwrap()))
    }

    impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
        async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
            let dir = tempfile::tempdir().unwrap();
            let log = open(&dir);
            let machine = StateMachine::open(dir.path()).unwrap();
            Ok((dir, log, machine))
        }
    }

    fn log_id(index: u64) -> LogId {
        LogId::new(openraft::impls::leader_id_adv::LeaderId::new(1, 1).to_committed(), index)
    }

    fn put(index: u64, bytes: usize) -> Entry {
        let command = Command::Put { key: b"k".to_vec(), value: vec![7; bytes] };
        Entry { log_id: log_id(index), payload: EntryPayload::Normal(command) }
    }

    #[test]
    fn openrafts_storage_suite_passes() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(Suite::test_all(Builder)).unwrap();
    }

    #[tokio::test]
    async fn log_vote_and_committed_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let vote = Vote::new_committed(3, 9);
        {
            let mut store = open(&dir);
            store.blocking_append([put(0, 1), put(1, 1), put(2, 1)]).await.unwrap();
            store.save_vote(&vote).await.unwrap();
            store.save_committed(Some(log_id(1))).await.unwrap();
            store.purge(log_id(0)).await.unwrap();
            store.truncate_after(Some(log_id(1))).await.unwrap();
        }
        let mut store = open(&dir);
        let state = store.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(0)), Some(log_id(1))));
        assert_eq!(store.read_vote().await.unwrap(), Some(vote));
        assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1)));
        assert_eq!(store.try_get_log_entries(..).await.unwrap(), [put(1, 1)]);
    }

    #[tokio::test]
    async fn one_read_for_a_follower_is_bounded_in_bytes_and_never_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir);
        let large = 700 * 1024;
        store.blocking_append([put(0, large), put(1, large), put(2, 1_048_000)]).await.unwrap();
        assert_eq!(store.limited_get_log_entries(0, 3).await.unwrap().len(), 1);
        assert_eq!(store.limited_get_log_entries(2, 3).await.unwrap().len(), 1);
        assert_eq!(store.try_get_log_entries(0..3).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn membership_entries_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir);
        let node = crate::type_config::PeerNode { hotkey: Hotkey::from([2; 32]), address: "b:1".into() };
        let nodes = BTreeMap::from([(5, node)]);
        let membership = Membership::new(vec![[5].into()], nodes).unwrap();
        let entry = Entry { log_id: log_id(0), payload: EntryPayload::Membership(membership) };
        store.blocking_append([entry.clone()]).await.unwrap();
        assert_eq!(store.try_get_log_entries(0..1).await.unwrap(), [entry]);
    }
}
