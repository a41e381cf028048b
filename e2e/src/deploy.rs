//! Mycelium on a cluster: the two charts, the quickstart, and the wait until its validators and miners are Ready.
//!
//! Each part is compared with what the cluster has before it is applied, so that a second run changes nothing: a chart by the manifest that the
//! server would install, everything by a dry run that also sees what somebody edited or deleted by hand.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    command,
    image::EXAMPLE,
    kubectl::Kubectl,
    progress::{Progress, Step},
    wait::wait_until,
};

/// Where the charts are installed.
pub const NAMESPACE: &str = "mycelium-system";

/// How long validators and miners may take to become Ready: images are there, but a chain has to start and a group to form.
const READY_DEADLINE: Duration = Duration::from_mins(5);
/// How long the API server may take to serve a kind that was just defined.
const SERVED_DEADLINE: Duration = Duration::from_mins(1);

/// References of the images to deploy, `name:tag`.
#[derive(Clone, Debug)]
pub struct References {
    /// The operator.
    pub operator: String,
    /// The sidecar.
    pub sidecar: String,
    /// The development chain.
    pub devchain: String,
    /// The examples in Python.
    pub example: String,
}

/// The tools and files of a deployment.
pub struct Deployment {
    /// kubectl, bound to the cluster.
    pub kubectl: Kubectl,
    /// Helm.
    pub helm: PathBuf,
    /// The cluster's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The checkout, with `charts/` and `e2e/`.
    pub root: PathBuf,
    /// What to run.
    pub images: References,
}

/// A chart with its values, as Helm takes them.
struct Chart {
    release: &'static str,
    folder: PathBuf,
    values: Vec<String>,
}

impl Deployment {
    /// Installs or upgrades what differs, and waits.
    ///
    /// # Errors
    /// When something is refused or does not become Ready; the error shows what it waited for and the state of the pods.
    pub fn run(&self, progress: &Progress) -> Result<()> {
        let [crds, mycelium] = self.charts()?;
        progress.step("chart mycelium-crds", |step| self.install(step, &crds))?;
        wait_until(SERVED_DEADLINE, "the API server to serve Mycelium's resources", || {
            self.kubectl.run(&["get", "networks,validators,miners", "--all-namespaces", "--output=name"])
        })?;
        progress.step("chart mycelium", |step| self.install(step, &mycelium))?;
        progress.step("deployments", |step| self.wait_for_deployments(step))?;
        let manifest = self.quickstart()?;
        progress.step("quickstart", |step| {
            if self.kubectl.apply_changes(manifest.as_bytes())? {
                step.changed("applied");
            } else {
                step.unchanged("present");
            }
            Ok(())
        })?;
        progress.step("validators and miners", |step| self.wait_for_nodes(step, &manifest))
    }

