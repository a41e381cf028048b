//! A subnet of a chain, and what all its nodes have in common.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PullPolicy, TaoAmount};

/// A subnet of a chain and what all its nodes have in common.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "mycelium.network",
    version = "v1alpha1",
    kind = "Network",
    status = "NetworkStatus",
    derive = "PartialEq",
    shortname = "mnet",
    category = "bittensor",
    doc = "A subnet of a chain, and what all its validators and miners have in common.",
    validation = Rule::new("size(self.metadata.name) <= 54").message("metadata.name must have at most 54 characters: it is a label of everything made for the Network"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Netuid", type_ = "integer", json_path = ".spec.netuid"),
    printcolumn(name = "Block", type_ = "integer", json_path = ".status.chain.block"),
    printcolumn(name = "Spec", type_ = "integer", json_path = ".status.chain.specVersion"),
    printcolumn(name = "Validators", type_ = "integer", json_path = ".status.validators"),
    printcolumn(name = "Miners", type_ = "integer", json_path = ".status.miners"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.group.leaderName"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Endpoint", type_ = "string", priority = "1", json_path = ".status.chain.endpoint"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = "1",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSpec {
    /// How the chain is reached.
    pub chain: ChainSpec,
    /// The subnet. Cannot be changed: make another Network.
    #[x_kube(validation = Rule::new("self == oldSelf").message("netuid cannot be changed: make another Network"))]
    #[schemars(range(max = 65535))]
    pub netuid: u16,
    /// Marks a network whose nodes are not on the internet: private and loopback addresses are taken.
    #[serde(default)]
    pub local: bool,
    /// Least total stake, in TAO, of a validator that counts.
    #[serde(default)]
    pub minimum_stake: TaoAmount,
    /// How long a sidecar may repeat the answer to "is this a validator?" without looking again, in seconds.
    #[serde(default = "NetworkSpec::default_verification_ttl_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    pub verification_ttl_seconds: u32,
    /// Tiers by stake. Weight decides who campaigns first when the group has lost its leader.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub tiers: Vec<TierSpec>,
    /// The group of validators.
    #[serde(default)]
    pub group: GroupSpec,
    /// The sidecar of every node.
    #[serde(default)]
    pub sidecar: SidecarSpec,
}

impl NetworkSpec {
    /// One minute: five blocks of a live chain.
    fn default_verification_ttl_seconds() -> u32 {
        60
    }
}

/// How the chain is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChainSpec {
    /// WebSocket endpoints (`wss://` or `ws://`), tried in this order.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(validation = Rule::new("self.all(endpoint, endpoint.startsWith('ws://') || endpoint.startsWith('wss://'))")
        .message("chain.endpoints: each must start with ws:// or wss://"))]
    #[schemars(inner(length(min = 6, max = 512)))]
    pub endpoints: Vec<String>,
    /// WebSocket endpoints (`wss://` or `ws://`) of archive nodes, which keep the state of every block. They are asked only
    /// for blocks that `endpoints` have forgotten, such as the weights at an old block; without one, such a question is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.all(endpoint, endpoint.startsWith('ws://') || endpoint.startsWith('wss://'))")
        .message("chain.archiveEndpoints: each must start with ws:// or wss://"))]
    #[schemars(inner(length(min = 6, max = 512)))]
    pub archive_endpoints: Vec<String>,
    /// Genesis hash that the chain must have. When absent, the first one seen is kept in status and expected from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^0x[0-9a-f]{64}$"))]
    pub genesis_hash: Option<String>,
}

/// Validators with at least this stake weigh this much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierSpec {
    /// Name of the tier.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Least total stake in TAO.
    pub minimum_stake: TaoAmount,
    /// Weight: a heavier tier campaigns before a lighter one.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
}

/// The Raft group of a Network's validators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupSpec {
    /// How many validators vote: 3, 5 or 7. The others learn.
    #[serde(default = "GroupSpec::default_voters")]
    #[x_kube(validation = Rule::new("self in [3, 5, 7]").message("group.voters must be 3, 5 or 7"))]
    pub voters: u8,
    /// How fast a silent leader is noticed. The same for all members; cannot be changed, as unequal timeouts break leases.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("group.timing cannot be changed: all members must agree on it"))]
    pub timing: GroupTiming,
}

impl GroupSpec {
    fn default_voters() -> u8 {
        3
    }
}

impl Default for GroupSpec {
    fn default() -> Self {
        Self { voters: Self::default_voters(), timing: GroupTiming::default() }
    }
}

/// How fast a silent leader is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum GroupTiming {
    /// Members in one cluster or region: after 1 second.
    #[default]
    Lan,
    /// Members across regions: after 3 seconds.
    Wan,
}

/// The sidecar of every node of a Network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarSpec {
    /// Image; the operator's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When the kubelet pulls the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Requests and limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// What a Network reports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions; Ready sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<NetworkChainStatus>,
    /// Validators of this Network.
    #[serde(default)]
    pub validators: u32,
    /// Miners of this Network.
    #[serde(default)]
    pub miners: u32,
    /// The group of validators; absent until the first one is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<NetworkGroupStatus>,
}

/// What is known of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkChainStatus {
    /// Endpoint in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Genesis hash: the first one seen, unless `spec.chain.genesisHash` names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genesis_hash: Option<String>,
    /// Version of the chain's runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_version: Option<u32>,
    /// Block of the metagraph held when this status was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    /// Blocks between two epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tempo: Option<u16>,
    /// Neurons on the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neurons: Option<u32>,
}

/// The group of validators. Its identity is anchored here, outside the group, so that it is founded once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkGroupStatus {
    /// Identity of the group.
    pub cluster_id: String,
    /// SS58 address of the hotkey that may found the group.
    pub founder: String,
    /// Whether the group has been seen to exist. From then on nobody founds it again.
    pub founded: bool,
    /// SS58 address of the leader's hotkey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// `namespace/name` of the leader, if it is a Validator of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_name: Option<String>,
    /// Raft term.
    #[serde(default)]
    pub term: u64,
    /// Everyone who may be part of the group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["hotkey".into()]))]
    pub members: Vec<MemberStatus>,
}

/// One validator of the group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// SS58 address of its hotkey.
    pub hotkey: String,
    /// `namespace/name` of the Validator.
    pub name: String,
    /// `host:port` of its peer service.
    pub address: String,
}
