//! The author: one thread that makes blocks on time, or as soon as there is something to put into one, and between
//! blocks does what it is told.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use frame_support::traits::Get;
use sp_consensus_aura::Slot;
use sp_core::sr25519;
use sp_runtime::DigestItem;
use sp_runtime::traits::{BlakeTwo256, Hash as _};
use sp_state_machine::StorageCollection;

use super::chain::{BlockData, Chain, Included, Retracted};
use super::command::{BlockRef, Command, CommandError, MAX_BLOCKS, MAX_SNAPSHOTS, ReorgDone, SnapshotRef, UpgradeDone};
use super::executor::{Authorship, Built, build_block, inspect};
use super::pool::{Pool, Queue, TxStatus, Watched, Watcher, notify, notify_all};
use super::state::{TipTrie, apply_changes};
use super::state_map::StateMap;
use super::store::Store;
use super::{BlockTime, ChainEvent, Node, RUNTIME_STACK_BYTES, refill};
use crate::runtime::{Hash, Header, ManyBlocksPerSlot, MinimumPeriod, Runtime, SlotDuration};
use crate::upgrade::{MAX_UPGRADES, SpecVersion, Upgrades};

/// What the author is woken up for.
#[derive(Default)]
pub(super) struct Wake {
    /// The pool has something new, or something that held blocks up is over.
    pub(super) extrinsics: bool,
    /// What to do before the next block.
    pub(super) commands: VecDeque<Command>,
    /// The node stops.
    stop: bool,
}

/// What the author does next.
enum Task {
    Block,
    Obey(Command),
    Stop,
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
    let author = Author {
        node: Arc::clone(&node),
        key,
        trie,
        store,
        unsaved: VecDeque::new(),
        snapshots: Vec::new(),
        next_snapshot: 1,
    };
    let builder = std::thread::Builder::new().name("author".into()).stack_size(RUNTIME_STACK_BYTES);
    let thread = builder.spawn(move || author.run());
    AuthorHandle { node, thread: thread.inspect_err(|error| tracing::error!(%error, "cannot start the author")).ok() }
}

/// A point to which the chain can go back.
struct Snapshot {
    id: u32,
    block: Arc<BlockData>,
    state: StateMap,
    /// Blocks up to it that were not final when it was taken: a reorg may have replaced them since.
    fork: Vec<Arc<BlockData>>,
}

struct Author {
    node: Arc<Node>,
    key: sr25519::Pair,
    trie: TipTrie,
    store: Option<Arc<Store>>,
    /// Changes of blocks that are not final yet, oldest first.
    unsaved: VecDeque<(Arc<BlockData>, StorageCollection)>,
    /// Oldest first.
    snapshots: Vec<Snapshot>,
    next_snapshot: u32,
}

/// What is special about a block.
#[derive(Debug, Clone, Copy, Default)]
struct Special {
    /// It brings a new runtime.
    upgrade: bool,
    /// It takes the place of another one, so its time is in the past.
    fork: bool,
}

impl Author {
    fn run(mut self) {
        let mut next = self.next_deadline(Instant::now());
        loop {
            let done = match self.wait(next) {
                Task::Stop => return,
                Task::Obey(command) => self.obey(command),
                Task::Block => {
                    let done = self.make_block();
                    next = self.next_deadline(next);
                    done
                }
            };
            if let Err(error) = done {
                tracing::error!(%error, "cannot go on: the chain stops here");
                // Whoever waits for an answer learns that there will be none.
                self.node.wake_flag.lock().commands.clear();
                return;
            }
        }
    }