    /// The table that a user would ask for.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn table(&self) -> Result<String> {
        self.kubectl.run(&["get", "validators,miners", "--all-namespaces"])
    }

    fn charts(&self) -> Result<[Chart; 2]> {
        let e2e = self.root.join("e2e");
        let mut values = vec![format!("--values={}", e2e.join("quickstart.values.yaml").display())];
        values.push(format!("--set-file=devchain.genesis={}", e2e.join("quickstart.genesis.json").display()));
        let images = [
            ("operator", &self.images.operator),
            ("sidecar", &self.images.sidecar),
            ("devchain", &self.images.devchain),
        ];
        for (part, reference) in images {
            let (repository, tag) = split(reference)?;
            values.push(format!("--set-string={part}.image.repository={repository}"));
            values.push(format!("--set-string={part}.image.tag={tag}"));
        }
        values.push("--set=devchain.enabled=true".to_owned());
        let charts = self.root.join("charts");
        Ok([
            Chart { release: "mycelium-crds", folder: charts.join("mycelium-crds"), values: Vec::new() },
            Chart { release: "mycelium", folder: charts.join("mycelium"), values },
        ])
    }

    fn install(&self, step: &Step, chart: &Chart) -> Result<()> {
        step.say("comparing");
        self.forget_unfinished(chart)?;
        if self.is_current(chart)? {
            step.unchanged("installed");
            return Ok(());
        }
        step.say("installing");
        let mut helm = self.helm(&["upgrade", "--install", "--create-namespace"], chart);
        command::run(&mut helm).with_context(|| format!("cannot install the chart `{}`", chart.folder.display()))?;
        step.changed("installed");
        Ok(())
    }

    /// Helm refuses to touch a release that a killed run left half done. Its record goes; what it made is taken over by the next run.
    fn forget_unfinished(&self, chart: &Chart) -> Result<()> {
        let selector = format!(
            "--selector=owner=helm,name={},status in (pending-install,pending-upgrade,pending-rollback)",
            chart.release
        );
        self.kubectl.run(&["delete", "secret", "--namespace", NAMESPACE, &selector, "--ignore-not-found"])?;
        Ok(())
    }

    fn is_current(&self, chart: &Chart) -> Result<bool> {
        let mut get = Command::new(&self.helm);
        get.env("KUBECONFIG", &self.kubeconfig).args(["get", "manifest", chart.release, "--namespace", NAMESPACE]);
        let (status, installed, _) = command::finish(&mut get, &[])?;
        if !status.success() {
            return Ok(false);
        }
        let dry = command::run(&mut self.helm(&["upgrade", "--dry-run=server", "--output=json"], chart))?;
        let dry: Value = serde_json::from_str(&dry).context("helm printed no JSON")?;
        let wanted = dry["manifest"].as_str().context("helm's dry run has no manifest")?;
        Ok(installed.trim() == wanted.trim() && !self.kubectl.differs(wanted.as_bytes()))
    }

    fn helm(&self, words: &[&str], chart: &Chart) -> Command {
        let mut helm = Command::new(&self.helm);
        helm.env("KUBECONFIG", &self.kubeconfig)
            .args(words)
            .args([chart.release, &chart.folder.display().to_string()])
            .args(["--namespace", NAMESPACE])
            .args(&chart.values);
        helm
    }

    fn wait_for_deployments(&self, step: &Step) -> Result<()> {
        let mut waited = false;
        let answer = wait_until(READY_DEADLINE, "the deployments of the chart", || {
            let list = self.kubectl.json(&["get", "deployments", "--namespace", NAMESPACE])?;
            let waiting = unfinished_deployments(&list);
            if waiting.is_empty() {
                return Ok(());
            }
            waited = true;
            let pods = self.kubectl.json(&["get", "pods", "--namespace", NAMESPACE])?;
            let text = [vec![waiting.join(", ")], last_words(&pods)].concat().join("; ");
            step.say(format!("waiting for {text}"));
            bail!("not available: {text}")
        });
        answer.map_err(|error| self.with_pods(&error))?;
        if waited {
            step.changed("available");
        } else {
            step.unchanged("available");
        }
        Ok(())
    }

    /// The quickstart with the examples' image by content, so that a changed example is a changed pod.
    fn quickstart(&self) -> Result<String> {
        let path = self.root.join("e2e/quickstart.yaml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(text.replace(&format!("{}:{}", EXAMPLE.0, EXAMPLE.1), &self.images.example))
    }

    fn wait_for_nodes(&self, step: &Step, manifest: &str) -> Result<()> {
        let mut waited = false;
        let mut count = 0;
        let answer = wait_until(READY_DEADLINE, "validators and miners to be Ready", || {
            let mut get = self.kubectl.command(&["get", "--filename=-", "--output=json"]);
            let list: Value = serde_json::from_str(&command::run_with_input(&mut get, manifest.as_bytes())?)?;
            let nodes = readiness(&list);
            count = nodes.len();
            let waiting: Vec<&String> = nodes.iter().filter_map(|node| node.as_ref().err()).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            waited = true;
            let text = waiting.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join("; ");
            step.say(format!("{} of {count} Ready; {text}", count - waiting.len()));
            bail!("{text}")
        });
        answer.map_err(|error| self.with_pods(&error))?;
        if count == 0 {
            bail!("e2e/quickstart.yaml holds no Validator and no Miner");
        }
        let text = format!("{count} Ready");
        if waited {
            step.changed(text);
        } else {
            step.unchanged(text);
        }
        Ok(())
    }

    /// What a person would look at next.
    fn with_pods(&self, error: &anyhow::Error) -> anyhow::Error {
        let pods = self.kubectl.run(&["get", "pods", "--all-namespaces", "--output=wide"]);
        let warnings =
            ["get", "events", "--all-namespaces", "--field-selector=type=Warning", "--sort-by=.lastTimestamp"];
        let warnings = self.kubectl.run(&warnings).map(|text| command::tail(&text));
        let mut text = format!("{error:#}");
        for part in [pods, warnings] {
            let _ = write!(text, "\n\n{}", part.unwrap_or_else(|error| format!("{error:#}")).trim_end());
        }
        anyhow::Error::msg(text)
    }
}

