//! Properties of the store: replicas agree whatever the log holds, and bands keep their promises whatever the stakes do.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use sidecar_store::weights::{BANDS, Class, Observation, next};
use sidecar_store::{Command, MemberRecord, Reply, State, Weight, WeightTable};
use sidecar_util::config::Tier;
use sidecar_util::{Hotkey, Tao};

fn hotkeys() -> impl Strategy<Value = Hotkey> {
    (0..6_u8).prop_map(|seed| Hotkey::from([seed; 32]))
}

fn tiers() -> impl Strategy<Value = Vec<Tier>> {
    vec((0..4_u8, 0..u64::MAX / 2, 0..50_u32), 0..4).prop_map(|tiers| {
        let tier = |(name, minimum, weight)| Tier {
            name: format!("tier-{name}"),
            minimum_stake: Tao::from_rao(minimum),
            weight,
        };
        tiers.into_iter().map(tier).collect()
    })
}

/// Stakes over all magnitudes: a uniform u64 is almost never below 2^56.
fn stakes() -> impl Strategy<Value = Tao> {
    (0..64_u32, any::<u64>()).prop_map(|(shift, rao)| Tao::from_rao(rao >> shift))
}

fn tables() -> impl Strategy<Value = WeightTable> {
    let weight = (stakes(), 0..BANDS + 2).prop_map(|(stake, band)| Weight {
        stake,
        tier: None,
        class: Class { tier_weight: 0, stake_log2: 0 },
        band,
        drift: None,
    });
    (any::<u64>(), any::<u64>(), btree_map(hotkeys(), weight, 0..6)).prop_map(|(epoch, block, entries)| WeightTable {
        epoch,
        block,
        entries,
    })
}

fn commands() -> impl Strategy<Value = Command> {
    let key = || vec(0..4_u8, 0..3);
    prop_oneof![
        4 => (key(), vec(any::<u8>(), 0..20)).prop_map(|(key, value)| Command::Put { key, value }),
        2 => key().prop_map(|key| Command::Delete { key }),
        2 => (hotkeys(), 0..8_u64).prop_map(|(hotkey, node_id)| {
            Command::RecordMember(MemberRecord { hotkey, node_id, address: "a:1".into() })
        }),
        1 => tables().prop_map(Command::ReplaceWeights),
    ]
}

/// Commands at growing log indices, with gaps as blank entries and membership changes leave them.
fn logs() -> impl Strategy<Value = Vec<(u64, Command)>> {
    vec((1..4_u64, commands()), 0..60).prop_map(|steps| {
        let mut index = 0;
        let place = |(gap, command)| {
            index += gap;
            (index, command)
        };
        steps.into_iter().map(place).collect()
    })
}

fn replay(mut state: State, log: &[(u64, Command)]) -> (State, Vec<Reply>) {
    let replies = log.iter().map(|(index, command)| state.apply(*index, command)).collect();
    (state, replies)
}

