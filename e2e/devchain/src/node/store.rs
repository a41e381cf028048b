//! Final blocks and their state on disk.
//!
//! Each final block is written with the changes of its state in one atomic batch that is synced before the block is
//! announced as final: whatever was seen as final is there after a kill at any moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use codec::{Decode, Encode};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use sp_state_machine::StorageCollection;

use super::chain::{BlockData, common_number};
use super::state_map::StateMap;
use crate::runtime::Hash;

const HEAD: &[u8] = b"head";

/// Why the directory of a chain cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the database refuses.
    #[error("cannot use the state directory `{path}`")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: fjall::Error,
    },
    /// Reading or writing failed.
    #[error("cannot read or write the state directory")]
    Io(#[from] fjall::Error),
    /// The directory holds a chain of another genesis.
    #[error(
        "the state directory holds the chain {found:?}, but genesis file and block time make {expected:?}: use another \
         directory, the same genesis, or remove the directory to start anew"
    )]
    OtherChain {
        /// Genesis on disk.
        found: Hash,
        /// Genesis asked for.
        expected: Hash,
    },
    /// What is on disk does not fit together.
    #[error("the state directory is damaged: {0}: remove it to start anew")]
    Corrupt(String),
}

/// What was kept of a chain.
pub(super) struct Saved {
    pub(super) hashes: Vec<Hash>,
    pub(super) head: BlockData,
    pub(super) state: StateMap,
}

/// The database of one chain.
pub(super) struct Store {
    database: Database,
    /// Number of the last final block.
    meta: Keyspace,
    /// Number to block.
    blocks: Keyspace,
    /// Hash to number.
    numbers: Keyspace,
    /// State after the last final block.
    state: Keyspace,
}

fn decode<V: Decode>(what: &str, mut bytes: &[u8]) -> Result<V, StoreError> {
    V::decode(&mut bytes).map_err(|error| StoreError::Corrupt(format!("{what}: {error}")))
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let wrap = |source| StoreError::Open { path: dir.to_owned(), source };
        let database = Database::builder(dir).open().map_err(wrap)?;
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default).map_err(wrap);
        Ok(Self {
            meta: keyspace("meta")?,
            blocks: keyspace("blocks")?,
            numbers: keyspace("numbers")?,
            state: keyspace("state")?,
            database,
        })
    }

    /// Writes block 0 and its state.
    pub(super) fn create(&self, genesis: &BlockData, state: &StateMap) -> Result<(), StoreError> {
        let changes = state.iter().map(|(key, value)| (key.to_vec(), Some(value.to_vec()))).collect();
        self.save(genesis, &changes)
    }

    /// Writes a final block and what it changed.
    pub(super) fn save(&self, block: &BlockData, changes: &StorageCollection) -> Result<(), StoreError> {
        let number = block.header.number.to_be_bytes();
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.blocks, number, block.encode());
        batch.insert(&self.numbers, block.hash.as_bytes(), number);
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.state, key.as_slice(), value.as_slice()),
                None => batch.remove(&self.state, key.as_slice()),
            }
        }
        batch.insert(&self.meta, HEAD, number);
        batch.commit()?;
        Ok(())
    }

    /// Goes back to a block, which may be on a fork that begins after the newest block both have in common, and to the
    /// state after it. All of it happens or nothing.
    pub(super) fn rewind(&self, fork: &[Arc<BlockData>], end: &BlockData, state: &StateMap) -> Result<(), StoreError> {
        let number = end.header.number;
        let common = common_number(fork, end);
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for entry in self.blocks.range((common + 1).to_be_bytes()..) {
            let (key, bytes) = entry.into_inner()?;
            let block: BlockData = decode("a block", &bytes)?;
            batch.remove(&self.blocks, key);
            batch.remove(&self.numbers, block.hash.as_bytes());
        }
        for block in fork {
            batch.insert(&self.blocks, block.header.number.to_be_bytes(), block.encode());
            batch.insert(&self.numbers, block.hash.as_bytes(), block.header.number.to_be_bytes());
        }
        for entry in self.state.iter() {
            let (key, value) = entry.into_inner()?;
            match state.get(&key[..]) {
                None => batch.remove(&self.state, key),
                Some(wanted) if wanted[..] != value[..] => batch.insert(&self.state, key, &wanted[..]),
                Some(_) => {}
            }
        }
        for (key, value) in state.iter() {
            if !self.state.contains_key(&key[..])? {
                batch.insert(&self.state, &key[..], &value[..]);
            }
        }
        batch.insert(&self.meta, HEAD, number.to_be_bytes());
        batch.commit()?;
        Ok(())
    }

    /// A block that was kept.
    pub(super) fn block(&self, hash: Hash) -> Result<Option<BlockData>, StoreError> {
        let Some(number) = self.numbers.get(hash.as_bytes())? else { return Ok(None) };
        self.blocks.get(number)?.map(|bytes| decode("a block", &bytes)).transpose()
    }

    /// The chain that was kept, if its genesis is the one asked for.
    pub(super) fn load(&self, genesis: Hash) -> Result<Option<Saved>, StoreError> {
        let Some(head_number) = self.meta.get(HEAD)? else { return Ok(None) };
        let mut hashes = Vec::new();
        let mut head = None;
        for entry in self.blocks.iter() {
            let (number, bytes) = entry.into_inner()?;
            if number > head_number {
                break;
            }
            let block: BlockData = decode("a block", &bytes)?;
            hashes.push(block.hash);
            head = Some(block);
        }
        let Some(head) = head else { return Err(StoreError::Corrupt("it has a head but no blocks".into())) };
        match hashes.first() {
            Some(found) if *found != genesis => {
                return Err(StoreError::OtherChain { found: *found, expected: genesis });
            }
            _ => {}
        }
        let mut state = StateMap::default();
        for entry in self.state.iter() {
            let (key, value) = entry.into_inner()?;
            state.insert(Arc::from(&key[..]), Arc::from(&value[..]));
        }
        Ok(Some(Saved { hashes, head, state }))
    }
}
