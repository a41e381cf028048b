//! Children: hotkeys to which another lends part of its stake weight on a subnet, for part of what it earns there.

use frame_support::ensure;
use sp_runtime::DispatchResult;

use super::limits::OwnerLimit;
use super::pallet::*;
use super::types::{AlphaBalance, NetUid};

/// Most children of a hotkey on a subnet.
const MAX_CHILDREN: usize = 5;

impl<T: Config> Pallet<T> {
    /// Whether a coldkey owns a hotkey.
    pub(super) fn owns(coldkey: &T::AccountId, hotkey: &T::AccountId) -> bool {
        Owner::<T>::try_get(hotkey).as_ref() == Ok(coldkey)
    }

    pub(super) fn do_set_children(
        coldkey: &T::AccountId,
        hotkey: &T::AccountId,
        netuid: NetUid,
        children: Vec<(u64, T::AccountId)>,
    ) -> DispatchResult {
        ensure!(Self::passes_limit(OwnerLimit::Children, hotkey, netuid), Error::<T>::TxRateLimitExceeded);
        ensure!(!netuid.is_root(), Error::<T>::RegistrationNotPermittedOnRootSubnet);
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        ensure!(Self::owns(coldkey, hotkey), Error::<T>::NonAssociatedColdKey);
        let twice = |index: usize| children[..index].iter().any(|(_, other)| *other == children[index].1);
        ensure!(!(0..children.len()).any(twice), Error::<T>::DuplicateChild);
        Self::check_children(hotkey, netuid, &children)?;
        let may = children.is_empty()
            || Self::total_stake_of(hotkey) >= StakeThreshold::<T>::get()
            || SubnetOwnerHotkey::<T>::try_get(netuid).as_ref() == Ok(hotkey);
        ensure!(may, Error::<T>::NotEnoughStakeToSetChildkeys);

        Self::note_use(OwnerLimit::Children, hotkey, netuid);
        if SubtokenEnabled::<T>::get(netuid) {
            let block = Self::block().saturating_add(PendingChildKeyCooldown::<T>::get());
            PendingChildKeys::<T>::insert(netuid, hotkey, (&children, block));
            Self::deposit_event(Event::SetChildrenScheduled(hotkey.clone(), netuid, block, children));
        } else {
            // Nobody can have staked yet, so nobody needs a warning.
            Self::apply_children(hotkey, netuid, children);
        }
        Ok(())
    }

    fn check_children(hotkey: &T::AccountId, netuid: NetUid, children: &[(u64, T::AccountId)]) -> Result<(), Error<T>> {
        ensure!(children.iter().all(|(_, child)| child != hotkey), Error::<T>::InvalidChild);
        ensure!(children.len() <= MAX_CHILDREN, Error::<T>::TooManyChildren);
        let lent: u128 = children.iter().map(|(share, _)| u128::from(*share)).sum();
        ensure!(lent <= u128::from(u64::MAX), Error::<T>::ProportionOverflow);
        let parents = ParentKeys::<T>::get(hotkey, netuid);
        let both = children.iter().any(|(_, child)| parents.iter().any(|(_, parent)| parent == child));
        ensure!(!both, Error::<T>::ChildParentInconsistency);
        Ok(())
    }

    /// Sets children whose time has come. Those that became impossible meanwhile are dropped, as on the public chain.
    pub(super) fn apply_pending_children(netuid: NetUid) {
        let started = SubtokenEnabled::<T>::get(netuid);
        let block = Self::block();
        let due: Vec<_> = PendingChildKeys::<T>::iter_prefix(netuid)
            .filter(|(_, (_, from))| *from < block || !started)
            .map(|(hotkey, (children, _))| (hotkey, children))
            .collect();
        for (hotkey, children) in due {
            PendingChildKeys::<T>::remove(netuid, &hotkey);
            if Self::check_children(&hotkey, netuid, &children).is_ok() {
                Self::apply_children(&hotkey, netuid, children);
            }
        }
    }

    fn apply_children(hotkey: &T::AccountId, netuid: NetUid, children: Vec<(u64, T::AccountId)>) {
        Self::write_children(hotkey, netuid, &children);
        Self::deposit_event(Event::SetChildren(hotkey.clone(), netuid, children));
    }

    /// Writes children, and their side of it.
    pub(super) fn write_children(hotkey: &T::AccountId, netuid: NetUid, children: &[(u64, T::AccountId)]) {
        for (_, child) in ChildKeys::<T>::take(hotkey, netuid) {
            ParentKeys::<T>::mutate_exists(&child, netuid, |slot| {
                let parents = slot.take().unwrap_or_default();
                let left: Vec<_> = parents.into_iter().filter(|(_, parent)| parent != hotkey).collect();
                *slot = (!left.is_empty()).then_some(left);
            });
        }
        for (share, child) in children {
            ParentKeys::<T>::append(child, netuid, (share, hotkey));
        }
        if !children.is_empty() {
            ChildKeys::<T>::insert(hotkey, netuid, children);
        }
    }

