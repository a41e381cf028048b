//! What can be read from the chain beyond a metagraph. Each type says its units.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Alpha, BlockHash, Coldkey, Hotkey, NetUid, Tao, Uid};

/// Something read from the chain, and the block it was read at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtBlock<T> {
    /// Number of the block.
    pub block: u64,
    /// Hash of the block.
    pub block_hash: BlockHash,
    /// What was read.
    pub value: T,
}

/// What one neuron gives to others: its weights, or its bonds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightRow {
    /// Whose it is.
    pub uid: Uid,
    /// To whom and how much, in the order of the chain. Values are relative to each other: the chain scales weights so
    /// that the largest of a row is 65535. Nought is left out.
    pub targets: Vec<(Uid, u16)>,
}

impl WeightRow {
    /// The shares of a row, which add up to 1; all nought where the row is empty.
    pub fn shares(&self) -> Vec<(Uid, f64)> {
        let sum: f64 = self.targets.iter().map(|(_, value)| f64::from(*value)).sum();
        let share = |value: u16| if sum > 0.0 { f64::from(value) / sum } else { 0.0 };
        self.targets.iter().map(|(uid, value)| (*uid, share(*value))).collect()
    }
}

/// Weights or bonds of a whole subnet in one of its mechanisms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightMatrix {
    /// The subnet.
    pub netuid: NetUid,
    /// The mechanism; 0 is the first, and the only one of most subnets.
    pub mechanism: u8,
    /// Rows that are not empty, in the order of uids.
    pub rows: Vec<WeightRow>,
}

/// What the owner of a coldkey says about itself. Nobody checks it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// Web address.
    pub url: String,
    /// Address of its source code.
    pub github_repo: String,
    /// Address of an image.
    pub image: String,
    /// Name on Discord.
    pub discord: String,
    /// Description.
    pub description: String,
    /// Anything else.
    pub additional: String,
}

/// What the owner of a subnet says about it. Nobody checks it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SubnetIdentity {
    /// Name.
    pub subnet_name: String,
    /// Address of its source code.
    pub github_repo: String,
    /// How to reach the owner.
    pub subnet_contact: String,
    /// Web address.
    pub subnet_url: String,
    /// Name on Discord.
    pub discord: String,
    /// Description.
    pub description: String,
    /// Address of a logo.
    pub logo_url: String,
    /// Anything else.
    pub additional: String,
}

/// One hyperparameter of a subnet. Which unit a number has is told by its name in the chain's documentation: rate limits,
/// tempo and immunity are blocks; kappa and weight limits are 65535ths.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HyperparamValue {
    /// Yes or no.
    Bool(bool),
    /// A whole number that is no amount.
    Integer(u64),
    /// An amount of TAO, such as the price of a registration.
    Tao(Tao),
    /// A number with digits behind the point; the chain's own fixed-point form is exact to 2⁻³², a float shows it to 15
    /// digits.
    Fraction(f64),
}

impl HyperparamValue {
    /// The whole number, if it is one.
    pub fn integer(self) -> Option<u64> {
        match self {
            Self::Integer(value) => Some(value),
            _ => None,
        }
    }

    /// Yes or no, if it is that.
    pub fn flag(self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }
}

/// Hyperparameters of a subnet by the names that the chain gives them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hyperparameters {
    /// The subnet.
    pub netuid: NetUid,
    /// Version of the chain's answer that was read: the highest that its runtime has.
    pub version: u8,
    /// The values. Which names there are depends on the runtime.
    pub values: BTreeMap<String, HyperparamValue>,
}

/// What an account has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    /// What it can spend, apart from what is frozen.
    pub free: Tao,
    /// What is set aside, such as deposits.
    pub reserved: Tao,
    /// The part of `free` that cannot be spent.
    pub frozen: Tao,
    /// Extrinsics it has signed.
    pub nonce: u32,
}

/// Stake of a coldkey on a hotkey in one subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stake {
    /// Whose validator or miner it is on.
    pub hotkey: Hotkey,
    /// Whose it is.
    pub coldkey: Coldkey,
    /// The subnet; 0 is the root, where alpha is TAO.
    pub netuid: NetUid,
    /// How much.
    pub stake: Alpha,
    /// Whether the hotkey is registered there.
    pub is_registered: bool,
}

/// What a neuron published with `set_commitment`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitment {
    /// Who did.
    pub hotkey: Hotkey,
    /// At which block.
    pub block: u64,
    /// What it deposited for it.
    pub deposit: Tao,
    /// What it published.
    pub fields: Vec<CommitmentField>,
}

/// One part of a commitment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CommitmentField {
    /// Nothing.
    None,
    /// Bytes; `text` where they are UTF-8.
    Raw {
        /// As hex with `0x`.
        bytes: String,
        /// As text.
        text: Option<String>,
    },
    /// A hash of something that is published elsewhere, or a form that this version does not know.
    Other {
        /// The chain's name of the form.
        form: String,
        /// As hex with `0x`.
        bytes: String,
    },
}

/// An event of a block, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Index within the block.
    pub index: u32,
    /// The extrinsic that caused it, if one did.
    pub extrinsic: Option<u32>,
    /// Pallet.
    pub pallet: String,
    /// Name.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_one_and_an_empty_row_has_none() {
        let row = WeightRow { uid: Uid(0), targets: vec![(Uid(1), 65535), (Uid(2), 65535), (Uid(3), 0)] };
        assert_eq!(row.shares(), [(Uid(1), 0.5), (Uid(2), 0.5), (Uid(3), 0.0)]);
        assert_eq!(WeightRow { uid: Uid(0), targets: vec![(Uid(1), 0)] }.shares(), [(Uid(1), 0.0)]);
    }

    #[test]
    fn hyperparameters_are_tagged_with_their_kind_in_json() {
        let values = BTreeMap::from([
            ("tempo".to_owned(), HyperparamValue::Integer(360)),
            ("min_burn".to_owned(), HyperparamValue::Tao(Tao::from_rao(500_000))),
        ]);
        let json = serde_json::to_value(Hyperparameters { netuid: NetUid(1), version: 3, values }).unwrap();
        assert_eq!(json["values"]["tempo"]["integer"], 360);
        assert_eq!(json["values"]["min_burn"]["tao"], "0.0005");
    }
}
