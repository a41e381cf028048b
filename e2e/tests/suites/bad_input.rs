//! Everything that can be wrong with a manifest is told, with its remedy, and touches nothing else.

use anyhow::{Result, ensure};
use e2e::wait::wait_until;
use serde_json::{Value, json};

use crate::deletion::validator;
use crate::world::{PATIENCE, World, condition_of};

/// Fails unless the API server refuses the manifest with all of these words.
fn refused(world: &World, manifest: &Value, words: &[&str]) -> Result<()> {
    // As a user does it: validation is on, and nothing is forced.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("manifest.json");
    std::fs::write(&file, manifest.to_string())?;
    match world.run(&["apply", "--filename", &file.display().to_string()]) {
        Ok(_) => anyhow::bail!("accepted: {manifest}"),
        Err(error) => {
            let text = format!("{error:#}");
            for word in words {
                ensure!(text.contains(word), "`{text}` lacks `{word}`");
            }
            Ok(())
        }
    }
}

fn change(mut manifest: Value, change: impl FnOnce(&mut Value)) -> Value {
    change(&mut manifest);
    manifest
}

#[test]
#[ignore = "needs a cluster"]
fn the_api_server_refuses_what_the_schema_and_its_rules_can_see() -> Result<()> {
    let world = World::at_rest()?;
    let namespace = world.kubectl.namespace("refused")?;
    let good = || validator(namespace.name(), "v");
    refused(&world, &change(good(), |v| v["spec"]["coldKey"] = json!("x")), &["unknown field", "spec.coldKey"])?;
    refused(
        &world,
        &change(good(), |v| v["spec"]["template"]["spec"]["containres"] = json!([])),
        &["unknown field", "containres"],
    )?;
    refused(&world, &change(good(), |v| v["spec"]["coldkey"] = json!("not-an-address")), &["spec.coldkey"])?;
    refused(
        &world,
        &change(good(), |v| v["spec"]["axon"] = json!({ "exposure": "Static" })),
        &["axon.address is required"],
    )?;
    refused(
        &world,
        &change(good(), |v| v["spec"]["axon"] = json!({ "exposure": "None", "port": 0 })),
        &["spec.axon.port"],
    )?;
    refused(
        &world,
        &change(good(), |v| drop(v["spec"].as_object_mut().map(|spec| spec.remove("hotkeySecretRef")))),
        &["hotkeySecretRef"],
    )?;
    refused(&world, &change(good(), |v| v["metadata"]["name"] = json!("a".repeat(48))), &["at most 47 characters"])?;
    let network = |spec: Value| json!({ "apiVersion": "mycelium.network/v1alpha1", "kind": "Network", "metadata": { "name": "bad" }, "spec": spec });
    refused(&world, &network(json!({ "netuid": 70000, "chain": { "endpoints": ["ws://c:1"] } })), &["spec.netuid"])?;
    refused(
        &world,
        &network(json!({ "netuid": 1, "chain": { "endpoints": ["http://c:1"] } })),
        &["must start with ws:// or wss://"],
    )?;
    refused(
        &world,
        &network(json!({ "netuid": 1, "chain": { "endpoints": ["ws://c:1"], "archiveEndpoints": ["old:1"] } })),
        &["chain.archiveEndpoints: each must start with ws:// or wss://"],
    )?;
    refused(
        &world,
        &network(json!({ "netuid": 1, "chain": { "endpoints": ["ws://c:1"], "genesisHash": "0x12" } })),
        &["genesisHash"],
    )?;
    refused(
        &world,
        &network(json!({ "netuid": 1, "chain": { "endpoints": ["ws://c:1"] }, "group": { "voters": 4 } })),
        &["group.voters must be 3, 5 or 7"],
    )?;
    refused(
        &world,
        &network(json!({ "netuid": 1, "chain": { "endpoints": ["ws://c:1"] }, "minimumStake": -1 })),
        &["minimumStake"],
    )?;

    world.kubectl.apply(good().to_string().as_bytes())?;
    refused(
        &world,
        &change(good(), |v| v["spec"]["hotkeySecretRef"]["name"] = json!("other")),
        &["hotkeySecretRef cannot be changed"],
    )
}

