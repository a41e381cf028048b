//! Types and reasons of conditions. Each stands in one place, so that operator, tests and documents agree on the spelling.

/// Summary: the node does what it exists for. What is missing stands in its reason and message.
pub const READY: &str = "Ready";
/// The spec cannot be acted on; nothing is changed until it is mended.
pub const INVALID_SPEC: &str = "InvalidSpec";
/// This resource, and no other, may run its hotkey.
pub const HOTKEY_RESERVED: &str = "HotkeyReserved";
/// The chain is being read and the values shown are recent.
pub const CHAIN_SYNCED: &str = "ChainSynced";
/// The hotkey has a uid on the subnet.
pub const REGISTERED: &str = "Registered";
/// Total stake reaches the Network's minimum.
pub const STAKE_SUFFICIENT: &str = "StakeSufficient";
/// The chain counts this validator's weights.
pub const VALIDATOR_PERMIT: &str = "ValidatorPermit";
/// The last weights are younger than the chain's activity cutoff.
pub const WEIGHTS_CURRENT: &str = "WeightsCurrent";
/// The chain holds an axon for the hotkey.
pub const AXON_PUBLISHED: &str = "AxonPublished";
/// The member votes in the group.
pub const VOTER: &str = "Voter";
/// The volume that holds what the node must not forget is bound.
pub const STATE_DURABLE: &str = "StateDurable";
/// The sidecar holds the hotkey's signing lease and signs all that its policy allows. What keeps it from that stands in reason
/// and message, in the sidecar's own words.
pub const SIGNER_HELD: &str = "SignerHeld";
/// The pod that runs is the pod that the spec asks for.
pub const UP_TO_DATE: &str = "UpToDate";
/// The group of validators has a leader.
pub const GROUP_LED: &str = "GroupLed";
/// The node is suspended on request.
pub const PAUSED: &str = "Paused";

/// Reasons, grouped by the condition that first uses them.
pub mod reason {
    /// Everything is as wanted.
    pub const AS_EXPECTED: &str = "AsExpected";
    /// Not looked at yet, or what is needed to know is missing.
    pub const UNKNOWN: &str = "Unknown";

    /// A field holds something it cannot take.
    pub const INVALID_FIELD: &str = "InvalidField";
    /// The hotkey Secret does not exist.
    pub const SECRET_MISSING: &str = "SecretMissing";
    /// The hotkey Secret holds no usable wallet file.
    pub const SECRET_MALFORMED: &str = "SecretMalformed";
    /// `networkRef` names no Network.
    pub const NETWORK_MISSING: &str = "NetworkMissing";
    /// The API server refused an object that the spec asks for.
    pub const REJECTED: &str = "RejectedByApiServer";

    /// Another resource runs this hotkey.
    pub const HOTKEY_TAKEN: &str = "HotkeyTaken";
    /// The chain is not known yet, so the hotkey cannot be reserved on it.
    pub const WAITING_FOR_CHAIN: &str = "WaitingForChain";

    /// The hotkey has no uid on the subnet.
    pub const NOT_REGISTERED: &str = "NotRegistered";
    /// Stake is below the Network's minimum.
    pub const BELOW_MINIMUM_STAKE: &str = "BelowMinimumStake";
    /// The chain gave no permit at its last epoch.
    pub const NO_PERMIT: &str = "NoPermit";
    /// No weights were ever set.
    pub const NEVER_SET: &str = "NeverSet";
    /// The last weights are too old to count.
    pub const WEIGHTS_STALE: &str = "WeightsStale";
    /// The node is not exposed.
    pub const NOT_EXPOSED: &str = "NotExposed";
    /// The chain holds no axon for the hotkey.
    pub const NOT_SERVED: &str = "NotServed";

    /// The pod is being created or is starting.
    pub const POD_STARTING: &str = "PodStarting";
    /// A container of the pod fails again and again.
    pub const POD_FAILING: &str = "PodFailing";
    /// The pod cannot be placed on a node.
    pub const POD_UNSCHEDULABLE: &str = "PodUnschedulable";
    /// The old pod is on its way out; the new one comes after it is gone.
    pub const REPLACING: &str = "Replacing";
    /// The volume is not bound.
    pub const VOLUME_PENDING: &str = "VolumePending";
    /// The node is suspended by `spec.suspend`.
    pub const SUSPENDED: &str = "Suspended";
    /// The resource is being deleted.
    pub const DELETING: &str = "Deleting";

    /// The member follows without a vote.
    pub const LEARNER: &str = "Learner";
    /// The member is not part of the group yet.
    pub const OUTSIDE: &str = "OutsideGroup";
    /// The sidecar does not answer.
    pub const SIDECAR_SILENT: &str = "SidecarSilent";
}
