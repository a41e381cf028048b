//! What the owner of a subnet does with it: tempo, mechanisms, symbol, identity, fewer neurons, its end.

use std::collections::{BTreeMap, BTreeSet};

use frame_support::ensure;
use frame_system::pallet_prelude::OriginFor;
use sp_runtime::DispatchResult;

use super::limits::{Hyperparameter, OwnerLimit};
use super::pallet::*;
use super::registration::fit;
use super::types::{MechId, NetUid, SubnetIdentityV3};
use super::{ACTIVITY_CUTOFF_FACTOR_MILLI, MAX_TEMPO, MAX_UIDS, MIN_TEMPO};

/// Most mechanisms that table indices leave room for.
const MAX_MECHANISMS: MechId = 16;

/// Least value of the bounds of liquid alpha: a fortieth.
const MIN_ALPHA: u16 = u16::MAX / 40;

/// Part of the neurons, in hundredths, that must stay below after a trim if they are immune.
pub(super) const MAX_IMMUNE_PERCENT: u8 = 80;

impl<T: Config> Pallet<T> {
    /// Sets the tempo of a subnet, within bounds for its owner.
    ///
    /// # Errors
    /// Who may not, and what is out of bounds or too soon.
    pub fn set_tempo_by(origin: OriginFor<T>, netuid: NetUid, tempo: u16) -> DispatchResult {
        let is_owner = Self::ensure_owner_or_root(origin.clone(), netuid)?.is_some();
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        ensure!(!is_owner || (MIN_TEMPO..=MAX_TEMPO).contains(&tempo), Error::<T>::TempoOutOfBounds);
        Self::as_owner_or_root(origin, netuid, OwnerLimit::Tempo, || {
            Self::write_tempo(netuid, tempo);
            Ok(())
        })
    }

    /// Sets for how much of a tempo weights count.
    ///
    /// # Errors
    /// Who may not, and what is out of bounds or too soon.
    pub fn set_activity_cutoff_factor_by(origin: OriginFor<T>, netuid: NetUid, factor_milli: u32) -> DispatchResult {
        Self::ensure_owner_or_root(origin.clone(), netuid)?;
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        let allowed = ACTIVITY_CUTOFF_FACTOR_MILLI.contains(&factor_milli);
        ensure!(allowed, Error::<T>::ActivityCutoffFactorMilliOutOfBounds);
        Self::as_owner_or_root(origin, netuid, Hyperparameter::ActivityCutoffFactorMilli.into(), || {
            ActivityCutoffFactorMilli::<T>::insert(netuid, factor_milli);
            Self::deposit_event(Event::ActivityCutoffFactorMilliSet { netuid, factor_milli });
            Ok(())
        })
    }

    /// Sets which hotkey is the owner's.
    ///
    /// # Errors
    /// Who may not, and when it is too soon.
    pub fn set_owner_hotkey_by(origin: OriginFor<T>, netuid: NetUid, hotkey: T::AccountId) -> DispatchResult {
        Self::ensure_owner_or_root(origin, netuid)?;
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        // Root waits as well, as on the public chain.
        ensure!(Self::passes_limit(OwnerLimit::OwnerHotkey, &hotkey, netuid), Error::<T>::TxRateLimitExceeded);
        Self::note_use(OwnerLimit::OwnerHotkey, &hotkey, netuid);
        SubnetOwnerHotkey::<T>::insert(netuid, &hotkey);
        Self::deposit_event(Event::SubnetOwnerHotkeySet(netuid, hotkey));
        Ok(())
    }

    /// Sets bounds of the rate at which bonds move.
    ///
    /// # Errors
    /// What is out of bounds.
    pub fn set_alpha_values(netuid: NetUid, low: u16, high: u16) -> DispatchResult {
        ensure!(LiquidAlphaOn::<T>::get(netuid), Error::<T>::LiquidAlphaDisabled);
        ensure!(high >= MIN_ALPHA, Error::<T>::AlphaHighTooLow);
        ensure!((MIN_ALPHA..=high).contains(&low), Error::<T>::AlphaLowOutOfRange);
        AlphaValues::<T>::insert(netuid, (low, high));
        Ok(())
    }

