//! Properties of the registry under any sequence of metagraphs and signs of life.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sidecar_peer::handshake::UnixTime;
use sidecar_peer::{Entry, Event, Liveness, Registry, Rules, diff, judge};
use sidecar_util::http::{EntryState, NodeKind};
use sidecar_util::{Alpha, Axon, AxonProtocol, BlockHash, Hotkey, Metagraph, NetUid, Neuron, Score, Tao, Uid};

const MINIMUM: Tao = Tao::from_rao(100);

fn hotkey(id: u8) -> Hotkey {
    [id; 32].into()
}

fn neuron(uid: u16, id: u8, stake: u64, validator_permit: bool) -> Neuron {
    Neuron {
        uid: Uid(uid),
        hotkey: hotkey(id),
        coldkey: [0; 32].into(),
        active: true,
        validator_permit,
        total_stake: Tao::from_rao(stake),
        alpha_stake: Alpha::ZERO,
        tao_stake: Tao::ZERO,
        incentive: Score(0),
        consensus: Score(0),
        dividends: Score(0),
        vtrust: Score(0),
        emission: Alpha::ZERO,
        last_update: 0,
        registered_at: 0,
        axon: id.is_multiple_of(2).then(|| Axon {
            ip: [10, 0, 0, id].into(),
            port: 8091,
            protocol: AxonProtocol::Tcp,
            version: 1,
            block: 0,
        }),
    }
}

fn metagraph(block: u64, neurons: &BTreeMap<u8, (u64, bool)>) -> Metagraph {
    let neurons = (0..).zip(neurons).map(|(uid, (id, (stake, permit)))| neuron(uid, *id, *stake, *permit));
    Metagraph {
        netuid: NetUid(1),
        block,
        block_hash: BlockHash::default(),
        tempo: 360,
        last_step: 0,
        blocks_since_last_step: 0,
        neurons: neurons.collect(),
    }
}

fn rules() -> Rules {
    Rules { minimum_stake: MINIMUM, declared: BTreeSet::from([hotkey(0)]) }
}

#[derive(Debug, Clone)]
enum Step {
    Metagraph { blocks: u64, neurons: BTreeMap<u8, (u64, bool)> },
    Heard(u8),
    Silent(u8),
    Reached(u8, bool),
}

fn any_neurons() -> impl Strategy<Value = BTreeMap<u8, (u64, bool)>> {
    prop::collection::btree_map(0..8_u8, (50..150_u64, any::<bool>()), 0..8)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..200_u64, any_neurons()).prop_map(|(blocks, neurons)| Step::Metagraph { blocks, neurons }),
        (0..8_u8).prop_map(Step::Heard),
        (0..8_u8).prop_map(Step::Silent),
        (0..8_u8, any::<bool>()).prop_map(|(id, answered)| Step::Reached(id, answered)),
    ]
}

fn entries(registry: &Registry) -> BTreeMap<Hotkey, Entry> {
    [NodeKind::Validator, NodeKind::Miner]
        .into_iter()
        .flat_map(|kind| registry.list(kind).1)
        .map(|entry| (entry.hotkey, entry))
        .collect()
}

proptest! {
    #[test]
    fn diff_then_apply_reaches_what_the_metagraph_demands(steps in prop::collection::vec(any_step(), 1..30)) {
        let registry = Registry::new();
        let mut block = 0;
        for step in steps {
            match step {
                Step::Heard(id) => {
                    registry.heard_from(&hotkey(id));
                }
                Step::Silent(id) => {
                    registry.silent(&hotkey(id));
                }
                Step::Reached(id, answered) => {
                    let before = registry.get(&hotkey(id));
                    let asked = ([10, 0, 0, id], 8091).into();
                    let change = registry.reached(&hotkey(id), asked, answered, UnixTime::from_secs(block));
                    let after = registry.get(&hotkey(id));
                    prop_assert_eq!(change.is_some(), before != after);
                    if let (Some(before), Some(after)) = (before, after) {
                        // An answer under an address says nothing about stake, permit or life.
                        prop_assert_eq!((before.state, before.reason, before.liveness), (after.state, after.reason, after.liveness));
                        prop_assert_eq!(after.reachability.is_some(), after.axon.is_some());
                        prop_assert!(after.reachability.is_none_or(|found| found.answers == answered));
                    }
                }
                Step::Metagraph { blocks, neurons } => {
                    block += blocks;
                    let metagraph = metagraph(block, &neurons);
                    let before = entries(&registry);
                    let changes = registry.apply(&metagraph, &rules());
                    let after = entries(&registry);

                    prop_assert_eq!(&changes, &diff(&before, &metagraph, &rules()));
                    prop_assert_eq!(diff(&after, &metagraph, &rules()), vec![], "the same metagraph again changes nothing");
                    for neuron in &metagraph.neurons {
                        let entry = &after[&neuron.hotkey];
                        prop_assert_eq!((entry.uid, entry.stake), (neuron.uid, neuron.total_stake));
                        let counts = matches!(entry.state, EntryState::Verified | EntryState::Active);
                        if entry.kind == NodeKind::Validator {
                            let verdict = judge(&neuron.hotkey, &metagraph, MINIMUM);
                            let silent = entry.liveness == Liveness::Silent;
                            prop_assert_eq!(counts, verdict.verified && !silent, "{:?}, {:?}", entry, verdict);
                        }
                    }
                    for entry in after.values().filter(|entry| metagraph.by_hotkey(&entry.hotkey).is_none()) {
                        prop_assert_eq!(entry.state, EntryState::Inactive);
                        prop_assert!(block - entry.block < Rules::RETENTION_BLOCKS);
                    }
                }
            }
            let (status, entries) = (registry.status(), entries(&registry));
            prop_assert_eq!(status.total, entries.len());
            prop_assert_eq!(status.states.values().sum::<usize>(), entries.len());
        }
    }
}

