//! What the author is told to do beside making blocks: each command is carried out between two blocks and answered.

use serde::Serialize;
use tokio::sync::oneshot;

use super::Node;
use crate::runtime::Hash;
use crate::upgrade::MAX_UPGRADES;

/// Snapshots that are held at a time.
pub const MAX_SNAPSHOTS: usize = 64;

/// Blocks that one command may make.
pub const MAX_BLOCKS: u32 = 10_000;

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Final blocks are never replaced.
    #[error(
        "blocks: {blocks} is more than the {unfinal} blocks that are not final yet: raise --finality-lag, or reorg \
         fewer blocks; with --block-time instant every block is final at once"
    )]
    TooDeep {
        /// Blocks that should be replaced.
        blocks: u32,
        /// Blocks that can be.
        unfinal: u32,
    },
    /// The state from which the fork would start is gone.
    #[error("the state of block {number} was discarded: lift the fault `prune`, or raise --history")]
    NoState {
        /// Number of the block.
        number: u32,
    },
    /// There is nothing to do.
    #[error("blocks: {blocks} is not from 1 to {MAX_BLOCKS}")]
    Blocks {
        /// What was asked for.
        blocks: u32,
    },
    /// Indices cannot be shifted further.
    #[error("this chain had {MAX_UPGRADES} upgrades already: revert to a snapshot, or start it anew")]
    TooManyUpgrades,
    /// There is no such snapshot.
    #[error("there is no snapshot {id}: those later than one that was reverted to are gone")]
    UnknownSnapshot {
        /// Its number.
        id: u32,
    },
    /// No room for another.
    #[error("there are {MAX_SNAPSHOTS} snapshots already: revert to an early one, which drops those after it")]
    TooManySnapshots,
    /// The author has ended, or a block could not be made.
    #[error("the chain has stopped: its log says why")]
    Stopped,
}

/// A block as commands report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BlockRef {
    /// Its number.
    pub number: u32,
    /// Its hash.
    pub hash: Hash,
}

/// What a reorg did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReorgDone {
    /// Newest block that both forks have.
    pub common: BlockRef,
    /// Blocks that are no longer part of the chain, oldest first.
    pub retracted: Vec<BlockRef>,
    /// The new best block.
    pub best: BlockRef,
}

/// What an upgrade did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UpgradeDone {
    /// The block that brought it. Its events are those of the runtime before.
    pub block: BlockRef,
    /// The new spec version.
    pub spec_version: u32,
}

/// A point to which the chain can go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SnapshotRef {
    /// Its number.
    pub id: u32,
    /// The best block when it was taken.
    pub block: BlockRef,
}

type Reply<V> = oneshot::Sender<Result<V, CommandError>>;

/// What to do, and whom to tell.
pub(super) enum Command {
    Reorg(u32, Reply<ReorgDone>),
    Upgrade(Reply<UpgradeDone>),
    Blocks(u32, Reply<BlockRef>),
    Snapshot(Reply<SnapshotRef>),
    Snapshots(Reply<Vec<SnapshotRef>>),
    Revert(u32, Reply<SnapshotRef>),
}

impl Node {
    /// Replaces the newest blocks by a fork that is one block longer. Their extrinsics go back into the pool.
    ///
    /// # Errors
    /// [`CommandError`] when blocks of that depth are final, or their state is gone.
    pub async fn reorg(&self, blocks: u32) -> Result<ReorgDone, CommandError> {
        self.command(|reply| Command::Reorg(blocks, reply)).await
    }

    /// Makes a block that brings a new runtime.
    ///
    /// # Errors
    /// [`CommandError::TooManyUpgrades`] when indices cannot be shifted further.
    pub async fn upgrade(&self) -> Result<UpgradeDone, CommandError> {
        self.command(Command::Upgrade).await
    }

    /// Makes blocks at once, also on a chain that is stalled.
    ///
    /// # Errors
    /// [`CommandError::Blocks`] when the number is out of range.
    pub async fn make_blocks(&self, blocks: u32) -> Result<BlockRef, CommandError> {
        self.command(|reply| Command::Blocks(blocks, reply)).await
    }

    /// Remembers the best block and its state, in memory.
    ///
    /// # Errors
    /// [`CommandError::TooManySnapshots`] when there is no room.
    pub async fn snapshot(&self) -> Result<SnapshotRef, CommandError> {
        self.command(Command::Snapshot).await
    }

    /// The snapshots, oldest first.
    ///
    /// # Errors
    /// [`CommandError::Stopped`].
    pub async fn snapshots(&self) -> Result<Vec<SnapshotRef>, CommandError> {
        self.command(Command::Snapshots).await
    }

    /// Goes back to a snapshot, on disk as well. Later blocks, later snapshots and what is in the pool are gone, even
    /// blocks that were final; the snapshot itself stays.
    ///
    /// # Errors
    /// [`CommandError::UnknownSnapshot`].
    pub async fn revert(&self, id: u32) -> Result<SnapshotRef, CommandError> {
        self.command(|reply| Command::Revert(id, reply)).await
    }

    async fn command<V>(&self, command: impl FnOnce(Reply<V>) -> Command) -> Result<V, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.wake_flag.lock().commands.push_back(command(reply));
        self.wake.notify_all();
        answer.await.map_err(|_| CommandError::Stopped)?
    }
}
