//! The cluster of plain processes itself: volumes, names, isolation, a start that changes nothing, and a start that repairs.
//!
//! These run on the cluster that `make up` left running, and need it to be one of processes, not of kind.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{kubectl::Kubectl, wait::wait_until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(2);

/// A pod of the examples' image that runs a Python program under the strictest rules for pods.
fn python_pod(name: &str, program: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "fsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "python",
                "image": "mycelium/example:dev",
                "command": ["python3", "-c", program],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": { "drop": ["ALL"] },
                    "readOnlyRootFilesystem": true,
                },
            }],
        },
    })
}

fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": name },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "16Mi" } } },
    })
}

fn apply(kubectl: &Kubectl, namespace: &str, mut objects: Vec<Value>) -> Result<()> {
    for object in &mut objects {
        object["metadata"]["namespace"] = json!(namespace);
    }
    kubectl.apply(&serde_json::to_vec(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }))?)?;
    Ok(())
}

fn wait_for_phase(kubectl: &Kubectl, namespace: &str, pod: &str, wanted: &str) -> Result<()> {
    wait_until(PATIENCE, &format!("pod {pod} to be {wanted}"), || {
        let found = kubectl.json(&["--namespace", namespace, "get", "pod", pod])?;
        let phase = found["status"]["phase"].as_str().unwrap_or_default().to_owned();
        let log = || kubectl.run(&["--namespace", namespace, "logs", pod]).unwrap_or_default();
        ensure!(phase == wanted, "{phase}: {} {}", found["status"]["containerStatuses"], log());
        Ok(())
    })
}

/// `mycelium-cluster` with these words; what it said.
fn cluster(words: &[&str]) -> Result<String> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(env!("CARGO_BIN_EXE_mycelium-cluster"))
        .args(words)
        .env("CLUSTER", "local")
        .current_dir(checkout)
        .output()
        .context("cannot run mycelium-cluster")?;
    let said = String::from_utf8([output.stderr, output.stdout].concat())?;
    ensure!(output.status.success(), "{said}");
    Ok(said)
}

/// The id of a process of the cluster, by its line in `status`.
fn process(name: &str) -> Result<String> {
    let status = cluster(&["status"])?;
    let line = status.lines().find(|line| line.split_whitespace().next() == Some(name));
    let pid =
        line.and_then(|line| line.split_whitespace().nth(1)).with_context(|| format!("no {name} in\n{status}"))?;
    Ok(pid.to_owned())
}

