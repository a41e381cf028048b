//! The user's code in the pod.

use anyhow::{Context as _, Result, ensure};
use e2e::wait::wait_until;

use crate::world::{NAMESPACE, PATIENCE, VAL_1, World};

#[test]
#[ignore = "needs a cluster"]
fn the_example_validator_prints_scores_that_it_read_through_the_socket() -> Result<()> {
    let world = World::at_rest()?;
    wait_until(PATIENCE, "scores in the log", || {
        let log =
            world.run(&["--namespace", NAMESPACE, "logs", "validator-val-1", "--container=validator", "--tail=40"])?;
        ensure!(log.contains("5GCXWsxB5sFP") && log.contains("5EeupFpgU25W"), "no miner in the log:\n{log}");
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster"]
fn get_nodes_for_netuid_answers_with_real_nodes() -> Result<()> {
    let world = World::at_rest()?;
    // Without the variable that names the socket it asks the chain, as it does outside a pod.
    let script = "
import os, sys
from mycelium.chain.fetch_nodes import get_nodes_for_netuid
from mycelium.chain.interface import get_substrate
endpoint, source = sys.argv[1:]
if source == 'chain':
    del os.environ['MYCELIUM_SOCKET']
for node in get_nodes_for_netuid(get_substrate(subtensor_address=endpoint), 1):
    print(node.node_id, node.hotkey, node.stake > 0)
";
    let network = world.kubectl.json(&["get", "network", "default"])?;
    let endpoint = network["spec"]["chain"]["endpoints"][0].as_str().context("the Network names no endpoint")?;
    let exec = |source: &str| {
        let pod = ["--namespace", NAMESPACE, "exec", "validator-val-1", "--container=validator"];
        world.run(&[&pod[..], &["--", "python3", "-c", script, endpoint, source]].concat())
    };
    let through_socket = exec("socket")?;
    let by_chain = exec("chain")?;
    for answer in [through_socket, by_chain] {
        ensure!(answer.lines().count() == 5 && answer.starts_with(&format!("0 {VAL_1} True")), "{answer}");
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn the_hotkey_file_is_in_the_sidecar_alone() -> Result<()> {
    let world = World::at_rest()?;
    let pod = world.get("pod", "validator-val-1")?;
    let mounts = |list: &str, name: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().cloned().unwrap_or_default();
        let container = containers.into_iter().find(|container| container["name"] == name).unwrap_or_default();
        let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
        mounts.iter().filter_map(|mount| mount["name"].as_str().map(Into::into)).collect()
    };
    ensure!(mounts("initContainers", "sidecar").contains(&"mycelium-hotkey".into()));
    ensure!(!mounts("containers", "validator").contains(&"mycelium-hotkey".into()));
    let listing =
        "import os; print(sorted(os.listdir('/var/run/secrets')) if os.path.isdir('/var/run/secrets') else [])";
    let seen = world.run(&[
        "--namespace",
        NAMESPACE,
        "exec",
        "validator-val-1",
        "--container=validator",
        "--",
        "python3",
        "-c",
        listing,
    ])?;
    ensure!(seen.trim() == "[]", "the user's container sees {seen}");
    Ok(())
}
