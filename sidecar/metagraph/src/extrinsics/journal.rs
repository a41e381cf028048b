//! What was meant, signed and sent, on disk: the memory that keeps an intent from being carried out twice.
//!
//! One file per intent, replaced as a whole: written beside, flushed, renamed, and the folder flushed. A reader finds the
//! old state or the new one. Every step is written before it is taken: a signature before the bytes leave this process, and
//! "sent" before they do. So after a kill at any moment the journal names at least everything that may be on the chain.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sidecar_util::{BlockHash, Hotkey};

use super::call::Call;

/// Version of the files. Others are left alone and refused.
const VERSION: u32 = 1;

/// How long an outcome is remembered: longer than any caller goes on asking with one key.
const KEEP: Duration = Duration::from_hours(48);

/// Outcomes that are remembered at most; the oldest are forgotten first.
const KEEP_MAX: usize = 1024;

/// Length of a caller's key.
const KEY_MAX: usize = 256;

/// Hash of an extrinsic's bytes, shown as `0x` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExtrinsicHash(pub BlockHash);

impl std::fmt::Display for ExtrinsicHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Debug for ExtrinsicHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// An event of the extrinsic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainEvent {
    /// Pallet that emitted it.
    pub pallet: String,
    /// Its name.
    pub name: String,
    /// Its fields, for people.
    pub fields: String,
}

/// Where an extrinsic was included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Number of the block.
    pub block: u64,
    /// Its hash.
    pub block_hash: BlockHash,
    /// The extrinsic.
    pub extrinsic_hash: ExtrinsicHash,
    /// Whether the block was final when this was made.
    pub finalized: bool,
    /// What the chain said about it.
    pub events: Vec<ChainEvent>,
}

impl Receipt {
    /// Whether the chain emitted such an event.
    pub fn has_event(&self, pallet: &str, name: &str) -> bool {
        self.events.iter().any(|event| event.pallet == pallet && event.name == name)
    }
}

/// How far one signature got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate {
    /// It never left this process.
    Signed,
    /// It may be in a pool.
    Sent,
    /// The one node that saw it did not take it.
    Refused,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) nonce: u64,
    /// It may be included in blocks after this one.
    pub(crate) birth: u64,
    /// First block in which it can no longer be included.
    pub(crate) death: u64,
    pub(crate) hash: ExtrinsicHash,
    /// The signed bytes as hex: the same bytes may be sent again, others may not.
    pub(crate) bytes: String,
    pub(crate) fate: Fate,
}

/// What became of an extrinsic in its block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CallResult {
    Success,
    Failed {
        pallet: String,
        name: String,
        docs: String,
    },
    /// The block is known, its state is not any more.
    Unreadable {
        why: String,
    },
}

/// Where an intent stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum State {
    /// Not in a block.
    Open,
    /// In a block; in a final one where the receipt says so, and then nothing changes any more.
    Included { receipt: Receipt, result: CallResult },
}

/// One intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) version: u32,
    /// The caller's idempotency key.
    pub(crate) key: String,
    pub(crate) signer: Hotkey,
    /// Chain that it was signed for; unknown until then.
    pub(crate) genesis_hash: Option<BlockHash>,
    pub(crate) call: Call,
    pub(crate) made_at_s: u64,
    pub(crate) attempts: Vec<Attempt>,
    #[serde(flatten)]
    pub(crate) state: State,
}

impl Entry {
    pub(crate) fn new(key: &str, signer: Hotkey, call: Call) -> Self {
        Self {
            version: VERSION,
            key: key.to_owned(),
            signer,
            genesis_hash: None,
            call,
            made_at_s: now_s(),
            attempts: Vec::new(),
            state: State::Open,
        }
    }

    /// Whether nothing can change any more.
    pub(crate) fn is_final(&self) -> bool {
        matches!(&self.state, State::Included { receipt, .. } if receipt.finalized)
    }

