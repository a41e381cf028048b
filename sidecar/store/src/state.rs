//! The replicated state and its limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sidecar_util::Hotkey;

use crate::{MemberRecord, Refusal, WeightTable};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value, in bytes: what etcd's users know as the practical limit of one value.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// All keys and values together, in bytes. The state is held in memory, so this bounds a member's memory.
pub const KV_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Entries of a weight table: the chain permits at most 64 validators on a subnet of 256 slots.
pub const WEIGHTS_MAX: usize = 256;

/// Everything the group has agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// Log index of the last change of a key.
    pub(crate) revision: u64,
    /// Sum of the sizes of all keys and values, in bytes.
    pub(crate) kv_bytes: u64,
    /// Weights of the last epoch that was agreed on.
    pub(crate) weights: Option<WeightTable>,
    /// The Raft node that each hotkey is now.
    pub(crate) members: BTreeMap<Hotkey, MemberRecord>,
    /// Every node id there ever was, with its owner: one that is not in `members` is retired.
    pub(crate) node_ids: BTreeMap<u64, Hotkey>,
    /// The keys.
    pub(crate) kv: BTreeMap<Vec<u8>, KeyValue>,
}

/// A key's value and its history in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The value.
    pub value: Vec<u8>,
    /// Revision at which the key was created.
    pub create_revision: u64,
    /// Revision at which it was last set.
    pub mod_revision: u64,
    /// How often it was set since it was created, from 1.
    pub version: u64,
}

impl State {
    /// Log index of the last change of a key; the revision in answers to writes.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Weights of the last epoch that was agreed on.
    pub fn weights(&self) -> Option<&WeightTable> {
        self.weights.as_ref()
    }

    /// The Raft node that a hotkey is now.
    pub fn member(&self, hotkey: &Hotkey) -> Option<&MemberRecord> {
        self.members.get(hotkey)
    }

    /// Whether a hotkey may be recorded as this node: no other hotkey ever was, and itself was not before it got its
    /// present one.
    pub fn check_member(&self, hotkey: &Hotkey, node_id: u64) -> Result<(), Refusal> {
        match self.node_ids.get(&node_id) {
            Some(owner) if owner != hotkey => Err(Refusal::NodeIdTaken { node_id, owner: *owner }),
            Some(_) if self.members.get(hotkey).is_none_or(|member| member.node_id != node_id) => {
                Err(Refusal::NodeIdRetired { node_id })
            }
            _ => Ok(()),
        }
    }

    /// A key's value.
    pub fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.kv.get(key)
    }

    /// SHA-256 of the state in 64 hex digits. Replicas at the same log index have the same; its cost is proportional
    /// to the size of the state.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.content()))
    }

    /// The canonical encoding: by position, maps in the order of keys.
    pub(crate) fn content(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("the state has no type that postcard refuses, and a Vec takes any length")
    }
}
