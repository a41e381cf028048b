//! What changed between two metagraphs of one subnet.
//!
//! A subnet of 1,024 neurons changes in a few of them from block to block, and in all of them at an epoch. A diff says
//! which, and in what, so that whoever keeps something beside the metagraph (a registry, a stream of events) touches
//! nothing else. Applied to the first metagraph it gives the second, always.

use serde::{Deserialize, Serialize};

use crate::{BlockHash, Metagraph, NetUid, Neuron, Uid};

/// A field of a neuron. Its name is the one in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeuronField {
    /// Another neuron took the slot.
    Hotkey,
    /// The hotkey changed hands.
    Coldkey,
    /// See [`Neuron::active`].
    Active,
    /// See [`Neuron::validator_permit`].
    ValidatorPermit,
    /// See [`Neuron::total_stake`].
    TotalStake,
    /// See [`Neuron::alpha_stake`].
    AlphaStake,
    /// See [`Neuron::tao_stake`].
    TaoStake,
    /// See [`Neuron::incentive`].
    Incentive,
    /// See [`Neuron::consensus`].
    Consensus,
    /// See [`Neuron::dividends`].
    Dividends,
    /// See [`Neuron::vtrust`].
    Vtrust,
    /// See [`Neuron::emission`].
    Emission,
    /// See [`Neuron::last_update`].
    LastUpdate,
    /// See [`Neuron::registered_at`].
    RegisteredAt,
    /// See [`Neuron::axon`].
    Axon,
}

impl NeuronField {
    /// The fields in which two neurons of one slot differ, in the order above.
    pub fn differences(before: &Neuron, after: &Neuron) -> Vec<Self> {
        // Written out by name, so that a field that is added to `Neuron` cannot be forgotten here.
        let Neuron {
            uid: _,
            hotkey,
            coldkey,
            active,
            validator_permit,
            total_stake,
            alpha_stake,
            tao_stake,
            incentive,
            consensus,
            dividends,
            vtrust,
            emission,
            last_update,
            registered_at,
            axon,
        } = before;
        let all = [
            (Self::Hotkey, *hotkey != after.hotkey),
            (Self::Coldkey, *coldkey != after.coldkey),
            (Self::Active, *active != after.active),
            (Self::ValidatorPermit, *validator_permit != after.validator_permit),
            (Self::TotalStake, *total_stake != after.total_stake),
            (Self::AlphaStake, *alpha_stake != after.alpha_stake),
            (Self::TaoStake, *tao_stake != after.tao_stake),
            (Self::Incentive, *incentive != after.incentive),
            (Self::Consensus, *consensus != after.consensus),
            (Self::Dividends, *dividends != after.dividends),
            (Self::Vtrust, *vtrust != after.vtrust),
            (Self::Emission, *emission != after.emission),
            (Self::LastUpdate, *last_update != after.last_update),
            (Self::RegisteredAt, *registered_at != after.registered_at),
            (Self::Axon, *axon != after.axon),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
    }
}

/// A neuron that is in both metagraphs and not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeuronChange {
    /// In what it differs; never empty.
    pub fields: Vec<NeuronField>,
    /// How it is now.
    pub neuron: Neuron,
}

/// From one metagraph to another one of the same subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetagraphDiff {
    /// The subnet.
    pub netuid: NetUid,
    /// Block of the metagraph before.
    pub from_block: u64,
    /// Hash of that block.
    pub from_hash: BlockHash,
    /// Block of the metagraph after.
    pub block: u64,
    /// Hash of that block.
    pub block_hash: BlockHash,
    /// Blocks between two epochs, where that changed.
    pub tempo: Option<u16>,
    /// Block of the last epoch, where there was one since.
    pub last_step: Option<u64>,
    /// Blocks since the last epoch, where that changed.
    pub blocks_since_last_step: Option<u64>,
    /// Neurons in slots that did not exist before, in the order of uids.
    pub added: Vec<Neuron>,
    /// Slots that exist no more, in their order.
    pub removed: Vec<Uid>,
    /// Neurons that changed, in the order of uids. Another neuron in a slot is a change of its hotkey.
    pub changed: Vec<NeuronChange>,
}