#[test]
#[ignore = "needs a cluster"]
fn a_volume_can_be_written_by_the_pods_group_and_goes_with_its_claim() -> Result<()> {
    let kubectl = Kubectl::of_running_cluster()?;
    let namespace = kubectl.namespace("volumes")?;
    let ns = namespace.name();
    let mut pod = python_pod("writer", "open('/data/x', 'w').write('kept')");
    pod["spec"]["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    apply(&kubectl, ns, vec![claim("data"), pod.clone()])?;
    wait_for_phase(&kubectl, ns, "writer", "Succeeded")?;
    let volume = kubectl.run(&["-n", ns, "get", "pvc", "data", "--output=jsonpath={.spec.volumeName}"])?;

    // Another pod finds what the first one wrote.
    kubectl.run(&["-n", ns, "delete", "pod", "writer"])?;
    pod["metadata"]["name"] = json!("reader");
    pod["spec"]["containers"][0]["command"] = json!(["python3", "-c", "assert open('/data/x').read() == 'kept'"]);
    apply(&kubectl, ns, vec![pod])?;
    wait_for_phase(&kubectl, ns, "reader", "Succeeded")?;

    let folder = kubectl.run(&["get", "pv", &volume, "--output=jsonpath={.spec.local.path}"])?;
    ensure!(Path::new(&folder).join("x").exists(), "{folder} holds what the pod wrote");
    kubectl.run(&["-n", ns, "delete", "pod", "reader"])?;
    kubectl.run(&["-n", ns, "delete", "pvc", "data"])?;
    wait_until(PATIENCE, "the volume to be gone", || {
        let left = kubectl.run(&["get", "pv", &volume, "--ignore-not-found", "--output=name"])?;
        ensure!(left.is_empty(), "still there: {left}");
        Ok(())
    })?;
    ensure!(!Path::new(&folder).exists(), "{folder} is gone with its volume");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn a_volume_to_be_retained_keeps_its_data_when_its_claim_goes() -> Result<()> {
    let kubectl = Kubectl::of_running_cluster()?;
    let namespace = kubectl.namespace("retain")?;
    let ns = namespace.name();
    let mut pod = python_pod("writer", "open('/data/x', 'w').write('kept')");
    pod["spec"]["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    apply(&kubectl, ns, vec![claim("data"), pod])?;
    wait_for_phase(&kubectl, ns, "writer", "Succeeded")?;
    let volume = kubectl.run(&["-n", ns, "get", "pvc", "data", "--output=jsonpath={.spec.volumeName}"])?;
    let folder = kubectl.run(&["get", "pv", &volume, "--output=jsonpath={.spec.local.path}"])?;
    kubectl.run(&["patch", "pv", &volume, "--patch", r#"{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}"#])?;
    kubectl.run(&["-n", ns, "delete", "pod/writer", "pvc/data"])?;
    wait_until(PATIENCE, "the volume to be released", || {
        let phase = kubectl.run(&["get", "pv", &volume, "--output=jsonpath={.status.phase}"])?;
        ensure!(phase == "Released", "{phase}");
        Ok(())
    })?;
    ensure!(Path::new(&folder).join("x").exists(), "{folder} keeps what the pod wrote");
    kubectl.run(&["delete", "pv", &volume])?;
    ensure!(Path::new(&folder).join("x").exists(), "deleting the volume by hand does not delete the data either");
    std::fs::remove_dir_all(&folder).context("cannot tidy up")
}

#[test]
#[ignore = "needs a cluster"]
fn pods_find_each_other_by_name_and_find_no_way_off_the_machine() -> Result<()> {
    let kubectl = Kubectl::of_running_cluster()?;
    let namespace = kubectl.namespace("names")?;
    let ns = namespace.name();
    let server = python_pod("server", "import http.server as s; s.test(s.SimpleHTTPRequestHandler, port=8080)");
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "server" },
        "spec": { "selector": { "app": "server" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    // The address is of a range for documentation: nobody is there, and nothing would answer but a time-out if it were tried.
    let client = format!(
        r#"
import errno, socket, time, urllib.request
deadline = time.time() + 60
while True:
    try:
        assert urllib.request.urlopen("http://server.{ns}.svc/", timeout=5).status == 200
        break
    except OSError as error:
        print(error, flush=True)
        assert time.time() < deadline
        time.sleep(1)
try:
    socket.create_connection(("198.51.100.1", 443), timeout=10)
except OSError as error:
    assert error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH), error
else:
    raise SystemExit("reached an address off the machine")
try:
    socket.getaddrinfo("example.com", 443)
except socket.gaierror as error:
    print("as it should be:", error)
else:
    raise SystemExit("resolved a name off the machine")
"#
    );
    apply(&kubectl, ns, vec![server, service, python_pod("client", &client)])?;
    wait_for_phase(&kubectl, ns, "client", "Succeeded")
}

#[test]
#[ignore = "needs a cluster"]
fn a_second_start_changes_nothing_and_says_so() -> Result<()> {
    cluster(&["start"])?;
    let begun = Instant::now();
    let said = cluster(&["start"])?;
    ensure!(said.contains("nothing was changed"), "{said}");
    ensure!(begun.elapsed() < Duration::from_mins(1), "it took {:?}", begun.elapsed());
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn killed_processes_are_started_again_and_pods_go_on() -> Result<()> {
    let kubectl = Kubectl::of_running_cluster()?;
    let namespace = kubectl.namespace("repair")?;
    let ns = namespace.name();
    apply(&kubectl, ns, vec![python_pod("bystander", "import time; time.sleep(3600)")])?;
    wait_for_phase(&kubectl, ns, "bystander", "Running")?;
    let container = || {
        let path =
            "--output=jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
        kubectl.run(&["-n", ns, "get", "pod", "bystander", path])
    };
    let before = container()?;
    cluster(&["start"])?;
    let killed = ["kube-apiserver", "containerd-mycelium-1", "kubelet-mycelium-1"];
    let untouched = ["etcd", "kube-proxy", "coredns"].map(|name| process(name).map(|pid| (name, pid)));
    for name in killed {
        let done = Command::new("kill").args(["-KILL", &process(name)?]).status().context("cannot kill")?;
        ensure!(done.success(), "cannot kill {name}");
    }
    let said = cluster(&["start"])?;
    for name in killed {
        ensure!(
            said.contains(&format!("started {name}")) || said.contains("kube-apiserver: started"),
            "{name}: {said}"
        );
    }
    for entry in untouched {
        let (name, pid) = entry?;
        if process(name)? != pid {
            bail!("{name} was restarted although nothing was wrong with it");
        }
    }
    wait_until(PATIENCE, "the pod to be reachable again", || {
        kubectl.run(&["-n", ns, "exec", "bystander", "--", "python3", "-c", "print()"])
    })?;
    ensure!(container()? == before, "the container of the pod is the same");
    Ok(())
}
