//! One key in the place of another: hotkeys at once, coldkeys after an announcement that gives time to object.

use frame_support::ensure;
use sp_runtime::traits::Hash;
use sp_runtime::{DispatchResult, SaturatedConversion};

use super::moving::Position;
use super::pallet::*;
use super::types::{NetUid, RateLimitKey, TaoBalance};

/// Price of a swap of a key, in rao: a tenth of a TAO.
pub(super) const KEY_SWAP_COST: TaoBalance = 100_000_000;

/// Price of a swap of a hotkey on one subnet, in rao.
pub(super) const SUBNET_SWAP_COST: TaoBalance = 1_000_000;

/// Blocks between two swaps of hotkeys by a coldkey on a subnet: one, as on the public localnet.
pub(super) const SWAP_INTERVAL: u64 = 1;

impl<T: Config> Pallet<T> {
    pub(super) fn do_swap_hotkey(
        coldkey: T::AccountId,
        old: T::AccountId,
        new: T::AccountId,
        netuid: Option<NetUid>,
        keep_stake: bool,
    ) -> DispatchResult {
        ensure!(netuid.is_none_or(Self::exists), Error::<T>::SubnetNotExists);
        ensure!(Self::owns(&coldkey, &old), Error::<T>::NonAssociatedColdKey);
        let free = !Owner::<T>::contains_key(&new) || Self::owns(&coldkey, &new);
        ensure!(free, Error::<T>::NonAssociatedColdKey);
        ensure!(old != new, Error::<T>::NewHotKeyIsSameWithOld);
        let netuids = netuid.map_or_else(Self::netuids, |netuid| vec![netuid]);
        let registered = netuids.iter().any(|netuid| Uids::<T>::contains_key(netuid, &new));
        ensure!(!registered, Error::<T>::HotKeyAlreadyRegisteredInSubNet);
        let clean = TotalHotkeyAlpha::<T>::get(&new, NetUid::ROOT) == 0;
        ensure!(clean || !netuids.contains(&NetUid::ROOT), Error::<T>::NewHotKeyNotCleanForRootSwap);
        let concerned = |netuid: &&NetUid| {
            IsNetworkMember::<T>::get(&old, **netuid) || ChildKeys::<T>::contains_key(&old, **netuid)
        };
        for netuid in netuids.iter().filter(concerned) {
            let last = LastHotkeySwapOnNetuid::<T>::get(netuid, &coldkey);
            let waited = last == 0 || Self::block().saturating_sub(last) > SWAP_INTERVAL;
            ensure!(waited, Error::<T>::HotKeySwapOnSubnetIntervalNotPassed);
        }
        let cost = if netuid.is_some() { SUBNET_SWAP_COST } else { KEY_SWAP_COST };
        ensure!(Self::spendable(&coldkey) >= cost, Error::<T>::NotEnoughBalanceToPaySwapHotKey);

        Self::withdraw(&coldkey, cost)?;
        Self::create_hotkey_if_new(&coldkey, &new);
        for netuid in &netuids {
            if concerned(&netuid) {
                LastHotkeySwapOnNetuid::<T>::insert(netuid, &coldkey, Self::block());
            }
            Self::swap_on_subnet(&old, &new, *netuid);
            if !keep_stake {
                Self::swap_stakes(&old, &new, *netuid);
            }
        }
        let Some(netuid) = netuid else {
            Self::swap_everywhere(&coldkey, &old, &new, keep_stake);
            Self::deposit_event(Event::HotkeySwapped { coldkey, old_hotkey: old, new_hotkey: new });
            return Ok(());
        };
        Self::deposit_event(Event::HotkeySwappedOnSubnet { coldkey, old_hotkey: old, new_hotkey: new, netuid });
        Ok(())
    }

    fn swap_everywhere(coldkey: &T::AccountId, old: &T::AccountId, new: &T::AccountId, keep_stake: bool) {
        if let Ok(take) = Delegates::<T>::try_get(old) {
            Delegates::<T>::remove(old);
            Delegates::<T>::insert(new, take);
        }
        let take_clock = |hotkey: &T::AccountId| RateLimitKey::LastTxBlockDelegateTake(hotkey.clone());
        let last = LastRateLimitedBlock::<T>::take(take_clock(old));
        LastRateLimitedBlock::<T>::insert(take_clock(new), last);
        if !keep_stake {
            Owner::<T>::remove(old);
            OwnedHotkeys::<T>::mutate(coldkey, |hotkeys| hotkeys.retain(|hotkey| hotkey != old));
        }
    }

