//! Weights that are committed first: by hash, and encrypted for a drand round.

use std::collections::VecDeque;

use codec::{Compact, Encode};
use frame_support::traits::ConstU32;
use frame_support::{BoundedVec, ensure};
use sp_core::H256;
use sp_runtime::DispatchResult;
use sp_runtime::traits::{BlakeTwo256, Hash};

use super::pallet::*;
use super::registration::set;
use super::types::{MechId, NetUid, NetUidStorageIndex};

/// Unrevealed commits a hotkey may have.
const MAX_UNREVEALED_COMMITS: usize = 10;

/// What a reveal carries.
#[derive(Debug, Clone)]
pub struct Reveal {
    /// Targets.
    pub uids: Vec<u16>,
    /// Their weights.
    pub values: Vec<u16>,
    /// Random numbers that kept the hash from being guessed.
    pub salt: Vec<u16>,
    /// Version key of the weights.
    pub version_key: u64,
}

impl<T: Config> Pallet<T> {
    /// Hash that a commit names.
    pub fn commit_hash(who: &T::AccountId, index: NetUidStorageIndex, reveal: &Reveal) -> H256 {
        let parts = (who, index, &reveal.uids, &reveal.values, &reveal.salt, reveal.version_key);
        BlakeTwo256::hash(&parts.encode())
    }

    /// Epoch that a commit made now belongs to: the next one when an epoch falls into this block.
    fn commit_epoch(netuid: NetUid) -> u64 {
        SubnetEpochIndex::<T>::get(netuid) + u64::from(Self::epoch_due(netuid))
    }

    pub(super) fn reveal_epoch_reached(netuid: NetUid, commit_epoch: u64) -> bool {
        Self::commit_epoch(netuid) == commit_epoch + RevealPeriodEpochs::<T>::get(netuid)
    }

    fn check_commit(hotkey: &T::AccountId, netuid: NetUid, mecid: MechId) -> Result<u16, Error<T>> {
        Self::check_mechanism(netuid, mecid)?;
        ensure!(CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::CommitRevealDisabled);
        Uids::<T>::get(netuid, hotkey).ok_or(Error::<T>::HotKeyNotRegisteredInSubNet)
    }

    fn check_commit_rate(netuid: NetUid, index: NetUidStorageIndex, uid: u16) -> Result<(), Error<T>> {
        ensure!(Self::weights_rate_limit_passed(netuid, index, uid), Error::<T>::CommittingWeightsTooFast);
        Ok(())
    }

    fn touch(index: NetUidStorageIndex, uid: u16) {
        LastUpdate::<T>::mutate(index, |all| set(all, usize::from(uid), Self::block()));
    }

    pub(super) fn do_commit_weights(
        hotkey: &T::AccountId,
        netuid: NetUid,
        mecid: MechId,
        hash: H256,
    ) -> DispatchResult {
        let uid = Self::check_commit(hotkey, netuid, mecid)?;
        let index = netuid.index(mecid);
        Self::check_commit_rate(netuid, index, uid)?;
        let epoch = Self::commit_epoch(netuid);
        WeightCommits::<T>::try_mutate(index, hotkey, |slot| {
            let queue = slot.get_or_insert_with(VecDeque::new);
            let period = RevealPeriodEpochs::<T>::get(netuid);
            queue.retain(|(_, committed, _, _)| epoch <= committed + period);
            ensure!(queue.len() < MAX_UNREVEALED_COMMITS, Error::<T>::TooManyUnrevealedCommits);
            queue.push_back((hash, epoch, Self::block(), 0));
            Ok::<_, Error<T>>(())
        })?;
        Self::touch(index, uid);
        Self::deposit_event(Event::WeightsCommitted(hotkey.clone(), index, hash));
        Ok(())
    }

    /// Commits to weights on several subnets. Every item stands for itself; events tell which failed.
    pub(super) fn do_batch_commit_weights(
        hotkey: T::AccountId,
        netuids: Vec<Compact<NetUid>>,
        hashes: Vec<H256>,
    ) -> DispatchResult {
        ensure!(netuids.len() == hashes.len(), Error::<T>::InputLengthsUnequal);
        let commit =
            |(netuid, hash): (&Compact<NetUid>, H256)| (netuid.0, Self::do_commit_weights(&hotkey, netuid.0, 0, hash));
        Self::report_batch(netuids.iter().zip(hashes).map(commit).collect());
        Self::deposit_event(Event::BatchWeightsCompleted(netuids, hotkey));
        Ok(())
    }

    /// Reveals several weights, all or none.
    pub(super) fn do_batch_reveal_weights(hotkey: T::AccountId, netuid: NetUid, reveals: &[Reveal]) -> DispatchResult {
        let index = netuid.index(0);
        let mut hashes = Vec::with_capacity(reveals.len());
        for reveal in reveals {
            Self::do_reveal_weights(&hotkey, netuid, 0, reveal)?;
            hashes.push(Self::commit_hash(&hotkey, index, reveal));
        }
        Self::deposit_event(Event::WeightsBatchRevealed(hotkey, netuid, hashes));
        Ok(())
    }

