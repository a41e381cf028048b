//! Parts of a spec that Validator and Miner share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

/// Which Network a node belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkRef {
    /// Name of the Network.
    #[serde(default = "NetworkRef::default_name")]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl NetworkRef {
    fn default_name() -> String {
        "default".into()
    }
}

impl Default for NetworkRef {
    fn default() -> Self {
        Self { name: Self::default_name() }
    }
}

/// A key of a Secret in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret that holds the hotkey's Bittensor wallet file (the JSON of `~/.bittensor/wallets/NAME/hotkeys/HOTKEY`).
    #[serde(default = "SecretKeyRef::default_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

impl SecretKeyRef {
    fn default_key() -> String {
        "hotkey".into()
    }
}

/// How peers reach the node's axon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AxonExposure {
    /// Not at all.
    None,
    /// Through a Service inside the cluster.
    ClusterIP,
    /// On a port of every node.
    NodePort,
    /// On a port of the node the pod runs on.
    HostPort,
    /// Through the cloud's load balancer.
    LoadBalancer,
    /// At `axon.address`, by means outside this cluster.
    Static,
}

/// Where the user's container serves its axon, and how peers reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.exposure != 'Static' || has(self.address)")
    .message("axon.address is required when axon.exposure is Static: give the address that peers connect to"))]
#[x_kube(validation = Rule::new("self.exposure == 'Static' || !has(self.address)")
    .message("axon.address is only for axon.exposure Static: remove it, or set exposure to Static"))]
#[x_kube(validation = Rule::new("self.exposure == 'NodePort' || !has(self.nodePort)")
    .message("axon.nodePort is only for axon.exposure NodePort: remove it, or set exposure to NodePort"))]
#[serde(rename_all = "camelCase")]
pub struct AxonSpec {
    /// How peers reach the axon.
    pub exposure: AxonExposure,
    /// Port on which the user's container listens.
    #[serde(default = "AxonSpec::default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Port on every node, for NodePort; chosen by Kubernetes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
    /// IP address that peers connect to, for Static.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 45))]
    pub address: Option<String>,
}

impl AxonSpec {
    /// The default of Bittensor's own SDK.
    pub const DEFAULT_PORT: i32 = 8091;

    fn default_port() -> i32 {
        Self::DEFAULT_PORT
    }

    /// The axon of a node whose spec says nothing.
    pub fn with_exposure(exposure: AxonExposure) -> Self {
        Self { exposure, port: Self::DEFAULT_PORT, node_port: None, address: None }
    }
}

/// The volume that holds what a node must not forget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
    .message("storage.storageClassName cannot be changed: delete the resource and its volume claim, and make another"))]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Size of the volume.
    #[schemars(extend("nullable" = false))]
    #[serde(default = "StorageSpec::default_size")]
    pub size: Quantity,
    /// Storage class; the cluster's default when absent. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// What happens to the volume when the resource is deleted.
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

/// What happens to a volume when its Validator or Miner is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum StorageRetention {
    /// The claim stays; a resource of the same kind and name takes it up again.
    #[default]
    Retain,
    /// The claim goes with the resource.
    Delete,
}

/// When the kubelet pulls an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// Unless the node has it.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The word that a container's `imagePullPolicy` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// What one node's sidecar does differently from the Network's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarOverrides {
    /// Image of the sidecar, instead of the Network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Requests and limits of the sidecar, instead of the Network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Log filter, such as `info` or `info,sidecar_consensus=debug`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub log: Option<String>,
}

/// The user's pod: everything that a Pod may say. Mycelium adds the sidecar, its volumes and the socket.
///
/// Reserved for Mycelium: the container name `sidecar`, volume names that start with `mycelium-`, and the Secret of the hotkey,
/// which no container but the sidecar may use.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PodTemplate {
    /// Labels and annotations of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PodTemplateMeta>,
    /// The pod, as in a Pod's `spec`. `containers` is required.
    #[schemars(transform = without_descriptions)]
    pub spec: PodSpec,
}

/// Labels and annotations of the user's pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PodTemplateMeta {
    /// Labels; those that start with `mycelium.network/` are Mycelium's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations; those that start with `mycelium.network/` are Mycelium's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A pod's schema is typed, so that the API server refuses misspelt fields, but its descriptions would
/// make each CRD four times as large; `kubectl explain pod.spec` has them.
fn without_descriptions(schema: &mut Schema) {
    fn strip(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(object) => {
                if object.get("description").is_some_and(serde_json::Value::is_string) {
                    object.remove("description");
                }
                object.values_mut().for_each(strip);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = schema.clone().to_value();
    strip(&mut value);
    if let Ok(stripped) = value.try_into() {
        *schema = stripped;
    }
}
