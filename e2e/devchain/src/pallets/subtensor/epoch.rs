//! The epoch: from storage to [`super::yuma`] and back, and the payout of what was emitted since the last one.

use std::collections::BTreeMap;

use super::columns::hash_hotkey;
use super::pallet::*;
use super::registration::fit;
use super::types::{AlphaBalance, ConsensusMode, MechId, NetUid, NetUidStorageIndex, RecycleOrBurnEnum};
use super::yuma::{self, Input, LiquidAlpha, Output, Params, StoredRow};

/// Part of `total` that a share from 0 to 1 stands for.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share from 0 to 1 of an amount of alpha; the chain's own fixed point has fewer bits"
)]
fn part(total: AlphaBalance, share: f64) -> AlphaBalance {
    ((total as f64 * share) as u64).min(total)
}

/// A share from 0 to 1 in 65535ths, rounded down as on the public chain.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of u16 before")]
fn to_u16(share: f64) -> u16 {
    // The sum of many shares may fall short of a whole step by rounding alone.
    (share.clamp(0.0, 1.0) * f64::from(u16::MAX) + 1e-6) as u16
}

fn to_u16s(shares: &[f64]) -> Vec<u16> {
    shares.iter().copied().map(to_u16).collect()
}

fn from_u16(share: u16) -> f64 {
    f64::from(share) / f64::from(u16::MAX)
}

/// What a mechanism weighs in its subnet: its part of the emission.
#[derive(Debug, Clone, Copy)]
struct Weighting {
    part: u64,
    of: u64,
}

impl Weighting {
    /// Without emission the first mechanism speaks for the subnet.
    fn new(mecid: MechId, emission: AlphaBalance, total: AlphaBalance) -> Self {
        if total == 0 { Self { part: u64::from(mecid == 0), of: 1 } } else { Self { part: emission, of: total } }
    }

    /// Rounded down for each mechanism, as on the public chain.
    fn of(self, value: u64) -> u64 {
        let weighted = u128::from(value) * u128::from(self.part) / u128::from(self.of);
        u64::try_from(weighted).unwrap_or(value)
    }
}

/// What a subnet's neurons are at an epoch, the same for every mechanism.
struct Neurons<AccountId> {
    hotkeys: Vec<AccountId>,
    /// Total stake where it counts, in rao.
    stake: Vec<u64>,
    registered_at: Vec<u64>,
    /// Permits from the last epoch; the owner's neuron has one always.
    permits: Vec<bool>,
    owner: Option<usize>,
}

/// Results of all mechanisms together: each a sum weighted by the emission of the mechanisms.
struct Totals {
    consensus: Vec<u16>,
    validator_trust: Vec<u16>,
    dividends: Vec<u16>,
    stake_weight: Vec<u16>,
    emission: Vec<AlphaBalance>,
    active: Vec<bool>,
}

impl Totals {
    fn new(n: usize) -> Self {
        let zeros = || vec![0; n];
        Self {
            consensus: zeros(),
            validator_trust: zeros(),
            dividends: zeros(),
            stake_weight: zeros(),
            emission: vec![0; n],
            active: vec![false; n],
        }
    }

    fn add(&mut self, input: &Input, output: &Output, emission: AlphaBalance, weighting: Weighting) {
        let add = |sum: &mut [u16], shares: &[f64]| {
            for (sum, share) in sum.iter_mut().zip(to_u16s(shares)) {
                *sum = sum.saturating_add(u16::try_from(weighting.of(u64::from(share))).unwrap_or(share));
            }
        };
        add(&mut self.consensus, &output.consensus);
        add(&mut self.validator_trust, &output.validator_trust);
        add(&mut self.dividends, &output.dividends);
        add(&mut self.stake_weight, &output.stake);
        self.active.iter_mut().zip(&input.active).for_each(|(any, this)| *any |= this);
        for (sum, share) in self.emission.iter_mut().zip(emission_shares(output)) {
            *sum = sum.saturating_add(weighting.of(part(emission, share)));
        }
    }
}