    /// Whether any of its bytes may have left this process.
    pub(crate) fn may_be_out(&self) -> bool {
        matches!(self.state, State::Included { .. }) || self.attempts.iter().any(|attempt| attempt.fate == Fate::Sent)
    }
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process has it.
    #[error("journal `{}` is in use by another process: one hotkey has one submitter, and each its own folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It belongs to another key.
    #[error("journal `{}` has intents of {found}, but this process signs for {signer}: give each key its own folder", path.display())]
    OtherSigner {
        /// The folder.
        path: PathBuf,
        /// Whose intents are in it.
        found: Hotkey,
        /// Whose were expected.
        signer: Hotkey,
    },
    /// The folder or a file in it cannot be read or written.
    #[error("journal `{}` cannot be used: check the folder, its owner and the space on its disk", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is damaged. It may name something that is on the chain, so it is not skipped.
    #[error("journal file `{}` cannot be understood ({why}): see what it says, then move it away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        why: String,
    },
}

/// The folder of intents. Locked against other processes while this lives.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    /// Holds the lock.
    _lock: File,
    entries: BTreeMap<String, Entry>,
}

impl Journal {
    /// Opens the folder, makes it where there is none, and reads what is in it.
    pub(crate) fn open(folder: &Path, signer: Hotkey) -> Result<Self, JournalError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { path, source }
        };
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let lock_path = folder.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(JournalError::InUse { path: folder.to_owned() }),
            Err(std::fs::TryLockError::Error(source)) => return Err(io(&lock_path)(source)),
        }
        let mut entries = BTreeMap::new();
        for file in std::fs::read_dir(folder).map_err(io(folder))? {
            let path = file.map_err(io(folder))?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => {
                    let bytes = std::fs::read(&path).map_err(io(&path))?;
                    let entry = parse(&bytes).map_err(|why| JournalError::Damaged { path: path.clone(), why })?;
                    if entry.signer != signer {
                        return Err(JournalError::OtherSigner { path: folder.to_owned(), found: entry.signer, signer });
                    }
                    entries.insert(entry.key.clone(), entry);
                }
                // Written beside and never renamed: the step it was for was not taken.
                Some("new") => std::fs::remove_file(&path).map_err(io(&path))?,
                _ => {}
            }
        }
        Ok(Self { folder: folder.to_owned(), _lock: lock, entries })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The highest nonce of an extrinsic that may have left this process.
    pub(crate) fn nonce_max(&self) -> Option<u64> {
        let attempts = self.entries.values().flat_map(|entry| &entry.attempts);
        attempts.filter(|attempt| attempt.fate == Fate::Sent).map(|attempt| attempt.nonce).max()
    }

    /// Intents whose outcome is not final.
    pub(crate) fn open_entries(&self) -> Vec<Entry> {
        self.entries.values().filter(|entry| !entry.is_final()).cloned().collect()
    }

    /// Writes an intent so that it is there after a kill.
    pub(crate) fn put(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let path = self.path(&entry.key);
        let text = serde_json::to_vec_pretty(entry)
            .map_err(|error| JournalError::Damaged { path: path.clone(), why: error.to_string() })?;
        write_durably(&path, &text).map_err(|source| JournalError::Io { path, source })?;
        self.entries.insert(entry.key.clone(), entry.clone());
        Ok(())
    }

    /// Forgets an intent of which nothing left this process.
    pub(crate) fn remove(&mut self, key: &str) -> Result<(), JournalError> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => return Err(JournalError::Io { path, source }),
            _ => {}
        }
        self.entries.remove(key);
        Ok(())
    }

    /// Forgets old outcomes.
    pub(crate) fn prune(&mut self) -> Result<(), JournalError> {
        let mut done: Vec<(u64, String)> = self
            .entries
            .values()
            .filter(|entry| entry.is_final())
            .map(|entry| (entry.made_at_s, entry.key.clone()))
            .collect();
        done.sort_unstable();
        let too_many = done.len().saturating_sub(KEEP_MAX);
        let oldest = now_s().saturating_sub(KEEP.as_secs());
        for (i, (made_at_s, key)) in done.into_iter().enumerate() {
            if i < too_many || made_at_s < oldest {
                self.remove(&key)?;
            }
        }
        Ok(())
    }

    fn path(&self, key: &str) -> PathBuf {
        // Keys are the callers', file names are not.
        let digest = Sha256::digest(key.as_bytes());
        self.folder.join(format!("{}.json", hex::encode(&digest[..16])))
    }
}

