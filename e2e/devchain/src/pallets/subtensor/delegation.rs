//! Takes of delegates, seats on the root network, where miners' earnings go, and identities.

use frame_support::ensure;
use sp_runtime::DispatchResult;

use super::pallet::*;
use super::types::{ChainIdentityV2, NetUid, RateLimitKey};

impl<T: Config> Pallet<T> {
    fn check_take(coldkey: &T::AccountId, hotkey: &T::AccountId) -> Result<(), Error<T>> {
        ensure!(Owner::<T>::contains_key(hotkey), Error::<T>::HotKeyAccountNotExists);
        ensure!(Self::owns(coldkey, hotkey), Error::<T>::NonAssociatedColdKey);
        Ok(())
    }

    fn note_take(hotkey: &T::AccountId) {
        LastRateLimitedBlock::<T>::insert(RateLimitKey::LastTxBlockDelegateTake(hotkey.clone()), Self::block());
    }

    pub(super) fn check_decrease_take(
        coldkey: &T::AccountId,
        hotkey: &T::AccountId,
        take: u16,
    ) -> Result<(), Error<T>> {
        Self::check_take(coldkey, hotkey)?;
        let lower = Delegates::<T>::try_get(hotkey).map_or(true, |current| take < current);
        ensure!(lower && take >= MinDelegateTake::<T>::get(), Error::<T>::DelegateTakeTooLow);
        Ok(())
    }

    pub(super) fn do_decrease_take(coldkey: T::AccountId, hotkey: T::AccountId, take: u16) -> DispatchResult {
        Self::check_decrease_take(&coldkey, &hotkey, take)?;
        Delegates::<T>::insert(&hotkey, take);
        Self::note_take(&hotkey);
        Self::deposit_event(Event::TakeDecreased(coldkey, hotkey, take));
        Ok(())
    }

    pub(super) fn check_increase_take(
        coldkey: &T::AccountId,
        hotkey: &T::AccountId,
        take: u16,
    ) -> Result<(), Error<T>> {
        Self::check_take(coldkey, hotkey)?;
        let higher = Delegates::<T>::try_get(hotkey).map_or(true, |current| take > current);
        ensure!(higher, Error::<T>::DelegateTakeTooLow);
        ensure!(take <= MaxDelegateTake::<T>::get(), Error::<T>::DelegateTakeTooHigh);
        Ok(())
    }

    pub(super) fn do_increase_take(coldkey: T::AccountId, hotkey: T::AccountId, take: u16) -> DispatchResult {
        Self::check_increase_take(&coldkey, &hotkey, take)?;
        // Nominators need time to leave before they earn less.
        let last = LastRateLimitedBlock::<T>::get(RateLimitKey::LastTxBlockDelegateTake(hotkey.clone()));
        let limit = TxDelegateTakeRateLimit::<T>::get();
        let allowed = last == 0 || limit == 0 || Self::block().saturating_sub(last) > limit;
        ensure!(allowed, Error::<T>::DelegateTxRateLimitExceeded);
        Self::note_take(&hotkey);
        Delegates::<T>::insert(&hotkey, take);
        Self::deposit_event(Event::TakeIncreased(coldkey, hotkey, take));
        Ok(())
    }

    /// Whoever is staked to by others, or sits on root, is a delegate, at the largest take unless it said otherwise.
    pub(super) fn become_delegate(hotkey: &T::AccountId) {
        if !Delegates::<T>::contains_key(hotkey) {
            Delegates::<T>::insert(hotkey, MaxDelegateTake::<T>::get());
        }
    }

    /// Takes a seat on the root network, for free while there is one, else from the seat with the least stake.
    pub(super) fn do_root_register(coldkey: &T::AccountId, hotkey: &T::AccountId) -> DispatchResult {
        let root = NetUid::ROOT;
        ensure!(Self::exists(root), Error::<T>::RootNetworkDoesNotExist);
        ensure!(!Uids::<T>::contains_key(root, hotkey), Error::<T>::HotKeyAlreadyRegisteredInSubNet);
        Self::create_hotkey_if_new(coldkey, hotkey);
        let n = SubnetworkN::<T>::get(root);
        let uid = if n < MaxAllowedUids::<T>::get(root) {
            Self::append_neuron(root, hotkey, n);
            n
        } else {
            let stake = |hotkey: &T::AccountId| TotalHotkeyAlpha::<T>::get(hotkey, root);
            let seats = (0..n).map(|uid| (stake(&Keys::<T>::get(root, uid)), uid));
            let (least, uid) = seats.min().ok_or(Error::<T>::NoNeuronIdAvailable)?;
            ensure!(least < stake(hotkey), Error::<T>::StakeTooLowForRoot);
            Self::replace_neuron(root, uid, hotkey);
            uid
        };
        Self::become_delegate(hotkey);
        Self::deposit_event(Event::NeuronRegistered(root, uid, hotkey.clone()));
        Ok(())
    }

    pub(super) fn do_set_auto_stake(coldkey: T::AccountId, netuid: NetUid, hotkey: T::AccountId) -> DispatchResult {
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        ensure!(Uids::<T>::contains_key(netuid, &hotkey), Error::<T>::HotKeyNotRegisteredInSubNet);
        let current = AutoStakeDestination::<T>::get(&coldkey, netuid);
        ensure!(current.as_ref() != Some(&hotkey), Error::<T>::SameAutoStakeHotkeyAlreadySet);
        if let Some(current) = current {
            AutoStakeDestinationColdkeys::<T>::mutate(current, netuid, |coldkeys| coldkeys.retain(|c| *c != coldkey));
        }
        AutoStakeDestination::<T>::insert(&coldkey, netuid, &hotkey);
        AutoStakeDestinationColdkeys::<T>::append(&hotkey, netuid, &coldkey);
        Self::deposit_event(Event::AutoStakeDestinationSet { coldkey, netuid, hotkey });
        Ok(())
    }

    pub(super) fn do_set_identity(coldkey: T::AccountId, identity: ChainIdentityV2) -> DispatchResult {
        let registered = |hotkey: &T::AccountId| IsNetworkMember::<T>::iter_prefix(hotkey).any(|(_, member)| member);
        let known = OwnedHotkeys::<T>::get(&coldkey).iter().any(registered);
        ensure!(known, Error::<T>::HotKeyNotRegisteredInNetwork);
        let i = &identity;
        let short = [&i.name, &i.url, &i.github_repo, &i.discord].iter().all(|text| text.len() <= 256);
        let long = [&i.image, &i.description, &i.additional].iter().all(|text| text.len() <= 1024);
        ensure!(short && long, Error::<T>::InvalidIdentity);
        IdentitiesV2::<T>::insert(&coldkey, identity);
        Self::deposit_event(Event::ChainIdentitySet(coldkey));
        Ok(())
    }
}
