//! Carries out a plan. Objects are applied server-side under one field manager, and only where something differs.

use crds::v1alpha1::HotkeyReservation;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions, ValidationDirective};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::error::{ApiContext as _, Error};
use crate::events::{Note, POD_DELETED};
use crate::labels;
use crate::node::NodeObject;
use crate::observe::Observed;
use crate::plan::Step;
use crate::resources::service;

/// What came of a plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Outcome {
    /// The API server's words for an object that it refused as the spec asks for it.
    pub(crate) rejected: Option<String>,
    /// Whether something was done after which the next look should come at once.
    pub(crate) look_again: bool,
    /// What was decided, for events.
    pub(crate) notes: Vec<Note>,
}

/// Carries out the steps in order; the first refusal ends the round.
pub(crate) async fn apply(
    ctx: &Context,
    node: &NodeObject,
    observed: &Observed,
    steps: Vec<Step>,
) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    for step in steps {
        match carry_out(ctx, node, observed, step, &mut outcome).await {
            Ok(()) => {}
            Err(error) => match refusal(&error) {
                Some(words) => {
                    outcome.rejected = Some(words);
                    break;
                }
                None => return Err(error),
            },
        }
    }
    Ok(outcome)
}

/// The message of an answer that will stay the same until somebody changes the spec or the cluster's rules.
fn refusal(error: &Error) -> Option<String> {
    match error {
        Error::Api { operation, source: kube::Error::Api(status) } if matches!(status.code, 400 | 403 | 422) => {
            Some(format!("{operation}: {}", status.message))
        }
        _ => None,
    }
}

async fn carry_out(
    ctx: &Context,
    node: &NodeObject,
    observed: &Observed,
    step: Step,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let namespace = node.key.namespace.as_str();
    match step {
        Step::Reserve(reservation) => {
            reserve(ctx, &reservation).await?;
            outcome.look_again = true;
        }
        Step::ServiceAccount(desired) => {
            apply_if_needed(ctx, namespace, *desired, observed.service_account.as_ref()).await?;
        }
        Step::Role(desired) => apply_if_needed(ctx, namespace, *desired, observed.role.as_ref()).await?,
        Step::RoleBinding(desired) => {
            apply_if_needed(ctx, namespace, *desired, observed.role_binding.as_ref()).await?;
        }
        Step::Lease(desired) => apply_if_needed(ctx, namespace, *desired, observed.lease.as_ref()).await?,
        Step::Service(desired) => {
            let axon = desired.name_any() == service::axon_service_name(&node.key);
            let live = if axon { &observed.axon_service } else { &observed.sidecar_service };
            apply_if_needed(ctx, namespace, *desired, live.as_ref()).await?;
        }
        Step::Claim(desired) => apply_if_needed(ctx, namespace, *desired, observed.claim.as_ref()).await?,
        Step::CreatePod(desired) => {
            create_pod(ctx, namespace, &desired).await?;
            outcome.notes.push(Note::normal("PodCreated", format!("created pod {}", desired.name_any())));
        }
        Step::PatchPod(patch) => patch_pod(ctx, node, &patch).await?,
        Step::DeletePod(why) => {
            if let Some(live) = &observed.pod {
                delete_pod(ctx, live).await?;
                outcome.notes.push(Note::normal(POD_DELETED, format!("deleted pod {}: {why}", live.name_any())));
            }
        }
        Step::DeleteAxonService => {
            let api: Api<Service> = Api::namespaced(ctx.client.clone(), namespace);
            let name = service::axon_service_name(&node.key);
            ignore_missing(api.delete(&name, &DeleteParams::default()).await)
                .during(|| format!("delete Service {namespace}/{name}"))?;
        }
    }
    Ok(())
}

/// Losing this race is no error: the next look sees who won.
async fn reserve(ctx: &Context, reservation: &HotkeyReservation) -> Result<(), Error> {
    let api: Api<HotkeyReservation> = Api::all(ctx.client.clone());
    match api.create(&PostParams::default(), reservation).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop).during(|| format!("create HotkeyReservation {}", reservation.name_any())),
    }
}

/// A pod is created and not applied: applying would change a pod that somebody else made in the meantime.
async fn create_pod(ctx: &Context, namespace: &str, pod: &Pod) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let params = PostParams { field_manager: Some(labels::FIELD_MANAGER.into()), ..PostParams::default() };
    match api.create(&params, pod).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop).during(|| format!("create Pod {namespace}/{}", pod.name_any())),
    }
}

async fn patch_pod(ctx: &Context, node: &NodeObject, patch: &Value) -> Result<(), Error> {
    let (namespace, name) = (&node.key.namespace, node.key.object_name());
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let params = PatchParams { field_manager: Some(labels::FIELD_MANAGER.into()), ..PatchParams::default() };
    ignore_missing(api.patch(&name, &params, &Patch::Strategic(patch)).await.map(drop))
        .during(|| format!("patch Pod {namespace}/{name}"))
}

/// Deletes this pod and no later one of the same name.
pub(crate) async fn delete_pod(ctx: &Context, pod: &Pod) -> Result<(), Error> {
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let name = pod.name_any();
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    ignore_missing(api.delete(&name, &params).await).during(|| format!("delete Pod {namespace}/{name}"))
}

/// Gone is what a deletion wants.
pub(crate) fn ignore_missing<T>(answer: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        other => other.map(drop),
    }
}

/// Applies an object unless the live one already says all that the desired one says, and was last applied as it.
pub(crate) async fn apply_if_needed<K>(
    ctx: &Context,
    namespace: &str,
    mut desired: K,
    live: Option<&K>,
) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let serialize = |object: &K| {
        serde_json::to_value(object).map_err(|source| Error::Serialize { what: "an object of the operator's", source })
    };
    let hash = hex::encode(&Sha256::digest(serialize(&desired)?.to_string())[..8]);
    desired.annotations_mut().insert(labels::APPLIED.into(), hash);
    if let Some(live) = live
        && covers(&serialize(live)?, &serialize(&desired)?)
    {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    let name = desired.name_any();
    let mut params = PatchParams::apply(labels::FIELD_MANAGER).force();
    params.field_validation = Some(ValidationDirective::Strict);
    api.patch(&name, &params, &Patch::Apply(&desired))
        .await
        .map(drop)
        .during(|| format!("apply {} {namespace}/{name}", K::kind(&())))
}

/// Whether a live object says all that a desired one says. What the API server added does not count.
fn covers(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            desired.iter().all(|(key, wanted)| live.get(key).is_some_and(|found| covers(found, wanted)))
        }
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len() && live.iter().zip(desired).all(|(live, desired)| covers(live, desired))
        }
        _ => live == desired,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::covers;

    #[test]
    fn what_the_server_added_is_no_difference_but_what_it_lost_is() {
        let live = json!({ "spec": { "type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [{ "port": 1, "protocol": "TCP" }] } });
        assert!(covers(&live, &json!({ "spec": { "type": "ClusterIP", "ports": [{ "port": 1 }] } })));
        assert!(!covers(&live, &json!({ "spec": { "type": "NodePort" } })));
        assert!(!covers(&live, &json!({ "spec": { "ports": [{ "port": 1 }, { "port": 2 }] } })));
        assert!(!covers(&live, &json!({ "metadata": { "labels": { "a": "b" } } })));
    }
}
