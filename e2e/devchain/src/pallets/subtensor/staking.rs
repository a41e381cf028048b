//! Stake: the share pool of a hotkey, the swap between TAO and alpha, and what counts as total stake.

use frame_support::ensure;
use sp_runtime::DispatchError;

use super::MIN_STAKE;
use super::columns::{Column, HotkeyHash, by_hotkey_and_netuid, hash_hotkey};
use super::pallet::*;
use super::types::{AlphaBalance, NetUid, SafeFloat, TaoBalance};

/// What a caller accepts as price.
#[derive(Debug, Clone, Copy)]
pub struct PriceLimit {
    /// Rao of TAO per alpha.
    pub price: u64,
    /// Whether to swap as much as the limit allows instead of nothing.
    pub allow_partial: bool,
}

/// Both sides of a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swap {
    /// TAO that came in or goes out.
    pub tao: TaoBalance,
    /// Alpha that goes out or came in.
    pub alpha: AlphaBalance,
    /// Part of what came in that stays as fee, in units of what came in.
    pub fee: u64,
}

fn to_u64(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Alpha, root TAO, and both together with the TAO weighted.
type StakeWeights = (AlphaBalance, TaoBalance, u64);

impl<T: Config> Pallet<T> {
    /// Alpha that a coldkey has staked to a hotkey.
    pub fn stake_of(hotkey: &T::AccountId, coldkey: &T::AccountId, netuid: NetUid) -> AlphaBalance {
        let shares = AlphaV2::<T>::get((hotkey, coldkey, netuid)).mantissa;
        let total_shares = TotalHotkeySharesV2::<T>::get(hotkey, netuid).mantissa;
        if shares == 0 || total_shares == 0 {
            return 0;
        }
        let alpha = u128::from(TotalHotkeyAlpha::<T>::get(hotkey, netuid));
        // Rounded to the nearest rao: a stake that nobody touched reads as what was put in.
        to_u64((alpha.saturating_mul(shares) + total_shares / 2) / total_shares)
    }

    /// Raises the stake of a coldkey on a hotkey.
    pub fn increase_stake(hotkey: &T::AccountId, coldkey: &T::AccountId, netuid: NetUid, amount: AlphaBalance) {
        let alpha = TotalHotkeyAlpha::<T>::get(hotkey, netuid);
        let total_shares = TotalHotkeySharesV2::<T>::get(hotkey, netuid).mantissa;
        let bought = if total_shares == 0 || alpha == 0 {
            u128::from(amount)
        } else {
            u128::from(amount) * total_shares / u128::from(alpha)
        };
        let held = AlphaV2::<T>::get((hotkey, coldkey, netuid)).mantissa;
        AlphaV2::<T>::insert((hotkey, coldkey, netuid), SafeFloat::whole(held + bought));
        TotalHotkeySharesV2::<T>::insert(hotkey, netuid, SafeFloat::whole(total_shares + bought));
        Self::increase_hotkey_alpha(hotkey, netuid, amount);
        StakingHotkeys::<T>::mutate(coldkey, |hotkeys| {
            if !hotkeys.contains(hotkey) {
                hotkeys.push(hotkey.clone());
            }
        });
    }

    /// Raises the worth of a hotkey's pool: every coldkey in it gains in proportion.
    pub fn increase_hotkey_alpha(hotkey: &T::AccountId, netuid: NetUid, amount: AlphaBalance) {
        TotalHotkeyAlpha::<T>::mutate(hotkey, netuid, |alpha| *alpha = alpha.saturating_add(amount));
        TotalAlphaStaked::<T>::mutate(netuid, |alpha| *alpha = alpha.saturating_add(amount));
    }

    pub(super) fn decrease_stake(hotkey: &T::AccountId, coldkey: &T::AccountId, netuid: NetUid, amount: AlphaBalance) {
        let alpha = TotalHotkeyAlpha::<T>::get(hotkey, netuid);
        let total_shares = TotalHotkeySharesV2::<T>::get(hotkey, netuid).mantissa;
        let held = AlphaV2::<T>::get((hotkey, coldkey, netuid)).mantissa;
        let everything = amount >= Self::stake_of(hotkey, coldkey, netuid);
        let sold = if everything || alpha == 0 {
            held
        } else {
            (u128::from(amount) * total_shares).div_ceil(u128::from(alpha)).min(held)
        };
        if sold == held {
            AlphaV2::<T>::remove((hotkey, coldkey, netuid));
        } else {
            AlphaV2::<T>::insert((hotkey, coldkey, netuid), SafeFloat::whole(held - sold));
        }
        if total_shares == sold {
            TotalHotkeySharesV2::<T>::remove(hotkey, netuid);
        } else {
            TotalHotkeySharesV2::<T>::insert(hotkey, netuid, SafeFloat::whole(total_shares - sold));
        }
        TotalHotkeyAlpha::<T>::insert(hotkey, netuid, alpha.saturating_sub(amount));
        TotalAlphaStaked::<T>::mutate(netuid, |staked| *staked = staked.saturating_sub(amount));
    }

    /// Stake of a hotkey on a subnet: alpha, root TAO as staked, and the total with root TAO weighted.
    pub fn stake_weights(hotkey: &T::AccountId, netuid: NetUid) -> StakeWeights {
        Self::stake_weights_of(&[hash_hotkey(hotkey)], netuid)[0]
    }

    /// The same for many hotkeys, with what they share read once.
    pub(super) fn stake_weights_of(hotkeys: &[HotkeyHash], netuid: NetUid) -> Vec<StakeWeights> {
        let tao_weight = TaoWeight::<T>::get();
        let children = by_hotkey_and_netuid::<ChildKeys<T>, _, _>(netuid);
        let parents = by_hotkey_and_netuid::<ParentKeys<T>, _, _>(netuid);
        let [alpha_pool, tao_pool] = [netuid, NetUid::ROOT].map(by_hotkey_and_netuid::<TotalHotkeyAlpha<T>, _, _>);
        let part = |stake: u64, proportion: u64| u128::from(stake) * u128::from(proportion) / u128::from(u64::MAX);
        let stake_weights = |hotkey: &HotkeyHash| {
            let (children, parents) = (children.get(hotkey), parents.get(hotkey));
            // Stake in a pool plus what parents lent of theirs, less what was lent to children.
            let inherited = |pool: &Column<48, AlphaBalance, AlphaBalance>| {
                let own = pool.get(hotkey);
                let lent: u128 = children.iter().map(|(share, _)| part(own, *share)).sum();
                let got = |(share, parent): &(u64, T::AccountId)| part(pool.get(&hash_hotkey(parent)), *share);
                to_u64(u128::from(own).saturating_sub(lent) + parents.iter().map(got).sum::<u128>())
            };
            let (alpha, tao) = (inherited(&alpha_pool), inherited(&tao_pool));
            let weighted = (u128::from(tao) * u128::from(tao_weight)) >> 64;
            (alpha, tao, to_u64(u128::from(alpha) + weighted))
        };
        hotkeys.iter().map(stake_weights).collect()
    }

    /// Rao of TAO that one alpha costs now.
    pub fn alpha_price(netuid: NetUid) -> u64 {
        let unit = 1_000_000_000u128;
        let (tao, alpha) = (SubnetTAO::<T>::get(netuid), SubnetAlphaIn::<T>::get(netuid));
        if !Self::is_dynamic(netuid) || alpha == 0 {
            return to_u64(unit);
        }
        to_u64(u128::from(tao) * unit / u128::from(alpha))
    }

    fn is_dynamic(netuid: NetUid) -> bool {
        !netuid.is_root() && SubnetMechanism::<T>::get(netuid) == 1
    }

    /// What a swap of TAO for alpha would give.
    pub fn sim_buy(netuid: NetUid, tao: TaoBalance) -> Swap {
        Self::quote_buy(netuid, tao, false)
    }

    fn swap_fee(netuid: NetUid, paid: u64) -> u128 {
        u128::from(paid) * u128::from(T::swap_fee_rate(netuid)) / u128::from(u16::MAX)
    }

    pub(super) fn quote_buy(netuid: NetUid, tao: TaoBalance, free: bool) -> Swap {
        let Some((tao_in, alpha_in)) = Self::pool(netuid) else {
            return Swap { tao, alpha: tao, fee: 0 };
        };
        let cost = if free { 0 } else { Self::swap_fee(netuid, tao) };
        let paid = u128::from(tao) - cost;
        // Constant product: what leaves is alpha * paid / (tao + paid), rounded down in the pool's favour.
        let alpha = (alpha_in * paid).checked_div(tao_in + paid).unwrap_or(0);
        Swap { tao, alpha: to_u64(alpha), fee: to_u64(cost) }
    }

    /// What a swap of alpha for TAO would give.
    pub fn sim_sell(netuid: NetUid, alpha: AlphaBalance) -> Swap {
        Self::quote_sell(netuid, alpha, false)
    }

    pub(super) fn quote_sell(netuid: NetUid, alpha: AlphaBalance, free: bool) -> Swap {
        let Some((tao_in, alpha_in)) = Self::pool(netuid) else {
            return Swap { tao: alpha, alpha, fee: 0 };
        };
        let cost = if free { 0 } else { Self::swap_fee(netuid, alpha) };
        let paid = u128::from(alpha) - cost;
        let tao = (tao_in * paid).checked_div(alpha_in + paid).unwrap_or(0);
        Swap { tao: to_u64(tao), alpha, fee: to_u64(cost) }
    }

    /// TAO and alpha in the pool of a subnet that is priced by one.
    pub(super) fn pool(netuid: NetUid) -> Option<(u128, u128)> {
        Self::is_dynamic(netuid).then(|| Self::reserves(netuid))
    }

    fn reserves(netuid: NetUid) -> (u128, u128) {
        (u128::from(SubnetTAO::<T>::get(netuid)), u128::from(SubnetAlphaIn::<T>::get(netuid)))
    }

    /// Swaps TAO for alpha, without a fee where another swap of the same call paid it.
    pub(super) fn buy(netuid: NetUid, tao: TaoBalance, free: bool) -> Swap {
        let swap = Self::quote_buy(netuid, tao, free);
        SubnetTAO::<T>::mutate(netuid, |pool| *pool = pool.saturating_add(tao));
        if Self::is_dynamic(netuid) {
            SubnetAlphaIn::<T>::mutate(netuid, |pool| *pool = pool.saturating_sub(swap.alpha));
        }
        SubnetAlphaOut::<T>::mutate(netuid, |out| *out = out.saturating_add(swap.alpha));
        SubnetVolume::<T>::mutate(netuid, |volume| *volume = volume.saturating_add(u128::from(tao)));
        TotalStake::<T>::mutate(|total| *total = total.saturating_add(tao));
        swap
    }

    /// Swaps alpha for TAO, without a fee where another swap of the same call pays it.
    pub(super) fn sell(netuid: NetUid, alpha: AlphaBalance, free: bool) -> Swap {
        let swap = Self::quote_sell(netuid, alpha, free);
        SubnetTAO::<T>::mutate(netuid, |pool| *pool = pool.saturating_sub(swap.tao));
        if Self::is_dynamic(netuid) {
            SubnetAlphaIn::<T>::mutate(netuid, |pool| *pool = pool.saturating_add(alpha));
        }
        SubnetAlphaOut::<T>::mutate(netuid, |out| *out = out.saturating_sub(alpha));
        SubnetVolume::<T>::mutate(netuid, |volume| *volume = volume.saturating_add(u128::from(swap.tao)));
        TotalStake::<T>::mutate(|total| *total = total.saturating_sub(swap.tao));
        swap
    }

    pub(super) fn do_add_stake(
        coldkey: &T::AccountId,
        hotkey: &T::AccountId,
        netuid: NetUid,
        amount: TaoBalance,
        limit: Option<PriceLimit>,
    ) -> Result<AlphaBalance, DispatchError> {
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        ensure!(netuid.is_root() || SubtokenEnabled::<T>::get(netuid), Error::<T>::SubtokenDisabled);
        let least = MIN_STAKE + Self::sim_buy(netuid, MIN_STAKE).fee;
        ensure!(amount >= least, Error::<T>::AmountTooLow);
        let amount = match limit {
            Some(limit) => Self::buy_within(netuid, amount, limit)?,
            None => amount,
        };
        ensure!(Self::spendable(coldkey) >= amount, Error::<T>::NotEnoughBalanceToStake);
        ensure!(Owner::<T>::contains_key(hotkey), Error::<T>::HotKeyAccountNotExists);
        ensure!(Self::sim_buy(netuid, amount).alpha > 0, Error::<T>::InsufficientLiquidity);

        Self::withdraw(coldkey, amount)?;
        let swap = Self::buy(netuid, amount, false);
        Self::increase_stake(hotkey, coldkey, netuid, swap.alpha);
        if !Self::owns(coldkey, hotkey) {
            Self::become_delegate(hotkey);
        }
        Self::deposit_event(Event::StakeAdded(coldkey.clone(), hotkey.clone(), amount, swap.alpha, netuid, swap.fee));
        Ok(swap.alpha)
    }

    pub(super) fn do_remove_stake(
        coldkey: &T::AccountId,
        hotkey: &T::AccountId,
        netuid: NetUid,
        amount: AlphaBalance,
        limit: Option<PriceLimit>,
    ) -> Result<TaoBalance, DispatchError> {
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        ensure!(netuid.is_root() || SubtokenEnabled::<T>::get(netuid), Error::<T>::SubtokenDisabled);
        ensure!(Owner::<T>::contains_key(hotkey), Error::<T>::HotKeyAccountNotExists);
        let staked = Self::stake_of(hotkey, coldkey, netuid);
        ensure!(amount > 0 && amount <= staked, Error::<T>::NotEnoughStakeToWithdraw);
        let amount = match limit {
            Some(limit) => Self::sell_within(netuid, amount, limit)?,
            None => amount,
        };
        // A whole position may always leave, however small it has become.
        let proceeds = Self::sim_sell(netuid, amount).tao;
        ensure!(amount == staked || proceeds >= MIN_STAKE, Error::<T>::AmountTooLow);
        ensure!(proceeds > 0 && proceeds <= SubnetTAO::<T>::get(netuid), Error::<T>::InsufficientLiquidity);

        Self::decrease_stake(hotkey, coldkey, netuid, amount);
        let swap = Self::sell(netuid, amount, false);
        Self::deposit(coldkey, swap.tao)?;
        Self::drop_unaffordable_children(hotkey);
        Self::deposit_event(Event::StakeRemoved(coldkey.clone(), hotkey.clone(), swap.tao, amount, netuid, swap.fee));
        Ok(swap.tao)
    }

    /// The largest part of an amount of TAO that does not push the price above the limit.
    fn buy_within(netuid: NetUid, amount: TaoBalance, limit: PriceLimit) -> Result<TaoBalance, Error<T>> {
        if Self::alpha_price(netuid) > limit.price {
            return Err(Error::<T>::SlippageTooHigh);
        }
        if !Self::is_dynamic(netuid) {
            return Ok(amount);
        }
        // With k = tao * alpha the price after the swap is (tao + x)^2 / k, so tao + x <= sqrt(price * k).
        let (tao, alpha) = Self::reserves(netuid);
        let target = scaled_root(tao.saturating_mul(alpha), u128::from(limit.price));
        within(u128::from(amount), target.saturating_sub(tao), limit)
    }

    /// The largest part of an amount of alpha that does not push the price below the limit.
    fn sell_within(netuid: NetUid, amount: AlphaBalance, limit: PriceLimit) -> Result<AlphaBalance, Error<T>> {
        if Self::alpha_price(netuid) < limit.price {
            return Err(Error::<T>::SlippageTooHigh);
        }
        if !Self::is_dynamic(netuid) || limit.price == 0 {
            return Ok(amount);
        }
        let (tao, alpha) = Self::reserves(netuid);
        let at_limit = scaled_root(tao.saturating_mul(alpha), u128::from(limit.price));
        let target = tao.saturating_mul(alpha).checked_div(at_limit).unwrap_or(0);
        within(u128::from(amount), target.saturating_sub(alpha), limit)
    }
}

/// `sqrt(k * price / 10^9)`: the TAO of a pool with product `k` at a price in rao.
fn scaled_root(k: u128, price: u128) -> u128 {
    let scaled = (k / 1_000_000_000).saturating_mul(price);
    scaled.isqrt()
}

fn within<T: Config>(amount: u128, most: u128, limit: PriceLimit) -> Result<u64, Error<T>> {
    if amount <= most {
        Ok(to_u64(amount))
    } else if limit.allow_partial && most > 0 {
        Ok(to_u64(most))
    } else {
        Err(Error::<T>::SlippageTooHigh)
    }
}
