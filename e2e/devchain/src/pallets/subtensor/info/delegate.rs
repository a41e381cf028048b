//! Delegates: hotkeys that others stake to.

use std::collections::BTreeMap;

use codec::{Compact, Decode, Encode};
use scale_info::TypeInfo;
use sp_runtime::AccountId32;

use super::super::pallet::*;
use super::super::types::{AlphaBalance, NetUid};

/// Blocks of a day of twelve-second blocks, which is what returns are told for.
const BLOCKS_PER_DAY: u128 = 7_200;

/// A thousand TAO in rao.
const THOUSAND_TAO: u128 = 1_000_000_000_000;

/// Stakes of one nominator: subnet and alpha.
type Stakes = Vec<(Compact<NetUid>, Compact<u64>)>;

/// A delegate with its nominators and what it earns.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct DelegateInfo<AccountId> {
    /// Hotkey.
    pub delegate_ss58: AccountId,
    /// Take in 65535ths.
    pub take: Compact<u16>,
    /// Who stakes how much.
    pub nominators: Vec<(AccountId, Stakes)>,
    /// Coldkey.
    pub owner_ss58: AccountId,
    /// Subnets on which it is registered.
    pub registrations: Vec<Compact<NetUid>>,
    /// Subnets on which its weights count.
    pub validator_permits: Vec<Compact<NetUid>>,
    /// Alpha a day per thousand TAO on root, without the take.
    pub return_per_1000: Compact<u64>,
    /// Alpha a day.
    pub total_daily_return: Compact<u64>,
}

/// A delegate, and a subnet with what one coldkey staked to it there.
pub type Delegated = (DelegateInfo<AccountId32>, (Compact<NetUid>, Compact<AlphaBalance>));

impl<T: Config> Pallet<T> {
    fn delegate_info(hotkey: &AccountId32, with_nominators: bool) -> DelegateInfo<AccountId32> {
        let mut nominators: BTreeMap<AccountId32, Stakes> = BTreeMap::new();
        if with_nominators {
            for ((coldkey, netuid), _) in AlphaV2::<T>::iter_prefix((hotkey,)) {
                let alpha = Self::stake_of(hotkey, &coldkey, netuid);
                nominators.entry(coldkey).or_default().push((Compact(netuid), Compact(alpha)));
            }
        }
        let mut registrations: Vec<(NetUid, u16)> =
            Self::netuids().into_iter().filter_map(|netuid| Some((netuid, Uids::<T>::get(netuid, hotkey)?))).collect();
        registrations.sort_unstable();
        let permitted = |(netuid, uid): &(NetUid, u16)| {
            ValidatorPermit::<T>::get(netuid).get(usize::from(*uid)).copied().unwrap_or(false)
        };
        let per_day = |(netuid, uid): &(NetUid, u16)| {
            let emission = Emission::<T>::get(netuid).get(usize::from(*uid)).copied().unwrap_or(0);
            let tempo = u128::from(Tempo::<T>::get(netuid));
            (u128::from(emission) * BLOCKS_PER_DAY).checked_div(tempo).unwrap_or(0)
        };
        let daily: u128 = registrations.iter().map(per_day).sum();
        let take = Delegates::<T>::get(hotkey);
        let root = u128::from(TotalHotkeyAlpha::<T>::get(hotkey, NetUid::ROOT));
        let kept = daily * u128::from(u16::MAX - take) / u128::from(u16::MAX);
        let narrow = |value: u128| Compact(u64::try_from(value).unwrap_or(u64::MAX));
        DelegateInfo {
            delegate_ss58: hotkey.clone(),
            take: Compact(take),
            nominators: nominators.into_iter().collect(),
            owner_ss58: Owner::<T>::get(hotkey),
            registrations: registrations.iter().map(|(netuid, _)| Compact(*netuid)).collect(),
            validator_permits: registrations
                .iter()
                .filter(|at| permitted(at))
                .map(|(netuid, _)| Compact(*netuid))
                .collect(),
            return_per_1000: narrow((kept * THOUSAND_TAO).checked_div(root).unwrap_or(0)),
            total_daily_return: narrow(daily),
        }
    }

    /// Every delegate.
    pub fn get_delegates() -> Vec<DelegateInfo<AccountId32>> {
        Delegates::<T>::iter_keys().map(|hotkey| Self::delegate_info(&hotkey, true)).collect()
    }

    /// One delegate.
    pub fn get_delegate(hotkey: &AccountId32) -> Option<DelegateInfo<AccountId32>> {
        Delegates::<T>::contains_key(hotkey).then(|| Self::delegate_info(hotkey, true))
    }

    /// Every delegate that a coldkey stakes to, once for each subnet, with the alpha there.
    pub fn get_delegated(coldkey: &AccountId32) -> Vec<Delegated> {
        let stakes = |hotkey: AccountId32| {
            let netuids: Vec<NetUid> =
                AlphaV2::<T>::iter_prefix((&hotkey, coldkey)).map(|(netuid, _)| netuid).collect();
            netuids.into_iter().map(move |netuid| (hotkey.clone(), netuid))
        };
        Delegates::<T>::iter_keys()
            .flat_map(stakes)
            .map(|(hotkey, netuid)| {
                let alpha = Self::stake_of(&hotkey, coldkey, netuid);
                (Self::delegate_info(&hotkey, false), (Compact(netuid), Compact(alpha)))
            })
            .collect()
    }
}
