//! Volumes on demand for the local cluster: a folder for each claim, offered as a `local` volume bound to the node that the scheduler chose.
//!
//! `local` and not `hostPath`, because kubelet gives a local volume to the pod's `fsGroup`, and programs that are not root can write to it.
//! The size of a claim is recorded and not enforced, as on every cluster whose volumes are folders.
//!
//! A volume carries our finalizer: it is not gone before its folder is.

use std::{fs, io::ErrorKind, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use kube_runtime::{
    Controller,
    controller::Action,
    events::{Event, EventType, Recorder, Reporter},
    watcher,
};
use serde_json::json;
use tracing::{info, warn};

/// The name by which `StorageClasses` ask for these volumes.
pub const NAME: &str = "mycelium.network/local";

const FINALIZER: &str = "mycelium.network/local-volume";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// After a failure the same is tried again this much later; a full disk does not clear up in a second.
const RETRY: Duration = Duration::from_secs(5);

struct Context {
    client: Client,
    volumes: PathBuf,
    recorder: Recorder,
}

/// Why a claim gets no volume.
#[derive(Debug)]
struct Error(anyhow::Error);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Error {}

/// Serves claims and volumes until the process is ended. The folders of volumes are made below `volumes`.
///
/// # Errors
/// When there is no configuration of a cluster.
pub async fn run(volumes: PathBuf) -> Result<()> {
    let client = Client::try_default().await.context("cannot read the kubeconfig")?;
    let reporter = Reporter { controller: NAME.to_owned(), instance: None };
    let context =
        Arc::new(Context { client: client.clone(), volumes, recorder: Recorder::new(client.clone(), reporter) });
    let claims = Controller::new(Api::<PersistentVolumeClaim>::all(client.clone()), watcher::Config::default())
        .run(reconcile_claim, |_, _, _| Action::requeue(RETRY), Arc::clone(&context))
        .for_each(|result| async move { log(result.map(drop)) });
    let released = Controller::new(Api::<PersistentVolume>::all(client), watcher::Config::default())
        .run(reconcile_volume, |_, _, _| Action::requeue(RETRY), context)
        .for_each(|result| async move { log(result.map(drop)) });
    info!(provisioner = NAME, "serving volumes");
    futures::join!(claims, released);
    Ok(())
}

fn log(result: Result<(), impl std::fmt::Display>) {
    if let Err(error) = result {
        warn!(%error, "reconcile failed, will be repeated");
    }
}

async fn reconcile_claim(claim: Arc<PersistentVolumeClaim>, context: Arc<Context>) -> Result<Action, Error> {
    provision(&claim, &context).await.map_err(Error)?;
    Ok(Action::await_change())
}

async fn provision(claim: &PersistentVolumeClaim, context: &Context) -> Result<()> {
    let Some(request) = Request::of(claim) else { return Ok(()) };
    let class = match &request.class {
        Some(class) => Api::<StorageClass>::all(context.client.clone()).get_opt(class).await?,
        None => None,
    };
    // Without its class nobody knows whether the data may be deleted with the claim.
    let Some(class) = class.filter(|class| class.provisioner == NAME) else { return Ok(()) };
    if let Some(reason) = request.refusal() {
        return context.publish(claim, EventType::Warning, "ProvisioningFailed", &reason).await;
    }
    let volume = request.volume(class.reclaim_policy.as_deref(), &context.volumes);
    let folder = context.volumes.join(&request.name);
    make_folder(&folder)?;
    let volumes = Api::<PersistentVolume>::all(context.client.clone());
    match volumes.create(&PostParams::default(), &volume).await {
        // The claim was seen again before its binding was.
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(error).context("cannot create the volume"),
        Ok(_) => {
            info!(volume = request.name, node = request.node, "volume provisioned");
            context
                .publish(claim, EventType::Normal, "ProvisioningSucceeded", &format!("made volume {}", request.name))
                .await
        }
    }
}

async fn reconcile_volume(volume: Arc<PersistentVolume>, context: Arc<Context>) -> Result<Action, Error> {
    reclaim(&volume, &context).await.map_err(Error)?;
    Ok(Action::await_change())
}

async fn reclaim(volume: &PersistentVolume, context: &Context) -> Result<()> {
    let volumes = Api::<PersistentVolume>::all(context.client.clone());
    let name = volume.name_any();
    match fate(volume) {
        Fate::Keep => Ok(()),
        Fate::Delete => {
            let deleted = volumes.delete(&name, &DeleteParams::default()).await;
            deleted.map(drop).with_context(|| format!("cannot delete the volume {name}"))
        }
        Fate::Release { with_data } => {
            if with_data {
                remove_folder(&context.volumes.join(&name))?;
                info!(volume = name, "data removed");
            }
            let left: Vec<&String> = volume.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
            // The version makes sure that nobody's finalizer is lost who came in between.
            let patch = json!({ "metadata": { "finalizers": left, "resourceVersion": volume.resource_version() } });
            let patched = volumes.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            patched.map(drop).with_context(|| format!("cannot release the volume {name}"))
        }
    }
}

impl Context {
    async fn publish(&self, claim: &PersistentVolumeClaim, type_: EventType, reason: &str, note: &str) -> Result<()> {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.to_owned()),
            action: "Provision".to_owned(),
            secondary: None,
        };
        self.recorder.publish(&event, &claim.object_ref(&())).await.context("cannot publish an event")
    }
}

