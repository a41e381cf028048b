//! What the log holds, and what a proposer gets back.
//!
//! Commands are encoded by position: a new kind goes to the end, and none is ever removed or reordered, because logs of
//! older versions are replayed by newer ones.

use std::fmt;

use serde::{Deserialize, Serialize};
use sidecar_util::Hotkey;

use crate::{Refusal, WeightTable};

/// One change of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The weights of a new epoch, computed by the leader with [`crate::weights::next`].
    ///
    /// The log carries the result and not its inputs: replicas of different versions must agree even where their
    /// rules for bands differ.
    ReplaceWeights(WeightTable),
    /// Binds a hotkey to the Raft node that its disk holds now. An earlier node id of the hotkey is retired for good.
    RecordMember(MemberRecord),
    /// Sets a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes a key; removing an absent key changes nothing.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

impl fmt::Display for Command {
    /// Names the kind and its size, never a value: this goes into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReplaceWeights(table) => {
                write!(f, "replace weights of epoch {} ({} entries)", table.epoch, table.entries.len())
            }
            Self::RecordMember(record) => write!(f, "record member {} as node {}", record.hotkey, record.node_id),
            Self::Put { key, value } => write!(f, "put a key of {} bytes, value of {} bytes", key.len(), value.len()),
            Self::Delete { key } => write!(f, "delete a key of {} bytes", key.len()),
        }
    }
}

/// Which Raft node a hotkey is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The validator.
    pub hotkey: Hotkey,
    /// Id that its disk was given at its first start.
    pub node_id: u64,
    /// `host:port` of its peer service when it was recorded.
    pub address: String,
}

/// What applying a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The log entry held no command (a blank entry or a change of membership).
    Nothing,
    /// The command took effect and has nothing to tell.
    Done,
    /// A key was set or removed.
    Written {
        /// Revision of the store afterwards. A delete that found nothing repeats the revision before.
        revision: u64,
        /// Whether the key existed before.
        existed: bool,
    },
    /// The command is in the log and changed nothing.
    Refused(Refusal),
}
