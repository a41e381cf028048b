//! Bodies of the sidecar's HTTP API, version 1. The sidecar writes them; the operator, the Python package and the tests read them.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{AxonProtocol, BlockHash, Hotkey, NetUid, Neuron, Tao, Uid, ValueError};

/// What a sidecar stands beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A validator: member of the group.
    Validator,
    /// A miner: reads only.
    Miner,
}

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusBody {
    /// Version of the sidecar.
    pub version: String,
    /// Name of the Network.
    pub network: String,
    /// What it stands beside.
    pub kind: NodeKind,
    /// Its own hotkey.
    pub hotkey: Hotkey,
    /// The subnet.
    pub netuid: NetUid,
    /// Its view of the chain.
    pub chain: ChainStatus,
    /// Its own neuron, when registered.
    pub neuron: Option<Neuron>,
    /// How many registry entries are in each state, and `total`.
    pub registry: RegistryStatus,
    /// The group of validators; absent beside a miner and before the group is known.
    pub group: Option<GroupStatus>,
    /// Whether this process signs with the hotkey; absent before that is known, and from sidecars without a signer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<SignerStatus>,
}

/// Whether a sidecar may sign with its hotkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignerState {
    /// The lease and the chain are being looked at, or a holder of before is waited for whose lease is gone.
    Starting,
    /// The lease is held: it signs.
    Held,
    /// Another process holds the lease.
    Waiting,
    /// The lease's store does not answer.
    Unreachable,
    /// The lease is held and messages are signed, but no extrinsics: the folder that remembers them cannot be used.
    MessagesOnly,
    /// Another process was seen to sign with this hotkey: nothing is signed until that is acknowledged.
    ForeignSigner,
    /// The lease was given back: the process ends.
    Released,
}

/// The signer of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignerStatus {
    /// Whether it signs.
    pub state: SignerState,
    /// Since when the lease is held, in RFC 3339.
    pub held_since: Option<String>,
    /// The lease's epoch while it is held: a larger one came later.
    pub epoch: Option<u64>,
    /// Why, as one word in `CamelCase`.
    pub reason: String,
    /// Why it does not sign, and the remedy.
    pub detail: Option<String>,
}

/// `GET /v1/signer`: on the unix socket only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignerBody {
    /// The hotkey that is signed with.
    pub hotkey: Hotkey,
    /// Whether it is signed with.
    #[serde(flatten)]
    pub status: SignerStatus,
    /// Domains of messages that the policy knows.
    pub domains: Vec<String>,
    /// Calls that the policy allows.
    pub calls: Vec<String>,
}

/// Body of `POST /v1/sign`: a message either as text or as base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"domain": "app", "text": "hello"})))]
pub struct SignRequest {
    /// Purpose of the message: a domain of the signer's policy.
    pub domain: String,
    /// The message in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9+/]*={0,2}$")]
    pub message: Option<String>,
    /// The message as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Answer of `POST /v1/sign`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignBody {
    /// The signature: 0x and 128 hex digits.
    pub signature: String,
    /// Whose it is.
    pub hotkey: Hotkey,
    /// `sr25519`.
    pub scheme: String,
    /// What was signed, in base64: the message with what its domain adds.
    pub signed: String,
    /// Epoch of the signing lease.
    pub epoch: u64,
}

/// What the answer to a submission waits for.
///
/// Whatever it is, there is one submission, and the sidecar follows it to its end. But what nobody waits for is not signed
/// anew where it can get into no block any more, and nobody is told that it failed in its block. Ask again with the same
/// idempotency key to hear what became of it or to wait for more; it is submitted again only where nothing became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WaitFor {
    /// A node has taken it.
    None,
    /// A block has it, which a reorganisation may still undo. What SDKs call `wait_for_inclusion`.
    Inclusion,
    /// A final block has it. What SDKs call `wait_for_finalization`.
    #[default]
    Finalization,
}

impl FromStr for WaitFor {
    type Err = ValueError;

    fn from_str(word: &str) -> Result<Self, ValueError> {
        match word {
            "none" => Ok(Self::None),
            "inclusion" => Ok(Self::Inclusion),
            "finalization" => Ok(Self::Finalization),
            _ => {
                let expected = "is none of none, inclusion, finalization: leave it out to wait for the final block";
                Err(ValueError::new("wait", word, expected))
            }
        }
    }
}

/// Body of `POST /v1/weights`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"uids": [1, 2], "weights": [0.6, 0.4], "wait": "inclusion"})))]
pub struct WeightsRequest {
    /// Targets.
    pub uids: Vec<u16>,
    /// A weight of at least 0 for each, on any scale.
    pub weights: Vec<f64>,
    /// Mechanism of the subnet; the plain calls where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<u8>,
    /// Version of the validator's software, as the subnet numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = "uint64")]
    pub version_key: Option<u64>,
    /// The same key is the same weights, set once. The header `Idempotency-Key` says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    pub idempotency_key: Option<String>,
    /// What to wait for: `finalization` where it is left out. With commit-reveal it is the commit that is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WaitFor>)]
    pub wait: Option<String>,
}