/// What each neuron has of a mechanism's emission: incentive and dividends count alike. Without either, as before the
/// first weights, stake decides.
fn emission_shares(output: &Output) -> Vec<f64> {
    let mut shares: Vec<f64> = output.incentive.iter().zip(&output.dividends).map(|(a, b)| a + b).collect();
    yuma::normalize(&mut shares);
    some(shares).or_else(|| some(output.active_stake.clone())).unwrap_or_else(|| output.stake.clone())
}

/// The shares, unless all are zero.
fn some(shares: Vec<f64>) -> Option<Vec<f64>> {
    shares.iter().any(|share| *share > 0.0).then_some(shares)
}

/// What is paid out for a mechanism, by uid.
struct Payout {
    miners: Vec<AlphaBalance>,
    validators: Vec<AlphaBalance>,
}

impl Payout {
    fn new(n: usize) -> Self {
        Self { miners: vec![0; n], validators: vec![0; n] }
    }

    fn add(&mut self, output: &Output, server: AlphaBalance, validator: AlphaBalance) {
        // Nobody to pay for mining: it is the validators', by stake where there are no dividends either.
        let mined = some(output.incentive.clone());
        let validator = if mined.is_some() { validator } else { validator.saturating_add(server) };
        let dividends = some(output.dividends.clone())
            .or_else(|| some(output.active_stake.clone()))
            .unwrap_or_else(|| output.stake.clone());
        for (sum, share) in self.miners.iter_mut().zip(mined.unwrap_or_default()) {
            *sum = sum.saturating_add(part(server, share));
        }
        for (sum, share) in self.validators.iter_mut().zip(dividends) {
            *sum = sum.saturating_add(part(validator, share));
        }
    }
}

impl<T: Config> Pallet<T> {
    /// Runs an epoch of every mechanism, writes its results and pays out what is pending.
    pub(super) fn run_epoch(netuid: NetUid) {
        let neurons = Self::neurons(netuid);
        let n = neurons.hotkeys.len();
        let server = PendingServerEmission::<T>::take(netuid);
        // Root stake is paid in alpha through its validators: baskets of the public chain are not modelled.
        let validator =
            PendingValidatorEmission::<T>::take(netuid).saturating_add(PendingRootAlphaDivs::<T>::take(netuid));
        let total = server.saturating_add(validator);
        let permits = Self::new_permits(netuid, &neurons);

        let mut totals = Totals::new(n);
        let mut payout = Payout::new(n);
        let servers = Self::split_emission(netuid, server);
        let validators = Self::split_emission(netuid, validator);
        for (mecid, (server, validator)) in (0..).zip(servers.into_iter().zip(validators)) {
            let input = Self::mechanism_input(netuid, mecid, &neurons);
            let output = yuma::epoch(&input);
            let emission = server.saturating_add(validator);
            totals.add(&input, &output, emission, Weighting::new(mecid, emission, total));
            payout.add(&output, server, validator);
            Self::write_mechanism(netuid.index(mecid), &output, &permits, emission);
        }

        Consensus::<T>::insert(netuid, totals.consensus);
        ValidatorTrust::<T>::insert(netuid, totals.validator_trust);
        Dividends::<T>::insert(netuid, totals.dividends);
        StakeWeight::<T>::insert(netuid, totals.stake_weight);
        Emission::<T>::insert(netuid, totals.emission);
        Active::<T>::insert(netuid, totals.active);
        ValidatorPermit::<T>::insert(netuid, permits);
        Self::pay(netuid, &neurons.hotkeys, &payout);
    }

    /// Gives permits by the stake of now, as the last epoch would have: for a subnet that starts with neurons.
    pub fn give_permits(netuid: NetUid) {
        let neurons = Self::neurons(netuid);
        StakeWeight::<T>::insert(netuid, to_u16s(&yuma::shares(&neurons.stake)));
        ValidatorPermit::<T>::insert(netuid, Self::new_permits(netuid, &neurons));
    }