    pub(super) fn do_reveal_weights(
        hotkey: &T::AccountId,
        netuid: NetUid,
        mecid: MechId,
        reveal: &Reveal,
    ) -> DispatchResult {
        Self::check_mechanism(netuid, mecid)?;
        ensure!(CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::CommitRevealDisabled);
        let index = netuid.index(mecid);
        let mut queue = WeightCommits::<T>::get(index, hotkey).ok_or(Error::<T>::NoWeightsCommitFound)?;
        let epoch = Self::commit_epoch(netuid);
        let period = RevealPeriodEpochs::<T>::get(netuid);
        let hash = Self::commit_hash(hotkey, index, reveal);
        let expired = |committed: u64| epoch > committed + period;
        let position = queue.iter().position(|(known, ..)| *known == hash);
        let Some(position) = position else {
            let all_expired = queue.iter().all(|(_, committed, ..)| expired(*committed));
            let error = if queue.is_empty() || all_expired {
                Error::<T>::NoWeightsCommitFound
            } else {
                Error::<T>::InvalidRevealCommitHashNotMatch
            };
            return Err(error.into());
        };
        let committed = queue[position].1;
        ensure!(!expired(committed), Error::<T>::ExpiredWeightCommit);
        ensure!(Self::reveal_epoch_reached(netuid, committed), Error::<T>::RevealTooEarly);
        Self::do_set_weights(hotkey, netuid, mecid, &reveal.uids, &reveal.values, reveal.version_key)?;
        // Older commits of the queue can no longer be revealed in order.
        queue.drain(..=position);
        if queue.is_empty() {
            WeightCommits::<T>::remove(index, hotkey);
        } else {
            WeightCommits::<T>::insert(index, hotkey, queue);
        }
        Self::deposit_event(Event::WeightsRevealed(hotkey.clone(), index, hash));
        Ok(())
    }

    pub(super) fn do_commit_timelocked(
        hotkey: &T::AccountId,
        netuid: NetUid,
        mecid: MechId,
        commit: BoundedVec<u8, ConstU32<5000>>,
        reveal_round: u64,
        version: u16,
    ) -> DispatchResult {
        Self::check_mechanism(netuid, mecid)?;
        ensure!(CommitRevealWeightsEnabled::<T>::get(netuid), Error::<T>::CommitRevealDisabled);
        ensure!(version == CommitRevealWeightsVersion::<T>::get(), Error::<T>::IncorrectCommitRevealVersion);
        let uid = Self::check_commit(hotkey, netuid, mecid)?;
        let index = netuid.index(mecid);
        Self::check_commit_rate(netuid, index, uid)?;
        ensure!(reveal_round >= T::last_drand_round(), Error::<T>::InvalidRevealRound);
        let hash = BlakeTwo256::hash(&commit);
        TimelockedWeightCommits::<T>::try_mutate(index, Self::commit_epoch(netuid), |queue| {
            let own = queue.iter().filter(|(who, ..)| who == hotkey).count();
            ensure!(own < MAX_UNREVEALED_COMMITS, Error::<T>::TooManyUnrevealedCommits);
            queue.push_back((hotkey.clone(), Self::block(), commit, reveal_round));
            Ok::<_, Error<T>>(())
        })?;
        Self::touch(index, uid);
        Self::deposit_event(Event::TimelockedWeightsCommitted(hotkey.clone(), index, hash, reveal_round));
        Ok(())
    }

    /// Whether a commit can no longer be revealed.
    fn is_expired(netuid: NetUid, committed: u64) -> bool {
        Self::commit_epoch(netuid) > committed.saturating_add(RevealPeriodEpochs::<T>::get(netuid))
    }

    /// Per uid, the block of its oldest commit that may still be revealed, or the largest number.
    ///
    /// An epoch ignores weights on neurons that were registered after it: whoever committed could not know them.
    pub(super) fn oldest_commits(netuid: NetUid, index: NetUidStorageIndex, n: usize) -> Vec<u64> {
        let mut blocks = vec![u64::MAX; n];
        if !CommitRevealWeightsEnabled::<T>::get(netuid) {
            return blocks;
        }
        let mut note = |hotkey: &T::AccountId, block: u64| {
            let slot = Uids::<T>::get(netuid, hotkey).and_then(|uid| blocks.get_mut(usize::from(uid)));
            if let Some(slot) = slot {
                *slot = block.min(*slot);
            }
        };
        for (hotkey, queue) in WeightCommits::<T>::iter_prefix(index) {
            let oldest = queue.iter().find(|(_, epoch, ..)| !Self::is_expired(netuid, *epoch));
            if let Some((_, _, block, _)) = oldest {
                note(&hotkey, *block);
            }
        }
        for (epoch, queue) in TimelockedWeightCommits::<T>::iter_prefix(index) {
            if !Self::is_expired(netuid, epoch) {
                for (hotkey, block, ..) in &queue {
                    note(hotkey, *block);
                }
            }
        }
        blocks
    }

    /// Forgets timelocked commits whose epoch is past.
    ///
    /// They cannot be opened here: the key of their round is published by the drand network, which this chain does
    /// not read. The public chain drops unopened commits in the same way.
    pub(super) fn drop_expired_timelocked(netuid: NetUid) {
        let current = SubnetEpochIndex::<T>::get(netuid);
        let period = RevealPeriodEpochs::<T>::get(netuid);
        for mecid in 0..MechanismCountCurrent::<T>::get(netuid) {
            let index = netuid.index(mecid);
            let expired: Vec<u64> =
                TimelockedWeightCommits::<T>::iter_key_prefix(index).filter(|epoch| epoch + period < current).collect();
            for epoch in expired {
                TimelockedWeightCommits::<T>::remove(index, epoch);
            }
        }
    }
}
