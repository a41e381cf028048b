//! The node: the chain of blocks, the pool, and the author that makes one out of the other.
//!
//! One thread authors and is the only writer. Readers take a snapshot of a block's state and run the runtime on it on
//! their own thread, so that a slow query never holds up a block.

mod author;
mod chain;
mod command;
mod executor;
mod pool;
mod state;
mod state_map;
mod store;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codec::{Decode, Encode};
use frame_support::traits::Get;
use parking_lot::{Condvar, Mutex, RwLock};
use sp_core::sr25519;
use sp_runtime::traits::{BlakeTwo256, Hash as _};
use sp_runtime::transaction_validity::{TransactionValidityError, ValidTransaction};
use tokio::sync::{broadcast, mpsc};

use crate::faults::{Fault, FaultError, FaultKind, Faults};
use crate::metrics::Metrics;
use crate::runtime::{AccountId, Hash, UncheckedExtrinsic};
use crate::upgrade::SpecVersion;
use chain::Chain;
use pool::{Candidate, Pool};

pub use author::AuthorHandle;
pub use chain::{BlockData, BlockError};
pub use command::{BlockRef, CommandError, MAX_BLOCKS, MAX_SNAPSHOTS, ReorgDone, SnapshotRef, UpgradeDone};
pub use executor::{CallError, call, inspect};
pub use pool::{PoolError, TxStatus};
pub use state_map::StateMap;
pub use store::StoreError;

/// Stack of threads that run the runtime. Calls may be nested 256 deep, and each level takes kilobytes: tens of them in
/// builds that are not optimised. Memory that is not used costs nothing.
pub const RUNTIME_STACK_BYTES: usize = 64 * 1024 * 1024;

/// When blocks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockTime {
    /// One block every so often.
    Every(Duration),
    /// One block as soon as an extrinsic is ready.
    Instant,
}

/// How a node runs.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// When blocks are made.
    pub block_time: BlockTime,
    /// Blocks by which finality lags behind the best block; 0 in instant mode, where no next block is certain.
    pub finality_lag: u32,
    /// Blocks whose state can be read.
    pub history: u32,
    /// Where finalised blocks and state are kept; nowhere when absent.
    pub state_dir: Option<PathBuf>,
}

/// What changed in the chain.
#[derive(Debug, Clone)]
pub enum ChainEvent {
    /// A block is part of a fork that is about to become the best one.
    Imported(Arc<BlockData>),
    /// A block is the new best one.
    Best(Arc<BlockData>),
    /// A block is final.
    Finalized(Arc<BlockData>),
}

/// Events a slow subscriber may fall behind by before it misses some.
const EVENT_BUFFER: usize = 1024;

/// Runtime metadata is large and changes only with the runtime: answers of these methods are kept.
const METADATA_METHODS: &str = "Metadata_";

/// Spec version, method and arguments to answer.
type MetadataCache = HashMap<(u32, String, Vec<u8>), Arc<Vec<u8>>>;

/// A running node. Cheap to share: everything is behind one `Arc`.
pub struct Node {
    config: NodeConfig,
    chain: RwLock<Chain>,
    pool: Mutex<Pool>,
    /// Wakes the author in instant mode and at shutdown.
    wake: Condvar,
    wake_flag: Mutex<author::Wake>,
    events: broadcast::Sender<ChainEvent>,
    metadata: Mutex<MetadataCache>,
    faults: Arc<Faults>,
    metrics: Metrics,
}

impl Node {
    /// Opens the chain of a genesis state, continues it from disk if there is one, and starts authoring.
    ///
    /// # Errors
    /// [`StoreError`] when the directory cannot be used or holds another chain.
    pub fn start(
        genesis: StateMap,
        author: sr25519::Pair,
        config: NodeConfig,
        faults: Arc<Faults>,
    ) -> Result<(Arc<Self>, AuthorHandle), StoreError> {
        let opened = chain::open(genesis, &config)?;
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        let node = Arc::new(Self {
            config,
            chain: RwLock::new(opened.chain),
            pool: Mutex::new(Pool::default()),
            wake: Condvar::new(),
            wake_flag: Mutex::new(author::Wake::default()),
            events,
            metadata: Mutex::new(HashMap::new()),
            faults,
            metrics: Metrics::default(),
        });
        let handle = author::start(Arc::clone(&node), author, opened.trie, opened.store);
        Ok((node, handle))
    }

