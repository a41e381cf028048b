//! The registry: every validator and miner of the subnet and where it stands, safe to share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sidecar_util::http::{EntryState, NodeKind, RegistryStatus};
use sidecar_util::{Coldkey, Hotkey, Metagraph, Uid};
use tokio::sync::broadcast;

use crate::diff::{Change, Entry, Liveness, Reachability, Rules, block_of_change, diff, standing};
use crate::handshake::UnixTime;
use crate::sync::RwLock;
use crate::watch::{Numbered, Watch};

/// Changes kept for watchers that are slower than the chain: an epoch of a full subnet twice over. Who is further behind
/// gets a fresh snapshot, which is shorter by then.
const BEHIND_MAX: usize = 2048;

/// Entries by hotkey.
///
/// # Guarantees
/// A metagraph is applied as a whole: no reader sees half of it. Events of one hotkey come in the order of what happened,
/// to the caller and to every watcher.
#[derive(Debug)]
pub struct Registry {
    state: RwLock<State>,
    changes: broadcast::Sender<Numbered>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Hotkey, Entry>,
    /// Who holds which slot now.
    uids: BTreeMap<Uid, Hotkey>,
    /// All hotkeys of an owner, those included that left the chain lately.
    coldkeys: BTreeMap<Coldkey, BTreeSet<Hotkey>>,
    /// Rules of the last metagraph, by which a sign of life is judged too.
    rules: Rules,
    /// Block of the last metagraph.
    block: Option<u64>,
    /// Number of the last change.
    seq: u64,
}

