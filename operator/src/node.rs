//! Validators and Miners as one thing, so that everything behind the API types is written once.

use std::fmt;

use crds::v1alpha1::{
    AxonSpec, Miner, NodeStatus, PodTemplate, SecretKeyRef, SidecarOverrides, StorageSpec, Validator,
};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Which of the two kinds a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Validator,
    Miner,
}

impl Kind {
    /// As labels, names and the sidecar's command line spell it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Validator => "validator",
            Self::Miner => "miner",
        }
    }

    /// As Kubernetes spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Validator => "Validator",
            Self::Miner => "Miner",
        }
    }
}

/// Identity of a node in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeKey {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl NodeKey {
    /// Name of the node's pod, Services and ServiceAccount. A Validator and a Miner may share a name.
    pub(crate) fn object_name(&self) -> String {
        format!("{}-{}", self.kind.word(), self.name)
    }

    /// Name of the node's volume claim.
    pub(crate) fn claim_name(&self) -> String {
        format!("state-{}", self.object_name())
    }

    /// `namespace/name`, as people refer to it.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

/// What both specs say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeSpec {
    pub(crate) network: String,
    pub(crate) secret: SecretKeyRef,
    pub(crate) coldkey: Option<String>,
    pub(crate) template: PodTemplate,
    pub(crate) axon: AxonSpec,
    pub(crate) storage: StorageSpec,
    pub(crate) sidecar: SidecarOverrides,
    pub(crate) suspend: bool,
}

/// A Validator or Miner as read from the API server.
#[derive(Debug, Clone)]
pub(crate) struct NodeObject {
    pub(crate) key: NodeKey,
    pub(crate) uid: String,
    pub(crate) generation: Option<i64>,
    pub(crate) deleting: bool,
    pub(crate) has_finalizer: bool,
    pub(crate) spec: NodeSpec,
    pub(crate) status: NodeStatus,
    /// For events.
    pub(crate) reference: ObjectReference,
    /// For what the node owns.
    pub(crate) owner: OwnerReference,
}

/// The API types that are nodes.
pub(crate) trait Node:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + fmt::Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Which kind this type is.
    const KIND: Kind;

    /// What the spec says.
    fn node_spec(&self) -> NodeSpec;

    /// The status, if one was written.
    fn node_status(&self) -> Option<&NodeStatus>;

    /// Name of the Network.
    fn network(&self) -> &str;

    /// Identity in the cluster.
    fn key(&self) -> NodeKey {
        NodeKey { kind: Self::KIND, namespace: self.namespace().unwrap_or_default(), name: self.name_any() }
    }

    /// Everything a reconcile wants to know of the object itself.
    fn to_object(&self) -> NodeObject {
        NodeObject {
            key: self.key(),
            uid: self.uid().unwrap_or_default(),
            generation: self.meta().generation,
            deleting: self.meta().deletion_timestamp.is_some(),
            has_finalizer: self.finalizers().iter().any(|finalizer| finalizer == crate::labels::FINALIZER),
            spec: self.node_spec(),
            status: self.node_status().cloned().unwrap_or_default(),
            reference: self.object_ref(&()),
            owner: self.controller_owner_ref(&()).expect("an object read from the API server has a name and a uid"),
        }
    }
}

impl Node for Validator {
    const KIND: Kind = Kind::Validator;

    fn node_spec(&self) -> NodeSpec {
        let spec = &self.spec;
        NodeSpec {
            network: spec.network_ref.name.clone(),
            secret: spec.hotkey_secret_ref.clone(),
            coldkey: spec.coldkey.clone(),
            template: spec.template.clone(),
            axon: spec.axon.clone(),
            storage: spec.storage.clone(),
            sidecar: spec.sidecar.clone().unwrap_or_default(),
            suspend: spec.suspend,
        }
    }

    fn node_status(&self) -> Option<&NodeStatus> {
        self.status.as_ref()
    }

    fn network(&self) -> &str {
        &self.spec.network_ref.name
    }
}

impl Node for Miner {
    const KIND: Kind = Kind::Miner;

    fn node_spec(&self) -> NodeSpec {
        let spec = &self.spec;
        NodeSpec {
            network: spec.network_ref.name.clone(),
            secret: spec.hotkey_secret_ref.clone(),
            coldkey: spec.coldkey.clone(),
            template: spec.template.clone(),
            axon: spec.axon.clone(),
            storage: spec.storage.clone(),
            sidecar: spec.sidecar.clone().unwrap_or_default(),
            suspend: spec.suspend,
        }
    }

    fn node_status(&self) -> Option<&NodeStatus> {
        self.status.as_ref()
    }

    fn network(&self) -> &str {
        &self.spec.network_ref.name
    }
}
