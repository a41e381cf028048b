//! The Services of a node: one for its sidecar, one for its axon.

use crds::v1alpha1::AxonExposure;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::owned_meta;
use super::pod::{HTTP_PORT, PEER_PORT};
use crate::labels;
use crate::node::NodeObject;

/// The sidecar's Service: a steady address for peers and for the operator. It leads to the pod before the pod is ready, too,
/// because members of a group that is being founded wait for each other.
pub(crate) fn sidecar_service(node: &NodeObject) -> Service {
    Service {
        metadata: owned_meta(node, node.key.object_name()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(labels::selector(&node.key)),
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![port("http", HTTP_PORT.into(), None), port("peer", PEER_PORT.into(), None)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// `host:port` of the peer service behind [`sidecar_service`].
pub(crate) fn peer_address(key: &crate::node::NodeKey) -> String {
    format!("{}.{}.svc:{PEER_PORT}", key.object_name(), key.namespace)
}

/// Name of the axon's Service.
pub(crate) fn axon_service_name(key: &crate::node::NodeKey) -> String {
    format!("{}-axon", key.object_name())
}

/// The axon's Service, where the exposure asks for one.
pub(crate) fn axon_service(node: &NodeObject) -> Option<Service> {
    let axon = &node.spec.axon;
    let (kind, keeps_client_address) = match axon.exposure {
        AxonExposure::ClusterIP => ("ClusterIP", false),
        AxonExposure::NodePort => ("NodePort", true),
        AxonExposure::LoadBalancer => ("LoadBalancer", true),
        AxonExposure::None | AxonExposure::HostPort | AxonExposure::Static => return None,
    };
    Some(Service {
        metadata: owned_meta(node, axon_service_name(&node.key)),
        spec: Some(ServiceSpec {
            type_: Some(kind.into()),
            selector: Some(labels::selector(&node.key)),
            ports: Some(vec![port("axon", axon.port, axon.node_port)]),
            // Axons judge callers by address, so the address must survive the way in.
            external_traffic_policy: keeps_client_address.then(|| "Local".into()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    })
}

fn port(name: &str, port: i32, node_port: Option<i32>) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port,
        target_port: Some(IntOrString::Int(port)),
        node_port,
        protocol: Some("TCP".into()),
        ..ServicePort::default()
    }
}
