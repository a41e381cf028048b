//! `set_weights` and what it checks.

use std::collections::BTreeSet;

use codec::Compact;
use frame_support::ensure;
use sp_runtime::DispatchResult;

use super::pallet::*;
use super::registration::set;
use super::types::{MechId, NetUid, NetUidStorageIndex};

impl<T: Config> Pallet<T> {
    /// Sets weights. The checks stand in the order of the public chain, which decides the error a caller sees.
    pub(super) fn do_set_weights(
        hotkey: &T::AccountId,
        netuid: NetUid,
        mecid: MechId,
        uids: &[u16],
        values: &[u16],
        version_key: u64,
    ) -> DispatchResult {
        ensure!(!netuid.is_root(), Error::<T>::CanNotSetRootNetworkWeights);
        ensure!(uids.len() == values.len(), Error::<T>::WeightVecNotEqualSize);
        Self::check_mechanism(netuid, mecid)?;
        let n = SubnetworkN::<T>::get(netuid);
        ensure!(uids.len() <= usize::from(n), Error::<T>::UidsLengthExceedUidsInSubNet);
        let uid = Uids::<T>::get(netuid, hotkey).ok_or(Error::<T>::HotKeyNotRegisteredInSubNet)?;
        ensure!(Self::has_stake_for_weights(hotkey, netuid), Error::<T>::NotEnoughStakeToSetWeights);
        ensure!(version_key >= WeightsVersionKey::<T>::get(netuid), Error::<T>::IncorrectWeightVersionKey);
        let index = netuid.index(mecid);
        let commit_reveal = CommitRevealWeightsEnabled::<T>::get(netuid);
        ensure!(
            commit_reveal || Self::weights_rate_limit_passed(netuid, index, uid),
            Error::<T>::SettingWeightsTooFast
        );
        let only_self = uids == [uid];
        let permit = ValidatorPermit::<T>::get(netuid).get(usize::from(uid)).copied().unwrap_or(false);
        let is_owner = Self::owner_uid(netuid) == Some(uid);
        ensure!(permit || only_self || is_owner, Error::<T>::NeuronNoValidatorPermit);
        let distinct: BTreeSet<u16> = uids.iter().copied().collect();
        ensure!(distinct.len() == uids.len(), Error::<T>::DuplicateUids);
        ensure!(distinct.last().is_none_or(|last| *last < n), Error::<T>::UidVecContainInvalidOne);
        let least = usize::from(MinAllowedWeights::<T>::get(netuid).min(n));
        ensure!(only_self || uids.len() >= least, Error::<T>::WeightVecLengthIsLow);
        let limit = MaxWeightsLimit::<T>::get(netuid);
        ensure!(only_self || within_limit(values, limit), Error::<T>::MaxWeightExceeded);

        let row: Vec<(u16, u16)> = uids.iter().copied().zip(max_upscale(values)).collect();
        Weights::<T>::insert(index, uid, row);
        if !commit_reveal {
            LastUpdate::<T>::mutate(index, |all| set(all, usize::from(uid), Self::block()));
        }
        Self::deposit_event(Event::WeightsSet(index, uid));
        Ok(())
    }

    /// Sets weights on several subnets. Every item stands for itself; events tell which failed.
    pub(super) fn do_batch_set_weights(
        hotkey: T::AccountId,
        netuids: Vec<Compact<NetUid>>,
        weights: Vec<Vec<(Compact<u16>, Compact<u16>)>>,
        version_keys: Vec<Compact<u64>>,
    ) -> DispatchResult {
        let equal = netuids.len() == weights.len() && netuids.len() == version_keys.len();
        ensure!(equal, Error::<T>::InputLengthsUnequal);
        let set = |netuid: NetUid, row: Vec<(Compact<u16>, Compact<u16>)>, version_key: u64| {
            ensure!(!CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::CommitRevealEnabled);
            let (uids, values): (Vec<u16>, Vec<u16>) = row.into_iter().map(|(uid, value)| (uid.0, value.0)).unzip();
            Self::do_set_weights(&hotkey, netuid, 0, &uids, &values, version_key)
        };
        let items = netuids.iter().zip(weights).zip(version_keys);
        let results = items.map(|((netuid, row), version_key)| (netuid.0, set(netuid.0, row, version_key.0)));
        Self::report_batch(results.collect());
        Self::deposit_event(Event::BatchWeightsCompleted(netuids, hotkey));
        Ok(())
    }

