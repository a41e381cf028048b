//! Stake that changes its hotkey, its coldkey or its subnet without leaving, and stake that is given up.

use frame_support::ensure;
use sp_runtime::{DispatchError, DispatchResult};

use super::MIN_STAKE;
use super::limits::OwnerLimit;
use super::pallet::*;
use super::staking::PriceLimit;
use super::types::{AlphaBalance, NetUid, TaoBalance};

/// Where a stake is: of whom, with whom, on which subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position<AccountId> {
    pub(super) coldkey: AccountId,
    pub(super) hotkey: AccountId,
    pub(super) netuid: NetUid,
}

impl<T: Config> Pallet<T> {
    fn check_move(
        from: &Position<T::AccountId>,
        to: &Position<T::AccountId>,
        amount: AlphaBalance,
    ) -> Result<(), Error<T>> {
        ensure!(from != to, Error::<T>::SameNetuid);
        let exist = Self::exists(from.netuid) && Self::exists(to.netuid);
        ensure!(exist, Error::<T>::SubnetNotExists);
        let enabled = |netuid: NetUid| netuid.is_root() || SubtokenEnabled::<T>::get(netuid);
        ensure!(enabled(from.netuid) && enabled(to.netuid), Error::<T>::SubtokenDisabled);
        let known = Owner::<T>::contains_key(&from.hotkey) && Owner::<T>::contains_key(&to.hotkey);
        ensure!(known, Error::<T>::HotKeyAccountNotExists);
        let staked = Self::stake_of(&from.hotkey, &from.coldkey, from.netuid);
        ensure!(amount <= staked, Error::<T>::NotEnoughStakeToWithdraw);
        Ok(())
    }

    /// Moves stake and says what it was worth in TAO. A change of subnet is a sale and a purchase; only one of the two
    /// pays the fee.
    pub(super) fn move_position(
        from: &Position<T::AccountId>,
        to: &Position<T::AccountId>,
        amount: AlphaBalance,
        limit: Option<PriceLimit>,
    ) -> Result<TaoBalance, DispatchError> {
        Self::check_move(from, to, amount)?;
        let crosses = from.netuid != to.netuid;
        let amount = match limit.filter(|_| crosses) {
            Some(limit) => Self::move_within(from.netuid, to.netuid, amount, limit)?,
            None => amount,
        };
        let worth = Self::sim_sell(from.netuid, amount).tao;
        ensure!(!crosses || worth > MIN_STAKE, Error::<T>::AmountTooLow);
        if from.coldkey != to.coldkey {
            let allowed = TransferToggle::<T>::get(from.netuid) && TransferToggle::<T>::get(to.netuid);
            ensure!(allowed, Error::<T>::TransferDisallowed);
        }
        ensure!(amount > 0, Error::<T>::AmountTooLow);

        Self::decrease_stake(&from.hotkey, &from.coldkey, from.netuid, amount);
        let tao = if crosses {
            let tao = Self::sell(from.netuid, amount, from.netuid.is_root()).tao;
            let alpha = Self::buy(to.netuid, tao, !from.netuid.is_root()).alpha;
            Self::increase_stake(&to.hotkey, &to.coldkey, to.netuid, alpha);
            tao
        } else {
            Self::increase_stake(&to.hotkey, &to.coldkey, to.netuid, amount);
            worth
        };
        if !Self::owns(&to.coldkey, &to.hotkey) {
            Self::become_delegate(&to.hotkey);
        }
        Ok(tao)
    }

