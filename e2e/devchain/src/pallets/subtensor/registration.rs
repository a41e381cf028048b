//! Subnets and the slots of neurons: who gets a uid, at which price, and who loses one.

use frame_support::ensure;
use frame_support::traits::fungible::{Inspect, Mutate};
use frame_support::traits::tokens::{Fortitude, Precision, Preservation};
use sp_runtime::{DispatchError, DispatchResult, SaturatedConversion};
use substrate_fixed::types::U64F64;

use super::pallet::*;
use super::types::{NetUid, SubnetIdentityV3, TaoBalance};

/// Values that a new subnet starts with where they differ from the storage defaults.
#[derive(Debug, Clone)]
pub struct NewSubnet<AccountId> {
    /// Coldkey of the owner.
    pub owner: AccountId,
    /// Hotkey of the owner.
    pub owner_hotkey: AccountId,
    /// 0 stable, 1 priced by the pool.
    pub mechanism: u16,
    /// TAO in the pool.
    pub pool_tao: TaoBalance,
    /// Alpha in the pool.
    pub pool_alpha: u64,
}

impl<T: Config> Pallet<T> {
    /// Number of the block being built.
    pub fn block() -> u64 {
        frame_system::Pallet::<T>::block_number().saturated_into()
    }

    /// Whether a subnet exists.
    pub fn exists(netuid: NetUid) -> bool {
        NetworksAdded::<T>::get(netuid)
    }

    /// Every subnet, root included, in order.
    pub fn netuids() -> Vec<NetUid> {
        let mut netuids: Vec<NetUid> =
            NetworksAdded::<T>::iter().filter_map(|(netuid, added)| added.then_some(netuid)).collect();
        netuids.sort_unstable();
        netuids
    }

    /// The signer, if it owns the subnet.
    pub fn ensure_subnet_owner(
        origin: frame_system::pallet_prelude::OriginFor<T>,
        netuid: NetUid,
    ) -> Result<T::AccountId, DispatchError> {
        let who = frame_system::ensure_signed(origin)?;
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        ensure!(SubnetOwner::<T>::get(netuid) == who, Error::<T>::NotSubnetOwner);
        Ok(who)
    }

    /// Takes TAO from a coldkey and keeps its account alive.
    pub(super) fn withdraw(coldkey: &T::AccountId, amount: TaoBalance) -> DispatchResult {
        let burned = <pallet_balances::Pallet<T> as Mutate<T::AccountId>>::burn_from(
            coldkey,
            amount,
            Preservation::Preserve,
            Precision::Exact,
            Fortitude::Polite,
        );
        burned.map(|_| ()).map_err(|_| Error::<T>::ZeroBalanceAfterWithdrawn.into())
    }

    /// Gives TAO to a coldkey.
    pub(super) fn deposit(coldkey: &T::AccountId, amount: TaoBalance) -> DispatchResult {
        <pallet_balances::Pallet<T> as Mutate<T::AccountId>>::mint_into(coldkey, amount).map(|_| ())
    }

    /// Gives all TAO of a coldkey to another. The account need not stay.
    pub(super) fn hand_over_balance(from: &T::AccountId, to: &T::AccountId) -> DispatchResult {
        let all = <pallet_balances::Pallet<T> as Inspect<T::AccountId>>::reducible_balance(
            from,
            Preservation::Expendable,
            Fortitude::Polite,
        );
        if all > 0 {
            <pallet_balances::Pallet<T> as Mutate<T::AccountId>>::transfer(from, to, all, Preservation::Expendable)?;
        }
        Ok(())
    }

    /// What a coldkey can spend and keep its account.
    pub(super) fn spendable(coldkey: &T::AccountId) -> TaoBalance {
        <pallet_balances::Pallet<T> as Inspect<T::AccountId>>::reducible_balance(
            coldkey,
            Preservation::Preserve,
            Fortitude::Polite,
        )
    }

    /// Binds a hotkey to its owner unless someone owns it already.
    pub fn create_hotkey_if_new(coldkey: &T::AccountId, hotkey: &T::AccountId) {
        if Owner::<T>::contains_key(hotkey) {
            return;
        }
        Owner::<T>::insert(hotkey, coldkey);
        OwnedHotkeys::<T>::append(coldkey, hotkey);
    }