/// A diff was applied to another metagraph than the one it was made from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the diff is from netuid {netuid} at block {from_block}, not from netuid {found} at block {block}: read the whole metagraph again"
)]
pub struct OtherMetagraph {
    /// Subnet of the diff.
    pub netuid: NetUid,
    /// Block that the diff begins at.
    pub from_block: u64,
    /// Subnet of the metagraph.
    pub found: NetUid,
    /// Block of the metagraph.
    pub block: u64,
}

impl MetagraphDiff {
    /// What changed from one to the other. Both have to be of one subnet, with neurons in the order of uids, as the chain
    /// has them.
    pub fn between(before: &Metagraph, after: &Metagraph) -> Self {
        let mut diff = Self {
            netuid: after.netuid,
            from_block: before.block,
            from_hash: before.block_hash,
            block: after.block,
            block_hash: after.block_hash,
            tempo: changed(&before.tempo, &after.tempo),
            last_step: changed(&before.last_step, &after.last_step),
            blocks_since_last_step: changed(&before.blocks_since_last_step, &after.blocks_since_last_step),
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
        };
        let (mut old, mut new) = (before.neurons.iter().peekable(), after.neurons.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (Some(was), Some(is)) if was.uid == is.uid => {
                    if was != is {
                        let fields = NeuronField::differences(was, is);
                        diff.changed.push(NeuronChange { fields, neuron: Neuron::clone(is) });
                    }
                    old.next();
                    new.next();
                }
                (Some(was), is) if is.is_none_or(|is| was.uid < is.uid) => {
                    diff.removed.push(was.uid);
                    old.next();
                }
                (_, Some(is)) => {
                    diff.added.push(Neuron::clone(is));
                    new.next();
                }
                (_, None) => return diff,
            }
        }
    }

    /// The metagraph after, from the one before.
    pub fn apply(&self, before: &Metagraph) -> Result<Metagraph, OtherMetagraph> {
        if (before.netuid, before.block_hash, before.block) != (self.netuid, self.from_hash, self.from_block) {
            let (netuid, from_block) = (self.netuid, self.from_block);
            return Err(OtherMetagraph { netuid, from_block, found: before.netuid, block: before.block });
        }
        let mut removed = self.removed.iter().peekable();
        let mut changed = self.changed.iter().peekable();
        let mut added = self.added.iter().peekable();
        let mut neurons = Vec::with_capacity(before.neurons.len() + self.added.len());
        for neuron in &before.neurons {
            while let Some(new) = added.next_if(|new| new.uid < neuron.uid) {
                neurons.push(new.clone());
            }
            if removed.next_if(|uid| **uid == neuron.uid).is_some() {
                continue;
            }
            let change = changed.next_if(|change| change.neuron.uid == neuron.uid);
            neurons.push(change.map_or(neuron, |change| &change.neuron).clone());
        }
        neurons.extend(added.cloned());
        Ok(Metagraph {
            netuid: self.netuid,
            block: self.block,
            block_hash: self.block_hash,
            tempo: self.tempo.unwrap_or(before.tempo),
            last_step: self.last_step.unwrap_or(before.last_step),
            blocks_since_last_step: self.blocks_since_last_step.unwrap_or(before.blocks_since_last_step),
            neurons,
        })
    }

    /// Whether no neuron came, went or changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