    /// Sets from which epoch on commits may be revealed.
    ///
    /// # Errors
    /// What is out of bounds.
    pub fn set_reveal_period(netuid: NetUid, epochs: u64) -> DispatchResult {
        ensure!(epochs <= 100, Error::<T>::RevealPeriodTooLarge);
        ensure!(epochs >= 1, Error::<T>::RevealPeriodTooSmall);
        RevealPeriodEpochs::<T>::insert(netuid, epochs);
        Self::deposit_event(Event::CommitRevealPeriodsSet(netuid, epochs));
        Ok(())
    }

    /// Whether a subnet may have so many neurons on each of so many mechanisms.
    ///
    /// # Errors
    /// `TooManyUIDsPerMechanism`.
    pub fn ensure_room_for_mechanisms(uids: u16, mechanisms: MechId) -> DispatchResult {
        let all = u32::from(uids) * u32::from(mechanisms);
        ensure!(all <= u32::from(MAX_UIDS), Error::<T>::TooManyUIDsPerMechanism);
        Ok(())
    }

    /// Sets the number of a subnet's mechanisms. Those that go take their tables with them.
    ///
    /// # Errors
    /// What is out of bounds.
    pub fn set_mechanism_count(netuid: NetUid, count: MechId) -> DispatchResult {
        ensure!(Self::exists(netuid), Error::<T>::MechanismDoesNotExist);
        ensure!((1..=MaxMechanismCount::<T>::get()).contains(&count), Error::<T>::InvalidValue);
        Self::ensure_room_for_mechanisms(MaxAllowedUids::<T>::get(netuid), count)?;
        let old = MechanismCountCurrent::<T>::get(netuid);
        if old == count {
            return Ok(());
        }
        for mecid in count..old {
            Self::clear_mechanism(netuid, mecid);
        }
        let n = usize::from(SubnetworkN::<T>::get(netuid));
        for mecid in old..count {
            // Nobody has set weights there: block 0, as for whoever never did.
            Incentive::<T>::insert(netuid.index(mecid), vec![0u16; n]);
            LastUpdate::<T>::insert(netuid.index(mecid), vec![0u64; n]);
        }
        MechanismCountCurrent::<T>::insert(netuid, count);
        MechanismEmissionSplit::<T>::remove(netuid);
        Ok(())
    }

    fn clear_mechanism(netuid: NetUid, mecid: MechId) {
        let index = netuid.index(mecid);
        let _ = Weights::<T>::clear_prefix(index, u32::MAX, None);
        let _ = Bonds::<T>::clear_prefix(index, u32::MAX, None);
        let _ = WeightCommits::<T>::clear_prefix(index, u32::MAX, None);
        let _ = TimelockedWeightCommits::<T>::clear_prefix(index, u32::MAX, None);
        Incentive::<T>::remove(index);
        ConsensusByMechanism::<T>::remove(index);
        LastUpdate::<T>::remove(index);
    }

    /// Sets the most mechanisms that a subnet may have.
    ///
    /// # Errors
    /// What is out of bounds.
    pub fn set_max_mechanism_count(count: MechId) -> DispatchResult {
        ensure!((1..=MAX_MECHANISMS).contains(&count), Error::<T>::InvalidValue);
        MaxMechanismCount::<T>::put(count);
        Ok(())
    }

    /// Sets the shares of a subnet's mechanisms, which sum to 65535; equal ones for `None`.
    ///
    /// # Errors
    /// What does not fit.
    pub fn set_emission_split(netuid: NetUid, split: Option<Vec<u16>>) -> DispatchResult {
        ensure!(Self::exists(netuid), Error::<T>::MechanismDoesNotExist);
        let Some(split) = split else {
            MechanismEmissionSplit::<T>::remove(netuid);
            return Ok(());
        };
        let fits = split.len() == usize::from(MechanismCountCurrent::<T>::get(netuid));
        let sum: u64 = split.iter().copied().map(u64::from).sum();
        ensure!(fits && sum == u64::from(u16::MAX), Error::<T>::InvalidValue);
        MechanismEmissionSplit::<T>::insert(netuid, split);
        Ok(())
    }

    /// Changes the symbol of the owner's subnet, which no other may have.
    pub(super) fn do_update_symbol(origin: OriginFor<T>, netuid: NetUid, symbol: Vec<u8>) -> DispatchResult {
        Self::ensure_owner_or_root(origin, netuid)?;
        let valid = std::str::from_utf8(&symbol).is_ok_and(|text| (1..=8).contains(&text.chars().count()));
        ensure!(valid, Error::<T>::SymbolDoesNotExist);
        let taken = TokenSymbol::<T>::iter().any(|(other, known)| other != netuid && known == symbol);
        ensure!(!taken, Error::<T>::SymbolAlreadyInUse);
        TokenSymbol::<T>::insert(netuid, &symbol);
        Self::deposit_event(Event::SymbolUpdated { netuid, symbol });
        Ok(())
    }

