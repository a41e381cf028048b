//! Following the registry: everything that is known, and then every change.
//!
//! There is one record of the last changes, in the registry itself, and a watcher only holds its place in it. So a watcher
//! costs nothing however slowly it reads, one that comes back goes on where it was, and one that is further behind than the
//! record reaches gets everything anew in place of the changes it missed: nothing is lost, and nothing grows.

use std::sync::Arc;

use sidecar_util::BlockHash;
use tokio::sync::watch;

use crate::diff::Change;
use crate::registry::{Registry, Snapshot};

/// What a watcher is told. All but snapshots are numbered one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// Everything that is known: forget what was known before.
    Snapshot(Snapshot),
    /// An entry changed.
    Entry {
        /// Number of the event.
        seq: u64,
        /// The entry before and after.
        change: Arc<Change>,
    },
    /// Another metagraph was taken in. What it changed was told before this.
    Metagraph {
        /// Number of the event.
        seq: u64,
        /// Its block.
        block: u64,
        /// Hash of its block.
        block_hash: BlockHash,
    },
}

impl WatchEvent {
    /// Number of the event; of a snapshot, number of the last event in it.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Snapshot(snapshot) => snapshot.seq,
            Self::Entry { seq, .. } | Self::Metagraph { seq, .. } => *seq,
        }
    }
}

/// Follows a registry, see [`Registry::watch`].
#[derive(Debug)]
pub struct Watch {
    registry: Arc<Registry>,
    /// Number of the last event there is.
    last: watch::Receiver<u64>,
    /// Number of the last event that was told; `None` before the first.
    seen: Option<u64>,
}

impl Watch {
    pub(crate) fn new(registry: Arc<Registry>, last: watch::Receiver<u64>, seen: Option<u64>) -> Self {
        Self { registry, last, seen }
    }

    /// The next event; waits for it.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> WatchEvent {
        loop {
            // Taken note of before looking: what comes after the look wakes.
            self.last.borrow_and_update();
            if let Some(event) = self.try_next() {
                return event;
            }
            self.last.changed().await.expect("the registry that is held here keeps the sender");
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<WatchEvent> {
        let event = self.registry.event_after(self.seen)?;
        self.seen = Some(event.seq());
        Some(event)
    }
}
