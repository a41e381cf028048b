//! The pod of a node: the user's pod, and the sidecar in it.

use std::collections::BTreeMap;

use crds::v1alpha1::{AxonExposure, Network};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, ConfigMapVolumeSource, Container, ContainerPort, DownwardAPIProjection,
    DownwardAPIVolumeFile, EmptyDirVolumeSource, EnvVar, HTTPGetAction, KeyToPath, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, Pod, PodSpec, Probe, ProjectedVolumeSource, ResourceRequirements,
    SeccompProfile, SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::{config_map, owned_meta, service_account};
use crate::error::Error;
use crate::labels;
use crate::node::NodeObject;

/// Port of the sidecar's HTTP API.
pub(crate) const HTTP_PORT: u16 = 9100;
/// Port on which members of the group talk.
pub(crate) const PEER_PORT: u16 = 9101;

/// User and group of the sidecar; the group also owns the socket, so that every container of the pod may use it.
const SIDECAR_ID: i64 = 65532;

/// Volume names with this prefix are Mycelium's.
pub(crate) const VOLUME_PREFIX: &str = "mycelium-";
const CONFIG_VOLUME: &str = "mycelium-config";
const HOTKEY_VOLUME: &str = "mycelium-hotkey";
const SOCKET_VOLUME: &str = "mycelium-socket";
const STATE_VOLUME: &str = "mycelium-state";
const API_VOLUME: &str = "mycelium-api";

const CONFIG_DIR: &str = "/etc/mycelium";
const HOTKEY_DIR: &str = "/var/run/secrets/mycelium";
const SOCKET_DIR: &str = "/run/mycelium";
const STATE_DIR: &str = "/var/lib/mycelium";
/// Where every client of the API server looks for its credentials.
const API_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Lifetime of the token in that folder, as the kubelet gives it to pods of its own accord. It brings a new one in time.
const TOKEN_SECONDS: i64 = 3607;

/// Where the user's code finds the socket.
const SOCKET_ENV: &str = "MYCELIUM_SOCKET";

/// What a pod depends on besides its node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PodContext<'a> {
    pub(crate) network: &'a Network,
    /// Image of Networks that name none.
    pub(crate) default_image: &'a str,
    /// Name of the hotkey's signing Lease.
    pub(crate) lease: &'a str,
    /// Hash of the Network's file; `None` while it is not known, as right after a start of the operator.
    pub(crate) config_version: Option<&'a str>,
}

/// The sidecar's image: the node's, else the Network's, else the operator's.
pub(crate) fn sidecar_image(node: &NodeObject, context: PodContext<'_>) -> String {
    let own = node.spec.sidecar.image.as_ref();
    own.or(context.network.spec.sidecar.image.as_ref()).map_or(context.default_image, String::as_str).to_owned()
}

/// The pod that a node asks for, and the hash that tells whether a running pod is this one.
pub(crate) fn pod(node: &NodeObject, context: PodContext<'_>) -> Result<(Pod, String), Error> {
    let mut spec = node.spec.template.spec.clone();
    add_defaults(node, &mut spec);
    add_socket(&mut spec);
    add_axon_port(node, &mut spec);
    spec.volumes.get_or_insert_default().extend(volumes(node));
    // The first of the init containers, so that the user's init containers have the socket, too.
    spec.init_containers.get_or_insert_default().insert(0, sidecar(node, context));

    let mut metadata = owned_meta(node, node.key.object_name());
    let template = node.spec.template.metadata.clone().unwrap_or_default();
    let mut all_labels = template.labels;
    all_labels.extend(metadata.labels.take().unwrap_or_default());
    metadata.labels = Some(all_labels);
    let mut annotations = template.annotations;

    let hash = hash_of(&spec)?;
    annotations.insert(labels::POD_HASH.into(), hash.clone());
    if let Some(version) = context.config_version {
        annotations.insert(labels::CONFIG_VERSION.into(), version.to_owned());
    }
    metadata.annotations = Some(annotations);
    Ok((Pod { metadata, spec: Some(spec), status: None }, hash))
}

/// Hash of a pod without the sidecar's image: that alone is changed in a running pod, everything else asks for a new one.
fn hash_of(spec: &PodSpec) -> Result<String, Error> {
    let mut spec = spec.clone();
    if let Some(sidecar) = spec.init_containers.as_mut().and_then(|containers| containers.first_mut()) {
        sidecar.image = None;
    }
    let json = serde_json::to_vec(&spec).map_err(|source| Error::Serialize { what: "the pod", source })?;
    Ok(hex::encode(&Sha256::digest(json)[..8]))
}

fn add_defaults(node: &NodeObject, spec: &mut PodSpec) {
    spec.service_account_name = Some(service_account::of_pod(node));
    // Nothing but the sidecar, which has a mount of its own, talks to the API server unless the user asks for it.
    spec.automount_service_account_token.get_or_insert(false);
    spec.enable_service_links.get_or_insert(false);
    let security = spec.security_context.get_or_insert_default();
    security.fs_group.get_or_insert(SIDECAR_ID);
    security.fs_group_change_policy.get_or_insert_with(|| "OnRootMismatch".into());
}

fn add_socket(spec: &mut PodSpec) {
    let user_init_containers = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(user_init_containers) {
        container.volume_mounts.get_or_insert_default().push(mount(SOCKET_VOLUME, SOCKET_DIR, false));
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|variable| variable.name == SOCKET_ENV) {
            env.push(EnvVar {
                name: SOCKET_ENV.into(),
                value: Some(format!("{SOCKET_DIR}/sidecar.sock")),
                ..EnvVar::default()
            });
        }
    }
}

