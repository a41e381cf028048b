//! Following the registry: a snapshot, and then every change.
//!
//! A watcher that reads slower than things change is not waited for. It loses its place, and gets a fresh snapshot in place
//! of the changes it missed, so that what it knows is right again; memory is bounded by the longest queue.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use futures::stream::unfold;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::diff::{Change, Entry};
use crate::registry::{Registry, Snapshot};

/// A change with its number.
#[derive(Debug, Clone)]
pub(crate) struct Numbered {
    pub(crate) seq: u64,
    pub(crate) change: Arc<Change>,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// Number of the change; for a snapshot, of the last change in it. Numbers grow by one with every change and begin anew
    /// with the process.
    pub seq: u64,
    /// What happened.
    pub kind: WatchKind,
    /// The entry as it is now, or as it was when it is removed; absent in [`WatchKind::Synced`].
    pub entry: Option<Entry>,
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WatchKind {
    /// Part of a snapshot. The first one after an event of another kind begins a snapshot: forget what was known.
    Snapshot,
    /// The snapshot is complete, even if it was empty. Changes follow.
    Synced,
    /// New.
    Added,
    /// As it was before no more.
    Changed,
    /// Forgotten.
    Removed,
}

impl WatchKind {
    /// As one word from a closed set.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Synced => "synced",
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// Follows a registry. Ask [`Watch::next`], or make a [`Stream`] of it.
#[derive(Debug)]
pub struct Watch {
    registry: Arc<Registry>,
    receiver: broadcast::Receiver<Numbered>,
    /// Events of the snapshot that were not told yet.
    pending: VecDeque<WatchEvent>,
    /// Number of the last change that was told or is pending.
    seq: u64,
}

impl Watch {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        let (snapshot, receiver) = registry.follow();
        let mut watch = Self { registry, receiver, pending: VecDeque::new(), seq: 0 };
        watch.restart(snapshot);
        watch
    }

    fn restart(&mut self, snapshot: Snapshot) {
        let seq = snapshot.seq;
        let entries = snapshot.entries.into_iter();
        self.pending = entries.map(|entry| WatchEvent { seq, kind: WatchKind::Snapshot, entry: Some(entry) }).collect();
        self.pending.push_back(WatchEvent { seq, kind: WatchKind::Synced, entry: None });
        self.seq = seq;
    }

    fn lagged(&mut self) {
        let (snapshot, receiver) = self.registry.follow();
        self.receiver = receiver;
        self.restart(snapshot);
    }

    fn event(&mut self, Numbered { seq, change }: Numbered) -> Option<WatchEvent> {
        self.seq = seq;
        let (kind, entry) = match (&change.before, &change.after) {
            (None, Some(after)) => (WatchKind::Added, after),
            (Some(_), Some(after)) => (WatchKind::Changed, after),
            (Some(before), None) => (WatchKind::Removed, before),
            (None, None) => return None,
        };
        Some(WatchEvent { seq, kind, entry: Some(entry.clone()) })
    }

    /// The next event; waits for it. `None` when the registry is gone, which this handle keeps from happening.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            match self.receiver.recv().await {
                Ok(numbered) => {
                    if let Some(event) = self.event(numbered) {
                        return Some(event);
                    }
                }
                Err(RecvError::Lagged(_)) => self.lagged(),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            match self.receiver.try_recv() {
                Ok(numbered) => {
                    if let Some(event) = self.event(numbered) {
                        return Some(event);
                    }
                }
                Err(TryRecvError::Lagged(_)) => self.lagged(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// All events, one after the other.
    pub fn into_stream(self) -> Pin<Box<dyn Stream<Item = WatchEvent> + Send>> {
        Box::pin(unfold(self, |mut watch| async move { watch.next().await.map(|event| (event, watch)) }))
    }
}
