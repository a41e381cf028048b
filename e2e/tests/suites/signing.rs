//! Who signs: a container through its sidecar, and of two sidecars with one hotkey the one that holds the Lease.

use anyhow::{Context as _, Result, ensure};
use e2e::daemon;
use e2e::wait::wait_until;
use rustix::process::Signal;
use serde_json::{Value, json};
use sidecar_metagraph::keys::verify;
use sidecar_util::Hotkey;

use crate::deletion::{HOTKEY, secret};
use crate::world::{NAMESPACE, PATIENCE, World, condition_of};

/// Posts JSON to the sidecar of the pod; what every script below begins with.
const ASK: &str = r#"
import http.client, json, os, socket, sys, time
class Socket(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(os.environ["MYCELIUM_SOCKET"])
def ask(path, body, key=None):
    connection = Socket("sidecar")
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())
"#;

/// Asks from inside a container of the quickstart.
fn ask(world: &World, (pod, container): (&str, &str), path: &str, body: &Value, key: &str) -> Result<Value> {
    let script = format!("{ASK}\nprint(json.dumps(ask(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3])))");
    let exec = ["--namespace", NAMESPACE, "exec", pod, "--container", container, "--", "python3", "-c", &script];
    let text = world.run(&[&exec[..], &[path, &body.to_string(), key]].concat())?;
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
    ensure!(answer[0] == 200, "{path}: {answer}");
    Ok(answer[1].clone())
}

#[test]
#[ignore = "needs a cluster"]
fn the_container_of_a_miner_signs_and_publishes_through_its_socket_and_what_it_sent_outlives_the_pod() -> Result<()> {
    let world = World::at_rest()?;
    let container = ("miner-miner-2", "miner");
    // Unique to this run: a chain that stays up has seen those of the last one.
    let key = format!("suite-{}", std::process::id());
    wait_until(PATIENCE, "the sidecar to hold the Lease", || {
        world.expect_condition("miner", "miner-2", "SignerHeld", "True")
    })?;
    let signed = ask(&world, container, "/v1/sign", &json!({ "domain": "bytes", "text": "hello" }), &key)?;
    let hotkey: Hotkey = world.get("miner", "miner-2")?["status"]["hotkey"].as_str().context("no hotkey")?.parse()?;
    let signature = hex::decode(signed["signature"].as_str().unwrap_or_default().trim_start_matches("0x"))?;
    let signature = signature.as_slice().try_into().context("a signature has 64 bytes")?;
    ensure!(verify(&hotkey, b"<Bytes>hello</Bytes>", signature), "{signed}");

    let lease = lease_of(&world, NAMESPACE, &hotkey.to_string())?;
    nothing_under_way(&world, NAMESPACE, &lease)?;
    let ip = world.get("pod", container.0)?["status"]["podIP"].clone();
    ask(&world, container, "/v1/axon", &json!({ "ip": ip, "port": 8091 }), &key)?;
    wait_until(PATIENCE, "the axon in status", || {
        let endpoint = world.get("miner", "miner-2")?["status"]["neuron"]["axon"]["endpoint"].clone();
        ensure!(endpoint == format!("{}:8091", ip.as_str().unwrap_or_default()), "{endpoint} instead of {ip}");
        world.expect_condition("miner", "miner-2", "AxonPublished", "True")
    })?;

    let commit = || ask(&world, container, "/v1/commitments", &json!({ "text": "a suite was here" }), &key);
    let before = commit()?;
    ensure!(before["finalized"] == true && before["extrinsic"].is_string(), "{before}");
    let uid = || -> Result<Value> { Ok(world.get("pod", container.0)?["metadata"]["uid"].clone()) };
    let old = uid()?;
    world.run(&["--namespace", NAMESPACE, "delete", "pod", container.0])?;
    wait_until(PATIENCE, "the next pod", || {
        ensure!(uid()? != old, "still the old one");
        world.run(&["--namespace", NAMESPACE, "wait", "--for=condition=Ready", "--timeout=1s", "pod", container.0])
    })?;
    wait_until(PATIENCE, "the next sidecar to hold the Lease", || {
        ask(&world, container, "/v1/sign", &json!({ "domain": "bytes", "text": "again" }), "again")
    })?;
    let after = commit()?;
    ensure!(after == before, "sent again: {after} after {before}");
    Ok(())
}

