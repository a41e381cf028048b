//! A member's disk: who it is, its log and its vote, in one fjall database with one writer.
//!
//! Raft's promises hold only for what is on the disk: a vote before it is answered, an entry before it is acknowledged.
//! All writes go through one thread. It takes whatever waits, commits it as one batch, and then pays for one `fdatasync`
//! for all of it, so that writes which arrive while the disk is busy share the next flush.
//!
//! After a failed write nothing is known about the disk any more, and retrying a failed `fsync` can report success for
//! data that is lost. The first error therefore poisons the disk for good: every later write fails, openraft stops, and the
//! process ends and starts anew from what is really there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread::JoinHandle;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sidecar_util::Hotkey;
use tokio::sync::oneshot;

use crate::error::ConsensusError;

/// Version of the layout of both keyspaces.
const FORMAT: u16 = 1;
/// Small on purpose: the log is purged after every snapshot, and a sidecar shares its pod with the user's program.
const LOG_MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;
const META_MEMTABLE_BYTES: u64 = 1024 * 1024;
/// Entries are read back rarely (a follower that was away, a restart), so a large cache would only hold memory.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// The least that fjall takes.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
/// Writes that share one flush at most; bounds the size of a batch, not the throughput.
const WRITES_PER_FLUSH: usize = 256;

/// Rows of the keyspace `meta`.
pub(crate) mod meta {
    pub(super) const FORMAT: &str = "format";
    pub(super) const IDENTITY: &str = "identity";
    pub(crate) const VOTE: &str = "vote";
    pub(crate) const COMMITTED: &str = "committed";
    pub(crate) const PURGED: &str = "purged";
}

/// Who this disk is. Written once, at the first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The group it belongs to.
    pub(crate) cluster_id: String,
    /// The validator it belongs to.
    pub(crate) hotkey: Hotkey,
    /// Random, so that a wiped disk never answers under the id of its past: openraft would take the empty log for the
    /// old one, and the group could split.
    pub(crate) node_id: u64,
    /// Which founding of the group it joined, 0 before. Two foundings under one cluster id are two groups, and a member
    /// of one must not listen to the other.
    pub(crate) incarnation: u64,
    /// Whether this disk founded that incarnation. A founder that crashed before its first entry may found it again;
    /// nobody else may, however empty the log is.
    pub(crate) founder: bool,
}

