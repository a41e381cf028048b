//! The author: one thread that makes blocks on time, or as soon as there is something to put into one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sp_consensus_aura::Slot;
use sp_core::sr25519;
use sp_state_machine::StorageCollection;

use super::chain::BlockData;
use super::executor::{Authorship, Built, build_block, inspect};
use super::pool::{Queue, TxStatus, notify};
use super::state::{StateMap, TipTrie, apply_changes};
use super::store::Store;
use super::{BlockTime, ChainEvent, Node};
use crate::runtime::{Header, ManyBlocksPerSlot, MinimumPeriod, Runtime, SlotDuration};

/// What the author is woken up for.
#[derive(Default)]
pub(super) struct Wake {
    /// The pool has something new.
    pub(super) extrinsics: bool,
    /// The node stops.
    stop: bool,
}

/// The authoring thread.
pub struct AuthorHandle {
    node: Arc<Node>,
    thread: Option<JoinHandle<()>>,
}

impl AuthorHandle {
    /// Stops authoring and waits until the last block is finished and, with a state directory, on disk.
    pub fn stop(mut self) {
        self.join();
    }

    /// Whether the thread has ended, which it does of itself only when its disk fails.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn join(&mut self) {
        self.node.wake_flag.lock().stop = true;
        self.node.wake.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the authoring thread panicked");
        }
    }
}

impl Drop for AuthorHandle {
    fn drop(&mut self) {
        self.join();
    }
}

/// Starts authoring.
pub(super) fn start(node: Arc<Node>, key: sr25519::Pair, trie: TipTrie, store: Option<Arc<Store>>) -> AuthorHandle {
    let author = Author { node: Arc::clone(&node), key, trie, store, unsaved: VecDeque::new() };
    let thread = std::thread::Builder::new().name("author".into()).spawn(move || author.run());
    AuthorHandle { node, thread: thread.inspect_err(|error| tracing::error!(%error, "cannot start the author")).ok() }
}

struct Author {
    node: Arc<Node>,
    key: sr25519::Pair,
    trie: TipTrie,
    store: Option<Arc<Store>>,
    /// Changes of blocks that are not final yet, oldest first.
    unsaved: VecDeque<(Arc<BlockData>, StorageCollection)>,
}

impl Author {
    fn run(mut self) {
        let mut next = Instant::now();
        while self.wait(&mut next) {
            if let Err(error) = self.make_block() {
                tracing::error!(%error, "cannot go on: the chain stops here");
                return;
            }
        }
    }

    /// Waits until a block is to be made; false when the node stops.
    fn wait(&self, next: &mut Instant) -> bool {
        let mut wake = self.node.wake_flag.lock();
        match self.node.config.block_time {
            BlockTime::Instant => {
                while !wake.stop && !std::mem::take(&mut wake.extrinsics) {
                    self.node.wake.wait(&mut wake);
                }
            }
            BlockTime::Every(period) => {
                // A process that was stopped for a while goes on with one block, not with all it missed.
                *next = (*next + period).max(Instant::now());
                while !wake.stop && Instant::now() < *next {
                    self.node.wake.wait_until(&mut wake, *next);
                }
            }
        }
        !wake.stop
    }

    fn make_block(&mut self) -> Result<(), MakeBlockError> {
        let instant = self.node.config.block_time == BlockTime::Instant;
        loop {
            if instant && !self.node.pool.lock().has_ready() {
                return Ok(());
            }
            let included = self.make_one_block()?;
            // In instant mode the pool is emptied block by block; a block that took nothing cannot empty it further.
            if !instant || included == 0 {
                return Ok(());
            }
        }
    }