    pub(super) fn do_set_subnet_identity(
        coldkey: &T::AccountId,
        netuid: NetUid,
        identity: SubnetIdentityV3,
    ) -> DispatchResult {
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        ensure!(SubnetOwner::<T>::get(netuid) == *coldkey, Error::<T>::NotSubnetOwner);
        ensure!(is_valid_identity(&identity), Error::<T>::InvalidIdentity);
        SubnetIdentitiesV3::<T>::insert(netuid, identity);
        Self::deposit_event(Event::SubnetIdentitySet(netuid));
        Ok(())
    }

    /// Slots that are never given to others: the owner's hotkey and the oldest of the owner's, up to the limit.
    pub(super) fn immortal_uids(netuid: NetUid) -> BTreeSet<u16> {
        let limit = usize::from(ImmuneOwnerUidsLimit::<T>::get(netuid));
        let Ok(owner) = SubnetOwner::<T>::try_get(netuid) else { return BTreeSet::new() };
        let mut candidates: Vec<(u64, u16)> = OwnedHotkeys::<T>::get(owner)
            .iter()
            .filter_map(|hotkey| Uids::<T>::get(netuid, hotkey))
            .map(|uid| (BlockAtRegistration::<T>::get(netuid, uid), uid))
            .collect();
        candidates.sort_unstable();
        let oldest = candidates.into_iter().map(|(_, uid)| uid).take(limit);
        let mut uids: Vec<u16> = Self::owner_uid(netuid).into_iter().collect();
        uids.extend(oldest.filter(|uid| Self::owner_uid(netuid) != Some(*uid)));
        uids.truncate(limit);
        uids.into_iter().collect()
    }

    pub(super) fn is_young(netuid: NetUid, uid: u16) -> bool {
        let age = Self::block().saturating_sub(BlockAtRegistration::<T>::get(netuid, uid));
        age < u64::from(ImmunityPeriod::<T>::get(netuid))
    }

    /// Lowers the number of neurons: those with the least emission go, those left move together.
    ///
    /// # Errors
    /// What is out of bounds, or that too many of those left would be immune.
    pub fn trim(netuid: NetUid, max: u16) -> DispatchResult {
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        let allowed = MinAllowedUids::<T>::get(netuid)..=MaxAllowedUids::<T>::get(netuid);
        ensure!(allowed.contains(&max), Error::<T>::InvalidValue);
        let n = SubnetworkN::<T>::get(netuid);
        if n > max {
            let immortal = Self::immortal_uids(netuid);
            let immune: BTreeSet<u16> =
                (0..n).filter(|uid| immortal.contains(uid) || Self::is_young(netuid, *uid)).collect();
            let count = u32::try_from(immune.len()).unwrap_or(u32::MAX);
            let too_many = count * 100 >= u32::from(max) * u32::from(MAX_IMMUNE_PERCENT);
            ensure!(!too_many, Error::<T>::TrimmingWouldExceedMaxImmunePercentage);
            let emission = fit(Emission::<T>::get(netuid), usize::from(n));
            let mut order: Vec<u16> = (0..n).filter(|uid| !immune.contains(uid)).collect();
            // The last of those with the same emission goes first.
            order.sort_by_key(|uid| (emission[usize::from(*uid)], std::cmp::Reverse(*uid)));
            let gone: BTreeSet<u16> = order.into_iter().take(usize::from(n - max)).collect();
            let kept: Vec<u16> = (0..n).filter(|uid| !gone.contains(uid)).collect();
            for uid in &gone {
                Self::forget_neuron(netuid, *uid);
            }
            Self::close_gaps(netuid, &kept);
        }
        MaxAllowedUids::<T>::insert(netuid, max);
        Ok(())
    }

