//! What a new metagraph changes in the registry, as a pure function.
//!
//! The registry's entries after a metagraph depend on the entries before it, the metagraph and the rules, and on nothing
//! else: no clock, no order of arrival within a block. A validator whose stake fell is out in the very block that says so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use sidecar_util::http::{EntryState, NodeKind};
use sidecar_util::{Axon, Coldkey, Hotkey, Metagraph, Neuron, Tao, Uid};

use crate::handshake::UnixTime;

/// By what a neuron is judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Least total stake of a validator that counts.
    pub minimum_stake: Tao,
    /// Hotkeys that are known to be validators whatever the chain says, such as the members of the group.
    pub declared: BTreeSet<Hotkey>,
}

impl Rules {
    /// Blocks for which a hotkey that left the chain stays visible: one tempo of an ordinary subnet.
    pub const RETENTION_BLOCKS: u64 = 360;
}

/// What is known about one hotkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub hotkey: Hotkey,
    /// Validator or miner. Who once was a validator stays one until it leaves the chain.
    pub kind: NodeKind,
    /// Its slot; the last one, when it left the chain.
    pub uid: Uid,
    /// Who owns it.
    pub coldkey: Coldkey,
    /// Where it stands.
    pub state: EntryState,
    /// Why, in a stable word.
    pub reason: &'static str,
    /// Total stake.
    pub stake: Tao,
    /// Whether the chain gave it a permit.
    pub validator_permit: bool,
    /// Where it says it can be reached.
    pub axon: Option<Axon>,
    /// Block of the last change of `state` or `reason`.
    pub block: u64,
    /// What peers heard of it.
    pub liveness: Liveness,
    /// Whether something answers at its axon; absent while nobody tried. A new address has to be found anew.
    pub reachability: Option<Reachability>,
}

impl Entry {
    /// Whether it holds a slot, and did not leave the chain lately.
    pub fn is_registered(&self) -> bool {
        self.reason != reason::DEREGISTERED
    }

    /// Where it says it can be reached, as an address.
    pub fn address(&self) -> Option<SocketAddr> {
        self.axon.as_ref().map(address)
    }
}

fn address(axon: &Axon) -> SocketAddr {
    SocketAddr::new(axon.ip, axon.port)
}

/// Whether a hotkey gave signs of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Liveness {
    /// Nobody listened yet.
    #[default]
    Unknown,
    /// Heard lately.
    Alive,
    /// Was heard, and then not for longer than it should.
    Silent,
}

/// Whether something answers under a neuron's address. Who it is that answers, only [`Liveness`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reachability {
    /// Whether something took a connection there when it was last tried.
    pub answers: bool,
    /// When that was first found, and the same ever since.
    pub since: UnixTime,
}

/// The difference for one hotkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Who.
    pub hotkey: Hotkey,
    /// The entry before; `None` when it is new.
    pub before: Option<Entry>,
    /// The entry after; `None` when it is removed.
    pub after: Option<Entry>,
}

/// A [`Change`] that others want to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Seen on the chain for the first time.
    Discovered,
    /// Counts now, and did not before.
    Activated,
    /// Counted before, and does not now; why.
    Deactivated(&'static str),
    /// Neither counted before nor counts now, for another reason than before.
    Changed(&'static str),
    /// Forgotten, some time after it left the chain.
    Removed,
}

impl Event {
    /// The event as one word from a closed set, for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::Activated => "activated",
            Self::Deactivated(_) => "deactivated",
            Self::Changed(_) => "changed",
            Self::Removed => "removed",
        }
    }
}

impl Change {
    /// What happened, if it is more than a new amount or address.
    pub fn event(&self) -> Option<Event> {
        let counts = |entry: &Entry| matches!(entry.state, EntryState::Verified | EntryState::Active);
        match (&self.before, &self.after) {
            (None, None) => None,
            (None, Some(_)) => Some(Event::Discovered),
            (Some(_), None) => Some(Event::Removed),
            (Some(before), Some(after)) if (before.state, before.reason) == (after.state, after.reason) => None,
            (Some(before), Some(after)) => Some(match (counts(before), counts(after)) {
                (false, true) => Event::Activated,
                (true, false) => Event::Deactivated(after.reason),
                _ => Event::Changed(after.reason),
            }),
        }
    }
}

