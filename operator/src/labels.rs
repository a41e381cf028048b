//! Names, labels and annotations of what the operator makes.

use std::collections::BTreeMap;

use crate::node::NodeKey;

/// Field manager of everything the operator applies.
pub(crate) const FIELD_MANAGER: &str = "mycelium-operator";

/// Holds a node back from deletion until its pod is gone and its hotkey is free.
pub(crate) const FINALIZER: &str = "mycelium.network/release";

/// Label: name of the Network.
pub(crate) const NETWORK: &str = "mycelium.network/network";
/// Label: `validator` or `miner`.
pub(crate) const KIND: &str = "mycelium.network/kind";
/// Label: name of the Validator or Miner.
pub(crate) const NODE: &str = "mycelium.network/node";

/// Label of a signing Lease: SS58 address of its hotkey.
pub(crate) const HOTKEY: &str = "mycelium.network/hotkey";

/// Annotation: hash of what was applied last; a field taken back from the desired state shows in nothing else.
pub(crate) const APPLIED: &str = "mycelium.network/applied";
/// Annotation: hash of the pod that the spec asked for, without the sidecar's image.
pub(crate) const POD_HASH: &str = "mycelium.network/pod-hash";
/// Annotation: hash of the Network's configuration file. Changing it makes the kubelet bring the pod's copy up to date at once
/// instead of within a minute.
pub(crate) const CONFIG_VERSION: &str = "mycelium.network/config-version";

/// Selects everything of the operator's.
pub(crate) const MANAGED: &str = "app.kubernetes.io/managed-by=mycelium";

/// Name of the native sidecar in every pod.
pub(crate) const SIDECAR: &str = "sidecar";

/// Labels of everything made for a node.
pub(crate) fn of_node(key: &NodeKey, network: &str) -> BTreeMap<String, String> {
    let mut labels = of_network(network);
    labels.insert("app.kubernetes.io/component".into(), key.kind.word().into());
    labels.insert("app.kubernetes.io/instance".into(), key.name.clone());
    labels.insert(KIND.into(), key.kind.word().into());
    labels.insert(NODE.into(), key.name.clone());
    labels
}

/// Labels of everything made for a Network.
pub(crate) fn of_network(network: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".into(), "mycelium".into()),
        ("app.kubernetes.io/managed-by".into(), "mycelium".into()),
        (NETWORK.into(), network.into()),
    ])
}

/// Labels that select a node's pod and nothing else.
pub(crate) fn selector(key: &NodeKey) -> BTreeMap<String, String> {
    BTreeMap::from([(KIND.into(), key.kind.word().into()), (NODE.into(), key.name.clone())])
}
