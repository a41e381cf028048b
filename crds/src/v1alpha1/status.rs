//! What Validator and Miner report: the chain's view, the sidecar's view, the pod.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Status of a Validator or Miner. What the chain says stays here while the pod is down.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions; Ready sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// SS58 address of the hotkey in the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hotkey: Option<String>,
    /// Subnet of the Network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netuid: Option<u16>,
    /// What the chain says of the hotkey; absent while it is not registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neuron: Option<NeuronStatus>,
    /// What the node's sidecar says of itself; absent while it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<SidecarStatus>,
    /// The member's place in the group of validators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupMemberStatus>,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodStatus>,
}

/// What the chain says of a hotkey.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NeuronStatus {
    /// Slot in the subnet.
    pub uid: u16,
    /// SS58 address of the owner on chain.
    pub coldkey: String,
    /// Block at which it was registered.
    pub registered_at_block: u64,
    /// Total stake in TAO, as the chain ranks by.
    pub stake: String,
    /// Alpha staked on this subnet.
    pub alpha_stake: String,
    /// TAO staked on the root network.
    pub tao_stake: String,
    /// Whether the chain counts its weights.
    pub validator_permit: bool,
    /// Whether its weights are recent enough to count.
    pub active: bool,
    /// Validator trust, 0 to 1.
    pub vtrust: String,
    /// Consensus, 0 to 1.
    pub consensus: String,
    /// Incentive, 0 to 1.
    pub incentive: String,
    /// Dividends, 0 to 1.
    pub dividends: String,
    /// Alpha earned in the last epoch.
    pub emission: String,
    /// Block at which it last set weights; 0 for never.
    pub last_weights_block: u64,
    /// Blocks since then, when this status was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_age_blocks: Option<u64>,
    /// The axon that the chain holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axon: Option<AxonStatus>,
    /// Block that these values are of.
    pub block: u64,
}

/// An axon on chain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AxonStatus {
    /// `address:port`.
    pub endpoint: String,
    /// Block at which it was served.
    pub served_at_block: u64,
}

/// What a sidecar says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarStatus {
    /// Version of the sidecar.
    pub version: String,
    /// Whether its view of the chain is recent.
    pub synced: bool,
    /// Validators and miners in its registry.
    pub registry_size: u32,
}

/// A member's place in the group of validators.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupMemberStatus {
    /// `leader`, `follower`, `candidate`, `learner` or `outside`.
    pub role: String,
    /// SS58 address of the leader's hotkey, as this member knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Raft node id; a member whose disk was lost gets a new one.
    pub node_id: String,
    /// Raft term.
    pub term: u64,
    /// Index of the last entry applied, when this status was written.
    pub applied_index: u64,
    /// Index that was already applied when the process had read its disk.
    pub restored_index: u64,
}

/// The node's pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Name of the pod.
    pub name: String,
    /// Phase of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Node it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}