/// One change of a row.
pub(crate) enum Row {
    /// Sets a log entry.
    PutEntry(u64, Vec<u8>),
    /// Removes a log entry.
    RemoveEntry(u64),
    /// Sets a row of `meta`.
    PutMeta(&'static str, Vec<u8>),
}

type OnDurable = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Rows that are written together.
struct Write {
    rows: Vec<Row>,
    /// Told when the rows can be read.
    readable: Option<oneshot::Sender<io::Result<()>>>,
    /// Called when the rows have reached the disk. Without it they need not, yet.
    durable: Option<OnDurable>,
}

/// See the module.
pub(crate) struct Disk {
    log: Keyspace,
    meta: Keyspace,
    identity: Mutex<Identity>,
    /// What broke the disk, once something did.
    poison: Arc<OnceLock<String>>,
    /// To the writer thread; `None` while dropping.
    writes: Option<mpsc::Sender<Write>>,
    writer: Option<JoinHandle<()>>,
}

impl Disk {
    /// Opens or creates the database and checks whose it is. Blocks.
    pub(crate) fn open(data_dir: &Path, cluster_id: &str, hotkey: Hotkey) -> Result<Self, ConsensusError> {
        let path = data_dir.join("log");
        let failed = |source: io::Error| ConsensusError::Disk { path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(failed)?;
        let database = Database::builder(&path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()
            .map_err(|error| match error {
                fjall::Error::Locked => ConsensusError::DiskInUse { path: path.clone() },
                error => failed(to_io(error)),
            })?;
        let keyspace = |name, memtable| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(memtable);
            database.keyspace(name, options).map_err(|error| failed(to_io(error)))
        };
        let log = keyspace("entries", LOG_MEMTABLE_BYTES)?;
        let meta = keyspace("meta", META_MEMTABLE_BYTES)?;
        let identity = read_identity(&meta, data_dir, cluster_id, hotkey, &failed)?;
        let poison = Arc::new(OnceLock::new());
        let (writes, queue) = mpsc::channel();
        let thread = Writer { database, log: log.clone(), meta: meta.clone(), poison: poison.clone() };
        let run = move || thread.run(&queue);
        let handle = std::thread::Builder::new().name("raft-disk".into()).spawn(run).map_err(failed)?;
        let fresh = identity.is_none();
        let identity = identity.unwrap_or_else(|| Identity {
            cluster_id: cluster_id.to_owned(),
            hotkey,
            node_id: random_id(),
            incarnation: 0,
            founder: false,
        });
        let disk =
            Self { log, meta, identity: Mutex::new(identity), poison, writes: Some(writes), writer: Some(handle) };
        if fresh {
            let rows = vec![Row::PutMeta(meta::FORMAT, encode(&FORMAT)), disk.identity_row()];
            disk.write_blocking(rows).map_err(failed)?;
        }
        Ok(disk)
    }

    /// Who this disk is.
    pub(crate) fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// Binds the disk to one founding of its group, durably. Returns whether it is bound to this one now.
    pub(crate) async fn bind(&self, incarnation: u64, founder: bool) -> io::Result<bool> {
        {
            let mut identity = self.identity.lock();
            if identity.incarnation != 0 {
                return Ok(identity.incarnation == incarnation);
            }
            (identity.incarnation, identity.founder) = (incarnation, founder);
        }
        self.write_durably(vec![self.identity_row()]).await?;
        Ok(true)
    }

    /// Writes rows and returns when they can be read; `durable` is called when they have reached the disk.
    pub(crate) async fn write(
        &self,
        rows: Vec<Row>,
        durable: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        let (readable, written) = oneshot::channel();
        self.send(Write { rows, readable: Some(readable), durable: Some(Box::new(durable)) })?;
        written.await.unwrap_or_else(|_| Err(self.broken()))
    }

    /// Writes rows and returns when they have reached the disk.
    pub(crate) async fn write_durably(&self, rows: Vec<Row>) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        let tell = move |result| {
            // Nobody listening means that the caller was cancelled; the rows are written all the same.
            let _ = done.send(result);
        };
        self.send(Write { rows, readable: None, durable: Some(Box::new(tell)) })?;
        durable.await.unwrap_or_else(|_| Err(self.broken()))
    }

    /// Writes rows that may be lost in a crash of the machine, and returns when they can be read.
    pub(crate) async fn write_lazily(&self, rows: Vec<Row>) -> io::Result<()> {
        let (readable, written) = oneshot::channel();
        self.send(Write { rows, readable: Some(readable), durable: None })?;
        written.await.unwrap_or_else(|_| Err(self.broken()))
    }

    /// The last log entry.
    pub(crate) fn last_entry<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        self.check()?;
        let Some(guard) = self.log.last_key_value() else { return Ok(None) };
        decode(&guard.value().map_err(to_io)?).map(Some)
    }

    /// Log entries from `start` to before `end`, decoded, each with its size on the disk.
    pub(crate) fn entries<T: DeserializeOwned>(
        &self,
        start: u64,
        end: u64,
    ) -> impl Iterator<Item = io::Result<(u64, T)>> {
        let range = (start < end).then(|| self.log.range(key(start)..key(end)));
        let broken = self.check().err();
        broken.map(Err).into_iter().chain(range.into_iter().flatten().map(|guard| {
            let value = guard.value().map_err(to_io)?;
            let bytes = u64::try_from(value.len()).map_err(io::Error::other)?;
            Ok((bytes, decode(&value)?))
        }))
    }

    /// Indexes of the log entries from `start` on, up to and including `end`.
    pub(crate) fn indexes(&self, start: u64, end: u64) -> io::Result<Vec<u64>> {
        self.check()?;
        let index = |guard: fjall::Guard| {
            let key = guard.key().map_err(to_io)?;
            let bytes = <[u8; 8]>::try_from(&*key).map_err(io::Error::other)?;
            Ok(u64::from_be_bytes(bytes))
        };
        if start > end { Ok(Vec::new()) } else { self.log.range(key(start)..=key(end)).map(index).collect() }
    }

