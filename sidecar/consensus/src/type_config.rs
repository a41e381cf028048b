//! The types that openraft is instantiated with.

use openraft::RaftTypeConfig;
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use serde::{Deserialize, Serialize};
use sidecar_store::{Command, Reply};
use sidecar_util::Hotkey;

use crate::state_machine::StateMachine;

openraft::declare_raft_types!(
    /// Node ids are random and never reused: a hotkey whose disk was wiped is another node (see [`crate::disk`]).
    pub(crate) TypeConfig:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = PeerNode,
);

/// What the membership says about a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerNode {
    /// Whose node it is.
    pub(crate) hotkey: Hotkey,
    /// `host:port` when it was added. The list of members overrides it, see [`crate::network::Directory`].
    pub(crate) address: String,
}

/// openraft's storage suite makes memberships of nodes that nobody described.
impl Default for PeerNode {
    fn default() -> Self {
        Self { hotkey: Hotkey::from([0; 32]), address: String::new() }
    }
}

pub(crate) type NodeId = <TypeConfig as RaftTypeConfig>::NodeId;
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type Entry = <TypeConfig as RaftTypeConfig>::Entry;
pub(crate) type LogId = LogIdOf<TypeConfig>;
pub(crate) type Vote = VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<NodeId, PeerNode>;
pub(crate) type StoredMembership = StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
/// A state as [`sidecar_store::State::encode`] writes it.
pub(crate) type SnapshotBytes = Vec<u8>;
pub(crate) type Snapshot = SnapshotOf<TypeConfig, SnapshotBytes>;
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub(crate) type AppendResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
pub(crate) type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub(crate) type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
pub(crate) type SnapshotResponse = openraft::raft::SnapshotResponse<TypeConfig>;
pub(crate) type TransferRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
pub(crate) type TransferResponse = openraft::raft::TransferLeaderResponse<TypeConfig>;
