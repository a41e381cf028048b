//! The blocks, and the states of the newest of them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use codec::{Decode, Encode};
use sp_runtime::traits::Header as _;
use sp_runtime::{Digest, traits::BlakeTwo256};

use super::NodeConfig;
use super::pool::Watched;
use super::state::{STATE_VERSION, TipTrie};
use super::state_map::StateMap;
use super::store::{Store, StoreError};
use crate::runtime::{Hash, Header};

/// Blocks whose head and body are held in memory; older ones are read from disk, or are gone.
const BLOCKS_IN_MEMORY: usize = 16_384;

/// A block.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BlockData {
    /// Hash of its head.
    pub hash: Hash,
    /// Its head.
    pub header: Header,
    /// Its encoded extrinsics.
    pub body: Vec<Vec<u8>>,
}

/// Why a block or its state cannot be read. The texts are Substrate's: clients match them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// No such block.
    #[error("UnknownBlock: Header was not found in the database: {0:?}")]
    Unknown(Hash),
    /// Its state is past the history that is kept.
    #[error("Api called for an unknown Block: State already discarded for {0:?}")]
    Discarded(Hash),
}

/// Blocks that became final, with who waited for each.
pub(super) type Included = Vec<(Hash, Vec<Watched>)>;

/// Blocks that are no longer part of the chain.
pub(super) struct Retracted {
    /// Oldest first.
    pub(super) blocks: Vec<Arc<BlockData>>,
    /// Hash of the block, and who watches what in it.
    pub(super) watchers: Included,
}

/// The canonical chain.
pub(super) struct Chain {
    /// Hash of every block since genesis: 32 bytes a block, and what `chain_getBlockHash` answers from.
    hashes: Vec<Hash>,
    blocks: HashMap<Hash, Arc<BlockData>>,
    in_memory: VecDeque<Hash>,
    states: HashMap<Hash, StateMap>,
    with_state: VecDeque<Hash>,
    history: u32,
    genesis: Arc<BlockData>,
    best: Arc<BlockData>,
    best_state: StateMap,
    finalized: Arc<BlockData>,
    /// Who waits for blocks to become final.
    waiting: VecDeque<(u32, Vec<Watched>)>,
    store: Option<Arc<Store>>,
}

/// A chain with what the author needs beside it.
pub(super) struct Opened {
    pub(super) chain: Chain,
    pub(super) trie: TipTrie,
    pub(super) store: Option<Arc<Store>>,
}

/// Block 0 of a genesis state.
fn genesis_block(root: Hash) -> BlockData {
    let no_extrinsics = frame_system::extrinsics_data_root::<BlakeTwo256>(Vec::new(), STATE_VERSION);
    let header = Header::new(0, no_extrinsics, root, Hash::zero(), Digest::default());
    BlockData { hash: header.hash(), header, body: Vec::new() }
}

/// Opens a chain: from disk where it was kept there, else at genesis.
pub(super) fn open(genesis: StateMap, config: &NodeConfig) -> Result<Opened, StoreError> {
    let trie = TipTrie::of(&genesis);
    let block = Arc::new(genesis_block(trie.root()));
    let Some(dir) = &config.state_dir else {
        return Ok(Opened { chain: Chain::at(block, genesis, config, None), trie, store: None });
    };
    let store = Arc::new(Store::open(dir)?);
    match store.load(block.hash)? {
        None => {
            store.create(&block, &genesis)?;
            let chain = Chain::at(block, genesis, config, Some(Arc::clone(&store)));
            Ok(Opened { chain, trie, store: Some(store) })
        }
        Some(saved) => {
            let trie = TipTrie::of(&saved.state);
            if trie.root() != *saved.head.header.state_root() {
                return Err(StoreError::Corrupt("the state does not match its root".into()));
            }
            let mut chain = Chain::at(block, genesis, config, Some(Arc::clone(&store)));
            chain.resume(saved.hashes, Arc::new(saved.head), saved.state);
            Ok(Opened { chain, trie, store: Some(store) })
        }
    }
}

/// Number of the newest block that a fork has in common with the chain: the one before its first.
pub(super) fn common_number(fork: &[Arc<BlockData>], end: &BlockData) -> u32 {
    fork.first().map_or(end.header.number, |first| first.header.number.saturating_sub(1))
}