    /// Removes what is kept by hotkey of a neuron, and its slot in maps by uid.
    fn forget_neuron(netuid: NetUid, uid: u16) {
        let hotkey = Keys::<T>::take(netuid, uid);
        Self::forget_hotkey(netuid, &hotkey);
        AlphaDividendsPerSubnet::<T>::remove(netuid, &hotkey);
        BlockAtRegistration::<T>::remove(netuid, uid);
        Self::forget_evm(netuid, uid);
        for mecid in 0..MechanismCountCurrent::<T>::get(netuid) {
            Weights::<T>::remove(netuid.index(mecid), uid);
            Bonds::<T>::remove(netuid.index(mecid), uid);
        }
    }

    /// Moves neurons to the first slots, in their order.
    fn close_gaps(netuid: NetUid, kept: &[u16]) {
        let new_of: BTreeMap<u16, u16> = kept.iter().copied().zip(0..).collect();
        let n = usize::from(SubnetworkN::<T>::get(netuid));
        macro_rules! compress {
            ($($item:ident at $key:expr),* $(,)?) => {
                $($item::<T>::mutate($key, |all| {
                    let old = fit(std::mem::take(all), n);
                    *all = kept.iter().map(|uid| old[usize::from(*uid)]).collect();
                });)*
            };
        }
        compress!(
            Active at netuid,
            Consensus at netuid,
            Dividends at netuid,
            ValidatorTrust at netuid,
            ValidatorPermit at netuid,
            StakeWeight at netuid,
            Emission at netuid,
        );
        for mecid in 0..MechanismCountCurrent::<T>::get(netuid) {
            let index = netuid.index(mecid);
            compress!(Incentive at index, LastUpdate at index);
            let renumber = |row: Vec<(u16, u16)>| -> Vec<(u16, u16)> {
                row.into_iter().filter_map(|(uid, value)| Some((*new_of.get(&uid)?, value))).collect()
            };
            // In rising order a row moves to a slot that is empty or its own.
            for (old, new) in &new_of {
                if Weights::<T>::contains_key(index, old) {
                    Weights::<T>::insert(index, new, renumber(Weights::<T>::take(index, old)));
                }
                if Bonds::<T>::contains_key(index, old) {
                    Bonds::<T>::insert(index, new, renumber(Bonds::<T>::take(index, old)));
                }
            }
        }
        for (old, new) in &new_of {
            let (hotkey, block) = (Keys::<T>::take(netuid, old), BlockAtRegistration::<T>::take(netuid, old));
            Uids::<T>::insert(netuid, &hotkey, new);
            Keys::<T>::insert(netuid, new, hotkey);
            BlockAtRegistration::<T>::insert(netuid, new, block);
            if let Some(bound) = AssociatedEvmAddress::<T>::take(netuid, old) {
                AssociatedUidsByEvmAddress::<T>::mutate(netuid, bound.0, |uids| {
                    uids.iter_mut().filter(|(uid, _)| uid == old).for_each(|(uid, _)| *uid = *new);
                });
                AssociatedEvmAddress::<T>::insert(netuid, new, bound);
            }
        }
        SubnetworkN::<T>::insert(netuid, u16::try_from(kept.len()).unwrap_or(u16::MAX));
    }

