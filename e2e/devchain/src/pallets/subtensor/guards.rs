//! What is refused before it reaches a block: the transaction extension of `SubtensorModule`.
//!
//! Calls that cost no fee must not be free to repeat, so what would certainly fail is turned away by the pool. The
//! reason travels as a number, `InvalidTransaction::Custom`, which clients know.

use std::fmt;
use std::marker::PhantomData;

use codec::{Decode, DecodeWithMemTracking, Encode};
use frame_support::dispatch::{DispatchInfo, PostDispatchInfo};
use frame_support::ensure;
use frame_support::traits::{IsSubType, OriginTrait};
use scale_info::TypeInfo;
use sp_runtime::impl_tx_ext_default;
use sp_runtime::traits::{DispatchInfoOf, Dispatchable, Implication, TransactionExtension, ValidateResult};
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionSource, ValidTransaction};

use super::commit_reveal::Reveal;
use super::pallet::*;
use super::serving::Endpoint;
use super::types::{MechId, NetUid};

/// Number of an error in `InvalidTransaction::Custom`.
fn custom_code<T>(error: &Error<T>) -> u8 {
    match error {
        Error::ColdkeySwapAnnounced => 0,
        Error::AmountTooLow | Error::NotEnoughStakeToSetWeights => 1,
        Error::NotEnoughBalanceToStake => 2,
        Error::SubnetNotExists => 3,
        Error::HotKeyAccountNotExists => 4,
        Error::NotEnoughStakeToWithdraw => 5,
        Error::CommittingWeightsTooFast | Error::SettingWeightsTooFast | Error::NetworkTxRateLimitExceeded => 6,
        Error::InsufficientLiquidity => 7,
        Error::SlippageTooHigh => 8,
        Error::TransferDisallowed => 9,
        Error::HotKeyNotRegisteredInNetwork => 10,
        Error::InvalidIpAddress => 11,
        Error::ServingRateLimitExceeded => 12,
        Error::InvalidPort => 13,
        Error::InvalidRevealRound => 15,
        Error::NoWeightsCommitFound => 16,
        Error::RevealTooEarly => 17,
        Error::InputLengthsUnequal => 18,
        Error::HotKeyNotRegisteredInSubNet => 19,
        Error::EvmKeyAssociateRateLimitExceeded => 20,
        Error::ColdkeySwapDisputed => 21,
        Error::NonAssociatedColdKey => 25,
        Error::DelegateTakeTooLow => 26,
        Error::DelegateTakeTooHigh => 27,
        _ => 255,
    }
}

impl<T: Config> Pallet<T> {
    /// Refuses a call that would certainly fail.
    pub(super) fn check_before_dispatch(who: &T::AccountId, call: &Call<T>) -> Result<(), Error<T>> {
        if let Some((netuid, _)) = weights_target(call) {
            ensure!(Self::has_stake_for_weights(who, netuid), Error::<T>::NotEnoughStakeToSetWeights);
        }
        if let Some((netuid, mecid, reveal)) = revealed(call) {
            Self::check_reveal(who, netuid, mecid, &reveal)?;
        }
        Self::check_weights_rate(who, call)?;
        match call {
            Call::register_network { .. } | Call::register_network_with_identity { .. } => {
                ensure!(Self::network_rate_limit_passed(), Error::<T>::NetworkTxRateLimitExceeded);
                Ok(())
            }
            Call::decrease_take { hotkey, take } => Self::check_decrease_take(who, hotkey, *take),
            Call::increase_take { hotkey, take } => Self::check_increase_take(who, hotkey, *take),
            Call::associate_evm_key { netuid, .. } => {
                let uid = Uids::<T>::get(netuid, who).ok_or(Error::<T>::HotKeyNotRegisteredInSubNet)?;
                Self::check_evm_rate(*netuid, uid)
            }
            Call::commit_timelocked_weights { reveal_round, .. }
            | Call::commit_timelocked_mechanism_weights { reveal_round, .. }
            | Call::commit_crv3_mechanism_weights { reveal_round, .. } => {
                ensure!(*reveal_round >= T::last_drand_round(), Error::<T>::InvalidRevealRound);
                Ok(())
            }
            Call::batch_set_weights { netuids, weights, version_keys } => {
                let equal = netuids.len() == weights.len() && netuids.len() == version_keys.len();
                ensure!(equal, Error::<T>::InputLengthsUnequal);
                Ok(())
            }
            Call::batch_commit_weights { netuids, commit_hashes } => {
                ensure!(netuids.len() == commit_hashes.len(), Error::<T>::InputLengthsUnequal);
                Ok(())
            }
            Call::batch_reveal_weights { uids_list, values_list, salts_list, version_keys, .. } => {
                let lengths = [values_list.len(), salts_list.len(), version_keys.len()];
                let equal = lengths.iter().all(|length| *length == uids_list.len());
                ensure!(equal, Error::<T>::InputLengthsUnequal);
                Ok(())
            }
            Call::serve_axon { netuid, ip, port, ip_type, .. }
            | Call::serve_axon_tls { netuid, ip, port, ip_type, .. } => {
                Self::check_axon(who, *netuid, Endpoint { ip: *ip, ip_type: *ip_type, port: *port })
            }
            Call::serve_prometheus { netuid, ip, port, ip_type, .. } => {
                Self::check_prometheus(who, *netuid, Endpoint { ip: *ip, ip_type: *ip_type, port: *port })
            }
            _ => Ok(()),
        }
    }

