//! The registry: every validator and miner of the subnet and where it stands, safe to share.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use sidecar_util::http::{NodeKind, RegistryStatus};
use sidecar_util::{Hotkey, Metagraph};

use crate::diff::{Change, Entry, Liveness, Rules, block_of_change, diff, reason, standing};

/// Entries by hotkey.
///
/// # Guarantees
/// A metagraph is applied as a whole: no reader sees half of it. Events of one hotkey come in the order of what happened.
#[derive(Debug, Default)]
pub struct Registry {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Hotkey, Entry>,
    /// Rules of the last metagraph, by which a sign of life is judged too.
    rules: Rules,
    /// Block of the last metagraph.
    block: Option<u64>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a metagraph and returns what it changed.
    pub fn apply(&self, metagraph: &Metagraph, rules: &Rules) -> Vec<Change> {
        let mut state = self.state.write();
        let changes = diff(&state.entries, metagraph, rules);
        for change in &changes {
            match &change.after {
                Some(entry) => state.entries.insert(change.hotkey, entry.clone()),
                None => state.entries.remove(&change.hotkey),
            };
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
            entry.liveness != liveness && entry.reason != reason::DEREGISTERED && !never_heard
        };
        // Most signs of life change nothing, and then no reader has to wait.
        if !self.state.read().entries.get(hotkey).is_some_and(changes) {
            return None;
        }
        let mut state = self.state.write();
        let (minimum_stake, block) = (state.rules.minimum_stake, state.block.unwrap_or_default());
        let entry = state.entries.get_mut(hotkey).filter(|entry| changes(entry))?;
        let before = entry.clone();
        entry.liveness = liveness;
        (entry.state, entry.reason) = standing(entry, minimum_stake);
        entry.block = block_of_change(Some(&before), entry, block);
        Some(Change { hotkey: *hotkey, before: Some(before), after: Some(entry.clone()) })
    }

    /// One entry.
    pub fn get(&self, hotkey: &Hotkey) -> Option<Entry> {
        self.state.read().entries.get(hotkey).cloned()
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
        let mut states = BTreeMap::new();
        for entry in state.entries.values() {
            *states.entry(entry.state).or_default() += 1;
        }
        RegistryStatus { total: state.entries.len(), states }
    }
}
