//! What is there: the node's objects, its key, its reservation, and what chain and sidecar say.

use std::sync::Arc;

use crds::v1alpha1::{HotkeyReservation, Network, ReservationHolder};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::Api;
use sidecar_metagraph::keys;
use sidecar_util::{Hotkey, NetUid};

use crate::chains::ChainState;
use crate::context::Context;
use crate::error::{ApiContext as _, Error};
use crate::node::NodeObject;
use crate::resources::{lease, reservation, service};
use crate::sidecars::Answer;

/// Everything a plan is made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(crate) network: Option<Arc<Network>>,
    pub(crate) chain: ChainState,
    pub(crate) hotkey: Option<Result<Hotkey, SecretProblem>>,
    pub(crate) reservation: Reservation,
    pub(crate) service_account: Option<ServiceAccount>,
    pub(crate) role: Option<Role>,
    pub(crate) role_binding: Option<RoleBinding>,
    /// The signing Lease of the hotkey.
    pub(crate) lease: Option<Lease>,
    pub(crate) sidecar_service: Option<Service>,
    pub(crate) axon_service: Option<Service>,
    pub(crate) claim: Option<PersistentVolumeClaim>,
    pub(crate) pod: Option<Pod>,
    pub(crate) sidecar: Answer,
    /// Hash of the Network's file as it stands in the node's namespace; `None` while it is not known to stand there.
    pub(crate) config_version: Option<String>,
}

/// Why a Secret gives no hotkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretProblem {
    /// There is no such Secret.
    Missing,
    /// It has no such key; these it has.
    KeyMissing(Vec<String>),
    /// What stands there is no wallet file that can be used.
    Malformed(String),
}

/// Who may run the hotkey.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Reservation {
    /// Hotkey or chain are not known, so there is nothing to look for.
    #[default]
    Unknown,
    /// Nobody yet.
    Free,
    /// This node.
    Held,
    /// Another one.
    Taken(ReservationHolder),
}

/// The genesis that the Network stands on: the one its spec names, else the first one seen.
pub(crate) fn genesis(network: &Network) -> Option<&str> {
    let seen = || network.status.as_ref()?.chain.as_ref()?.genesis_hash.as_deref();
    network.spec.chain.genesis_hash.as_deref().or_else(seen)
}

/// Looks at everything that belongs to a node.
pub(crate) async fn observe(ctx: &Context, node: &NodeObject) -> Result<Observed, Error> {
    let namespace = &node.key.namespace;
    let name = node.key.object_name();
    let network = ctx.network(&node.spec.network);
    let hotkey = hotkey(ctx, node).await?;
    let reservation = match (&network, &hotkey) {
        (Some(network), Ok(hotkey)) => reservation_of(ctx, node, network, hotkey).await?,
        _ => Reservation::Unknown,
    };
    let chain = network.as_ref().map(|network| ctx.chains.state(network)).unwrap_or_default();
    let axon_name = service::axon_service_name(&node.key);
    let claim_name = node.key.claim_name();
    let lease_name = network.as_deref().and_then(|network| Some(lease::name(genesis(network)?, hotkey.as_ref().ok()?)));
    let (service_account, role, role_binding, lease, sidecar_service, axon_service, claim, pod) = tokio::try_join!(
        get::<ServiceAccount>(ctx, namespace, &name),
        get::<Role>(ctx, namespace, &name),
        get::<RoleBinding>(ctx, namespace, &name),
        async {
            match &lease_name {
                Some(name) => get::<Lease>(ctx, namespace, name).await,
                None => Ok(None),
            }
        },
        get::<Service>(ctx, namespace, &name),
        get::<Service>(ctx, namespace, &axon_name),
        get::<PersistentVolumeClaim>(ctx, namespace, &claim_name),
        get::<Pod>(ctx, namespace, &name),
    )?;
    Ok(Observed {
        chain,
        hotkey: Some(hotkey),
        reservation,
        service_account,
        role,
        role_binding,
        lease,
        sidecar_service,
        axon_service,
        claim,
        pod,
        sidecar: ctx.sidecars.answer(&node.key),
        config_version: ctx.config_version(&node.spec.network, namespace),
        network,
    })
}

async fn get<K>(ctx: &Context, namespace: &str, name: &str) -> Result<Option<K>, Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    api.get_opt(name).await.during(|| format!("get {} {namespace}/{name}", K::kind(&())))
}

/// Reads the hotkey's address out of the Secret. Only the public part leaves this function.
async fn hotkey(ctx: &Context, node: &NodeObject) -> Result<Result<Hotkey, SecretProblem>, Error> {
    let reference = &node.spec.secret;
    let Some(secret) = get::<Secret>(ctx, &node.key.namespace, &reference.name).await? else {
        return Ok(Err(SecretProblem::Missing));
    };
    let data = secret.data.unwrap_or_default();
    Ok(match data.get(&reference.key) {
        Some(file) => keys::public_hotkey(&file.0).map_err(|error| SecretProblem::Malformed(error.to_string())),
        None => Err(SecretProblem::KeyMissing(data.into_keys().collect())),
    })
}

async fn reservation_of(
    ctx: &Context,
    node: &NodeObject,
    network: &Network,
    hotkey: &Hotkey,
) -> Result<Reservation, Error> {
    let Some(genesis) = genesis(network) else { return Ok(Reservation::Unknown) };
    let name = reservation::name(genesis, NetUid(network.spec.netuid), hotkey);
    let api: Api<HotkeyReservation> = Api::all(ctx.client.clone());
    let found = api.get_opt(&name).await.during(|| format!("get HotkeyReservation {name}"))?;
    Ok(match found {
        None => Reservation::Free,
        Some(found) if found.spec.holder.uid == node.uid => Reservation::Held,
        Some(found) => Reservation::Taken(found.spec.holder),
    })
}