/// What to do with a cluster that is up.
pub fn how_to_use(kubeconfig: &Path, bin: &Path) -> String {
    let (kubeconfig, bin) = (kubeconfig.display(), bin.display());
    format!(
        "Use it:\n  \
         export KUBECONFIG={kubeconfig} PATH={bin}:$PATH\n  \
         kubectl get networks                                      the chain, the group and its leader\n  \
         kubectl -n quickstart describe validator val-1            what the chain and the group say of one node\n  \
         kubectl -n quickstart logs validator-val-1 -c validator   what the example's own code prints\n  \
         kubectl explain validator.spec                            how to write your own\n\
         Go on:\n  \
         e2e/quickstart.yaml and python/examples/ are what runs: change them and `make up` again\n  \
         README.md has a tour; `make test` runs every test; `make down` removes everything\n"
    )
}

fn split(reference: &str) -> Result<(&str, &str)> {
    reference.rsplit_once(':').with_context(|| format!("image `{reference}` has no tag"))
}

fn unfinished_deployments(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .filter(|item| {
            let wanted = item["spec"]["replicas"].as_u64().unwrap_or(1);
            let status = &item["status"];
            let seen = status["observedGeneration"] == item["metadata"]["generation"];
            let count = |field: &str| status[field].as_u64().unwrap_or(0);
            !(seen
                && count("updatedReplicas") >= wanted
                && count("availableReplicas") >= wanted
                && count("replicas") <= wanted)
        })
        .map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// What the containers that fail said when they ended.
fn last_words(pods: &Value) -> Vec<String> {
    let items = pods["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let containers = items.iter().flat_map(|pod| {
        let of = |field: &str| pod["status"][field].as_array().map(Vec::as_slice).unwrap_or_default();
        of("initContainerStatuses").iter().chain(of("containerStatuses")).map(move |container| (pod, container))
    });
    containers
        .filter(|(_, container)| container["state"]["running"].is_null())
        .filter_map(|(pod, container)| {
            let ended = [&container["state"]["terminated"], &container["lastState"]["terminated"]];
            let message = ended.iter().find_map(|ended| ended["message"].as_str())?;
            let line = message.trim_end().lines().next_back()?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Some(format!("{} of {} said: {line}", text(&container["name"]), text(&pod["metadata"]["name"])))
        })
        .collect()
}