/// What a claim that waits for us asks for.
struct Request {
    name: String,
    node: String,
    class: Option<String>,
    claim: PersistentVolumeClaim,
}

impl Request {
    /// The request of a claim, if it waits for us: it has no volume, and the scheduler has chosen a node.
    fn of(claim: &PersistentVolumeClaim) -> Option<Self> {
        let spec = claim.spec.as_ref()?;
        if spec.volume_name.is_some() || claim.meta().deletion_timestamp.is_some() {
            return None;
        }
        let node = claim.annotations().get(SELECTED_NODE)?.clone();
        // Named after the claim's identity and not its name: a claim of the same name tomorrow is another one.
        let name = format!("pvc-{}", claim.uid()?);
        Some(Self { name, node, class: spec.storage_class_name.clone(), claim: claim.clone() })
    }

    fn refusal(&self) -> Option<String> {
        let spec = self.claim.spec.as_ref()?;
        if spec.volume_mode.as_deref() == Some("Block") {
            return Some("volumes here are folders: volumeMode must be Filesystem".to_owned());
        }
        let modes = spec.access_modes.clone().unwrap_or_default();
        let shared = modes.into_iter().find(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"));
        shared.map(|mode| {
            format!("volumes here are on one node: access mode {mode} is not to be had, ask for ReadWriteOnce")
        })
    }

    fn volume(&self, reclaim_policy: Option<&str>, volumes: &std::path::Path) -> PersistentVolume {
        let spec = self.claim.spec.as_ref();
        let volume = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": self.name,
                "annotations": { PROVISIONED_BY: NAME },
                "finalizers": [FINALIZER],
            },
            "spec": {
                "accessModes": spec.and_then(|spec| spec.access_modes.clone()),
                "capacity": { "storage": spec
                    .and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage").cloned()) },
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": self.claim.namespace(),
                    "name": self.claim.name_any(),
                    "uid": self.claim.uid(),
                },
                "local": { "path": volumes.join(&self.name) },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                    { "key": "kubernetes.io/hostname", "operator": "In", "values": [self.node] },
                ] }] } },
                "persistentVolumeReclaimPolicy": reclaim_policy.unwrap_or("Delete"),
                "storageClassName": self.class,
                "volumeMode": "Filesystem",
            },
        });
        serde_json::from_value(volume).expect("the literal above is a PersistentVolume")
    }
}

/// What is to be done with a volume.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is in use, or not ours, or to be kept.
    Keep,
    /// Its claim is gone and its data are to go.
    Delete,
    /// It is being deleted and waits for us alone.
    Release { with_data: bool },
}

fn fate(volume: &PersistentVolume) -> Fate {
    if volume.annotations().get(PROVISIONED_BY).is_none_or(|by| by != NAME) {
        return Fate::Keep;
    }
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let deletes = policy == Some("Delete");
    let others = volume.finalizers().iter().any(|finalizer| finalizer != FINALIZER);
    let ours = volume.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if volume.meta().deletion_timestamp.is_some() {
        // While a claim is bound, Kubernetes' own finalizer is there, and the data are in use.
        return if ours && !others { Fate::Release { with_data: deletes } } else { Fate::Keep };
    }
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    if deletes && phase == Some("Released") { Fate::Delete } else { Fate::Keep }
}

fn make_folder(folder: &std::path::Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    // Whoever the pod runs as: with an fsGroup kubelet narrows this, without one it must do.
    let permissions = fs::Permissions::from_mode(0o777);
    fs::set_permissions(folder, permissions).with_context(|| format!("cannot open `{}`", folder.display()))
}

