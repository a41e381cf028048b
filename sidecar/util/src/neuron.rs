//! Neurons and the metagraph: what one subnet looked like at one block.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Alpha, Axon, BlockHash, Coldkey, Hotkey, NetUid, Tao, Uid};

/// A share of one, as the chain stores it: a 65535th. JSON shows it as a number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Score(pub u16);

impl Score {
    /// The share as a float from 0 to 1.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(u16::MAX)
    }

    /// The nearest score to a share; shares outside 0 to 1 are moved to the nearer end.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of u16 before")]
    pub fn from_f64(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * f64::from(u16::MAX)).round() as u16)
    }
}

impl Serialize for Score {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_f64(self.as_f64())
        } else {
            serializer.serialize_u16(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Score {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            f64::deserialize(deserializer).map(Self::from_f64)
        } else {
            u16::deserialize(deserializer).map(Self)
        }
    }
}

/// One registered neuron as the chain saw it at the metagraph's block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Neuron {
    /// Slot in the subnet.
    pub uid: Uid,
    /// Key it is registered under.
    pub hotkey: Hotkey,
    /// Owner of the hotkey.
    pub coldkey: Coldkey,
    /// Whether its last weights are recent enough to count.
    pub active: bool,
    /// Whether its weights count: among the heaviest at the last epoch.
    pub validator_permit: bool,
    /// Alpha plus weighted root TAO, as the chain ranks by.
    pub total_stake: Tao,
    /// Alpha staked to the hotkey on this subnet.
    pub alpha_stake: Alpha,
    /// Root TAO staked to the hotkey, unweighted.
    pub tao_stake: Tao,
    /// Share of the miners' emission.
    pub incentive: Score,
    /// Stake-weighted median of the weights set on it.
    pub consensus: Score,
    /// Share of the validators' emission.
    pub dividends: Score,
    /// How much of its weights the consensus kept.
    pub vtrust: Score,
    /// Alpha earned in the last epoch.
    pub emission: Alpha,
    /// Block at which it last set weights.
    pub last_update: u64,
    /// Block at which it was registered.
    pub registered_at: u64,
    /// Where it can be reached, if it said so.
    pub axon: Option<Axon>,
}

/// A subnet at one block. `neurons[i].uid == i` for every `i`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Metagraph {
    /// The subnet.
    pub netuid: NetUid,
    /// Number of the block this was read at.
    pub block: u64,
    /// Hash of that block.
    pub block_hash: BlockHash,
    /// Blocks between two epochs.
    pub tempo: u16,
    /// Block of the last epoch.
    pub last_step: u64,
    /// Blocks since the last epoch.
    pub blocks_since_last_step: u64,
    /// Every neuron, in the order of uids.
    pub neurons: Vec<Neuron>,
}

impl Metagraph {
    /// The neuron registered under a hotkey.
    pub fn by_hotkey(&self, hotkey: &Hotkey) -> Option<&Neuron> {
        self.neurons.iter().find(|neuron| neuron.hotkey == *hotkey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_score_survives_json() {
        for raw in 0..=u16::MAX {
            let json = serde_json::to_string(&Score(raw)).unwrap();
            assert_eq!(serde_json::from_str::<Score>(&json).unwrap(), Score(raw));
        }
    }
}