    pub(super) fn do_register(
        coldkey: &T::AccountId,
        hotkey: &T::AccountId,
        netuid: NetUid,
        price_limit: Option<TaoBalance>,
    ) -> DispatchResult {
        ensure!(!netuid.is_root(), Error::<T>::RegistrationNotPermittedOnRootSubnet);
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        ensure!(NetworkRegistrationAllowed::<T>::get(netuid), Error::<T>::SubNetRegistrationDisabled);
        ensure!(!Uids::<T>::contains_key(netuid, hotkey), Error::<T>::HotKeyAlreadyRegisteredInSubNet);
        let price = Burn::<T>::get(netuid);
        ensure!(price_limit.is_none_or(|limit| price <= limit), Error::<T>::RegistrationPriceLimitExceeded);
        ensure!(Self::spendable(coldkey) >= price, Error::<T>::NotEnoughBalanceToStake);
        let owned = !Owner::<T>::contains_key(hotkey) || Owner::<T>::get(hotkey) == *coldkey;
        ensure!(owned, Error::<T>::NonAssociatedColdKey);
        ensure!(MaxAllowedUids::<T>::get(netuid) > 0, Error::<T>::NoNeuronIdAvailable);

        let full = SubnetworkN::<T>::get(netuid) >= MaxAllowedUids::<T>::get(netuid);
        let room = !full || Self::neuron_to_replace(netuid).is_some();
        ensure!(room, Error::<T>::NoNeuronIdAvailable);

        Self::withdraw(coldkey, price)?;
        Self::create_hotkey_if_new(coldkey, hotkey);
        let uid = Self::register_neuron(netuid, hotkey)?;
        Self::raise_price(netuid);
        RAORecycledForRegistration::<T>::mutate(netuid, |recycled| *recycled = recycled.saturating_add(price));
        Self::deposit_event(Event::NeuronRegistered(netuid, uid, hotkey.clone()));
        Ok(())
    }

    /// Gives a hotkey a uid: a new one while there is room, else that of the least useful neuron.
    pub fn register_neuron(netuid: NetUid, hotkey: &T::AccountId) -> Result<u16, DispatchError> {
        let n = SubnetworkN::<T>::get(netuid);
        if n < MaxAllowedUids::<T>::get(netuid) {
            Self::append_neuron(netuid, hotkey, n);
            return Ok(n);
        }
        let uid = Self::neuron_to_replace(netuid).ok_or(Error::<T>::NoNeuronIdAvailable)?;
        Self::replace_neuron(netuid, uid, hotkey);
        Ok(uid)
    }

    pub(super) fn append_neuron(netuid: NetUid, hotkey: &T::AccountId, uid: u16) {
        SubnetworkN::<T>::insert(netuid, uid + 1);
        Active::<T>::append(netuid, true);
        ValidatorPermit::<T>::append(netuid, false);
        Consensus::<T>::append(netuid, 0u16);
        Dividends::<T>::append(netuid, 0u16);
        ValidatorTrust::<T>::append(netuid, 0u16);
        Emission::<T>::append(netuid, 0u64);
        StakeWeight::<T>::append(netuid, 0u16);
        for mecid in 0..MechanismCountCurrent::<T>::get(netuid) {
            Incentive::<T>::append(netuid.index(mecid), 0u16);
            LastUpdate::<T>::append(netuid.index(mecid), Self::block());
        }
        Self::bind_uid(netuid, uid, hotkey);
    }

    pub(super) fn replace_neuron(netuid: NetUid, uid: u16, hotkey: &T::AccountId) {
        Self::forget_hotkey(netuid, &Keys::<T>::get(netuid, uid));
        Self::forget_evm(netuid, uid);
        let slot = usize::from(uid);
        Active::<T>::mutate(netuid, |all| set(all, slot, true));
        ValidatorPermit::<T>::mutate(netuid, |all| set(all, slot, false));
        Consensus::<T>::mutate(netuid, |all| set(all, slot, 0));
        Dividends::<T>::mutate(netuid, |all| set(all, slot, 0));
        ValidatorTrust::<T>::mutate(netuid, |all| set(all, slot, 0));
        Emission::<T>::mutate(netuid, |all| set(all, slot, 0));
        StakeWeight::<T>::mutate(netuid, |all| set(all, slot, 0));
        for mecid in 0..MechanismCountCurrent::<T>::get(netuid) {
            let index = netuid.index(mecid);
            Incentive::<T>::mutate(index, |all| set(all, slot, 0));
            LastUpdate::<T>::mutate(index, |all| set(all, slot, Self::block()));
            Weights::<T>::remove(index, uid);
            Bonds::<T>::remove(index, uid);
        }
        Self::bind_uid(netuid, uid, hotkey);
    }

    /// Removes what is kept by hotkey of whoever leaves a subnet.
    pub(super) fn forget_hotkey(netuid: NetUid, hotkey: &T::AccountId) {
        Uids::<T>::remove(netuid, hotkey);
        IsNetworkMember::<T>::remove(hotkey, netuid);
        Axons::<T>::remove(netuid, hotkey);
        Prometheus::<T>::remove(netuid, hotkey);
        NeuronCertificates::<T>::remove(netuid, hotkey);
    }

