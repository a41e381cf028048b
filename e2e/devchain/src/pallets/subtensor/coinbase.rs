//! What happens at the start of each block: prices fall, emission accrues, due epochs run.

use frame_support::ensure;
use sp_runtime::DispatchResult;

use super::limits::{Hyperparameter, OwnerLimit};
use super::pallet::*;
use super::types::{AlphaBalance, NetUid};

/// Alpha that a subnet emits per block, in rao.
const ALPHA_PER_BLOCK: AlphaBalance = 1_000_000_000;

/// Part of an amount in 65535ths.
fn part(amount: u64, share: u16) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(share) / 65_535).unwrap_or(amount)
}

impl<T: Config> Pallet<T> {
    pub(super) fn block_step() {
        let netuids: Vec<NetUid> = Self::netuids().into_iter().filter(|netuid| !netuid.is_root()).collect();
        let emitting = netuids.iter().filter(|netuid| Self::emits(**netuid)).count();
        for netuid in &netuids {
            Self::decay_price(*netuid);
            Self::emit(*netuid, u64::try_from(emitting).unwrap_or(1));
            Self::apply_pending_children(*netuid);
        }
        Self::run_due_epochs(&netuids);
    }

    fn emits(netuid: NetUid) -> bool {
        SubnetEmissionEnabled::<T>::get(netuid)
            && FirstEmissionBlockNumber::<T>::get(netuid).is_some_and(|first| first <= Self::block())
    }

    fn emit(netuid: NetUid, emitting: u64) {
        if !Self::emits(netuid) {
            for clear in [SubnetAlphaOutEmission::<T>::remove, SubnetAlphaInEmission::<T>::remove] {
                clear(netuid);
            }
            SubnetTaoInEmission::<T>::remove(netuid);
            return;
        }
        Self::feed_pool(netuid, BlockEmission::<T>::get() / emitting.max(1));
        SubnetAlphaOutEmission::<T>::insert(netuid, ALPHA_PER_BLOCK);
        SubnetAlphaOut::<T>::mutate(netuid, |out| *out = out.saturating_add(ALPHA_PER_BLOCK));

        let owned = SubnetOwner::<T>::contains_key(netuid) && OwnerCutEnabled::<T>::get(netuid);
        let cut = if owned { part(ALPHA_PER_BLOCK, SubnetOwnerCut::<T>::get()) } else { 0 };
        let rest = ALPHA_PER_BLOCK - cut;
        let root = Self::root_part(netuid, rest);
        let server = rest / 2;
        PendingOwnerCut::<T>::mutate(netuid, |pending| *pending += cut);
        PendingRootAlphaDivs::<T>::mutate(netuid, |pending| *pending += root);
        PendingServerEmission::<T>::mutate(netuid, |pending| *pending += server);
        PendingValidatorEmission::<T>::mutate(netuid, |pending| *pending += rest - server - root);
    }

    /// Half of what root stake is of all that stands behind a subnet.
    fn root_part(netuid: NetUid, alpha: AlphaBalance) -> AlphaBalance {
        let weighted = (u128::from(SubnetTAO::<T>::get(NetUid::ROOT)) * u128::from(TaoWeight::<T>::get())) >> 64;
        let all = weighted + u128::from(SubnetAlphaOut::<T>::get(netuid));
        (u128::from(alpha) * weighted).checked_div(all * 2).and_then(|part| u64::try_from(part).ok()).unwrap_or(0)
    }

    /// A subnet with a pool gets its part of the block's TAO, and alpha at the price of the pool.
    fn feed_pool(netuid: NetUid, tao: u64) {
        if SubnetMechanism::<T>::get(netuid) != 1 {
            return;
        }
        let alpha = u128::from(tao) * 1_000_000_000 / u128::from(Self::alpha_price(netuid).max(1));
        let alpha = u64::try_from(alpha).unwrap_or(ALPHA_PER_BLOCK).min(ALPHA_PER_BLOCK);
        SubnetTAO::<T>::mutate(netuid, |pool| *pool = pool.saturating_add(tao));
        SubnetAlphaIn::<T>::mutate(netuid, |pool| *pool = pool.saturating_add(alpha));
        SubnetTaoInEmission::<T>::insert(netuid, tao);
        SubnetAlphaInEmission::<T>::insert(netuid, alpha);
        TotalIssuance::<T>::mutate(|total| *total = total.saturating_add(tao));
    }

