//! What to do about a node: pure, from what was observed.
//!
//! A pod is replaced by deleting it, seeing it gone, and making the new one: two pods with one hotkey would be two signers.
//! Whatever is wrong with a spec, a pod that runs is left alone until the spec is mended.

use std::collections::BTreeMap;

use crds::v1alpha1::conditions::reason;
use crds::v1alpha1::{HotkeyReservation, Network, ReservationHolder};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, Pod, PodSpec, Service, ServiceAccount, Volume};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt as _;
use serde_json::{Map, Value, json};
use sidecar_util::{Coldkey, NetUid, check_public_ip};

use crate::error::Error;
use crate::labels;
use crate::node::NodeObject;
use crate::observe::{Observed, Reservation, SecretProblem, genesis};
use crate::resources::pod::{PodContext, VOLUME_PREFIX, config_version_of, pod};
use crate::resources::{claim, lease, reservation, role, role_binding, service, service_account};

/// One change in the cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Take the hotkey for this node.
    Reserve(Box<HotkeyReservation>),
    /// Bring an object to its desired state.
    ServiceAccount(Box<ServiceAccount>),
    Role(Box<Role>),
    RoleBinding(Box<RoleBinding>),
    /// The signing Lease. What a sidecar wrote into it stays.
    Lease(Box<Lease>),
    Service(Box<Service>),
    Claim(Box<PersistentVolumeClaim>),
    /// Make the pod; there is none.
    CreatePod(Box<Pod>),
    /// Change what may be changed in a running pod.
    PatchPod(Value),
    /// Remove the pod; the reason goes into the event.
    DeletePod(&'static str),
    /// Remove the axon's Service, which the exposure no longer asks for.
    DeleteAxonService,
}

/// Why a node gets no pod, or keeps the one it has as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The spec, or what it refers to, must be mended.
    Invalid { reason: &'static str, message: String },
    /// The chain is not known yet, so the hotkey cannot be reserved on it.
    WaitingForChain,
    /// Another resource runs the hotkey.
    Taken(ReservationHolder),
    /// Asked for by `spec.suspend`.
    Suspended,
}

/// What stands in the way of a node, if anything does. The first reason found is the one to mend first.
pub(crate) fn hold(node: &NodeObject, observed: &Observed) -> Option<Hold> {
    let Some(network) = observed.network.as_deref() else {
        let name = &node.spec.network;
        let message = format!("networkRef.name: there is no Network `{name}`: create it, or name one that exists");
        return Some(Hold::Invalid { reason: reason::NETWORK_MISSING, message });
    };
    if let Some(message) = spec_problem(node, network) {
        return Some(Hold::Invalid { reason: reason::INVALID_FIELD, message });
    }
    if let Some(problem) = hotkey_problem(node, observed) {
        return Some(problem);
    }
    match &observed.reservation {
        Reservation::Unknown => Some(Hold::WaitingForChain),
        Reservation::Taken(holder) => Some(Hold::Taken(holder.clone())),
        Reservation::Free | Reservation::Held => node.spec.suspend.then_some(Hold::Suspended),
    }
}

/// What the API server's schema cannot check.
fn spec_problem(node: &NodeObject, network: &Network) -> Option<String> {
    let spec = &node.spec;
    if let Some(Err(error)) = spec.coldkey.as_ref().map(|coldkey| coldkey.parse::<Coldkey>()) {
        return Some(error.of_field("coldkey").to_string());
    }
    if let Some(address) = &spec.axon.address {
        let checked = match address.parse() {
            Ok(ip) => {
                check_public_ip("axon.address", ip, network.spec.local).map(drop).map_err(|error| error.to_string())
            }
            Err(_) => Err(format!("axon.address: `{address}` is not an IP address")),
        };
        if let Err(message) = checked {
            return Some(message);
        }
    }
    template_problem(&spec.template.spec, &spec.secret.name)
}

