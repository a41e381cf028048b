//! What the chain says about a hotkey in a subnet: limits, clocks, and what it did last.

use std::time::Duration;

use scale_decode::DecodeAsType;
use sidecar_util::{Hotkey, NetUid};

use super::call::{Call, mechanism_index};
use super::failure::Pause;
use super::link::{AtBlock, Link, Tips};
use crate::ChainError;
use crate::queries::RawAxon;

const PALLET: &str = "SubtensorModule";

/// Runtime API that knows when the next epoch starts, whatever the subnet's owner changed since the last.
const NEXT_EPOCH: (&str, &str) = ("SubnetInfoRuntimeApi", "get_next_epoch_start_block");

/// Blocks over which the time between two is measured where the chain does not declare it.
const MEASURED_BLOCKS: u64 = 16;

/// What decides how weights are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeightsFacts {
    pub(crate) block: u64,
    /// Milliseconds since 1970 of that block.
    pub(crate) now_ms: u64,
    pub(crate) uid: u16,
    pub(crate) neurons: u16,
    pub(crate) permit: bool,
    pub(crate) owner: bool,
    pub(crate) mechanisms: u8,
    pub(crate) version_key: u64,
    pub(crate) rate_limit: u64,
    pub(crate) last_update: u64,
    pub(crate) min_weights: u16,
    pub(crate) max_weight: u16,
    pub(crate) commit_reveal: bool,
    pub(crate) commit_reveal_version: u16,
    pub(crate) reveal_period_epochs: u64,
    pub(crate) tempo: u16,
    pub(crate) next_epoch: u64,
}

impl WeightsFacts {
    /// Blocks until the rate limit lets the next weights or commit through.
    pub(crate) fn rate_pause(&self) -> u64 {
        // Judged in the block after this one. Block 0 stands for never.
        let allowed = if self.last_update == 0 { 0 } else { self.last_update.saturating_add(self.rate_limit) };
        allowed.saturating_sub(self.block + 1)
    }
}

impl Link {
    /// Uid of a hotkey in a subnet.
    pub(crate) async fn uid(&self, at: &AtBlock, netuid: NetUid, hotkey: &Hotkey) -> Result<Option<u16>, ChainError> {
        self.value(at, (PALLET, "Uids"), (netuid.0, *hotkey.as_bytes())).await
    }

    async fn of_subnet<V: DecodeAsType + Default>(
        &self,
        at: &AtBlock,
        entry: &'static str,
        index: u16,
    ) -> Result<V, ChainError> {
        Ok(self.value::<_, V>(at, (PALLET, entry), (index,)).await?.unwrap_or_default())
    }

    /// Block at which the next epoch of a subnet starts.
    pub(crate) async fn next_epoch(&self, at: &AtBlock, netuid: NetUid) -> Result<Option<u64>, ChainError> {
        self.runtime_call(at, NEXT_EPOCH, (netuid.0,)).await
    }

    /// Epochs of a subnet until now. The next one counts already when it starts in the next block.
    pub(crate) async fn epoch_index(&self, at: &AtBlock, netuid: NetUid) -> Result<u64, ChainError> {
        self.of_subnet(at, "SubnetEpochIndex", netuid.0).await
    }

    /// Everything that decides how this hotkey may set weights; `None` where it is not registered.
    pub(crate) async fn weights_facts(
        &self,
        tips: Tips,
        netuid: NetUid,
        mecid: u8,
        hotkey: &Hotkey,
    ) -> Result<Option<WeightsFacts>, ChainError> {
        let at = &self.at(tips.best).await?;
        let Some(uid) = self.uid(at, netuid, hotkey).await? else { return Ok(None) };
        let index = mechanism_index(netuid, mecid);
        let plain = |entry| self.value::<(), u64>(at, ("Timestamp", entry), ());
        let version = self.value::<(), u16>(at, (PALLET, "CommitRevealWeightsVersion"), ());
        let (permits, updates, neurons, mechanisms) = futures::try_join!(
            self.of_subnet::<Vec<bool>>(at, "ValidatorPermit", netuid.0),
            self.of_subnet::<Vec<u64>>(at, "LastUpdate", index),
            self.of_subnet::<u16>(at, "SubnetworkN", netuid.0),
            self.of_subnet::<u8>(at, "MechanismCountCurrent", netuid.0),
        )?;
        let (version_key, rate_limit, min_weights, max_weight, commit_reveal) = futures::try_join!(
            self.of_subnet::<u64>(at, "WeightsVersionKey", netuid.0),
            self.of_subnet::<u64>(at, "WeightsSetRateLimit", netuid.0),
            self.of_subnet::<u16>(at, "MinAllowedWeights", netuid.0),
            self.of_subnet::<u16>(at, "MaxWeightsLimit", netuid.0),
            self.of_subnet::<bool>(at, "CommitRevealWeightsEnabled", netuid.0),
        )?;
        let (reveal_period_epochs, tempo, owner, next_epoch, commit_reveal_version, now_ms) = futures::try_join!(
            self.of_subnet::<u64>(at, "RevealPeriodEpochs", netuid.0),
            self.of_subnet::<u16>(at, "Tempo", netuid.0),
            self.of_subnet::<[u8; 32]>(at, "SubnetOwnerHotkey", netuid.0),
            self.next_epoch(at, netuid),
            version,
            plain("Now"),
        )?;
        let slot = usize::from(uid);
        Ok(Some(WeightsFacts {
            block: tips.best.number,
            now_ms: now_ms.unwrap_or_default(),
            uid,
            neurons,
            permit: permits.get(slot).copied().unwrap_or(false),
            owner: owner == *hotkey.as_bytes(),
            mechanisms,
            version_key,
            rate_limit,
            last_update: updates.get(slot).copied().unwrap_or(0),
            min_weights,
            max_weight,
            commit_reveal,
            commit_reveal_version: commit_reveal_version.unwrap_or_default(),
            reveal_period_epochs,
            tempo,
            next_epoch: next_epoch.unwrap_or(tips.best.number.saturating_add(u64::from(tempo))),
        }))
    }

