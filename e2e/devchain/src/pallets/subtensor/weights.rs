//! `set_weights` and what it checks.

use std::collections::BTreeSet;

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

/// Scales weights so that the largest is 65535.
#[expect(clippy::cast_possible_truncation, reason = "a value is at most the largest, so the quotient fits")]
pub(super) fn max_upscale(values: &[u16]) -> Vec<u16> {
    let largest = u64::from(values.iter().copied().max().unwrap_or(0));
    if largest == 0 {
        return values.to_vec();
    }
    let scale = |value: u16| (u64::from(value) * u64::from(u16::MAX) / largest) as u16;
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
        assert_eq!(max_upscale(&[1, 2, 4]), [16_383, 32_767, 65_535]);
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