#[test]
#[ignore = "needs a cluster"]
fn the_operator_tells_what_only_it_can_see() -> Result<()> {
    let world = World::at_rest()?;
    let restarts = world.operator_restarts()?;
    let namespace = world.kubectl.namespace("told")?;
    let ns = namespace.name();
    let apply = |manifest: &Value| world.kubectl.apply(manifest.to_string().as_bytes());
    let told = |name: &str, type_: &str, reason: &str, words: &[&str]| -> Result<()> {
        wait_until(PATIENCE, &format!("{name} to say {reason}"), || {
            let node = world.kubectl.json(&["--namespace", ns, "get", "validator", name])?;
            let (_, found, message) = condition_of(&node, type_)?;
            ensure!(found == reason, "{type_} is {found}: {message}");
            for word in words {
                ensure!(message.contains(word), "`{message}` lacks `{word}`");
            }
            let (ready, ready_reason, _) = condition_of(&node, "Ready")?;
            ensure!(ready == "False", "Ready is {ready} ({ready_reason})");
            let events = world.events(ns, name)?;
            ensure!(
                events.iter().any(|event| event.starts_with(&format!("{reason}: "))),
                "no event {reason}: {events:?}"
            );
            Ok(())
        })
    };
    let secret = |name: &str, file: &str| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": ns }, "stringData": { "hotkey": file } });
    let with_secret = |name: &str, secret: &str| {
        change(validator(ns, name), |v| v["spec"]["hotkeySecretRef"]["name"] = json!(secret))
    };

    apply(&with_secret("no-secret", "absent"))?;
    told("no-secret", "InvalidSpec", "SecretMissing", &["absent", "kubectl -n", "create secret generic"])?;

    apply(&secret("malformed", "{ \"ss58Address\": "))?;
    apply(&with_secret("malformed", "malformed"))?;
    told("malformed", "InvalidSpec", "SecretMalformed", &["hotkeySecretRef", "malformed"])?;

    let wrong_checksum = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ";
    apply(&change(with_secret("coldkey", "absent"), |v| v["spec"]["coldkey"] = json!(wrong_checksum)))?;
    told("coldkey", "InvalidSpec", "InvalidField", &["coldkey: `5Grwva", "checksum"])?;

    apply(&change(with_secret("no-network", "absent"), |v| v["spec"]["networkRef"] = json!({ "name": "nowhere" })))?;
    told("no-network", "InvalidSpec", "NetworkMissing", &["no Network `nowhere`"])?;

    apply(&change(with_secret("thief", "hotkey"), |v| {
        v["spec"]["template"]["spec"]["volumes"] = json!([{ "name": "x", "secret": { "secretName": "hotkey" } }]);
    }))?;
    told("thief", "InvalidSpec", "InvalidField", &["`hotkey` holds the hotkey and is for the sidecar alone"])?;
    for (name, field, value, part) in [
        (
            "mounts",
            "/containers/0/volumeMounts",
            json!([{ "name": "mycelium-hotkey", "mountPath": "/k" }]),
            "`mycelium-hotkey` is for the sidecar alone",
        ),
        ("looks", "/shareProcessNamespace", json!(true), "shareProcessNamespace: must be false"),
    ] {
        apply(&change(with_secret(name, "hotkey"), |v| {
            let spec = &mut v["spec"]["template"]["spec"];
            let (parent, key) = field.rsplit_once('/').expect("a path");
            spec.pointer_mut(parent).expect("its parent")[key] = value;
        }))?;
        told(name, "InvalidSpec", "InvalidField", &[part])?;
    }

    // Nobody else is disturbed, and the operator has not stumbled.
    let world = World::at_rest()?;
    ensure!(world.operator_restarts()? == restarts, "the operator was restarted");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn networks_that_do_not_fit_their_chain_say_why_and_disturb_no_other() -> Result<()> {
    let world = World::at_rest()?;
    let restarts = world.operator_restarts()?;
    let endpoint = world.kubectl.json(&["get", "network", "default"])?["spec"]["chain"]["endpoints"][0].clone();
    let cases = [
        (
            "no-subnet",
            json!({ "netuid": 77, "chain": { "endpoints": [endpoint] } }),
            "SubnetMissing",
            "no subnet with netuid 77",
        ),
        (
            "other-genesis",
            json!({ "netuid": 1, "chain": { "endpoints": [endpoint], "genesisHash": format!("0x{}", "ab".repeat(32)) } }),
            "GenesisMismatch",
            "0xabab",
        ),
        (
            "silent",
            json!({ "netuid": 1, "chain": { "endpoints": ["ws://127.0.0.1:1"] } }),
            "EndpointDown",
            "ws://127.0.0.1:1",
        ),
    ];
    for (name, spec, _, _) in &cases {
        let network = json!({ "apiVersion": "mycelium.network/v1alpha1", "kind": "Network", "metadata": { "name": name }, "spec": spec });
        world.kubectl.apply(network.to_string().as_bytes())?;
    }
    let result = (|| -> Result<()> {
        for (name, _, reason, words) in &cases {
            wait_until(PATIENCE, &format!("{name} to say {reason}"), || {
                let network = world.kubectl.json(&["get", "network", name])?;
                let (status, found, message) = condition_of(&network, "ChainSynced")?;
                ensure!(status == "False" && found == *reason, "{status} {found}: {message}");
                ensure!(message.contains(words), "{message}");
                let events = world.events("default", name)?;
                ensure!(events.iter().any(|event| event.starts_with(reason)), "no event {reason}: {events:?}");
                Ok(())
            })?;
        }
        Ok(())
    })();
    for (name, ..) in &cases {
        world.run(&["delete", "network", name])?;
    }
    result?;
    let world = World::at_rest()?;
    ensure!(world.operator_restarts()? == restarts, "the operator was restarted");
    Ok(())
}