#[test]
fn stake_below_the_minimum_deactivates_in_the_same_block() {
    let registry = Registry::new();
    registry.apply(&metagraph(1, &BTreeMap::from([(1, (100, true))])), &rules());
    assert_eq!(registry.get(&hotkey(1)).unwrap().state, EntryState::Verified);
    registry.heard_from(&hotkey(1));
    assert_eq!(registry.get(&hotkey(1)).unwrap().state, EntryState::Active);

    let changes = registry.apply(&metagraph(2, &BTreeMap::from([(1, (99, true))])), &rules());
    assert_eq!(changes[0].event(), Some(Event::Deactivated("below_minimum_stake")));
    let entry = registry.get(&hotkey(1)).unwrap();
    assert_eq!((entry.state, entry.block, entry.kind), (EntryState::BelowStake, 2, NodeKind::Validator));

    let changes = registry.apply(&metagraph(3, &BTreeMap::from([(1, (100, true))])), &rules());
    assert_eq!(changes[0].event(), Some(Event::Activated));
}

#[test]
fn who_leaves_the_chain_is_inactive_for_a_while_and_then_forgotten() {
    let registry = Registry::new();
    registry.apply(&metagraph(1, &BTreeMap::from([(1, (100, true))])), &rules());
    let gone = registry.apply(&metagraph(2, &BTreeMap::new()), &rules());
    assert_eq!(gone[0].event(), Some(Event::Deactivated("deregistered")));
    assert_eq!(registry.apply(&metagraph(1 + Rules::RETENTION_BLOCKS, &BTreeMap::new()), &rules()), vec![]);
    let removed = registry.apply(&metagraph(2 + Rules::RETENTION_BLOCKS, &BTreeMap::new()), &rules());
    assert_eq!(removed[0].event(), Some(Event::Removed));
    assert_eq!(registry.status().total, 0);
}

#[test]
fn a_silent_validator_is_inactive_until_it_is_heard_again() {
    let registry = Registry::new();
    registry.apply(&metagraph(1, &BTreeMap::from([(1, (100, true))])), &rules());
    registry.heard_from(&hotkey(1));
    let change = registry.silent(&hotkey(1)).unwrap();
    assert_eq!(change.event(), Some(Event::Deactivated("silent")));
    assert_eq!(registry.silent(&hotkey(1)), None);
    registry.apply(&metagraph(2, &BTreeMap::from([(1, (101, true))])), &rules());
    assert_eq!(registry.get(&hotkey(1)).unwrap().state, EntryState::Inactive, "stake is no sign of life");
    assert_eq!(registry.heard_from(&hotkey(1)).unwrap().event(), Some(Event::Activated));
}

#[test]
fn neurons_without_stake_or_permit_are_miners_unless_declared() {
    let registry = Registry::new();
    registry.apply(&metagraph(1, &BTreeMap::from([(0, (50, false)), (1, (50, false))])), &rules());
    let (block, validators) = registry.list(NodeKind::Validator);
    assert_eq!((block, validators.len(), validators[0].hotkey), (Some(1), 1, hotkey(0)));
    assert_eq!(validators[0].state, EntryState::BelowStake);
    let miner = registry.get(&hotkey(1)).unwrap();
    assert_eq!((miner.kind, miner.state), (NodeKind::Miner, EntryState::Discovered));
}

#[test]
fn strangers_are_never_entered() {
    let registry = Registry::new();
    assert_eq!(registry.heard_from(&hotkey(1)), None);
    assert_eq!(registry.status().total, 0);
}

#[test]
fn concurrent_metagraphs_and_signs_of_life_never_lose_an_entry() {
    let registry = Registry::new();
    let neurons: BTreeMap<u8, (u64, bool)> = (0..64).map(|id| (id, (100, true))).collect();
    registry.apply(&metagraph(0, &neurons), &rules());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (1..200).for_each(|block| drop(registry.apply(&metagraph(block, &neurons), &rules()))));
        }
        scope.spawn(|| {
            for id in (0..64).cycle().take(10_000) {
                registry.heard_from(&hotkey(id));
            }
        });
        for _ in 0..200 {
            assert_eq!(registry.status().total, 64);
        }
    });
    assert_eq!(registry.status().states, BTreeMap::from([(EntryState::Active, 64)]));
}