    /// A coldkey that announced its swap can go on with the swap and do nothing else: whoever stole it cannot move
    /// anything before its owner sees the announcement.
    pub(super) fn check_coldkey_swap(who: &T::AccountId, call: Option<&Call<T>>) -> Result<(), Error<T>> {
        if !ColdkeySwapAnnouncements::<T>::contains_key(who) {
            return Ok(());
        }
        ensure!(!ColdkeySwapDisputes::<T>::contains_key(who), Error::<T>::ColdkeySwapDisputed);
        let allowed = matches!(
            call,
            Some(
                Call::announce_coldkey_swap { .. }
                    | Call::swap_coldkey_announced { .. }
                    | Call::dispute_coldkey_swap {}
                    | Call::clear_coldkey_swap_announcement {}
            )
        );
        ensure!(allowed, Error::<T>::ColdkeySwapAnnounced);
        Ok(())
    }

    fn check_reveal(who: &T::AccountId, netuid: NetUid, mecid: MechId, reveal: &Reveal) -> Result<(), Error<T>> {
        let index = netuid.index(mecid);
        let queue = WeightCommits::<T>::get(index, who).ok_or(Error::<T>::NoWeightsCommitFound)?;
        let hash = Self::commit_hash(who, index, reveal);
        let commit = queue.iter().find(|(known, ..)| *known == hash).ok_or(Error::<T>::NoWeightsCommitFound)?;
        ensure!(Self::reveal_epoch_reached(netuid, commit.1), Error::<T>::RevealTooEarly);
        Ok(())
    }

    fn check_weights_rate(who: &T::AccountId, call: &Call<T>) -> Result<(), Error<T>> {
        let Some((netuid, mecid)) = weights_target(call) else { return Ok(()) };
        let error = match call {
            Call::commit_weights { .. }
            | Call::commit_mechanism_weights { .. }
            | Call::commit_timelocked_weights { .. }
            | Call::commit_timelocked_mechanism_weights { .. }
            | Call::commit_crv3_mechanism_weights { .. } => Error::<T>::CommittingWeightsTooFast,
            Call::set_weights { .. } | Call::set_mechanism_weights { .. }
                if !CommitRevealWeightsEnabled::<T>::get(netuid) =>
            {
                Error::<T>::SettingWeightsTooFast
            }
            _ => return Ok(()),
        };
        match Uids::<T>::get(netuid, who) {
            Some(uid) if !Self::weights_rate_limit_passed(netuid, netuid.index(mecid), uid) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Subnet and mechanism of a call that sets or commits weights.
fn weights_target<T: Config>(call: &Call<T>) -> Option<(NetUid, MechId)> {
    match call {
        Call::set_weights { netuid, .. }
        | Call::commit_weights { netuid, .. }
        | Call::reveal_weights { netuid, .. }
        | Call::commit_timelocked_weights { netuid, .. } => Some((*netuid, 0)),
        Call::set_mechanism_weights { netuid, mecid, .. }
        | Call::commit_mechanism_weights { netuid, mecid, .. }
        | Call::reveal_mechanism_weights { netuid, mecid, .. }
        | Call::commit_crv3_mechanism_weights { netuid, mecid, .. }
        | Call::commit_timelocked_mechanism_weights { netuid, mecid, .. } => Some((*netuid, *mecid)),
        _ => None,
    }
}

fn revealed<T: Config>(call: &Call<T>) -> Option<(NetUid, MechId, Reveal)> {
    let (netuid, mecid) = weights_target(call)?;
    match call {
        Call::reveal_weights { uids, values, salt, version_key, .. }
        | Call::reveal_mechanism_weights { uids, values, salt, version_key, .. } => {
            let (uids, values, salt) = (uids.clone(), values.clone(), salt.clone());
            Some((netuid, mecid, Reveal { uids, values, salt, version_key: *version_key }))
        }
        _ => None,
    }
}

/// The transaction extension. It adds no bytes to an extrinsic.
#[derive(Clone, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
#[scale_info(skip_type_params(T))]
pub struct SubtensorTransactionExtension<T>(PhantomData<T>);

impl<T> Default for SubtensorTransactionExtension<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> fmt::Debug for SubtensorTransactionExtension<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubtensorTransactionExtension")
    }
}

impl<T> TransactionExtension<T::RuntimeCall> for SubtensorTransactionExtension<T>
where
    T: Config + Send + Sync,
    T::RuntimeCall: Dispatchable<RuntimeOrigin = T::RuntimeOrigin, Info = DispatchInfo, PostInfo = PostDispatchInfo>
        + IsSubType<Call<T>>,
    T::RuntimeOrigin: OriginTrait<AccountId = T::AccountId> + Clone,
{
    const IDENTIFIER: &'static str = "SubtensorTransactionExtension";
    type Implicit = ();
    type Val = ();
    type Pre = ();

    fn validate(
        &self,
        origin: T::RuntimeOrigin,
        call: &T::RuntimeCall,
        _info: &DispatchInfoOf<T::RuntimeCall>,
        _len: usize,
        _self_implicit: Self::Implicit,
        _inherited_implication: &impl Implication,
        _source: TransactionSource,
    ) -> ValidateResult<Self::Val, T::RuntimeCall> {
        if let Some(who) = origin.as_signer() {
            let call = call.is_sub_type();
            Pallet::<T>::check_coldkey_swap(who, call)
                .and_then(|()| call.map_or(Ok(()), |call| Pallet::<T>::check_before_dispatch(who, call)))
                .map_err(|error| InvalidTransaction::Custom(custom_code(&error)))?;
        }
        Ok((ValidTransaction::default(), (), origin))
    }

    impl_tx_ext_default!(T::RuntimeCall; weight prepare);
}