    /// Gives the new hotkey everything that the old one is and has on a subnet, but its stake.
    fn swap_on_subnet(old: &T::AccountId, new: &T::AccountId, netuid: NetUid) {
        if let Some(uid) = Uids::<T>::take(netuid, old) {
            Uids::<T>::insert(netuid, new, uid);
            Keys::<T>::insert(netuid, uid, new);
            IsNetworkMember::<T>::remove(old, netuid);
            IsNetworkMember::<T>::insert(new, netuid, true);
        }
        Axons::<T>::swap(netuid, old, netuid, new);
        Prometheus::<T>::swap(netuid, old, netuid, new);
        NeuronCertificates::<T>::swap(netuid, old, netuid, new);
        for mecid in 0..MechanismCountCurrent::<T>::get(netuid) {
            let index = netuid.index(mecid);
            WeightCommits::<T>::swap(index, old, index, new);
        }
        if ChildkeyTake::<T>::contains_key(old, netuid) {
            ChildkeyTake::<T>::insert(new, netuid, ChildkeyTake::<T>::take(old, netuid));
        }
        let children = ChildKeys::<T>::get(old, netuid);
        Self::write_children(old, netuid, &[]);
        Self::write_children(new, netuid, &children);
        for (share, parent) in ParentKeys::<T>::take(old, netuid) {
            ParentKeys::<T>::append(new, netuid, (share, &parent));
            ChildKeys::<T>::mutate(&parent, netuid, |children| rename(children, old, new));
        }
        PendingChildKeys::<T>::swap(netuid, old, netuid, new);
        let waiting: Vec<_> = PendingChildKeys::<T>::iter_key_prefix(netuid).collect();
        for parent in waiting {
            PendingChildKeys::<T>::mutate(netuid, parent, |(children, _)| rename(children, old, new));
        }
        let coldkeys = AutoStakeDestinationColdkeys::<T>::take(old, netuid);
        for coldkey in &coldkeys {
            AutoStakeDestination::<T>::insert(coldkey, netuid, new);
        }
        if !coldkeys.is_empty() {
            AutoStakeDestinationColdkeys::<T>::insert(new, netuid, coldkeys);
        }
        if SubnetOwnerHotkey::<T>::try_get(netuid).as_ref() == Ok(old) {
            SubnetOwnerHotkey::<T>::insert(netuid, new);
        }
    }

    fn swap_stakes(old: &T::AccountId, new: &T::AccountId, netuid: NetUid) {
        TotalHotkeyAlphaLastEpoch::<T>::swap(old, netuid, new, netuid);
        AlphaDividendsPerSubnet::<T>::swap(netuid, old, netuid, new);
        let staked: Vec<_> = AlphaV2::<T>::iter_prefix((old,))
            .filter(|((_, other), _)| *other == netuid)
            .map(|((coldkey, _), _)| coldkey)
            .collect();
        for coldkey in staked {
            let amount = Self::stake_of(old, &coldkey, netuid);
            Self::decrease_stake(old, &coldkey, netuid, amount);
            Self::increase_stake(new, &coldkey, netuid, amount);
            Self::forget_staking_hotkey(&coldkey, old);
        }
    }

    /// Takes a hotkey off the list of a coldkey that has nothing staked to it any more.
    fn forget_staking_hotkey(coldkey: &T::AccountId, hotkey: &T::AccountId) {
        if AlphaV2::<T>::iter_prefix((hotkey, coldkey)).next().is_none() {
            StakingHotkeys::<T>::mutate(coldkey, |hotkeys| hotkeys.retain(|known| known != hotkey));
        }
    }

    /// Announces the hash of the coldkey that is to replace the signer. Until then it can do nothing else.
    pub(super) fn do_announce_coldkey_swap(who: T::AccountId, new_coldkey_hash: T::Hash) -> DispatchResult {
        let now = frame_system::Pallet::<T>::block_number();
        if let Some((from, _)) = ColdkeySwapAnnouncements::<T>::get(&who) {
            let again: u64 = ColdkeySwapReannouncementDelay::<T>::get().saturated_into();
            let from: u64 = from.saturated_into();
            ensure!(Self::block() >= from.saturating_add(again), Error::<T>::ColdkeySwapReannouncedTooEarly);
        } else {
            ensure!(Self::spendable(&who) >= KEY_SWAP_COST, Error::<T>::NotEnoughBalanceToPaySwapColdKey);
            Self::withdraw(&who, KEY_SWAP_COST)?;
        }
        let from = now + ColdkeySwapAnnouncementDelay::<T>::get();
        ColdkeySwapAnnouncements::<T>::insert(&who, (from, new_coldkey_hash));
        Self::deposit_event(Event::ColdkeySwapAnnounced { who, new_coldkey_hash });
        Ok(())
    }

    pub(super) fn do_swap_coldkey_announced(who: T::AccountId, new: T::AccountId) -> DispatchResult {
        let announced = ColdkeySwapAnnouncements::<T>::get(&who);
        let (from, hash) = announced.ok_or(Error::<T>::ColdkeySwapAnnouncementNotFound)?;
        ensure!(T::Hashing::hash_of(&new) == hash, Error::<T>::AnnouncedColdkeyHashDoesNotMatch);
        ensure!(frame_system::Pallet::<T>::block_number() >= from, Error::<T>::ColdkeySwapTooEarly);
        ensure!(!ColdkeySwapDisputes::<T>::contains_key(&who), Error::<T>::ColdkeySwapDisputed);
        Self::swap_coldkey_keys(who, new)
    }