    /// Least take that child hotkeys may have on a subnet.
    pub(super) fn min_childkey_take(netuid: NetUid) -> u16 {
        MinChildkeyTake::<T>::get().max(MinChildkeyTakePerSubnet::<T>::get(netuid))
    }

    pub(super) fn do_set_childkey_take(
        coldkey: &T::AccountId,
        hotkey: &T::AccountId,
        netuid: NetUid,
        take: u16,
    ) -> DispatchResult {
        ensure!(Self::owns(coldkey, hotkey), Error::<T>::NonAssociatedColdKey);
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        let allowed = Self::min_childkey_take(netuid)..=MaxChildkeyTake::<T>::get();
        ensure!(allowed.contains(&take), Error::<T>::InvalidChildkeyTake);
        // Parents may be surprised by more, not by less.
        let raised = take > Self::childkey_take(hotkey, netuid);
        ensure!(
            !raised || Self::passes_limit(OwnerLimit::ChildkeyTake, hotkey, netuid),
            Error::<T>::TxChildkeyTakeRateLimitExceeded
        );
        Self::note_use(OwnerLimit::ChildkeyTake, hotkey, netuid);
        ChildkeyTake::<T>::insert(hotkey, netuid, take);
        Self::deposit_event(Event::ChildKeyTakeSet(hotkey.clone(), take));
        Ok(())
    }

    fn childkey_take(hotkey: &T::AccountId, netuid: NetUid) -> u16 {
        ChildkeyTake::<T>::get(hotkey, netuid).max(Self::min_childkey_take(netuid))
    }

    /// Whose a hotkey's dividends are: its parents' in proportion to what they lent, less its take, and its own.
    pub(super) fn with_parents(
        hotkey: &T::AccountId,
        netuid: NetUid,
        dividends: AlphaBalance,
    ) -> Vec<(T::AccountId, AlphaBalance)> {
        let parents = ParentKeys::<T>::get(hotkey, netuid);
        if parents.is_empty() || dividends == 0 {
            return vec![(hotkey.clone(), dividends)];
        }
        let part = |amount: u128, share: u128, of: u128| (amount * share).checked_div(of).unwrap_or(0);
        let max = u128::from(u64::MAX);
        let lent: u128 = ChildKeys::<T>::get(hotkey, netuid).iter().map(|(share, _)| u128::from(*share)).sum();
        let own = part(Self::own_weight(hotkey, netuid), max.saturating_sub(lent), max);
        let lenders: Vec<_> = parents
            .into_iter()
            .map(|(share, parent)| (part(Self::own_weight(&parent, netuid), u128::from(share), max), parent))
            .collect();
        let all = own + lenders.iter().map(|(weight, _)| weight).sum::<u128>();
        let take = u128::from(Self::childkey_take(hotkey, netuid));
        let owner = Owner::<T>::get(hotkey);
        let mut rest = dividends;
        let mut shares: Vec<_> = lenders
            .into_iter()
            .map(|(weight, parent)| {
                let earned = part(u128::from(dividends), weight, all);
                // Nobody takes from their own other hotkey.
                let take = if Owner::<T>::get(&parent) == owner { 0 } else { part(earned, take, u128::from(u16::MAX)) };
                let share = u64::try_from(earned - take).unwrap_or(rest).min(rest);
                rest -= share;
                (parent, share)
            })
            .collect();
        shares.push((hotkey.clone(), rest));
        shares
    }

    /// Stake of a hotkey on a subnet without what it lent or was lent: alpha and weighted root TAO.
    fn own_weight(hotkey: &T::AccountId, netuid: NetUid) -> u128 {
        let alpha = u128::from(TotalHotkeyAlpha::<T>::get(hotkey, netuid));
        let tao = u128::from(TotalHotkeyAlpha::<T>::get(hotkey, NetUid::ROOT));
        alpha + ((tao * u128::from(TaoWeight::<T>::get())) >> 64)
    }

    /// TAO that all of a hotkey's stake is worth.
    pub(super) fn total_stake_of(hotkey: &T::AccountId) -> u64 {
        let worth = |netuid: NetUid| {
            let alpha = u128::from(TotalHotkeyAlpha::<T>::get(hotkey, netuid));
            alpha * u128::from(Self::alpha_price(netuid)) / 1_000_000_000
        };
        let all: u128 = Self::netuids().into_iter().map(worth).sum();
        u64::try_from(all).unwrap_or(u64::MAX)
    }

    /// Drops the children that wait of a hotkey that no longer has the stake for them.
    pub(super) fn drop_unaffordable_children(hotkey: &T::AccountId) {
        if Self::total_stake_of(hotkey) < StakeThreshold::<T>::get() {
            for netuid in Self::netuids() {
                PendingChildKeys::<T>::remove(netuid, hotkey);
            }
        }
    }
}
