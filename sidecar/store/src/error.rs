//! Why a command changed nothing, and why bytes are not a snapshot.

use serde::{Deserialize, Serialize};
use sidecar_util::Hotkey;

/// A refusal is a value of the replicated state machine: every replica refuses alike.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// The index was applied before.
    #[error(
        "log index `{index}` is not above revision {revision}: each entry is applied once, in the order of the log"
    )]
    OutOfOrder {
        /// Index of the refused entry.
        index: u64,
        /// Revision of the store.
        revision: u64,
    },
    /// A key is empty or too long.
    #[error("key of `{bytes}` bytes: expected 1 to {max}")]
    KeySize {
        /// Size of the key.
        bytes: u64,
        /// Largest size taken.
        max: u64,
    },
    /// A value is too long.
    #[error("value of `{bytes}` bytes: expected at most {max}")]
    ValueSize {
        /// Size of the value.
        bytes: u64,
        /// Largest size taken.
        max: u64,
    },
    /// The store is full.
    #[error("the store would hold `{bytes}` bytes, more than {max}: delete keys first")]
    StoreFull {
        /// Size that the store would have had.
        bytes: u64,
        /// Largest size taken.
        max: u64,
    },
    /// A weight table is too long.
    #[error("weight table of `{entries}` entries: expected at most {max}")]
    WeightsSize {
        /// Number of entries.
        entries: u64,
        /// Largest number taken.
        max: u64,
    },
    /// A weight table uses a band that does not exist.
    #[error("band `{band}` of {hotkey}: expected 0 to {max}")]
    Band {
        /// Whose band.
        hotkey: Hotkey,
        /// The band.
        band: u32,
        /// Heaviest band.
        max: u32,
    },
    /// The node id belongs to another hotkey.
    #[error("node id `{node_id}` belongs to {owner}: wipe the data directory, so that the next start takes a new id")]
    NodeIdTaken {
        /// The id.
        node_id: u64,
        /// Who was recorded with it.
        owner: Hotkey,
    },
    /// The hotkey has moved on to another node id, so this disk is an old copy.
    #[error("node id `{node_id}` was retired: the disk is an older copy of a replaced one, wipe it and start again")]
    NodeIdRetired {
        /// The id.
        node_id: u64,
    },
}

/// Bytes that are not a snapshot of this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// They do not begin as a snapshot does.
    #[error("not a snapshot: the first bytes are not `MYCS`")]
    NotASnapshot,
    /// They were written by a later version.
    #[error("snapshot format `{found}` is newer than {known}: update this member before it joins")]
    TooNew {
        /// Format of the snapshot.
        found: u16,
        /// Latest format known here.
        known: u16,
    },
    /// The checksum differs.
    #[error("snapshot is damaged: its checksum differs")]
    Damaged,
    /// The content does not decode.
    #[error("decoding a snapshot")]
    Decode(#[source] postcard::Error),
}
