//! The registry under every interleaving that shuttle finds, and its watchers.

use std::collections::BTreeMap;

use futures::StreamExt;
use sidecar_util::{Alpha, BlockHash, NetUid, Neuron, Score, Tao};

use super::*;
use crate::sync::under_shuttle;
use crate::watch::{WatchEvent, WatchKind};

const SCHEDULES: usize = 300;

fn hotkey(id: u8) -> Hotkey {
    [id; 32].into()
}

fn neuron(uid: u16, id: u8, stake: u64) -> Neuron {
    Neuron {
        uid: Uid(uid),
        hotkey: hotkey(id),
        coldkey: [id % 2; 32].into(),
        active: true,
        validator_permit: true,
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
        axon: Some(sidecar_util::Axon {
            ip: [10, 0, 0, id].into(),
            port: 8091,
            protocol: 4.into(),
            version: 1,
            block: 0,
        }),
    }
}

fn metagraph(block: u64, neurons: &[(u8, u64)]) -> Metagraph {
    let neurons = (0..).zip(neurons).map(|(uid, (id, stake))| neuron(uid, *id, *stake)).collect();
    let (netuid, block_hash) = (NetUid(1), BlockHash::default());
    Metagraph { netuid, block, block_hash, tempo: 360, last_step: 0, blocks_since_last_step: 0, neurons }
}

fn rules() -> Rules {
    Rules { minimum_stake: Tao::from_rao(100), ..Rules::default() }
}

/// What a watcher knows.
#[derive(Debug, Default)]
struct Known {
    entries: BTreeMap<Hotkey, Entry>,
    last: Option<(u64, WatchKind)>,
    synced: bool,
}

impl Known {
    fn take(&mut self, event: WatchEvent) {
        let before = self.last.replace((event.seq, event.kind));
        match (event.kind, event.entry) {
            (WatchKind::Snapshot, Some(entry)) => {
                if before.is_none_or(|(_, kind)| kind != WatchKind::Snapshot) {
                    (self.entries, self.synced) = (BTreeMap::new(), false);
                }
                self.entries.insert(entry.hotkey, entry);
            }
            (WatchKind::Synced, None) => {
                if before.is_some_and(|(_, kind)| kind != WatchKind::Snapshot) {
                    self.entries.clear();
                }
                self.synced = true;
            }
            (kind, Some(entry)) => {
                assert!(self.synced);
                assert_eq!(Some(event.seq), before.map(|(seq, _)| seq + 1), "no change is missed or told twice");
                let known = match kind {
                    WatchKind::Removed => self.entries.remove(&entry.hotkey),
                    _ => self.entries.insert(entry.hotkey, entry),
                };
                assert_eq!(known.is_none(), kind == WatchKind::Added);
            }
            (kind, None) => panic!("{kind:?} without an entry"),
        }
    }
}

/// What must be true at every moment.
fn check(registry: &Registry) {
    let state = registry.state.read();
    for (uid, hotkey) in &state.uids {
        assert_eq!(state.entries[hotkey].uid, *uid);
    }
    let on_chain = state.entries.values().filter(|entry| entry.is_registered());
    assert_eq!(on_chain.count(), state.uids.len());
    let owned: usize = state.coldkeys.values().map(BTreeSet::len).sum();
    assert_eq!(owned, state.entries.len());
    for (coldkey, hotkeys) in &state.coldkeys {
        assert!(hotkeys.iter().all(|hotkey| state.entries[hotkey].coldkey == *coldkey));
    }
    for entry in state.entries.values() {
        let counts = matches!(entry.state, EntryState::Verified | EntryState::Active);
        assert!(!counts || entry.stake >= state.rules.minimum_stake, "{entry:?}");
        assert_eq!(entry.reachability == Reachability::Unknown, entry.reachability_since.is_none());
    }
}