    /// How the node runs.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Hash of block 0.
    pub fn genesis_hash(&self) -> Hash {
        self.chain.read().genesis_hash()
    }

    /// The newest block.
    pub fn best(&self) -> Arc<BlockData> {
        self.chain.read().best()
    }

    /// The newest final block.
    pub fn finalized(&self) -> Arc<BlockData> {
        self.chain.read().finalized()
    }

    /// Hash of the block with a number.
    pub fn hash_of(&self, number: u32) -> Option<Hash> {
        self.chain.read().hash_of(number)
    }

    /// A block that is still held, in memory or on disk.
    pub fn block(&self, hash: Hash) -> Option<Arc<BlockData>> {
        self.chain.read().block(hash)
    }

    /// State after a block, or after the best one.
    ///
    /// # Errors
    /// [`BlockError`] when the block is unknown or its state is past the history that is kept.
    pub fn state(&self, at: Option<Hash>) -> Result<StateMap, BlockError> {
        self.chain.read().state(at)
    }

    /// Calls a runtime API on the state after a block.
    ///
    /// # Errors
    /// [`NodeError`] when there is no such state or the call fails.
    pub fn runtime_call(&self, at: Option<Hash>, method: &str, data: &[u8]) -> Result<Arc<Vec<u8>>, NodeError> {
        let state = self.state(at)?;
        if !method.starts_with(METADATA_METHODS) {
            return Ok(Arc::new(executor::call(&state, method, data)?));
        }
        let spec_version = executor::inspect(&state, SpecVersion::get)?.spec_version;
        let key = (spec_version, method.to_owned(), data.to_vec());
        if let Some(known) = self.metadata.lock().get(&key) {
            return Ok(Arc::clone(known));
        }
        let answer = Arc::new(executor::call(&state, method, data)?);
        self.metadata.lock().insert(key, Arc::clone(&answer));
        Ok(answer)
    }

    /// Puts an encoded extrinsic into the pool.
    ///
    /// # Errors
    /// [`PoolError`] when the pool or the runtime refuses it.
    pub fn submit(&self, bytes: &[u8]) -> Result<Hash, PoolError> {
        self.submit_with(bytes, None)
    }

    /// The same, and reports what happens to it from then on.
    ///
    /// # Errors
    /// [`PoolError`] when the pool or the runtime refuses it.
    pub fn submit_and_watch(&self, bytes: &[u8]) -> Result<(Hash, mpsc::UnboundedReceiver<TxStatus>), PoolError> {
        let (watcher, statuses) = mpsc::unbounded_channel();
        self.submit_with(bytes, Some(watcher)).map(|hash| (hash, statuses))
    }

    fn submit_with(&self, bytes: &[u8], watcher: Option<pool::Watcher>) -> Result<Hash, PoolError> {
        let submitted = self.try_submit(bytes, watcher);
        self.metrics.submitted(submitted.as_ref().err());
        submitted
    }

    fn try_submit(&self, bytes: &[u8], watcher: Option<pool::Watcher>) -> Result<Hash, PoolError> {
        let extrinsic = executor::decode_extrinsic(bytes).map_err(|error| PoolError::BadFormat(error.to_string()))?;
        // Decoding accepts more than one encoding of a length; the canonical one is what goes into a block.
        let bytes = extrinsic.encode();
        let hash = BlakeTwo256::hash(&bytes);
        self.pool.lock().check(hash)?;
        if let Some(error) = self.faults.pool_error() {
            return Err(error);
        }
        loop {
            let (best, state) = {
                let chain = self.chain.read();
                (chain.best(), chain.best_state())
            };
            let validity = validate(&state, &best, extrinsic.clone())?;
            let mut pool = self.pool.lock();
            if self.best().hash != best.hash {
                // A block came in between, and with it perhaps the nonce that this one waits for: judge anew.
                continue;
            }
            let watchers = watcher.into_iter().collect();
            pool.insert(Candidate { hash, extrinsic, bytes, validity, watchers }, u64::from(best.header.number))?;
            break;
        }
        self.nudge();
        Ok(hash)
    }

    /// Lets the author look whether there is something to do.
    fn nudge(&self) {
        self.wake_flag.lock().extrinsics = true;
        self.wake.notify_all();
    }