    /// The largest part of an amount that does not push the price between two subnets below the limit.
    fn move_within(
        from: NetUid,
        to: NetUid,
        amount: AlphaBalance,
        limit: PriceLimit,
    ) -> Result<AlphaBalance, Error<T>> {
        let relative = |sold: AlphaBalance| {
            // Price of the first in units of the second after selling here and buying there, in 10^-9.
            let tao = Self::quote_sell(from, sold, from.is_root()).tao;
            let bought = Self::quote_buy(to, tao, !from.is_root()).alpha;
            let after = |reserves: Option<(u128, u128)>| reserves.map_or((1, 1), |(tao, alpha)| (tao, alpha.max(1)));
            let (sold, tao, bought) = (u128::from(sold), u128::from(tao), u128::from(bought));
            let (t1, a1) = after(Self::pool(from).map(|(t, a)| (t.saturating_sub(tao), a + sold)));
            let (t2, a2) = after(Self::pool(to).map(|(t, a)| (t + tao, a.saturating_sub(bought))));
            ratio(t1, a1, t2.max(1), a2)
        };
        let within = |amount: AlphaBalance| relative(amount) >= u128::from(limit.price);
        if within(amount) {
            return Ok(amount);
        }
        if !limit.allow_partial || !within(0) {
            return Err(Error::<T>::SlippageTooHigh);
        }
        // The price falls steadily with the amount, so the border is found by halving.
        let (mut good, mut bad) = (0, amount);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if within(middle) { good = middle } else { bad = middle }
        }
        ensure!(good > 0, Error::<T>::SlippageTooHigh);
        Ok(good)
    }

    pub(super) fn do_move_stake(
        coldkey: T::AccountId,
        from: (T::AccountId, NetUid),
        to: (T::AccountId, NetUid),
        amount: AlphaBalance,
        limit: Option<PriceLimit>,
    ) -> DispatchResult {
        let position = |(hotkey, netuid)| Position { coldkey: coldkey.clone(), hotkey, netuid };
        let (from, to) = (position(from), position(to));
        let tao = Self::move_position(&from, &to, amount, limit)?;
        Self::deposit_event(Event::StakeMoved(coldkey, from.hotkey, from.netuid, to.hotkey, to.netuid, tao));
        Ok(())
    }

    pub(super) fn do_transfer_stake(
        from: T::AccountId,
        to: T::AccountId,
        hotkey: T::AccountId,
        netuids: (NetUid, NetUid),
        amount: AlphaBalance,
    ) -> DispatchResult {
        let position =
            |coldkey: &T::AccountId, netuid| Position { coldkey: coldkey.clone(), hotkey: hotkey.clone(), netuid };
        let tao = Self::move_position(&position(&from, netuids.0), &position(&to, netuids.1), amount, None)?;
        Self::deposit_event(Event::StakeTransferred(from, to, hotkey, netuids.0, netuids.1, tao));
        Ok(())
    }

    pub(super) fn do_swap_stake(
        coldkey: T::AccountId,
        hotkey: T::AccountId,
        netuids: (NetUid, NetUid),
        amount: AlphaBalance,
        limit: Option<PriceLimit>,
    ) -> DispatchResult {
        let position = |netuid| Position { coldkey: coldkey.clone(), hotkey: hotkey.clone(), netuid };
        let tao = Self::move_position(&position(netuids.0), &position(netuids.1), amount, limit)?;
        Self::deposit_event(Event::StakeSwapped(coldkey, hotkey, netuids.0, netuids.1, tao));
        Ok(())
    }

    /// Takes everything that can be taken from a hotkey; subnets where it cannot are passed over.
    pub(super) fn do_unstake_all(coldkey: &T::AccountId, hotkey: &T::AccountId) -> DispatchResult {
        ensure!(Owner::<T>::contains_key(hotkey), Error::<T>::HotKeyAccountNotExists);
        for netuid in Self::netuids() {
            let staked = Self::stake_of(hotkey, coldkey, netuid);
            let _refused = Self::do_remove_stake(coldkey, hotkey, netuid, staked, None);
        }
        Ok(())
    }

    /// Takes all alpha from a hotkey and stakes what it is worth on the root network.
    pub(super) fn do_unstake_all_alpha(coldkey: &T::AccountId, hotkey: &T::AccountId) -> DispatchResult {
        ensure!(Owner::<T>::contains_key(hotkey), Error::<T>::HotKeyAccountNotExists);
        let mut total: TaoBalance = 0;
        for netuid in Self::netuids().into_iter().filter(|netuid| !netuid.is_root()) {
            let staked = Self::stake_of(hotkey, coldkey, netuid);
            if let Ok(tao) = Self::do_remove_stake(coldkey, hotkey, netuid, staked, None) {
                total = total.saturating_add(tao);
            }
        }
        ensure!(total > 0, Error::<T>::AmountTooLow);
        Self::do_add_stake(coldkey, hotkey, NetUid::ROOT, total, None).map(|_| ())
    }

    fn give_up(
        coldkey: &T::AccountId,
        hotkey: &T::AccountId,
        netuid: NetUid,
        amount: AlphaBalance,
    ) -> Result<AlphaBalance, DispatchError> {
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        ensure!(!netuid.is_root(), Error::<T>::CannotBurnOrRecycleOnRootSubnet);
        ensure!(SubtokenEnabled::<T>::get(netuid), Error::<T>::SubtokenDisabled);
        ensure!(Owner::<T>::contains_key(hotkey), Error::<T>::HotKeyAccountNotExists);
        let amount = amount.min(Self::stake_of(hotkey, coldkey, netuid));
        ensure!(SubnetAlphaOut::<T>::get(netuid) >= amount, Error::<T>::InsufficientLiquidity);
        Self::decrease_stake(hotkey, coldkey, netuid, amount);
        Ok(amount)
    }

    /// Gives up alpha, which may be emitted again.
    pub(super) fn do_recycle_alpha(
        coldkey: T::AccountId,
        hotkey: T::AccountId,
        amount: AlphaBalance,
        netuid: NetUid,
    ) -> DispatchResult {
        let amount = Self::give_up(&coldkey, &hotkey, netuid, amount)?;
        SubnetAlphaOut::<T>::mutate(netuid, |out| *out = out.saturating_sub(amount));
        Self::deposit_event(Event::AlphaRecycled(coldkey, hotkey, amount, netuid));
        Ok(())
    }

    /// Gives up alpha, which still counts as emitted.
    pub(super) fn do_burn_alpha(
        coldkey: T::AccountId,
        hotkey: T::AccountId,
        amount: AlphaBalance,
        netuid: NetUid,
    ) -> DispatchResult {
        let amount = Self::give_up(&coldkey, &hotkey, netuid, amount)?;
        Self::deposit_event(Event::AlphaBurned(coldkey, hotkey, amount, netuid));
        Ok(())
    }

    /// Buys alpha and gives it up. Only an owner is held back: everyone else may as often as they like.
    pub(super) fn do_add_stake_burn(
        coldkey: T::AccountId,
        hotkey: T::AccountId,
        netuid: NetUid,
        amount: TaoBalance,
        limit: Option<TaoBalance>,
    ) -> DispatchResult {
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        let owns_subnet = SubnetOwner::<T>::try_get(netuid).as_ref() == Ok(&coldkey);
        let limited = owns_subnet && !Self::passes_limit(OwnerLimit::AddStakeBurn, &coldkey, netuid);
        ensure!(!limited, Error::<T>::AddStakeBurnRateLimitExceeded);
        let limit = limit.map(|price| PriceLimit { price, allow_partial: false });
        let alpha = Self::do_add_stake(&coldkey, &hotkey, netuid, amount, limit)?;
        Self::do_burn_alpha(coldkey.clone(), hotkey.clone(), alpha, netuid)?;
        if owns_subnet {
            Self::note_use(OwnerLimit::AddStakeBurn, &coldkey, netuid);
        }
        Self::deposit_event(Event::AddStakeBurn { netuid, hotkey, amount, alpha });
        Ok(())
    }
}

/// `(t1 / a1) / (t2 / a2)` in 10^-9. The products of two reserves in rao fit; that of the unit would not.
fn ratio(t1: u128, a1: u128, t2: u128, a2: u128) -> u128 {
    const UNIT: u128 = 1_000_000_000;
    let (over, under) = (t1.saturating_mul(a2), a1.saturating_mul(t2).max(1));
    match over.checked_mul(UNIT) {
        Some(over) => over / under,
        None => over / (under / UNIT).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_keep_nine_digits() {
        assert_eq!(ratio(2, 1, 1, 1), 2_000_000_000);
        let rao = 1_000_000_000_000_000;
        assert_eq!(ratio(rao, 3 * rao, rao, rao), 333_333_333);
    }
}