/// What a metagraph changes, in the order of hotkeys. Applying it gives the entries that the metagraph demands.
pub fn diff(entries: &BTreeMap<Hotkey, Entry>, metagraph: &Metagraph, rules: &Rules) -> Vec<Change> {
    let neurons: BTreeMap<Hotkey, &Neuron> = metagraph.neurons.iter().map(|neuron| (neuron.hotkey, neuron)).collect();
    let hotkeys: BTreeSet<Hotkey> = entries.keys().chain(neurons.keys()).copied().collect();
    let mut changes = Vec::new();
    for hotkey in hotkeys {
        let before = entries.get(&hotkey);
        let after = match neurons.get(&hotkey) {
            Some(neuron) => Some(present(before, neuron, metagraph.block, rules)),
            None => before.and_then(|before| absent(before, metagraph.block)),
        };
        if before != after.as_ref() {
            changes.push(Change { hotkey, before: before.cloned(), after });
        }
    }
    changes
}

fn present(before: Option<&Entry>, neuron: &Neuron, block: u64, rules: &Rules) -> Entry {
    // Someone who left and came back starts anew.
    let before = before.filter(|before| before.reason != reason::DEREGISTERED);
    let enough_stake = neuron.total_stake >= rules.minimum_stake;
    let was_validator = before.is_some_and(|before| before.kind == NodeKind::Validator);
    // A minimum of nought says nothing about who validates.
    let heavy = enough_stake && neuron.total_stake > Tao::ZERO;
    let is_validator = neuron.validator_permit || heavy || was_validator || rules.declared.contains(&neuron.hotkey);
    let kind = if is_validator { NodeKind::Validator } else { NodeKind::Miner };
    let liveness = before.map(|before| before.liveness).unwrap_or_default();
    let tried = before.filter(|before| before.address() == neuron.axon.as_ref().map(address));
    let mut entry = Entry {
        hotkey: neuron.hotkey,
        kind,
        uid: neuron.uid,
        coldkey: neuron.coldkey,
        state: EntryState::Discovered,
        reason: reason::REGISTERED,
        stake: neuron.total_stake,
        validator_permit: neuron.validator_permit,
        axon: neuron.axon.clone(),
        block,
        liveness,
        reachability: tried.and_then(|before| before.reachability),
    };
    (entry.state, entry.reason) = standing(&entry, rules.minimum_stake);
    entry.block = block_of_change(before, &entry, block);
    entry
}

/// Where a neuron on the chain stands.
pub(crate) fn standing(entry: &Entry, minimum_stake: Tao) -> (EntryState, &'static str) {
    let is_validator = entry.kind == NodeKind::Validator;
    if is_validator && entry.stake < minimum_stake {
        return (EntryState::BelowStake, reason::BELOW_MINIMUM_STAKE);
    }
    if is_validator && !entry.validator_permit {
        return (EntryState::Discovered, reason::NO_VALIDATOR_PERMIT);
    }
    match (entry.liveness, entry.kind) {
        (Liveness::Alive, _) => (EntryState::Active, reason::ALIVE),
        (Liveness::Silent, _) => (EntryState::Inactive, reason::SILENT),
        (Liveness::Unknown, NodeKind::Validator) => (EntryState::Verified, reason::VERIFIED),
        (Liveness::Unknown, NodeKind::Miner) => (EntryState::Discovered, reason::REGISTERED),
    }
}

fn absent(before: &Entry, block: u64) -> Option<Entry> {
    if before.reason != reason::DEREGISTERED {
        let (state, reason) = (EntryState::Inactive, reason::DEREGISTERED);
        return Some(Entry {
            state,
            reason,
            block,
            liveness: Liveness::Unknown,
            reachability: None,
            validator_permit: false,
            axon: None,
            ..before.clone()
        });
    }
    // A chain that started again has smaller numbers than the entry: what it never knew is forgotten at once.
    let age = block.checked_sub(before.block);
    age.is_some_and(|age| age < Rules::RETENTION_BLOCKS).then(|| before.clone())
}

pub(crate) fn block_of_change(before: Option<&Entry>, after: &Entry, block: u64) -> u64 {
    before
        .filter(|before| (before.state, before.reason) == (after.state, after.reason))
        .map_or(block, |before| before.block)
}

/// The words an entry's reason is made of; those about stake are also the reasons of a verification.
pub(crate) mod reason {
    pub(crate) const REGISTERED: &str = "registered";
    pub(crate) const VERIFIED: &str = "verified";
    pub(crate) const ALIVE: &str = "alive";
    pub(crate) const SILENT: &str = "silent";
    pub(crate) const DEREGISTERED: &str = "deregistered";
    pub(crate) const NOT_REGISTERED: &str = "not_registered";
    pub(crate) const BELOW_MINIMUM_STAKE: &str = "below_minimum_stake";
    pub(crate) const NO_VALIDATOR_PERMIT: &str = "no_validator_permit";
}
