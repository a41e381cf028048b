//! The end of a Validator, and the hotkey that only one may run.

use anyhow::{Result, ensure};
use e2e::wait::wait_until;
use serde_json::{Value, json};

use crate::world::{PATIENCE, World, condition_of};

/// A hotkey that is not registered on the chain: enough to be run, not enough to count.
const SEED: &str = "0xe9ecedcda6b9c180b58e5c2ea24c253ca5262500fe1c2ac8b3bd3f07f2aa9e94";
pub(crate) const HOTKEY: &str = "5ConhHUvVYDhRdMXfVrzW3tV14EG2mbAS7ixr2cjdnNpW3c4";

/// A Secret with that hotkey, and a Validator of it.
pub(crate) fn manifest(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": [secret(namespace), validator(namespace, name)] })
}

/// A Secret `hotkey` with that hotkey.
pub(crate) fn secret(namespace: &str) -> Value {
    let file = format!(r#"{{"secretSeed": "{SEED}", "ss58Address": "{HOTKEY}"}}"#);
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "hotkey", "namespace": namespace }, "stringData": { "hotkey": file },
    })
}

/// A Validator whose hotkey is in the Secret `hotkey`.
pub(crate) fn validator(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "mycelium.network/v1alpha1", "kind": "Validator",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "hotkeySecretRef": { "name": "hotkey" },
            "storage": { "size": "64Mi" },
            "template": { "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main", "image": "mycelium/example:dev", "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-c", "import time; time.sleep(1e6)"],
                }],
            } },
        },
    })
}

#[test]
#[ignore = "needs a cluster"]
fn a_deleted_validator_takes_all_with_it_but_its_volume_and_a_second_runner_is_refused() -> Result<()> {
    let world = World::at_rest()?;
    let first = world.kubectl.namespace("first")?;
    let second = world.kubectl.namespace("second")?;
    let get = |namespace: &str, object: &str| world.kubectl.json(&["--namespace", namespace, "get", object]);
    world.kubectl.apply(manifest(first.name(), "one").to_string().as_bytes())?;
    wait_until(PATIENCE, "the pod of the first", || {
        let pod = get(first.name(), "pod/validator-one")?;
        ensure!(pod["status"]["phase"] == "Running", "{}", pod["status"]["phase"]);
        Ok(())
    })?;
    let (status, reason, message) = condition_of(&get(first.name(), "validator/one")?, "Registered")?;
    ensure!((status.as_str(), reason.as_str()) == ("False", "NotRegistered"), "{status} {reason}: {message}");

    world.kubectl.apply(manifest(second.name(), "two").to_string().as_bytes())?;
    wait_until(PATIENCE, "the second to be refused by name", || {
        let (status, reason, message) = condition_of(&get(second.name(), "validator/two")?, "HotkeyReserved")?;
        ensure!((status.as_str(), reason.as_str()) == ("False", "HotkeyTaken"), "{status} {reason}");
        let holder = format!("Validator {}/one", first.name());
        ensure!(message.contains(&holder), "{message} does not name {holder}");
        Ok(())
    })?;
    ensure!(get(second.name(), "pod/validator-two").is_err(), "the second has no pod");
    let told = world.events(second.name(), "two")?;
    ensure!(told.iter().any(|event| event.starts_with("HotkeyTaken: ")), "{told:?}");

    world.run(&["--namespace", first.name(), "delete", "validator/one", "--timeout=60s"])?;
    wait_until(PATIENCE, "all that it owned to be gone", || {
        for object in
            ["pod", "service", "serviceaccount", "role", "rolebinding"].map(|kind| format!("{kind}/validator-one"))
        {
            ensure!(get(first.name(), &object).is_err(), "{object} is still there");
        }
        Ok(())
    })?;
    get(first.name(), "persistentvolumeclaim/state-validator-one")?;
    wait_until(PATIENCE, "the second to take its place", || {
        let pod = get(second.name(), "pod/validator-two")?;
        ensure!(pod["status"]["phase"] == "Running", "{}", pod["status"]["phase"]);
        Ok(())
    })?;
    world.run(&["--namespace", second.name(), "delete", "validator/two", "--timeout=60s"])?;
    Ok(())
}