fn remove_folder(folder: &std::path::Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn claim(change: impl FnOnce(&mut serde_json::Value)) -> PersistentVolumeClaim {
        let mut claim = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": "data",
                "namespace": "default",
                "uid": "7f3c",
                "annotations": { SELECTED_NODE: "mycelium-2" },
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "standard",
                "resources": { "requests": { "storage": "1Gi" } },
            },
        });
        change(&mut claim);
        serde_json::from_value(claim).unwrap()
    }

    fn volume(policy: &str, phase: &str, finalizers: &[&str], deleted: bool) -> PersistentVolume {
        let mut volume = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": { "name": "pvc-7f3c", "annotations": { PROVISIONED_BY: NAME }, "finalizers": finalizers },
            "spec": { "persistentVolumeReclaimPolicy": policy },
            "status": { "phase": phase },
        });
        if deleted {
            volume["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(volume).unwrap()
    }

    #[test]
    fn a_claim_waits_for_us_once_the_scheduler_chose_a_node() {
        assert!(Request::of(&claim(|_| ())).is_some());
        assert!(Request::of(&claim(|claim| claim["metadata"]["annotations"] = json!({}))).is_none());
        assert!(Request::of(&claim(|claim| claim["spec"]["volumeName"] = json!("pv"))).is_none());
        let deleted = claim(|claim| claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        assert!(Request::of(&deleted).is_none());
    }

    #[test]
    fn the_volume_is_bound_to_the_claim_and_to_the_node() {
        let request = Request::of(&claim(|_| ())).unwrap();
        let volume = request.volume(Some("Retain"), Path::new("/volumes"));
        let spec = volume.spec.unwrap();
        assert_eq!(volume.metadata.name.as_deref(), Some("pvc-7f3c"));
        assert_eq!(spec.local.unwrap().path, "/volumes/pvc-7f3c");
        assert_eq!(spec.claim_ref.unwrap().uid.as_deref(), Some("7f3c"));
        assert_eq!(spec.capacity.unwrap()["storage"].0, "1Gi");
        assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Retain"));
        let terms = spec.node_affinity.unwrap().required.unwrap().node_selector_terms;
        assert_eq!(
            terms[0].match_expressions.as_ref().unwrap()[0].values.as_deref(),
            Some(&["mycelium-2".to_owned()][..])
        );
    }

    #[test]
    fn what_a_folder_cannot_be_is_refused_with_the_remedy() {
        let refusal = |change: fn(&mut serde_json::Value)| Request::of(&claim(change)).unwrap().refusal();
        assert_eq!(refusal(|_| ()), None);
        assert!(
            refusal(|claim| claim["spec"]["accessModes"] = json!(["ReadWriteMany"])).unwrap().contains("ReadWriteOnce")
        );
        assert!(refusal(|claim| claim["spec"]["volumeMode"] = json!("Block")).unwrap().contains("Filesystem"));
    }

    #[test]
    fn data_go_when_the_claim_is_gone_and_the_policy_says_so_and_never_earlier() {
        let protected = "kubernetes.io/pv-protection";
        assert_eq!(fate(&volume("Delete", "Bound", &[FINALIZER, protected], false)), Fate::Keep);
        assert_eq!(fate(&volume("Delete", "Bound", &[FINALIZER, protected], true)), Fate::Keep);
        assert_eq!(fate(&volume("Delete", "Released", &[FINALIZER], false)), Fate::Delete);
        assert_eq!(fate(&volume("Delete", "Released", &[FINALIZER], true)), Fate::Release { with_data: true });
        assert_eq!(fate(&volume("Retain", "Released", &[FINALIZER], false)), Fate::Keep);
        assert_eq!(fate(&volume("Retain", "Released", &[FINALIZER], true)), Fate::Release { with_data: false });
        let mut foreign = volume("Delete", "Released", &[], false);
        foreign.metadata.annotations = None;
        assert_eq!(fate(&foreign), Fate::Keep);
    }

    #[test]
    fn a_folder_is_made_open_and_removed_with_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("pvc-1");
        make_folder(&volume).unwrap();
        assert_eq!(fs::metadata(&volume).unwrap().permissions().mode() & 0o777, 0o777);
        fs::write(volume.join("data"), "x").unwrap();
        remove_folder(&volume).unwrap();
        remove_folder(&volume).unwrap();
        assert!(!volume.exists());
    }
}