    fn bind_uid(netuid: NetUid, uid: u16, hotkey: &T::AccountId) {
        Keys::<T>::insert(netuid, uid, hotkey);
        Uids::<T>::insert(netuid, hotkey, uid);
        BlockAtRegistration::<T>::insert(netuid, uid, Self::block());
        IsNetworkMember::<T>::insert(hotkey, netuid, true);
    }

    /// The neuron with the least emission; of those the one registered first, then the one with the lower uid.
    ///
    /// Neurons within their immunity period are passed over while enough others stay; hotkeys of the owner always.
    fn neuron_to_replace(netuid: NetUid) -> Option<u16> {
        let emission = Emission::<T>::get(netuid);
        let immortal = Self::immortal_uids(netuid);
        let rank = |uid: u16| {
            let emitted = emission.get(usize::from(uid)).copied().unwrap_or(0);
            (emitted, BlockAtRegistration::<T>::get(netuid, uid), uid)
        };
        let uids = (0..SubnetworkN::<T>::get(netuid)).filter(|uid| !immortal.contains(uid));
        let (young, others): (Vec<u16>, Vec<u16>) = uids.partition(|uid| Self::is_young(netuid, *uid));
        let enough = others.len() > usize::from(MinNonImmuneUids::<T>::get(netuid));
        // The least of the young goes when another of the others would leave too few of them.
        let from = if enough { others } else { young };
        from.into_iter().min_by_key(|uid| rank(*uid))
    }

    fn raise_price(netuid: NetUid) {
        let factor = BurnIncreaseMult::<T>::get(netuid);
        let raised = U64F64::from_num(Burn::<T>::get(netuid)).saturating_mul(factor).saturating_to_num::<u64>();
        Burn::<T>::insert(netuid, raised.clamp(MinBurn::<T>::get(netuid), MaxBurn::<T>::get(netuid)));
    }

