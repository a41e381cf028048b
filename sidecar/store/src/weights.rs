//! From stakes to the order in which voters campaign.
//!
//! A validator's class is its tier, then the power of two that its stake reaches; classes are numbered as bands. Elections
//! and hand-overs act on bands, so a band must not flap: it moves only when the stake stood at least 10 % beyond a border
//! for [`EPOCHS_TO_MOVE`] tables in a row, and there is one table an epoch, which makes the least stay one tempo. A validator
//! that is new, or whose tier is no longer configured, takes its class at once.
//!
//! Bands are numbered by the classes present instead of by fixed borders: eight powers of two from any fixed start are too
//! narrow for stakes from 10 to 10,000,000. A whale that moves shifts numbers but never the order of the others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sidecar_util::config::Tier;
use sidecar_util::{Hotkey, Tao};

/// How many bands there are; the heaviest is `BANDS - 1` at most.
pub const BANDS: u32 = 8;
/// How many tables in a row a stake must stand beyond a border before its class moves.
pub const EPOCHS_TO_MOVE: u32 = 3;
/// A border is crossed when the stake is beyond it by one part in so many.
const MARGIN: u64 = 10;
/// A table older than the replicated one by this many epochs means that the chain began anew.
const EPOCHS_UNTIL_RESET: u64 = 2;

/// The weights of one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightTable {
    /// Epoch of the chain in which it was made: block over tempo.
    pub epoch: u64,
    /// Block of the metagraph it was made from.
    pub block: u64,
    /// Every member of the group that the leader knew.
    pub entries: BTreeMap<Hotkey, Weight>,
}

/// One validator's weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// Total stake at the table's block.
    pub stake: Tao,
    /// Name of the tier of its class.
    pub tier: Option<String>,
    /// What the band was numbered from.
    pub class: Class,
    /// Band that elections rank by; larger campaigns first.
    pub band: u32,
    /// How long the stake has been calling for another class.
    pub drift: Option<Drift>,
}

/// A class of validators that weigh the same; tiers come before stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Class {
    /// Weight of the tier, 0 without one.
    pub tier_weight: u32,
    /// Largest power of two that the stake in rao reaches, 0 for no stake.
    pub stake_log2: u8,
}

/// In which direction a stake has stood beyond the border of its class, and for how many tables in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Towards a heavier class.
    pub up: bool,
    /// Tables in a row.
    pub epochs: u32,
}

/// What the leader saw on the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Epoch of the block: block over tempo.
    pub epoch: u64,
    /// Block of the metagraph.
    pub block: u64,
    /// Tiers of the Network, in any order.
    pub tiers: Vec<Tier>,
    /// Total stake of every member of the group.
    pub stakes: BTreeMap<Hotkey, Tao>,
}

impl WeightTable {
    /// Everybody, heaviest first: band, then stake, then hotkey. Equal on all members that hold the same table.
    pub fn campaign_order(&self) -> Vec<(&Hotkey, &Weight)> {
        let mut order: Vec<_> = self.entries.iter().collect();
        order.sort_by_key(|(hotkey, weight)| (Reverse(weight.band), Reverse(weight.stake), **hotkey));
        order
    }
}

/// The table that follows `previous`, or `None` where nothing needs to be agreed on: the same epoch and the same members,
/// or an observation older than the table.
pub fn next(previous: Option<&WeightTable>, observation: &Observation) -> Option<WeightTable> {
    let previous = previous.filter(|table| observation.epoch.saturating_add(EPOCHS_UNTIL_RESET) >= table.epoch);
    if let Some(table) = previous {
        let same_members = table.entries.keys().eq(observation.stakes.keys());
        if observation.block < table.block || (observation.epoch <= table.epoch && same_members) {
            return None;
        }
    }
    let new_epoch = previous.is_none_or(|table| observation.epoch > table.epoch);
    let mut entries: BTreeMap<Hotkey, Weight> = observation
        .stakes
        .iter()
        .map(|(hotkey, stake)| {
            let before = previous.and_then(|table| table.entries.get(hotkey));
            (*hotkey, weigh(before, *stake, &observation.tiers, new_epoch))
        })
        .collect();
    number_bands(&mut entries);
    Some(WeightTable { epoch: observation.epoch, block: observation.block, entries })
}