/// Everything that is known at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Number of the last change that is in it.
    pub seq: u64,
    /// Block of the last metagraph.
    pub block: Option<u64>,
    /// In the order of hotkeys.
    pub entries: Vec<Entry>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self { state: RwLock::default(), changes: broadcast::Sender::new(BEHIND_MAX) }
    }

    /// Takes in a metagraph and returns what it changed.
    pub fn apply(&self, metagraph: &Metagraph, rules: &Rules) -> Vec<Change> {
        let mut state = self.state.write();
        let changes = diff(&state.entries, metagraph, rules);
        // What is given up before what is taken: a slot goes from one hotkey to another within one block.
        for change in &changes {
            if let Some(before) = &change.before {
                state.unindex(before);
            }
        }
        for change in &changes {
            match &change.after {
                Some(entry) => {
                    state.index(entry);
                    state.entries.insert(change.hotkey, entry.clone());
                }
                None => {
                    state.entries.remove(&change.hotkey);
                }
            }
            self.publish(&mut state, change);
        }
        state.rules.clone_from(rules);
        state.block = Some(metagraph.block);
        changes
    }

    /// Notes that a peer proved to hold this hotkey, and that it is alive. Strangers are not noted.
    pub fn heard_from(&self, hotkey: &Hotkey) -> Option<Change> {
        self.set_liveness(hotkey, Liveness::Alive)
    }

    /// Notes that a peer which was heard before has not been heard for longer than it should.
    pub fn silent(&self, hotkey: &Hotkey) -> Option<Change> {
        self.set_liveness(hotkey, Liveness::Silent)
    }

    fn set_liveness(&self, hotkey: &Hotkey, liveness: Liveness) -> Option<Change> {
        let changes = |entry: &Entry| {
            let never_heard = liveness == Liveness::Silent && entry.liveness == Liveness::Unknown;
            entry.liveness != liveness && entry.is_registered() && !never_heard
        };
        self.update(hotkey, changes, |entry| entry.liveness = liveness)
    }

    /// Notes whether something answers at the axon of this hotkey. Strangers, and who has no axon, are not noted.
    pub fn reached(&self, hotkey: &Hotkey, reachability: Reachability, now: UnixTime) -> Option<Change> {
        let changes = |entry: &Entry| entry.reachability != reachability && entry.axon.is_some();
        self.update(hotkey, changes, |entry| {
            entry.reachability = reachability;
            entry.reachability_since = (reachability != Reachability::Unknown).then_some(now);
        })
    }

    fn update(
        &self,
        hotkey: &Hotkey,
        changes: impl Fn(&Entry) -> bool,
        change: impl FnOnce(&mut Entry),
    ) -> Option<Change> {
        // Most signs of life change nothing, and then no reader has to wait.
        if !self.state.read().entries.get(hotkey).is_some_and(&changes) {
            return None;
        }
        let mut state = self.state.write();
        let (minimum_stake, block) = (state.rules.minimum_stake, state.block.unwrap_or_default());
        let entry = state.entries.get_mut(hotkey).filter(|entry| changes(entry))?;
        let before = entry.clone();
        change(entry);
        (entry.state, entry.reason) =
            if before.is_registered() { standing(entry, minimum_stake) } else { (before.state, before.reason) };
        entry.block = block_of_change(Some(&before), entry, block);
        let change = Change { hotkey: *hotkey, before: Some(before), after: Some(entry.clone()) };
        self.publish(&mut state, &change);
        Some(change)
    }

    /// Numbers a change and tells watchers, while the lock is held, so that they hear of changes in their order.
    fn publish(&self, state: &mut State, change: &Change) {
        state.seq += 1;
        if self.changes.receiver_count() > 0 {
            // An error only says that the last watcher left meanwhile.
            let _ = self.changes.send(Numbered { seq: state.seq, change: Arc::new(change.clone()) });
        }
    }

    /// Follows the registry: everything that is known, and then every change.
    pub fn watch(self: &Arc<Self>) -> Watch {
        Watch::new(Arc::clone(self))
    }

    /// Everything that is known, and a receiver of every later change.
    pub(crate) fn follow(&self) -> (Snapshot, broadcast::Receiver<Numbered>) {
        let state = self.state.read();
        // Nothing is published while this lock is held.
        (state.snapshot(), self.changes.subscribe())
    }

    /// Everything that is known.
    pub fn snapshot(&self) -> Snapshot {
        self.state.read().snapshot()
    }

    /// One entry.
    pub fn get(&self, hotkey: &Hotkey) -> Option<Entry> {
        self.state.read().entries.get(hotkey).cloned()
    }

    /// Who holds a slot now.
    pub fn by_uid(&self, uid: Uid) -> Option<Entry> {
        let state = self.state.read();
        state.uids.get(&uid).and_then(|hotkey| state.entries.get(hotkey)).cloned()
    }

    /// What an owner has, in the order of hotkeys.
    pub fn by_coldkey(&self, coldkey: &Coldkey) -> Vec<Entry> {
        let state = self.state.read();
        let hotkeys = state.coldkeys.get(coldkey).into_iter().flatten();
        hotkeys.filter_map(|hotkey| state.entries.get(hotkey)).cloned().collect()
    }

    /// The entries of one kind in the order of uids, and the block they are true at.
    pub fn list(&self, kind: NodeKind) -> (Option<u64>, Vec<Entry>) {
        let state = self.state.read();
        let mut entries: Vec<Entry> = state.entries.values().filter(|entry| entry.kind == kind).cloned().collect();
        entries.sort_by_key(|entry| (entry.uid, entry.hotkey));
        (state.block, entries)
    }

    /// How many entries there are in which state.
    pub fn status(&self) -> RegistryStatus {
        let state = self.state.read();
        let mut states: BTreeMap<EntryState, usize> = BTreeMap::new();
        for entry in state.entries.values() {
            *states.entry(entry.state).or_default() += 1;
        }
        RegistryStatus { total: state.entries.len(), states }
    }
}

impl State {
    fn snapshot(&self) -> Snapshot {
        Snapshot { seq: self.seq, block: self.block, entries: self.entries.values().cloned().collect() }
    }

    fn index(&mut self, entry: &Entry) {
        // Who left the chain holds its slot no more: it may be another's by now.
        if entry.is_registered() {
            self.uids.insert(entry.uid, entry.hotkey);
        }
        self.coldkeys.entry(entry.coldkey).or_default().insert(entry.hotkey);
    }

    fn unindex(&mut self, entry: &Entry) {
        if self.uids.get(&entry.uid) == Some(&entry.hotkey) {
            self.uids.remove(&entry.uid);
        }
        if let Some(hotkeys) = self.coldkeys.get_mut(&entry.coldkey) {
            hotkeys.remove(&entry.hotkey);
            if hotkeys.is_empty() {
                self.coldkeys.remove(&entry.coldkey);
            }
        }
    }
}

#[cfg(test)]
mod tests;
