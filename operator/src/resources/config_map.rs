//! The file that a Network's sidecars read, once in every namespace that has nodes of the Network.

use std::collections::BTreeMap;

use crds::v1alpha1::Network;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};

use crate::labels;

/// Name of the file in the ConfigMap and in the pod.
pub(crate) const FILE: &str = "network.json";

/// Name of a Network's ConfigMap.
pub(crate) fn name(network: &str) -> String {
    format!("mycelium-{network}")
}

pub(crate) fn config_map(network: &Network, namespace: &str, file: String) -> ConfigMap {
    let network_name = network.name_any();
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name(&network_name)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels::of_network(&network_name)),
            owner_references: network.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(FILE.into(), file)])),
        ..ConfigMap::default()
    }
}