/// One validator's next weight; its band is numbered afterwards.
fn weigh(before: Option<&Weight>, stake: Tao, tiers: &[Tier], new_epoch: bool) -> Weight {
    let fresh = || with_class(stake, classify(stake, tiers), None);
    let Some(before) = before.filter(|before| is_configured(before, tiers)) else {
        return fresh();
    };
    let same = (before.class, before.tier.clone());
    if !new_epoch {
        return with_class(stake, same, before.drift);
    }
    let Some((target, up)) = target_class(before.class, stake, tiers) else {
        return with_class(stake, same, None);
    };
    let epochs = 1 + before.drift.filter(|drift| drift.up == up).map_or(0, |drift| drift.epochs);
    if epochs >= EPOCHS_TO_MOVE {
        with_class(stake, target, None)
    } else {
        with_class(stake, same, Some(Drift { up, epochs }))
    }
}

fn with_class(stake: Tao, (class, tier): (Class, Option<String>), drift: Option<Drift>) -> Weight {
    Weight { stake, tier, class, band: 0, drift }
}

/// Whether the tier of a weight still exists with the same weight.
fn is_configured(weight: &Weight, tiers: &[Tier]) -> bool {
    match &weight.tier {
        None => true,
        Some(name) => tiers.iter().any(|tier| tier.name == *name && tier.weight == weight.class.tier_weight),
    }
}

/// Where a stake belongs that stands beyond a border of `class` by the margin, and whether that is upwards.
fn target_class(class: Class, stake: Tao, tiers: &[Tier]) -> Option<((Class, Option<String>), bool)> {
    let reduced = classify(Tao::from_rao(stake.rao - stake.rao / (MARGIN + 1)), tiers);
    if reduced.0 > class {
        return Some((reduced, true));
    }
    let raised = classify(Tao::from_rao(stake.rao.saturating_add(stake.rao / MARGIN)), tiers);
    (raised.0 < class).then_some((raised, false))
}

/// The class of a stake without regard to history: the heaviest tier it reaches and its power of two.
fn classify(stake: Tao, tiers: &[Tier]) -> (Class, Option<String>) {
    let tier = tiers
        .iter()
        .filter(|tier| stake >= tier.minimum_stake)
        .max_by_key(|tier| (tier.weight, tier.minimum_stake, Reverse(&tier.name)));
    let class = Class {
        tier_weight: tier.map_or(0, |tier| tier.weight),
        stake_log2: stake.rao.checked_ilog2().map_or(0, |log| u8::try_from(log).expect("a u64 has 64 bits")),
    };
    (class, tier.map(|tier| tier.name.clone()))
}

