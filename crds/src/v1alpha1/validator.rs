//! A validator: one hotkey, one pod, one volume, one vote.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AxonExposure, AxonSpec, NetworkRef, NodeStatus, PodTemplate, SecretKeyRef, SidecarOverrides};

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
    /// The volume that holds the member's log and state.
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

/// The volume that holds a validator's log and state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
    .message("storage.storageClassName cannot be changed: delete the Validator and make another"))]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Size of the volume.
    #[schemars(extend("nullable" = false))]
    #[serde(default = "StorageSpec::default_size")]
    pub size: Quantity,
    /// Storage class; the cluster's default when absent. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// What happens to the volume when the Validator is deleted.
    #[serde(default)]
    pub retention: StorageRetention,
}

impl StorageSpec {
    fn default_size() -> Quantity {
        Quantity("1Gi".into())
    }
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self { size: Self::default_size(), storage_class_name: None, retention: StorageRetention::default() }
    }
}

/// What happens to a volume when its Validator is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum StorageRetention {
    /// The claim stays; a Validator of the same name takes it up again.
    #[default]
    Retain,
    /// The claim goes with the Validator.
    Delete,
}