/// Refuses keys that cannot serve as one.
pub(crate) fn check_key(key: &str) -> Result<(), sidecar_util::ValueError> {
    if key.is_empty() || key.len() > KEY_MAX {
        let expected = format!("is no intent key: give 1 to {KEY_MAX} bytes");
        return Err(sidecar_util::ValueError::new("key", key, expected));
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Result<Entry, String> {
    let entry: Entry = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if entry.version != VERSION {
        return Err(format!("version {}, expected {VERSION}", entry.version));
    }
    Ok(entry)
}

/// Replaces a file so that after a kill or a power cut the old or the new content is there. Only this user may read it.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        // Without this the rename itself may be lost.
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use sidecar_util::NetUid;

    use super::*;

    const SIGNER: Hotkey = Hotkey(sidecar_util::AccountId([1; 32]));

    fn entry(key: &str) -> Entry {
        let call = Call::CommitWeights { netuid: NetUid(1), mecid: None, hash: BlockHash([1; 32]) };
        Entry::new(key, SIGNER, call)
    }

    fn finished(key: &str, made_at_s: u64) -> Entry {
        let receipt = Receipt {
            block: 7,
            block_hash: BlockHash([3; 32]),
            extrinsic_hash: ExtrinsicHash(BlockHash([4; 32])),
            finalized: true,
            events: Vec::new(),
        };
        Entry { made_at_s, state: State::Included { receipt, result: CallResult::Success }, ..entry(key) }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), SIGNER).unwrap();
        let mut written = entry("weights/1");
        journal.put(&written).unwrap();
        let hash = ExtrinsicHash(BlockHash([9; 32]));
        written.attempts.push(Attempt { nonce: 3, birth: 5, death: 69, hash, bytes: "00".into(), fate: Fate::Sent });
        journal.put(&written).unwrap();
        journal.put(&finished("done", now_s())).unwrap();
        drop(journal);
        // A write that a kill cut short.
        std::fs::write(folder.path().join("half.new"), b"{").unwrap();
        let journal = Journal::open(folder.path(), SIGNER).unwrap();
        assert_eq!(journal.get("weights/1"), Some(&written));
        assert!(written.may_be_out());
        assert_eq!(journal.open_entries(), [written]);
        assert!(!folder.path().join("half.new").exists());
    }

    #[test]
    fn two_processes_cannot_have_one_journal() {
        let folder = tempfile::tempdir().unwrap();
        let first = Journal::open(folder.path(), SIGNER).unwrap();
        let error = Journal::open(folder.path(), SIGNER).unwrap_err();
        assert!(matches!(error, JournalError::InUse { .. }), "{error}");
        drop(first);
        Journal::open(folder.path(), SIGNER).unwrap();
    }

    #[test]
    fn a_damaged_file_is_named_and_not_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), SIGNER).unwrap();
        journal.put(&entry("a")).unwrap();
        let path = journal.path("a");
        drop(journal);
        std::fs::write(&path, b"{\"version\": 1").unwrap();
        let error = Journal::open(folder.path(), SIGNER).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("move it away"), "{error}");
        let newer = serde_json::to_string(&Entry { version: 2, ..entry("a") }).unwrap();
        std::fs::write(&path, newer).unwrap();
        assert!(Journal::open(folder.path(), SIGNER).unwrap_err().to_string().contains("version 2"));
    }

    #[test]
    fn old_outcomes_are_forgotten_and_open_intents_never() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), SIGNER).unwrap();
        journal.put(&finished("old", 1)).unwrap();
        journal.put(&finished("new", now_s())).unwrap();
        journal.put(&Entry { made_at_s: 1, ..entry("open") }).unwrap();
        journal.prune().unwrap();
        assert_eq!((journal.get("old"), journal.get("new").is_some()), (None, true));
        assert!(journal.get("open").is_some());
        drop(journal);
        assert_eq!(Journal::open(folder.path(), SIGNER).unwrap().entries.len(), 2);
    }

    #[test]
    fn only_this_user_reads_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), SIGNER).unwrap();
        journal.put(&entry("a")).unwrap();
        let mode = std::fs::metadata(journal.path("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