fn template_problem(template: &PodSpec, hotkey_secret: &str) -> Option<String> {
    if template.containers.is_empty() {
        return Some("template.spec.containers: is empty: name the container that runs your code".into());
    }
    let containers = || template.containers.iter().chain(template.init_containers.iter().flatten());
    if containers().any(|container| container.name == labels::SIDECAR) {
        return Some(format!("template.spec: the container name `{}` is Mycelium's: choose another", labels::SIDECAR));
    }
    if let Some(volume) = template.volumes.iter().flatten().find(|volume| volume.name.starts_with(VOLUME_PREFIX)) {
        let name = &volume.name;
        return Some(format!(
            "template.spec.volumes: names that start with `{VOLUME_PREFIX}` are Mycelium's: rename `{name}`"
        ));
    }
    let mut mounts = containers().flat_map(|container| container.volume_mounts.iter().flatten());
    if let Some(mount) = mounts.find(|mount| mount.name.starts_with(VOLUME_PREFIX)) {
        let name = &mount.name;
        return Some(format!(
            "template.spec: the volume `{name}` is for the sidecar alone: take the mount out; the socket is there without one"
        ));
    }
    for (field, shared) in [("hostPID", template.host_pid), ("shareProcessNamespace", template.share_process_namespace)]
    {
        if shared == Some(true) {
            return Some(format!(
                "template.spec.{field}: must be false: containers that see the sidecar's process reach the hotkey through it"
            ));
        }
    }
    let secret = |name: &str| name == hotkey_secret;
    if template.volumes.iter().flatten().any(|volume| volume_uses(volume, secret))
        || containers().any(|c| container_uses(c, secret))
    {
        return Some(format!(
            "template.spec: the Secret `{hotkey_secret}` holds the hotkey and is for the sidecar alone: \
             sign through the socket, and keep other secrets in a Secret of their own"
        ));
    }
    None
}

fn volume_uses(volume: &Volume, secret: impl Fn(&str) -> bool) -> bool {
    let plain = volume.secret.iter().filter_map(|source| source.secret_name.as_deref());
    let projected = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
    let projected = projected.filter_map(|source| source.secret.as_ref()).map(|source| source.name.as_str());
    plain.chain(projected).any(secret)
}

fn container_uses(container: &Container, secret: impl Fn(&str) -> bool) -> bool {
    let env =
        container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()?.secret_key_ref.as_ref());
    let env_from = container.env_from.iter().flatten().filter_map(|source| source.secret_ref.as_ref());
    env.map(|source| source.name.as_str()).chain(env_from.map(|source| source.name.as_str())).any(secret)
}

fn hotkey_problem(node: &NodeObject, observed: &Observed) -> Option<Hold> {
    let (name, key) = (&node.spec.secret.name, &node.spec.secret.key);
    let path = format!("Secret `{}/{name}`", node.key.namespace);
    let (reason, message) = match observed.hotkey.as_ref()? {
        Ok(hotkey) => {
            // The hotkey is the node's identity: another one in the Secret is another node.
            let before = node.status.hotkey.as_ref().filter(|before| **before != hotkey.to_string())?;
            let message = format!(
                "hotkeySecretRef: {path} now holds hotkey {hotkey}, but this is the {} of {before}: \
                 put the old hotkey back, or delete this resource and make another",
                node.key.kind.name()
            );
            (reason::INVALID_FIELD, message)
        }
        Err(SecretProblem::Missing) => {
            let message = format!(
                "hotkeySecretRef: {path} does not exist: \
                 kubectl -n {} create secret generic {name} --from-file={key}=PATH_OF_HOTKEY_FILE",
                node.key.namespace
            );
            (reason::SECRET_MISSING, message)
        }
        Err(SecretProblem::KeyMissing(found)) => {
            let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
            let message = format!(
                "hotkeySecretRef: {path} has no key `{key}` (it has {found}): set hotkeySecretRef.key, or add the key"
            );
            (reason::SECRET_MISSING, message)
        }
        Err(SecretProblem::Malformed(why)) => {
            (reason::SECRET_MALFORMED, format!("hotkeySecretRef: key `{key}` of {path}: {why}"))
        }
    };
    Some(Hold::Invalid { reason, message })
}