    /// A row of `meta`.
    pub(crate) fn meta<T: DeserializeOwned>(&self, row: &str) -> io::Result<Option<T>> {
        self.check()?;
        read_meta(&self.meta, row)
    }

    /// Breaks the disk as a failed write does.
    #[cfg(test)]
    pub(crate) fn break_for_test(&self, cause: &str) {
        self.poison.set(cause.to_owned()).unwrap();
    }

    fn check(&self) -> io::Result<()> {
        if self.poison.get().is_some() { Err(self.broken()) } else { Ok(()) }
    }

    fn broken(&self) -> io::Error {
        let cause = self.poison.get().map_or("its writer has ended", String::as_str);
        io::Error::other(format!("the disk of this member failed before: {cause}"))
    }

    fn identity_row(&self) -> Row {
        Row::PutMeta(meta::IDENTITY, encode(&*self.identity.lock()))
    }

    fn write_blocking(&self, rows: Vec<Row>) -> io::Result<()> {
        let (done, durable) = mpsc::channel();
        let tell = move |result| {
            let _ = done.send(result);
        };
        self.send(Write { rows, readable: None, durable: Some(Box::new(tell)) })?;
        durable.recv().unwrap_or_else(|_| Err(self.broken()))
    }

    fn send(&self, write: Write) -> io::Result<()> {
        self.check()?;
        self.writes.as_ref().and_then(|writes| writes.send(write).ok()).ok_or_else(|| self.broken())
    }
}

impl Drop for Disk {
    /// Waits for the writer, so that the database is closed and can be opened again when this returns.
    fn drop(&mut self) {
        drop(self.writes.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has dropped its queue, which every waiting caller has seen as an error.
            let _ = writer.join();
        }
    }
}

/// The thread that writes.
struct Writer {
    database: Database,
    log: Keyspace,
    meta: Keyspace,
    poison: Arc<OnceLock<String>>,
}

impl Writer {
    fn run(self, queue: &mpsc::Receiver<Write>) {
        while let Ok(first) = queue.recv() {
            let rest = queue.try_iter().take(WRITES_PER_FLUSH - 1);
            self.serve(std::iter::once(first).chain(rest).collect());
        }
    }

    fn serve(&self, writes: Vec<Write>) {
        let written = self.commit(&writes);
        let mut waiting = Vec::new();
        for write in writes {
            if let Some(readable) = write.readable {
                let _ = readable.send(copy(&written));
            }
            waiting.extend(write.durable);
        }
        if waiting.is_empty() {
            return;
        }
        let durable = written.and_then(|()| self.flush());
        for tell in waiting {
            tell(copy(&durable));
        }
    }

    fn commit(&self, writes: &[Write]) -> io::Result<()> {
        self.refuse_if_poisoned()?;
        let mut batch = self.database.batch();
        for row in writes.iter().flat_map(|write| &write.rows) {
            match row {
                Row::PutEntry(index, bytes) => batch.insert(&self.log, key(*index), bytes.as_slice()),
                Row::RemoveEntry(index) => batch.remove(&self.log, key(*index)),
                Row::PutMeta(row, bytes) => batch.insert(&self.meta, *row, bytes.as_slice()),
            }
        }
        batch.durability(Some(PersistMode::Buffer)).commit().map_err(|error| self.poisoned(error))
    }

    fn flush(&self) -> io::Result<()> {
        self.database.persist(PersistMode::SyncData).map_err(|error| self.poisoned(error))
    }

    fn refuse_if_poisoned(&self) -> io::Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(cause) => Err(io::Error::other(cause.clone())),
        }
    }

    fn poisoned(&self, error: fjall::Error) -> io::Error {
        let error = to_io(error);
        tracing::error!(%error, "writing the log failed: this member stops");
        // Only the first cause is kept: what follows is its consequence.
        let _ = self.poison.set(error.to_string());
        error
    }
}

