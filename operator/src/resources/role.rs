//! What a node's sidecar may do in the API server: read and renew the Lease of its hotkey, and nothing else.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role};

use super::owned_meta;
use crate::node::NodeObject;

pub(crate) fn role(node: &NodeObject, lease: &str) -> Role {
    Role {
        metadata: owned_meta(node, node.key.object_name()),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec!["coordination.k8s.io".into()]),
            resources: Some(vec!["leases".into()]),
            resource_names: Some(vec![lease.to_owned()]),
            verbs: vec!["get".into(), "update".into()],
            ..PolicyRule::default()
        }]),
    }
}
