//! Gives the pod of a node the rights of its Role, whichever ServiceAccount the pod runs under.

use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};

use super::{owned_meta, service_account};
use crate::node::NodeObject;

pub(crate) fn role_binding(node: &NodeObject) -> RoleBinding {
    RoleBinding {
        metadata: owned_meta(node, node.key.object_name()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "Role".into(),
            name: node.key.object_name(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: service_account::of_pod(node),
            namespace: Some(node.key.namespace.clone()),
            ..Subject::default()
        }]),
    }
}