fn read_identity(
    rows: &Keyspace,
    data_dir: &Path,
    cluster_id: &str,
    hotkey: Hotkey,
    failed: &impl Fn(io::Error) -> ConsensusError,
) -> Result<Option<Identity>, ConsensusError> {
    let data_dir = || PathBuf::from(data_dir);
    let Some(format) = read_meta::<u16>(rows, meta::FORMAT).map_err(failed)? else { return Ok(None) };
    if format > FORMAT {
        return Err(ConsensusError::DiskTooNew { data_dir: data_dir(), found: format, known: FORMAT });
    }
    let identity: Identity = read_meta(rows, meta::IDENTITY)
        .map_err(failed)?
        .ok_or_else(|| failed(io::Error::other("the row `identity` is missing")))?;
    if identity.cluster_id != cluster_id {
        let found = identity.cluster_id;
        return Err(ConsensusError::ForeignCluster { data_dir: data_dir(), found, expected: cluster_id.to_owned() });
    }
    if identity.hotkey != hotkey {
        let found = identity.hotkey;
        return Err(ConsensusError::ForeignHotkey { data_dir: data_dir(), found, expected: hotkey });
    }
    Ok(Some(identity))
}

fn read_meta<T: DeserializeOwned>(rows: &Keyspace, row: &str) -> io::Result<Option<T>> {
    rows.get(row).map_err(to_io)?.map(|bytes| decode(&bytes)).transpose()
}

/// Big-endian, so that the order of keys is the order of the log.
fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("no type written here is refused by postcard, and a Vec takes any length")
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Random and not 0, which stands for "none" in messages.
pub(crate) fn random_id() -> u64 {
    rand::random_range(1..=u64::MAX)
}

fn to_io(error: fjall::Error) -> io::Error {
    match error {
        fjall::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

/// `io::Error` cannot be cloned, and one failure has to be told to everybody who waited for it.
fn copy(result: &io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hotkey(seed: u8) -> Hotkey {
        Hotkey::from([seed; 32])
    }

    #[test]
    fn an_identity_is_made_once_and_a_wiped_disk_gets_another() {
        let dir = tempfile::tempdir().unwrap();
        let first = Disk::open(dir.path(), "a", hotkey(1)).unwrap().identity();
        assert_eq!(Disk::open(dir.path(), "a", hotkey(1)).unwrap().identity(), first);
        let wiped = tempfile::tempdir().unwrap();
        assert_ne!(Disk::open(wiped.path(), "a", hotkey(1)).unwrap().identity().node_id, first.node_id);
    }

    #[test]
    fn a_foreign_disk_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        drop(Disk::open(dir.path(), "ours", hotkey(1)).unwrap());
        let error = Disk::open(dir.path(), "theirs", hotkey(1)).err().unwrap().to_string();
        assert!(error.contains("`ours`") && error.contains("`theirs`") && error.contains("wipe"), "{error}");
        let error = Disk::open(dir.path(), "ours", hotkey(2)).err().unwrap().to_string();
        assert!(error.contains(&hotkey(1).to_string()) && error.contains("its own volume"), "{error}");
    }

    #[test]
    fn a_disk_is_opened_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), "a", hotkey(1)).unwrap();
        let second = Disk::open(dir.path(), "a", hotkey(1)).err().unwrap();
        assert!(matches!(second, ConsensusError::DiskInUse { .. }), "{second}");
        drop(disk);
        Disk::open(dir.path(), "a", hotkey(1)).unwrap();
    }

    #[tokio::test]
    async fn a_disk_belongs_to_one_founding_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), "a", hotkey(1)).unwrap();
        assert!(disk.bind(7, false).await.unwrap());
        assert!(disk.bind(7, false).await.unwrap());
        assert!(!disk.bind(8, true).await.unwrap());
        drop(disk);
        assert_eq!(Disk::open(dir.path(), "a", hotkey(1)).unwrap().identity().incarnation, 7);
    }

    #[tokio::test]
    async fn a_poisoned_disk_refuses_everything_and_repeats_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), "a", hotkey(1)).unwrap();
        disk.break_for_test("no space left");
        let error = disk.write_durably(vec![Row::PutEntry(1, vec![1])]).await.unwrap_err();
        assert!(error.to_string().contains("no space left"), "{error}");
        assert!(disk.last_entry::<u8>().is_err());
        assert!(disk.meta::<u8>(meta::VOTE).is_err());
    }
}