    /// Lets the price of a registration fall by its half-life.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a price in rao below 2^53, multiplied by a factor from 0 to 1"
    )]
    pub(super) fn decay_price(netuid: NetUid) {
        let burn = Burn::<T>::get(netuid);
        let half_life = BurnHalfLife::<T>::get(netuid);
        let least = MinBurn::<T>::get(netuid);
        if burn <= least || half_life == 0 {
            return;
        }
        let lower = burn as f64 * (-1.0 / f64::from(half_life)).exp2();
        Burn::<T>::insert(netuid, (lower as u64).clamp(least, MaxBurn::<T>::get(netuid).max(least)));
    }

    /// Price of the next subnet: twice the last one, falling to the least price over the reduction interval.
    pub fn network_lock_cost() -> TaoBalance {
        let previous = NetworkLastLockCost::<T>::get();
        let least = NetworkMinLockCost::<T>::get();
        let Some(last_block) = Self::last_network_block() else {
            return least;
        };
        let elapsed = Self::block().saturating_sub(last_block);
        let fallen =
            u128::from(previous) * u128::from(elapsed) / u128::from(NetworkLockReductionInterval::<T>::get().max(1));
        let price = (u128::from(previous) * 2).saturating_sub(fallen);
        u64::try_from(price).unwrap_or(u64::MAX).max(least)
    }

    /// Block at which an account last added a subnet.
    pub(super) fn last_network_block() -> Option<u64> {
        let key = super::types::RateLimitKey::NetworkLastRegistered;
        LastRateLimitedBlock::<T>::contains_key(&key).then(|| LastRateLimitedBlock::<T>::get(&key))
    }

    /// Whether enough blocks passed since the last subnet was added.
    pub(super) fn network_rate_limit_passed() -> bool {
        let limit = NetworkRateLimit::<T>::get();
        limit == 0 || Self::last_network_block().is_none_or(|last| Self::block().saturating_sub(last) >= limit)
    }

    pub(super) fn do_register_network(
        coldkey: &T::AccountId,
        hotkey: &T::AccountId,
        identity: Option<SubnetIdentityV3>,
    ) -> DispatchResult {
        let owned = !Owner::<T>::contains_key(hotkey) || Owner::<T>::get(hotkey) == *coldkey;
        ensure!(owned, Error::<T>::NonAssociatedColdKey);
        ensure!(Self::network_rate_limit_passed(), Error::<T>::NetworkTxRateLimitExceeded);
        let free = |netuid: &NetUid| !Self::exists(*netuid);
        let next = (1..=SubnetLimit::<T>::get()).map(NetUid).find(free);
        // A full network gives up its least wanted subnet, once that had time to prove itself.
        let netuid = next.or_else(Self::subnet_to_prune).ok_or(Error::<T>::SubnetLimitReached)?;
        let cost = Self::network_lock_cost();
        ensure!(Self::spendable(coldkey) >= cost, Error::<T>::CannotAffordLockCost);

        Self::withdraw(coldkey, cost)?;
        if Self::exists(netuid) {
            Self::do_dissolve_network(netuid)?;
        }
        SubnetLocked::<T>::insert(netuid, cost);
        NetworkLastLockCost::<T>::put(cost);
        LastRateLimitedBlock::<T>::insert(super::types::RateLimitKey::NetworkLastRegistered, Self::block());
        // The pool starts balanced with what was locked, which prices alpha at one TAO.
        Self::init_subnet(
            netuid,
            NewSubnet {
                owner: coldkey.clone(),
                owner_hotkey: hotkey.clone(),
                mechanism: 1,
                pool_tao: cost,
                pool_alpha: cost,
            },
        );
        Self::create_hotkey_if_new(coldkey, hotkey);
        let uid = Self::register_neuron(netuid, hotkey)?;
        Self::deposit_event(Event::NetworkAdded(netuid, 1));
        Self::deposit_event(Event::NeuronRegistered(netuid, uid, hotkey.clone()));
        if let Some(identity) = identity {
            SubnetIdentitiesV3::<T>::insert(netuid, identity);
            Self::deposit_event(Event::SubnetIdentitySet(netuid));
        }
        Ok(())
    }

    /// Adds a subnet with the values that new subnets get; staking and emission wait for `start_call`.
    pub fn init_subnet(netuid: NetUid, new: NewSubnet<T::AccountId>) {
        NetworksAdded::<T>::insert(netuid, true);
        TotalNetworks::<T>::mutate(|total| *total += 1);
        NetworkRegisteredAt::<T>::insert(netuid, Self::block());
        RegisteredSubnetCounter::<T>::mutate(netuid, |count| *count += 1);
        SubnetOwner::<T>::insert(netuid, new.owner);
        SubnetOwnerHotkey::<T>::insert(netuid, new.owner_hotkey);
        SubnetMechanism::<T>::insert(netuid, new.mechanism);
        SubnetTAO::<T>::insert(netuid, new.pool_tao);
        SubnetAlphaIn::<T>::insert(netuid, new.pool_alpha);
        Tempo::<T>::insert(netuid, Tempo::<T>::get(netuid));
        LastEpochBlock::<T>::insert(netuid, Self::block());
        MinAllowedWeights::<T>::insert(netuid, 1);
        ImmunityPeriod::<T>::insert(netuid, 5000);
        MaxAllowedValidators::<T>::insert(netuid, 64);
        Burn::<T>::insert(netuid, 1_000_000_000);
        Yuma3On::<T>::insert(netuid, true);
        SubnetEmissionEnabled::<T>::insert(netuid, false);
        MechanismCountCurrent::<T>::insert(netuid, 1);
    }

    pub(super) fn do_start_call(coldkey: &T::AccountId, netuid: NetUid) -> DispatchResult {
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        ensure!(SubnetOwner::<T>::get(netuid) == *coldkey, Error::<T>::NotSubnetOwner);
        ensure!(!FirstEmissionBlockNumber::<T>::contains_key(netuid), Error::<T>::FirstEmissionBlockNumberAlreadySet);
        let ready_at = NetworkRegisteredAt::<T>::get(netuid) + StartCallDelay::<T>::get();
        ensure!(Self::block() >= ready_at, Error::<T>::NeedWaitingMoreBlocksToStarCall);
        Self::start_subnet(netuid, Self::block() + 1);
        Self::deposit_event(Event::FirstEmissionBlockNumberSet(netuid, Self::block() + 1));
        Ok(())
    }

    /// Allows staking and lets emission start at a block.
    pub fn start_subnet(netuid: NetUid, first_emission_block: u64) {
        FirstEmissionBlockNumber::<T>::insert(netuid, first_emission_block);
        SubtokenEnabled::<T>::insert(netuid, true);
        SubnetEmissionEnabled::<T>::insert(netuid, true);
    }
}

/// A per-uid vector at its full length; one in a state that was set by hand may have another.
pub(super) fn fit<V: Clone + Default>(mut all: Vec<V>, n: usize) -> Vec<V> {
    all.resize(n, V::default());
    all
}

/// Writes one element of a per-uid vector, which may be shorter in a state that was set by hand.
pub(super) fn set<V: Clone + Default>(all: &mut Vec<V>, slot: usize, value: V) {
    if all.len() <= slot {
        all.resize(slot + 1, V::default());
    }
    all[slot] = value;
}