/// Name of the other pod.
const TWIN: &str = "twin";
/// The operator's pod.
const FIRST: &str = "miner-one";

/// Asks for a signature ten times a second, and says when each one was asked for.
const SIGN_ALL_THE_TIME: &str = r#"
said = None
while True:
    begun = time.time()
    try:
        status, answer = ask("/v1/sign", {"domain": "bytes", "text": str(begun)})
        word = "signed" if status == 200 else answer.get("reason", answer["type"])
    except OSError as error:
        word = "silent"
    if word == "signed":
        print("signed", begun, answer["epoch"], flush=True)
    elif word != said:
        print("refused", word, flush=True)
    said = word
    time.sleep(0.1)
"#;

/// A Miner whose container signs all the time.
fn miner(namespace: &str) -> Value {
    json!({
        "apiVersion": "mycelium.network/v1alpha1", "kind": "Miner",
        "metadata": { "name": "one", "namespace": namespace },
        "spec": {
            "hotkeySecretRef": { "name": "hotkey" },
            "storage": { "size": "64Mi", "retention": "Delete" },
            "template": { "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main", "image": "mycelium/example:dev", "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-c", format!("{ASK}{SIGN_ALL_THE_TIME}")],
                }],
            } },
        },
    })
}

/// Two pods with one hotkey, one Lease and one ServiceAccount.
struct Pair<'a> {
    world: &'a World,
    namespace: &'a str,
}

impl Pair<'_> {
    fn get(&self, object: &str) -> Result<Value> {
        self.world.kubectl.json(&["--namespace", self.namespace, "get", object])
    }

    fn log(&self, pod: &str) -> Result<String> {
        self.world.run(&["--namespace", self.namespace, "logs", pod, "--container=main"])
    }

    /// When each signature of a pod was asked for, with the epoch of the Lease under which it was made.
    fn signatures(&self, pod: &str) -> Result<Vec<(u64, f64)>> {
        let log = self.log(pod)?;
        let signed = log.lines().filter_map(|line| line.strip_prefix("signed "));
        signed
            .map(|line| {
                let (begun, epoch) = line.split_once(' ').with_context(|| format!("`{line}`"))?;
                Ok((epoch.parse()?, begun.parse()?))
            })
            .collect()
    }

    /// Epoch under which a pod signed last; none is 0.
    fn epoch(&self, pod: &str) -> Result<u64> {
        Ok(self.signatures(pod)?.last().map_or(0, |(epoch, _)| *epoch))
    }

    /// Sends a signal to the sidecar of a pod. From the machine itself: in a container the first process takes none to stop.
    fn signal(&self, pod: &str, signal: Signal) -> Result<()> {
        let containers = self.world.containers(self.namespace, pod)?;
        let (_, id, _) = containers.iter().find(|(name, ..)| name == "sidecar").context("no sidecar")?;
        let (_, id) = id.split_once("://").with_context(|| format!("the sidecar's container is `{id}`"))?;
        let is_sidecar = |pid: &i32| {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            read("comm").starts_with("mycelium-sidec") && read("cgroup").contains(id)
        };
        let pid = daemon::all_pids().into_iter().find(is_sidecar).with_context(|| format!("no process of {id}"))?;
        daemon::signal(pid, signal);
        Ok(())
    }

    fn signs_after(&self, pod: &str, epoch: u64) -> Result<u64> {
        wait_until(PATIENCE, &format!("{pod} to sign"), || {
            let now = self.epoch(pod)?;
            ensure!(now > epoch, "epoch {now}: {:?}", self.log(pod)?.lines().next_back());
            Ok(now)
        })
    }

    fn is_refused(&self, pod: &str) -> Result<()> {
        wait_until(PATIENCE, &format!("{pod} to be refused"), || {
            let log = self.log(pod)?;
            ensure!(log.lines().next_back() == Some("refused HeldByAnother"), "{:?}", log.lines().next_back());
            Ok(())
        })
    }

    fn holder(&self, lease: &str) -> Result<String> {
        let lease = self.get(&format!("lease/{lease}"))?;
        let identity = lease["spec"]["holderIdentity"].as_str().context("nobody holds the Lease")?;
        Ok(identity.split('_').next().unwrap_or_default().to_owned())
    }
}

