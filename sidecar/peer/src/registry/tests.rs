//! The registry under every interleaving that shuttle finds, and its watchers.

use std::collections::BTreeMap;

use sidecar_util::{Alpha, BlockHash, NetUid, Neuron, Score, Tao};

use super::*;
use crate::sync::under_shuttle;

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

/// Where [`neuron`] can be reached.
fn axon(id: u8) -> SocketAddr {
    ([10, 0, 0, id], 8091).into()
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
    seq: Option<u64>,
    snapshots: usize,
}

impl Known {
    fn take(&mut self, event: WatchEvent) {
        let before = self.seq.replace(event.seq());
        match event {
            WatchEvent::Snapshot(snapshot) => {
                self.entries = snapshot.entries.into_iter().map(|entry| (entry.hotkey, entry)).collect();
                self.snapshots += 1;
                return;
            }
            WatchEvent::Metagraph { .. } => {}
            WatchEvent::Entry { change, .. } => {
                let known = match &change.after {
                    Some(after) => self.entries.insert(change.hotkey, after.clone()),
                    None => self.entries.remove(&change.hotkey),
                };
                assert_eq!(known, change.before);
            }
        }
        assert_eq!(self.seq, before.map(|seq| seq + 1), "no event is missed or told twice");
    }

    /// Takes everything that is there.
    fn follow(&mut self, watch: &mut Watch) {
        while let Some(event) = watch.try_next() {
            self.take(event);
        }
    }

    fn is_all_of(&self, registry: &Registry) -> bool {
        let snapshot = registry.snapshot();
        self.entries.values().eq(&snapshot.entries) && self.seq == Some(snapshot.seq)
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
        assert!(entry.reachability.is_none() || entry.is_registered());
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
                registry.reached(&hotkey(id), axon(id), true, UnixTime::from_secs(id.into()));
            }
        }));
        spawn(Box::new(|registry| {
            for _ in 0..3 {
                check(&registry);
                let list = registry.list(NodeKind::Validator);
                assert!(list.0.is_some() && list.1.len() >= 2);
            }
        }));
        let (mut watch, mut known) = (registry.watch(None), Known::default());
        for round in 0..4 {
            known.follow(&mut watch);
            if round == 2 {
                // It goes, and comes back with the number of what it saw last.
                watch = registry.watch(known.seq);
            }
            shuttle::thread::yield_now();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        known.follow(&mut watch);
        check(&registry);
        assert!(known.is_all_of(&registry));
        assert_eq!(known.snapshots, 1, "all the rest came as changes");
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
    let (mut watch, start) = (registry.watch(None), registry.seq());
    let following = tokio::spawn(async move {
        let mut told = Vec::new();
        for _ in 0..8 {
            let event = watch.next().await;
            let number = event.seq() - start;
            told.push(match event {
                WatchEvent::Snapshot(snapshot) => (number, "snapshot", snapshot.entries.len() as u64),
                WatchEvent::Metagraph { block, .. } => (number, "metagraph", block),
                WatchEvent::Entry { change, .. } => {
                    let what = match (&change.before, &change.after) {
                        (None, _) => "added",
                        (_, None) => "removed",
                        _ => "changed",
                    };
                    (number, what, change.before.as_ref().or(change.after.as_ref()).unwrap().uid.0.into())
                }
            });
        }
        told
    });
    // It waits for the first change by then.
    tokio::task::yield_now().await;
    let forgotten = 3 + Rules::RETENTION_BLOCKS;
    registry.apply(&metagraph(2, &[(1, 99), (2, 100)]), &rules());
    registry.apply(&metagraph(3, &[(1, 99)]), &rules());
    registry.apply(&metagraph(forgotten, &[(1, 99)]), &rules());
    assert_eq!(
        following.await.unwrap(),
        [
            (0, "snapshot", 1),
            (1, "changed", 0),
            (2, "added", 1),
            (3, "metagraph", 2),
            (4, "changed", 1),
            (5, "metagraph", 3),
            (6, "removed", 1),
            (7, "metagraph", forgotten),
        ]
    );
    let seq = registry.seq();
    registry.apply(&metagraph(forgotten, &[(1, 99)]), &rules());
    assert_eq!(registry.seq(), seq, "the same metagraph again is no event");
}