fn changed<T: PartialEq + Copy>(before: &T, after: &T) -> Option<T> {
    (before != after).then_some(*after)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{Alpha, Axon, AxonProtocol, Score, Tao};

    /// Few values per field, so that neurons of two metagraphs are often alike in most of them.
    fn neuron(uid: u16) -> impl Strategy<Value = Neuron> {
        let flags = (any::<bool>(), any::<bool>());
        let scores = proptest::array::uniform4(0..3_u16);
        let amounts = proptest::array::uniform4(0..3_u64);
        (0..3_u8, 0..2_u8, flags, scores, amounts, 0..3_u64, 0..2_u64, proptest::option::of(1..3_u16)).prop_map(
            move |(hotkey, coldkey, flags, scores, amounts, last_update, registered_at, port)| Neuron {
                uid: Uid(uid),
                hotkey: [hotkey; 32].into(),
                coldkey: [coldkey; 32].into(),
                active: flags.0,
                validator_permit: flags.1,
                total_stake: Tao::from_rao(amounts[0]),
                alpha_stake: Alpha::from_rao(amounts[1]),
                tao_stake: Tao::from_rao(amounts[2]),
                incentive: Score(scores[0]),
                consensus: Score(scores[1]),
                dividends: Score(scores[2]),
                vtrust: Score(scores[3]),
                emission: Alpha::from_rao(amounts[3]),
                last_update,
                registered_at,
                axon: port.map(|port| Axon {
                    ip: [1, 1, 1, 1].into(),
                    port,
                    protocol: AxonProtocol::Tcp,
                    version: 1,
                    block: 1,
                }),
            },
        )
    }

    /// Any metagraph, also one with gaps between uids, which the chain does not make today.
    fn metagraph() -> impl Strategy<Value = Metagraph> {
        let uids = proptest::collection::btree_set(0..24_u16, 0..24);
        let neurons = uids.prop_flat_map(|uids| uids.into_iter().map(neuron).collect::<Vec<_>>());
        (neurons, 0..5_u64, 0..3_u16, 0..3_u64, 0..3_u64).prop_map(|(neurons, block, tempo, last_step, since)| {
            Metagraph {
                netuid: NetUid(1),
                block,
                block_hash: BlockHash([u8::try_from(block).unwrap(); 32]),
                tempo,
                last_step,
                blocks_since_last_step: since,
                neurons,
            }
        })
    }

    proptest! {
        #[test]
        fn a_diff_applied_to_the_metagraph_before_gives_the_one_after(before in metagraph(), after in metagraph()) {
            let diff = MetagraphDiff::between(&before, &after);
            prop_assert_eq!(diff.apply(&before).unwrap(), after.clone());
            // Also after a journey over the wire.
            let json = serde_json::to_string(&diff).unwrap();
            let arrived: MetagraphDiff = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(arrived.apply(&before).unwrap(), after);
        }

        #[test]
        fn a_diff_names_what_differs_and_nothing_else(before in metagraph(), after in metagraph()) {
            let diff = MetagraphDiff::between(&before, &after);
            let by_uid = |metagraph: &Metagraph| -> BTreeMap<Uid, Neuron> {
                metagraph.neurons.iter().map(|neuron| (neuron.uid, neuron.clone())).collect()
            };
            let (old, new) = (by_uid(&before), by_uid(&after));
            for change in &diff.changed {
                let uid = change.neuron.uid;
                prop_assert!(!change.fields.is_empty());
                prop_assert_eq!(&change.fields, &NeuronField::differences(&old[&uid], &new[&uid]));
            }
            prop_assert!(diff.added.iter().all(|neuron| !old.contains_key(&neuron.uid)));
            prop_assert!(diff.removed.iter().all(|uid| old.contains_key(uid) && !new.contains_key(uid)));
            let same = old.iter().filter(|(uid, neuron)| new.get(uid) == Some(neuron)).count();
            prop_assert_eq!(same + diff.changed.len() + diff.removed.len(), old.len());
            prop_assert!(MetagraphDiff::between(&after, &after).is_empty());
        }

        #[test]
        fn a_diff_is_not_applied_to_another_metagraph(before in metagraph(), after in metagraph()) {
            let diff = MetagraphDiff::between(&before, &after);
            let other = Metagraph { block_hash: BlockHash([0xee; 32]), ..before };
            let error = diff.apply(&other).unwrap_err();
            prop_assert!(error.to_string().contains("read the whole metagraph"));
        }
    }
}
