//! The epoch: from storage to [`super::yuma`] and back, and the payout of what was emitted since the last one.

use std::collections::BTreeMap;

use super::pallet::*;
use super::types::{AlphaBalance, MechId, NetUid};
use super::yuma::{self, Input, LiquidAlpha, Output, Params, Row};

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

/// What a subnet's neurons are at an epoch, the same for every mechanism.
struct Neurons<AccountId> {
    hotkeys: Vec<AccountId>,
    /// Total stake where it counts, in rao.
    stake: Vec<f64>,
    registered_at: Vec<u64>,
    permits: Vec<bool>,
    owner: Option<usize>,
}

impl<T: Config> Pallet<T> {
    /// Runs an epoch of every mechanism, writes its results and pays out what is pending.
    pub(super) fn run_epoch(netuid: NetUid) {
        let neurons = Self::neurons(netuid);
        let n = neurons.hotkeys.len();
        let server = PendingServerEmission::<T>::take(netuid);
        // Root stake is paid in alpha through its validators: baskets of the public chain are not modelled.
        let validator = PendingValidatorEmission::<T>::take(netuid) + PendingRootAlphaDivs::<T>::take(netuid);

        let mut consensus = vec![0.0; n];
        let mut trust = vec![0.0; n];
        let mut dividends = vec![0.0; n];
        let mut incentive = vec![0.0; n];
        let mut active = vec![false; n];
        let mut last = None;
        for (mecid, split) in Self::mechanism_split(netuid).into_iter().enumerate() {
            let mecid = MechId::try_from(mecid).unwrap_or(MechId::MAX);
            let input = Self::mechanism_input(netuid, mecid, &neurons);
            let output = yuma::epoch(&input);
            let add =
                |sum: &mut Vec<f64>, part: &[f64]| sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x * split);
            add(&mut consensus, &output.consensus);
            add(&mut trust, &output.validator_trust);
            add(&mut dividends, &output.dividends);
            add(&mut incentive, &output.incentive);
            active.iter_mut().zip(&input.active).for_each(|(any, this)| *any |= this);
            Incentive::<T>::insert(netuid.index(mecid), to_u16s(&output.incentive));
            Self::write_bonds(netuid, mecid, &neurons, &output);
            last = Some(output);
        }
        let Some(output) = last else { return };