#[test]
fn a_watcher_that_lags_gets_a_fresh_snapshot() {
    let registry = Arc::new(Registry::new());
    registry.apply(&metagraph(1, &[(1, 100), (2, 100)]), &rules());
    let (mut watch, mut known) = (registry.watch(None), Known::default());
    known.follow(&mut watch);
    // Two events a block: as many as are remembered are told of.
    for block in 0..REMEMBERED as u64 / 2 {
        registry.apply(&metagraph(2 + block, &[(1, 101 + block % 2), (2, 100)]), &rules());
    }
    known.follow(&mut watch);
    assert!(known.is_all_of(&registry) && known.snapshots == 1);
    for block in 0..=REMEMBERED as u64 {
        registry.apply(&metagraph(10_000 + block, &[(1, 101 + block % 2), (2, 100)]), &rules());
    }
    known.follow(&mut watch);
    assert!(known.is_all_of(&registry) && known.snapshots == 2);
    assert_eq!(registry.state.read().remembered.len(), REMEMBERED);
    // Also when nothing is left to be told of.
    for block in 0..=REMEMBERED as u64 {
        registry.apply(&metagraph((1 << 40) + block * Rules::RETENTION_BLOCKS, &[]), &rules());
    }
    known.follow(&mut watch);
    assert!(known.is_all_of(&registry) && known.snapshots == 3 && known.entries.is_empty());
}

#[test]
fn who_comes_back_with_a_number_gets_what_it_missed_and_with_a_wrong_one_everything() {
    let registry = Arc::new(Registry::new());
    let start = registry.seq();
    registry.apply(&metagraph(1, &[(1, 100), (2, 100)]), &rules());
    let snapshot = registry.snapshot();
    registry.apply(&metagraph(2, &[(1, 99), (2, 100)]), &rules());
    let mut watch = registry.watch(Some(snapshot.seq));
    let missed: Vec<u64> = std::iter::from_fn(|| watch.try_next()).map(|event| event.seq()).collect();
    assert_eq!(missed, [snapshot.seq + 1, snapshot.seq + 2]);
    assert_eq!(registry.watch(Some(registry.seq())).try_next(), None, "nothing was missed");
    assert!(matches!(registry.watch(Some(start)).try_next(), Some(WatchEvent::Entry { .. })));
    for seen in [0, start - 1, registry.seq() + 1, u64::MAX] {
        assert!(matches!(registry.watch(Some(seen)).try_next(), Some(WatchEvent::Snapshot(_))), "{seen}");
    }
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
    let reached = |answers, secs| registry.reached(&hotkey(1), axon(1), answers, UnixTime::from_secs(secs));
    assert_eq!(reached(true, 7), None, "strangers are not noted");
    registry.apply(&metagraph(1, &[(1, 100)]), &rules());
    assert_eq!(registry.get(&hotkey(1)).unwrap().reachability, None, "nobody tried yet");
    assert_eq!(reached(true, 7).unwrap().event(), None);
    let entry = registry.get(&hotkey(1)).unwrap();
    assert_eq!(entry.reachability, Some(Reachability { answers: true, since: at }));
    assert_eq!((entry.state, entry.liveness), (EntryState::Verified, Liveness::Unknown));
    assert_eq!(reached(true, 9), None);
    registry.apply(&metagraph(2, &[(1, 101)]), &rules());
    let known = registry.get(&hotkey(1)).unwrap().reachability.unwrap();
    assert_eq!(known.since, at, "neither time nor stake moves an address");
    reached(false, 11).unwrap();
    let known = registry.get(&hotkey(1)).unwrap().reachability;
    assert_eq!(known, Some(Reachability { answers: false, since: UnixTime::from_secs(11) }));
    let mut moved = metagraph(3, &[(1, 101)]);
    moved.neurons[0].axon.as_mut().unwrap().port += 1;
    registry.apply(&moved, &rules());
    assert_eq!(registry.get(&hotkey(1)).unwrap().reachability, None);
    assert_eq!(reached(true, 12), None, "what was found at the address before says nothing of this one");
}