    /// Whether a subnet's epoch falls into this block.
    pub(super) fn epoch_due(netuid: NetUid) -> bool {
        let tempo = u64::from(Tempo::<T>::get(netuid));
        let pending = PendingEpochAt::<T>::get(netuid);
        let asked_for = pending != 0 && Self::block() >= pending;
        let in_turn = tempo != 0 && Self::block().saturating_sub(LastEpochBlock::<T>::get(netuid)) >= tempo;
        asked_for || in_turn
    }

    /// Block of a subnet's next epoch.
    pub fn next_epoch_block(netuid: NetUid) -> Option<u64> {
        let tempo = u64::from(Tempo::<T>::get(netuid));
        let pending = PendingEpochAt::<T>::get(netuid);
        let in_turn = (tempo != 0).then(|| LastEpochBlock::<T>::get(netuid) + tempo);
        let asked_for = (pending != 0).then_some(pending);
        let next = in_turn.into_iter().chain(asked_for).min()?;
        Self::exists(netuid).then(|| next.max(Self::block() + 1))
    }

    /// Whether a subnet's next epoch is so near that its owner may change nothing.
    pub fn in_freeze_window(netuid: NetUid) -> bool {
        let window = u64::from(AdminFreezeWindow::<T>::get());
        if PendingEpochAt::<T>::get(netuid) > Self::block() {
            return true;
        }
        Self::next_epoch_block(netuid).is_some_and(|next| next.saturating_sub(Self::block()) < window)
    }

    fn run_due_epochs(netuids: &[NetUid]) {
        let mut left = MaxEpochsPerBlock::<T>::get().max(1);
        for netuid in netuids {
            if !Self::epoch_due(*netuid) {
                BlocksSinceLastStep::<T>::mutate(netuid, |blocks| *blocks += 1);
            } else if left == 0 {
                let block = Self::block();
                PendingEpochAt::<T>::insert(netuid, block + 1);
                BlocksSinceLastStep::<T>::mutate(netuid, |blocks| *blocks += 1);
                Self::deposit_event(Event::EpochDeferred { netuid: *netuid, from_block: block, to_block: block + 1 });
            } else {
                left -= 1;
                Self::run_epoch(*netuid);
                Self::start_next_epoch(*netuid);
            }
        }
    }

    fn start_next_epoch(netuid: NetUid) {
        LastEpochBlock::<T>::insert(netuid, Self::block());
        LastMechansimStepBlock::<T>::insert(netuid, Self::block());
        BlocksSinceLastStep::<T>::insert(netuid, 0);
        PendingEpochAt::<T>::remove(netuid);
        SubnetEpochIndex::<T>::mutate(netuid, |index| *index += 1);
        Self::drop_expired_timelocked(netuid);
    }

    /// Writes a tempo and starts counting it anew, so that a shorter one does not fire at once.
    pub fn write_tempo(netuid: NetUid, tempo: u16) {
        Tempo::<T>::insert(netuid, tempo);
        LastEpochBlock::<T>::insert(netuid, Self::block());
        Self::deposit_event(Event::TempoSet(netuid, tempo));
    }

    /// Asks for an epoch at the end of the freeze window, which starts with that.
    pub(super) fn do_trigger_epoch(by: T::AccountId, netuid: NetUid) -> DispatchResult {
        let blocked = CommitRevealWeightsEnabled::<T>::get(netuid);
        ensure!(!blocked, Error::<T>::DynamicTempoBlockedByCommitReveal);
        ensure!(PendingEpochAt::<T>::get(netuid) == 0, Error::<T>::EpochTriggerAlreadyPending);
        let fires_at = Self::block() + u64::from(AdminFreezeWindow::<T>::get()).max(1);
        let imminent = Self::next_epoch_block(netuid).is_some_and(|next| next <= fires_at);
        ensure!(!imminent, Error::<T>::AutoEpochAlreadyImminent);
        let limit = OwnerLimit::from(Hyperparameter::TriggerEpoch);
        ensure!(Self::passes_limit(limit, &by, netuid), Error::<T>::TxRateLimitExceeded);
        Self::note_use(limit, &by, netuid);
        PendingEpochAt::<T>::insert(netuid, fires_at);
        Self::deposit_event(Event::EpochTriggered { netuid, by, fires_at });
        Ok(())
    }
}
