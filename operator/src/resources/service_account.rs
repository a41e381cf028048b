//! The ServiceAccount of a node: its one right is the Lease of its hotkey, and the sidecar alone has a token of it.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::owned_meta;
use crate::node::NodeObject;

/// Name of the ServiceAccount that the pod runs under: the user's, if the template names one.
pub(crate) fn of_pod(node: &NodeObject) -> String {
    node.spec.template.spec.service_account_name.clone().unwrap_or_else(|| node.key.object_name())
}

pub(crate) fn service_account(node: &NodeObject) -> ServiceAccount {
    ServiceAccount {
        metadata: owned_meta(node, node.key.object_name()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