    /// Faults on purpose.
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// Counters of the node.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Switches a fault on; what it discards is discarded at once.
    ///
    /// # Errors
    /// [`FaultError`] when a value is outside its range.
    pub fn set_fault(&self, fault: Fault) -> Result<(), FaultError> {
        self.faults.set(fault)?;
        let mut chain = self.chain.write();
        if let Some(keep) = self.faults.kept_states(chain.best().header.number) {
            chain.discard(keep);
        }
        Ok(())
    }

    /// Switches a kind of fault off, or all of them; false when there was none. A chain that stood still goes on.
    pub fn lift_faults(&self, kind: Option<FaultKind>) -> bool {
        let lifted = if let Some(kind) = kind {
            self.faults.lift(kind)
        } else {
            self.faults.lift_all();
            true
        };
        self.nudge();
        lifted
    }

    /// Spec version of the runtime after the best block.
    ///
    /// # Errors
    /// [`CallError`] when the state does not say.
    pub fn spec_version(&self) -> Result<u32, CallError> {
        let state = self.chain.read().best_state();
        executor::inspect(&state, SpecVersion::get).map(|version| version.spec_version)
    }

    /// Extrinsics in the pool.
    pub fn pool_len(&self) -> usize {
        self.pool.lock().len()
    }

    /// Applies an extrinsic to the state after a block and returns the encoded result; nothing is kept.
    ///
    /// # Errors
    /// [`NodeError`] when there is no such state or the bytes are no extrinsic.
    pub fn dry_run(&self, bytes: &[u8], at: Option<Hash>) -> Result<Vec<u8>, NodeError> {
        let block = at.map_or_else(|| Some(self.best()), |hash| self.block(hash));
        let block = block.ok_or(BlockError::Unknown(at.unwrap_or_default()))?;
        let state = self.state(Some(block.hash))?;
        let extrinsic = executor::decode_extrinsic(bytes)
            .map_err(|error| CallError::Trapped(format!("the extrinsic does not decode: {error}")))?;
        let (_, slot) = executor::inspect(&state, || author::next_time(false))?;
        Ok(executor::dry_run(&state, &block.header, slot, extrinsic)?)
    }

    /// Encoded extrinsics that wait for a block.
    pub fn pending(&self) -> Vec<Vec<u8>> {
        self.pool.lock().pending()
    }

    /// The nonce an account should use next, those in the pool counted.
    ///
    /// # Errors
    /// [`NodeError`] when the best state cannot be read.
    pub fn next_nonce(&self, account: &AccountId) -> Result<u32, NodeError> {
        let answer = self.runtime_call(None, "AccountNonceApi_account_nonce", &account.encode())?;
        let mut nonce = u32::decode(&mut answer.as_slice())
            .map_err(|error| NodeError::Call(CallError::Trapped(error.to_string())))?;
        let pool = self.pool.lock();
        while pool.provides(&(account, nonce).encode()) {
            nonce += 1;
        }
        Ok(nonce)
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<ChainEvent> {
        self.events.subscribe()
    }
}

/// Judges an extrinsic on the state after a block.
fn validate(state: &StateMap, block: &BlockData, extrinsic: UncheckedExtrinsic) -> Result<ValidTransaction, PoolError> {
    executor::validate(state, block.hash, extrinsic).map_err(|error| match error {
        TransactionValidityError::Invalid(invalid) => PoolError::Invalid(invalid),
        TransactionValidityError::Unknown(unknown) => PoolError::Unknown(unknown),
    })
}

/// Fills the pool after the chain went back: what was in blocks or judged on another state is judged anew.
fn refill(pool: &mut Pool, state: &StateMap, best: &BlockData, extrinsics: Vec<(Vec<u8>, Vec<pool::Watcher>)>) {
    for (bytes, watchers) in extrinsics {
        let hash = BlakeTwo256::hash(&bytes);
        let judged = executor::decode_extrinsic(&bytes)
            .map_err(|error| PoolError::BadFormat(error.to_string()))
            .and_then(|extrinsic| Ok((validate(state, best, extrinsic.clone())?, extrinsic)));
        let kept = judged.and_then(|(validity, extrinsic)| {
            let watchers = watchers.clone();
            pool.insert(Candidate { hash, extrinsic, bytes, validity, watchers }, u64::from(best.header.number))
        });
        if let Err(error) = kept {
            tracing::debug!(%error, extrinsic = ?hash, "an extrinsic does not fit the fork");
            pool::notify(&watchers, TxStatus::Invalid);
        }
    }
}

/// Why a runtime call on a block has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NodeError {
    /// There is no such state.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}
