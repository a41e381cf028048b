//! The ServiceAccount of a node: an identity without any right, and without a token in the pod.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::owned_meta;
use crate::node::NodeObject;

pub(crate) fn service_account(node: &NodeObject) -> ServiceAccount {
    ServiceAccount {
        metadata: owned_meta(node, node.key.object_name()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
