//! A `Lease` of Kubernetes. Each write replaces the version that was read and no other; the API server sees to that.
//!
//! Times in the record are for people: nobody here compares them, because they are somebody else's wall clock.

use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Config};

use super::{LeaseRecord, LeaseStore, StoreError};
use crate::signer::guard::{Fence, RELEASED, Rules};

/// Annotation with the block from which on nothing that was signed under the lease can enter the chain; absent where
/// nothing was signed.
const FENCE: &str = "mycelium.network/signed-until-block";

/// Its value where nobody knows.
const UNKNOWN: &str = "unknown";

/// Time for the parts of one request. The guard bounds the whole.
const REQUEST_DEADLINE: Duration = Rules::KUBERNETES.deadline;

/// A lease in the API server.
pub(crate) struct KubernetesStore {
    leases: Api<Lease>,
    namespace: String,
    name: String,
}

impl KubernetesStore {
    /// The lease of this name, by the service account of the pod.
    ///
    /// # Errors
    /// This process does not run in a pod, or its service account cannot be used.
    pub(crate) fn in_cluster(namespace: &str, name: &str) -> anyhow::Result<Self> {
        let mut config = Config::incluster()
            .context("--lease: needs the service account of a pod; outside of Kubernetes use --lease-file instead")?;
        config.connect_timeout = Some(REQUEST_DEADLINE);
        config.read_timeout = Some(REQUEST_DEADLINE);
        config.write_timeout = Some(REQUEST_DEADLINE);
        let client = Client::try_from(config).context("--lease: no client for the API server")?;
        Ok(Self::new(client, namespace, name))
    }

    pub(crate) fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { leases: Api::namespaced(client, namespace), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn failed(&self, verb: &str, error: &kube::Error) -> StoreError {
        let (namespace, name) = (&self.namespace, &self.name);
        let remedy = match error {
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
                "give the pod's service account the verbs get and update on it, and create where nobody else makes it"
            }
            kube::Error::Api(status) if status.code == 404 => "make the namespace",
            _ => "see whether the API server answers",
        };
        let text = match error {
            kube::Error::Api(status) => format!("{} {}", status.code, status.message),
            // The causes say what a connection died of.
            error => causes(error),
        };
        StoreError::Failed(format!("cannot {verb} Lease `{namespace}/{name}` ({text}): {remedy}"))
    }

    fn record(&self, lease: Lease) -> Result<LeaseRecord, StoreError> {
        let version = lease.metadata.resource_version.unwrap_or_default();
        if version.is_empty() {
            let (namespace, name) = (&self.namespace, &self.name);
            return Err(StoreError::Failed(format!("Lease `{namespace}/{name}` came without a resourceVersion")));
        }
        let spec = lease.spec.unwrap_or_default();
        let fence = match lease.metadata.annotations.as_ref().and_then(|all| all.get(FENCE)).map(String::as_str) {
            None => Fence::Settled,
            Some(UNKNOWN) => Fence::Unknown,
            Some(text) => Fence::Until(text.parse().map_err(|_| {
                let (namespace, name) = (&self.namespace, &self.name);
                let expected = "is no block number: remove it once no other sidecar has this hotkey";
                StoreError::Failed(format!("Lease `{namespace}/{name}`: annotation {FENCE}: `{text}` {expected}"))
            })?),
        };
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        // Whoever follows these rules counts holders. A Lease without a count, as the operator makes it, says no more than one
        // that is not there, and is taken as that one is: written at once, and waited for after that.
        let (fence, fallback) = match spec.lease_transitions {
            Some(_) => (fence, Rules::KUBERNETES.duration),
            None => (fence.max(Rules::KUBERNETES.absent), RELEASED),
        };
        Ok(LeaseRecord {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            duration: duration.map_or(fallback, Duration::from_secs),
            epoch: spec.lease_transitions.and_then(|count| u64::try_from(count).ok()).unwrap_or_default(),
            fence,
            version,
            alive: false,
        })
    }

    /// What others wrote into the object, labels and owners for example, stays.
    fn object(&self, record: &LeaseRecord, before: Option<Lease>) -> Lease {
        let mut lease = before.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.take().unwrap_or_default();
        let same_holder = before.holder_identity == record.holder;
        lease.spec = Some(LeaseSpec {
            acquire_time: if same_holder { before.acquire_time } else { Some(now.clone()) },
            holder_identity: Some(record.holder.clone().unwrap_or_default()),
            lease_duration_seconds: i32::try_from(record.duration.as_secs()).ok(),
            lease_transitions: i32::try_from(record.epoch).ok(),
            renew_time: Some(now),
            ..before
        });
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match record.fence {
            Fence::Settled => annotations.remove(FENCE),
            Fence::Until(block) => annotations.insert(FENCE.to_owned(), block.to_string()),
            Fence::Unknown => annotations.insert(FENCE.to_owned(), UNKNOWN.to_owned()),
        };
        lease
    }
}

/// An error with its causes in one line; some repeat them already.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[async_trait]
impl LeaseStore for KubernetesStore {
    async fn read(&self) -> Result<Option<LeaseRecord>, StoreError> {
        let found = self.leases.get_opt(&self.name).await.map_err(|error| self.failed("read", &error))?;
        found.map(|lease| self.record(lease)).transpose()
    }

    async fn write(&self, record: &LeaseRecord, over: Option<&str>) -> Result<LeaseRecord, StoreError> {
        let parameters = PostParams::default();
        let written = match over {
            None => self.leases.create(&parameters, &self.object(record, None)).await,
            Some(version) => {
                let found = self.leases.get_opt(&self.name).await.map_err(|error| self.failed("read", &error))?;
                // Gone, or another one: the API server would say so, too.
                let found = found.filter(|lease| lease.metadata.resource_version.as_deref() == Some(version));
                let found = found.ok_or(StoreError::Conflict)?;
                self.leases.replace(&self.name, &parameters, &self.object(record, Some(found))).await
            }
        };
        match written {
            Ok(lease) => self.record(lease),
            // A replaced object that is gone is a conflict as well; a namespace that is missing is not.
            Err(kube::Error::Api(status)) if status.code == 409 || (status.code == 404 && over.is_some()) => {
                Err(StoreError::Conflict)
            }
            Err(error) => Err(self.failed(if over.is_some() { "renew" } else { "create" }, &error)),
        }
    }
}