    /// Ends a subnet: stakes are paid out at the price of the pool, and everything about it is forgotten.
    pub(super) fn do_dissolve_network(netuid: NetUid) -> DispatchResult {
        ensure!(!netuid.is_root() && Self::exists(netuid), Error::<T>::SubnetNotExists);
        Self::pay_out_stakes(netuid)?;
        for uid in 0..SubnetworkN::<T>::get(netuid) {
            Self::forget_neuron(netuid, uid);
        }
        let hotkeys: Vec<_> = PendingChildKeys::<T>::iter_key_prefix(netuid).collect();
        for hotkey in hotkeys {
            PendingChildKeys::<T>::remove(netuid, hotkey);
        }
        let parents: Vec<_> = ChildKeys::<T>::iter_keys().filter(|(_, at)| *at == netuid).collect();
        for (hotkey, _) in parents {
            Self::write_children(&hotkey, netuid, &[]);
        }
        for mecid in 0..MechanismCountCurrent::<T>::get(netuid) {
            Self::clear_mechanism(netuid, mecid);
        }
        macro_rules! remove {
            ($($item:ident),* $(,)?) => { $($item::<T>::remove(netuid);)* };
        }
        remove!(
            NetworksAdded,
            SubnetworkN,
            NetworkRegisteredAt,
            SubnetOwner,
            SubnetOwnerHotkey,
            SubnetMechanism,
            FirstEmissionBlockNumber,
            SubtokenEnabled,
            SubnetEmissionEnabled,
            TransferToggle,
            SubnetLocked,
            SubnetIdentitiesV3,
            TokenSymbol,
            Active,
            ValidatorPermit,
            Consensus,
            Dividends,
            ValidatorTrust,
            Emission,
            StakeWeight,
            Rho,
            Kappa,
            MaxAllowedUids,
            MinAllowedUids,
            MinAllowedWeights,
            MaxWeightsLimit,
            ImmunityPeriod,
            ActivityCutoff,
            ActivityCutoffFactorMilli,
            MaxAllowedValidators,
            WeightsVersionKey,
            WeightsSetRateLimit,
            ServingRateLimit,
            BondsMovingAverage,
            BondsPenalty,
            BondsResetOn,
            LiquidAlphaOn,
            Yuma3On,
            AlphaValues,
            AlphaSigmoidSteepness,
            NetworkRegistrationAllowed,
            NetworkPowRegistrationAllowed,
            Burn,
            MinBurn,
            MaxBurn,
            BurnHalfLife,
            BurnIncreaseMult,
            CommitRevealWeightsEnabled,
            RevealPeriodEpochs,
            ImmuneOwnerUidsLimit,
            MinNonImmuneUids,
            OwnerCutEnabled,
            RecycleOrBurn,
            Tempo,
            BlocksSinceLastStep,
            LastMechansimStepBlock,
            LastEpochBlock,
            PendingEpochAt,
            SubnetEpochIndex,
            PendingServerEmission,
            PendingValidatorEmission,
            PendingRootAlphaDivs,
            PendingOwnerCut,
            MechanismCountCurrent,
            MechanismEmissionSplit,
            TotalAlphaStaked,
            SubnetTAO,
            SubnetAlphaIn,
            SubnetAlphaOut,
            SubnetVolume,
            SubnetMovingPrice,
            SubnetTaoInEmission,
            SubnetAlphaInEmission,
            SubnetAlphaOutEmission,
            LiquidAlphaConsensusMode,
            MinChildkeyTakePerSubnet,
        );
        TotalNetworks::<T>::mutate(|total| *total = total.saturating_sub(1));
        Self::deposit_event(Event::NetworkRemoved(netuid));
        Ok(())
    }

    /// The subnet that would make room for another: the cheapest alpha among those old enough, then the oldest.
    pub fn subnet_to_prune() -> Option<NetUid> {
        let old_enough = |netuid: &NetUid| {
            let until = NetworkRegisteredAt::<T>::get(netuid).saturating_add(NetworkImmunityPeriod::<T>::get());
            !netuid.is_root() && Self::block() >= until
        };
        let rank = |netuid: &NetUid| (Self::alpha_price(*netuid), NetworkRegisteredAt::<T>::get(netuid));
        Self::netuids().into_iter().filter(old_enough).min_by_key(rank)
    }

    /// Gives every staker their part of the pool's TAO.
    fn pay_out_stakes(netuid: NetUid) -> DispatchResult {
        let pool = u128::from(SubnetTAO::<T>::get(netuid));
        let staked = u128::from(TotalAlphaStaked::<T>::get(netuid));
        let positions: Vec<_> = AlphaV2::<T>::iter_keys().filter(|(_, _, at)| *at == netuid).collect();
        let mut paid = 0;
        for (hotkey, coldkey, _) in positions {
            let alpha = Self::stake_of(&hotkey, &coldkey, netuid);
            let tao = (pool * u128::from(alpha)).checked_div(staked).unwrap_or(0);
            let tao = u64::try_from(tao).unwrap_or(0);
            Self::decrease_stake(&hotkey, &coldkey, netuid, alpha);
            if tao >= 500 {
                Self::deposit(&coldkey, tao)?;
                paid += tao;
            }
        }
        TotalStake::<T>::mutate(|total| *total = total.saturating_sub(paid));
        Ok(())
    }
}

fn is_valid_identity(i: &SubnetIdentityV3) -> bool {
    let short = [&i.subnet_name, &i.discord].iter().all(|text| text.len() <= 256);
    let long = [&i.github_repo, &i.subnet_contact, &i.subnet_url, &i.description, &i.logo_url, &i.additional];
    short && long.iter().all(|text| text.len() <= 1024)
}