/// With exposure `HostPort` the container that listens on the axon's port, or else the first one, gets the host port.
fn add_axon_port(node: &NodeObject, spec: &mut PodSpec) {
    let axon = &node.spec.axon;
    if axon.exposure != AxonExposure::HostPort {
        return;
    }
    let listens = |container: &Container| container.ports.iter().flatten().any(|port| port.container_port == axon.port);
    let index = spec.containers.iter().position(listens).unwrap_or(0);
    let Some(container) = spec.containers.get_mut(index) else { return };
    let ports = container.ports.get_or_insert_default();
    match ports.iter_mut().find(|port| port.container_port == axon.port) {
        Some(port) => port.host_port = Some(axon.port),
        None => ports.push(ContainerPort {
            container_port: axon.port,
            host_port: Some(axon.port),
            ..ContainerPort::default()
        }),
    }
}

fn volumes(node: &NodeObject) -> Vec<Volume> {
    let secret = &node.spec.secret;
    vec![
        Volume {
            name: CONFIG_VOLUME.into(),
            config_map: Some(ConfigMapVolumeSource {
                name: config_map::name(&node.spec.network),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: HOTKEY_VOLUME.into(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.name.clone()),
                items: Some(vec![KeyToPath { key: secret.key.clone(), path: "hotkey".into(), mode: None }]),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: SOCKET_VOLUME.into(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".into()),
                size_limit: Some(Quantity("1Mi".into())),
            }),
            ..Volume::default()
        },
        Volume {
            name: STATE_VOLUME.into(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: node.key.claim_name(),
                read_only: None,
            }),
            ..Volume::default()
        },
        Volume { name: API_VOLUME.into(), projected: Some(api_access()), ..Volume::default() },
    ]
}

/// What the kubelet would mount into every container if the pod asked for it: this one is for the sidecar alone.
fn api_access() -> ProjectedVolumeSource {
    let token = ServiceAccountTokenProjection {
        path: "token".into(),
        expiration_seconds: Some(TOKEN_SECONDS),
        ..ServiceAccountTokenProjection::default()
    };
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".into(),
        items: Some(vec![KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None }]),
        ..ConfigMapProjection::default()
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".into(),
        field_ref: Some(ObjectFieldSelector { field_path: "metadata.namespace".into(), api_version: None }),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(authority), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources) }
}

fn sidecar(node: &NodeObject, context: PodContext<'_>) -> Container {
    let args = vec![
        "run".to_owned(),
        format!("--kind={}", node.key.kind.word()),
        format!("--config={CONFIG_DIR}/{}", config_map::FILE),
        format!("--hotkey-file={HOTKEY_DIR}/hotkey"),
        format!("--socket={SOCKET_DIR}/sidecar.sock"),
        format!("--listen=0.0.0.0:{HTTP_PORT}"),
        format!("--peer-listen=0.0.0.0:{PEER_PORT}"),
        format!("--data-dir={STATE_DIR}"),
        format!("--lease={}/{}", node.key.namespace, context.lease),
    ];
    let mounts = vec![
        mount(CONFIG_VOLUME, CONFIG_DIR, true),
        mount(HOTKEY_VOLUME, HOTKEY_DIR, true),
        mount(SOCKET_VOLUME, SOCKET_DIR, false),
        mount(STATE_VOLUME, STATE_DIR, false),
        mount(API_VOLUME, API_DIR, true),
    ];
    let of_network = &context.network.spec.sidecar;
    Container {
        name: labels::SIDECAR.into(),
        image: Some(sidecar_image(node, context)),
        image_pull_policy: of_network.image_pull_policy.map(|policy| policy.as_str().into()),
        // A native sidecar: it starts before the user's containers, stops after them, and restarts alone.
        restart_policy: Some("Always".into()),
        args: Some(args),
        env: node.spec.sidecar.log.as_ref().map(|filter| {
            vec![EnvVar { name: "MYCELIUM_LOG".into(), value: Some(filter.clone()), ..EnvVar::default() }]
        }),
        ports: Some(vec![container_port("mycelium-http", HTTP_PORT), container_port("mycelium-peer", PEER_PORT)]),
        volume_mounts: Some(mounts),
        // Its last line says why it ended; the condition Ready quotes it.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        resources: Some(
            node.spec
                .sidecar
                .resources
                .clone()
                .or_else(|| of_network.resources.clone())
                .unwrap_or_else(default_resources),
        ),
        // The user's containers wait for the socket, not for the chain: a chain that is down must not keep them from starting.
        startup_probe: Some(Probe { period_seconds: Some(1), failure_threshold: Some(60), ..probe("/healthz") }),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            failure_threshold: Some(3),
            ..probe("/healthz")
        }),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            timeout_seconds: Some(2),
            failure_threshold: Some(2),
            ..probe("/readyz")
        }),
        security_context: Some(SecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(SIDECAR_ID),
            run_as_group: Some(SIDECAR_ID),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Measured: a sidecar with 1,024 neurons stays far below both.
fn default_resources() -> ResourceRequirements {
    let amounts = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())))
            .collect::<BTreeMap<_, _>>()
    };
    ResourceRequirements {
        requests: Some(amounts(&[("cpu", "50m"), ("memory", "64Mi")])),
        limits: Some(amounts(&[("memory", "256Mi")])),
        claims: None,
    }
}

fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn container_port(name: &str, port: u16) -> ContainerPort {
    ContainerPort { name: Some(name.into()), container_port: port.into(), ..ContainerPort::default() }
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(HTTP_PORT.into()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

/// The version of the Network's file that a pod was told of last.
pub(crate) fn config_version_of(pod: &Pod) -> Option<&str> {
    pod.annotations().get(labels::CONFIG_VERSION).map(String::as_str)
}
