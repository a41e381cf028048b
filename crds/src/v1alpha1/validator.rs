//! A validator: one hotkey, one pod, one volume, one vote.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{AxonExposure, AxonSpec, NetworkRef, NodeStatus, PodTemplate, SecretKeyRef, SidecarOverrides, StorageSpec};

/// A validator of a Network: one hotkey, one pod, one volume, at most one vote in the group.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "mycelium.network",
    version = "v1alpha1",
    kind = "Validator",
    namespaced,
    status = "NodeStatus",
    derive = "PartialEq",
    shortname = "val",
    category = "bittensor",
    doc = "A validator of a Network: one hotkey, one pod, one volume, at most one vote in the group of validators.",
    validation = Rule::new("size(self.metadata.name) <= 47").message("metadata.name must have at most 47 characters: names of the objects made for it are longer"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "UID", type_ = "integer", json_path = ".status.neuron.uid"),
    printcolumn(name = "Stake", type_ = "string", json_path = ".status.neuron.stake"),
    printcolumn(name = "Permit", type_ = "boolean", json_path = ".status.neuron.validatorPermit"),
    printcolumn(name = "VTrust", type_ = "string", json_path = ".status.neuron.vtrust"),
    printcolumn(name = "Weights-Age", type_ = "integer", json_path = ".status.neuron.weightsAgeBlocks"),
    printcolumn(name = "Role", type_ = "string", json_path = ".status.group.role"),
    printcolumn(name = "Axon", type_ = "string", json_path = ".status.neuron.axon.endpoint"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", priority = "1", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Signs", type_ = "string", priority = "1", json_path = ".status.conditions[?(@.type==\"SignerHeld\")].status"),
    printcolumn(name = "Network", type_ = "string", priority = "1", json_path = ".spec.networkRef.name"),
    printcolumn(name = "Hotkey", type_ = "string", priority = "1", json_path = ".status.hotkey"),
    selectable = ".spec.networkRef.name"
)]
#[serde(rename_all = "camelCase")]
pub struct ValidatorSpec {
    /// The Network it validates on. Cannot be changed: delete the Validator and make another.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("networkRef cannot be changed: delete the Validator and make another"))]
    pub network_ref: NetworkRef,
    /// Where the hotkey is. Only the sidecar mounts it. Cannot be changed: delete the Validator and make another.
    #[x_kube(validation = Rule::new("self == oldSelf").message("hotkeySecretRef cannot be changed: delete the Validator and make another"))]
    pub hotkey_secret_ref: SecretKeyRef,
    /// SS58 address of the coldkey that must own the hotkey on chain. Never the key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[1-9A-HJ-NP-Za-km-z]{46,50}$"))]
    pub coldkey: Option<String>,
    /// The user's pod.
    pub template: PodTemplate,
    /// Where the user's container serves its axon, and how peers reach it.
    #[serde(default = "ValidatorSpec::default_axon")]
    pub axon: AxonSpec,
    /// The volume that holds the member's log and state, and what its sidecar has signed.
    #[serde(default)]
    pub storage: StorageSpec,
    /// What this sidecar does differently from the Network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<SidecarOverrides>,
    /// Stops the pod and keeps everything else, status included.
    #[serde(default)]
    pub suspend: bool,
}

impl ValidatorSpec {
    /// Validators answer no strangers unless told to.
    fn default_axon() -> AxonSpec {
        AxonSpec::with_exposure(AxonExposure::None)
    }
}
