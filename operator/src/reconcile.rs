//! A reconcile of a Validator or Miner: observe, plan, apply, status.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crds::v1alpha1::NodeStatus;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube_runtime::controller::Action;
use serde_json::json;

use crate::context::{Context, Guarded};
use crate::error::{ApiContext as _, Error, chain};
use crate::node::{Node, NodeObject};
use crate::observe::{Observed, observe};
use crate::plan::{Hold, hold, plan};
use crate::{apply, events, finalize, labels, status};

/// Every node is looked at this often even if nothing is heard of it, in case a watch lost something.
const RESYNC: Duration = Duration::from_mins(5);
/// A missing Secret or Network is looked for this often: Secrets are not watched.
const RECHECK: Duration = Duration::from_secs(5);
/// Looks at one node and brings it nearer to its spec.
pub(crate) async fn reconcile<N: Node>(guarded: Arc<Guarded<N>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let started = std::time::Instant::now();
    let result = match &guarded.0 {
        Ok(node) => Box::pin(reconcile_node::<N>(&node.to_object(), &ctx)).await,
        Err(invalid) => {
            tracing::error!(object = ?invalid.metadata.name, error = %invalid.error, "resource cannot be read");
            Ok(Action::await_change())
        }
    };
    ctx.metrics.reconciled(N::KIND.word(), started.elapsed(), result.as_ref().err().map(Error::label));
    if result.is_ok() {
        ctx.retries.succeeded(&name_of::<N>(&guarded));
    }
    result
}

/// Waits longer after each failure of the same object.
#[expect(clippy::needless_pass_by_value, reason = "the signature that controllers call")]
pub(crate) fn error_policy<N: Node>(guarded: Arc<Guarded<N>>, error: &Error, ctx: Arc<Context>) -> Action {
    let name = name_of::<N>(&guarded);
    let wait = ctx.retries.failed(&name);
    tracing::warn!(node = name, error = chain(error), ?wait, "reconcile failed, will try again");
    Action::requeue(wait)
}

fn name_of<N: Node>(guarded: &Guarded<N>) -> String {
    format!("{} {}/{}", N::KIND.name(), guarded.namespace().unwrap_or_default(), guarded.name_any())
}

#[tracing::instrument(skip_all, fields(node = %node.key))]
async fn reconcile_node<N: Node>(node: &NodeObject, ctx: &Context) -> Result<Action, Error> {
    ctx.stores.ready().await;
    // The Network sums up its nodes.
    ctx.triggers.network(&node.spec.network);
    if node.deleting {
        return finalize::finalize::<N>(ctx, node).await;
    }
    if !node.has_finalizer {
        finalize::add_finalizer::<N>(ctx, node).await?;
    }
    let observed = observe(ctx, node).await?;
    ctx.sidecars.locate(&node.key, observed.pod.as_ref().and_then(pod_ip));
    let steps = plan(node, &observed, &ctx.default_image)?;
    let outcome = apply::apply(ctx, node, &observed, steps).await?;
    let status = status::node_status(node, &observed, &outcome, jiff::Timestamp::now());
    let tempo = observed.chain.metagraph.as_ref().map(|metagraph| metagraph.tempo);
    if status::worth_writing(&node.status, &status, tempo) {
        write_status::<N>(ctx, node, &status).await?;
    }
    let mut notes = outcome.notes.clone();
    notes.extend(events::of_conditions(&node.status.conditions, &status.conditions));
    events::publish(&ctx.recorder, &node.reference, &notes).await;
    Ok(next_look(node, &observed, outcome.look_again, outcome.rejected.is_some()))
}

fn next_look(node: &NodeObject, observed: &Observed, again: bool, rejected: bool) -> Action {
    if again {
        return Action::requeue(Duration::ZERO);
    }
    let waits_for_unwatched =
        matches!(hold(node, observed), Some(Hold::Invalid { .. } | Hold::Taken(_) | Hold::WaitingForChain));
    Action::requeue(if waits_for_unwatched || rejected { RECHECK } else { RESYNC })
}

/// Address of a pod's sidecar while the pod is there to stay.
fn pod_ip(pod: &Pod) -> Option<IpAddr> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

async fn write_status<N: Node>(ctx: &Context, node: &NodeObject, status: &NodeStatus) -> Result<(), Error> {
    let api: Api<N> = Api::namespaced(ctx.client.clone(), &node.key.namespace);
    let patch = json!({
        "apiVersion": N::api_version(&()),
        "kind": N::kind(&()),
        "status": status,
    });
    let params = PatchParams::apply(labels::FIELD_MANAGER).force();
    let answer = api.patch_status(&node.key.name, &params, &Patch::Apply(&patch)).await.map(drop);
    apply::ignore_missing(answer).during(|| format!("write status of {}", node.key))
}

#[cfg(test)]
mod tests;