#[test]
fn invariants_hold_under_every_interleaving() {
    under_shuttle(SCHEDULES, || {
        let registry = Arc::new(Registry::new());
        registry.apply(&metagraph(1, &[(1, 100), (2, 100)]), &rules());
        let mut threads = Vec::new();
        let mut spawn = |work: Box<dyn FnOnce(Arc<Registry>) + Send>| {
            let registry = registry.clone();
            threads.push(shuttle::thread::spawn(move || work(registry)));
        };
        spawn(Box::new(|registry| {
            // The stake of one falls, another leaves, a third one takes its slot.
            registry.apply(&metagraph(2, &[(1, 99), (3, 100)]), &rules());
            assert_eq!(registry.get(&hotkey(1)).unwrap().state, EntryState::BelowStake);
            registry.apply(&metagraph(3 + Rules::RETENTION_BLOCKS, &[(3, 100), (1, 100)]), &rules());
        }));
        spawn(Box::new(|registry| {
            for id in 1..=3 {
                registry.heard_from(&hotkey(id));
            }
        }));
        spawn(Box::new(|registry| {
            for id in 1..=3 {
                registry.silent(&hotkey(id));
                registry.reached(&hotkey(id), Reachability::Reachable, UnixTime::from_secs(id.into()));
            }
        }));
        spawn(Box::new(|registry| {
            for _ in 0..3 {
                check(&registry);
                let list = registry.list(NodeKind::Validator);
                assert!(list.0.is_some() && list.1.len() >= 2);
            }
        }));
        let (mut watch, mut known) = (registry.watch(), Known::default());
        for _ in 0..4 {
            while let Some(event) = watch.try_next() {
                known.take(event);
            }
            shuttle::thread::yield_now();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        while let Some(event) = watch.try_next() {
            known.take(event);
        }
        check(&registry);
        let snapshot = registry.snapshot();
        assert_eq!(known.entries.into_values().collect::<Vec<_>>(), snapshot.entries);
        assert_eq!(known.last.map(|(seq, _)| seq), Some(snapshot.seq));
    });
}

#[test]
fn two_who_apply_at_once_leave_the_state_of_one_of_them() {
    under_shuttle(SCHEDULES, || {
        let registry = Arc::new(Registry::new());
        let threads: Vec<_> = [vec![(1, 100), (2, 100)], vec![(2, 99), (1, 100)]]
            .into_iter()
            .map(|neurons| {
                let registry = registry.clone();
                shuttle::thread::spawn(move || registry.apply(&metagraph(1, &neurons), &rules()).len())
            })
            .collect();
        for thread in threads {
            assert!(thread.join().unwrap() > 0);
        }
        check(&registry);
        let poor = registry.get(&hotkey(2)).unwrap();
        assert_eq!(poor.state == EntryState::BelowStake, poor.uid == Uid(0));
    });
}

#[tokio::test]
async fn a_watcher_gets_a_snapshot_and_then_changes() {
    let registry = Arc::new(Registry::new());
    registry.apply(&metagraph(1, &[(1, 100)]), &rules());
    let mut events = registry.watch().into_stream();
    registry.apply(&metagraph(2, &[(1, 99), (2, 100)]), &rules());
    registry.apply(&metagraph(3, &[(1, 99)]), &rules());
    registry.apply(&metagraph(3 + Rules::RETENTION_BLOCKS, &[(1, 99)]), &rules());
    let mut told = Vec::new();
    for _ in 0..6 {
        let WatchEvent { seq, kind, entry } = events.next().await.unwrap();
        told.push((seq, kind.name(), entry.map(|entry| entry.uid.0)));
    }
    assert_eq!(
        told,
        [
            (1, "snapshot", Some(0)),
            (1, "synced", None),
            (2, "changed", Some(0)),
            (3, "added", Some(1)),
            (4, "changed", Some(1)),
            (5, "removed", Some(1)),
        ]
    );
}

#[test]
fn a_watcher_that_lags_gets_a_fresh_snapshot() {
    let registry = Arc::new(Registry::new());
    registry.apply(&metagraph(1, &[(1, 100), (2, 100)]), &rules());
    let (mut watch, mut known) = (registry.watch(), Known::default());
    while let Some(event) = watch.try_next() {
        known.take(event);
    }
    for block in 2..BEHIND_MAX as u64 + 100 {
        registry.apply(&metagraph(block, &[(1, 100 + block % 2)]), &rules());
    }
    let mut events = 0;
    while let Some(event) = watch.try_next() {
        known.take(event);
        events += 1;
    }
    assert!(events < 5, "a snapshot, not {events} changes");
    assert_eq!(known.entries.into_values().collect::<Vec<_>>(), registry.snapshot().entries);
    // Also when nothing is left to be told of.
    for block in 0..BEHIND_MAX as u64 + 100 {
        registry.apply(&metagraph(10_000 + block * Rules::RETENTION_BLOCKS, &[(1, 100 + block % 2)]), &rules());
    }
    registry.apply(&metagraph(1 << 40, &[]), &rules());
    registry.apply(&metagraph(1 << 41, &[]), &rules());
    let mut known = Known::default();
    while let Some(event) = watch.try_next() {
        known.take(event);
    }
    assert!(known.synced && known.entries.is_empty());
}

#[test]
fn a_slot_that_changes_hands_belongs_to_its_new_holder() {
    let registry = Registry::new();
    registry.apply(&metagraph(1, &[(1, 100), (2, 100)]), &rules());
    registry.apply(&metagraph(2, &[(3, 100), (2, 100)]), &rules());
    assert_eq!(registry.by_uid(Uid(0)).unwrap().hotkey, hotkey(3));
    assert_eq!(registry.get(&hotkey(1)).unwrap().reason, "deregistered");
    let owned: Vec<Hotkey> = registry.by_coldkey(&[1; 32].into()).iter().map(|entry| entry.hotkey).collect();
    assert_eq!(owned, [hotkey(1), hotkey(3)]);
    assert_eq!(registry.by_uid(Uid(9)), None);
    // Two swap their slots.
    registry.apply(&metagraph(3, &[(2, 100), (3, 100)]), &rules());
    assert_eq!(registry.by_uid(Uid(0)).unwrap().hotkey, hotkey(2));
    assert_eq!(registry.by_uid(Uid(1)).unwrap().hotkey, hotkey(3));
    check(&registry);
}

#[test]
fn reachability_is_of_an_address_and_says_nothing_about_stake_or_life() {
    let registry = Registry::new();
    let at = UnixTime::from_secs(7);
    assert_eq!(registry.reached(&hotkey(1), Reachability::Reachable, at), None);
    registry.apply(&metagraph(1, &[(1, 100)]), &rules());
    let change = registry.reached(&hotkey(1), Reachability::Reachable, at).unwrap();
    assert_eq!(change.event(), None);
    let entry = registry.get(&hotkey(1)).unwrap();
    assert_eq!((entry.reachability, entry.reachability_since), (Reachability::Reachable, Some(at)));
    assert_eq!((entry.state, entry.liveness), (EntryState::Verified, Liveness::Unknown));
    assert_eq!(registry.reached(&hotkey(1), Reachability::Reachable, UnixTime::from_secs(9)), None);
    registry.apply(&metagraph(2, &[(1, 101)]), &rules());
    assert_eq!(registry.get(&hotkey(1)).unwrap().reachability_since, Some(at), "stake moves no address");
    let mut moved = metagraph(3, &[(1, 101)]);
    moved.neurons[0].axon.as_mut().unwrap().port += 1;
    registry.apply(&moved, &rules());
    let entry = registry.get(&hotkey(1)).unwrap();
    assert_eq!((entry.reachability, entry.reachability_since), (Reachability::Unknown, None));
}