    /// When the block after one that was due at a time is due. A process that was stopped for a while goes on with one
    /// block, not with all it missed.
    fn next_deadline(&self, last: Instant) -> Instant {
        match self.node.config.block_time {
            BlockTime::Instant => last,
            BlockTime::Every(period) => (last + period).max(Instant::now()),
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, next: Instant) -> Task {
        let mut wake = self.node.wake_flag.lock();
        loop {
            if wake.stop {
                return Task::Stop;
            }
            if let Some(command) = wake.commands.pop_front() {
                return Task::Obey(command);
            }
            match self.node.config.block_time {
                BlockTime::Instant => {
                    if std::mem::take(&mut wake.extrinsics) {
                        return Task::Block;
                    }
                    self.node.wake.wait(&mut wake);
                }
                BlockTime::Every(_) => {
                    if Instant::now() >= next {
                        return Task::Block;
                    }
                    self.node.wake.wait_until(&mut wake, next);
                }
            }
        }
    }

    fn best_number(&self) -> u32 {
        self.node.chain.read().best().header.number
    }

    fn make_block(&mut self) -> Result<(), MakeBlockError> {
        let instant = self.node.config.block_time == BlockTime::Instant;
        loop {
            let best = self.best_number();
            if self.node.faults.stalls_after(best) || (instant && !self.node.pool.lock().has_ready()) {
                return Ok(());
            }
            let upgrade = self.node.faults.upgrades_in(best + 1);
            let included = self.make_one_block(upgrade)?;
            if let Some(blocks) = self.node.faults.reorg_after(best + 1)
                && let Err(error) = self.reorg(blocks)?
            {
                tracing::warn!(%error, "the reorg that was asked for did not happen");
            }
            // In instant mode the pool is emptied block by block; a block that took nothing cannot empty it further.
            if !instant || included == 0 {
                return Ok(());
            }
        }
    }

    /// Carries out a command. Whoever gave it may be gone; nobody minds.
    fn obey(&mut self, command: Command) -> Result<(), MakeBlockError> {
        match command {
            Command::Reorg(blocks, reply) => {
                let _ = reply.send(self.reorg(blocks)?);
            }
            Command::Upgrade(reply) => {
                let _ = reply.send(self.upgrade()?);
            }
            Command::Blocks(blocks, reply) => {
                if !(1..=MAX_BLOCKS).contains(&blocks) {
                    let _ = reply.send(Err(CommandError::Blocks { blocks }));
                    return Ok(());
                }
                for _ in 0..blocks {
                    // Thousands of blocks take a while, and whoever stops the chain does not want to wait for them.
                    if self.node.wake_flag.lock().stop {
                        break;
                    }
                    self.make_one_block(false)?;
                }
                let _ = reply.send(Ok(BlockRef::from(&*self.node.best())));
            }
            Command::Snapshot(reply) => {
                let _ = reply.send(self.snapshot());
            }
            Command::Snapshots(reply) => {
                let _ = reply.send(Ok(self.snapshots.iter().map(Snapshot::reference).collect()));
            }
            Command::Revert(id, reply) => {
                let _ = reply.send(self.revert(id)?);
            }
        }
        Ok(())
    }

    fn make_one_block(&mut self, upgrade: bool) -> Result<usize, MakeBlockError> {
        let started = Instant::now();
        let (parent, state) = {
            let chain = self.node.chain.read();
            (chain.best(), chain.best_state())
        };
        let upgrade = upgrade && upgrades(&state)? < MAX_UPGRADES;
        let authorship = self.authorship(&state, Special { upgrade, fork: false })?;
        let (built, queue) = loop {
            let queue = self.node.pool.lock().queue();
            match self.build(&parent.header, &state, &authorship, queue) {
                Ok(built) => break built,
                Err(Failed { culprit: Some(culprit), .. }) => self.node.pool.lock().ban(culprit, parent.header.number),
                Err(Failed { error, .. }) => return Err(error),
            }
        };
        let included = queue.included();
        let (block, watched) = {
            // Together: an extrinsic validated before this block must not enter the pool after it.
            let node = Arc::clone(&self.node);
            let mut pool = node.pool.lock();
            let mut chain = node.chain.write();
            self.append(&mut pool, &mut chain, built, queue)
        };
        let took = started.elapsed();
        self.node.metrics.block_made(took, included);
        // Only now: whoever is told of a block asks for it at once.
        notify_all(&watched, TxStatus::InBlock(block.hash));
        self.announce(ChainEvent::Best(Arc::clone(&block)));
        log_block(&block, included, took);
        self.finalize_behind(block.header.number)?;
        Ok(included)
    }

    /// When and by whom the block after a state is made.
    fn authorship(&self, state: &StateMap, special: Special) -> Result<Authorship, MakeBlockError> {
        let (timestamp_ms, slot) = inspect(state, || next_time(special.fork)).map_err(|error| failed(&error))?;
        Ok(Authorship { timestamp_ms, slot, author: self.key.clone(), upgrade: special.upgrade })
    }

    /// Builds a block; where the runtime gives up on an extrinsic, the caller throws that one out and tries again.
    fn build(
        &self,
        parent: &Header,
        state: &StateMap,
        authorship: &Authorship,
        mut queue: Queue,
    ) -> Result<(Built, Queue), Failed> {
        match build_block(parent, state, &self.trie, authorship, &mut queue) {
            Ok(built) => Ok((built, queue)),
            Err(error) => {
                let culprit = queue.culprit();
                if let Some(culprit) = culprit {
                    tracing::warn!(%error, extrinsic = ?culprit, "an extrinsic made the runtime give up");
                }
                Err(Failed { culprit, error: failed(&error) })
            }
        }
    }

    /// Puts a block on the tip. Returns who watches what is in it; they are told once the locks are released.
    fn append(
        &mut self,
        pool: &mut Pool,
        chain: &mut Chain,
        built: Built,
        queue: Queue,
    ) -> (Arc<BlockData>, Vec<Watched>) {
        let Built { header, body, changes } = built;
        self.trie.apply(changes.transaction_storage_root, changes.transaction);
        let state = apply_changes(&chain.best_state(), changes.main_storage_changes.iter().cloned());
        let block = Arc::new(BlockData { hash: header.hash(), header, body });
        let number = block.header.number;
        let watched = pool.after_block(number, queue);
        chain.push(Arc::clone(&block), state, watched.clone());
        if let Some(keep) = self.node.faults.kept_states(number) {
            chain.discard(keep);
        }
        if self.store.is_some() {
            self.unsaved.push_back((Arc::clone(&block), changes.main_storage_changes));
        }
        (block, watched)
    }

    /// Replaces the newest blocks by a fork that is one longer. Readers see the chain before or after it.
    fn reorg(&mut self, blocks: u32) -> Result<Result<ReorgDone, CommandError>, MakeBlockError> {
        let node = Arc::clone(&self.node);
        let mut pool = node.pool.lock();
        let mut chain = node.chain.write();
        let (ancestor, state) = match fork_point(&chain, blocks) {
            Ok(point) => point,
            Err(error) => return Ok(Err(error)),
        };
        let number = ancestor.header.number;
        let Retracted { blocks: old, watchers } = chain.retract_to(Arc::clone(&ancestor), state.clone());
        self.trie = TipTrie::of(&state);
        while self.unsaved.back().is_some_and(|(block, _)| block.header.number > number) {
            self.unsaved.pop_back();
        }
        put_back(&mut pool, &state, &ancestor, &old, watchers);

        let mut upgrade = old.iter().any(|block| block.header.digest.logs.contains(&UPGRADED));
        let mut fork = Vec::new();
        for _ in 0..=blocks {
            let (parent, state) = (chain.best(), chain.best_state());
            let authorship = self.authorship(&state, Special { upgrade: std::mem::take(&mut upgrade), fork: true })?;
            let (built, queue) = loop {
                match self.build(&parent.header, &state, &authorship, pool.queue()) {
                    Ok(built) => break built,
                    Err(Failed { culprit: Some(culprit), .. }) => pool.ban(culprit, parent.header.number),
                    Err(Failed { error, .. }) => return Err(error),
                }
            };
            fork.push(self.append(&mut pool, &mut chain, built, queue));
        }
        let best = chain.best();
        drop((pool, chain));

        for (block, watched) in fork {
            notify_all(&watched, TxStatus::InBlock(block.hash));
            let is_best = block.hash == best.hash;
            self.announce(if is_best { ChainEvent::Best(block) } else { ChainEvent::Imported(block) });
        }
        let done = ReorgDone {
            common: BlockRef::from(&*ancestor),
            retracted: old.iter().map(|block| BlockRef::from(&**block)).collect(),
            best: BlockRef::from(&*best),
        };
        tracing::info!(retracted = blocks, number = best.header.number, hash = ?best.hash, "reorg");
        self.finalize_behind(best.header.number)?;
        Ok(Ok(done))
    }

    fn upgrade(&mut self) -> Result<Result<UpgradeDone, CommandError>, MakeBlockError> {
        let state = self.node.chain.read().best_state();
        if upgrades(&state)? >= MAX_UPGRADES {
            return Ok(Err(CommandError::TooManyUpgrades));
        }
        self.make_one_block(true)?;
        let (best, state) = {
            let chain = self.node.chain.read();
            (chain.best(), chain.best_state())
        };
        let version = inspect(&state, SpecVersion::get).map_err(|error| failed(&error))?;
        tracing::info!(number = best.header.number, spec_version = version.spec_version, "upgraded");
        Ok(Ok(UpgradeDone { block: BlockRef::from(&*best), spec_version: version.spec_version }))
    }

    fn snapshot(&mut self) -> Result<SnapshotRef, CommandError> {
        if self.snapshots.len() >= MAX_SNAPSHOTS {
            return Err(CommandError::TooManySnapshots);
        }
        let chain = self.node.chain.read();
        let snapshot =
            Snapshot { id: self.next_snapshot, block: chain.best(), state: chain.best_state(), fork: chain.unfinal() };
        drop(chain);
        self.next_snapshot += 1;
        let reference = snapshot.reference();
        self.snapshots.push(snapshot);
        Ok(reference)
    }

    fn revert(&mut self, id: u32) -> Result<Result<SnapshotRef, CommandError>, MakeBlockError> {
        let Some(position) = self.snapshots.iter().position(|snapshot| snapshot.id == id) else {
            return Ok(Err(CommandError::UnknownSnapshot { id }));
        };
        // Later ones may be of blocks that are about to vanish.
        self.snapshots.truncate(position + 1);
        let Snapshot { block, state, fork, .. } = &self.snapshots[position];
        let (block, state) = (Arc::clone(block), state.clone());
        if let Some(store) = &self.store {
            store.rewind(fork, &block, &state).map_err(|error| failed(&error))?;
        }
        self.unsaved.clear();
        self.trie = TipTrie::of(&state);
        let (dropped, retracted) = {
            let mut pool = self.node.pool.lock();
            let mut chain = self.node.chain.write();
            let dropped = pool.drain();
            pool.pardon();
            (dropped, chain.restore(fork, Arc::clone(&block), state))
        };
        for (included_in, watched) in &retracted.watchers {
            if fork.iter().any(|block| block.hash == *included_in) {
                notify_all(watched, TxStatus::Finalized(*included_in));
            } else {
                notify_all(watched, TxStatus::Retracted(*included_in));
                notify_all(watched, TxStatus::Dropped);
            }
        }
        for (_, watchers) in &dropped {
            notify(watchers, TxStatus::Dropped);
        }
        tracing::info!(snapshot = id, number = block.header.number, hash = ?block.hash, "reverted");
        let reference = self.snapshots[position].reference();
        self.announce(ChainEvent::Best(Arc::clone(&block)));
        self.announce(ChainEvent::Finalized(block));
        Ok(Ok(reference))
    }

    /// Makes final what lags behind the best block by enough.
    fn finalize_behind(&mut self, best: u32) -> Result<(), MakeBlockError> {
        let number = best.saturating_sub(self.node.config.finality_lag);
        let limit = self.node.faults.finality_limit().unwrap_or(u32::MAX);
        self.finalize(number.min(limit))
    }

    /// Makes a block final: on disk first, where there is one, then for everyone to see.
    fn finalize(&mut self, number: u32) -> Result<(), MakeBlockError> {
        while self.unsaved.front().is_some_and(|(block, _)| block.header.number <= number)
            && let (Some(store), Some((block, changes))) = (&self.store, self.unsaved.pop_front())
        {
            store.save(&block, &changes).map_err(|error| failed(&error))?;
        }
        let finalized = self.node.chain.write().finalize(number);
        if let Some((block, waiting)) = finalized {
            for (included_in, watched) in waiting {
                notify_all(&watched, TxStatus::Finalized(included_in));
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

impl Snapshot {
    fn reference(&self) -> SnapshotRef {
        SnapshotRef { id: self.id, block: BlockRef::from(&*self.block) }
    }
}

impl From<&BlockData> for BlockRef {
    fn from(block: &BlockData) -> Self {
        Self { number: block.header.number, hash: block.hash }
    }
}

/// Says in a block's digest that it brings a new runtime.
const UPGRADED: DigestItem = DigestItem::RuntimeEnvironmentUpdated;

/// The block before the newest ones, and the state after it.
fn fork_point(chain: &Chain, blocks: u32) -> Result<(Arc<BlockData>, StateMap), CommandError> {
    let best = chain.best().header.number;
    let unfinal = best - chain.finalized().header.number;
    if blocks == 0 || blocks > unfinal {
        return Err(CommandError::TooDeep { blocks, unfinal });
    }
    let number = best - blocks;
    let point = chain.hash_of(number).and_then(|hash| Some((chain.block(hash)?, chain.state(Some(hash)).ok()?)));
    point.ok_or(CommandError::NoState { number })
}

/// Puts the extrinsics of retracted blocks back into the pool, before those that wait there already.
fn put_back(pool: &mut Pool, state: &StateMap, best: &BlockData, retracted: &[Arc<BlockData>], watchers: Included) {
    let mut watching: HashMap<Hash, Vec<Watcher>> = HashMap::new();
    for (block, watched) in watchers {
        notify_all(&watched, TxStatus::Retracted(block));
        watching.extend(watched.into_iter().map(|watched| (watched.extrinsic, watched.watchers)));
    }
    // The first extrinsic of a block is the time, which every block has of its own.
    let extrinsics = retracted.iter().flat_map(|block| block.body.iter().skip(1));
    let watched = |bytes: &Vec<u8>| {
        let watchers = watching.remove(&BlakeTwo256::hash(bytes)).unwrap_or_default();
        (bytes.clone(), watchers)
    };
    let mut waiting: Vec<(Vec<u8>, Vec<Watcher>)> = extrinsics.map(watched).collect();
    waiting.extend(pool.drain());
    refill(pool, state, best, waiting);
}

/// Upgrades that a state has seen.
fn upgrades(state: &StateMap) -> Result<u32, MakeBlockError> {
    inspect(state, Upgrades::get).map_err(|error| failed(&error))
}

/// The chain cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct MakeBlockError(String);

fn failed(error: &dyn std::error::Error) -> MakeBlockError {
    MakeBlockError(error.to_string())
}

/// A block could not be built.
struct Failed {
    /// The extrinsic on which the runtime gave up, if it was on one.
    culprit: Option<Hash>,
    error: MakeBlockError,
}

/// Time and slot of the next block, on the state of its parent: now, but never too close to the parent. A block of a
/// fork comes as early as it can, because it stands for one that was made a while ago.
pub(super) fn next_time(fork: bool) -> (u64, Slot) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let slot_duration = SlotDuration::get();
    let last_slot = u64::from(pallet_aura::CurrentSlot::<Runtime>::get());
    let last_time = pallet_timestamp::Now::<Runtime>::get();
    let next_slot = if ManyBlocksPerSlot::get() { 0 } else { (last_slot + 1) * slot_duration };
    let earliest = next_slot.max(last_time + MinimumPeriod::get());
    let timestamp = if fork { earliest } else { now.max(earliest) };
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
