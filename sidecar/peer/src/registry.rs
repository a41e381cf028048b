//! The registry: every validator and miner of the subnet and where it stands, safe to share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use sidecar_util::http::{EntryState, NodeKind, RegistryStatus};
use sidecar_util::{BlockHash, Coldkey, Hotkey, Metagraph, Uid};
use tokio::sync::watch;

use crate::diff::{Change, Entry, Liveness, Reachability, Rules, block_of_change, diff, standing};
use crate::handshake::UnixTime;
use crate::sync::RwLock;
use crate::watch::{Watch, WatchEvent};

/// Events remembered for watchers that are slower than the chain or come back: an epoch of a full subnet twice over, some
/// 600 bytes each. Who is further behind gets a fresh snapshot, which is shorter by then.
const REMEMBERED: usize = 2048;

/// Entries by hotkey.
///
/// # Guarantees
/// A metagraph is applied as a whole: no reader sees half of it. Events of one hotkey come in the order of what happened,
/// to the caller and to every watcher.
#[derive(Debug)]
pub struct Registry {
    state: RwLock<State>,
    /// Number of the last event, which wakes those who wait for the next one.
    last: watch::Sender<u64>,
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
    block: Option<(u64, BlockHash)>,
    /// Number of the last event.
    seq: u64,
    /// The last events, numbered without a gap up to `seq`.
    remembered: VecDeque<WatchEvent>,
}

/// Everything that is known at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Number of the last event that is in it.
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
        // Numbers grow over a restart as well, so that none ever means two events: by seconds, with room for a million events
        // in each, and yet below 2^53, above which JSON numbers are not exact.
        let seq = UnixTime::now().secs() << 20;
        Self { state: RwLock::new(State { seq, ..State::default() }), last: watch::Sender::new(seq) }
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
            state.remember(|seq| WatchEvent::Entry { seq, change: Arc::new(change.clone()) });
        }
        state.rules.clone_from(rules);
        let (block, block_hash) = (metagraph.block, metagraph.block_hash);
        if state.block.replace((block, block_hash)) != Some((block, block_hash)) {
            state.remember(|seq| WatchEvent::Metagraph { seq, block, block_hash });
        }
        self.last.send_replace(state.seq);
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

    /// Notes whether something answers at the address that was asked, if it is still the one of this hotkey.
    pub fn reached(&self, hotkey: &Hotkey, asked: SocketAddr, answers: bool, now: UnixTime) -> Option<Change> {
        let changes = |entry: &Entry| {
            entry.address() == Some(asked) && entry.reachability.is_none_or(|known| known.answers != answers)
        };
        self.update(hotkey, changes, |entry| entry.reachability = Some(Reachability { answers, since: now }))
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
        let minimum_stake = state.rules.minimum_stake;
        let block = state.block.map(|(block, _)| block).unwrap_or_default();
        let entry = state.entries.get_mut(hotkey).filter(|entry| changes(entry))?;
        let before = entry.clone();
        change(entry);
        (entry.state, entry.reason) =
            if before.is_registered() { standing(entry, minimum_stake) } else { (before.state, before.reason) };
        entry.block = block_of_change(Some(&before), entry, block);
        let change = Change { hotkey: *hotkey, before: Some(before), after: Some(entry.clone()) };
        state.remember(|seq| WatchEvent::Entry { seq, change: Arc::new(change.clone()) });
        self.last.send_replace(state.seq);
        Some(change)
    }

    /// Follows the registry from behind the event with the number `seen`: every later event, or first a snapshot where those
    /// are not all remembered, or nothing was seen.
    pub fn watch(self: &Arc<Self>, seen: Option<u64>) -> Watch {
        Watch::new(Arc::clone(self), self.last.subscribe(), seen)
    }

    /// What comes next for who has seen the event of this number and all before it; `None` when that was the last one.
    pub(crate) fn event_after(&self, seen: Option<u64>) -> Option<WatchEvent> {
        let state = self.state.read();
        match seen.and_then(|seen| usize::try_from(state.seq.checked_sub(seen)?).ok()) {
            Some(0) => None,
            Some(missed) if missed <= state.remembered.len() => {
                Some(state.remembered[state.remembered.len() - missed].clone())
            }
            // Nothing was seen, or what was seen is long ago, or a number that was never given.
            _ => Some(WatchEvent::Snapshot(state.snapshot())),
        }
    }

    /// Number of the last event: while it stays the same, so does everything here.
    pub fn seq(&self) -> u64 {
        self.state.read().seq
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
        (state.block.map(|(block, _)| block), entries)
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
        let block = self.block.map(|(block, _)| block);
        Snapshot { seq: self.seq, block, entries: self.entries.values().cloned().collect() }
    }

    /// Numbers an event. The lock is held, so that watchers hear of everything in its order.
    fn remember(&mut self, event: impl FnOnce(u64) -> WatchEvent) {
        self.seq += 1;
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(event(self.seq));
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