    /// Tells by events which items of a batch failed.
    pub(super) fn report_batch(results: Vec<(NetUid, DispatchResult)>) {
        let failed: Vec<_> = results.into_iter().filter_map(|(netuid, result)| Some((netuid, result.err()?))).collect();
        if !failed.is_empty() {
            Self::deposit_event(Event::BatchCompletedWithErrors);
        }
        for (netuid, error) in failed {
            Self::deposit_event(Event::BatchWeightItemFailed(netuid, error));
        }
    }

    pub(super) fn check_mechanism(netuid: NetUid, mecid: MechId) -> Result<(), Error<T>> {
        let known = Self::exists(netuid) && mecid < MechanismCountCurrent::<T>::get(netuid);
        ensure!(known, Error::<T>::MechanismDoesNotExist);
        Ok(())
    }

    /// Whether a hotkey has the stake that weights need; the owner's hotkey needs none.
    pub(super) fn has_stake_for_weights(hotkey: &T::AccountId, netuid: NetUid) -> bool {
        SubnetOwnerHotkey::<T>::get(netuid) == *hotkey
            || Self::stake_weights(hotkey, netuid).2 >= StakeThreshold::<T>::get()
    }

    /// Whether enough blocks passed since a neuron's last weights; one that never set any may.
    pub(super) fn weights_rate_limit_passed(netuid: NetUid, index: NetUidStorageIndex, uid: u16) -> bool {
        let last = LastUpdate::<T>::get(index).get(usize::from(uid)).copied().unwrap_or(0);
        last == 0 || Self::block().saturating_sub(last) >= WeightsSetRateLimit::<T>::get(netuid)
    }

    /// Slot of the owner's hotkey.
    pub(super) fn owner_uid(netuid: NetUid) -> Option<u16> {
        let hotkey = SubnetOwnerHotkey::<T>::try_get(netuid).ok()?;
        Uids::<T>::get(netuid, hotkey)
    }
}

/// Scales weights so that the largest is 65535, rounded to the nearest as in the public chain's fixed point of 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "a value is at most the largest, so the quotient fits")]
pub(super) fn max_upscale(values: &[u16]) -> Vec<u16> {
    const MAX: u64 = u16::MAX as u64;
    const HALF: u64 = 1 << 31;
    let largest = u64::from(values.iter().copied().max().unwrap_or(0));
    if largest == 0 {
        return values.to_vec();
    }
    let scale = |value: u16| {
        let value = u64::from(value);
        // The order of the operations decides a rounding here and there.
        let fixed = if largest > 32_768 { value * ((MAX << 32) / largest) } else { ((value * MAX) << 32) / largest };
        ((fixed + HALF) >> 32) as u16
    };
    values.iter().copied().map(scale).collect()
}

/// Whether no weight is a larger share of the sum than the limit allows.
fn within_limit(values: &[u16], limit: u16) -> bool {
    let sum: u64 = values.iter().copied().map(u64::from).sum();
    let largest = u64::from(values.iter().copied().max().unwrap_or(0));
    limit == u16::MAX || largest * u64::from(u16::MAX) <= u64::from(limit) * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_weight_becomes_65535() {
        assert_eq!(max_upscale(&[1, 2, 4]), [16_384, 32_768, 65_535]);
        assert_eq!(max_upscale(&[1, 20_000, 40_000, 65_535]), [1, 20_000, 40_000, 65_535]);
        assert_eq!(max_upscale(&[10_000, 30_000, 40_000]), [16_384, 49_151, 65_535]);
        assert_eq!(max_upscale(&[0, 0]), [0, 0]);
        assert_eq!(max_upscale(&[]), Vec::<u16>::new());
    }

    #[test]
    fn a_share_above_the_limit_is_seen() {
        assert!(within_limit(&[1, 1], 32_768));
        assert!(!within_limit(&[1, 1], 32_767));
        assert!(within_limit(&[7], u16::MAX));
    }
}