/// The steps that bring a node nearer to its spec. An empty list means that nothing is to be done.
pub(crate) fn plan(node: &NodeObject, observed: &Observed, default_image: &str) -> Result<Vec<Step>, Error> {
    let Some(network) = observed.network.as_deref() else { return Ok(Vec::new()) };
    match hold(node, observed) {
        None => {}
        Some(Hold::Suspended) => return Ok(without_pod(observed, "suspended")),
        Some(_) => return Ok(Vec::new()),
    }
    let (Some(genesis), Some(Ok(hotkey))) = (genesis(network), observed.hotkey.as_ref()) else {
        return Ok(Vec::new());
    };
    if observed.reservation == Reservation::Free {
        let wanted = reservation::reservation(node, genesis, NetUid(network.spec.netuid), hotkey);
        return Ok(vec![Step::Reserve(Box::new(wanted))]);
    }
    let lease = lease::name(genesis, hotkey);
    let mut steps = vec![
        Step::ServiceAccount(Box::new(service_account::service_account(node))),
        Step::Role(Box::new(role::role(node, &lease))),
        Step::RoleBinding(Box::new(role_binding::role_binding(node))),
        Step::Lease(Box::new(lease::lease(node, &lease, hotkey))),
        Step::Service(Box::new(service::sidecar_service(node))),
    ];
    match service::axon_service(node) {
        Some(axon) => steps.push(Step::Service(Box::new(axon))),
        None if observed.axon_service.is_some() => steps.push(Step::DeleteAxonService),
        None => {}
    }
    steps.push(Step::Claim(Box::new(claim::claim(node))));
    let version = observed.config_version.as_deref().or_else(|| observed.pod.as_ref().and_then(config_version_of));
    let context = PodContext { network, default_image, lease: &lease, config_version: version };
    steps.extend(pod_step(node, observed, context)?);
    Ok(steps)
}

/// A suspended node keeps everything but its pod.
fn without_pod(observed: &Observed, why: &'static str) -> Vec<Step> {
    let running = observed.pod.as_ref().is_some_and(|pod| pod.metadata.deletion_timestamp.is_none());
    if running { vec![Step::DeletePod(why)] } else { Vec::new() }
}

fn pod_step(node: &NodeObject, observed: &Observed, context: PodContext<'_>) -> Result<Option<Step>, Error> {
    let (desired, hash) = pod(node, context)?;
    let Some(live) = &observed.pod else {
        // A pod that is made before the file it mounts waits for the kubelet's next try.
        let file_is_there = observed.config_version.is_some();
        return Ok(file_is_there.then(|| Step::CreatePod(Box::new(desired))));
    };
    if live.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let phase = live.status.as_ref().and_then(|status| status.phase.as_deref());
    let step = if matches!(phase, Some("Failed" | "Succeeded")) {
        Some(Step::DeletePod("ended"))
    } else if live.annotations().get(labels::POD_HASH) != Some(&hash) {
        Some(Step::DeletePod("changed"))
    } else {
        pod_patch(live, &desired).map(Step::PatchPod)
    };
    Ok(step)
}

/// Labels, annotations and images are what a running pod can take; everything else of it never changes.
fn pod_patch(live: &Pod, desired: &Pod) -> Option<Value> {
    fn containers(pod: &Pod) -> &[Container] {
        pod.spec.as_ref().map_or(&[], |spec| &spec.containers)
    }
    fn init_containers(pod: &Pod) -> &[Container] {
        pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
    }
    let mut patch = json!({});
    let mut add = |part: &str, name: &str, value: Value| {
        let empty = value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
        if !empty {
            patch[part][name] = value;
        }
    };
    add("metadata", "labels", missing(live.labels(), desired.labels()));
    add("metadata", "annotations", missing(live.annotations(), desired.annotations()));
    add("spec", "containers", changed_images(containers(live), containers(desired)));
    add("spec", "initContainers", changed_images(init_containers(live), init_containers(desired)));
    (patch != json!({})).then_some(patch)
}

/// The wanted entries that a live map lacks or has otherwise.
fn missing(live: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Value {
    let entries = wanted.iter().filter(|(key, value)| live.get(*key) != Some(value));
    entries.map(|(key, value)| (key.clone(), json!(value))).collect()
}

/// The containers that run another image than wanted, in the form of a strategic merge patch.
fn changed_images(live: &[Container], wanted: &[Container]) -> Value {
    let runs = |wanted: &Container| live.iter().any(|live| live.name == wanted.name && live.image == wanted.image);
    let changed = wanted.iter().filter(|container| !runs(container));
    changed.map(|container| json!({ "name": container.name, "image": container.image })).collect()
}

#[cfg(test)]
mod tests;
