//! What coldkeys have staked.

use codec::{Compact, Decode, Encode};
use scale_info::TypeInfo;
use sp_runtime::AccountId32;

use super::super::pallet::*;
use super::super::types::{AlphaBalance, NetUid, TaoBalance};

/// The stake of one coldkey on one hotkey and subnet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct StakeInfo {
    /// Staked to.
    pub hotkey: AccountId32,
    /// Staked by.
    pub coldkey: AccountId32,
    /// Subnet.
    pub netuid: Compact<NetUid>,
    /// Alpha.
    pub stake: Compact<AlphaBalance>,
    /// Locked part; this chain has no locks.
    pub locked: Compact<u64>,
    /// Alpha the hotkey earned in the last epoch.
    pub emission: Compact<AlphaBalance>,
    /// TAO the hotkey earned; paid in alpha here.
    pub tao_emission: Compact<TaoBalance>,
    /// Unused.
    pub drain: Compact<u64>,
    /// Whether the hotkey is registered on the subnet.
    pub is_registered: bool,
}

/// How much of a stake can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct StakeAvailability {
    /// Alpha staked.
    pub total: Compact<AlphaBalance>,
    /// Alpha locked; this chain has no locks.
    pub locked: Compact<AlphaBalance>,
    /// Alpha that can be taken out.
    pub available: Compact<AlphaBalance>,
}

impl<T: Config> Pallet<T> {
    /// A stake, also when it is 0: clients expect an answer.
    pub fn get_stake_info(hotkey: &AccountId32, coldkey: &AccountId32, netuid: NetUid) -> StakeInfo {
        let uid = Uids::<T>::get(netuid, hotkey);
        let emission = uid.and_then(|uid| Emission::<T>::get(netuid).get(usize::from(uid)).copied());
        StakeInfo {
            hotkey: hotkey.clone(),
            coldkey: coldkey.clone(),
            netuid: Compact(netuid),
            stake: Compact(Self::stake_of(hotkey, coldkey, netuid)),
            locked: Compact(0),
            emission: Compact(emission.unwrap_or(0)),
            tao_emission: Compact(0),
            drain: Compact(0),
            is_registered: uid.is_some(),
        }
    }

    /// Every stake of a coldkey.
    pub fn get_stake_infos(coldkey: &AccountId32) -> Vec<StakeInfo> {
        let netuids = Self::netuids();
        StakingHotkeys::<T>::get(coldkey)
            .iter()
            .flat_map(|hotkey| netuids.iter().map(move |netuid| (hotkey, *netuid)))
            .map(|(hotkey, netuid)| Self::get_stake_info(hotkey, coldkey, netuid))
            .filter(|info| info.stake.0 > 0)
            .collect()
    }

    /// What a coldkey could take out of a subnet.
    pub fn get_stake_availability(coldkey: &AccountId32, netuid: NetUid) -> StakeAvailability {
        let hotkeys = StakingHotkeys::<T>::get(coldkey);
        let total = hotkeys.iter().map(|hotkey| Self::stake_of(hotkey, coldkey, netuid)).sum();
        StakeAvailability { total: Compact(total), locked: Compact(0), available: Compact(total) }
    }
}