/// Numbers the classes present from the lightest, 0. Of more than [`BANDS`], the lightest share band 0.
fn number_bands(entries: &mut BTreeMap<Hotkey, Weight>) {
    let classes: BTreeSet<Class> = entries.values().map(|weight| weight.class).collect();
    let top = u32::try_from(classes.len()).map_or(BANDS, |count| count.min(BANDS)).saturating_sub(1);
    let bands: BTreeMap<Class, u32> =
        classes.into_iter().rev().zip((0..=top).rev().chain(std::iter::repeat(0))).collect();
    for weight in entries.values_mut() {
        weight.band = bands[&weight.class];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hotkey(seed: u8) -> Hotkey {
        Hotkey::from([seed; 32])
    }

    fn tao(whole: u64) -> Tao {
        Tao::from_rao(whole * sidecar_util::RAO_PER_TAO)
    }

    fn tier(name: &str, minimum: u64, weight: u32) -> Tier {
        Tier { name: name.into(), minimum_stake: tao(minimum), weight }
    }

    fn observe(epoch: u64, tiers: &[Tier], stakes: &[(u8, Tao)]) -> Observation {
        let stakes = stakes.iter().map(|(seed, stake)| (hotkey(*seed), *stake)).collect();
        Observation { epoch, block: epoch * 360, tiers: tiers.to_vec(), stakes }
    }

    fn order(table: &WeightTable) -> Vec<u8> {
        table.campaign_order().iter().map(|(hotkey, _)| hotkey.as_bytes()[0]).collect()
    }

    #[test]
    fn tiers_come_before_stake_and_stake_before_hotkeys() {
        let tiers = [tier("gold", 5_000, 100), tier("silver", 1_000, 10)];
        let stakes = [(1, tao(1_500)), (2, tao(900)), (3, tao(5_000)), (4, tao(1_600)), (5, tao(4_999))];
        let table = next(None, &observe(1, &tiers, &stakes)).unwrap();
        assert_eq!(order(&table), [3, 5, 4, 1, 2]);
        let bands: Vec<u32> = table.campaign_order().iter().map(|(_, weight)| weight.band).collect();
        assert_eq!(bands, [3, 2, 1, 1, 0], "1500 and 1600 share a power of two");
        assert_eq!(table.entries[&hotkey(3)].tier.as_deref(), Some("gold"));
        assert_eq!(table.entries[&hotkey(2)].tier, None);
    }

    #[test]
    fn a_border_must_be_passed_by_the_margin_for_three_epochs() {
        let border = Tao::from_rao(1 << 40);
        let below = Tao::from_rao((1 << 40) - 1);
        let beyond = Tao::from_rao((1 << 40) + (1 << 40) / 10 + 1);
        let mut table = next(None, &observe(1, &[], &[(1, below)])).unwrap();
        let mut step = |epoch, stake| {
            table = next(Some(&table), &observe(epoch, &[], &[(1, stake)])).unwrap();
            table.entries[&hotkey(1)].class.stake_log2
        };
        assert_eq!([step(2, border), step(3, border), step(4, border), step(5, border)], [39; 4], "no margin");
        assert_eq!([step(6, beyond), step(7, beyond), step(8, border)], [39; 3], "interrupted");
        assert_eq!([step(9, beyond), step(10, beyond), step(11, beyond)], [39, 39, 40]);
        assert_eq!([step(12, below), step(13, below), step(14, below)], [40; 3], "one rao below is no way back");
        let half = Tao::from_rao(1 << 39);
        assert_eq!([step(15, half), step(16, half), step(17, half)], [40, 40, 39]);
    }

    #[test]
    fn a_new_member_is_weighed_at_once_and_moves_nobody_else_on() {
        let doubled = Tao::from_rao(1 << 42);
        let first = next(None, &observe(1, &[], &[(1, Tao::from_rao(1 << 40))])).unwrap();
        let second = next(Some(&first), &observe(2, &[], &[(1, doubled)])).unwrap();
        assert_eq!(second.entries[&hotkey(1)].drift, Some(Drift { up: true, epochs: 1 }));
        let mut again = observe(2, &[], &[(1, doubled)]);
        again.block += 1;
        assert_eq!(next(Some(&second), &again), None, "the same epoch and members need no table");
        let mut joined = observe(2, &[], &[(1, doubled), (2, tao(7))]);
        joined.block += 1;
        let third = next(Some(&second), &joined).unwrap();
        assert_eq!(third.entries[&hotkey(1)].drift, Some(Drift { up: true, epochs: 1 }), "an epoch counts once");
        assert_eq!(third.entries.len(), 2);
    }

    #[test]
    fn a_tier_that_is_no_longer_configured_is_left_at_once() {
        let gold = [tier("gold", 1_000, 100)];
        let first = next(None, &observe(1, &gold, &[(1, tao(2_000))])).unwrap();
        let second = next(Some(&first), &observe(2, &[], &[(1, tao(2_000))])).unwrap();
        assert_eq!(second.entries[&hotkey(1)].tier, None);
        assert_eq!(second.entries[&hotkey(1)].class.tier_weight, 0);
    }

    #[test]
    fn older_blocks_are_ignored_unless_the_chain_began_anew() {
        let table = next(None, &observe(10, &[], &[(1, tao(1))])).unwrap();
        assert_eq!(next(Some(&table), &observe(9, &[], &[(1, tao(2)), (2, tao(1))])), None);
        let anew = next(Some(&table), &observe(1, &[], &[(1, tao(2))])).unwrap();
        assert_eq!((anew.epoch, anew.entries[&hotkey(1)].stake), (1, tao(2)));
    }
}
