//! What the operator makes, one kind a file. Builders are pure: the same spec gives the same object.

pub(crate) mod claim;
pub(crate) mod config_map;
pub(crate) mod lease;
pub(crate) mod pod;
pub(crate) mod reservation;
pub(crate) mod role;
pub(crate) mod role_binding;
pub(crate) mod service;
pub(crate) mod service_account;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::labels;
use crate::node::NodeObject;

/// Metadata of an object that goes when its node goes.
fn owned_meta(node: &NodeObject, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(node.key.namespace.clone()),
        labels: Some(labels::of_node(&node.key, &node.spec.network)),
        owner_references: Some(vec![node.owner.clone()]),
        ..ObjectMeta::default()
    }
}