/// Body of `POST /v1/axon`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"ip": "192.0.2.7", "port": 8091, "wait": "none"})))]
pub struct AxonRequest {
    /// Address that peers connect to.
    #[schema(value_type = String)]
    pub ip: std::net::IpAddr,
    /// Port.
    #[schema(minimum = 1)]
    pub port: u16,
    /// Transport: `tcp` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<AxonProtocol>,
    /// Version of the neuron's software, as it chooses to number it.
    #[serde(default)]
    #[schema(format = "uint32")]
    pub version: u32,
    /// See [`WeightsRequest::idempotency_key`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    pub idempotency_key: Option<String>,
    /// What to wait for: `finalization` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WaitFor>)]
    pub wait: Option<String>,
}

/// Body of `POST /v1/commitments`: up to 128 bytes either as text or as base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"text": "https://example.org/model-7"})))]
pub struct CommitmentRequest {
    /// The bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9+/]*={0,2}$")]
    pub data: Option<String>,
    /// The bytes as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// See [`WeightsRequest::idempotency_key`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    pub idempotency_key: Option<String>,
    /// What to wait for: `finalization` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WaitFor>)]
    pub wait: Option<String>,
}

/// Answer of `POST /v1/weights`, `/v1/axon` and `/v1/commitments`: where it is on the chain, or that it is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubmittedBody {
    /// How: `plain`, `hash_commit` or `timelocked` for weights, `served` or `already` for axons, `set` for commitments.
    pub method: String,
    /// The key under which asking again gives the same answer.
    pub idempotency_key: String,
    /// Number of the block; absent while no block has it, which only `wait` = `none` lets you see.
    pub block: Option<u64>,
    /// Its hash; absent where nothing was submitted as well.
    pub block_hash: Option<BlockHash>,
    /// Hash of the extrinsic; absent where nothing was submitted.
    pub extrinsic: Option<String>,
    /// Whether there is a block and it is final.
    pub finalized: bool,
    /// The drand round at which a timelocked commit opens.
    pub reveal_round: Option<u64>,
}

/// Body of `POST /v1/signer/acknowledge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"before_block": 1})))]
pub struct AcknowledgeRequest {
    /// What others signed before this block is in order.
    #[schema(format = "uint64")]
    pub before_block: u64,
}

/// A sidecar's view of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChainStatus {
    /// Endpoint in use.
    pub endpoint: Option<String>,
    /// Whether the last refresh succeeded and is recent.
    pub synced: bool,
    /// Why not, if not.
    pub error: Option<String>,
    /// Genesis of the chain.
    pub genesis_hash: Option<BlockHash>,
    /// Version of the chain's runtime.
    pub spec_version: Option<u32>,
    /// Block of the metagraph held.
    pub block: Option<u64>,
    /// Seconds since that metagraph was read.
    pub age_s: Option<u64>,
}

/// State of a registry entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// Seen on the chain, not verified yet.
    Discovered,
    /// Its stake and binding were checked within the TTL.
    Verified,
    /// Verified and alive.
    Active,
    /// Gone from the chain or silent; removed after a while.
    Inactive,
    /// Its stake is below the Network's minimum.
    BelowStake,
}

/// How many validators and miners a registry holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RegistryStatus {
    /// All entries.
    pub total: usize,
    /// Entries by state.
    pub states: BTreeMap<EntryState, usize>,
}

/// Place of a member in the Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupRole {
    /// Leads this term.
    Leader,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Not part of the group yet.
    Outside,
}

/// A member's view of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupStatus {
    /// Identity of the group.
    pub cluster_id: String,
    /// This member's Raft node id; a wiped disk gets a new one.
    pub node_id: u64,
    /// Its place.
    pub role: GroupRole,
    /// Current term.
    pub term: u64,
    /// Who leads, as far as this member knows.
    pub leader: Option<Hotkey>,
    /// Index of the last log entry on this member's disk.
    pub last_log_index: u64,
    /// Index of the last entry applied.
    pub applied_index: u64,
    /// Index that was already applied when the process had read its disk, before any message from a peer.
    pub restored_index: u64,
    /// Hash of the replicated state at `applied_index`.
    pub state_hash: String,
    /// Voters of the current membership.
    pub voters: Vec<Hotkey>,
    /// Learners of the current membership.
    pub learners: Vec<Hotkey>,
    /// The replicated weights, heaviest first: the order in which voters campaign.
    pub weights: Vec<WeightBody>,
}

/// One member's weight in elections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WeightBody {
    /// Who.
    pub hotkey: Hotkey,
    /// Name of its tier, if it reached one.
    pub tier: Option<String>,
    /// Band that elections rank by; larger campaigns first.
    pub band: u32,
    /// Stake the band was computed from.
    pub stake: Tao,
}