/// A block number as an index.
fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Chain {
    fn at(genesis: Arc<BlockData>, state: StateMap, config: &NodeConfig, store: Option<Arc<Store>>) -> Self {
        let hash = genesis.hash;
        Self {
            hashes: vec![hash],
            blocks: HashMap::from([(hash, Arc::clone(&genesis))]),
            in_memory: VecDeque::new(),
            states: HashMap::from([(hash, state.clone())]),
            with_state: VecDeque::from([hash]),
            history: config.history,
            best: Arc::clone(&genesis),
            best_state: state,
            finalized: Arc::clone(&genesis),
            genesis,
            waiting: VecDeque::new(),
            store,
        }
    }

    /// Goes on at a block that was kept on disk. States before it are gone.
    fn resume(&mut self, hashes: Vec<Hash>, head: Arc<BlockData>, state: StateMap) {
        self.hashes = hashes;
        self.states = HashMap::from([(head.hash, state.clone())]);
        self.with_state = VecDeque::from([head.hash]);
        self.best_state = state;
        self.finalized = Arc::clone(&head);
        self.best = Arc::clone(&head);
        self.remember(head);
    }

    pub(super) fn genesis_hash(&self) -> Hash {
        self.genesis.hash
    }

    pub(super) fn best(&self) -> Arc<BlockData> {
        Arc::clone(&self.best)
    }

    pub(super) fn best_state(&self) -> StateMap {
        self.best_state.clone()
    }

    pub(super) fn finalized(&self) -> Arc<BlockData> {
        Arc::clone(&self.finalized)
    }

    pub(super) fn hash_of(&self, number: u32) -> Option<Hash> {
        self.hashes.get(index(number)).copied()
    }

    pub(super) fn block(&self, hash: Hash) -> Option<Arc<BlockData>> {
        if let Some(block) = self.blocks.get(&hash) {
            return Some(Arc::clone(block));
        }
        let read = self.store.as_ref()?.block(hash);
        read.inspect_err(|error| tracing::warn!(%error, ?hash, "cannot read a block from disk"))
            .ok()
            .flatten()
            .map(Arc::new)
    }

    pub(super) fn state(&self, at: Option<Hash>) -> Result<StateMap, BlockError> {
        let Some(hash) = at.filter(|hash| *hash != self.best.hash) else {
            return Ok(self.best_state.clone());
        };
        if let Some(state) = self.states.get(&hash) {
            return Ok(state.clone());
        }
        if self.block(hash).is_some() || self.hashes.contains(&hash) {
            Err(BlockError::Discarded(hash))
        } else {
            Err(BlockError::Unknown(hash))
        }
    }

    fn remember(&mut self, block: Arc<BlockData>) {
        let hash = block.hash;
        if self.blocks.insert(hash, block).is_none() {
            self.in_memory.push_back(hash);
        }
        if self.in_memory.len() > BLOCKS_IN_MEMORY
            && let Some(oldest) = self.in_memory.pop_front()
        {
            self.blocks.remove(&oldest);
        }
    }

    /// Adds a block on the tip.
    pub(super) fn push(&mut self, block: Arc<BlockData>, state: StateMap, watchers: Vec<Watched>) {
        self.hashes.push(block.hash);
        self.states.insert(block.hash, state.clone());
        self.with_state.push_back(block.hash);
        self.discard(self.history);
        if !watchers.is_empty() {
            self.waiting.push_back((block.header.number, watchers));
        }
        self.best = Arc::clone(&block);
        self.best_state = state;
        self.remember(block);
    }

    /// Keeps the newest states only.
    pub(super) fn discard(&mut self, keep: u32) {
        while self.with_state.len() > index(keep.max(1))
            && let Some(oldest) = self.with_state.pop_front()
        {
            self.states.remove(&oldest);
        }
    }

    /// Blocks that are not final yet, oldest first.
    pub(super) fn unfinal(&self) -> Vec<Arc<BlockData>> {
        let numbers = self.finalized.header.number + 1..=self.best.header.number;
        numbers.filter_map(|number| self.block(self.hash_of(number)?)).collect()
    }

    /// Cuts off what follows the block with a number.
    fn cut_after(&mut self, number: u32) -> Retracted {
        let numbers = number + 1..=self.best.header.number;
        let blocks = numbers.filter_map(|number| self.block(self.hash_of(number)?)).collect();
        let mut watchers = Included::new();
        while self.waiting.back().is_some_and(|(included_at, _)| *included_at > number)
            && let Some((included_at, waiting)) = self.waiting.pop_back()
        {
            watchers.extend(self.hash_of(included_at).map(|hash| (hash, waiting)));
        }
        self.hashes.truncate(index(number) + 1);
        Retracted { blocks, watchers }
    }

    fn go_to(&mut self, block: Arc<BlockData>, state: StateMap) {
        if self.states.insert(block.hash, state.clone()).is_none() {
            self.with_state.push_back(block.hash);
        }
        self.best = block;
        self.best_state = state;
    }

    /// Goes back to an ancestor of the best block, with its state. The ancestor is final, or not final yet itself.
    pub(super) fn retract_to(&mut self, ancestor: Arc<BlockData>, state: StateMap) -> Retracted {
        let retracted = self.cut_after(ancestor.header.number);
        self.go_to(ancestor, state);
        retracted
    }

    /// Takes up the fork that leads to a block and goes there. All of it is final from then on.
    pub(super) fn restore(&mut self, fork: &[Arc<BlockData>], end: Arc<BlockData>, state: StateMap) -> Retracted {
        let retracted = self.cut_after(common_number(fork, &end));
        for block in fork {
            self.hashes.push(block.hash);
            self.remember(Arc::clone(block));
        }
        self.finalized = Arc::clone(&end);
        self.go_to(end, state);
        retracted
    }

    /// Makes a block final and returns it with those who waited for it.
    pub(super) fn finalize(&mut self, number: u32) -> Option<(Arc<BlockData>, Included)> {
        if number <= self.finalized.header.number {
            return None;
        }
        let block = self.block(self.hash_of(number)?)?;
        self.finalized = Arc::clone(&block);
        let mut watchers = Vec::new();
        while self.waiting.front().is_some_and(|(waits_for, _)| *waits_for <= number)
            && let Some((included_at, waiting)) = self.waiting.pop_front()
        {
            watchers.extend(self.hash_of(included_at).map(|hash| (hash, waiting)));
        }
        Some((block, watchers))
    }
}