    fn neurons(netuid: NetUid) -> Neurons<T::AccountId> {
        let threshold = StakeThreshold::<T>::get();
        let owner = Self::owner_uid(netuid).map(usize::from);
        let hotkeys = Self::hotkeys(netuid);
        let hashes: Vec<_> = hotkeys.iter().map(hash_hotkey).collect();
        let stakes = Self::stake_weights_of(&hashes, netuid).into_iter().enumerate();
        let counted = |(uid, (_, _, total))| if total >= threshold || owner == Some(uid) { total } else { 0 };
        let mut permits = fit(ValidatorPermit::<T>::get(netuid), hotkeys.len());
        if let Some(owner) = owner {
            permits[owner] = true;
        }
        Neurons {
            stake: stakes.map(counted).collect(),
            registered_at: Self::registration_blocks(netuid),
            permits,
            owner,
            hotkeys,
        }
    }

    fn mechanism_input(netuid: NetUid, mecid: MechId, neurons: &Neurons<T::AccountId>) -> Input {
        let n = neurons.hotkeys.len();
        let index = netuid.index(mecid);
        let last_update = fit(LastUpdate::<T>::get(index), n);
        let cutoff = Self::activity_cutoff(netuid);
        let block = Self::block();
        let row = |row: Vec<(u16, u16)>| -> StoredRow {
            let columns = row.into_iter().map(|(uid, value)| (usize::from(uid), value));
            let mut row: StoredRow = columns.filter(|(uid, _)| *uid < n).collect();
            row.sort_by_key(|(uid, _)| *uid);
            // The chain never writes a column twice; a state that was set by hand might.
            row.dedup_by_key(|(uid, _)| *uid);
            row
        };
        let rows = |stored: frame_support::storage::PrefixIterator<(u16, Vec<(u16, u16)>)>| {
            let mut rows = vec![StoredRow::new(); n];
            for (uid, stored) in stored {
                if let Some(slot) = rows.get_mut(usize::from(uid)) {
                    *slot = row(stored);
                }
            }
            rows
        };
        Input {
            stake: neurons.stake.clone(),
            active: last_update.iter().map(|last| last.saturating_add(cutoff) >= block).collect(),
            permits: neurons.permits.clone(),
            owner: neurons.owner,
            weights: rows(Weights::<T>::iter_prefix(index)),
            bonds: rows(Bonds::<T>::iter_prefix(index)),
            last_update,
            committed_at: Self::oldest_commits(netuid, index, n),
            registered_at: neurons.registered_at.clone(),
            last_tempo: Self::first_block_since_epoch(netuid),
            params: Self::params(netuid, index),
        }
    }

