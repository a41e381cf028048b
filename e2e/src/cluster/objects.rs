//! The objects that make a set of processes a cluster as people know it: a default StorageClass, DNS as a Service, and the rights of
//! the two processes of ours that are clients.

use serde_json::{Value, json};

use super::control_plane::{DNS_USER, VOLUMES_USER};
use crate::{addresses::Addresses, provisioner};

/// All of them, as one list.
pub(super) fn base(addresses: Addresses) -> Value {
    let mut items = vec![storage_class()];
    items.extend(dns_service(addresses));
    items.extend(rights(
        DNS_USER,
        &json!([
            { "apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"] },
            { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
        ]),
    ));
    items.extend(rights(
        VOLUMES_USER,
        &json!([
            {
                "apiGroups": [""],
                "resources": ["persistentvolumes"],
                "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"],
            },
            { "apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
        ]),
    ));
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn storage_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "standard",
            "annotations": { "storageclass.kubernetes.io/is-default-class": "true" },
        },
        "provisioner": provisioner::NAME,
        "reclaimPolicy": "Delete",
        // A local volume is bound to a node, so the scheduler chooses the node first.
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

/// CoreDNS is a process and not a pod, so its Service has no selector and names the address itself.
fn dns_service(addresses: Addresses) -> [Value; 2] {
    let ports = |target: bool| -> Value {
        let port = |name: &str, protocol: &str| {
            let mut port = json!({ "name": name, "port": 53, "protocol": protocol });
            if target {
                port["targetPort"] = json!(53);
            }
            port
        };
        json!([port("dns", "UDP"), port("dns-tcp", "TCP")])
    };
    [
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } },
            "spec": { "clusterIP": addresses.dns_service(), "ports": ports(true) },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns-process",
                "namespace": "kube-system",
                "labels": {
                    "kubernetes.io/service-name": "kube-dns",
                    "endpointslice.kubernetes.io/managed-by": "mycelium-cluster",
                },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [addresses.gateway()], "conditions": { "ready": true } }],
            "ports": ports(false),
        }),
    ]
}

fn rights(user: &str, rules: &Value) -> [Value; 2] {
    let reference = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user });
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": user },
            "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": user },
            "roleRef": reference,
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
        }),
    ]
}