/// Name of the Lease of a hotkey.
fn lease_of(world: &World, namespace: &str, hotkey: &str) -> Result<String> {
    let selector = format!("mycelium.network/hotkey={hotkey}");
    let leases = world.kubectl.json(&["--namespace", namespace, "get", "leases", "--selector", &selector])?;
    Ok(leases["items"][0]["metadata"]["name"].as_str().context("there is no Lease yet")?.to_owned())
}

/// Waits until nothing that was signed under a Lease can still enter the chain. After a first start nobody knows what was, so
/// extrinsics wait longer than messages.
fn nothing_under_way(world: &World, namespace: &str, lease: &str) -> Result<()> {
    wait_until(PATIENCE, "the Lease to say that nothing is under way", || {
        let lease = world.kubectl.json(&["--namespace", namespace, "get", "lease", lease])?;
        let until = &lease["metadata"]["annotations"]["mycelium.network/signed-until-block"];
        ensure!(until.is_null(), "until block {until}");
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster"]
fn of_two_pods_with_one_hotkey_one_signs_and_the_other_takes_over_when_it_is_paused_or_killed() -> Result<()> {
    let world = World::at_rest()?;
    let namespace = world.kubectl.namespace("lease")?;
    let pair = Pair { world: &world, namespace: namespace.name() };
    let manifest = json!({
        "apiVersion": "v1", "kind": "List", "items": [secret(namespace.name()), miner(namespace.name())],
    });
    world.kubectl.apply(manifest.to_string().as_bytes())?;
    let mut epoch = pair.signs_after(FIRST, 0)?;
    let lease = lease_of(&world, namespace.name(), HOTKEY)?;
    ensure!(pair.holder(&lease)? == FIRST, "the Lease names {}", pair.holder(&lease)?);
    wait_until(PATIENCE, "the Miner to say that it signs", || {
        let (status, reason, message) = condition_of(&pair.get("miner/one")?, "SignerHeld")?;
        ensure!(status == "True", "{status} {reason}: {message}");
        Ok(())
    })?;

    // What no operator makes and people do: the same pod once more. It has the first one's ServiceAccount and Secret.
    let mut twin = pair.get(&format!("pod/{FIRST}"))?;
    let mut spec = twin["spec"].take();
    drop(spec.as_object_mut().map(|spec| spec.remove("nodeName")));
    for volume in
        spec["volumes"].as_array_mut().into_iter().flatten().filter(|volume| volume["name"] == "mycelium-state")
    {
        *volume = json!({ "name": "mycelium-state", "emptyDir": {} });
    }
    let metadata = json!({ "name": TWIN, "namespace": namespace.name() });
    let twin = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
    world.kubectl.apply(twin.to_string().as_bytes())?;
    pair.is_refused(TWIN)?;

    // Paused, it keeps all it knows, and believes that it holds the Lease when it goes on. The Lease is taken before the kubelet
    // misses it: 15 seconds against three probes.
    nothing_under_way(&world, namespace.name(), &lease)?;
    let containers = world.containers(namespace.name(), FIRST)?;
    pair.signal(FIRST, Signal::STOP)?;
    let taken = wait_until(PATIENCE, "the Lease to be taken", || {
        let holder = pair.holder(&lease)?;
        ensure!(holder == TWIN, "it names {holder}");
        Ok(())
    });
    pair.signal(FIRST, Signal::CONT)?;
    taken?;
    ensure!(world.containers(namespace.name(), FIRST)? == containers, "it was killed before it went on");
    pair.is_refused(FIRST)?;
    epoch = pair.signs_after(TWIN, epoch)?;

    // Killed, it gives nothing back, and its successor in the same container is not taken for it.
    pair.signal(TWIN, Signal::KILL)?;
    epoch = pair.signs_after(FIRST, epoch)?;
    pair.is_refused(TWIN)?;
    ensure!(pair.holder(&lease)? == FIRST, "the Lease names {}", pair.holder(&lease)?);

    // Told to stop, it gives the Lease back: who waits need not wait until it lapses.
    let first = pair.signatures(FIRST)?;
    let suspend = r#"--patch={"spec":{"suspend":true}}"#;
    world.run(&["--namespace", namespace.name(), "patch", "miner", "one", "--type=merge", suspend])?;
    pair.signs_after(TWIN, epoch)?;
    let second = pair.signatures(TWIN)?;
    for (one, other) in [(&first, &second), (&second, &first)] {
        for (epoch, begun) in one {
            ensure!(!other.iter().any(|(theirs, _)| theirs == epoch), "both signed in epoch {epoch}");
            let late = other.iter().find(|(theirs, at)| theirs > epoch && at < begun);
            ensure!(late.is_none(), "signed in epoch {epoch} at {begun}, after {late:?} of the other");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn a_sidecar_may_renew_its_lease_and_nothing_else_and_what_is_taken_from_it_comes_back() -> Result<()> {
    let world = World::at_rest()?;
    let namespace = world.kubectl.namespace("rights")?;
    let ns = namespace.name();
    let manifest = json!({ "apiVersion": "v1", "kind": "List", "items": [secret(ns), miner(ns)] });
    world.kubectl.apply(manifest.to_string().as_bytes())?;
    let pair = Pair { world: &world, namespace: ns };
    let epoch = pair.signs_after(FIRST, 0)?;
    let lease = lease_of(&world, ns, HOTKEY)?;
    let may = |verb: &str, object: &str| -> Result<bool> {
        let account = format!("--as=system:serviceaccount:{ns}:{FIRST}");
        // It ends with 1 where the answer is no.
        let answer = world.kubectl.command(&["--namespace", ns, "auth", "can-i", verb, object, &account]).output()?;
        Ok(String::from_utf8_lossy(&answer.stdout).trim() == "yes")
    };
    let own = format!("leases/{lease}");
    for (verb, object, expected) in [
        ("get", own.as_str(), true),
        ("update", &own, true),
        ("delete", &own, false),
        ("get", "leases/another", false),
        ("update", "leases/another", false),
        ("create", "leases", false),
        ("list", "leases", false),
        ("get", "secrets/hotkey", false),
        ("get", "pods", false),
    ] {
        ensure!(may(verb, object)? == expected, "{verb} {object} is to be {expected}");
    }

    // Without its right, or its Lease, it stops and says so; the operator hears it and puts back what is missing.
    for object in [format!("role/{FIRST}"), format!("rolebinding/{FIRST}"), format!("lease/{lease}")] {
        let uid = || -> Result<Value> { Ok(pair.get(&object)?["metadata"]["uid"].clone()) };
        let before = uid()?;
        world.run(&["--namespace", ns, "delete", &object])?;
        wait_until(PATIENCE, &format!("{object} to be made again"), || {
            ensure!(uid()? != before, "still the old one");
            Ok(())
        })?;
    }
    // The new Lease counts from the start, this process does not.
    pair.signs_after(FIRST, epoch)?;
    ensure!(pair.holder(&lease)? == FIRST, "the Lease names {}", pair.holder(&lease)?);
    Ok(())
}