    /// First block after the last epoch.
    fn first_block_since_epoch(netuid: NetUid) -> u64 {
        match LastMechansimStepBlock::<T>::get(netuid) {
            0 => Self::block().saturating_sub(u64::from(Tempo::<T>::get(netuid))),
            last => last + 1,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the moving average is at most a million")]
    fn params(netuid: NetUid, index: NetUidStorageIndex) -> Params {
        let (low, high) = AlphaValues::<T>::get(netuid);
        let penalty = BondsPenalty::<T>::get(netuid);
        let previous = match LiquidAlphaConsensusMode::<T>::get(netuid) {
            ConsensusMode::Current => false,
            ConsensusMode::Previous => true,
            ConsensusMode::Auto => penalty == u16::MAX,
        };
        let liquid = || LiquidAlpha {
            low: from_u16(low),
            high: from_u16(high),
            steepness: f64::from(AlphaSigmoidSteepness::<T>::get(netuid)) / 100.0,
            consensus: previous.then(|| ConsensusByMechanism::<T>::get(index).into_iter().map(from_u16).collect()),
        };
        Params {
            kappa: Kappa::<T>::get(netuid),
            bonds_penalty: from_u16(penalty),
            bonds_rate: 1.0 - (BondsMovingAverage::<T>::get(netuid) as f64 / 1e6).clamp(0.0, 1.0),
            liquid_alpha: LiquidAlphaOn::<T>::get(netuid).then(liquid),
            yuma3: Yuma3On::<T>::get(netuid),
        }
    }

    /// Blocks for which weights count.
    pub fn activity_cutoff(netuid: NetUid) -> u64 {
        let blocks = u64::from(ActivityCutoffFactorMilli::<T>::get(netuid)) * u64::from(Tempo::<T>::get(netuid)) / 1000;
        blocks.max(1)
    }

    /// What each mechanism gets of an amount; what rounding leaves over goes to the first.
    fn split_emission(netuid: NetUid, alpha: AlphaBalance) -> Vec<AlphaBalance> {
        let count = usize::from(MechanismCountCurrent::<T>::get(netuid)).max(1);
        let split = MechanismEmissionSplit::<T>::get(netuid).filter(|split| split.len() == count);
        let mut parts: Vec<AlphaBalance> = match split {
            Some(split) => {
                let part = |share: u16| u128::from(alpha) * u128::from(share) / u128::from(u16::MAX);
                split.into_iter().map(|share| u64::try_from(part(share)).unwrap_or(alpha)).collect()
            }
            None => vec![alpha / u64::try_from(count).unwrap_or(1); count],
        };
        let left = alpha.saturating_sub(parts.iter().sum());
        parts[0] += left;
        parts
    }

    /// The neurons with the most stake, as many as the subnet allows, and the owner.
    fn new_permits(netuid: NetUid, neurons: &Neurons<T::AccountId>) -> Vec<bool> {
        let stake = &neurons.stake;
        let mut order: Vec<usize> = (0..stake.len()).filter(|uid| stake[*uid] > 0).collect();
        // As on the public chain, a tie goes to the neuron with the higher uid.
        order.sort_by_key(|uid| std::cmp::Reverse((stake[*uid], *uid)));
        let mut permits = vec![false; stake.len()];
        for uid in order.into_iter().take(usize::from(MaxAllowedValidators::<T>::get(netuid))).chain(neurons.owner) {
            permits[uid] = true;
        }
        permits
    }

    /// Writes what is kept per mechanism. Only who has a permit keeps bonds.
    fn write_mechanism(index: NetUidStorageIndex, output: &Output, permits: &[bool], emission: AlphaBalance) {
        for ((uid, row), permit) in (0u16..).zip(&output.bonds).zip(permits) {
            let stored = |(column, bond): &(usize, f64)| Some((u16::try_from(*column).ok()?, to_u16(*bond)));
            let row: Vec<(u16, u16)> = if *permit { row.iter().filter_map(stored).collect() } else { Vec::new() };
            Bonds::<T>::insert(index, uid, row);
        }
        Incentive::<T>::insert(index, to_u16s(&output.incentive));
        ConsensusByMechanism::<T>::insert(index, to_u16s(&output.consensus));
        let mut incentive_and_dividends: Vec<f64> = output.incentive.clone();
        for (sum, share) in incentive_and_dividends.iter_mut().zip(&output.dividends) {
            *sum += share;
        }
        let sum: f64 = incentive_and_dividends.iter().sum();
        let mined = |share: &f64| if sum > 0.0 { part(emission, share / sum) } else { 0 };
        let emissions = output.incentive.iter().map(mined).collect();
        Self::deposit_event(Event::IncentiveAlphaEmittedToMiners { netuid: index, emissions });
    }

    /// Ends all bonds with a neuron, where the subnet allows it.
    pub fn reset_bonds(netuid: NetUid, hotkey: &T::AccountId) {
        let Some(uid) = Uids::<T>::get(netuid, hotkey).filter(|_| BondsResetOn::<T>::get(netuid)) else { return };
        for mecid in 0..MechanismCountCurrent::<T>::get(netuid) {
            let index = netuid.index(mecid);
            let rows: Vec<u16> = Bonds::<T>::iter_key_prefix(index).collect();
            for row in rows {
                Bonds::<T>::mutate(index, row, |bonds| bonds.retain(|(column, _)| *column != uid));
            }
        }
    }

    fn pay(netuid: NetUid, hotkeys: &[T::AccountId], payout: &Payout) {
        Self::pay_owner(netuid);
        let owner = SubnetOwner::<T>::try_get(netuid).ok();
        let owner_hotkey = SubnetOwnerHotkey::<T>::try_get(netuid).ok();
        let of_owner =
            |hotkey: &T::AccountId| owner_hotkey.as_ref() == Some(hotkey) || owner == Owner::<T>::try_get(hotkey).ok();
        for (hotkey, mined) in hotkeys.iter().zip(&payout.miners) {
            if owner.is_some() && of_owner(hotkey) {
                Self::withhold(netuid, *mined);
            } else {
                Self::pay_miner(netuid, hotkey, *mined);
            }
        }
        // What a child earned belongs to its parents in proportion, so all is added up before anything is paid.
        let mut earned: BTreeMap<T::AccountId, AlphaBalance> = BTreeMap::new();
        for (hotkey, dividends) in hotkeys.iter().zip(&payout.validators) {
            for (hotkey, alpha) in Self::with_parents(hotkey, netuid, *dividends) {
                *earned.entry(hotkey).or_default() += alpha;
            }
        }
        let _ = AlphaDividendsPerSubnet::<T>::clear_prefix(netuid, u32::MAX, None);
        for (hotkey, alpha) in &earned {
            Self::pay_validator(netuid, hotkey, *alpha);
            AlphaDividendsPerSubnet::<T>::insert(netuid, hotkey, alpha);
        }
        for hotkey in hotkeys {
            TotalHotkeyAlphaLastEpoch::<T>::insert(hotkey, netuid, TotalHotkeyAlpha::<T>::get(hotkey, netuid));
        }
    }

    /// A miner's alpha is staked to its own hotkey, or to where its owner wants it.
    fn pay_miner(netuid: NetUid, hotkey: &T::AccountId, alpha: AlphaBalance) {
        if alpha == 0 {
            return;
        }
        let owner = Owner::<T>::get(hotkey);
        let wanted = AutoStakeDestination::<T>::get(&owner, netuid);
        Self::increase_stake(wanted.as_ref().unwrap_or(hotkey), &owner, netuid, alpha);
        if let Some(destination) = wanted {
            let hotkey = hotkey.clone();
            Self::deposit_event(Event::AutoStakeAdded { netuid, destination, hotkey, owner, incentive: alpha });
        }
    }

    /// The alpha that neurons of the subnet's owner mined is not paid: it is recycled or burned.
    fn withhold(netuid: NetUid, alpha: AlphaBalance) {
        if RecycleOrBurn::<T>::get(netuid) == RecycleOrBurnEnum::Recycle {
            SubnetAlphaOut::<T>::mutate(netuid, |out| *out = out.saturating_sub(alpha));
        }
    }

    /// A validator keeps its take; the rest raises the worth of every stake on it.
    fn pay_validator(netuid: NetUid, hotkey: &T::AccountId, alpha: AlphaBalance) {
        if alpha == 0 {
            return;
        }
        if TotalHotkeyAlpha::<T>::get(hotkey, netuid) == 0 {
            Self::increase_stake(hotkey, &Owner::<T>::get(hotkey), netuid, alpha);
            return;
        }
        let take = part(alpha, from_u16(Delegates::<T>::get(hotkey)));
        Self::increase_hotkey_alpha(hotkey, netuid, alpha - take);
        if take > 0 {
            Self::increase_stake(hotkey, &Owner::<T>::get(hotkey), netuid, take);
        }
    }

    fn pay_owner(netuid: NetUid) {
        let cut = PendingOwnerCut::<T>::take(netuid);
        let hotkey = SubnetOwnerHotkey::<T>::get(netuid);
        if cut > 0 && Owner::<T>::contains_key(&hotkey) {
            Self::increase_stake(&hotkey, &SubnetOwner::<T>::get(netuid), netuid, cut);
        }
    }
}