/// One entry of `GET /v1/validators`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ValidatorBody {
    /// Who.
    pub hotkey: Hotkey,
    /// Its slot.
    pub uid: Uid,
    /// State in this sidecar's registry.
    pub state: EntryState,
    /// Why it is in that state.
    pub reason: String,
    /// Total stake at `block`.
    pub stake: Tao,
    /// Whether the chain gave it a permit.
    pub validator_permit: bool,
    /// Block of the last change of this entry.
    pub block: u64,
}

/// `GET /v1/validators`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ValidatorsBody {
    /// Block of the metagraph this was read from.
    pub block: u64,
    /// Entries in the order of uids.
    pub validators: Vec<ValidatorBody>,
}

/// `GET /v1/validators/{hotkey}/verify`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyBody {
    /// Who was asked about.
    pub hotkey: Hotkey,
    /// Whether it is a validator of this subnet with enough stake.
    pub verified: bool,
    /// Why, in a stable word: `verified`, `not_registered`, `below_minimum_stake`, `no_validator_permit`.
    pub reason: String,
    /// Its slot, when registered.
    pub uid: Option<Uid>,
    /// Its total stake.
    pub stake: Tao,
    /// The Network's minimum.
    pub minimum_stake: Tao,
    /// Block at which this was true.
    pub block: u64,
    /// Whether the answer was repeated from within its TTL.
    pub cached: bool,
}

/// An error as RFC 9457 problem details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// Stable name of the kind of problem, such as `urn:mycelium:invalid-hotkey`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short text of the kind.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened this time, and the remedy.
    pub detail: String,
    /// Every value of the request that was refused, when values were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One refused value of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The parameter or field, as the request named it.
    pub field: String,
    /// Its value as it came, cut when it is long; never a secret.
    pub value: String,
    /// What was wrong and what is expected.
    pub expected: String,
}

impl From<ValueError> for FieldError {
    fn from(error: ValueError) -> Self {
        Self { field: error.field, value: error.value, expected: error.expected }
    }
}

/// One node of `GET /v1/nodes`, and the body of `GET /v1/nodes/{id}`: what the chain says of it, and where it stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeBody {
    /// What the chain says.
    #[serde(flatten)]
    pub neuron: Neuron,
    /// Validator or miner.
    pub kind: NodeKind,
    /// State in this sidecar's registry.
    pub state: EntryState,
    /// Why it is in that state.
    pub reason: String,
    /// Whether something took a connection at its axon when this sidecar last tried, the node itself or anything else:
    /// `state` says whether its hotkey answered. Unknown while its present address was not tried: it has none or one that is
    /// not public, the first probe is still to come, or this sidecar probes no nodes of its kind (a miner's asks validators
    /// only) or none at all.
    pub reachable: Option<bool>,
    /// When `reachable` was first found as it is and at every try since, in RFC 3339; absent while that is unknown.
    pub reachable_since: Option<String>,
    /// Block of the last change of its state.
    pub state_since: u64,
}

/// `GET /v1/nodes`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodesBody {
    /// Block of the metagraph this was read from; all pages of one list are of the same.
    pub block: u64,
    /// Hash of that block.
    pub block_hash: BlockHash,
    /// How many nodes the filters let through, on all pages.
    pub total: usize,
    /// This page.
    pub nodes: Vec<NodeBody>,
    /// `cursor` of the next page; absent on the last.
    pub next: Option<String>,
}

/// One entry of the registry, as `GET /v1/watch` tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryBody {
    /// Who.
    pub hotkey: Hotkey,
    /// Validator or miner.
    pub kind: NodeKind,
    /// Its slot; the last one, when it left the chain.
    pub uid: Uid,
    /// Where it stands.
    pub state: EntryState,
    /// Why, in a stable word.
    pub reason: String,
    /// Total stake.
    pub stake: Tao,
    /// Whether the chain gave it a permit.
    pub validator_permit: bool,
    /// Block of the last change of its state.
    pub block: u64,
}

/// Data of the event `snapshot` of `GET /v1/watch`: everything, after which only changes are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchSnapshot {
    /// The changes up to this one are contained.
    pub sequence: u64,
    /// Block of the metagraph the registry was made from; absent before the first.
    pub block: Option<u64>,
    /// All entries.
    pub entries: Vec<EntryBody>,
}

/// Data of the event `registry` of `GET /v1/watch`: one entry changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchChange {
    /// Number of the change; grows also over a restart, not always by one.
    pub sequence: u64,
    /// What happened: `discovered`, `activated`, `deactivated`, `changed` or `removed`.
    pub event: String,
    /// The entry as it is now; as it was, when it is removed.
    pub entry: EntryBody,
}

/// Data of the event `metagraph` of `GET /v1/watch`: another block was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchBlock {
    /// Number of the change; grows also over a restart.
    pub sequence: u64,
    /// Number of the block.
    pub block: u64,
    /// Its hash.
    pub block_hash: BlockHash,
}