    /// Gives a new coldkey everything that an old one owns: hotkeys, subnets, stake, identity and TAO.
    pub(super) fn swap_coldkey_keys(old: T::AccountId, new: T::AccountId) -> DispatchResult {
        ensure!(StakingHotkeys::<T>::get(&new).is_empty(), Error::<T>::ColdKeyAlreadyAssociated);
        ensure!(!Owner::<T>::contains_key(&new), Error::<T>::NewColdKeyIsHotkey);
        ColdkeySwapAnnouncements::<T>::remove(&old);
        ColdkeySwapDisputes::<T>::remove(&old);
        for netuid in Self::netuids() {
            if SubnetOwner::<T>::try_get(netuid).as_ref() == Ok(&old) {
                SubnetOwner::<T>::insert(netuid, &new);
            }
            AutoStakeDestination::<T>::swap(&old, netuid, &new, netuid);
            if let Some(hotkey) = AutoStakeDestination::<T>::get(&new, netuid) {
                AutoStakeDestinationColdkeys::<T>::mutate(hotkey, netuid, |coldkeys| {
                    coldkeys.iter_mut().filter(|coldkey| **coldkey == old).for_each(|coldkey| *coldkey = new.clone());
                });
            }
        }
        for hotkey in StakingHotkeys::<T>::get(&old) {
            for netuid in Self::netuids() {
                let position =
                    |coldkey: &T::AccountId| Position { coldkey: coldkey.clone(), hotkey: hotkey.clone(), netuid };
                Self::hand_over(&position(&old), &position(&new));
            }
        }
        StakingHotkeys::<T>::remove(&old);
        let hotkeys = OwnedHotkeys::<T>::take(&old);
        for hotkey in &hotkeys {
            Owner::<T>::insert(hotkey, &new);
        }
        OwnedHotkeys::<T>::mutate(&new, |owned| owned.extend(hotkeys));
        IdentitiesV2::<T>::swap(&old, &new);
        Self::hand_over_balance(&old, &new)?;
        Self::deposit_event(Event::ColdkeySwapped { old_coldkey: old, new_coldkey: new });
        Ok(())
    }

    /// Gives a position to another coldkey as it is.
    fn hand_over(from: &Position<T::AccountId>, to: &Position<T::AccountId>) {
        let amount = Self::stake_of(&from.hotkey, &from.coldkey, from.netuid);
        if amount > 0 {
            Self::decrease_stake(&from.hotkey, &from.coldkey, from.netuid, amount);
            Self::increase_stake(&to.hotkey, &to.coldkey, to.netuid, amount);
        }
    }

    /// Swaps coldkeys at once, for root.
    pub(super) fn do_swap_coldkey(old: T::AccountId, new: T::AccountId, cost: TaoBalance) -> DispatchResult {
        if cost > 0 {
            ensure!(Self::spendable(&old) >= cost, Error::<T>::NotEnoughBalanceToPaySwapColdKey);
            Self::withdraw(&old, cost)?;
        }
        Self::swap_coldkey_keys(old, new)
    }

    pub(super) fn do_dispute_coldkey_swap(coldkey: T::AccountId) -> DispatchResult {
        let announced = ColdkeySwapAnnouncements::<T>::contains_key(&coldkey);
        ensure!(announced, Error::<T>::ColdkeySwapAnnouncementNotFound);
        let disputed = ColdkeySwapDisputes::<T>::contains_key(&coldkey);
        ensure!(!disputed, Error::<T>::ColdkeySwapAlreadyDisputed);
        ColdkeySwapDisputes::<T>::insert(&coldkey, frame_system::Pallet::<T>::block_number());
        Self::deposit_event(Event::ColdkeySwapDisputed { coldkey });
        Ok(())
    }

    pub(super) fn do_clear_coldkey_swap(who: T::AccountId) -> DispatchResult {
        let (from, _) = ColdkeySwapAnnouncements::<T>::get(&who).ok_or(Error::<T>::ColdkeySwapAnnouncementNotFound)?;
        let from: u64 = from.saturated_into();
        let again: u64 = ColdkeySwapReannouncementDelay::<T>::get().saturated_into();
        ensure!(Self::block() >= from.saturating_add(again), Error::<T>::ColdkeySwapClearTooEarly);
        ColdkeySwapAnnouncements::<T>::remove(&who);
        Self::deposit_event(Event::ColdkeySwapCleared { who });
        Ok(())
    }
}

/// Puts another hotkey in the place of one.
fn rename<AccountId: PartialEq + Clone>(keys: &mut [(u64, AccountId)], old: &AccountId, new: &AccountId) {
    keys.iter_mut().filter(|(_, key)| key == old).for_each(|(_, key)| *key = new.clone());
}