    fn make_one_block(&mut self) -> Result<usize, MakeBlockError> {
        let started = Instant::now();
        let (parent, state) = {
            let chain = self.node.chain.read();
            (chain.best(), chain.best_state())
        };
        let (timestamp_ms, slot) = inspect(&state, next_time).map_err(|error| MakeBlockError(error.to_string()))?;
        let authorship = Authorship { timestamp_ms, slot, author: &self.key };
        let (Built { header, body, changes }, queue) = self.build(&parent.header, &state, &authorship)?;
        let included = queue.included();

        self.trie.apply(changes.transaction_storage_root, changes.transaction);
        let next_state = apply_changes(&state, changes.main_storage_changes.iter().cloned());
        let block = Arc::new(BlockData { hash: header.hash(), header, body });
        let number = block.header.number;
        let watchers = {
            // Together: an extrinsic validated before this block must not enter the pool after it.
            let mut pool = self.node.pool.lock();
            let watchers = pool.after_block(number, queue);
            self.node.chain.write().push(Arc::clone(&block), next_state, watchers.clone());
            watchers
        };
        // Only now: whoever is told of a block asks for it at once.
        notify(&watchers, TxStatus::InBlock(block.hash));
        if self.store.is_some() {
            self.unsaved.push_back((Arc::clone(&block), changes.main_storage_changes));
        }
        self.announce(ChainEvent::Best(Arc::clone(&block)));
        log_block(&block, included, started.elapsed());
        self.finalize(number.saturating_sub(self.node.config.finality_lag))?;
        Ok(included)
    }

    /// Builds a block without the extrinsics on which the runtime gives up: those are thrown out of the pool.
    fn build(
        &self,
        parent: &Header,
        state: &StateMap,
        authorship: &Authorship<'_>,
    ) -> Result<(Built, Queue), MakeBlockError> {
        loop {
            let mut queue = self.node.pool.lock().queue();
            match (build_block(parent, state, &self.trie, authorship, &mut queue), queue.culprit()) {
                (Ok(built), _) => return Ok((built, queue)),
                (Err(error), Some(culprit)) => {
                    tracing::warn!(%error, extrinsic = ?culprit, "an extrinsic made the runtime give up");
                    self.node.pool.lock().ban(culprit, parent.number);
                }
                (Err(error), None) => return Err(MakeBlockError(error.to_string())),
            }
        }
    }

    /// Makes a block final: on disk first, where there is one, then for everyone to see.
    fn finalize(&mut self, number: u32) -> Result<(), MakeBlockError> {
        while self.unsaved.front().is_some_and(|(block, _)| block.header.number <= number)
            && let (Some(store), Some((block, changes))) = (&self.store, self.unsaved.pop_front())
        {
            store.save(&block, &changes).map_err(|error| MakeBlockError(error.to_string()))?;
        }
        let finalized = self.node.chain.write().finalize(number);
        if let Some((block, waiting)) = finalized {
            for (included_in, watchers) in waiting {
                notify(&watchers, TxStatus::Finalized(included_in));
            }
            self.announce(ChainEvent::Finalized(block));
        }
        Ok(())
    }

    fn announce(&self, event: ChainEvent) {
        // Nobody listening is fine.
        let _ = self.node.events.send(event);
    }
}

/// The chain cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct MakeBlockError(String);

/// Time and slot of the next block, on the state of its parent: now, but never too close to the parent.
fn next_time() -> (u64, Slot) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let slot_duration = SlotDuration::get();
    let last_slot = u64::from(pallet_aura::CurrentSlot::<Runtime>::get());
    let last_time = pallet_timestamp::Now::<Runtime>::get();
    let next_slot = if ManyBlocksPerSlot::get() { 0 } else { (last_slot + 1) * slot_duration };
    let earliest = next_slot.max(last_time + MinimumPeriod::get());
    let timestamp = now.max(earliest);
    (timestamp, Slot::from(timestamp / slot_duration))
}

/// One line per block; empty blocks only speak at debug level.
fn log_block(block: &BlockData, extrinsics: usize, took: Duration) {
    let number = block.header.number;
    let hash = format!("{:?}", block.hash);
    let took_ms = took.as_secs_f64() * 1e3;
    if extrinsics > 0 {
        tracing::info!(number, hash, extrinsics, took_ms, "block");
    } else {
        tracing::debug!(number, hash, extrinsics, took_ms, "block");
    }
}
