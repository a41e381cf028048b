//! The quickstart as tests see it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::kubectl::Kubectl;
use e2e::wait::wait_until;
use serde_json::Value;

/// Namespace of the quickstart.
pub(crate) const NAMESPACE: &str = "quickstart";
/// Namespace of the operator and the development chain.
pub(crate) const SYSTEM: &str = "mycelium-system";
/// Long enough for a pod to be replaced on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Hotkeys of `e2e/quickstart.yaml`.
pub(crate) const VAL_1: &str = "5Frzxz1qmyABhyEUNVTpmBGzd2UvmEPYmojApuLmmWkoNJFZ";
pub(crate) const VAL_2: &str = "5CJDgHRwD7K11TvwoydcRNcNsejdogCmRRPgiKNyBeistBt5";
pub(crate) const VAL_3: &str = "5EjZu1qgmynDHYvMZMczJvs1xVyDzTd3KHdsMcqJWGNozei3";

/// The running cluster.
pub(crate) struct World {
    pub(crate) kubectl: Kubectl,
}

impl World {
    /// The cluster, once the quickstart is as `make up` leaves it.
    pub(crate) fn at_rest() -> Result<Self> {
        let world = Self { kubectl: Kubectl::of_running_cluster()? };
        wait_until(PATIENCE, "the quickstart to be ready", || {
            for (kind, name) in quickstart() {
                world.expect_condition(kind, name, "Ready", "True")?;
            }
            Ok(())
        })?;
        Ok(world)
    }

    /// Runs kubectl; the answer is what it printed.
    pub(crate) fn run(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(args)
    }

    /// An object of the quickstart.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.kubectl.json(&["--namespace", NAMESPACE, "get", kind, name])
    }

    /// A condition: status, reason and message.
    pub(crate) fn condition(&self, kind: &str, name: &str, type_: &str) -> Result<(String, String, String)> {
        condition_of(&self.get(kind, name)?, type_)
    }

    /// Fails unless a condition has this status.
    pub(crate) fn expect_condition(&self, kind: &str, name: &str, type_: &str, status: &str) -> Result<()> {
        let (found, reason, message) = self.condition(kind, name, type_)?;
        ensure!(found == status, "{type_} of {kind} {name} is {found} ({reason}: {message})");
        Ok(())
    }

    /// An answer of a node's sidecar, fetched by the API server. Refusals are answers, too.
    pub(crate) fn sidecar(&self, pod: &str, path: &str) -> Result<Value> {
        let url = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9100/proxy{path}");
        let text = self.run(&["get", "--raw", &url])?;
        serde_json::from_str(&text).with_context(|| format!("{url} gave no JSON: {text}"))
    }

    /// Sends a signed extrinsic from inside the development chain's pod.
    pub(crate) fn chain(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", SYSTEM, "exec", "deploy/mycelium-devchain", "--", "mycelium-devchain"];
        all.extend(args);
        self.run(&all)
    }

    /// Container name to (container id, restarts) of a pod, native sidecars included.
    pub(crate) fn containers(&self, namespace: &str, pod: &str) -> Result<Vec<(String, String, i64)>> {
        let pod = self.kubectl.json(&["--namespace", namespace, "get", "pod", pod])?;
        let lists = ["initContainerStatuses", "containerStatuses"];
        let statuses = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
        Ok(statuses
            .map(|status| {
                let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
                (text("name"), text("containerID"), status["restartCount"].as_i64().unwrap_or_default())
            })
            .collect())
    }

    /// Name of the operator's pod.
    pub(crate) fn operator_pod(&self) -> Result<String> {
        let selector = "app.kubernetes.io/component=operator";
        let pods = self.kubectl.json(&["--namespace", SYSTEM, "get", "pods", "--selector", selector])?;
        let running =
            pods["items"].as_array().into_iter().flatten().find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let name = running.and_then(|pod| pod["metadata"]["name"].as_str()).context("the operator has no pod")?;
        Ok(name.to_owned())
    }

    /// How often the operator's container was restarted.
    pub(crate) fn operator_restarts(&self) -> Result<i64> {
        let containers = self.containers(SYSTEM, &self.operator_pod()?)?;
        Ok(containers.iter().map(|(_, _, restarts)| restarts).sum())
    }

    /// Texts of the events about an object: `reason: note`.
    pub(crate) fn events(&self, namespace: &str, name: &str) -> Result<Vec<String>> {
        let events = self.kubectl.json(&["--namespace", namespace, "get", "events.events.k8s.io"])?;
        let about = events["items"].as_array().into_iter().flatten().filter(|event| event["regarding"]["name"] == name);
        Ok(about
            .map(|event| {
                let text = |field: &str| event[field].as_str().unwrap_or_default();
                format!("{}: {}", text("reason"), text("note"))
            })
            .collect())
    }

    /// Status of the group as the Network reports it.
    pub(crate) fn group(&self) -> Result<Value> {
        Ok(self.kubectl.json(&["get", "network", "default"])?["status"]["group"].clone())
    }

    /// Blocks between two epochs, and seconds in a block.
    pub(crate) fn tempo(&self) -> Result<Duration> {
        let network = self.kubectl.json(&["get", "network", "default"])?;
        let tempo = network["status"]["chain"]["tempo"].as_u64().context("the Network does not know its tempo")?;
        // The quickstart's chain makes a block every quarter of a second.
        Ok(Duration::from_millis(tempo * 250))
    }
}

/// Kind and name of every node of the quickstart.
pub(crate) fn quickstart() -> [(&'static str, &'static str); 5] {
    [("validator", "val-1"), ("validator", "val-2"), ("validator", "val-3"), ("miner", "miner-1"), ("miner", "miner-2")]
}

/// A condition of an object: status, reason and message.
pub(crate) fn condition_of(object: &Value, type_: &str) -> Result<(String, String, String)> {
    let conditions = object["status"]["conditions"].as_array().context("there is no status yet")?;
    let found = conditions.iter().find(|condition| condition["type"] == type_);
    let Some(condition) = found else { bail!("there is no condition {type_} yet") };
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("reason"), text("message")))
}