proptest! {
    #[test]
    fn replicas_of_one_log_agree_on_state_hash_and_replies(log in logs()) {
        let (one, replies_of_one) = replay(State::default(), &log);
        let (other, replies_of_other) = replay(State::default(), &log);
        prop_assert_eq!(one.hash(), other.hash());
        prop_assert_eq!(replies_of_one, replies_of_other);
    }

    #[test]
    fn a_snapshot_and_the_rest_of_the_log_reach_the_state_of_the_whole_log(log in logs(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(log.len() + 1);
        let (whole, replies) = replay(State::default(), &log);
        let (half, _) = replay(State::default(), &log[..cut]);
        let restored = State::decode(&half.encode()).unwrap();
        let (joined, rest) = replay(restored, &log[cut..]);
        prop_assert_eq!(&joined, &whole);
        prop_assert_eq!(joined.hash(), whole.hash());
        prop_assert_eq!(&rest[..], &replies[cut..]);
    }

    #[test]
    fn a_refused_command_changes_nothing(log in logs(), last in commands()) {
        let (state, _) = replay(State::default(), &log);
        let mut after = state.clone();
        let index = log.last().map_or(1, |(index, _)| index + 1);
        if let Reply::Refused(_) = after.apply(index, &last) {
            prop_assert_eq!(after, state);
        }
    }

    #[test]
    fn different_values_have_different_hashes(value in vec(any::<u8>(), 0..20), other in vec(any::<u8>(), 0..20)) {
        let with = |value: &[u8]| {
            let mut state = State::default();
            state.apply(1, &Command::Put { key: b"k".to_vec(), value: value.to_vec() });
            state.hash()
        };
        prop_assert_eq!(with(&value) == with(&other), value == other);
    }

    #[test]
    fn no_bytes_make_the_snapshot_reader_panic(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(State::decode(&bytes).is_err());
        let mut disguised = b"MYCS\x00\x01".to_vec();
        disguised.extend(bytes);
        prop_assert!(State::decode(&disguised).is_err());
    }

    #[test]
    fn bands_number_the_classes_in_their_order(stakes in btree_map(hotkeys(), stakes(), 0..6), tiers in tiers()) {
        let table = next(None, &Observation { epoch: 1, block: 1, tiers, stakes }).unwrap();
        let weights: Vec<&Weight> = table.entries.values().collect();
        for one in &weights {
            prop_assert!(one.band < BANDS);
            for other in &weights {
                prop_assert!(one.class < other.class || one.band >= other.band);
                prop_assert!(one.class != other.class || one.band == other.band);
            }
        }
        let order = table.campaign_order();
        prop_assert!(order.windows(2).all(|pair| pair[0].1.band >= pair[1].1.band));
    }

    #[test]
    fn more_classes_than_bands_keep_the_heaviest_apart(count in 9..40_u8) {
        let stakes: BTreeMap<_, _> =
            (0..count).map(|bit| (Hotkey::from([bit; 32]), Tao::from_rao(1 << bit))).collect();
        let table = next(None, &Observation { epoch: 1, block: 1, tiers: Vec::new(), stakes }).unwrap();
        let bands: Vec<u32> = table.campaign_order().iter().map(|(_, weight)| weight.band).collect();
        prop_assert_eq!(&bands[..8], &[7, 6, 5, 4, 3, 2, 1, 0]);
        prop_assert!(bands[8..].iter().all(|band| *band == 0));
    }

    /// However a stake moves within 10 % of where its class was taken, the class stays.
    #[test]
    fn a_stake_within_the_margin_never_changes_class(start in 1_000_000_u64..1 << 60, moves in vec(-100..=100_i64, 1..30)) {
        let hotkey = Hotkey::from([1; 32]);
        let observe = |epoch, rao| Observation {
            epoch,
            block: epoch * 100,
            tiers: Vec::new(),
            stakes: BTreeMap::from([(hotkey, Tao::from_rao(rao))]),
        };
        let mut table = next(None, &observe(0, start)).unwrap();
        let class = table.entries[&hotkey].class;
        for (epoch, share) in (1..).zip(moves) {
            // Up to 9 % up and down: inside the margin whichever side of a border the start lies on.
            let moved = i128::from(start) + i128::from(start) * i128::from(share) * 9 / 10_000;
            table = next(Some(&table), &observe(epoch, u64::try_from(moved).unwrap())).unwrap();
            prop_assert_eq!(table.entries[&hotkey].class, class);
        }
    }

    /// Classes move at most once in three epochs, and only towards the stake.
    #[test]
    fn a_class_dwells_at_least_three_epochs(series in vec(stakes(), 1..40)) {
        let hotkey = Hotkey::from([1; 32]);
        let mut table: Option<WeightTable> = None;
        let mut last_move = 0;
        for (epoch, stake) in (0_u64..).zip(series) {
            let observation = Observation {
                epoch,
                block: epoch * 100,
                tiers: Vec::new(),
                stakes: BTreeMap::from([(hotkey, stake)]),
            };
            let after = next(table.as_ref(), &observation).unwrap();
            let class = after.entries[&hotkey].class;
            if let Some(before) = table.map(|table| table.entries[&hotkey].class).filter(|before| *before != class) {
                prop_assert!(epoch - last_move >= 3);
                let nearest = stake.rao.checked_ilog2().unwrap_or(0);
                prop_assert!((class > before) == (nearest >= u32::from(class.stake_log2)) || u32::from(class.stake_log2) == nearest);
                last_move = epoch;
            }
            table = Some(after);
        }
    }
}