        Consensus::<T>::insert(netuid, to_u16s(&consensus));
        ValidatorTrust::<T>::insert(netuid, to_u16s(&trust));
        Dividends::<T>::insert(netuid, to_u16s(&dividends));
        StakeWeight::<T>::insert(netuid, to_u16s(&output.stake));
        Active::<T>::insert(netuid, active);
        ValidatorPermit::<T>::insert(netuid, Self::new_permits(netuid, &output.stake, neurons.owner));
        Self::pay(netuid, &neurons, &Shares { server, validator, incentive, dividends, output: &output });
    }

    /// Gives permits by the stake of now, as the last epoch would have: for a subnet that starts with neurons.
    pub fn give_permits(netuid: NetUid) {
        let neurons = Self::neurons(netuid);
        let mut stake = neurons.stake;
        yuma::normalize(&mut stake);
        StakeWeight::<T>::insert(netuid, to_u16s(&stake));
        ValidatorPermit::<T>::insert(netuid, Self::new_permits(netuid, &stake, neurons.owner));
    }

    fn neurons(netuid: NetUid) -> Neurons<T::AccountId> {
        let threshold = StakeThreshold::<T>::get();
        let owner = Self::owner_uid(netuid);
        let hotkeys: Vec<_> = (0..SubnetworkN::<T>::get(netuid)).map(|uid| Keys::<T>::get(netuid, uid)).collect();
        let owner_hotkey = SubnetOwnerHotkey::<T>::get(netuid);
        #[expect(clippy::cast_precision_loss, reason = "stake is compared and normalised, not paid out")]
        let stake = |hotkey: &T::AccountId| {
            let total = Self::stake_weights(hotkey, netuid).2;
            if total >= threshold || *hotkey == owner_hotkey { total as f64 } else { 0.0 }
        };
        let mut permits = ValidatorPermit::<T>::get(netuid);
        permits.resize(hotkeys.len(), false);
        Neurons {
            stake: hotkeys.iter().map(stake).collect(),
            registered_at: (0..SubnetworkN::<T>::get(netuid))
                .map(|uid| BlockAtRegistration::<T>::get(netuid, uid))
                .collect(),
            permits,
            owner: owner.map(usize::from),
            hotkeys,
        }
    }

    fn mechanism_input(netuid: NetUid, mecid: MechId, neurons: &Neurons<T::AccountId>) -> Input {
        let n = neurons.hotkeys.len();
        let index = netuid.index(mecid);
        let mut last_update = LastUpdate::<T>::get(index);
        last_update.resize(n, 0);
        let cutoff = Self::activity_cutoff(netuid);
        let block = Self::block();
        let row = |row: Vec<(u16, u16)>| -> Row {
            let mut row: Row = row
                .into_iter()
                .filter(|(uid, value)| usize::from(*uid) < n && *value > 0)
                .map(|(uid, value)| (usize::from(uid), from_u16(value)))
                .collect();
            row.sort_by_key(|(uid, _)| *uid);
            row
        };
        let mut weights = vec![Row::new(); n];
        let mut bonds = vec![Row::new(); n];
        for (uid, stored) in Weights::<T>::iter_prefix(index) {
            if let Some(slot) = weights.get_mut(usize::from(uid)) {
                *slot = row(stored);
            }
        }
        for (uid, stored) in Bonds::<T>::iter_prefix(index) {
            if let Some(slot) = bonds.get_mut(usize::from(uid)) {
                *slot = row(stored);
            }
        }
        Input {
            stake: neurons.stake.clone(),
            active: last_update.iter().map(|last| last + cutoff >= block).collect(),
            permits: neurons.permits.clone(),
            owner: neurons.owner,
            weights,
            bonds,
            last_update,
            registered_at: neurons.registered_at.clone(),
            last_tempo: block.saturating_sub(u64::from(Tempo::<T>::get(netuid))),
            params: Self::params(netuid),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the moving average is at most a million")]
    fn params(netuid: NetUid) -> Params {
        let (low, high) = AlphaValues::<T>::get(netuid);
        let liquid = LiquidAlpha {
            low: from_u16(low),
            high: from_u16(high),
            steepness: f64::from(AlphaSigmoidSteepness::<T>::get(netuid)) / 100.0,
        };
        Params {
            kappa: from_u16(Kappa::<T>::get(netuid)),
            bonds_penalty: from_u16(BondsPenalty::<T>::get(netuid)),
            bonds_rate: 1.0 - (BondsMovingAverage::<T>::get(netuid) as f64 / 1e6).clamp(0.0, 1.0),
            liquid_alpha: LiquidAlphaOn::<T>::get(netuid).then_some(liquid),
            yuma3: Yuma3On::<T>::get(netuid),
        }
    }

    /// Blocks for which weights count.
    pub fn activity_cutoff(netuid: NetUid) -> u64 {
        u64::from(ActivityCutoffFactorMilli::<T>::get(netuid)) * u64::from(Tempo::<T>::get(netuid)) / 1000
    }

    fn mechanism_split(netuid: NetUid) -> Vec<f64> {
        let count = usize::from(MechanismCountCurrent::<T>::get(netuid)).max(1);
        let shares = MechanismEmissionSplit::<T>::get(netuid).filter(|shares| shares.len() == count);
        let mut split: Vec<f64> = shares.unwrap_or_else(|| vec![1; count]).into_iter().map(f64::from).collect();
        yuma::normalize(&mut split);
        split
    }

    /// The neurons with the most stake, as many as the subnet allows, and the owner.
    fn new_permits(netuid: NetUid, stake: &[f64], owner: Option<usize>) -> Vec<bool> {
        let mut order: Vec<usize> = (0..stake.len()).filter(|uid| stake[*uid] > 0.0).collect();
        // A tie goes to the neuron that came first.
        order.sort_by(|a, b| stake[*b].total_cmp(&stake[*a]).then(a.cmp(b)));
        let mut permits = vec![false; stake.len()];
        for uid in order.into_iter().take(usize::from(MaxAllowedValidators::<T>::get(netuid))).chain(owner) {
            permits[uid] = true;
        }
        permits
    }

    fn write_bonds(netuid: NetUid, mecid: MechId, neurons: &Neurons<T::AccountId>, output: &Output) {
        let index = netuid.index(mecid);
        let permits = Self::new_permits(netuid, &output.stake, neurons.owner);
        for (uid, row) in (0u16..).zip(&output.bonds) {
            let slot = usize::from(uid);
            if permits[slot] {
                let stored: Vec<(u16, u16)> = row
                    .iter()
                    .filter_map(|(column, bond)| Some((u16::try_from(*column).ok()?, to_u16(*bond))))
                    .collect();
                Bonds::<T>::insert(index, uid, stored);
            } else if neurons.permits[slot] {
                Bonds::<T>::remove(index, uid);
            }
        }
    }

    fn pay(netuid: NetUid, neurons: &Neurons<T::AccountId>, shares: &Shares<'_>) {
        let n = neurons.hotkeys.len();
        let no_incentive = shares.incentive.iter().all(|share| *share <= 0.0);
        let (server, validator) =
            if no_incentive { (0, shares.server + shares.validator) } else { (shares.server, shares.validator) };
        // Without dividends, as before the first weights, validators are paid by stake.
        let by_stake = |stake: &[f64]| stake.iter().any(|share| *share > 0.0).then(|| stake.to_vec());
        let dividends = by_stake(&shares.dividends)
            .or_else(|| by_stake(&shares.output.active_stake))
            .unwrap_or_else(|| shares.output.stake.clone());

        let mut emission: Vec<AlphaBalance> = vec![0; n];
        let mut earned: BTreeMap<&T::AccountId, AlphaBalance> = BTreeMap::new();
        for (uid, hotkey) in neurons.hotkeys.iter().enumerate() {
            let mined = part(server, shares.incentive[uid]);
            let validated = part(validator, dividends[uid]);
            emission[uid] = mined + validated;
            Self::pay_miner(netuid, hotkey, mined);
            Self::pay_validator(netuid, hotkey, validated);
            *earned.entry(hotkey).or_default() += validated;
            TotalHotkeyAlphaLastEpoch::<T>::insert(hotkey, netuid, TotalHotkeyAlpha::<T>::get(hotkey, netuid));
        }
        for (hotkey, alpha) in earned {
            AlphaDividendsPerSubnet::<T>::insert(netuid, hotkey, alpha);
        }
        Emission::<T>::insert(netuid, emission);
        Self::pay_owner(netuid);
    }

    /// A miner's alpha is staked to its own hotkey; that of the owner's hotkey is burned.
    fn pay_miner(netuid: NetUid, hotkey: &T::AccountId, alpha: AlphaBalance) {
        if alpha == 0 {
            return;
        }
        if SubnetOwnerHotkey::<T>::get(netuid) == *hotkey {
            SubnetAlphaOut::<T>::mutate(netuid, |out| *out = out.saturating_sub(alpha));
            return;
        }
        Self::increase_stake(hotkey, &Owner::<T>::get(hotkey), netuid, alpha);
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

/// What is paid out, and by which shares.
struct Shares<'a> {
    server: AlphaBalance,
    validator: AlphaBalance,
    incentive: Vec<f64>,
    dividends: Vec<f64>,
    output: &'a Output,
}