    /// The axon that a hotkey serves, and the subnet's limit for serving again.
    pub(crate) async fn axon(
        &self,
        at: &AtBlock,
        netuid: NetUid,
        hotkey: &Hotkey,
    ) -> Result<(Option<RawAxon>, u64), ChainError> {
        let axon = self.value(at, (PALLET, "Axons"), (netuid.0, *hotkey.as_bytes()));
        futures::try_join!(axon, self.of_subnet(at, "ServingRateLimit", netuid.0))
    }

    /// Blocks that a failure's remedy waits for.
    pub(crate) async fn pause(
        &self,
        tips: Tips,
        call: &Call,
        hotkey: &Hotkey,
        pause: Pause,
    ) -> Result<u64, ChainError> {
        let (netuid, block) = (call.netuid(), tips.best.number);
        let at = &self.at(tips.best).await?;
        match pause {
            Pause::Blocks(blocks) => Ok(blocks),
            Pause::WeightsRate => {
                let uid = self.uid(at, netuid, hotkey).await?.unwrap_or(u16::MAX);
                let index = mechanism_index(netuid, call.mecid());
                let (updates, limit) = futures::try_join!(
                    self.of_subnet::<Vec<u64>>(at, "LastUpdate", index),
                    self.of_subnet::<u64>(at, "WeightsSetRateLimit", netuid.0),
                )?;
                let last = updates.get(usize::from(uid)).copied().unwrap_or(0);
                Ok(last.saturating_add(limit).saturating_sub(block + 1))
            }
            Pause::ServingRate => {
                let (axon, limit) = self.axon(at, netuid, hotkey).await?;
                Ok(axon.map_or(0, |axon| axon.block).saturating_add(limit).saturating_sub(block + 1))
            }
            Pause::NextEpoch => {
                let next = self.next_epoch(at, netuid).await?;
                Ok(next.map_or(pause.fallback(), |next| next.saturating_sub(block)))
            }
        }
    }

    /// Time between two blocks: declared by the chain, else measured.
    pub(crate) async fn block_interval(&self, tips: Tips) -> Result<Option<Duration>, ChainError> {
        if self.block_time.is_some() {
            return Ok(self.block_time);
        }
        let blocks = tips.best.number.min(MEASURED_BLOCKS);
        if blocks < 2 {
            return Ok(None);
        }
        let then = self.at_number(tips.best.number - blocks + 1).await?;
        let now = self.at(tips.best).await?;
        let clock = ("Timestamp", "Now");
        let (then, now) = futures::try_join!(self.value::<(), u64>(&then, clock, ()), self.value(&now, clock, ()))?;
        let spent = now.unwrap_or(0_u64).saturating_sub(then.unwrap_or(0));
        Ok((spent > 0).then(|| Duration::from_millis(spent / (blocks - 1).max(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_limit_is_judged_in_the_next_block() {
        let facts = |block, last_update, rate_limit| WeightsFacts {
            block,
            now_ms: 0,
            uid: 0,
            neurons: 1,
            permit: true,
            owner: false,
            mechanisms: 1,
            version_key: 0,
            rate_limit,
            last_update,
            min_weights: 1,
            max_weight: u16::MAX,
            commit_reveal: false,
            commit_reveal_version: 4,
            reveal_period_epochs: 1,
            tempo: 360,
            next_epoch: 0,
        };
        assert_eq!(facts(50, 0, 100).rate_pause(), 0);
        assert_eq!(facts(50, 10, 100).rate_pause(), 59);
        assert_eq!(facts(108, 10, 100).rate_pause(), 1);
        assert_eq!(facts(109, 10, 100).rate_pause(), 0);
    }
}
