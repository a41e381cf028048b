//! The end of a node: its pod is gone before its hotkey is free.

use std::time::Duration;

use crds::v1alpha1::HotkeyReservation;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube_runtime::controller::Action;
use serde_json::json;

use crate::apply::{delete_pod, ignore_missing};
use crate::context::Context;
use crate::error::{ApiContext as _, Error};
use crate::labels;
use crate::node::{Node, NodeObject};

/// How often a pod that is on its way out is looked at, should its deletion not be heard of.
const POD_GONE_RECHECK: Duration = Duration::from_secs(5);

/// Holds the node back from deletion until [`finalize`] is through.
pub(crate) async fn add_finalizer<N: Node>(ctx: &Context, node: &NodeObject) -> Result<(), Error> {
    set_finalizers::<N>(ctx, node, &[labels::FINALIZER]).await
}

/// Removes the pod, sees it gone, frees the hotkey, and lets the node go. The volume stays unless it is owned by the node.
pub(crate) async fn finalize<N: Node>(ctx: &Context, node: &NodeObject) -> Result<Action, Error> {
    ctx.sidecars.locate(&node.key, None);
    if !node.has_finalizer {
        return Ok(Action::await_change());
    }
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &node.key.namespace);
    let name = node.key.object_name();
    if let Some(pod) = pods.get_opt(&name).await.during(|| format!("get Pod {}/{name}", node.key.namespace))? {
        if pod.metadata.deletion_timestamp.is_none() {
            delete_pod(ctx, &pod).await?;
        }
        return Ok(Action::requeue(POD_GONE_RECHECK));
    }
    release(ctx, node).await?;
    set_finalizers::<N>(ctx, node, &[]).await?;
    tracing::info!("released");
    Ok(Action::await_change())
}

/// Frees every hotkey that this node holds, and none that another holds.
async fn release(ctx: &Context, node: &NodeObject) -> Result<(), Error> {
    let api: Api<HotkeyReservation> = Api::all(ctx.client.clone());
    let selector = format!("{}={},{}={}", labels::KIND, node.key.kind.word(), labels::NODE, node.key.name);
    let params = kube::api::ListParams::default().labels(&selector);
    let reservations = api.list(&params).await.during(|| "list HotkeyReservations".into())?;
    for reservation in reservations.into_iter().filter(|reservation| reservation.spec.holder.uid == node.uid) {
        let name = reservation.name_any();
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: reservation.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        ignore_missing(api.delete(&name, &params).await).during(|| format!("delete HotkeyReservation {name}"))?;
    }
    Ok(())
}

async fn set_finalizers<N: Node>(ctx: &Context, node: &NodeObject, finalizers: &[&str]) -> Result<(), Error> {
    let api: Api<N> = Api::namespaced(ctx.client.clone(), &node.key.namespace);
    let patch = json!({
        "apiVersion": N::api_version(&()),
        "kind": N::kind(&()),
        // With its uid the patch can only meet the object that was looked at, never a later one of the same name.
        "metadata": { "uid": node.uid, "finalizers": finalizers },
    });
    // A manager of its own: finalizers are a set, and this manager's part of it is exactly what the patch names.
    let params = PatchParams::apply(&format!("{}-finalizer", labels::FIELD_MANAGER)).force();
    ignore_missing(api.patch(&node.key.name, &params, &Patch::Apply(&patch)).await)
        .during(|| format!("set finalizers of {}", node.key))
}