/// For each Validator and Miner of a list: that it is Ready, and a Validator also in the group, or why not.
fn readiness(list: &Value) -> Vec<Result<(), String>> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let nodes = items.iter().filter(|item| item["kind"] == "Validator" || item["kind"] == "Miner");
    nodes
        .map(|node| {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let Some(ready) = conditions.iter().find(|condition| condition["type"] == "Ready") else {
                return Err(format!("{name}: not seen by the operator yet"));
            };
            // A condition of an older generation speaks of what the object was.
            let current = node["status"]["observedGeneration"].as_u64() >= node["metadata"]["generation"].as_u64();
            if ready["status"] == "True" && current {
                // The group is founded by pods that are Ready, and the table at the end is to show who leads it.
                let role = node["status"]["group"]["role"].as_str().unwrap_or("outside");
                if node["kind"] == "Validator" && role == "outside" {
                    return Err(format!("{name}: joins the group"));
                }
                return Ok(());
            }
            let text = |field: &str| ready[field].as_str().unwrap_or_default();
            Err(format!("{name}: {} {}", text("reason"), text("message")).trim_end().to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    fn node(kind: &str, generation: u64, observed: u64, ready: &str) -> Value {
        json!({
            "kind": kind,
            "metadata": { "name": "val-1", "generation": generation },
            "status": {
                "observedGeneration": observed,
                "group": { "role": "follower" },
                "conditions": [{ "type": "Ready", "status": ready, "reason": "PodPending", "message": "waiting" }],
            },
        })
    }

    #[test]
    fn ready_counts_for_the_current_generation_only() {
        let list = |node: Value| json!({ "items": [node, { "kind": "Secret" }] });
        assert_eq!(readiness(&list(node("Validator", 2, 2, "True"))), [Ok(())]);
        assert!(readiness(&list(node("Miner", 2, 1, "True")))[0].is_err());
        assert_eq!(readiness(&list(node("Miner", 1, 1, "False"))), [Err("val-1: PodPending waiting".to_owned())]);
        let fresh = json!({ "kind": "Validator", "metadata": { "name": "val-1" } });
        assert!(readiness(&list(fresh))[0].as_ref().unwrap_err().contains("not seen"));
        let mut outside = node("Validator", 1, 1, "True");
        outside["status"]["group"]["role"] = json!("outside");
        assert!(readiness(&list(outside.clone()))[0].as_ref().unwrap_err().contains("joins"));
        outside["kind"] = json!("Miner");
        assert_eq!(readiness(&list(outside)), [Ok(())]);
    }

    #[test]
    fn a_container_that_keeps_ending_is_quoted() {
        let pods = |state: Value| {
            json!({ "items": [{ "metadata": { "name": "devchain-1" }, "status": { "containerStatuses": [{
                "name": "devchain",
                "state": state,
                "lastState": { "terminated": { "exitCode": 1, "message": "starting\nanother genesis\n" } },
            }] } }] })
        };
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        assert_eq!(last_words(&pods(waiting)), ["devchain of devchain-1 said: another genesis"]);
        assert!(last_words(&pods(json!({ "running": {} }))).is_empty());
        assert!(last_words(&json!({ "items": [{ "metadata": { "name": "new" } }] })).is_empty());
    }

    #[test]
    fn a_deployment_is_finished_when_the_new_pods_are_available_and_the_old_ones_gone() {
        let deployment = |generation: u64, updated: u64, available: u64, replicas: u64| {
            json!({ "items": [{
                "metadata": { "name": "operator", "generation": generation },
                "spec": { "replicas": 1 },
                "status": {
                    "observedGeneration": 1,
                    "updatedReplicas": updated,
                    "availableReplicas": available,
                    "replicas": replicas,
                },
            }] })
        };
        assert!(unfinished_deployments(&deployment(1, 1, 1, 1)).is_empty());
        for unfinished in
            [deployment(2, 1, 1, 1), deployment(1, 0, 1, 1), deployment(1, 1, 0, 1), deployment(1, 1, 1, 2)]
        {
            assert_eq!(unfinished_deployments(&unfinished), ["operator"]);
        }
    }

    /// A deployment whose helm and kubectl write down their calls; helm has the manifest `installed` and would install `wanted`.
    fn recorded(folder: &Path, installed: Option<&str>, wanted: &str, differs: bool) -> Deployment {
        let calls = folder.join("calls");
        let get = installed.map_or_else(|| "exit 1".to_owned(), |manifest| format!("echo '{manifest}'"));
        let helm = format!(
            "#!/bin/sh\necho \"helm $@\" >>{calls}\ncase \"$*\" in *dry-run*) echo '{{\"manifest\":\"{wanted}\"}}';; get*) {get};; esac\n",
            calls = calls.display()
        );
        let kubectl = format!(
            "#!/bin/sh\necho \"kubectl $@\" >>{}\ncat >/dev/null\n[ $1 != diff ] || exit {}\n",
            calls.display(),
            i32::from(differs)
        );
        for (name, script) in [("helm", helm), ("kubectl", kubectl)] {
            fs::write(folder.join(name), script).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let image = |name: &str| format!("mycelium/{name}:abc");
        Deployment {
            kubectl: Kubectl::new(folder.join("kubectl"), folder.join("config")),
            helm: folder.join("helm"),
            kubeconfig: folder.join("config"),
            root: PathBuf::from("/checkout"),
            images: References {
                operator: image("operator"),
                sidecar: image("sidecar"),
                devchain: image("devchain"),
                example: image("example"),
            },
        }
    }

    fn installs(installed: Option<&str>, wanted: &str, differs: bool) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let deployment = recorded(folder.path(), installed, wanted, differs);
        let [_, chart] = deployment.charts().unwrap();
        Progress::new().step("chart", |step| deployment.install(step, &chart)).unwrap();
        let calls = fs::read_to_string(folder.path().join("calls")).unwrap();
        calls.lines().find(|call| call.starts_with("helm upgrade --install")).map(str::to_owned)
    }

    #[test]
    fn a_chart_that_is_installed_as_it_should_be_is_left_alone() {
        assert_eq!(installs(Some("kind: A"), "kind: A", false), None);
    }

    #[test]
    fn a_missing_a_changed_and_an_edited_chart_are_installed_with_the_images_tags() {
        for call in [
            installs(None, "kind: A", false),
            installs(Some("kind: B"), "kind: A", false),
            installs(Some("kind: A"), "kind: A", true),
        ] {
            let call = call.unwrap();
            for part in [
                "mycelium /checkout/charts/mycelium",
                "sidecar.image.tag=abc",
                "devchain.enabled=true",
                "--namespace mycelium-system",
            ] {
                assert!(call.contains(part), "{part} in {call}");
            }
        }
    }
}
